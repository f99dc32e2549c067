/* SPDX-License-Identifier: Apache-2.0 */
/* The generator: reproducible, truthful, and written to files that COCO tools read. */
#include "base/mem.h"
#include "base/status.h"
#include "test.h"
#include "ultramotion/ultramotion.h"

#include <dirent.h>
#include <unistd.h>

/* Of frames and masks, frame by frame. */
static const uint64_t GOLDEN_1 = 0x282d3b17320316d, GOLDEN_2 = 0xba86075fd8d4b377,
                      GOLDEN_HARD = 0x11588a6586b02d9, GOLDEN_SWEEP = 0xfbad473bc6bc647e;

static uint64_t hash(uint64_t h, const uint8_t *p, size_t n) /* FNV-1a */
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* Hash of frames first..last-1 with their masks. */
static uint64_t hash_of(const char *spec, uint64_t first, uint64_t last)
{
    uint64_t h = 0xcbf29ce484222325u;
    um_source *s = NULL;
    um_frame *f = NULL;
    if (um_source_open(&s, spec, NULL) != UM_OK)
        return 0;
    while (um_source_read(s, &f) == UM_OK) {
        um_truth t = {.struct_size = sizeof t};
        if (f->id >= first && f->id < last && um_source_truth(s, &t) == UM_OK) {
            h = hash(h, f->pixels, (size_t)f->width * (size_t)f->height);
            if (t.mask)
                h = hash(h, t.mask, (size_t)f->width * (size_t)f->height);
        }
        um_frame_unref(&f);
    }
    um_source_close(&s);
    return h;
}

/* These bytes are the promise "the same seed gives the same bytes", on every compiler and machine.
 */
TEST(same_bytes_everywhere)
{
    CHECK_MSG(hash_of("phantom:seed=1,frames=4", 0, 4) == GOLDEN_1, "%llx",
              (unsigned long long)hash_of("phantom:seed=1,frames=4", 0, 4));
    CHECK_MSG(
        hash_of("phantom:seed=900001,frames=3,width=131,height=97", 0, 3) == GOLDEN_2, "%llx",
        (unsigned long long)hash_of("phantom:seed=900001,frames=3,width=131,height=97", 0, 3));
    const char *hard = "phantom:seed=900002,frames=6,width=160,height=200,look=hard";
    CHECK_MSG(hash_of(hard, 0, 6) == GOLDEN_HARD, "%llx", (unsigned long long)hash_of(hard, 0, 6));
    uint64_t sweep = hash_of("phantom:seed=900003,frames=110,sweep=1", 0, 110);
    CHECK_MSG(sweep == GOLDEN_SWEEP, "%llx", (unsigned long long)sweep);
}

/* Structures are where the map says, boxes are theirs, bones come first and mask is the first's. */
TEST(hard_truth_is_consistent)
{
    enum { W = 180, H = 200 };
    um_source *s = NULL;
    um_frame *f = NULL;
    um_truth t = {.struct_size = sizeof t};
    int kinds[UM_STRUCTURE_NEEDLE + 1] = {0}, bones = 0, several = 0, weaker = 0;
    CHECK_OK(um_source_open(&s, "phantom:seed=12,frames=150,width=180,height=200,look=hard", NULL));
    while (um_source_read(s, &f) == UM_OK) {
        CHECK_OK(um_source_truth(s, &t));
        CHECK(t.map && t.has_bone == (t.mask != NULL));
        float box[64][4];
        int area[64] = {0};
        double on = 0, above = 0;
        for (int i = 0; i < t.n_structures; i++) {
            box[i][0] = W;
            box[i][1] = H;
            box[i][2] = box[i][3] = 0;
            kinds[t.structure[i].kind]++;
            CHECK(i == 0 || t.structure[i].kind != UM_STRUCTURE_BONE ||
                  t.structure[i - 1].kind == UM_STRUCTURE_BONE);
        }
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                int i = t.map[y * W + x] - 1;
                CHECK(i < t.n_structures);
                CHECK(!t.has_bone || t.mask[y * W + x] == (i == 0));
                if (t.has_bone && i == 0)
                    on += f->pixels[y * W + x];
                if (t.has_bone && (float)y < t.box[1] && f->pixels[y * W + x] > above)
                    above = f->pixels[y * W + x];
                if (i < 0)
                    continue;
                area[i]++;
                box[i][0] = (float)x < box[i][0] ? (float)x : box[i][0];
                box[i][1] = (float)y < box[i][1] ? (float)y : box[i][1];
                box[i][2] = (float)x + 1 > box[i][2] ? (float)x + 1 : box[i][2];
                box[i][3] = (float)y + 1;
            }
        for (int i = 0; i < t.n_structures; i++) {
            CHECK(area[i] > 0);
            CHECK(memcmp(box[i], t.structure[i].box, sizeof box[i]) == 0);
        }
        CHECK(!t.has_bone || memcmp(t.box, box[0], sizeof t.box) == 0);
        CHECK(t.visibility >= 0 && t.visibility <= 1);
        CHECK(t.has_bone == (t.n_structures && t.structure[0].kind == UM_STRUCTURE_BONE));
        bones += t.has_bone;
        several += t.n_structures > 1 && t.structure[1].kind == UM_STRUCTURE_BONE;
        weaker += t.has_bone && on / area[0] < above;
        um_frame_unref(&f);
    }
    um_source_close(&s);
    CHECK_MSG(bones > 110 && bones < 142, "%d with bone", bones);
    CHECK_MSG(several > 3 && several < 40, "%d with two", several);
    CHECK_MSG(weaker > bones / 2, "%d of %d weaker than what is above", weaker, bones);
    for (int k = 0; k <= UM_STRUCTURE_NEEDLE; k++)
        CHECK_MSG(kinds[k], "none of kind %d", k);
}

/* How far a structure's brightness is from that of what lies above and below it, the larger. */
static double contrast(const um_frame *f, const um_truth *t, int id)
{
    double sum[3] = {0}, n[3] = {0};
    int w = f->width, h = f->height, gap = 2 * h / 320 + 1, deep = 8 * h / 320;
    for (int x = 0; x < w; x++) {
        int top = 0, end = h;
        while (top < end && t->map[top * w + x] != id)
            top++;
        while (end > top && t->map[(end - 1) * w + x] != id)
            end--;
        int band[3][2] = {{top, end}, {top - gap - deep, top - gap}, {end + gap, end + gap + deep}};
        for (int i = 0; i < 3 && top < end; i++)
            for (int y = band[i][0] < 0 ? 0 : band[i][0]; y < band[i][1] && y < h; y++) {
                sum[i] += f->pixels[y * w + x];
                n[i]++;
            }
    }
    double above = n[1] > 0 ? fabs(sum[0] / n[0] - sum[1] / n[1]) : 0,
           below = n[2] > 0 ? fabs(sum[0] / n[0] - sum[2] / n[2]) : 0;
    return above > below ? above : below;
}

TEST(what_cannot_be_seen_is_not_true)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    um_truth t = {.struct_size = sizeof t};
    int bones = 0, partly = 0;
    double least = 255;
    CHECK_OK(um_source_open(
        &s, "phantom:seed=900000,frames=250,width=211,height=279,look=hard,empty=0", NULL));
    while (um_source_read(s, &f) == UM_OK) {
        CHECK_OK(um_source_truth(s, &t));
        for (int i = 0; i < t.n_structures; i++)
            if (t.structure[i].kind == UM_STRUCTURE_BONE) {
                double c = contrast(f, &t, i + 1);
                least = c < least ? c : least;
                bones++;
            }
        partly += t.has_bone && t.visibility < .8f;
        um_frame_unref(&f);
    }
    um_source_close(&s);
    CHECK_MSG(least > 2, "a bone stands out by %g of 255", least);
    CHECK_MSG(bones > 250 && partly > 10, "%d bones, %d partly seen", bones, partly);
}

TEST(frames_do_not_depend_on_each_other)
{
    const char *spec = "phantom:seed=3,frames=4,width=80,height=64";
    CHECK(hash_of(spec, 3, 4) == hash_of("phantom:seed=3,frames=9,width=80,height=64", 3, 4));
    CHECK(hash_of(spec, 0, 1) != hash_of(spec, 1, 2));
    CHECK(hash_of(spec, 0, 1) != hash_of("phantom:seed=4,frames=4,width=80,height=64", 0, 1));
    CHECK(hash_of(spec, 1, 2) != hash_of("phantom:seed=4,frames=4,width=80,height=64", 0, 1));
}

TEST(truth_is_consistent)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, "phantom:seed=11,frames=200,width=200,height=240,empty=0.1", NULL));
    CHECK_EQ(um_source_length(s), 200);
    um_truth t = {.struct_size = sizeof t};
    CHECK_EQ(um_source_truth(s, &t), UM_AGAIN);
    int bones = 0, partly = 0;
    double on = 0, off = 0;
    while (um_source_read(s, &f) == UM_OK) {
        CHECK_OK(um_source_truth(s, &t));
        CHECK(f->channels == 1 && f->width == 200 && f->height == 240);
        CHECK(t.has_bone == (t.mask != NULL));
        CHECK(t.visibility >= 0 && t.visibility <= 1 && (t.has_bone || t.visibility == 0));
        if (t.has_bone) {
            int box[4] = {200, 240, 0, 0}, area = 0;
            double inside = 0, all = 0;
            for (int y = 0; y < 240; y++)
                for (int x = 0; x < 200; x++) {
                    all += f->pixels[y * 200 + x];
                    if (!t.mask[y * 200 + x])
                        continue;
                    CHECK_EQ(t.mask[y * 200 + x], 1);
                    area++;
                    inside += f->pixels[y * 200 + x];
                    box[0] = x < box[0] ? x : box[0];
                    box[1] = y < box[1] ? y : box[1];
                    box[2] = x + 1 > box[2] ? x + 1 : box[2];
                    box[3] = y + 1 > box[3] ? y + 1 : box[3];
                }
            for (int i = 0; i < 4; i++)
                CHECK_EQ(t.box[i], box[i]);
            on += inside / area;
            off += (all - inside) / (200 * 240 - area);
            bones++;
            partly += t.visibility < .95f;
        }
        um_frame_unref(&f);
    }
    um_source_close(&s);
    /* 10 % empty and a few that do not reach into the image: 160..190 is 4 sigma */
    CHECK_MSG(bones > 160 && bones < 192, "%d with bone", bones);
    CHECK(partly > 20 && partly < bones - 20);
    CHECK_MSG(on / bones > 150 && on / bones - off / bones > 80, "on the bone %g, elsewhere %g",
              on / bones, off / bones);
}

/* Extents of the pixels that are set. */
static void box_of(const uint8_t *mask, int w, int h, float box[4])
{
    box[0] = (float)w;
    box[1] = (float)h;
    box[2] = box[3] = 0;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            if (mask[y * w + x]) {
                box[0] = (float)x < box[0] ? (float)x : box[0];
                box[1] = (float)y < box[1] ? (float)y : box[1];
                box[2] = (float)x + 1 > box[2] ? (float)x + 1 : box[2];
                box[3] = (float)y + 1;
            }
}

TEST(sweeps_are_true)
{
    enum { W = 422, H = 558, SWEEP = 105 };
    um_source *s = NULL;
    um_frame *f = NULL, *before = NULL;
    um_truth t = {.struct_size = sizeof t};
    double skin[2] = {0, 0}; /* where the left end of the bone is, by place; mm */
    int whole = 0, partly = 0, none = 0, lifted = 0, frozen = 0, places = 0;
    CHECK_OK(um_source_open(&s, "phantom:seed=900003,frames=107,sweep=1", NULL));
    CHECK_EQ(um_source_length(s), 107);
    for (int i = 0; um_source_read(s, &f) == UM_OK; i++) {
        char name[32];
        snprintf(name, sizeof name, "sweep%03d/%05d", i / SWEEP, i % SWEEP);
        CHECK(strcmp(um_source_frame_name(s), name) == 0);
        CHECK_OK(um_source_truth(s, &t));
        CHECK(t.has_bone == (t.mask != NULL) && t.has_bone == (t.visibility > 0));
        CHECK(t.visibility <= 1);
        CHECK(f->has_spacing && f->spacing_mm[0] == .1 && f->spacing_mm[1] == .1);
        CHECK(f->has_pose && f->pose[0] == 1 && f->pose[5] == 1 && f->pose[10] == 1);
        if (t.has_bone) {
            float box[4];
            box_of(t.mask, W, H, box);
            CHECK(memcmp(box, t.box, sizeof box) == 0);
        }
        int place = f->pose[11] != 0, off = f->pose[7] < 0;
        double end = f->pose[3] + (double)t.box[0] * f->spacing_mm[0];
        CHECK(!off || !t.has_bone);
        if (t.visibility == 1 && i < SWEEP) {
            CHECK(skin[place] == 0 || fabs(end - skin[place]) < 1e-9);
            skin[place] = end;
        }
        if (before && memcmp(f->pixels, before->pixels, W * H) == 0) {
            CHECK(memcmp(f->pose, before->pose, sizeof f->pose) == 0);
            frozen++;
        }
        places += before && f->pose[11] != before->pose[11];
        whole += t.visibility == 1;
        partly += t.has_bone && t.visibility < 1;
        none += !t.has_bone;
        lifted += off;
        um_frame_unref(&before);
        before = f;
    }
    um_frame_unref(&before);
    um_source_close(&s);
    CHECK_MSG(whole > 50 && partly > 5 && none > 30, "%d, %d partly, %d absent", whole, partly,
              none);
    CHECK_EQ(lifted, 8);
    CHECK_EQ(frozen, 6);
    CHECK_EQ(places, 2); /* a jump, and back */
}

TEST(sweeps_begin_again)
{
    const char *spec = "phantom:seed=3,frames=2,sweep=1";
    um_source_settings set;
    um_source *s = NULL;
    um_frame *f[3] = {NULL, NULL, NULL};
    um_source_settings_default(&set);
    set.loop = 1;
    CHECK_OK(um_source_open(&s, spec, &set));
    for (int i = 0; i < 3; i++)
        CHECK_OK(um_source_read(s, &f[i]));
    CHECK(memcmp(f[0]->pixels, f[1]->pixels, 422 * 558) != 0);
    CHECK(memcmp(f[0]->pixels, f[2]->pixels, 422 * 558) == 0);
    for (int i = 0; i < 3; i++)
        um_frame_unref(&f[i]);
    um_source_close(&s);
    CHECK(hash_of(spec, 0, 1) != hash_of("phantom:seed=4,frames=1,sweep=1", 0, 1));
}

/* On a screen the image is what it is alone, and so is the truth; the layout is the seed's. */
TEST(screens_show_the_same_images)
{
    static const char *const kinds[] = {"seed=5,frames=40",
                                        "seed=6,frames=40,look=hard,width=160,height=200",
                                        "seed=7,sweep=1,frames=40"};
    int corner[3][2];
    for (int kind = 0; kind < 3; kind++) {
        char spec[96];
        um_source *alone = NULL, *screen = NULL;
        snprintf(spec, sizeof spec, "phantom:%s", kinds[kind]);
        CHECK_OK(um_source_open(&alone, spec, NULL));
        snprintf(spec, sizeof spec, "phantom:%s,screen=1", kinds[kind]);
        CHECK_OK(um_source_open(&screen, spec, NULL));
        int x = -1, y = -1, seen = 0;
        for (int i = 0; i < 40; i++) {
            um_frame *a = NULL, *b = NULL;
            um_truth t = {.struct_size = sizeof t}, u = t;
            CHECK_OK(um_source_read(alone, &a));
            CHECK_OK(um_source_read(screen, &b));
            CHECK_OK(um_source_truth(alone, &t));
            CHECK_OK(um_source_truth(screen, &u));
            CHECK(b->width == 1280 && b->height == 960 && t.has_bone == u.has_bone);
            CHECK(t.n_structures == u.n_structures && a->has_pose == b->has_pose);
            if (t.has_bone && x < 0) {
                x = (int)(u.box[0] - t.box[0]);
                y = (int)(u.box[1] - t.box[1]);
            }
            for (int k = 0; t.has_bone && k < 4; k++)
                CHECK(u.box[k] - t.box[k] == (float)(k % 2 ? y : x));
            for (int s = 0; s < t.n_structures && x >= 0; s++)
                for (int k = 0; k < 4; k++)
                    CHECK(u.structure[s].box[k] - t.structure[s].box[k] == (float)(k % 2 ? y : x));
            for (int row = 0; row < a->height && x >= 0; row++) {
                const uint8_t *from = a->pixels + row * a->stride;
                CHECK(memcmp(from, b->pixels + (y + row) * b->stride + x, (size_t)a->width) == 0);
                size_t at = (size_t)(y + row) * 1280 + (size_t)x,
                       there = (size_t)row * (size_t)a->width;
                CHECK(!t.mask || memcmp(t.mask + there, u.mask + at, (size_t)a->width) == 0);
                CHECK(!t.map || memcmp(t.map + there, u.map + at, (size_t)a->width) == 0);
            }
            size_t in = 0, all = 0;
            for (size_t k = 0; t.mask && k < (size_t)a->width * (size_t)a->height; k++)
                in += t.mask[k];
            for (size_t k = 0; u.mask && k < (size_t)1280 * 960; k++)
                all += u.mask[k];
            CHECK_EQ(in, all);
            seen += x >= 0;
            um_frame_unref(&a);
            um_frame_unref(&b);
        }
        CHECK(seen >= 6);
        corner[kind][0] = x;
        corner[kind][1] = y;
        um_source_close(&alone);
        um_source_close(&screen);
    }
    CHECK(corner[0][0] != corner[1][0] && corner[0][1] != corner[2][1]);
}

TEST(empty_share)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, "phantom:empty=1,frames=5,width=64,height=64", NULL));
    um_truth t = {.struct_size = sizeof t};
    while (um_source_read(s, &f) == UM_OK) {
        CHECK_OK(um_source_truth(s, &t));
        CHECK(!t.has_bone && !t.mask);
        um_frame_unref(&f);
    }
    um_source_close(&s);
}

/* A frame is what its shape alone gives: the same random numbers, whether the shape was asked for
 * or drawn. */
TEST(surfaces)
{
    enum { FRAMES = 40, KINDS = 5 };
    static const char *const names[KINDS] = {"arc", "plate", "rib", "flank", "humps"};
    uint64_t any[FRAMES], one[KINDS][FRAMES];
    int of[KINDS] = {0}, several = 0;
    for (int k = -1; k < KINDS; k++)
        for (int i = 0; i < FRAMES; i++) {
            char spec[128];
            snprintf(spec, sizeof spec,
                     "phantom:seed=%d,frames=1,width=64,height=80,look=hard,empty=0,surface=%s", i,
                     k < 0 ? "any" : names[k]);
            *(k < 0 ? &any[i] : &one[k][i]) = hash_of(spec, 0, 1);
        }
    for (int i = 0; i < FRAMES; i++) {
        int k = 0;
        while (k < KINDS && one[k][i] != any[i])
            k++;
        if (k < KINDS)
            of[k]++;
        else
            several++; /* two bones, of two shapes */
    }
    CHECK_MSG(several < FRAMES / 5, "%d", several);
    for (int k = 0; k < KINDS; k++)
        CHECK_MSG(of[k] > 0, "%s", names[k]);
}

TEST(keys)
{
    static const char *const bad[] = {"phantom:sed=1",
                                      "phantom:seed",
                                      "phantom:seed=",
                                      "phantom:seed=-1",
                                      "phantom:frames=1.5",
                                      "phantom:empty=2",
                                      "phantom:empty=nan",
                                      "phantom:width=0",
                                      "phantom:look=dark",
                                      "phantom:width=99999",
                                      "phantom:seed=1,,",
                                      "phantom:empty=",
                                      "phantom:width=9",
                                      "phantom:look=hard,surface=round",
                                      "phantom:surface=rib",
                                      "phantom:sweep=2",
                                      "phantom:screen=yes",
                                      "phantom:screen=1,width=1000",
                                      "phantom:sweep=1,surface=rib"};
    um_source *s = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_MSG(um_source_open(&s, bad[i], NULL) == UM_EINVAL, "%s", bad[i]);
        CHECK(s == NULL);
    }
    CHECK_EQ(um_source_open(&s, "phantom:sed=1", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "seed, frames, width, height, empty, look, surface, sweep, "
                                      "screen"),
              "%s", um_last_error());
    static const char *const refused[][2] = {
        {"phantom:sweep=1,look=hard", "sweep=1 is of look=default, not of look=hard"},
        {"phantom:empty=0,sweep=1", "empty= is not of sweep=1"},
        {"phantom:sweep=1,height=64", "width=422, height=64: sweep=1 has only 422x558 pixels"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        CHECK_EQ(um_source_open(&s, refused[i][0], NULL), UM_EINVAL);
        CHECK_MSG(strstr(um_last_error(), refused[i][1]), "%s", um_last_error());
    }
    um_source_settings set;
    um_source_settings_default(&set);
    set.frames = 7;
    CHECK_OK(um_source_open(&s, "phantom:frames=0,width=32,height=32", &set));
    CHECK_EQ(um_source_length(s), 7);
    um_source_close(&s);
    CHECK_OK(um_source_open(&s, "phantom:", NULL));
    CHECK_EQ(um_source_length(s), 100);
    um_source_close(&s);
    CHECK_OK(um_source_open(&s, "phantom:sweep=1,width=422,look=default", NULL));
    CHECK_EQ(um_source_length(s), 105);
    um_source_close(&s);
}

TEST(odd_sizes)
{
    static const char *const sizes[] = {"width=32,height=32", "width=33,height=700",
                                        "width=900,height=40", "width=640,height=480"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char spec[128];
        snprintf(spec, sizeof spec, "phantom:empty=0,frames=6,%s", sizes[i]);
        CHECK(hash_of(spec, 0, 6) != 0);
    }
}

static int stop_after_12(void *ctx, long done)
{
    *(long *)ctx = done;
    return done == 12;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

TEST(written_data_set)
{
    char dir[] = "/tmp/um_test_XXXXXX", path[128];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/deep/set", dir);
    long done = 0;
    CHECK_OK(um_phantom_write(path, "default", 5, 20, 64, 80, stop_after_12, &done));
    CHECK_EQ(done, 12);
    um_source *truth = NULL, *files = NULL, *masks = NULL;
    char spec[160];
    CHECK_OK(um_source_open(&truth, "phantom:seed=5,frames=12,width=64,height=80", NULL));
    snprintf(spec, sizeof spec, "%s/frames", path);
    CHECK_OK(um_source_open(&files, spec, NULL));
    snprintf(spec, sizeof spec, "%s/masks", path);
    CHECK_OK(um_source_open(&masks, spec, NULL));
    CHECK(um_source_length(files) == 12 && um_source_length(masks) == 12);
    static char text[65536];
    snprintf(spec, sizeof spec, "%s/truth.json", path);
    FILE *f = fopen(spec, "rb");
    CHECK(f != NULL);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    int bones = 0;
    for (int i = 0; i < 12; i++) {
        um_frame *a = NULL, *b = NULL, *m = NULL;
        um_truth t = {.struct_size = sizeof t};
        CHECK_OK(um_source_read(truth, &a));
        CHECK_OK(um_source_read(files, &b));
        CHECK_OK(um_source_read(masks, &m));
        CHECK_OK(um_source_truth(truth, &t));
        CHECK(memcmp(a->pixels, b->pixels, 64 * 80) == 0);
        for (int k = 0; k < 64 * 80; k++)
            CHECK_EQ(m->pixels[k], t.mask && t.mask[k] ? 255 : 0);
        if (t.has_bone) {
            char want[128];
            bones++;
            snprintf(
                want, sizeof want,
                "{\"id\":%d,\"image_id\":%d,\"category_id\":0,\"bbox\":[%g,%g,%g,%g],\"area\":",
                i + 1, i, (double)t.box[0], (double)t.box[1], (double)(t.box[2] - t.box[0]),
                (double)(t.box[3] - t.box[1]));
            CHECK_MSG(strstr(text, want), "no %s", want);
            char *counts = NULL, quoted[64];
            CHECK_OK(um_rle_encode(t.mask, 64, 80, &counts));
            snprintf(quoted, sizeof quoted, "\"counts\":\"%.20s", counts);
            if (!strchr(quoted, '\\'))
                CHECK(strstr(text, quoted));
            free(counts);
        }
        um_frame_unref(&a);
        um_frame_unref(&b);
        um_frame_unref(&m);
    }
    CHECK_EQ(count(text, "\"file_name\":\"frames/"), 12);
    CHECK_EQ(count(text, "\"image_id\":"), bones);
    CHECK_EQ(count(text, "\"visibility\":"), bones);
    CHECK_EQ(count(text, "\"pose\":null"), bones);
    um_source_close(&truth);
    um_source_close(&files);
    um_source_close(&masks);
    CHECK_EQ(um_phantom_write(path, "default", 5, 0, 64, 80, NULL, NULL), UM_EINVAL);
    CHECK_EQ(um_phantom_write(path, "default", 5, 1, 8, 80, NULL, NULL), UM_EINVAL);
    CHECK_EQ(um_phantom_write("/dev/null/x", NULL, 5, 1, 64, 80, NULL, NULL), UM_EIO);
    char command[200];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK_EQ(system(command), 0);
}

TEST(open_survives_failed_allocations)
{
    static const char *const specs[] = {"phantom:width=32,height=32", "phantom:sweep=1"};
    for (int i = 0; i < 2; i++) {
        um_status st = UM_ENOMEM;
        for (uint64_t k = 1; st != UM_OK && k < 50; k++) {
            um_source *s = NULL;
            FORGET_ERROR();
            um_mem_fail_at(k);
            st = um_source_open(&s, specs[i], NULL);
            um_mem_fail_at(0);
            CHECK_MEMORY(st);
            CHECK(st == UM_OK ? s != NULL : st == UM_ENOMEM && !s);
            um_source_close(&s);
        }
        CHECK_EQ(st, UM_OK);
    }
}

TEST_MAIN
