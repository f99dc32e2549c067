/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_DFINE_H
#define UM_MODEL_DFINE_H

#include "nn/gain.h"
#include "nn/op.h"
#include "ultramotion/detector.h"
#include "weights/weights.h"

/* D-FINE N/S/M/L/X and its relatives: weights of one checkpoint, folded, packed and on the device.
 */
typedef struct um_dfine um_dfine;

/* Which boxes count for a frame's score, as um_frame_header has it. */
struct um_presence_wish {
    uint32_t boxes; /* 0 = the best one's score */
    float half;
};

struct um_dfine_info {
    char architecture[16]; /* "dfine-n" … "dfine-x", "dfine" */
    const char *family;    /* "d-fine", "deim-d-fine", "hugging-face-d-fine" */
    int classes;
    int channels; /* of the stem in the file: 1 or 3 */
    bool gray;    /* knows gray images only: colours become gray before it sees them */
    int input_w, input_h;
    int queries;
    enum um_act act;      /* of the decoder's feed-forward layers */
    enum um_act lqe_act;  /* of the head that estimates a box's quality */
    enum um_act head_act; /* of the heads that make boxes and place queries */
    bool letterbox;       /* what the weights want of an image's shape */
    const char *warning;  /* what its user should know, a static text; or NULL */
    /* where these are from: "option", "metadata", "config.json", "tensors" or "default" */
    const char *size_from, *queries_from, *act_from, *fit_from;
    struct um_gain_wish gain; /* of the images it was trained with */
    char gain_text[24];       /* the same in words */
    float nms;                /* IoU above which the lesser of two boxes goes, 0 = none does */
    struct um_presence_wish presence;
    char presence_text[24]; /* the same in words */
    float smooth;           /* um_resize_taps() */
};

/* What a caller says instead of the file; 0 = as the file has it. */
struct um_dfine_wish {
    int input_w, input_h; /* multiples of 32 with at least as many tokens as queries */
    int queries;
    enum um_act act;      /* UM_ACT_RELU, UM_ACT_SILU */
    int fit;              /* UM_DFINE_STRETCH, UM_DFINE_LETTERBOX */
    const char *gain;     /* um_gain_read() */
    float nms;            /* 0..1, 1 = none goes */
    const char *presence; /* "K[,P]" */
    int gray;             /* 1 yes, -1 no */
    float smooth;         /* 1..UM_SMOOTH_MAX */
};
enum { UM_DFINE_STRETCH = 1, UM_DFINE_LETTERBOX = 2 };

/* What the settings say, whose activation and fit may be NULL for "auto". UM_EINVAL for what means
 * nothing. */
um_status um_dfine_wish_read(struct um_dfine_wish *wish, const um_detector_settings *s);
/* The wish holds, and its source is "option". */
void um_dfine_obey(struct um_dfine_info *info, const struct um_dfine_wish *wish);
/* UM_EINVAL: an input of this size has fewer places than there are queries. */
um_status um_dfine_check_queries(const struct um_dfine_info *info, int levels);

/* wish may be NULL. */
um_status um_dfine_open(um_dfine **out, um_device *dev, const um_weights *file,
                        const struct um_dfine_wish *wish);
void um_dfine_close(um_dfine **d);
const struct um_dfine_info *um_dfine_info(const um_dfine *d);
size_t um_dfine_weight_bytes(const um_dfine *d);

/* Values of the 256 gray levels, per channel: u/255. */
void um_dfine_lut(float lut[3][256]);

struct um_dfine_out {
    um_tensor logits; /* [Q,1 row dim: h=1,w=Q,c=C] */
    um_tensor boxes;  /* [Q,4] cxcywh, 0..1 */
    um_tensor index;  /* i32 [Q,1]: encoder token of each query */
};
/* x f32 [input_h, input_w, 1 or 3]; one channel runs the summed stem. Taps: the names of specs
 * (stem, stage0…, pred_logits, pred_boxes). */
struct um_dfine_out um_dfine_forward(um_dfine *d, um_tape *t, um_tensor x);

/* Does the file have the tensors that make a D-FINE? */
bool um_dfine_tensors(const um_weights *file);
/* Is this file a D-FINE checkpoint, and which? Reads names, shapes, anchors and what the file says
 * of itself only. UM_EFORMAT with a reason if not. */
um_status um_dfine_recognise(const um_weights *file, struct um_dfine_info *info);

#endif
