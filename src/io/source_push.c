/* SPDX-License-Identifier: Apache-2.0 */
/* "push:": frames that the program hands over, in a bounded queue. */
#include "io/source.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/wake.h"

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

struct push {
    int wake;         /* the source's: cancelled */
    int filled, room; /* a frame waits or none will come; there is room */
    bool replace, locked;
    pthread_mutex_t lock;
    bool finished; /* guarded by lock, as all below */
    int capacity, count;
    um_frame **frame; /* oldest first */
    uint64_t replaced;
};

static um_status push_open(void *priv, const char *arg, const um_source_settings *settings,
                           int wake_fd)
{
    enum { MOST = 1024 };
    struct push *p = priv;
    p->wake = wake_fd;
    p->filled = p->room = -1;
    p->replace = settings->replace != 0;
    p->capacity = settings->capacity;
    p->locked = pthread_mutex_init(&p->lock, NULL) == 0;
    if (!p->locked)
        return um_fail(UM_ENOMEM, "push: a lock");
    if (arg[0])
        return um_fail(UM_EINVAL, "push: takes no argument, got \"%s\"", arg);
    if (settings->loop)
        return um_fail(UM_EINVAL, "push: what was pushed is gone and cannot be looped");
    if (p->capacity < 1 || p->capacity > MOST)
        return um_fail(UM_EINVAL, "push: capacity %d is not 1 to %d", p->capacity, MOST);
    p->frame = um_array((size_t)p->capacity, sizeof(um_frame *));
    if (!p->frame)
        return um_fail(UM_ENOMEM, "push: %d frames", p->capacity);
    um_status st = um_wake_open(&p->filled, "push:");
    return st == UM_OK ? um_wake_open(&p->room, "push:") : st;
}

static void push_close(void *priv)
{
    struct push *p = priv;
    while (p->count > 0)
        um_frame_unref(&p->frame[--p->count]);
    um_free(p->frame);
    um_wake_close(&p->filled);
    um_wake_close(&p->room);
    if (p->locked)
        pthread_mutex_destroy(&p->lock);
}

static um_frame *take(struct push *p)
{
    um_frame *f = p->frame[0];
    memmove(p->frame, p->frame + 1, (size_t)--p->count * sizeof(um_frame *));
    return f;
}

/* What `fd` tells is told anew. */
static void tell(int fd, bool so)
{
    if (so)
        um_wake_set(fd);
    else
        um_wake_clear(fd);
}

static void tell_all(const struct push *p)
{
    tell(p->filled, p->count > 0 || p->finished);
    tell(p->room, p->count < p->capacity || p->finished);
}

um_status um_push_frame(void *priv, um_frame **frame)
{
    struct push *p = priv;
    um_frame *old = NULL;
    if ((*frame)->ts == 0 && !(*frame)->has_ts)
        (*frame)->ts = um_clock_unix();
    (*frame)->received_ns = um_clock_ns();
    for (;;) {
        pthread_mutex_lock(&p->lock); /* what waits when it is over is all that is lost */
        bool over = um_wake_wait(p->wake, 0) || p->finished, full = p->count == p->capacity;
        if (!over && full && p->replace) {
            old = take(p);
            p->replaced++;
            full = false;
        }
        if (!over && !full) {
            p->frame[p->count++] = *frame;
            *frame = NULL;
        }
        tell_all(p);
        pthread_mutex_unlock(&p->lock);
        um_frame_unref(&old);
        if (over)
            return UM_EOF;
        if (!full)
            return UM_OK;
        um_wake_poll(p->room, POLLIN, p->wake, -1);
    }
}

void um_push_finish(void *priv)
{
    struct push *p = priv;
    pthread_mutex_lock(&p->lock);
    p->finished = true;
    tell_all(p);
    pthread_mutex_unlock(&p->lock);
}

int um_push_waiting(const void *priv)
{
    struct push *p = (struct push *)(uintptr_t)priv;
    pthread_mutex_lock(&p->lock);
    int n = p->count;
    pthread_mutex_unlock(&p->lock);
    return n;
}

static uint64_t push_replaced(const void *priv)
{
    struct push *p = (struct push *)(uintptr_t)priv;
    pthread_mutex_lock(&p->lock);
    uint64_t n = p->replaced;
    pthread_mutex_unlock(&p->lock);
    return n;
}

static um_status push_read(void *priv, uint64_t index, um_frame **frame)
{
    (void)index;
    struct push *p = priv;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        if (p->count > 0)
            *frame = take(p);
        bool over = p->finished;
        tell_all(p);
        pthread_mutex_unlock(&p->lock);
        if (*frame)
            return UM_OK;
        if (over || !um_wake_poll(p->filled, POLLIN, p->wake, -1))
            return UM_EOF;
    }
}

const um_source_ops um_source_push_ops = {
    .struct_size = sizeof um_source_push_ops,
    .priv_size = sizeof(struct push),
    .open = push_open,
    .close = push_close,
    .read = push_read,
    .replaced = push_replaced,
};
