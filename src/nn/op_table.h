/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operators. A row is all that different places must agree on: from it come the enum,
 * the names, what a step is checked against, the declarations of kernels and the kernel tables of
 * every level. What an operator means is said where it is recorded (op.h, op_dfine.h, op_sam.h,
 * op_track.h, block.h), beside its argument struct. */
#ifndef UM_NN_OP_TABLE_H
#define UM_NN_OP_TABLE_H

#include "device/backend.h"
#include "nn/int8.h"

/* X(with, ENTRY, name, host, gpu, arguments, outputs, operands…)
 *
 *   host    kernels on the processor (op_level.h)
 *     SIMD    um_ref_NAME in plain C, the specification, and um_NAME_LEVEL in src/nn/simd
 *     PLAIN   um_ref_NAME serves every level
 *     BLOCK   um_NAME_LEVEL only: plain C records the default body of primitives (block.c)
 *     WIDE    likewise, on vectors of 16 floats only
 *     NONE    every level records the default body
 *   gpu     launchers in src/nn/cuda (op_cuda.h)
 *     SHARED  um_cuda_NAME serves every table
 *     TWIN    um_cuda_NAME_f16 and _bf16 on tensor cores, um_cuda_NAME_plain for the others
 *     HALF    um_cuda_NAME_f16 and _bf16; the others record the default body
 *     FUSED   um_cuda_NAME, but not in the plain tables, which record the default body
 *     NONE    every table records the default body
 *   operands in the order of a kernel's call->t, outputs first; a ? marks one that may be absent
 *           (view.data == NULL)
 */
/* clang-format off */
#define UM_OPERATORS(X, with)                                                                      \
    X(with, CONV2D, conv2d, SIMD, TWIN, um_conv_args, 1, "out", "x", "w", "b?", "add?")            \
    X(with, DWCONV, dwconv, SIMD, SHARED, um_conv_args, 1, "out", "x", "w", "b?", "add?")          \
    X(with, UPCONV2, upconv2, SIMD, TWIN, um_conv_args, 1, "out", "x", "w", "b?")                  \
    X(with, LAYER_NORM, layer_norm, SIMD, SHARED, um_norm_args, 1,                                 \
      "out", "x", "add?", "gamma", "beta")                                                         \
    X(with, ADD, add, SIMD, SHARED, um_add_args, 1, "out", "a", "b")                               \
    X(with, MAXPOOL2, maxpool2, SIMD, SHARED, um_no_args, 1, "out", "x")                           \
    X(with, ATTENTION, attention, SIMD, TWIN, um_attention_args, 1, "out", "q", "k", "v")          \
    X(with, WINDOW_ATTENTION, window_attention, SIMD, TWIN, um_window_args, 1,                     \
      "out", "qkv", "pad", "bias")                                                                 \
    X(with, RELATIVE_ATTENTION, relative_attention, SIMD, SHARED, um_relative_args, 1,             \
      "out", "qkv", "pad", "rows", "columns")                                                      \
    X(with, MATMUL_NT, matmul_nt, SIMD, SHARED, um_no_args, 1, "out", "a", "b")                    \
    X(with, RESIZE, resize, SIMD, SHARED, um_resize_args, 1, "out", "x", "taps")                   \
    X(with, AREA, area, PLAIN, SHARED, um_area_args, 1, "out", "x", "tx", "ty")                    \
    X(with, FIR, fir, PLAIN, SHARED, um_resize_args, 1, "out", "x", "taps", "range?")              \
    X(with, RANGE, range, PLAIN, SHARED, um_no_args, 1, "out", "x")                                \
    X(with, LEVELS, levels, PLAIN, SHARED, um_no_args, 1, "out", "range")                          \
    X(with, GAIN, gain, PLAIN, SHARED, um_gain_args, 4,                                            \
      "lut0", "lut1?", "header", "state", "x", "base0", "base1?")                                  \
    X(with, NORMALIZE, normalize, SIMD, SHARED, um_no_args, 1, "out", "x", "lut")                  \
    X(with, SCALE_ROWS, scale_rows, SIMD, SHARED, um_no_args, 1, "out", "x", "m")                  \
    X(with, GATHER, gather, SIMD, SHARED, um_no_args, 1, "out", "x", "idx")                        \
    X(with, GATE_NORM, gate_norm, SIMD, SHARED, um_norm_args, 1,                                   \
      "out", "g", "a", "b", "gamma", "beta")                                                       \
    /* D-FINE's selection and boxes */                                                             \
    X(with, TOPK, topk, SIMD, SHARED, um_no_args, 1, "out", "scores")                              \
    X(with, DEFORM, deform, SIMD, SHARED, um_deform_args, 1, "out", "ow", "ref", "memory")         \
    X(with, REFINE, refine, PLAIN, SHARED, um_refine_args, 1, "out", "delta", "base")              \
    X(with, INTEGRAL, integral, SIMD, SHARED, um_integral_args, 1,                                 \
      "out", "corners", "ref", "project")                                                          \
    X(with, LQE_STATS, lqe_stats, SIMD, SHARED, um_no_args, 1, "out", "corners")                   \
    X(with, BEST_BOX, best_box, PLAIN, SHARED, um_no_args, 2,                                      \
      "gate", "prompt", "logits", "boxes", "header")                                               \
    /* SAM's prompt, mask and packet */                                                            \
    X(with, PROMPT, prompt, PLAIN, SHARED, um_prompt_args, 1, "out", "prompt", "table", "gauss")   \
    X(with, MASK, mask, SIMD, SHARED, um_no_args, 2,                                               \
      "mask", "logits?", "low", "tx", "ty", "gate?")                                               \
    X(with, MASK_STATS, mask_stats, SIMD, SHARED, um_no_args, 2, "weights", "record", "mask")      \
    X(with, PACKET, packet, SIMD, SHARED, um_no_args, 1,                                           \
      "out", "stats", "mask", "gate?", "iou?", "low?", "header")                                   \
    X(with, CLEAN, clean, PLAIN, SHARED, um_clean_args, 2, "packet", "work", "gate?")              \
    /* rows of an encoder that no image changes (reach.h); what they write they also read */     \
    X(with, REACH, reach, PLAIN, NONE, um_reach_args, 1, "beyond", "x")                            \
    X(with, BEYOND, beyond, PLAIN, NONE, um_beyond_args, 2, "x", "kept", "beyond")                 \
    /* keeping track; what they write they also read */                                            \
    X(with, CONTACT, contact, PLAIN, SHARED, um_no_args, 1, "gate", "x")                           \
    X(with, FOLLOW, follow, PLAIN, SHARED, um_no_args, 2, "gate", "prompt", "header")              \
    X(with, SCORES, scores, PLAIN, SHARED, um_no_args, 2, "packet", "memory", "x", "header")       \
    /* blocks */                                                                                   \
    X(with, MLP, mlp, BLOCK, NONE, um_mlp_args, 1,                                                 \
      "out", "x", "gamma", "beta", "w1", "b1", "w2", "b2")                                         \
    X(with, MBCONV, mbconv, BLOCK, NONE, um_mbconv_args, 1,                                        \
      "out", "x", "w1", "b1", "wd", "bd", "w3", "b3")                                              \
    X(with, STEM, stem, WIDE, NONE, um_stem_args, 1,                                               \
      "out", "x", "w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3")                                  \
    X(with, WINDOW_BLOCK, window_block, BLOCK, NONE, um_window_block_args, 1,                      \
      "out", "x", "gamma", "beta", "wqkv", "bqkv", "pad", "bias", "wproj", "bproj")                \
    X(with, TOKEN_TO_IMAGE, token_to_image, BLOCK, NONE, um_cross_args, 1,                         \
      "out", "q", "x", "place", "wk", "wv", "bv?")                                                 \
    X(with, IMAGE_TO_TOKEN, image_to_token, BLOCK, NONE, um_cross_args, 1,                         \
      "out", "x", "place", "k", "v", "wq", "bq", "wo", "bo", "gamma", "beta")                      \
    X(with, LINEAR, linear, NONE, HALF, um_linear_args, 1,                                         \
      "out", "x", "w", "b?", "add?", "plus?", "w2?", "b2?", "gamma_in?", "beta_in?",               \
      "gamma_out?", "beta_out?")                                                                   \
    X(with, CHAIN, chain, NONE, HALF, um_chain_args, 3,                                            \
      "out", "box?", "picked?", "x", "index?", "plus?", "w1", "b1?", "w2", "b2?", "w3?", "b3?",    \
      "add?", "base?", "project?")                                                                 \
    X(with, GATE, gate, NONE, HALF, um_norm_args, 1,                                               \
      "out", "a", "b", "wa", "ba", "wb", "gamma", "beta")                                          \
    X(with, TOKENS, tokens, NONE, HALF, um_tokens_args, 1,                                         \
      "out", "x", "plus?", "wqk", "bqk", "wv?", "bv?", "wo", "bo", "gamma", "beta")                \
    X(with, FRONT, front, NONE, FUSED, um_front_args, 2,                                           \
      "out0", "out1?", "x", "lut0", "tx0?", "ty0?", "lut1?", "tx1?", "ty1?")                       \
    X(with, MASK_PACKET, mask_packet, NONE, FUSED, um_no_args, 2,                                  \
      "packet", "work", "low", "tx", "ty", "gate?", "iou?", "header")
/* clang-format on */

#define UM_OP_ENTRY_(with, entry, ...) UM_OP_##entry,
enum um_op { UM_OPERATORS(UM_OP_ENTRY_, ) UM_OPS };

/* UM_OP_CONV2D_args is struct um_conv_args, and so on. */
struct um_no_args {
    char none;
};
#define UM_OP_ARGS_(with, entry, name, host, gpu, args, ...) \
    typedef struct args UM_OP_##entry##_args;
UM_OPERATORS(UM_OP_ARGS_, )

struct um_op_info {
    const char *name;
    bool primitive; /* has a kernel at every level; else it is a block */
    int n, n_out;   /* operands, and how many of them, from the first on, are written */
    const char *operand[UM_OPERANDS];
};
const struct um_op_info *um_op_info(enum um_op op);
const char *um_op_name(enum um_op op);

/* The kernels of one backend level. A device points at one of these (um_device.ops). */
struct um_ops {
    const char *name;  /* "c", "avx2", "avx512", "cuda fp16", … */
    enum um_dtype act; /* in which activations are stored */
    bool launches;     /* kernels launch on call->stream */
    um_kernel *kernel[UM_OPS];
    /* Pack dense convolution weights w [o][kh][kw][i] for this level's CONV2D (and UPCONV2, MLP, …
     * kernels). dst NULL: only return the bytes needed. */
    size_t (*pack_conv)(void *dst, const float *w, int o, int kh, int kw, int i);
    /* The same for bytes (nn/int8.h): operands of type UM_I8. NULL: no kernel here takes them. */
    size_t (*pack_int8)(void *dst, const struct um_int8_layer *l);
    /* The same for bf16 (nn/bf16.h), of w as above: operands of type UM_BF16. */
    size_t (*pack_bf16)(void *dst, const float *w, int o, int kh, int kw, int i);
    bool int8, bf16;           /* they are so much quicker that the precision is offered */
    enum um_narrow_how narrow; /* their instructions. With AMX's tiles bf16 is what is chosen where
                                  nobody asks for a precision */
};
/* Every level this machine can run, best first, NULL-terminated; the last is "c" (op_ref only). */
const struct um_ops *const *um_ops_host(void);
/* The level to use: the best one, or the one ULTRAMOTION_CPU names. UM_EINVAL if that is unknown or
 * not available here. */
um_status um_ops_choose(const struct um_ops **out);
/* The table of a GPU and its precision, kernels loaded. ULTRAMOTION_CUDA=plain takes the plain
 * twins: one primitive a step, no tensor cores. */
um_status um_ops_choose_gpu(um_device *dev, const struct um_ops **out);
/* A device's table is chosen when the first params or tape is opened on it. */
um_status um_ops_attach(um_device *dev);

/* The n-th of a list made by another macro. */
#define UM_PICK_0(a, ...) a
#define UM_PICK_1(a, b, ...) b
#define UM_PICK_2(a, b, c, ...) c
#define UM_PICK_3(a, b, c, d, ...) d

#endif
