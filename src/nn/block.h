/* SPDX-License-Identifier: Apache-2.0 */
/* The blocks models call. Each has a default body of primitives (its reference and its test); a
 * backend may take the whole block as one step (um_tape_takes), so fusion needs no change in a
 * model file. */
#ifndef UM_NN_BLOCK_H
#define UM_NN_BLOCK_H

#include "nn/area.h"
#include "nn/op_sam.h"
#include "nn/resize.h"
#include "nn/spline.h"

/* x + fc2(GELU(fc1(LN(x)))): pre-norm MLP of TinyViT and ViT. */
struct um_mlp {
    um_norm norm;
    um_conv fc1, fc2;
};
struct um_mlp_args {
    float eps;
    int hidden;
};
um_tensor um_mlp(um_tape *t, const struct um_mlp *w, um_tensor x);

/* TinyViT MBConv (tiny_vit_sam.py): GELU(x + conv3(GELU(dw(GELU(conv1 x))))), residual; or
 * PatchMerging: no residual, no last activation, the depthwise conv may have stride 2. wd
 * [9,hidden]. */
struct um_mbconv {
    um_conv expand, dw, project;
};
struct um_mbconv_args {
    int hidden, stride;
    bool residual; /* y = GELU(x + .) */
};
um_tensor um_mbconv(um_tape *t, const struct um_mbconv *w, um_tensor x, bool residual);

/* HGNetV2's stem up to its last 1x1 convolution (D-FINE's hgnetv2.py, StemBlock): a = f0(x), 3x3
 * stride 2; c = f2(f1(a)), 2x2 each, f1 to half the channels; f3, 3x3 stride 2, of [maximum of 2x2
 * of a | c]. What is right of a and of f1(a) and below them is zero. Each f: convolution, ReLU,
 * affine (scale 0: none). */
enum { UM_STEM_LAYERS = 4 };
struct um_stem_args {
    float lab_scale[UM_STEM_LAYERS], lab_shift[UM_STEM_LAYERS];
};
struct um_stem {
    um_conv conv[UM_STEM_LAYERS];
    struct um_stem_args affine;
};
um_tensor um_stem(um_tape *t, const struct um_stem *w, um_tensor x);

/* TinyViT window attention block: x + proj(window_attention(qkv(LN(x)))). pad_qkv = qkv(LN beta),
 * made at load. pad [1,3c], bias [heads, window*window]. */
struct um_window_block {
    um_norm norm;
    um_conv qkv, proj;
    um_const pad_qkv, bias;
    int window, heads;
};
struct um_window_block_args {
    float eps;
    int window, heads;
    bool bf16;              /* attention is, behind a narrow qkv */
    enum um_narrow_how how; /* then: by which instructions, whatever those of qkv */
};
um_tensor um_window_block(um_tape *t, const struct um_window_block *w, um_tensor x);

/* A linear layer, which is a 1x1 convolution, and what may stand around it, in the order of the
 * fields. */
struct um_linear_opts {
    int unused;
    const um_norm *norm_in; /* x = LN(x) first */
    um_tensor plus;         /* then x + plus, same shape as x */
    const um_conv *second;  /* more outputs, of x without `plus`, behind those of conv: then no add,
                               out or norm_out */
    um_tensor add;          /* y += add: same shape as the output, or one channel, broadcast */
    enum um_act act;        /* y = act(y) */
    float limit;            /* UM_ACT_CLAMP */
    bool add_last;          /* y += add here and not before */
    const um_norm *norm_out; /* y = norm_act(LN(y)) */
    enum um_act norm_act;    /* any but UM_ACT_CLAMP */
    um_tensor out; /* write here instead of a new tensor; not with norm_out or a broadcast add */
    bool fp32;     /* the output is fp32 whatever the input is */
};
#define um_linear(t, conv, x, ...) um_linear_(t, conv, x, (struct um_linear_opts){0, __VA_ARGS__})
um_tensor um_linear_(um_tape *t, const um_conv *conv, um_tensor x, struct um_linear_opts e);

/* act(LN(um_upconv2(x))), the norm of each pixel; as one step it is a linear layer with `up`. Any
 * activation but UM_ACT_CLAMP. */
um_tensor um_upconv2_norm(um_tape *t, const um_conv *conv, um_tensor x, const um_norm *norm,
                          enum um_act act);

/* Both as one step. h = x, or LN(x) over its channels if gamma_in is there. Columns 0..n-1 of y are
 * (h + plus) w + b, the others h w2 + b2. Then y += add (unless add_last; add may have one channel:
 * it is broadcast); y = act(y); y += add (if add_last). If gamma_out is there (`group` of them):
 * every `group` columns of a row are normalised, y = out_act(LN(y)). With `up` y is [h*w, 4o] and
 * stored as [2h,2w,o]: column (a, b, o) of row (y, x) goes to pixel (2y+a, 2x+b). */
struct um_linear_args {
    int n;
    enum um_act act, out_act;
    float limit; /* UM_ACT_CLAMP */
    bool add_last, up;
    float eps_in, eps_out;
    int group;
};

/* Two or three linear layers on rows, as one step. x row = x[index[r]] (index absent: x[r]), plus
 * `plus` row r; `picked`, if asked for, gets x[index[r]]. y = the last layer + add. Then
 *   UM_FINISH_NONE    out = y
 *   UM_FINISH_REFINE  out = sigmoid(y + base[index[r]]), `inverse`: base through inverse_sigmoid
 *                     (um_refine)
 *   UM_FINISH_BOX     out = y, box = um_integral(y, base, project) */
enum um_finish { UM_FINISH_NONE, UM_FINISH_REFINE, UM_FINISH_BOX };
struct um_chain_args {
    int layers;
    int width[3]; /* outputs of each layer, at most 512 */
    enum um_act act[3];
    float limit; /* UM_ACT_CLAMP */
    enum um_finish finish;
    bool inverse;
    float reg_scale;
};
struct um_chain {
    const um_conv *layer; /* [layers] */
    int layers;
    enum um_act act[3];
    float limit;
    um_tensor index, plus, add, base, project, out; /* id 0: absent */
    bool pick;                                      /* give `picked` */
    const char *tap; /* names y before it is refined, where it exists; or NULL */
    enum um_finish finish;
    bool inverse;
    float reg_scale;
};
struct um_chain_out {
    um_tensor y, box, picked;
};
struct um_chain_out um_chain(um_tape *t, um_tensor x, const struct um_chain *c);

/* D-FINE's gateway: g = sigmoid(a wa + ba + b wb) [2c], out = LN(g[:c] a + g[c:] b). */
um_tensor um_gateway(um_tape *t, const um_conv *wa, const um_conv *wb, const um_norm *norm,
                     um_tensor a, um_tensor b);

/* Self-attention of at most 32 tokens: q, k = (x + plus) wqk + bqk, v = x wv + bv (wv absent: wqk
 * has all three and there is no plus), out = LN(attention wo + bo [+ x]). */
struct um_tokens_args {
    int heads;
    float scale, eps;
    bool residual;
};
enum { UM_TOKENS_MAX = 32 };
struct um_token_attention {
    const um_conv *qk, *v; /* v NULL: qk has all three */
    const um_conv *out;
    const um_norm *norm;
    int heads;
    bool residual;
};
um_tensor um_token_attention(um_tape *t, const struct um_token_attention *w, um_tensor x,
                             um_tensor plus);

/* SAM's attention between tokens and image (transformer.py, Attention with downsampling): two
 * layers look at the same pixels, tokens first. x [pixels, dim]; `place` [pixels, dim] is added to
 * it for keys and queries. As one step each (for few tokens) the pixels' projections are moved to
 * the tokens. */
enum { UM_CROSS_HEADS = 8, UM_CROSS_LANES = 128 /* at most: tokens times heads */ };
struct um_image_side {
    um_conv
        kq; /* k of tokens to image, then (if there is one) q of image to tokens: c outputs each */
    um_conv v;
    um_const k_rows, q_rows, v_rows; /* w as PyTorch stores it, [c][dim]: if the steps are taken */
    bool bf16;                       /* what the steps make of pixels is */
};
/* Image to tokens, back to the pixels: */
struct um_image_out {
    um_conv out;
    um_const columns; /* w turned, [c][dim]: likewise */
    const um_norm *norm;
};
struct um_cross_args {
    float scale, eps;
    bool bf16;              /* the products with pixels are */
    enum um_narrow_how how; /* then: by which instructions */
};
struct um_image_view {
    const struct um_image_side *side;
    um_tensor x, place;
    um_tensor kqv; /* id 0: the steps are taken */
};
/* Before either, for so many tokens. `side` outlives the view. */
struct um_image_view um_image_view_open(um_tape *t, const struct um_image_side *side, um_tensor x,
                                        um_tensor place, int tokens);
/* concat over heads of softmax(q k^T / sqrt(d)) v, [tokens, c]; q [tokens, c]. */
um_tensor um_token_to_image(um_tape *t, const struct um_image_view *image, um_tensor q);
/* LN(x + the same the other way, projected), [pixels, dim]; k, v [tokens, c]. */
um_tensor um_image_to_token(um_tape *t, const struct um_image_view *image, um_tensor k, um_tensor v,
                            const struct um_image_out *out);

/* Resize and normalise one image for one or two networks: um_resize() in both directions and
 * um_normalize(), bit for bit. Absent taps: that side keeps its size. */
struct um_front_args {
    bool vertical_first[2];
    int new_h[2], new_w[2];
    int inner_h[2], inner_w[2]; /* without margins, which the taps make */
    float smooth[2];            /* um_resize_taps() */
};
struct um_front_input {
    um_tensor out, lut; /* lut absent: um_levels() of the resized image */
    struct um_resize_plan plan;
    enum um_fit fit; /* resized by plan (LONGEST), area (RATIO) or spline (STRETCH) */
    struct um_area_plan area;
    struct um_spline_plan spline;
};
/* Only Pillow's filter with a table goes into the fused step. */
void um_front_record(um_tape *t, um_params *p, um_tensor x, const struct um_front_input *all,
                     int inputs);

/* um_mask_upsample(), um_mask_statistics() and um_packet_op() as one step, bit for bit. `work` is a
 * constant of UM_MASK_WORK_BYTES zeros that the step leaves as zeros.
 * t: packet, work, low, tx, ty, gate[opt], iou[opt], header. No args */
enum { UM_MASK_WORK_BYTES = 128 };
struct um_mask_packet {
    um_tensor low, tx, ty, gate, iou, header, work;
    um_tensor out; /* write here instead of a new tensor */
};
/* The packet of a mask that nobody else wants. */
um_tensor um_mask_packet(um_tape *t, const struct um_mask_packet *m);

#endif
