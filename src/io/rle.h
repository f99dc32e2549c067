/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_RLE_H
#define UM_IO_RLE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* COCO compressed RLE, built run by run: pixels in column-major order, runs of 0 and 1 in turn, the
 * first of 0. Start with `um_rle r = {0}`. A failed allocation is remembered and reported by
 * um_rle_finish(). */
typedef struct um_rle {
    char *text;
    size_t len, cap;
    uint32_t run;     /* length of the open run */
    int value;        /* its value */
    uint32_t last[2]; /* the closed runs before it, newest first */
    size_t runs;      /* closed so far */
    int failed;
} um_rle;

void um_rle_add(um_rle *r, int value, uint32_t pixels);
um_status um_rle_finish(um_rle *r, char **counts); /* *counts is the caller's; NULL on UM_ENOMEM */

/* The same from rows of bits (bit x%8 of byte x/8 = pixel x) that cover x0, y0, bits_width,
 * bits_height of an image. */
um_status um_rle_encode_bits(const uint8_t *bits, size_t row_bytes, int x0, int y0, int bits_width,
                             int bits_height, int width, int height, char **counts);

#endif
