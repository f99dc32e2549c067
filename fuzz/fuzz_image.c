/* SPDX-License-Identifier: Apache-2.0 */
/* A PNG or JPEG file. */
#include "memory_file.h"
#include "ultramotion/ultramotion.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memory_file(data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    um_frame *frame = NULL;
    um_status st = um_image_read(path, &frame);
    if ((st == UM_OK) != (frame != NULL) || (st != UM_OK && st != UM_EFORMAT))
        abort();
    unsigned sum = 0;
    for (int y = 0; frame && y < frame->height; y++)
        sum += frame->pixels[y * frame->stride] + frame->pixels[(y + 1) * frame->stride - 1];
    if (sum == 1u << 31)
        abort(); /* never: the pixels had to be read for it */
    um_frame_unref(&frame);
    close(fd);
    return 0;
}
