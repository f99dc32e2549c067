/* SPDX-License-Identifier: Apache-2.0 */
/* Pillow's bilinear resize, OpenCV's area filter and scikit-image's splines, byte for byte
 * (tests/gen/resize_golden.py, area_golden.py, spline_golden.py), on every instruction level. */
#include "test.h"

#include "base/mem.h"
#include "hashed.h"
#include "nn/area.h"
#include "nn/record.h"
#include "nn/resize.h"
#include "nn/spline.h"

struct golden {
    int w, h, c, new_w, new_h;
    unsigned long long sum;
    unsigned fnv;
};

static void check_case(um_device *dev, enum um_fit fit, const struct golden *g)
{
    size_t n_in = (size_t)g->w * (size_t)g->h * (size_t)g->c;
    size_t n_out = (size_t)g->new_w * (size_t)g->new_h * (size_t)g->c;
    um_tape *t = NULL;
    um_params *p = NULL;
    um_buf *in = NULL, *at = NULL;
    size_t off = 0;
    unsigned char *pixels = um_alloc(n_in), *got = um_alloc(n_out);
    CHECK(pixels && got);
    for (size_t i = 0; i < n_in; i++)
        pixels[i] = (unsigned char)(hashed_uniform(hashed_fnv("resize"), (uint32_t)i) * 256);
    CHECK_OK(um_buf_open(&in, dev, n_in, "image"));
    CHECK_OK(um_upload_now(dev, in, 0, pixels, n_in, UM_STAGE_SETUP, "test"));
    CHECK_OK(um_params_open(&p, dev));
    struct um_resize_plan plan = {.h_in = 0};
    struct um_area_plan area = {.h_in = 0};
    struct um_spline_plan spline = {.h_in = 0};
    if (fit == UM_FIT_RATIO)
        area = um_area_prepare(p, g->h, g->w, g->new_h, g->new_w);
    else if (fit == UM_FIT_STRETCH)
        spline = um_spline_prepare(p, g->h, g->w, g->new_h, g->new_w);
    else
        plan = um_resize_prepare(p, g->h, g->w, g->new_h, g->new_w, 1);
    CHECK_OK(um_params_upload(p));
    CHECK_OK(um_tape_open(&t, dev, "resize"));
    um_tensor x = um_tape_buffer(t, in, 0, UM_U8, g->h, g->w, g->c);
    um_tensor y = um_keep(t, fit == UM_FIT_RATIO     ? um_area_record(t, p, &area, x)
                             : fit == UM_FIT_STRETCH ? um_spline_record(t, p, &spline, x)
                                                     : um_resize_record(t, p, &plan, x));
    CHECK_OK(um_tape_compile(t));
    int axes = (g->w != g->new_w) + (g->h != g->new_h);
    CHECK_EQ(um_tape_steps(t), fit == UM_FIT_RATIO ? axes > 0 : fit == UM_FIT_STRETCH ? 3 : axes);
    CHECK_EQ(y.h, g->new_h);
    CHECK_EQ(y.w, g->new_w);
    CHECK_OK(um_tape_run(t, UM_QUEUE_MAIN));
    um_tape_locate(t, y, &at, &off);
    CHECK_OK(um_download_now(dev, got, at, off, n_out, UM_STAGE_DEBUG, "test"));
    unsigned long long sum = 0;
    uint32_t fnv = 2166136261u;
    for (size_t i = 0; i < n_out; i++) {
        sum += got[i];
        fnv = (fnv ^ got[i]) * 16777619u;
    }
    um_tape_close(&t);
    um_params_close(&p);
    um_buf_close(&in);
    um_free(pixels);
    um_free(got);
    CHECK_MSG(sum == g->sum && fnv == g->fnv, "%s: %dx%dx%d to %dx%d: sum %llu, want %llu",
              dev->isa, g->w, g->h, g->c, g->new_w, g->new_h, sum, g->sum);
}

static void check_file(const char *path, enum um_fit fit)
{
    um_device_settings settings;
    um_device_settings_default(&settings);
    settings.name = "cpu";
    for (const struct um_ops *const *level = um_ops_host(); *level; level++) {
        um_device *dev = NULL;
        CHECK_OK(um_device_open(&dev, &settings));
        dev->ops = *level;
        dev->isa = (*level)->name;
        FILE *f = fopen(path, "r");
        CHECK(f != NULL);
        struct golden g;
        int cases = 0;
        while (fscanf(f, "%d %d %d %d %d %llu %x", &g.w, &g.h, &g.c, &g.new_w, &g.new_h, &g.sum,
                      &g.fnv) == 7) {
            check_case(dev, fit, &g);
            cases++;
        }
        fclose(f);
        um_device_close(&dev);
        CHECK(cases >= 20);
    }
}

TEST(same_bytes_as_pillow)
{
    check_file(UM_GOLDEN_DIR "/resize.txt", UM_FIT_LONGEST);
}

TEST(same_bytes_as_opencv)
{
    check_file(UM_GOLDEN_DIR "/area.txt", UM_FIT_RATIO);
}

TEST(same_bytes_as_scikit_image)
{
    check_file(UM_GOLDEN_DIR "/spline.txt", UM_FIT_STRETCH);
}

TEST(order_of_passes)
{
    CHECK(um_resize_vertical_first(300, 200, 100, 190));  /* 200 > 2*10 */
    CHECK(!um_resize_vertical_first(220, 200, 200, 190)); /* 20 > 2*10 is false */
    CHECK(um_resize_vertical_first(221, 200, 200, 190));
    CHECK(um_resize_vertical_first(300, 61, 41, 122)); /* growing in x counts as 0 */
    CHECK(!um_resize_vertical_first(558, 422, 1024, 774));
}

TEST(a_filter_that_reaches_further)
{
    int32_t plain[2 + 3], wide[4][2 + 5];
    CHECK_EQ(um_resize_ksize(4, 4, 1), 3);
    CHECK_EQ(um_resize_ksize(4, 4, 2), 5);
    CHECK_EQ(um_resize_ksize(8, 4, 2), 9); /* in pixels of the output */
    CHECK_EQ(um_resize_ksize(4, 8, 1.5f), um_resize_ksize(4, 8, 1));
    um_resize_taps(plain, 1, 1, 1);
    um_resize_taps(wide[0], 4, 4, 2);
    CHECK_EQ(plain[2], 1 << 22);
    CHECK_EQ(wide[1][0], 0);
    CHECK_EQ(wide[1][1], 4);
    CHECK_EQ(wide[1][2], 1 << 20);
    CHECK_EQ(wide[1][3], 1 << 21);
    CHECK_EQ(wide[1][4], 1 << 20);
    CHECK_EQ(wide[1][5], 0);
}

TEST(weights_sum_to_one)
{
    static const int size[][2] = {{558, 1024}, {422, 774}, {558, 256}, {1000, 7}, {1, 9}, {9, 1}};
    enum { SIZES = sizeof size / sizeof *size };
    for (int i = 0; i < 2 * SIZES; i++) {
        float smooth = i < SIZES ? 1 : 2.5f;
        int n_in = size[i % SIZES][0], n_out = size[i % SIZES][1],
            k = um_resize_ksize(n_in, n_out, smooth);
        int32_t *taps = um_array((size_t)n_out * (size_t)(2 + k), sizeof *taps);
        CHECK(taps != NULL);
        um_resize_taps(taps, n_in, n_out, smooth);
        for (int o = 0; o < n_out; o++) {
            const int32_t *tap = taps + o * (2 + k);
            long sum = 0;
            CHECK(tap[0] >= 0 && tap[1] >= 1 && tap[1] <= k && tap[0] + tap[1] <= n_in);
            for (int j = 0; j < k; j++)
                sum += tap[2 + j];
            CHECK_MSG(labs(sum - (1 << 22)) <= k, "%d -> %d, output %d: sum %ld", n_in, n_out, o,
                      sum);
        }
        um_free(taps);
    }
}

TEST_MAIN
