/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/track.h"

#include "nn/cuda/launch.h"
#include "nn/cuda/mask.h"
#include "nn/cuda/op_cuda.h"
#include "nn/op_sam.h"
#include "nn/op_track.h"

enum {
    BAND = 8,
    SHARED = 48 << 10,
    LAST_BLOCK = 2 * UM_PATCH_PIXELS + 2 * 32, /* bytes: a patch, and what its warps tell */
    COUNTS = UM_TRACK_SUMS * 8 + 8             /* sums, and two flags */
};

void um_cuda_contact(const struct um_call *call)
{
    const struct um_view *x = &call->t[1];
    struct um_contact_cells_args a = {
        .gate = call->t[0].data, .x = x->data, .h = x->h, .w = x->w, .c = x->c};
    um_launch_grid(call, "um_contact_cells", a, 32 * UM_TRACK_WARPS, sizeof(uint32_t), 1, 1, 1);
}

void um_cuda_follow(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_follow_header_args a = {.gate = t[0].data, .prompt = t[1].data, .header = t[2].data};
    um_launch_grid(call, "um_follow_header", a, 32, 0, 1, 1, 1);
}

void um_cuda_scores(const struct um_call *call)
{
    const struct um_view *t = call->t, *x = &t[2];
    struct um_score_bands_args a = {.packet = t[0].data,
                                    .memory = t[1].data,
                                    .x = x->data,
                                    .header = t[3].data,
                                    .h = x->h,
                                    .w = x->w,
                                    .c = x->c,
                                    .band = BAND};
    int shared = 0;
    for (; a.band; a.band /= 2) {
        shared = COUNTS + 2 * (a.band + 2 * UM_HALO) * um_mask_row_bytes(a.w);
        shared = shared > COUNTS + LAST_BLOCK ? shared : COUNTS + LAST_BLOCK;
        if (shared <= SHARED)
            break;
    }
    if (!a.band) {
        call->stream->status =
            um_fail(UM_EUNSUPPORTED, "mask [%d,%d]: a row is too wide for shared memory", a.h, a.w);
        return;
    }
    um_launch_grid(call, "um_score_bands", a, 32 * UM_TRACK_WARPS, shared,
                   (unsigned)um_blocks(a.h, a.band), 1, 1);
}
