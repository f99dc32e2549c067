/* SPDX-License-Identifier: Apache-2.0 */
/* COCO RLE there and back: width, height, x0, y0, then rows of mask bits. */
#include "base/mem.h"
#include "io/rle.h"
#include "ultramotion/ultramotion.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* maskApi.c, rleFrString: counts to column-major pixels. */
static void decode(const char *s, uint8_t *column_major, size_t pixels)
{
    int64_t run[3] = {0, 0, 0}; /* this one and the two before */
    size_t at = 0;
    for (size_t i = 0; *s; i++) {
        int64_t x = 0;
        int shift = 0;
        for (int more = 1; more; shift += 5) {
            int c = *s++ - 48;
            x |= (int64_t)(c & 0x1f) << shift;
            more = c & 0x20;
            if (!more && (c & 0x10))
                x |= (int64_t)(~(uint64_t)0 << (shift + 5));
        }
        run[2] = run[1];
        run[1] = run[0];
        run[0] = x + (i > 2 ? run[2] : 0);
        if (run[0] < 0 || (uint64_t)run[0] > pixels - at)
            abort();
        memset(column_major + at, i % 2, (size_t)run[0]);
        at += (size_t)run[0];
    }
    if (at != pixels)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    int x0 = data[2] % 64, y0 = data[3] % 64, bits_w = data[0] + 1, bits_h = data[1] + 1;
    int w = bits_w + x0 + data[3] % 3, h = bits_h + y0 + data[2] % 3;
    size_t row = (size_t)(bits_w + 7) / 8, pixels = (size_t)w * (size_t)h;
    uint8_t *bits = calloc((size_t)bits_h, row), *mask = calloc(1, pixels), *back = malloc(pixels);
    char *a = NULL, *b = NULL;
    if (!bits || !mask || !back)
        abort();
    memcpy(bits, data + 4, size - 4 < row * (size_t)bits_h ? size - 4 : row * (size_t)bits_h);
    for (int y = 0; y < bits_h; y++)
        for (int x = 0; x < bits_w; x++)
            mask[(size_t)(y0 + y) * (size_t)w + (size_t)(x0 + x)] =
                bits[(size_t)y * row + (size_t)x / 8] >> x % 8 & 1;
    um_mem_fail_at(1 + data[0] % 4);
    if ((um_rle_encode(mask, w, h, &a) == UM_OK) != (a != NULL))
        abort();
    um_mem_fail_at(0);
    free(a);
    if (um_rle_encode(mask, w, h, &a) != UM_OK ||
        um_rle_encode_bits(bits, row, x0, y0, bits_w, bits_h, w, h, &b) != UM_OK ||
        strcmp(a, b) != 0)
        abort();
    decode(a, back, pixels);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            if (back[(size_t)x * (size_t)h + (size_t)y] != mask[(size_t)y * (size_t)w + (size_t)x])
                abort();
    free(a);
    free(b);
    free(bits);
    free(mask);
    free(back);
    return 0;
}
