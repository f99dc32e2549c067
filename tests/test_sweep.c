/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps of which the truth is known, with the models that ship: what becomes of the state, and
 * what of the masks where the detector is left out. */
#define TEST_WHAT_SHIPS
#include "fixture.h"
#include "io/phantom_sweep.h"

enum { SWEEP_W = UM_PHANTOM_WIDTH, SWEEP_H = UM_PHANTOM_HEIGHT };

enum truth { ABSENT, PRESENT, BETWEEN /* partly seen: either state will do */ };

static void open_sweep(struct um_sweep *s)
{
    if (um_sweep_open(s) != UM_OK)
        fixture_die("sweep");
}

static um_frame *frame_of(const struct um_sweep *s)
{
    um_frame *f = new_frame(SWEEP_W, SWEEP_H, 1);
    for (int y = 0; y < SWEEP_H; y++)
        memcpy(pixel(f, 0, y), s->pixels + (ptrdiff_t)y * SWEEP_W, SWEEP_W);
    return f;
}

static enum truth truth_of(const struct um_sweep *s)
{
    double bone = (double)s->shown->bone;
    return s->seen >= 0.4 * bone ? PRESENT : s->faint <= 0.01 * bone ? ABSENT : BETWEEN;
}

static um_pipeline *open_tracking(int every)
{
    const struct fixture *f = fixture("cpu");
    um_pipeline_settings s = fixture_settings(f);
    s.track = 1;
    s.detect_every = every;
    return fixture_pipeline(&s);
}

/* ---- the schedule on a steady sweep ---- */

/* Mean Dice with the truth, of all frames; *detected: how many ran the detector. */
static double steady_dice(int every, int frames, int *detected)
{
    static uint8_t got[SWEEP_W * SWEEP_H];
    struct um_sweep sweep;
    um_pipeline *p = open_tracking(every);
    double sum = 0;
    int shown = 0;
    *detected = 0;
    open_sweep(&sweep);
    um_sweep_start(&sweep, 3, 0);
    for (int i = 0; i < frames; i++) {
        struct um_sweep_shot shot = {
            .x = sweep.view[0].home - frames + 2 * i, .gain = 1, .shade = 1};
        const um_packet *k = NULL;
        um_sweep_shoot(&sweep, &shot);
        um_frame *f = frame_of(&sweep);
        long both = 0, all = 0;
        if (pass(p, f, &k) != UM_OK)
            fixture_die("sweep");
        um_frame_unref(&f);
        *detected += k->detected;
        if (!k->has_mask)
            continue;
        um_packet_mask(k, got, 1);
        for (int at = 0; at < SWEEP_W * SWEEP_H; at++) {
            both += got[at] & sweep.mask[at];
            all += got[at] + sweep.mask[at];
        }
        sum += 2. * (double)both / (double)all;
        shown++;
    }
    um_sweep_close(&sweep);
    um_pipeline_close(&p);
    return shown >= frames - 2 ? sum / shown : 0;
}

TEST(a_third_of_the_detections_give_the_same_masks)
{
    if (SANITIZED)
        SKIP("shows nothing that the frames before do not");
    enum { FRAMES = 36 };
    int each = 0, some = 0;
    double with = steady_dice(1, FRAMES, &each), without = steady_dice(8, FRAMES, &some);
    CHECK_EQ(each, FRAMES);
    CHECK_MSG(3 * some <= FRAMES, "%d of %d frames", some, FRAMES);
    CHECK_MSG(with > .8 && fabs(with - without) <= .01, "Dice %.4f, without the detector %.4f",
              with, without);
}

/* ---- states ---- */

struct tally {
    int frames, changes, late, flicker, false_visible, missed, unsaid;
};

/* The state against the truth, frame by frame. */
struct watch {
    enum truth known, before; /* the last that was definite; of the frame before */
    bool visible, settled;
    bool reached; /* VISIBLE, since the structure came */
    int since;    /* frames since the truth changed, of those that are definite */
    int turns;    /* of VISIBLE since a change began */
    bool early;   /* a turn too many that may be the answer to a change that begins next */
    int frozen, lifted;
};

static void watch_truth(struct watch *w, enum truth truth, struct tally *t)
{
    if (truth != w->before && w->before == w->known) /* a change begins */
        w->turns = w->early;
    else
        t->flicker += w->early;
    w->early = false;
    w->before = truth;
    if (truth == BETWEEN || truth == w->known)
        return;
    t->late += !w->settled; /* it never got there */
    t->changes++;
    w->known = truth;
    w->since = 0;
    w->settled = w->reached = false;
}

static void watch_state(struct watch *w, enum truth truth, const um_packet *k, struct tally *t)
{
    enum { TO_VISIBLE = 5, TO_LOST = 3 };
    bool now = k->state == UM_STATE_VISIBLE;
    if (now != w->visible && ++w->turns > 1) {
        w->early = !now && truth == PRESENT;
        t->flicker += !w->early;
    }
    w->visible = now;
    t->false_visible += now && truth == ABSENT;
    t->missed += !now && truth == PRESENT && w->reached;
    w->reached = w->reached || (now && truth == PRESENT);
    if (truth == BETWEEN)
        return;
    w->since++;
    w->settled = w->settled || (w->known == PRESENT ? now : k->state == UM_STATE_LOST);
    if (!w->settled && w->since == (w->known == PRESENT ? TO_VISIBLE : TO_LOST)) {
        t->late++;
        w->settled = true;
    }
}

static void watch_reason(struct watch *w, const struct um_sweep *s, const um_packet *k,
                         struct tally *t)
{
    w->frozen = s->frozen ? w->frozen + 1 : 0;
    w->lifted = s->lifted ? w->lifted + 1 : 0;
    t->unsaid += w->frozen >= 3 && (k->reason != UM_REASON_FROZEN || k->tag != UM_TAG_STALE);
    t->unsaid += w->lifted >= 2 && k->reason != UM_REASON_NO_CONTACT;
    t->unsaid += !w->frozen && k->reason == UM_REASON_FROZEN;
    /* under a shadow as wide as the image there is no speckle either */
    t->unsaid += truth_of(s) == PRESENT && k->reason == UM_REASON_NO_CONTACT;
}

static void follow(int every, uint64_t seed, struct tally *t)
{
    struct um_sweep sweep;
    struct watch w = {.settled = true};
    um_pipeline *p = open_tracking(every);
    open_sweep(&sweep);
    for (uint64_t i = 0; i < UM_SWEEP_FRAMES; i++, t->frames++) {
        const um_packet *k = NULL;
        struct tally old = *t;
        um_sweep_draw(&sweep, seed, i);
        um_frame *f = frame_of(&sweep);
        enum truth truth = truth_of(&sweep);
        f->id = i;
        if (pass(p, f, &k) != UM_OK)
            fixture_die("sweep");
        um_frame_unref(&f);
        watch_truth(&w, truth, t);
        watch_state(&w, truth, k, t);
        watch_reason(&w, &sweep, k, t);
        old.changes = t->changes;
        if (memcmp(&old, t, sizeof old) != 0) /* what a failure is made of */
            printf("  seed %llu, frame %llu (%s): %s, %s, score %.2f\n", (unsigned long long)seed,
                   (unsigned long long)k->frame_id, sweep.event, um_state_name(k->state),
                   um_tag_name(k->tag), (double)k->score);
    }
    t->flicker += w.early;
    um_sweep_close(&sweep);
    um_pipeline_close(&p);
}

/* Set ULTRAMOTION_LONG_TESTS for more of them. */
TEST(states_follow_the_truth)
{
    struct tally t = {0};
    if (SANITIZED)
        SKIP("shows nothing that shorter ones do not");
    int seeds = getenv("ULTRAMOTION_LONG_TESTS") ? 10 : 1;
    for (int seed = 1; seed <= seeds; seed++) {
        follow(4, (uint64_t)seed, &t);
        if (seeds > 1)
            follow(1, (uint64_t)seed, &t);
    }
    printf("  %d frames, %d changes: %d late, %d flicker, %d false VISIBLE, %d missed\n", t.frames,
           t.changes, t.late, t.flicker, t.false_visible, t.missed);
    CHECK(t.changes >= 7 * seeds);
    CHECK(20 * t.late <= t.changes);
    CHECK_EQ(t.flicker, 0);
    CHECK(100 * t.false_visible < t.frames);
    CHECK(100 * t.missed < t.frames);
    CHECK_EQ(t.unsaid, 0);
}

TEST_MAIN
