/* SPDX-License-Identifier: Apache-2.0 */
/* From the image to what the networks read. A pass of Pillow's bilinear resize is sums of int32
 * over taps, rounded to u8; a table then makes numbers of the bytes. */
#include "nn/cuda/front.h"

#include "nn/cuda/kernel.h"

#define UM_GAIN DEVICE
#include "nn/gain.h"

enum { THREADS = 256, ONE = 1 << 22 };

/* ---- one axis: a row of taps is first index, count, weights; NULL is the axis as it is ---- */

DEVICE const int32_t *taps_of(const int32_t *table, int ld, int i)
{
    return table ? table + (int64_t)i * ld : NULL;
}

DEVICE int first_of(const int32_t *table, int ld, int i)
{
    return table ? table[(int64_t)i * ld] : i;
}

DEVICE int end_of(const int32_t *table, int ld, int i)
{
    return table ? table[(int64_t)i * ld] + table[(int64_t)i * ld + 1] : i + 1;
}

DEVICE uint8_t clip(int32_t sum)
{
    sum >>= 22;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* dst = the taps' sum over pixels of C bytes that lie `step` apart, the first at src; TWICE: over the
 * results of another pass, whose first taps they are. */
template <int C, bool TWICE = false>
DEVICE void weigh(uint8_t *dst, const uint8_t *src, int64_t step, const int32_t *taps,
                  int64_t first_step = 0, const int32_t *first_taps = NULL)
{
    int32_t sum[C];
    int n = taps ? taps[1] : 1;
    UNROLL
    for (int o = 0; o < C; o++)
        sum[o] = ONE / 2;
    for (int j = 0; j < n; j++, src += step) {
        int32_t weight = taps ? taps[2 + j] : ONE;
        uint8_t u[C];
        if (TWICE)
            weigh<C>(u, src, first_step, first_taps);
        UNROLL
        for (int o = 0; o < C; o++)
            sum[o] += weight * (TWICE ? u[o] : src[o]);
    }
    UNROLL
    for (int o = 0; o < C; o++)
        dst[o] = clip(sum[o]);
}

KERNEL(um_resize_axis, um_resize_axis_args, a, THREADS)
{
    int c = a.x.c, i = (int)(blockIdx.x * blockDim.x + threadIdx.x), x = i / c, o = i % c;
    const int32_t *table = (const int32_t *)a.taps.data;
    if (x >= a.out.w)
        return;
    for (int y = (int)blockIdx.y; y < a.out.h; y += (int)gridDim.y) {
        const int32_t *k = table + (int64_t)(a.vertical ? y : x) * a.taps.ld;
        int64_t at = a.vertical ? (int64_t)k[0] * a.x.w + x : (int64_t)y * a.x.w + k[0];
        weigh<1>((uint8_t *)a.out.data + ((int64_t)y * a.out.w + x) * a.out.ld + o,
                 (const uint8_t *)a.x.data + at * a.x.ld + o,
                 (a.vertical ? (int64_t)a.x.w : 1) * a.x.ld, k);
    }
}

KERNEL(um_area_pixels, um_area_pixels_args, a, THREADS)
{
    int c = a.x.c, i = (int)(blockIdx.x * blockDim.x + threadIdx.x), x = i / c, o = i % c;
    if (x >= a.out.w)
        return;
    const float *kx = a.tx + (int64_t)x * a.kx;
    for (int y = (int)blockIdx.y; y < a.out.h; y += (int)gridDim.y) {
        const float *ky = a.ty + (int64_t)y * a.ky;
        float sum = 0;
        int fixed = 0;
        for (int j = 0; j < (int)ky[1]; j++) {
            const uint8_t *p = (const uint8_t *)a.x.data +
                               ((int64_t)((int)ky[0] + j) * a.x.w + (int)kx[0]) * a.x.ld + o;
            float line = 0;
            for (int k = 0; k < (int)kx[1]; k++, p += a.x.ld)
                line = add_rn(line, mul_rn((float)*p, kx[2 + k]));
            sum = add_rn(sum, mul_rn(line, ky[2 + j]));
            fixed += (int)ky[2 + j] * ((int)line >> 4) >> 16;
        }
        float v = mul_rn(sum, a.scale);
        v = a.half_up ? add_rn(v, 0.5f) : rintf(v);
        int u = a.linear ? (fixed + 2) >> 2 : v < 0 ? 0 : v > 255 ? 255 : (int)v;
        ((uint8_t *)a.out.data)[((int64_t)y * a.out.w + x) * a.out.ld + o] = (uint8_t)u;
    }
}

KERNEL(um_fir_axis, um_fir_axis_args, a, THREADS)
{
    int c = a.range ? a.out.c : a.out.c / 2, i = (int)(blockIdx.x * blockDim.x + threadIdx.x),
        x = i / c, o = i % c;
    const uint8_t *u = (const uint8_t *)a.x.data;
    const float *f = (const float *)a.x.data;
    if (x >= a.out.w)
        return;
    for (int y = (int)blockIdx.y; y < a.out.h; y += (int)gridDim.y) {
        const float *k = a.taps + (int64_t)(a.vertical ? y : x) * a.k;
        int64_t at = a.vertical ? (int64_t)(int)k[0] * a.x.w + x : (int64_t)y * a.x.w + (int)k[0];
        int64_t step = a.vertical ? (int64_t)a.x.w * c : c,
                to = ((int64_t)y * a.out.w + x) * c + o;
        at = at * c + o;
        double sum = 0;
        for (int j = 0; j < (int)k[1]; j++, at += step) {
            double v = a.x.dtype == UM_U8 ? (double)u[at]
                                          : add_rn((double)f[2 * at], (double)f[2 * at + 1]);
            sum = add_rn(sum, mul_rn(add_rn((double)k[2 + 2 * j], (double)k[3 + 2 * j]), v));
        }
        if (!a.range) {
            float *pair = (float *)a.out.data + 2 * to;
            pair[0] = (float)sum;
            pair[1] = (float)add_rn(sum, -(double)pair[0]);
            continue;
        }
        sum = sum < a.range[0] ? a.range[0] : sum > a.range[1] ? a.range[1] : sum;
        ((uint8_t *)a.out.data)[to] = (uint8_t)add_rn(sum, 1e-9);
    }
}

KERNEL(um_range_values, um_range_values_args, a, THREADS)
{
    int *range = (int *)shared_memory(), lo = 255, hi = 0;
    int64_t n = (int64_t)a.x.h * a.x.w;
    if (threadIdx.x == 0) {
        range[0] = 255;
        range[1] = 0;
    }
    sync();
    for (int64_t r = threadIdx.x; r < n; r += THREADS)
        for (int o = 0; o < a.x.c; o++) {
            int u = ((const uint8_t *)a.x.data)[r * a.x.ld + o];
            lo = u < lo ? u : lo;
            hi = u > hi ? u : hi;
        }
    atomic_min(range, lo);
    atomic_max(range + 1, hi);
    sync();
    if (threadIdx.x < 2)
        store(a.out, 0, threadIdx.x, (float)range[threadIdx.x]);
}

KERNEL(um_levels_table, um_levels_table_args, a, THREADS)
{
    float lo = a.range[0], span = a.range[1] - lo;
    for (int row = 0; row < a.out.w; row++)
        store(a.out, row, threadIdx.x, ((float)threadIdx.x - lo) / (span > 0 ? span : 1));
}

KERNEL(um_gain_tables, um_gain_tables_args, a, THREADS)
{
    uint32_t *count = (uint32_t *)shared_memory(), *told = count + 256;
    int t = (int)threadIdx.x, dy = um_gain_step(a.h), dx = um_gain_step(a.w);
    int across = (a.w - dx / 2 + dx - 1) / dx, down = (a.h - dy / 2 + dy - 1) / dy;
    count[t] = 0;
    sync();
    for (int k = t; k < across * down; k += THREADS) {
        int y = dy / 2 + k / across * dy, x = dx / 2 + k % across * dx;
        const uint8_t *v = a.x + ((int64_t)y * a.w + x) * a.c;
        atomic_add(count + (a.c == 1 ? v[0] : (v[0] + 2 * v[1] + v[2]) / 4), 1u);
    }
    sync();
    if (t == 0) {
        uint32_t now = um_gain_white(count), before = a.header->anew ? 0 : *a.state;
        *told = a.header->gain > 0 ? um_gain_back(a.header->gain)
                                   : um_gain_follow(before, now, a.smooth);
        *a.state = now ? *told : before;
        a.header->gain = um_gain_times(*told);
    }
    sync();
    int level = um_gain_level(*told, t);
    for (int i = 0; i < 2; i++)
        for (int o = 0; a.out[i].data && o < a.out[i].w; o++)
            store(a.out[i], o, t, load(a.base[i], o, level));
}

KERNEL(um_normalize_pixels, um_normalize_pixels_args, a, THREADS)
{
    int c = a.out.c, i = (int)(blockIdx.x * blockDim.x + threadIdx.x), x = i / c, o = i % c;
    if (x >= a.out.w)
        return;
    for (int y = (int)blockIdx.y; y < a.out.h; y += (int)gridDim.y) {
        float v = 0;
        if (y < a.x.h && x < a.x.w)
            v = load(a.lut, o,
                     ((const uint8_t *)a.x.data)[((int64_t)y * a.x.w + x) * a.x.ld +
                                                 (a.x.c == 1 ? 0 : o)]);
        store(a.out, (int64_t)y * a.out.w + x, o, v);
    }
}

/* ---- both passes and the table, tile by tile ---- */

/* The tile's w x h bytes from (x0, y0) on into `tile`, rows tile_w apart. */
template <int C>
DEVICE void resize_tile(uint8_t *tile, uint8_t *between, const um_gview &x,
                        const um_front_target_args &t, int x0, int y0, int w, int h)
{
    const uint8_t *src = (const uint8_t *)x.data;
    int64_t right = x.ld, down = (int64_t)x.w * x.ld;
    int left = first_of(t.tx, t.kx, x0), top = first_of(t.ty, t.ky, y0);
    int columns = end_of(t.tx, t.kx, x0 + w - 1) - left;
    int lines = end_of(t.ty, t.ky, y0 + h - 1) - top;
    int items = t.tile_w * h;
    if ((t.vertical_first ? h * columns : t.tile_w * lines) * C > t.between) {
        for (int i = threadIdx.x; i < items; i += THREADS) {
            int px = i % t.tile_w, py = i / t.tile_w;
            if (px >= w)
                continue;
            const int32_t *kx = taps_of(t.tx, t.kx, x0 + px), *ky = taps_of(t.ty, t.ky, y0 + py);
            const uint8_t *at = src + first_of(t.ty, t.ky, y0 + py) * down +
                                first_of(t.tx, t.kx, x0 + px) * right;
            if (t.vertical_first)
                weigh<C, true>(tile + i * C, at, right, kx, down, ky);
            else
                weigh<C, true>(tile + i * C, at, down, ky, right, kx);
        }
    } else if (t.vertical_first) {
        for (int i = threadIdx.x; i < h * columns; i += THREADS) {
            int y = y0 + i / columns;
            weigh<C>(between + i * C,
                     src + first_of(t.ty, t.ky, y) * down + (left + i % columns) * right, down,
                     taps_of(t.ty, t.ky, y));
        }
        sync();
        for (int i = threadIdx.x; i < items; i += THREADS) {
            int px = i % t.tile_w, py = i / t.tile_w, skip = 0;
            if (px >= w)
                continue;
            skip = first_of(t.tx, t.kx, x0 + px) - left;
            weigh<C>(tile + i * C, between + (py * columns + skip) * C, C,
                     taps_of(t.tx, t.kx, x0 + px));
        }
    } else { /* a thread has one column */
        enum { KEPT = 4 /* taps */ };
        int px = (int)threadIdx.x & (t.tile_w - 1), py = (int)threadIdx.x >> t.shift;
        int x_first = px < w ? first_of(t.tx, t.kx, x0 + px) : 0, rows = px < w ? lines : 0;
        const int32_t *kx = px < w ? taps_of(t.tx, t.kx, x0 + px) : NULL;
        const uint8_t *column = src + top * down + x_first * right;
        int32_t n = kx ? kx[1] : 1, weight[KEPT];
        UNROLL
        for (int j = 0; j < KEPT; j++)
            weight[j] = j >= n ? 0 : kx ? kx[2 + j] : ONE;
        for (int line = py; line < rows; line += THREADS >> t.shift) {
            const uint8_t *at = column + line * (int)down;
            uint8_t *to = between + ((line << t.shift) + px) * C;
            if (n > KEPT) {
                weigh<C>(to, at, right, kx);
                continue;
            }
            UNROLL
            for (int o = 0; o < C; o++) {
                int32_t sum = ONE / 2;
                UNROLL
                for (int j = 0; j < KEPT; j++)
                    sum += j < n ? weight[j] * at[j * (int)right + o] : 0;
                to[o] = clip(sum);
            }
        }
        sync();
        for (rows = px < w ? h : 0; py < rows; py += THREADS >> t.shift) {
            int line = first_of(t.ty, t.ky, y0 + py) - top;
            weigh<C>(tile + ((py << t.shift) + px) * C, between + ((line << t.shift) + px) * C,
                     t.tile_w * C, taps_of(t.ty, t.ky, y0 + py));
        }
    }
}

KERNEL(um_front_tiles, um_front_tiles_args, a, THREADS)
{
    const um_front_target_args &t = a.target[blockIdx.z];
    uint8_t *between = shared_memory(), *tile = between + t.between;
    int at = (int)blockIdx.x, x0 = at % t.tiles_x * t.tile_w, y0 = at / t.tiles_x * t.tile_h;
    if (at >= t.tiles)
        return;
    /* width and height of the image's part of the tile */
    int w = t.new_w - x0 < t.tile_w ? t.new_w - x0 : t.tile_w;
    int h = t.new_h - y0 < t.tile_h ? t.new_h - y0 : t.tile_h;
    if (w > 0 && h > 0) {
        if (a.x.c == 1)
            resize_tile<1>(tile, between, a.x, t, x0, y0, w, h);
        else
            resize_tile<3>(tile, between, a.x, t, x0, y0, w, h);
    }
    sync();
    int wide = (t.size_w - x0 < t.tile_w ? t.size_w - x0 : t.tile_w) * t.c, groups = (wide + 7) / 8;
    int high = t.size_h - y0 < t.tile_h ? t.size_h - y0 : t.tile_h;
    for (int i = threadIdx.x; i < groups * high; i += THREADS) {
        int py = i / groups, e = i % groups * 8, px = e / t.c, o = e % t.c;
        int n = wide - e < 8 ? wide - e : 8;
        float v[8];
        UNROLL
        for (int j = 0; j < 8; j++) {
            bool inside = px < w && py < h;
            int byte = (py * t.tile_w + px) * a.x.c + (a.x.c == 1 ? 0 : o);
            v[j] = inside ? t.lut[o * t.lut_ld + tile[byte]] : 0;
            if (!t.dense && j < n)
                store(t.out, (int64_t)(y0 + py) * t.size_w + x0 + px, o, v[j]);
            if (++o == t.c) {
                o = 0;
                px++;
            }
        }
        if (t.dense)
            store8(t.out, y0 + py, x0 * t.c + e, v, n);
    }
}
