/* SPDX-License-Identifier: Apache-2.0 */
/* What images of all kinds have in common. */
#include "io/image.h"

#include "base/mem.h"
#include "io/origin.h"

#include <string.h>

um_status um_image_levels(struct um_image_file *f, const uint16_t *samples, size_t n, int bits,
                          uint8_t *out)
{
    enum { LEVELS = 65536, DARK = LEVELS / 4 };
    int least = LEVELS - 1, greatest = 0;
    for (size_t i = 0; i < n; i++) {
        least = samples[i] < least ? samples[i] : least;
        greatest = samples[i] > greatest ? samples[i] : greatest;
    }
    int lo = 0, hi = LEVELS - 1;
    if (f->window == UM_WINDOW_AUTO) {
        lo = least;
        hi = greatest;
    } else if (f->window == UM_WINDOW_RANGE) {
        lo = f->window_lo;
        hi = f->window_hi;
    } else if (bits && greatest >> bits == 0) {
        /* Writers that follow the PNG standard stretch samples to all 16 bits, and then there is
         * nothing to do. Those that do not leave the upper bits empty. */
        hi = (1 << bits) - 1;
        f->facts.bits = bits;
    } else if (greatest < DARK) {
        f->facts.greatest = greatest;
    }
    uint8_t *table = um_alloc(LEVELS);
    if (!table)
        return um_fail(UM_ENOMEM, "16 bits to 8");
    int64_t width = hi > lo ? hi - lo : 1;
    for (int v = 0; v < LEVELS; v++)
        table[v] = v <= lo   ? 0
                   : v >= hi ? 255
                             : (uint8_t)(((int64_t)(v - lo) * 510 + width) / (2 * width));
    for (size_t i = 0; i < n; i++)
        out[i] = table[samples[i]];
    um_free(table);
    return UM_OK;
}

bool um_image_follows(FILE *file, const void *ahead, size_t n, const char *mark)
{
    enum { NEAR = 8192 }; /* cameras fill up blocks */
    uint8_t next[NEAR];
    size_t length = strlen(mark), have = n < NEAR ? n : NEAR;
    memcpy(next, ahead, have);
    have += fread(next + have, 1, NEAR - have, file);
    for (size_t i = 0; i + length <= have; i++)
        if (memcmp(next + i, mark, length) == 0)
            return true;
    return false;
}

um_status um_image_turn(um_frame **frame, int orientation)
{
    const um_frame *f = *frame;
    um_frame *t = NULL;
    bool swap = orientation > 4; /* rows become columns */
    if (orientation < 2 || orientation > 8)
        return UM_OK;
    um_status st =
        um_frame_create(&t, swap ? f->height : f->width, swap ? f->width : f->height, f->channels);
    if (st != UM_OK)
        return st;
    /* where the image's first column and row lie in the file */
    bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    for (int y = 0; y < t->height; y++)
        for (int x = 0; x < t->width; x++) {
            int u = swap ? y : x, v = swap ? x : y;
            u = from_right ? f->width - 1 - u : u;
            v = from_below ? f->height - 1 - v : v;
            memcpy(t->pixels + y * t->stride + x * t->channels,
                   f->pixels + v * f->stride + u * f->channels, (size_t)f->channels);
        }
    um_frame_take_over(t, *frame, swap);
    um_frame_unref(frame);
    *frame = t;
    return UM_OK;
}
