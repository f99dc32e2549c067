/* SPDX-License-Identifier: Apache-2.0 */
/* D-FINE's weights: names -> folded, packed constants; every shape is checked. All folding is done
 * in double: BatchNorm into convolutions, the two branches of a Rep block into one 3x3, the
 * position encoding of AIFI through Wq and Wk into a table, the first convolution of an FPN block
 * split in two so that its upsampled half runs at the lower resolution. */
#include "base/mem.h"
#include "model/bind.h"
#include "model/dfine_net.h"
#include "nn/op_dfine.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float EPS = 1e-5f; /* of every BatchNorm and LayerNorm */

struct name {
    char s[160];
};

static struct name UM_PRINTF(1, 2) namef(const char *fmt, ...)
{
    struct name n;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(n.s, sizeof n.s, fmt, ap);
    va_end(ap);
    return n;
}

/* Of weights [i][k*k] of output o, the first of input i. */
static double *at(const struct um_fold *d, int o, int i)
{
    return d->w + ((size_t)o * (size_t)d->i + (size_t)i) * (size_t)(d->k * d->k);
}

/* w [o,i,k,k] at P.conv with the BatchNorm at P.bn (backbone) or P.norm (encoder), or both already
 * fused. */
static struct um_fold conv_bn(um_bind *b, const char *prefix, const char *bn, int o, int i, int k)
{
    struct name fused = namef("%s.conv_bn_fused", prefix);
    if (um_weights_find(b->file, namef("%s.weight", fused.s).s))
        return um_fold_conv(b, fused.s, o, i, k);
    return um_fold_conv_bn(b, namef("%s.conv", prefix).s, namef("%s.%s", prefix, bn).s, o, i, k);
}

/* Two convolutions of the same input as one: outputs of x, then of y. Frees both. */
static struct um_fold stack(um_bind *b, struct um_fold x, struct um_fold y)
{
    struct um_fold d = um_fold_new(b, x.o + y.o, x.i, x.k);
    size_t per = (size_t)x.i * (size_t)(x.k * x.k);
    if (d.w) {
        memcpy(d.w, x.w, (size_t)x.o * per * sizeof *d.w);
        memcpy(d.w + (size_t)x.o * per, y.w, (size_t)y.o * per * sizeof *d.w);
        memcpy(d.b, x.b, (size_t)x.o * sizeof *d.b);
        memcpy(d.b + x.o, y.b, (size_t)y.o * sizeof *d.b);
    }
    um_free(x.w);
    um_free(y.w);
    return d;
}

/* Inputs first, count of x, as a convolution of their own; the bias goes with it if asked for. */
static struct um_fold columns(um_bind *b, const struct um_fold *x, int first, int count, bool bias)
{
    struct um_fold d = um_fold_new(b, x->o, count, x->k);
    for (int o = 0; d.w && o < x->o; o++) {
        memcpy(at(&d, o, 0), at(x, o, first), (size_t)count * (size_t)(x->k * x->k) * sizeof *d.w);
        d.b[o] = bias ? x->b[o] : 0;
    }
    return d;
}

/* Zero outputs at the end up to o; zero inputs: the inputs from `keep` on come in groups of c,
 * which become groups of wide. Frees x. */
static struct um_fold widen(um_bind *b, struct um_fold x, int o, int keep, int c, int wide)
{
    int groups = (x.i - keep) / c;
    struct um_fold d = um_fold_new(b, o, keep + groups * wide, x.k);
    for (int r = 0; d.w && r < x.o; r++) {
        for (int i = 0; i < x.i; i++) {
            int to = i < keep ? i : keep + (i - keep) / c * wide + (i - keep) % c;
            memcpy(at(&d, r, to), at(&x, r, i), (size_t)(x.k * x.k) * sizeof *d.w);
        }
        d.b[r] = x.b[r];
    }
    um_free(x.w);
    return d;
}

/* An encoder unit: convolution + BatchNorm at P.conv and P.norm. */
static um_conv bind_cn(um_bind *b, const char *prefix, int o, int i)
{
    return um_fold_pack(b, conv_bn(b, prefix, "norm", o, i, 1), 1, 0, false, true);
}

static struct mlp bind_mlp(um_bind *b, const char *prefix, int d, int o)
{
    struct mlp m;
    for (int l = 0; l < 3; l++)
        m.fc[l] = um_bind_linear(b, namef("%s.layers.%d", prefix, l).s, l == 2 ? o : d, d);
    return m;
}

/* ---- backbone ---- */

/* The unit of HGNetV2: conv, BatchNorm, then ReLU and the affine, in this order; without activation
 * there is no affine. */
static struct layer bind_cba(um_bind *b, bool lab, const char *prefix, int o, int i, int k,
                             int stride, bool act)
{
    bool depthwise = i == 0; /* written as i = 0: one input per output */
    struct layer l = {.act = act ? UM_ACT_RELU : UM_ACT_NONE};
    struct um_fold d = conv_bn(b, prefix, "bn", o, depthwise ? 1 : i, k);
    l.conv = um_fold_pack(b, d, stride, (k - 1) / 2, depthwise, true);
    if (lab && act) {
        double scale = um_bind_scalar(b, namef("%s.lab.scale", prefix).s);
        l.lab_scale = scale != 0 ? (float)scale : FLT_MIN; /* 0 would mean: no affine */
        l.lab_shift = (float)um_bind_scalar(b, namef("%s.lab.bias", prefix).s);
    }
    return l;
}

static void bind_stem(struct um_dfine *d, um_bind *b)
{
    int m = d->size.backbone.stem_mid;
    bool lab = d->size.backbone.lab;
    d->stem1_rgb = bind_cba(b, lab, "backbone.stem.stem1", m, d->info.channels, 3, 2, true);
    d->stem1_gray = d->stem1_rgb;
    if (d->info.channels == 3) { /* three equal channels equal one with the summed weights */
        struct um_fold rgb = conv_bn(b, "backbone.stem.stem1", "bn", m, 3, 3),
                       gray = um_fold_new(b, m, 1, 3);
        for (int o = 0; um_bind_reads(b) && o < m; o++) {
            for (int k = 0; k < 9; k++)
                at(&gray, o, 0)[k] = at(&rgb, o, 0)[k] + at(&rgb, o, 1)[k] + at(&rgb, o, 2)[k];
            gray.b[o] = rgb.b[o];
        }
        um_free(rgb.w);
        d->stem1_gray.conv = um_fold_pack(b, gray, 2, 1, false, true);
    }
    d->stem2a = bind_cba(b, lab, "backbone.stem.stem2a", m / 2, m, 2, 1, true);
    d->stem2b = bind_cba(b, lab, "backbone.stem.stem2b", m, m / 2, 2, 1, true);
    d->stem3 = bind_cba(b, lab, "backbone.stem.stem3", m, 2 * m, 3, 2, true);
}

static struct hg_block bind_hg_block(um_bind *b, bool lab, const char *prefix,
                                     const struct um_hgnet_stage *c, int in)
{
    struct hg_block hg = {0};
    for (int l = 0; l < c->layers; l++) {
        struct name n = namef("%s.layers.%d", prefix, l);
        int from = l ? c->mid : in;
        if (c->light) {
            hg.pointwise[l] = bind_cba(b, lab, namef("%s.conv1", n.s).s, c->mid, from, 1, 1, false);
            hg.conv[l] = bind_cba(b, lab, namef("%s.conv2", n.s).s, c->mid, 0, c->k, 1, true);
        } else {
            hg.conv[l] = bind_cba(b, lab, n.s, c->mid, from, c->k, 1, true);
        }
    }
    hg.squeeze = bind_cba(b, lab, namef("%s.aggregation.0", prefix).s, c->out / 2,
                          in + c->layers * c->mid, 1, 1, true);
    hg.excite =
        bind_cba(b, lab, namef("%s.aggregation.1", prefix).s, c->out, c->out / 2, 1, 1, true);
    return hg;
}

static void bind_backbone(struct um_dfine *d, um_bind *b)
{
    const struct um_hgnet *s = &d->size.backbone;
    um_bind_narrow(b, false); /* all that follows sees what it loses, and it has few channels */
    bind_stem(d, b);
    for (int i = 0; i < UM_DFINE_STAGES; i++) {
        const struct um_hgnet_stage *c = &s->stage[i];
        struct hg_stage *w = &d->stage[i];
        if (i)
            w->down = bind_cba(b, s->lab, namef("backbone.stages.%d.downsample", i).s, c->in, 0, 3,
                               2, false);
        else
            w->down =
                bind_cba(b, s->lab, "backbone.stem.stem4", s->stem_out, s->stem_mid, 1, 1, true);
        um_bind_narrow(b, true);
        for (int j = 0; j < c->blocks; j++)
            w->block[j] = bind_hg_block(b, s->lab, namef("backbone.stages.%d.blocks.%d", i, j).s, c,
                                        j ? c->out : c->in);
    }
}

/* ---- encoder ---- */

int um_dfine_padded(int c4)
{
    enum { MULTIPLE = 8 };
    return (c4 + MULTIPLE - 1) / MULTIPLE * MULTIPLE;
}

/* conv3x3 + BatchNorm, plus conv1x1 + BatchNorm on the same input, as one 3x3. */
static struct um_fold rep(um_bind *b, const char *prefix, int c)
{
    struct name deployed = namef("%s.conv", prefix); /* written by upstream's deploy() */
    if (um_weights_find(b->file, namef("%s.weight", deployed.s).s))
        return um_fold_conv(b, deployed.s, c, c, 3);
    struct um_fold wide = conv_bn(b, namef("%s.conv1", prefix).s, "norm", c, c, 3);
    struct um_fold point = conv_bn(b, namef("%s.conv2", prefix).s, "norm", c, c, 1);
    for (int o = 0; um_bind_reads(b) && o < c; o++) {
        for (int i = 0; i < c; i++)
            at(&wide, o, i)[4] += *at(&point, o, i);
        wide.b[o] += point.b[o];
    }
    um_free(point.w);
    return wide;
}

static struct elan bind_elan(struct um_dfine *d, um_bind *b, const char *prefix, bool fpn)
{
    struct elan e;
    int w = d->size.width, c = d->size.c4, wide = um_dfine_padded(c);
    memset(&e, 0, sizeof e);
    struct um_fold cv1 = conv_bn(b, namef("%s.cv1", prefix).s, "norm", 2 * w, 2 * w, 1);
    if (fpn) { /* cv1 of concat[upsampled, side]: a 1x1 convolution commutes with nearest upsampling
                */
        e.top = um_fold_pack(b, columns(b, &cv1, 0, w, false), 1, 0, false, false);
        e.cv1 = um_fold_pack(b, columns(b, &cv1, w, w, true), 1, 0, false, true);
        um_free(cv1.w);
    } else {
        e.cv1 = um_fold_pack(b, cv1, 1, 0, false, true);
    }
    for (int k = 0; k < 2; k++) {
        struct name q = namef("%s.cv%d", prefix, k + 2);
        int in = k ? c : w, keep = k ? 0 : w;
        struct um_fold u = conv_bn(b, namef("%s.0.conv1", q.s).s, "norm", c, in, 1);
        struct um_fold v = conv_bn(b, namef("%s.0.conv2", q.s).s, "norm", c, in, 1);
        u = widen(b, u, wide, keep, c, wide);
        v = widen(b, v, wide, keep, c, wide);
        e.csp[k].in = um_fold_pack(b, stack(b, u, v), 1, 0, false, true);
        for (int i = 0; i < d->size.reps; i++)
            e.csp[k].rep[i] = um_fold_pack(
                b, widen(b, rep(b, namef("%s.0.bottlenecks.%d", q.s, i).s, c), wide, 0, c, wide), 1,
                1, false, true);
        e.conv[k] = um_fold_pack(
            b, widen(b, conv_bn(b, namef("%s.1", q.s).s, "norm", c, c, 3), wide, 0, c, wide), 1, 1,
            false, true);
    }
    struct um_fold cv4 = conv_bn(b, namef("%s.cv4", prefix).s, "norm", w, 2 * w + 2 * c, 1);
    e.cv4 = um_fold_pack(b, widen(b, cv4, w, 2 * w, c, wide), 1, 0, false, true);
    return e;
}

/* (X + PE)*W = X*W + PE*W for the rows of q and k; v sees X alone. PE[t] = [sin, cos of a*omega |
 * sin, cos of b*omega] with a = t div H and b = t mod H although tokens are row-major: upstream's
 * meshgrid does this when H != W. transformers divides by W. So PE*W is a sum of one row for a and
 * one for b. w [3D][D]. */
static um_const position_table(struct um_dfine *d, um_bind *b, const float *w)
{
    int dim = d->size.width, quarter = dim / 4, level = d->size.levels - 1;
    int h = d->level_h[level], wd = d->level_w[level], longest = h > wd ? h : wd;
    int line = um_dfine_is_hugging_face(&d->info) ? wd : h;
    um_const k;
    double *half = um_array((size_t)2 * (size_t)longest * (size_t)(2 * dim) + (size_t)(2 * quarter),
                            sizeof *half);
    float *table = um_params_reserve(
        b->params, (size_t)h * (size_t)wd * (size_t)(3 * dim) * sizeof *table, &k);
    if (half && table) {
        double *pe = half + (size_t)2 * (size_t)longest * (size_t)(2 * dim);
        for (int n = 0; n < longest; n++) {
            for (int i = 0; i < quarter; i++) {
                double angle = n * pow(10000, -(double)i / quarter);
                pe[i] = sin(angle);
                pe[quarter + i] = cos(angle);
            }
            for (int ab = 0; ab < 2; ab++)
                for (int o = 0; o < 2 * dim; o++) {
                    double sum = 0;
                    for (int i = 0; i < 2 * quarter; i++)
                        sum += pe[i] * w[(size_t)o * (size_t)dim + (size_t)(2 * quarter * ab + i)];
                    half[((size_t)ab * (size_t)longest + (size_t)n) * (size_t)(2 * dim) +
                         (size_t)o] = sum;
                }
        }
        for (int t = 0; t < h * wd; t++)
            for (int o = 0; o < 2 * dim; o++)
                table[(size_t)t * (size_t)(3 * dim) + (size_t)o] =
                    (float)(half[(size_t)(t / line) * (size_t)(2 * dim) + (size_t)o] +
                            half[(size_t)(longest + t % line) * (size_t)(2 * dim) + (size_t)o]);
    } else if (!half) {
        b->status = um_fail(UM_ENOMEM, "position table of %d tokens", h * wd);
    }
    um_free(half);
    return k;
}

static void bind_encoder(struct um_dfine *d, um_bind *b)
{
    const struct um_dfine_size *s = &d->size;
    int w = s->width;
    for (int l = 0; l < s->levels; l++)
        d->input_proj[l] =
            bind_cn(b, namef("encoder.input_proj.%d", l).s, w, um_dfine_channels(s, l));

    const char *aifi = "encoder.encoder.0.layers.0";
    float *in = um_bind_matrix(b, aifi, ".self_attn.in_proj_weight", 3 * w, w),
          *bias = um_bind_vector(b, aifi, ".self_attn.in_proj_bias", 3 * w);
    if (b->status == UM_OK) {
        d->aifi_qkv = um_linear_pack(b->params, in, bias, 3 * w, w);
        d->position = position_table(d, b, in);
    }
    um_free(in);
    um_free(bias);
    d->aifi_out = um_bind_linear(b, namef("%s.self_attn.out_proj", aifi).s, w, w);
    d->aifi_fc1 = um_bind_linear(b, namef("%s.linear1", aifi).s, s->ffn, w);
    d->aifi_fc2 = um_bind_linear(b, namef("%s.linear2", aifi).s, w, s->ffn);
    d->aifi_norm1 = um_bind_norm(b, namef("%s.norm1", aifi).s, w, EPS);
    d->aifi_norm2 = um_bind_norm(b, namef("%s.norm2", aifi).s, w, EPS);

    for (int j = 0; j + 1 < s->levels; j++) {
        d->lateral[j] = bind_cn(b, namef("encoder.lateral_convs.%d", j).s, w, w);
        d->fpn[j] = bind_elan(d, b, namef("encoder.fpn_blocks.%d", j).s, true);
        d->down1[j] = bind_cn(b, namef("encoder.downsample_convs.%d.0.cv1", j).s, w, w);
        d->down2[j] = um_fold_pack(
            b, conv_bn(b, namef("encoder.downsample_convs.%d.0.cv2", j).s, "norm", w, 1, 3), 2, 1,
            true, true);
        d->pan[j] = bind_elan(d, b, namef("encoder.pan_blocks.%d", j).s, false);
    }
}

/* ---- decoder ---- */

/* Upstream decodes with the buffer decoder.anchors, which a file stored in half precision holds
 * rounded. Take the file's values where it has them for this very grid. */
static void take_anchors(const um_weights *file, float *a, size_t tokens)
{
    const struct um_wtensor *stored = um_weights_find(file, "decoder.anchors");
    if (!stored || um_wtensor_elements(stored) != (int64_t)tokens * 4)
        return;
    double rounding = um_dfine_anchor_rounding(stored);
    for (size_t i = 0; i < tokens * 4; i++)
        if (isfinite(a[i]) && !(fabs(um_wtensor_at(stored, (int64_t)i) - a[i]) <= rounding))
            return;
    for (size_t i = 0; i < tokens * 4; i++)
        if (isfinite(a[i]))
            a[i] = (float)um_wtensor_at(stored, (int64_t)i);
}

/* The memory of cells that are not valid is masked. */
static void anchor_tables(struct um_dfine *d, um_bind *b)
{
    size_t tokens = (size_t)d->tokens;
    float *v = um_array(tokens, 5 * sizeof *v), *a = v ? v + tokens : NULL;
    if (!v) {
        b->status = um_fail(UM_ENOMEM, "anchors of %d tokens", d->tokens);
        return;
    }
    d->all_valid = true;
    size_t t = 0;
    for (int l = 0; l < d->size.levels; l++)
        for (int y = 0; y < d->level_h[l]; y++)
            for (int x = 0; x < d->level_w[l]; x++, t++) {
                bool valid = um_dfine_anchor(l, x, y, d->level_w[l], d->level_h[l], &a[4 * t]);
                v[t] = valid;
                d->all_valid = d->all_valid && valid;
            }
    if (um_bind_reads(b))
        take_anchors(b->file, a, tokens);
    d->anchors = um_params_add(b->params, a, tokens * 4 * sizeof *a);
    if (!d->all_valid)
        d->valid = um_params_add(b->params, v, tokens * sizeof *v);
    um_free(v);
}

/* W(n), dfine_utils.py, weighting_function: steps that grow geometrically away from the middle bin.
 */
static um_const weighting_function(um_bind *b, int bins, double up, double reg_scale)
{
    int middle = bins / 2, reg_max = bins - 1;
    double bound = fabs(up) * reg_scale, step = pow(bound + 1, 2.0 / (reg_max - 2));
    float w[UM_DFINE_BINS_MAX];
    for (int n = 0; n < bins; n++) {
        double m = pow(step, abs(n - middle)) - 1;
        w[n] = (float)(n == 0 ? -2 * bound : n == reg_max ? 2 * bound : n < middle ? -m : m);
    }
    return um_params_add(b->params, w, (size_t)bins * sizeof *w);
}

/* The kernel divides an offset by its level's number of points. Upstream multiplies by the buffer
 * num_points_scale, which a file stored in half precision holds rounded: where the file has it,
 * what its value differs by goes into the offsets' weights. */
static void scale_offsets(const struct um_dfine *d, um_bind *b, const char *layer, float *w,
                          float *bias, int c)
{
    const struct um_wtensor *scale =
        um_weights_find(b->file, namef("%s.cross_attn.num_points_scale", layer).s);
    int points = um_dfine_points(&d->size);
    if (!scale)
        return;
    for (int i = 0; i < points && b->status == UM_OK; i++)
        if (um_wtensor_elements(scale) != points || !isfinite(um_wtensor_at(scale, i)))
            b->status =
                um_fail(UM_EFORMAT, "%s: tensor %s, want %d finite numbers; copy the file again",
                        um_weights_path(b->file), scale->name, points);
    if (b->status != UM_OK)
        return;
    for (int h = 0; h < d->size.heads; h++)
        for (int level = 0, point = 0; point < points; level++)
            for (int k = 0; k < d->size.points[level]; k++, point++) {
                double factor = um_wtensor_at(scale, point) * d->size.points[level];
                for (int xy = 0; xy < 2; xy++) {
                    size_t row = (size_t)((h * points + point) * 2 + xy);
                    for (int i = 0; i < c; i++)
                        w[row * (size_t)c + (size_t)i] =
                            (float)(w[row * (size_t)c + (size_t)i] * factor);
                    bias[row] = (float)(bias[row] * factor);
                }
            }
}

/* Offsets and weights of the points, which have one input, as one layer. */
static um_conv bind_points(struct um_dfine *d, um_bind *b, const char *layer)
{
    int c = d->size.d, n_weights = d->size.heads * um_dfine_points(&d->size);
    int n_offsets = 2 * n_weights;
    um_conv conv = {0};
    float *offset = um_bind_matrix(b, layer, ".cross_attn.sampling_offsets.weight", n_offsets, c);
    float *offset_b = um_bind_vector(b, layer, ".cross_attn.sampling_offsets.bias", n_offsets);
    float *weight = um_bind_matrix(b, layer, ".cross_attn.attention_weights.weight", n_weights, c);
    float *weight_b = um_bind_vector(b, layer, ".cross_attn.attention_weights.bias", n_weights);
    size_t rows = (size_t)(n_offsets + n_weights);
    float *both = b->status == UM_OK ? um_array(rows, ((size_t)c + 1) * sizeof *both) : NULL;
    float *both_b = both ? both + rows * (size_t)c : NULL;
    if (both && um_bind_reads(b)) {
        memcpy(both, offset, (size_t)n_offsets * (size_t)c * sizeof *both);
        memcpy(both + (size_t)n_offsets * (size_t)c, weight,
               (size_t)n_weights * (size_t)c * sizeof *both);
        memcpy(both_b, offset_b, (size_t)n_offsets * sizeof *both);
        memcpy(both_b + n_offsets, weight_b, (size_t)n_weights * sizeof *both);
        scale_offsets(d, b, layer, both, both_b, c);
    }
    if (both)
        conv = um_linear_pack(b->params, both, both_b, n_offsets + n_weights, c);
    else if (b->status == UM_OK)
        b->status = um_fail(UM_ENOMEM, "%s.cross_attn", layer);
    um_free(both);
    um_free(offset);
    um_free(offset_b);
    um_free(weight);
    um_free(weight_b);
    return conv;
}

/* The gate of concat[self, cross]: two halves that are added. */
static void bind_gate(struct decoder_layer *l, um_bind *b, const char *layer, int c)
{
    struct um_fold gate = um_fold_new(b, 2 * c, 2 * c, 1);
    float *w = um_bind_matrix(b, layer, ".gateway.gate.weight", 2 * c, 2 * c),
          *bias = um_bind_vector(b, layer, ".gateway.gate.bias", 2 * c);
    for (int n = 0; um_bind_reads(b) && n < 4 * c * c; n++)
        gate.w[n] = w[n];
    for (int n = 0; um_bind_reads(b) && n < 2 * c; n++)
        gate.b[n] = bias[n];
    l->gate_self = um_fold_pack(b, columns(b, &gate, 0, c, true), 1, 0, false, true);
    l->gate_cross = um_fold_pack(b, columns(b, &gate, c, c, false), 1, 0, false, false);
    um_free(gate.w);
    um_free(w);
    um_free(bias);
}

static void bind_decoder_layer(struct um_dfine *d, um_bind *b, int i)
{
    struct decoder_layer *l = &d->layer[i];
    struct name layer = namef("decoder.decoder.layers.%d", i);
    const char *p = layer.s;
    int c = d->size.d;
    size_t dd = (size_t)c * (size_t)c;
    float *w = um_bind_matrix(b, p, ".self_attn.in_proj_weight", 3 * c, c),
          *bias = um_bind_vector(b, p, ".self_attn.in_proj_bias", 3 * c);
    if (b->status == UM_OK) {
        l->qk = um_linear_pack(b->params, w, bias, 2 * c, c);
        l->v = um_linear_pack(b->params, w + 2 * dd, bias + 2 * c, c, c);
    }
    um_free(w);
    um_free(bias);
    l->out = um_bind_linear(b, namef("%s.self_attn.out_proj", p).s, c, c);
    l->norm1 = um_bind_norm(b, namef("%s.norm1", p).s, c, EPS);
    l->offsets = bind_points(d, b, p);
    bind_gate(l, b, p, c);
    l->gate_norm = um_bind_norm(b, namef("%s.gateway.norm", p).s, c, EPS);
    l->fc1 = um_bind_linear(b, namef("%s.linear1", p).s, d->size.d_ffn, c);
    l->fc2 = um_bind_linear(b, namef("%s.linear2", p).s, c, d->size.d_ffn);
    l->norm3 = um_bind_norm(b, namef("%s.norm3", p).s, c, EPS);
    l->corners = bind_mlp(b, namef("decoder.dec_bbox_head.%d", i).s, c, 4 * d->size.bins);
}

static void bind_decoder(struct um_dfine *d, um_bind *b)
{
    const struct um_dfine_size *s = &d->size;
    int c = s->d, last = s->layers - 1;
    for (int l = 0; s->projected && l < s->levels; l++)
        d->memory_proj[l] = bind_cn(b, namef("decoder.input_proj.%d", l).s, c, s->width);
    if (b->status == UM_OK)
        anchor_tables(d, b);
    d->enc_output = um_bind_linear(b, "decoder.enc_output.proj", c, c);
    d->enc_norm = um_bind_norm(b, "decoder.enc_output.norm", c, EPS);
    d->enc_score = um_bind_linear(b, "decoder.enc_score_head", d->info.classes, c);
    d->enc_bbox = bind_mlp(b, "decoder.enc_bbox_head", c, 4);
    d->pre_bbox = bind_mlp(b, "decoder.pre_bbox_head", c, 4);
    d->query_pos[0] = um_bind_linear(b, "decoder.query_pos_head.layers.0", 2 * c, 4);
    d->query_pos[1] = um_bind_linear(b, "decoder.query_pos_head.layers.1", c, 2 * c);
    for (int i = 0; i < s->layers; i++)
        bind_decoder_layer(d, b, i);
    d->lqe[0] = um_bind_linear(b, namef("decoder.decoder.lqe_layers.%d.reg_conf.layers.0", last).s,
                               s->lqe_hidden, UM_LQE_STATS);
    d->lqe[1] = um_bind_linear(b, namef("decoder.decoder.lqe_layers.%d.reg_conf.layers.1", last).s,
                               1, s->lqe_hidden);
    d->score = um_bind_linear(b, namef("decoder.dec_score_head.%d", last).s, d->info.classes, c);
    double up = um_bind_scalar(b, "decoder.up"),
           reg_scale = fabs(um_bind_scalar(b, "decoder.reg_scale"));
    d->reg_scale = (float)reg_scale;
    if (b->status == UM_OK && !(reg_scale > 0 && reg_scale < 1e6 && fabs(up) < 1e6))
        b->status = um_fail(UM_EFORMAT,
                            "%s: tensor decoder.reg_scale is %g, decoder.up is %g, want less than "
                            "1e6, and reg_scale not 0",
                            um_weights_path(b->file), reg_scale, up);
    if (b->status == UM_OK)
        d->project = weighting_function(b, s->bins, up, reg_scale);
}

/* ---- the rest of the file ---- */

/* Does `name` fit? '#' stands for a number. */
static bool fits(const char *name, const char *pattern)
{
    for (; *pattern; pattern++) {
        size_t digits = *pattern == '#' ? strspn(name, "0123456789") : 1;
        if (!digits || (*pattern != '#' && *pattern != *name))
            return false;
        name += digits;
    }
    return !*name;
}

/* Tables that are recomputed, aliases, and what only training uses. */
static bool ignorable(const char *name)
{
    static const char *const KNOWN[] = {
        "decoder.anchors",
        "decoder.valid_mask",
        "decoder.decoder.up",
        "decoder.decoder.reg_scale",
        "decoder.denoising_class_embed.weight",
        "decoder.dec_score_head.#.weight",
        "decoder.dec_score_head.#.bias",
        "decoder.decoder.lqe_layers.#.reg_conf.layers.#.weight",
        "decoder.decoder.lqe_layers.#.reg_conf.layers.#.bias",
        "decoder.decoder.layers.#.cross_attn.num_points_scale",
    };
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (fits(name, KNOWN[i]))
            return true;
    return false;
}

static void bind_all(void *network, um_bind *b)
{
    um_dfine *d = network;
    bind_backbone(d, b);
    bind_encoder(d, b);
    um_bind_narrow(b, false); /* its boxes are distributions over bins, which bytes blur */
    um_bind_round(b, true);
    bind_decoder(d, b);
}

um_status um_dfine_bind(um_dfine *d, const um_weights *file)
{
    char geometry[96];
    struct um_bind_network how = {.geometry = geometry, .bind = bind_all, .ignorable = ignorable};
    snprintf(geometry, sizeof geometry, "dfine %dx%d%s", d->info.input_w, d->info.input_h,
             um_dfine_is_hugging_face(&d->info) ? " hf" : "");
    return um_bind_network(d, &how, file, d->params);
}
