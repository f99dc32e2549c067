/* SPDX-License-Identifier: Apache-2.0 */
/* What every device must do. Each test runs on every device of this machine, by name. */
#include "base/mem.h"
#include "base/status.h"
#include "device/backend.h"
#include "device/cuda_driver.h"

#include "racing.h"
#include "test.h"

static const char *const kernels[] = {"um_test_affine", "um_test_count"};

/* With a driver named by the environment the GPU is not optional. */
static bool standin(void)
{
    return getenv("ULTRAMOTION_CUDA_DRIVER") != NULL;
}

static void on_device(const char *name, void (*test)(um_device *dev))
{
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = name;
    s.threads = 2;
    um_device *dev = NULL;
    um_status st = um_device_open(&dev, &s);
    if (st == UM_EUNSUPPORTED && !standin())
        SKIP("device not in this build");
    CHECK_OK(st);
    if (dev->caps.launches)
        CHECK_OK(um_load_kernels(dev, kernels, 2));
    test(dev);
    um_device_close(&dev);
    CHECK(dev == NULL);
}

#define DEVICE_TEST(id)             \
    static void id(um_device *dev); \
    TEST(id##_on_cpu)               \
    {                               \
        on_device("cpu", id);       \
    }                               \
    TEST(id##_on_guard)             \
    {                               \
        on_device("guard", id);     \
    }                               \
    TEST(id##_on_cuda_0)            \
    {                               \
        on_device("cuda:0", id);    \
    }                               \
    static void id(um_device *dev)

/* ---- kernels of the tests ---- */

struct affine {
    float scale, shift;
};

/* t: out, x. y = x*scale + shift */
static void affine_kernel(const struct um_call *call)
{
    const struct affine *a = call->args;
    float *y = call->t[0].data;
    const float *x = call->t[1].data;
    if (call->stream) {
        struct {
            float *y;
            const float *x;
            int n;
            float scale, shift;
        } args = {y, x, call->t[0].w, a->scale, a->shift};
        call->stream->launch(call->stream, &(struct um_launch){.kernel = kernels[0],
                                                               .grid = {1, 1, 1},
                                                               .threads = 256,
                                                               .args = &args,
                                                               .size = sizeof args});
        return;
    }
    for (int i = 0; i < call->t[0].w; i++)
        y[i] = x[i] * a->scale + a->shift;
}

struct fill_job {
    int32_t *y;
    int w;
};

static void fill_item(void *ctx, int item, int worker)
{
    (void)worker;
    const struct fill_job *job = ctx;
    for (int i = 0; i < job->w; i++)
        job->y[item * job->w + i] = 1000 * item + i;
}

/* t: out, absent. Uses the device's pool where it has one; the absent operand must arrive as NULL.
 */
static void pool_kernel(const struct um_call *call)
{
    struct fill_job job = {call->t[0].data, call->t[0].c};
    struct {
        int32_t *y;
        int rows, w;
    } args = {job.y, call->t[0].w, job.w};
    if (call->n != 2 || call->t[1].data != NULL)
        return;
    if (call->stream)
        call->stream->launch(call->stream, &(struct um_launch){.kernel = kernels[1],
                                                               .grid = {1, 1, 1},
                                                               .threads = 32,
                                                               .args = &args,
                                                               .size = sizeof args});
    else
        um_pool_run(call->pool, call->t[0].w, fill_item, &job);
}

static struct um_operand floats(um_buf *buf, size_t first, int n, bool write)
{
    return (struct um_operand){.buf = buf,
                               .offset = 4 * first,
                               .size = 4 * (size_t)n,
                               .write = write,
                               .view = {.dtype = UM_F32, .h = 1, .w = n, .c = 1, .ld = 1}};
}

static struct um_step affine_step(const struct affine *a, um_buf *y, size_t y0, um_buf *x,
                                  size_t x0, int n)
{
    return (struct um_step){.name = "affine",
                            .kernel = affine_kernel,
                            .args = a,
                            .n = 2,
                            .operand = {floats(y, y0, n, true), floats(x, x0, n, false)}};
}

static um_status wait_for(um_device *dev, um_event *e, enum um_queue q)
{
    um_status st = um_event_record(dev, q, e);
    return st == UM_OK ? um_event_sync(dev, e, UM_STAGE_PACKET, "test") : st;
}

/* ---- memory and transfers ---- */

/* Bytes that go up come down again, at any offset, and land nowhere else. */
DEVICE_TEST(round_trip)
{
    um_buf *buf = NULL;
    um_hostbuf *up = NULL, *down = NULL;
    um_event *e = NULL;
    CHECK_OK(um_buf_open(&buf, dev, 1000, "b"));
    CHECK_OK(um_hostbuf_open(&up, dev, 1000));
    CHECK_OK(um_hostbuf_open(&down, dev, 1000));
    CHECK_OK(um_event_open(&e, dev));
    CHECK((uintptr_t)up->data % 64 == 0);
    for (int i = 0; i < 1000; i++)
        ((uint8_t *)up->data)[i] = (uint8_t)(i * 7);
    memset(down->data, 0xee, 1000);
    CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, buf, 0, 1000, 0x11));
    CHECK_OK(um_upload(dev, UM_QUEUE_MAIN, buf, 100, up, 3, 201, UM_STAGE_UPLOAD, "test"));
    CHECK_OK(um_copy(dev, UM_QUEUE_MAIN, buf, 799, buf, 100, 201));
    CHECK_OK(um_download(dev, UM_QUEUE_MAIN, down, 0, buf, 0, 999, UM_STAGE_PACKET, "test"));
    CHECK_OK(wait_for(dev, e, UM_QUEUE_MAIN));
    const uint8_t *d = down->data;
    for (int i = 0; i < 1000; i++) {
        int want = 0x11;
        if (i >= 100 && i < 301)
            want = (uint8_t)((i - 97) * 7);
        else if (i >= 799)
            want = (uint8_t)((i - 796) * 7);
        if (i == 999)
            want = 0xee;
        CHECK_EQ(d[i], want);
    }
    um_event_close(&e, dev);
    um_hostbuf_close(&down);
    um_hostbuf_close(&up);
    um_buf_close(&buf);
    CHECK(!buf && !up && !down && !e);
}

/* A big buffer (own alignment and paging on some devices) holds its last byte. */
DEVICE_TEST(big_buffer)
{
    um_buf *buf = NULL;
    size_t size = (9u << 20) + 13;
    CHECK_OK(um_buf_open(&buf, dev, size, "big"));
    float value = 2.5f, got = 0;
    CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, buf, 0, size, 1));
    CHECK_OK(um_upload_now(dev, buf, size - 4, &value, 4, UM_STAGE_SETUP, "test"));
    CHECK_OK(um_download_now(dev, &got, buf, size - 4, 4, UM_STAGE_DEBUG, "test"));
    CHECK(got == value);
    um_buf_close(&buf);
}

/* Ranges are accepted up to the last byte and refused one byte beyond, without wrapping, naming
 * function and buffer. */
DEVICE_TEST(ranges)
{
    um_buf *buf = NULL;
    um_hostbuf *host = NULL;
    um_event *e = NULL;
    CHECK_OK(um_buf_open(&buf, dev, 64, "narrow"));
    CHECK_OK(um_hostbuf_open(&host, dev, 32));
    CHECK_OK(um_event_open(&e, dev));
    memset(host->data, 1, 32);
    enum um_queue q = UM_QUEUE_MAIN;
    CHECK_OK(um_upload(dev, q, buf, 32, host, 0, 32, UM_STAGE_UPLOAD, "t"));
    CHECK_OK(um_upload(dev, q, buf, 64, host, 32, 0, UM_STAGE_UPLOAD, "t"));
    CHECK_EQ(um_upload(dev, q, buf, 33, host, 0, 32, UM_STAGE_UPLOAD, "t"), UM_EINVAL);
    CHECK(strstr(um_last_error(), "um_upload") && strstr(um_last_error(), "narrow") &&
          strstr(um_last_error(), "64"));
    CHECK_EQ(um_upload(dev, q, buf, 0, host, 1, 32, UM_STAGE_UPLOAD, "t"), UM_EINVAL);
    CHECK_EQ(um_upload(dev, q, buf, SIZE_MAX, host, 0, 2, UM_STAGE_UPLOAD, "t"), UM_EINVAL);
    CHECK_EQ(um_upload(dev, q, buf, 2, host, 0, SIZE_MAX, UM_STAGE_UPLOAD, "t"), UM_EINVAL);
    CHECK_EQ(um_download(dev, q, host, 0, buf, 60, 5, UM_STAGE_PACKET, "t"), UM_EINVAL);
    CHECK_EQ(um_download(dev, q, host, 30, buf, 0, 3, UM_STAGE_PACKET, "t"), UM_EINVAL);
    CHECK_EQ(um_fill(dev, q, buf, 64, 1, 0), UM_EINVAL);
    CHECK_EQ(um_discard(dev, q, buf, 1, SIZE_MAX), UM_EINVAL);
    CHECK_EQ(um_copy(dev, q, buf, 0, buf, 63, 2), UM_EINVAL);
    CHECK_EQ(um_copy(dev, q, buf, 0, buf, 3, 4), UM_EINVAL);
    CHECK(strstr(um_last_error(), "overlap") != NULL);
    CHECK_EQ(um_upload_now(dev, buf, 61, host, 4, UM_STAGE_SETUP, "t"), UM_EINVAL);
    CHECK_EQ(um_download_now(dev, &q, buf, 61, 4, UM_STAGE_DEBUG, "t"), UM_EINVAL);
    CHECK_OK(wait_for(dev, e, q));
    um_event_close(&e, dev);
    um_hostbuf_close(&host);
    um_buf_close(&buf);
}

/* Nothing, nonsense and strangers are refused with UM_EINVAL and harm nothing. */
DEVICE_TEST(misuse)
{
    um_buf *buf = NULL, *none = NULL;
    um_hostbuf *host = NULL;
    um_event *e = NULL;
    um_graph *graph = NULL;
    CHECK_OK(um_buf_open(&buf, dev, 64, "b"));
    CHECK_OK(um_hostbuf_open(&host, dev, 64));
    CHECK_OK(um_event_open(&e, dev));
    CHECK_EQ(um_buf_open(&none, dev, 0, "empty"), UM_EINVAL);
    CHECK(none == NULL);
    CHECK_EQ(um_buf_open(&none, NULL, 4, "nowhere"), UM_EINVAL);
    CHECK_EQ(um_buf_open(&none, dev, SIZE_MAX - 10, "huge"), UM_ENOMEM);
    CHECK_EQ(um_fill(dev, UM_QUEUE_MAIN, NULL, 0, 1, 0), UM_EINVAL);
    CHECK_EQ(um_fill(dev, (enum um_queue)7, buf, 0, 1, 0), UM_EINVAL);
    CHECK_EQ(um_upload(dev, UM_QUEUE_MAIN, buf, 0, host, 0, 4, (enum um_stage)99, "t"), UM_EINVAL);
    CHECK_EQ(um_upload(dev, UM_QUEUE_MAIN, buf, 0, host, 0, 4, UM_STAGE_UPLOAD, NULL), UM_EINVAL);
    CHECK_EQ(um_event_wait(dev, UM_QUEUE_MAIN, e), UM_EINVAL);
    CHECK_EQ(um_event_sync(dev, e, UM_STAGE_PACKET, "t"), UM_EINVAL);
    CHECK(strstr(um_last_error(), "never recorded") != NULL);
    CHECK_EQ(um_capture_end(dev, &graph), UM_EINVAL);
    CHECK_EQ(um_graph_launch(dev, NULL), UM_EINVAL);

    um_device *other = NULL;
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.threads = 1;
    CHECK_OK(um_device_open(&other, &s));
    um_buf *stranger = NULL;
    CHECK_OK(um_buf_open(&stranger, other, 64, "stranger"));
    CHECK_EQ(um_copy(dev, UM_QUEUE_MAIN, buf, 0, stranger, 0, 4), UM_EINVAL);
    CHECK(strstr(um_last_error(), "stranger") && strstr(um_last_error(), "cpu"));
    um_buf_close(&stranger);
    um_device_close(&other);

    um_event_close(&e, dev);
    um_hostbuf_close(&host);
    um_buf_close(&buf);
    um_buf_close(NULL);
    um_hostbuf_close(NULL);
    um_event_close(NULL, dev);
    um_graph_close(NULL, dev);
}

/* ---- steps ---- */

/* Steps see their operands at their offsets, in order, and use the pool; an absent operand is NULL.
 */
DEVICE_TEST(steps)
{
    um_buf *buf = NULL, *ints = NULL;
    CHECK_OK(um_buf_open(&buf, dev, 4 * 64, "floats"));
    CHECK_OK(um_buf_open(&ints, dev, 4 * 64, "ints"));
    float x[8] = {0, 1, 2, 3, 4, 5, 6, 7}, y[8];
    CHECK_OK(um_upload_now(dev, buf, 4 * 8, x, sizeof x, UM_STAGE_SETUP, "x"));
    struct affine twice = {2, 1}, plus = {1, 100};
    struct um_step a = affine_step(&twice, buf, 40, buf, 8, 8),
                   b = affine_step(&plus, buf, 40, buf, 40, 8);
    struct um_step p = {.name = "pool", .kernel = pool_kernel, .n = 2};
    p.operand[0] = floats(ints, 4, 60, true);
    p.operand[0].view = (struct um_view){.dtype = UM_I32, .h = 1, .w = 20, .c = 3, .ld = 3};
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &a));
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &b));
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &p));
    CHECK_OK(um_download_now(dev, y, buf, 4 * 40, sizeof y, UM_STAGE_DEBUG, "y"));
    for (int i = 0; i < 8; i++)
        CHECK(y[i] == 2 * x[i] + 101);
    int32_t got[60];
    CHECK_OK(um_download_now(dev, got, ints, 16, sizeof got, UM_STAGE_DEBUG, "ints"));
    for (int i = 0; i < 60; i++)
        CHECK_EQ(got[i], 1000 * (i / 3) + i % 3);
    um_buf_close(&ints);
    um_buf_close(&buf);
}

/* A step whose operand or view leaves its memory is refused before it runs, naming the step. */
DEVICE_TEST(step_checks)
{
    um_buf *buf = NULL;
    CHECK_OK(um_buf_open(&buf, dev, 4 * 16, "floats"));
    struct affine a = {1, 0};
    const struct um_step good = affine_step(&a, buf, 8, buf, 0, 8);
    CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &good));
    struct um_step s = good;
    s.operand[0].offset += 1;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &s), UM_EINVAL);
    CHECK(strstr(um_last_error(), "affine") && strstr(um_last_error(), "floats"));
    s = good;
    s.operand[1].size = 28;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &s), UM_EINVAL);
    s = good;
    s.operand[1].view.ld = 2;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &s), UM_EINVAL);
    s.operand[1].view.w = -1;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &s), UM_EINVAL);
    s = good;
    s.n = UM_OPERANDS + 1;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &s), UM_EINVAL);
    s.n = 2;
    s.kernel = NULL;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &s), UM_EINVAL);
    float y[16];
    CHECK_OK(um_download_now(dev, y, buf, 0, sizeof y, UM_STAGE_DEBUG, "drain"));
    um_buf_close(&buf);
}

/* ---- events ---- */

/* Work split over two queues and joined by events gives the value of the serial program, 50 times
 * with changing data. */
DEVICE_TEST(queues)
{
    um_buf *buf = NULL;
    um_hostbuf *host = NULL;
    um_event *up = NULL, *left = NULL, *right = NULL, *done = NULL;
    CHECK_OK(um_buf_open(&buf, dev, 4 * 64, "b"));
    CHECK_OK(um_hostbuf_open(&host, dev, 4 * 64));
    CHECK_OK(um_event_open_timed(&up, dev));
    CHECK_OK(um_event_open_timed(&left, dev));
    CHECK_OK(um_event_open(&right, dev));
    CHECK_OK(um_event_open_timed(&done, dev));
    struct affine twice = {2, 0}, thrice = {3, 0}, inc = {1, 1};
    struct um_step l0 = affine_step(&twice, buf, 8, buf, 0, 8),
                   l1 = affine_step(&inc, buf, 16, buf, 8, 8);
    struct um_step r0 = affine_step(&thrice, buf, 24, buf, 0, 8),
                   r1 = affine_step(&inc, buf, 32, buf, 24, 8);
    for (int frame = 0; frame < 50; frame++) {
        float *h = host->data;
        for (int i = 0; i < 8; i++)
            h[i] = (float)(frame * 10 + i);
        CHECK_OK(um_upload(dev, UM_QUEUE_MAIN, buf, 0, host, 0, 32, UM_STAGE_UPLOAD, "x"));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, up));
        CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, up));
        CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &l0));
        CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &r0));
        CHECK_OK(um_step_run(dev, UM_QUEUE_MAIN, &l1));
        CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &r1));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, left));
        CHECK_OK(um_event_record(dev, UM_QUEUE_SIDE, right));
        CHECK_OK(um_event_wait(dev, UM_QUEUE_MAIN, right));
        CHECK_OK(um_download(dev, UM_QUEUE_MAIN, host, 32, buf, 64, 32, UM_STAGE_PACKET, "l"));
        CHECK_OK(um_download(dev, UM_QUEUE_MAIN, host, 64, buf, 128, 32, UM_STAGE_PACKET, "r"));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, done));
        CHECK_OK(um_event_sync(dev, done, UM_STAGE_PACKET, "packet"));
        uint64_t first = 0, whole = 0, back = 0;
        CHECK_OK(um_event_elapsed(dev, up, left, &first));
        CHECK_OK(um_event_elapsed(dev, up, done, &whole));
        CHECK_OK(um_event_elapsed(dev, done, up, &back));
        CHECK(first <= whole && back == 0);
        CHECK_EQ(um_event_elapsed(dev, up, right, &back), UM_EINVAL);
        for (int i = 0; i < 8; i++) {
            CHECK(h[8 + i] == 2 * h[i] + 1);
            CHECK(h[16 + i] == 3 * h[i] + 1);
        }
    }
    um_event_close(&done, dev);
    um_event_close(&right, dev);
    um_event_close(&left, dev);
    um_event_close(&up, dev);
    um_hostbuf_close(&host);
    um_buf_close(&buf);
}

/* The blocking copies come after everything submitted before them, on any queue. */
DEVICE_TEST(blocking_copies_wait_for_all_queues)
{
    for (int q = 0; q < UM_QUEUES; q++) {
        um_buf *buf = NULL;
        uint8_t value = 9, got = 0;
        CHECK_OK(um_buf_open(&buf, dev, 64, "b"));
        CHECK_OK(um_fill(dev, (enum um_queue)q, buf, 0, 8, (uint8_t)(q + 1)));
        CHECK_OK(um_download_now(dev, &got, buf, 7, 1, UM_STAGE_DEBUG, "t"));
        CHECK_EQ(got, q + 1);
        CHECK_OK(um_fill(dev, (enum um_queue)q, buf, 0, 8, 0));
        CHECK_OK(um_upload_now(dev, buf, 3, &value, 1, UM_STAGE_SETUP, "t"));
        CHECK_OK(um_copy(dev, (enum um_queue)q, buf, 32, buf, 3, 1));
        CHECK_OK(um_download_now(dev, &got, buf, 32, 1, UM_STAGE_DEBUG, "t"));
        CHECK_EQ(got, 9);
        um_buf_close(&buf);
    }
}

/* ---- capture ---- */

/* A small frame on two queues: upload, two branches, download of both. */
struct frame {
    um_buf *buf;
    um_hostbuf *host;
    um_event *up, *side, *done;
    struct affine twice, thrice;
    struct um_step left, right;
};

static um_status frame_open(struct frame *f, um_device *dev)
{
    *f = (struct frame){.twice = {2, 1}, .thrice = {3, 1}};
    um_status st = um_buf_open(&f->buf, dev, 4 * 64, "frame");
    if (st == UM_OK)
        st = um_hostbuf_open(&f->host, dev, 4 * 64);
    if (st == UM_OK)
        st = um_event_open_timed(&f->up, dev);
    if (st == UM_OK)
        st = um_event_open(&f->side, dev);
    if (st == UM_OK)
        st = um_event_open_timed(&f->done, dev);
    f->left = affine_step(&f->twice, f->buf, 8, f->buf, 0, 8);
    f->right = affine_step(&f->thrice, f->buf, 16, f->buf, 0, 8);
    return st;
}

static void frame_close(struct frame *f, um_device *dev)
{
    um_event_close(&f->done, dev);
    um_event_close(&f->side, dev);
    um_event_close(&f->up, dev);
    um_hostbuf_close(&f->host);
    um_buf_close(&f->buf);
}

static um_status frame_submit(struct frame *f, um_device *dev)
{
    um_status st =
        um_upload(dev, UM_QUEUE_MAIN, f->buf, 0, f->host, 0, 32, UM_STAGE_UPLOAD, "pixels");
    if (st == UM_OK)
        st = um_event_record(dev, UM_QUEUE_MAIN, f->up);
    if (st == UM_OK)
        st = um_event_wait(dev, UM_QUEUE_SIDE, f->up);
    if (st == UM_OK)
        st = um_step_run(dev, UM_QUEUE_MAIN, &f->left);
    if (st == UM_OK)
        st = um_step_run(dev, UM_QUEUE_SIDE, &f->right);
    if (st == UM_OK)
        st = um_event_record(dev, UM_QUEUE_SIDE, f->side);
    if (st == UM_OK)
        st = um_event_wait(dev, UM_QUEUE_MAIN, f->side);
    if (st == UM_OK)
        st =
            um_download(dev, UM_QUEUE_MAIN, f->host, 64, f->buf, 32, 64, UM_STAGE_PACKET, "packet");
    return st == UM_OK ? um_event_record(dev, UM_QUEUE_MAIN, f->done) : st;
}

static void frame_input(struct frame *f, int seed)
{
    float *h = f->host->data;
    for (int i = 0; i < 8; i++)
        h[i] = (float)(seed * 100 + i);
}

static bool frame_right(const struct frame *f)
{
    const float *h = f->host->data;
    for (int i = 0; i < 8; i++)
        if (h[16 + i] != 2 * h[i] + 1 || h[24 + i] != 3 * h[i] + 1)
            return false;
    return true;
}

/* Capturing runs nothing; every replay reads the host data of its own time; inner events can be
 * waited for and timed. */
DEVICE_TEST(capture_replay)
{
    struct frame f;
    um_graph *graph = NULL;
    CHECK_OK(frame_open(&f, dev));
    memset(f.host->data, 0, 256);
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_capture_end(dev, &graph));
    CHECK(((float *)f.host->data)[16] == 0);
    CHECK_EQ(um_event_sync(dev, f.done, UM_STAGE_PACKET, "not launched"), UM_EINVAL);
    for (int i = 0; i < 50; i++) {
        frame_input(&f, i);
        CHECK_OK(um_graph_launch(dev, graph));
        CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
        CHECK(frame_right(&f));
        uint64_t ns = 0;
        CHECK_OK(um_event_elapsed(dev, f.up, f.done, &ns));
        CHECK(ns < 10000000000u);
        CHECK_EQ(um_event_sync(dev, f.side, UM_STAGE_PACKET, "order"), UM_EINVAL);
    }
    /* a graph and single commands mix: the graph is one command of the main queue */
    CHECK_OK(um_graph_launch(dev, graph));
    CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, f.buf, 32, 32, 0));
    float y = 1;
    CHECK_OK(um_download_now(dev, &y, f.buf, 32, 4, UM_STAGE_DEBUG, "y"));
    CHECK(y == 0);
    um_graph_close(&graph, dev);
    frame_close(&f, dev);
}

/* What cannot be in a graph is refused while capturing, and a capture that went wrong gives no
 * graph but harms nothing. */
DEVICE_TEST(capture_rules)
{
    struct frame f;
    um_graph *graph = NULL, *other = NULL;
    um_buf *buf = NULL;
    um_event *e = NULL;
    CHECK_OK(frame_open(&f, dev));
    memset(f.host->data, 0, 256);
    CHECK_OK(um_event_record(dev, UM_QUEUE_SIDE, f.side));
    CHECK_OK(um_capture_begin(dev));
    CHECK_EQ(um_capture_begin(dev), UM_EINVAL);
    CHECK_EQ(um_buf_open(&buf, dev, 4, "late"), UM_EINVAL);
    CHECK_EQ(um_event_open(&e, dev), UM_EINVAL);
    CHECK_EQ(um_event_sync(dev, f.side, UM_STAGE_PACKET, "t"), UM_EINVAL);
    CHECK_EQ(um_graph_launch(dev, graph), UM_EINVAL);
    CHECK_EQ(um_step_run(dev, UM_QUEUE_SIDE, &f.right),
             UM_EINVAL); /* the side queue is not part of the capture yet */
    CHECK_EQ(um_event_wait(dev, UM_QUEUE_MAIN, f.side), UM_EINVAL); /* recorded outside */
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_capture_end(dev, &graph));

    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, f.up));
    CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, f.up));
    CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &f.right));
    CHECK_EQ(um_capture_end(dev, &other), UM_EINVAL); /* the side queue was not joined */
    CHECK(other == NULL && strstr(um_last_error(), "does not wait") != NULL);

    frame_input(&f, 1);
    CHECK_OK(um_graph_launch(dev, graph));
    CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
    CHECK(frame_right(&f));
    um_graph_close(&graph, dev);
    frame_close(&f, dev);
}

/* ---- ledger ---- */

/* Copies and waits are counted in the bound ledger and in total; setup apart, debug not at all;
 * shared memory counts nothing. */
DEVICE_TEST(ledger_counts)
{
    struct frame f;
    um_graph *graph = NULL;
    um_transfers t;
    um_ledger ledger = um_ledger_new(dev, -1, -1);
    uint32_t one = dev->caps.shared ? 0 : 1;
    CHECK_OK(frame_open(&f, dev));
    frame_input(&f, 1);
    float x = 0;
    CHECK(um_ledger_bind(&ledger) == NULL);
    CHECK_OK(um_upload_now(dev, f.buf, 0, &x, 4, UM_STAGE_SETUP, "table"));
    CHECK_OK(um_download_now(dev, &x, f.buf, 0, 4, UM_STAGE_DEBUG, "look"));
    t = ledger.count;
    CHECK(t.up == 0 && t.down == 0 && t.waits == 0 && t.setup == one && t.up_bytes == 0 &&
          t.down_bytes == 0);
    CHECK_EQ(t.shared, dev->caps.shared);
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
    t = ledger.count;
    CHECK(t.up == one && t.down == one && t.waits == one && t.setup == one &&
          t.up_bytes == 32 * one && t.down_bytes == 64 * one);

    ledger = um_ledger_new(dev, -1, -1);
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_capture_end(dev, &graph));
    t = ledger.count;
    CHECK(t.up == 0 && t.down == 0 && t.setup == 0); /* captured, not done */
    for (int i = 0; i < 3; i++) {
        ledger = um_ledger_new(dev, -1, -1);
        CHECK_OK(um_graph_launch(dev, graph));
        CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
        t = ledger.count;
        CHECK(t.up == one && t.down == one && t.waits == one && t.setup == 0);
    }
    CHECK(um_ledger_bind(NULL) == &ledger);
    um_device_transfers(dev, &t);
    CHECK(t.up == 4 * one && t.down == 4 * one && t.waits == 4 * one && t.setup == one);
    CHECK(t.up_bytes == 4 * 32 * one && t.down_bytes == 4 * 64 * one &&
          t.shared == dev->caps.shared);
    um_graph_close(&graph, dev);
    frame_close(&f, dev);
}

/* The first transfer beyond a limit is kept with its stage and reason; later ones do not replace
 * it, and neither do the transfers of another ledger. */
DEVICE_TEST(ledger_limit)
{
    struct frame f;
    CHECK_OK(frame_open(&f, dev));
    frame_input(&f, 1);
    um_ledger good = um_ledger_new(dev, 1, 1), bad = um_ledger_new(dev, 1, 1),
              other = um_ledger_new(dev, 0, 0);
    um_ledger_bind(&good);
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
    CHECK(!good.violation.found);
    um_ledger_bind(&bad);
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_download(dev, UM_QUEUE_MAIN, f.host, 64, f.buf, 32, 4, UM_STAGE_SEGMENT, "peek"));
    um_ledger_bind(&other);
    CHECK_OK(um_download(dev, UM_QUEUE_MAIN, f.host, 64, f.buf, 32, 4, UM_STAGE_PACKET, "else"));
    um_ledger_bind(&bad);
    CHECK_OK(um_upload(dev, UM_QUEUE_MAIN, f.buf, 0, f.host, 0, 4, UM_STAGE_DETECT, "poke"));
    float x;
    CHECK_OK(um_download_now(dev, &x, f.buf, 0, 4, UM_STAGE_DEBUG, "free of charge"));
    um_ledger_bind(NULL);
    const struct um_violation *v = &bad.violation;
    CHECK(v->found == !dev->caps.shared && other.violation.found == v->found);
    if (v->found) {
        CHECK(v->stage == UM_STAGE_SEGMENT && v->count == 2 && v->limit == 1);
        CHECK_STR(v->direction, "down");
        CHECK_STR(v->reason, "peek");
        CHECK_STR(other.violation.reason, "else");
    }
    frame_close(&f, dev);
}

/* ---- life ---- */

/* After the first frames, neither single commands nor replays nor waits allocate. */
DEVICE_TEST(steady_state_allocates_nothing)
{
    struct frame f;
    um_graph *graph = NULL;
    CHECK_OK(frame_open(&f, dev));
    frame_input(&f, 1);
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_capture_end(dev, &graph));
    uint64_t before = 0;
    for (int i = 0; i < 300; i++) {
        if (i == 3)
            before = um_mem_count();
        frame_input(&f, i);
        CHECK_OK(um_graph_launch(dev, graph));
        CHECK_OK(um_discard(dev, UM_QUEUE_MAIN, f.buf, 128, 128));
        CHECK_OK(um_event_record(dev, UM_QUEUE_MAIN, f.done));
        CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
        CHECK(frame_right(&f));
        CHECK_OK(frame_submit(&f, dev));
        CHECK_OK(um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet"));
    }
    CHECK_EQ(um_mem_count() - before, 0);
    um_graph_close(&graph, dev);
    frame_close(&f, dev);
}

/* Everything may be closed while work is in flight: nothing leaks, hangs or is used after it is
 * gone. */
DEVICE_TEST(close_in_flight)
{
    struct frame f;
    um_graph *graph = NULL;
    CHECK_OK(frame_open(&f, dev));
    frame_input(&f, 1);
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(frame_submit(&f, dev));
    CHECK_OK(um_capture_end(dev, &graph));
    CHECK_OK(um_graph_launch(dev, graph));
    CHECK_OK(frame_submit(&f, dev));
    um_graph_close(&graph, dev);
    frame_close(&f, dev);
    CHECK_OK(um_capture_begin(dev)); /* and the device while it captures */
}

/* Every open fails cleanly when memory runs out at its k-th allocation. */
static void failing_allocations(const char *name)
{
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = name;
    s.threads = 2;
    bool done = false;
    for (uint64_t k = 1; !done && k < 200; k++) {
        um_device *dev = NULL;
        um_graph *graph = NULL;
        struct frame f = {0};
        FORGET_ERROR();
        um_mem_fail_at(k);
        um_status st = um_device_open(&dev, &s);
        CHECK((st == UM_OK) == (dev != NULL));
        if (st == UM_OK && dev->caps.launches)
            st = um_load_kernels(dev, kernels, 2);
        if (st == UM_OK)
            st = frame_open(&f, dev);
        if (st == UM_OK) {
            memset(f.host->data, 0, 256);
            st = um_capture_begin(dev);
        }
        if (st == UM_OK) {
            um_status submitted = frame_submit(&f, dev);
            st = um_capture_end(dev, &graph);
            CHECK_EQ(st, submitted);
        }
        if (st == UM_OK)
            st = um_graph_launch(dev, graph);
        if (st == UM_OK)
            st = um_event_sync(dev, f.done, UM_STAGE_PACKET, "packet");
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK_MSG(st == UM_OK || st == UM_ENOMEM, "%s", um_last_error());
        done = st == UM_OK;
        if (dev) {
            um_graph_close(&graph, dev);
            frame_close(&f, dev);
            um_device_close(&dev);
        }
    }
    CHECK(done);
}

TEST(failing_allocations_on_cpu)
{
    failing_allocations("cpu");
}

TEST(failing_allocations_on_guard)
{
    failing_allocations("guard");
}

TEST(failing_allocations_on_cuda_0)
{
    if (um_cuda_count() == 0 && !standin())
        SKIP("device not in this build");
    failing_allocations("cuda:0");
}

/* A backend that loses its device once, to see that the loss is sticky. */
static int backend_calls;
static struct um_device_fns broken_fns;

static um_status broken_fill(um_device *dev, enum um_queue q, um_buf *dst, size_t off, size_t n,
                             uint8_t value)
{
    (void)dev, (void)q, (void)dst, (void)off, (void)n, (void)value;
    backend_calls++;
    return um_fail(UM_EDEVICE, "the card fell off the bus");
}

/* After UM_EDEVICE every call fails at once without reaching the backend and says why; closing
 * works. */
DEVICE_TEST(loss_is_sticky)
{
    struct frame f;
    CHECK_OK(frame_open(&f, dev));
    frame_input(&f, 1);
    CHECK_OK(frame_submit(&f, dev));
    const struct um_device_fns *whole = dev->fns;
    broken_fns = *whole;
    broken_fns.fill = broken_fill;
    dev->fns = &broken_fns;
    backend_calls = 0;
    CHECK_EQ(um_fill(dev, UM_QUEUE_MAIN, f.buf, 0, 4, 0), UM_EDEVICE);
    CHECK_STR(um_last_error(), "the card fell off the bus");
    CHECK_EQ(um_fill(dev, UM_QUEUE_MAIN, f.buf, 0, 4, 0), UM_EDEVICE);
    CHECK_EQ(backend_calls, 1);
    CHECK(strstr(um_last_error(), "um_fill") && strstr(um_last_error(), "fell off the bus"));
    um_buf *buf = NULL;
    float x;
    CHECK_EQ(um_buf_open(&buf, dev, 4, "late"), UM_EDEVICE);
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &f.left), UM_EDEVICE);
    CHECK_EQ(um_event_sync(dev, f.done, UM_STAGE_PACKET, "t"), UM_EDEVICE);
    CHECK_EQ(um_capture_begin(dev), UM_EDEVICE);
    CHECK_EQ(um_download_now(dev, &x, f.buf, 0, 4, UM_STAGE_DEBUG, "t"), UM_EDEVICE);
    dev->fns = whole;
    frame_close(&f, dev);
}

/* ---- races ---- */

#ifdef SEES_RACES
struct pair {
    um_device *dev;
    um_graph *graph[2];
    atomic_int begun, inside;
};

/* Returns when both are in it: neither is over before the other begins. */
static void meet_kernel(const struct um_call *call)
{
    atomic_int *inside = *(atomic_int *const *)call->args;
    atomic_fetch_add_explicit(inside, 1, memory_order_relaxed);
    while (atomic_load_explicit(inside, memory_order_relaxed) < 2)
        ;
}

static void *launch_one(void *ctx)
{
    struct pair *p = ctx;
    int i = atomic_fetch_add_explicit(&p->begun, 1, memory_order_relaxed);
    (void)um_graph_launch(p->dev, p->graph[i]);
    return NULL;
}

/* Graphs of one step each that overlap in a buffer: their kernels touch nothing of it. */
TEST(two_steps_on_one_buffer_are_told)
{
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.threads = 1;
    for (int write = 0; write < 2; write++) {
        struct pair p = {.dev = NULL};
        um_buf *buf = NULL;
        atomic_int *args = &p.inside;
        CHECK_OK(um_device_open(&p.dev, &s));
        CHECK_OK(um_buf_open(&buf, p.dev, 8192, "both"));
        struct um_step step[2];
        for (int i = 0; i < 2; i++) {
            step[i] = (struct um_step){.name = "meet",
                                       .kernel = meet_kernel,
                                       .args = &args,
                                       .n = 1,
                                       .operand = {floats(buf, 512 * (size_t)i, 1024, write && i)}};
            CHECK_OK(um_capture_begin(p.dev));
            CHECK_OK(um_step_run(p.dev, UM_QUEUE_MAIN, &step[i]));
            CHECK_OK(um_capture_end(p.dev, &p.graph[i]));
        }
        CHECK_EQ(racing_is_told(launch_one, &p), write);
        for (int i = 0; i < 2; i++)
            um_graph_close(&p.graph[i], p.dev);
        um_buf_close(&buf);
        um_device_close(&p.dev);
    }
}
#endif

/* ---- opening ---- */

/* Names: what exists opens, what is not in this build and what nobody knows are told apart. */
TEST(device_names)
{
    um_device_settings s;
    um_device *dev = NULL;
    um_device_settings_default(&s);
    CHECK_STR(s.name, "auto");
    CHECK_EQ(s.guard_seed, 1);
    s.threads = 1;
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_STR(um_device_name(dev), um_cuda_count() > 0 ? "cuda:0" : "cpu");
    CHECK_EQ(um_device_threads(dev), 1);
    CHECK(um_device_isa(dev) != NULL);
    um_device_close(&dev);
    s.name = "guard";
    s.threads = 2;
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_STR(um_device_name(dev), "guard");
    CHECK_EQ(um_device_threads(dev), 2);
    CHECK(dev->caps.concurrent && !dev->caps.shared);
    um_device_close(&dev);
    s.name = "cuda:0";
    if (!um_cuda_images[0].name && !standin()) {
        CHECK_EQ(um_device_open(&dev, &s), UM_EUNSUPPORTED);
        CHECK_STR(um_last_error(), "device cuda:0: not in this build (built without GPU kernels)");
    } else if (um_cuda_count() > 0) {
        CHECK_OK(um_device_open(&dev, &s));
        CHECK_STR(um_device_name(dev), "cuda:0");
        CHECK_STR(um_device_precision(dev), "fp16");
        CHECK(strncmp(um_device_isa(dev), "sm_", 3) == 0);
        CHECK(dev->caps.concurrent && dev->caps.launches && !dev->caps.shared);
        um_device_close(&dev);
    } else {
        CHECK_EQ(um_device_open(&dev, &s), UM_EUNSUPPORTED);
        CHECK(strstr(um_last_error(), "device cuda:0: ") && strstr(um_last_error(), "driver"));
    }
    const char *unknown[] = {"gpu", "cuda", "cuda:", "cuda:x", "cuda:1x", "", "CPU"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        s.name = unknown[i];
        CHECK_EQ(um_device_open(&dev, &s), UM_EINVAL);
        CHECK(dev == NULL && strstr(um_last_error(), unknown[i]) &&
              strstr(um_last_error(), "cuda:N"));
    }
    s.name = "cpu";
    s.threads = -1;
    CHECK_EQ(um_device_open(&dev, &s), UM_EINVAL);
    s.threads = 1;
    s.struct_size = 0;
    CHECK_EQ(um_device_open(&dev, &s), UM_EINVAL);
    um_device_close(&dev);
    um_device_close(NULL);
}

TEST_MAIN
