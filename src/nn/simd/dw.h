/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of a depthwise convolution for a run of output pixels of one row. */
#ifndef UM_NN_SIMD_DW_H
#define UM_NN_SIMD_DW_H

#include "nn/op.h"
#include "nn/simd/vec.h"

struct dw_row {
    const float *const
        *in; /* [kh]: pixel 0 of the input row under each kernel row; NULL: row of padding */
    ptrdiff_t ldx, ldy; /* floats from pixel to pixel */
    const float *w;     /* [kh*kw][ldw] */
    ptrdiff_t ldw;
    const float *bias;                   /* [c] or NULL */
    int kh, kw, stride, pad_left, width; /* width of the input in pixels */
    int c;
};

/* y = sums of output pixels x0..x1-1 (y is pixel x0). */
void UM_NAME(dw_row)(const struct dw_row *d, float *y, int x0, int x1);
#define um_dw_row UM_NAME(dw_row)

#endif
