/* SPDX-License-Identifier: Apache-2.0 */
/* What the products on floats (gemm.c), bytes (gemm8.c) and bf16 (gemm16.c, gemm_amx.c) share: the
 * shapes of their tiles, and what happens to finished sums. */
#ifndef UM_NN_SIMD_GEMM_TILE_H
#define UM_NN_SIMD_GEMM_TILE_H

#include "nn/simd/check.h"
#include "nn/simd/gemm.h"
#include "nn/simd/math.h"

#ifndef GEMM_BRIEF
#define GEMM_BRIEF false /* true: activations to the precision of narrow numbers */
#endif

/* Tiles of MR rows x NV vectors. What limits them are registers (MR*NV sums, NV vectors of B, one
 * broadcast of A) and loads per FMA, (MR + NV) / (MR*NV), which must stay well under the machine's
 * ratio of loads to FMAs. */
#if VL == 8
enum { NV_MAX = 2, MR_MAX = 8 };
static const int tile_rows[NV_MAX + 1] = {0, 8, 6};
#else
enum { NV_MAX = 5, MR_MAX = 9 };
static const int tile_rows[NV_MAX + 1] = {0, 8, 8, 9, 6, 5};
#endif

/* One tile: `left` columns of the panel are real. */
struct tile {
    const struct gemm *g;
    const void *const *a; /* [row*taps + tap]: floats, or narrow numbers where `narrow` is */
    float *const *c;
    const float *const *add; /* NULL: none */
    const float *b;
    const void *narrow;
    const float *scale; /* bytes: of the panel's columns, and where their sums start */
    const int32_t *start;
    int taps, depth; /* depth floats, or bytes of narrow numbers, per tap */
    int col, left;
};
typedef void tile_fn(const struct tile *t);

UM_INLINE struct tile narrow_tile(const struct gemm *g, const struct gemm_rows *r)
{
    return (struct tile){.g = g,
                         .a = r->a,
                         .c = r->c,
                         .add = r->add,
                         .taps = r->taps,
                         .depth = gemm_depth(g, g->k / r->taps)};
}

UM_INLINE size_t gemm_columns(int n) /* of all panels */
{
    return (size_t)um_gemm_panels(n) * (size_t)um_gemm_nr(n);
}

#ifdef UM_CHECK_RANGES
static void check_tile(const struct tile *t, int rows, int columns)
{
    enum { F = sizeof(float) };
    int n = t->left < columns ? t->left : columns;
    ptrdiff_t real = F * (ptrdiff_t)n, all = F * (ptrdiff_t)columns;
    ptrdiff_t size = t->narrow ? 1 : F, depth = size * t->depth;
    check_range(t->narrow ? t->narrow : t->b, t->taps * depth * columns);
    for (int i = 0; i < rows * t->taps; i++)
        check_range(t->a[i], depth);
    for (int m = 0; m < rows; m++) {
        if (t->g->half)
            check_range((const uint16_t *)(void *)t->c[m] + t->col,
                        (ptrdiff_t)n * (ptrdiff_t)sizeof(uint16_t));
        else
            check_range(t->c[m] + t->col, real);
        if (t->add)
            check_range(t->add[m] + t->col, real);
    }
    if (t->g->bias)
        check_range(t->g->bias + t->col, real);
    if (t->scale) {
        check_range(t->scale, all);
        check_range(t->start, all);
    }
}
#else
#define check_tile(t, rows, columns) (void)0
#endif

/* Cheap in registers; the others run over the spilled tile, because their constants do not fit
 * beside the sums. */
UM_INLINE bool act_is_cheap(enum um_act act)
{
    return act == UM_ACT_NONE || act == UM_ACT_RELU || act == UM_ACT_CLAMP;
}

UM_INLINE void load_four(vf *v, const float *x, const bool gelu) /* to be rounded */
{
    UM_EACH_(4)
        v[v_] = vf_load(x + v_ * VL);
    if (gelu)
        um_gelu_brief_v(v, 4);
}

/* `some` vectors side by side. */
UM_INLINE void finish_vectors(const struct gemm *g, vf *x, const vf *add, int some, enum um_act act)
{
    UM_EACH_(some)
        x[v_] = add && !g->add_last ? x[v_] + add[v_] : x[v_];
    um_activate_brief_v(act, g->limit, x, some, GEMM_BRIEF);
    if (g->lab_scale != 0)
        UM_EACH_(some)
            x[v_] = vf_fma(x[v_], vf_set1(g->lab_scale), vf_set1(g->lab_shift));
    UM_EACH_(some)
        x[v_] = add && g->add_last ? x[v_] + add[v_] : x[v_];
}

/* `some` vectors, the last `n` numbers of which are real. c may be sums. */
UM_INLINE void finish_some(const struct gemm *g, float *c, const float *sums, const float *add,
                           const int some, int n, enum um_act act)
{
    vf x[4], plus[4];
    UM_EACH_(some) {
        int left = v_ + 1 < some ? VL : n;
        x[v_] = left == VL ? vf_load(sums + v_ * VL) : vf_load_n(sums + v_ * VL, left);
        if (add)
            plus[v_] = left == VL ? vf_load(add + v_ * VL) : vf_load_n(add + v_ * VL, left);
    }
    finish_vectors(g, x, add ? plus : NULL, some, act);
    UM_EACH_(some) {
        if (v_ + 1 < some || n == VL)
            vf_store(c + v_ * VL, x[v_]);
        else
            vf_store_n(c + v_ * VL, x[v_], n);
    }
}

/* n sums, whatever follows them. */
UM_INLINE void finish_row(const struct gemm *g, float *c, const float *sums, const float *add,
                          int n, enum um_act act)
{
    int i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        finish_some(g, c + i, sums + i, add ? add + i : NULL, 4, VL, act);
    for (; i < n; i += VL)
        finish_some(g, c + i, sums + i, add ? add + i : NULL, 1, n - i < VL ? n - i : VL, act);
}

/* R whole rows of V vectors at a time, what is added before `act` and nothing behind it; half: as
 * bf16. The rows done. */
UM_INLINE int finish_sums_rows(const struct tile *t, const float *sums, int r, int m,
                               enum um_act act, const bool half, const int R, const int V)
{
    const struct tile k = *t; /* stores cannot change it */
    float limit = t->g->limit;
    for (; r + R <= m; r += R) {
        vf x[8];
        float *c[4];
        UM_UNROLL
        for (int i = 0; i < R; i++)
            c[i] = k.c[r + i];
        UM_UNROLL
        for (int i = 0; i < R * V; i++)
            x[i] = vf_load(sums + ((ptrdiff_t)r * V + i) * VL);
        if (k.add)
            UM_UNROLL
        for (int i = 0; i < R * V; i++)
            x[i] += vf_load(k.add[r + i / V] + k.col + i % V * VL);
        um_activate_brief_v(act, limit, x, R * V, GEMM_BRIEF);
        UM_UNROLL
        for (int i = 0; i < R * V; i++) {
            ptrdiff_t at = k.col + i % V * VL;
            if (half)
                vf_store_bf16((uint16_t *)(void *)c[i / V] + at, x[i]);
            else
                vf_store(c[i / V] + at, x[i]);
        }
    }
    return r;
}

UM_INLINE void finish_sums(const struct tile *t, const float *sums, int m, int nr, enum um_act act,
                           const bool half)
{
    int r = 0;
    if (half || (t->left >= nr && !(t->add && t->g->add_last) && t->g->lab_scale == 0))
        switch (nr / VL) {
        case 1:
            r = finish_sums_rows(t, sums, r, m, act, half, 4, 1);
            r = finish_sums_rows(t, sums, r, m, act, half, 1, 1);
            break;
        case 2:
            r = finish_sums_rows(t, sums, r, m, act, half, 2, 2);
            r = finish_sums_rows(t, sums, r, m, act, half, 1, 2);
            break;
        case 3: r = finish_sums_rows(t, sums, r, m, act, half, 1, 3); break;
        case 4: r = finish_sums_rows(t, sums, r, m, act, half, 1, 4); break;
        case 5: r = finish_sums_rows(t, sums, r, m, act, half, 1, 5); break;
        }
    for (; r < m; r++)
        finish_row(t->g, t->c[r] + t->col, sums + (ptrdiff_t)r * nr,
                   t->add ? t->add[r] + t->col : NULL, t->left < nr ? t->left : nr, act);
}

/* As bf16, of any activation and width. */
static __attribute__((noinline)) void finish_half(const struct tile *t, const float *sums, int m,
                                                  int nr)
{
    int n = t->left < nr ? t->left : nr;
    float row[NV_MAX * VL];
    uint8_t half[2 * NV_MAX * VL];
    for (int r = 0; r < m; r++, sums += nr) {
        for (int i = 0; i < n; i += VL)
            vf_store(row + i, vf_load(sums + i));
        um_gemm_finish(t->g, row, NULL, n);
        um_gemm16_round(half, 0, row, 0, 1, n, false);
        memcpy((uint16_t *)(void *)t->c[r] + t->col, half, (size_t)n * sizeof(uint16_t));
    }
}

/* What does not fit in registers, from sums [m][nr] to which `add` has not been added. */
static __attribute__((noinline)) void finish_tile(const struct tile *t, const float *sums, int m,
                                                  int nr)
{
    const struct gemm *g = t->g;
    if (g->half && (g->act != UM_ACT_GELU || t->left < nr))
        finish_half(t, sums, m, nr);
    else if (g->half)
        finish_sums(t, sums, m, nr, UM_ACT_GELU, true);
    else if (g->act == UM_ACT_GELU)
        finish_sums(t, sums, m, nr, UM_ACT_GELU, false);
    else if (g->act == UM_ACT_SILU)
        finish_sums(t, sums, m, nr, UM_ACT_SILU, false);
    else if (g->act == UM_ACT_RELU)
        finish_sums(t, sums, m, nr, UM_ACT_RELU, false);
    else
        finish_sums(t, sums, m, nr, g->act, false);
}

UNCHECKED UM_INLINE vf tile_bias(const struct tile *t, int v) /* of vector v of the panel */
{
    int n = t->left - v * VL;
    const float *at = t->g->bias + t->col + v * VL;
    return !t->g->bias || n <= 0 ? vf_zero() : n >= VL ? vf_load(at) : vf_load_n(at, n);
}

UNCHECKED UM_INLINE void tile_start(const struct tile *t, vf acc[MR_MAX][NV_MAX], const int M,
                                    const int NV)
{
    UM_UNROLL
    for (int v = 0; v < NV; v++) {
        vf start = tile_bias(t, v);
        UM_UNROLL
        for (int m = 0; m < M; m++)
            acc[m][v] = start;
    }
}

UNCHECKED UM_INLINE void tile_add(const struct tile *t, vf acc[MR_MAX][NV_MAX], const int M,
                                  const int NV)
{
    UM_UNROLL
    for (int m = 0; m < M; m++) {
        const float *add = t->add[m] + t->col;
        UM_UNROLL
        for (int v = 0; v < NV; v++)
            acc[m][v] += vf_load(add + v * VL);
    }
}

/* From the sums (bias included) of a tile in registers to memory. */
UNCHECKED UM_INLINE void tile_store(const struct tile *t, vf acc[MR_MAX][NV_MAX], const int M,
                                    const int NV)
{
    const struct gemm *g = t->g;
    bool full = t->left >= NV * VL;

    if (!full || !act_is_cheap(g->act) || g->half) {
        float sums[MR_MAX * NV_MAX * VL];
        UM_UNROLL
        for (int m = 0; m < M; m++)
            UM_UNROLL
        for (int v = 0; v < NV; v++)
            vf_store(sums + (m * NV + v) * VL, acc[m][v]);
        finish_tile(t, sums, M, NV * VL);
        return;
    }
    if (t->add && !g->add_last)
        tile_add(t, acc, M, NV);
    if (g->act != UM_ACT_NONE) {
        vf lo = vf_set1(g->act == UM_ACT_RELU ? 0 : -g->limit);
        vf hi = vf_set1(g->act == UM_ACT_RELU ? __builtin_inff() : g->limit);
        UM_UNROLL
        for (int m = 0; m < M; m++)
            UM_UNROLL
        for (int v = 0; v < NV; v++)
            acc[m][v] = vf_min(hi, vf_max(lo, acc[m][v]));
    }
    if (g->lab_scale != 0) {
        vf scale = vf_set1(g->lab_scale), shift = vf_set1(g->lab_shift);
        UM_UNROLL
        for (int m = 0; m < M; m++)
            UM_UNROLL
        for (int v = 0; v < NV; v++)
            acc[m][v] = vf_fma(acc[m][v], scale, shift);
    }
    if (t->add && g->add_last)
        tile_add(t, acc, M, NV);
    UM_UNROLL
    for (int m = 0; m < M; m++) {
        float *c = t->c[m] + t->col;
        UM_UNROLL
        for (int v = 0; v < NV; v++)
            vf_store(c + v * VL, acc[m][v]);
    }
}

#define TILE(m, nv)                                             \
    UNCHECKED static void tile_##m##x##nv(const struct tile *t) \
    {                                                           \
        check_tile(t, m, (nv)*VL);                              \
        tile_run(t, m, nv);                                     \
    }
#define TILES5(nv) TILE(1, nv) TILE(2, nv) TILE(3, nv) TILE(4, nv) TILE(5, nv)
#define TILES6(nv) TILES5(nv) TILE(6, nv)
#define TILES8(nv) TILES6(nv) TILE(7, nv) TILE(8, nv)
#define ROW5(nv) NULL, tile_1x##nv, tile_2x##nv, tile_3x##nv, tile_4x##nv, tile_5x##nv
#define ROW6(nv) ROW5(nv), tile_6x##nv
#define ROW8(nv) ROW6(nv), tile_7x##nv, tile_8x##nv

/* All rows of a panel by the tiles of its width, which have up to `most` rows; rows are dealt to
 * them evenly. t: the first. */
UM_INLINE void run_panel(struct tile t, tile_fn *const *tile, int most, int rows)
{
    int strips = (rows + most - 1) / most;
    int tall = strips ? rows % strips : 0,
        height = strips ? rows / strips : 0; /* the first `tall` strips have one row more */
    for (int s = 0; s < strips; s++) {
        int m = height + (s < tall);
        tile[m](&t);
        t.a += (ptrdiff_t)m * t.taps;
        t.c += m;
        t.add = t.add ? t.add + m : NULL;
    }
}

/* The functions of all tiles, made of tile_run(), and tiles[vectors][rows] of them. */
#if VL == 8
#define UM_TILES \
    TILES8(1)    \
    TILES6(2)    \
    static tile_fn *const tiles[NV_MAX + 1][MR_MAX + 1] = {{NULL}, {ROW8(1)}, {ROW6(2)}};
#else
#define UM_TILES                                            \
    TILES8(1)                                               \
    TILES8(2)                                               \
    TILES8(3)                                               \
    TILE(9, 3)                                              \
    TILES6(4)                                               \
    TILES5(5)                                               \
    static tile_fn *const tiles[NV_MAX + 1][MR_MAX + 1] = { \
        {NULL}, {ROW8(1)}, {ROW8(2)}, {ROW8(3), tile_9x3}, {ROW6(4)}, {ROW5(5)}};
#endif

#endif
