/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCV's resize with INTER_AREA as tables for um_area(). */
#ifndef UM_NN_AREA_H
#define UM_NN_AREA_H

#include "nn/op.h"

/* What it makes of these sizes; kx, ky: most taps of one output index. */
struct um_area {
    struct um_area_args args;
    bool blocks; /* every output pixel has whole source pixels */
    int kx, ky;
};
struct um_area um_area_of(int h_in, int w_in, int h_out, int w_out);
void um_area_taps(float *taps /* [n_out][2 + ksize] */, const struct um_area *a, int ksize,
                  int n_in, int n_out);

/* Add the tables to p and record the step, which is left out where no size changes. */
struct um_area_plan {
    um_const tx, ty;
    int kx, ky, h_in, w_in, h_out, w_out;
    struct um_area_args args;
};
struct um_area_plan um_area_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out);
um_tensor um_area_record(um_tape *t, um_params *p, const struct um_area_plan *plan, um_tensor x);

#endif
