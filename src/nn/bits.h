/* SPDX-License-Identifier: Apache-2.0 */
/* A mask as rows of words of 32 pixels, pixel x = bit x % 32, and its weights, 32 pixels at a time.
 * Bits outside the image are zero. */
#ifndef UM_NN_BITS_H
#define UM_NN_BITS_H

#include <stddef.h>
#include <stdint.h>

struct um_bits {
    const uint32_t *at;
    int h, w, words;
};

/* Those of a word that are pixels. */
static inline uint32_t um_bits_pixels(const struct um_bits *b, int i)
{
    return i == b->words - 1 && b->w % 32 ? (1u << b->w % 32) - 1 : ~0u;
}

static inline uint32_t um_bits_word(const struct um_bits *b, int y, int i)
{
    return y < 0 || y >= b->h || i < 0 || i >= b->words ? 0 : b->at[(ptrdiff_t)y * b->words + i];
}

/* For erosion: outside the image are ones. */
static inline uint32_t um_bits_solid(const struct um_bits *b, int y, int i)
{
    return y < 0 || y >= b->h || i < 0 || i >= b->words
               ? ~0u
               : um_bits_word(b, y, i) | ~um_bits_pixels(b, i);
}

/* The pixels n to the left, n to the right of those of v[1]. */
static inline uint32_t um_bits_left(const uint32_t v[3], int n)
{
    return v[1] << n | v[0] >> (32 - n);
}

static inline uint32_t um_bits_right(const uint32_t v[3], int n)
{
    return v[1] >> n | v[2] << (32 - n);
}

/* Where some pixel at most `reach` (1 or 2) rows and columns away is set. */
static inline uint32_t um_bits_dilated(const struct um_bits *b, int y, int i, int reach)
{
    uint32_t v[3] = {0}, all;
    for (int k = 0; k < 3; k++)
        for (int d = -reach; d <= reach; d++)
            v[k] |= um_bits_word(b, y + d, i - 1 + k);
    all = v[1];
    for (int n = 1; n <= reach; n++)
        all |= um_bits_left(v, n) | um_bits_right(v, n);
    return all & um_bits_pixels(b, i);
}

static inline uint32_t um_bits_eroded(const struct um_bits *b, int y, int i)
{
    uint32_t v[3];
    for (int k = 0; k < 3; k++)
        v[k] = um_bits_solid(b, y - 1, i - 1 + k) & um_bits_solid(b, y, i - 1 + k) &
               um_bits_solid(b, y + 1, i - 1 + k);
    return v[1] & um_bits_left(v, 1) & um_bits_right(v, 1) & um_bits_pixels(b, i);
}

#endif
