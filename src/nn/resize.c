/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for Pillow's bilinear filter: a triangle as wide as the shrink factor or, to smooth,
 * wider; weights rounded to 22 bits. The expressions keep Pillow's order of operations in double,
 * because the rounding of every weight must be the same. */
#include "nn/resize.h"

#include <math.h>
#include <string.h>

enum { PRECISION = 22 };

double um_resize_reach(int n_in, int n_out, float smooth)
{
    double scale = (double)n_in / n_out, support = scale < 1 ? 1 : scale;
    return support < smooth * scale ? smooth * scale : support;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

int um_resize_ksize(int n_in, int n_out, float smooth)
{
    return (int)ceil(um_resize_reach(n_in, n_out, smooth)) * 2 + 1;
}

void um_resize_taps(int32_t *taps, int n_in, int n_out, float smooth)
{
    double scale = (double)n_in / n_out, reach = um_resize_reach(n_in, n_out, smooth),
           inverse = 1 / reach;
    int stride = 2 + um_resize_ksize(n_in, n_out, smooth);
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

/* n_out indices, `inner` of them from `first` on those of the image; none where nothing changes.
 */
static um_const table(um_params *p, int n_in, int n_out, int first, int inner, float smooth)
{
    um_const k = {0};
    size_t stride = (size_t)(2 + um_resize_ksize(n_in, inner, smooth)),
           ints = (size_t)n_out * stride;
    bool same = n_in == n_out && inner == n_out && smooth == 1;
    int32_t *taps = same ? NULL : um_params_reserve(p, ints * sizeof *taps, &k);
    if (!taps)
        return k;
    memset(taps, 0, ints * sizeof *taps);
    um_resize_taps(taps + (size_t)first * stride, n_in, inner, smooth);
    for (int i = first + inner; i < n_out; i++) /* where a run of indices ends, its source ends */
        taps[(size_t)i * stride] = n_in;
    return k;
}

struct um_resize_plan um_resize_prepare_in(um_params *p, int h_in, int w_in, int h_out, int w_out,
                                           struct um_margin m, float smooth)
{
    struct um_resize_plan plan = {.kx = um_resize_ksize(w_in, m.inner_w, smooth),
                                  .ky = um_resize_ksize(h_in, m.inner_h, smooth),
                                  .h_in = h_in,
                                  .w_in = w_in,
                                  .h_out = h_out,
                                  .w_out = w_out,
                                  .inner_h = m.inner_h,
                                  .inner_w = m.inner_w,
                                  .smooth = smooth};
    plan.tx = table(p, w_in, w_out, m.left, m.inner_w, smooth);
    plan.ty = table(p, h_in, h_out, m.top, m.inner_h, smooth);
    return plan;
}

struct um_resize_plan um_resize_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out,
                                        float smooth)
{
    return um_resize_prepare_in(p, h_in, w_in, h_out, w_out,
                                (struct um_margin){.inner_h = h_out, .inner_w = w_out}, smooth);
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
    bool first = um_resize_vertical_first(plan->h_in, plan->w_in, plan->inner_h, plan->inner_w);
    if (!um_op_check(t, UM_OP_RESIZE, x.h == plan->h_in && x.w == plan->w_in,
                     "image is %dx%d, the tables are for %dx%d", x.w, x.h, plan->w_in, plan->h_in))
        return (um_tensor){0};
    return pass(t, p, plan, pass(t, p, plan, x, first), !first);
}
