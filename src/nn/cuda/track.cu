/* SPDX-License-Identifier: Apache-2.0 */
/* Contact with the probe, prompts without a detector, and scores of masks. All sums are of whole
 * numbers, so that their order does not matter: the same bits as op_ref_track.c. */
#include "nn/cuda/track.h"

#include "nn/cuda/kernel.h"
#include "nn/cuda/strip.h"

#define UM_TRACK DEVICE
#define UM_TRACK_MUL(a, b) mul_rn(a, b)
#include "nn/track.h"

enum { THREADS = 32 * UM_TRACK_WARPS };

DEVICE uint32_t level(const uint8_t *v, int c)
{
    return c == 1 ? v[0] : (v[0] + 2u * v[1] + v[2]) / 4;
}

/* ---- contact ---- */

KERNEL(um_contact_cells, um_contact_cells_args, a, THREADS)
{
    uint32_t *speckle = (uint32_t *)shared_memory(), mine = 0;
    int across = (a.w / UM_CELL + 1) / 2, down = (a.h / UM_CELL + 1) / 2, t = (int)threadIdx.x;
    if (t == 0)
        *speckle = 0;
    sync();
    for (int k = t; k < across * down; k += THREADS) {
        int x = k % across * 2 * UM_CELL, y = k / across * 2 * UM_CELL;
        uint32_t least = 255, most = 0;
        for (int j = 0; j < UM_CELL; j++)
            for (int i = 0; i < UM_CELL; i++) {
                uint32_t g = level(a.x + ((int64_t)(y + j) * a.w + x + i) * a.c, a.c);
                least = g < least ? g : least;
                most = g > most ? g : most;
            }
        mine += most >= least + UM_CELL_RANGE;
    }
    if (mine)
        atomic_add(speckle, mine);
    sync();
    if (t == 0)
        a.gate->contact = across * down > 0 ? (float)*speckle / (float)(across * down) : 0;
}

/* ---- follow ---- */

KERNEL(um_follow_header, um_follow_header_args, a, 32)
{
    const um_frame_header *header = a.header;
    int t = (int)threadIdx.x;
    if (t < UM_POINTS_MAX) {
        a.prompt->xy[2 * t] = a.prompt->xy[2 * t + 1] = 0;
        a.prompt->label[t] = -1;
    }
    if (t < 4)
        a.gate->box[t] = a.prompt->box[t] = header->follow_box[t];
    if (t < 5)
        a.gate->reserved[t] = 0;
    if (t)
        return;
    a.gate->flags = UM_GATE_OK;
    a.gate->query = -1;
    a.gate->label = header->follow_label;
    a.gate->score = header->follow_score;
    a.gate->logit = 0;
    a.gate->contact = 0;
    a.gate->gain = header->gain;
    a.prompt->width = header->width;
    a.prompt->height = header->height;
    a.prompt->has_box = 1;
    a.prompt->n_points = 0;
}

/* ---- scores ---- */

DEVICE uint32_t gray(const um_score_bands_args &a, int y, int x)
{
    y = y < 0 ? 0 : y < a.h ? y : a.h - 1;
    x = x < 0 ? 0 : x < a.w ? x : a.w - 1;
    return level(a.x + ((int64_t)y * a.w + x) * a.c, a.c);
}

/* What a warp adds to sum `at`. */
DEVICE void add(uint64_t *at, uint64_t v)
{
    uint32_t low = (uint32_t)(v & 0xffffff), high = (uint32_t)(v >> 24);
    UNROLL
    for (int m = 16; m; m >>= 1) {
        low += shfl_xor(low, m);
        high += shfl_xor(high, m);
    }
    if ((threadIdx.x & 31) == 0 && (low || high))
        atomic_add(at, ((uint64_t)high << 24) + low);
}

DEVICE uint32_t wide_of(const um_strip &s, int y, int i)
{
    uint32_t any5[3];
    UNROLL
    for (int k = 0; k < 3; k++) {
        any5[k] = 0;
        UNROLL
        for (int d = -2; d <= 2; d++)
            any5[k] |= word(s, y + d, i - 1 + k);
    }
    return left(any5, 2) | left(any5, 1) | any5[1] | right(any5, 1) | right(any5, 2);
}

DEVICE uint32_t linked(const um_strip &s, int y, int i, bool rows)
{
    uint32_t v[3];
    UNROLL
    for (int k = 0; k < 3; k++) {
        int j = i - 1 + k;
        v[k] = rows ? word(s, y + 1, j) : word(s, y - 1, j) | word(s, y, j) | word(s, y + 1, j);
    }
    return word(s, y, i) & (right(v, 1) | (rows ? v[1] | left(v, 1) : 0));
}

/* The pixels of word i of row y, one a lane. */
DEVICE void score_word(uint64_t v[UM_TRACK_SUMS], const um_score_bands_args &a, const um_strip &s,
                       const um_strip &before, uint32_t *lines, int y, int i, bool previous,
                       bool rows)
{
    int lane = threadIdx.x & 31, x = 32 * i + lane;
    um_weights m = weights_of(s, y, i);
    uint32_t wide = m.mask | m.out;
    if (!wide)
        return;
    if (previous && lane == 0) {
        v[UM_SUM_THERE] += (uint32_t)popcount(m.mask & wide_of(before, y, i));
        v[UM_SUM_BACK] += (uint32_t)popcount(word(before, y, i) & wide);
    }
    if (!(wide >> lane & 1))
        return;
    uint32_t g = gray(a, y, x), *line = lines + (int64_t)(rows ? y : x) * UM_TRACK_LINE;
    if (m.edge >> lane & 1) {
        int d = UM_TRACK_REACH;
        int l = (int)(gray(a, y - d, x) + gray(a, y + d, x) + gray(a, y, x - d) +
                      gray(a, y, x + d)) -
                4 * (int)g;
        v[UM_SUM_EDGE_L] += (uint32_t)(l + UM_TRACK_BIAS);
        v[UM_SUM_EDGE_LL] += (uint32_t)(l * l);
        v[UM_SUM_EDGE] += g;
        v[UM_SUM_EDGE_GG] += g * g;
    }
    if (m.in >> lane & 1) {
        v[UM_SUM_IN] += g;
        v[UM_SUM_IN_GG] += g * g;
    }
    if (m.out >> lane & 1) {
        v[UM_SUM_OUT] += g;
        v[UM_SUM_OUT_GG] += g * g;
        atomic_add(line + UM_LINE_OUT, 1u);
        atomic_add(line + UM_LINE_OUT_G, g);
    }
    if (m.mask >> lane & 1) {
        atomic_add(line + UM_LINE_IN, 1u);
        atomic_add(line + UM_LINE_IN_G, g);
        if (linked(s, y, i, rows) >> lane & 1)
            atomic_add(line + UM_LINE_LINKED, 1u);
    }
}

/* S3, of all threads of a block; the lines are zero afterwards. */
DEVICE float continuity(uint32_t *lines, uint32_t *joined, int from, int to)
{
    uint32_t n = 0;
    for (int k = from + (int)threadIdx.x; k + 1 < to; k += THREADS) {
        const uint32_t *line = lines + (int64_t)k * UM_TRACK_LINE;
        n += line[UM_LINE_LINKED] && um_track_bright(line) && um_track_bright(line + UM_TRACK_LINE);
    }
    if (threadIdx.x == 0)
        *joined = 0;
    sync();
    if (n)
        atomic_add(joined, n);
    sync();
    return um_track_continuity(*joined, (uint32_t)(to - from));
}

/* Warp 0: C2 with the patch `slot` of the memory. */
DEVICE float correlation(const um_track *m, uint32_t slot, const uint8_t *patch,
                         const uint8_t *inside)
{
    um_track_ncc sums = {0, 0, 0, 0, 0, 0};
    for (int k = threadIdx.x & 31; k < UM_PATCH_PIXELS; k += 32)
        um_track_correlate(&sums, patch[k], m->patch[slot][k], inside[k] | m->inside[slot][k]);
    UNROLL
    for (int d = 16; d; d >>= 1) {
        sums.n += shfl_xor(sums.n, d);
        sums.x += shfl_xor(sums.x, d);
        sums.y += shfl_xor(sums.y, d);
        sums.xx += shfl_xor(sums.xx, d);
        sums.yy += shfl_xor(sums.yy, d);
        sums.xy += shfl_xor(sums.xy, d);
    }
    return um_track_correlation(&sums);
}

DEVICE bool inside_mask(const uint32_t *bits, int words, int y, int x)
{
    return bits[(int64_t)y * words + x / 32] >> (x % 32) & 1;
}

/* What is left when all bands have been summed up: one block. */
DEVICE void finish(const um_score_bands_args &a, um_track *m, uint32_t *lines,
                   const uint32_t *bits, uint64_t *sum, uint32_t *flag, unsigned char *shared)
{
    um_record *packet = a.packet;
    const int32_t *box = packet->mask_box;
    uint8_t *patch = shared, *inside = patch + UM_PATCH_PIXELS;
    float *told = (float *)(inside + UM_PATCH_PIXELS);
    int t = (int)threadIdx.x, words = (a.w + 31) / 32, longest = a.h > a.w ? a.h : a.w;
    bool previous = a.header->track & UM_TRACK_PREVIOUS, keep = a.header->track & UM_TRACK_KEEP;
    bool good = keep || a.header->track & UM_TRACK_GOOD;
    bool rows = box[3] - box[1] > box[2] - box[0], any = box[2] > box[0];
    uint32_t last = m->last, to = keep ? 1 - last : last;
    if (t < UM_TRACK_SUMS) {
        sum[t] = atomic_add(m->sum + t, (uint64_t)0);
        m->sum[t] = 0;
    } else if (t == UM_TRACK_SUMS) {
        m->ticket = 0;
    }
    for (int k = t; k < UM_PATCH_PIXELS; k += THREADS) {
        int x = um_track_sample(k % UM_PATCH, box[0], box[2]),
            y = um_track_sample(k / UM_PATCH, box[1], box[3]);
        uint32_t g = 0;
        for (int j = 0; j < 9; j++)
            g += gray(a, y - 1 + j / 3, x - 1 + j % 3);
        patch[k] = (uint8_t)(g / 9);
        inside[k] = any && inside_mask(bits, words, y, x);
    }
    float s3 = continuity(lines, flag, box[rows], box[2 + rows]);
    for (int k = t; k < longest * UM_TRACK_LINE; k += THREADS)
        lines[k] = 0;
    if (t < 32) {
        float c2 = bits_float(0x7fc00000);
        if (previous)
            c2 = correlation(m, last, patch, inside);
        if (good) {
            float with_good = correlation(m, 1 - to, patch, inside);
            c2 = c2 > with_good ? c2 : with_good;
        }
        if (t == 0)
            *told = c2;
    }
    sync();
    for (int k = t; k < UM_PATCH_PIXELS; k += THREADS) {
        m->patch[to][k] = patch[k];
        m->inside[to][k] = inside[k];
    }
    if (t)
        return;
    packet->score[0] = um_track_sharpness(sum, packet->edge_px);
    packet->score[1] = um_track_contrast(sum, packet->in_px, packet->out_px);
    packet->score[2] = s3;
    packet->score[3] = previous ? um_track_coherence(sum, packet->area_px, m->area)
                                : bits_float(0x7fc00000);
    packet->score[4] =
        um_track_agreement(packet->gate.box, box, previous ? m->box : (const float *)NULL);
    packet->score[5] = *told;
    packet->score[6] = bits_float(0x7fc00000);
    packet->score[7] = packet->gate.contact;
    m->last = to;
    m->turn ^= 1;
    m->area = packet->area_px;
    for (int k = 0; k < 4; k++)
        m->box[k] = packet->gate.box[k];
}

KERNEL(um_score_bands, um_score_bands_args, a, THREADS)
{
    um_track *m = (um_track *)a.memory;
    int words = (a.w + 31) / 32, rows = a.band + 2 * UM_HALO, t = (int)threadIdx.x;
    uint32_t *lines = (uint32_t *)((unsigned char *)a.memory + um_track_lines_at());
    uint32_t *masks = (uint32_t *)((unsigned char *)a.memory + um_track_bits_at(a.h, a.w));
    const uint32_t *bits = (const uint32_t *)(a.packet + 1);
    int64_t plane = (int64_t)a.h * words;
    const uint32_t *old = masks + m->turn * plane;
    uint32_t *kept = masks + (1 - m->turn) * plane;
    uint64_t *sum = (uint64_t *)shared_memory();
    uint32_t *flag = (uint32_t *)(sum + UM_TRACK_SUMS);
    unsigned char *rest = (unsigned char *)(flag + 2);
    const int32_t *box = a.packet->mask_box;
    int y0 = (int)blockIdx.x * a.band;
    um_strip s = {(uint32_t *)rest, y0, a.h, a.w, words},
             before = {(uint32_t *)rest + rows * words, y0, a.h, a.w, words};
    if (a.packet->gate.flags != UM_GATE_OK) {
        if (blockIdx.x == 0 && t < 8)
            a.packet->score[t] = t == 7 ? a.packet->gate.contact : bits_float(0x7fc00000);
        return;
    }
    if (t < UM_TRACK_SUMS)
        sum[t] = 0;
    for (int k = t; k < rows * words; k += THREADS) {
        int y = y0 - UM_HALO + k / words;
        bool in = y >= 0 && y < a.h;
        int64_t at = in ? (int64_t)y * words + k % words : 0;
        ((uint32_t *)rest)[k] = in ? bits[at] : 0;
        ((uint32_t *)rest)[rows * words + k] = in ? old[at] : 0;
        if (in && y >= y0 && y < y0 + a.band)
            kept[at] = bits[at];
    }
    sync();
    bool previous = a.header->track & UM_TRACK_PREVIOUS,
         by_rows = box[3] - box[1] > box[2] - box[0];
    uint64_t v[UM_TRACK_SUMS] = {0};
    for (int k = t >> 5; k < a.band * words && y0 + k / words < a.h; k += UM_TRACK_WARPS)
        score_word(v, a, s, before, lines, y0 + k / words, k % words, previous, by_rows);
    UNROLL
    for (int k = 0; k < UM_TRACK_SUMS; k++)
        add(sum + k, v[k]);
    sync();
    if (t < UM_TRACK_SUMS && sum[t])
        atomic_add(m->sum + t, sum[t]);
    fence();
    sync();
    if (t == 0)
        *flag = atomic_add(&m->ticket, (uint64_t)1) + 1 == gridDim.x;
    sync();
    if (!*flag)
        return;
    fence();
    sync();
    finish(a, m, lines, bits, sum, flag, rest);
}
