/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks: their reference is the default body, composed of reference kernels. */
#include "checkop.h"

#include "nn/bf16.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void mlp_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_mlp_args *a = &job->args.mlp;
    struct um_norm_args norm = {.eps = a->eps};
    struct um_conv_args fc1 = {.kh = 1, .kw = 1, .stride = 1, .act = a->act},
                        fc2 = {.kh = 1, .kw = 1, .stride = 1};
    struct um_view x = scratch(t[1].h, t[1].w, t[1].c), h = scratch(t[1].h, t[1].w, a->hidden);
    if (t[2].data)
        ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[2], t[3]}, 5);
    ref(um_ref_conv2d, &fc1, pool, (struct um_view[]){h, t[2].data ? x : t[1], t[4], t[5], none},
        5);
    ref(um_ref_conv2d, &fc2, pool,
        (struct um_view[]){t[0], h, t[6], t[7], a->residual ? t[1] : none}, 5);
    free(x.data);
    free(h.data);
}

static void make_mlp(struct job *job, int h, int w, int c, int hidden, int o, bool norm,
                     enum um_act act)
{
    job->op = UM_OP_MLP;
    job->reference = mlp_reference;
    job->tolerance = 3e-5; /* two sums of unit gain after a LayerNorm */
    job->macs = (double)h * w * hidden * (c + o);
    job->args.mlp =
        (struct um_mlp_args){.eps = 1e-5f, .hidden = hidden, .act = act, .residual = c == o};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] hidden %d -> %d%s%s", h, w, c, hidden, o,
             norm ? " norm" : "", act_names[act]);
    output(job, UM_F32, h, w, o, gap());
    input(job, h, w, c, gap(), 1);
    if (norm) {
        input(job, 1, 1, c, 0, 2);
        input(job, 1, 1, c, 0, 1);
    } else {
        absent(job);
        absent(job);
    }
    weights(job, hidden, 1, 1, c);
    input(job, 1, 1, hidden, 0, 0.5f);
    weights(job, o, 1, 1, hidden);
    input(job, 1, 1, o, 0, 0.5f);
}

static void random_mlp(struct job *job)
{
    int c = pick(2, 130), hidden = pick(1, 300);
    make_mlp(job, pick(1, 12), pick(1, 25), c, hidden, chance(70) ? c : pick(1, 130), chance(70),
             chance(70) ? UM_ACT_GELU : UM_ACT_RELU);
}

static void bench_mlp(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_mlp(job, p[0], p[1], p[2], p[3], p[4], true, b->act);
}

static void mbconv_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_mbconv_args *a = &job->args.mbconv;
    struct um_conv_args c1 = {.kh = 1, .kw = 1, .stride = 1, .act = UM_ACT_GELU},
                        c3 = {.kh = 1, .kw = 1, .stride = 1};
    struct um_conv_args dw = {
        .kh = 3, .kw = 3, .stride = a->stride, .pad_top = 1, .pad_left = 1, .act = UM_ACT_GELU};
    struct um_view x = scratch(t[1].h, t[1].w, a->hidden), y = scratch(t[0].h, t[0].w, a->hidden);
    c3.act = a->residual ? UM_ACT_GELU : UM_ACT_NONE;
    ref(um_ref_conv2d, &c1, pool, (struct um_view[]){x, t[1], t[2], t[3], none}, 5);
    ref(um_ref_dwconv, &dw, pool, (struct um_view[]){y, x, t[4], t[5], none}, 5);
    ref(um_ref_conv2d, &c3, pool,
        (struct um_view[]){t[0], y, t[6], t[7], a->residual ? t[1] : none}, 5);
    free(x.data);
    free(y.data);
}

static void make_mbconv(struct job *job, int h, int w, int c, int hidden, int o, int stride,
                        bool residual)
{
    int oh = (h - 1) / stride + 1, ow = (w - 1) / stride + 1;
    job->op = UM_OP_MBCONV;
    job->reference = mbconv_reference;
    job->tolerance = 3e-5;
    job->macs = (double)h * w * c * hidden + (double)oh * ow * hidden * (9 + o);
    job->args.mbconv =
        (struct um_mbconv_args){.hidden = hidden, .stride = stride, .residual = residual};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] hidden %d -> %d s%d%s", h, w, c, hidden, o,
             stride, residual ? " residual" : "");
    output(job, UM_F32, oh, ow, o, gap());
    input(job, h, w, c, gap(), 1);
    weights(job, hidden, 1, 1, c);
    input(job, 1, 1, hidden, 0, 0.5f);
    input(job, 1, 9, hidden, 0, 0.6f);
    input(job, 1, 1, hidden, 0, 0.5f);
    weights(job, o, 1, 1, hidden);
    input(job, 1, 1, o, 0, 0.5f);
}

static void random_mbconv(struct job *job)
{
    int c = pick(1, 70), stride = pick(1, 2);
    bool residual = stride == 1 && chance(50);
    make_mbconv(job, pick(1, 30), pick(1, 80), c, pick(1, 130), residual ? c : pick(1, 70), stride,
                residual);
}

static void bench_mbconv(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_mbconv(job, p[0], p[1], p[2], p[3], p[4], p[5], p[6]);
}

/* Queries, after their scale, keys and values as bf16. */
static void round_heads(const struct um_view *qkv, int heads)
{
    int d = qkv->c / 3 / heads;
    float scale = 1 / sqrtf((float)d);
    for (int r = 0; r < qkv->h * qkv->w; r++)
        for (int i = 0; i < qkv->c; i++) {
            float s = i % (3 * d) < d ? scale : 1, *x = at(qkv, r, i);
            *x = um_bf16_float(um_bf16_of(*x * s)) / s;
        }
}

static void block_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_window_block_args *a = &job->args.block;
    struct um_norm_args norm = {.eps = a->eps};
    struct um_window_args window = {.window = a->window, .heads = a->heads};
    struct um_conv_args fc = {.kh = 1, .kw = 1, .stride = 1};
    int h = t[1].h, w = t[1].w, c = t[1].c;
    struct um_view x = scratch(h, w, c), qkv = scratch(h, w, 3 * c);
    ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[2], t[3]}, 5);
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){qkv, x, t[4], t[5], none}, 5);
    struct um_view pad = scratch(1, 1, 3 * c);
    memcpy(pad.data, t[6].data, (size_t)(3 * c) * sizeof(float));
    if (t[4].dtype == UM_BF16) { /* then attention is in bf16, too */
        round_heads(&qkv, a->heads);
        round_heads(&pad, a->heads);
    }
    ref(um_ref_window_attention, &window, pool, (struct um_view[]){x, qkv, pad, t[7]}, 4);
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){t[0], x, t[8], t[9], t[1]}, 5);
    free(x.data);
    free(qkv.data);
    free(pad.data);
}

static void make_block(struct job *job, int h, int w, int window, int heads, int d)
{
    int c = heads * d;
    double windows = (double)((h + window - 1) / window) * ((w + window - 1) / window);
    job->op = UM_OP_WINDOW_BLOCK;
    job->reference = block_reference;
    job->tolerance = 3e-5;
    job->macs = (double)h * w * c * c * 4 + 2 * windows * window * window * window * window * c;
    job->args.block = (struct um_window_block_args){.eps = 1e-5f, .window = window, .heads = heads};
    snprintf(job->what, sizeof job->what, "[%d,%d] window %d, %d heads of %d", h, w, window, heads,
             d);
    output(job, UM_F32, h, w, c, gap());
    input(job, h, w, c, gap(), 1);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
    weights(job, 3 * c, 1, 1, c);
    input(job, 1, 1, 3 * c, 0, 0.5f);
    input(job, 1, 1, 3 * c, 0, 2);
    input(job, 1, heads, window * window, 0, 2);
    weights(job, c, 1, 1, c);
    input(job, 1, 1, c, 0, 0.5f);
}

static void random_block(struct job *job)
{
    int window = chance(60) ? 7 : chance(40) ? 14 : pick(1, 9);
    make_block(job, pick(1, 30), pick(1, 30), window, pick(1, 3), chance(80) ? 32 : pick(2, 33));
}

static void bench_block(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_block(job, p[0], p[1], p[2], p[3], p[4]);
}

const struct op_case block_cases[] = {
    {UM_OP_MLP, random_mlp, 40, 0x3, bench_mlp},
    {UM_OP_MBCONV, random_mbconv, 40, 0x3, bench_mbconv},
    {UM_OP_WINDOW_BLOCK, random_block, 20, 0x3, bench_block},
    {0},
};
