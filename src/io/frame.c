/* SPDX-License-Identifier: Apache-2.0 */
#include "ultramotion/frame.h"

#include "base/mem.h"
#include "base/status.h"

#include <stdatomic.h>
#include <string.h>

/* The pixels follow in the same allocation, so a frame is one object with one lifetime. */
struct frame {
    um_frame pub; /* first: a um_frame * is a struct frame * */
    atomic_int refs;
};

enum { HEAD_BYTES = (sizeof(struct frame) + 63) / 64 * 64 };

um_status um_frame_create(um_frame **out, int width, int height, int channels)
{
    if (!out)
        return um_fail(UM_EINVAL, "frame: no place for the result");
    *out = NULL;
    if (width < 1 || height < 1 || width > UM_FRAME_MAX_SIDE || height > UM_FRAME_MAX_SIDE ||
        (int64_t)width * height > UM_FRAME_MAX_PIXELS)
        return um_fail(UM_EINVAL,
                       "frame of %dx%d pixels: sides must be 1 to %d, the area at most %d", width,
                       height, (int)UM_FRAME_MAX_SIDE, (int)UM_FRAME_MAX_PIXELS);
    if (channels != 1 && channels != 3)
        return um_fail(UM_EINVAL, "frame with %d channels: must be 1 or 3", channels);
    size_t row = (size_t)width * (size_t)channels;
    struct frame *f = um_alloc(HEAD_BYTES + row * (size_t)height);
    if (!f)
        return um_fail(UM_ENOMEM, "frame of %dx%dx%d", width, height, channels);
    memset(f, 0, sizeof *f);
    f->pub.width = width;
    f->pub.height = height;
    f->pub.channels = channels;
    f->pub.stride = (ptrdiff_t)row;
    f->pub.pixels = (uint8_t *)f + HEAD_BYTES;
    atomic_init(&f->refs, 1);
    *out = &f->pub;
    return UM_OK;
}

um_frame *um_frame_ref(um_frame *frame)
{
    if (frame)
        atomic_fetch_add_explicit(&((struct frame *)frame)->refs, 1, memory_order_relaxed);
    return frame;
}

void um_frame_unref(um_frame **frame)
{
    if (!frame || !*frame)
        return;
    struct frame *f = (struct frame *)*frame;
    *frame = NULL;
    if (atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) == 1)
        um_free(f);
}
