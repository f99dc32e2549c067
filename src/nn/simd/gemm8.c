/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product on bytes: u8 times s8, four products a lane and instruction. B lies in panels
 * of [k/4][panel width][4]; a run of A that is no multiple of 4 long meets zeros there, so what
 * lies behind it does not matter, but is read. */
#include "nn/simd/gemm_tile.h"

static const int8_t *panels_of(const struct gemm *g, const float **scale, const int32_t **start)
{
    size_t row = (size_t)um_gemm_panels(g->n) * (size_t)um_gemm_nr(g->n) * sizeof(float);
    const unsigned char *at = um_int8_scale(g->b8);
    *scale = (const float *)(const void *)at;
    *start = (const int32_t *)(const void *)(at + um_int8_round(row));
    return (const int8_t *)(at + 2 * um_int8_round(row));
}

size_t UM_NAME(pack_int8)(void *dst, const struct um_int8_layer *l)
{
    int nr = um_gemm_nr(l->o), panels = um_gemm_panels(l->o);
    size_t in = um_int8_round((size_t)l->i * sizeof(float));
    size_t columns = (size_t)panels * (size_t)nr, row = um_int8_round(columns * sizeof(float));
    int run = l->kw * l->i, depth = gemm8_depth(run);
    size_t bytes = columns * (size_t)l->kh * (size_t)depth;
    if (dst) {
        struct um_int8_head head = {l->zero, l->i};
        memcpy(dst, &head, sizeof head);
        memcpy((unsigned char *)dst + UM_INT8_ALIGN, l->inv, (size_t)l->i * sizeof *l->inv);
        float *scale = (float *)(void *)((unsigned char *)dst + UM_INT8_ALIGN + in);
        int32_t *start = (int32_t *)(void *)((unsigned char *)scale + row);
        int8_t *to = (int8_t *)start + row;
        memset(scale, 0, 2 * row);
        memcpy(scale, l->scale, (size_t)l->o * sizeof *scale);
        memcpy(start, l->start, (size_t)l->o * sizeof *start);
        for (int p = 0; p < panels; p++)
            for (int ky = 0; ky < l->kh; ky++)
                for (int k = 0; k < depth; k += 4)
                    for (int j = 0; j < nr; j++)
                        for (int e = k; e < k + 4; e++, to++) {
                            int o = p * nr + j;
                            *to = o < l->o && e < run ? l->w[((ptrdiff_t)o * l->kh + ky) * run + e]
                                                      : (int8_t)0;
                        }
    }
    return UM_INT8_ALIGN + in + 2 * row + bytes;
}

UNCHECKED UM_INLINE void tile_run(const struct tile *t, const int M, const int NV)
{
    const struct gemm *g = t->g;
    const int8_t *b = t->b8;
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
            a[m] = t->a8[m * taps + tap];
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
                vi x = vi_set1(four);
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
        vf scale = vf_load(t->scale + v * VL), bias = vf_zero();
        if (g->bias) {
            int n = t->left - v * VL;
            const float *at = g->bias + t->col + v * VL;
            bias = n >= VL ? vf_load(at) : n > 0 ? vf_load_n(at, n) : bias;
        }
        UM_UNROLL
        for (int m = 0; m < M; m++)
            acc[m][v] = vf_fma(vf_of(sum[m][v]), scale, bias);
    }
    tile_store(t, acc, M, NV);
}

UM_TILES

void UM_NAME(gemm8_rows)(const struct gemm *g, const struct gemm8_rows *r, int rows, int panel0,
                         int panel1)
{
    int nr = um_gemm_nr(g->n), nv = nr / VL, strips = (rows + tile_rows[nv] - 1) / tile_rows[nv];
    int tall = strips ? rows % strips : 0, height = strips ? rows / strips : 0;
    const float *scale;
    const int32_t *start;
    const int8_t *b = panels_of(g, &scale, &start);
    struct tile t = {.g = g, .taps = r->taps, .depth = gemm8_depth(g->k / r->taps)};
    for (int p = panel0; p < panel1; p++) {
        t.b8 = b + (ptrdiff_t)p * nr * t.depth * t.taps;
        t.col = p * nr;
        t.left = g->n - t.col;
        t.scale = scale + t.col;
        t.start = start + t.col;
        for (int s = 0, row = 0; s < strips; s++) {
            int m = height + (s < tall);
            t.a8 = r->a + (ptrdiff_t)row * r->taps;
            t.c = r->c + row;
            t.add = r->add ? r->add + row : NULL;
            tiles[nv][m](&t);
            row += m;
        }
    }
}

UM_INLINE vi bytes_of(vf x, vf inv, vf zero) /* NaN: 0 */
{
    return vi_round(vf_min(vf_set1(255), vf_max(vf_fma(x, inv, zero), vf_zero())));
}

void UM_NAME(gemm8_quantise)(uint8_t *to, const float *x, ptrdiff_t ldx, int rows, int c,
                             const float *inv, int32_t zero)
{
    vf z = vf_set1((float)zero);
    for (int r = 0; r < rows; r++, to += c, x += ldx) {
        int i = 0;
        for (; i + VL <= c; i += VL)
            vi_store_u8(to + i, bytes_of(vf_load(x + i), vf_load(inv + i), z));
        if (i < c)
            vi_store_u8(to + i, bytes_of(vf_load_n(x + i, c - i), vf_load_n(inv + i, c - i), z));
    }
}

void UM_NAME(gemm8_read)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                         int panel1)
{
    enum { ROWS = 96, ROOM = 64 << 10 };
    uint8_t room[ROOM + VL];
    const uint8_t *at[ROWS];
    int run = g->k / r->taps, depth = gemm8_depth(run), row = depth * r->taps;
    int most = ROOM / row < ROWS ? ROOM / row : ROWS, blocks = (rows + most - 1) / most;
    struct gemm8_rows q = {.a = at, .taps = 1};
    const struct um_int8_head *head = g->b8;
    const float *inv = um_int8_inv(head); /* a row is one pixel */
    struct gemm whole = *g;
    whole.k = row;
    for (int i = 0; i < blocks; i++) {
        int r0 = split_at(rows, blocks, i), n = split_at(rows, blocks, i + 1) - r0;
        for (int j = 0; j < n; j++) {
            uint8_t *to = room + (ptrdiff_t)j * row;
            at[j] = to;
            for (int tap = 0; tap < r->taps; tap++)
                um_gemm8_quantise(to + (ptrdiff_t)tap * depth,
                                  r->a[(ptrdiff_t)(r0 + j) * r->taps + tap], 0, 1, run,
                                  inv + (ptrdiff_t)tap * run, head->zero);
        }
        q.c = r->c + r0;
        q.add = r->add ? r->add + r0 : NULL;
        um_gemm8_rows(&whole, &q, n, panel0, panel1);
    }
}
