/* SPDX-License-Identifier: Apache-2.0 */
/* TinyViT-5M as MobileSAM uses it: image [S,S,3] -> [n,n,320], n = S/16.
 *
 *   stem     conv3x3/2 3->32 GELU, conv3x3/2 32->64                        [S/4, S/4, 64]
 *   stage 0  2 MBConv 64                      merge 0  64->128 /2          [S/8, S/8, 128]
 *   stage 1  2 blocks, 4 heads, window 7      merge 1  128->160 /2         [n, n, 160]
 *   stage 2  6 blocks, 5 heads, window 14     merge 2  160->320, stride 1  [n, n, 320]
 *   stage 3  2 blocks, 10 heads, window 7
 *
 * Reference: ChaoningZhang/MobileSAM, mobile_sam/modeling/tiny_vit_sam.py: PatchEmbed, MBConv,
 * PatchMerging, TinyViTBlock, Attention, Mlp, TinyViT. Upstream's buffer `ab` is a cache of
 * attention_biases and is never read here. LiteMedSAM has the same network but for its stem, two
 * 1x1 convolutions of stride 1: there n = S/4. */
#include "model/tinyvit.h"

#include "base/mem.h"
#include "nn/op_sam.h"

#include <stddef.h>
#include <stdio.h>

static const float NORM_EPS = 1e-5f;

/* A token of the window padding enters the norm as zero and leaves it as beta: its qkv row is a
 * constant. */
static um_const pad_row(um_bind *b, int c)
{
    um_const k = {0};
    float *beta = um_bind_vector(b, "attn.norm", ".bias", c);
    float *w = um_bind_matrix(b, "attn.qkv", ".weight", 3 * c, c);
    float *shift = um_bind_vector(b, "attn.qkv", ".bias", 3 * c);
    float *row =
        b->status == UM_OK ? um_params_reserve(b->params, 3 * (size_t)c * sizeof *row, &k) : NULL;
    for (int o = 0; row && o < 3 * c; o++) {
        double sum = shift[o];
        for (int i = 0; i < c; i++)
            sum += (double)w[o * c + i] * beta[i];
        row[o] = (float)sum;
    }
    um_free(beta);
    um_free(w);
    um_free(shift);
    return k;
}

static struct um_window_block bind_attention(um_bind *b, int c, int heads, int window)
{
    return (struct um_window_block){
        .norm = um_bind_norm(b, "attn.norm", c, NORM_EPS),
        .qkv = um_bind_linear(b, "attn.qkv", 3 * c, c),
        .proj = um_bind_linear(b, "attn.proj", c, c),
        .pad_qkv = pad_row(b, c),
        .bias = um_bind_table(b, "attn.attention_biases", 2, (int64_t[]){heads, window * window}),
        .window = window,
        .heads = heads};
}

static void bind_blocks(um_bind *b, struct um_vit_block *block, int layer, int depth, int c,
                        int heads, int window)
{
    for (int i = 0; i < depth; i++) {
        um_bind_scope(b, "image_encoder.layers.%d.blocks.%d.", layer, i);
        block[i].attn = bind_attention(b, c, heads, window);
        block[i].local = um_bind_conv_bn(b, "local_conv", c, c, 3, 1, 1, true);
        block[i].mlp.norm = um_bind_norm(b, "mlp.norm", c, NORM_EPS);
        block[i].mlp.fc1 = um_bind_linear(b, "mlp.fc1", 4 * c, c);
        block[i].mlp.fc2 = um_bind_linear(b, "mlp.fc2", c, 4 * c);
    }
}

static struct um_mbconv bind_mbconv(um_bind *b, const char *scope, int in, int hidden, int out,
                                    int stride)
{
    um_bind_scope(b, "image_encoder.layers.%s.", scope);
    return (struct um_mbconv){.expand = um_bind_conv_bn(b, "conv1", hidden, in, 1, 1, 0, false),
                              .dw = um_bind_conv_bn(b, "conv2", hidden, hidden, 3, stride, 1, true),
                              .project = um_bind_conv_bn(b, "conv3", out, hidden, 1, 1, 0, false)};
}

void um_tinyvit_bind(um_tinyvit *v, um_bind *b, int patch)
{
    int k = patch == 16 ? 3 : 1;
    um_bind_scope(b, "image_encoder.");
    v->stem[0] = um_bind_conv_bn(b, "patch_embed.seq.0", 32, 3, k, k == 3 ? 2 : 1, k / 2, false);
    v->stem[1] = um_bind_conv_bn(b, "patch_embed.seq.2", 64, 32, k, k == 3 ? 2 : 1, k / 2, false);
    v->stage0[0] = bind_mbconv(b, "0.blocks.0", 64, 256, 64, 1);
    v->stage0[1] = bind_mbconv(b, "0.blocks.1", 64, 256, 64, 1);
    v->merge[0] = bind_mbconv(b, "0.downsample", 64, 128, 128, 2);
    bind_blocks(b, v->stage1, 1, 2, 128, 4, 7);
    v->merge[1] = bind_mbconv(b, "1.downsample", 128, 160, 160, 2);
    bind_blocks(b, v->stage2, 2, 6, 160, 5, 14);
    v->merge[2] = bind_mbconv(b, "2.downsample", 160, 320, 320, 1);
    bind_blocks(b, v->stage3, 3, 2, 320, 10, 7);
}

/* ---- recording ---- */

/* What the steps do along the rows of the canvas, in order, up to where every image reaches all
 * of it: windows of 14 of 64 cells. */
enum { STEMS = 2, MERGE0 = 4, MERGE1 = 11, KEPT_STEPS = 12 };

static struct um_reach_args reach_of(const um_tinyvit *v, int side)
{
    const um_conv *stem[STEMS] = {&v->stem[0], &v->stem[1]};
    struct um_reach_args a = {.n = KEPT_STEPS};
    for (int i = 0; i < KEPT_STEPS; i++) {
        struct um_reach s = {.kernel = 3, .stride = 1};
        if (i < STEMS) {
            s.kernel = stem[i]->kh;
            s.stride = stem[i]->stride;
        } else if (i == MERGE0 || i == MERGE1)
            s.stride = 2;
        else if (i > MERGE0 && (i - MERGE0) % 3 == 1) /* attention, local convolution, MLP */
            s.window = v->stage1[0].attn.window;
        else if (i > MERGE0 && (i - MERGE0) % 3 == 0)
            s.kernel = 1;
        s.side = side = (side - 1) / s.stride + 1;
        a.step[i] = s;
    }
    return a;
}

/* Rows of step i's map that are kept: what the next step reads beyond those that an image reaches,
 * after the last all of them. */
static int kept_rows(const struct um_reach_args *a, int i)
{
    return i + 1 < a->n ? um_reach_beyond(&a->step[i + 1]) : a->step[i].side;
}

static int channels_of(const um_tinyvit *v, int i)
{
    return i < STEMS    ? v->stem[i].o
           : i < MERGE0 ? v->stage0[0].project.o
           : i < MERGE1 ? v->merge[0].project.o
                        : v->merge[1].project.o;
}

size_t um_tinyvit_beyond_bytes(const um_tinyvit *v, int side)
{
    struct um_reach_args a = reach_of(v, side);
    size_t n = sizeof(struct um_beyond);
    for (int i = 0; i < a.n; i++)
        n += sizeof(float) * (size_t)kept_rows(&a, i) * (size_t)a.step[i].side *
             (size_t)channels_of(v, i);
    return n;
}

/* Of a recording. */
struct beyond {
    um_tensor all; /* id 0: nothing is kept, everything is computed */
    struct um_reach_args reach;
    int step;     /* the next */
    int64_t used; /* floats of `all` */
};

/* n numbers at `floats` in what is kept. */
static um_tensor part(const struct beyond *b, enum um_dtype dtype, int64_t floats, int n)
{
    um_tensor x = b->all;
    x.dtype = dtype;
    x.off = floats; /* int32 are as long; bytes are only the first */
    x.c = n;
    return x;
}

static um_tensor state_of(const struct beyond *b)
{
    return part(b, UM_U8, 0, (int)sizeof(struct um_beyond));
}

static struct beyond begin(const um_tinyvit *v, um_tape *t, um_tensor x, um_tensor all)
{
    struct beyond b = {.all = all, .reach = reach_of(v, x.h)};
    b.used = (int64_t)(sizeof(struct um_beyond) / sizeof(float));
    if (all.id)
        um_reach(t, state_of(&b), x, &b.reach);
    return b;
}

/* x, the map of the next step, which was recorded last. */
static um_tensor reached(um_tape *t, struct beyond *b, um_tensor x)
{
    if (!b->all.id || b->step == b->reach.n)
        return x;
    int i = b->step++, n = kept_rows(&b->reach, i), floats = n * x.w * x.c;
    size_t compute = offsetof(struct um_beyond, compute) / sizeof(int32_t) + 2 * (size_t)i;
    um_tape_limit(t, part(b, UM_I32, (int64_t)compute, 2));
    if (n)
        um_beyond(t, x, part(b, UM_F32, b->used, floats), state_of(b),
                  &(struct um_beyond_args){i, n});
    b->used += floats;
    return x;
}

/* TinyViTBlock: the local convolution stands between attention and MLP and has no skip of its own.
 */
static um_tensor blocks(um_tape *t, const struct um_vit_block *block, int layer, int depth,
                        um_tensor x, struct beyond *b)
{
    for (int i = 0; i < depth; i++) {
        char name[24];
        x = reached(t, b, um_window_block(t, &block[i].attn, x));
        x = reached(t, b, um_conv2d(t, &block[i].local, x));
        x = reached(t, b, um_mlp(t, &block[i].mlp, x));
        snprintf(name, sizeof name, "layer%d_block%d", layer, i);
        um_tap_map(t, name, x);
    }
    return x;
}

static um_tensor merge(um_tape *t, const um_tinyvit *v, int i, um_tensor x, struct beyond *b)
{
    static const char *const names[] = {"merge0", "merge1", "merge2"};
    x = reached(t, b, um_mbconv(t, &v->merge[i], x, false));
    um_tap_map(t, names[i], x);
    return x;
}

um_tensor um_tinyvit_record(const um_tinyvit *v, um_tape *t, um_tensor x, um_tensor beyond)
{
    struct beyond b = begin(v, t, x, beyond);
    x = reached(t, &b, um_conv2d(t, &v->stem[0], x, .act = UM_ACT_GELU));
    x = reached(t, &b, um_conv2d(t, &v->stem[1], x));
    um_tap_map(t, "stem", x);
    x = reached(t, &b, um_mbconv(t, &v->stage0[0], x, true));
    um_tap_map(t, "layer0_block0", x);
    x = reached(t, &b, um_mbconv(t, &v->stage0[1], x, true));
    um_tap_map(t, "layer0_block1", x);
    x = merge(t, v, 0, x, &b);
    x = blocks(t, v->stage1, 1, 2, x, &b);
    x = merge(t, v, 1, x, &b);
    x = blocks(t, v->stage2, 2, 6, x, &b);
    x = merge(t, v, 2, x, &b);
    return blocks(t, v->stage3, 3, 2, x, &b);
}
