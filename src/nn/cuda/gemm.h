/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in gemm.cu. */
#ifndef UM_NN_CUDA_GEMM_H
#define UM_NN_CUDA_GEMM_H

#include "nn/cuda/view.h"

/* Halves behind a row in shared memory, so that eight rows lie in different banks; floats behind a
 * row of sums; columns of k that lie in shared memory at once where rows do not come as they are;
 * and how many a narrow convolution has at most. */
enum { UM_GEMM_SPACE = 8, UM_GEMM_PAD = 4, UM_GEMM_PANEL = 512, UM_NARROW_K = 64 };

/* X(suffix, rows, columns of a block's tile, warps down, warps across, columns of k in a stage,
 * stages on their way). There are up to three kernels of each: the first takes vectors of halves as
 * they are; the second normalises them first; the third, _panel, takes whatever there is. At most
 * 99 KiB of shared memory (gemm.c). */
// clang-format off
#define UM_CUDA_GEMM_LARGE(X) X(128x64, 128, 64, 4, 2, 64, 3)
#define UM_CUDA_GEMM_TILES(X)                                         \
    X(64x64, 64, 64, 2, 4, 64, 4)                                     \
    X(32x32, 32, 32, 2, 4, 64, 4) X(16x32, 16, 32, 1, 4, 64, 6)
/* Tiles as wide as the output, for norms of whole rows. */
#define UM_CUDA_GEMM_ROWS(X)                                          \
    X(16x128, 16, 128, 1, 8, 64, 4) X(16x256, 16, 256, 1, 8, 32, 5)   \
    X(32x256, 32, 256, 1, 8, 32, 4) X(16x512, 16, 512, 1, 8, 32, 2)
#define UM_CUDA_GEMM_KERNELS(X)                                     \
    X(um_gemm_128x64_f16) X(um_gemm_128x64_bf16)                    \
    X(um_gemm_64x64_f16) X(um_gemm_64x64_bf16)                      \
    X(um_gemm_64x64_norm_f16) X(um_gemm_64x64_norm_bf16)            \
    X(um_gemm_64x64_panel_f16) X(um_gemm_64x64_panel_bf16)          \
    X(um_gemm_32x32_f16) X(um_gemm_32x32_bf16)                      \
    X(um_gemm_32x32_norm_f16) X(um_gemm_32x32_norm_bf16)            \
    X(um_gemm_32x32_panel_f16) X(um_gemm_32x32_panel_bf16)          \
    X(um_gemm_16x32_f16) X(um_gemm_16x32_bf16)                      \
    X(um_gemm_16x32_norm_f16) X(um_gemm_16x32_norm_bf16)            \
    X(um_gemm_16x32_panel_f16) X(um_gemm_16x32_panel_bf16)          \
    X(um_gemm_16x128_f16) X(um_gemm_16x128_bf16)                    \
    X(um_gemm_16x128_panel_f16) X(um_gemm_16x128_panel_bf16)        \
    X(um_gemm_16x256_f16) X(um_gemm_16x256_bf16)                    \
    X(um_gemm_16x256_panel_f16) X(um_gemm_16x256_panel_bf16)        \
    X(um_gemm_32x256_f16) X(um_gemm_32x256_bf16)                    \
    X(um_gemm_32x256_panel_f16) X(um_gemm_32x256_panel_bf16)        \
    X(um_gemm_16x512_f16) X(um_gemm_16x512_bf16)                    \
    X(um_gemm_16x512_panel_f16) X(um_gemm_16x512_panel_bf16)        \
    X(um_gate_f16) X(um_gate_bf16)                                  \
    X(um_conv_narrow16_f16) X(um_conv_narrow16_bf16)                \
    X(um_conv_narrow32_f16) X(um_conv_narrow32_bf16)                \
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
    int tiles, tiles2; /* of the block's width across them */
    int each;          /* of these for a block */
    int panel;         /* columns of k in shared memory at once; 0: rows come as they are */
    int kh, kw, stride, pad_top, pad_left;
    int act, norm_act;
    float limit, lab_scale, lab_shift, eps_in, eps_out;
    int add_last, add_up2, up, group;
    int wide;  /* x may be read in vectors of 8 channels */
    int plain; /* output and addend are halves in vectors of 8 columns, each row in its place */
};

/* out = g[:, :c] a + g[:, c:] b with the gates g of UM_OP_GATE; out [rows,c] are floats, c a
 * multiple of 8. The norm follows. */
struct um_gate_args {
    struct um_gview out, a, b;
    const void *wa, *wb;
    const float *bias;
    int rows, panel;
};

struct um_matmul_nt_args {
    struct um_gview out, a, b;
    int n;
};

#endif
