/* SPDX-License-Identifier: Apache-2.0 */
/* The few bytes that cross between host and device beside the pixels: plain structs, same layout
 * everywhere. */
#ifndef UM_NN_RECORD_H
#define UM_NN_RECORD_H

#include <assert.h>
#include <stdint.h>

enum {
    UM_HEADER_BYTES = 256,
    UM_GATE_BYTES = 64,
    UM_RECORD_BYTES = 256,
    UM_POINTS_MAX = 16,
    UM_BOXES_MAX = 16 /* gates of a frame */
};

/* In front of the pixels in the one upload of a frame: everything that changes from frame to frame.
 */
struct um_frame_header {
    uint64_t frame_id;
    uint32_t width, height; /* of the image that follows (after cropping) */
    float tau_conf;         /* score >= tau_conf -> VISIBLE */
    int32_t label;          /* class to follow; -1 = the best of all */
    uint32_t objects;       /* how many boxes to pick, at most as many as there are gates; 0 = 1 */
    uint32_t per_class;     /* 1: at most one box of a class; 0: at most one of a query */
    /* Where the image lies in the detector's input: a side of a box at 0..1 of the input is at
     * scale * side + shift of the image. Scale 0: it fills the input. */
    float box_scale[2], box_shift[2]; /* x, y */
    /* Of a pipeline that keeps track (nn/op_track.h) */
    uint32_t track; /* enum um_track_flag */
    int32_t follow_label;
    float follow_score, follow_box[4]; /* the structure of the frame before: prompt of a frame
                                          without a detector */
    float gain; /* of this image, 0 = none; um_gain() finds it on the device where it is 0 */
    float nms;  /* no box is picked that overlaps a picked one of its class by more than this IoU;
                   0 = any is */
    uint32_t presence;   /* of one object: its score is that one of so many picks of its class is
                            right   (um_presence()); 0 = its own; at most UM_BOXES_MAX */
    float presence_half; /* the probability of that which is a score of one half */
    uint32_t anew;       /* 1: what um_gain() knows is of another stream */
    uint8_t reserved[160];
};

enum um_track_flag {
    UM_TRACK_PREVIOUS = 1, /* the memory holds mask, box and patch of the frame before */
    UM_TRACK_GOOD = 2,     /* it holds the patch of a good frame */
    UM_TRACK_KEEP = 4      /* the patch of the frame before is that of a good one from now on */
};

enum um_gate_flag {
    UM_GATE_OK = 1,
    UM_GATE_NONFINITE = 2,
    UM_GATE_INVERTED = 4,
    UM_GATE_OUTSIDE = 8,
    UM_GATE_BELOW_TAU = 16,
    UM_GATE_NAN = 32 /* a score of the detector is not a number: nothing of this frame is right */
};

/* The detector's verdict on one box, a (query, class). `flags` is UM_GATE_OK exactly when it is to
 * be outlined; the frame is VISIBLE when one is. query -1: there was nothing to pick. */
struct um_gate {
    uint32_t flags;
    int32_t query, label;
    float score, logit;
    float box[4];  /* xyxy, pixels of the uploaded image, not clamped; zero if NONFINITE: the bits
                      of a NaN are each device's own */
    float contact; /* of gate 0 of a pipeline that keeps track: um_contact(); else 0 */
    float gain;    /* of the image: that of the header */
    uint32_t reserved[5];
};

/* What the prompt encoder reads. Coordinates in pixels of the uploaded image. */
struct um_prompt {
    uint32_t width, height; /* of the image */
    uint32_t has_box, n_points;
    float box[4];
    float xy[2 * UM_POINTS_MAX];
    int32_t label[UM_POINTS_MAX]; /* 1 object, 0 background, -1 padding */
};

/* How its coordinates come to the canvas. */
enum um_fit {
    UM_FIT_LONGEST, /* times newW/W and newH/H of ResizeLongestSide */
    UM_FIT_RATIO,   /* times canvas/max(W,H), to whole pixels toward zero */
    UM_FIT_STRETCH  /* times canvas/W and canvas/H */
};

/* In front of the mask bits in the one download of a frame. Zero where the state is LOST. */
struct um_record {
    uint64_t frame_id;
    struct um_gate gate; /* 64 bytes */
    float iou;           /* predicted by the mask decoder */
    uint32_t area_px;
    int32_t mask_box[4];             /* x0, y0, x1, y1 (exclusive); zero if the mask is empty */
    uint64_t sum_x, sum_y;           /* of mask pixels: the centroid is sum/area */
    uint32_t edge_px, in_px, out_px; /* pixels where W_edge, W_in, W_out are 1 */
    uint32_t nonfinite;              /* low-res logits that are NaN or infinite */
    float score[8]; /* um_scores(): S1-S4, C1-C3, contact; zero where nobody keeps track */
    uint32_t removed_px, filled_px; /* um_clean(); zero where nobody cleans */
    uint8_t reserved[256 - 8 - 64 - 4 - 4 - 16 - 16 - 12 - 4 - 32 - 8];
};

static_assert(sizeof(struct um_frame_header) == UM_HEADER_BYTES, "frame header is 256 bytes");
static_assert(sizeof(struct um_gate) == UM_GATE_BYTES, "gate record is 64 bytes");
static_assert(sizeof(struct um_record) == UM_RECORD_BYTES, "packet record is 256 bytes");

#endif
