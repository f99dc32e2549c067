/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes of D-FINE as data: all that tells N, S, M, L and X apart, and what they have in common.
 * The code asks these fields for every number, so a network whose sizes are read off its tensors
 * needs another um_dfine_size and no other code. */
#ifndef UM_MODEL_DFINE_SIZE_H
#define UM_MODEL_DFINE_SIZE_H

#include <stdbool.h>

enum {
    UM_DFINE_STEP = 32,  /* the input is a multiple of it: the network halves it five times */
    UM_DFINE_SIDE = 640, /* of the input, if the file does not say */
    /* what the structs have room for */
    UM_DFINE_STAGES = 4,
    UM_DFINE_BLOCKS_MAX = 5,
    UM_DFINE_LAYERS_MAX = 6, /* of a block, and of the decoder */
    UM_DFINE_REPS_MAX = 3,
    UM_DFINE_LEVELS_MAX = 3,
    UM_DFINE_BINS_MAX = 33
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
    const char *name; /* "dfine-n" … "dfine-x" */
    struct um_hgnet backbone;
    int levels, width, ffn; /* encoder: the last maps of the backbone that it takes, D, AIFI */
    int d, d_ffn, layers;   /* decoder */
    bool projected;         /* the decoder has its own input projection */
    int points[UM_DFINE_LEVELS_MAX]; /* sampling points of a head on each level */
    int heads;                       /* of all attention */
    int queries;
    int bins;       /* of the distribution of a side */
    int lqe_hidden; /* of the head that estimates a box's quality */
};

/* The size whose encoder is `width` wide and takes `levels` maps of so many channels; NULL: none.
 */
const struct um_dfine_size *um_dfine_size_find(int levels, int width, const int *channels);
/* Channels of the map that the encoder takes as level l. */
int um_dfine_channels(const struct um_dfine_size *s, int l);
/* Sampling points of a head on all levels. */
int um_dfine_points(const struct um_dfine_size *s);

#endif
