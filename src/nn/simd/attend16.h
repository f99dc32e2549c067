/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of one head in bf16: two products on gemm16 with a softmax in floats between them. Keys
 * and pairs of values are packed as weights are; queries and probabilities are rows. A block of
 * queries is done with before the next one starts, so its scores stay in the L1 cache. */
#ifndef UM_NN_SIMD_ATTEND16_H
#define UM_NN_SIMD_ATTEND16_H

#include "nn/simd/gemm.h"
#include "nn/simd/math.h"
#include "nn/simd/room.h"

enum { ATTEND16_ROWS = 32 };

struct attend16 {
    int d, keys;
    enum um_narrow_how how;
    float scale; /* of queries */
    /* In floats: */
    float *keys_packed, *values_packed, *rounded; /* rounded: keys as rows, then queries, then
                                                     probabilities */
    float *scores;
};

/* Bytes of a row of k numbers, which whole vectors are stored to. */
UM_INLINE int attend16_row(const struct attend16 *a, int k)
{
    return gemm_whole(gemm16_depth(a->how, k), 2 * VL);
}

UM_INLINE size_t attend16_packed(const struct attend16 *a, int k, int n)
{
    return UM_BF16_ALIGN +
           (size_t)um_gemm_panels(n) * (size_t)um_gemm_nr(n) * (size_t)gemm16_depth(a->how, k);
}

/* Room for its arrays, of which these are how many floats: */
UM_INLINE size_t attend16_keys_room(const struct attend16 *a)
{
    return attend16_packed(a, a->d, a->keys) / sizeof(float);
}
UM_INLINE size_t attend16_values_room(const struct attend16 *a)
{
    return attend16_packed(a, a->keys, a->d) / sizeof(float);
}
UM_INLINE void attend16_room(struct attend16 *a, float *base, size_t *at)
{
    size_t keys = (size_t)a->keys * (size_t)attend16_row(a, a->d),
           rows = ATTEND16_ROWS * (size_t)(attend16_row(a, a->d) + attend16_row(a, a->keys));
    a->keys_packed = room_take(base, at, attend16_keys_room(a));
    a->values_packed = room_take(base, at, attend16_values_room(a));
    a->rounded = room_take(base, at, (keys > rows ? keys : rows) / sizeof(float));
    a->scores = room_take(base, at, ATTEND16_ROWS * (size_t)gemm_whole(a->keys, VL));
}

/* Row i of the scores of a block of queries. */
UM_INLINE float *attend16_score(const struct attend16 *a, int i)
{
    return a->scores + (ptrdiff_t)i * gemm_whole(a->keys, VL);
}

/* d floats times scale, and zeros up to the end of the row. */
UM_INLINE void attend16_round(uint8_t *to, int row, const float *x, int d, float scale)
{
    for (int i = 0; 2 * i < row; i += VL) {
        int n = d - i;
        vf v = n >= VL ? vf_load(x + i) : n > 0 ? vf_load_n(x + i, n) : vf_zero();
        vf_store_bf16(to + 2 * i, v * vf_set1(scale));
    }
}

/* n rows of k bf16, `pitch` bytes from one to the next, as the columns of a product over k. */
UM_INLINE void attend16_columns(void *packed, enum um_narrow_how how, const void *rows, int pitch,
                                int n, int k)
{
    int nr = um_gemm_nr(n), pairs = gemm16_depth(how, k) / GEMM_LANE, ld = pitch / GEMM_LANE;
    float *to = (float *)(void *)um_bf16_write(packed, how);
    for (int p = 0; p < um_gemm_panels(n); p++, to += (ptrdiff_t)nr * pairs)
        um_gemm_panel(to, (const float *)rows + (ptrdiff_t)p * nr * ld, ld, n - p * nr, pairs, nr);
}

/* k rows of n floats, row[i] + at, as what a product over k meets one after the other. */
UM_INLINE void attend16_pairs(void *packed, enum um_narrow_how how, const float *const *row, int at,
                              int k, int n)
{
    int nr = um_gemm_nr(n), panels = um_gemm_panels(n), deep = gemm16_depth(how, k) / GEMM_LANE;
    int32_t *pair = (int32_t *)(void *)um_bf16_write(packed, how);
    for (int p = 0; p < panels; p++)
        for (int i = 0; i < deep; i++)
            for (int j = p * nr; j < (p + 1) * nr; j += VL, pair += VL) {
                vf v[2];
                for (int e = 0; e < 2; e++) {
                    int r = 2 * i + e, left = r < k ? n - j : 0;
                    const float *x = r < k ? row[r] + at + j : NULL;
                    v[e] = left >= VL ? vf_load(x) : left > 0 ? vf_load_n(x, left) : vf_zero();
                }
                vi_store(pair, vi_pair_bf16(v[0], v[1]));
            }
}

/* key[i] + key_at, value[i] + value_at: those of token i. */
UM_INLINE void attend16_pack(const struct attend16 *a, const float *const *key, int key_at,
                             const float *const *value, int value_at)
{
    int pitch = attend16_row(a, a->d);
    uint8_t *rows = (uint8_t *)a->rounded;
    for (int i = 0; i < a->keys; i++)
        attend16_round(rows + (ptrdiff_t)i * pitch, pitch, key[i] + key_at, a->d, 1);
    attend16_columns(a->keys_packed, a->how, rows, pitch, a->keys, a->d);
    attend16_pairs(a->values_packed, a->how, value, value_at, a->keys, a->d);
}

/* `some` vectors of scores to exponentials as bf16, and their sums. */
UNCHECKED UM_INLINE void attend16_exp(uint8_t *to, const float *s, vf top, vf *sum, const int some)
{
    vf e[4];
    UM_EACH_(some)
        e[v_] = vf_fma(vf_load(s + v_ * VL), vf_set1(UM_LOG2E), top);
    um_exp2_neg_brief_v(e, some);
    UM_EACH_(some) {
        vf_store_bf16(to + 2 * v_ * VL, e[v_]);
        *sum += e[v_];
    }
}

struct attend16_norm {
    float top, sum; /* the largest score times log2 e, and the sum of 2^(score log2 e - top) */
};

/* Scores to exponentials as a row of bf16, zeros behind them. */
UM_INLINE struct attend16_norm attend16_softmax(uint8_t *to, int row, float *s, int keys)
{
    int whole = keys / VL * VL, rest = keys - whole, end = gemm_whole(keys, VL), i;
    vf top = vf_set1(-3.0e38f), sum = vf_zero();
    if (rest) { /* the last vector's other lanes: exponentials that are 0 beside any other */
        vf_store(s + whole, vf_select(vi_first(rest), vf_load(s + whole), top));
    }
    for (i = 0; i < end; i += VL)
        top = vf_max(top, vf_load(s + i));
    float most = UM_LOG2E * vf_hmax(top);
    top = vf_set1(-most);
    for (i = 0; i + 4 * VL <= end; i += 4 * VL)
        attend16_exp(to + 2 * i, s + i, top, &sum, 4);
    for (; i < end; i += VL)
        attend16_exp(to + 2 * i, s + i, top, &sum, 1);
    for (; 2 * i < row; i += VL)
        vf_store_bf16(to + 2 * i, vf_zero());
    return (struct attend16_norm){most, vf_sum(sum)};
}

/* Queries row[i] + at, bias[i] (or NULL: none) a row of `keys` floats, which of at most
 * ATTEND16_ROWS queries may be the score's own, results to out[i], and
 * norm[i] (or NULL) what they were divided by. */
UM_INLINE void attend16_run(const struct attend16 *a, const float *const *row, int query_at,
                            const float *const *bias, float *const *out, int queries,
                            struct attend16_norm *norm)
{
    const void *in[ATTEND16_ROWS], *weight[ATTEND16_ROWS];
    float *score[ATTEND16_ROWS], inverse[ATTEND16_ROWS];
    int q_row = attend16_row(a, a->d), p_row = attend16_row(a, a->keys),
        blocks = (queries + ATTEND16_ROWS - 1) / ATTEND16_ROWS;
    uint8_t *q = (uint8_t *)a->rounded, *p = q + ATTEND16_ROWS * q_row;
    struct gemm scores = {
        .narrow = a->keys_packed, .type = UM_BF16, .ready = true, .k = a->d, .n = a->keys};
    struct gemm values = scores;
    values.narrow = a->values_packed;
    values.k = a->keys;
    values.n = a->d;
    for (int i = 0; i < ATTEND16_ROWS; i++) {
        in[i] = q + i * q_row;
        weight[i] = p + i * p_row;
        score[i] = attend16_score(a, i);
    }
    for (int b = 0; b < blocks; b++) {
        int first = split_at(queries, blocks, b), n = split_at(queries, blocks, b + 1) - first;
        for (int i = 0; i < n; i++)
            attend16_round(q + i * q_row, q_row, row[first + i] + query_at, a->d, a->scale);
        um_gemm_rows(&scores, &(struct gemm_rows){in, score, bias ? bias + first : NULL, 1}, n, 0,
                     um_gemm_panels(a->keys));
        for (int i = 0; i < n; i++) {
            struct attend16_norm by = attend16_softmax(p + i * p_row, p_row, score[i], a->keys);
            inverse[i] = 1.0f / by.sum;
            if (norm)
                norm[first + i] = by;
        }
        um_gemm_rows(&values, &(struct gemm_rows){weight, out + first, NULL, 1}, n, 0,
                     um_gemm_panels(a->d));
        for (int i = 0; i < n; i++)
            for (int j = 0; j < a->d; j += VL) {
                float *o = out[first + i] + j;
                int left = a->d - j < VL ? a->d - j : VL;
                vf_store_n(o, vf_load_n(o, left) * vf_set1(inverse[i]), left);
            }
    }
}

#endif
