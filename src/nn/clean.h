/* SPDX-License-Identifier: Apache-2.0 */
/* What um_clean() calls a piece, a speck and a hole, and how their runs of pixels are gathered, for
 * plain C and for the GPU: docs/FRAME.md says what it is for.
 *
 * A run is a row's pixels from one that has no neighbour to its left to the last without a gap. Its
 * label has a place of its own, since runs of a row begin at least two pixels apart. Runs that
 * touch are joined under the smallest place among them, so that the labels do not depend on the
 * order in which they are visited: every device leaves the same. */
#ifndef UM_NN_CLEAN_H
#define UM_NN_CLEAN_H

#include "nn/record.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    UM_CLEAN_SHARE = 20, /* what has less than 1/20 of the largest piece's pixels is a speck, and
                            a hole closes */
    UM_CLEAN_SIDE = 10,  /* the box grows by 1/10 of its side at each end, */
    UM_CLEAN_PIXELS = 2  /* and 2 pixels */
};

/* A label: the place of the label that is its root; and of a root */
#define UM_CLEAN_ROOT 0x80000000u    /* that it is one, */
#define UM_CLEAN_TOUCHES 0x40000000u /* that a pixel of it lies within `touch`, */
#define UM_CLEAN_AREA 0x3fffffffu    /* and how many it has */

/* Rows of words of 32 pixels, pixel x = bit x % 32. Nothing lies outside x0, y0, x1, y1. */
struct um_clean_field {
    const uint32_t *bits;
    int words, half; /* of a row: words of bits, places of labels */
    uint32_t flip;   /* ~0: of the pixels that are 0 */
    int reach;       /* 1: runs also touch over a corner */
    int x0, y0, x1, y1;
    int touch[4]; /* x0, y0, x1, y1 */
    bool outside; /* TOUCHES: lies on the border of the field, not within `touch` */
};

/* Every run is visited once in each of them, and all are before the next begins. */
enum um_clean_phase {
    UM_CLEAN_BEGIN,
    UM_CLEAN_JOIN,
    UM_CLEAN_SETTLE,
    UM_CLEAN_CROWN,
    UM_CLEAN_MARK,
    UM_CLEAN_COUNT,
    UM_CLEAN_PHASES
};

#ifndef UM_CLEAN /* a GPU's source says all in its own words */
#define UM_CLEAN static inline
#define UM_CLEAN_TRAILING(v) __builtin_ctz(v)
#define UM_CLEAN_LEADING(v) __builtin_clz(v)
UM_CLEAN uint32_t um_clean_lower(uint32_t *at, uint32_t v)
{
    uint32_t was = *at;
    *at = v < was ? v : was;
    return was;
}
UM_CLEAN void um_clean_add(uint32_t *at, uint32_t v)
{
    *at += v;
}
/* Labels that others may change at the same time. */
UM_CLEAN uint32_t um_clean_see(const uint32_t *at)
{
    return *at;
}
UM_CLEAN void um_clean_set(uint32_t *at, uint32_t v)
{
    *at = v;
}
#endif

/* Words of a row's bits, and places of its labels. */
UM_CLEAN int um_clean_words(int w)
{
    return (w + 31) / 32;
}

UM_CLEAN int um_clean_half(int w)
{
    return (w + 1) / 2;
}

/* Labels, and behind them the bits of a mask. */
UM_CLEAN size_t um_clean_bits_at(int h, int w)
{
    return (size_t)h * (size_t)um_clean_half(w) * sizeof(uint32_t);
}

UM_CLEAN size_t um_clean_bytes(int h, int w)
{
    return um_clean_bits_at(h, w) + (size_t)h * (size_t)um_clean_words(w) * sizeof(uint32_t);
}

/* The pieces of a mask, of which those count that lie within the detector's box, grown; without one
 * all do. */
UM_CLEAN struct um_clean_field um_clean_pieces(const struct um_record *r,
                                               const struct um_gate *gate, const uint32_t *bits,
                                               int h, int w)
{
    const int32_t *b = r->mask_box;
    struct um_clean_field f = {
        bits, um_clean_words(w), um_clean_half(w), 0, 1, b[0], b[1], b[2], b[3], {0, 0, w, h},
        false};
    for (int i = 0; i < 2 && gate; i++) {
        double lo = (double)gate->box[i], hi = (double)gate->box[i + 2];
        double margin = (hi - lo) / UM_CLEAN_SIDE + UM_CLEAN_PIXELS, side = i ? h : w;
        lo = floor(lo - margin);
        hi = ceil(hi + margin);
        f.touch[i] = (int)(lo > 0 ? lo < side ? lo : side : 0);
        f.touch[i + 2] = (int)(hi > 0 ? hi < side ? hi : side : 0);
    }
    return f;
}

/* What the pieces leave free within their box. What reaches its border is no hole. */
UM_CLEAN struct um_clean_field um_clean_holes(const struct um_clean_field *pieces,
                                              const uint32_t *bits)
{
    struct um_clean_field f = *pieces;
    f.bits = bits;
    f.flip = ~0u;
    f.reach = 0;
    f.outside = true;
    return f;
}

UM_CLEAN uint32_t um_clean_word(const struct um_clean_field *f, int y, int i)
{
    uint32_t v = f->bits[(int64_t)y * f->words + i] ^ f->flip;
    int before = f->x0 - 32 * i, in = f->x1 - 32 * i;
    if (before > 0)
        v &= ~0u << before;
    return in < 32 ? v & ((1u << in) - 1) : v;
}

/* The first pixel of row y from x on that is in the field (`gap`: that is not); x1 if there is
 * none. */
UM_CLEAN int um_clean_next(const struct um_clean_field *f, int y, int x, bool gap)
{
    uint32_t flip = gap ? ~0u : 0, from = ~0u << (x & 31);
    for (int i = x / 32; 32 * i < f->x1; i++, from = ~0u) {
        uint32_t v = (um_clean_word(f, y, i) ^ flip) & from;
        if (v) {
            int at = 32 * i + UM_CLEAN_TRAILING(v);
            return at < f->x1 ? at : f->x1;
        }
    }
    return f->x1;
}

/* Where the run begins that pixel x belongs to. */
UM_CLEAN int um_clean_first(const struct um_clean_field *f, int y, int x)
{
    int i = x / 32;
    uint32_t gaps = ~um_clean_word(f, y, i) & ((1u << (x & 31)) - 1);
    for (; !gaps && 32 * i > f->x0; i--)
        gaps = ~um_clean_word(f, y, i - 1);
    return gaps ? 32 * i + 32 - UM_CLEAN_LEADING(gaps) : f->x0;
}

UM_CLEAN uint32_t um_clean_place(const struct um_clean_field *f, int y, int x)
{
    return (uint32_t)((int64_t)y * f->half + x / 2);
}

/* The root of a label. */
UM_CLEAN uint32_t um_clean_root(const uint32_t *label, uint32_t at)
{
    for (uint32_t up; (up = um_clean_see(label + at)) != at;)
        at = up;
    return at;
}

/* Two roots become one, the smaller; others may do the same at the same time, on what they saw
 * before. */
UM_CLEAN void um_clean_unite(uint32_t *label, uint32_t a, uint32_t b)
{
    a = um_clean_root(label, a);
    b = um_clean_root(label, b);
    while (a != b) {
        uint32_t high = a > b ? a : b, low = a > b ? b : a;
        uint32_t was = um_clean_lower(label + high, low);
        a = was == high ? low : was;
        b = low;
    }
}

/* With the runs of the row above. */
UM_CLEAN void um_clean_join(const struct um_clean_field *f, uint32_t *label, int y, int x, int end)
{
    int from = x - f->reach > f->x0 ? x - f->reach : f->x0, to = end + f->reach;
    if (y == f->y0)
        return;
    for (int at = um_clean_next(f, y - 1, from, false); at < to && at < f->x1;
         at = um_clean_next(f, y - 1, um_clean_next(f, y - 1, at, true), false))
        um_clean_unite(label, um_clean_place(f, y, x),
                       um_clean_place(f, y - 1, um_clean_first(f, y - 1, at)));
}

UM_CLEAN bool um_clean_touches(const struct um_clean_field *f, int y, int x, int end)
{
    if (f->outside)
        return x == f->x0 || end == f->x1 || y == f->y0 || y == f->y1 - 1;
    return y >= f->touch[1] && y < f->touch[3] && x < f->touch[2] && end > f->touch[0];
}

/* The run of row y that begins at x. */
UM_CLEAN void um_clean_visit(const struct um_clean_field *f, uint32_t *label,
                             enum um_clean_phase phase, int y, int x)
{
    uint32_t at = um_clean_place(f, y, x), v = um_clean_see(label + at);
    uint32_t root = v & UM_CLEAN_ROOT ? at : v;
    int end = phase == UM_CLEAN_BEGIN || phase == UM_CLEAN_SETTLE || phase == UM_CLEAN_CROWN
                  ? 0
                  : um_clean_next(f, y, x, true);
    switch (phase) {
    case UM_CLEAN_BEGIN: um_clean_set(label + at, at); break;
    case UM_CLEAN_JOIN: um_clean_join(f, label, y, x, end); break;
    case UM_CLEAN_SETTLE: um_clean_set(label + at, um_clean_root(label, at)); break;
    case UM_CLEAN_CROWN:
        if (v == at)
            um_clean_set(label + at, UM_CLEAN_ROOT);
        break;
    case UM_CLEAN_MARK:
        if (um_clean_touches(f, y, x, end))
            um_clean_set(label + root,
                         UM_CLEAN_ROOT | UM_CLEAN_TOUCHES); /* whoever comes writes the same */
        break;
    case UM_CLEAN_COUNT: um_clean_add(label + root, (uint32_t)(end - x)); break;
    case UM_CLEAN_PHASES: break;
    }
}

/* The pixels of the run at x, if it is a root whose piece counts. */
UM_CLEAN uint32_t um_clean_area(const struct um_clean_field *f, const uint32_t *label, int y, int x)
{
    uint32_t v = label[um_clean_place(f, y, x)];
    return v & UM_CLEAN_ROOT && v & UM_CLEAN_TOUCHES ? v & UM_CLEAN_AREA : 0;
}

/* Of word i of row y, the pixels of pieces that stay, or of holes that close; `largest` is the area
 * of the largest piece that stays. */
UM_CLEAN uint32_t um_clean_choose(const struct um_clean_field *f, const uint32_t *label,
                                  uint32_t largest, int y, int i)
{
    uint32_t chosen = 0, v = um_clean_word(f, y, i);
    while (v) {
        int first = UM_CLEAN_TRAILING(v);
        uint32_t run = v & ~(v + (1u << first));
        uint32_t at = um_clean_place(f, y, um_clean_first(f, y, 32 * i + first)), of = label[at];
        of = of & UM_CLEAN_ROOT ? of : label[of];
        bool touches = of & UM_CLEAN_TOUCHES;
        bool small = (uint64_t)UM_CLEAN_SHARE * (of & UM_CLEAN_AREA) < largest;
        if (f->outside ? small && !touches : touches && !small)
            chosen |= run;
        v &= ~run;
    }
    return chosen;
}

#endif
