/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/pixel.h"

#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"

#include <limits.h>

enum {
    GROUP = 8, /* channels of a thread */
    THREADS = 256,
    DW_THREADS = 128,
    DW_FULL = 32768 /* threads from which longer strips pay: 8 warps on each of 128 processors */
};

static int groups_of(const struct um_view *v)
{
    return um_blocks(v->c, GROUP);
}

/* Threads for `per_row` groups in each of `rows` rows; kernels count them in an int. */
static int items_of(const struct um_call *call, int64_t rows, int per_row)
{
    const struct um_view *out = &call->t[0];
    int64_t items = rows * per_row;
    if (items <= INT_MAX - THREADS)
        return (int)items;
    if (call->stream->status == UM_OK)
        call->stream->status = um_fail(UM_EUNSUPPORTED, "[%d,%d,%d] is too large for a launch",
                                       out->h, out->w, out->c);
    return 0;
}

static int64_t rows_of(const struct um_view *v)
{
    return (int64_t)v->h * v->w;
}

/* Groups of 8 channels that start on 16 bytes. */
static bool in_groups(const struct um_gview *v)
{
    return v->c % GROUP == 0 && v->vec >= (v->dtype == UM_F32 ? 4 : 8);
}

static const char *dwconv_kernel(const struct um_dwconv_vectors_args *k, int *strip)
{
    bool many = (int64_t)k->out.h * k->out.w / 4 * k->groups >= DW_FULL;
    *strip = 2;
    if (in_groups(&k->x) && (uintptr_t)k->w % 16 == 0 && (uintptr_t)k->b % 16 == 0 &&
        k->kh == k->kw) {
        if (k->stride == 1 && many && (k->kh == 3 || k->kh == 5)) {
            *strip = 4;
            return k->kh == 3 ? "um_dwconv_3s1_strip4" : "um_dwconv_5s1_strip4";
        }
        if (k->stride == 1 && (k->kh == 3 || k->kh == 5))
            return k->kh == 3 ? "um_dwconv_3s1_strip2" : "um_dwconv_5s1_strip2";
        if (k->stride == 2 && (k->kh == 3 || k->kh == 5))
            return k->kh == 3 ? "um_dwconv_3s2_strip2" : "um_dwconv_5s2_strip2";
    }
    *strip = 1;
    return "um_dwconv_any";
}

void um_cuda_dwconv(const struct um_call *call)
{
    const struct um_conv_args *a = call->args;
    const struct um_view *t = call->t;
    int strip = 1;
    struct um_dwconv_vectors_args k = {.out = um_gview(&t[0]),
                                       .x = um_gview(&t[1]),
                                       .add = um_gview(&t[4]),
                                       .w = t[2].data,
                                       .b = t[3].data,
                                       .kh = a->kh,
                                       .kw = a->kw,
                                       .stride = a->stride,
                                       .pad_top = a->pad_top,
                                       .pad_left = a->pad_left,
                                       .act = (int)a->act,
                                       .add_last = a->add_last,
                                       .add_up2 = a->add_up2,
                                       .limit = a->limit,
                                       .lab_scale = a->lab_scale,
                                       .lab_shift = a->lab_shift,
                                       .groups = groups_of(&t[0])};
    const char *kernel = dwconv_kernel(&k, &strip);
    bool same = !k.add.data || (k.add.dtype == k.x.dtype && in_groups(&k.add) && !k.add_up2);
    k.plain = k.x.dtype != UM_F32 && k.out.dtype == k.x.dtype && in_groups(&k.out) && same;
    k.strips = um_blocks(t[0].w, strip);
    k.items = items_of(call, (int64_t)t[0].h * k.strips, k.groups);
    /* small blocks while there are too few to fill the chip */
    int threads = k.items >= DW_FULL ? DW_THREADS : DW_THREADS / 2;
    if (k.items)
        um_launch_grid(call, kernel, k, threads, 0, um_blocks(k.items, threads), 1, 1);
}

void um_cuda_add(const struct um_call *call)
{
    const struct um_add_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_add_vectors_args k = {.out = um_gview(&t[0]),
                                    .a = um_gview(&t[1]),
                                    .b = um_gview(&t[2]),
                                    .act = (int)a->act,
                                    .limit = a->limit,
                                    .one_row = rows_of(&t[2]) == 1 && t[2].c == t[0].c,
                                    .one_channel = t[2].c == 1,
                                    .groups = groups_of(&t[0])};
    k.items = items_of(call, rows_of(&t[0]), k.groups);
    if (k.items)
        um_launch_grid(call, "um_add_vectors", k, THREADS, 0, um_blocks(k.items, THREADS), 1, 1);
}

void um_cuda_maxpool2(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_maxpool2_vectors_args k = {
        .out = um_gview(&t[0]), .x = um_gview(&t[1]), .groups = groups_of(&t[0])};
    k.items = items_of(call, rows_of(&t[0]), k.groups);
    if (k.items)
        um_launch_grid(call, "um_maxpool2_vectors", k, THREADS, 0, um_blocks(k.items, THREADS), 1,
                       1);
}

void um_cuda_scale_rows(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_scale_rows_vectors_args k = {.out = um_gview(&t[0]),
                                           .x = um_gview(&t[1]),
                                           .m = um_gview(&t[2]),
                                           .groups = groups_of(&t[0])};
    k.items = items_of(call, rows_of(&t[0]), k.groups);
    if (k.items)
        um_launch_grid(call, "um_scale_rows_vectors", k, THREADS, 0, um_blocks(k.items, THREADS), 1,
                       1);
}

void um_cuda_gather(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_gather_vectors_args k = {.out = um_gview(&t[0]),
                                       .x = um_gview(&t[1]),
                                       .index = t[2].data,
                                       .step = (int)t[2].ld,
                                       .groups = groups_of(&t[0])};
    k.items = items_of(call, rows_of(&t[0]), k.groups);
    if (k.items)
        um_launch_grid(call, "um_gather_vectors", k, THREADS, 0, um_blocks(k.items, THREADS), 1, 1);
}
