/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalisation as a node of its own: one warp per row, the row in registers (up to 512 or 1280
 * channels, eight neighbours to a lane), mean first and then the squared differences, all in fp32. */
#include "nn/cuda/norm.h"

#include "nn/cuda/kernel.h"

enum { WARPS = 8, NARROW = 2, WIDE = 5 /* groups of 256 channels */ };

/* The first of the eight channels that a lane has in group g. */
DEVICE int channel(int g)
{
    return 8 * ((int)(threadIdx.x & 31) + 32 * g);
}

/* The row in v normalised and stored. */
template <int GROUPS>
DEVICE void normalise(const um_gview &out, int64_t row, float v[GROUPS][8], const float *gamma,
                      const float *beta, float eps, int act)
{
    float g[GROUPS][8], b[GROUPS][8], mean = 0, var = 0;
    int c = out.c;
    UNROLL
    for (int k = 0; k < GROUPS; k++)
        UNROLL
        for (int i = 0; i < 8; i++) {
            bool there = channel(k) + i < c;
            g[k][i] = there ? gamma[channel(k) + i] : 0;
            b[k][i] = there ? beta[channel(k) + i] : 0;
            mean += v[k][i];
        }
    mean = warp_sum(mean) / (float)c;
    UNROLL
    for (int k = 0; k < GROUPS; k++)
        UNROLL
        for (int i = 0; i < 8; i++) {
            float d = channel(k) + i < c ? v[k][i] - mean : 0;
            var += d * d;
        }
    float scale = 1 / sqrtf(warp_sum(var) / (float)c + eps);
    UNROLL
    for (int k = 0; k < GROUPS; k++) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[k][i] = (v[k][i] - mean) * scale * g[k][i] + b[k][i];
        activate_all<8>(act, 0, v[k], out.dtype == UM_F32);
        if (channel(k) < c)
            store_some(out, row, channel(k), v[k]);
    }
}

template <int GROUPS> DEVICE void layer_norm(const um_layer_norm_rows_args &a)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    float v[GROUPS][8], add[8];
    if (row >= a.rows)
        return;
    UNROLL
    for (int k = 0; k < GROUPS; k++) {
        load_some(a.x, row, channel(k), a.x.c - channel(k), v[k]);
        if (a.add.data) {
            load_some(a.add, row, channel(k), a.x.c - channel(k), add);
            UNROLL
            for (int i = 0; i < 8; i++)
                v[k][i] += add[i];
        }
    }
    normalise<GROUPS>(a.out, row, v, a.gamma, a.beta, a.eps, a.act);
}

KERNEL(um_layer_norm_rows, um_layer_norm_rows_args, a, 32 * WARPS)
{
    layer_norm<NARROW>(a);
}

KERNEL(um_layer_norm_wide, um_layer_norm_rows_args, a, 32 * WARPS)
{
    layer_norm<WIDE>(a);
}

KERNEL(um_gate_norm_rows, um_gate_norm_rows_args, a, 32 * WARPS)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    float v[NARROW][8], to_a[8], to_b[8], x[8], y[8];
    int c = a.out.c;
    if (row >= a.rows)
        return;
    UNROLL
    for (int k = 0; k < NARROW; k++) {
        int col = channel(k);
        load_some(a.g, row, col, c - col, to_a);
        UNROLL
        for (int i = 0; i < 8; i++)
            to_b[i] = col + i < c ? load(a.g, row, c + col + i) : 0;
        load_some(a.a, row, col, c - col, x);
        load_some(a.b, row, col, c - col, y);
        UNROLL
        for (int i = 0; i < 8; i++)
            v[k][i] = to_a[i] * x[i] + to_b[i] * y[i];
    }
    normalise<NARROW>(a.out, row, v, a.gamma, a.beta, a.eps, UM_ACT_NONE);
}
