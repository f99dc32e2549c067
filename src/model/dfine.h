/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_DFINE_H
#define UM_MODEL_DFINE_H

#include "nn/op.h"
#include "weights/weights.h"

/* D-FINE N/S/M/L/X: weights of one checkpoint, folded, packed and on the device. */
typedef struct um_dfine um_dfine;

struct um_dfine_info {
    char architecture[16]; /* "dfine-n" … "dfine-x" */
    int classes;
    int channels;   /* of the stem in the file: 1 or 3 */
    int input_size; /* side of the square input */
    int queries;
};

/* input_w, input_h: multiples of 32 with at least 300 tokens; 0 = metadata, else anchors in the
 * file, else 640. */
um_status um_dfine_open(um_dfine **out, um_device *dev, const um_weights *file, int input_w,
                        int input_h);
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

/* Is this file a D-FINE checkpoint, and which? Reads names and shapes only. UM_EFORMAT with a
 * reason if not. */
um_status um_dfine_recognise(const um_weights *file, struct um_dfine_info *info);

#endif
