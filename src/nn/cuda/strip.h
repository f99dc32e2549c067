/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a mask as words of 32 pixels in shared memory, and its weights, 32 pixels at a time. For
 * device code only. */
#ifndef UM_NN_CUDA_STRIP_H
#define UM_NN_CUDA_STRIP_H

#include "nn/cuda/kernel.h"
#include "nn/cuda/mask.h"

/* Rows y0 - UM_HALO and on as bits, in shared memory. Bits outside the image are zero. */
struct um_strip {
    const uint32_t *bits;
    int y0, h, w, words;
};

DEVICE uint32_t inside(const um_strip &s, int i)
{
    return i == s.words - 1 && s.w % 32 ? (1u << s.w % 32) - 1 : ~0u;
}

DEVICE uint32_t word(const um_strip &s, int y, int i)
{
    return i < 0 || i >= s.words ? 0 : s.bits[(y - s.y0 + UM_HALO) * s.words + i];
}

/* For erosion: outside the image are ones. */
DEVICE uint32_t solid(const um_strip &s, int y, int i)
{
    return i < 0 || i >= s.words || y < 0 || y >= s.h ? ~0u : word(s, y, i) | ~inside(s, i);
}

/* The pixels n to the left, n to the right of those of v[1]. */
DEVICE uint32_t left(const uint32_t v[3], int n)
{
    return v[1] << n | v[0] >> (32 - n);
}

DEVICE uint32_t right(const uint32_t v[3], int n)
{
    return v[1] >> n | v[2] << (32 - n);
}

struct um_weights {
    uint32_t mask, edge, in, out;
};

DEVICE um_weights weights_of(const um_strip &s, int y, int i)
{
    uint32_t any3[3], any5[3], all3[3];
    UNROLL
    for (int k = 0; k < 3; k++) {
        int j = i - 1 + k;
        any3[k] = word(s, y - 1, j) | word(s, y, j) | word(s, y + 1, j);
        any5[k] = word(s, y - 2, j) | any3[k] | word(s, y + 2, j);
        all3[k] = solid(s, y - 1, j) & solid(s, y, j) & solid(s, y + 1, j);
    }
    uint32_t dilated = left(any3, 1) | any3[1] | right(any3, 1);
    uint32_t eroded = left(all3, 1) & all3[1] & right(all3, 1);
    uint32_t wide = left(any5, 2) | left(any5, 1) | any5[1] | right(any5, 1) | right(any5, 2);
    uint32_t m = word(s, y, i), here = inside(s, i);
    return {m, (dilated & ~eroded) & here, eroded & here, (wide & ~m) & here};
}

#endif
