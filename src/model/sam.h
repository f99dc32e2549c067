/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_SAM_H
#define UM_MODEL_SAM_H

#include "model/sam_family.h"
#include "nn/op.h"

enum { UM_SAM_STEP = 16 }; /* of the canvas' side */

/* A network of SAM's families: weights of one checkpoint, folded, packed and on the device. */
typedef struct um_sam um_sam;

/* canvas: side S, a multiple of UM_SAM_STEP; 0 = metadata "input_size", else what the file was made
 * for. family: as um_sam_family_find() wants it, or NULL. */
um_status um_sam_open(um_sam **out, um_device *dev, const um_weights *file, int canvas,
                      const char *family);
void um_sam_close(um_sam **s);
const struct um_sam_family *um_sam_family(const um_sam *s);
bool um_sam_gray(const um_sam *s); /* knows gray images only */
int um_sam_canvas(const um_sam *s);
int um_sam_canvas_step(
    const um_sam *s);             /* no window reaches beyond multiples of it; 0: one canvas */
int um_sam_grid(const um_sam *s); /* n: side of the embedding */
size_t um_sam_weight_bytes(const um_sam *s);

/* Values of the 256 gray levels after normalisation, per channel: (u - mean)/std in fp32. */
void um_sam_lut(float lut[3][256]);

/* x f32 [S,S,3], normalised and zero-padded -> image embedding [n,n,256], n = S/16 (LiteMedSAM:
 * S/4). beyond: u8 [1,1,um_sam_beyond_bytes()], zeros before the first image, where rows are kept
 * that no image changes, or id 0: all is computed for each. */
um_tensor um_sam_encode(um_sam *s, um_tape *t, um_tensor x, um_tensor beyond);
size_t um_sam_beyond_bytes(const um_sam *s); /* 0: such an encoder keeps none */

struct um_sam_out {
    int masks;        /* 1 or 3 */
    um_tensor low[3]; /* [4n,4n,1] logits each */
    um_tensor iou;    /* [1,1,masks] */
};
/* prompt: u8 um_prompt record with `points` points and, if `box`, a box. mask_input: f32 [4n,4n,1]
 * or id 0. */
struct um_sam_out um_sam_decode(um_sam *s, um_tape *t, um_tensor embedding, um_tensor prompt,
                                int points, bool box, um_tensor mask_input, bool multimask);

#endif
