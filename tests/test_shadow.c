/* SPDX-License-Identifier: Apache-2.0 */
/* Legacy host mode beside a pipeline that keeps masks on the device: what agrees changes nothing,
 * what diverges is replaced, and nothing is lost on the way. */
#include "fixture.h"
#include "pipeline/pipeline.h"
#include "ultramotion/monitor.h"
#include "ultramotion/run.h"

#include "base/mem.h"

static char lines[4096];

static void keep(void *ctx, const char *line)
{
    (void)ctx;
    size_t n = strlen(lines);
    snprintf(lines + n, sizeof lines - n, "%s\n", line);
}

static um_pipeline_settings settings_of(const char *device, um_gate_mode gate, int every)
{
    const struct fixture *f = tiny(device);
    um_pipeline_settings s = fixture_settings(f);
    s.gate = gate;
    s.shadow_every = every;
    s.kpi = keep;
    lines[0] = 0;
    return s;
}

static um_detector *open_with_gain(const char *device, const char *gain)
{
    um_detector *d = NULL;
    um_detector_settings s;
    um_detector_settings_default(&s);
    s.gain = gain;
    if (um_detector_open(&d, tiny(device)->dev, DETECTOR_FILE, &s) != UM_OK)
        fixture_die(gain);
    return d;
}

static um_frame *frame_of(int i) /* all see the structure */
{
    um_frame *f = golden_frame(0);
    f->id = (uint64_t)i;
    f->pixels[0] = (uint8_t)i; /* not frozen */
    return f;
}

static um_shadow_counts counts_of(um_pipeline *p)
{
    um_shadow_counts c = {.struct_size = sizeof c};
    if (um_pipeline_shadow(p, &c) != UM_OK)
        fixture_die("shadow");
    return c;
}

static int count(const char *word)
{
    int n = 0;
    for (const char *at = lines; (at = strstr(at, word)); at++)
        n++;
    return n;
}

/* The result of frame i, whose packet stays valid until the next. */
static const um_packet *see(um_pipeline *p, int i)
{
    const um_packet *packet = NULL;
    um_frame *f = frame_of(i);
    if (pass(p, f, &packet) != UM_OK)
        packet = NULL;
    um_frame_unref(&f);
    return packet;
}

TEST_ON_DEVICES(modes_that_agree_change_nothing)
{
    for (int gate = UM_GATE_SPECULATIVE; gate <= UM_GATE_SYNC; gate++) {
        um_pipeline_settings with = settings_of(device, (um_gate_mode)gate, 2), without = with;
        without.shadow_every = 0;
        um_pipeline *p = fixture_pipeline(&with), *plain = fixture_pipeline(&without);
        for (int i = 0; i < 5; i++) {
            const um_packet *a = see(p, i), *b = see(plain, i);
            CHECK(a && b && a->has_mask && !a->as_numpy);
            CHECK_EQ(a->mask_area_px, b->mask_area_px);
            CHECK_EQ(a->transfers.up + a->transfers.down, b->transfers.up + b->transfers.down);
            CHECK(memcmp(a->bits, b->bits, (size_t)um_packet_row_bytes(a) * (size_t)a->crop[3]) ==
                  0);
        }
        um_shadow_counts c = counts_of(p);
        CHECK_EQ(c.compared, 3);
        CHECK_EQ(c.disagreed, 0);
        CHECK(!c.fell_back && !c.failed && c.least_dice == 1);
        CHECK_EQ(um_pipeline_shadow(plain, &c), UM_AGAIN);
        um_pipeline_close(&p);
        um_pipeline_close(&plain);
    }
}

/* In a live run newer frames take the place of others, and a caller's own may all be number 0. */
TEST_ON_DEVICES(the_nth_frame_is_the_nth_that_comes)
{
    static const int step[] = {2, 0};
    for (int k = 0; k < 2; k++) {
        um_pipeline_settings s = settings_of(device, UM_GATE_AUTO, 2);
        um_pipeline *p = fixture_pipeline(&s);
        for (int i = 0; i < 5; i++)
            CHECK(see(p, 1 + step[k] * i));
        CHECK_EQ(counts_of(p).compared, 3);
        um_pipeline_close(&p);
    }
}

TEST_ON_DEVICES(a_mask_that_diverges_is_replaced)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_AUTO, 2);
    um_pipeline *p = fixture_pipeline(&s);
    CHECK(see(p, 0));
    um_pipeline_settings dark = p->shadow->legacy->set;
    dark.detector = open_with_gain(device, "0.1"); /* it sees nothing any more */
    um_pipeline_close(&p->shadow->legacy);
    CHECK_OK(um_pipeline_open(&p->shadow->legacy, &dark));
    um_detector_close(&dark.detector);
    CHECK(see(p, 1));
    const um_packet *packet = see(p, 2);
    CHECK(packet && packet->as_numpy && packet->has_mask && packet->frame_id == 2);
    packet = see(p, 3);
    CHECK(packet && packet->as_numpy && packet->has_mask);
    um_shadow_counts c = counts_of(p);
    CHECK_EQ(c.compared, 2);
    CHECK_EQ(c.disagreed, 1);
    CHECK(c.fell_back && c.fell_at == 2);
    CHECK_EQ(count("\"shadow_fell_back\""), 1);               /* once */
    CHECK_OK(um_pipeline_change(p, &(float){1}, NULL, NULL)); /* who makes the packets obeys */
    packet = see(p, 4);
    CHECK(packet && packet->state == UM_STATE_LOST);
    um_pipeline_close(&p);
}

TEST_ON_DEVICES(masks_are_held_against_a_limit)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_AUTO, 1);
    um_pipeline *p = fixture_pipeline(&s);
    const um_packet *packet = NULL;
    p->shadow->limit = 1.5f; /* nothing is that much alike */
    packet = see(p, 0);
    CHECK(packet && packet->as_numpy && counts_of(p).fell_back);
    um_pipeline_close(&p);
}

/* What was asserted holds for who makes the packets, from the frame on with which that changes. */
/* Without memory for what takes over, that frame ends with an error, and the next one tries again.
 */
TEST(there_may_be_no_memory_to_fall_back)
{
    bool fell = false;
    for (uint64_t k = 1; !fell; k += 1 + k / 4) {
        um_pipeline_settings s = settings_of("cpu", UM_GATE_AUTO, 1);
        um_pipeline *p = fixture_pipeline(&s);
        const um_packet *packet = NULL;
        um_frame *f = frame_of(0);
        p->shadow->limit = 1.5f;
        CHECK_OK(um_pipeline_send(p, &f));
        um_mem_fail_at(k);
        um_status st = um_pipeline_receive(p, &packet);
        um_mem_fail_at(0);
        fell = counts_of(p).fell_back;
        CHECK(st == UM_OK || st == UM_ENOMEM);
        packet = see(p, 1);
        CHECK(packet && packet->as_numpy && packet->has_mask);
        um_pipeline_close(&p);
    }
}

TEST(assertions_outlive_the_change)
{
    um_pipeline_settings s = settings_of("guard", UM_GATE_AUTO, 2);
    s.assert_up = s.assert_down = 1;
    um_pipeline *p = fixture_pipeline(&s);
    p->shadow->limit = -1; /* anything is that much alike */
    CHECK(see(p, 0) && !counts_of(p).fell_back);
    CHECK(see(p, 1));
    p->shadow->limit = 1.5f;
    for (int i = 2; i < 4; i++) {
        um_frame *f = frame_of(i);
        const um_packet *packet = NULL;
        CHECK_EQ(pass(p, f, &packet), UM_EASSERT);
        CHECK(packet && packet->as_numpy && packet->transfers.down > 1);
        um_frame_unref(&f);
    }
    um_pipeline_close(&p);
}

/* The device's masks hold no numbers; the host's do. */
TEST_ON_DEVICES(numbers_that_only_legacy_mode_has_are_taken)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_AUTO, 1000);
    um_pipeline *p = fixture_pipeline(&s);
    um_frame *f = frame_of(1);
    CHECK(see(p, 0));
    const um_packet *packet = see(p, 1);
    CHECK(packet && !packet->as_numpy);
    um_set_error(UM_ENUMERIC, "not finite");
    packet = NULL;
    CHECK_OK(um_shadow_look(p->shadow, f, UM_ENUMERIC, &packet));
    CHECK(packet && packet->as_numpy && packet->has_mask);
    um_shadow_counts c = counts_of(p);
    CHECK(c.fell_back && c.fell_at == 1 && c.least_dice == 0);
    packet = see(p, 2);
    CHECK(packet && packet->as_numpy);
    um_frame_unref(&f);
    um_pipeline_close(&p);
}

TEST_ON_DEVICES(frames_in_flight_are_made_again_in_their_order)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_SPECULATIVE, 4);
    s.inflight = 3;
    um_pipeline *p = fixture_pipeline(&s);
    const um_packet *packet = NULL;
    int sent = 0, received = 0;
    while (received < 9) {
        um_frame *f = frame_of(sent + 1); /* after the first, 5 is compared */
        um_status st = sent < 9 ? um_pipeline_send(p, &f) : UM_AGAIN;
        um_frame_unref(&f);
        if (st == UM_OK) {
            sent++;
            continue;
        }
        CHECK_EQ(st, UM_AGAIN);
        CHECK_OK(um_pipeline_receive(p, &packet));
        CHECK_EQ((int)packet->frame_id, ++received);
        CHECK_EQ(packet->as_numpy, received >= 5);
        p->shadow->limit = 1.5f;
    }
    CHECK_EQ(um_pipeline_receive(p, &packet), UM_AGAIN);
    um_pipeline_close(&p);
}

/* What is changed while frames are in flight holds for those that are sent then, on both sides. */
TEST_ON_DEVICES(what_is_changed_holds_for_the_same_frames)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_SPECULATIVE, 1);
    s.inflight = 3;
    um_pipeline *p = fixture_pipeline(&s);
    const um_packet *packet = NULL;
    int n = um_pipeline_inflight(p);
    for (int i = 0; i <= 2 * n; i++) {
        if (i >= n) {
            CHECK_OK(um_pipeline_receive(p, &packet));
            CHECK_EQ(packet->state, i < 2 * n ? UM_STATE_VISIBLE : UM_STATE_LOST);
            CHECK(!packet->as_numpy);
        }
        if (i == n)
            CHECK_OK(um_pipeline_change(p, &(float){1}, NULL, NULL));
        um_frame *f = frame_of(i);
        CHECK_OK(um_pipeline_send(p, &f));
    }
    um_shadow_counts c = counts_of(p);
    CHECK(c.compared == (uint64_t)n + 1 && !c.disagreed && !c.fell_back);
    um_pipeline_close(&p);
}

TEST_ON_DEVICES(what_is_tracked_is_compared_and_goes_on)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_AUTO, 1);
    const um_packet *packet = NULL;
    s.track = 1;
    s.theta_on = s.theta_cont = .02f; /* few would be VISIBLE */
    s.theta_off = .01f;
    um_pipeline *p = fixture_pipeline(&s);
    uint64_t fresh = 0;
    for (int i = 0; i < 8; i++) {
        CHECK((packet = see(p, i)) != NULL);
        fresh += packet->tag == UM_TAG_FRESH;
    }
    um_shadow_counts c = counts_of(p);
    CHECK(fresh > 0 && fresh < 8);
    CHECK_EQ(c.compared, fresh); /* what is withheld is compared with nothing */
    CHECK(!c.disagreed && !c.fell_back);
    um_set_error(UM_ENUMERIC, "not finite");
    um_frame *f = frame_of(8);
    CHECK_OK(um_shadow_look(p->shadow, f, UM_ENUMERIC, &packet));
    packet = see(p, 9);
    CHECK(packet && packet->as_numpy && packet->has_scores);
    um_frame_unref(&f);
    um_pipeline_close(&p);
}

/* A stream changes its gain slowly; a shadow that sees every third image of it takes that. */
TEST_ON_DEVICES(what_is_tracked_has_one_gain)
{
    um_pipeline_settings s = settings_of(device, UM_GATE_AUTO, 3);
    s.detector = open_with_gain(device, "auto");
    s.track = 1;
    um_pipeline *p = fixture_pipeline(&s);
    for (int i = 0; i < 7; i++) {
        const um_packet *packet = NULL;
        um_frame *f = frame_of(i);
        for (size_t k = 0; i > 0 && k < (size_t)f->height * (size_t)f->stride; k++)
            f->pixels[k] /= 3;
        CHECK_OK(pass(p, f, &packet));
        CHECK_MSG(packet->gain < 2 && !packet->as_numpy, "frame %d: %g", i, (double)packet->gain);
        um_frame_unref(&f);
    }
    um_shadow_counts c = counts_of(p);
    CHECK(c.compared == 2 && !c.disagreed && !c.fell_back);
    um_pipeline_close(&p);
    um_detector_close(&s.detector);
}

TEST(a_runs_monitor_hears_of_it)
{
    um_pipeline_settings s = settings_of("cpu", UM_GATE_AUTO, 2);
    um_pipeline *p = fixture_pipeline(&s);
    um_source *source = NULL;
    um_monitor *monitor = NULL;
    um_run_settings run;
    um_run_counts counts = {.struct_size = sizeof counts};
    char *text = NULL;
    CHECK_OK(um_source_open(&source, "phantom:seed=3,frames=5", NULL));
    CHECK_OK(um_monitor_open(&monitor));
    um_run_settings_default(&run);
    run.pipeline = p;
    run.source = source;
    run.monitor = monitor;
    CHECK_OK(um_run_frames(&run, &counts));
    CHECK_OK(um_monitor_json(monitor, &text));
    CHECK_MSG(strstr(text, "\"shadow\":{\"compared\":3,\"disagreed\":0,\"failed\":0,"
                           "\"least_dice\":1,\"fell_back_at\":null}"),
              "%s", text);
    um_free(text);
    um_monitor_close(&monitor);
    um_source_close(&source);
    um_pipeline_close(&p);
}

TEST(shadows_that_mean_nothing_are_refused)
{
    um_pipeline *p = NULL;
    um_pipeline_settings s = settings_of("cpu", UM_GATE_AUTO, -1);
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    s.shadow_every = 3;
    s.sam_as_numpy = UM_MASK_HOST;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    CHECK(!p && strstr(um_last_error(), "on the host already"));
    s.sam_as_numpy = UM_MASK_AUTO;
    s.segmenter = NULL;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    CHECK(strstr(um_last_error(), "needs") || strstr(um_last_error(), "want frames"));
}

TEST_MAIN
