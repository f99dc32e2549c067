/* SPDX-License-Identifier: Apache-2.0 */
/* Hugging Face D-FINE names to those of the upstream repository: transformers,
 * models/d_fine/modeling_d_fine.py, and the spellings of transformers 5 (conversion_mapping.py,
 * "d_fine"). Separate q, k, v projections become the rows of one matrix. */
#include "weights/view.h"

#include <stdio.h>
#include <string.h>

struct rule {
    const char *from, *to; /* '#' is a number, the same on both sides */
};

/* Beginnings of names; the first that fits is taken. */
static const struct rule PREFIX[] = {
    {"model.backbone.model.embedder.", "backbone.stem."},
    {"model.backbone.model.encoder.", "backbone."},
    {"model.encoder_input_proj.#.0.", "encoder.input_proj.#.conv."},
    {"model.encoder_input_proj.#.1.", "encoder.input_proj.#.norm."},
    {"model.decoder_input_proj.#.0.", "decoder.input_proj.#.conv."},
    {"model.decoder_input_proj.#.1.", "decoder.input_proj.#.norm."},
    {"model.encoder.aifi.#.layers.", "encoder.encoder.#.layers."},
    {"model.encoder.downsample_convs.#.conv1.", "encoder.downsample_convs.#.0.cv1."},
    {"model.encoder.downsample_convs.#.conv2.", "encoder.downsample_convs.#.0.cv2."},
    {"model.encoder.fpn_blocks.#.conv1.", "encoder.fpn_blocks.#.cv1."},
    {"model.encoder.fpn_blocks.#.csp_rep1.", "encoder.fpn_blocks.#.cv2.0."},
    {"model.encoder.fpn_blocks.#.conv2.", "encoder.fpn_blocks.#.cv2.1."},
    {"model.encoder.fpn_blocks.#.csp_rep2.", "encoder.fpn_blocks.#.cv3.0."},
    {"model.encoder.fpn_blocks.#.conv3.", "encoder.fpn_blocks.#.cv3.1."},
    {"model.encoder.fpn_blocks.#.conv4.", "encoder.fpn_blocks.#.cv4."},
    {"model.encoder.pan_blocks.#.conv1.", "encoder.pan_blocks.#.cv1."},
    {"model.encoder.pan_blocks.#.csp_rep1.", "encoder.pan_blocks.#.cv2.0."},
    {"model.encoder.pan_blocks.#.conv2.", "encoder.pan_blocks.#.cv2.1."},
    {"model.encoder.pan_blocks.#.csp_rep2.", "encoder.pan_blocks.#.cv3.0."},
    {"model.encoder.pan_blocks.#.conv3.", "encoder.pan_blocks.#.cv3.1."},
    {"model.encoder.pan_blocks.#.conv4.", "encoder.pan_blocks.#.cv4."},
    {"model.encoder.", "encoder."},
    {"model.enc_output.0.", "decoder.enc_output.proj."},
    {"model.enc_output.1.", "decoder.enc_output.norm."},
    {"model.enc_score_head.", "decoder.enc_score_head."},
    {"model.enc_bbox_head.", "decoder.enc_bbox_head."},
    {"model.denoising_class_embed.", "decoder.denoising_class_embed."},
    {"model.decoder.class_embed.", "decoder.dec_score_head."},
    {"model.decoder.bbox_embed.", "decoder.dec_bbox_head."},
    {"model.decoder.layers.", "decoder.decoder.layers."},
    {"model.decoder.lqe_layers.", "decoder.decoder.lqe_layers."},
    {"model.decoder.", "decoder."},
};
/* The heads appear a second time at the top; either will do. */
static const struct rule ALIAS[] = {
    {"class_embed.", "decoder.dec_score_head."},
    {"bbox_embed.", "decoder.dec_bbox_head."},
};
static const struct rule BACKBONE[] = {{".convolution.", ".conv."}, {".normalization.", ".bn."}};
static const struct rule ENCODER_LAYER[] = {
    {".self_attn.o_proj.", ".self_attn.out_proj."},
    {".self_attn_layer_norm.", ".norm1."},
    {".final_layer_norm.", ".norm2."},
    {".mlp.layers.0.", ".linear1."},
    {".mlp.layers.1.", ".linear2."},
    {".fc1.", ".linear1."},
    {".fc2.", ".linear2."},
};
static const struct rule DECODER_LAYER[] = {
    {".self_attn.o_proj.", ".self_attn.out_proj."},
    {".encoder_attn.", ".cross_attn."},
    {".self_attn_layer_norm.", ".norm1."},
    {".final_layer_norm.", ".norm3."},
    {".mlp.layers.0.", ".linear1."},
    {".mlp.layers.1.", ".linear2."},
    {".fc1.", ".linear1."},
    {".fc2.", ".linear2."},
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Behind a name that came from ALIAS: sorts right after the name itself, and no name of a file has
 * control characters. */
static const char ALIAS_MARK[] = "\001";

enum { LONG_NAME = 2 * UM_W_NAME_MAX };

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* If name begins with rule->from, out = rule->to and the rest of it. */
static bool apply_prefix(const struct rule *rule, const char *name, char out[LONG_NAME])
{
    const char *p = name, *number = "";
    int digits = 0;
    for (const char *f = rule->from; *f; f++) {
        if (*f == '#') {
            number = p;
            digits = (int)strspn(p, "0123456789");
            if (digits == 0)
                return false;
            p += digits;
        } else if (*p++ != *f) {
            return false;
        }
    }
    const char *hash = strchr(rule->to, '#');
    int before = hash ? (int)(hash - rule->to) : (int)strlen(rule->to);
    snprintf(out, LONG_NAME, "%.*s%.*s%s%s", before, rule->to, digits, number, hash ? hash + 1 : "",
             p);
    return true;
}

/* The first rule whose text occurs in name is applied, once. */
static void apply_inside(const struct rule *rule, size_t n, char name[LONG_NAME])
{
    for (size_t i = 0; i < n; i++) {
        const char *at = strstr(name, rule[i].from);
        if (!at)
            continue;
        char old[LONG_NAME];
        memcpy(old, name, LONG_NAME);
        snprintf(name, LONG_NAME, "%.*s%s%s", (int)(at - name), old, rule[i].to,
                 old + (at - name) + strlen(rule[i].from));
        return;
    }
}

static um_status rename_one(um_weights *w, struct um_wtensor *t)
{
    char name[LONG_NAME];
    bool done = false, alias = false;
    for (size_t i = 0; i < COUNT(PREFIX) && !done; i++)
        done = apply_prefix(&PREFIX[i], t->name, name);
    for (size_t i = 0; i < COUNT(ALIAS) && !done; i++)
        done = alias = apply_prefix(&ALIAS[i], t->name, name);
    if (!done)
        return UM_OK;
    if (starts(name, "backbone."))
        apply_inside(BACKBONE, COUNT(BACKBONE), name);
    else if (starts(name, "encoder.encoder."))
        apply_inside(ENCODER_LAYER, COUNT(ENCODER_LAYER), name);
    else if (starts(name, "decoder.decoder.layers."))
        apply_inside(DECODER_LAYER, COUNT(DECODER_LAYER), name);
    if (alias)
        strcat(name, ALIAS_MARK);
    t->name = um_arena_string(&w->arena, name, strlen(name));
    return t->name ? UM_OK : um_fail(UM_ENOMEM, "name of a tensor");
}

/* One head stays if a file has it under both names. */
static void drop_aliases(um_weights *w)
{
    int kept = 0;
    for (int i = 0; i < w->count; i++) {
        struct um_wtensor t = w->tensor[i];
        size_t n = strlen(t.name);
        bool alias = n && t.name[n - 1] == ALIAS_MARK[0];
        if (alias && kept && strlen(w->tensor[kept - 1].name) == n - 1 &&
            memcmp(w->tensor[kept - 1].name, t.name, n - 1) == 0)
            continue;
        if (alias)
            ((char *)t.name)[n - 1] = 0; /* ours: rename_one() made it */
        w->tensor[kept++] = t;
    }
    w->count = kept;
}

/* Turn q = tensor "<stem>q_proj.<kind>" into the rows of q, k, v. Its name stays until all are
 * joined: look-ups need the order. */
static um_status join(um_weights *w, struct um_wtensor *q, size_t stem, const char *kind)
{
    char name[LONG_NAME], found[128], want[128];
    const struct um_wtensor *part[3] = {q, NULL, NULL};
    for (int i = 1; i < 3; i++) {
        snprintf(name, sizeof name, "%.*s%c_proj.%s", (int)stem, q->name, "qkv"[i], kind);
        const struct um_wtensor *t = part[i] = um_weights_find(w, name);
        if (!t)
            return um_fail(UM_EFORMAT, "missing tensor %s beside %s", name, q->name);
        bool same = t->rank == q->rank && t->rank >= 1 && t->type == q->type;
        for (int d = 0; same && d < t->rank; d++)
            same = t->dim[d] == q->dim[d];
        if (!same)
            return um_fail(
                UM_EFORMAT, "tensor %s is %s %s, want %s %s like q_proj", name,
                um_wtype_name(t->type), um_view_shape(found, sizeof found, t->rank, t->dim),
                um_wtype_name(q->type), um_view_shape(want, sizeof want, q->rank, q->dim));
    }
    size_t bytes = (size_t)um_wtensor_elements(q) * um_wtype_bytes(q->type);
    unsigned char *data = um_arena_take(&w->arena, 3 * bytes);
    if (!data)
        return um_fail(UM_ENOMEM, "tensor %s: %zu bytes", q->name, 3 * bytes);
    for (int i = 0; i < 3; i++)
        um_view_copy(part[i], data + (size_t)i * bytes);
    q->dim[0] *= 3;
    q->data = data;
    um_view_strides(q->rank, q->dim, q->stride);
    return UM_OK;
}

/* Which projection a name is: 'q', 'k', 'v' or 0; *stem is the length of what precedes it. */
static char projection(const char *name, size_t *stem, const char **kind)
{
    const char *at = strstr(name, ".self_attn.");
    if (!at || strlen(at) < 19)
        return 0;
    at += 11;
    *stem = (size_t)(at - name);
    *kind = at + 7;
    bool good = strchr("qkv", at[0]) && starts(at + 1, "_proj.") &&
                (strcmp(*kind, "weight") == 0 || strcmp(*kind, "bias") == 0);
    return good ? at[0] : 0;
}

static um_status join_all(um_weights *w)
{
    size_t stem = 0;
    const char *kind = NULL;
    for (int i = 0; i < w->count; i++) {
        struct um_wtensor *t = &w->tensor[i];
        um_status st = projection(t->name, &stem, &kind) == 'q' ? join(w, t, stem, kind) : UM_OK;
        if (st != UM_OK)
            return st;
    }
    int kept = 0;
    for (int i = 0; i < w->count; i++) {
        struct um_wtensor t = w->tensor[i];
        char which = projection(t.name, &stem, &kind), name[LONG_NAME];
        if (which == 'k' || which == 'v')
            continue;
        if (which == 'q') {
            snprintf(name, sizeof name, "%.*sin_proj_%s", (int)stem, t.name, kind);
            t.name = um_arena_string(&w->arena, name, strlen(name));
            if (!t.name)
                return um_fail(UM_ENOMEM, "name of a tensor");
        }
        w->tensor[kept++] = t;
    }
    w->count = kept;
    return UM_OK;
}

um_status um_hf_rename(um_weights *w)
{
    bool hugging_face = false;
    for (int i = 0; i < w->count && !hugging_face; i++)
        hugging_face = starts(w->tensor[i].name, "model.backbone.model.");
    um_status st = UM_OK;
    if (!hugging_face)
        return st;
    for (int i = 0; i < w->count && st == UM_OK; i++)
        st = rename_one(w, &w->tensor[i]);
    if (st != UM_OK)
        return st;
    um_view_sort(w);
    drop_aliases(w);
    w->hugging_face = true;
    return join_all(w);
}
