/* SPDX-License-Identifier: Apache-2.0 */
/* The image that tests/gen/images.py draws in every kind of file. */
#ifndef UM_TEST_DRAWN_H
#define UM_TEST_DRAWN_H

#include "test.h"
#include "ultramotion/ultramotion.h"

enum { W = 13, H = 9 };

static inline int want(int channels, int x, int y, int c)
{
    int rgb[3] = {16 * x, 20 * y, 255 - 8 * (x + y)};
    return channels == 1 ? 16 * x + 5 * y : rgb[c];
}

static inline void check_frame(const um_frame *f, const char *name, int channels, int tolerance)
{
    CHECK_MSG(f->width == W && f->height == H && f->channels == channels, "%s: %dx%dx%d", name,
              f->width, f->height, f->channels);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < channels; c++) {
                int v = f->pixels[y * f->stride + x * channels + c], t = want(channels, x, y, c);
                CHECK_MSG(abs(v - t) <= tolerance, "%s: pixel %d,%d,%d is %d, want %d", name, x, y,
                          c, v, t);
            }
}

#endif
