/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_JPEG_WRITE_H
#define UM_IO_JPEG_WRITE_H

#include "base/status.h"
#include "ultramotion/frame.h"

/* A JPEG in memory, in a block that grows and is used again. Start with zeros. */
struct um_jpeg {
    uint8_t *data;
    size_t size, capacity;
};
/* quality 1 to 100. UM_EFORMAT with libjpeg's words, UM_ENOMEM. */
um_status um_jpeg_write(struct um_jpeg *out, const um_frame *frame, int quality);
void um_jpeg_finish(struct um_jpeg *out);

#endif
