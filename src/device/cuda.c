/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA GPUs through the driver API.
 *
 *   Order    A queue is a stream. Outside a capture an event is a driver's event; inside, a record
 *            and a wait are edges only, and an event that keeps the time is a node besides.
 *   Graphs   A capture is the driver's, on the main stream. Every graph owns an event that is
 *            recorded behind each launch; whoever waits for an event recorded in the graph waits
 *            for that one.
 *   Errors   What the driver refuses is an error of the call; what it reports about work already
 *            submitted loses the device. A lost device never calls the driver again, since such
 *            calls may hang: closing frees host memory only. */
#include "device/cuda_driver.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "device/backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A wait polls this long before it sleeps, so that frames of a few milliseconds end without a
 * sleep: waking up takes 59 us on a machine with an H200, polling 7 (gpu_probe). */
enum { SPIN_NS = 5000000 };

struct kernel {
    const char *name;
    um_cu_function function;
    size_t size; /* of its arguments; 0 if the driver cannot tell */
};

struct cuda {
    um_device base;
    struct um_cuda_driver cu;
    um_cu_device device;
    um_cu_context context;
    um_cu_stream stream[UM_QUEUES];
    um_cu_event foreign; /* between a queue and a stream of the caller; or NULL */
    um_cu_event ahead;   /* what graphs of a caller wait for; or NULL */
    um_cu_event join;    /* of the side queue into the main one, at the end of a capture */
    const struct um_cuda_image *image;
    um_cu_module *module;
    int modules;
    struct kernel *kernel; /* open addressing; room is a power of two, at least half is empty */
    size_t kernels, room;
    int shared_max; /* bytes of shared memory that a block may have */
    char isa[16];
};

struct cuda_graph {
    um_graph base;
    um_cu_graph_exec exec;
    um_cu_event done;
    struct cuda_event **event; /* recorded in it */
    size_t events, room;
};

struct cuda_event {
    um_event base;
    um_cu_event event, order; /* outside and inside a capture; `event` keeps the time in both */
    const struct cuda_graph *graph; /* the last record was in a launch of it */
};

/* ---- errors ---- */

/* Codes that say that a call was wrong or could not be served. Every other one is about the device:
 * an earlier command failed, its memory, bus or server did. */
static um_status status_of(um_cu_result r)
{
    switch (r) {
    case UM_CU_ERROR_OUT_OF_MEMORY: return UM_ENOMEM;
    case UM_CU_ERROR_NO_BINARY_FOR_GPU:
    case UM_CU_ERROR_INVALID_PTX:
    case UM_CU_ERROR_JIT_COMPILER_NOT_FOUND:
    case UM_CU_ERROR_JIT_COMPILATION_DISABLED:
    case UM_CU_ERROR_UNSUPPORTED_PTX_VERSION: return UM_EUNSUPPORTED;
    case UM_CU_ERROR_INVALID_VALUE:
    case UM_CU_ERROR_INVALID_CONTEXT:
    case UM_CU_ERROR_INVALID_HANDLE:
    case UM_CU_ERROR_ILLEGAL_STATE:
    case UM_CU_ERROR_NOT_FOUND:
    case UM_CU_ERROR_NOT_READY:
    case UM_CU_ERROR_LAUNCH_OUT_OF_RESOURCES:
    case UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED:
    case UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED:
    case UM_CU_ERROR_STREAM_CAPTURE_MERGE:
    case UM_CU_ERROR_STREAM_CAPTURE_UNMATCHED:
    case UM_CU_ERROR_STREAM_CAPTURE_UNJOINED:
    case UM_CU_ERROR_STREAM_CAPTURE_ISOLATION:
    case UM_CU_ERROR_STREAM_CAPTURE_IMPLICIT:
    case UM_CU_ERROR_CAPTURED_EVENT:
    case UM_CU_ERROR_STREAM_CAPTURE_WRONG_THREAD: return UM_EINVAL;
    default: return UM_EDEVICE;
    }
}

/* The status of a driver call. The text names the call, the error, and what the call was for. */
static um_status UM_PRINTF(4, 5)
    check(struct cuda *c, um_cu_result r, const char *call, const char *subject, ...)
{
    if (r == 0)
        return UM_OK;
    char what[256];
    va_list ap;
    va_start(ap, subject);
    vsnprintf(what, sizeof what, subject, ap);
    va_end(ap);
    const char *name = NULL, *text = NULL, *more = c->cu.error ? c->cu.error() : "";
    c->cu.cuGetErrorName(r, &name);
    c->cu.cuGetErrorString(r, &text);
    um_status st = status_of(r);
    if (st == UM_EDEVICE)
        c->base.lost = UM_EDEVICE;
    return um_fail(st, "device %s: %s: %s: error %u, %s (%s)%s%s", c->base.name, what, call, r,
                   name ? name : "unknown", text ? text : "no text", *more ? ": " : "", more);
}

/* The same for a call that waits: work that fails does so for no fault of the call. */
static um_status check_wait(struct cuda *c, um_cu_result r, const char *call)
{
    um_status st = check(c, r, call, "waiting");
    if (st == UM_ENOMEM || st == UM_EUNSUPPORTED || r == UM_CU_ERROR_LAUNCH_OUT_OF_RESOURCES)
        c->base.lost = st = UM_EDEVICE;
    return st;
}

/* ---- context ---- */

/* Every call works in the device's primary context, and leaves the caller's current again. A thread
 * that had none keeps ours, so that it is set once. A failure shows in the call that follows.
 *
 * Meanwhile captures of other threads are none of this thread's business: by default a wait or an
 * allocation, whatever it is for, is refused while another thread captures in mode GLOBAL, as
 * PyTorch does, and ends that capture. */
static _Thread_local um_cu_context outer; /* the caller's, during a call */
static _Thread_local unsigned outer_mode; /* likewise */
static _Thread_local um_cu_context kept;  /* this thread had none and got it */

static void set_mode(struct cuda *c, unsigned mode)
{
    outer_mode = mode;
    c->cu.cuThreadExchangeStreamCaptureMode(&outer_mode);
}

static struct cuda *enter(um_device *dev)
{
    struct cuda *c = (struct cuda *)dev;
    set_mode(c, UM_CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    if (outer_mode == UM_CU_STREAM_CAPTURE_MODE_RELAXED) { /* what the caller allows himself */
        set_mode(c, outer_mode);
        outer_mode = UM_CU_STREAM_CAPTURE_MODE_RELAXED;
    }
    outer = NULL;
    c->cu.cuCtxGetCurrent(&outer);
    if (!outer)
        kept = c->context;
    if (outer != c->context)
        c->cu.cuCtxSetCurrent(c->context);
    return c;
}

static um_status leave(struct cuda *c, um_status st)
{
    set_mode(c, outer_mode);
    if (outer && outer != c->context)
        c->cu.cuCtxSetCurrent(outer);
    return st;
}

/* Enter and wait for all work, before something that it may use goes away. False: the device is
 * lost, there is nothing to destroy and leave. */
static bool enter_idle(um_device *dev)
{
    if (dev->lost)
        return false;
    struct cuda *c = enter(dev);
    um_status st = UM_OK;
    for (int q = 0; st == UM_OK && q < UM_QUEUES; q++)
        if (c->stream[q])
            st = check_wait(c, c->cu.cuStreamSynchronize(c->stream[q]), "cuStreamSynchronize");
    if (dev->lost)
        leave(c, st);
    return !dev->lost;
}

/* ---- memory ---- */

static um_status buf_create(um_device *dev, um_buf *buf)
{
    struct cuda *c = enter(dev);
    um_cu_ptr memory = 0;
    um_status st = check(c, c->cu.cuMemAlloc(&memory, buf->size), "cuMemAlloc",
                         "buffer \"%s\" of %zu bytes", buf->label, buf->size);
    buf->handle = (uintptr_t)memory;
    return leave(c, st);
}

static void buf_destroy(um_device *dev, um_buf *buf)
{
    if (!enter_idle(dev))
        return;
    struct cuda *c = (struct cuda *)dev;
    leave(c, check(c, c->cu.cuMemFree(buf->handle), "cuMemFree", "buffer \"%s\" of %zu bytes",
                   buf->label, buf->size));
}

static um_status host_create(um_device *dev, um_hostbuf *buf)
{
    struct cuda *c = enter(dev);
    return leave(c, check(c, c->cu.cuMemHostAlloc(&buf->data, buf->size, 0), "cuMemHostAlloc",
                          "pinned host memory of %zu bytes", buf->size));
}

static void host_destroy(um_device *dev, um_hostbuf *buf)
{
    if (!enter_idle(dev))
        return;
    struct cuda *c = (struct cuda *)dev;
    leave(c, check(c, c->cu.cuMemFreeHost(buf->data), "cuMemFreeHost",
                   "pinned host memory of %zu bytes", buf->size));
}

/* ---- transfers ---- */

static um_status upload(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                        size_t src_off, size_t n)
{
    struct cuda *c = enter(dev);
    um_cu_result r = c->cu.cuMemcpyHtoDAsync(dst->handle + off, (const char *)src->data + src_off,
                                             n, c->stream[q]);
    return leave(c, check(c, r, "cuMemcpyHtoDAsync", "%zu bytes to buffer \"%s\"", n, dst->label));
}

static um_status download(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off,
                          um_buf *src, size_t off, size_t n)
{
    struct cuda *c = enter(dev);
    um_cu_result r =
        c->cu.cuMemcpyDtoHAsync((char *)dst->data + dst_off, src->handle + off, n, c->stream[q]);
    return leave(c,
                 check(c, r, "cuMemcpyDtoHAsync", "%zu bytes from buffer \"%s\"", n, src->label));
}

static um_status copy(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                      size_t src_off, size_t n)
{
    struct cuda *c = enter(dev);
    um_cu_result r =
        c->cu.cuMemcpyDtoDAsync(dst->handle + dst_off, src->handle + src_off, n, c->stream[q]);
    return leave(c, check(c, r, "cuMemcpyDtoDAsync", "%zu bytes from buffer \"%s\" to \"%s\"", n,
                          src->label, dst->label));
}

/* `to` continues after what `from` has been given so far; either may be the caller's. */
static um_status follow(struct cuda *c, um_cu_stream from, um_cu_stream to)
{
    um_status st = UM_OK;
    if (!c->foreign)
        st = check(c, c->cu.cuEventCreate(&c->foreign, UM_CU_EVENT_DISABLE_TIMING), "cuEventCreate",
                   "the caller's stream");
    if (st == UM_OK)
        st =
            check(c, c->cu.cuEventRecord(c->foreign, from), "cuEventRecord", "the caller's stream");
    return st == UM_OK ? check(c, c->cu.cuStreamWaitEvent(to, c->foreign, 0), "cuStreamWaitEvent",
                               "the caller's stream")
                       : st;
}

static um_status is_capturing(struct cuda *c, um_cu_stream stream, unsigned *capturing)
{
    return check(c, c->cu.cuStreamIsCapturing(stream, capturing), "cuStreamIsCapturing",
                 "the caller's stream");
}

static um_status copy_from(um_device *dev, enum um_queue q, um_buf *dst, size_t off, uintptr_t src,
                           size_t n, void *stream)
{
    struct cuda *c = enter(dev);
    unsigned capturing = 0;
    um_status st = stream ? is_capturing(c, stream, &capturing) : UM_OK;
    if (st == UM_OK && capturing) /* it would take our queue into its graph */
        st = um_fail(UM_EINVAL,
                     "device %s: buffer \"%s\": the caller's stream is being captured, so what it "
                     "produces is not there yet",
                     dev->name, dst->label);
    if (st == UM_OK && stream)
        st = follow(c, stream, c->stream[q]);
    if (st == UM_OK)
        st = check(c, c->cu.cuMemcpyDtoDAsync(dst->handle + off, src, n, c->stream[q]),
                   "cuMemcpyDtoDAsync", "%zu bytes at %#zx to buffer \"%s\"", n, (size_t)src,
                   dst->label);
    if (st == UM_OK && stream)
        st = follow(c, c->stream[q], stream);
    return leave(c, st);
}

static void *stream_of(um_device *dev, enum um_queue q)
{
    return ((struct cuda *)dev)->stream[q];
}

/* A caller who captures his stream gets a graph that waits, at each launch, for what the queue had
 * been given by then. */
static um_status lead(um_device *dev, enum um_queue q, void *stream)
{
    struct cuda *c = enter(dev);
    unsigned capturing = 0;
    um_status st = is_capturing(c, stream, &capturing);
    if (st != UM_OK || capturing != UM_CU_STREAM_CAPTURE_STATUS_ACTIVE)
        return leave(c, st == UM_OK ? follow(c, c->stream[q], stream) : st);
    if (!c->ahead)
        st = check(c, c->cu.cuEventCreate(&c->ahead, UM_CU_EVENT_DISABLE_TIMING), "cuEventCreate",
                   "the caller's graph");
    if (st == UM_OK)
        st = check(c, c->cu.cuEventRecord(c->ahead, c->stream[q]), "cuEventRecord",
                   "the caller's graph");
    if (st == UM_OK)
        st = check(c, c->cu.cuStreamWaitEvent(stream, c->ahead, UM_CU_EVENT_WAIT_EXTERNAL),
                   "cuStreamWaitEvent", "the caller's graph");
    return leave(c, st);
}

static um_status fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n,
                      uint8_t value)
{
    struct cuda *c = enter(dev);
    um_cu_result r = c->cu.cuMemsetD8Async(dst->handle + off, value, n, c->stream[q]);
    return leave(c, check(c, r, "cuMemsetD8Async", "%zu bytes of buffer \"%s\"", n, dst->label));
}

/* A driver has no such command; the stand-in poisons the memory. */
static um_status discard(um_device *dev, enum um_queue q, um_buf *buf, size_t off, size_t n)
{
    if (!((struct cuda *)dev)->cu.discard)
        return UM_OK;
    struct cuda *c = enter(dev);
    um_cu_result r = c->cu.discard(buf->handle + off, n, c->stream[q]);
    return leave(c, check(c, r, "um_standin_discard", "%zu bytes of buffer \"%s\"", n, buf->label));
}

/* ---- kernels ---- */

/* FNV-1a: Fowler, Noll, Vo. Where the name is, or the empty place where it belongs. */
static struct kernel *place_of(const struct cuda *c, const char *name)
{
    uint32_t h = 2166136261u;
    for (const char *p = name; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    size_t i = h & (c->room - 1);
    while (c->kernel[i].name && strcmp(c->kernel[i].name, name) != 0)
        i = (i + 1) & (c->room - 1);
    return &c->kernel[i];
}

static um_status make_room(struct cuda *c, size_t more)
{
    size_t room = c->room ? c->room : 64;
    while (room < 2 * (c->kernels + more))
        room *= 2;
    if (room == c->room)
        return UM_OK;
    struct kernel *old = c->kernel;
    size_t old_room = c->room;
    c->kernel = um_array(room, sizeof *c->kernel);
    if (!c->kernel) {
        c->kernel = old;
        return um_fail(UM_ENOMEM, "device %s: table of %zu kernels", c->base.name, room);
    }
    c->room = room;
    for (size_t i = 0; i < old_room; i++)
        if (old[i].name)
            *place_of(c, old[i].name) = old[i];
    um_free(old);
    return UM_OK;
}

/* The module that holds a kernel, or NULL. The images know: to ask the driver in vain is an error
 * to tools that watch it. */
static um_cu_module module_of(const struct cuda *c, const char *name)
{
    for (int i = 0; i < c->modules; i++)
        for (const char *const *k = c->image[i].kernels; *k; k++)
            if (strcmp(*k, name) == 0)
                return c->module[i];
    return NULL;
}

/* Loading happens at first use otherwise, which may be a frame or a capture. */
static um_status load_kernel(struct cuda *c, const char *name)
{
    struct kernel k = {.name = name};
    um_cu_module module = module_of(c, name);
    if (!module)
        return um_fail(UM_EUNSUPPORTED, "device %s: kernel \"%s\" is not in this build",
                       c->base.name, name);
    um_status st = check(c, c->cu.cuModuleGetFunction(&k.function, module, name),
                         "cuModuleGetFunction", "kernel \"%s\"", name);
    if (st == UM_OK && c->cu.cuFuncLoad)
        st = check(c, c->cu.cuFuncLoad(k.function), "cuFuncLoad", "kernel \"%s\"", name);
    int fixed = 0; /* reading an attribute loads too */
    if (st == UM_OK)
        st = check(
            c, c->cu.cuFuncGetAttribute(&fixed, UM_CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, k.function),
            "cuFuncGetAttribute", "kernel \"%s\"", name);
    if (st == UM_OK)
        st = check(c,
                   c->cu.cuFuncSetAttribute(k.function,
                                            UM_CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                            c->shared_max - fixed),
                   "cuFuncSetAttribute", "kernel \"%s\"", name);
    size_t offset = 0;
    if (st == UM_OK && c->cu.cuFuncGetParamInfo)
        st = check(c, c->cu.cuFuncGetParamInfo(k.function, 0, &offset, &k.size),
                   "cuFuncGetParamInfo", "kernel \"%s\"", name);
    if (st == UM_OK) {
        *place_of(c, name) = k;
        c->kernels++;
    }
    return st;
}

/* The names are borrowed until the device closes. */
static um_status load_kernels(um_device *dev, const char *const *names, int n)
{
    struct cuda *c = enter(dev);
    um_status st = make_room(c, (size_t)n);
    for (int i = 0; st == UM_OK && i < n; i++)
        if (!place_of(c, names[i])->name)
            st = load_kernel(c, names[i]);
    return leave(c, st);
}

struct launcher {
    struct um_stream base;
    struct cuda *c;
    um_cu_stream stream;
    const char *step;
};

static void launch(struct um_stream *stream, const struct um_launch *l)
{
    struct launcher *s = (struct launcher *)stream;
    struct cuda *c = s->c;
    if (s->base.status != UM_OK)
        return;
    const struct kernel *k = c->room ? place_of(c, l->kernel) : NULL;
    if (!k || !k->name) {
        s->base.status = um_fail(UM_EINVAL, "device %s: step \"%s\": kernel \"%s\" was not loaded",
                                 c->base.name, s->step, l->kernel);
        return;
    }
    if (k->size && k->size != l->size) {
        s->base.status =
            um_fail(UM_EINVAL, "device %s: step \"%s\": kernel \"%s\" takes %zu bytes, not %zu",
                    c->base.name, s->step, l->kernel, k->size, l->size);
        return;
    }
    void *parameters[] = {(void *)l->args}; /* read, not written */
    um_cu_result r = c->cu.cuLaunchKernel(k->function, l->grid[0], l->grid[1], l->grid[2],
                                          l->threads, 1, 1, l->shared, s->stream, parameters, NULL);
    s->base.status =
        check(c, r, "cuLaunchKernel",
              "step \"%s\": kernel \"%s\", grid %u x %u x %u, %u threads, %u bytes "
              "shared",
              s->step, l->kernel, l->grid[0], l->grid[1], l->grid[2], l->threads, l->shared);
}

static um_status touch(struct cuda *c, const struct um_step *step)
{
    struct um_cuda_touch list[UM_OPERANDS];
    int n = 0;
    for (int i = 0; i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        if (o->buf)
            list[n++] = (struct um_cuda_touch){o->buf->handle + o->offset, o->size, o->write};
    }
    return check(c, c->cu.touch(step->name, list, n), "um_standin_touch", "step \"%s\"",
                 step->name);
}

static um_status run(um_device *dev, enum um_queue q, const struct um_step *step)
{
    struct cuda *c = enter(dev);
    struct um_view view[UM_OPERANDS];
    for (int i = 0; i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        view[i] = o->view;
        view[i].data = o->buf ? (void *)(o->buf->handle + o->offset) : NULL;
    }
    struct launcher s = {{.launch = launch}, c, c->stream[q], step->name};
    if (c->cu.touch)
        s.base.status = touch(c, step);
    step->kernel(&(struct um_call){.args = step->args, .t = view, .n = step->n, .stream = &s.base});
    return leave(c, s.base.status);
}

/* ---- events ---- */

static um_status event_create(um_device *dev, bool timed, um_event **out)
{
    *out = NULL;
    struct cuda_event *e = um_zalloc(sizeof *e);
    if (!e)
        return um_fail(UM_ENOMEM, "device %s: event", dev->name);
    struct cuda *c = enter(dev);
    unsigned flags = UM_CU_EVENT_BLOCKING_SYNC | (timed ? 0 : UM_CU_EVENT_DISABLE_TIMING);
    um_status st = check(c, c->cu.cuEventCreate(&e->event, flags), "cuEventCreate", "event");
    if (st == UM_OK)
        st = check(c, c->cu.cuEventCreate(&e->order, UM_CU_EVENT_DISABLE_TIMING), "cuEventCreate",
                   "event");
    if (st == UM_OK) {
        *out = &e->base;
    } else {
        if (e->event && !dev->lost)
            c->cu.cuEventDestroy(e->event);
        um_free(e);
    }
    return leave(c, st);
}

/* The driver keeps what work in flight needs. */
static void event_destroy(um_device *dev, um_event *event)
{
    const struct cuda_event *e = (struct cuda_event *)event;
    if (!dev->lost) {
        struct cuda *c = enter(dev);
        check(c, c->cu.cuEventDestroy(e->event), "cuEventDestroy", "event");
        check(c, c->cu.cuEventDestroy(e->order), "cuEventDestroy", "event");
        leave(c, UM_OK);
    }
    um_free(event);
}

static um_status remember(struct cuda_graph *g, struct cuda_event *e)
{
    if (!um_make_room(&g->event, &g->room, g->events, 1, sizeof *g->event))
        return um_fail(UM_ENOMEM, "events of a graph");
    g->event[g->events++] = e;
    return UM_OK;
}

/* In a capture the edges leave before the node that takes the time, so that nobody waits for it. */
static um_status record_captured(struct cuda *c, um_cu_stream stream, struct cuda_event *e)
{
    um_status st = remember((struct cuda_graph *)c->base.capturing, e);
    if (st == UM_OK)
        st = check(c, c->cu.cuEventRecord(e->order, stream), "cuEventRecord", "capturing");
    if (st == UM_OK && e->base.timed)
        st = check(c, c->cu.cuEventRecordWithFlags(e->event, stream, UM_CU_EVENT_RECORD_EXTERNAL),
                   "cuEventRecordWithFlags", "capturing");
    return st;
}

static um_status event_record(um_device *dev, enum um_queue q, um_event *event)
{
    struct cuda *c = enter(dev);
    struct cuda_event *e = (struct cuda_event *)event;
    if (dev->capturing)
        return leave(c, record_captured(c, c->stream[q], e));
    um_status st =
        check(c, c->cu.cuEventRecord(e->event, c->stream[q]), "cuEventRecord", "queue %d", (int)q);
    if (st == UM_OK) {
        e->graph = NULL;
        event->recorded = true;
    }
    return leave(c, st);
}

/* What completes when the last record of the event has passed. */
static um_cu_event passed(const struct cuda_event *e)
{
    return e->graph ? e->graph->done : e->event;
}

static um_status event_wait(um_device *dev, enum um_queue q, um_event *event)
{
    struct cuda *c = enter(dev);
    const struct cuda_event *e = (struct cuda_event *)event;
    um_cu_result r =
        c->cu.cuStreamWaitEvent(c->stream[q], dev->capturing ? e->order : passed(e), 0);
    return leave(c, check(c, r, "cuStreamWaitEvent", "queue %d", (int)q));
}

static um_status event_sync(um_device *dev, um_event *event)
{
    struct cuda *c = enter(dev);
    um_cu_event e = passed((struct cuda_event *)event);
    const char *call = "cuEventQuery";
    uint64_t start = um_clock_ns();
    um_cu_result r = c->cu.cuEventQuery(e);
    while (r == UM_CU_ERROR_NOT_READY && um_clock_ns() - start < SPIN_NS)
        r = c->cu.cuEventQuery(e);
    if (r == UM_CU_ERROR_NOT_READY) {
        call = "cuEventSynchronize";
        r = c->cu.cuEventSynchronize(e);
    }
    if (r == 0)
        return leave(c, UM_OK);
    um_device_lock(dev); /* unlike other calls: nobody sees a lost device without the reason */
    um_status st = check_wait(c, r, call);
    if (dev->lost && !dev->why[0])
        snprintf(dev->why, sizeof dev->why, "%s", um_last_error());
    um_device_unlock(dev);
    return leave(c, st);
}

static um_status event_elapsed(um_device *dev, um_event *from, um_event *to, uint64_t *ns)
{
    struct cuda *c = enter(dev);
    float ms = 0;
    um_cu_result r = c->cu.cuEventElapsedTime(&ms, ((struct cuda_event *)from)->event,
                                              ((struct cuda_event *)to)->event);
    um_status st = check(c, r, "cuEventElapsedTime", "two events that the host has waited for");
    if (st == UM_OK)
        *ns = ms > 0 ? (uint64_t)((double)ms * 1e6) : 0;
    return leave(c, st);
}

/* ---- graphs ---- */

static void graph_destroy(um_device *dev, um_graph *base)
{
    struct cuda_graph *g = (struct cuda_graph *)base;
    if (enter_idle(dev)) {
        struct cuda *c = (struct cuda *)dev;
        if (g->exec)
            check(c, c->cu.cuGraphExecDestroy(g->exec), "cuGraphExecDestroy", "graph");
        if (g->done)
            check(c, c->cu.cuEventDestroy(g->done), "cuEventDestroy", "graph");
        leave(c, UM_OK);
        for (size_t i = 0; i < g->events; i++)
            if (g->event[i]->graph == g)
                g->event[i]->graph = NULL; /* it has passed */
    }
    um_free(g->event);
    um_free(g);
}

static um_status capture_begin(um_device *dev, um_graph **out)
{
    *out = NULL;
    struct cuda_graph *g = um_zalloc(sizeof *g);
    if (!g)
        return um_fail(UM_ENOMEM, "device %s: graph", dev->name);
    struct cuda *c = enter(dev);
    um_status st = check(
        c, c->cu.cuEventCreate(&g->done, UM_CU_EVENT_BLOCKING_SYNC | UM_CU_EVENT_DISABLE_TIMING),
        "cuEventCreate", "graph");
    if (st == UM_OK)
        st = check(c,
                   c->cu.cuStreamBeginCapture(c->stream[UM_QUEUE_MAIN],
                                              UM_CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
                   "cuStreamBeginCapture", "graph");
    leave(c, st);
    if (st == UM_OK)
        *out = &g->base;
    else
        graph_destroy(dev, &g->base);
    return st;
}

/* All commands are ordered before the end of the main queue by now, but the nodes that take the
 * time need not be. This makes no node and no edge between commands. */
static um_status join_queues(struct cuda *c, const um_graph *g)
{
    if (g->before[UM_QUEUE_SIDE][UM_QUEUE_MAIN] == 0)
        return UM_OK;
    um_status st = check(c, c->cu.cuEventRecord(c->join, c->stream[UM_QUEUE_SIDE]), "cuEventRecord",
                         "end of a capture");
    return st == UM_OK ? check(c, c->cu.cuStreamWaitEvent(c->stream[UM_QUEUE_MAIN], c->join, 0),
                               "cuStreamWaitEvent", "end of a capture")
                       : st;
}

/* The driver's capture ends even if something in it failed. */
static um_status capture_end(um_device *dev, um_graph *base)
{
    if (dev->lost)
        return dev->lost;
    struct cuda *c = enter(dev);
    struct cuda_graph *g = (struct cuda_graph *)base;
    um_cu_stream stream = c->stream[UM_QUEUE_MAIN];
    um_cu_graph graph = NULL;
    um_status joined = base->status == UM_OK ? join_queues(c, base) : base->status;
    um_cu_result ended = c->cu.cuStreamEndCapture(stream, &graph);
    um_status st = joined == UM_OK ? check(c, ended, "cuStreamEndCapture", "graph") : joined;
    if (st == UM_OK)
        st = check(c, c->cu.cuGraphInstantiateWithFlags(&g->exec, graph, 0),
                   "cuGraphInstantiateWithFlags", "graph");
    if (st == UM_OK)
        st = check(c, c->cu.cuGraphUpload(g->exec, stream), "cuGraphUpload", "graph");
    if (graph && !dev->lost)
        c->cu.cuGraphDestroy(graph);
    return leave(c, st);
}

static um_status graph_launch(um_device *dev, um_graph *base)
{
    struct cuda *c = enter(dev);
    struct cuda_graph *g = (struct cuda_graph *)base;
    um_cu_stream stream = c->stream[UM_QUEUE_MAIN];
    um_status st = check(c, c->cu.cuGraphLaunch(g->exec, stream), "cuGraphLaunch", "graph");
    if (st == UM_OK)
        st = check(c, c->cu.cuEventRecord(g->done, stream), "cuEventRecord", "graph");
    for (size_t i = 0; st == UM_OK && i < g->events; i++) {
        g->event[i]->graph = g;
        g->event[i]->base.recorded = true;
    }
    return leave(c, st);
}

/* ---- device ---- */

static void cuda_close(um_device *dev)
{
    struct cuda *c = (struct cuda *)dev;
    if (c->context && enter_idle(dev)) {
        for (int i = 0; i < c->modules; i++)
            check(c, c->cu.cuModuleUnload(c->module[i]), "cuModuleUnload", "closing");
        for (int q = 0; q < UM_QUEUES; q++)
            if (c->stream[q])
                check(c, c->cu.cuStreamDestroy(c->stream[q]), "cuStreamDestroy", "closing");
        if (c->join)
            check(c, c->cu.cuEventDestroy(c->join), "cuEventDestroy", "closing");
        if (c->ahead)
            check(c, c->cu.cuEventDestroy(c->ahead), "cuEventDestroy", "closing");
        if (c->foreign)
            check(c, c->cu.cuEventDestroy(c->foreign), "cuEventDestroy", "closing");
        leave(c, UM_OK);
        if (kept == c->context && (!outer || outer == c->context))
            c->cu.cuCtxSetCurrent(kept = NULL);
        check(c, c->cu.cuDevicePrimaryCtxRelease(c->device), "cuDevicePrimaryCtxRelease",
              "closing");
    }
    um_free(c->module);
    um_free(c->kernel);
    um_free(c);
}

static const struct um_device_fns fns = {UM_DEVICE_FNS, .close = cuda_close, .stream = stream_of,
                                         .lead = lead, .load_kernels = load_kernels};

static um_status attribute(struct cuda *c, unsigned which, int *value)
{
    return check(c, c->cu.cuDeviceGetAttribute(value, which, c->device), "cuDeviceGetAttribute",
                 "attribute %u", which);
}

/* Find the driver and count its GPUs. Without kernels only the stand-in, which brings its own, will
 * do: then nothing is loaded unless the environment names a driver. */
static um_status start(struct cuda *c, int *gpus)
{
    *gpus = 0;
    const char *path = getenv("ULTRAMOTION_CUDA_DRIVER");
    bool named = path && *path;
    um_status st = UM_OK;
    if (um_cuda_images[0].name || named)
        st = um_cuda_driver_open(&c->cu, c->base.name);
    if (st != UM_OK)
        return st;
    if (!um_cuda_images[0].name && !c->cu.standin)
        return um_fail(UM_EUNSUPPORTED, "device %s: not in this build (built without GPU kernels)",
                       c->base.name);
    um_cu_result r = c->cu.cuInit(0);
    if (r == UM_CU_ERROR_NO_DEVICE)
        return UM_OK;
    st = check(c, r, "cuInit", "driver for CUDA %d.%d", c->cu.version / 1000,
               c->cu.version % 1000 / 10);
    return st == UM_OK ? check(c, c->cu.cuDeviceGetCount(gpus), "cuDeviceGetCount", "driver") : st;
}

/* The GPU of this number, and its architecture. */
static um_status find_gpu(struct cuda *c, int ordinal)
{
    int gpus = 0, major = 0, minor = 0;
    snprintf(c->base.name, sizeof c->base.name, "cuda:%d", ordinal);
    um_status st = start(c, &gpus);
    if (st != UM_OK)
        return st;
    if (ordinal < 0 || ordinal >= gpus)
        return um_fail(UM_EUNSUPPORTED, "device %s: the driver for CUDA %d.%d has %d GPUs",
                       c->base.name, c->cu.version / 1000, c->cu.version % 1000 / 10, gpus);
    st = check(c, c->cu.cuDeviceGet(&c->device, ordinal), "cuDeviceGet", "GPU %d", ordinal);
    if (st == UM_OK)
        st = attribute(c, UM_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major);
    if (st == UM_OK)
        st = attribute(c, UM_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor);
    snprintf(c->isa, sizeof c->isa, "sm_%d%d", major, minor);
    if (st == UM_OK)
        st = check(c, c->cu.cuDeviceTotalMem(&c->base.caps.memory_bytes, c->device),
                   "cuDeviceTotalMem", "GPU %d", ordinal);
    return st;
}

static um_status open_streams(struct cuda *c)
{
    int low = 0, high = 0;
    um_status st = check(c, c->cu.cuCtxGetStreamPriorityRange(&low, &high),
                         "cuCtxGetStreamPriorityRange", "queues");
    for (int q = 0; st == UM_OK && q < UM_QUEUES; q++)
        st = check(c,
                   c->cu.cuStreamCreateWithPriority(&c->stream[q], UM_CU_STREAM_NON_BLOCKING,
                                                    q == UM_QUEUE_SIDE ? low : high),
                   "cuStreamCreateWithPriority", "queue %d", q);
    return st == UM_OK ? check(c, c->cu.cuEventCreate(&c->join, UM_CU_EVENT_DISABLE_TIMING),
                               "cuEventCreate", "queues")
                       : st;
}

static um_status load_image(struct cuda *c, const struct um_cuda_image *image)
{
    um_cu_result r = c->cu.cuModuleLoadData(&c->module[c->modules], image->data);
    if (status_of(r) == UM_EUNSUPPORTED)
        return check(c, r, "cuModuleLoadData", "no kernels for this GPU (%s) in image \"%s\"",
                     c->isa, image->name);
    um_status st = check(c, r, "cuModuleLoadData", "image \"%s\"", image->name);
    c->modules += st == UM_OK;
    return st;
}

static um_status load_images(struct cuda *c)
{
    int n = 0;
    c->image = c->cu.standin ? c->cu.standin : um_cuda_images;
    while (c->image[n].name)
        n++;
    c->module = um_array((size_t)n, sizeof *c->module);
    um_status st =
        c->module ? UM_OK : um_fail(UM_ENOMEM, "device %s: table of %d images", c->base.name, n);
    for (int i = 0; st == UM_OK && i < n; i++)
        st = load_image(c, &c->image[i]);
    return st;
}

static um_status open_gpu(struct cuda *c)
{
    um_status st =
        attribute(c, UM_CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &c->shared_max);
    if (st == UM_OK)
        st = check(c, c->cu.cuDevicePrimaryCtxRetain(&c->context, c->device),
                   "cuDevicePrimaryCtxRetain", "opening");
    if (st != UM_OK)
        return st;
    enter(&c->base);
    st = open_streams(c);
    if (st == UM_OK)
        st = load_images(c);
    return leave(c, st);
}

int um_cuda_count(void)
{
    struct cuda c = {0};
    int gpus = 0;
    return start(&c, &gpus) == UM_OK ? gpus : 0;
}

um_status um_cuda_describe(int ordinal, char *text, size_t size)
{
    struct cuda c = {0};
    char name[128] = "";
    int sms = 0;
    um_status st = find_gpu(&c, ordinal);
    if (st == UM_OK)
        st = check(&c, c.cu.cuDeviceGetName(name, sizeof name, c.device), "cuDeviceGetName",
                   "GPU %d", ordinal);
    if (st == UM_OK)
        st = attribute(&c, UM_CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &sms);
    if (st == UM_OK)
        um_number_print(text, size, "%s, %s, %d SMs, %.1f GiB, driver for CUDA %d.%d", name, c.isa,
                        sms, (double)c.base.caps.memory_bytes / (1 << 30), c.cu.version / 1000,
                        c.cu.version % 1000 / 10);
    return st;
}

um_status um_cuda_open(um_device **out, int ordinal)
{
    *out = NULL;
    struct cuda *c = um_zalloc(sizeof *c);
    if (!c)
        return um_fail(UM_ENOMEM, "device cuda:%d", ordinal);
    c->base.fns = &fns;
    c->base.isa = c->isa;
    c->base.caps.launches = true;
    c->base.caps.concurrent = true;
    um_status st = find_gpu(c, ordinal);
    if (st == UM_OK)
        st = open_gpu(c);
    if (st == UM_OK)
        *out = &c->base;
    else
        cuda_close(&c->base);
    return st;
}
