/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_NN_SIMD_TRANSPOSE_H
#define UM_NN_SIMD_TRANSPOSE_H

#include "nn/simd/vec.h"

#include <stddef.h>

/* 8 rows of 8 floats, as columns of dst. */
UM_INLINE void transpose8(float *dst, ptrdiff_t ld_dst, __m256 r[8])
{
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(dst + i * ld_dst, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(dst + (i + 4) * ld_dst, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* dst[c][r] = src[r][c] * scale */
UM_INLINE void transpose(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld_src, int rows,
                         int cols, float scale)
{
    int r = 0;
    for (; r + 8 <= rows; r += 8) {
        int c = 0;
        for (; c + 8 <= cols; c += 8) {
            __m256 row[8];
            for (int i = 0; i < 8; i++)
                row[i] = _mm256_mul_ps(_mm256_loadu_ps(src + (r + i) * ld_src + c),
                                       _mm256_set1_ps(scale));
            transpose8(dst + c * ld_dst + r, ld_dst, row);
        }
        for (; c < cols; c++)
            for (int i = 0; i < 8; i++)
                dst[c * ld_dst + r + i] = src[(r + i) * ld_src + c] * scale;
    }
    for (; r < rows; r++)
        for (int c = 0; c < cols; c++)
            dst[c * ld_dst + r] = src[r * ld_src + c] * scale;
}

#endif
