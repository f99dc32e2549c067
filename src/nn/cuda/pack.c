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
        for (int x = 0; x < k; x++) {
            int lane = y % 8 * 4 + x % 8 / 2, e = x % 32 / 16 * 4 + x % 16 / 8 * 2 + x % 2;
            size_t tile = (size_t)(y / UM_PACK_N) * (size_t)k_tiles + (size_t)(x / UM_PACK_K);
            to_half(&out[(tile * 32 + (size_t)lane) * 8 + (size_t)e],
                    &w[(size_t)y * (size_t)k + (size_t)x], 1);
        }
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
