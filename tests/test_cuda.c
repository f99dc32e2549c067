/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU backend on a stand-in of the driver: what it asks of a driver, what it makes of errors,
 * and that the stand-in notices a call that is missing. */
#include "device/backend.h"
#include "device/cuda_driver.h"
#include "nn/cuda/op_cuda.h"

#include "standin.h"
#include "test.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static um_device *dev;

static bool said(const char *a, const char *b, const char *c)
{
    const char *text = um_last_error();
    return strstr(text, a) && strstr(text, b) && strstr(text, c);
}

/* A fresh stand-in. */
static void begin(void)
{
    setenv("ULTRAMOTION_CUDA_DRIVER", UM_STANDIN_PATH, 1);
    um_standin_reset();
    dev = NULL;
}

static um_status open_gpu(int ordinal)
{
    char name[16];
    um_device_settings s;
    um_device_settings_default(&s);
    snprintf(name, sizeof name, "cuda:%d", ordinal);
    s.name = name;
    return um_device_open(&dev, &s);
}

static uint64_t calls(void)
{
    struct um_standin_counts c;
    um_standin_counts(&c);
    return c.calls;
}

/* ---- a small pipeline: upload, two queues, join, download ---- */

/* What the step launches instead of itself; see the tests. */
static struct {
    const char *kernel;
    unsigned threads;
    int n;
    size_t size;
} odd;

struct affine {
    float scale, shift;
};

static void affine_kernel(const struct um_call *call)
{
    const struct affine *a = call->args;
    struct {
        float *y;
        const float *x;
        int n;
        float scale, shift;
    } args = {call->t[0].data, call->t[1].data, odd.n ? odd.n : call->t[0].w, a->scale, a->shift};
    call->stream->launch(call->stream,
                         &(struct um_launch){.kernel = odd.kernel ? odd.kernel : "um_test_affine",
                                             .grid = {1, 1, 1},
                                             .threads = odd.threads ? odd.threads : 32,
                                             .args = &args,
                                             .size = odd.size ? odd.size : sizeof args});
}

static struct um_operand floats(um_buf *buf, size_t first, bool write)
{
    return (struct um_operand){.buf = buf,
                               .offset = 4 * first,
                               .size = 4 * 8,
                               .write = write,
                               .view = {.dtype = UM_F32, .h = 1, .w = 8, .c = 1, .ld = 1}};
}

struct pipe {
    um_buf *buf;
    um_hostbuf *host;
    um_event *start, *up, *side, *done;
    struct affine twice, thrice;
    struct um_step left, right;
    um_graph *graph;
    bool forgetful; /* the side queue does not wait for the upload */
};

static um_status pipe_open(struct pipe *p)
{
    static const char *const names[] = {"um_test_affine"};
    *p = (struct pipe){.twice = {2, 1}, .thrice = {3, 1}};
    um_status st = um_load_kernels(dev, names, 1);
    if (st == UM_OK)
        st = um_buf_open(&p->buf, dev, 4 * 64, "frame");
    if (st == UM_OK)
        st = um_hostbuf_open(&p->host, dev, 4 * 64);
    if (st == UM_OK)
        st = um_event_open_timed(&p->start, dev);
    if (st == UM_OK)
        st = um_event_open(&p->up, dev);
    if (st == UM_OK)
        st = um_event_open(&p->side, dev);
    if (st == UM_OK)
        st = um_event_open_timed(&p->done, dev);
    p->left = (struct um_step){.name = "left",
                               .kernel = affine_kernel,
                               .args = &p->twice,
                               .n = 2,
                               .operand = {floats(p->buf, 8, true), floats(p->buf, 0, false)}};
    p->right = (struct um_step){.name = "right",
                                .kernel = affine_kernel,
                                .args = &p->thrice,
                                .n = 2,
                                .operand = {floats(p->buf, 16, true), floats(p->buf, 0, false)}};
    return st;
}

static void pipe_close(struct pipe *p)
{
    um_graph_close(&p->graph, dev);
    um_event_close(&p->done, dev);
    um_event_close(&p->side, dev);
    um_event_close(&p->up, dev);
    um_event_close(&p->start, dev);
    um_hostbuf_close(&p->host);
    um_buf_close(&p->buf);
    um_device_close(&dev);
}

static um_status pipe_submit(struct pipe *p)
{
    enum um_queue main = UM_QUEUE_MAIN, side = UM_QUEUE_SIDE;
    um_status st = um_event_record(dev, main, p->start);
    if (st == UM_OK)
        st = um_upload(dev, main, p->buf, 0, p->host, 0, 32, UM_STAGE_UPLOAD, "pixels");
    if (st == UM_OK)
        st = um_event_record(dev, main, p->up);
    if (st == UM_OK && !p->forgetful)
        st = um_event_wait(dev, side, p->up);
    if (st == UM_OK)
        st = um_fill(dev, main, p->buf, 96, 32, 7);
    if (st == UM_OK)
        st = um_step_run(dev, main, &p->left);
    if (st == UM_OK)
        st = um_step_run(dev, side, &p->right);
    if (st == UM_OK)
        st = um_event_record(dev, side, p->side);
    if (st == UM_OK)
        st = um_event_wait(dev, main, p->side);
    if (st == UM_OK)
        st = um_download(dev, main, p->host, 64, p->buf, 32, 96, UM_STAGE_PACKET, "packet");
    return st == UM_OK ? um_event_record(dev, main, p->done) : st;
}

static um_status pipe_capture(struct pipe *p)
{
    um_status st = um_capture_begin(dev);
    if (st == UM_OK)
        st = pipe_submit(p);
    um_status end = dev->capturing ? um_capture_end(dev, &p->graph) : UM_OK;
    return st == UM_OK ? end : st;
}

/* One frame. UM_EASSERT: no error, but the wrong numbers. */
static um_status pipe_frame(struct pipe *p, int seed)
{
    float *h = p->host->data;
    for (int i = 0; i < 8; i++)
        h[i] = (float)(seed * 100 + i);
    memset(h + 8, 0, 4 * 56);
    um_status st = p->graph ? um_graph_launch(dev, p->graph) : pipe_submit(p);
    if (st == UM_OK)
        st = um_event_sync(dev, p->done, UM_STAGE_PACKET, "packet");
    uint64_t ns = 0;
    if (st == UM_OK)
        st = um_event_elapsed(dev, p->start, p->done, &ns);
    for (int i = 0; st == UM_OK && i < 8; i++)
        if (h[16 + i] != 2 * h[i] + 1 || h[24 + i] != 3 * h[i] + 1 ||
            ((const char *)(h + 32))[4 * i + 3] != 7)
            st = um_fail(UM_EASSERT, "wrong numbers");
    return st;
}

/* The device and the pipeline, captured or not, for a few frames. */
static um_status pipe_whole(bool captured)
{
    struct pipe p;
    um_status st = open_gpu(0);
    if (st != UM_OK)
        return st;
    st = pipe_open(&p);
    if (st == UM_OK && captured)
        st = pipe_capture(&p);
    for (int i = 1; st == UM_OK && i < 4; i++)
        st = pipe_frame(&p, i);
    char why[512];
    snprintf(why, sizeof why, "%s", um_last_error());
    pipe_close(&p);
    return st == UM_OK ? st : um_fail(st, "%s", why);
}

/* ---- opening ---- */

/* What is missing is named, and there is no GPU then. */
TEST(missing_driver)
{
    begin();
    setenv("ULTRAMOTION_CUDA_DRIVER", "/nowhere/libcuda.so.1", 1);
    CHECK_EQ(um_cuda_count(), 0);
    CHECK_EQ(open_gpu(0), UM_EUNSUPPORTED);
    CHECK(said("device cuda:0", "no NVIDIA driver was found", "/nowhere/libcuda.so.1"));
    CHECK(dev == NULL);
}

TEST(old_driver)
{
    begin();
    um_standin_driver(11040);
    CHECK_EQ(um_cuda_count(), 0);
    CHECK_EQ(open_gpu(0), UM_EUNSUPPORTED);
    CHECK_MSG(said("device cuda:0", "CUDA 11.4", "12.0"), "%s", um_last_error());
}

TEST(missing_symbol)
{
    begin();
    um_standin_hide("cuGraphLaunch");
    CHECK_EQ(open_gpu(0), UM_EUNSUPPORTED);
    CHECK_MSG(said("device cuda:0", "CUDA 13.0", "cuGraphLaunch"), "%s", um_last_error());
    begin();
    um_standin_driver(12020); /* has neither of two optional ones */
    CHECK_OK(pipe_whole(true));
    CHECK_EQ(um_standin_live(), 0);
}

TEST(no_devices)
{
    begin();
    um_standin_devices(0);
    CHECK_EQ(um_cuda_count(), 0);
    CHECK_EQ(open_gpu(0), UM_EUNSUPPORTED);
    CHECK_MSG(said("device cuda:0", "CUDA 13.0", "0 GPUs"), "%s", um_last_error());
    um_standin_devices(2);
    CHECK_EQ(um_cuda_count(), 2);
    CHECK_EQ(open_gpu(2), UM_EUNSUPPORTED);
    CHECK(said("device cuda:2", "CUDA 13.0", "2 GPUs"));
    CHECK_OK(open_gpu(1));
    CHECK_STR(um_device_name(dev), "cuda:1");
    CHECK_STR(um_device_isa(dev), "sm_90");
    um_device_close(&dev);
}

/* The environment says the same to a command. */
TEST(environment)
{
    setenv("UM_STANDIN_DEVICES", "0", 1);
    setenv("UM_STANDIN_FAIL", "cuInit:2:999,cuMemAlloc:1:2", 1);
    begin();
    unsetenv("UM_STANDIN_DEVICES");
    unsetenv("UM_STANDIN_FAIL");
    CHECK_EQ(open_gpu(0), UM_EUNSUPPORTED);
    CHECK_EQ(open_gpu(0), UM_EDEVICE);
    CHECK(said("cuInit", "999", "CUDA_ERROR_UNKNOWN"));
}

TEST(no_kernels_for_this_gpu)
{
    static const unsigned code[] = {
        UM_CU_ERROR_NO_BINARY_FOR_GPU, UM_CU_ERROR_UNSUPPORTED_PTX_VERSION, UM_CU_ERROR_INVALID_PTX,
        UM_CU_ERROR_JIT_COMPILER_NOT_FOUND, UM_CU_ERROR_JIT_COMPILATION_DISABLED};
    for (size_t i = 0; i < sizeof code / sizeof *code; i++) {
        begin();
        um_standin_capability(7, 5);
        um_standin_fail("cuModuleLoadData", 1, code[i]);
        CHECK_EQ(open_gpu(0), UM_EUNSUPPORTED);
        CHECK_MSG(said("no kernels for this GPU", "sm_75", "cuModuleLoadData"), "%s",
                  um_last_error());
        CHECK_EQ(um_standin_live(), 0);
    }
}

/* Whatever fails while opening is named, and what was open is closed. */
TEST(open_fails_anywhere)
{
    static const struct {
        const char *api;
        int k;
    } at[] = {{"cuInit", 1},
              {"cuDeviceGetCount", 1},
              {"cuDeviceGet", 1},
              {"cuDeviceGetAttribute", 1},
              {"cuDeviceGetAttribute", 2},
              {"cuDeviceGetAttribute", 3},
              {"cuDeviceTotalMem", 1},
              {"cuDevicePrimaryCtxRetain", 1},
              {"cuCtxGetStreamPriorityRange", 1},
              {"cuStreamCreateWithPriority", 1},
              {"cuStreamCreateWithPriority", 2},
              {"cuEventCreate", 1},
              {"cuModuleLoadData", 1}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        begin();
        um_standin_fail(at[i].api, at[i].k, UM_CU_ERROR_OUT_OF_MEMORY);
        CHECK_EQ(open_gpu(0), UM_ENOMEM);
        CHECK_MSG(said("device cuda:0", at[i].api, "CUDA_ERROR_OUT_OF_MEMORY"), "%s",
                  um_last_error());
        CHECK(dev == NULL);
        CHECK_EQ(um_standin_live(), 0);
        CHECK_OK(open_gpu(0));
        um_device_close(&dev);
        CHECK_EQ(um_standin_live(), 0);
    }
}

TEST(describe)
{
    begin();
    char text[200];
    CHECK_OK(um_cuda_describe(0, text, sizeof text));
    CHECK_STR(text, "stand-in 0, sm_90, 132 SMs, 16.0 GiB, driver for CUDA 13.0");
    CHECK_EQ(um_cuda_describe(1, text, sizeof text), UM_EUNSUPPORTED);
    CHECK_EQ(um_standin_live(), 0);
}

/* The caller's context is current again after each call. */
TEST(context_is_restored)
{
    begin();
    um_standin_devices(2);
    struct um_cuda_driver cu;
    CHECK_OK(um_cuda_driver_open(&cu, "test"));
    um_cu_context mine = NULL, now = NULL;
    CHECK_EQ(cu.cuDevicePrimaryCtxRetain(&mine, 1), 0);
    CHECK_EQ(cu.cuCtxSetCurrent(mine), 0);
    struct pipe p;
    CHECK_OK(open_gpu(0));
    cu.cuCtxGetCurrent(&now);
    CHECK(now == mine);
    CHECK_OK(pipe_open(&p));
    CHECK_OK(pipe_capture(&p));
    CHECK_OK(pipe_frame(&p, 1));
    cu.cuCtxGetCurrent(&now);
    CHECK(now == mine);
    pipe_close(&p);
    cu.cuCtxGetCurrent(&now);
    CHECK(now == mine);
    CHECK_EQ(cu.cuDevicePrimaryCtxRelease(1), 0);
    CHECK_EQ(um_standin_live(), 0);
}

/* ---- kernels ---- */

TEST(kernels)
{
    begin();
    struct pipe p;
    CHECK_OK(open_gpu(0));
    static const char *const unknown[] = {"um_test_affine", "um_no_such"};
    CHECK_EQ(um_load_kernels(dev, unknown, 2), UM_EUNSUPPORTED);
    CHECK(said("device cuda:0", "\"um_no_such\"", "not in this build"));
    CHECK_OK(pipe_open(&p));
    odd.kernel = "um_test_count";
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &p.left), UM_EINVAL);
    CHECK(said("\"left\"", "\"um_test_count\"", "not loaded"));
    odd.kernel = NULL;
    odd.size = 20;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &p.left), UM_EINVAL);
    CHECK(said("\"left\"", "\"um_test_affine\"", "32 bytes, not 20"));
    odd.size = 0;
    odd.threads = 2048;
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &p.left), UM_EINVAL);
    CHECK(said("\"left\"", "cuLaunchKernel", "2048 threads"));
    odd.threads = 0;
    um_standin_shapes_only(1);
    CHECK_EQ(pipe_frame(&p, 1), UM_EASSERT); /* launched, checked, not run */
    um_standin_shapes_only(0);
    CHECK_OK(pipe_frame(&p, 2));
    pipe_close(&p);
    CHECK_EQ(um_standin_live(), 0);
}

/* A kernel lies in the image of its source alone, and is asked for there: tools that watch a driver
 * count every call that fails. */
TEST(opening_makes_no_call_that_fails)
{
    struct um_standin_counts c;
    struct pipe p;
    int n = 0;
    const char *const *kernels = um_cuda_kernels(&n);
    begin();
    CHECK_OK(open_gpu(0));
    CHECK_OK(um_load_kernels(dev, kernels, n));
    CHECK_OK(pipe_open(&p));
    CHECK_OK(pipe_capture(&p));
    CHECK_OK(pipe_frame(&p, 1));
    pipe_close(&p);
    um_standin_counts(&c);
    CHECK_MSG(c.refused == 0, "%d refused, the last: %s", (int)c.refused, um_standin_error());
}

/* ---- errors ---- */

/* Memory that runs out is named, and harms nothing else. */
TEST(out_of_memory)
{
    begin();
    um_buf *buf = NULL;
    um_hostbuf *host = NULL;
    CHECK_OK(open_gpu(0));
    um_standin_fail("cuMemAlloc", 1, UM_CU_ERROR_OUT_OF_MEMORY);
    CHECK_EQ(um_buf_open(&buf, dev, 12345, "weights"), UM_ENOMEM);
    CHECK(said("cuMemAlloc", "\"weights\" of 12345 bytes", "out of memory"));
    um_standin_fail("cuMemHostAlloc", 1, UM_CU_ERROR_OUT_OF_MEMORY);
    CHECK_EQ(um_hostbuf_open(&host, dev, 777), UM_ENOMEM);
    CHECK(said("cuMemHostAlloc", "777 bytes", "out of memory"));
    CHECK_OK(um_buf_open(&buf, dev, 12345, "weights"));
    um_buf_close(&buf);
    um_device_close(&dev);
    CHECK_EQ(um_standin_live(), 0);
}

/* What a call is refused for does not lose the device; a capture that it is in fails. */
TEST(refused_calls)
{
    static const char *const api[] = {"cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",
                                      "cuMemsetD8Async",   "cuLaunchKernel",
                                      "cuEventRecord",     "cuStreamWaitEvent"};
    for (size_t i = 0; i < 2 * sizeof api / sizeof *api; i++) {
        begin();
        struct pipe p;
        CHECK_OK(open_gpu(0));
        CHECK_OK(pipe_open(&p));
        um_standin_fail(api[i / 2], 1, UM_CU_ERROR_INVALID_VALUE);
        CHECK_EQ(i % 2 ? pipe_capture(&p) : pipe_submit(&p), UM_EINVAL);
        CHECK_MSG(said("device cuda:0", api[i / 2], "CUDA_ERROR_INVALID_VALUE"), "%s",
                  um_last_error());
        CHECK(p.graph == NULL);
        um_buf *buf = NULL;
        CHECK_OK(um_buf_open(&buf, dev, 4, "after"));
        um_buf_close(&buf);
        pipe_close(&p);
        CHECK_EQ(um_standin_live(), 0);
    }
}

/* A GPU that fails is lost within the call, then every call fails without reaching the driver, and
 * so does closing. */
static void check_lost(struct pipe *p, const char *code)
{
    CHECK_EQ(pipe_frame(p, 1), UM_EDEVICE);
    CHECK_MSG(said("device cuda:0", code, "error"), "%s", um_last_error());
    uint64_t before = calls();
    float x;
    um_buf *buf = NULL;
    um_graph *graph = NULL;
    CHECK_EQ(um_event_sync(dev, p->done, UM_STAGE_PACKET, "packet"), UM_EDEVICE);
    CHECK(said("is lost", code, "error"));
    CHECK_EQ(um_buf_open(&buf, dev, 4, "late"), UM_EDEVICE);
    CHECK_EQ(um_step_run(dev, UM_QUEUE_MAIN, &p->left), UM_EDEVICE);
    CHECK_EQ(um_graph_launch(dev, p->graph), UM_EDEVICE);
    CHECK_EQ(um_download_now(dev, &x, p->buf, 0, 4, UM_STAGE_DEBUG, "t"), UM_EDEVICE);
    CHECK_EQ(um_capture_begin(dev), UM_EDEVICE);
    CHECK_EQ(um_capture_end(dev, &graph), UM_EINVAL);
    pipe_close(p);
    CHECK(dev == NULL);
    CHECK_EQ(calls(), before);
}

TEST(loss)
{
    static const struct {
        const char *api; /* NULL: in a kernel */
        int k;
        unsigned code;
        const char *name;
    } at[] = {{"cuEventQuery", 1, UM_CU_ERROR_ILLEGAL_ADDRESS, "700"},
              {"cuEventQuery", 1, UM_CU_ERROR_OUT_OF_MEMORY, "2, CUDA_ERROR_OUT_OF_MEMORY"},
              {"cuEventQuery", 1, UM_CU_ERROR_LAUNCH_OUT_OF_RESOURCES, "701"},
              {"cuGraphLaunch", 1, UM_CU_ERROR_UNKNOWN, "999"},
              {"cuEventRecord", 1, UM_CU_ERROR_ECC_UNCORRECTABLE, "214"},
              {NULL, 1, UM_CU_ERROR_ILLEGAL_ADDRESS, "700"},
              {NULL, 2, UM_CU_ERROR_LAUNCH_FAILED, "719"}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        begin();
        struct pipe p;
        CHECK_OK(open_gpu(0));
        CHECK_OK(pipe_open(&p));
        CHECK_OK(pipe_capture(&p));
        if (at[i].api)
            um_standin_fail(at[i].api, at[i].k, at[i].code);
        else
            um_standin_fail_kernel(at[i].k, at[i].code);
        check_lost(&p, at[i].name);
    }
}

/* The wait that sleeps fails like the one that polls. */
TEST(loss_asleep)
{
    int slept = 0;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        begin();
        struct pipe p;
        CHECK_OK(open_gpu(0));
        CHECK_OK(pipe_open(&p));
        um_standin_seed(seed);
        um_standin_fail("cuEventSynchronize", 1, UM_CU_ERROR_LAUNCH_TIMEOUT);
        um_status st = pipe_frame(&p, 1);
        CHECK(st == UM_OK || st == UM_EDEVICE);
        if (st == UM_EDEVICE) {
            CHECK(said("cuEventSynchronize", "702", "CUDA_ERROR_LAUNCH_TIMEOUT"));
            slept++;
        }
        pipe_close(&p);
    }
    CHECK(slept > 0 && slept < 8);
}

/* A capture during which the GPU goes is over; closing does not call the driver. */
TEST(loss_while_capturing)
{
    begin();
    struct pipe p;
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    um_standin_fail("cuMemsetD8Async", 1, UM_CU_ERROR_ILLEGAL_ADDRESS);
    CHECK_OK(um_capture_begin(dev));
    CHECK_EQ(pipe_submit(&p), UM_EDEVICE);
    uint64_t before = calls();
    CHECK_EQ(um_capture_end(dev, &p.graph), UM_EDEVICE);
    CHECK(p.graph == NULL);
    pipe_close(&p);
    CHECK_EQ(calls(), before);
}

/* ---- order ---- */

/* Any order that the driver may choose gives the same numbers. */
TEST(seeds)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (int captured = 0; captured < 2; captured++) {
            begin();
            um_standin_seed(seed);
            CHECK_OK(pipe_whole(captured));
            CHECK_EQ(um_standin_live(), 0);
        }
}

/* A wait that is not there is named, whatever the seed. (In a capture device.c sees it first.) */
TEST(missing_event)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        begin();
        struct pipe p;
        CHECK_OK(open_gpu(0));
        CHECK_OK(pipe_open(&p));
        um_standin_seed(seed);
        p.forgetful = true;
        CHECK_EQ(pipe_frame(&p, 1), UM_EDEVICE);
        CHECK_MSG(said("missing event between", "\"upload\" (stream 0)", "\"right\" (stream 1)"),
                  "%s", um_last_error());
        pipe_close(&p);
    }
}

/* Two graphs of one device, and single commands, are ordered by the main queue; the side queue has
 * to wait for a graph. */
TEST(graphs_and_queues)
{
    for (int forgetful = 0; forgetful < 2; forgetful++) {
        begin();
        struct pipe p;
        CHECK_OK(open_gpu(0));
        CHECK_OK(pipe_open(&p));
        CHECK_OK(pipe_capture(&p));
        CHECK_OK(um_graph_launch(dev, p.graph));
        CHECK_OK(um_graph_launch(dev, p.graph));
        if (!forgetful)
            CHECK_OK(um_event_wait(dev, UM_QUEUE_SIDE, p.up)); /* an event inside the graph */
        CHECK_OK(um_step_run(dev, UM_QUEUE_SIDE, &p.right));
        um_status st = um_event_sync(dev, p.done, UM_STAGE_PACKET, "packet");
        CHECK_EQ(st, forgetful ? UM_EDEVICE : UM_OK);
        pipe_close(&p);
    }
}

/* An event that keeps the time and that nothing waits for needs no join. */
TEST(timed_event_at_the_end_of_a_branch)
{
    begin();
    struct pipe p;
    um_event *last = NULL;
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    CHECK_OK(um_event_open_timed(&last, dev));
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(pipe_submit(&p));
    CHECK_OK(um_event_record(dev, UM_QUEUE_SIDE, last));
    CHECK_OK(um_capture_end(dev, &p.graph));
    CHECK_OK(pipe_frame(&p, 1));
    uint64_t ns = 0;
    CHECK_OK(um_event_elapsed(dev, p.start, last, &ns));
    um_graph_close(&p.graph, dev);
    CHECK_OK(um_event_sync(dev, last, UM_STAGE_PACKET, "the graph is gone, the event has passed"));
    um_event_close(&last, dev);
    pipe_close(&p);
    CHECK_EQ(um_standin_live(), 0);
}

/* ---- memory ---- */

static sigjmp_buf fault_jump;
static void on_fault(int sig)
{
    (void)sig;
    siglongjmp(fault_jump, 1);
}

/* Does reading *p fault? */
static bool faults(const volatile char *p)
{
    struct sigaction act = {0}, old_segv, old_bus;
    act.sa_handler = on_fault;
    sigaction(SIGSEGV, &act, &old_segv);
    sigaction(SIGBUS, &act, &old_bus);
    volatile bool faulted = false;
    if (sigsetjmp(fault_jump, 1) == 0)
        (void)*p;
    else
        faulted = true;
    sigaction(SIGSEGV, &old_segv, NULL);
    sigaction(SIGBUS, &old_bus, NULL);
    return faulted;
}

/* The host cannot touch device memory at all, nor pinned memory from submit to wait. */
TEST(early_touch_faults)
{
    begin();
    struct pipe p;
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    CHECK(faults((const char *)p.buf->handle)); /* NOLINT(performance-no-int-to-ptr) */
    CHECK(isnan(((float *)p.host->data)[0]));
    for (int captured = 0; captured < 2; captured++) {
        if (captured) {
            CHECK_OK(pipe_capture(&p));
            CHECK(!faults(p.host->data));
            CHECK_OK(um_graph_launch(dev, p.graph));
        } else {
            CHECK_OK(pipe_submit(&p));
        }
        CHECK(faults(p.host->data));
        CHECK_OK(um_event_sync(dev, p.done, UM_STAGE_PACKET, "packet"));
        CHECK(!faults(p.host->data));
        CHECK(faults((const char *)p.buf->handle + 255)); /* NOLINT(performance-no-int-to-ptr) */
    }
    CHECK(faults((const char *)p.host->data + 4096));
    pipe_close(&p);
}

/* New and discarded memory is NaN; a discard is no node of a graph. */
TEST(poison)
{
    begin();
    struct pipe p;
    struct um_standin_graph_stats s;
    float x[4];
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    CHECK_OK(um_download_now(dev, x, p.buf, 100, sizeof x, UM_STAGE_DEBUG, "t"));
    CHECK(isnan(x[0]) && isnan(x[3]));
    CHECK_OK(um_fill(dev, UM_QUEUE_MAIN, p.buf, 0, 256, 0));
    CHECK_OK(um_capture_begin(dev));
    CHECK_OK(um_discard(dev, UM_QUEUE_MAIN, p.buf, 104, 8));
    CHECK_OK(um_capture_end(dev, &p.graph));
    um_standin_graph_stats(&s);
    CHECK(s.nodes == 0 && s.depth == 0);
    CHECK_OK(um_graph_launch(dev, p.graph));
    CHECK_OK(um_download_now(dev, x, p.buf, 100, sizeof x, UM_STAGE_DEBUG, "t"));
    CHECK(x[0] == 0 && isnan(x[1]) && isnan(x[2]) && x[3] == 0);
    pipe_close(&p);
}

/* A kernel that writes behind its buffer is named by the next wait. */
TEST(overrun)
{
    begin();
    struct pipe p;
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    odd.n = 60; /* floats 8..68 of 64 */
    um_status st = pipe_frame(&p, 1);
    odd.n = 0;
    CHECK_EQ(st, UM_EDEVICE);
    CHECK_MSG(said("red zone of an allocation of 256 bytes", "offset 256", "writer is"), "%s",
              um_last_error());
    pipe_close(&p);
}

/* A graph whose memory is gone is told at its launch, not by its numbers. */
TEST(stale_graph)
{
    begin();
    struct pipe p;
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    CHECK_OK(pipe_capture(&p));
    um_buf_close(&p.buf);
    CHECK_EQ(pipe_frame(&p, 1), UM_EDEVICE);
    CHECK(said("in a graph", "uses memory that was freed", "UM_STANDIN_VIOLATION"));
    pipe_close(&p);
}

/* ---- graphs ---- */

TEST(graph_shape)
{
    begin();
    struct pipe p;
    struct um_standin_graph_stats s;
    char text[2000];
    CHECK_OK(open_gpu(0));
    CHECK_OK(pipe_open(&p));
    CHECK_OK(pipe_capture(&p));
    um_standin_graph_stats(&s);
    CHECK_EQ(s.nodes, 7);
    CHECK_EQ(s.kernels, 2);
    CHECK_EQ(s.copies, 2);
    CHECK_EQ(s.fills, 1);
    CHECK_EQ(s.records, 2);
    CHECK_EQ(s.depth, 6); /* time, upload, fill, left, download, time */
    CHECK_EQ(s.edges, 7);
    size_t n = um_standin_graph_dump(text, sizeof text);
    CHECK(n < sizeof text);
    CHECK_MSG(strstr(text, "4 kernel um_test_affine stream 1 after 1\n") &&
                  strstr(text, "5 download - stream 0 after 3,4\n"),
              "%s", text);
    CHECK_EQ(um_standin_graph_dump(NULL, 0), n);
    pipe_close(&p);
}

/* The ledger of device.c says what the driver was asked for. */
TEST(ledger_is_the_drivers)
{
    for (int captured = 0; captured < 2; captured++) {
        begin();
        struct pipe p;
        struct um_standin_counts before, c;
        um_transfers t;
        CHECK_OK(open_gpu(0));
        CHECK_OK(pipe_open(&p));
        if (captured)
            CHECK_OK(pipe_capture(&p));
        um_standin_counts(&before);
        for (int i = 0; i < 5; i++)
            CHECK_OK(pipe_frame(&p, i));
        um_standin_counts(&c);
        um_device_transfers(dev, &t);
        CHECK_EQ(t.up, 5);
        CHECK_EQ(c.up, t.up);
        CHECK_EQ(c.down, t.down);
        CHECK_EQ(c.waits, t.waits);
        CHECK_EQ(c.up_bytes, t.up_bytes);
        CHECK_EQ(c.down_bytes, t.down_bytes);
        CHECK_EQ(c.kernels, 10);
        CHECK_EQ(c.fills, 5);
        CHECK_EQ(c.graphs, captured ? 5 : 0);
        CHECK_EQ(c.copies, 0);
        CHECK_EQ(c.drains, before.drains);
        pipe_close(&p);
    }
}

/* ---- the rules of a capture, at the driver's functions ---- */

struct raw {
    struct um_cuda_driver cu;
    um_cu_context context;
    um_cu_stream a, b;
    um_cu_event e, f;
    um_cu_ptr memory;
    um_cu_graph graph;
};

/* A driver with two streams and two events. */
static void raw_open(struct raw *r)
{
    begin();
    *r = (struct raw){0};
    CHECK_OK(um_cuda_driver_open(&r->cu, "test"));
    CHECK_EQ(r->cu.cuInit(0), 0);
    CHECK_EQ(r->cu.cuDevicePrimaryCtxRetain(&r->context, 0), 0);
    CHECK_EQ(r->cu.cuMemAlloc(&r->memory, 64), UM_CU_ERROR_INVALID_CONTEXT);
    CHECK_EQ(r->cu.cuCtxSetCurrent(r->context), 0);
    CHECK_EQ(r->cu.cuStreamCreateWithPriority(&r->a, UM_CU_STREAM_NON_BLOCKING, 0), 0);
    CHECK_EQ(r->cu.cuStreamCreateWithPriority(&r->b, UM_CU_STREAM_NON_BLOCKING, 0), 0);
    CHECK_EQ(r->cu.cuEventCreate(&r->e, 0), 0);
    CHECK_EQ(r->cu.cuEventCreate(&r->f, 0), 0);
    CHECK_EQ(r->cu.cuMemAlloc(&r->memory, 64), 0);
    CHECK_EQ(r->cu.cuEventRecord(r->f, r->b), 0); /* before a capture */
}

/* And a capture begun in the first. */
static void raw_begin(struct raw *r)
{
    raw_open(r);
    CHECK_EQ(r->cu.cuStreamBeginCapture(r->a, UM_CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), 0);
    CHECK_EQ(r->cu.cuMemsetD8Async(r->memory, 0, 64, r->a), 0);
    CHECK_EQ(r->cu.cuEventRecord(r->e, r->a), 0);
}

/* The capture was killed: its stream refuses, its end gives no graph, and then all is well. */
static void check_killed(struct raw *r)
{
    CHECK_EQ(r->cu.cuMemsetD8Async(r->memory, 0, 64, r->a), UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK_EQ(r->cu.cuStreamEndCapture(r->a, &r->graph), UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(r->graph == NULL);
    CHECK_EQ(r->cu.cuMemsetD8Async(r->memory, 0, 64, r->a), 0);
    CHECK_EQ(r->cu.cuStreamSynchronize(r->a), 0);
}

TEST(capture_forbids_waits)
{
    struct raw r;
    int failures = test_failures;
    for (int i = 0; i < 5 && test_failures == failures; i++) {
        raw_begin(&r);
        unsigned got = i == 0   ? r.cu.cuStreamSynchronize(r.a)
                       : i == 1 ? r.cu.cuStreamSynchronize(r.b)
                       : i == 2 ? r.cu.cuEventQuery(r.f)
                       : i == 3 ? r.cu.cuEventQuery(r.e)
                                : r.cu.cuEventSynchronize(r.e);
        CHECK_EQ(got, i < 3 ? UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED : UM_CU_ERROR_CAPTURED_EVENT);
        check_killed(&r);
    }
}

TEST(capture_forbids_memory_and_modules)
{
    struct raw r;
    int failures = test_failures;
    for (int i = 0; i < 4 && test_failures == failures; i++) {
        raw_begin(&r);
        um_cu_ptr memory = 0;
        um_cu_module module = NULL;
        void *pinned = NULL;
        unsigned got = i == 0   ? r.cu.cuMemAlloc(&memory, 64)
                       : i == 1 ? r.cu.cuMemFree(r.memory)
                       : i == 2 ? r.cu.cuMemHostAlloc(&pinned, 64, 0)
                                : r.cu.cuModuleLoadData(&module, "image");
        CHECK_EQ(got, UM_CU_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        check_killed(&r);
    }
}

TEST(capture_forks_and_joins)
{
    struct raw r;
    raw_begin(&r); /* a fork that is not joined */
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.b, r.e, 0), 0);
    CHECK_EQ(r.cu.cuMemsetD8Async(r.memory, 1, 64, r.b), 0);
    CHECK_EQ(r.cu.cuStreamEndCapture(r.a, &r.graph), UM_CU_ERROR_STREAM_CAPTURE_UNJOINED);
    CHECK(r.graph == NULL);
    CHECK_EQ(r.cu.cuStreamSynchronize(r.b), 0); /* it is out of the capture */

    raw_begin(&r); /* one that is */
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.b, r.e, 0), 0);
    CHECK_EQ(r.cu.cuMemsetD8Async(r.memory, 1, 64, r.b), 0);
    CHECK_EQ(r.cu.cuEventRecord(r.e, r.b), 0);
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.a, r.e, 0), 0);
    CHECK_EQ(r.cu.cuStreamEndCapture(r.a, &r.graph), 0);
    CHECK(r.graph != NULL);
    CHECK_EQ(r.cu.cuEventQuery(r.e), UM_CU_ERROR_CAPTURED_EVENT);
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.a, r.e, 0), UM_CU_ERROR_STREAM_CAPTURE_ISOLATION);

    raw_begin(&r); /* the end in a stream that only takes part */
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.b, r.e, 0), 0);
    CHECK_EQ(r.cu.cuStreamEndCapture(r.b, &r.graph), UM_CU_ERROR_STREAM_CAPTURE_UNMATCHED);
    check_killed(&r);
    CHECK_EQ(r.cu.cuStreamEndCapture(r.a, &r.graph), UM_CU_ERROR_ILLEGAL_STATE);

    raw_begin(&r); /* an event from before the capture */
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.a, r.f, 0), UM_CU_ERROR_STREAM_CAPTURE_ISOLATION);
    check_killed(&r);

    raw_begin(&r); /* one that the graph waits for at each launch */
    unsigned status = 7;
    CHECK_EQ(r.cu.cuStreamIsCapturing(r.b, &status), 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.b, r.f, UM_CU_EVENT_WAIT_EXTERNAL),
             UM_CU_ERROR_INVALID_VALUE);
    CHECK_EQ(r.cu.cuStreamIsCapturing(r.a, &status), 0);
    CHECK_EQ(status, UM_CU_STREAM_CAPTURE_STATUS_ACTIVE);
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.a, r.f, UM_CU_EVENT_WAIT_EXTERNAL), 0);
    CHECK_EQ(r.cu.cuStreamEndCapture(r.a, &r.graph), 0);

    raw_begin(&r); /* an event of another capture */
    CHECK_EQ(r.cu.cuStreamBeginCapture(r.b, UM_CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), 0);
    CHECK_EQ(r.cu.cuStreamWaitEvent(r.b, r.e, 0), UM_CU_ERROR_STREAM_CAPTURE_MERGE);
    CHECK_EQ(r.cu.cuStreamEndCapture(r.b, &r.graph), UM_CU_ERROR_STREAM_CAPTURE_INVALIDATED);
    check_killed(&r);

    raw_begin(&r); /* the legacy stream */
    CHECK_EQ(r.cu.cuMemsetD8Async(r.memory, 0, 64, NULL), UM_CU_ERROR_STREAM_CAPTURE_IMPLICIT);
    check_killed(&r);
}

/* A stream that is captured has produced nothing yet: to follow it would take our queue into the
 * caller's graph. His capture survives the refusal. */
TEST(what_a_captured_stream_produces_is_refused)
{
    struct raw r;
    um_buf *buf = NULL;
    raw_open(&r);
    CHECK_OK(um_device_open(
        &dev, &(um_device_settings){.struct_size = sizeof(um_device_settings), .name = "cuda:0"}));
    CHECK_OK(um_buf_open(&buf, dev, 64, "image"));
    const void *theirs = (const void *)(uintptr_t)r.memory;
    CHECK_EQ(r.cu.cuStreamBeginCapture(r.a, UM_CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), 0);
    CHECK_EQ(um_copy_from(dev, UM_QUEUE_MAIN, buf, 0, theirs, 64, r.a), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "captured"), "%s", um_last_error());
    CHECK_EQ(r.cu.cuStreamEndCapture(r.a, &r.graph), 0);
    CHECK_OK(um_copy_from(dev, UM_QUEUE_MAIN, buf, 0, theirs, 64, r.b));
    um_buf_close(&buf);
    um_device_close(&dev);
}

/* The status in which `what` ends on another thread. */
static um_status elsewhere(void *(*what)(void *status))
{
    pthread_t thread;
    um_status st = UM_EINVAL;
    if (pthread_create(&thread, NULL, what, &st) == 0)
        pthread_join(thread, NULL);
    return st;
}

static void *open_here(void *status)
{
    *(um_status *)status = open_gpu(0);
    return NULL;
}

/* A thread whose owner works in the primary context, as PyTorch does, has it after a close, too,
 * whoever else got it from the library. */
TEST(closing_leaves_a_thread_its_own_context)
{
    struct raw r;
    um_cu_context current = NULL;
    raw_open(&r);
    CHECK_OK(elsewhere(open_here));
    um_device_close(&dev);
    CHECK_EQ(r.cu.cuCtxGetCurrent(&current), 0);
    CHECK(current == r.context);
}

/* What another thread does while somebody's stream is captured. */
static void *run_frames(void *ctx)
{
    struct pipe p;
    um_status *st = ctx;
    *st = open_gpu(0);
    if (*st == UM_OK)
        *st = pipe_open(&p);
    if (*st == UM_OK)
        *st = pipe_capture(&p);
    for (int i = 0; i < 3 && *st == UM_OK; i++)
        *st = pipe_frame(&p, i);
    if (dev)
        pipe_close(&p);
    return NULL;
}

/* PyTorch captures in mode GLOBAL, which forbids other threads waits and memory, but for those that
 * say that it is none of their business. */
TEST(a_capture_of_another_thread_and_frames_leave_each_other_alone)
{
    struct raw r;
    unsigned mode = UM_CU_STREAM_CAPTURE_MODE_RELAXED;
    raw_open(&r);
    CHECK_EQ(r.cu.cuStreamBeginCapture(r.a, UM_CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
    CHECK_EQ(r.cu.cuMemsetD8Async(r.memory, 0, 64, r.a), 0);
    um_status st = elsewhere(run_frames);
    CHECK_MSG(st == UM_OK, "%d: %s", (int)st, um_standin_error());
    CHECK_EQ(r.cu.cuStreamEndCapture(r.a, &r.graph), 0);
    CHECK(r.graph != NULL);

    /* What a thread set for itself is as it was. */
    CHECK_EQ(r.cu.cuThreadExchangeStreamCaptureMode(&mode), 0);
    CHECK_EQ(mode, UM_CU_STREAM_CAPTURE_MODE_GLOBAL);
    run_frames(&st);
    CHECK_OK(st);
    CHECK_EQ(r.cu.cuThreadExchangeStreamCaptureMode(&mode), 0);
    CHECK_EQ(mode, UM_CU_STREAM_CAPTURE_MODE_RELAXED);
    run_frames(&st);
    CHECK_OK(st);
    CHECK_EQ(r.cu.cuThreadExchangeStreamCaptureMode(&mode), 0);
    CHECK_EQ(mode, UM_CU_STREAM_CAPTURE_MODE_GLOBAL);
    CHECK_EQ(r.cu.cuThreadExchangeStreamCaptureMode(&mode), 0);
}

/* Arguments are copied at the launch, handles are checked, memory in flight is not freed. */
TEST(driver_is_strict)
{
    struct raw r;
    um_cu_module module = NULL;
    um_cu_function function = NULL;
    raw_open(&r);
    const struct um_cuda_image *image = r.cu.standin;
    while (strcmp(image->name, "test") != 0)
        image++;
    CHECK_EQ(r.cu.cuModuleLoadData(&module, "image"), UM_CU_ERROR_INVALID_VALUE);
    CHECK_EQ(r.cu.cuModuleLoadData(&module, image->data), 0);
    CHECK_EQ(r.cu.cuModuleGetFunction(&function, module, "um_topk_rows"), UM_CU_ERROR_NOT_FOUND);
    CHECK_EQ(r.cu.cuModuleGetFunction(&function, module, "um_test_count"), 0);
    struct {
        um_cu_ptr y;
        int rows, w;
    } args = {r.memory, 2, 2};
    void *parameters[] = {&args};
    CHECK_EQ(r.cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 100000, r.a, parameters, NULL),
             UM_CU_ERROR_INVALID_VALUE); /* shared memory */
    CHECK_EQ(r.cu.cuLaunchKernel(function, 1, 0, 1, 32, 1, 1, 0, r.a, parameters, NULL),
             UM_CU_ERROR_INVALID_VALUE);
    CHECK_EQ(r.cu.cuLaunchKernel(function, 1, 1, 1, 33, 1, 1, 0, r.a, parameters, NULL),
             UM_CU_ERROR_INVALID_VALUE);
    CHECK_EQ(r.cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, r.a, parameters, NULL), 0);
    memset(&args, 0xff, sizeof args);
    void *pinned = NULL;
    int32_t got[4];
    CHECK_EQ(r.cu.cuMemHostAlloc(&pinned, 16, 0), 0);
    CHECK_EQ(r.cu.cuMemcpyDtoHAsync(got, r.memory, 16, r.a), UM_CU_ERROR_INVALID_VALUE);
    CHECK_EQ(r.cu.cuMemcpyDtoHAsync(pinned, r.memory + 60, 16, r.a), UM_CU_ERROR_INVALID_VALUE);
    CHECK_EQ(r.cu.cuMemcpyDtoHAsync(pinned, r.memory, 16, r.a), 0);
    CHECK_EQ(r.cu.cuStreamSynchronize(r.a), 0);
    memcpy(got, pinned, 16);
    CHECK(got[0] == 0 && got[1] == 1 && got[2] == 1000 && got[3] == 1001);
    CHECK_EQ(r.cu.cuEventDestroy(r.e), 0);
    CHECK_EQ(r.cu.cuEventRecord(r.e, r.a), UM_CU_ERROR_INVALID_HANDLE);
    CHECK_EQ(r.cu.cuMemsetD8Async(r.memory, 0, 64, r.a), 0);
    CHECK_EQ(r.cu.cuMemFree(r.memory), UM_STANDIN_VIOLATION);
    CHECK(strstr(um_standin_error(), "\"fill\" in flight") != NULL);
}

/* ---- mutations ---- */

/* Does the pipeline go wrong, in any way, if the driver ignores this call? In a process of its own:
 * it may die of it. */
static bool goes_wrong(const char *api, bool captured, uint64_t seed)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        alarm(30);
        begin();
        um_standin_seed(seed);
        if (api)
            um_standin_mutate(api);
        _exit(pipe_whole(captured) == UM_OK ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A call that is forgotten shows in these tests; if it shows with some seeds only, the event has to
 * pass late. */
TEST(mutations)
{
    static const struct {
        const char *api;
        bool eager, captured, some;
    } drop[] = {
        {"cuMemcpyHtoDAsync", true, true, false},       {"cuMemcpyDtoHAsync", true, true, false},
        {"cuMemsetD8Async", true, true, false},         {"cuLaunchKernel", true, true, false},
        {"cuStreamWaitEvent", true, true, false},       {"cuEventRecord", true, true, false},
        {"cuEventRecordWithFlags", false, true, false}, {"cuEventQuery", true, true, false},
        {"cuEventSynchronize", true, true, true},       {"cuGraphLaunch", false, true, false}};
    enum { SEEDS = 6 };
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++)
        for (int captured = 0; captured < 2; captured++) {
            int found = 0;
            for (uint64_t seed = 1; seed <= SEEDS; seed++)
                found += goes_wrong(drop[i].api, captured, seed);
            bool used = captured ? drop[i].captured : drop[i].eager;
            CHECK_MSG(used ? found == SEEDS || (drop[i].some && found > 0) : found == 0,
                      "without %s, %s: %d of %d runs went wrong", drop[i].api,
                      captured ? "captured" : "eager", found, (int)SEEDS);
        }
    CHECK(!goes_wrong(NULL, false, 1) && !goes_wrong(NULL, true, 1));
}

TEST_MAIN
