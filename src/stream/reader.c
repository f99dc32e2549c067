/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/reader.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "base/wake.h"

#include <stdio.h>
#include <string.h>

void um_arrival_drop(struct um_arrival *a)
{
    if (!a)
        return;
    um_frame_unref(&a->frame);
    um_free(a->name);
    um_free(a->truth_data);
    um_free(a);
}

um_status um_reader_init(struct um_reader *r)
{
    return um_queue_init(&r->arrivals, r->realtime ? 1 : 2);
}

static um_status copy_truth(const um_source *source, struct um_arrival *a)
{
    a->truth.struct_size = sizeof a->truth;
    um_status st = um_source_truth(source, &a->truth);
    a->has_truth = st == UM_OK;
    um_truth *t = &a->truth;
    if (!a->has_truth)
        return st == UM_AGAIN ? UM_OK : st; /* again: the source knows none */
    size_t n = (size_t)a->frame->width * (size_t)a->frame->height,
           list = t->n_structures > 0 ? (size_t)t->n_structures * sizeof *t->structure : 0;
    uint8_t *to = a->truth_data = um_alloc(list + 2 * n);
    if (!to)
        return UM_ENOMEM;
    t->structure = list ? memcpy(to, t->structure, list) : NULL;
    t->mask = t->mask ? memcpy(to + list, t->mask, n) : NULL;
    t->map = t->map ? memcpy(to + list + n, t->map, n) : NULL;
    return UM_OK;
}

/* The next arrival; NULL at the end. */
static struct um_arrival *read_one(struct um_reader *r)
{
    struct um_arrival *a = um_zalloc(sizeof *a);
    if (!a) {
        r->no_memory = true;
        return NULL;
    }
    a->way.read_begin = um_clock_ns();
    a->status = um_source_read(r->source, &a->frame);
    a->way.read = um_clock_ns();
    if (a->status == UM_OK) {
        if (r->realtime && !a->frame->received_ns)
            a->frame->received_ns = a->way.read;
        a->way.received = a->frame->received_ns;
        uint64_t before = atomic_exchange(&r->heard, a->way.read);
        uint64_t interval = before ? a->way.read - before : 0;
        if (before)
            atomic_store(&r->interval, interval);
        if (interval > atomic_load(&r->quiet))
            atomic_store(&r->quiet, interval);
        atomic_fetch_add_explicit(&r->frames, 1, memory_order_relaxed);
        a->name = um_strdup(um_source_frame_name(r->source));
        r->no_memory = !a->name;
    }
    if (a->name && r->want_truth) {
        a->status = copy_truth(r->source, a);
        r->no_memory = a->status == UM_ENOMEM;
    }
    if (a->status == UM_EOF || r->no_memory) {
        um_arrival_drop(a);
        return NULL;
    }
    if (a->status != UM_OK) {
        snprintf(a->problem, sizeof a->problem, "%s", um_last_error());
        um_frame_unref(&a->frame);
    }
    return a;
}

static void *read_source(void *ctx)
{
    struct um_reader *r = ctx;
    struct um_arrival *a;
    enum um_queue_put put = UM_QUEUE_PUT;
    bool waits_frame = false; /* the one that may be waiting, in realtime */
    while (put == UM_QUEUE_PUT && (a = read_one(r))) {
        /* only frames make room, and only for frames: an unreadable one is always told */
        bool is_frame = a->frame != NULL, replace = r->realtime && is_frame && waits_frame;
        void *old = NULL;
        put = um_queue_put(&r->arrivals, a, replace ? UM_QUEUE_REPLACE : UM_QUEUE_WAIT, &old);
        if (old) {
            um_arrival_drop(old);
            atomic_fetch_add(&r->replaced, 1);
        }
        if (put != UM_QUEUE_PUT) {
            um_arrival_drop(a);
            atomic_fetch_add(&r->left, is_frame);
        }
        waits_frame = is_frame;
        um_wake_set(r->wake);
    }
    um_queue_end(&r->arrivals);
    atomic_store(&r->done, true);
    um_wake_set(r->wake);
    r->leave(r->owner);
    return NULL;
}

um_status um_reader_start(struct um_reader *r)
{
    um_status st = um_thread_start(&r->thread, read_source, r, "the source");
    r->started = st == UM_OK;
    return st;
}

void um_reader_empty(struct um_reader *r)
{
    for (struct um_arrival *a; r->arrivals.item && (a = um_queue_take(&r->arrivals, false));) {
        atomic_fetch_add(&r->left, a->frame != NULL);
        um_arrival_drop(a);
    }
}

void um_reader_finish(struct um_reader *r)
{
    um_reader_empty(r);
    um_queue_finish(&r->arrivals);
    um_source_close(&r->source);
}
