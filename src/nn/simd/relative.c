/* SPDX-License-Identifier: Apache-2.0 */
/* SAM's attention with decomposed relative positions, in windows or over the whole map. An item is
 * a window, a head and some blocks of queries. Queries lie in the lanes (attend.h); what a position
 * adds to a score is q.rows + q.columns, so for a block both tables are multiplied by its queries
 * once, every lane picks the entries of its own place, and their sums are where the scores start.
 */
#include "nn/op_ref.h"
#include "nn/simd/attend.h"
#include "nn/simd/room.h"

um_kernel UM_NAME(relative_attention);

enum { LANES = ATTEND_VECTORS * VL };

struct job {
    const struct um_call *call;
    int ws, n, d, c; /* n = ws*ws tokens of a window */
    int across, heads, blocks, blocks_per_item, items_per_head;
    bool whole; /* the map is one window: keys and values stay where they are */
};

/* What an item works in. Offsets in floats. */
struct room {
    float *q, *k, *v, *s, *o, *sums, *down, *columns;
};

static size_t room_of(struct room *r, const struct job *j, float *base)
{
    size_t d = (size_t)j->d, n = (size_t)j->n, keys = j->whole ? 0 : n * d, at = 0;
    r->q = room_take(base, &at, d * LANES);
    r->k = room_take(base, &at, keys);
    r->v = room_take(base, &at, keys);
    r->s = room_take(base, &at, n * LANES);
    r->o = room_take(base, &at, d * LANES);
    r->sums = room_take(base, &at, (size_t)(2 * j->ws - 1) * LANES);
    r->down = room_take(base, &at, (size_t)j->ws * LANES);
    r->columns = room_take(base, &at, (size_t)j->ws * LANES);
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

/* The scores that positions make, [key][lane]. */
static void start_scores(const struct job *job, const struct room *r, int first, int lanes)
{
    int y[LANES], x[LANES], ws = job->ws;
    float *s = r->s;
    for (int l = 0; l < lanes; l++) { /* lanes beyond the window repeat its last token */
        int token = first + l < job->n ? first + l : job->n - 1;
        y[l] = token / ws;
        x[l] = token % ws;
    }
    multiply(r->sums, &job->call->t[3], r->q, job->d, lanes);
    pick(r->down, r->sums, ws, y, lanes);
    multiply(r->sums, &job->call->t[4], r->q, job->d, lanes);
    pick(r->columns, r->sums, ws, x, lanes);
    for (int ky = 0; ky < ws; ky++)
        for (int kx = 0; kx < ws; kx++, s += lanes)
            for (int v = 0; v < lanes; v += VL)
                vf_store(s + v,
                         vf_load(r->down + ky * lanes + v) + vf_load(r->columns + kx * lanes + v));
}

/* Row of token i of the window at (y0, x0); NULL: it is beyond the map. */
static const float *token(const struct job *job, int y0, int x0, int i)
{
    const struct um_view *qkv = &job->call->t[1];
    int y = y0 + i / job->ws, x = x0 + i % job->ws;
    return y < qkv->h && x < qkv->w ? um_view_at(qkv, (ptrdiff_t)y * qkv->w + x) : NULL;
}

static void attention_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_view *out = &job->call->t[0], *qkv = &job->call->t[1];
    int part = item % job->items_per_head, head = item / job->items_per_head % job->heads,
        window = item / job->items_per_head / job->heads, d = job->d, c = job->c, col = head * d;
    int y0 = window / job->across * job->ws, x0 = window % job->across * job->ws;
    int b = part * job->blocks_per_item;
    int end = b + job->blocks_per_item < job->blocks ? b + job->blocks_per_item : job->blocks;
    float scale = 1 / (float)__builtin_sqrt((double)d);
    struct room r;
    room_of(&r, job, um_pool_scratch(job->call->pool, worker));
    struct attend a = {
        .d = d, .keys = job->n, .ld_k = d, .ld_v = d, .s = r.s, .o = r.o, .bias = r.s};
    for (int i = 0; i < job->n && !job->whole; i++) {
        const float *row = token(job, y0, x0, i);
        row = row ? row : job->call->t[2].data;
        memcpy(r.k + i * d, row + c + col, (size_t)d * sizeof *row);
        memcpy(r.v + i * d, row + 2 * c + col, (size_t)d * sizeof *row);
    }
    a.k = r.k;
    a.v = r.v;
    if (job->whole) {
        a.k = (const float *)qkv->data + c + col;
        a.v = a.k + c;
        a.ld_k = a.ld_v = qkv->ld;
    }
    for (; b < end; b++) {
        int v0 = attend_first(job->n, b), vectors = attend_first(job->n, b + 1) - v0,
            lanes = vectors * VL, first = v0 * VL;
        for (int l = 0; l < lanes; l++) {
            const float *row = first + l < job->n ? token(job, y0, x0, first + l) : NULL;
            for (int i = 0; i < d; i++)
                r.q[i * lanes + l] = row ? row[col + i] : 0;
        }
        start_scores(job, &r, first, lanes);
        for (int i = 0; i < d * lanes; i += VL)
            vf_store(r.q + i, vf_load(r.q + i) * vf_set1(scale));
        a.q = r.q;
        a.ld_q = lanes;
        attend(&a, vectors);
        for (int l = 0; l < lanes && first + l < job->n; l++) {
            int i = first + l, y = y0 + i / job->ws, x = x0 + i % job->ws;
            if (y >= out->h || x >= out->w)
                continue;
            float *to = um_view_at(out, (ptrdiff_t)y * out->w + x) + col;
            for (int e = 0; e < d; e++)
                to[e] = r.o[e * lanes + l];
        }
    }
}

void UM_NAME(relative_attention)(const struct um_call *call)
{
    const struct um_window_args *args = call->args;
    const struct um_view *out = &call->t[0];
    struct job job = {.call = call,
                      .ws = args->window,
                      .n = args->window * args->window,
                      .heads = args->heads,
                      .c = out->c,
                      .d = out->c / args->heads,
                      .whole = out->h == args->window && out->w == args->window};
    struct room r;
    if (room_of(&r, &job, NULL) * sizeof(float) > UM_POOL_SCRATCH) {
        um_ref_relative_attention(call); /* maps of 120x120 and more: canvases of 1920 */
        return;
    }
    job.across = (out->w + job.ws - 1) / job.ws;
    job.blocks = attend_blocks(job.n);
    job.blocks_per_item = job.whole ? 1 : job.blocks;
    job.items_per_head = (job.blocks + job.blocks_per_item - 1) / job.blocks_per_item;
    int windows = job.across * ((out->h + job.ws - 1) / job.ws);
    um_pool_run(call->pool, windows * job.heads * job.items_per_head, attention_item, &job);
}
