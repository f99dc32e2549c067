/* SPDX-License-Identifier: Apache-2.0 */
/* D-FINE's query selection, sampling and box distributions (op_ref_dfine.c is the specification).
 */
#include "nn/op_dfine.h"
#include "nn/op_ref.h"
#include "nn/simd/math.h"

#include <math.h>

um_kernel UM_NAME(topk), UM_NAME(deform), UM_NAME(integral), UM_NAME(lqe_stats);

/* ---- topk ---- */

struct best {
    float key;
    int32_t row;
};

UM_INLINE float row_max(const float *s, int n) /* NaN counts as -inf */
{
    float key = -__builtin_inff();
    int i = 0;
    if (n >= VL) {
        vf top = vf_set1(key);
        for (; i + VL <= n; i += VL)
            top = vf_max(vf_load(s + i), top);
        key = vf_hmax(top);
    }
    for (; i < n; i++)
        key = s[i] > key ? s[i] : key;
    return key;
}

void UM_NAME(topk)(const struct um_call *call)
{
    struct best *best = um_pool_scratch(call->pool, 0);
    const struct um_view *out = &call->t[0], *scores = &call->t[1];
    int k = out->h * out->w, n = 0, rows = scores->h * scores->w;
    if ((size_t)k * sizeof *best > UM_POOL_SCRATCH) {
        um_ref_topk(call);
        return;
    }
    for (int32_t r = 0; r < rows; r++) {
        float key = row_max(um_view_at(scores, r), scores->c);
        if (n == k && !(key > best[n - 1].key))
            continue;
        int lo = 0,
            hi = n; /* first place whose key is smaller: equal keys keep the order of rows */
        while (lo < hi) {
            int mid = (lo + hi) / 2;
            if (key > best[mid].key)
                hi = mid;
            else
                lo = mid + 1;
        }
        n += n < k;
        memmove(best + lo + 1, best + lo, (size_t)(n - 1 - lo) * sizeof *best);
        best[lo] = (struct best){key, r};
    }
    for (int i = 0; i < k; i++)
        ((int32_t *)out->data)[i * out->ld] = best[i].row;
}

/* ---- deformable sampling ---- */

enum { POINTS_MAX = 64, QUERIES = 8 /* of one item */, SIDE_QUERIES = 64 };

static void softmax(float *p, const float *logit, int n)
{
    float top = -__builtin_inff(), sum = 0;
    for (int i = 0; i < n; i++)
        top = logit[i] > top ? logit[i] : top;
    for (int i = 0; i < n; i += VL) {
        int some = n - i < VL ? n - i : VL;
        vf_store_n(p + i, um_exp_neg(vf_load_n(logit + i, some) - top), some);
    }
    for (int i = 0; i < n; i++)
        sum += p[i];
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

/* The corners that the samples of one query and head read, and their weights. */
struct corners {
    const float *src[4 * POINTS_MAX];
    float tap[4 * POINTS_MAX];
    int n;
};

/* The maps that points lie in, of which x and y take turns. */
struct lattice {
    float share[2 * POINTS_MAX], size[2 * POINTS_MAX];
    int points;
};

static void find_lattice(struct lattice *g, const struct um_deform_args *a)
{
    g->points = 0;
    for (int l = 0; l < a->levels; l++)
        for (int k = 0; k < a->points[l]; k++, g->points++) {
            int x = 2 * g->points, y = x + 1;
            g->share[x] = g->share[y] = 1 / (float)a->points[l];
            g->size[x] = (float)a->w[l];
            g->size[y] = (float)a->h[l];
        }
}

/* Where the points of a query and head are: first cells, the way beyond them, and which coordinates
 * are near a map (in float: huge and NaN are not). */
struct places {
    int32_t cell[2 * POINTS_MAX], near[2 * POINTS_MAX];
    float part[2 * POINTS_MAX];
};

static void find_places(struct places *at, const struct lattice *g, const float *ref,
                        const float *offset)
{
    float centre[VL], extent[VL];
    for (int i = 0; i < VL; i++) {
        centre[i] = ref[i % 2];
        extent[i] = ref[2 + i % 2];
    }
    for (int i = 0, all = 2 * g->points; i < all; i += VL) {
        int n = all - i < VL ? all - i : VL;
        vf size = vf_load_n(g->size + i, n), off = vf_load_n(offset + i, n);
        vf x = off * vf_load_n(g->share + i, n) * vf_load(extent) * 0.5f;
        x = (vf_load(centre) + x) * size - 0.5f;
        vf first = vf_floor(x);
        vi near = (vi)(x > -1.0f) & (vi)(x < size);
        vf_store_n(at->part + i, x - first, n);
        vf_store_n((float *)(void *)(at->cell + i), vf_cast(vi_trunc(first)), n);
        vf_store_n((float *)(void *)(at->near + i), vf_cast(near), n);
    }
}

static void find_corners(struct corners *t, const struct um_call *call, int q, int head,
                         const struct lattice *g)
{
    const struct um_deform_args *a = call->args;
    const struct um_view *memory = &call->t[3];
    const float *offset = um_view_at(&call->t[1], q) + 2 * g->points * head;
    const float *logit = um_view_at(&call->t[1], q) + 2 * g->points * a->heads + g->points * head;
    const float *map = um_view_at(memory, 0) + memory->c / a->heads * head;
    float weight[POINTS_MAX];
    struct places at;
    softmax(weight, logit, g->points);
    find_places(&at, g, um_view_at(&call->t[2], q), offset);
    t->n = 0;
    for (int l = 0, p = 0; l < a->levels; map += a->h[l] * a->w[l] * memory->ld, l++) {
        int w = a->w[l], h = a->h[l];
        for (int k = 0; k < a->points[l]; k++, p++) {
            if (!at.near[2 * p] || !at.near[2 * p + 1])
                continue;
            int x0 = at.cell[2 * p], y0 = at.cell[2 * p + 1];
            float fx = at.part[2 * p], fy = at.part[2 * p + 1];
            float tap[2] = {weight[p] * (1 - fx), weight[p] * fx}, wy[2] = {1 - fy, fy};
            bool whole = x0 >= 0 && x0 + 1 < w && y0 >= 0 && y0 + 1 < h;
            for (int c = 0; c < 4; c++) {
                int x = c % 2, y = c / 2;
                if (!whole && (x0 + x < 0 || x0 + x >= w || y0 + y < 0 || y0 + y >= h))
                    continue;
                t->src[t->n] = map + ((ptrdiff_t)(y0 + y) * w + x0 + x) * memory->ld;
                t->tap[t->n++] = tap[x] * wy[y];
            }
        }
    }
}

/* y = sum of tap * src over nv vectors, kept in registers. */
UM_INLINE void gather_corners(float *y, const struct corners *t, int col, int nv)
{
    vf acc[8];
    UM_UNROLL
    for (int v = 0; v < nv; v++)
        acc[v] = vf_zero();
    for (int i = 0; i < t->n; i++) {
        vf tap = vf_set1(t->tap[i]);
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            acc[v] = vf_fma(tap, vf_load(t->src[i] + col + v * VL), acc[v]);
    }
    UM_UNROLL
    for (int v = 0; v < nv; v++)
        vf_store(y + col + v * VL, acc[v]);
}

static void deform_query(const struct um_call *call, int q, const struct lattice *g)
{
    const struct um_deform_args *a = call->args;
    struct corners t;
    for (int head = 0; head < a->heads; head++) {
        int d = call->t[3].c / a->heads, col = 0;
        float *y = um_view_at(&call->t[0], q) + d * head;
        find_corners(&t, call, q, head, g);
        for (; col + 4 * VL <= d; col += 4 * VL)
            gather_corners(y, &t, col, 4);
        for (; col + 2 * VL <= d; col += 2 * VL)
            gather_corners(y, &t, col, 2);
        for (; col + VL <= d; col += VL)
            gather_corners(y, &t, col, 1);
        for (; col < d; col++) {
            y[col] = 0;
            for (int i = 0; i < t.n; i++)
                y[col] += t.tap[i] * t.src[i][col];
        }
    }
}

static void deform_queries(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    int rows = call->t[0].h * call->t[0].w,
        end = (item + 1) * QUERIES < rows ? (item + 1) * QUERIES : rows;
    struct lattice g;
    (void)worker;
    find_lattice(&g, call->args);
    for (int q = item * QUERIES; q < end; q++)
        deform_query(call, q, &g);
}

void UM_NAME(deform)(const struct um_call *call)
{
    um_pool_run(call->pool, (call->t[0].h * call->t[0].w + QUERIES - 1) / QUERIES, deform_queries,
                (void *)(uintptr_t)call);
}

/* ---- distributions of the box sides ---- */

/* Sum of e^(logit - top), and of it weighted by w (stride ld; NULL: not wanted). */
UM_INLINE float sum_exp(const float *logit, int n, float top, const float *w, ptrdiff_t ld,
                        float *weighted)
{
    vf sum = vf_zero(), mean = vf_zero();
    for (int i = 0; i < n; i += VL) {
        float some[VL], part[VL] = {0};
        int have = n - i < VL ? n - i : VL;
        for (int k = 0; k < have; k++)
            part[k] = w ? w[(i + k) * ld] : 0;
        vf_store(some, um_exp_neg(vf_load_n(logit + i, have) - top));
        vf e = vf_load_n(some, have); /* lanes beyond the last are zero again */
        sum += e;
        mean = vf_fma(e, vf_load(part), mean);
    }
    *weighted = vf_sum(mean);
    return vf_sum(sum);
}

static void integral_query(const struct um_call *call, int q)
{
    const struct um_integral_args *a = call->args;
    const struct um_view *t = call->t;
    const float *ref = um_view_at(&t[2], q);
    float *y = um_view_at(&t[0], q), dist[4], half = 0.5f * a->reg_scale;
    int bins = t[1].c / 4;
    for (int side = 0; side < 4; side++) {
        const float *logit = um_view_at(&t[1], q) + bins * side;
        float mean, sum = sum_exp(logit, bins, row_max(logit, bins), t[3].data, t[3].ld, &mean);
        dist[side] = mean / sum;
    }
    float x1 = ref[0] - (half + dist[0]) * (ref[2] / a->reg_scale);
    float y1 = ref[1] - (half + dist[1]) * (ref[3] / a->reg_scale);
    float x2 = ref[0] + (half + dist[2]) * (ref[2] / a->reg_scale);
    float y2 = ref[1] + (half + dist[3]) * (ref[3] / a->reg_scale);
    y[0] = (x1 + x2) / 2;
    y[1] = (y1 + y2) / 2;
    y[2] = x2 - x1;
    y[3] = y2 - y1;
}

static void lqe_query(const struct um_call *call, int q)
{
    int bins = call->t[1].c / 4;
    for (int side = 0; side < 4; side++) {
        const float *logit = um_view_at(&call->t[1], q) + bins * side;
        float *y = um_view_at(&call->t[0], q) + 5 * side, top[4], unused;
        for (int k = 0; k < 4; k++)
            top[k] = -__builtin_inff();
        for (int n = 0; n < bins; n++) {
            int k = 3;
            if (!(logit[n] > top[3]))
                continue;
            for (; k > 0 && logit[n] > top[k - 1]; k--)
                top[k] = top[k - 1];
            top[k] = logit[n];
        }
        float sum = sum_exp(logit, bins, top[0], NULL, 0, &unused);
        for (int k = 0; k < 4; k++)
            y[k] = expf(top[k] - top[0]) / sum;
        y[4] = (y[0] + y[1] + y[2] + y[3]) / 4;
    }
}

static void integral_queries(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    int rows = call->t[0].h * call->t[0].w;
    (void)worker;
    for (int q = item * SIDE_QUERIES; q < rows && q < (item + 1) * SIDE_QUERIES; q++)
        integral_query(call, q);
}

static void lqe_queries(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    int rows = call->t[0].h * call->t[0].w;
    (void)worker;
    for (int q = item * SIDE_QUERIES; q < rows && q < (item + 1) * SIDE_QUERIES; q++)
        lqe_query(call, q);
}

void UM_NAME(integral)(const struct um_call *call)
{
    int rows = call->t[0].h * call->t[0].w;
    um_pool_run(call->pool, (rows + SIDE_QUERIES - 1) / SIDE_QUERIES, integral_queries,
                (void *)(uintptr_t)call);
}

void UM_NAME(lqe_stats)(const struct um_call *call)
{
    int rows = call->t[0].h * call->t[0].w;
    um_pool_run(call->pool, (rows + SIDE_QUERIES - 1) / SIDE_QUERIES, lqe_queries,
                (void *)(uintptr_t)call);
}
