/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in track.cu. */
#ifndef UM_NN_CUDA_TRACK_H
#define UM_NN_CUDA_TRACK_H

#include "nn/cuda/view.h"
#include "nn/record.h"

#define UM_CUDA_TRACK_KERNELS(X) X(um_contact_cells) X(um_follow_header) X(um_score_bands)

enum { UM_TRACK_WARPS = 16 };

/* The share of cells with speckle: one block */
struct um_contact_cells_args {
    struct um_gate *gate;
    const uint8_t *x;
    int h, w, c;
};

/* Gate and prompt of what the header says: one warp */
struct um_follow_header_args {
    struct um_gate *gate;
    struct um_prompt *prompt;
    const struct um_frame_header *header;
};

/* Scores of a packet: a block per `band` rows; the last to end writes them */
struct um_score_bands_args {
    struct um_record *packet;
    void *memory; /* struct um_track */
    const uint8_t *x;
    const struct um_frame_header *header;
    int h, w, c, band;
};

#endif
