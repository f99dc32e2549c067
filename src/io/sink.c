/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sink.h"

#include "base/mem.h"
#include "base/record.h"
#include "base/wake.h"
#include "io/scheme.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

static struct um_schemes schemes = {
    .what = "sink",
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .count = 10,
    .row = {{"dir", "dir:PATH", &um_sink_dir},
            {"jsonl", "jsonl:PATH or jsonl:-", &um_sink_jsonl},
            {"null", "null:", &um_sink_null},
            {"video", "video:OUT.mp4", &um_sink_video},
            {"igtl", "igtl::PORT", &um_sink_igtl},
            {"igtl-connect", "igtl-connect:HOST:PORT", &um_sink_igtl_connect},
            {"web", "web::PORT", &um_sink_web},
            {"trace", "trace:FILE", &um_sink_trace},
            {"record", "record:FOLDER", &um_sink_record},
            {"masks", "masks:OUT.mha, .seq.nrrd or .seg.nrrd", &um_sink_masks}},
};

struct um_sink {
    atomic_int refs;
    const um_sink_ops *ops;
    void *priv;
    char *spec;
    um_sink_settings set;
    int wake; /* readable once cancelled */
    atomic_bool cancelled;
};

void um_sink_settings_init(um_sink_settings *s, size_t struct_size)
{
    static const um_sink_settings defaults = {.objects = 1, .capacity = 4, .deadline_ms = 10000};
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

um_status um_sink_register(const um_sink_ops *ops)
{
    um_sink_ops own = {0};
    um_status st = ops ? um_record_in(&own, sizeof own, ops, "um_sink_ops")
                       : um_fail(UM_EINVAL, "um_sink_register: no table");
    if (st == UM_OK && (!own.open || !own.write))
        st = um_fail(UM_EINVAL, "um_sink_register: \"%s\" has no open or no write",
                     own.scheme ? own.scheme : "");
    return st == UM_OK ? um_schemes_add(&schemes, own.scheme, own.usage, &own, sizeof own) : st;
}

static um_status read_settings(um_sink_settings *own, const um_sink_settings *theirs)
{
    enum { MOST = 1024 };
    um_sink_settings_default(own);
    um_status st = um_record_in(own, sizeof *own, theirs, "um_sink_settings");
    if (st == UM_OK && (own->objects < 1 || own->objects > UM_OBJECTS_MAX || own->capacity < 1 ||
                        own->capacity > MOST || own->deadline_ms < 0 ||
                        (own->policy != UM_SINK_BLOCK && own->policy != UM_SINK_DROP)))
        st = um_fail(UM_EINVAL,
                     "sink: %d objects (1 to %d), capacity %d (1 to %d), deadline %d ms (from 0), "
                     "policy %d",
                     own->objects, UM_OBJECTS_MAX, own->capacity, MOST, own->deadline_ms,
                     (int)own->policy);
    return st;
}

um_status um_sink_open(um_sink **out, const char *spec, const um_sink_settings *settings)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_sink_open: out is NULL");
    *out = NULL;
    um_sink_settings own;
    um_status st = read_settings(&own, settings);
    if (st != UM_OK)
        return st;
    if (!spec || !spec[0])
        return um_fail(UM_EINVAL, "a sink without a name");
    const char *arg = NULL;
    const um_sink_ops *ops = um_schemes_find(&schemes, spec, &arg);
    if (!ops) {
        char known[1024];
        um_schemes_usages(&schemes, known, sizeof known);
        return um_fail(UM_EINVAL, "unknown sink \"%s\": known are %s", spec, known);
    }
    if (um_source_reads(own.source, arg))
        return um_fail(UM_EINVAL, "%s: is also the input %s", spec, um_source_name(own.source));
    um_sink *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "sink");
    atomic_init(&s->refs, 1);
    s->wake = -1;
    s->set = own;
    s->spec = um_strdup(spec);
    s->priv = um_zalloc(ops->priv_size + 1);
    if (!s->spec || !s->priv)
        st = um_fail(UM_ENOMEM, "sink");
    else
        st = um_wake_open(&s->wake, spec);
    if (st == UM_OK) {
        s->ops = ops;
        um_source_ref(own.source);
        um_set_error(UM_OK, "");
        st = ops->open(s->priv, s->spec + (arg - spec), &own, s->wake);
        st = um_scheme_answer(st, spec, "open");
    }
    if (st != UM_OK) {
        char why[UM_ERROR_BYTES]; /* closing may set another */
        snprintf(why, sizeof why, "%s", um_last_error());
        um_sink_close(&s);
        return um_fail(st, "%s", why);
    }
    *out = s;
    return st;
}

um_sink *um_sink_ref(um_sink *sink)
{
    if (sink)
        atomic_fetch_add_explicit(&sink->refs, 1, memory_order_relaxed);
    return sink;
}

um_status um_sink_write(um_sink *sink, const um_packet *packet, const um_frame *frame,
                        const char *name)
{
    if (!sink || !packet)
        return um_fail(UM_EINVAL, "um_sink_write: %s is NULL", sink ? "packet" : "sink");
    if (atomic_load(&sink->cancelled))
        return um_fail(UM_AGAIN, "%s: given up", sink->spec);
    char number[24];
    if (!name || !name[0]) {
        snprintf(number, sizeof number, "%05llu", (unsigned long long)packet->frame_id);
        name = number;
    }
    um_set_error(UM_OK, "");
    um_status st = sink->ops->write(sink->priv, packet, frame, name);
    if (st != UM_OK && !um_last_error()[0])
        um_fail(st, "%s: frame %llu: %s", sink->spec, (unsigned long long)packet->frame_id,
                um_status_name(st));
    return st;
}

void um_sink_cancel(um_sink *sink)
{
    if (!sink)
        return;
    atomic_store(&sink->cancelled, true);
    um_wake_set(sink->wake);
}

um_status um_sink_close(um_sink **sink)
{
    if (!sink || !*sink)
        return UM_OK;
    um_sink *s = *sink;
    *sink = NULL;
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return UM_OK;
    um_status st = UM_OK;
    if (s->ops && s->ops->close) {
        char before[UM_ERROR_BYTES];
        snprintf(before, sizeof before, "%s", um_last_error());
        um_set_error(UM_OK, "");
        st = um_scheme_answer(s->ops->close(s->priv), s->spec, "close");
        if (st == UM_OK)
            um_set_error(UM_OK, before);
    }
    if (s->ops)
        um_source_close(&s->set.source);
    um_wake_close(&s->wake);
    um_free(s->priv);
    um_free(s->spec);
    um_free(s);
    return st;
}

const char *um_sink_name(const um_sink *sink)
{
    return sink ? sink->spec : "";
}

void um_sink_counts(const um_sink *sink, void (*each)(void *ctx, const char *name, uint64_t n),
                    void *ctx)
{
    if (sink && each && sink->ops->counts)
        sink->ops->counts(sink->priv, each, ctx);
}

um_status um_sink_settings_of(const um_sink *sink, um_sink_settings *out)
{
    if (!sink || !out)
        return um_fail(UM_EINVAL, "um_sink_settings_of: no %s",
                       sink ? "place for the result" : "sink");
    return um_record_out(out, &sink->set, sizeof sink->set, "um_sink_settings");
}
