/* SPDX-License-Identifier: Apache-2.0 */
/* The one rule for structs that cross the library's border: the first member is size_t struct_size,
 * what the other side believes the struct's size to be. Neither side touches a byte beyond it. */
#ifndef UM_BASE_RECORD_H
#define UM_BASE_RECORD_H

#include "base/status.h"

#include <stddef.h>

/* Read a caller's struct: what lies behind an older caller's end stays as it is in `own`, which
 * holds the defaults, as all does without a struct; a newer caller's end must be zero. UM_EINVAL
 * names the struct. */
um_status um_record_in(void *own, size_t own_size, const void *theirs, const char *name);
/* Write a caller's struct as far as it goes. Its struct_size stays. UM_EINVAL if that is unset. */
um_status um_record_out(void *theirs, const void *own, size_t own_size, const char *name);
/* The same for um_X_init(): `theirs` has no size yet. */
void um_record_init(void *theirs, size_t their_size, const void *own, size_t own_size);

#endif
