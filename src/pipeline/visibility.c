/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/visibility.h"

#include <math.h>

enum {
    ENOUGH = 2,  /* evidence of one mind for a change of state, either way */
    MIXED = 3,   /* frames against it, each for another reason: not for ever */
    FROZEN = 3,  /* equal frames in a row */
    STEADY = 5,  /* frames without a doubt before the detector is left out */
    CLEARLY = 2, /* what a score far below tau_conf counts */
};
static const float CONTACT = 0.15f; /* least share of the image with speckle */
static const double DEPTH_MM = 5;   /* a difference of depth that halves C3 */

static float mean(const float *v, int n)
{
    float sum = 0;
    int defined = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(v[i])) {
            sum += v[i];
            defined++;
        }
    return defined ? sum / (float)defined : NAN;
}

float um_visibility_total(const float score[UM_SCORES])
{
    return mean(score + UM_SCORE_SHARPNESS, 4);
}

float um_visibility_continuity(const float score[UM_SCORES])
{
    return mean(score + UM_SCORE_AGREEMENT, 3);
}

static void enter(struct um_visibility *v, um_state state)
{
    v->state = state;
    v->good = v->missed = v->weak = v->bad = 0;
}

/* What a frame says, before it is known what follows from it. */
struct evidence {
    bool missed, weak, strong;
    int against;
    um_reason reason;
};

static struct evidence weigh(const struct um_visibility *v, const struct um_visibility_rules *r,
                             const struct um_sight *s)
{
    struct evidence e = {.reason = UM_REASON_NONE};
    float total = um_visibility_total(s->score), again = um_visibility_continuity(s->score);
    bool unseen = s->detected && s->conf < r->tau_conf;
    if (v->dark >= ENOUGH) {
        e.missed = true;
        e.against = CLEARLY;
        e.reason = UM_REASON_NO_CONTACT;
    } else if (unseen || !s->outlined) {
        e.missed = true;
        e.against = v->dark || (unseen && s->conf < r->tau_conf / 2) ? CLEARLY : 1;
        e.reason = UM_REASON_NOT_FOUND;
    } else if (!(total >= r->theta_off)) {
        e.weak = true;
        e.against = 1;
        e.reason = UM_REASON_LOW_SCORE;
    } else
        e.strong = total > r->theta_on && again > r->theta_cont;
    return e;
}

static void change(struct um_visibility *v, const struct evidence *e)
{
    v->missed = e->missed ? v->missed + e->against : 0;
    v->weak = e->weak ? v->weak + 1 : 0;
    v->bad = e->against ? v->bad + 1 : 0;
    v->good = e->strong ? v->good + 1 : 0;
    switch (v->state) {
    case UM_STATE_VISIBLE:
        if (v->missed >= ENOUGH)
            enter(v, UM_STATE_LOST);
        else if (v->weak >= ENOUGH || v->bad >= MIXED)
            enter(v, UM_STATE_RELOCALIZING);
        break;
    case UM_STATE_RELOCALIZING:
        if (v->missed >= ENOUGH || v->weak >= ENOUGH || v->bad >= MIXED)
            enter(v, UM_STATE_LOST);
        else if (v->good >= ENOUGH)
            enter(v, UM_STATE_VISIBLE);
        break;
    case UM_STATE_LOST:
        if (!e->against)
            enter(v, UM_STATE_RELOCALIZING);
        break;
    }
}

static um_tag tag_of(um_state state, const struct um_sight *s, const struct evidence *e,
                     bool frozen)
{
    if (state != UM_STATE_VISIBLE || e->weak)
        return UM_TAG_WITHHELD;
    if (e->missed || frozen)
        return UM_TAG_STALE;
    return s->detected ? UM_TAG_FRESH : UM_TAG_PREDICTED;
}

bool um_visibility_steady(const struct um_visibility *v)
{
    return v->state == UM_STATE_VISIBLE && v->steady >= STEADY;
}

/* May the next frame do without the detector? */
static bool schedule(struct um_visibility *v, const struct um_visibility_rules *r,
                     const struct um_sight *s, const struct evidence *e)
{
    float coherence = s->score[UM_SCORE_COHERENCE];
    bool sure = v->state == UM_STATE_VISIBLE && !e->against &&
                um_visibility_total(s->score) > r->theta_on && coherence > r->theta_on;
    v->steady = sure ? v->steady + 1 : 0;
    v->skipped = s->detected ? 0 : v->skipped + 1;
    return !(um_visibility_steady(v) && v->skipped + 1 < r->detect_every);
}

struct um_verdict um_visibility_step(struct um_visibility *v, const struct um_visibility_rules *r,
                                     const struct um_sight *s)
{
    v->same = s->same ? v->same + 1 : 0;
    v->dark = s->score[UM_SCORE_CONTACT] < CONTACT ? v->dark + 1 : 0;
    struct evidence e = weigh(v, r, s);
    bool frozen = v->same >= FROZEN;
    if (!frozen) /* the same frame once more is no evidence */
        change(v, &e);
    if (!frozen && v->state == UM_STATE_RELOCALIZING && e.reason == UM_REASON_NONE)
        e.reason = UM_REASON_UNCONFIRMED;
    return (struct um_verdict){.state = v->state,
                               .tag = tag_of(v->state, s, &e, frozen),
                               .reason = frozen ? UM_REASON_FROZEN : e.reason,
                               .detect = schedule(v, r, s, &e)};
}

/* A point of the image in the world. */
static void to_world(const struct um_place *p, double out[3])
{
    double x = p->centroid[0] * p->spacing_mm[0], y = p->centroid[1] * p->spacing_mm[1];
    for (int i = 0; i < 3; i++)
        out[i] = p->pose[4 * i] * x + p->pose[4 * i + 1] * y + p->pose[4 * i + 3];
}

float um_visibility_depth(const struct um_place *now, const struct um_place *before)
{
    double here[3], there[3], off = 0, length = 0;
    if (!now->known || !before->known)
        return NAN;
    to_world(now, here);
    to_world(before, there);
    for (int i = 0; i < 3; i++) { /* along the image's axis of depth */
        double axis = now->pose[4 * i + 1];
        off += (here[i] - there[i]) * axis;
        length += axis * axis;
    }
    if (!(length > 0))
        return NAN;
    double mm = off / sqrt(length) / DEPTH_MM;
    return (float)(1 / (1 + mm * mm));
}
