/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for OpenCV's INTER_AREA (modules/imgproc/src/resize.cpp: computeResizeAreaTab, resize).
 * The expressions keep OpenCV's order of operations, because every weight must round the same. */
#include "nn/area.h"

#include <float.h>
#include <math.h>

/* An axis: source pixels per output pixel, as OpenCV works it out. */
struct axis {
    int in, out;
    double step;
};

static struct axis axis_of(int in, int out)
{
    return (struct axis){in, out, 1 / ((double)out / in)};
}

static bool whole(struct axis a)
{
    return fabs(a.step - rint(a.step)) < DBL_EPSILON;
}

/* Most taps of one output index. */
static int area_ksize(struct axis a)
{
    return a.step < 1 ? 2 : (int)ceil(a.step) + 2;
}

/* Of output i: what part of each source pixel its cell covers. */
static void area_taps(float *tap, struct axis a, int i)
{
    double from = i * a.step, to = from + a.step;
    double cell = a.step < a.in - from ? a.step : a.in - from;
    int last = (int)floor(to) < a.in - 1 ? (int)floor(to) : a.in - 1;
    int first = (int)ceil(from) < last ? (int)ceil(from) : last, n = 0;
    tap[0] = (float)first;
    if (first - from > 1e-3) {
        tap[0] = (float)(first - 1);
        tap[2 + n++] = (float)((first - from) / cell);
    }
    for (int k = first; k < last; k++)
        tap[2 + n++] = (float)(1 / cell);
    if (to - last > 1e-3) {
        double part = to - last < 1 ? to - last : 1;
        tap[2 + n++] = (float)((part < cell ? part : cell) / cell);
    }
    tap[1] = (float)n;
}

/* Of output i: every source pixel of its cell once. */
static void block_taps(float *tap, struct axis a, int i)
{
    int n = (int)rint(a.step);
    tap[0] = (float)(i * n);
    tap[1] = (float)n;
    for (int k = 0; k < n; k++)
        tap[2 + k] = 1;
}

/* Of output i: where its cell lies between two source pixels, at 2^11. */
static void linear_taps(float *tap, struct axis a, int i)
{
    int first = (int)floor(i * a.step);
    float part = (float)(i + 1 - (first + 1) * ((double)a.out / a.in));
    part = part <= 0 ? 0 : part - floorf(part);
    if (first >= a.in - 1) {
        first = a.in - 1;
        part = 0;
    }
    tap[0] = (float)first;
    tap[1] = part > 0 ? 2 : 1;
    tap[2] = rintf((1 - part) * 2048);
    tap[3] = rintf(part * 2048);
}

struct um_area um_area_of(int h_in, int w_in, int h_out, int w_out)
{
    struct axis x = axis_of(w_in, w_out), y = axis_of(h_in, h_out);
    bool linear = x.step < 1 || y.step < 1, blocks = !linear && whole(x) && whole(y);
    int across = (int)rint(x.step), down = (int)rint(y.step);
    return (struct um_area){.blocks = blocks,
                            .kx = linear ? 2 : area_ksize(x),
                            .ky = linear ? 2 : area_ksize(y),
                            .args = {.linear = linear,
                                     .half_up = blocks && across == 2 && down == 2,
                                     .scale = blocks ? 1.0f / (float)(across * down) : 1}};
}

void um_area_taps(float *taps, const struct um_area *a, int ksize, int n_in, int n_out)
{
    struct axis axis = axis_of(n_in, n_out);
    for (int i = 0; i < n_out; i++, taps += 2 + ksize)
        (a->args.linear ? linear_taps : a->blocks ? block_taps : area_taps)(taps, axis, i);
}

static um_const area_table(um_params *p, const struct um_area *a, int ksize, int n_in, int n_out)
{
    um_const k = {0};
    float *taps = um_params_reserve(p, (size_t)n_out * (size_t)(2 + ksize) * sizeof *taps, &k);
    if (taps)
        um_area_taps(taps, a, ksize, n_in, n_out);
    return k;
}

struct um_area_plan um_area_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out)
{
    struct um_area a = um_area_of(h_in, w_in, h_out, w_out);
    struct um_area_plan plan = {.kx = a.kx,
                                .ky = a.ky,
                                .h_in = h_in,
                                .w_in = w_in,
                                .h_out = h_out,
                                .w_out = w_out,
                                .args = a.args};
    if (h_in != h_out || w_in != w_out) {
        plan.tx = area_table(p, &a, a.kx, w_in, w_out);
        plan.ty = area_table(p, &a, a.ky, h_in, h_out);
    }
    return plan;
}

um_tensor um_area_record(um_tape *t, um_params *p, const struct um_area_plan *plan, um_tensor x)
{
    if (!um_op_check(t, UM_OP_AREA, x.h == plan->h_in && x.w == plan->w_in,
                     "image is %dx%d, the tables are for %dx%d", x.w, x.h, plan->w_in,
                     plan->h_in) ||
        !plan->tx.size)
        return x;
    return um_area(t, x, um_tape_const(t, p, plan->tx, UM_F32, 1, plan->w_out, 2 + plan->kx),
                   um_tape_const(t, p, plan->ty, UM_F32, 1, plan->h_out, 2 + plan->ky),
                   &plan->args);
}
