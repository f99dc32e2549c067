/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions on bytes. The input of a layer is quantised to u8, q = x*inv[channel] + zero rounded
 * to even and clamped: one scale for the whole tensor, times a power of two for each channel, which
 * its weights are divided by. Weights are s8 with a scale for each output. Sums are whole numbers
 * and exact, so they depend on nothing but the quantised numbers; y = (float)sum*scale[o] + bias[o]
 * in one rounding, and then as in floats. Padding is `zero`, which stands for 0. */
#ifndef UM_NN_INT8_H
#define UM_NN_INT8_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* The range of an input, its channels times 2^shift, that bytes stand for; it contains 0. */
struct um_range {
    float lo, hi;
};

/* A layer before it is packed for a level. */
struct um_int8_layer {
    int o, kh, kw, i;
    int32_t zero;
    const float *inv;     /* [i] */
    const int8_t *w;      /* [o][kh][kw][i] */
    const float *scale;   /* [o]: of a sum */
    const int32_t *start; /* [o]: -zero * sum of w: where the sums start */
};

/* What packed weights begin with; then at 64-byte borders inv, scales, starts and bytes. */
struct um_int8_head {
    int32_t zero, i;
};
enum { UM_INT8_ALIGN = 64 };

static inline size_t um_int8_round(size_t bytes)
{
    return (bytes + UM_INT8_ALIGN - 1) / UM_INT8_ALIGN * UM_INT8_ALIGN;
}

static inline const float *um_int8_inv(const void *packed)
{
    return (const float *)(const void *)((const unsigned char *)packed + UM_INT8_ALIGN);
}

/* What follows inv. */
static inline const void *um_int8_scale(const void *packed)
{
    const struct um_int8_head *head = (const struct um_int8_head *)packed;
    return (const unsigned char *)packed + UM_INT8_ALIGN +
           um_int8_round((size_t)head->i * sizeof(float));
}

/* NaN becomes 0. */
static inline uint8_t um_int8_of(float x, float inv, int32_t zero)
{
    float q = fmaf(x, inv, (float)zero);
    return (uint8_t)(q > 0 ? q < 255 ? rintf(q) : 255 : 0);
}

#endif
