/* SPDX-License-Identifier: Apache-2.0 */
/* Attention: whole rows, windows, and the few tokens of a decoder. */
#include "checkop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void make_attention(struct job *job, int queries, int keys, int heads, int d, float spread)
{
    job->op = UM_OP_ATTENTION;
    job->tolerance = 1e-5; /* a weighted mean; exp turns absolute errors of the scores (up to 30)
                              into relative ones */
    job->rounding = 5; /* on tensor cores q and k that were fp32 become halves, and the error of a
                          score is a relative one of its weight; so do v and the weights */
    job->macs = 2.0 * queries * keys * heads * d;
    job->args.attention = (struct um_attention_args){.heads = heads, .scale = 1 / sqrtf((float)d)};
    snprintf(job->what, sizeof job->what, "%d queries, %d keys, %d heads of %d", queries, keys,
             heads, d);
    output(job, UM_F32, 1, queries, heads * d, gap());
    input(job, 1, queries, heads * d, gap(), spread);
    int space = gap();
    input(job, 1, keys, heads * d, space, spread);
    input(job, 1, keys, heads * d, space, 1);
}

static void random_attention(struct job *job)
{
    static const int widths[] = {16, 32, 48};
    static const int shapes[][3] = {/* of the networks: queries, keys, width */
                                    {300, 300, 32},
                                    {400, 400, 16},
                                    {7, 4096, 16},
                                    {4096, 7, 16},
                                    {7, 7, 32}};
    int d = chance(70) ? widths[pick(0, 2)] : pick(1, 70);
    if (chance(30)) {
        const int *s = shapes[pick(0, 4)];
        make_attention(job, s[0], s[1], pick(1, 2), s[2], chance(30) ? 4.0f : 1.5f);
        return;
    }
    make_attention(job, pick(1, 120), chance(20) ? pick(200, 700) : pick(1, 90), pick(1, 5), d,
                   chance(30) ? 4.0f : 1.5f);
}

static void bench_attention(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_attention(job, p[0], p[1], p[2], p[3], 1);
}

static void make_window(struct job *job, int h, int w, int window, int heads, int d)
{
    int c = heads * d, n = window * window;
    job->op = UM_OP_WINDOW_ATTENTION;
    job->tolerance = 1e-5;
    job->rounding = 3; /* as above */
    job->macs = 2.0 * ((h + window - 1) / window) * ((w + window - 1) / window) * n * n * c;
    job->args.window = (struct um_window_args){.window = window, .heads = heads};
    snprintf(job->what, sizeof job->what, "[%d,%d] window %d, %d heads of %d", h, w, window, heads,
             d);
    output(job, UM_F32, h, w, c, gap());
    input(job, h, w, 3 * c, gap(), 2);
    input(job, 1, 1, 3 * c, 0, 2);
    input(job, 1, heads, n, 0, 2);
}

static void random_window(struct job *job)
{
    int window = chance(60) ? 7 : chance(60) ? 14 : pick(1, 12), d = chance(80) ? 32 : pick(1, 40);
    static const int maps[][2] = {{19, 23}, {5, 11}};
    int h = pick(1, 30), w = pick(1, 30);
    if (chance(20)) { /* windows of the networks: some beyond the edge, a map smaller than one */
        const int *map = maps[pick(0, 1)];
        make_window(job, map[0], map[1], chance(50) ? 7 : 14, pick(1, 2), 32);
    } else
        make_window(job, h, w, window, pick(1, 3), d);
}

static void make_relative(struct job *job, int h, int w, int window, int heads, int d)
{
    int c = heads * d, n = window * window;
    job->op = UM_OP_RELATIVE_ATTENTION;
    job->tolerance = 2e-5;
    job->rounding = 3; /* as above */
    job->macs = 2.0 * ((h + window - 1) / window) * ((w + window - 1) / window) * n * n * c;
    job->args.relative = (struct um_relative_args){.window = window, .heads = heads};
    snprintf(job->what, sizeof job->what, "[%d,%d] window %d, %d heads of %d", h, w, window, heads,
             d);
    output(job, UM_F32, h, w, c, gap());
    input(job, h, w, 3 * c, gap(), 1.5f);
    input(job, 1, 1, 3 * c, 0, 1.5f);
    input(job, 1, 2 * window - 1, d, gap(), 0.7f);
    input(job, 1, 2 * window - 1, d, gap(), 0.7f);
}

static void random_relative(struct job *job)
{
    int d = chance(40)   ? 64
            : chance(40) ? 80
                         : pick(1, 40),
        heads = pick(1, 3), window = pick(1, 9);
    int h = pick(1, 20), w = pick(1, 20);
    if (chance(30)) {            /* one window is the whole map, as in SAM's global blocks */
        bool large = chance(20); /* more keys than meet at once */
        h = w = window = large ? pick(23, 34) : pick(1, 16);
        heads = large ? 1 : heads;
        d = large ? pick(1, 20) : d;
    } else if (chance(20)) {
        window = 14;
    }
    make_relative(job, h, w, window, heads, d);
}

static void bench_window(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_window(job, p[0], p[1], p[2], p[3], p[4]);
}

static void bench_relative(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_relative(job, p[0], p[1], p[2], p[3], p[4]);
}

static void tokens_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_tokens_args *a = &job->args.tokens;
    struct um_conv_args fc = {.kh = 1, .kw = 1, .stride = 1};
    struct um_attention_args attention = {.heads = a->heads, .scale = a->scale};
    struct um_norm_args norm = {.eps = a->eps};
    struct um_add_args plain = {.act = UM_ACT_NONE};
    int n = t[1].w, c = t[1].c, first = t[5].data ? 2 * c : 3 * c;
    struct um_view x = scratch(1, n, c), qkv = scratch(1, n, 3 * c), part[4];
    for (int i = 0; i < 4; i++) { /* q, k, v, and what the first layer writes */
        part[i] = qkv;
        part[i].c = i < 3 ? c : first;
        part[i].data = at(&qkv, 0, i < 3 ? i * c : 0);
    }
    if (t[2].data)
        ref(um_ref_add, &plain, pool, (struct um_view[]){x, t[1], t[2]}, 3);
    ref(um_ref_conv2d, &fc, pool,
        (struct um_view[]){part[3], t[2].data ? x : t[1], t[3], t[4], none}, 5);
    if (t[5].data)
        ref(um_ref_conv2d, &fc, pool, (struct um_view[]){part[2], t[1], t[5], t[6], none}, 5);
    ref(um_ref_attention, &attention, pool, (struct um_view[]){x, part[0], part[1], part[2]}, 4);
    ref(um_ref_conv2d, &fc, pool,
        (struct um_view[]){part[0], x, t[7], t[8], a->residual ? t[1] : none}, 5);
    ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){t[0], part[0], none, t[9], t[10]}, 5);
    free(x.data);
    free(qkv.data);
}

static void make_tokens(struct job *job, int n, int heads, int d, bool v, bool plus, bool residual)
{
    int c = heads * d;
    job->op = UM_OP_TOKENS;
    job->reference = tokens_reference;
    job->tolerance = 5e-5;
    /* x, q and k, v and the attention's output become halves; a norm of their mean alone, which is
     * small against x, magnifies that */
    job->rounding = residual ? 3 : 5;
    job->macs = 4.0 * n * c * c + 2.0 * n * n * c;
    job->args.tokens = (struct um_tokens_args){
        .heads = heads, .scale = 1 / sqrtf((float)d), .eps = 1e-5f, .residual = residual};
    snprintf(job->what, sizeof job->what, "%d tokens, %d heads of %d%s%s%s", n, heads, d,
             v ? " v apart" : "", plus ? " plus" : "", residual ? " residual" : "");
    output(job, UM_F32, 1, n, c, gap());
    input(job, 1, n, c, gap(), 1);
    maybe(job, plus, n, c, 1);
    weights(job, v ? 2 * c : 3 * c, 1, 1, c);
    maybe_bias(job, chance(90), v ? 2 * c : 3 * c);
    if (v)
        weights(job, c, 1, 1, c);
    else
        absent(job);
    maybe_bias(job, v && chance(90), c);
    weights(job, c, 1, 1, c);
    maybe_bias(job, chance(90), c);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
}

static void random_tokens(struct job *job)
{
    static const int width[] = {32, 64, 256};
    int heads = 1 << pick(0, 3), d = width[pick(0, 2)] / heads;
    if (chance(20)) {
        heads = pick(1, 7);
        d = pick(2, 30);
    }
    bool v = chance(60);
    make_tokens(job, chance(60) ? pick(1, 12) : pick(1, 32), heads, d, v, v && chance(70),
                chance(60));
}

const struct op_case attention_cases[] = {
    {UM_OP_ATTENTION, random_attention, 60, 0xf, bench_attention},
    {UM_OP_WINDOW_ATTENTION, random_window, 40, 0x3, bench_window},
    {UM_OP_RELATIVE_ATTENTION, random_relative, 60, 0x3, bench_relative},
    {UM_OP_TOKENS, random_tokens, 160, 0x7, NULL},
    {0},
};
