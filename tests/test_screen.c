/* SPDX-License-Identifier: Apache-2.0 */
/* The ultrasound image on a scanner's screen: where it is found, and that a pipeline that looks for
 * it finds in it what one finds that is told. */
#include "fixture.h"

enum { SW = 1000, SH = 800, X = 300, Y = 130, SIDE = 16 /* of a cell: 1000 in 64 */ };

static void fill(um_frame *f, int x0, int y0, int w, int h, uint8_t level)
{
    for (int y = y0; y < y0 + h; y++)
        memset(pixel(f, x0, y), level, (size_t)w * (size_t)f->channels);
}

/* A header, a menu of lines of text, a bar of gray levels and, from its top down to `rows`, golden
 * frame i; the rest of the image is black. */
static um_frame *screen(int i, int rows, int channels, uint8_t level)
{
    um_frame *f = new_frame(SW, SH, channels), *image = golden_frame(i);
    fill(f, 0, 0, SW, SH, level);
    fill(f, 0, 0, SW, 50, (uint8_t)(level + 60));
    for (int line = 0; line < 12; line++)
        for (int x = 30; x < 180; x += 9)
            fill(f, x, 120 + 50 * line, 2, 18, 220);
    for (int y = 0; y < 250; y++)
        fill(f, SW - 60, 200 + y, 20, 1, (uint8_t)(255 - y));
    fill(f, X, Y, image->width, image->height, 0);
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < image->width; x++)
            memset(pixel(f, X + x, Y + y), *pixel(image, x, y), (size_t)channels);
    um_frame_unref(&image);
    f->id = (uint64_t)i;
    return f;
}

/* The rectangle holds x.. and y.., and at most `more` pixels around. */
static void check_around(const int rect[4], int x, int y, int w, int h, int more)
{
    CHECK_MSG(rect[0] <= x && rect[0] >= x - more && rect[1] <= y && rect[1] >= y - more,
              "from %d,%d", rect[0], rect[1]);
    int right = rect[0] + rect[2], bottom = rect[1] + rect[3];
    CHECK_MSG(right >= x + w && right <= x + w + more && bottom >= y + h && bottom <= y + h + more,
              "to %d,%d", right, bottom);
}

TEST(the_image_is_found_among_menus)
{
    static const struct {
        int channels;
        uint8_t level;
    } kind[] = {{1, 0}, {1, 40}, {3, 40}};
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        int rect[4] = {0};
        um_frame *f = screen(0, 558, kind[i].channels, kind[i].level);
        CHECK_OK(um_frame_find_image(f, rect));
        check_around(rect, X, Y, 422, 558, 3 * SIDE);
        um_frame_unref(&f);
    }
}

TEST(what_was_found_grows_and_never_shrinks)
{
    int rect[4] = {0}, known[4];
    um_frame *dark = screen(0, 0, 1, 20), *part = screen(0, 200, 1, 20),
             *whole = screen(0, 558, 1, 20);
    CHECK_OK(um_frame_find_image(dark, rect));
    CHECK_EQ(rect[2], 0);
    CHECK_OK(um_frame_find_image(part, rect));
    check_around(rect, X, Y, 422, 200, 3 * SIDE);
    memcpy(known, rect, sizeof known);
    CHECK_OK(um_frame_find_image(whole, rect));
    check_around(rect, X, Y, 422, 558, 3 * SIDE);
    CHECK(rect[0] == known[0] && rect[1] == known[1] && rect[3] > known[3]);
    memcpy(known, rect, sizeof known);
    CHECK_OK(um_frame_find_image(part, rect));
    CHECK_OK(um_frame_find_image(dark, rect));
    CHECK(memcmp(rect, known, sizeof rect) == 0);
    um_frame_unref(&dark);
    um_frame_unref(&part);
    um_frame_unref(&whole);
}

TEST(an_image_without_menus_stays_whole)
{
    int rect[4] = {0};
    um_frame *f = golden_frame(0);
    CHECK_OK(um_frame_find_image(f, rect));
    CHECK(rect[0] == 0 && rect[1] == 0 && rect[2] == 422 && rect[3] == 558);
    um_frame_unref(&f);
    CHECK_EQ(um_frame_find_image(NULL, rect), UM_EINVAL);
}

TEST(any_size_is_looked_at)
{
    static const int size[][2] = {{1, 1},   {2, 700},  {700, 2},      {3, 3},
                                  {8, 8},   {513, 65}, {16384, 3},    {3, 16384},
                                  {64, 64}, {65, 64},  {4100, 13000}, {13000, 17}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        int rect[4] = {0};
        um_frame *f = new_frame(size[i][0], size[i][1], 1);
        uint32_t seed = 1;
        for (int y = 0; y < f->height; y++)
            for (int x = 0; x < f->width; x++)
                *pixel(f, x, y) = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
        CHECK_OK(um_frame_find_image(f, rect));
        if (rect[2]) /* too thin to be looked at: nothing is found */
            CHECK(rect[0] == 0 && rect[1] == 0 && rect[2] == f->width && rect[3] == f->height);
        else
            CHECK(f->width < 8 || f->height < 8);
        um_frame_unref(&f);
    }
}

/* Frames whose image appears from the top down, and then one of another size. */
enum { FRAMES = 6 };

static um_frame *frame_at(int i)
{
    static const int rows[FRAMES] = {0, 250, 250, 558, 300, 558};
    um_frame *f = i < FRAMES - 1 ? screen(0, rows[i], 1, 20) : golden_frame(0);
    f->id = (uint64_t)i;
    return f;
}

struct result {
    int crop[4];
    um_state state;
    float box[4];
    uint32_t area;
    int32_t mask_box[4];
};

static void keep(struct result *r, const um_packet *k)
{
    memset(r, 0, sizeof *r);
    memcpy(r->crop, k->crop, sizeof r->crop);
    r->state = k->state;
    memcpy(r->box, k->box, sizeof r->box);
    r->area = k->mask_area_px;
    memcpy(r->mask_box, k->mask_box, sizeof r->mask_box);
}

/* As many in flight as there can be. */
static void run_all(const um_pipeline_settings *s, struct result *result)
{
    um_pipeline *p = fixture_pipeline(s);
    const um_packet *k = NULL;
    int sent = 0;
    for (int got = 0; got < FRAMES; got++) {
        for (; sent < FRAMES && sent < got + um_pipeline_inflight(p); sent++) {
            um_frame *f = frame_at(sent);
            CHECK_OK(um_pipeline_send(p, &f));
        }
        CHECK_OK(um_pipeline_receive(p, &k));
        CHECK_EQ(k->frame_id, (uint64_t)got);
        keep(&result[got], k);
    }
    um_pipeline_close(&p);
}

TEST_ON_DEVICES(a_pipeline_finds_its_crop)
{
    struct result want[FRAMES], got[FRAMES];
    int rect[4] = {0};
    um_pipeline_settings told = fixture_settings(tiny(device)), find = told;
    told.conf = find.conf = 0;
    find.crop_auto = 1;
    for (int i = 0; i < FRAMES; i++) {
        const um_packet *k = NULL;
        um_frame *f = frame_at(i);
        if (i == FRAMES - 1)
            memset(rect, 0, sizeof rect);
        CHECK_OK(um_frame_find_image(f, rect));
        memcpy(told.crop, rect, sizeof rect);
        um_pipeline *p = fixture_pipeline(&told);
        CHECK_OK(pass(p, f, &k));
        keep(&want[i], k);
        um_pipeline_close(&p);
        um_frame_unref(&f);
    }
    CHECK(want[0].crop[2] == SW && want[1].crop[3] < want[3].crop[3]);
    CHECK(want[4].crop[3] == want[3].crop[3] && want[5].crop[2] == 422);
    for (int way = 0; way < 4; way++) {
        find.inflight = way == 1 ? 2 : 1;
        find.shadow_every = way == 2 ? 1 : 0;
        find.gate = way == 3 ? UM_GATE_SYNC : UM_GATE_AUTO;
        run_all(&find, got);
        for (int i = 0; i < FRAMES; i++)
            CHECK_MSG(memcmp(&want[i], &got[i], sizeof *got) == 0, "way %d, frame %d", way, i);
    }
}

/* A mask is followed in pixels of the crop: where that changes, nothing is known any more. */
TEST_ON_DEVICES(what_is_followed_begins_anew_with_another_crop)
{
    um_pipeline_settings s = fixture_settings(tiny(device));
    const um_packet *k = NULL;
    s.conf = 0;
    s.crop_auto = s.track = 1;
    um_pipeline *p = fixture_pipeline(&s);
    for (int i = 1; i < FRAMES; i++) {
        um_frame *f = frame_at(i);
        CHECK_OK(pass(p, f, &k));
        CHECK_EQ(k->detected, 1);
        um_frame_unref(&f);
    }
    um_pipeline_close(&p);
}

TEST(a_crop_is_told_or_found)
{
    um_pipeline_settings s = fixture_settings(tiny("cpu"));
    um_pipeline *p = NULL;
    s.crop_auto = 1;
    memcpy(s.crop, (int[]){0, 0, 10, 10}, sizeof s.crop);
    CHECK_EQ(um_pipeline_open(&p, &s), UM_EINVAL);
    CHECK(strstr(um_last_error(), "want one of them"));
    memset(s.crop, 0, sizeof s.crop);
    p = fixture_pipeline(&s);
    CHECK_OK(um_pipeline_prepare(p, SW, SH, 1));
    um_pipeline_close(&p);
}

TEST_MAIN
