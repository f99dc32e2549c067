/* SPDX-License-Identifier: Apache-2.0 */
/* References: src/nn/backbone/hgnetv2.py, src/zoo/dfine/{hybrid_encoder,dfine_decoder}.py and
 * configs/dfine of Peterande/D-FINE. */
#include "model/dfine_size.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CHANNELS_MAX = 8192, HEADS = 8, POINTS_MAX = 64 /* of a head */ };

/* The published sizes. */
static const struct {
    const char *name;
    struct um_dfine_maps maps;
} SIZES[] = {
    {"dfine-n", {2, 128, {512, 1024}}},       {"dfine-s", {3, 256, {256, 512, 1024}}},
    {"dfine-m", {3, 256, {384, 768, 1536}}},  {"dfine-l", {3, 256, {512, 1024, 2048}}},
    {"dfine-x", {3, 384, {512, 1024, 2048}}},
};

/* Tensors are asked for one after the other; the first failure stays. */
struct ruler {
    const um_weights *file;
    um_status status;
};

static const struct um_wtensor *UM_PRINTF(2, 3) find(const um_weights *file, const char *fmt, ...)
{
    char name[192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return um_weights_find(file, name);
}

/* Does any name start like this? */
static bool UM_PRINTF(2, 3) has(const um_weights *file, const char *fmt, ...)
{
    char prefix[192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    return um_weights_has(file, prefix);
}

/* Dimension `axis` of tensor PREFIX NAME, which must have `rank` of them. */
static int size_of(struct ruler *r, int rank, int axis, int max, const char *prefix,
                   const char *name)
{
    const struct um_wtensor *t = find(r->file, "%s%s", prefix, name);
    if (r->status != UM_OK)
        return 1;
    if (!t)
        r->status = um_fail(UM_EFORMAT, "%s: not a whole D-FINE: missing tensor %s%s",
                            um_weights_path(r->file), prefix, name);
    else if (t->rank != rank)
        r->status = um_fail(UM_EFORMAT, "%s: tensor %s has %d dimensions, want %d",
                            um_weights_path(r->file), t->name, t->rank, rank);
    else if (t->dim[axis] < 1 || t->dim[axis] > max)
        r->status = um_fail(UM_EFORMAT, "%s: tensor %s: dimension %d is %" PRId64 ", want 1 to %d",
                            um_weights_path(r->file), t->name, axis, t->dim[axis], max);
    return r->status == UM_OK ? (int)t->dim[axis] : 1;
}

/* How many of PREFIX 0, PREFIX 1, … have a tensor NAME or its TWIN, of which one may be missing. */
static int count(struct ruler *r, int max, const char *prefix, const char *name, const char *twin)
{
    int n = 0;
    while (r->status == UM_OK &&
           (find(r->file, "%s%d%s", prefix, n, name) || find(r->file, "%s%d%s", prefix, n, twin)))
        if (++n > max)
            r->status = um_fail(UM_EFORMAT, "%s: tensor %s%d%s: more than %d of them are not read",
                                um_weights_path(r->file), prefix, n - 1, name, max);
    if (r->status == UM_OK && n == 0)
        r->status = um_fail(UM_EFORMAT, "%s: not a whole D-FINE: missing tensor %s0%s",
                            um_weights_path(r->file), prefix, name);
    return n;
}

static void measure_stage(struct ruler *r, int i, int in, struct um_hgnet_stage *s)
{
    char block[64], layer[96];
    snprintf(block, sizeof block, "backbone.stages.%d.blocks.", i);
    s->in = in;
    s->blocks = count(r, UM_DFINE_BLOCKS_MAX, block, ".aggregation.0.conv.weight",
                      ".aggregation.1.conv.weight");
    s->out = size_of(r, 4, 0, CHANNELS_MAX, block, "0.aggregation.1.conv.weight");
    snprintf(layer, sizeof layer, "%s0.layers.", block);
    s->light = has(r->file, "%s0.conv1.", layer);
    s->layers =
        count(r, UM_DFINE_UNITS_MAX, layer, s->light ? ".conv1.conv.weight" : ".conv.weight",
              s->light ? ".conv2.conv.weight" : ".bn.weight");
    s->mid =
        size_of(r, 4, 0, CHANNELS_MAX, layer, s->light ? "0.conv1.conv.weight" : "0.conv.weight");
    s->k = size_of(r, 4, 2, 7, layer, s->light ? "0.conv2.conv.weight" : "0.conv.weight");
}

static void measure_backbone(struct ruler *r, struct um_hgnet *b)
{
    b->stem_mid = size_of(r, 4, 0, CHANNELS_MAX, "backbone.stem.stem1", ".conv.weight");
    b->stem_out = size_of(r, 4, 0, CHANNELS_MAX, "backbone.stem.stem4", ".conv.weight");
    b->lab = um_weights_has(r->file, "backbone.stem.stem1.lab.");
    for (int i = 0; i < UM_DFINE_STAGES; i++)
        measure_stage(r, i, i ? b->stage[i - 1].out : b->stem_out, &b->stage[i]);
}

static void measure_encoder(struct ruler *r, struct um_dfine_size *s)
{
    struct um_dfine_maps maps = um_dfine_maps(r->file);
    static const char CSP[] = "encoder.fpn_blocks.0.cv2.0.conv1";
    s->levels = maps.levels;
    s->width = maps.width;
    s->ffn = size_of(r, 2, 0, CHANNELS_MAX, "encoder.encoder.0.layers.0", ".linear1.weight");
    bool fused = find(r->file, "%s.conv_bn_fused.weight", CSP) != NULL;
    s->c4 = size_of(r, 4, 0, CHANNELS_MAX, CSP, fused ? ".conv_bn_fused.weight" : ".conv.weight");
    while (s->reps < UM_DFINE_REPS_MAX &&
           has(r->file, "encoder.fpn_blocks.0.cv2.0.bottlenecks.%d.", s->reps))
        s->reps++;
    if (r->status == UM_OK && !s->reps)
        r->status = um_fail(UM_EFORMAT, "%s: encoder.fpn_blocks.0.cv2.0: no bottlenecks",
                            um_weights_path(r->file));
    if (r->status == UM_OK && s->levels < 2)
        r->status = um_fail(UM_EFORMAT, "%s: not a whole D-FINE: %d input projections, want 2 or 3",
                            um_weights_path(r->file), s->levels);
    if (r->status == UM_OK && s->width % (4 * HEADS))
        r->status = um_fail(UM_EFORMAT, "%s: encoder of width %d, want a multiple of %d",
                            um_weights_path(r->file), s->width, 4 * HEADS);
}

/* The buffer num_points_scale holds 1/n once for each of the n points of a level. */
static bool points_of_scale(const struct um_wtensor *scale, int levels, int *points)
{
    int64_t total = scale ? um_wtensor_elements(scale) : 0, at = 0;
    for (int l = 0; l < levels && total; l++) {
        double n = at < total ? round(1 / um_wtensor_at(scale, at)) : 0;
        if (!(n >= 1 && n <= (double)(total - at)))
            return false;
        points[l] = (int)n;
        at += points[l];
    }
    return total > 0 && at == total;
}

/* "3,6,3", one a level, or one number for all. */
static bool read_points(const char *text, int levels, int *points)
{
    bool same = !strchr(text, ',');
    for (int l = 0, n = 0; l < levels; l++) {
        if (sscanf(text, "%d%n", &points[l], &n) != 1 ||
            text[n] != (same || l + 1 == levels ? 0 : ','))
            return false;
        text += same ? 0 : n + 1;
    }
    return true;
}

/* Sampling points from the buffer that tells them; else (Hugging Face's files, which have none)
 * from config.json or the metadata; else their total as it is dealt out in the published sizes. */
static void measure_points(struct ruler *r, struct um_dfine_size *s)
{
    static const char LAYER[] = "decoder.decoder.layers.0.cross_attn";
    int rows = size_of(r, 2, 0, CHANNELS_MAX, LAYER, ".sampling_offsets.weight");
    const char *from = NULL, *said = um_weights_fact(r->file, "points", &from);
    int total = rows / (2 * HEADS);
    if (r->status != UM_OK)
        return;
    s->heads = HEADS;
    bool known = points_of_scale(find(r->file, "%s.num_points_scale", LAYER), s->levels, s->points);
    if (!known && said && !read_points(said, s->levels, s->points))
        r->status =
            um_fail(UM_EFORMAT, "%s: %s points is \"%.40s\", want one number for each of %d levels",
                    um_weights_path(r->file), from, said, s->levels);
    for (int l = 0; !known && !said && l < s->levels; l++)
        s->points[l] = s->levels == 3 && total == 12 ? (l == 1 ? 6 : 3) : total / s->levels;
    for (int l = 0; l < s->levels && r->status == UM_OK; l++) /* each, before they are added up */
        if (s->points[l] < 1 || s->points[l] > POINTS_MAX)
            r->status = um_fail(UM_EFORMAT, "%s: level %d has %d sampling points, want 1 to %d",
                                um_weights_path(r->file), l, s->points[l], POINTS_MAX);
    if (r->status == UM_OK &&
        (rows % (2 * HEADS) || um_dfine_points(s) != total || total > POINTS_MAX))
        r->status =
            um_fail(UM_EFORMAT,
                    "%s: tensor %s.sampling_offsets.weight has %d rows, want %d heads of "
                    "%d points on %d levels",
                    um_weights_path(r->file), LAYER, rows, HEADS, um_dfine_points(s), s->levels);
}

static void measure_decoder(struct ruler *r, struct um_dfine_size *s)
{
    char last[64];
    s->d = size_of(r, 2, 1, CHANNELS_MAX, "decoder.enc_score_head", ".weight");
    s->layers = count(r, UM_DFINE_LAYERS_MAX, "decoder.decoder.layers.", ".linear1.weight",
                      ".linear2.weight");
    s->d_ffn = size_of(r, 2, 0, CHANNELS_MAX, "decoder.decoder.layers.0", ".linear1.weight");
    s->projected = um_weights_find(r->file, "decoder.input_proj.0.conv.weight") != NULL;
    int sides =
        size_of(r, 2, 0, 4 * UM_DFINE_BINS_MAX, "decoder.dec_bbox_head.0.layers.2", ".weight");
    s->bins = sides / 4;
    if (r->status == UM_OK && (sides % 4 || s->bins % 2 == 0 || s->bins < 5))
        r->status = um_fail(UM_EFORMAT,
                            "%s: tensor decoder.dec_bbox_head.0.layers.2.weight has %d rows, want "
                            "four sides of an odd number of bins up to %d",
                            um_weights_path(r->file), sides, UM_DFINE_BINS_MAX);
    snprintf(last, sizeof last, "decoder.decoder.lqe_layers.%d.reg_conf.layers.0", s->layers - 1);
    s->lqe_hidden = size_of(r, 2, 0, CHANNELS_MAX, last, ".weight");
    measure_points(r, s);
    if (r->status == UM_OK && s->d % HEADS)
        r->status = um_fail(UM_EFORMAT, "%s: decoder of width %d, want a multiple of %d",
                            um_weights_path(r->file), s->d, HEADS);
}

struct um_dfine_maps um_dfine_maps(const um_weights *file)
{
    struct um_dfine_maps m = {.levels = 0};
    for (int i = 0; i < UM_DFINE_LEVELS_MAX; i++) {
        const struct um_wtensor *t = find(file, "encoder.input_proj.%d.conv.weight", i);
        if (!t || t->rank != 4 || t->dim[0] < 1 || t->dim[0] > CHANNELS_MAX || t->dim[1] < 1 ||
            t->dim[1] > CHANNELS_MAX)
            break;
        m.levels = i + 1;
        m.width = (int)t->dim[0];
        m.channels[i] = (int)t->dim[1];
    }
    return m;
}

um_status um_dfine_check_maps(const struct um_dfine_maps *m, const um_weights *file)
{
    if (m->levels == UM_DFINE_LEVELS_MAX || !has(file, "encoder.input_proj.%d.", m->levels))
        return UM_OK;
    return um_fail(UM_EFORMAT,
                   "%s: missing tensor encoder.input_proj.%d.conv.weight, want one of "
                   "4 dimensions; give the checkpoint of the whole network",
                   um_weights_path(file), m->levels);
}

const char *um_dfine_name(const struct um_dfine_maps *m)
{
    for (size_t k = 0; k < sizeof SIZES / sizeof *SIZES; k++)
        if (memcmp(&SIZES[k].maps, m, sizeof *m) == 0)
            return SIZES[k].name;
    return "dfine";
}

um_status um_dfine_measure(const um_weights *file, struct um_dfine_size *out)
{
    struct ruler r = {.file = file};
    *out = (struct um_dfine_size){.levels = 0};
    measure_backbone(&r, &out->backbone);
    measure_encoder(&r, out);
    measure_decoder(&r, out);
    return r.status;
}

int um_dfine_channels(const struct um_dfine_size *s, int l)
{
    return s->backbone.stage[UM_DFINE_STAGES - s->levels + l].out;
}

int um_dfine_points(const struct um_dfine_size *s)
{
    int n = 0;
    for (int l = 0; l < s->levels; l++)
        n += s->points[l];
    return n;
}
