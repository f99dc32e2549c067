/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in norm.cu. */
#ifndef UM_NN_CUDA_NORM_H
#define UM_NN_CUDA_NORM_H

#include "nn/cuda/view.h"

#define UM_CUDA_NORM_KERNELS(X) X(um_layer_norm_rows) X(um_layer_norm_wide) X(um_gate_norm_rows)

/* out = act(LN(x + add)); one warp per row; out may be x */
struct um_layer_norm_rows_args {
    struct um_gview out, x, add;
    const float *gamma, *beta;
    float eps;
    int act, rows;
};

/* out = LN(g[:, :c] a + g[:, c:] b); one warp per row */
struct um_gate_norm_rows_args {
    struct um_gview out, g, a, b;
    const float *gamma, *beta;
    float eps;
    int rows;
};

#endif
