/* SPDX-License-Identifier: Apache-2.0 */
/* cross.c in bf16. Tokens look at the image as attend16.h does: their rows are queries, parts of
 * the pixels keys and values. */
#include "nn/simd/attend16.h"
#include "nn/simd/cross.h"
#include "nn/simd/row_norm.h"

enum { STRIP16 = 64 }; /* rows whose scores are made at once */

/* x + place of some pixels, a row every `pitch` bytes. */
static void add_place(uint8_t *to, int pitch, const struct um_view *x, const struct um_view *place,
                      int first, int n, int dim)
{
    for (int r = 0; r < n; r++, to += pitch) {
        const float *a = um_view_at(x, first + r), *b = um_view_at(place, first + r);
        for (int i = 0; i < dim; i += VL)
            vf_store_bf16(to + 2 * i, vf_load(a + i) + vf_load(b + i));
    }
}

/* Every row of tokens folded with w [c][dim], to [rows][dim]. */
static void fold(float *to, const struct shape *s, const struct um_view *tokens, const float *w,
                 float scale)
{
    for (int r = 0; r < s->rows; r++)
        fold_row(to + (ptrdiff_t)r * s->dim, s, um_view_at(tokens, r / HEADS), w, r % HEADS, scale);
}

/* ---- tokens look at the image ---- */

struct look {
    const struct um_call *call;
    struct shape s;
    int chunks;
    const float *query;         /* [rows][dim] */
    float *mean;                /* [chunks][rows][dim] */
    struct attend16_norm *norm; /* [chunks][rows] */
    ptrdiff_t own;              /* floats of scratch before those of a thread */
};

static void look_item(void *ctx, int item, int worker)
{
    const struct look *j = ctx;
    const struct um_cross_args *args = j->call->args;
    const struct shape *s = &j->s;
    const struct um_view *x = &j->call->t[2], *place = &j->call->t[3];
    int first = split_at(s->pixels, j->chunks, item),
        n = split_at(s->pixels, j->chunks, item + 1) - first;
    const float *row[CHUNK16], *query[UM_CROSS_LANES];
    float *mean[UM_CROSS_LANES];
    size_t at = 0;
    struct attend16 a = {.d = s->dim, .keys = n, .how = args->how, .scale = 1};
    int pitch = attend16_row(&a, s->dim);
    attend16_room(&a, (float *)um_pool_scratch(j->call->pool, worker) + j->own, &at);
    for (int r = 0; r < n; r++)
        row[r] = um_view_at(x, first + r);
    for (int r = 0; r < s->rows; r++) {
        query[r] = j->query + (ptrdiff_t)r * s->dim;
        mean[r] = j->mean + ((ptrdiff_t)item * s->rows + r) * s->dim;
    }
    add_place((uint8_t *)a.rounded, pitch, x, place, first, n, s->dim);
    attend16_columns(a.keys_packed, a.how, a.rounded, pitch, n, s->dim);
    attend16_pairs(a.values_packed, a.how, row, 0, n, s->dim);
    attend16_run(&a, query, 0, NULL, mean, s->rows, j->norm + (ptrdiff_t)item * s->rows);
}

/* The mean of all parts' means, in their order, into the first. */
static void join(const struct look *j)
{
    const struct shape *s = &j->s;
    for (int r = 0; r < s->rows; r++) {
        const struct attend16_norm *norm = j->norm + r;
        float most = norm->top;
        vf all = vf_zero(), part[CHUNKS];
        for (int k = 1; k < j->chunks; k++)
            most = norm[k * s->rows].top > most ? norm[k * s->rows].top : most;
        for (int k = 0; k < j->chunks; k++) {
            part[k] = vf_set1(norm[k * s->rows].top - most);
            um_exp2_neg_brief_v(&part[k], 1);
            part[k] *= vf_set1(norm[k * s->rows].sum);
            all += part[k];
        }
        for (int k = 0; k < j->chunks; k++)
            part[k] = part[k] / all;
        for (int i = 0; i < s->dim; i += VL)
            join_vectors(j->mean + (ptrdiff_t)r * s->dim + i, (ptrdiff_t)s->rows * s->dim, part,
                         j->chunks);
    }
}

/* t: out, q, x, place, wk, wv, bv? */
void UM_NAME(token_to_image16)(const struct um_call *call)
{
    const struct um_cross_args *args = call->args;
    const struct um_view *t = call->t;
    struct look j = {.call = call, .s = shape_of(&t[1], &t[2])};
    const struct shape *s = &j.s;
    float *base = um_pool_scratch(call->pool, 0), *at = base, *query = take(&at, s->rows * s->dim);
    j.chunks = chunks_of(s->pixels);
    j.query = query;
    j.norm = (struct attend16_norm *)(void *)take(&at, 2 * j.chunks * s->rows);
    j.mean = take(&at, j.chunks * s->rows * s->dim);
    j.own = at - base;
    fold(query, s, &t[1], t[4].data, args->scale);
    um_pool_run(call->pool, j.chunks, look_item, &j);
    join(&j);
    through_values(call, s, j.mean);
}

/* ---- the image looks at the tokens ---- */

struct answer {
    const struct um_call *call;
    struct shape s;
    struct gemm key, value;
    ptrdiff_t own;
    int items;
};

static void softmax_row(uint8_t *to, const float *s, int lanes)
{
    vf x[VECTORS];
    softmax(x, s, lanes, true);
    for (int i = 0, n = lanes / VL; i < n; i++)
        vf_store_bf16(to + 2 * i * VL, x[i]);
}

static void answer_item(void *ctx, int item, int worker)
{
    const struct answer *j = ctx;
    const struct shape *s = &j->s;
    const struct um_view *t = j->call->t;
    const struct um_cross_args *args = j->call->args;
    int rounded = 2 * s->dim / GEMM_LANE,
        weights = gemm_whole(2 * s->lanes, GEMM_TILE_ROW) / GEMM_LANE;
    float *at = (float *)um_pool_scratch(j->call->pool, worker) + j->own,
          *pixels = take(&at, STRIP16 * rounded), *score = take(&at, STRIP16 * s->lanes),
          *p = take(&at, STRIP16 * weights);
    memset(p, 0, (size_t)(STRIP16 * weights) * sizeof *p); /* behind the last lane */
    int end = split_at(s->pixels, j->items, item + 1);
    for (int r = split_at(s->pixels, j->items, item), n; r < end; r += n) {
        n = end - r < STRIP16 ? end - r : STRIP16;
        add_place((uint8_t *)pixels, 2 * s->dim, &t[1], &t[2], r, n, s->dim);
        um_gemm_block(&j->key, pixels, rounded, n, score, s->lanes, NULL, 0, 0,
                      um_gemm_panels(s->lanes));
        for (int i = 0; i < n; i++)
            softmax_row((uint8_t *)(p + i * weights), score + i * s->lanes, s->lanes);
        float *out = um_view_at(&t[0], r);
        um_gemm_block(&j->value, p, weights, n, out, t[0].ld, um_view_at(&t[1], r), t[1].ld, 0,
                      um_gemm_panels(s->dim));
        for (int i = 0; i < n; i++, out += t[0].ld)
            um_row_norm(out, out, t[9].data, t[10].data, s->dim, args->eps);
    }
}

/* t: out, x, place, k, v, wq, bq, wo, bo, gamma, beta; wo [c][dim] */
void UM_NAME(image_to_token16)(const struct um_call *call)
{
    const struct um_cross_args *args = call->args;
    const struct um_view *t = call->t;
    struct answer j = {.call = call, .s = shape_of(&t[3], &t[1])};
    const struct shape *s = &j.s;
    float scale = args->scale * UM_LOG2E;
    struct attend16 room = {.d = s->dim, .keys = s->lanes, .how = args->how};
    const float *row[UM_CROSS_LANES];
    float *base = um_pool_scratch(call->pool, 0), *at = base, *bias = take(&at, s->lanes),
          *keys = take(&at, (int)attend16_keys_room(&room)),
          *values = take(&at, (int)attend16_values_room(&room)),
          *folded = take(&at, s->rows * s->dim), *rounded = take(&at, s->rows * s->dim / 2);
    j.own = at - base;
    key_bias(bias, s, call, scale);
    fold(folded, s, &t[3], t[5].data, scale);
    um_gemm16_round((uint8_t *)rounded, 2 * s->dim, folded, s->dim, s->rows, s->dim, false);
    attend16_columns(keys, args->how, rounded, 2 * s->dim, s->rows, s->dim);
    fold(folded, s, &t[4], t[7].data, 1);
    for (int r = 0; r < s->rows; r++)
        row[r] = folded + (ptrdiff_t)r * s->dim;
    attend16_pairs(values, args->how, row, 0, s->rows, s->dim);
    j.key = (struct gemm){
        .narrow = keys, .type = UM_BF16, .ready = true, .bias = bias, .k = s->dim, .n = s->lanes};
    j.value = (struct gemm){.narrow = values,
                            .type = UM_BF16,
                            .ready = true,
                            .bias = t[8].data,
                            .k = s->rows,
                            .n = s->dim};
    j.items = items_of(s->pixels);
    um_pool_run(call->pool, j.items, answer_item, &j);
}
