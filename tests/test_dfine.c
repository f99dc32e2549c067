/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "base/pool.h"
#include "base/status.h"
#include "dfine_weights.h"
#include "model/dfine.h"
#include "nn/op_dfine.h"
#include "nn/record.h"
#include "test.h"
#include "ultramotion/detector.h"
#include "ultramotion/model.h"

#include <unistd.h>

/* ---- a network that runs ---- */

struct net {
    um_device *dev;
    um_dfine *d;
    um_tape *t;
    um_buf *in;
    struct um_dfine_out out;
    int h, w, c, queries;
    float *logits, *boxes; /* [Q,C], [Q,4] */
    int32_t *index;
};

static const char *device_name = "cpu";

static um_status device_open(um_device **dev)
{
    struct um_device_settings s;
    um_device_settings_default(&s);
    s.name = device_name;
    s.precision = "fp32"; /* what the numbers of the tests are made of */
    return um_device_open(dev, &s);
}

/* Load the checkpoint `o` describes, for an input of this size. */
static um_status load(um_dfine **d, um_device *dev, const struct dw_options *o, int h, int w)
{
    char path[] = "/tmp/test_dfine_XXXXXX";
    um_weights *file = NULL;
    int fd = mkstemp(path);
    if (fd < 0)
        return UM_EIO;
    close(fd);
    um_status st = dw_write(path, o);
    if (st == UM_OK)
        st = um_weights_open(&file, path);
    if (st == UM_OK)
        st = um_dfine_open(d, dev, file, &(struct um_dfine_wish){.input_w = w, .input_h = h});
    um_weights_close(&file);
    unlink(path);
    return st;
}

/* The tape for a loaded network and an input of c channels. */
static um_status prepare(struct net *n, int h, int w, int c, bool taps)
{
    um_tape_close(&n->t);
    um_buf_close(&n->in);
    n->h = h;
    n->w = w;
    n->c = c;
    um_status st =
        um_buf_open(&n->in, n->dev, (size_t)h * (size_t)w * (size_t)c * sizeof(float), "input");
    if (st == UM_OK)
        st = um_tape_open(&n->t, n->dev, "detect");
    if (st != UM_OK)
        return st;
    if (taps)
        um_tape_keep_taps(n->t);
    n->out = um_dfine_forward(n->d, n->t, um_tape_buffer(n->t, n->in, 0, UM_F32, h, w, c));
    st = um_tape_compile(n->t);
    if (st == UM_OK && !n->logits) {
        size_t q = (size_t)n->out.logits.h * (size_t)n->out.logits.w;
        n->queries = (int)q;
        n->logits = malloc(q * (size_t)n->out.logits.c * sizeof(float));
        n->boxes = malloc(q * 4 * sizeof(float));
        n->index = malloc(q * sizeof(int32_t));
    }
    return st;
}

static um_status net_open(struct net *n, const struct dw_options *o, int h, int w, int c, bool taps)
{
    memset(n, 0, sizeof *n);
    um_status st = device_open(&n->dev);
    if (st == UM_OK)
        st = load(&n->d, n->dev, o, h, w);
    return st == UM_OK ? prepare(n, h, w, c, taps) : st;
}

static void net_close(struct net *n)
{
    um_tape_close(&n->t);
    um_buf_close(&n->in);
    um_dfine_close(&n->d);
    um_device_close(&n->dev);
    free(n->logits);
    free(n->boxes);
    free(n->index);
}

static um_status fetch(struct net *n, um_tensor x, void *dst)
{
    um_buf *buf = NULL;
    size_t off = 0, bytes = (size_t)x.h * (size_t)x.w * (size_t)x.c * 4;
    um_tape_locate(n->t, x, &buf, &off);
    return um_download_now(n->dev, dst, buf, off, bytes, UM_STAGE_DEBUG, "test");
}

/* x [h,w,c] */
static um_status net_run(struct net *n, const float *x)
{
    size_t bytes = (size_t)n->h * (size_t)n->w * (size_t)n->c * sizeof *x;
    um_status st = um_upload_now(n->dev, n->in, 0, x, bytes, UM_STAGE_DEBUG, "test");
    if (st == UM_OK)
        st = um_tape_run(n->t, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = fetch(n, n->out.logits, n->logits);
    if (st == UM_OK)
        st = fetch(n, n->out.boxes, n->boxes);
    return st == UM_OK ? fetch(n, n->out.index, n->index) : st;
}

/* The image of the golden file, as the network wants it. */
static float *golden_input(int h, int w, int c)
{
    uint32_t hash = dw_hash("input2");
    float *x = malloc((size_t)h * (size_t)w * (size_t)c * sizeof *x);
    for (int k = 0; k < c; k++)
        for (int i = 0; i < h * w; i++)
            x[i * c + k] = dw_u(hash, (uint32_t)(k * h * w + i));
    return x;
}

static int find_query(const struct net *n, int token)
{
    for (int q = 0; q < n->queries; q++)
        if (n->index[q] == token)
            return q;
    return -1;
}

/* ---- the golden file ---- */

TEST(the_generator_makes_the_golden_weights)
{
    static const float stem[] = {-0.03247725f, -0.1072152f, -0.22969626f, 0.15574297f};
    static const float bias[] = {1.0107079f, 1.4361248f, -0.78199196f, -3.1814451f};
    const char *const stem_key = "backbone.stem.stem1.conv.weight";
    const char *const bias_key = "decoder.decoder.layers.0.cross_attn.sampling_offsets.bias";
    CHECK_EQ(dw_hash("input2"), 0x98b72feb);
    CHECK_NEAR(dw_u(dw_hash("input2"), 1), 0.71523464, 1e-8);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_NEAR(dw_value(stem_key, dw_hash(stem_key), i, 4, 27), stem[i], 1e-7);
        CHECK_NEAR(dw_value(bias_key, dw_hash(bias_key), i, 1, 1), bias[i], 1e-6);
    }
}

struct tap {
    float *data; /* as PyTorch has it: maps [c][h*w], tokens and queries [row][c] */
    int rows, c;
    double sum, abs, max;
};

static um_status read_tap(struct net *n, const char *name, bool map, struct tap *tap)
{
    const char *label = NULL;
    int h = 0, w = 0, i = um_tape_find_tap(n->t, name);
    float *data = NULL;
    memset(tap, 0, sizeof *tap);
    if (i < 0)
        return UM_EINVAL;
    um_status st = um_tape_read_tap(n->t, i, &label, &h, &w, &tap->c, &data);
    if (st != UM_OK)
        return st;
    tap->rows = h * w;
    tap->data = malloc((size_t)tap->rows * (size_t)tap->c * sizeof *tap->data);
    for (int r = 0; r < tap->rows; r++)
        for (int k = 0; k < tap->c; k++) {
            float v = data[k * tap->rows + r];
            tap->data[map ? k * tap->rows + r : r * tap->c + k] = v;
            tap->sum += v;
            tap->abs += fabs(v);
            tap->max = fmax(tap->max, fabs(v));
        }
    um_free(data);
    return UM_OK;
}

/* Rounding noise that a row of this tensor may carry. */
static double row_tolerance(const char *name)
{
    if (strncmp(name, "pred_logits", 11) == 0)
        return 2e-5;
    if (strncmp(name, "box", 3) == 0 || strncmp(name, "ref", 3) == 0 ||
        strncmp(name, "pred_boxes", 10) == 0)
        return 1e-5;
    return 5e-5;
}

/* Compare every tap of the case `title` in order; the first that differs is the failure. */
static void compare_case(struct net *n, const char *title)
{
    char line[1024], name[32] = "";
    struct tap tap = {0};
    int seen = 0;
    bool inside = false;
    FILE *f = fopen(UM_GOLDEN_DIR "/dfine_golden.txt", "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f)) {
        char shape[32];
        double sum, abs_sum, v[6];
        int token;
        if (strncmp(line, "### CASE", 8) == 0)
            inside = strncmp(line + 9, title, strlen(title)) == 0;
        if (!inside || line[0] == '#' || line[0] == '\n')
            continue;
        if (strncmp(line, "topk", 4) == 0) {
            int sum_index = 0, at = 0;
            const char *p = strstr(line, "score):") + 7;
            for (int i = 0; i < n->queries; i++)
                sum_index += n->index[i];
            CHECK_EQ(sum_index, atoi(strstr(line, "indices = ") + 10));
            for (int i = 0; i < 12; i++, p += at) {
                CHECK_EQ(sscanf(p, " %d%n", &token, &at), 1);
                CHECK_MSG(n->index[i] == token, "%s: query %d is token %d, want %d", title, i,
                          n->index[i], token);
            }
            continue;
        }
        if (sscanf(line, " token %d: %lf %lf %lf %lf %lf %lf", &token, v, v + 1, v + 2, v + 3,
                   v + 4, v + 5) > 1) {
            int q = find_query(n, token), count = tap.c < 6 ? tap.c : 6;
            CHECK_MSG(q >= 0, "%s: token %d was not selected", title, token);
            for (int i = 0; tap.data && i < count; i++)
                CHECK_MSG(fabs(tap.data[q * tap.c + i] - v[i]) <=
                              row_tolerance(name) + 5e-6 * fabs(v[i]),
                          "%s %s, token %d [%d]: %.7g, want %.7g", title, name, token, i,
                          tap.data[q * tap.c + i], v[i]);
            seen++;
            continue;
        }
        if (sscanf(line, "%31s shape=%31s sum=%lf abs=%lf", name, shape, &sum, &abs_sum) != 4)
            continue;
        free(tap.data);
        tap.data = NULL;
        if (strcmp(name, "input") == 0 || strncmp(name, "distances", 9) == 0)
            continue;
        int crosses = 0;
        for (const char *p = shape; *p; p++)
            crosses += *p == 'x';
        CHECK_MSG(read_tap(n, name, crosses == 3, &tap) == UM_OK, "tap %s", name);
        CHECK_MSG(fabs(tap.sum - sum) <= 2e-5 * abs_sum &&
                      fabs(tap.abs - abs_sum) <= 2e-5 * abs_sum,
                  "%s %s: sum %.7g, abs %.7g, want %.7g, %.7g", title, name, tap.sum, tap.abs, sum,
                  abs_sum);
        const char *p = strstr(line, "n-1]=");
        if (p && sscanf(p + 5, "%lf %lf %lf %lf", v, v + 1, v + 2, v + 3) == 4) {
            int64_t total = (int64_t)tap.rows * tap.c,
                    at[4] = {0, total / 3, 2 * total / 3, total - 1};
            for (int i = 0; i < 4; i++)
                CHECK_MSG(fabs(tap.data[at[i]] - v[i]) <= 2e-5 * tap.max + 5e-6 * fabs(v[i]),
                          "%s %s [%lld]: %.7g, want %.7g", title, name, (long long)at[i],
                          tap.data[at[i]], v[i]);
        }
        seen++;
    }
    free(tap.data);
    fclose(f);
    CHECK_MSG(seen > 80, "%s: only %d golden lines", title, seen);
}

static void golden(char size, int h, int w, const char *title)
{
    struct net n;
    float *x = golden_input(h, w, 3);
    CHECK_OK(net_open(&n, &(struct dw_options){.size = size, .classes = 1, .channels = 3}, h, w, 3,
                      true));
    CHECK_OK(net_run(&n, x));
    if (size == 'n' && h == 320 && w == 320) { /* a pool padded with -inf gives 0.62221 */
        struct tap stem;
        CHECK_OK(read_tap(&n, "stem", true, &stem));
        CHECK_NEAR(stem.data[(2 * 80 + 69) * 80 + 79], 0.6440237, 2e-6);
        free(stem.data);
    }
    compare_case(&n, title);
    net_close(&n);
    free(x);
}

TEST(n_at_320_matches_the_golden_numbers)
{
    golden('n', 320, 320, "size=n num_classes=1 input=1x3x320x320");
}

TEST(s_at_640_matches_the_golden_numbers)
{
    golden('s', 640, 640, "size=s num_classes=1 input=1x3x640x640");
}

TEST(n_on_a_wide_image_matches_the_golden_numbers)
{
    golden('n', 320, 512, "size=n num_classes=1 input=1x3x320x512");
}

/* ---- equivalent inputs and files ---- */

/* Same queries in any order, same logits and boxes within rounding. */
static void same_detections(const struct net *a, const struct net *b, double tolerance)
{
    int classes = a->out.logits.c;
    for (int q = 0; q < a->queries; q++) {
        int p = find_query(b, a->index[q]);
        CHECK_MSG(p >= 0, "token %d was not selected", a->index[q]);
        for (int i = 0; i < classes; i++)
            CHECK_NEAR(a->logits[q * classes + i], b->logits[p * classes + i], tolerance);
        for (int i = 0; i < 4; i++)
            CHECK_NEAR(a->boxes[q * 4 + i], b->boxes[p * 4 + i], tolerance);
    }
}

TEST(gray_equals_three_equal_channels)
{
    struct net rgb, gray;
    const struct dw_options o = {.size = 'n', .classes = 3, .channels = 3};
    float *x1 = golden_input(320, 320, 1), *x3 = malloc(3 * 320 * 320 * sizeof *x3);
    for (int i = 0; i < 320 * 320; i++)
        x3[3 * i] = x3[3 * i + 1] = x3[3 * i + 2] = x1[i];
    CHECK_OK(net_open(&rgb, &o, 320, 320, 3, false));
    CHECK_OK(net_open(&gray, &o, 320, 320, 1, false));
    CHECK_OK(net_run(&rgb, x3));
    CHECK_OK(net_run(&gray, x1));
    same_detections(&rgb, &gray, 3e-5);
    net_close(&rgb);
    net_close(&gray);
    free(x1);
    free(x3);
}

TEST(a_deployed_checkpoint_gives_the_same_detections)
{
    struct net a, b;
    float *x = golden_input(320, 320, 3);
    CHECK_OK(net_open(&a, &(struct dw_options){.size = 'n', .classes = 1, .channels = 3}, 320, 320,
                      3, false));
    CHECK_OK(net_open(
        &b, &(struct dw_options){.size = 'n', .classes = 1, .channels = 3, .deployed = true}, 320,
        320, 3, false));
    CHECK_OK(net_run(&a, x));
    CHECK_OK(net_run(&b, x));
    same_detections(&a, &b, 3e-5);
    net_close(&a);
    net_close(&b);
    free(x);
}

static bool all_finite(const struct net *n)
{
    bool ok = true;
    for (int i = 0; i < n->queries * n->out.logits.c; i++)
        ok = ok && isfinite(n->logits[i]);
    for (int i = 0; i < n->queries * 4; i++)
        ok = ok && isfinite(n->boxes[i]);
    return ok;
}

/* ---- sizes of one's own ---- */

TEST(sizes_are_read_off_the_tensors)
{
    struct net n = {0};
    char path[] = "/tmp/test_dfine_XXXXXX";
    um_weights *file = NULL;
    float *x = golden_input(320, 416, 1);
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(device_open(&n.dev));
    CHECK_OK(dw_write(
        path, &(struct dw_options){.size = 's', .classes = 5, .channels = 1, .d_ffn = 320}));
    CHECK_OK(um_weights_open(&file, path));
    CHECK_OK(um_dfine_open(&n.d, n.dev, file,
                           &(struct um_dfine_wish){.input_w = 416,
                                                   .input_h = 320,
                                                   .queries = 123,
                                                   .act = UM_ACT_SILU,
                                                   .fit = UM_DFINE_LETTERBOX}));
    const struct um_dfine_info *info = um_dfine_info(n.d);
    CHECK_STR(info->architecture, "dfine-s");
    CHECK_STR(info->family, "deim-d-fine");
    CHECK(info->queries == 123 && info->classes == 5 && info->letterbox && !info->warning);
    CHECK_STR(info->queries_from, "option");
    CHECK_OK(prepare(&n, 320, 416, 1, false));
    CHECK_EQ(n.queries, 123);
    CHECK_OK(net_run(&n, x));
    CHECK(all_finite(&n));
    um_weights_close(&file);
    unlink(path);
    net_close(&n);
    free(x);
}

/* Of three classes there are three times as many pairs; as upstream, the best of them. */
TEST(there_are_no_more_boxes_than_queries)
{
    enum { QUERIES = 10, ROOM = 3 * QUERIES, FEW = 4 };
    char path[] = "/tmp/test_dfine_XXXXXX";
    um_detector_settings s;
    um_device *dev = NULL;
    um_detector *d = NULL;
    um_frame *frame = NULL;
    um_box box[ROOM], few[FEW];
    int n = 0, m = 0;
    close(mkstemp(path));
    um_detector_settings_default(&s);
    s.input_width = s.input_height = 96;
    s.queries = QUERIES;
    CHECK_OK(device_open(&dev));
    CHECK_OK(dw_write(path, &(struct dw_options){.size = 'n', .classes = 3, .channels = 1}));
    CHECK_OK(um_detector_open(&d, dev, path, &s));
    CHECK_OK(um_frame_create(&frame, 50, 40, 1));
    for (int i = 0; i < 50 * 40; i++)
        frame->pixels[i / 50 * frame->stride + i % 50] = (uint8_t)(i * 7);
    CHECK_OK(um_detector_run(d, frame, 0, box, ROOM, &n));
    CHECK_EQ(n, QUERIES);
    for (int i = 1; i < n; i++)
        CHECK(box[i].score <= box[i - 1].score);
    CHECK_OK(um_detector_run(d, frame, 0, few, FEW, &m));
    CHECK(m == FEW && memcmp(few, box, sizeof few) == 0);
    um_frame_unref(&frame);
    um_detector_close(&d);
    um_device_close(&dev);
    unlink(path);
}

/* ---- robustness ---- */

TEST(blank_and_white_images_give_finite_results)
{
    struct net n;
    float *x = calloc(352 * 608, sizeof *x);
    CHECK_OK(net_open(&n, &(struct dw_options){.size = 's', .classes = 2, .channels = 1}, 352, 608,
                      1, false));
    CHECK_OK(net_run(&n, x));
    CHECK(all_finite(&n));
    for (int i = 0; i < 352 * 608; i++)
        x[i] = 1;
    CHECK_OK(net_run(&n, x));
    CHECK(all_finite(&n));
    net_close(&n);
    free(x);
}

TEST(huge_sampling_offsets_touch_no_memory_outside_the_map)
{
    struct net n;
    float *x = golden_input(320, 320, 1);
    CHECK_OK(net_open(
        &n, &(struct dw_options){.size = 'n', .classes = 1, .channels = 1, .offsets_scale = 1e6f},
        320, 320, 1, false));
    CHECK_OK(net_run(&n, x));
    CHECK(all_finite(&n));
    net_close(&n);
    free(x);
}

TEST(two_runs_give_the_same_bits)
{
    struct net n;
    float *x = golden_input(320, 320, 1), boxes[300 * 4];
    CHECK_OK(net_open(&n, &(struct dw_options){.size = 'n', .classes = 1, .channels = 1}, 320, 320,
                      1, false));
    CHECK_OK(net_run(&n, x));
    memcpy(boxes, n.boxes, sizeof boxes);
    CHECK_OK(net_run(&n, x));
    CHECK(memcmp(boxes, n.boxes, sizeof boxes) == 0);
    net_close(&n);
    free(x);
}

TEST(the_guard_device_gives_the_same_bits)
{
    struct net cpu, guard;
    const struct dw_options o = {.size = 's', .classes = 2, .channels = 1};
    float *x = golden_input(352, 608, 1); /* some cells are not valid */
    CHECK_OK(net_open(&cpu, &o, 352, 608, 1, false));
    device_name = "guard";
    um_status st = net_open(&guard, &o, 352, 608, 1, false);
    device_name = "cpu";
    CHECK_OK(st);
    CHECK_OK(net_run(&cpu, x));
    CHECK_OK(net_run(&guard, x));
    CHECK(memcmp(cpu.boxes, guard.boxes, 300 * 4 * sizeof(float)) == 0);
    CHECK(memcmp(cpu.logits, guard.logits, 300 * 2 * sizeof(float)) == 0);
    net_close(&cpu);
    net_close(&guard);
    free(x);
}

/* ---- files that are refused ---- */

static void refused(struct dw_options o, int h, int w, um_status want, const char *says)
{
    um_device *dev = NULL;
    um_dfine *d = NULL;
    o.size = o.size ? o.size : 'n';
    o.classes = 1;
    o.channels = 3;
    CHECK_OK(device_open(&dev));
    um_status st = load(&d, dev, &o, h, w);
    CHECK_MSG(st == want, "%s, want %s (%s)", um_status_name(st), um_status_name(want), says);
    CHECK(d == NULL);
    CHECK_MSG(strstr(um_last_error(), says) != NULL, "\"%s\" does not say \"%s\"", um_last_error(),
              says);
    um_device_close(&dev);
}

TEST(bad_checkpoints_are_refused_by_name)
{
    static const char *const names[] = {
        "backbone.stages.2.blocks.1.layers.2.conv2.bn.running_var",
        "encoder.pan_blocks.0.cv3.0.bottlenecks.1.conv2.conv.weight",
        "decoder.decoder.layers.1.cross_attn.attention_weights.bias",
        "decoder.decoder.lqe_layers.2.reg_conf.layers.1.weight"};
    static const char *const marks[] = {
        /* by which the network and its sizes are told */
        "backbone.stages.0.blocks.0.layers.2.conv.weight",
        "backbone.stages.2.blocks.1.aggregation.0.conv.weight",
        "backbone.stages.3.blocks.0.layers.0.conv1.conv.weight",
        "backbone.stem.stem1.conv.weight",
        "backbone.stem.stem1.lab.scale",
        "encoder.input_proj.0.conv.weight",
        "encoder.fpn_blocks.0.cv2.0.bottlenecks.1.conv1.conv.weight",
        "decoder.enc_score_head.weight",
        "decoder.decoder.layers.2.linear1.weight",
        "decoder.reg_scale",
        "decoder.up"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        refused((struct dw_options){.omit = names[i]}, 320, 320, UM_EFORMAT, names[i]);
        refused((struct dw_options){.bend = names[i]}, 320, 320, UM_EFORMAT, names[i]);
    }
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        refused((struct dw_options){.omit = marks[i]}, 320, 320, UM_EFORMAT, marks[i]);
    refused((struct dw_options){.extra = "decoder.decoder.layers.3.norm1"}, 320, 320, UM_EFORMAT,
            "decoder.decoder.layers.3.norm1");
}

/* Metadata is anybody's: numbers whose sum wraps round to the right one. */
TEST(sampling_points_are_checked_one_by_one)
{
    char path[] = "/tmp/test_dfine_XXXXXX", out[] = "/tmp/test_dfine_XXXXXX";
    um_convert_settings upstream;
    struct dw_options o = {
        .size = 's', .classes = 1, .channels = 3, .points = "2147483647,2147483647,14"};
    um_convert_settings_default(&upstream);
    upstream.upstream = 1;
    refused(o, 320, 320, UM_EFORMAT, "level 0 has 2147483647 sampling points, want 1 to 64");
    static const char *const bad[] = {"3,6", "3,6,3,6", "3,6,3,", "3;6;3", "3,six,3", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct dw_options other = o;
        char want[96];
        other.points = bad[i];
        snprintf(want, sizeof want,
                 "metadata points is \"%s\", want one number for each of 3 levels", bad[i]);
        refused(other, 320, 320, UM_EFORMAT, want);
    }
    close(mkstemp(path));
    close(mkstemp(out));
    CHECK_OK(dw_write(path, &o));
    CHECK_EQ(um_model_convert(path, out, &upstream), UM_EFORMAT);
    o.points = "5,5,2";
    CHECK_OK(dw_write(path, &o));
    CHECK_OK(um_model_convert(path, out, &upstream));
    unlink(path);
    unlink(out);
}

TEST(running_out_of_memory_while_loading_leaves_nothing_behind)
{
    char path[] = "/tmp/test_dfine_XXXXXX";
    int fd = mkstemp(path), failed = 0, loaded = 0;
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(dw_write(path, &(struct dw_options){.size = 'n', .classes = 1, .channels = 3}));
    um_device *dev = NULL;
    um_weights *file = NULL;
    CHECK_OK(device_open(&dev));
    CHECK_OK(um_weights_open(&file, path));
    for (uint64_t k = 1; loaded == 0; k += 1 + k / 3) {
        um_dfine *d = NULL;
        FORGET_ERROR();
        um_mem_fail_at(k);
        um_status st =
            um_dfine_open(&d, dev, file, &(struct um_dfine_wish){.input_w = 320, .input_h = 320});
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK_MSG(st == UM_OK || st == UM_ENOMEM, "allocation %d: %s", (int)k, um_last_error());
        CHECK((st == UM_OK) == (d != NULL));
        failed += st == UM_ENOMEM;
        loaded += st == UM_OK;
        um_dfine_close(&d);
    }
    CHECK_MSG(failed > 10, "only %d failures", failed);
    um_weights_close(&file);
    um_device_close(&dev);
    unlink(path);
}

TEST(bad_input_sizes_are_refused)
{
    refused((struct dw_options){0}, 320, 330, UM_EINVAL, "multiples of 32");
    refused((struct dw_options){0}, 224, 224, UM_EINVAL, "300");
    refused((struct dw_options){0}, 32, 1 << 20, UM_EINVAL, "multiples of 32");
}

TEST(color_input_needs_a_color_stem)
{
    struct net n;
    CHECK_OK(net_open(&n, &(struct dw_options){.size = 'n', .classes = 1, .channels = 1}, 320, 320,
                      1, false));
    CHECK_EQ(um_dfine_info(n.d)->channels, 1);
    CHECK_STR(um_dfine_info(n.d)->architecture, "dfine-n");
    CHECK(um_dfine_weight_bytes(n.d) > 3700000 * 4);
    CHECK_EQ(prepare(&n, 320, 320, 3, false), UM_EINVAL);
    CHECK_EQ(prepare(&n, 320, 352, 1, false), UM_EINVAL);
    net_close(&n);
}

/* ---- operators ---- */

struct bench {
    um_device *dev;
    um_params *p;
    um_tape *t;
};

static um_status bench_open(struct bench *b)
{
    um_status st = device_open(&b->dev);
    if (st == UM_OK)
        st = um_params_open(&b->p, b->dev);
    return st == UM_OK ? um_tape_open(&b->t, b->dev, "ops") : st;
}

static um_tensor put(struct bench *b, const void *data, enum um_dtype dtype, int rows, int c)
{
    um_const k = um_params_add(b->p, data, (size_t)rows * (size_t)c * um_dtype_size(dtype));
    return um_tape_const(b->t, b->p, k, dtype, 1, rows, c);
}

static um_status bench_run(struct bench *b)
{
    um_status st = um_params_upload(b->p);
    if (st == UM_OK)
        st = um_tape_compile(b->t);
    return st == UM_OK ? um_tape_run(b->t, UM_QUEUE_MAIN) : st;
}

static um_status get(struct bench *b, um_tensor x, void *dst)
{
    um_buf *buf = NULL;
    size_t off = 0;
    um_tape_locate(b->t, x, &buf, &off);
    return um_download_now(b->dev, dst, buf, off,
                           (size_t)x.h * (size_t)x.w * (size_t)x.c * um_dtype_size(x.dtype),
                           UM_STAGE_DEBUG, "test");
}

static void bench_close(struct bench *b)
{
    um_tape_close(&b->t);
    um_params_close(&b->p);
    um_device_close(&b->dev);
}

TEST(topk_breaks_ties_by_row_and_puts_nan_last)
{
    struct bench b;
    const float s[8][2] = {{1, 0},  {2, NAN}, {NAN, NAN}, {0, 2}, {-INFINITY, -INFINITY},
                           {3, -1}, {1, 1},   {-2, -1}};
    static const int32_t want[8] = {5, 1, 3, 0, 6, 7, 2, 4};
    int32_t got[8];
    CHECK_OK(bench_open(&b));
    um_tensor y = um_keep(b.t, um_topk(b.t, put(&b, s, UM_F32, 8, 2), 8));
    um_tensor three = um_keep(b.t, um_topk(b.t, put(&b, s, UM_F32, 8, 2), 3));
    CHECK_OK(bench_run(&b));
    CHECK_OK(get(&b, y, got));
    for (int i = 0; i < 8; i++)
        CHECK_EQ(got[i], want[i]);
    CHECK_OK(get(&b, three, got));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(got[i], want[i]);
    bench_close(&b);
}

TEST(refine_takes_infinite_anchors_and_boxes_out_of_range)
{
    struct bench b;
    const float delta[4] = {0.5f, -1, 0, 0}, anchor[4] = {INFINITY, 0, 200, -200},
                box[4] = {1.5f, 0.5f, -0.2f, 1};
    float y[4], z[4];
    CHECK_OK(bench_open(&b));
    um_tensor a = um_keep(
        b.t, um_refine(b.t, put(&b, delta, UM_F32, 1, 4), put(&b, anchor, UM_F32, 1, 4), false));
    um_tensor c = um_keep(
        b.t, um_refine(b.t, put(&b, delta, UM_F32, 1, 4), put(&b, box, UM_F32, 1, 4), true));
    CHECK_OK(bench_run(&b));
    CHECK_OK(get(&b, a, y));
    CHECK_OK(get(&b, c, z));
    CHECK_EQ(y[0], 1);
    CHECK_NEAR(y[1], 0.2689414, 1e-6);
    CHECK_EQ(y[2], 1);
    CHECK_NEAR(y[3], 0, 1e-30);
    CHECK_NEAR(z[0], 1 / (1 + exp(-0.5) * 1e-5), 1e-6);
    CHECK_NEAR(z[1], 0.2689414, 1e-6);
    CHECK_NEAR(z[2], 1e-5, 1e-7);
    CHECK_NEAR(z[3], 1 - 1e-5, 1e-6);
    bench_close(&b);
}

TEST(deform_samples_between_cells_and_nothing_outside)
{
    struct bench b;
    enum { D = 8, POINTS = 2, Q = 3 };
    /* one level of 2x3 cells whose channels hold 10*row + column + 4; one head; two equal points */
    float memory[6][D],
        ow[Q][POINTS * 3] = {{0}},
                       ref[Q][4] = {{0.5f, 0.5f, 0.2f, 0.2f}, {0, 0, 1, 1}, {0.5f, 0.5f, 1, 1}},
                       y[Q][D];
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < D; k++)
            memory[i][k] = (float)(10 * (i / 3) + i % 3 + 4);
    for (int i = 0; i < 4; i++)
        ow[2][i] = i % 2 ? NAN : 1e30f;
    CHECK_OK(bench_open(&b));
    struct um_deform_args a = {.heads = 1, .levels = 1, .h = {2}, .w = {3}, .points = {POINTS}};
    um_tensor out =
        um_keep(b.t, um_deform(b.t, put(&b, ow, UM_F32, Q, POINTS * 3), put(&b, ref, UM_F32, Q, 4),
                               put(&b, memory, UM_F32, 6, D), &a));
    CHECK_OK(bench_run(&b));
    CHECK_OK(get(&b, out, y));
    for (int k = 0; k < D; k++) {
        CHECK_NEAR(y[0][k], 10, 1e-5); /* the middle: rows 0 and 1, column 1 */
        CHECK_NEAR(y[1][k], 1, 1e-6);  /* the corner: a quarter of cell 0 */
        CHECK_EQ(y[2][k], 0);
    }
    bench_close(&b);
}

TEST(integral_and_quality_read_the_distributions)
{
    struct bench b;
    enum { BINS = 33 };
    float corners[4 * BINS], project[BINS], box[4], stats[20];
    const float ref[4] = {0.5f, 0.4f, 0.2f, 0.1f};
    for (int i = 0; i < 4 * BINS; i++)
        corners[i] = 0;
    for (int i = 0; i < BINS; i++)
        project[i] = (float)(i - 16) / 4;
    corners[20] = 100;            /* left: all in bin 20, W = 1 */
    corners[BINS + 3] = logf(30); /* top: bin 3 thirty times the others */
    corners[BINS + 7] = logf(6);
    CHECK_OK(bench_open(&b));
    um_tensor c = put(&b, corners, UM_F32, 1, 4 * BINS);
    um_tensor y = um_keep(
        b.t, um_integral(b.t, c, put(&b, ref, UM_F32, 1, 4), put(&b, project, UM_F32, BINS, 1), 4));
    um_tensor s = um_keep(b.t, um_lqe_stats(b.t, c));
    CHECK_OK(bench_run(&b));
    CHECK_OK(get(&b, y, box));
    CHECK_OK(get(&b, s, stats));
    double top = (30 * -3.25 + 6 * -2.25 + 5.5) / 67; /* the other 31 bins: -(-3.25 - 2.25) */
    double x1 = 0.5 - 3 * 0.05, x2 = 0.5 + 2 * 0.05, y1 = 0.4 - (2 + top) * 0.025,
           y2 = 0.4 + 2 * 0.025;
    CHECK_NEAR(box[0], (x1 + x2) / 2, 1e-6);
    CHECK_NEAR(box[1], (y1 + y2) / 2, 1e-6);
    CHECK_NEAR(box[2], x2 - x1, 1e-6);
    CHECK_NEAR(box[3], y2 - y1, 1e-6);
    const double want[10] = {1,         0,        0,        0,        0.25,
                             30.0 / 67, 6.0 / 67, 1.0 / 67, 1.0 / 67, 38.0 / 67 / 4};
    for (int i = 0; i < 10; i++)
        CHECK_NEAR(stats[i], want[i], 1e-6);
    CHECK_NEAR(stats[19], 1.0 / 33, 1e-6);
    bench_close(&b);
}

static void best_of(const float logits[4][2], const float boxes[4][4],
                    struct um_frame_header header, int n, struct um_gate *gate,
                    struct um_prompt *prompt)
{
    struct bench b;
    header.width = 200;
    header.height = 100;
    CHECK_OK(bench_open(&b));
    struct um_best_box y =
        um_best_box(b.t, put(&b, logits, UM_F32, 4, 2), put(&b, boxes, UM_F32, 4, 4),
                    put(&b, &header, UM_U8, 1, UM_HEADER_BYTES), n, (um_tensor){0});
    um_keep(b.t, y.gate);
    um_keep(b.t, y.prompt);
    CHECK_OK(bench_run(&b));
    CHECK_OK(get(&b, y.gate, gate));
    CHECK_OK(get(&b, y.prompt, prompt));
    bench_close(&b);
}

static void best(const float logits[4][2], const float boxes[4][4], int32_t label, float tau,
                 struct um_gate *gate, struct um_prompt *prompt)
{
    best_of(logits, boxes, (struct um_frame_header){.tau_conf = tau, .label = label}, 1, gate,
            prompt);
}

/* Several boxes: one of a query, or one of a class; those that are right in front. */
TEST(best_box_picks_several)
{
    const float boxes[4][4] = {{0.5f, 0.5f, 0.2f, 0.4f},
                               {0.5f, 0.5f, -0.2f, 0.4f},
                               {0.4f, 0.5f, 0.2f, 0.4f},
                               {0.3f, 0.5f, 0.2f, 0.4f}};
    const float logits[4][2] = {{1, 2}, {0, 3}, {0.5f, 1.9f}, {-1, 1}};
    struct um_gate g[4];
    struct um_prompt p[4];
    struct um_frame_header many = {.tau_conf = 0.75f, .label = -1, .objects = 4};
    best_of(logits, boxes, many, 4, g, p);
    const int query[4] = {0, 2, 1, 3}; /* query 1 has the best score and an inverted box */
    const uint32_t flags[4] = {UM_GATE_OK, UM_GATE_OK, UM_GATE_INVERTED, UM_GATE_BELOW_TAU};
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(g[i].query, query[i]);
        CHECK_EQ(g[i].label, 1);
        CHECK_EQ(g[i].flags, flags[i]);
        CHECK_EQ(p[i].box[0], g[i].box[0]);
    }
    many.objects = 2; /* of four places */
    best_of(logits, boxes, many, 4, g, p);
    CHECK(g[0].query == 0 && g[1].query == 1 && g[2].query == -1 && g[3].query == -1);
    many.objects = 4;
    many.per_class = 1;
    many.tau_conf = 0.5f;
    best_of(logits, boxes, many, 4, g, p);
    CHECK(g[0].query == 0 && g[0].label == 0 && g[0].flags == UM_GATE_OK);
    CHECK(g[1].query == 1 && g[1].label == 1 && g[1].flags == UM_GATE_INVERTED);
    CHECK(g[2].query == -1 && g[3].query == -1);
    struct um_gate alone;
    struct um_prompt prompt;
    many.per_class = many.objects = 0;
    best_of(logits, boxes, many, 1, &alone, &prompt);
    CHECK(alone.query == 1 && alone.flags == UM_GATE_INVERTED);
}

TEST(best_box_leaves_out_what_overlaps_a_better_one_of_its_class)
{
    /* Neighbours share a third of what they cover, the first and the last nothing. */
    const float boxes[4][4] = {{0.5f, 0.5f, 0.2f, 0.4f},
                               {0.4f, 0.5f, 0.2f, 0.4f},
                               {0.3f, 0.5f, 0.2f, 0.4f},
                               {0.5f, 0.5f, 0.2f, 0.4f}};
    const float logits[4][2] = {{4, -9}, {3, -9}, {2, -9}, {-9, 1}};
    struct um_frame_header header = {.tau_conf = 0.5f, .label = -1, .objects = 4};
    struct {
        float nms;
        int query[4];
    } want[] = {{0, {0, 1, 2, 3}}, {0.34f, {0, 1, 2, 3}}, {0.33f, {0, 2, 3, 0}}};
    for (int k = 0; k < 3; k++) {
        struct um_gate g[4];
        struct um_prompt p[4];
        header.nms = want[k].nms;
        best_of(logits, boxes, header, 4, g, p);
        for (int i = 0; i < 3; i++)
            CHECK(g[i].query == want[k].query[i] && g[i].flags == UM_GATE_OK);
        CHECK(k == 2 ? g[3].flags != UM_GATE_OK : g[3].query == 3);
    }
}

TEST(a_frames_score_is_that_one_of_so_many_boxes_of_a_class_is_right)
{
    /* The second overlaps the first; the third is alone, the last of another class. */
    const float boxes[4][4] = {{0.5f, 0.5f, 0.2f, 0.4f},
                               {0.5f, 0.5f, 0.21f, 0.4f},
                               {0.2f, 0.5f, 0.2f, 0.4f},
                               {0.8f, 0.5f, 0.2f, 0.4f}};
    const float logits[4][2] = {{-0.5f, -9}, {-0.6f, -9}, {-1, -INFINITY}, {-9, -0.7f}};
    struct um_frame_header header = {
        .tau_conf = 0.5f, .label = -1, .nms = 0.7f, .presence_half = 0.5f};
    const double s[] = {1 / (1 + exp(0.5)), 1 / (1 + exp(1)), 1 / (1 + exp(0.6))};
    const double want[] = {s[0], s[0], 1 - (1 - s[0]) * (1 - s[1])};
    struct um_gate g[2];
    struct um_prompt p[2];
    for (uint32_t k = 0; k < 3; k++) {
        header.presence = k;
        best_of(logits, boxes, header, 1, g, p);
        CHECK_NEAR(g[0].score, want[k], 1e-6);
        CHECK(g[0].query == 0 && g[0].label == 0 && g[0].logit == -0.5f);
        CHECK_EQ(g[0].flags, k == 2 ? UM_GATE_OK : UM_GATE_BELOW_TAU);
    }
    header.presence_half = 0.8f; /* four times the odds are needed */
    best_of(logits, boxes, header, 1, g, p);
    CHECK_NEAR(g[0].score / (1 - g[0].score), want[2] / (1 - want[2]) / 4, 1e-6);
    CHECK_EQ(g[0].flags, UM_GATE_BELOW_TAU);
    header.presence_half = 0.5f;
    header.presence = UM_BOXES_MAX; /* more than there are: the last box of the class scores 1e-4 */
    best_of(logits, boxes, header, 1, g, p);
    CHECK_NEAR(g[0].score, want[2], 1e-4);
    header.nms = 0; /* what overlaps counts, too */
    header.presence = 2;
    best_of(logits, boxes, header, 1, g, p);
    CHECK_NEAR(g[0].score, 1 - (1 - s[0]) * (1 - s[2]), 1e-6);
    header.objects = 2; /* each has its own */
    best_of(logits, boxes, header, 2, g, p);
    CHECK_NEAR(g[0].score, s[0], 1e-6);
    CHECK_NEAR(g[1].score, s[2], 1e-6);
}

TEST(best_box_picks_scales_and_judges)
{
    const float boxes[4][4] = {{0.5f, 0.5f, 0.2f, 0.4f},
                               {0.5f, 0.5f, -0.2f, 0.4f},
                               {1.5f, 0.5f, 0.2f, 0.4f},
                               {NAN, 0.5f, 0.2f, 0.4f}};
    const float first[4][2] = {{1, 2}, {0, 2}, {-INFINITY, 1}, {-1, -1}};
    struct um_gate g;
    struct um_prompt p;
    best(first, boxes, -1, 0.5f, &g, &p);
    CHECK_EQ(g.flags, UM_GATE_OK);
    CHECK_EQ(g.query, 0);
    CHECK_EQ(g.label, 1);
    CHECK_NEAR(g.score, 1 / (1 + exp(-2)), 1e-6);
    const double want[4] = {80, 30, 120, 70};
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(g.box[i], want[i], 1e-4);
        CHECK_EQ(p.box[i], g.box[i]);
    }
    CHECK_EQ(p.width, 200);
    CHECK_EQ(p.height, 100);
    CHECK_EQ(p.has_box, 1);
    best(first, boxes, 0, 0.8f, &g, &p);
    CHECK_EQ(g.label, 0);
    CHECK_EQ(g.flags, UM_GATE_BELOW_TAU);
    static const uint32_t flags[4] = {UM_GATE_OK, UM_GATE_INVERTED, UM_GATE_OUTSIDE,
                                      UM_GATE_NONFINITE};
    for (int q = 1; q < 4; q++) {
        float logits[4][2] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
        logits[q][1] = 5;
        best((const float(*)[2])logits, boxes, -1, 0.5f, &g, &p);
        CHECK_EQ(g.query, q);
        CHECK_MSG(g.flags == flags[q], "query %d: flags %u", q, g.flags);
        CHECK(isfinite(p.box[0]) && isfinite(p.box[2]));
        for (int i = 0; i < 4 && q == 3; i++)
            CHECK_EQ(g.box[i], 0);
    }
    const float partly[4][2] = {{1, 2}, {0, 2}, {NAN, 1}, {-1, -1}};
    best(partly, boxes, -1, 0.5f, &g, &p);
    CHECK_EQ(g.query, 0);
    CHECK_EQ(g.flags, UM_GATE_NAN);
    const float nothing[4][2] = {{NAN, NAN}, {NAN, NAN}, {NAN, NAN}, {NAN, NAN}};
    best(nothing, boxes, -1, 0.5f, &g, &p);
    CHECK_EQ(g.query, -1);
    CHECK(g.flags & UM_GATE_NONFINITE);
    CHECK(!(g.flags & UM_GATE_OK));
}

/* Not expf, whose last bit is each library's own. */
TEST(best_box_scores_are_rounded_once)
{
    const float boxes[4][4] = {{0.5f, 0.5f, 0.2f, 0.4f}};
    for (float x = -12; x < 12; x += 0.171f) {
        const float logits[4][2] = {{x, -20}, {-20, -20}, {-20, -20}, {-20, -20}};
        struct um_gate g;
        struct um_prompt p;
        best(logits, boxes, -1, 0.5f, &g, &p);
        CHECK_MSG(g.score == (float)(1 / (1 + exp(-(double)x))), "logit %g: %.9g", (double)x,
                  (double)g.score);
    }
}

TEST_MAIN
