/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/simd/gemm_tile.h"
#include "nn/simd/transpose.h"

/* Vectors per panel: the fewest padded columns, then the tile with the fewest loads. */
static int panel_vectors(int n)
{
    int need = (n + VL - 1) / VL;
#if VL == 8
    return need < 2 ? 1 : 2;
#else
#if VL == 16
    static const int order[] = {4, 5, 3};
    if (need <= 5)
        return need;
#else
    static const int order[] = {4, 2}; /* so that 8 heads lie in one panel (cross.c) */
    if (need <= 2)
        return need;
#endif
    int best = 4, least = INT32_MAX;
    for (int i = 0; i < (int)(sizeof order / sizeof *order); i++) {
        int padded = (need + order[i] - 1) / order[i] * order[i];
        if (padded < least) {
            least = padded;
            best = order[i];
        }
    }
    return best;
#endif
}

int UM_NAME(gemm_nr)(int n)
{
    return panel_vectors(n) * VL;
}

int UM_NAME(gemm_mr)(int n)
{
    return tile_rows[panel_vectors(n)];
}

int UM_NAME(gemm_panels)(int n)
{
    int nr = panel_vectors(n) * VL;
    return (n + nr - 1) / nr;
}

size_t UM_NAME(gemm_pack)(float *dst, const float *w, int n, int k)
{
    int nr = panel_vectors(n) * VL, panels = (n + nr - 1) / nr;
    if (dst)
        for (int p = 0; p < panels; p++)
            for (int i = 0; i < k; i++)
                for (int j = 0; j < nr; j++)
                    *dst++ = p * nr + j < n ? w[(ptrdiff_t)(p * nr + j) * k + i] : 0;
    return (size_t)panels * (size_t)nr * (size_t)k * sizeof *w;
}

void UM_NAME(gemm_panel)(float *dst, const float *rows, ptrdiff_t ld, int n, int k, int nr)
{
    for (int j = 0; j < nr; j += SIDE) {
        int i = 0;
        if (j + SIDE <= n)
            for (; i + SIDE <= k; i += SIDE) {
                side row[SIDE];
                for (int l = 0; l < SIDE; l++)
                    row[l] = side_load(rows + (j + l) * ld + i);
                transpose_square(dst + (ptrdiff_t)i * nr + j, nr, row);
            }
        for (; i < k; i++)
            for (int l = j; l < j + SIDE; l++)
                dst[(ptrdiff_t)i * nr + l] = l < n ? rows[l * ld + i] : 0;
    }
}

void UM_NAME(gemm_finish)(const struct gemm *g, float *c, const float *add, int n)
{
    if (!g->add_last)
        add = NULL;
    if (g->act == UM_ACT_GELU)
        finish_row(g, c, c, add, n, UM_ACT_GELU);
    else if (g->act == UM_ACT_SILU)
        finish_row(g, c, c, add, n, UM_ACT_SILU);
    else
        finish_row(g, c, c, add, n, g->act);
}

UNCHECKED UM_INLINE void tile_run(const struct tile *t, const int M, const int NV)
{
    const float *b = t->b;
    vf acc[MR_MAX][NV_MAX];

    tile_start(t, acc, M, NV);

    int taps = t->taps;
    ptrdiff_t depth = t->depth;
    for (int tap = 0; tap < taps; tap++) {
        const float *a[MR_MAX];
        UM_UNROLL
        for (int m = 0; m < M; m++)
            a[m] = t->a[m * taps + tap];
        for (ptrdiff_t k = 0; k < depth; k++) {
            vf bv[NV_MAX];
            UM_UNROLL
            for (int v = 0; v < NV; v++) {
                bv[v] = vf_load(b + v * VL);
                VF_KEEP(bv[v]);
            }
            b += NV * VL;
            UM_UNROLL
            for (int m = 0; m < M; m++) {
                vf x = vf_set1(a[m][k]);
                VF_KEEP(x);
                UM_UNROLL
                for (int v = 0; v < NV; v++)
                    acc[m][v] = vf_fma(x, bv[v], acc[m][v]);
            }
        }
    }

    tile_store(t, acc, M, NV);
}

UM_TILES

static void ready_rows(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                       int panel1)
{
    switch (um_narrow_how(g->narrow)) {
    case UM_NARROW_DOT:
        (g->type == UM_I8 ? um_gemm8_rows : um_gemm16_rows)(g, r, rows, panel0, panel1);
        break;
#if VL == 8
    case UM_NARROW_VNNI: UM_NAME(gemm8_vnni_rows)(g, r, rows, panel0, panel1); break;
#elif VL == 16
    case UM_NARROW_TWIN: UM_NAME(gemm_twin)(g, r, rows, panel0, panel1); break;
#if !UM_VEC_EMULATED
    case UM_NARROW_TILES: UM_NAME(gemm_amx)(g, r, rows, panel0, panel1); break;
#endif
#endif
    default: break; /* nothing else is packed at this level */
    }
}

void UM_NAME(gemm_round)(const struct gemm *g, uint8_t *to, ptrdiff_t ldto, const float *x,
                         ptrdiff_t ldx, int rows, int c, int first, bool gelu)
{
    if (g->type == UM_I8)
        um_gemm8_round(to, ldto, x, ldx, rows, c, um_int8_inv(g->narrow) + first, gemm_zero(g),
                       gelu);
    else
        um_gemm16_round(to, ldto, x, ldx, rows, c, gelu);
}

void UM_NAME(gemm_ready)(const struct gemm *g, uint8_t *to, const float *x, ptrdiff_t ldx, int rows)
{
    int used = g->k * gemm_size(g), row = gemm_depth(g, g->k);
    um_gemm_round(g, to, row, x, ldx, rows, g->k, 0, false);
    for (int r = 0; r < rows && row > used; r++)
        memset(to + (ptrdiff_t)r * row + used, 0, (size_t)(row - used));
}

/* Rows of floats, in pieces, as narrow numbers. */
static void read_rows(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                      int panel1)
{
    enum { ROWS = 96, ROOM = 64 << 10 };
    _Alignas(64) uint8_t room[ROOM + 4 * VL];
    const void *at[ROWS];
    int piece = g->k / r->taps, size = gemm_size(g), used = g->k * size, row = gemm_depth(g, g->k);
    int most = ROOM / row < ROWS ? ROOM / row : ROWS, blocks = (rows + most - 1) / most;
    struct gemm_rows narrow = {.a = at, .taps = 1};
    for (int i = 0; i < blocks; i++) {
        int r0 = split_at(rows, blocks, i), n = split_at(rows, blocks, i + 1) - r0;
        for (int j = 0; j < n; j++) {
            uint8_t *to = room + (ptrdiff_t)j * row;
            at[j] = to;
            for (int tap = 0; tap < r->taps; tap++)
                um_gemm_round(g, to + (ptrdiff_t)tap * piece * size, 0,
                              r->a[(ptrdiff_t)(r0 + j) * r->taps + tap], 0, 1, piece, tap * piece,
                              false);
            if (row > used)
                memset(to + used, 0, (size_t)(row - used));
        }
        narrow.c = r->c + r0;
        narrow.add = r->add ? r->add + r0 : NULL;
        ready_rows(g, &narrow, n, panel0, panel1);
    }
}

/* Panels outside, so that one panel stays in the L1 cache while strips of A stream past. */
void UM_NAME(gemm_rows)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                        int panel1)
{
    if (g->narrow) {
        (g->ready ? ready_rows : read_rows)(g, r, rows, panel0, panel1);
        return;
    }
    int nv = panel_vectors(g->n), nr = nv * VL;
    struct tile t = {
        .g = g, .a = r->a, .c = r->c, .add = r->add, .taps = r->taps, .depth = g->k / r->taps};

    for (int p = panel0; p < panel1; p++) {
        t.b = g->b + (ptrdiff_t)p * nr * g->k;
        t.col = p * nr;
        t.left = g->n - t.col;
        run_panel(t, tiles[nv], tile_rows[nv], rows);
    }
}

void UM_NAME(gemm_block)(const struct gemm *g, const float *a, ptrdiff_t lda, int rows, float *c,
                         ptrdiff_t ldc, const float *add, ptrdiff_t ldadd, int panel0, int panel1)
{
    enum { ROWS = 96 };
    const void *ap[ROWS];
    const float *addp[ROWS];
    float *cp[ROWS];
    struct gemm_rows r = {ap, cp, add ? addp : NULL, 1};
    int blocks = (rows + ROWS - 1) / ROWS;

    for (int i = 0; i < blocks; i++) {
        int r0 = split_at(rows, blocks, i), n = split_at(rows, blocks, i + 1) - r0;
        for (int j = 0; j < n; j++) {
            ap[j] = a + (r0 + j) * lda;
            cp[j] = c + (r0 + j) * ldc;
            if (add)
                addp[j] = add + (r0 + j) * ldadd;
        }
        um_gemm_rows(g, &r, n, panel0, panel1);
    }
}

struct gemm_split UM_NAME(gemm_split)(int m, int n, int k, int row_floats, int threads)
{
    enum { BLOCK_FLOATS = 32 << 10, ITEM_FMAS = 100000, ITEMS_PER_THREAD = 4 };
    int mr = um_gemm_mr(n), panels = um_gemm_panels(n);
    int64_t worth = (int64_t)m * n * k / ITEM_FMAS; /* items that pay for their hand-over */
    if (threads == 1 || worth < 2)
        worth = 1;
    if (worth > ITEMS_PER_THREAD * threads)
        worth = ITEMS_PER_THREAD * threads;

    int rows = BLOCK_FLOATS / row_floats / mr * mr; /* of one block */
    if (rows < 4 * mr)
        rows = 4 * mr;
    if (rows > GEMM_BLOCK_ROWS)
        rows = GEMM_BLOCK_ROWS;
    struct gemm_split split = {.row_blocks = (m + rows - 1) / rows, .panel_groups = 1};
    if (split.row_blocks >= worth) {
        if (worth > 1) /* the same number for every thread */
            split.row_blocks = (split.row_blocks + threads - 1) / threads * threads;
        return split;
    }
    /* Few rows: every thread takes its own part of what is more, of A and C or of B first. */
    int most = (m + mr - 1) / mr;
    if ((int64_t)m * (k + n) >= (int64_t)n * k) {
        split.row_blocks = (int)(worth < most ? worth : most);
        int groups = (int)((worth + split.row_blocks - 1) / split.row_blocks);
        split.panel_groups = groups < panels ? groups : panels;
        return split;
    }
    int groups = (int)((worth + split.row_blocks - 1) / split.row_blocks);
    split.panel_groups = groups < panels ? groups : panels;
    int blocks = (int)((worth + split.panel_groups - 1) / split.panel_groups);
    if (blocks > split.row_blocks)
        split.row_blocks = blocks < most ? blocks : most;
    return split;
}
