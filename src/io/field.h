/* SPDX-License-Identifier: Apache-2.0 */
/* What the phantom's images are made of: random numbers, functions without libm, and noise,
 * blurred, on a grid. The same bits on every machine. */
#ifndef UM_IO_FIELD_H
#define UM_IO_FIELD_H

#include "base/status.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

struct rng {
    uint64_t state;
};

static inline uint64_t mix(uint64_t z) /* splitmix64's output function (Steele, Lea, Flood 2014) */
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint64_t next(struct rng *r)
{
    return mix(r->state += 0x9e3779b97f4a7c15u);
}

static inline float uniform(struct rng *r, double lo, double hi)
{
    return (float)(lo + (hi - lo) * ((double)(next(r) >> 11) * 0x1p-53));
}

static inline int below(struct rng *r, int lo, int hi) /* lo..hi-1 */
{
    return lo + (int)((next(r) >> 32) * (uint64_t)(hi - lo) >> 32);
}

/* Sum of twelve uniform numbers: variance 1, and no logarithm that could differ between machines.
 */
static inline float normal(struct rng *r)
{
    uint32_t sum = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t x = next(r);
        sum += (uint32_t)((x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48));
    }
    return (float)((double)sum * 0x1p-16 - (6 - 6 * 0x1p-16));
}

static inline float from_bits(int32_t i)
{
    float f;
    memcpy(&f, &i, sizeof f);
    return f;
}

static inline int32_t to_bits(float f)
{
    int32_t i;
    memcpy(&i, &f, sizeof i);
    return i;
}

/* 2^x to about 2e-6, for -126 <= x <= 126; beyond is taken as the end. */
static inline float power2(float x)
{
    x = x < -126.f ? -126.f : x;
    x = x > 126.f ? 126.f : x;
    int32_t i = (int32_t)(x + 127.f);
    float f = x - (float)(i - 127);
    float p = 1.8775767e-3f;
    p = p * f + 8.9893397e-3f;
    p = p * f + 5.5826318e-2f;
    p = p * f + 2.4015361e-1f;
    p = p * f + 6.9315308e-1f;
    p = p * f + 9.9999994e-1f;
    return from_bits(i << 23) * p;
}

/* log2(x) to about 1e-6, for normal x > 0. */
static inline float log_2(float x)
{
    int32_t e = ((to_bits(x) - 0x3f3504f3 + (128 << 23)) >> 23) -
                128; /* x / 2^e lies in [sqrt(1/2), sqrt(2)) */
    float m = from_bits(to_bits(x) - e * (1 << 23));
    float z = (m - 1) / (m + 1), q = z * z;
    float p = 0.41219858f; /* 2/(7 ln 2), 2/(5 ln 2), … : the series of atanh */
    p = p * q + 0.57707802f;
    p = p * q + 0.96179669f;
    p = p * q + 2.8853901f;
    return (float)e + p * z;
}

static inline float natural_exp(float x)
{
    return power2(x * 1.44269504f);
}

static inline float sine(float x) /* |x| <= 0.6 */
{
    double q = (double)x * x;
    return (float)(x * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72)))));
}

static inline float power(float x, float y)
{
    return power2(y * log_2(x));
}

static inline int clamp(float v, int hi)
{
    return v < 0 ? 0 : v > (float)hi ? hi : (int)v;
}

enum { UM_FIELD_TAPS = 4096 };

/* Room to work in, for fields of at most w by h. */
struct um_field {
    int w;
    float *tmp;   /* [h,w] */
    float *line;  /* a row with its border mirrored on both sides */
    float *knots; /* [w+4] */
    float taps[UM_FIELD_TAPS];
};

um_status um_field_open(struct um_field *f, int w, int h);
void um_field_close(struct um_field *f);

/* White noise of variance 1, each value a sum of four bytes: what follows blurs it, which makes it
 * Gaussian. */
void um_field_noise(struct rng *r, float *out, size_t n);
/* In place; f->tmp holds what has been blurred along x. Returns what is left of the variance of
 * white noise. */
float um_field_blur(struct um_field *f, float *field, int w, int h, float sx, float sy);
/* The same with a Gaussian along x that goes from `near` in the first row over `focus` at row
 * `at` to `far` in the last one; white noise of variance 1 keeps it. */
void um_field_widen(struct um_field *f, float *field, int w, int h, float near, float focus,
                    float far, float at, float sy);
/* out[x] = a random curve over f->w columns: smoothed normal knots about `spacing` pixels apart,
 * joined by straight lines. */
void um_field_curve(struct um_field *f, struct rng *r, float amp, float spacing, float *out);

#endif
