/* SPDX-License-Identifier: Apache-2.0 */
/* A PNG or JPEG file. */
#include "memory_file.h"

#include "base/mem.h"
#include "ultramotion/ultramotion.h"

#include <string.h>

/* What was read is written and read back. */
static void write_picture(const um_frame *frame)
{
    char path[MEMORY_PATH];
    um_frame *back = NULL;
    size_t size = (size_t)frame->width * (size_t)frame->height * (size_t)frame->channels;
    scratch_path(path);
    if (um_image_write_png(path, frame->pixels, frame->width, frame->height, frame->channels) !=
            UM_OK ||
        um_image_read(path, &back) != UM_OK || back->channels != frame->channels ||
        back->width != frame->width || memcmp(back->pixels, frame->pixels, size) != 0)
        abort();
    um_frame_unref(&back);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[MEMORY_PATH];
    int fd = memory_file(data, size, path);
    um_frame *frame = NULL;
    um_mem_fail_at(size ? 1 + data[size / 2] % 4 : 1);
    um_status without = um_image_read(path, &frame);
    um_mem_fail_at(0);
    if ((without == UM_OK) != (frame != NULL))
        abort();
    um_frame_unref(&frame);
    um_status st = um_image_read(path, &frame);
    if ((st == UM_OK) != (frame != NULL) || (st != UM_OK && st != UM_EFORMAT))
        abort();
    if (frame && frame->width * frame->height < 1 << 16)
        write_picture(frame);
    um_frame_unref(&frame);
    close(fd);
    return 0;
}
