/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_PIPELINE_SEGMENTER_H
#define UM_PIPELINE_SEGMENTER_H

#include "model/sam.h"
#include "nn/op_sam.h"
#include "pipeline/front.h"
#include "ultramotion/segmenter.h"

/* Prompt encoder and mask decoder recorded for one kind of prompt. */
struct um_decode_path {
    int points;
    bool box, mask_input, multimask;
    um_tape *tape;
    struct um_sam_out out;
};

/* Low-res logits to masks of one picture size. */
struct um_mask_path {
    int w, h;
    const struct um_decode_path *decode;
    um_params *params;
    um_tape *tape;
    um_tensor mask[3], logits[3]; /* u8 0/1 [h,w,1], f32 [h,w,1] */
};

enum { UM_DECODE_PATHS = 8 };

struct um_segmenter {
    um_device *dev;
    um_sam *net;
    char sha256[65];
    um_mask_mode mode; /* what AUTO means; AUTO = ask the environment */
    void (*kpi)(void *ctx, const char *line);
    void *kpi_ctx;
    bool keep_taps;
    um_buf *input; /* [S,S,3] of the device's precision */
    um_tape *encode;
    um_tensor embedding;
    um_buf *prompt, *mask_input;
    um_hostbuf *prompt_slot, *mask_slot;
    um_event *sent; /* uploads from the slots have passed */
    bool sent_pending;
    struct um_decode_path decode[UM_DECODE_PATHS];
    int decodes, next_decode;
    struct um_mask_path mask;
    struct um_front front; /* of the last image */
    int image_w, image_h;  /* 0: no image, or a pipeline's frame has taken its place */
};

/* Record and compile the encoder if that has not happened yet. */
um_status um_segmenter_encoder(um_segmenter *s);
um_status um_segmenter_decoder(um_segmenter *s, int points, bool box, bool mask_input,
                               bool multimask, struct um_decode_path **out);
/* What the front must deliver for an h x w picture. */
struct um_front_target um_segmenter_target(um_segmenter *s, int w, int h);
/* Constants of um_mask_upsample() for an h x w picture: tx [w,4], ty [h,4]. */
struct um_mask_tables {
    um_const tx, ty;
};
struct um_mask_tables um_segmenter_tables(um_segmenter *s, um_params *p, int w, int h);
uint64_t um_segmenter_device_bytes(const um_segmenter *s);

/* The rollback switch (R10): the argument, else the option, else ULTRAMOTION_SAM_AS_NUMPY, else the
 * device. */
um_status um_mask_mode_resolve(um_mask_mode argument, um_mask_mode option, um_mask_mode *out);
/* NaN, inverted or not touching the picture: UM_EINVAL. */
um_status um_box_check(const float box[4], int w, int h);
/* {"ts":…, "event":"sam_mask_output", "as_numpy":0, "device":"…"<more>} */
void um_kpi_line(char *line, size_t size, double ts, bool as_numpy, const char *device,
                 const char *more);

#endif
