/* SPDX-License-Identifier: Apache-2.0 */
/* COCO's compressed RLE, independent of the library. */
#ifndef UM_TEST_COCO_H
#define UM_TEST_COCO_H

#include <stdint.h>

/* maskApi.c's rleFrString, in a loop that fills the mask. Returns the pixels it covers. */
static inline long rle_decode(const char *s, int width, int height, uint8_t *mask)
{
    long counts[3] = {0}, n = 0, at = 0;
    for (; *s; n++) {
        long x = 0;
        int k = 0, more = 1;
        while (more) {
            int c = *s++ - 48;
            x |= (long)(c & 0x1f) << 5 * k++;
            more = c & 0x20;
            if (!more && (c & 0x10))
                x -= 1L << 5 * k;
        }
        if (n > 2)
            x += counts[1];
        counts[2] = counts[1];
        counts[1] = counts[0];
        counts[0] = x;
        for (; x > 0; x--, at++)
            if (at < (long)width * height)
                mask[at % height * width + at / height] = (uint8_t)(n & 1);
    }
    return at;
}

#endif
