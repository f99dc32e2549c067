/* SPDX-License-Identifier: Apache-2.0 */
/* AMX: eight tiles of up to 16 rows of 64 bytes, and what can be done with them. With UM_AMX_TWIN
 * the same in plain C, whose tiles lie in `x`; without, the assembler's word for it, because gcc's
 * intrinsics do not say that a load reads memory. Numbers of tiles are literals. */
#ifndef UM_NN_SIMD_AMX_H
#define UM_NN_SIMD_AMX_H

#include "nn/bf16.h"
#include "nn/simd/check.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { AMX_TILES = 8, AMX_ROWS = 16, AMX_BYTES = 64 };

struct amx_shape { /* as the instruction reads it */
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
};

#ifndef UM_AMX_TWIN

struct amx {
    char none;
};

#define AMX_ASM_(x, ...)               \
    do {                               \
        (void)(x);                     \
        __asm__ volatile(__VA_ARGS__); \
    } while (0)
/* All tiles are zeros then. */
#define amx_configure(x, shape) AMX_ASM_(x, "ldtilecfg %0" : : "m"(*(shape)) : "memory")
#define amx_release(x) AMX_ASM_(x, "tilerelease" : : : "memory")
/* Rows `stride` bytes apart. */
/* clang-format off */
#define amx_load(x, n, from, stride)               \
    AMX_ASM_(x, "tileloadd (%0,%1,1), %%tmm" #n    \
             :                                     \
             : "r"(from), "r"((ptrdiff_t)(stride)) \
             : "memory")
/* clang-format on */
#define amx_store(x, n, to, stride)                 \
    AMX_ASM_(x, "tilestored %%tmm" #n ", (%0,%1,1)" \
             :                                      \
             : "r"(to), "r"((ptrdiff_t)(stride))    \
             : "memory")
/* Sums c [m][n] of floats += a [m][k][2] times b [k][n][2] of bf16. */
#define amx_dot2(x, c, a, b) AMX_ASM_(x, "tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)
/* Sums c [m][n] of int32 += a [m][k][4] of u8 times b [k][n][4] of s8. */
#define amx_dot4(x, c, a, b) AMX_ASM_(x, "tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

#else

struct amx {
    struct amx_shape shape;
    unsigned char tile[AMX_TILES][AMX_ROWS][AMX_BYTES];
};

static inline void amx_configure(struct amx *x, const struct amx_shape *shape)
{
    x->shape = *shape;
    memset(x->tile, 0, sizeof x->tile);
}

static inline void amx_release(struct amx *x)
{
    memset(x, 0, sizeof *x);
}

static inline void amx_load(struct amx *x, int n, const void *from, ptrdiff_t stride)
{
    for (int r = 0; r < x->shape.rows[n]; r++)
        memcpy(x->tile[n][r], (const unsigned char *)from + r * stride, x->shape.bytes[n]);
}

static inline void amx_store(const struct amx *x, int n, void *to, ptrdiff_t stride)
{
    for (int r = 0; r < x->shape.rows[n]; r++)
        memcpy((unsigned char *)to + r * stride, x->tile[n][r], x->shape.bytes[n]);
}

static inline int amx_columns(const struct amx *x, int c, int a, int b) /* 4 bytes each, of c */
{
    const struct amx_shape *s = &x->shape;
    if (s->rows[c] != s->rows[a] || 4 * s->rows[b] != s->bytes[a] || s->bytes[b] != s->bytes[c])
        __builtin_trap(); /* as the instructions do */
    return s->bytes[c] / 4;
}

/* In the order of the instruction, which also takes denormal numbers for 0. What lies in a tile
 * beyond its columns is computed, too, and not kept: a row is a vector. */
UNCHECKED static inline void amx_dot2(struct amx *x, int c, int a, int b)
{
    int columns = amx_columns(x, c, a, b);
    for (int r = 0; r < x->shape.rows[c]; r++) {
        float even[AMX_ROWS] = {0}, odd[AMX_ROWS] = {0}, sum[AMX_ROWS];
        for (int k = 0; k < x->shape.rows[b]; k++) {
            uint32_t two, in[AMX_ROWS];
            memcpy(&two, x->tile[a][r] + 4 * k, sizeof two);
            memcpy(in, x->tile[b][k], sizeof in);
            float low = um_bf16_float((uint16_t)two), high = um_bf16_float((uint16_t)(two >> 16));
            for (int i = 0; i < AMX_ROWS; i++) {
                even[i] = fmaf(low, um_bf16_float((uint16_t)in[i]), even[i]);
                odd[i] = fmaf(high, um_bf16_float((uint16_t)(in[i] >> 16)), odd[i]);
            }
        }
        memcpy(sum, x->tile[c][r], sizeof sum);
        for (int i = 0; i < AMX_ROWS; i++)
            sum[i] += even[i] + odd[i];
        memcpy(x->tile[c][r], sum, (size_t)columns * sizeof *sum);
    }
}

UNCHECKED static inline void amx_dot4(struct amx *x, int c, int a, int b)
{
    int columns = amx_columns(x, c, a, b);
    for (int r = 0; r < x->shape.rows[c]; r++) {
        uint32_t sum[AMX_ROWS];
        memcpy(sum, x->tile[c][r], sizeof sum);
        for (int k = 0; k < x->shape.rows[b]; k++) {
            const unsigned char *u = x->tile[a][r] + 4 * k;
            uint32_t in[AMX_ROWS];
            memcpy(in, x->tile[b][k], sizeof in);
            for (int e = 0; e < 4; e++)
                for (int i = 0; i < AMX_ROWS; i++)
                    sum[i] += (uint32_t)u[e] * (uint32_t)((int32_t)(in[i] << (24 - 8 * e)) >> 24);
        }
        memcpy(x->tile[c][r], sum, (size_t)columns * sizeof *sum);
    }
}

#endif

#endif
