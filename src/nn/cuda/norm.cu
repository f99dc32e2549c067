/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalisation as a node of its own: one warp per row, the row in registers (up to 512
 * channels), mean first and then the squared differences, all in fp32. */
#include "nn/cuda/norm.h"

#include "nn/cuda/kernel.h"

enum { WARPS = 8, PER_LANE = 16 };

/* The row's elements lane, lane + 32, … normalised and stored. */
DEVICE void normalise(const um_gview &out, int64_t row, const float *v, int lane,
                      const float *gamma, const float *beta, float eps, int act)
{
    int c = out.c;
    float mean = 0, var = 0;
    UNROLL
    for (int k = 0; k < PER_LANE; k++)
        mean += lane + 32 * k < c ? v[k] : 0;
    mean = warp_sum(mean) / (float)c;
    UNROLL
    for (int k = 0; k < PER_LANE; k++) {
        float d = lane + 32 * k < c ? v[k] - mean : 0;
        var += d * d;
    }
    float scale = 1 / sqrtf(warp_sum(var) / (float)c + eps);
    UNROLL
    for (int k = 0; k < PER_LANE; k++) {
        int i = lane + 32 * k;
        if (i < c)
            store(out, row, i,
                  activate(act, 0, (v[k] - mean) * scale * gamma[i] + beta[i],
                           out.dtype == UM_F32));
    }
}

KERNEL(um_layer_norm_rows, um_layer_norm_rows_args, a, 32 * WARPS)
{
    int lane = threadIdx.x & 31;
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    float v[PER_LANE];
    if (row >= a.rows)
        return;
    UNROLL
    for (int k = 0; k < PER_LANE; k++) {
        int i = lane + 32 * k;
        v[k] = i < a.x.c ? load(a.x, row, i) : 0;
        if (a.add.data && i < a.x.c)
            v[k] += load(a.add, row, i);
    }
    normalise(a.out, row, v, lane, a.gamma, a.beta, a.eps, a.act);
}

KERNEL(um_gate_norm_rows, um_gate_norm_rows_args, a, 32 * WARPS)
{
    int lane = threadIdx.x & 31, c = a.out.c;
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    float v[PER_LANE];
    if (row >= a.rows)
        return;
    UNROLL
    for (int k = 0; k < PER_LANE; k++) {
        int i = lane + 32 * k;
        v[k] = i < c ? load(a.g, row, i) * load(a.a, row, i) +
                           load(a.g, row, c + i) * load(a.b, row, i)
                     : 0;
    }
    normalise(a.out, row, v, lane, a.gamma, a.beta, a.eps, UM_ACT_NONE);
}
