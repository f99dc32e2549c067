/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of VL floats. A kernel source is compiled once per instruction level with UM_ISA naming
 * the level and UM_VL its width: 4 (NEON), 8 (AVX2+FMA) or 16 (AVX-512 F, BW, DQ, VL). 16 without
 * AVX-512 is emulated on pairs of ymm, and 4 on an x86 with FMA is NEON's code on xmm, so that the
 * code paths of these levels run in tests on other machines. There are 32 registers, at 8 lanes 16.
 *
 * vf and vi are compiler vectors: + - * / & | ^ ~ << >> < > == and mixing in scalars work as
 * written; comparisons give a vi of 0 or -1. Functions that have no operator are below. Everything
 * is forced inline: no symbol is shared between levels. */
#ifndef UM_NN_SIMD_VEC_H
#define UM_NN_SIMD_VEC_H

#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#ifdef UM_VL
#define VL UM_VL
#else
#error "UM_VL is 4, 8 or 16"
#endif

#define UM_CAT3_(a, b) um_##a##_##b
#define UM_CAT2_(a, b) UM_CAT3_(a, b)
#define UM_NAME(f) UM_CAT2_(f, UM_ISA) /* um_<f>_<isa> */
#define UM_INLINE static inline __attribute__((always_inline, unused))

/* In front of a loop with a constant count: it vanishes, so that an array indexed by its counter
 * can live in registers. */
#if defined(__clang__)
#define UM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define UM_UNROLL _Pragma("GCC unroll 32")
#endif

/* Vectors wider than the machine's are passed between inlined functions only. */
#if VL == 16 && !defined(__AVX512F__)
#define UM_VEC_EMULATED 1
#pragma GCC diagnostic ignored "-Wpsabi"
#else
#define UM_VEC_EMULATED 0
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef float vf_mem __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi_mem __attribute__((vector_size(4 * VL), aligned(4), may_alias));
#if UM_VEC_EMULATED
typedef union vec_pair {
    vf f;
    vi i;
    __m256 h[2];
    __m256i k[2];
} vec_pair;
#endif

/* Keeps a value in a register: the compiler can neither fold the load behind it into its uses nor
 * rematerialise it. */
#if UM_VEC_EMULATED || defined(__aarch64__) /* which has no operands in memory */
#define VF_KEEP(v) ((void)0)
#elif VL == 16
#define VF_KEEP(v) __asm__("" : "+v"(v))
#else
#define VF_KEEP(v) __asm__("" : "+x"(v))
#endif

UM_INLINE vf vf_load(const float *p)
{
    return *(const vf_mem *)p;
}
UM_INLINE void vf_store(float *p, vf v)
{
    *(vf_mem *)p = v;
}
UM_INLINE vi vi_load(const int32_t *p)
{
    return *(const vi_mem *)p;
}
UM_INLINE void vi_store(int32_t *p, vi v)
{
    *(vi_mem *)p = v;
}
UM_INLINE vf vf_cast(vi v) /* same bits */
{
    return (vf)v;
}
UM_INLINE vi vi_cast(vf v) /* same bits */
{
    return (vi)v;
}
UM_INLINE vf vf_of(vi v) /* value, rounded to nearest */
{
    return __builtin_convertvector(v, vf);
}
UM_INLINE vi vi_trunc(vf v) /* value, towards zero; out of range: anything */
{
#if VL == 4
    return __builtin_convertvector(v, vi);
#elif VL == 8
    return (vi)_mm256_cvttps_epi32((__m256)v);
#elif !UM_VEC_EMULATED
    return (vi)_mm512_cvttps_epi32((__m512)v);
#else
    vec_pair u = {v};
    u.k[0] = _mm256_cvttps_epi32(u.h[0]);
    u.k[1] = _mm256_cvttps_epi32(u.h[1]);
    return u.i;
#endif
}

UM_INLINE vi vi_round(vf v) /* value, to nearest, ties to even; out of range: anything */
{
#if defined(__aarch64__)
    return (vi)vcvtnq_s32_f32((float32x4_t)v);
#elif VL == 4
    return (vi)_mm_cvtps_epi32((__m128)v);
#elif VL == 8
    return (vi)_mm256_cvtps_epi32((__m256)v);
#elif !UM_VEC_EMULATED
    return (vi)_mm512_cvtps_epi32((__m512)v);
#else
    vec_pair u = {v};
    u.k[0] = _mm256_cvtps_epi32(u.h[0]);
    u.k[1] = _mm256_cvtps_epi32(u.h[1]);
    return u.i;
#endif
}

#if VL > 4
UM_INLINE __m128i vec_pack16_(__m256i v) /* of 0..65535 */
{
    return _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

/* Two sums of products of 16-bit numbers in each lane, and one of their two sums: exact. */
UM_INLINE __m256i vec_dot4_(__m256i sum, __m256i a, __m256i b)
{
    __m256i low = _mm256_set1_epi16(0xff);
    __m256i even =
        _mm256_madd_epi16(_mm256_and_si256(a, low), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#endif

/* sum + a0*b0 + a1*b1 + a2*b2 + a3*b3 of the four bytes in each lane, those of a unsigned (on 4
 * lanes: less UM_DOT_OFFSET, signed), of b signed. On 16 lanes this is AVX-512 VNNI, on 8 where
 * UM_AVX_VNNI is defined AVX-VNNI, on arm64 its dot products: who calls it has asked for that. */
#define UM_DOT_OFFSET (VL == 4 ? 128 : 0)
UM_INLINE vi vi_dot4(vi sum, vi a, vi b)
{
#if defined(__aarch64__)
    __asm__(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
#elif VL == 4
    for (int i = 0; i < 32; i += 8)
        sum += (a << (24 - i) >> 24) * (b << (24 - i) >> 24);
    return sum;
#elif VL == 8 && defined(UM_AVX_VNNI)
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
#elif VL == 8
    return (vi)vec_dot4_((__m256i)sum, (__m256i)a, (__m256i)b);
#elif !UM_VEC_EMULATED
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    vec_pair s = {.i = sum}, x = {.i = a}, y = {.i = b};
    s.k[0] = vec_dot4_(s.k[0], x.k[0], y.k[0]);
    s.k[1] = vec_dot4_(s.k[1], x.k[1], y.k[1]);
    return s.i;
#endif
}

#if VL == 4

UM_INLINE vf vf_set1(float x)
{
    return (vf){x, x, x, x};
}
UM_INLINE vi vi_set1(int32_t x)
{
    return (vi){x, x, x, x};
}
#if defined(__aarch64__)
UM_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
UM_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return (vf)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
UM_INLINE vf vf_sqrt(vf a)
{
    return (vf)vsqrtq_f32((float32x4_t)a);
}
UM_INLINE vf vf_floor(vf a)
{
    return (vf)vrndmq_f32((float32x4_t)a);
}
#else
UM_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return (vf)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
}
UM_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return (vf)_mm_fnmadd_ps((__m128)a, (__m128)b, (__m128)c);
}
UM_INLINE vf vf_sqrt(vf a)
{
    return (vf)_mm_sqrt_ps((__m128)a);
}
UM_INLINE vf vf_floor(vf a)
{
    return (vf)_mm_floor_ps((__m128)a);
}
#endif
UM_INLINE vf vf_select(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}
UM_INLINE vf vf_min(vf a, vf b)
{
    return vf_select((vi)(a < b), a, b);
}
UM_INLINE vf vf_max(vf a, vf b)
{
    return vf_select((vi)(a > b), a, b);
}
UM_INLINE vf vf_min_abs(vf a, vf b)
{
    return vf_min((vf)((vi)a & INT32_MAX), b);
}
UM_INLINE vf vf_load_n(const float *p, int n)
{
    float some[4] = {0};
    if (n == 4)
        return vf_load(p);
    if (n & 2)
        memcpy(some, p, 2 * sizeof *p);
    if (n & 1)
        some[n & 2] = p[n & 2];
    return vf_load(some);
}
UM_INLINE void vf_store_n(float *p, vf v, int n)
{
    float some[4];
    if (n == 4) {
        vf_store(p, v);
        return;
    }
    vf_store(some, v);
    if (n & 2)
        memcpy(p, some, 2 * sizeof *p);
    if (n & 1)
        p[n & 2] = some[n & 2];
}
UM_INLINE float vf_sum(vf v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}
UM_INLINE float vf_hmax(vf v)
{
    v = vf_max(v, (vf){v[2], v[3], v[2], v[3]});
    return vf_max(v, (vf){v[1], v[1], v[1], v[1]})[0];
}
UM_INLINE vi vi_load_u8(const uint8_t *p)
{
    typedef uint8_t bytes __attribute__((vector_size(4)));
    bytes b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, vi);
}
UM_INLINE void vi_store_u8(uint8_t *p, vi v)
{
    typedef uint8_t bytes __attribute__((vector_size(4)));
    v &= (vi)(v > 0);
    v |= (vi)(v > 255);
    bytes b = __builtin_convertvector(v, bytes);
    memcpy(p, &b, sizeof b);
}

#elif VL == 8

UM_INLINE vf vf_set1(float x)
{
    return (vf)_mm256_set1_ps(x);
}
UM_INLINE vi vi_set1(int32_t x)
{
    return (vi)_mm256_set1_epi32(x);
}
UM_INLINE vf vf_fma(vf a, vf b, vf c) /* a*b + c */
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
UM_INLINE vf vf_fnma(vf a, vf b, vf c) /* c - a*b */
{
    return (vf)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
UM_INLINE vf vf_min(vf a, vf b) /* b if either is NaN */
{
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
UM_INLINE vf vf_max(vf a, vf b) /* b if either is NaN */
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
UM_INLINE vf vf_min_abs(vf a, vf b) /* min(|a|, b), b >= 0; anything of NaN */
{
    return (vf)_mm256_min_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)a), (__m256)b);
}
UM_INLINE vf vf_sqrt(vf a)
{
    return (vf)_mm256_sqrt_ps((__m256)a);
}
UM_INLINE vf vf_floor(vf a)
{
    return (vf)_mm256_floor_ps((__m256)a);
}
UM_INLINE vf vf_select(vi mask, vf yes, vf no) /* mask lanes are 0 or -1 */
{
    return (vf)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
}
UM_INLINE __m256i vec_mask_(int n)
{
    static const int32_t bits[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(bits + 8 - n));
}
UM_INLINE vf vf_load_n(const float *p,
                       int n) /* n of 0..VL floats, other lanes zero; reads nothing beyond */
{
    return (vf)_mm256_maskload_ps(p, vec_mask_(n));
}
UM_INLINE void vf_store_n(float *p, vf v, int n)
{
    _mm256_maskstore_ps(p, vec_mask_(n), (__m256)v);
}
UM_INLINE float vf_sum(vf v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    a = _mm_add_ss(a, _mm_movehdup_ps(a));
    return _mm_cvtss_f32(a);
}
UM_INLINE float vf_hmax(vf v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    a = _mm_max_ss(a, _mm_movehdup_ps(a));
    return _mm_cvtss_f32(a);
}
UM_INLINE vi vi_load_u8(const uint8_t *p) /* VL bytes, zero-extended */
{
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
/* p[0..VL) = v clamped to 0..255; v at most 32767 */
UM_INLINE void vi_store_u8(uint8_t *p, vi v)
{
    __m128i w = vec_pack16_((__m256i)v);
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(w, w));
}

#elif !UM_VEC_EMULATED

UM_INLINE vf vf_set1(float x)
{
    return (vf)_mm512_set1_ps(x);
}
UM_INLINE vi vi_set1(int32_t x)
{
    return (vi)_mm512_set1_epi32(x);
}
UM_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
UM_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return (vf)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
UM_INLINE vf vf_min(vf a, vf b)
{
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
UM_INLINE vf vf_max(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
UM_INLINE vf vf_min_abs(vf a, vf b)
{
    return (vf)_mm512_range_ps((__m512)a, (__m512)b, 0xa); /* the lesser magnitude, sign clear */
}
UM_INLINE vf vf_sqrt(vf a)
{
    return (vf)_mm512_sqrt_ps((__m512)a);
}
UM_INLINE vf vf_floor(vf a)
{
    return (vf)_mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
UM_INLINE vf vf_select(vi mask, vf yes, vf no)
{
    return (vf)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), (__m512)no, (__m512)yes);
}
UM_INLINE __mmask16 vec_mask_(int n)
{
    return (__mmask16)((1u << n) - 1);
}
UM_INLINE vf vf_load_n(const float *p, int n)
{
    return (vf)_mm512_maskz_loadu_ps(vec_mask_(n), p);
}
UM_INLINE void vf_store_n(float *p, vf v, int n)
{
    _mm512_mask_storeu_ps(p, vec_mask_(n), (__m512)v);
}
UM_INLINE __m256 vec_lo_(vf v)
{
    return _mm512_castps512_ps256((__m512)v);
}
UM_INLINE __m256 vec_hi_(vf v)
{
    return _mm512_extractf32x8_ps((__m512)v, 1);
}
UM_INLINE vi vi_load_u8(const uint8_t *p)
{
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
UM_INLINE void vi_store_u8(uint8_t *p, vi v)
{
    __m512i w = _mm512_max_epi32((__m512i)v, _mm512_setzero_si512());
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(w));
}

#else /* two ymm */

UM_INLINE vf vf_set1(float x)
{
    vec_pair u;
    u.h[0] = u.h[1] = _mm256_set1_ps(x);
    return u.f;
}
UM_INLINE vi vi_set1(int32_t x)
{
    vec_pair u;
    u.k[0] = u.k[1] = _mm256_set1_epi32(x);
    return u.i;
}
#define VEC_PAIR1(name, op)  \
    UM_INLINE vf name(vf a)  \
    {                        \
        vec_pair x = {a};    \
        x.h[0] = op(x.h[0]); \
        x.h[1] = op(x.h[1]); \
        return x.f;          \
    }
#define VEC_PAIR2(name, op)          \
    UM_INLINE vf name(vf a, vf b)    \
    {                                \
        vec_pair x = {a}, y = {b};   \
        x.h[0] = op(x.h[0], y.h[0]); \
        x.h[1] = op(x.h[1], y.h[1]); \
        return x.f;                  \
    }
#define VEC_PAIR3(name, op)                  \
    UM_INLINE vf name(vf a, vf b, vf c)      \
    {                                        \
        vec_pair x = {a}, y = {b}, z = {c};  \
        x.h[0] = op(x.h[0], y.h[0], z.h[0]); \
        x.h[1] = op(x.h[1], y.h[1], z.h[1]); \
        return x.f;                          \
    }
#define VEC_MIN_ABS_(a, b) _mm256_min_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a), b)
VEC_PAIR3(vf_fma, _mm256_fmadd_ps)
VEC_PAIR3(vf_fnma, _mm256_fnmadd_ps)
VEC_PAIR2(vf_min, _mm256_min_ps)
VEC_PAIR2(vf_max, _mm256_max_ps)
VEC_PAIR2(vf_min_abs, VEC_MIN_ABS_)
VEC_PAIR1(vf_sqrt, _mm256_sqrt_ps)
VEC_PAIR1(vf_floor, _mm256_floor_ps)
UM_INLINE vf vf_select(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}
UM_INLINE __m256i vec_mask_(int n)
{
    static const int32_t bits[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(bits + 8 - n));
}
UM_INLINE vf vf_load_n(const float *p, int n)
{
    vec_pair u;
    u.h[0] = _mm256_maskload_ps(p, vec_mask_(n < 8 ? n : 8));
    u.h[1] = n > 8 ? _mm256_maskload_ps(p + 8, vec_mask_(n - 8)) : _mm256_setzero_ps();
    return u.f;
}
UM_INLINE void vf_store_n(float *p, vf v, int n)
{
    vec_pair u = {v};
    _mm256_maskstore_ps(p, vec_mask_(n < 8 ? n : 8), u.h[0]);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, vec_mask_(n - 8), u.h[1]);
}
UM_INLINE __m256 vec_lo_(vf v)
{
    vec_pair u = {v};
    return u.h[0];
}
UM_INLINE __m256 vec_hi_(vf v)
{
    vec_pair u = {v};
    return u.h[1];
}
UM_INLINE vi vi_load_u8(const uint8_t *p)
{
    vec_pair u;
    u.k[0] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    u.k[1] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)));
    return u.i;
}
UM_INLINE void vi_store_u8(uint8_t *p, vi v)
{
    vec_pair u = {.i = v};
    for (int i = 0; i < 2; i++) {
        __m128i w = vec_pack16_(u.k[i]);
        _mm_storel_epi64((__m128i *)(p + 8 * i), _mm_packus_epi16(w, w));
    }
}

#endif

#if VL == 16
UM_INLINE float vf_sum(vf v)
{
    __m256 s = _mm256_add_ps(vec_lo_(v), vec_hi_(v));
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    a = _mm_add_ss(a, _mm_movehdup_ps(a));
    return _mm_cvtss_f32(a);
}
UM_INLINE float vf_hmax(vf v)
{
    __m256 s = _mm256_max_ps(vec_lo_(v), vec_hi_(v));
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    a = _mm_max_ss(a, _mm_movehdup_ps(a));
    return _mm_cvtss_f32(a);
}
#endif

UM_INLINE vi vi_load_u16(const uint16_t *p) /* VL of them */
{
#if VL == 4
    typedef uint16_t halves __attribute__((vector_size(8)));
    halves h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, vi);
#elif VL == 8
    return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
#elif !UM_VEC_EMULATED
    return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
#else
    vec_pair u;
    u.k[0] = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    u.k[1] = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p + 1));
    return u.i;
#endif
}

/* sum + a0*b0 + a1*b1 of the two bf16 in each lane, products exact. On 16 lanes this is AVX-512
 * BF16, as vf_store_bf16() is: who calls them has asked for that. */
UM_INLINE vf vf_dot2(vf sum, vi a, vi b)
{
#if VL == 16 && !UM_VEC_EMULATED
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    vi high = vi_set1((int32_t)0xffff0000);
    sum = vf_fma(vf_cast(a & high), vf_cast(b & high), sum);
    return vf_fma(vf_cast(a << 16), vf_cast(b << 16), sum);
#endif
}

/* VL bf16 to p: v to nearest even, NaN stays NaN. */
UM_INLINE void vf_store_bf16(void *p, vf v)
{
#if VL == 16 && !UM_VEC_EMULATED
    __m256i half;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(v));
    _mm256_storeu_si256((__m256i *)p, half);
#else
    vi u = vi_cast(v), even = u + 0x7fff + (u >> 16 & 1), nan = (vi)(v != v);
    vi half = ((even & ~nan) | ((u | 0x400000) & nan)) >> 16 & 0xffff;
#if VL == 4
    typedef uint16_t halves __attribute__((vector_size(8)));
    halves h = __builtin_convertvector(half, halves);
    memcpy(p, &h, sizeof h);
#elif VL == 8
    _mm_storeu_si128((__m128i *)p, vec_pack16_((__m256i)half));
#else
    vec_pair x = {.i = half};
    _mm_storeu_si128((__m128i *)p, vec_pack16_(x.k[0]));
    _mm_storeu_si128((__m128i *)p + 1, vec_pack16_(x.k[1]));
#endif
#endif
}

/* The bf16 of `even` in the lower half of each lane, of `odd` in the upper; as vf_store_bf16(). */
UM_INLINE vi vi_pair_bf16(vf even, vf odd)
{
#if VL == 16 && !UM_VEC_EMULATED
    static const uint16_t lanes[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i both;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(even), "v"(odd));
    return (vi)_mm512_permutexvar_epi16(_mm512_loadu_si512(lanes), both);
#else
    uint16_t e[VL], o[VL];
    vf_store_bf16(e, even);
    vf_store_bf16(o, odd);
    return vi_load_u16(e) | vi_load_u16(o) << 16;
#endif
}

UM_INLINE vf vf_zero(void)
{
    return vf_set1(0.0f);
}
#if VL == 16
/* a0 b0 a1 b1 … of the lower halves. */
UM_INLINE vf vf_interleave(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
/* Every second lane, in the lower half, and in the upper one again. */
UM_INLINE vf vf_evens(vf a)
{
    return __builtin_shufflevector(a, a, 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
}
UM_INLINE vf vf_odds(vf a)
{
    return __builtin_shufflevector(a, a, 1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15);
}
/* p[0] p[1] p[0] p[1] … */
UM_INLINE vf vf_set2(const float *p)
{
    typedef double pairs __attribute__((vector_size(4 * VL)));
    double d;
    memcpy(&d, p, sizeof d);
    return (vf)(pairs){d, d, d, d, d, d, d, d};
}
#endif
/* The first n lanes, as vf_select() wants them. */
UM_INLINE vi vi_first(int n)
{
    static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (vi)(vi_load(lane) < vi_set1(n));
}
/* The maximum; NaN wins: vf_max() gives b if either is NaN. */
UM_INLINE vf vf_larger(vf a, vf b)
{
    return vf_select((vi)(a != a), a, vf_max(a, b));
}

#endif
