/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in select.cu. */
#ifndef UM_NN_CUDA_SELECT_H
#define UM_NN_CUDA_SELECT_H

#include "nn/cuda/view.h"

#include <stdint.h>

#define UM_CUDA_SELECT_KERNELS(X) \
    X(um_topk_rows)               \
    X(um_deform_heads)            \
    X(um_refine_elements) X(um_integral_rows) X(um_lqe_rows) X(um_best_box_pick)

enum {
    UM_TOPK_THREADS = 1024,
    UM_TOPK_MAX = 512, /* k */
    UM_TOPK_BINS = 256,
    /* shared: sorted keys, histogram, four words of state, then the rows' scores if they fit */
    UM_TOPK_SHARED = 8 * UM_TOPK_MAX + 4 * UM_TOPK_BINS + 16,
    UM_DEFORM_LEVELS = 4
};

/* One block. */
struct um_topk_rows_args {
    struct um_gview scores;
    int32_t *out;
    int step; /* elements from one output to the next */
    int rows, k;
    int row_bits; /* rows <= 2^row_bits */
    int lanes;    /* that read a row together: 1, 2, … 32 */
    int stored;   /* the rows' scores fit into shared memory */
};

/* A warp is one head of one query. */
struct um_deform_heads_args {
    struct um_gview out, ow, ref, memory;
    int heads, points, d; /* points of all levels, channels of a head */
    int lanes;            /* that read a tap together, 8 channels each: 1, 2, … 32; 0: any d */
    int items;
    int h[UM_DEFORM_LEVELS], w[UM_DEFORM_LEVELS], n[UM_DEFORM_LEVELS]; /* n: points */
};

struct um_refine_elements_args {
    struct um_gview out, delta, base;
    int inverse, items;
};

/* A warp is one row, 8 lanes a side. */
struct um_integral_rows_args {
    struct um_gview out, corners, ref, project;
    float reg_scale;
    int rows;
};

struct um_lqe_rows_args {
    struct um_gview out, corners;
    int rows;
};

/* One block. */
struct um_best_box_pick_args {
    struct um_gview logits, boxes;
    const void *header;  /* struct um_frame_header */
    void *gate, *prompt; /* struct um_gate, um_prompt [n] */
    int queries, n;
};

#endif
