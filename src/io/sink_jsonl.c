/* SPDX-License-Identifier: Apache-2.0 */
/* "jsonl:PATH" and "jsonl:-": one packet per line, each line flushed so that a reader sees it at
 * once. */
#include "io/sink.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct jsonl {
    FILE *file;
    const char *path;
    int failed; /* told once; closing has nothing to add */
};

static um_status jsonl_open(void *priv, const char *arg)
{
    struct jsonl *s = priv;
    if (!arg[0])
        return um_fail(UM_EINVAL, "jsonl: needs a path, or - for stdout");
    int is_stdout = strcmp(arg, "-") == 0;
    s->path = is_stdout ? "stdout" : arg;
    s->file = is_stdout ? stdout : fopen(arg, "wb");
    return s->file ? UM_OK : um_fail(UM_EIO, "jsonl:%s: %s", arg, strerror(errno));
}

static um_status failed(struct jsonl *s)
{
    int error = errno;
    s->failed = 1;
    return um_fail(error == EPIPE ? UM_EOF : UM_EIO, "jsonl: %s: %s", s->path, strerror(error));
}

static um_status jsonl_write(void *priv, const um_packet *packet, const um_frame *frame,
                             const char *name)
{
    (void)frame;
    (void)name;
    struct jsonl *s = priv;
    char *line = NULL;
    um_status st = um_packet_json(packet, &line);
    if (st != UM_OK)
        return st;
    errno = 0;
    if (fputs(line, s->file) == EOF || fputc('\n', s->file) == EOF || fflush(s->file) == EOF)
        st = failed(s);
    um_free(line);
    return st;
}

static um_status jsonl_close(void *priv)
{
    struct jsonl *s = priv;
    if (!s->file)
        return UM_OK;
    errno = 0;
    int bad = s->file == stdout ? fflush(stdout) : fclose(s->file);
    s->file = NULL;
    if (!bad || s->failed)
        return UM_OK;
    um_status st = failed(s);
    return st == UM_EOF ? UM_OK : st;
}

const um_sink_type um_sink_jsonl = {
    .scheme = "jsonl",
    .usage = "jsonl:PATH or jsonl:-",
    .priv_size = sizeof(struct jsonl),
    .open = jsonl_open,
    .write = jsonl_write,
    .close = jsonl_close,
};
