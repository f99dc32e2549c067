/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/select.h"

#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"
#include "nn/op_dfine.h"

#include <assert.h>
#include <limits.h>

enum {
    SHARED_MAX = 99 << 10, /* what every GPU from sm_80 on has */
    DEFORM_WARPS = 8,
    DEFORM_POINTS_MAX = 64,
    ROW_WARPS = 4,
    REFINE_THREADS = 128,
    PICK_THREADS = 1024
};

static_assert((int)UM_DEFORM_LEVELS == (int)UM_LEVELS_MAX, "levels of the kernel and of the op");

static void unsupported(const struct um_call *call, const char *what, int64_t is, int64_t max)
{
    if (call->stream->status == UM_OK)
        call->stream->status = um_fail(UM_EUNSUPPORTED, "%s is %lld, at most %lld on a GPU", what,
                                       (long long)is, (long long)max);
}

static int64_t rows_of(const struct um_view *v)
{
    return (int64_t)v->h * v->w;
}

/* Smallest power of two up to 32 with which 8 items a lane do n. */
static int lanes_for(int n)
{
    int lanes = 1;
    while (lanes < 32 && lanes * 8 < n)
        lanes *= 2;
    return lanes;
}

void um_cuda_topk(const struct um_call *call)
{
    const struct um_view *t = call->t;
    int64_t rows = rows_of(&t[1]), k = rows_of(&t[0]);
    if (k > UM_TOPK_MAX) {
        unsupported(call, "topk: k", k, UM_TOPK_MAX);
        return;
    }
    if (rows > 1 << 24) {
        unsupported(call, "topk: rows", rows, 1 << 24);
        return;
    }
    struct um_topk_rows_args a = {.scores = um_gview(&t[1]),
                                  .out = t[0].data,
                                  .step = (int)t[0].ld,
                                  .rows = (int)rows,
                                  .k = (int)k};
    while (1 << a.row_bits < a.rows)
        a.row_bits++;
    a.lanes = lanes_for(a.scores.vec >= 4 ? t[1].c / 4 : t[1].c);
    a.stored = UM_TOPK_SHARED + 4 * rows <= SHARED_MAX;
    um_launch_grid(call, "um_topk_rows", a, UM_TOPK_THREADS,
                   UM_TOPK_SHARED + (a.stored ? 4 * rows : 0), 1, 1, 1);
}

void um_cuda_deform(const struct um_call *call)
{
    const struct um_deform_args *d = call->args;
    const struct um_view *t = call->t;
    int64_t items = rows_of(&t[0]) * d->heads;
    struct um_deform_heads_args a = {.out = um_gview(&t[0]),
                                     .ow = um_gview(&t[1]),
                                     .ref = um_gview(&t[2]),
                                     .memory = um_gview(&t[3]),
                                     .heads = d->heads,
                                     .d = t[3].c / d->heads,
                                     .items = (int)items};
    for (int l = 0; l < d->levels; l++) {
        a.h[l] = d->h[l];
        a.w[l] = d->w[l];
        a.n[l] = d->points[l];
        a.points += d->points[l];
    }
    if (a.points > DEFORM_POINTS_MAX) {
        unsupported(call, "deform: points", a.points, DEFORM_POINTS_MAX);
        return;
    }
    if (items > INT_MAX - DEFORM_WARPS) {
        unsupported(call, "deform: queries times heads", items, INT_MAX - DEFORM_WARPS);
        return;
    }
    if (a.d % 8 == 0 && a.d <= 8 * 32)
        a.lanes = lanes_for(a.d);
    um_launch_grid(call, "um_deform_heads", a, 32 * DEFORM_WARPS,
                   DEFORM_WARPS * a.points * 4 * 8 /* 8 bytes a tap */,
                   um_blocks(items, DEFORM_WARPS), 1, 1);
}

void um_cuda_refine(const struct um_call *call)
{
    const struct um_refine_args *r = call->args;
    const struct um_view *t = call->t;
    int64_t items = rows_of(&t[0]) * t[0].c;
    if (items > INT_MAX - REFINE_THREADS) {
        unsupported(call, "refine: elements", items, INT_MAX - REFINE_THREADS);
        return;
    }
    struct um_refine_elements_args a = {.out = um_gview(&t[0]),
                                        .delta = um_gview(&t[1]),
                                        .base = um_gview(&t[2]),
                                        .inverse = r->inverse,
                                        .items = (int)items};
    um_launch_grid(call, "um_refine_elements", a, REFINE_THREADS, 0,
                   um_blocks(items, REFINE_THREADS), 1, 1);
}

void um_cuda_integral(const struct um_call *call)
{
    const struct um_integral_args *i = call->args;
    const struct um_view *t = call->t;
    struct um_integral_rows_args a = {.out = um_gview(&t[0]),
                                      .corners = um_gview(&t[1]),
                                      .ref = um_gview(&t[2]),
                                      .project = um_gview(&t[3]),
                                      .reg_scale = i->reg_scale,
                                      .rows = (int)rows_of(&t[0])};
    um_launch_grid(call, "um_integral_rows", a, 32 * ROW_WARPS, 0, um_blocks(a.rows, ROW_WARPS), 1,
                   1);
}

void um_cuda_lqe_stats(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_lqe_rows_args a = {
        .out = um_gview(&t[0]), .corners = um_gview(&t[1]), .rows = (int)rows_of(&t[0])};
    um_launch_grid(call, "um_lqe_rows", a, 32 * ROW_WARPS, 0, um_blocks(a.rows, ROW_WARPS), 1, 1);
}

void um_cuda_best_box(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_best_box_pick_args a = {.gate = t[0].data,
                                      .prompt = t[1].data,
                                      .logits = um_gview(&t[2]),
                                      .boxes = um_gview(&t[3]),
                                      .header = t[4].data,
                                      .queries = (int)rows_of(&t[2]),
                                      .n = (int)rows_of(&t[0])};
    if (rows_of(&t[2]) * t[2].c > UINT32_MAX) {
        unsupported(call, "best_box: logits", rows_of(&t[2]) * t[2].c, UINT32_MAX);
        return;
    }
    um_launch_grid(call, "um_best_box_pick", a, PICK_THREADS,
                   PICK_THREADS / 32 * 8 + UM_BOXES_MAX * 8 + 4, 1, 1, 1);
}
