/* SPDX-License-Identifier: Apache-2.0 */
#include "device/check.h"

um_status um_check_device(const char *fn, const um_device *dev)
{
    if (!dev)
        return um_fail(UM_EINVAL, "%s: no device", fn);
    if (dev->lost)
        return um_fail(UM_EDEVICE, "%s: device %s is lost (%s)", fn, dev->name, dev->why);
    return UM_OK;
}

um_status um_check_idle(const char *fn, const um_device *dev)
{
    um_status st = um_check_device(fn, dev);
    if (st == UM_OK && dev->capturing)
        return um_fail(UM_EINVAL, "%s: not possible while a graph is being captured", fn);
    return st;
}

um_status um_check_queue(const char *fn, const um_device *dev, enum um_queue q)
{
    um_status st = um_check_device(fn, dev);
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

um_status um_check_buf(const char *fn, const um_device *dev, const um_buf *buf, size_t off,
                       size_t n)
{
    if (!buf)
        return um_fail(UM_EINVAL, "%s: no buffer", fn);
    if (buf->dev != dev)
        return um_fail(UM_EINVAL, "%s: buffer \"%s\" is of device %s, not %s", fn, buf->label,
                       buf->dev->name, dev->name);
    return check_range(fn, "buffer", buf->label, buf->size, off, n);
}

um_status um_check_host(const char *fn, const um_device *dev, const um_hostbuf *buf, size_t off,
                        size_t n)
{
    if (!buf)
        return um_fail(UM_EINVAL, "%s: no host buffer", fn);
    if (buf->dev != dev)
        return um_fail(UM_EINVAL, "%s: host buffer is of device %s, not %s", fn, buf->dev->name,
                       dev->name);
    return check_range(fn, "host buffer", "pinned", buf->size, off, n);
}

um_status um_check_event(const char *fn, const um_device *dev, const um_event *event)
{
    if (!event)
        return um_fail(UM_EINVAL, "%s: no event", fn);
    if (event->dev != dev)
        return um_fail(UM_EINVAL, "%s: event is of device %s, not %s", fn, event->dev->name,
                       dev->name);
    return UM_OK;
}

um_status um_check_stage(const char *fn, enum um_stage stage, const char *reason)
{
    if ((unsigned)stage >= UM_STAGES)
        return um_fail(UM_EINVAL, "%s: stage %d, want 0..%d", fn, (int)stage, UM_STAGES - 1);
    if (!reason)
        return um_fail(UM_EINVAL, "%s: no reason given", fn);
    return UM_OK;
}

um_status um_check_forked(const char *fn, const um_device *dev, enum um_queue q)
{
    if (dev->capturing && dev->capturing->before[q][UM_QUEUE_MAIN] == 0)
        return um_fail(UM_EINVAL,
                       "%s: in a capture queue %d must first wait for an event recorded in it", fn,
                       (int)q);
    return UM_OK;
}

/* What a view covers must lie in the bytes that its operand declares. */
static um_status check_view(const struct um_step *step, int i)
{
    const struct um_operand *o = &step->operand[i];
    size_t elt = um_dtype_size(o->view.dtype);
    if (elt == 0 || o->view.h < 0 || o->view.w < 0 || o->view.c < 0 || o->view.ld < 0)
        return um_fail(
            UM_EINVAL, "um_step_run: step %s: operand %d: a view of dtype %d, %d x %d x %d, ld %td",
            step->name, i, (int)o->view.dtype, o->view.h, o->view.w, o->view.c, o->view.ld);
    uint64_t rows = (uint64_t)o->view.h * (uint64_t)o->view.w;
    if (rows == 0 || o->view.c == 0)
        return UM_OK;
    double bytes = ((double)(rows - 1) * (double)o->view.ld + o->view.c) * (double)elt;
    if (bytes > (double)o->size)
        return um_fail(UM_EINVAL,
                       "um_step_run: step %s: operand %d: a view of %d x %d x %d, ld %td needs "
                       "%.0f bytes, not %zu",
                       step->name, i, o->view.h, o->view.w, o->view.c, o->view.ld, bytes, o->size);
    return UM_OK;
}

um_status um_check_step(const um_device *dev, const struct um_step *step)
{
    if (!step || !step->name || !step->kernel)
        return um_fail(UM_EINVAL, "um_step_run: no step, or one without name or kernel");
    if (step->n < 0 || step->n > UM_OPERANDS)
        return um_fail(UM_EINVAL, "um_step_run: step %s: %d operands, want 0..%d", step->name,
                       step->n, UM_OPERANDS);
    um_status st = UM_OK;
    for (int i = 0; st == UM_OK && i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        if (!o->buf)
            continue;
        if (o->buf->dev != dev)
            return um_fail(UM_EINVAL, "um_step_run: step %s: operand %d is of device %s, not %s",
                           step->name, i, o->buf->dev->name, dev->name);
        if (o->offset > o->buf->size || o->size > o->buf->size - o->offset)
            return um_fail(UM_EINVAL,
                           "um_step_run: step %s: operand %d is bytes %zu..+%zu of buffer \"%s\", "
                           "which has %zu",
                           step->name, i, o->offset, o->size, o->buf->label, o->buf->size);
        st = check_view(step, i);
    }
    return st;
}
