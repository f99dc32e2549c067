/* SPDX-License-Identifier: Apache-2.0 */
/* The core of both attention kernels: softmax(q k^T + bias) v of one head for a block of up to
 * ATTEND_VECTORS * VL queries. Queries lie in the lanes: scores S[key][query], their maximum,
 * exponentials and sum are then all vertical, keys and values are broadcast, and the scores of a
 * block never leave the cache. Register tiles: 4 keys x 3 vectors (12 accumulators of 16 registers)
 * at 8 lanes, 6 x 4 (24 of 32) at others. Of many keys, some at a time: what came before is scaled
 * as the maximum grows (Milakov, Gimelshein, Online normalizer calculation for softmax, 2018). */
#ifndef UM_NN_SIMD_ATTEND_H
#define UM_NN_SIMD_ATTEND_H

#include "nn/simd/check.h"
#include "nn/simd/math.h"
#include "nn/simd/transpose.h"

#if VL == 8
enum { ATTEND_VECTORS = 3 };
#else
enum { ATTEND_VECTORS = 4 };
#endif

/* 1, defined by who includes this: the keys of a block of queries may come in several calls. */
#ifndef ATTEND_IN_PARTS
#define ATTEND_IN_PARTS 0
#endif

struct attend {
    int d, keys;
    const float *k, *v; /* row j at j*ld_k, j*ld_v */
    ptrdiff_t ld_k, ld_v;
    const float *bias;       /* of each key a row of queries; NULL: none */
    const int32_t *bias_row; /* [keys] where it begins; NULL: row j at j*ld_q */
    const float *q;          /* [d][query]: transposed and scaled; row i at i*ld_q */
    ptrdiff_t ld_q;
    float *s;               /* scratch [keys][vectors*VL] */
    float *o;               /* out [d][vectors*VL] */
    bool begun, unfinished; /* other keys had calls before, will have calls after this one */
    float *norm; /* then: [2][vectors*VL], the largest score and the sum of exponentials so far */
};

UM_INLINE const float *attend_bias(const struct attend *a, int j)
{
    return a->bias + (a->bias_row ? a->bias_row[j] : j * a->ld_q);
}

/* Scores of nk keys from j on; *top becomes the larger of itself and them. */
UNCHECKED UM_INLINE void attend_scores(const struct attend *a, int j, int nk, int nv, vf *top)
{
    vf acc[12][ATTEND_VECTORS];
    const float *k = a->k + j * a->ld_k, *q = a->q;
    UM_UNROLL
    for (int m = 0; m < nk; m++) {
        const float *bias = a->bias ? attend_bias(a, j + m) : NULL;
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            acc[m][v] = bias ? vf_load(bias + v * VL) : vf_zero();
    }
    for (int i = 0; i < a->d; i++, q += a->ld_q) {
        vf x[ATTEND_VECTORS];
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            x[v] = vf_load(q + v * VL);
        UM_UNROLL
        for (int m = 0; m < nk; m++) {
            vf y = vf_set1(k[m * a->ld_k + i]);
            UM_UNROLL
            for (int v = 0; v < nv; v++)
                acc[m][v] = vf_fma(x[v], y, acc[m][v]);
        }
    }
    UM_UNROLL
    for (int v = 0; v < nv; v++) {
        vf best = top[v];
        UM_UNROLL
        for (int m = 0; m < nk; m++) {
            vf_store(a->s + ((ptrdiff_t)(j + m) * nv + v) * VL, acc[m][v]);
            best = vf_max(best, acc[m][v]);
        }
        top[v] = best;
    }
}

/* Rows i..i+nd-1 of the output: what was there times `before`, then all of it times `after`. */
UNCHECKED UM_INLINE void attend_values(const struct attend *a, int i, int nd, int nv,
                                       const vf *before, const vf *after)
{
    vf acc[8][ATTEND_VECTORS];
    const float *s = a->s, *val = a->v + i;
    float *o = a->o + (ptrdiff_t)i * nv * VL;
    const bool begun = ATTEND_IN_PARTS && a->begun;
    UM_UNROLL
    for (int m = 0; m < nd; m++) {
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            acc[m][v] = begun ? vf_load(o + (m * nv + v) * VL) * before[v] : vf_zero();
    }
    for (int j = 0; j < a->keys; j++, s += nv * VL, val += a->ld_v) {
        vf x[ATTEND_VECTORS];
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            x[v] = vf_load(s + v * VL);
        UM_UNROLL
        for (int m = 0; m < nd; m++) {
            vf y = vf_set1(val[m]);
            UM_UNROLL
            for (int v = 0; v < nv; v++)
                acc[m][v] = vf_fma(x[v], y, acc[m][v]);
        }
    }
    UM_UNROLL
    for (int m = 0; m < nd; m++) {
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            vf_store(o + (m * nv + v) * VL, acc[m][v] * after[v]);
    }
}

/* Scores of some keys to their exponentials, which are summed. */
UNCHECKED UM_INLINE void attend_exp(float *s, int nk, int nv, const vf *top, vf *sum)
{
    vf e[4];
    UM_UNROLL
    for (int k = 0; k < nk; k++) {
        UM_UNROLL
        for (int v = 0; v < nv; v++)
            e[k * nv + v] = vf_load(s + (k * nv + v) * VL) - top[v];
    }
    um_exp_neg_v(e, nk * nv);
    UM_UNROLL
    for (int k = 0; k < nk; k++) {
        UM_UNROLL
        for (int v = 0; v < nv; v++) {
            sum[v] += e[k * nv + v];
            vf_store(s + (k * nv + v) * VL, e[k * nv + v]);
        }
    }
}

UNCHECKED UM_INLINE void attend_block(const struct attend *a, int nv, int nk, int nd)
{
    const int group = 4 / nv; /* keys whose exponentials go side by side */
    const bool begun = ATTEND_IN_PARTS && a->begun, unfinished = ATTEND_IN_PARTS && a->unfinished;
    vf top[ATTEND_VECTORS], sum[ATTEND_VECTORS], before[ATTEND_VECTORS];
    int j = 0, i = 0;
    UM_UNROLL
    for (int v = 0; v < nv; v++) {
        top[v] = begun ? vf_load(a->norm + v * VL) : vf_set1(-3.0e38f);
        before[v] = top[v];
        sum[v] = vf_zero();
    }
    for (; j + nk <= a->keys; j += nk)
        attend_scores(a, j, nk, nv, top);
    for (; j < a->keys; j++)
        attend_scores(a, j, 1, nv, top);
    if (begun) {
        UM_UNROLL
        for (int v = 0; v < nv; v++) {
            before[v] = um_exp_neg(before[v] - top[v]);
            sum[v] = vf_load(a->norm + (nv + v) * VL) * before[v];
        }
    }
    for (j = 0; j + group <= a->keys; j += group)
        attend_exp(a->s + (ptrdiff_t)j * nv * VL, group, nv, top, sum);
    for (; j < a->keys; j++)
        attend_exp(a->s + (ptrdiff_t)j * nv * VL, 1, nv, top, sum);
    UM_UNROLL
    for (int v = 0; v < nv; v++) {
        if (unfinished) {
            vf_store(a->norm + v * VL, top[v]);
            vf_store(a->norm + (nv + v) * VL, sum[v]);
        }
        sum[v] = unfinished ? vf_set1(1) : 1.0f / sum[v];
    }
    for (; i + nd <= a->d; i += nd)
        attend_values(a, i, nd, nv, before, sum);
    for (; i < a->d; i++)
        attend_values(a, i, 1, nv, before, sum);
}

UNCHECKED static __attribute__((noinline)) void attend_1(const struct attend *a)
{
    attend_block(a, 1, 8, 8);
}
#if VL == 8
UNCHECKED static __attribute__((noinline)) void attend_2(const struct attend *a)
{
    attend_block(a, 2, 6, 4);
}
UNCHECKED static __attribute__((noinline)) void attend_3(const struct attend *a)
{
    attend_block(a, 3, 4, 4);
}
#else
UNCHECKED static __attribute__((noinline)) void attend_2(const struct attend *a)
{
    attend_block(a, 2, 12, 8);
}
UNCHECKED static __attribute__((noinline)) void attend_3(const struct attend *a)
{
    attend_block(a, 3, 8, 8);
}
UNCHECKED static __attribute__((noinline)) void attend_4(const struct attend *a)
{
    attend_block(a, 4, 6, 4);
}
#endif

#ifdef UM_CHECK_RANGES
static void check_attend(const struct attend *a, int vectors)
{
    enum { F = sizeof(float) };
    ptrdiff_t row = F * (ptrdiff_t)vectors * VL, depth = F * (ptrdiff_t)a->d;
    for (int j = 0; j < a->keys; j++) {
        check_range(a->k + j * a->ld_k, depth);
        check_range(a->v + j * a->ld_v, depth);
        if (a->bias)
            check_range(attend_bias(a, j), row);
    }
    for (int i = 0; i < a->d; i++)
        check_range(a->q + i * a->ld_q, row);
    check_range(a->s, a->keys * row);
    check_range(a->o, a->d * row);
    if (a->begun || a->unfinished)
        check_range(a->norm, 2 * row);
}
#else
#define check_attend(a, vectors) (void)0
#endif

static void attend(const struct attend *a, int vectors)
{
    check_attend(a, vectors);
    switch (vectors) {
    case 1: attend_1(a); break;
    case 2: attend_2(a); break;
#if VL != 8
    case 4: attend_4(a); break;
#endif
    default: attend_3(a); break;
    }
}

/* Queries are cut into blocks of vectors whose sizes differ by at most one: first vector of block
 * b. */
UM_INLINE int attend_blocks(int queries)
{
    return ((queries + VL - 1) / VL + ATTEND_VECTORS - 1) / ATTEND_VECTORS;
}
UM_INLINE int attend_first(int queries, int b)
{
    return (int)((int64_t)((queries + VL - 1) / VL) * b / attend_blocks(queries));
}

#endif
