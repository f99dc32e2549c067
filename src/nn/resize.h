/* SPDX-License-Identifier: Apache-2.0 */
/* Pillow's bilinear resize as tables (Pillow 13.0, src/libImaging/Resample.c: precompute_coeffs,
 * normalize_coeffs_8bpc). smooth, 1 to UM_SMOOTH_MAX: the filter reaches at least so many output
 * pixels to both sides; 1 is Pillow's. */
#ifndef UM_NN_RESIZE_H
#define UM_NN_RESIZE_H

#include "base/status.h"
#include "nn/op.h"

enum { UM_SMOOTH_MAX = 8 };
double um_resize_reach(int n_in, int n_out, float smooth); /* in input pixels, to both sides */
int um_resize_ksize(int n_in, int n_out, float smooth);    /* most taps of one output index */
void um_resize_taps(int32_t *taps /* [n_out][2 + ksize] */, int n_in, int n_out, float smooth);
/* Order of the passes in Pillow 13.0: vertical first iff h_in - h_out > 2*max(0, w_in - w_out). */
bool um_resize_vertical_first(int h_in, int w_in, int h_out, int w_out);
/* Add the tables to p and record both passes (a pass is skipped where the size does not change). */
struct um_resize_plan {
    um_const tx, ty;
    int kx, ky, h_in, w_in, h_out, w_out;
    int inner_h, inner_w; /* without the margins */
    float smooth;
};
struct um_resize_plan um_resize_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out,
                                        float smooth);
/* The same with the image resized to inner_h x inner_w at (top, left) of h_out x w_out; the rest
 * is 0, from indices without taps. */
struct um_margin {
    int top, left, inner_h, inner_w;
};
struct um_resize_plan um_resize_prepare_in(um_params *p, int h_in, int w_in, int h_out, int w_out,
                                           struct um_margin margin, float smooth);
um_tensor um_resize_record(um_tape *t, um_params *p, const struct um_resize_plan *plan,
                           um_tensor x);

#endif
