/* SPDX-License-Identifier: Apache-2.0 */
/* A predictor: one user's session on a segmenter. Its decoders read the embedding from a buffer of
 * its own, into which the encoder's result or a um_embedding is copied on the device. */
#ifndef UM_PREDICT_PREDICTOR_H
#define UM_PREDICT_PREDICTOR_H

#include "engine/segmenter.h"
#include "predict/values.h"
#include "ultramotion/predictor.h"

#include <stdatomic.h>

/* Low-res logits to masks of one image size. */
struct um_mask_path {
    int w, h;
    const um_decode *decode;
    um_params *params;
    um_tape *tape;
    um_tensor mask[3], logits[3]; /* u8 0/1 [h,w,1], f32 [h,w,1] */
};

enum { UM_DECODE_PATHS = 8 };

struct um_predictor {
    um_segmenter *model;
    um_segmenter *held; /* a reference to it; NULL: this is the segmenter's own */
    um_device *dev;
    bool keep_taps;
    um_encode encode; /* recorded at the first image */
    um_buf *embedding, *prompt, *mask_input;
    um_hostbuf *prompt_slot, *mask_slot;
    um_event *sent;                     /* uploads from the slots have passed */
    bool sent_pending, sent_marked;     /* the slots were taken; `sent` is behind their uploads */
    um_decode *decode[UM_DECODE_PATHS]; /* the last kinds of prompt */
    uint64_t used[UM_DECODE_PATHS], uses;
    struct um_mask_path mask;
    struct um_front front; /* of the last image */
    int image_w, image_h;  /* 0: no image */
    uint64_t holds;        /* id of the um_embedding in `embedding`; 0 = of an image */
    bool encoded;          /* here: the encoder's taps are of this image */
};

struct um_embedding {
    atomic_int refs;
    uint64_t id;       /* unique in this process */
    um_device *dev;    /* the values' */
    um_values *values; /* [1,256,n,n] of the device's precision, in memory [n,n,256] */
    um_buf *buf;       /* the values' */
    int n, w, h;       /* w, h: of the image */
    char sha256[65];
};

/* Without a reference to the segmenter, which closes it. */
um_status um_predictor_open_own(um_predictor **out, um_segmenter *segmenter);

/* Empty what a caller gave for a prediction, or NULL. UM_EINVAL for its struct_size. */
um_status um_prediction_empty(um_prediction *out);

/* A mask yet to be filled in, [1,1,h,w] on the device or [h,w] on the host. */
um_status um_mask_open(um_values **out, um_device *dev, bool host, int h, int w);

um_status um_embedding_new(um_embedding **out, const um_segmenter *s, int w, int h);
/* Its numbers as f32, [1,256,n,n]. */
um_status um_embedding_numbers(const um_embedding *e, float *out);

#endif
