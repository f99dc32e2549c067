/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/arena.h"

#include "base/mem.h"

#include <stdint.h>
#include <string.h>

enum { ALIGN = 16, BLOCK_BYTES = 64 << 10 };

struct um_arena_block {
    struct um_arena_block *next;
    size_t used, size;
    unsigned char *data;
};

static struct um_arena_block *add_block(struct um_arena *a, size_t size)
{
    enum { HEAD = (sizeof(struct um_arena_block) + ALIGN - 1) / ALIGN * ALIGN };
    if (size > SIZE_MAX - HEAD)
        return NULL;
    struct um_arena_block *b = um_alloc(HEAD + size);
    if (!b)
        return NULL;
    *b = (struct um_arena_block){.size = size, .data = (unsigned char *)b + HEAD};
    /* A large piece goes behind the block in use, so that the rest of that one is not lost. */
    if (size > BLOCK_BYTES && a->first) {
        b->next = a->first->next;
        a->first->next = b;
    } else {
        b->next = a->first;
        a->first = b;
    }
    return b;
}

void *um_arena_take(struct um_arena *a, size_t size)
{
    if (size > SIZE_MAX - ALIGN)
        return NULL;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    struct um_arena_block *b = a->first;
    if (!b || size > b->size - b->used)
        b = add_block(a, size > BLOCK_BYTES / 4 ? size : BLOCK_BYTES);
    if (!b)
        return NULL;
    void *p = b->data + b->used;
    b->used += size;
    return p;
}

char *um_arena_string(struct um_arena *a, const void *s, size_t n)
{
    char *p = n < SIZE_MAX ? um_arena_take(a, n + 1) : NULL;
    if (p) {
        if (n)
            memcpy(p, s, n);
        p[n] = 0;
    }
    return p;
}

void um_arena_finish(struct um_arena *a)
{
    for (struct um_arena_block *b = a->first, *next; b; b = next) {
        next = b->next;
        um_free(b);
    }
    a->first = NULL;
}
