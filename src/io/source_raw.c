/* SPDX-License-Identifier: Apache-2.0 */
/* "-": frames on standard input, one after the other, nothing between them. Size and format come
 * from the settings. */
#include "io/source.h"

#include "base/file.h"
#include "base/kind.h"
#include "base/wake.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct raw {
    um_source_settings set;
    int wake;
};

static um_status raw_open(void *priv, const char *arg, const um_source_settings *settings,
                          int wake_fd)
{
    (void)arg;
    struct raw *r = priv;
    if (settings->loop)
        return um_fail(UM_EINVAL, "-: what was read is gone and cannot be looped");
    if (settings->width == 0 || settings->height == 0)
        return um_fail(UM_EINVAL, "raw frames on stdin need a size: --size WxH");
    um_frame *probe = NULL; /* the limits of a frame are written in one place */
    um_status st = um_frame_create(&probe, settings->width, settings->height, settings->channels);
    um_frame_unref(&probe);
    *r = (struct raw){*settings, wake_fd};
    return st;
}

/* Fill a frame's pixels. UM_EOF before its first byte, or when cancelled: what has come of it by
 * then is dropped. */
static um_status fill(const struct raw *r, uint64_t index, um_frame *f)
{
    size_t size = (size_t)f->stride * (size_t)f->height, got = 0;
    while (got < size) {
        if (!um_wake_poll(STDIN_FILENO, POLLIN, r->wake, -1))
            return UM_EOF;
        ssize_t n = read(STDIN_FILENO, f->pixels + got, size - got);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return um_fail(UM_EIO, "stdin: frame %llu: %s", (unsigned long long)index,
                           strerror(errno));
        if (n == 0 && got == 0)
            return UM_EOF;
        if (n == 0)
            return um_fail(UM_EFORMAT,
                           "stdin: frame %llu ends after %zu of %zu bytes (%dx%d, %d channel%s)",
                           (unsigned long long)index, got, size, r->set.width, r->set.height,
                           r->set.channels, r->set.channels == 1 ? "" : "s");
        got += (size_t)n;
    }
    return UM_OK;
}

/* Who pipes a file in gets frames all the same, of noise. */
static void warn_of_file(const struct raw *r, const um_frame *f)
{
    char text[200];
    size_t size = (size_t)f->stride * (size_t)f->height;
    struct um_kind kind = um_kind_of(f->pixels, size < UM_KIND_HEAD ? size : UM_KIND_HEAD);
    if (!r->set.on_notice || (kind.sort != UM_KIND_IMAGE && kind.sort != UM_KIND_VIDEO))
        return;
    snprintf(text, sizeof text,
             "stdin: warning: it begins like %s, and is read as raw pixels: give the file by name",
             kind.what);
    r->set.on_notice(r->set.ctx, text);
}

static um_status raw_read(void *priv, uint64_t index, um_frame **frame)
{
    struct raw *r = priv;
    um_status st = um_frame_create(frame, r->set.width, r->set.height, r->set.channels);
    if (st == UM_OK)
        st = um_frame_set_source(*frame, "stdin");
    if (st == UM_OK)
        st = fill(r, index, *frame);
    if (st == UM_OK && index == 0)
        warn_of_file(r, *frame);
    if (st != UM_OK)
        um_frame_unref(frame);
    return st;
}

bool um_raw_reads(const char *path)
{
    return um_file_same("/dev/stdin", path);
}

const um_source_ops um_source_raw = {
    .struct_size = sizeof um_source_raw,
    .priv_size = sizeof(struct raw),
    .open = raw_open,
    .read = raw_read,
    .stream = 1,
    .uses = UM_SOURCE_SIZE,
};
