/* SPDX-License-Identifier: Apache-2.0 */
/* Default bodies of the blocks, and the one-step form for backends that take a block whole. */
#include "nn/block.h"

static um_tensor row(um_tape *t, um_params *p, um_const k, int c)
{
    return k.size ? um_tape_const(t, p, k, UM_F32, 1, 1, c) : (um_tensor){0};
}

static um_tensor packed(um_tape *t, const um_conv *conv)
{
    if (conv->depthwise)
        return um_tape_const(t, conv->params, conv->w, UM_F32, 1, conv->kh * conv->kw, conv->o);
    return um_tape_const(t, conv->params, conv->w, UM_U8, 1, 1, (int)conv->w.size);
}

static um_tensor bias(um_tape *t, const um_conv *conv)
{
    return row(t, conv->params, conv->b, conv->o);
}

um_tensor um_mlp(um_tape *t, const struct um_mlp *w, um_tensor x, enum um_act act, bool residual)
{
    bool norm = w->norm.params != NULL;
    int hidden = w->fc1.o;
    if (!um_op_check(t, UM_OP_MLP,
                     x.c == w->fc1.i && w->fc2.i == hidden && (!norm || w->norm.c == x.c) &&
                         (!residual || w->fc2.o == x.c),
                     "x has %d channels, fc1 %d -> %d, fc2 %d -> %d", x.c, w->fc1.i, hidden,
                     w->fc2.i, w->fc2.o))
        return (um_tensor){0};
    if (um_tape_takes(t, UM_OP_MLP)) {
        struct um_mlp_args a = {
            .eps = w->norm.eps, .hidden = hidden, .act = act, .residual = residual};
        um_tensor y = um_tape_new(t, UM_F32, x.h, x.w, w->fc2.o);
        um_tensor gamma = norm ? row(t, w->norm.params, w->norm.gamma, x.c) : (um_tensor){0};
        um_tensor beta = norm ? row(t, w->norm.params, w->norm.beta, x.c) : (um_tensor){0};
        um_op_step(t, UM_OP_MLP, &a, sizeof a,
                   (um_tensor[]){y, x, gamma, beta, packed(t, &w->fc1), bias(t, &w->fc1),
                                 packed(t, &w->fc2), bias(t, &w->fc2)},
                   8, 1);
        return y;
    }
    um_tensor none = {0};
    um_tensor h = norm ? um_layer_norm(t, &w->norm, x, none, UM_ACT_NONE) : x;
    h = um_linear(t, &w->fc1, h, .act = act);
    return um_linear(t, &w->fc2, h, .add = residual ? x : none);
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
        return (um_tensor){0};
    if (um_tape_takes(t, UM_OP_MBCONV)) {
        struct um_mbconv_args a = {.hidden = hidden, .stride = w->dw.stride, .residual = residual};
        um_tensor y = um_tape_new(t, UM_F32, (x.h - 1) / a.stride + 1, (x.w - 1) / a.stride + 1,
                                  w->project.o);
        um_op_step(t, UM_OP_MBCONV, &a, sizeof a,
                   (um_tensor[]){y, x, packed(t, &w->expand), bias(t, &w->expand),
                                 packed(t, &w->dw), bias(t, &w->dw), packed(t, &w->project),
                                 bias(t, &w->project)},
                   8, 1);
        return y;
    }
    um_tensor h = um_conv2d(t, &w->expand, x, .act = UM_ACT_GELU);
    h = um_conv2d(t, &w->dw, h, .act = UM_ACT_GELU);
    if (!residual)
        return um_conv2d(t, &w->project, h);
    return um_conv2d(t, &w->project, h, .act = UM_ACT_GELU, .add = x);
}

um_tensor um_window_block(um_tape *t, const struct um_window_block *w, um_tensor x)
{
    um_params *p = w->norm.params;
    if (!um_op_check(t, UM_OP_WINDOW_BLOCK,
                     x.c == w->norm.c && w->qkv.i == x.c && w->qkv.o == 3 * x.c &&
                         w->proj.i == x.c && w->proj.o == x.c,
                     "x has %d channels, norm %d, qkv %d -> %d, proj %d -> %d", x.c, w->norm.c,
                     w->qkv.i, w->qkv.o, w->proj.i, w->proj.o))
        return (um_tensor){0};
    um_tensor pad = um_tape_const(t, p, w->pad_qkv, UM_F32, 1, 1, 3 * x.c);
    um_tensor table = um_tape_const(t, p, w->bias, UM_F32, 1, w->heads, w->window * w->window);
    if (um_tape_takes(t, UM_OP_WINDOW_BLOCK)) {
        struct um_window_block_args a = {
            .eps = w->norm.eps, .window = w->window, .heads = w->heads};
        um_tensor y = um_tape_new(t, UM_F32, x.h, x.w, x.c);
        um_op_step(t, UM_OP_WINDOW_BLOCK, &a, sizeof a,
                   (um_tensor[]){y, x, row(t, p, w->norm.gamma, x.c), row(t, p, w->norm.beta, x.c),
                                 packed(t, &w->qkv), bias(t, &w->qkv), pad, table,
                                 packed(t, &w->proj), bias(t, &w->proj)},
                   10, 1);
        return y;
    }
    um_tensor h = um_layer_norm(t, &w->norm, x, (um_tensor){0}, UM_ACT_NONE);
    h = um_linear(t, &w->qkv, h);
    h = um_window_attention(t, h, pad, table, w->window, w->heads);
    return um_linear(t, &w->proj, h, .add = x);
}
