/* SPDX-License-Identifier: Apache-2.0 */
/* Default bodies of the blocks, and the one-step form for backends that take a block whole. */
#include "nn/block.h"

#include "nn/op_dfine.h"

#include <math.h>

static um_tensor bias(um_tape *t, const um_conv *conv)
{
    return um_row_const(t, conv->params, conv->b, conv->o);
}

static um_tensor gamma_of(um_tape *t, const um_norm *norm)
{
    return norm ? um_row_const(t, norm->params, norm->gamma, norm->c) : (um_tensor){0};
}

static um_tensor beta_of(um_tape *t, const um_norm *norm)
{
    return norm ? um_row_const(t, norm->params, norm->beta, norm->c) : (um_tensor){0};
}

static const um_tensor none; /* id 0: no tensor */

/* ---- linear layers ---- */

enum { OWNED_COLUMNS = 512 }; /* a block of threads that normalises a row has all of it */

static um_tensor linear_step(um_tape *t, const um_conv *conv, um_tensor x,
                             const struct um_linear_opts *e, um_tensor y, bool up)
{
    const um_conv *second = e->second;
    struct um_linear_args a = {.n = conv->o,
                               .act = e->act,
                               .out_act = e->norm_act,
                               .limit = e->limit,
                               .add_last = e->add_last,
                               .up = up,
                               .eps_in = e->norm_in ? e->norm_in->eps : 0,
                               .eps_out = e->norm_out ? e->norm_out->eps : 0,
                               .group = e->norm_out ? e->norm_out->c : 0};
    um_op_step(t, UM_OP_LINEAR, &a, y, x, um_conv_weights(t, conv), bias(t, conv), e->add, e->plus,
               second ? um_conv_weights(t, second) : none, second ? bias(t, second) : none,
               gamma_of(t, e->norm_in), beta_of(t, e->norm_in), gamma_of(t, e->norm_out),
               beta_of(t, e->norm_out));
    return y;
}

/* One channel for all columns: no residual of a convolution. */
static bool is_broadcast(const um_conv *conv, um_tensor add)
{
    return add.id && add.c == 1 && conv->o > 1;
}

/* The same as primitives. */
static um_tensor linear_body(um_tape *t, const um_conv *conv, um_tensor x,
                             const struct um_linear_opts *e)
{
    struct um_conv_opts c = {.act = e->act,
                             .limit = e->limit,
                             .add = e->add,
                             .add_last = e->add_last,
                             .out = e->out,
                             .fp32 = e->fp32};
    struct um_add_opts after = {.act = UM_ACT_NONE};
    if (e->norm_in)
        x = um_layer_norm(t, e->norm_in, x, none, UM_ACT_NONE);
    um_tensor placed = e->plus.id ? um_add(t, x, e->plus) : x, y = none;
    bool broadcast = is_broadcast(conv, e->add);
    if (broadcast) {
        c.add = none;
        if (!e->add_last) { /* the activation comes after the sum */
            after = (struct um_add_opts){.act = e->act, .limit = e->limit};
            c.act = UM_ACT_NONE;
        }
    }
    if (e->second) {
        y = um_tape_new(t, e->fp32 ? UM_F32 : x.dtype, x.h, x.w, conv->o + e->second->o);
        c.out = um_slice(y, 0, conv->o);
        um_conv2d_(t, conv, placed, c);
        c.out = um_slice(y, conv->o, e->second->o);
        um_conv2d_(t, e->second, x, c);
    } else
        y = um_conv2d_(t, conv, placed, c);
    if (broadcast)
        y = um_add_(t, y, e->add, after);
    return e->norm_out ? um_layer_norm(t, e->norm_out, y, none, e->norm_act) : y;
}

/* Absent, or c channels for each row of x. */
static bool fits_rows(um_tensor x, um_tensor y, int c)
{
    return !y.id || (y.h * y.w == x.h * x.w && y.c == c);
}

/* What does not go together: nothing that is asked for is left out in silence. */
static bool linear_makes_sense(um_tape *t, const um_conv *conv, const struct um_linear_opts *e)
{
    const um_conv *second = e->second;
    return um_op_check(t, UM_OP_LINEAR,
                       conv->kh == 1 && conv->kw == 1 && conv->stride == 1 && !conv->depthwise,
                       "a %dx%d convolution, stride %d", conv->kh, conv->kw, conv->stride) &&
           um_op_check(t, UM_OP_LINEAR,
                       !second ||
                           (second->i == conv->i && !e->add.id && !e->out.id && !e->norm_out),
                       "two layers of %d and %d inputs have no addend, output or norm in common",
                       conv->i, second ? second->i : 0) &&
           um_op_check(t, UM_OP_LINEAR, !e->out.id || !(e->norm_out || is_broadcast(conv, e->add)),
                       "what is normalised or broadcast at the end makes its own output") &&
           um_op_check(t, UM_OP_LINEAR, e->norm_out || e->norm_act == UM_ACT_NONE,
                       "an activation after the norm, and no norm") &&
           um_op_no_clamp(t, UM_OP_LINEAR, e->norm_act);
}

um_tensor um_linear_(um_tape *t, const um_conv *conv, um_tensor x, struct um_linear_opts e)
{
    int columns = conv->o + (e.second ? e.second->o : 0);
    bool around = e.norm_in || e.norm_out || e.plus.id || e.second || is_broadcast(conv, e.add);
    if (!linear_makes_sense(t, conv, &e))
        return none;
    if (!around)
        return linear_body(t, conv, x, &e);
    if (!um_op_check(t, UM_OP_LINEAR,
                     x.c == conv->i && (!e.norm_in || e.norm_in->c == x.c) &&
                         (!e.norm_out || e.norm_out->c == columns) && fits_rows(x, e.plus, x.c) &&
                         fits_rows(x, e.out, columns) &&
                         (fits_rows(x, e.add, columns) || fits_rows(x, e.add, 1)),
                     "input [%d,%d,%d], weights %d -> %d, plus [%d,%d,%d], residual [%d,%d,%d], "
                     "output [%d,%d,%d]",
                     x.h, x.w, x.c, conv->i, columns, e.plus.h, e.plus.w, e.plus.c, e.add.h,
                     e.add.w, e.add.c, e.out.h, e.out.w, e.out.c))
        return none;
    bool fits = !e.norm_out || columns <= OWNED_COLUMNS;
    if (!um_tape_takes(t, UM_OP_LINEAR) || !fits)
        return linear_body(t, conv, x, &e);
    um_tensor y = e.out;
    if (!y.id)
        y = um_tape_new(t, e.fp32 ? UM_F32 : x.dtype, x.h, x.w, columns);
    return linear_step(t, conv, x, &e, y, false);
}

um_tensor um_upconv2_norm(um_tape *t, const um_conv *conv, um_tensor x, const um_norm *norm,
                          enum um_act act)
{
    int c = conv->o / 4;
    if (!um_op_check(t, UM_OP_UPCONV2, x.c == conv->i && norm->c == c,
                     "input has %d channels, weights %d -> %d, norm %d", x.c, conv->i, c,
                     norm->c) ||
        !um_op_no_clamp(t, UM_OP_UPCONV2, act))
        return none;
    if (!um_tape_takes(t, UM_OP_LINEAR) || conv->o > OWNED_COLUMNS)
        return um_layer_norm(t, norm, um_upconv2(t, conv, x), none, act);
    struct um_linear_opts e = {.norm_out = norm, .norm_act = act};
    return linear_step(t, conv, x, &e, um_tape_new(t, x.dtype, 2 * x.h, 2 * x.w, c), true);
}

/* ---- blocks ---- */

um_tensor um_mlp(um_tape *t, const struct um_mlp *w, um_tensor x)
{
    int hidden = w->fc1.o;
    if (!um_op_check(t, UM_OP_MLP,
                     x.c == w->fc1.i && w->fc2.i == hidden && w->norm.c == x.c && w->fc2.o == x.c,
                     "x has %d channels, fc1 %d -> %d, fc2 %d -> %d", x.c, w->fc1.i, hidden,
                     w->fc2.i, w->fc2.o))
        return none;
    if (um_tape_takes(t, UM_OP_MLP)) {
        struct um_mlp_args a = {.eps = w->norm.eps, .hidden = hidden};
        um_tensor y = um_tape_new(t, x.dtype, x.h, x.w, x.c);
        um_op_step(t, UM_OP_MLP, &a, y, x, gamma_of(t, &w->norm), beta_of(t, &w->norm),
                   um_conv_weights(t, &w->fc1), bias(t, &w->fc1), um_conv_weights(t, &w->fc2),
                   bias(t, &w->fc2));
        return y;
    }
    um_tensor h = um_linear(t, &w->fc1, x, .norm_in = &w->norm, .act = UM_ACT_GELU);
    return um_linear(t, &w->fc2, h, .add = x);
}

um_tensor um_mbconv(um_tape *t, const struct um_mbconv *w, um_tensor x, bool residual)
{
    int hidden = w->expand.o;
    if (!um_op_check(t, UM_OP_MBCONV,
                     x.c == w->expand.i && w->dw.o == hidden && w->project.i == hidden &&
                         w->dw.kh == 3 && w->dw.kw == 3 &&
                         (!residual || (w->project.o == x.c && w->dw.stride == 1)),
                     "x has %d channels, %d -> %d, depthwise %d stride %d, %d -> %d", x.c,
                     w->expand.i, hidden, w->dw.o, w->dw.stride, w->project.i, w->project.o))
        return none;
    if (um_tape_takes(t, UM_OP_MBCONV)) {
        struct um_mbconv_args a = {.hidden = hidden, .stride = w->dw.stride, .residual = residual};
        um_tensor y = um_tape_new(t, x.dtype, (x.h - 1) / a.stride + 1, (x.w - 1) / a.stride + 1,
                                  w->project.o);
        um_op_step(t, UM_OP_MBCONV, &a, y, x, um_conv_weights(t, &w->expand), bias(t, &w->expand),
                   um_conv_weights(t, &w->dw), bias(t, &w->dw), um_conv_weights(t, &w->project),
                   bias(t, &w->project));
        return y;
    }
    um_tensor h = um_conv2d(t, &w->expand, x, .act = UM_ACT_GELU);
    h = um_conv2d(t, &w->dw, h, .act = UM_ACT_GELU);
    if (!residual)
        return um_conv2d(t, &w->project, h);
    return um_conv2d(t, &w->project, h, .act = UM_ACT_GELU, .add = x);
}

static um_tensor stem_layer(um_tape *t, const struct um_stem *w, int i, um_tensor x,
                            struct um_conv_opts e)
{
    e.act = UM_ACT_RELU;
    e.lab_scale = w->affine.lab_scale[i];
    e.lab_shift = w->affine.lab_shift[i];
    return um_conv2d_(t, &w->conv[i], x, e);
}

/* Floats, one input for the gray or three, and 16 channels: what the kernel has. */
static bool stem_is_common(const struct um_stem *w, um_tensor x)
{
    static const int channels[UM_STEM_LAYERS] = {16, 8, 16, 16};
    for (int i = 0; i < UM_STEM_LAYERS; i++)
        if (w->conv[i].o != channels[i] || w->conv[i].type != UM_U8)
            return false;
    return (x.c == 1 || x.c == 3) && x.w >= 64;
}

um_tensor um_stem(um_tape *t, const struct um_stem *w, um_tensor x)
{
    const um_conv *f = w->conv;
    int m = f[0].o, half_h = (x.h - 1) / 2 + 1, half_w = (x.w - 1) / 2 + 1;
    if (!um_op_check(t, UM_OP_STEM,
                     f[0].i == x.c && f[1].i == m && f[2].i == f[1].o && f[2].o == m &&
                         f[3].i == 2 * m && f[0].kh == 3 && f[0].stride == 2 && f[1].kh == 2 &&
                         f[2].kh == 2 && f[3].kh == 3 && f[3].stride == 2,
                     "x has %d channels, layers %d -> %d, %d -> %d, %d -> %d, %d -> %d", x.c,
                     f[0].i, m, f[1].i, f[1].o, f[2].i, f[2].o, f[3].i, f[3].o))
        return none;
    if (um_tape_takes(t, UM_OP_STEM) && stem_is_common(w, x)) {
        um_tensor y = um_tape_new(t, x.dtype, (half_h - 1) / 2 + 1, (half_w - 1) / 2 + 1, f[3].o);
        um_op_step(t, UM_OP_STEM, &w->affine, y, x, um_conv_weights(t, &f[0]), bias(t, &f[0]),
                   um_conv_weights(t, &f[1]), bias(t, &f[1]), um_conv_weights(t, &f[2]),
                   bias(t, &f[2]), um_conv_weights(t, &f[3]), bias(t, &f[3]));
        return y;
    }
    um_tensor a = stem_layer(t, w, 0, x, (struct um_conv_opts){0});
    um_tensor both = um_tape_new(t, a.dtype, a.h, a.w, 2 * m);
    um_tensor b = stem_layer(t, w, 1, a, (struct um_conv_opts){.out_h = a.h, .out_w = a.w});
    stem_layer(t, w, 2, b,
               (struct um_conv_opts){.out = um_slice(both, m, m), .out_h = a.h, .out_w = a.w});
    um_maxpool2(t, a, um_slice(both, 0, m));
    return stem_layer(t, w, 3, both, (struct um_conv_opts){0});
}

um_tensor um_window_block(um_tape *t, const struct um_window_block *w, um_tensor x)
{
    um_params *p = w->norm.params;
    if (!um_op_check(t, UM_OP_WINDOW_BLOCK,
                     x.c == w->norm.c && w->qkv.i == x.c && w->qkv.o == 3 * x.c &&
                         w->proj.i == x.c && w->proj.o == x.c,
                     "x has %d channels, norm %d, qkv %d -> %d, proj %d -> %d", x.c, w->norm.c,
                     w->qkv.i, w->qkv.o, w->proj.i, w->proj.o))
        return none;
    um_tensor pad = um_tape_const(t, p, w->pad_qkv, UM_F32, 1, 1, 3 * x.c);
    um_tensor table = um_tape_const(t, p, w->bias, UM_F32, 1, w->heads, w->window * w->window);
    if (um_tape_takes(t, UM_OP_WINDOW_BLOCK)) {
        struct um_window_block_args a = {.eps = w->norm.eps,
                                         .window = w->window,
                                         .heads = w->heads,
                                         .bf16 = um_attends_in_bf16(&w->qkv),
                                         .how = um_tape_narrow(t)};
        um_tensor y = um_tape_new(t, x.dtype, x.h, x.w, x.c);
        um_op_step(t, UM_OP_WINDOW_BLOCK, &a, y, x, gamma_of(t, &w->norm), beta_of(t, &w->norm),
                   um_conv_weights(t, &w->qkv), bias(t, &w->qkv), pad, table,
                   um_conv_weights(t, &w->proj), bias(t, &w->proj));
        return y;
    }
    um_tensor h = um_linear(t, &w->qkv, x, .norm_in = &w->norm);
    h = um_window_attention(t, h, pad, table, w->window, w->heads);
    return um_linear(t, &w->proj, h, .add = x);
}

/* ---- chains of layers on rows ---- */

static struct um_chain_out chain_body(um_tape *t, um_tensor x, const struct um_chain *c)
{
    struct um_chain_out out = {none, none, none};
    um_tensor base = c->base;
    if (c->index.id) {
        x = um_gather(t, x, c->index);
        if (base.id)
            base = um_gather(t, base, c->index);
    }
    if (c->pick)
        out.picked = x;
    um_tensor y = c->plus.id ? um_add(t, x, c->plus) : x;
    for (int i = 0; i < c->layers; i++) {
        bool last = i + 1 == c->layers;
        y = um_linear(t, &c->layer[i], y, .act = c->act[i], .limit = c->limit,
                      .add = last ? c->add : none,
                      .out = last && c->finish != UM_FINISH_REFINE ? c->out : none);
    }
    if (c->tap)
        um_tap(t, c->tap, y);
    out.y = c->finish == UM_FINISH_REFINE ? um_refine(t, y, base, c->inverse) : y;
    if (c->finish == UM_FINISH_BOX)
        out.box = um_integral(t, y, base, c->project, c->reg_scale);
    return out;
}

struct um_chain_out um_chain(um_tape *t, um_tensor x, const struct um_chain *c)
{
    struct um_chain_out out = {none, none, none};
    struct um_chain_args a = {.layers = c->layers,
                              .limit = c->limit,
                              .finish = c->finish,
                              .inverse = c->inverse,
                              .reg_scale = c->reg_scale};
    um_tensor w[3] = {none}, b[3] = {none};
    bool fits = x.c <= OWNED_COLUMNS;
    for (int i = 0; i < c->layers && i < 3; i++)
        fits = fits && c->layer[i].o <= OWNED_COLUMNS;
    if (!um_op_check(t, UM_OP_CHAIN, c->layers == 2 || c->layers == 3, "%d layers", c->layers))
        return out;
    if (!um_tape_takes(t, UM_OP_CHAIN) || !fits)
        return chain_body(t, x, c);
    int rows = c->index.id ? c->index.h * c->index.w : x.h * x.w, in = x.c;
    for (int i = 0; i < c->layers; i++) {
        if (!um_op_check(t, UM_OP_CHAIN, c->layer[i].i == in, "layer %d has %d inputs, not %d", i,
                         c->layer[i].i, in))
            return out;
        in = a.width[i] = c->layer[i].o;
        a.act[i] = c->act[i];
        w[i] = um_conv_weights(t, &c->layer[i]);
        b[i] = bias(t, &c->layer[i]);
    }
    bool refine = c->finish == UM_FINISH_REFINE, box = c->finish == UM_FINISH_BOX;
    if (!um_op_check(t, UM_OP_CHAIN,
                     (!refine || (c->base.id && c->base.c == in)) &&
                         (!box || (c->base.id && c->base.c == 4 && c->project.id &&
                                   in == 4 * c->project.h * c->project.w)) &&
                         (!c->plus.id || (c->plus.h * c->plus.w == rows && c->plus.c == x.c)) &&
                         (!c->add.id || (c->add.h * c->add.w == rows && c->add.c == in)) &&
                         (!c->out.id || (c->out.h * c->out.w == rows && c->out.c == in)),
                     "%d rows of %d: base [%d,%d,%d], plus [%d,%d,%d], residual [%d,%d,%d]", rows,
                     in, c->base.h, c->base.w, c->base.c, c->plus.h, c->plus.w, c->plus.c, c->add.h,
                     c->add.w, c->add.c))
        return out;
    out.y = c->out.id ? c->out : um_tape_new(t, UM_F32, 1, rows, in);
    if (box)
        out.box = um_tape_new(t, UM_F32, 1, rows, 4);
    if (c->pick)
        out.picked = um_tape_new(t, UM_F32, 1, rows, x.c);
    um_op_step(t, UM_OP_CHAIN, &a, out.y, out.box, out.picked, x, c->index, c->plus, w[0], b[0],
               w[1], b[1], w[2], b[2], c->add, c->base, c->project);
    return out;
}

/* ---- D-FINE's gateway ---- */

um_tensor um_gateway(um_tape *t, const um_conv *wa, const um_conv *wb, const um_norm *norm,
                     um_tensor a, um_tensor b)
{
    if (!um_tape_takes(t, UM_OP_GATE) || a.dtype != UM_F32 || wa->i % 8 || wa->i > OWNED_COLUMNS) {
        um_tensor g = um_linear(t, wa, a);
        g = um_linear(t, wb, b, .add = g, .act = UM_ACT_SIGMOID);
        return um_gate_norm(t, norm, g, a, b);
    }
    if (!um_op_check(t, UM_OP_GATE,
                     a.c == b.c && a.h * a.w == b.h * b.w && wa->i == a.c && wb->i == a.c &&
                         wa->o == 2 * a.c && wb->o == 2 * a.c && norm->c == a.c,
                     "inputs [%d rows, %d], [%d rows, %d], weights %d -> %d", a.h * a.w, a.c,
                     b.h * b.w, b.c, wa->i, wa->o))
        return none;
    struct um_norm_args args = {.eps = norm->eps};
    um_tensor y = um_tape_new(t, a.dtype, a.h, a.w, a.c);
    um_op_step(t, UM_OP_GATE, &args, y, a, b, um_conv_weights(t, wa), bias(t, wa),
               um_conv_weights(t, wb), gamma_of(t, norm), beta_of(t, norm));
    return y;
}

/* ---- self-attention of a few tokens ---- */

um_tensor um_token_attention(um_tape *t, const struct um_token_attention *w, um_tensor x,
                             um_tensor plus)
{
    int c = x.c;
    float scale = 1 / sqrtf((float)(c / w->heads));
    if (!um_op_check(t, UM_OP_TOKENS,
                     w->qk->i == c && w->qk->o == (w->v ? 2 : 3) * c && (w->v || !plus.id) &&
                         c % w->heads == 0,
                     "%d channels, weights %d -> %d, %d heads", c, w->qk->i, w->qk->o, w->heads))
        return none;
    if (um_tape_takes(t, UM_OP_TOKENS) && x.h * x.w <= UM_TOKENS_MAX && c <= 256) {
        struct um_tokens_args a = {
            .heads = w->heads, .scale = scale, .eps = w->norm->eps, .residual = w->residual};
        um_tensor y = um_tape_new(t, x.dtype, x.h, x.w, c);
        um_op_step(t, UM_OP_TOKENS, &a, y, x, plus, um_conv_weights(t, w->qk), bias(t, w->qk),
                   w->v ? um_conv_weights(t, w->v) : none, w->v ? bias(t, w->v) : none,
                   um_conv_weights(t, w->out), bias(t, w->out), gamma_of(t, w->norm),
                   beta_of(t, w->norm));
        return y;
    }
    um_tensor qkv = um_linear(t, w->qk, x, .plus = plus, .second = w->v);
    um_tensor y = um_attention(t, um_slice(qkv, 0, c), um_slice(qkv, c, c), um_slice(qkv, 2 * c, c),
                               w->heads, scale, false);
    return um_linear(t, w->out, y, .add = w->residual ? x : none, .norm_out = w->norm);
}

/* ---- tokens and image ---- */

/* Weights as rows, [c][dim]. */
static um_tensor rows_of(um_tape *t, um_params *p, um_const k, int c, int dim)
{
    return um_tape_const(t, p, k, UM_F32, 1, c, dim);
}

struct um_image_view um_image_view_open(um_tape *t, const struct um_image_side *side, um_tensor x,
                                        um_tensor place, int tokens)
{
    enum { DIM = 256, PIXELS = 1 << 15 }; /* the most that a thread's scratch has room for */
    struct um_image_view v = {.side = side, .x = x, .place = place};
    bool fits = tokens * UM_CROSS_HEADS <= UM_CROSS_LANES && x.h * x.w <= PIXELS && x.c <= DIM &&
                x.c % 64 == 0 && side->v.o % (UM_CROSS_HEADS * 8) == 0 && x.dtype == UM_F32 &&
                place.dtype == UM_F32;
    if (!fits || !um_tape_takes(t, UM_OP_TOKEN_TO_IMAGE) || !um_tape_takes(t, UM_OP_IMAGE_TO_TOKEN))
        v.kqv = um_linear(t, &side->kq, x, .plus = place, .second = &side->v);
    return v;
}

static struct um_cross_args cross_args(const um_tape *t, const struct um_image_side *w,
                                       const um_norm *norm)
{
    return (struct um_cross_args){.scale = 1 / sqrtf((float)(w->v.o / UM_CROSS_HEADS)),
                                  .eps = norm ? norm->eps : 0,
                                  .bf16 = w->bf16,
                                  .how = um_tape_narrow(t)};
}

um_tensor um_token_to_image(um_tape *t, const struct um_image_view *image, um_tensor q)
{
    const struct um_image_side *w = image->side;
    um_params *p = w->v.params;
    int c = w->v.o, dim = image->x.c;
    if (!um_op_check(t, UM_OP_TOKEN_TO_IMAGE, q.c == c, "%d channels, want %d", q.c, c))
        return none;
    struct um_cross_args a = cross_args(t, w, NULL);
    if (image->kqv.id)
        return um_attention(t, q, um_slice(image->kqv, 0, c), um_slice(image->kqv, w->kq.o, c),
                            UM_CROSS_HEADS, a.scale, false);
    um_tensor y = um_tape_new(t, UM_F32, q.h, q.w, c);
    um_op_step(t, UM_OP_TOKEN_TO_IMAGE, &a, y, q, image->x, image->place,
               rows_of(t, p, w->k_rows, c, dim), rows_of(t, p, w->v_rows, c, dim), bias(t, &w->v));
    return y;
}

um_tensor um_image_to_token(um_tape *t, const struct um_image_view *image, um_tensor k, um_tensor v,
                            const struct um_image_out *out)
{
    const struct um_image_side *w = image->side;
    um_params *p = w->v.params;
    int c = w->v.o, dim = image->x.c;
    if (!um_op_check(t, UM_OP_IMAGE_TO_TOKEN,
                     k.c == c && v.c == c && w->kq.o == 2 * c && out->out.o == dim &&
                         k.h * k.w == v.h * v.w,
                     "keys of %d channels, values of %d, queries of %d, want %d; %d outputs", k.c,
                     v.c, w->kq.o - c, c, out->out.o))
        return none;
    struct um_cross_args a = cross_args(t, w, out->norm);
    if (image->kqv.id) {
        um_tensor y =
            um_attention(t, um_slice(image->kqv, c, c), k, v, UM_CROSS_HEADS, a.scale, false);
        return um_linear(t, &out->out, y, .add = image->x, .norm_out = out->norm);
    }
    um_tensor y = um_tape_new(t, UM_F32, image->x.h, image->x.w, dim);
    um_op_step(t, UM_OP_IMAGE_TO_TOKEN, &a, y, image->x, image->place, k, v,
               rows_of(t, p, w->q_rows, c, dim), um_slice(bias(t, &w->kq), c, c),
               rows_of(t, p, out->columns, c, dim), bias(t, &out->out), gamma_of(t, out->norm),
               beta_of(t, out->norm));
    return y;
}

/* ---- both ends of a frame ---- */

/* One input made of primitives. */
static void front_default(um_tape *t, um_params *p, um_tensor x, const struct um_front_input *in)
{
    um_tensor small = in->fit == UM_FIT_RATIO     ? um_area_record(t, p, &in->area, x)
                      : in->fit == UM_FIT_STRETCH ? um_spline_record(t, p, &in->spline, x)
                                                  : um_resize_record(t, p, &in->plan, x);
    um_tensor lut = in->lut.id ? in->lut : um_levels(t, um_range(t, small), in->out.c);
    um_normalize(t, small, lut, in->out);
}

/* A table of taps; absent where that side keeps its size. */
static um_tensor taps_of(um_tape *t, um_params *p, um_const k, int n, int most)
{
    return k.size ? um_tape_const(t, p, k, UM_I32, 1, n, 2 + most) : none;
}

void um_front_record(um_tape *t, um_params *p, um_tensor x, const struct um_front_input *all,
                     int inputs)
{
    struct um_front_input in[2] = {{.out = {0}}}; /* of the fused step */
    int n = 0;
    for (int i = 0; i < inputs; i++)
        if (um_tape_takes(t, UM_OP_FRONT) && all[i].fit == UM_FIT_LONGEST && all[i].lut.id)
            in[n++] = all[i];
        else
            front_default(t, p, x, &all[i]);
    if (!n)
        return;
    struct um_front_args a = {.new_h = {0}};
    um_tensor tx[2] = {none}, ty[2] = {none};
    for (int i = 0; i < n; i++) {
        const struct um_resize_plan *plan = &in[i].plan;
        a.new_h[i] = plan->h_out;
        a.new_w[i] = plan->w_out;
        a.inner_h[i] = plan->inner_h;
        a.inner_w[i] = plan->inner_w;
        a.smooth[i] = plan->smooth;
        a.vertical_first[i] =
            um_resize_vertical_first(plan->h_in, plan->w_in, plan->inner_h, plan->inner_w);
        tx[i] = taps_of(t, p, plan->tx, plan->w_out, plan->kx);
        ty[i] = taps_of(t, p, plan->ty, plan->h_out, plan->ky);
    }
    um_op_step(t, UM_OP_FRONT, &a, in[0].out, in[1].out, x, in[0].lut, tx[0], ty[0], in[1].lut,
               tx[1], ty[1]);
}

um_tensor um_mask_packet(um_tape *t, const struct um_mask_packet *m)
{
    if (!um_tape_takes(t, UM_OP_MASK_PACKET)) {
        um_tensor mask = um_mask_upsample(t, m->low, m->tx, m->ty, m->gate, none);
        struct um_mask_stats stats = um_mask_statistics(t, mask);
        return um_packet_op(t, stats.record, mask, m->gate, m->iou, m->low, m->header, m->out);
    }
    int h = m->ty.h * m->ty.w, w = m->tx.h * m->tx.w;
    if (!um_op_check(t, UM_OP_MASK_PACKET,
                     m->low.dtype == UM_F32 && m->low.c == 1 && m->low.h >= 3 && m->low.w >= 3 &&
                         m->tx.c == 4 && m->ty.c == 4 && m->work.c == UM_MASK_WORK_BYTES,
                     "logits [%d,%d,%d], tables %d and %d wide", m->low.h, m->low.w, m->low.c,
                     m->tx.c, m->ty.c))
        return none;
    int bytes = UM_RECORD_BYTES + h * um_mask_row_bytes(w);
    if (!um_op_check(t, UM_OP_MASK_PACKET, !m->out.id || m->out.c == bytes,
                     "packet of %d bytes, want %d", m->out.c, bytes))
        return none;
    um_tensor y = m->out.id ? m->out : um_tape_new(t, UM_U8, 1, 1, bytes);
    um_op_step(t, UM_OP_MASK_PACKET, NULL, y, m->work, m->low, m->tx, m->ty, m->gate, m->iou,
               m->header);
    return y;
}
