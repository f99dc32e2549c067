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

#include <stddef.h>

#ifndef UM_PACK /* a GPU's source says it in its own words */
#define UM_PACK static inline
#endif

enum { UM_PACK_N = 8, UM_PACK_K = 32 };

UM_PACK size_t um_pack_place(int n, int k, int k_tiles)
{
    size_t tile = (size_t)(n / UM_PACK_N) * (size_t)k_tiles + (size_t)(k / UM_PACK_K);
    int lane = n % 8 * 4 + k % 8 / 2, e = k % 32 / 16 * 4 + k % 16 / 8 * 2 + k % 2;
    return (tile * 32 + (size_t)lane) * 8 + (size_t)e;
}

#ifndef __cplusplus

size_t um_cuda_pack_f16(void *dst, const float *w, int o, int kh, int kw, int i);
size_t um_cuda_pack_bf16(void *dst, const float *w, int o, int kh, int kw, int i);
#endif

#endif
