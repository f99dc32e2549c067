/* SPDX-License-Identifier: Apache-2.0 */
/* Lines to a descriptor that never keep a thread for good: it writes only what poll() says there is
 * room for, and so can be woken. (Not by a flag of the descriptor: stdout's would be everybody's.)
 */
#include "ultramotion/sink.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct um_lines {
    char *path;       /* as messages call it */
    int fd;           /* -1: a FIFO without a reader yet */
    FILE *standard;   /* stdout or stderr, or NULL */
    bool old;         /* holds what was there before, up to the first line */
    size_t piece;     /* bytes that a descriptor with room takes at once */
    um_status status; /* of the first line that was not written whole */
};

enum { MODE = 0666, OPEN_FLAGS = O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY };

static um_status failed(const struct um_lines *l)
{
    return um_fail(errno == EPIPE ? UM_EOF : UM_EIO, "%s: %s", l->path, strerror(errno));
}

static um_status open_path(struct um_lines *l)
{
    struct stat s;
    if (stat(l->path, &s) == 0 && S_ISFIFO(s.st_mode)) {
        l->fd = open(l->path, OPEN_FLAGS);
        return l->fd >= 0 || errno == ENXIO ? UM_OK : failed(l);
    }
    l->fd = open(l->path, OPEN_FLAGS | O_CREAT, MODE);
    if (l->fd < 0 || fstat(l->fd, &s) != 0)
        return failed(l);
    if (!S_ISREG(s.st_mode))
        return UM_OK;
    l->piece = SIZE_MAX;
    l->old = s.st_size > 0;
    return um_file_lock(l->fd, l->path);
}

/* What a program's own output goes to already is written there, behind it. */
static FILE *standard(const char *path)
{
    return strcmp(path, "-") == 0 || um_file_same(path, "/dev/stdout") ? stdout
           : um_file_same(path, "/dev/stderr")                         ? stderr
                                                                       : NULL;
}

um_status um_lines_open(um_lines **out, const char *path)
{
    if (out)
        *out = NULL;
    if (!out || !path || !path[0])
        return um_fail(UM_EINVAL, "um_lines_open: no %s", out ? "path" : "place for the result");
    um_lines *l = um_zalloc(sizeof *l);
    if (!l)
        return um_fail(UM_ENOMEM, "%s", path);
    l->standard = standard(path);
    l->fd = l->standard ? fileno(l->standard) : -1;
    l->piece = PIPE_BUF;
    l->path = um_strdup(strcmp(path, "-") == 0 ? "stdout" : path);
    um_status st = l->path ? UM_OK : um_fail(UM_ENOMEM, "%s", path);
    if (st == UM_OK && !l->standard)
        st = open_path(l);
    else if (st == UM_OK &&
             fcntl(l->fd, F_GETFD) < 0) /* the next file opened would take its place */
        st = failed(l);
    if (st != UM_OK)
        um_lines_close(&l);
    *out = l;
    return st;
}

/* Wait for a FIFO's reader: nothing tells of one, so it is looked for. */
static um_status await_reader(struct um_lines *l, int wake_fd)
{
    enum { LOOK_MS = 20 };
    while (l->fd < 0) {
        l->fd = open(l->path, OPEN_FLAGS);
        if (l->fd < 0 && errno != ENXIO && errno != EINTR)
            return failed(l);
        if (l->fd < 0 && um_wake_wait(wake_fd, 0))
            return um_fail(UM_AGAIN, "%s: nobody reads it", l->path);
        if (l->fd < 0)
            um_wake_wait(wake_fd, LOOK_MS);
    }
    return UM_OK;
}

static um_status put(const struct um_lines *l, const char *text, size_t n, int wake_fd)
{
    while (n > 0) {
        if (!um_wake_poll(l->fd, POLLOUT, wake_fd, -1))
            return um_fail(UM_AGAIN, "%s: its reader takes nothing", l->path);
        ssize_t done = write(l->fd, text, n < l->piece ? n : l->piece);
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return failed(l);
        if (done > 0) {
            text += done;
            n -= (size_t)done;
        }
    }
    return UM_OK;
}

/* A reader that left is told, and ends nobody's program: until release() SIGPIPE is not delivered
 * on this thread, which may be anybody's. */
struct held {
    sigset_t pipe, mask, pending;
};

static void hold(struct held *h)
{
    sigemptyset(&h->pipe);
    sigaddset(&h->pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &h->pipe, &h->mask);
    sigpending(&h->pending);
}

static void release(const struct held *h)
{
    static const struct timespec now;
    if (!sigismember(&h->pending, SIGPIPE))
        while (sigtimedwait(&h->pipe, NULL, &now) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &h->mask, NULL);
}

um_status um_lines_write(um_lines *l, const char *line, int wake_fd)
{
    if (!l || !line)
        return um_fail(UM_EINVAL, "um_lines_write: no %s", l ? "line" : "lines");
    if (l->status != UM_OK) /* a part of a line may stand there already */
        return um_fail(l->status, "%s: an earlier line could not be written", l->path);
    size_t n = strlen(line);
    char *whole = um_alloc(n + 1);
    if (!whole)
        return um_fail(UM_ENOMEM, "a line for %s", l->path);
    memcpy(whole, line, n);
    whole[n] = '\n';
    um_status st = await_reader(l, wake_fd);
    if (st == UM_OK && l->old && ftruncate(l->fd, 0) != 0)
        st = failed(l);
    l->old = false;
    if (st == UM_OK) {
        struct held held;
        hold(&held);
        if (l->standard) { /* what the program printed comes first; others' lines wait */
            flockfile(l->standard);
            fflush(l->standard);
        }
        st = put(l, whole, n + 1, wake_fd);
        if (l->standard)
            funlockfile(l->standard);
        release(&held);
    }
    um_free(whole);
    l->status = st;
    return st;
}

um_status um_lines_close(um_lines **lines)
{
    if (!lines || !*lines)
        return UM_OK;
    um_lines *l = *lines;
    *lines = NULL;
    um_status st = UM_OK;
    if (l->fd >= 0 && !l->standard && close(l->fd) != 0 && l->status == UM_OK && errno != EINTR)
        st = failed(l);
    um_free(l->path);
    um_free(l);
    return st == UM_EOF ? UM_OK : st;
}
