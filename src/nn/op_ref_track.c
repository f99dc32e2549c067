/* SPDX-License-Identifier: Apache-2.0 */
/* Plain-C kernels of op_track.h: the specification of these ops. Masks are worked on as words of 32
 * pixels, pixel x = bit x % 32; only where a weight is set are gray levels looked at. */
#include "nn/bits.h"
#include "nn/op_ref.h"
#include "nn/op_sam.h"
#include "nn/op_track.h"

#include <string.h>

struct image {
    const uint8_t *at;
    int h, w, c;
};

static int clamp(int i, int n)
{
    return i < 0 ? 0 : i < n ? i : n - 1;
}

static uint32_t level(const uint8_t *v, int c)
{
    return c == 1 ? v[0] : (v[0] + 2u * v[1] + v[2]) / 4;
}

/* Of a pixel; beyond the image its border goes on. */
static uint32_t gray(const struct image *p, int y, int x)
{
    return level(p->at + ((ptrdiff_t)clamp(y, p->h) * p->w + clamp(x, p->w)) * p->c, p->c);
}

/* ---- contact ---- */

static bool has_speckle(const struct image *p, int y0, int x0)
{
    uint32_t least = 255, most = 0;
    for (int y = y0; y < y0 + UM_CELL; y++) {
        const uint8_t *v = p->at + ((ptrdiff_t)y * p->w + x0) * p->c;
        for (int i = 0; i < UM_CELL; i++, v += p->c) {
            uint32_t g = level(v, p->c);
            least = g < least ? g : least;
            most = g > most ? g : most;
        }
    }
    return most >= least + UM_CELL_RANGE;
}

void um_ref_contact(const struct um_call *call)
{
    const struct um_view *x = &call->t[1];
    struct image p = {x->data, x->h, x->w, x->c};
    struct um_gate *gate = call->t[0].data;
    int cells = 0, speckle = 0;
    for (int y = 0; y + UM_CELL <= p.h; y += 2 * UM_CELL)
        for (int i = 0; i + UM_CELL <= p.w; i += 2 * UM_CELL, cells++)
            speckle += has_speckle(&p, y, i);
    float share = cells ? (float)speckle / (float)cells : 0;
    memcpy(&gate->contact, &share, sizeof share);
}

/* ---- follow ---- */

void um_ref_follow(const struct um_call *call)
{
    struct um_frame_header header;
    memcpy(&header, call->t[2].data, sizeof header);
    struct um_gate gate = {.flags = UM_GATE_OK,
                           .query = -1,
                           .label = header.follow_label,
                           .score = header.follow_score,
                           .gain = header.gain};
    struct um_prompt prompt = {.width = header.width, .height = header.height, .has_box = 1};
    memcpy(gate.box, header.follow_box, sizeof gate.box);
    memcpy(prompt.box, header.follow_box, sizeof prompt.box);
    for (int i = 0; i < UM_POINTS_MAX; i++)
        prompt.label[i] = -1;
    memcpy(call->t[0].data, &gate, sizeof gate);
    memcpy(call->t[1].data, &prompt, sizeof prompt);
}

/* ---- scores ---- */

/* Pixels that touch one of the next line: a column to the right, or a row below. */
static uint32_t linked(const struct um_bits *b, int y, int i, bool rows)
{
    uint32_t v[3];
    for (int k = 0; k < 3; k++) {
        int j = i - 1 + k;
        v[k] = rows ? um_bits_word(b, y + 1, j)
                    : um_bits_word(b, y - 1, j) | um_bits_word(b, y, j) | um_bits_word(b, y + 1, j);
    }
    return um_bits_word(b, y, i) & (um_bits_right(v, 1) | (rows ? v[1] | um_bits_left(v, 1) : 0));
}

struct scoring {
    struct image p;
    struct um_record r;
    struct um_track *memory;
    uint32_t (*line)[UM_TRACK_LINE];
    struct um_bits mask, before;
    bool previous, rows; /* rows: lines are rows of the image */
};

static void add_edge(struct scoring *s, int y, int x)
{
    uint64_t *sum = s->memory->sum;
    int d = UM_TRACK_REACH;
    uint32_t g = gray(&s->p, y, x);
    uint64_t l = (uint64_t)gray(&s->p, y - d, x) + gray(&s->p, y + d, x) + gray(&s->p, y, x - d) +
                 gray(&s->p, y, x + d) + UM_TRACK_BIAS - 4 * g;
    int64_t plain = (int64_t)l - UM_TRACK_BIAS;
    sum[UM_SUM_EDGE_L] += l;
    sum[UM_SUM_EDGE_LL] += (uint64_t)(plain * plain);
    sum[UM_SUM_EDGE] += g;
    sum[UM_SUM_EDGE_GG] += (uint64_t)g * g;
}

static void add(uint64_t *sum, uint32_t g)
{
    sum[0] += g;
    sum[1] += (uint64_t)g * g;
}

static void score_word(struct scoring *s, int y, int i)
{
    const struct um_bits *b = &s->mask;
    uint32_t wide = um_bits_dilated(b, y, i, 2);
    uint64_t *sum = s->memory->sum;
    if (!wide)
        return;
    uint32_t m = um_bits_word(b, y, i), in = um_bits_eroded(b, y, i),
             edge = um_bits_dilated(b, y, i, 1) & ~in;
    uint32_t out = wide & ~m, link = linked(b, y, i, s->rows);
    if (s->previous) {
        sum[UM_SUM_THERE] += (uint64_t)__builtin_popcount(m & um_bits_dilated(&s->before, y, i, 2));
        sum[UM_SUM_BACK] += (uint64_t)__builtin_popcount(um_bits_word(&s->before, y, i) & wide);
    }
    for (uint32_t rest = wide; rest; rest &= rest - 1) { /* all others lie within */
        int k = __builtin_ctz(rest), x = 32 * i + k;
        uint32_t g = gray(&s->p, y, x), *line = s->line[s->rows ? y : x];
        if (edge >> k & 1)
            add_edge(s, y, x);
        if (in >> k & 1)
            add(sum + UM_SUM_IN, g);
        if (out >> k & 1) {
            add(sum + UM_SUM_OUT, g);
            line[UM_LINE_OUT]++;
            line[UM_LINE_OUT_G] += g;
        }
        if (m >> k & 1) {
            line[UM_LINE_IN]++;
            line[UM_LINE_IN_G] += g;
            line[UM_LINE_LINKED] += link >> k & 1;
        }
    }
}

static float continuity(const struct scoring *s)
{
    int from = s->r.mask_box[s->rows], to = s->r.mask_box[2 + s->rows];
    uint32_t joined = 0;
    for (int k = from; k + 1 < to; k++)
        joined += s->line[k][UM_LINE_LINKED] && um_track_bright(s->line[k]) &&
                  um_track_bright(s->line[k + 1]);
    return um_track_continuity(joined, (uint32_t)(to - from));
}

static void take_patch(const struct scoring *s, uint8_t *patch, uint8_t *inside)
{
    const int32_t *box = s->r.mask_box;
    for (int k = 0; k < UM_PATCH_PIXELS; k++) {
        int x = um_track_sample(k % UM_PATCH, box[0], box[2]),
            y = um_track_sample(k / UM_PATCH, box[1], box[3]);
        uint32_t sum = 0;
        for (int j = 0; j < 9; j++)
            sum += gray(&s->p, y - 1 + j / 3, x - 1 + j % 3);
        patch[k] = (uint8_t)(sum / 9);
        inside[k] = um_bits_word(&s->mask, y, x / 32) >> x % 32 & 1;
    }
}

static float correlation(const struct um_track *m, uint32_t slot, const uint8_t *patch,
                         const uint8_t *inside)
{
    struct um_track_ncc sums = {0};
    for (int k = 0; k < UM_PATCH_PIXELS; k++)
        um_track_correlate(&sums, patch[k], m->patch[slot][k], inside[k] | m->inside[slot][k]);
    return um_track_correlation(&sums);
}

/* C2 with what is remembered; then this patch is. */
static float appearance(const struct scoring *s, uint32_t track)
{
    struct um_track *m = s->memory;
    uint8_t patch[UM_PATCH_PIXELS], inside[UM_PATCH_PIXELS];
    uint32_t last = m->last, to = track & UM_TRACK_KEEP ? 1 - last : last;
    float best = NAN;
    take_patch(s, patch, inside);
    if (track & UM_TRACK_PREVIOUS)
        best = correlation(m, last, patch, inside);
    if (track & (UM_TRACK_GOOD | UM_TRACK_KEEP)) {
        float good = correlation(m, 1 - to, patch, inside);
        best = best > good ? best : good;
    }
    memcpy(m->patch[to], patch, sizeof patch);
    memcpy(m->inside[to], inside, sizeof inside);
    m->last = to;
    return best;
}

void um_ref_scores(const struct um_call *call)
{
    const struct um_view *t = call->t, *x = &t[2];
    struct um_record *packet = t[0].data;
    struct um_track *m = t[1].data;
    struct um_frame_header header;
    int words = (x->w + 31) / 32;
    size_t plane = (size_t)x->h * (size_t)words;
    uint32_t *bits = (uint32_t *)(void *)((uint8_t *)t[1].data + um_track_bits_at(x->h, x->w));
    struct scoring s = {
        .p = {x->data, x->h, x->w, x->c},
        .memory = m,
        .line = (uint32_t(*)[UM_TRACK_LINE])(void *)((uint8_t *)t[1].data + um_track_lines_at()),
        .mask = {(const uint32_t *)(const void *)(packet + 1), x->h, x->w, words},
        .before = {bits + m->turn * plane, x->h, x->w, words}};
    float score[8] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0};
    memcpy(&header, t[3].data, sizeof header);
    memcpy(&s.r, packet, sizeof s.r);
    score[7] = s.r.gate.contact;
    if (s.r.gate.flags == UM_GATE_OK) {
        const int32_t *box = s.r.mask_box;
        s.previous = header.track & UM_TRACK_PREVIOUS;
        s.rows = box[3] - box[1] > box[2] - box[0];
        for (int y = clamp(box[1] - 2, x->h); y < box[3] + 2 && y < x->h; y++)
            for (int i = clamp(box[0] - 2, x->w) / 32; i < words && 32 * i < box[2] + 2; i++)
                score_word(&s, y, i);
        score[0] = um_track_sharpness(m->sum, s.r.edge_px);
        score[1] = um_track_contrast(m->sum, s.r.in_px, s.r.out_px);
        score[2] = continuity(&s);
        if (s.previous)
            score[3] = um_track_coherence(m->sum, s.r.area_px, m->area);
        score[4] = um_track_agreement(s.r.gate.box, box, s.previous ? m->box : NULL);
        score[5] = appearance(&s, header.track);
        memset(m->sum, 0, sizeof m->sum);
        memset(s.line, 0, um_track_bits_at(x->h, x->w) - um_track_lines_at());
        m->turn ^= 1;
        memcpy(bits + m->turn * plane, s.mask.at, plane * sizeof *bits);
        m->area = s.r.area_px;
        memcpy(m->box, s.r.gate.box, sizeof m->box);
    }
    memcpy(packet->score, score, sizeof score);
}
