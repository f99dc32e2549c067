/* SPDX-License-Identifier: Apache-2.0 */
/* Row-wise kernels: LayerNorm and its gated form, additions, row scaling and gathering. All are
 * bound by memory. */
#include "nn/simd/math.h"
#include "nn/simd/math_test.h"
#include "nn/simd/row_norm.h"

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

UM_INLINE void act_loop(float *y, int n, enum um_act act, float limit)
{
    int i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        vf v[4];
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            v[k] = vf_load(y + i + k * VL);
        um_activate_v(act, limit, v, 4);
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            vf_store(y + i + k * VL, v[k]);
    }
    for (; i < n; i += VL) {
        int some = n - i < VL ? n - i : VL;
        vf_store_n(y + i, um_activate(act, limit, vf_load_n(y + i, some)), some);
    }
}

/* y = act(y), on a row that is still in the L1 cache. */
static void act_row(float *y, int n, enum um_act act, float limit)
{
    switch (act) {
    case UM_ACT_NONE: break;
    case UM_ACT_RELU: act_loop(y, n, UM_ACT_RELU, 0); break;
    case UM_ACT_SILU: act_loop(y, n, UM_ACT_SILU, 0); break;
    case UM_ACT_GELU: act_loop(y, n, UM_ACT_GELU, 0); break;
    case UM_ACT_SIGMOID: act_loop(y, n, UM_ACT_SIGMOID, 0); break;
    case UM_ACT_CLAMP: act_loop(y, n, UM_ACT_CLAMP, limit); break;
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
        const float *x = um_view_at(&t[1], r);
        float *y = um_view_at(&t[0], r);
        if (t[2].data) {
            const float *add = um_view_at(&t[2], r);
            int i = 0;
            for (; i + VL <= c; i += VL)
                vf_store(y + i, vf_load(x + i) + vf_load(add + i));
            for (; i < c; i++)
                y[i] = x[i] + add[i];
            x = y;
        }
        um_row_norm(y, x, gamma, beta, c, a->eps);
        act_row(y, c, a->act, 0);
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
        const float *g = um_view_at(&t[1], r), *p = um_view_at(&t[2], r), *q = um_view_at(&t[3], r);
        float *y = um_view_at(&t[0], r);
        int i = 0;
        for (; i + VL <= c; i += VL)
            vf_store(y + i,
                     vf_fma(vf_load(g + i), vf_load(p + i), vf_load(g + c + i) * vf_load(q + i)));
        for (; i < c; i++)
            y[i] = g[i] * p[i] + g[c + i] * q[i];
        um_row_norm(y, y, t[4].data, t[5].data, c, a->eps);
        act_row(y, c, a->act, 0);
    }
}

void UM_NAME(gate_norm)(const struct um_call *call)
{
    run_rows(call, gate_norm_rows);
}

/* y = x + b; `one`: b is one value. */
UM_INLINE void add_row(float *y, const float *x, const float *b, bool one, int c)
{
    int i = 0;
    for (; i + VL <= c; i += VL)
        vf_store(y + i, vf_load(x + i) + (one ? vf_set1(*b) : vf_load(b + i)));
    for (; i < c; i++)
        y[i] = x[i] + b[one ? 0 : i];
}

enum { DENSE = 2048 }; /* floats that stay in L1 from the addition to the activation */

static void add_rows(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_add_args *a = job->call->args;
    const struct um_view *t = job->call->t;
    bool one_row = t[2].h * t[2].w == 1 && t[2].c == t[0].c, one = t[2].c == 1 && t[0].c != 1;
    int end, r = first_row(job, item, &end), c = t[0].c;
    (void)worker;
    if (!one_row && !one && t[0].ld == c && t[1].ld == c && t[2].ld == c) {
        ptrdiff_t from = (ptrdiff_t)r * c,
                  to = (ptrdiff_t)end * c; /* all dense: rows do not matter */
        for (; from < to; from += DENSE) {
            int n = to - from < DENSE ? (int)(to - from) : DENSE;
            float *y = (float *)t[0].data + from;
            add_row(y, (const float *)t[1].data + from, (const float *)t[2].data + from, false, n);
            act_row(y, n, a->act, a->limit);
        }
        return;
    }
    for (; r < end; r++) {
        add_row(um_view_at(&t[0], r), um_view_at(&t[1], r), um_view_at(&t[2], one_row ? 0 : r), one,
                c);
        act_row(um_view_at(&t[0], r), c, a->act, a->limit);
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
        const float *x = um_view_at(&t[1], r);
        float *y = um_view_at(&t[0], r), m = *um_view_at(&t[2], r);
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
        memcpy(um_view_at(&t[0], r), um_view_at(&t[1], ((const int32_t *)t[2].data)[r * t[2].ld]),
               (size_t)t[0].c * sizeof(float));
}

void UM_NAME(gather)(const struct um_call *call)
{
    run_rows(call, gather_rows);
}

void UM_NAME(math)(enum um_math_function f, float *y, const float *x, int n)
{
    for (int i = 0; i < n; i += VL) {
        int some = n - i < VL ? n - i : VL;
        vf v = vf_load_n(x + i, some);
        switch (f) {
        case UM_MATH_EXP: v = um_exp(v); break;
        case UM_MATH_EXP_NEG: v = um_exp_neg(v); break;
        case UM_MATH_EXP2_NEG_BRIEF: um_exp2_neg_brief_v(&v, 1); break;
        case UM_MATH_SIGMOID: v = um_sigmoid(v); break;
        case UM_MATH_SILU: v = um_silu(v); break;
        case UM_MATH_SILU_BRIEF: um_silu_brief_v(&v, 1); break;
        case UM_MATH_GELU: v = um_gelu(v); break;
        case UM_MATH_GELU_BRIEF: um_gelu_brief_v(&v, 1); break;
        case UM_MATH_FUNCTIONS: break;
        }
        vf_store_n(y + i, v, some);
    }
}
