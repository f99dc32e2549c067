/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of the SAM prompt encoder and of mask, mask weights and packet. References:
 * prompt_encoder.py, sam.py of ChaoningZhang/MobileSAM. Plain-C specification: op_ref_sam.c. */
#ifndef UM_NN_OP_SAM_H
#define UM_NN_OP_SAM_H

#include "nn/op.h"
#include "nn/reach.h"
#include "nn/record.h"

/* Sparse prompt tokens, appended to the 5 output tokens: out [5 + n, 256]. table [10,256]: rows 0-4
 * iou token and mask tokens, 5..8 point_embeddings 0..3, 9 not_a_point; gauss [2,128]. n tokens:
 * points, then the box's two corners, or the label -1 token when there are points and no box; none
 * with neither, where a mask is the prompt. Coordinates are brought to the canvas in double, as
 * `fit` says. t: out, prompt (u8 um_prompt), table, gauss */
struct um_prompt_args {
    int canvas;
    enum um_fit fit;
    int points, box; /* how many points, and whether a box: fixed when recorded */
};
um_tensor um_prompt_tokens(um_tape *t, um_tensor prompt, um_tensor table, um_tensor gauss,
                           const struct um_prompt_args *a);

/* Low-res logits [n4,n4,1] -> mask u8 0/1 [h,w,1]: upstream's two bilinear steps (n4 -> canvas,
 * crop, -> h x w), each axis folded into at most 3 taps; v > 0. tx f32 [w,4], ty f32 [h,4]: first
 * index (as float), 3 weights. v = fmaf chain over x taps within a row, then over y taps: the same
 * order everywhere, so equal logits give equal masks. logits f32 [h,w,1] is written if asked for
 * (id != 0). gate absent, or flags OK: as said; else the mask is 0. t: mask, logits[opt], low, tx,
 * ty, gate[opt]. No args */
um_tensor um_mask_upsample(um_tape *t, um_tensor low, um_tensor tx, um_tensor ty, um_tensor gate,
                           um_tensor logits);

/* Mask weights (inventory: compute_mask_weights) and statistics. mask u8 [h,w,1] -> weights u8 0/1
 * [3h,w,1]: planes W_edge = D3 - E3, W_in = E3, W_out = D5 - M, square kernels, outside the image
 * never wins (dilate sees 0, erode sees 1); record u8 [1,1,256] (um_record) with area, box, sums
 * and pixel counts set, the rest zero. t: weights, record, mask. No args */
struct um_mask_stats {
    um_tensor weights, record;
};
struct um_mask_stats um_mask_statistics(um_tape *t, um_tensor mask);

/* The packet: out u8 [1,1,256 + h*4*ceil(w/32)] = um_record (stats + gate + iou + non-finite count
 * of low, frame id of header), then the mask bits, row by row in little-endian 32-bit words, pixel
 * x = bit x%32. t: out, stats, mask, gate[opt], iou[opt] (first element), low[opt], header. No args
 */
um_tensor um_packet_op(um_tape *t, um_tensor stats, um_tensor mask, um_tensor gate, um_tensor iou,
                       um_tensor low, um_tensor header, um_tensor out /* id 0: new */);

/* The mask of a packet without what does not belong to it, and its statistics. In this order:
 * pieces (pixels that touch, also over corners) that do not reach into the gate's box, grown by a
 * tenth of its side and 2 pixels at each end, go (gate absent: all stay); pieces of
 * less than 1/20 of the pixels of the largest one go; holes (pixels that touch over sides, without
 * a way to the image's border) of less than that close. um_record.removed_px and filled_px say
 * how many pixels that were; nothing else changes. work is um_clean_bytes(), of any content.
 * t: packet, work, gate[opt] */
struct um_clean_args {
    int h, w;
};
void um_clean(um_tape *t, um_tensor packet, um_tensor work, um_tensor gate, int h, int w);

/* How far an image reaches on the canvas x, f32 [S,S,c]: to its last row or, if that is the last
 * of all, column whose bits are not all zeros, and from there through the steps. If the rest is
 * kept of images of that size the steps compute what it reaches, else all. beyond u8
 * [1,1,sizeof(struct um_beyond)]. t: beyond, x */
void um_reach(um_tape *t, um_tensor beyond, um_tensor x, const struct um_reach_args *a);

/* The map x [s,s,c] of step `step`: its n rows or columns behind those that the image reaches are
 * kept if they were computed, else put there. kept f32 [1,1,n*s*c]. t: x, kept, beyond */
struct um_beyond_args {
    int step, n;
};
void um_beyond(um_tape *t, um_tensor x, um_tensor kept, um_tensor beyond,
               const struct um_beyond_args *a);

/* ResizeLongestSide: size of an h x w image on a square canvas (transforms.py,
 * get_preprocess_shape). */
static inline void um_longest_side(int canvas, int h, int w, int *new_h, int *new_w)
{
    double scale = (double)canvas / (h > w ? h : w);
    *new_h = (int)(h * scale + 0.5);
    *new_w = (int)(w * scale + 0.5);
}

/* Host tables. Taps of one axis of um_mask_upsample for n4 logits on a canvas of `canvas`, `used`
 * canvas pixels and `out` output pixels. */
void um_mask_taps(float *taps /* [out][4] */, int n4, int canvas, int used, int out);
/* Bytes per mask row in the packet. */
static inline int um_mask_row_bytes(int w)
{
    return (w + 31) / 32 * 4;
}

#endif
