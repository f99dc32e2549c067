/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in chain.cu. */
#ifndef UM_NN_CUDA_CHAIN_H
#define UM_NN_CUDA_CHAIN_H

#include "nn/cuda/view.h"

#define UM_CUDA_CHAIN_KERNELS(X) \
    X(um_chain_f16)              \
    X(um_chain_bf16) X(um_tokens16_f16) X(um_tokens16_bf16) X(um_tokens32_f16) X(um_tokens32_bf16)

enum {
    UM_CHAIN_ROWS = 16,
    UM_CHAIN_WARPS = 8,
    UM_CHAIN_TILES = 4, /* of 8 columns, that a warp computes in one pass */
    UM_CHAIN_LAYERS = 3,
    UM_CHAIN_WIDTH = 512,
    UM_TOKENS_ROWS = 32,
    UM_TOKENS_WARPS = 16,
    UM_TOKENS_TILES = 2,
    UM_TOKENS_WIDTH = 256
};

/* One linear layer from shared memory to shared memory. */
struct um_rows_layer {
    const void *w;     /* packed (nn/cuda/pack.h) */
    const float *bias; /* NULL: none */
    int n, n_tiles, k_tiles;
    int passes;      /* of all warps over the columns */
    int from, to;    /* bytes into shared memory; rows of halves, of the last layer's `to` floats */
    int ld_from, ld; /* elements */
    int columns;     /* written: those from n on are zeros, for the next layer's tiles of k */
    int act;
};

/* see struct um_chain_args; one block per 16 rows */
struct um_chain_rows_args {
    struct um_gview out, box, picked, x, index, plus, add, base, project;
    struct um_rows_layer layer[UM_CHAIN_LAYERS];
    int layers, rows;
    float limit, reg_scale;
    int finish, inverse;
    int table; /* bytes into shared memory: base [16][4] and project of UM_FINISH_BOX */
};

/* see struct um_tokens_args; one block. Layers: wqk, [wv,] wo */
struct um_tokens_rows_args {
    struct um_gview out, x, plus, gamma, beta;
    struct um_rows_layer layer[3];
    int layers, rows;
    int heads, group; /* lanes that share a query: 8, 16 or 32, not fewer than rows */
    float scale, eps;
    int residual;
};

#endif
