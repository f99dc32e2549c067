/* SPDX-License-Identifier: Apache-2.0 */
/* What um_scores() remembers from frame to frame, and how its scores come of whole-number sums, for
 * plain C and for the GPU. docs/STATE.md has the formulas and their sources. Products that are
 * summed go through UM_TRACK_MUL(): no compiler makes an fma of them, so that every device gives
 * the same bits. */
#ifndef UM_NN_TRACK_H
#define UM_NN_TRACK_H

#include "nn/record.h"

#include <math.h>
#include <stddef.h>

enum {
    UM_TRACK_REACH = 3, /* pixels from the middle to the arms of the Laplacian */
    UM_TRACK_BIAS = 4 * 255 /* makes it positive */,
    UM_PATCH = 32, /* side of the patch of C2 */
    UM_PATCH_PIXELS = UM_PATCH * UM_PATCH,
    UM_PATCH_INSIDE = 4, /* weight of a pixel of it that lies in a mask; of others 1 */
    UM_CELL = 8,         /* side of the cells of um_contact() */
    UM_CELL_RANGE = 16   /* least range of the gray levels in a cell with speckle */
};

/* Sums over the pixels where a weight is 1: of the Laplacian L (biased), its square, the gray level
 * g, its square; and of the pixels that this mask and the one before share. */
enum um_track_sum {
    UM_SUM_EDGE_L,
    UM_SUM_EDGE_LL,
    UM_SUM_EDGE,
    UM_SUM_EDGE_GG,
    UM_SUM_IN,
    UM_SUM_IN_GG,
    UM_SUM_OUT,
    UM_SUM_OUT_GG,
    UM_SUM_THERE, /* of this mask within 2 pixels of the one before */
    UM_SUM_BACK,  /* of the one before within 2 pixels of this */
    UM_TRACK_SUMS
};

/* A line across the structure: a column of the image, or a row where the mask is higher than
 * wide. */
enum um_track_line {
    UM_LINE_IN,     /* pixels of the mask */
    UM_LINE_IN_G,   /* their gray levels */
    UM_LINE_OUT,    /* pixels of W_out */
    UM_LINE_OUT_G,  /* their gray levels */
    UM_LINE_LINKED, /* pixels of the mask that touch the next line's */
    UM_TRACK_LINE
};

/* The memory; behind it um_track_line counts of every line, then the bits of two masks. */
struct um_track {
    uint64_t sum[UM_TRACK_SUMS], ticket; /* 0 between frames, as the lines */
    uint32_t turn;                       /* which mask is that of the frame before */
    uint32_t last;                       /* which patch */
    uint32_t area;                       /* of that mask */
    uint32_t padding;
    float box[4];                       /* of that frame's gate */
    uint8_t patch[2][UM_PATCH_PIXELS];  /* gray levels */
    uint8_t inside[2][UM_PATCH_PIXELS]; /* 1: in the mask */
};

#ifndef UM_TRACK /* a GPU's source says both in its own words */
#define UM_TRACK static inline
#define UM_TRACK_MUL(a, b) ((a) * (b)) /* -ffp-contract=off */
#endif

UM_TRACK size_t um_track_lines_at(void)
{
    return sizeof(struct um_track);
}

UM_TRACK size_t um_track_bits_at(int h, int w)
{
    return um_track_lines_at() + (size_t)(h > w ? h : w) * UM_TRACK_LINE * sizeof(uint32_t);
}

UM_TRACK size_t um_track_bytes(int h, int w)
{
    return um_track_bits_at(h, w) + 2 * (size_t)h * (size_t)((w + 31) / 32) * sizeof(uint32_t);
}

UM_TRACK double um_track_variance(double sum, double squares, double n)
{
    double mean = sum / n;
    return squares / n - UM_TRACK_MUL(mean, mean);
}

/* S1 */
UM_TRACK float um_track_sharpness(const uint64_t sum[UM_TRACK_SUMS], uint32_t edge_px)
{
    double n = edge_px;
    if (!edge_px)
        return 0;
    double v = um_track_variance((double)sum[UM_SUM_EDGE_L] - n * UM_TRACK_BIAS,
                                 (double)sum[UM_SUM_EDGE_LL], n);
    double g = um_track_variance((double)sum[UM_SUM_EDGE], (double)sum[UM_SUM_EDGE_GG], n);
    return v > 0 ? (float)(v / (v + (g > 0 ? g : 0))) : 0;
}

/* S2 */
UM_TRACK float um_track_contrast(const uint64_t sum[UM_TRACK_SUMS], uint32_t in_px, uint32_t out_px)
{
    if (!in_px || !out_px)
        return 0;
    double in = (double)sum[UM_SUM_IN], out = (double)sum[UM_SUM_OUT];
    double d = in / in_px - out / out_px;
    double v = um_track_variance(in, (double)sum[UM_SUM_IN_GG], in_px) +
               um_track_variance(out, (double)sum[UM_SUM_OUT_GG], out_px);
    double dd = UM_TRACK_MUL(d, d);
    return d > 0 ? (float)(dd / (dd + (v > 0 ? v / 4 : 0))) : 0;
}

/* Is the structure there on this line, and brighter than beside it by a quarter? */
UM_TRACK int um_track_bright(const uint32_t line[UM_TRACK_LINE])
{
    uint64_t in = line[UM_LINE_IN], out = line[UM_LINE_OUT];
    return in && out &&
           4 * (uint64_t)line[UM_LINE_IN_G] * out > 5 * (uint64_t)line[UM_LINE_OUT_G] * in;
}

/* S3: of `lines` lines, `joined` are bright, touch the next one, and that is bright too. */
UM_TRACK float um_track_continuity(uint32_t joined, uint32_t lines)
{
    return lines > 1 ? (float)((double)joined / (lines - 1)) : 0;
}

/* S4 */
UM_TRACK float um_track_coherence(const uint64_t sum[UM_TRACK_SUMS], uint32_t area, uint32_t before)
{
    uint64_t both = (uint64_t)area + before;
    return both ? (float)((double)(sum[UM_SUM_THERE] + sum[UM_SUM_BACK]) / (double)both) : 0;
}

/* Intersection over union of two boxes. */
UM_TRACK double um_track_iou(const float a[4], const float b[4])
{
    double inside = 1, of_a = 1, of_b = 1;
    for (int i = 0; i < 2; i++) {
        double lo = a[i] > b[i] ? a[i] : b[i], hi = a[i + 2] < b[i + 2] ? a[i + 2] : b[i + 2];
        inside = UM_TRACK_MUL(inside, hi > lo ? hi - lo : 0);
        of_a = UM_TRACK_MUL(of_a, (double)a[i + 2] - a[i]);
        of_b = UM_TRACK_MUL(of_b, (double)b[i + 2] - b[i]);
    }
    double all = of_a + of_b - inside;
    return all > 0 ? inside / all : 0;
}

/* C1: of the detector's box and the mask's, and of that box and the one before, if there is one. */
UM_TRACK float um_track_agreement(const float box[4], const int32_t mask_box[4],
                                  const float *before)
{
    float mask[4];
    for (int i = 0; i < 4; i++)
        mask[i] = (float)mask_box[i];
    double agree = um_track_iou(box, mask);
    return (float)(before ? (agree + um_track_iou(box, before)) / 2 : agree);
}

/* Where sample i of a patch lies on an axis of the mask's box. */
UM_TRACK int um_track_sample(int i, int from, int to)
{
    return from + (int)((int64_t)(2 * i + 1) * (to - from) / (2 * UM_PATCH));
}

/* Weighted sums over two patches. */
struct um_track_ncc {
    uint32_t n, x, y, xx, yy, xy;
};

UM_TRACK void um_track_correlate(struct um_track_ncc *s, uint32_t x, uint32_t y, int inside)
{
    uint32_t w = inside ? UM_PATCH_INSIDE : 1;
    s->n += w;
    s->x += w * x;
    s->y += w * y;
    s->xx += w * x * x;
    s->yy += w * y * y;
    s->xy += w * x * y;
}

/* C2 with one patch */
UM_TRACK float um_track_correlation(const struct um_track_ncc *s)
{
    int64_t n = s->n, x = s->x, y = s->y;
    int64_t both = n * s->xy - x * y, vx = n * s->xx - x * x, vy = n * s->yy - y * y;
    if (both <= 0 || vx <= 0 || vy <= 0)
        return 0;
    double r = (double)both / sqrt(UM_TRACK_MUL((double)vx, (double)vy));
    return r < 1 ? (float)r : 1;
}

#endif
