/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions and pooling. */
#include "checkop.h"

#include <math.h>
#include <stdio.h>

static void conv_epilogue(struct job *job, int oh, int ow, int o, enum um_act act,
                          int residual /* 0 none 1 add 2 last 3 up2 */)
{
    struct um_conv_args *a = &job->args.conv;
    a->act = act;
    a->limit = 0.5f;
    a->add_last = residual == 2;
    a->add_up2 = residual == 3;
    if (residual == 3)
        input(job, oh / 2, ow / 2, o, gap(), 1);
    else if (residual)
        input(job, oh, ow, o, gap(), 1);
    else
        absent(job);
}

static void make_conv(struct job *job, int h, int w, int i, int o, int k, int stride, int pad,
                      enum um_act act, int residual, bool lab, bool bias)
{
    int oh = (h + 2 * pad - k) / stride + 1, ow = (w + 2 * pad - k) / stride + 1;
    if (k == 2 &&
        stride == 1) { /* D-FINE's stem: one zero column on the right, one zero row below */
        oh = h;
        ow = w;
    }
    job->op = UM_OP_CONV2D;
    job->tolerance = 1e-5; /* sums of unit gain over up to 3000 products, in another order */
    job->macs = (double)oh * ow * o * i * k * k;
    job->args.conv =
        (struct um_conv_args){.kh = k, .kw = k, .stride = stride, .pad_top = pad, .pad_left = pad};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> [%d,%d,%d] k%d s%d p%d%s residual %d%s", h,
             w, i, oh, ow, o, k, stride, pad, act_names[act], residual, lab ? " lab" : "");
    output(job, UM_F32, oh, ow, o, gap());
    input(job, h, w, i, gap(), 1);
    weights(job, o, k, k, i);
    if (bias)
        input(job, 1, 1, o, 0, 0.5f);
    else
        absent(job);
    if (residual == 3 && (oh % 2 || ow % 2))
        residual = 1;
    conv_epilogue(job, oh, ow, o, act, residual);
    if (lab) {
        job->args.conv.lab_scale = 0.7f;
        job->args.conv.lab_shift = -0.2f;
    }
}

static void random_conv(struct job *job)
{
    int k = chance(50) ? 1 : pick(2, 3), stride = k == 3 && chance(40) ? 2 : 1, h = pick(k, 19),
        w = pick(k, 23);
    int i = chance(30) ? pick(1, 7) : pick(1, 130), o = chance(20) ? pick(100, 330) : pick(1, 100);
    if (chance(15)) { /* deep and narrow, or one row as in the token decoder */
        h = 1;
        w = pick(1, 9);
        k = stride = 1;
        i = pick(100, 700);
    }
    if (chance(5)) { /* so many rows that a GPU takes its largest tile */
        h = 130;
        w = pick(120, 128);
        k = stride = 1;
        i = 8 * pick(1, 2);
        o = pick(1, 9);
    }
    if (chance(10)) { /* tiles of 2x2 */
        make_conv(job, pick(1, 19), pick(1, 23), 16 * pick(4, 6), 16 * pick(4, 9), 3, 1, 1,
                  (enum um_act)pick(0, 5), pick(0, 2), chance(20), chance(80));
        return;
    }
    if (chance(20)) { /* the narrow layers of D-FINE's stem and first stage */
        static const int layer[][3] = {{1, 3, 2}, {3, 3, 2},  {16, 2, 1},
                                       {8, 2, 1}, {32, 3, 2}, {16, 3, 1}};
        const int *l = layer[pick(0, 5)];
        make_conv(job, pick(3, 9), pick(30, 70), l[0], chance(60) ? 16 : pick(1, 16), l[1], l[2],
                  l[1] == 3 ? pick(0, 1) : 0, chance(70) ? UM_ACT_RELU : (enum um_act)pick(0, 5),
                  chance(80) ? 0 : pick(1, 3), chance(70), chance(80));
        return;
    }
    make_conv(job, h, w, i, o, k, stride, k == 3 ? pick(0, 1) : 0, (enum um_act)pick(0, 5),
              pick(0, 3), chance(20), chance(80));
}

static void bench_conv(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_conv(job, p[0], p[1], p[2], p[3], p[4], p[5], p[6], b->act, 0, false, true);
}

static void make_dwconv(struct job *job, int h, int w, int c, int k, int stride, enum um_act act,
                        int residual)
{
    int pad = k / 2, oh = (h + 2 * pad - k) / stride + 1, ow = (w + 2 * pad - k) / stride + 1;
    job->op = UM_OP_DWCONV;
    job->tolerance = 3e-6; /* 25 products */
    job->macs = (double)oh * ow * c * k * k;
    job->args.conv =
        (struct um_conv_args){.kh = k, .kw = k, .stride = stride, .pad_top = pad, .pad_left = pad};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] k%d s%d%s residual %d", h, w, c, k, stride,
             act_names[act], residual);
    output(job, UM_F32, oh, ow, c, gap());
    input(job, h, w, c, gap(), 1);
    input(job, 1, k * k, c, 0, 0.5f);
    input(job, 1, 1, c, 0, 0.5f);
    conv_epilogue(job, oh, ow, c, act, residual == 3 && (oh % 2 || ow % 2) ? 1 : residual);
}

static void random_dwconv(struct job *job)
{
    int h = pick(1, 21), w = pick(1, 21), c = chance(50) ? pick(1, 100) : 8 * pick(1, 12);
    int k = chance(10) ? 7 : chance(60) ? 3 : 5, stride = pick(1, 2);
    if (chance(6)) { /* large enough for longer strips on a GPU */
        h = w = 66;
        c = 248;
        stride = 1;
    }
    make_dwconv(job, h, w, c, k, stride, (enum um_act)pick(0, 5), pick(0, 3));
    if (chance(20)) {
        job->args.conv.lab_scale = 0.7f;
        job->args.conv.lab_shift = -0.2f;
    }
}

static void bench_dwconv(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_dwconv(job, p[0], p[1], p[2], p[3], p[4], b->act, 0);
}

static void make_upconv2(struct job *job, int h, int w, int i, int o, enum um_act act)
{
    job->op = UM_OP_UPCONV2;
    job->tolerance = 1e-5;
    job->macs = 4.0 * h * w * o * i;
    job->args.conv = (struct um_conv_args){.kh = 2, .kw = 2, .stride = 2, .act = act};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d%s", h, w, i, o, act_names[act]);
    output(job, UM_F32, 2 * h, 2 * w, o, gap());
    input(job, h, w, i, gap(), 1);
    weights(job, 4 * o, 1, 1, i);
    input(job, 1, 1, 4 * o, 0, 0.5f);
}

static void random_upconv2(struct job *job)
{
    make_upconv2(job, pick(1, 9), pick(1, 13), pick(1, 70), pick(1, 70),
                 (enum um_act)(chance(50) ? UM_ACT_GELU : UM_ACT_NONE));
}

static void bench_upconv2(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_upconv2(job, p[0], p[1], p[2], p[3], b->act);
}

static void make_maxpool2(struct job *job, int h, int w, int c)
{
    job->op = UM_OP_MAXPOOL2;
    job->macs = (double)h * w * c;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d]", h, w, c);
    output(job, UM_F32, h, w, c, gap());
    struct um_view *x = input(job, h, w, c, gap(), 1);
    if (chance(30))
        *at(x, pick(0, h * w - 1), pick(0, c - 1)) = NAN;
}

static void random_maxpool2(struct job *job)
{
    make_maxpool2(job, pick(1, 20), pick(1, 20), pick(1, 40));
}

static void bench_maxpool2(struct job *job, const struct bench *b)
{
    const int *p = b->p;
    make_maxpool2(job, p[0], p[1], p[2]);
}

const struct op_case convolution_cases[] = {
    {UM_OP_CONV2D, random_conv, 120, 0x13, bench_conv},
    {UM_OP_DWCONV, random_dwconv, 60, 0x13, bench_dwconv},
    {UM_OP_UPCONV2, random_upconv2, 30, 0x3, bench_upconv2},
    {UM_OP_MAXPOOL2, random_maxpool2, 30, 0x3, bench_maxpool2},
    {0},
};
