/* SPDX-License-Identifier: Apache-2.0 */
/* From low-resolution logits to the mask, its weights and statistics, and the packet. All are
 * exact: the same bits as op_ref_sam.c. */
#include "nn/op_ref.h"
#include "nn/op_sam.h"
#include "nn/simd/vec.h"

um_kernel UM_NAME(mask), UM_NAME(mask_stats), UM_NAME(packet);

/* ---- mask: rows of logits are stretched in x once, then combined in y. The chains of FMAs are the
 * reference's. ---- */

enum { MASK_BAND = 32, MASK_RING = 4 };

static void stretch(float *dst, const struct um_view *low, int row, const struct um_view *taps,
                    int w)
{
    const float *src = um_view_at(low, (ptrdiff_t)row * low->w), *t = taps->data;
    for (int x = 0; x < w; x++, t += 4) {
        const float *v = src + (ptrdiff_t)t[0] * low->ld;
        dst[x] =
            __builtin_fmaf(t[3], v[2 * low->ld], __builtin_fmaf(t[2], v[low->ld], t[1] * v[0]));
    }
}

static void mask_rows(void *ctx, int item, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *t = call->t;
    int w = t[0].w, y = item * MASK_BAND, end = y + MASK_BAND < t[0].h ? y + MASK_BAND : t[0].h,
        filled[MASK_RING];
    float *ring = um_pool_scratch(call->pool, worker);
    struct um_gate gate = {.flags = UM_GATE_OK};
    if (t[5].data)
        memcpy(&gate, t[5].data, sizeof gate);
    bool visible = gate.flags == UM_GATE_OK;
    for (int i = 0; i < MASK_RING; i++)
        filled[i] = -1;
    for (; y < end; y++) {
        const float *ty = um_view_at(&t[4], y), *r[3];
        uint8_t *mask = (uint8_t *)t[0].data + (ptrdiff_t)y * w;
        float *logits = t[1].data ? (float *)t[1].data + (ptrdiff_t)y * w : NULL;
        for (int k = 0; k < 3; k++) {
            int row = (int)ty[0] + k, slot = row % MASK_RING;
            if (filled[slot] != row) {
                stretch(ring + (ptrdiff_t)slot * w, &t[2], row, &t[3], w);
                filled[slot] = row;
            }
            r[k] = ring + (ptrdiff_t)slot * w;
        }
        int x = 0;
        for (; x + VL <= w; x += VL) {
            vf v = vf_load(r[0] + x) * ty[1];
            v = vf_fma(vf_set1(ty[2]), vf_load(r[1] + x), v);
            v = vf_fma(vf_set1(ty[3]), vf_load(r[2] + x), v);
            vi on = (vi)(v > vf_zero()) & (visible ? 1 : 0);
            vi_store_u8(mask + x, on);
            if (logits)
                vf_store(logits + x, v);
        }
        for (; x < w; x++) {
            float v =
                __builtin_fmaf(ty[3], r[2][x], __builtin_fmaf(ty[2], r[1][x], ty[1] * r[0][x]));
            mask[x] = visible && v > 0;
            if (logits)
                logits[x] = v;
        }
    }
}

void UM_NAME(mask)(const struct um_call *call)
{
    const struct um_view *t = call->t;
    if (t[0].ld != 1 || (t[1].data && t[1].ld != 1) || t[3].ld != 4 ||
        (size_t)t[0].w * MASK_RING * sizeof(float) > UM_POOL_SCRATCH) {
        um_ref_mask(call); /* an image 260000 pixels wide */
        return;
    }
    um_pool_run(call->pool, (t[0].h + MASK_BAND - 1) / MASK_BAND, mask_rows,
                (void *)(uintptr_t)call);
}

/* ---- mask weights and statistics: 32 pixels at a time ---- */

enum { BANDS = 64, BYTES = 32, MARGIN = 32 /* zero bytes on either side of a line */ };

typedef uint8_t vb __attribute__((vector_size(BYTES)));
typedef uint8_t vb_mem __attribute__((vector_size(BYTES), aligned(1), may_alias));

struct stats_job {
    const struct um_call *call;
    struct um_record band[BANDS];
};

/* Scratch of one band: lines of `line` bytes. */
struct lines {
    size_t line;
    uint8_t *zero, *one; /* what lies above and below the image for a dilation, for an erosion */
    uint8_t *any3, *any5,
        *no3;      /* of the column: some of 3, some of 5 are set, some of 3 is not set */
    uint8_t *tail; /* one padded row of the mask */
};

UM_INLINE vb load_bytes(const uint8_t *p)
{
    return *(const vb_mem *)p;
}

UM_INLINE void store_bytes(uint8_t *p, vb v, int n)
{
    if (n >= BYTES) {
        *(vb_mem *)p = v;
        return;
    }
    uint8_t some[BYTES];
    *(vb_mem *)some = v;
    memcpy(p, some, (size_t)n);
}

#if defined(__aarch64__)
UM_INLINE uint8x16_t half_of(vb v, int i)
{
    union {
        vb all;
        uint8x16_t half[2];
    } u = {v};
    return u.half[i];
}

UM_INLINE uint64_t sum_bytes(vb v)
{
    return (uint64_t)vaddlvq_u8(half_of(v, 0)) + vaddlvq_u8(half_of(v, 1));
}

UM_INLINE uint32_t bits_of(vb v) /* bit i = lowest bit of byte i */
{
    static const uint8_t weight[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint32_t bits = 0;
    for (int i = 0; i < 2; i++) {
        uint8x16_t some = vmulq_u8(vandq_u8(half_of(v, i), vdupq_n_u8(1)), vld1q_u8(weight));
        bits |=
            ((uint32_t)vaddv_u8(vget_low_u8(some)) | (uint32_t)vaddv_u8(vget_high_u8(some)) << 8)
            << 16 * i;
    }
    return bits;
}
#else
UM_INLINE uint64_t sum_bytes(vb v)
{
    __m256i s = _mm256_sad_epu8((__m256i)v, _mm256_setzero_si256());
    __m128i a = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    return (uint64_t)_mm_extract_epi64(a, 0) + (uint64_t)_mm_extract_epi64(a, 1);
}

UM_INLINE uint32_t bits_of(vb v) /* bit i = lowest bit of byte i */
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16((__m256i)v, 7));
}
#endif

/* Columns of line y: the masks of the vertical neighbourhoods, zero beyond both ends. */
static void columns(const struct lines *l, const struct um_view *mask, int y)
{
    const uint8_t * or [5], *and[3];
    int w = mask->w, x = 0;
    for (int k = -2; k <= 2; k++) {
        bool inside = y + k >= 0 && y + k < mask->h;
        const uint8_t *row = (const uint8_t *)mask->data + (ptrdiff_t)(y + k) * w;
        or [k + 2] = inside ? row : l->zero;
        if (k >= -1 && k <= 1)
            and[k + 1] = inside ? row : l->one;
    }
    for (; x + BYTES <= w; x += BYTES) {
        vb three = load_bytes(or [1] + x) | load_bytes(or [2] + x) | load_bytes(or [3] + x);
        *(vb_mem *)(l->any3 + x) = three;
        *(vb_mem *)(l->any5 + x) = three | load_bytes(or [0] + x) | load_bytes(or [4] + x);
        *(vb_mem *)(l->no3 + x) =
            (load_bytes(and[0] + x) & load_bytes(and[1] + x) & load_bytes(and[2] + x)) ^ 1;
    }
    for (; x < w; x++) {
        l->any3[x] = or [1][x] | or [2][x] | or [3][x];
        l->any5[x] = l->any3[x] | or [0][x] | or [4][x];
        l->no3[x] = (and[0][x] & and[1][x] & and[2][x]) ^ 1;
    }
}

static void stats_line(const struct um_call *call, int y, struct um_record *s,
                       const struct lines *l)
{
    const struct um_view *mask = &call->t[2];
    int w = mask->w, x0 = -1, x1 = 0;
    size_t plane = (size_t)mask->h * (size_t)w, at = (size_t)y * (size_t)w;
    uint8_t *edge = (uint8_t *)call->t[0].data + at, *in = edge + plane, *out = in + plane;
    const uint8_t *m = (const uint8_t *)mask->data + at;
    uint64_t n_edge = 0, n_in = 0, n_out = 0, area = 0, sum_x = 0;
    columns(l, mask, y);
    for (int x = 0; x < w; x += BYTES) {
        int n = w - x < BYTES ? w - x : BYTES;
        vb self, some = {0};
        if (n == BYTES) {
            self = load_bytes(m + x);
            some = ~some;
        } else {
            memset(l->tail, 0, 2 * BYTES);
            memset(l->tail, 0xff, (size_t)n);
            some = load_bytes(l->tail);
            memcpy(l->tail + BYTES, m + x, (size_t)n);
            self = load_bytes(l->tail + BYTES);
        }
        vb dilated =
            load_bytes(l->any3 + x - 1) | load_bytes(l->any3 + x) | load_bytes(l->any3 + x + 1);
        vb eroded =
            (load_bytes(l->no3 + x - 1) | load_bytes(l->no3 + x) | load_bytes(l->no3 + x + 1)) ^ 1;
        vb wide = load_bytes(l->any5 + x - 2) | load_bytes(l->any5 + x - 1) |
                  load_bytes(l->any5 + x) | load_bytes(l->any5 + x + 1) |
                  load_bytes(l->any5 + x + 2);
        eroded &= some;
        dilated = (dilated ^ eroded) & some; /* eroded lies inside dilated */
        wide = (wide ^ self) & some;
        store_bytes(in + x, eroded, n);
        store_bytes(edge + x, dilated, n);
        store_bytes(out + x, wide, n);
        n_in += sum_bytes(eroded);
        n_edge += sum_bytes(dilated);
        n_out += sum_bytes(wide);
        uint32_t bits = bits_of(self);
        if (bits) {
            x0 = x0 < 0 ? x + __builtin_ctz(bits) : x0;
            x1 = x + 32 - __builtin_clz(bits);
            area += (uint64_t)__builtin_popcount(bits);
            sum_x += (uint64_t)__builtin_popcount(bits) * (uint64_t)x;
            for (uint32_t b = 0; b < 5; b++) { /* bit b of the positions */
                static const uint32_t with[5] = {0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00,
                                                 0xffff0000};
                sum_x += (uint64_t)__builtin_popcount(bits & with[b]) << b;
            }
        }
    }
    s->in_px += (uint32_t)n_in;
    s->edge_px += (uint32_t)n_edge;
    s->out_px += (uint32_t)n_out;
    if (!area)
        return;
    s->sum_x += sum_x;
    s->sum_y += (uint64_t)y * area;
    if (!s->area_px || x0 < s->mask_box[0])
        s->mask_box[0] = x0;
    if (!s->area_px)
        s->mask_box[1] = y;
    s->mask_box[2] = x1 > s->mask_box[2] ? x1 : s->mask_box[2];
    s->mask_box[3] = y + 1;
    s->area_px += (uint32_t)area;
}

static size_t line_bytes(int w)
{
    return ((size_t)w + BYTES - 1) / BYTES * BYTES + 2 * MARGIN;
}

static void stats_band(void *ctx, int band, int worker)
{
    struct stats_job *job = ctx;
    const struct um_view *mask = &job->call->t[2];
    int64_t h = mask->h;
    uint8_t *p = um_pool_scratch(job->call->pool, worker);
    struct lines l = {.line = line_bytes(mask->w)};
    memset(p, 0, 6 * l.line);
    l.tail = p; /* two vectors of the first line */
    l.zero = p + l.line + MARGIN;
    l.one = l.zero + l.line;
    l.any3 = l.one + l.line;
    l.any5 = l.any3 + l.line;
    l.no3 = l.any5 + l.line;
    memset(l.one, 1, (size_t)mask->w);
    for (int y = (int)(h * band / BANDS); y < (int)(h * (band + 1) / BANDS); y++)
        stats_line(job->call, y, &job->band[band], &l);
}

static void merge(struct um_record *s, const struct um_record *b) /* bands from top to bottom */
{
    s->edge_px += b->edge_px;
    s->in_px += b->in_px;
    s->out_px += b->out_px;
    if (!b->area_px)
        return;
    if (!s->area_px) {
        memcpy(s->mask_box, b->mask_box, sizeof s->mask_box);
    } else {
        s->mask_box[0] = b->mask_box[0] < s->mask_box[0] ? b->mask_box[0] : s->mask_box[0];
        s->mask_box[2] = b->mask_box[2] > s->mask_box[2] ? b->mask_box[2] : s->mask_box[2];
        s->mask_box[3] = b->mask_box[3];
    }
    s->area_px += b->area_px;
    s->sum_x += b->sum_x;
    s->sum_y += b->sum_y;
}

void UM_NAME(mask_stats)(const struct um_call *call)
{
    struct stats_job job = {.call = call};
    struct um_record total = {0};
    if (6 * line_bytes(call->t[2].w) > UM_POOL_SCRATCH) {
        um_ref_mask_stats(call);
        return;
    }
    um_pool_run(call->pool, BANDS, stats_band, &job);
    for (int k = 0; k < BANDS; k++)
        merge(&total, &job.band[k]);
    memcpy(call->t[1].data, &total, sizeof total);
}

/* ---- packet ---- */

static uint32_t count_nonfinite(const struct um_view *v)
{
    const int32_t exponent = 0x7f800000;
    uint32_t n = 0;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)v->h * v->w; r++) {
        const float *p = um_view_at(v, r);
        for (int i = 0; i < v->c; i++) {
            int32_t bits;
            memcpy(&bits, p + i, sizeof bits);
            n += (bits & exponent) == exponent;
        }
    }
    return n;
}

void UM_NAME(packet)(const struct um_call *call)
{
    const struct um_view *t = call->t, *mask = &t[2];
    uint8_t *to = t[0].data;
    struct um_record record;
    memcpy(&record, t[1].data, sizeof record);
    memcpy(&record.frame_id, t[6].data, sizeof record.frame_id);
    if (t[3].data)
        memcpy(&record.gate, t[3].data, sizeof record.gate);
    if (!t[3].data || record.gate.flags == UM_GATE_OK) {
        if (t[4].data)
            record.iou = *(const float *)t[4].data;
        if (t[5].data)
            record.nonfinite = count_nonfinite(&t[5]);
    }
    memcpy(to, &record, sizeof record);
    to += sizeof record;
    const uint8_t *m = mask->data;
    for (int y = 0; y < mask->h; y++, m += mask->w)
        for (int x = 0; x < mask->w; x += BYTES, to += sizeof(uint32_t)) {
            uint8_t some[BYTES] = {0};
            const uint8_t *from = m + x;
            if (mask->w - x < BYTES)
                from = memcpy(some, from, (size_t)(mask->w - x));
            uint32_t bits = bits_of(load_bytes(from)); /* little-endian, as the packet */
            memcpy(to, &bits, sizeof bits);
        }
}
