/* SPDX-License-Identifier: Apache-2.0 */
/* SAM's attention with decomposed relative positions, in windows or over the whole map. An item is
 * a window, a head and some blocks of queries, which meet the keys some lines at a time. Queries
 * lie in the lanes (attend.h); what a position adds to a score is q.rows + q.columns, so for a
 * block both tables are multiplied by its queries once, every lane picks the entries of its own
 * place, and their sums are where the scores start. In bf16 (attend16.h) an item is a window, a
 * head and a part of the queries. */
#define ATTEND_IN_PARTS 1
#include "nn/op_ref.h"
#include "nn/simd/attend.h"
#include "nn/simd/attend16.h"
#include "nn/simd/room.h"

um_kernel UM_NAME(relative_attention);

/* The most keys that queries meet at a time, and blocks of queries of an item. */
enum { LANES = ATTEND_VECTORS * VL, KEYS = 256, BLOCKS = 256 / LANES };

struct job {
    const struct um_call *call;
    int ws, n, d, c; /* n = ws*ws tokens of a window */
    int lines;       /* of keys that queries meet at a time */
    int across, heads, blocks, items_per_head;
    float scale; /* of queries */
};

/* A block of queries. */
struct block {
    float *q, *o, *norm, *down, *columns; /* see struct attend and pick() */
};

/* What an item works in. */
struct room {
    struct block block[BLOCKS];
    float *k, *v, *s, *sums;
};

static size_t room_of(struct room *r, const struct job *j, float *base)
{
    size_t d = (size_t)j->d, ws = (size_t)j->ws, keys = (size_t)j->lines * ws, at = 0;
    r->k = room_take(base, &at, keys * d);
    r->v = room_take(base, &at, keys * d);
    r->s = room_take(base, &at, keys * LANES);
    r->sums = room_take(base, &at, (2 * ws - 1) * LANES);
    for (int i = 0; i < BLOCKS; i++) {
        struct block *b = &r->block[i];
        b->q = room_take(base, &at, d * LANES);
        b->o = room_take(base, &at, d * LANES);
        b->norm = room_take(base, &at, (size_t)2 * LANES);
        b->down = room_take(base, &at, ws * LANES);
        b->columns = room_take(base, &at, ws * LANES);
    }
    return at;
}

/* sums[entry][lane] = table[entry] . q[lane] */
static void multiply(float *sums, const struct um_view *table, const float *q, int d, int lanes)
{
    for (int e = 0; e < table->h * table->w; e++, sums += lanes) {
        const float *row = um_view_at(table, e);
        vf acc[ATTEND_VECTORS];
        for (int v = 0; v < ATTEND_VECTORS; v++)
            acc[v] = vf_zero();
        for (int i = 0; i < d; i++)
            for (int v = 0; v * VL < lanes; v++)
                acc[v] = vf_fma(vf_load(q + i * lanes + v * VL), vf_set1(row[i]), acc[v]);
        for (int v = 0; v * VL < lanes; v++)
            vf_store(sums + v * VL, acc[v]);
    }
}

/* What a key in line `key` of the window adds, for the lane whose query is in line `at`. */
static void pick(float *to, const float *sums, int ws, const int *at, int lanes)
{
    for (int key = 0; key < ws; key++, to += lanes)
        for (int l = 0; l < lanes; l++)
            to[l] = sums[(at[l] - key + ws - 1) * lanes + l];
}

/* Row of token i of the window at (y0, x0); NULL: it is beyond the map. */
static const float *token(const struct job *job, int y0, int x0, int i)
{
    const struct um_view *qkv = &job->call->t[1];
    int y = y0 + i / job->ws, x = x0 + i % job->ws;
    return y < qkv->h && x < qkv->w ? um_view_at(qkv, (ptrdiff_t)y * qkv->w + x) : NULL;
}

/* A block whose first query is `first`: its queries, and what positions add to their scores. */
static void begin_block(const struct job *job, const struct room *r, const struct block *b, int y0,
                        int x0, int col, int first, int lanes)
{
    int y[LANES], x[LANES], ws = job->ws, d = job->d;
    for (int l = 0; l < lanes; l++) { /* lanes beyond the window repeat its last token */
        int i = first + l < job->n ? first + l : job->n - 1;
        const float *row = first + l < job->n ? token(job, y0, x0, i) : NULL;
        y[l] = i / ws;
        x[l] = i % ws;
        for (int e = 0; e < d; e++)
            b->q[e * lanes + l] = row ? row[col + e] : 0;
    }
    multiply(r->sums, &job->call->t[3], b->q, d, lanes);
    pick(b->down, r->sums, ws, y, lanes);
    multiply(r->sums, &job->call->t[4], b->q, d, lanes);
    pick(b->columns, r->sums, ws, x, lanes);
    for (int i = 0; i < d * lanes; i += VL)
        vf_store(b->q + i, vf_load(b->q + i) * vf_set1(job->scale));
}

/* What positions add to the scores of the keys of some lines, [key][lane]. */
static void start_scores(float *s, const struct block *b, int ws, int line, int lines, int lanes)
{
    for (int ky = line; ky < line + lines; ky++)
        for (int kx = 0; kx < ws; kx++, s += lanes)
            for (int v = 0; v < lanes; v += VL)
                vf_store(s + v,
                         vf_load(b->down + ky * lanes + v) + vf_load(b->columns + kx * lanes + v));
}

static void attention_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_view *out = &job->call->t[0];
    int part = item % job->items_per_head, head = item / job->items_per_head % job->heads,
        window = item / job->items_per_head / job->heads, d = job->d, ws = job->ws, col = head * d,
        y0 = window / job->across * ws, x0 = window % job->across * ws,
        from = split_at(job->blocks, job->items_per_head, part),
        blocks = split_at(job->blocks, job->items_per_head, part + 1) - from;
    struct room r;
    room_of(&r, job, um_pool_scratch(job->call->pool, worker));
    struct attend a = {.d = d, .k = r.k, .v = r.v, .ld_k = d, .ld_v = d, .s = r.s, .bias = r.s};
    for (int line = 0, lines; line < ws; line += lines) {
        lines = ws - line < job->lines ? ws - line : job->lines;
        a.keys = lines * ws;
        a.begun = line > 0;
        a.unfinished = line + lines < ws;
        for (int i = 0; i < a.keys; i++) {
            const float *row = token(job, y0, x0, line * ws + i);
            row = row ? row : job->call->t[2].data;
            memcpy(r.k + i * d, row + job->c + col, (size_t)d * sizeof *row);
            memcpy(r.v + i * d, row + 2 * job->c + col, (size_t)d * sizeof *row);
        }
        for (int i = 0; i < blocks; i++) {
            const struct block *b = &r.block[i];
            int v0 = attend_first(job->n, from + i),
                vectors = attend_first(job->n, from + i + 1) - v0;
            if (!line)
                begin_block(job, &r, b, y0, x0, col, v0 * VL, vectors * VL);
            start_scores(r.s, b, ws, line, lines, vectors * VL);
            a.q = b->q;
            a.ld_q = vectors * VL;
            a.o = b->o;
            a.norm = b->norm;
            attend(&a, vectors);
        }
    }
    for (int i = 0; i < blocks; i++) {
        int first = attend_first(job->n, from + i) * VL,
            lanes = attend_first(job->n, from + i + 1) * VL - first;
        for (int l = 0; l < lanes && first + l < job->n; l++) {
            int y = y0 + (first + l) / ws, x = x0 + (first + l) % ws;
            if (y >= out->h || x >= out->w)
                continue;
            float *to = um_view_at(out, (ptrdiff_t)y * out->w + x) + col;
            for (int e = 0; e < d; e++)
                to[e] = r.block[i].o[e * lanes + l];
        }
    }
}

/* ---- in bf16 ---- */

enum { KEYS16 = 512, QUERIES16 = 1024 }; /* the most of both that meet, and of an item */

/* What an item works in. Sums are [query][2][pitch]: with every entry of the tables of rows and, in
 * reverse, of columns. */
struct room16 {
    struct attend16 head; /* for so many keys */
    int lines, pitch;
    uint8_t *entries;
    float *table[2], *sums, *mean;
    struct attend16_norm *norm;
    const float **key, **query;
    float **out;
    int32_t *place; /* the queries' tokens */
};

static size_t room16_of(struct room16 *r, const struct job *job, float *base)
{
    const struct um_relative_args *args = job->call->args;
    size_t at = 0, queries = QUERIES16, d = (size_t)job->d, entries = 2 * (size_t)job->ws - 1;
    struct attend16 *a = &r->head;
    r->lines = KEYS16 / job->ws < job->ws ? KEYS16 / job->ws : job->ws;
    *a = (struct attend16){
        .d = job->d, .keys = r->lines * job->ws, .how = args->how, .scale = job->scale};
    attend16_room(a, base, &at);
    r->pitch = gemm_whole((int)entries, VL);
    r->entries =
        (uint8_t *)room_take(base, &at, entries * (size_t)attend16_row(a, job->d) / sizeof(float));
    for (int i = 0; i < 2; i++)
        r->table[i] =
            room_take(base, &at, attend16_packed(a, job->d, (int)entries) / sizeof(float));
    r->sums = room_take(base, &at, queries * 2 * (size_t)r->pitch);
    r->mean = room_take(base, &at, ATTEND16_ROWS * d);
    r->norm = (struct attend16_norm *)(void *)room_take(base, &at, queries * 2);
    r->key = (const float **)(void *)room_take(base, &at, KEYS16 * POINTER);
    r->query = (const float **)(void *)room_take(base, &at, queries * POINTER);
    r->out = (float **)(void *)room_take(base, &at, queries * POINTER);
    r->place = (int32_t *)(void *)room_take(base, &at, queries);
    return at;
}

static void sum_positions(const struct job *job, const struct room16 *r, int queries)
{
    const struct attend16 *a = &r->head;
    int row = attend16_row(a, a->d), n = 2 * job->ws - 1;
    const void *in[ATTEND16_ROWS];
    float *to[ATTEND16_ROWS];
    for (int i = 0; i < ATTEND16_ROWS; i++)
        in[i] = (uint8_t *)a->rounded + i * row;
    for (int t = 0; t < 2; t++) {
        struct gemm g = {.narrow = r->table[t], .type = UM_BF16, .ready = true, .k = a->d, .n = n};
        for (int e = 0; e < n; e++)
            attend16_round(r->entries + e * row, row,
                           um_view_at(&job->call->t[3 + t], t ? n - 1 - e : e), a->d, 1);
        attend16_columns(r->table[t], a->how, r->entries, row, n, a->d);
        for (int q = 0, m; q < queries; q += m) {
            m = queries - q < ATTEND16_ROWS ? queries - q : ATTEND16_ROWS;
            for (int i = 0; i < m; i++) {
                attend16_round((uint8_t *)a->rounded + i * row, row, r->query[q + i], a->d,
                               a->scale);
                to[i] = r->sums + (ptrdiff_t)(2 * (q + i) + t) * r->pitch;
            }
            um_gemm_rows(&g, &(struct gemm_rows){in, to, NULL, 1}, m, 0, um_gemm_panels(n));
        }
    }
    for (ptrdiff_t i = 0; i < (ptrdiff_t)queries * 2 * r->pitch; i += VL)
        vf_store(r->sums + i, vf_load(r->sums + i) * vf_set1(1 / a->scale));
}

/* What positions add to the scores of query q with the keys of some lines. */
static void start_scores16(float *to, const struct job *job, const struct room16 *r, int q,
                           int line, int lines)
{
    int ws = job->ws, y = r->place[q] / ws, x = r->place[q] % ws;
    const float *down = r->sums + (ptrdiff_t)2 * q * r->pitch,
                *across = down + r->pitch + ws - 1 - x;
    for (int ky = line; ky < line + lines; ky++, to += ws)
        for (int kx = 0; kx < ws; kx += VL) {
            int n = ws - kx < VL ? ws - kx : VL;
            vf_store_n(to + kx, vf_load_n(across + kx, n) + vf_set1(down[y - ky + ws - 1]), n);
        }
}

/* The mean over more keys into that over those before. */
static void join(float *out, struct attend16_norm *all, const float *mean,
                 const struct attend16_norm *more, int d)
{
    float top = all->top > more->top ? all->top : more->top;
    vf w[2] = {vf_set1(all->top - top), vf_set1(more->top - top)};
    um_exp2_neg_brief_v(w, 2);
    w[0] *= vf_set1(all->sum);
    w[1] *= vf_set1(more->sum);
    *all = (struct attend16_norm){top, vf_hmax(w[0] + w[1])};
    w[1] = w[1] / (w[0] + w[1]);
    for (int i = 0; i < d; i += VL) {
        int n = d - i < VL ? d - i : VL;
        vf before = vf_load_n(out + i, n);
        vf_store_n(out + i, vf_fma(vf_load_n(mean + i, n) - before, w[1], before), n);
    }
}

/* Queries q to q+n-1 meet the keys that are packed, of some lines. */
static void meet(const struct job *job, const struct room16 *r, const struct attend16 *a, int q,
                 int n, int line, int lines)
{
    const float *start[ATTEND16_ROWS];
    float *to[ATTEND16_ROWS];
    struct attend16_norm norm[ATTEND16_ROWS];
    for (int i = 0; i < n; i++) {
        start_scores16(attend16_score(a, i), job, r, q + i, line, lines);
        start[i] = attend16_score(a, i);
        to[i] = line ? r->mean + (ptrdiff_t)i * job->d : r->out[q + i];
    }
    attend16_run(a, r->query + q, 0, start, to, n, line ? norm : r->norm + q);
    for (int i = 0; i < n && line; i++)
        join(r->out[q + i], &r->norm[q + i], to[i], &norm[i], job->d);
}

static void attention16_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_view *out = &job->call->t[0];
    int part = item % job->items_per_head, head = item / job->items_per_head % job->heads,
        window = item / job->items_per_head / job->heads, ws = job->ws, col = head * job->d,
        y0 = window / job->across * ws, x0 = window % job->across * ws, queries = 0;
    struct room16 r;
    room16_of(&r, job, um_pool_scratch(job->call->pool, worker));
    for (int i = split_at(job->n, job->items_per_head, part),
             end = split_at(job->n, job->items_per_head, part + 1);
         i < end; i++) {
        const float *row = token(job, y0, x0, i);
        if (!row)
            continue;
        r.place[queries] = i;
        r.out[queries] = um_view_at(out, (ptrdiff_t)(y0 + i / ws) * out->w + x0 + i % ws) + col;
        r.query[queries++] = row + col;
    }
    sum_positions(job, &r, queries);
    struct attend16 a = r.head;
    for (int line = 0, lines; line < ws; line += lines) {
        lines = ws - line < r.lines ? ws - line : r.lines;
        a.keys = lines * ws;
        for (int i = 0; i < a.keys; i++) {
            const float *row = token(job, y0, x0, line * ws + i);
            r.key[i] = row ? row : job->call->t[2].data;
        }
        attend16_pack(&a, r.key, job->c + col, r.key, 2 * job->c + col);
        for (int q = 0; q < queries; q += ATTEND16_ROWS)
            meet(job, &r, &a, q, queries - q < ATTEND16_ROWS ? queries - q : ATTEND16_ROWS, line,
                 lines);
    }
}

void UM_NAME(relative_attention)(const struct um_call *call)
{
    const struct um_relative_args *args = call->args;
    const struct um_view *out = &call->t[0];
    struct job job = {.call = call,
                      .ws = args->window,
                      .n = args->window * args->window,
                      .heads = args->heads,
                      .c = out->c,
                      .d = out->c / args->heads};
    struct room r;
    struct room16 r16;
    job.scale = 1 / (float)__builtin_sqrt((double)job.d);
    job.across = (out->w + job.ws - 1) / job.ws;
    int windows = job.across * ((out->h + job.ws - 1) / job.ws);
    if (args->bf16 && room16_of(&r16, &job, NULL) * sizeof(float) <= UM_POOL_SCRATCH) {
        job.items_per_head = (job.n + QUERIES16 - 1) / QUERIES16;
        um_pool_run(call->pool, windows * job.heads * job.items_per_head, attention16_item, &job);
        return;
    }
    job.lines = KEYS / job.ws < 1 ? 1 : KEYS / job.ws < job.ws ? KEYS / job.ws : job.ws;
    if (room_of(&r, &job, NULL) * sizeof(float) > UM_POOL_SCRATCH) {
        um_ref_relative_attention(call); /* no model here */
        return;
    }
    job.blocks = attend_blocks(job.n);
    job.items_per_head = (job.blocks + BLOCKS - 1) / BLOCKS;
    um_pool_run(call->pool, windows * job.heads * job.items_per_head, attention_item, &job);
}
