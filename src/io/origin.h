/* SPDX-License-Identifier: Apache-2.0 */
/* What a source knows of a frame and um_frame has no room for. Of a live one: kept to the bit, so
 * that what is sent back lies where the image lay. */
#ifndef UM_IO_ORIGIN_H
#define UM_IO_ORIGIN_H

#include "igtl/content.h"
#include "ultramotion/frame.h"

#include <stdbool.h>

enum { UM_ORIGIN_TRANSFORMS = 64 };

struct um_origin {
    char device[UM_IGTL_NAME + 1];
    uint64_t stamp;             /* 32.32; 0 = it had none */
    struct um_igtl_image image; /* all but the pixels */
    int transforms;             /* that came with the same stamp */
    struct {
        char name[UM_IGTL_NAME + 1];
        float matrix[12];
        bool valid; /* finite, and not said to be none */
    } transform[UM_ORIGIN_TRANSFORMS];
};

/* The frame frees it, with um_free(). */
void um_frame_set_origin(um_frame *frame, struct um_origin *origin);
/* NULL where none was set. */
const struct um_origin *um_frame_origin(const um_frame *frame);

/* What a sequence on disk said of a frame: lines "NAME = VALUE", to be written back as they were.
 * Behind an empty line, with the first frame that can be read, those of its file. The frame frees
 * it. */
void um_frame_set_notes(um_frame *frame, char *notes);
/* NULL where there are none. */
const char *um_frame_notes(const um_frame *frame);

/* `to` is `from` in another form: it takes over all but the pixels. `turned`: x became y. */
void um_frame_take_over(um_frame *to, um_frame *from, bool turned);

#endif
