/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/sent.h"

#include "base/mem.h"

#include <string.h>

void um_sent_forget(struct um_sent *before)
{
    um_free(before->pixels);
    *before = (struct um_sent){.g = NULL};
}

um_status um_sent_compare(struct um_sent *before, const struct geometry *g, const um_frame *f,
                          const int crop[4], bool *same)
{
    size_t row = (size_t)crop[2] * (size_t)f->channels, bytes = row * (size_t)crop[3];
    *same = before->g == g && before->bytes == bytes;
    if (before->bytes != bytes) {
        um_sent_forget(before);
        before->pixels = um_alloc(bytes);
        if (!before->pixels)
            return um_fail(UM_ENOMEM, "a frame of %dx%d", crop[2], crop[3]);
        before->bytes = bytes;
    }
    before->g = g;
    for (int y = 0; y < crop[3]; y++) {
        uint8_t *old = before->pixels + (size_t)y * row;
        const uint8_t *now =
            f->pixels + (crop[1] + y) * f->stride + (ptrdiff_t)crop[0] * f->channels;
        *same = *same && memcmp(old, now, row) == 0;
        if (!*same)
            memcpy(old, now, row);
    }
    if (!*same)
        before->boxes = before->embedding = false;
    return UM_OK;
}
