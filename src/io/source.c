/* SPDX-License-Identifier: Apache-2.0 */
#include "io/source.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/record.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const um_source_type *const types[] = {&um_source_phantom, &um_source_raw, &um_source_dir,
                                              NULL};

struct um_source {
    const um_source_type *type;
    void *priv;
    long limit; /* ids to hand out; 0 = all */
    int loop, ended;
    int round_frames;   /* this round had a readable one: a loop over none would never end */
    uint64_t id, index; /* of the next frame: in this run, and in the source's own round */
    char name[UM_NAME_BYTES];
};

void um_source_settings_init(um_source_settings *s, size_t struct_size)
{
    static const um_source_settings defaults = {.channels = 1};
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

/* "abc:" in front, as of "igtl://host": a scheme nobody here knows. A file of that name would have
 * been found before. */
static int has_scheme(const char *spec)
{
    size_t n = strspn(spec, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n > 1 && spec[n] == ':';
}

static um_status choose(const char *spec, const um_source_type **type, const char **rest)
{
    struct stat s;
    for (int i = 0; types[i]; i++) {
        const char *scheme = types[i]->scheme;
        size_t n = scheme ? strlen(scheme) : 0;
        /* "phantom:" goes on after its scheme, "-" is all there is */
        int match = !scheme || (n > 1 ? strncmp(spec, scheme, n) == 0 : strcmp(spec, scheme) == 0);
        if (match && !scheme && has_scheme(spec) && stat(spec, &s) != 0)
            break;
        if (match) {
            *type = types[i];
            *rest = spec + n;
            return UM_OK;
        }
    }
    return um_fail(UM_EINVAL,
                   "unknown source \"%s\": known are a file, a folder, a glob, "
                   "phantom:seed=1,frames=100 and -",
                   spec);
}

um_status um_source_open(um_source **out, const char *spec, const um_source_settings *settings)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_source_open: out is NULL");
    *out = NULL;
    um_source_settings own;
    um_source_settings_default(&own);
    um_status st =
        settings ? um_record_in(&own, sizeof own, settings, "um_source_settings") : UM_OK;
    if (st != UM_OK)
        return st;
    if (!spec || !spec[0])
        return um_fail(UM_EINVAL, "a source without a name");
    if (own.frames < 0)
        return um_fail(UM_EINVAL, "%s: %ld frames", spec, own.frames);
    const um_source_type *type = NULL;
    st = choose(spec, &type, &spec);
    if (st != UM_OK)
        return st;
    um_source *s = um_zalloc(sizeof *s);
    void *priv = um_zalloc(type->priv_size);
    if (!s || !priv) {
        um_free(s);
        um_free(priv);
        return um_fail(UM_ENOMEM, "source");
    }
    *s = (um_source){.type = type, .priv = priv, .limit = own.frames, .loop = own.loop};
    st = type->open(priv, spec, &own);
    if (st != UM_OK)
        um_source_close(&s);
    *out = s;
    return st;
}

void um_source_close(um_source **source)
{
    if (!source || !*source)
        return;
    um_source *s = *source;
    *source = NULL;
    s->type->close(s->priv);
    um_free(s->priv);
    um_free(s);
}

um_status um_source_read(um_source *source, um_frame **frame)
{
    if (!source || !frame)
        return um_fail(UM_EINVAL, "um_source_read: %s is NULL", source ? "frame" : "source");
    *frame = NULL;
    um_source *s = source;
    if (s->ended || (s->limit && s->id >= (uint64_t)s->limit))
        return UM_EOF;
    s->name[0] = 0;
    um_status st = s->type->read(s->priv, s->index, frame, s->name);
    if (st == UM_EOF && s->loop && s->round_frames > 0) {
        s->index = 0;
        s->round_frames = 0;
        st = s->type->read(s->priv, s->index, frame, s->name);
    }
    if (st == UM_EOF) {
        s->ended = 1;
        return st;
    }
    if (!s->name[0])
        snprintf(s->name, sizeof s->name, "%05llu", (unsigned long long)s->id);
    if (st == UM_OK) {
        s->round_frames = 1;
        (*frame)->id = s->id;
        if ((*frame)->ts == 0)
            (*frame)->ts = um_clock_unix();
    } else if (s->type->ends_on_error) {
        s->ended = 1;
    }
    s->id++;
    s->index++;
    return st;
}

long um_source_length(const um_source *source)
{
    if (!source)
        return -1;
    long n = source->type->length(source->priv), limit = source->limit;
    if (n < 0 && source->type->ends_on_error)
        return -1; /* a stream may end before any limit */
    if (n < 0 || source->loop)
        return limit ? limit : -1;
    return limit && limit < n ? limit : n;
}

const char *um_source_frame_name(const um_source *source)
{
    return source ? source->name : "";
}

um_status um_source_truth(const um_source *source, um_truth *out)
{
    if (!source || !out)
        return um_fail(UM_EINVAL, "um_source_truth: %s is NULL", source ? "out" : "source");
    *out = (um_truth){0};
    return source->type->truth ? source->type->truth(source->priv, out) : UM_AGAIN;
}
