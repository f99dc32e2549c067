/* SPDX-License-Identifier: Apache-2.0 */
#include "model/upstream.h"

#include "model/dfine_net.h"

#include <stdio.h>
#include <string.h>

struct adder {
    struct um_arena *arena;
    const um_weights *file;
    struct um_wout *tensor;
    int *n, first; /* those from `first` on were added */
    um_status status;
};

static const struct um_wout *find(const struct adder *a, const char *name)
{
    for (int i = 0; i < *a->n; i++)
        if (strcmp(a->tensor[i].name, name) == 0)
            return &a->tensor[i];
    return NULL;
}

/* Room for a tensor that is not there yet; NULL if it is, or after a failure. */
static void *add(struct adder *a, const char *name, enum um_wtype type, size_t bytes, int rank,
                 const int64_t *dim)
{
    if (a->status != UM_OK || find(a, name))
        return NULL;
    void *data = um_arena_take(a->arena, bytes + 1);
    char *own = um_arena_string(a->arena, name, strlen(name));
    if (!data || !own || *a->n - a->first == UM_UPSTREAM_MAX) {
        a->status = um_fail(UM_ENOMEM, "tensor %s", name);
        return NULL;
    }
    struct um_wout *t = &a->tensor[(*a->n)++];
    *t = (struct um_wout){.name = own, .type = type, .rank = rank, .data = data};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    memset(data, 0, bytes);
    return data;
}

static void add_alias(struct adder *a, const char *name, const char *of)
{
    const struct um_wout *t = find(a, of);
    if (!t || find(a, name) || a->status != UM_OK || *a->n - a->first == UM_UPSTREAM_MAX)
        return;
    struct um_wout copy = *t;
    copy.name = name;
    a->tensor[(*a->n)++] = copy;
}

static void add_anchors(struct adder *a, const struct um_dfine_info *d, int levels)
{
    int64_t tokens = 0, t = 0;
    for (int l = 0; l < levels; l++) {
        int stride = um_dfine_stride(levels, l);
        tokens += (int64_t)(d->input_w / stride) * (d->input_h / stride);
    }
    float *logit = add(a, "decoder.anchors", UM_W_F32, (size_t)tokens * 4 * sizeof *logit, 3,
                       (int64_t[]){1, tokens, 4});
    unsigned char *valid =
        add(a, "decoder.valid_mask", UM_W_BOOL, (size_t)tokens, 3, (int64_t[]){1, tokens, 1});
    for (int l = 0; l < levels; l++) {
        int stride = um_dfine_stride(levels, l);
        int w = d->input_w / stride, h = d->input_h / stride;
        for (int i = 0; i < w * h; i++, t++) {
            float own[4];
            bool good = um_dfine_anchor(l, i % w, i / w, w, h, own);
            if (logit)
                memcpy(logit + 4 * t, own, sizeof own);
            if (valid)
                valid[t] = good;
        }
    }
}

static void add_points(struct adder *a, const struct um_dfine_size *s)
{
    int total = um_dfine_points(s);
    for (int i = 0; i < s->layers; i++) {
        char name[96];
        snprintf(name, sizeof name, "decoder.decoder.layers.%d.cross_attn.num_points_scale", i);
        float *scale = add(a, name, UM_W_F32, (size_t)total * sizeof *scale, 1, (int64_t[]){total});
        for (int l = 0, p = 0; scale && l < s->levels; l++)
            for (int k = 0; k < s->points[l]; k++)
                scale[p++] = 1.0f / (float)s->points[l];
    }
}

static um_status complete_dfine(struct adder *a, const struct um_dfine_info *d)
{
    struct um_dfine_size size;
    um_status st = um_dfine_measure(a->file, &size);
    if (st != UM_OK)
        return st;
    if (um_weights_find(a->file, "encoder.lateral_convs.0.conv_bn_fused.weight"))
        return um_fail(UM_EUNSUPPORTED, "its BatchNorms are fused (deploy), which upstream's code "
                                        "does not load; convert the training checkpoint");
    if (um_dfine_is_hugging_face(d) && d->input_w != d->input_h)
        return um_fail(UM_EUNSUPPORTED, "transformers and upstream count positions of an input "
                                        "that is not square differently; give a square --det-size");
    add_alias(a, "decoder.decoder.up", "decoder.up");
    add_alias(a, "decoder.decoder.reg_scale", "decoder.reg_scale");
    add_points(a, &size);
    add_anchors(a, d, size.levels);
    return a->status;
}

/* MobileSAM's TinyViT carries the head of a classifier of 1000 classes, which nothing asks.
 * LiteMedSAM's, whose stem is 1x1, does not. */
static um_status complete_sam(struct adder *a)
{
    enum { WIDTH = 320, CLASSES = 1000 };
    const struct um_wout *stem = find(a, "image_encoder.patch_embed.seq.0.c.weight");
    if (!stem || stem->rank != 4 || stem->dim[2] == 1)
        return UM_OK;
    add(a, "image_encoder.norm_head.weight", UM_W_F32, WIDTH * 4, 1, (int64_t[]){WIDTH});
    add(a, "image_encoder.norm_head.bias", UM_W_F32, WIDTH * 4, 1, (int64_t[]){WIDTH});
    add(a, "image_encoder.head.weight", UM_W_F32, CLASSES * WIDTH * 4, 2,
        (int64_t[]){CLASSES, WIDTH});
    add(a, "image_encoder.head.bias", UM_W_F32, CLASSES * 4, 1, (int64_t[]){CLASSES});
    return a->status;
}

um_status um_upstream_complete(struct um_arena *arena, const um_weights *file,
                               const struct um_dfine_info *dfine, struct um_wout *tensor, int *n)
{
    struct adder a = {.arena = arena, .file = file, .tensor = tensor, .n = n, .first = *n};
    return dfine ? complete_dfine(&a, dfine) : complete_sam(&a);
}
