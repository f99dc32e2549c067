/* SPDX-License-Identifier: Apache-2.0 */
/* An image: PNG, JPEG, BMP, TIFF with its pages, and what a source says about it. */
#include "memory_file.h"

#include "base/mem.h"
#include "ultramotion/ultramotion.h"

#include <string.h>

/* What was read is written and read back. */
static void write_image(const um_frame *frame)
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

static void listen(void *ctx, const char *text)
{
    *(size_t *)ctx += strlen(text);
}

/* All of its pages, with a window of 16 bits or without. */
static void read_pages(const char *path, int window)
{
    um_source *source = NULL;
    um_frame *frame = NULL;
    um_source_settings set;
    size_t said = 0;
    um_source_settings_default(&set);
    set.frames = 100;
    set.window = (um_window)window;
    set.window_lo = 100;
    set.window_hi = 4095;
    set.on_notice = listen;
    set.ctx = &said;
    if (um_source_open(&source, path, &set) != UM_OK)
        abort();
    for (um_status st; (st = um_source_read(source, &frame)) != UM_EOF;) {
        if ((st == UM_OK) != (frame != NULL) || (st != UM_OK && !um_last_error()[0]))
            abort();
        um_frame_unref(&frame);
    }
    um_source_close(&source);
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
    if ((st == UM_OK) != (frame != NULL) ||
        (st != UM_OK && st != UM_EFORMAT && st != UM_EUNSUPPORTED))
        abort();
    if (frame && frame->width * frame->height < 1 << 16)
        write_image(frame);
    um_frame_unref(&frame);
    read_pages(path, size ? data[size / 3] % 3 : 0);
    close(fd);
    return 0;
}
