/* SPDX-License-Identifier: Apache-2.0 */
/* Work is split into one contiguous range of items per thread; a thread that has finished its own
 * range takes items from the others'. A range is one word, (job number << 32 | next item), advanced
 * by compare-and-swap: a thread that wakes up late still holds the number of a job that is over, so
 * its swap fails and it touches nothing. The caller therefore waits for items, not for threads. */
#include "base/pool.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/races.h"
#include "base/thread.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

enum {
    LINE = 128,       /* two cache lines: the neighbour is prefetched */
    SPIN_NS = 100000, /* of waiting awake before sleeping: longer than the parts of a frame that not
                         all threads have, because to wake one up takes 30000 on virtual machines */
    SKEW = 256,       /* shifts every worker's scratch, against 4 KiB aliasing */
    MAX_THREADS = 256,
};

struct range {
    _Alignas(LINE) _Atomic uint64_t next;
};

struct worker {
    um_pool *pool;
    pthread_t thread;
    int index;
};

struct um_pool {
    _Alignas(
        LINE) _Atomic uint32_t job; /* number of the current job; workers wait for it to change */
    /* Written by the caller before `job`; atomic because a late worker may read them while the next
     * job is set up. */
    _Atomic(um_pool_fn *) fn;
    _Atomic(void *) ctx;
    atomic_int items;
    _Atomic(const void *) what;
    _Atomic(um_pool_watch_fn *) watch; /* is told; both change while nobody has the pool */
    _Atomic(void *) watch_ctx;
    _Alignas(LINE) atomic_int done; /* items of the current job that have run */
    _Alignas(LINE) atomic_int sleepers;
    atomic_bool caller_sleeps, quit;
    int threads, started;
    int first; /* number of its first thread for who watches */
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    unsigned char *scratch;
    void *memory;
    struct worker *worker; /* [threads], 0 = the caller */
    struct range *range;   /* [threads] */
    /* Whose turn it is: guarded by turn. */
    pthread_mutex_t turn;
    pthread_cond_t over;
    bool taken;
    int out, settling;     /* who has it or one of its spares; who waits until there are none */
    um_pool *spare, *next; /* pools of one thread that nobody has now, a list */
    int others;            /* threads of such pools and of parts */
    um_pool *owner;        /* of such a pool, and of a part */
};

static inline void relax(void)
{
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Kernels do not preserve denormals: they would cost a hundred cycles each and carry nothing. */
static uint64_t flush_denormals(void)
{
#if defined(__SSE2__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040); /* FTZ, DAZ */
    return old;
#elif defined(__aarch64__)
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | 1 << 24)); /* FZ */
    return old;
#else
    return 0;
#endif
}

static void restore_denormals(uint64_t old)
{
#if defined(__SSE2__)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}

static int range_begin(int items, int threads, int i)
{
    return (int)((int64_t)items * i / threads);
}

struct watch {
    um_pool_watch_fn *fn;
    const void *what;
    uint64_t begin;
};

static struct watch begin_watch(um_pool *p)
{
    struct watch w = {.fn = atomic_load_explicit(&p->watch, memory_order_relaxed)};
    if (w.fn) {
        w.what = atomic_load_explicit(&p->what, memory_order_relaxed);
        w.begin = um_clock_ns();
    }
    return w;
}

static void end_watch(um_pool *p, const struct watch *w, int self)
{
    if (w->fn)
        w->fn(atomic_load_explicit(&p->watch_ctx, memory_order_relaxed), w->what, p->first + self,
              w->begin, um_clock_ns());
}

/* Take items of job number `job` until none is left. */
static void work(um_pool *p, uint32_t job, int self)
{
    um_pool_fn *fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
    void *ctx = atomic_load_explicit(&p->ctx, memory_order_relaxed);
    int items = atomic_load_explicit(&p->items, memory_order_acquire);
    struct watch watch = begin_watch(p);
    int n = 0;

    for (int i = 0; i < p->threads; i++) {
        int victim = (self + i) % p->threads;
        _Atomic uint64_t *next = &p->range[victim].next;
        uint32_t end = (uint32_t)range_begin(items, p->threads, victim + 1);
        uint64_t w = atomic_load_explicit(next, memory_order_acquire);
        while ((uint32_t)(w >> 32) == job && (uint32_t)w < end) {
            if (!atomic_compare_exchange_weak_explicit(next, &w, w + 1, memory_order_acq_rel,
                                                       memory_order_acquire))
                continue;
            fn(ctx, (int)(uint32_t)w, self);
            n++;
            w = atomic_load_explicit(next, memory_order_acquire);
        }
    }
    if (n == 0)
        return;
    end_watch(p, &watch, self); /* before the caller may go on */
    if (atomic_fetch_add(&p->done, n) + n == items && self != 0 && atomic_load(&p->caller_sleeps)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->finished);
        pthread_mutex_unlock(&p->lock);
    }
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    um_pool *p = me->pool;
    uint32_t seen = 0;

    flush_denormals();
    for (;;) {
        uint32_t job = atomic_load(&p->job);
        uint64_t t0 = um_clock_ns();
        for (int i = 1; job == seen; i++) {
            relax();
            job = atomic_load_explicit(&p->job, memory_order_acquire);
            if (i % 64 == 0 && um_clock_ns() - t0 > SPIN_NS)
                break;
        }
        if (job == seen) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while ((job = atomic_load(&p->job)) == seen)
                pthread_cond_wait(&p->wake, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->quit))
            return NULL;
        seen = job;
        work(p, job, me->index);
    }
}

/* Publish what was prepared under a new job number. */
static uint32_t next_job(um_pool *p)
{
    uint32_t job = atomic_fetch_add(&p->job, 1) + 1;
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    return job;
}

void um_pool_run(um_pool *p, int items, um_pool_fn *fn, void *ctx)
{
    if (items <= 0)
        return;
    uint64_t csr = flush_denormals();
    if (p->threads == 1 || items == 1) {
        struct watch watch = begin_watch(p);
        for (int i = 0; i < items; i++)
            fn(ctx, i, 0);
        end_watch(p, &watch, 0);
        restore_denormals(csr);
        return;
    }

    uint32_t job = atomic_load_explicit(&p->job, memory_order_relaxed) + 1;
    /* A worker that comes late to the last job may read this one's fn, ctx and items, and would
     * believe that the last one's ranges go on to their ends: they are closed before. */
    for (int i = 0; i < p->threads; i++)
        atomic_store_explicit(&p->range[i].next, (uint64_t)job << 32 | UINT32_MAX,
                              memory_order_relaxed);
    atomic_store_explicit(&p->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&p->ctx, ctx, memory_order_relaxed);
    atomic_store_explicit(&p->items, items, memory_order_release);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    for (int i = 0; i < p->threads; i++)
        atomic_store_explicit(&p->range[i].next,
                              (uint64_t)job << 32 | (uint32_t)range_begin(items, p->threads, i),
                              memory_order_release);
    next_job(p);
    work(p, job, 0);

    uint64_t t0 = um_clock_ns();
    for (int i = 1; atomic_load_explicit(&p->done, memory_order_acquire) != items; i++) {
        relax();
        if (i % 64 != 0 || um_clock_ns() - t0 < SPIN_NS)
            continue;
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->caller_sleeps, true);
        while (atomic_load(&p->done) != items)
            pthread_cond_wait(&p->finished, &p->lock);
        atomic_store(&p->caller_sleeps, false);
        pthread_mutex_unlock(&p->lock);
    }
    restore_denormals(csr);
}

/* CPUs in this thread's affinity mask (Linux); 0 = unknown. */
static int affinity_count(void)
{
    FILE *f = fopen("/proc/thread-self/status", "r");
    if (!f)
        return 0;
    char line[1024];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "Cpus_allowed:", 13) != 0)
            continue;
        for (const char *s = line + 13; *s; s++) {
            int v = *s >= '0' && *s <= '9' ? *s - '0' : *s >= 'a' && *s <= 'f' ? *s - 'a' + 10 : 0;
            n += (v & 1) + (v >> 1 & 1) + (v >> 2 & 1) + (v >> 3 & 1);
        }
        break;
    }
    fclose(f);
    return n;
}

/* The tighter of a limit (0 = none) and the whole CPUs, at least 1, that quota/period of a control
 * group grants. */
static int tighter(int limit, double quota, double period)
{
    if (quota <= 0 || period <= 0 || quota / period > MAX_THREADS)
        return limit;
    int n = quota / period < 1 ? 1 : (int)(quota / period + 0.5);
    return limit == 0 || n < limit ? n : limit;
}

static int cgroup_file(const char *dir, const char *name, const char *format, double *a, double *b)
{
    char path[4200];
    int n = snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", dir, name);
    FILE *f = n > 0 && n < (int)sizeof path ? fopen(path, "r") : NULL;
    if (!f)
        return 0;
    int got = b ? fscanf(f, format, a, b) : fscanf(f, format, a);
    fclose(f);
    return got;
}

/* The tightest CPU quota of this process's control group and its parents (v2), or of the container
 * (v1); 0 = none. */
static int cgroup_limit(void)
{
    char dir[4096] = "";
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (f) {
        char line[4096];
        while (fgets(line, sizeof line, f))
            if (strncmp(line, "0::", 3) == 0) {
                line[strcspn(line, "\n")] = 0;
                snprintf(dir, sizeof dir, "%s", line + 3);
            }
        fclose(f);
    }
    int limit = 0;
    for (;;) {
        double quota = 0, period = 0;
        if (cgroup_file(dir, "cpu.max", "%lf %lf", &quota, &period) == 2)
            limit = tighter(limit, quota, period);
        char *slash = strrchr(dir, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    double quota = 0, period = 0;
    if (cgroup_file("/cpu", "cpu.cfs_quota_us", "%lf", &quota, NULL) == 1 &&
        cgroup_file("/cpu", "cpu.cfs_period_us", "%lf", &period, NULL) == 1)
        limit = tighter(limit, quota, period);
    return limit;
}

static int default_threads(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int n = online > 0 ? (int)online : 1;
    int mask = affinity_count(), quota = cgroup_limit();
    if (mask > 0 && mask < n)
        n = mask;
    if (quota > 0 && quota < n)
        n = quota;
    return n;
}

um_status um_pool_open(um_pool **out, int threads)
{
    *out = NULL;
    if (threads <= 0)
        threads = default_threads();
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;

    size_t head = sizeof(um_pool) + LINE, ranges = (size_t)threads * sizeof(struct range);
    size_t workers = (size_t)threads * sizeof(struct worker);
    size_t scratch = (size_t)threads * (UM_POOL_SCRATCH + SKEW);
    void *memory = um_alloc(head + ranges + workers);
    void *work_memory = um_alloc(scratch + LINE);
    if (!memory || !work_memory) {
        um_free(memory);
        um_free(work_memory);
        return um_fail(UM_ENOMEM, "thread pool of %d threads", threads);
    }
    memset(memory, 0, head + ranges + workers);
    um_pool *p = (um_pool *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    p->memory = memory;
    p->range = (struct range *)(p + 1);
    p->worker = (struct worker *)(p->range + threads);
    p->scratch = work_memory;
    p->threads = threads;
    p->started = 1;
    atomic_init(&p->job, 0);
    atomic_init(&p->fn, NULL);
    atomic_init(&p->ctx, NULL);
    atomic_init(&p->items, 0);
    atomic_init(&p->what, NULL);
    atomic_init(&p->watch, NULL);
    atomic_init(&p->watch_ctx, NULL);
    atomic_init(&p->done, 0);
    atomic_init(&p->sleepers, 0);
    atomic_init(&p->caller_sleeps, false);
    atomic_init(&p->quit, false);
    for (int i = 0; i < threads; i++)
        atomic_init(&p->range[i].next, 0);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->finished, NULL);
    pthread_mutex_init(&p->turn, NULL);
    pthread_cond_init(&p->over, NULL);

    um_status st = UM_OK;
    for (int i = 1; i < threads && st == UM_OK; i++) {
        p->worker[i] = (struct worker){.pool = p, .index = i};
        st = um_thread_start(&p->worker[i].thread, worker_main, &p->worker[i], "the pool");
        p->started += st == UM_OK;
    }
    if (st != UM_OK) {
        um_pool_close(&p);
        return st;
    }
    *out = p;
    return UM_OK;
}

void um_pool_close(um_pool **pool)
{
    um_pool *p = pool ? *pool : NULL;
    if (!p)
        return;
    *pool = NULL;
    while (p->spare) {
        um_pool *alone = p->spare;
        p->spare = alone->next;
        um_pool_close(&alone);
    }
    atomic_store(&p->quit, true);
    next_job(p);
    for (int i = 1; i < p->started; i++)
        pthread_join(p->worker[i].thread, NULL);
    pthread_cond_destroy(&p->over);
    pthread_mutex_destroy(&p->turn);
    pthread_cond_destroy(&p->finished);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    um_free(p->scratch);
    um_free(p->memory);
}

int um_pool_threads(const um_pool *pool)
{
    return pool->threads;
}

void *um_pool_scratch(const um_pool *pool, int worker)
{
    uintptr_t base = ((uintptr_t)pool->scratch + LINE - 1) / LINE * LINE;
    void *mine = (void *)(base + (size_t)worker * (UM_POOL_SCRATCH + SKEW));
    um_races_note(mine, LINE, 1); /* two threads with one scratch */
    return mine;
}

static _Thread_local um_pool *bound;

um_status um_pool_part(um_pool **out, um_pool *pool, int threads)
{
    um_status st = um_pool_open(out, threads);
    if (st != UM_OK)
        return st;
    pthread_mutex_lock(&pool->turn);
    (*out)->owner = pool;
    (*out)->first = pool->threads + pool->others;
    pool->others += threads;
    pthread_mutex_unlock(&pool->turn);
    return UM_OK;
}

void um_pool_bind(um_pool *part)
{
    bound = part;
}

static void set_watch(um_pool *p, um_pool_watch_fn *fn, void *ctx)
{
    atomic_store(&p->watch_ctx, ctx);
    atomic_store(&p->watch, fn);
}

um_pool *um_pool_take(um_pool *p)
{
    um_pool *mine = NULL;
    pthread_mutex_lock(&p->turn);
    while (!mine) {
        if (p->settling) {
            pthread_cond_wait(&p->over, &p->turn);
        } else if (bound && bound->owner == p) {
            mine = bound;
        } else if (!p->taken) {
            p->taken = true;
            mine = p;
        } else if (p->spare) {
            mine = p->spare;
            p->spare = mine->next;
        } else if (um_pool_open(&mine, 1) == UM_OK) {
            mine->owner = p;
            mine->first = p->threads + p->others++;
        } else { /* no memory for another */
            pthread_cond_wait(&p->over, &p->turn);
        }
    }
    p->out++;
    if (mine != p)
        set_watch(mine, atomic_load(&p->watch), atomic_load(&p->watch_ctx));
    pthread_mutex_unlock(&p->turn);
    return mine;
}

void um_pool_give(um_pool *mine)
{
    um_pool *p = mine->owner ? mine->owner : mine;
    pthread_mutex_lock(&p->turn);
    if (mine == p) {
        p->taken = false;
    } else if (mine != bound) {
        mine->next = p->spare;
        p->spare = mine;
    }
    p->out--;
    pthread_cond_broadcast(&p->over);
    pthread_mutex_unlock(&p->turn);
}

void um_pool_watch(um_pool *p, um_pool_watch_fn *fn, void *ctx)
{
    pthread_mutex_lock(&p->turn);
    p->settling++;
    while (p->out > 0)
        pthread_cond_wait(&p->over, &p->turn);
    set_watch(p, fn, ctx);
    p->settling--;
    pthread_cond_broadcast(&p->over);
    pthread_mutex_unlock(&p->turn);
}

void um_pool_say(um_pool *p, const void *what)
{
    atomic_store_explicit(&p->what, what, memory_order_relaxed);
}
