/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_NN_SIMD_CONV_H
#define UM_NN_SIMD_CONV_H

#include "nn/op.h"
#include "nn/simd/vec.h"

/* The kernels of conv.c, dw.c, mlp.c, mbconv.c and stem.c on this level. */
um_kernel UM_NAME(conv2d), UM_NAME(upconv2), UM_NAME(matmul_nt), UM_NAME(dwconv), UM_NAME(mlp),
    UM_NAME(mbconv), UM_NAME(stem);
size_t UM_NAME(pack_conv)(void *dst, const float *w, int o, int kh, int kw, int i);

#endif
