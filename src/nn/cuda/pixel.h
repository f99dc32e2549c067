/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in pixel.cu. */
#ifndef UM_NN_CUDA_PIXEL_H
#define UM_NN_CUDA_PIXEL_H

#include "nn/cuda/view.h"

#include <stdint.h>

#define UM_CUDA_PIXEL_KERNELS(X) \
    X(um_dwconv_3s1_strip4)      \
    X(um_dwconv_3s1_strip2)      \
    X(um_dwconv_5s1_strip4)      \
    X(um_dwconv_5s1_strip2)      \
    X(um_dwconv_3s2_strip2)      \
    X(um_dwconv_5s2_strip2)      \
    X(um_dwconv_any)             \
    X(um_add_vectors) X(um_maxpool2_vectors) X(um_scale_rows_vectors) X(um_gather_vectors)

/* A thread computes 8 channels of a strip of pixels; channels run fastest over the threads. */
struct um_dwconv_vectors_args {
    struct um_gview out, x, add;
    const float *w, *b; /* [kh*kw, c], [c] or NULL */
    int kh, kw, stride, pad_top, pad_left;
    int act, add_last, add_up2;
    float limit, lab_scale, lab_shift;
    int groups, strips; /* of 8 channels in a pixel, of pixels in a row */
    int items;          /* threads with work */
    int plain;          /* output and addend are of x's type in vectors, each pixel in its place */
};

/* out = act(a + b) */
struct um_add_vectors_args {
    struct um_gview out, a, b;
    int act;
    float limit;
    int one_row, one_channel; /* of b */
    int groups, items;
};

/* 2x2 max, stride 1, zeros right and below */
struct um_maxpool2_vectors_args {
    struct um_gview out, x;
    int groups, items;
};

/* out[row] = x[row] m[row] */
struct um_scale_rows_vectors_args {
    struct um_gview out, x, m;
    int groups, items;
};

/* out[row] = x[index[row * step]] */
struct um_gather_vectors_args {
    struct um_gview out, x;
    const int32_t *index;
    int step;
    int groups, items;
};

#endif
