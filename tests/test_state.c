/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping track: the state machine on scripted scores, each score against a number worked out by
 * hand, what crosses to and from the device, and sweeps of which the truth is known. */
#include "fixture.h"
#include "nn/op_ref.h"
#include "nn/op_sam.h"
#include "nn/op_track.h"
#include "pipeline/visibility.h"
#include "sweep.h"

/* ---- sweeps with the shipped models ---- */

struct tally {
    int frames, absent, false_visible, changes, late, flicker, detected, reasons_missed;
};

static void follow_sweep(struct um_pipeline_settings *set, uint64_t seed, struct tally *t)
{
    struct sweep sweep;
    struct moment m;
    um_pipeline *p = NULL;
    um_frame *f;
    enum truth known = ABSENT;
    enum truth before = ABSENT;
    bool visible = false;
    int since = 0, turns = 0, frozen = 0, lifted = 0;
    bool settled = true;
    CHECK_OK(um_pipeline_open(&p, set));
    sweep_open(&sweep, seed);
    while ((f = sweep_next(&sweep, &m))) {
        const um_packet *k = NULL;
        CHECK_OK(pass(p, f, &k));
        um_frame_unref(&f);
        bool now = k->state == UM_STATE_VISIBLE;
        t->frames++;
        t->detected += k->detected;
        if (m.truth != before && before == known) /* a change begins */
            turns = 0;
        before = m.truth;
        if (m.truth != BETWEEN && m.truth != known) {
            if (!settled)
                t->late++;
            known = m.truth;
            t->changes++;
            since = 0;
            settled = false;
        }
        turns += now != visible;
        t->flicker += now != visible && turns > 1;
        visible = now;
        if (m.truth != BETWEEN) {
            since++;
            bool there = known == PRESENT ? now : k->state == UM_STATE_LOST;
            if (!settled && there)
                settled = true;
            if (!settled && since == (known == PRESENT ? 5 : 3)) {
                t->late++;
                settled = true;
            }
        }
        if (m.truth == ABSENT) {
            t->absent++;
            t->false_visible += now;
        }
        frozen = m.frozen ? frozen + 1 : 0;
        lifted = m.lifted ? lifted + 1 : 0;
        if (frozen >= 4 && k->reason != UM_REASON_FROZEN)
            t->reasons_missed++;
        if (lifted >= 3 && k->reason != UM_REASON_NO_CONTACT)
            t->reasons_missed++;
        if (getenv("SWEEP"))
            printf("%3llu %-9s %d %-12s %-9s %-11s %d conf %.2f S %.2f C %.2f: %.2f %.2f %.2f %.2f "
                   "| %.2f "
                   "%.2f | %.2f\n",
                   (unsigned long long)k->frame_id, m.event, m.truth, um_state_name(k->state),
                   um_tag_name(k->tag), um_reason_name(k->reason) ? um_reason_name(k->reason) : "",
                   k->detected, (double)k->score, (double)um_visibility_total(k->scores),
                   (double)um_visibility_continuity(k->scores), (double)k->scores[0],
                   (double)k->scores[1], (double)k->scores[2], (double)k->scores[3],
                   (double)k->scores[4], (double)k->scores[5], (double)k->scores[7]);
    }
    um_pipeline_close(&p);
    sweep_close(&sweep);
}

TEST(sweeps)
{
    const struct fixture *f = fixture("cpu");
    um_pipeline_settings s;
    um_pipeline_settings_default(&s);
    s.detector = f->detector;
    s.segmenter = f->segmenter;
    s.track = 1;
    s.detect_every = getenv("EVERY") ? atoi(getenv("EVERY")) : 1;
    int n = getenv("SEEDS") ? atoi(getenv("SEEDS")) : 1,
        from = getenv("FROM") ? atoi(getenv("FROM")) : 1;
    struct tally t = {0};
    for (int i = from; i < from + n; i++)
        follow_sweep(&s, (uint64_t)i, &t);
    printf("frames %d absent %d false %d changes %d late %d flicker %d detected %d reasons %d\n",
           t.frames, t.absent, t.false_visible, t.changes, t.late, t.flicker, t.detected,
           t.reasons_missed);
}

TEST_MAIN
