/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions in bf16: inputs and weights are rounded to nearest even, their products are exact
 * and their sums floats, to which bias, residual and activation come as elsewhere. Between layers
 * are floats. */
#ifndef UM_NN_BF16_H
#define UM_NN_BF16_H

#include "nn/narrow.h"

#include <stdint.h>
#include <string.h>

/* Packed weights: UM_BF16_ALIGN bytes from their head come the numbers, which each level lays out
 * as it likes. */
enum { UM_BF16_ALIGN = 64 };

static inline const uint16_t *um_bf16_weights(const void *packed)
{
    return (const uint16_t *)(const void *)((const unsigned char *)packed + UM_BF16_ALIGN);
}

static inline uint16_t *um_bf16_write(void *packed, enum um_narrow_how how)
{
    struct um_narrow_head head = {how};
    memcpy(packed, &head, sizeof head);
    return (uint16_t *)(void *)((unsigned char *)packed + UM_BF16_ALIGN);
}

/* To nearest even; NaN stays NaN. */
static inline uint16_t um_bf16_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float um_bf16_float(uint16_t x)
{
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
