/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/attention.h"

#include "base/status.h"
#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"

#include <math.h>

#define LOG2_E 1.44269504088896341f

enum { THREADS = 256 };

static int at_least(int a, int b)
{
    return a > b ? a : b;
}

/* A view whose vectors do not reach across heads. */
static struct um_gview by_heads(const struct um_view *v, int d)
{
    struct um_gview g = um_gview(v);
    while (d % g.vec)
        g.vec /= 2;
    return g;
}

/* ---- plain ---- */

static bool supported(const struct um_call *call, int d)
{
    if (d <= 8 * UM_ATTEND_PART)
        return true;
    if (call->stream->status == UM_OK)
        call->stream->status =
            um_fail(UM_EUNSUPPORTED, "attention: heads of %d, at most %d", d, 8 * UM_ATTEND_PART);
    return false;
}

/* `queries` are those of all heads (and windows); a block has at most `most_queries`. */
static struct um_attend plan(int d, int keys, int64_t queries, int most_queries, float scale)
{
    struct um_attend a = {.d = d, .keys = keys, .parts = 1, .scale = scale};
    int slices = 1;
    while (UM_ATTEND_PART * a.parts < d)
        a.parts *= 2;
    /* more lanes a query until they fill the chip or run out of keys */
    while (a.parts * slices < THREADS / 2 &&
           ((queries * a.parts * slices < 65536 && slices * UM_ATTEND_BATCH < keys) ||
            THREADS / (a.parts * slices) > most_queries))
        slices *= 2;
    a.lanes = a.parts * slices;
    int row = 2 * UM_ATTEND_STRIDE(a.parts) * (int)sizeof(float), step = UM_ATTEND_BATCH * slices;
    int most = at_least((64 << 10) / row / step, 1) * step, all = (keys + step - 1) / step * step;
    a.tile = most < all ? most : all;
    return a;
}

static int plain_shared(const struct um_attend *a)
{
    int merge = THREADS / 32 * (UM_ATTEND_PART * a->parts + 2);
    return at_least(2 * a->tile * UM_ATTEND_STRIDE(a->parts), merge) * (int)sizeof(float);
}

void um_cuda_attention_plain(const struct um_call *call)
{
    const struct um_attention_args *a = call->args;
    const struct um_view *t = call->t;
    int d = t[0].c / a->heads, queries = t[0].h * t[0].w;
    if (!supported(call, d))
        return;
    struct um_attention_plain_args k = {
        .out = by_heads(&t[0], d),
        .q = by_heads(&t[1], d),
        .k = by_heads(&t[2], d),
        .v = by_heads(&t[3], d),
        .a = plan(d, t[2].h * t[2].w, (int64_t)queries * a->heads, THREADS, a->scale),
        .queries = queries};
    um_launch_grid(call, "um_attention_plain", k, THREADS, plain_shared(&k.a),
                   um_blocks(queries, THREADS / k.a.lanes), a->heads, 1);
}

void um_cuda_window_attention_plain(const struct um_call *call)
{
    const struct um_window_args *a = call->args;
    const struct um_view *t = call->t;
    int d = t[0].c / a->heads, n = a->window * a->window;
    int windows_x = um_blocks(t[0].w, a->window),
        windows = windows_x * um_blocks(t[0].h, a->window);
    if (!supported(call, d))
        return;
    struct um_window_attention_plain_args k = {
        .out = by_heads(&t[0], d),
        .qkv = by_heads(&t[1], d),
        .pad = by_heads(&t[2], d),
        .bias = um_gview(&t[3]),
        .a = plan(d, n, (int64_t)windows * n * a->heads, THREADS, 1 / sqrtf((float)d)),
        .window = a->window,
        .windows_x = windows_x,
        .reciprocal = 0xffffffffu / (uint32_t)a->window + 1};
    k.groups = um_blocks(n, THREADS / k.a.lanes);
    um_launch_grid(call, "um_window_attention_plain", k, THREADS, plain_shared(&k.a),
                   windows * k.groups, a->heads, 1);
}

void um_cuda_relative_attention(const struct um_call *call)
{
    enum { SUMS = 32 << 10 }; /* bytes for what positions add */
    const struct um_relative_args *a = call->args;
    const struct um_view *t = call->t;
    int d = t[0].c / a->heads, n = a->window * a->window, one = 2 * a->window * (int)sizeof(float);
    int windows_x = um_blocks(t[0].w, a->window),
        windows = windows_x * um_blocks(t[0].h, a->window);
    if (!supported(call, d))
        return;
    struct um_relative_attention_plain_args k = {
        .out = by_heads(&t[0], d),
        .qkv = by_heads(&t[1], d),
        .pad = by_heads(&t[2], d),
        .rows = by_heads(&t[3], d),
        .columns = by_heads(&t[4], d),
        .a = plan(d, n, (int64_t)windows * n * a->heads, SUMS / one, 1 / sqrtf((float)d)),
        .window = a->window,
        .windows_x = windows_x,
        .reciprocal = 0xffffffffu / (uint32_t)a->window + 1};
    int queries = THREADS / k.a.lanes, shared = plain_shared(&k.a);
    k.groups = um_blocks(n, queries);
    k.sums = shared / (int)sizeof(float);
    um_launch_grid(call, "um_relative_attention_plain", k, THREADS, shared + queries * one,
                   windows * k.groups, a->heads, 1);
}

/* ---- tensor cores ---- */

static void attention(const struct um_call *call, const char *kernel_16, const char *kernel_32)
{
    const struct um_attention_args *a = call->args;
    const struct um_view *t = call->t;
    int d = t[0].c / a->heads;
    if ((d != 16 && d != 32) || !(a->scale > 0)) {
        um_cuda_attention_plain(call);
        return;
    }
    struct um_attention_mma_args k = {.out = um_gview(&t[0]),
                                      .q = um_gview(&t[1]),
                                      .k = um_gview(&t[2]),
                                      .v = um_gview(&t[3]),
                                      .queries = t[0].h * t[0].w,
                                      .keys = t[2].h * t[2].w,
                                      .splits = 1,
                                      .scale = a->scale * LOG2_E};
    /* more warps on the keys of a tile of queries until they fill the chip or run out of keys */
    int tiles = um_blocks(k.queries, 16), row_tiles = 1;
    while (k.splits < 16 && tiles * a->heads * k.splits < 1024 &&
           k.splits * UM_ATTEND_CHUNK < k.keys)
        k.splits *= 2;
    while (row_tiles * k.splits < 4 && row_tiles < tiles)
        row_tiles *= 2;
    int row = 2 * UM_ATTENTION_STRIDE(d) * 2, warps = row_tiles * k.splits;
    int most = (96 << 10) / row / UM_ATTEND_CHUNK * UM_ATTEND_CHUNK,
        all = um_blocks(k.keys, UM_ATTEND_CHUNK) * UM_ATTEND_CHUNK;
    k.tile = most < all ? most : all;
    int shared = at_least(k.tile * row, warps * 16 * (d + 4) * (int)sizeof(float));
    um_launch_grid(call, d == 16 ? kernel_16 : kernel_32, k, 32 * warps, shared,
                   um_blocks(tiles, row_tiles), a->heads, 1);
}

void um_cuda_attention_f16(const struct um_call *call)
{
    attention(call, "um_attention_16_f16", "um_attention_32_f16");
}

void um_cuda_attention_bf16(const struct um_call *call)
{
    attention(call, "um_attention_16_bf16", "um_attention_32_bf16");
}

static void window_attention(const struct um_call *call, const char *kernel_49,
                             const char *kernel_196)
{
    const struct um_window_args *a = call->args;
    const struct um_view *t = call->t;
    int d = t[0].c / a->heads, windows_x = um_blocks(t[0].w, a->window),
        windows = windows_x * um_blocks(t[0].h, a->window);
    int tiles = um_blocks(a->window * a->window, 16), columns = a->window > 7 ? 25 : 7;
    if (d != 32 || a->window > 14) {
        um_cuda_window_attention_plain(call);
        return;
    }
    struct um_window_attention_mma_args k = {.out = um_gview(&t[0]),
                                             .qkv = um_gview(&t[1]),
                                             .pad = um_gview(&t[2]),
                                             .bias = um_gview(&t[3]),
                                             .window = a->window,
                                             .windows_x = windows_x,
                                             .groups = um_blocks(tiles, 7),
                                             .scale = LOG2_E / sqrtf((float)d)};
    um_launch_grid(call, columns == 7 ? kernel_49 : kernel_196, k, 32 * um_blocks(tiles, k.groups),
                   UM_WINDOW_SHARED(columns, a->window), windows * k.groups, a->heads, 1);
}

void um_cuda_window_attention_f16(const struct um_call *call)
{
    window_attention(call, "um_window_attention_49_f16", "um_window_attention_196_f16");
}

void um_cuda_window_attention_bf16(const struct um_call *call)
{
    window_attention(call, "um_window_attention_49_bf16", "um_window_attention_196_bf16");
}
