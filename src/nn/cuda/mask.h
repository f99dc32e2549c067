/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in mask.cu. */
#ifndef UM_NN_CUDA_MASK_H
#define UM_NN_CUDA_MASK_H

#include "nn/cuda/view.h"
#include "nn/record.h"

#include <stdint.h>

#define UM_CUDA_MASK_KERNELS(X) \
    X(um_prompt_rows)           \
    X(um_mask_pixels)           \
    X(um_mask_planes)           \
    X(um_packet_words)          \
    X(um_mask_packet_bands)     \
    X(um_clean_mask)

/* The prompt's tokens: one block per row */
struct um_prompt_rows_args {
    struct um_gview out;
    const struct um_prompt *prompt;
    const float *table, *gauss;   /* [10,c], [2,c/2] */
    int canvas, fit, points, box; /* enum um_fit */
};

/* The full-size mask, and logits if asked for: one thread per pixel */
struct um_mask_pixels_args {
    struct um_gview mask, logits, low, tx, ty;
    const struct um_gate *gate;
};

/* Weight planes and statistics, `band` rows at a time: one block, whose sums need no memory that
 * somebody has to clear */
struct um_mask_planes_args {
    uint8_t *weights;
    uint32_t *record;
    const uint8_t *mask;
    int h, w, band;
};

/* The packet of a mask: block 0 writes the record, a warp of the others one word of bits */
struct um_packet_words_args {
    uint32_t *packet;
    const uint32_t *stats, *gate, *header;
    const uint8_t *mask;
    struct um_gview iou, low;
    int h, w;
};

/* Mask, statistics and packet at once: a block per `band` rows; the last to end writes the record
 */
struct um_mask_packet_bands_args {
    uint32_t *packet;
    uint64_t *work;
    struct um_gview low, tx, ty, iou;
    const uint32_t *gate, *header;
    int h, w, band;
};

/* A packet's mask cleaned: one block, of whose steps each needs all of the one before; `band` rows
 * at a time for the statistics */
struct um_clean_mask_args {
    struct um_record *packet;
    uint32_t *label, *kept; /* work */
    const struct um_gate *gate;
    int h, w, band;
};

/* What is counted over a mask: the first four are maxima of width - left, height - top, right and
 * bottom, the others sums. A launch with many blocks collects them in `work`, in this order. */
enum um_mask_count {
    UM_COUNT_LEFT,
    UM_COUNT_TOP,
    UM_COUNT_RIGHT,
    UM_COUNT_BOTTOM,
    UM_COUNT_AREA,
    UM_COUNT_X,
    UM_COUNT_Y,
    UM_COUNT_EDGE,
    UM_COUNT_IN,
    UM_COUNT_OUT,
    UM_COUNT_NONFINITE,
    UM_COUNTS
};

enum { UM_HALO = 2 /* rows above and below that weights depend on */, UM_MASK_WARPS = 16 };

#endif
