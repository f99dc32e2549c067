/* SPDX-License-Identifier: Apache-2.0 */
/* What a run counts and how it is told; who may ask the viewer's server; JPEGs for it. */
#include "base/clock.h"
#include "base/mem.h"
#include "io/image.h"
#include "io/jpeg_write.h"
#include "monitor/monitor.h"
#include "test.h"
#include "ultramotion/ultramotion.h"
#include "web/request.h"

#include <cjson/cJSON.h>
#include <poll.h>

/* ---- a run that is none ---- */

struct fake {
    struct um_monitor_live live;
    char key[16];
    double value;
};

static void fake_collect(void *run, struct um_monitor_live *out)
{
    *out = ((struct fake *)run)->live;
}

static void fake_counts(void *run,
                        void (*each)(void *ctx, const char *who, const char *name, uint64_t n),
                        void *ctx)
{
    (void)run;
    each(ctx, "source", "images", 7);
    each(ctx, "source", "bad\"\\\nname", 1);
    each(ctx, "igtl::1", "sent", 3);
}

static um_status fake_set(void *run, int n, const char *const *key, const double *value)
{
    struct fake *f = run;
    snprintf(f->key, sizeof f->key, "%s", key[n - 1]);
    f->value = value[n - 1];
    return UM_OK;
}

static const struct um_monitor_ops ops = {fake_collect, fake_counts, fake_set};

static struct fake some_run(void)
{
    struct fake f = {.live = {.running = true, .frames_in = 12, .sinks = 1}};
    f.live.counts = (um_run_counts){.struct_size = sizeof f.live.counts,
                                    .frames = 5,
                                    .visible = 4,
                                    .lost = 1,
                                    .replaced = 6,
                                    .unreadable = 1,
                                    .dropped = 2};
    snprintf(f.live.source, sizeof f.live.source, "a \"quoted\" \xff source\n");
    snprintf(f.live.sink[0].name, sizeof f.live.sink[0].name, "jsonl:\xc3\xa4\"");
    f.live.sink[0].capacity = 4;
    return f;
}

static void add_packets(um_monitor *m, int n)
{
    for (int i = 0; i < n; i++) {
        um_packet p = {.struct_size = sizeof p,
                       .frame_id = (uint64_t)i,
                       .ts = 1e9,
                       .state = i % 5 ? UM_STATE_VISIBLE : UM_STATE_LOST,
                       .score = 0.5f,
                       .device = "guard",
                       .precision = "fp32",
                       .ms = {1, 20 + i, i % 5 ? 10 : 0, 2, 33 + i},
                       .transfers = {.up = 1, .down = 1 + (uint32_t)(i == 3), .up_bytes = 100}};
        struct um_passage way = {.read_begin = 1, .read = 2, .sent = 3000002, .done = 40000000};
        um_monitor_packet(m, &p, &way, 4096, 12);
    }
}

/* Packets of a pipeline with a budget: every third is late, and little is done from then on. */
static void add_deadlines(um_monitor *m, int n)
{
    for (int i = 0; i < n; i++) {
        um_packet p = {.struct_size = sizeof p,
                       .has_deadline = 1,
                       .missed = i % 3 == 2,
                       .effort = i > 2 ? UM_EFFORT_FOLLOW : UM_EFFORT_FULL};
        struct um_passage way = {.read = 9000000, .sent = 9000000, .received = 5000000};
        um_monitor_packet(m, &p, &way, 0, 0);
    }
}

static double number_at(const cJSON *json, const char *group, const char *key)
{
    const cJSON *in = group ? cJSON_GetObjectItem(json, group) : json;
    const cJSON *v = cJSON_GetObjectItem(in, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

TEST(numbers_are_the_same_in_every_form)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    char *text = NULL, *page = NULL, line[512];
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    add_packets(m, 5);
    CHECK_OK(um_monitor_json(m, &text));
    cJSON *json = cJSON_Parse(text);
    CHECK(json);
    CHECK_EQ(number_at(json, "frames", "out"), 5);
    CHECK_EQ(number_at(json, "frames", "in"), 12);
    CHECK_EQ(number_at(json, "drops", "replaced"), 6);
    CHECK_EQ(number_at(json, "transfers", "copies_total"), 11);
    CHECK_EQ(number_at(json, "transfers", "down_most"), 2);
    CHECK_EQ(number_at(json, NULL, "device_memory_bytes"), 4096);
    const cJSON *stages = cJSON_GetObjectItem(json, "stages_ms");
    CHECK_EQ(number_at(stages, "segment", "count"), 4); /* of those that were outlined */
    CHECK_EQ(number_at(stages, "total", "sum"), 33 + 34 + 35 + 36 + 37);
    CHECK_NEAR(number_at(stages, "wait", "max"), 3, 1e-6);
    const cJSON *counts = cJSON_GetObjectItem(json, "counts");
    CHECK_EQ(number_at(counts, "source", "images"), 7);
    CHECK_EQ(number_at(counts, "igtl::1", "sent"), 3);
    CHECK_OK(um_monitor_prometheus(m, &page));
    CHECK(strstr(page, "\nultramotion_packets_total 5\n"));
    CHECK(strstr(page, "\nultramotion_copies_total 11\n"));
    CHECK(strstr(page, "\nultramotion_drops_total{cause=\"replaced\"} 6\n"));
    CHECK(strstr(page, "stage_seconds_bucket{stage=\"total\",le=\"0.05\"} 5\n"));
    CHECK(strstr(page, "stage_seconds_bucket{stage=\"total\",le=\"0.03\"} 0\n"));
    CHECK(strstr(page, "{who=\"source\",what=\"bad\\\"\\\\\\\\x0aname\"} 1\n"));
    CHECK(strstr(page, "source=\"a \\\"quoted\\\" \\\\xff source\\\\x0a\"} 1\n"));
    um_monitor_line(m, line, sizeof line);
    CHECK_MSG(strstr(line, "5 frames, 4 visible") && strstr(line, "replaced 6"), "%s", line);
    um_monitor_view view = {.struct_size = sizeof view};
    CHECK_OK(um_monitor_read(m, &view));
    CHECK(view.packets == 5 && view.copies == 11 && view.least.down == 1 && view.most.down == 2 &&
          view.time[UM_TIME_TOTAL].most == 37);
    cJSON_Delete(json);
    um_free(text);
    um_free(page);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

TEST(rates_are_of_the_last_seconds_whoever_looked_before)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    char *text = NULL;
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    poll(NULL, 0, 150);
    add_packets(m, 1);
    poll(NULL, 0, 2100);
    CHECK_OK(um_monitor_json(m, &text));
    cJSON *json = cJSON_Parse(text);
    CHECK_EQ(number_at(json, NULL, "fps_out"), 0);
    CHECK_EQ(number_at(json, NULL, "fps_in"), 0);
    CHECK_EQ(number_at(json, NULL, "device_load"), 0);
    cJSON_Delete(json);
    um_free(text);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

TEST(missed_deadlines_are_told)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    char *text = NULL, *page = NULL, line[512];
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    CHECK_OK(um_monitor_json(m, &text));
    CHECK(strstr(text, "\"deadline\":null"));
    um_free(text);
    add_deadlines(m, 8);
    CHECK_OK(um_monitor_json(m, &text));
    cJSON *json = cJSON_Parse(text);
    CHECK_EQ(number_at(json, "deadline", "packets"), 8);
    CHECK_EQ(number_at(json, "deadline", "missed"), 2);
    CHECK_EQ(number_at(json, "deadline", "miss_rate"), .25);
    CHECK_EQ(number_at(json, "deadline", "full"), 3);
    CHECK_EQ(number_at(json, "deadline", "follow"), 5);
    CHECK(strstr(text, "\"effort\":\"follow\""));
    const cJSON *stages = cJSON_GetObjectItem(json, "stages_ms");
    CHECK_NEAR(number_at(stages, "wait", "max"), 4, 1e-6); /* from the receipt on */
    CHECK_OK(um_monitor_prometheus(m, &page));
    CHECK(strstr(page, "\nultramotion_deadline_missed_total 2\n"));
    CHECK(strstr(page, "\nultramotion_packets_by_effort_total{effort=\"follow\"} 5\n"));
    um_monitor_line(m, line, sizeof line);
    CHECK_MSG(strstr(line, ", late 25.0 %"), "%s", line);
    cJSON_Delete(json);
    um_free(text);
    um_free(page);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

static void keep_first(void *ctx, const char *line)
{
    char *text = ctx;
    if (!text[0])
        snprintf(text, 1024, "%s", line);
}

TEST(what_a_shadow_counts_is_told_everywhere)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    char *text = NULL, *page = NULL, line[512], kpi[1024] = "";
    um_shadow_counts counts = {.struct_size = sizeof counts};
    counts.compared = 9;
    counts.disagreed = 2;
    counts.failed = 1;
    counts.least_dice = .75f;
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    CHECK_OK(um_monitor_json(m, &text)); /* nobody compares: nothing is said */
    CHECK(strstr(text, "\"shadow\":null"));
    um_free(text);
    CHECK_OK(um_monitor_prometheus(m, &page));
    CHECK(!strstr(page, "shadow"));
    um_free(page);
    um_monitor_shadow(m, &counts);
    CHECK_OK(um_monitor_json(m, &text));
    cJSON *json = cJSON_Parse(text);
    CHECK_EQ(number_at(json, "shadow", "compared"), 9);
    CHECK_EQ(number_at(json, "shadow", "disagreed"), 2);
    CHECK_EQ(number_at(json, "shadow", "failed"), 1);
    CHECK_EQ(number_at(json, "shadow", "least_dice"), .75);
    CHECK(strstr(text, "\"fell_back_at\":null"));
    cJSON_Delete(json);
    um_free(text);
    counts.fell_back = 1;
    counts.fell_at = 40;
    um_monitor_shadow(m, &counts);
    CHECK_OK(um_monitor_json(m, &text));
    CHECK(strstr(text, "\"fell_back_at\":40"));
    CHECK_OK(um_monitor_prometheus(m, &page));
    CHECK(strstr(page, "\nultramotion_shadow_compared_total 9\n"));
    CHECK(strstr(page, "\nultramotion_shadow_disagreed_total 2\n"));
    CHECK(strstr(page, "\nultramotion_shadow_failed_total 1\n"));
    CHECK(strstr(page, "\nultramotion_shadow_least_dice 0.75\n"));
    CHECK(strstr(page, "\nultramotion_shadow_fell_back 1\n"));
    CHECK_OK(um_monitor_kpi(m, keep_first, kpi));
    CHECK_MSG(strstr(kpi, "\"shadow_compared\":9,\"shadow_disagreed\":2,\"shadow_failed\":1,"
                          "\"shadow_least_dice\":0.75,\"shadow_fell_back\":1"),
              "%s", kpi);
    um_monitor_line(m, line, sizeof line);
    CHECK_MSG(strstr(line, ", shadow disagreed 2 of 9 and took over"), "%s", line);
    um_free(text);
    um_free(page);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

TEST(a_monitor_outlives_its_run)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    char *text = NULL, why[128];
    const char *const conf[] = {"conf"};
    CHECK_OK(um_monitor_open(&m));
    CHECK(um_monitor_change(m, 1, conf, &(double){1}) == UM_AGAIN);
    CHECK(!um_monitor_ready(m, why, sizeof why) && strstr(why, "no run"));
    um_monitor_attach(m, &ops, &f);
    CHECK(!um_monitor_ready(m, why, sizeof why) && strstr(why, "no packet"));
    CHECK_OK(um_monitor_change(m, 1, conf, &(double){0.25}));
    CHECK(strcmp(f.key, "conf") == 0 && f.value == 0.25);
    add_packets(m, 5);
    CHECK(um_monitor_ready(m, why, sizeof why) && !why[0]);
    um_monitor_detach(m);
    memset(&f, 0xff, sizeof f); /* nobody looks there any more */
    CHECK(!um_monitor_ready(m, why, sizeof why) && um_monitor_alive(m, 10, why, sizeof why));
    CHECK_OK(um_monitor_json(m, &text));
    CHECK(strstr(text, "\"running\":false") && strstr(text, "\"out\":5"));
    um_free(text);
    um_monitor *other = um_monitor_ref(m);
    um_monitor_close(&m);
    CHECK_OK(um_monitor_history(other, &text));
    um_free(text);
    CHECK_EQ(um_monitor_history(other, NULL), UM_EINVAL); /* and keeps nothing */
    um_monitor_close(&other);
    um_monitor_close(NULL);
}

static void count_line(void *ctx, const char *line)
{
    int *n = ctx;
    cJSON *json = cJSON_Parse(line);
    const cJSON *first = json ? json->child : NULL;
    if (first && strcmp(first->string, "ts") == 0 && strcmp(first->next->string, "event") == 0)
        n[0]++;
    const cJSON *event = cJSON_GetObjectItem(json, "event");
    if (cJSON_IsString(event) && strcmp(event->valuestring, "drop_event") == 0)
        n[1] += (int)number_at(json, NULL, "removed");
    cJSON_Delete(json);
}

static void add_part(void *ctx, int part, const char *why)
{
    int *parts = ctx;
    *parts |= why[0] ? 1 << part : 0;
}

TEST(whoever_asks_may_leave_out_the_text)
{
    um_monitor *m = NULL;
    char one[1] = "x";
    CHECK_OK(um_monitor_open(&m));
    CHECK(um_monitor_alive(m, 10, NULL, 0) && !um_monitor_ready(m, NULL, 0));
    CHECK(!um_monitor_ready(m, one, sizeof one) && !one[0]);
    CHECK(!um_monitor_ready(NULL, NULL, 0) && !um_monitor_alive(NULL, 10, NULL, 0));
    um_monitor_line(m, NULL, 0);
    um_monitor_line(m, one, sizeof one);
    CHECK_EQ(um_monitor_kpi(m, NULL, NULL), UM_EINVAL);
    um_monitor_close(&m);
}

TEST(everyone_who_stalls_is_named)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    int parts = 0;
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    um_monitor_stalls(m, 1, add_part, &parts);
    CHECK_EQ(parts, 0);
    f.live.sinks = 2;
    f.live.heard = 1;
    f.live.sink[0].busy_since = f.live.sink[1].busy_since = 1;
    um_monitor_stalls(m, 1, add_part, &parts);
    CHECK_EQ(parts, 2 + 4 + 8);
    f.live.busy_since = um_clock_ns();
    um_monitor_stalls(m, -1, add_part, &parts);
    CHECK_EQ(parts, 1 + 2 + 4 + 8);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

TEST(who_stalls_is_named)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    char why[128];
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    CHECK(um_monitor_alive(m, 0, why, sizeof why));
    f.live.busy_since = um_clock_ns();
    f.live.busy_frame = 41;
    CHECK(um_monitor_alive(m, 10, why, sizeof why));
    CHECK(!um_monitor_alive(m, -1, why, sizeof why) &&
          strstr(why, "pipeline has been at frame 41"));
    f.live.busy_since = 0;
    CHECK(um_monitor_alive(m, -1, why, sizeof why));
    f.live.sink[0].busy_since = 1; /* for as long as the machine runs */
    CHECK(!um_monitor_alive(m, 1, why, sizeof why) && strstr(why, f.live.sink[0].name));
    CHECK(!um_monitor_ready(m, why, sizeof why));
    um_monitor_detach(m);
    um_monitor_close(&m);
}

TEST(losses_are_told_once)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    int n[2] = {0};
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    CHECK_OK(um_monitor_kpi(m, count_line, n));
    CHECK(n[0] == 1 + 1 + 3 && n[1] == 6 + 1 + 2);
    CHECK_OK(um_monitor_kpi(m, count_line, n));
    CHECK_EQ(n[1], 9);
    f.live.counts.replaced = 8;
    CHECK_OK(um_monitor_kpi(m, count_line, n));
    CHECK_EQ(n[1], 11);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

/* What was told of the run before, its sender's clock and its shadow, is not the next one's. */
TEST(a_second_run_begins_anew)
{
    um_monitor *m = NULL;
    struct fake f = some_run();
    int n[2] = {0};
    char *text = NULL, why[128];
    CHECK_OK(um_monitor_open(&m));
    um_monitor_attach(m, &ops, &f);
    um_monitor_lag(m, &(struct um_monitor_clock){.known = true, .alarm = true, .lag_s = 3});
    um_monitor_shadow(m, &(um_shadow_counts){.struct_size = sizeof(um_shadow_counts)});
    CHECK_OK(um_monitor_kpi(m, count_line, n));
    CHECK_EQ(n[1], 9);
    um_monitor_detach(m);
    um_monitor_attach(m, &ops, &f);
    add_packets(m, 1);
    CHECK_MSG(um_monitor_ready(m, why, sizeof why), "%s", why);
    CHECK_OK(um_monitor_kpi(m, count_line, n));
    CHECK_EQ(n[1], 18);
    CHECK_OK(um_monitor_json(m, &text));
    CHECK(strstr(text, "\"sender\":null") && strstr(text, "\"shadow\":null"));
    um_free(text);
    um_monitor_detach(m);
    um_monitor_close(&m);
}

TEST(telling_survives_failed_allocations)
{
    struct fake f = some_run();
    for (uint64_t k = 1; k < 40; k++) {
        um_monitor *m = NULL;
        char *text = NULL;
        um_mem_fail_at(k);
        FORGET_ERROR();
        um_status st = um_monitor_open(&m);
        um_status (*const tell[])(um_monitor *, char **) = {um_monitor_json, um_monitor_prometheus,
                                                            um_monitor_history};
        for (int i = 0; i < 3 && st == UM_OK; i++) {
            um_monitor_attach(m, &ops, &f);
            st = tell[i](m, &text);
            CHECK((st == UM_OK) == (text != NULL));
            um_free(text);
        }
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        if (m)
            um_monitor_detach(m);
        um_monitor_close(&m);
    }
}

TEST(a_trace_keeps_what_finds_room)
{
    static struct um_trace t;
    char *text = NULL;
    pthread_mutex_init(&t.lock, NULL);
    um_trace_add(&t, UM_TRACK_DRIVER, "frame", 1, 2, 3); /* not on: not kept */
    CHECK_OK(um_trace_begin(&t));
    CHECK(um_trace_begin(&t) == UM_EINVAL);
    CHECK_OK(um_trace_take(&t, &text));
    CHECK(!text);
    for (int i = 0; i < UM_TRACE_EVENTS + 5; i++)
        um_trace_add(&t, UM_TRACK_DRIVER, "frame", t.epoch + 1500, t.epoch + 4000, (uint64_t)i);
    CHECK_EQ(t.lost, 5);
    CHECK_OK(um_trace_take(&t, &text));
    CHECK(strstr(text,
                 "{\"name\":\"frame\",\"ph\":\"X\",\"pid\":1,\"tid\":2,\"ts\":1.5,\"dur\":2.5,"
                 "\"args\":{\"frame\":0}},\n"));
    CHECK(text[strlen(text) - 1] == ',' && t.count == 0);
    um_free(text);
    um_trace_finish(&t);
    pthread_mutex_destroy(&t.lock);
}

/* ---- who may ask ---- */

TEST(hosts_are_addresses_or_known)
{
    static const char *const good
        [] = {"127.0.0.1", "127.0.0.1:8080",    "10.1.2.3:1", "localhost", "LocalHost:80",
              "[::1]",     "[fe80::1%eth0]:80", "a.b:5",      "c"},
    *const bad[] = {
        "",       ":80",      "evil",       "1.2.3",        "1.2.3.4.5",        "1.2.3.256",
        "1..2.3", "1.2.3.4.", "127.0.0.1:", "127.0.0.1:8x", "127.0.0.1:123456", "[::1",
        "[evil]", "[::1]80",  "a",          "a.b.c",        "localhost.",       "localhost@evil",
        "x,a.b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_MSG(um_web_host_good(good[i], "a.b,c"), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!um_web_host_good(bad[i], "a.b,c"), "%s", bad[i]);
}

TEST(origins_and_tokens_are_ours)
{
    CHECK(um_web_origin_good("", "a:1") && um_web_origin_good("http://a:1", "a:1") &&
          um_web_origin_good("https://A:1", "a:1") && um_web_origin_good("https://a", "a:443") &&
          um_web_origin_good("http://a", "a:80"));
    CHECK(!um_web_origin_good("http://a", "a:443") && !um_web_origin_good("https://a", "a:80") &&
          !um_web_origin_good("http://a", "ab") && !um_web_origin_good("http://a", "a:8080"));
    CHECK(!um_web_origin_good("null", "a:1") && !um_web_origin_good("http://a", "a:1") &&
          !um_web_origin_good("http://a:1/", "a:1") && !um_web_origin_good("http://", "") &&
          !um_web_origin_good("ws://a:1", "a:1"));
    CHECK(um_web_token_good("secret", "Bearer secret", "") &&
          um_web_token_good("secret", "", "secret") &&
          !um_web_token_good("secret", "Bearer no", "secret"));
    CHECK(!um_web_token_good("secret", "", "") && !um_web_token_good("secret", "Bearer ", "") &&
          !um_web_token_good("secret", "secret", "") && !um_web_token_good("secret", "", "secre") &&
          !um_web_token_good("secret", "", "secretsecret"));
    CHECK(um_web_is_json("application/json") && um_web_is_json("Application/JSON; charset=x") &&
          !um_web_is_json("application/jsonp") && !um_web_is_json("") &&
          !um_web_is_json("text/plain"));
}

TEST(bodies_are_flat_objects)
{
    struct um_web_control c;
    struct um_web_message m;
    const char *text = "{\"label\":-1,\"conf\":0.5}";
    CHECK_OK(um_web_control_read(&c, text, strlen(text)));
    CHECK(c.n == 2 && strcmp(c.key[0], "label") == 0 && c.value[0] == -1 && c.value[1] == 0.5);
    static const char *const bad[] = {"",
                                      "{}",
                                      "[]",
                                      "1",
                                      "null",
                                      "{\"conf\":null}",
                                      "{\"conf\":\"1\"}",
                                      "{\"conf\":1}}",
                                      "{\"conf\":1,\"conf\":1}",
                                      "{\"Conf\":1}",
                                      "{\"conf\":1e999}",
                                      "{\"conf\":{}}",
                                      "{\"conf\\u0000x\":1}",
                                      "{"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(um_web_control_read(&c, bad[i], strlen(bad[i])) == UM_EFORMAT, "%s", bad[i]);
    CHECK(um_web_control_read(&c, "{\"conf\":1}\0", 11) == UM_EFORMAT);
    CHECK_OK(um_web_message_read(&m, "{\"stream\":true,\"ping\":2.5}", 26));
    CHECK(m.has_stream && m.stream && m.has_ping && m.ping == 2.5);
    CHECK(um_web_message_read(&m, "{\"stream\":1}", 12) == UM_EFORMAT);
    static char big[UM_WEB_BODY + 1];
    memset(big, ' ', sizeof big);
    CHECK(um_web_control_read(&c, big, sizeof big) == UM_EFORMAT);
}

/* ---- images ---- */

TEST(images_come_back_nearly_the_same)
{
    enum { W = 211, H = 133 };
    for (int channels = 1; channels <= 3; channels += 2) {
        um_frame *f = NULL, *back = NULL;
        struct um_jpeg jpeg = {0};
        CHECK_OK(um_frame_create(&f, W, H, channels));
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W * channels; x++)
                f->pixels[y * f->stride + x] = (uint8_t)(128 + 100 * sin(x / 31.0) * cos(y / 17.0));
        for (int again = 0; again < 2; again++) /* the block is used again */
            CHECK_OK(um_jpeg_write(&jpeg, f, 95));
        FILE *file = fmemopen(jpeg.data, jpeg.size, "rb");
        struct um_image_file in = {.file = file, .bytes = (int64_t)jpeg.size};
        CHECK_OK(um_jpeg_read(&in, &back));
        fclose(file);
        CHECK(back->width == W && back->height == H && back->channels == channels);
        int worst = 0;
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W * channels; x++) {
                int d = abs(back->pixels[y * back->stride + x] - f->pixels[y * f->stride + x]);
                worst = d > worst ? d : worst;
            }
        CHECK_MSG(worst <= (channels == 1 ? 6 : 40), "%d", worst); /* colour is kept coarser */
        um_frame_unref(&back);
        um_frame_unref(&f);
        um_jpeg_finish(&jpeg);
    }
}

TEST(an_image_that_grows_the_block)
{
    enum { SIDE = 700 };
    um_frame *f = NULL;
    struct um_jpeg jpeg = {0};
    uint32_t x = 1;
    CHECK_OK(um_frame_create(&f, SIDE, SIDE, 1));
    for (int i = 0; i < SIDE * SIDE; i++) {
        x = x * 1664525u + 1013904223u;
        f->pixels[i] = (uint8_t)(x >> 24); /* noise: as large as it gets */
    }
    CHECK_OK(um_jpeg_write(&jpeg, f, 100));
    CHECK(jpeg.size > 1 << 16 && jpeg.data[jpeg.size - 2] == 0xff &&
          jpeg.data[jpeg.size - 1] == 0xd9);
    um_jpeg_finish(&jpeg);
    for (uint64_t k = 1; k < 8; k++) {
        um_mem_fail_at(k);
        FORGET_ERROR();
        um_status st = um_jpeg_write(&jpeg, f, 100);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        um_jpeg_finish(&jpeg);
    }
    um_frame_unref(&f);
}

TEST_MAIN
