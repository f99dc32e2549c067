/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions on bytes. The input of a layer is quantised to u8, q = x*inv + zero rounded to even
 * and clamped, with one scale and zero for the whole tensor; its weights are s8 with a scale for
 * each output. Sums are whole numbers and exact, so they depend on nothing but the quantised
 * numbers; y = (float)sum*scale[o] + bias[o] in one rounding, and then as in floats. Padding is
 * `zero`, which stands for 0. */
#ifndef UM_NN_INT8_H
#define UM_NN_INT8_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* The range of an input that bytes stand for; it contains 0. */
struct um_range {
    float lo, hi;
};

/* A layer before it is packed for a level. */
struct um_int8_layer {
    int o, kh, kw, i;
    float inv;
    int32_t zero;
    const int8_t *w;      /* [o][kh][kw][i] */
    const float *scale;   /* [o]: weight's scale / inv */
    const int32_t *start; /* [o]: -zero * sum of w: where the sums start */
};

/* What packed weights begin with; their scales, starts and bytes follow at 64-byte borders. */
struct um_int8_head {
    float inv;
    int32_t zero;
};
enum { UM_INT8_ALIGN = 64 };

static inline size_t um_int8_round(size_t bytes)
{
    return (bytes + UM_INT8_ALIGN - 1) / UM_INT8_ALIGN * UM_INT8_ALIGN;
}

/* NaN becomes 0. */
static inline uint8_t um_int8_of(float x, float inv, int32_t zero)
{
    float q = fmaf(x, inv, (float)zero);
    return (uint8_t)(q > 0 ? q < 255 ? rintf(q) : 255 : 0);
}

#endif
