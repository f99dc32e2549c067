/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks: their reference is the default body, composed of reference kernels. */
#include "checkop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void mlp_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_mlp_args *a = &job->args.mlp;
    struct um_norm_args norm = {.eps = a->eps};
    struct um_conv_args fc1 = {.kh = 1, .kw = 1, .stride = 1, .act = UM_ACT_GELU},
                        fc2 = {.kh = 1, .kw = 1, .stride = 1};
    struct um_view x = scratch(t[1].h, t[1].w, t[1].c), h = scratch(t[1].h, t[1].w, a->hidden);
    ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[2], t[3]}, 5);
    ref(um_ref_conv2d, &fc1, pool, (struct um_view[]){h, x, t[4], t[5], none}, 5);
    ref(um_ref_conv2d, &fc2, pool, (struct um_view[]){t[0], h, t[6], t[7], t[1]}, 5);
    free(x.data);
    free(h.data);
}

static void make_mlp(struct job *job, int h, int w, int c, int hidden)
{
    job->op = UM_OP_MLP;
    job->reference = mlp_reference;
    job->tolerance = 3e-5; /* two sums of unit gain after a LayerNorm */
    job->macs = 2. * h * w * hidden * c;
    job->args.mlp = (struct um_mlp_args){.eps = 1e-5f, .hidden = hidden};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] hidden %d", h, w, c, hidden);
    output(job, UM_F32, h, w, c, gap());
    input(job, h, w, c, gap(), 1);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
    weights(job, hidden, 1, 1, c);
    input(job, 1, 1, hidden, 0, 0.5f);
    weights(job, c, 1, 1, hidden);
    input(job, 1, 1, c, 0, 0.5f);
}

static void random_mlp(struct job *job)
{
    make_mlp(job, pick(1, 12), pick(1, 25), pick(2, 130), pick(1, 300));
}

static void bench_mlp(struct job *job, const struct bench *b)
{
    make_mlp(job, b->p[0], b->p[1], b->p[2], b->p[3]);
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

static void stem_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_stem_args *a = &job->args.stem;
    int h = (t[1].h - 1) / 2 + 1, w = (t[1].w - 1) / 2 + 1, m = t[0].c;
    struct um_conv_args c[UM_STEM_LAYERS];
    struct um_view half = scratch(h, w, m), left = scratch(h, w, m / 2),
                   both = scratch(h, w, 2 * m), most = both, right = both;
    most.c = right.c = m;
    right.data = (float *)both.data + m;
    for (int i = 0; i < UM_STEM_LAYERS; i++) {
        bool square = i == 1 || i == 2;
        c[i] = (struct um_conv_args){.kh = square ? 2 : 3,
                                     .kw = square ? 2 : 3,
                                     .stride = square ? 1 : 2,
                                     .pad_top = !square,
                                     .pad_left = !square,
                                     .act = UM_ACT_RELU,
                                     .lab_scale = a->lab_scale[i],
                                     .lab_shift = a->lab_shift[i]};
    }
    ref(um_ref_conv2d, &c[0], pool, (struct um_view[]){half, t[1], t[2], t[3], none}, 5);
    ref(um_ref_conv2d, &c[1], pool, (struct um_view[]){left, half, t[4], t[5], none}, 5);
    ref(um_ref_conv2d, &c[2], pool, (struct um_view[]){right, left, t[6], t[7], none}, 5);
    ref(um_ref_maxpool2, NULL, pool, (struct um_view[]){most, half}, 2);
    ref(um_ref_conv2d, &c[3], pool, (struct um_view[]){t[0], both, t[8], t[9], none}, 5);
    free(half.data);
    free(left.data);
    free(both.data);
}

static void make_stem(struct job *job, int h, int w, int c)
{
    static const int o[] = {16, 8, 16, 16}, side[] = {3, 2, 2, 3};
    const int in[] = {c, 16, 8, 32};
    int oh = (h + 3) / 4, ow = (w + 3) / 4;
    job->op = UM_OP_STEM;
    job->reference = stem_reference;
    job->tolerance = 3e-5;
    job->macs = (double)h * w / 4 * (9 * c * 16 + 2 * 4 * 8 * 16) + (double)oh * ow * 9 * 32 * 16;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d]", h, w, c);
    output(job, UM_F32, oh, ow, 16, gap());
    input(job, h, w, c, gap(), 1);
    for (int i = 0; i < UM_STEM_LAYERS; i++) {
        job->args.stem.lab_scale[i] = chance(70) ? 0.5f + 0.3f * (float)i : 0;
        job->args.stem.lab_shift[i] = chance(70) ? 0.1f * (float)(i - 2) : 0;
        weights(job, o[i], side[i], side[i], in[i]);
        input(job, 1, 1, o[i], 0, 0.5f);
    }
}

static void random_stem(struct job *job)
{
    make_stem(job, pick(1, 90), pick(64, 200), chance(50) ? 1 : 3);
}

static void bench_stem(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_stem(job, p[0], p[1], p[2]);
}

/* Queries, after their scale, keys and values as bf16. */
static void round_heads(const struct um_view *qkv, int heads)
{
    int d = qkv->c / 3 / heads;
    float scale = 1 / sqrtf((float)d);
    for (int r = 0; r < qkv->h * qkv->w; r++)
        for (int i = 0; i < qkv->c; i++)
            round_times(at(qkv, r, i), i % (3 * d) < d ? scale : 1);
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
    if (a->bf16) {
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

/* ---- attention between tokens and image: keys, values and queries of every pixel are made ---- */

static const struct um_conv_args point = {.kh = 1, .kw = 1, .stride = 1};

static struct um_view projected(um_pool *pool, const struct um_view *x, const struct um_view *w,
                                const struct um_view *b)
{
    struct um_view y = scratch(x->h, x->w, w->h * w->w);
    ref(um_ref_conv2d, &point, pool, (struct um_view[]){y, *x, *w, b ? *b : none, none}, 5);
    return y;
}

static struct um_view placed(um_pool *pool, const struct um_view *x, const struct um_view *place)
{
    struct um_add_args sum = {.act = UM_ACT_NONE};
    struct um_view y = scratch(x->h, x->w, x->c);
    ref(um_ref_add, &sum, pool, (struct um_view[]){y, *x, *place}, 3);
    return y;
}

static void token_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    struct um_attention_args a = {.heads = UM_CROSS_HEADS, .scale = job->args.cross.scale};
    struct um_view x = placed(pool, &t[2], &t[3]), k = projected(pool, &x, &t[4], NULL),
                   v = projected(pool, &t[2], &t[5], &t[6]);
    ref(um_ref_attention, &a, pool, (struct um_view[]){t[0], t[1], k, v}, 4);
    free(x.data);
    free(k.data);
    free(v.data);
}

static void image_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    struct um_attention_args a = {.heads = UM_CROSS_HEADS, .scale = job->args.cross.scale};
    struct um_norm_args norm = {.eps = job->args.cross.eps};
    int c = t[3].c, dim = t[1].c;
    struct um_view x = placed(pool, &t[1], &t[2]), q = projected(pool, &x, &t[5], &t[6]),
                   found = scratch(x.h, x.w, c), w = scratch(1, dim, c), y = scratch(x.h, x.w, dim);
    for (int o = 0; o < dim; o++)
        for (int i = 0; i < c; i++)
            *at(&w, o, i) = *at(&t[7], i, o);
    ref(um_ref_attention, &a, pool, (struct um_view[]){found, q, t[3], t[4]}, 4);
    ref(um_ref_conv2d, &point, pool, (struct um_view[]){y, found, w, t[8], t[1]}, 5);
    ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){t[0], y, none, t[9], t[10]}, 5);
    free(x.data);
    free(q.data);
    free(found.data);
    free(w.data);
    free(y.data);
}

static void make_cross(struct job *job, bool tokens_ask, int tokens, int h, int w, int c, int dim)
{
    job->op = tokens_ask ? UM_OP_TOKEN_TO_IMAGE : UM_OP_IMAGE_TO_TOKEN;
    job->reference = tokens_ask ? token_reference : image_reference;
    job->tolerance = 3e-5;
    job->macs = 2.0 * h * w * tokens * UM_CROSS_HEADS * dim;
    job->args.cross = (struct um_cross_args){.scale = 1 / sqrtf((float)(c / UM_CROSS_HEADS)),
                                             .eps = tokens_ask ? 0 : 1e-5f};
    snprintf(job->what, sizeof job->what, "%d tokens of %d, [%d,%d,%d]", tokens, c, h, w, dim);
    float gain = 1.7f / sqrtf((float)dim);
    if (tokens_ask) {
        output(job, UM_F32, 1, tokens, c, gap());
        input(job, 1, tokens, c, gap(), 2);
        input(job, h, w, dim, gap(), 1);
        input(job, h, w, dim, gap(), 1);
        input(job, 1, c, dim, 0, gain);
        input(job, 1, c, dim, 0, gain);
        maybe_bias(job, chance(70), c);
        return;
    }
    output(job, UM_F32, h, w, dim, gap());
    input(job, h, w, dim, gap(), 1);
    input(job, h, w, dim, gap(), 1);
    input(job, 1, tokens, c, gap(), 2);
    input(job, 1, tokens, c, gap(), 1);
    input(job, 1, c, dim, 0, gain);
    input(job, 1, 1, c, 0, 0.5f);
    input(job, 1, c, dim, 0, 1.7f / sqrtf((float)c));
    input(job, 1, 1, dim, 0, 0.5f);
    input(job, 1, 1, dim, 0, 2);
    input(job, 1, 1, dim, 0, 1);
}

static void random_cross(struct job *job, bool tokens_ask)
{
    make_cross(job, tokens_ask, pick(1, UM_CROSS_LANES / UM_CROSS_HEADS), pick(1, 30), pick(1, 40),
               UM_CROSS_HEADS * 8 * pick(1, 2), 64 * pick(1, 4));
}

static void random_token_to_image(struct job *job)
{
    random_cross(job, true);
}

static void random_image_to_token(struct job *job)
{
    random_cross(job, false);
}

static void bench_token_to_image(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_cross(job, true, p[0], p[1], p[2], p[3], p[4]);
}

static void bench_image_to_token(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_cross(job, false, p[0], p[1], p[2], p[3], p[4]);
}

const struct op_case block_cases[] = {
    {UM_OP_MLP, random_mlp, 40, 0x3, bench_mlp},
    {UM_OP_MBCONV, random_mbconv, 40, 0x3, bench_mbconv},
    {UM_OP_STEM, random_stem, 40, 0, bench_stem},
    {UM_OP_WINDOW_BLOCK, random_block, 20, 0x3, bench_block},
    {UM_OP_TOKEN_TO_IMAGE, random_token_to_image, 30, 0, bench_token_to_image},
    {UM_OP_IMAGE_TO_TOKEN, random_image_to_token, 30, 0, bench_image_to_token},
    {0},
};
