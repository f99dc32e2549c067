/* SPDX-License-Identifier: Apache-2.0 */
/* MobileSAM against upstream's PyTorch on a 64 px canvas with formula-made weights
 * (tests/gen/sam_golden.py), on every instruction level of this machine and on the guard device. */
#include "test.h"

#include "base/mem.h"
#include "base/status.h"
#include "hashed.h"
#include "model/sam.h"
#include "nn/record.h"

enum { CANVAS = 64, LOW = CANVAS / 4, SAMPLES = 29, PARAMS_MAX = 512 };
static const char golden_path[] = UM_GOLDEN_DIR "/sam_64.txt";
static char weights_path[] = "/tmp/ultramotion_test_sam_XXXXXX";

struct param {
    char name[128];
    struct um_wout out;
};

/* The parameters listed in the golden file, with their values; `skip` and `lite` make damaged
 * files. */
static um_status write_weights(const char *path, const char *skip, bool lite,
                               const char *const *meta)
{
    static struct param params[PARAMS_MAX];
    static struct um_wout list[PARAMS_MAX];
    char line[512];
    int n = 0;
    FILE *f = fopen(golden_path, "r");
    if (!f)
        return UM_EIO;
    while (n < PARAMS_MAX && fgets(line, sizeof line, f)) {
        struct param *p = &params[n];
        int at = 0, used;
        memset(p, 0, sizeof *p);
        if (sscanf(line, "param %127s%n", p->name, &at) != 1 ||
            (skip && strcmp(skip, p->name) == 0))
            continue;
        size_t count = 1;
        long dim;
        for (; sscanf(line + at, "%ld%n", &dim, &used) == 1; at += used)
            p->out.dim[p->out.rank++] = dim;
        if (lite && strcmp(p->name, "image_encoder.patch_embed.seq.0.c.weight") == 0)
            p->out.dim[2] = p->out.dim[3] = 1;
        for (int i = 0; i < p->out.rank; i++)
            count *= (size_t)p->out.dim[i];
        float *data = um_array(count, sizeof *data);
        if (!data)
            break;
        hashed_sam_weight(data, p->name, p->out.rank, p->out.dim);
        p->out.name = p->name;
        p->out.type = UM_W_F32;
        p->out.data = data;
        list[n++] = p->out;
    }
    fclose(f);
    um_status st = um_safetensors_write(path, list, n, meta);
    for (int i = 0; i < n; i++)
        um_free((void *)(uintptr_t)list[i].data);
    return st;
}

/* The standard file, written once. */
static um_status open_weights(um_weights **file)
{
    static const char *const meta[] = {"input_size", "64", NULL};
    static bool written;
    if (!written) {
        int fd = mkstemp(weights_path);
        um_status st = fd < 0 ? UM_EIO : write_weights(weights_path, NULL, false, meta);
        if (st != UM_OK)
            return st;
        written = true;
    }
    return um_weights_open(file, weights_path);
}

__attribute__((destructor)) static void remove_weights(void)
{
    remove(weights_path);
}

struct run {
    um_device *dev;
    um_sam *sam;
    um_buf *image, *prompt, *mask;
    um_tape *encode, *decode;
    um_tensor embedding;
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

static um_status run_open(struct run *r, const char *device, const struct um_ops *level)
{
    static float image[CANVAS * CANVAS * 3], mask[LOW * LOW];
    um_device_settings settings;
    um_weights *file = NULL;
    fill(image, "image", CANVAS * CANVAS * 3, 2);
    fill(mask, "mask", LOW * LOW, 8);
    um_device_settings_default(&settings);
    settings.name = device;
    um_status st = um_device_open(&r->dev, &settings);
    if (st == UM_OK && level) {
        r->dev->ops = level;
        r->dev->isa = level->name;
    }
    if (st == UM_OK)
        st = open_weights(&file);
    if (st == UM_OK)
        st = um_sam_open(&r->sam, r->dev, file, 0, NULL);
    um_weights_close(&file);
    if (st == UM_OK)
        st = upload(r, &r->image, image, sizeof image);
    if (st == UM_OK)
        st = upload(r, &r->mask, mask, sizeof mask);
    if (st == UM_OK)
        st = upload(r, &r->prompt, &(struct um_prompt){0}, sizeof(struct um_prompt));
    if (st == UM_OK)
        st = um_tape_open(&r->encode, r->dev, "encode");
    if (st != UM_OK)
        return st;
    um_tape_keep_taps(r->encode);
    um_tensor x = um_tape_buffer(r->encode, r->image, 0, UM_F32, CANVAS, CANVAS, 3);
    r->embedding = um_keep(r->encode, um_sam_encode(r->sam, r->encode, x));
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
    um_tensor mask = use_mask ? um_tape_buffer(t, r->mask, 0, UM_F32, LOW, LOW, 1) : (um_tensor){0};
    struct um_sam_out out = um_sam_decode(r->sam, t, um_tape_import(t, r->encode, r->embedding),
                                          um_tape_buffer(t, r->prompt, 0, UM_U8, 1, 1, sizeof *p),
                                          (int)p->n_points, p->has_box != 0, mask, multimask);
    for (int m = 0; m < out.masks; m++)
        if (out.low[m].h != LOW || out.low[m].w != LOW || out.low[m].c != 1)
            um_tape_fail(t, UM_EINVAL);
    st = um_tape_compile(t);
    return st == UM_OK ? um_tape_run(t, UM_QUEUE_MAIN) : st;
}

/* Compare tap `name` of the tape with the golden entry `tag`. Tolerance relative to the largest
 * value. */
static void check_tap(um_tape *t, const char *tag, const char *name)
{
    char line[1024], found[64];
    int n = -1, h, w, c;
    double max = 0, sum = 0;
    FILE *f = fopen(golden_path, "r");
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

static void check_all(const char *device, const struct um_ops *level)
{
    static const char *const taps[] = {
        "stem",   "layer0_block1", "merge0", "layer1_block0", "layer1_block1",
        "merge1", "layer2_block5", "merge2", "layer3_block1", "image_embedding"};
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
    CHECK_OK(run_open(&r, device, level));
    CHECK_EQ(um_sam_canvas(r.sam), CANVAS);
    for (size_t i = 0; i < sizeof taps / sizeof *taps; i++)
        check_tap(r.encode, taps[i], taps[i]);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        CHECK_OK(run_decode(&r, &cases[k].prompt, cases[k].mask, cases[k].multimask));
        static const char *const outputs[] = {"sparse_tokens", "low_res_logits", "iou"};
        for (int i = 0; i < 3; i++) {
            char tag[64];
            snprintf(tag, sizeof tag, "%s/%s", cases[k].name, outputs[i]);
            check_tap(r.decode, tag, outputs[i]);
        }
    }
    run_close(&r);
}

TEST(matches_upstream_on_every_level)
{
    for (const struct um_ops *const *level = um_ops_host(); *level; level++) {
        int before = test_failures;
        check_all("cpu", *level);
        if (test_failures != before)
            printf("  (level %s)\n", (*level)->name);
    }
}

TEST(matches_upstream_on_guard)
{
    check_all("guard", NULL);
}

static void check_refused(const char *skip, bool lite, int canvas, um_status want, const char *text)
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
    CHECK_OK(write_weights(path, skip, lite, NULL));
    CHECK_OK(um_device_open(&dev, &settings));
    CHECK_OK(um_weights_open(&file, path));
    CHECK_EQ(um_sam_open(&sam, dev, file, canvas, NULL), want);
    CHECK_MSG(strstr(um_last_error(), text), "\"%s\" does not say \"%s\"", um_last_error(), text);
    CHECK(sam == NULL);
    um_weights_close(&file);
    um_device_close(&dev);
    remove(path);
}

TEST(refuses_with_a_reason)
{
    check_refused("mask_decoder.transformer.layers.1.norm4.bias", false, 64, UM_EFORMAT,
                  "mask_decoder.transformer.layers.1.norm4.bias");
    check_refused("image_encoder.layers.2.blocks.3.attn.attention_biases", false, 64, UM_EFORMAT,
                  "image_encoder.layers.2.blocks.3.attn.attention_biases");
    check_refused(NULL, false, 100, UM_EINVAL, "canvas 100");
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
    CHECK_OK(open_weights(&file));
    for (uint64_t k = 1; st != UM_OK; k += k / 2 + 1) {
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_sam_open(&sam, dev, file, CANVAS, NULL);
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
        um_sam_target(size[i][0], size[i][1], size[i][2], &h, &w);
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
