/* SPDX-License-Identifier: Apache-2.0 */
/* Images and videos as users bring them: kinds, orientation, 16 bits, pages, lists, folders, and
 * what is said about them. tests/gen/images.py and videos.py draw what is read here. */
#include "base/kind.h"
#include "base/mem.h"
#include "base/status.h"
#include "child.h"
#include "drawn.h"
#include "scratch.h"
#include "test.h"
#include "ultramotion/ultramotion.h"

#include <signal.h>
#include <sys/stat.h>

static const char *golden(const char *folder, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", UM_GOLDEN_DIR, folder, name);
    return path;
}

static bool reads(const char *kind)
{
    return strstr(um_image_kinds(), kind) != NULL;
}

static void check_image(const char *name, int channels, int tolerance)
{
    um_frame *f = NULL;
    CHECK_OK(um_image_read(golden("image", name), &f));
    check_frame(f, name, channels, tolerance);
    um_frame_unref(&f);
}

/* ---- what a source says ---- */

static char told[4096], last_problem[1024];

static void note(void *ctx, const char *text)
{
    (void)ctx;
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s\n", text);
}

/* Read all of a source: frames as "name", failures as "!name", with a word about the first
 * pixel. */
static const char *read_all(const char *spec, um_source_settings *settings)
{
    static char text[8192];
    um_source_settings own;
    um_source *s = NULL;
    um_frame *f = NULL;
    size_t n = 0;
    if (!settings) {
        um_source_settings_default(&own);
        settings = &own;
    }
    settings->on_notice = note;
    told[0] = text[0] = last_problem[0] = 0;
    if (um_source_open(&s, spec, settings) != UM_OK)
        return um_last_error();
    for (um_status st; n < sizeof text && (st = um_source_read(s, &f)) != UM_EOF;) {
        if (st != UM_OK)
            snprintf(last_problem, sizeof last_problem, "%s", um_last_error());
        n += (size_t)snprintf(text + n, sizeof text - n, st == UM_OK ? "%s%s=%d" : "%s!%s",
                              n ? " " : "", um_source_frame_name(s), f ? f->pixels[0] : 0);
        um_frame_unref(&f);
    }
    um_source_close(&s);
    return text;
}

static const char *put_png(const char *name, uint8_t value)
{
    uint8_t pixels[4] = {value, value, value, value};
    if (um_image_write_png(in_scratch(name), pixels, 2, 2, 1) != UM_OK)
        abort();
    return in_scratch(name);
}

static void remove_tree(void)
{
    char command[128];
    if (scratch[0]) {
        snprintf(command, sizeof command, "rm -rf '%s'", scratch);
        if (system(command) != 0)
            abort();
        scratch[0] = 0;
    }
}

/* ---- kinds of images ---- */

TEST(bmp_of_every_kind)
{
    check_image("gray8.bmp", 1, 0);
    check_image("palette8.bmp", 3, 0);
    check_image("rgb24.bmp", 3, 0);
    check_image("rgb24_core.bmp", 3, 0);
    check_image("rgb32_from_top.bmp", 3, 0);
    check_image("rgb32_masks.bmp", 3, 0);
    check_image("rgb16.bmp", 3, 8); /* five and six bits */
    um_frame *f = NULL;
    CHECK_OK(um_image_read(golden("image", "palette4.bmp"), &f));
    CHECK(f->channels == 3 && f->pixels[3 * 5] == 15 && f->pixels[3 * 5 + 2] == 5);
    um_frame_unref(&f);
    CHECK_OK(um_image_read(golden("image", "gray1.bmp"), &f));
    CHECK(f->channels == 1 && f->pixels[0] == 0 && f->pixels[1] == 255);
    um_frame_unref(&f);
}

TEST(tiff_of_every_kind)
{
    if (!reads("TIFF"))
        SKIP("built without libtiff");
    check_image("gray8.tif", 1, 0);
    check_image("gray8_packbits.tif", 1, 0);
    check_image("white.tif", 1, 0);
    check_image("gray16.tif", 1, 0);
    check_image("turned8.tif", 1, 0);
    check_image("rgb8_deflate.tif", 3, 0);
    check_image("rgb8_lzw.tif", 3, 0);
    check_image("rgb8_apart.tif", 3, 0);
    check_image("rgb8_tiles.tif", 3, 0);
    check_image("rgba16.tif", 3, 0);
    check_image("palette.tif", 3, 0);
    check_image("rgb_jpeg.tif", 3, 14);
    check_image("ycbcr.tif", 3, 20);
    um_frame *f = NULL;
    CHECK_EQ(um_image_read(golden("image", "float.tif"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "with floating-point samples is not read: save it"), "%s",
              um_last_error());
    static uint8_t data[8192]; /* of no kind, as who copies an image writes it: as if unsaid */
    size_t n = slurp(golden("image", "float.tif"), data, sizeof data);
    for (size_t at = 0; at + 8 < n; at++)
        if (memcmp(data + at, "\x53\1\3\0\1\0\0\0\3", 9) == 0)
            data[at + 8] = 4;
    spit(in_scratch("unsaid.tif"), data, n);
    CHECK_EQ(um_image_read(in_scratch("unsaid.tif"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "with 32-bit samples is not read"), "%s", um_last_error());
    scratch_close();
    CHECK_EQ(um_image_read(golden("image", "fax.tif"), &f), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "compression 4 (CCITT Group 4)"));
}

TEST(a_tiff_is_its_pages)
{
    if (!reads("TIFF"))
        SKIP("built without libtiff");
    CHECK_STR(read_all(golden("image", "pages.tif"), NULL),
              "pages_00000=10 pages_00001=20 pages_00002=30");
    CHECK_STR(told, "pages.tif: 1 smaller copy or mask in it was passed over\n");
    CHECK_STR(read_all(golden("image", "gray8.tif"), NULL), "gray8=0");
    /* three rounds, and the length is not promised */
    um_source_settings set;
    um_source_settings_default(&set);
    set.loop = 1;
    set.frames = 7;
    CHECK_STR(read_all(golden("image", "pages.tif"), &set),
              "pages_00000=10 pages_00001=20 pages_00002=30 pages_00000=10 pages_00001=20 "
              "pages_00002=30 pages_00000=10");
    um_source *s = NULL;
    um_source_settings_default(&set);
    set.frames = 99;
    CHECK_OK(um_source_open(&s, golden("image", "pages.tif"), &set));
    CHECK_EQ(um_source_length(s), -1);
    um_source_close(&s);
}

/* Cut anywhere, a TIFF gives whole pages and errors, and ends. */
TEST(a_cut_tiff_gives_its_pages_and_says_so)
{
    static uint8_t data[8192];
    if (!reads("TIFF"))
        SKIP("built without libtiff");
    size_t n = slurp(golden("image", "pages.tif"), data, sizeof data);
    for (size_t cut = 1; cut < n; cut++) {
        spit(in_scratch("cut.tif"), data, cut);
        const char *text = read_all(in_scratch("cut.tif"), NULL);
        CHECK_MSG(strchr(text, '!'), "cut to %zu of %zu: %s", cut, n, text);
        CHECK_MSG(strstr(last_problem, "cut.tif: "), "%s", last_problem);
    }
    CHECK_MSG(strstr(last_problem, "page 4: bad TIFF: "), "%s", last_problem);
    spit(in_scratch("cut.tif"), data, n);
    CHECK(!strchr(read_all(in_scratch("cut.tif"), NULL), '!'));
    scratch_close();
}

TEST(images_of_every_kind_are_whole_or_refused)
{
    static const char *const names[] = {"gray8.bmp",    "palette4.bmp",  "rgb16.bmp",
                                        "rgb24.bmp",    "gray8.tif",     "rgb8_lzw.tif",
                                        "rgb_jpeg.tif", "rgb8_tiles.tif"};
    static uint8_t data[65536];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strstr(names[i], ".tif") && !reads("TIFF"))
            continue;
        size_t n = slurp(golden("image", names[i]), data, sizeof data);
        for (size_t cut = 0; cut < n; cut++) {
            um_frame *f = NULL;
            spit(in_scratch("cut"), data, cut);
            um_status st = um_image_read(in_scratch("cut"), &f);
            /* the link behind the only page, and a last byte that fills up, may be missing */
            CHECK_MSG(st == UM_EFORMAT ? !f : st == UM_OK && cut + 8 > n,
                      "%s cut to %zu of %zu bytes: %s", names[i], cut, n, um_status_name(st));
            um_frame_unref(&f);
        }
        for (size_t at = 0; at < n; at++) {
            um_frame *f = NULL;
            data[at] ^= (uint8_t)(1u << at % 8);
            spit(in_scratch("bad"), data, n);
            data[at] ^= (uint8_t)(1u << at % 8);
            um_status st = um_image_read(in_scratch("bad"), &f);
            CHECK_MSG((st == UM_EFORMAT || st == UM_OK || st == UM_EUNSUPPORTED) &&
                          (st == UM_OK) == (f != NULL),
                      "%s, byte %zu: %s", names[i], at, um_last_error());
            um_frame_unref(&f);
        }
    }
    scratch_close();
}

/* libjpeg goes on over damage: that is no image, also inside of a TIFF. */
TEST(damage_that_libjpeg_passes_over_is_an_error)
{
    static const char *const names[] = {"turned6.jpg", "rgb_jpeg.tif"};
    static uint8_t data[65536];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strstr(names[i], ".tif") && !reads("TIFF"))
            continue;
        size_t n = slurp(golden("image", names[i]), data, sizeof data), told_of = 0;
        for (size_t at = 0; at < n; at++) {
            um_frame *f = NULL;
            data[at] ^= 0xa5;
            spit(in_scratch("bad"), data, n);
            data[at] ^= 0xa5;
            if (um_image_read(in_scratch("bad"), &f) == UM_EFORMAT)
                told_of += strstr(um_last_error(), ": Corrupt JPEG data: ") != NULL;
            um_frame_unref(&f);
        }
        CHECK_MSG(told_of > 0, "%s", names[i]);
    }
    scratch_close();
}

TEST(claims_of_size_are_checked_before_memory_is_taken)
{
    static uint8_t data[8192];
    um_frame *f = NULL;
    size_t n = slurp(golden("image", "rgb24.bmp"), data, sizeof data);
    memcpy(data + 18, "\x10\x27\0\0\x10\x27\0\0", 8); /* 10000x10000 */
    spit(in_scratch("a.bmp"), data, n);
    uint64_t before = um_mem_count();
    CHECK_EQ(um_image_read(in_scratch("a.bmp"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "BMP of 10000x10000 pixels cannot come from 414 bytes"), "%s",
              um_last_error());
    CHECK_EQ(um_mem_count(), before);
    memcpy(data + 18, "\x10\0\0\0\0\0\0\x80", 8); /* a height that has no opposite */
    spit(in_scratch("a.bmp"), data, n);
    CHECK_EQ(um_image_read(in_scratch("a.bmp"), &f), UM_EFORMAT);
    n = slurp(golden("image", "gray8.bmp"), data, sizeof data);
    data[30] = 1;
    spit(in_scratch("a.bmp"), data, n);
    CHECK_EQ(um_image_read(in_scratch("a.bmp"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "RLE8 inside is not read: save it without compression"), "%s",
              um_last_error());
    if (reads("TIFF")) {
        n = slurp(golden("image", "rgb8_tiles.tif"), data, sizeof data);
        for (size_t at = 0; at + 12 <= n; at++) /* the tiles' width and height */
            if (memcmp(data + at, "\x42\1\4\0", 4) == 0 || memcmp(data + at, "\x43\1\4\0", 4) == 0)
                memcpy(data + at + 8, "\0\x80\0\0", 4);
        spit(in_scratch("a.tif"), data, n);
        CHECK_EQ(um_image_read(in_scratch("a.tif"), &f), UM_EFORMAT);
        CHECK_MSG(strstr(um_last_error(), "blocks of an impossible size"), "%s", um_last_error());
    }
    scratch_close();
}

TEST(readers_survive_failed_allocations)
{
    static const char *const names[] = {"gray12in16.png", "turned6.jpg",    "rgb16.bmp",
                                        "pages.tif",      "rgb8_tiles.tif", "palette.tif"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        um_status st = UM_ENOMEM;
        if (strstr(names[i], ".tif") && !reads("TIFF"))
            continue;
        for (uint64_t k = 1; st != UM_OK && k < 30; k++) {
            um_frame *f = NULL;
            FORGET_ERROR();
            um_mem_fail_at(k);
            st = um_image_read(golden("image", names[i]), &f);
            um_mem_fail_at(0);
            CHECK_MEMORY(st);
            CHECK_MSG(st == UM_OK || (st == UM_ENOMEM && !f), "%s: %s", names[i], um_last_error());
            um_frame_unref(&f);
        }
        CHECK_EQ(st, UM_OK);
    }
}

/* ---- orientation ---- */

TEST(images_are_turned_as_their_file_says)
{
    char name[32];
    for (int i = 1; i <= 8; i++) {
        snprintf(name, sizeof name, "turned%d.png", i);
        check_image(name, 1, 0);
    }
    check_image("turned6.jpg", 1, 4);
    CHECK_STR(read_all(golden("image", "turned6.jpg"), NULL), "turned6=0");
    CHECK_STR(told, "turned6.jpg: turned by its orientation (6); boxes and masks are those of the "
                    "turned image\n");
    CHECK_STR(read_all(golden("image", "turned1.png"), NULL), "turned1=0");
    CHECK_STR(told, "");
    char glob[512];
    snprintf(glob, sizeof glob, "%s", golden("image", "turned?.png"));
    CHECK_STR(read_all(glob, NULL), "turned1=0 turned2=0 turned3=0 turned4=0 turned5=0 turned6=0 "
                                    "turned7=0 turned8=0");
    CHECK_MSG(strstr(told, "turned2.png: turned") && !strstr(told, "turned3.png") &&
                  strstr(told, ": 7 files were turned by their orientation\n"),
              "%s", told);
}

/* Cut and damaged EXIF turns nothing, or what it says. */
TEST(damaged_exif_does_no_harm)
{
    static uint8_t data[8192];
    size_t n = slurp(golden("image", "turned6.jpg"), data, sizeof data);
    for (size_t at = 4; at < 70; at++)
        for (int value = 0; value < 256; value += 51) {
            um_frame *f = NULL;
            uint8_t was = data[at];
            data[at] = (uint8_t)value;
            spit(in_scratch("bad.jpg"), data, n);
            data[at] = was;
            um_status st = um_image_read(in_scratch("bad.jpg"), &f);
            CHECK_MSG(st == UM_OK ? f->width * f->height == W * H : st == UM_EFORMAT, "%s",
                      um_last_error());
            um_frame_unref(&f);
        }
    scratch_close();
}

/* ---- 16 bits ---- */

static um_frame *read_first(const char *path, um_window window, int lo, int hi)
{
    um_source_settings set;
    um_source *s = NULL;
    um_frame *f = NULL;
    um_source_settings_default(&set);
    set.window = window;
    set.window_lo = lo;
    set.window_hi = hi;
    set.on_notice = note;
    told[0] = 0;
    if (um_source_open(&s, path, &set) != UM_OK || um_source_read(s, &f) != UM_OK)
        printf("  %s\n", um_last_error());
    um_source_close(&s);
    return f;
}

TEST(few_bits_in_sixteen_are_told_or_stretched)
{
    static const char *const names[] = {"gray12in16.png", "gray12in16.tif"};
    for (int i = 0; i < 2; i++) {
        if (i && !reads("TIFF"))
            continue;
        um_frame *f = read_first(golden("image", names[i]), UM_WINDOW_NONE, 0, 0);
        CHECK(f && f->pixels[12] < 14); /* as it is: 192 of 255 at 12 bits */
        um_frame_unref(&f);
        CHECK_MSG(strstr(told, "none is over 3712 of 65535") && strstr(told, "--window auto"), "%s",
                  told);
        f = read_first(golden("image", names[i]), UM_WINDOW_RANGE, 0, 4080);
        CHECK(f);
        check_frame(f, names[i], 1, 0);
        um_frame_unref(&f);
        CHECK_STR(told, "");
        f = read_first(golden("image", names[i]), UM_WINDOW_AUTO, 0, 0);
        CHECK(f && f->pixels[0] == 0 && f->pixels[(H - 1) * W + W - 1] == 255);
        CHECK_NEAR(f->pixels[12], 192 * 255 / 232.0, .51);
        um_frame_unref(&f);
        CHECK_STR(told, "");
        f = read_first(golden("image", names[i]), UM_WINDOW_RANGE, 1600, 1616);
        CHECK(f && f->pixels[6] == 0 && f->pixels[7] == 255); /* 96, 112 times 16 */
        um_frame_unref(&f);
    }
}

TEST(significant_bits_are_obeyed)
{
    um_frame *f = read_first(golden("image", "gray12in16_said.png"), UM_WINDOW_NONE, 0, 0);
    CHECK(f);
    check_frame(f, "gray12in16_said.png", 1, 1);
    um_frame_unref(&f);
    CHECK_STR(told, "gray12in16_said.png: samples of 12 bits in 16 (sBIT): 4095 is white\n");
    f = read_first(golden("image", "rgb10in16_said.png"), UM_WINDOW_NONE, 0, 0);
    CHECK(f);
    check_frame(f, "rgb10in16_said.png", 3, 1);
    um_frame_unref(&f);
    /* stretched already, as the standard has it; and what a user says goes first */
    f = read_first(golden("image", "gray12_stretched.png"), UM_WINDOW_NONE, 0, 0);
    CHECK(f);
    check_frame(f, "gray12_stretched.png", 1, 0);
    um_frame_unref(&f);
    CHECK_STR(told, "");
    f = read_first(golden("image", "gray12in16_said.png"), UM_WINDOW_RANGE, 0, 65535);
    CHECK(f && f->pixels[12] < 14);
    um_frame_unref(&f);
    CHECK_STR(told, "");
    f = read_first(golden("image", "gray8.png"), UM_WINDOW_RANGE, 0, 1); /* only for 16 bits */
    CHECK(f);
    check_frame(f, "gray8.png", 1, 0);
    um_frame_unref(&f);
}

TEST(windows_that_mean_nothing_are_refused)
{
    static const int bad[][2] = {{-1, 5}, {5, 5}, {6, 5}, {0, 65536}};
    um_source_settings set;
    um_source *s = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        um_source_settings_default(&set);
        set.window = UM_WINDOW_RANGE;
        set.window_lo = bad[i][0];
        set.window_hi = bad[i][1];
        CHECK_EQ(um_source_open(&s, golden("image", "gray8.png"), &set), UM_EINVAL);
    }
    um_source_settings_default(&set);
    set.window = (um_window)7;
    CHECK_EQ(um_source_open(&s, golden("image", "gray8.png"), &set), UM_EINVAL);
}

TEST(an_animated_png_is_told)
{
    CHECK_STR(read_all(golden("image", "animated.png"), NULL), "animated=0");
    CHECK_MSG(strstr(told, "animated.png: an animated PNG of 3 frames, of which only the still "
                           "image is read: save"),
              "%s", told);
    CHECK_STR(read_all(golden("image", "animated_apart.png"), NULL), "animated_apart=0");
    CHECK_MSG(strstr(told, "still image is read, and it is none of them"), "%s", told);
}

/* ---- folders and lists ---- */

TEST(a_folder_says_what_it_passes_over)
{
    uint8_t dicom[178] = {0};
    memcpy(dicom + 128, "DICM", 4);
    put_png("a.png", 1);
    spit(in_scratch("IM_0001"), dicom, sizeof dicom);
    spit(in_scratch("d.dcm"), dicom, sizeof dicom);
    spit(in_scratch("e.webp"), "RIFF\x10\0\0\0WEBPVP8 ", 16);
    spit(in_scratch("notes.txt"), "left leg\n", 9);
    spit(in_scratch("x.raw"), "\xff\xfe\xfd\0\1\2", 6);
    spit(in_scratch("y"), "\xff\xfe\xfd\0\1\2", 6);
    spit(in_scratch(".hidden"), "x", 1);
    CHECK_EQ(mkdir(in_scratch("sub"), 0777), 0);
    put_png("sub/b.png", 2);
    put_png("c", 3); /* without an ending */
    CHECK_STR(read_all(scratch, NULL), "a=1");
    char want_text[1024];
    snprintf(want_text, sizeof want_text,
             "%s: passed over: 1 .raw file, 2 DICOM (ultramotion.run() of the Python package reads "
             "it, given without other images (pip install ./python[dicom]), or export it as "
             "PNG), 1 PNG (under another ending, give it by "
             "name), 1 WebP (convert it to PNG), 1 file without ending, 1 text, 1 folder "
             "(--recursive looks into them)\n",
             scratch);
    CHECK_STR(told, want_text);
    um_source_settings set;
    um_source_settings_default(&set);
    set.recursive = 1;
    CHECK_EQ(symlink("..", in_scratch("sub/up")), 0); /* round and round */
    CHECK_STR(read_all(scratch, &set), "a=1 sub/b=2");
    CHECK_MSG(strstr(told, "1 linked folder (not followed, give it by name), 1 text\n"), "%s",
              told);
    /* said also when a run stops early; not when nothing was read */
    um_source_settings_default(&set);
    set.frames = 1;
    CHECK_STR(read_all(scratch, &set), "a=1");
    CHECK_STR(told, want_text);
    um_source *s = NULL;
    told[0] = 0;
    CHECK_OK(um_source_open(&s, scratch, &set));
    um_source_close(&s);
    CHECK_STR(told, "");
    spit(in_scratch("a.png"), "left leg\n", 9); /* nor is there any that can be read */
    CHECK_STR(read_all(scratch, NULL), "!a");
    CHECK_STR(told, want_text);
    remove_tree();
}

TEST(a_folder_without_images_says_what_it_has)
{
    spit(in_scratch("config.json"), "{\"a\": 1}", 8);
    CHECK_EQ(mkdir(in_scratch("sub"), 0777), 0);
    const char *text = read_all(scratch, NULL);
    CHECK_MSG(strstr(text, ": no image in this folder (PNG, JPEG, BMP") &&
                  strstr(text, "), only 1 JSON, 1 folder (--recursive looks into them)"),
              "%s", text);
    char sub[80];
    snprintf(sub, sizeof sub, "%s/sub/", scratch);
    text = read_all(sub, NULL);
    CHECK_MSG(strstr(text, "): it is empty"), "%s", text);
    remove_tree();
}

TEST(folders_in_folders_keep_their_names)
{
    CHECK_EQ(mkdir(in_scratch("p1"), 0777) | mkdir(in_scratch("p2"), 0777) |
                 mkdir(in_scratch("p2/deep"), 0777),
             0);
    put_png("p1/frame.png", 1);
    put_png("p2/frame.png", 2);
    put_png("p2/frame.jpg", 3); /* content decides */
    put_png("p2/deep/frame.png", 4);
    um_source_settings set;
    um_source_settings_default(&set);
    set.recursive = 1;
    char slash[80];
    snprintf(slash, sizeof slash, "%s/", scratch);
    CHECK_STR(read_all(scratch, &set), "p1/frame=1 p2/deep/frame=4 p2/frame.jpg=3 p2/frame.png=2");
    CHECK_STR(read_all(slash, &set), "p1/frame=1 p2/deep/frame=4 p2/frame.jpg=3 p2/frame.png=2");
    /* folders that a pattern finds */
    char glob[80];
    snprintf(glob, sizeof glob, "%s/p*", scratch);
    CHECK_STR(read_all(glob, &set), "p1/frame=1 p2/deep/frame=4 p2/frame.jpg=3 p2/frame.png=2");
    set.recursive = 0;
    CHECK_MSG(strstr(read_all(glob, &set), "no file matches, only 2 folders (--recursive looks"),
              "%s", um_last_error());
    snprintf(glob, sizeof glob, "%s/p2/*", scratch);
    CHECK_STR(read_all(glob, &set), "frame.jpg=3 frame.png=2");
    CHECK_MSG(strstr(told, "passed over: 1 folder ("), "%s", told);
    remove_tree();
}

TEST(frames_of_a_file_never_meet_another_file)
{
    static uint8_t data[8192];
    if (!reads("TIFF"))
        SKIP("built without libtiff");
    size_t n = slurp(golden("image", "pages.tif"), data, sizeof data);
    spit(in_scratch("loop.tif"), data, n);
    put_png("loop_00001.png", 5);
    CHECK_STR(read_all(scratch, NULL),
              "loop.tif_00000=10 loop.tif_00001=20 loop.tif_00002=30 loop_00001=5");
    put_png("loop.tif_00002.png", 5);
    const char *text = read_all(scratch, NULL);
    CHECK_MSG(strstr(text, "loop.tif_00002.png is called like a frame of "), "%s", text);
    remove_tree();
}

TEST(a_list_is_read_in_its_own_order)
{
    static const char list[] = "\xef\xbb\xbfp2/b.png\r\n\np1/a.png\np1/none.png\np2/a.png";
    char spec[96], absolute[512];
    CHECK_EQ(mkdir(in_scratch("p1"), 0777) | mkdir(in_scratch("p2"), 0777), 0);
    put_png("p1/a.png", 1);
    put_png("p2/a.png", 2);
    put_png("p2/b.png", 3);
    spit(in_scratch("list.txt"), list, sizeof list - 1);
    snprintf(spec, sizeof spec, "@%s/list.txt", scratch);
    CHECK_STR(read_all(spec, NULL), "p2/b=3 p1/a=1 !p1/none p2/a=2");
    int length =
        snprintf(absolute, sizeof absolute, "%s/p2/b.png\n%s/p2/a.png\n", scratch, scratch);
    spit(in_scratch("list.txt"), absolute, (size_t)length);
    CHECK_STR(read_all(spec, NULL), "b=3 a=2");
    spit(in_scratch("list.txt"), "p1/a.png\np1/a.png\n", 18);
    CHECK_MSG(strstr(read_all(spec, NULL), "is in it twice"), "%s", um_last_error());
    spit(in_scratch("list.txt"), "./p1//a.png\n././p2/./a.png\n", 27);
    CHECK_STR(read_all(spec, NULL), "p1/a=1 p2/a=2");
    spit(in_scratch("list.txt"), "./p1/a.png\np1//a.png\n", 21);
    CHECK_MSG(strstr(read_all(spec, NULL), "is in it twice"), "%s", um_last_error());
    spit(in_scratch("list.txt"), "p1/a.png\np1/../p2/a.png\n", 24);
    CHECK_MSG(strstr(read_all(spec, NULL), "leaves no name"), "%s", um_last_error());
    spit(in_scratch("list.txt"), "\n\r\n", 3);
    CHECK_MSG(strstr(read_all(spec, NULL), "list.txt: an empty list"), "%s", um_last_error());
    spit(in_scratch("list.txt"), "a\0b", 3);
    CHECK_MSG(strstr(read_all(spec, NULL), "list.txt: not a list"), "%s", um_last_error());
    snprintf(spec, sizeof spec, "@%s/none.txt", scratch);
    CHECK_MSG(strstr(read_all(spec, NULL), "none.txt: cannot open"), "%s", um_last_error());
    /* a file that is called like a list */
    snprintf(spec, sizeof spec, "%s", put_png("@a.png", 7));
    CHECK_STR(read_all(spec, NULL), "@a=7");
    remove_tree();
}

TEST(lists_and_folders_survive_failed_allocations)
{
    char spec[96], text[2000] = "";
    for (int i = 0; i < 70; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "f/%d.png\n", i);
    CHECK_EQ(mkdir(in_scratch("f"), 0777), 0);
    put_png("f/0.png", 1);
    spit(in_scratch("list.txt"), text, strlen(text));
    for (int list = 0; list < 2; list++) {
        um_status st = UM_ENOMEM;
        snprintf(spec, sizeof spec, list ? "@%s/list.txt" : "%s", scratch);
        for (uint64_t k = 1; st != UM_OK && k < 300; k++) {
            um_source *s = NULL;
            um_source_settings set;
            um_source_settings_default(&set);
            set.recursive = 1;
            FORGET_ERROR();
            um_mem_fail_at(k);
            st = um_source_open(&s, spec, &set);
            um_mem_fail_at(0);
            CHECK_MEMORY(st);
            CHECK(st == UM_OK || (st == UM_ENOMEM && !s));
            um_source_close(&s);
        }
        CHECK_EQ(st, UM_OK);
    }
    remove_tree();
}

/* ---- what is no image ---- */

#define BYTES(text) text, sizeof text - 1

TEST(what_is_no_image_is_named_with_what_to_do)
{
    static uint8_t dicom[160], scanner[160], tar[600], nifti[400], stream[600];
    memcpy(dicom + 128, "DICM", 4);
    memcpy(scanner, "II*\0T\x18\x08\0", 8); /* a preamble as some have */
    memcpy(scanner + 128, "DICM", 4);
    memcpy(tar, "weights/", 8);
    memcpy(tar + 257, "ustar", 5);
    memcpy(nifti, "\x5c\1\0\0", 4);
    memcpy(nifti + 344, "n+1", 3);
    for (size_t i = 0; i < sizeof stream; i += 192)
        stream[i] = 0x46; /* neither 188 nor 192 bytes apart */
    const struct {
        const char *data;
        size_t n;
        const char *what, *advice;
    } cases[] = {
        {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:12\n"), "a Git LFS pointer",
         "git lfs pull"},
        {BYTES("<!DOCTYPE html>\n<html><body>Not found"), "a web page", "download"},
        {BYTES("\n  <HTML><head>"), "a web page", "download"},
        {BYTES("<?xml version=\"1.0\"?><a/>"), "an XML text", "image itself"},
        {BYTES("<?xml version=\"1.0\"?><svg/>"), "an SVG drawing", "convert"},
        {BYTES("{\"id2label\": {}}"), "a JSON text", "image itself"},
        {BYTES("frame one\nframe two\n"), "a text", "@LIST.txt"},
        {BYTES(""), "an empty file", "again"},
        {BYTES("PK\3\4\24\0\0\0\0\0xxxxxxxxxxxxxxxxxxxxarchive/data.pkl"), "a PyTorch file",
         "--detector"},
        {BYTES("PK\3\4\24\0\0\0\0\0xxxxxxxxxxxxxxxxxxxxscan.png"), "a zip archive", "unpack"},
        {BYTES("PK\3\4\24\0\1\0\0\0xxxxxxxxxxxxxxxxxxxxscan.png"), "an encrypted zip", "decrypt"},
        {BYTES("PK\3\4\24\0\0\0\0\0xxxxxxxxxxxxxxxxxxxx[Content_Types].xml"), "an Office", "PNG"},
        {BYTES("\x1f\x8b\x08\0"), "a gzip archive", "unpack"},
        {BYTES("Salted__12345678"), "an encrypted file", "decrypt"},
        {BYTES("\x10\0\0\0\0\0\0\0{\"a\":{}}"), "a safetensors file", "--segmenter"},
        {BYTES("\x80\2}q\0."), "a pickle", "--detector"},
        {BYTES("\x08\x08\x12\x07pytorch"), "an ONNX network", "--detector"},
        {BYTES("\x18\0\0\0TFL3\0\0"), "a TensorFlow Lite", "--detector"},
        {BYTES("\x89HDF\r\n\x1a\n\0"), "an HDF5 file", "--detector"},
        {BYTES("%PDF-1.7\n"), "a PDF", "PNG"},
        {BYTES("RIFF\x10\0\0\0WEBPVP8 "), "a WebP image", "convert"},
        {BYTES("\0\0\0\x18"
               "ftypheic"),
         "a HEIC image", "convert"},
        {BYTES("\x7f"
               "ELF\2\1"),
         "a program", "give an image"},
        {BYTES("\xde\xad\xbe\xef\x01\x02\x03"), "a file of unknown content", "encrypted"},
        {BYTES("\x08\0\5\0CS\12\0ISO_IR 100"), "a DICOM file", "Python package"},
        {BYTES("\2\0\0\0UL\4\0\xc0\0\0\0"), "a DICOM file", "Python package"},
        {BYTES("\x08\0\x08\0\x08\0\0\0ORIGINAL"), "a DICOM file", "Python package"},
        {BYTES("\xff\xd8\xff\xf7\0\x0b\x08"), "a JPEG-LS image", "convert"},
        {BYTES("\0\0\0\x18"
               "ftypmsf1"),
         "a HEIC image", "convert"},
        {BYTES("\0\0\0\x18"
               "ftypavis"),
         "an AVIF image", "convert"},
        {(const char *)dicom, sizeof dicom, "a DICOM file", "pip install ./python[dicom]"},
        {(const char *)scanner, sizeof scanner, "a DICOM file", "pip install ./python[dicom]"},
        {(const char *)tar, sizeof tar, "a tar archive", "unpack"},
        {(const char *)nifti, sizeof nifti, "a NIfTI volume", "slices"},
        {(const char *)stream, sizeof stream, "a file of unknown content", "again"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        um_frame *f = NULL;
        spit(in_scratch("x.png"), cases[i].data, cases[i].n);
        CHECK_EQ(um_image_read(in_scratch("x.png"), &f), UM_EFORMAT);
        const char *text = um_last_error(), *what = strstr(text, "x.png: ");
        CHECK_MSG(what && strncmp(what + 7, cases[i].what, strlen(cases[i].what)) == 0 &&
                      strstr(text, ", not an image (PNG, JPEG") && strstr(text, cases[i].advice),
                  "%s, want %s", text, cases[i].what);
    }
    scratch_close();
}

/* What is whole and not read is not called damaged. */
TEST(images_beyond_what_is_read_say_so)
{
    static const struct {
        int at; /* behind the marker of the frame's header */
        uint8_t value;
        const char *said;
    } cases[] = {{1, 0xc3, "JPEG that is not read (Unsupported JPEG process"},
                 {4, 12, "JPEG that is not read (Unsupported JPEG data precision 12"}};
    static uint8_t data[8192], row[UM_FRAME_MAX_SIDE + 1];
    um_frame *f = NULL;
    size_t n = slurp(golden("image", "turned6.jpg"), data, sizeof data), at = 0;
    while (at + 1 < n && !(data[at] == 0xff && data[at + 1] == 0xc0))
        at++;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *changed = data + at + cases[i].at, was = *changed;
        *changed = cases[i].value;
        spit(in_scratch("x.jpg"), data, n);
        *changed = was;
        CHECK_EQ(um_image_read(in_scratch("x.jpg"), &f), UM_EFORMAT);
        CHECK_MSG(strstr(um_last_error(), cases[i].said) && strstr(um_last_error(), "to PNG"), "%s",
                  um_last_error());
    }
    CHECK_OK(um_image_write_png(in_scratch("wide.png"), row, sizeof row, 1, 1));
    CHECK_EQ(um_image_read(in_scratch("wide.png"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "16385x1 pixels: sides must be 1 to 16384"), "%s",
              um_last_error());
    scratch_close();
}

/* ---- videos ---- */

static const double TIMES[] = {0, .04, .1, .14, .2, .28};

static void check_video(const char *name, int channels, int width, int tolerance)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    char want_name[64];
    CHECK_OK(um_source_open(&s, golden("video", name), NULL));
    for (int i = 0; i < 6; i++) {
        CHECK_OK(um_source_read(s, &f));
        snprintf(want_name, sizeof want_name, "%.*s_%05d", (int)(strchr(name, '.') - name), name,
                 i);
        CHECK_STR(um_source_frame_name(s), want_name);
        CHECK_STR(f->source, name);
        CHECK(f->has_ts && f->channels == channels && f->width == width);
        CHECK_NEAR(f->ts, TIMES[i], 1e-6);
        int x = width == 48 ? 20 : 5, y = width == 48 ? 9 : 20; /* turned: columns run down */
        CHECK_NEAR(f->pixels[y * f->stride + x * channels], 40 * i + 20, tolerance);
        um_frame_unref(&f);
    }
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
}

TEST(videos_give_frames_and_times)
{
    if (!reads("videos")) {
        um_frame *f = NULL;
        CHECK_EQ(um_image_read(golden("video", "exact.mkv"), &f), UM_EUNSUPPORTED);
        CHECK_MSG(strstr(um_last_error(), "install libavformat-dev"), "%s", um_last_error());
        SKIP("built without libav");
    }
    check_video("exact.mkv", 1, 48, 0);
    check_video("intra.mp4", 3, 48, 6);
    check_video("intra.avi", 3, 48, 6);
    check_video("turned.mp4", 3, 32, 6);
    um_frame *f = read_first(golden("video", "wide.mkv"), UM_WINDOW_RANGE, 0, 4080);
    CHECK(f && f->channels == 1 && f->pixels[0] == 0 && f->pixels[47] == 47);
    um_frame_unref(&f);
    CHECK_STR(told, "");
    f = read_first(golden("video", "wide.mkv"), UM_WINDOW_NONE, 0, 0);
    CHECK(f && f->pixels[47] == 3);
    um_frame_unref(&f);
    CHECK_MSG(strstr(told, "none is over 752 of 65535"), "%s", told);
    CHECK_OK(um_image_read(golden("video", "exact.mkv"), &f));
    CHECK(f->width == 48 && f->pixels[1] == 1);
    um_frame_unref(&f);
    CHECK_EQ(um_image_read(golden("video", "sound.mp4"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "sound.mp4: a file of sound or data"), "%s", um_last_error());
}

/* Frames in order, then one error, then the end; wherever it is cut. */
/* In an MP4, the matrix stands behind the track's header, "tkhd". */
TEST(videos_are_turned_as_their_matrix_says)
{
    static const int8_t matrix[8][4] = {{1, 0, 0, 1}, {-1, 0, 0, 1}, {-1, 0, 0, -1}, {1, 0, 0, -1},
                                        {0, 1, 1, 0}, {0, 1, -1, 0}, {0, -1, -1, 0}, {0, -1, 1, 0}};
    static uint8_t data[8192];
    enum { BEHIND = 4 + 40, ROW = 12 };
    if (!reads("videos"))
        SKIP("built without libav");
    size_t n = slurp(golden("video", "intra.mp4"), data, sizeof data), at = 0;
    while (at + 4 < n && memcmp(data + at, "tkhd", 4) != 0)
        at++;
    for (int i = 0; i < 8; i++) {
        char want[64] = "";
        for (int k = 0; k < 4; k++) {
            uint8_t *to = data + at + BEHIND + (k / 2) * ROW + (k % 2) * 4;
            to[0] = matrix[i][k] < 0 ? 0xff : 0; /* 16.16 */
            to[1] = (uint8_t)matrix[i][k];
        }
        spit(in_scratch("matrix.mp4"), data, n);
        um_frame *f = read_first(in_scratch("matrix.mp4"), UM_WINDOW_NONE, 0, 0);
        snprintf(want, sizeof want, "matrix.mp4: turned by its orientation (%d)", i + 1);
        CHECK_MSG(i ? strncmp(told, want, strlen(want)) == 0 : !told[0], "%s", told);
        CHECK(f && f->width == (i < 4 ? 48 : 32));
        um_frame_unref(&f);
    }
}

TEST(a_cut_video_gives_its_frames_and_one_error)
{
    static const char *const names[] = {"exact.mkv", "intra.mp4", "intra.avi"};
    static uint8_t data[65536];
    if (!reads("videos"))
        SKIP("built without libav");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = slurp(golden("video", names[i]), data, sizeof data);
        int most = 0;
        for (size_t cut = n / 20; cut < n * 19 / 20; cut += n / 20) {
            um_source *s = NULL;
            um_frame *f = NULL;
            spit(in_scratch(names[i]), data, cut);
            CHECK_OK(um_source_open(&s, in_scratch(names[i]), NULL));
            int frames = 0, errors = 0;
            for (um_status st; (st = um_source_read(s, &f)) != UM_EOF;) {
                CHECK_MSG(st == UM_OK ? !errors : st == UM_EFORMAT, "%s", um_last_error());
                if (st == UM_OK)
                    CHECK_NEAR(f->ts, TIMES[frames], 1e-6);
                if (st != UM_OK)
                    snprintf(last_problem, sizeof last_problem, "%s", um_last_error());
                frames += st == UM_OK;
                errors += st != UM_OK;
                um_frame_unref(&f);
            }
            um_source_close(&s);
            CHECK_MSG(errors == 1 && strstr(last_problem, names[i]),
                      "%s cut to %zu of %zu: %d frames, %d errors: %s", names[i], cut, n, frames,
                      errors, last_problem);
            most = frames > most ? frames : most;
        }
        CHECK_MSG(most >= 3, "%s: at most %d frames", names[i], most);
    }
    scratch_close();
}

/* Its packets have no durations, so its last one ends a second before the file does. */
TEST(a_slow_wmv_is_whole_as_far_as_its_size_says)
{
    static uint8_t data[1 << 14];
    if (!reads("videos"))
        SKIP("built without libav");
    size_t n = slurp(golden("video", "slow.wmv"), data, sizeof data);
    const char *text = read_all(golden("video", "slow.wmv"), NULL);
    CHECK_MSG(strstr(text, "slow_00002=") && !strchr(text, '!'), "%s", text);
    spit(in_scratch("cut.wmv"), data, n - 1);
    CHECK(strchr(read_all(in_scratch("cut.wmv"), NULL), '!'));
    CHECK_MSG(strstr(last_problem, "the video breaks off after frame 3"), "%s", last_problem);
}

/* One behind the other, as `cat` puts the parts of a transmission: libav says of a packet where
 * they meet that it is not whole. */
TEST(parts_of_a_transmission_are_one_video)
{
    static uint8_t data[1 << 14];
    if (!reads("videos"))
        SKIP("built without libav");
    size_t n = slurp(golden("video", "parts.ts"), data, sizeof data / 2);
    memcpy(data + n, data, n);
    spit(in_scratch("both.ts"), data, 2 * n);
    const char *text = read_all(in_scratch("both.ts"), NULL);
    CHECK_MSG(strstr(text, "both_00011=") && !strchr(text, '!'), "%s, %s", text, last_problem);
}

TEST(a_damaged_video_ends)
{
    static uint8_t data[65536];
    if (!reads("videos"))
        SKIP("built without libav");
    size_t n = slurp(golden("video", "exact.mkv"), data, sizeof data);
    for (size_t at = 0; at < n; at += 3) {
        data[at] ^= 0xff;
        spit(in_scratch("bad.mkv"), data, n);
        data[at] ^= 0xff;
        const char *text = read_all(in_scratch("bad.mkv"), NULL);
        CHECK_MSG(text[0], "byte %zu: no frame and no error", at);
    }
    scratch_close();
}

/* ---- images into videos ---- */

static um_status put(um_sink *s, int id, int width, int height, double ts, bool stamped)
{
    um_frame *f = NULL;
    um_packet fields = {.struct_size = sizeof fields,
                        .frame_id = (uint64_t)id,
                        .state = UM_STATE_VISIBLE,
                        .width = width,
                        .height = height,
                        .crop = {0, 0, width, height}},
              *p = NULL;
    if (um_frame_create(&f, width, height, 1) != UM_OK ||
        um_packet_create(&p, &fields, NULL, 0) != UM_OK)
        abort();
    memset(f->pixels, 20 + 30 * id, (size_t)(width * height));
    f->ts = ts;
    f->has_ts = stamped;
    um_status st = um_sink_write(s, p, f, NULL);
    const um_packet *done = p;
    um_packet_unref(&done);
    um_frame_unref(&f);
    return st;
}

TEST(a_video_keeps_the_times_of_its_frames)
{
    char spec[96];
    um_sink *s = NULL, *t = NULL;
    snprintf(spec, sizeof spec, "video:%s", in_scratch("o.mp4"));
    if (!reads("videos")) {
        CHECK_EQ(um_sink_open(&s, spec, NULL), UM_EUNSUPPORTED);
        SKIP("built without libav");
    }
    for (int stamped = 0; stamped < 2; stamped++) {
        um_source *in = NULL;
        um_frame *f = NULL;
        CHECK_OK(um_sink_open(&s, spec, NULL));
        CHECK_EQ(um_sink_open(&t, spec, NULL), UM_EIO);
        CHECK_MSG(strstr(um_last_error(), "another one writes"), "%s", um_last_error());
        for (int i = 0; i < 6; i++)
            CHECK_OK(put(s, i, 97, 65, 5 + TIMES[i], stamped));
        CHECK_EQ(put(s, 6, 96, 65, 6, stamped), UM_EIO);
        CHECK_MSG(strstr(um_last_error(), "frame 6 is 96x65, the video is 97x65"), "%s",
                  um_last_error());
        CHECK_OK(um_sink_close(&s));
        CHECK_OK(um_source_open(&in, in_scratch("o.mp4"), NULL));
        for (int i = 0; i < 6; i++) {
            CHECK_OK(um_source_read(in, &f));
            CHECK(f->width == 98 && f->height == 66); /* codecs want even sides */
            CHECK_NEAR(f->ts, stamped ? TIMES[i] : i / 25.0, 1e-4);
            for (int c = 0; c < 3; c++)
                CHECK_NEAR(f->pixels[50 * f->stride + 3 * 60 + c], 20 + 30 * i, 6);
            um_frame_unref(&f);
        }
        CHECK_EQ(um_source_read(in, &f), UM_EOF);
        um_source_close(&in);
    }
    /* a pause before the last frame is no promise of another one, nor are frames in quick order */
    for (int k = 0; k < 4; k++) {
        const char *path = in_scratch(k % 2 ? "pause.mkv" : "pause.mp4");
        char pause[sizeof spec], read[1200];
        snprintf(pause, sizeof pause, "video:%s", path);
        CHECK_OK(um_sink_open(&s, pause, NULL));
        for (int i = 0; i < (k > 1 ? 30 : 4); i++)
            CHECK_OK(put(s, i, 64, 64, k > 1 ? i / 60.0 : i < 3 ? i / 25.0 : 200, true));
        CHECK_OK(um_sink_close(&s));
        snprintf(read, sizeof read, "%s", read_all(pause + strlen("video:"), NULL));
        CHECK_MSG(!strchr(read, '!'), "%s", last_problem);
    }
    /* its index stands in front: cut, it still shows what is there */
    static uint8_t data[1 << 20];
    size_t n = slurp(in_scratch("o.mp4"), data, sizeof data);
    spit(in_scratch("cut.mp4"), data, n - 20);
    const char *text = read_all(in_scratch("cut.mp4"), NULL), *error = strchr(text, '!');
    CHECK_MSG(strstr(text, "cut_00001=") && error && !strchr(error, ' '), "%s", text);
    CHECK_MSG(strstr(last_problem, "the video breaks off after frame ") &&
                  strstr(last_problem, " of 6, at "),
              "%s", last_problem);
    /* time that goes back, as in a loop, or leaps, as when a clock is set, goes on */
    um_source *in = NULL;
    um_frame *f = NULL;
    static const double looped[] = {3, 3.1, 3.2, 3, 3.1, 1.7e9, 1.7e9 + .2},
                        then[] = {0, .1, .2, .3, .4, .5, .7};
    enum { TIMED = sizeof looped / sizeof *looped };
    CHECK_OK(um_sink_open(&s, spec, NULL));
    for (int i = 0; i < TIMED; i++)
        CHECK_OK(put(s, i, 64, 64, looped[i], true));
    CHECK_OK(um_sink_close(&s));
    CHECK_OK(um_source_open(&in, in_scratch("o.mp4"), NULL));
    for (int i = 0; i < TIMED; i++) {
        CHECK_OK(um_source_read(in, &f));
        CHECK_NEAR(f->ts, then[i], 1e-4);
        um_frame_unref(&f);
    }
    um_source_close(&in);
    scratch_close();
}

/* No file may pass 1000 bytes: an error that says so, and no video. */
static int video_into_a_limit(void *spec)
{
    struct rlimit limit = {1000, 1000};
    um_sink *s = NULL;
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || um_sink_open(&s, spec, NULL) != UM_OK)
        return 1;
    um_status st = UM_OK, closed;
    for (int i = 0; st == UM_OK && i < 6; i++)
        st = put(s, i, 320, 240, 0, false);
    closed = um_sink_close(&s);
    if (st == UM_OK ? closed != UM_EIO : st != UM_EIO)
        return 2;
    if (!strstr(um_last_error(), ": File too large"))
        return 3;
    return access((char *)spec + strlen("video:"), F_OK) == 0 ? 4 : 0;
}

TEST(a_video_is_whole_or_not_there)
{
    char spec[96];
    if (!reads("videos"))
        SKIP("built without libav");
    snprintf(spec, sizeof spec, "video:%s", in_scratch("o.mp4"));
    CHECK_EQ(child_run(video_into_a_limit, spec), 0);
    scratch_close();
}

TEST(a_video_that_cannot_be_written_is_named)
{
    um_sink *s = NULL;
    char spec[96];
    if (!reads("videos"))
        SKIP("built without libav");
    CHECK_EQ(um_sink_open(&s, "video:", NULL), UM_EINVAL);
    CHECK_EQ(um_sink_open(&s, "video:o.png", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "must end in .mp4"), "%s", um_last_error());
    CHECK_EQ(um_sink_open(&s, "video:/no/such/folder/o.mp4", NULL), UM_EIO);
    CHECK(strstr(um_last_error(), "/no/such/folder/o.mp4"));
    snprintf(spec, sizeof spec, "video:%s", in_scratch("f.mp4"));
    CHECK_EQ(mkfifo(in_scratch("f.mp4"), 0600), 0);
    CHECK_EQ(um_sink_open(&s, spec, NULL), UM_EIO);
    CHECK_EQ(access(in_scratch("f.mp4"), F_OK), 0);
    snprintf(spec, sizeof spec, "video:%s", in_scratch("o.mp4"));
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(um_sink_close(&s));
    CHECK(access(in_scratch("o.mp4"), F_OK) != 0); /* nothing came */
    /* nor now: what is there stays, until there is another video */
    uint8_t data[8] = {0};
    spit(in_scratch("o.mp4"), (const uint8_t *)"older", 5);
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(um_sink_close(&s));
    CHECK_EQ(slurp(in_scratch("o.mp4"), data, sizeof data), 5);
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(put(s, 0, 64, 64, 0, false));
    CHECK_EQ(slurp(in_scratch("o.mp4"), data, sizeof data), 5);
    CHECK_OK(um_sink_close(&s));
    um_source *in = NULL;
    CHECK_OK(um_source_open(&in, in_scratch("o.mp4"), NULL));
    um_source_close(&in);
    scratch_close();
}

TEST_MAIN
