/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_NN_SIMD_ROOM_H
#define UM_NN_SIMD_ROOM_H

#include "nn/simd/vec.h"

#include <stddef.h>

enum { POINTER = sizeof(void *) / sizeof(float) }; /* floats that a pointer takes */

/* The next `floats` of the memory at base, of which *at are taken; NULL: they are only counted. */
UM_INLINE float *room_take(float *base, size_t *at, size_t floats)
{
    size_t offset = *at;
    *at += (floats + 31) / 32 * 32;
    return base ? base + offset : NULL;
}

#endif
