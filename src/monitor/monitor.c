/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/monitor.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/record.h"

#include <dirent.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Rates are those of about the last two seconds. */
enum { SAMPLES = 32 };
static const uint64_t NS = 1000000000, SAMPLE_NS = 100000000, RATE_NS = 2000000000;

const double um_monitor_edges[UM_MONITOR_EDGES] = {0.5, 1,  2,   5,   10,  15,   20,
                                                   30,  50, 100, 200, 500, 1000, 5000};

struct sample {
    uint64_t at, in, out;
    double busy_ms;
};

struct um_monitor {
    atomic_int refs;
    struct um_trace trace;
    /* Held while the run is asked, so that it stays until that is over. Never taken by one who
     * holds `lock`. */
    pthread_mutex_t asking;
    const struct um_monitor_ops *ops;
    void *run;
    struct um_monitor_live last; /* of a run that has ended */
    pthread_mutex_t lock;        /* of all below */
    um_device *watched;          /* a reference, or NULL */
    uint64_t opened;
    um_monitor_view view; /* without the times */
    struct um_histogram time[UM_TIMES];
    uint64_t in_edge[UM_TIMES][UM_MONITOR_EDGES]; /* how many are in each bucket */
    double recent[UM_TIMES][UM_MONITOR_RECENT];   /* rings */
    uint64_t recents[UM_TIMES];
    bool late[UM_MONITOR_RECENT]; /* a ring, of packets with a deadline */
    um_effort effort;
    struct sample sample[SAMPLES]; /* a ring, never empty; the newest is samples - 1 */
    uint64_t samples;
    double busy_ms;
    struct um_second second[UM_MONITOR_SECONDS]; /* a ring by `at` */
    uint64_t packet_at, device_bytes, frame;     /* of the last packet; 0 = none */
    double data_age_s;
    float score;
    const char *state;
    char device[16], precision[8];
    struct um_monitor_told told; /* in KPI lines */
    struct um_monitor_clock clock;
    uint64_t lag_alarms;
    um_shadow_counts shadow;
};

um_status um_monitor_open(um_monitor **out)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_monitor_open: no place for the result");
    um_monitor *m = *out = um_zalloc(sizeof *m);
    if (!m)
        return um_fail(UM_ENOMEM, "monitor");
    atomic_init(&m->refs, 1);
    pthread_mutex_init(&m->asking, NULL);
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->trace.lock, NULL);
    m->opened = um_clock_ns();
    m->sample[m->samples++] = (struct sample){.at = m->opened};
    return UM_OK;
}

um_monitor *um_monitor_ref(um_monitor *m)
{
    if (m)
        atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void um_monitor_close(um_monitor **monitor)
{
    if (!monitor || !*monitor)
        return;
    um_monitor *m = *monitor;
    *monitor = NULL;
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (m->watched)
        um_device_watch(m->watched, NULL, NULL);
    um_device_close(&m->watched);
    um_trace_finish(&m->trace);
    pthread_mutex_destroy(&m->trace.lock);
    pthread_mutex_destroy(&m->asking);
    pthread_mutex_destroy(&m->lock);
    um_free(m);
}

struct um_trace *um_monitor_trace(um_monitor *m)
{
    return &m->trace;
}

/* ---- what the run tells ---- */

void um_monitor_attach(um_monitor *m, const struct um_monitor_ops *ops, void *run)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->asking);
    m->ops = ops;
    m->run = run;
    pthread_mutex_unlock(&m->asking);
    pthread_mutex_lock(&m->lock);
    m->told = (struct um_monitor_told){.lag_alarm = false};
    m->clock = (struct um_monitor_clock){.known = false};
    m->shadow = (um_shadow_counts){.struct_size = 0};
    m->samples = 0; /* models were loaded until now: rates begin here */
    m->sample[m->samples++] =
        (struct sample){.at = um_clock_ns(), .out = m->view.packets, .busy_ms = m->busy_ms};
    pthread_mutex_unlock(&m->lock);
}

void um_monitor_detach(um_monitor *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->asking);
    if (m->ops)
        m->ops->collect(m->run, &m->last);
    m->last.running = false;
    m->ops = NULL;
    m->run = NULL;
    pthread_mutex_unlock(&m->asking);
}

void um_monitor_lag(um_monitor *m, const struct um_monitor_clock *clock)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->lag_alarms += clock->alarm && !m->clock.alarm;
    m->clock = *clock;
    pthread_mutex_unlock(&m->lock);
}

void um_monitor_shadow(um_monitor *m, const um_shadow_counts *counts)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->shadow = *counts;
    pthread_mutex_unlock(&m->lock);
}

void um_monitor_span(um_monitor *m, int track, const char *name, uint64_t begin, uint64_t end,
                     uint64_t frame)
{
    if (m)
        um_trace_add(&m->trace, track, name, begin, end, frame);
}

/* A packet's stages as spans. Their durations are known, not their places: a frame's work begins
 * with the upload and ends with the packet, detection follows the one, and the outline goes before
 * the other, so that both overlap where they do. */
static void trace_packet(um_monitor *m, const um_packet *p, const struct um_passage *way)
{
    const double MS = 1e6;
    uint64_t end = way->done, total = (uint64_t)(p->ms.total * MS);
    uint64_t begin = total < end ? end - total : 0,
             uploaded = begin + (uint64_t)(p->ms.upload * MS),
             packed = end - (uint64_t)(p->ms.packet * MS);
    uint64_t id = p->frame_id;
    um_trace_add(&m->trace, UM_TRACK_READER, "read", way->read_begin, way->read, id);
    um_trace_add(&m->trace, UM_TRACK_DRIVER, "frame", way->sent, way->done, id);
    um_trace_add(&m->trace, UM_TRACK_STAGE, "upload", begin, uploaded, id);
    um_trace_add(&m->trace, UM_TRACK_STAGE + 1, "detect", uploaded,
                 uploaded + (uint64_t)(p->ms.detect * MS), id);
    um_trace_add(&m->trace, UM_TRACK_STAGE + 2, "segment", packed - (uint64_t)(p->ms.segment * MS),
                 packed, id);
    um_trace_add(&m->trace, UM_TRACK_STAGE + 3, "packet", packed, end, id);
}

static void trace_step(void *ctx, const char *place, const char *op, int thread, uint64_t begin,
                       uint64_t end)
{
    um_monitor *m = ctx;
    char name[UM_TRACE_NAME];
    snprintf(name, sizeof name, "%s %s", place, op);
    um_trace_add(&m->trace,
                 UM_TRACK_THREAD + (thread < UM_TRACE_THREADS ? thread : UM_TRACE_THREADS - 1),
                 name, begin, end, UINT64_MAX);
}

um_status um_monitor_watch(um_monitor *monitor, um_device *device)
{
    if (!monitor)
        return um_fail(UM_EINVAL, "um_monitor_watch: monitor is NULL");
    um_status st = um_device_watch(device, trace_step, monitor);
    if (st != UM_OK)
        return st;
    pthread_mutex_lock(&monitor->lock);
    um_device *before = monitor->watched;
    monitor->watched = um_device_ref(device);
    pthread_mutex_unlock(&monitor->lock);
    if (before && before != device)
        um_device_watch(before, NULL, NULL);
    um_device_close(&before);
    return UM_OK;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void add_transfers(um_monitor_view *v, const um_transfers *t)
{
    if (!v->packets)
        v->least = *t;
    v->last = *t;
    v->least.up = least(v->least.up, t->up);
    v->least.down = least(v->least.down, t->down);
    v->most.up = most(v->most.up, t->up);
    v->most.down = most(v->most.down, t->down);
    v->copies += t->up + t->down;
    v->setup_copies += t->setup;
    v->up_bytes += t->up_bytes;
    v->down_bytes += t->down_bytes;
    v->waits += t->waits;
    v->packets++;
}

static void add_time(um_monitor *m, int i, double ms)
{
    um_histogram_add(&m->time[i], ms);
    for (int e = 0; e < UM_MONITOR_EDGES; e++)
        if (ms <= um_monitor_edges[e]) {
            m->in_edge[i][e]++;
            break;
        }
    m->recent[i][m->recents[i]++ % UM_MONITOR_RECENT] = ms;
}

static void add_sample(um_monitor *m, uint64_t now, uint64_t in)
{
    const struct sample *last = &m->sample[(m->samples + SAMPLES - 1) % SAMPLES];
    if (now - last->at < SAMPLE_NS)
        return;
    m->sample[m->samples++ % SAMPLES] = (struct sample){now, in, m->view.packets, m->busy_ms};
}

static struct um_second *second_of(um_monitor *m, uint64_t now)
{
    uint64_t at = (now - m->opened) / NS;
    struct um_second *s = &m->second[at % UM_MONITOR_SECONDS];
    if (s->at != at)
        *s = (struct um_second){.at = at};
    return s;
}

void um_monitor_packet(um_monitor *m, const um_packet *p, const struct um_passage *way,
                       uint64_t device_bytes, uint64_t frames_in)
{
    enum { DAY = 86400 };
    if (!m)
        return;
    uint64_t now = um_clock_ns();
    uint64_t had = way->received ? way->received : way->read;
    double wait = way->sent > had ? (double)(way->sent - had) / 1e6 : 0,
           latency = now > had ? (double)(now - had) / 1e6 : 0;
    double age = um_clock_unix() - p->ts;
    pthread_mutex_lock(&m->lock);
    add_transfers(&m->view, &p->transfers);
    add_time(m, UM_TIME_WAIT, wait);
    add_time(m, UM_TIME_UPLOAD, p->ms.upload);
    add_time(m, UM_TIME_DETECT, p->ms.detect);
    if (p->ms.segment > 0)
        add_time(m, UM_TIME_SEGMENT, p->ms.segment);
    add_time(m, UM_TIME_PACKET, p->ms.packet);
    add_time(m, UM_TIME_TOTAL, p->ms.total);
    add_time(m, UM_TIME_LATENCY, latency);
    m->busy_ms += p->ms.total;
    add_sample(m, now, frames_in); /* whoever asks, and however rarely */
    struct um_second *s = second_of(m, now);
    s->frames++;
    s->visible += p->state == UM_STATE_VISIBLE;
    s->lost += p->state == UM_STATE_LOST;
    s->total_sum += p->ms.total;
    s->total_most = p->ms.total > s->total_most ? p->ms.total : s->total_most;
    s->latency_sum += latency;
    s->score_sum += (double)p->score;
    if (p->has_deadline) {
        m->late[m->view.with_deadline++ % UM_MONITOR_RECENT] = p->missed != 0;
        m->view.missed += p->missed != 0;
        m->view.effort[p->effort]++;
        m->effort = p->effort;
    }
    m->packet_at = now;
    m->device_bytes = device_bytes;
    m->frame = p->frame_id;
    m->score = p->score;
    m->state = um_state_name(p->state);
    m->data_age_s = age < DAY && age > -DAY ? age : (double)NAN;
    memcpy(m->device, p->device, sizeof m->device);
    memcpy(m->precision, p->precision, sizeof m->precision);
    pthread_mutex_unlock(&m->lock);
    trace_packet(m, p, way);
}

/* ---- what others ask ---- */

void um_monitor_each_count(um_monitor *m,
                           void (*each)(void *ctx, const char *who, const char *name, uint64_t n),
                           void *ctx)
{
    pthread_mutex_lock(&m->asking);
    if (m->ops)
        m->ops->counts(m->run, each, ctx);
    pthread_mutex_unlock(&m->asking);
}

um_status um_monitor_change(um_monitor *m, int n, const char *const *key, const double *value)
{
    if (!m || n < 0 || (n && (!key || !value)))
        return um_fail(UM_EINVAL, "um_monitor_change: no %s", m ? "keys and values" : "monitor");
    for (int i = 0; i < n; i++)
        if (!key[i])
            return um_fail(UM_EINVAL, "um_monitor_change: key %d of %d is NULL", i, n);
    pthread_mutex_lock(&m->asking);
    um_status st = m->ops ? m->ops->set(m->run, n, key, value)
                          : um_fail(UM_AGAIN, "%s: no run goes on", n ? key[0] : "nothing");
    pthread_mutex_unlock(&m->asking);
    return st;
}

um_status um_monitor_read(um_monitor *m, um_monitor_view *out)
{
    if (!m || !out)
        return um_fail(UM_EINVAL, "um_monitor_read: no %s", m ? "place for the result" : "monitor");
    pthread_mutex_lock(&m->lock);
    um_monitor_view v = m->view;
    for (int i = 0; i < UM_TIMES; i++)
        v.time[i] = um_histogram_times(&m->time[i]);
    pthread_mutex_unlock(&m->lock);
    return um_record_out(out, &v, sizeof v, "um_monitor_view");
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Exact: they are few. */
static um_times times_of(const double *ring, uint64_t all)
{
    static const double at[3] = {0.5, 0.95, 0.99};
    double v[UM_MONITOR_RECENT], q[3] = {0}, sum = 0;
    size_t n = all < UM_MONITOR_RECENT ? (size_t)all : UM_MONITOR_RECENT;
    if (!n)
        return (um_times){0};
    memcpy(v, ring, n * sizeof *v);
    qsort(v, n, sizeof *v, ascending);
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    for (int i = 0; i < 3; i++)
        q[i] = v[(size_t)ceil(at[i] * (double)n) - 1];
    return (um_times){n, v[0], v[n - 1], sum, q[0], q[1], q[2]};
}

static void look_at_process(struct um_monitor_moment *o)
{
    struct timespec cpu = {0};
    unsigned long long size = 0, resident = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    o->cpu_seconds = (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%llu %llu", &size, &resident) == 2)
        o->resident_bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    if (f)
        fclose(f);
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        o->descriptors++;
    o->descriptors -= d ? 3 : 0; /* ".", ".." and the folder itself */
    if (d)
        closedir(d);
}

static void look_at_rates(const um_monitor *m, uint64_t now, uint64_t in,
                          struct um_monitor_moment *o)
{
    uint64_t kept = m->samples < SAMPLES ? m->samples : SAMPLES;
    uint64_t back = 1;
    while (back < kept && now - m->sample[(m->samples - back) % SAMPLES].at <= RATE_NS)
        back++;
    const struct sample *from = &m->sample[(m->samples - back) % SAMPLES];
    double s = (double)(now - from->at) / 1e9;
    if (s <= 0)
        return;
    o->fps_in = (double)(in - from->in) / s;
    o->fps_out = (double)(m->view.packets - from->out) / s;
    double load = (m->busy_ms - from->busy_ms) / 1e3 / s;
    o->load = load < 1 ? load : 1;
}

static void look_at_deadlines(const struct um_monitor *m, struct um_monitor_moment *o)
{
    uint64_t n =
        m->view.with_deadline < UM_MONITOR_RECENT ? m->view.with_deadline : UM_MONITOR_RECENT;
    int late = 0;
    for (uint64_t i = 0; i < n; i++)
        late += m->late[i];
    o->miss_rate = n ? late / (double)n : (double)NAN;
    o->effort = m->effort;
}

void um_monitor_look(um_monitor *m, struct um_monitor_moment *o)
{
    memset(o, 0, sizeof *o);
    pthread_mutex_lock(&m->asking);
    if (m->ops)
        m->ops->collect(m->run, &o->live);
    else
        o->live = m->last;
    pthread_mutex_unlock(&m->asking);
    look_at_process(o);
    pthread_mutex_lock(&m->lock);
    uint64_t now = um_clock_ns();
    add_sample(m, now, o->live.frames_in);
    o->view = m->view;
    for (int i = 0; i < UM_TIMES; i++) {
        uint64_t sum = 0;
        o->view.time[i] = um_histogram_times(&m->time[i]);
        o->recent[i] = times_of(m->recent[i], m->recents[i]);
        for (int e = 0; e < UM_MONITOR_EDGES; e++)
            o->cumulative[i][e] = sum += m->in_edge[i][e];
    }
    look_at_rates(m, now, o->live.frames_in, o);
    look_at_deadlines(m, o);
    o->uptime_s = (double)(now - m->opened) / 1e9;
    o->age_s = m->packet_at ? (double)(now - m->packet_at) / 1e9 : (double)NAN;
    o->data_age_s = m->packet_at ? m->data_age_s : (double)NAN;
    o->device_bytes = m->device_bytes;
    memcpy(o->device, m->device, sizeof o->device);
    memcpy(o->precision, m->precision, sizeof o->precision);
    o->clock = m->clock;
    o->lag_alarms = m->lag_alarms;
    o->shadow = m->shadow;
    o->state = m->state;
    o->frame = m->frame;
    o->score = m->score;
    pthread_mutex_unlock(&m->lock);
    pthread_mutex_lock(&m->trace.lock);
    o->trace_lost = m->trace.lost;
    pthread_mutex_unlock(&m->trace.lock);
}

struct um_monitor_told um_monitor_tell(um_monitor *m, const struct um_monitor_told *now)
{
    pthread_mutex_lock(&m->lock);
    struct um_monitor_told before = m->told;
    m->told = *now;
    pthread_mutex_unlock(&m->lock);
    return before;
}

int um_monitor_seconds(um_monitor *m, struct um_second out[UM_MONITOR_SECONDS])
{
    int n = 0;
    pthread_mutex_lock(&m->lock);
    uint64_t now = (um_clock_ns() - m->opened) / NS;
    uint64_t first = now > UM_MONITOR_SECONDS - 1 ? now - (UM_MONITOR_SECONDS - 1) : 0;
    for (uint64_t at = first; at < now; at++) {
        const struct um_second *s = &m->second[at % UM_MONITOR_SECONDS];
        out[n++] = s->at == at ? *s : (struct um_second){.at = at};
    }
    pthread_mutex_unlock(&m->lock);
    return n;
}

/* What the run says of itself now; nothing where none goes on. */
static void collect(um_monitor *m, struct um_monitor_live *live)
{
    pthread_mutex_lock(&m->asking);
    if (m->ops)
        m->ops->collect(m->run, live);
    pthread_mutex_unlock(&m->asking);
}

static double seconds_since(uint64_t then)
{
    uint64_t now = um_clock_ns();
    return then && now > then ? (double)(now - then) / 1e9 : 0;
}

/* Each says who it is, if it has stalled. */
static bool pipeline_stalls(um_monitor *m, const struct um_monitor_live *live, double limit_s,
                            char *why, size_t size)
{
    pthread_mutex_lock(&m->lock);
    double usual_s = 2e-3 * m->time[UM_TIME_TOTAL].most; /* some devices are slow */
    pthread_mutex_unlock(&m->lock);
    double s = seconds_since(live->busy_since);
    if (!live->busy_since || s <= limit_s + usual_s)
        return false;
    um_number_print(why, size, "the pipeline has been at frame %llu for %.1f s",
                    (unsigned long long)live->busy_frame, s);
    return true;
}

static bool sink_stalls(const struct um_monitor_sink *sink, double limit_s, char *why, size_t size)
{
    double s = seconds_since(sink->busy_since);
    if (!sink->busy_since || s <= limit_s)
        return false;
    um_number_print(why, size, "%s has been at a packet for %.1f s", sink->name, s);
    return true;
}

static bool source_stalls(const struct um_monitor_live *live, double limit_s, char *why,
                          size_t size)
{
    double s = seconds_since(live->heard);
    if (s <= limit_s + 2e-9 * (double)live->interval)
        return false;
    um_number_print(why, size, "%s has given nothing for %.1f s", live->source, s);
    return true;
}

enum { REASON = 256 };

/* The first that stalls, or "". */
static void find_stall(um_monitor *m, double limit_s, char *text, size_t size)
{
    struct um_monitor_live live = {0};
    text[0] = '\0';
    collect(m, &live);
    bool stalls = pipeline_stalls(m, &live, limit_s, text, size);
    for (int i = 0; i < live.sinks && !stalls; i++)
        stalls = sink_stalls(&live.sink[i], limit_s, text, size);
}

/* 1: `text` has nothing against it. `why` gets as much of it as it holds. */
static int verdict(const char *text, char *why, size_t size)
{
    if (why)
        snprintf(why, size, "%s", text);
    return !text[0];
}

int um_monitor_alive(um_monitor *m, double limit_s, char *why, size_t size)
{
    char text[REASON] = "no monitor";
    if (m)
        find_stall(m, limit_s, text, sizeof text);
    return verdict(text, why, size);
}

void um_monitor_stalls(um_monitor *m, double limit_s,
                       void (*each)(void *ctx, int part, const char *why), void *ctx)
{
    struct um_monitor_live live = {0};
    char why[REASON];
    if (!m || !each)
        return;
    collect(m, &live);
    if (pipeline_stalls(m, &live, limit_s, why, sizeof why))
        each(ctx, 0, why);
    if (source_stalls(&live, limit_s, why, sizeof why))
        each(ctx, 1, why);
    for (int i = 0; i < live.sinks; i++)
        if (sink_stalls(&live.sink[i], limit_s, why, sizeof why))
            each(ctx, 2 + i, why);
}

int um_monitor_ready(um_monitor *m, char *why, size_t size)
{
    const double FRESH_S = 5, STALL_S = 10;
    char text[REASON] = "no monitor";
    if (m)
        find_stall(m, STALL_S, text, sizeof text);
    if (text[0])
        return verdict(text, why, size);
    pthread_mutex_lock(&m->asking);
    bool running = m->ops != NULL;
    pthread_mutex_unlock(&m->asking);
    pthread_mutex_lock(&m->lock);
    double age = m->packet_at ? (double)(um_clock_ns() - m->packet_at) / 1e9 : -1;
    struct um_monitor_clock clock = m->clock;
    pthread_mutex_unlock(&m->lock);
    if (!running)
        snprintf(text, sizeof text, "no run goes on");
    else if (age < 0)
        snprintf(text, sizeof text, "no packet yet");
    else if (age > FRESH_S)
        snprintf(text, sizeof text, "the last packet is %.0f s old", age);
    else if (clock.alarm)
        um_number_print(text, sizeof text, "frames come %.1f s later than they could", clock.lag_s);
    return verdict(text, why, size);
}
