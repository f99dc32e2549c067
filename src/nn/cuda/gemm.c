/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/cuda/gemm.h"

#include "nn/block.h"
#include "nn/cuda/launch.h"
#include "nn/cuda/norm.h"
#include "nn/cuda/op_cuda.h"

enum {
    ENOUGH = 80,   /* blocks that a big GPU is worth */
    SMS = 132,     /* of a big GPU */
    THREADS = 256, /* of the plain twins */
};

enum how { AS_IT_IS, NORM, PANEL }; /* rows: gemm.h */

struct shape {
    const char *name[2][3]; /* fp16, bf16; enum how */
    int rows, columns, threads, k, stages;
};

#define NAMES(suffix, half)                                                                        \
    {                                                                                              \
        "um_gemm_" #suffix half, "um_gemm_" #suffix "_norm" half, "um_gemm_" #suffix "_panel" half \
    }
#define SHAPE(suffix, m, n, down, across, k, stages) \
    {{NAMES(suffix, "_f16"), NAMES(suffix, "_bf16")}, m, n, 32 * (down) * (across), k, stages},
static const struct shape tiles[] = {UM_CUDA_GEMM_LARGE(SHAPE) UM_CUDA_GEMM_TILES(SHAPE)},
                          wide[] = {UM_CUDA_GEMM_ROWS(SHAPE)};
enum { SMALLEST = sizeof tiles / sizeof *tiles - 1 };

/* The largest tile of which there are enough, else the smallest that holds the rows. */
static const struct shape *choose_tile(int rows, int n, int n2, enum how how)
{
    for (int i = how != AS_IT_IS; i <= SMALLEST; i++) { /* the large takes nothing else */
        const struct shape *s = &tiles[i];
        int across = um_blocks(n, s->columns) + um_blocks(n2, s->columns);
        if (um_blocks(rows, s->rows) * across >= ENOUGH)
            return s;
    }
    return &tiles[rows > 16 ? SMALLEST - 1 : SMALLEST];
}

/* A tile as wide as the output: 32 rows where there are so many that weights would be read too
 * often. NULL: too wide. */
static const struct shape *choose_wide(int rows, int n)
{
    if (n > 128 && n <= 256 && rows >= 32 * ENOUGH)
        return &wide[2];
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (n <= wide[i].columns)
            return &wide[i];
    return NULL;
}

/* Columns of k that a panel has of k: all, filled up to whole stages, or as many as fit. */
static int panel_of(const struct shape *s, int k)
{
    int whole = um_blocks(k, s->k) * s->k;
    return whole < UM_GEMM_PANEL ? whole : UM_GEMM_PANEL;
}

/* Stages of rows and weights, or a panel, statistics of its rows, and stages of weights; the sums,
 * of so many products at once, take the place of what they are of. */
static int shared_bytes(const struct shape *s, int k, int panel, int products)
{
    int count = um_blocks(panel ? panel : k, s->k);
    int stage = s->columns * s->k * 2, front = 0;
    if (panel)
        front = s->rows * ((panel + UM_GEMM_SPACE) * 2 + 2 * (int)sizeof(float));
    else
        stage += s->rows * (s->k + UM_GEMM_SPACE) * 2;
    int stages = stage * (count < s->stages ? count : s->stages);
    int sums = products * s->rows * (s->columns + UM_GEMM_PAD) * (int)sizeof(float);
    return front + (stages > sums ? stages : sums);
}

static void set_input(struct um_gemm_args *k, const struct um_view *x)
{
    k->x = um_gview(x);
    k->wide = x->c % 8 == 0 && k->x.vec >= (x->dtype == UM_F32 ? 4 : 8);
}

static enum how how_of(const struct um_gemm_args *k, enum um_dtype half)
{
    if (!k->wide || k->x.dtype != (int)half || k->plus.data)
        return PANEL;
    if (!k->gamma_in)
        return AS_IT_IS;
    return k->gamma_out || k->k > UM_GEMM_PANEL ? PANEL : NORM;
}

/* How many tiles of columns a block takes one after the other, so that its rows are prepared for
 * all of them: the number that ends first, where preparing costs about a tile and a processor with
 * one block alone idles often. */
static int share_of(int down, int tiles, int tiles2)
{
    int best = 1, most = tiles > tiles2 ? tiles : tiles2;
    double least = 0;
    for (int each = 1; each <= most; each++) {
        int blocks = down * (um_blocks(tiles, each) + um_blocks(tiles2, each));
        double time = um_blocks(blocks, SMS) * (each + 0.8) * (blocks <= SMS ? 1.5 : 1);
        if (each == 1 || time < least) {
            least = time;
            best = each;
        }
    }
    return best;
}

/* gemm.h */
static bool is_plain(const struct um_gemm_args *k, enum um_dtype half)
{
    bool columns =
        k->n % 8 == 0 && k->n2 % 8 == 0 && (uintptr_t)k->b % 16 == 0 && (uintptr_t)k->b2 % 16 == 0;
    bool out = k->out.dtype == (int)half && k->out.vec == 8 && !k->up && !k->gamma_out;
    bool add = !k->add.data || (k->add.dtype == (int)half && k->add.vec == 8 && !k->add_up2 &&
                                k->add.c == k->out.c);
    return columns && out && add;
}

static enum um_dtype dtype_of(int half)
{
    return half ? UM_BF16 : UM_F16;
}

/* Would a norm over whole rows leave most of a big GPU without a block? Then the product has small
 * tiles, and the norm is a kernel of its own. Between them the sums lie in the output. */
static bool stands_apart(const struct um_gemm_args *k, const struct shape *wide_tile)
{
    return k->group == k->n && !k->up && !k->n2 && um_blocks(k->rows, wide_tile->rows) < SMS / 4;
}

/* half: 0 fp16, 1 bf16 */
static void launch(const struct um_call *call, struct um_gemm_args *k, int half)
{
    int n = k->n + k->n2;
    enum how how = how_of(k, dtype_of(half));
    const struct shape *s =
        k->gamma_out ? choose_wide(k->rows, n) : choose_tile(k->rows, k->n, k->n2, how);
    if (!s || (k->gamma_out && (k->n2 || n % k->group))) {
        call->stream->status =
            um_fail(UM_EUNSUPPORTED, "linear: a norm over %d + %d columns in groups of %d", k->n,
                    k->n2, k->group);
        return;
    }
    if (k->gamma_out && stands_apart(k, s)) {
        struct um_gemm_args product = *k;
        product.gamma_out = product.beta_out = NULL;
        launch(call, &product, half);
        um_launch_layer_norm(call, &(struct um_layer_norm_rows_args){.out = k->out,
                                                                     .x = k->out,
                                                                     .gamma = k->gamma_out,
                                                                     .beta = k->beta_out,
                                                                     .eps = k->eps_out,
                                                                     .act = k->norm_act,
                                                                     .rows = k->rows});
        return;
    }
    int down = um_blocks(k->rows, s->rows);
    k->tiles = um_blocks(k->n, s->columns);
    k->tiles2 = um_blocks(k->n2, s->columns);
    k->panel = how == AS_IT_IS ? 0 : panel_of(s, k->k);
    k->each = k->panel >= k->k && !k->gamma_out ? share_of(down, k->tiles, k->tiles2) : 1;
    k->plain = is_plain(k, dtype_of(half));
    um_launch_grid(call, s->name[half][how], *k, s->threads, shared_bytes(s, k->k, k->panel, 1),
                   (unsigned)down,
                   (unsigned)(um_blocks(k->tiles, k->each) + um_blocks(k->tiles2, k->each)), 1);
}

/* Operands and arguments that all convolutions have. */
static struct um_gemm_args of_conv(const struct um_call *call)
{
    const struct um_conv_args *a = call->args;
    const struct um_view *t = call->t;
    struct um_gemm_args k = {.out = um_gview(&t[0]),
                             .w = t[2].data,
                             .b = t[3].data,
                             .rows = t[0].h * t[0].w,
                             .n = t[0].c,
                             .k = a->kh * a->kw * t[1].c,
                             .kh = a->kh,
                             .kw = a->kw,
                             .stride = a->stride,
                             .pad_top = a->pad_top,
                             .pad_left = a->pad_left,
                             .act = (int)a->act,
                             .limit = a->limit,
                             .lab_scale = a->lab_scale,
                             .lab_shift = a->lab_shift,
                             .add_last = a->add_last,
                             .add_up2 = a->add_up2};
    set_input(&k, &t[1]);
    return k;
}

/* Few channels of many pixels, to few: a stem. A pixel is a thread's, without tensor cores. */
static bool launch_narrow(const struct um_call *call, struct um_gemm_args *k, int half)
{
    static const char *const names[2][2] = {{"um_conv_narrow16_f16", "um_conv_narrow32_f16"},
                                            {"um_conv_narrow16_bf16", "um_conv_narrow32_bf16"}};
    if (k->wide || k->k > UM_NARROW_K || k->n > 32 || k->rows < ENOUGH * THREADS)
        return false;
    int n = k->n <= 16 ? 16 : 32;
    k->plain = is_plain(k, dtype_of(half));
    um_launch_grid(call, names[half][n == 32], *k, THREADS, k->k * n * (int)sizeof(float),
                   (unsigned)um_blocks(k->rows, THREADS), 1, 1);
    return true;
}

static struct um_gemm_args of_conv2d(const struct um_call *call)
{
    struct um_gemm_args k = of_conv(call);
    k.add = um_gview(&call->t[4]);
    return k;
}

/* Four outputs of a pixel of x side by side. */
static struct um_gemm_args of_upconv2(const struct um_call *call)
{
    struct um_gemm_args k = of_conv(call);
    k.rows = call->t[1].h * call->t[1].w;
    k.n = 4 * call->t[0].c;
    k.k = call->t[1].c;
    k.kh = k.kw = k.stride = 1;
    k.up = 1;
    return k;
}

static struct um_gemm_args of_linear(const struct um_call *call)
{
    const struct um_linear_args *a = call->args;
    const struct um_view *t = call->t;
    int columns = a->up ? 4 * t[0].c : t[0].c;
    struct um_gemm_args k = {.out = um_gview(&t[0]),
                             .add = um_gview(&t[4]),
                             .plus = um_gview(&t[5]),
                             .w = t[2].data,
                             .b = t[3].data,
                             .w2 = t[6].data,
                             .b2 = t[7].data,
                             .gamma_in = t[8].data,
                             .beta_in = t[9].data,
                             .gamma_out = t[10].data,
                             .beta_out = t[11].data,
                             .rows = t[1].h * t[1].w,
                             .k = t[1].c,
                             .n = a->n,
                             .n2 = columns - a->n,
                             .kh = 1,
                             .kw = 1,
                             .stride = 1,
                             .act = (int)a->act,
                             .norm_act = (int)a->out_act,
                             .limit = a->limit,
                             .eps_in = a->eps_in,
                             .eps_out = a->eps_out,
                             .add_last = a->add_last,
                             .up = a->up,
                             .group = a->group};
    set_input(&k, &t[1]);
    if (k.plus.data) /* both in vectors, or none */
        k.wide = k.wide && k.plus.vec >= (t[5].dtype == UM_F32 ? 4 : 8);
    return k;
}

static void launch_conv2d(const struct um_call *call, int half)
{
    struct um_gemm_args k = of_conv2d(call);
    if (!launch_narrow(call, &k, half))
        launch(call, &k, half);
}

void um_cuda_conv2d_f16(const struct um_call *call)
{
    launch_conv2d(call, 0);
}

void um_cuda_conv2d_bf16(const struct um_call *call)
{
    launch_conv2d(call, 1);
}

#define CONV(op, half_name, half)                               \
    void um_cuda_##op##_##half_name(const struct um_call *call) \
    {                                                           \
        struct um_gemm_args k = of_##op(call);                  \
        launch(call, &k, half);                                 \
    }
CONV(upconv2, f16, 0)
CONV(upconv2, bf16, 1)
CONV(linear, f16, 0)
CONV(linear, bf16, 1)

static void launch_gate(const struct um_call *call, int half)
{
    const struct um_norm_args *a = call->args;
    const struct um_view *t = call->t;
    const struct shape *s = &tiles[SMALLEST];
    struct um_gate_args k = {.out = um_gview(&t[0]),
                             .a = um_gview(&t[1]),
                             .b = um_gview(&t[2]),
                             .wa = t[3].data,
                             .bias = t[4].data,
                             .wb = t[5].data,
                             .rows = t[0].h * t[0].w,
                             .panel = panel_of(s, t[0].c)};
    um_launch_grid(call, half ? "um_gate_bf16" : "um_gate_f16", k, s->threads,
                   shared_bytes(s, t[0].c, k.panel, 2), (unsigned)um_blocks(k.rows, s->rows),
                   (unsigned)um_blocks(k.out.c, s->columns), 1);
    um_launch_layer_norm(call, &(struct um_layer_norm_rows_args){.out = k.out,
                                                                 .x = k.out,
                                                                 .gamma = t[6].data,
                                                                 .beta = t[7].data,
                                                                 .eps = a->eps,
                                                                 .rows = k.rows});
}

void um_cuda_gate_f16(const struct um_call *call)
{
    launch_gate(call, 0);
}

void um_cuda_gate_bf16(const struct um_call *call)
{
    launch_gate(call, 1);
}

static void launch_plain(const struct um_call *call, struct um_gemm_args *k)
{
    enum { COLUMNS = 64, K = 16 };
    int across = um_blocks(k->n, COLUMNS);
    int rows = k->rows <= 16 || um_blocks(k->rows, 64) * across < ENOUGH ? 16 : 64;
    int gathered = K * (rows + 1 + COLUMNS + 1) * 4, sums = rows * (COLUMNS + UM_GEMM_PAD) * 4;
    um_launch_grid(call, rows == 64 ? "um_gemm_plain_64" : "um_gemm_plain_16", *k, THREADS,
                   gathered > sums ? gathered : sums, (unsigned)um_blocks(k->rows, rows),
                   (unsigned)across, 1);
}

void um_cuda_conv2d_plain(const struct um_call *call)
{
    struct um_gemm_args k = of_conv2d(call);
    launch_plain(call, &k);
}

void um_cuda_upconv2_plain(const struct um_call *call)
{
    struct um_gemm_args k = of_upconv2(call);
    launch_plain(call, &k);
}

void um_cuda_matmul_nt(const struct um_call *call)
{
    const struct um_view *t = call->t;
    struct um_matmul_nt_args k = {
        .out = um_gview(&t[0]), .a = um_gview(&t[1]), .b = um_gview(&t[2]), .n = t[0].c};
    um_launch_grid(call, "um_matmul_nt_rows", k, THREADS, 0, (unsigned)um_blocks(k.n, THREADS),
                   (unsigned)(t[0].h * t[0].w), 1);
}
