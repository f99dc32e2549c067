/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in attention.cu. */
#ifndef UM_NN_CUDA_ATTENTION_H
#define UM_NN_CUDA_ATTENTION_H

#include "nn/cuda/view.h"

#include <stdint.h>

/* clang-format off */
#define UM_CUDA_ATTENTION_KERNELS(X)                             \
    X(um_attention_plain) X(um_window_attention_plain)           \
    X(um_relative_attention_plain)                               \
    X(um_attention_16_f16) X(um_attention_16_bf16)               \
    X(um_attention_32_f16) X(um_attention_32_bf16)               \
    X(um_window_attention_49_f16) X(um_window_attention_49_bf16) \
    X(um_window_attention_196_f16) X(um_window_attention_196_bf16)
/* clang-format on */

enum {
    UM_ATTEND_PART = 16, /* plain: columns of a head that one lane has */
    UM_ATTEND_BATCH = 4, /* plain: keys that a lane takes at once */
    UM_ATTEND_CHUNK = 32 /* tensor cores: keys that a warp takes at once */
};

/* What the plain kernels share. A query has `lanes` threads of a block: `parts` of the head's
 * columns times lanes/parts slices of the keys. Powers of two. */
struct um_attend {
    int d, keys, parts, lanes;
    int tile; /* keys in shared memory at once */
    float scale;
};

/* floats from key to key in shared memory */
#define UM_ATTEND_STRIDE(parts) (UM_ATTEND_PART * (parts) + 4)

/* block x: 256/lanes queries; y: head */
struct um_attention_plain_args {
    struct um_gview out, q, k, v;
    struct um_attend a;
    int queries;
};

/* block x: 256/lanes queries of a window, `groups` blocks a window; y: head */
struct um_window_attention_plain_args {
    struct um_gview out, qkv, pad, bias;
    struct um_attend a;
    int window, windows_x, groups;
    uint32_t reciprocal; /* 2^32 / window, rounded up */
};

/* The same for relative positions: what they add for a query, window lines and window columns, lies
 * in shared memory from float `sums` on. */
struct um_relative_attention_plain_args {
    struct um_gview out, qkv, pad, rows, columns;
    struct um_attend a;
    int window, windows_x, groups, sums;
    uint32_t reciprocal;
};

/* block x: 16 queries for every `splits` warps, which share the keys; y: head. Scale is times
 * log2(e), and positive. */
struct um_attention_mma_args {
    struct um_gview out, q, k, v;
    int queries, keys, splits, tile;
    float scale;
};

/* block x: `groups` blocks a window, a warp has 16 queries; y: head of 32 columns. Scale as
 * above. */
struct um_window_attention_mma_args {
    struct um_gview out, qkv, pad, bias;
    int window, windows_x, groups;
    float scale;
};

/* halves from key to key in shared memory, D columns: 16-byte rows that 8 lanes read without bank
 * conflicts */
#define UM_ATTENTION_STRIDE(D) ((D) + 8)
/* bytes of shared memory of the window kernel: keys, values, biases by displacement, places of
 * keys */
#define UM_WINDOW_SHARED(tiles, window)                         \
    (((tiles) + 1) / 2 * 16 * UM_ATTENTION_STRIDE(32) * 2 * 2 + \
     (2 * (window)-1) * (2 * (window)-1) * 4 + ((tiles) + 1) / 2 * 16 * 2)

#endif
