/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_FRAME_H
#define ULTRAMOTION_FRAME_H

#include "ultramotion/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { UM_FRAME_MAX_SIDE = 16384, UM_FRAME_MAX_PIXELS = 64 * 1024 * 1024 };

/** One image in host memory: 8-bit gray or RGB, rows top to bottom, with its timestamp and
 * geometry. Made by the library, reference counted, grows at its end. Threads: a frame may be read,
 * referenced and dropped by any thread; it is filled in by the thread that alone holds it. */
typedef struct um_frame {
    size_t struct_size;
    int width, height, channels; /**< channels 1 (gray) or 3 (RGB, interleaved) */
    ptrdiff_t stride;            /**< bytes from one row to the next; negative: bottom to top */
    uint8_t *pixels;
    uint64_t id; /**< position in its source, from 0 */
    double ts;   /**< seconds since 1970; of a video's frame: since the video's start */
    int has_pose, has_spacing;
    double pose[16];      /**< probe to tracker, row-major, mm */
    double spacing_mm[2]; /**< x, y */
    const char *source;   /**< file relative to what was given, or name of the stream; "" = unknown;
                             um_frame_set_source() */
    int has_ts; /**< ts is the source's own timestamp, 0 included; else it is the time of receipt
                 */
    uint64_t received_ns; /**< when a live source had received it completely, by CLOCK_MONOTONIC; 0
                             = unknown, or of a source that waits until it is read */
} um_frame;

/**
 * Create a frame with uninitialised pixels and one reference.
 *
 * @return UM_OK; UM_EINVAL for a size of 0, a side over UM_FRAME_MAX_SIDE, more than
 * UM_FRAME_MAX_PIXELS or channels other than 1, 3; UM_ENOMEM. On error *out is NULL.
 */
UM_API um_status um_frame_create(um_frame **out, int width, int height, int channels);

/**
 * Create a frame over the caller's pixels, without a copy.
 *
 * @param stride  bytes between rows, at least width * channels, or at most minus that for rows that
 *                lie bottom to top (pixels is the first row of the image either way).
 * @param release called once with ctx when the last reference is dropped, on that thread; or NULL.
 * On error it is not called and the caller keeps the pixels.
 * @return UM_OK; UM_EINVAL as um_frame_create(), or for the stride; UM_ENOMEM.
 */
UM_API um_status um_frame_wrap(um_frame **out, int width, int height, int channels, uint8_t *pixels,
                               ptrdiff_t stride, void (*release)(void *ctx), void *ctx);

/** Set where a frame comes from; the text is copied, NULL is "". @return UM_OK, UM_ENOMEM (then it
 * is unchanged). */
UM_API um_status um_frame_set_source(um_frame *frame, const char *source);

/**
 * Find the ultrasound image on a scanner's screen: the largest part with speckle, as a rectangle on
 * a grid of at most 64 cells. What leaves out less than a tenth of a side leaves out nothing.
 *
 * @param rect x, y, width, height; in: what was found in earlier images of the same size, width 0 =
 *             nothing yet; out: the rectangle around both, unchanged if there is no speckle (menus
 *             only, an unplugged cable).
 * @return UM_OK; UM_EINVAL for NULL. Threads: any.
 */
UM_API um_status um_frame_find_image(const um_frame *frame, int rect[4]);

/**
 * Make the gray frame that networks see which know gray only: Rec. 601's luminance, as Pillow's
 * convert("L"). In a gray image, or one with a tint, strokes of another colour (measuring frames,
 * calipers, a needle's path; at most a 32nd of the smaller side across, or 4 pixels) are painted
 * over with what is beside them; what is larger (flow) stays.
 *
 * @param out a new frame with all else that the given one says; a copy if that is gray already.
 * @return UM_OK; UM_EINVAL for NULL; UM_ENOMEM; on error *out is NULL. Threads: any.
 */
UM_API um_status um_frame_gray(const um_frame *frame, um_frame **out);

/** Add a reference and return the frame. Threads: any. */
UM_API um_frame *um_frame_ref(um_frame *frame);

/** Drop a reference and set *frame to NULL; the last one frees it. Accepts NULL. Threads: any. */
UM_API void um_frame_unref(um_frame **frame);

#ifdef __cplusplus
}
#endif
#endif
