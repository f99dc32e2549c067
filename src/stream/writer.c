/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/writer.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "base/wake.h"

#include <stdio.h>

struct um_parcel *um_parcel_pack(const um_packet *packet, const um_frame *frame, const char *name)
{
    struct um_parcel *p = um_zalloc(sizeof *p);
    char *copy = p ? um_strdup(name) : NULL;
    if (!copy) {
        um_free(p);
        return NULL;
    }
    atomic_init(&p->refs, 1);
    p->packet = um_packet_ref(packet);
    p->frame = um_frame_ref((um_frame *)(uintptr_t)frame);
    p->name = copy;
    return p;
}

void um_parcel_drop(struct um_parcel *p)
{
    if (p && atomic_fetch_sub(&p->refs, 1) == 1) {
        um_packet_unref(&p->packet);
        um_frame_unref(&p->frame);
        um_free(p->name);
        um_free(p);
    }
}

um_status um_writer_init(struct um_writer *w)
{
    w->set.struct_size = sizeof w->set;
    um_status st = um_sink_settings_of(w->sink, &w->set);
    return st == UM_OK ? um_queue_init(&w->queue, w->set.capacity) : st;
}

static void *write_sink(void *ctx)
{
    struct um_writer *w = ctx;
    struct um_parcel *p;
    while (w->status == UM_OK && (p = um_queue_take(&w->queue, true))) {
        uint64_t begin = um_clock_ns();
        atomic_store(&w->busy_since, begin);
        um_wake_set(w->wake); /* there is room, and a deadline */
        if (!atomic_load(&w->given_up))
            w->status = um_sink_write(w->sink, p->packet, p->frame, p->name);
        atomic_store(&w->busy_since, 0);
        um_monitor_span(w->monitor, UM_TRACK_SINK + w->number, "write", begin, um_clock_ns(),
                        p->packet->frame_id);
        if (w->status == UM_OK)
            atomic_fetch_add_explicit(&w->written, 1, memory_order_relaxed);
        else
            snprintf(w->problem, sizeof w->problem, "%s", um_last_error());
        um_parcel_drop(p);
    }
    um_queue_leave(&w->queue);
    atomic_store(&w->done, true);
    um_wake_set(w->wake);
    w->leave(w->owner);
    return NULL;
}

um_status um_writer_start(struct um_writer *w)
{
    um_status st = um_thread_start(&w->thread, write_sink, w, um_sink_name(w->sink));
    w->started = st == UM_OK;
    return st;
}

void um_writer_finish(struct um_writer *w)
{
    for (struct um_parcel *p; w->queue.item && (p = um_queue_take(&w->queue, false));)
        um_parcel_drop(p);
    um_queue_finish(&w->queue);
    um_sink_close(&w->sink);
}

uint64_t um_writer_due(struct um_writer *w, uint64_t last)
{
    uint64_t since = atomic_load(&w->busy_since);
    uint64_t own = (uint64_t)w->set.deadline_ms * 1000000u, rest = own / 4, now = um_clock_ns();
    uint64_t due = since && own ? since + own - rest : UINT64_MAX;
    if (due <= now) { /* and once more: until this look the process may have been stopped */
        if (w->late_since != since)
            w->late_at = now;
        w->late_since = since;
        due = (due > w->late_at ? due : w->late_at) + rest;
    }
    bool has_work = since || um_queue_count(&w->queue) > 0;
    return has_work && last < due ? last : due;
}

void um_writer_give_up(struct um_writer *w, uint64_t now)
{
    atomic_store(&w->given_up, true);
    w->given_up_at = now;
    um_queue_leave(&w->queue);
    um_sink_cancel(w->sink);
}
