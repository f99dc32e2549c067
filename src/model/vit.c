/* SPDX-License-Identifier: Apache-2.0 */
/* The ViT image encoder of SAM and MedSAM: image [16n,16n,3] -> [n,n,C].
 *
 *   patches  conv16x16/16 3->C, + pos_embed                                        [n, n, C]
 *   layers   x + proj(attention(qkv(LN x))), then x + fc2(GELU(fc1(LN x))); attention in windows,
 *            of 14 in upstream's, and in every fourth part of the layers over the whole map; scores
 *            get what the query finds in two tables for its distance to the key's row and column
 *
 *            width C  layers  heads  global layers
 *   B        768      12      12     2 5 8 11
 *   L        1024     24      16     5 11 17 23
 *   H        1280     32      16     7 15 23 31
 *
 * All of it is read off the tensors: a table has 2*window - 1 rows of C/heads. Of these three
 * widths no layer may be missing.
 *
 * Reference: facebookresearch/segment-anything, segment_anything/modeling/image_encoder.py:
 * ImageEncoderViT, Block, Attention, window_partition, add_decomposed_rel_pos. */
#include "model/vit.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    LAYERS_MAX = 256,
    WIDTH_MAX = 4096,
    WINDOW_MAX = 32 /* of one that is larger than the map */
};
static const float NORM_EPS = 1e-6f;

static void refuse(um_bind *b, um_status st)
{
    if (b->status == UM_OK)
        b->status = st;
}

struct name {
    char s[48];
};

static struct name layer_name(int i)
{
    struct name n;
    snprintf(n.s, sizeof n.s, "image_encoder.blocks.%d.", i);
    return n;
}

/* Rows and columns of a table of relative positions in layer i; false if it has none that can be.
 */
static bool table_of(const um_bind *b, int i, int *rows, int *columns)
{
    char name[96];
    snprintf(name, sizeof name, "%sattn.rel_pos_h", layer_name(i).s);
    const struct um_wtensor *t = um_weights_find(b->file, name);
    bool sane = t && t->rank == 2 && t->dim[0] % 2 == 1 && t->dim[0] < 2 * UM_RELATIVE_MAX &&
                t->dim[1] > 0 && t->dim[1] <= WIDTH_MAX;
    *rows = sane ? (int)t->dim[0] : 0;
    *columns = sane ? (int)t->dim[1] : 0;
    return sane;
}

/* Layers that an encoder of this width has at least. */
static int least_depth(int width)
{
    return width == 768 ? 12 : width == 1024 ? 24 : width == 1280 ? 32 : 1;
}

static void measure(um_vit *v, um_bind *b)
{
    const char *path = um_weights_path(b->file);
    const struct um_wtensor *position = um_weights_find(b->file, "image_encoder.pos_embed");
    int rows = 0, head = 0;
    if (!position || position->rank != 4 || position->dim[1] != position->dim[2] ||
        position->dim[3] < 1 || position->dim[3] > WIDTH_MAX) {
        refuse(b,
               um_fail(UM_EFORMAT, "%s: tensor image_encoder.pos_embed, want [1,n,n,width]", path));
        return;
    }
    v->width = (int)position->dim[3];
    if (position->dim[1] != v->n) {
        refuse(b, um_fail(UM_EINVAL,
                          "%s: canvas %d: its positions are for %" PRId64 "x%" PRId64
                          " patches, a canvas of %" PRId64,
                          path, v->n * UM_VIT_PATCH, position->dim[2], position->dim[1],
                          position->dim[1] * UM_VIT_PATCH));
        return;
    }
    if (!table_of(b, 0, &rows, &head) || v->width % head) {
        refuse(
            b,
            um_fail(UM_EFORMAT,
                    "%s: tensor image_encoder.blocks.0.attn.rel_pos_h, want [2*window-1,%d/heads]",
                    path, v->width));
        return;
    }
    v->heads = v->width / head;
    while (v->depth < LAYERS_MAX && um_weights_has(b->file, layer_name(v->depth).s))
        v->depth++;
    if (v->depth < least_depth(v->width))
        refuse(b, um_fail(UM_EFORMAT, "%s: no tensor %s*, want %d layers of width %d", path,
                          layer_name(v->depth).s, least_depth(v->width), v->width));
}

static void bind_layer(um_vit *v, um_bind *b, int i)
{
    struct um_vit_layer *l = &v->layer[i];
    int rows = 0, head = 0, c = v->width;
    if (!table_of(b, i, &rows, &head))
        refuse(b, um_fail(UM_EFORMAT, "%s: tensor %sattn.rel_pos_h, want [2*window-1,%d]",
                          um_weights_path(b->file), layer_name(i).s, c / v->heads));
    l->window = (rows + 1) / 2;
    if (l->window > v->n && l->window > WINDOW_MAX)
        refuse(b, um_fail(UM_EFORMAT,
                          "%s: image_encoder.blocks.%d.attn.rel_pos_h has %d rows, for windows of "
                          "%d; the map is %dx%d",
                          um_weights_path(b->file), i, rows, l->window, v->n, v->n));
    um_bind_scope(b, "%s", layer_name(i).s);
    l->norm = um_bind_norm(b, "norm1", c, NORM_EPS);
    l->qkv = um_bind_linear(b, "attn.qkv", 3 * c, c);
    l->pad = um_bind_table(b, "attn.qkv.bias", 1, (int64_t[]){3 * c});
    l->proj = um_bind_linear(b, "attn.proj", c, c);
    l->rows = um_bind_table(b, "attn.rel_pos_h", 2, (int64_t[]){rows, c / v->heads});
    l->columns = um_bind_table(b, "attn.rel_pos_w", 2, (int64_t[]){rows, c / v->heads});
    l->mlp.norm = um_bind_norm(b, "norm2", c, NORM_EPS);
    l->mlp.fc1 = um_bind_linear(b, "mlp.lin1", 4 * c, c);
    l->mlp.fc2 = um_bind_linear(b, "mlp.lin2", c, 4 * c);
}

void um_vit_bind(um_vit *v, um_bind *b, int n)
{
    um_vit_close(v); /* it may be the second time */
    *v = (um_vit){.n = n, .params = b->params};
    measure(v, b);
    if (b->status != UM_OK)
        return;
    v->layer = um_array((size_t)v->depth, sizeof *v->layer);
    if (!v->layer) {
        refuse(b, um_fail(UM_ENOMEM, "%d layers", v->depth));
        return;
    }
    um_bind_scope(b, "image_encoder.");
    v->patch =
        um_bind_conv(b, "patch_embed.proj", v->width, 3, UM_VIT_PATCH, UM_VIT_PATCH, 0, true);
    v->position = um_bind_table(b, "pos_embed", 4, (int64_t[]){1, n, n, v->width});
    for (int i = 0; i < v->depth; i++)
        bind_layer(v, b, i);
}

void um_vit_close(um_vit *v)
{
    um_free(v->layer);
    v->layer = NULL;
}

um_tensor um_vit_record(const um_vit *v, um_tape *t, um_tensor x)
{
    int head = v->width / v->heads;
    um_tensor position = um_tape_const(t, v->params, v->position, UM_F32, v->n, v->n, v->width);
    x = um_conv2d(t, &v->patch, x, .add = position);
    um_tap_map(t, "patches", x);
    for (int i = 0; i < v->depth; i++) {
        const struct um_vit_layer *l = &v->layer[i];
        char name[24];
        int entries = 2 * l->window - 1;
        um_tensor qkv = um_linear(t, &l->qkv, x, .norm_in = &l->norm);
        um_tensor a = um_relative_attention(
            t, qkv, um_tape_const(t, v->params, l->pad, UM_F32, 1, 1, 3 * v->width),
            um_tape_const(t, v->params, l->rows, UM_F32, 1, entries, head),
            um_tape_const(t, v->params, l->columns, UM_F32, 1, entries, head), l->window, v->heads,
            um_attends_in_bf16(&l->qkv));
        x = um_linear(t, &l->proj, a, .add = x);
        x = um_mlp(t, &l->mlp, x);
        snprintf(name, sizeof name, "block%d", i);
        um_tap_map(t, name, x);
    }
    return x;
}
