/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping track: the state machine on scripted scores, each score against a number worked out by
 * hand, what crosses to and from the device, and sweeps of which the truth is known. */
#include "fixture.h"

#include "base/mem.h"
#include "nn/op_ref.h"
#include "nn/op_sam.h"
#include "nn/op_track.h"
#include "pipeline/pipeline.h"

/* ---- the state machine on scripted scores ---- */

static const struct um_visibility_rules RULES = {.5f, .6f, .4f, .5f, 4};

/* A frame as one letter, and what must come of it: state L, R or V, tag f, p, s or w, reason -, n
 * (not found), l (low score), u (unconfirmed), z (frozen) or c (no contact). */
static struct um_sight sight_of(char c)
{
    struct um_sight s = {.detected = true, .outlined = true, .conf = .9f};
    float total = .8f, again = .8f;
    switch (c) {
    case 'g': break;              /* good */
    case 'h': total = .5f; break; /* between the thresholds */
    case 'w': total = .3f; break; /* weak */
    case 'c': again = .4f; break; /* another structure */
    case 'j': again = .1f; break; /* another one, elsewhere */
    case 'm':
        s.conf = .4f;
        s.outlined = false;
        break; /* missed */
    case 'a':
        s.conf = .1f;
        s.outlined = false;
        break;                           /* clearly absent */
    case 'e': s.outlined = false; break; /* an empty mask */
    case 'z': s.same = true; break;      /* the frame before */
    case 'k': s.outlined = false; break; /* dark, and an empty mask */
    case 'd': break;                     /* dark: no speckle */
    default: total = again = (float)(c - '0') / 10;
    }
    for (int i = 0; i < UM_SCORES; i++)
        s.score[i] = i <= UM_SCORE_COHERENCE ? total : again;
    if (c == 'j')
        s.score[UM_SCORE_COHERENCE] = 0;
    s.score[UM_SCORE_DEPTH] = NAN;
    s.score[UM_SCORE_CONTACT] = c == 'd' || c == 'k' ? .1f : .9f;
    if (!s.outlined)
        for (int i = 0; i < UM_SCORE_CONTACT; i++)
            s.score[i] = NAN;
    return s;
}

static void play(const char *frames, const char *states, const char *tags, const char *reasons)
{
    struct um_visibility v = {.state = UM_STATE_LOST};
    char state[80] = "", tag[80] = "", reason[80] = "";
    for (int i = 0; frames[i]; i++) {
        struct um_sight s = sight_of(frames[i]);
        struct um_verdict verdict = um_visibility_step(&v, &RULES, &s);
        state[i] = "LVR"[verdict.state];
        tag[i] = "fpsw"[verdict.tag];
        reason[i] = "-nluzc"[verdict.reason];
        CHECK_MSG(verdict.state == v.state, "frame %d of %s", i, frames);
    }
    CHECK_MSG(strcmp(state, states) == 0, "%s: %s, want %s", frames, state, states);
    CHECK_MSG(strcmp(tag, tags) == 0, "%s: %s, want %s", frames, tag, tags);
    CHECK_MSG(strcmp(reason, reasons) == 0, "%s: %s, want %s", frames, reason, reasons);
}

TEST(states_of_scripted_scores)
{
    play("ggggg", "RRVVV", "wwfff", "uu---");     /* found, confirmed twice */
    play("gggaaa", "RRVLLL", "wwfwww", "uu-nnn"); /* gone */
    play("gggmgg", "RRVVVV", "wwfsff", "uu-n--"); /* one miss: the mask before */
    play("gggmmg", "RRVVLR", "wwfsww", "uu-nnu"); /* two */
    play("ggghhh", "RRVVVV", "wwffff", "uu----"); /* between the thresholds nothing changes */
    play("hhhhhh", "RRRRRR", "wwwwww", "uuuuuu");
    play("gggwgg", "RRVVVV", "wwfwff", "uu-l--");         /* a weak mask is not shown */
    play("gggwwggg", "RRVVRRVV", "wwfwwwff", "uu-llu--"); /* VISIBLE can relocalise */
    play("gggwwwwg", "RRVVRRLR", "wwfwwwww", "uu-llllu");
    play("gggwmgmwg", "RRVVVVVVV", "wwfwsfswf", "uu-ln-nl-"); /* not of one mind */
    play("gggwmwmwm", "RRVVVRRRL", "wwfwswwww", "uu-lnlnln");
    play("wwwg", "LLLR", "wwww", "lllu");         /* a weak mask is no beginning */
    play("ccccgg", "RRRRRV", "wwwwwf", "uuuuu-"); /* found, and not the same */
    play("gcgcgg", "RRRRRV", "wwwwwf", "uuuuu-"); /* not twice in a row */
    play("gmgmg", "RRRRR", "wwwww", "ununu");
    play("gamamam", "RLLLLLL", "wwwwwww", "unnnnnn");
}

/* What a sweep brings, one event each, with what docs/STATE.md says must come of it. Digits are
 * scores in tenths, of S1 to S4 and C1 to C3 alike; letters as above. */
TEST(states_of_every_event)
{
    static const struct {
        const char *event, *frames, *states, *tags, *reasons;
    } script[] = {
        /* a score that grows: LOST below theta_off, in doubt until two good frames */
        {"approach", "aaam355789gg", "LLLLLRRRVVVV", "wwwwwwwwffff", "nnnnluuu----"},
        {"dwell", "gggggggggggggggg", "RRVVVVVVVVVVVVVV", "wwffffffffffffff", "uu--------------"},
        /* the mask fades before the detector loses it */
        {"slide away", "ggg75533mmaaa", "RRVVVVVRRLLLL", "wwffffwwwwwww", "uu----llnnnnn"},
        {"slide away at once", "ggggaaag", "RRVVLLLR", "wwffwwww", "uu--nnnu"},
        {"shadow", "ggg33hggg", "RRVVRRRVV", "wwfwwwwff", "uu-lluu--"},
        {"shadow of a frame", "ggg3ggg", "RRVVVVV", "wwfwfff", "uu-l---"},
        {"shadow that stays", "ggg3333333g", "RRVVRRLLLLR", "wwfwwwwwwww", "uu-lllllllu"},
        /* sharpness and contrast change: above theta_off nothing follows, below it does */
        {"gain change", "ggg777555ggg", "RRVVVVVVVVVV", "wwffffffffff", "uu----------"},
        {"gain too low", "ggg5333hhgg", "RRVVVRRRRRV", "wwffwwwwwwf", "uu--llluuu-"},
        {"freeze", "gggzzzzzzzgg", "RRVVVVVVVVVV", "wwfffsssssff", "uu---zzzzz--"},
        {"freeze while absent", "aaazzzzg", "LLLRRRRV", "wwwwwwwf", "nnnuuzz-"},
        /* the probe leaves the skin: no speckle, whatever the detector sees in the dark */
        {"lift-off", "gggddddddgggg", "RRVVLLLLLRRVV", "wwffwwwwwwwff", "uu--cccccuu--"},
        {"lift-off, nothing found", "gggkkkkgggg", "RRVLLLLRRVV", "wwfwwwwwwff", "uu-ncccuu--"},
        /* elsewhere at once: no loss while VISIBLE, and not taken for the one before after a gap */
        {"jump", "gggjgggg", "RRVVVVVV", "wwffffff", "uu------"},
        {"jump with a gap", "gggajjgg", "RRVLRRRV", "wwfwwwwf", "uu-nuuu-"},
    };
    for (size_t i = 0; i < sizeof script / sizeof *script; i++)
        play(script[i].frames, script[i].states, script[i].tags, script[i].reasons);
}

/* The detector's blinking never shows as flicker: VISIBLE takes two frames of one mind. */
TEST(no_flicker_whatever_comes)
{
    static const char letters[] = "ghwcmaez";
    uint32_t x = 7;
    struct um_visibility v = {.state = UM_STATE_LOST};
    int since = 100;
    bool visible = false;
    for (int i = 0; i < 200000; i++) {
        x = x * 1664525u + 1013904223u;
        struct um_sight s = sight_of(letters[(x >> 24) % (sizeof letters - 1)]);
        struct um_verdict verdict = um_visibility_step(&v, &RULES, &s);
        bool now = verdict.state == UM_STATE_VISIBLE;
        since++;
        if (now && !visible) {
            CHECK_MSG(since >= 2, "frame %d: VISIBLE again after %d frames", i, since);
            since = 0;
        } else if (visible && !now)
            since = 0;
        visible = now;
        CHECK((verdict.state == UM_STATE_VISIBLE) || verdict.tag == UM_TAG_WITHHELD);
    }
}

TEST(frozen_frames_and_lost_contact_are_said)
{
    play("gggzzzzzg", "RRVVVVVVV", "wwfffsssf", "uu---zzz-");
    play("gzzzzz", "RRVVVV", "wwfsss", "uu-zzz");     /* the third equal one is no evidence */
    play("aazzzz", "LLRRRR", "wwwwww", "nnuuzz");     /* nor a reason to believe */
    play("gggdddg", "RRVVLLR", "wwffwww", "uu--ccu"); /* whatever the detector says */
    play("gggkg", "RRVLR", "wwfww", "uu-nu");         /* dark, and an empty mask */
    play("gggeg", "RRVVV", "wwfsf", "uu-n-");
    play("gggeeg", "RRVVLR", "wwfsww", "uu-nnu");
}

/* Which frames run the detector when it is asked for each fourth. */
TEST(detector_is_left_out_while_all_is_steady)
{
    static const struct {
        const char *frames, *detected;
    } script[] = {
        /* three to be VISIBLE, the last of which is the first of five steady ones */
        {"gggggggggggggggg", "1111111000100010"},
        {"gggggggggggwgggggggg", "11111110001011111000"},
        {"ggggggghgggggggg", "1111111011111000"},
        {"ggggggga", "11111110"},
    };
    for (size_t k = 0; k < sizeof script / sizeof *script; k++) {
        struct um_visibility v = {.state = UM_STATE_LOST};
        bool detect = true;
        char detected[80] = "";
        for (int i = 0; script[k].frames[i]; i++) {
            struct um_sight s = sight_of(script[k].frames[i]);
            s.detected = detect;
            detected[i] = detect ? '1' : '0';
            struct um_verdict verdict = um_visibility_step(&v, &RULES, &s);
            CHECK(verdict.tag != UM_TAG_PREDICTED || !detect);
            CHECK(verdict.state == UM_STATE_VISIBLE || verdict.detect);
            detect = verdict.detect;
        }
        CHECK_MSG(strcmp(detected, script[k].detected) == 0, "%s: %s, want %s", script[k].frames,
                  detected, script[k].detected);
    }
    struct um_visibility_rules each = RULES;
    struct um_visibility v = {.state = UM_STATE_LOST};
    each.detect_every = 1;
    for (int i = 0; i < 40; i++) {
        struct um_sight s = sight_of('g');
        CHECK(um_visibility_step(&v, &each, &s).detect);
    }
}

TEST(means_leave_out_what_is_not_defined)
{
    const float nan = NAN;
    float s[UM_SCORES] = {.5f, 1, 0, nan, .25f, nan, .75f, 0};
    CHECK_NEAR(um_visibility_total(s), .5, 1e-7);
    CHECK_NEAR(um_visibility_continuity(s), .5, 1e-7);
    s[0] = s[1] = s[2] = nan;
    CHECK(isnan(um_visibility_total(s)));
}

/* ---- scores against numbers worked out by hand ---- */

struct scene {
    int h, w;
    uint8_t x[64 * 80], mask[64 * 80]; /* gray levels, 0/1 */
    struct um_gate gate;
    struct um_frame_header header;
    uint64_t packet[(UM_RECORD_BYTES + 64 * 12) / 8];
    uint64_t memory[(sizeof(struct um_track) + 80 * UM_TRACK_LINE * 4 + 2 * 64 * 12) / 8 + 1];
};

static struct um_view bytes_of(void *data, int h, int w, int c)
{
    return (struct um_view){.data = data, .dtype = UM_U8, .h = h, .w = w, .c = c, .ld = c};
}

static void fill_rect(const struct scene *s, uint8_t *to, int x0, int y0, int x1, int y1, uint8_t v)
{
    for (int y = y0; y < y1; y++)
        memset(to + y * s->w + x0, v, (size_t)(x1 - x0));
}

/* Scores of a scene, in memory that goes on from one to the next. */
static const float *score(struct scene *s)
{
    static uint8_t weights[3 * 64 * 80];
    struct um_record stats;
    um_pool *pool = NULL;
    if (um_pool_open(&pool, 1) != UM_OK)
        fixture_die("pool");
    int size = UM_RECORD_BYTES + s->h * um_mask_row_bytes(s->w),
        keep = (int)um_track_bytes(s->h, s->w);
    struct um_view mask = bytes_of(s->mask, s->h, s->w, 1),
                   record = bytes_of(&stats, 1, 1, UM_RECORD_BYTES),
                   packet = bytes_of(s->packet, 1, 1, size),
                   gate = bytes_of(&s->gate, 1, 1, UM_GATE_BYTES),
                   header = bytes_of(&s->header, 1, 1, UM_HEADER_BYTES),
                   x = bytes_of(s->x, s->h, s->w, 1), memory = bytes_of(s->memory, 1, 1, keep);
    um_ref_mask_stats(&(struct um_call){
        .t = (struct um_view[]){bytes_of(weights, 3 * s->h, s->w, 1), record, mask},
        .n = 3,
        .pool = pool});
    um_ref_contact(&(struct um_call){.t = (struct um_view[]){gate, x}, .n = 2, .pool = pool});
    um_ref_packet(&(struct um_call){
        .t = (struct um_view[]){packet, record, mask, gate, {.h = 0}, {.h = 0}, header},
        .n = 7,
        .pool = pool});
    um_ref_scores(&(struct um_call){
        .t = (struct um_view[]){packet, memory, x, header}, .n = 4, .pool = pool});
    um_pool_close(&pool);
    return ((const struct um_record *)(const void *)s->packet)->score;
}

static struct scene scene_of(int h, int w, uint8_t gray)
{
    struct scene s = {.h = h, .w = w, .gate = {.flags = UM_GATE_OK}};
    memset(s.x, gray, sizeof s.x);
    return s;
}

TEST(sharpness_and_contrast)
{
    /* a step from 100 to 200 at column 8; the mask is columns 8 to 11 */
    struct scene s = scene_of(12, 16, 100);
    fill_rect(&s, s.x, 8, 0, 16, 12, 200);
    fill_rect(&s, s.mask, 8, 0, 12, 12, 1);
    const float *v = score(&s);
    /* W_edge: columns 7, 8, 11, 12, where L is 100, -100, 0, 0 and g 100, 200, 200, 200 */
    CHECK_NEAR(v[UM_SCORE_SHARPNESS], 5000. / (5000 + 1875), 1e-6);
    /* W_in: columns 9, 10 of 200; W_out: columns 6, 7, 12, 13 of mean 150, variance 2500 */
    CHECK_NEAR(v[UM_SCORE_CONTRAST], 1. / (1 + .25), 1e-6);
    for (int i = 0; i < 64 * 80; i++)
        s.x[i] /= 2; /* gain */
    v = score(&s);
    CHECK_NEAR(v[UM_SCORE_SHARPNESS], 5000. / 6875, 1e-6);
    CHECK_NEAR(v[UM_SCORE_CONTRAST], 1 / 1.25, 1e-6);
    for (int i = 0; i < 64 * 80; i++)
        s.x[i] = (uint8_t)(200 - s.x[i]); /* darker inside */
    CHECK_NEAR(score(&s)[UM_SCORE_CONTRAST], 0, 0);
    memset(s.x, 77, sizeof s.x); /* nothing */
    v = score(&s);
    CHECK(v[UM_SCORE_SHARPNESS] == 0 && v[UM_SCORE_CONTRAST] == 0 && v[UM_SCORE_LINE] == 0);
}

TEST(continuity_of_the_line)
{
    struct scene s = scene_of(14, 20, 50), turned = scene_of(20, 14, 50);
    fill_rect(&s, s.mask, 2, 4, 12, 7, 1); /* 10 columns, 9 pairs */
    fill_rect(&s, s.x, 2, 4, 12, 7, 100);
    CHECK_NEAR(score(&s)[UM_SCORE_LINE], 1, 0);
    fill_rect(&s, s.x, 6, 4, 7, 7, 62); /* below 5/4 of 50: two pairs */
    CHECK_NEAR(score(&s)[UM_SCORE_LINE], 7. / 9, 1e-6);
    fill_rect(&s, s.x, 6, 4, 7, 7, 63);
    CHECK_NEAR(score(&s)[UM_SCORE_LINE], 1, 0);
    fill_rect(&s, s.mask, 9, 4, 12, 7, 0); /* a step of more than a pixel: one pair */
    fill_rect(&s, s.mask, 9, 8, 12, 11, 1);
    fill_rect(&s, s.x, 9, 4, 12, 7, 50);
    fill_rect(&s, s.x, 9, 8, 12, 11, 100);
    CHECK_NEAR(score(&s)[UM_SCORE_LINE], 8. / 9, 1e-6);
    fill_rect(&s, s.mask, 4, 4, 5, 7, 0); /* a gap: two pairs */
    CHECK_NEAR(score(&s)[UM_SCORE_LINE], 6. / 9, 1e-6);
    for (int y = 0; y < 20; y++) /* a line down the image */
        for (int x = 0; x < 14; x++) {
            turned.mask[y * 14 + x] = s.mask[x * 20 + y];
            turned.x[y * 14 + x] = s.x[x * 20 + y];
        }
    CHECK_NEAR(score(&turned)[UM_SCORE_LINE], 6. / 9, 1e-6);
}

TEST(coherence_agreement_and_what_is_not_defined)
{
    struct scene s = scene_of(16, 40, 50);
    s.gate.box[2] = s.gate.box[3] = 10;
    fill_rect(&s, s.mask, 0, 0, 10, 5, 1);
    const float *v = score(&s);
    CHECK(isnan(v[UM_SCORE_COHERENCE]) && isnan(v[UM_SCORE_APPEARANCE]) &&
          isnan(v[UM_SCORE_DEPTH]));
    CHECK_NEAR(v[UM_SCORE_AGREEMENT], .5, 1e-7); /* 10x10 and 10x5 */
    s.header.track = UM_TRACK_PREVIOUS;
    v = score(&s); /* the same again */
    CHECK_NEAR(v[UM_SCORE_COHERENCE], 1, 0);
    CHECK_NEAR(v[UM_SCORE_AGREEMENT], .75, 1e-7);
    fill_rect(&s, s.mask, 0, 0, 40, 16, 0);
    fill_rect(&s, s.mask, 28, 4, 32, 8, 1); /* across two words */
    CHECK_NEAR(score(&s)[UM_SCORE_COHERENCE], 0, 0);
    fill_rect(&s, s.mask, 28, 4, 31, 8, 0); /* three columns to the right */
    fill_rect(&s, s.mask, 31, 4, 35, 8, 1);
    CHECK_NEAR(score(&s)[UM_SCORE_COHERENCE], 24. / 32, 1e-7); /* 3 of 4 columns, both ways */
    s.gate.flags = UM_GATE_BELOW_TAU;
    v = score(&s);
    for (int i = 0; i < UM_SCORE_CONTACT; i++)
        CHECK(isnan(v[i]));
}

TEST(appearance)
{
    struct um_track_ncc n = {0};
    um_track_correlate(&n, 0, 0, 0);
    um_track_correlate(&n, 1, 0, 0);
    um_track_correlate(&n, 0, 1, 0);
    um_track_correlate(&n, 1, 1, 1);
    CHECK_NEAR(um_track_correlation(&n), .3, 1e-7); /* (7*4 - 5*5)/(7*5 - 5*5) */
    /* a frame, the good one; then its negative; then the first again, but elsewhere and dimmed */
    struct scene s = scene_of(40, 80, 60);
    fill_rect(&s, s.mask, 4, 4, 36, 36, 1);
    fill_rect(&s, s.x, 4, 4, 20, 36, 200);
    score(&s);
    struct scene other = s;
    other.header.track = UM_TRACK_PREVIOUS | UM_TRACK_KEEP;
    for (int i = 0; i < 40 * 80; i++)
        other.x[i] = (uint8_t)(255 - s.x[i]);
    CHECK_NEAR(score(&other)[UM_SCORE_APPEARANCE], 0, 0);
    memcpy(s.memory, other.memory, sizeof s.memory);
    memset(s.mask, 0, sizeof s.mask);
    memset(s.x, 30, sizeof s.x);
    fill_rect(&s, s.mask, 44, 2, 76, 34, 1);
    fill_rect(&s, s.x, 44, 2, 60, 34, 100);
    s.header.track = UM_TRACK_PREVIOUS | UM_TRACK_GOOD;
    CHECK_NEAR(score(&s)[UM_SCORE_APPEARANCE], 1, 2e-3); /* thirds are rounded */
    s.header.track = UM_TRACK_PREVIOUS; /* with the frame before, which is this one */
    CHECK_NEAR(score(&s)[UM_SCORE_APPEARANCE], 1, 1e-6);
}

TEST(contact)
{
    struct scene s = scene_of(32, 40, 10); /* cells at columns 0, 16, 32 and rows 0, 16 */
    s.x[3 * 40 + 2] = 26;                  /* a range of 16 */
    s.x[20 * 40 + 18] = 26;
    s.x[20 * 40 + 33] = 25; /* of 15 */
    s.x[3 * 40 + 10] = 255; /* between the cells */
    CHECK_NEAR(score(&s)[UM_SCORE_CONTACT], 2. / 6, 1e-7);
}

/* ---- the budget on scripted times ---- */

enum { BUDGET_MS = 40 };

/* A pipeline with these costs; what is done by frame: F full work, f followed, d followed and with
 * the detector, r repeated. */
static void hurry(struct um_budget *b, int *since, double full_ms, double follow_ms, int frames,
                  char *out)
{
    for (int i = 0; i < frames; i++) {
        bool repeat = um_budget_repeats(b);
        bool detect = b->effort == UM_EFFORT_FULL || *since + 1 >= UM_BUDGET_HEARTBEAT;
        out[i] = repeat ? 'r' : b->effort == UM_EFFORT_FULL ? 'F' : detect ? 'd' : 'f';
        um_budget_step(b, BUDGET_MS,
                       &(struct um_budget_frame){.latency_ms = repeat   ? 1
                                                               : detect ? full_ms
                                                                        : follow_ms,
                                                 .repeated = repeat,
                                                 .detected = detect && !repeat});
        *since = repeat ? *since : detect ? 0 : *since + 1;
    }
    out[frames] = 0;
}

TEST(less_is_done_while_it_is_late)
{
    char got[600];
    struct um_budget b = {0};
    int since = 0;
    hurry(&b, &since, 39, 20, 50, got); /* in time, if barely */
    CHECK(strspn(got, "F") == 50);
    hurry(&b, &since, 90, 20, 2, got); /* twice late is an accident */
    hurry(&b, &since, 39, 20, 8, got);
    CHECK_STR(got, "FFFFFFFF");
    hurry(&b, &since, 90, 20, 3, got); /* three times of eight is not */
    CHECK(b.effort == UM_EFFORT_FOLLOW);
    hurry(&b, &since, 90, 20, 400, got); /* and stays so: the heartbeats say what more would cost */
    CHECK(b.effort == UM_EFFORT_FOLLOW && !strpbrk(got, "Fr"));
    hurry(&b, &since, 30, 20, 40, got); /* four of them in time */
    CHECK_MSG(strchr(got, 'F') && !strpbrk(strchr(got, 'F'), "fdr"), "%s", got);
    CHECK(b.effort == UM_EFFORT_FULL);
}

TEST(at_most_two_of_three_frames_are_repeated)
{
    char got[600];
    struct um_budget b = {0};
    int since = 0;
    hurry(&b, &since, 90, 60, 30, got);
    CHECK_STR(got, "FFFfffrrfrrfrrfrrfrrdrrfrrfrrf");
    hurry(&b, &since, 90, 35, 500, got); /* no room to spare: it stays */
    CHECK(b.effort == UM_EFFORT_REPEAT);
    hurry(&b, &since, 90, 30, 120, got);
    CHECK(b.effort == UM_EFFORT_FOLLOW && !strchr(got, 'F'));
}

/* Costs that invite it to do more, and then punish it: each change lasts longer than the one
 * before. */
TEST(a_budget_does_not_flip)
{
    struct um_budget b = {0};
    int since = 0, changes = 0;
    um_effort before = UM_EFFORT_FULL;
    for (int i = 0; i < 4000; i++) {
        char got[2];
        hurry(&b, &since, b.effort == UM_EFFORT_FULL ? 50 : 30, 20, 1, got);
        changes += b.effort != before;
        before = b.effort;
    }
    CHECK_MSG(changes >= 8 && changes <= 24, "%d changes in 4000 frames", changes);
    hurry(&b, &since, 30, 20, 600, (char[601]){0}); /* the trouble is over */
    CHECK(b.effort == UM_EFFORT_FULL);
    hurry(&b, &since, 30, 20, 3000, (char[3001]){0});
    CHECK_EQ(b.patience, 4);
}

TEST(depth)
{
    struct um_place a = {.known = true,
                         .pose = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1},
                         .spacing_mm = {.5, .5},
                         .centroid = {40, 10}},
                    b = a;
    CHECK_NEAR(um_visibility_depth(&a, &b), 1, 0);
    b.centroid[1] = 20; /* 5 mm deeper */
    b.centroid[0] = 90; /* along the line does not count */
    CHECK_NEAR(um_visibility_depth(&a, &b), .5, 1e-7);
    a.pose[7] = 5; /* the probe was moved there */
    CHECK_NEAR(um_visibility_depth(&a, &b), 1, 1e-7);
    b.known = false;
    CHECK(isnan(um_visibility_depth(&a, &b)));
}

/* ---- through the pipeline ---- */

enum { W = 422, H = 558 };

static um_pipeline_settings tracked(const struct fixture *f, um_gate_mode gate, int every)
{
    um_pipeline_settings s = fixture_settings(f);
    s.gate = gate;
    s.track = 1;
    s.detect_every = every;
    return s;
}

/* The same view, and no two frames that are equal. */
static um_frame *steady_frame(int i)
{
    um_frame *f = golden_frame(0);
    f->id = (uint64_t)i;
    *pixel(f, 0, 0) = (uint8_t)i;
    f->has_pose = f->has_spacing = 1;
    f->spacing_mm[0] = f->spacing_mm[1] = .1;
    for (int k = 0; k < 16; k++)
        f->pose[k] = k % 5 == 0;
    f->pose[7] = i == 6 ? 5 : 0; /* mm, along the depth, at once */
    return f;
}

/* What packets of a steady view say, as letters; the first that differs from `want` fails. */
static void check_steady(const um_pipeline_settings *s, int frames, const char *want_detected,
                         unsigned want_up, unsigned want_down)
{
    um_pipeline *p = fixture_pipeline(s);
    for (int i = 0; i < frames; i++) {
        const um_packet *k = NULL;
        um_frame *f = steady_frame(i);
        CHECK_OK(pass(p, f, &k));
        um_frame_unref(&f);
        bool detected = want_detected[i] == '1';
        CHECK_MSG(k->detected == detected, "frame %d", i);
        CHECK_EQ(k->state, i < 2 ? UM_STATE_RELOCALIZING : UM_STATE_VISIBLE);
        CHECK_EQ(k->tag, i < 2 ? UM_TAG_WITHHELD : detected ? UM_TAG_FRESH : UM_TAG_PREDICTED);
        CHECK(k->has_scores && k->has_box && k->has_mask == (i >= 2) && k->objects == 1);
        CHECK(k->has_mask ||
              (!k->mask_area_px && !k->edge_px && !k->mask_box[2] && isnan(k->centroid[0])));
        CHECK_MSG(k->transfers.up == want_up, "frame %d: %u up", i, k->transfers.up);
        CHECK_MSG(k->transfers.down == (detected ? want_down : want_up), "frame %d: %u down", i,
                  k->transfers.down);
        CHECK(i == 0 || k->transfers.setup == 0);
    }
    um_pipeline_close(&p);
}

/* 1 up and 1 down, with and without the detector; asserted, so that one more would be an error. */
TEST(scores_ride_in_the_record)
{
    um_pipeline_settings s = tracked(fixture("guard"), UM_GATE_SPECULATIVE, 3);
    s.assert_up = s.assert_down = 1;
    check_steady(&s, 12, "111111100100", 1, 1);
    s = tracked(fixture("guard"), UM_GATE_SYNC, 3); /* the gate's read is saved too */
    check_steady(&s, 10, "1111111001", 1, 2);
}

/* Not only the box: the time of the detector is saved. */
TEST(a_frame_without_the_detector_is_cheaper)
{
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_SYNC, 2);
    um_pipeline *p = fixture_pipeline(&s);
    double least[2] = {1e9, 1e9}; /* without, with */
    for (int i = 0; i < 14; i++) {
        const um_packet *k = NULL;
        um_frame *f = steady_frame(i);
        uint64_t memory = um_mem_count();
        CHECK_OK(pass(p, f, &k));
        CHECK(i < 4 || um_mem_count() == memory); /* nothing is allocated */
        um_frame_unref(&f);
        double *at = &least[k->detected != 0];
        *at = k->ms.detect < *at ? k->ms.detect : *at;
    }
    CHECK_MSG(least[0] * 3 < least[1], "detect: %.2f ms without, %.2f ms with it", least[0],
              least[1]);
    um_pipeline_close(&p);
}

/* A budget that nothing can keep: less is done while the view is steady, and each packet says so.
 */
static void check_hurry(const um_pipeline_settings *s)
{
    enum { FRAMES = 26 };
    /* full until steady; when three frames without the detector were late too, two of three are not
     * looked at */
    static const char want[FRAMES + 1] = "1111111000rr0rr0rr0rr0rr1r";
    static uint8_t before[W * H], mask[W * H];
    um_pipeline *p = fixture_pipeline(s);
    for (int i = 0; i < FRAMES; i++) {
        const um_packet *k = NULL;
        um_frame *f = steady_frame(i);
        CHECK_OK(pass(p, f, &k));
        um_frame_unref(&f);
        bool repeated = want[i] == 'r';
        CHECK_MSG(k->detected == (want[i] == '1'), "frame %d", i);
        CHECK_MSG((k->reason == UM_REASON_NO_TIME) == repeated, "frame %d", i);
        CHECK_EQ(k->tag, i < 2         ? UM_TAG_WITHHELD
                         : repeated    ? UM_TAG_STALE
                         : k->detected ? UM_TAG_FRESH
                                       : UM_TAG_PREDICTED);
        CHECK(k->has_deadline && k->missed && k->latency_ms >= k->ms.total);
        CHECK_EQ(k->effort, i < 3 ? UM_EFFORT_FULL : i < 10 ? UM_EFFORT_FOLLOW : UM_EFFORT_REPEAT);
        um_packet_mask(k, mask, 1);
        if (repeated) {
            CHECK(memcmp(mask, before, sizeof mask) == 0 && k->has_mask && k->has_box);
            CHECK(!k->transfers.up && !k->transfers.down && isnan(k->scores[UM_SCORE_LINE]));
        }
        memcpy(before, mask, sizeof mask);
    }
    CHECK_OK(
        um_pipeline_change(p, NULL, &(int){0}, NULL)); /* what is shown may be of another class */
    const um_packet *k = NULL;
    um_frame *f = steady_frame(FRAMES);
    CHECK_OK(pass(p, f, &k));
    um_frame_unref(&f);
    CHECK(k->detected);
    um_pipeline_close(&p);
}

TEST(a_budget_that_cannot_be_kept)
{
    um_pipeline_settings s = tracked(fixture("guard"), UM_GATE_SPECULATIVE, 1);
    s.budget_ms = 1e-6;
    check_hurry(&s);
    s = tracked(fixture("cpu"), UM_GATE_SYNC, 1);
    s.budget_ms = 1e-6;
    s.sam_as_numpy = UM_MASK_HOST;
    check_hurry(&s);
}

/* What a frame in flight shows once more is its own, whatever is forgotten before it is received.
 */
TEST(a_frame_that_repeats_a_mask_keeps_it)
{
    enum { REPEATED = 10 };
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_SYNC, 1);
    s.budget_ms = 1e-6;
    um_pipeline *p = fixture_pipeline(&s);
    for (int i = 0; i <= REPEATED + 1; i++) {
        const um_packet *k = NULL;
        um_frame *f = steady_frame(i);
        CHECK_OK(um_pipeline_send(p, &f));
        if (i == REPEATED)
            CHECK_OK(um_pipeline_forget(p));
        CHECK_OK(um_pipeline_receive(p, &k));
        CHECK((k->reason == UM_REASON_NO_TIME) == (i == REPEATED));
        if (i == REPEATED)
            CHECK(k->has_mask && k->mask_area_px);
        if (i > REPEATED)
            CHECK(k->detected && k->state != UM_STATE_VISIBLE);
    }
    um_frame *f = steady_frame(0);
    CHECK_OK(um_pipeline_send(p, &f));
    um_pipeline_close(&p); /* with a frame in flight */
}

/* What is followed goes when another class is wanted, and stays when it is of that one. */
TEST(another_class_is_another_structure)
{
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_SYNC, 1);
    for (int label = 0; label < 2; label++) {
        um_pipeline *p = fixture_pipeline(&s);
        const um_packet *k = NULL;
        for (int i = 0; i < 5; i++) {
            um_frame *f = steady_frame(i);
            if (i == 4) {
                CHECK_EQ(k->state, UM_STATE_VISIBLE);
                p->track.follow.label = label;
                CHECK_OK(um_pipeline_change(p, NULL, &(int){0}, NULL));
            }
            CHECK_OK(pass(p, f, &k));
            um_frame_unref(&f);
        }
        CHECK_EQ(k->state, label ? UM_STATE_RELOCALIZING : UM_STATE_VISIBLE);
        um_pipeline_close(&p);
    }
}

/* A size that was planned in the place of the one before has no mask of it, and nothing to follow.
 */
TEST(a_size_in_the_place_of_another_is_another_frame)
{
    enum { SIZES = 4 };
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_SYNC, 1);
    um_pipeline *p = fixture_pipeline(&s);
    const um_packet *k = NULL;
    for (int i = 0; i < 4; i++) {
        um_frame *f = steady_frame(i);
        CHECK_OK(pass(p, f, &k));
        um_frame_unref(&f);
    }
    CHECK_EQ(k->state, UM_STATE_VISIBLE);
    for (int n = 1; n <= SIZES; n++)
        CHECK_OK(um_pipeline_prepare(p, W + n, H, 1));
    um_frame *small = golden_frame(0), *f = new_frame(W + SIZES, H, 1);
    for (int y = 0; y < H; y++)
        memcpy(f->pixels + y * f->stride, small->pixels + y * small->stride, W);
    CHECK_OK(pass(p, f, &k));
    CHECK_EQ(k->state, UM_STATE_RELOCALIZING);
    um_frame_unref(&small);
    um_frame_unref(&f);
    um_pipeline_close(&p);
}

/* A caliper comes into a stream in colour, and goes: the networks take another way then, and what
 * is followed stays what it was. */
TEST(a_colour_that_comes_and_goes_is_no_other_image)
{
    um_pipeline_settings way[3] = {tracked(fixture("cpu"), UM_GATE_SYNC, 3),
                                   tracked(fixture("guard"), UM_GATE_SPECULATIVE, 3),
                                   tracked(fixture("cpu"), UM_GATE_AUTO, 3)};
    way[1].assert_up = way[1].assert_down = 1;
    way[2].sam_as_numpy = UM_MASK_HOST;
    for (int n = 0; n < (SANITIZED ? 1 : 3); n++) {
        um_pipeline *p = fixture_pipeline(&way[n]);
        const um_packet *k = NULL;
        for (int i = 0; i < 12; i++) {
            um_frame *gray = steady_frame(i), *f = rgb_of(gray);
            if (i == 1 || (i >= 4 && i % 2))
                memcpy(pixel(f, 5, 5), (uint8_t[]){255, 0, 0}, 3);
            CHECK_OK(pass(p, f, &k));
            CHECK_MSG(k->state == (i < 2 ? UM_STATE_RELOCALIZING : UM_STATE_VISIBLE), "frame %d",
                      i);
            CHECK(i == 0 ||
                  (k->scores[UM_SCORE_COHERENCE] > .9f && k->scores[UM_SCORE_APPEARANCE] > .99f));
            CHECK_EQ(k->detected, i < 7 || i % 3 == 0);
            um_frame_unref(&gray);
            um_frame_unref(&f);
        }
        um_pipeline_close(&p);
    }
}

TEST(a_budget_that_is_kept_changes_nothing)
{
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_SYNC, 3);
    s.budget_ms = 3.6e6;
    check_steady(&s, 10, "1111111001", 0, 0);
    s.budget_ms = -1;
    um_pipeline *p = NULL;
    CHECK(um_pipeline_open(&p, &s) == UM_EINVAL && !p);
}

struct told {
    um_packet packet;
    uint8_t mask[W * H];
};

static void run_steady(const um_pipeline_settings *s, struct told *told, int frames)
{
    um_pipeline *p = fixture_pipeline(s);
    for (int i = 0; i < frames; i++) {
        const um_packet *k = NULL;
        um_frame *f = i == 9 ? new_frame(W, H, 1) : steady_frame(i);
        CHECK_OK(pass(p, f, &k));
        um_frame_unref(&f);
        told[i].packet = *k;
        um_packet_mask(k, told[i].mask, 1);
    }
    um_pipeline_close(&p);
}

/* Whatever gate, device and mode of masks: the same states, scores and masks, bit for bit. */
TEST(the_same_from_every_way_through)
{
    enum { FRAMES = 11, WAYS = 4 };
    static struct told want[FRAMES], got[FRAMES];
    um_pipeline_settings way[WAYS] = {
        tracked(fixture("cpu"), UM_GATE_SPECULATIVE, 3), tracked(fixture("guard"), UM_GATE_AUTO, 3),
        tracked(fixture("cpu"), UM_GATE_AUTO, 3), tracked(fixture("guard"), UM_GATE_AUTO, 3)};
    way[2].sam_as_numpy = way[3].sam_as_numpy = UM_MASK_HOST;
    um_pipeline_settings first = tracked(fixture("cpu"), UM_GATE_SYNC, 3);
    run_steady(&first, want, FRAMES);
    CHECK(want[7].packet.tag == UM_TAG_PREDICTED && want[9].packet.state == UM_STATE_LOST);
    CHECK(want[10].packet.scores[UM_SCORE_APPEARANCE] > .99f); /* with the last good frame */
    CHECK_NEAR(want[5].packet.scores[UM_SCORE_DEPTH], 1, 1e-2);
    CHECK_NEAR(want[6].packet.scores[UM_SCORE_DEPTH], .5, 2e-2);
    CHECK(isnan(want[10].packet.scores[UM_SCORE_DEPTH]));
    for (int k = 0; k < (SANITIZED ? 1 : WAYS); k++) {
        run_steady(&way[k], got, FRAMES);
        for (int i = 0; i < FRAMES; i++) {
            const um_packet *a = &want[i].packet, *b = &got[i].packet;
            CHECK(a->state == b->state && a->tag == b->tag && a->reason == b->reason);
            CHECK(a->detected == b->detected && a->score == b->score);
            CHECK_MSG(memcmp(a->scores, b->scores, sizeof a->scores) == 0, "way %d, frame %d", k,
                      i);
            CHECK(memcmp(a->box, b->box, sizeof a->box) == 0 || !a->has_box);
            CHECK_EQ(differing(want[i].mask, got[i].mask, W * H), 0);
        }
    }
}

/* A score below conf, not far: the mask before is shown once more, as stale; the next time all is
 * lost. */
TEST(a_miss_shows_the_mask_before)
{
    static uint8_t before[W * H], after[W * H];
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_AUTO, 1);
    um_pipeline *p = fixture_pipeline(&s);
    const um_packet *k = NULL;
    for (int i = 0; i < 8; i++) {
        um_frame *f = steady_frame(i);
        CHECK_OK(um_pipeline_change(p, &(float){i == 3 || i >= 5 ? 1 : .5f}, NULL, NULL));
        CHECK_OK(pass(p, f, &k));
        um_frame_unref(&f);
        CHECK_EQ(k->state, i < 2   ? UM_STATE_RELOCALIZING
                           : i < 6 ? UM_STATE_VISIBLE
                                   : UM_STATE_LOST);
        CHECK_EQ(k->tag, i < 2 || i > 5     ? UM_TAG_WITHHELD
                         : i == 3 || i == 5 ? UM_TAG_STALE
                                            : UM_TAG_FRESH);
        um_packet_mask(k, i % 2 ? after : before, 1);
        if (k->tag == UM_TAG_STALE) {
            CHECK(k->reason == UM_REASON_NOT_FOUND && k->has_mask && k->mask_area_px > 0);
            CHECK_EQ(differing(before, after, W * H), 0);
            CHECK(isnan(k->scores[UM_SCORE_COHERENCE]) && k->score < 1);
        }
        CHECK(k->state != UM_STATE_LOST || (!k->has_mask && k->objects == 0));
    }
    um_pipeline_close(&p);
}

TEST(a_frozen_frame_is_stale)
{
    um_pipeline_settings s = tracked(fixture("cpu"), UM_GATE_AUTO, 1);
    um_pipeline *p = fixture_pipeline(&s);
    um_frame *f = steady_frame(0), *other = steady_frame(1), *half = cut(f, 0, 0, W, H / 2 + 80);
    const um_packet *k = NULL;
    for (int i = 0; i < 6; i++) {
        um_frame *copy = cut(f, 0, 0, W, H); /* equal, not the same memory */
        CHECK_OK(pass(p, copy, &k));
        um_frame_unref(&copy);
        CHECK_EQ(k->reason == UM_REASON_FROZEN, i >= 3);
        CHECK_EQ(k->tag, i < 2 ? UM_TAG_WITHHELD : i < 3 ? UM_TAG_FRESH : UM_TAG_STALE);
        CHECK(k->has_mask == (i >= 2));
    }
    CHECK_OK(pass(p, other, &k)); /* one pixel is another */
    CHECK(k->reason == UM_REASON_NONE && k->tag == UM_TAG_FRESH);
    CHECK_OK(pass(p, half, &k)); /* another size: nothing is known of it */
    CHECK(k->state != UM_STATE_VISIBLE && !k->has_mask);
    CHECK(isnan(k->scores[UM_SCORE_COHERENCE]));
    um_frame_unref(&f);
    um_frame_unref(&other);
    um_frame_unref(&half);
    um_pipeline_close(&p);
}

TEST(settings_that_mean_nothing_are_refused)
{
    const struct fixture *f = fixture("cpu");
    um_pipeline *p = NULL;
    um_pipeline_settings s = tracked(f, UM_GATE_AUTO, 1);
    s.segmenter = NULL;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    s = tracked(f, UM_GATE_AUTO, 1);
    s.objects = 2;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    s = tracked(f, UM_GATE_AUTO, 2);
    s.track = 0;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    CHECK(strstr(um_last_error(), "needs track"));
    s = tracked(f, UM_GATE_AUTO, 0);
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    s = tracked(f, UM_GATE_AUTO, 1);
    s.theta_off = .7f; /* above theta_on */
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    s.theta_off = .4f;
    s.theta_cont = NAN;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    s = tracked(f, UM_GATE_SPECULATIVE, 1);
    s.inflight = 3;
    CHECK_OK(um_pipeline_open(&p, &s));
    CHECK_EQ(um_pipeline_inflight(p), 1);
    um_pipeline_close(&p);
}

TEST_MAIN
