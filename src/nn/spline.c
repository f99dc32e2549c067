/* SPDX-License-Identifier: Apache-2.0 */
/* References: skimage/transform/_warps.py, resize; scipy/ndimage: gaussian_filter, zoom with
 * grid_mode and mode "mirror", where index -1 is 1 and index n is n - 2.
 *
 * With G the Gaussian, B the matrix that takes a spline's coefficients to its values (1/6, 4/6,
 * 1/6) and W the values between them, output = W inv(B) G input. A row of it is a row w of W, times
 * inv(B) by one tridiagonal solution, times G. What is farther away than REACH from the place of an
 * output in inv(B) is below 1e-15. */
#include "nn/spline.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { REACH = 28 };

struct axis {
    int in;
    double step, sigma;
    int radius; /* of the Gaussian; 0: none */
};

static struct axis axis_of(int in, int out)
{
    struct axis a = {.in = in, .step = (double)in / out};
    a.sigma = a.step > 1 ? (a.step - 1) / 2 : 0;
    a.radius = a.sigma > 1e-15 ? (int)(4 * a.sigma + 0.5) : 0;
    return a;
}

static int mirror(int i, int n)
{
    if (n == 1)
        return 0;
    int period = 2 * n - 2;
    i = i % period < 0 ? i % period + period : i % period;
    return i < n ? i : period - i;
}

int um_spline_ksize(int n_in, int n_out)
{
    int most = 2 * (REACH + axis_of(n_in, n_out).radius) + 4;
    return most < n_in ? most : n_in;
}

/* Indices that output o sees: *first and how many. */
static int span_of(const struct axis *a, int o, int *first)
{
    int middle = (int)floor((o + 0.5) * a->step - 0.5), reach = REACH + a->radius;
    int last = middle + 2 + reach < a->in ? middle + 2 + reach : a->in - 1;
    *first = middle - 1 - reach > 0 ? middle - 1 - reach : 0;
    return last - *first + 1;
}

/* Weights of the four coefficients round a place between two of them (scipy's get_spline_weights).
 */
static void cubic(double t, double w[4])
{
    double z = 1 - t;
    w[1] = (t * t * (t - 2) * 3 + 4) / 6;
    w[2] = (z * z * (z - 2) * 3 + 4) / 6;
    w[0] = z * z * z / 6;
    w[3] = 1 - w[0] - w[1] - w[2];
}

/* x in y: B^T x = y for n coefficients. B's rows are (1 4 1)/6, the first (4 2 0..)/6 and the last
 * (..0 2 4)/6. */
static void solve(double *y, double *scratch, int n)
{
    if (n == 1)
        return;
    for (int i = 0; i < n; i++) { /* B^T: below the diagonal B[i-1][i], above it B[i+1][i] */
        double below = i == 1 ? 2.0 / 6 : 1.0 / 6, above = i == n - 2 ? 2.0 / 6 : 1.0 / 6;
        double pivot = 4.0 / 6 - (i ? below * scratch[i - 1] : 0);
        scratch[i] = above / pivot;
        y[i] = (y[i] - (i ? below * y[i - 1] : 0)) / pivot;
    }
    for (int i = n - 2; i >= 0; i--)
        y[i] -= scratch[i] * y[i + 1];
}

/* Row o of the matrix in `row`, which is all zeros outside of what span_of() says. */
static void row_of(const struct axis *a, int o, double *row, double *y, double *scratch,
                   const double *gauss)
{
    double place = (o + 0.5) * a->step - 0.5, w[4];
    int middle = (int)floor(place);
    memset(y, 0, (size_t)a->in * sizeof *y);
    memset(row, 0, (size_t)a->in * sizeof *row);
    cubic(place - middle, w);
    for (int k = 0; k < 4; k++)
        y[mirror(middle - 1 + k, a->in)] += w[k];
    solve(y, scratch, a->in);
    int from = middle - 1 - REACH > 0 ? middle - 1 - REACH : 0;
    for (int i = from; i < a->in && i <= middle + 2 + REACH; i++)
        for (int k = -a->radius; k <= a->radius; k++)
            row[mirror(i + k, a->in)] += y[i] * gauss[k < 0 ? -k : k];
}

bool um_spline_taps(float *taps, int n_in, int n_out)
{
    struct axis a = axis_of(n_in, n_out);
    int ksize = um_spline_ksize(n_in, n_out);
    size_t n = (size_t)n_in;
    double *row = um_array(3 * n + (size_t)a.radius + 1, sizeof *row), sum = 0;
    if (!row)
        return false;
    double *y = row + n, *scratch = y + n, *gauss = scratch + n;
    for (int k = 0; k <= a.radius; k++) {
        gauss[k] = a.radius ? exp(-0.5 * k * k / (a.sigma * a.sigma)) : 1;
        sum += k ? 2 * gauss[k] : gauss[k];
    }
    for (int k = 0; k <= a.radius; k++)
        gauss[k] /= sum;
    for (int o = 0; o < n_out; o++, taps += 2 + 2 * ksize) {
        int first, count = span_of(&a, o, &first);
        row_of(&a, o, row, y, scratch, gauss);
        memset(taps, 0, (size_t)(2 + 2 * ksize) * sizeof *taps);
        taps[0] = (float)first;
        taps[1] = (float)count;
        for (int k = 0; k < count; k++) {
            float *weight = taps + 2 + 2 * k;
            weight[0] = (float)row[first + k];
            weight[1] = (float)(row[first + k] - weight[0]);
        }
    }
    um_free(row);
    return true;
}

static um_const table(um_params *p, int ksize, int n_in, int n_out)
{
    um_const k = {0, 0};
    float *taps = um_params_reserve(p, (size_t)n_out * (size_t)(2 + 2 * ksize) * sizeof *taps, &k);
    if (taps && !um_spline_taps(taps, n_in, n_out))
        um_params_fail(p, um_fail(UM_ENOMEM, "spline of %d to %d", n_in, n_out));
    return k;
}

struct um_spline_plan um_spline_prepare(um_params *p, int h_in, int w_in, int h_out, int w_out)
{
    struct um_spline_plan plan = {.kx = um_spline_ksize(w_in, w_out),
                                  .ky = um_spline_ksize(h_in, h_out),
                                  .h_in = h_in,
                                  .w_in = w_in,
                                  .h_out = h_out,
                                  .w_out = w_out};
    plan.tx = table(p, plan.kx, w_in, w_out);
    plan.ty = table(p, plan.ky, h_in, h_out);
    return plan;
}

um_tensor um_spline_record(um_tape *t, um_params *p, const struct um_spline_plan *plan, um_tensor x)
{
    if (!um_op_check(t, UM_OP_FIR, x.h == plan->h_in && x.w == plan->w_in,
                     "image is %dx%d, the tables are for %dx%d", x.w, x.h, plan->w_in, plan->h_in))
        return (um_tensor){0};
    um_tensor range = um_range(t, x);
    x = um_fir(t, x, um_tape_const(t, p, plan->tx, UM_F32, 1, plan->w_out, 2 + 2 * plan->kx),
               (um_tensor){0}, false);
    return um_fir(t, x, um_tape_const(t, p, plan->ty, UM_F32, 1, plan->h_out, 2 + 2 * plan->ky),
                  range, true);
}
