/* SPDX-License-Identifier: Apache-2.0 */
/* The test device: host memory that pretends to be a separate device, so that a machine without one
 * proves residency and ordering.
 *
 *   Memory   A handle is an address in an inaccessible mapping; commands use a second mapping of
 *            the same pages, so the host faults at the culprit. New and discarded memory is NaN.
 *            Every buffer has red zones, checked at each wait, and the surroundings of what a step
 *            writes are checked after it. Host buffers are inaccessible from the submit of a
 *            transfer to the wait that covers it.
 *   Time     Nothing runs at submit. At a wait, what must have run runs, in a seeded legal order;
 *            other commands run or stay.
 *   Order    Every command carries a vector clock. Two overlapping accesses, one of them a write,
 *            without a path between them are an error, whatever order the seed would have chosen.
 */
#define _GNU_SOURCE /* memfd_create() */
#include "base/clock.h"
#include "base/mem.h"
#include "device/backend.h"
#include "device/races.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The queues, and the branch of graphs: a graph's commands for the main queue run in that queue,
 * those for the other in a lane of their own, which is not ordered with that queue. */
enum { LANE_GRAPH_SIDE = UM_QUEUES, LANES };
static const char *const lane_name[LANES] = {"main", "side", "side, in a graph"};

enum {
    NEAR = 256,      /* bytes around an output that are compared after the step */
    GAP = 64,        /* bytes after a row of a strided output that are compared after the step */
    GAP_ROWS = 1024, /* at most this many rows of one output */
};

/* NaN as f32, f16 and bf16, and absurd as an index. Two bytes, so the pattern depends on the parity
 * of the offset. */
static const uint8_t poison[2] = {0xfe, 0x7f}, red[2] = {0xf5, 0x7f};

enum kind { UPLOAD, DOWNLOAD, COPY, FILL, DISCARD, RUN, RECORD, WAIT };
static const char *const kind_name[] = {"upload",  "download", "copy",   "fill",
                                        "discard", "step",     "record", "wait"};

struct clock {
    uint64_t t[LANES]; /* per lane: the last command that comes before */
};

struct guard_buf {
    struct guard_buf *next, *prev;
    const um_buf *buf;
    char *map;    /* what commands use: red zone, data, red zone */
    char *hidden; /* the same pages, inaccessible: the handle points into it */
    size_t bytes;
    const char *writer; /* the last command that wrote it */
};

struct guard_host {
    char *map;  /* what transfers use */
    char *seen; /* what the host uses, and an inaccessible page behind it */
    size_t bytes, page;
    uint64_t pending; /* transfers not yet covered by a wait */
};

struct guard_event {
    um_event base;
    int lane; /* the last record: where, which command, and what comes before it */
    uint64_t seq;
    struct clock clock;
    uint64_t ns;
};

struct command {
    enum kind kind;
    uint8_t value;
    um_buf *dst, *src;
    um_hostbuf *host;
    size_t dst_off, src_off, host_off, n;
    const struct um_step *step;
    struct guard_event *event;
    int wait_lane;
    uint64_t wait_seq;
};

/* Commands retired+1..submitted are kept, at seq & (room - 1). retired <= executed <= submitted; a
 * command is retired when a host wait covers it. */
struct lane {
    struct command *ring;
    size_t room;
    uint64_t submitted, executed, retired;
    struct clock clock;
};

struct captured {
    int lane;
    struct command command;
    const um_buf
        *buf[UM_OPERANDS]; /* of a step: to know what the graph needs even when the step is gone */
};

struct guard_graph {
    um_graph base;
    struct guard_graph *next, *prev;
    struct captured *list;
    size_t n, room;
    const char *stale; /* something it uses was closed */
};

struct saved {
    const char *at;
    size_t n, where; /* where: offset in guard.saved */
    int operand;
};

struct guard {
    um_device base;
    size_t page;
    uint64_t random;
    struct lane lane[LANES];
    struct clock host;
    struct guard_buf *bufs;
    struct guard_graph *graphs;
    uint8_t *red; /* two pages and a byte of red zone */
    char *saved;  /* surroundings of a step's outputs */
    struct saved *save;
};
enum {
    SAVED_MAX = UM_OPERANDS * (2 + GAP_ROWS),
    SAVED_BYTES = UM_OPERANDS * (2 * NEAR + GAP_ROWS * GAP)
};

/* ---- small things ---- */

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next_random(struct guard *g)
{
    uint64_t x = g->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void clock_join(struct clock *a, const struct clock *b)
{
    for (int i = 0; i < LANES; i++)
        if (a->t[i] < b->t[i])
            a->t[i] = b->t[i];
}

/* The two-byte pattern over p[0..n), as if it started at an even offset before p[-off]. */
static void paint(char *p, size_t off, size_t n, const uint8_t pattern[2])
{
    char block[256];
    for (size_t i = 0; i < sizeof block && i < n; i++)
        block[i] = (char)pattern[(off + i) % 2];
    for (size_t i = 0; i < n; i += sizeof block)
        memcpy(p + i, block, n - i < sizeof block ? n - i : sizeof block);
}

static char *data_of(const struct guard *g, const um_buf *buf)
{
    return ((const struct guard_buf *)buf->priv)->map + g->page;
}

static const char *name_of(const struct command *c)
{
    return c->kind == RUN ? c->step->name : kind_name[c->kind];
}

/* Bytes of the red zone behind the data of a buffer. */
static size_t zone_behind(const struct guard *g, const struct guard_buf *b)
{
    return b->bytes - g->page - b->buf->size;
}

static um_status lose(struct guard *g)
{
    g->base.lost = UM_EDEVICE;
    return UM_EDEVICE;
}

/* ---- red zones ---- */

static um_status check_zone(struct guard *g, const struct guard_buf *b, const char *zone, size_t n,
                            size_t parity)
{
    if (memcmp(zone, g->red + parity, n) == 0)
        return UM_OK;
    size_t i = 0;
    while (zone[i] == (char)g->red[parity + i])
        i++;
    long long at = (long long)(zone + i - (b->map + g->page));
    um_fail(UM_EDEVICE,
            "guard: red zone of buffer \"%s\" (%zu bytes) overwritten at offset %lld; its last "
            "writer is \"%s\"",
            b->buf->label, b->buf->size, at, b->writer);
    return lose(g);
}

static um_status check_red(struct guard *g, const struct guard_buf *b)
{
    um_status st = check_zone(g, b, b->map, g->page, 0);
    if (st == UM_OK)
        st = check_zone(g, b, b->map + g->page + b->buf->size, zone_behind(g, b), b->buf->size % 2);
    return st;
}

static um_status check_all_red(struct guard *g)
{
    um_status st = UM_OK;
    for (const struct guard_buf *b = g->bufs; st == UM_OK && b; b = b->next)
        st = check_red(g, b);
    return st;
}

/* ---- running a command ---- */

static void save(struct guard *g, size_t *n, size_t *bytes, int operand, const char *at,
                 size_t size)
{
    g->save[(*n)++] = (struct saved){.at = at, .n = size, .where = *bytes, .operand = operand};
    memcpy(g->saved + *bytes, at, size);
    *bytes += size;
}

/* Keep what lies around the outputs: before and behind them (red zones included), and between rows
 * of a strided one. */
static size_t save_surroundings(struct guard *g, const struct um_step *step)
{
    size_t n = 0, bytes = 0;
    for (int i = 0; i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        if (!o->buf || !o->write)
            continue;
        const char *p = data_of(g, o->buf) + o->offset;
        size_t behind = o->buf->size - o->offset - o->size + zone_behind(g, o->buf->priv);
        save(g, &n, &bytes, i, p - NEAR, NEAR);
        save(g, &n, &bytes, i, p + o->size, behind < NEAR ? behind : NEAR);
        size_t elt = um_dtype_size(o->view.dtype), rows = (size_t)o->view.h * (size_t)o->view.w;
        if (o->view.ld <= o->view.c || rows < 2)
            continue;
        size_t gap = (size_t)(o->view.ld - o->view.c) * elt,
               stride = (rows - 1 + GAP_ROWS - 1) / GAP_ROWS;
        for (size_t r = 0; r < rows - 1; r += stride)
            save(g, &n, &bytes, i, p + (r * (size_t)o->view.ld + (size_t)o->view.c) * elt,
                 gap < GAP ? gap : GAP);
    }
    return n;
}

static bool in_output(const struct guard *g, const struct um_step *step, int except, const char *at)
{
    for (int i = 0; i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        if (i == except || !o->buf || !o->write)
            continue;
        const char *p = data_of(g, o->buf) + o->offset;
        if (at >= p && at < p + o->size)
            return true;
    }
    return false;
}

static um_status check_surroundings(struct guard *g, const struct um_step *step, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const struct saved *s = &g->save[k];
        const char *was = g->saved + s->where;
        if (memcmp(was, s->at, s->n) == 0)
            continue;
        for (size_t i = 0; i < s->n; i++) {
            if (was[i] == s->at[i] || in_output(g, step, s->operand, s->at + i))
                continue;
            const struct um_operand *o = &step->operand[s->operand];
            um_fail(UM_EDEVICE,
                    "guard: step \"%s\" wrote outside its operand %d: offset %lld of buffer "
                    "\"%s\"; the operand is bytes "
                    "%zu..+%zu, %d x %d rows of %d, ld %td",
                    step->name, s->operand, (long long)(s->at + i - data_of(g, o->buf)),
                    o->buf->label, o->offset, o->size, o->view.h, o->view.w, o->view.c, o->view.ld);
            return lose(g);
        }
    }
    return UM_OK;
}

static um_status run_step(struct guard *g, const struct um_step *step)
{
    struct um_view view[UM_OPERANDS];
    for (int i = 0; i < step->n; i++) {
        const struct um_operand *o = &step->operand[i];
        view[i] = o->view;
        view[i].data = o->buf ? data_of(g, o->buf) + o->offset : NULL;
        if (o->buf && o->write)
            ((struct guard_buf *)o->buf->priv)->writer = step->name;
    }
    if (step->limit.buf)
        um_step_limit(&view[0], data_of(g, step->limit.buf) + step->limit.offset);
    size_t saved = save_surroundings(g, step);
    um_pool *pool = um_pool_take(g->base.pool);
    um_pool_say(pool, step);
    um_races_step(step, view);
    step->kernel(&(struct um_call){.args = step->args, .t = view, .n = step->n, .pool = pool});
    um_pool_give(pool);
    return check_surroundings(g, step, saved);
}

static um_status execute(struct guard *g, const struct command *c)
{
    if (c->dst)
        ((struct guard_buf *)c->dst->priv)->writer = name_of(c);
    char *dst = c->dst ? data_of(g, c->dst) + c->dst_off : NULL;
    char *src = c->src ? data_of(g, c->src) + c->src_off : NULL;
    char *host = c->host ? ((struct guard_host *)c->host->priv)->map + c->host_off : NULL;
    switch (c->kind) {
    case UPLOAD: memcpy(dst, host, c->n); break;
    case DOWNLOAD: memcpy(host, src, c->n); break;
    case COPY: memcpy(dst, src, c->n); break;
    case FILL: memset(dst, c->value, c->n); break;
    case DISCARD: paint(dst, c->dst_off, c->n, poison); break;
    case RUN: return run_step(g, c->step);
    case RECORD: c->event->ns = um_clock_ns(); break;
    case WAIT: break;
    }
    return UM_OK;
}

/* ---- time: which command runs when ---- */

static const struct command *command_at(const struct lane *l, uint64_t seq)
{
    return &l->ring[seq & (l->room - 1)];
}

static bool ready(const struct guard *g, int lane)
{
    const struct lane *l = &g->lane[lane];
    if (l->executed == l->submitted)
        return false;
    const struct command *c = command_at(l, l->executed + 1);
    return c->kind != WAIT || g->lane[c->wait_lane].executed >= c->wait_seq;
}

static um_status run_next(struct guard *g, int lane)
{
    struct lane *l = &g->lane[lane];
    um_status st = execute(g, command_at(l, l->executed + 1));
    l->executed++;
    return st;
}

/* Only what must have run before command `seq` of `lane`, and that command. A command waits only
 * for earlier ones, so this ends. */
static um_status run_needed(struct guard *g, int lane, uint64_t seq)
{
    um_status st = UM_OK;
    struct lane *l = &g->lane[lane];
    while (st == UM_OK && l->executed < seq) {
        const struct command *c = command_at(l, l->executed + 1);
        if (ready(g, lane))
            st = run_next(g, lane);
        else
            st = run_needed(g, c->wait_lane, c->wait_seq);
    }
    return st;
}

/* Lanes drawn at random among those that can go on, for bursts of random length. */
static um_status run_mixed(struct guard *g, int lane, uint64_t seq, uint64_t burst)
{
    um_status st = UM_OK;
    while (st == UM_OK && g->lane[lane].executed < seq) {
        int can[LANES], n = 0;
        for (int i = 0; i < LANES; i++)
            if (ready(g, i))
                can[n++] = i;
        int pick = can[next_random(g) % (uint64_t)n];
        uint64_t k = 1 + next_random(g) % burst;
        while (st == UM_OK && k-- && ready(g, pick) && g->lane[lane].executed < seq)
            st = run_next(g, pick);
    }
    return st;
}

static um_status run_until(struct guard *g, int lane, uint64_t seq)
{
    switch (next_random(g) % 3) {
    case 0: return run_needed(g, lane, seq);
    case 1: return run_mixed(g, lane, seq, 2);
    default: return run_mixed(g, lane, seq, 64);
    }
}

/* ---- host buffers ---- */

static void protect_host(const um_hostbuf *buf)
{
    struct guard_host *h = buf->priv;
    if (h->pending++ == 0)
        mprotect(h->seen, h->bytes, PROT_NONE);
}

static void release_host(const um_hostbuf *buf)
{
    struct guard_host *h = buf->priv;
    if (--h->pending == 0)
        mprotect(h->seen, h->bytes, PROT_READ | PROT_WRITE);
}

/* The host knows that everything before `clock` has run. */
static void host_learns(struct guard *g, const struct clock *clock)
{
    clock_join(&g->host, clock);
    for (int i = 0; i < LANES; i++) {
        struct lane *l = &g->lane[i];
        while (l->retired < g->host.t[i]) {
            const struct command *c = command_at(l, ++l->retired);
            if (c->host)
                release_host(c->host);
        }
    }
}

/* Memory, events and graphs that go away wait for the work that may use them, as on a real device.
 * A lost one runs nothing. */
static void drain(struct guard *g)
{
    struct clock all;
    um_status st = g->base.lost;
    for (int i = 0; i < LANES; i++) {
        struct lane *l = &g->lane[i];
        all.t[i] = l->submitted;
        if (st == UM_OK)
            st = run_needed(g, i, l->submitted);
    }
    for (int i = 0; i < LANES; i++)
        g->lane[i].executed = g->lane[i].submitted;
    host_learns(g, &all);
}

/* ---- order: what a command touches ---- */

struct access {
    const void *mem; /* um_buf or um_hostbuf */
    const char *label;
    size_t off, n;
    bool write;
};

static int accesses(const struct command *c, struct access *a)
{
    int n = 0;
    if (c->dst)
        a[n++] = (struct access){c->dst, c->dst->label, c->dst_off, c->n, true};
    if (c->src)
        a[n++] = (struct access){c->src, c->src->label, c->src_off, c->n, false};
    if (c->host)
        a[n++] =
            (struct access){c->host, "pinned host memory", c->host_off, c->n, c->kind == DOWNLOAD};
    for (int i = 0; c->kind == RUN && i < c->step->n; i++) {
        const struct um_operand *o = &c->step->operand[i];
        if (o->buf)
            a[n++] = (struct access){o->buf, o->buf->label, o->offset, o->size, o->write};
    }
    return n;
}

static const struct access *conflict(const struct access *a, int na, const struct access *b, int nb)
{
    for (int i = 0; i < na; i++)
        for (int k = 0; k < nb; k++)
            if (a[i].mem == b[k].mem && (a[i].write || b[k].write) &&
                a[i].off < b[k].off + b[k].n && b[k].off < a[i].off + a[i].n)
                return &a[i];
    return NULL;
}

/* The lane's clock is what comes before `c`. Whatever was submitted elsewhere and is not in it may
 * run at the same time. */
static um_status check_order(struct guard *g, int lane, const struct command *c)
{
    struct access a[UM_OPERANDS], b[UM_OPERANDS];
    int na = accesses(c, a);
    const struct clock *before = &g->lane[lane].clock;
    for (int r = 0; na && r < LANES; r++) {
        const struct lane *l = &g->lane[r];
        if (r == lane)
            continue;
        for (uint64_t seq = before->t[r] + 1; seq <= l->submitted; seq++) {
            const struct command *other = command_at(l, seq);
            const struct access *x = conflict(a, na, b, accesses(other, b));
            if (!x)
                continue;
            um_fail(UM_EDEVICE,
                    "guard: missing event between \"%s\" (queue %s) and \"%s\" (queue %s): both "
                    "use \"%s\", the latter bytes "
                    "%zu..+%zu, and one writes",
                    name_of(other), lane_name[r], name_of(c), lane_name[lane], x->label, x->off,
                    x->n);
            return lose(g);
        }
    }
    return UM_OK;
}

/* ---- submit ---- */

static um_status ring_room(struct lane *l, size_t more)
{
    size_t room = l->room ? l->room : 256;
    while (l->submitted - l->retired + more > room)
        room *= 2;
    if (room == l->room)
        return UM_OK;
    struct command *ring = um_alloc(room * sizeof *ring);
    if (!ring)
        return um_fail(UM_ENOMEM, "guard: commands of a queue");
    for (uint64_t seq = l->retired + 1; seq <= l->submitted; seq++)
        ring[seq & (room - 1)] = *command_at(l, seq);
    um_free(l->ring);
    l->ring = ring;
    l->room = room;
    return UM_OK;
}

static um_status enqueue(struct guard *g, int lane, const struct command *command)
{
    struct lane *l = &g->lane[lane];
    um_status st = ring_room(l, 1);
    if (st != UM_OK)
        return st;
    clock_join(&l->clock, &g->host);
    st = check_order(g, lane, command);
    if (st != UM_OK)
        return st;
    uint64_t seq = ++l->submitted;
    l->clock.t[lane] = seq;
    struct command *c = &l->ring[seq & (l->room - 1)];
    *c = *command;
    if (c->host)
        protect_host(c->host);
    if (c->kind == RECORD) {
        c->event->lane = lane;
        c->event->seq = seq;
        c->event->clock = l->clock;
        c->event->base.recorded = true;
    } else if (c->kind == WAIT) {
        c->wait_lane = c->event->lane;
        c->wait_seq = c->event->seq;
        clock_join(&l->clock, &c->event->clock);
    }
    return UM_OK;
}

static um_status submit(um_device *dev, enum um_queue q, const struct command *c)
{
    struct guard_graph *graph = (struct guard_graph *)dev->capturing;
    if (!graph)
        return enqueue((struct guard *)dev, (int)q, c);
    if (!um_make_room(&graph->list, &graph->room, graph->n, 1, sizeof *graph->list))
        return um_fail(UM_ENOMEM, "guard: commands of a graph");
    struct captured *x = &graph->list[graph->n++];
    *x = (struct captured){.lane = q == UM_QUEUE_SIDE ? LANE_GRAPH_SIDE : UM_QUEUE_MAIN,
                           .command = *c};
    for (int i = 0; c->kind == RUN && i < c->step->n; i++)
        x->buf[i] = c->step->operand[i].buf;
    return UM_OK;
}

static um_status upload(um_device *dev, enum um_queue q, um_buf *dst, size_t off, um_hostbuf *src,
                        size_t src_off, size_t n)
{
    return submit(
        dev, q,
        &(struct command){
            .kind = UPLOAD, .dst = dst, .dst_off = off, .host = src, .host_off = src_off, .n = n});
}

static um_status download(um_device *dev, enum um_queue q, um_hostbuf *dst, size_t dst_off,
                          um_buf *src, size_t off, size_t n)
{
    return submit(dev, q,
                  &(struct command){.kind = DOWNLOAD,
                                    .host = dst,
                                    .host_off = dst_off,
                                    .src = src,
                                    .src_off = off,
                                    .n = n});
}

static um_status copy(um_device *dev, enum um_queue q, um_buf *dst, size_t dst_off, um_buf *src,
                      size_t src_off, size_t n)
{
    return submit(
        dev, q,
        &(struct command){
            .kind = COPY, .dst = dst, .dst_off = dst_off, .src = src, .src_off = src_off, .n = n});
}

static um_status copy_from(um_device *dev, enum um_queue q, um_buf *dst, size_t off, uintptr_t src,
                           size_t n, void *stream)
{
    struct guard *g = (struct guard *)dev;
    (void)stream;
    for (struct guard_buf *b = g->bufs; b; b = b->next) {
        um_buf *buf = (um_buf *)(uintptr_t)b->buf;
        if (src >= buf->handle && src - buf->handle < buf->size &&
            n <= buf->size - (src - buf->handle))
            return copy(dev, q, dst, off, buf, src - buf->handle, n);
    }
    return um_fail(UM_EINVAL, "guard: %zu bytes at %#zx are not memory of this device", n,
                   (size_t)src);
}

static um_status fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n,
                      uint8_t value)
{
    return submit(
        dev, q,
        &(struct command){.kind = FILL, .dst = dst, .dst_off = off, .n = n, .value = value});
}

static um_status discard(um_device *dev, enum um_queue q, um_buf *buf, size_t off, size_t n)
{
    return submit(dev, q, &(struct command){.kind = DISCARD, .dst = buf, .dst_off = off, .n = n});
}

static um_status run(um_device *dev, enum um_queue q, const struct um_step *step)
{
    return submit(dev, q, &(struct command){.kind = RUN, .step = step});
}

/* ---- memory ---- */

/* The same `bytes` of fresh pages, twice. */
static um_status map_twice(char **a, char **b, size_t bytes, const char *label)
{
    int fd = memfd_create("ultramotion-guard", MFD_CLOEXEC);
    void *x = MAP_FAILED, *y = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0) {
        x = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        y = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
    }
    if (fd >= 0)
        close(fd);
    if (x != MAP_FAILED && y != MAP_FAILED) {
        *a = x;
        *b = y;
        return UM_OK;
    }
    if (x != MAP_FAILED)
        munmap(x, bytes);
    if (y != MAP_FAILED)
        munmap(y, bytes);
    return um_fail(UM_ENOMEM, "guard: \"%s\": cannot map %zu bytes twice", label, bytes);
}

static um_status buf_create(um_device *dev, um_buf *buf)
{
    struct guard *g = (struct guard *)dev;
    if (buf->size > SIZE_MAX / 4)
        return um_fail(UM_ENOMEM, "guard: buffer \"%s\" of %zu bytes", buf->label, buf->size);
    struct guard_buf *b = um_zalloc(sizeof *b);
    if (!b)
        return um_fail(UM_ENOMEM, "guard: buffer \"%s\"", buf->label);
    b->bytes = (buf->size + g->page - 1) / g->page * g->page + 2 * g->page;
    um_status st = map_twice(&b->map, &b->hidden, b->bytes, buf->label);
    if (st != UM_OK) {
        um_free(b);
        return st;
    }
    b->buf = buf;
    b->writer = "nobody";
    b->next = g->bufs;
    if (b->next)
        b->next->prev = b;
    g->bufs = b;
    buf->priv = b;
    buf->handle = (uintptr_t)(b->hidden + g->page);
    paint(b->map, 0, g->page, red);
    paint(b->map + g->page, 0, buf->size, poison);
    paint(b->map + g->page + buf->size, buf->size, zone_behind(g, b), red);
    return UM_OK;
}

/* A graph that uses something that is closed must not be launched again. */
static void make_stale(struct guard *g, const void *gone, const char *label)
{
    for (struct guard_graph *graph = g->graphs; graph; graph = graph->next) {
        for (size_t i = 0; i < graph->n; i++) {
            const struct captured *x = &graph->list[i];
            bool uses = x->command.dst == gone || x->command.src == gone ||
                        x->command.host == gone ||
                        (x->command.event && (const void *)x->command.event == gone);
            for (int k = 0; k < UM_OPERANDS; k++)
                uses |= x->buf[k] == gone;
            if (uses)
                graph->stale = label;
        }
    }
}

static void buf_destroy(um_device *dev, um_buf *buf)
{
    struct guard *g = (struct guard *)dev;
    struct guard_buf *b = buf->priv;
    drain(g);
    make_stale(g, buf, buf->label);
    if (dev->lost == UM_OK)
        check_red(g, b);
    *(b->prev ? &b->prev->next : &g->bufs) = b->next;
    if (b->next)
        b->next->prev = b->prev;
    munmap(b->map, b->bytes);
    munmap(b->hidden, b->bytes);
    um_free(b);
}

static um_status host_create(um_device *dev, um_hostbuf *buf)
{
    struct guard *g = (struct guard *)dev;
    if (buf->size > SIZE_MAX / 4)
        return um_fail(UM_ENOMEM, "guard: host buffer of %zu bytes", buf->size);
    struct guard_host *h = um_zalloc(sizeof *h);
    if (!h)
        return um_fail(UM_ENOMEM, "guard: host buffer");
    h->bytes = (buf->size + g->page - 1) / g->page * g->page;
    h->page = g->page;
    um_status st = map_twice(&h->map, &h->seen, h->bytes + h->page, "host buffer");
    if (st == UM_OK && mprotect(h->seen, h->bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(h->map, h->bytes + h->page);
        munmap(h->seen, h->bytes + h->page);
        st = um_fail(UM_ENOMEM, "guard: host buffer of %zu bytes", buf->size);
    }
    if (st != UM_OK) {
        um_free(h);
        return st;
    }
    paint(h->map, 0, h->bytes, poison);
    buf->priv = h;
    buf->data = h->seen;
    return UM_OK;
}

static void host_destroy(um_device *dev, um_hostbuf *buf)
{
    struct guard *g = (struct guard *)dev;
    struct guard_host *h = buf->priv;
    drain(g);
    make_stale(g, buf, "pinned host memory");
    munmap(h->map, h->bytes + h->page);
    munmap(h->seen, h->bytes + h->page);
    um_free(h);
}

/* ---- events ---- */

static um_status event_create(um_device *dev, bool timed, um_event **out)
{
    (void)dev, (void)timed;
    struct guard_event *e = um_zalloc(sizeof *e);
    *out = (um_event *)e;
    return e ? UM_OK : um_fail(UM_ENOMEM, "guard: event");
}

static void event_destroy(um_device *dev, um_event *event)
{
    drain((struct guard *)dev);
    make_stale((struct guard *)dev, event, "an event");
    um_free(event);
}

static um_status event_record(um_device *dev, enum um_queue q, um_event *event)
{
    return submit(dev, q, &(struct command){.kind = RECORD, .event = (struct guard_event *)event});
}

static um_status event_wait(um_device *dev, enum um_queue q, um_event *event)
{
    return submit(dev, q, &(struct command){.kind = WAIT, .event = (struct guard_event *)event});
}

static um_status event_sync(um_device *dev, um_event *event)
{
    struct guard *g = (struct guard *)dev;
    const struct guard_event *e = (struct guard_event *)event;
    um_status st = run_until(g, e->lane, e->seq);
    if (st == UM_OK)
        st = check_all_red(g);
    if (st == UM_OK)
        host_learns(g, &e->clock);
    return st;
}

static um_status event_elapsed(um_device *dev, um_event *from, um_event *to, uint64_t *ns)
{
    const struct guard *g = (struct guard *)dev;
    const struct guard_event *a = (struct guard_event *)from, *b = (struct guard_event *)to;
    if (g->host.t[a->lane] < a->seq || g->host.t[b->lane] < b->seq)
        return um_fail(
            UM_EINVAL,
            "um_event_elapsed: the host has not waited for the last record of the event");
    *ns = b->ns > a->ns ? b->ns - a->ns : 0;
    return UM_OK;
}

/* ---- graphs ---- */

static um_status capture_begin(um_device *dev, um_graph **out)
{
    struct guard *g = (struct guard *)dev;
    struct guard_graph *graph = um_zalloc(sizeof *graph);
    *out = (um_graph *)graph;
    if (!graph)
        return um_fail(UM_ENOMEM, "guard: graph");
    graph->next = g->graphs;
    if (graph->next)
        graph->next->prev = graph;
    g->graphs = graph;
    return UM_OK;
}

static um_status capture_end(um_device *dev, um_graph *graph)
{
    (void)dev, (void)graph;
    return UM_OK;
}

static um_status graph_launch(um_device *dev, um_graph *base)
{
    const struct guard_graph *graph = (struct guard_graph *)base;
    if (graph->stale)
        return um_fail(UM_EINVAL, "um_graph_launch: the graph uses \"%s\", which was closed",
                       graph->stale);
    struct guard *g = (struct guard *)dev;
    size_t more[LANES] = {0};
    for (size_t i = 0; i < graph->n; i++)
        more[graph->list[i].lane]++;
    um_status st = UM_OK;
    for (int i = 0; st == UM_OK && i < LANES; i++) /* room for all or nothing is launched */
        st = ring_room(&g->lane[i], more[i]);
    for (size_t i = 0; st == UM_OK && i < graph->n; i++)
        st = enqueue(g, graph->list[i].lane, &graph->list[i].command);
    return st;
}

static void graph_destroy(um_device *dev, um_graph *base)
{
    struct guard *g = (struct guard *)dev;
    struct guard_graph *graph = (struct guard_graph *)base;
    *(graph->prev ? &graph->prev->next : &g->graphs) = graph->next;
    if (graph->next)
        graph->next->prev = graph->prev;
    um_free(graph->list);
    um_free(graph);
}

/* ---- device ---- */

static void guard_close(um_device *dev)
{
    struct guard *g = (struct guard *)dev;
    drain(g);
    for (int i = 0; i < LANES; i++)
        um_free(g->lane[i].ring);
    um_free(g->red);
    um_free(g->saved);
    um_free(g->save);
    um_pool_close(&dev->pool);
    um_free(g);
}

static const struct um_device_fns fns = {UM_DEVICE_FNS, .close = guard_close};

um_status um_guard_open(um_device **out, const um_device_settings *s)
{
    *out = NULL;
    struct guard *g = um_zalloc(sizeof *g);
    if (!g)
        return um_fail(UM_ENOMEM, "device guard");
    g->base.fns = &fns;
    g->base.caps.concurrent = true;
    memcpy(g->base.name, "guard", 6);
    g->page = (size_t)sysconf(_SC_PAGESIZE);
    g->random = s->guard_seed;
    g->red = um_alloc(2 * g->page + 1);
    g->saved = um_alloc(SAVED_BYTES);
    g->save = um_array(SAVED_MAX, sizeof *g->save);
    um_status st = UM_OK;
    if (!g->red || !g->saved || !g->save)
        st = um_fail(UM_ENOMEM, "device guard");
    if (st == UM_OK)
        st = um_pool_open(&g->base.pool, s->threads);
    if (st != UM_OK) {
        guard_close(&g->base);
        return st;
    }
    paint((char *)g->red, 0, 2 * g->page + 1, red);
    *out = &g->base;
    return UM_OK;
}
