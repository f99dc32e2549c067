/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution, channels in the lanes. A tile is P neighbouring pixels: every input vector
 * is loaded once and feeds the up to kw pixels that see it, so a 3x3 tile of 8 pixels takes 39
 * loads for 72 FMAs. Channels run innermost: reads are contiguous. */
#include "nn/simd/dw.h"

#include "nn/simd/conv.h"
#include "nn/simd/gemm.h"

enum { P_MAX = 8, K_MAX = 5 };

/* P pixels from x0, all taps inside the row; n lanes from channel i. KH 0: d->kh rows, some of them
 * padding. */
UM_INLINE void dw_tile(const struct dw_row *d, float *y, int x0, int i, int n, const int P,
                       const int KH, const int KW, const int S)
{
    vf acc[P_MAX];
    vf start = d->bias ? n == VL ? vf_load(d->bias + i) : vf_load_n(d->bias + i, n) : vf_zero();
    UM_UNROLL
    for (int p = 0; p < P; p++)
        acc[p] = start;
    ptrdiff_t first = ((ptrdiff_t)x0 * S - d->pad_left) * d->ldx + i;
    const float *w = d->w + i;
    for (int ky = 0; ky < (KH ? KH : d->kh); ky++, w += KW * d->ldw) {
        const float *x = d->in[ky];
        if (!KH && !x)
            continue;
        x += first;
        vf wv[K_MAX];
        UM_UNROLL
        for (int kx = 0; kx < KW; kx++)
            wv[kx] = n == VL ? vf_load(w + kx * d->ldw) : vf_load_n(w + kx * d->ldw, n);
        UM_UNROLL
        for (int j = 0; j < (P - 1) * S + KW; j++) {
            vf v = n == VL ? vf_load(x) : vf_load_n(x, n);
            VF_KEEP(v);
            x += d->ldx;
            UM_UNROLL
            for (int p = 0; p < P; p++)
                if (j - p * S >= 0 && j - p * S < KW)
                    acc[p] = vf_fma(v, wv[j - p * S], acc[p]);
        }
    }
    y += i;
    UM_UNROLL
    for (int p = 0; p < P; p++, y += d->ldy)
        if (n == VL)
            vf_store(y, acc[p]);
        else
            vf_store_n(y, acc[p], n);
}

UM_INLINE void dw_tiles(const struct dw_row *d, float *y, int x0, const int P, const int KH,
                        const int KW, const int S)
{
    int i = 0;
    for (; i + VL <= d->c; i += VL)
        dw_tile(d, y, x0, i, VL, P, KH, KW, S);
    if (i < d->c)
        dw_tile(d, y, x0, i, d->c - i, P, 0, KW, S);
}

/* One pixel, any kernel, taps beyond the row skipped. */
static void dw_edge(const struct dw_row *d, float *y, int x0)
{
    int ix = x0 * d->stride - d->pad_left;
    for (int i = 0; i < d->c; i += VL) {
        int n = d->c - i < VL ? d->c - i : VL;
        vf acc = d->bias ? vf_load_n(d->bias + i, n) : vf_zero();
        for (int ky = 0; ky < d->kh; ky++)
            for (int kx = 0; kx < d->kw; kx++)
                if (d->in[ky] && ix + kx >= 0 && ix + kx < d->width)
                    acc = vf_fma(vf_load_n(d->in[ky] + (ix + kx) * d->ldx + i, n),
                                 vf_load_n(d->w + (ky * d->kw + kx) * d->ldw + i, n), acc);
        vf_store_n(y + i, acc, n);
    }
}

UM_INLINE void dw_inner(const struct dw_row *from, float *y, int x0, int x1, const int KH,
                        const int KW, const int S)
{
    struct dw_row copy = *from, *d = &copy; /* stores to y cannot change it */
    int x = x0;
    for (; x + P_MAX <= x1; x += P_MAX)
        dw_tiles(d, y + (x - x0) * d->ldy, x, P_MAX, KH, KW, S);
    for (; x + 2 <= x1; x += 2)
        dw_tiles(d, y + (x - x0) * d->ldy, x, 2, 0, KW, S);
    for (; x < x1; x++)
        dw_tiles(d, y + (x - x0) * d->ldy, x, 1, 0, KW, S);
}

#define DW_INNER(k, s)                                                               \
    static void dw_inner_##k##_##s(const struct dw_row *d, float *y, int x0, int x1) \
    {                                                                                \
        bool whole = d->kh == k;                                                     \
        for (int ky = 0; ky < d->kh; ky++)                                           \
            whole = whole && d->in[ky];                                              \
        if (whole)                                                                   \
            dw_inner(d, y, x0, x1, k, k, s);                                         \
        else                                                                         \
            dw_inner(d, y, x0, x1, 0, k, s);                                         \
    }
DW_INNER(3, 1)
DW_INNER(3, 2)
DW_INNER(5, 1)
DW_INNER(5, 2)

void UM_NAME(dw_row)(const struct dw_row *d, float *y, int x0, int x1)
{
    /* Output pixels lo..hi-1 see no padding on the left or right. */
    int lo = (d->pad_left + d->stride - 1) / d->stride, hi = d->width + d->pad_left - d->kw;
    hi = hi < 0 ? 0 : hi / d->stride + 1;
    bool known = (d->kw == 3 || d->kw == 5) && (d->stride == 1 || d->stride == 2);
    if (lo < x0)
        lo = x0;
    if (hi > x1)
        hi = x1;
    if (!known || lo >= hi)
        lo = hi = x1;
    for (int x = x0; x < lo; x++)
        dw_edge(d, y + (x - x0) * d->ldy, x);
    if (lo < hi) {
        float *at = y + (lo - x0) * d->ldy;
        if (d->kw == 3)
            (d->stride == 1 ? dw_inner_3_1 : dw_inner_3_2)(d, at, lo, hi);
        else
            (d->stride == 1 ? dw_inner_5_1 : dw_inner_5_2)(d, at, lo, hi);
    }
    for (int x = hi; x < x1; x++)
        dw_edge(d, y + (x - x0) * d->ldy, x);
}

struct job {
    const struct um_call *call;
    int bands;
};

static void dw_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_conv_args *a = j->call->args;
    const struct um_view *t = j->call->t, *out = &t[0], *in = &t[1], *add = &t[4];
    struct gemm g = {.act = a->act,
                     .limit = a->limit,
                     .lab_scale = a->lab_scale,
                     .lab_shift = a->lab_shift,
                     .add_last = a->add_last};
    const float *rows[64];
    struct dw_row d = {.in = rows,
                       .ldx = in->ld,
                       .ldy = out->ld,
                       .w = t[2].data,
                       .ldw = out->c,
                       .bias = t[3].data,
                       .kh = a->kh,
                       .kw = a->kw,
                       .stride = a->stride,
                       .pad_left = a->pad_left,
                       .width = in->w,
                       .c = out->c};
    (void)worker;
    for (int y = split_at(out->h, j->bands, item); y < split_at(out->h, j->bands, item + 1); y++) {
        float *dst = um_view_at(out, um_view_row(out, y, 0));
        for (int ky = 0; ky < a->kh; ky++) {
            int iy = y * a->stride - a->pad_top + ky;
            rows[ky] = iy >= 0 && iy < in->h ? um_view_at(in, (ptrdiff_t)iy * in->w) : NULL;
        }
        for (int x = 0; x < out->w; x += P_MAX) {
            int x1 = x + P_MAX < out->w ? x + P_MAX : out->w;
            um_dw_row(&d, dst + x * out->ld, x, x1);
            for (int px = x; px < x1; px++) {
                float *to = dst + px * out->ld;
                ptrdiff_t at = a->add_up2 ? (ptrdiff_t)(y / 2) * (out->w / 2) + px / 2
                                          : um_view_row(out, y, px);
                const float *plus = add->data ? um_view_at(add, at) : NULL;
                if (plus && !a->add_last)
                    for (int i = 0; i < out->c; i++)
                        to[i] += plus[i];
                um_gemm_finish(&g, to, plus, out->c);
            }
        }
    }
}

void UM_NAME(dwconv)(const struct um_call *call)
{
    const struct um_conv_args *a = call->args;
    const struct um_view *out = &call->t[0];
    int64_t worth = (int64_t)out->h * out->w * out->c * a->kh * a->kw / 100000 + 1;
    int most = 8 * um_pool_threads(call->pool);
    struct job j = {call, (int)(worth < most ? worth : most)};
    if (j.bands > out->h)
        j.bands = out->h;
    um_pool_run(call->pool, j.bands, dw_item, &j);
}
