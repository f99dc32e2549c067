/* SPDX-License-Identifier: Apache-2.0 */
/* TinyViT window attention, alone and as the whole block with LayerNorm, qkv, projection and
 * residual, whose maps then never leave the cache. An item is some windows and some heads; the bias
 * tables of its heads are expanded once to [key][query], so that they are simply the initial values
 * of the scores. */
#include "nn/block.h"
#include "nn/op_ref.h"
#include "nn/simd/attend.h"
#include "nn/simd/attend16.h"
#include "nn/simd/gemm.h"
#include "nn/simd/row_norm.h"

um_kernel UM_NAME(window_attention), UM_NAME(window_block);

/* BIAS_BYTES: expanded tables an item keeps of all heads, if they leave room for the window in the
 * L2 cache. */
enum { BIAS_BYTES = 160 << 10, POINTER = 2 /* floats that a pointer takes */ };

struct shape {
    int ws, n, d, heads, c, lanes; /* n = ws*ws tokens; queries fill `lanes` lanes */
    int h, w, across, windows;
};

/* What one item works in. Offsets in floats; rows and out are pointers. */
struct room {
    float *bias, *q, *qt, *k, *v, *s, *o, *ot;
    const float **row; /* [n] qkv of the tokens of the window */
    float **out;       /* [n] where their results go; NULL: not in the map */
};

/* What the block needs beside it. */
struct block_room {
    float *tokens, *qkv; /* LN x, then the heads' results; [n][3c] */
    const void **in;
    const float **add;
    float **dst;
    const float **query, **start; /* in bf16: qkv of the queries, and their rows of the table */
    float **result;
    struct attend16 head;
};

struct job {
    const struct um_call *call;
    struct shape s;
    int heads_per_item, windows_per_item, head_groups;
    int tables; /* heads whose expanded table has room; if not all, each is expanded when its turn
                   comes */
    struct gemm qkv, proj; /* the block's */
    bool narrow;           /* attention in bf16 */
};

static struct shape shape_of(const struct um_view *out, int window, int heads)
{
    struct shape s = {.ws = window,
                      .n = window * window,
                      .heads = heads,
                      .c = out->c,
                      .d = out->c / heads,
                      .h = out->h,
                      .w = out->w};
    s.lanes = (s.n + VL - 1) / VL * VL;
    s.across = (s.w + window - 1) / window;
    s.windows = s.across * ((s.h + window - 1) / window);
    return s;
}

static float *take(float *base, size_t *at, size_t floats)
{
    size_t offset = *at;
    *at += (floats + 31) / 32 * 32;
    return base ? base + offset : NULL;
}

/* Divides the memory at base, for the tables of some heads; returns the floats used. NULL: only
 * these are asked. */
static size_t room_of(struct room *r, const struct shape *s, int heads, float *base)
{
    size_t n = (size_t)s->n, d = (size_t)s->d, lanes = (size_t)s->lanes, at = 0;
    r->bias = take(base, &at, (size_t)heads * n * lanes);
    r->q = take(base, &at, lanes * d);
    r->qt = take(base, &at, lanes * d);
    r->k = take(base, &at, n * d);
    r->v = take(base, &at, n * d);
    r->s = take(base, &at, n * ATTEND_VECTORS * VL);
    r->o = take(base, &at, d * ATTEND_VECTORS * VL);
    r->ot = take(base, &at, d * ATTEND_VECTORS * VL);
    r->row = (const float **)(void *)take(base, &at, n * POINTER);
    r->out = (float **)(void *)take(base, &at, n * POINTER);
    return at;
}

/* bias[block][key][query of the block] = table[|dy|*ws + |dx|]; in bf16 there is one block. */
static void expand_bias(const struct job *job, float *bias, float *line, const float *table)
{
    const struct shape *s = &job->s;
    int blocks = attend_blocks(s->n), ws = s->ws;
    for (int i = s->n; i < s->lanes; i++)
        line[i] = 0;
    for (int key = 0; key < s->n; key++) {
        int ky = key / ws, kx = key % ws;
        for (int qy = 0; qy < ws; qy++) {
            const float *t = table + (ky > qy ? ky - qy : qy - ky) * ws;
            float *to = line + qy * ws;
            for (int qx = 0; qx <= kx; qx++)
                to[qx] = t[kx - qx];
            for (int qx = kx + 1; qx < ws; qx++)
                to[qx] = t[qx - kx];
        }
        if (job->narrow)
            memcpy(bias + (ptrdiff_t)key * s->lanes, line, (size_t)s->lanes * sizeof *bias);
        for (int b = 0; b < blocks && !job->narrow; b++) {
            int first = attend_first(s->n, b) * VL, n = attend_first(s->n, b + 1) * VL - first;
            memcpy(bias + (ptrdiff_t)first * s->n + (ptrdiff_t)key * n, line + first,
                   (size_t)n * sizeof *bias);
        }
    }
}

UM_INLINE void copy_row(float *dst, const float *src, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(dst + i, vf_load(src + i));
    for (; i < n; i++)
        dst[i] = src[i];
}

/* One head of one window: r->row to r->out. Only the first `queries` tokens ask; the others are
 * outside the map. */
static void attend_window(const struct shape *s, const struct room *r, const float *bias, int head,
                          int queries)
{
    int d = s->d;
    for (int i = 0; i < s->n; i++) {
        const float *src = r->row[i] + 3 * d * head;
        copy_row(r->q + (ptrdiff_t)i * d, src, d);
        copy_row(r->k + (ptrdiff_t)i * d, src + d, d);
        copy_row(r->v + (ptrdiff_t)i * d, src + 2 * d, d);
    }
    transpose(r->qt, s->lanes, r->q, d, s->lanes, d, 1 / (float)__builtin_sqrt((double)d));
    for (int b = 0, blocks = attend_blocks(s->n); b < blocks; b++) {
        int v0 = attend_first(s->n, b), vectors = attend_first(s->n, b + 1) - v0, first = v0 * VL,
            lanes = vectors * VL;
        if (first >= queries)
            break;
        struct attend a = {.d = d,
                           .keys = s->n,
                           .k = r->k,
                           .v = r->v,
                           .ld_k = d,
                           .ld_v = d,
                           .bias = bias + (ptrdiff_t)first * s->n,
                           .ld_bias = lanes,
                           .q = r->qt + first,
                           .ld_q = s->lanes,
                           .s = r->s,
                           .o = r->o};
        attend(&a, vectors);
        transpose(r->ot, d, r->o, lanes, d, lanes, 1);
        for (int i = first; i < first + lanes && i < queries; i++)
            if (r->out[i])
                copy_row(r->out[i] + head * d, r->ot + (ptrdiff_t)(i - first) * d, d);
    }
}

/* Windows and heads of an item. */
static void span_of(const struct job *job, int item, int *w0, int *w1, int *h0, int *h1)
{
    const struct shape *s = &job->s;
    *w0 = item / job->head_groups * job->windows_per_item;
    *w1 = *w0 + job->windows_per_item < s->windows ? *w0 + job->windows_per_item : s->windows;
    *h0 = item % job->head_groups * job->heads_per_item;
    *h1 = *h0 + job->heads_per_item < s->heads ? *h0 + job->heads_per_item : s->heads;
}

static const float *table_of(const struct job *job, const struct room *r,
                             const struct um_view *table, int head, int h0)
{
    float *bias = r->bias + (ptrdiff_t)(job->tables > 1 ? head - h0 : 0) * job->s.n * job->s.lanes;
    if (job->tables == 1 && job->heads_per_item > 1)
        expand_bias(job, bias, r->s, (const float *)table->data + head * table->ld);
    return bias;
}

static void begin(const struct job *job, struct room *r, const struct um_view *table, int h0,
                  int h1)
{
    const struct shape *s = &job->s;
    for (int h = h0; h < h1 && job->tables == job->heads_per_item; h++)
        expand_bias(job, r->bias + (ptrdiff_t)(h - h0) * s->n * s->lanes, r->s,
                    (const float *)table->data + h * table->ld);
    memset(r->q, 0,
           (size_t)s->lanes * (size_t)s->d *
               sizeof *r->q); /* lanes beyond the last token stay zero */
}

static void attention_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct shape *s = &job->s;
    const struct um_view *out = &job->call->t[0], *qkv = &job->call->t[1];
    int w0, w1, h0, h1;
    span_of(job, item, &w0, &w1, &h0, &h1);
    struct room r;
    room_of(&r, s, job->tables, um_pool_scratch(job->call->pool, worker));
    begin(job, &r, &job->call->t[3], h0, h1);
    for (int win = w0; win < w1; win++) {
        int y0 = win / s->across * s->ws, x0 = win % s->across * s->ws;
        for (int i = 0; i < s->n; i++) {
            int y = y0 + i / s->ws, x = x0 + i % s->ws;
            bool inside = y < s->h && x < s->w;
            ptrdiff_t at = (ptrdiff_t)y * s->w + x;
            r.row[i] = inside ? (const float *)qkv->data + at * qkv->ld : job->call->t[2].data;
            r.out[i] = inside ? (float *)out->data + at * out->ld : NULL;
        }
        int queries = (s->h - y0 < s->ws ? s->h - y0 : s->ws) * s->ws;
        for (int h = h0; h < h1; h++)
            attend_window(s, &r, table_of(job, &r, &job->call->t[3], h, h0), h, queries);
    }
}

/* How many windows an item takes: enough to pay for expanding the tables, few enough for every
 * thread to have some. */
static int windows_per_item(const struct job *job)
{
    int n = job->s.windows / (4 * um_pool_threads(job->call->pool));
    return n < 1 ? 1 : n > 16 ? 16 : n;
}

void UM_NAME(window_attention)(const struct um_call *call)
{
    const struct um_window_args *args = call->args;
    struct job job = {.call = call, .s = shape_of(&call->t[0], args->window, args->heads)};
    const struct shape *s = &job.s;
    struct room r;
    bool all = (size_t)s->heads * (size_t)s->n * (size_t)s->lanes * sizeof(float) <= BIAS_BYTES;
    job.heads_per_item = job.tables = all ? s->heads : 1;
    job.head_groups = all ? 1 : s->heads;
    job.windows_per_item = all ? windows_per_item(&job) : s->across;
    if (room_of(&r, s, job.tables, NULL) * sizeof(float) > UM_POOL_SCRATCH) {
        um_ref_window_attention(call); /* windows of 25 and more: no model here */
        return;
    }
    int groups = (s->windows + job.windows_per_item - 1) / job.windows_per_item;
    um_pool_run(call->pool, groups * job.head_groups, attention_item, &job);
}

/* ---- the block: x + proj(attention(qkv(LN x))) ---- */

/* As room_of, for both. */
static size_t block_room_of(struct block_room *b, struct room *r, const struct job *job, int heads,
                            float *base)
{
    const struct shape *s = &job->s;
    size_t n = (size_t)s->n, c = (size_t)s->c, at = room_of(r, s, heads, base);
    b->tokens = take(base, &at, n * c);
    b->qkv = take(base, &at, n * 3 * c);
    b->in = (const void **)(void *)take(base, &at, n * POINTER);
    b->add = (const float **)(void *)take(base, &at, n * POINTER);
    b->dst = (float **)(void *)take(base, &at, n * POINTER);
    b->query = (const float **)(void *)take(base, &at, n * POINTER);
    b->start = (const float **)(void *)take(base, &at, n * POINTER);
    b->result = (float **)(void *)take(base, &at, n * POINTER);
    struct attend16 *a = &b->head;
    *a = (struct attend16){
        .d = s->d, .keys = s->n, .scale = 1 / (float)__builtin_sqrt((double)s->d)};
    if (job->narrow) {
        a->how = um_narrow_how(job->qkv.narrow);
        a->keys_packed = take(base, &at, attend16_keys_room(a));
        a->values_packed = take(base, &at, attend16_values_room(a));
        a->rounded = take(base, &at, attend16_rounded_room(a));
        a->scores = take(base, &at, attend16_scores_room(a));
    }
    return at;
}

/* One head of one window in bf16, whose m queries are b's. */
static void attend_narrow(const struct job *job, const struct room *r, const struct block_room *b,
                          const float *bias, int head, int m)
{
    const struct shape *s = &job->s;
    int at = 3 * s->d * head;
    for (int i = 0, q = 0; i < s->n; i++) {
        if (!r->out[i])
            continue;
        b->start[q] = bias + (ptrdiff_t)i * s->lanes;
        b->result[q++] = r->out[i] + head * s->d;
    }
    attend16_pack(&b->head, r->row, at + s->d, r->row, at + 2 * s->d);
    attend16_run(&b->head, b->query, at, b->start, b->result, m, NULL);
}

static void block_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_window_block_args *args = job->call->args;
    const struct shape *s = &job->s;
    const struct um_view *t = job->call->t;
    int w0, w1, h0, h1, c = s->c;
    struct room r;
    struct block_room b;
    span_of(job, item, &w0, &w1, &h0, &h1);
    block_room_of(&b, &r, job, job->tables, um_pool_scratch(job->call->pool, worker));
    begin(job, &r, &t[7], h0, h1);
    for (int win = w0; win < w1; win++) {
        int y0 = win / s->across * s->ws, x0 = win % s->across * s->ws, m = 0;
        for (int i = 0; i < s->n; i++) {
            int y = y0 + i / s->ws, x = x0 + i % s->ws;
            ptrdiff_t row = um_view_row(&t[0], y, x);
            if (y >= s->h || x >= s->w) {
                r.row[i] = t[6].data;
                r.out[i] = NULL;
                continue;
            }
            b.in[m] = r.out[i] = b.tokens + (ptrdiff_t)m * c;
            b.add[m] = (const float *)t[1].data + row * t[1].ld;
            b.dst[m] = (float *)t[0].data + row * t[0].ld;
            r.row[i] = b.query[m] = b.qkv + (ptrdiff_t)m * 3 * c;
            um_row_norm(r.out[i], b.add[m], t[2].data, t[3].data, c, args->eps);
            m++;
        }
        UM_NAME(gemm_block)
        (&job->qkv, b.tokens, c, m, b.qkv, 3 * c, NULL, 0, 0, UM_NAME(gemm_panels)(3 * c));
        int queries = (s->h - y0 < s->ws ? s->h - y0 : s->ws) * s->ws;
        for (int h = h0; h < h1; h++) {
            const float *bias = table_of(job, &r, &t[7], h, h0);
            if (job->narrow)
                attend_narrow(job, &r, &b, bias, h, m);
            else
                attend_window(s, &r, bias, h, queries);
        }
        struct gemm_rows rows = {.a = b.in, .c = b.dst, .add = b.add, .taps = 1};
        UM_NAME(gemm_rows)(&job->proj, &rows, m, 0, UM_NAME(gemm_panels)(c));
    }
}

void UM_NAME(window_block)(const struct um_call *call)
{
    const struct um_window_block_args *args = call->args;
    const struct um_view *t = call->t;
    struct job job = {
        .call = call, .s = shape_of(&t[0], args->window, args->heads), .head_groups = 1};
    struct block_room b;
    struct room r;
    int c = job.s.c;
    job.qkv = gemm_of(&t[4], &t[5], c, 3 * c);
    job.narrow = args->bf16;
    job.heads_per_item = job.tables = job.s.heads;
    if (block_room_of(&b, &r, &job, job.tables, NULL) * sizeof(float) > UM_POOL_SCRATCH)
        job.tables = 1;
    job.windows_per_item = windows_per_item(&job);
    job.proj = gemm_of(&t[8], &t[9], c, c);
    um_pool_run(call->pool, (job.s.windows + job.windows_per_item - 1) / job.windows_per_item,
                block_item, &job);
}
