/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of D-FINE's query selection, deformable decoder and boxes. References:
 * src/zoo/dfine/dfine_decoder.py, dfine_utils.py, utils.py of Peterande/D-FINE. Plain-C
 * specification: op_ref_dfine.c. */
#ifndef UM_NN_OP_DFINE_H
#define UM_NN_OP_DFINE_H

#include "nn/op.h"
#include "nn/record.h"

/* Indices of the k rows of scores [T,C] whose maximum over classes is largest, descending; equal
 * scores: lowest row first; NaN counts as -inf. out i32 [k,1]. */
um_tensor um_topk(um_tape *t, um_tensor scores, int k);

/* Multi-scale deformable attention, "default" method, no value or output projection. ow [Q,
 * heads*P*3]: heads*P*2 sampling offsets [heads][P][x,y], then heads*P attention logits [heads][P]
 * (softmax over P here). ref [Q,4] cxcywh. memory [T,d]: levels finest first, row-major. out [Q,d].
 */
enum { UM_LEVELS_MAX = 4 };
struct um_deform_args {
    int heads, levels;
    int h[UM_LEVELS_MAX], w[UM_LEVELS_MAX], points[UM_LEVELS_MAX];
};
um_tensor um_deform(um_tape *t, um_tensor ow, um_tensor ref, um_tensor memory,
                    const struct um_deform_args *a);

/* y = sigmoid(delta + base) with base a logit (+inf allowed), or, if `inverse`, base a probability
 * taken through inverse_sigmoid: ln(max(x,1e-5)/max(1-x,1e-5)), x clamped to [0,1]. */
struct um_refine_args {
    bool inverse;
};
um_tensor um_refine(um_tape *t, um_tensor delta, um_tensor base, bool inverse);

/* Integral and distance2bbox: corners [Q, 4*bins], ref [Q,4], project [bins,1] (the weighting
 * function W) -> boxes cxcywh [Q,4]. */
struct um_integral_args {
    float reg_scale;
};
um_tensor um_integral(um_tape *t, um_tensor corners, um_tensor ref, um_tensor project,
                      float reg_scale);

/* Per side the 4 largest probabilities of softmax(corners), descending, and their mean: [Q,20]. */
enum { UM_LQE_STATS = 4 * (4 + 1) };
um_tensor um_lqe_stats(um_tape *t, um_tensor corners);

/* The n best (query, class) of logits [Q,C], boxes [Q,4] cxcywh normalised, n <= UM_BOXES_MAX:
 * score = sigmoid(logit) (of one object: um_presence(), if the header says so), one after the other
 * the best whose query (or, if the header says so, whose class) was not yet taken and, if it says
 * so, that does not overlap one of its class that was; ties to the lowest query, then class. header
 * u8 [1,1,256] (um_frame_header: size, class to follow, tau, how many, nms, presence). Writes n
 * um_gate (u8 [1,n,64]) and the um_prompt made of each box (u8 [1,n,sizeof]), those that are
 * UM_GATE_OK in front, else in order. A box that is not finite, inverted or off the image is not
 * OK; where a logit is NaN, none is. t: gate, prompt, logits, boxes, header. No args */
struct um_best_box {
    um_tensor gate, prompt;
};
/* prompt: where to write the um_prompts; id 0 = a new tensor. */
struct um_best_box um_best_box(um_tape *t, um_tensor logits, um_tensor boxes, um_tensor header,
                               int n, um_tensor prompt);

#endif
