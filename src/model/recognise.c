/* SPDX-License-Identifier: Apache-2.0 */
/* Which network a file holds, from names and shapes alone. */
#include "model/recognise.h"

#include "base/number.h"
#include "model/dfine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CHANNELS_MAX = 8192 }; /* of a map: more is no D-FINE */

static um_status missing(const um_weights *file, const char *name, const char *what)
{
    return um_fail(UM_EFORMAT, "%s: not a D-FINE checkpoint: no tensor %s%s", um_weights_path(file),
                   name, what);
}

/* Side of the square input whose levels have so many tokens in all; 0 if there is none. */
static int side_of_tokens(int64_t tokens, int levels)
{
    for (int side = UM_DFINE_STEP; side <= UM_INPUT_MAX; side += UM_DFINE_STEP) {
        int64_t n = 0;
        for (int i = 0; i < levels; i++) {
            int64_t cells = side / (UM_DFINE_STEP >> i);
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
    if (!um_number_whole(text, UM_INPUT_MAX, &n) || n == 0 || n % (uint64_t)step)
        return um_fail(UM_EFORMAT,
                       "%s: metadata input_size is \"%.40s\", want a multiple of %d up to %d",
                       um_weights_path(file), text, step, UM_INPUT_MAX);
    *side = (int)n;
    return UM_OK;
}

/* What the encoder takes from the backbone. */
struct maps {
    int levels, width, channels[UM_DFINE_LEVELS_MAX];
};

static const struct um_dfine_size *find_size(const um_weights *file, struct maps *m)
{
    *m = (struct maps){.levels = 0};
    for (int i = 0; i < UM_DFINE_LEVELS_MAX; i++) {
        char name[64];
        snprintf(name, sizeof name, "encoder.input_proj.%d.conv.weight", i);
        const struct um_wtensor *t = um_weights_find(file, name);
        if (!t || t->rank != 4 || t->dim[0] > CHANNELS_MAX || t->dim[1] > CHANNELS_MAX)
            break;
        m->levels = i + 1;
        m->width = (int)t->dim[0];
        m->channels[i] = (int)t->dim[1];
    }
    return um_dfine_size_find(m->levels, m->width, m->channels);
}

int um_dfine_anchor_side(const um_weights *file)
{
    struct maps m;
    const struct um_wtensor *anchors = um_weights_find(file, "decoder.anchors"); /* [1,tokens,4] */
    return anchors && anchors->rank == 3 && find_size(file, &m)
               ? side_of_tokens(anchors->dim[1], m.levels)
               : 0;
}

um_status um_dfine_measure(const um_weights *file, struct um_dfine_size *out)
{
    struct maps m;
    const struct um_dfine_size *size = find_size(file, &m);
    if (!size)
        return um_fail(
            UM_EFORMAT, "%s: not a known D-FINE size: %d levels of %d, %d, %d channels, width %d",
            um_weights_path(file), m.levels, m.channels[0], m.channels[1], m.channels[2], m.width);
    *out = *size;
    return UM_OK;
}

um_status um_dfine_recognise(const um_weights *file, struct um_dfine_info *info)
{
    static const char STEM[] = "backbone.stem.stem1.conv.weight",
                      HEAD[] = "decoder.enc_score_head.weight", UP[] = "decoder.up";
    struct um_dfine_size size = {.name = ""};
    *info = (struct um_dfine_info){.classes = 0};
    const struct um_wtensor *stem = um_weights_find(file, STEM),
                            *head = um_weights_find(file, HEAD);
    if (!stem || stem->rank != 4)
        return missing(file, STEM, " [m,1 or 3,3,3]");
    if (!head || head->rank != 2)
        return missing(file, HEAD, " [classes,d]");
    if (!um_weights_find(file, UP))
        return missing(file, UP, " (RT-DETR has none)");
    um_status st = um_dfine_measure(file, &size);
    if (st != UM_OK)
        return st;
    if (stem->dim[1] != 1 && stem->dim[1] != 3)
        return um_fail(UM_EFORMAT, "%s: tensor %s takes %" PRId64 " channels, want 1 or 3",
                       um_weights_path(file), STEM, stem->dim[1]);
    if (head->dim[0] < 1 || head->dim[0] > 1 << 16)
        return um_fail(UM_EFORMAT, "%s: tensor %s has %" PRId64 " classes, want 1 to %d",
                       um_weights_path(file), HEAD, head->dim[0], 1 << 16);
    snprintf(info->architecture, sizeof info->architecture, "%s", size.name);
    info->classes = (int)head->dim[0];
    info->channels = (int)stem->dim[1];
    info->queries = size.queries;
    st = um_input_size(file, UM_DFINE_STEP, &info->input_size);
    if (st == UM_OK && !info->input_size)
        info->input_size = um_dfine_anchor_side(file);
    if (st == UM_OK && !info->input_size)
        info->input_size = UM_DFINE_SIDE;
    return st;
}
