/* SPDX-License-Identifier: Apache-2.0 */
#include "accuracy.h"

#include "list.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RECALLS = 101 };

/* ---- average precision ---- */

struct detection {
    double score;
    long order; /* in which it came: what decides among equal scores */
    int frame, category;
    uint16_t hit, ignored; /* a bit for each threshold */
};

struct ap {
    int categories;
    struct detection *list;
    long n;
    unsigned *truths; /* [frames, categories] that count */
    long frames;
    bool sorted;
};

ap *ap_open(int categories)
{
    ap *a = calloc(1, sizeof *a);
    if (a)
        a->categories = categories;
    return a;
}

void ap_close(ap *a)
{
    if (!a)
        return;
    free(a->list);
    free(a->truths);
    free(a);
}

static double overlap(const double a[4], const double b[4])
{
    double w = fmin(a[0] + a[2], b[0] + b[2]) - fmax(a[0], b[0]);
    double h = fmin(a[1] + a[3], b[1] + b[3]) - fmax(a[1], b[1]);
    return w <= 0 || h <= 0 ? 0 : w * h;
}

double box_iou(const double a[4], const double b[4])
{
    double both = overlap(a, b);
    return both == 0 ? 0 : both / (a[2] * a[3] + b[2] * b[3] - both);
}

static int by_score(const void *a, const void *b)
{
    const struct detection *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static int by_category(const void *a, const void *b)
{
    int x = ((const struct detection *)a)->category, y = ((const struct detection *)b)->category;
    return x != y ? (x > y) - (x < y) : by_score(a, b);
}

/* The truths of one category, those that count first; each may be found once, a crowd again and
 * again. */
static void match(struct detection *d, const double box[4], const struct ap_box *const *truth,
                  int n, int counting, uint16_t *taken)
{
    for (int t = 0; t < AP_THRESHOLDS; t++) {
        double best = t == AP_THRESHOLDS - 1 ? .95 : .5 + t * ((.95 - .5) / (AP_THRESHOLDS - 1));
        best = best < 1 - 1e-10 ? best : 1 - 1e-10;
        int m = -1;
        for (int g = 0; g < n; g++) {
            if (taken[g] >> t & 1 && !truth[g]->crowd)
                continue;
            if (m >= 0 && m < counting && g >= counting)
                break;
            double both = overlap(box, truth[g]->box), all = box[2] * box[3];
            double iou =
                both == 0
                    ? 0
                    : both / (truth[g]->crowd ? all
                                              : all + truth[g]->box[2] * truth[g]->box[3] - both);
            if (iou < best)
                continue;
            best = iou;
            m = g;
        }
        if (m < 0)
            continue;
        taken[m] |= (uint16_t)(1 << t);
        d->hit |= (uint16_t)(1 << t);
        if (m >= counting)
            d->ignored |= (uint16_t)(1 << t);
    }
}

bool ap_add(ap *a, const struct ap_box *found, int n_found, const struct ap_box *truth, int n_truth)
{
    struct detection *own = malloc((size_t)(n_found + 1) * sizeof *own);
    const struct ap_box **of = malloc((size_t)(n_truth + 1) * sizeof *of);
    uint16_t *taken = malloc((size_t)(n_truth + 1) * sizeof *taken);
    bool ok = own && of && taken &&
              list_room(&a->truths, a->frames, (size_t)a->categories * sizeof *a->truths);
    for (int c = 0; c < a->categories && ok; c++) {
        int n = 0, counting = 0, k = 0;
        for (int crowd = 0; crowd < 2; crowd++)
            for (int i = 0; i < n_truth; i++)
                if (truth[i].category == c && truth[i].crowd == crowd) {
                    of[n++] = &truth[i];
                    counting += !crowd;
                }
        a->truths[a->frames * a->categories + c] = (unsigned)counting;
        for (int i = 0; i < n_found; i++)
            if (found[i].category == c)
                own[k++] = (struct detection){
                    .score = found[i].score, .order = i, .frame = (int)a->frames, .category = c};
        qsort(own, (size_t)k, sizeof *own, by_score);
        k = k < AP_DETECTIONS ? k : AP_DETECTIONS;
        memset(taken, 0, (size_t)(n_truth + 1) * sizeof *taken);
        for (int i = 0; i < k && (ok = list_room(&a->list, a->n, sizeof *a->list)); i++) {
            match(&own[i], found[own[i].order].box, of, n, counting, taken);
            own[i].order = a->n;
            a->list[a->n++] = own[i];
        }
    }
    a->frames += ok;
    a->sorted = false;
    free(own);
    free(of);
    free(taken);
    return ok;
}

/* Precision at 101 recalls, made so that it never rises, of one category, whose detections are
 * list[count], at one threshold. p, r: room for their precisions and recalls. */
static double average(const struct detection *list, long count, const unsigned *weight,
                      int threshold, double truths, double *p, double *r)
{
    double hits = 0, misses = 0, sum = 0;
    long n = 0;
    for (long i = 0; i < count; i++) {
        const struct detection *d = &list[i];
        unsigned w = weight ? weight[d->frame] : 1;
        if (w == 0 || d->ignored >> threshold & 1)
            continue;
        if (d->hit >> threshold & 1)
            hits += w;
        else
            misses += w;
        p[n] = hits / (hits + misses + 2.220446049250313e-16);
        r[n++] = hits / truths;
    }
    for (long i = n - 1; i > 0; i--)
        if (p[i] > p[i - 1])
            p[i - 1] = p[i];
    long at = 0;
    for (int k = 0; k < RECALLS; k++) {
        double recall = k == RECALLS - 1 ? 1 : k * .01;
        while (at < n && r[at] < recall)
            at++;
        if (at == n)
            break;
        sum += p[at];
    }
    return sum / RECALLS;
}

bool ap_value(ap *a, const unsigned *weight, int category, double *all, double *half)
{
    double *p = malloc((size_t)(a->n + 1) * sizeof *p), *r = malloc((size_t)(a->n + 1) * sizeof *r);
    int present = 0;
    *all = *half = 0;
    if (!a->sorted && a->n)
        qsort(a->list, (size_t)a->n, sizeof *a->list, by_category);
    a->sorted = true;
    for (long c = 0, from = 0, to = 0; c < a->categories && p && r; c++, from = to) {
        double truths = 0;
        while (to < a->n && a->list[to].category == c)
            to++;
        if (category >= 0 && c != category)
            continue;
        for (long f = 0; f < a->frames; f++)
            truths += (double)a->truths[f * a->categories + c] * (weight ? weight[f] : 1);
        if (truths == 0)
            continue;
        present++;
        for (int t = 0; t < AP_THRESHOLDS; t++) {
            double v = average(a->list + from, to - from, weight, t, truths, p, r);
            *all += v / AP_THRESHOLDS;
            *half += t == 0 ? v : 0;
        }
    }
    *all = present ? *all / present : NAN;
    *half = present ? *half / present : NAN;
    bool ok = p && r;
    free(p);
    free(r);
    return ok;
}

/* ---- masks ---- */

void mask_overlap(const uint8_t *a, const uint8_t *b, size_t n, size_t *only_a, size_t *only_b,
                  size_t *both)
{
    *only_a = *only_b = *both = 0;
    for (size_t i = 0; i < n; i++) {
        *both += a[i] & b[i];
        *only_a += a[i] & !b[i];
        *only_b += b[i] & !a[i];
    }
}

/* The lower envelope of the parabolas f[i] + (s (x - i))^2, at every x. */
static void envelope(const double *f, int n, double s, int *at, double *from, double *out)
{
    int k = -1;
    for (int i = 0; i < n; i++) {
        if (isinf(f[i]))
            continue;
        double meet = -INFINITY;
        for (; k >= 0; k--) {
            int j = at[k];
            meet = (f[i] - f[j] + s * s * ((double)i * i - (double)j * j)) /
                   (2 * s * s * (double)(i - j));
            if (meet > from[k])
                break;
        }
        at[++k] = i;
        from[k] = k ? meet : -INFINITY;
    }
    for (int x = 0, j = 0; x < n; x++) {
        if (k < 0) {
            out[x] = INFINITY;
            continue;
        }
        while (j < k && from[j + 1] < x)
            j++;
        double d = s * (x - at[j]);
        out[x] = f[at[j]] + d * d;
    }
}

/* out[h*w] = squared distance of each pixel to the nearest set one, pixels being sx by sy; exact
 * (Felzenszwalb, Huttenlocher 2012). Infinite where none is set. False: no memory. */
static bool distance_map(const uint8_t *set, int width, int height, double sx, double sy,
                         double *out)
{
    size_t longest = (size_t)(width > height ? width : height);
    double *f = calloc(longest, sizeof *f), *g = malloc(longest * sizeof *g),
           *from = malloc(longest * sizeof *from);
    int *at = malloc(longest * sizeof *at);
    bool ok = f && g && from && at;
    for (int x = 0; x < width && ok; x++) {
        for (int y = 0; y < height; y++)
            f[y] = set[(size_t)y * (size_t)width + (size_t)x] ? 0 : INFINITY;
        envelope(f, height, sy, at, from, g);
        for (int y = 0; y < height; y++)
            out[(size_t)y * (size_t)width + (size_t)x] = g[y];
    }
    for (int y = 0; y < height && ok; y++) {
        double *row = out + (size_t)y * (size_t)width;
        memcpy(f, row, (size_t)width * sizeof *f);
        envelope(f, width, sx, at, from, row);
    }
    free(f);
    free(g);
    free(from);
    free(at);
    return ok;
}

static void border(const uint8_t *mask, int width, int height, uint8_t *out)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const uint8_t *m = mask + (size_t)y * (size_t)width + x;
            bool inner = x > 0 && y > 0 && x < width - 1 && y < height - 1 && m[-1] && m[1] &&
                         m[-width] && m[width];
            out[(size_t)y * (size_t)width + (size_t)x] = *m && !inner;
        }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As numpy's percentile: between the two nearest in order. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    double t = at - (double)i, a = sorted[i], b = i + 1 < n ? sorted[i + 1] : a;
    return t < .5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

/* The distances in `map` at the set pixels, square roots taken, added to `list`; returns how many
 * there are now. */
static size_t gather(const uint8_t *set, const double *map, size_t n, double *list, size_t count)
{
    for (size_t i = 0; i < n; i++)
        if (set[i])
            list[count++] = sqrt(map[i]);
    return count;
}

bool surface_distance(const uint8_t *a, const uint8_t *b, int width, int height, double sx,
                      double sy, double *hd95, double *mean)
{
    size_t n = (size_t)width * (size_t)height, count = 0;
    uint8_t *edge_a = malloc(n), *edge_b = malloc(n);
    double *map = malloc(n * sizeof *map), *list = malloc(2 * n * sizeof *list);
    bool ok = edge_a && edge_b && map && list;
    if (ok) {
        border(a, width, height, edge_a);
        border(b, width, height, edge_b);
        ok = distance_map(edge_b, width, height, sx, sy, map);
    }
    if (ok) {
        count = gather(edge_a, map, n, list, 0);
        ok = distance_map(edge_a, width, height, sx, sy, map);
    }
    if (ok) {
        count = gather(edge_b, map, n, list, count);
        double sum = 0;
        for (size_t i = 0; i < count; i++)
            sum += list[i];
        *mean = sum / (double)count;
        qsort(list, count, sizeof *list, by_value);
        *hd95 = quantile(list, count, .95);
    }
    free(edge_a);
    free(edge_b);
    free(map);
    free(list);
    return ok;
}

static double share_within(const double *list, size_t n, double reach)
{
    size_t in = 0;
    for (size_t i = 0; i < n; i++)
        in += list[i] <= reach;
    return (double)in / (double)n;
}

bool line_distance(const uint8_t *mask, const uint8_t *line, int width, int height, double reach,
                   double exact, double *covered, double *precision, double *median)
{
    size_t n = (size_t)width * (size_t)height, count = 0;
    double *map = malloc(n * sizeof *map), *list = malloc(n * sizeof *list);
    bool ok = map && list && distance_map(mask, width, height, 1, 1, map);
    if (ok) {
        count = gather(line, map, n, list, 0);
        *covered = share_within(list, count, reach);
        ok = distance_map(line, width, height, 1, 1, map);
    }
    if (ok) {
        count = gather(mask, map, n, list, 0);
        *precision = share_within(list, count, exact);
        qsort(list, count, sizeof *list, by_value);
        *median = quantile(list, count, .5);
    }
    free(map);
    free(list);
    return ok;
}

int sort_numbers(double *value, int n)
{
    int k = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(value[i]))
            value[k++] = value[i];
    qsort(value, (size_t)k, sizeof *value, by_value);
    return k;
}

void interval(double *value, int n, double *lo, double *hi)
{
    int k = sort_numbers(value, n);
    *lo = *hi = NAN;
    if (!k)
        return;
    *lo = quantile(value, (size_t)k, .025);
    *hi = quantile(value, (size_t)k, .975);
}
