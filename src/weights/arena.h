/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is freed in one go: names, parsed values, tensors that had to be made. */
#ifndef UM_WEIGHTS_ARENA_H
#define UM_WEIGHTS_ARENA_H

#include <stddef.h>

struct um_arena_block;
struct um_arena {
    struct um_arena_block *first;
};

void *um_arena_take(struct um_arena *a,
                    size_t size); /* 16-byte aligned; NULL when memory ran out */
char *um_arena_string(struct um_arena *a, const void *s, size_t n); /* copy and terminate */
void um_arena_finish(struct um_arena *a);

#endif
