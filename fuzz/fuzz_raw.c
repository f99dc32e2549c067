/* SPDX-License-Identifier: Apache-2.0 */
/* Raw frames on stdin: width, height (16 bits each), channels and flags, then the stream. */
#include "memory_file.h"

#include "io/source.h"
#include "ultramotion/ultramotion.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

enum { CHANNELS = 15, UNREADABLE = 0x40, CANCELLED = 0x80 };

/* Woken while it waits for a silent stdin: the end. */
static void read_woken(const um_source_settings *set, int wake_fd)
{
    um_frame *frame = NULL;
    void *state = calloc(1, um_source_raw.priv_size);
    int ends[2];
    if (!state || pipe(ends) != 0 || dup2(ends[0], STDIN_FILENO) < 0 ||
        um_source_raw.open(state, "", set, wake_fd) != UM_OK ||
        um_source_raw.read(state, 0, &frame) != UM_EOF || frame)
        abort();
    close(ends[0]);
    close(ends[1]);
    free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5)
        return 0;
    um_source_settings set;
    um_source_settings_default(&set);
    set.width = (int16_t)(data[0] | data[1] << 8);
    set.height = (int16_t)(data[2] | data[3] << 8);
    set.channels = (data[4] & CHANNELS) % 5;
    size_t bytes = size - 5, frames = 0;
    char path[MEMORY_PATH];
    int saved = dup(STDIN_FILENO), fd = memory_file(data + 5, bytes, path);
    bool unreadable = data[4] & UNREADABLE, cancelled = data[4] & CANCELLED;
    int given = unreadable ? open(path, O_WRONLY) : fd;
    if (dup2(given, STDIN_FILENO) < 0)
        abort();
    um_source *source = NULL;
    um_status st = um_source_open(&source, "-", &set);
    while (st == UM_OK) {
        um_frame *frame = NULL;
        if (cancelled && frames)
            um_source_cancel(source);
        st = um_source_read(source, &frame);
        size_t whole = (size_t)set.width * (size_t)set.height * (size_t)set.channels;
        if (st == UM_OK && memcmp(frame->pixels, data + 5 + whole * frames++, whole) != 0)
            abort();
        if (unreadable         ? st != UM_EIO
            : cancelled        ? st == UM_OK && frames > 1
            : st == UM_EFORMAT ? bytes % whole == 0
                               : st == UM_EOF && bytes != whole * frames)
            abort(); /* a rest is an error, and only a rest */
        um_frame_unref(&frame);
    }
    um_source_close(&source);
    if (cancelled && st == UM_EOF)
        read_woken(&set, fd); /* a file is always readable */
    if (saved >= 0)
        dup2(saved, STDIN_FILENO);
    close(saved);
    if (unreadable)
        close(given);
    close(fd);
    return 0;
}
