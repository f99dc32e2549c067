/* SPDX-License-Identifier: Apache-2.0 */
#include "segmentation.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct runs {
    uint8_t *mask;
    int width, height;
    size_t at; /* column-major */
    int value;
};

static bool runs_add(struct runs *r, int64_t n)
{
    size_t all = (size_t)r->width * (size_t)r->height;
    if (n < 0 || (uint64_t)n > all - r->at)
        return false;
    for (; n > 0 && r->value; n--, r->at++)
        r->mask[r->at % (size_t)r->height * (size_t)r->width + r->at / (size_t)r->height] = 1;
    r->at += (size_t)n;
    r->value = !r->value;
    return true;
}

static bool runs_of_text(const char *counts, int width, int height, uint8_t *mask)
{
    struct runs r = {.mask = mask, .width = width, .height = height};
    int64_t last[2] = {0, 0};
    for (long n = 0; *counts; n++) {
        int64_t x = 0;
        int shift = 0, more = 1;
        for (; more; counts++, shift += 5) { /* five bits a letter, the lowest first */
            int c = *counts - 48;
            if (c < 0 || c > 63 || shift > 35)
                return false;
            x |= (int64_t)(c & 31) << shift;
            more = c & 32;
            if (!more && (c & 16))
                x -= (int64_t)1 << (shift + 5);
        }
        if (n > 2) /* a difference to the run before the last */
            x += last[0];
        last[0] = last[1];
        last[1] = x;
        if (!runs_add(&r, x))
            return false;
    }
    return r.at == (size_t)width * (size_t)height;
}

static bool runs_of_numbers(const cJSON *list, int width, int height, uint8_t *mask)
{
    struct runs r = {.mask = mask, .width = width, .height = height};
    const cJSON *n;
    cJSON_ArrayForEach(n, list)
    {
        if (!cJSON_IsNumber(n) || n->valuedouble != floor(n->valuedouble) ||
            !(n->valuedouble >= 0 && n->valuedouble < 4e9) ||
            !runs_add(&r, (int64_t)n->valuedouble))
            return false;
    }
    return r.at == (size_t)width * (size_t)height;
}

/* A polygon as pycocotools fills it (rleFrPoly): its outline on a grid five times finer; where that
 * passes from one column to the next, everything from there on is turned over. turn: bytes
 * [height*width], column-major, zeroed. */
static void turn_at(double fine_x, double fine_y, int width, int height, uint8_t *turn)
{
    double x = (fine_x + .5) / 5 - .5, y = (fine_y + .5) / 5 - .5;
    if (floor(x) != x || x < 0 || x > width - 1)
        return;
    y = ceil(y < 0 ? 0 : y > height ? height : y);
    size_t at = (size_t)x * (size_t)height + (size_t)y;
    if (at < (size_t)width * (size_t)height)
        turn[at] ^= 1;
}

static bool fill_polygon(const cJSON *polygon, int width, int height, uint8_t *turn, uint8_t *mask)
{
    int n = cJSON_GetArraySize(polygon), k = 0;
    /* each pixel of its outline takes a step, also of what lies outside the image */
    const double far = 16.0 * (width > height ? width : height);
    int *p = n >= 6 && n % 2 == 0 ? calloc((size_t)n + 2, sizeof *p) : NULL;
    const cJSON *v;
    if (!p)
        return false;
    cJSON_ArrayForEach(v, polygon)
    {
        if (!cJSON_IsNumber(v) || fabs(v->valuedouble) > far)
            return free(p), false;
        p[k++] = (int)(5 * v->valuedouble + .5);
    }
    p[n] = p[0];
    p[n + 1] = p[1];
    memset(turn, 0, (size_t)width * (size_t)height);
    int before_x = 0, before_y = 0;
    bool first = true;
    for (int j = 0; j < n; j += 2) {
        int xs = p[j], ys = p[j + 1], xe = p[j + 2], ye = p[j + 3];
        int dx = abs(xe - xs), dy = abs(ye - ys), steps = dx >= dy ? dx : dy;
        bool flip = (dx >= dy && xs > xe) || (dx < dy && ys > ye);
        if (flip) {
            int t = xs;
            xs = xe;
            xe = t;
            t = ys;
            ys = ye;
            ye = t;
        }
        double slope = steps == 0 ? 0 : (double)(dx >= dy ? ye - ys : xe - xs) / steps;
        for (int d = 0; d <= steps; d++) {
            int t = flip ? steps - d : d;
            int x = dx >= dy ? t + xs : (int)(xs + slope * t + .5);
            int y = dx >= dy ? (int)(ys + slope * t + .5) : t + ys;
            if (!first && x != before_x)
                turn_at(x < before_x ? x : x - 1, y < before_y ? y : before_y, width, height, turn);
            before_x = x;
            before_y = y;
            first = false;
        }
    }
    int inside = 0;
    for (int x = 0; x < width; x++)
        for (int y = 0; y < height; y++) {
            inside ^= turn[(size_t)x * (size_t)height + (size_t)y];
            mask[(size_t)y * (size_t)width + (size_t)x] |= (uint8_t)inside;
        }
    free(p);
    return true;
}

bool segmentation_read(const cJSON *s, int width, int height, uint8_t *mask)
{
    if (cJSON_IsArray(s)) {
        uint8_t *turn = malloc((size_t)width * (size_t)height);
        bool ok = turn;
        const cJSON *polygon;
        cJSON_ArrayForEach(polygon, s)
        {
            ok = ok && fill_polygon(polygon, width, height, turn, mask);
        }
        free(turn);
        return ok;
    }
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(s, "size"),
                *counts = cJSON_GetObjectItemCaseSensitive(s, "counts");
    const cJSON *h = cJSON_GetArrayItem(size, 0), *w = cJSON_GetArrayItem(size, 1);
    if (!cJSON_IsNumber(h) || !cJSON_IsNumber(w) || h->valuedouble != height ||
        w->valuedouble != width)
        return false;
    return cJSON_IsString(counts) ? runs_of_text(counts->valuestring, width, height, mask)
                                  : runs_of_numbers(counts, width, height, mask);
}
