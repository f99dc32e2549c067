/* SPDX-License-Identifier: Apache-2.0 */
/* SAM's families against upstream's PyTorch on small canvases with formula-made weights
 * (tests/gen/sam_golden.py, sam_family_golden.py), on every instruction level of this machine and
 * on the guard device. */
#include "test.h"

#include "base/mem.h"
#include "base/status.h"
#include "hashed.h"
#include "model/sam.h"
#include "nn/op_sam.h"
#include "nn/record.h"
#include "sam_weights.h"

#include <unistd.h>

enum { CANVAS_MAX = 64, LOW_MAX = 32, SAMPLES = 29, TAPS_MAX = 12 };

/* A network: its golden file, and what of it is compared. */
struct net {
    const char *golden, *canvas; /* canvas: as metadata */
    int side, low;
    const char *taps[TAPS_MAX];
    char path[64]; /* its checkpoint, once written */
};
static struct net mobile = {.golden = UM_GOLDEN_DIR "/sam_64.txt",
                            .canvas = "64",
                            .side = 64,
                            .low = 16,
                            .taps = {"stem", "layer0_block1", "merge0", "layer1_block0",
                                     "layer1_block1", "merge1", "layer2_block5", "merge2",
                                     "layer3_block1", "image_embedding"}};
static struct net lite = {.golden = UM_GOLDEN_DIR "/sam_lite_32.txt",
                          .canvas = "32",
                          .side = 32,
                          .low = 32,
                          .taps = {"stem", "merge1", "layer3_block1", "image_embedding"}};
static struct net vit = {.golden = UM_GOLDEN_DIR "/sam_vit_64.txt",
                         .canvas = "64",
                         .side = 64,
                         .low = 16,
                         .taps = {"block0", "block1", "image_embedding"}};

/* Its file, written once. */
static um_status open_weights(struct net *net, um_weights **file)
{
    const char *const meta[] = {"input_size", net->canvas, NULL};
    if (!*net->path) {
        snprintf(net->path, sizeof net->path, "/tmp/ultramotion_test_sam_XXXXXX");
        int fd = mkstemp(net->path);
        um_status st = fd < 0
                           ? UM_EIO
                           : sw_write(net->path, net->golden, (struct sw_damage){NULL, NULL}, meta);
        if (fd >= 0)
            close(fd);
        if (st != UM_OK)
            return st;
    }
    return um_weights_open(file, net->path);
}

__attribute__((destructor)) static void remove_weights(void)
{
    struct net *all[] = {&mobile, &lite, &vit};
    for (int i = 0; i < 3; i++)
        if (*all[i]->path)
            remove(all[i]->path);
}

struct run {
    um_device *dev;
    um_sam *sam;
    um_buf *image, *prompt, *mask;
    um_tape *encode, *decode;
    um_tensor embedding;
    int low;
};

static void run_close(struct run *r)
{
    um_tape_close(&r->decode);
    um_tape_close(&r->encode);
    um_buf_close(&r->image);
    um_buf_close(&r->prompt);
    um_buf_close(&r->mask);
    um_sam_close(&r->sam);
    um_device_close(&r->dev);
}

static void fill(float *x, const char *key, int n, double scale)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)((2 * hashed_uniform(hashed_fnv(key), (uint32_t)i) - 1) * scale);
}

static um_status upload(struct run *r, um_buf **buf, const void *data, size_t size)
{
    um_status st = um_buf_open(buf, r->dev, size, "test");
    return st == UM_OK ? um_upload_now(r->dev, *buf, 0, data, size, UM_STAGE_SETUP, "test") : st;
}

static um_status run_open(struct run *r, struct net *net, const char *family, const char *device,
                          const struct um_ops *level)
{
    static float image[CANVAS_MAX * CANVAS_MAX * 3], mask[LOW_MAX * LOW_MAX];
    int side = net->side, low = net->low;
    um_device_settings settings;
    um_weights *file = NULL;
    fill(image, "image", side * side * 3, 2);
    fill(mask, "mask", low * low, 8);
    um_device_settings_default(&settings);
    settings.name = device;
    settings.precision = "fp32"; /* what the numbers of the tests are made of */
    um_status st = um_device_open(&r->dev, &settings);
    if (st == UM_OK && level) {
        r->dev->ops = level;
        r->dev->isa = level->name;
    }
    if (st == UM_OK)
        st = open_weights(net, &file);
    if (st == UM_OK)
        st = um_sam_open(&r->sam, r->dev, file, 0, family);
    um_weights_close(&file);
    if (st == UM_OK)
        st = upload(r, &r->image, image, (size_t)(side * side) * 3 * sizeof *image);
    if (st == UM_OK)
        st = upload(r, &r->mask, mask, (size_t)(low * low) * sizeof *mask);
    if (st == UM_OK)
        st = upload(r, &r->prompt, &(struct um_prompt){0}, sizeof(struct um_prompt));
    if (st == UM_OK)
        st = um_tape_open(&r->encode, r->dev, "encode");
    if (st != UM_OK)
        return st;
    r->low = low;
    um_tape_keep_taps(r->encode);
    um_tensor x = um_tape_buffer(r->encode, r->image, 0, UM_F32, side, side, 3);
    r->embedding = um_keep(r->encode, um_sam_encode(r->sam, r->encode, x, (um_tensor){0}));
    st = um_tape_compile(r->encode);
    return st == UM_OK ? um_tape_run(r->encode, UM_QUEUE_MAIN) : st;
}

static um_status run_decode(struct run *r, const struct um_prompt *p, bool use_mask, bool multimask)
{
    um_tape_close(&r->decode);
    um_status st = um_upload_now(r->dev, r->prompt, 0, p, sizeof *p, UM_STAGE_SETUP, "test");
    if (st == UM_OK)
        st = um_tape_open(&r->decode, r->dev, "decode");
    if (st != UM_OK)
        return st;
    um_tape *t = r->decode;
    um_tape_keep_taps(t);
    um_tensor mask =
        use_mask ? um_tape_buffer(t, r->mask, 0, UM_F32, r->low, r->low, 1) : (um_tensor){0};
    struct um_sam_out out = um_sam_decode(r->sam, t, um_tape_import(t, r->encode, r->embedding),
                                          um_tape_buffer(t, r->prompt, 0, UM_U8, 1, 1, sizeof *p),
                                          (int)p->n_points, p->has_box != 0, mask, multimask);
    for (int m = 0; m < out.masks; m++)
        if (out.low[m].h != r->low || out.low[m].w != r->low || out.low[m].c != 1)
            um_tape_fail(t, UM_EINVAL);
    st = um_tape_compile(t);
    return st == UM_OK ? um_tape_run(t, UM_QUEUE_MAIN) : st;
}

/* Compare tap `name` of the tape with the golden entry `tag`. Tolerance relative to the largest
 * value. */
static void check_tap(const char *golden, um_tape *t, const char *tag, const char *name)
{
    char line[1024], found[64];
    int n = -1, h, w, c;
    double max = 0, sum = 0;
    FILE *f = fopen(golden, "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "tap %63s %d %lf %lf", found, &n, &max, &sum) == 4 &&
            strcmp(found, tag) == 0)
            break;
        else
            n = -1;
    bool values = n > 0 && fgets(line, sizeof line, f);
    fclose(f);
    CHECK_MSG(values, "%s is not in the golden file", tag);
    int tap = um_tape_find_tap(t, name);
    CHECK_MSG(tap >= 0, "no tap %s", name);
    float *data = NULL;
    const char *read_name;
    CHECK_OK(um_tape_read_tap(t, tap, &read_name, &h, &w, &c, &data));
    CHECK_MSG(h * w * c == n, "%s: %d values, want %d", tag, h * w * c, n);
    double tol = 5e-5 * (max > 1 ? max : 1), total = 0;
    char *at = line;
    for (int i = 0; i < SAMPLES; i++) {
        double want = strtod(at, &at), got = data[(int64_t)i * (n - 1) / (SAMPLES - 1)];
        CHECK_MSG(fabs(want - got) <= tol, "%s[%d] is %.7g, want %.7g +- %.1e", tag,
                  i * (n - 1) / (SAMPLES - 1), got, want, tol);
    }
    for (int i = 0; i < n; i++)
        total += fabs((double)data[i]);
    um_free(data);
    CHECK_MSG(fabs(total - sum) <= 1e-5 * sum + tol, "%s: sum %.9g, want %.9g", tag, total, sum);
}

static void check_all(struct net *net, const char *device, const struct um_ops *level)
{
    static const struct {
        const char *name;
        struct um_prompt prompt;
        bool mask, multimask;
    } cases[] = {
        {"box", {40, 64, 1, 0, {5.25f, 10.5f, 30.75f, 50}, {0}, {0}}, false, false},
        {"points", {40, 64, 0, 2, {0}, {12.5f, 20.25f, 30, 3.5f}, {1, 0}}, false, true},
        {"both", {40, 64, 1, 2, {0, -3, 45, 64}, {20, 30, 1, 1}, {1, -1}}, false, false},
        {"mask", {40, 64, 1, 0, {5.25f, 10.5f, 30.75f, 50}, {0}, {0}}, true, false},
    };
    struct run r = {0};
    CHECK_OK(run_open(&r, net, NULL, device, level));
    CHECK_EQ(um_sam_canvas(r.sam), net->side);
    CHECK_EQ(um_sam_canvas_step(r.sam), net == &vit ? 0 : net == &lite ? 56 : 224);
    for (int i = 0; i < TAPS_MAX && net->taps[i]; i++)
        check_tap(net->golden, r.encode, net->taps[i], net->taps[i]);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        CHECK_OK(run_decode(&r, &cases[k].prompt, cases[k].mask, cases[k].multimask));
        static const char *const outputs[] = {"sparse_tokens", "low_res_logits", "iou"};
        for (int i = 0; i < 3; i++) {
            char tag[64];
            snprintf(tag, sizeof tag, "%s/%s", cases[k].name, outputs[i]);
            check_tap(net->golden, r.decode, tag, outputs[i]);
        }
    }
    run_close(&r);
}

static void check_levels(struct net *net)
{
    for (const struct um_ops *const *level = um_ops_host(); *level; level++) {
        int before = test_failures;
        check_all(net, "cpu", *level);
        if (test_failures != before)
            printf("  (level %s)\n", (*level)->name);
    }
    check_all(net, "guard", NULL);
}

TEST(mobile_sam_matches_upstream)
{
    check_levels(&mobile);
}

TEST(lite_medsam_matches_upstream)
{
    check_levels(&lite);
}

TEST(sam_vit_matches_upstream)
{
    check_levels(&vit);
}

static void read_output(um_tape *t, const char *name, float **data)
{
    const char *found;
    int h, w, c;
    CHECK_OK(um_tape_read_tap(t, um_tape_find_tap(t, name), &found, &h, &w, &c, data));
}

/* Equal weights: TinySAM's one mask is the best of the three that MobileSAM gives when asked for
 * them. */
TEST(tiny_sam_gives_the_best_of_three)
{
    static const char *const devices[] = {"cpu", "guard"};
    struct um_prompt boxes[] = {{40, 64, 1, 0, {5.25f, 10.5f, 30.75f, 50}, {0}, {0}},
                                {40, 64, 1, 0, {20, 2, 39, 20}, {0}, {0}},
                                {40, 64, 0, 1, {0}, {12.5f, 20.25f}, {1}}};
    size_t n = (size_t)mobile.low * (size_t)mobile.low;
    int seen = 0;
    for (int k = 0; k < 6; k++) {
        struct run r = {0};
        float *three = NULL, *scores = NULL, *one = NULL, *score = NULL;
        const struct um_prompt *box = &boxes[k % 3];
        CHECK_OK(run_open(&r, &mobile, "tiny-sam", devices[k / 3], NULL));
        CHECK_OK(run_decode(&r, box, false, true));
        read_output(r.decode, "low_res_logits", &three);
        read_output(r.decode, "iou", &scores);
        CHECK_OK(run_decode(&r, box, false, false));
        read_output(r.decode, "low_res_logits", &one);
        read_output(r.decode, "iou", &score);
        if (three && scores && one && score) {
            int best = scores[1] > scores[0] ? 1 : 0;
            best = scores[2] > scores[best] ? 2 : best;
            seen |= 1 << best;
            CHECK_NEAR(score[0], scores[best], 1e-6);
            for (size_t i = 0; i < n; i++)
                CHECK_NEAR(one[i], three[(size_t)best * n + i], 1e-5);
        }
        um_free(three);
        um_free(scores);
        um_free(one);
        um_free(score);
        run_close(&r);
    }
    CHECK(seen != 0);
}

static void check_refused(struct net *net, struct sw_damage damage, int canvas, const char *family,
                          um_status want, const char *text)
{
    char path[] = "/tmp/ultramotion_test_sam_XXXXXX";
    um_device *dev = NULL;
    um_weights *file = NULL;
    um_sam *sam = NULL;
    um_device_settings settings;
    um_device_settings_default(&settings);
    settings.name = "cpu";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(sw_write(path, net->golden, damage, NULL));
    CHECK_OK(um_device_open(&dev, &settings));
    CHECK_OK(um_weights_open(&file, path));
    CHECK_EQ(um_sam_open(&sam, dev, file, canvas, family), want);
    CHECK_MSG(strstr(um_last_error(), text), "\"%s\" does not say \"%s\"", um_last_error(), text);
    CHECK(sam == NULL);
    um_weights_close(&file);
    um_device_close(&dev);
    remove(path);
}

TEST(refuses_with_a_reason)
{
    static const char *const missing[] = {
        "mask_decoder.transformer.layers.1.norm4.bias",
        "image_encoder.layers.2.blocks.3.attn.attention_biases",
        "image_encoder.patch_embed.seq.0.c.weight",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"};
    static const char *const lost[] = {"image_encoder.blocks.1.attn.rel_pos_w",
                                       "image_encoder.blocks.0.attn.rel_pos_h",
                                       "image_encoder.blocks.1.attn.rel_pos_h",
                                       "image_encoder.pos_embed", "mask_decoder.iou_token.weight"};
    static const char *const unknown[] = {"image_encoder.blocks.0.adapter.weight",
                                          "mask_decoder.hf_token.weight"};
    const struct sw_damage none = {NULL, NULL};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        check_refused(&mobile, (struct sw_damage){missing[i], NULL}, 64, NULL, UM_EFORMAT,
                      missing[i]);
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++)
        check_refused(&vit, (struct sw_damage){lost[i], NULL}, 0, NULL, UM_EFORMAT, lost[i]);
    for (int i = 0; i < 2; i++) {
        check_refused(&vit, (struct sw_damage){NULL, unknown[i]}, 0, NULL, UM_EFORMAT, unknown[i]);
        check_refused(&lite, (struct sw_damage){NULL, unknown[i]}, 32, NULL, UM_EFORMAT,
                      unknown[i]);
    }
    check_refused(&mobile, none, 100, NULL, UM_EINVAL, "canvas 100");
    check_refused(&vit, none, 128, NULL, UM_EINVAL, "a canvas of 64");
    check_refused(&vit, none, 0, "tiny-sam", UM_EINVAL, "tiny-sam");
    check_refused(&mobile, none, 64, "sam-hq", UM_EINVAL, "sam-hq");
}

/* A ViT-B whose last layer is missing. */
TEST(a_vit_of_a_known_width_has_all_its_layers)
{
    char header[2048], bytes[4096] = {0}, *text = header;
    um_device *dev = NULL;
    um_weights *file = NULL;
    um_sam *sam = NULL;
    um_device_settings settings;
    um_device_settings_default(&settings);
    settings.name = "cpu";
    text += sprintf(text, "{\"mask_decoder.iou_token.weight\":"
                          "{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]},"
                          "\"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix\":"
                          "{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[4,8]},"
                          "\"image_encoder.pos_embed\":"
                          "{\"dtype\":\"U8\",\"shape\":[1,1,1,768],\"data_offsets\":[8,776]},"
                          "\"image_encoder.blocks.0.attn.rel_pos_h\":"
                          "{\"dtype\":\"U8\",\"shape\":[1,64],\"data_offsets\":[776,840]}");
    for (int i = 1, at = 840; i < 11; i++, at++)
        text += sprintf(text,
                        ",\"image_encoder.blocks.%d.x\":"
                        "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                        i, at, at + 1);
    text += sprintf(text, "}");
    size_t n = (size_t)(text - header);
    bytes[0] = (char)(n & 255);
    bytes[1] = (char)(n >> 8);
    memcpy(bytes + 8, header, n);
    CHECK_OK(um_device_open(&dev, &settings));
    CHECK_OK(um_weights_open_memory(&file, bytes, 8 + n + 850, "b"));
    CHECK_EQ(um_sam_open(&sam, dev, file, 0, NULL), UM_EFORMAT);
    CHECK_STR(um_last_error(),
              "b: no tensor image_encoder.blocks.11.*, want 12 layers of width 768");
    um_weights_close(&file);
    um_device_close(&dev);
}

/* Whichever allocation fails, opening says so and leaves nothing behind. */
TEST(out_of_memory)
{
    um_device *dev = NULL;
    um_weights *file = NULL;
    um_sam *sam = NULL;
    um_device_settings settings;
    um_status st = UM_ENOMEM;
    um_device_settings_default(&settings);
    settings.name = "cpu";
    CHECK_OK(um_device_open(&dev, &settings));
    CHECK_OK(open_weights(&vit, &file));
    for (uint64_t k = 1; st != UM_OK; k += k / 2 + 1) {
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_sam_open(&sam, dev, file, 0, NULL);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK_MSG(st == UM_OK || (st == UM_ENOMEM && !sam), "allocation %d: %s", (int)k,
                  um_last_error());
        CHECK(k < 100000);
    }
    um_sam_close(&sam);
    um_weights_close(&file);
    um_device_close(&dev);
}

TEST(longest_side_is_upstreams)
{
    static const int size[][5] = {{1024, 558, 422, 1024, 774},
                                  {1024, 422, 558, 774, 1024},
                                  {1024, 480, 640, 768, 1024},
                                  {512, 558, 422, 512, 387},
                                  {256, 558, 422, 256, 194}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        int h, w;
        um_longest_side(size[i][0], size[i][1], size[i][2], &h, &w);
        CHECK_EQ(h, size[i][3]);
        CHECK_EQ(w, size[i][4]);
    }
}

TEST(lut_is_mean_and_deviation)
{
    static float lut[3][256];
    um_sam_lut(lut);
    CHECK_NEAR(lut[0][0], -2.1179039, 1e-6);
    CHECK_NEAR(lut[1][255], 2.4285715, 1e-6);
    CHECK_NEAR(lut[2][104], (104 - 103.53) / 57.375, 1e-6);
}

TEST_MAIN
