/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/norm.h"

#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"

enum { ROWS = 8 /* per block */, NARROW = 512, WIDE = 1280 /* channels: ViT-H's */ };

/* A row lies in a warp's registers. */
static bool fits(const struct um_call *call, int most)
{
    if (call->t[0].c <= most)
        return true;
    call->stream->status =
        um_fail(UM_EUNSUPPORTED, "a norm over %d channels, at most %d", call->t[0].c, most);
    return false;
}

/* launch.h */
void um_launch_layer_norm(const struct um_call *call, const struct um_layer_norm_rows_args *k)
{
    if (fits(call, WIDE))
        um_launch_grid(call, k->out.c <= NARROW ? "um_layer_norm_rows" : "um_layer_norm_wide", *k,
                       32 * ROWS, 0, (unsigned)um_blocks(k->rows, ROWS), 1, 1);
}

void um_cuda_layer_norm(const struct um_call *call)
{
    const struct um_norm_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_layer_norm_rows_args k = {.out = um_gview(&t[0]),
                                        .x = um_gview(&t[1]),
                                        .add = um_gview(&t[2]),
                                        .gamma = t[3].data,
                                        .beta = t[4].data,
                                        .eps = a->eps,
                                        .act = (int)a->act,
                                        .rows = t[0].h * t[0].w};
    um_launch_layer_norm(call, &k);
}

void um_cuda_gate_norm(const struct um_call *call)
{
    const struct um_norm_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_gate_norm_rows_args k = {.out = um_gview(&t[0]),
                                       .g = um_gview(&t[1]),
                                       .a = um_gview(&t[2]),
                                       .b = um_gview(&t[3]),
                                       .gamma = t[4].data,
                                       .beta = t[5].data,
                                       .eps = a->eps,
                                       .rows = t[0].h * t[0].w};
    if (fits(call, NARROW))
        um_launch_grid(call, "um_gate_norm_rows", k, 32 * ROWS, 0, um_blocks(k.rows, ROWS), 1, 1);
}
