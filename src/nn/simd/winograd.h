/* SPDX-License-Identifier: Apache-2.0 */
/* 3x3 convolutions of stride 1 as F(2x2, 3x3) (Lavin and Gray, arXiv:1509.09308): a tile of 2x2
 * outputs from 16 products instead of 36, each a matrix product over many tiles. Errors are about
 * 1.5 times those of the direct sum. */
#ifndef UM_NN_SIMD_WINOGRAD_H
#define UM_NN_SIMD_WINOGRAD_H

#include "nn/simd/gemm.h"

/* Transformed weights of w [o][3][3][i], which lie behind the direct ones; floats, 0 where direct
 * sums are as good. */
size_t UM_NAME(winograd_floats)(int o, int i);
void UM_NAME(winograd_pack)(float *dst, const float *w, int o, int i);
/* Does CONV2D of `call` with g, whose weights are `packed`, or says that it is none for it. */
bool UM_NAME(winograd)(const struct um_call *call, const struct gemm *g, const float *packed);

#define um_winograd_floats UM_NAME(winograd_floats)
#define um_winograd_pack UM_NAME(winograd_pack)
#define um_winograd UM_NAME(winograd)

#endif
