/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for Pillow's bilinear filter: a triangle as wide as the shrink factor, weights rounded to
 * 22 bits. The expressions keep Pillow's order of operations in double, because the rounding of
 * every weight must be the same. */
#include "nn/resize.h"

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
    return pass(t, p, plan, pass(t, p, plan, x, first), !first);
}
