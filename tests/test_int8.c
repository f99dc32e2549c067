/* SPDX-License-Identifier: Apache-2.0 */
/* Networks on bytes: how a plan is found, written, read and obeyed, and that what is found on bytes
 * is what is found on floats. */
#include "nn/op_level.h"
#include "nn/quant.h"

#include "dfine_weights.h"
#include "narrow.h"
#include "sam_weights.h"
#include "scratch.h"

/* ---- plans ---- */

TEST(a_plan_reads_back)
{
    static const char TEXT[] = "-0.25 3.5 41.2 image_encoder.neck.0 01207\n"
                               "- - 12.0 backbone.stem.stem2a.conv -\n"
                               "0 1 30.0 encoder.lateral_convs.0.conv 0\n";
    um_quant *q = NULL;
    char *text = NULL;
    CHECK_OK(um_quant_parse(&q, TEXT, "here"));
    CHECK_EQ(um_quant_count(q), 3);
    CHECK(um_quant_at(q, 0)->bytes && !um_quant_at(q, 1)->bytes);
    CHECK(um_quant_at(q, 0)->range.lo == -0.25f && um_quant_at(q, 0)->range.hi == 3.5f);
    CHECK(um_quant_at(q, 0)->inputs == 5 && um_quant_at(q, 0)->shift[4] == 7);
    CHECK_OK(um_quant_print(q, &text));
    CHECK_STR(text, TEXT);
    um_free(text);
    um_quant_close(&q);
    um_status st = UM_ENOMEM;
    for (unsigned k = 1; st == UM_ENOMEM; k++) {
        um_mem_fail_at(k);
        st = um_quant_parse(&q, TEXT, "here");
        um_mem_fail_at(0);
    }
    CHECK_OK(st);
    um_quant_close(&q);
}

TEST(a_plan_that_means_nothing_is_refused)
{
    static const char *const WRONG[] = {
        "x",
        "\n",
        "0 1 30\n",
        "0 1 30 no.shifts\n",
        "0 1 30 too.far 0128\n",
        "- - 30 floats 0\n",
        "0 1 30 a.name.without.an.end 0",
        "0.5 1 30 above.zero 0\n",
        "-2 -1 30 below.zero 0\n",
        "0 0 30 nothing 0\n",
        "0 nan 30 no.number 0\n",
        "0 inf 30 no.number 0\n",
        "0 1e39 30 too.much 0\n",
        "- 1 30 half 0\n",
        "0 1 loud name 0\n",
        "0  1 30 two.spaces 0\n",
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        char text[128];
        um_quant *q = NULL;
        snprintf(text, sizeof text, "0 1 30 first 0\n%s", WRONG[i]);
        CHECK_MSG(um_quant_parse(&q, text, "here") == UM_EFORMAT, "%s", WRONG[i]);
        CHECK(q == NULL);
        CHECK_MSG(strstr(um_last_error(), "here") && strstr(um_last_error(), "line 2"), "%s",
                  um_last_error());
    }
}

/* One layer of 32 -> 32 channels on 64 pixels, as the identity; its output. */
static void run_layer(um_quant *q, enum um_quant_use use, const float *x, float *y)
{
    enum { C = 32, N = 64 };
    float w[C * C] = {0};
    um_device_settings s;
    um_device *dev = NULL;
    um_params *p = NULL;
    um_tape *t = NULL;
    um_buf *in = NULL, *out = NULL;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.threads = 1;
    for (int i = 0; i < C; i++)
        w[i * C + i] = 1;
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_OK(um_quant_attach(q, dev, use));
    CHECK_OK(um_params_open(&p, dev));
    um_quant_begin(q);
    um_params_quantise(p, q);
    um_quant_name(q, "the.layer.weight");
    um_conv conv = um_linear_pack(p, w, NULL, C, C);
    CHECK_EQ(conv.type, UM_I8);
    CHECK(um_quant_missed(q) == NULL);
    CHECK_OK(um_params_upload(p));
    CHECK_OK(um_buf_open(&in, dev, N * C * sizeof *x, "x"));
    CHECK_OK(um_buf_open(&out, dev, N * C * sizeof *x, "y"));
    CHECK_OK(um_upload_now(dev, in, 0, x, N * C * sizeof *x, UM_STAGE_SETUP, "x"));
    CHECK_OK(um_tape_open(&t, dev, "layer"));
    um_conv2d(t, &conv, um_tape_buffer(t, in, 0, UM_F32, 8, 8, C),
              .out = um_tape_buffer(t, out, 0, UM_F32, 8, 8, C));
    CHECK_OK(um_tape_compile(t));
    CHECK_OK(um_tape_run(t, UM_QUEUE_MAIN));
    CHECK_OK(um_download_now(dev, y, out, 0, N * C * sizeof *y, UM_STAGE_DEBUG, "y"));
    um_tape_close(&t);
    um_params_close(&p);
    um_buf_close(&in);
    um_buf_close(&out);
    um_device_close(&dev);
}

TEST(a_range_has_the_least_error)
{
    enum { N = 64 * 32 };
    static float x[N], y[N];
    um_quant *q = NULL;
    uint32_t seed = 1;
    for (int i = 0; i < N; i++) { /* -1..3, and one far outlier */
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * 0x1p-24f * 4 - 1;
    }
    x[77] = 60; /* in channel 13: 16 times the others */
    CHECK_OK(um_quant_open(&q));
    run_layer(q, UM_QUANT_CHANNELS, x, y);
    CHECK(memcmp(x, y, sizeof x) == 0);
    um_quant_find_channels(q);
    CHECK_EQ(um_quant_count(q), 1);
    struct um_quant_layer *l = um_quant_at(q, 0);
    CHECK_STR(l->name, "the.layer");
    CHECK_EQ(l->inputs, 32);
    for (int i = 0; i < 32; i++)
        CHECK_EQ(l->shift[i], i == 13 ? 0 : 4);
    run_layer(q, UM_QUANT_RANGES, x, y);
    CHECK(memcmp(x, y, sizeof x) == 0);
    um_quant_find_ranges(q);
    CHECK_MSG(l->range.lo < -14 && l->range.lo > -17 && l->range.hi > 46 && l->range.hi <= 60.1f,
              "%g, %g", (double)l->range.lo, (double)l->range.hi);
    run_layer(q, UM_QUANT_SCORES, x, y);
    CHECK(memcmp(x, y, sizeof x) == 0);
    um_quant_find_scores(q);
    CHECK_MSG(l->bytes && l->snr > 30 && l->snr < 50, "%g dB", l->snr);
    run_layer(q, UM_QUANT_APPLY, x, y);
    float step = (l->range.hi - l->range.lo) / 255;
    for (int i = 0; i < N; i++)
        CHECK_MSG(i == 77 || fabsf(x[i] - y[i]) <= step * (i % 32 == 13 ? 0.51f : 0.51f / 16),
                  "%d: %g, want %g", i, (double)y[i], (double)x[i]);
    um_quant_close(&q);
}

/* ---- files ---- */

/* The level chosen, or where that has no kernels for bytes the best one that has: some exist for
 * tests. */
static const struct um_ops *level_of_bytes(void)
{
    const struct um_ops *ops = NULL;
    if (um_ops_choose(&ops) != UM_OK)
        fixture_die("level");
    for (const struct um_ops *const *all = um_ops_host(); !ops->pack_int8; all++)
        ops = *all;
    return ops;
}

TEST(a_level_without_it_says_so)
{
    for (const struct um_ops *const *all = um_ops_host(); *all; all++) {
        um_status st = UM_OK;
        narrow_try(*all, "int8", &st);
        if ((*all)->int8) {
            CHECK_EQ(st, UM_EFORMAT);
            CHECK(strstr(um_last_error(), "convert --precision int8 --calibrate SOURCE"));
        } else {
            CHECK_EQ(st, UM_EUNSUPPORTED);
            CHECK(strstr(um_last_error(), (*all)->name) && strstr(um_last_error(), "fp32"));
        }
    }
}

TEST(a_plan_of_another_network_is_refused)
{
    static const char *const plan[] = {"int8", "0 1 30 no.such.layer 0\n", NULL};
    um_device *dev = narrow_open("cpu", 1, "int8", level_of_bytes());
    um_detector *d = NULL;
    const char *file = in_scratch("other.safetensors");
    um_convert_settings as;
    um_convert_settings_default(&as);
    as.metadata = plan;
    CHECK_OK(um_model_convert(DETECTOR_FILE, file, &as));
    CHECK_EQ(um_detector_open(&d, dev, file, NULL), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "no.such.layer"), "%s", um_last_error());
    um_device_close(&dev);
}

/* ---- whole networks ---- */

/* That one and all others that offer it. */
static int levels_of_bytes(const struct um_ops **found)
{
    int n = 0;
    found[n++] = level_of_bytes();
    for (const struct um_ops *const *all = um_ops_host(); *all; all++)
        if ((*all)->int8 && *all != found[0])
            found[n++] = *all;
    return n;
}

TEST(boxes_are_those_of_floats)
{
    const char *file = in_scratch("detector.safetensors");
    narrow_calibrate(DETECTOR_FILE, file);
    const struct um_ops *level[6];
    for (int i = 0, n = levels_of_bytes(level); i < n; i++)
        narrow_boxes(level[i], "int8", file, 2, narrow_few(level[i]));
}

struct told {
    int floats;  /* layers that stay so */
    float last;  /* score of the latest of them */
    bool sorted; /* the worst came first */
    int lines;
};

static void count_lines(void *ctx, const char *line)
{
    (void)line;
    ((struct told *)ctx)->lines++;
}

static void hear(void *ctx, const char *line)
{
    struct told *t = ctx;
    const char *at = strstr(line, " stays floats: ");
    if (!at)
        return;
    float snr = strtof(at + strlen(" stays floats: "), NULL);
    t->sorted = t->sorted && snr >= t->last;
    t->last = snr;
    t->floats++;
}

/* Noise for weights: its boxes hang by a thread, and bytes do not hold them. */
TEST(the_worst_layers_stay_floats)
{
    const char *file = in_scratch("noise.safetensors"), *out = in_scratch("out.safetensors");
    struct told told = {.last = -1000, .sorted = true};
    struct frames f;
    um_calibration_settings s;
    um_convert_settings how;
    um_calibration_settings_default(&s);
    um_convert_settings_default(&how);
    read_frames(&f, 1, 2);
    CHECK_OK(dw_write(file, &(struct dw_options){.size = 'n', .classes = 3, .channels = 3}));
    how.input_width = how.input_height = 96;
    how.queries = 40;
    s.frames = (const um_frame *const *)f.frame;
    s.count = f.n;
    s.threads = 2;
    s.say = hear;
    s.ctx = &told;
    um_status st = um_model_calibrate(file, out, &how, &s);
    CHECK(told.floats > 0 && told.sorted);
    CHECK_EQ(st, UM_EUNSUPPORTED);
    CHECK_MSG(strstr(um_last_error(), " dB") && strstr(um_last_error(), "with half of its layers"),
              "%s", um_last_error());
    CHECK(access(out, F_OK) != 0);
    frames_close(&f);
}

static char *plan_of(const char *file)
{
    um_weights *w = NULL;
    if (um_weights_open(&w, file) != UM_OK || !um_weights_meta(w, "int8"))
        fixture_die(file);
    char *plan = um_strdup(um_weights_meta(w, "int8"));
    um_weights_close(&w);
    return plan;
}

/* Of a checkpoint that cannot tell its family, as of one that says it: MedSAM's images are others
 * than SAM's. The rest of the metadata is there, however much it is. */
TEST(a_family_that_is_asked_for_is_calibrated)
{
    enum { MORE = 40 };
    static char key[MORE][8];
    const char *meta[2 * MORE + 3] = {"architecture", "medsam-vit"};
    const char *plain = in_scratch("vit.safetensors"), *said = in_scratch("medsam.safetensors"),
               *out[2] = {in_scratch("vit8.safetensors"), in_scratch("medsam8.safetensors")};
    struct frames f;
    um_convert_settings how;
    um_calibration_settings s;
    um_weights *w = NULL;
    for (int i = 0; i < MORE; i++) {
        snprintf(key[i], sizeof key[i], "key%d", i);
        meta[2 + 2 * i] = meta[3 + 2 * i] = key[i];
    }
    um_convert_settings_default(&how);
    um_calibration_settings_default(&s);
    read_frames(&f, 1, 2);
    s.frames = (const um_frame *const *)f.frame;
    s.count = f.n;
    CHECK_OK(sw_write(plain, UM_GOLDEN_DIR "/sam_vit_64.txt", (struct sw_damage){0}, NULL));
    how.metadata = meta;
    CHECK_OK(um_model_convert(plain, said, &how));
    CHECK_OK(um_model_calibrate(plain, out[0], &how, &s));
    CHECK_OK(um_model_calibrate(said, out[1], NULL, &s));
    char *plan[2] = {plan_of(out[0]), plan_of(out[1])};
    CHECK(plan[0][0]);
    CHECK_STR(plan[0], plan[1]);
    CHECK_OK(um_weights_open(&w, out[0]));
    CHECK_STR(um_weights_meta(w, key[MORE - 1]), key[MORE - 1]);
    um_weights_close(&w);
    um_free(plan[0]);
    um_free(plan[1]);
    frames_close(&f);
}

/* Before anything is computed. */
TEST(what_calibration_cannot_write_is_refused)
{
    static const char *const precision[] = {"int8", "fp8", NULL};
    um_convert_settings how;
    um_calibration_settings s;
    struct told told = {0};
    struct frames f;
    um_convert_settings_default(&how);
    um_calibration_settings_default(&s);
    read_frames(&f, 1, 2);
    s.frames = (const um_frame *const *)f.frame;
    s.count = f.n;
    s.say = count_lines;
    s.ctx = &told;
    const char *out = in_scratch("not_written.safetensors");
    how.upstream = 1;
    CHECK_EQ(um_model_calibrate(DETECTOR_FILE, in_scratch("not_written.pth"), &how, &s), UM_EINVAL);
    how.upstream = 0;
    for (int i = 0; i < 3; i++) {
        how.precision = precision[i];
        CHECK_EQ(um_model_calibrate(DETECTOR_FILE, out, &how, &s), i ? UM_EINVAL : UM_EUNSUPPORTED);
    }
    CHECK_EQ(told.lines, 0);
    frames_close(&f);
}

TEST(masks_are_those_of_floats)
{
    const char *file = in_scratch("segmenter.safetensors");
    narrow_calibrate(SEGMENTER_FILE, file);
    const struct um_ops *level[6];
    for (int i = 0, n = levels_of_bytes(level); i < n; i++)
        narrow_masks(level[i], "int8", file, 0.99,
                     SANITIZED ? 3 : narrow_few(level[i])); /* of one alone it is 0.987 */
    scratch_close();
}

TEST_MAIN
