/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers from a formula, the same as in tests/gen/hashed.py. */
#ifndef UM_TEST_HASHED_H
#define UM_TEST_HASHED_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t hashed_fnv(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

/* u(key, i) in [0, 1), exact in fp32; h = hashed_fnv(key). */
static inline double hashed_uniform(uint32_t h, uint32_t i)
{
    uint32_t x = h + i * 0x9E3779B9u;
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    x ^= x >> 16;
    return (x >> 8) * 0x1p-24;
}

static inline int hashed_ends(const char *key, const char *tail)
{
    size_t n = strlen(key), m = strlen(tail);
    return n >= m && strcmp(key + n - m, tail) == 0;
}

/* sam_weight() of hashed.py. */
static inline void hashed_sam_weight(float *out, const char *key, int rank, const int64_t *dim)
{
    uint32_t h = hashed_fnv(key), n = 1;
    for (int i = 0; i < rank; i++)
        n *= (uint32_t)dim[i];
    double scale = sqrt(4.0 / (double)(n / (uint32_t)dim[0]));
    double middle = 0.5, width = 2 * scale, base = 0;
    bool centre = false; /* of a kernel of 3 by 3: 1 more */
    if (hashed_ends(key, "running_mean"))
        width = 0.2;
    else if (hashed_ends(key, "running_var"))
        middle = 0, width = 1, base = 0.5;
    else if (hashed_ends(key, "attention_biases"))
        width = 2;
    else if (hashed_ends(key, "gaussian_matrix"))
        width = 3;
    else if (hashed_ends(key, "bias"))
        width = 0.4;
    else if (rank == 1)
        middle = 0, width = 0.4, base = 0.8;
    else if (hashed_ends(key, "local_conv.c.weight"))
        width = 0.2, centre = true;
    else if (rank == 2 && dim[0] < 5 && dim[1] == 256 && !strstr(key, "layers"))
        width = 2;
    for (uint32_t i = 0; i < n; i++)
        out[i] = (float)((hashed_uniform(h, i) - middle) * width + base + (centre && i % 9 == 4));
}

#endif
