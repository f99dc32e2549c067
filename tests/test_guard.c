/* SPDX-License-Identifier: Apache-2.0 */
/* What the guard device is for: each test plants one mistake and proves that it is caught. */
#include "device/backend.h"

#include "test.h"

#include <setjmp.h>
#include <signal.h>

static um_device *dev;
static um_buf *buf;
static um_hostbuf *host;
static um_event *event;

/* A guard device with one buffer, one host buffer and one event. */
static void begin(uint64_t seed)
{
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = "guard";
    s.threads = 1;
    s.guard_seed = seed;
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_OK(um_buf_open(&buf, dev, 1000, "arena"));
    CHECK_OK(um_hostbuf_open(&host, dev, 1000));
    CHECK_OK(um_event_open_timed(&event, dev));
}

static void end(void)
{
    um_event_close(&event, dev);
    um_hostbuf_close(&host);
    um_buf_close(&buf);
    um_device_close(&dev);
}

/* ---- faults ---- */

static sigjmp_buf fault_jump;
static void on_fault(int sig)
{
    (void)sig;
    siglongjmp(fault_jump, 1);
}

/* Does touching *p fault? */
static bool faults(volatile char *p, bool write)
{
    struct sigaction act = {0}, old_segv, old_bus;
    act.sa_handler = on_fault;
    sigaction(SIGSEGV, &act, &old_segv);
    sigaction(SIGBUS, &act, &old_bus);
    volatile bool faulted = false;
    if (sigsetjmp(fault_jump, 1) == 0) {
        if (write)
            *p = 1;
        else
            (void)*p;
    } else {
        faulted = true;
    }
    sigaction(SIGSEGV, &old_segv, NULL);
    sigaction(SIGBUS, &old_bus, NULL);
    return faulted;
}

/* The handle of a buffer is no host memory: reading or writing through it faults at once. */
TEST(handle_faults)
{
    begin(1);
    char *handle = (char *)buf->handle; /* NOLINT(performance-no-int-to-ptr) */
    CHECK(faults(handle, false));
    CHECK(faults(handle + 999, true));
    end();
}

/* A host buffer cannot be touched from the submit of a transfer to the wait that covers it, in both
 * directions. */
TEST(forgotten_wait_faults)
{
    begin(1);
    char *h = host->data;
    memset(h, 5, 1000);
    CHECK_OK(um_upload(dev, UM_QUEUE_MAIN, buf, 0, host, 0, 1000, UM_STAGE_UPLOAD, "t"));
    CHECK(faults(h, true));
    CHECK(faults(h + 999, false));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK(faults(h, true));
    CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
    CHECK(!faults(h, true));
    CHECK_OK(um_download(dev, UM_QUEUE_MAIN, host, 0, buf, 0, 1000, UM_STAGE_PACKET, "t"));
    CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "an old record covers nothing new"));
    CHECK(faults(h, false));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
    CHECK(!faults(h, false));
    CHECK_EQ(h[999], 5);
    end();
}

/* Behind the last page of a host buffer nothing can be touched. */
TEST(host_overrun_faults)
{
    begin(1);
    CHECK(faults((char *)host->data + 4096, true));
    end();
}

/* ---- poison ---- */

/* New and discarded memory reads as NaN and as an absurd index, so a forgotten producer shows; host
 * memory too. */
TEST(poison)
{
    begin(1);
    float f[250];
    int32_t i[250];
    CHECK(isnan(((float *)host->data)[0]));
    CHECK_OK(um_download_now(dev, f, buf, 0, 1000, UM_STAGE_DEBUG, "t"));
    for (int k = 0; k < 250; k++)
        CHECK(isnan(f[k]));
    CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, buf, 0, 1000, 0));
    CHECK_OK(um_discard(dev, UM_QUEUE_MAIN, buf, 41, 19));
    CHECK_OK(um_download_now(dev, f, buf, 0, 1000, UM_STAGE_DEBUG, "t"));
    CHECK_OK(um_download_now(dev, i, buf, 0, 1000, UM_STAGE_DEBUG, "t"));
    for (int k = 0; k < 250; k++) {
        CHECK((k >= 11 && k < 15) ? isnan(f[k]) : k == 10 || f[k] == 0);
        CHECK(k < 11 || k >= 15 || i[k] > 2000000000 || i[k] < -2000000000);
    }
    uint8_t *edge = (uint8_t *)f;
    CHECK(edge[40] == 0 && edge[41] != 0 && edge[59] != 0 && edge[60] == 0);
    end();
}

/* ---- order ---- */

static void set_kernel(const struct um_call *call)
{
    float *y = call->t[0].data;
    for (int i = 0; i < call->t[0].c; i++)
        y[i] = *(const float *)call->args;
}

static const float one = 1;

static struct um_step set_step(const char *name, size_t off, int n)
{
    return (struct um_step){
        .name = name,
        .kernel = set_kernel,
        .args = &one,
        .n = 1,
        .operand = {{.buf = buf,
                     .offset = off,
                     .size = 4 * (size_t)n,
                     .write = true,
                     .view = {.dtype = UM_F32, .h = 1, .w = 1, .c = n, .ld = n}}}};
}

static bool said(const char *a, const char *b, const char *c)
{
    const char *text = um_last_error();
    return strstr(text, a) && strstr(text, b) && strstr(text, c);
}

/* Two writers of overlapping memory on two queues without an event between them are named, whatever
 * the seed; with the event, or without the overlap, all is well. */
TEST(missing_event)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        begin(seed);
        struct um_step a = set_step("first", 0, 8), b = set_step("second", 28, 8),
                       c = set_step("third", 64, 8);
        CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &a));
        CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &c));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
        CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, event));
        CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &b));
        CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &a), UM_EDEVICE);
        CHECK(said("missing event", "\"first\" (queue main)", "\"second\" (queue side)") &&
              strstr(um_last_error(), "arena"));
        CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &a), UM_EDEVICE);
        end();
    }
}

/* A download on another queue that does not wait for the step that makes its data is named, and so
 * is an upload over data that is still being read. Two readers are fine. */
TEST(missing_event_of_a_transfer)
{
    begin(1);
    struct um_step a = set_step("make", 0, 8);
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &a));
    CHECK_EQ(um_download(dev, UM_QUEUE_SIDE, host, 0, buf, 0, 4, UM_STAGE_PACKET, "t"), UM_EDEVICE);
    CHECK(said("missing event", "\"make\" (queue main)", "\"download\" (queue side)"));
    end();
    begin(1);
    CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, buf, 0, 1000, 0));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, event));
    CHECK_OK(um_download(dev, UM_QUEUE_SIDE, host, 0, buf, 0, 8, UM_STAGE_PACKET, "t"));
    CHECK_OK(um_download(dev, UM_QUEUE_MAIN, host, 8, buf, 0, 8, UM_STAGE_PACKET, "t"));
    CHECK_EQ(um_upload(dev, UM_QUEUE_MAIN, buf, 4, host, 16, 8, UM_STAGE_UPLOAD, "t"), UM_EDEVICE);
    CHECK(said("missing event", "\"download\" (queue side)", "\"upload\" (queue main)"));
    end();
}

/* A wait of the host is a path: what it covers is before everything submitted later, on any queue.
 */
TEST(host_wait_orders)
{
    begin(3);
    struct um_step a = set_step("first", 0, 8);
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &a));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
    CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &a));
    end();
}

/* A wait of the host covers nothing else: work on another queue that happened to run early is still
 * unordered, and its host buffer still not to be touched. */
TEST(host_wait_covers_no_more)
{
    for (uint64_t seed = 1; seed <= 16; seed++) {
        begin(seed);
        struct um_step a = set_step("first", 0, 8);
        memset(host->data, 0, 1000);
        CHECK_OK(um_upload(dev, UM_QUEUE_SIDE, buf, 0, host, 0, 4, UM_STAGE_UPLOAD, "t"));
        CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, buf, 100, 4, 0));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
        CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
        CHECK(faults(host->data, false));
        CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &a), UM_EDEVICE);
        CHECK(said("missing event", "\"upload\" (queue side)", "\"first\" (queue main)"));
        end();
    }
}

/* The missing event is also found inside a graph, and between a branch of a graph and the queue of
 * the same name. */
TEST(missing_event_in_a_graph)
{
    begin(1);
    um_graph *graph = NULL;
    um_event *fork = NULL;
    CHECK_OK(um_event_open(&fork, dev));
    struct um_step a = set_step("first", 0, 8), b = set_step("second", 16, 8);
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, fork));
    CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, fork));
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &a));
    CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &b));
    CHECK_OK(um_event_record(dev, UM_QUEUE_SIDE, event));
    CHECK_OK(um_event_wait(dev, UM_QUEUE_MAIN, event));
    CHECK_OK(um_capture_end(dev, &graph));
    CHECK_EQ(um_graph_launch(dev, graph), UM_EDEVICE);
    CHECK(said("missing event", "\"first\" (queue main)", "\"second\" (queue side, in a graph)"));
    um_graph_close(&graph, dev);
    um_event_close(&fork, dev);
    end();

    begin(1);
    b = set_step("branch", 64, 8);
    CHECK_OK(um_event_open(&fork, dev));
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, fork));
    CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, fork));
    CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &b));
    CHECK_OK(um_event_record(dev, UM_QUEUE_SIDE, event));
    CHECK_OK(um_event_wait(dev, UM_QUEUE_MAIN, event));
    CHECK_OK(um_capture_end(dev, &graph));
    CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &b));
    CHECK_EQ(um_graph_launch(dev, graph), UM_EDEVICE);
    CHECK(said("missing event", "(queue side)", "(queue side, in a graph)"));
    um_graph_close(&graph, dev);
    um_event_close(&fork, dev);
    end();
}

/* The time of an event that the host has not waited for is not known yet. */
TEST(early_time)
{
    begin(1);
    uint64_t ns = 0;
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK_EQ(um_event_elapsed(dev, event, event, &ns), UM_EINVAL);
    CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
    CHECK_OK(um_event_elapsed(dev, event, event, &ns));
    end();
}

/* A graph whose memory is gone is refused, naming the memory. */
TEST(stale_graph)
{
    begin(1);
    um_graph *graph = NULL;
    struct um_step a = set_step("first", 0, 8);
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &a));
    CHECK_OK(um_capture_end(dev, &graph));
    CHECK_OK(um_graph_launch(dev, graph));
    um_buf_close(&buf);
    CHECK_EQ(um_graph_launch(dev, graph), UM_EINVAL);
    CHECK(strstr(um_last_error(), "arena") != NULL);
    um_graph_close(&graph, dev);
    end();
}

/* ---- time ---- */

static int ran[16], n_ran;

static void log_kernel(const struct um_call *call)
{
    ran[n_ran++] = *(const int *)call->args;
}

/* Nothing runs before a wait. Queues keep their order whatever the seed; between queues, seeds give
 * different orders, and the same seed the same one; a wait may leave work that it does not cover.
 */
TEST(seeded_order)
{
    static const int id[8] = {0, 1, 2, 3, 10, 11, 12, 13};
    int first[8] = {0}, different = 0, left_over = 0;
    for (int round = 0; round < 40; round++) {
        begin(1 + (uint64_t)round / 2);
        struct um_step step[8];
        n_ran = 0;
        um_event *side = NULL;
        CHECK_OK(um_event_open(&side, dev));
        for (int i = 0; i < 8; i++) {
            step[i] = (struct um_step){.name = "log", .kernel = log_kernel, .args = &id[i]};
            CHECK_OK(um_step_run(dev, i < 4 ? UM_QUEUE_MAIN : UM_QUEUE_SIDE, &step[i]));
        }
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
        CHECK_OK(um_event_record(dev, UM_QUEUE_SIDE, side));
        CHECK_EQ(n_ran, 0);
        CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
        CHECK(n_ran >= 4);
        left_over += n_ran < 8;
        CHECK_OK(um_event_sync(dev, side, UM_STAGE_PACKET, "t"));
        CHECK_EQ(n_ran, 8);
        int last_main = -1, last_side = 9;
        for (int i = 0; i < 8; i++) {
            int *last = ran[i] < 10 ? &last_main : &last_side;
            CHECK_EQ(ran[i], *last + 1);
            *last = ran[i];
        }
        if (round % 2)
            CHECK(memcmp(first, ran, sizeof first) == 0);
        else
            different += round > 0 && memcmp(first, ran, sizeof first) != 0;
        memcpy(first, ran, sizeof first);
        um_event_close(&side, dev);
        end();
    }
    CHECK(different > 0 && left_over > 0);
}

/* A copy reads its source when it runs, not when it is submitted: a later change of the source on
 * another queue shows, if nothing orders it before. Here it is ordered after, so every seed must
 * give the old value. */
TEST(deferred_but_ordered)
{
    for (uint64_t seed = 1; seed <= 16; seed++) {
        begin(seed);
        uint8_t got = 0;
        CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, buf, 0, 8, 1));
        CHECK_OK(um_copy(dev, UM_QUEUE_MAIN, buf, 100, buf, 0, 8));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
        CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, event));
        CHECK_OK(um_fill(dev, UM_QUEUE_SIDE, buf, 0, 8, 2));
        CHECK_OK(um_download_now(dev, &got, buf, 100, 1, UM_STAGE_DEBUG, "t"));
        CHECK_EQ(got, 1);
        CHECK_OK(um_download_now(dev, &got, buf, 0, 1, UM_STAGE_DEBUG, "t"));
        CHECK_EQ(got, 2);
        end();
    }
}

/* ---- overruns ---- */

static void overrun_kernel(const struct um_call *call)
{
    ((char *)call->t[0].data)[*(const int *)call->args] = 1;
}

/* A write outside a step's output is reported with step, buffer and offset, be it in the red zones
 * around the buffer, in a neighbour inside the buffer, or between the rows of a strided output. */
TEST(overrun)
{
    static const struct {
        size_t off;
        int write_at;
        const char *where;
    } cases[] = {{960, 40, "offset 1000 "},  /* just behind the buffer */
                 {0, -1, "offset -1 "},      /* just before it */
                 {960, 3000, "offset 3960"}, /* far behind: found at the wait, by the red zone */
                 {200, 40, "offset 240 "},   /* behind the output, inside the buffer */
                 {200, -16, "offset 184 "}}; /* before it */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(1 + i);
        struct um_step s = set_step("careless", cases[i].off, 10);
        s.kernel = overrun_kernel;
        s.args = &cases[i].write_at;
        CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &s));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
        CHECK_EQ(um_event_sync(dev, event, UM_STAGE_PACKET, "t"), UM_EDEVICE);
        CHECK_MSG(said("\"careless\"", "\"arena\"", cases[i].where), "%s", um_last_error());
        end();
    }
    begin(1);
    static const int at =
        4 * 10 + 12; /* rows of 3 floats, 10 apart: the float behind the second row */
    struct um_step s = set_step("wide", 0, 33);
    s.operand[0].view = (struct um_view){.dtype = UM_F32, .h = 1, .w = 4, .c = 3, .ld = 10};
    s.kernel = overrun_kernel;
    s.args = &at;
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &s));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK_EQ(um_event_sync(dev, event, UM_STAGE_PACKET, "t"), UM_EDEVICE);
    CHECK(said("\"wide\"", "\"arena\"", "offset 52 "));
    end();
}

/* Two outputs of one step may lie side by side, or interleaved. */
static void two_kernel(const struct um_call *call)
{
    for (int k = 0; k < 2; k++)
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < 5; i++)
                ((float *)call->t[k].data)[r * call->t[k].ld + i] = (float)k;
}

TEST(two_outputs)
{
    begin(1);
    struct um_step s = {.name = "two", .kernel = two_kernel, .n = 2};
    for (int k = 0; k < 2; k++)
        s.operand[k] =
            (struct um_operand){.buf = buf,
                                .offset = 20 * (size_t)k,
                                .size = 4 * 35,
                                .write = true,
                                .view = {.dtype = UM_F32, .h = 4, .w = 1, .c = 5, .ld = 10}};
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &s));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, event));
    CHECK_OK(um_event_sync(dev, event, UM_STAGE_PACKET, "t"));
    end();
}

TEST_MAIN
