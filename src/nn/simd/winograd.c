/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/simd/winograd.h"

#include "nn/simd/math.h"

enum {
    LEAST = 64,              /* channels on both sides: below, transforms cost what products save */
    MOST = 1024,             /* inputs, for which scratch has room */
    ROOM_FLOATS = 128 << 10, /* transformed inputs of an item: they stay in the L2 cache */
    MOST_TILES = 96,
    LEAST_TILES = 12
};

size_t UM_NAME(winograd_floats)(int o, int i)
{
    if (o < LEAST || i < LEAST || i > MOST || o % 16 || i % 16)
        return 0;
    return 16 * (size_t)um_gemm_panels(o) * (size_t)um_gemm_nr(o) * (size_t)i;
}

/* U = G w G^T in double, each of its 16 numbers in a matrix as um_gemm_pack() has it. */
void UM_NAME(winograd_pack)(float *dst, const float *w, int o, int i)
{
    static const double G[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
    size_t floats = um_winograd_floats(o, i), one = floats / 16;
    int nr = um_gemm_nr(o);
    memset(dst, 0, floats * sizeof *dst);
    for (int r = 0; r < o; r++)
        for (int c = 0; c < i; c++) {
            const float *g = w + (ptrdiff_t)r * 9 * i + c;
            float *to = dst + ((ptrdiff_t)(r / nr) * i + c) * nr + r % nr;
            for (int a = 0; a < 4; a++)
                for (int b = 0; b < 4; b++, to += one) {
                    double sum = 0;
                    for (int k = 0; k < 9; k++)
                        sum += G[a][k / 3] * G[b][k % 3] * (double)g[(ptrdiff_t)k * i];
                    *to = (float)sum;
                }
        }
}

struct job {
    const struct um_call *call;
    const struct gemm *g;
    const float *u;
    int across, tiles, items, most; /* tiles of a row, all, and of one item at most */
};

/* B^T d B of 4x4 vectors. */
UM_INLINE void transform_input(vf d[4][4])
{
    UM_UNROLL
    for (int k = 0; k < 4; k++) {
        vf a = d[0][k], b = d[1][k], c = d[2][k], e = d[3][k];
        d[0][k] = a - c;
        d[1][k] = b + c;
        d[2][k] = c - b;
        d[3][k] = b - e;
    }
    UM_UNROLL
    for (int k = 0; k < 4; k++) {
        vf a = d[k][0], b = d[k][1], c = d[k][2], e = d[k][3];
        d[k][0] = a - c;
        d[k][1] = b + c;
        d[k][2] = c - b;
        d[k][3] = b - e;
    }
}

/* A^T m A: y[0..3] are the pixels (0,0), (0,1), (1,0), (1,1). */
UM_INLINE void transform_output(vf m[4][4], vf y[4])
{
    vf s[2][4];
    UM_UNROLL
    for (int k = 0; k < 4; k++) {
        s[0][k] = m[0][k] + m[1][k] + m[2][k];
        s[1][k] = m[1][k] - m[2][k] - m[3][k];
    }
    UM_UNROLL
    for (int k = 0; k < 2; k++) {
        y[2 * k] = s[k][0] + s[k][1] + s[k][2];
        y[2 * k + 1] = s[k][1] - s[k][2] - s[k][3];
    }
}

/* Tiles t0.. to v [16][n][c]. */
static void read_tiles(const struct job *j, float *v, int t0, int n)
{
    const struct um_view *x = &j->call->t[1];
    int c = x->c;
    ptrdiff_t one = (ptrdiff_t)n * c;
    for (int t = 0; t < n; t++, v += c) {
        int y0 = (t0 + t) / j->across * 2 - 1, x0 = (t0 + t) % j->across * 2 - 1;
        const float *at[16];
        for (int k = 0; k < 16; k++) {
            int y = y0 + k / 4, px = x0 + k % 4;
            bool inside = y >= 0 && y < x->h && px >= 0 && px < x->w;
            at[k] = inside ? um_view_at(x, (ptrdiff_t)y * x->w + px) : NULL;
        }
        for (int i = 0; i < c; i += VL) {
            vf d[4][4];
            UM_UNROLL
            for (int k = 0; k < 16; k++)
                d[k / 4][k % 4] = at[k] ? vf_load(at[k] + i) : vf_zero();
            transform_input(d);
            UM_UNROLL
            for (int k = 0; k < 16; k++)
                vf_store(v + k * one + i, d[k / 4][k % 4]);
        }
    }
}

/* Tiles t0.. of columns col.. from m [16][n][nr]. */
UM_INLINE void write_tiles(const struct job *j, const float *m, int t0, int n, int col, int nr,
                           enum um_act act)
{
    const struct gemm *g = j->g;
    const struct um_view *out = &j->call->t[0], *add = &j->call->t[4];
    ptrdiff_t one = (ptrdiff_t)n * nr;
    for (int t = 0; t < n; t++, m += nr) {
        int y0 = (t0 + t) / j->across * 2, x0 = (t0 + t) % j->across * 2;
        for (int i = 0; i < nr && col + i < g->n; i += VL) {
            vf d[4][4], y[4];
            UM_UNROLL
            for (int k = 0; k < 16; k++)
                d[k / 4][k % 4] = vf_load(m + k * one + i);
            transform_output(d, y);
            vf bias = g->bias ? vf_load(g->bias + col + i) : vf_zero();
            UM_UNROLL
            for (int k = 0; k < 4; k++) {
                if (y0 + k / 2 >= out->h || x0 + k % 2 >= out->w)
                    continue;
                ptrdiff_t at = (ptrdiff_t)(y0 + k / 2) * out->w + x0 + k % 2;
                vf r = y[k] + bias, plus = vf_zero();
                if (add->data)
                    plus = vf_load(um_view_at(add, at) + col + i);
                if (add->data && !g->add_last)
                    r += plus;
                r = um_activate(act, g->limit, r);
                if (g->lab_scale != 0)
                    r = vf_fma(r, vf_set1(g->lab_scale), vf_set1(g->lab_shift));
                if (add->data && g->add_last)
                    r += plus;
                vf_store(um_view_at(out, at) + col + i, r);
            }
        }
    }
}

static void tiles_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct gemm *g = j->g;
    int c = j->call->t[1].c, nr = um_gemm_nr(g->n), panels = um_gemm_panels(g->n);
    int t0 = split_at(j->tiles, j->items, item), n = split_at(j->tiles, j->items, item + 1) - t0;
    float *v = um_pool_scratch(j->call->pool, worker), *m = v + (ptrdiff_t)16 * j->most * c;
    ptrdiff_t one = (ptrdiff_t)panels * nr * c;
    read_tiles(j, v, t0, n);
    for (int p = 0; p < panels; p++) {
        for (int k = 0; k < 16; k++) {
            struct gemm product = {.b = j->u + k * one + (ptrdiff_t)p * nr * c, .k = c, .n = nr};
            um_gemm_block(&product, v + (ptrdiff_t)k * n * c, c, n, m + (ptrdiff_t)k * n * nr, nr,
                          NULL, 0, 0, 1);
        }
        switch (g->act) {
        case UM_ACT_NONE: write_tiles(j, m, t0, n, p * nr, nr, UM_ACT_NONE); break;
        case UM_ACT_SILU: write_tiles(j, m, t0, n, p * nr, nr, UM_ACT_SILU); break;
        default: write_tiles(j, m, t0, n, p * nr, nr, g->act); break;
        }
    }
}

bool UM_NAME(winograd)(const struct um_call *call, const struct gemm *g, const float *packed)
{
    const struct um_conv_args *a = call->args;
    const struct um_view *out = &call->t[0], *x = &call->t[1];
    if (a->kh != 3 || a->kw != 3 || a->stride != 1 || a->pad_top != 1 || a->pad_left != 1 ||
        a->add_up2 || g->narrow || out->h != x->h || out->w != x->w ||
        !um_winograd_floats(g->n, x->c))
        return false;
    struct job j = {.call = call, .g = g, .across = (out->w + 1) / 2};
    int threads = um_pool_threads(call->pool), room = ROOM_FLOATS / 16 / x->c;
    j.u = packed + (size_t)um_gemm_panels(g->n) * (size_t)um_gemm_nr(g->n) * 9 * (size_t)x->c;
    j.tiles = (out->h + 1) / 2 * j.across;
    j.most = room < LEAST_TILES ? LEAST_TILES : room > MOST_TILES ? MOST_TILES : room;
    if (threads > 1 && j.tiles / (4 * threads) < j.most)
        j.most = j.tiles / (4 * threads) < LEAST_TILES ? LEAST_TILES : j.tiles / (4 * threads);
    j.items = (j.tiles + j.most - 1) / j.most;
    um_pool_run(call->pool, j.items, tiles_item, &j);
    return true;
}
