/* SPDX-License-Identifier: Apache-2.0 */
/* What a D-FINE checkpoint is: from its tensors, and where they cannot tell, from what the file or
 * the config.json beside it says. */
#include "base/number.h"
#include "model/dfine_net.h"
#include "model/input_size.h"
#include "model/network.h"
#include "nn/record.h"
#include "nn/resize.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char STEM[] = "backbone.stem.stem1.conv.weight",
                  HEAD[] = "decoder.enc_score_head.weight", UP[] = "decoder.up";

/* ---- the input's size, off the anchors ---- */

bool um_dfine_anchor(int level, int x, int y, int w, int h, float logit[4])
{
    float size = 0.05f * (float)(1 << level);
    float box[4] = {((float)x + 0.5f) / (float)w, ((float)y + 0.5f) / (float)h, size, size};
    bool valid = true;
    for (int i = 0; i < 4; i++)
        valid = valid && box[i] > 0.01f && box[i] < 0.99f;
    for (int i = 0; i < 4; i++)
        logit[i] = valid ? logf(box[i] / (1 - box[i])) : INFINITY;
    return valid;
}

double um_dfine_anchor_rounding(const struct um_wtensor *stored)
{
    return stored->type == UM_W_BF16 ? 0.02 : 4e-3; /* of logits up to 4.6 */
}

/* Are these the anchors of a w x h input? */
static bool anchors_fit(const struct um_wtensor *a, int levels, int w, int h)
{
    double rounding = um_dfine_anchor_rounding(a);
    int64_t at = 0;
    for (int l = 0; l < levels; l++) {
        int stride = um_dfine_stride(levels, l), cols = w / stride, rows = h / stride;
        for (int y = 0; y < rows; y++)
            for (int x = 0; x < cols; x++, at += 4) {
                float want[4];
                if (!um_dfine_anchor(l, x, y, cols, rows, want))
                    continue;
                for (int i = 0; i < 4; i++)
                    if (!(fabs(um_wtensor_at(a, at + i) - want[i]) <= rounding))
                        return false;
            }
    }
    return true;
}

/* The input that a checkpoint's anchors were made for; false without anchors or where they fit
 * none. */
static bool anchor_extent(const um_weights *file, int *w, int *h)
{
    struct um_dfine_maps m = um_dfine_maps(file);
    const struct um_wtensor *a = um_weights_find(file, "decoder.anchors"); /* [1,tokens,4] */
    int64_t of_cell = 0, square = 0; /* tokens of a 32 x 32 cell; side of the square, in cells */
    for (int l = 0; l < m.levels; l++)
        of_cell += (int64_t)1 << 2 * l;
    if (!a || a->rank != 3 || a->dim[0] != 1 || a->dim[2] != 4 || !of_cell || !a->dim[1] ||
        a->dim[1] % of_cell)
        return false;
    int64_t cells = a->dim[1] / of_cell, most = UM_INPUT_MAX / UM_DFINE_STEP;
    for (int64_t rows = 1; rows <= most && rows <= cells; rows++) {
        if (cells % rows || cells / rows > most)
            continue;
        *w = (int)(cells / rows) * UM_DFINE_STEP;
        *h = (int)rows * UM_DFINE_STEP;
        if (anchors_fit(a, m.levels, *w, *h))
            return true;
        square = rows * rows == cells ? rows : square;
    }
    *w = *h = (int)square * UM_DFINE_STEP;
    return square > 0; /* no anchors of ours, but as many as a square has */
}

/* ---- what the file says ---- */

static um_status wrong(const um_weights *file, const char *from, const char *key, const char *text,
                       const char *want)
{
    return um_fail(UM_EFORMAT, "%s: %s %s is \"%.40s\", want %s", um_weights_path(file), from, key,
                   text, want);
}

static um_status read_act(const um_weights *file, const char *key, enum um_act *act,
                          const char **from)
{
    const char *where = NULL, *text = um_weights_fact(file, key, &where);
    *from = text ? where : *from;
    if (!text || strcmp(text, "relu") == 0 || strcmp(text, "silu") == 0) {
        *act = !text ? *act : text[0] == 's' ? UM_ACT_SILU : UM_ACT_RELU;
        return UM_OK;
    }
    return wrong(file, *from, key, text, "relu or silu");
}

static um_status read_queries(const um_weights *file, struct um_dfine_info *info)
{
    uint64_t n = 0;
    const char *text = um_weights_fact(file, "queries", &info->queries_from);
    if (text && (!um_number_whole(text, UM_DFINE_QUERIES_MAX, &n) || n == 0))
        return wrong(file, info->queries_from, "queries", text, "1 to 1024");
    info->queries = text ? (int)n : UM_DFINE_QUERIES;
    return UM_OK;
}

static um_status read_size(const um_weights *file, struct um_dfine_info *info)
{
    um_status st =
        um_input_extent(file, UM_DFINE_STEP, &info->input_w, &info->input_h, &info->size_from);
    if (st != UM_OK || info->input_w)
        return st;
    info->size_from = "tensors";
    if (anchor_extent(file, &info->input_w, &info->input_h))
        return UM_OK;
    info->size_from = "default";
    info->input_w = info->input_h = UM_DFINE_SIDE;
    return UM_OK;
}

static um_status read_fit(const um_weights *file, struct um_dfine_info *info)
{
    const char *text = um_weights_fact(file, "fit", &info->fit_from);
    info->letterbox = text && strcmp(text, "letterbox") == 0;
    return !text || info->letterbox || strcmp(text, "stretch") == 0
               ? UM_OK
               : wrong(file, info->fit_from, "fit", text, "stretch or letterbox");
}

static const char GAIN[] = "off, auto[,GAMMA] or G[,GAMMA], G 0.1 to 16, GAMMA 0.2 to 5";

static const char NMS[] = "an IoU above 0 up to 1, which leaves all";

static const char PRESENCE[] = "K[,P], K 1 to 16 boxes, P above 0 and below 1";
static_assert(UM_BOXES_MAX == 16, "PRESENCE says so");
static const char SMOOTH[] = "pixels of the input, 1 to 8";
static_assert(UM_SMOOTH_MAX == 8, "SMOOTH says so");

static bool set_gain(struct um_dfine_info *info, const char *text)
{
    return strlen(text) < sizeof info->gain_text && um_gain_read(text, &info->gain) &&
           strcpy(info->gain_text, text);
}

static um_status read_gain(const um_weights *file, struct um_dfine_info *info)
{
    const char *from = NULL, *text = um_weights_fact(file, "gain", &from);
    return set_gain(info, text ? text : "off") ? UM_OK : wrong(file, from, "gain", text, GAIN);
}

/* 1 is what upstream does: all stay. */
static void set_nms(struct um_dfine_info *info, float nms)
{
    info->nms = nms < 1 ? nms : 0;
}

static um_status read_nms(const um_weights *file, struct um_dfine_info *info)
{
    const char *from = NULL, *text = um_weights_fact(file, "nms", &from);
    double nms = 1;
    if (text && !(um_number_read(text, &nms) && nms > 0 && nms <= 1))
        return wrong(file, from, "nms", text, NMS);
    set_nms(info, (float)nms);
    return UM_OK;
}

static bool set_presence(struct um_dfine_info *info, const char *text)
{
    char *comma, *boxes = info->presence_text;
    double k = 0, half = .5;
    if (strlen(text) >= sizeof info->presence_text)
        return false;
    strcpy(boxes, text);
    if ((comma = strchr(boxes, ',')))
        *comma = 0;
    bool good = um_number_read(boxes, &k) && k >= 1 && k <= UM_BOXES_MAX && k == floor(k) &&
                (!comma || um_number_read(comma + 1, &half));
    strcpy(boxes, text);
    float p = (float)half; /* which may be 0 or 1 where half is not */
    if (!good || !(p > 0 && p < 1))
        return false;
    /* The score of one box stays as it is, not rounded once more. */
    info->presence = (struct um_presence_wish){k == 1 && p == .5f ? 0 : (uint32_t)k, p};
    return true;
}

static um_status read_presence(const um_weights *file, struct um_dfine_info *info)
{
    const char *from = NULL, *text = um_weights_fact(file, "presence", &from);
    return set_presence(info, text ? text : "1") ? UM_OK
                                                 : wrong(file, from, "presence", text, PRESENCE);
}

static bool is_smooth(double smooth)
{
    return smooth >= 1 && smooth <= UM_SMOOTH_MAX;
}

/* 1 is what upstream does. */
static um_status read_smooth(const um_weights *file, struct um_dfine_info *info)
{
    const char *from = NULL, *text = um_weights_fact(file, "smooth", &from);
    double smooth = 1;
    if (text && !(um_number_read(text, &smooth) && is_smooth(smooth)))
        return wrong(file, from, "smooth", text, SMOOTH);
    info->smooth = (float)smooth;
    return UM_OK;
}

/* transformers knows one activation, of the feed-forward layers; its heads are always ReLU. */
static um_status read_acts(const um_weights *file, struct um_dfine_info *info)
{
    const char *from = NULL;
    info->act = UM_ACT_RELU;
    um_status st = read_act(file, "activation", &info->act, &info->act_from);
    um_dfine_set_act(info, info->act);
    return st == UM_OK ? read_act(file, "head_activation", &info->head_act, &from) : st;
}

static um_status read_family(const um_weights *file, struct um_dfine_info *info)
{
    static const char *const FAMILY[] = {"d-fine", "deim-d-fine", "hugging-face-d-fine"};
    const char *from = NULL, *text = um_weights_fact(file, "family", &from);
    info->family = um_weights_hugging_face(file) ? FAMILY[2] : FAMILY[0];
    if (!text)
        return UM_OK;
    for (int i = 0; i < 3; i++)
        if (strcmp(text, FAMILY[i]) == 0) {
            info->family = FAMILY[i];
            return UM_OK;
        }
    return wrong(file, from, "family", text, "d-fine, deim-d-fine or hugging-face-d-fine");
}

bool um_dfine_is_hugging_face(const struct um_dfine_info *info)
{
    return strncmp(info->family, "hugging", 7) == 0;
}

void um_dfine_set_act(struct um_dfine_info *info, enum um_act act)
{
    bool hugging_face = um_dfine_is_hugging_face(info);
    info->act = act;
    info->lqe_act = info->head_act = hugging_face ? UM_ACT_RELU : act;
    if (!hugging_face)
        info->family = act == UM_ACT_SILU ? "deim-d-fine" : "d-fine";
}

/* ---- files that are known to be wrong ---- */

/* Are the rows of k those of v in one of its attentions? */
static bool same_kv(const um_weights *file, const char *layers, int i)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%d.self_attn.in_proj_weight", layers, i);
    const struct um_wtensor *t = um_weights_find(file, name);
    int64_t part = t && t->rank == 2 && t->dim[0] % 3 == 0 ? um_wtensor_elements(t) / 3 : 0, n = 0;
    while (n < part && um_wtensor_at(t, part + n) == um_wtensor_at(t, 2 * part + n))
        n++;
    return part > 0 && n == part;
}

/* The conversion script of transformers took k from the rows of v before August 2025. */
static const char *find_warning(const um_weights *file)
{
    bool wrong = same_kv(file, "encoder.encoder.0.layers", 0);
    for (int i = 0; i < UM_DFINE_LAYERS_MAX && !wrong; i++)
        wrong = same_kv(file, "decoder.decoder.layers", i);
    return wrong
               ? "its k_proj and v_proj are equal, as Hugging Face's conversion wrote them before "
                 "August 2025: boxes will be wrong; convert the original .pth again with a newer "
                 "transformers, or use the .pth itself"
           : um_weights_broken_config(file)
               ? "the config.json beside it is no JSON object, so nothing of it is used: "
                 "download it again, or remove it"
               : NULL;
}

bool um_dfine_tensors(const um_weights *file)
{
    return um_weights_find(file, STEM) && um_weights_find(file, HEAD) && um_weights_find(file, UP);
}

um_status um_dfine_recognise(const um_weights *file, struct um_dfine_info *info)
{
    const struct um_wtensor *stem = um_weights_find(file, STEM),
                            *head = um_weights_find(file, HEAD);
    *info = (struct um_dfine_info){.size_from = "default",
                                   .queries_from = "default",
                                   .act_from = "default",
                                   .fit_from = "default"};
    static const struct um_network_mark MARKS[] = {{"backbone.stem.", STEM, 4},
                                                   {"decoder.enc_bbox_head.", HEAD, 2},
                                                   {"decoder.decoder.lqe_layers.", UP, 1}};
    if (!um_dfine_tensors(file) || stem->rank != 4 || head->rank != 2) {
        um_status st = um_network_marks(file, MARKS, sizeof MARKS / sizeof *MARKS);
        return st == UM_OK ? um_network_refuse(file, "a D-FINE checkpoint") : st;
    }
    if (stem->dim[1] != 1 && stem->dim[1] != 3)
        return um_fail(UM_EFORMAT, "%s: tensor %s takes %" PRId64 " channels, want 1 or 3",
                       um_weights_path(file), STEM, stem->dim[1]);
    if (head->dim[0] < 1 || head->dim[0] > 1 << 16)
        return um_fail(UM_EFORMAT, "%s: tensor %s has %" PRId64 " classes, want 1 to %d",
                       um_weights_path(file), HEAD, head->dim[0], 1 << 16);
    struct um_dfine_maps maps = um_dfine_maps(file);
    um_status st = um_dfine_check_maps(&maps, file);
    if (st != UM_OK)
        return st;
    snprintf(info->architecture, sizeof info->architecture, "%s", um_dfine_name(&maps));
    info->classes = (int)head->dim[0];
    info->channels = (int)stem->dim[1];
    info->warning = find_warning(file);
    st = read_family(file, info);
    if (st == UM_OK)
        st = read_acts(file, info);
    if (st == UM_OK)
        st = read_queries(file, info);
    if (st == UM_OK)
        st = read_fit(file, info);
    if (st == UM_OK)
        st = read_gain(file, info);
    if (st == UM_OK)
        st = um_input_gray(file, &info->gray);
    if (st == UM_OK)
        st = read_nms(file, info);
    if (st == UM_OK)
        st = read_presence(file, info);
    if (st == UM_OK)
        st = read_smooth(file, info);
    return st == UM_OK ? read_size(file, info) : st;
}

/* ---- what the caller says ---- */

/* 0 for "auto", else 1 for the first word and 2 for the second; -1 after an error. */
static int choice(const char *key, const char *text, const char *first, const char *second)
{
    if (!text || strcmp(text, "auto") == 0)
        return 0;
    if (strcmp(text, first) == 0 || strcmp(text, second) == 0)
        return strcmp(text, first) == 0 ? 1 : 2;
    um_fail(UM_EINVAL, "%s \"%.40s\": want auto, %s or %s", key, text, first, second);
    return -1;
}

um_status um_dfine_wish_read(struct um_dfine_wish *wish, const um_detector_settings *s)
{
    struct um_dfine_info unused;
    static const enum um_act ACT[] = {UM_ACT_NONE, UM_ACT_RELU, UM_ACT_SILU};
    int w = s->input_width, h = s->input_height;
    int act = choice("activation", s->activation, "relu", "silu");
    int way = act < 0 ? -1 : choice("fit", s->fit, "stretch", "letterbox");
    if (way < 0)
        return UM_EINVAL;
    if (!w != !h || w < 0 || h < 0 || w > UM_INPUT_MAX || h > UM_INPUT_MAX || w % UM_DFINE_STEP ||
        h % UM_DFINE_STEP)
        return um_fail(UM_EINVAL, "input size %dx%d: want multiples of %d up to %d", w, h,
                       UM_DFINE_STEP, UM_INPUT_MAX);
    if (s->queries < 0 || s->queries > UM_DFINE_QUERIES_MAX)
        return um_fail(UM_EINVAL, "%d queries: want 1 to %d", s->queries, UM_DFINE_QUERIES_MAX);
    if (s->gain && !set_gain(&unused, s->gain))
        return um_fail(UM_EINVAL, "gain \"%.40s\": want %s", s->gain, GAIN);
    if (!(s->nms >= 0 && s->nms <= 1))
        return um_fail(UM_EINVAL, "nms %g: want %s", (double)s->nms, NMS);
    if (s->presence && !set_presence(&unused, s->presence))
        return um_fail(UM_EINVAL, "presence \"%.40s\": want %s", s->presence, PRESENCE);
    if (s->gray < -1 || s->gray > 1)
        return um_fail(UM_EINVAL, "gray %d: want 1, 0 (as the file says) or -1", s->gray);
    if (!(s->smooth == 0 || is_smooth(s->smooth)))
        return um_fail(UM_EINVAL, "smooth %g: want %s", (double)s->smooth, SMOOTH);
    *wish = (struct um_dfine_wish){.input_w = w,
                                   .input_h = h,
                                   .queries = s->queries,
                                   .act = ACT[act],
                                   .fit = way,
                                   .gain = s->gain,
                                   .nms = s->nms,
                                   .presence = s->presence,
                                   .gray = s->gray,
                                   .smooth = s->smooth};
    return UM_OK;
}

void um_dfine_obey(struct um_dfine_info *info, const struct um_dfine_wish *wish)
{
    static const char OPTION[] = "option";
    if (wish->input_w) {
        info->input_w = wish->input_w;
        info->input_h = wish->input_h;
        info->size_from = OPTION;
    }
    if (wish->queries) {
        info->queries = wish->queries;
        info->queries_from = OPTION;
    }
    if (wish->act != UM_ACT_NONE) {
        um_dfine_set_act(info, wish->act);
        info->act_from = OPTION;
    }
    if (wish->fit) {
        info->letterbox = wish->fit == UM_DFINE_LETTERBOX;
        info->fit_from = OPTION;
    }
    if (wish->gain)
        set_gain(info, wish->gain);
    if (wish->gray)
        info->gray = wish->gray > 0;
    if (wish->nms > 0)
        set_nms(info, wish->nms);
    if (wish->presence)
        set_presence(info, wish->presence);
    if (wish->smooth > 0)
        info->smooth = wish->smooth;
}

um_status um_dfine_check_queries(const struct um_dfine_info *info, int levels)
{
    int tokens = 0;
    for (int l = 0; l < levels; l++) {
        int stride = um_dfine_stride(levels, l);
        tokens += info->input_w / stride * (info->input_h / stride);
    }
    return tokens >= info->queries
               ? UM_OK
               : um_fail(UM_EINVAL,
                         "%s: input %dx%d gives %d tokens, want at least one for each of "
                         "%d queries",
                         info->architecture, info->input_w, info->input_h, tokens, info->queries);
}
