/* SPDX-License-Identifier: Apache-2.0 */
/* Device code on the host: what nn/cuda/kernel.h means to a C++ compiler. Every thread of a block
 * is a fiber; collectives exchange through the warp; a tensor core is 32 lanes that deposit
 * fragments and one that multiplies. Blocks run one after another (tests/cuda/kernel_host.cpp). */
#ifndef UM_TESTS_CUDA_KERNEL_HOST_H
#define UM_TESTS_CUDA_KERNEL_HOST_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct um_dim {
    unsigned x, y, z;
};

struct um_host_kernel {
    const char *name;
    size_t size; /* of the by-value struct */
    unsigned threads;
    void (*body)(const void *args);
    struct um_host_kernel *next;
};

extern "C" {
void um_host_register(struct um_host_kernel *kernel);
extern um_dim um_host_block, um_host_grid, um_host_threads;
extern um_dim *um_host_thread;
unsigned char *um_host_shared(void);
void um_host_sync(void);
/* Deposit n bytes and get the deposits of the 32 lanes, 64 bytes apart; `kind` must be the same in
 * all lanes. */
const unsigned char *um_host_exchange(int kind, const void *in, size_t n);
void um_host_mma(int bf16, float d[4], const uint32_t a[4], const uint32_t b[2]);
void um_host_ldmatrix(int trans, uint32_t r[4], const void *row);
void um_host_cp_async(void *to, const void *from, bool there);
void um_host_cp_commit(void);
void um_host_cp_wait(int n);
void um_host_fence(void);
/* An access that the compiler does not show to tests/cuda/kernel_races.h. */
void um_host_touch(const void *p, size_t n, int how);
uint32_t um_host_pack_f16(float lo, float hi);
float um_host_f16_float(uint16_t u);
}

#define threadIdx (*um_host_thread)
#define blockIdx um_host_block
#define gridDim um_host_grid
#define blockDim um_host_threads

#define KERNEL(name_, args_t, args, threads_)                                                   \
    static void name_##_body(const args_t &args);                                               \
    static void name_##_run(const void *args_)                                                  \
    {                                                                                           \
        name_##_body(*(const args_t *)args_);                                                   \
    }                                                                                           \
    __attribute__((constructor)) static void name_##_register(void)                             \
    {                                                                                           \
        static struct um_host_kernel k = {#name_, sizeof(args_t), threads_, name_##_run, NULL}; \
        um_host_register(&k);                                                                   \
    }                                                                                           \
    static void name_##_body(const args_t &args)
#define DEVICE __attribute__((unused)) static inline
#define UNROLL
#define ROLL

enum { UM_HOST_READ, UM_HOST_WRITE, UM_HOST_ATOMICALLY, UM_HOST_COPY, UM_HOST_LAND };
enum { UM_HOST_SYNC_WARP, UM_HOST_SHFL, UM_HOST_BALLOT, UM_HOST_MMA, UM_HOST_LDMATRIX };

DEVICE unsigned char *shared_memory(void)
{
    return um_host_shared();
}

DEVICE void sync(void)
{
    um_host_sync();
}

DEVICE void sync_warp(void)
{
    um_host_exchange(UM_HOST_SYNC_WARP, NULL, 0);
}

template <class T> static inline T um_host_shfl(T v, int lane)
{
    T out;
    memcpy(&out, um_host_exchange(UM_HOST_SHFL, &v, sizeof v) + 64 * (lane & 31), sizeof out);
    return out;
}

DEVICE float shfl(float v, int lane)
{
    return um_host_shfl(v, lane);
}

DEVICE uint32_t shfl(uint32_t v, int lane)
{
    return um_host_shfl(v, lane);
}

DEVICE float shfl_xor(float v, int mask)
{
    return um_host_shfl(v, (int)(threadIdx.x & 31) ^ mask);
}

DEVICE uint32_t shfl_xor(uint32_t v, int mask)
{
    return um_host_shfl(v, (int)(threadIdx.x & 31) ^ mask);
}

DEVICE uint32_t warp_ballot(bool v)
{
    uint32_t bits = 0;
    unsigned char one = v;
    const unsigned char *all = um_host_exchange(UM_HOST_BALLOT, &one, 1);
    for (int lane = 0; lane < 32; lane++)
        bits |= (uint32_t)all[64 * lane] << lane;
    return bits;
}

DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    um_host_mma(0, d, a, b);
}

DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    um_host_mma(1, d, a, b);
}

DEVICE void ldmatrix4(uint32_t r[4], const void *row)
{
    um_host_ldmatrix(0, r, row);
}

DEVICE void ldmatrix4_trans(uint32_t r[4], const void *row)
{
    um_host_ldmatrix(1, r, row);
}

DEVICE int kept(int v)
{
    return v;
}

typedef unsigned char *um_shared;

DEVICE um_shared kept(um_shared at)
{
    return at;
}

DEVICE um_shared shared_address(const void *p)
{
    return (um_shared)p;
}

DEVICE void load_shared(uint32_t r[4], um_shared at)
{
    um_host_touch(at, 16, UM_HOST_READ);
    memcpy(r, at, 16);
}

DEVICE void cp_async(um_shared to, const void *from, bool there)
{
    um_host_cp_async(to, from, there);
}

DEVICE void cp_commit(void)
{
    um_host_cp_commit();
}

template <int N> DEVICE void cp_wait(void)
{
    um_host_cp_wait(N);
}

DEVICE float exp2_approx(float x)
{
    return exp2f(x);
}

DEVICE float reciprocal_approx(float x)
{
    return 1 / x;
}

/* The host contracts nothing (-ffp-contract=off). */
DEVICE float mul_rn(float a, float b)
{
    return a * b;
}

DEVICE float add_rn(float a, float b)
{
    return a + b;
}

DEVICE double mul_rn(double a, double b)
{
    return a * b;
}

DEVICE double add_rn(double a, double b)
{
    return a + b;
}

DEVICE float bits_float(uint32_t u)
{
    float v;
    memcpy(&v, &u, 4);
    return v;
}

DEVICE uint32_t float_bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}

DEVICE uint32_t pack_f16(float lo, float hi)
{
    return um_host_pack_f16(lo, hi);
}

DEVICE uint32_t um_host_bf16(float v)
{
    uint32_t u = float_bits(v);
    return v != v ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}

DEVICE uint32_t pack_bf16(float lo, float hi)
{
    return um_host_bf16(lo) | um_host_bf16(hi) << 16;
}

DEVICE float f16_float(uint16_t u)
{
    return um_host_f16_float(u);
}

/* Blocks run one after another, so plain arithmetic is atomic. */
#define UM_HOST_ATOMIC(name, T, value)                                                 \
    __attribute__((unused, noinline, no_sanitize("thread"))) static T name(T *at, T v) \
    {                                                                                  \
        um_host_touch(at, sizeof *at, UM_HOST_ATOMICALLY);                             \
        T old = *at;                                                                   \
        *at = value;                                                                   \
        return old;                                                                    \
    }
UM_HOST_ATOMIC(atomic_add, uint32_t, old + v)
UM_HOST_ATOMIC(atomic_add, uint64_t, old + v)
UM_HOST_ATOMIC(atomic_max, uint64_t, old > v ? old : v)
UM_HOST_ATOMIC(atomic_max, int, old > v ? old : v)
UM_HOST_ATOMIC(atomic_min, int, old < v ? old : v)
UM_HOST_ATOMIC(um_host_same, uint32_t, (void(v), old))
UM_HOST_ATOMIC(um_host_exchange_word, uint32_t, v)

DEVICE uint32_t relaxed_load(const uint32_t *at)
{
    return um_host_same((uint32_t *)at, 0);
}

DEVICE void relaxed_store(uint32_t *at, uint32_t v)
{
    um_host_exchange_word(at, v);
}

DEVICE void fence(void)
{
    um_host_fence();
}

DEVICE int popcount(uint32_t v)
{
    return __builtin_popcount(v);
}

DEVICE int leading_zeros(uint32_t v)
{
    return v ? __builtin_clz(v) : 32;
}

#endif
