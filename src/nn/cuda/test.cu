/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that the tests of the device layer launch: one block, any number of threads. */
#include "nn/cuda/test.h"

#include "nn/cuda/kernel.h"

KERNEL(um_test_affine, um_test_affine_args, a, 256)
{
    for (int i = (int)threadIdx.x; i < a.n; i += (int)blockDim.x)
        a.y[i] = a.x[i] * a.scale + a.shift;
}

KERNEL(um_test_count, um_test_count_args, a, 256)
{
    for (int i = (int)threadIdx.x; i < a.rows * a.w; i += (int)blockDim.x)
        a.y[i] = 1000 * (i / a.w) + i % a.w;
}
