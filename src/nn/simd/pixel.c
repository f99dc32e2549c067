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
    __m128i r[8], q[4];
    for (int i = 0; i < 8; i++)
        r[i] = _mm_loadl_epi64((const __m128i *)(line[i] + at));
    for (int i = 0; i < 4; i++)
        q[i] = _mm_unpacklo_epi8(r[2 * i], r[2 * i + 1]);
    r[0] = _mm_unpacklo_epi16(q[0], q[1]);
    r[1] = _mm_unpacklo_epi16(q[2], q[3]);
    r[2] = _mm_unpackhi_epi16(q[0], q[1]);
    r[3] = _mm_unpackhi_epi16(q[2], q[3]);
    _mm_storeu_si128((__m128i *)dst, _mm_unpacklo_epi32(r[0], r[1]));
    _mm_storeu_si128((__m128i *)(dst + 16), _mm_unpackhi_epi32(r[0], r[1]));
    _mm_storeu_si128((__m128i *)(dst + 32), _mm_unpacklo_epi32(r[2], r[3]));
    _mm_storeu_si128((__m128i *)(dst + 48), _mm_unpackhi_epi32(r[2], r[3]));
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
            __m256i acc = _mm256_set1_epi32(1 << (RESIZE_BITS - 1));
            for (int j = 0; j < k[1]; j++, p += c * BAND)
                acc = _mm256_add_epi32(
                    acc,
                    _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                                       _mm256_set1_epi32(k[2 + j])));
            acc = _mm256_srai_epi32(acc, RESIZE_BITS);
            __m128i v =
                _mm_packus_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256(acc, 1));
            _mm_storel_epi64((__m128i *)(done + (ptrdiff_t)(x * c + o) * BAND),
                             _mm_packus_epi16(v, v));
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
