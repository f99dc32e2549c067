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

/** One picture in host memory: 8-bit gray or RGB, rows top to bottom, with its stamp and geometry.
 * Reference counted. */
typedef struct um_frame {
    int width, height, channels; /**< channels 1 (gray) or 3 (RGB, interleaved) */
    ptrdiff_t stride;            /**< bytes from one row to the next */
    uint8_t *pixels;
    uint64_t id; /**< position in its source, from 0 */
    double ts;   /**< seconds since 1970 */
    int has_pose, has_spacing;
    double pose[16];      /**< probe to tracker, row-major, mm */
    double spacing_mm[2]; /**< x, y */
} um_frame;

/**
 * Create a frame with uninitialised pixels and one reference.
 *
 * @return UM_OK; UM_EINVAL for a size of 0, a side over UM_FRAME_MAX_SIDE, more than
 * UM_FRAME_MAX_PIXELS or channels other than 1, 3; UM_ENOMEM. On error *out is NULL.
 */
UM_API um_status um_frame_create(um_frame **out, int width, int height, int channels);

/** Add a reference and return the frame. Threads: any. */
UM_API um_frame *um_frame_ref(um_frame *frame);

/** Drop a reference and set *frame to NULL; the last one frees it. Accepts NULL. Threads: any. */
UM_API void um_frame_unref(um_frame **frame);

#ifdef __cplusplus
}
#endif
#endif
