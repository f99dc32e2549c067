/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_MEM_H
#define UM_BASE_MEM_H

#include "ultramotion/status.h" /* um_free() */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Heap memory of the library. All return NULL on failure (or on size overflow) and record no error
 * text. */
void *um_alloc(size_t size);               /* uninitialised, 64-byte aligned */
void *um_zalloc(size_t size);              /* zeroed, 64-byte aligned */
void *um_array(size_t count, size_t size); /* zeroed, count*size checked */
void *um_grow(void *old, size_t old_size,
              size_t new_size); /* moves the first old_size bytes; old stays valid on failure */
/* Room for `more` elements of `size` bytes behind the `used` ones of a list (T **) that has room
 * for *room: it at least doubles. False: no memory, and the list is as it was. */
bool um_make_room(void *list, size_t *room, size_t used, size_t more, size_t size);
char *um_strdup(const char *s);

/* Test hooks: how many allocations happened so far, and make the k-th one from now fail (0 =
 * never). */
uint64_t um_mem_count(void);
void um_mem_fail_at(uint64_t k);

#endif
