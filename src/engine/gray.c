/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/gray.h"

#include "base/mem.h"
#include "base/status.h"

#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    DIM = 24,   /* the brightest of R, G, B from which on a tint is looked for, */
    LIT = 64,   /* and a stroke */
    SOFT = 2,   /* pixels beside a stroke that have some of its colour: smooth edges, JPEG */
    SAMPLED = 8 /* every n-th row says whether the image is tinted */
};

struct work {
    int w, h;
    int wide; /* columns that are AVX2's */
    uint8_t *dst;
    int thickest;    /* pixels across a stroke; what is thicker is part of the image: flow, say */
    int open;        /* columns with a stroke that has not ended */
    int *top, *last; /* [w] its first and last row; last is -1: none */
    uint8_t *mark;   /* [w] the row's pixels on a stroke */
};

size_t um_gray_work(int w)
{
    return (size_t)w * (2 * sizeof(int) + 1);
}

static const uint8_t *row_of(const um_frame *f, int x0, int y)
{
    return f->pixels + (ptrdiff_t)y * f->stride + 3 * (ptrdiff_t)x0;
}

INLINE int brightest(const uint8_t *p)
{
    int hi = p[0] > p[1] ? p[0] : p[1];
    return hi > p[2] ? hi : p[2];
}

INLINE int darkest(const uint8_t *p)
{
    int lo = p[0] < p[1] ? p[0] : p[1];
    return lo < p[2] ? lo : p[2];
}

/* ITU-R 601 luminance as Pillow's convert("L"): src/libImaging/Convert.c, L24. Returns 0 if no
 * pixel has a colour. */
INLINE unsigned luminance_of(uint8_t *dst, const uint8_t *p, int w)
{
    unsigned differ = 0;
    for (int x = 0; x < w; x++, p += 3) {
        unsigned r = p[0], g = p[1], b = p[2];
        dst[x] = (uint8_t)((r * 19595u + g * 38470u + b * 7471u + 0x8000u) >> 16);
        differ |= (r ^ g) | (r ^ b);
    }
    return differ;
}

/* The row's pixels that may be on a stroke; 0 if there is none. */
INLINE unsigned strokes_of(uint8_t *mark, const uint8_t *p, int w)
{
    unsigned any = 0;
    for (int x = 0; x < w; x++, p += 3) {
        int lit = brightest(p) >= LIT, coloured = 3 * darkest(p) < 2 * brightest(p);
        any |= mark[x] = (uint8_t)(lit & coloured);
    }
    return any;
}

/* Both as the compiler makes them for AVX2, where they take a third of the time; what is left of a
 * row is the plain ones'. */
#if defined __x86_64__
enum { WIDE = 32 };

__attribute__((target("avx2"))) static unsigned luminance_avx2(uint8_t *dst, const uint8_t *p,
                                                               int w)
{
    return luminance_of(dst, p, w);
}

__attribute__((target("avx2"))) static unsigned strokes_avx2(uint8_t *mark, const uint8_t *p, int w)
{
    return strokes_of(mark, p, w);
}

static bool is_wide(void)
{
    return __builtin_cpu_supports("avx2");
}
#else
enum { WIDE = 1 };
#define luminance_avx2 luminance_of
#define strokes_avx2 strokes_of

static bool is_wide(void)
{
    return false;
}
#endif

static bool luminance(const struct work *k, uint8_t *dst, const uint8_t *p)
{
    unsigned differ = luminance_avx2(dst, p, k->wide);
    return differ | luminance_of(dst + k->wide, p + 3 * (ptrdiff_t)k->wide, k->w - k->wide);
}

static bool find_strokes(const struct work *k, const uint8_t *p)
{
    unsigned any = strokes_avx2(k->mark, p, k->wide);
    return any | strokes_of(k->mark + k->wide, p + 3 * (ptrdiff_t)k->wide, k->w - k->wide);
}

/* Whether most of what is not black has a colour. */
static bool is_tinted(const um_frame *f, int x0, int y0, int w, int h)
{
    int seen = 0, coloured = 0;
    for (int y = y0; y < y0 + h; y += SAMPLED) {
        const uint8_t *p = row_of(f, x0, y);
        for (int x = 0; x < w; x++, p += 3)
            if (brightest(p) >= DIM) {
                seen++;
                coloured += 4 * darkest(p) < 3 * brightest(p);
            }
    }
    return 2 * coloured > seen;
}

/* Of `size` pixels, `step` apart, those between a and b become a straight line from a to b; past an
 * end of the row there is only the other. */
static void blend(uint8_t *p, ptrdiff_t step, int a, int b, int size)
{
    if (a < 0 && b >= size)
        return;
    int from = p[(a < 0 ? b : a) * step], to = p[(b < size ? b : a) * step], n = b - a;
    for (int i = 1; i < n; i++)
        p[(a + i) * step] =
            (uint8_t)(from + ((to - from) * i + (to > from ? n - 1 : 1 - n) / 2) / n);
}

/* How far the pixel beside a stroke is that may be trusted: SOFT, or less where the next begins. */
static int margin(const struct work *k, int x, int step)
{
    int n = 0;
    while (n < SOFT && x + step >= 0 && x + step < k->w && !k->mark[x + step])
        x += step, n++;
    return n;
}

/* Strokes of which the row has a piece that is short enough; their marks go. */
static void paint_row(struct work *k, uint8_t *dst)
{
    for (int x = 0, end; x < k->w; x = end + 1) {
        for (end = x; end < k->w && k->mark[end];)
            end++;
        if (end == x || end - x > k->thickest)
            continue;
        blend(dst, 1, x - 1 - margin(k, x - 1, -1), end + margin(k, end, 1), k->w);
        memset(k->mark + x, 0, (size_t)(end - x));
    }
}

/* Those that lie along the row: where a column leaves one, at row y. */
static void paint_columns(struct work *k, int y)
{
    for (int x = 0; x < k->w; x++) {
        if (y < k->h && k->mark[x]) {
            k->open += k->last[x] < 0;
            k->top[x] = k->last[x] < 0 ? y : k->top[x];
            k->last[x] = y;
        } else if (k->last[x] >= 0 && (y == k->h || y - k->last[x] > SOFT)) {
            int a = k->top[x] - 1 - SOFT;
            if (k->last[x] - k->top[x] < k->thickest)
                blend(k->dst + x, k->w, a < 0 ? -1 : a, y, k->h);
            k->last[x] = -1;
            k->open--;
        }
    }
}

void um_gray(uint8_t *dst, const um_frame *f, int x0, int y0, int w, int h, void *work)
{
    struct work k = {.w = w, .h = h, .dst = dst, .top = work};
    int smaller = w < h ? w : h;
    bool looked = false, tinted = false;
    k.thickest = smaller / 32 > 4 ? smaller / 32 : 4;
    k.wide = is_wide() ? w / WIDE * WIDE : 0;
    k.last = k.top + w;
    k.mark = (uint8_t *)(k.last + w);
    memset(k.last, 0xff, (size_t)w * sizeof *k.last);
    for (int y = 0; y < h; y++, dst += w) {
        const uint8_t *p = row_of(f, x0, y0 + y);
        bool coloured = luminance(&k, dst, p);
        if (coloured && !looked) {
            tinted = is_tinted(f, x0, y0, w, h);
            looked = true;
        }
        if (tinted || (!coloured && !k.open))
            continue;
        if (find_strokes(&k, p))
            paint_row(&k, dst);
        paint_columns(&k, y);
    }
    if (k.open)
        paint_columns(&k, h);
}

um_status um_frame_gray(const um_frame *f, um_frame **out)
{
    um_frame *gray = NULL;
    if (out)
        *out = NULL;
    if (!f || !out)
        return um_fail(UM_EINVAL, "um_frame_gray: %s is NULL", f ? "out" : "frame");
    void *work = um_alloc(um_gray_work(f->width));
    um_status st = work ? um_frame_create(&gray, f->width, f->height, 1)
                        : um_fail(UM_ENOMEM, "a row of %d columns", f->width);
    if (st == UM_OK)
        st = um_frame_set_source(gray, f->source);
    if (st == UM_OK && f->channels == 3)
        um_gray(gray->pixels, f, 0, 0, f->width, f->height, work);
    for (int y = 0; y < f->height && st == UM_OK && f->channels == 1; y++)
        memcpy(gray->pixels + (ptrdiff_t)y * gray->stride, f->pixels + (ptrdiff_t)y * f->stride,
               (size_t)f->width);
    um_free(work);
    if (st != UM_OK) {
        um_frame_unref(&gray);
        return st;
    }
    um_frame facts = *f;
    facts.channels = 1;
    facts.stride = gray->stride;
    facts.pixels = gray->pixels;
    facts.source = gray->source;
    *gray = facts;
    *out = gray;
    return UM_OK;
}
