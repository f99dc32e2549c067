/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sink.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const um_sink_type *const types[] = {&um_sink_dir, &um_sink_jsonl, &um_sink_null, NULL};

struct um_sink {
    const um_sink_type *type;
    void *priv;
    char *spec;
};

static um_status unknown(const char *spec)
{
    char known[200] = "";
    size_t n = 0;
    for (int i = 0; types[i] && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", types[i]->usage);
    return um_fail(UM_EINVAL, "unknown sink \"%s\": known are %s", spec, known);
}

um_status um_sink_open(um_sink **out, const char *spec)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_sink_open: out is NULL");
    *out = NULL;
    if (!spec || !spec[0])
        return um_fail(UM_EINVAL, "a sink without a name");
    size_t n = strcspn(spec, ":");
    const um_sink_type *type = NULL;
    for (int i = 0; types[i] && spec[n] && !type; i++)
        if (strlen(types[i]->scheme) == n && memcmp(types[i]->scheme, spec, n) == 0)
            type = types[i];
    if (!type)
        return unknown(spec);
    um_sink *s = um_zalloc(sizeof *s);
    void *priv = um_zalloc(type->priv_size);
    char *copy = um_strdup(spec);
    if (!s || !priv || !copy) {
        um_free(s);
        um_free(priv);
        um_free(copy);
        return um_fail(UM_ENOMEM, "sink");
    }
    *s = (um_sink){type, priv, copy};
    um_status st = type->open(priv, copy + n + 1);
    if (st != UM_OK) {
        type->close(priv);
        um_free(priv);
        um_free(copy);
        um_free(s);
        s = NULL;
    }
    *out = s;
    return st;
}

um_status um_sink_write(um_sink *sink, const um_packet *packet, const um_frame *frame,
                        const char *name)
{
    if (!sink || !packet)
        return um_fail(UM_EINVAL, "um_sink_write: %s is NULL", sink ? "packet" : "sink");
    char number[24];
    if (!name || !name[0]) {
        snprintf(number, sizeof number, "%05llu", (unsigned long long)packet->frame_id);
        name = number;
    }
    return sink->type->write(sink->priv, packet, frame, name);
}

um_status um_sink_close(um_sink **sink)
{
    if (!sink || !*sink)
        return UM_OK;
    um_sink *s = *sink;
    *sink = NULL;
    um_status st = s->type->close(s->priv);
    um_free(s->priv);
    um_free(s->spec);
    um_free(s);
    return st;
}

const char *um_sink_name(const um_sink *sink)
{
    return sink ? sink->spec : "";
}
