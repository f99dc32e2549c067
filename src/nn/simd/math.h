/* SPDX-License-Identifier: Apache-2.0 */
/* exp, sigmoid, SiLU and GELU on vectors. No tables, so that 8 lanes are served as well as 16. NaN
 * stays NaN. The error beside each function is against double over all floats, and what
 * tests/test_math.c allows. */
#ifndef UM_NN_SIMD_MATH_H
#define UM_NN_SIMD_MATH_H

#include "nn/op.h"
#include "nn/simd/check.h"
#include "nn/simd/vec.h"

/* Functions named _v work on n vectors in place, n a constant: the steps of all are interleaved. A
 * chain of 15 dependent operations fills the scheduler long before the multipliers are busy; four
 * chains side by side do not. */
#define UM_EACH_(n) \
    UM_UNROLL       \
    for (int v_ = 0; v_ < (n); v_++)

#define UM_LOG2E 1.44269504f

/* exp of x in [-87, 88]. 2^k is made by the addition that rounds: k + 127 lands in the low bits
 * of t. */
UNCHECKED UM_INLINE void um_exp_core_(vf *x, int n)
{
    /* minimax, relative error 3e-9 on +-0.347 */
    static const float poly[] = {1.381443319e-03f,
                                 8.368796686e-03f,
                                 4.166839580e-02f,
                                 1.666651997e-01f,
                                 4.999999340e-01f,
                                 1,
                                 1};
    const vf magic = vf_set1(12582912.0f + 127.0f); /* 1.5 * 2^23 + bias */
    vf t[8], p[8];
    UM_EACH_(n)
        t[v_] = vf_fma(x[v_], vf_set1(UM_LOG2E), magic);
    UM_EACH_(n)
        p[v_] = t[v_] - magic;
    /* ln 2 in two parts (Cody and Waite) */
    UM_EACH_(n)
        x[v_] = vf_fnma(p[v_], vf_set1(6.93145752e-01f), x[v_]);
    UM_EACH_(n)
        x[v_] = vf_fnma(p[v_], vf_set1(1.42860677e-06f), x[v_]);
    UM_EACH_(n)
        p[v_] = vf_set1(poly[0]);
    UM_UNROLL
    for (int i = 1; i < 7; i++) {
        UM_EACH_(n)
            p[v_] = vf_fma(p[v_], x[v_], vf_set1(poly[i]));
    }
    UM_EACH_(n)
        x[v_] = p[v_] * vf_cast(vi_cast(t[v_]) << 23);
}

/* exp, relative error <= 8e-8; below -87 (1.6e-38) zero, above 88 (1.7e38) infinity. */
UM_INLINE vf um_exp(vf x)
{
    const vf lo = vf_set1(-87.0f), hi = vf_set1(88.0f);
    vf y = vf_max(lo, vf_min(hi, x));
    um_exp_core_(&y, 1);
    y = vf_cast(vi_cast(y) & ~(vi)(x < lo));
    return vf_select((vi)(x > hi), vf_set1(__builtin_inff()), y);
}

/* exp for softmax: x <= 0; relative error as um_exp, and 1.6e-38 instead of anything smaller. */
UNCHECKED UM_INLINE void um_exp_neg_v(vf *x, int n)
{
    UM_EACH_(n)
        x[v_] = vf_max(vf_set1(-87.0f), x[v_]);
    um_exp_core_(x, n);
}

/* 2^x for softmax beside numbers of 8 bits: x <= 0, relative error <= 8e-5, and 1.2e-38 instead of
 * anything smaller. */
UNCHECKED UM_INLINE void um_exp2_neg_brief_v(vf *x, int n)
{
    /* minimax on +-1/2 */
    static const float poly[] = {5.517177459e-02f, 2.426113724e-01f, 6.932609700e-01f,
                                 9.999280273e-01f};
    const vf magic = vf_set1(12582912.0f + 127.0f);
    vf t[8], p[8];
    UM_EACH_(n)
        x[v_] = vf_max(vf_set1(-126.0f), x[v_]);
    UM_EACH_(n)
        t[v_] = x[v_] + magic;
    UM_EACH_(n)
        x[v_] -= t[v_] - magic;
    UM_EACH_(n)
        p[v_] = vf_set1(poly[0]);
    UM_UNROLL
    for (int i = 1; i < 4; i++)
        UM_EACH_(n)
            p[v_] = vf_fma(p[v_], x[v_], vf_set1(poly[i]));
    UM_EACH_(n)
        x[v_] = p[v_] * vf_cast(vi_cast(t[v_]) << 23);
}

/* 1 / (1 + e^-x), abs error <= 1e-7. */
UM_INLINE void um_sigmoid_v(vf *x, int n)
{
    UM_EACH_(n)
        x[v_] = vf_max(vf_set1(-87.0f), vf_min(vf_set1(87.0f), -x[v_]));
    um_exp_core_(x, n);
    UM_EACH_(n)
        x[v_] = 1.0f / (1.0f + x[v_]);
}

/* x / (1 + e^-x), abs error <= 1e-7 + 1.5e-7 |y|; -87/(1 + e^87) = -1.4e-36 instead of anything
 * smaller in magnitude. */
UM_INLINE void um_silu_v(vf *x, int n)
{
    vf e[8];
    UM_EACH_(n)
        e[v_] = vf_max(vf_set1(-87.0f), vf_min(vf_set1(87.0f), -x[v_]));
    um_exp_core_(e, n);
    UM_EACH_(n)
        x[v_] = vf_max(vf_set1(-87.0f), x[v_]) / (1.0f + e[v_]);
}

/* max(x, 0) - a r(a)^(2^squarings) with a = min(|x|, end): a ramp and what is missing from it,
 * which fades. A root of that is so smooth that a short polynomial r is good for it (linear
 * programming on errors weighted by a r^7 or likewise), and squaring costs few rounding errors. No
 * division, no table; small x keep their relative accuracy. */
UM_INLINE void um_ramp_v_(vf *x, int n, float end, const float *root, const int degree,
                          const int squarings)
{
    vf a[8], r[8];
    UM_EACH_(n)
        a[v_] = vf_min_abs(x[v_], vf_set1(end));
    UM_EACH_(n)
        r[v_] = vf_set1(root[0]);
    UM_UNROLL
    for (int i = 1; i <= degree; i++)
        UM_EACH_(n)
            r[v_] = vf_fma(r[v_], a[v_], vf_set1(root[i]));
    UM_UNROLL
    for (int i = 0; i < squarings; i++)
        UM_EACH_(n)
            r[v_] *= r[v_];
    /* max keeps its second operand if that is NaN */
    UM_EACH_(n)
        x[v_] = vf_fnma(a[v_], r[v_], vf_max(vf_zero(), x[v_]));
}

/* x (1 + erf(x/sqrt 2)) / 2, abs error <= 1.3e-7 + 6e-8 |y| (half an ulp): a ramp less a q(a), q(a)
 * = erfc(a/sqrt 2)/2. Beyond 5.6 a q(a) stays at 6e-8. */
UM_INLINE void um_gelu_v(vf *x, int n)
{
    static const float root[9] = {-2.958816765e-07f, 7.479549367e-06f,  -6.025761468e-05f,
                                  3.429496428e-05f,  1.504362444e-03f,  -6.719557568e-04f,
                                  -3.192807734e-02f, -9.145741165e-02f, 9.170039892e-01f};
    um_ramp_v_(x, n, 5.6f, root, 8, 3);
}

/* GELU and SiLU beside numbers of 8 bits, abs error <= UM_GELU_BRIEF and UM_SILU_BRIEF; 10 and 11
 * operations. */
UM_INLINE void um_gelu_brief_v(vf *x, int n)
{
    static const float root[6] = {-4.917504494e-04f, 2.841341772e-03f,  8.502434802e-03f,
                                  -5.462915572e-02f, -1.657515508e-01f, 8.406276524e-01f};
    um_ramp_v_(x, n, 4.6f, root, 5, 2);
}
UM_INLINE void um_silu_brief_v(vf *x, int n)
{
    static const float root[6] = {1.078532776e-05f,  -3.321424401e-04f, 3.754064199e-03f,
                                  -1.592614903e-02f, -5.583805485e-02f, 9.169001765e-01f};
    um_ramp_v_(x, n, 12.5f, root, 5, 3);
}

UM_INLINE void um_activate_v(enum um_act act, float limit, vf *x, int n)
{
    switch (act) {
    case UM_ACT_NONE: break;
    case UM_ACT_RELU:
        UM_EACH_(n)
            x[v_] = vf_max(vf_zero(), x[v_]);
        break;
    case UM_ACT_SILU: um_silu_v(x, n); break;
    case UM_ACT_GELU: um_gelu_v(x, n); break;
    case UM_ACT_SIGMOID: um_sigmoid_v(x, n); break;
    case UM_ACT_CLAMP:
        UM_EACH_(n)
            x[v_] = vf_min(vf_set1(limit), vf_max(vf_set1(-limit), x[v_]));
        break;
    }
}

/* As um_activate_v(), or where `brief` to the precision that numbers of 8 bits have. */
UM_INLINE void um_activate_brief_v(enum um_act act, float limit, vf *x, int n, const bool brief)
{
    if (brief && act == UM_ACT_GELU)
        um_gelu_brief_v(x, n);
    else if (brief && act == UM_ACT_SILU)
        um_silu_brief_v(x, n);
    else
        um_activate_v(act, limit, x, n);
}

UM_INLINE vf um_exp_neg(vf x)
{
    um_exp_neg_v(&x, 1);
    return x;
}
UM_INLINE vf um_sigmoid(vf x)
{
    um_sigmoid_v(&x, 1);
    return x;
}
UM_INLINE vf um_silu(vf x)
{
    um_silu_v(&x, 1);
    return x;
}
UM_INLINE vf um_gelu(vf x)
{
    um_gelu_v(&x, 1);
    return x;
}
UM_INLINE vf um_activate(enum um_act act, float limit, vf x)
{
    um_activate_v(act, limit, &x, 1);
    return x;
}

#endif
