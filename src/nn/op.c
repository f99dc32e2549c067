/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op.h"

#include "base/mem.h"
#include "nn/quant.h"
#include "nn/record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PRIMITIVE_SIMD true
#define PRIMITIVE_PLAIN true
#define PRIMITIVE_BLOCK false
#define PRIMITIVE_WIDE false
#define PRIMITIVE_NONE false
#define INFO(with, entry, op_name, host, gpu, args, outputs, ...)                   \
    [UM_OP_##entry] = {.name = #op_name,                                            \
                       .primitive = PRIMITIVE_##host,                               \
                       .n = sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), \
                       .n_out = (outputs),                                          \
                       .operand = {__VA_ARGS__}},
static const struct um_op_info table[UM_OPS] = {UM_OPERATORS(INFO, )};

const struct um_op_info *um_op_info(enum um_op op)
{
    return &table[op];
}

const char *um_op_name(enum um_op op)
{
    return table[op].name;
}

static bool takes(const um_device *dev, enum um_op op)
{
    const struct um_ops *ops = dev->ops;
    return ops->kernel[op] != NULL;
}

bool um_tape_takes(const um_tape *t, enum um_op op)
{
    return takes(um_tape_device(t), op);
}

bool um_params_takes(const um_params *p, enum um_op op)
{
    return takes(um_params_device(p), op);
}

enum um_narrow_how um_tape_narrow(const um_tape *t)
{
    const struct um_ops *ops = um_tape_device(t)->ops;
    return ops->narrow;
}

/* All operands are there that must be. */
static bool complete(um_tape *t, enum um_op op, const um_tensor *x, int n)
{
    const struct um_op_info *o = um_op_info(op);
    if (!um_op_check(t, op, n == o->n, "%d operands, want %d", n, o->n))
        return false;
    for (int i = 0; i < n; i++)
        if (!um_op_check(t, op, x[i].id || strchr(o->operand[i], '?'), "no operand %s",
                         o->operand[i]))
            return false;
    return true;
}

void um_op_step_(um_tape *t, enum um_op op, const void *args, size_t args_size, const um_tensor *x,
                 int n)
{
    const struct um_ops *ops = um_tape_device(t)->ops;
    if (um_tape_status(t) != UM_OK)
        return;
    if (!ops->kernel[op])
        um_tape_fail(
            t, um_fail(UM_EUNSUPPORTED, "%s: no kernel at level %s", um_op_name(op), ops->name));
    else if (complete(t, op, x, n))
        um_tape_step(t, um_op_info(op), ops->kernel[op], args, args ? args_size : 0, x);
}

bool um_op_check(um_tape *t, enum um_op op, bool ok, const char *fmt, ...)
{
    if (um_tape_status(t) != UM_OK)
        return false;
    if (ok)
        return true;
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    um_tape_fail(t, um_fail(UM_EINVAL, "%s: %s", um_op_name(op), why));
    return false;
}

bool um_op_no_clamp(um_tape *t, enum um_op op, enum um_act act)
{
    return um_op_check(t, op, act != UM_ACT_CLAMP, "no limit to clamp to");
}

static int64_t rows(um_tensor x)
{
    return (int64_t)x.h * x.w;
}

static bool same_shape(um_tensor a, um_tensor b)
{
    return a.h == b.h && a.w == b.w && a.c == b.c;
}

/* Convolutions take and make fp32 and the device's type. */
static bool is_activation(const um_tape *t, um_tensor x)
{
    return x.dtype == UM_F32 || (um_tape_status(t) == UM_OK && x.dtype == um_tape_act(t));
}

/* `out` if it names a tensor of this shape, else a new one. */
static um_tensor output(um_tape *t, enum um_op op, um_tensor out, enum um_dtype dtype, int h, int w,
                        int c)
{
    if (!out.id)
        return um_tape_new(t, dtype, h, w, c);
    um_op_check(t, op, rows(out) == (int64_t)h * w && out.c == c && is_activation(t, out),
                "output is [%d,%d,%d], want [%d,%d,%d]", out.h, out.w, out.c, h, w, c);
    return um_reshape(out, h, w);
}

/* ---- weights ---- */

um_conv um_conv_pack(um_params *p, const float *w, const float *b, int o, int i, int kh, int kw,
                     int stride, int pad, bool depthwise)
{
    um_conv conv = {.params = p,
                    .o = o,
                    .i = i,
                    .kh = kh,
                    .kw = kw,
                    .stride = stride,
                    .pad_top = pad,
                    .pad_left = pad,
                    .depthwise = depthwise};
    const struct um_ops *ops = um_params_device(p)->ops;
    int in = depthwise ? 1 : i;
    bool held = um_params_held(p);
    size_t weights = (size_t)o * (size_t)kh * (size_t)kw * (size_t)in;
    float *plain = held ? NULL : um_array(weights, sizeof *plain);
    if (!plain && !held) {
        um_params_fail(p, um_fail(UM_ENOMEM, "convolution weights %dx%dx%dx%d", o, in, kh, kw));
        return conv;
    }
    for (int oo = 0; plain && oo < o; oo++)
        for (int ii = 0; ii < in; ii++)
            for (int k = 0; k < kh * kw; k++) {
                float v = w[((size_t)oo * (size_t)in + (size_t)ii) * (size_t)(kh * kw) + (size_t)k];
                if (depthwise)
                    plain[(size_t)k * (size_t)o + (size_t)oo] = v;
                else
                    plain[((size_t)oo * (size_t)(kh * kw) + (size_t)k) * (size_t)in + (size_t)ii] =
                        v;
            }
    if (depthwise)
        conv.w = um_params_add(p, plain, (size_t)o * (size_t)(kh * kw) * sizeof *plain);
    else if (!um_params_quant(p) || !um_quant_pack(um_params_quant(p), &conv, plain)) {
        bool bf16 = um_params_bf16(p) && um_may_be_narrow(&conv);
        size_t (*pack)(void *, const float *, int, int, int, int) =
            bf16 ? ops->pack_bf16 : ops->pack_conv;
        void *dst = um_params_reserve(p, pack(NULL, plain, o, kh, kw, i), &conv.w);
        conv.type = bf16 ? UM_BF16 : UM_U8;
        if (dst)
            pack(dst, plain, o, kh, kw, i);
    }
    um_free(plain);
    if (b)
        conv.b = um_params_add(p, b, (size_t)o * sizeof *b);
    return conv;
}

um_conv um_linear_pack(um_params *p, const float *w, const float *b, int o, int i)
{
    return um_conv_pack(p, w, b, o, i, 1, 1, 1, 0, false);
}

um_conv um_upconv2_pack(um_params *p, const float *w, const float *b, int o, int i)
{
    if (um_params_held(p))
        return um_linear_pack(p, w, w, 4 * o, i); /* which are not read, but there */
    float *plain = um_array((size_t)4 * (size_t)o * ((size_t)i + 1), sizeof *plain);
    if (!plain) {
        um_params_fail(p, um_fail(UM_ENOMEM, "transposed convolution weights %dx%d", i, o));
        return (um_conv){.params = p};
    }
    float *bias = plain + (size_t)4 * (size_t)o * (size_t)i;
    for (int ab = 0; ab < 4; ab++)
        for (int oo = 0; oo < o; oo++) {
            size_t row = (size_t)ab * (size_t)o + (size_t)oo;
            for (int ii = 0; ii < i; ii++)
                plain[row * (size_t)i + (size_t)ii] =
                    w[((size_t)ii * (size_t)o + (size_t)oo) * 4 + (size_t)ab];
            bias[row] = b ? b[oo] : 0;
        }
    um_conv conv = um_linear_pack(p, plain, bias, 4 * o, i);
    um_free(plain);
    return conv;
}

um_norm um_norm_pack(um_params *p, const float *gamma, const float *beta, int c, float eps)
{
    return (um_norm){.params = p,
                     .gamma = um_params_add(p, gamma, (size_t)c * sizeof *gamma),
                     .beta = um_params_add(p, beta, (size_t)c * sizeof *beta),
                     .c = c,
                     .eps = eps};
}

um_tensor um_row_const(um_tape *t, um_params *p, um_const k, int c)
{
    return k.size ? um_tape_const(t, p, k, UM_F32, 1, 1, c) : (um_tensor){0};
}

um_tensor um_conv_weights(um_tape *t, const um_conv *conv)
{
    if (conv->depthwise)
        return um_tape_const(t, conv->params, conv->w, UM_F32, 1, conv->kh * conv->kw, conv->o);
    return um_tape_const(t, conv->params, conv->w, conv->type, 1, 1,
                         (int)(conv->w.size / um_dtype_size(conv->type)));
}

/* ---- primitives ---- */

um_tensor um_conv2d_(um_tape *t, const um_conv *conv, um_tensor x, struct um_conv_opts e)
{
    enum um_op op = conv->depthwise ? UM_OP_DWCONV : UM_OP_CONV2D;
    if (!um_op_check(t, op, x.c == conv->i && is_activation(t, x),
                     "input has %d channels, weights want %d", x.c, conv->i))
        return (um_tensor){0};
    int oh = e.out_h ? e.out_h : (x.h + 2 * conv->pad_top - conv->kh) / conv->stride + 1;
    int ow = e.out_w ? e.out_w : (x.w + 2 * conv->pad_left - conv->kw) / conv->stride + 1;
    um_tensor y = output(t, op, e.out, e.fp32 ? UM_F32 : x.dtype, oh, ow, conv->o);
    int ah = e.add_up2 ? oh / 2 : oh, aw = e.add_up2 ? ow / 2 : ow;
    if (e.add.id)
        um_op_check(t, op,
                    rows(e.add) == (int64_t)ah * aw && e.add.c == conv->o &&
                        (!e.add_up2 || (oh % 2 == 0 && ow % 2 == 0)),
                    "residual is [%d,%d,%d], want [%d,%d,%d]", e.add.h, e.add.w, e.add.c, ah, aw,
                    conv->o);
    struct um_conv_args a = {.kh = conv->kh,
                             .kw = conv->kw,
                             .stride = conv->stride,
                             .pad_top = conv->pad_top,
                             .pad_left = conv->pad_left,
                             .act = e.act,
                             .limit = e.limit,
                             .lab_scale = e.lab_scale,
                             .lab_shift = e.lab_shift,
                             .add_last = e.add_last,
                             .add_up2 = e.add_up2};
    um_tensor w = um_conv_weights(t, conv), b = um_row_const(t, conv->params, conv->b, conv->o);
    if (conv->depthwise)
        um_op_step(t, UM_OP_DWCONV, &a, y, x, w, b, e.add);
    else
        um_op_step(t, UM_OP_CONV2D, &a, y, x, w, b, e.add);
    return y;
}

um_tensor um_upconv2_(um_tape *t, const um_conv *conv, um_tensor x, struct um_upconv_opts e)
{
    if (!um_op_check(t, UM_OP_UPCONV2, x.c == conv->i, "input has %d channels, weights want %d",
                     x.c, conv->i) ||
        !um_op_no_clamp(t, UM_OP_UPCONV2, e.act))
        return (um_tensor){0};
    um_tensor y = output(t, UM_OP_UPCONV2, e.out, x.dtype, 2 * x.h, 2 * x.w, conv->o / 4);
    struct um_conv_args a = {.kh = 2, .kw = 2, .stride = 2, .act = e.act};
    um_op_step(t, UM_OP_UPCONV2, &a, y, x, um_conv_weights(t, conv),
               um_row_const(t, conv->params, conv->b, conv->o));
    return y;
}

um_tensor um_layer_norm(um_tape *t, const um_norm *norm, um_tensor x, um_tensor add,
                        enum um_act act)
{
    if (!um_op_check(t, UM_OP_LAYER_NORM, x.c == norm->c && (!add.id || same_shape(add, x)),
                     "x is [%d,%d,%d], norm has %d channels", x.h, x.w, x.c, norm->c) ||
        !um_op_no_clamp(t, UM_OP_LAYER_NORM, act))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, x.dtype, x.h, x.w, x.c);
    struct um_norm_args a = {.eps = norm->eps, .act = act};
    um_op_step(t, UM_OP_LAYER_NORM, &a, y, x, add, um_row_const(t, norm->params, norm->gamma, x.c),
               um_row_const(t, norm->params, norm->beta, x.c));
    return y;
}

um_tensor um_gate_norm(um_tape *t, const um_norm *norm, um_tensor g, um_tensor a, um_tensor b)
{
    if (!um_op_check(t, UM_OP_GATE_NORM,
                     same_shape(a, b) && rows(g) == rows(a) && g.c == 2 * a.c && a.c == norm->c,
                     "gate [%d rows, %d], inputs [%d rows, %d]", (int)rows(g), g.c, (int)rows(a),
                     a.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, a.dtype, a.h, a.w, a.c);
    struct um_norm_args args = {.eps = norm->eps};
    um_op_step(t, UM_OP_GATE_NORM, &args, y, g, a, b,
               um_row_const(t, norm->params, norm->gamma, a.c),
               um_row_const(t, norm->params, norm->beta, a.c));
    return y;
}

um_tensor um_add_(um_tape *t, um_tensor a, um_tensor b, struct um_add_opts e)
{
    bool row = rows(b) == 1 && b.c == a.c, channel = rows(b) == rows(a) && b.c == 1,
         full = rows(b) == rows(a) && b.c == a.c;
    if (!um_op_check(t, UM_OP_ADD, row || channel || full, "[%d,%d,%d] + [%d,%d,%d]", a.h, a.w, a.c,
                     b.h, b.w, b.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, a.dtype, a.h, a.w, a.c);
    struct um_add_args args = {.act = e.act, .limit = e.limit};
    um_op_step(t, UM_OP_ADD, &args, y, a, b);
    return y;
}

um_tensor um_maxpool2(um_tape *t, um_tensor x, um_tensor out)
{
    um_tensor y = output(t, UM_OP_MAXPOOL2, out, x.dtype, x.h, x.w, x.c);
    um_op_step(t, UM_OP_MAXPOOL2, NULL, y, x);
    return y;
}

bool um_attends_in_bf16(const um_conv *qkv)
{
    const struct um_ops *ops = um_params_device(qkv->params)->ops;
    return qkv->type == UM_BF16 || (qkv->type == UM_I8 && ops->bf16);
}

um_tensor um_attention(um_tape *t, um_tensor q, um_tensor k, um_tensor v, int heads, float scale,
                       bool bf16)
{
    if (!um_op_check(t, UM_OP_ATTENTION,
                     q.c == k.c && k.c == v.c && rows(k) == rows(v) && heads > 0 &&
                         q.c % heads == 0,
                     "q %dx%d, k %dx%d, v %dx%d, %d heads", (int)rows(q), q.c, (int)rows(k), k.c,
                     (int)rows(v), v.c, heads))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, q.dtype, q.h, q.w, q.c);
    struct um_attention_args a = {
        .heads = heads, .scale = scale, .bf16 = bf16, .how = um_tape_narrow(t)};
    um_op_step(t, UM_OP_ATTENTION, &a, y, q, k, v);
    return y;
}

um_tensor um_window_attention(um_tape *t, um_tensor qkv, um_tensor pad, um_tensor bias, int window,
                              int heads)
{
    int c = qkv.c / 3;
    if (!um_op_check(t, UM_OP_WINDOW_ATTENTION,
                     c * 3 == qkv.c && heads > 0 && c % heads == 0 && pad.c == qkv.c &&
                         bias.c == window * window && rows(bias) == heads,
                     "qkv has %d channels, %d heads, window %d, bias %dx%d", qkv.c, heads, window,
                     (int)rows(bias), bias.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, qkv.dtype, qkv.h, qkv.w, c);
    struct um_window_args a = {.window = window, .heads = heads};
    um_op_step(t, UM_OP_WINDOW_ATTENTION, &a, y, qkv, pad, bias);
    return y;
}

um_tensor um_relative_attention(um_tape *t, um_tensor qkv, um_tensor pad, um_tensor y_table,
                                um_tensor x_table, int window, int heads, bool bf16)
{
    int c = qkv.c / 3, entries = 2 * window - 1;
    if (!um_op_check(t, UM_OP_RELATIVE_ATTENTION,
                     c * 3 == qkv.c && heads > 0 && c % heads == 0 && pad.c == qkv.c &&
                         window > 0 && window <= UM_RELATIVE_MAX && rows(y_table) == entries &&
                         rows(x_table) == entries && y_table.c == c / heads &&
                         x_table.c == c / heads,
                     "qkv has %d channels, %d heads, window %d, tables %dx%d and %dx%d", qkv.c,
                     heads, window, (int)rows(y_table), y_table.c, (int)rows(x_table), x_table.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, qkv.dtype, qkv.h, qkv.w, c);
    struct um_relative_args a = {
        .window = window, .heads = heads, .bf16 = bf16, .how = um_tape_narrow(t)};
    um_op_step(t, UM_OP_RELATIVE_ATTENTION, &a, y, qkv, pad, y_table, x_table);
    return y;
}

um_tensor um_matmul_nt(um_tape *t, um_tensor a, um_tensor b)
{
    if (!um_op_check(t, UM_OP_MATMUL_NT, a.c == b.c, "K is %d and %d", a.c, b.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, a.h, a.w, (int)rows(b));
    um_op_step(t, UM_OP_MATMUL_NT, NULL, y, a, b);
    return y;
}

um_tensor um_resize(um_tape *t, um_tensor x, um_tensor taps, bool vertical)
{
    if (!um_op_check(t, UM_OP_RESIZE,
                     x.dtype == UM_U8 && taps.dtype == UM_I32 && taps.c > 2 && x.ld == x.c,
                     "wants u8 pixels and i32 taps"))
        return (um_tensor){0};
    int n = (int)rows(taps);
    um_tensor y = um_tape_new(t, UM_U8, vertical ? n : x.h, vertical ? x.w : n, x.c);
    struct um_resize_args a = {.vertical = vertical};
    um_op_step(t, UM_OP_RESIZE, &a, y, x, taps);
    return y;
}

um_tensor um_area(um_tape *t, um_tensor x, um_tensor tx, um_tensor ty, const struct um_area_args *a)
{
    if (!um_op_check(t, UM_OP_AREA,
                     x.dtype == UM_U8 && tx.dtype == UM_F32 && ty.dtype == UM_F32 && tx.c > 2 &&
                         ty.c > 2,
                     "wants u8 pixels and f32 taps"))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_U8, (int)rows(ty), (int)rows(tx), x.c);
    um_op_step(t, UM_OP_AREA, a, y, x, tx, ty);
    return y;
}

um_tensor um_fir(um_tape *t, um_tensor x, um_tensor taps, um_tensor range, bool vertical)
{
    bool bytes = x.dtype == UM_U8;
    if (!um_op_check(t, UM_OP_FIR,
                     (bytes || (x.dtype == UM_F32 && x.c % 2 == 0)) && x.ld == x.c &&
                         taps.dtype == UM_F32 && taps.c > 2 && (!range.id || range.c == 2),
                     "wants u8 or pairs of f32, and f32 taps"))
        return (um_tensor){0};
    int n = (int)rows(taps), c = bytes ? x.c : x.c / 2;
    um_tensor y = um_tape_new(t, range.id ? UM_U8 : UM_F32, vertical ? n : x.h, vertical ? x.w : n,
                              range.id ? c : 2 * c);
    struct um_resize_args a = {.vertical = vertical};
    um_op_step(t, UM_OP_FIR, &a, y, x, taps, range);
    return y;
}

um_tensor um_range(um_tape *t, um_tensor x)
{
    if (!um_op_check(t, UM_OP_RANGE, x.dtype == UM_U8, "wants u8 pixels"))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, 1, 1, 2);
    um_op_step(t, UM_OP_RANGE, NULL, y, x);
    return y;
}

um_tensor um_levels(um_tape *t, um_tensor range, int c)
{
    if (!um_op_check(t, UM_OP_LEVELS, range.c == 2 && range.dtype == UM_F32 && c > 0,
                     "range of %d numbers", range.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, 1, c, 256);
    um_op_step(t, UM_OP_LEVELS, NULL, y, range);
    return y;
}

void um_gain(um_tape *t, um_tensor x, um_tensor header, um_tensor state, const um_tensor base[2],
             bool smooth, um_tensor out[2])
{
    struct um_gain_args a = {.smooth = smooth};
    out[0] = out[1] = (um_tensor){0};
    if (!um_op_check(t, UM_OP_GAIN,
                     x.dtype == UM_U8 && (x.c == 1 || x.c == 3) && x.ld == x.c &&
                         header.c == UM_HEADER_BYTES && state.c == sizeof(uint32_t) &&
                         base[0].c == 256 && (!base[1].id || base[1].c == 256),
                     "image [%d,%d,%d], header of %d bytes, state of %d, tables of %d and %d", x.h,
                     x.w, x.c, header.c, state.c, base[0].c, base[1].c))
        return;
    for (int i = 0; i < 2; i++)
        if (base[i].id)
            out[i] = um_tape_new(t, UM_F32, 1, rows(base[i]), 256);
    um_op_step(t, UM_OP_GAIN, &a, out[0], out[1], header, state, x, base[0], base[1]);
}

um_tensor um_normalize(um_tape *t, um_tensor x, um_tensor lut, um_tensor out)
{
    if (!um_op_check(t, UM_OP_NORMALIZE,
                     x.dtype == UM_U8 && lut.c == 256 && rows(lut) == out.c &&
                         (x.c == 1 || x.c == out.c) && x.h <= out.h && x.w <= out.w,
                     "[%d,%d,%d] to [%d,%d,%d]", x.h, x.w, x.c, out.h, out.w, out.c))
        return (um_tensor){0};
    um_op_step(t, UM_OP_NORMALIZE, NULL, out, x, lut);
    return out;
}

um_tensor um_scale_rows(um_tape *t, um_tensor x, um_tensor m)
{
    if (!um_op_check(t, UM_OP_SCALE_ROWS, rows(m) == rows(x) && m.c == 1, "%d rows, %d factors",
                     (int)rows(x), (int)rows(m)))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, x.dtype, x.h, x.w, x.c);
    um_op_step(t, UM_OP_SCALE_ROWS, NULL, y, x, m);
    return y;
}

um_tensor um_gather(um_tape *t, um_tensor x, um_tensor idx)
{
    if (!um_op_check(t, UM_OP_GATHER, idx.dtype == UM_I32 && idx.c == 1,
                     "indices must be i32 [n,1]"))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, 1, (int)rows(idx), x.c);
    um_op_step(t, UM_OP_GATHER, NULL, y, x, idx);
    return y;
}
