/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that leave the library and images that come in, as values and by DLPack. */
#include "fixture.h"

#include "ultramotion/dlpack.h"

/* As in dlpack.h of DLPack 1.1. */
struct DLTensor {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};
struct DLManagedTensor {
    struct DLTensor tensor;
    void *context;
    void (*deleter)(struct DLManagedTensor *self);
};
struct DLManagedTensorVersioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct DLManagedTensorVersioned *self);
    uint64_t flags;
    struct DLTensor tensor;
};

enum { SIDE = 96, AREA = SIDE * SIDE, LOW = 16 }; /* canvas 64 */

static um_embedding *encode(um_segmenter *s)
{
    um_frame *whole = golden_frame(0), *f = cut(whole, 60, 200, SIDE, SIDE);
    um_image image = image_of(f);
    um_embedding *e = NULL;
    if (um_segmenter_encode(s, &image, &e) != UM_OK)
        fixture_die("embedding");
    um_frame_unref(&f);
    um_frame_unref(&whole);
    return e;
}

static um_prompts prompts_of(um_mask_mode mode, bool logits)
{
    static const float box[] = {10, 12, 80, 70};
    return (um_prompts){.struct_size = sizeof(um_prompts),
                        .box = box,
                        .multimask = true,
                        .as_numpy = mode,
                        .want_values = true,
                        .want_logits = logits};
}

TEST_ON_DEVICES(values_are_what_masks_scores_and_logits_are)
{
    const struct fixture *f = tiny(device);
    um_embedding *e = encode(f->segmenter);
    um_prompts plain = prompts_of(UM_MASK_HOST, false);
    um_prediction want = {.struct_size = sizeof want};
    plain.want_values = false;
    CHECK_OK(um_segmenter_predict(f->segmenter, e, &plain, &want));
    for (int i = 0; i < 4; i++) {
        bool host = i & 1, logits = i & 2;
        um_prompts p = prompts_of(host ? UM_MASK_HOST : UM_MASK_DEVICE, logits);
        um_prediction got = {.struct_size = sizeof got};
        float iou[3], *low = malloc(sizeof(float) * 3 * LOW * LOW),
                      *v = malloc(sizeof *v * 3 * AREA);
        int wrong = 0;
        CHECK_OK(um_segmenter_predict(f->segmenter, e, &p, &got));
        CHECK(!got.mask[0] && !got.low_res);
        um_device_array a = {.struct_size = sizeof a};
        CHECK_OK(um_values_describe(got.masks, &a));
        CHECK_EQ(strcmp(a.device, host ? "cpu" : device), 0);
        CHECK_EQ(a.rank, 3);
        CHECK_EQ(a.shape[0] * 1000000 + a.shape[1] * 1000 + a.shape[2], 3096096);
        CHECK_OK(um_values_read(got.scores, iou));
        CHECK_OK(um_values_read(got.low, low));
        CHECK_OK(um_values_read(got.masks, v));
        for (int k = 0; k < 3 * AREA; k++) {
            bool set = logits ? v[k] > 0 : ((uint8_t *)v)[k] == 1;
            wrong += set != ((const uint8_t *)um_values_host(want.mask[k / AREA]))[k % AREA];
        }
        CHECK_EQ(wrong, 0);
        CHECK_EQ(memcmp(iou, want.iou, sizeof iou), 0);
        CHECK_EQ(memcmp(low, want.low_res, sizeof(float) * 3 * LOW * LOW), 0);
        free(v);
        free(low);
        um_prediction_close(&got);
    }
    um_prediction_close(&want);
    um_embedding_unref(&e);
}

TEST(logits_without_values_are_refused)
{
    const struct fixture *f = tiny("cpu");
    um_embedding *e = encode(f->segmenter);
    um_prompts p = prompts_of(UM_MASK_DEVICE, true);
    um_prediction out = {.struct_size = sizeof out};
    p.want_values = false;
    CHECK_EQ(um_segmenter_predict(f->segmenter, e, &p, &out), UM_EINVAL);
    um_embedding_unref(&e);
}

/* Prompts and outlines in an image that was resized by the caller. */
TEST(an_embedding_of_an_image_of_another_size)
{
    const struct fixture *f = tiny("cpu");
    um_embedding *e = encode(f->segmenter), *twice = NULL;
    um_prompts p = prompts_of(UM_MASK_HOST, false);
    const float box[] = {20, 24, 160, 140};
    um_prediction one = {.struct_size = sizeof one}, two = {.struct_size = sizeof two};
    CHECK_OK(um_embedding_resized(&twice, e, 2 * SIDE, 2 * SIDE));
    CHECK_OK(um_segmenter_predict(f->segmenter, e, &p, &one));
    um_embedding_unref(&e);
    p.box = box;
    CHECK_OK(um_segmenter_predict(f->segmenter, twice, &p, &two));
    um_device_array a = {.struct_size = sizeof a};
    CHECK_OK(um_values_describe(two.masks, &a));
    CHECK_EQ(a.shape[1] * 1000 + a.shape[2], 192192);
    float low[2][3 * LOW * LOW];
    CHECK_OK(um_values_read(one.low, low[0]));
    CHECK_OK(um_values_read(two.low, low[1]));
    CHECK_EQ(memcmp(low[0], low[1], sizeof low[0]), 0);
    CHECK_EQ(um_embedding_resized(&e, twice, 0, 5), UM_EINVAL);
    um_prediction_close(&one);
    um_prediction_close(&two);
    um_embedding_unref(&twice);
}

TEST(what_is_exported_outlives_everything)
{
    struct fixture f = fixture_open("cpu", 1, 256, 64);
    um_embedding *e = encode(f.segmenter);
    um_prompts p = prompts_of(UM_MASK_DEVICE, false);
    um_prediction r = {.struct_size = sizeof r};
    um_device_array a = {.struct_size = sizeof a};
    struct DLManagedTensor *mask = NULL, *refused = NULL;
    struct DLManagedTensorVersioned *numbers = NULL;
    um_values *values = um_embedding_values(e);
    CHECK_OK(um_segmenter_predict(f.segmenter, e, &p, &r));
    CHECK_OK(um_values_describe(r.masks, &a));
    CHECK_OK(um_dlpack_export(r.masks, &mask));
    CHECK_OK(um_dlpack_export_versioned(values, &numbers));
    CHECK_EQ(um_dlpack_export(values, &refused), UM_EUNSUPPORTED);
    um_values_unref(&values);
    um_prediction_close(&r);
    um_embedding_unref(&e);
    fixture_close(&f);
    CHECK(mask->tensor.data == a.data);
    CHECK_EQ(mask->tensor.code * 100 + mask->tensor.bits, 608);
    CHECK_EQ(mask->tensor.device_type, 1);
    CHECK_EQ(mask->tensor.shape[2], SIDE);
    CHECK_EQ(mask->tensor.strides[0], AREA);
    long set = 0;
    for (int i = 0; i < 3 * AREA; i++)
        set += ((uint8_t *)mask->tensor.data)[i];
    CHECK(set > 0 && set < 3 * AREA);
    CHECK_EQ(numbers->major * 10 + (uint32_t)numbers->flags, 11);
    CHECK_EQ(numbers->tensor.shape[1] * 1000 + numbers->tensor.strides[1], 256001);
    CHECK(((float *)numbers->tensor.data)[0] == ((float *)numbers->tensor.data)[0]);
    mask->deleter(mask);
    numbers->deleter(numbers);
}

TEST(memory_of_the_guard_is_not_exported)
{
    const struct fixture *f = tiny("guard");
    um_embedding *e = encode(f->segmenter);
    struct DLManagedTensorVersioned *out = NULL;
    um_values *values = um_embedding_values(e);
    CHECK_EQ(um_dlpack_export_versioned(values, &out), UM_EUNSUPPORTED);
    CHECK(!out);
    um_values_unref(&values);
    um_embedding_unref(&e);
}

static struct DLTensor tensor_of(void *data, int rank, int64_t *shape, int64_t *strides, bool u8)
{
    return (struct DLTensor){.data = data,
                             .device_type = 1,
                             .ndim = rank,
                             .code = u8 ? 1 : 2,
                             .bits = u8 ? 8 : 32,
                             .lanes = 1,
                             .shape = shape,
                             .strides = strides};
}

TEST(tensors_that_are_images)
{
    float data[64];
    static const struct {
        int rank;
        int64_t shape[4], strides[4];
        int layout, h, w, c, row; /* layout -1: refused */
    } cases[] = {
        {2, {4, 5}, {5, 1}, UM_IMAGE_HW, 4, 5, 1, 20},
        {2, {4, 5}, {6, 1}, UM_IMAGE_HW, 4, 5, 1, 24},
        {2, {4, 5}, {-5, 1}, UM_IMAGE_HW, 4, 5, 1, -20},
        {2, {4, 5}, {1, 4}, -1, 0, 0, 0, 0},
        {2, {4, 5}, {0, 1}, -1, 0, 0, 0, 0},
        {3, {4, 5, 3}, {15, 3, 1}, UM_IMAGE_HWC, 4, 5, 3, 60},
        {3, {4, 5, 3}, {5, 1, 20}, -1, 0, 0, 0, 0},
        {3, {4, 5, 1}, {5, 1, 9}, UM_IMAGE_HWC, 4, 5, 1, 20},
        {3, {3, 4, 5}, {20, 5, 1}, UM_IMAGE_CHW, 4, 5, 3, 20},
        {3, {3, 4, 5}, {21, 5, 1}, -1, 0, 0, 0, 0},
        {3, {3, 1, 5}, {5, 5, 1}, UM_IMAGE_CHW, 1, 5, 3, 20},
        {3, {3, 1, 5}, {9, 9, 1}, UM_IMAGE_CHW, 1, 5, 3, 36},
        {3, {3, 1, 5}, {20, 5, 1}, UM_IMAGE_CHW, 1, 5, 3, 80},
        {3, {3, 1, 5}, {0, 0, 1}, -1, 0, 0, 0, 0},
        {3, {1, 1, 5}, {0, 0, 1}, UM_IMAGE_CHW, 1, 5, 1, 0},
        {3, {1, 5, 3}, {7, 3, 1}, UM_IMAGE_HWC, 1, 5, 3, 0},
        {4, {1, 3, 4, 5}, {60, 20, 5, 1}, UM_IMAGE_CHW, 4, 5, 3, 20},
        {4, {1, 1, 4, 5}, {20, 20, 5, 1}, UM_IMAGE_CHW, 4, 5, 1, 20},
        {4, {2, 1, 4, 5}, {20, 20, 5, 1}, -1, 0, 0, 0, 0},
        {3, {4, 4, 4}, {16, 4, 1}, -1, 0, 0, 0, 0},
        {1, {4}, {1}, -1, 0, 0, 0, 0},
        {2, {0, 5}, {5, 1}, -1, 0, 0, 0, 0},
        {2, {4, 1 << 20}, {1 << 20, 1}, -1, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t shape[4], strides[4];
        memcpy(shape, cases[i].shape, sizeof shape);
        memcpy(strides, cases[i].strides, sizeof strides);
        struct DLTensor t = tensor_of(data, cases[i].rank, shape, strides, false);
        um_image image = {.struct_size = sizeof image};
        um_status st = um_dlpack_image(&t, &image);
        CHECK_EQ(st, cases[i].layout < 0 ? UM_EINVAL : UM_OK);
        if (st != UM_OK)
            continue;
        CHECK(image.data == data);
        CHECK_EQ((int)image.layout, cases[i].layout);
        CHECK_EQ(image.height * 100 + image.width * 10 + image.channels,
                 cases[i].h * 100 + cases[i].w * 10 + cases[i].c);
        CHECK_EQ(image.row_bytes, cases[i].row);
    }
    int64_t shape[] = {4, 5};
    struct DLTensor t = tensor_of(data, 2, shape, NULL, false);
    um_image image = {.struct_size = sizeof image};
    t.byte_offset = 8;
    CHECK_OK(um_dlpack_image(&t, &image));
    CHECK(image.data == data + 2);
    t.device_type = 2;
    t.device_id = 3;
    CHECK_OK(um_dlpack_image(&t, &image));
    CHECK_EQ(strcmp(image.device, "cuda:3"), 0);
    t.device_type = 4;
    CHECK_EQ(um_dlpack_image(&t, &image), UM_EINVAL);
    t.device_type = 1;
    t.bits = 64;
    CHECK_EQ(um_dlpack_image(&t, &image), UM_EINVAL);
    t.bits = 32;
    t.strides =
        (int64_t[]){((int64_t)1 << 62) + 5, 1}; /* 20 bytes, if only 64 bits are looked at */
    CHECK_EQ(um_dlpack_image(&t, &image), UM_EINVAL);
}

static void count(void *ctx)
{
    ++*(int *)ctx;
}

TEST(a_frame_over_a_tensor)
{
    uint8_t pixels[4 * 15];
    int64_t shape[] = {4, 5, 3}, strides[] = {15, 3, 1};
    struct DLTensor t = tensor_of(pixels, 3, shape, strides, true);
    um_frame *f = NULL, *more;
    int released = 0;
    CHECK_OK(um_dlpack_frame(&f, &t, count, &released));
    CHECK(f->pixels == pixels);
    CHECK_EQ(f->stride * 1000 + f->width * 100 + f->height * 10 + f->channels, 15543);
    more = um_frame_ref(f);
    um_frame_unref(&f);
    CHECK_EQ(released, 0);
    um_frame_unref(&more);
    CHECK_EQ(released, 1);
    t.code = 2;
    t.bits = 32;
    CHECK_EQ(um_dlpack_frame(&f, &t, count, &released), UM_EINVAL);
    CHECK_EQ(released, 1);
}

/* Floats are clipped, times 255, truncated; whatever the layout, channels come last. */
TEST(a_frame_is_what_an_image_shows)
{
    static const float planes[3][3] = {{0, 1, 0.5f}, {-0.5f, 1.5f, 0.25f}, {NAN, 0, 0.999f}};
    static const uint8_t want[] = {0, 0, 0, 255, 255, 0, 127, 63, 254};
    static const uint8_t rows[] = {1, 2, 3, 0, 4, 5, 6};
    um_frame *f = NULL;
    um_image image = {.struct_size = sizeof image,
                      .data = planes,
                      .type = UM_IMAGE_F32,
                      .layout = UM_IMAGE_CHW,
                      .height = 1,
                      .width = 3,
                      .channels = 3};
    CHECK_OK(um_frame_from_image(&f, &image));
    CHECK(f->width == 3 && f->height == 1 && memcmp(f->pixels, want, sizeof want) == 0);
    um_frame_unref(&f);
    image.device = "cuda:0";
    CHECK_EQ(um_frame_from_image(&f, &image), UM_EINVAL);
    image = (um_image){.struct_size = sizeof image,
                       .data = rows,
                       .height = 2,
                       .width = 3,
                       .channels = 1,
                       .row_bytes = 4};
    CHECK_OK(um_frame_from_image(&f, &image));
    CHECK(f->stride == 3 && memcmp(f->pixels, "\1\2\3\4\5\6", 6) == 0);
    um_frame_unref(&f);
    image.data = rows + 4;
    image.row_bytes = -4; /* the last row is the first in memory */
    CHECK_OK(um_frame_from_image(&f, &image));
    CHECK(memcmp(f->pixels, "\4\5\6\1\2\3", 6) == 0);
    um_frame_unref(&f);
    image.data = rows;
    image.row_bytes = 2;
    CHECK_EQ(um_frame_from_image(&f, &image), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "2 bytes from row to row: want 0 or at least 3"), "%s",
              um_last_error());
    image.type = UM_IMAGE_F32;
    image.row_bytes = 14;
    CHECK_EQ(um_frame_from_image(&f, &image), UM_EINVAL);
    image.type = UM_IMAGE_U8;
    image.row_bytes = 4;
    image.channels = 2;
    CHECK_EQ(um_frame_from_image(&f, &image), UM_EINVAL);
    CHECK(!f);
    CHECK_EQ(um_frame_from_image(NULL, &image), UM_EINVAL);
}

TEST_MAIN
