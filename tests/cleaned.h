/* SPDX-License-Identifier: Apache-2.0 */
/* What um_clean() does to a mask, from its definition: flood fill on bytes. */
#ifndef UM_TEST_CLEANED_H
#define UM_TEST_CLEANED_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct cleaned {
    uint8_t *m;   /* the mask, 0 or 1 */
    uint8_t *now; /* 0 not seen, 1 of the area that is looked at, 2 seen */
    int *stack;
    int h, w;
    int keep[4]; /* x0, y0, x1, y1: areas without a pixel in there do not count */
};

/* An area of pixels of value v from pixel `at` on, marked 1; `corners`: it goes on over corners. */
static inline int cleaned_flood(struct cleaned *c, int at, int v, bool corners, bool *within,
                                bool *border)
{
    int n = 0, area = 0;
    *within = *border = false;
    c->now[at] = 1;
    for (c->stack[n++] = at; n; area++) {
        int k = c->stack[--n], y = k / c->w, x = k % c->w;
        *within =
            *within || (x >= c->keep[0] && x < c->keep[2] && y >= c->keep[1] && y < c->keep[3]);
        *border = *border || x == 0 || y == 0 || x == c->w - 1 || y == c->h - 1;
        for (int d = 0; d < 9; d++) {
            int dy = d / 3 - 1, dx = d % 3 - 1, to = k + dy * c->w + dx;
            if ((dx && dy && !corners) || x + dx < 0 || x + dx >= c->w || y + dy < 0 ||
                y + dy >= c->h || c->now[to] || c->m[to] != v)
                continue;
            c->now[to] = 1;
            c->stack[n++] = to;
        }
    }
    return area;
}

/* What was marked 1 becomes `v` in the mask and is seen. */
static inline void cleaned_settle(struct cleaned *c, int v)
{
    for (int k = 0; k < c->h * c->w; k++)
        if (c->now[k] == 1) {
            c->now[k] = 2;
            c->m[k] = (uint8_t)v;
        }
}

/* Clean m; box NULL: there is none. */
static inline void cleaned(uint8_t *m, int h, int w, const float *box, uint32_t *removed,
                           uint32_t *filled)
{
    size_t n = (size_t)h * (size_t)w;
    struct cleaned c = {m, calloc(n, 1), malloc(n * sizeof(int)), h, w, {0, 0, w, h}};
    bool within, border;
    int largest = 0;
    for (int i = 0; box && i < 2; i++) {
        double margin = ((double)box[i + 2] - box[i]) / 10 + 2, side = i ? h : w;
        c.keep[i] = (int)fmin(fmax(floor(box[i] - margin), 0), side);
        c.keep[i + 2] = (int)fmin(fmax(ceil(box[i + 2] + margin), 0), side);
    }
    *removed = *filled = 0;
    for (int k = 0; k < h * w; k++)
        if (m[k] && !c.now[k]) {
            int area = cleaned_flood(&c, k, 1, true, &within, &border);
            largest = within && area > largest ? area : largest;
            *removed += within ? 0 : (uint32_t)area;
            cleaned_settle(&c, within);
        }
    memset(c.now, 0, n);
    for (int k = 0; k < h * w; k++)
        if (m[k] && !c.now[k]) {
            int area = cleaned_flood(&c, k, 1, true, &within, &border);
            bool speck = 20 * area < largest;
            *removed += speck ? (uint32_t)area : 0;
            cleaned_settle(&c, !speck);
        }
    memset(c.now, 0, n);
    for (int k = 0; k < h * w; k++)
        if (!m[k] && !c.now[k]) {
            int area = cleaned_flood(&c, k, 0, false, &within, &border);
            bool hole = !border && 20 * area < largest;
            *filled += hole ? (uint32_t)area : 0;
            cleaned_settle(&c, hole);
        }
    free(c.now);
    free(c.stack);
}

#endif
