/* SPDX-License-Identifier: Apache-2.0 */
/* What no image changes (nn/reach.h): an encoder that keeps it gives the bits of one that
 * computes everything, whatever sizes of images follow each other. */
#include "engine/segmenter.h"

#include "narrow.h"
#include "sam_weights.h"
#include "scratch.h"

enum { SIDE = 224 };

/* Sizes on the canvas, in turn: each new one is computed whole, and then again with what was kept.
 */
typedef const int canvas_size[2];
static canvas_size all_sizes[] = {{150, SIDE},  {150, SIDE},  {150, SIDE}, {SIDE, 97},  {SIDE, 97},
                                  {SIDE, SIDE}, {SIDE, SIDE}, {151, SIDE}, {150, SIDE}, {150, SIDE},
                                  {3, SIDE},    {3, SIDE},    {SIDE, 1},   {SIDE, 1},   {0, 0},
                                  {0, 0},       {100, 100},   {100, 100}};
enum { SIZES = sizeof all_sizes / sizeof *all_sizes };

static void draw(um_buf *input, int h, int w, int seed)
{
    float *x = um_zalloc(SIDE * SIDE * 3 * sizeof *x);
    uint32_t state = (uint32_t)seed;
    for (int i = 0; x && i < SIDE * SIDE * 3; i++) {
        state = state * 1664525u + 1013904223u;
        if (i / 3 / SIDE < h && i / 3 % SIDE < w)
            x[i] = (float)(int32_t)state / 1e9f;
    }
    CHECK_OK(um_upload_now(input->dev, input, 0, x, input->size, UM_STAGE_SETUP, "canvas"));
    um_free(x);
}

static void embed(const um_encode *e, float *out)
{
    um_buf *buf = NULL;
    size_t off = 0, n = (size_t)e->embedding.h * (size_t)e->embedding.w * 256;
    CHECK_OK(um_tape_run(e->tape, UM_QUEUE_MAIN));
    um_tape_locate(e->tape, e->embedding, &buf, &off);
    CHECK_OK(um_download_now(buf->dev, out, buf, off, n * sizeof *out, UM_STAGE_DEBUG, "test"));
}

static void same_bits(um_device *dev, const char *model, canvas_size *size, int sizes)
{
    um_segmenter *s = NULL;
    um_encode whole, kept;
    CHECK_OK(um_segmenter_open(&s, dev, model, SIDE, NULL));
    CHECK_OK(um_encode_open(&whole, s, true));
    CHECK_OK(um_encode_open(&kept, s, false));
    CHECK(!whole.beyond);
    const struct um_ops *ops = dev->ops;
    CHECK_EQ(kept.beyond != NULL, ops->kernel[UM_OP_MBCONV] != NULL);
    size_t n = (size_t)whole.embedding.h * (size_t)whole.embedding.w * 256;
    float *a = um_array(2 * n, sizeof *a), *b = a + n;
    CHECK(a);
    for (int i = 0; i < sizes; i++) {
        draw(whole.input, size[i][0], size[i][1], i);
        draw(kept.input, size[i][0], size[i][1], i);
        embed(&whole, a);
        embed(&kept, b);
        CHECK_MSG(memcmp(a, b, n * sizeof *a) == 0, "%s, %s: canvas %d, %d x %d, differs",
                  ops->name, um_precision_name(dev->layers), i, size[i][0], size[i][1]);
    }
    um_free(a);
    um_encode_close(&whole);
    um_encode_close(&kept);
    um_segmenter_close(&s);
    um_device_close(&dev);
}

static int few(const struct um_ops *level) /* where kernels are slow */
{
    return strcmp(level->name, "c") == 0 || strcmp(level->name, "amx-twin") == 0 ? 2
           : SANITIZED                                                           ? 6
                                                                                 : SIZES;
}

TEST(floats)
{
    for (const struct um_ops *const *level = um_ops_host(); *level; level++)
        same_bits(narrow_open("cpu", 2, "fp32", *level), SEGMENTER_FILE, all_sizes, few(*level));
    same_bits(narrow_open("guard", 3, "fp32", um_ops_host()[0]), SEGMENTER_FILE, all_sizes, 6);
}

/* LiteMedSAM's image of one level is all zeros, and its stem, 1x1, brings nothing to them. */
TEST(a_stem_that_reaches_nothing)
{
    static canvas_size sizes[] = {{0, 0}, {0, 0}, {SIDE, 1}};
    const char *file = in_scratch("lite.safetensors");
    CHECK_OK(sw_write(file, UM_GOLDEN_DIR "/sam_lite_32.txt", (struct sw_damage){0}, NULL));
    same_bits(narrow_open("cpu", 2, "fp32", um_ops_host()[0]), file, sizes, 3);
}

TEST(bf16)
{
    for (const struct um_ops *const *level = um_ops_host(); *level; level++)
        if ((*level)->bf16)
            same_bits(narrow_open("cpu", 2, "bf16", *level), SEGMENTER_FILE, all_sizes,
                      few(*level));
}

TEST(bytes)
{
    const char *file = in_scratch("segmenter.safetensors");
    narrow_calibrate(SEGMENTER_FILE, file);
    for (const struct um_ops *const *level = um_ops_host(); *level; level++)
        if ((*level)->int8)
            same_bits(narrow_open("cpu", 2, "int8", *level), file, all_sizes, few(*level));
    scratch_close();
}

TEST_MAIN
