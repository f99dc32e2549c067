/* SPDX-License-Identifier: Apache-2.0 */
/* The vector functions of nn/simd/math.h against the C library's double functions: every 251st of
 * all 2^32 floats, so every exponent, both signs, NaN payloads and infinities. UM_TEST_VERBOSE in
 * the environment prints the worst errors. */
#include "test.h"

#include "nn/act.h"
#include "nn/simd/math_test.h"

#include <float.h>
#include <stdbool.h>
#include <stdint.h>

enum { BLOCK = 4096, STRIDE = 251 };

static double exp_of(double x)
{
    return x < -87 ? 0 : x > 88 ? INFINITY : exp(x);
}

static double exp_neg_of(double x)
{
    return exp(x < -87 ? -87 : x);
}

static double exp2_neg_of(double x)
{
    return exp2(x < -126 ? -126 : x);
}

static double sigmoid_of(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu_of(double x)
{
    return x < -700 ? 0 : x / (1 + exp(-x));
}

static double gelu_of(double x)
{
    return x < -40 ? 0 : 0.5 * x * erfc(-x * 0.70710678118654752440);
}

/* The bound at x: absolute part + part relative to the result, as math.h states them. */
static const struct function {
    const char *name;
    double (*want)(double x);
    double absolute, relative;
    float from, to; /* domain */
} functions[UM_MATH_FUNCTIONS] = {
    [UM_MATH_EXP] = {"exp", exp_of, 0, 8e-8, -INFINITY, INFINITY},
    [UM_MATH_EXP_NEG] = {"exp_neg", exp_neg_of, 0, 8e-8, -INFINITY, 0},
    [UM_MATH_SIGMOID] = {"sigmoid", sigmoid_of, 1e-7, 0, -INFINITY, INFINITY},
    [UM_MATH_SILU] = {"silu", silu_of, 1e-7, 1.5e-7, -INFINITY, INFINITY},
    [UM_MATH_GELU] = {"gelu", gelu_of, 1.3e-7, 6e-8, -INFINITY, INFINITY},
    [UM_MATH_EXP2_NEG_BRIEF] = {"exp2_neg_brief", exp2_neg_of, 0, 8e-5, -INFINITY, 0},
    [UM_MATH_SILU_BRIEF] = {"silu_brief", silu_of, UM_SILU_BRIEF, 6e-8, -INFINITY, INFINITY},
    [UM_MATH_GELU_BRIEF] = {"gelu_brief", gelu_of, UM_GELU_BRIEF, 6e-8, -INFINITY, INFINITY},
};

struct level {
    const char *name;
    um_math_fn *run;
};

static int levels(struct level *out)
{
    int n = 0;
#if defined(__aarch64__)
    out[n++] = (struct level){"neon", um_math_neon};
#else
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        out[n++] = (struct level){"avx2", um_math_avx2};
#ifdef UM_EMU512
        out[n++] = (struct level){"emu512", um_math_emu512};
#endif
#ifdef UM_EMU128
        out[n++] = (struct level){"emu128", um_math_emu128};
#endif
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        out[n++] = (struct level){"avx512", um_math_avx512};
#endif
    return n;
}

/* Number of floats out of bounds; the first is printed. */
static long check_block(const struct level *level, const struct function *f, const float *x,
                        const float *y, int n, double *worst)
{
    long bad = 0;
    for (int i = 0; i < n; i++) {
        double want = f->want(x[i]), got = y[i], bound = f->absolute + f->relative * fabs(want);
        bool ok = isnan(x[i])                           ? isnan(y[i])
                  : isinf(want) || fabs(want) > FLT_MAX ? got == want
                                                        : fabs(got - want) <= bound;
        if (!isnan(x[i]) && !isinf(want) && bound > 0 && fabs(got - want) / bound > *worst)
            *worst = fabs(got - want) / bound;
        if (!ok && bad++ == 0)
            printf("  %s %s(%.9g) = %.9g, want %.9g +- %.3g\n", level->name, f->name, (double)x[i],
                   got, want, bound);
    }
    return bad;
}

static long sweep(const struct level *level, enum um_math_function which, uint64_t stride)
{
    const struct function *f = &functions[which];
    static float x[BLOCK], y[BLOCK];
    double worst = 0;
    long bad = 0;
    int n = 0;
    for (uint64_t u = 0; u < (uint64_t)1 << 32; u += stride) {
        uint32_t bits = (uint32_t)u;
        memcpy(&x[n], &bits, 4);
        if (isnan(x[n]) || (x[n] >= f->from && x[n] <= f->to))
            n++;
        if (n == BLOCK) {
            level->run(which, y, x, n);
            bad += check_block(level, f, x, y, n, &worst);
            n = 0;
        }
    }
    level->run(which, y, x, n);
    bad += check_block(level, f, x, y, n, &worst);
    if (getenv("UM_TEST_VERBOSE"))
        printf("  %s %s: worst error is %.3f of the bound\n", level->name, f->name, worst);
    return bad;
}

TEST(accuracy)
{
    struct level level[3];
    int n = levels(level);
    if (!n)
        SKIP("no vector level on this machine");
    for (int i = 0; i < n; i++)
        for (int f = 0; f < UM_MATH_FUNCTIONS; f++)
            CHECK_EQ(sweep(&level[i], (enum um_math_function)f, i == 0 ? STRIDE : 4 * STRIDE - 1),
                     0);
}

TEST(edges)
{
    struct level level[3];
    int n = levels(level);
    if (!n)
        SKIP("no vector level on this machine");
    const float x[] = {0.0f,         -0.0f,   INFINITY, -INFINITY, FLT_MIN / 4,
                       -FLT_MIN / 4, FLT_MAX, -FLT_MAX, NAN};
    enum { N = sizeof x / sizeof *x };
    float y[N + 1];
    for (int i = 0; i < n; i++)
        for (int f = 0; f < UM_MATH_FUNCTIONS; f++) {
            y[N] = 12345;
            level[i].run((enum um_math_function)f, y, x, N);
            CHECK_EQ(y[N] == 12345, 1);
            CHECK(isnan(y[8]));
            if (f == UM_MATH_GELU || f == UM_MATH_SILU) {
                CHECK(y[0] == 0 && y[1] == 0 && y[2] == INFINITY && fabsf(y[3]) < 1e-7f);
                CHECK(fabsf(y[4] - x[4] / 2) <= x[4] / 1e6f &&
                      fabsf(y[5] - x[5] / 2) <= x[4] / 1e6f && fabsf(y[7]) < 1e-7f);
            }
            if (f == UM_MATH_GELU_BRIEF || f == UM_MATH_SILU_BRIEF) {
                CHECK(y[0] == 0 && y[1] == 0 && y[2] == INFINITY);
                CHECK(fabsf(y[4] - x[4] / 2) <= x[4] / 500 && fabsf(y[5] - x[5] / 2) <= x[4] / 500);
                CHECK(y[6] == FLT_MAX && fabsf(y[3]) < 2e-4f && fabsf(y[7]) < 2e-4f);
            }
            if (f == UM_MATH_SIGMOID)
                CHECK(y[0] == 0.5f && y[2] == 1 && y[3] >= 0 && y[3] < 1e-37f);
            if (f == UM_MATH_EXP)
                CHECK(y[0] == 1 && y[1] == 1 && y[2] == INFINITY && y[3] == 0 && y[6] == INFINITY &&
                      y[7] == 0);
        }
}

TEST_MAIN
