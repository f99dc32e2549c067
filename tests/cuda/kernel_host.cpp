/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a block of GPU threads as fibers on one host thread. Warps run greedily to the next barrier,
 * in a forward, reverse or seeded order; shared memory starts as NaN; a barrier or collective that
 * not all threads reach is an error, not a hang. An asynchronous copy lands when it is waited for
 * (forward), at once (reverse), or at either (seeded): a missing wait shows in the first, a buffer
 * that is still being read in the second. */
#include "kernel_host.h"

#include "host_launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
/* A stack's odd lines keep those of a warp out of the same sets of a cache. */
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
enum { STACK = (512 << 10) + 17 * 64 };
#else
enum { STACK = (64 << 10) + 17 * 64 };
#endif

enum {
    THREADS_MAX = 1024,
    COPIES_MAX = 128,
    SHARED_MAX = 99 << 10, /* that every GPU from sm_80 on has */
    LANE_BYTES = 64
};
enum state { READY, AT_COLLECTIVE, AT_BARRIER, DONE };

struct copy {
    void *to;
    const void *from;
    bool there;
    unsigned group;
};

struct fiber {
    void *sp;
    int copies;     /* on their way */
    unsigned group; /* that the next copy belongs to */
    um_dim thread;
    enum state state;
    unsigned barriers, warp_syncs; /* so far */
    unsigned exchanges;            /* collectives so far: its parity picks the slot */
#ifdef FIBER_ASAN
    void *fake;
#endif
};

/* Deposits of the lanes of one collective, and what a multiplying lane made of them. */
struct slot {
    int kind, arrived;
    alignas(64) unsigned char in[32][LANE_BYTES];
    alignas(64) unsigned char out[32][16];
};

extern "C" {
um_dim um_host_block, um_host_grid, um_host_threads;
um_dim *um_host_thread;
}

static struct um_host_kernel *kernels;
static struct fiber fibers[THREADS_MAX];
static struct copy copies[THREADS_MAX][COPIES_MAX]; /* oldest first */
static struct slot slots[THREADS_MAX / 32][2];
static unsigned char *stacks, *shared_base, *shared_end;
static void *main_sp;
static int current, n_threads, lane_step; /* lanes run upwards (1) or downwards (-1) */
static const struct um_host_kernel *running;
static const void *running_args;
static char problem[256];
static uint64_t random_state = 1;
static enum um_host_order order = UM_HOST_FORWARD;

void um_host_register(struct um_host_kernel *kernel)
{
    kernel->next = kernels;
    kernels = kernel;
}

static const struct um_host_kernel *find(const char *name)
{
    for (const struct um_host_kernel *k = kernels; k; k = k->next)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

int um_host_kernel_size(const char *name)
{
    const struct um_host_kernel *k = find(name);
    return k ? (int)k->size : -1;
}

void um_host_schedule(enum um_host_order new_order, uint64_t seed)
{
    order = new_order;
    random_state = seed;
}

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* ---- switching ---- */

/* Save the callee-saved registers and the stack, continue on another. */
extern "C" void um_host_switch(void **save, void *load);
#if defined(__x86_64__)
enum { ABOVE = 1, SAVED = 6 }; /* words of a stack: beyond the return address, and below it */
__asm__(".text\n"
        ".globl um_host_switch\n"
        ".hidden um_host_switch\n"
        ".type um_host_switch,@function\n"
        "um_host_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size um_host_switch,.-um_host_switch\n");
#elif defined(__aarch64__)
enum { ABOVE = 2, SAVED = 19 };
__asm__(".text\n"
        ".globl um_host_switch\n"
        ".hidden um_host_switch\n"
        ".type um_host_switch,@function\n"
        "um_host_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp d8, d9, [sp]\n    stp d10, d11, [sp, #16]\n    stp d12, d13, [sp, #32]\n"
        "    stp d14, d15, [sp, #48]\n    stp x19, x20, [sp, #64]\n    stp x21, x22, [sp, #80]\n"
        "    stp x23, x24, [sp, #96]\n    stp x25, x26, [sp, #112]\n    stp x27, x28, [sp, #128]\n"
        "    stp x29, x30, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp d8, d9, [sp]\n    ldp d10, d11, [sp, #16]\n    ldp d12, d13, [sp, #32]\n"
        "    ldp d14, d15, [sp, #48]\n    ldp x19, x20, [sp, #64]\n    ldp x21, x22, [sp, #80]\n"
        "    ldp x23, x24, [sp, #96]\n    ldp x25, x26, [sp, #112]\n    ldp x27, x28, [sp, #128]\n"
        "    ldp x29, x30, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size um_host_switch,.-um_host_switch\n");
#else
#error "host-run kernels need a context switch for this processor"
#endif

#ifdef FIBER_ASAN
static void *main_fake;
static const void *main_bottom;
static size_t main_size;
#endif

static unsigned char *stack_of(int t)
{
    return stacks + (size_t)t * STACK;
}

static void switch_to(int t) /* from a fiber or the main context; -1: the main context */
{
    int from = current;
    void **save = from < 0 ? &main_sp : &fibers[from].sp;
    current = t;
    if (t >= 0)
        um_host_thread = &fibers[t].thread;
#ifdef FIBER_ASAN
    bool dies = from >= 0 && fibers[from].state == DONE;
    void **fake = from < 0 ? &main_fake : &fibers[from].fake;
    if (t < 0)
        __sanitizer_start_switch_fiber(dies ? NULL : fake, main_bottom, main_size);
    else
        __sanitizer_start_switch_fiber(dies ? NULL : fake, stack_of(t), STACK);
#endif
    um_host_switch(save, t < 0 ? main_sp : fibers[t].sp);
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(from < 0 ? main_fake : fibers[from].fake, NULL, NULL);
#endif
}

/* The next lane of the warp that can go on, else the main context. */
static void yield(void)
{
    int first = current & ~31, lane = current & 31;
    for (int i = 1; i < 32; i++) {
        int t = first + ((lane + i * lane_step) & 31);
        if (!problem[0] && fibers[t].state == READY) {
            switch_to(t);
            return;
        }
    }
    switch_to(-1);
}

static void fail(const char *what)
{
    if (!problem[0])
        snprintf(problem, sizeof problem, "%s, block %u,%u,%u, thread %d: %s", running->name,
                 um_host_block.x, um_host_block.y, um_host_block.z, current, what);
    switch_to(-1); /* for good: the block is abandoned */
}

static void enter(void)
{
#ifdef FIBER_ASAN
    if (!main_size)
        __sanitizer_finish_switch_fiber(NULL, &main_bottom, &main_size);
    else
        __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    running->body(running_args);
    fibers[current].state = DONE;
    yield();
    abort();
}

static void prepare(int t)
{
    void **sp = (void **)(stack_of(t) + STACK);
    for (int i = 0; i < ABOVE; i++)
        *--sp = NULL; /* alignment, and an end for unwinders */
    *--sp = (void *)enter;
    for (int i = 0; i < SAVED; i++)
        *--sp = NULL;
    fibers[t] = fiber();
    fibers[t].sp = sp;
    fibers[t].thread.x = (unsigned)t;
}

#ifdef UM_HOST_RACES
#include "kernel_races.h"
#else
static void races_launch(void)
{
}
static void races_block(void)
{
}
void um_host_fence(void)
{
}
void um_host_touch(const void *, size_t, int)
{
}
#endif

/* ---- collectives ---- */

/* True in the lane that arrives last: all are here. */
static bool arrive(struct slot *s, int kind, const void *in, size_t n)
{
    if (s->arrived == 0)
        s->kind = kind;
    if (s->kind != kind)
        fail("lanes of a warp are at different collectives");
    if (n)
        memcpy(s->in[current & 31], in, n);
    return ++s->arrived == 32;
}

static struct slot *next_slot(void)
{
    return &slots[current / 32][fibers[current].exchanges++ & 1];
}

static void release(struct slot *s)
{
    int first = current & ~31;
    s->arrived = 0;
    for (int i = 0; i < 32; i++)
        if (fibers[first + i].state == AT_COLLECTIVE)
            fibers[first + i].state = READY;
}

static void wait_for_warp(void)
{
    fibers[current].state = AT_COLLECTIVE;
    yield();
}

const unsigned char *um_host_exchange(int kind, const void *in, size_t n)
{
    struct slot *s = next_slot();
    if (arrive(s, kind, in, n))
        release(s);
    else
        wait_for_warp();
    fibers[current].warp_syncs += kind == UM_HOST_SYNC_WARP;
    return s->in[0];
}

void um_host_sync(void)
{
    fibers[current].state = AT_BARRIER;
    yield();
    fibers[current].barriers++;
}

unsigned char *um_host_shared(void)
{
    return shared_base;
}

static void land(const struct copy *c)
{
    um_host_touch(c->to, 16, UM_HOST_LAND);
    if (c->there)
        memcpy(c->to, c->from, 16);
    else
        memset(c->to, 0, 16);
}

void um_host_cp_async(void *to, const void *from, bool there)
{
    struct fiber *f = &fibers[current];
    struct copy c = {to, from, there, f->group};
    if ((uintptr_t)to % 16 || (there && (uintptr_t)from % 16))
        fail("an asynchronous copy is not on 16 bytes");
    um_host_touch(to, 16, UM_HOST_COPY);
    if (there)
        um_host_touch(from, 16, UM_HOST_READ);
    if (order == UM_HOST_REVERSE || (order == UM_HOST_SEEDED && next_random() & 1))
        land(&c);
    else if (f->copies == COPIES_MAX)
        fail("too many asynchronous copies");
    else
        copies[current][f->copies++] = c;
}

void um_host_cp_commit(void)
{
    fibers[current].group++;
}

void um_host_cp_wait(int n)
{
    struct fiber *f = &fibers[current];
    struct copy *c = copies[current];
    int landed = 0;
    while (landed < f->copies && c[landed].group + (unsigned)n < f->group)
        land(&c[landed++]);
    f->copies -= landed;
    memmove(c, c + landed, (size_t)f->copies * sizeof *c);
}

struct fragments {
    float d[4];
    uint32_t a[4], b[2];
};

static float half_value(int bf16, uint32_t u)
{
    float v;
    uint32_t wide = u << 16;
    if (!bf16)
        return um_host_f16_float((uint16_t)u);
    memcpy(&v, &wide, 4);
    return v;
}

/* d += a b on the fragments of 32 lanes: lane l = 4 g + t holds of a rows g, g + 8 and columns 2t,
 * 2t + 1 (+ 8), of b column g, of d rows g, g + 8 and columns 2t, 2t + 1. Not instrumented: it has
 * memory of its own, and took a fifth of a run under the sanitizers. */
__attribute__((no_sanitize("address", "undefined"))) static void multiply(struct slot *s, int bf16)
{
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const struct fragments *f = (const struct fragments *)s->in[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 2; k++)
                a[g + 8 * (i & 1)][2 * t + k + 8 * (i >> 1)] =
                    half_value(bf16, f->a[i] >> (16 * k) & 0xffff);
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < 2; k++)
                b[2 * t + k + 8 * i][g] = half_value(bf16, f->b[i] >> (16 * k) & 0xffff);
        for (int i = 0; i < 4; i++)
            d[g + 8 * (i >> 1)][2 * t + (i & 1)] = f->d[i];
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++)
                d[r][c] += a[r][k] * b[k][c];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            memcpy(s->out[lane] + 4 * i, &d[lane / 4 + 8 * (i >> 1)][2 * (lane % 4) + (i & 1)], 4);
}

void um_host_mma(int bf16, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    struct fragments f;
    struct slot *s = next_slot();
    memcpy(f.d, d, sizeof f.d);
    memcpy(f.a, a, sizeof f.a);
    memcpy(f.b, b, sizeof f.b);
    if (arrive(s, UM_HOST_MMA, &f, sizeof f)) {
        multiply(s, bf16);
        release(s);
    } else
        wait_for_warp();
    memcpy(d, s->out[current & 31], 16);
}

void um_host_ldmatrix(int trans, uint32_t r[4], const void *row)
{
    struct slot *s = next_slot();
    if ((uintptr_t)row % 16)
        fail("ldmatrix row is not on 16 bytes");
    um_host_touch(row, 16, UM_HOST_READ);
    if (arrive(s, UM_HOST_LDMATRIX, &row, sizeof row)) {
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++)
                for (int k = 0; k < 2; k++) {
                    int line = lane / 4, column = 2 * (lane % 4) + k;
                    const uint16_t *from;
                    memcpy(&from, s->in[8 * i + (trans ? column : line)], sizeof from);
                    memcpy(s->out[lane] + 4 * i + 2 * k, from + (trans ? line : column), 2);
                }
        release(s);
    } else
        wait_for_warp();
    memcpy(r, s->out[current & 31], 16);
}

/* ---- halves ---- */

uint32_t um_host_pack_f16(float lo, float hi)
{
    float v[2] = {lo, hi};
    uint32_t out = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t u, sign, h;
        memcpy(&u, &v[i], 4);
        sign = u >> 16 & 0x8000;
        u &= 0x7fffffff;
        if (u > 0x7f800000)
            h = 0x7fff;
        else if (u >= 0x477ff000) /* 65520 and more, infinity too: the largest finite half */
            h = 0x7bff;
        else if (u < 0x38800000) { /* subnormal: the addition rounds at 2^-24 */
            float shifted, magic = 0.5f;
            memcpy(&shifted, &u, 4);
            shifted += magic;
            memcpy(&h, &shifted, 4);
            h -= 0x3f000000;
        } else
            h = (u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13;
        out |= (sign | h) << (16 * i);
    }
    return out;
}

static float f16_table[65536];

__attribute__((constructor)) static void make_table(void)
{
    for (uint32_t u = 0; u < 65536; u++) {
        uint32_t e = u >> 10 & 31, m = u & 0x3ff, sign = (u & 0x8000) << 16, bits;
        float v;
        if (e == 31)
            bits = 0x7f800000 | m << 13;
        else if (e)
            bits = (e + 112) << 23 | m << 13;
        else {
            v = (float)m * 0x1p-24f;
            memcpy(&bits, &v, 4);
        }
        bits |= sign;
        memcpy(&f16_table[u], &bits, 4);
    }
}

float um_host_f16_float(uint16_t u)
{
    return f16_table[u];
}

/* ---- a launch ---- */

static void *map(size_t bytes) /* with a guard page behind */
{
    unsigned char *p = (unsigned char *)mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        abort();
    mprotect(p + bytes, 4096, PROT_NONE);
    return p;
}

static void run_warp(int w)
{
    bool go_on = true;
    while (go_on && !problem[0]) {
        go_on = false;
        for (int i = 0; i < 32 && !problem[0]; i++) {
            int t = 32 * w + (lane_step > 0 ? i : 31 - i);
            if (fibers[t].state == READY) {
                switch_to(t);
                go_on = true;
            }
        }
    }
    for (int i = 0; i < 32 && !problem[0]; i++)
        if (fibers[32 * w + i].state == AT_COLLECTIVE) {
            current = 32 * w + i;
            snprintf(
                problem, sizeof problem,
                "%s, block %u,%u,%u, thread %d: waits at a collective that not all lanes reach",
                running->name, um_host_block.x, um_host_block.y, um_host_block.z, current);
            current = -1;
        }
}

static void run_block(void)
{
    int warps = n_threads / 32, done = 0, order_of[THREADS_MAX / 32];
    races_block();
    memset(slots, 0, sizeof(slots[0]) * (size_t)warps);
    for (int t = 0; t < n_threads; t++)
        prepare(t);
    while (!problem[0] && done < n_threads) {
        for (int w = 0; w < warps; w++)
            order_of[w] = order == UM_HOST_REVERSE ? warps - 1 - w : w;
        for (int w = warps - 1; order == UM_HOST_SEEDED && w > 0; w--) {
            int k = (int)(next_random() % (uint64_t)(w + 1)), swap = order_of[w];
            order_of[w] = order_of[k];
            order_of[k] = swap;
        }
        lane_step =
            order == UM_HOST_FORWARD || (order == UM_HOST_SEEDED && next_random() & 1) ? 1 : -1;
        for (int w = 0; w < warps && !problem[0]; w++)
            run_warp(order_of[w]);
        done = 0;
        for (int t = 0; t < n_threads; t++)
            done += fibers[t].state == DONE;
        if (!problem[0] && done && done < n_threads)
            snprintf(problem, sizeof problem,
                     "%s, block %u,%u,%u: a barrier that only %d of %d "
                     "threads reach",
                     running->name, um_host_block.x, um_host_block.y, um_host_block.z,
                     n_threads - done, n_threads);
        for (int t = 0; t < n_threads; t++)
            if (fibers[t].state == AT_BARRIER)
                fibers[t].state = READY;
    }
}

const char *um_host_launch(const char *name, const unsigned grid[3], unsigned threads,
                           unsigned shared, const void *args, size_t size)
{
    running = find(name);
    problem[0] = 0;
    if (!running)
        snprintf(problem, sizeof problem, "no kernel \"%s\"", name);
    else if (size != running->size)
        snprintf(problem, sizeof problem, "%s: arguments of %zu bytes, want %zu", name, size,
                 running->size);
    else if (threads == 0 || threads > running->threads || threads % 32)
        snprintf(problem, sizeof problem, "%s: %u threads, want a multiple of 32 up to %u", name,
                 threads, running->threads);
    else if (shared > SHARED_MAX)
        snprintf(problem, sizeof problem, "%s: %u bytes of shared memory, at most %d", name, shared,
                 SHARED_MAX);
    else if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535)
        snprintf(problem, sizeof problem, "%s: grid %u x %u x %u", name, grid[0], grid[1], grid[2]);
    if (problem[0])
        return problem;
    if (!stacks) {
        stacks = (unsigned char *)map((size_t)THREADS_MAX * STACK);
        shared_base = (unsigned char *)map((SHARED_MAX + 4095) / 4096 * 4096);
    }
    /* the end of shared memory is the end of the page, so that an overrun faults */
    unsigned char *start = shared_base;
    shared_end = shared_base + (SHARED_MAX + 4095) / 4096 * 4096;
    shared_base = shared_end - (shared + 15) / 16 * 16;
    races_launch();
    n_threads = (int)threads;
    running_args = args;
    current = -1;
    um_host_grid.x = grid[0], um_host_grid.y = grid[1], um_host_grid.z = grid[2];
    um_host_threads.x = threads, um_host_threads.y = um_host_threads.z = 1;
    for (unsigned z = 0; z < grid[2] && !problem[0]; z++)
        for (unsigned y = 0; y < grid[1] && !problem[0]; y++)
            for (unsigned x = 0; x < grid[0] && !problem[0]; x++) {
                um_host_block.x = x, um_host_block.y = y, um_host_block.z = z;
                memset(shared_base, 0xff, (size_t)(shared_end - shared_base));
                run_block();
            }
    shared_base = start;
    return problem[0] ? problem : NULL;
}
