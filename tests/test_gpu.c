/* SPDX-License-Identifier: Apache-2.0 */
/* Whole frames on the GPU backend, on the stand-in of the driver: kernels run on the host, thread
 * by thread, so the networks are small; graphs of full size are recorded and counted without
 * running. What the same frames give on a real GPU is asked by the other tests there
 * (..._on_cuda_0). */
#include "dfine_weights.h"
#include "fixture.h"
#include "pipeline/pipeline.h"
#include "sam_weights.h"
#include "standin.h"
#include "ultramotion/predictor.h"
#include "ultramotion/run.h"

#include "base/mem.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DET = 160, QUERIES = 100, SAM = 64 }; /* few: the emulated kernels are slow */

static struct fixture gpu;

/* A fresh stand-in and networks on it. */
static um_detector_settings detector_of(int side)
{
    um_detector_settings s;
    um_detector_settings_default(&s);
    s.input_width = s.input_height = side;
    if (side == DET)
        s.queries = QUERIES;
    return s;
}

/* The processor's networks, of the same sizes. */
static struct fixture processor(void)
{
    um_detector_settings d = detector_of(DET);
    struct fixture f = fixture_open("cpu", 1, 0, SAM);
    um_detector_close(&f.detector);
    if (um_detector_open(&f.detector, f.dev, DETECTOR_FILE, &d) != UM_OK)
        fixture_die("cpu");
    return f;
}

static void begin(const char *precision, const char *tier, int det, int sam, const char *detector)
{
    um_device_settings s;
    um_detector_settings d = detector_of(det);
    setenv("ULTRAMOTION_CUDA_DRIVER", UM_STANDIN_PATH, 1);
    setenv("ULTRAMOTION_CUDA", tier, 1);
    unsetenv("ULTRAMOTION_SAM_AS_NUMPY");
    um_standin_reset();
    um_device_settings_default(&s);
    s.name = "cuda:0";
    s.precision = precision;
    gpu = (struct fixture){0};
    if (um_device_open(&gpu.dev, &s) != UM_OK ||
        um_detector_open(&gpu.detector, gpu.dev, detector ? detector : DETECTOR_FILE, &d) !=
            UM_OK ||
        (sam && um_segmenter_open(&gpu.segmenter, gpu.dev, SEGMENTER_FILE, sam, NULL) != UM_OK))
        fixture_die("stand-in");
}

static void end(void)
{
    fixture_close(&gpu);
}

static um_pipeline *pipeline(const struct fixture *f, um_gate_mode gate, float conf)
{
    um_pipeline *p = NULL;
    um_pipeline_settings s = fixture_settings(f);
    s.gate = gate;
    s.conf = conf;
    if (um_pipeline_open(&p, &s) != UM_OK)
        fixture_die("pipeline");
    return p;
}

/* A quarter of a golden frame: the bone is in it. */
static um_frame *small_frame(int i)
{
    um_frame *whole = golden_frame(i);
    um_frame *f = cut(whole, 80, 120, 200, 240);
    f->id = (uint64_t)i;
    um_frame_unref(&whole);
    return f;
}

/* ---- the graph ---- */

/* Record the frame's graph without running kernels, and hold it against a budget. */
static void check_graph(int nodes, int depth)
{
    struct um_standin_graph_stats g;
    const um_packet *packet;
    um_frame *frame = new_frame(422, 558, 1);
    um_standin_shapes_only(1);
    um_pipeline *p = pipeline(&gpu, UM_GATE_SPECULATIVE, 0.5f);
    CHECK_OK(pass(p, frame, &packet));
    um_standin_graph_stats(&g);
    printf("  %d nodes (%d kernels, %d copies, %d fills, %d time marks), longest path %d\n",
           g.nodes, g.kernels, g.copies, g.fills, g.records, g.depth);
    CHECK(g.fills == 0);
    CHECK_MSG(g.nodes <= nodes, "%d nodes, at most %d", g.nodes, nodes);
    CHECK_MSG(g.depth <= depth, "a path of %d, at most %d", g.depth, depth);
    um_pipeline_close(&p);
    um_frame_unref(&frame);
}

static void write_dfine(char *path, char size)
{
    struct dw_options o = {.size = size, .classes = 1, .channels = 3};
    snprintf(path, 64, "/tmp/um_gpu_%c_%d.safetensors", size, (int)getpid());
    if (dw_write(path, &o) != UM_OK)
        fixture_die("weights");
}

TEST(node_budget_of_s_and_mobile_sam)
{
    char path[64];
    write_dfine(path, 's');
    begin("fp16", "fused", 640, 1024, path);
    check_graph(270, 188);
    end();
    unlink(path);
}

TEST(node_budget_of_m_alone)
{
    char path[64];
    write_dfine(path, 'm');
    begin("fp16", "fused", 640, 0, path);
    check_graph(190, 190);
    end();
    unlink(path);
}

/* The plain twins: one primitive a node. */
TEST(node_budget_of_the_plain_tier)
{
    char path[64];
    write_dfine(path, 's');
    begin("fp16", "plain", 640, 1024, path);
    check_graph(390, 265);
    end();
    unlink(path);
}

/* ---- numbers ---- */

struct agreement {
    float score, box, iou; /* largest differences allowed */
    double mask;           /* share of the mask's pixels that may differ */
};

/* The frames of the golden sequence against the processor's fp32. */
static void check_frames(const char *precision, const char *tier, um_gate_mode gate, int frames,
                         struct agreement a)
{
    static uint8_t want[200 * 240], got[200 * 240];
    struct fixture cpu = processor();
    begin(precision, tier, DET, SAM, NULL);
    um_pipeline *p = pipeline(&cpu, UM_GATE_AUTO, 0), *q = pipeline(&gpu, gate, 0);
    for (int i = 0; i < frames; i++) {
        const um_packet *x, *y;
        um_frame *frame = small_frame(i);
        CHECK_OK(pass(p, frame, &x));
        CHECK_OK(pass(q, frame, &y));
        CHECK_EQ(y->frame_id, (uint64_t)i);
        CHECK_STR(y->device, "cuda:0");
        CHECK_STR(y->precision, precision);
        CHECK_EQ(y->state, x->state);
        CHECK_NEAR(y->score, x->score, a.score);
        CHECK_NEAR(y->iou, x->iou, a.iou);
        for (int k = 0; k < 4; k++)
            CHECK_NEAR(y->box[k], x->box[k], a.box);
        um_packet_mask(x, want, 1);
        um_packet_mask(y, got, 1);
        long differ = differing(want, got, sizeof want), set = set_pixels(want, sizeof want);
        printf("  frame %d: score %+.1e, box %+.3f px, iou %+.1e, %ld of %ld pixels\n", i,
               (double)(y->score - x->score), (double)(y->box[0] - x->box[0]),
               (double)(y->iou - x->iou), differ, set);
        CHECK_MSG((double)differ <= a.mask * (double)set + 0.5, "%ld of %ld pixels differ", differ,
                  set);
        CHECK_EQ(y->mask_area_px, set_pixels(got, sizeof got));
        um_frame_unref(&frame);
    }
    um_pipeline_close(&q);
    um_pipeline_close(&p);
    end();
    fixture_close(&cpu);
}

static const struct agreement exact = {1e-4f, 0.01f, 1e-4f, 0.002},
                              half = {0.02f, 1.0f, 0.02f, 0.03}, brain = {0.1f, 2.0f, 0.1f, 0.1};

TEST(fp32_is_the_processors)
{
    check_frames("fp32", "fused", UM_GATE_SPECULATIVE, 1, exact);
}

TEST(fp16_is_close)
{
    check_frames("fp16", "fused", UM_GATE_SPECULATIVE, SANITIZED ? 1 : 2, half);
}

TEST(fp16_plain_twins_are_close)
{
    check_frames("fp16", "plain", UM_GATE_SYNC, 1, half);
}

TEST(bf16_is_close)
{
    check_frames("bf16", "fused", UM_GATE_SYNC, 1, brain);
}

/* ---- keeping track, and gain ---- */

static um_pipeline *tracked(const struct fixture *f)
{
    um_pipeline *p = NULL;
    um_pipeline_settings s = fixture_settings(f);
    s.gate = UM_GATE_SYNC;
    s.conf = 0;
    s.track = 1;
    s.detect_every = 2;
    if (um_pipeline_open(&p, &s) != UM_OK)
        fixture_die("pipeline");
    return p;
}

static void open_with_gain(struct fixture *f)
{
    um_detector_settings s = detector_of(DET);
    s.gain = "auto,0.9";
    um_detector_close(&f->detector);
    if (um_detector_open(&f->detector, f->dev, DETECTOR_FILE, &s) != UM_OK)
        fixture_die("gain");
}

/* Scores, their memory, the state that follows and the prompt from the mask before, in images
 * that are too dark, the last of them in colour: a pipeline on each device sees the same frames. */
TEST(what_is_tracked_in_the_dark_is_the_processors)
{
    enum { FRAMES = 4, STEADY = 5 };
    static uint8_t want[200 * 240], got[200 * 240];
    struct fixture cpu = processor();
    const struct agreement a = {1e-4f, 0.01f, 1e-4f, 0.002};
    begin("fp32", "fused", DET, SAM, NULL);
    open_with_gain(&cpu);
    open_with_gain(&gpu);
    um_pipeline *p = tracked(&cpu), *q = tracked(&gpu);
    for (int i = 0; i < FRAMES; i++) {
        const um_packet *x, *y;
        um_frame *frame = small_frame(0);
        frame->id = (uint64_t)i;
        for (int k = 0; k < frame->width * frame->height; k++)
            frame->pixels[k] /= 3;
        frame->pixels[0] = (uint8_t)i;
        if (i == FRAMES - 1) {
            um_frame *gray = frame;
            frame = rgb_of(gray);
            um_frame_unref(&gray);
            *pixel(frame, 0, 0) ^= 40;
        }
        if (i == 2) /* as after more frames than a stand-in has time for */
            p->track.seen.steady = q->track.seen.steady = STEADY;
        CHECK_OK(pass(p, frame, &x));
        CHECK_OK(pass(q, frame, &y));
        CHECK(x->has_scores && y->has_scores);
        CHECK(i < FRAMES - 1 || !isnan(x->scores[UM_SCORE_COHERENCE]));
        CHECK(y->state == x->state && y->tag == x->tag && y->reason == x->reason);
        CHECK_EQ(y->detected, x->detected);
        CHECK_NEAR(y->score, x->score, a.score);
        CHECK(x->gain > 2 && y->gain == x->gain);
        for (int k = 0; k < UM_SCORES; k++)
            if (isnan(x->scores[k]))
                CHECK(isnan(y->scores[k]));
            else
                CHECK_NEAR(y->scores[k], x->scores[k], a.score);
        for (int k = 0; k < 4; k++)
            CHECK_NEAR(y->box[k], x->box[k], a.box);
        um_packet_mask(x, want, 1);
        um_packet_mask(y, got, 1);
        long differ = differing(want, got, sizeof want), set = set_pixels(want, sizeof want);
        CHECK_MSG((double)differ <= a.mask * (double)set + 0.5, "%ld of %ld pixels differ", differ,
                  set);
        printf("  frame %d: %s, %s, detector %d, gain %.2f, %ld of %ld pixels, S", i,
               um_state_name(y->state), um_tag_name(y->tag), y->detected, (double)y->gain, differ,
               set);
        for (int k = 0; k < UM_SCORES; k++)
            printf(" %.3f", (double)y->scores[k]);
        printf("\n");
        um_frame_unref(&frame);
    }
    um_pipeline_close(&q);
    um_pipeline_close(&p);
    end();
    fixture_close(&cpu);
}

/* ---- SAM's families: their fronts, encoders and masks, against the processor ---- */

struct family {
    const char *name, *golden, *canvas;
};

static um_status family_predict(um_device *dev, const char *path, const char *family,
                                um_prediction *out)
{
    static const float box[4] = {30, 40, 150, 190};
    um_segmenter *s = NULL;
    um_predictor *p = NULL;
    um_frame *frame = small_frame(0);
    um_image image = image_of(frame);
    um_prompts prompts = {.struct_size = sizeof prompts, .box = box, .as_numpy = UM_MASK_HOST};
    um_status st = um_segmenter_open(&s, dev, path, 0, family);
    if (st == UM_OK)
        st = um_predictor_open(&p, s);
    if (st == UM_OK)
        st = um_predictor_set_image(p, &image);
    if (st == UM_OK)
        st = um_predictor_predict(p, &prompts, out);
    um_values_unref(&out->mask[0]);
    um_predictor_close(&p);
    um_segmenter_close(&s);
    um_frame_unref(&frame);
    return st;
}

static void check_family(const struct family *f, const char *precision, const char *tier,
                         float allowed)
{
    char path[64];
    const char *const meta[] = {"input_size", f->canvas, NULL};
    um_prediction want = {.struct_size = sizeof want}, got = {.struct_size = sizeof got};
    snprintf(path, sizeof path, "/tmp/um_gpu_%s_%d.safetensors", f->name, (int)getpid());
    CHECK_OK(sw_write(path, f->golden, (struct sw_damage){NULL, NULL}, meta));
    struct fixture cpu = processor();
    begin(precision, tier, DET, 0, NULL);
    CHECK_OK(family_predict(cpu.dev, path, f->name, &want));
    CHECK_OK(family_predict(gpu.dev, path, f->name, &got));
    remove(path);
    CHECK_EQ(got.count, 1);
    if (want.low_res && got.low_res) {
        int n = want.low_res_side * want.low_res_side;
        double worst = 0, top = 0;
        for (int i = 0; i < n; i++) {
            worst = fmax(worst, fabs((double)want.low_res[i] - (double)got.low_res[i]));
            top = fmax(top, fabs((double)want.low_res[i]));
        }
        printf("  %s %s %s: %.1e of %.1f, iou %+.1e\n", f->name, precision, tier, worst, top,
               (double)(got.iou[0] - want.iou[0]));
        CHECK_MSG(worst <= (double)allowed * top, "%s: %g of %g", f->name, worst, top);
        CHECK_NEAR(got.iou[0], want.iou[0], allowed);
    }
    um_prediction_close(&want);
    um_prediction_close(&got);
    end();
    fixture_close(&cpu);
}

TEST(families_are_the_processors)
{
    static const struct family all[] = {{"tiny-sam", UM_GOLDEN_DIR "/sam_64.txt", "64"},
                                        {"lite-medsam", UM_GOLDEN_DIR "/sam_lite_32.txt", "32"},
                                        {"sam-vit", UM_GOLDEN_DIR "/sam_vit_64.txt", "64"},
                                        {"medsam-vit", UM_GOLDEN_DIR "/sam_vit_64.txt", "64"}};
    for (int i = 0; i < 4; i++)
        check_family(&all[i], "fp32", "plain", 1e-4f);
    check_family(&all[2], "fp16", "plain", 0.03f);
    check_family(&all[2], "bf16", "fused", 0.1f);
}

/* A letterbox in an input that is not square, with 100 queries and SiLU: what the processor finds,
 * in pixels of the image. */
static void check_letterbox(const char *precision, const char *tier, float box)
{
    um_detector_settings s;
    um_detector *mine = NULL, *theirs = NULL;
    um_detector_settings_default(&s);
    s.input_width = 192;
    s.input_height = 288;
    s.queries = 100;
    s.activation = "silu";
    s.fit = "letterbox";
    struct fixture cpu = processor();
    begin(precision, tier, DET, SAM, NULL);
    CHECK_OK(um_detector_open(&mine, cpu.dev, DETECTOR_FILE, &s));
    CHECK_OK(um_detector_open(&theirs, gpu.dev, DETECTOR_FILE, &s));
    struct fixture f = {cpu.dev, mine, cpu.segmenter}, g = {gpu.dev, theirs, gpu.segmenter};
    um_pipeline *p = pipeline(&f, UM_GATE_AUTO, 0), *q = pipeline(&g, UM_GATE_SPECULATIVE, 0);
    const um_packet *x, *y;
    um_frame *frame = small_frame(0);
    um_box own[100];
    int count = 0;
    CHECK_OK(pass(p, frame, &x));
    CHECK_OK(pass(q, frame, &y));
    CHECK_NEAR(y->score, x->score, box / 20);
    for (int k = 0; k < 4; k++)
        CHECK_NEAR(y->box[k], x->box[k], box);
    /* and the detector alone, which maps boxes on the host */
    CHECK_OK(um_detector_run(mine, frame, 0, own, 100, &count));
    CHECK_EQ(count, 100);
    CHECK_EQ(own[0].score == x->score, 1);
    CHECK_NEAR(own[0].y0, x->box[1], 1e-3);
    um_frame_unref(&frame);
    um_pipeline_close(&q);
    um_pipeline_close(&p);
    um_detector_close(&theirs);
    um_detector_close(&mine);
    end();
    fixture_close(&cpu);
}

TEST(a_letterbox_is_the_processors)
{
    check_letterbox("fp32", "plain", 0.01f);
}

TEST(a_letterbox_of_fused_kernels_is_close)
{
    check_letterbox("fp16", "fused", 1.0f);
}

/* A launched graph of two branches, two graphs with the gate between, and the legacy mode's
 * blocking copies: the same kernels, so the same packet, whatever order the driver chose. */
TEST(every_way_through_gives_the_same_packet)
{
    static uint8_t want[200 * 240], got[200 * 240];
    um_packet first = {0};
    begin("fp16", "fused", DET, SAM, NULL);
    um_frame *frame = small_frame(0);
    for (int way = 0; way < 3; way++) {
        const um_packet *k;
        um_pipeline *p = NULL;
        um_pipeline_settings s = fixture_settings(&gpu);
        s.gate = way ? UM_GATE_SYNC : UM_GATE_SPECULATIVE;
        s.sam_as_numpy = way == 2 ? UM_MASK_HOST : UM_MASK_DEVICE;
        s.mask_clean = 1;
        um_standin_seed((uint64_t)way + 5);
        CHECK_OK(um_pipeline_open(&p, &s));
        CHECK_OK(pass(p, frame, &k));
        CHECK_EQ((int)k->transfers.down, way + 1); /* gate; logits and score */
        um_packet_mask(k, way ? got : want, 1);
        if (way == 0)
            first = *k;
        CHECK(k->state == UM_STATE_VISIBLE && k->score == first.score && k->iou == first.iou);
        CHECK(memcmp(k->box, first.box, sizeof k->box) == 0);
        CHECK(k->removed_px == first.removed_px && k->filled_px == first.filled_px);
        CHECK(k->edge_px == first.edge_px && k->in_px == first.in_px && k->out_px == first.out_px);
        CHECK_EQ(way ? differing(want, got, sizeof want) : 0, 0);
        um_pipeline_close(&p);
    }
    um_frame_unref(&frame);
    end();
}

/* Each object of a frame is what its box alone gives; all of them cross in one copy. */
TEST(objects_are_what_each_alone_would_be)
{
    enum { OBJECTS = 3 };
    static uint8_t one[200 * 240], mine[200 * 240];
    const um_packet *k;
    um_pipeline *p = NULL;
    um_pipeline_settings s;
    um_predictor *alone = NULL;
    begin("fp16", "fused", DET, SAM, NULL);
    um_frame *frame = small_frame(0);
    um_image image = image_of(frame);
    um_pipeline_settings_default(&s);
    s.detector = gpu.detector;
    s.segmenter = gpu.segmenter;
    s.objects = OBJECTS;
    s.conf = 0;
    CHECK_OK(um_pipeline_open(&p, &s));
    CHECK_OK(pass(p, frame, &k));
    CHECK_EQ(k->objects, OBJECTS);
    CHECK(k->transfers.up == 1 && k->transfers.down == 1 && k->transfers.waits == 1);
    CHECK_OK(um_predictor_open(&alone, gpu.segmenter));
    CHECK_OK(um_predictor_set_image(alone, &image));
    for (int i = 0; i < OBJECTS; i++) {
        const um_object *o = um_packet_object(k, i);
        um_prediction r = {.struct_size = sizeof r};
        um_prompts prompts = {
            .struct_size = sizeof prompts, .box = o->box, .as_numpy = UM_MASK_HOST};
        if (o->box[0] <= 0 || o->box[1] <= 0 || o->box[2] >= 200 || o->box[3] >= 240)
            continue; /* clamped: not the prompt */
        CHECK_OK(um_predictor_predict(alone, &prompts, &r));
        CHECK_OK(um_values_read(r.mask[0], one));
        um_packet_object_mask(k, i, mine, 1);
        CHECK_EQ(differing(one, mine, sizeof one), 0);
        CHECK_EQ(r.iou[0], o->iou);
        um_prediction_close(&r);
    }
    um_predictor_close(&alone);
    um_pipeline_close(&p);
    um_frame_unref(&frame);
    end();
}

/* ---- transfers ---- */

/* The ledger against the driver's own count: 1 up, 1 down, 1 wait per frame, no setup on a known
 * geometry, and no other call that copies or waits. */
TEST(ledger_is_the_drivers_count)
{
    struct um_standin_counts a, b;
    const um_packet *packet;
    begin("fp16", "fused", DET, SAM, NULL);
    um_standin_shapes_only(1);
    um_frame *frame = small_frame(0);
    for (int gate = 0; gate < 2; gate++) {
        um_pipeline *p = pipeline(&gpu, gate ? UM_GATE_SYNC : UM_GATE_SPECULATIVE, 1);
        CHECK_OK(pass(p, frame, &packet));
        for (int i = 0; i < 5; i++) {
            um_standin_counts(&a);
            CHECK_OK(pass(p, frame, &packet));
            um_standin_counts(&b);
            CHECK_EQ(packet->transfers.up, 1);
            CHECK_EQ(packet->transfers.down, 1);
            CHECK_EQ(packet->transfers.waits, 1);
            CHECK_EQ(packet->transfers.setup, 0);
            CHECK_EQ(b.up - a.up, 1);
            CHECK_EQ(b.up_bytes - a.up_bytes, packet->transfers.up_bytes);
            CHECK_EQ(b.down - a.down, 1);
            CHECK_EQ(b.down_bytes - a.down_bytes, packet->transfers.down_bytes);
            CHECK_EQ(b.waits - a.waits, 1);
            CHECK_EQ(b.drains - a.drains, 0);
            CHECK_EQ(b.graphs - a.graphs, 1);
        }
        um_pipeline_close(&p);
    }
    um_frame_unref(&frame);
    end();
}

/* From the third frame of a geometry on the library allocates nothing. */
TEST(frames_do_not_allocate)
{
    const um_packet *packet;
    begin("fp16", "fused", DET, SAM, NULL);
    um_standin_shapes_only(1);
    um_frame *frame = small_frame(0);
    um_pipeline *p = pipeline(&gpu, UM_GATE_SPECULATIVE, 0);
    for (int i = 0; i < 2; i++)
        CHECK_OK(pass(p, frame, &packet));
    uint64_t before = um_mem_count();
    for (int i = 0; i < 5; i++)
        CHECK_OK(pass(p, frame, &packet));
    CHECK_EQ(um_mem_count() - before, 0);
    um_pipeline_close(&p);
    um_frame_unref(&frame);
    end();
}

/* ---- a call that somebody forgot ---- */

/* Three frames with `api` doing nothing: an error? */
static bool goes_wrong(const char *api)
{
    const um_packet *packet = NULL;
    um_pipeline *p = NULL;
    um_pipeline_settings s;
    begin("fp16", "fused", DET, SAM, NULL);
    um_standin_shapes_only(1);
    um_frame *frame = small_frame(0);
    um_standin_mutate(api);
    um_pipeline_settings_default(&s);
    s.detector = gpu.detector;
    s.segmenter = gpu.segmenter;
    bool wrong = um_pipeline_open(&p, &s) != UM_OK;
    for (int i = 0; i < 3 && !wrong; i++)
        wrong = pass(p, frame, &packet) != UM_OK;
    um_frame_unref(&frame);
    return wrong;
}

/* In a child: an early look at pinned memory is a fault, which is as good. */
static bool noticed(const char *api)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer's own handler would print a report */
        _exit(goes_wrong(api));
    }
    return child > 0 && waitpid(child, &status, 0) == child && status != 0;
}

TEST(a_forgotten_queue_wait_is_noticed)
{
    CHECK(noticed("cuStreamWaitEvent"));
    CHECK(noticed("cuEventRecord"));
    CHECK(noticed("cuEventQuery"));
    CHECK(!noticed("cuGraphUpload")); /* only makes the first launch quicker */
}

/* ---- loss ---- */

struct lost_run {
    um_pipeline *second;
    int packets, asked;
    uint64_t next;
    bool in_order;
};

static void take(void *ctx, const um_packet *packet, const um_frame *frame, const um_truth *truth)
{
    struct lost_run *l = ctx;
    (void)frame, (void)truth;
    l->in_order = l->in_order && packet->frame_id == l->next++;
    l->packets++;
}

static um_status go_on(void *ctx, um_pipeline **pipeline)
{
    struct lost_run *l = ctx;
    l->asked++;
    *pipeline = l->second;
    return l->second ? UM_OK : UM_EDEVICE;
}

/* A run of 6 frames whose kernel fails in the third. */
static um_status lose(struct lost_run *l, um_run_counts *stats)
{
    um_run_settings run;
    um_source *source = NULL;
    um_source_settings src;
    um_pipeline *p = pipeline(&gpu, UM_GATE_SPECULATIVE, 0);
    um_source_settings_default(&src);
    if (um_source_open(&source, "phantom:seed=1,frames=6", &src) != UM_OK)
        fixture_die("source");
    um_run_settings_default(&run);
    run.pipeline = p;
    run.source = source;
    run.on_packet = take;
    run.on_device_lost = l->second ? go_on : NULL;
    run.ctx = l;
    l->in_order = true;
    um_status st = um_run_frames(&run, stats);
    um_source_close(&source);
    um_pipeline_close(&p);
    return st;
}

TEST(an_illegal_address_ends_the_run_within_the_frame)
{
    struct lost_run l = {0};
    um_run_counts stats = {.struct_size = sizeof stats};
    struct um_standin_counts a, b;
    begin("fp16", "fused", DET, SAM, NULL);
    um_standin_shapes_only(1);
    um_standin_fail_kernel(3 * 200, 700);
    CHECK_EQ(lose(&l, &stats), UM_EDEVICE);
    CHECK_MSG(strstr(um_last_error(), "700") || strstr(um_last_error(), "ILLEGAL_ADDRESS"), "%s",
              um_last_error());
    CHECK(l.packets > 0 && l.packets < 6 && l.in_order);
    CHECK_EQ(stats.frames, (uint64_t)l.packets);
    um_standin_counts(&a);
    end(); /* a lost device is closed without the driver */
    um_standin_counts(&b);
    CHECK_EQ(b.calls - a.calls, 0);
}

TEST(a_lost_gpu_is_taken_over_by_the_processor)
{
    struct lost_run l = {0};
    um_run_counts stats = {.struct_size = sizeof stats};
    struct fixture cpu = processor();
    begin("fp16", "fused", DET, SAM, NULL);
    um_standin_shapes_only(1);
    um_standin_fail_kernel(3 * 200, 700);
    l.second = pipeline(&cpu, UM_GATE_AUTO, 0);
    CHECK_OK(lose(&l, &stats));
    CHECK(l.packets == 6 && l.in_order && l.asked == 1);
    um_pipeline_close(&l.second);
    end();
    fixture_close(&cpu);
}

TEST(running_out_of_device_memory_is_named)
{
    um_pipeline *p = NULL;
    um_pipeline_settings s;
    const um_packet *packet;
    begin("fp16", "fused", DET, SAM, NULL);
    um_standin_shapes_only(1);
    um_frame *frame = small_frame(0);
    um_pipeline_settings_default(&s);
    s.detector = gpu.detector;
    s.segmenter = gpu.segmenter;
    CHECK_OK(um_pipeline_open(&p, &s));
    um_standin_fail("cuMemAlloc", 1, 2);
    CHECK_EQ(pass(p, frame, &packet), UM_ENOMEM);
    CHECK_MSG(strstr(um_last_error(), "bytes"), "%s", um_last_error());
    CHECK_OK(pass(p, frame, &packet)); /* not lost: there is memory now */
    um_pipeline_close(&p);
    um_frame_unref(&frame);
    end();
}

TEST_MAIN
