/* SPDX-License-Identifier: Apache-2.0 */
/* The checked wrappers between the library and a backend: each locks the device, checks (check.c),
 * calls the backend, which trusts, and books (ledger.c). Nothing on the path of a frame allocates.
 */
#include "device/check.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* Every call into a backend passes its result through here: a lost device stays lost, a failed
 * capture stays failed. */
static um_status note(um_device *dev, um_status st)
{
    if (st == UM_EDEVICE && dev->lost == UM_OK)
        dev->lost = UM_EDEVICE;
    if (dev->lost && !dev->why[0])
        snprintf(dev->why, sizeof dev->why, "%s", um_last_error());
    if (st < 0 && dev->capturing && dev->capturing->status == UM_OK)
        dev->capturing->status = st;
    return st;
}

static void count_captured(um_device *dev, enum um_queue q)
{
    if (dev->capturing)
        dev->capturing->before[q][q]++;
}

static um_status unlocked(um_device *dev, um_status st)
{
    um_device_unlock(dev);
    return st;
}

/* ---- threads ---- */

void um_device_lock(um_device *dev)
{
    if (dev)
        pthread_mutex_lock(&dev->lock);
}

void um_device_unlock(um_device *dev)
{
    if (dev)
        pthread_mutex_unlock(&dev->lock);
}

/* ---- memory ---- */

um_status um_buf_open(um_buf **out, um_device *dev, size_t size, const char *label)
{
    *out = NULL;
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    if (st == UM_OK && (size == 0 || !label))
        st = um_fail(UM_EINVAL, "%s: \"%s\": %zu bytes; want a label and at least one byte",
                     __func__, label ? label : "", size);
    if (st != UM_OK)
        return unlocked(dev, st);
    um_buf *buf = um_zalloc(sizeof *buf);
    if (!buf)
        return unlocked(dev, um_fail(UM_ENOMEM, "%s: \"%s\"", __func__, label));
    buf->dev = dev;
    buf->size = size;
    buf->label = label;
    st = note(dev, dev->fns->buf_create(dev, buf));
    if (st != UM_OK) {
        um_free(buf);
        return unlocked(dev, st);
    }
    *out = buf;
    return unlocked(dev, UM_OK);
}

um_status um_buf_over(um_buf **out, um_device *dev, const void *data, size_t size,
                      const char *label)
{
    *out = NULL;
    if (!dev->caps.shared || !data || !size)
        return um_fail(UM_EINVAL, "%s: \"%s\": %zu bytes on device %s", __func__, label, size,
                       dev->name);
    um_buf *buf = um_zalloc(sizeof *buf);
    if (!buf)
        return um_fail(UM_ENOMEM, "%s: \"%s\"", __func__, label);
    *buf = (um_buf){.dev = dev,
                    .size = size,
                    .handle = (uintptr_t)data,
                    .priv = (void *)(uintptr_t)data,
                    .label = label,
                    .borrowed = true};
    *out = buf;
    return UM_OK;
}

void um_buf_close(um_buf **buf)
{
    if (!buf || !*buf)
        return;
    um_device *dev = (*buf)->dev;
    um_device_lock(dev);
    if (!(*buf)->borrowed)
        dev->fns->buf_destroy(dev, *buf);
    note(dev, UM_OK);
    um_device_unlock(dev);
    um_free(*buf);
    *buf = NULL;
}

uintptr_t um_buf_address(const um_buf *buf)
{
    return buf->dev->caps.shared ? (uintptr_t)buf->priv : buf->handle;
}

um_status um_hostbuf_open(um_hostbuf **out, um_device *dev, size_t size)
{
    *out = NULL;
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    if (st == UM_OK && size == 0)
        st = um_fail(UM_EINVAL, "%s: 0 bytes", __func__);
    if (st != UM_OK)
        return unlocked(dev, st);
    um_hostbuf *buf = um_zalloc(sizeof *buf);
    if (!buf)
        return unlocked(dev, um_fail(UM_ENOMEM, "%s: %zu bytes", __func__, size));
    buf->dev = dev;
    buf->size = size;
    st = note(dev, dev->fns->host_create(dev, buf));
    if (st != UM_OK) {
        um_free(buf);
        return unlocked(dev, st);
    }
    *out = buf;
    return unlocked(dev, UM_OK);
}

void um_hostbuf_close(um_hostbuf **buf)
{
    if (!buf || !*buf)
        return;
    um_device *dev = (*buf)->dev;
    um_device_lock(dev);
    dev->fns->host_destroy(dev, *buf);
    note(dev, UM_OK);
    um_device_unlock(dev);
    um_free(*buf);
    *buf = NULL;
}

/* ---- transfers ---- */

/* While capturing, a booking goes into the graph. Room is made first, so that no command is
 * captured without its booking. */
static um_status booking_room(um_device *dev)
{
    um_graph *g = dev->capturing;
    bool good = !g || um_make_room(&g->booking, &g->room, g->bookings, 1, sizeof *g->booking);
    return good ? UM_OK : um_fail(UM_ENOMEM, "bookings of a graph");
}

static void book_or_capture(um_device *dev, const struct um_booking *b)
{
    if (dev->capturing)
        dev->capturing->booking[dev->capturing->bookings++] = *b;
    else
        um_ledger_copy(dev, b);
}

static um_status transfer(const char *fn, um_device *dev, enum um_queue q, um_buf *buf, size_t off,
                          um_hostbuf *host, size_t host_off, const struct um_booking *b)
{
    um_device_lock(dev);
    um_status st = um_check_queue(fn, dev, q);
    if (st == UM_OK)
        st = um_check_buf(fn, dev, buf, off, b->bytes);
    if (st == UM_OK)
        st = um_check_host(fn, dev, host, host_off, b->bytes);
    if (st == UM_OK)
        st = um_check_stage(fn, b->stage, b->reason);
    if (st == UM_OK)
        st = um_check_forked(fn, dev, q);
    if (st != UM_OK || b->bytes == 0)
        return unlocked(dev, st);
    st = booking_room(dev);
    if (st == UM_OK)
        st = b->up ? dev->fns->upload(dev, q, buf, off, host, host_off, b->bytes)
                   : dev->fns->download(dev, q, host, host_off, buf, off, b->bytes);
    if (st == UM_OK) {
        count_captured(dev, q);
        book_or_capture(dev, b);
    }
    return unlocked(dev, note(dev, st));
}

um_status um_upload(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                    size_t src_off, size_t n, enum um_stage stage, const char *reason)
{
    return transfer(__func__, dev, q, dst, off, src, src_off,
                    &(struct um_booking){true, stage, n, reason});
}

um_status um_download(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off, um_buf *src,
                      size_t off, size_t n, enum um_stage stage, const char *reason)
{
    return transfer(__func__, dev, q, src, off, dst, dst_off,
                    &(struct um_booking){false, stage, n, reason});
}

um_status um_copy(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                  size_t src_off, size_t n)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_buf(__func__, dev, dst, dst_off, n);
    if (st == UM_OK)
        st = um_check_buf(__func__, dev, src, src_off, n);
    if (st == UM_OK && dst == src && dst_off < src_off + n && src_off < dst_off + n)
        st = um_fail(UM_EINVAL, "%s: source and destination overlap in buffer \"%s\"", __func__,
                     dst->label);
    if (st == UM_OK)
        st = um_check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return unlocked(dev, st);
    count_captured(dev, q);
    return unlocked(dev, note(dev, dev->fns->copy(dev, q, dst, dst_off, src, src_off, n)));
}

um_status um_copy_from(um_device *dev, enum um_queue q, um_buf *dst, size_t off, const void *src,
                       size_t n, void *stream)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_idle(__func__, dev);
    if (st == UM_OK)
        st = um_check_buf(__func__, dev, dst, off, n);
    if (st == UM_OK && !src && n)
        st = um_fail(UM_EINVAL, "%s: no address", __func__);
    if (st != UM_OK || n == 0)
        return unlocked(dev, st);
    return unlocked(dev,
                    note(dev, dev->fns->copy_from(dev, q, dst, off, (uintptr_t)src, n, stream)));
}

void *um_queue_stream(um_device *dev, enum um_queue q)
{
    return dev->caps.launches ? dev->fns->stream(dev, q) : NULL;
}

um_status um_queue_lead(um_device *dev, enum um_queue q, void *stream)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_idle(__func__, dev);
    if (st != UM_OK || !dev->caps.launches) /* a host device has no streams */
        return unlocked(dev, st);
    return unlocked(dev, note(dev, dev->fns->lead(dev, q, stream)));
}

um_status um_fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n, uint8_t value)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_buf(__func__, dev, dst, off, n);
    if (st == UM_OK)
        st = um_check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return unlocked(dev, st);
    count_captured(dev, q);
    return unlocked(dev, note(dev, dev->fns->fill(dev, q, dst, off, n, value)));
}

um_status um_discard(um_device *dev, enum um_queue q, um_buf *buf, size_t off, size_t n)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_buf(__func__, dev, buf, off, n);
    if (st == UM_OK)
        st = um_check_forked(__func__, dev, q);
    if (st != UM_OK || n == 0)
        return unlocked(dev, st);
    count_captured(dev, q);
    return unlocked(dev, note(dev, dev->fns->discard(dev, q, buf, off, n)));
}

um_status um_step_run(um_device *dev, enum um_queue q, const struct um_step *step)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_step(dev, step);
    if (st == UM_OK)
        st = um_check_forked(__func__, dev, q);
    if (st != UM_OK)
        return unlocked(dev, st);
    count_captured(dev, q);
    return unlocked(dev, note(dev, dev->fns->run(dev, q, step)));
}

um_status um_load_kernels(um_device *dev, const char *const *names, int n)
{
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    if (st == UM_OK && !dev->caps.launches)
        st = um_fail(UM_EINVAL, "%s: device %s computes on the host", __func__, dev->name);
    return unlocked(dev, st == UM_OK ? note(dev, dev->fns->load_kernels(dev, names, n)) : st);
}

/* ---- events ---- */

static um_status event_open(const char *fn, um_event **out, um_device *dev, bool timed)
{
    *out = NULL;
    um_device_lock(dev);
    um_status st = um_check_idle(fn, dev);
    if (st == UM_OK)
        st = note(dev, dev->fns->event_create(dev, timed, out));
    if (st == UM_OK) {
        (*out)->dev = dev;
        (*out)->timed = timed;
    }
    return unlocked(dev, st);
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
    um_device_lock(dev);
    dev->fns->event_destroy(dev, *event);
    note(dev, UM_OK);
    um_device_unlock(dev);
    *event = NULL;
}

um_status um_event_record(um_device *dev, enum um_queue q, um_event *event)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_event(__func__, dev, event);
    if (st == UM_OK)
        st = um_check_forked(__func__, dev, q);
    if (st != UM_OK)
        return unlocked(dev, st);
    um_graph *g = dev->capturing;
    event->capture = g ? g->id : 0;
    if (g)
        memcpy(event->before, g->before[q], sizeof event->before);
    return unlocked(dev, note(dev, dev->fns->event_record(dev, q, event)));
}

um_status um_event_wait(um_device *dev, enum um_queue q, um_event *event)
{
    um_device_lock(dev);
    um_status st = um_check_queue(__func__, dev, q);
    if (st == UM_OK)
        st = um_check_event(__func__, dev, event);
    if (st != UM_OK)
        return unlocked(dev, st);
    um_graph *g = dev->capturing;
    if (g && event->capture != g->id)
        return unlocked(
            dev, um_fail(UM_EINVAL, "%s: the event was not recorded in this capture", __func__));
    if (!g && !event->recorded)
        return unlocked(dev, um_fail(UM_EINVAL, "%s: the event was never recorded", __func__));
    for (int r = 0; g && r < UM_QUEUES; r++)
        if (g->before[q][r] < event->before[r])
            g->before[q][r] = event->before[r];
    return unlocked(dev, note(dev, dev->fns->event_wait(dev, q, event)));
}

um_status um_event_sync(um_device *dev, um_event *event, enum um_stage stage, const char *reason)
{
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    if (st == UM_OK)
        st = um_check_event(__func__, dev, event);
    if (st == UM_OK)
        st = um_check_stage(__func__, stage, reason);
    if (st == UM_OK && !event->recorded)
        st = um_fail(UM_EINVAL, "%s: %s: the event was never recorded", __func__, reason);
    if (st == UM_OK && event->capture && !event->timed)
        st = um_fail(UM_EINVAL, "%s: %s: the event only orders the queues of a graph", __func__,
                     reason);
    if (st != UM_OK)
        return unlocked(dev, st);
    /* What runs on a GPU needs nobody's hand: others may submit meanwhile. */
    bool aside = dev->caps.launches;
    if (aside)
        um_device_unlock(dev);
    st = dev->fns->event_sync(dev, event);
    if (aside)
        um_device_lock(dev);
    st = note(dev, st);
    if (st == UM_OK)
        um_ledger_wait(dev, stage);
    return unlocked(dev, st);
}

um_status um_event_elapsed(um_device *dev, um_event *from, um_event *to, uint64_t *ns)
{
    *ns = 0;
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    if (st == UM_OK)
        st = um_check_event(__func__, dev, from);
    if (st == UM_OK)
        st = um_check_event(__func__, dev, to);
    if (st == UM_OK && (!from->timed || !to->timed))
        st = um_fail(UM_EINVAL, "%s: the event was not opened to keep the time", __func__);
    if (st == UM_OK && (!from->recorded || !to->recorded))
        st = um_fail(UM_EINVAL, "%s: the event was never recorded", __func__);
    return unlocked(dev, st == UM_OK ? note(dev, dev->fns->event_elapsed(dev, from, to, ns)) : st);
}

/* ---- capture ---- */

um_status um_capture_begin(um_device *dev)
{
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    um_graph *g = NULL;
    if (st == UM_OK)
        st = note(dev, dev->fns->capture_begin(dev, &g));
    if (st != UM_OK)
        return unlocked(dev, st);
    g->dev = dev;
    g->id = ++dev->captures;
    g->before[UM_QUEUE_MAIN][UM_QUEUE_MAIN] = 1;
    dev->capturing = g;
    return UM_OK; /* locked until the end: what others submit must not fall into the graph */
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
    um_device_lock(dev);
    if (!dev || !dev->capturing)
        return unlocked(dev, um_fail(UM_EINVAL, "%s: no capture was begun", __func__));
    um_graph *g = dev->capturing;
    um_status st = g->status;
    if (st == UM_OK)
        st = um_check_device(__func__, dev);
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
    um_device_unlock(dev); /* of the begin */
    return unlocked(dev, st);
}

um_status um_graph_launch(um_device *dev, um_graph *graph)
{
    um_device_lock(dev);
    um_status st = um_check_idle(__func__, dev);
    if (st != UM_OK)
        return unlocked(dev, st);
    if (!graph || graph->dev != dev)
        return unlocked(dev,
                        um_fail(UM_EINVAL, "%s: no graph, or one of another device", __func__));
    bool parallel = dev->caps.parallel; /* no capture is open, and none can take these commands */
    if (parallel)
        um_device_unlock(dev);
    st = dev->fns->graph_launch(dev, graph);
    if (parallel)
        um_device_lock(dev);
    st = note(dev, st);
    for (size_t i = 0; st == UM_OK && i < graph->bookings; i++)
        um_ledger_copy(dev, &graph->booking[i]);
    return unlocked(dev, st);
}

void um_graph_close(um_graph **graph, um_device *dev)
{
    if (!graph || !*graph)
        return;
    um_device_lock(dev);
    um_free((*graph)->booking);
    dev->fns->graph_destroy(dev, *graph);
    note(dev, UM_OK);
    um_device_unlock(dev);
    *graph = NULL;
}

/* ---- blocking copies ---- */

/* Make the main queue wait for everything submitted so far on the others. */
static um_status gather_queues(um_device *dev)
{
    um_event **now = dev->now;
    um_status st = UM_OK;
    for (int q = 0; st == UM_OK && q < UM_QUEUES; q++) {
        if (!now[q])
            st = um_event_open(&now[q], dev);
        if (st == UM_OK && q != UM_QUEUE_MAIN)
            st = um_event_record(dev, (enum um_queue)q, now[q]);
        if (st == UM_OK && q != UM_QUEUE_MAIN)
            st = um_event_wait(dev, UM_QUEUE_MAIN, now[q]);
    }
    return st;
}

/* The host side of a blocking copy of n bytes: one buffer that grows and stays, so that a frame
 * that makes such copies allocates once; what is large has one of its own. */
static um_status bounce_open(um_hostbuf **host, um_device *dev, size_t n)
{
    enum { STAYS = 8 << 20 };
    um_hostbuf **kept = &dev->bounce;
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
    if (*host != dev->bounce)
        um_hostbuf_close(host);
}

static um_status finish_now(um_device *dev, enum um_stage stage, const char *reason)
{
    um_event *done = dev->now[UM_QUEUE_MAIN];
    um_status st = um_event_record(dev, UM_QUEUE_MAIN, done);
    return st == UM_OK ? um_event_sync(dev, done, stage, reason) : st;
}

/* Up from `from`, or down to `to`. */
static um_status copy_now(const char *fn, um_device *dev, um_buf *buf, size_t off, const void *from,
                          void *to, size_t n, enum um_stage stage, const char *reason)
{
    um_hostbuf *host = NULL;
    um_device_lock(dev);
    um_status st = um_check_idle(fn, dev);
    if (st == UM_OK)
        st = um_check_buf(fn, dev, buf, off, n);
    if (st == UM_OK && !from && !to && n)
        st = um_fail(UM_EINVAL, "%s: no address", fn);
    if (st != UM_OK || n == 0)
        return unlocked(dev, st);
    st = bounce_open(&host, dev, n);
    if (st == UM_OK && from)
        memcpy(host->data, from, n);
    if (st == UM_OK)
        st = gather_queues(dev);
    if (st == UM_OK)
        st = from ? um_upload(dev, UM_QUEUE_MAIN, buf, off, host, 0, n, stage, reason)
                  : um_download(dev, UM_QUEUE_MAIN, host, 0, buf, off, n, stage, reason);
    if (st == UM_OK)
        st = finish_now(dev, stage, reason);
    if (st == UM_OK && to)
        memcpy(to, host->data, n);
    bounce_close(&host, dev);
    return unlocked(dev, st);
}

um_status um_upload_now(um_device *dev, um_buf *dst, size_t off, const void *src, size_t n,
                        enum um_stage stage, const char *reason)
{
    return copy_now(__func__, dev, dst, off, src, NULL, n, stage, reason);
}

um_status um_download_now(um_device *dev, void *dst, um_buf *src, size_t off, size_t n,
                          enum um_stage stage, const char *reason)
{
    return copy_now(__func__, dev, src, off, NULL, dst, n, stage, reason);
}
