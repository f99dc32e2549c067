/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* madvise() */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Large memory starts on a huge page: weights and arenas are walked every frame, and a file's bytes
 * would cost more in faults than to read. */
enum { HUGE = 2 << 20, HUGE_FROM = 4 << 20 };

static atomic_uint_fast64_t count;
static atomic_uint_fast64_t fail_at; /* absolute index of the allocation to fail; 0 = never */

uint64_t um_mem_count(void)
{
    return atomic_load(&count);
}

void um_mem_fail_at(uint64_t k)
{
    atomic_store(&fail_at, k ? atomic_load(&count) + k : 0);
}

void *um_alloc(size_t size)
{
    uint64_t n = atomic_fetch_add(&count, 1) + 1;
    if (n == atomic_load(&fail_at) || size > SIZE_MAX - HUGE)
        return NULL;
    void *p = NULL;
    if (size < HUGE_FROM)
        return aligned_alloc(64, (size + 63) / 64 * 64 + (size == 0) * 64);
    if (posix_memalign(&p, HUGE, size) != 0)
        return NULL;
    madvise(p, size / HUGE * HUGE, MADV_HUGEPAGE); /* advice: failing costs speed only */
    return p;
}

void *um_zalloc(size_t size)
{
    void *p = um_alloc(size);
    if (p)
        memset(p, 0, size);
    return p;
}

void *um_array(size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        return NULL;
    return um_zalloc(n * size);
}

void *um_grow(void *old, size_t old_size, size_t new_size)
{
    void *p = um_alloc(new_size);
    if (p && old) {
        memcpy(p, old, old_size < new_size ? old_size : new_size);
        um_free(old);
    }
    return p;
}

bool um_make_room(void *list, size_t *room, size_t used, size_t more, size_t size)
{
    enum { LEAST = 512 }; /* bytes */
    size_t n = *room ? *room : 1 + LEAST / size;
    void *items;
    if (more <= *room - used)
        return true;
    while (more > n - used)
        if ((n *= 2) > SIZE_MAX / 4 / size)
            return false;
    memcpy(&items, list, sizeof items); /* of any type */
    items = um_grow(items, used * size, n * size);
    if (!items)
        return false;
    memcpy(list, &items, sizeof items);
    *room = n;
    return true;
}

char *um_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = um_alloc(n);
    return p ? memcpy(p, s, n) : NULL;
}

void um_free(void *p)
{
    free(p);
}
