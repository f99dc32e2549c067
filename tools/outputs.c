/* SPDX-License-Identifier: Apache-2.0 */
#include "outputs.h"

#include "kpi.h"
#include "recording.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool outputs_kpi_all(const struct options *o)
{
    return o->kpi && o->kpi_events && strcmp(o->kpi_events, "all") == 0;
}

static um_status open_trace(um_sink **out, const char *path, const um_sink_settings *settings)
{
    char *spec = text_join("trace:", "", path);
    um_status st = spec ? um_sink_open(out, spec, settings) : um_set_error(UM_ENOMEM, "--trace");
    free(spec);
    return st;
}

um_status outputs_open(const struct options *o, um_source *source, um_monitor *monitor,
                       struct outputs *out)
{
    const char *standard[] = {"jsonl:-"};
    const char *const igtl[][2] = {{"max-fps", o->igtl_max_fps}, {"version", o->igtl_version}};
    const char *const *spec = o->sinks ? o->sink : standard;
    int count = o->sinks ? o->sinks : 1;
    um_sink_settings set;
    um_status st = UM_OK;
    um_sink_settings_default(&set);
    set.objects = o->objects;
    set.deadline_ms = (int)ceilf(o->sink_deadline * 1000);
    set.log = o->quiet ? NULL : cli_say;
    set.monitor = monitor;
    set.source = source;
    const um_sink_policy policy =
        o->on_sink_full && strcmp(o->on_sink_full, "drop") == 0 ? UM_SINK_DROP : UM_SINK_BLOCK;
    for (; out->n < count && st == UM_OK; out->n += st == UM_OK) {
        set.policy = recording_folder(spec[out->n]) ? UM_SINK_BLOCK : policy; /* without gaps */
        char *whole = cli_with_igtl(spec[out->n], igtl, 2);
        st = whole ? um_sink_open(&out->sink[out->n], whole, &set)
                   : um_set_error(UM_ENOMEM, spec[out->n]);
        free(whole);
    }
    out->of_packets = out->n;
    set.policy = policy;
    set.auxiliary = 1;
    const struct kpi_settings kpi = {o->kpi, outputs_kpi_all(o),
                                     (uint64_t)((double)o->kpi_max_mb * 1e6), o->kpi_keep};
    if (st == UM_OK && o->kpi && (st = kpi_open(&out->sink[out->n], &kpi, &set)) == UM_OK)
        out->n++;
    if (st == UM_OK && o->trace && (st = open_trace(&out->sink[out->n], o->trace, &set)) == UM_OK)
        out->n++;
    return st;
}

/* What a sink finds wrong while it runs is no argument, whatever it calls it. */
static int sink_failed(um_status st)
{
    cli_fail(st);
    return EXIT_FAILED;
}

int outputs_write(struct outputs *out, const um_packet *packet, const um_frame *frame,
                  const char *name, int code, bool *left)
{
    *left = false;
    for (int i = 0; i < out->n; i++) {
        um_status st = out->ended[i] ? UM_EOF : um_sink_write(out->sink[i], packet, frame, name);
        if (st != UM_OK && st != UM_EOF)
            code = sink_failed(st);
        out->ended[i] = st != UM_OK;
        *left = *left || (st == UM_OK && i < out->of_packets);
    }
    return code;
}

int outputs_close(struct outputs *out, int code)
{
    for (int i = 0; i < out->n; i++) {
        um_status st = um_sink_close(&out->sink[i]);
        int failed = st == UM_OK ? EXIT_DONE : sink_failed(st);
        code = code == EXIT_DONE ? failed : code;
    }
    return code;
}
