/* SPDX-License-Identifier: Apache-2.0 */
/* Plain-C kernels of op_sam.h: the specification of these ops. */
#include "nn/op_ref.h"
#include "nn/op_sam.h"

#include <math.h>
#include <string.h>

/* The struct a gate operand holds. Absent means: no detector, the prompt decides. */
static struct um_gate gate_of(const struct um_view *v)
{
    struct um_gate gate = {.flags = UM_GATE_OK};
    if (v->data)
        memcpy(&gate, v->data, sizeof gate);
    return gate;
}

/* ---- prompt tokens (prompt_encoder.py: _embed_points, _embed_boxes, PositionEmbeddingRandom) ----
 */

/* Sine and cosine features of canvas pixel (x, y), plus one row of the table. Everything in fp32,
 * as upstream. */
static void position(float *out, const float *gauss, int half, float x, float y, int canvas,
                     const float *add)
{
    float u = 2 * ((x + 0.5f) / (float)canvas) - 1, v = 2 * ((y + 0.5f) / (float)canvas) - 1;
    for (int k = 0; k < half; k++) {
        float angle = 6.28318530717958648f * (u * gauss[k] + v * gauss[half + k]);
        out[k] = sinf(angle) + (add ? add[k] : 0);
        out[half + k] = cosf(angle) + (add ? add[half + k] : 0);
    }
}

/* A coordinate of the image, whose size along this axis is `side`, on the canvas. */
static float on_canvas(const struct um_prompt_args *a, float at, int side, int other)
{
    int size, unused, longest = other > side ? other : side;
    switch (a->fit) {
    case UM_FIT_RATIO: return (float)trunc(at * ((double)a->canvas / longest));
    case UM_FIT_STRETCH: return (float)((double)at / side * a->canvas);
    case UM_FIT_LONGEST: break;
    }
    um_longest_side(a->canvas, side, other, &size, &unused);
    return (float)(at * ((double)size / side));
}

void um_ref_prompt(const struct um_call *call)
{
    enum { POINT = 5, CORNER = 7, NOT_A_POINT = 9 };
    const struct um_prompt_args *a = call->args;
    const struct um_view *t = call->t;
    const float *table = t[2].data, *gauss = t[3].data;
    int c = t[0].c;
    struct um_prompt p;
    memcpy(&p, t[1].data, sizeof p);
    int w = p.width ? (int)p.width : 1, h = p.height ? (int)p.height : 1;
    size_t row_bytes = (size_t)c * sizeof(float);
    float *out = t[0].data;
    for (int i = 0; i < 5; i++, out += t[0].ld)
        memcpy(out, table + i * c, row_bytes);
    for (int i = 0; i < a->points; i++, out += t[0].ld) {
        if (p.label[i] == -1) {
            memcpy(out, table + NOT_A_POINT * c, row_bytes);
            continue;
        }
        bool known = p.label[i] == 0 || p.label[i] == 1;
        position(out, gauss, c / 2, on_canvas(a, p.xy[2 * i], w, h),
                 on_canvas(a, p.xy[2 * i + 1], h, w), a->canvas,
                 known ? table + (POINT + p.label[i]) * c : NULL);
    }
    if (!a->box) {
        if (a->points)
            memcpy(out, table + NOT_A_POINT * c, row_bytes);
        return;
    }
    for (int i = 0; i < 2; i++, out += t[0].ld)
        position(out, gauss, c / 2, on_canvas(a, p.box[2 * i], w, h),
                 on_canvas(a, p.box[2 * i + 1], h, w), a->canvas, table + (CORNER + i) * c);
}

/* ---- mask ---- */

static void mask_row(void *ctx, int y, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *t = call->t, *low = &t[2];
    int w = t[0].w;
    ptrdiff_t first = (ptrdiff_t)y * w;
    uint8_t *mask = (uint8_t *)t[0].data + first * t[0].ld;
    float *logits = t[1].data ? um_view_at(&t[1], first) : NULL;
    const float *ty = um_view_at(&t[4], y);
    bool visible = gate_of(&t[5]).flags == UM_GATE_OK;
    (void)worker;
    for (int x = 0; x < w; x++) {
        const float *tx = um_view_at(&t[3], x);
        float r[3];
        for (int k = 0; k < 3; k++) {
            const float *v = um_view_at(low, ((ptrdiff_t)ty[0] + k) * low->w + (ptrdiff_t)tx[0]);
            r[k] = fmaf(tx[3], v[2 * low->ld], fmaf(tx[2], v[low->ld], tx[1] * v[0]));
        }
        float v = fmaf(ty[3], r[2], fmaf(ty[2], r[1], ty[1] * r[0]));
        mask[x * t[0].ld] = visible && v > 0;
        if (logits)
            logits[x * t[1].ld] = v;
    }
}

void um_ref_mask(const struct um_call *call)
{
    um_pool_run(call->pool, call->t[0].h, mask_row, (void *)(uintptr_t)call);
}

/* ---- mask weights and statistics ---- */

enum { BANDS = 64 };

struct stats_job {
    const struct um_call *call;
    struct um_record band[BANDS];
};

static const uint8_t *mask_line(const struct um_view *mask, int y)
{
    return (const uint8_t *)mask->data + (ptrdiff_t)y * mask->w;
}

/* Or of 0/1 lines y-reach..y+reach; lines outside count as 0. */
static void any_line(uint8_t *restrict out, const struct um_view *mask, int y, int reach)
{
    memset(out, 0, (size_t)mask->w);
    for (int k = y - reach; k <= y + reach; k++) {
        if (k < 0 || k >= mask->h)
            continue;
        const uint8_t *restrict line = mask_line(mask, k);
        for (int x = 0; x < mask->w; x++)
            out[x] |= line[x];
    }
}

/* And of lines y-1..y+1; lines outside count as 1. */
static void all_line(uint8_t *restrict out, const struct um_view *mask, int y)
{
    memset(out, 1, (size_t)mask->w);
    for (int k = y - 1; k <= y + 1; k++) {
        if (k < 0 || k >= mask->h)
            continue;
        const uint8_t *restrict line = mask_line(mask, k);
        for (int x = 0; x < mask->w; x++)
            out[x] &= line[x];
    }
}

/* The three weights of one line; `restrict` lets the compiler do 16 pixels at a time. The lines are
 * already combined vertically and have two columns of border on either side. */
static void weight_line(uint8_t *restrict edge, uint8_t *restrict in, uint8_t *restrict out,
                        const uint8_t *restrict m, const uint8_t *restrict any3,
                        const uint8_t *restrict any5, const uint8_t *restrict all3, int w)
{
    for (int x = 0; x < w; x++) {
        uint8_t dilated = any3[x - 1] | any3[x] | any3[x + 1];
        uint8_t eroded = all3[x - 1] & all3[x] & all3[x + 1];
        uint8_t wide = any5[x - 2] | any5[x - 1] | any5[x] | any5[x + 1] | any5[x + 2];
        in[x] = eroded;
        edge[x] = dilated ^ eroded; /* eroded lies inside dilated */
        out[x] = wide ^ m[x];
    }
}

static uint32_t count(const uint8_t *line, int w)
{
    uint32_t n = 0;
    for (int x = 0; x < w; x++)
        n += line[x];
    return n;
}

static void stats_line(const struct um_call *call, int y, struct um_record *s, uint8_t *scratch)
{
    const struct um_view *mask = &call->t[2];
    int w = mask->w;
    size_t plane = (size_t)mask->h * (size_t)w, at = (size_t)y * (size_t)w;
    uint8_t *edge = (uint8_t *)call->t[0].data + at, *in = edge + plane, *out = in + plane;
    uint8_t *any3 = scratch + 2, *any5 = any3 + w + 4, *all3 = any5 + w + 4;
    memset(scratch, 0, 2 * ((size_t)w + 4)); /* the border: the value that never wins */
    memset(scratch + 2 * (w + 4), 1, (size_t)w + 4);
    any_line(any3, mask, y, 1);
    any_line(any5, mask, y, 2);
    all_line(all3, mask, y);
    const uint8_t *m = mask_line(mask, y);
    weight_line(edge, in, out, m, any3, any5, all3, w);
    s->in_px += count(in, w);
    s->edge_px += count(edge, w);
    s->out_px += count(out, w);
    uint32_t area = count(m, w);
    if (!area)
        return;
    int x0 = 0, x1 = w;
    while (!m[x0])
        x0++;
    while (!m[x1 - 1])
        x1--;
    for (int x = x0; x < x1; x++)
        s->sum_x += m[x] ? (uint64_t)x : 0;
    s->sum_y += (uint64_t)y * area;
    if (!s->area_px || x0 < s->mask_box[0])
        s->mask_box[0] = x0;
    if (!s->area_px || y < s->mask_box[1])
        s->mask_box[1] = y;
    s->mask_box[2] = x1 > s->mask_box[2] ? x1 : s->mask_box[2];
    s->mask_box[3] = y + 1 > s->mask_box[3] ? y + 1 : s->mask_box[3];
    s->area_px += area;
}

static void stats_band(void *ctx, int band, int worker)
{
    struct stats_job *job = ctx;
    const struct um_call *call = job->call;
    int64_t h = call->t[2].h;
    for (int y = (int)(h * band / BANDS); y < (int)(h * (band + 1) / BANDS); y++)
        stats_line(call, y, &job->band[band], um_pool_scratch(call->pool, worker));
}

static void merge(struct um_record *s, const struct um_record *b)
{
    s->edge_px += b->edge_px;
    s->in_px += b->in_px;
    s->out_px += b->out_px;
    if (!b->area_px)
        return;
    for (int k = 0; k < 4; k++)
        if (!s->area_px || (k < 2) == (b->mask_box[k] < s->mask_box[k]))
            s->mask_box[k] = b->mask_box[k];
    s->area_px += b->area_px;
    s->sum_x += b->sum_x;
    s->sum_y += b->sum_y;
}

void um_ref_mask_stats(const struct um_call *call)
{
    struct stats_job job = {.call = call};
    struct um_record total = {0};
    um_pool_run(call->pool, BANDS, stats_band, &job);
    for (int k = 0; k < BANDS; k++)
        merge(&total, &job.band[k]);
    memcpy(call->t[1].data, &total, sizeof total);
}

/* ---- packet ---- */

static uint32_t count_nonfinite(const struct um_view *v)
{
    uint32_t n = 0;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)v->h * v->w; r++)
        for (int i = 0; i < v->c; i++)
            n += !isfinite(um_view_at(v, r)[i]);
    return n;
}

/* Byte x/8 of a row holds pixels x..x+7, the first in its lowest bit: a sequence of little-endian
 * words. */
static void pack_line(uint8_t *restrict out, const uint8_t *restrict m, int w)
{
    int x = 0;
    memset(out, 0, (size_t)um_mask_row_bytes(w));
    for (; x + 8 <= w; x += 8) {
        uint64_t v = 0;
        for (int k = 0; k < 8; k++)
            v |= (uint64_t)m[x + k] << (8 * k);
        out[x / 8] = (uint8_t)(v * 0x0102040810204080u >> 56); /* moves bit 8k to bit 56+k */
    }
    for (; x < w; x++)
        out[x / 8] |= (uint8_t)(m[x] << (x % 8));
}

void um_ref_packet(const struct um_call *call)
{
    const struct um_view *t = call->t, *mask = &t[2];
    uint8_t *out = t[0].data;
    struct um_record record;
    memcpy(&record, t[1].data, sizeof record);
    memcpy(&record.frame_id, t[6].data, sizeof record.frame_id);
    if (t[3].data)
        memcpy(&record.gate, t[3].data, sizeof record.gate);
    if (gate_of(&t[3]).flags == UM_GATE_OK) {
        if (t[4].data)
            record.iou = *(const float *)t[4].data;
        if (t[5].data)
            record.nonfinite = count_nonfinite(&t[5]);
    }
    memcpy(out, &record, sizeof record);
    out += sizeof record;
    for (int y = 0; y < mask->h; y++, out += um_mask_row_bytes(mask->w))
        pack_line(out, mask_line(mask, y), mask->w);
}

/* ---- what no image changes (reach.h) ---- */

static bool all_zero(const uint32_t *x, ptrdiff_t n)
{
    uint32_t any = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        any |= x[i];
    return !any;
}

static int rows_used(const struct um_view *x)
{
    ptrdiff_t n = (ptrdiff_t)x->w * x->c;
    int rows = x->h;
    while (rows > 0 && all_zero((const uint32_t *)x->data + (rows - 1) * n, n))
        rows--;
    return rows;
}

static int columns_used(const struct um_view *x)
{
    int columns = 0;
    for (int y = 0; y < x->h; y++) {
        const uint32_t *row = (const uint32_t *)x->data + (ptrdiff_t)y * x->w * x->c;
        if (all_zero(row + columns * x->c, (ptrdiff_t)(x->w - columns) * x->c))
            continue;
        columns = x->w;
        while (all_zero(row + (columns - 1) * x->c, x->c))
            columns--;
    }
    return columns;
}

void um_ref_reach(const struct um_call *call)
{
    const struct um_reach_args *a = call->args;
    const struct um_view *x = &call->t[1];
    struct um_beyond *b = call->t[0].data;
    int used = rows_used(x), columns = used == x->h;
    if (columns)
        used = columns_used(x);
    bool known = b->seen && b->used == used && b->columns == columns;
    *b = (struct um_beyond){.used = used, .columns = columns, .seen = true};
    for (int i = 0, n = used ? used : 1; i < a->n; i++) { /* no step is left without work */
        int side = a->step[i].side;
        b->reach[i] = n = um_reach_of(&a->step[i], n);
        b->compute[i][0] = known && !columns ? n : side;
        b->compute[i][1] = known && columns ? n : side;
    }
}

void um_ref_beyond(const struct um_call *call)
{
    const struct um_beyond_args *a = call->args;
    const struct um_view *x = &call->t[0];
    const struct um_beyond *b = call->t[2].data;
    bool whole = b->compute[a->step][0] == x->h && b->compute[a->step][1] == x->w;
    int side = x->h, first = b->reach[a->step], n = side - first < a->n ? side - first : a->n;
    int runs = b->columns ? side : 1; /* what is kept of each row, or of all */
    size_t run = (size_t)n * (size_t)x->c * (b->columns ? 1 : (size_t)side),
           row = (size_t)side * (size_t)x->c;
    float *at = (float *)x->data + (size_t)first * (b->columns ? (size_t)x->c : row),
          *kept = call->t[1].data;
    for (int i = 0; i < runs; i++, at += row, kept += run)
        memcpy(whole ? kept : at, whole ? at : kept, run * sizeof *at);
}
