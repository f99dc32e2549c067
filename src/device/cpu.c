/* SPDX-License-Identifier: Apache-2.0 */
/* The host as a device: memory is shared, a command runs when it is submitted, on the caller's
 * thread and the pool. That is one of the orders the device layer allows, so events only keep the
 * time. */
#include "base/clock.h"
#include "base/mem.h"
#include "device/backend.h"
#include "device/races.h"

#include <string.h>

enum kind { UPLOAD, DOWNLOAD, COPY, FILL, RUN, RECORD };

/* A captured command. */
struct command {
    enum kind kind;
    uint8_t value;
    void *dst;
    const void *src;
    size_t n;
    const struct um_step *step;
    um_event *event;
};

struct cpu_event {
    um_event base;
    uint64_t ns;
};

struct cpu_graph {
    um_graph base;
    struct command *command;
    size_t commands, room;
};

/* ---- commands ---- */

static void run_step(um_pool *pool, const struct um_step *step)
{
    struct um_view view[UM_OPERANDS];
    for (int i = 0; i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        view[i] = o->view;
        view[i].data = o->buf ? (char *)o->buf->priv + o->offset : NULL;
    }
    if (step->limit.buf)
        um_step_limit(&view[0], (char *)step->limit.buf->priv + step->limit.offset);
    um_pool_say(pool, step);
    um_races_step(step, view);
    step->kernel(&(struct um_call){.args = step->args, .t = view, .n = step->n, .pool = pool});
}

static void execute(um_pool *pool, const struct command *c)
{
    switch (c->kind) {
    case UPLOAD:
    case DOWNLOAD:
    case COPY: memcpy(c->dst, c->src, c->n); break;
    case FILL: memset(c->dst, c->value, c->n); break;
    case RUN: run_step(pool, c->step); break;
    case RECORD:
        ((struct cpu_event *)c->event)->ns = um_clock_ns();
        c->event->recorded = true;
        break;
    }
}

static um_status submit(um_device *dev, const struct command *c)
{
    struct cpu_graph *g = (struct cpu_graph *)dev->capturing;
    if (!g) {
        um_pool *pool = c->kind == RUN ? um_pool_take(dev->pool) : NULL;
        execute(pool, c);
        if (pool)
            um_pool_give(pool);
        return UM_OK;
    }
    if (!um_make_room(&g->command, &g->room, g->commands, 1, sizeof *c))
        return um_fail(UM_ENOMEM, "commands of a graph");
    g->command[g->commands++] = *c;
    return UM_OK;
}

static um_status upload(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                        size_t src_off, size_t n)
{
    (void)q;
    return submit(dev, &(struct command){.kind = UPLOAD,
                                         .dst = (char *)dst->priv + off,
                                         .src = (char *)src->data + src_off,
                                         .n = n});
}

static um_status download(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off,
                          um_buf *src, size_t off, size_t n)
{
    (void)q;
    return submit(dev, &(struct command){.kind = DOWNLOAD,
                                         .dst = (char *)dst->data + dst_off,
                                         .src = (char *)src->priv + off,
                                         .n = n});
}

static um_status copy(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                      size_t src_off, size_t n)
{
    (void)q;
    return submit(dev, &(struct command){.kind = COPY,
                                         .dst = (char *)dst->priv + dst_off,
                                         .src = (char *)src->priv + src_off,
                                         .n = n});
}

static um_status copy_from(um_device *dev, enum um_queue q, um_buf *dst, size_t off, uintptr_t src,
                           size_t n, void *stream)
{
    (void)q, (void)stream;
    return submit(
        dev, &(struct command){
                 .kind = COPY, .dst = (char *)dst->priv + off, .src = (const void *)src, .n = n});
}

static um_status fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n,
                      uint8_t value)
{
    (void)q;
    return submit(dev, &(struct command){
                           .kind = FILL, .dst = (char *)dst->priv + off, .n = n, .value = value});
}

static um_status discard(um_device *dev, enum um_queue q, um_buf *buf, size_t off, size_t n)
{
    (void)dev, (void)q, (void)buf, (void)off, (void)n;
    return UM_OK;
}

static um_status run(um_device *dev, enum um_queue q, const struct um_step *step)
{
    (void)q;
    return submit(dev, &(struct command){.kind = RUN, .step = step});
}

/* ---- memory ---- */

static um_status buf_create(um_device *dev, um_buf *buf)
{
    (void)dev;
    buf->priv = um_alloc(buf->size);
    buf->handle = (uintptr_t)buf->priv;
    return buf->priv ? UM_OK
                     : um_fail(UM_ENOMEM, "buffer \"%s\" of %zu bytes", buf->label, buf->size);
}

static void buf_destroy(um_device *dev, um_buf *buf)
{
    (void)dev;
    um_free(buf->priv);
}

static um_status host_create(um_device *dev, um_hostbuf *buf)
{
    (void)dev;
    buf->data = um_zalloc(buf->size);
    return buf->data ? UM_OK : um_fail(UM_ENOMEM, "host buffer of %zu bytes", buf->size);
}

static void host_destroy(um_device *dev, um_hostbuf *buf)
{
    (void)dev;
    um_free(buf->data);
}

/* ---- events ---- */

static um_status event_create(um_device *dev, bool timed, um_event **out)
{
    (void)dev, (void)timed;
    struct cpu_event *e = um_zalloc(sizeof *e);
    *out = (um_event *)e;
    return e ? UM_OK : um_fail(UM_ENOMEM, "event");
}

static void event_destroy(um_device *dev, um_event *event)
{
    (void)dev;
    um_free(event);
}

static um_status event_record(um_device *dev, enum um_queue q, um_event *event)
{
    (void)q;
    return submit(dev, &(struct command){.kind = RECORD, .event = event});
}

static um_status event_wait(um_device *dev, enum um_queue q, um_event *event)
{
    (void)dev, (void)q, (void)event;
    return UM_OK;
}

static um_status event_sync(um_device *dev, um_event *event)
{
    (void)dev, (void)event;
    return UM_OK;
}

static um_status event_elapsed(um_device *dev, um_event *from, um_event *to, uint64_t *ns)
{
    (void)dev;
    uint64_t a = ((struct cpu_event *)from)->ns, b = ((struct cpu_event *)to)->ns;
    *ns = b > a ? b - a : 0;
    return UM_OK;
}

/* ---- graphs ---- */

static um_status capture_begin(um_device *dev, um_graph **out)
{
    (void)dev;
    struct cpu_graph *g = um_zalloc(sizeof *g);
    *out = (um_graph *)g;
    return g ? UM_OK : um_fail(UM_ENOMEM, "graph");
}

static um_status capture_end(um_device *dev, um_graph *graph)
{
    (void)dev, (void)graph;
    return UM_OK;
}

static um_status graph_launch(um_device *dev, um_graph *graph)
{
    struct cpu_graph *g = (struct cpu_graph *)graph;
    um_pool *pool = um_pool_take(dev->pool);
    for (size_t i = 0; i < g->commands; i++)
        execute(pool, &g->command[i]);
    um_pool_give(pool);
    return UM_OK;
}

static void graph_destroy(um_device *dev, um_graph *graph)
{
    (void)dev;
    um_free(((struct cpu_graph *)graph)->command);
    um_free(graph);
}

/* ---- device ---- */

static void cpu_close(um_device *dev)
{
    um_pool_close(&dev->pool);
    um_free(dev);
}

static const struct um_device_fns fns = {UM_DEVICE_FNS, .close = cpu_close};

um_status um_cpu_open(um_device **out, const um_device_settings *s)
{
    *out = NULL;
    um_device *dev = um_zalloc(sizeof *dev);
    if (!dev)
        return um_fail(UM_ENOMEM, "device cpu");
    dev->fns = &fns;
    dev->caps.shared = true;
    dev->caps.parallel = true;
    memcpy(dev->name, "cpu", 4);
    um_status st = um_pool_open(&dev->pool, s->threads);
    if (st != UM_OK) {
        um_free(dev);
        return st;
    }
    *out = dev;
    return UM_OK;
}
