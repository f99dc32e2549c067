/* SPDX-License-Identifier: Apache-2.0 */
/* Threads and queues of a run. Source -> caller is a mailbox (realtime: the newest frame wins) or
 * blocks; caller -> sink is a short blocking queue per sink, so that one slow or dead sink never
 * reorders another. Both ends learn of the end from the other. */
#include "ultramotion/run.h"

#include "base/mem.h"
#include "base/record.h"
#include "base/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { QUEUE = 4, NAME = 256 };

/* A frame on its way to the pipeline. frame NULL: an unreadable one. */
struct arrival {
    um_frame *frame;
    char name[NAME], problem[512];
    um_status status;
    bool has_truth;
    um_truth truth;
    uint8_t *truth_mask; /* copy: the source's own lasts only until its next read */
};

/* A packet on its way to the sinks: shared by them, freed by the last. */
struct parcel {
    atomic_int refs;
    const um_packet *packet;
    um_frame *frame;
    char name[NAME];
};

/* A bounded queue of pointers with a two-sided end. */
struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void *item[QUEUE]; /* guarded by lock, as all below */
    int head, count, capacity;
    bool finished; /* no more will be put */
    bool dead;     /* no more will be taken */
};

struct sink_thread {
    um_sink *sink;
    struct queue queue;
    pthread_t thread;
    bool started;
    um_status status; /* read after join or dead */
    char problem[512];
};

struct run {
    const um_run_settings *set;
    um_pipeline *pipeline;                    /* of the settings, or what replaced it */
    struct arrival *waiting[UM_INFLIGHT_MAX]; /* for their packets, oldest first */
    int n_waiting, sent;                      /* the first `sent` of them are in the pipeline */
    struct queue arrivals;
    pthread_t reader;
    um_status reader_status; /* why the reader gave up; read after join */
    atomic_ullong replaced;
    struct sink_thread *sinks;
};

static void queue_init(struct queue *q, int capacity)
{
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    q->capacity = capacity;
}

static void queue_destroy(struct queue *q)
{
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
}

/* Put, waiting for room; with `replace` the oldest item makes room instead and is returned in *old.
 * False: the taker left. */
static bool queue_put(struct queue *q, void *item, bool replace, void **old)
{
    pthread_mutex_lock(&q->lock);
    while (!q->dead && q->count == q->capacity && !replace)
        pthread_cond_wait(&q->changed, &q->lock);
    if (!q->dead && q->count == q->capacity) {
        *old = q->item[q->head];
        q->head = (q->head + 1) % QUEUE;
        q->count--;
    }
    bool ok = !q->dead;
    if (ok)
        q->item[(q->head + q->count++) % QUEUE] = item;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return ok;
}

/* Take, waiting if asked to; NULL at the end, or if nothing is there. */
static void *queue_take(struct queue *q, bool wait)
{
    void *item = NULL;
    pthread_mutex_lock(&q->lock);
    while (wait && !q->dead && q->count == 0 && !q->finished)
        pthread_cond_wait(&q->changed, &q->lock);
    if (q->count > 0) {
        item = q->item[q->head];
        q->head = (q->head + 1) % QUEUE;
        q->count--;
    }
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return item;
}

static void queue_end(struct queue *q, bool *flag)
{
    pthread_mutex_lock(&q->lock);
    *flag = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

static void drop_arrival(struct arrival *a)
{
    if (!a)
        return;
    um_frame_unref(&a->frame);
    um_free(a->truth_mask);
    um_free(a);
}

static void drop_parcel(struct parcel *p)
{
    if (p && atomic_fetch_sub(&p->refs, 1) == 1) {
        um_packet_unref(&p->packet);
        um_frame_unref(&p->frame);
        um_free(p);
    }
}

static bool stop_asked(const struct run *r)
{
    return r->set->stop && *r->set->stop;
}

static void copy_truth(const um_source *source, struct arrival *a)
{
    a->has_truth = um_source_truth(source, &a->truth) == UM_OK;
    if (!a->has_truth || !a->truth.mask)
        return;
    size_t n = (size_t)a->frame->width * (size_t)a->frame->height;
    a->truth_mask = um_alloc(n);
    if (a->truth_mask)
        memcpy(a->truth_mask, a->truth.mask, n);
    a->truth.mask = a->truth_mask;
}

static void *read_source(void *ctx)
{
    struct run *r = ctx;
    um_status st = UM_OK;
    while (st != UM_EOF && !stop_asked(r)) {
        struct arrival *a = um_zalloc(sizeof *a);
        if (!a) {
            r->reader_status = UM_ENOMEM;
            break;
        }
        st = um_source_read(r->set->source, &a->frame);
        a->status = st;
        if (st == UM_EOF) {
            drop_arrival(a);
            break;
        }
        snprintf(a->name, sizeof a->name, "%s", um_source_frame_name(r->set->source));
        if (st != UM_OK)
            snprintf(a->problem, sizeof a->problem, "%s", um_last_error());
        else if (r->set->on_packet)
            copy_truth(r->set->source, a);
        void *old = NULL;
        bool ok = queue_put(&r->arrivals, a, r->set->realtime, &old);
        if (old) {
            drop_arrival(old);
            atomic_fetch_add(&r->replaced, 1);
        }
        if (!ok) {
            drop_arrival(a);
            break;
        }
    }
    queue_end(&r->arrivals, &r->arrivals.finished);
    return NULL;
}

static void *write_sink(void *ctx)
{
    struct sink_thread *s = ctx;
    struct parcel *p;
    while (s->status == UM_OK && (p = queue_take(&s->queue, true))) {
        s->status = um_sink_write(s->sink, p->packet, p->frame, p->name);
        if (s->status != UM_OK)
            snprintf(s->problem, sizeof s->problem, "%s", um_last_error());
        drop_parcel(p);
    }
    queue_end(&s->queue, &s->queue.dead);
    return NULL;
}

static struct parcel *pack(const um_packet *packet, const um_frame *frame, const char *name,
                           int refs)
{
    struct parcel *p = um_zalloc(sizeof *p);
    if (!p)
        return NULL;
    atomic_init(&p->refs, refs);
    p->packet = um_packet_ref(packet);
    p->frame = um_frame_ref((um_frame *)(uintptr_t)frame);
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

/* Hand a packet to every sink that is alive. False when there are sinks and none is. */
static bool deliver(struct run *r, const um_packet *packet, const um_frame *frame, const char *name,
                    um_status *st)
{
    int n = r->set->n_sinks, alive = 0;
    if (n == 0)
        return true;
    struct parcel *p = pack(packet, frame, name, n);
    if (!p) {
        *st = um_fail(UM_ENOMEM, "packet of frame %llu", (unsigned long long)packet->frame_id);
        return false;
    }
    for (int i = 0; i < n; i++) {
        void *old = NULL;
        if (queue_put(&r->sinks[i].queue, p, false, &old))
            alive++;
        else
            drop_parcel(p);
    }
    return alive > 0;
}

static void problem(const struct run *r, const char *text)
{
    if (r->set->on_problem)
        r->set->on_problem(r->set->ctx, text);
}

/* Name a sink's failure once, when it is first seen. */
static void check_sinks(struct run *r, um_run_stats *stats, bool *reported)
{
    for (int i = 0; i < r->set->n_sinks; i++) {
        struct sink_thread *s = &r->sinks[i];
        pthread_mutex_lock(&s->queue.lock);
        bool dead = s->queue.dead;
        pthread_mutex_unlock(&s->queue.lock);
        if (!dead || reported[i] || s->status == UM_OK)
            continue;
        reported[i] = true;
        if (s->status == UM_EOF) {
            stats->stopped = 1;
            continue;
        }
        stats->sinks_failed++;
        problem(r, s->problem);
    }
}

/* The device is lost: false if the run must end, with the reason as the error. */
static bool replace_pipeline(struct run *r, um_run_stats *stats)
{
    char why[512];
    um_pipeline *other = r->pipeline;
    snprintf(why, sizeof why, "%s", um_last_error());
    if (++stats->device_lost > 1 || !r->set->on_device_lost)
        return false;
    um_status st = r->set->on_device_lost(r->set->ctx, &other);
    if (st == UM_OK && other && other != r->pipeline) {
        r->pipeline = other;
        r->sent = 0; /* what was in flight is sent again */
        return true;
    }
    um_fail(UM_EDEVICE, "%s", why);
    return false;
}

/* Take the i-th of the frames that wait for their packets out of the line. */
static void drop_waiting(struct run *r, int i)
{
    drop_arrival(r->waiting[i]);
    r->n_waiting--;
    if (i < r->sent)
        r->sent--;
    for (; i < r->n_waiting; i++)
        r->waiting[i] = r->waiting[i + 1];
}

/* Send what has not been sent, as far as the pipeline takes it. */
static um_status submit(struct run *r, um_run_stats *stats)
{
    while (r->sent < r->n_waiting) {
        um_frame *frame = um_frame_ref(r->waiting[r->sent]->frame);
        um_status st = um_pipeline_send(r->pipeline, &frame);
        um_frame_unref(&frame);
        if (st == UM_OK)
            r->sent++;
        else if (st == UM_AGAIN)
            return UM_OK;
        else if (st == UM_EINVAL && !r->set->strict) { /* this frame only: e.g. beyond the crop */
            stats->unreadable++;
            problem(r, um_last_error());
            drop_waiting(r, r->sent);
        } else if (st != UM_EDEVICE || !replace_pipeline(r, stats))
            return st;
    }
    return UM_OK;
}

/* The packet of the frame that has waited longest. */
static um_status collect(struct run *r, um_run_stats *stats, bool *go_on)
{
    const um_run_settings *set = r->set;
    const um_packet *packet = NULL;
    um_status st = um_pipeline_receive(r->pipeline, &packet);
    if (st == UM_ENUMERIC && !set->strict) { /* this frame only */
        stats->unreadable++;
        problem(r, um_last_error());
        drop_waiting(r, 0);
        return UM_OK;
    }
    if (!packet)
        return st == UM_EDEVICE && replace_pipeline(r, stats) ? UM_OK : st;
    const struct arrival *a = r->waiting[0];
    stats->frames++;
    if (packet->state == UM_STATE_VISIBLE)
        stats->visible++;
    else
        stats->lost++;
    if (set->on_packet)
        set->on_packet(set->ctx, packet, a->frame, a->has_truth ? &a->truth : NULL);
    if (!deliver(r, packet, a->frame, a->name, &st))
        *go_on = false;
    drop_waiting(r, 0);
    return st;
}

/* With a pipeline that takes several frames the next one is sent before the packet of the last one
 * is waited for, if it is there by then. What is in flight is finished before a stop. */
static um_status drive(struct run *r, um_run_stats *stats, bool *reported)
{
    char strict[512] = "";
    um_status st = UM_OK, unreadable = UM_OK;
    bool go_on = true;
    while (go_on && st == UM_OK) {
        bool room = r->sent == r->n_waiting && r->n_waiting < um_pipeline_inflight(r->pipeline);
        struct arrival *a = NULL;
        if (room && unreadable == UM_OK && !stop_asked(r))
            a = queue_take(&r->arrivals, r->n_waiting == 0);
        if (a && a->frame) {
            r->waiting[r->n_waiting++] = a;
            st = submit(r, stats);
        } else if (a) {
            stats->unreadable++;
            problem(r, a->problem);
            if (r->set->strict) {
                unreadable = a->status;
                snprintf(strict, sizeof strict, "%s", a->problem);
            }
            drop_arrival(a);
        } else if (r->n_waiting > 0) {
            st = submit(r, stats);
            if (st == UM_OK && r->sent > 0)
                st = collect(r, stats, &go_on);
        } else
            break;
        check_sinks(r, stats, reported);
    }
    while (r->n_waiting > 0)
        drop_waiting(r, 0);
    return st == UM_OK && unreadable != UM_OK ? um_fail(unreadable, "%s", strict) : st;
}

void um_run_settings_init(um_run_settings *s, size_t struct_size)
{
    static const um_run_settings defaults;
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

um_status um_run_frames(const um_run_settings *settings, um_run_stats *stats)
{
    struct run r = {.set = settings, .pipeline = settings->pipeline};
    int n = settings->n_sinks;
    *stats = (um_run_stats){0};
    if (settings->struct_size != sizeof *settings || !settings->pipeline || !settings->source ||
        n < 0 || (n && !settings->sinks))
        return um_fail(UM_EINVAL, "um_run_frames: settings are incomplete");
    r.sinks = um_array((size_t)n + 1, sizeof *r.sinks);
    bool *reported = um_array((size_t)n + 1, sizeof *reported);
    um_status st = r.sinks && reported ? UM_OK : um_fail(UM_ENOMEM, "sinks");
    queue_init(&r.arrivals, settings->realtime ? 1 : 2);
    for (int i = 0; i < n && st == UM_OK; i++) {
        struct sink_thread *s = &r.sinks[i];
        s->sink = settings->sinks[i];
        queue_init(&s->queue, QUEUE);
        s->started = pthread_create(&s->thread, NULL, write_sink, s) == 0;
        if (!s->started)
            st = um_fail(UM_ENOMEM, "a thread for sink %s", um_sink_name(s->sink));
    }
    bool reading = st == UM_OK && pthread_create(&r.reader, NULL, read_source, &r) == 0;
    if (st == UM_OK && !reading)
        st = um_fail(UM_ENOMEM, "a thread for the source");
    if (st == UM_OK)
        st = drive(&r, stats, reported);
    char text[512];
    snprintf(text, sizeof text, "%s", um_last_error());
    queue_end(&r.arrivals, &r.arrivals.dead);
    for (int i = 0; i < n && r.sinks; i++)
        if (r.sinks[i].sink)
            queue_end(&r.sinks[i].queue, &r.sinks[i].queue.finished);
    if (reading)
        pthread_join(r.reader, NULL);
    if (st == UM_OK && r.reader_status != UM_OK) {
        st = r.reader_status;
        snprintf(text, sizeof text, "the source's thread has no memory for a frame");
    }
    for (int i = 0; i < n && r.sinks; i++)
        if (r.sinks[i].started)
            pthread_join(r.sinks[i].thread, NULL);
    if (r.sinks && reported)
        check_sinks(&r, stats, reported);
    for (struct arrival *a; r.arrivals.count > 0 && (a = queue_take(&r.arrivals, true));)
        drop_arrival(a);
    for (int i = 0; i < n && r.sinks; i++) {
        if (!r.sinks[i].sink)
            continue;
        while (r.sinks[i].queue.count > 0)
            drop_parcel(queue_take(&r.sinks[i].queue, true));
        queue_destroy(&r.sinks[i].queue);
    }
    queue_destroy(&r.arrivals);
    stats->replaced = atomic_load(&r.replaced);
    stats->stopped |= stop_asked(&r);
    um_free(r.sinks);
    um_free(reported);
    if (st != UM_OK)
        return um_fail(st, "%s", text);
    if (stats->sinks_failed)
        return um_fail(UM_EIO, "%d of %d sinks failed", stats->sinks_failed, n);
    return UM_OK;
}
