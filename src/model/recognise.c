/* SPDX-License-Identifier: Apache-2.0 */
/* Which network a file holds, from names and shapes alone. */
#include "model/recognise.h"

#include "base/number.h"
#include "model/dfine.h"
#include "model/sam.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { QUERIES = 300, DFINE_INPUT = 640, DFINE_STEP = 32, INPUT_MAX = 8192 };

/* configs/dfine/include/dfine_hgnetv2.yml and its sizes: the channels that the encoder takes from
 * the backbone, and its width. L and X share the channels of the backbone's stages. */
static const struct size {
    const char *architecture;
    int levels, width, channels[3];
} SIZES[] = {
    {"dfine-n", 2, 128, {512, 1024, 0}},    {"dfine-s", 3, 256, {256, 512, 1024}},
    {"dfine-m", 3, 256, {384, 768, 1536}},  {"dfine-l", 3, 256, {512, 1024, 2048}},
    {"dfine-x", 3, 384, {512, 1024, 2048}},
};

static um_status missing(const um_weights *file, const char *name, const char *what)
{
    return um_fail(UM_EFORMAT, "%s: not a D-FINE checkpoint: no tensor %s%s", um_weights_path(file),
                   name, what);
}

/* Side of the square input whose levels have so many tokens in all; 0 if there is none. */
static int side_of_tokens(int64_t tokens, int levels)
{
    for (int side = DFINE_STEP; side <= INPUT_MAX; side += DFINE_STEP) {
        int64_t n = 0;
        for (int i = 0; i < levels; i++) {
            int64_t cells = side / (DFINE_STEP >> i);
            n += cells * cells;
        }
        if (n >= tokens)
            return n == tokens ? side : 0;
    }
    return 0;
}

um_status um_input_size(const um_weights *file, int step, int *side)
{
    *side = 0;
    const char *text = um_weights_meta(file, "input_size");
    if (!text)
        return UM_OK;
    uint64_t n = 0;
    if (!um_number_whole(text, INPUT_MAX, &n) || n == 0 || n % (uint64_t)step)
        return um_fail(UM_EFORMAT,
                       "%s: metadata input_size is \"%.40s\", want a multiple of %d up to %d",
                       um_weights_path(file), text, step, INPUT_MAX);
    *side = (int)n;
    return UM_OK;
}

static const struct size *find_size(const um_weights *file, int *levels, int channels[3],
                                    int *width)
{
    *levels = 0;
    *width = 0;
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "encoder.input_proj.%d.conv.weight", i);
        const struct um_wtensor *t = um_weights_find(file, name);
        if (!t || t->rank != 4 || t->dim[0] > INPUT_MAX || t->dim[1] > INPUT_MAX)
            break;
        *levels = i + 1;
        *width = (int)t->dim[0];
        channels[i] = (int)t->dim[1];
    }
    for (size_t k = 0; k < sizeof SIZES / sizeof *SIZES; k++) {
        bool same = SIZES[k].levels == *levels && SIZES[k].width == *width;
        for (int i = 0; same && i < *levels; i++)
            same = SIZES[k].channels[i] == channels[i];
        if (same)
            return &SIZES[k];
    }
    return NULL;
}

int um_dfine_anchor_side(const um_weights *file)
{
    int levels = 0, width = 0, channels[3] = {0};
    const struct um_wtensor *anchors = um_weights_find(file, "decoder.anchors"); /* [1,tokens,4] */
    return anchors && anchors->rank == 3 && find_size(file, &levels, channels, &width)
               ? side_of_tokens(anchors->dim[1], levels)
               : 0;
}

um_status um_dfine_recognise(const um_weights *file, struct um_dfine_info *info)
{
    static const char STEM[] = "backbone.stem.stem1.conv.weight",
                      HEAD[] = "decoder.enc_score_head.weight", UP[] = "decoder.up";
    *info = (struct um_dfine_info){.queries = QUERIES};
    const struct um_wtensor *stem = um_weights_find(file, STEM),
                            *head = um_weights_find(file, HEAD);
    if (!stem || stem->rank != 4)
        return missing(file, STEM, " [m,1 or 3,3,3]");
    if (!head || head->rank != 2)
        return missing(file, HEAD, " [classes,d]");
    if (!um_weights_find(file, UP))
        return missing(file, UP, " (RT-DETR has none)");
    int levels = 0, width = 0, channels[3] = {0};
    const struct size *size = find_size(file, &levels, channels, &width);
    if (!size)
        return um_fail(UM_EFORMAT,
                       "%s: not a known D-FINE size: %d levels of %d, %d, %d channels, width %d",
                       um_weights_path(file), levels, channels[0], channels[1], channels[2], width);
    if (stem->dim[1] != 1 && stem->dim[1] != 3)
        return um_fail(UM_EFORMAT, "%s: tensor %s takes %" PRId64 " channels, want 1 or 3",
                       um_weights_path(file), STEM, stem->dim[1]);
    if (head->dim[0] < 1 || head->dim[0] > 1 << 16)
        return um_fail(UM_EFORMAT, "%s: tensor %s has %" PRId64 " classes, want 1 to %d",
                       um_weights_path(file), HEAD, head->dim[0], 1 << 16);
    snprintf(info->architecture, sizeof info->architecture, "%s", size->architecture);
    info->classes = (int)head->dim[0];
    info->channels = (int)stem->dim[1];
    um_status st = um_input_size(file, DFINE_STEP, &info->input_size);
    if (st == UM_OK && !info->input_size)
        info->input_size = um_dfine_anchor_side(file);
    if (st == UM_OK && !info->input_size)
        info->input_size = DFINE_INPUT;
    return st;
}

enum um_sam_kind um_sam_recognise(const um_weights *file)
{
    if (!um_weights_find(file, "mask_decoder.iou_token.weight") ||
        !um_weights_find(file, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"))
        return UM_SAM_NONE;
    const struct um_wtensor *stem =
        um_weights_find(file, "image_encoder.patch_embed.seq.0.c.weight");
    if (stem && stem->rank == 4)
        return stem->dim[2] == 3   ? UM_SAM_MOBILE
               : stem->dim[2] == 1 ? UM_SAM_LITE_MEDSAM
                                   : UM_SAM_NONE;
    const struct um_wtensor *table = um_weights_find(file, "image_encoder.pos_embed");
    return table && table->rank == 4 ? UM_SAM_VIT : UM_SAM_NONE;
}
