/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells its monitor, and what the monitor asks it. */
#ifndef UM_MONITOR_MONITOR_H
#define UM_MONITOR_MONITOR_H

#include "monitor/times.h"
#include "monitor/trace.h"
#include "ultramotion/run.h"

#include <stdbool.h>

enum { UM_MONITOR_SINKS = 40, UM_MONITOR_SECONDS = 600, UM_MONITOR_RECENT = 512 };

/* Of one sink of the run. */
struct um_monitor_sink {
    char name[96];
    int waiting, capacity;
    uint64_t written, dropped;
    bool failed;
    uint64_t busy_since; /* ns; 0 = it waits for a packet */
};

/* What the run knows at the moment. */
struct um_monitor_live {
    um_run_counts counts;
    uint64_t frames_in; /* that the source gave */
    int waiting;        /* frames, for the pipeline */
    int in_flight;
    char source[128];
    uint64_t busy_since, busy_frame; /* the pipeline is at it since then, ns; 0 = it is not */
    uint64_t heard, interval; /* ns, of a live source: its last frame, and the time before that */
    bool running;
    int sinks;
    struct um_monitor_sink sink[UM_MONITOR_SINKS];
};

/* Of the sender of a live source. */
struct um_monitor_clock {
    bool known, alarm;
    double offset_s, lag_s; /* its stamps are so far behind ours at best; later than that */
};

struct um_monitor_ops {
    void (*collect)(void *run, struct um_monitor_live *out);
    /* All that source and sinks count; who: "source" or the sink's name. */
    void (*counts)(void *run,
                   void (*each)(void *ctx, const char *who, const char *name, uint64_t n),
                   void *ctx);
    um_status (*set)(void *run, int n, const char *const *key, const double *value);
};

/* A frame's way, in ns of um_clock_ns(). */
struct um_passage {
    uint64_t read_begin, read; /* the source's call */
    uint64_t sent, done;       /* to and from the pipeline */
    uint64_t received;         /* um_frame.received_ns; 0 = when it was read */
};

/* From one to the other `run` is asked. All accept NULL for the monitor. */
void um_monitor_attach(um_monitor *m, const struct um_monitor_ops *ops, void *run);
void um_monitor_detach(um_monitor *m);
void um_monitor_packet(um_monitor *m, const um_packet *packet, const struct um_passage *way,
                       uint64_t device_bytes, uint64_t frames_in);
void um_monitor_lag(um_monitor *m, const struct um_monitor_clock *clock);
/* What comparing with legacy host mode has shown so far. */
void um_monitor_shadow(um_monitor *m, const um_shadow_counts *counts);
void um_monitor_span(um_monitor *m, int track, const char *name, uint64_t begin, uint64_t end,
                     uint64_t frame);
struct um_trace *um_monitor_trace(um_monitor *m);

/* ---- for what is told (report.c) ---- */

struct um_second {
    uint64_t at; /* s since the monitor was opened */
    uint32_t frames, visible, lost;
    double total_sum, total_most, latency_sum, score_sum;
};

enum { UM_MONITOR_EDGES = 14 };
extern const double um_monitor_edges[UM_MONITOR_EDGES]; /* ms: upper ends of Prometheus' buckets */

/* One moment: all that is told comes from one of these. */
struct um_monitor_moment {
    struct um_monitor_live live;
    um_monitor_view view;
    um_times recent[UM_TIMES]; /* of the last UM_MONITOR_RECENT packets */
    uint64_t cumulative[UM_TIMES][UM_MONITOR_EDGES];
    double uptime_s, fps_in, fps_out, load, cpu_seconds;
    double miss_rate;  /* of the last UM_MONITOR_RECENT packets with a deadline; NaN: none */
    um_effort effort;  /* of the last packet */
    double age_s;      /* since the last packet; NaN: none */
    double data_age_s; /* of the last packet, when it was published; NaN: its stamp is no date */
    uint64_t device_bytes, resident_bytes, trace_lost;
    int descriptors;
    char device[16], precision[8];
    struct um_monitor_clock clock;
    uint64_t lag_alarms;
    um_shadow_counts shadow; /* struct_size 0: there is none */
    const char *state;       /* of the last packet, or NULL */
    uint64_t frame;
    float score;
};
void um_monitor_look(um_monitor *m, struct um_monitor_moment *out);
/* What the last KPI lines told; it becomes `now`. */
struct um_monitor_told {
    um_run_counts counts;
    bool lag_alarm;
};
struct um_monitor_told um_monitor_tell(um_monitor *m, const struct um_monitor_told *now);
/* The seconds that are over, oldest first; how many. */
int um_monitor_seconds(um_monitor *m, struct um_second out[UM_MONITOR_SECONDS]);
void um_monitor_each_count(um_monitor *m,
                           void (*each)(void *ctx, const char *who, const char *name, uint64_t n),
                           void *ctx);

#endif
