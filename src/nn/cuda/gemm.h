/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in gemm.cu. */
#ifndef UM_NN_CUDA_GEMM_H
#define UM_NN_CUDA_GEMM_H

#include "nn/cuda/view.h"

/* Halves of a gathered row in shared memory, and floats behind a row of sums. */
enum { UM_GEMM_LD = 40, UM_GEMM_PAD = 4 };

/* X(suffix, rows, columns of a block's tile, warps down, warps across, bare): a bare one takes
 * vectors of halves as they are, no norm before and no addend. */
// clang-format off
#define UM_CUDA_GEMM_TILES(X)                                       \
    X(128x64, 128, 64, 4, 2, true) X(64x64, 64, 64, 2, 2, false)    \
    X(32x32, 32, 32, 2, 2, false) X(16x32, 16, 32, 1, 4, false)
/* Tiles as wide as the output, for norms of whole rows. */
#define UM_CUDA_GEMM_ROWS(X)                                        \
    X(16x128, 16, 128, 1, 8, false) X(16x256, 16, 256, 1, 8, false) \
    X(32x256, 32, 256, 1, 8, false) X(16x512, 16, 512, 1, 8, false)
#define UM_CUDA_GEMM_KERNELS(X)                                     \
    X(um_gemm_128x64_f16) X(um_gemm_128x64_bf16)                    \
    X(um_gemm_64x64_f16) X(um_gemm_64x64_bf16)                      \
    X(um_gemm_32x32_f16) X(um_gemm_32x32_bf16)                      \
    X(um_gemm_16x32_f16) X(um_gemm_16x32_bf16)                      \
    X(um_gemm_16x128_f16) X(um_gemm_16x128_bf16)                    \
    X(um_gemm_16x256_f16) X(um_gemm_16x256_bf16)                    \
    X(um_gemm_32x256_f16) X(um_gemm_32x256_bf16)                    \
    X(um_gemm_16x512_f16) X(um_gemm_16x512_bf16)                    \
    X(um_gate_rows_256_f16) X(um_gate_rows_256_bf16)                \
    X(um_gate_rows_512_f16) X(um_gate_rows_512_bf16)                \
    X(um_gemm_plain_64) X(um_gemm_plain_16) X(um_matmul_nt_rows)
// clang-format on

/* A convolution as the product of gathered rows x and packed weights w, and all that stands around
 * it: struct um_conv_args, struct um_linear_args. */
struct um_gemm_args {
    struct um_gview out, x, add, plus;
    const void *w, *w2;
    const float *b, *b2;
    const float *gamma_in, *beta_in, *gamma_out, *beta_out;
    int rows, k;
    int n, n2;         /* columns of w and of w2, which are outputs n.. */
    int tiles, tiles2; /* blocks across them */
    int kh, kw, stride, pad_top, pad_left;
    int act, norm_act;
    float limit, lab_scale, lab_shift, eps_in, eps_out;
    int add_last, add_up2, up, group;
    int wide; /* x may be read in vectors of 8 channels */
};

/* struct um_norm_args and the operands of UM_OP_GATE */
struct um_gate_rows_args {
    struct um_gview out, a, b;
    const void *wa, *wb;
    const float *bias, *gamma, *beta;
    float eps;
    int rows, c;
};

struct um_matmul_nt_args {
    struct um_gview out, a, b;
    int n;
};

#endif
