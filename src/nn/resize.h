/* SPDX-License-Identifier: Apache-2.0 */
/* Resizing as tables: Pillow's bilinear (Pillow 13.0, src/libImaging/Resample.c: precompute_coeffs,
 * normalize_coeffs_8bpc), and OpenCV's INTER_AREA. */
#ifndef UM_NN_RESIZE_H
#define UM_NN_RESIZE_H

#include "base/status.h"
#include "nn/op.h"

int um_resize_ksize(int n_in, int n_out); /* most taps of one output index */
void um_resize_taps(int32_t *taps /* [n_out][2 + ksize] */, int n_in, int n_out);
/* Order of the passes in Pillow 13.0: vertical first iff h_in - h_out > 2*max(0, w_in - w_out). */
bool um_resize_vertical_first(int h_in, int w_in, int h_out, int w_out);
/* What INTER_AREA makes of these sizes; kx, ky: most taps of one output index. */
struct um_area {
    struct um_area_args args;
    bool blocks; /* every output pixel has whole source pixels */
    int kx, ky;
};
struct um_area um_area_of(int h_in, int w_in, int h_out, int w_out);
void um_area_taps(float *taps /* [n_out][2 + ksize] */, const struct um_area *a, int ksize,
                  int n_in, int n_out);
/* Add the tables to p and record both passes (a pass is skipped where the size does not change). */
struct um_resize_plan {
    um_const tx, ty;
    int kx, ky, h_in, w_in, h_out, w_out;
    bool by_area; /* OpenCV's filter, as `area` says; else Pillow's */
    struct um_area_args area;
};
struct um_resize_plan um_resize_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out);
/* The same for OpenCV's INTER_AREA, which is one step: um_area(). */
struct um_resize_plan um_area_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out);
um_tensor um_resize_record(um_tape *t, um_params *p, const struct um_resize_plan *plan,
                           um_tensor x);

#endif
