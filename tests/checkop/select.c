/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of D-FINE: selection, sampling, boxes. */
#include "checkop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void make_gather(struct job *job, int rows, int n, int c)
{
    job->op = UM_OP_GATHER;
    job->macs = (double)n * c;
    snprintf(job->what, sizeof job->what, "%d of %d rows of %d", n, rows, c);
    output(job, UM_F32, 1, n, c, gap());
    input(job, 1, rows, c, gap(), 1);
    struct memory *idx = &job->m[job->n++];
    *idx = memory_new(UM_I32, 1, n, 1, 0);
    for (int i = 0; i < n; i++)
        ((int32_t *)idx->view.data)[i] = pick(0, rows - 1);
}

static void random_gather(struct job *job)
{
    make_gather(job, pick(1, 300), pick(1, 300), pick(1, 200));
}

static void make_topk(struct job *job, int rows, int c, int k)
{
    job->op = UM_OP_TOPK;
    job->macs = (double)rows * c;
    snprintf(job->what, sizeof job->what, "%d of [%d,%d]", k, rows, c);
    output(job, UM_I32, 1, k, 1, 0);
    struct um_view *s = input(job, 1, rows, c, gap(), 1);
    for (int r = 0; r < rows; r++) /* coarse, so that ties are common; some NaN */
        for (int i = 0; i < c; i++)
            *at(s, r, i) = chance(1) ? NAN : roundf(*at(s, r, i) * 64);
}

static void random_topk(struct job *job)
{
    int rows = chance(90) ? pick(1, 500) : chance(80) ? pick(500, 9000) : pick(20000, 40000);
    int c = rows > 500 ? pick(1, 3) : chance(40) ? 1 : chance(80) ? pick(1, 90) : pick(90, 400);
    make_topk(job, rows, c,
              chance(10) ? (rows < 512 ? rows : 512) : pick(1, rows < 300 ? rows : 300));
    if (chance(10)) /* all equal, but for the sign of zeros */
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < c; i++)
                *at(&job->m[1].view, r, i) = chance(50) ? 0.0f : -0.0f;
}

static void bench_topk(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_topk(job, p[0], p[1], p[2]);
}

static void make_deform(struct job *job, int queries, int heads, int d, int levels, const int *size,
                        const int *points)
{
    struct um_deform_args *a = &job->args.deform;
    int tokens = 0, p = 0;
    *a = (struct um_deform_args){.heads = heads, .levels = levels};
    for (int l = 0; l < levels; l++) {
        a->h[l] = size[l];
        a->w[l] = size[l] + (chance(30) ? 3 : 0);
        a->points[l] = points[l];
        tokens += a->h[l] * a->w[l];
        p += points[l];
    }
    job->op = UM_OP_DEFORM;
    job->tolerance =
        1e-4; /* a coordinate of 80 pixels has 8e-6 of rounding, a map of noise a slope of 2 */
    job->macs = 4.0 * queries * heads * d * p;
    snprintf(job->what, sizeof job->what, "%d queries, %d heads of %d, %d levels, %d points",
             queries, heads, d, levels, p);
    output(job, UM_F32, 1, queries, heads * d, gap());
    input(job, 1, queries, heads * p * 3, gap(), 4);
    struct um_view *box = input(job, 1, queries, 4, gap(), 0.5f);
    for (int q = 0; q < queries; q++)
        for (int i = 0; i < 4; i++)
            *at(box, q, i) += 0.5f;
    if (chance(30))
        *at(&job->m[1].view, pick(0, queries - 1), 0) = chance(50) ? NAN : 1e30f;
    input(job, 1, tokens, heads * d, gap(), 1);
}

static void random_deform(struct job *job)
{
    int size[UM_LEVELS_MAX], points[UM_LEVELS_MAX], levels = pick(1, UM_LEVELS_MAX),
                                                    most = chance(80) ? 6 : 64 / levels;
    for (int l = 0; l < levels; l++) {
        size[l] = pick(1, 20);
        points[l] = pick(1, most);
    }
    make_deform(job, pick(1, 60), pick(1, 8),
                chance(40)   ? 16 * pick(1, 2)
                : chance(50) ? 8 * pick(1, 9)
                             : pick(1, 40),
                levels, size, points);
}

static void bench_deform(struct job *job, const struct bench *b)
{
    static const int sizes[] = {80, 40, 20}, points[] = {3, 6, 3}, two[] = {6, 6};
    const int *p = b->p;
    make_deform(job, p[0], p[1], p[2], p[3], sizes + 3 - p[3], p[3] == 2 ? two : points);
}

static void make_refine(struct job *job, int rows, int c, bool inverse)
{
    job->op = UM_OP_REFINE;
    job->tolerance = 1e-6;
    job->macs = (double)rows * c;
    job->args.refine = (struct um_refine_args){.inverse = inverse};
    snprintf(job->what, sizeof job->what, "%d rows of %d%s", rows, c, inverse ? " inverse" : "");
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, c, gap(), 3);
    struct um_view *base = input(job, 1, rows, c, gap(), inverse ? 1.1f : 3);
    *at(base, 0, 0) = INFINITY;
}

static void random_refine(struct job *job)
{
    make_refine(job, pick(1, 300), pick(1, 5), chance(50));
}

static void bench_refine(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_refine(job, p[0], p[1], p[2]);
}

static void make_integral(struct job *job, int rows, int bins)
{
    job->op = UM_OP_INTEGRAL;
    job->tolerance = 1e-5; /* softmax mean of 33 bins, then about ten operations */
    job->macs = 4.0 * rows * bins;
    job->args.integral = (struct um_integral_args){.reg_scale = 4};
    snprintf(job->what, sizeof job->what, "%d rows of 4 x %d", rows, bins);
    output(job, UM_F32, 1, rows, 4, gap());
    input(job, 1, rows, 4 * bins, gap(), 4);
    input(job, 1, rows, 4, gap(), 1);
    input(job, 1, bins, 1, 0, 2);
}

static void random_integral(struct job *job)
{
    make_integral(job, pick(1, 100), chance(50) ? 33 : pick(4, 40));
}

static void bench_integral(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_integral(job, p[0], p[1]);
}

static void make_lqe_stats(struct job *job, int rows, int bins)
{
    job->op = UM_OP_LQE_STATS;
    job->tolerance = 1e-6;
    job->macs = 4.0 * rows * bins;
    snprintf(job->what, sizeof job->what, "%d rows of 4 x %d", rows, bins);
    output(job, UM_F32, 1, rows, 20, gap());
    input(job, 1, rows, 4 * bins, gap(), 4);
}

static void random_lqe_stats(struct job *job)
{
    make_lqe_stats(job, pick(1, 100), chance(50) ? 33 : pick(4, 40));
}

static void bench_lqe_stats(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_lqe_stats(job, p[0], p[1]);
}

/* The records bit for bit. */
static void make_best_box(struct job *job, int rows, int c)
{
    struct um_frame_header header = {.frame_id = 7,
                                     .width = (uint32_t)pick(1, 2000),
                                     .height = (uint32_t)pick(1, 2000),
                                     .tau_conf = chance(90) ? 0.5f + 0.5f * uniform() : NAN,
                                     .label = chance(60) ? -1 : pick(0, c), /* c: no such class */
                                     .objects = (uint32_t)(chance(50) ? 1 : pick(0, UM_BOXES_MAX)),
                                     .per_class = chance(30),
                                     .nms = chance(50) ? 0 : uniform(),
                                     .presence = (uint32_t)pick(0, UM_BOXES_MAX),
                                     .presence_half = 0.01f + 0.98f * uniform()};
    int n = chance(40) ? 1 : pick(1, UM_BOXES_MAX);
    for (int i = 0; i < 2 && chance(30); i++) { /* a letterbox */
        header.box_scale[i] = 1 + uniform() * uniform();
        header.box_shift[i] = -0.5f * uniform() * uniform();
    }
    job->op = UM_OP_BEST_BOX;
    job->macs = (double)rows * c;
    snprintf(job->what, sizeof job->what, "%d of %d rows of %d, class %d", n, rows, c,
             (int)header.label);
    output(job, UM_U8, 1, n, UM_GATE_BYTES, 0);
    output(job, UM_U8, 1, n, (int)sizeof(struct um_prompt), 0);
    struct um_view *logits = input(job, 1, rows, c, gap(), 6);
    bool coarse = chance(60), dead = chance(10), bad = chance(20);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < c; i++) { /* ties, both zeros among them; nothing to choose from */
            float *v = at(logits, r, i);
            *v = dead               ? (chance(50) ? NAN : -INFINITY)
                 : bad && chance(1) ? NAN
                 : chance(3)        ? -INFINITY
                 : coarse           ? (*v < -4  ? -1.0f
                                       : *v < 0 ? -0.0f
                                                : 0.0f)
                                    : *v;
        }
    if (chance(10))
        *at(logits, pick(0, rows - 1), pick(0, c - 1)) = INFINITY;
    struct um_view *boxes = input(job, 1, rows, 4, gap(), 0.5f);
    for (int r = 0; r < rows; r++) {
        static const float odd[] = {NAN, INFINITY, -INFINITY, -0.4f, 3, -2, 1e38f, 0};
        for (int i = 0; i < 4; i++)
            *at(boxes, r, i) += 0.5f;
        if (chance(30))
            *at(boxes, r, pick(0, 3)) = odd[pick(0, 7)];
    }
    memcpy(input_u8(job, 1, 1, UM_HEADER_BYTES)->data, &header, sizeof header);
}

static void random_best_box(struct job *job)
{
    make_best_box(job, pick(1, 300), chance(30) ? 1 : pick(1, 90));
}

const struct op_case select_cases[] = {
    {UM_OP_GATHER, random_gather, 20, 0x3, NULL},
    {UM_OP_TOPK, random_topk, 60, 0x0, bench_topk},
    {UM_OP_DEFORM, random_deform, 40, 0x9, bench_deform},
    {UM_OP_REFINE, random_refine, 20, 0x0, bench_refine},
    {UM_OP_INTEGRAL, random_integral, 30, 0x0, bench_integral},
    {UM_OP_LQE_STATS, random_lqe_stats, 30, 0x0, bench_lqe_stats},
    {UM_OP_BEST_BOX, random_best_box, 80, 0xc, NULL},
    {0},
};
