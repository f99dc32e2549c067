/* SPDX-License-Identifier: Apache-2.0 */
#include "model/sam_family.h"

#include "model/input_size.h"
#include "model/network.h"

#include <stdio.h>
#include <string.h>

static const char STEM[] = "image_encoder.patch_embed.seq.0.c.weight"; /* TinyViT */
static const char TABLE[] = "image_encoder.pos_embed";                 /* ViT: [1,n,n,C] */
static const char IOU[] = "mask_decoder.iou_token.weight",
                  CODE[] = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix";

/* Of families with equal tensors the first is meant unless something says otherwise. */
static const struct um_sam_family FAMILIES[] = {
    {.name = "mobile-sam", .kind = UM_MODEL_MOBILE_SAM, .patch = 16, .canvas = 1024, .bf16 = true},
    {.name = "tiny-sam",
     .kind = UM_MODEL_MOBILE_SAM,
     .patch = 16,
     .canvas = 1024,
     .best_of_three = true,
     .bf16 = true},
    {.name = "lite-medsam",
     .kind = UM_MODEL_LITE_MEDSAM,
     .patch = 4,
     .canvas = 256,
     .fit = UM_FIT_RATIO},
    {.name = "sam-vit", .kind = UM_MODEL_SAM_VIT, .vit = true, .patch = 16, .canvas = 1024},
    {.name = "medsam-vit",
     .kind = UM_MODEL_SAM_VIT,
     .vit = true,
     .patch = 16,
     .canvas = 1024,
     .fit = UM_FIT_STRETCH},
};
enum { FAMILY_COUNT = sizeof FAMILIES / sizeof *FAMILIES };
static const char NAMES[] = "mobile-sam, tiny-sam, lite-medsam, sam-vit or medsam-vit";

/* What the tensors say; NULL: no SAM, or an image encoder that no family has. */
static const struct um_sam_family *by_tensors(const um_weights *file)
{
    const struct um_wtensor *stem = um_weights_find(file, STEM),
                            *table = um_weights_find(file, TABLE);
    if (!um_weights_find(file, IOU) || !um_weights_find(file, CODE))
        return NULL;
    bool vit = !stem && table && table->rank == 4;
    int64_t kernel = stem && stem->rank == 4 ? stem->dim[2] : 0;
    int patch = kernel == 3 || vit ? 16 : kernel == 1 ? 4 : 0;
    for (int i = 0; i < FAMILY_COUNT; i++)
        if (FAMILIES[i].vit == vit && FAMILIES[i].patch == patch)
            return &FAMILIES[i];
    return NULL;
}

/* One of ours that lacks a tensor it is told by, or another network. */
static um_status refuse(const um_weights *file)
{
    static const struct um_network_mark MARKS[2][3] = {
        {{"image_encoder.layers.0.blocks.0.conv1.", STEM, 4},
         {"mask_decoder.transformer.", IOU, 2},
         {"prompt_encoder.point_embeddings.", CODE, 2}},
        {{"image_encoder.blocks.0.attn.", TABLE, 4},
         {"mask_decoder.transformer.", IOU, 2},
         {"prompt_encoder.point_embeddings.", CODE, 2}}};
    um_status st = UM_OK;
    for (int i = 0; i < 2 && st == UM_OK; i++)
        st = um_network_marks(file, MARKS[i], 3);
    return st == UM_OK ? um_network_refuse(file, "a SAM checkpoint") : st;
}

bool um_sam_recognise(const um_weights *file)
{
    return by_tensors(file) != NULL;
}

/* NAME or NAME-more. */
static const struct um_sam_family *by_name(const char *name)
{
    for (int i = 0; i < FAMILY_COUNT; i++) {
        size_t n = strlen(FAMILIES[i].name);
        if (strncmp(name, FAMILIES[i].name, n) == 0 && (name[n] == 0 || name[n] == '-'))
            return &FAMILIES[i];
    }
    return NULL;
}

um_status um_sam_family_find(const um_weights *file, const char *wanted,
                             const struct um_sam_family **out)
{
    const char *path = um_weights_path(file);
    const char *name = wanted ? wanted : um_weights_meta(file, "architecture");
    *out = by_tensors(file);
    if (!*out)
        return refuse(file);
    const struct um_sam_family *said = name ? by_name(name) : NULL;
    if (wanted && !said)
        return um_fail(UM_EINVAL, "family %.40s: want %s", wanted, NAMES);
    if (!said)
        return UM_OK;
    if (said->vit != (*out)->vit || said->patch != (*out)->patch)
        return um_fail(wanted ? UM_EINVAL : UM_EFORMAT, "%s: %s says %s, but its tensors are %s's",
                       path, wanted ? "the option" : "metadata architecture", said->name,
                       (*out)->name);
    *out = said;
    return UM_OK;
}

int um_sam_native_canvas(const struct um_sam_family *family, const um_weights *file)
{
    const struct um_wtensor *table = family->vit ? um_weights_find(file, TABLE) : NULL;
    bool square = table && table->rank == 4 && table->dim[1] == table->dim[2];
    bool known = square && table->dim[1] >= 1 && table->dim[1] <= UM_INPUT_MAX / family->patch;
    return known ? (int)table->dim[1] * family->patch : family->canvas;
}

void um_sam_architecture(const struct um_sam_family *family, const um_weights *file, char *name,
                         size_t size)
{
    const struct um_wtensor *table = family->vit ? um_weights_find(file, TABLE) : NULL;
    int64_t width = table && table->rank == 4 ? table->dim[3] : 0;
    snprintf(name, size, "%s%s", family->name,
             width == 768    ? "-b"
             : width == 1024 ? "-l"
             : width == 1280 ? "-h"
                             : "");
}
