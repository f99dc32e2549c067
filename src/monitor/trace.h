/* SPDX-License-Identifier: Apache-2.0 */
/* What happened when, on which track, for Perfetto and chrome://tracing: kept in a ring until a
 * sink takes it; what finds no room is counted, nobody waits. */
#ifndef UM_MONITOR_TRACE_H
#define UM_MONITOR_TRACE_H

#include "base/json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { UM_TRACE_EVENTS = 1 << 15, UM_TRACE_SINKS = 40, UM_TRACE_THREADS = 64 };
/* Tracks: threads of a run, the pipeline's stages, which may overlap, and the threads that compute;
 * those beyond the last share its track. */
enum {
    UM_TRACK_READER = 1,
    UM_TRACK_DRIVER,
    UM_TRACK_STAGE, /* and the next three */
    UM_TRACK_SINK = 16,
    UM_TRACK_THREAD = UM_TRACK_SINK + UM_TRACE_SINKS,
    UM_TRACKS = UM_TRACK_THREAD + UM_TRACE_THREADS
};
enum { UM_TRACE_NAME = 120 };

struct um_trace {
    pthread_mutex_t lock;
    bool on;
    uint64_t epoch; /* ns: the trace's zero */
    struct um_trace_event {
        uint64_t begin, end, frame; /* frame UINT64_MAX: of none */
        int track;
        char name[UM_TRACE_NAME];
    } * event; /* UM_TRACE_EVENTS of them */
    int first, count;
    uint64_t lost;
    char sink[UM_TRACE_SINKS][96];
    bool named[UM_TRACKS]; /* in what was taken so far */
};

um_status um_trace_begin(struct um_trace *t);
void um_trace_finish(struct um_trace *t);
void um_trace_name_sink(struct um_trace *t, int sink, const char *name);
void um_trace_add(struct um_trace *t, int track, const char *name, uint64_t begin, uint64_t end,
                  uint64_t frame);
/* What has come since the last time, as lines of JSON objects that each end with a comma; *text
 * NULL if nothing has. */
um_status um_trace_take(struct um_trace *t, char **text);

#endif
