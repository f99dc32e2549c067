/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_NN_SIMD_TRANSPOSE_H
#define UM_NN_SIMD_TRANSPOSE_H

#include "nn/simd/vec.h"

#include <stddef.h>

/* SIDE rows of SIDE floats, as columns of dst. */
#if VL == 4
enum { SIDE = 4 };
typedef vf side;

UM_INLINE void transpose_square(float *dst, ptrdiff_t ld_dst, side r[SIDE])
{
    side a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
    side b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    side c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    side d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    vf_store(dst, __builtin_shufflevector(a, b, 0, 1, 4, 5));
    vf_store(dst + ld_dst, __builtin_shufflevector(a, b, 2, 3, 6, 7));
    vf_store(dst + 2 * ld_dst, __builtin_shufflevector(c, d, 0, 1, 4, 5));
    vf_store(dst + 3 * ld_dst, __builtin_shufflevector(c, d, 2, 3, 6, 7));
}
#else
enum { SIDE = 8 };
typedef __m256 side;

UM_INLINE void transpose_square(float *dst, ptrdiff_t ld_dst, side r[SIDE])
{
    side t[SIDE];
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
#endif

UM_INLINE side side_load(const float *p)
{
#if VL == 4
    return vf_load(p);
#else
    return _mm256_loadu_ps(p);
#endif
}

/* dst[c][r] = src[r][c] * scale */
UM_INLINE void transpose(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld_src, int rows,
                         int cols, float scale)
{
    int r = 0;
    for (; r + SIDE <= rows; r += SIDE) {
        int c = 0;
        for (; c + SIDE <= cols; c += SIDE) {
            side row[SIDE];
            for (int i = 0; i < SIDE; i++)
                row[i] = side_load(src + (r + i) * ld_src + c) * scale;
            transpose_square(dst + c * ld_dst + r, ld_dst, row);
        }
        for (; c < cols; c++)
            for (int i = 0; i < SIDE; i++)
                dst[c * ld_dst + r + i] = src[(r + i) * ld_src + c] * scale;
    }
    for (; r < rows; r++)
        for (int c = 0; c < cols; c++)
            dst[c * ld_dst + r] = src[r * ld_src + c] * scale;
}

#endif
