/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-head attention for any number of queries and keys: one item is a head and some blocks of
 * queries. */
#include "nn/op_ref.h"
#include "nn/simd/attend.h"

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
        transpose(q, lanes, (const float *)t[1].data + first * t[1].ld + col, t[1].ld, n, d,
                  args->scale);
        a.ld_q = lanes;
        attend(&a, vectors);
        transpose((float *)t[0].data + first * t[0].ld + col, t[0].ld, o, lanes, d, n, 1);
    }
}

void UM_NAME(attention)(const struct um_call *call)
{
    const struct um_attention_args *args = call->args;
    const struct um_view *t = call->t;
    int queries = t[0].h * t[0].w, keys = t[2].h * t[2].w, d = t[0].c / args->heads;
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
