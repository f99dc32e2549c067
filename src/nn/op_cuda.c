/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel tables of GPUs, one per precision and tier. */
#include "nn/cuda/op_cuda.h"

#include "nn/cuda/attention.h"
#include "nn/cuda/chain.h"
#include "nn/cuda/front.h"
#include "nn/cuda/gemm.h"
#include "nn/cuda/mask.h"
#include "nn/cuda/norm.h"
#include "nn/cuda/pack.h"
#include "nn/cuda/pixel.h"
#include "nn/cuda/select.h"
#include "nn/op_ref.h"

#include <stdlib.h>
#include <string.h>

/* Kernels that serve every table: they take fp32 and halves alike. */
#define COMMON                                                                                     \
    [UM_OP_LAYER_NORM] = um_cuda_layer_norm, [UM_OP_GATE_NORM] = um_cuda_gate_norm,                \
    [UM_OP_RESIZE] = um_cuda_resize, [UM_OP_NORMALIZE] = um_cuda_normalize,                        \
    [UM_OP_PROMPT] = um_cuda_prompt, [UM_OP_MASK] = um_cuda_mask,                                  \
    [UM_OP_MASK_STATS] = um_cuda_mask_stats, [UM_OP_PACKET] = um_cuda_packet,                      \
    [UM_OP_MATMUL_NT] = um_cuda_matmul_nt, [UM_OP_DWCONV] = um_cuda_dwconv,                        \
    [UM_OP_ADD] = um_cuda_add, [UM_OP_MAXPOOL2] = um_cuda_maxpool2,                                \
    [UM_OP_SCALE_ROWS] = um_cuda_scale_rows, [UM_OP_GATHER] = um_cuda_gather,                      \
    [UM_OP_TOPK] = um_cuda_topk, [UM_OP_DEFORM] = um_cuda_deform, [UM_OP_REFINE] = um_cuda_refine, \
    [UM_OP_INTEGRAL] = um_cuda_integral, [UM_OP_LQE_STATS] = um_cuda_lqe_stats,                    \
    [UM_OP_BEST_BOX] = um_cuda_best_box

/* The plain twins of what has a kernel on tensor cores. */
#define PLAIN                                                                       \
    [UM_OP_CONV2D] = um_cuda_conv2d_plain, [UM_OP_UPCONV2] = um_cuda_upconv2_plain, \
    [UM_OP_ATTENTION] = um_cuda_attention, [UM_OP_WINDOW_ATTENTION] = um_cuda_window_attention

/* Both ends of a frame in one step each. */
#define ENDS [UM_OP_FRONT] = um_cuda_front, [UM_OP_MASK_PACKET] = um_cuda_mask_packet

/* On tensor cores: a launcher for each kind of half. */
#define HALF(type)                                                                    \
    [UM_OP_CONV2D] = um_cuda_conv2d_##type, [UM_OP_UPCONV2] = um_cuda_upconv2_##type, \
    [UM_OP_LINEAR] = um_cuda_linear_##type, [UM_OP_GATE] = um_cuda_gate_##type,       \
    [UM_OP_ATTENTION] = um_cuda_attention_##type,                                     \
    [UM_OP_WINDOW_ATTENTION] = um_cuda_window_attention_##type,                       \
    [UM_OP_CHAIN] = um_cuda_chain_##type, [UM_OP_TOKENS] = um_cuda_tokens_##type

static const struct um_ops fp32 = {.name = "cuda fp32",
                                   .act = UM_F32,
                                   .launches = true,
                                   .kernel = {COMMON, PLAIN, ENDS},
                                   .pack_conv = um_ref_pack_conv};
static const struct um_ops fp16_plain = {.name = "cuda fp16 plain",
                                         .act = UM_F16,
                                         .launches = true,
                                         .kernel = {COMMON, PLAIN},
                                         .pack_conv = um_ref_pack_conv};
static const struct um_ops bf16_plain = {.name = "cuda bf16 plain",
                                         .act = UM_BF16,
                                         .launches = true,
                                         .kernel = {COMMON, PLAIN},
                                         .pack_conv = um_ref_pack_conv};
static const struct um_ops fp16 = {.name = "cuda fp16",
                                   .act = UM_F16,
                                   .launches = true,
                                   .kernel = {COMMON, HALF(f16), ENDS},
                                   .pack_conv = um_cuda_pack_f16};
static const struct um_ops bf16 = {.name = "cuda bf16",
                                   .act = UM_BF16,
                                   .launches = true,
                                   .kernel = {COMMON, HALF(bf16), ENDS},
                                   .pack_conv = um_cuda_pack_bf16};

const struct um_ops *um_cuda_ops(enum um_dtype precision, bool plain)
{
    switch (precision) {
    case UM_F16: return plain ? &fp16_plain : &fp16;
    case UM_BF16: return plain ? &bf16_plain : &bf16;
    default: return &fp32;
    }
}

um_status um_ops_choose_gpu(um_device *dev, const struct um_ops **out)
{
    const char *tier = getenv("ULTRAMOTION_CUDA");
    int n = 0;
    const char *const *kernels = um_cuda_kernels(&n);
    bool plain = tier && strcmp(tier, "plain") == 0;
    if (tier && *tier && !plain && strcmp(tier, "fused") != 0)
        return um_fail(UM_EINVAL, "ULTRAMOTION_CUDA is \"%s\", want \"fused\" or \"plain\"", tier);
    *out = um_cuda_ops(dev->precision, plain);
    return um_load_kernels(dev, kernels, n);
}

#define NAME(kernel) #kernel,
static const char *const names[] = {
    UM_CUDA_GEMM_KERNELS(NAME) UM_CUDA_ATTENTION_KERNELS(NAME) UM_CUDA_SELECT_KERNELS(NAME)
        UM_CUDA_PIXEL_KERNELS(NAME) UM_CUDA_CHAIN_KERNELS(NAME) UM_CUDA_FRONT_KERNELS(NAME)
            UM_CUDA_MASK_KERNELS(NAME) UM_CUDA_NORM_KERNELS(NAME)};

const char *const *um_cuda_kernels(int *n)
{
    *n = sizeof names / sizeof *names;
    return names;
}
