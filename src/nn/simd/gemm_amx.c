/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product on bytes and in bf16 on AMX's tiles, or (gemm_twin.c) on their twin. Two by
 * two tiles of sums stay while A and B stream past, so that a product needs one load. */
#include "nn/simd/gemm.h"

#if VL == 16

#include "nn/simd/amx.h"
#define GEMM_BRIEF true
#include "nn/simd/gemm_tile.h"

enum { COLUMNS = 2 * AMX_ROWS, ROWS = 2 * AMX_ROWS };

/* Up to ROWS rows, and how many bytes lie from one to the next, of A in every tap. */
struct strip {
    int first, rows;
    ptrdiff_t a, c, add;
};
enum { IRREGULAR = 0 }; /* they lie anywhere */

static ptrdiff_t stride_of(const void *const *row, int taps, int rows)
{
    const uintptr_t *at = (const uintptr_t *)row;
    uintptr_t stride = rows > 1 ? at[taps] - at[0] : AMX_BYTES, other = 0;
    for (int i = taps; i < rows * taps; i++) /* to the end: on vectors */
        other |= (at[i] - at[i - taps]) ^ stride;
    return other ? IRREGULAR : (ptrdiff_t)stride;
}

static struct strip strip_of(const struct gemm_rows *r, int first, int rows)
{
    return (struct strip){first, rows, stride_of(r->a + (ptrdiff_t)first * r->taps, r->taps, rows),
                          stride_of((const void *const *)(r->c + first), 1, rows),
                          r->add ? stride_of((const void *const *)(r->add + first), 1, rows)
                                 : IRREGULAR};
}

/* Sums are tiles 0 to 3: rows 0.. by columns 0.. and 16.., then rows 16..; A is 4 and 5, B 6 and
 * 7. */
static struct amx_shape shape_of(int rows)
{
    struct amx_shape s = {.palette = 1};
    static const uint8_t tile_of_row[2][3] = {{0, 1, 4}, {2, 3, 5}};
    for (int half = 0; half < 2; half++) {
        int n = rows - half * AMX_ROWS;
        for (int i = 0; i < 3 && n > 0; i++) {
            s.rows[tile_of_row[half][i]] = (uint8_t)(n < AMX_ROWS ? n : AMX_ROWS);
            s.bytes[tile_of_row[half][i]] = AMX_BYTES;
        }
    }
    s.rows[6] = s.rows[7] = AMX_ROWS;
    s.bytes[6] = s.bytes[7] = AMX_BYTES;
    return s;
}

#define DOT(c, a, b)              \
    do {                          \
        if (BYTES)                \
            amx_dot4(x, c, a, b); \
        else                      \
            amx_dot2(x, c, a, b); \
    } while (0)

/* M by N tiles of sums. t: their first column; rows of B lie ldb bytes apart. */
UNCHECKED UM_INLINE void block_run(struct amx *x, struct tile *t, const struct strip *s,
                                   ptrdiff_t ldb, const int M, const int N, const bool BYTES)
{
    /* Numbers of 4 bytes: where BYTES, whole ones until they are scaled. */
    _Alignas(64) float start[COLUMNS], sums[ROWS * COLUMNS];
    _Alignas(64) uint8_t copy[ROWS * AMX_BYTES];
    enum { F = sizeof(float) };
    const struct gemm *g = t->g;
    const uint8_t *b = t->narrow;
    bool whole = t->left >= N * VL;
    /* Sums begin as what is added to them, and end where they go, if nothing stands between. */
    bool begun = !BYTES && whole && t->add && !g->add_last && !g->bias;
    bool straight = !BYTES && whole && (begun || !t->add) && g->act == UM_ACT_NONE &&
                    g->lab_scale == 0 && !g->half && s->c != IRREGULAR;
    const float *from = start;
    ptrdiff_t lds = 0; /* every row the same */
    if (begun && s->add != IRREGULAR) {
        from = t->add[0] + t->col;
        lds = s->add;
    } else if (begun) {
        from = sums;
        lds = N * VL * F;
        for (int r = 0; r < s->rows; r++)
            memcpy(sums + r * N * VL, t->add[r] + t->col, (size_t)lds);
    }
    if (BYTES)
        memcpy(start, t->start, (size_t)(N * VL) * sizeof *start);
    for (int v = 0; v < N && !BYTES && !begun; v++)
        vf_store(start + v * VL, tile_bias(t, v));
    amx_load(x, 0, from, lds);
    if (N == 2)
        amx_load(x, 1, from + VL, lds);
    if (M == 2)
        amx_load(x, 2, (const uint8_t *)from + AMX_ROWS * lds, lds);
    if (M == 2 && N == 2)
        amx_load(x, 3, (const uint8_t *)(from + VL) + AMX_ROWS * lds, lds);
    for (int tap = 0; tap < t->taps; tap++)
        for (ptrdiff_t k = 0; k < t->depth; k += AMX_BYTES, b += AMX_ROWS * ldb) {
            const uint8_t *a = (const uint8_t *)t->a[tap] + k;
            ptrdiff_t lda = s->a;
            if (lda == IRREGULAR) {
                for (int r = 0; r < s->rows; r++)
                    memcpy(copy + r * AMX_BYTES, (const uint8_t *)t->a[r * t->taps + tap] + k,
                           AMX_BYTES);
                a = copy;
                lda = AMX_BYTES;
            }
            amx_load(x, 4, a, lda);
            if (M == 2)
                amx_load(x, 5, a + AMX_ROWS * lda, lda);
            amx_load(x, 6, b, ldb);
            if (N == 2)
                amx_load(x, 7, b + AMX_BYTES, ldb);
            DOT(0, 4, 6);
            if (N == 2)
                DOT(1, 4, 7);
            if (M == 2)
                DOT(2, 5, 6);
            if (M == 2 && N == 2)
                DOT(3, 5, 7);
        }
    float *to = straight ? t->c[0] + t->col : sums;
    ptrdiff_t ldc = straight ? s->c : N * VL * F;
    uint8_t *low = (uint8_t *)to + AMX_ROWS * ldc; /* rows 16.. */
    amx_store(x, 0, to, ldc);
    if (N == 2)
        amx_store(x, 1, to + VL, ldc);
    if (M == 2)
        amx_store(x, 2, low, ldc);
    if (M == 2 && N == 2)
        amx_store(x, 3, low + VL * F, ldc);
    if (straight)
        return;
    for (int i = 0; BYTES && i < s->rows * N; i++) {
        int v = i % N;
        vi sum = vi_load((const int32_t *)(const void *)(sums + i * VL));
        vf_store(sums + i * VL, vf_fma(vf_of(sum), vf_load(t->scale + v * VL), tile_bias(t, v)));
    }
    if (begun)
        t->add = NULL;
    finish_tile(t, sums, s->rows, N * VL);
}

UNCHECKED UM_INLINE void block(struct amx *x, struct tile *t, const struct strip *s, ptrdiff_t ldb,
                               int columns, const bool BYTES)
{
    if (s->rows > AMX_ROWS && columns > VL)
        block_run(x, t, s, ldb, 2, 2, BYTES);
    else if (s->rows > AMX_ROWS)
        block_run(x, t, s, ldb, 2, 1, BYTES);
    else if (columns > VL)
        block_run(x, t, s, ldb, 1, 2, BYTES);
    else
        block_run(x, t, s, ldb, 1, 1, BYTES);
}

static void block_of_bytes(struct amx *x, struct tile *t, const struct strip *s, ptrdiff_t ldb,
                           int columns)
{
    block(x, t, s, ldb, columns, true);
}

static void block_of_halves(struct amx *x, struct tile *t, const struct strip *s, ptrdiff_t ldb,
                            int columns)
{
    block(x, t, s, ldb, columns, false);
}

#ifdef UM_AMX_TWIN
#define GEMM UM_NAME(gemm_twin)
#else
#define GEMM UM_NAME(gemm_amx)
#endif

/* Panels outside, as elsewhere; strips to and fro, so that tiles are shaped anew less often. */
void GEMM(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0, int panel1)
{
    int nr = um_gemm_nr(g->n), strips = (rows + ROWS - 1) / ROWS, shaped = 0;
    bool bytes = g->type == UM_I8;
    struct um_int8_packed q = {0};
    if (bytes)
        q = um_int8_read(g->narrow, gemm_columns(g->n));
    const unsigned char *b =
        bytes ? (const unsigned char *)q.w : (const unsigned char *)um_bf16_weights(g->narrow);
    struct strip strip[GEMM_BLOCK_ROWS / ROWS];
    struct amx x;
    for (int i = 0; i < strips; i++) {
        int at = split_at(rows, strips, i), n = split_at(rows, strips, i + 1) - at;
        strip[i] = strip_of(r, at, n);
    }
    struct tile t = narrow_tile(g, r);
    for (int p = panel0; p < panel1; p++)
        for (int k = 0; k < strips; k++) {
            int i = p % 2 ? strips - 1 - k : k, first = strip[i].first, n = strip[i].rows;
            t.a = r->a + (ptrdiff_t)first * t.taps;
            t.c = r->c + first;
            if (n != shaped) {
                struct amx_shape shape = shape_of(n);
                amx_configure(&x, &shape);
                shaped = n;
            }
            for (int col = 0; col < nr && p * nr + col < g->n; col += COLUMNS) {
                t.narrow = b + (ptrdiff_t)p * nr * t.depth * t.taps + col * GEMM_LANE;
                t.col = p * nr + col;
                t.left = g->n - t.col;
                t.add = r->add ? r->add + first : NULL;
                if (bytes) {
                    t.scale = q.scale + t.col;
                    t.start = q.start + t.col;
                }
                if (col == 0)
                    check_tile(&t, n, nr);
                (bytes ? block_of_bytes : block_of_halves)(&x, &t, &strip[i],
                                                           (ptrdiff_t)nr * GEMM_LANE,
                                                           nr - col < t.left ? nr - col : t.left);
            }
        }
    amx_release(&x);
}

#endif
