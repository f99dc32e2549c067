/* SPDX-License-Identifier: Apache-2.0 */
/* The handle, and the thread that drives the pipeline: it alone decides when a run ends. It never
 * waits for one thing only: whatever changes sets its wake descriptor, so that a silent source
 * hides no dead sink, and a stuck sink no stop. */
#include "ultramotion/run.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/record.h"
#include "base/status.h"
#include "base/thread.h"
#include "base/wake.h"
#include "monitor/monitor.h"
#include "stream/lag.h"
#include "stream/queue.h"
#include "stream/reader.h"
#include "stream/writer.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { RECEIVE_MOST = 1024, TEXT = UM_ERROR_BYTES, LOOKS = 4 };
static const uint64_t MS = 1000000;
/* A run that must end is over within 2 s: so long sinks may still write, so long they may take to
 * notice that they were given up. */
static const uint64_t LAST_MS = 1200, GRACE_MS = 300;

/* What a pipeline is told to change. */
struct change {
    bool conf, label, objects;
    float conf_to;
    int label_to, objects_to;
};

struct um_run {
    atomic_int refs; /* the handle, and the threads that may be left behind */
    um_run_settings set;
    int wake, fd; /* something changed for the driver; for um_run_receive() */
    atomic_bool stop;
    atomic_int in_flight; /* = sent, for who looks */
    struct um_reader reader;
    struct um_writer *writers;
    struct um_queue received; /* parcels that wait for um_run_receive() */
    pthread_t driver, keeper;
    int over_fd; /* for the keeper: the run has ended */
    bool kept;   /* there is one */
    struct {     /* between the two, and who looks */
        pthread_mutex_t lock;
        uint64_t since, frame; /* the driver is at it since then, elsewhere; 0 = it is here */
        int without;           /* frames it has taken that have no packet */
        bool left;             /* ... and was not waited for any longer: the run is the keeper's */
    } away;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool locked;
    bool started, over; /* guarded by lock, as all below */
    bool released;      /* the source may be gone, and counts.replaced is whole */
    um_run_counts counts;
    um_status status;
    char text[TEXT];
    struct change changed; /* through the monitor: for a pipeline that replaces this one, too */
    um_pipeline *pipeline; /* a reference: of the settings, or what replaced it; changed by the
                              driver alone */
    /* of the driver alone */
    struct um_arrival *waiting[UM_INFLIGHT_MAX]; /* for their packets, oldest first */
    int n_waiting, sent;                         /* the first `sent` of them are in the pipeline */
    bool gone; /* away.left, when it came back: what is shared is no longer its own */
    struct um_lag lag;
    int color_size[2];    /* the path for colour is planned for it */
    uint64_t last;        /* when all must have ended; UINT64_MAX = there is time */
    char lost_sink[TEXT]; /* why the first one failed */
};

void um_run_settings_init(um_run_settings *s, size_t struct_size)
{
    static const um_run_settings defaults;
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

/* ---- what the driver tells ---- */

/* Add to the counts, which others read. */
#define COUNT(r, what)                    \
    do {                                  \
        pthread_mutex_lock(&(r)->lock);   \
        (r)->counts.what++;               \
        pthread_mutex_unlock(&(r)->lock); \
    } while (0)

static void set_stopped(struct um_run *r)
{
    pthread_mutex_lock(&r->lock);
    r->counts.stopped = 1;
    pthread_mutex_unlock(&r->lock);
}

static void problem(const struct um_run *r, const char *text)
{
    if (r->set.on_problem)
        r->set.on_problem(r->set.ctx, text);
}

/* ---- the driver goes where it may get stuck ---- */

/* without: of the frames that wait, those that get no packet if it does not come back. */
static void go_away(struct um_run *r, uint64_t frame, int without)
{
    pthread_mutex_lock(&r->away.lock);
    r->away.since = um_clock_ns();
    r->away.frame = frame;
    r->away.without = without;
    pthread_mutex_unlock(&r->away.lock);
}

/* False: nobody waits for it any more. */
static bool come_back(struct um_run *r)
{
    pthread_mutex_lock(&r->away.lock);
    r->away.since = 0;
    r->gone = r->away.left;
    pthread_mutex_unlock(&r->away.lock);
    return !r->gone;
}

/* ---- ending ---- */

/* From now on there is little time: nothing more is read. */
static void hurry(struct um_run *r)
{
    if (r->last != UINT64_MAX)
        return;
    r->last = um_clock_ns() + LAST_MS * MS;
    um_queue_leave(&r->reader.arrivals);
    um_source_cancel(r->reader.source);
}

static bool stopping(struct um_run *r)
{
    if (atomic_load(&r->stop)) {
        set_stopped(r);
        hurry(r);
    }
    return r->last != UINT64_MAX;
}

/* Does anybody still want packets? */
static bool wanted(const struct um_run *r)
{
    bool any = false, alive = false;
    for (int i = 0; i < r->set.n_sinks; i++)
        if (!r->writers[i].set.auxiliary) {
            any = true;
            alive = alive || !r->writers[i].over;
        }
    return alive || !any || r->set.receive;
}

static void lose_sink(struct um_run *r, const char *text)
{
    if (!r->lost_sink[0])
        snprintf(r->lost_sink, sizeof r->lost_sink, "%s", text);
    COUNT(r, sinks_failed);
    problem(r, text);
}

/* A sink that ended, or that is given up, is told once. */
static void check_sinks(struct um_run *r)
{
    for (int i = 0; i < r->set.n_sinks; i++) {
        struct um_writer *w = &r->writers[i];
        uint64_t now = um_clock_ns();
        char text[TEXT];
        if (w->over || !w->started)
            continue;
        if (atomic_load(&w->done)) {
            w->over = true;
            if (w->status == UM_EOF) {
                if (!wanted(r))
                    set_stopped(r);
            } else if (w->status != UM_OK)
                lose_sink(r, w->problem);
        } else if (um_writer_due(w, r->last) <= now) {
            bool late = r->last <= now;
            w->over = true;
            um_writer_give_up(w, now);
            um_number_print(text, sizeof text, "%s: given up: %s %.1f s", um_sink_name(w->sink),
                            late ? "the run ended, and it was not done after"
                                 : "a packet took more than",
                            (double)(late ? (int)LAST_MS : w->set.deadline_ms) / 1e3);
            lose_sink(r, text);
        }
    }
}

/* Wait until something changes, a sink's time is up or the last moment is there. */
static void rest(struct um_run *r, uint64_t until)
{
    for (int i = 0; i < r->set.n_sinks; i++)
        if (r->writers[i].started && !r->writers[i].over) {
            uint64_t due = um_writer_due(&r->writers[i], r->last);
            until = due < until ? due : until;
        }
    um_wake_wait(r->wake, um_clock_ms_until(until));
    um_wake_clear(r->wake);
    stopping(r);
    check_sinks(r);
}

/* ---- packets to sinks ---- */

/* Try to hand it to one, who may count what goes for it. False: there is no room yet. */
static bool offer(struct um_run *r, struct um_queue *to, struct um_parcel *p, bool replace,
                  atomic_ullong *dropped)
{
    void *old = NULL;
    atomic_fetch_add(&p->refs, 1);
    enum um_queue_put put = um_queue_put(to, p, replace ? UM_QUEUE_REPLACE : UM_QUEUE_REFUSE, &old);
    if (put != UM_QUEUE_PUT)
        um_parcel_drop(p);
    if (old) {
        um_parcel_drop(old);
        COUNT(r, dropped);
        if (dropped)
            atomic_fetch_add_explicit(dropped, 1, memory_order_relaxed);
    }
    return put != UM_QUEUE_FULL;
}

/* The same to all who have not got it: sinks, and um_run_receive(), which is nobody's thread, so
 * that a run that ends does not wait for it. */
static bool hand_out(struct um_run *r, struct um_parcel *p, bool *to_caller)
{
    bool all = true;
    for (int i = 0; i < r->set.n_sinks; i++) {
        struct um_writer *w = &r->writers[i];
        w->pending =
            w->pending && !offer(r, &w->queue, p, w->set.policy == UM_SINK_DROP, &w->dropped);
        all = all && !w->pending;
    }
    if (*to_caller) {
        bool replace = r->set.receive_policy == UM_SINK_DROP || r->last != UINT64_MAX;
        *to_caller = !offer(r, &r->received, p, replace, NULL);
        um_wake_set(r->fd);
    }
    return all && !*to_caller;
}

/* Hand a packet to everyone who is there. */
static um_status deliver(struct um_run *r, const um_packet *packet, const struct um_arrival *a)
{
    bool to_caller = r->set.receive > 0, any = to_caller || r->set.n_sinks > 0;
    struct um_parcel *p = any ? um_parcel_pack(packet, a->frame, a->name) : NULL;
    if (any && !p)
        return um_fail(UM_ENOMEM, "packet of frame %llu", (unsigned long long)packet->frame_id);
    for (int i = 0; i < r->set.n_sinks; i++)
        r->writers[i].pending = !r->writers[i].over;
    while (p && !hand_out(r, p, &to_caller))
        rest(r, UINT64_MAX);
    um_parcel_drop(p);
    return UM_OK;
}

/* ---- frames through the pipeline ---- */

static um_status change(um_pipeline *p, const struct change *c)
{
    return um_pipeline_change(p, c->conf ? &c->conf_to : NULL, c->label ? &c->label_to : NULL,
                              c->objects ? &c->objects_to : NULL);
}

/* The device is lost: false if the run must end, with the reason as the error. */
static bool replace_pipeline(struct um_run *r)
{
    char why[TEXT];
    um_pipeline *other = r->pipeline;
    snprintf(why, sizeof why, "%s", um_last_error());
    COUNT(r, device_lost);
    if (r->counts.device_lost > 1 || !r->set.on_device_lost)
        return false;
    um_status st = r->set.on_device_lost(r->set.ctx, &other);
    if (st == UM_OK && other && other != r->pipeline) {
        um_pipeline *lost = r->pipeline;
        pthread_mutex_lock(&r->lock);
        r->pipeline = um_pipeline_ref(other);
        (void)change(other, &r->changed);
        pthread_mutex_unlock(&r->lock);
        um_pipeline_close(&lost);
        r->sent = 0; /* what was in flight is sent again */
        return true;
    }
    um_fail(UM_EDEVICE, "%s", why);
    return false;
}

/* Take the i-th of the frames that wait for their packets out of the line. */
static void drop_waiting(struct um_run *r, int i)
{
    um_arrival_drop(r->waiting[i]);
    r->n_waiting--;
    if (i < r->sent)
        r->sent--;
    atomic_store(&r->in_flight, r->sent);
    for (; i < r->n_waiting; i++)
        r->waiting[i] = r->waiting[i + 1];
}

/* A live stream in colour is gray until something coloured comes into the image. The path for
 * that is planned with the first frame of a size, not in the middle of the stream; what fails here
 * is said when such a frame is sent. */
static void prepare_color(struct um_run *r, const um_frame *f)
{
    if (!r->set.realtime || f->channels != 3 ||
        (f->width == r->color_size[0] && f->height == r->color_size[1]))
        return;
    r->color_size[0] = f->width;
    r->color_size[1] = f->height;
    (void)um_pipeline_prepare(r->pipeline, f->width, f->height, f->channels);
}

/* A pipeline's own lock is held for as long as a frame takes, so who looks does not ask it. */
static void watch_shadow(struct um_run *r)
{
    um_shadow_counts counts = {.struct_size = sizeof counts};
    if (um_pipeline_shadow(r->pipeline, &counts) == UM_OK)
        um_monitor_shadow(r->set.monitor, &counts);
}

/* How late are a live sender's frames? */
static void watch_lag(struct um_run *r, const um_frame *f)
{
    char text[TEXT], late[32];
    if (!um_source_live(r->reader.source) || !f->has_ts)
        return;
    enum um_lag_news news =
        um_lag_step(&r->lag, r->set.lag_alarm_ms / 1e3, f->ts, (double)f->received_ns * 1e-9,
                    (double)atomic_exchange(&r->reader.quiet, 0) * 1e-9);
    struct um_monitor_clock clock = {.known = true,
                                     .offset_s = r->lag.offset + um_clock_unix() -
                                                 (double)um_clock_ns() * 1e-9,
                                     .lag_s = r->lag.lag,
                                     .alarm = r->lag.alarm};
    um_monitor_lag(r->set.monitor, &clock);
    if (news == UM_LAG_NOTHING)
        return;
    um_number_print(late, sizeof late, "%.2f s", r->lag.lag);
    if (news == UM_LAG_RAISED)
        snprintf(text, sizeof text, "%s: frames come %s later than they could",
                 um_source_name(r->reader.source), late);
    else
        snprintf(text, sizeof text, "%s: frames come in time again",
                 um_source_name(r->reader.source));
    problem(r, text);
}

/* Not worth the work any more; only before it is sent for the first time. */
static bool too_old(const struct um_run *r, const struct um_arrival *a)
{
    uint64_t now = um_clock_ns(), had = a->frame->received_ns;
    return r->reader.realtime && r->set.max_age_ms > 0 && !a->way.sent && had && now > had &&
           now - had > (uint64_t)r->set.max_age_ms * MS;
}

/* Send what has not been sent, as far as the pipeline takes it. */
static um_status submit(struct um_run *r)
{
    while (r->sent < r->n_waiting) {
        if (too_old(r, r->waiting[r->sent])) {
            COUNT(r, too_old);
            drop_waiting(r, r->sent);
            continue;
        }
        um_frame *f = r->waiting[r->sent]->frame, *frame = um_frame_ref(f);
        r->waiting[r->sent]->way.sent = um_clock_ns();
        if (!r->waiting[r->sent]->way.received) /* nobody sent it: it was read ahead */
            f->received_ns = r->waiting[r->sent]->way.sent;
        go_away(r, f->id, r->n_waiting);
        um_status st = um_pipeline_send(r->pipeline, &frame);
        if (st == UM_OK)
            prepare_color(r, f);
        else if (st == UM_EINVAL &&
                 f->source[0]) /* what is wrong with it was said, now whose it is */
            um_fail_in(st, f->source);
        um_frame_unref(&frame);
        if (!come_back(r))
            return UM_EDEVICE;
        if (st == UM_OK) {
            atomic_store(&r->in_flight, ++r->sent);
        } else if (st == UM_AGAIN)
            return r->sent > 0 ? UM_OK
                               : um_fail(UM_EINVAL, "frames that are not this run's are in its "
                                                    "pipeline");
        else if (st == UM_EINVAL && !r->set.strict) { /* this frame only: e.g. beyond the crop */
            COUNT(r, unreadable);
            problem(r, um_last_error());
            drop_waiting(r, r->sent);
        } else if (st != UM_EDEVICE || !replace_pipeline(r))
            return st;
    }
    return UM_OK;
}

static uint64_t frames_in(const struct um_run *r)
{
    return atomic_load(&r->reader.frames) + um_source_replaced(r->reader.source);
}

/* The packet of the frame that has waited longest. */
static um_status collect(struct um_run *r)
{
    const um_packet *packet = NULL;
    uint64_t begun = um_clock_ns();
    go_away(r, r->waiting[0]->frame->id, r->n_waiting);
    um_status st = um_pipeline_receive(r->pipeline, &packet);
    if (!come_back(r))
        return UM_EDEVICE;
    if (r->last != UINT64_MAX) /* the time that frames in flight take is not the sinks' */
        r->last += um_clock_ns() - begun;
    watch_shadow(r);
    if (!packet && st == UM_ENUMERIC) { /* this frame only */
        COUNT(r, not_finite);
        if (!r->set.strict)
            problem(r, um_last_error());
        drop_waiting(r, 0);
        return r->set.strict ? st : UM_OK;
    }
    if (!packet)
        return st == UM_EDEVICE && replace_pipeline(r) ? UM_OK : st;
    char text[TEXT];
    snprintf(text, sizeof text, "%s", um_last_error());
    struct um_arrival *a = r->waiting[0];
    a->way.done = um_clock_ns();
    pthread_mutex_lock(&r->lock);
    r->counts.frames++;
    if (packet->state == UM_STATE_VISIBLE)
        r->counts.visible++;
    else if (packet->state == UM_STATE_LOST)
        r->counts.lost++;
    else
        r->counts.relocalizing++;
    pthread_mutex_unlock(&r->lock);
    if (r->set.monitor)
        um_monitor_packet(r->set.monitor, packet, &a->way, um_pipeline_device_bytes(r->pipeline),
                          frames_in(r));
    if (r->set.on_packet) {
        go_away(r, packet->frame_id, r->n_waiting - 1);
        r->set.on_packet(r->set.ctx, packet, a->frame, a->has_truth ? &a->truth : NULL);
        if (!come_back(r))
            return UM_EDEVICE;
    }
    um_status delivered = deliver(r, packet, a);
    drop_waiting(r, 0);
    return st != UM_OK ? um_fail(st, "%s", text) : delivered;
}

/* Those that are left when it ends: the pipeline is another's afterwards. */
static void drop_all(struct um_run *r)
{
    while (r->n_waiting > 0) {
        const um_packet *unwanted;
        if (r->sent > 0 && !r->gone) {
            go_away(r, r->waiting[0]->frame->id, r->n_waiting);
            (void)um_pipeline_receive(r->pipeline, &unwanted);
            come_back(r);
        }
        if (!r->gone)
            COUNT(r, left);
        drop_waiting(r, 0);
    }
}

/* With a pipeline that takes several frames the next one is sent before the packet of the last one
 * is waited for, if it is there by then. What is in flight is finished before a stop. */
static um_status drive(struct um_run *r)
{
    char why[TEXT] = "";
    um_status st = UM_OK, unreadable = UM_OK;
    while (st == UM_OK && wanted(r)) {
        bool room = r->sent == r->n_waiting && r->n_waiting < um_pipeline_inflight(r->pipeline);
        bool more = unreadable == UM_OK && !stopping(r);
        struct um_arrival *a = room && more ? um_queue_take(&r->reader.arrivals, false) : NULL;
        if (a && a->frame) {
            watch_lag(r, a->frame);
            r->waiting[r->n_waiting++] = a;
            st = submit(r);
        } else if (a) {
            COUNT(r, unreadable);
            if (r->set.strict) { /* what the run ends with */
                unreadable = a->status;
                snprintf(why, sizeof why, "%s", a->problem);
            } else {
                problem(r, a->problem);
            }
            um_arrival_drop(a);
        } else if (r->n_waiting > 0) {
            st = submit(r);
            if (st == UM_OK && r->sent > 0)
                st = collect(r);
        } else if (more && !um_queue_over(&r->reader.arrivals)) {
            rest(r, UINT64_MAX);
        } else {
            break;
        }
        if (r->gone)
            break;
        check_sinks(r);
    }
    if (st != UM_OK)
        snprintf(why, sizeof why, "%s", um_last_error());
    else
        st = unreadable;
    drop_all(r);
    return st == UM_OK ? UM_OK : um_fail(st, "%s", why);
}

/* ---- the driver's thread ---- */

static um_status start_threads(struct um_run *r)
{
    um_status st = UM_OK;
    for (int i = 0; i < r->set.n_sinks && st == UM_OK; i++) {
        atomic_fetch_add(&r->refs, 1);
        st = um_writer_start(&r->writers[i]);
        if (st != UM_OK)
            atomic_fetch_sub(&r->refs, 1);
    }
    if (st == UM_OK) {
        atomic_fetch_add(&r->refs, 1);
        st = um_reader_start(&r->reader);
        if (st != UM_OK)
            atomic_fetch_sub(&r->refs, 1);
    }
    return st;
}

/* Is a thread still to be waited for, and until when? One that was given up, or has had its time
 * (UINT64_MAX: it has some), gets a short one more to notice. */
static bool awaited(bool started, const atomic_bool *done, uint64_t end, uint64_t *until)
{
    uint64_t limit = end == UINT64_MAX ? end : end + GRACE_MS * MS;
    bool so = started && !atomic_load(done) && limit > um_clock_ns();
    if (so && limit < *until)
        *until = limit;
    return so;
}

static bool still_there(struct um_run *r, uint64_t *until)
{
    *until = UINT64_MAX;
    bool there = awaited(r->reader.started, &r->reader.done, r->last, until);
    for (int i = 0; i < r->set.n_sinks; i++) {
        const struct um_writer *w = &r->writers[i];
        there |= awaited(w->started, &w->done, w->over ? w->given_up_at : UINT64_MAX, until);
    }
    return there;
}

/* Join a thread that is done; leave another behind, with its reference to the run. */
static void part(struct um_run *r, pthread_t thread, bool done)
{
    if (done) {
        pthread_join(thread, NULL);
    } else {
        pthread_detach(thread);
        COUNT(r, left_behind);
    }
}

static void end_threads(struct um_run *r)
{
    uint64_t until;
    um_source_cancel(r->reader.source);
    um_queue_leave(&r->reader.arrivals);
    for (int i = 0; i < r->set.n_sinks; i++)
        um_queue_end(&r->writers[i].queue);
    while (still_there(r, &until))
        rest(r, until);
    check_sinks(r);
    for (int i = 0; i < r->set.n_sinks; i++)
        if (r->writers[i].started)
            part(r, r->writers[i].thread, atomic_load(&r->writers[i].done));
    if (r->reader.started)
        part(r, r->reader.thread, atomic_load(&r->reader.done));
}

/* Source and sinks whose threads have ended, when the monitor asks no more. How a sink ended is
 * said by the caller's own closing, or here if the caller has closed it already. */
static void release(struct um_run *r)
{
    for (int i = 0; i < r->set.n_sinks; i++) {
        struct um_writer *w = &r->writers[i];
        if (w->started && !atomic_load(&w->done))
            continue;
        if (um_sink_close(&w->sink) != UM_OK && w->status == UM_OK && !atomic_load(&w->given_up))
            lose_sink(r, um_last_error());
    }
    if (atomic_load(&r->reader.done) || !r->reader.started)
        um_source_close(&r->reader.source);
}

/* ---- what the monitor asks; on the threads of those who look ---- */

static uint64_t replaced(const struct um_run *r)
{
    return atomic_load(&r->reader.replaced) + um_source_replaced(r->reader.source);
}

static void monitor_collect(void *run, struct um_monitor_live *out)
{
    struct um_run *r = run;
    *out = (struct um_monitor_live){.running = true,
                                    .frames_in = frames_in(r),
                                    .waiting = um_queue_count(&r->reader.arrivals),
                                    .in_flight = atomic_load(&r->in_flight)};
    pthread_mutex_lock(&r->away.lock);
    out->busy_since = r->away.since;
    out->busy_frame = r->away.frame;
    pthread_mutex_unlock(&r->away.lock);
    snprintf(out->source, sizeof out->source, "%s", um_source_name(r->reader.source));
    if (um_source_live(r->reader.source) && !atomic_load(&r->reader.done)) {
        out->heard = atomic_load(&r->reader.heard);
        out->interval = atomic_load(&r->reader.interval);
    }
    for (int i = 0; i < r->set.n_sinks && i < UM_MONITOR_SINKS; i++) {
        struct um_writer *w = &r->writers[i];
        struct um_monitor_sink *s = &out->sink[out->sinks++];
        snprintf(s->name, sizeof s->name, "%s", w->name);
        s->waiting = um_queue_count(&w->queue);
        s->capacity = w->set.capacity;
        s->written = atomic_load(&w->written);
        s->dropped = atomic_load(&w->dropped);
        s->busy_since = atomic_load(&w->busy_since);
        s->failed = atomic_load(&w->given_up) || (atomic_load(&w->done) && w->status < UM_OK);
    }
    pthread_mutex_lock(&r->lock);
    out->counts = r->counts;
    out->counts.replaced = replaced(r);
    pthread_mutex_unlock(&r->lock);
}

/* One who counts, and who wants to hear of it. */
struct census {
    void (*each)(void *ctx, const char *who, const char *name, uint64_t n);
    void *ctx;
    const char *who;
};

static void count_one(void *ctx, const char *name, uint64_t n)
{
    const struct census *c = ctx;
    c->each(c->ctx, c->who, name, n);
}

static void monitor_counts(void *run,
                           void (*each)(void *ctx, const char *who, const char *name, uint64_t n),
                           void *ctx)
{
    struct um_run *r = run;
    struct census c = {each, ctx, "source"};
    um_source_counts(r->reader.source, count_one, &c);
    for (int i = 0; i < r->set.n_sinks; i++) {
        c.who = r->writers[i].name;
        um_sink_counts(r->writers[i].sink, count_one, &c);
    }
}

static um_status read_change(struct change *c, int n, const char *const *key, const double *value)
{
    for (int i = 0; i < n; i++) {
        bool whole =
            value[i] >= INT_MIN && value[i] <= INT_MAX && value[i] == (double)(int)value[i];
        if (strcmp(key[i], "conf") == 0) {
            c->conf = true;
            c->conf_to = (float)value[i];
        } else if (strcmp(key[i], "label") == 0 && whole) {
            c->label = true;
            c->label_to = (int)value[i];
        } else if (strcmp(key[i], "objects") == 0 && whole) {
            c->objects = true;
            c->objects_to = (int)value[i];
        } else if (strcmp(key[i], "label") == 0 || strcmp(key[i], "objects") == 0) {
            return um_fail(UM_EINVAL, "%s: %g, want a whole number", key[i], value[i]);
        } else {
            return um_fail(UM_EINVAL, "\"%.40s\" is not conf, label or objects", key[i]);
        }
    }
    return UM_OK;
}

static um_status monitor_set(void *run, int n, const char *const *key, const double *value)
{
    struct um_run *r = run;
    struct change now = {0};
    um_status st = read_change(&now, n, key, value);
    if (st != UM_OK)
        return st;
    pthread_mutex_lock(&r->lock);
    st = change(r->pipeline, &now);
    if (st == UM_OK)
        st = read_change(&r->changed, n, key, value);
    pthread_mutex_unlock(&r->lock);
    return st;
}

static const struct um_monitor_ops monitor_ops = {monitor_collect, monitor_counts, monitor_set};

static void leave(void *owner);

/* By the driver, or by the keeper in its stead. */
static void end_run(struct um_run *r, um_status st)
{
    char text[TEXT];
    snprintf(text, sizeof text, "%s", um_last_error());
    if (st != UM_OK || !wanted(r))
        hurry(r);
    end_threads(r);
    um_reader_empty(&r->reader);
    pthread_mutex_lock(&r->lock);
    r->counts.left += atomic_load(&r->reader.left) + (unsigned)um_source_waiting(r->reader.source);
    r->counts.replaced = replaced(r);
    r->released = true;
    pthread_mutex_unlock(&r->lock);
    um_monitor_detach(r->set.monitor);
    release(r);
    if (st == UM_OK && r->reader.started && atomic_load(&r->reader.done) && r->reader.no_memory) {
        st = UM_ENOMEM;
        snprintf(text, sizeof text, "the source's thread has no memory for a frame");
    }
    pthread_mutex_lock(&r->lock);
    if (st == UM_OK && r->counts.sinks_failed) {
        st = UM_EIO;
        snprintf(text, sizeof text, "%d of %d sinks failed: %.960s", r->counts.sinks_failed,
                 r->set.n_sinks, r->lost_sink);
    }
    r->status = st;
    memcpy(r->text, text, sizeof text);
    r->over = true;
    um_queue_end(&r->received);
    um_wake_set(r->fd);
    pthread_cond_broadcast(&r->ended);
    pthread_mutex_unlock(&r->lock);
}

static void *drive_run(void *ctx)
{
    struct um_run *r = ctx;
    um_monitor_attach(r->set.monitor, &monitor_ops, r);
    um_status st = start_threads(r);
    if (st == UM_OK)
        st = drive(r);
    if (r->gone) {
        leave(r);
        return NULL;
    }
    end_run(r, st);
    um_wake_set(r->over_fd);
    return NULL;
}

/* Is the driver still where it was at the last look, for too many looks? Then the run goes on
 * without it. Looks, not the clock: a process that was stopped for a while is no stall. */
static bool leave_driver(struct um_run *r, uint64_t *seen, int *looks, uint64_t *ns)
{
    pthread_mutex_lock(&r->away.lock);
    uint64_t since = r->away.since;
    *looks = since && since == *seen ? *looks + 1 : 0;
    *seen = since;
    *ns = since ? um_clock_ns() - since : 0;
    r->away.left = *looks >= LOOKS;
    if (r->away.left)
        atomic_fetch_add(&r->refs, 1); /* the driver's, before it can come back and leave */
    pthread_mutex_unlock(&r->away.lock);
    return *looks >= LOOKS;
}

/* The keeper's thread: it waits for the run's end, and ends it where the driver cannot. */
static void *keep_run(void *ctx)
{
    struct um_run *r = ctx;
    char text[128];
    uint64_t seen = 0, ns;
    int looks = 0;
    while (!leave_driver(r, &seen, &looks, &ns))
        if (um_wake_wait(r->over_fd, r->set.stall_ms / LOOKS + 1))
            return NULL;
    COUNT(r, left_behind);
    COUNT(r, stalled);
    pthread_mutex_lock(&r->lock);
    r->counts.left += (unsigned)r->away.without;
    pthread_mutex_unlock(&r->lock);
    um_number_print(text, sizeof text, "stalled: the pipeline has been at frame %llu for %.1f s",
                    (unsigned long long)r->away.frame, (double)ns * 1e-9);
    end_run(r, um_fail(UM_EDEVICE, "%s", text));
    return NULL;
}

/* ---- the handle ---- */

/* One less who needs the run: the last one frees it. */
static void leave(void *owner)
{
    struct um_run *r = owner;
    if (atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    um_reader_finish(&r->reader);
    for (int i = 0; r->writers && i < r->set.n_sinks; i++)
        um_writer_finish(&r->writers[i]);
    for (struct um_parcel *p; r->received.item && (p = um_queue_take(&r->received, false));)
        um_parcel_drop(p);
    um_queue_finish(&r->received);
    um_wake_close(&r->wake);
    um_wake_close(&r->fd);
    um_wake_close(&r->over_fd);
    if (r->locked) {
        pthread_mutex_destroy(&r->away.lock);
        pthread_cond_destroy(&r->ended);
        pthread_mutex_destroy(&r->lock);
    }
    um_monitor_close(&r->set.monitor);
    um_pipeline_close(&r->pipeline);
    um_free(r->writers);
    um_free(r);
}

static um_status check_settings(const um_run_settings *s)
{
    if (!s->pipeline || !s->source || s->n_sinks < 0 || (s->n_sinks && !s->sinks))
        return um_fail(UM_EINVAL, "um_run_open: no %s",
                       !s->pipeline ? "pipeline"
                       : !s->source ? "source"
                                    : "sinks");
    if (s->receive < 0 || s->receive > RECEIVE_MOST)
        return um_fail(UM_EINVAL, "um_run_open: %d packets may wait, want 0 to %d", s->receive,
                       RECEIVE_MOST);
    if (s->max_age_ms < 0 || s->lag_alarm_ms < 0 || s->stall_ms < 0)
        return um_fail(
            UM_EINVAL,
            "um_run_open: max_age_ms %d, lag_alarm_ms %d, stall_ms %d: want 0 (never) or more",
            s->max_age_ms, s->lag_alarm_ms, s->stall_ms);
    if (s->receive_policy != UM_SINK_BLOCK && s->receive_policy != UM_SINK_DROP)
        return um_fail(UM_EINVAL,
                       "um_run_open: receive_policy %d: want UM_SINK_BLOCK or UM_SINK_DROP",
                       (int)s->receive_policy);
    for (int i = 0; i < s->n_sinks; i++) {
        if (!s->sinks[i])
            return um_fail(UM_EINVAL, "um_run_open: sink %d of %d is NULL", i, s->n_sinks);
        for (int k = 0; k < i; k++) /* each has a thread that writes it */
            if (s->sinks[k] == s->sinks[i])
                return um_fail(UM_EINVAL, "um_run_open: sinks %d and %d are the same, %s", k, i,
                               um_sink_name(s->sinks[i]));
    }
    return UM_OK;
}

/* Numbers of two sinks of one name would be taken for one's. */
static void name_writer(struct um_run *r, int i)
{
    char *name = r->writers[i].name;
    const size_t size = sizeof r->writers[i].name;
    bool taken = true;
    for (int n = 1; taken; n++) {
        snprintf(name, size, n > 1 ? "%.84s#%d" : "%.95s", um_sink_name(r->writers[i].sink), n);
        taken = false;
        for (int k = 0; k < i; k++)
            taken = taken || strcmp(r->writers[k].name, name) == 0;
    }
}

static um_status prepare(struct um_run *r)
{
    const um_run_settings *s = &r->set;
    um_status st = um_wake_open(&r->wake, "a run");
    if (st == UM_OK)
        st = um_wake_open(&r->over_fd, "a run");
    if (st == UM_OK && s->receive) {
        st = um_wake_open(&r->fd, "a run");
        if (st == UM_OK)
            st = um_queue_init(&r->received, s->receive);
    }
    r->reader = (struct um_reader){.source = um_source_ref(s->source),
                                   .realtime = s->realtime || um_source_live(s->source),
                                   .want_truth = s->on_packet != NULL,
                                   .wake = r->wake,
                                   .leave = leave,
                                   .owner = r};
    if (st == UM_OK)
        st = um_reader_init(&r->reader);
    r->writers = um_array((size_t)s->n_sinks + 1, sizeof *r->writers);
    if (st == UM_OK && !r->writers)
        st = um_fail(UM_ENOMEM, "%d sinks", s->n_sinks);
    for (int i = 0; st == UM_OK && i < s->n_sinks; i++) {
        struct um_writer *w = &r->writers[i];
        w->sink = um_sink_ref(s->sinks[i]);
        w->wake = r->wake;
        w->monitor = s->monitor;
        w->number = i < UM_TRACE_SINKS ? i : UM_TRACE_SINKS - 1;
        w->leave = leave;
        w->owner = r;
        st = um_writer_init(w);
        name_writer(r, i);
        if (s->monitor)
            um_trace_name_sink(um_monitor_trace(s->monitor), i, w->name);
    }
    return st;
}

um_status um_run_open(um_run **out, const um_run_settings *settings)
{
    um_run_settings own;
    if (out)
        *out = NULL;
    if (!out || !settings)
        return um_fail(UM_EINVAL, "um_run_open: no %s", out ? "settings" : "place for the result");
    um_run_settings_default(&own);
    um_status st = um_record_in(&own, sizeof own, settings, "um_run_settings");
    if (st == UM_OK)
        st = check_settings(&own);
    if (st != UM_OK)
        return st;
    struct um_run *r = um_zalloc(sizeof *r);
    if (!r)
        return um_fail(UM_ENOMEM, "run");
    atomic_init(&r->refs, 1);
    r->set = own;
    um_monitor_ref(own.monitor);
    r->wake = r->fd = r->over_fd = -1;
    r->pipeline = um_pipeline_ref(own.pipeline);
    r->last = UINT64_MAX;
    r->locked = pthread_mutex_init(&r->lock, NULL) == 0 &&
                pthread_mutex_init(&r->away.lock, NULL) == 0 &&
                pthread_cond_init(&r->ended, NULL) == 0;
    st = r->locked ? prepare(r) : um_fail(UM_ENOMEM, "run");
    if (st != UM_OK)
        leave(r);
    else
        *out = r;
    return st;
}

static um_status start(um_run *run)
{
    um_status st = um_pipeline_forget(run->pipeline);
    if (st == UM_OK && run->set.stall_ms)
        st = um_thread_start(&run->keeper, keep_run, run, "a run's keeper");
    run->kept = st == UM_OK && run->set.stall_ms;
    if (st == UM_OK)
        st = um_thread_start(&run->driver, drive_run, run, "a run");
    if (st != UM_OK && run->kept) {
        um_wake_set(run->over_fd);
        pthread_join(run->keeper, NULL);
        um_wake_clear(run->over_fd);
        run->kept = false;
    }
    return st;
}

um_status um_run_start(um_run *run)
{
    if (!run)
        return um_fail(UM_EINVAL, "um_run_start: no run");
    pthread_mutex_lock(&run->lock);
    um_status st =
        run->started ? um_fail(UM_EINVAL, "um_run_start: it was started already") : start(run);
    run->started = run->started || st == UM_OK;
    pthread_mutex_unlock(&run->lock);
    return st;
}

void um_run_stop(um_run *run)
{
    if (!run)
        return;
    atomic_store(&run->stop, true);
    um_wake_set(run->wake);
}

um_status um_run_join(um_run *run)
{
    char text[TEXT];
    if (!run)
        return um_fail(UM_EINVAL, "um_run_join: no run");
    pthread_mutex_lock(&run->lock);
    const pthread_t self = pthread_self();
    bool started = run->started, own = started && (pthread_equal(run->driver, self) ||
                                                   (run->kept && pthread_equal(run->keeper, self)));
    while (started && !own && !run->over)
        pthread_cond_wait(&run->ended, &run->lock);
    um_status st = run->status;
    memcpy(text, run->text, sizeof text);
    pthread_mutex_unlock(&run->lock);
    if (!started)
        return um_fail(UM_EINVAL, "um_run_join: it was not started");
    if (own)
        return UM_AGAIN;
    return st == UM_OK ? UM_OK : um_fail(st, "%s", text);
}

um_status um_run_stats(const um_run *run, um_run_counts *out)
{
    struct um_run *r = (struct um_run *)(uintptr_t)run;
    if (!run || !out)
        return um_fail(UM_EINVAL, "um_run_stats: no %s", run ? "place for the result" : "run");
    pthread_mutex_lock(&r->lock);
    um_run_counts now = r->counts;
    if (!r->released)
        now.replaced = replaced(r);
    pthread_mutex_unlock(&r->lock);
    return um_record_out(out, &now, sizeof now, "um_run_counts");
}

um_status um_run_receive(um_run *run, int timeout_ms, const um_packet **packet, um_frame **frame)
{
    if (!run || !packet)
        return um_fail(UM_EINVAL, "um_run_receive: no %s", run ? "place for the result" : "run");
    *packet = NULL;
    if (frame)
        *frame = NULL;
    pthread_mutex_lock(&run->lock);
    bool started = run->started;
    pthread_mutex_unlock(&run->lock);
    if (!run->set.receive || !started)
        return um_fail(UM_EINVAL, "um_run_receive: %s",
                       started ? "settings.receive is 0" : "the run was not started");
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : um_clock_ns() + (uint64_t)timeout_ms * MS;
    for (;;) {
        struct um_parcel *p = um_queue_take(&run->received, false);
        um_wake_set(run->wake); /* there is room */
        if (um_queue_count(&run->received) == 0) {
            um_wake_clear(run->fd);
            if (um_queue_count(&run->received) > 0 || um_queue_over(&run->received))
                um_wake_set(run->fd); /* told meanwhile, and perhaps cleared */
        }
        if (p) {
            *packet = um_packet_ref(p->packet);
            if (frame)
                *frame = um_frame_ref(p->frame);
            um_parcel_drop(p);
            return UM_OK;
        }
        if (um_queue_over(&run->received))
            return UM_EOF;
        int left = um_clock_ms_until(until);
        if (left == 0)
            return UM_AGAIN;
        um_wake_wait(run->fd, left);
    }
}

int um_run_fd(const um_run *run)
{
    return run ? run->fd : -1;
}

void um_run_close(um_run **run)
{
    if (!run || !*run)
        return;
    struct um_run *r = *run;
    *run = NULL;
    if (r->started) {
        um_run_stop(r);
        if (r->kept)
            pthread_join(r->keeper, NULL);
        if (r->away.left)
            pthread_detach(r->driver);
        else
            pthread_join(r->driver, NULL);
    }
    leave(r);
}

um_status um_run_frames(const um_run_settings *settings, um_run_counts *counts)
{
    um_run *run = NULL;
    um_run_counts none = {.struct_size = sizeof none};
    um_status st = um_run_open(&run, settings);
    if (st == UM_OK)
        st = um_run_start(run);
    if (st == UM_OK)
        st = um_run_join(run);
    char text[TEXT];
    snprintf(text, sizeof text, "%s", um_last_error());
    um_status told = UM_OK;
    if (counts)
        told = run ? um_run_stats(run, counts)
                   : um_record_out(counts, &none, sizeof none, "um_run_counts");
    um_run_close(&run);
    return st != UM_OK ? um_fail(st, "%s", text) : told;
}
