/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for Pillow's bilinear filter: a triangle as wide as the shrink factor, weights rounded to
 * 22 bits. The expressions keep Pillow's order of operations in double, because the rounding of
 * every weight must be the same. */
#include "nn/resize.h"

#include <float.h>
#include <math.h>

enum { PRECISION = 22 };

static double support(int n_in, int n_out)
{
    double scale = (double)n_in / n_out;
    return scale < 1 ? 1 : scale;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

int um_resize_ksize(int n_in, int n_out)
{
    return (int)ceil(support(n_in, n_out)) * 2 + 1;
}

void um_resize_taps(int32_t *taps, int n_in, int n_out)
{
    double scale = (double)n_in / n_out, reach = support(n_in, n_out), inverse = 1 / reach;
    int stride = 2 + um_resize_ksize(n_in, n_out);
    for (int o = 0; o < n_out; o++, taps += stride) {
        double center = (o + 0.5) * scale, sum = 0;
        int first = (int)(center - reach + 0.5), last = (int)(center + reach + 0.5);
        first = first < 0 ? 0 : first;
        last = last > n_in ? n_in : last;
        int count = last - first;
        for (int i = 0; i < count; i++)
            sum += triangle((i + first - center + 0.5) * inverse);
        taps[0] = first;
        taps[1] = count;
        for (int i = 0; i + 2 < stride; i++) {
            double k = i < count ? triangle((i + first - center + 0.5) * inverse) : 0;
            if (sum != 0)
                k /= sum;
            taps[2 + i] = (int32_t)(0.5 + k * (1 << PRECISION));
        }
    }
}

bool um_resize_vertical_first(int h_in, int w_in, int h_out, int w_out)
{
    int shrink = w_in - w_out;
    return h_in - h_out > 2 * (shrink > 0 ? shrink : 0);
}

static um_const table(um_params *p, int n_in, int n_out)
{
    um_const k = {0};
    size_t ints = (size_t)n_out * (size_t)(2 + um_resize_ksize(n_in, n_out));
    int32_t *taps = n_in == n_out ? NULL : um_params_reserve(p, ints * sizeof *taps, &k);
    if (taps)
        um_resize_taps(taps, n_in, n_out);
    return k;
}

struct um_resize_plan um_resize_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out)
{
    struct um_resize_plan plan = {.kx = um_resize_ksize(w_in, w_out),
                                  .ky = um_resize_ksize(h_in, h_out),
                                  .h_in = h_in,
                                  .w_in = w_in,
                                  .h_out = h_out,
                                  .w_out = w_out};
    plan.tx = table(p, w_in, w_out);
    plan.ty = table(p, h_in, h_out);
    return plan;
}

/* ---- OpenCV's INTER_AREA (modules/imgproc/src/resize.cpp: computeResizeAreaTab, resize) ---- */

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

struct um_resize_plan um_area_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out)
{
    struct um_area a = um_area_of(h_in, w_in, h_out, w_out);
    struct um_resize_plan plan = {.kx = a.kx,
                                  .ky = a.ky,
                                  .h_in = h_in,
                                  .w_in = w_in,
                                  .h_out = h_out,
                                  .w_out = w_out,
                                  .by_area = true,
                                  .area = a.args};
    if (h_in != h_out || w_in != w_out) {
        plan.tx = area_table(p, &a, a.kx, w_in, w_out);
        plan.ty = area_table(p, &a, a.ky, h_in, h_out);
    }
    return plan;
}

static um_tensor by_area(um_tape *t, um_params *p, const struct um_resize_plan *plan, um_tensor x)
{
    if (!plan->tx.size)
        return x;
    return um_area(t, x, um_tape_const(t, p, plan->tx, UM_F32, 1, plan->w_out, 2 + plan->kx),
                   um_tape_const(t, p, plan->ty, UM_F32, 1, plan->h_out, 2 + plan->ky),
                   &plan->area);
}

static um_tensor pass(um_tape *t, um_params *p, const struct um_resize_plan *plan, um_tensor x,
                      bool vertical)
{
    int n = vertical ? plan->h_out : plan->w_out, k = vertical ? plan->ky : plan->kx;
    um_const taps = vertical ? plan->ty : plan->tx;
    if (!taps.size)
        return x;
    return um_resize(t, x, um_tape_const(t, p, taps, UM_I32, 1, n, 2 + k), vertical);
}

um_tensor um_resize_record(um_tape *t, um_params *p, const struct um_resize_plan *plan, um_tensor x)
{
    bool first = um_resize_vertical_first(plan->h_in, plan->w_in, plan->h_out, plan->w_out);
    if (!um_op_check(t, UM_OP_RESIZE, x.h == plan->h_in && x.w == plan->w_in,
                     "picture is %dx%d, the tables are for %dx%d", x.w, x.h, plan->w_in,
                     plan->h_in))
        return (um_tensor){0};
    if (plan->by_area)
        return by_area(t, p, plan, x);
    return pass(t, p, plan, pass(t, p, plan, x, first), !first);
}
