/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

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
    if (n == atomic_load(&fail_at) || size > SIZE_MAX - 64)
        return NULL;
    return aligned_alloc(64, (size + 63) / 64 * 64 + (size == 0) * 64);
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
