/* SPDX-License-Identifier: Apache-2.0 */
/* SAM: image encoder (tinyvit.c, vit.c) and its neck, prompt encoder and mask decoder. What the
 * families differ in is in sam_family.c.
 *
 *   image   [S,S,3] -> embedding [n,n,256], n = S/16 (LiteMedSAM: S/4)
 *   prompt  points, box -> tokens [5 + sparse, 256]: iou token, 4 mask tokens, sparse prompts
 *           previous logits [4n,4n,1] -> dense prompt [n,n,256], else the row no_mask_embed
 *   decoder 2 two-way layers: self attention of the tokens, tokens to image, MLP, image to tokens;
 *           last attention tokens to image
 *   mask    image side upscaled to [4n,4n,32], times a vector made from the mask token: logits
 *           [4n,4n]
 *   iou     MLP of the iou token
 *
 * Reference: ChaoningZhang/MobileSAM,
 * mobile_sam/modeling/{prompt_encoder,mask_decoder,transformer}.py: PromptEncoder, MaskDecoder,
 * TwoWayTransformer, TwoWayAttentionBlock, Attention; utils/transforms.py. */
#include "model/sam.h"

#include "base/mem.h"
#include "model/input_size.h"
#include "model/tinyvit.h"
#include "model/vit.h"
#include "nn/block.h"
#include "nn/op_dfine.h"
#include "nn/op_sam.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DIM = 256, CROSS = 128, HIDDEN = 2048, HEADS = 8, TOKENS = 5, MASKS = 4, UP = 32 };
static const float NORM_EPS = 1e-5f, NORM2D_EPS = 1e-6f;

/* Tokens look at the image. */
struct to_image {
    um_conv q, out;
    struct um_image_side image; /* in a layer with q of the way back */
};

/* The image looks at the tokens. */
struct to_tokens {
    um_conv k, v;
    struct um_image_out out;
};

struct layer {
    um_conv self_qkv;        /* layer 0: q, k and v have one input */
    um_conv self_qk, self_v; /* layer 1 */
    um_conv self_out;
    um_norm norm[4];
    struct to_image to_image;
    um_conv fc1, fc2; /* of the MLP */
    struct to_tokens to_tokens;
};

struct um_sam {
    um_params *params;
    const struct um_sam_family *family;
    bool gray;
    int canvas, n;
    um_tinyvit image; /* or */
    um_vit vit;
    um_conv neck[2];
    um_norm neck_norm[2];

    um_const table, gauss; /* prompt tokens: op_sam.h */
    um_const pe;           /* [n,n,256] dense position code */
    um_const pe_no_mask;   /* the same plus no_mask_embed */
    um_const no_mask_v;    /* layer 0 without a mask prompt: biases that contain no_mask_embed */
    um_const no_mask_out;
    um_conv mask_conv[3];
    um_norm mask_norm[2];

    struct layer layer[2];
    struct to_image final;
    um_norm norm_final;
    um_conv up[2];
    um_norm up_norm;
    um_conv hyper[MASKS][3], iou[3];
};

/* ---- weights ---- */

static void bind_neck(struct um_sam *s, um_bind *b, int channels)
{
    um_bind_scope(b, "image_encoder.");
    s->neck[0] = um_bind_conv(b, "neck.0", DIM, channels, 1, 1, 0, false);
    s->neck_norm[0] = um_bind_norm(b, "neck.1", DIM, NORM2D_EPS);
    s->neck[1] = um_bind_conv(b, "neck.2", DIM, DIM, 3, 1, 1, false);
    s->neck_norm[1] = um_bind_norm(b, "neck.3", DIM, NORM2D_EPS);
}

static void bind_prompt_table(struct um_sam *s, um_bind *b)
{
    static const struct {
        const char *name;
        int rows;
    } part[] = {{"mask_decoder.iou_token.weight", 1},
                {"mask_decoder.mask_tokens.weight", MASKS},
                {"prompt_encoder.point_embeddings.0.weight", 1},
                {"prompt_encoder.point_embeddings.1.weight", 1},
                {"prompt_encoder.point_embeddings.2.weight", 1},
                {"prompt_encoder.point_embeddings.3.weight", 1},
                {"prompt_encoder.not_a_point_embed.weight", 1}};
    float table[10 * DIM], *out = table;
    um_bind_scope(b, "%s", "");
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        size_t n = (size_t)part[i].rows * DIM;
        float *row = um_bind_matrix(b, part[i].name, "", part[i].rows, DIM);
        if (row && um_bind_reads(b))
            memcpy(out, row, n * sizeof *row);
        um_free(row);
        out += n;
    }
    if (b->status == UM_OK)
        s->table = um_params_add(s->params, table, sizeof table);
}

/* PositionEmbeddingRandom on the grid of the embedding. sin(a+b) from the sines of rows and
 * columns, in double. `add` is added to every row. */
static um_const dense_position(struct um_sam *s, const float *gauss, const float *add)
{
    const double two_pi = 6.283185307179586;
    int n = s->n, half = DIM / 2;
    um_const k = {0};
    double *wave = um_array((size_t)n * (size_t)half * 4, sizeof *wave);
    float *pe =
        wave ? um_params_reserve(s->params, (size_t)n * (size_t)n * DIM * sizeof *pe, &k) : NULL;
    if (!wave)
        um_params_fail(s->params, um_fail(UM_ENOMEM, "position code %dx%d", n, n));
    for (int i = 0; pe && i < n; i++)
        for (int f = 0; f < half; f++) {
            double u = two_pi * (2 * (i + 0.5) / n - 1),
                   *at = wave + ((size_t)i * (size_t)half + (size_t)f) * 4;
            at[0] = sin(u * gauss[f]);
            at[1] = cos(u * gauss[f]);
            at[2] = sin(u * gauss[half + f]);
            at[3] = cos(u * gauss[half + f]);
        }
    for (int y = 0; pe && y < n; y++)
        for (int x = 0; x < n; x++, pe += DIM)
            for (int f = 0; f < half; f++) {
                const double *column = wave + ((size_t)x * (size_t)half + (size_t)f) * 4;
                const double *row = wave + ((size_t)y * (size_t)half + (size_t)f) * 4;
                pe[f] = (float)(column[0] * row[3] + column[1] * row[2]) + (add ? add[f] : 0);
                pe[half + f] =
                    (float)(column[1] * row[3] - column[0] * row[2]) + (add ? add[half + f] : 0);
            }
    um_free(wave);
    return k;
}

static void bind_prompt_encoder(struct um_sam *s, um_bind *b)
{
    um_bind_scope(b, "prompt_encoder.");
    s->mask_conv[0] = um_bind_conv(b, "mask_downscaling.0", 4, 1, 2, 2, 0, true);
    s->mask_norm[0] = um_bind_norm(b, "mask_downscaling.1", 4, NORM2D_EPS);
    s->mask_conv[1] = um_bind_conv(b, "mask_downscaling.3", 16, 4, 2, 2, 0, true);
    s->mask_norm[1] = um_bind_norm(b, "mask_downscaling.4", 16, NORM2D_EPS);
    s->mask_conv[2] = um_bind_conv(b, "mask_downscaling.6", DIM, 16, 1, 1, 0, true);
    float *gauss =
        um_bind_matrix(b, "pe_layer.positional_encoding_gaussian_matrix", "", 2, DIM / 2);
    float *no_mask = um_bind_matrix(b, "no_mask_embed", ".weight", 1, DIM);
    um_bind_scope(b, "mask_decoder.transformer.layers.0.");
    float *v = um_bind_matrix(b, "cross_attn_token_to_image.v_proj", ".weight", CROSS, DIM);
    float *v_bias = um_bind_vector(b, "cross_attn_token_to_image.v_proj", ".bias", CROSS);
    float *out_bias = um_bind_vector(b, "cross_attn_image_to_token.out_proj", ".bias", DIM);
    if (b->status == UM_OK) {
        s->gauss = um_params_add(s->params, gauss, DIM * sizeof *gauss);
        s->pe = dense_position(s, gauss, NULL);
        s->pe_no_mask = dense_position(s, gauss, no_mask);
        for (int o = 0; um_bind_reads(b) && o < CROSS; o++) {
            double sum = v_bias[o];
            for (int i = 0; i < DIM; i++)
                sum += (double)v[o * DIM + i] * no_mask[i];
            v_bias[o] = (float)sum;
        }
        for (int o = 0; um_bind_reads(b) && o < DIM; o++)
            out_bias[o] += no_mask[o];
        s->no_mask_v = um_params_add(s->params, v_bias, CROSS * sizeof *v_bias);
        s->no_mask_out = um_params_add(s->params, out_bias, DIM * sizeof *out_bias);
    }
    um_free(gauss);
    um_free(no_mask);
    um_free(v);
    um_free(v_bias);
    um_free(out_bias);
    bind_prompt_table(s, b);
}

/* What the attentions as one step want of their weights: tensor SCOPE NAME [o,i] as it is, or
 * turned. */
static um_const bind_rows(um_bind *b, const char *name, int o, int i, bool turned)
{
    um_const k = {0};
    if (!um_params_takes(b->params, UM_OP_TOKEN_TO_IMAGE))
        return k;
    float *w = um_bind_matrix(b, name, ".weight", o, i);
    float *to = w ? um_params_reserve(b->params, (size_t)o * (size_t)i * sizeof *to, &k) : NULL;
    for (int r = 0; to && r < o; r++)
        for (int c = 0; c < i; c++)
            to[turned ? c * o + r : r * i + c] = w[r * i + c];
    um_free(w);
    return k;
}

static struct um_image_side bind_image_side(um_bind *b, const char *const *kq, int n, const char *v)
{
    return (struct um_image_side){.kq = um_bind_linears(b, kq, n, CROSS, DIM),
                                  .v = um_bind_linear(b, v, CROSS, DIM),
                                  .k_rows = bind_rows(b, kq[0], CROSS, DIM, false),
                                  .q_rows = n > 1 ? bind_rows(b, kq[1], CROSS, DIM, false)
                                                  : (um_const){0},
                                  .v_rows = bind_rows(b, v, CROSS, DIM, false),
                                  .bf16 = um_bind_rounds(b)};
}

static void bind_layer(struct layer *l, um_bind *b, int index)
{
    static const char *const qkv[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    static const char *const image[] = {"cross_attn_token_to_image.k_proj",
                                        "cross_attn_image_to_token.q_proj"};
    um_bind_scope(b, "mask_decoder.transformer.layers.%d.", index);
    if (index == 0)
        l->self_qkv = um_bind_linears(b, qkv, 3, DIM, DIM);
    else {
        l->self_qk = um_bind_linears(b, qkv, 2, DIM, DIM);
        l->self_v = um_bind_linear(b, qkv[2], DIM, DIM);
    }
    l->self_out = um_bind_linear(b, "self_attn.out_proj", DIM, DIM);
    for (int i = 0; i < 4; i++) {
        char name[] = "norm1";
        name[4] = (char)('1' + i);
        l->norm[i] = um_bind_norm(b, name, DIM, NORM_EPS);
    }
    l->to_image.q = um_bind_linear(b, "cross_attn_token_to_image.q_proj", CROSS, DIM);
    l->to_image.image = bind_image_side(b, image, 2, "cross_attn_token_to_image.v_proj");
    l->to_image.out = um_bind_linear(b, "cross_attn_token_to_image.out_proj", DIM, CROSS);
    l->fc1 = um_bind_linear(b, "mlp.lin1", HIDDEN, DIM);
    l->fc2 = um_bind_linear(b, "mlp.lin2", DIM, HIDDEN);
    l->to_tokens.k = um_bind_linear(b, "cross_attn_image_to_token.k_proj", CROSS, DIM);
    l->to_tokens.v = um_bind_linear(b, "cross_attn_image_to_token.v_proj", CROSS, DIM);
    l->to_tokens.out = (struct um_image_out){
        .out = um_bind_linear(b, "cross_attn_image_to_token.out_proj", DIM, CROSS),
        .columns = bind_rows(b, "cross_attn_image_to_token.out_proj", DIM, CROSS, true),
        .norm = &l->norm[3]};
}

/* ConvTranspose2d 2x2 stride 2: NAME.weight [i,o,2,2], NAME.bias [o]. */
static um_conv bind_upconv(um_bind *b, const char *name, int o, int i)
{
    um_conv conv = {0};
    float *w = um_bind_read(b, name, ".weight", 4, (int64_t[]){i, o, 2, 2});
    float *bias = um_bind_vector(b, name, ".bias", o);
    if (b->status == UM_OK)
        conv = um_upconv2_pack(b->params, w, bias, o, i);
    um_free(w);
    um_free(bias);
    return conv;
}

static void bind_decoder(struct um_sam *s, um_bind *b)
{
    static const char *const layers[] = {"layers.0", "layers.1", "layers.2"}, *const key = "k_proj";
    for (int i = 0; i < 2; i++)
        bind_layer(&s->layer[i], b, i);
    um_bind_scope(b, "mask_decoder.transformer.");
    s->norm_final = um_bind_norm(b, "norm_final_attn", DIM, NORM_EPS);
    um_bind_scope(b, "mask_decoder.transformer.final_attn_token_to_image.");
    s->final.q = um_bind_linear(b, "q_proj", CROSS, DIM);
    s->final.image = bind_image_side(b, &key, 1, "v_proj");
    s->final.out = um_bind_linear(b, "out_proj", DIM, CROSS);
    um_bind_scope(b, "mask_decoder.");
    um_bind_round(b, true);
    s->up[0] = bind_upconv(b, "output_upscaling.0", 64, DIM);
    s->up_norm = um_bind_norm(b, "output_upscaling.1", 64, NORM2D_EPS);
    s->up[1] = bind_upconv(b, "output_upscaling.3", UP, 64);
    um_bind_round(b, false);
    for (int m = 0; m < MASKS; m++) {
        um_bind_scope(b, "mask_decoder.output_hypernetworks_mlps.%d.", m);
        for (int i = 0; i < 3; i++)
            s->hyper[m][i] = um_bind_linear(b, layers[i], i < 2 ? DIM : UP, DIM);
    }
    um_bind_scope(b, "mask_decoder.iou_prediction_head.");
    for (int i = 0; i < 3; i++)
        s->iou[i] = um_bind_linear(b, layers[i], i < 2 ? DIM : MASKS, DIM);
}

/* ---- forward ---- */

size_t um_sam_beyond_bytes(const um_sam *s)
{
    return s->family->vit ? 0 : um_tinyvit_beyond_bytes(&s->image, s->canvas);
}

um_tensor um_sam_encode(um_sam *s, um_tape *t, um_tensor x, um_tensor beyond)
{
    if (um_tape_status(t) == UM_OK && (x.h != s->canvas || x.w != s->canvas || x.c != 3))
        um_tape_fail(t, um_fail(UM_EINVAL, "image encoder: input is [%d,%d,%d], want [%d,%d,3]",
                                x.h, x.w, x.c, s->canvas, s->canvas));
    x = s->family->vit ? um_vit_record(&s->vit, t, x) : um_tinyvit_record(&s->image, t, x, beyond);
    x = um_linear(t, &s->neck[0], x, .norm_out = &s->neck_norm[0]);
    x = um_conv2d(t, &s->neck[1], x);
    x = um_layer_norm(t, &s->neck_norm[1], x, (um_tensor){0}, UM_ACT_NONE);
    um_tap_map(t, "image_embedding", x);
    return x;
}

static um_tensor mlp3(um_tape *t, const um_conv *layer, um_tensor x, um_tensor out)
{
    struct um_chain c = {
        .layer = layer, .layers = 3, .act = {UM_ACT_RELU, UM_ACT_RELU, UM_ACT_NONE}, .out = out};
    return um_chain(t, x, &c).y;
}

/* mask_downscaling: logits [4n,4n,1] -> [n,n,256]. */
static um_tensor dense_prompt(um_sam *s, um_tape *t, um_tensor x)
{
    const um_tensor none = {0};
    for (int i = 0; i < 2; i++) {
        x = um_conv2d(t, &s->mask_conv[i], x);
        x = um_layer_norm(t, &s->mask_norm[i], x, none, UM_ACT_GELU);
    }
    return um_conv2d(t, &s->mask_conv[2], x);
}

/* LN(x + what the tokens find in the image, projected back). */
static um_tensor look(um_tape *t, const struct to_image *w, const struct um_image_view *image,
                      um_tensor x, um_tensor tokens, const um_norm *norm)
{
    um_tensor q = um_linear(t, &w->q, x, .plus = tokens);
    return um_linear(t, &w->out, um_token_to_image(t, image, q), .add = x, .norm_out = norm);
}

/* Self attention. In layer 0 upstream neither adds the position code nor keeps the input. */
static um_tensor self_attention(um_tape *t, const struct layer *l, bool first, um_tensor x,
                                um_tensor tokens)
{
    const um_tensor none = {0};
    struct um_token_attention w = {.qk = first ? &l->self_qkv : &l->self_qk,
                                   .v = first ? NULL : &l->self_v,
                                   .out = &l->self_out,
                                   .norm = &l->norm[0],
                                   .heads = HEADS,
                                   .residual = !first};
    return um_token_attention(t, &w, x, first ? none : tokens);
}

/* Masks and scores of tokens x and the upscaled image. One mask is mask 0; three are masks 1 to 3.
 * Only their hypernetworks run. Of a decoder that always gives three, one mask is that of the best
 * score. */
static struct um_sam_out masks_of(const um_sam *s, um_tape *t, um_tensor x, um_tensor up,
                                  bool multimask)
{
    bool best = !multimask && s->family->best_of_three;
    int first = multimask || best ? 1 : 0, asked = first ? 3 : 1, side = 4 * s->n;
    um_tensor vectors = um_tape_new(t, UM_F32, 1, asked, UP);
    for (int m = 0; m < asked; m++)
        mlp3(t, s->hyper[first + m], um_rows(x, 1 + first + m, 1), um_rows(vectors, m, 1));
    um_tensor iou = um_slice(mlp3(t, s->iou, um_rows(x, 0, 1), (um_tensor){0}), first, asked);
    if (best) {
        um_tensor scores = iou; /* as rows */
        scores.w = asked;
        scores.c = scores.ld = 1;
        um_tensor index = um_topk(t, scores, 1);
        vectors = um_gather(t, vectors, index);
        iou = um_gather(t, scores, index);
    }
    struct um_sam_out out = {.masks = multimask ? 3 : 1, .iou = iou};
    um_tensor all = um_matmul_nt(t, vectors, up); /* masks x (4n*4n): planes */
    all.h = out.masks * side;
    all.w = side;
    all.c = all.ld = 1;
    for (int m = 0; m < out.masks; m++)
        out.low[m] = um_reshape(um_rows(all, m * side * side, side * side), side, side);
    um_tap(t, "low_res_logits", all);
    um_tap(t, "iou", out.iou);
    return out;
}

struct um_sam_out um_sam_decode(um_sam *s, um_tape *t, um_tensor embedding, um_tensor prompt,
                                int points, bool box, um_tensor mask_input, bool multimask)
{
    int n = s->n;
    um_tensor table = um_tape_const(t, s->params, s->table, UM_F32, 1, 10, DIM);
    um_tensor gauss = um_tape_const(t, s->params, s->gauss, UM_F32, 1, 2, DIM / 2);
    struct um_prompt_args where = {
        .canvas = s->canvas, .fit = s->family->fit, .points = points, .box = box};
    um_tensor tokens = um_prompt_tokens(t, prompt, table, gauss, &where);
    if (tokens.w > TOKENS)
        um_tap(t, "sparse_tokens", um_rows(tokens, TOKENS, tokens.w - TOKENS));

    /* keys: the image side, which attention sees with its position code. Without a mask prompt
     * no_mask_embed is added by constants. */
    bool bare = !mask_input.id;
    um_tensor pe = um_tape_const(t, s->params, s->pe, UM_F32, n, n, DIM);
    um_tensor keys = embedding;
    if (!bare)
        keys = um_add(t, keys, dense_prompt(s, t, mask_input));

    um_tensor x = tokens;
    for (int i = 0; i < 2; i++) {
        const struct layer *l = &s->layer[i];
        struct um_image_side side = l->to_image.image;
        struct um_image_out out = l->to_tokens.out;
        um_tensor place = pe;
        if (i == 0 && bare) {
            side.v.b = s->no_mask_v;
            out.out.b = s->no_mask_out;
            place = um_tape_const(t, s->params, s->pe_no_mask, UM_F32, n, n, DIM);
        }
        x = self_attention(t, l, i == 0, x, tokens);
        struct um_image_view image = um_image_view_open(t, &side, keys, place, tokens.w);
        x = look(t, &l->to_image, &image, x, tokens, &l->norm[1]);
        um_tensor h = um_tape_new(t, um_tape_act(t), x.h, x.w, l->fc1.o); /* x is fp32 */
        um_linear(t, &l->fc1, x, .act = UM_ACT_RELU, .out = h);
        x = um_linear(t, &l->fc2, h, .add = x, .norm_out = &l->norm[2], .fp32 = true);
        um_tensor kv = um_linear(t, &l->to_tokens.k, x, .plus = tokens, .second = &l->to_tokens.v);
        keys =
            um_image_to_token(t, &image, um_slice(kv, 0, CROSS), um_slice(kv, CROSS, CROSS), &out);
    }
    struct um_image_view image = um_image_view_open(t, &s->final.image, keys, pe, tokens.w);
    x = look(t, &s->final, &image, x, tokens, &s->norm_final);

    um_tensor up = um_upconv2_norm(t, &s->up[0], um_reshape(keys, n, n), &s->up_norm, UM_ACT_GELU);
    up = um_upconv2(t, &s->up[1], up, .act = UM_ACT_GELU);

    return masks_of(s, t, x, up, multimask);
}

/* ---- preprocessing ---- */

void um_sam_lut(float lut[3][256])
{
    static const float mean[3] = {123.675f, 116.28f, 103.53f}, std[3] = {58.395f, 57.12f, 57.375f};
    for (int c = 0; c < 3; c++)
        for (int u = 0; u < 256; u++)
            lut[c][u] = ((float)u - mean[c]) / std[c];
}

/* ---- open, close ---- */

/* The canvas asked for, else the file's, else upstream's. */
static um_status choose_canvas(const um_weights *file, const struct um_sam_family *family,
                               int wanted, int *canvas)
{
    *canvas = wanted;
    um_status st = wanted ? UM_OK : um_input_size(file, UM_SAM_STEP, canvas);
    if (st == UM_OK && !*canvas)
        *canvas = um_sam_native_canvas(family, file);
    if (st == UM_OK && (*canvas < UM_SAM_STEP || *canvas > UM_INPUT_MAX || *canvas % UM_SAM_STEP))
        st = um_fail(UM_EINVAL, "%s: canvas %d, want a multiple of %d from %d to %d",
                     um_weights_path(file), *canvas, UM_SAM_STEP, UM_SAM_STEP, UM_INPUT_MAX);
    return st;
}

/* What upstream itself does not use when it predicts: the classifier that the encoder was once
 * trained with, a cache of the biases, and how pixels are normalised. */
static bool ignorable(const char *name)
{
    static const char *const start[] = {"image_encoder.norm_head.", "image_encoder.head.",
                                        "pixel_mean", "pixel_std"};
    static const char *const end[] = {".attn.ab", ".attn.attention_bias_idxs"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof start / sizeof *start; i++)
        if (strncmp(name, start[i], strlen(start[i])) == 0)
            return true;
    for (size_t i = 0; i < sizeof end / sizeof *end; i++)
        if (n > strlen(end[i]) && strcmp(name + n - strlen(end[i]), end[i]) == 0)
            return true;
    return false;
}

static void bind_all(void *network, um_bind *b)
{
    um_sam *s = network;
    if (!s->family->bf16)
        um_bind_unproven(b);
    if (s->family->vit)
        um_vit_bind(&s->vit, b, s->n);
    else
        um_tinyvit_bind(&s->image, b, s->family->patch);
    bind_neck(s, b, s->family->vit ? s->vit.width : UM_TINYVIT_OUT);
    um_bind_narrow(b, false); /* few tokens, in floats; what meets every pixel may be in bf16 */
    bind_prompt_encoder(s, b);
    bind_decoder(s, b);
}

um_status um_sam_open(um_sam **out, um_device *dev, const um_weights *file, int canvas,
                      const char *family_name)
{
    const struct um_sam_family *family = NULL;
    char geometry[64];
    struct um_bind_network how = {.geometry = geometry, .bind = bind_all, .ignorable = ignorable};
    *out = NULL;
    um_status st = um_sam_family_find(file, family_name, &family);
    if (st == UM_OK)
        st = choose_canvas(file, family, canvas, &canvas);
    if (st != UM_OK)
        return st;
    um_sam *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "segmenter");
    s->family = family;
    s->canvas = canvas;
    s->n = canvas / family->patch;
    snprintf(geometry, sizeof geometry, "%s %d", family->name, canvas);
    st = um_input_gray(file, &s->gray);
    if (st == UM_OK)
        st = um_params_open(&s->params, dev);
    if (st == UM_OK)
        st = um_bind_network(s, &how, file, s->params);
    if (st != UM_OK)
        um_sam_close(&s);
    *out = s;
    return st;
}

void um_sam_close(um_sam **s)
{
    if (!*s)
        return;
    um_vit_close(&(*s)->vit);
    um_params_close(&(*s)->params);
    um_free(*s);
    *s = NULL;
}

const struct um_sam_family *um_sam_family(const um_sam *s)
{
    return s->family;
}

bool um_sam_gray(const um_sam *s)
{
    return s->gray;
}

int um_sam_canvas(const um_sam *s)
{
    return s->canvas;
}

int um_sam_canvas_step(const um_sam *s)
{
    return s->family->vit ? 0 : UM_TINYVIT_WINDOW * s->family->patch;
}

int um_sam_grid(const um_sam *s)
{
    return s->n;
}

size_t um_sam_weight_bytes(const um_sam *s)
{
    return um_params_bytes(s->params);
}
