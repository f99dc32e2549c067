/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/mask.h"

#include "nn/block.h"
#include "nn/clean.h"
#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"
#include "nn/op_sam.h"

enum {
    PIXELS = 256,
    ROWS_MAX = 65535, /* of blocks */
    SHARED = 48 << 10,
    BAND = 8,
    PARTIAL = (UM_MASK_WARPS * UM_COUNTS + 1) * 4 /* bytes: counts of a block's warps, a flag */
};

static_assert((UM_COUNTS + 1) * sizeof(uint64_t) <= UM_MASK_WORK_BYTES, "counts and ticket");

void um_cuda_prompt(const struct um_call *call)
{
    const struct um_prompt_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_prompt_rows_args k = {.out = um_gview(&t[0]),
                                    .prompt = t[1].data,
                                    .table = t[2].data,
                                    .gauss = t[3].data,
                                    .canvas = a->canvas,
                                    .fit = (int)a->fit,
                                    .points = a->points,
                                    .box = a->box};
    um_launch_grid(call, "um_prompt_rows", k, 128, 2 * sizeof(float), (unsigned)(t[0].h * t[0].w),
                   1, 1);
}

void um_cuda_mask(const struct um_call *call)
{
    const struct um_view *t = call->t;
    int h = t[0].h;
    struct um_mask_pixels_args k = {.mask = um_gview(&t[0]),
                                    .logits = um_gview(&t[1]),
                                    .low = um_gview(&t[2]),
                                    .tx = um_gview(&t[3]),
                                    .ty = um_gview(&t[4]),
                                    .gate = t[5].data};
    um_launch_grid(call, "um_mask_pixels", k, PIXELS, 0, (unsigned)um_blocks(t[0].w, PIXELS),
                   (unsigned)(h < ROWS_MAX ? h : ROWS_MAX), 1);
}

/* Rows per band, at most BAND, so that `planes` bit planes of the band and one with its halo fit
 * into shared memory; 0 and a status if not even one row does. */
static int choose_band(const struct um_call *call, int h, int w, int planes, int *shared)
{
    for (int band = BAND; band; band /= 2) {
        int rows = band * (1 + planes) + 2 * UM_HALO;
        int64_t bytes = (int64_t)rows * um_mask_row_bytes(w) + PARTIAL;
        *shared = (int)bytes;
        if (bytes <= SHARED)
            return band;
    }
    call->stream->status =
        um_fail(UM_EUNSUPPORTED, "mask [%d,%d]: a row is too wide for shared memory", h, w);
    return 0;
}

void um_cuda_mask_stats(const struct um_call *call)
{
    const struct um_view *t = call->t;
    int shared;
    struct um_mask_planes_args k = {.weights = t[0].data,
                                    .record = t[1].data,
                                    .mask = t[2].data,
                                    .h = t[2].h,
                                    .w = t[2].w,
                                    .band = choose_band(call, t[2].h, t[2].w, 3, &shared)};
    if (k.band)
        um_launch_grid(call, "um_mask_planes", k, 32 * UM_MASK_WARPS, shared, 1, 1, 1);
}

void um_cuda_packet(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_packet_words_args k = {.packet = t[0].data,
                                     .stats = t[1].data,
                                     .gate = t[3].data,
                                     .header = t[6].data,
                                     .mask = t[2].data,
                                     .iou = um_gview(&t[4]),
                                     .low = um_gview(&t[5]),
                                     .h = t[2].h,
                                     .w = t[2].w};
    int64_t words = (int64_t)k.h * (um_mask_row_bytes(k.w) / 4);
    um_launch_grid(call, "um_packet_words", k, 32 * UM_MASK_WARPS, PARTIAL,
                   1 + (unsigned)um_blocks(words, UM_MASK_WARPS), 1, 1);
}

void um_cuda_mask_packet(const struct um_call *call)
{
    const struct um_view *t = call->t;
    int w = t[3].h * t[3].w, h = t[4].h * t[4].w, shared;
    struct um_mask_packet_bands_args k = {.packet = t[0].data,
                                          .work = t[1].data,
                                          .low = um_gview(&t[2]),
                                          .tx = um_gview(&t[3]),
                                          .ty = um_gview(&t[4]),
                                          .iou = um_gview(&t[6]),
                                          .gate = t[5].data,
                                          .header = t[7].data,
                                          .h = h,
                                          .w = w,
                                          .band = choose_band(call, h, w, 0, &shared)};
    if (k.band)
        um_launch_grid(call, "um_mask_packet_bands", k, 32 * UM_MASK_WARPS, shared,
                       (unsigned)um_blocks(h, k.band), 1, 1);
}

void um_cuda_clean(const struct um_call *call)
{
    const struct um_clean_args *a = call->args;
    int shared;
    struct um_clean_mask_args k = {.packet = call->t[0].data,
                                   .label = call->t[1].data,
                                   .gate = call->t[2].data,
                                   .h = a->h,
                                   .w = a->w,
                                   .band = choose_band(call, a->h, a->w, 0, &shared)};
    k.kept = k.label + um_clean_bits_at(a->h, a->w) / sizeof *k.label;
    if (k.band)
        um_launch_grid(call, "um_clean_mask", k, 32 * UM_MASK_WARPS, shared, 1, 1, 1);
}
