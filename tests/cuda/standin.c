/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for the NVIDIA driver: a library with the driver's functions that runs kernels on the
 * host, so that a machine without a GPU proves what the GPU backend asks of a driver.
 *
 *   Memory   Device memory is one reserved range, inaccessible except while commands run; it starts
 *            as NaN and lies between red zones and a page that nobody may touch. Pinned memory is
 *            inaccessible from the submit of a copy to the wait that covers it.
 *   Time     Nothing runs at submit. At a wait, what must have run runs, in a seeded legal order;
 *            other commands run or stay.
 *   Order    Every command knows what comes before it and what it touches. Two overlapping
 *            accesses, one of them a write, without a path between them are an error, whatever
 * order the seed would have chosen. Paths are searched, not kept as vector clocks: graphs may have
 * any shape, and few commands are in flight. Capture  What a driver refuses in a capture is refused
 * with its codes, and ends the capture.
 *
 * Handles live until um_standin_reset(), so that the use of a destroyed one is noticed. */
#define _GNU_SOURCE /* memfd_create() */
#include "standin.h"

#include "device/cuda_driver.h"
#include "host_launch.h"
#include "nn/cuda/images.h"
#include "nn/cuda/test.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    DEVICES = 16,
    TOUCHES = 64,
    FAULTS = 16,
    NAME = 128,
    RED = 256,                 /* bytes of red zone at least */
    SHARED_DEFAULT = 48 << 10, /* dynamic shared memory without an attribute */
    SHARED_OPTIN = 99 << 10,   /* with it, on every GPU from sm_80 on */
    PASS = -1                  /* of enter(): go on */
};
static const size_t reserve = (size_t)16 << 30;
static const uint8_t poison[2] = {0xfe, 0x7f}, red[2] = {0xf5, 0x7f};

/* ---- what there is ---- */

struct set {
    uint64_t *v;
    size_t n, room;
};

struct access {
    uintptr_t at;
    size_t n;
    bool write;
};

enum kind { KERNEL, UP, DOWN, COPY, FILL, DISCARD, RECORD, JOIN, AWAIT };
static const char *const kind_name[] = {"kernel", "upload",         "download",
                                        "copy",   "fill",           "discard",
                                        "record", "end of a graph", "external wait"};

/* What a command does: of a node of a graph and of each of its launches, or of one submit. */
struct work {
    int refs;
    enum kind kind;
    uint8_t value;
    uintptr_t dst, src;
    size_t n;
    struct CUevent_st *event;
    struct CUfunc_st *function;
    unsigned grid[3], threads, shared;
    void *args;
    char step[NAME];
    struct access *access;
    size_t accesses;
};

/* A command in flight: submitted and not covered by a wait of the host. */
struct op {
    uint64_t id, mark;
    struct work *work;
    struct set before;
    int stream;
    bool done;
};

struct node {
    struct work *work;
    struct set before; /* indices of nodes */
    int stream;
};

struct capture {
    struct capture *next;
    struct CUgraph_st *graph;
    struct CUstream_st *origin;
    pthread_t thread;
    unsigned mode;
    bool invalid, ended;
};

struct memory {
    struct memory *next; /* by address */
    char *at;
    size_t n, open; /* bytes; bytes from the red zone before them to the one behind */
    char writer[NAME];
};

struct pinned {
    struct pinned *next;
    char *seen, *map; /* the host's, and the same pages for copies */
    size_t n, bytes;
    int pending;
};

/* Handles. `next` first: they share lists. */
struct handle {
    struct handle *next;
    bool dead;
};
struct CUctx_st {
    int retained;
};
struct CUmod_st {
    struct handle handle;
    const struct um_cuda_image *image;
};
struct CUfunc_st {
    struct handle handle;
    char name[NAME];
    size_t size;
    unsigned shared_max;
    bool loaded;
};
struct CUstream_st {
    struct handle handle;
    int number;
    struct set tail, nodes; /* what comes next comes after these: commands, or nodes in a capture */
    struct capture *capture;
};
struct CUevent_st {
    struct handle handle;
    unsigned flags;
    uint64_t id; /* of its last record, 0 for none */
    uint64_t ns, polled;
    int polls;
    struct capture *capture; /* that recorded it last */
    struct set nodes;
};
struct CUgraph_st {
    struct handle handle;
    struct node *node;
    size_t n, room;
};
struct CUgraphExec_st {
    struct handle handle;
    struct CUgraph_st *graph;
};

struct fault {
    char api[NAME];
    int k;
    unsigned code;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    bool ready;
    int devices, driver, major, minor;
    uint64_t random;
    bool shapes_only;
    char hidden[FAULTS][NAME], mutated[FAULTS][NAME];
    struct fault fault[FAULTS];
    int kernel_k;
    unsigned kernel_code;
    unsigned dead, pending; /* every call returns it; the next wait will */
    char text[512];

    size_t page;
    char *base;
    struct memory *memory;
    struct pinned *pinned;
    struct CUctx_st context[DEVICES];
    struct handle *module, *function, *stream, *event, *graph, *exec;
    int streams;
    struct capture *capture;
    struct op **op; /* in flight, by id */
    size_t ops, room;
    uint64_t ids, epoch;
    struct access touch[TOUCHES];
    size_t touches;
    char step[NAME];
    struct um_standin_counts counts;
    struct CUgraph_st *last;
} g;
static _Thread_local struct CUctx_st *current;
static _Thread_local unsigned interaction; /* of the thread with captures: a mode of these */

/* ---- small things ---- */

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void set_add(struct set *s, uint64_t x)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i] == x)
            return;
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 4;
        s->v = must(realloc(s->v, s->room * sizeof *s->v));
    }
    s->v[s->n++] = x;
}

static void set_join(struct set *a, const struct set *b)
{
    for (size_t i = 0; i < b->n; i++)
        set_add(a, b->v[i]);
}

static void set_one(struct set *s, uint64_t x)
{
    s->n = 0;
    set_add(s, x);
}

static void set_free(struct set *s)
{
    free(s->v);
    *s = (struct set){0};
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t draw(uint64_t n)
{
    uint64_t x = g.random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) % n;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void paint(char *p, size_t n, const uint8_t pattern[2])
{
    uintptr_t at = (uintptr_t)p;
    for (size_t i = 0; i < n; i++)
        p[i] = (char)pattern[(at + i) & 1];
}

static size_t pages(size_t n)
{
    return (n + g.page - 1) / g.page * g.page;
}

__attribute__((format(printf, 2, 3))) static um_cu_result refuse(um_cu_result r, const char *fmt,
                                                                 ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(g.text, sizeof g.text, fmt, ap);
    va_end(ap);
    g.counts.refused += r != 0;
    return r;
}

/* A mistake is told by the next wait, and by every call after that; the first one counts. */
#define VIOLATION(...) \
    ((void)(g.pending ? 0u : (g.pending = UM_STANDIN_VIOLATION, refuse(0, __VA_ARGS__))))

/* After these a driver answers every call with the same code. */
static bool is_sticky(unsigned code)
{
    static const struct {
        unsigned first, last;
    } range[] = {{46, 46},   {214, 214}, {220, 220}, {226, 226},
                 {700, 700}, {702, 702}, {710, 710}, {714, 719},
                 {721, 721}, {805, 810}, {999, 999}, {UM_STANDIN_VIOLATION, UM_STANDIN_VIOLATION}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (code >= range[i].first && code <= range[i].last)
            return true;
    return false;
}

/* ---- settings ---- */

static void copy_name(char to[NAME], const char *name)
{
    snprintf(to, NAME, "%s", name);
}

static void add_name(char list[FAULTS][NAME], const char *name)
{
    int i = 0;
    while (i < FAULTS - 1 && list[i][0])
        i++;
    copy_name(list[i], name);
}

static bool has_name(char list[FAULTS][NAME], const char *name)
{
    for (int i = 0; i < FAULTS; i++)
        if (list[i][0] && strcmp(list[i], name) == 0)
            return true;
    return false;
}

static void add_fault(const char *api, int k, unsigned code)
{
    int i = 0;
    while (i < FAULTS - 1 && g.fault[i].k > 0)
        i++;
    copy_name(g.fault[i].api, api);
    g.fault[i].k = k;
    g.fault[i].code = code;
}

static int number(const char *variable, int otherwise)
{
    const char *s = getenv(variable);
    return s && *s ? atoi(s) : otherwise;
}

static void read_environment(void)
{
    g.devices = number("UM_STANDIN_DEVICES", 1);
    g.driver = number("UM_STANDIN_DRIVER", 13000);
    g.major = 9;
    g.random = (uint64_t)number("UM_STANDIN_SEED", 1);
    const char *hide = getenv("UM_STANDIN_HIDE");
    if (hide && *hide)
        add_name(g.hidden, hide);
    const char *fail = getenv("UM_STANDIN_FAIL");
    char api[NAME];
    int k, used;
    unsigned code;
    while (fail && sscanf(fail, "%127[^:]:%d:%u%n", api, &k, &code, &used) == 3) {
        add_fault(api, k, code);
        fail += used;
        fail += *fail == ',';
    }
}

static void setup(void)
{
    if (g.ready)
        return;
    g.ready = true;
    g.page = (size_t)sysconf(_SC_PAGESIZE);
    if (!g.base)
        g.base = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g.base == MAP_FAILED)
        abort();
    read_environment();
}

/* ---- memory ---- */

static char *opened(const struct memory *m)
{
    return m->at - g.page;
}

static void protect_all(int protection)
{
    for (const struct memory *m = g.memory; m; m = m->next)
        mprotect(opened(m), m->open, protection);
}

static struct memory *memory_at(uintptr_t at, size_t n)
{
    for (struct memory *m = g.memory; m; m = m->next) {
        uintptr_t start = (uintptr_t)m->at;
        if (at >= start && at - start <= m->n && n <= m->n - (at - start))
            return m;
    }
    return NULL;
}

static struct pinned *pinned_at(uintptr_t at, size_t n)
{
    for (struct pinned *p = g.pinned; p; p = p->next) {
        uintptr_t start = (uintptr_t)p->seen;
        if (at >= start && at - start <= p->n && n <= p->n - (at - start))
            return p;
    }
    return NULL;
}

static void check_zone(const struct memory *m, const char *zone, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (zone[i] != (char)red[((uintptr_t)zone + i) & 1]) {
            VIOLATION("red zone of an allocation of %zu bytes overwritten at offset %lld; its last "
                      "writer is \"%s\"",
                      m->n, (long long)(zone + i - m->at), m->writer);
            return;
        }
}

static void check_zones(void)
{
    for (const struct memory *m = g.memory; m; m = m->next) {
        check_zone(m, opened(m), g.page);
        check_zone(m, m->at + m->n, m->open - g.page - m->n);
    }
}

/* ---- work ---- */

static struct work *work_new(enum kind kind)
{
    struct work *w = must(calloc(1, sizeof *w));
    w->kind = kind;
    return w;
}

static void work_free(struct work *w)
{
    if (--w->refs > 0)
        return;
    free(w->args);
    free(w->access);
    free(w);
}

static void uses(struct work *w, uintptr_t at, size_t n, bool write)
{
    w->access = must(realloc(w->access, (w->accesses + 1) * sizeof *w->access));
    w->access[w->accesses++] = (struct access){at, n, write};
}

static const char *work_name(const struct work *w)
{
    return w->step[0] ? w->step : w->kind == KERNEL ? w->function->name : kind_name[w->kind];
}

static char *seen_by_copies(uintptr_t at)
{
    const struct pinned *p = pinned_at(at, 0);
    return p->map + (at - (uintptr_t)p->seen);
}

static void run_kernel(const struct work *w)
{
    const struct CUfunc_st *f = w->function;
    const char *trouble = NULL;
    if (!g.shapes_only)
        trouble = um_host_launch(f->name, w->grid, w->threads, w->shared, w->args, f->size);
    for (size_t i = 0; g.shapes_only && i < w->accesses;
         i++) /* a number, though not the right one */
        if (w->access[i].write)
            memset((void *)w->access[i].at, 0, w->access[i].n);
    if (trouble)
        VIOLATION("kernel \"%s\" of step \"%s\": %s", f->name, w->step, trouble);
    if (g.kernel_k > 0 && --g.kernel_k == 0 && !g.pending) {
        g.pending = g.kernel_code;
        refuse(0, "in kernel \"%s\" of step \"%s\"", f->name, w->step);
    }
}

static void execute(const struct op *o)
{
    const struct work *w = o->work;
    char *dst = (char *)w->dst, *src = (char *)w->src;
    for (size_t i = 0; i < w->accesses; i++) {
        struct memory *m = memory_at(w->access[i].at, 0);
        if (m && w->access[i].write)
            copy_name(m->writer, work_name(w));
    }
    switch (w->kind) {
    case KERNEL: run_kernel(w); break;
    case UP: memcpy(dst, seen_by_copies(w->src), w->n); break;
    case DOWN: memcpy(seen_by_copies(w->dst), src, w->n); break;
    case COPY: memcpy(dst, src, w->n); break;
    case FILL: memset(dst, w->value, w->n); break;
    case DISCARD: paint(dst, w->n, poison); break;
    case RECORD:
        if (w->event->id == o->id)
            w->event->ns = now();
        break;
    case JOIN:
    case AWAIT: break;
    }
}

/* ---- commands in flight ---- */

static struct op *find(uint64_t id)
{
    size_t lo = 0, hi = g.ops;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (g.op[mid]->id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < g.ops && g.op[lo]->id == id ? g.op[lo] : NULL;
}

static bool marked(const struct op *o)
{
    return o->mark == g.epoch;
}

/* Mark these commands and all that come before them. A command comes after what has a smaller id,
 * so one pass downwards is enough. */
static void mark_before(const struct set *ids)
{
    g.epoch++;
    for (size_t i = 0; i < ids->n; i++) {
        struct op *o = find(ids->v[i]);
        if (o)
            o->mark = g.epoch;
    }
    for (size_t i = g.ops; i-- > 0;)
        for (size_t k = 0; marked(g.op[i]) && k < g.op[i]->before.n; k++) {
            struct op *o = find(g.op[i]->before.v[k]);
            if (o)
                o->mark = g.epoch;
        }
}

static const struct access *conflict(const struct work *a, const struct work *b)
{
    for (size_t i = 0; i < a->accesses; i++)
        for (size_t k = 0; k < b->accesses; k++) {
            const struct access *x = &a->access[i], *y = &b->access[k];
            if ((x->write || y->write) && x->at < y->at + y->n && y->at < x->at + x->n)
                return x;
        }
    return NULL;
}

/* Whatever is in flight and not before `o` may run at the same time. */
static void check_order(const struct op *o)
{
    mark_before(&o->before);
    for (size_t i = 0; o->work->accesses && i < g.ops; i++) {
        const struct op *other = g.op[i];
        const struct access *x = marked(other) ? NULL : conflict(o->work, other->work);
        if (x)
            VIOLATION("missing event between \"%s\" (stream %d) and \"%s\" (stream %d): the latter "
                      "uses %zu bytes at %#llx, the former some of them, and one writes",
                      work_name(other->work), other->stream, work_name(o->work), o->stream, x->n,
                      (unsigned long long)x->at);
    }
}

static void count(const struct work *w)
{
    struct um_standin_counts *c = &g.counts;
    c->up += w->kind == UP;
    c->up_bytes += w->kind == UP ? w->n : 0;
    c->down += w->kind == DOWN;
    c->down_bytes += w->kind == DOWN ? w->n : 0;
    c->copies += w->kind == COPY;
    c->fills += w->kind == FILL;
    c->discards += w->kind == DISCARD;
    c->kernels += w->kind == KERNEL;
}

static uintptr_t host_side(const struct work *w)
{
    return w->kind == UP ? w->src : w->kind == DOWN ? w->dst : 0;
}

static uint64_t op_add(struct work *w, const struct set *before, int stream)
{
    struct op *o = must(calloc(1, sizeof *o));
    o->work = w;
    o->stream = stream;
    w->refs++;
    for (size_t i = 0; i < before->n; i++)
        if (find(before->v[i]))
            set_add(&o->before, before->v[i]);
    check_order(o);
    o->id = ++g.ids;
    if (g.ops == g.room) {
        g.room = g.room ? 2 * g.room : 256;
        g.op = must(realloc(g.op, g.room * sizeof *g.op));
    }
    g.op[g.ops++] = o;
    count(w);
    if (host_side(w)) {
        struct pinned *p = pinned_at(host_side(w), w->n);
        if (p->pending++ == 0)
            mprotect(p->seen, p->bytes, PROT_NONE);
    }
    if (w->kind == RECORD) {
        w->event->id = o->id;
        w->event->capture = NULL;
    }
    return o->id;
}

static void op_free(struct op *o)
{
    struct pinned *p = host_side(o->work) ? pinned_at(host_side(o->work), 0) : NULL;
    if (p && --p->pending == 0)
        mprotect(p->seen, p->bytes, PROT_READ | PROT_WRITE);
    work_free(o->work);
    set_free(&o->before);
    free(o);
}

/* The host knows that what is marked has run. */
static void retire_marked(void)
{
    size_t n = 0;
    for (size_t i = 0; i < g.ops; i++) {
        if (marked(g.op[i]))
            op_free(g.op[i]);
        else
            g.op[n++] = g.op[i];
    }
    g.ops = n;
}

/* ---- time: which command runs when ---- */

static bool ready(const struct op *o)
{
    for (size_t i = 0; i < o->before.n; i++) {
        const struct op *p = find(o->before.v[i]);
        if (p && !p->done)
            return false;
    }
    return !o->done;
}

static void run(struct op *o)
{
    execute(o);
    o->done = true;
}

static bool all_done(const struct set *ids)
{
    for (size_t i = 0; i < ids->n; i++) {
        const struct op *o = find(ids->v[i]);
        if (o && !o->done)
            return false;
    }
    return true;
}

/* Only these and what must come before them. */
static void run_needed(const struct set *ids)
{
    mark_before(ids);
    for (size_t i = 0; i < g.ops && !g.pending; i++)
        if (marked(g.op[i]) && !g.op[i]->done)
            run(g.op[i]);
}

/* Up to `burst` commands that may run, from a random one on. */
static void run_some(uint64_t burst, const struct set *until)
{
    size_t i = g.ops ? draw(g.ops) : 0;
    for (size_t seen = 0; seen < g.ops && burst && !g.pending; seen++, i = (i + 1) % g.ops)
        if (ready(g.op[i]) && !all_done(until)) {
            run(g.op[i]);
            burst--;
        }
}

static um_cu_result wait_for(const struct set *ids)
{
    uint64_t burst = draw(3) == 0 ? 0 : draw(2) ? 2 : 64;
    protect_all(PROT_READ | PROT_WRITE);
    if (burst == 0)
        run_needed(ids);
    while (!g.pending && !all_done(ids))
        run_some(1 + draw(burst), ids);
    check_zones();
    protect_all(PROT_NONE);
    if (g.pending) {
        if (is_sticky(g.pending))
            g.dead = g.pending;
        um_cu_result r = g.pending;
        g.pending = 0;
        return r;
    }
    mark_before(ids);
    retire_marked();
    return 0;
}

/* ---- entry ---- */

enum { ANY, CONTEXT = 1, UNSAFE = 2 }; /* UNSAFE: not while something is captured */

static void unlock(const int *held)
{
    (void)held;
    pthread_mutex_unlock(&lock);
}

static int take_lock(void)
{
    pthread_mutex_lock(&lock);
    setup();
    return 0;
}
#define LOCKED __attribute__((cleanup(unlock), unused)) const int held = take_lock()

static um_cu_result kill_capture(struct capture *c, um_cu_result r, const char *why)
{
    if (c && !c->ended)
        c->invalid = true;
    return refuse(r, "%s", why);
}

static struct capture *capture_of_thread(void)
{
    for (struct capture *c = g.capture; c; c = c->next)
        if (!c->ended && pthread_equal(c->thread, pthread_self()))
            return c;
    return NULL;
}

static struct capture *capture_of_others(void)
{
    for (struct capture *c = g.capture; c; c = c->next)
        if (!c->ended && c->mode == UM_CU_STREAM_CAPTURE_MODE_GLOBAL)
            return c;
    return NULL;
}

/* "The operation is not permitted when the stream is capturing": a thread with a capture is
 * "prohibited from potentially unsafe API calls", and so are all others while one is captured in
 * mode GLOBAL, but for those that set a mode of their own. */
static um_cu_result check_safe(void)
{
    struct capture *c = capture_of_thread();
    if (interaction == UM_CU_STREAM_CAPTURE_MODE_RELAXED)
        return 0;
    if (!c && interaction == UM_CU_STREAM_CAPTURE_MODE_GLOBAL)
        c = capture_of_others();
    return c ? kill_capture(c, UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not while capturing") : 0;
}

static int enter(const char *api, int rules)
{
    g.counts.calls++;
    if (g.dead)
        return (int)g.dead;
    if (!g.pending)
        g.text[0] = 0;
    for (int i = 0; i < FAULTS; i++) {
        struct fault *f = &g.fault[i];
        if (f->k == 0 || strcmp(f->api, api) != 0 || --f->k > 0)
            continue;
        if (is_sticky(f->code))
            g.dead = f->code;
        return (int)f->code;
    }
    if (has_name(g.mutated, api))
        return 0;
    if ((rules & CONTEXT) && (!current || !current->retained))
        return (int)refuse(UM_CU_ERROR_INVALID_CONTEXT, "%s: no context is current", api);
    um_cu_result unsafe = rules & UNSAFE ? check_safe() : 0;
    return unsafe ? (int)unsafe : PASS;
}

#define ENTER(api, rules)             \
    LOCKED;                           \
    int refused = enter(#api, rules); \
    if (refused != PASS)              \
    return (um_cu_result)refused

static void *handle_new(struct handle **list, size_t size)
{
    struct handle *h = must(calloc(1, size));
    h->next = *list;
    *list = h;
    return h;
}

static bool is_live(const struct handle *list, const void *handle)
{
    for (; list; list = list->next)
        if (list == handle)
            return !list->dead;
    return false;
}

static um_cu_result destroy(const struct handle *list, void *handle)
{
    if (!is_live(list, handle))
        return refuse(UM_CU_ERROR_INVALID_HANDLE, "no such object, or destroyed before");
    ((struct handle *)handle)->dead = true;
    return 0;
}

static um_cu_result check_stream(const struct CUstream_st *s)
{
    if (!s && capture_of_thread())
        return kill_capture(capture_of_thread(), UM_CU_ERROR_STREAM_CAPTURE_IMPLICIT,
                            "the legacy stream while capturing");
    return is_live(g.stream, s) ? 0 : refuse(UM_CU_ERROR_INVALID_HANDLE, "no such stream");
}

static um_cu_result check_event(const struct CUevent_st *e)
{
    return is_live(g.event, e) ? 0 : refuse(UM_CU_ERROR_INVALID_HANDLE, "no such event");
}

/* ---- the driver's functions ---- */

#define DECLARE(name, version, required, parameters) static um_cu_result name parameters;
UM_CU_SYMBOLS(DECLARE)

static const struct symbol {
    const char *name;
    int version;
    void (*function)(void);
} symbols[] = {
#define SYMBOL(name, version, required, parameters) {#name, version, (void (*)(void))name},
    UM_CU_SYMBOLS(SYMBOL)};

EXPORT um_cu_result cuGetProcAddress_v2(const char *name, void **function, int version,
                                        uint64_t flags, unsigned *status);
EXPORT um_cu_result cuGetProcAddress_v2(const char *name, void **function, int version,
                                        uint64_t flags, unsigned *status)
{
    LOCKED;
    (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        const struct symbol *s = &symbols[i];
        if (strcmp(s->name, name) == 0 && s->version <= version && s->version <= g.driver &&
            !has_name(g.hidden, name))
            memcpy(function, &s->function, sizeof *function);
    }
    if (status)
        *status = *function == NULL;
    return *function ? 0 : UM_CU_ERROR_NOT_FOUND;
}

EXPORT um_cu_result cuDriverGetVersion(int *version);
EXPORT um_cu_result cuDriverGetVersion(int *version)
{
    LOCKED;
    *version = g.driver;
    return 0;
}

static um_cu_result cuInit(unsigned flags)
{
    ENTER(cuInit, ANY);
    (void)flags;
    return g.devices > 0 ? 0 : UM_CU_ERROR_NO_DEVICE;
}

static um_cu_result cuGetErrorName(um_cu_result error, const char **text)
{
    switch (error) {
#define CASE(name, value) \
    case value: *text = "CUDA_ERROR_" #name; return 0;
        UM_CU_ERRORS(CASE)
#undef CASE
    case UM_STANDIN_VIOLATION: *text = "UM_STANDIN_VIOLATION"; return 0;
    default: *text = NULL; return UM_CU_ERROR_INVALID_VALUE;
    }
}

static um_cu_result cuGetErrorString(um_cu_result error, const char **text)
{
    *text = error == UM_CU_ERROR_OUT_OF_MEMORY ? "out of memory"
            : error == UM_STANDIN_VIOLATION    ? "the stand-in found a mistake"
                                               : "reported by the stand-in";
    return 0;
}

static um_cu_result cuDeviceGetCount(int *n)
{
    ENTER(cuDeviceGetCount, ANY);
    *n = g.devices;
    return 0;
}

static um_cu_result cuDeviceGet(um_cu_device *device, int ordinal)
{
    ENTER(cuDeviceGet, ANY);
    *device = ordinal;
    return ordinal >= 0 && ordinal < g.devices ? 0 : UM_CU_ERROR_INVALID_DEVICE;
}

static um_cu_result cuDeviceGetName(char *name, int size, um_cu_device device)
{
    ENTER(cuDeviceGetName, ANY);
    snprintf(name, (size_t)size, "stand-in %d", device);
    return 0;
}

static um_cu_result cuDeviceGetAttribute(int *value, unsigned attribute, um_cu_device device)
{
    ENTER(cuDeviceGetAttribute, ANY);
    (void)device;
    switch (attribute) {
    case UM_CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; return 0;
    case UM_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = g.major; return 0;
    case UM_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = g.minor; return 0;
    case UM_CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = SHARED_OPTIN; return 0;
    default: return UM_CU_ERROR_INVALID_VALUE;
    }
}

static um_cu_result cuDeviceTotalMem(size_t *bytes, um_cu_device device)
{
    ENTER(cuDeviceTotalMem, ANY);
    (void)device;
    *bytes = reserve;
    return 0;
}

/* ---- contexts ---- */

static um_cu_result cuDevicePrimaryCtxRetain(um_cu_context *context, um_cu_device device)
{
    ENTER(cuDevicePrimaryCtxRetain, ANY);
    *context = &g.context[device % DEVICES];
    (*context)->retained++;
    return 0;
}

static um_cu_result cuDevicePrimaryCtxRelease(um_cu_device device)
{
    ENTER(cuDevicePrimaryCtxRelease, ANY);
    if (g.context[device % DEVICES].retained == 0)
        return UM_CU_ERROR_INVALID_CONTEXT;
    g.context[device % DEVICES].retained--;
    return 0;
}

static um_cu_result cuCtxGetCurrent(um_cu_context *context)
{
    ENTER(cuCtxGetCurrent, ANY);
    *context = current;
    return 0;
}

static um_cu_result cuCtxSetCurrent(um_cu_context context)
{
    ENTER(cuCtxSetCurrent, ANY);
    current = context;
    return 0;
}

static um_cu_result cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER(cuCtxGetStreamPriorityRange, CONTEXT);
    *least = 0;
    *greatest = -5;
    return 0;
}

/* ---- modules ---- */

/* As in a build, one per source: a name is all there is of the data. They mark the library for
 * the backend, too. */
#define QUOTED(kernel) #kernel,
#define IMAGE(name, kernels) {#name, #name, (const char *const[]){kernels(QUOTED) NULL}},
EXPORT extern const struct um_cuda_image um_standin_images[];
const struct um_cuda_image um_standin_images[] = {
    UM_CUDA_IMAGES(IMAGE) IMAGE(test, UM_CUDA_TEST_KERNELS){NULL, NULL, NULL}};

static um_cu_result cuModuleLoadData(um_cu_module *module, const void *image)
{
    ENTER(cuModuleLoadData, CONTEXT | UNSAFE);
    const struct um_cuda_image *own = um_standin_images;
    while (own->name && own->data != image)
        own++;
    if (!own->name)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "no image of the stand-in");
    *module = handle_new(&g.module, sizeof **module);
    (*module)->image = own;
    return 0;
}

static um_cu_result cuModuleUnload(um_cu_module module)
{
    ENTER(cuModuleUnload, CONTEXT | UNSAFE);
    return destroy(g.module, module);
}

static um_cu_result cuModuleGetFunction(um_cu_function *function, um_cu_module module,
                                        const char *name)
{
    ENTER(cuModuleGetFunction, CONTEXT);
    if (!is_live(g.module, module))
        return UM_CU_ERROR_INVALID_HANDLE;
    const char *const *k = module->image->kernels;
    while (*k && strcmp(*k, name) != 0)
        k++;
    int size = *k ? um_host_kernel_size(name) : -1;
    if (size < 0)
        return refuse(UM_CU_ERROR_NOT_FOUND, "no kernel \"%s\" in image \"%s\"", name,
                      module->image->name);
    *function = handle_new(&g.function, sizeof **function);
    copy_name((*function)->name, name);
    (*function)->size = (size_t)size;
    (*function)->shared_max = SHARED_DEFAULT;
    return 0;
}

static um_cu_result cuFuncLoad(um_cu_function function)
{
    ENTER(cuFuncLoad, CONTEXT | UNSAFE);
    function->loaded = true;
    return 0;
}

static um_cu_result cuFuncGetAttribute(int *value, unsigned attribute, um_cu_function function)
{
    ENTER(cuFuncGetAttribute, CONTEXT);
    if (attribute != UM_CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
        return UM_CU_ERROR_INVALID_VALUE;
    function->loaded = true;
    *value = 0;
    return 0;
}

static um_cu_result cuFuncSetAttribute(um_cu_function function, unsigned attribute, int value)
{
    ENTER(cuFuncSetAttribute, CONTEXT);
    if (attribute != UM_CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        value > SHARED_OPTIN)
        return UM_CU_ERROR_INVALID_VALUE;
    function->shared_max = (unsigned)value;
    return 0;
}

static um_cu_result cuFuncGetParamInfo(um_cu_function function, size_t index, size_t *offset,
                                       size_t *size)
{
    ENTER(cuFuncGetParamInfo, CONTEXT);
    *offset = 0;
    *size = function->size;
    return index == 0 ? 0 : UM_CU_ERROR_INVALID_VALUE;
}

/* ---- memory ---- */

/* The first gap that fits: a page of red zone, the data, red zone to the end of a page, and a page
 * that stays closed. */
static um_cu_result cuMemAlloc(um_cu_ptr *memory, size_t bytes)
{
    ENTER(cuMemAlloc, CONTEXT | UNSAFE);
    if (bytes == 0)
        return UM_CU_ERROR_INVALID_VALUE;
    if (bytes > reserve / 2)
        return UM_CU_ERROR_OUT_OF_MEMORY;
    size_t open = g.page + pages(bytes + RED), need = open + g.page;
    char *start = g.base;
    struct memory **place = &g.memory;
    while (*place && (size_t)(opened(*place) - start) < need) {
        start = opened(*place) + (*place)->open + g.page;
        place = &(*place)->next;
    }
    if (need > reserve - (size_t)(start - g.base))
        return UM_CU_ERROR_OUT_OF_MEMORY;
    struct memory *m = must(calloc(1, sizeof *m));
    *m = (struct memory){
        .next = *place, .at = start + g.page, .n = bytes, .open = open, .writer = "nobody"};
    *place = m;
    mprotect(opened(m), m->open, PROT_READ | PROT_WRITE);
    paint(opened(m), m->open, red);
    paint(m->at, m->n, poison);
    mprotect(opened(m), m->open, PROT_NONE);
    *memory = (uintptr_t)m->at;
    return 0;
}

/* A driver may wait here, or may not: nothing in flight may use the memory. */
static um_cu_result check_unused(const char *at, size_t n)
{
    const struct access a = {(uintptr_t)at, n, true};
    struct work probe = {.access = (struct access *)&a, .accesses = 1};
    for (size_t i = 0; i < g.ops; i++)
        if (conflict(&probe, g.op[i]->work)) {
            g.dead = UM_STANDIN_VIOLATION;
            return refuse(g.dead, "memory is freed that \"%s\" in flight uses",
                          work_name(g.op[i]->work));
        }
    return 0;
}

static void memory_free(struct memory **place)
{
    struct memory *m = *place;
    *place = m->next;
    mmap(opened(m), m->open, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
         0);
    free(m);
}

static um_cu_result cuMemFree(um_cu_ptr memory)
{
    ENTER(cuMemFree, CONTEXT | UNSAFE);
    struct memory **place = &g.memory;
    while (*place && (uintptr_t)(*place)->at != memory)
        place = &(*place)->next;
    if (!*place)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "no such memory, or freed before");
    um_cu_result r = check_unused((*place)->at, (*place)->n);
    if (r == 0)
        memory_free(place);
    return r;
}

static um_cu_result cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    ENTER(cuMemHostAlloc, CONTEXT | UNSAFE);
    (void)flags;
    if (bytes > reserve)
        return UM_CU_ERROR_OUT_OF_MEMORY;
    size_t whole = pages(bytes) + g.page; /* with one that stays closed */
    int fd = memfd_create("ultramotion-standin", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)whole) != 0)
        abort();
    struct pinned *p = must(calloc(1, sizeof *p));
    p->n = bytes;
    p->bytes = pages(bytes);
    p->map = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    p->seen = mmap(NULL, whole, PROT_NONE, MAP_SHARED, fd, 0);
    close(fd);
    if (p->map == MAP_FAILED || p->seen == MAP_FAILED)
        abort();
    mprotect(p->seen, p->bytes, PROT_READ | PROT_WRITE);
    paint(p->map, p->bytes, poison);
    p->next = g.pinned;
    g.pinned = p;
    *memory = p->seen;
    return 0;
}

static void pinned_free(struct pinned **place)
{
    struct pinned *p = *place;
    *place = p->next;
    munmap(p->map, p->bytes + g.page);
    munmap(p->seen, p->bytes + g.page);
    free(p);
}

static um_cu_result cuMemFreeHost(void *memory)
{
    ENTER(cuMemFreeHost, CONTEXT | UNSAFE);
    struct pinned **place = &g.pinned;
    while (*place && (*place)->seen != memory)
        place = &(*place)->next;
    if (!*place)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "no such pinned memory, or freed before");
    um_cu_result r = check_unused((*place)->seen, (*place)->n);
    if (r == 0)
        pinned_free(place);
    return r;
}

/* ---- submit ---- */

static um_cu_result submit(struct CUstream_st *s, struct work *w)
{
    if (!s->capture) {
        set_one(&s->tail, op_add(w, &s->tail, s->number));
        return 0;
    }
    if (s->capture->invalid) {
        w->refs = 1;
        work_free(w);
        return refuse(UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture failed before");
    }
    struct CUgraph_st *graph = s->capture->graph;
    if (graph->n == graph->room) {
        graph->room = graph->room ? 2 * graph->room : 64;
        graph->node = must(realloc(graph->node, graph->room * sizeof *graph->node));
    }
    struct node *node = &graph->node[graph->n];
    *node = (struct node){.work = w, .stream = s->number};
    w->refs++;
    set_join(&node->before, &s->nodes);
    set_one(&s->nodes, graph->n++);
    return 0;
}

static um_cu_result check_device(um_cu_ptr at, size_t n)
{
    return memory_at(at, n) ? 0
                            : refuse(UM_CU_ERROR_INVALID_VALUE,
                                     "%zu bytes at %#llx are not in one allocation", n, at);
}

static um_cu_result check_pinned(const void *at, size_t n)
{
    return pinned_at((uintptr_t)at, n) ? 0
                                       : refuse(UM_CU_ERROR_INVALID_VALUE,
                                                "%zu bytes at %p are not in pinned memory", n, at);
}

static um_cu_result submit_bytes(struct CUstream_st *s, enum kind kind, uintptr_t dst,
                                 uintptr_t src, size_t n, uint8_t value)
{
    struct work *w = work_new(kind);
    w->dst = dst;
    w->src = src;
    w->n = n;
    w->value = value;
    uses(w, dst, n, true);
    if (src)
        uses(w, src, n, false);
    return submit(s, w);
}

static um_cu_result cuMemcpyHtoDAsync(um_cu_ptr dst, const void *src, size_t n, um_cu_stream s)
{
    ENTER(cuMemcpyHtoDAsync, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_device(dst, n);
    r = r ? r : check_pinned(src, n);
    return r ? r : submit_bytes(s, UP, dst, (uintptr_t)src, n, 0);
}

static um_cu_result cuMemcpyDtoHAsync(void *dst, um_cu_ptr src, size_t n, um_cu_stream s)
{
    ENTER(cuMemcpyDtoHAsync, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_device(src, n);
    r = r ? r : check_pinned(dst, n);
    return r ? r : submit_bytes(s, DOWN, (uintptr_t)dst, src, n, 0);
}

static um_cu_result cuMemcpyDtoDAsync(um_cu_ptr dst, um_cu_ptr src, size_t n, um_cu_stream s)
{
    ENTER(cuMemcpyDtoDAsync, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_device(dst, n);
    r = r ? r : check_device(src, n);
    return r ? r : submit_bytes(s, COPY, dst, src, n, 0);
}

static um_cu_result cuMemsetD8Async(um_cu_ptr dst, unsigned char value, size_t n, um_cu_stream s)
{
    ENTER(cuMemsetD8Async, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_device(dst, n);
    return r ? r : submit_bytes(s, FILL, dst, 0, n, value);
}

EXPORT um_cu_result um_standin_discard(um_cu_ptr memory, size_t bytes, um_cu_stream s);
EXPORT um_cu_result um_standin_discard(um_cu_ptr memory, size_t bytes, um_cu_stream s)
{
    ENTER(um_standin_discard, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_device(memory, bytes);
    return r ? r : submit_bytes(s, DISCARD, memory, 0, bytes, 0);
}

EXPORT um_cu_result um_standin_touch(const char *step, const struct um_cuda_touch *list, int n);
EXPORT um_cu_result um_standin_touch(const char *step, const struct um_cuda_touch *list, int n)
{
    ENTER(um_standin_touch, ANY);
    if (n > TOUCHES)
        return UM_CU_ERROR_INVALID_VALUE;
    copy_name(g.step, step);
    for (g.touches = 0; g.touches < (size_t)n; g.touches++) {
        const struct um_cuda_touch *t = &list[g.touches];
        g.touch[g.touches] = (struct access){(uintptr_t)t->at, t->bytes, t->write};
    }
    return 0;
}

static um_cu_result cuLaunchKernel(um_cu_function f, unsigned grid_x, unsigned grid_y,
                                   unsigned grid_z, unsigned block_x, unsigned block_y,
                                   unsigned block_z, unsigned shared, um_cu_stream s,
                                   void **parameters, void **extra)
{
    ENTER(cuLaunchKernel, CONTEXT);
    um_cu_result r = check_stream(s);
    if (r)
        return r;
    if (!is_live(g.function, f) || !parameters || !parameters[0] || extra)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "no such kernel, or not one argument");
    if (grid_x < 1 || grid_x > 0x7fffffff || grid_y < 1 || grid_y > 65535 || grid_z < 1 ||
        grid_z > 65535)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "a grid of %u x %u x %u", grid_x, grid_y, grid_z);
    if (block_x < 1 || block_x > 1024 || block_x % 32 || block_y != 1 || block_z != 1)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "a block of %u x %u x %u threads", block_x,
                      block_y, block_z);
    if (shared > f->shared_max)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "%u bytes of shared memory, at most %u", shared,
                      f->shared_max);
    if (s->capture && !f->loaded)
        return kill_capture(s->capture, UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                            "a kernel is loaded while capturing");
    struct work *w = work_new(KERNEL);
    w->function = f;
    memcpy(w->grid, (unsigned[3]){grid_x, grid_y, grid_z}, sizeof w->grid);
    w->threads = block_x;
    w->shared = shared;
    w->args = must(malloc(f->size ? f->size : 1));
    memcpy(w->args, parameters[0], f->size);
    copy_name(w->step, g.step);
    for (size_t i = 0; i < g.touches; i++)
        uses(w, g.touch[i].at, g.touch[i].n, g.touch[i].write);
    return submit(s, w);
}

/* ---- streams and events ---- */

static um_cu_result cuStreamCreateWithPriority(um_cu_stream *stream, unsigned flags, int priority)
{
    ENTER(cuStreamCreateWithPriority, CONTEXT);
    (void)priority;
    if (flags != UM_CU_STREAM_NON_BLOCKING)
        return refuse(UM_CU_ERROR_INVALID_VALUE, "a stream that waits for the legacy stream");
    *stream = handle_new(&g.stream, sizeof **stream);
    (*stream)->number = g.streams++;
    return 0;
}

static um_cu_result cuStreamDestroy(um_cu_stream stream)
{
    ENTER(cuStreamDestroy, CONTEXT);
    return destroy(g.stream, stream);
}

static um_cu_result cuStreamSynchronize(um_cu_stream s)
{
    ENTER(cuStreamSynchronize, CONTEXT);
    um_cu_result r = check_stream(s);
    if (r == 0 && s->capture)
        r = kill_capture(s->capture, UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                         "a wait for a stream that captures");
    r = r ? r : check_safe();
    g.counts.drains += r == 0;
    return r ? r : wait_for(&s->tail);
}

static um_cu_result cuEventCreate(um_cu_event *event, unsigned flags)
{
    ENTER(cuEventCreate, CONTEXT);
    *event = handle_new(&g.event, sizeof **event);
    (*event)->flags = flags;
    return 0;
}

static um_cu_result cuEventDestroy(um_cu_event event)
{
    ENTER(cuEventDestroy, CONTEXT);
    return destroy(g.event, event);
}

static um_cu_result cuEventRecord(um_cu_event e, um_cu_stream s)
{
    ENTER(cuEventRecord, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_event(e);
    if (r)
        return r;
    if (!s->capture) {
        struct work *w = work_new(RECORD);
        w->event = e;
        return submit(s, w);
    }
    if (s->capture->invalid)
        return refuse(UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture failed before");
    e->capture = s->capture;
    e->nodes.n = 0;
    set_join(&e->nodes, &s->nodes);
    return 0;
}

static um_cu_result cuEventRecordWithFlags(um_cu_event e, um_cu_stream s, unsigned flags)
{
    ENTER(cuEventRecordWithFlags, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_event(e);
    if (r == 0 && (flags != UM_CU_EVENT_RECORD_EXTERNAL || !s->capture))
        r = refuse(UM_CU_ERROR_INVALID_VALUE, "an external record outside of a capture");
    if (r)
        return r;
    struct work *w = work_new(RECORD);
    w->event = e;
    return submit(s, w);
}

static um_cu_result cuStreamWaitEvent(um_cu_stream s, um_cu_event e, unsigned flags)
{
    ENTER(cuStreamWaitEvent, CONTEXT);
    um_cu_result r = check_stream(s);
    r = r ? r : check_event(e);
    if (r == 0 && flags && (flags != UM_CU_EVENT_WAIT_EXTERNAL || !s->capture))
        r = refuse(UM_CU_ERROR_INVALID_VALUE, "an external wait outside of a capture");
    if (r)
        return r;
    if (flags) { /* a node of its own: what it waits for is known at each launch */
        struct work *w = work_new(AWAIT);
        w->event = e;
        return submit(s, w);
    }
    struct capture *c = e->capture;
    if (!c && !s->capture) {
        if (find(e->id))
            set_add(&s->tail, e->id);
        return 0;
    }
    if ((c && c->invalid) || (s->capture && s->capture->invalid))
        return refuse(UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture failed before");
    if (!c && e->id == 0)
        return 0; /* "an event represents an empty set of work" before its first record */
    if (!c || c->ended)
        return kill_capture(s->capture, UM_CU_ERROR_STREAM_CAPTURE_ISOLATION,
                            "the event was not recorded in this capture");
    if (s->capture && s->capture != c) {
        kill_capture(c, 0, "");
        return kill_capture(s->capture, UM_CU_ERROR_STREAM_CAPTURE_MERGE,
                            "the event was recorded in another capture");
    }
    s->capture = c;
    set_join(&s->nodes, &e->nodes);
    return 0;
}

/* The rules of a wait for an event, then what it waits for. */
static um_cu_result awaited(const struct CUevent_st *e, struct set *ids)
{
    um_cu_result r = check_event(e);
    if (r == 0 && e->capture)
        r = kill_capture(e->capture, UM_CU_ERROR_CAPTURED_EVENT,
                         "a wait for an event that was recorded in a capture");
    r = r ? r : check_safe();
    if (r == 0)
        set_add(ids, e->id);
    return r;
}

static um_cu_result finish_wait(const struct set *ids)
{
    um_cu_result r = wait_for(ids);
    g.counts.waits += r == 0;
    return r;
}

/* Some events pass after a few polls, some only when somebody really waits. */
static um_cu_result cuEventQuery(um_cu_event e)
{
    ENTER(cuEventQuery, CONTEXT);
    struct set ids = {0};
    um_cu_result r = awaited(e, &ids);
    if (r == 0 && e->polled != e->id) {
        e->polled = e->id;
        e->polls = draw(2) ? (int)draw(16) : -1;
    }
    if (r == 0 && find(e->id) && e->polls != 0) {
        e->polls -= e->polls > 0;
        r = UM_CU_ERROR_NOT_READY;
    }
    r = r ? r : finish_wait(&ids);
    set_free(&ids);
    return r;
}

static um_cu_result cuEventSynchronize(um_cu_event e)
{
    ENTER(cuEventSynchronize, CONTEXT);
    struct set ids = {0};
    um_cu_result r = awaited(e, &ids);
    r = r ? r : finish_wait(&ids);
    set_free(&ids);
    return r;
}

/* A driver knows when an event has passed; here only what the host has waited for has. */
static um_cu_result cuEventElapsedTime(float *ms, um_cu_event from, um_cu_event to)
{
    ENTER(cuEventElapsedTime, CONTEXT);
    const struct CUevent_st *both[] = {from, to};
    for (int i = 0; i < 2; i++) {
        um_cu_result r = check_event(both[i]);
        if (r)
            return r;
        if (both[i]->id == 0 || both[i]->flags & UM_CU_EVENT_DISABLE_TIMING)
            return refuse(UM_CU_ERROR_INVALID_HANDLE, "never recorded, or keeps no time");
        if (find(both[i]->id))
            return refuse(UM_CU_ERROR_NOT_READY, "the host has not waited for it");
    }
    *ms = (float)(((double)to->ns - (double)from->ns) * 1e-6);
    return 0;
}

/* ---- graphs ---- */

static um_cu_result cuStreamBeginCapture(um_cu_stream s, unsigned mode)
{
    ENTER(cuStreamBeginCapture, CONTEXT);
    um_cu_result r = check_stream(s);
    if (r)
        return r;
    if (s->capture || mode > UM_CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        return refuse(UM_CU_ERROR_ILLEGAL_STATE, "captures already, or in mode RELAXED");
    struct capture *c = must(calloc(1, sizeof *c));
    *c = (struct capture){.next = g.capture,
                          .graph = handle_new(&g.graph, sizeof *c->graph),
                          .origin = s,
                          .thread = pthread_self(),
                          .mode = mode};
    g.capture = c;
    s->capture = c;
    s->nodes.n = 0;
    return 0;
}

static um_cu_result cuThreadExchangeStreamCaptureMode(unsigned *mode)
{
    ENTER(cuThreadExchangeStreamCaptureMode, ANY);
    unsigned was = interaction;
    interaction = *mode;
    *mode = was;
    return 0;
}

static um_cu_result cuStreamIsCapturing(um_cu_stream s, unsigned *status)
{
    ENTER(cuStreamIsCapturing, CONTEXT);
    um_cu_result r = check_stream(s);
    if (r == 0)
        *status = !s->capture ? 0 : s->capture->invalid ? 2 : UM_CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return r;
}

/* "The capture sequence contains a fork that was not joined to the primary stream." */
static bool is_joined(const struct CUgraph_st *graph, const struct set *end)
{
    bool *seen = must(calloc(graph->n + 1, sizeof *seen)), all = true;
    for (size_t i = 0; i < end->n; i++)
        seen[end->v[i]] = true;
    for (size_t i = graph->n; i-- > 0;) {
        all &= seen[i];
        for (size_t k = 0; k < graph->node[i].before.n; k++)
            seen[graph->node[i].before.v[k]] |= seen[i];
    }
    free(seen);
    return all;
}

static um_cu_result cuStreamEndCapture(um_cu_stream s, um_cu_graph *graph)
{
    ENTER(cuStreamEndCapture, CONTEXT);
    *graph = NULL;
    um_cu_result r = check_stream(s);
    if (r)
        return r;
    struct capture *c = s->capture;
    if (!c)
        return refuse(UM_CU_ERROR_ILLEGAL_STATE, "the stream does not capture");
    if (c->origin != s)
        return kill_capture(c, UM_CU_ERROR_STREAM_CAPTURE_UNMATCHED,
                            "the capture was not begun in this stream");
    if (!pthread_equal(c->thread, pthread_self()))
        return kill_capture(c, UM_CU_ERROR_STREAM_CAPTURE_WRONG_THREAD,
                            "the capture was not begun by this thread");
    c->ended = true;
    bool joined = is_joined(c->graph, &s->nodes);
    for (struct handle *h = g.stream; h; h = h->next) {
        struct CUstream_st *other = (struct CUstream_st *)h;
        if (other->capture == c) {
            other->capture = NULL;
            other->nodes.n = 0;
        }
    }
    if (!c->invalid && joined) {
        *graph = c->graph;
        return 0;
    }
    c->graph->handle.dead = true;
    return c->invalid ? refuse(UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture failed before")
                      : refuse(UM_CU_ERROR_STREAM_CAPTURE_UNJOINED, "a fork was not joined");
}

static um_cu_result cuGraphInstantiateWithFlags(um_cu_graph_exec *exec, um_cu_graph graph,
                                                unsigned long long flags)
{
    ENTER(cuGraphInstantiateWithFlags, CONTEXT);
    (void)flags;
    if (!is_live(g.graph, graph))
        return UM_CU_ERROR_INVALID_HANDLE;
    *exec = handle_new(&g.exec, sizeof **exec);
    (*exec)->graph = g.last = graph; /* it stays when the graph is destroyed */
    return 0;
}

static um_cu_result cuGraphUpload(um_cu_graph_exec exec, um_cu_stream s)
{
    ENTER(cuGraphUpload, CONTEXT);
    um_cu_result r = check_stream(s);
    return r ? r : is_live(g.exec, exec) ? 0 : UM_CU_ERROR_INVALID_HANDLE;
}

/* What a graph uses must still be there. A driver does not look. */
static void check_fresh(const struct work *w)
{
    if (w->event && w->event->handle.dead)
        VIOLATION("a graph records an event that was destroyed");
    for (size_t i = 0; i < w->accesses; i++) {
        const struct access *a = &w->access[i];
        if (!memory_at(a->at, a->n) && !pinned_at(a->at, a->n))
            VIOLATION("\"%s\" in a graph uses memory that was freed", work_name(w));
    }
}

static um_cu_result cuGraphLaunch(um_cu_graph_exec exec, um_cu_stream s)
{
    ENTER(cuGraphLaunch, CONTEXT);
    um_cu_result r = check_stream(s);
    if (r == 0 && !is_live(g.exec, exec))
        r = UM_CU_ERROR_INVALID_HANDLE;
    if (r == 0 && s->capture)
        r = kill_capture(s->capture, UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                         "a graph in a capture");
    if (r)
        return r;
    const struct CUgraph_st *graph = exec->graph;
    uint64_t *id = must(calloc(graph->n + 1, sizeof *id));
    struct set end = {0}, before = {0};
    set_join(&end, &s->tail);
    for (size_t i = 0; i < graph->n && !g.pending; i++)
        check_fresh(graph->node[i].work);
    for (size_t i = 0; i < graph->n && !g.pending; i++) {
        const struct node *node = &graph->node[i];
        before.n = 0;
        for (size_t k = 0; k < node->before.n; k++)
            set_add(&before, id[node->before.v[k]]);
        if (!node->before.n)
            set_join(&before, &s->tail);
        if (node->work->kind == AWAIT && is_live(g.event, node->work->event))
            set_add(&before, node->work->event->id);
        else if (node->work->kind == AWAIT)
            VIOLATION("a graph waits for an event that was destroyed%s", "");
        id[i] = op_add(node->work, &before, node->stream);
        set_add(&end, id[i]);
    }
    set_one(&s->tail, op_add(work_new(JOIN), &end, s->number));
    g.counts.graphs++;
    free(id);
    set_free(&end);
    set_free(&before);
    return 0;
}

static um_cu_result cuGraphExecDestroy(um_cu_graph_exec exec)
{
    ENTER(cuGraphExecDestroy, CONTEXT);
    return destroy(g.exec, exec);
}

static um_cu_result cuGraphDestroy(um_cu_graph graph)
{
    ENTER(cuGraphDestroy, CONTEXT);
    return destroy(g.graph, graph);
}

/* ---- controls ---- */

static void free_nodes(struct CUgraph_st *graph)
{
    for (size_t i = 0; i < graph->n; i++) {
        work_free(graph->node[i].work);
        set_free(&graph->node[i].before);
    }
    free(graph->node);
}

static void free_list(struct handle *list)
{
    while (list) {
        struct handle *next = list->next;
        free(list);
        list = next;
    }
}

EXPORT void um_standin_reset(void)
{
    LOCKED;
    for (size_t i = 0; i < g.ops; i++)
        op_free(g.op[i]);
    free(g.op);
    while (g.memory)
        memory_free(&g.memory);
    while (g.pinned)
        pinned_free(&g.pinned);
    for (struct handle *h = g.graph; h; h = h->next)
        free_nodes((struct CUgraph_st *)h);
    for (struct handle *h = g.stream; h; h = h->next) {
        set_free(&((struct CUstream_st *)h)->tail);
        set_free(&((struct CUstream_st *)h)->nodes);
    }
    for (struct handle *h = g.event; h; h = h->next)
        set_free(&((struct CUevent_st *)h)->nodes);
    struct handle *lists[] = {g.module, g.function, g.stream, g.event, g.graph, g.exec};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        free_list(lists[i]);
    while (g.capture) {
        struct capture *next = g.capture->next;
        free(g.capture);
        g.capture = next;
    }
    char *base = g.base;
    memset(&g, 0, sizeof g);
    g.base = base;
    current = NULL;
    interaction = UM_CU_STREAM_CAPTURE_MODE_GLOBAL;
    setup();
}

EXPORT void um_standin_seed(uint64_t seed)
{
    LOCKED;
    g.random = seed;
}

EXPORT void um_standin_devices(int n)
{
    LOCKED;
    g.devices = n;
}

EXPORT void um_standin_capability(int major, int minor)
{
    LOCKED;
    g.major = major;
    g.minor = minor;
}

EXPORT void um_standin_driver(int version)
{
    LOCKED;
    g.driver = version;
}

EXPORT void um_standin_hide(const char *symbol)
{
    LOCKED;
    add_name(g.hidden, symbol);
}

EXPORT void um_standin_fail(const char *api, int k, unsigned code)
{
    LOCKED;
    add_fault(api, k, code);
}

EXPORT void um_standin_fail_kernel(int k, unsigned code)
{
    LOCKED;
    g.kernel_k = k;
    g.kernel_code = code;
}

EXPORT void um_standin_mutate(const char *api)
{
    LOCKED;
    add_name(g.mutated, api);
}

EXPORT void um_standin_shapes_only(int on)
{
    LOCKED;
    g.shapes_only = on != 0;
}

EXPORT void um_standin_counts(struct um_standin_counts *out)
{
    LOCKED;
    *out = g.counts;
}

EXPORT int um_standin_live(void)
{
    LOCKED;
    int n = 0;
    for (const struct memory *m = g.memory; m; m = m->next)
        n++;
    for (const struct pinned *p = g.pinned; p; p = p->next)
        n++;
    for (int i = 0; i < DEVICES; i++)
        n += g.context[i].retained;
    const struct handle *lists[] = {g.module, g.stream, g.event, g.graph, g.exec};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const struct handle *h = lists[i]; h; h = h->next)
            n += !h->dead;
    return n;
}

EXPORT const char *um_standin_error(void)
{
    return g.text;
}

EXPORT void um_standin_graph_stats(struct um_standin_graph_stats *out)
{
    LOCKED;
    *out = (struct um_standin_graph_stats){0};
    const struct CUgraph_st *graph = g.last;
    int *depth = must(calloc(graph ? graph->n + 1 : 1, sizeof *depth));
    for (size_t i = 0; graph && i < graph->n; i++) {
        const struct node *node = &graph->node[i];
        enum kind kind = node->work->kind;
        for (size_t k = 0; k < node->before.n; k++)
            if (depth[i] < depth[node->before.v[k]])
                depth[i] = depth[node->before.v[k]];
        depth[i] += kind != DISCARD;
        out->nodes += kind != DISCARD;
        out->kernels += kind == KERNEL;
        out->copies += kind == UP || kind == DOWN || kind == COPY;
        out->fills += kind == FILL;
        out->records += kind == RECORD;
        out->edges += (int)node->before.n;
        if (out->depth < depth[i])
            out->depth = depth[i];
    }
    free(depth);
}

EXPORT size_t um_standin_graph_dump(char *text, size_t size)
{
    LOCKED;
    size_t n = 0;
#define PRINT(...) \
    (n += (size_t)snprintf(n < size ? text + n : NULL, n < size ? size - n : 0, __VA_ARGS__))
    for (size_t i = 0; g.last && i < g.last->n; i++) {
        const struct node *node = &g.last->node[i];
        const struct work *w = node->work;
        PRINT("%zu %s %s stream %d", i, kind_name[w->kind],
              w->kind == KERNEL ? w->function->name : "-", node->stream);
        for (size_t k = 0; k < node->before.n; k++)
            PRINT("%s%llu", k ? "," : " after ", (unsigned long long)node->before.v[k]);
        PRINT("\n");
    }
#undef PRINT
    return n;
}
