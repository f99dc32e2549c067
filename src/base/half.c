/* SPDX-License-Identifier: Apache-2.0 */
/* IEEE 754 binary16, subnormals kept, and bfloat16, the upper half of a float. */
#include "base/half.h"

#include <string.h>

static uint16_t to_half(float f)
{
    uint32_t x;
    memcpy(&x, &f, 4);
    uint32_t sign = x >> 16 & 0x8000, magnitude = x & 0x7fffffff;
    if (magnitude > 0x7f800000) /* NaN: keep it one whatever the payload */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520: half way from the largest half to the next */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x33000000) /* below half the smallest subnormal */
        return (uint16_t)sign;
    uint32_t shift = 13, value = magnitude - (112u << 23); /* rebias the exponent: 127 -> 15 */
    if (magnitude < 0x38800000) {                          /* a subnormal half: 2^-24 units */
        shift = 126 - (magnitude >> 23);
        value = (magnitude & 0x7fffff) | 0x800000;
    }
    uint32_t rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    value >>= shift;
    value += rest > half || (rest == half && (value & 1));
    return (uint16_t)(sign | value);
}

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff, x;
    if (exponent == 31) {
        x = 0x7f800000 | mantissa << 13;
    } else if (exponent) {
        x = (exponent + 112) << 23 | mantissa << 13;
    } else {
        float f = (float)mantissa * 0x1p-24f;
        memcpy(&x, &f, 4);
    }
    x |= sign;
    float f;
    memcpy(&f, &x, 4);
    return f;
}

void um_f32_to_f16(uint16_t *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = to_half(src[i]);
}

void um_f16_to_f32(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = from_half(src[i]);
}

void um_f32_to_bf16(uint16_t *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &src[i], 4);
        dst[i] = src[i] != src[i] ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
}

void um_bf16_to_f32(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)src[i] << 16;
        memcpy(&dst[i], &u, 4);
    }
}
