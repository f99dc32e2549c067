/* SPDX-License-Identifier: Apache-2.0 */
#include "kpi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line comes before its packet, which waits for room: few can be here. */
enum { MOST = 1024 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *lines[MOST]; /* guarded by lock, as below */
static int count;

void kpi_line(void *ctx, const char *line)
{
    (void)ctx;
    char *copy = strdup(line);
    pthread_mutex_lock(&lock);
    if (copy && count < MOST) {
        lines[count++] = copy;
        copy = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(copy); /* nobody takes them any more: the sink was given up */
}

static char *take(void)
{
    char *line = NULL;
    pthread_mutex_lock(&lock);
    if (count > 0) {
        line = lines[0];
        memmove(lines, lines + 1, (size_t)--count * sizeof *lines);
    }
    pthread_mutex_unlock(&lock);
    return line;
}

struct kpi {
    um_lines *out;
    int wake;
};

static um_status open_file(void *priv, const char *arg, const um_sink_settings *settings,
                           int wake_fd)
{
    (void)settings;
    struct kpi *k = priv;
    k->wake = wake_fd;
    return um_lines_open(&k->out, arg);
}

static um_status write_lines(void *priv, const um_packet *packet, const um_frame *frame,
                             const char *name)
{
    (void)packet;
    (void)frame;
    (void)name;
    struct kpi *k = priv;
    um_status st = UM_OK;
    for (char *line; st == UM_OK && (line = take());) {
        st = um_lines_write(k->out, line, k->wake);
        free(line);
    }
    return st;
}

static um_status close_file(void *priv)
{
    struct kpi *k = priv;
    for (char *line; (line = take());)
        free(line);
    return um_lines_close(&k->out);
}

um_status kpi_open(um_sink **out, const char *path, const um_sink_settings *settings)
{
    static const um_sink_ops ops = {.struct_size = sizeof ops,
                                    .scheme = "kpi",
                                    .usage = "kpi:PATH",
                                    .priv_size = sizeof(struct kpi),
                                    .open = open_file,
                                    .write = write_lines,
                                    .close = close_file};
    um_status st = um_sink_register(&ops);
    size_t n = strlen(path) + sizeof "kpi:";
    char *spec = malloc(n);
    if (st == UM_OK && !spec)
        st = um_set_error(UM_ENOMEM, "--kpi");
    if (st == UM_OK) {
        snprintf(spec, n, "kpi:%s", path);
        st = um_sink_open(out, spec, settings);
    }
    free(spec);
    return st;
}
