/* SPDX-License-Identifier: Apache-2.0 */
/* D-FINE (Peterande/D-FINE): one parametric network for the sizes N, S, M, L and X.
 *
 * backbone, src/nn/backbone/hgnetv2.py:
 *   x [H,W,1|3] -> stem, stride 4 -> stages 0..3, strides 4..32
 * encoder, src/zoo/dfine/hybrid_encoder.py:
 *   the last 2 (N) or 3 maps -> 1x1 to D -> AIFI on the coarsest, one transformer layer
 *   -> top-down fusion (FPN) -> bottom-up fusion (PAN), both of ELAN blocks
 *   all levels as rows, finest first -> memory [T,d]
 * decoder, src/zoo/dfine/dfine_decoder.py:
 *   memory -> LayerNorm(Linear) -> class score of every token -> the 300 best are the queries
 *   3..6 layers: self-attention, deformable attention into the memory, gate, FFN; each refines four
 *   distributions over 33 bins, whose means move the sides of the query's box
 *   last layer: class logits + a quality estimate read off the distributions */
#include "base/mem.h"
#include "model/dfine_net.h"
#include "model/input_size.h"
#include "nn/block.h"
#include "nn/op_dfine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- forward ---- */

static um_tensor layer_(um_tape *t, const struct layer *l, um_tensor x, struct um_conv_opts e)
{
    e.act = l->act;
    e.lab_scale = l->lab_scale;
    e.lab_shift = l->lab_shift;
    return um_conv2d_(t, &l->conv, x, e);
}
#define layer(t, l, x, ...) layer_(t, l, x, (struct um_conv_opts){0, __VA_ARGS__})

static const um_tensor none; /* id 0: no tensor */

static void tap(um_tape *t, const char *what, int i, um_tensor x)
{
    char name[32];
    snprintf(name, sizeof name, "%s%d", what, i);
    um_tap(t, name, x);
}

static void tap_map(um_tape *t, const char *what, int i, um_tensor x)
{
    char name[32];
    snprintf(name, sizeof name, "%s%d", what, i);
    um_tap_map(t, name, x);
}

/* x [H,W,1|3] -> [H/4,W/4,m]; stem4 follows in stage 0. */
static um_tensor stem(const struct um_dfine *d, um_tape *t, um_tensor x)
{
    const struct layer *layers[UM_STEM_LAYERS] = {x.c == 1 ? &d->stem1_gray : &d->stem1_rgb,
                                                  &d->stem2a, &d->stem2b, &d->stem3};
    struct um_stem w;
    for (int i = 0; i < UM_STEM_LAYERS; i++) {
        w.conv[i] = layers[i]->conv;
        w.affine.lab_scale[i] = layers[i]->lab_scale;
        w.affine.lab_shift[i] = layers[i]->lab_shift;
    }
    return um_stem(t, &w, x);
}

/* A block reads its input and writes its layers in one tensor: what the aggregation reads is the
 * concatenation. */
static um_tensor hg_stage(const struct um_dfine *d, um_tape *t, int i, um_tensor x)
{
    const struct um_hgnet_stage *c = &d->size.backbone.stage[i];
    const struct hg_stage *w = &d->stage[i];
    int stride = w->down.conv.stride;
    um_tensor cat = um_tape_new(t, x.dtype, x.h / stride, x.w / stride, c->in + c->layers * c->mid);
    x = layer(t, &w->down, x, .out = um_slice(cat, 0, c->in));
    if (i == 0)
        um_tap_map(t, "stem", x);
    for (int b = 0; b < c->blocks; b++) {
        const struct hg_block *hg = &w->block[b];
        um_tensor y = x, next = none;
        for (int l = 0; l < c->layers; l++) {
            um_tensor out = um_slice(cat, x.c + l * c->mid, c->mid);
            if (c->light)
                y = layer(t, &hg->pointwise[l], y);
            y = layer(t, &hg->conv[l], y, .out = out);
        }
        y = layer(t, &hg->squeeze, cat);
        if (b + 1 < c->blocks)
            next = um_tape_new(t, cat.dtype, cat.h, cat.w, c->out + c->layers * c->mid);
        x = layer(t, &hg->excite, y, .add = b ? x : none, .add_last = true,
                  .out = next.id ? um_slice(next, 0, c->out) : none);
        cat = next;
    }
    tap_map(t, "stage", i, x);
    return x;
}

/* u = Rep blocks of SiLU(conv1 x); result u + SiLU(conv2 x). */
static um_tensor csp(um_tape *t, const struct csp *w, int reps, um_tensor x)
{
    um_tensor uv = um_conv2d(t, &w->in, x, .act = UM_ACT_SILU);
    int c = uv.c / 2;
    um_tensor u = um_slice(uv, 0, c), v = um_slice(uv, c, c);
    for (int i = 0; i < reps; i++)
        u = um_conv2d(t, &w->rep[i], u, .act = UM_ACT_SILU, .add = i == reps - 1 ? v : none,
                      .add_last = true);
    return u;
}

/* RepNCSPELAN4. x is the concatenation [h,w,2D] (PAN), or its second half [h,w,D] with `top`, the
 * first half before it is upsampled, [h/2,w/2,D] (FPN). */
static um_tensor elan(const struct um_dfine *d, um_tape *t, const struct elan *w, um_tensor x,
                      um_tensor top, um_tensor out)
{
    int width = d->size.width, c = um_dfine_padded(d->size.c4);
    um_tensor cat = um_tape_new(t, x.dtype, x.h, x.w, 2 * width + 2 * c);
    um_tensor add = top.id ? um_conv2d(t, &w->top, top) : none;
    um_conv2d(t, &w->cv1, x, .act = UM_ACT_SILU, .add = add, .add_up2 = add.id != 0,
              .out = um_slice(cat, 0, 2 * width));
    um_tensor y = um_slice(cat, width, width);
    for (int k = 0; k < 2; k++) {
        y = csp(t, &w->csp[k], d->size.reps, y);
        y = um_conv2d(t, &w->conv[k], y, .act = UM_ACT_SILU,
                      .out = um_slice(cat, 2 * width + k * c, c));
    }
    return um_conv2d(t, &w->cv4, cat, .act = UM_ACT_SILU, .out = out);
}

/* One post-norm transformer layer on the coarsest level; values carry no position. */
static um_tensor aifi(const struct um_dfine *d, um_tape *t, um_tensor x)
{
    int w = d->size.width, heads = d->size.heads;
    um_tensor position = um_tape_const(t, d->params, d->position, UM_F32, x.h, x.w, 3 * w);
    um_tensor qkv = um_linear(t, &d->aifi_qkv, x, .add = position);
    um_tensor a =
        um_attention(t, um_slice(qkv, 0, w), um_slice(qkv, w, w), um_slice(qkv, 2 * w, w), heads,
                     1 / sqrtf((float)(w / heads)), um_attends_in_bf16(&d->aifi_qkv));
    x = um_linear(t, &d->aifi_out, a, .add = x, .norm_out = &d->aifi_norm1);
    um_tensor h = um_linear(t, &d->aifi_fc1, x, .act = UM_ACT_GELU);
    x = um_linear(t, &d->aifi_fc2, h, .add = x, .norm_out = &d->aifi_norm2);
    um_tap_map(t, "aifi_tokens", x);
    return x;
}

/* feature[l] -> memory [T,d]: every level ends in its rows of the memory. */
static um_tensor encoder(const struct um_dfine *d, um_tape *t, const um_tensor *feature)
{
    const struct um_dfine_size *s = &d->size;
    int n = s->levels, w = s->width, row = 0;
    um_tensor memory = um_tape_new(t, feature[0].dtype, 1, d->tokens, s->d);
    um_tensor level[UM_DFINE_LEVELS_MAX], out[UM_DFINE_LEVELS_MAX], pan[UM_DFINE_LEVELS_MAX];
    for (int l = 0; l < n; l++) {
        level[l] = um_linear(t, &d->input_proj[l], feature[l]);
        tap_map(t, "input_proj", l, level[l]);
        pan[l] = l ? um_tape_new(t, level[l].dtype, level[l].h, level[l].w, 2 * w)
                   : none; /* concat of the bottom-up path */
        out[l] = um_rows(memory, row, level[l].h * level[l].w);
        row += level[l].h * level[l].w;
    }
    um_tensor x = aifi(d, t, level[n - 1]);
    for (int j = 0; j + 1 < n; j++) {
        int l = n - 1 - j;
        x = um_conv2d(t, &d->lateral[j], x, .out = um_slice(pan[l], w, w));
        x = elan(d, t, &d->fpn[j], level[l - 1], x, l == 1 && !s->projected ? out[0] : none);
        tap_map(t, "fpn", j, x);
    }
    if (s->projected)
        um_conv2d(t, &d->memory_proj[0], x, .out = out[0]);
    for (int j = 0; j + 1 < n; j++) {
        um_tensor y = um_conv2d(t, &d->down1[j], x);
        um_conv2d(t, &d->down2[j], y, .out = um_slice(pan[j + 1], 0, w));
        x = elan(d, t, &d->pan[j], pan[j + 1], none, s->projected ? none : out[j + 1]);
        tap_map(t, "pan", j, x);
        if (s->projected)
            um_conv2d(t, &d->memory_proj[j + 1], x, .out = out[j + 1]);
    }
    return memory;
}

/* The three layers of a box head. */
static struct um_chain head(const struct um_dfine *d, const struct mlp *w)
{
    enum um_act act = d->info.head_act;
    return (struct um_chain){.layer = w->fc, .layers = 3, .act = {act, act, UM_ACT_NONE}};
}

/* The tokens and boxes of the queries. Only this sees the masked memory. */
static struct um_chain_out select_queries(const struct um_dfine *d, um_tape *t, um_tensor memory,
                                          um_tensor *index)
{
    if (!d->all_valid)
        memory = um_scale_rows(t, memory,
                               um_tape_const(t, d->params, d->valid, UM_F32, 1, d->tokens, 1));
    um_tensor om = um_linear(t, &d->enc_output, memory, .norm_out = &d->enc_norm);
    um_tap(t, "enc_output", om);
    um_tensor scores = um_linear(t, &d->enc_score, om, .fp32 = true);
    um_tap(t, "enc_score", scores);
    *index = um_topk(t, scores, d->info.queries);
    um_tap(t, "query_index", *index);
    struct um_chain select = head(d, &d->enc_bbox);
    select.index = *index;
    select.pick = true;
    select.finish = UM_FINISH_REFINE;
    select.base = um_tape_const(t, d->params, d->anchors, UM_F32, 1, d->tokens, 4);
    return um_chain(t, om, &select);
}

static struct um_dfine_out decoder(const struct um_dfine *d, um_tape *t, um_tensor memory)
{
    const struct um_dfine_size *s = &d->size;
    struct um_deform_args levels = {.heads = s->heads, .levels = s->levels};
    for (int l = 0; l < s->levels; l++) {
        levels.h[l] = d->level_h[l];
        levels.w[l] = d->level_w[l];
        levels.points[l] = s->points[l];
    }
    float scale = 1 / sqrtf((float)(s->d / s->heads));
    um_tensor index = none;
    struct um_chain_out selected = select_queries(d, t, memory, &index);
    um_tensor out = selected.picked, ref = selected.y;
    um_tap(t, "ref0", ref);

    um_tensor project = um_tape_const(t, d->params, d->project, UM_F32, 1, s->bins, 1);
    um_tensor ref_init = none, corners = none;
    for (int i = 0; i < s->layers; i++) {
        const struct decoder_layer *l = &d->layer[i];
        um_tensor last = out;
        struct um_chain place = {.layer = d->query_pos,
                                 .layers = 2,
                                 .act = {d->info.head_act, UM_ACT_CLAMP},
                                 .limit = 10};
        um_tensor pos = um_chain(t, ref, &place).y;

        um_tensor qkv = um_linear(t, &l->qk, out, .plus = pos, .second = &l->v);
        um_tensor a = um_attention(t, um_slice(qkv, 0, s->d), um_slice(qkv, s->d, s->d),
                                   um_slice(qkv, 2 * s->d, s->d), s->heads, scale,
                                   um_attends_in_bf16(&l->qk));
        out = um_linear(t, &l->out, a, .add = out, .norm_out = &l->norm1);

        um_tensor offsets = um_linear(t, &l->offsets, out, .plus = pos);
        um_tensor cross = um_deform(t, offsets, ref, memory, &levels);
        tap(t, "cross", i, cross);

        out = um_gateway(t, &l->gate_self, &l->gate_cross, &l->gate_norm, out, cross);

        um_tensor h = um_tape_new(t, um_tape_act(t), out.h, out.w, l->fc1.o); /* out is fp32 */
        um_linear(t, &l->fc1, out, .act = d->info.act, .out = h);
        out = um_linear(t, &l->fc2, h, .add = out, .act = UM_ACT_CLAMP, .limit = 65504,
                        .fp32 = true, .norm_out = &l->norm3);
        tap(t, "dec", i, out);

        if (i == 0) { /* the box all layers refine */
            struct um_chain first = head(d, &d->pre_bbox);
            first.tap = "pre_bbox_raw";
            first.finish = UM_FINISH_REFINE;
            first.inverse = true;
            first.base = ref;
            ref_init = um_chain(t, out, &first).y;
            um_tap(t, "ref_init", ref_init);
        }
        struct um_chain sides = head(d, &l->corners);
        sides.plus = i ? last : none;
        sides.add = corners;
        sides.finish = UM_FINISH_BOX;
        sides.base = ref_init;
        sides.project = project;
        sides.reg_scale = d->reg_scale;
        struct um_chain_out moved = um_chain(t, out, &sides);
        corners = moved.y;
        tap(t, "corners", i, corners);
        ref = moved.box;
        tap(t, "box", i, ref);
    }
    struct um_chain lqe = {.layer = d->lqe, .layers = 2, .act = {d->info.lqe_act, UM_ACT_NONE}};
    um_tensor quality = um_chain(t, um_lqe_stats(t, corners), &lqe).y;
    struct um_dfine_out y = {
        .logits = um_linear(t, &d->score, out, .add = quality), .boxes = ref, .index = index};
    um_tap(t, "pred_logits", y.logits);
    um_tap(t, "pred_boxes", y.boxes);
    return y;
}

/* ---- public ---- */

void um_dfine_lut(float lut[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int u = 0; u < 256; u++)
            lut[c][u] = (float)u / 255;
}

struct um_dfine_out um_dfine_forward(um_dfine *d, um_tape *t, um_tensor x)
{
    um_tensor feature[UM_DFINE_STAGES];
    if (um_tape_status(t) == UM_OK && (x.h != d->info.input_h || x.w != d->info.input_w ||
                                       !(x.c == 1 || (x.c == 3 && d->info.channels == 3))))
        um_tape_fail(t, um_fail(UM_EINVAL, "%s: input is [%d,%d,%d], want [%d,%d,%s]",
                                d->info.architecture, x.h, x.w, x.c, d->info.input_h,
                                d->info.input_w, d->info.channels == 3 ? "1 or 3" : "1"));
    if (um_tape_status(t) != UM_OK)
        return (struct um_dfine_out){none, none, none};
    x = stem(d, t, x);
    for (int i = 0; i < UM_DFINE_STAGES; i++)
        feature[i] = x = hg_stage(d, t, i, x);
    struct um_dfine_out y =
        decoder(d, t, encoder(d, t, feature + UM_DFINE_STAGES - d->size.levels));
    um_keep(t, y.logits);
    um_keep(t, y.boxes);
    um_keep(t, y.index);
    return y;
}

/* Sizes of the levels for the input. */
static um_status plan_levels(struct um_dfine *d)
{
    const char *name = d->info.architecture;
    int w = d->info.input_w, h = d->info.input_h;
    if (w < UM_DFINE_STEP || h < UM_DFINE_STEP || w > UM_INPUT_MAX || h > UM_INPUT_MAX ||
        w % UM_DFINE_STEP || h % UM_DFINE_STEP)
        return um_fail(UM_EINVAL, "%s: input %dx%d, want multiples of %d up to %d", name, w, h,
                       UM_DFINE_STEP, UM_INPUT_MAX);
    for (int l = 0; l < d->size.levels; l++) {
        int stride = um_dfine_stride(d->size.levels, l);
        d->level_w[l] = w / stride;
        d->level_h[l] = h / stride;
        d->tokens += d->level_w[l] * d->level_h[l];
    }
    return um_dfine_check_queries(&d->info, d->size.levels);
}

/* Anchors of an input that cannot be told are no reason to take another one in silence. */
static um_status check_size_known(const um_weights *file, const struct um_dfine_info *info)
{
    const struct um_wtensor *a = um_weights_find(file, "decoder.anchors");
    if (!a || strcmp(info->size_from, "default") != 0)
        return UM_OK;
    return um_fail(UM_EFORMAT,
                   "%s: decoder.anchors fits no input with sides of multiples of %d, want one; say "
                   "the size that it was trained for (--det-size WxH)",
                   um_weights_path(file), UM_DFINE_STEP);
}

/* The file's ranges of int8 were measured with its own activation. */
static um_status check_ranges(const um_weights *file, const um_device *dev,
                              const struct um_dfine_info *info, const struct um_dfine_wish *wish)
{
    bool other = wish->act != UM_ACT_NONE && wish->act != info->act;
    if (!other || dev->quant || dev->layers != UM_I8 || !um_weights_meta(file, "int8"))
        return UM_OK;
    return um_fail(UM_EUNSUPPORTED,
                   "%s: its ranges for int8 were measured with another activation, want it "
                   "calibrated with this one: ultramotion convert --precision int8 --calibrate "
                   "SOURCE --det-act %s",
                   um_weights_path(file), wish->act == UM_ACT_SILU ? "silu" : "relu");
}

um_status um_dfine_open(um_dfine **out, um_device *dev, const um_weights *file,
                        const struct um_dfine_wish *wish)
{
    um_dfine *d = um_zalloc(sizeof *d);
    um_status st = d ? um_dfine_recognise(file, &d->info) : um_fail(UM_ENOMEM, "D-FINE");
    if (st == UM_OK && wish)
        st = check_ranges(file, dev, &d->info, wish);
    if (st == UM_OK && wish)
        um_dfine_obey(&d->info, wish);
    if (st == UM_OK)
        st = check_size_known(file, &d->info);
    if (st == UM_OK)
        st = um_dfine_measure(file, &d->size);
    if (st == UM_OK)
        st = plan_levels(d);
    if (st == UM_OK)
        st = um_params_open(&d->params, dev);
    if (st == UM_OK)
        st = um_dfine_bind(d, file);
    if (st != UM_OK)
        um_dfine_close(&d);
    *out = d;
    return st;
}

void um_dfine_close(um_dfine **d)
{
    if (!*d)
        return;
    um_params_close(&(*d)->params);
    um_free(*d);
    *d = NULL;
}

const struct um_dfine_info *um_dfine_info(const um_dfine *d)
{
    return &d->info;
}

size_t um_dfine_weight_bytes(const um_dfine *d)
{
    return um_params_bytes(d->params);
}
