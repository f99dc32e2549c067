/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/chain.h"

#include "nn/block.h"
#include "nn/cuda/launch.h"
#include "nn/cuda/op_cuda.h"
#include "nn/cuda/pack.h"

enum { SPACE = 8 }; /* elements between rows, so that eight rows lie in different banks */

static int up(int n, int multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* Elements from row to row of halves that mma reads: k filled up to whole tiles. */
static int row_stride(int k)
{
    return up(k, UM_PACK_K) + SPACE;
}

static struct um_rows_layer layer_of(const struct um_view *w, const struct um_view *b, int k, int n,
                                     int columns, int per_pass)
{
    return (struct um_rows_layer){.w = w->data,
                                  .bias = b->data,
                                  .n = n,
                                  .n_tiles = um_blocks(n, UM_PACK_N),
                                  .k_tiles = um_blocks(k, UM_PACK_K),
                                  .passes = um_blocks(columns, per_pass * UM_PACK_N),
                                  .ld_from = row_stride(k),
                                  .columns = columns};
}

static bool fits(const struct um_call *call, bool ok, enum um_op op, const char *what)
{
    const struct um_view *out = &call->t[0];
    if (!ok && call->stream->status == UM_OK)
        call->stream->status = um_fail(UM_EUNSUPPORTED, "%s to [%d,%d,%d]: %s", um_op_name(op),
                                       out->h, out->w, out->c, what);
    return ok;
}

/* ---- UM_OP_CHAIN ---- */

static bool chain_fits(const struct um_call *call)
{
    const struct um_chain_args *a = call->args;
    const struct um_view *t = call->t, *out = &t[0], *add = &t[12], *base = &t[13];
    bool widths = t[3].c <= UM_CHAIN_WIDTH;
    for (int i = 0; i < a->layers && i < UM_CHAIN_LAYERS; i++)
        widths = widths && a->width[i] <= UM_CHAIN_WIDTH;
    return fits(call, a->layers == 2 || a->layers == 3, UM_OP_CHAIN, "two or three layers only") &&
           fits(call, widths, UM_OP_CHAIN, "a layer of more than 512 channels") &&
           fits(call, out->c == a->width[a->layers - 1] && (!add->data || add->c == out->c),
                UM_OP_CHAIN, "output or addend is not as wide as the last layer") &&
           fits(call, a->finish != UM_FINISH_REFINE || base->c == out->c, UM_OP_CHAIN,
                "base is not as wide as the output") &&
           fits(call,
                a->finish != UM_FINISH_BOX || (out->c % 4 == 0 && base->c == 4 && t[1].c == 4 &&
                                               t[14].h * t[14].w == out->c / 4),
                UM_OP_CHAIN, "boxes need 4 sides, their bins and a base");
}

static void chain(const struct um_call *call, const char *kernel)
{
    const struct um_chain_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_chain_rows_args k = {.out = um_gview(&t[0]),
                                   .box = um_gview(&t[1]),
                                   .picked = um_gview(&t[2]),
                                   .x = um_gview(&t[3]),
                                   .index = um_gview(&t[4]),
                                   .plus = um_gview(&t[5]),
                                   .add = um_gview(&t[12]),
                                   .base = um_gview(&t[13]),
                                   .project = um_gview(&t[14]),
                                   .layers = a->layers,
                                   .rows = t[0].h * t[0].w,
                                   .limit = a->limit,
                                   .reg_scale = a->reg_scale,
                                   .finish = (int)a->finish,
                                   .inverse = a->inverse};
    if (!chain_fits(call))
        return;
    /* Two buffers of halves in turn, the last layer's floats, the table. */
    int ld[UM_CHAIN_LAYERS], size[2] = {0, 0};
    for (int i = 0; i < a->layers; i++) {
        ld[i] = row_stride(i ? a->width[i - 1] : t[3].c);
        int bytes = UM_CHAIN_ROWS * ld[i] * (int)sizeof(uint16_t);
        size[i % 2] = bytes > size[i % 2] ? bytes : size[i % 2];
    }
    for (int i = 0; i < a->layers; i++) {
        bool last = i == a->layers - 1;
        struct um_rows_layer *l = &k.layer[i];
        *l = layer_of(&t[6 + 2 * i], &t[7 + 2 * i], i ? a->width[i - 1] : t[3].c, a->width[i],
                      up(a->width[i], UM_PACK_K), UM_CHAIN_TILES * UM_CHAIN_WARPS);
        l->act = (int)a->act[i];
        l->from = i % 2 ? size[0] : 0;
        l->to = last ? size[0] + size[1] : i % 2 ? 0 : size[0];
        l->ld = last ? l->columns + SPACE : ld[i + 1];
    }
    const struct um_rows_layer *last = &k.layer[a->layers - 1];
    int table = a->finish == UM_FINISH_BOX ? 4 * UM_CHAIN_ROWS + t[0].c / 4 : 0;
    k.table = last->to + UM_CHAIN_ROWS * last->ld * (int)sizeof(float);
    um_launch_grid(call, kernel, k, 32 * UM_CHAIN_WARPS, k.table + table * (int)sizeof(float),
                   um_blocks(k.rows, UM_CHAIN_ROWS), 1, 1);
}

void um_cuda_chain_f16(const struct um_call *call)
{
    chain(call, "um_chain_f16");
}

void um_cuda_chain_bf16(const struct um_call *call)
{
    chain(call, "um_chain_bf16");
}

/* ---- UM_OP_TOKENS ---- */

static void tokens(const struct um_call *call, const char *kernel16, const char *kernel32)
{
    enum { PER_PASS = UM_TOKENS_TILES * UM_TOKENS_WARPS };
    const struct um_tokens_args *a = call->args;
    const struct um_view *t = call->t;
    int c = t[1].c, rows = t[1].h * t[1].w, n = 0, height = rows <= 16 ? 16 : 32;
    struct um_tokens_rows_args k = {.out = um_gview(&t[0]),
                                    .x = um_gview(&t[1]),
                                    .plus = um_gview(&t[2]),
                                    .gamma = um_gview(&t[9]),
                                    .beta = um_gview(&t[10]),
                                    .rows = rows,
                                    .heads = a->heads,
                                    .group = rows <= 8 ? 8 : height,
                                    .scale = a->scale,
                                    .eps = a->eps,
                                    .residual = a->residual};
    bool v = t[5].data != NULL;
    if (!fits(call, rows <= UM_TOKENS_ROWS && c <= UM_TOKENS_WIDTH, UM_OP_TOKENS,
              "more than 32 tokens or 256 channels") ||
        !fits(call, a->heads > 0 && c % a->heads == 0 && t[0].c == c, UM_OP_TOKENS,
              "heads do not divide the channels") ||
        !fits(call, v || !t[2].data, UM_OP_TOKENS,
              "q, k and v in one layer leave no room for plus"))
        return;
    /* x + plus (later the attention's output), x, then q | k | v (later the floats under the
     * norm). */
    int ld = row_stride(c), one = height * ld * (int)sizeof(uint16_t), wide = up(3 * c, 8) + SPACE;
    int alone = v && t[2].data ? one : 0, to = alone + one;
    int last_ld = up(c, 8) + SPACE, size = height * wide * (int)sizeof(uint16_t);
    int last = height * last_ld * (int)sizeof(float);
    k.layer[n] = layer_of(&t[3], &t[4], c, v ? 2 * c : 3 * c, v ? 2 * c : 3 * c, PER_PASS);
    k.layer[n].to = to;
    k.layer[n++].ld = wide;
    if (v) {
        k.layer[n] = layer_of(&t[5], &t[6], c, c, c, PER_PASS);
        k.layer[n].from = alone;
        k.layer[n].to = to + 2 * c * (int)sizeof(uint16_t);
        k.layer[n++].ld = wide;
    }
    k.layer[n] = layer_of(&t[7], &t[8], c, c, c, PER_PASS);
    k.layer[n].to = to;
    k.layer[n++].ld = last_ld;
    k.layers = n;
    um_launch_grid(call, height == 16 ? kernel16 : kernel32, k, 32 * UM_TOKENS_WARPS,
                   to + (size > last ? size : last), 1, 1, 1);
}

void um_cuda_tokens_f16(const struct um_call *call)
{
    tokens(call, "um_tokens16_f16", "um_tokens32_f16");
}

void um_cuda_tokens_bf16(const struct um_call *call)
{
    tokens(call, "um_tokens16_bf16", "um_tokens32_bf16");
}
