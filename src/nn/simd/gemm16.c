/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product in bf16, two products a lane and instruction. B lies in panels of
 * [k/2][panel width][2], which the rows of AMX's tiles are, too; a run of A that fills no whole
 * lane or tile meets zeros there. */
#define GEMM_BRIEF true
#include "nn/simd/gemm_tile.h"

static size_t pack(void *dst, enum um_narrow_how how, const float *w, int o, int kh, int run)
{
    int nr = um_gemm_nr(o), panels = um_gemm_panels(o), depth = gemm16_depth(how, run) / 2;
    uint16_t *to = dst ? um_bf16_write(dst, how) : NULL;
    for (int p = 0; to && p < panels; p++)
        for (int ky = 0; ky < kh; ky++)
            for (int k = 0; k < depth; k += 2)
                for (int j = 0; j < nr; j++)
                    for (int e = k; e < k + 2; e++) {
                        int row = p * nr + j;
                        *to++ = row < o && e < run
                                    ? um_bf16_of(w[((ptrdiff_t)row * kh + ky) * run + e])
                                    : 0;
                    }
    return UM_BF16_ALIGN +
           (size_t)panels * (size_t)nr * (size_t)kh * (size_t)depth * sizeof(uint16_t);
}

size_t UM_NAME(pack_bf16)(void *dst, const float *w, int o, int kh, int kw, int i)
{
    return pack(dst, UM_NARROW_DOT, w, o, kh, kw * i);
}

#if VL == 16
size_t UM_NAME(pack_bf16_twin)(void *dst, const float *w, int o, int kh, int kw, int i)
{
    return pack(dst, UM_NARROW_TWIN, w, o, kh, kw * i);
}

#if !UM_VEC_EMULATED
size_t UM_NAME(pack_bf16_amx)(void *dst, const float *w, int o, int kh, int kw, int i)
{
    return pack(dst, UM_NARROW_TILES, w, o, kh, kw * i);
}
#endif
#endif

UNCHECKED UM_INLINE void tile_run(const struct tile *t, const int M, const int NV)
{
    const uint8_t *b = t->narrow;
    vf acc[MR_MAX][NV_MAX];

    tile_start(t, acc, M, NV);
    int taps = t->taps;
    ptrdiff_t depth = t->depth;
    for (int tap = 0; tap < taps; tap++) {
        const uint8_t *a[MR_MAX];
        UM_UNROLL
        for (int m = 0; m < M; m++)
            a[m] = t->a[m * taps + tap];
        for (ptrdiff_t k = 0; k < depth; k += GEMM_LANE) {
            vi bv[NV_MAX];
            UM_UNROLL
            for (int v = 0; v < NV; v++) {
                bv[v] = vi_load((const int32_t *)(const void *)(b + v * VL * GEMM_LANE));
                VF_KEEP(bv[v]);
            }
            b += NV * VL * GEMM_LANE;
            UM_UNROLL
            for (int m = 0; m < M; m++) {
                int32_t two;
                memcpy(&two, a[m] + k, sizeof two);
                vi x = vi_set1(two);
                VF_KEEP(x);
                UM_UNROLL
                for (int v = 0; v < NV; v++)
                    acc[m][v] = vf_dot2(acc[m][v], x, bv[v]);
            }
        }
    }
    tile_store(t, acc, M, NV);
}

UM_TILES

void UM_NAME(gemm16_rows)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                          int panel1)
{
    int nr = um_gemm_nr(g->n);
    const unsigned char *b = (const unsigned char *)um_bf16_weights(g->narrow);
    struct tile t = narrow_tile(g, r);
    for (int p = panel0; p < panel1; p++) {
        t.narrow = b + (ptrdiff_t)p * nr * t.depth * t.taps;
        t.col = p * nr;
        t.left = g->n - t.col;
        run_panel(t, tiles[nr / VL], tile_rows[nr / VL], rows);
    }
}

UM_INLINE void round_row(uint8_t *to, const float *x, int c, const bool gelu)
{
    int i = 0;
    for (; i + 4 * VL <= c; i += 4 * VL) {
        vf v[4];
        load_four(v, x + i, gelu);
        UM_EACH_(4)
            vf_store_bf16(to + 2 * (i + v_ * VL), v[v_]);
    }
    for (; i < c; i += VL) {
        vf v = c - i < VL ? vf_load_n(x + i, c - i) : vf_load(x + i);
        if (gelu)
            um_gelu_brief_v(&v, 1);
        vf_store_bf16(to + 2 * i, v);
    }
}

void UM_NAME(gemm16_round)(uint8_t *to, ptrdiff_t ldto, const float *x, ptrdiff_t ldx, int rows,
                           int c, bool gelu)
{
    for (int r = 0; r < rows; r++, to += ldto, x += ldx)
        if (gelu)
            round_row(to, x, c, true);
        else
            round_row(to, x, c, false);
}
