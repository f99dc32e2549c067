/* SPDX-License-Identifier: Apache-2.0 */
/* What SAM's attention between tokens and pixels shares in floats (cross.c) and in bf16
 * (cross16.c). */
#ifndef UM_NN_SIMD_CROSS_H
#define UM_NN_SIMD_CROSS_H

#include "nn/block.h"
#include "nn/simd/gemm.h"
#include "nn/simd/math.h"

um_kernel UM_NAME(token_to_image), UM_NAME(image_to_token);
um_kernel UM_NAME(token_to_image16), UM_NAME(image_to_token16); /* where args say bf16 */

enum {
    HEADS = UM_CROSS_HEADS,
    VECTORS = UM_CROSS_LANES / VL + 5,
    CHUNKS = 16,
    CHUNK = 64,    /* parts of the pixels whose sums are joined: the most, the least */
    CHUNK16 = 512, /* the most pixels of a part in bf16 */
};

struct shape {
    int tokens, d, c, dim; /* d = c/HEADS channels of a head; dim of a pixel */
    int pixels, rows;      /* rows = tokens*HEADS */
    int lanes;             /* rows, filled up to whole panels */
};

UM_INLINE struct shape shape_of(const struct um_view *tokens, const struct um_view *x)
{
    struct shape s = {.tokens = tokens->h * tokens->w,
                      .c = tokens->c,
                      .d = tokens->c / HEADS,
                      .dim = x->c,
                      .pixels = x->h * x->w};
    s.rows = s.tokens * HEADS;
    s.lanes = um_gemm_panels(s.rows) * um_gemm_nr(s.rows);
    return s;
}

UM_INLINE float *take(float **at, int floats)
{
    float *p = *at;
    *at += (floats + 31) / 32 * 32;
    return p;
}

/* y = scale * sum over the d channels of `head` of token t times rows of w [c][dim] */
UM_INLINE void fold_row(float *y, const struct shape *s, const float *token, const float *w,
                        int head, float scale)
{
    const float *row = w + (ptrdiff_t)head * s->d * s->dim;
    for (int i = 0; i < s->dim; i += VL) {
        vf sum = vf_zero();
        for (int k = 0; k < s->d; k++)
            sum = vf_fma(vf_set1(token[head * s->d + k]), vf_load(row + k * s->dim + i), sum);
        vf_store(y + i, sum * scale);
    }
}

/* What is added to the score of lane r: key times the bias of the queries, and to a lane without a
 * token so little that it counts for nothing. t: as of image_to_token. */
UM_INLINE void key_bias(float *bias, const struct shape *s, const struct um_call *call, float scale)
{
    const struct um_view *keys = &call->t[3];
    const float *bq = call->t[6].data;
    for (int r = 0; r < s->lanes; r++) {
        const float *k = um_view_at(keys, r / HEADS) + r % HEADS * s->d;
        double sum = r < s->rows ? 0 : -1e30;
        for (int i = 0; i < s->d && r < s->rows; i++)
            sum += (double)k[i] * bq[r % HEADS * s->d + i];
        bias[r] = (float)(r < s->rows ? sum * scale : sum);
    }
}

/* Rows [rows][dim] of sums of pixels through wv, to the output. t: as of token_to_image. */
UM_INLINE void through_values(const struct um_call *call, const struct shape *s, const float *rows)
{
    const struct um_view *t = call->t;
    const float *wv = t[5].data, *bv = t[6].data;
    for (int r = 0; r < s->rows; r++) {
        int head = r % HEADS;
        float *out = um_view_at(&t[0], r / HEADS);
        for (int k = head * s->d; k < (head + 1) * s->d; k++) {
            vf sum = vf_zero();
            for (int i = 0; i < s->dim; i += VL)
                sum = vf_fma(vf_load(rows + (ptrdiff_t)r * s->dim + i),
                             vf_load(wv + (ptrdiff_t)k * s->dim + i), sum);
            out[k] = vf_sum(sum) + (bv ? bv[k] : 0);
        }
    }
}

/* A row's vectors begin with the first head again every PERIOD of them, and at 16 lanes also in
 * their upper half. */
enum { PERIOD = VL < HEADS ? HEADS / VL : 1 };

UM_INLINE vf swap_halves(vf v)
{
#if VL <= 8
    return v;
#elif !UM_VEC_EMULATED
    return (vf)_mm512_shuffle_f32x4((__m512)v, (__m512)v, 0x4e);
#else
    vec_pair u = {v}, swapped;
    swapped.h[0] = u.h[1];
    swapped.h[1] = u.h[0];
    return swapped.f;
#endif
}

/* Softmax over the tokens, for each head, of a row of scores: heads are neighbours. `brief`: of
 * scores times log2 e, as good as numbers of 8 bits need. */
UM_INLINE void softmax(vf *x, const float *s, int lanes, const bool brief)
{
    vf most[PERIOD], all[PERIOD];
    int n = lanes / VL, v = 0;
    for (int p = 0; p < PERIOD; p++) {
        most[p] = vf_set1(-3.0e38f);
        all[p] = vf_zero();
    }
    for (int i = 0; i < n; i++)
        most[i % PERIOD] = vf_max(most[i % PERIOD], x[i] = vf_load(s + i * VL));
    for (int p = 0; p < PERIOD; p++)
        most[p] = vf_max(most[p], swap_halves(most[p]));
    for (int i = 0; i < n; i++)
        x[i] -= most[i % PERIOD];
    for (; v + 4 <= n; v += 4)
        (brief ? um_exp2_neg_brief_v : um_exp_neg_v)(x + v, 4);
    for (; v < n; v++)
        (brief ? um_exp2_neg_brief_v : um_exp_neg_v)(x + v, 1);
    for (int i = 0; i < n; i++)
        all[i % PERIOD] += x[i];
    for (int p = 0; p < PERIOD; p++)
        all[p] = 1.0f / (VL <= 8 ? all[p] : all[p] + swap_halves(all[p]));
    for (int i = 0; i < n; i++)
        x[i] *= all[i % PERIOD];
}

/* Vectors o, `apart` floats from one part of the pixels to the next, times share[part]: their sum,
 * in the order of parts, into the first. */
UM_INLINE void join_vectors(float *o, ptrdiff_t apart, const vf *share, int parts)
{
    vf sum = vf_zero();
    for (int k = 0; k < parts; k++)
        sum = vf_fma(share[k], vf_load(o + k * apart), sum);
    vf_store(o, sum);
}

UM_INLINE int chunks_of(int pixels)
{
    int n = (pixels + CHUNK - 1) / CHUNK;
    return n < CHUNKS ? n : CHUNKS;
}

UM_INLINE int items_of(int pixels)
{
    enum { ITEM_ROWS = 192 };
    return (pixels + ITEM_ROWS - 1) / ITEM_ROWS;
}

#endif
