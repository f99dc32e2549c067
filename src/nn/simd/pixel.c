/* SPDX-License-Identifier: Apache-2.0 */
/* From camera pixels to the network's input (resize, normalize), and 2x2 max pooling. */
#include "nn/op_ref.h"
#include "nn/simd/vec.h"

um_kernel UM_NAME(resize), UM_NAME(normalize), UM_NAME(maxpool2);

enum { BAND = 8 }; /* rows of one item; as many as a register holds bytes in 32-bit lanes */

static int bands(int rows)
{
    return (rows + BAND - 1) / BAND;
}

/* Rows of an item. */
static int band_rows(int item, int rows, int *end)
{
    *end = (item + 1) * BAND < rows ? (item + 1) * BAND : rows;
    return item * BAND;
}

/* ---- resize: integers, so exact whatever the order ---- */

enum { RESIZE_BITS = 22 };

UM_INLINE uint8_t clip8(int32_t v)
{
    v >>= RESIZE_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Eight lines of eight bytes to eight columns of eight, which follow each other at dst. */
UM_INLINE void transpose_bytes(uint8_t *dst, const uint8_t *const *line, ptrdiff_t at)
{
    typedef uint8_t bytes __attribute__((vector_size(16)));
    typedef uint16_t twos __attribute__((vector_size(16)));
    typedef uint32_t fours __attribute__((vector_size(16)));
    bytes r[8];
    twos q[4];
    fours out[4];
    for (int i = 0; i < 8; i++) {
        r[i] = (bytes){0};
        memcpy(&r[i], line[i] + at, 8);
    }
    for (int i = 0; i < 4; i++)
        q[i] = (twos)__builtin_shufflevector(r[2 * i], r[2 * i + 1], 0, 16, 1, 17, 2, 18, 3, 19, 4,
                                             20, 5, 21, 6, 22, 7, 23);
    for (int i = 0; i < 2; i++) {
        fours low =
            (fours)__builtin_shufflevector(q[2 * i], q[2 * i + 1], 0, 8, 1, 9, 2, 10, 3, 11);
        fours high =
            (fours)__builtin_shufflevector(q[2 * i], q[2 * i + 1], 4, 12, 5, 13, 6, 14, 7, 15);
        out[i] = low;
        out[2 + i] = high;
    }
    for (int i = 0; i < 4; i += 2) {
        fours low = __builtin_shufflevector(out[i], out[i + 1], 0, 4, 1, 5);
        fours high = __builtin_shufflevector(out[i], out[i + 1], 2, 6, 3, 7);
        memcpy(dst + 16 * i, &low, 16);
        memcpy(dst + 16 * (i + 1), &high, 16);
    }
}

/* Of a band, in a vector or two. */
struct sums {
#if VL == 4
    vi v[2];
#else
    __m256i v[1];
#endif
};

UM_INLINE void add_tap(struct sums *s, const uint8_t *p, int32_t weight)
{
#if VL == 4
    s->v[0] += vi_load_u8(p) * weight;
    s->v[1] += vi_load_u8(p + 4) * weight;
#else
    __m256i pixels = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    s->v[0] = _mm256_add_epi32(s->v[0], _mm256_mullo_epi32(pixels, _mm256_set1_epi32(weight)));
#endif
}

UM_INLINE void store_sums(uint8_t *dst, const struct sums *s)
{
    const int32_t half = 1 << (RESIZE_BITS - 1);
#if VL == 4
    vi_store_u8(dst, (s->v[0] + half) >> RESIZE_BITS);
    vi_store_u8(dst + 4, (s->v[1] + half) >> RESIZE_BITS);
#else
    __m256i rounded = _mm256_add_epi32(s->v[0], _mm256_set1_epi32(half));
    __m128i v = vec_pack16_(_mm256_srai_epi32(rounded, RESIZE_BITS));
    _mm_storel_epi64((__m128i *)dst, _mm_packus_epi16(v, v));
#endif
}

/* Along a row every output has its own taps, so the lanes are eight rows: the band is turned on its
 * side and back. */
static void resize_rows(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *out = &call->t[0], *in = &call->t[1], *taps = &call->t[2];
    int end, y0 = band_rows(item, out->h, &end), n_in = in->w * in->c, n_out = out->w * out->c,
             c = in->c, i = 0;
    uint8_t *turned = um_pool_scratch(call->pool, worker), *done = turned + (ptrdiff_t)BAND * n_in;
    const uint8_t *line[BAND];
    for (int r = 0; r < BAND; r++) /* a short band repeats its last row */
        line[r] = (const uint8_t *)in->data + (ptrdiff_t)(y0 + r < end ? y0 + r : end - 1) * n_in;
    for (; i + 8 <= n_in; i += 8)
        transpose_bytes(turned + (ptrdiff_t)i * BAND, line, i);
    for (; i < n_in; i++)
        for (int r = 0; r < BAND; r++)
            turned[i * BAND + r] = line[r][i];
    const int32_t *k = taps->data;
    for (int x = 0; x < out->w; x++, k += taps->ld)
        for (int o = 0; o < c; o++) {
            const uint8_t *p = turned + ((ptrdiff_t)k[0] * c + o) * BAND;
            struct sums acc;
            memset(&acc, 0, sizeof acc);
            for (int j = 0; j < k[1]; j++, p += c * BAND)
                add_tap(&acc, p, k[2 + j]);
            store_sums(done + (ptrdiff_t)(x * c + o) * BAND, &acc);
        }
    uint8_t *to = (uint8_t *)out->data + (ptrdiff_t)y0 * n_out;
    for (i = 0; i + 8 <= n_out; i += 8) {
        const uint8_t *column[8];
        uint8_t rows[64];
        for (int k8 = 0; k8 < 8; k8++)
            column[k8] = done + (ptrdiff_t)(i + k8) * BAND;
        transpose_bytes(rows, column, 0);
        for (int r = 0; r < end - y0; r++)
            memcpy(to + (ptrdiff_t)r * n_out + i, rows + 8 * r, 8);
    }
    for (; i < n_out; i++)
        for (int r = 0; r < end - y0; r++)
            to[(ptrdiff_t)r * n_out + i] = done[i * BAND + r];
}

static void resize_columns(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *out = &call->t[0], *in = &call->t[1], *taps = &call->t[2];
    int end, y = band_rows(item, out->h, &end), n = out->w * out->c;
    ptrdiff_t line = (ptrdiff_t)in->w * in->ld;
    (void)worker;
    for (; y < end; y++) {
        const int32_t *k = (const int32_t *)taps->data + y * taps->ld;
        const uint8_t *src = (const uint8_t *)in->data + k[0] * line;
        uint8_t *dst = (uint8_t *)out->data + (ptrdiff_t)y * n;
        int x = 0;
        for (; x + VL <= n; x += VL) {
            vi acc = vi_set1(1 << (RESIZE_BITS - 1));
            for (int j = 0; j < k[1]; j++)
                acc += vi_load_u8(src + j * line + x) * vi_set1(k[2 + j]);
            vi_store_u8(dst + x, acc >> RESIZE_BITS);
        }
        for (; x < n; x++) {
            int32_t acc = 1 << (RESIZE_BITS - 1);
            for (int j = 0; j < k[1]; j++)
                acc += src[j * line + x] * k[2 + j];
            dst[x] = clip8(acc);
        }
    }
}

void UM_NAME(resize)(const struct um_call *call)
{
    const struct um_resize_args *a = call->args;
    const struct um_view *out = &call->t[0], *in = &call->t[1];
    if (in->ld != in->c || out->ld != out->c ||
        ((size_t)in->w + (size_t)out->w) * (size_t)in->c * BAND > UM_POOL_SCRATCH) {
        um_ref_resize(call); /* rows of 500000 bytes */
        return;
    }
    um_pool_run(call->pool, bands(out->h), a->vertical ? resize_columns : resize_rows,
                (void *)(uintptr_t)call);
}

/* ---- normalize ---- */

static void normalize_rows(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *out = &call->t[0], *in = &call->t[1], *lut = &call->t[2];
    int end, y = band_rows(item, out->h, &end), c = out->c, cols = in->w < out->w ? in->w : out->w;
    const float *table = lut->data;
    (void)worker;
    for (; y < end; y++) {
        float *dst = um_view_at(out, (ptrdiff_t)y * out->w);
        const uint8_t *src = (const uint8_t *)in->data + (ptrdiff_t)y * in->w * in->ld;
        int x = 0;
        for (; y < in->h && x < cols; x++, dst += out->ld, src += in->ld) {
            if (c == 3) { /* an unrolled copy of the loop below */
                dst[0] = table[src[0]];
                dst[1] = table[lut->ld + src[in->c == 1 ? 0 : 1]];
                dst[2] = table[2 * lut->ld + src[in->c == 1 ? 0 : 2]];
                continue;
            }
            for (int o = 0; o < c; o++)
                dst[o] = table[o * lut->ld + src[in->c == 1 ? 0 : o]];
        }
        if (out->ld == c) {
            memset(dst, 0, (size_t)(out->w - x) * (size_t)c * sizeof *dst);
            continue;
        }
        for (; x < out->w; x++, dst += out->ld)
            memset(dst, 0, (size_t)c * sizeof *dst);
    }
}

void UM_NAME(normalize)(const struct um_call *call)
{
    um_pool_run(call->pool, bands(call->t[0].h), normalize_rows, (void *)(uintptr_t)call);
}

/* ---- maxpool2 ---- */

UM_INLINE vf load_some(const float *p, int n)
{
    return n == VL ? vf_load(p) : vf_load_n(p, n);
}

static void maxpool2_rows(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *out = &call->t[0], *in = &call->t[1];
    int end, y = band_rows(item, out->h, &end);
    (void)worker;
    for (; y < end; y++)
        for (int x = 0; x < out->w; x++) {
            const float *p = um_view_at(in, (ptrdiff_t)y * in->w + x);
            float *dst = um_view_at(out, (ptrdiff_t)y * out->w + x);
            bool right = x + 1 < in->w, below = y + 1 < in->h;
            for (int i = 0; i < out->c; i += VL, p += VL) {
                int n = out->c - i < VL ? out->c - i : VL;
                vf zero = vf_zero(), m = load_some(p, n);
                m = vf_larger(right ? load_some(p + in->ld, n) : zero, m);
                m = vf_larger(below ? load_some(p + in->w * in->ld, n) : zero, m);
                m = vf_larger(right && below ? load_some(p + (in->w + 1) * in->ld, n) : zero, m);
                if (n == VL)
                    vf_store(dst + i, m);
                else
                    vf_store_n(dst + i, m, n);
            }
        }
}

void UM_NAME(maxpool2)(const struct um_call *call)
{
    um_pool_run(call->pool, bands(call->t[0].h), maxpool2_rows, (void *)(uintptr_t)call);
}
