/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/trace.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

um_status um_trace_begin(struct um_trace *t)
{
    struct um_trace_event *event = um_array(UM_TRACE_EVENTS, sizeof *event);
    if (!event)
        return um_fail(UM_ENOMEM, "trace");
    pthread_mutex_lock(&t->lock);
    bool was_on = t->on;
    if (!was_on) {
        t->event = event;
        t->epoch = um_clock_ns();
        t->on = true;
    }
    pthread_mutex_unlock(&t->lock);
    if (was_on)
        um_free(event);
    return was_on ? um_fail(UM_EINVAL, "a run is traced into one file only") : UM_OK;
}

void um_trace_finish(struct um_trace *t)
{
    um_free(t->event);
    t->event = NULL;
}

void um_trace_name_sink(struct um_trace *t, int sink, const char *name)
{
    if (sink < UM_TRACE_SINKS)
        snprintf(t->sink[sink], sizeof t->sink[sink], "%s", name);
}

void um_trace_add(struct um_trace *t, int track, const char *name, uint64_t begin, uint64_t end,
                  uint64_t frame)
{
    pthread_mutex_lock(&t->lock);
    if (t->on && t->count < UM_TRACE_EVENTS) {
        struct um_trace_event *e = &t->event[(t->first + t->count++) % UM_TRACE_EVENTS];
        *e = (struct um_trace_event){.begin = begin, .end = end, .frame = frame, .track = track};
        snprintf(e->name, sizeof e->name, "%s", name);
    } else if (t->on)
        t->lost++;
    pthread_mutex_unlock(&t->lock);
}

/* `text` has room for the name of a thread. */
static const char *track_name(const struct um_trace *t, int track, char text[32])
{
    static const char *const stages[] = {"stage upload", "stage detect", "stage segment",
                                         "stage packet"};
    if (track == UM_TRACK_READER)
        return "reader";
    if (track == UM_TRACK_DRIVER)
        return "driver";
    if (track < UM_TRACK_SINK)
        return stages[track - UM_TRACK_STAGE];
    if (track < UM_TRACK_THREAD)
        return t->sink[track - UM_TRACK_SINK];
    snprintf(text, 32, "thread %d", track - UM_TRACK_THREAD);
    return text;
}

/* Microseconds with three digits; doubles would do, and print 17. */
static void put_us(um_json *j, const char *key, uint64_t ns)
{
    um_json_put_double(j, key, (double)(ns / 1000) + (double)(ns % 1000) / 1e3);
}

static void put_name(um_json *j, const struct um_trace *t, int track)
{
    char text[32];
    um_json_begin(j, '{');
    um_json_put_string(j, "name", "thread_name");
    um_json_put_string(j, "ph", "M");
    um_json_put_int(j, "pid", 1);
    um_json_put_int(j, "tid", track);
    um_json_put_begin(j, "args", '{');
    um_json_put_string(j, "name", track_name(t, track, text));
    um_json_end(j, '}');
    um_json_end(j, '}');
    um_json_newline(j);
}

static void put_event(um_json *j, const struct um_trace *t, const struct um_trace_event *e)
{
    uint64_t begin = e->begin > t->epoch ? e->begin - t->epoch : 0;
    um_json_begin(j, '{');
    um_json_put_string(j, "name", e->name);
    um_json_put_string(j, "ph", "X");
    um_json_put_int(j, "pid", 1);
    um_json_put_int(j, "tid", e->track);
    put_us(j, "ts", begin);
    put_us(j, "dur", e->end > e->begin ? e->end - e->begin : 0);
    um_json_put_begin(j, "args", '{');
    if (e->frame != UINT64_MAX)
        um_json_put_uint(j, "frame", e->frame);
    um_json_end(j, '}');
    um_json_end(j, '}');
    um_json_newline(j);
}

um_status um_trace_take(struct um_trace *t, char **text)
{
    enum { TURN = 64 }; /* while the lock is held */
    struct um_trace_event turn[TURN];
    um_json j = {0};
    *text = NULL;
    for (int n = 1; n > 0;) {
        pthread_mutex_lock(&t->lock);
        n = t->count < TURN ? t->count : TURN;
        for (int i = 0; i < n; i++)
            turn[i] = t->event[(t->first + i) % UM_TRACE_EVENTS];
        t->first = (t->first + n) % UM_TRACE_EVENTS;
        t->count -= n;
        pthread_mutex_unlock(&t->lock);
        for (int i = 0; i < n; i++) {
            if (!t->named[turn[i].track])
                put_name(&j, t, turn[i].track);
            t->named[turn[i].track] = true;
            put_event(&j, t, &turn[i]);
        }
    }
    if (j.len && !j.failed)
        j.text[--j.len] = 0; /* whoever writes it ends the line */
    return j.len || j.failed ? um_json_finish(&j, text) : UM_OK;
}
