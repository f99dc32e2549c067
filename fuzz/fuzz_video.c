/* SPDX-License-Identifier: Apache-2.0 */
/* A video, what we do around libav. Its frames come in a number that its bytes allow, and then it
 * ends. */
#include "memory_file.h"

#include "base/mem.h"
#include "ultramotion/ultramotion.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[MEMORY_PATH];
    int fd = memory_file(data, size, path);
    um_source *source = NULL;
    um_frame *frame = NULL;
    um_source_settings set;
    um_source_settings_default(&set);
    set.frames = 50;
    um_mem_fail_at(size ? 2 + data[size / 2] % 8 : 1);
    if (um_image_read(path, &frame) == UM_OK && !frame)
        abort();
    um_mem_fail_at(0);
    um_frame_unref(&frame);
    if (um_source_open(&source, path, &set) != UM_OK)
        abort();
    for (um_status st; (st = um_source_read(source, &frame)) != UM_EOF;) {
        if ((st == UM_OK) != (frame != NULL) || (st != UM_OK && !um_last_error()[0]))
            abort();
        if (st == UM_OK && !frame->has_ts && strstr(um_image_kinds(), "videos") && !frame->ts)
            abort();
        um_frame_unref(&frame);
    }
    um_source_close(&source);
    close(fd);
    return 0;
}
