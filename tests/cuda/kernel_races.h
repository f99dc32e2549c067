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
    uint32_t launch, block; /* 0: none */
    unsigned barriers, warp_syncs;
    uint16_t thread;
    uint8_t how, others;
};

struct cell { /* of 8 bytes */
    uintptr_t key;
    uint32_t launch;
    mark write[8], read[8];
};

enum { CELL_BITS = 21 }; /* 16 MiB of a launch; what goes beyond is not looked at */
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
    size_t i = key * 0x9e3779b97f4a7c15u >> (64 - CELL_BITS), mask = ((size_t)1 << CELL_BITS) - 1;
    if (!cells)
        cells = (cell *)mmap(NULL, sizeof(cell) << CELL_BITS, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED)
        abort();
    for (int n = 0; n < 64; n++, i = (i + 1) & mask) {
        if (cells[i].launch != launch_now) {
            cells[i].launch = launch_now;
            cells[i].key = key;
        }
        if (cells[i].key == key)
            return &cells[i];
    }
    return NULL;
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
    if (!was.launch)
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

static void touch(const void *p, size_t n, int how)
{
    const unsigned char *b = (const unsigned char *)p, *args = (const unsigned char *)running_args;
    if (current < 0 || (b >= stacks && b < stack_of(THREADS_MAX)) ||
        (b >= args && b < args + running->size))
        return;
    bool shared = is_shared(p);
    for (size_t i = 0; i < n; i++) {
        uintptr_t at = (uintptr_t)p + i;
        cell *c = cell_of(at / 8);
        if (!c)
            return;
        mark *write = &c->write[at % 8], *read = &c->read[at % 8];
        mark *both[] = {write, read};
        for (mark *m : both)
            if (m->launch != launch_now || (shared && m->block != block_now))
                *m = mark();
        bool mine = write->how == UM_HOST_COPY && how == UM_HOST_LAND && write->thread == current;
        if (write->launch && !mine &&
            !(write->how == UM_HOST_ATOMICALLY && how == UM_HOST_ATOMICALLY) &&
            (write->how == UM_HOST_COPY || !is_before(*write)))
            race(*write, p, how);
        if (read->launch && how != UM_HOST_READ && !is_before(*read))
            race(*read, p, how);
        mark now = {launch_now,
                    block_now,
                    fibers[current].barriers,
                    fibers[current].warp_syncs,
                    (uint16_t)current,
                    (uint8_t)how,
                    how == UM_HOST_READ ? others_of(*read) : (uint8_t)0};
        *(how == UM_HOST_READ ? read : write) = now;
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
