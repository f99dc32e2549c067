/* SPDX-License-Identifier: Apache-2.0 */
/* What networks that know gray only see of an image in colour. */
#include "fixture.h"

#include <math.h>

static const uint8_t YELLOW[3] = {255, 255, 0}, GREEN[3] = {0, 255, 0}, RED[3] = {200, 30, 0};

/* In a plane where marked pixels are 1, too. */
static void dot(um_frame *f, um_frame *where, int x, int y, int size, const uint8_t colour[3])
{
    for (int v = y; v < y + size && v < f->height; v++)
        for (int u = x; u < x + size && u < f->width; u++) {
            memcpy(pixel(f, u, v), colour, 3);
            *pixel(where, u, v) = 1;
        }
}

static void line(um_frame *f, um_frame *where, int x0, int y0, int x1, int y1, int size,
                 const uint8_t colour[3])
{
    int n = abs(x1 - x0) > abs(y1 - y0) ? abs(x1 - x0) : abs(y1 - y0);
    for (int i = 0; i <= n; i++)
        dot(f, where, x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n, size, colour);
}

/* A measuring frame to the image's edges, calipers, and a needle's path. */
static um_frame *draw_over(const um_frame *gray, um_frame **where)
{
    um_frame *f = rgb_of(gray);
    int w = f->width, h = f->height;
    *where = new_frame(w, h, 1);
    line(f, *where, 60, 120, 330, 120, 2, YELLOW);
    line(f, *where, 60, 400, 330, 400, 2, YELLOW);
    line(f, *where, 60, 120, 60, 400, 2, YELLOW);
    line(f, *where, 330, 120, 330, 400, 2, YELLOW);
    line(f, *where, 0, 200, w - 1, 230, 3, GREEN);
    line(f, *where, 200, 0, 380, h - 1, 3, GREEN);
    line(f, *where, 0, 0, w - 1, 0, 1, YELLOW);
    line(f, *where, w - 1, 0, w - 1, h - 1, 1, YELLOW);
    line(f, *where, 93, 300, 107, 300, 2, YELLOW);
    line(f, *where, 100, 293, 100, 307, 2, YELLOW);
    return f;
}

static bool is_near(const um_frame *where, int x, int y, int far)
{
    for (int v = y - far; v <= y + far; v++)
        for (int u = x - far; u <= x + far; u++)
            if (u >= 0 && v >= 0 && u < where->width && v < where->height && *pixel(where, u, v))
                return true;
    return false;
}

static int luminance(const uint8_t *p)
{
    return (int)((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16);
}

static um_frame *gray_of(const um_frame *f)
{
    um_frame *gray = NULL;
    if (um_frame_gray(f, &gray) != UM_OK || gray->width != f->width || gray->height != f->height ||
        gray->channels != 1)
        fixture_die("gray frame");
    return gray;
}

static long not_luminance(const um_frame *gray, const um_frame *f)
{
    long n = 0;
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++)
            n += *pixel(gray, x, y) != luminance(pixel(f, x, y));
    return n;
}

TEST(strokes_go_and_all_else_stays)
{
    um_frame *before = golden_frame(0), *where = NULL, *drawn = draw_over(before, &where),
             *after = gray_of(drawn);
    double wrong = 0, as_drawn = 0;
    long marked = 0;
    for (int y = 0; y < before->height; y++)
        for (int x = 0; x < before->width; x++) {
            int was = *pixel(before, x, y), is = *pixel(after, x, y);
            if (*pixel(where, x, y)) {
                marked++;
                wrong += abs(is - was);
                as_drawn += abs(luminance(pixel(drawn, x, y)) - was);
            } else if (!is_near(where, x, y, 2)) {
                CHECK_MSG(is == was, "at %d,%d: %d, was %d", x, y, is, was);
            }
        }
    CHECK_MSG(marked > 3000 && 5 * wrong < as_drawn, "%ld pixels, off by %.1f, as drawn by %.1f",
              marked, wrong / (double)marked, as_drawn / (double)marked);
    um_frame_unref(&before);
    um_frame_unref(&where);
    um_frame_unref(&drawn);
    um_frame_unref(&after);
}

/* A gradient is what a straight line between both sides of a stroke is. */
TEST(a_stroke_becomes_what_is_on_both_sides)
{
    enum { W = 200, H = 160, AT = 70 };
    for (int down = 0; down < 2; down++)
        for (int size = 1; size <= 7; size++) {
            um_frame *f = new_frame(W, H, 3), *where = new_frame(W, H, 1);
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    memset(pixel(f, x, y), 20 + (down ? y : x), 3);
            if (down)
                line(f, where, 0, AT, W - 1, AT, size, YELLOW);
            else
                line(f, where, AT, 0, AT, H - 1, size, YELLOW);
            um_frame *gray = gray_of(f);
            for (int i = 0; i < size; i++) {
                int got = down ? *pixel(gray, 5, AT + i) : *pixel(gray, AT + i, 5);
                int want = size <= H / 32 ? 20 + AT + i : 226;
                CHECK_MSG(got == want, "%d of %d: %d, want %d", i, size, got, want);
            }
            um_frame_unref(&f);
            um_frame_unref(&where);
            um_frame_unref(&gray);
        }
}

TEST(an_image_in_colour_is_its_luminance)
{
    static const int tint[][3] = {{100, 85, 60}, {65, 80, 100}, {100, 83, 67}, {100, 98, 92}};
    um_frame *before = golden_frame(0);
    for (size_t i = 0; i < sizeof tint / sizeof *tint; i++) {
        um_frame *f = rgb_of(before);
        for (int y = 0; y < f->height; y++)
            for (int x = 0; x < f->width; x++)
                for (int c = 0; c < 3; c++)
                    pixel(f, x, y)[c] = (uint8_t)(pixel(f, x, y)[c] * tint[i][c] / 100);
        um_frame *gray = gray_of(f);
        CHECK_EQ(not_luminance(gray, f), 0);
        um_frame_unref(&f);
        um_frame_unref(&gray);
    }
    um_frame *noise = tiny_frame(300, 200, 3), *gray = gray_of(noise);
    CHECK_EQ(not_luminance(gray, noise), 0);
    um_frame_unref(&noise);
    um_frame_unref(&gray);
    um_frame_unref(&before);
}

/* Flow is no stroke. */
TEST(a_patch_of_colour_stays)
{
    um_frame *before = golden_frame(0), *f = rgb_of(before), *where = new_frame(422, 558, 1);
    dot(f, where, 150, 200, 90, RED);
    um_frame *gray = gray_of(f);
    CHECK_EQ(not_luminance(gray, f), 0);
    um_frame_unref(&before);
    um_frame_unref(&where);
    um_frame_unref(&f);
    um_frame_unref(&gray);
}

TEST(any_size_and_any_row_order)
{
    static const int size[][2] = {{1, 1}, {1, 40}, {40, 1}, {2, 3},
                                  {5, 5}, {6, 90}, {90, 6}, {64, 64}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        for (int seed = 0; seed < 40; seed++) {
            int w = size[i][0], h = size[i][1];
            um_frame *noise = tiny_frame(w, h, 1), *f = rgb_of(noise), *where = new_frame(w, h, 1);
            for (int k = 0; k < seed % 5; k++)
                dot(f, where, (seed * 7 + k * 13) % w, (seed * 11 + k * 5) % h, 1 + (seed + k) % 6,
                    k % 2 ? YELLOW : GREEN);
            um_frame *turned = NULL, *a = gray_of(f);
            CHECK_OK(um_frame_wrap(&turned, w, h, 3, pixel(f, 0, h - 1), -f->stride, NULL, NULL));
            um_frame *b = gray_of(turned);
            for (int y = 0; y < h && seed % 5 == 0; y++)
                CHECK(memcmp(pixel(b, 0, h - 1 - y), pixel(a, 0, y), (size_t)w) == 0);
            um_frame_unref(&noise);
            um_frame_unref(&where);
            um_frame_unref(&turned);
            um_frame_unref(&f);
            um_frame_unref(&a);
            um_frame_unref(&b);
        }
}

TEST(a_gray_frame_keeps_what_the_other_says)
{
    um_frame *f = tiny_frame(30, 20, 3), *gray = tiny_frame(30, 20, 1), *out = NULL;
    f->id = 7;
    f->ts = 12.5;
    f->has_ts = f->has_pose = f->has_spacing = 1;
    f->pose[3] = 4;
    f->spacing_mm[1] = 0.25;
    f->received_ns = 99;
    CHECK_OK(um_frame_set_source(f, "a.png"));
    CHECK_OK(um_frame_gray(f, &out));
    CHECK(out->id == 7 && out->ts == 12.5 && out->has_ts && out->has_pose && out->has_spacing);
    CHECK(out->pose[3] == 4 && out->spacing_mm[1] == 0.25 && out->received_ns == 99);
    CHECK_STR(out->source, "a.png");
    um_frame_unref(&out);
    CHECK_OK(um_frame_gray(gray, &out));
    CHECK_EQ(differing(out->pixels, gray->pixels, 600), 0);
    um_frame_unref(&out);
    out = f;
    CHECK_EQ(um_frame_gray(NULL, &out), UM_EINVAL);
    CHECK(!out);
    CHECK_EQ(um_frame_gray(f, NULL), UM_EINVAL);
    um_frame_unref(&f);
    um_frame_unref(&gray);
}

/* Networks see what um_frame_gray() makes, of a crop that of the crop. */
TEST_ON_DEVICES(a_pipeline_sees_the_gray_frame)
{
    um_detector_settings d;
    um_detector_settings_default(&d);
    d.gray = 1;
    d.input_width = d.input_height = TINY;
    d.queries = 100;
    um_frame *before = golden_frame(0), *where = NULL, *drawn = draw_over(before, &where),
             *part = cut(drawn, 40, 60, 340, 420), *gray = gray_of(part);
    um_pipeline_settings s = fixture_settings(tiny(device));
    CHECK_OK(um_detector_open(&s.detector, tiny(device)->dev, DETECTOR_FILE, &d));
    s.conf = 0;
    float box[2][4], score[2];
    for (int way = 0; way < 2; way++) {
        const um_packet *k = NULL;
        if (way == 0)
            memcpy(s.crop, (int[4]){40, 60, 340, 420}, sizeof s.crop);
        else
            memset(s.crop, 0, sizeof s.crop);
        um_pipeline *p = fixture_pipeline(&s);
        CHECK_OK(pass(p, way == 0 ? drawn : gray, &k));
        memcpy(box[way], k->box, sizeof box[way]);
        score[way] = k->score;
        um_pipeline_close(&p);
    }
    CHECK(score[0] == score[1]);
    for (int i = 0; i < 4; i++)
        CHECK_MSG(fabsf(box[0][i] - box[1][i] - (i % 2 ? 60 : 40)) < 1e-3f, "%g, %g", box[0][i],
                  box[1][i]);
    um_detector_close((um_detector **)&s.detector);
    um_frame_unref(&before);
    um_frame_unref(&where);
    um_frame_unref(&drawn);
    um_frame_unref(&part);
    um_frame_unref(&gray);
}

TEST_MAIN
