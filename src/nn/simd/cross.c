/* SPDX-License-Identifier: Apache-2.0 */
/* SAM's attention between few tokens and many pixels, with the pixels' projections moved to the
 * tokens: q.(x wk) = (q wk^T).x, and a sum of rows of x wv is (a sum of rows of x) wv. A pixel then
 * meets 8 rows of each token instead of three square matrices, and its keys and values never exist.
 * What the keys' bias adds is the same for all pixels, and gone in the softmax.
 *
 * A token's rows of all heads lie side by side in the lanes: lane token*heads + head. */
#include "nn/simd/cross.h"
#include "nn/simd/gemm.h"
#include "nn/simd/row_norm.h"
#include "nn/simd/transpose.h"

enum { STRIP = 48 }; /* rows whose scores are made at once */

/* All rows as the second operand of a product over dim, [panel][dim][panel width]; `tmp` has room
 * for 8 of them. */
static void fold_columns(float *packed, const struct shape *s, const struct um_view *tokens,
                         const float *w, float scale, float *tmp)
{
    int nr = um_gemm_nr(s->lanes);
    memset(packed, 0, (size_t)s->dim * (size_t)s->lanes * sizeof *packed);
    for (int t = 0; t < s->tokens; t++) { /* the heads of a token are 8 lanes of one panel */
        for (int h = 0; h < HEADS; h++)
            fold_row(tmp + (ptrdiff_t)h * s->dim, s, um_view_at(tokens, t), w, h, scale);
        int lane = t * HEADS;
        transpose(packed + (ptrdiff_t)(lane / nr) * nr * s->dim + lane % nr, nr, tmp, s->dim, HEADS,
                  s->dim, 1);
    }
}

/* x + place of some pixels, side by side. */
static void add_place(float *to, const struct um_view *x, const struct um_view *place, int first,
                      int n, int dim)
{
    for (int r = 0; r < n; r++, to += dim) {
        const float *a = um_view_at(x, first + r), *b = um_view_at(place, first + r);
        for (int i = 0; i < dim; i += VL)
            vf_store(to + i, vf_load(a + i) + vf_load(b + i));
    }
}

/* Scores of pixels first..first+n-1, [n][lanes]. */
static void scores(float *to, const struct gemm *g, const struct um_view *x,
                   const struct um_view *place, int first, int n, float *tmp)
{
    for (int r = 0; r < n; r += STRIP) {
        int m = n - r < STRIP ? n - r : STRIP;
        add_place(tmp, x, place, first + r, m, g->k);
        um_gemm_block(g, tmp, g->k, m, to + (ptrdiff_t)r * g->n, g->n, NULL, 0, 0,
                      um_gemm_panels(g->n));
    }
}

/* ---- tokens look at the image: parts of the pixels are summed each for itself ---- */

struct look {
    const struct um_call *call;
    struct shape s;
    struct gemm g;
    int chunks;
    float *top, *sum, *o; /* [chunks][lanes], [chunks][lanes], [chunks][dim][lanes] */
    ptrdiff_t own;        /* floats of scratch before those of a thread */
};

/* Of the scores in s [n][lanes], a vector of lanes: to their exponentials. */
static void exponentials(float *s, ptrdiff_t lanes, int n, float *top, float *sum)
{
    vf most = vf_set1(-3.0e38f), all = vf_zero();
    for (int r = 0; r < n; r++)
        most = vf_max(most, vf_load(s + r * lanes));
    int r = 0;
    for (; r + 4 <= n; r += 4) {
        vf e[4];
        UM_UNROLL
        for (int k = 0; k < 4; k++)
            e[k] = vf_load(s + (r + k) * lanes) - most;
        um_exp_neg_v(e, 4);
        UM_UNROLL
        for (int k = 0; k < 4; k++) {
            all += e[k];
            vf_store(s + (r + k) * lanes, e[k]);
        }
    }
    for (; r < n; r++) {
        vf e = um_exp_neg(vf_load(s + r * lanes) - most);
        all += e;
        vf_store(s + r * lanes, e);
    }
    vf_store(top, most);
    vf_store(sum, all);
}

/* o[i..i+nd)[lanes] = sum over n pixels of s [n][lanes] times their channels, nv vectors of lanes.
 */
UM_INLINE void weigh(float *o, const float *s, ptrdiff_t lanes, const float *x, ptrdiff_t ldx,
                     int n, const int nd, const int nv)
{
    vf acc[8][4];
    UM_UNROLL
    for (int m = 0; m < nd; m++) {
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            acc[m][v] = vf_zero();
    }
    for (int r = 0; r < n; r++, s += lanes, x += ldx) {
        vf p[4];
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            p[v] = vf_load(s + v * VL);
        UM_UNROLL
        for (int m = 0; m < nd; m++) {
            vf y = vf_set1(x[m]);
            UM_UNROLL
            for (int v = 0; v < nv; v++)
                acc[m][v] = vf_fma(p[v], y, acc[m][v]);
        }
    }
    UM_UNROLL
    for (int m = 0; m < nd; m++) {
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            vf_store(o + m * lanes + v * VL, acc[m][v]);
    }
}

/* All channels, nv vectors of lanes; dim is a multiple of 8. */
#define WEIGH(nv, nd)                                                                             \
    static __attribute__((noinline)) void weigh_##nv(                                             \
        float *o, const float *s, ptrdiff_t lanes, const float *x, ptrdiff_t ldx, int n, int dim) \
    {                                                                                             \
        for (int i = 0; i < dim; i += nd)                                                         \
            weigh(o + i * lanes, s, lanes, x + i, ldx, n, nd, nv);                                \
    }
WEIGH(1, 8)
#if VL == 8
WEIGH(2, 4)
#else
WEIGH(2, 8)
WEIGH(3, 8)
WEIGH(4, 4)
#endif

static void look_item(void *ctx, int item, int worker)
{
    const struct look *j = ctx;
    const struct shape *s = &j->s;
    const struct um_view *x = &j->call->t[2];
    int first = split_at(s->pixels, j->chunks, item),
        n = split_at(s->pixels, j->chunks, item + 1) - first;
    float *at = (float *)um_pool_scratch(j->call->pool, worker) + j->own,
          *tmp = take(&at, STRIP * s->dim), *score = at,
          *o = j->o + (ptrdiff_t)item * s->dim * s->lanes;
    scores(score, &j->g, x, &j->call->t[3], first, n, tmp);
    for (int l = 0; l < s->lanes; l += VL)
        exponentials(score + l, s->lanes, n, j->top + item * s->lanes + l,
                     j->sum + item * s->lanes + l);
    for (int v = 0, all = s->lanes / VL, nv; v < all; v += nv) {
        int left = all - v;
        const float *from = score + v * VL, *pixels = um_view_at(x, first);
        float *to = o + v * VL;
#if VL == 8
        nv = left > 1 ? 2 : 1;
#else
        nv = left > 4 ? (left > 6 ? 4 : 3) : left;
        if (nv == 4)
            weigh_4(to, from, s->lanes, pixels, x->ld, n, s->dim);
        else if (nv == 3)
            weigh_3(to, from, s->lanes, pixels, x->ld, n, s->dim);
#endif
        if (nv == 2)
            weigh_2(to, from, s->lanes, pixels, x->ld, n, s->dim);
        else if (nv == 1)
            weigh_1(to, from, s->lanes, pixels, x->ld, n, s->dim);
    }
}

/* The sums of all parts, in their order, into the first. */
static void join(const struct look *j)
{
    const struct shape *s = &j->s;
    for (int l = 0; l < s->lanes; l += VL) {
        vf most = vf_set1(-3.0e38f), all = vf_zero(), part[CHUNKS];
        for (int k = 0; k < j->chunks; k++)
            most = vf_max(most, vf_load(j->top + k * s->lanes + l));
        for (int k = 0; k < j->chunks; k++) {
            part[k] = um_exp_neg(vf_load(j->top + k * s->lanes + l) - most);
            all = vf_fma(part[k], vf_load(j->sum + k * s->lanes + l), all);
        }
        for (int k = 0; k < j->chunks; k++)
            part[k] = part[k] / all;
        for (int i = 0; i < s->dim; i++)
            join_vectors(j->o + (ptrdiff_t)i * s->lanes + l, (ptrdiff_t)s->dim * s->lanes, part,
                         j->chunks);
    }
}

/* t: out, q, x, place, wk, wv, bv? */
void UM_NAME(token_to_image)(const struct um_call *call)
{
    const struct um_cross_args *args = call->args;
    const struct um_view *t = call->t;
    struct look j = {.call = call, .s = shape_of(&t[1], &t[2])};
    const struct shape *s = &j.s;
    if (args->bf16 && s->pixels <= CHUNKS * CHUNK16) { /* what scratch has room for */
        UM_NAME(token_to_image16)(call);
        return;
    }
    float *base = um_pool_scratch(call->pool, 0), *at = base;
    j.chunks = chunks_of(s->pixels);
    float *packed = take(&at, s->dim * s->lanes), *tmp = take(&at, HEADS * s->dim);
    j.top = take(&at, j.chunks * s->lanes);
    j.sum = take(&at, j.chunks * s->lanes);
    j.o = take(&at, j.chunks * s->dim * s->lanes);
    j.own = at - base;
    fold_columns(packed, s, &t[1], t[4].data, args->scale, tmp);
    j.g = (struct gemm){.b = packed, .k = s->dim, .n = s->lanes};
    um_pool_run(call->pool, j.chunks, look_item, &j);
    join(&j);
    float *turned = packed; /* rows of j.o are channels of the pixels, columns are (token, head) */
    transpose(turned, s->dim, j.o, s->lanes, s->dim, s->rows, 1);
    through_values(call, s, turned);
}

/* ---- the image looks at the tokens ---- */

struct answer {
    const struct um_call *call;
    struct shape s;
    struct gemm key, value;
    ptrdiff_t own;
    int items;
};

static void softmax_row(float *s, int lanes)
{
    vf x[VECTORS];
    softmax(x, s, lanes, false);
    for (int i = 0, n = lanes / VL; i < n; i++)
        vf_store(s + i * VL, x[i]);
}

static void answer_item(void *ctx, int item, int worker)
{
    const struct answer *j = ctx;
    const struct shape *s = &j->s;
    const struct um_view *t = j->call->t;
    const struct um_cross_args *args = j->call->args;
    float *at = (float *)um_pool_scratch(j->call->pool, worker) + j->own,
          *tmp = take(&at, STRIP * s->dim), *p = take(&at, STRIP * s->lanes);
    int end = split_at(s->pixels, j->items, item + 1);
    for (int r = split_at(s->pixels, j->items, item), n; r < end; r += n) {
        n = end - r < STRIP ? end - r : STRIP;
        scores(p, &j->key, &t[1], &t[2], r, n, tmp);
        for (int i = 0; i < n; i++)
            softmax_row(p + i * s->lanes, s->lanes);
        float *out = um_view_at(&t[0], r);
        um_gemm_block(&j->value, p, s->lanes, n, out, t[0].ld, um_view_at(&t[1], r), t[1].ld, 0,
                      um_gemm_panels(s->dim));
        for (int i = 0; i < n; i++, out += t[0].ld)
            um_row_norm(out, out, t[9].data, t[10].data, s->dim, args->eps);
    }
}

/* t: out, x, place, k, v, wq, bq, wo, bo, gamma, beta; wo [c][dim] */
void UM_NAME(image_to_token)(const struct um_call *call)
{
    const struct um_cross_args *args = call->args;
    const struct um_view *t = call->t;
    struct answer j = {.call = call, .s = shape_of(&t[3], &t[1])};
    const struct shape *s = &j.s;
    if (args->bf16) {
        UM_NAME(image_to_token16)(call);
        return;
    }
    float *base = um_pool_scratch(call->pool, 0), *at = base;
    float *packed = take(&at, s->dim * s->lanes), *bias = take(&at, s->lanes),
          *value = take(&at, s->rows * s->dim), *tmp = take(&at, HEADS * s->dim);
    j.own = at - base;
    fold_columns(packed, s, &t[3], t[5].data, args->scale, tmp);
    key_bias(bias, s, call, args->scale);
    int nr = um_gemm_nr(s->dim);
    for (int r = 0; r < s->rows; r++) { /* [panel][row][panel width] */
        fold_row(tmp, s, um_view_at(&t[4], r / HEADS), t[7].data, r % HEADS, 1);
        for (int i = 0; i < s->dim; i += nr)
            memcpy(value + (ptrdiff_t)i * s->rows + (ptrdiff_t)r * nr, tmp + i,
                   (size_t)nr * sizeof *tmp);
    }
    j.key = (struct gemm){.b = packed, .bias = bias, .k = s->dim, .n = s->lanes};
    j.value = (struct gemm){.b = value, .bias = t[8].data, .k = s->rows, .n = s->dim};
    j.items = items_of(s->pixels);
    um_pool_run(call->pool, j.items, answer_item, &j);
}
