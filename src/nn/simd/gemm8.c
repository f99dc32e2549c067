/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product on bytes: u8 times s8, four products a lane and instruction; on 8 lanes in
 * AVX2's instructions, for tests, and (gemm8_vnni.c) in AVX-VNNI's. Where the instruction wants
 * both signed, it gets u8 less 128, and sums start at 128 times those of B. B lies in panels of
 * [k/4][panel width][4], which the rows of AMX's tiles are, too; a run of A that fills no whole
 * lane or tile meets zeros there. */
#define GEMM_BRIEF true
#include "nn/simd/gemm_tile.h"

UNCHECKED UM_INLINE void tile_run(const struct tile *t, const int M, const int NV)
{
    const int8_t *b = t->narrow;
    vi sum[MR_MAX][NV_MAX];

    UM_UNROLL
    for (int v = 0; v < NV; v++) {
        vi start = vi_load(t->start + v * VL);
        UM_UNROLL
        for (int m = 0; m < M; m++)
            sum[m][v] = start;
    }
    int taps = t->taps;
    ptrdiff_t depth = t->depth;
    for (int tap = 0; tap < taps; tap++) {
        const uint8_t *a[MR_MAX];
        UM_UNROLL
        for (int m = 0; m < M; m++)
            a[m] = t->a[m * taps + tap];
        for (ptrdiff_t k = 0; k < depth; k += 4) {
            vi bv[NV_MAX];
            UM_UNROLL
            for (int v = 0; v < NV; v++) {
                bv[v] = vi_load((const int32_t *)(const void *)(b + v * VL * 4));
                VF_KEEP(bv[v]);
            }
            b += NV * VL * 4;
            UM_UNROLL
            for (int m = 0; m < M; m++) {
                int32_t four;
                memcpy(&four, a[m] + k, sizeof four);
                vi x = vi_set1(UM_DOT_OFFSET ? four ^ (int32_t)0x80808080 : four);
                VF_KEEP(x);
                UM_UNROLL
                for (int v = 0; v < NV; v++)
                    sum[m][v] = vi_dot4(sum[m][v], x, bv[v]);
            }
        }
    }
    vf acc[MR_MAX][NV_MAX];
    UM_UNROLL
    for (int v = 0; v < NV; v++) {
        vf scale = vf_load(t->scale + v * VL), bias = tile_bias(t, v);
        UM_UNROLL
        for (int m = 0; m < M; m++)
            acc[m][v] = vf_fma(vf_of(sum[m][v]), scale, bias);
    }
    tile_store(t, acc, M, NV);
}

UM_TILES

#ifdef UM_AVX_VNNI
#define ROWS UM_NAME(gemm8_vnni_rows)
#else
#define ROWS um_gemm8_rows
#endif
void ROWS(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0, int panel1)
{
    int nr = um_gemm_nr(g->n);
    struct um_int8_packed q = um_int8_read(g->narrow, gemm_columns(g->n));
    struct tile t = narrow_tile(g, r);
    for (int p = panel0; p < panel1; p++) {
        t.narrow = q.w + (ptrdiff_t)p * nr * t.depth * t.taps;
        t.col = p * nr;
        t.left = g->n - t.col;
        t.scale = q.scale + t.col;
        t.start = q.start + t.col;
        run_panel(t, tiles[nr / VL], tile_rows[nr / VL], rows);
    }
}

#ifndef UM_AVX_VNNI

static size_t pack(void *dst, enum um_narrow_how how, const struct um_int8_layer *l)
{
    int nr = um_gemm_nr(l->o), panels = um_gemm_panels(l->o);
    int run = l->kw * l->i, depth = gemm8_depth(how, run);
    if (dst) {
        int8_t *to = um_int8_write(dst, how, l, gemm_columns(l->o));
        for (int p = 0; p < panels; p++)
            for (int ky = 0; ky < l->kh; ky++)
                for (int k = 0; k < depth; k += 4)
                    for (int j = 0; j < nr; j++)
                        for (int e = k; e < k + 4; e++, to++) {
                            int o = p * nr + j;
                            *to = o < l->o && e < run ? l->w[((ptrdiff_t)o * l->kh + ky) * run + e]
                                                      : (int8_t)0;
                        }
        int32_t *start = um_int8_start(dst, gemm_columns(l->o));
        for (int o = 0; o < l->o && UM_DOT_OFFSET; o++)
            for (int k = 0; k < l->kh * run; k++)
                start[o] += UM_DOT_OFFSET * l->w[(ptrdiff_t)o * l->kh * run + k];
    }
    return um_int8_places(l->i, gemm_columns(l->o)).w +
           gemm_columns(l->o) * (size_t)l->kh * (size_t)depth;
}

size_t UM_NAME(pack_int8)(void *dst, const struct um_int8_layer *l)
{
    return pack(dst, UM_NARROW_DOT, l);
}

#if VL == 8
size_t UM_NAME(pack_int8_vnni)(void *dst, const struct um_int8_layer *l)
{
    return pack(dst, UM_NARROW_VNNI, l);
}
#elif VL == 16
size_t UM_NAME(pack_int8_twin)(void *dst, const struct um_int8_layer *l)
{
    return pack(dst, UM_NARROW_TWIN, l);
}

#if !UM_VEC_EMULATED
size_t UM_NAME(pack_int8_amx)(void *dst, const struct um_int8_layer *l)
{
    return pack(dst, UM_NARROW_TILES, l);
}
#endif
#endif

UM_INLINE vi bytes_of(vf x, vf inv, vf zero) /* NaN: 0 */
{
    return vi_round(vf_min(vf_set1(255), vf_max(vf_fma(x, inv, zero), vf_zero())));
}

UM_INLINE void round_row(uint8_t *to, const float *x, int c, const float *inv, vf zero,
                         const bool gelu)
{
    int i = 0;
    for (; i + 4 * VL <= c; i += 4 * VL) {
        vf v[4];
        load_four(v, x + i, gelu);
        UM_EACH_(4)
            vi_store_u8(to + i + v_ * VL, bytes_of(v[v_], vf_load(inv + i + v_ * VL), zero));
    }
    for (; i < c; i += VL) {
        int n = c - i < VL ? c - i : VL;
        vf v = vf_load_n(x + i, n);
        if (gelu)
            um_gelu_brief_v(&v, 1);
        vi_store_u8(to + i, bytes_of(v, vf_load_n(inv + i, n), zero));
    }
}

void UM_NAME(gemm8_round)(uint8_t *to, ptrdiff_t ldto, const float *x, ptrdiff_t ldx, int rows,
                          int c, const float *inv, int32_t zero, bool gelu)
{
    vf z = vf_set1((float)zero);
    for (int r = 0; r < rows; r++, to += ldto, x += ldx)
        if (gelu)
            round_row(to, x, c, inv, z, true);
        else
            round_row(to, x, c, inv, z, false);
}

#endif
