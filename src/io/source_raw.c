/* SPDX-License-Identifier: Apache-2.0 */
/* "-": frames on standard input, one after the other, nothing between them. Size and format come
 * from the settings. */
#include "io/source.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

struct raw {
    int width, height, channels;
    const volatile sig_atomic_t *stop;
};

/* Wait for bytes or for `stop`, which the reader of a silent pipe would otherwise never see. */
static bool stopped(const struct raw *r)
{
    enum { TICK_MS = 50 };
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    while (r->stop && !*r->stop && poll(&in, 1, TICK_MS) == 0)
        ;
    return r->stop && *r->stop;
}

static um_status raw_open(void *priv, const char *spec, const um_source_settings *settings)
{
    (void)spec;
    struct raw *r = priv;
    if (settings->width == 0 || settings->height == 0)
        return um_fail(UM_EINVAL, "raw frames on stdin need a size: --size WxH");
    um_frame *probe = NULL; /* the limits of a frame are written in one place */
    um_status st = um_frame_create(&probe, settings->width, settings->height, settings->channels);
    um_frame_unref(&probe);
    *r = (struct raw){settings->width, settings->height, settings->channels, settings->stop};
    return st;
}

static void raw_close(void *priv)
{
    (void)priv;
}

static um_status raw_read(void *priv, uint64_t index, um_frame **frame, char name[UM_NAME_BYTES])
{
    (void)name;
    struct raw *r = priv;
    um_frame *f = NULL;
    um_status st = um_frame_create(&f, r->width, r->height, r->channels);
    if (st != UM_OK)
        return st;
    size_t size = (size_t)f->stride * (size_t)f->height, got = 0;
    while (got < size) {
        if (stopped(r)) { /* what has come of this frame is dropped with the run */
            got = 0;
            break;
        }
        ssize_t n = read(STDIN_FILENO, f->pixels + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            st = um_fail(UM_EIO, "stdin: frame %llu: %s", (unsigned long long)index,
                         strerror(errno));
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    if (st == UM_OK && got == 0)
        st = UM_EOF;
    else if (st == UM_OK && got < size)
        st = um_fail(UM_EFORMAT,
                     "stdin: frame %llu ends after %zu of %zu bytes (%dx%d, %d channel%s)",
                     (unsigned long long)index, got, size, r->width, r->height, r->channels,
                     r->channels == 1 ? "" : "s");
    if (st != UM_OK)
        um_frame_unref(&f);
    *frame = f;
    return st;
}

static long raw_length(const void *priv)
{
    (void)priv;
    return -1;
}

const um_source_type um_source_raw = {
    .scheme = "-",
    .priv_size = sizeof(struct raw),
    .open = raw_open,
    .close = raw_close,
    .read = raw_read,
    .length = raw_length,
    .ends_on_error = 1,
};
