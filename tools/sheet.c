/* SPDX-License-Identifier: Apache-2.0 */
#include "sheet.h"

#include "text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORST = 12, CELLS = 48, COLUMNS = 8, CELL = 160 };

struct drawing {
    uint8_t *rgb;
    int width, height;
    double badness;
    char name[128];
};

struct sheet {
    struct drawing worst[WORST]; /* the worst first */
    int kept, cells;
    long seen, every;
    uint8_t *contact; /* [rows*CELL, COLUMNS*CELL, 3] */
};

static const uint8_t FOUND[3] = {255, 80, 60}, TRUE_MASK[3] = {60, 230, 90}, BOX[3] = {255, 200, 0};

sheet *sheet_open(long frames)
{
    sheet *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->every = frames > CELLS ? (frames + CELLS - 1) / CELLS : 1;
    s->contact = calloc((size_t)CELLS * CELL * CELL, 3);
    if (!s->contact) {
        free(s);
        return NULL;
    }
    return s;
}

void sheet_close(sheet *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->kept; i++)
        free(s->worst[i].rgb);
    free(s->contact);
    free(s);
}

static void put(struct drawing *d, int x, int y, const uint8_t color[3])
{
    if (x >= 0 && y >= 0 && x < d->width && y < d->height)
        memcpy(d->rgb + 3 * ((size_t)y * (size_t)d->width + (size_t)x), color, 3);
}

/* The pixels of a mask that have a neighbour outside. */
static void outline(struct drawing *d, const uint8_t *mask, const uint8_t color[3])
{
    int w = d->width, h = d->height;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const uint8_t *m = mask + (size_t)y * (size_t)w + x;
            if (*m && (x == 0 || y == 0 || x == w - 1 || y == h - 1 || !m[-1] || !m[1] || !m[-w] ||
                       !m[w]))
                put(d, x, y, color);
        }
}

static void rectangle(struct drawing *d, const double box[4], const uint8_t color[3])
{
    int x0 = (int)fmax(0, fmin(box[0], d->width - 1)),
        y0 = (int)fmax(0, fmin(box[1], d->height - 1));
    int x1 = (int)fmax(0, fmin(box[0] + box[2], d->width - 1)),
        y1 = (int)fmax(0, fmin(box[1] + box[3], d->height - 1));
    for (int x = x0; x <= x1; x++) {
        put(d, x, y0, color);
        put(d, x, y1, color);
    }
    for (int y = y0; y <= y1; y++) {
        put(d, x0, y, color);
        put(d, x1, y, color);
    }
}

static bool draw(struct drawing *d, const struct truth_frame *t, const uint8_t *found,
                 const double *box)
{
    const um_frame *f = t->image;
    *d = (struct drawing){.width = f->width, .height = f->height};
    d->rgb = malloc((size_t)f->width * (size_t)f->height * 3);
    if (!d->rgb)
        return false;
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++)
            for (int c = 0; c < 3; c++)
                d->rgb[3 * ((size_t)y * (size_t)f->width + (size_t)x) + (size_t)c] =
                    f->pixels[y * f->stride + x * f->channels + (f->channels == 3 ? c : 0)];
    if (found)
        outline(d, found, FOUND);
    for (int i = 0; i < t->objects; i++) {
        if (t->object[i].mask)
            outline(d, t->object[i].mask, TRUE_MASK);
        else
            rectangle(d, t->object[i].box, TRUE_MASK);
    }
    if (t->line)
        outline(d, t->line, TRUE_MASK);
    if (box)
        rectangle(d, box, BOX);
    text_copy(d->name, sizeof d->name, t->name);
    for (char *c = d->name; *c; c++)
        if (*c == '/')
            *c = '_';
    return true;
}

static void add_cell(sheet *s, const struct drawing *d)
{
    int longest = d->width > d->height ? d->width : d->height;
    int x0 = s->cells % COLUMNS * CELL, y0 = s->cells / COLUMNS * CELL;
    s->cells++;
    for (int y = 0; y < CELL; y++)
        for (int x = 0; x < CELL; x++) { /* mean over what falls on a pixel */
            long sum[3] = {0, 0, 0}, n = 0;
            for (int v = y * longest / CELL; v <= ((y + 1) * longest - 1) / CELL; v++)
                for (int u = x * longest / CELL; u <= ((x + 1) * longest - 1) / CELL; u++) {
                    if (u >= d->width || v >= d->height)
                        continue;
                    const uint8_t *p = d->rgb + 3 * ((size_t)v * (size_t)d->width + (size_t)u);
                    for (int c = 0; c < 3; c++)
                        sum[c] += p[c];
                    n++;
                }
            for (int c = 0; c < 3; c++)
                s->contact[3 * ((size_t)(y0 + y) * COLUMNS * CELL + (size_t)(x0 + x)) + (size_t)c] =
                    (uint8_t)(n ? sum[c] / n : 0);
        }
}

bool sheet_add(sheet *s, const struct truth_frame *truth, const uint8_t *found, const double *box,
               double badness)
{
    bool cell = s->seen % s->every == 0 && s->cells < CELLS;
    bool worst = !isnan(badness) && (s->kept < WORST || badness > s->worst[WORST - 1].badness);
    struct drawing d;
    s->seen++;
    if (!cell && !worst)
        return true;
    if (!draw(&d, truth, found, box))
        return false;
    d.badness = badness;
    if (cell)
        add_cell(s, &d);
    if (!worst)
        return free(d.rgb), true;
    if (s->kept == WORST)
        free(s->worst[--s->kept].rgb);
    int at = s->kept++;
    for (; at > 0 && s->worst[at - 1].badness < badness; at--)
        s->worst[at] = s->worst[at - 1];
    s->worst[at] = d;
    return true;
}

/* Those of an earlier run go, RANK_NAME.png; whatever else is there stays. */
static um_status remove_worst(const char *folder)
{
    char path[4400];
    um_status st = UM_OK;
    DIR *dir = opendir(folder);
    if (!dir)
        return truth_fail(UM_EIO, "val: %s: %s", folder, strerror(errno));
    for (struct dirent *e; st == UM_OK && (e = readdir(dir));) {
        const char *n = e->d_name, *end = strrchr(n, '.');
        if (!isdigit((unsigned char)n[0]) || !isdigit((unsigned char)n[1]) || n[2] != '_' || !end ||
            strcmp(end, ".png") != 0 || atoi(n) >= WORST)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, n);
        if (unlink(path) != 0)
            st = truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno));
    }
    closedir(dir);
    return st;
}

um_status sheet_write(const sheet *s, const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/worst", folder);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno));
    um_status st = remove_worst(path);
    for (int i = 0; i < s->kept && st == UM_OK; i++) {
        const struct drawing *d = &s->worst[i];
        const char *dot = strrchr(d->name, '.');
        snprintf(path, sizeof path, "%s/worst/%02d_%.*s.png", folder, i,
                 (int)(dot ? dot - d->name : (long)strlen(d->name)), d->name);
        st = um_image_write_png(path, d->rgb, d->width, d->height, 3);
    }
    snprintf(path, sizeof path, "%s/contact.png", folder);
    int rows = (s->cells + COLUMNS - 1) / COLUMNS;
    return st == UM_OK && rows
               ? um_image_write_png(path, s->contact, COLUMNS * CELL, rows * CELL, 3)
               : st;
}
