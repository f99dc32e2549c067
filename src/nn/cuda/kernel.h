/* SPDX-License-Identifier: Apache-2.0 */
/* The language GPU kernels are written in: CUDA C behind a few names, so that one source has two
 * compilers. nvcc makes device code of it; a C++ compiler makes functions that tests run on the
 * host, thread by thread, tensor cores emulated (tests/cuda/kernel_host.h).
 *
 *     KERNEL(um_scale, struct um_scale_args, a, 256)    one by-value struct, at most 256 threads
 *     {
 *         int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
 *         ...
 *     }
 *
 * Blocks are one-dimensional, a multiple of 32 threads. All shared memory is dynamic: one block
 * from shared_memory(), carved up by hand, undefined at the start. Collectives (sync, sync_warp,
 * shfl*, warp_ballot, mma*, ldmatrix*) are called by all threads of the block or warp. Halves (fp16
 * or bf16) are stored as uint16_t and computed as float. */
#ifndef UM_NN_CUDA_KERNEL_H
#define UM_NN_CUDA_KERNEL_H

#include "nn/cuda/view.h"

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__

#define KERNEL(name, args_t, args, threads) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ args_t args)
#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLL _Pragma("unroll 1") /* short or rarely taken: not worth repeating */

DEVICE unsigned char *shared_memory(void)
{
    extern __shared__ __align__(16) unsigned char um_shared_bytes[];
    return um_shared_bytes;
}

DEVICE void sync(void)
{
    __syncthreads();
}

DEVICE void sync_warp(void)
{
    __syncwarp();
}

DEVICE float shfl_xor(float v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

DEVICE uint32_t shfl_xor(uint32_t v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

DEVICE float shfl(float v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

DEVICE uint32_t shfl(uint32_t v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

DEVICE uint32_t warp_ballot(bool v)
{
    return __ballot_sync(0xffffffffu, v);
}

/* d += a b: a 16x16 row-major, b 16x8, fragments as the PTX manual lays them out (mma.m16n8k16). */
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of halves in shared memory: lane l names row l%8 of matrix l/8 (16 bytes,
 * 16-aligned); register i gets matrix i in fragment order. */
DEVICE void ldmatrix4(uint32_t r[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The same with every matrix transposed. */
DEVICE void ldmatrix4_trans(uint32_t r[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* v, which the compiler keeps in a register instead of working it out again in every turn of a
 * loop. Called by all lanes. */
DEVICE int kept(int v)
{
    return __shfl_sync(0xffffffffu, v, threadIdx.x & 31);
}

/* An address in shared memory, in bytes. */
typedef uint32_t um_shared;

DEVICE um_shared shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

DEVICE um_shared kept(um_shared at)
{
    return (uint32_t)kept((int)at);
}

DEVICE void ldmatrix4(uint32_t r[4], um_shared row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

DEVICE void load_shared(uint32_t r[4], um_shared at)
{
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* 16 bytes from global to shared memory (both 16-aligned), or zeros, while the thread goes on;
 * where it is zeros, `from` need not be an address. A thread's copies since the last cp_commit()
 * are a group; cp_wait<N>() waits for all its groups but the last N. Other threads see them after a
 * barrier. */
DEVICE void cp_async(um_shared to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

DEVICE void cp_commit(void)
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

template <int N> DEVICE void cp_wait(void)
{
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

DEVICE float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE float reciprocal_approx(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Products and sums that stay as they are written: the compiler makes no fma of them. */
DEVICE float mul_rn(float a, float b)
{
    return __fmul_rn(a, b);
}

DEVICE float add_rn(float a, float b)
{
    return __fadd_rn(a, b);
}

DEVICE double mul_rn(double a, double b)
{
    return __dmul_rn(a, b);
}

DEVICE double add_rn(double a, double b)
{
    return __dadd_rn(a, b);
}

DEVICE float bits_float(uint32_t u)
{
    return __uint_as_float(u);
}

DEVICE uint32_t float_bits(float v)
{
    return __float_as_uint(v);
}

/* Two floats as halves, lo in the low 16 bits, round to nearest even; too large becomes the largest
 * finite half, NaN stays NaN. */
DEVICE uint32_t pack_f16(float lo, float hi)
{
    uint32_t u;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(hi), "f"(lo));
    return u;
}

DEVICE uint32_t pack_bf16(float lo, float hi)
{
    uint32_t u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(hi), "f"(lo));
    return u;
}

DEVICE float f16_float(uint16_t u)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(u));
    return v;
}

DEVICE uint32_t atomic_add(uint32_t *at, uint32_t v)
{
    return atomicAdd(at, v);
}

DEVICE uint64_t atomic_add(uint64_t *at, uint64_t v)
{
    return atomicAdd((unsigned long long *)at, (unsigned long long)v);
}

DEVICE uint64_t atomic_max(uint64_t *at, uint64_t v)
{
    return atomicMax((unsigned long long *)at, (unsigned long long)v);
}

DEVICE int atomic_max(int *at, int v)
{
    return atomicMax(at, v);
}

DEVICE int atomic_min(int *at, int v)
{
    return atomicMin(at, v);
}

/* Of a word that others may read and write at the same time: any of its values will do. */
DEVICE uint32_t relaxed_load(const uint32_t *at)
{
    return *at;
}

DEVICE void relaxed_store(uint32_t *at, uint32_t v)
{
    *at = v;
}

/* Writes before it are seen by other blocks before writes after it. */
DEVICE void fence(void)
{
    __threadfence();
}

DEVICE int popcount(uint32_t v)
{
    return __popc(v);
}

DEVICE int leading_zeros(uint32_t v) /* 32 of 0 */
{
    return __clz((int)v);
}

#else
#include "kernel_host.h"
#endif

DEVICE float bf16_float(uint16_t u)
{
    return bits_float((uint32_t)u << 16);
}

/* Both kinds of half as a template parameter. */
struct F16 {
    static const int dtype = UM_F16;
    DEVICE float load(uint16_t u)
    {
        return f16_float(u);
    }
    DEVICE uint32_t pack(float lo, float hi)
    {
        return pack_f16(lo, hi);
    }
    DEVICE void mma(float d[4], const uint32_t a[4], const uint32_t b[2])
    {
        mma_f16(d, a, b);
    }
};

struct BF16 {
    static const int dtype = UM_BF16;
    DEVICE float load(uint16_t u)
    {
        return bf16_float(u);
    }
    DEVICE uint32_t pack(float lo, float hi)
    {
        return pack_bf16(lo, hi);
    }
    DEVICE void mma(float d[4], const uint32_t a[4], const uint32_t b[2])
    {
        mma_bf16(d, a, b);
    }
};

/* ---- elements of a view: the type is uniform over the grid, so the branch is free ---- */

DEVICE float half_float(int dtype, uint16_t u)
{
    return dtype == UM_F16 ? f16_float(u) : bf16_float(u);
}

DEVICE uint32_t pack_half(int dtype, float lo, float hi)
{
    return dtype == UM_F16 ? pack_f16(lo, hi) : pack_bf16(lo, hi);
}

DEVICE float load(const um_gview &v, int64_t row, int col)
{
    int64_t i = row * v.ld + col;
    return v.dtype == UM_F32 ? ((const float *)v.data)[i]
                             : half_float(v.dtype, ((const uint16_t *)v.data)[i]);
}

DEVICE void store(const um_gview &v, int64_t row, int col, float x)
{
    int64_t i = row * v.ld + col;
    if (v.dtype == UM_F32)
        ((float *)v.data)[i] = x;
    else
        ((uint16_t *)v.data)[i] = (uint16_t)pack_half(v.dtype, x, 0);
}

struct alignas(16) um_words {
    uint32_t w[4];
};
struct alignas(8) um_words2 {
    uint32_t w[2];
};

DEVICE void unpack_half(int dtype, uint32_t u, float *x)
{
    x[0] = half_float(dtype, (uint16_t)u);
    x[1] = half_float(dtype, (uint16_t)(u >> 16));
}

/* Eight neighbours of type dtype, the first element i of data, 16-byte pieces as they lie in memory
 * (halves: to[0] alone): loads are issued together, and only unpack8() waits for them. */
DEVICE void fetch8(um_words to[2], int dtype, const void *data, int64_t i)
{
    const unsigned char *from = (const unsigned char *)data + i * (dtype == UM_F32 ? 4 : 2);
    to[0] = *(const um_words *)from;
    if (dtype == UM_F32)
        to[1] = *(const um_words *)(from + sizeof to[0]);
}

DEVICE void unpack8(const um_words from[2], int dtype, float x[8])
{
    UNROLL
    for (int j = 0; j < 8; j++)
        x[j] = dtype == UM_F32 ? bits_float(from[j / 4].w[j % 4])
                               : half_float(dtype, (uint16_t)(from[0].w[j / 2] >> (16 * (j % 2))));
}

template <class H> DEVICE um_words pack8(const float x[8])
{
    um_words u;
    UNROLL
    for (int i = 0; i < 4; i++)
        u.w[i] = H::pack(x[2 * i], x[2 * i + 1]);
    return u;
}

/* Eight weights, 16-byte aligned. */
DEVICE void load_floats(const float *from, float x[8])
{
    um_words u[2];
    fetch8(u, UM_F32, from, 0);
    unpack8(u, UM_F32, x);
}

/* Elements col..col+7 of a row, which exist. Whole vectors where the view says so (v.vec); through
 * fetch8() and unpack8() the GEMMs that also call this spill registers. */
DEVICE void load8(const um_gview &v, int64_t row, int col, float x[8])
{
    int64_t i = row * v.ld + col;
    if (v.dtype == UM_F32 && v.vec >= 4 && col % 4 == 0) {
        UNROLL
        for (int k = 0; k < 2; k++) {
            um_words u = *(const um_words *)((const float *)v.data + i + 4 * k);
            UNROLL
            for (int j = 0; j < 4; j++)
                x[4 * k + j] = bits_float(u.w[j]);
        }
    } else if (v.dtype != UM_F32 && v.vec >= 8 && col % 8 == 0) {
        um_words u = *(const um_words *)((const uint16_t *)v.data + i);
        UNROLL
        for (int j = 0; j < 4; j++)
            unpack_half(v.dtype, u.w[j], x + 2 * j);
    } else {
        ROLL for (int j = 0; j < 8;
                  j++) /* each moves the others up: no index that is not a constant */
        {
            UNROLL
            for (int e = 0; e < 7; e++)
                x[e] = x[e + 1];
            x[7] = load(v, row, col + j);
        }
    }
}

/* Elements col..col+7; only the first n are written. */
DEVICE void store8(const um_gview &v, int64_t row, int col, const float x[8], int n)
{
    int64_t i = row * v.ld + col;
    if (n == 8 && v.dtype == UM_F32 && v.vec >= 4 && col % 4 == 0) {
        UNROLL
        for (int k = 0; k < 2; k++) {
            um_words u;
            UNROLL
            for (int j = 0; j < 4; j++)
                u.w[j] = float_bits(x[4 * k + j]);
            *(um_words *)((float *)v.data + i + 4 * k) = u;
        }
    } else if (n == 8 && v.dtype != UM_F32 && v.vec >= 8 && col % 8 == 0) {
        um_words u;
        UNROLL
        for (int j = 0; j < 4; j++)
            u.w[j] = pack_half(v.dtype, x[2 * j], x[2 * j + 1]);
        *(um_words *)((uint16_t *)v.data + i) = u;
    } else {
        float y[8];
        UNROLL
        for (int j = 0; j < 8; j++)
            y[j] = x[j];
        ROLL for (int j = 0; j < n; j++)
        {
            store(v, row, col + j, y[0]);
            UNROLL
            for (int e = 0; e < 7; e++)
                y[e] = y[e + 1];
        }
    }
}

/* Elements col..col+n-1, at most 8, and zeros; and only those of a row that exist. */
DEVICE void load_some(const um_gview &v, int64_t row, int col, int n, float x[8])
{
    if (n >= 8) {
        load8(v, row, col, x);
        return;
    }
    UNROLL
    for (int k = 0; k < 8; k++)
        x[k] = k < n ? load(v, row, col + k) : 0;
}

DEVICE void store_some(const um_gview &v, int64_t row, int col, const float x[8])
{
    store8(v, row, col, x, v.c - col < 8 ? v.c - col : 8);
}

/* ---- sums and maxima over a warp: every lane gets the result, in one fixed order ---- */

DEVICE float warp_sum(float v)
{
    UNROLL
    for (int m = 16; m; m >>= 1)
        v += shfl_xor(v, m);
    return v;
}

DEVICE float warp_max(float v)
{
    UNROLL
    for (int m = 16; m; m >>= 1)
        v = fmaxf(v, shfl_xor(v, m));
    return v;
}

/* ---- activations ---- */

/* GELU(x) = x Phi(x), Phi - 1/2 as an odd minimax polynomial of 9 terms on [-4.2, 4.2], clamped
 * beyond. Error at most 5e-5 for |x| <= 6: an eighth of what fp16 shows near 1. */
DEVICE float gelu_half(float x)
{
    float u = fminf(fmaxf(x, -4.2f), 4.2f), t = u * u;
    float p = 6.712358447e-11f;
    p = fmaf(p, t, -6.238573214e-09f);
    p = fmaf(p, t, 2.558331289e-07f);
    p = fmaf(p, t, -6.173391739e-06f);
    p = fmaf(p, t, 9.922282334e-05f);
    p = fmaf(p, t, -1.145079965e-03f);
    p = fmaf(p, t, 9.946144186e-03f);
    p = fmaf(p, t, -6.657665223e-02f);
    p = fmaf(p, t, 3.990515471e-01f);
    return x * fmaf(u, p, 0.5f);
}

/* To two units of the last place of a float; 1 of +infinity, 0 of -infinity. */
DEVICE float sigmoid_half(float x)
{
    return reciprocal_approx(1 + exp2_approx(-1.44269504089f * x));
}

DEVICE float activate(int act, float limit, float x, bool exact)
{
    switch (act) {
    case UM_ACT_RELU: return x > 0 ? x : (x != x ? x : 0.0f);
    case UM_ACT_SILU: return exact ? x / (1 + expf(-x)) : x * sigmoid_half(x);
    case UM_ACT_GELU: return exact ? 0.5f * x * (1 + erff(x * 0.70710678118654752f)) : gelu_half(x);
    case UM_ACT_SIGMOID: return exact ? 1 / (1 + expf(-x)) : sigmoid_half(x);
    case UM_ACT_CLAMP: return x < -limit ? -limit : x > limit ? limit : x;
    }
    return x;
}

template <int ACT, int N> DEVICE void activate_each(float limit, float *x, bool exact)
{
    UNROLL
    for (int i = 0; i < N; i++)
        x[i] = activate(ACT, limit, x[i], exact);
}

/* One branch for all N, so that the code of one activation runs straight through. */
template <int N> DEVICE void activate_all(int act, float limit, float *x, bool exact)
{
    switch (act) {
    case UM_ACT_RELU: activate_each<UM_ACT_RELU, N>(limit, x, exact); break;
    case UM_ACT_SILU: activate_each<UM_ACT_SILU, N>(limit, x, exact); break;
    case UM_ACT_GELU: activate_each<UM_ACT_GELU, N>(limit, x, exact); break;
    case UM_ACT_SIGMOID: activate_each<UM_ACT_SIGMOID, N>(limit, x, exact); break;
    case UM_ACT_CLAMP: activate_each<UM_ACT_CLAMP, N>(limit, x, exact); break;
    }
}

/* What follows eight sums of a convolution or linear layer whose output and addend are halves:
 * residual, activation, affine, residual. A: arguments with a view `add` and those names. */
template <class H, class A>
DEVICE um_words finish_halves(const A &a, const um_words &residual, float v[8])
{
    float w[8];
    unpack8(&residual, H::dtype, w);
    if (a.add.data && !a.add_last) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] += w[i];
    }
    activate_all<8>(a.act, a.limit, v, false);
    if (a.lab_scale != 0) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] = v[i] * a.lab_scale + a.lab_shift;
    }
    if (a.add.data && a.add_last) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] += w[i];
    }
    return pack8<H>(v);
}

/* Element i of a view of halves, and the seven behind it; zeros of an absent one. */
DEVICE um_words halves_at(const um_gview &v, int i)
{
    um_words none = {{0, 0, 0, 0}};
    return v.data ? *(const um_words *)((const uint16_t *)v.data + i) : none;
}

#endif
