/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of SAM: prompt, mask, statistics, packet. */
#include "checkop.h"
#include "nn/clean.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_prompt(struct job *job, int c, int points, bool box)
{
    struct um_prompt_args *a = &job->args.prompt;
    static const enum um_fit fits[] = {UM_FIT_LONGEST, UM_FIT_RATIO, UM_FIT_STRETCH};
    *a = (struct um_prompt_args){
        .canvas = pick(16, 1024), .fit = fits[pick(0, 2)], .points = points, .box = box};
    job->op = UM_OP_PROMPT;
    job->tolerance = 1e-6; /* sinf, cosf */
    job->rounding = 1e-6;
    job->macs = 5.0 * c * (points + 2);
    snprintf(job->what, sizeof job->what, "%d channels, %d points%s, canvas %d, fit %d", c, points,
             box ? ", box" : "", a->canvas, (int)a->fit);
    output(job, UM_F32, 1, 5 + points + (box ? 2 : points ? 1 : 0), c, gap());
    struct um_prompt p = {.has_box = box, .n_points = (uint32_t)points};
    p.width = chance(90) ? (uint32_t)pick(1, 2000) : 0;
    p.height = chance(90) ? (uint32_t)pick(1, 2000) : 0;
    for (int i = 0; i < 4; i++)
        p.box[i] = (0.5f + uniform()) * (float)(i % 2 ? p.height : p.width);
    for (int i = 0; i < UM_POINTS_MAX; i++) {
        p.xy[2 * i] = (0.5f + uniform()) * (float)p.width;
        p.xy[2 * i + 1] = (0.5f + uniform()) * (float)p.height;
        p.label[i] = pick(-1, 2);
    }
    memcpy(input_u8(job, 1, 1, sizeof p)->data, &p, sizeof p);
    input(job, 1, 10, c, 0, 1);
    input(job, 1, 2, c / 2, 0, 2);
}

static void random_prompt(struct job *job)
{
    bool box = chance(60);
    make_prompt(job, chance(50) ? 256 : 2 * pick(1, 150), pick(0, chance(20) ? 0 : UM_POINTS_MAX),
                box);
}

static void make_mask(struct job *job, int n4, int used_h, int used_w, int h, int w, bool logits)
{
    job->op = UM_OP_MASK; /* equal logits must give equal masks on every level: bit for bit */
    job->macs = 12.0 * h * w;
    snprintf(job->what, sizeof job->what, "%d -> [%d,%d]%s", n4, h, w,
             logits ? " with logits" : "");
    output(job, UM_U8, h, w, 1, 0);
    if (logits) {
        output(job, UM_F32, h, w, 1, 0);
    } else {
        absent(job);
        job->n_out++;
    }
    struct um_view *low = input(job, n4, n4, 1, chance(50) ? 0 : 3, 2);
    for (int i = 0; i < n4 * n4 && chance(99); i++) /* exact zeros: not part of the mask */
        *at(low, i, 0) = roundf(*at(low, i, 0) * 0.6f);
    um_mask_taps(input(job, 1, w, 4, 0, 1)->data, n4, 4 * n4, used_w, w);
    um_mask_taps(input(job, 1, h, 4, 0, 1)->data, n4, 4 * n4, used_h, h);
    if (chance(70)) {
        struct um_view *gate = input_u8(job, 1, 1, UM_GATE_BYTES);
        uint32_t flags = chance(80) ? UM_GATE_OK : UM_GATE_BELOW_TAU;
        memcpy(gate->data, &flags, sizeof flags);
    } else {
        absent(job);
    }
}

static void random_mask(struct job *job)
{
    int n4 = pick(3, 20);
    make_mask(job, n4, pick(1, 4 * n4), 4 * n4, pick(1, 90), pick(1, 90), chance(50));
}

static void bench_mask(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_mask(job, p[0], p[1], p[2], p[3], p[4], false);
}

static void make_mask_stats(struct job *job, int h, int w, int density)
{
    job->op = UM_OP_MASK_STATS;
    job->macs = (double)h * w;
    snprintf(job->what, sizeof job->what, "[%d,%d] %d %%", h, w, density);
    output(job, UM_U8, 3 * h, w, 1, 0);
    output(job, UM_U8, 1, 1, UM_RECORD_BYTES, 0);
    struct um_view *m = input_u8(job, h, w, 1);
    for (int i = 0; i < h * w; i++)
        ((uint8_t *)m->data)[i] = chance(density);
}

static void random_mask_stats(struct job *job)
{
    static const int density[] = {0, 2, 50, 97, 100};
    make_mask_stats(job, pick(1, 50), pick(1, 90), density[pick(0, 4)]);
}

static void bench_mask_stats(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_mask_stats(job, p[0], p[1], p[2]);
}

static void make_packet(struct job *job, int h, int w)
{
    job->op = UM_OP_PACKET;
    job->macs = (double)h * w;
    snprintf(job->what, sizeof job->what, "[%d,%d]", h, w);
    output(job, UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), 0);
    input_u8(job, 1, 1, UM_RECORD_BYTES);
    struct um_view *m = input_u8(job, h, w, 1);
    for (int i = 0; i < h * w; i++)
        ((uint8_t *)m->data)[i] &= 1;
    struct um_view *gate = input_u8(job, 1, 1, UM_GATE_BYTES);
    uint32_t flags = chance(80) ? UM_GATE_OK : UM_GATE_OUTSIDE;
    memcpy(gate->data, &flags, sizeof flags);
    input(job, 1, 1, 4, 0, 1);
    struct um_view *low = input(job, 8, 8, 1, 0, 1);
    *at(low, 3, 0) = chance(50) ? NAN : INFINITY;
    input_u8(job, 1, 1, UM_HEADER_BYTES);
}

static void random_packet(struct job *job)
{
    make_packet(job, pick(1, 40), pick(1, 90));
}

static void bench_packet(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_packet(job, p[0], p[1]);
}

static void mask_packet_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    int h = t[4].w, w = t[3].w;
    struct um_view mask = bytes(h, w, 1), weights = bytes(3 * h, w, 1),
                   record = bytes(1, 1, UM_RECORD_BYTES);
    (void)job;
    ref(um_ref_mask, NULL, pool, (struct um_view[]){mask, none, t[2], t[3], t[4], t[5]}, 6);
    ref(um_ref_mask_stats, NULL, pool, (struct um_view[]){weights, record, mask}, 3);
    ref(um_ref_packet, NULL, pool, (struct um_view[]){t[0], record, mask, t[5], t[6], t[2], t[7]},
        7);
    free(mask.data);
    free(weights.data);
    free(record.data);
}

static void make_mask_packet(struct job *job, int n4, int used_h, int used_w, int h, int w,
                             float bias)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    job->op = UM_OP_MASK_PACKET;
    job->reference = mask_packet_reference;
    job->macs = 12.0 * h * w;
    output(job, UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), 0);
    memset(output(job, UM_U8, 1, 1, UM_MASK_WORK_BYTES, 0)->data, 0, UM_MASK_WORK_BYTES);
    job->preset = 1u << 1;
    struct um_view *low = input(job, n4, n4, 1, chance(50) ? 0 : 3, 2);
    for (int i = 0; i < n4 * n4; i++)
        *at(low, i, 0) = chance(1) ? odd[pick(0, 2)] : chance(30) ? 0 : *at(low, i, 0) + bias;
    um_mask_taps(input(job, 1, w, 4, 0, 1)->data, n4, 4 * n4, used_w, w);
    um_mask_taps(input(job, 1, h, 4, 0, 1)->data, n4, 4 * n4, used_h, h);
    uint32_t flags = chance(80) ? UM_GATE_OK : chance(50) ? UM_GATE_BELOW_TAU : 0;
    bool gate = chance(80);
    if (gate)
        memcpy(input_u8(job, 1, 1, UM_GATE_BYTES)->data, &flags, sizeof flags);
    else
        absent(job);
    if (chance(80))
        input(job, 1, 1, 4, 0, 1);
    else
        absent(job);
    input_u8(job, 1, 1, UM_HEADER_BYTES);
    snprintf(job->what, sizeof job->what, "%d -> [%d,%d] bias %g%s%s", n4, h, w, (double)bias,
             gate ? " gate" : "", gate && flags != UM_GATE_OK ? " lost" : "");
}

static void random_mask_packet(struct job *job)
{
    static const float bias[] = {-5, -1.5f, 0, 0, 1.5f, 5};
    int n4 = chance(80) ? pick(3, 20) : pick(30, 60), h = chance(20) ? pick(1, 5) : pick(1, 60),
        w = chance(20) ? 32 * pick(1, 4) : pick(1, 100);
    if (chance(10))
        w = pick(500, 1500);
    if (chance(4)) { /* fewer rows per block fit into shared memory */
        h = pick(1, 6);
        w = pick(32000, 70000);
    }
    make_mask_packet(job, n4, pick(1, 4 * n4), pick(1, 4 * n4), h, w, bias[pick(0, 5)]);
}

/* Rectangles, specks and holes, or noise. */
static void draw_pieces(uint8_t *mask, int h, int w)
{
    int density = chance(40) ? pick(0, 100) : 0, noise = chance(50) ? pick(1, 10) : 0;
    for (int i = 0; i < h * w; i++)
        mask[i] = chance(density);
    for (int n = density ? 0 : pick(0, 6); n > 0; n--) {
        int x0 = pick(0, w - 1), y0 = pick(0, h - 1), x1 = pick(x0, w), y1 = pick(y0, h);
        bool set = chance(70);
        for (int y = y0; y < y1; y++)
            for (int x = x0; x < x1; x++)
                mask[y * w + x] = set;
    }
    for (int i = 0; i < h * w; i++)
        mask[i] ^= chance(noise);
}

/* The packet of a mask, as the steps before would leave it. */
static void make_clean(struct job *job, const uint8_t *m, int h, int w, const struct um_gate *gate)
{
    struct um_view mask = bytes(h, w, 1), weights = bytes(3 * h, w, 1),
                   record = bytes(1, 1, UM_RECORD_BYTES), of_gate = bytes(1, 1, UM_GATE_BYTES),
                   header = bytes(1, 1, UM_HEADER_BYTES);
    um_pool *pool = NULL;
    if (um_pool_open(&pool, 1) != UM_OK)
        need(NULL);
    job->op = UM_OP_CLEAN;
    job->args.clean = (struct um_clean_args){.h = h, .w = w};
    job->preset = 3;
    job->macs = (double)h * w;
    snprintf(job->what, sizeof job->what, "[%d,%d]%s", h, w, gate->flags ? " box" : "");
    struct um_view *packet =
        output(job, UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), 0);
    memcpy(mask.data, m, (size_t)h * (size_t)w);
    memcpy(of_gate.data, gate, sizeof *gate);
    ref(um_ref_mask_stats, NULL, pool, (struct um_view[]){weights, record, mask}, 3);
    ref(um_ref_packet, NULL, pool,
        (struct um_view[]){*packet, record, mask, of_gate, none, none, header}, 7);
    uint8_t *work = output(job, UM_U8, 1, 1, (int)um_clean_bytes(h, w), 0)->data;
    for (size_t i = 0; i < um_clean_bytes(h, w); i++)
        work[i] = (uint8_t)pick(0, 255);
    if (gate->flags)
        memcpy(input_u8(job, 1, 1, UM_GATE_BYTES)->data, gate, sizeof *gate);
    else
        absent(job);
    um_pool_close(&pool);
    free(mask.data);
    free(weights.data);
    free(record.data);
    free(of_gate.data);
    free(header.data);
}

static void random_clean(struct job *job)
{
    int h = chance(20) ? pick(1, 5) : pick(1, 70), w = chance(20)   ? 32 * pick(1, 4)
                                                       : chance(10) ? pick(500, 1500)
                                                                    : pick(1, 110);
    if (chance(4)) { /* fewer rows at a time fit into shared memory */
        h = pick(1, 6);
        w = pick(32000, 70000);
    }
    uint8_t *mask = need(malloc((size_t)h * (size_t)w));
    struct um_gate gate = {.flags = chance(80) ? UM_GATE_OK : 0};
    draw_pieces(mask, h, w);
    for (int i = 0; i < 4; i++)
        gate.box[i] = (float)(i % 2 ? h : w) * (i < 2 ? 0.5f * uniform() : 0.7f + uniform());
    make_clean(job, mask, h, w, &gate);
    free(mask);
}

/* A structure over half of the image, with specks around and holes in it. */
static void bench_clean(struct job *job, const struct bench *b)
{
    int h = b->p[0], w = b->p[1];
    uint8_t *mask = need(malloc((size_t)h * (size_t)w));
    struct um_gate gate = {.flags = UM_GATE_OK, .box = {0, 0, (float)w, (float)h}};
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            bool in = hypot((2. * x - w) / w, (2. * y - h) / h) < .8;
            mask[y * w + x] = in ^ (x / 8 % 16 == 0 && y / 8 % 16 == 0);
        }
    make_clean(job, mask, h, w, &gate);
    free(mask);
}

/* Whatever came before: nothing, or an image of this size or another. */
static struct um_beyond state(int side)
{
    struct um_beyond b = {.used = pick(0, side), .columns = chance(50), .seen = chance(80)};
    for (int i = 0; i < UM_REACH_STEPS; i++) {
        b.reach[i] = pick(0, side);
        b.compute[i][0] = !b.columns && chance(50) ? b.reach[i] : side;
        b.compute[i][1] = b.columns && chance(50) ? b.reach[i] : side;
    }
    return b;
}

static void random_reach(struct job *job)
{
    int side = pick(1, 40), c = pick(1, 3), h = chance(50) ? side : pick(0, side),
        w = h < side ? side : pick(0, side);
    struct um_reach_args *a = &job->args.reach;
    job->op = UM_OP_REACH;
    job->preset = 1;
    a->n = pick(1, UM_REACH_STEPS);
    for (int i = 0, at = side; i < a->n; i++) {
        struct um_reach *s = &a->step[i];
        *s = (struct um_reach){.kernel = chance(30) ? 1 : 3, .stride = 1};
        if (chance(20))
            s->window = pick(2, 14);
        else if (chance(30) && at > 1)
            s->stride = 2;
        s->side = at = (at - 1) / s->stride + 1;
    }
    struct um_beyond b = state(side);
    if (chance(50))
        b.used = h < side ? h : w;
    memcpy(output(job, UM_U8, 1, 1, (int)sizeof b, 0)->data, &b, sizeof b);
    struct um_view *x = input(job, side, side, c, 0, 1);
    for (int i = 0; i < side * side; i++)
        if (i / side >= h || i % side >= w)
            memset((float *)x->data + (ptrdiff_t)i * c, 0, (size_t)c * sizeof(float));
    snprintf(job->what, sizeof job->what, "[%d,%d] of %d, %d steps", h, w, side, a->n);
}

static void random_beyond(struct job *job)
{
    int side = pick(1, 30), c = pick(1, 20), n = pick(1, side), step = pick(0, UM_REACH_STEPS - 1);
    struct um_beyond b = state(side);
    job->op = UM_OP_BEYOND;
    job->args.beyond = (struct um_beyond_args){.step = step, .n = n};
    job->preset = 3;
    struct um_view *x = output(job, UM_F32, side, side, c, 0);
    for (int i = 0; i < side * side * c; i++)
        ((float *)x->data)[i] = uniform();
    struct um_view *kept = output(job, UM_F32, 1, 1, n * side * c, 0);
    for (int i = 0; i < n * side * c; i++)
        ((float *)kept->data)[i] = uniform();
    memcpy(input_u8(job, 1, 1, (int)sizeof b)->data, &b, sizeof b);
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] from %d on, %d%s", side, side, c,
             b.reach[step], n, b.columns ? " columns" : "");
}

const struct op_case sam_cases[] = {
    {UM_OP_PROMPT, random_prompt, 60, 0x1, NULL},
    {UM_OP_MASK, random_mask, 40, 0x0, bench_mask},
    {UM_OP_MASK_STATS, random_mask_stats, 40, 0x0, bench_mask_stats},
    {UM_OP_PACKET, random_packet, 30, 0x10, bench_packet},
    {UM_OP_MASK_PACKET, random_mask_packet, 120, 0x40, NULL}, /* iou */
    {UM_OP_CLEAN, random_clean, 150, 0x0, bench_clean},
    {UM_OP_REACH, random_reach, 60, 0x0, NULL},
    {UM_OP_BEYOND, random_beyond, 60, 0x0, NULL},
    {0},
};
