/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions on bytes. The input of a layer is quantised to u8, q = x*inv[channel] + zero rounded
 * to even and clamped: one scale for the whole tensor, times a power of two for each channel, which
 * its weights are divided by. Weights are s8 with a scale for each output. Sums are whole numbers
 * and exact, so they depend on nothing but the quantised numbers; y = (float)sum*scale[o] + bias[o]
 * in one rounding, and then as in floats. Padding is `zero`, which stands for 0. */
#ifndef UM_NN_INT8_H
#define UM_NN_INT8_H

#include "nn/narrow.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The range of an input, its channels times 2^shift, that bytes stand for; it contains 0. */
struct um_range {
    float lo, hi;
};

/* A layer before it is packed for a level. */
struct um_int8_layer {
    int o, kh, kw, i;
    int32_t zero;
    const float *inv;     /* [i] */
    const int8_t *w;      /* [o][kh][kw][i] */
    const float *scale;   /* [o]: of a sum */
    const int32_t *start; /* [o]: -zero * sum of w: where the sums start */
};

/* What packed weights begin with; then at 64-byte borders inv, scales, starts and bytes, which each
 * level lays out as it likes, for as many columns as it rounds the outputs up to. */
struct um_int8_head {
    struct um_narrow_head narrow;
    int32_t zero, i;
};
enum { UM_INT8_ALIGN = 64 };

static inline size_t um_int8_round(size_t bytes)
{
    return (bytes + UM_INT8_ALIGN - 1) / UM_INT8_ALIGN * UM_INT8_ALIGN;
}

struct um_int8_places { /* in bytes from the head */
    size_t inv, scale, start, w;
};

static inline struct um_int8_places um_int8_places(int inputs, size_t columns)
{
    size_t in = um_int8_round((size_t)inputs * sizeof(float)),
           row = um_int8_round(columns * sizeof(float)), at = UM_INT8_ALIGN + in;
    struct um_int8_places p = {UM_INT8_ALIGN, at, at + row, at + 2 * row};
    return p;
}

static inline const float *um_int8_inv(const void *packed)
{
    return (const float *)(const void *)((const unsigned char *)packed + UM_INT8_ALIGN);
}

static inline int32_t *um_int8_start(void *packed, size_t columns)
{
    const struct um_int8_head *head = (const struct um_int8_head *)packed;
    return (int32_t *)(void *)((unsigned char *)packed + um_int8_places(head->i, columns).start);
}

struct um_int8_packed {
    int32_t zero;
    const float *inv, *scale;
    const int32_t *start;
    const int8_t *w;
};

static inline struct um_int8_packed um_int8_read(const void *packed, size_t columns)
{
    const struct um_int8_head *head = (const struct um_int8_head *)packed;
    const unsigned char *at = (const unsigned char *)packed;
    struct um_int8_places p = um_int8_places(head->i, columns);
    struct um_int8_packed l = {
        head->zero, um_int8_inv(packed), (const float *)(const void *)(at + p.scale),
        (const int32_t *)(const void *)(at + p.start), (const int8_t *)(at + p.w)};
    return l;
}

/* Write all but the bytes, which go to the place that is returned. */
static inline int8_t *um_int8_write(void *packed, enum um_narrow_how how,
                                    const struct um_int8_layer *l, size_t columns)
{
    unsigned char *at = (unsigned char *)packed;
    struct um_int8_places p = um_int8_places(l->i, columns);
    struct um_int8_head head = {{how}, l->zero, l->i};
    memcpy(at, &head, sizeof head);
    memcpy(at + p.inv, l->inv, (size_t)l->i * sizeof *l->inv);
    memset(at + p.scale, 0, p.w - p.scale);
    memcpy(at + p.scale, l->scale, (size_t)l->o * sizeof *l->scale);
    memcpy(at + p.start, l->start, (size_t)l->o * sizeof *l->start);
    return (int8_t *)(at + p.w);
}

/* NaN becomes 0. */
static inline uint8_t um_int8_of(float x, float inv, int32_t zero)
{
    float q = fmaf(x, inv, (float)zero);
    return (uint8_t)(q > 0 ? q < 255 ? rintf(q) : 255 : 0);
}

#endif
