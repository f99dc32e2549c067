/* SPDX-License-Identifier: Apache-2.0 */
/* "trace:FILE": what happened when, for ui.perfetto.dev and chrome://tracing. Both take a list
 * without its end, so a file that breaks off is good up to its last line. */
#include "io/sink.h"

#include "base/mem.h"
#include "monitor/monitor.h"
#include "monitor/trace.h"

struct trace {
    um_lines *lines;
    um_monitor *monitor;
    int wake;
};

static um_status trace_open(void *priv, const char *arg, const um_sink_settings *settings,
                            int wake_fd)
{
    struct trace *s = priv;
    s->wake = wake_fd;
    if (!arg[0] || !settings->monitor)
        return um_fail(UM_EINVAL, "trace: needs a %s", arg[0] ? "monitor" : "path");
    um_status st = um_lines_open(&s->lines, arg);
    if (st == UM_OK)
        st = um_lines_write(s->lines, "[", wake_fd);
    if (st == UM_OK)
        st = um_trace_begin(um_monitor_trace(settings->monitor));
    if (st == UM_OK)
        s->monitor = um_monitor_ref(settings->monitor);
    return st;
}

static um_status write_events(struct trace *s)
{
    char *text = NULL;
    um_status st = um_trace_take(um_monitor_trace(s->monitor), &text);
    if (st == UM_OK && text)
        st = um_lines_write(s->lines, text, s->wake);
    um_free(text);
    return st;
}

static um_status trace_write(void *priv, const um_packet *packet, const um_frame *frame,
                             const char *name)
{
    (void)packet, (void)frame, (void)name;
    struct trace *s = priv;
    um_status st = write_events(s);
    if (st != UM_OK) /* then the end is not written either */
        um_monitor_close(&s->monitor);
    return st;
}

/* A last object, so that the list is one for strict readers too. */
static um_status trace_close(void *priv)
{
    struct trace *s = priv;
    um_status st = UM_OK;
    if (s->monitor) {
        st = write_events(s);
        if (st == UM_OK)
            st = um_lines_write(s->lines,
                                "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"tid\":0,"
                                "\"args\":{\"name\":\"ultramotion\"}}\n]",
                                s->wake);
    }
    um_monitor_close(&s->monitor);
    um_status closed = um_lines_close(&s->lines);
    return st != UM_OK ? st : closed;
}

const um_sink_ops um_sink_trace = {
    .struct_size = sizeof um_sink_trace,
    .priv_size = sizeof(struct trace),
    .open = trace_open,
    .write = trace_write,
    .close = trace_close,
};
