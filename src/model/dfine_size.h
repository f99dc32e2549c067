/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes of a D-FINE as data: all that tells one from another. They are read off the tensors;
 * the code asks these fields for every number. */
#ifndef UM_MODEL_DFINE_SIZE_H
#define UM_MODEL_DFINE_SIZE_H

#include "weights/weights.h"

#include <stdbool.h>

enum {
    UM_DFINE_STEP = 32,     /* the input is a multiple of it: the network halves it five times */
    UM_DFINE_SIDE = 640,    /* of the input, if the file does not say */
    UM_DFINE_QUERIES = 300, /* the same */
    /* what the structs have room for */
    UM_DFINE_STAGES = 4,
    UM_DFINE_BLOCKS_MAX = 8,
    UM_DFINE_UNITS_MAX = 8,   /* layers of a block */
    UM_DFINE_LAYERS_MAX = 12, /* of the decoder */
    UM_DFINE_REPS_MAX = 6,
    UM_DFINE_LEVELS_MAX = 3,
    UM_DFINE_BINS_MAX = 33,
    UM_DFINE_QUERIES_MAX = 1024
};

struct um_hgnet_stage {
    int in, mid, out, blocks;
    bool light; /* layers are 1x1 + depthwise k x k instead of 3x3 */
    int k, layers;
};

struct um_hgnet { /* HGNetV2, the backbone */
    int stem_mid, stem_out;
    bool lab; /* learnable affine after each ReLU */
    struct um_hgnet_stage stage[UM_DFINE_STAGES];
};

struct um_dfine_size {
    struct um_hgnet backbone;
    int levels, width, ffn; /* encoder: the last maps of the backbone that it takes, D, AIFI */
    int c4, reps;           /* of its ELANs: inner width, Rep blocks */
    int d, d_ffn, layers;   /* decoder */
    bool projected;         /* the decoder has its own input projection */
    int points[UM_DFINE_LEVELS_MAX]; /* sampling points of a head on each level */
    int heads;                       /* of all attention */
    int bins;                        /* of the distribution of a side */
    int lqe_hidden;                  /* of the head that estimates a box's quality */
};

/* What the encoder takes from the backbone, which is enough to tell the published sizes apart. */
struct um_dfine_maps {
    int levels, width, channels[UM_DFINE_LEVELS_MAX];
};
struct um_dfine_maps um_dfine_maps(const um_weights *file);
/* UM_EFORMAT if the file has a part of one more. */
um_status um_dfine_check_maps(const struct um_dfine_maps *m, const um_weights *file);
/* "dfine-n" … "dfine-x", or "dfine" for sizes that are none of these. */
const char *um_dfine_name(const struct um_dfine_maps *m);

/* The sizes of the D-FINE in a checkpoint. UM_EFORMAT names the tensor that is missing or whose
 * shape is none of a D-FINE. */
um_status um_dfine_measure(const um_weights *file, struct um_dfine_size *out);
/* Pixels of the input per cell of level l, along a side. */
static inline int um_dfine_stride(int levels, int l)
{
    return UM_DFINE_STEP >> (levels - 1 - l);
}
/* Channels of the map that the encoder takes as level l. */
int um_dfine_channels(const struct um_dfine_size *s, int l);
/* Sampling points of a head on all levels. */
int um_dfine_points(const struct um_dfine_size *s);

#endif
