/* SPDX-License-Identifier: Apache-2.0 */
/* Row-wise kernels: LayerNorm and its gated form, additions, row scaling and gathering. All are
 * bound by memory. */
#include "nn/simd/math.h"
#include "nn/simd/math_test.h"

um_kernel UM_NAME(layer_norm), UM_NAME(gate_norm), UM_NAME(add), UM_NAME(scale_rows),
    UM_NAME(gather);

enum {
    ITEM_FLOATS = 8192
}; /* work of one item: enough to pay for handing it out, few enough to balance */

struct job {
    const struct um_call *call;
    int rows, rows_per_item;
};

static void run_rows(const struct um_call *call, um_pool_fn *fn)
{
    struct job job = {call, call->t[0].h * call->t[0].w, 0};
    job.rows_per_item = ITEM_FLOATS / call->t[0].c + 1;
    um_pool_run(call->pool, (job.rows + job.rows_per_item - 1) / job.rows_per_item, fn, &job);
}

/* First row of an item, and the row after its last. */
static int first_row(const struct job *job, int item, int *end)
{
    int first = item * job->rows_per_item;
    *end = first + job->rows_per_item < job->rows ? first + job->rows_per_item : job->rows;
    return first;
}

UM_INLINE float *row_at(const struct um_view *v, int row)
{
    return (float *)v->data + row * v->ld;
}

UM_INLINE vi lane_below(int n) /* -1 in the first n lanes */
{
    static const int32_t iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (vi)(vi_load(iota) < vi_set1(n));
}

/* y = act(LN(x)); y may be x. Two passes, so that a large mean does not cancel. */
UM_INLINE void norm_row(float *y, const float *x, const float *gamma, const float *beta, int c,
                        float eps, enum um_act act)
{
    vf s0 = vf_zero(), s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero();
    int i = 0, tail = c % VL;
    for (; i + 4 * VL <= c; i += 4 * VL) {
        s0 += vf_load(x + i);
        s1 += vf_load(x + i + VL);
        s2 += vf_load(x + i + 2 * VL);
        s3 += vf_load(x + i + 3 * VL);
    }
    for (; i + VL <= c; i += VL)
        s0 += vf_load(x + i);
    if (tail)
        s1 += vf_load_n(x + i, tail);
    vf mean = vf_set1(vf_sum((s0 + s1) + (s2 + s3)) / (float)c);
    s0 = s1 = s2 = s3 = vf_zero();
    for (i = 0; i + 4 * VL <= c; i += 4 * VL) {
        vf d0 = vf_load(x + i) - mean, d1 = vf_load(x + i + VL) - mean;
        vf d2 = vf_load(x + i + 2 * VL) - mean, d3 = vf_load(x + i + 3 * VL) - mean;
        s0 = vf_fma(d0, d0, s0);
        s1 = vf_fma(d1, d1, s1);
        s2 = vf_fma(d2, d2, s2);
        s3 = vf_fma(d3, d3, s3);
    }
    for (; i + VL <= c; i += VL) {
        vf d = vf_load(x + i) - mean;
        s0 = vf_fma(d, d, s0);
    }
    if (tail) {
        vf d = vf_select(lane_below(tail), vf_load_n(x + i, tail) - mean, vf_zero());
        s1 = vf_fma(d, d, s1);
    }
    vf var = vf_set1(vf_sum((s0 + s1) + (s2 + s3)) / (float)c + eps);
    vf scale = 1.0f / vf_sqrt(var);
    for (i = 0; i + 4 * VL <= c; i += 4 * VL) {
        vf v[4];
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            v[k] = vf_fma((vf_load(x + i + k * VL) - mean) * scale, vf_load(gamma + i + k * VL),
                          vf_load(beta + i + k * VL));
        um_activate_v(act, 0, v, 4);
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            vf_store(y + i + k * VL, v[k]);
    }
    for (; i + VL <= c; i += VL)
        vf_store(y + i, um_activate(act, 0,
                                    vf_fma((vf_load(x + i) - mean) * scale, vf_load(gamma + i),
                                           vf_load(beta + i))));
    if (tail) {
        vf v = (vf_load_n(x + i, tail) - mean) * scale;
        vf_store_n(
            y + i,
            um_activate(act, 0, vf_fma(v, vf_load_n(gamma + i, tail), vf_load_n(beta + i, tail))),
            tail);
    }
}

static void layer_norm_rows(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_norm_args *a = job->call->args;
    const struct um_view *t = job->call->t;
    const float *gamma = t[3].data, *beta = t[4].data;
    int end, r = first_row(job, item, &end), c = t[0].c;
    (void)worker;
    for (; r < end; r++) {
        const float *x = row_at(&t[1], r);
        float *y = row_at(&t[0], r);
        if (t[2].data) {
            const float *add = row_at(&t[2], r);
            int i = 0;
            for (; i + VL <= c; i += VL)
                vf_store(y + i, vf_load(x + i) + vf_load(add + i));
            for (; i < c; i++)
                y[i] = x[i] + add[i];
            x = y;
        }
        if (a->act == UM_ACT_NONE)
            norm_row(y, x, gamma, beta, c, a->eps, UM_ACT_NONE);
        else if (a->act == UM_ACT_GELU)
            norm_row(y, x, gamma, beta, c, a->eps, UM_ACT_GELU);
        else
            norm_row(y, x, gamma, beta, c, a->eps, a->act);
    }
}

void UM_NAME(layer_norm)(const struct um_call *call)
{
    run_rows(call, layer_norm_rows);
}

static void gate_norm_rows(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_norm_args *a = job->call->args;
    const struct um_view *t = job->call->t;
    int end, r = first_row(job, item, &end), c = t[0].c;
    (void)worker;
    for (; r < end; r++) {
        const float *g = row_at(&t[1], r), *p = row_at(&t[2], r), *q = row_at(&t[3], r);
        float *y = row_at(&t[0], r);
        int i = 0;
        for (; i + VL <= c; i += VL)
            vf_store(y + i,
                     vf_fma(vf_load(g + i), vf_load(p + i), vf_load(g + c + i) * vf_load(q + i)));
        for (; i < c; i++)
            y[i] = g[i] * p[i] + g[c + i] * q[i];
        norm_row(y, y, t[4].data, t[5].data, c, a->eps, a->act);
    }
}

void UM_NAME(gate_norm)(const struct um_call *call)
{
    run_rows(call, gate_norm_rows);
}

/* One row: y = act(x + b); `one`: b is one value. */
UM_INLINE void add_row(float *y, const float *x, const float *b, bool one, int c, enum um_act act,
                       float limit)
{
    int i = 0, tail = c % VL;
    vf all = vf_set1(b[0]);
    for (; i + 4 * VL <= c; i += 4 * VL) {
        vf v[4];
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            v[k] = vf_load(x + i + k * VL) + (one ? all : vf_load(b + i + k * VL));
        um_activate_v(act, limit, v, 4);
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            vf_store(y + i + k * VL, v[k]);
    }
    for (; i + VL <= c; i += VL)
        vf_store(y + i, um_activate(act, limit, vf_load(x + i) + (one ? all : vf_load(b + i))));
    if (tail)
        vf_store_n(
            y + i,
            um_activate(act, limit, vf_load_n(x + i, tail) + (one ? all : vf_load_n(b + i, tail))),
            tail);
}

static void add_rows(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_add_args *a = job->call->args;
    const struct um_view *t = job->call->t;
    bool one_row = t[2].h * t[2].w == 1 && t[2].c == t[0].c, one = t[2].c == 1 && t[0].c != 1;
    int end, r = first_row(job, item, &end), c = t[0].c, step = 1;
    (void)worker;
    if (!one_row && !one && t[0].ld == c && t[1].ld == c &&
        t[2].ld == c) { /* all dense: the item is one long row */
        c *= end - r;
        step = end - r;
    }
    for (; r < end; r += step) {
        const float *b = row_at(&t[2], one_row ? 0 : r);
        if (a->act == UM_ACT_NONE)
            add_row(row_at(&t[0], r), row_at(&t[1], r), b, one, c, UM_ACT_NONE, 0);
        else if (a->act == UM_ACT_GELU)
            add_row(row_at(&t[0], r), row_at(&t[1], r), b, one, c, UM_ACT_GELU, 0);
        else
            add_row(row_at(&t[0], r), row_at(&t[1], r), b, one, c, a->act, a->limit);
    }
}

void UM_NAME(add)(const struct um_call *call)
{
    run_rows(call, add_rows);
}

static void scale_rows_rows(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_view *t = job->call->t;
    int end, r = first_row(job, item, &end), c = t[0].c;
    (void)worker;
    for (; r < end; r++) {
        const float *x = row_at(&t[1], r);
        float *y = row_at(&t[0], r), m = *row_at(&t[2], r);
        int i = 0;
        for (; i + VL <= c; i += VL)
            vf_store(y + i, vf_load(x + i) * m);
        for (; i < c; i++)
            y[i] = x[i] * m;
    }
}

void UM_NAME(scale_rows)(const struct um_call *call)
{
    run_rows(call, scale_rows_rows);
}

static void gather_rows(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_view *t = job->call->t;
    int end, r = first_row(job, item, &end);
    (void)worker;
    for (; r < end; r++)
        memcpy(row_at(&t[0], r), row_at(&t[1], ((const int32_t *)t[2].data)[r * t[2].ld]),
               (size_t)t[0].c * sizeof(float));
}

void UM_NAME(gather)(const struct um_call *call)
{
    run_rows(call, gather_rows);
}

UM_INLINE void apply(enum um_math_function f, vf *x, int n)
{
    switch (f) {
    case UM_MATH_EXP:
        for (int i = 0; i < n; i++)
            x[i] = um_exp(x[i]);
        break;
    case UM_MATH_EXP_NEG: um_exp_neg_v(x, n); break;
    case UM_MATH_SIGMOID: um_sigmoid_v(x, n); break;
    case UM_MATH_SILU: um_silu_v(x, n); break;
    default: um_gelu_v(x, n); break;
    }
}

UM_INLINE void apply_all(enum um_math_function f, float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        vf v[4] = {vf_load(x + i), vf_load(x + i + VL), vf_load(x + i + 2 * VL),
                   vf_load(x + i + 3 * VL)};
        apply(f, v, 4);
        for (int k = 0; k < 4; k++)
            vf_store(y + i + k * VL, v[k]);
    }
    for (; i < n; i += VL) {
        int some = n - i < VL ? n - i : VL;
        vf v = vf_load_n(x + i, some);
        apply(f, &v, 1);
        vf_store_n(y + i, v, some);
    }
}

void UM_NAME(math)(enum um_math_function f, float *y, const float *x, int n)
{
    switch (f) {
    case UM_MATH_EXP: apply_all(UM_MATH_EXP, y, x, n); break;
    case UM_MATH_EXP_NEG: apply_all(UM_MATH_EXP_NEG, y, x, n); break;
    case UM_MATH_SIGMOID: apply_all(UM_MATH_SIGMOID, y, x, n); break;
    case UM_MATH_SILU: apply_all(UM_MATH_SILU, y, x, n); break;
    default: apply_all(UM_MATH_GELU, y, x, n); break;
    }
}
