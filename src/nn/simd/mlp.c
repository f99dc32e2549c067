/* SPDX-License-Identifier: Apache-2.0 */
/* x + fc2(GELU(fc1(LN x))) on blocks of rows whose hidden activations stay in the L2 cache. With
 * too few rows to give every thread a block, the two products are divided by columns instead, so
 * that each thread reads its own part of the weights. */
#include "nn/block.h"
#include "nn/simd/conv.h"
#include "nn/simd/gemm.h"
#include "nn/simd/row_norm.h"

enum { BLOCK_FLOATS = 64 << 10, FEW_ROWS = 16 };

struct job {
    const struct um_call *call;
    struct gemm fc1, fc2;
    int rows, blocks;
    float *normed, *hidden; /* few rows: shared by the threads */
};

/* LN of rows r0..r0+n-1 of x, as they lie in memory, into dst. */
static void normalise(const struct um_call *call, ptrdiff_t r0, int n, float *dst)
{
    const struct um_mlp_args *a = call->args;
    const struct um_view *x = &call->t[1];
    for (int r = 0; r < n; r++)
        um_row_norm(dst + (ptrdiff_t)r * x->c, um_view_at(x, r0 + r), call->t[2].data,
                    call->t[3].data, x->c, a->eps);
}

static void block_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_mlp_args *a = j->call->args;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1];
    int r = split_at(j->rows, j->blocks, item), end = split_at(j->rows, j->blocks, item + 1);
    ptrdiff_t ldh = a->hidden;
    if (j->fc2.ready)
        ldh = gemm_depth(&j->fc2, a->hidden) / (int)sizeof(float);
    float *hidden = um_pool_scratch(j->call->pool, worker), *normed = hidden + (end - r) * ldh;
    if (j->fc2.ready && ldh * (int)sizeof(float) > a->hidden * gemm_size(&j->fc2))
        memset(hidden, 0, (size_t)((end - r) * ldh) * sizeof *hidden); /* what lies behind a row */
    for (int n; r < end; r += n) {                                     /* rows side by side */
        int px = r % out->w;
        ptrdiff_t r0 = um_view_row(out, r / out->w, px);
        n = out->pitch && out->w - px < end - r ? out->w - px : end - r;
        normalise(j->call, r0, n, normed);
        um_gemm_block(&j->fc1, normed, x->c, n, hidden, ldh, NULL, 0, 0, um_gemm_panels(a->hidden));
        um_gemm_block(&j->fc2, hidden, ldh, n, um_view_at(out, r0), out->ld, um_view_at(x, r0),
                      x->ld, 0, um_gemm_panels(out->c));
    }
}

static void fc1_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    int c = j->call->t[1].c, hidden = j->fc1.n, panels = um_gemm_panels(hidden);
    (void)worker;
    um_gemm_block(&j->fc1, j->normed, c, j->rows, j->hidden, hidden, NULL, 0,
                  split_at(panels, j->blocks, item), split_at(panels, j->blocks, item + 1));
}

static void fc2_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1];
    int panels = um_gemm_panels(out->c);
    (void)worker;
    um_gemm_block(&j->fc2, j->hidden, j->fc1.n, j->rows, out->data, out->ld, x->data, x->ld,
                  split_at(panels, j->blocks, item), split_at(panels, j->blocks, item + 1));
}

void UM_NAME(mlp)(const struct um_call *call)
{
    const struct um_mlp_args *a = call->args;
    const struct um_view *t = call->t, *out = &t[0], *x = &t[1];
    int threads = um_pool_threads(call->pool), c = x->c;
    struct job j = {.call = call,
                    .fc1 = gemm_of(&t[4], &t[5], c, a->hidden),
                    .fc2 = gemm_of(&t[6], &t[7], a->hidden, out->c),
                    .rows = out->h * out->w};
    j.fc1.act = UM_ACT_GELU;

    if (j.rows <= FEW_ROWS && !out->pitch &&
        (size_t)j.rows * (size_t)(c + a->hidden) * sizeof(float) <= UM_POOL_SCRATCH) {
        float *room = um_pool_scratch(call->pool, 0);
        j.hidden = room + (ptrdiff_t)j.rows * c;
        j.normed = room;
        normalise(call, 0, j.rows, room);
        int64_t fmas = (int64_t)j.rows * c * a->hidden;
        j.blocks = fmas > 100000 ? 2 * threads : 1;
        um_pool_run(call->pool, j.blocks, fc1_item, &j);
        um_pool_run(call->pool, j.blocks, fc2_item, &j);
        return;
    }
    j.fc1.half = j.fc2.ready = j.fc2.type == UM_BF16; /* hidden rows are never floats */
    int mr = um_gemm_mr(out->c), rows = BLOCK_FLOATS / (c + a->hidden) / mr * mr;
    int most = UM_POOL_SCRATCH / (int)sizeof(float) / (c + a->hidden);
    if (rows < 2 * mr)
        rows = 2 * mr;
    if (rows > most)
        rows = most;
    j.blocks = (j.rows + rows - 1) / rows;
    j.blocks = (j.blocks + threads - 1) / threads * threads; /* the same number for every thread */
    if (j.blocks > j.rows)
        j.blocks = j.rows;
    um_pool_run(call->pool, j.blocks, block_item, &j);
}
