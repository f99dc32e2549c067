/* SPDX-License-Identifier: Apache-2.0 */
/* D-FINE checkpoints made of a hash: the same numbers on every machine, no weight file needed. The
 * formula is written at the top of golden/dfine_golden.txt. Names and shapes are a second statement
 * of what the loader expects. */
#ifndef UM_TEST_DFINE_WEIGHTS_H
#define UM_TEST_DFINE_WEIGHTS_H

#include "weights/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dw_options {
    char size; /* 'n' 's' 'm' 'l' 'x' */
    int classes, channels;
    bool deployed; /* encoder as upstream's deploy() leaves it: BatchNorm and Rep branches fused */
    int d_ffn;     /* width of the decoder's feed-forward layers; 0 = the size's */
    float offsets_scale; /* of sampling_offsets.*; 0 = 1 */
    const char *omit;    /* leave this tensor out */
    const char *extra;   /* add a tensor of this name */
    const char *bend;    /* give this tensor one row too many */
    const char *points;  /* metadata that tells the sampling points, instead of tensors */
};

struct dw {
    const struct dw_options *o;
    bool lab;
    int n;
    struct um_wout t[1600];
    char name[1600][160];
};

static uint32_t dw_hash(const char *key)
{
    uint32_t h = 2166136261u;
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 16777619u;
    return h;
}

static float dw_u(uint32_t h, uint32_t i)
{
    uint32_t x = h + i * 0x9E3779B9u;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x ^= x >> 16;
    return (float)(x >> 8) * (1.0f / 16777216.0f);
}

static bool dw_ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static float dw_value(const char *key, uint32_t h, uint32_t i, int rank, float fan_in)
{
    float u = dw_u(h, i);
    if (dw_ends(key, "running_mean"))
        return (u - 0.5f) * 0.2f;
    if (dw_ends(key, "running_var"))
        return u + 0.5f;
    if (dw_ends(key, "lab.scale"))
        return u * 0.4f + 0.8f;
    if (dw_ends(key, "sampling_offsets.bias"))
        return (u - 0.5f) * 8;
    if (dw_ends(key, "bias"))
        return (u - 0.5f) * 0.2f;
    if (rank == 1)
        return u * 0.4f + 0.8f;
    return (2 * u - 1) * sqrtf(4 / fan_in);
}

static float *dw_make(const struct dw *g, const char *key, int rank, const int64_t *dim)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dim[i];
    float *v = malloc((size_t)n * sizeof *v);
    uint32_t h = dw_hash(key);
    bool offsets = strstr(key, "sampling_offsets") != NULL && g->o->offsets_scale != 0;
    for (int64_t i = 0; v && i < n; i++)
        v[i] = dw_value(key, h, (uint32_t)i, rank, (float)(n / dim[0])) *
               (offsets ? g->o->offsets_scale : 1);
    return v;
}

static void dw_put(struct dw *g, const char *key, enum um_wtype type, int rank, const int64_t *dim,
                   const void *data)
{
    struct um_wout *t = &g->t[g->n];
    if (g->o->omit && strcmp(g->o->omit, key) == 0) {
        free((void *)(uintptr_t)data);
        return;
    }
    snprintf(g->name[g->n], sizeof g->name[g->n], "%s", key);
    *t = (struct um_wout){.name = g->name[g->n], .type = type, .rank = rank, .data = data};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    g->n++;
}

static void dw_add(struct dw *g, int rank, const int64_t *dim, const char *fmt, ...)
{
    char key[160];
    int64_t bent[4];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(key, sizeof key, fmt, ap);
    va_end(ap);
    memcpy(bent, dim, (size_t)rank * sizeof *dim);
    bent[0] += g->o->bend && strcmp(g->o->bend, key) == 0;
    dw_put(g, key, UM_W_F32, rank, bent, dw_make(g, key, rank, bent));
}
#define DW1(g, c, ...) dw_add(g, 1, (int64_t[]){c}, __VA_ARGS__)
#define DW2(g, o, i, ...) dw_add(g, 2, (int64_t[]){o, i}, __VA_ARGS__)

static void dw_bn(struct dw *g, const char *p, int c)
{
    DW1(g, c, "%s.weight", p);
    DW1(g, c, "%s.bias", p);
    DW1(g, c, "%s.running_mean", p);
    DW1(g, c, "%s.running_var", p);
}

/* Backbone unit; i = 1 for depthwise. */
static void dw_cba(struct dw *g, int o, int i, int k, bool act, const char *fmt, ...)
{
    char p[96], bn[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p, sizeof p, fmt, ap);
    va_end(ap);
    dw_add(g, 4, (int64_t[]){o, i, k, k}, "%s.conv.weight", p);
    snprintf(bn, sizeof bn, "%s.bn", p);
    dw_bn(g, bn, o);
    if (g->lab && act) {
        DW1(g, 1, "%s.lab.scale", p);
        DW1(g, 1, "%s.lab.bias", p);
    }
}

/* w [o,i,k,k] and b [o] += the fused unit with the hashed values of P.conv and P.norm, into the
 * middle of a k x k kernel. */
static void dw_fuse(const struct dw *g, const char *p, int o, int i, int from, int k, double *w,
                    double *b)
{
    static const char *const parts[] = {"conv.weight", "norm.weight", "norm.bias",
                                        "norm.running_mean", "norm.running_var"};
    float *v[5];
    char key[192];
    for (int n = 0; n < 5; n++) {
        snprintf(key, sizeof key, "%s.%s", p, parts[n]);
        v[n] = dw_make(g, key, n ? 1 : 4, (int64_t[]){o, i, from, from});
    }
    for (int r = 0; r < o; r++) {
        double s = v[1][r] / sqrt(v[4][r] + 1e-5);
        for (int n = 0; n < i * from * from; n++) {
            int c = n / (from * from), tap = n % (from * from);
            w[(r * i + c) * k * k + (from == k ? tap : k * k / 2)] +=
                v[0][r * i * from * from + n] * s;
        }
        b[r] += v[2][r] - v[3][r] * s;
    }
    for (int n = 0; n < 5; n++)
        free(v[n]);
}

static void dw_fused(struct dw *g, const char *p, const char *infix, int o, int i, int k,
                     bool two_branches)
{
    char key[160];
    size_t n = (size_t)o * (size_t)i * (size_t)(k * k);
    double *w = calloc(n + (size_t)o, sizeof *w), *b = w + n;
    float *fw = malloc(n * sizeof *fw), *fb = malloc((size_t)o * sizeof *fb);
    if (two_branches) {
        snprintf(key, sizeof key, "%s.conv1", p);
        dw_fuse(g, key, o, i, 3, 3, w, b);
        snprintf(key, sizeof key, "%s.conv2", p);
        dw_fuse(g, key, o, i, 1, 3, w, b);
    } else {
        dw_fuse(g, p, o, i, k, k, w, b);
    }
    for (size_t j = 0; j < n; j++)
        fw[j] = (float)w[j];
    for (int j = 0; j < o; j++)
        fb[j] = (float)b[j];
    snprintf(key, sizeof key, "%s.%s.weight", p, infix);
    dw_put(g, key, UM_W_F32, 4, (int64_t[]){o, i, k, k}, fw);
    snprintf(key, sizeof key, "%s.%s.bias", p, infix);
    dw_put(g, key, UM_W_F32, 1, (int64_t[]){o}, fb);
    free(w);
}

/* Encoder unit. */
static void dw_cn(struct dw *g, int o, int i, int k, bool fusible, const char *fmt, ...)
{
    char p[96], bn[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p, sizeof p, fmt, ap);
    va_end(ap);
    if (g->o->deployed && fusible) {
        dw_fused(g, p, "conv_bn_fused", o, i, k, false);
        return;
    }
    dw_add(g, 4, (int64_t[]){o, i, k, k}, "%s.conv.weight", p);
    snprintf(bn, sizeof bn, "%s.norm", p);
    dw_bn(g, bn, o);
}

static void dw_linear(struct dw *g, int o, int i, const char *fmt, ...)
{
    char p[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p, sizeof p, fmt, ap);
    va_end(ap);
    DW2(g, o, i, "%s.weight", p);
    DW1(g, o, "%s.bias", p);
}

static void dw_norm(struct dw *g, int c, const char *fmt, ...)
{
    char p[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p, sizeof p, fmt, ap);
    va_end(ap);
    DW1(g, c, "%s.weight", p);
    DW1(g, c, "%s.bias", p);
}

static void dw_mlp(struct dw *g, int d, int o, const char *p)
{
    for (int l = 0; l < 3; l++)
        dw_linear(g, l == 2 ? o : d, d, "%s.layers.%d", p, l);
}

static void dw_elan(struct dw *g, int w, int c4, int reps, const char *kind, int j)
{
    char p[64];
    snprintf(p, sizeof p, "encoder.%s_blocks.%d", kind, j);
    dw_cn(g, 2 * w, 2 * w, 1, true, "%s.cv1", p);
    for (int k = 2; k < 4; k++) {
        int in = k == 2 ? w : c4;
        dw_cn(g, c4, in, 1, true, "%s.cv%d.0.conv1", p, k);
        dw_cn(g, c4, in, 1, true, "%s.cv%d.0.conv2", p, k);
        for (int r = 0; r < reps; r++) {
            char q[96];
            snprintf(q, sizeof q, "%s.cv%d.0.bottlenecks.%d", p, k, r);
            if (g->o->deployed) {
                dw_fused(g, q, "conv", c4, c4, 3, true);
                continue;
            }
            dw_cn(g, c4, c4, 3, true, "%s.conv1", q);
            dw_cn(g, c4, c4, 1, true, "%s.conv2", q);
        }
        dw_cn(g, c4, c4, 3, true, "%s.cv%d.1", p, k);
    }
    dw_cn(g, w, 2 * w + 2 * c4, 1, true, "%s.cv4", p);
}

static void dw_scalar(struct dw *g, const char *key, double value)
{
    if (dw_ends(key, "reg_scale")) {
        int64_t *v = malloc(sizeof *v);
        *v = (int64_t)value;
        dw_put(g, key, UM_W_I64, 1, (int64_t[]){1}, v);
    } else {
        float *v = malloc(sizeof *v);
        *v = (float)value;
        dw_put(g, key, UM_W_F32, 1, (int64_t[]){1}, v);
    }
}

/* One over the number of sampling points of each point's level. */
static void dw_points(struct dw *g, const char *layer)
{
    char key[160];
    if (g->o->points)
        return;
    float *v = malloc(12 * sizeof *v);
    for (int i = 0; i < 12; i++)
        v[i] = g->o->size == 'n' || (i >= 3 && i < 9) ? 1.0f / 6 : 1.0f / 3;
    snprintf(key, sizeof key, "%s.cross_attn.num_points_scale", layer);
    dw_put(g, key, UM_W_F32, 1, (int64_t[]){12}, v);
}

/* Write the checkpoint `o` describes as safetensors. */
static um_status dw_write(const char *path, const struct dw_options *o)
{
    static const int B[4][1 + 1 + 4 * 4] = {
        /* stem m, o; per stage: in, mid, out, blocks */
        {16, 16, 16, 16, 64, 1, 64, 32, 256, 1, 256, 64, 512, 2, 512, 128, 1024, 1},
        {24, 32, 32, 32, 96, 1, 96, 64, 384, 1, 384, 128, 768, 3, 768, 256, 1536, 1},
        {32, 48, 48, 48, 128, 1, 128, 96, 512, 1, 512, 192, 1024, 3, 1024, 384, 2048, 1},
        {32, 64, 64, 64, 128, 1, 128, 128, 512, 2, 512, 256, 1024, 5, 1024, 512, 2048, 2}};
    static const struct {
        char size;
        int backbone, layers, levels, width, ffn, c4, reps, d, d_ffn, decoder;
    } sizes[] = {{'n', 0, 3, 2, 128, 512, 21, 2, 128, 512, 3},
                 {'s', 0, 3, 3, 256, 1024, 64, 1, 256, 1024, 3},
                 {'m', 1, 4, 3, 256, 1024, 128, 2, 256, 1024, 4},
                 {'l', 2, 6, 3, 256, 1024, 128, 3, 256, 1024, 6},
                 {'x', 3, 6, 3, 384, 2048, 192, 3, 256, 1024, 6}},
      *s;
    for (s = sizes; s->size != o->size;)
        s++;
    const int *b = B[s->backbone];
    struct dw *g = calloc(1, sizeof *g);
    int m = b[0], w = s->width, d = s->d, d_ffn = o->d_ffn ? o->d_ffn : s->d_ffn;
    g->o = o;
    g->lab = s->backbone < 2;
    dw_cba(g, m, o->channels, 3, true, "backbone.stem.stem1");
    dw_cba(g, m / 2, m, 2, true, "backbone.stem.stem2a");
    dw_cba(g, m, m / 2, 2, true, "backbone.stem.stem2b");
    dw_cba(g, m, 2 * m, 3, true, "backbone.stem.stem3");
    dw_cba(g, b[1], m, 1, true, "backbone.stem.stem4");
    for (int i = 0; i < 4; i++) {
        const int *st = b + 2 + 4 * i; /* in, mid, out, blocks */
        if (i)
            dw_cba(g, st[0], 1, 3, false, "backbone.stages.%d.downsample", i);
        for (int j = 0; j < st[3]; j++) {
            char p[64];
            int in = j ? st[2] : st[0];
            snprintf(p, sizeof p, "backbone.stages.%d.blocks.%d", i, j);
            for (int l = 0; l < s->layers; l++) {
                if (i >= 2) {
                    dw_cba(g, st[1], l ? st[1] : in, 1, false, "%s.layers.%d.conv1", p, l);
                    dw_cba(g, st[1], 1, 5, true, "%s.layers.%d.conv2", p, l);
                } else {
                    dw_cba(g, st[1], l ? st[1] : in, 3, true, "%s.layers.%d", p, l);
                }
            }
            dw_cba(g, st[2] / 2, in + s->layers * st[1], 1, true, "%s.aggregation.0", p);
            dw_cba(g, st[2], st[2] / 2, 1, true, "%s.aggregation.1", p);
        }
    }
    dw_scalar(g, "decoder.up", 0.5);
    dw_scalar(g, "decoder.reg_scale", o->size == 'x' ? 8 : 4);
    for (int i = 0; i < s->decoder; i++) {
        char p[64], head[64];
        snprintf(p, sizeof p, "decoder.decoder.layers.%d", i);
        snprintf(head, sizeof head, "decoder.dec_bbox_head.%d", i);
        DW2(g, 3 * d, d, "%s.self_attn.in_proj_weight", p);
        DW1(g, 3 * d, "%s.self_attn.in_proj_bias", p);
        dw_linear(g, d, d, "%s.self_attn.out_proj", p);
        dw_norm(g, d, "%s.norm1", p);
        dw_linear(g, 192, d, "%s.cross_attn.sampling_offsets", p);
        dw_linear(g, 96, d, "%s.cross_attn.attention_weights", p);
        dw_points(g, p);
        dw_linear(g, 2 * d, 2 * d, "%s.gateway.gate", p);
        dw_norm(g, d, "%s.gateway.norm", p);
        dw_linear(g, d_ffn, d, "%s.linear1", p);
        dw_linear(g, d, d_ffn, "%s.linear2", p);
        dw_norm(g, d, "%s.norm3", p);
        dw_mlp(g, d, 132, head);
        dw_linear(g, o->classes, d, "decoder.dec_score_head.%d", i); /* only the last is used */
        dw_linear(g, 64, 20, "decoder.decoder.lqe_layers.%d.reg_conf.layers.0", i);
        dw_linear(g, 1, 64, "decoder.decoder.lqe_layers.%d.reg_conf.layers.1", i);
    }
    dw_linear(g, 2 * d, 4, "decoder.query_pos_head.layers.0");
    dw_linear(g, d, 2 * d, "decoder.query_pos_head.layers.1");
    dw_linear(g, d, d, "decoder.enc_output.proj");
    dw_norm(g, d, "decoder.enc_output.norm");
    dw_linear(g, o->classes, d, "decoder.enc_score_head");
    dw_mlp(g, d, 4, "decoder.enc_bbox_head");
    dw_mlp(g, d, 4, "decoder.pre_bbox_head");
    for (int l = 0; l < s->levels; l++) {
        dw_cn(g, w, b[2 + 4 * (4 - s->levels + l) + 2], 1, false, "encoder.input_proj.%d", l);
        if (w != d)
            dw_cn(g, d, w, 1, false, "decoder.input_proj.%d", l);
    }
    DW2(g, 3 * w, w, "encoder.encoder.0.layers.0.self_attn.in_proj_weight");
    DW1(g, 3 * w, "encoder.encoder.0.layers.0.self_attn.in_proj_bias");
    dw_linear(g, w, w, "encoder.encoder.0.layers.0.self_attn.out_proj");
    dw_linear(g, s->ffn, w, "encoder.encoder.0.layers.0.linear1");
    dw_linear(g, w, s->ffn, "encoder.encoder.0.layers.0.linear2");
    dw_norm(g, w, "encoder.encoder.0.layers.0.norm1");
    dw_norm(g, w, "encoder.encoder.0.layers.0.norm2");
    for (int j = 0; j + 1 < s->levels; j++) {
        dw_cn(g, w, w, 1, true, "encoder.lateral_convs.%d", j);
        dw_elan(g, w, s->c4, s->reps, "fpn", j);
        dw_cn(g, w, w, 1, true, "encoder.downsample_convs.%d.0.cv1", j);
        dw_cn(g, w, 1, 3, true, "encoder.downsample_convs.%d.0.cv2", j);
        dw_elan(g, w, s->c4, s->reps, "pan", j);
    }
    if (o->extra)
        dw_norm(g, 3, "%s", o->extra);
    const char *meta[] = {o->points ? "points" : NULL, o->points, NULL};
    um_status st = um_safetensors_write(path, g->t, g->n, meta);
    for (int i = 0; i < g->n; i++)
        free((void *)(uintptr_t)g->t[i].data);
    free(g);
    return st;
}

#endif
