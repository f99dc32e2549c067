/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/pack.h"

#include "base/half.h"

#include <string.h>

static size_t pack(void *dst, const float *w, int n, int k,
                   void (*to_half)(uint16_t *, const float *, size_t))
{
    int k_tiles = (k + UM_PACK_K - 1) / UM_PACK_K, n_tiles = (n + UM_PACK_N - 1) / UM_PACK_N;
    size_t bytes = (size_t)n_tiles * UM_PACK_N * (size_t)k_tiles * UM_PACK_K * sizeof(uint16_t);
    uint16_t *out = dst;
    if (!dst)
        return bytes;
    memset(dst, 0, bytes);
    for (int y = 0; y < n; y++)
        for (int x = 0; x < k; x++)
            to_half(&out[um_pack_place(y, x, k_tiles)], &w[(size_t)y * (size_t)k + (size_t)x], 1);
    return bytes;
}

size_t um_cuda_pack_f16(void *dst, const float *w, int o, int kh, int kw, int i)
{
    return pack(dst, w, o, kh * kw * i, um_f32_to_f16);
}

size_t um_cuda_pack_bf16(void *dst, const float *w, int o, int kh, int kw, int i)
{
    return pack(dst, w, o, kh * kw * i, um_f32_to_bf16);
}
