/* SPDX-License-Identifier: Apache-2.0 */
/* One test per requirement of the mask's way from the segmenter to the caller, each on the host and
 * on the device that keeps its memory to itself. Numbers as in the requirements' list:
 *
 *   R1   one call: any image, an optional box, None for nothing, errors for misuse
 *   R2   the mask stays on the device by default; the ledger proves it
 *   R3   host mode: a boolean array                R4   rank is reduced only there
 *   R5   a host mask handed back is moved to the device and thresholded
 *   R6   the device is the model's; mixing two is an error that names both
 *   R7   a KPI line per published prediction       R8   the switch is passed through; embeddings
 *                                                       are reused
 *   R9   the packet is the one conversion          R10  rollback by call, option or environment
 *   R11  the six tests the requirements came with */
#include "fixture.h"

#include <inttypes.h>

#define ENVIRONMENT "ULTRAMOTION_SAM_AS_NUMPY"

enum { W = 422, H = 558, N = W * H };
static const float bone[4] = {130, 127, 379, 511}; /* of golden frame 0 */

/* Frame 0 of the golden sequence without gaps between rows. */
static const uint8_t *golden(void)
{
    static uint8_t pixels[N];
    static bool read;
    if (!read) {
        um_frame *f = golden_frame(0);
        for (int y = 0; y < H; y++)
            memcpy(pixels + (size_t)y * W, pixel(f, 0, y), W);
        um_frame_unref(&f);
        read = true;
    }
    return pixels;
}

static um_image gray_image(void)
{
    return (um_image){.struct_size = sizeof(um_image),
                      .data = golden(),
                      .layout = UM_IMAGE_HW,
                      .height = H,
                      .width = W,
                      .channels = 1};
}

static um_transfers ledger(const char *device)
{
    um_transfers t;
    um_device_transfers(fixture(device)->dev, &t);
    return t;
}

/* A prediction on the golden image as host bytes. */
static void predict(const char *device, const um_image *image, const float *box, um_mask_mode mode,
                    uint8_t *out)
{
    um_values *mask = NULL;
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, image, box, mode, &mask));
    CHECK(mask != NULL);
    CHECK_OK(um_values_read(mask, out));
    um_values_unref(&mask);
}

struct lines {
    int count;
    char last[512];
};

static void keep_line(void *ctx, const char *line)
{
    struct lines *l = ctx;
    l->count++;
    snprintf(l->last, sizeof l->last, "%s", line);
}

static um_pipeline_settings pipeline_settings(const char *device)
{
    um_pipeline_settings s = fixture_settings(fixture(device));
    return s;
}

/* One golden frame through a pipeline of these settings. */
static void run_frame(const um_pipeline_settings *s, int i, um_pipeline **p,
                      const um_packet **packet)
{
    um_frame *f = golden_frame(i);
    CHECK_OK(um_pipeline_open(p, s));
    CHECK_OK(um_pipeline_send(*p, &f));
    CHECK_OK(um_pipeline_receive(*p, packet));
}

/* ---- R1 ---- */

TEST_ON_DEVICES(R1_every_kind_of_image_gives_the_same_mask)
{
    static uint8_t u8[3 * N], want[N], got[N];
    static float f32[3 * N];
    const uint8_t *p = golden();
    um_image image = gray_image();
    predict(device, &image, bone, UM_MASK_AUTO, want);
    CHECK(set_pixels(want, N) > 1000);
    for (int layout = UM_IMAGE_HW; layout <= UM_IMAGE_CHW; layout++)
        for (int channels = 1; channels <= (layout == UM_IMAGE_HW ? 1 : 3); channels += 2)
            for (int type = UM_IMAGE_U8; type <= UM_IMAGE_F32; type++) {
                for (int i = 0; i < N; i++)
                    for (int c = 0; c < channels; c++) {
                        size_t at = layout == UM_IMAGE_CHW
                                        ? (size_t)c * N + (size_t)i
                                        : (size_t)i * (size_t)channels + (size_t)c;
                        u8[at] = p[i];
                        f32[at] = p[i] == 255 ? 1.5f
                                              : ((float)p[i] + 0.5f) / 255; /* clipped, truncated */
                    }
                image = (um_image){.struct_size = sizeof image,
                                   .data = type == UM_IMAGE_U8 ? (const void *)u8 : f32,
                                   .type = (um_image_type)type,
                                   .layout = (um_image_layout)layout,
                                   .height = H,
                                   .width = W,
                                   .channels = channels};
                predict(device, &image, bone, UM_MASK_AUTO, got);
                CHECK_MSG(differing(want, got, N) == 0,
                          "type %d, layout %d, %d channels: %ld pixels differ", type, layout,
                          channels, differing(want, got, N));
            }
}

/* Colours keep their order: planes and pixels of the same image agree, swapped channels do not.
 */
TEST_ON_DEVICES(R1_colours_keep_their_order)
{
    static uint8_t rgb[3 * N], planes[3 * N], want[N], got[N];
    const uint8_t *p = golden();
    for (int i = 0; i < N; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = planes[c * N + i] = (uint8_t)(c == 0   ? p[i]
                                                           : c == 1 ? p[i] / 4
                                                                    : 255 - p[i]);
    um_image image = {.struct_size = sizeof image,
                      .data = rgb,
                      .layout = UM_IMAGE_HWC,
                      .height = H,
                      .width = W,
                      .channels = 3};
    predict(device, &image, bone, UM_MASK_AUTO, want);
    image.layout = UM_IMAGE_CHW;
    image.data = planes;
    predict(device, &image, bone, UM_MASK_AUTO, got);
    CHECK_EQ(differing(want, got, N), 0);
    for (int i = 0; i < N; i++) {
        uint8_t red = planes[i];
        planes[i] = planes[2 * N + i];
        planes[2 * N + i] = red;
    }
    predict(device, &image, bone, UM_MASK_AUTO, got);
    CHECK(differing(want, got, N) > 0);
}

TEST_ON_DEVICES(R1_no_box_means_the_whole_image)
{
    static uint8_t want[N], got[N];
    um_image image = gray_image();
    predict(device, &image, (float[]){0, 0, W, H}, UM_MASK_AUTO, want);
    predict(device, &image, NULL, UM_MASK_AUTO, got);
    CHECK_EQ(differing(want, got, N), 0);
    predict(device, &image, (float[]){10, 10, 100, 100}, UM_MASK_AUTO, got);
    CHECK(differing(want, got, N) > 0);
}

TEST_ON_DEVICES(R1_no_image_or_no_model_gives_none)
{
    um_image image = gray_image();
    um_values *mask = (um_values *)&image;
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, NULL, bone, UM_MASK_AUTO, &mask));
    CHECK(mask == NULL);
    mask = (um_values *)&image;
    CHECK_OK(um_run_segmentation(NULL, &image, bone, UM_MASK_AUTO, &mask));
    CHECK(mask == NULL);
    mask = (um_values *)&image;
    CHECK_OK(um_run_segmentation_legacy(fixture(device)->segmenter, NULL, UM_MASK_HOST, &mask));
    CHECK(mask == NULL);
}

TEST_ON_DEVICES(R1_misuse_raises)
{
    const um_image good = gray_image();
    static float bytes[N], normalised[N]; /* to 255, and -1 to 1, though floats are 0 to 1 */
    um_image bad[11];
    for (int i = 0; i < 11; i++)
        bad[i] = good;
    for (int i = 0; i < N; i++) {
        bytes[i] = golden()[i];
        normalised[i] = bytes[i] / 127.5f - 1;
    }
    bad[0].data = NULL;
    bad[1].channels = 3; /* of a layout that has one */
    bad[2].layout = UM_IMAGE_HWC;
    bad[2].channels = 2;
    bad[3].width = 0;
    bad[4].height = -1;
    bad[5].width = UM_FRAME_MAX_SIDE + 1;
    bad[6].type = (um_image_type)7;
    bad[7].layout = (um_image_layout)7;
    bad[8].device = "cuda:0";
    bad[9].data = bytes;
    bad[9].type = UM_IMAGE_F32;
    bad[10].data = normalised;
    bad[10].type = UM_IMAGE_F32;
    const float boxes[][4] = {{NAN, 0, 10, 10},     {0, 0, INFINITY, 10}, {20, 0, 10, 10},
                              {0, 20, 10, 10},      {-20, 0, -10, 10},    {W + 1, 0, W + 9, 10},
                              {0, H + 1, 10, H + 9}};
    um_segmenter *s = fixture(device)->segmenter;
    um_values *mask = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mask = (um_values *)bad;
        CHECK_MSG(um_run_segmentation(s, &bad[i], NULL, UM_MASK_AUTO, &mask) == UM_EINVAL,
                  "image %zu", i);
        CHECK(mask == NULL && um_last_error()[0]);
    }
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
        CHECK_MSG(um_run_segmentation(s, &good, boxes[i], UM_MASK_AUTO, &mask) == UM_EINVAL,
                  "box %zu", i);
        CHECK(strstr(um_last_error(), "box") && mask == NULL);
    }
    CHECK_EQ(um_run_segmentation(s, &good, bone, (um_mask_mode)7, &mask), UM_EINVAL);
    CHECK_EQ(um_run_segmentation(s, &good, bone, UM_MASK_AUTO, NULL), UM_EINVAL);
    static uint8_t out[N]; /* and the model is as good as before */
    predict(device, &good, bone, UM_MASK_AUTO, out);
}

/* A box of no area or partly outside is no misuse: upstream computes it. */
TEST_ON_DEVICES(R1_odd_boxes_are_computed)
{
    static uint8_t out[N];
    um_image image = gray_image();
    predict(device, &image, (float[]){100, 100, 100, 100}, UM_MASK_AUTO, out);
    predict(device, &image, (float[]){-50, -50, W + 50, 300}, UM_MASK_AUTO, out);
}

TEST_ON_DEVICES(R1_legacy_call_is_the_call_without_box)
{
    static uint8_t want[N], got[N];
    um_image image = gray_image();
    um_values *mask = NULL;
    predict(device, &image, NULL, UM_MASK_AUTO, want);
    CHECK_OK(um_run_segmentation_legacy(fixture(device)->segmenter, &image, UM_MASK_AUTO, &mask));
    CHECK(!um_values_host(mask)); /* its name is legacy, its default is not */
    CHECK_OK(um_values_read(mask, got));
    CHECK_EQ(differing(want, got, N), 0);
    um_values_unref(&mask);
}

/* ---- R2, R3, R4 ---- */

static um_device_array described(const um_values *values)
{
    um_device_array a = {.struct_size = sizeof a};
    um_values_describe(values, &a); /* on error it stays empty */
    return a;
}

TEST_ON_DEVICES(R2_default_mask_stays_on_the_device)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    um_segmenter *s = fixture(device)->segmenter;
    static uint8_t out[N];
    predict(device, &image, bone, UM_MASK_AUTO, out); /* the size is known from here on */
    um_transfers a = ledger(device);
    CHECK_OK(um_run_segmentation(s, &image, bone, UM_MASK_AUTO, &mask));
    um_transfers b = ledger(device);
    CHECK(!um_values_host(mask));
    CHECK_STR(described(mask).device, device);
    CHECK_EQ(b.down - a.down, 0);
    CHECK_EQ(b.down_bytes - a.down_bytes, 0);
    CHECK_EQ(b.setup - a.setup, 0);
    bool shared = strcmp(device, "cpu") == 0;
    CHECK_EQ(b.shared, shared);
    CHECK_EQ(b.up - a.up, shared ? 0 : 2); /* the image, the prompt */
    CHECK_OK(um_values_read(mask, out));   /* only now */
    CHECK_EQ(ledger(device).down - b.down, shared ? 0 : 1);
    CHECK_EQ(ledger(device).down_bytes - b.down_bytes, shared ? 0 : N);
    um_values_unref(&mask);
}

TEST_ON_DEVICES(R3_host_mode_returns_a_boolean_array)
{
    static uint8_t want[N];
    um_image image = gray_image();
    um_values *mask = NULL;
    predict(device, &image, bone, UM_MASK_DEVICE, want);
    um_transfers a = ledger(device);
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, &image, bone, UM_MASK_HOST, &mask));
    CHECK(strcmp(device, "cpu") == 0 || ledger(device).down > a.down);
    CHECK(um_values_host(mask));
    CHECK_STR(described(mask).device, "cpu");
    const uint8_t *data = um_values_host(mask);
    CHECK(data != NULL);
    for (int i = 0; i < N; i++)
        CHECK_MSG(data[i] <= 1 && want[i] <= 1, "pixel %d is %d on the host, %d on the device", i,
                  data[i], want[i]);
    CHECK_EQ(differing(want, data, N), 0);
    CHECK(set_pixels(want, N) > 1000);
    um_values_unref(&mask);
}

TEST_ON_DEVICES(R4_rank_is_reduced_only_in_host_mode)
{
    um_image image = gray_image();
    for (int mode = UM_MASK_DEVICE; mode <= UM_MASK_HOST; mode++) {
        um_values *mask = NULL;
        CHECK_OK(um_run_segmentation(fixture(device)->segmenter, &image, bone, (um_mask_mode)mode,
                                     &mask));
        um_device_array a = described(mask);
        if (mode == UM_MASK_HOST) {
            CHECK_EQ(a.rank, 2);
            CHECK(a.shape[0] == H && a.shape[1] == W);
        } else {
            CHECK_EQ(a.rank, 4);
            CHECK(a.shape[0] == 1 && a.shape[1] == 1 && a.shape[2] == H && a.shape[3] == W);
        }
        um_values_unref(&mask);
    }
}

/* ---- R5 ---- */

TEST_ON_DEVICES(R5_a_host_mask_is_moved_to_the_device_and_thresholded)
{
    const float values[6] = {0, 0.5f, 0.50001f, 1, -3, NAN};
    const uint8_t want[6] = {0, 0, 1, 1, 0, 0};
    uint8_t got[6] = {9, 9, 9, 9, 9, 9};
    um_values *mask = NULL;
    um_transfers a = ledger(device);
    CHECK_OK(um_mask_from_host(&mask, fixture(device)->segmenter, values, 2, 3));
    CHECK_EQ(ledger(device).up - a.up, strcmp(device, "cpu") == 0 ? 0 : 1);
    CHECK(!um_values_host(mask));
    um_device_array m = described(mask);
    CHECK_STR(m.device, device);
    CHECK(m.rank == 4 && m.shape[2] == 2 && m.shape[3] == 3);
    CHECK_OK(um_values_read(mask, got));
    CHECK(memcmp(got, want, 6) == 0);
    um_values_unref(&mask);
    mask = (um_values *)got;
    CHECK_EQ(um_mask_from_host(&mask, fixture(device)->segmenter, values, 0, 3), UM_EINVAL);
    CHECK(mask == NULL);
}

/* ---- R6 ---- */

TEST_ON_DEVICES(R6_the_device_is_the_models)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    struct fixture *f = fixture(device);
    CHECK(um_segmenter_device(f->segmenter) == f->dev && um_detector_device(f->detector) == f->dev);
    CHECK_OK(um_run_segmentation(f->segmenter, &image, bone, UM_MASK_AUTO, &mask));
    CHECK_STR(described(mask).device, device);
    um_values_unref(&mask);
    image.device = "cpu"; /* host memory, whatever the model runs on */
    CHECK_OK(um_run_segmentation(f->segmenter, &image, bone, UM_MASK_AUTO, &mask));
    um_values_unref(&mask);
    image.device = "cuda:3";
    CHECK_EQ(um_run_segmentation(f->segmenter, &image, bone, UM_MASK_AUTO, &mask), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "cuda:3") && strstr(um_last_error(), device), "%s",
              um_last_error());
}

TEST_ON_DEVICES(R6_mixing_devices_names_both)
{
    um_pipeline *p = NULL;
    um_pipeline_settings s = pipeline_settings(device);
    const char *other = strcmp(device, "cpu") == 0 ? "guard" : "cpu";
    s.segmenter = fixture(other)->segmenter;
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    CHECK(p == NULL);
    CHECK_MSG(strstr(um_last_error(), device) && strstr(um_last_error(), other), "%s",
              um_last_error());
}

/* ---- R7 ---- */

/* The four keys of the line, in their order, and a closed object. */
static void check_line(const char *line, int as_numpy, const char *device)
{
    double ts = 0;
    int flag = -1, rest = 0;
    char name[32] = "";
    int n = sscanf(line,
                   "{\"ts\": %lf, \"event\": \"sam_mask_output\", \"as_numpy\": %d, \"device\": "
                   "\"%31[^\"]\"%n",
                   &ts, &flag, name, &rest);
    CHECK_MSG(n == 3 && rest > 0, "%s", line);
    CHECK(ts > 1.7e9);
    CHECK_EQ(flag, as_numpy);
    CHECK_STR(name, device);
    CHECK_MSG(line[rest] == '}' || line[rest] == ',', "%s", line);
    CHECK(line[strlen(line) - 1] == '}' && !strchr(line, '\n'));
}

TEST_ON_DEVICES(R7_kpi_line_per_prediction)
{
    struct lines lines = {0};
    um_image image = gray_image();
    um_segmenter *s = fixture(device)->segmenter;
    static uint8_t out[N];
    um_segmenter_set_kpi(s, keep_line, &lines);
    predict(device, &image, bone, UM_MASK_AUTO, out);
    CHECK_EQ(lines.count, 1);
    check_line(lines.last, 0, device);
    predict(device, &image, bone, UM_MASK_HOST, out);
    CHECK_EQ(lines.count, 2);
    check_line(lines.last, 1, device); /* the model's device, also for a host mask */
    um_values *mask = NULL;
    um_run_segmentation(s, &image, (float[]){5, 5, 1, 1}, UM_MASK_AUTO, &mask);
    um_run_segmentation(s, NULL, bone, UM_MASK_AUTO, &mask);
    CHECK_EQ(lines.count, 2); /* nothing was published */
    um_segmenter_set_kpi(s, NULL, NULL);
    predict(device, &image, bone, UM_MASK_AUTO, out);
    CHECK_EQ(lines.count, 2);
}

TEST_ON_DEVICES(R7_kpi_line_per_published_packet)
{
    struct lines lines = {0}, other = {0};
    um_pipeline *p = NULL;
    const um_packet *packet = NULL;
    um_pipeline_settings s = pipeline_settings(device);
    s.kpi = keep_line;
    s.kpi_ctx = &lines;
    um_segmenter_set_kpi(s.segmenter, keep_line, &other);
    run_frame(&s, 0, &p, &packet);
    CHECK_EQ(packet->state, UM_STATE_VISIBLE);
    CHECK_EQ(lines.count, 1);
    check_line(lines.last, 0, device);
    um_frame *f = golden_frame(1);
    CHECK_OK(um_pipeline_send(p, &f));
    CHECK_OK(um_pipeline_receive(p, &packet));
    CHECK_EQ(packet->state, UM_STATE_LOST);
    CHECK_EQ(lines.count, 1); /* no mask was published */
    CHECK_EQ(other.count, 0); /* one line, not two */
    um_segmenter_set_kpi(s.segmenter, NULL, NULL);
    um_pipeline_close(&p);
}

/* ---- R8 ---- */

TEST_ON_DEVICES(R8_pipeline_passes_the_switch_through)
{
    static const struct {
        um_mask_mode option, segmenter;
        int as_numpy;
    } cases[] = {{UM_MASK_AUTO, UM_MASK_AUTO, 0},
                 {UM_MASK_HOST, UM_MASK_AUTO, 1},
                 {UM_MASK_AUTO, UM_MASK_HOST, 1},
                 {UM_MASK_DEVICE, UM_MASK_HOST, 0}};
    static uint8_t want[N], got[N];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        um_pipeline *p = NULL;
        const um_packet *packet = NULL;
        um_pipeline_settings s = pipeline_settings(device);
        s.sam_as_numpy = cases[i].option;
        um_segmenter_set_mask_mode(s.segmenter, cases[i].segmenter);
        run_frame(&s, 0, &p, &packet);
        um_segmenter_set_mask_mode(s.segmenter, UM_MASK_AUTO);
        CHECK_MSG(packet && packet->as_numpy == cases[i].as_numpy, "case %zu", i);
        um_packet_mask(packet, i ? got : want, 1);
        CHECK(i == 0 || differing(want, got, N) == 0);
        um_pipeline_close(&p);
    }
    CHECK(set_pixels(want, N) > 1000);
}

static um_predictor *open_predictor(const char *device)
{
    um_predictor *p = NULL;
    if (um_predictor_open(&p, fixture(device)->segmenter) != UM_OK)
        fixture_die("predictor");
    return p;
}

TEST_ON_DEVICES(R8_predictions_reuse_the_embedding)
{
    static uint8_t want[N], got[N];
    um_image image = gray_image();
    um_predictor *s = open_predictor(device);
    bool shared = strcmp(device, "cpu") == 0;
    const float other[4] = {10, 10, 200, 200};
    um_prediction r = {.struct_size = sizeof r};
    um_prompts prompts = {.struct_size = sizeof prompts};
    CHECK_OK(um_predictor_set_image(s, &image));
    um_transfers a = ledger(device);
    for (int i = 0; i < 2; i++) { /* two boxes, one image */
        prompts.box = i ? bone : other;
        CHECK_OK(um_predictor_predict(s, &prompts, &r));
        CHECK_EQ(r.count, 1);
        CHECK(!um_values_host(r.mask[0]) && !r.low_res &&
              isnan(r.iou[0])); /* as_numpy is off by default */
        if (i)
            CHECK_OK(um_values_read(r.mask[0], got));
        um_prediction_close(&r);
    }
    um_transfers b = ledger(device);
    CHECK_EQ(b.up - a.up, shared ? 0 : 2); /* two prompts */
    CHECK(b.up_bytes - a.up_bytes < 2048);
    predict(device, &image, bone, UM_MASK_AUTO, want);
    CHECK_EQ(differing(want, got, N), 0);
    um_predictor_close(&s);
}

TEST_ON_DEVICES(R8_points_masks_and_three_answers)
{
    static uint8_t got[N];
    um_image image = gray_image();
    um_predictor *s = open_predictor(device);
    um_prediction r = {.struct_size = sizeof r}, refined = {.struct_size = sizeof r};
    const float xy[2] = {250, 300};
    const int label[1] = {1};
    um_prompts prompts = {.struct_size = sizeof prompts,
                          .points = xy,
                          .labels = label,
                          .n_points = 1,
                          .multimask = true,
                          .as_numpy = UM_MASK_HOST};
    CHECK_OK(um_predictor_set_image(s, &image));
    CHECK_OK(um_predictor_predict(s, &prompts, &r));
    CHECK_EQ(r.count, 3);
    CHECK_EQ(r.low_res_side, um_segmenter_canvas(fixture(device)->segmenter) / 4);
    for (int i = 0; i < 3; i++)
        CHECK(um_values_host(r.mask[i]) && isfinite(r.iou[i]));
    prompts.mask_input = r.low_res; /* the first answer as the next prompt */
    prompts.multimask = false;
    CHECK_OK(um_predictor_predict(s, &prompts, &refined));
    CHECK_EQ(refined.count, 1);
    CHECK_OK(um_values_read(refined.mask[0], got));
    um_prediction_close(&r);
    um_prediction_close(&refined);
    prompts = (um_prompts){.struct_size = sizeof prompts};
    CHECK_EQ(um_predictor_predict(s, &prompts, &r), UM_EINVAL); /* no prompt at all */
    prompts.box = bone;
    prompts.struct_size = 3;
    CHECK_EQ(um_predictor_predict(s, &prompts, &r), UM_EINVAL);
    um_predictor_close(&s);
}

/* A session is nobody else's: what pipelines do with the same weights does not touch its image. */
TEST_ON_DEVICES(R8_a_pipeline_leaves_the_embedding_alone)
{
    static uint8_t want[N], got[N];
    um_image image = gray_image();
    um_pipeline *p = NULL;
    const um_packet *packet = NULL;
    um_prediction r = {.struct_size = sizeof r};
    um_prompts prompts = {.struct_size = sizeof prompts, .box = bone};
    um_pipeline_settings set = pipeline_settings(device);
    um_predictor *s = open_predictor(device);
    CHECK_EQ(um_predictor_predict(s, &prompts, &r), UM_EINVAL); /* no image yet */
    CHECK_OK(um_predictor_set_image(s, &image));
    run_frame(&set, 2, &p, &packet);
    CHECK_OK(um_predictor_predict(s, &prompts, &r));
    CHECK_OK(um_values_read(r.mask[0], got));
    predict(device, &image, bone, UM_MASK_DEVICE, want);
    CHECK_EQ(differing(want, got, N), 0);
    um_prediction_close(&r);
    um_pipeline_close(&p);
    um_predictor_close(&s);
}

/* ---- R9 ---- */

TEST_ON_DEVICES(R9_the_packet_is_the_one_conversion)
{
    static uint8_t want[N], got[N], on[N];
    um_pipeline *p = NULL;
    const um_packet *packet = NULL;
    um_pipeline_settings s = pipeline_settings(device);
    s.gate = UM_GATE_SPECULATIVE;
    run_frame(&s, 0, &p, &packet);
    CHECK(packet && packet->has_mask);
    size_t packed = (size_t)um_packet_row_bytes(packet) * H;
    if (strcmp(device, "cpu") != 0) {
        CHECK_EQ(packet->transfers.down, 1);
        CHECK_EQ(packet->transfers.down_bytes, 256 + packed); /* a record and a bit per pixel */
    }
    um_packet_mask(packet, got, 1);
    um_packet_mask(packet, on, 255);
    for (int i = 0; i < N; i++)
        CHECK_EQ(on[i], 255 * got[i]);
    CHECK_EQ(set_pixels(got, N), packet->mask_area_px);
    for (size_t y = 0; y < H; y++) /* what pads the rows is no mask */
        for (size_t x = W; x < 8 * (size_t)um_packet_row_bytes(packet); x++)
            CHECK(!(packet->bits[y * (size_t)um_packet_row_bytes(packet) + x / 8] >> x % 8 & 1));
    const float box[4] = {packet->box[0], packet->box[1], packet->box[2], packet->box[3]};
    um_pipeline_close(&p);
    um_image image = gray_image();
    predict(device, &image, box, UM_MASK_DEVICE, want);
    CHECK_EQ(differing(want, got, N), 0);
}

/* ---- R10 ---- */

static void set_environment(const char *value)
{
    if (value)
        setenv(ENVIRONMENT, value, 1);
    else
        unsetenv(ENVIRONMENT);
}

TEST_ON_DEVICES(R10_call_beats_option_beats_environment)
{
    static const char *const environment[] = {NULL, "", "0", "1"};
    um_image image = gray_image();
    um_segmenter *s = fixture(device)->segmenter;
    um_predictor *own = open_predictor(device);
    CHECK_OK(um_predictor_set_image(own, &image));
    for (int e = 0; e < 4; e++)
        for (int option = UM_MASK_AUTO; option <= UM_MASK_HOST; option++)
            for (int call = UM_MASK_AUTO; call <= UM_MASK_HOST; call++) {
                um_prediction got = {.struct_size = sizeof got};
                um_prompts prompts = {
                    .struct_size = sizeof prompts, .box = bone, .as_numpy = (um_mask_mode)call};
                set_environment(environment[e]);
                um_segmenter_set_mask_mode(s, (um_mask_mode)option);
                um_status st = um_predictor_predict(own, &prompts, &got);
                um_segmenter_set_mask_mode(s, UM_MASK_AUTO);
                set_environment(NULL);
                CHECK_OK(st);
                int decided = call     ? call
                              : option ? option
                              : e == 3 ? UM_MASK_HOST
                                       : UM_MASK_DEVICE;
                CHECK_MSG((um_values_host(got.mask[0]) != NULL) == (decided == UM_MASK_HOST),
                          "call %d, option %d, environment %s", call, option,
                          environment[e] ? environment[e] : "unset");
                um_prediction_close(&got);
            }
    um_predictor_close(&own);
}

/* Callers that say nothing follow the environment; callers that do are not changed by it. */
TEST_ON_DEVICES(R10_rollback_without_changing_callers)
{
    um_image image = gray_image();
    um_segmenter *s = fixture(device)->segmenter;
    for (int call = UM_MASK_AUTO; call <= UM_MASK_DEVICE; call++) {
        um_values *mask = NULL, *legacy = NULL;
        set_environment("1");
        um_status st = um_run_segmentation(s, &image, bone, (um_mask_mode)call, &mask);
        if (st == UM_OK)
            st = um_run_segmentation_legacy(s, &image, (um_mask_mode)call, &legacy);
        set_environment(NULL);
        CHECK_OK(st);
        CHECK((um_values_host(mask) != NULL) == (call == UM_MASK_AUTO));
        CHECK((um_values_host(legacy) != NULL) == (call == UM_MASK_AUTO));
        um_values_unref(&mask);
        um_values_unref(&legacy);
    }
}

TEST_ON_DEVICES(R10_rollback_of_a_pipeline_by_environment)
{
    um_pipeline *p = NULL;
    const um_packet *packet = NULL;
    um_pipeline_settings s = pipeline_settings(device);
    setenv(ENVIRONMENT, "1", 1);
    run_frame(&s, 0, &p, &packet);
    unsetenv(ENVIRONMENT);
    CHECK(packet && packet->as_numpy == 1);
    um_pipeline_close(&p);
}

TEST_ON_DEVICES(R10_a_bad_environment_is_an_error)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    um_pipeline *p = NULL;
    um_pipeline_settings s = pipeline_settings(device);
    setenv(ENVIRONMENT, "yes", 1);
    um_status one = um_run_segmentation(s.segmenter, &image, bone, UM_MASK_AUTO, &mask);
    bool named = strstr(um_last_error(), ENVIRONMENT) && strstr(um_last_error(), "yes");
    um_status two = um_pipeline_open(&p, &s);
    um_status asked = um_run_segmentation(s.segmenter, &image, bone, UM_MASK_DEVICE, &mask);
    unsetenv(ENVIRONMENT);
    CHECK_EQ(one, UM_EINVAL);
    CHECK(named);
    CHECK_EQ(two, UM_EINVAL);
    CHECK(p == NULL);
    CHECK_EQ(asked, UM_OK); /* nobody looked at it */
    um_values_unref(&mask);
}

/* Box, mask, weights and statistics of the packet are the host's own, and nothing goes back up. */
TEST_ON_DEVICES(R10_host_mode_sends_nothing_back_up)
{
    static uint8_t want[N], got[N];
    um_pipeline *p = NULL, *q = NULL;
    const um_packet *a = NULL, *b = NULL;
    um_pipeline_settings s = pipeline_settings(device);
    run_frame(&s, 0, &p, &a);
    s.sam_as_numpy = UM_MASK_HOST;
    run_frame(&s, 0, &q, &b);
    CHECK(a && b && b->as_numpy == 1 && a->as_numpy == 0);
    if (strcmp(device, "cpu") != 0) {
        CHECK_EQ(b->transfers.up, 1); /* the frame itself */
        CHECK_EQ(b->transfers.up_bytes, a->transfers.up_bytes);
        CHECK_EQ(b->transfers.down, 3); /* gate, logits, score */
        CHECK(b->transfers.down_bytes > (uint64_t)N * sizeof(float));
    }
    um_packet_mask(a, want, 1);
    um_packet_mask(b, got, 1);
    CHECK_EQ(differing(want, got, N), 0);
    CHECK(a->mask_area_px == b->mask_area_px && a->edge_px == b->edge_px && a->in_px == b->in_px &&
          a->out_px == b->out_px);
    CHECK(memcmp(a->box, b->box, sizeof a->box) == 0 &&
          memcmp(a->mask_box, b->mask_box, sizeof a->mask_box) == 0);
    CHECK(memcmp(a->centroid, b->centroid, sizeof a->centroid) == 0);
    CHECK(a->iou == b->iou && a->score == b->score);
    um_pipeline_close(&p);
    um_pipeline_close(&q);
}

/* ---- R11: the list the requirements came with ---- */

TEST_ON_DEVICES(R11_device_mode)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, &image, bone, UM_MASK_DEVICE, &mask));
    CHECK(!um_values_host(mask) && described(mask).rank == 4);
    um_values_unref(&mask);
}

TEST_ON_DEVICES(R11_legacy_mode)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, &image, bone, UM_MASK_HOST, &mask));
    CHECK(um_values_host(mask) && described(mask).rank == 2);
    um_values_unref(&mask);
}

TEST_ON_DEVICES(R11_default)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    CHECK_EQ(UM_MASK_AUTO, 0); /* what is not said is the default */
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, &image, NULL, UM_MASK_AUTO, &mask));
    CHECK(!um_values_host(mask));
    um_values_unref(&mask);
}

TEST_ON_DEVICES(R11_kpi)
{
    struct lines lines = {0};
    um_image image = gray_image();
    static uint8_t out[N];
    um_segmenter_set_kpi(fixture(device)->segmenter, keep_line, &lines);
    predict(device, &image, bone, UM_MASK_DEVICE, out);
    um_segmenter_set_kpi(fixture(device)->segmenter, NULL, NULL);
    CHECK_EQ(lines.count, 1);
    check_line(lines.last, 0, device);
}

TEST_ON_DEVICES(R11_legacy_call)
{
    um_image image = gray_image();
    um_values *mask = NULL;
    CHECK_OK(um_run_segmentation_legacy(fixture(device)->segmenter, &image, UM_MASK_HOST, &mask));
    CHECK(um_values_host(mask));
    um_values_unref(&mask);
    CHECK_OK(um_run_segmentation_legacy(fixture(device)->segmenter, &image, UM_MASK_DEVICE, &mask));
    CHECK(!um_values_host(mask));
    um_values_unref(&mask);
}

/* A mask is cast to boolean where it is: a boolean one comes back the same from either side. */
TEST_ON_DEVICES(R11_conditional_boolean_cast)
{
    static float values[N];
    static uint8_t got[N];
    um_image image = gray_image();
    um_values *host = NULL, *back = NULL;
    CHECK_OK(um_run_segmentation(fixture(device)->segmenter, &image, bone, UM_MASK_HOST, &host));
    for (int i = 0; i < N; i++)
        values[i] = ((const uint8_t *)um_values_host(host))[i];
    CHECK_OK(um_mask_from_host(&back, fixture(device)->segmenter, values, H, W));
    CHECK(!um_values_host(back));
    CHECK_OK(um_values_read(back, got));
    CHECK_EQ(differing(got, um_values_host(host), N), 0);
    um_values_unref(&host);
    um_values_unref(&back);
}

TEST_MAIN
