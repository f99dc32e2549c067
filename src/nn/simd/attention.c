/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-head attention for any number of queries and keys: one item is a head and some blocks of
 * queries. */
#include "nn/op_ref.h"
#include "nn/simd/attend.h"
#include "nn/simd/attend16.h"
#include "nn/simd/room.h"

um_kernel UM_NAME(attention);

enum { ITEM_MACS = 1 << 20 };

struct job {
    const struct um_call *call;
    int blocks, blocks_per_item, items_per_head;
};

static void attention_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_attention_args *args = job->call->args;
    const struct um_view *t = job->call->t;
    int queries = t[0].h * t[0].w, d = t[0].c / args->heads, col = item / job->items_per_head * d;
    int b = item % job->items_per_head * job->blocks_per_item;
    int end = b + job->blocks_per_item < job->blocks ? b + job->blocks_per_item : job->blocks;
    float *q = um_pool_scratch(job->call->pool, worker), *o = q + d * ATTEND_VECTORS * VL,
          *s = o + d * ATTEND_VECTORS * VL;
    struct attend a = {.d = d,
                       .keys = t[2].h * t[2].w,
                       .k = (const float *)t[2].data + col,
                       .v = (const float *)t[3].data + col,
                       .ld_k = t[2].ld,
                       .ld_v = t[3].ld,
                       .q = q,
                       .s = s,
                       .o = o};
    for (; b < end; b++) {
        int v0 = attend_first(queries, b), vectors = attend_first(queries, b + 1) - v0,
            lanes = vectors * VL, first = v0 * VL;
        int n = queries - first < lanes ? queries - first : lanes;
        if (n < lanes)
            memset(q, 0, (size_t)(d * lanes) * sizeof *q);
        transpose(q, lanes, um_view_at(&t[1], first) + col, t[1].ld, n, d, args->scale);
        a.ld_q = lanes;
        attend(&a, vectors);
        transpose(um_view_at(&t[0], first) + col, t[0].ld, o, lanes, d, n, 1);
    }
}

/* ---- in bf16 ---- */

/* What an item works in. */
struct room16 {
    struct attend16 head;
    const float **key, **value, **query;
    float **out;
};

/* Divides the memory at base; how many floats of it. NULL: only these are asked. */
static size_t room16_of(struct room16 *r, const struct um_call *call, float *base)
{
    const struct um_attention_args *args = call->args;
    const struct um_view *t = call->t;
    struct attend16 *a = &r->head;
    size_t at = 0, keys = (size_t)t[2].h * (size_t)t[2].w,
           queries = (size_t)t[0].h * (size_t)t[0].w;
    *a = (struct attend16){
        .d = t[0].c / args->heads, .keys = (int)keys, .how = args->how, .scale = args->scale};
    attend16_room(a, base, &at);
    r->key = (const float **)(void *)room_take(base, &at, keys * POINTER);
    r->value = (const float **)(void *)room_take(base, &at, keys * POINTER);
    r->query = (const float **)(void *)room_take(base, &at, queries * POINTER);
    r->out = (float **)(void *)room_take(base, &at, queries * POINTER);
    return at;
}

static void rows_of(const float **row, const struct um_view *v, int first, int n)
{
    for (int i = 0; i < n; i++)
        row[i] = um_view_at(v, first + i);
}

/* A head and a part of the queries. */
static void attention16_item(void *ctx, int item, int worker)
{
    const struct job *job = ctx;
    const struct um_view *t = job->call->t;
    struct room16 r;
    room16_of(&r, job->call, um_pool_scratch(job->call->pool, worker));
    int queries = t[0].h * t[0].w, parts = job->items_per_head,
        first = split_at(queries, parts, item % parts),
        n = split_at(queries, parts, item % parts + 1) - first, col = item / parts * r.head.d;
    rows_of(r.query, &t[1], first, n);
    rows_of(r.key, &t[2], 0, r.head.keys);
    rows_of(r.value, &t[3], 0, r.head.keys);
    for (int i = 0; i < n; i++)
        r.out[i] = um_view_at(&t[0], first + i) + col;
    attend16_pack(&r.head, r.key, col, r.value, col);
    attend16_run(&r.head, r.query, col, NULL, r.out, n, NULL);
}

static bool attention16(const struct um_call *call)
{
    const struct um_attention_args *args = call->args;
    int threads = um_pool_threads(call->pool), heads = args->heads,
        queries = call->t[0].h * call->t[0].w;
    struct room16 r;
    if (room16_of(&r, call, NULL) * sizeof(float) > UM_POOL_SCRATCH)
        return false;
    struct job job = {.call = call, .items_per_head = 1};
    while (heads * job.items_per_head % threads && heads * job.items_per_head < 4 * threads &&
           2 * ATTEND16_ROWS * job.items_per_head < queries)
        job.items_per_head++;
    um_pool_run(call->pool, heads * job.items_per_head, attention16_item, &job);
    return true;
}

void UM_NAME(attention)(const struct um_call *call)
{
    const struct um_attention_args *args = call->args;
    const struct um_view *t = call->t;
    int queries = t[0].h * t[0].w, keys = t[2].h * t[2].w, d = t[0].c / args->heads;
    if (args->bf16 && attention16(call))
        return;
    if (((int64_t)keys + 2 * d) * ATTEND_VECTORS * VL * (int64_t)sizeof(float) > UM_POOL_SCRATCH) {
        um_ref_attention(call); /* 16000 keys and more: no model here */
        return;
    }
    struct job job = {.call = call, .blocks = attend_blocks(queries)};
    int64_t macs = (int64_t)keys * d * 2 * ATTEND_VECTORS * VL;
    job.blocks_per_item = (int)(ITEM_MACS / macs) + 1;
    job.items_per_head = (job.blocks + job.blocks_per_item - 1) / job.blocks_per_item;
    um_pool_run(call->pool, args->heads * job.items_per_head, attention_item, &job);
}
