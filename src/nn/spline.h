/* SPDX-License-Identifier: Apache-2.0 */
/* scikit-image's resize with order 3 and anti_aliasing as tables for um_fir(): a Gaussian where the
 * image shrinks, then cubic splines through its pixels. All of it is linear, so an axis is one
 * table of weights. */
#ifndef UM_NN_SPLINE_H
#define UM_NN_SPLINE_H

#include "nn/op.h"

/* Most taps of one output index, and the taps. False: out of memory. */
int um_spline_ksize(int n_in, int n_out);
bool um_spline_taps(float *taps /* [n_out][2 + 2*ksize] */, int n_in, int n_out);

/* Add the tables to p and record both passes: u8 to u8. */
struct um_spline_plan {
    um_const tx, ty;
    int kx, ky, h_in, w_in, h_out, w_out;
};
struct um_spline_plan um_spline_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out);
um_tensor um_spline_record(um_tape *t, um_params *p, const struct um_spline_plan *plan,
                           um_tensor x);

#endif
