/* SPDX-License-Identifier: Apache-2.0 */
#include "io/rle.h"

#include "base/mem.h"
#include "ultramotion/io.h"

enum { RUN_CHARS = 7 }; /* a run takes at most 7 characters of 5 bits */

/* One run as text, from its third on as the difference to the run two before (maskApi.c,
 * rleToString). */
static void close_run(um_rle *r)
{
    r->failed = r->failed || !um_make_room(&r->text, &r->cap, r->len, RUN_CHARS + 1, 1);
    if (r->failed)
        return;
    int64_t x = r->run;
    if (r->runs > 2)
        x -= r->last[1];
    for (int more = 1; more;) {
        int c = (int)(x & 0x1f);
        x >>= 5;
        more = c & 0x10 ? x != -1 : x != 0;
        r->text[r->len++] = (char)((more ? c | 0x20 : c) + 48);
    }
    r->last[1] = r->last[0];
    r->last[0] = r->run;
    r->runs++;
}

void um_rle_add(um_rle *r, int value, uint32_t pixels)
{
    if (pixels == 0)
        return;
    if (value != r->value) {
        close_run(r);
        r->value = value;
        r->run = 0;
    }
    r->run += pixels;
}

um_status um_rle_finish(um_rle *r, char **counts)
{
    close_run(r);
    *counts = NULL;
    if (r->failed) {
        um_free(r->text);
        return um_fail(UM_ENOMEM, "RLE text");
    }
    r->text[r->len] = 0;
    *counts = r->text;
    return UM_OK;
}

um_status um_rle_encode(const uint8_t *mask, int width, int height, char **counts)
{
    if (!counts)
        return um_fail(UM_EINVAL, "RLE: no place for the result");
    *counts = NULL;
    if (!mask || width < 1 || height < 1 || (uint64_t)width * (uint64_t)height > UINT32_MAX)
        return um_fail(UM_EINVAL, "RLE of a mask of %dx%d pixels", width, height);
    um_rle r = {0};
    for (int x = 0; x < width; x++)
        for (int y = 0; y < height; y++)
            um_rle_add(&r, mask[(size_t)y * (size_t)width + (size_t)x] != 0, 1);
    return um_rle_finish(&r, counts);
}

um_status um_rle_encode_bits(const uint8_t *bits, size_t row_bytes, int x0, int y0, int bits_width,
                             int bits_height, int width, int height, char **counts)
{
    um_rle r = {0};
    um_rle_add(&r, 0, (uint32_t)x0 * (uint32_t)height);
    /* Column order is against the grain of the rows; most byte columns of a mask are empty, and
     * those cost one look. */
    for (int x = 0; x < bits_width; x += 8) {
        int columns = bits_width - x < 8 ? bits_width - x : 8;
        const uint8_t *byte = bits + x / 8;
        unsigned any = 0;
        for (int y = 0; y < bits_height; y++)
            any |= byte[(size_t)y * row_bytes];
        if ((any & ((1u << columns) - 1)) == 0) {
            um_rle_add(&r, 0, (uint32_t)columns * (uint32_t)height);
            continue;
        }
        for (int c = 0; c < columns; c++) {
            um_rle_add(&r, 0, (uint32_t)y0);
            for (int y = 0; y < bits_height; y++)
                um_rle_add(&r, byte[(size_t)y * row_bytes] >> c & 1, 1);
            um_rle_add(&r, 0, (uint32_t)(height - y0 - bits_height));
        }
    }
    um_rle_add(&r, 0, (uint32_t)(width - x0 - bits_width) * (uint32_t)height);
    return um_rle_finish(&r, counts);
}
