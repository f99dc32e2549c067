/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product on bytes and in bf16 on AMX's tiles, or (gemm_twin.c) on their twin. Two by
 * two tiles of sums stay while A and B stream past, so that a product needs one load. */
#include "nn/simd/gemm.h"

#if VL == 16

#include "nn/simd/amx.h"
#include "nn/simd/gemm_tile.h"

enum { COLUMNS = 2 * AMX_ROWS, ROWS = 2 * AMX_ROWS };

/* Up to ROWS rows of A. */
struct strip {
    int rows;
    ptrdiff_t stride; /* bytes from row to row, in every tap; IRREGULAR: rows lie anywhere */
};
enum { IRREGULAR = 0 };

static ptrdiff_t stride_of(const void *const *a, int taps, int rows)
{
    ptrdiff_t stride = rows > 1 ? (const uint8_t *)a[taps] - (const uint8_t *)a[0] : AMX_BYTES;
    for (int i = taps; i < rows * taps; i++)
        if ((const uint8_t *)a[i] - (const uint8_t *)a[i - taps] != stride)
            return IRREGULAR;
    return stride;
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
UNCHECKED UM_INLINE void block_run(struct amx *x, const struct tile *t, const struct strip *s,
                                   ptrdiff_t ldb, const int M, const int N, const bool BYTES)
{
    /* Numbers of 4 bytes: where BYTES, whole ones until they are scaled. */
    _Alignas(64) float start[COLUMNS], sums[ROWS * COLUMNS];
    _Alignas(64) uint8_t copy[ROWS * AMX_BYTES];
    const uint8_t *b = t->narrow;
    if (BYTES)
        memcpy(start, t->start, (size_t)(N * VL) * sizeof *start);
    for (int v = 0; v < N && !BYTES; v++)
        vf_store(start + v * VL, tile_bias(t, v));
    amx_load(x, 0, start, 0); /* every row the same */
    if (N == 2)
        amx_load(x, 1, start + VL, 0);
    if (M == 2)
        amx_load(x, 2, start, 0);
    if (M == 2 && N == 2)
        amx_load(x, 3, start + VL, 0);
    for (int tap = 0; tap < t->taps; tap++)
        for (ptrdiff_t k = 0; k < t->depth; k += AMX_BYTES, b += AMX_ROWS * ldb) {
            const uint8_t *a = (const uint8_t *)t->a[tap] + k;
            ptrdiff_t lda = s->stride;
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
    enum { F = sizeof(float) };
    float *low = sums + AMX_ROWS * N * VL; /* rows 16.. */
    amx_store(x, 0, sums, N * VL * F);
    if (N == 2)
        amx_store(x, 1, sums + VL, N * VL * F);
    if (M == 2)
        amx_store(x, 2, low, N * VL * F);
    if (M == 2 && N == 2)
        amx_store(x, 3, low + VL, N * VL * F);
    for (int i = 0; BYTES && i < s->rows * N; i++) {
        int v = i % N;
        vi sum = vi_load((const int32_t *)(const void *)(sums + i * VL));
        vf_store(sums + i * VL, vf_fma(vf_of(sum), vf_load(t->scale + v * VL), tile_bias(t, v)));
    }
    finish_tile(t, sums, s->rows, N * VL);
}

UNCHECKED UM_INLINE void block(struct amx *x, const struct tile *t, const struct strip *s,
                               ptrdiff_t ldb, int columns, const bool BYTES)
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

static void block_of_bytes(struct amx *x, const struct tile *t, const struct strip *s,
                           ptrdiff_t ldb, int columns)
{
    block(x, t, s, ldb, columns, true);
}

static void block_of_halves(struct amx *x, const struct tile *t, const struct strip *s,
                            ptrdiff_t ldb, int columns)
{
    block(x, t, s, ldb, columns, false);
}

#ifdef UM_AMX_TWIN
#define GEMM UM_NAME(gemm_twin)
#else
#define GEMM UM_NAME(gemm_amx)
#endif

/* Panels outside, as elsewhere. */
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
    for (int i = 0, at = 0; i < strips; i++, at = split_at(rows, strips, i)) {
        int n = split_at(rows, strips, i + 1) - at;
        strip[i] = (struct strip){n, stride_of(r->a + (ptrdiff_t)at * r->taps, r->taps, n)};
    }
    for (int p = panel0; p < panel1; p++) {
        struct tile t = narrow_tile(g, r);
        t.narrow = b + (ptrdiff_t)p * nr * t.depth * t.taps;
        t.col = p * nr;
        t.left = g->n - t.col;
        if (bytes) {
            t.scale = q.scale + t.col;
            t.start = q.start + t.col;
        }
        for (int i = 0; i < strips; i++) {
            int n = strip[i].rows;
            check_tile(&t, n, nr);
            if (n != shaped) {
                struct amx_shape shape = shape_of(n);
                amx_configure(&x, &shape);
                shaped = n;
            }
            for (int col = 0; col < nr && col < t.left; col += COLUMNS) {
                struct tile part = t;
                part.narrow = (const unsigned char *)t.narrow + col * GEMM_LANE;
                part.col += col;
                part.left -= col;
                if (bytes) {
                    part.scale += col;
                    part.start += col;
                }
                (bytes ? block_of_bytes : block_of_halves)(&x, &part, &strip[i],
                                                           (ptrdiff_t)nr * GEMM_LANE, nr - col);
            }
            t.a += (ptrdiff_t)n * t.taps;
            t.c += n;
            t.add = t.add ? t.add + n : NULL;
        }
    }
    amx_release(&x);
}

#endif
