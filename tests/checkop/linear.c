/* SPDX-License-Identifier: Apache-2.0 */
/* Linear layers with what stands around them, and chains of them. */
#include "checkop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_matmul_nt(struct job *job, int m, int n, int k)
{
    job->op = UM_OP_MATMUL_NT;
    job->tolerance = 1e-5 * sqrt((double)k); /* not of unit gain */
    job->macs = (double)m * n * k;
    snprintf(job->what, sizeof job->what, "%d x %d, k %d", m, n, k);
    output(job, UM_F32, 1, m, n, gap());
    input(job, 1, m, k, gap(), 1);
    input(job, 1, n, k, gap(), 1);
}

static void random_matmul_nt(struct job *job)
{
    make_matmul_nt(job, pick(1, 200), chance(50) ? pick(1, 4) : pick(1, 50), pick(1, 70));
}

static void bench_matmul_nt(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_matmul_nt(job, p[0], p[1], p[2]);
}

/* Rows through a linear layer and all that may stand around it, as primitives. */
static void linear_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_linear_args *a = &job->args.linear;
    struct um_norm_args norm = {.eps = a->eps_in};
    struct um_add_args plain = {.act = UM_ACT_NONE};
    int rows = t[1].h * t[1].w, n = a->up ? 4 * t[0].c : t[0].c;
    struct um_view x = t[1], placed, y = scratch(1, rows, n), wide = none;
    x = scratch(1, rows, t[1].c);
    if (t[8].data)
        ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[8], t[9]}, 5);
    else
        for (int r = 0; r < rows; r++)
            memcpy(at(&x, r, 0), at(&t[1], r, 0), (size_t)x.c * sizeof(float));
    placed = x;
    if (t[5].data) {
        placed = scratch(1, rows, x.c);
        ref(um_ref_add, &plain, pool, (struct um_view[]){placed, x, t[5]}, 3);
    }
    if (t[4].data) { /* one channel is broadcast */
        wide = scratch(1, rows, n);
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < n; k++)
                *at(&wide, r, k) = *at(&t[4], r, t[4].c > 1 ? k : 0);
    }
    for (int part = 0; part < (t[6].data ? 2 : 1); part++) {
        struct um_conv_args fc = {.kh = 1,
                                  .kw = 1,
                                  .stride = 1,
                                  .act = a->act,
                                  .limit = a->limit,
                                  .add_last = a->add_last};
        struct um_view out = y, add = wide;
        out.c = part ? n - a->n : a->n;
        out.data = at(&y, 0, part ? a->n : 0);
        if (add.data) {
            add.c = out.c;
            add.data = at(&wide, 0, part ? a->n : 0);
        }
        ref(um_ref_conv2d, &fc, pool,
            (struct um_view[]){out, part ? x : placed, t[part ? 6 : 2], t[part ? 7 : 3], add}, 5);
    }
    norm = (struct um_norm_args){.eps = a->eps_out, .act = a->out_act};
    for (int g = 0; t[10].data && g < n / a->group; g++) {
        struct um_view part = y;
        part.c = a->group;
        part.data = at(&y, 0, g * a->group);
        ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){part, part, none, t[10], t[11]}, 5);
    }
    int c = t[0].c, w = t[1].w;
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < n; k++) {
            int ab = k / c, up = (2 * (r / w) + ab / 2) * t[0].w + 2 * (r % w) + ab % 2;
            *at(&t[0], a->up ? up : r, a->up ? k % c : k) = *at(&y, r, k);
        }
    if (placed.data != x.data)
        free(placed.data);
    free(wide.data);
    free(x.data);
    free(y.data);
}

struct linear_kind {
    bool norm_in, norm_out, plus, second, up, broadcast;
    int add; /* 0 none, 1 before, 2 after the activation */
};

static void make_linear(struct job *job, int h, int w, int k, int n, int n2, int group,
                        struct linear_kind kind, enum um_act act)
{
    struct um_linear_args *a = &job->args.linear;
    int all = n + n2, rows = h * w;
    job->op = UM_OP_LINEAR;
    job->reference = linear_reference;
    job->tolerance = 3e-5;
    /* the input becomes halves after its norm and addend; a norm of the output magnifies that where
     * the sums of a row hardly differ */
    job->rounding = kind.norm_out ? 8 : 3;
    job->macs = (double)rows * k * all;
    *a = (struct um_linear_args){.n = n,
                                 .act = act,
                                 .out_act = kind.up ? UM_ACT_GELU : UM_ACT_NONE,
                                 .limit = 0.5f,
                                 .add_last = kind.add == 2,
                                 .up = kind.up,
                                 .eps_in = 1e-5f,
                                 .eps_out = 1e-5f,
                                 .group = kind.norm_out ? group : 0};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d + %d%s%s%s%s%s add %d%s", h, w, k, n,
             n2, act_names[act], kind.norm_in ? " norm" : "", kind.plus ? " plus" : "",
             kind.norm_out ? " then norm" : "", kind.up ? " up" : "", kind.add,
             kind.broadcast ? " broadcast" : "");
    if (kind.up)
        output(job, UM_F32, 2 * h, 2 * w, all / 4, gap());
    else
        output(job, UM_F32, h, w, all, gap());
    input(job, h, w, k, gap(), 1);
    weights(job, n, 1, 1, k);
    maybe_bias(job, chance(80), n);
    maybe(job, kind.add > 0, rows, kind.broadcast ? 1 : all, 1);
    maybe(job, kind.plus, rows, k, 1);
    if (kind.second)
        weights(job, n2, 1, 1, k);
    else
        absent(job);
    maybe_bias(job, kind.second && chance(80), n2);
    for (int i = 0; i < 2; i++)
        maybe_bias(job, kind.norm_in, k);
    for (int i = 0; i < 2; i++)
        maybe_bias(job, kind.norm_out, group);
}

static void random_linear(struct job *job)
{
    struct linear_kind kind = {.norm_in = chance(40), .plus = chance(40), .add = pick(0, 2)};
    int h = pick(1, 8), w = pick(1, 20), k = chance(70) ? 8 * pick(1, 40) : pick(3, 200);
    int n = chance(70) ? 8 * pick(1, 40) : pick(1, 200), n2 = 0;
    if (chance(15)) /* enough rows for the large tiles */
        w = pick(400, 600);
    kind.norm_out = chance(40);
    kind.up = kind.norm_out && chance(40);
    kind.second = !kind.norm_out && chance(40);
    if (kind.second)
        n2 = chance(70) ? 8 * pick(1, 20) : pick(1, 90);
    int group = n;
    if (kind.up) {
        group = chance(70) ? 8 * pick(1, 16) : pick(3, 60);
        n = 4 * group;
        kind.plus = kind.norm_in = false;
        kind.add = 0;
    } else if (kind.norm_out)
        group = n < 8 ? 0 : n;
    if (kind.norm_out && group < 3) /* a norm of one or two numbers is a sign */
        group = n = 16;
    kind.broadcast = kind.add && n + n2 > 1 && chance(30);
    make_linear(job, h, w, k, n, n2, group, kind, kind.up ? UM_ACT_NONE : (enum um_act)pick(0, 5));
}

static void indices(struct job *job, int n, int rows)
{
    struct memory *m = &job->m[job->n++];
    *m = memory_new(UM_I32, 1, n, 1, gap());
    for (int i = 0; i < n; i++)
        ((int32_t *)m->view.data)[i * m->view.ld] = pick(0, rows - 1);
}

static void chain_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_chain_args *a = &job->args.chain;
    struct um_add_args plain = {.act = UM_ACT_NONE};
    struct um_refine_args refine = {.inverse = a->inverse};
    struct um_integral_args integral = {.reg_scale = a->reg_scale};
    int rows = t[0].h * t[0].w;
    struct um_view x = scratch(1, rows, t[3].c), base = t[13], y[3];
    for (int i = 0; i < a->layers; i++)
        y[i] = scratch(1, rows, a->width[i]);
    if (t[4].data) {
        ref(um_ref_gather, NULL, pool, (struct um_view[]){x, t[3], t[4]}, 3);
        if (a->finish == UM_FINISH_REFINE) {
            base = scratch(1, rows, t[13].c);
            ref(um_ref_gather, NULL, pool, (struct um_view[]){base, t[13], t[4]}, 3);
        }
    } else {
        for (int r = 0; r < rows; r++)
            memcpy(at(&x, r, 0), at(&t[3], r, 0), (size_t)x.c * sizeof(float));
    }
    for (int r = 0; r < rows && t[2].data; r++)
        memcpy(at(&t[2], r, 0), at(&x, r, 0), (size_t)x.c * sizeof(float));
    if (t[5].data)
        ref(um_ref_add, &plain, pool, (struct um_view[]){x, x, t[5]}, 3);
    for (int i = 0; i < a->layers; i++) {
        bool last = i == a->layers - 1;
        struct um_conv_args fc = {
            .kh = 1, .kw = 1, .stride = 1, .act = a->act[i], .limit = a->limit, .add_last = true};
        ref(um_ref_conv2d, &fc, pool,
            (struct um_view[]){last && a->finish != UM_FINISH_REFINE ? t[0] : y[i],
                               i ? y[i - 1] : x, t[6 + 2 * i], t[7 + 2 * i], last ? t[12] : none},
            5);
    }
    if (a->finish == UM_FINISH_REFINE)
        ref(um_ref_refine, &refine, pool, (struct um_view[]){t[0], y[a->layers - 1], base}, 3);
    if (a->finish == UM_FINISH_BOX)
        ref(um_ref_integral, &integral, pool, (struct um_view[]){t[1], t[0], base, t[14]}, 4);
    for (int i = 0; i < a->layers; i++)
        free(y[i].data);
    if (base.data != t[13].data)
        free(base.data);
    free(x.data);
}

static void make_chain(struct job *job, int rows, int source /* rows behind an index, or 0 */,
                       int c, int layers, const int *width, const enum um_act *act,
                       enum um_finish finish, bool plus, bool add, bool picked)
{
    struct um_chain_args *a = &job->args.chain;
    int o = width[layers - 1], from = source ? source : rows;
    job->op = UM_OP_CHAIN;
    job->reference = chain_reference;
    job->tolerance = 5e-5;  /* up to three sums of unit gain */
    job->rounding = layers; /* x + plus and every hidden row become halves: one step a layer */
    *a = (struct um_chain_args){
        .layers = layers, .limit = 0.5f, .finish = finish, .inverse = chance(50), .reg_scale = 4};
    for (int i = 0; i < layers; i++) {
        a->width[i] = width[i];
        a->act[i] = act[i];
        job->macs += (double)rows * width[i] * (i ? width[i - 1] : c);
    }
    snprintf(job->what, sizeof job->what, "%d of %d rows of %d -> %d%s %d%s %d%s finish %d%s%s%s%s",
             rows, source, c, width[0], act_names[act[0]], width[1], act_names[act[1]],
             layers > 2 ? width[2] : 0, layers > 2 ? act_names[act[2]] : "", (int)finish,
             a->inverse ? " inverse" : "", plus ? " plus" : "", add ? " add" : "",
             picked ? " picked" : "");
    output(job, UM_F32, 1, rows, o, gap());
    if (finish == UM_FINISH_BOX)
        output(job, UM_F32, 1, rows, 4, gap());
    else
        absent_output(job);
    if (picked)
        output(job, UM_F32, 1, rows, c, gap());
    else
        absent_output(job);
    struct um_view *x = input(job, 1, from, c, gap(), 1);
    if (chance(10)) /* stays in its row */
        *at(x, pick(0, from - 1), pick(0, c - 1)) = NAN;
    if (source)
        indices(job, rows, source);
    else
        absent(job);
    maybe(job, plus, rows, c, 1);
    for (int i = 0; i < 3; i++) {
        if (i < layers)
            weights(job, width[i], 1, 1, i ? width[i - 1] : c);
        else
            absent(job);
        maybe_bias(job, i < layers && chance(90), i < layers ? width[i] : 0);
    }
    maybe(job, add, rows, o, 1);
    if (finish == UM_FINISH_NONE) {
        absent(job);
        absent(job);
        return;
    }
    struct um_view *base = finish == UM_FINISH_BOX ? input(job, 1, rows, 4, gap(), 1)
                                                   : input(job, 1, from, o, gap(), 1.1f);
    if (finish == UM_FINISH_REFINE)
        *at(base, pick(0, from - 1), pick(0, o - 1)) = INFINITY;
    if (finish == UM_FINISH_BOX)
        input(job, 1, o / 4, 1, 0, 2);
    else
        absent(job);
}

static void random_chain(struct job *job)
{
    static const int known[] = {4, 20, 64, 128, 256};
    int layers = pick(2, 3), width[3];
    enum um_act act[3];
    enum um_finish finish = (enum um_finish)pick(0, 2);
    for (int i = 0; i < 3; i++) {
        width[i] = chance(10) ? pick(300, 512) : chance(30) ? known[pick(0, 4)] : pick(4, 200);
        act[i] = (enum um_act)pick(0, 5);
    }
    if (finish == UM_FINISH_REFINE)
        width[layers - 1] = chance(80) ? 4 : pick(1, 40);
    if (finish == UM_FINISH_BOX)
        width[layers - 1] = 4 * (chance(70) ? 33 : pick(4, 70));
    if (finish != UM_FINISH_NONE)
        act[layers - 1] = UM_ACT_NONE;
    make_chain(job, pick(1, 70), chance(40) ? pick(1, 90) : 0,
               chance(40) ? known[pick(0, 4)] : pick(1, 300), layers, width, act, finish,
               chance(40), chance(50), chance(40));
}

const struct op_case linear_cases[] = {
    {UM_OP_MATMUL_NT, random_matmul_nt, 30, 0x6, bench_matmul_nt},
    {UM_OP_LINEAR, random_linear, 240, 0x33, NULL},
    {UM_OP_CHAIN, random_chain, 160, 0x102d, NULL}, /* out, picked, x, plus, add */
    {0},
};
