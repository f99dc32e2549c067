/* SPDX-License-Identifier: Apache-2.0 */
/* What a live source knows of a frame and um_frame has no room for: kept to the bit, so that what
 * is sent back lies where the picture lay. */
#ifndef UM_IO_ORIGIN_H
#define UM_IO_ORIGIN_H

#include "igtl/content.h"
#include "ultramotion/frame.h"

enum { UM_ORIGIN_TRANSFORMS = 16 };

struct um_origin {
    char device[UM_IGTL_NAME + 1];
    uint64_t stamp;             /* 32.32; 0 = it had none */
    struct um_igtl_image image; /* all but the pixels */
    double received;            /* seconds since 1970 */
    int transforms;             /* that came with the same stamp */
    struct {
        char name[UM_IGTL_NAME + 1];
        float matrix[12];
    } transform[UM_ORIGIN_TRANSFORMS];
};

/* The frame frees it, with um_free(). */
void um_frame_set_origin(um_frame *frame, struct um_origin *origin);
/* NULL where none was set. */
const struct um_origin *um_frame_origin(const um_frame *frame);

#endif
