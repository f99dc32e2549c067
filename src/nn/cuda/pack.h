/* SPDX-License-Identifier: Apache-2.0 */
/* Weights in the order in which a tensor core's lanes want them: the right-hand side of
 * mma.m16n8k16, two steps of k at a time, so that a lane's share of (8 columns, 32 rows of k) is 16
 * contiguous bytes and a warp reads 512.
 *
 *     half ((n/8 * k_tiles + k/32) * 32 + lane) * 8 + e,  k_tiles = ceil(K/32)
 *     lane = n%8 * 4 + k%8/2,  e = k%32/16 * 4 + k%16/8 * 2 + k%2
 *
 * K = kh*kw*i in the order (ky, kx, channel); columns n and rows k beyond the layer's are zero. */
#ifndef UM_NN_CUDA_PACK_H
#define UM_NN_CUDA_PACK_H

enum { UM_PACK_N = 8, UM_PACK_K = 32 };

#ifndef __cplusplus
#include <stddef.h>

size_t um_cuda_pack_f16(void *dst, const float *w, int o, int kh, int kw, int i);
size_t um_cuda_pack_bf16(void *dst, const float *w, int o, int kh, int kw, int i);
#endif

#endif
