/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel table of one instruction level: its own kernels for the ops in the first list, plain C
 * for the second; the blocks of the third have no plain-C kernel. Tests use this to make a table of
 * a level that is not part of the library. */
#ifndef UM_NN_OP_LEVEL_H
#define UM_NN_OP_LEVEL_H

#include "nn/op_ref.h"

/* Each list is X(entry, name, level). */
#define UM_LEVEL_KERNELS(X, level)                     \
    X(UM_OP_CONV2D, conv2d, level)                     \
    X(UM_OP_DWCONV, dwconv, level)                     \
    X(UM_OP_UPCONV2, upconv2, level)                   \
    X(UM_OP_LAYER_NORM, layer_norm, level)             \
    X(UM_OP_ADD, add, level)                           \
    X(UM_OP_MAXPOOL2, maxpool2, level)                 \
    X(UM_OP_ATTENTION, attention, level)               \
    X(UM_OP_WINDOW_ATTENTION, window_attention, level) \
    X(UM_OP_MATMUL_NT, matmul_nt, level)               \
    X(UM_OP_RESIZE, resize, level)                     \
    X(UM_OP_NORMALIZE, normalize, level)               \
    X(UM_OP_SCALE_ROWS, scale_rows, level)             \
    X(UM_OP_GATHER, gather, level)                     \
    X(UM_OP_GATE_NORM, gate_norm, level)               \
    X(UM_OP_TOPK, topk, level)                         \
    X(UM_OP_DEFORM, deform, level)                     \
    X(UM_OP_INTEGRAL, integral, level)                 \
    X(UM_OP_LQE_STATS, lqe_stats, level)               \
    X(UM_OP_MASK, mask, level)                         \
    X(UM_OP_MASK_STATS, mask_stats, level)             \
    X(UM_OP_PACKET, packet, level)
#define UM_LEVEL_PLAIN(X, level)       \
    X(UM_OP_REFINE, refine, level)     \
    X(UM_OP_BEST_BOX, best_box, level) \
    X(UM_OP_PROMPT, prompt, level)
#define UM_LEVEL_BLOCKS(X, level)  \
    X(UM_OP_MLP, mlp, level)       \
    X(UM_OP_MBCONV, mbconv, level) \
    X(UM_OP_WINDOW_BLOCK, window_block, level)

#define UM_LEVEL_DECLARE_(op, name, level) um_kernel um_##name##_##level;
#define UM_LEVEL_OWN_(op, name, level) [op] = um_##name##_##level,
#define UM_LEVEL_REF_(op, name, level) [op] = um_ref_##name,

/* const struct um_ops um_ops_<level> with the given title */
#define UM_LEVEL(level, title)                                                                 \
    UM_LEVEL_KERNELS(UM_LEVEL_DECLARE_, level)                                                 \
    UM_LEVEL_BLOCKS(UM_LEVEL_DECLARE_, level)                                                  \
    size_t um_pack_conv_##level(void *dst, const float *w, int o, int kh, int kw, int i);      \
    extern const struct um_ops um_ops_##level;                                                 \
    const struct um_ops um_ops_##level = {                                                     \
        .name = title,                                                                         \
        .kernel = {UM_LEVEL_KERNELS(UM_LEVEL_OWN_, level) UM_LEVEL_PLAIN(UM_LEVEL_REF_, level) \
                       UM_LEVEL_BLOCKS(UM_LEVEL_OWN_, level)},                                 \
        .pack_conv = um_pack_conv_##level,                                                     \
    };

#endif
