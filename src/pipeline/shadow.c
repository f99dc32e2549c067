/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/shadow.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/status.h"
#include "pipeline/pipeline.h"

#include <math.h>
#include <string.h>

/* Masks of the same frame and prompt differ in pixels on their edge, where two ways of rounding
 * end on two sides of 0; on devices of full precision not even there. */
static const float LIMIT = 0.98f;

/* In place of the one that is there, which stays where there is no memory for another. */
static um_status open_legacy(struct um_shadow *s, bool alone)
{
    um_pipeline *legacy = NULL;
    um_pipeline_settings set = s->set;
    set.sam_as_numpy = UM_MASK_HOST;
    set.gate = UM_GATE_SYNC;
    set.inflight = 1;
    set.dump = 0;
    set.shadow_every = 0;
    set.crop_auto = 0; /* it gets that of the pipeline it watches */
    if (!alone) {      /* of single frames, by themselves */
        set.assert_up = set.assert_down = -1;
        set.track = 0;
        set.detect_every = 1;
        set.kpi = NULL;
    }
    um_status st = um_pipeline_open(&legacy, &set);
    if (st != UM_OK)
        return st;
    um_pipeline_close(&s->legacy);
    s->legacy = legacy;
    return UM_OK;
}

um_status um_shadow_open(struct um_shadow **out, const um_pipeline_settings *set)
{
    struct um_shadow *s = *out = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "shadow");
    s->set = *set;
    s->limit = LIMIT;
    s->counts.struct_size = sizeof s->counts;
    s->counts.least_dice = 1;
    um_status st = open_legacy(s, false);
    if (st != UM_OK)
        um_shadow_close(out);
    return st;
}

void um_shadow_close(struct um_shadow **s)
{
    if (!*s)
        return;
    um_pipeline_close(&(*s)->legacy);
    um_free(*s);
    *s = NULL;
}

um_status um_shadow_send(struct um_shadow *s, um_frame **frame)
{
    um_pipeline *p = s->legacy;
    const struct um_crew_wish *w = &s->wish;
    memcpy(p->set.crop, w->crop, sizeof w->crop);
    um_status st =
        um_pipeline_change(p, &w->conf, w->label != p->label ? &w->label : NULL, &w->objects);
    return st == UM_OK ? um_pipeline_send(p, frame) : st;
}

static um_status run_legacy(struct um_shadow *s, const um_frame *frame, const um_packet **packet)
{
    um_frame *again = um_frame_ref((um_frame *)(uintptr_t)frame);
    um_status st = um_shadow_send(s, &again);
    um_frame_unref(&again);
    return st == UM_OK ? um_pipeline_receive(s->legacy, packet) : st;
}

/* ---- how far two packets are from each other ---- */

struct distance {
    uint64_t pixels; /* that are in one mask alone */
    float dice;
    bool kind; /* one found what the other did not, or elsewhere */
};

static struct distance distance(const um_packet *a, const um_packet *b)
{
    struct distance d = {.kind = a->objects != b->objects};
    uint64_t both = 0, area = 0;
    size_t n = (size_t)um_packet_row_bytes(a) * (size_t)a->crop[3];
    for (int i = 0; i < a->objects && i < b->objects; i++) {
        const um_object *x = um_packet_object(a, i), *y = um_packet_object(b, i);
        d.kind = d.kind || x->label != y->label || x->has_mask != y->has_mask ||
                 !isfinite(x->score) || !isfinite(x->iou);
        for (int k = 0; k < 4 && x->has_box && y->has_box; k++)
            d.kind = d.kind || !(fabsf(x->box[k] - y->box[k]) <= 1);
        for (size_t k = 0; x->has_mask && y->has_mask && k < n; k++) {
            unsigned p = x->bits[k], q = y->bits[k];
            d.pixels += (unsigned)__builtin_popcount(p ^ q);
            both += (unsigned)__builtin_popcount(p & q);
            area += (unsigned)(__builtin_popcount(p) + __builtin_popcount(q));
        }
    }
    d.dice = area ? (float)(2 * (double)both / (double)area) : 1;
    return d;
}

/* What a state machine withholds or predicts has no other side. */
static bool comparable(const struct um_shadow *s, const um_packet *a)
{
    return !s->set.track || (a->tag == UM_TAG_FRESH && a->detected && a->has_mask);
}

static void tell(const struct um_shadow *s, uint64_t frame, const char *event,
                 const struct distance *d)
{
    char line[256];
    if (!s->set.kpi)
        return;
    um_number_print(line, sizeof line,
                    "{\"event\": \"%s\", \"ts\": %.6f, \"frame_id\": %llu, \"dice\": %.6f, "
                    "\"pixels\": %llu}",
                    event, um_clock_unix(), (unsigned long long)frame, (double)d->dice,
                    (unsigned long long)d->pixels);
    s->set.kpi(s->set.kpi_ctx, line);
}

/* From now on the legacy pipeline alone, which begins with this frame. */
static um_status fall_back(struct um_shadow *s, const um_frame *frame, const struct distance *d,
                           const um_packet **packet)
{
    um_status st = open_legacy(s, true);
    if (st != UM_OK)
        return st;
    s->counts.fell_back = 1;
    s->counts.fell_at = frame->id;
    tell(s, frame->id, "shadow_fell_back", d);
    return run_legacy(s, frame, packet);
}

um_status um_shadow_look(struct um_shadow *s, const um_frame *frame, um_status st,
                         const um_packet **packet)
{
    const um_packet *other = NULL;
    struct distance d = {.dice = 0};
    if (s->counts.fell_back) /* it was in flight */
        return run_legacy(s, frame, packet);
    bool numeric = st == UM_ENUMERIC, due = s->seen++ >= s->next;
    if (!numeric && (st != UM_OK || !due || !comparable(s, *packet)))
        return st;
    if (due)
        s->next = s->seen - 1 + (uint64_t)s->set.shadow_every;
    /* a gain of auto may follow frames that were not looked at */
    s->legacy->gain = numeric ? 0 : (*packet)->gain;
    um_status legacy = run_legacy(s, frame, &other);
    if (legacy != UM_OK) { /* both have none: that is the networks' */
        s->counts.failed++;
        return numeric ? legacy : st;
    }
    if (!numeric && s->set.track && !(other->objects && other->has_mask))
        return st;
    s->counts.compared++;
    if (!numeric)
        d = distance(*packet, other);
    if (numeric || d.pixels || d.kind) {
        s->counts.disagreed++;
        tell(s, frame->id, "shadow_disagreed", &d);
    }
    s->counts.least_dice = d.dice < s->counts.least_dice ? d.dice : s->counts.least_dice;
    return numeric || d.kind || d.dice < s->limit ? fall_back(s, frame, &d, packet) : st;
}
