/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/front.h"

#include "nn/block.h"
#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"
#include "nn/resize.h"

#include <math.h>

enum { THREADS = 256, ROWS_MAX = 65535 /* of blocks */, SHARED = 48 << 10 };

static int rows(int h)
{
    return h < ROWS_MAX ? h : ROWS_MAX;
}

void um_cuda_resize(const struct um_call *call)
{
    const struct um_resize_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_resize_axis_args k = {.out = um_gview(&t[0]),
                                    .x = um_gview(&t[1]),
                                    .taps = um_gview(&t[2]),
                                    .vertical = a->vertical};
    um_launch_grid(call, "um_resize_axis", k, THREADS, 0,
                   um_blocks((int64_t)k.out.w * k.x.c, THREADS), (unsigned)rows(k.out.h), 1);
}

void um_cuda_area(const struct um_call *call)
{
    const struct um_area_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_area_pixels_args k = {.out = um_gview(&t[0]),
                                    .x = um_gview(&t[1]),
                                    .tx = t[2].data,
                                    .ty = t[3].data,
                                    .kx = (int)t[2].ld,
                                    .ky = (int)t[3].ld,
                                    .linear = a->linear,
                                    .half_up = a->half_up,
                                    .scale = a->scale};
    um_launch_grid(call, "um_area_pixels", k, THREADS, 0,
                   um_blocks((int64_t)k.out.w * k.x.c, THREADS), (unsigned)rows(k.out.h), 1);
}

void um_cuda_fir(const struct um_call *call)
{
    const struct um_resize_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_fir_axis_args k = {.out = um_gview(&t[0]),
                                 .x = um_gview(&t[1]),
                                 .taps = t[2].data,
                                 .range = t[3].data,
                                 .k = (int)t[2].ld,
                                 .vertical = a->vertical};
    um_launch_grid(call, "um_fir_axis", k, THREADS, 0,
                   um_blocks((int64_t)k.out.w * (k.range ? k.out.c : k.out.c / 2), THREADS),
                   (unsigned)rows(k.out.h), 1);
}

void um_cuda_range(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_range_values_args k = {.out = um_gview(&t[0]), .x = um_gview(&t[1])};
    um_launch_grid(call, "um_range_values", k, THREADS, 2 * sizeof(int), 1, 1, 1);
}

void um_cuda_levels(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_levels_table_args k = {.out = um_gview(&t[0]), .range = t[1].data};
    um_launch_grid(call, "um_levels_table", k, THREADS, 0, 1, 1, 1);
}

void um_cuda_gain(const struct um_call *call)
{
    const struct um_gain_args *a = call->args;
    const struct um_view *t = call->t, *x = &t[4];
    struct um_gain_tables_args k = {.out = {um_gview(&t[0]), um_gview(&t[1])},
                                    .base = {um_gview(&t[5]), um_gview(&t[6])},
                                    .header = t[2].data,
                                    .state = t[3].data,
                                    .x = x->data,
                                    .h = x->h,
                                    .w = x->w,
                                    .c = x->c,
                                    .smooth = a->smooth};
    um_launch_grid(call, "um_gain_tables", k, THREADS, 257 * sizeof(uint32_t), 1, 1, 1);
}

void um_cuda_normalize(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_normalize_pixels_args k = {
        .out = um_gview(&t[0]), .x = um_gview(&t[1]), .lut = um_gview(&t[2])};
    um_launch_grid(call, "um_normalize_pixels", k, THREADS, 0,
                   um_blocks((int64_t)k.out.w * k.out.c, THREADS), (unsigned)rows(k.out.h), 1);
}

/* ---- both passes and the table ---- */

/* At most so many source indices lie under n consecutive output indices (um_resize_taps). */
static int64_t span(int n, int in, int out, float smooth)
{
    double reach = um_resize_reach(in, out, smooth);
    int64_t most =
        in == out && smooth == 1 ? n : (int64_t)floor((n - 1) * (double)in / out + 2 * reach) + 2;
    return most < in ? most : in;
}

/* The largest tile whose pass in between fits into shared memory, beside the tile itself. Where
 * none does, the kernel works out every pixel from the taps of both axes. */
static void choose_tile(struct um_front_target_args *k, const struct um_view *x, int inner_h,
                        int inner_w, float smooth)
{
    static const int tiles[2][7][2] = {
        {{64, 8}, {32, 8}, {16, 8}, {8, 8}, {8, 4}, {8, 2}, {8, 1}},
        {{64, 8}, {64, 4}, {64, 2}, {64, 1}, {32, 1}, {16, 1}, {8, 1}}};
    int64_t bytes = 0, room = 0;
    for (int i = 0; i < 7; i++) {
        k->tile_w = tiles[k->vertical_first][i][0];
        k->tile_h = tiles[k->vertical_first][i][1];
        bytes = x->c * (k->vertical_first ? k->tile_h * span(k->tile_w, x->w, inner_w, smooth)
                                          : k->tile_w * span(k->tile_h, x->h, inner_h, smooth));
        room = SHARED - k->tile_w * k->tile_h * x->c;
        if (bytes <= room)
            break;
    }
    k->between = bytes <= room ? (int)bytes : 0;
    while (1 << k->shift < k->tile_w)
        k->shift++;
    k->tiles_x = um_blocks(k->size_w, k->tile_w);
    k->tiles = k->tiles_x * um_blocks(k->size_h, k->tile_h);
}

/* Rows of an image without gaps as rows of a matrix, so that stores need not end with a pixel. */
static struct um_view joined(const struct um_view *v)
{
    struct um_view rows = *v;
    rows.w = 1;
    rows.c = v->w * v->c;
    rows.ld = rows.c;
    return rows;
}

void um_cuda_front(const struct um_call *call)
{
    const struct um_front_args *a = call->args;
    const struct um_view *t = call->t, *x = &t[2];
    struct um_front_tiles_args k = {.x = um_gview(x)};
    int n = t[1].data ? 2 : 1, tiles = 0, shared = 0;
    if (x->c != 1 && x->c != 3) {
        call->stream->status = um_fail(
            UM_EUNSUPPORTED, "front: image [%d,%d,%d], want 1 or 3 channels", x->h, x->w, x->c);
        return;
    }
    for (int i = 0; i < n; i++) {
        const struct um_view *out = &t[i], *lut = &t[3 + 3 * i], *tx = lut + 1, *ty = lut + 2;
        struct um_front_target_args *b = &k.target[i];
        struct um_view dense = joined(out);
        *b = (struct um_front_target_args){.lut = lut->data,
                                           .tx = tx->data,
                                           .ty = ty->data,
                                           .lut_ld = (int)lut->ld,
                                           .kx = (int)tx->ld,
                                           .ky = (int)ty->ld,
                                           .new_h = a->new_h[i],
                                           .new_w = a->new_w[i],
                                           .vertical_first = a->vertical_first[i],
                                           .size_h = out->h,
                                           .size_w = out->w,
                                           .c = out->c,
                                           .dense = out->ld == out->c};
        b->out = um_gview(b->dense ? &dense : out);
        choose_tile(b, x, a->inner_h[i], a->inner_w[i], a->smooth[i]);
        int bytes = b->between + b->tile_w * b->tile_h * x->c;
        shared = bytes > shared ? bytes : shared;
        tiles = b->tiles > tiles ? b->tiles : tiles;
    }
    um_launch_grid(call, "um_front_tiles", k, THREADS, shared, (unsigned)tiles, 1, (unsigned)n);
}
