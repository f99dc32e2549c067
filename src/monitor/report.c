/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of one moment as JSON, for Prometheus, as KPI lines and as a line for people. */
#include "monitor/monitor.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const time_names[UM_TIMES] = {"wait",   "upload", "detect", "segment",
                                                 "packet", "total",  "latency"};

/* Frames and packets that were lost, by cause. */
static const struct {
    const char *name;
    size_t at; /* in um_run_counts */
} causes[] = {{"unreadable", offsetof(um_run_counts, unreadable)},
              {"not_finite", offsetof(um_run_counts, not_finite)},
              {"replaced", offsetof(um_run_counts, replaced)},
              {"too_old", offsetof(um_run_counts, too_old)},
              {"sink_full", offsetof(um_run_counts, dropped)},
              {"left", offsetof(um_run_counts, left)}};
enum { CAUSES = sizeof causes / sizeof *causes };

static uint64_t lost_by(const um_run_counts *c, int cause)
{
    return *(const uint64_t *)(const void *)((const char *)c + causes[cause].at);
}

static um_status look(um_monitor *m, struct um_monitor_moment **out)
{
    *out = m ? um_alloc(sizeof **out) : NULL;
    if (!m)
        return um_fail(UM_EINVAL, "no monitor");
    if (!*out)
        return um_fail(UM_ENOMEM, "numbers of a run");
    um_monitor_look(m, *out);
    return UM_OK;
}

/* ---- JSON ---- */

static void put_times(um_json *j, const char *key, const um_times *t)
{
    um_json_put_begin(j, key, '{');
    um_json_put_uint(j, "count", t->count);
    um_json_put_double(j, "sum", t->sum);
    um_json_put_measured(j, "min", t->least);
    um_json_put_measured(j, "p50", t->p50);
    um_json_put_measured(j, "p95", t->p95);
    um_json_put_measured(j, "p99", t->p99);
    um_json_put_measured(j, "max", t->most);
    um_json_end(j, '}');
}

/* What somebody counts, grouped by who. */
struct groups {
    um_json *j;
    char who[128];
    bool open;
};

static void put_count(void *ctx, const char *who, const char *name, uint64_t n)
{
    struct groups *g = ctx;
    if (!g->open || strcmp(g->who, who) != 0) {
        if (g->open)
            um_json_end(g->j, '}');
        snprintf(g->who, sizeof g->who, "%s", who);
        um_json_put_begin(g->j, g->who, '{');
        g->open = true;
    }
    um_json_put_uint(g->j, name, n);
}

static void put_transfers(um_json *j, const struct um_monitor_moment *o)
{
    const um_monitor_view *v = &o->view;
    um_json_put_begin(j, "transfers", '{');
    um_json_put_uint(j, "copies_total", v->copies);
    um_json_put_uint(j, "setup_total", v->setup_copies);
    um_json_put_uint(j, "up_bytes_total", v->up_bytes);
    um_json_put_uint(j, "down_bytes_total", v->down_bytes);
    um_json_put_uint(j, "waits_total", v->waits);
    um_json_put_uint(j, "up", v->last.up);
    um_json_put_uint(j, "down", v->last.down);
    um_json_put_uint(j, "up_most", v->most.up);
    um_json_put_uint(j, "down_most", v->most.down);
    um_json_put_bool(j, "shared", v->last.shared != 0);
    um_json_end(j, '}');
}

static void put_sinks(um_json *j, const struct um_monitor_moment *o)
{
    um_json_put_begin(j, "sinks", '[');
    for (int i = 0; i < o->live.sinks; i++) {
        const struct um_monitor_sink *s = &o->live.sink[i];
        um_json_begin(j, '{');
        um_json_put_string(j, "name", s->name);
        um_json_put_uint(j, "waiting", (uint64_t)s->waiting);
        um_json_put_uint(j, "capacity", (uint64_t)s->capacity);
        um_json_put_uint(j, "written", s->written);
        um_json_put_uint(j, "dropped", s->dropped);
        um_json_put_bool(j, "failed", s->failed);
        um_json_end(j, '}');
    }
    um_json_end(j, ']');
}

static void put_clock(um_json *j, const struct um_monitor_moment *o)
{
    if (!um_json_put_begin_if(j, o->clock.known, "sender", '{'))
        return;
    um_json_put_double(j, "clock_offset_s", o->clock.offset_s);
    um_json_put_measured(j, "lag_s", o->clock.lag_s);
    um_json_put_bool(j, "alarm", o->clock.alarm);
    um_json_put_uint(j, "alarms", o->lag_alarms);
    um_json_end(j, '}');
}

static void put_deadline(um_json *j, const struct um_monitor_moment *o)
{
    if (!um_json_put_begin_if(j, o->view.with_deadline, "deadline", '{'))
        return;
    um_json_put_uint(j, "packets", o->view.with_deadline);
    um_json_put_uint(j, "missed", o->view.missed);
    um_json_put_measured(j, "miss_rate", o->miss_rate);
    um_json_put_string(j, "effort", um_effort_name(o->effort));
    for (int i = 0; i < UM_EFFORTS; i++)
        um_json_put_uint(j, um_effort_name((um_effort)i), o->view.effort[i]);
    um_json_end(j, '}');
}

static void put_shadow(um_json *j, const um_shadow_counts *s)
{
    if (!um_json_put_begin_if(j, s->struct_size, "shadow", '{'))
        return;
    um_json_put_uint(j, "compared", s->compared);
    um_json_put_uint(j, "disagreed", s->disagreed);
    um_json_put_uint(j, "failed", s->failed);
    um_json_put_float(j, "least_dice", s->least_dice);
    um_json_key(j, "fell_back_at"); /* the frame's id */
    if (s->fell_back)
        um_json_uint(j, s->fell_at);
    else
        um_json_null(j);
    um_json_end(j, '}');
}

static void put_histogram(um_json *j, const struct um_monitor_moment *o)
{
    um_json_put_begin(j, "histogram", '{');
    um_json_put_begin(j, "edges_ms", '[');
    for (int e = 0; e < UM_MONITOR_EDGES; e++)
        um_json_float(j, (float)um_monitor_edges[e]);
    um_json_end(j, ']');
    for (int i = 0; i < UM_TIMES; i++) {
        um_json_put_begin(j, time_names[i], '[');
        for (int e = 0; e < UM_MONITOR_EDGES; e++)
            um_json_uint(j, o->cumulative[i][e]);
        um_json_end(j, ']');
    }
    um_json_end(j, '}');
}

static void put_counts(um_json *j, um_monitor *m)
{
    um_json_put_begin(j, "counts", '{');
    struct groups g = {.j = j};
    um_monitor_each_count(m, put_count, &g);
    if (g.open)
        um_json_end(j, '}');
    um_json_end(j, '}');
}

static void put_moment(um_json *j, um_monitor *m, const struct um_monitor_moment *o)
{
    const um_run_counts *c = &o->live.counts;
    um_json_begin(j, '{');
    um_json_put_double(j, "ts", um_clock_unix());
    um_json_put_string(j, "source", o->live.source);
    um_json_put_bool(j, "running", o->live.running);
    um_json_put_measured(j, "uptime_s", o->uptime_s);
    um_json_put_string(j, "device", o->device);
    um_json_put_string(j, "precision", o->precision);
    um_json_put_string(j, "state", o->state);
    um_json_put_float(j, "score", o->score);
    um_json_put_uint(j, "frame_id", o->frame);
    um_json_put_begin(j, "frames", '{');
    um_json_put_uint(j, "in", o->live.frames_in);
    um_json_put_uint(j, "out", c->frames);
    um_json_put_uint(j, "visible", c->visible);
    um_json_put_uint(j, "lost", c->lost);
    um_json_put_uint(j, "relocalizing", c->relocalizing);
    um_json_end(j, '}');
    um_json_put_begin(j, "drops", '{');
    for (int i = 0; i < CAUSES; i++)
        um_json_put_uint(j, causes[i].name, lost_by(c, i));
    um_json_end(j, '}');
    um_json_put_measured(j, "fps_in", o->fps_in);
    um_json_put_measured(j, "fps_out", o->fps_out);
    um_json_put_measured(j, "device_load", o->load);
    um_json_put_uint(j, "device_memory_bytes", o->device_bytes);
    um_json_put_uint(j, "device_lost", (uint64_t)c->device_lost);
    um_json_put_measured(j, "last_packet_age_s", o->age_s);
    um_json_put_measured(j, "data_age_s", o->data_age_s);
    put_clock(j, o);
    put_deadline(j, o);
    put_shadow(j, &o->shadow);
    put_transfers(j, o);
    um_json_put_begin(j, "queues", '{');
    um_json_put_uint(j, "frames_waiting", (uint64_t)o->live.waiting);
    um_json_put_uint(j, "in_flight", (uint64_t)o->live.in_flight);
    um_json_end(j, '}');
    put_sinks(j, o);
    um_json_put_begin(j, "stages_ms", '{');
    for (int i = 0; i < UM_TIMES; i++)
        put_times(j, time_names[i], &o->view.time[i]);
    um_json_end(j, '}');
    um_json_put_begin(j, "recent_ms", '{'); /* the last packets alone */
    for (int i = 0; i < UM_TIMES; i++)
        put_times(j, time_names[i], &o->recent[i]);
    um_json_end(j, '}');
    put_histogram(j, o);
    um_json_put_begin(j, "process", '{');
    um_json_put_double(j, "cpu_seconds", o->cpu_seconds);
    um_json_put_uint(j, "resident_bytes", o->resident_bytes);
    um_json_put_uint(j, "descriptors", (uint64_t)o->descriptors);
    um_json_end(j, '}');
    um_json_put_uint(j, "trace_lost", o->trace_lost);
    put_counts(j, m);
    um_json_end(j, '}');
}

um_status um_monitor_json(um_monitor *m, char **text)
{
    struct um_monitor_moment *o = NULL;
    um_json j = {0};
    if (!text)
        return um_fail(UM_EINVAL, "um_monitor_json: no place for the text");
    *text = NULL;
    um_status st = look(m, &o);
    if (st == UM_OK) {
        put_moment(&j, m, o);
        st = um_json_finish(&j, text);
    }
    um_free(o);
    return st;
}

um_status um_monitor_history(um_monitor *m, char **text)
{
    static const char *const columns[] = {"second", "frames",   "visible",    "lost",
                                          "score",  "total_ms", "total_most", "latency_ms"};
    um_json j = {0};
    if (!text)
        return um_fail(UM_EINVAL, "um_monitor_history: no place for the text");
    *text = NULL;
    if (!m)
        return um_fail(UM_EINVAL, "no monitor");
    struct um_second *s = um_array(UM_MONITOR_SECONDS, sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "history");
    int n = um_monitor_seconds(m, s);
    um_json_begin(&j, '{');
    um_json_put_double(&j, "ts", um_clock_unix());
    um_json_put_begin(&j, "columns", '[');
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        um_json_string(&j, columns[i]);
    um_json_end(&j, ']');
    um_json_put_begin(&j, "rows", '[');
    for (int i = 0; i < n; i++) {
        double frames = s[i].frames; /* 0: the means are null */
        um_json_begin(&j, '[');
        um_json_uint(&j, s[i].at);
        um_json_uint(&j, s[i].frames);
        um_json_uint(&j, s[i].visible);
        um_json_uint(&j, s[i].lost);
        um_json_float(&j, (float)(s[i].score_sum / frames));
        um_json_float(&j, (float)(s[i].total_sum / frames));
        um_json_float(&j, (float)s[i].total_most);
        um_json_float(&j, (float)(s[i].latency_sum / frames));
        um_json_end(&j, ']');
    }
    um_json_end(&j, ']');
    um_json_end(&j, '}');
    um_free(s);
    return um_json_finish(&j, text);
}

/* ---- Prometheus ---- */

struct page {
    char *text;
    size_t len, cap;
    bool failed;
};

static void print(struct page *p, const char *fmt, ...) UM_PRINTF(2, 3);
static void print(struct page *p, const char *fmt, ...)
{
    char line[768];
    va_list ap;
    va_start(ap, fmt);
    int n = um_number_vprint(line, sizeof line, fmt, ap);
    va_end(ap);
    size_t length = n > 0 && (size_t)n < sizeof line ? (size_t)n : 0;
    p->failed = p->failed || !um_make_room(&p->text, &p->cap, p->len, length + 1, 1);
    if (p->failed || !length)
        return;
    memcpy(p->text + p->len, line, length + 1);
    p->len += length;
}

static void head(struct page *p, const char *name, const char *type, const char *help)
{
    print(p, "# HELP ultramotion_%s %s\n# TYPE ultramotion_%s %s\n", name, help, name, type);
}

static void counter(struct page *p, const char *name, const char *help, uint64_t v)
{
    head(p, name, "counter", help);
    print(p, "ultramotion_%s %llu\n", name, (unsigned long long)v);
}

static void gauge(struct page *p, const char *name, const char *help, double v)
{
    head(p, name, "gauge", help);
    if (isfinite(v))
        print(p, "ultramotion_%s %.9g\n", name, v);
    else
        print(p, "ultramotion_%s NaN\n", name);
}

/* A label's value. */
static const char *label(char out[256], const char *text)
{
    char shown[128]; /* of which each may get a stroke */
    size_t n = 0;
    um_text_show(shown, sizeof shown, text);
    for (const char *c = shown; *c; c++) {
        if (*c == '"' || *c == '\\')
            out[n++] = '\\';
        out[n++] = *c;
    }
    out[n] = 0;
    return out;
}

static void print_count(void *ctx, const char *who, const char *name, uint64_t n)
{
    char a[256], b[256];
    print(ctx, "ultramotion_connection_count{who=\"%s\",what=\"%s\"} %llu\n", label(a, who),
          label(b, name), (unsigned long long)n);
}

static void print_stages(struct page *p, const struct um_monitor_moment *o)
{
    head(p, "stage_seconds", "histogram", "Time of a frame by stage.");
    for (int i = 0; i < UM_TIMES; i++) {
        const um_times *t = &o->view.time[i];
        const char *name = time_names[i];
        for (int e = 0; e < UM_MONITOR_EDGES; e++)
            print(p, "ultramotion_stage_seconds_bucket{stage=\"%s\",le=\"%g\"} %llu\n", name,
                  um_monitor_edges[e] / 1e3, (unsigned long long)o->cumulative[i][e]);
        print(p,
              "ultramotion_stage_seconds_bucket{stage=\"%s\",le=\"+Inf\"} %llu\n"
              "ultramotion_stage_seconds_sum{stage=\"%s\"} %.9g\n"
              "ultramotion_stage_seconds_count{stage=\"%s\"} %llu\n",
              name, (unsigned long long)t->count, name, t->sum / 1e3, name,
              (unsigned long long)t->count);
    }
    head(p, "stage_quantile_seconds", "gauge", "Quantiles of the last packets by stage.");
    for (int i = 0; i < UM_TIMES; i++) {
        const um_times *t = &o->recent[i];
        const double q[3] = {0.5, 0.95, 0.99}, v[3] = {t->p50, t->p95, t->p99};
        for (int k = 0; k < 3; k++)
            print(p, "ultramotion_stage_quantile_seconds{stage=\"%s\",quantile=\"%g\"} %.9g\n",
                  time_names[i], q[k], v[k] / 1e3);
    }
}

static void print_sinks(struct page *p, const struct um_monitor_moment *o)
{
    static const struct {
        const char *name, *type, *help;
    } what[] = {{"sink_queue_packets", "gauge", "Packets that wait for a sink."},
                {"sink_written_total", "counter", "Packets that a sink has written."},
                {"sink_dropped_total", "counter", "Packets that a sink missed, being behind."},
                {"sink_failed", "gauge", "1: the sink has ended with an error."}};
    char name[256];
    for (int k = 0; k < 4; k++) {
        head(p, what[k].name, what[k].type, what[k].help);
        for (int i = 0; i < o->live.sinks; i++) {
            const struct um_monitor_sink *s = &o->live.sink[i];
            uint64_t v[4] = {(uint64_t)s->waiting, s->written, s->dropped, s->failed};
            print(p, "ultramotion_%s{sink=\"%s\"} %llu\n", what[k].name, label(name, s->name),
                  (unsigned long long)v[k]);
        }
    }
}

static void print_frames(struct page *p, const struct um_monitor_moment *o)
{
    const um_run_counts *c = &o->live.counts;
    counter(p, "frames_in_total", "Frames that the source gave.", o->live.frames_in);
    counter(p, "packets_total", "Packets published.", c->frames);
    head(p, "packets_by_state_total", "counter", "Packets published, by state.");
    print(p,
          "ultramotion_packets_by_state_total{state=\"VISIBLE\"} %llu\n"
          "ultramotion_packets_by_state_total{state=\"LOST\"} %llu\n"
          "ultramotion_packets_by_state_total{state=\"RELOCALIZING\"} %llu\n",
          (unsigned long long)c->visible, (unsigned long long)c->lost,
          (unsigned long long)c->relocalizing);
    head(p, "drops_total", "counter", "Frames and packets that were lost, by cause.");
    for (int i = 0; i < CAUSES; i++)
        print(p, "ultramotion_drops_total{cause=\"%s\"} %llu\n", causes[i].name,
              (unsigned long long)lost_by(c, i));
    gauge(p, "fps_in", "Frames a second that the source gives.", o->fps_in);
    gauge(p, "fps_out", "Packets a second.", o->fps_out);
    gauge(p, "frames_waiting", "Frames that wait for the pipeline.", o->live.waiting);
    gauge(p, "frames_in_flight", "Frames in the pipeline.", o->live.in_flight);
    gauge(p, "score", "Score of the last packet.", (double)o->score);
}

static void print_deadline(struct page *p, const struct um_monitor_moment *o)
{
    const um_monitor_view *v = &o->view;
    if (!v->with_deadline)
        return;
    counter(p, "deadline_packets_total", "Packets that had a deadline.", v->with_deadline);
    counter(p, "deadline_missed_total", "Packets that were later than the budget.", v->missed);
    gauge(p, "deadline_miss_ratio", "Share of the last packets that was too late.", o->miss_rate);
    head(p, "packets_by_effort_total", "counter", "Packets by the work that the budget allowed.");
    for (int i = 0; i < UM_EFFORTS; i++)
        print(p, "ultramotion_packets_by_effort_total{effort=\"%s\"} %llu\n",
              um_effort_name((um_effort)i), (unsigned long long)v->effort[i]);
}

static void print_device(struct page *p, const struct um_monitor_moment *o)
{
    const um_monitor_view *v = &o->view;
    counter(p, "copies_total", "Copies of frames between host and device.", v->copies);
    counter(p, "setup_copies_total", "Copies at open and for a new geometry.", v->setup_copies);
    counter(p, "up_bytes_total", "Bytes from host to device.", v->up_bytes);
    counter(p, "down_bytes_total", "Bytes from device to host.", v->down_bytes);
    counter(p, "waits_total", "Times the host waited for the device.", v->waits);
    gauge(p, "frame_copies_up", "Copies up of the last frame.", v->last.up);
    gauge(p, "frame_copies_down", "Copies down of the last frame.", v->last.down);
    gauge(p, "device_memory_bytes", "Bytes planned on the device.", (double)o->device_bytes);
    gauge(p, "device_load", "Share of time that a frame is in the pipeline.", o->load);
    counter(p, "device_lost_total", "Losses of a device.", (uint64_t)o->live.counts.device_lost);
}

static void print_shadow(struct page *p, const um_shadow_counts *s)
{
    if (!s->struct_size)
        return;
    counter(p, "shadow_compared_total", "Frames that were compared with legacy mode.", s->compared);
    counter(p, "shadow_disagreed_total", "Frames on which it differed.", s->disagreed);
    counter(p, "shadow_failed_total", "Frames that it could not do.", s->failed);
    gauge(p, "shadow_least_dice", "Of two masks of a frame; 1: none differed.",
          (double)s->least_dice);
    gauge(p, "shadow_fell_back", "1: legacy mode makes the packets.", s->fell_back);
}

um_status um_monitor_prometheus(um_monitor *m, char **text)
{
    struct um_monitor_moment *o = NULL;
    struct page p = {0};
    if (!text)
        return um_fail(UM_EINVAL, "um_monitor_prometheus: no place for the text");
    *text = NULL;
    um_status st = look(m, &o);
    if (st != UM_OK)
        return st;
    head(&p, "info", "gauge", "What runs.");
    char source[256];
    print(&p, "ultramotion_info{device=\"%s\",precision=\"%s\",source=\"%s\"} 1\n", o->device,
          o->precision, label(source, o->live.source));
    gauge(&p, "up", "1: a run goes on.", o->live.running);
    gauge(&p, "uptime_seconds", "Since the start.", o->uptime_s);
    print_frames(&p, o);
    print_stages(&p, o);
    print_deadline(&p, o);
    print_shadow(&p, &o->shadow);
    print_device(&p, o);
    gauge(&p, "last_packet_age_seconds", "Since the last packet.", o->age_s);
    gauge(&p, "data_age_seconds", "Age of the last packet's frame when it was published.",
          o->data_age_s);
    if (o->clock.known) {
        gauge(&p, "sender_clock_offset_seconds",
              "Our clock minus the sender's, and the least time that a frame takes.",
              o->clock.offset_s);
        gauge(&p, "sender_lag_seconds", "How much later than that the last frame came.",
              o->clock.lag_s);
        gauge(&p, "lag_alarm", "1: frames come too late.", o->clock.alarm);
        counter(&p, "lag_alarms_total", "How often that began.", o->lag_alarms);
    }
    print_sinks(&p, o);
    head(&p, "connection_count", "gauge", "What the source and sinks with connections count.");
    um_monitor_each_count(m, print_count, &p);
    print(&p,
          "# HELP process_cpu_seconds_total Time on all processors.\n"
          "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.9g\n"
          "# HELP process_resident_memory_bytes Memory in use.\n"
          "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %llu\n"
          "# HELP process_open_fds Open descriptors.\n"
          "# TYPE process_open_fds gauge\nprocess_open_fds %d\n",
          o->cpu_seconds, (unsigned long long)o->resident_bytes, o->descriptors);
    um_free(o);
    if (p.failed) {
        um_free(p.text);
        return um_fail(UM_ENOMEM, "metrics");
    }
    *text = p.text;
    return UM_OK;
}

/* ---- lines ---- */

struct kpi {
    void (*each)(void *ctx, const char *line);
    void *ctx;
    um_status status;
};

static void begin(um_json *j, const char *event)
{
    um_json_begin(j, '{');
    um_json_put_double(j, "ts", um_clock_unix());
    um_json_put_string(j, "event", event);
}

static void end(struct kpi *k, um_json *j)
{
    char *line = NULL;
    um_json_end(j, '}');
    if (k->status == UM_OK)
        k->status = um_json_finish(j, &line);
    else
        um_json_free(j);
    if (line)
        k->each(k->ctx, line);
    um_free(line);
}

static void drop_events(struct kpi *k, const um_run_counts *before, const um_run_counts *now,
                        int waiting)
{
    um_json j = {0};
    for (int i = 0; i < CAUSES; i++) {
        uint64_t n = lost_by(now, i), old = lost_by(before, i);
        if (n <= old)
            continue;
        begin(&j, "drop_event");
        um_json_put_string(&j, "cause", causes[i].name);
        um_json_put_uint(&j, "removed", n - old);
        um_json_put_uint(&j, "total", n);
        um_json_put_uint(&j, "qsize", (uint64_t)waiting);
        end(k, &j);
    }
}

static void monitor_event(struct kpi *k, const struct um_monitor_moment *o)
{
    const um_run_counts *c = &o->live.counts;
    um_json j = {0};
    begin(&j, "monitor");
    um_json_put_measured(&j, "fps_in", o->fps_in);
    um_json_put_measured(&j, "fps_out", o->fps_out);
    um_json_put_measured(&j, "latency_ms", o->recent[UM_TIME_LATENCY].p50);
    um_json_put_measured(&j, "gpu_util", 100 * o->load);
    um_json_put_uint(&j, "q_rt", (uint64_t)o->live.waiting);
    um_json_put_uint(&j, "q_gpu", (uint64_t)o->live.in_flight);
    um_json_put_uint(&j, "drops_rt", c->replaced + c->unreadable + c->too_old + c->left);
    um_json_put_uint(&j, "drops_gpu", c->not_finite);
    um_json_put_uint(&j, "drops_tx_total", c->dropped);
    um_json_put_uint(&j, "frames_in", o->live.frames_in);
    um_json_put_uint(&j, "frames_out", c->frames);
    um_json_put_uint(&j, "device_memory_bytes", o->device_bytes);
    um_json_put_uint(&j, "copies_total", o->view.copies);
    um_json_put_measured(&j, "data_age_s", o->data_age_s);
    if (o->clock.known) {
        um_json_put_measured(&j, "clock_offset_s", o->clock.offset_s);
        um_json_put_measured(&j, "lag_s", o->clock.lag_s);
    }
    if (o->view.with_deadline) {
        um_json_put_uint(&j, "deadline_missed", o->view.missed);
        um_json_put_measured(&j, "deadline_miss_rate", o->miss_rate);
        um_json_put_string(&j, "effort", um_effort_name(o->effort));
    }
    if (o->shadow.struct_size) {
        um_json_put_uint(&j, "shadow_compared", o->shadow.compared);
        um_json_put_uint(&j, "shadow_disagreed", o->shadow.disagreed);
        um_json_put_uint(&j, "shadow_failed", o->shadow.failed);
        um_json_put_float(&j, "shadow_least_dice", o->shadow.least_dice);
        um_json_put_uint(&j, "shadow_fell_back", (uint64_t)o->shadow.fell_back);
    }
    end(k, &j);
}

static void queue_events(struct kpi *k, const struct um_monitor_moment *o)
{
    um_json j = {0};
    for (int i = 0; i < o->live.sinks; i++) {
        const struct um_monitor_sink *s = &o->live.sink[i];
        begin(&j, "queue_size");
        um_json_put_string(&j, "name", s->name);
        um_json_put_uint(&j, "size", (uint64_t)s->waiting);
        um_json_put_uint(&j, "capacity", (uint64_t)s->capacity);
        um_json_put_uint(&j, "dropped", s->dropped);
        end(k, &j);
    }
}

um_status um_monitor_kpi(um_monitor *m, void (*each)(void *ctx, const char *line), void *ctx)
{
    struct um_monitor_moment *o = NULL;
    struct kpi k = {each, ctx, UM_OK};
    if (!each)
        return um_fail(UM_EINVAL, "um_monitor_kpi: nobody to give lines to");
    um_status st = look(m, &o);
    if (st != UM_OK)
        return st;
    monitor_event(&k, o);
    queue_events(&k, o);
    struct um_monitor_told now = {.counts = o->live.counts, .lag_alarm = o->clock.alarm},
                           old = um_monitor_tell(m, &now);
    drop_events(&k, &old.counts, &now.counts, o->live.waiting);
    if (now.lag_alarm != old.lag_alarm) {
        um_json j = {0};
        begin(&j, "lag_alarm");
        um_json_put_bool(&j, "raised", now.lag_alarm);
        um_json_put_measured(&j, "lag_s", o->clock.lag_s);
        um_json_put_double(&j, "clock_offset_s", o->clock.offset_s);
        end(&k, &j);
    }
    um_free(o);
    return k.status;
}

void um_monitor_line(um_monitor *m, char *text, size_t size)
{
    struct um_monitor_moment *o = NULL;
    if (!text || !size)
        return;
    if (look(m, &o) != UM_OK) {
        snprintf(text, size, "%s", um_last_error());
        return;
    }
    const um_run_counts *c = &o->live.counts;
    const um_times *t = &o->recent[UM_TIME_TOTAL], *l = &o->recent[UM_TIME_LATENCY];
    um_number_print(text, size,
                    "%llu frame%s, %llu visible, %.1f fps in, %.1f out; ms p50/p95 %.1f/%.1f, "
                    "latency %.1f/%.1f; replaced %llu, unreadable %llu, dropped %llu",
                    (unsigned long long)c->frames, c->frames == 1 ? "" : "s",
                    (unsigned long long)c->visible, o->fps_in, o->fps_out, t->p50, t->p95, l->p50,
                    l->p95, (unsigned long long)c->replaced, (unsigned long long)c->unreadable,
                    (unsigned long long)c->dropped);
    size_t n = strlen(text);
    if (o->view.with_deadline)
        um_number_print(text + n, size - n, ", late %.1f %%", 100 * o->miss_rate);
    n = strlen(text);
    if (o->shadow.struct_size)
        um_number_print(text + n, size - n, ", shadow disagreed %llu of %llu%s",
                        (unsigned long long)o->shadow.disagreed,
                        (unsigned long long)o->shadow.compared,
                        o->shadow.fell_back ? " and took over" : "");
    um_free(o);
}
