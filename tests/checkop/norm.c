/* SPDX-License-Identifier: Apache-2.0 */
/* What works on each row or element: norms, sums, gates. */
#include "checkop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void make_layer_norm(struct job *job, int h, int w, int c, bool add, enum um_act act,
                            float offset)
{
    job->op = UM_OP_LAYER_NORM;
    job->tolerance =
        1e-5 + 5e-6 * (double)offset; /* the reference adds 400 numbers near offset one by one */
    job->macs = (double)h * w * c;
    job->args.norm = (struct um_norm_args){.eps = chance(50) ? 1e-5f : 1e-6f, .act = act};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d]%s%s offset %g", h, w, c, add ? " add" : "",
             act_names[act], (double)offset);
    output(job, UM_F32, h, w, c, gap());
    struct um_view *x = input(job, h, w, c, gap(), 1);
    for (int r = 0; r < h * w; r++)
        for (int i = 0; i < c; i++)
            *at(x, r, i) += offset;
    if (add)
        input(job, h, w, c, gap(), 1);
    else
        absent(job);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
}

static void random_layer_norm(struct job *job)
{
    static const int widths[] = {2, 4, 16, 64, 128, 160, 256, 320, 384, 768, 1280};
    int c = chance(50) ? widths[pick(0, 10)] : pick(2, 400);
    make_layer_norm(job, pick(1, 9), pick(1, 50), c, chance(40), (enum um_act)pick(0, 4),
                    chance(20) && c <= 400 ? 100 : 0);
}

static void bench_layer_norm(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_layer_norm(job, p[0], p[1], p[2], false, b->act, 0);
}

static void make_gate_norm(struct job *job, int rows, int c)
{
    job->op = UM_OP_GATE_NORM;
    job->tolerance = 1e-5;
    job->macs = (double)rows * c;
    job->args.norm = (struct um_norm_args){.eps = 1e-5f};
    snprintf(job->what, sizeof job->what, "%d rows of %d", rows, c);
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, 2 * c, gap(), 1);
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
}

static void random_gate_norm(struct job *job)
{
    make_gate_norm(job, pick(1, 300), pick(3, 260));
}

static void bench_gate_norm(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_gate_norm(job, p[0], p[1]);
}

static void gate_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    struct um_conv_args fc = {.kh = 1, .kw = 1, .stride = 1};
    int rows = t[0].w, c = t[0].c;
    struct um_view g = scratch(1, rows, 2 * c);
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){g, t[1], t[3], t[4], none}, 5);
    fc.act = UM_ACT_SIGMOID;
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){g, t[2], t[5], none, g}, 5);
    ref(um_ref_gate_norm, &job->args, pool, (struct um_view[]){t[0], g, t[1], t[2], t[6], t[7]}, 6);
    free(g.data);
}

static void random_gate(struct job *job)
{
    int rows = pick(1, 70), c = 8 * pick(1, 64);
    job->op = UM_OP_GATE;
    job->reference = gate_reference;
    job->tolerance = 3e-5;
    job->rounding = 6; /* both inputs of the product become halves, and the norm magnifies */
    job->args.norm = (struct um_norm_args){.eps = 1e-5f};
    snprintf(job->what, sizeof job->what, "%d rows of %d", rows, c);
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, rows, c, gap(), 1);
    weights(job, 2 * c, 1, 1, c);
    maybe_bias(job, true, 2 * c);
    weights(job, 2 * c, 1, 1, c);
    maybe_bias(job, true, c);
    maybe_bias(job, true, c);
}

static void make_add(struct job *job, int h, int w, int c, int mode /* 0 full 1 row 2 channel */,
                     enum um_act act, int space)
{
    job->op = UM_OP_ADD;
    job->tolerance = act == UM_ACT_NONE || act == UM_ACT_RELU || act == UM_ACT_CLAMP
                         ? 0
                         : 1e-6; /* math.h against libm */
    job->macs = (double)h * w * c;
    job->args.add = (struct um_add_args){.act = act, .limit = 0.5f};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] mode %d%s", h, w, c, mode, act_names[act]);
    output(job, UM_F32, h, w, c, space);
    struct um_view *a = input(job, h, w, c, space, 4);
    if (mode == 1)
        input(job, 1, 1, c, 0, 1);
    else
        input(job, h, w, mode == 2 ? 1 : c, space ? gap() : 0, 1);
    if (chance(30))
        *at(a, pick(0, h * w - 1), pick(0, c - 1)) = NAN;
}

static void random_add(struct job *job)
{
    make_add(job, pick(1, 30), pick(1, 30), pick(1, 130), pick(0, 2), (enum um_act)pick(0, 5),
             gap());
}

static void bench_add(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_add(job, p[0], p[1], p[2], p[3], b->act, 0);
}

static void make_scale_rows(struct job *job, int rows, int c)
{
    job->op = UM_OP_SCALE_ROWS;
    job->macs = (double)rows * c;
    snprintf(job->what, sizeof job->what, "%d rows of %d", rows, c);
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, rows, 1, 0, 1);
}

static void random_scale_rows(struct job *job)
{
    make_scale_rows(job, pick(1, 300), pick(1, 200));
}

const struct op_case norm_cases[] = {
    {UM_OP_LAYER_NORM, random_layer_norm, 60, 0x7, bench_layer_norm},
    {UM_OP_GATE_NORM, random_gate_norm, 30, 0xf, bench_gate_norm},
    {UM_OP_GATE, random_gate, 60, 0x7, NULL},
    {UM_OP_ADD, random_add, 40, 0x7, bench_add},
    {UM_OP_SCALE_ROWS, random_scale_rows, 20, 0x3, NULL},
    {0},
};
