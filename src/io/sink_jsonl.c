/* SPDX-License-Identifier: Apache-2.0 */
/* "jsonl:PATH" and "jsonl:-": one packet per line. */
#include "io/sink.h"

#include "base/mem.h"

struct jsonl {
    um_lines *lines;
    int wake;
};

static um_status jsonl_open(void *priv, const char *arg, const um_sink_settings *settings,
                            int wake_fd)
{
    (void)settings;
    struct jsonl *s = priv;
    if (!arg[0])
        return um_fail(UM_EINVAL, "jsonl: needs a path, or - for stdout");
    s->wake = wake_fd;
    return um_lines_open(&s->lines, arg);
}

static um_status jsonl_write(void *priv, const um_packet *packet, const um_frame *frame,
                             const char *name)
{
    (void)frame;
    (void)name;
    struct jsonl *s = priv;
    char *line = NULL;
    um_status st = um_packet_json(packet, &line);
    if (st == UM_OK)
        st = um_lines_write(s->lines, line, s->wake);
    um_free(line);
    return st;
}

static um_status jsonl_close(void *priv)
{
    struct jsonl *s = priv;
    return um_lines_close(&s->lines);
}

const um_sink_ops um_sink_jsonl = {
    .struct_size = sizeof um_sink_jsonl,
    .priv_size = sizeof(struct jsonl),
    .open = jsonl_open,
    .write = jsonl_write,
    .close = jsonl_close,
};
