/* SPDX-License-Identifier: Apache-2.0 */
/* What works on pixels one by one or in small neighbourhoods: memory's speed decides. A thread
 * takes 8 channels, in 16-byte pieces where the views allow; neighbouring threads take neighbouring
 * channels. */
#include "nn/cuda/pixel.h"

#include "nn/cuda/kernel.h"

#include <float.h>

enum { GROUP = 8 /* channels */, DW_THREADS = 128, THREADS = 256 };

/* Does the view give 8 channels in 16-byte pieces? */
DEVICE bool in_pieces(const um_gview &v, int n)
{
    return n == GROUP && v.vec >= (v.dtype == UM_F32 ? 4 : 8);
}

/* Channels col..col+n-1 of a row, and zeros, of any view. */
DEVICE void fetch_group(um_words to[2], const um_gview &v, int64_t row, int col, int n)
{
    if (in_pieces(v, n)) {
        fetch8(to, v.dtype, v.data, row * v.ld + col);
        return;
    }
    UNROLL
    for (int j = 0; j < GROUP; j++)
        to[j / 4].w[j % 4] = float_bits(j < n ? load(v, row, col + j) : 0);
}

DEVICE void unpack_group(const um_words from[2], const um_gview &v, int n, float x[GROUP])
{
    unpack8(from, in_pieces(v, n) ? v.dtype : UM_F32, x);
}

DEVICE void load_group(const um_gview &v, int64_t row, int col, int n, float x[GROUP])
{
    um_words u[2];
    fetch_group(u, v, row, col, n);
    unpack_group(u, v, n, x);
}

/* ---- depthwise convolution ---- */

/* SPAN pixels of row iy from ix on; for those outside some pixel of the edge. */
template <int DTYPE, int SPAN>
DEVICE void dw_fetch(um_words in[SPAN][2], const um_dwconv_vectors_args &a, int iy, int ix, int col)
{
    iy = iy < 0 ? 0 : iy < a.x.h ? iy : a.x.h - 1;
    UNROLL
    for (int j = 0; j < SPAN; j++) {
        int x = ix + j < 0 ? 0 : ix + j < a.x.w ? ix + j : a.x.w - 1;
        fetch8(in[j], DTYPE, a.x.data, (iy * a.x.w + x) * a.x.ld + col);
    }
}

/* acc += one row of taps. */
template <int DTYPE, int K, int S, int P>
DEVICE void dw_row(const um_dwconv_vectors_args &a, const um_words in[][2], int ky, int ix, int col,
                   float acc[P][GROUP])
{
    float w[K][GROUP];
    UNROLL
    for (int kx = 0; kx < K; kx++)
        load_floats(a.w + (ky * K + kx) * a.x.c + col, w[kx]);
    UNROLL
    for (int j = 0; j < (P - 1) * S + K; j++) {
        float v[GROUP];
        bool inside = ix + j >= 0 && ix + j < a.x.w;
        um_words u[2] = {in[j][0], in[j][DTYPE == UM_F32]};
        UNROLL
        for (int i = 0; i < 4; i++) {
            u[0].w[i] = inside ? u[0].w[i] : 0;
            u[1].w[i] = inside ? u[1].w[i] : 0;
        }
        unpack8(u, DTYPE, v);
        UNROLL
        for (int p = 0; p < P; p++)
            if (j - p * S >= 0 && j - p * S < K) {
                UNROLL
                for (int i = 0; i < GROUP; i++)
                    acc[p][i] += v[i] * w[j - p * S][i];
            }
    }
}

/* acc += the K x K taps of the P output pixels from x0, S input pixels apart. An input vector is
 * loaded once for all the outputs that see it. Short strips are of images that do not fill the
 * chip, where time is waiting: their loads run a row ahead. */
template <int DTYPE, int K, int S, int P>
DEVICE void dw_strip(const um_dwconv_vectors_args &a, int y, int x0, int col, float acc[P][GROUP])
{
    enum { SPAN = (P - 1) * S + K, AHEAD = P < 4 };
    int iy = y * S - a.pad_top, ix = x0 * S - a.pad_left;
    um_words in[1 + AHEAD][SPAN][2];
    if (AHEAD) {
        dw_fetch<DTYPE, SPAN>(in[0], a, iy, ix, col);
        UNROLL
        for (int ky = 0; ky < K; ky++) {
            if (ky + 1 < K)
                dw_fetch<DTYPE, SPAN>(in[(ky + 1) & AHEAD], a, iy + ky + 1, ix, col);
            if (iy + ky >= 0 && iy + ky < a.x.h)
                dw_row<DTYPE, K, S, P>(a, in[ky & AHEAD], ky, ix, col, acc);
        }
    } else {
        ROLL for (int ky = 0; ky < K; ky++)
        {
            if (iy + ky < 0 || iy + ky >= a.x.h)
                continue;
            dw_fetch<DTYPE, SPAN>(in[0], a, iy + ky, ix, col);
            dw_row<DTYPE, K, S, P>(a, in[0], ky, ix, col, acc);
        }
    }
}

/* Everything between accumulator and store. */
DEVICE void dw_finish(const um_dwconv_vectors_args &a, int y, int x, int col, int n, float v[GROUP])
{
    float residual[GROUP] = {0};
    int64_t pixel = (int64_t)y * a.out.w + x;
    if (a.add.data)
        load_group(a.add, a.add_up2 ? (int64_t)(y / 2) * (a.out.w / 2) + x / 2 : pixel, col, n,
                   residual);
    UNROLL
    for (int i = 0; i < GROUP; i++)
        v[i] += a.add_last ? 0 : residual[i];
    activate_all<GROUP>(a.act, a.limit, v, a.out.dtype == UM_F32);
    UNROLL
    for (int i = 0; i < GROUP; i++) {
        v[i] = a.lab_scale != 0 ? v[i] * a.lab_scale + a.lab_shift : v[i];
        v[i] += a.add_last ? residual[i] : 0;
    }
    store8(a.out, pixel, col, v, n);
}

/* The same for plain outputs, of a strip. */
template <class H, int P>
DEVICE void dw_finish_strip(const um_dwconv_vectors_args &a, int y, int x0, int col,
                            float acc[P][GROUP])
{
    UNROLL
    for (int p = 0; p < P; p++)
        if (x0 + p < a.out.w) {
            int pixel = y * a.out.w + x0 + p;
            um_words residual = halves_at(a.add, pixel * a.add.ld + col);
            *(um_words *)((uint16_t *)a.out.data + pixel * a.out.ld + col) =
                finish_halves<H>(a, residual, acc[p]);
        }
}

template <int K, int S, int P> DEVICE void dwconv(const um_dwconv_vectors_args &a)
{
    int item = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (item >= a.items)
        return;
    int col = item % a.groups * GROUP, x0 = item / a.groups % a.strips * P,
        y = item / a.groups / a.strips;
    float acc[P][GROUP] = {{0}};
    if (a.b)
        load_floats(a.b + col, acc[0]);
    UNROLL
    for (int p = 1; p < P; p++) {
        UNROLL
        for (int i = 0; i < GROUP; i++)
            acc[p][i] = acc[0][i];
    }
    if (a.x.dtype == UM_F32)
        dw_strip<UM_F32, K, S, P>(a, y, x0, col, acc);
    else if (a.x.dtype == UM_F16)
        dw_strip<UM_F16, K, S, P>(a, y, x0, col, acc);
    else
        dw_strip<UM_BF16, K, S, P>(a, y, x0, col, acc);
    if (a.plain) {
        if (a.out.dtype == UM_F16)
            dw_finish_strip<F16, P>(a, y, x0, col, acc);
        else
            dw_finish_strip<BF16, P>(a, y, x0, col, acc);
        return;
    }
    ROLL
    for (int p = 0; p < P && x0 + p < a.out.w; p++) {
        dw_finish(a, y, x0 + p, col, GROUP, acc[0]);
        UNROLL
        for (int k = 0; k + 1 < P; k++) { /* the next pixel moves up: acc stays in registers */
            UNROLL
            for (int i = 0; i < GROUP; i++)
                acc[k][i] = acc[k + 1][i];
        }
    }
}

KERNEL(um_dwconv_3s1_strip4, um_dwconv_vectors_args, a, DW_THREADS)
{
    dwconv<3, 1, 4>(a);
}

KERNEL(um_dwconv_3s1_strip2, um_dwconv_vectors_args, a, DW_THREADS)
{
    dwconv<3, 1, 2>(a);
}

KERNEL(um_dwconv_5s1_strip4, um_dwconv_vectors_args, a, DW_THREADS)
{
    dwconv<5, 1, 4>(a);
}

KERNEL(um_dwconv_5s1_strip2, um_dwconv_vectors_args, a, DW_THREADS)
{
    dwconv<5, 1, 2>(a);
}

KERNEL(um_dwconv_3s2_strip2, um_dwconv_vectors_args, a, DW_THREADS)
{
    dwconv<3, 2, 2>(a);
}

KERNEL(um_dwconv_5s2_strip2, um_dwconv_vectors_args, a, DW_THREADS)
{
    dwconv<5, 2, 2>(a);
}

/* Any size of kernel, any number of channels, any alignment: a strip is one pixel. */
KERNEL(um_dwconv_any, um_dwconv_vectors_args, a, DW_THREADS)
{
    int item = (int)(blockIdx.x * blockDim.x + threadIdx.x), c = a.x.c;
    if (item >= a.items)
        return;
    int col = item % a.groups * GROUP, x = item / a.groups % a.strips,
        y = item / a.groups / a.strips, n = c - col < GROUP ? c - col : GROUP;
    float acc[GROUP] = {0};
    UNROLL
    for (int i = 0; i < GROUP; i++)
        acc[i] = a.b && i < n ? a.b[col + i] : 0;
    for (int ky = 0; ky < a.kh; ky++)
        for (int kx = 0; kx < a.kw; kx++) {
            int iy = y * a.stride - a.pad_top + ky, ix = x * a.stride - a.pad_left + kx;
            float v[GROUP];
            if (iy < 0 || iy >= a.x.h || ix < 0 || ix >= a.x.w)
                continue;
            load_group(a.x, (int64_t)iy * a.x.w + ix, col, n, v);
            const float *w = a.w + (int64_t)(ky * a.kw + kx) * c + col;
            UNROLL
            for (int i = 0; i < GROUP; i++)
                acc[i] += i < n ? v[i] * w[i] : 0;
        }
    dw_finish(a, y, x, col, n, acc);
}

/* ---- element by element ---- */

/* What a thread of the kernels below works on: n channels from col of a row. */
struct place {
    int row, col, n;
};

DEVICE place place_of(int item, int groups, int c)
{
    place p = {item / groups, item % groups * GROUP, GROUP};
    p.n = c - p.col < GROUP ? c - p.col : GROUP;
    return p;
}

KERNEL(um_add_vectors, um_add_vectors_args, a, THREADS)
{
    int item = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (item >= a.items)
        return;
    place p = place_of(item, a.groups, a.out.c);
    int row = a.one_row ? 0 : p.row;
    float x[GROUP], y[GROUP];
    um_words u[2];
    fetch_group(u, a.a, p.row, p.col, p.n);
    if (a.one_channel) {
        float v = load(a.b, row, 0);
        UNROLL
        for (int i = 0; i < GROUP; i++)
            y[i] = v;
    } else {
        load_group(a.b, row, p.col, p.n, y);
    }
    unpack_group(u, a.a, p.n, x);
    UNROLL
    for (int i = 0; i < GROUP; i++)
        x[i] += y[i];
    activate_all<GROUP>(a.act, a.limit, x, a.out.dtype == UM_F32);
    store8(a.out, p.row, p.col, x, p.n);
}

KERNEL(um_maxpool2_vectors, um_maxpool2_vectors_args, a, THREADS)
{
    int item = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (item >= a.items)
        return;
    place p = place_of(item, a.groups, a.out.c);
    int y = p.row / a.out.w, x = p.row % a.out.w;
    float top[GROUP];
    um_words in[4][2];
    UNROLL
    for (int k = 0; k < 4; k++) { /* outside: a pixel of the edge, made zero below */
        int iy = y + k / 2 < a.x.h ? y + k / 2 : y, ix = x + k % 2 < a.x.w ? x + k % 2 : x;
        fetch_group(in[k], a.x, (int64_t)iy * a.x.w + ix, p.col, p.n);
    }
    UNROLL
    for (int i = 0; i < GROUP; i++)
        top[i] = -FLT_MAX;
    UNROLL
    for (int k = 0; k < 4; k++) {
        float v[GROUP];
        bool inside = y + k / 2 < a.x.h && x + k % 2 < a.x.w;
        unpack_group(in[k], a.x, p.n, v);
        UNROLL
        for (int i = 0; i < GROUP; i++) {
            v[i] = inside ? v[i] : 0;
            top[i] = v[i] > top[i] || v[i] != v[i] ? v[i] : top[i]; /* NaN wins */
        }
    }
    store8(a.out, p.row, p.col, top, p.n);
}

KERNEL(um_scale_rows_vectors, um_scale_rows_vectors_args, a, THREADS)
{
    int item = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (item >= a.items)
        return;
    place p = place_of(item, a.groups, a.out.c);
    float x[GROUP], m;
    um_words u[2];
    fetch_group(u, a.x, p.row, p.col, p.n);
    m = load(a.m, p.row, 0);
    unpack_group(u, a.x, p.n, x);
    UNROLL
    for (int i = 0; i < GROUP; i++)
        x[i] *= m;
    store8(a.out, p.row, p.col, x, p.n);
}

KERNEL(um_gather_vectors, um_gather_vectors_args, a, THREADS)
{
    int item = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (item >= a.items)
        return;
    place p = place_of(item, a.groups, a.out.c);
    float x[GROUP];
    load_group(a.x, a.index[(int64_t)p.row * a.step], p.col, p.n, x);
    store8(a.out, p.row, p.col, x, p.n);
}
