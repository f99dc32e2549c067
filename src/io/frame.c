/* SPDX-License-Identifier: Apache-2.0 */
#include "ultramotion/frame.h"

#include "base/mem.h"
#include "base/status.h"
#include "io/origin.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* Pixels of its own follow in the same allocation, so such a frame is one object with one lifetime.
 */
struct frame {
    um_frame pub; /* first: a um_frame * is a struct frame * */
    atomic_int refs;
    char *source; /* or NULL */
    struct um_origin *origin;
    char *notes;
    void (*release)(void *ctx);
    void *ctx;
};

enum { HEAD_BYTES = (sizeof(struct frame) + 63) / 64 * 64 };

/* `own`: with room for its pixels. */
static um_status frame_alloc(um_frame **out, int width, int height, int channels, bool own)
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
    struct frame *f = um_alloc(HEAD_BYTES + (own ? row * (size_t)height : 0));
    if (!f)
        return um_fail(UM_ENOMEM, "frame of %dx%dx%d", width, height, channels);
    memset(f, 0, sizeof *f);
    f->pub = (um_frame){.struct_size = sizeof f->pub,
                        .width = width,
                        .height = height,
                        .channels = channels,
                        .stride = (ptrdiff_t)row,
                        .pixels = own ? (uint8_t *)f + HEAD_BYTES : NULL,
                        .source = ""};
    atomic_init(&f->refs, 1);
    *out = &f->pub;
    return UM_OK;
}

um_status um_frame_create(um_frame **out, int width, int height, int channels)
{
    return frame_alloc(out, width, height, channels, true);
}

um_status um_frame_wrap(um_frame **out, int width, int height, int channels, uint8_t *pixels,
                        ptrdiff_t stride, void (*release)(void *ctx), void *ctx)
{
    um_status st = frame_alloc(out, width, height, channels, false);
    ptrdiff_t row = st == UM_OK ? (*out)->stride : 0;
    bool apart = (stride >= row || stride <= -row) && stride <= PTRDIFF_MAX / UM_FRAME_MAX_SIDE &&
                 stride >= PTRDIFF_MIN / UM_FRAME_MAX_SIDE;
    if (st == UM_OK && (!pixels || !apart))
        st = um_fail(UM_EINVAL, "frame over memory: %s, rows of %td bytes are %td bytes apart",
                     pixels ? "pixels" : "no pixels", row, stride);
    if (st != UM_OK) {
        if (out)
            um_frame_unref(out);
        return st;
    }
    struct frame *f = (struct frame *)*out;
    f->pub.pixels = pixels;
    f->pub.stride = stride;
    f->release = release;
    f->ctx = ctx;
    return UM_OK;
}

um_status um_frame_set_source(um_frame *frame, const char *source)
{
    if (!frame)
        return um_fail(UM_EINVAL, "um_frame_set_source: no frame");
    struct frame *f = (struct frame *)frame;
    char *copy = source && source[0] ? um_strdup(source) : NULL;
    if (source && source[0] && !copy)
        return um_fail(UM_ENOMEM, "name of a frame");
    um_free(f->source);
    f->source = copy;
    frame->source = copy ? copy : "";
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
    if (atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (f->release)
        f->release(f->ctx);
    um_free(f->source);
    um_free(f->origin);
    um_free(f->notes);
    um_free(f);
}

void um_frame_set_origin(um_frame *frame, struct um_origin *origin)
{
    struct frame *f = (struct frame *)frame;
    um_free(f->origin);
    f->origin = origin;
}

const struct um_origin *um_frame_origin(const um_frame *frame)
{
    return frame ? ((const struct frame *)frame)->origin : NULL;
}

void um_frame_set_notes(um_frame *frame, char *notes)
{
    struct frame *f = (struct frame *)frame;
    um_free(f->notes);
    f->notes = notes;
}

const char *um_frame_notes(const um_frame *frame)
{
    return frame ? ((const struct frame *)frame)->notes : NULL;
}

void um_frame_take_over(um_frame *to, um_frame *from, bool turned)
{
    struct frame *t = (struct frame *)to, *f = (struct frame *)from;
    to->ts = from->ts;
    to->has_ts = from->has_ts;
    to->has_pose = from->has_pose;
    memcpy(to->pose, from->pose, sizeof to->pose);
    to->has_spacing = from->has_spacing;
    for (int i = 0; i < 2; i++)
        to->spacing_mm[i] = from->spacing_mm[turned ? 1 - i : i];
    t->origin = f->origin;
    t->notes = f->notes;
    f->origin = NULL;
    f->notes = NULL;
}
