/* SPDX-License-Identifier: Apache-2.0 */
/* A segmenter is what a file gives: weights, immutable, shared. um_encode and um_decode are one
 * user's sessions on it: buffers and recorded tapes of the image encoder, and of prompt encoder and
 * mask decoder for one kind of prompt. */
#ifndef UM_ENGINE_SEGMENTER_H
#define UM_ENGINE_SEGMENTER_H

#include "engine/front.h"
#include "model/sam.h"
#include "nn/op_sam.h"
#include "ultramotion/segmenter.h"

#include <pthread.h>
#include <stdatomic.h>

struct um_segmenter {
    atomic_int refs; /* without `own` */
    um_device *dev;  /* a reference */
    um_sam *net;
    char sha256[65], architecture[32];
    pthread_mutex_t lock;
    um_mask_mode
        mode; /* guarded by lock, as all below; what AUTO means; AUTO = ask the environment */
    void (*kpi)(void *ctx, const char *line);
    void *kpi_ctx;
    pthread_mutex_t own_lock; /* of the session that predict/ keeps here for one-shot calls */
    struct um_predictor *own; /* or NULL */
    void (*close_own)(struct um_predictor **own);
};

/* The image encoder, recorded and compiled. */
typedef struct um_encode {
    const um_segmenter *model;
    um_buf *input;  /* [S,S,3] of the device's precision */
    um_buf *beyond; /* what no image changes (nn/reach.h), or NULL */
    um_tape *tape;
    um_tensor embedding; /* [n,n,256], kept */
} um_encode;

um_status um_encode_open(um_encode *s, const um_segmenter *model, bool keep_taps);
void um_encode_close(um_encode *s); /* accepts a zeroed or half-open one */
uint64_t um_encode_device_bytes(const um_encode *s);
/* What the front must deliver for an h x w image. */
struct um_front_target um_encode_target(const um_encode *s, int w, int h);

/* What a decoder is recorded for. */
struct um_prompt_kind {
    int points;
    bool box, mask_input, multimask;
};

typedef struct um_decode {
    struct um_prompt_kind kind;
    um_tape *tape;
    struct um_sam_out out;
} um_decode;

/* Where a decoder reads: the embedding of an encoder, or, without one, [n,n,256] in a buffer. */
struct um_decode_input {
    const um_encode *encode;
    um_buf *embedding;
    um_buf *prompt;     /* um_prompt */
    um_buf *mask_input; /* f32 [4n,4n], where the kind has one */
};

um_status um_decode_open(um_decode *s, const um_segmenter *model, struct um_prompt_kind kind,
                         const struct um_decode_input *in, bool keep_taps);
void um_decode_close(um_decode *s); /* accepts a zeroed one */

/* Constants of um_mask_upsample() for an h x w image: tx [w,4], ty [h,4]. */
struct um_mask_tables {
    um_const tx, ty, bias[2];
};
struct um_mask_tables um_segmenter_tables(const um_segmenter *s, um_params *p, int w, int h);
/* What the mask is made of, positive inside: the logits; of MedSAM their probabilities minus a
 * half, because it thresholds after it has interpolated those. */
um_tensor um_segmenter_scores(const um_segmenter *s, um_tape *t, um_params *p,
                              struct um_mask_tables k, um_tensor low);
/* Side of the low-resolution logits. */
int um_segmenter_low_side(const um_segmenter *s);

/* The rollback switch (R10): the argument, else the segmenter's option, else
 * ULTRAMOTION_SAM_AS_NUMPY, else the device. s may be NULL. */
um_status um_mask_mode_resolve(um_mask_mode argument, const um_segmenter *s, um_mask_mode *out);
/* NaN, inverted or not touching the image: UM_EINVAL. */
um_status um_box_check(const float box[4], int w, int h);
/* {"ts":…, "event":"sam_mask_output", "as_numpy":0, "device":"…"<more>} */
void um_kpi_line(char *line, size_t size, double ts, bool as_numpy, const char *device,
                 const char *more);

#endif
