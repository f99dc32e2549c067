/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence: MetaImage or NRRD, all of its frames, with allocations that fail and without. */
#include "memory_file.h"

#include "base/mem.h"
#include "ultramotion/ultramotion.h"

#include <math.h>

static void check_frame(const um_frame *f)
{
    for (int i = 0; i < 16; i++)
        if (f->has_pose && !isfinite(f->pose[i]))
            abort();
    if (!isfinite(f->ts) || (f->has_spacing && !(f->spacing_mm[0] > 0 && f->spacing_mm[1] > 0)))
        abort();
}

static void read_frames(const char *path, int window, uint64_t fail_at)
{
    um_source *source = NULL;
    um_frame *frame = NULL;
    um_source_settings set;
    um_source_settings_default(&set);
    set.frames = 100;
    set.window = (um_window)window;
    set.window_lo = 100;
    set.window_hi = 4095;
    um_mem_fail_at(fail_at);
    um_status st = um_source_open(&source, path, &set);
    if (st != UM_OK && st != UM_ENOMEM)
        abort();
    while (st == UM_OK && (st = um_source_read(source, &frame)) != UM_EOF) {
        if ((st == UM_OK) != (frame != NULL) || (st != UM_OK && !um_last_error()[0]))
            abort();
        if (frame)
            check_frame(frame);
        um_frame_unref(&frame);
        st = UM_OK;
    }
    um_source_close(&source);
    um_mem_fail_at(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[MEMORY_PATH];
    int fd = memory_file(data, size, path);
    read_frames(path, 0, size ? 1 + data[size / 2] % 24 : 1);
    read_frames(path, size ? data[size / 3] % 3 : 0, 0);
    close(fd);
    return 0;
}
