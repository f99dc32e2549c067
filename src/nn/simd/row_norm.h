/* SPDX-License-Identifier: Apache-2.0 */
/* LayerNorm of one row, as the prologue of a fused block. */
#ifndef UM_NN_SIMD_ROW_NORM_H
#define UM_NN_SIMD_ROW_NORM_H

#include "nn/simd/vec.h"

/* y = LN(x) gamma + beta over c channels; two passes, so that a large mean does not cancel. y may
 * be x. */
UM_INLINE void um_row_norm(float *y, const float *x, const float *gamma, const float *beta, int c,
                           float eps)
{
    int whole = c / VL * VL, rest = c - whole;
    vi real = vi_first(rest); /* lanes of the last, partial vector */
    vf s0 = vf_load_n(x + whole, rest), s1 = vf_zero();
    for (int i = 0; i < whole; i += 2 * VL) {
        s0 += vf_load(x + i);
        if (i + VL < whole)
            s1 += vf_load(x + i + VL);
    }
    vf mean = vf_set1(vf_sum(s0 + s1) / (float)c);
    vf d = vf_select(real, vf_load_n(x + whole, rest) - mean, vf_zero());
    s0 = d * d;
    s1 = vf_zero();
    for (int i = 0; i < whole; i += 2 * VL) {
        d = vf_load(x + i) - mean;
        s0 = vf_fma(d, d, s0);
        if (i + VL < whole) {
            d = vf_load(x + i + VL) - mean;
            s1 = vf_fma(d, d, s1);
        }
    }
    vf scale = 1.0f / vf_sqrt(vf_set1(vf_sum(s0 + s1) / (float)c + eps));
    for (int i = 0; i < whole; i += VL)
        vf_store(y + i,
                 vf_fma((vf_load(x + i) - mean) * scale, vf_load(gamma + i), vf_load(beta + i)));
    if (rest)
        vf_store_n(y + whole,
                   vf_fma((vf_load_n(x + whole, rest) - mean) * scale,
                          vf_load_n(gamma + whole, rest), vf_load_n(beta + whole, rest)),
                   rest);
}

#endif
