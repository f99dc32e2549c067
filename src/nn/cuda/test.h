/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in test.cu, for the tests of the device layer. */
#ifndef UM_NN_CUDA_TEST_H
#define UM_NN_CUDA_TEST_H

#define UM_CUDA_TEST_KERNELS(X) X(um_test_affine) X(um_test_count)

struct um_test_affine_args { /* y = x*scale + shift */
    float *y;
    const float *x;
    int n;
    float scale, shift;
};

struct um_test_count_args { /* y[r*w + i] = 1000*r + i */
    int *y;
    int rows, w;
};

#endif
