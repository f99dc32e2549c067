/* SPDX-License-Identifier: Apache-2.0 */
/* The launchers of GPU kernels: um_kernel functions that launch on call->stream. Every operand that
 * is an activation may be fp32 or the level's half; constants are fp32 unless packed. */
#ifndef UM_NN_CUDA_OP_CUDA_H
#define UM_NN_CUDA_OP_CUDA_H

#include "nn/op.h"

um_kernel um_cuda_attention, um_cuda_attention_f16, um_cuda_attention_bf16,
    um_cuda_window_attention, um_cuda_window_attention_f16,
    um_cuda_window_attention_bf16; /* attention.c */
um_kernel um_cuda_chain_f16, um_cuda_chain_bf16, um_cuda_tokens_f16,
    um_cuda_tokens_bf16; /* chain.c */
um_kernel um_cuda_conv2d_plain, um_cuda_conv2d_f16, um_cuda_conv2d_bf16, um_cuda_upconv2_plain,
    um_cuda_upconv2_f16, um_cuda_upconv2_bf16, um_cuda_linear_f16, um_cuda_linear_bf16,
    um_cuda_gate_f16, um_cuda_gate_bf16, um_cuda_matmul_nt; /* gemm.c */
um_kernel um_cuda_layer_norm, um_cuda_gate_norm;            /* norm.c */
um_kernel um_cuda_resize, um_cuda_normalize, um_cuda_front; /* front.c */
um_kernel um_cuda_prompt, um_cuda_mask, um_cuda_mask_stats, um_cuda_packet,
    um_cuda_mask_packet; /* mask.c */
um_kernel um_cuda_dwconv, um_cuda_add, um_cuda_maxpool2, um_cuda_scale_rows,
    um_cuda_gather; /* pixel.c */
um_kernel um_cuda_topk, um_cuda_deform, um_cuda_refine, um_cuda_integral, um_cuda_lqe_stats,
    um_cuda_best_box; /* select.c */

/* The table of a precision: fp16 and bf16 on tensor cores with fused steps, or (plain) the plain
 * twins, one primitive a step; fp32 is always plain. */
const struct um_ops *um_cuda_ops(enum um_dtype precision, bool plain);
/* Names of all kernels. */
const char *const *um_cuda_kernels(int *n);

#endif
