/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of at most one vector of outputs, on vectors of 16: a tile of the product would load
 * a number for every FMA. Here a number that is loaded goes into all taps of its row, of
 * neighbouring pixels. */
#ifndef UM_NN_SIMD_SLIM_H
#define UM_NN_SIMD_SLIM_H

#include "nn/simd/gemm.h"

enum { SLIM = 16 /* pixels side by side, the least that a row has */, SLIM_TAPS = 3 };

struct slim {
    const struct gemm *g;
    const struct um_conv_args *conv;
    const float *row[SLIM_TAPS]; /* pixel 0 of the input row under each kernel row; NULL: padding */
    int width;                   /* of the input in pixels */
    ptrdiff_t ldx, ld;           /* floats from pixel to pixel, of the input and of the output */
};

/* The rows of x under output row y. */
UM_INLINE void slim_look(struct slim *s, const struct um_view *x, int y)
{
    for (int ky = 0; ky < s->conv->kh; ky++) {
        int iy = y * s->conv->stride - s->conv->pad_top + ky;
        s->row[ky] = iy >= 0 && iy < x->h ? um_view_at(x, (ptrdiff_t)iy * x->w) : NULL;
    }
}

/* Is there a kernel for convolution `a` with g, `c` input channels and rows of `out_w` outputs? */
bool UM_NAME(slim_fits)(const struct gemm *g, const struct um_conv_args *a, int c, int out_w);
/* One row of outputs. `room`: scratch. */
void UM_NAME(slim_row)(const struct slim *s, int c, float *out, int out_w, float *room);
#define um_slim_fits UM_NAME(slim_fits)
#define um_slim_row UM_NAME(slim_row)

#endif
