/* SPDX-License-Identifier: Apache-2.0 */
/* The primitive operators. Each function checks shapes, allocates its output (unless `.out` names a
 * tensor to write, e.g. a slice of a concatenation) and appends one step. op_ref.c holds the
 * plain-C loops that specify every op; the operands of its kernels are in op_table.h.
 *
 * Activations are of the device's type (um_tape_act), or fp32: an output has its input's type
 * unless said otherwise. Weights and tables are fp32 or packed; `rows` = h*w. */
#ifndef UM_NN_OP_H
#define UM_NN_OP_H

#include "nn/act.h"
#include "nn/op_table.h"
#include "nn/tape.h"

/* Does the device's backend take block `op` whole? */
bool um_tape_takes(const um_tape *t, enum um_op op);
bool um_params_takes(const um_params *p, enum um_op op);
/* The instructions of its narrow products. */
enum um_narrow_how um_tape_narrow(const um_tape *t);

/* ---- weights of one layer, folded (BatchNorm, Rep branches) in double by the model, packed for
 * the device ---- */
typedef struct um_conv {
    um_params *params;
    um_const w; /* packed [o][kh][kw][i], or plain [kh][kw][c] if depthwise */
    um_const b; /* [o], absent = zero */
    int o, i, kh, kw, stride, pad_top,
        pad_left; /* the output size is given by conv2d: ceil-free, see um_conv2d */
    bool depthwise;
    enum um_dtype
        type; /* of w, if packed: UM_U8 (floats), UM_I8 (nn/int8.h) or UM_BF16 (nn/bf16.h) */
} um_conv;

typedef struct um_norm { /* gamma, beta [c] */
    um_params *params;
    um_const gamma, beta;
    int c;
    float eps;
} um_norm;

/* Where the params hold what is packed already, numbers are not read: only whether they are NULL.
 * w [o][i/groups][kh][kw] as PyTorch stores it; b may be NULL. Depthwise: i == o == groups. pad =
 * padding on every side. */
um_conv um_conv_pack(um_params *p, const float *w, const float *b, int o, int i, int kh, int kw,
                     int stride, int pad, bool depthwise);
um_conv um_linear_pack(um_params *p, const float *w /* [o][i] */, const float *b, int o, int i);
/* ConvTranspose2d k2 s2: w [i][o][2][2], b [o]. For um_upconv2(). */
um_conv um_upconv2_pack(um_params *p, const float *w, const float *b, int o, int i);
um_norm um_norm_pack(um_params *p, const float *gamma, const float *beta, int c, float eps);

/* Options of an operator are a struct of its own with exactly the fields that it obeys; a macro
 * makes it of named arguments: um_conv2d(t, &conv, x, .act = UM_ACT_RELU). `unused` lets it start
 * with a positional 0. */

/* What happens between accumulator and store: y = acc + bias; y += add (unless add_last); y =
 * act(y); y = y*lab_scale + lab_shift (if lab_scale != 0); y += add (if add_last). */
struct um_conv_opts {
    int unused;
    enum um_act act;
    float limit;                /* UM_ACT_CLAMP */
    float lab_scale, lab_shift; /* learnable affine after the activation; scale 0 = none */
    um_tensor add;              /* residual, same shape as the output */
    bool add_last;
    bool add_up2;     /* `add` is [h/2, w/2, c]: nearest 2x upsampling on the fly */
    um_tensor out;    /* write here instead of a new tensor */
    int out_h, out_w; /* output size if not the symmetric-padding formula (0 = formula) */
    bool fp32;        /* the output is fp32 whatever the input is */
};

/* Zero padding. w as packed (u8 view, opaque) */
struct um_conv_args {
    int kh, kw, stride, pad_top, pad_left;
    enum um_act act;
    float limit, lab_scale, lab_shift;
    bool add_last, add_up2;
};
#define um_conv2d(t, conv, x, ...) um_conv2d_(t, conv, x, (struct um_conv_opts){0, __VA_ARGS__})
/* x [h,w,i] -> [oh,ow,o]; oh = (h + 2*pad - kh)/stride + 1. Depthwise if the weights are: then w is
 * [kh*kw, c]. */
um_tensor um_conv2d_(um_tape *t, const um_conv *conv, um_tensor x, struct um_conv_opts e);

/* ConvTranspose2d kernel 2 stride 2: x [h,w,i] -> [2h,2w,o]; out[2y+a][2x+b] = act(bias + x[y][x] .
 * W[a][b]); packed rows ordered (a, b, o), bias repeated 4 times. Of struct um_conv_args the kernel
 * reads act. */
struct um_upconv_opts {
    int unused;
    enum um_act act; /* any but UM_ACT_CLAMP */
    um_tensor out;   /* write here instead of a new tensor */
};
#define um_upconv2(t, conv, x, ...) um_upconv2_(t, conv, x, (struct um_upconv_opts){0, __VA_ARGS__})
um_tensor um_upconv2_(um_tape *t, const um_conv *conv, um_tensor x, struct um_upconv_opts e);

/* y = act(LN(x + add)): per row over channels, population variance, two passes. Any activation but
 * UM_ACT_CLAMP. */
struct um_norm_args {
    float eps;
    enum um_act act;
};
um_tensor um_layer_norm(um_tape *t, const um_norm *norm, um_tensor x, um_tensor add,
                        enum um_act act);

/* y = LN(g[:, :c]*a + g[:, c:]*b), g [rows, 2c] already through the sigmoid. Of um_norm_args the
 * kernel reads eps. */
um_tensor um_gate_norm(um_tape *t, const um_norm *norm, um_tensor g, um_tensor a, um_tensor b);

/* y = act(a + b). b may be one row (broadcast over rows) or one channel (broadcast over channels).
 */
struct um_add_args {
    enum um_act act;
    float limit;
};
struct um_add_opts {
    int unused;
    enum um_act act;
    float limit; /* UM_ACT_CLAMP */
};
#define um_add(t, a, b, ...) um_add_(t, a, b, (struct um_add_opts){0, __VA_ARGS__})
um_tensor um_add_(um_tape *t, um_tensor a, um_tensor b, struct um_add_opts e);

/* 2x2 max, stride 1, output the size of x: a zero column on the right and a zero row at the bottom
 * take part. */
um_tensor um_maxpool2(um_tape *t, um_tensor x, um_tensor out /* id 0: new */);

/* Multi-head attention: softmax(scale * q k^T) v per head, heads = contiguous channels. q [Tq,C],
 * k, v [Tk,C]. */
struct um_attention_args {
    int heads;
    float scale;
    bool bf16;              /* both products are */
    enum um_narrow_how how; /* then: by which instructions */
};
um_tensor um_attention(um_tape *t, um_tensor q, um_tensor k, um_tensor v, int heads, float scale,
                       bool bf16);
/* Is attention in bf16 behind this layer? Where it is narrow and the processor quicker in bf16. */
bool um_attends_in_bf16(const um_conv *qkv);

/* TinyViT window attention (tiny_vit_sam.py, Attention): qkv [h,w,3c], per head h: columns
 * [96h,96h+32) q, then k, then v. The map is cut into window x window tiles from the top left;
 * positions beyond the map are keys (not queries) whose qkv row is `pad` [1,3c]. score =
 * q.k*32^-0.5 + bias[head][|dy|*window + |dx|]. bias [heads, window*window]. out [h,w,c]. */
struct um_window_args {
    int window, heads;
};
um_tensor um_window_attention(um_tape *t, um_tensor qkv, um_tensor pad, um_tensor bias, int window,
                              int heads);

/* SAM's attention with decomposed relative positions (image_encoder.py, Attention): qkv [h,w,3c]: q
 * of all heads, then k, then v. The map is cut into window x window tiles from the top left;
 * positions beyond the map are keys (not queries) whose qkv row is `pad` [1,3c]. score =
 * q.k*d^-0.5 + q.y_table[dy + window - 1] + q.x_table[dx + window - 1], dy and dx from key to
 * query. y_table, x_table [2*window - 1, d], of all heads. out [h,w,c]. */
enum { UM_RELATIVE_MAX = 512 }; /* the largest window */
struct um_relative_args {
    int window, heads;
    bool bf16;              /* all products are */
    enum um_narrow_how how; /* then: by which instructions */
};
um_tensor um_relative_attention(um_tape *t, um_tensor qkv, um_tensor pad, um_tensor y_table,
                                um_tensor x_table, int window, int heads, bool bf16);

/* a [M,K] . b [N,K]^T -> [M,N]. */
um_tensor um_matmul_nt(um_tape *t, um_tensor a, um_tensor b);

/* One pass of Pillow's bilinear resize on u8 along one axis. taps: i32 [n_out, 2 + ksize]: first
 * index, count, then ksize weights at 2^22 (zero-filled). y = clip8((2^21 + sum k*u) >> 22). */
struct um_resize_args {
    bool vertical;
};
um_tensor um_resize(um_tape *t, um_tensor x, um_tensor taps, bool vertical);

/* OpenCV's INTER_AREA on u8, bit for bit (modules/imgproc/src/resize.cpp). tx f32 [w, 2 + k], ty
 * f32 [h, 2 + k]: first index, count, then weights. Sums of float products in the order of the
 * taps, first along the row; then times scale, rounded to even or (half_up) halves up. `linear`,
 * which OpenCV takes where the image grows: whole-number weights at 2^11 in its fixed point.
 * Tables: area.h */
struct um_area_args {
    bool linear, half_up;
    float scale;
};
um_tensor um_area(um_tape *t, um_tensor x, um_tensor tx, um_tensor ty,
                  const struct um_area_args *a);

/* One axis of a linear filter, in double: where two floats stand for a number, it is their sum. x
 * u8, or f32 of two floats per channel, without gaps; taps f32 [n, 2 + 2k]: first index, count,
 * then weights of two floats. out f32 of two floats per channel, or with `range` (um_range) u8:
 * clamped to it, then truncated; a value within 1e-9 of a whole number is that number. */
um_tensor um_fir(um_tape *t, um_tensor x, um_tensor taps, um_tensor range, bool vertical);

/* Least and greatest value of u8 x: f32 [1,1,2]. */
um_tensor um_range(um_tape *t, um_tensor x);

/* A table for um_normalize() that stretches a range over 0..1: out f32 [c,256], every row (u -
 * min)/(max - min), or u - min where they are equal. */
um_tensor um_levels(um_tape *t, um_tensor range, int c);

/* Tables for um_normalize() that also stretch an image u8 x: of those of its gray levels (of
 * colour (R + 2G + B)/4) that are at least 4, at most 0.5 % lie above the one that becomes white,
 * which is 32 at least. It looks at every n-th row and column, of at most 256 each. `smooth`: white
 * comes only nearer to that of this image, from that of the frames before (state: 4 bytes, zeros
 * at first; an image in which nothing counts leaves it, and its white). out[i] f32 [c,256] =
 * base[i] at the stretched level; base[1] may be absent (id 0). um_frame_header.gain = 255/white;
 * one that it has already is taken as it is.
 * t: lut0, lut1[opt], header, state, x, base0, base1[opt] */
struct um_gain_args {
    bool smooth;
};
void um_gain(um_tape *t, um_tensor x, um_tensor header, um_tensor state, const um_tensor base[2],
             bool smooth, um_tensor out[2]);

/* u8 [h,w,1 or 3] -> f32 [size_h,size_w,c]: y[c] = lut[c][u[c]] (one-channel input feeds every c),
 * zero right of and below x. lut f32 [c,256]. */
um_tensor um_normalize(um_tape *t, um_tensor x, um_tensor lut,
                       um_tensor out /* [size_h,size_w,c] */);

/* y[row] = x[row]*m[row], m [rows,1]. */
um_tensor um_scale_rows(um_tape *t, um_tensor x, um_tensor m);

/* y[i] = x[idx[i]], idx i32 [n,1], indices are trusted. */
um_tensor um_gather(um_tape *t, um_tensor x, um_tensor idx);

/* For the files that define ops: a layer's packed weights, and a row of constants (absent: id 0).
 */
um_tensor um_conv_weights(um_tape *t, const um_conv *conv);
um_tensor um_row_const(um_tape *t, um_params *p, um_const k, int c);
/* For the files that define ops: um_op_step(t, op, args, operands…). Looks up the kernel, holds the
 * operands against the table, appends the step; args is NULL for an op without. Another argument
 * struct than the table's does not compile. The tape's status is sticky if the op is missing, the
 * number of operands is wrong or one is absent that may not be. */
#define um_op_step(t, op, args, ...)                                 \
    um_op_step_(t, op, (const op##_args *){args}, sizeof(op##_args), \
                (const um_tensor[]){__VA_ARGS__},                    \
                (int)(sizeof((const um_tensor[]){__VA_ARGS__}) / sizeof(um_tensor)))
void um_op_step_(um_tape *t, enum um_op op, const void *args, size_t args_size, const um_tensor *x,
                 int n);
/* Shape rule helper: sticky UM_EINVAL naming op and reason unless ok. Returns ok && tape status OK.
 */
bool um_op_check(um_tape *t, enum um_op op, bool ok, const char *fmt, ...) UM_PRINTF(4, 5);
/* The same where a limit to clamp to cannot be given: it would be zero. */
bool um_op_no_clamp(um_tape *t, enum um_op op, enum um_act act);

#endif
