/* SPDX-License-Identifier: Apache-2.0 */
/* The device layer: what a new backend implements (um_device_fns) and what the rest of the library
 * calls (the checked wrappers below). Wrappers validate, backends trust. All transfers are
 * explicit, asynchronous and booked in the ledger.
 *
 * Memory: um_buf is device memory, its handle is never dereferenced outside kernels; um_hostbuf is
 * pinned host memory, the host side of every transfer, not to be touched from submit to wait.
 *
 * Order: queues run in order and meet through events only; the host waits with um_event_sync().
 *
 * Work: a um_step is one kernel call on operands; a um_graph is a captured sequence of queue
 * commands, replayed per frame.
 *
 * Threads: any; one at a time is inside a wrapper, but for waits for a GPU and for what
 * caps.parallel says. */
#ifndef UM_DEVICE_BACKEND_H
#define UM_DEVICE_BACKEND_H

#include "base/pool.h"
#include "base/status.h"
#include "device/dtype.h"
#include "device/ledger.h"
#include "ultramotion/device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

size_t um_dtype_size(enum um_dtype dtype);
const char *um_precision_name(enum um_dtype dtype); /* "fp32", "fp16", "bf16", "int8" */

/* The detector, copies and all that waits for both run in the main one, the encoder beside it. */
enum um_queue { UM_QUEUE_MAIN, UM_QUEUE_SIDE, UM_QUEUES };

struct um_device_caps {
    bool shared;         /* host and device share memory: transfers are not counted */
    bool launches;       /* kernels are launched on a stream (GPU); else they compute on the pool */
    bool concurrent;     /* queues may overlap: speculative execution pays */
    bool parallel;       /* graphs run beside each other: graph_launch is called without the lock */
    size_t memory_bytes; /* 0 = as much as the host has */
};

typedef struct um_buf {
    um_device *dev;
    size_t size;
    uintptr_t handle;  /* backend's name for the memory; on `guard` an inaccessible address */
    void *priv;        /* backend's */
    const char *label; /* for messages; static string */
    bool borrowed;     /* the memory is somebody else's (um_buf_over()) */
} um_buf;

typedef struct um_hostbuf {
    um_device *dev;
    size_t size;
    void *data; /* readable and writable by the host while no transfer on it is pending */
    void *priv;
} um_hostbuf;

/* A backend's event and graph embed these as first member. */
typedef struct um_event {
    um_device *dev;
    bool timed;
    bool recorded;              /* a record was submitted or launched; set by the backend */
    uint64_t capture;           /* id of the capture that recorded it last */
    uint32_t before[UM_QUEUES]; /* commands of each queue of that capture that are ordered before
                                   the record */
} um_event;

typedef struct um_graph {
    um_device *dev;
    uint64_t id;      /* of its capture */
    um_status status; /* of the first command of the capture that failed */
    uint32_t before[UM_QUEUES]
                   [UM_QUEUES]; /* [q][r]: commands of r that are ordered before the next of q */
    struct um_booking *booking; /* transfers booked at each launch */
    size_t bookings, room;
} um_graph;

/* A tensor as a kernel sees it: h*w rows of c elements, `ld` elements apart; data is valid only
 * inside the kernel call. data is NULL for an absent optional operand. */
struct um_view {
    void *data;
    enum um_dtype dtype;
    int h, w, c;
    ptrdiff_t ld;
    int pitch; /* pixels from one row of a map to the next where that is not w (um_step.limit); 0:
                  it is */
};

static inline ptrdiff_t um_view_row(const struct um_view *v, int y, int x) /* of pixel (y, x) */
{
    return (ptrdiff_t)y * (v->pitch ? v->pitch : v->w) + x;
}
static inline float *um_view_at(const struct um_view *v, ptrdiff_t row) /* if it holds floats */
{
    return (float *)v->data + row * v->ld;
}

enum { UM_OPERANDS = 16 };

/* One launch on a GPU: a grid of blocks of `threads` threads with `shared` bytes of dynamic shared
 * memory. A kernel takes one struct by value. */
struct um_launch {
    const char *kernel;
    unsigned grid[3], threads, shared;
    const void *args;
    size_t size; /* of args */
};

/* Where a step of a GPU backend launches. The first failure is kept in `status`. */
struct um_stream {
    void (*launch)(struct um_stream *stream, const struct um_launch *launch);
    um_status status;
};

/* One kernel call. Host kernels compute; kernels of a GPU backend launch on `stream`, as often as
 * they need, in order. */
struct um_call {
    const void *args; /* the op's argument struct */
    const struct um_view *t;
    int n;
    um_pool *pool;            /* host devices */
    struct um_stream *stream; /* others */
};
typedef void um_kernel(const struct um_call *call);

/* The memory behind operand i of a step. buf NULL: absent operand. */
struct um_operand {
    um_buf *buf;
    size_t offset, size; /* bytes touched */
    bool write;
    struct um_view view; /* data is filled in by the device when the step runs */
};

struct um_step {
    const char *name;  /* for messages and timing */
    const char *place; /* in the network, likewise; NULL: nowhere */
    um_kernel *kernel;
    const void *args;
    int n;
    struct um_operand operand[UM_OPERANDS];
    struct um_operand limit; /* host devices: of operand 0 only the first [0] x [1] pixels are
                                computed, int32 each; buf NULL: all */
};

/* What operand 0 is where a step is limited. */
static inline void um_step_limit(struct um_view *v, const void *limit)
{
    int32_t size[2];
    memcpy(size, limit, sizeof size);
    v->pitch = v->w;
    v->h = size[0];
    v->w = size[1];
}

/* What a backend implements. Commands are asynchronous: they may run any time from submit to the
 * wait that covers them, in queue order. While a queue is being captured, commands go into the
 * graph instead. */
struct um_device_fns {
    void (*close)(um_device *dev);
    um_status (*buf_create)(um_device *dev, um_buf *buf); /* size and label are set */
    void (*buf_destroy)(um_device *dev, um_buf *buf);
    um_status (*host_create)(um_device *dev, um_hostbuf *buf); /* size is set */
    void (*host_destroy)(um_device *dev, um_hostbuf *buf);
    um_status (*upload)(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                        size_t src_off, size_t n);
    um_status (*download)(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off,
                          um_buf *src, size_t off, size_t n);
    um_status (*copy)(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                      size_t src_off, size_t n);
    um_status (*fill)(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n,
                      uint8_t value);
    um_status (*discard)(um_device *dev, enum um_queue q, um_buf *buf, size_t off,
                         size_t n); /* contents no longer needed */
    um_status (*run)(um_device *dev, enum um_queue q,
                     const struct um_step *step); /* borrows step until it has run */
    um_status (*event_create)(um_device *dev, bool timed, um_event **out);
    void (*event_destroy)(um_device *dev, um_event *event);
    um_status (*event_record)(um_device *dev, enum um_queue q, um_event *event);
    um_status (*event_wait)(um_device *dev, enum um_queue q, um_event *event); /* queue q waits */
    um_status (*event_sync)(um_device *dev, um_event *event);                  /* the host waits */
    um_status (*event_elapsed)(um_device *dev, um_event *from, um_event *to,
                               uint64_t *ns); /* device time between two synced events; 0 if `to`
                                                 passed first */
    um_status (*capture_begin)(um_device *dev, um_graph **graph); /* all queues */
    um_status (*capture_end)(um_device *dev, um_graph *graph);
    um_status (*graph_launch)(um_device *dev, um_graph *graph);
    void (*graph_destroy)(um_device *dev, um_graph *graph);
    /* n bytes at an address of this device that is no um_buf, in the order of the caller's stream
     * (NULL: they are there already), which in turn waits for the copy. */
    um_status (*copy_from)(um_device *dev, enum um_queue q, um_buf *dst, size_t off, uintptr_t src,
                           size_t n, void *stream);
    /* Of backends that launch (caps.launches); the others have none of these. */
    void *(*stream)(um_device *dev, enum um_queue q); /* the queue as others know it */
    um_status (*lead)(um_device *dev, enum um_queue q,
                      void *stream); /* the caller's stream waits for queue q */
    um_status (*load_kernels)(um_device *dev, const char *const *names,
                              int n); /* look up and load the kernels of these names */
};

/* The entries that every backend has, by functions of the same names. */
#define UM_DEVICE_FNS                                                                           \
    .buf_create = buf_create, .buf_destroy = buf_destroy, .host_create = host_create,           \
    .host_destroy = host_destroy, .upload = upload, .download = download, .copy = copy,         \
    .copy_from = copy_from, .fill = fill, .discard = discard, .run = run,                       \
    .event_create = event_create, .event_destroy = event_destroy, .event_record = event_record, \
    .event_wait = event_wait, .event_sync = event_sync, .event_elapsed = event_elapsed,         \
    .capture_begin = capture_begin, .capture_end = capture_end, .graph_launch = graph_launch,   \
    .graph_destroy = graph_destroy

/* A concrete device embeds this as its first member. */
struct um_device {
    const struct um_device_fns *fns;
    struct um_device_caps caps;
    char name[16];
    enum um_dtype precision; /* in which activations are stored: UM_F32, UM_F16 or UM_BF16 */
    um_pool *pool;           /* host devices: the threads kernels run on */
    const void *ops; /* const struct um_ops *: the kernels, chosen by the nn layer at the first
                        params or tape */
    struct um_quant
        *quant;           /* what networks opened here are calibrated with (nn/quant.h), or NULL */
    enum um_dtype layers; /* host devices: in what dense layers compute that can: UM_F32, UM_BF16 or
                             UM_I8 (those that a file has ranges for) */
    bool choose;          /* nobody asked for a precision; `layers` is UM_F32 until the level of
                             kernels is known */
    const char *isa;      /* name of their instruction level; NULL until chosen */
    char *weight_cache;   /* folder of packed weights (weights/packed.h), or NULL */
    um_device_watch_fn *watch;
    void *watch_ctx;
    um_graph *capturing;
    _Atomic(um_status) lost; /* sticky: UM_OK, or why the device is gone */
    /* Of the wrappers: */
    atomic_int refs;
    pthread_mutex_t lock; /* recursive; of all that is here, and of the backend */
    um_transfers total;
    uint64_t captures;        /* ids given to captures */
    um_event *now[UM_QUEUES]; /* of um_upload_now() and um_download_now(), opened at first use */
    um_hostbuf *bounce;
    char why[512];        /* text of the error that lost the device */
    char cache_said[512]; /* what became of the last network's packed weights */
};

/* ---- checked wrappers (device.c). `reason` is a static string that says what the transfer is for.
 * ---- */

um_status um_buf_open(um_buf **out, um_device *dev, size_t size, const char *label);
/* Memory that is there already, which the device only reads and which outlives the buffer. Only
 * where caps.shared. */
um_status um_buf_over(um_buf **out, um_device *dev, const void *data, size_t size,
                      const char *label);
void um_buf_close(um_buf **buf);
uintptr_t um_buf_address(const um_buf *buf); /* as others on the device know it */
um_status um_hostbuf_open(um_hostbuf **out, um_device *dev, size_t size);
void um_hostbuf_close(um_hostbuf **buf);

um_status um_upload(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                    size_t src_off, size_t n, enum um_stage stage, const char *reason);
um_status um_download(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off, um_buf *src,
                      size_t off, size_t n, enum um_stage stage, const char *reason);
um_status um_copy(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                  size_t src_off, size_t n);
um_status um_copy_from(um_device *dev, enum um_queue q, um_buf *dst, size_t off, const void *src,
                       size_t n, void *stream);
void *um_queue_stream(um_device *dev, enum um_queue q); /* NULL where nothing is launched */
um_status um_queue_lead(um_device *dev, enum um_queue q, void *stream);
um_status um_fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n,
                  uint8_t value);
um_status um_discard(um_device *dev, enum um_queue q, um_buf *buf, size_t off, size_t n);
um_status um_step_run(um_device *dev, enum um_queue q, const struct um_step *step);
um_status um_load_kernels(um_device *dev, const char *const *names, int n);

/* An event orders queues and is waited for; um_event_open_timed() makes one that keeps the time
 * too. In a capture one that orders costs nothing and one that is timed is a command of its own,
 * and only a timed one can be waited for by the host after a launch. */
um_status um_event_open(um_event **out, um_device *dev);
um_status um_event_open_timed(um_event **out, um_device *dev);
void um_event_close(um_event **event, um_device *dev);
um_status um_event_record(um_device *dev, enum um_queue q, um_event *event);
um_status um_event_wait(um_device *dev, enum um_queue q, um_event *event);
/* Host waits until the last record of `event` has passed; booked as a wait of `stage`. */
um_status um_event_sync(um_device *dev, um_event *event, enum um_stage stage, const char *reason);
um_status um_event_elapsed(um_device *dev, um_event *from, um_event *to, uint64_t *ns);

/* Record all commands submitted between begin and end instead of running them; launch replays them,
 * with their bookings. Host waits, buffer creation and launches are refused while capturing. A
 * graph is one command of the main queue: it starts after what was submitted there before and ends
 * before what follows. So inside a capture the other queues start by waiting for an event recorded
 * in the capture, and are joined back into the main queue, by an event again, before the end.
 * Events recorded in a graph are recorded at each launch: the host may wait for them and read their
 * time. Steps, events and memory used in a graph outlive it. */
um_status um_capture_begin(um_device *dev);
um_status um_capture_end(um_device *dev, um_graph **out);
um_status um_graph_launch(um_device *dev, um_graph *graph);
void um_graph_close(um_graph **graph, um_device *dev);

/* Blocking convenience for setup and debugging: copies through a temporary pinned buffer and waits.
 */
um_status um_upload_now(um_device *dev, um_buf *dst, size_t off, const void *src, size_t n,
                        enum um_stage stage, const char *reason);
um_status um_download_now(um_device *dev, void *dst, um_buf *src, size_t off, size_t n,
                          enum um_stage stage, const char *reason);

/* A section in which nobody else uses the device; nests. Every wrapper is one; a caller whose
 * commands belong together makes one around them. Not around a wait for a GPU. Accept NULL. */
void um_device_lock(um_device *dev);
void um_device_unlock(um_device *dev);

/* ---- backends ---- */
um_status um_cpu_open(um_device **out, const um_device_settings *s);
um_status um_guard_open(um_device **out, const um_device_settings *s);
um_status um_cuda_open(um_device **out, int ordinal);
int um_cuda_count(void); /* GPUs that um_cuda_open() could take; 0 without a driver or kernels */
um_status um_cuda_describe(int ordinal, char *text, size_t size); /* one line about a GPU */

#endif
