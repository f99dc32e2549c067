/* SPDX-License-Identifier: Apache-2.0 */
/* The prompt's tokens; and from the decoder's logits to the mask, its weights and statistics, and
 * the packet. Masks are worked on as words of 32 pixels, pixel x = bit x % 32. */
#include "nn/cuda/mask.h"

#include "nn/cuda/kernel.h"
#include "nn/cuda/strip.h"

#define UM_CLEAN DEVICE
#define UM_CLEAN_TRAILING(v) (31 - leading_zeros((v) & (~(v) + 1)))
#define UM_CLEAN_LEADING(v) leading_zeros(v)
DEVICE uint32_t um_clean_lower(uint32_t *at, uint32_t v) /* no label that is one exceeds an int */
{
    return (uint32_t)atomic_min((int *)at, (int)v);
}
DEVICE void um_clean_add(uint32_t *at, uint32_t v)
{
    atomic_add(at, v);
}
DEVICE uint32_t um_clean_see(const uint32_t *at)
{
    return relaxed_load(at);
}
DEVICE void um_clean_set(uint32_t *at, uint32_t v)
{
    relaxed_store(at, v);
}
#include "nn/clean.h"

enum { TOKEN = 128, PIXELS = 256, THREADS = 32 * UM_MASK_WARPS };
enum {
    RECORD_WORDS = UM_RECORD_BYTES / 4,
    GATE_AT = offsetof(um_record, gate) / 4,
    IOU_AT = offsetof(um_record, iou) / 4,
    AREA_AT = offsetof(um_record, area_px) / 4,
    BOX_AT = offsetof(um_record, mask_box) / 4,
    X_AT = offsetof(um_record, sum_x) / 4,
    Y_AT = offsetof(um_record, sum_y) / 4,
    EDGE_AT = offsetof(um_record, edge_px) / 4,
    NONFINITE_AT = offsetof(um_record, nonfinite) / 4
};

DEVICE uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* ---- prompt ---- */

/* A coordinate of the image, whose size along this axis is `side`, on the canvas, in -1..1. The
 * scale in double, as um_longest_side() and um_ref_prompt(). */
DEVICE float on_canvas(float at, uint32_t side, uint32_t other, int canvas, int fit)
{
    double scale = (double)canvas / (int)(other > side ? other : side);
    int size = (int)add_rn(mul_rn((double)side, scale), 0.5);
    double where = fit == UM_FIT_RATIO     ? trunc(mul_rn((double)at, scale))
                   : fit == UM_FIT_STRETCH ? mul_rn((double)at / side, (double)canvas)
                                           : mul_rn((double)at, (double)size / side);
    float x = (float)where;
    return 2 * ((x + 0.5f) / (float)canvas) - 1;
}

KERNEL(um_prompt_rows, um_prompt_rows_args, a, TOKEN)
{
    enum { FIRST = 5, POINT = 5, CORNER = 7, NOT_A_POINT = 9 };
    const um_prompt &p = *a.prompt;
    int row = (int)blockIdx.x, i = row - FIRST, c = a.out.c, half = c / 2, base = NOT_A_POINT;
    const float *at = NULL; /* a position, in pixels of the image */
    if (row < FIRST) {
        base = row;
    } else if (i < a.points) {
        int label = p.label[i];
        if (label != -1) {
            at = p.xy + 2 * i;
            base = label == 0 || label == 1 ? POINT + label : -1;
        }
    } else if (a.box) {
        at = p.box + 2 * (i - a.points);
        base = CORNER + i - a.points;
    }
    const float *add = a.table + (base < 0 ? 0 : base) * c;
    if (!at) {
        for (int k = threadIdx.x; k < c; k += TOKEN)
            store(a.out, row, k, add[k]);
        return;
    }
    float *uv = (float *)shared_memory();
    if (threadIdx.x < 2) {
        uint32_t w = larger(p.width, 1), h = larger(p.height, 1);
        uv[threadIdx.x] = threadIdx.x ? on_canvas(at[1], h, w, a.canvas, a.fit)
                                      : on_canvas(at[0], w, h, a.canvas, a.fit);
    }
    sync();
    float u = uv[0], v = uv[1];
    for (int k = threadIdx.x; k < half; k += TOKEN) {
        float angle = 6.28318530717958648f *
                      add_rn(mul_rn(u, a.gauss[k]), mul_rn(v, a.gauss[half + k]));
        store(a.out, row, k, sinf(angle) + (base < 0 ? 0 : add[k]));
        store(a.out, row, half + k, cosf(angle) + (base < 0 ? 0 : add[half + k]));
    }
}

/* ---- mask ---- */

/* In the order of um_ref_mask(): equal logits give equal masks. */
DEVICE float blend(const float w[3], const float v[3])
{
    return fmaf(w[2], v[2], fmaf(w[1], v[1], w[0] * v[0]));
}

DEVICE float across(const um_gview &low, int row, int col, const float w[3])
{
    int64_t at = (int64_t)row * low.w + col;
    float v[3];
    UNROLL
    for (int k = 0; k < 3; k++)
        v[k] = load(low, at + k, 0);
    return blend(w, v);
}

/* The first index, and three weights. */
DEVICE int taps_of(const um_gview &table, int i, float w[3])
{
    const float *k = (const float *)table.data + (int64_t)i * table.ld;
    UNROLL
    for (int j = 0; j < 3; j++)
        w[j] = k[1 + j];
    return (int)k[0];
}

KERNEL(um_mask_pixels, um_mask_pixels_args, a, PIXELS)
{
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x), w = a.mask.w;
    bool visible = !a.gate || a.gate->flags == UM_GATE_OK;
    float wx[3], wy[3], r[3];
    if (x >= w)
        return;
    int col = taps_of(a.tx, x, wx);
    for (int y = (int)blockIdx.y; y < a.mask.h; y += (int)gridDim.y) {
        int row = taps_of(a.ty, y, wy);
        UNROLL
        for (int k = 0; k < 3; k++)
            r[k] = across(a.low, row + k, col, wx);
        float v = blend(wy, r);
        int64_t at = (int64_t)y * w + x;
        ((uint8_t *)a.mask.data)[at * a.mask.ld] = visible && v > 0;
        if (a.logits.data)
            store(a.logits, at, 0, v);
    }
}

/* ---- counts ---- */

DEVICE void count(uint32_t n[UM_COUNTS], const um_strip &s, int y, int i, const um_weights &v)
{
    uint32_t m = v.mask, area = (uint32_t)popcount(m);
    n[UM_COUNT_EDGE] += (uint32_t)popcount(v.edge);
    n[UM_COUNT_IN] += (uint32_t)popcount(v.in);
    n[UM_COUNT_OUT] += (uint32_t)popcount(v.out);
    if (!m)
        return;
    int first = 31 - leading_zeros(m & (~m + 1)), end = 32 - leading_zeros(m);
    /* the sum of the bits' numbers, one binary digit of them at a time */
    int places = popcount(m & 0xaaaaaaaau) + 2 * popcount(m & 0xccccccccu) +
                 4 * popcount(m & 0xf0f0f0f0u) + 8 * popcount(m & 0xff00ff00u) +
                 16 * popcount(m & 0xffff0000u);
    n[UM_COUNT_LEFT] = larger(n[UM_COUNT_LEFT], (uint32_t)(s.w - 32 * i - first));
    n[UM_COUNT_TOP] = larger(n[UM_COUNT_TOP], (uint32_t)(s.h - y));
    n[UM_COUNT_RIGHT] = larger(n[UM_COUNT_RIGHT], (uint32_t)(32 * i + end));
    n[UM_COUNT_BOTTOM] = larger(n[UM_COUNT_BOTTOM], (uint32_t)(y + 1));
    n[UM_COUNT_AREA] += area;
    n[UM_COUNT_X] += 32 * (uint32_t)i * area + (uint32_t)places;
    n[UM_COUNT_Y] += (uint32_t)y * area;
}

/* Count q of two parts together. */
DEVICE uint64_t joined(int q, uint64_t a, uint64_t b)
{
    return q > UM_COUNT_BOTTOM ? a + b : a > b ? a : b;
}

/* The block's count number threadIdx.x, for the first UM_COUNTS threads. Sums of a band fit 32 bits
 * within a warp. */
DEVICE uint64_t block_count(const uint32_t n[UM_COUNTS], uint32_t *partial)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, q = threadIdx.x;
    UNROLL
    for (int k = 0; k < UM_COUNTS; k++) {
        uint32_t v = n[k];
        UNROLL
        for (int m = 16; m; m >>= 1) {
            uint32_t other = shfl_xor(v, m);
            v = k <= UM_COUNT_BOTTOM ? larger(v, other) : v + other;
        }
        if (lane == 0)
            partial[warp * UM_COUNTS + k] = v;
    }
    sync();
    uint64_t total = 0;
    for (int k = 0; k < UM_MASK_WARPS && q < UM_COUNTS; k++)
        total = joined(q, total, partial[k * UM_COUNTS + q]);
    return total;
}

/* Count q of the whole mask goes to its place in the record. */
DEVICE void put(uint32_t *record, int q, uint64_t total, int h, int w)
{
    if (q == UM_COUNT_LEFT || q == UM_COUNT_TOP)
        total = total ? (uint64_t)(q == UM_COUNT_LEFT ? w : h) - total : 0;
    int at = q <= UM_COUNT_BOTTOM  ? BOX_AT + q
             : q == UM_COUNT_AREA  ? AREA_AT
             : q == UM_COUNT_X     ? X_AT
             : q == UM_COUNT_Y     ? Y_AT
                                   : EDGE_AT + q - UM_COUNT_EDGE;
    record[at] = (uint32_t)total;
    if (q == UM_COUNT_X || q == UM_COUNT_Y)
        record[at + 1] = (uint32_t)(total >> 32);
}

/* How many of the numbers first, first + step, … are NaN or infinite. */
DEVICE uint32_t count_nonfinite(const um_gview &v, int first, int step)
{
    uint32_t n = 0;
    for (int i = first; i < v.h * v.w * v.c; i += step)
        n += (float_bits(load(v, i / v.c, i % v.c)) & 0x7f800000u) == 0x7f800000u;
    return n;
}

KERNEL(um_mask_planes, um_mask_planes_args, a, THREADS)
{
    int words = (a.w + 31) / 32, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, q = threadIdx.x;
    int rows = a.band + 2 * UM_HALO, plane = a.band * words;
    uint32_t *bits = (uint32_t *)shared_memory(), *planes = bits + rows * words,
             *partial = planes + 3 * plane;
    uint64_t total = 0;
    um_strip s = {bits, 0, a.h, a.w, words};
    for (; s.y0 < a.h; s.y0 += a.band) {
        uint32_t n[UM_COUNTS] = {0};
        for (int k = warp; k < rows * words; k += UM_MASK_WARPS) {
            int y = s.y0 - UM_HALO + k / words, x = k % words * 32 + lane;
            bool in = y >= 0 && y < a.h && x < a.w;
            uint32_t v = warp_ballot(in && a.mask[in ? (int64_t)y * a.w + x : 0]);
            if (lane == 0)
                bits[k] = v;
        }
        sync();
        for (int k = threadIdx.x; k < plane && s.y0 + k / words < a.h; k += THREADS) {
            int y = s.y0 + k / words, i = k % words;
            um_weights v = weights_of(s, y, i);
            count(n, s, y, i, v);
            planes[k] = v.edge;
            planes[plane + k] = v.in;
            planes[2 * plane + k] = v.out;
        }
        total = joined(q, total, block_count(n, partial));
        for (int k = warp; k < 3 * plane; k += UM_MASK_WARPS) {
            int y = s.y0 + k % plane / words, x = k % words * 32 + lane;
            if (y < a.h && x < a.w)
                a.weights[((int64_t)k / plane * a.h + y) * a.w + x] = planes[k] >> lane & 1;
        }
        sync();
    }
    for (int k = threadIdx.x; k < RECORD_WORDS; k += THREADS)
        if (k < AREA_AT || k > NONFINITE_AT)
            a.record[k] = 0;
    if (q < UM_COUNTS)
        put(a.record, q, total, a.h, a.w);
}

/* ---- packet ---- */

/* Word k of the record: what is known without the mask, else `v`. */
template <class ARGS> DEVICE uint32_t record_word(const ARGS &a, int k, bool visible, uint32_t v)
{
    if (k < GATE_AT)
        return a.header[k];
    if (k < IOU_AT && a.gate)
        return a.gate[k - GATE_AT];
    return k == IOU_AT && visible && a.iou.data ? float_bits(load(a.iou, 0, 0)) : v;
}

KERNEL(um_packet_words, um_packet_words_args, a, THREADS)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, words = (a.w + 31) / 32;
    if (blockIdx.x > 0) {
        int64_t k = (int64_t)(blockIdx.x - 1) * UM_MASK_WARPS + warp, y = k / words;
        int x = (int)(k % words) * 32 + lane;
        bool in = y < a.h && x < a.w;
        uint32_t v = warp_ballot(in && a.mask[in ? y * a.w + x : 0]);
        if (lane == 0 && y < a.h)
            a.packet[RECORD_WORDS + k] = v;
        return;
    }
    uint32_t *partial = (uint32_t *)shared_memory(), n[UM_COUNTS] = {0};
    bool visible = !a.gate || a.gate[0] == UM_GATE_OK;
    if (visible && a.low.data)
        n[UM_COUNT_NONFINITE] = count_nonfinite(a.low, (int)threadIdx.x, THREADS);
    uint64_t total = block_count(n, partial);
    for (int k = threadIdx.x; k < RECORD_WORDS; k += THREADS)
        if (k != NONFINITE_AT || !visible || !a.low.data)
            a.packet[k] = record_word(a, k, visible, a.stats[k]);
    if (threadIdx.x == UM_COUNT_NONFINITE && visible && a.low.data)
        a.packet[NONFINITE_AT] = (uint32_t)total;
}

/* Column i of a strip's words, pixel by pixel from the logits; one warp. From row to row of the
 * image the three rows of logits stay, or move on by one. */
DEVICE void upsample(uint32_t *bits, const um_mask_packet_bands_args &a, const um_strip &s, int i)
{
    int lane = threadIdx.x & 31, x = 32 * i + lane, have = -2;
    float wx[3], wy[3], r[3] = {0, 0, 0};
    int col = taps_of(a.tx, x < a.w ? x : a.w - 1, wx);
    for (int k = 0; k < a.band + 2 * UM_HALO; k++) {
        int y = s.y0 - UM_HALO + k;
        float v = 0;
        if (y >= 0 && y < a.h) {
            int row = taps_of(a.ty, y, wy);
            if (row == have + 1) {
                r[0] = r[1];
                r[1] = r[2];
                r[2] = across(a.low, row + 2, col, wx);
            } else if (row != have) {
                UNROLL
                for (int j = 0; j < 3; j++)
                    r[j] = across(a.low, row + j, col, wx);
            }
            have = row;
            v = blend(wy, r);
        }
        uint32_t word = warp_ballot(v > 0 && x < a.w);
        if (lane == 0)
            bits[k * s.words + i] = word;
    }
}

KERNEL(um_mask_packet_bands, um_mask_packet_bands_args, a, THREADS)
{
    int words = (a.w + 31) / 32, rows = a.band + 2 * UM_HALO, q = threadIdx.x;
    uint32_t *bits = (uint32_t *)shared_memory(), *partial = bits + rows * words,
             *last = partial + UM_MASK_WARPS * UM_COUNTS, n[UM_COUNTS] = {0};
    bool visible = !a.gate || a.gate[0] == UM_GATE_OK;
    um_strip s = {bits, (int)blockIdx.x * a.band, a.h, a.w, words};
    if (visible) {
        for (int i = threadIdx.x >> 5; i < words; i += UM_MASK_WARPS)
            upsample(bits, a, s, i);
        n[UM_COUNT_NONFINITE] = count_nonfinite(a.low, (int)(blockIdx.x * THREADS + threadIdx.x),
                                                (int)gridDim.x * THREADS);
    } else {
        for (int k = threadIdx.x; k < rows * words; k += THREADS)
            bits[k] = 0;
    }
    sync();
    for (int k = threadIdx.x; k < a.band * words && s.y0 + k / words < a.h; k += THREADS) {
        int y = s.y0 + k / words, i = k % words;
        um_weights v = weights_of(s, y, i);
        count(n, s, y, i, v);
        a.packet[RECORD_WORDS + (int64_t)y * words + i] = v.mask;
    }
    uint64_t total = block_count(n, partial), *work = a.work;
    if (q <= UM_COUNT_BOTTOM)
        atomic_max(work + q, total);
    else if (q < UM_COUNTS)
        atomic_add(work + q, total);
    fence();
    sync();
    if (q == 0)
        *last = atomic_add(work + UM_COUNTS, (uint64_t)1) + 1 == gridDim.x;
    sync();
    if (!*last)
        return;
    fence();
    if (q < UM_COUNTS) {
        put(a.packet, q, atomic_add(work + q, (uint64_t)0), a.h, a.w);
        work[q] = 0;
    } else if (q == UM_COUNTS) {
        work[q] = 0;
    }
    for (int k = threadIdx.x; k < RECORD_WORDS; k += THREADS)
        if (k < AREA_AT || k > NONFINITE_AT)
            a.packet[k] = record_word(a, k, visible, 0);
}

/* ---- clean ---- */

/* Where runs begin in word i of row y. */
DEVICE uint32_t begins(const um_clean_field &f, int y, int i)
{
    uint32_t v = um_clean_word(&f, y, i);
    return v & ~(v << 1 | (32 * i > f.x0 ? um_clean_word(&f, y, i - 1) >> 31 : 0));
}

/* Labels of a field, and if asked for the area of its largest piece that counts. */
DEVICE void gather(const um_clean_field &f, uint32_t *label, int *largest)
{
    int phases = UM_CLEAN_PHASES + (largest != NULL), first = f.x0 / 32, across = (f.x1 + 31) / 32 - first, n = across * (f.y1 - f.y0);
    ROLL
    for (int phase = UM_CLEAN_BEGIN; phase < phases; phase++) {
        for (int k = threadIdx.x; k < n; k += THREADS) {
            int y = f.y0 + k / across, i = first + k % across;
            for (uint32_t at = begins(f, y, i); at; at &= at - 1) {
                int x = 32 * i + UM_CLEAN_TRAILING(at);
                if (phase < UM_CLEAN_PHASES)
                    um_clean_visit(&f, label, (um_clean_phase)phase, y, x);
                else if (uint32_t area = um_clean_area(&f, label, y, x))
                    atomic_max(largest, (int)area);
            }
        }
        sync();
    }
}

/* The chosen pixels, alone or beside what is set. Returns how many this thread changed. */
DEVICE uint32_t choose(uint32_t *out, const um_clean_field &f, const uint32_t *label,
                       uint32_t largest)
{
    int first = f.x0 / 32, across = (f.x1 + 31) / 32 - first, n = across * (f.y1 - f.y0);
    uint32_t changed = 0;
    for (int k = threadIdx.x; k < n; k += THREADS) {
        int y = f.y0 + k / across, i = first + k % across;
        int64_t at = (int64_t)y * f.words + i;
        uint32_t was = f.bits[at], is = um_clean_choose(&f, label, largest, y, i);
        is = f.flip ? was | is : is;
        out[at] = is;
        changed += (uint32_t)popcount(is ^ was);
    }
    return changed;
}

/* The record's statistics of a mask whose pixels lie in rows y0..y1-1. */
DEVICE void measure(um_record *packet, const uint32_t *bits, const um_clean_mask_args &a, int y0,
                    int y1)
{
    int words = um_clean_words(a.w), rows = a.band + 2 * UM_HALO, q = threadIdx.x;
    uint32_t *band = (uint32_t *)shared_memory(), *partial = band + rows * words;
    uint64_t total = 0;
    um_strip s = {band, y0 > UM_HALO ? y0 - UM_HALO : 0, a.h, a.w, words};
    for (; s.y0 < y1 + UM_HALO && s.y0 < a.h; s.y0 += a.band) {
        uint32_t n[UM_COUNTS] = {0};
        sync();
        for (int k = threadIdx.x; k < rows * words; k += THREADS) {
            int y = s.y0 - UM_HALO + k / words;
            bool in = y >= 0 && y < a.h;
            band[k] = in ? bits[(int64_t)y * words + k % words] : 0;
        }
        sync();
        for (int k = threadIdx.x; k < a.band * words && s.y0 + k / words < a.h; k += THREADS) {
            int y = s.y0 + k / words, i = k % words;
            count(n, s, y, i, weights_of(s, y, i));
        }
        total = joined(q, total, block_count(n, partial));
    }
    if (q < UM_COUNT_NONFINITE)
        put((uint32_t *)packet, q, total, a.h, a.w);
}

KERNEL(um_clean_mask, um_clean_mask_args, a, THREADS)
{
    um_record *packet = a.packet;
    uint32_t *bits = (uint32_t *)(packet + 1), *told = (uint32_t *)shared_memory();
    bool any = packet->area_px > 0;
    if (threadIdx.x < 3)
        told[threadIdx.x] = 0;
    sync();
    uint32_t removed = 0, filled = 0;
    um_clean_field f = um_clean_pieces(packet, a.gate, bits, a.h, a.w);
    if (any) {
        gather(f, a.label, (int *)told);
        uint32_t largest = told[0];
        removed = choose(a.kept, f, a.label, largest);
        sync();
        f = um_clean_holes(&f, a.kept);
        gather(f, a.label, NULL);
        filled = choose(bits, f, a.label, largest);
    }
    if (removed)
        atomic_add(told + 1, removed);
    if (filled)
        atomic_add(told + 2, filled);
    sync();
    removed = told[1];
    filled = told[2];
    sync();
    if (threadIdx.x == 0) {
        packet->removed_px = removed;
        packet->filled_px = filled;
    }
    if (removed || filled)
        measure(packet, bits, a, f.y0, f.y1);
}
