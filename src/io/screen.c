/* SPDX-License-Identifier: Apache-2.0 */
/* Where a scanner's screen shows its image. Speckle changes from one pixel to the next; black, bars
 * and menus do not, and text does so in places only. */
#include "base/status.h"
#include "ultramotion/frame.h"

#include <stdbool.h>
#include <stdlib.h>

enum {
    GRID = 64,      /* cells along the longer side at most */
    LEAST_CELL = 8, /* pixels of a cell's side */
    ROWS = 4,       /* of a cell that are looked at */
    APART = 2,      /* pixels that are compared, and by how many levels */
    STEP = 3        /* they differ in speckle */
};

struct grid {
    int cell, w, h;
    bool speckle[GRID][GRID]; /* [y][x] */
};

/* Levels step up or down, along the row or down the column, at three pixels of ten. */
static bool is_speckle(const um_frame *f, int x0, int y0, int cell)
{
    int n = 0, seen = 0, x1 = x0 + cell < f->width ? x0 + cell : f->width;
    for (int y = y0; y < y0 + cell && y + APART < f->height; y += cell / ROWS) {
        const uint8_t *row = f->pixels + y * f->stride + f->channels / 2, *below;
        below = row + APART * f->stride;
        for (int x = x0; x < x1 && x + APART < f->width; x++, seen++) {
            int level = row[x * f->channels];
            n += abs(row[(x + APART) * f->channels] - level) >= STEP ||
                 abs(below[x * f->channels] - level) >= STEP;
        }
    }
    return seen && 10 * n >= 3 * seen;
}

static bool near_speckle(const struct grid *g, int x, int y)
{
    for (int v = y - 1; v <= y + 1; v++)
        for (int u = x - 1; u <= x + 1; u++)
            if (u >= 0 && v >= 0 && u < g->w && v < g->h && g->speckle[v][u])
                return true;
    return false;
}

struct region {
    int cells, x0, y0, x1, y1; /* with speckle; x1, y1 exclusive */
};

/* Cells near speckle that hang together with this one, and are marked as seen. */
static struct region region_of(const struct grid *g, int x, int y, bool seen[GRID][GRID])
{
    static const int step[4][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    struct region r = {0, GRID, GRID, 0, 0};
    short stack[GRID * GRID];
    int n = 0;
    stack[n++] = (short)(y * GRID + x);
    seen[y][x] = true;
    while (n > 0) {
        int at = stack[--n], cx = at % GRID, cy = at / GRID;
        if (g->speckle[cy][cx]) {
            r.cells++;
            r.x0 = cx < r.x0 ? cx : r.x0;
            r.y0 = cy < r.y0 ? cy : r.y0;
            r.x1 = cx + 1 > r.x1 ? cx + 1 : r.x1;
            r.y1 = cy + 1 > r.y1 ? cy + 1 : r.y1;
        }
        for (int k = 0; k < 4; k++) {
            int u = cx + step[k][0], v = cy + step[k][1];
            if (u < 0 || v < 0 || u >= g->w || v >= g->h || seen[v][u] || !near_speckle(g, u, v))
                continue;
            seen[v][u] = true;
            stack[n++] = (short)(v * GRID + u);
        }
    }
    return r;
}

/* One side of the rectangle, cells a0 to a1, with a cell around, in steps of two: around what was
 * known, from *at for *size pixels, too. What would leave out less than a tenth leaves out nothing.
 */
static void widen(int *at, int *size, int a0, int a1, int cell, int all)
{
    int from = (a0 > 0 ? a0 - 1 : 0) / 2 * 2 * cell, to = (a1 + 2) / 2 * 2 * cell;
    if (*size && *at < from)
        from = *at;
    if (*size && *at + *size > to)
        to = *at + *size;
    from = 10 * from < all ? 0 : from;
    to = 10 * (all - to) < all ? all : to;
    *at = from;
    *size = to - from;
}

um_status um_frame_find_image(const um_frame *f, int rect[4])
{
    if (!f || !rect)
        return um_fail(UM_EINVAL, "um_frame_find_image: %s is NULL", f ? "rect" : "frame");
    int longer = f->width > f->height ? f->width : f->height;
    struct grid g = {.cell = (longer + GRID - 1) / GRID};
    bool seen[GRID][GRID] = {{false}};
    struct region best = {0};
    g.cell = g.cell < LEAST_CELL ? LEAST_CELL : g.cell;
    g.w = (f->width + g.cell - 1) / g.cell;
    g.h = (f->height + g.cell - 1) / g.cell;
    for (int y = 0; y < g.h; y++)
        for (int x = 0; x < g.w; x++)
            g.speckle[y][x] = is_speckle(f, x * g.cell, y * g.cell, g.cell);
    for (int y = 0; y < g.h; y++)
        for (int x = 0; x < g.w; x++)
            if (g.speckle[y][x] && !seen[y][x]) {
                struct region r = region_of(&g, x, y, seen);
                best = r.cells > best.cells ? r : best;
            }
    if (50 * best.cells < g.w * g.h)
        return UM_OK;
    int size[2] = {rect[2], rect[3]};
    widen(&rect[0], &size[0], best.x0, best.x1, g.cell, f->width);
    widen(&rect[1], &size[1], best.y0, best.y1, g.cell, f->height);
    rect[2] = size[0];
    rect[3] = size[1];
    return UM_OK;
}
