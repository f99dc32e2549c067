/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of D-FINE, shared by dfine.c (forward) and dfine_bind.c (weights). */
#ifndef UM_MODEL_DFINE_NET_H
#define UM_MODEL_DFINE_NET_H

#include "model/dfine.h"
#include "model/dfine_size.h"

/* ---- weights ---- */

struct layer { /* convolution, activation, learnable affine */
    um_conv conv;
    enum um_act act;
    float lab_scale, lab_shift;
};

struct hg_block {
    struct layer pointwise[UM_DFINE_UNITS_MAX]; /* light blocks only */
    struct layer conv[UM_DFINE_UNITS_MAX];
    struct layer squeeze, excite; /* aggregation.0 and .1: plain 1x1 convolutions */
};

struct hg_stage {
    struct layer down; /* depthwise 3x3 stride 2; stage 0: stem4 */
    struct hg_block block[UM_DFINE_BLOCKS_MAX];
};

struct csp {
    um_conv in; /* conv1 and conv2, which share their input: D -> 2*c4 */
    um_conv rep[UM_DFINE_REPS_MAX];
};

struct elan {
    um_conv top; /* FPN only: cv1 on the half of its input that is upsampled, without bias */
    um_conv cv1; /* 2D (FPN: D) -> 2D */
    struct csp csp[2];
    um_conv conv[2]; /* 3x3 after each csp */
    um_conv cv4;     /* 2D + 2*c4 -> D */
};

struct mlp {
    um_conv fc[3];
};

struct decoder_layer {
    um_conv qk, v, out; /* self-attention */
    um_norm norm1;
    um_conv offsets; /* sampling offsets, then attention weights */
    um_conv gate_self, gate_cross;
    um_norm gate_norm;
    um_conv fc1, fc2;
    um_norm norm3;
    struct mlp corners;
};

struct um_dfine {
    struct um_dfine_info info;
    struct um_dfine_size size;
    um_params *params;
    int level_w[UM_DFINE_LEVELS_MAX], level_h[UM_DFINE_LEVELS_MAX], tokens;

    struct layer stem1_gray, stem1_rgb, stem2a, stem2b, stem3;
    struct hg_stage stage[UM_DFINE_STAGES];

    um_conv input_proj[UM_DFINE_LEVELS_MAX];
    um_const position; /* [tokens of the last level, 3D]: PE*Wq, PE*Wk, 0 */
    um_conv aifi_qkv, aifi_out, aifi_fc1, aifi_fc2;
    um_norm aifi_norm1, aifi_norm2;
    um_conv lateral[UM_DFINE_LEVELS_MAX - 1];
    struct elan fpn[UM_DFINE_LEVELS_MAX - 1], pan[UM_DFINE_LEVELS_MAX - 1];
    um_conv down1[UM_DFINE_LEVELS_MAX - 1], down2[UM_DFINE_LEVELS_MAX - 1];

    um_conv memory_proj[UM_DFINE_LEVELS_MAX];
    um_const anchors, valid; /* [T,4] logits, +inf where not valid; [T,1] 0 or 1 */
    bool all_valid;
    um_conv enc_output, enc_score;
    um_norm enc_norm;
    struct mlp enc_bbox, pre_bbox;
    um_conv query_pos[2];
    struct decoder_layer layer[UM_DFINE_LAYERS_MAX];
    um_const project; /* the weighting function W [bins] */
    float reg_scale;
    um_conv lqe[2], score;
};

/* Fold, pack and upload all weights and tables. Before: size, info and levels are set, params is
 * open. */
um_status um_dfine_bind(um_dfine *d, const um_weights *file);
/* Anchor of cell x, y of a w x h level as logits ln(a/(1-a)), in fp32 as upstream computes them; a
 * cell within 0.01 of an edge is not valid: false, and +inf. */
bool um_dfine_anchor(int level, int x, int y, int w, int h, float logit[4]);
/* What the anchors in a file may differ from these by, rounded as they are stored. */
double um_dfine_anchor_rounding(const struct um_wtensor *stored);
/* Activation of the feed-forward layers, and what follows of it. */
void um_dfine_set_act(struct um_dfine_info *info, enum um_act act);
bool um_dfine_is_hugging_face(const struct um_dfine_info *info);
/* Width of an ELAN's inner tensors: c4 and zero channels, a multiple of 8. */
int um_dfine_padded(int c4);

#endif
