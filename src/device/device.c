/* SPDX-License-Identifier: Apache-2.0 */
/* The checked wrappers between the library and a backend, the transfer ledger and the public
 * um_device functions. Every precondition of the device layer is checked here, once; backends
 * trust. Nothing on the path of a frame allocates. */
#include "device/backend.h"

#include "base/mem.h"
#include "base/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

size_t um_dtype_size(enum um_dtype dtype)
{
    switch (dtype) {
    case UM_F32: return 4;
    case UM_F16: return 2;
    case UM_BF16: return 2;
    case UM_I32: return 4;
    case UM_U8: return 1;
    case UM_DTYPES: break;
    }
    return 0;
}

const char *um_precision_name(enum um_dtype dtype)
{
    return dtype == UM_F16 ? "fp16" : dtype == UM_BF16 ? "bf16" : "fp32";
}

const char *um_stage_name(enum um_stage stage)
{
    switch (stage) {
    case UM_STAGE_SETUP: return "setup";
    case UM_STAGE_UPLOAD: return "upload";
    case UM_STAGE_DETECT: return "detect";
    case UM_STAGE_SEGMENT: return "segment";
    case UM_STAGE_PACKET: return "packet";
    case UM_STAGE_DEBUG: return "debug";
    case UM_STAGES: break;
    }
    return "unknown stage";
}

/* ---- ledger ---- */

struct um_booking {
    bool up;
    enum um_stage stage;
    uint64_t bytes;
    const char *reason;
};

struct um_ledger {
    uint64_t frame;
    um_transfers current, total;
    int limit_up, limit_down; /* per frame; negative = none */
    struct um_violation violation;
    uint64_t captures; /* ids given to captures */
    /* of um_upload_now() and um_download_now(), opened at first use */
    um_event *now[UM_QUEUES];
    um_hostbuf *bounce;
    char why[512]; /* text of the error that lost the device */
};

/* A copy of the frame: counted, then held against the limit. */
static void book_frame(struct um_ledger *l, const struct um_booking *b)
{
    um_transfers *both[2] = {&l->current, &l->total};
    for (int i = 0; i < 2; i++) {
        *(b->up ? &both[i]->up : &both[i]->down) += 1;
        *(b->up ? &both[i]->up_bytes : &both[i]->down_bytes) += b->bytes;
    }
    int limit = b->up ? l->limit_up : l->limit_down;
    uint32_t count = b->up ? l->current.up : l->current.down;
    if (limit < 0 || count <= (uint32_t)limit || l->violation.found)
        return;
    l->violation = (struct um_violation){.found = true,
                                         .frame = l->frame,
                                         .stage = b->stage,
                                         .direction = b->up ? "up" : "down",
                                         .reason = b->reason,
                                         .count = count,
                                         .limit = (uint32_t)limit};
}

static void book(um_device *dev, const struct um_booking *b)
{
    if (dev->caps.shared || b->stage == UM_STAGE_DEBUG)
        return;
    if (b->stage == UM_STAGE_SETUP) {
        dev->ledger->current.setup++;
        dev->ledger->total.setup++;
    } else {
        book_frame(dev->ledger, b);
    }
}

void um_ledger_frame(um_device *dev, uint64_t frame)
{
    struct um_ledger *l = dev->ledger;
    l->frame = frame;
    l->current = (um_transfers){.shared = dev->caps.shared};
}

void um_ledger_resume(um_device *dev, uint64_t frame, const um_transfers *sofar)
{
    dev->ledger->frame = frame;
    dev->ledger->current = *sofar;
}

void um_ledger_read(const um_device *dev, um_transfers *out)
{
    *out = dev->ledger->current;
    out->shared = dev->caps.shared;
}

void um_ledger_limit(um_device *dev, int up, int down)
{
    dev->ledger->limit_up = up;
    dev->ledger->limit_down = down;
    dev->ledger->violation.found = false; /* it may be another pipeline's */
}

const struct um_violation *um_ledger_violation(const um_device *dev)
{
    return dev->ledger->violation.found ? &dev->ledger->violation : NULL;
}

/* ---- checks ---- */

/* Every call into a backend passes its result through here: a lost device stays lost, a failed
 * capture stays failed. */
static um_status note(um_device *dev, um_status st)
{
    if (st == UM_EDEVICE && dev->lost == UM_OK)
        dev->lost = UM_EDEVICE;
    if (dev->lost && !dev->ledger->why[0])
        snprintf(dev->ledger->why, sizeof dev->ledger->why, "%s", um_last_error());
    if (st < 0 && dev->capturing && dev->capturing->status == UM_OK)
        dev->capturing->status = st;
    return st;
}

static um_status check_device(const char *fn, const um_device *dev)
{
    if (!dev)
        return um_fail(UM_EINVAL, "%s: no device", fn);
    if (dev->lost)
        return um_fail(UM_EDEVICE, "%s: device %s is lost (%s)", fn, dev->name, dev->ledger->why);
    return UM_OK;
}

static um_status check_idle(const char *fn, const um_device *dev)
{
    um_status st = check_device(fn, dev);
    if (st == UM_OK && dev->capturing)
        return um_fail(UM_EINVAL, "%s: not possible while a graph is being captured", fn);
    return st;
}

static um_status check_queue(const char *fn, const um_device *dev, enum um_queue q)
{
    um_status st = check_device(fn, dev);
    if (st == UM_OK && (unsigned)q >= UM_QUEUES)
        return um_fail(UM_EINVAL, "%s: queue %d, want 0..%d", fn, (int)q, UM_QUEUES - 1);
    return st;
}

/* Never off + n <= size: the sum can wrap. */
static um_status check_range(const char *fn, const char *what, const char *label, size_t size,
                             size_t off, size_t n)
{
    if (off > size || n > size - off)
        return um_fail(UM_EINVAL, "%s: bytes %zu..+%zu of %s \"%s\", which has %zu", fn, off, n,
                       what, label, size);
    return UM_OK;
}

static um_status check_buf(const char *fn, const um_device *dev, const um_buf *buf, size_t off,
                           size_t n)
{
    if (!buf)
        return um_fail(UM_EINVAL, "%s: no buffer", fn);
    if (buf->dev != dev)
        return um_fail(UM_EINVAL, "%s: buffer \"%s\" is of device %s, not %s", fn, buf->label,
                       buf->dev->name, dev->name);
    return check_range(fn, "buffer", buf->label, buf->size, off, n);
}

static um_status check_host(const char *fn, const um_device *dev, const um_hostbuf *buf, size_t off,
                            size_t n)
{
    if (!buf)
        return um_fail(UM_EINVAL, "%s: no host buffer", fn);
    if (buf->dev != dev)
        return um_fail(UM_EINVAL, "%s: host buffer is of device %s, not %s", fn, buf->dev->name,
                       dev->name);
    return check_range(fn, "host buffer", "pinned", buf->size, off, n);
}

static um_status check_event(const char *fn, const um_device *dev, const um_event *event)
{
    if (!event)
        return um_fail(UM_EINVAL, "%s: no event", fn);
    if (event->dev != dev)
        return um_fail(UM_EINVAL, "%s: event is of device %s, not %s", fn, event->dev->name,
                       dev->name);
    return UM_OK;
}

static um_status check_stage(const char *fn, enum um_stage stage, const char *reason)
{
    if ((unsigned)stage >= UM_STAGES)
        return um_fail(UM_EINVAL, "%s: stage %d, want 0..%d", fn, (int)stage, UM_STAGES - 1);
    if (!reason)
        return um_fail(UM_EINVAL, "%s: no reason given", fn);
    return UM_OK;
}

/* In a capture, a queue other than the main one takes part from its first wait for an event of the
 * capture. */
static um_status check_forked(const char *fn, const um_device *dev, enum um_queue q)
{
    if (dev->capturing && dev->capturing->before[q][UM_QUEUE_MAIN] == 0)
        return um_fail(UM_EINVAL,
                       "%s: in a capture queue %d must first wait for an event recorded in it", fn,
                       (int)q);
    return UM_OK;
}

static void count_captured(um_device *dev, enum um_queue q)
{
    if (dev->capturing)
        dev->capturing->before[q][q]++;
}

/* What a view covers must lie in the bytes that its operand declares. */
static um_status check_view(const struct um_step *step, int i)
{
    const struct um_operand *o = &step->operand[i];
    size_t elt = um_dtype_size(o->view.dtype);
    if (elt == 0 || o->view.h < 0 || o->view.w < 0 || o->view.c < 0 || o->view.ld < 0)
        return um_fail(
            UM_EINVAL, "um_run: step %s: operand %d: a view of dtype %d, %d x %d x %d, ld %td",
            step->name, i, (int)o->view.dtype, o->view.h, o->view.w, o->view.c, o->view.ld);
    uint64_t rows = (uint64_t)o->view.h * (uint64_t)o->view.w;
    if (rows == 0 || o->view.c == 0)
        return UM_OK;
    double bytes = ((double)(rows - 1) * (double)o->view.ld + o->view.c) * (double)elt;
    if (bytes > (double)o->size)
        return um_fail(
            UM_EINVAL,
            "um_run: step %s: operand %d: a view of %d x %d x %d, ld %td needs %.0f bytes, not %zu",
            step->name, i, o->view.h, o->view.w, o->view.c, o->view.ld, bytes, o->size);
    return UM_OK;
}

static um_status check_step(const um_device *dev, const struct um_step *step)
{
    if (!step || !step->name || !step->kernel)
        return um_fail(UM_EINVAL, "um_run: no step, or one without name or kernel");
    if (step->n < 0 || step->n > UM_OPERANDS)
        return um_fail(UM_EINVAL, "um_run: step %s: %d operands, want 0..%d", step->name, step->n,
                       UM_OPERANDS);
    um_status st = UM_OK;
    for (int i = 0; st == UM_OK && i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        if (!o->buf)
            continue;
        if (o->buf->dev != dev)
            return um_fail(UM_EINVAL, "um_run: step %s: operand %d is of device %s, not %s",
                           step->name, i, o->buf->dev->name, dev->name);
        if (o->offset > o->buf->size || o->size > o->buf->size - o->offset)
            return um_fail(
                UM_EINVAL,
                "um_run: step %s: operand %d is bytes %zu..+%zu of buffer \"%s\", which has %zu",
                step->name, i, o->offset, o->size, o->buf->label, o->buf->size);
        st = check_view(step, i);
    }
    return st;
}

/* ---- memory ---- */

um_status um_buf_open(um_buf **out, um_device *dev, size_t size, const char *label)
{
    *out = NULL;
    um_status st = check_idle("um_buf_open", dev);
    if (st == UM_OK && (size == 0 || !label))
        st =
            um_fail(UM_EINVAL, "um_buf_open: \"%s\": %zu bytes; want a label and at least one byte",
                    label ? label : "", size);
    if (st != UM_OK)
        return st;
    um_buf *buf = um_zalloc(sizeof *buf);
    if (!buf)
        return um_fail(UM_ENOMEM, "um_buf_open: \"%s\"", label);
    buf->dev = dev;
    buf->size = size;
    buf->label = label;
    st = note(dev, dev->fns->buf_create(dev, buf));
    if (st != UM_OK) {
        um_free(buf);
        return st;
    }
    *out = buf;
    return UM_OK;
}

void um_buf_close(um_buf **buf)
{
    if (!buf || !*buf)
        return;
    um_device *dev = (*buf)->dev;
    dev->fns->buf_destroy(dev, *buf);
    note(dev, UM_OK);
    um_free(*buf);
    *buf = NULL;
}

um_status um_hostbuf_open(um_hostbuf **out, um_device *dev, size_t size)
{
    *out = NULL;
    um_status st = check_idle("um_hostbuf_open", dev);
    if (st == UM_OK && size == 0)
        st = um_fail(UM_EINVAL, "um_hostbuf_open: 0 bytes");
    if (st != UM_OK)
        return st;
    um_hostbuf *buf = um_zalloc(sizeof *buf);
    if (!buf)
        return um_fail(UM_ENOMEM, "um_hostbuf_open");
    buf->dev = dev;
    buf->size = size;
    st = note(dev, dev->fns->host_create(dev, buf));
    if (st != UM_OK) {
        um_free(buf);
        return st;
    }
    *out = buf;
    return UM_OK;
}

void um_hostbuf_close(um_hostbuf **buf)
{
    if (!buf || !*buf)
        return;
    um_device *dev = (*buf)->dev;
    dev->fns->host_destroy(dev, *buf);
    note(dev, UM_OK);
    um_free(*buf);
    *buf = NULL;
}

/* ---- transfers ---- */

/* While capturing, a booking goes into the graph. Room is made first, so that no command is
 * captured without its booking. */
static um_status booking_room(um_device *dev)
{
    um_graph *g = dev->capturing;
    if (!g || g->bookings < g->room)
        return UM_OK;
    size_t room = g->room ? 2 * g->room : 8;
    struct um_booking *b = um_grow(g->booking, g->room * sizeof *b, room * sizeof *b);
    if (!b)
        return um_fail(UM_ENOMEM, "bookings of a graph");
    g->booking = b;
    g->room = room;
    return UM_OK;
}

static void book_or_capture(um_device *dev, const struct um_booking *b)
{
    if (dev->capturing)
        dev->capturing->booking[dev->capturing->bookings++] = *b;
    else
        book(dev, b);
}

um_status um_upload(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                    size_t src_off, size_t n, enum um_stage stage, const char *reason)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_buf(__func__, dev, dst, off, n);
    if (st == UM_OK)
        st = check_host(__func__, dev, src, src_off, n);
    if (st == UM_OK)
        st = check_stage(__func__, stage, reason);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return st;
    st = booking_room(dev);
    if (st == UM_OK)
        st = dev->fns->upload(dev, q, dst, off, src, src_off, n);
    if (st == UM_OK) {
        count_captured(dev, q);
        book_or_capture(dev, &(struct um_booking){true, stage, n, reason});
    }
    return note(dev, st);
}

um_status um_download(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off, um_buf *src,
                      size_t off, size_t n, enum um_stage stage, const char *reason)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_buf(__func__, dev, src, off, n);
    if (st == UM_OK)
        st = check_host(__func__, dev, dst, dst_off, n);
    if (st == UM_OK)
        st = check_stage(__func__, stage, reason);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return st;
    st = booking_room(dev);
    if (st == UM_OK)
        st = dev->fns->download(dev, q, dst, dst_off, src, off, n);
    if (st == UM_OK) {
        count_captured(dev, q);
        book_or_capture(dev, &(struct um_booking){false, stage, n, reason});
    }
    return note(dev, st);
}

um_status um_copy(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                  size_t src_off, size_t n)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_buf(__func__, dev, dst, dst_off, n);
    if (st == UM_OK)
        st = check_buf(__func__, dev, src, src_off, n);
    if (st == UM_OK && dst == src && dst_off < src_off + n && src_off < dst_off + n)
        st = um_fail(UM_EINVAL, "%s: source and destination overlap in buffer \"%s\"", __func__,
                     dst->label);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return st;
    count_captured(dev, q);
    return note(dev, dev->fns->copy(dev, q, dst, dst_off, src, src_off, n));
}

um_status um_fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n, uint8_t value)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_buf(__func__, dev, dst, off, n);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return st;
    count_captured(dev, q);
    return note(dev, dev->fns->fill(dev, q, dst, off, n, value));
}

um_status um_discard(um_device *dev, enum um_queue q, um_buf *buf, size_t off, size_t n)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_buf(__func__, dev, buf, off, n);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return st;
    count_captured(dev, q);
    return note(dev, dev->fns->discard(dev, q, buf, off, n));
}

um_status um_run(um_device *dev, enum um_queue q, const struct um_step *step)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_step(dev, step);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK)
        return st;
    count_captured(dev, q);
    return note(dev, dev->fns->run(dev, q, step));
}

um_status um_load_kernels(um_device *dev, const char *const *names, int n)
{
    um_status st = check_idle(__func__, dev);
    if (st == UM_OK && !dev->caps.launches)
        st = um_fail(UM_EINVAL, "%s: device %s computes on the host", __func__, dev->name);
    return st == UM_OK ? note(dev, dev->fns->load_kernels(dev, names, n)) : st;
}

/* ---- events ---- */

static um_status event_open(const char *fn, um_event **out, um_device *dev, bool timed)
{
    *out = NULL;
    um_status st = check_idle(fn, dev);
    if (st == UM_OK)
        st = note(dev, dev->fns->event_create(dev, timed, out));
    if (st == UM_OK) {
        (*out)->dev = dev;
        (*out)->timed = timed;
    }
    return st;
}

um_status um_event_open(um_event **out, um_device *dev)
{
    return event_open(__func__, out, dev, false);
}

um_status um_event_open_timed(um_event **out, um_device *dev)
{
    return event_open(__func__, out, dev, true);
}

void um_event_close(um_event **event, um_device *dev)
{
    if (!event || !*event)
        return;
    dev->fns->event_destroy(dev, *event);
    note(dev, UM_OK);
    *event = NULL;
}

um_status um_event_record(um_device *dev, enum um_queue q, um_event *event)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_event(__func__, dev, event);
    if (st == UM_OK)
        st = check_forked(__func__, dev, q);
    if (st != UM_OK)
        return st;
    um_graph *g = dev->capturing;
    event->capture = g ? g->id : 0;
    if (g)
        memcpy(event->before, g->before[q], sizeof event->before);
    return note(dev, dev->fns->event_record(dev, q, event));
}

um_status um_event_wait(um_device *dev, enum um_queue q, um_event *event)
{
    um_status st = check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = check_event(__func__, dev, event);
    if (st != UM_OK)
        return st;
    um_graph *g = dev->capturing;
    if (g && event->capture != g->id)
        return um_fail(UM_EINVAL, "%s: the event was not recorded in this capture", __func__);
    if (!g && !event->recorded)
        return um_fail(UM_EINVAL, "%s: the event was never recorded", __func__);
    for (int r = 0; g && r < UM_QUEUES; r++)
        if (g->before[q][r] < event->before[r])
            g->before[q][r] = event->before[r];
    return note(dev, dev->fns->event_wait(dev, q, event));
}

um_status um_event_sync(um_device *dev, um_event *event, enum um_stage stage, const char *reason)
{
    um_status st = check_idle(__func__, dev);
    if (st == UM_OK)
        st = check_event(__func__, dev, event);
    if (st == UM_OK)
        st = check_stage(__func__, stage, reason);
    if (st == UM_OK && !event->recorded)
        st = um_fail(UM_EINVAL, "%s: %s: the event was never recorded", __func__, reason);
    if (st == UM_OK && event->capture && !event->timed)
        st = um_fail(UM_EINVAL, "%s: %s: the event only orders the queues of a graph", __func__,
                     reason);
    if (st != UM_OK)
        return st;
    st = note(dev, dev->fns->event_sync(dev, event));
    if (st == UM_OK && !dev->caps.shared && stage != UM_STAGE_SETUP && stage != UM_STAGE_DEBUG) {
        dev->ledger->current.waits++;
        dev->ledger->total.waits++;
    }
    return st;
}

um_status um_event_elapsed(um_device *dev, um_event *from, um_event *to, uint64_t *ns)
{
    *ns = 0;
    um_status st = check_idle(__func__, dev);
    if (st == UM_OK)
        st = check_event(__func__, dev, from);
    if (st == UM_OK)
        st = check_event(__func__, dev, to);
    if (st == UM_OK && (!from->timed || !to->timed))
        st = um_fail(UM_EINVAL, "%s: the event was not opened to keep the time", __func__);
    if (st == UM_OK && (!from->recorded || !to->recorded))
        st = um_fail(UM_EINVAL, "%s: the event was never recorded", __func__);
    return st == UM_OK ? note(dev, dev->fns->event_elapsed(dev, from, to, ns)) : st;
}

/* ---- capture ---- */

um_status um_capture_begin(um_device *dev)
{
    um_status st = check_idle(__func__, dev);
    um_graph *g = NULL;
    if (st == UM_OK)
        st = note(dev, dev->fns->capture_begin(dev, &g));
    if (st != UM_OK)
        return st;
    g->dev = dev;
    g->id = ++dev->ledger->captures;
    g->before[UM_QUEUE_MAIN][UM_QUEUE_MAIN] = 1;
    dev->capturing = g;
    return UM_OK;
}

/* Every queue that took part must be joined: the end of the main queue is the end of the graph. */
static um_status check_joined(const um_graph *g)
{
    for (int q = 0; q < UM_QUEUES; q++)
        if (g->before[UM_QUEUE_MAIN][q] < g->before[q][q])
            return um_fail(
                UM_EINVAL,
                "um_capture_end: the main queue does not wait for the last commands of queue %d",
                q);
    return UM_OK;
}

um_status um_capture_end(um_device *dev, um_graph **out)
{
    *out = NULL;
    if (!dev || !dev->capturing)
        return um_fail(UM_EINVAL, "%s: no capture was begun", __func__);
    um_graph *g = dev->capturing;
    um_status st = g->status;
    if (st == UM_OK)
        st = check_device(__func__, dev);
    if (st == UM_OK)
        st = check_joined(g);
    um_status end = dev->fns->capture_end(dev, g);
    dev->capturing = NULL;
    if (st == UM_OK)
        st = note(dev, end);
    if (st == UM_OK)
        *out = g;
    else
        um_graph_close(&g, dev);
    return st;
}

um_status um_graph_launch(um_device *dev, um_graph *graph)
{
    um_status st = check_idle(__func__, dev);
    if (st != UM_OK)
        return st;
    if (!graph || graph->dev != dev)
        return um_fail(UM_EINVAL, "%s: no graph, or one of another device", __func__);
    st = note(dev, dev->fns->graph_launch(dev, graph));
    for (size_t i = 0; st == UM_OK && i < graph->bookings; i++)
        book(dev, &graph->booking[i]);
    return st;
}

void um_graph_close(um_graph **graph, um_device *dev)
{
    if (!graph || !*graph)
        return;
    um_free((*graph)->booking);
    dev->fns->graph_destroy(dev, *graph);
    note(dev, UM_OK);
    *graph = NULL;
}

/* ---- blocking copies ---- */

/* Make the main queue wait for everything submitted so far on the others. */
static um_status gather_queues(um_device *dev)
{
    um_event **now = dev->ledger->now;
    um_status st = UM_OK;
    for (int q = 0; st == UM_OK && q < UM_QUEUES; q++)
        if (!now[q])
            st = um_event_open(&now[q], dev);
    for (int q = 0; st == UM_OK && q < UM_QUEUES; q++) {
        if (q == UM_QUEUE_MAIN)
            continue;
        st = um_event_record(dev, (enum um_queue)q, now[q]);
        if (st == UM_OK)
            st = um_event_wait(dev, UM_QUEUE_MAIN, now[q]);
    }
    return st;
}

/* The host side of a blocking copy of n bytes: one buffer that grows and stays, so that a frame
 * that makes such copies allocates once; what is large has one of its own. */
static um_status bounce_open(um_hostbuf **host, um_device *dev, size_t n)
{
    enum { STAYS = 8 << 20 };
    um_hostbuf **kept = &dev->ledger->bounce;
    if (n > STAYS)
        return um_hostbuf_open(host, dev, n);
    if (*kept && (*kept)->size < n)
        um_hostbuf_close(kept);
    um_status st = *kept ? UM_OK : um_hostbuf_open(kept, dev, n);
    *host = *kept;
    return st;
}

static void bounce_close(um_hostbuf **host, const um_device *dev)
{
    if (*host != dev->ledger->bounce)
        um_hostbuf_close(host);
}

static um_status finish_now(um_device *dev, enum um_stage stage, const char *reason)
{
    um_event *done = dev->ledger->now[UM_QUEUE_MAIN];
    um_status st = um_event_record(dev, UM_QUEUE_MAIN, done);
    return st == UM_OK ? um_event_sync(dev, done, stage, reason) : st;
}

um_status um_upload_now(um_device *dev, um_buf *dst, size_t off, const void *src, size_t n,
                        enum um_stage stage, const char *reason)
{
    um_hostbuf *host = NULL;
    um_status st = check_idle(__func__, dev);
    if (st == UM_OK)
        st = check_buf(__func__, dev, dst, off, n);
    if (st == UM_OK && !src && n)
        st = um_fail(UM_EINVAL, "%s: no source", __func__);
    if (st != UM_OK || n == 0)
        return st;
    st = bounce_open(&host, dev, n);
    if (st == UM_OK) {
        memcpy(host->data, src, n);
        st = gather_queues(dev);
    }
    if (st == UM_OK)
        st = um_upload(dev, UM_QUEUE_MAIN, dst, off, host, 0, n, stage, reason);
    if (st == UM_OK)
        st = finish_now(dev, stage, reason);
    bounce_close(&host, dev);
    return st;
}

um_status um_download_now(um_device *dev, void *dst, um_buf *src, size_t off, size_t n,
                          enum um_stage stage, const char *reason)
{
    um_hostbuf *host = NULL;
    um_status st = check_idle(__func__, dev);
    if (st == UM_OK)
        st = check_buf(__func__, dev, src, off, n);
    if (st == UM_OK && !dst && n)
        st = um_fail(UM_EINVAL, "%s: no destination", __func__);
    if (st != UM_OK || n == 0)
        return st;
    st = bounce_open(&host, dev, n);
    if (st == UM_OK)
        st = gather_queues(dev);
    if (st == UM_OK)
        st = um_download(dev, UM_QUEUE_MAIN, host, 0, src, off, n, stage, reason);
    if (st == UM_OK)
        st = finish_now(dev, stage, reason);
    if (st == UM_OK)
        memcpy(dst, host->data, n);
    bounce_close(&host, dev);
    return st;
}

/* ---- public ---- */

void um_device_settings_init(um_device_settings *s, size_t struct_size)
{
    static const um_device_settings defaults = {
        .name = "auto", .guard_seed = 1, .precision = "auto"};
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

static bool is_cuda(const char *name)
{
    if (strncmp(name, "cuda:", 5) != 0)
        return false;
    size_t digits = strspn(name + 5, "0123456789");
    return digits > 0 && digits < 6 && name[5 + digits] == 0;
}

static um_status find_precision(const char *name, enum um_dtype *dtype)
{
    static const enum um_dtype all[] = {UM_F32, UM_F16, UM_BF16};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, um_precision_name(all[i])) == 0) {
            *dtype = all[i];
            return UM_OK;
        }
    if (strcmp(name, "auto") == 0)
        return UM_OK;
    return um_fail(UM_EINVAL, "precision \"%s\" is unknown: want auto, fp32, fp16 or bf16", name);
}

static um_status open_host(um_device **out, const um_device_settings *s,
                           um_status (*open)(um_device **, const um_device_settings *))
{
    enum um_dtype dtype = UM_F32;
    um_status st = find_precision(s->precision, &dtype);
    if (st == UM_OK && dtype != UM_F32)
        st = um_fail(UM_EUNSUPPORTED, "precision %s: not in this build on device %s, only fp32",
                     s->precision, strcmp(s->name, "auto") == 0 ? "cpu (no GPU works)" : s->name);
    return st == UM_OK ? open(out, s) : st;
}

static um_status open_cuda(um_device **out, const um_device_settings *s, int ordinal)
{
    enum um_dtype dtype = UM_F16;
    um_status st = find_precision(s->precision, &dtype);
    if (st == UM_OK)
        st = um_cuda_open(out, s, ordinal);
    if (st == UM_OK)
        (*out)->precision = dtype;
    return st;
}

/* auto: the first GPU that works, else the processor. */
static um_status open_best(um_device **out, const um_device_settings *s)
{
    for (int i = 0, n = um_cuda_count(); i < n; i++)
        if (open_cuda(out, s, i) == UM_OK)
            return UM_OK;
    return open_host(out, s, um_cpu_open);
}

static um_status open_backend(um_device **out, const um_device_settings *s)
{
    if (strcmp(s->name, "auto") == 0)
        return open_best(out, s);
    if (strcmp(s->name, "cpu") == 0)
        return open_host(out, s, um_cpu_open);
    if (strcmp(s->name, "guard") == 0)
        return open_host(out, s, um_guard_open);
    if (is_cuda(s->name))
        return open_cuda(out, s, atoi(s->name + 5));
    return um_fail(UM_EINVAL, "device \"%s\" is unknown: want auto, cpu, guard or cuda:N", s->name);
}

um_status um_device_open(um_device **out, const um_device_settings *settings)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_device_open: nowhere to put the device");
    *out = NULL;
    um_device_settings s;
    um_device_settings_default(&s);
    um_status known = settings ? um_record_in(&s, sizeof s, settings, "um_device_settings") : UM_OK;
    if (known != UM_OK)
        return known;
    if (!s.name)
        s.name = "auto";
    if (!s.precision)
        s.precision = "auto";
    if (s.threads < 0)
        return um_fail(UM_EINVAL, "um_device_open: %d threads, want 0 (all) or more", s.threads);
    struct um_ledger *ledger = um_zalloc(sizeof *ledger);
    if (!ledger)
        return um_fail(UM_ENOMEM, "um_device_open: ledger");
    ledger->limit_up = ledger->limit_down = -1;
    um_status st = open_backend(out, &s);
    if (st != UM_OK) {
        um_free(ledger);
        return st;
    }
    (*out)->ledger = ledger;
    return UM_OK;
}

void um_device_close(um_device **device)
{
    if (!device || !*device)
        return;
    um_device *dev = *device;
    struct um_ledger *ledger = dev->ledger;
    if (dev->capturing) {
        um_graph *g = NULL;
        um_capture_end(dev, &g);
        um_graph_close(&g, dev);
    }
    um_hostbuf_close(&ledger->bounce);
    for (int q = 0; q < UM_QUEUES; q++)
        um_event_close(&ledger->now[q], dev);
    dev->fns->close(dev);
    um_free(ledger);
    *device = NULL;
}

const char *um_device_name(const um_device *device)
{
    return device->name;
}

const char *um_device_precision(const um_device *device)
{
    return um_precision_name(device->precision);
}

int um_device_threads(const um_device *device)
{
    return device->pool ? um_pool_threads(device->pool) : 1;
}

const char *um_device_isa(const um_device *device)
{
    return device->isa ? device->isa : "not chosen yet";
}

void um_device_transfers(const um_device *device, um_transfers *out)
{
    *out = device->ledger->total;
    out->shared = device->caps.shared;
}

int um_device_gpus(void)
{
    return um_cuda_count();
}

um_status um_device_describe(const char *name, char *text, size_t size)
{
    if (!name || !text || !size)
        return um_fail(UM_EINVAL, "um_device_describe: %s",
                       name ? "nowhere to put the text" : "no name");
    text[0] = 0;
    if (is_cuda(name))
        return um_cuda_describe(atoi(name + 5), text, size);
    if (strcmp(name, "cpu") == 0)
        snprintf(text, size, "the processor, on the host's memory");
    else if (strcmp(name, "guard") == 0)
        snprintf(text, size, "for tests: the processor, on memory that pretends to be separate");
    else
        return um_fail(UM_EINVAL, "device \"%s\" is unknown: want cpu, guard or cuda:N", name);
    return UM_OK;
}
