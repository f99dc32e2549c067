/* SPDX-License-Identifier: Apache-2.0 */
/* From an image's bytes to a network's input. */
#include "checkop.h"

#include "nn/gain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_resize(struct job *job, int h, int w, int c, int n, bool vertical)
{
    int in = vertical ? h : w, support = in > n ? (in + n - 1) / n + 1 : 2, ksize = 2 * support + 1;
    job->op = UM_OP_RESIZE;
    job->macs = (double)(vertical ? n * w : h * n) * c * (in > n ? 2.0 * in / n : 2);
    job->args.resize = (struct um_resize_args){.vertical = vertical};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d %s", h, w, c, n,
             vertical ? "rows" : "columns");
    output(job, UM_U8, vertical ? n : h, vertical ? w : n, c, 0);
    input_u8(job, h, w, c);
    struct memory *taps = &job->m[job->n++];
    *taps = memory_new(UM_I32, 1, n, 2 + ksize, 0);
    for (int o = 0; o < n;
         o++) { /* triangle of the width Pillow uses; a few overshoot so that clipping is seen */
        int32_t *k = (int32_t *)taps->view.data + (ptrdiff_t)o * (2 + ksize);
        double ratio = (double)in / n, reach = ratio > 1 ? ratio : 1, middle = (o + 0.5) * ratio,
               sum = 0;
        int first = (int)(middle - reach + 0.5), last = (int)(middle + reach + 0.5);
        first = first < 0 ? 0 : first;
        last = last > in ? in : last;
        memset(k, 0, (size_t)(2 + ksize) * sizeof *k);
        k[0] = first;
        k[1] = last - first < ksize ? last - first : ksize;
        for (int pass = 0; pass < 2; pass++)
            for (int j = 0; j < k[1]; j++) {
                double x = fabs((first + j - middle + 0.5) / reach), v = x < 1 ? 1 - x : 0;
                if (pass == 0)
                    sum += v;
                else
                    k[2 + j] = (int32_t)lrint(v / sum * (1 << 22) * (chance(3) ? 1.3 : 1));
            }
        if (chance(3))
            k[2] = -k[2];
    }
}

static void random_resize(struct job *job)
{
    make_resize(job, pick(1, 60), pick(1, 60), chance(50) ? 1 : 3, pick(1, 90), chance(50));
}

static void bench_resize(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_resize(job, p[0], p[1], p[2], p[3], p[4]);
}

static void area_axis(struct job *job, const struct um_area *a, int ksize, int in, int out)
{
    struct um_view *taps = input(job, 1, out, 2 + ksize, 0, 1);
    um_area_taps(taps->data, a, ksize, in, out);
}

/* OpenCV's filter in all its ways: cells, whole blocks, and linear where an axis grows. */
static void random_area(struct job *job)
{
    int kind = pick(0, 3), h = pick(1, 60), w = pick(1, 60), c = chance(50) ? 1 : 3;
    int new_h = kind == 0 ? pick(1, h) : pick(1, 40), new_w = kind == 0 ? pick(1, w) : pick(1, 40);
    if (kind == 1) {
        int down = pick(1, 4), across = chance(60) ? down : pick(1, 4);
        h = new_h * down;
        w = new_w * across;
    }
    struct um_area a = um_area_of(h, w, new_h, new_w);
    job->op = UM_OP_AREA;
    job->macs = (double)new_h * new_w * c * a.kx * a.ky;
    job->args.area = a.args;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> [%d,%d]%s", h, w, c, new_h, new_w,
             a.args.linear ? " linear"
             : a.blocks    ? " blocks"
                           : "");
    output(job, UM_U8, new_h, new_w, c, 0);
    input_u8(job, h, w, c);
    area_axis(job, &a, a.kx, w, new_w);
    area_axis(job, &a, a.ky, h, new_h);
}

static void make_fir(struct job *job, int h, int w, int c, int n, bool vertical, bool last)
{
    int in = vertical ? h : w, ksize = um_spline_ksize(in, n);
    job->op = UM_OP_FIR;
    job->tolerance = last ? 0 : 1e-6;
    job->macs = (double)(vertical ? n * w : h * n) * c * ksize;
    job->args.resize = (struct um_resize_args){.vertical = vertical};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d %s%s", h, w, c, n,
             vertical ? "rows" : "columns", last ? " to bytes" : "");
    output(job, last ? UM_U8 : UM_F32, vertical ? n : h, vertical ? w : n, last ? c : 2 * c, 0);
    if (last) { /* what a first pass leaves: bytes and what lies between and round them */
        float *v = input(job, h, w, 2 * c, 0, 1)->data;
        for (int i = 0; i < h * w * c; i++) {
            v[2 * i] = 128 + 140 * v[2 * i];
            v[2 * i + 1] *= 1e-6f;
        }
    } else {
        input_u8(job, h, w, c);
    }
    if (!um_spline_taps(input(job, 1, n, 2 + 2 * ksize, 0, 1)->data, in, n))
        exit(1);
    if (!last) {
        absent(job);
        return;
    }
    float *range = input(job, 1, 1, 2, 0, 1)->data;
    range[0] = (float)pick(0, 40);
    range[1] = (float)pick(200, 255);
}

static void random_fir(struct job *job)
{
    make_fir(job, pick(1, 60), pick(1, 60), chance(50) ? 1 : 3, pick(1, 90), chance(50),
             chance(50));
}

static void random_range(struct job *job)
{
    int h = pick(1, 40), w = pick(1, 40), c = chance(50) ? 1 : 3, lo = pick(0, 255),
        span = 256 - lo;
    job->op = UM_OP_RANGE;
    job->macs = (double)h * w * c;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d]", h, w, c);
    output(job, UM_F32, 1, 1, 2, 0);
    uint8_t *x = input_u8(job, h, w, c)->data;
    for (int i = 0; i < h * w * c; i++)
        x[i] = (uint8_t)(lo + x[i] % span);
}

static void random_levels(struct job *job)
{
    job->op = UM_OP_LEVELS;
    job->macs = 256;
    output(job, UM_F32, 1, pick(1, 3), 256, 0);
    float *range = input(job, 1, 1, 2, 0, 1)->data;
    range[0] = (float)pick(0, 255);
    range[1] = range[0] + (chance(20) ? 0 : (float)pick(0, 255 - (int)range[0]));
    snprintf(job->what, sizeof job->what, "%g to %g", (double)range[0], (double)range[1]);
}

static void random_gain(struct job *job)
{
    int h = chance(10) ? pick(200, 1200) : pick(1, 60),
        w = chance(10) ? pick(250, 700) : pick(1, 90), c = chance(70) ? 1 : 3,
        darkest = chance(50) ? 0 : pick(0, 250), span = pick(0, 255 - darkest);
    bool two = chance(70);
    job->op = UM_OP_GAIN;
    job->args.gain = (struct um_gain_args){.smooth = chance(50)};
    job->preset = 1u << 2 | 1u << 3;
    job->macs = 256;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] %d to %d%s", h, w, c, darkest, darkest + span,
             job->args.gain.smooth ? ", smooth" : "");
    int rows = pick(1, 3);
    output(job, UM_F32, 1, rows, 256, gap());
    if (two) {
        output(job, UM_F32, 1, rows, 256, 0);
    } else {
        absent(job);
        job->n_out++;
    }
    uint8_t *header = output(job, UM_U8, 1, 1, UM_HEADER_BYTES, 0)->data;
    for (int i = 0; i < UM_HEADER_BYTES; i++)
        header[i] = (uint8_t)pick(0, 255);
    ((struct um_frame_header *)(void *)header)->anew = chance(30);
    ((struct um_frame_header *)(void *)header)->gain =
        chance(70) ? 0 : um_gain_times((uint32_t)pick(32 * 256, 255 * 256));
    uint32_t white = chance(30) ? 0 : (uint32_t)pick(32 * 256, 255 * 256);
    memcpy(output(job, UM_U8, 1, 1, sizeof white, 0)->data, &white, sizeof white);
    uint8_t *x = input_u8(job, h, w, c)->data;
    for (int i = 0; i < h * w * c; i++)
        x[i] = (uint8_t)(chance(99) ? darkest + pick(0, span) : pick(0, 255));
    input(job, 1, rows, 256, gap(), 2);
    if (two)
        input(job, 1, rows, 256, 0, 2);
    else
        absent(job);
}

static void make_normalize(struct job *job, int h, int w, int in_c, int size_h, int size_w, int c)
{
    job->op = UM_OP_NORMALIZE;
    job->macs = (double)size_h * size_w * c;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> [%d,%d,%d]", h, w, in_c, size_h, size_w,
             c);
    output(job, UM_F32, size_h, size_w, c, chance(70) ? 0 : 1);
    input_u8(job, h, w, in_c);
    input(job, 1, c, 256, 0, 2);
}

static void random_normalize(struct job *job)
{
    int h = pick(1, 40), w = pick(1, 40), c = chance(60) ? 3 : pick(1, 4);
    make_normalize(job, h, w, chance(50) ? 1 : c, h + (chance(50) ? 0 : pick(0, 9)),
                   w + (chance(50) ? 0 : pick(0, 9)), c);
}

static void bench_normalize(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_normalize(job, p[0], p[1], p[2], p[3], p[4], p[5]);
}

static void front_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_front_args *a = &job->args.front;
    for (int i = 0; i < 2; i++) {
        struct um_view x = t[2], y, *k = &t[3 + 3 * i]; /* table, taps across, taps down */
        for (int pass = 0; pass < 2 && t[i].data; pass++) {
            struct um_resize_args axis = {.vertical = (pass == 0) == a->vertical_first[i]};
            const struct um_view *taps = &k[axis.vertical ? 2 : 1];
            if (!taps->data)
                continue;
            y = axis.vertical ? bytes(a->new_h[i], x.w, x.c) : bytes(x.h, a->new_w[i], x.c);
            ref(um_ref_resize, &axis, pool, (struct um_view[]){y, x, *taps}, 3);
            if (x.data != t[2].data)
                free(x.data);
            x = y;
        }
        if (t[i].data)
            ref(um_ref_normalize, NULL, pool, (struct um_view[]){t[i], x, k[0]}, 3);
        if (x.data != t[2].data)
            free(x.data);
    }
}

/* Pillow's taps, some of them changed so that clipping is seen, behind `before` indices that have
 * none and in front of others. */
static void axis_taps(struct job *job, int in, int inner, int before, int out, float smooth)
{
    int ld = 2 + um_resize_ksize(in, inner, smooth);
    struct memory *m = &job->m[job->n++];
    if (in == inner && inner == out && smooth == 1)
        return;
    *m = memory_new(UM_I32, 1, out, ld, 0);
    int32_t *k = m->view.data;
    memset(k, 0, (size_t)out * (size_t)ld * sizeof *k);
    um_resize_taps(k + before * ld, in, inner, smooth);
    for (int i = 0; i < out; i++, k += ld)
        if (i >= before + inner)
            k[0] = in;
        else if (i >= before && chance(5))
            k[2] = chance(50) ? -k[2] : k[2] + k[2] / 4;
}

static void make_front(struct job *job, int h, int w, int c, int targets, const int *new_h,
                       const int *new_w, const bool *vertical_first)
{
    struct um_front_args *a = &job->args.front;
    job->op = UM_OP_FRONT;
    job->reference = front_reference;
    job->rounding = 1e-6; /* bytes are exact in between: only the output rounds */
    int n = snprintf(job->what, sizeof job->what, "[%d,%d,%d] ->", h, w, c), channels[2];
    int top[2] = {0}, left[2] = {0};
    for (int i = 0; i < 2; i++) {
        if (i >= targets) {
            absent(job);
            job->n_out++;
            continue;
        }
        bool margins = chance(30); /* made by the taps; what is left of the output has none */
        a->smooth[i] = chance(70) ? 1 : (float)pick(1, 2 * UM_SMOOTH_MAX) / 2;
        a->inner_h[i] = new_h[i];
        a->inner_w[i] = new_w[i];
        top[i] = margins ? pick(0, 30) : 0;
        left[i] = margins ? pick(0, 80) : 0;
        a->new_h[i] = new_h[i] + top[i] + (margins ? pick(0, 30) : 0);
        a->new_w[i] = new_w[i] + left[i] + (margins ? pick(0, 80) : 0);
        int size_h = a->new_h[i] + (chance(50) ? 0 : pick(0, 20)),
            size_w = a->new_w[i] + (chance(50) ? 0 : pick(0, 90));
        a->vertical_first[i] = vertical_first[i];
        channels[i] = chance(70) ? 3 : 1;
        struct um_view *v = output(job, UM_F32, size_h, size_w, channels[i], chance(70) ? 0 : 1);
        n += snprintf(job->what + n, sizeof job->what - (size_t)n, " [%d,%d of %d,%d,%d]%s",
                      a->new_h[i], a->new_w[i], size_h, size_w, v->c, vertical_first[i] ? "v" : "");
        job->macs += (double)size_h * size_w * v->c;
    }
    input_u8(job, h, w, c);
    for (int i = 0; i < 2; i++) {
        if (i >= targets) {
            job->n += 3;
            continue;
        }
        input(job, 1, channels[i], 256, 0, 2);
        axis_taps(job, w, new_w[i], left[i], a->new_w[i], a->smooth[i]);
        axis_taps(job, h, new_h[i], top[i], a->new_h[i], a->smooth[i]);
    }
}

static void random_front(struct job *job)
{
    int h = pick(1, 90), w = pick(1, 90), new_h[2], new_w[2], kind = pick(0, 9);
    bool vertical_first[2];
    for (int i = 0; i < 2; i++) {
        new_h[i] = chance(20) ? h : pick(1, 90);
        new_w[i] = chance(20) ? w : pick(1, 150);
        vertical_first[i] =
            chance(80) ? um_resize_vertical_first(h, w, new_h[i], new_w[i]) : chance(50);
    }
    if (kind == 0) { /* shrinks much: small tiles */
        h = pick(300, 900);
        w = pick(300, 900);
        new_h[0] = pick(1, 12);
        new_w[0] = pick(1, 12);
    } else if (kind == 1) { /* so much that no tile has room */
        h = vertical_first[0] ? pick(1, 3) : pick(9000, 20000);
        w = vertical_first[0] ? pick(20000, 50000) : pick(1, 3);
        new_h[0] = pick(1, 3);
        new_w[0] = pick(1, 3);
    }
    make_front(job, h, w, chance(50) ? 1 : 3, kind > 1 && chance(60) ? 2 : 1, new_h, new_w,
               vertical_first);
}

const struct op_case pixel_cases[] = {
    {UM_OP_RESIZE, random_resize, 60, 0x0, bench_resize},
    {UM_OP_AREA, random_area, 120, 0x0, NULL},
    {UM_OP_FIR, random_fir, 80, 0x0, NULL},
    {UM_OP_RANGE, random_range, 40, 0x0, NULL},
    {UM_OP_LEVELS, random_levels, 40, 0x0, NULL},
    {UM_OP_GAIN, random_gain, 60, 0x0, NULL},
    {UM_OP_NORMALIZE, random_normalize, 40, 0x1, bench_normalize},
    {UM_OP_FRONT, random_front, 200, 0x3, NULL},
    {0},
};
