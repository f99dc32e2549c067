/* SPDX-License-Identifier: Apache-2.0 */
/* Accesses of a launch that nothing orders: part of kernel_host.cpp where the kernels are compiled
 * with -fsanitize=thread, whose hooks are here instead of that sanitizer's. It needs no unlucky
 * schedule. Two accesses to a byte, one of them a write and not both atomic, must be of one thread,
 * have a barrier between them, or a sync_warp() if of one warp; between blocks, fences in both.
 * Other collectives order nothing. A byte that an asynchronous copy will write belongs to nobody
 * until the copying thread has waited for it. */
#ifndef UM_TESTS_CUDA_KERNEL_RACES_H
#define UM_TESTS_CUDA_KERNEL_RACES_H

enum { SAME_WARP = 1, SAME_BLOCK = 2, GRID = 4 /* other threads of these have read it, too */ };

struct mark {
    uint32_t block; /* 0: none */
    unsigned barriers, warp_syncs;
    uint16_t thread;
    uint8_t how, others;
};

/* Of 8 bytes. Those of a grain were only accessed together; its marks are those of its first. */
struct cell {
    uintptr_t key;
    uint32_t launch;
    unsigned grain;
    mark write[8], read[8];
};

/* 16 MiB of a launch; what goes beyond is not looked at. Neighbours of a run of cells stay
 * neighbours. */
enum { RUN_BITS = 6, CELL_BITS = 21 };
static cell *cells;
static uint32_t launch_now, block_now;
static bool fenced[1 << 16];

static void races_launch(void)
{
    launch_now++;
    block_now = 0;
}

static void races_block(void)
{
    fenced[++block_now & 0xffff] = false;
}

static cell *cell_of(uintptr_t key)
{
    size_t run = (key >> RUN_BITS) * 0x9e3779b97f4a7c15u >> (64 - CELL_BITS + RUN_BITS);
    if (!cells)
        cells = (cell *)mmap(NULL, sizeof(cell) << CELL_BITS, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED)
        abort();
    for (size_t n = 0; n < 64; n++) {
        size_t i = (run + n) << RUN_BITS | (key & ((1 << RUN_BITS) - 1));
        cell *c = &cells[i & (((size_t)1 << CELL_BITS) - 1)];
        if (c->launch != launch_now) {
            c->launch = launch_now;
            c->key = key;
            c->grain = 8;
            c->write[0] = c->read[0] = mark();
        }
        if (c->key == key)
            return c;
    }
    return NULL;
}

/* Make grains so small that an access to n bytes from this one on is to whole ones. */
static void refine(cell *c, unsigned first, unsigned n)
{
    unsigned was = c->grain, grain = (first | n | was) & -(first | n | was);
    c->grain = grain;
    for (unsigned i = 0; grain < was && i < 8; i += grain) {
        c->write[i] = c->write[i & -was];
        c->read[i] = c->read[i & -was];
    }
}

/* Is all that m stands for before what the current thread does now? */
static bool is_before(const mark &m)
{
    const fiber &f = fibers[current];
    if (m.block != block_now || m.others & GRID)
        return fenced[m.block & 0xffff] && fenced[block_now & 0xffff];
    if (m.barriers < f.barriers)
        return true;
    if (m.others & SAME_BLOCK || m.thread / 32 != current / 32)
        return false;
    return m.warp_syncs < f.warp_syncs || (!(m.others & SAME_WARP) && m.thread == current);
}

/* The threads of `was` and the current one as readers. */
static uint8_t others_of(const mark &was)
{
    const fiber &f = fibers[current];
    if (!was.block)
        return 0;
    if (was.block != block_now)
        return GRID;
    if (was.barriers < f.barriers)
        return was.others & GRID;
    if (was.thread / 32 != current / 32)
        return was.others | SAME_BLOCK;
    if (was.warp_syncs < f.warp_syncs)
        return was.others & ~SAME_WARP;
    return was.others | (was.thread == current ? 0 : SAME_WARP);
}

static bool is_shared(const void *p)
{
    return p >= shared_base && p < shared_end;
}

static void race(const mark &m, const void *p, int how)
{
    static const char *const name[] = {"read", "write", "atomic access", "copy", "copy"};
    if (!problem[0])
        snprintf(
            problem, sizeof problem,
            "%s: a %s of %s memory by thread %d of block %u, and nothing orders it after the %s "
            "by thread %d of block %u",
            running->name, name[how], is_shared(p) ? "shared" : "global", current, block_now - 1,
            name[m.how], m.thread, m.block - 1);
}

static void touch_grain(mark *write, mark *read, const void *p, int how, bool shared)
{
    if (shared && write->block != block_now)
        *write = mark();
    if (shared && read->block != block_now)
        *read = mark();
    bool mine = write->how == UM_HOST_COPY && how == UM_HOST_LAND && write->thread == current;
    if (write->block && !mine && !(write->how == UM_HOST_ATOMICALLY && how == UM_HOST_ATOMICALLY) &&
        (write->how == UM_HOST_COPY || !is_before(*write)))
        race(*write, p, how);
    if (read->block && how != UM_HOST_READ && !is_before(*read))
        race(*read, p, how);
    *(how == UM_HOST_READ ? read : write) = {block_now,
                                             fibers[current].barriers,
                                             fibers[current].warp_syncs,
                                             (uint16_t)current,
                                             (uint8_t)how,
                                             how == UM_HOST_READ ? others_of(*read) : (uint8_t)0};
}

static void touch(const void *p, size_t n, int how)
{
    const unsigned char *b = (const unsigned char *)p, *args = (const unsigned char *)running_args;
    if (current < 0 || (b >= stacks && b < stack_of(THREADS_MAX)) ||
        (b >= args && b < args + running->size))
        return;
    bool shared = is_shared(p);
    for (size_t done = 0; done < n;) {
        uintptr_t at = (uintptr_t)p + done;
        unsigned first = at % 8, end = n - done < 8 - first ? first + (unsigned)(n - done) : 8;
        cell *c = cell_of(at / 8);
        if (!c)
            return;
        refine(c, first, end - first);
        for (unsigned i = first; i < end; i += c->grain)
            touch_grain(&c->write[i], &c->read[i], p, how, shared);
        done += end - first;
    }
}

extern "C" {
void um_host_fence(void)
{
    fenced[block_now & 0xffff] = true;
}

void um_host_touch(const void *p, size_t n, int how)
{
    touch(p, n, how);
}

#define UM_HOOKS(n)                         \
    void __tsan_read##n(void *p)            \
    {                                       \
        touch(p, n, UM_HOST_READ);          \
    }                                       \
    void __tsan_unaligned_read##n(void *p)  \
    {                                       \
        touch(p, n, UM_HOST_READ);          \
    }                                       \
    void __tsan_write##n(void *p)           \
    {                                       \
        touch(p, n, UM_HOST_WRITE);         \
    }                                       \
    void __tsan_unaligned_write##n(void *p) \
    {                                       \
        touch(p, n, UM_HOST_WRITE);         \
    }
UM_HOOKS(1)
UM_HOOKS(2)
UM_HOOKS(4)
UM_HOOKS(8)
UM_HOOKS(16)
void __tsan_read_range(void *p, size_t n)
{
    touch(p, n, UM_HOST_READ);
}
void __tsan_write_range(void *p, size_t n)
{
    touch(p, n, UM_HOST_WRITE);
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void *)
{
}
void __tsan_init(void)
{
}
}

#endif
