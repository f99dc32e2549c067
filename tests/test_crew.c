/* SPDX-License-Identifier: Apache-2.0 */
/* Frames beside each other on a processor: the same packets in the same order, whatever the
 * threads, also where frames are wrong, settings change and the pipeline is closed in the middle.
 */
#include "fixture.h"

#include "base/pool.h"
#include "base/status.h"

#include <string.h>

enum { FRAMES = SANITIZED ? 5 : 9, THREADS = 5 };

/* Small networks on a device of their own. */
static struct fixture open_small(int threads)
{
    struct fixture f = {0};
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.threads = threads;
    s.precision = "fp32";
    if (um_device_open(&f.dev, &s) != UM_OK ||
        um_detector_open(&f.detector, f.dev, DETECTOR_FILE, OF_SIZE(256)) != UM_OK ||
        um_segmenter_open(&f.segmenter, f.dev, SEGMENTER_FILE, 64, NULL) != UM_OK)
        fixture_die("small networks");
    return f;
}

static um_pipeline_settings settings_of(const struct fixture *f, int inflight)
{
    um_pipeline_settings s = fixture_settings(f);
    s.conf = 0;
    s.inflight = inflight;
    return s;
}

/* Frame i of a stream in which nothing repeats soon; every third has another size. */
static um_frame *frame_at(int i)
{
    um_frame *whole = golden_frame(i % 6), *f = cut(whole, 8 * i, 10, i % 3 ? 260 : 200, 300);
    f->id = (uint64_t)(40 + i);
    f->ts = 1e9 + i;
    f->has_ts = 1;
    um_frame_unref(&whole);
    return f;
}

/* The packet as text without what depends on the clock; to free(). */
static char *told(const um_packet *packet)
{
    char *line = NULL;
    um_packet *copy = NULL;
    const um_object *objects[UM_OBJECTS_MAX];
    for (int i = 0; i < packet->objects; i++)
        objects[i] = um_packet_object(packet, i);
    if (um_packet_create(&copy, packet, objects, packet->objects) != UM_OK)
        fixture_die("copy");
    copy->ms = (um_stage_times){0};
    copy->latency_ms = 0;
    if (um_packet_json(copy, &line) != UM_OK)
        fixture_die("line");
    const um_packet *drop = copy;
    um_packet_unref(&drop);
    return line;
}

/* All frames through a pipeline, as many in flight as it takes. */
static void run_all(const um_pipeline_settings *s, char *line[FRAMES])
{
    um_pipeline *p = fixture_pipeline(s);
    for (int sent = 0, received = 0; received < FRAMES;) {
        um_frame *f = frame_at(sent);
        um_status st = sent < FRAMES ? um_pipeline_send(p, &f) : UM_AGAIN;
        CHECK(st == UM_AGAIN || f == NULL);
        um_frame_unref(&f);
        if (st == UM_OK) {
            sent++;
            continue;
        }
        CHECK_EQ(st, UM_AGAIN);
        const um_packet *k = NULL;
        CHECK_OK(um_pipeline_receive(p, &k));
        line[received++] = told(k);
    }
    um_pipeline_close(&p);
}

static void check_ways(const um_pipeline_settings *s, char *const want[FRAMES])
{
    for (int inflight = 2; inflight <= THREADS; inflight += SANITIZED ? 3 : 1) {
        char *got[FRAMES];
        um_pipeline_settings beside = *s;
        beside.inflight = inflight;
        run_all(&beside, got);
        for (int i = 0; i < FRAMES; i++) {
            CHECK_STR(got[i], want[i]);
            free(got[i]);
        }
    }
}

TEST(packets_are_the_same_and_in_order)
{
    struct fixture f = open_small(THREADS);
    um_pipeline_settings s = settings_of(&f, 1);
    for (int kind = 0; kind < 5; kind += SANITIZED ? 2 : 1) {
        char *want[FRAMES];
        s = settings_of(&f, 1);
        s.objects = kind == 1 ? 3 : 1;
        s.sam_as_numpy = kind == 2 ? UM_MASK_HOST : UM_MASK_DEVICE;
        s.gate = kind == 3 ? UM_GATE_SPECULATIVE : UM_GATE_AUTO;
        s.mask_clean = kind == 3;
        if (kind == 4)
            s.segmenter = NULL;
        run_all(&s, want);
        check_ways(&s, want);
        for (int i = 0; i < FRAMES; i++)
            free(want[i]);
    }
    fixture_close(&f);
}

TEST(what_depends_on_the_frame_before_is_one_at_a_time)
{
    struct fixture f = open_small(3);
    um_pipeline_settings s = settings_of(&f, UM_INFLIGHT_MAX);
    um_pipeline *p = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(p), 3); /* one for each thread */
    uint64_t three = um_pipeline_device_bytes(p);
    um_pipeline_close(&p);
    s.inflight = 1;
    p = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(p), 1);
    CHECK(um_pipeline_device_bytes(p) < three); /* each has an arena, all have the same weights */
    CHECK(3 * um_pipeline_device_bytes(p) > three);
    um_pipeline_close(&p);
    s.inflight = 2;
    s.track = 1;
    p = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(p), 1);
    um_pipeline_close(&p);
    s.track = 0;
    s.dump = 1;
    p = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(p), 1);
    um_pipeline_close(&p);
    um_detector_settings set;
    um_detector_settings_default(&set);
    set.input_width = set.input_height = 256;
    set.gain = "auto"; /* of an image in which nothing counts it is the gain before */
    um_detector_close(&f.detector);
    CHECK_OK(um_detector_open(&f.detector, f.dev, DETECTOR_FILE, &set));
    s = settings_of(&f, 2);
    p = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(p), 1);
    um_pipeline_close(&p);
    fixture_close(&f);
}

static uint64_t told_frame[8];
static int told_lines;

static void tell(void *ctx, const char *line)
{
    const char *id = strstr(line, "\"frame_id\": ");
    (void)ctx;
    if (id && told_lines < 8)
        told_frame[told_lines++] = strtoull(id + strlen("\"frame_id\": "), NULL, 10);
}

/* A threshold holds for what is sent from then on, not for what is in flight. */
TEST(settings_change_between_frames)
{
    struct fixture f = open_small(4);
    um_pipeline_settings s = settings_of(&f, 4);
    s.kpi = tell;
    um_pipeline *p = fixture_pipeline(&s);
    CHECK_OK(um_pipeline_prepare(p, 260, 300, 1));
    CHECK_EQ(um_pipeline_prepare(p, 0, 300, 1), UM_EINVAL);
    for (int i = 0; i < 8; i++) {
        um_frame *frame = frame_at(1);
        frame->id = (uint64_t)i;
        CHECK_OK(um_pipeline_change(p, &(float){i % 2 ? 1 : 0}, NULL, NULL));
        CHECK_OK(um_pipeline_send(p, &frame));
        if (i % 4 < 3)
            continue;
        um_frame *more = frame_at(2);
        CHECK_EQ(um_pipeline_send(p, &more), UM_AGAIN);
        um_frame_unref(&more);
        for (int k = i - 3; k <= i; k++) {
            const um_packet *packet = NULL;
            CHECK_OK(um_pipeline_receive(p, &packet));
            CHECK_EQ(packet->frame_id, (uint64_t)k);
            CHECK_EQ(packet->state, k % 2 ? UM_STATE_LOST : UM_STATE_VISIBLE);
        }
    }
    CHECK_EQ(told_lines, 4);
    for (int i = 0; i < told_lines; i++)
        CHECK_EQ(told_frame[i], (uint64_t)(2 * i));
    um_pipeline_close(&p);
    fixture_close(&f);
}

/* A frame that is wrong is refused when it is sent, and the turn stays. */
TEST(wrong_frames_are_refused_at_once)
{
    struct fixture f = open_small(2);
    um_pipeline_settings s = settings_of(&f, 2);
    memcpy(s.crop, (int[]){10, 10, 180, 280}, sizeof s.crop);
    um_pipeline *p = fixture_pipeline(&s);
    const um_packet *k = NULL;
    for (int i = 0; i < 5; i++) {
        um_frame *small = new_frame(100, 100, 1), *mine = small, *good = frame_at(i);
        CHECK_EQ(um_pipeline_send(p, &mine), UM_EINVAL);
        CHECK(mine == small && strstr(um_last_error(), "crop"));
        um_frame_unref(&mine);
        CHECK_OK(um_pipeline_send(p, &good));
        if (i % 2 == 0)
            continue;
        CHECK_OK(um_pipeline_receive(p, &k));
        CHECK_EQ(k->frame_id, (uint64_t)(39 + i));
        CHECK_OK(um_pipeline_receive(p, &k));
        CHECK_EQ(k->frame_id, (uint64_t)(40 + i));
    }
    um_pipeline_close(&p); /* with a frame in flight */
    CHECK(p == NULL);
    fixture_close(&f);
}

/* Opened and closed, frames sent and not, in all stages of being done. */
TEST(closing_waits_for_what_is_being_done)
{
    struct fixture f = open_small(3);
    um_pipeline_settings s = settings_of(&f, 3);
    for (int n = 0; n <= 3; n++) {
        um_pipeline *p = fixture_pipeline(&s);
        for (int i = 0; i < n; i++) {
            um_frame *frame = frame_at(i);
            CHECK_OK(um_pipeline_send(p, &frame));
        }
        const um_packet *k = NULL;
        if (n == 3)
            CHECK_OK(um_pipeline_receive(p, &k));
        k = k ? um_packet_ref(k) : NULL;
        um_pipeline_close(&p);
        CHECK(!k || k->frame_id == 40); /* outlives it */
        um_packet_unref(&k);
    }
    fixture_close(&f);
}

/* What begins a stream takes nothing of the frames before, whoever did them. */
TEST(frames_beside_each_other_are_forgotten)
{
    struct fixture f = open_small(THREADS);
    um_pipeline_settings s = settings_of(&f, 2);
    s.reuse = 1;
    um_pipeline *p = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(p), 2);
    for (int i = 0; i < 6; i++) {
        const um_packet *k = NULL;
        um_frame *frame = frame_at(1);
        if (i == 4)
            CHECK_OK(um_pipeline_forget(p));
        CHECK_OK(um_pipeline_pass(p, &frame, &k));
        CHECK_MSG(k->reused == (i == 2 || i == 3), "frame %d: reused %d", i, k->reused);
        um_packet_unref(&k);
    }
    um_pipeline_close(&p);
    fixture_close(&f);
}

/* A part of a pool is its thread's own; other threads have the pool. */
TEST(a_part_of_a_pool)
{
    um_pool *pool = NULL, *part = NULL;
    CHECK_OK(um_pool_open(&pool, 4));
    CHECK_OK(um_pool_part(&part, pool, 2));
    CHECK_EQ(um_pool_threads(part), 2);
    CHECK(um_pool_take(pool) == pool);
    um_pool_bind(part);
    um_pool *mine = um_pool_take(pool), *again = um_pool_take(pool);
    CHECK(mine == part && again == part);
    um_pool_give(again);
    um_pool_give(mine);
    um_pool_bind(NULL);
    um_pool *alone = um_pool_take(pool); /* the pool itself is taken */
    CHECK(alone != pool && alone != part);
    um_pool_give(alone);
    um_pool_give(pool);
    um_pool_close(&part);
    um_pool_close(&pool);
}

TEST_MAIN
