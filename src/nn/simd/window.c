/* SPDX-License-Identifier: Apache-2.0 */
/* TinyViT window attention, alone and as the whole block with LayerNorm, qkv, projection and
 * residual, whose maps then never leave the cache. An item is some windows. The bias between a key
 * and all queries is the initial value of their scores: for keys of one column it is the same
 * numbers, begun earlier or later, so that of each head only a run for each column is laid out. */
#include "nn/block.h"
#include "nn/op_ref.h"
#include "nn/simd/attend.h"
#include "nn/simd/attend16.h"
#include "nn/simd/gemm.h"
#include "nn/simd/room.h"
#include "nn/simd/row_norm.h"

#include <stdlib.h>

um_kernel UM_NAME(window_attention), UM_NAME(window_block);

struct shape {
    int ws, n, d, heads, c, lanes; /* n = ws*ws tokens; queries fill `lanes` lanes */
    int h, w, across, windows;
    int columns[2]; /* of a window that are in the map, and of the last one across */
};

/* The biases of windows with so many columns in the map: only those ask. (In bf16 there are those
 * of whole windows, whose rows serve queries as well, because a bias depends on |dy| and |dx|.) */
struct biases {
    int columns, size;
    float *table;   /* [heads][size] */
    int32_t *row;   /* [n] where in a head's table a key's row begins */
    int32_t *token; /* [queries] which token of the window asks */
};

/* What one item works in. Offsets in floats; rows and out are pointers. */
struct room {
    float *q, *qt, *k, *v, *s, *o, *ot;
    struct biases bias[2]; /* of a window, and of the last one across */
    const float **row;     /* [n] qkv of the tokens of the window */
    float **out;           /* [n] where their results go; NULL: not in the map */
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
    int windows_per_item;
    struct gemm qkv, proj; /* the block's */
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
    s.columns[0] = window;
    s.columns[1] = s.w - (s.across - 1) * window;
    return s;
}

/* Divides the memory at base; returns the floats used. NULL: only these are asked. */
static size_t room_of(struct room *r, const struct shape *s, float *base)
{
    size_t n = (size_t)s->n, d = (size_t)s->d, lanes = (size_t)s->lanes, at = 0;
    r->q = room_take(base, &at, lanes * d);
    r->qt = room_take(base, &at, lanes * d);
    r->k = room_take(base, &at, n * d);
    r->v = room_take(base, &at, n * d);
    r->s = room_take(base, &at, n * ATTEND_VECTORS * VL);
    r->o = room_take(base, &at, d * ATTEND_VECTORS * VL);
    r->ot = room_take(base, &at, d * ATTEND_VECTORS * VL);
    for (int i = 0; i < 2; i++) {
        struct biases *b = &r->bias[i];
        b->columns = s->columns[i];
        b->size = s->ws * (2 * s->ws - 1) * b->columns + VL; /* rows are read to their last lane */
        b->table = room_take(base, &at, (size_t)s->heads * (size_t)b->size);
        b->row = (int32_t *)(void *)room_take(base, &at, n);
        b->token = (int32_t *)(void *)room_take(base, &at, n);
    }
    r->row = (const float **)(void *)room_take(base, &at, n * POINTER);
    r->out = (float **)(void *)room_take(base, &at, n * POINTER);
    return at;
}

/* to [ws][2ws-1]: rows of table [ws][ws], each behind its mirror image; a vector of zeros. */
static void unfold(float *to, const float *table, int ws)
{
    for (int dy = 0; dy < ws; dy++)
        for (int dx = 1 - ws; dx < ws; dx++)
            *to++ = table[dy * ws + abs(dx)];
    vf_store(to, vf_zero());
}

/* Of each column kx the run [dy from 1-ws to ws-1][qx] of table[|dy|*ws + |kx-qx|]. Whole vectors
 * are stored, which the next ones overwrite. */
static void lay_out(float *to, const float *unfolded, int ws, int columns)
{
    for (int kx = 0; kx < ws; kx++)
        for (int dy = 1 - ws; dy < ws; dy++, to += columns) {
            const float *from = unfolded + abs(dy) * (2 * ws - 1) + ws - 1 - kx;
            for (int qx = 0; qx < columns; qx += VL)
                vf_store(to + qx, vf_load(from + qx));
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

/* One head of one window: r->row to r->out. All tokens are keys, those in the map ask. */
static void attend_window(const struct shape *s, const struct room *r, const struct biases *bias,
                          int head, int queries)
{
    int d = s->d;
    for (int i = 0; i < s->n; i++) {
        const float *src = r->row[i] + 3 * d * head;
        copy_row(r->k + (ptrdiff_t)i * d, src + d, d);
        copy_row(r->v + (ptrdiff_t)i * d, src + 2 * d, d);
    }
    for (int i = 0; i < queries; i++)
        copy_row(r->q + (ptrdiff_t)i * d, r->row[bias->token[i]] + 3 * d * head, d);
    transpose(r->qt, s->lanes, r->q, d, (queries + VL - 1) / VL * VL, d,
              1 / (float)__builtin_sqrt((double)d));
    for (int b = 0, blocks = attend_blocks(queries); b < blocks; b++) {
        int v0 = attend_first(queries, b), vectors = attend_first(queries, b + 1) - v0,
            first = v0 * VL, lanes = vectors * VL;
        struct attend a = {.d = d,
                           .keys = s->n,
                           .k = r->k,
                           .v = r->v,
                           .ld_k = d,
                           .ld_v = d,
                           .bias = bias->table + (ptrdiff_t)head * bias->size + first,
                           .bias_row = bias->row,
                           .q = r->qt + first,
                           .ld_q = s->lanes,
                           .s = r->s,
                           .o = r->o};
        attend(&a, vectors);
        transpose(r->ot, d, r->o, lanes, d, lanes, 1);
        for (int i = first; i < first + lanes && i < queries; i++)
            copy_row(r->out[bias->token[i]] + head * d, r->ot + (ptrdiff_t)(i - first) * d, d);
    }
}

/* Windows of an item. */
static void span_of(const struct job *job, int item, int *w0, int *w1)
{
    const struct shape *s = &job->s;
    *w0 = item * job->windows_per_item;
    *w1 = *w0 + job->windows_per_item < s->windows ? *w0 + job->windows_per_item : s->windows;
}

static void begin(const struct shape *s, struct room *r, const struct um_view *table, int sets)
{
    int ws = s->ws;
    for (int h = 0; h < s->heads; h++) {
        unfold(r->s, um_view_at(table, h), ws);
        for (int k = 0; k < sets; k++)
            lay_out(r->bias[k].table + (ptrdiff_t)h * r->bias[k].size, r->s, ws,
                    r->bias[k].columns);
    }
    for (int k = 0; k < sets; k++) {
        struct biases *b = &r->bias[k];
        for (int i = 0; i < s->n; i++)
            b->row[i] = (i % ws * (2 * ws - 1) + ws - 1 - i / ws) * b->columns;
        for (int i = 0; i < ws * b->columns; i++)
            b->token[i] = i / b->columns * ws + i % b->columns;
    }
    memset(r->q, 0, (size_t)s->lanes * (size_t)s->d * sizeof *r->q); /* lanes that do not ask */
}

/* Which of r->bias is for window `win`; how many of its tokens ask. */
static const struct biases *biases_of(const struct shape *s, const struct room *r, int win,
                                      int *queries)
{
    const struct biases *b = &r->bias[win % s->across == s->across - 1];
    int left = s->h - win / s->across * s->ws;
    *queries = (left < s->ws ? left : s->ws) * b->columns;
    return b;
}

static void attention_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct shape *s = &job->s;
    const struct um_view *out = &job->call->t[0], *qkv = &job->call->t[1];
    int w0, w1;
    span_of(job, item, &w0, &w1);
    struct room r;
    room_of(&r, s, um_pool_scratch(job->call->pool, worker));
    begin(s, &r, &job->call->t[3], 2);
    for (int win = w0; win < w1; win++) {
        int y0 = win / s->across * s->ws, x0 = win % s->across * s->ws;
        for (int i = 0; i < s->n; i++) {
            int y = y0 + i / s->ws, x = x0 + i % s->ws;
            bool inside = y < s->h && x < s->w;
            ptrdiff_t at = (ptrdiff_t)y * s->w + x;
            r.row[i] = inside ? um_view_at(qkv, at) : job->call->t[2].data;
            r.out[i] = inside ? um_view_at(out, at) : NULL;
        }
        int queries;
        const struct biases *bias = biases_of(s, &r, win, &queries);
        for (int h = 0; h < s->heads; h++)
            attend_window(s, &r, bias, h, queries);
    }
}

/* How many windows an item takes: enough to pay for laying out the tables, few enough for every
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
    job.windows_per_item = windows_per_item(&job);
    if (room_of(&r, s, NULL) * sizeof(float) > UM_POOL_SCRATCH) {
        um_ref_window_attention(call); /* windows larger than any model's here */
        return;
    }
    um_pool_run(call->pool, (s->windows + job.windows_per_item - 1) / job.windows_per_item,
                attention_item, &job);
}

/* ---- the block: x + proj(attention(qkv(LN x))) ---- */

/* As room_of, for both. */
static size_t block_room_of(struct block_room *b, struct room *r, const struct job *job,
                            float *base)
{
    const struct shape *s = &job->s;
    size_t n = (size_t)s->n, c = (size_t)s->c, at = room_of(r, s, base);
    b->tokens = room_take(base, &at, n * c);
    b->qkv = room_take(base, &at, n * 3 * c);
    b->in = (const void **)(void *)room_take(base, &at, n * POINTER);
    b->add = (const float **)(void *)room_take(base, &at, n * POINTER);
    b->dst = (float **)(void *)room_take(base, &at, n * POINTER);
    b->query = (const float **)(void *)room_take(base, &at, n * POINTER);
    b->start = (const float **)(void *)room_take(base, &at, n * POINTER);
    b->result = (float **)(void *)room_take(base, &at, n * POINTER);
    const struct um_window_block_args *args = job->call->args;
    b->head = (struct attend16){.d = s->d,
                                .keys = s->n,
                                .how = args->how,
                                .scale = 1 / (float)__builtin_sqrt((double)s->d)};
    if (args->bf16)
        attend16_room(&b->head, base, &at);
    return at;
}

/* One head of one window in bf16, whose m queries are b's. */
static void attend_narrow(const struct job *job, const struct room *r, const struct block_room *b,
                          int head, int m)
{
    const struct shape *s = &job->s;
    const struct biases *bias = &r->bias[0];
    const float *table = bias->table + (ptrdiff_t)head * bias->size;
    int at = 3 * s->d * head;
    for (int i = 0, q = 0; i < s->n; i++) {
        if (!r->out[i])
            continue;
        b->start[q] = table + bias->row[i];
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
    int w0, w1, c = s->c;
    struct room r;
    struct block_room b;
    span_of(job, item, &w0, &w1);
    block_room_of(&b, &r, job, um_pool_scratch(job->call->pool, worker));
    begin(s, &r, &t[7], args->bf16 ? 1 : 2);
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
            b.add[m] = um_view_at(&t[1], row);
            b.dst[m] = um_view_at(&t[0], row);
            r.row[i] = b.query[m] = b.qkv + (ptrdiff_t)m * 3 * c;
            um_row_norm(r.out[i], b.add[m], t[2].data, t[3].data, c, args->eps);
            m++;
        }
        um_gemm_block(&job->qkv, b.tokens, c, m, b.qkv, 3 * c, NULL, 0, 0, um_gemm_panels(3 * c));
        int queries;
        const struct biases *bias = biases_of(s, &r, win, &queries);
        for (int h = 0; h < s->heads; h++)
            if (args->bf16)
                attend_narrow(job, &r, &b, h, m);
            else
                attend_window(s, &r, bias, h, queries);
        struct gemm_rows rows = {.a = b.in, .c = b.dst, .add = b.add, .taps = 1};
        um_gemm_rows(&job->proj, &rows, m, 0, um_gemm_panels(c));
    }
}

void UM_NAME(window_block)(const struct um_call *call)
{
    const struct um_window_block_args *args = call->args;
    const struct um_view *t = call->t;
    struct job job = {.call = call, .s = shape_of(&t[0], args->window, args->heads)};
    int c = job.s.c;
    job.qkv = gemm_of(&t[4], &t[5], c, 3 * c);
    job.proj = gemm_of(&t[8], &t[9], c, c);
    job.windows_per_item = windows_per_item(&job);
    um_pool_run(call->pool, (job.s.windows + job.windows_per_item - 1) / job.windows_per_item,
                block_item, &job);
}
