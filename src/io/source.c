/* SPDX-License-Identifier: Apache-2.0 */
#include "io/source.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/record.h"
#include "base/wake.h"
#include "io/scheme.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

static struct um_schemes schemes = {
    .what = "source",
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .count = 9,
    .row = {{"phantom", "phantom:seed=1,frames=100", &um_source_phantom},
            {"-", "-", &um_source_raw},
            {"push", "push:", &um_source_push_ops},
            {"igtl", "igtl://HOST:PORT", &um_source_igtl},
            {"igtl-listen", "igtl-listen::PORT", &um_source_igtl_listen},
            {"replay", "replay:FOLDER", &um_source_replay},
            {"replay-live", "replay-live:FOLDER", &um_source_replay_live},
            {"v4l2", "v4l2:/dev/video0", &um_source_v4l2},
            {"lavfi", "lavfi:GRAPH", &um_source_lavfi}},
};

struct um_source {
    atomic_int refs;
    const um_source_ops *ops;
    void *priv;
    char *spec;
    int wake; /* readable once cancelled */
    atomic_bool cancelled;
    long limit; /* ids to hand out; 0 = all */
    bool loop, ended;
    bool round_frames;  /* this round had a readable one: a loop over none would never end */
    uint64_t id, index; /* of the next frame: in this run, and in the source's own round */
    char number[24];    /* the last frame's id, as a name */
};

void um_source_settings_init(um_source_settings *s, size_t struct_size)
{
    static const um_source_settings defaults = {.channels = 1, .capacity = 4};
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

um_status um_source_register(const um_source_ops *ops)
{
    um_source_ops own = {0};
    um_status st = ops ? um_record_in(&own, sizeof own, ops, "um_source_ops")
                       : um_fail(UM_EINVAL, "um_source_register: no table");
    if (st == UM_OK && (!own.open || !own.read))
        st = um_fail(UM_EINVAL, "um_source_register: \"%s\" has no open or no read",
                     own.scheme ? own.scheme : "");
    return st == UM_OK ? um_schemes_add(&schemes, own.scheme, own.usage, &own, sizeof own) : st;
}

/* Whose it is, and what it is about: a file's, where no scheme is known. */
static const um_source_ops *kind_of(const char *spec, const char **arg)
{
    const um_source_ops *ops = um_schemes_find(&schemes, spec, arg);
    *arg = ops ? *arg : spec;
    return ops ? ops : &um_source_dir;
}

/* Who opens this, and with what. Something like "rtsp://host" is a scheme that nobody here knows,
 * unless it is a file. */
static um_status choose(const char *spec, const um_source_ops **ops, const char **arg)
{
    struct stat s;
    char known[1024];
    *ops = kind_of(spec, arg);
    if (*ops != &um_source_dir || !um_scheme_length(spec) || stat(spec, &s) == 0)
        return UM_OK;
    um_schemes_usages(&schemes, known, sizeof known);
    return um_fail(UM_EINVAL,
                   "unknown source \"%s\": known are a file, a folder, a glob, @LIST.txt, %s", spec,
                   known);
}

um_status um_source_open(um_source **out, const char *spec, const um_source_settings *settings)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_source_open: out is NULL");
    *out = NULL;
    um_source_settings own;
    um_source_settings_default(&own);
    um_status st = um_record_in(&own, sizeof own, settings, "um_source_settings");
    if (st != UM_OK)
        return st;
    if (!spec || !spec[0])
        return um_fail(UM_EINVAL, "a source without a name");
    if (own.frames < 0)
        return um_fail(UM_EINVAL, "%s: %ld frames: want 0, for all, or more", spec, own.frames);
    if (own.window < UM_WINDOW_NONE || own.window > UM_WINDOW_AUTO ||
        (own.window == UM_WINDOW_RANGE &&
         (own.window_lo < 0 || own.window_lo >= own.window_hi || own.window_hi > UINT16_MAX)))
        return um_fail(UM_EINVAL, "%s: a window from %d to %d: want two samples, 0 to 65535", spec,
                       own.window_lo, own.window_hi);
    const um_source_ops *ops = NULL;
    const char *arg = NULL;
    st = choose(spec, &ops, &arg);
    if (st != UM_OK)
        return st;
    um_source *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "source");
    atomic_init(&s->refs, 1);
    s->wake = -1;
    s->limit = own.frames;
    s->loop = own.loop != 0;
    s->spec = um_strdup(spec);
    s->priv = um_zalloc(ops->priv_size + 1);
    if (!s->spec || !s->priv)
        st = um_fail(UM_ENOMEM, "source");
    else
        st = um_wake_open(&s->wake, spec);
    if (st == UM_OK) {
        s->ops = ops;
        um_set_error(UM_OK, "");
        st = ops->open(s->priv, s->spec + (arg - spec), &own, s->wake);
        st = um_scheme_answer(st, spec, "open");
    }
    if (st != UM_OK) {
        char why[UM_ERROR_BYTES]; /* closing may set another */
        snprintf(why, sizeof why, "%s", um_last_error());
        um_source_close(&s);
        return um_fail(st, "%s", why);
    }
    *out = s;
    return st;
}

int um_source_uses(const char *spec)
{
    const char *arg = NULL;
    if (!spec || !spec[0])
        return 0;
    const um_source_ops *ops = kind_of(spec, &arg);
    return ops->uses | (ops->live ? UM_SOURCE_LIVE : 0);
}

um_source *um_source_ref(um_source *source)
{
    if (source)
        atomic_fetch_add_explicit(&source->refs, 1, memory_order_relaxed);
    return source;
}

void um_source_close(um_source **source)
{
    if (!source || !*source)
        return;
    um_source *s = *source;
    *source = NULL;
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (s->ops && s->ops->close)
        s->ops->close(s->priv);
    um_wake_close(&s->wake);
    um_free(s->priv);
    um_free(s->spec);
    um_free(s);
}

/* One frame of the kind's own. An error has a text, and a frame a source. */
static um_status read_one(um_source *s, um_frame **frame)
{
    um_set_error(UM_OK, "");
    um_status st = s->ops->read(s->priv, s->index, frame);
    if (st > UM_OK && st != UM_EOF)
        st = um_fail(UM_EINVAL,
                     "%s: frame %llu: its reader answers %s (%d), want UM_OK, UM_EOF or an "
                     "error",
                     s->spec, (unsigned long long)s->id, um_status_name(st), (int)st);
    if (st == UM_OK && !*frame)
        st = um_fail(UM_EINVAL, "%s: frame %llu was read, and is not there", s->spec,
                     (unsigned long long)s->id);
    if (st == UM_OK && !isfinite((*frame)->ts)) /* nobody could read what is written of it */
        st = um_fail(UM_EFORMAT, "%s: frame %llu: a time that is no number: %g", s->spec,
                     (unsigned long long)s->id, (*frame)->ts);
    if (st == UM_OK && !(*frame)->source[0])
        st = um_frame_set_source(*frame, s->spec);
    if (st != UM_OK)
        um_frame_unref(frame);
    if (st != UM_OK && st != UM_EOF && !um_last_error()[0])
        um_fail(st, "%s: frame %llu: %s", s->spec, (unsigned long long)s->id, um_status_name(st));
    return st;
}

um_status um_source_read(um_source *source, um_frame **frame)
{
    if (!source || !frame)
        return um_fail(UM_EINVAL, "um_source_read: %s is NULL", source ? "frame" : "source");
    *frame = NULL;
    um_source *s = source;
    if (s->ended || atomic_load(&s->cancelled) || (s->limit && s->id >= (uint64_t)s->limit))
        return UM_EOF;
    um_status st = read_one(s, frame);
    if (st == UM_EOF && s->loop && s->round_frames && !atomic_load(&s->cancelled)) {
        s->index = 0;
        s->round_frames = false;
        st = read_one(s, frame);
    }
    if (st == UM_EOF) {
        s->ended = true;
        return st;
    }
    snprintf(s->number, sizeof s->number, "%05llu", (unsigned long long)s->id);
    if (st == UM_OK) {
        s->round_frames = true;
        (*frame)->id = s->id;
        if (!(*frame)->received_ns && s->ops->live)
            (*frame)->received_ns = um_clock_ns();
        if ((*frame)->ts != 0)
            (*frame)->has_ts = 1;
        else if (!(*frame)->has_ts)
            (*frame)->ts = um_clock_unix();
    } else if (s->ops->stream) {
        s->ended = true;
    }
    s->id++;
    s->index++;
    if (s->ops == &um_source_push_ops && s->id == (uint64_t)s->limit)
        um_push_finish(s->priv); /* nobody would read what is pushed now, or make room for it */
    return st;
}

void um_source_cancel(um_source *source)
{
    if (!source)
        return;
    atomic_store(&source->cancelled, true);
    um_wake_set(source->wake);
}

long um_source_length(const um_source *source)
{
    if (!source)
        return -1;
    long n = source->ops->length ? source->ops->length(source->priv) : -1, limit = source->limit;
    if (n < 0)
        return -1; /* it may end before any limit */
    if (n == LONG_MAX || source->loop)
        return limit ? limit : -1;
    return limit && limit < n ? limit : n;
}

const char *um_source_frame_name(const um_source *source)
{
    if (!source)
        return "";
    const char *name =
        source->ops->name && source->number[0] ? source->ops->name(source->priv) : NULL;
    return name && name[0] ? name : source->number;
}

um_status um_source_truth(const um_source *source, um_truth *out)
{
    um_truth own = {.struct_size = sizeof own};
    if (!source || !out)
        return um_fail(UM_EINVAL, "um_source_truth: %s is NULL", source ? "out" : "source");
    const um_truth *known = source->ops->truth ? source->ops->truth(source->priv) : NULL;
    um_status st = um_record_in(&own, sizeof own, known, "um_truth");
    if (st == UM_OK)
        st = um_record_out(out, &own, sizeof own, "um_truth");
    return st == UM_OK && !known ? UM_AGAIN : st;
}

int um_source_reads(const um_source *source, const char *path)
{
    struct stat s;
    if (!source || !path || stat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return 0;
    const um_source_ops *ops = source->ops;
    return ops == &um_source_dir ? um_dir_reads(source->priv, path)
           : ops == &um_source_replay || ops == &um_source_replay_live
               ? um_replay_reads(source->priv, path)
               : ops == &um_source_raw && um_raw_reads(path);
}

/* ---- frames that the program has ---- */

um_status um_source_push(um_source *source, um_frame **frame)
{
    if (!source || !frame || !*frame)
        return um_fail(UM_EINVAL, "um_source_push: no %s", source ? "frame" : "source");
    if (source->ops != &um_source_push_ops)
        return um_fail(UM_EINVAL, "um_source_push: %s is not \"push:\"", source->spec);
    if (!isfinite((*frame)->ts))
        return um_fail(UM_EINVAL, "um_source_push: a time that is no number: %g", (*frame)->ts);
    return um_push_frame(source->priv, frame);
}

um_status um_source_finish(um_source *source)
{
    if (!source || source->ops != &um_source_push_ops)
        return um_fail(UM_EINVAL, "um_source_finish: %s is not \"push:\"",
                       source ? source->spec : "NULL");
    um_push_finish(source->priv);
    return UM_OK;
}

const char *um_source_name(const um_source *source)
{
    return source ? source->spec : "";
}

int um_source_waiting(const um_source *source)
{
    return source && source->ops == &um_source_push_ops ? um_push_waiting(source->priv) : 0;
}

uint64_t um_source_replaced(const um_source *source)
{
    return source && source->ops->replaced ? source->ops->replaced(source->priv) : 0;
}

int um_source_live(const um_source *source)
{
    return source && source->ops->live;
}

void um_source_counts(const um_source *source,
                      void (*each)(void *ctx, const char *name, uint64_t n), void *ctx)
{
    if (source && each && source->ops->counts)
        source->ops->counts(source->priv, each, ctx);
}
