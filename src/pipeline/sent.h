/* SPDX-License-Identifier: Apache-2.0 */
/* The frame that was sent last, and what the networks' memory holds of it. */
#ifndef UM_PIPELINE_SENT_H
#define UM_PIPELINE_SENT_H

#include "base/status.h"
#include "ultramotion/frame.h"

#include <stdbool.h>
#include <stddef.h>

struct geometry;

struct um_sent {
    const struct geometry *g; /* NULL: none */
    uint8_t *pixels;          /* of its crop, a copy: the frame is its caller's */
    size_t bytes;
    bool boxes, embedding;
};

/* Is a frame's crop, pixel by pixel, the one before? From now on it is that; what is held of
 * another is forgotten. */
um_status um_sent_compare(struct um_sent *before, const struct geometry *g, const um_frame *f,
                          const int crop[4], bool *same);
void um_sent_forget(struct um_sent *before); /* nothing is known; accepts a zeroed one */

#endif
