/* SPDX-License-Identifier: Apache-2.0 */
/* Runs: a source, a pipeline and sinks with a thread each, and that they always end. */
#include "device/backend.h"
#include "fixture.h"
#include "scratch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "monitor/times.h"
#include "stream/lag.h"
#include "tools/summary.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SMALL ",width=64,height=80"

/* ---- waiting for something to happen, and for nothing else ---- */

enum { PATIENCE_S = 120 };

struct event {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count; /* guarded by lock */
};
#define EVENT                                                  \
    {                                                          \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 \
    }

static void event_add(struct event *e)
{
    pthread_mutex_lock(&e->lock);
    e->count++;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static int event_count(struct event *e)
{
    pthread_mutex_lock(&e->lock);
    int count = e->count;
    pthread_mutex_unlock(&e->lock);
    return count;
}

/* Until it has happened n times. */
static bool event_wait(struct event *e, int n)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&e->lock);
    while (e->count < n && rc == 0)
        rc = pthread_cond_timedwait(&e->changed, &e->lock, &until);
    bool happened = e->count >= n;
    pthread_mutex_unlock(&e->lock);
    return happened;
}

static double seconds_since(uint64_t begun)
{
    return 1e-9 * (double)(um_clock_ns() - begun);
}

/* What a run that must end may take, and what a sanitizer makes of it, for which a frame in flight
 * takes seconds. */
static const double AT_ONCE_S = SANITIZED ? 20 : 2;

/* ---- pipelines ---- */

/* Always VISIBLE. */
static um_pipeline_settings pipeline_settings(const struct fixture *f)
{
    um_pipeline_settings s = fixture_settings(f);
    s.conf = 0;
    return s;
}

static um_pipeline *tiny_pipeline(const char *device)
{
    um_pipeline_settings s = pipeline_settings(tiny(device));
    return fixture_pipeline(&s);
}

/* ---- from a source into sinks ---- */

struct heard {
    int packets, problems, truths;
    char last[512];
};

static void on_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                      const um_truth *truth)
{
    struct heard *h = ctx;
    h->packets += packet->frame_id == frame->id;
    h->truths += truth != NULL;
}

static void on_problem(void *ctx, const char *text)
{
    struct heard *h = ctx;
    h->problems++;
    snprintf(h->last, sizeof h->last, "%s", text);
}

/* A run of a source into sinks. */
static um_status run_source(const char *device, const char *spec, const char *const *sink,
                            int sinks, const um_run_settings *how, um_run_counts *stats,
                            struct heard *heard)
{
    um_run_settings s = *how;
    um_source *source = NULL;
    um_sink *open[4] = {NULL};
    *heard = (struct heard){0};
    if (um_source_open(&source, spec, NULL) != UM_OK)
        fixture_die(spec);
    for (int i = 0; i < sinks; i++)
        if (um_sink_open(&open[i], sink[i], NULL) != UM_OK)
            fixture_die(sink[i]);
    s.pipeline = tiny_pipeline(device);
    s.source = source;
    s.sinks = open;
    s.n_sinks = sinks;
    s.on_packet = on_packet;
    s.on_problem = on_problem;
    s.ctx = heard;
    um_status st = um_run_frames(&s, stats);
    char text[512];
    snprintf(text, sizeof text, "%s", um_last_error());
    for (int i = 0; i < sinks; i++)
        um_sink_close(&open[i]);
    um_source_close(&source);
    um_pipeline_close(&s.pipeline);
    return st == UM_OK ? st : um_set_error(st, text);
}

static um_run_settings run_settings(void)
{
    um_run_settings s;
    um_run_settings_default(&s);
    return s;
}

static int lines_of(const char *path)
{
    FILE *f = fopen(path, "rb");
    int n = 0;
    for (int c; f && (c = fgetc(f)) != EOF;)
        n += c == '\n';
    if (f)
        fclose(f);
    return n;
}

TEST_ON_DEVICES(run_delivers_every_frame)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    char sink[300];
    snprintf(sink, sizeof sink, "jsonl:%s", in_scratch("all.jsonl"));
    const char *const sinks[] = {sink, "null:"};
    CHECK_OK(run_source(device, "phantom:seed=3,frames=12,width=64,height=80", sinks, 2, &how,
                        &stats, &heard));
    CHECK(stats.frames == 12 && stats.visible == 12 && !stats.lost && !stats.unreadable &&
          !stats.replaced);
    CHECK(heard.packets == 12 && heard.truths == 12 && heard.problems == 0);
    CHECK_EQ(lines_of(in_scratch("all.jsonl")), 12);
    scratch_close();
}

TEST_ON_DEVICES(run_names_a_failing_sink_and_the_others_go_on)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    char sink[300];
    snprintf(sink, sizeof sink, "jsonl:%s", in_scratch("rest.jsonl"));
    const char *const sinks[] = {"null:", "jsonl:/dev/full", sink};
    if (access("/dev/full", W_OK) != 0)
        SKIP("no /dev/full");
    CHECK_EQ(run_source(device, "phantom:seed=3,frames=12,width=64,height=80", sinks, 3, &how,
                        &stats, &heard),
             UM_EIO);
    CHECK(strstr(um_last_error(), "1 of 3"));
    CHECK_EQ(stats.sinks_failed, 1);
    CHECK_EQ(heard.problems, 1);
    CHECK_MSG(strstr(heard.last, "/dev/full"), "%s", heard.last);
    CHECK_EQ(stats.frames, 12);
    CHECK_EQ(lines_of(in_scratch("rest.jsonl")), 12);
    scratch_close();
}

TEST_ON_DEVICES(run_stops_when_no_sink_is_left)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    const char *const sinks[] = {"jsonl:/dev/full", "jsonl:/dev/full"};
    if (access("/dev/full", W_OK) != 0)
        SKIP("no /dev/full");
    CHECK_EQ(run_source(device, "phantom:seed=3,frames=500,width=64,height=80", sinks, 2, &how,
                        &stats, &heard),
             UM_EIO);
    CHECK_EQ(stats.sinks_failed, 2);
    CHECK_EQ(heard.problems, 2);
    CHECK(stats.frames >= 1 && stats.frames < 20); /* no more than the queues hold */
}

/* A run that ends early takes what it has sent out of the pipeline: the next one gets its own. */
TEST_ON_DEVICES(a_run_that_ends_early_leaves_nothing_in_flight)
{
    um_pipeline_settings p = pipeline_settings(tiny(device));
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard = {0};
    um_sink *sink = NULL;
    if (access("/dev/full", W_OK) != 0)
        SKIP("no /dev/full");
    p.inflight = 2;
    how.pipeline = fixture_pipeline(&p);
    how.n_sinks = 1;
    how.sinks = &sink;
    how.on_packet = on_packet;
    how.ctx = &heard;
    for (int run = 0; run < 2; run++, how.n_sinks = 0) {
        heard = (struct heard){0};
        CHECK_OK(um_source_open(&how.source, "phantom:seed=3,frames=40" SMALL, NULL));
        CHECK_OK(um_sink_open(&sink, "jsonl:/dev/full", NULL));
        CHECK_EQ(um_run_frames(&how, &stats), run ? UM_OK : UM_EIO);
        um_sink_close(&sink);
        um_source_close(&how.source);
    }
    CHECK_EQ(stats.frames, 40);
    CHECK_EQ(heard.packets, 40);
    um_pipeline_close(&how.pipeline);
}

TEST(a_run_ends_where_somebody_else_uses_its_pipeline)
{
    um_run_settings how = run_settings();
    um_frame *f = tiny_frame(64, 80, 1);
    how.pipeline = tiny_pipeline("cpu");
    CHECK_OK(um_pipeline_send(how.pipeline, &f));
    CHECK_OK(um_source_open(&how.source, "phantom:seed=3,frames=2" SMALL, NULL));
    CHECK_EQ(um_run_frames(&how, NULL), UM_EINVAL);
    CHECK(strstr(um_last_error(), "not this run's"));
    um_source_close(&how.source);
    um_pipeline_close(&how.pipeline);
}

/* A folder with an image, a file that only looks like one, and two more images. */
static const char *mixed_folder(void)
{
    static const char *const names[] = {"frame_0.png", "frame_1.png", "frame_2.png", "frame_3.png"};
    for (int i = 0; i < 4; i++) {
        um_frame *f = tiny_frame(48 + i, 40, 1);
        if (um_image_write_png(in_scratch(names[i]), f->pixels, f->width, f->height, 1) != UM_OK)
            fixture_die(names[i]);
        um_frame_unref(&f);
    }
    FILE *f = fopen(in_scratch(names[1]), "wb");
    if (!f || fputs("no image", f) == EOF || fclose(f) != 0)
        fixture_die(names[1]);
    return scratch;
}

TEST_ON_DEVICES(run_counts_unreadable_frames)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    CHECK_OK(run_source(device, mixed_folder(), NULL, 0, &how, &stats, &heard));
    CHECK_EQ(stats.frames, 3);
    CHECK_EQ(stats.unreadable, 1);
    CHECK(heard.packets == 3 && heard.truths == 0 && heard.problems == 1);
    CHECK_MSG(strstr(heard.last, "frame_1.png"), "%s", heard.last);
    scratch_close();
}

TEST_ON_DEVICES(run_stops_at_an_unreadable_frame_when_strict)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    how.strict = 1;
    CHECK_EQ(run_source(device, mixed_folder(), NULL, 0, &how, &stats, &heard), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "frame_1.png"), "%s", um_last_error());
    CHECK_EQ(stats.frames, 1);
    CHECK_EQ(stats.unreadable, 1);
    scratch_close();
}

/* Whatever the pace, each frame either gives a packet or is counted as replaced. */
TEST_ON_DEVICES(run_in_real_time_counts_what_it_replaces)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    how.realtime = 1;
    CHECK_OK(run_source(device, "phantom:seed=3,frames=40,width=64,height=80", NULL, 0, &how,
                        &stats, &heard));
    CHECK_EQ(stats.frames + stats.replaced, 40);
    CHECK(stats.frames >= 1);
}

/* ---- a run whose device is lost ---- */

/* A kernel that writes behind its output: the guard loses the device over it. */
static void overrun(const struct um_call *call)
{
    memset((char *)call->t[0].data + 16, 1, 8);
}

/* A guard device with a pipeline on it that is lost when `victim` is overrun, before frame `at`. */
struct doomed {
    struct fixture f;
    um_buf *victim;
    struct um_step step;
    um_pipeline *pipeline;
    uint64_t at;
};

static void doomed_open(struct doomed *d, const char *lost_device, uint64_t at, int inflight)
{
    *d = (struct doomed){.f = fixture_open("guard", 1, 256, 64), .at = at};
    um_pipeline_settings s = pipeline_settings(&d->f);
    s.lost_device = lost_device;
    s.inflight = inflight;
    d->pipeline = fixture_pipeline(&s);
    CHECK_OK(um_buf_open(&d->victim, d->f.dev, 16, "victim"));
    d->step = (struct um_step){
        .name = "overrun",
        .kernel = overrun,
        .n = 1,
        .operand = {{.buf = d->victim,
                     .size = 16,
                     .write = true,
                     .view = {.dtype = UM_U8, .h = 1, .w = 1, .c = 16, .ld = 16}}}};
}

static void doomed_close(struct doomed *d)
{
    um_buf_close(&d->victim);
    um_pipeline_close(&d->pipeline);
    fixture_close(&d->f);
}

struct loss {
    struct doomed first;
    struct doomed second;     /* where the run goes on, if it is open: itself lost later */
    um_pipeline *replacement; /* where the run goes on; NULL: it is told that there is nothing */
    uint64_t next;            /* frame expected next */
    int asked;
    char why[512]; /* heard when asked */
    um_status status;
    um_run_counts stats;
};

static void lose_in_time(void *ctx, const um_packet *packet, const um_frame *frame,
                         const um_truth *truth)
{
    struct loss *l = ctx;
    struct doomed *d = l->asked ? &l->second : &l->first;
    CHECK(packet->frame_id == l->next && frame->id == l->next && truth);
    CHECK_STR(packet->device, l->asked && !d->f.dev ? "cpu" : "guard");
    CHECK_STR(packet->lost_device, l->asked ? "guard" : "");
    if (++l->next == d->at && d->f.dev)
        CHECK_OK(um_step_run(d->f.dev, UM_QUEUE_MAIN, &d->step));
}

static um_status replace_lost(void *ctx, um_pipeline **pipeline)
{
    struct loss *l = ctx;
    snprintf(l->why, sizeof l->why, "%s", um_last_error());
    l->asked += *pipeline == l->first.pipeline;
    if (!l->replacement)
        return um_set_error(UM_EUNSUPPORTED, "nowhere to go");
    um_pipeline_close(&l->first.pipeline); /* the run has it still */
    *pipeline = l->replacement;
    return UM_OK;
}

enum { LOST_AT = 5, LOST_OF = 12 };

static void run_lost(struct loss *l, bool replace)
{
    um_run_settings s = run_settings();
    um_sink *sink = NULL;
    char spec[300];
    snprintf(spec, sizeof spec, "jsonl:%s", in_scratch("lost.jsonl"));
    if (um_source_open(&s.source, "phantom:seed=3,frames=12,width=64,height=80", NULL) != UM_OK ||
        um_sink_open(&sink, spec, NULL) != UM_OK)
        fixture_die(spec);
    s.pipeline = l->first.pipeline;
    s.sinks = &sink;
    s.n_sinks = 1;
    s.on_packet = lose_in_time;
    s.on_device_lost = replace ? replace_lost : NULL;
    s.ctx = l;
    l->stats = (um_run_counts){.struct_size = sizeof l->stats};
    l->status = um_run_frames(&s, &l->stats);
    CHECK_OK(um_sink_close(&sink));
    um_source_close(&s.source);
    CHECK_EQ(lines_of(in_scratch("lost.jsonl")), (int)l->next);
    CHECK_EQ(l->stats.frames, l->next);
    scratch_close();
}

static void check_goes_on(int inflight)
{
    struct loss l = {0};
    um_pipeline_settings s = pipeline_settings(tiny("cpu"));
    s.lost_device = "guard";
    doomed_open(&l.first, NULL, LOST_AT, inflight);
    l.replacement = fixture_pipeline(&s);
    run_lost(&l, true);
    CHECK_OK(l.status);
    CHECK(l.asked == 1 && l.next == LOST_OF);
    CHECK_MSG(strstr(l.why, "overrun"), "%s", l.why);
    CHECK(l.stats.device_lost == 1 && l.stats.visible == LOST_OF && !l.stats.unreadable);
    um_pipeline_close(&l.replacement);
    doomed_close(&l.first);
}

TEST(run_goes_on_elsewhere_when_its_device_is_lost)
{
    check_goes_on(1);
}

/* All that was in flight is sent again. */
TEST(run_goes_on_elsewhere_with_frames_in_flight)
{
    check_goes_on(3);
}

TEST(run_ends_when_its_device_is_lost)
{
    struct loss l = {0};
    doomed_open(&l.first, NULL, LOST_AT, 1);
    run_lost(&l, false);
    CHECK_EQ(l.status, UM_EDEVICE);
    CHECK_MSG(strstr(um_last_error(), "overrun"), "%s", um_last_error());
    CHECK(l.next == LOST_AT && l.stats.device_lost == 1);
    doomed_close(&l.first);
}

TEST(run_ends_with_the_reason_of_the_loss_when_nothing_replaces_the_device)
{
    struct loss l = {0};
    doomed_open(&l.first, NULL, LOST_AT, 1);
    run_lost(&l, true);
    CHECK_EQ(l.status, UM_EDEVICE);
    CHECK_MSG(strstr(um_last_error(), "overrun"), "%s", um_last_error());
    CHECK(l.asked == 1 && l.next == LOST_AT && l.stats.device_lost == 1);
    doomed_close(&l.first);
}

TEST(run_ends_at_the_second_loss)
{
    struct loss l = {0};
    doomed_open(&l.first, NULL, LOST_AT, 1);
    doomed_open(&l.second, "guard", LOST_AT + 3, 1);
    l.replacement = l.second.pipeline;
    run_lost(&l, true);
    CHECK_EQ(l.status, UM_EDEVICE);
    CHECK_MSG(strstr(um_last_error(), "overrun"), "%s", um_last_error());
    CHECK(l.asked == 1 && l.next == LOST_AT + 3 && l.stats.device_lost == 2);
    doomed_close(&l.second);
    doomed_close(&l.first);
}

/* ---- the handle ---- */

/* A run that tells of its packets and problems, and what it is made of. */
struct bench {
    um_run *run;
    um_run_settings set;
    um_source *source;
    um_sink *sink[4];
    struct event packets, problems;
    char last[512];
};

static void bench_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                         const um_truth *truth)
{
    struct bench *b = ctx;
    (void)packet, (void)frame, (void)truth;
    event_add(&b->packets);
}

static void bench_problem(void *ctx, const char *text)
{
    struct bench *b = ctx;
    snprintf(b->last, sizeof b->last, "%s", text);
    event_add(&b->problems);
}

static void bench_sink(struct bench *b, const char *spec, const um_sink_settings *set)
{
    if (um_sink_open(&b->sink[b->set.n_sinks], spec, set) != UM_OK)
        fixture_die(spec);
    b->set.n_sinks++;
}

static void bench_init(struct bench *b, const char *device, const char *source)
{
    *b = (struct bench){.packets = EVENT, .problems = EVENT};
    um_run_settings_default(&b->set);
    if (source && um_source_open(&b->source, source, NULL) != UM_OK)
        fixture_die(source);
    if (device) {
        um_pipeline_settings boxes_only = pipeline_settings(tiny(device));
        boxes_only.segmenter = NULL;
        b->set.pipeline = fixture_pipeline(&boxes_only);
    }
    b->set.source = b->source;
    b->set.sinks = b->sink;
    b->set.on_packet = bench_packet;
    b->set.on_problem = bench_problem;
    b->set.ctx = b;
}

static void bench_start(struct bench *b)
{
    if (um_run_open(&b->run, &b->set) != UM_OK || um_run_start(b->run) != UM_OK)
        fixture_die("run");
}

static um_run_counts bench_counts(const struct bench *b)
{
    um_run_counts c = {.struct_size = sizeof c};
    if (um_run_stats(b->run, &c) != UM_OK)
        fixture_die("counts");
    return c;
}

static void bench_finish(struct bench *b)
{
    um_run_close(&b->run);
    for (int i = 0; i < b->set.n_sinks; i++)
        um_sink_close(&b->sink[i]);
    um_source_close(&b->source);
    um_pipeline_close(&b->set.pipeline);
}

TEST_ON_DEVICES(a_run_is_stopped_joined_and_counted)
{
    struct bench b;
    bench_init(&b, device, "phantom:seed=3,frames=0" SMALL);
    CHECK_OK(um_run_open(&b.run, &b.set));
    CHECK_EQ(um_run_join(b.run), UM_EINVAL);
    CHECK(bench_counts(&b).frames == 0 && um_run_fd(b.run) == -1);
    CHECK_OK(um_run_start(b.run));
    CHECK_EQ(um_run_start(b.run), UM_EINVAL);
    CHECK(event_wait(&b.packets, 3));
    um_run_stop(b.run);
    CHECK_OK(um_run_join(b.run));
    CHECK_OK(um_run_join(b.run)); /* as often as one likes */
    um_run_counts c = bench_counts(&b);
    CHECK(c.stopped && c.frames == (uint64_t)b.packets.count && c.frames >= 3);
    CHECK(c.visible == c.frames && !c.left_behind && !c.sinks_failed);
    bench_finish(&b);
}

TEST(a_run_that_is_stopped_before_it_starts_has_no_frames)
{
    struct bench b;
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    CHECK_OK(um_run_open(&b.run, &b.set));
    um_run_stop(b.run);
    CHECK_OK(um_run_start(b.run));
    CHECK_OK(um_run_join(b.run));
    CHECK(bench_counts(&b).frames == 0 && bench_counts(&b).stopped);
    bench_finish(&b);
}

TEST(closing_a_run_ends_it)
{
    struct bench b;
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    bench_sink(&b, "null:", NULL);
    bench_start(&b);
    CHECK(event_wait(&b.packets, 1));
    bench_finish(&b);
    CHECK(b.run == NULL);
    um_run_close(&b.run);
    um_run_close(NULL);
}

static _Atomic(um_run *) signalled;
static pthread_t signalled_thread;

static void stop_on_signal(int number)
{
    (void)number;
    um_run_stop(signalled);
}

static void raise_at_third(void *ctx, const um_packet *packet, const um_frame *frame,
                           const um_truth *truth)
{
    (void)ctx, (void)frame, (void)truth;
    if (packet->frame_id == 2)
        pthread_kill(signalled_thread, SIGUSR1);
}

TEST(a_run_is_stopped_by_a_signal_handler)
{
    struct sigaction act = {.sa_handler = stop_on_signal}, old;
    struct bench b;
    sigaction(SIGUSR1, &act, &old);
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    b.set.on_packet = raise_at_third;
    CHECK_OK(um_run_open(&b.run, &b.set));
    signalled = b.run;
    signalled_thread = pthread_self();
    CHECK_OK(um_run_start(b.run));
    CHECK_OK(um_run_join(b.run));
    CHECK(bench_counts(&b).stopped && bench_counts(&b).frames >= 3);
    bench_finish(&b);
    sigaction(SIGUSR1, &old, NULL);
}

TEST(runs_that_mean_nothing_are_refused)
{
    struct bench b;
    um_run *run = NULL;
    bench_init(&b, "cpu", "phantom:frames=1" SMALL);
    um_run_settings s = b.set;
    CHECK_EQ(um_run_open(NULL, &s), UM_EINVAL);
    CHECK_EQ(um_run_open(&run, NULL), UM_EINVAL);
    s.pipeline = NULL;
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    s = b.set;
    s.source = NULL;
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    s = b.set;
    s.n_sinks = 1; /* and it is NULL */
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    um_sink *twice[2] = {NULL};
    CHECK_OK(um_sink_open(&twice[0], "null:", NULL));
    twice[1] = twice[0];
    s.sinks = twice;
    s.n_sinks = 2; /* two threads would write it */
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    CHECK(strstr(um_last_error(), "sinks 0 and 1 are the same, null:"));
    CHECK_OK(um_sink_close(&twice[0]));
    s = b.set;
    s.receive_policy = (um_sink_policy)2;
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    s = b.set;
    s.receive = -1;
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    s = b.set;
    s.struct_size = 0;
    CHECK_EQ(um_run_open(&run, &s), UM_EINVAL);
    CHECK(strstr(um_last_error(), "um_run_settings") && !run);
    um_run_counts unset = {0};
    CHECK_OK(um_run_open(&run, &b.set));
    CHECK_EQ(um_run_stats(run, &unset), UM_EINVAL);
    um_run_close(&run);
    bench_finish(&b);
}

TEST(opening_a_run_survives_failed_allocations)
{
    struct bench b;
    um_status st = UM_ENOMEM;
    bench_init(&b, "cpu", "phantom:frames=1" SMALL);
    bench_sink(&b, "null:", NULL);
    b.set.receive = 3;
    for (uint64_t k = 1; st != UM_OK && k < 50; k++) {
        um_run *run = NULL;
        um_mem_fail_at(k);
        st = um_run_open(&run, &b.set);
        um_mem_fail_at(0);
        CHECK_MSG(st == UM_OK || (st == UM_ENOMEM && !run), "%s", um_last_error());
        um_run_close(&run);
    }
    CHECK_EQ(st, UM_OK);
    bench_finish(&b);
}

/* ---- a run that must end while its source is silent ---- */

/* One frame, and then nothing for good. */
static void push_one(struct bench *b)
{
    um_frame *f = tiny_frame(64, 80, 1);
    CHECK_OK(um_source_push(b->source, &f));
    CHECK(f == NULL);
}

static void check_ends(struct bench *b, um_status expected)
{
    CHECK_EQ(um_run_join(b->run), expected);
    CHECK_EQ(bench_counts(b).left_behind, 0);
}

TEST(a_failed_assertion_ends_a_run_with_a_silent_source)
{
    struct bench b;
    um_pipeline_settings s = pipeline_settings(tiny("guard"));
    bench_init(&b, NULL, "push:");
    s.gate = UM_GATE_SPECULATIVE;
    s.sam_as_numpy = UM_MASK_HOST;
    s.assert_up = s.assert_down = 1;
    b.set.pipeline = fixture_pipeline(&s);
    bench_start(&b);
    push_one(&b);
    CHECK(event_wait(&b.packets, 1)); /* delivered all the same */
    uint64_t begun = um_clock_ns();
    check_ends(&b, UM_EASSERT);
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    bench_finish(&b);
}

TEST(a_failed_sink_ends_a_run_with_a_silent_source)
{
    struct bench b;
    if (access("/dev/full", W_OK) != 0)
        SKIP("no /dev/full");
    bench_init(&b, "cpu", "push:");
    bench_sink(&b, "jsonl:/dev/full", NULL);
    bench_start(&b);
    push_one(&b);
    CHECK(event_wait(&b.problems, 1));
    uint64_t begun = um_clock_ns();
    check_ends(&b, UM_EIO);
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    CHECK_MSG(strstr(b.last, "/dev/full"), "%s", b.last);
    bench_finish(&b);
}

static struct doomed silent_doom;

static void doom(void *ctx, const um_packet *packet, const um_frame *frame, const um_truth *truth)
{
    bench_packet(ctx, packet, frame, truth);
    CHECK_OK(um_step_run(silent_doom.f.dev, UM_QUEUE_MAIN, &silent_doom.step));
}

TEST(a_lost_device_ends_a_run_with_a_silent_source)
{
    struct bench b;
    doomed_open(&silent_doom, NULL, 1, 1);
    bench_init(&b, NULL, "push:");
    b.set.pipeline = silent_doom.pipeline;
    b.set.on_packet = doom;
    bench_start(&b);
    push_one(&b);
    CHECK(event_wait(&b.packets, 1));
    push_one(&b);
    uint64_t begun = um_clock_ns();
    check_ends(&b, UM_EDEVICE);
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    b.set.pipeline = NULL; /* closed with the rest of it */
    bench_finish(&b);
    doomed_close(&silent_doom);
}

TEST(a_run_that_waits_for_stdin_is_stopped)
{
    struct bench b;
    int saved = dup(STDIN_FILENO), ends[2];
    CHECK(saved >= 0 && pipe(ends) == 0);
    dup2(ends[0], STDIN_FILENO);
    um_source_settings set;
    um_source_settings_default(&set);
    set.width = 64;
    set.height = 80;
    bench_init(&b, "cpu", NULL);
    CHECK_OK(um_source_open(&b.source, "-", &set));
    b.set.source = b.source;
    bench_start(&b);
    static const uint8_t pixels[64 * 80 + 100]; /* and a part of the next */
    CHECK(write(ends[1], pixels, sizeof pixels) == (ssize_t)sizeof pixels);
    CHECK(event_wait(&b.packets, 1));
    uint64_t begun = um_clock_ns();
    um_run_stop(b.run);
    CHECK_OK(um_run_join(b.run));
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    CHECK(bench_counts(&b).unreadable == 0 && !bench_counts(&b).left_behind);
    bench_finish(&b);
    dup2(saved, STDIN_FILENO);
    close(saved);
    close(ends[0]);
    close(ends[1]);
}

/* ---- sinks that take nothing ---- */

/* A FIFO with a reader that never reads, full but for less than a line. */
static int stuck_fifo(const char *name, char *spec, size_t size)
{
    static char block[4096];
    snprintf(spec, size, "jsonl:%s", in_scratch(name));
    if (mkfifo(spec + strlen("jsonl:"), 0600) != 0)
        fixture_die(spec);
    int reader = open(spec + strlen("jsonl:"), O_RDONLY | O_NONBLOCK);
    int writer = open(spec + strlen("jsonl:"), O_WRONLY | O_NONBLOCK);
    if (reader < 0 || writer < 0)
        fixture_die(spec);
    while (write(writer, block, sizeof block) > 0)
        ;
    close(writer);
    return reader;
}

TEST(a_stuck_sink_is_given_up_and_the_others_go_on)
{
    struct bench b;
    char stuck[300], rest[300];
    um_sink_settings set;
    um_sink_settings_default(&set);
    set.deadline_ms = 200;
    int reader = stuck_fifo("stuck", stuck, sizeof stuck);
    snprintf(rest, sizeof rest, "jsonl:%s", in_scratch("rest.jsonl"));
    bench_init(&b, "cpu", "phantom:seed=3,frames=12" SMALL);
    bench_sink(&b, stuck, &set);
    bench_sink(&b, rest, NULL);
    bench_start(&b);
    check_ends(&b, UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "1 of 2"), "%s", um_last_error());
    CHECK_MSG(strstr(b.last, "/stuck: given up"), "%s", b.last);
    CHECK(b.problems.count == 1 && bench_counts(&b).frames == 12);
    CHECK_EQ(lines_of(in_scratch("rest.jsonl")), 12);
    bench_finish(&b);
    close(reader);
    scratch_close();
}

TEST(a_stop_ends_a_run_with_a_stuck_sink)
{
    for (unsigned realtime = 0; realtime < 2; realtime++) {
        struct bench b;
        char stuck[300];
        int reader = stuck_fifo("stuck", stuck, sizeof stuck);
        bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
        bench_sink(&b, stuck, NULL);
        b.set.realtime = (int)realtime;
        bench_start(&b);
        CHECK(event_wait(&b.packets, 5)); /* one is being written, four wait: it blocks now */
        uint64_t begun = um_clock_ns();
        um_run_stop(b.run);
        check_ends(&b, UM_EIO);
        CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
        CHECK(bench_counts(&b).stopped && bench_counts(&b).sinks_failed == 1);
        bench_finish(&b);
        close(reader);
        scratch_close();
    }
}

TEST(a_fifo_may_get_its_reader_later)
{
    struct bench b;
    char spec[400], path[300];
    snprintf(path, sizeof path, "%s", in_scratch("fifo"));
    snprintf(spec, sizeof spec, "jsonl:%s", path);
    CHECK(mkfifo(path, 0600) == 0);
    bench_init(&b, "cpu", "phantom:seed=3,frames=3" SMALL);
    bench_sink(&b, spec, NULL);
    bench_start(&b);
    CHECK(event_wait(&b.packets, 3));
    FILE *reader = fopen(path, "rb");
    int lines = 0;
    for (int c; lines < 3 && (c = fgetc(reader)) != EOF;)
        lines += c == '\n';
    CHECK_OK(um_run_join(b.run));
    bench_finish(&b);
    fclose(reader);
    CHECK_EQ(lines, 3);
    scratch_close();
}

/* A sink that holds every packet until it is let go; with "deaf:" it hears nothing else. */
struct held {
    int wake;
    bool deaf;
};
static struct event held_writes = EVENT, held_closed = EVENT;
static int held_gate[2];

static um_status held_open(void *priv, const char *arg, const um_sink_settings *settings,
                           int wake_fd)
{
    (void)settings;
    *(struct held *)priv = (struct held){wake_fd, strcmp(arg, "deaf") == 0};
    return UM_OK;
}

static um_status held_write(void *priv, const um_packet *packet, const um_frame *frame,
                            const char *name)
{
    const struct held *h = priv;
    struct pollfd p[2] = {{.fd = held_gate[0], .events = POLLIN},
                          {.fd = h->deaf ? -1 : h->wake, .events = POLLIN}};
    (void)packet, (void)frame, (void)name;
    event_add(&held_writes);
    while (poll(p, 2, -1) < 0 && errno == EINTR)
        ;
    return p[0].revents ? UM_OK : UM_AGAIN;
}

static um_status held_close(void *priv)
{
    (void)priv;
    event_add(&held_closed);
    return UM_OK;
}

static const um_sink_ops held = {.struct_size = sizeof held,
                                 .scheme = "held",
                                 .usage = "held:",
                                 .priv_size = sizeof(struct held),
                                 .open = held_open,
                                 .write = held_write,
                                 .close = held_close};

static void held_begin(void)
{
    static bool known;
    if ((!known && um_sink_register(&held) != UM_OK) || pipe(held_gate) != 0)
        fixture_die("held:");
    known = true;
    held_writes.count = held_closed.count = 0;
}

/* Let all go, for good. */
static void held_let_go(void)
{
    close(held_gate[1]);
}

static void held_end(void)
{
    close(held_gate[0]);
}

TEST(a_sink_that_drops_holds_nobody_up)
{
    struct bench b;
    um_sink_settings set;
    um_sink_settings_default(&set);
    set.policy = UM_SINK_DROP;
    set.capacity = 2;
    set.deadline_ms = 0;
    held_begin();
    bench_init(&b, "cpu", "phantom:seed=3,frames=20" SMALL);
    bench_sink(&b, "held:", &set);
    bench_start(&b);
    CHECK(event_wait(&b.packets, 20)); /* though the sink is still at its first */
    held_let_go();
    CHECK_OK(um_run_join(b.run));
    um_run_counts c = bench_counts(&b);
    CHECK(c.frames == 20 && !c.sinks_failed && c.dropped >= 15);
    CHECK_EQ(c.dropped + (uint64_t)event_count(&held_writes), 20);
    bench_finish(&b);
    held_end();
    CHECK_EQ(event_count(&held_closed), 1);
}

static um_status ends_badly(void *priv)
{
    (void)priv;
    return UM_EIO;
}

/* A file that is written when it is closed, and whose disk is full then. */
TEST(a_sink_that_fails_when_it_is_closed_is_told)
{
    um_sink_ops badly = held;
    struct bench b;
    badly.scheme = "badly", badly.usage = "badly:", badly.close = ends_badly;
    held_begin();
    held_let_go();
    CHECK_OK(um_sink_register(&badly));
    for (int mine = 0; mine < 2; mine++) { /* is the caller's reference the last one? */
        bench_init(&b, "cpu", "phantom:frames=2,width=64,height=64");
        bench_sink(&b, "badly:", NULL);
        CHECK_OK(um_run_open(&b.run, &b.set));
        if (!mine)
            CHECK_OK(um_sink_close(&b.sink[0]));
        CHECK_OK(um_run_start(b.run));
        CHECK_EQ(um_run_join(b.run), mine ? UM_OK : UM_EIO);
        CHECK_EQ(bench_counts(&b).sinks_failed, !mine);
        CHECK_STR(b.last, mine ? "" : "badly:: UM_EIO");
        CHECK_EQ(um_sink_close(&b.sink[0]), mine ? UM_EIO : UM_OK);
        CHECK(!mine || strcmp(um_last_error(), "badly:: UM_EIO") == 0);
        bench_finish(&b);
    }
    held_end();
}

/* The thread that never comes back is left behind, with what it needs; it closes the sink. */
TEST(a_sink_that_hears_nothing_is_left_behind)
{
    struct bench b;
    held_begin();
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    bench_sink(&b, "held:deaf", NULL);
    bench_start(&b);
    CHECK(event_wait(&held_writes, 1));
    uint64_t begun = um_clock_ns();
    um_run_stop(b.run);
    CHECK_EQ(um_run_join(b.run), UM_EIO);
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    CHECK_EQ(bench_counts(&b).left_behind, 1);
    CHECK_MSG(strstr(b.last, "held:deaf: given up"), "%s", b.last);
    bench_finish(&b);
    CHECK_EQ(event_count(&held_closed), 0);
    held_let_go();
    CHECK(event_wait(&held_closed, 1));
    held_end();
}

/* The same of a source. */
static struct event deaf_reads = EVENT, deaf_closed = EVENT;
static int deaf_gate[2];

static um_status deaf_open(void *priv, const char *arg, const um_source_settings *settings,
                           int wake_fd)
{
    (void)priv, (void)arg, (void)settings, (void)wake_fd;
    return UM_OK;
}

static um_status deaf_read(void *priv, uint64_t index, um_frame **frame)
{
    char c;
    (void)priv;
    event_add(&deaf_reads);
    if (index > 0 && read(deaf_gate[0], &c, 1) <= 0)
        return UM_EOF;
    *frame = tiny_frame(64, 80, 1);
    return UM_OK;
}

static void deaf_close(void *priv)
{
    (void)priv;
    event_add(&deaf_closed);
}

TEST(a_source_that_hears_nothing_is_left_behind)
{
    static const um_source_ops deaf = {.struct_size = sizeof deaf,
                                       .scheme = "deaf",
                                       .usage = "deaf:",
                                       .open = deaf_open,
                                       .read = deaf_read,
                                       .close = deaf_close};
    struct bench b;
    CHECK(pipe(deaf_gate) == 0);
    CHECK_OK(um_source_register(&deaf));
    bench_init(&b, "cpu", "deaf:");
    bench_start(&b);
    CHECK(event_wait(&b.packets, 1) && event_wait(&deaf_reads, 2));
    uint64_t begun = um_clock_ns();
    um_run_stop(b.run);
    CHECK_OK(um_run_join(b.run));
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    CHECK_EQ(bench_counts(&b).left_behind, 1);
    bench_finish(&b);
    CHECK_EQ(event_count(&deaf_closed), 0);
    close(deaf_gate[1]);
    CHECK(event_wait(&deaf_closed, 1));
    close(deaf_gate[0]);
}

TEST(a_reader_that_leaves_ends_the_run)
{
    struct bench b;
    char spec[300];
    signal(SIGPIPE, SIG_IGN);
    snprintf(spec, sizeof spec, "jsonl:%s", in_scratch("fifo"));
    CHECK(mkfifo(spec + strlen("jsonl:"), 0600) == 0);
    int reader = open(spec + strlen("jsonl:"), O_RDONLY | O_NONBLOCK);
    bench_init(&b, "cpu", "push:");
    bench_sink(&b, spec, NULL);
    um_sink_settings aside;
    um_sink_settings_default(&aside);
    aside.auxiliary = 1; /* does not keep it going */
    bench_sink(&b, "null:", &aside);
    bench_start(&b);
    push_one(&b);
    CHECK(event_wait(&b.packets, 1));
    close(reader);
    push_one(&b);
    push_one(&b);
    CHECK_OK(um_run_join(b.run));
    CHECK(bench_counts(&b).stopped && !bench_counts(&b).sinks_failed && b.problems.count == 0);
    bench_finish(&b);
    scratch_close();
}

/* ---- frames in, packets out ---- */

TEST(packets_are_received_with_a_deadline)
{
    struct bench b;
    const um_packet *p = NULL;
    bench_init(&b, "cpu", "push:");
    b.set.receive = 2;
    CHECK_OK(um_run_open(&b.run, &b.set));
    CHECK_EQ(um_run_receive(b.run, 0, &p, NULL), UM_EINVAL);
    CHECK_OK(um_run_start(b.run));
    struct pollfd there = {.fd = um_run_fd(b.run), .events = POLLIN};
    CHECK_EQ(um_run_receive(b.run, 0, &p, NULL), UM_AGAIN);
    CHECK_EQ(um_run_receive(b.run, 20, &p, NULL), UM_AGAIN);
    CHECK(p == NULL && poll(&there, 1, 0) == 0);
    for (int i = 0; i < 5; i++)
        push_one(&b); /* two may wait: it holds the third, and the source the others */
    for (int i = 0; i < 5; i++) {
        CHECK(poll(&there, 1, 1000 * PATIENCE_S) == 1);
        CHECK_OK(um_run_receive(b.run, -1, &p, NULL));
        CHECK_EQ(p->frame_id, (uint64_t)i);
        if (i < 4)
            um_packet_unref(&p);
    }
    CHECK(poll(&there, 1, 0) == 0);
    CHECK_OK(um_source_finish(b.source));
    const um_packet *none = NULL;
    CHECK_EQ(um_run_receive(b.run, -1, &none, NULL), UM_EOF);
    CHECK(poll(&there, 1, 0) == 1); /* at the end too */
    CHECK_OK(um_run_join(b.run));
    CHECK_EQ(bench_counts(&b).dropped, 0);
    bench_finish(&b);
    CHECK_EQ(p->frame_id, 4); /* outlives the run */
    um_packet_unref(&p);
}

/* A live stream in colour shows gray, then something coloured: everything for that is there. */
TEST(colour_is_not_planned_in_a_live_stream)
{
    for (int live = 0; live <= 1; live++) {
        struct bench b;
        const um_packet *p = NULL;
        bench_init(&b, "guard", "push:"); /* it counts copies of planning */
        b.set.receive = 2;
        b.set.realtime = live;
        bench_start(&b);
        for (int i = 0; i < 2; i++) {
            um_frame *f = tiny_frame(32, 32, 3);
            for (int k = 0; k < 32 * 32 * 3; k++)
                f->pixels[k] = 90;
            f->pixels[5] = i ? 200 : 90;
            CHECK_OK(um_source_push(b.source, &f));
            CHECK_OK(um_run_receive(b.run, -1, &p, NULL));
            CHECK_MSG((p->transfers.setup == 0) == (live && i == 1), "frame %d: %u setup copies", i,
                      (unsigned)p->transfers.setup);
            um_packet_unref(&p);
        }
        CHECK_OK(um_source_finish(b.source));
        CHECK_OK(um_run_join(b.run));
        bench_finish(&b);
    }
}

static volatile sig_atomic_t ticks;
enum { TICKS_MOST = 100 };

static void tick(int signal)
{
    static const struct itimerval never;
    (void)signal;
    if (++ticks == TICKS_MOST)
        setitimer(ITIMER_REAL, &never, NULL);
}

/* A program may have a timer that interrupts poll() more often than the time lasts. */
TEST(signals_do_not_prolong_a_wait)
{
    struct bench b;
    const um_packet *p = NULL;
    const struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    struct sigaction act = {.sa_handler = tick, .sa_flags = SA_RESTART}, before;
    bench_init(&b, "cpu", "push:");
    b.set.receive = 1;
    bench_start(&b);
    ticks = 0;
    CHECK(sigaction(SIGALRM, &act, &before) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    um_status st = um_run_receive(b.run, 100, &p, NULL);
    int seen = ticks;
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0 && sigaction(SIGALRM, &before, NULL) == 0);
    CHECK_EQ(st, UM_AGAIN);
    CHECK_MSG(seen > 0 && seen < TICKS_MOST, "%d signals", seen);
    bench_finish(&b);
}

TEST(who_does_not_receive_holds_up_nobody_that_drops)
{
    struct bench b;
    const um_packet *p = NULL;
    bench_init(&b, "cpu", "phantom:seed=3,frames=9" SMALL);
    b.set.receive = 2;
    b.set.receive_policy = UM_SINK_DROP;
    bench_start(&b);
    CHECK_OK(um_run_join(b.run));
    CHECK(bench_counts(&b).frames == 9 && bench_counts(&b).dropped == 7);
    for (uint64_t i = 7; i < 9; i++) {
        CHECK_OK(um_run_receive(b.run, 0, &p, NULL));
        CHECK_EQ(p->frame_id, i);
        um_packet_unref(&p);
    }
    CHECK_EQ(um_run_receive(b.run, 0, &p, NULL), UM_EOF);
    bench_finish(&b);
}

TEST(a_stop_ends_a_run_that_nobody_receives_from)
{
    struct bench b;
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    b.set.receive = 1;
    bench_start(&b);
    CHECK(event_wait(&b.packets, 2));
    uint64_t begun = um_clock_ns();
    um_run_stop(b.run);
    CHECK_OK(um_run_join(b.run));
    CHECK_MSG(seconds_since(begun) < AT_ONCE_S, "%.1f s", seconds_since(begun));
    bench_finish(&b);
}

static void *push_many(void *source)
{
    uintptr_t pushed = 0;
    for (um_status st = UM_OK; st == UM_OK;) {
        um_frame *f = tiny_frame(64, 80, 1);
        st = um_source_push(source, &f);
        pushed += st == UM_OK;
        um_frame_unref(&f);
    }
    return (void *)pushed;
}

static void bench_init_pushed(struct bench *b, const um_source_settings *set)
{
    bench_init(b, "cpu", NULL);
    if (um_source_open(&b->source, "push:", set) != UM_OK)
        fixture_die("push:");
    b->set.source = b->source;
}

/* What the source took and nobody read is counted too. */
TEST(every_pushed_frame_is_a_packet_or_left)
{
    struct bench b;
    pthread_t pusher;
    void *pushed;
    um_source_settings set;
    um_source_settings_default(&set);
    set.capacity = 20;
    bench_init_pushed(&b, &set);
    b.set.receive = 1; /* nobody receives: it holds one packet, and the run waits */
    bench_start(&b);
    CHECK(pthread_create(&pusher, NULL, push_many, b.source) == 0);
    for (int i = 0; um_source_waiting(b.source) < set.capacity && i < 1000 * PATIENCE_S; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    um_run_stop(b.run);
    CHECK_OK(um_run_join(b.run));
    pthread_join(pusher, &pushed);
    um_run_counts c = bench_counts(&b);
    CHECK_MSG((uintptr_t)pushed == c.frames + c.left && c.left >= 20,
              "%d pushed, %d packets, %d left", (int)(uintptr_t)pushed, (int)c.frames, (int)c.left);
    bench_finish(&b);
}

TEST(pushing_waits_for_room_until_the_source_ends)
{
    struct bench b;
    pthread_t pusher;
    void *pushed;
    um_source_settings set;
    um_source_settings_default(&set);
    set.frames = 6; /* then nobody reads any more */
    bench_init_pushed(&b, &set);
    bench_start(&b);
    CHECK(pthread_create(&pusher, NULL, push_many, b.source) == 0);
    CHECK_OK(um_run_join(b.run));
    pthread_join(pusher, &pushed);
    CHECK((uintptr_t)pushed >= 6 && bench_counts(&b).frames == 6);
    bench_finish(&b);
}

/* Who pushes waits for no reader that has had all it wants. */
TEST(pushing_ends_with_the_last_frame_that_is_read)
{
    um_source_settings set;
    um_source *s = NULL;
    um_frame *f = NULL;
    um_source_settings_default(&set);
    set.capacity = 1;
    set.frames = 2;
    CHECK_OK(um_source_open(&s, "push:", &set));
    for (int i = 0; i < 2; i++) {
        f = tiny_frame(8, 8, 1);
        CHECK_OK(um_source_push(s, &f));
        CHECK_OK(um_source_read(s, &f));
        um_frame_unref(&f);
    }
    f = tiny_frame(8, 8, 1);
    CHECK_EQ(um_source_push(s, &f), UM_EOF);
    CHECK(f != NULL);
    um_frame_unref(&f);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
}

TEST(pushing_may_replace)
{
    um_source_settings set;
    um_source *s = NULL;
    um_frame *f = NULL;
    um_source_settings_default(&set);
    set.capacity = 2;
    set.replace = 1;
    CHECK_OK(um_source_open(&s, "push:", &set));
    for (int i = 0; i < 5; i++) {
        f = tiny_frame(8 + i, 8, 1);
        CHECK_OK(um_frame_set_source(f, i == 3 ? "left hip" : NULL));
        CHECK_OK(um_source_push(s, &f));
    }
    CHECK_EQ(um_source_replaced(s), 3);
    f = tiny_frame(8, 8, 1);
    f->ts = (double)NAN;
    CHECK_EQ(um_source_push(s, &f), UM_EINVAL);
    CHECK_STR(um_last_error(), "um_source_push: a time that is no number: nan");
    um_frame_unref(&f);
    CHECK_OK(um_source_finish(s));
    for (int i = 3; i < 5; i++) {
        CHECK_OK(um_source_read(s, &f));
        CHECK(f->width == 8 + i && f->id == (uint64_t)i - 3 && f->ts > 1.6e9);
        CHECK_STR(f->source, i == 3 ? "left hip" : "push:");
        um_frame_unref(&f);
    }
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    f = tiny_frame(8, 8, 1);
    CHECK_EQ(um_source_push(s, &f), UM_EOF);
    CHECK(f != NULL);
    um_source_close(&s);
    CHECK_OK(um_source_open(&s, "phantom:frames=1" SMALL, NULL));
    CHECK_EQ(um_source_push(s, &f), UM_EINVAL);
    CHECK_EQ(um_source_finish(s), UM_EINVAL);
    um_frame_unref(&f);
    um_source_close(&s);
    set.capacity = 0;
    CHECK_EQ(um_source_open(&s, "push:", &set), UM_EINVAL);
    CHECK_EQ(um_source_open(&s, "push:x", NULL), UM_EINVAL);
}

/* An unreadable file is told and counted even where frames replace each other. */
TEST(strict_and_realtime_stop_at_an_unreadable_frame)
{
    um_run_settings how = run_settings();
    um_run_counts stats = {.struct_size = sizeof stats};
    struct heard heard;
    how.realtime = 1;
    for (int i = 0; i < (SANITIZED ? 2 : 10); i++) {
        CHECK_OK(run_source("cpu", mixed_folder(), NULL, 0, &how, &stats, &heard));
        CHECK_EQ(stats.unreadable, 1);
        CHECK_EQ(stats.frames + stats.replaced, 3);
    }
    how.strict = 1;
    for (int i = 0; i < (SANITIZED ? 2 : 10); i++)
        CHECK_EQ(run_source("cpu", mixed_folder(), NULL, 0, &how, &stats, &heard), UM_EFORMAT);
    scratch_close();
}

/* ---- kinds of sources and sinks that a program adds ---- */

struct down {
    int from;
};

static um_status down_open(void *priv, const char *arg, const um_source_settings *settings,
                           int wake_fd)
{
    if (settings->struct_size != sizeof *settings || wake_fd < 0)
        return um_set_error(UM_EINVAL, "settings are not whole");
    ((struct down *)priv)->from = atoi(arg);
    return *arg ? UM_OK : UM_EINVAL; /* without a text of its own */
}

/* Frame 1 is unreadable. */
static um_status down_read(void *priv, uint64_t index, um_frame **frame)
{
    const struct down *d = priv;
    if ((int)index == d->from)
        return UM_EOF;
    if (index == 1)
        return um_set_error(UM_EFORMAT, "one is out of order");
    *frame = tiny_frame(64, 80, 1);
    return um_frame_set_source(*frame, index ? "later" : "first");
}

static long down_length(const void *priv)
{
    return ((const struct down *)priv)->from;
}

static const char *down_name(const void *priv)
{
    (void)priv;
    return "down/one";
}

static void down_close(void *priv)
{
    (void)priv;
    um_set_error(UM_EIO, "the end of another story");
}

static char noted[2048];

static um_status note_open(void *priv, const char *arg, const um_sink_settings *settings,
                           int wake_fd)
{
    (void)priv;
    noted[0] = 0;
    if (strcmp(arg, "?") == 0)
        return UM_AGAIN; /* which opening has not */
    return settings->objects == 3 && wake_fd >= 0 && !*arg ? UM_OK : UM_EINVAL;
}

static um_status note_write(void *priv, const um_packet *packet, const um_frame *frame,
                            const char *name)
{
    (void)priv;
    size_t n = strlen(noted);
    snprintf(noted + n, sizeof noted - n, "%llu %s %s;", (unsigned long long)packet->frame_id, name,
             frame->source);
    return UM_OK;
}

TEST(a_program_adds_kinds_of_sources_and_sinks)
{
    um_source_ops from = {.struct_size = sizeof from,
                          .scheme = "down",
                          .usage = "down:FROM",
                          .priv_size = sizeof(struct down),
                          .open = down_open,
                          .read = down_read,
                          .length = down_length,
                          .name = down_name,
                          .close = down_close};
    um_sink_ops to = {.struct_size = sizeof to,
                      .scheme = "note",
                      .usage = "note:",
                      .open = note_open,
                      .write = note_write};
    um_source *s = NULL;
    um_sink *t = NULL;
    CHECK_EQ(um_source_open(&s, "down:3", NULL), UM_EINVAL);
    CHECK_OK(um_source_register(&from));
    CHECK_OK(um_sink_register(&to));
    CHECK_EQ(um_source_register(&from), UM_EINVAL); /* known already */
    CHECK_EQ(um_sink_register(&to), UM_EINVAL);
    static const char *const bad[] = {"d", "", "a:b", "phantom", "with space", NULL};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        from.scheme = bad[i];
        CHECK_MSG(um_source_register(&from) == UM_EINVAL, "%s", bad[i] ? bad[i] : "NULL");
    }
    from.scheme = "other";
    from.read = NULL;
    CHECK_EQ(um_source_register(&from), UM_EINVAL);
    from.struct_size = 0;
    CHECK_EQ(um_source_register(&from), UM_EINVAL);
    CHECK_EQ(um_source_open(&s, "dwon:3", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "down:FROM"), "%s", um_last_error());
    CHECK_EQ(um_sink_open(&t, "nott:", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "note:"), "%s", um_last_error());
    CHECK_EQ(um_source_open(&s, "down:", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "down:: UM_EINVAL"), "%s", um_last_error());
    CHECK_EQ(um_sink_open(&t, "note:?", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "note:?: its open() returned 1"), "%s", um_last_error());

    struct bench b;
    um_sink_settings set;
    um_sink_settings_default(&set);
    set.objects = 3;
    bench_init(&b, "cpu", "down:4");
    CHECK_EQ(um_source_length(b.source), 4);
    bench_sink(&b, "note:", &set);
    bench_start(&b);
    CHECK_OK(um_run_join(b.run));
    CHECK_STR(noted, "0 down/one first;2 down/one later;3 down/one later;");
    CHECK(bench_counts(&b).unreadable == 1 && strcmp(b.last, "one is out of order") == 0);
    bench_finish(&b);
}

/* ---- clocks ---- */

/* A second of frames, ten of them; what is said of them. */
static enum um_lag_news hear(struct um_lag *l, double *now, double clock, double lag)
{
    enum um_lag_news news = UM_LAG_NOTHING;
    double back = l->stamp - (*now - clock - lag), quiet = *now - l->received;
    if (back > 0 && back < 10) /* what comes later is waited for */
        *now += back;
    for (int i = 0; i < 10; i++) {
        enum um_lag_news n =
            um_lag_step(l, .5, *now - clock - lag, *now + .002 * (i % 3), i ? .1 : quiet);
        news = n == UM_LAG_NOTHING ? news : n;
        *now += .1;
    }
    return news;
}

TEST(a_sender_that_falls_behind_is_told_once)
{
    struct um_lag l = {0};
    double now = 1e6;
    for (int i = 0; i < 20; i++)
        CHECK_EQ(hear(&l, &now, 77, .3), UM_LAG_NOTHING); /* a sender whose way takes 0.3 s */
    CHECK_NEAR(l.offset, 77.3, .005);
    CHECK_MSG(l.lag < .006, "%g", l.lag);
    CHECK_EQ(hear(&l, &now, 77, .7), UM_LAG_NOTHING); /* 0.4 s more: not yet */
    CHECK_NEAR(l.lag, .4, .01);
    CHECK_EQ(hear(&l, &now, 77, .9), UM_LAG_NOTHING); /* for not quite a second */
    CHECK_EQ(hear(&l, &now, 77, .3), UM_LAG_NOTHING);
    CHECK_EQ(hear(&l, &now, 77, .9), UM_LAG_NOTHING);
    CHECK_EQ(hear(&l, &now, 77, 1.5), UM_LAG_RAISED); /* it grows */
    CHECK(l.alarm);
    CHECK_EQ(hear(&l, &now, 77, 2.5), UM_LAG_NOTHING);
    CHECK_EQ(hear(&l, &now, 77, .7), UM_LAG_NOTHING); /* between half the limit and the limit */
    CHECK_EQ(hear(&l, &now, 77, .5), UM_LAG_NOTHING);
    CHECK_EQ(hear(&l, &now, 77, .5), UM_LAG_CLEARED);
    CHECK(!l.alarm);
}

enum { TRUTHS = 6 };

/* Of all that a frame's truth points to. */
static uint64_t sum_of(const um_truth *t, const um_frame *f)
{
    uint64_t sum = (uint64_t)t->n_structures;
    for (size_t i = 0; i < (size_t)f->width * (size_t)f->height; i++)
        sum = sum * 31 + (t->mask ? t->mask[i] : 2u) + (t->map ? t->map[i] * 3u : 7u);
    for (int i = 0; i < t->n_structures; i++)
        sum = sum * 31 + (uint64_t)t->structure[i].box[0] + (uint64_t)t->structure[i].kind;
    return sum;
}

static void keep_sum(void *ctx, const um_packet *packet, const um_frame *frame,
                     const um_truth *truth)
{
    (void)packet;
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL); /* the source draws the next ones */
    ((uint64_t *)ctx)[frame->id] = truth ? sum_of(truth, frame) : 0;
}

TEST(the_truth_of_a_packet_is_its_frames_and_not_the_next_ones)
{
    static const char spec[] = "phantom:seed=3,frames=6,look=hard,empty=0" SMALL;
    uint64_t got[TRUTHS] = {0}, want[TRUTHS] = {0};
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, spec, NULL));
    for (int i = 0; i < TRUTHS; i++) {
        um_truth truth = {.struct_size = sizeof truth};
        CHECK_OK(um_source_read(s, &f));
        CHECK_OK(um_source_truth(s, &truth));
        CHECK(truth.map && truth.n_structures > 0);
        want[i] = sum_of(&truth, f);
        um_frame_unref(&f);
    }
    um_source_close(&s);
    struct bench b;
    bench_init(&b, "cpu", spec);
    b.set.on_packet = keep_sum;
    b.set.on_problem = NULL;
    b.set.ctx = got;
    bench_start(&b);
    CHECK_OK(um_run_join(b.run));
    for (int i = 0; i < TRUTHS; i++)
        CHECK_EQ(got[i], want[i]);
    bench_finish(&b);
}

TEST(time_that_is_left_is_never_short)
{
    const uint64_t second = 1000000000;
    CHECK_EQ(um_clock_ms_until(0), 0);
    CHECK_EQ(um_clock_ms_until(um_clock_ns()), 0);
    int left = um_clock_ms_until(um_clock_ns() + 60 * second + 1);
    CHECK_MSG(left > 50000 && left <= 60001, "%d", left);
    CHECK_EQ(um_clock_ms_until(UINT64_MAX - 1), INT_MAX);
    CHECK_EQ(um_clock_ms_until(UINT64_MAX), -1);
}

TEST(clocks_may_drift_and_be_set)
{
    struct um_lag l = {0};
    double now = 1e6;
    for (int i = 0; i < 4000; i++) /* a sender's clock that is slow by 100 ppm, for an hour */
        CHECK_EQ(hear(&l, &now, 5 + 1e-4 * i, .01), UM_LAG_NOTHING);
    CHECK_MSG(l.lag < .01, "%g", l.lag);
    CHECK_EQ(hear(&l, &now, -60, .01), UM_LAG_NOTHING); /* set forward */
    CHECK_NEAR(l.offset, -59.99, .005);
    CHECK_EQ(hear(&l, &now, 300, .01), UM_LAG_NOTHING); /* set back: begun anew */
    CHECK_NEAR(l.offset, 300.01, .005);
    CHECK_MSG(l.lag < .006, "%g", l.lag);
    now += 3; /* a pause after which all is late: so it is */
    CHECK_EQ(hear(&l, &now, 300, .9), UM_LAG_NOTHING);
    CHECK_EQ(hear(&l, &now, 300, .9), UM_LAG_RAISED);
    now += 6; /* it was started anew, with another clock; the stamps go on */
    CHECK_EQ(hear(&l, &now, 304, .01), UM_LAG_CLEARED);
    CHECK_NEAR(l.offset, 304.01, .005);
    CHECK_MSG(l.lag < .006, "%g", l.lag);
    for (int i = 0; i < 3; i++) /* so slow is who looks: other frames came between */
        um_lag_step(&l, .5, l.stamp + 6, l.received + 6 + (i == 2), .1);
    CHECK_NEAR(l.lag, 1, .01);
    for (int i = 0; i < 10; i++) /* no alarm was asked for */
        CHECK_EQ(um_lag_step(&l, 0, l.stamp, l.received + 1, 1), UM_LAG_NOTHING);
    CHECK(l.lag > 9);
}

/* How many of `n` frames, `hz` a second and up to `jitter` s late, are due; `closest` to the last.
 */
static int due_of(int n, double hz, double jitter, double limit, double *closest)
{
    uint64_t next = 0, last = 0;
    int due = 0;
    *closest = 1e9;
    for (int i = 0; i < n; i++) {
        uint64_t now = (uint64_t)(1e9 * (1000 + i / hz + jitter * (i * 7 % 11) / 11));
        if (!um_clock_due(&next, limit, now))
            continue;
        if (due++)
            *closest = fmin(*closest, 1e-9 * (double)(now - last));
        last = now;
    }
    return due;
}

TEST(a_limit_of_frames_a_second_keeps_its_mean)
{
    static const double rates[] = {10.1, 11, 12, 15, 19, 20, 25, 30, 60, 144};
    double closest = 0;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        int n = due_of((int)(100 * rates[i]), rates[i], 0, 10, &closest);
        CHECK_MSG(n >= 999 && n <= 1001, "%d of 100 s at %g", n, rates[i]);
        CHECK_MSG(closest > .0499, "%g s at %g", closest, rates[i]);
        n = due_of((int)(100 * rates[i]), rates[i], .02, 10, &closest);
        CHECK_MSG(n >= 980 && n <= 1001, "%d of 100 s at %g, with jitter", n, rates[i]);
    }
    CHECK_EQ(due_of(1000, 10, .04, 10, &closest), 1000); /* what is slow enough, all of it */
    CHECK_EQ(due_of(1000, 7, .04, 10, &closest), 1000);
    CHECK_EQ(due_of(10, .1, 0, 1e-15, &closest), 1);
    uint64_t next = 0, pause = 1000000000000;
    CHECK(um_clock_due(&next, 10, 1) && um_clock_due(&next, 10, pause));
    CHECK(!um_clock_due(&next, 10, pause + 40000000)); /* nothing is caught up with */
}

/* A live sender on scripted clocks; each frame comes when the one before has its packet. */
static struct bench *sender_bench;
static char sender_why[128];

static um_status sender_open(void *priv, const char *arg, const um_source_settings *settings,
                             int wake_fd)
{
    (void)priv, (void)arg, (void)settings, (void)wake_fd;
    return UM_OK;
}

static um_status sender_read(void *priv, uint64_t index, um_frame **frame)
{
    static const char lag[] = "000333321000"; /* s; stamped each second */
    (void)priv;
    if (index >= sizeof lag - 1 || !event_wait(&sender_bench->packets, (int)index))
        return UM_EOF;
    if (index == 7) /* the last of the late ones has its packet */
        um_monitor_ready(sender_bench->set.monitor, sender_why, sizeof sender_why);
    *frame = tiny_frame(64, 80, 1);
    (*frame)->received_ns = (1 + index + (uint64_t)(lag[index] - '0')) * 1000000000u;
    (*frame)->ts = 5000 + (double)index;
    return UM_OK;
}

TEST(a_lag_that_grows_is_an_alarm)
{
    static const um_source_ops ops = {.struct_size = sizeof ops,
                                      .scheme = "sender",
                                      .usage = "sender:",
                                      .open = sender_open,
                                      .read = sender_read,
                                      .live = 1};
    struct bench b;
    char *text = NULL;
    CHECK_OK(um_source_register(&ops));
    bench_init(&b, "cpu", "sender:");
    sender_bench = &b;
    CHECK_OK(um_monitor_open(&b.set.monitor));
    um_monitor *m = um_monitor_ref(b.set.monitor);
    b.set.lag_alarm_ms = 1000;
    bench_start(&b);
    CHECK_OK(um_run_join(b.run));
    CHECK_EQ(event_count(&b.packets), 12);
    CHECK_STR(sender_why, "frames come 3.0 s later than they could");
    CHECK_EQ(event_count(&b.problems), 2);
    CHECK_STR(b.last, "sender:: frames come in time again");
    CHECK_OK(um_monitor_json(m, &text));
    CHECK_MSG(strstr(text, "\"alarm\":false,\"alarms\":1"), "%s", text);
    um_free(text);
    um_monitor_close(&m);
    um_monitor_close(&b.set.monitor);
    bench_finish(&b);
}

/* Two frames, and one that is ten seconds old. */
static um_status aged_read(void *priv, uint64_t index, um_frame **frame)
{
    (void)priv;
    if (index > 2 || !event_wait(&sender_bench->packets, (int)index))
        return UM_EOF;
    *frame = tiny_frame(64, 80, 1);
    (*frame)->received_ns = um_clock_ns() - (index == 2) * 10000000000u;
    return UM_OK;
}

TEST(what_is_too_old_is_not_worked_on)
{
    static const um_source_ops ops = {.struct_size = sizeof ops,
                                      .scheme = "aged",
                                      .usage = "aged:",
                                      .open = sender_open,
                                      .read = aged_read};
    CHECK_OK(um_source_register(&ops));
    for (unsigned realtime = 0; realtime < 2; realtime++) {
        struct bench b;
        bench_init(&b, "cpu", "aged:");
        sender_bench = &b;
        b.set.realtime = (int)realtime;
        b.set.max_age_ms = 9000; /* more than a sanitizer takes for a frame */
        bench_start(&b);
        CHECK_OK(um_run_join(b.run));
        CHECK_EQ(bench_counts(&b).too_old, realtime);
        CHECK_EQ(bench_counts(&b).frames, 3 - realtime);
        CHECK_EQ(event_count(&b.problems), 0);
        bench_finish(&b);
    }
}

static um_status again_read(void *priv, uint64_t index, um_frame **frame)
{
    (void)priv, (void)frame;
    return index ? UM_EOF : UM_AGAIN;
}

/* What a kind of source may not say is not passed on as if the source were asked again. */
TEST(a_source_answers_with_a_frame_the_end_or_an_error)
{
    static const um_source_ops ops = {.struct_size = sizeof ops,
                                      .scheme = "again",
                                      .usage = "again:",
                                      .open = sender_open,
                                      .read = again_read};
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_register(&ops));
    CHECK_OK(um_source_open(&s, "again:", NULL));
    CHECK_EQ(um_source_read(s, &f), UM_EINVAL);
    CHECK(strstr(um_last_error(), "again:: frame 0: its reader answers UM_AGAIN (1)"));
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
}

/* ---- a driver that does not come back ---- */

static struct event stuck_let_go = EVENT;

static void stuck_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                         const um_truth *truth)
{
    struct bench *b = ctx;
    (void)frame, (void)truth;
    event_add(&b->packets);
    if (packet->frame_id == 2)
        event_wait(&stuck_let_go, 1);
}

/* It is named, its sinks are closed, and nobody waits for it. */
TEST(a_run_whose_pipeline_is_stuck_ends)
{
    struct bench b;
    held_begin();
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    bench_sink(&b, "held:", NULL);
    b.set.on_packet = stuck_packet;
    b.set.stall_ms = SANITIZED ? 5000 : 300; /* a frame may take so long */
    um_monitor *m = NULL;
    CHECK_OK(um_monitor_open(&m));
    b.set.monitor = m;
    held_let_go();
    bench_start(&b);
    CHECK_EQ(um_run_join(b.run), UM_EDEVICE);
    CHECK_MSG(strstr(um_last_error(), "stalled: the pipeline has been at frame 2 for "), "%s",
              um_last_error());
    um_run_counts counts = bench_counts(&b);
    CHECK(counts.stalled == 1 && counts.left_behind == 1 && counts.frames == 3);
    um_run_close(&b.run);
    CHECK_EQ(event_count(&b.packets), 3);
    event_add(&stuck_let_go);
    um_monitor_close(&m);
    bench_finish(&b);
    CHECK(event_wait(&held_closed, 1));
    held_end();
}

static struct event stuck_beside = EVENT;

static void stuck_beside_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                                const um_truth *truth)
{
    (void)ctx, (void)packet, (void)frame, (void)truth;
    event_wait(&stuck_beside, 1);
}

/* All frames of the source are in its counts, also those that were in the pipeline. */
TEST(a_stuck_run_counts_what_was_in_flight)
{
    struct bench b;
    bench_init(&b, NULL, "push:");
    um_pipeline_settings s = pipeline_settings(tiny("cpu"));
    s.inflight = 2;
    b.set.pipeline = fixture_pipeline(&s);
    CHECK_EQ(um_pipeline_inflight(b.set.pipeline), 2);
    for (int i = 0; i < 4; i++) {
        um_frame *f = tiny_frame(64, 80, 1);
        CHECK_OK(um_source_push(b.source, &f));
    }
    CHECK_OK(um_source_finish(b.source));
    b.set.on_packet = stuck_beside_packet;
    b.set.stall_ms = SANITIZED ? 5000 : 600;
    bench_start(&b);
    CHECK_EQ(um_run_join(b.run), UM_EDEVICE);
    um_run_counts counts = bench_counts(&b);
    CHECK_EQ(counts.stalled, 1);
    CHECK_MSG(counts.frames + counts.left == 4, "%d packets, %d left", (int)counts.frames,
              (int)counts.left);
    um_run_close(&b.run);
    event_add(&stuck_beside);
    CHECK_OK(um_pipeline_forget(b.set.pipeline));
    bench_finish(&b);
}

static struct event stuck_again = EVENT;
static um_status joined_within = UM_OK;

static void stuck_again_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                               const um_truth *truth)
{
    (void)ctx, (void)frame, (void)truth;
    if (packet->frame_id == 1)
        event_wait(&stuck_again, 1);
}

static void join_within(void *ctx, const char *text)
{
    struct bench *b = ctx;
    joined_within = um_run_join(b->run);
    bench_problem(ctx, text);
}

/* Then a problem is told by the thread that ends it, which cannot be waited for there either. */
TEST(a_stuck_run_is_not_joined_by_itself)
{
    struct bench b;
    held_begin();
    bench_init(&b, "cpu", "phantom:seed=3,frames=0" SMALL);
    bench_sink(&b, "held:", NULL);
    b.set.on_packet = stuck_again_packet;
    b.set.on_problem = join_within;
    b.set.stall_ms = SANITIZED ? 5000 : 300;
    bench_start(&b);
    CHECK_EQ(um_run_join(b.run), UM_EDEVICE);
    CHECK_EQ(event_count(&b.problems), 1);
    CHECK_EQ(joined_within, UM_AGAIN);
    um_run_close(&b.run);
    event_add(&stuck_again);
    held_let_go();
    bench_finish(&b);
    held_end();
}

static struct event kpi_told = EVENT, kpi_let_go = EVENT;

static void stuck_kpi(void *ctx, const char *line)
{
    (void)ctx, (void)line;
    event_add(&kpi_told);
    event_wait(&kpi_let_go, 1);
}

/* Whoever changes it meanwhile neither waits for the pipeline nor keeps it from ending. */
TEST(a_stuck_run_that_is_changed_ends)
{
    struct bench b;
    bench_init(&b, NULL, "phantom:seed=3,frames=0" SMALL);
    um_pipeline_settings s = pipeline_settings(tiny("cpu"));
    s.conf = 0;
    s.kpi = stuck_kpi;
    b.set.pipeline = fixture_pipeline(&s);
    b.set.stall_ms = SANITIZED ? 5000 : 300;
    um_monitor *m = NULL;
    const char *const conf[] = {"conf"};
    CHECK_OK(um_monitor_open(&m));
    b.set.monitor = m;
    bench_start(&b);
    CHECK(event_wait(&kpi_told, 1));
    CHECK_OK(um_monitor_change(m, 1, conf, &(double){.5}));
    CHECK_EQ(um_monitor_change(m, 1, conf, &(double){2}), UM_EINVAL);
    CHECK_EQ(um_run_join(b.run), UM_EDEVICE);
    CHECK_EQ(bench_counts(&b).stalled, 1);
    um_run_close(&b.run);
    event_add(&kpi_let_go);
    CHECK_OK(um_pipeline_forget(b.set.pipeline)); /* nobody is in it any more */
    um_monitor_close(&m);
    bench_finish(&b);
}

/* Time that a run waits for its source is not the pipeline's. */
TEST(a_silent_source_is_no_stall)
{
    struct bench b;
    bench_init(&b, "cpu", "push:");
    b.set.stall_ms = 1;
    b.set.receive = 1;
    bench_start(&b);
    const um_packet *k = NULL;
    CHECK_EQ(um_run_receive(b.run, 50, &k, NULL), UM_AGAIN);
    um_source_finish(b.source);
    CHECK_OK(um_run_join(b.run));
    CHECK_EQ(bench_counts(&b).stalled, 0);
    bench_finish(&b);
}

/* What callers who were built with fewer members hand in and get back. */
TEST(older_structs_are_read_and_written_as_far_as_they_go)
{
    struct {
        um_source_settings s;
        char canary[8];
    } old = {.canary = "canary!"};
    size_t known = offsetof(um_source_settings, capacity);
    memset(&old.s, 0x55, sizeof old.s);
    um_source_settings_init(&old.s, known);
    CHECK(old.s.struct_size == known && old.s.channels == 1 && old.s.capacity == 0x55555555);
    um_source *s = NULL;
    CHECK_OK(um_source_open(&s, "push:", &old.s)); /* the default capacity, not 0x55555555 */
    um_source_close(&s);
    um_run_counts c;
    memset(&c, 0x55, sizeof c);
    c.struct_size = offsetof(um_run_counts, unreadable);
    struct bench b;
    bench_init(&b, "cpu", "phantom:frames=1" SMALL);
    bench_start(&b);
    CHECK_OK(um_run_join(b.run));
    CHECK_OK(um_run_stats(b.run, &c));
    CHECK(c.frames == 1 && c.unreadable == 0x5555555555555555u);
    bench_finish(&b);
    um_truth t = {.struct_size = offsetof(um_truth, visibility), .visibility = -1};
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, "phantom:frames=1,empty=0" SMALL, NULL));
    CHECK_OK(um_source_read(s, &f));
    CHECK_OK(um_source_truth(s, &t));
    CHECK(t.has_bone && t.mask && t.visibility == -1);
    um_frame_unref(&f);
    um_source_close(&s);
    CHECK_STR(old.canary, "canary!");
}

/* ---- the summary ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

TEST(quantiles_of_any_number_of_times)
{
    enum { N = 20000 };
    static double v[N];
    static struct um_histogram t;
    uint32_t x = 7;
    double sum = 0;
    for (int i = 0; i < N; i++) {
        x = x * 1664525u + 1013904223u;
        v[i] = pow(10, (double)x / 4294967296.0 * 7 - 2); /* 10 us to 100 s */
        um_histogram_add(&t, v[i]);
        sum += v[i];
    }
    qsort(v, N, sizeof *v, ascending);
    CHECK(t.count == N && t.least == v[0] && t.most == v[N - 1]);
    CHECK_NEAR(t.sum, sum, 1e-9 * sum);
    static const double at[] = {0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        double want = v[(int)ceil(at[i] * N) - 1], got = um_histogram_quantile(&t, at[i]);
        CHECK_MSG(fabs(got / want - 1) <= 0.01, "quantile %g: %g, want %g", at[i], got, want);
    }
    static struct um_histogram one;
    um_histogram_add(&one, 12.5);
    CHECK(um_histogram_quantile(&one, 0.5) == 12.5 && um_histogram_quantile(&one, 0.99) == 12.5);
    static struct um_histogram odd;
    um_histogram_add(&odd, 0);
    um_histogram_add(&odd, 1e12);
    CHECK(odd.least == 0 && odd.most == 1e12 && um_histogram_quantile(&odd, 0.5) >= 0);
}

/* The precision of every box, sorted by score, as COCO does it. */
static double exact_precision(const double *score, const int *hit, int n, int truths)
{
    static double precision[4096], recall[4096];
    static int order[4096];
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = 1; i < n; i++) /* by insertion: few */
        for (int k = i; k > 0 && score[order[k]] > score[order[k - 1]]; k--) {
            int other = order[k];
            order[k] = order[k - 1];
            order[k - 1] = other;
        }
    int hits = 0, at = 0;
    for (int i = 0; i < n; i++) {
        hits += hit[order[i]];
        precision[i] = (double)hits / (i + 1);
        recall[i] = (double)hits / truths;
    }
    for (int i = n - 1; i > 0; i--)
        if (precision[i - 1] < precision[i])
            precision[i - 1] = precision[i];
    double sum = 0;
    for (int r = 0; r <= 100; r++) {
        while (at < n && recall[at] < r / 100.0)
            at++;
        sum += at < n ? precision[at] : 0;
    }
    return sum / 101;
}

TEST(average_precision_of_any_number_of_frames)
{
    enum { N = 500 };
    static double score[N];
    static int hit[N];
    uint32_t x = 3;
    for (int round = 0; round < 20; round++) {
        static struct summary s;
        memset(&s, 0, sizeof s);
        for (int i = 0; i < N; i++) {
            x = x * 1664525u + 1013904223u;
            int bucket = (i * 8 + round) % (SCORE_BUCKETS - 1); /* none twice: no ties */
            score[i] = (bucket + 0.5) / (SCORE_BUCKETS - 1);
            hit[i] = (x >> 16) % 100 < (uint32_t)(20 + 70 * score[i]);
            *(hit[i] ? &s.boxes[bucket].hits : &s.boxes[bucket].misses) += 1;
        }
        s.with_bone = N - (uint64_t)round * 5;
        CHECK_NEAR(summary_precision(&s), exact_precision(score, hit, N, (int)s.with_bone), 1e-12);
    }
}

/* Its size says that it does not grow; that it is what the command has, the compiler. */
TEST(the_summary_is_bounded)
{
    CHECK(sizeof(struct summary) < 256 * 1024);
    static struct summary s;
    um_packet fields = {.struct_size = sizeof fields, .width = 8, .height = 8, .score = 0.25f};
    um_packet *p = NULL;
    um_truth truth = {.struct_size = sizeof truth};
    CHECK_OK(um_packet_create(&p, &fields, NULL, 0));
    for (int i = 0; i < 100000; i++)
        summary_add(&s, p, &truth);
    CHECK(s.frames == 100000 && s.with_truth == 100000);
    const um_packet *done = p;
    um_packet_unref(&done);
}

TEST_MAIN
