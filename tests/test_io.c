/* SPDX-License-Identifier: Apache-2.0 */
/* Frames, images, sources and sinks. */
#include "base/mem.h"
#include "base/status.h"
#include "child.h"
#include "drawn.h"
#include "scratch.h"
#include "test.h"
#include "ultramotion/ultramotion.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zlib.h>

/* ---- a folder of its own for every test ---- */

static char tmp[64];

static const char *in_tmp(const char *name)
{
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", tmp, name);
    return path[turn];
}

static void tmp_open(void)
{
    strcpy(tmp, "/tmp/um_test_XXXXXX");
    if (!mkdtemp(tmp))
        abort();
}

static void remove_all(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char inner[512];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (unlink(inner) != 0)
            remove_all(inner);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static void tmp_close(void)
{
    remove_all(tmp);
}

static const char *golden(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/image/%s", UM_GOLDEN_DIR, name);
    return path;
}

static void put_png(const char *name, uint8_t value)
{
    uint8_t pixels[4] = {value, value, value, value};
    if (um_image_write_png(in_tmp(name), pixels, 2, 2, 1) != UM_OK)
        abort();
}

/* The image that tests/gen/images.py draws. */
/* ---- frames ---- */

TEST(frame_limits)
{
    um_frame *f = (um_frame *)1;
    CHECK_EQ(um_frame_create(&f, 0, 5, 1), UM_EINVAL);
    CHECK(f == NULL);
    CHECK_EQ(um_frame_create(&f, 5, -1, 1), UM_EINVAL);
    CHECK_EQ(um_frame_create(&f, 5, 5, 2), UM_EINVAL);
    CHECK_EQ(um_frame_create(&f, UM_FRAME_MAX_SIDE + 1, 1, 1), UM_EINVAL);
    CHECK_EQ(um_frame_create(&f, UM_FRAME_MAX_SIDE, UM_FRAME_MAX_SIDE, 1), UM_EINVAL);
    CHECK(strstr(um_last_error(), "16384x16384"));
    um_mem_fail_at(1);
    CHECK_EQ(um_frame_create(&f, 5, 5, 1), UM_ENOMEM);
    um_mem_fail_at(0);
    CHECK(f == NULL);
    CHECK_OK(um_frame_create(&f, 5, 7, 3));
    CHECK_EQ(f->stride, 15);
    memset(f->pixels, 1, 7 * 15);
    um_frame_unref(&f);
    uint8_t pixels[64] = {0};
    static const ptrdiff_t apart[] = {7, -7, PTRDIFF_MAX, PTRDIFF_MIN};
    for (int i = 0; i < 4; i++)
        CHECK_EQ(um_frame_wrap(&f, 8, 8, 1, pixels, apart[i], NULL, NULL), UM_EINVAL);
    CHECK_OK(um_frame_wrap(&f, 8, 8, 1, pixels + 56, -8, NULL, NULL));
    um_frame_unref(&f);
}

static void *churn(void *frame)
{
    for (int i = 0; i < 10000; i++) {
        um_frame *f = um_frame_ref(frame);
        um_frame_unref(&f);
    }
    return NULL;
}

TEST(frame_references)
{
    um_frame *f = NULL, *g = NULL;
    CHECK_OK(um_frame_create(&f, 4, 4, 1));
    pthread_t a, b;
    pthread_create(&a, NULL, churn, f);
    pthread_create(&b, NULL, churn, f);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    g = um_frame_ref(f);
    um_frame_unref(&f);
    CHECK(f == NULL);
    g->pixels[15] = 1; /* still there: a sanitizer would see it if not */
    um_frame_unref(&g);
    um_frame_unref(&g);
    um_frame_unref(NULL);
}

/* ---- images ---- */

static void check_image(const char *name, int channels, int tolerance)
{
    um_frame *f = NULL;
    CHECK_OK(um_image_read(golden(name), &f));
    check_frame(f, name, channels, tolerance);
    um_frame_unref(&f);
}

TEST(png_of_every_kind)
{
    check_image("gray8.png", 1, 0);
    check_image("gray8_interlaced.png", 1, 0);
    check_image("gray16.png", 1, 0);
    check_image("gray_alpha.png", 1, 0);
    check_image("gray_transparent.png", 1, 0);
    check_image("rgb8.png", 3, 0);
    check_image("rgb16.png", 3, 0);
    check_image("rgba8_interlaced.png", 3, 0);
    check_image("palette.png", 3, 0);
}

TEST(png_of_few_bits)
{
    um_frame *f = NULL;
    CHECK_OK(um_image_read(golden("gray4.png"), &f));
    CHECK_EQ(f->channels, 1);
    CHECK_EQ(f->pixels[5], 5 * 17);
    um_frame_unref(&f);
    CHECK_OK(um_image_read(golden("gray1.png"), &f));
    CHECK_EQ(f->pixels[0], 0);
    CHECK_EQ(f->pixels[1], 255);
    um_frame_unref(&f);
}

TEST(jpeg_of_every_kind)
{
    check_image("gray.jpg", 1, 4);
    check_image("rgb.jpg", 3, 8);
    check_image("rgb_progressive.jpg", 3, 8);
    check_image("cmyk.jpg", 3, 8);
}

/* No prefix of an image is an image. */
TEST(cut_off_images_are_errors)
{
    static const char *const names[] = {"gray8.png",   "rgba8_interlaced.png",
                                        "palette.png", "gray.jpg",
                                        "rgb.jpg",     "rgb_progressive.jpg"};
    static uint8_t data[65536];
    tmp_open();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = slurp(golden(names[i]), data, sizeof data);
        CHECK(n > 50);
        for (size_t cut = 0; cut < n; cut++) {
            um_frame *f = NULL;
            spit(in_tmp("cut"), data, cut);
            um_status st = um_image_read(in_tmp("cut"), &f);
            CHECK_MSG(st == UM_EFORMAT && !f, "%s cut to %zu of %zu bytes: %s", names[i], cut, n,
                      um_status_name(st));
            CHECK_MSG(strstr(um_last_error(), "/cut: "), "%s", um_last_error());
        }
    }
    tmp_close();
}

TEST(damaged_images_do_no_harm)
{
    static const char *const names[] = {"palette.png", "gray8_interlaced.png",
                                        "rgb_progressive.jpg", "cmyk.jpg"};
    static uint8_t data[65536];
    tmp_open();
    int errors = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = slurp(golden(names[i]), data, sizeof data);
        for (size_t at = 0; at < n; at++) {
            um_frame *f = NULL;
            data[at] ^= (uint8_t)(1u << at % 8);
            spit(in_tmp("bad"), data, n);
            data[at] ^= (uint8_t)(1u << at % 8);
            um_status st = um_image_read(in_tmp("bad"), &f);
            errors += st == UM_EFORMAT;
            CHECK_MSG(st == UM_EFORMAT || st == UM_OK, "%s, byte %zu: %s", names[i], at,
                      um_last_error());
            CHECK((st == UM_OK) == (f != NULL));
            um_frame_unref(&f);
        }
    }
    CHECK(errors > 100);
    tmp_close();
}

TEST(hostile_sizes_are_refused_before_allocation)
{
    static uint8_t data[65536];
    tmp_open();
    um_frame *f = NULL;
    size_t n = slurp(golden("gray.jpg"), data, sizeof data);
    for (size_t i = 2; i + 9 < n; i++)
        if (data[i] == 0xff && data[i + 1] == 0xc0) {
            data[i + 5] = data[i + 6] = data[i + 7] = data[i + 8] = 0xff; /* 65535x65535 */
            break;
        }
    spit(in_tmp("big.jpg"), data, n);
    uint64_t before = um_mem_count();
    CHECK_EQ(um_image_read(in_tmp("big.jpg"), &f), UM_EFORMAT);
    CHECK(um_mem_count() - before <= 1); /* the reader itself */
    n = slurp(golden("gray8.png"), data, sizeof data);
    data[16] = 0x7f; /* width; its checksum is wrong now too */
    spit(in_tmp("big.png"), data, n);
    CHECK_EQ(um_image_read(in_tmp("big.png"), &f), UM_EFORMAT);
    tmp_close();
}

/* Each scan of a progressive file costs a pass over all blocks, and a few bytes. */
TEST(a_jpeg_of_too_many_scans_is_refused)
{
    static uint8_t data[65536], many[1 << 20];
    tmp_open();
    size_t n = slurp(golden("rgb_progressive.jpg"), data, sizeof data), from = 2;
    while (from + 1 < n && !(data[from] == 0xff && data[from + 1] == 0xda))
        from++;
    size_t to = from + 2 + data[from + 3]; /* where the scan's code starts */
    data[to - 1] &= 0xf0;                  /* all bits at once: nothing is left to refine */
    while (to + 1 < n && !(data[to] == 0xff && data[to + 1] != 0))
        to++;
    CHECK(from > 100 && to + 2 < n);
    for (int scans = 500; scans <= 501; scans++) {
        um_frame *f = NULL;
        size_t at = from;
        memcpy(many, data, from);
        for (int i = 0; i < scans; i++, at += to - from)
            memcpy(many + at, data + from, to - from);
        memcpy(many + at, "\xff\xd9", 2);
        spit(in_tmp("scans.jpg"), many, at + 2);
        um_status st = um_image_read(in_tmp("scans.jpg"), &f);
        CHECK_MSG(st == (scans == 500 ? UM_OK : UM_EFORMAT), "%d: %s", scans, um_last_error());
        um_frame_unref(&f);
    }
    CHECK(strstr(um_last_error(), "scans.jpg: bad JPEG: more than 500 scans"));
    tmp_close();
}

TEST(image_errors_name_the_file)
{
    tmp_open();
    um_frame *f = NULL;
    CHECK_EQ(um_image_read(in_tmp("none.png"), &f), UM_EIO);
    CHECK(strstr(um_last_error(), "none.png"));
    CHECK_EQ(um_image_read(tmp, &f), UM_EIO);
    spit(in_tmp("text.png"), "hello, I am text", 16);
    CHECK_EQ(um_image_read(in_tmp("text.png"), &f), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "text.png") &&
          strstr(um_last_error(), "a text, not an image (PNG, "));
    const uint8_t pixel = 0;
    CHECK_EQ(um_image_write_png(in_tmp("no/such/folder.png"), &pixel, 1, 1, 1), UM_EIO);
    CHECK(strstr(um_last_error(), "folder.png"));
    if (access("/dev/full", W_OK) == 0)
        CHECK_EQ(um_image_write_png("/dev/full", &pixel, 1, 1, 1), UM_EIO);
    tmp_close();
}

/* Opening one would wait for a writer, and reading it for data. */
TEST(an_image_is_a_regular_file)
{
    tmp_open();
    um_frame *f = NULL;
    CHECK_EQ(mkfifo(in_tmp("fifo.png"), 0666), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.60s/socket.png", tmp);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQ(bind(s, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(um_image_read(in_tmp("fifo.png"), &f), UM_EIO);
    CHECK(strstr(um_last_error(), "/fifo.png: not a regular file"));
    CHECK_EQ(um_image_read("/dev/zero", &f), UM_EIO);
    CHECK_STR(um_last_error(), "/dev/zero: not a regular file");
    CHECK_EQ(um_image_read(tmp, &f), UM_EIO);
    CHECK(strstr(um_last_error(), ": not a regular file but a folder"));
    CHECK_EQ(um_image_read(in_tmp("socket.png"), &f), UM_EIO);
    CHECK(!f);
    close(s);
    put_png("a.png", 3);
    um_source *source = NULL; /* in a folder it costs one frame id and the run goes on */
    CHECK_OK(um_source_open(&source, tmp, NULL));
    CHECK_OK(um_source_read(source, &f));
    um_frame_unref(&f);
    CHECK_EQ(um_source_read(source, &f), UM_EIO);
    CHECK_EQ(um_source_read(source, &f), UM_EIO);
    CHECK_EQ(um_source_read(source, &f), UM_EOF);
    um_source_close(&source);
    tmp_close();
}

static int files_in_tmp(void)
{
    int n = 0;
    DIR *d = opendir(tmp);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

static uint8_t noise[64 * 64];

/* No file may pass 1000 bytes: neither an image nor a truth is left, an image that was there is
 * as it was. */
static int write_into_a_limit(void *ctx)
{
    (void)ctx;
    struct rlimit limit = {1000, 1000};
    um_frame *f = NULL;
    signal(SIGXFSZ, SIG_IGN);
    if (um_image_write_png(in_tmp("old.png"), noise, 8, 8, 1) != UM_OK ||
        setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    if (um_image_write_png(in_tmp("new.png"), noise, 64, 64, 1) != UM_EIO ||
        !strstr(um_last_error(), "new.png: cannot be written: File too large"))
        return 2;
    if (um_image_write_png(in_tmp("old.png"), noise, 64, 64, 1) != UM_EIO ||
        um_image_read(in_tmp("old.png"), &f) != UM_OK || f->width != 8)
        return 3;
    um_frame_unref(&f);
    return files_in_tmp() == 1 ? 0 : 4;
}

TEST(an_image_is_whole_or_not_there)
{
    tmp_open();
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * i * 31 >> 3);
    CHECK_EQ(child_run(write_into_a_limit, NULL), 0);
    CHECK_EQ(um_image_write_png(tmp, noise, 8, 8, 1), UM_EIO);
    CHECK(strstr(um_last_error(), "not a regular file but a folder"));
    CHECK_EQ(mkfifo(in_tmp("fifo"), 0666), 0);
    CHECK_EQ(um_image_write_png(in_tmp("fifo"), noise, 8, 8, 1), UM_EIO);
    CHECK_EQ(um_image_write_png(in_tmp(""), noise, 8, 8, 1), UM_EIO);
    CHECK_EQ(chmod(in_tmp("old.png"), 0600), 0);
    CHECK_OK(um_image_write_png(in_tmp("old.png"), noise, 8, 8, 1));
    struct stat s;
    CHECK(stat(in_tmp("old.png"), &s) == 0 && (s.st_mode & 0777) == 0600);
    for (int k = 1; k <= 2; k++) {
        FORGET_ERROR();
        um_mem_fail_at((uint64_t)k);
        CHECK_EQ(um_image_write_png(in_tmp("new.png"), noise, 8, 8, 1), UM_ENOMEM);
        um_mem_fail_at(0);
        CHECK(strstr(um_last_error(), "out of memory: name of "));
    }
    CHECK_EQ(files_in_tmp(), 2);
    tmp_close();
}

static int truth_into_a_limit(void *ctx)
{
    (void)ctx;
    struct rlimit limit = {20000, 20000}; /* images of 64x64 fit, the truth of 100 does not */
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    if (um_phantom_write(tmp, NULL, 1, 100, 64, 64, NULL, NULL) != UM_EIO ||
        !strstr(um_last_error(), "truth.json: cannot be written: File too large"))
        return 2;
    return files_in_tmp() == 2 ? 0 : 3; /* the folders frames and masks */
}

TEST(a_truth_is_whole_or_not_there)
{
    tmp_open();
    CHECK_EQ(child_run(truth_into_a_limit, NULL), 0);
    tmp_close();
}

static size_t put_chunk(uint8_t *to, const char *kind, const uint8_t *data, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(n >> (24 - 8 * i));
    memcpy(to + 4, kind, 4);
    if (n)
        memcpy(to + 8, data, n);
    uint32_t crc = (uint32_t)crc32(0, to + 4, n + 4);
    for (int i = 0; i < 4; i++)
        to[8 + n + (uint32_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    return 12 + n;
}

/* A PNG of w x h gray pixels, all 'A', with `texts` compressed texts of 4 MB each in front of them;
 * without texts only the first row is there. */
static size_t plain_png(uint8_t *to, uint32_t w, uint32_t h, int texts)
{
    static uint8_t text[4 << 20], packed[8192];
    uint8_t head[13] = {0,          0, (uint8_t)(w >> 8), (uint8_t)w, 0, 0, (uint8_t)(h >> 8),
                        (uint8_t)h, 8};
    memset(text, 'A', sizeof text);
    memcpy(to, "\x89PNG\r\n\x1a\n", 8);
    size_t n = 8 + put_chunk(to + 8, "IHDR", head, sizeof head);
    uLongf size = sizeof packed - 3;
    memcpy(packed, "t\0", 3);
    if (compress2(packed + 3, &size, text, sizeof text, 9) != Z_OK)
        abort();
    for (int i = 0; i < texts; i++)
        n += put_chunk(to + n, "zTXt", packed, (uint32_t)size + 3);
    for (uint32_t y = 0; y < h; y++)
        if (texts || y == 0)
            text[y * (w + 1)] = 0; /* no filter */
    size = sizeof packed;
    if (compress2(packed, &size, text, (w + 1) * (texts ? h : 1), 9) != Z_OK)
        abort();
    n += put_chunk(to + n, "IDAT", packed, (uint32_t)size);
    return n + put_chunk(to + n, "IEND", NULL, 0);
}

static int read_bomb(void *path)
{
    long before = child_peak_kb();
    um_frame *f = NULL;
    um_status st = um_image_read(path, &f);
    um_frame_unref(&f);
    return !CHILD_SANITIZED && child_peak_kb() - before > 16 << 10 ? 2 : st != UM_OK;
}

TEST(images_take_memory_by_the_size_of_their_file)
{
    static uint8_t data[1 << 20];
    tmp_open();
    um_frame *f = NULL;
    spit(in_tmp("texts.png"), data, plain_png(data, 100, 100, 200)); /* 800 MB of text */
    CHECK_EQ(child_run(read_bomb, (void *)in_tmp("texts.png")), 0);
    spit(in_tmp("big.png"), data, plain_png(data, 8000, 8000, 0));
    uint64_t before = um_mem_count();
    CHECK_EQ(um_image_read(in_tmp("big.png"), &f), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "big.png: PNG of 8000x8000 pixels cannot come from"));
    CHECK_EQ(um_mem_count(), before);
    size_t n = slurp(golden("gray.jpg"), data, sizeof data);
    for (size_t i = 2; i + 9 < n; i++)
        if (data[i] == 0xff && data[i + 1] == 0xc0) {
            data[i + 5] = data[i + 7] = 0x1f; /* about 8000x8000 */
            break;
        }
    spit(in_tmp("big.jpg"), data, n);
    CHECK_EQ(um_image_read(in_tmp("big.jpg"), &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "pixels cannot come from"), "%s", um_last_error());
    tmp_close();
}

TEST(png_round_trip)
{
    tmp_open();
    uint8_t rgb[5 * 4 * 3];
    for (int i = 0; i < 60; i++)
        rgb[i] = (uint8_t)(i * 37);
    for (int channels = 1; channels <= 3; channels += 2) {
        um_frame *f = NULL;
        CHECK_OK(um_image_write_png(in_tmp("a.png"), rgb, 5, 4, channels));
        CHECK_OK(um_image_read(in_tmp("a.png"), &f));
        CHECK(f->width == 5 && f->height == 4 && f->channels == channels);
        CHECK(memcmp(f->pixels, rgb, (size_t)(20 * channels)) == 0);
        um_frame_unref(&f);
    }
    tmp_close();
}

TEST(image_reading_survives_failed_allocations)
{
    static const char *const names[] = {"gray8.png", "cmyk.jpg"};
    for (int i = 0; i < 2; i++) {
        um_status st = UM_ENOMEM;
        for (uint64_t k = 1; st != UM_OK && k < 20; k++) {
            um_frame *f = NULL;
            FORGET_ERROR();
            um_mem_fail_at(k);
            st = um_image_read(golden(names[i]), &f);
            um_mem_fail_at(0);
            CHECK_MEMORY(st);
            CHECK_MSG(st == UM_OK || (st == UM_ENOMEM && !f), "%s", um_last_error());
            um_frame_unref(&f);
        }
        CHECK_EQ(st, UM_OK);
    }
}

/* ---- sources ---- */

TEST(folder_in_natural_order)
{
    tmp_open();
    put_png("f_10.png", 10);
    put_png("f_9.PNG", 9);
    put_png("f_1.Jpeg", 1); /* content decides, not the name */
    put_png("g.jpg", 200);
    spit(in_tmp("notes.txt"), "x", 1);
    spit(in_tmp(".hidden.png"), "x", 1);
    mkdir(in_tmp("sub"), 0777);
    um_source *s = NULL;
    CHECK_OK(um_source_open(&s, tmp, NULL));
    CHECK_EQ(um_source_length(s), 4);
    static const int values[] = {1, 9, 10, 200};
    static const char *const names[] = {"f_1", "f_9", "f_10", "g"};
    for (uint64_t i = 0; i < 4; i++) {
        um_frame *f = NULL;
        CHECK_OK(um_source_read(s, &f));
        CHECK_EQ(f->id, i);
        CHECK_EQ(f->pixels[0], values[i]);
        CHECK_STR(um_source_frame_name(s), names[i]);
        CHECK(f->ts > 1.6e9);
        um_frame_unref(&f);
    }
    um_frame *f = NULL;
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_truth truth = {.struct_size = sizeof truth};
    CHECK_EQ(um_source_truth(s, &truth), UM_AGAIN);
    um_source_close(&s);
    CHECK(s == NULL);
    um_source_close(&s);
    tmp_close();
}

TEST(unreadable_files_use_up_an_id)
{
    tmp_open();
    put_png("0.png", 5);
    spit(in_tmp("1.png"), "junk", 4);
    put_png("2.png", 7);
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, tmp, NULL));
    CHECK_OK(um_source_read(s, &f));
    um_frame_unref(&f);
    CHECK_EQ(um_source_read(s, &f), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "1.png") && !f);
    CHECK_STR(um_source_frame_name(s), "1");
    CHECK_OK(um_source_read(s, &f));
    CHECK_EQ(f->id, 2);
    CHECK_EQ(f->pixels[0], 7);
    um_frame_unref(&f);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
    tmp_close();
}

TEST(globs_and_single_files)
{
    tmp_open();
    put_png("a1.png", 1);
    put_png("a2.png", 2);
    put_png("b1.png", 3);
    um_source *s = NULL;
    CHECK_OK(um_source_open(&s, in_tmp("a*.png"), NULL));
    CHECK_EQ(um_source_length(s), 2);
    um_source_close(&s);
    CHECK_OK(um_source_open(&s, in_tmp("b1.png"), NULL));
    CHECK_EQ(um_source_length(s), 1);
    um_source_close(&s);
    CHECK_EQ(um_source_open(&s, in_tmp("c*.png"), NULL), UM_EIO);
    CHECK(strstr(um_last_error(), "no file matches"));
    CHECK_EQ(um_source_open(&s, in_tmp("none.png"), NULL), UM_EIO);
    CHECK(s == NULL);
    mkdir(in_tmp("empty"), 0777);
    CHECK_EQ(um_source_open(&s, in_tmp("empty"), NULL), UM_EIO);
    CHECK_EQ(um_source_open(&s, "rtsp://host:554", NULL), UM_EINVAL);
    CHECK(strstr(um_last_error(), "unknown source"));
    CHECK_EQ(um_source_open(&s, "", NULL), UM_EINVAL);
    tmp_close();
}

/* ---- names ---- */

/* The frames of a source as "source=name source=name …", unreadable ones as "!". */
static const char *names_of(const char *spec)
{
    static char text[4096];
    um_source *s = NULL;
    um_frame *f = NULL;
    size_t n = 0;
    text[0] = 0;
    if (um_source_open(&s, spec, NULL) != UM_OK)
        return um_last_error();
    for (um_status st; n < sizeof text && (st = um_source_read(s, &f)) != UM_EOF;) {
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s=%s", n ? " " : "",
                              st == UM_OK ? f->source : "!", um_source_frame_name(s));
        um_frame_unref(&f);
    }
    um_source_close(&s);
    return text;
}

TEST(frames_carry_where_they_are_from)
{
    tmp_open();
    mkdir(in_tmp("p1"), 0777);
    mkdir(in_tmp("p2"), 0777);
    put_png("p1/frame.png", 1);
    put_png("p2/frame.png", 2);
    put_png("p1/x [1].png", 3);
    CHECK_STR(names_of(in_tmp("p1")), "frame.png=frame x [1].png=x [1]");
    CHECK_STR(names_of(in_tmp("p1/frame.png")), "frame.png=frame");
    CHECK_STR(names_of(in_tmp("p1/x [1].png")), "x [1].png=x [1]");
    CHECK_STR(names_of(in_tmp("p?/frame.png")), "p1/frame.png=p1/frame p2/frame.png=p2/frame");
    CHECK_STR(names_of(in_tmp("p1/f*.png")), "frame.png=frame");
    CHECK_STR(names_of(in_tmp("p1/x \\[*.png")), "x [1].png=x [1]");
    CHECK_STR(names_of("phantom:frames=2,width=32,height=32"),
              "phantom:frames=2,width=32,height=32=00000 "
              "phantom:frames=2,width=32,height=32=00001");
    CHECK_MSG(strstr(names_of(in_tmp("p?/../p1/frame.png")), "leaves no names"), "%s",
              um_last_error());
    tmp_close();
}

/* No two files of a source give outputs of one name. */
TEST(stems_that_meet_keep_their_endings)
{
    tmp_open();
    put_png("scan.png", 1);
    put_png("scan.jpg", 2);
    put_png("other.png", 3);
    CHECK_STR(names_of(tmp), "other.png=other scan.jpg=scan.jpg scan.png=scan.png");
    put_png("scan.png.png", 4); /* its stem is the whole name of another */
    put_png("Other.PNG", 5);
    CHECK_STR(names_of(tmp), "Other.PNG=Other other.png=other scan.jpg=scan.jpg scan.png=scan.png "
                             "scan.png.png=scan.png.png");
    tmp_close();
}

TEST(odd_names_are_read)
{
    static const char *const odd[] = {"-o.png", "new\nline.png", "\xff\xfe.png", "a b'\"$.png",
                                      "\xc3\xa9t\xc3\xa9.png"};
    char want[512] = "";
    tmp_open();
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        put_png(odd[i], (uint8_t)i);
    const int order[] = {0, 3, 1, 4, 2}; /* byte by byte */
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        const char *name = odd[order[i]];
        snprintf(want + strlen(want), sizeof want - strlen(want), "%s%s=%.*s", i ? " " : "", name,
                 (int)strlen(name) - 4, name);
    }
    CHECK_STR(names_of(tmp), want);
    tmp_close();
}

TEST(what_is_no_file_is_named)
{
    tmp_open();
    put_png("a.png", 1);
    put_png("c.png", 3);
    CHECK(mkfifo(in_tmp("b.png"), 0600) == 0);
    mkdir(in_tmp("d.png"), 0777);
    CHECK(symlink("a.png", in_tmp("e.png")) == 0 && symlink("none", in_tmp("f.png")) == 0);
    CHECK_STR(names_of(tmp), "a.png=a !=b c.png=c e.png=e !=f");
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, in_tmp("b.png"), NULL));
    CHECK_EQ(um_source_read(s, &f), UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "b.png") && strstr(um_last_error(), "not a regular file"),
              "%s", um_last_error());
    um_source_close(&s);
    tmp_close();
}

TEST(a_name_tells_what_acts_on_its_source)
{
    static const struct {
        const char *spec;
        int uses;
    } row[] = {
        {"somewhere/images", UM_SOURCE_RECURSIVE | UM_SOURCE_WINDOW},
        {"@LIST.txt", UM_SOURCE_RECURSIVE | UM_SOURCE_WINDOW},
        {"nobody:knows", UM_SOURCE_RECURSIVE | UM_SOURCE_WINDOW},
        {"-", UM_SOURCE_SIZE},
        {"phantom:seed=1", 0},
        {"push:", 0},
        {"replay:somewhere", 0},
        {"replay-live:somewhere", UM_SOURCE_LIVE},
        {"igtl://localhost:18944", UM_SOURCE_LIVE},
        {"igtl-listen::18944", UM_SOURCE_LIVE},
        {"v4l2:/dev/video0", UM_SOURCE_WINDOW | UM_SOURCE_LIVE},
        {"lavfi:testsrc", UM_SOURCE_WINDOW | UM_SOURCE_LIVE},
        {"", 0},
        {NULL, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        CHECK_MSG(um_source_uses(row[i].spec) == row[i].uses, "%s: %d",
                  row[i].spec ? row[i].spec : "NULL", um_source_uses(row[i].spec));
}

TEST(a_cancelled_source_has_ended)
{
    um_source *s = NULL, *t = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, "phantom:frames=0,width=32,height=32", NULL));
    CHECK_OK(um_source_read(s, &f));
    um_frame_unref(&f);
    t = um_source_ref(s);
    um_source_close(&s);
    um_source_cancel(t);
    CHECK_EQ(um_source_read(t, &f), UM_EOF);
    um_source_close(&t);
    um_source_cancel(NULL);
}

TEST(limit_and_loop)
{
    tmp_open();
    put_png("0.png", 0);
    put_png("1.png", 1);
    um_source_settings set;
    um_source_settings_default(&set);
    set.frames = 5;
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, tmp, &set));
    CHECK_EQ(um_source_length(s), 2);
    um_source_close(&s);
    set.loop = 1;
    CHECK_OK(um_source_open(&s, tmp, &set));
    CHECK_EQ(um_source_length(s), 5);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK_OK(um_source_read(s, &f));
        CHECK_EQ(f->id, i);
        CHECK_EQ(f->pixels[0], i % 2);
        um_frame_unref(&f);
    }
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
    /* a loop over nothing readable ends */
    spit(in_tmp("0.png"), "junk", 4);
    spit(in_tmp("1.png"), "junk", 4);
    set.frames = 0;
    CHECK_OK(um_source_open(&s, tmp, &set));
    CHECK_EQ(um_source_read(s, &f), UM_EFORMAT);
    CHECK_EQ(um_source_read(s, &f), UM_EFORMAT);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
    tmp_close();
}

TEST(raw_frames_on_stdin)
{
    int saved = dup(STDIN_FILENO), ends[2];
    CHECK(saved >= 0 && pipe(ends) == 0);
    dup2(ends[0], STDIN_FILENO);
    uint8_t data[2 * 18 + 7]; /* two frames of 3x2 RGB and a bit */
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    CHECK(write(ends[1], data, sizeof data) == (ssize_t)sizeof data);
    close(ends[1]);
    um_source_settings set;
    um_source_settings_default(&set);
    um_source *s = NULL;
    CHECK_EQ(um_source_open(&s, "-", &set), UM_EINVAL);
    CHECK(strstr(um_last_error(), "--size"));
    set.width = 3;
    set.height = 2;
    set.channels = 2;
    CHECK_EQ(um_source_open(&s, "-", &set), UM_EINVAL);
    set.channels = 3;
    CHECK_OK(um_source_open(&s, "-", &set));
    CHECK_EQ(um_source_length(s), -1);
    um_frame *f = NULL;
    for (int i = 0; i < 2; i++) {
        CHECK_OK(um_source_read(s, &f));
        CHECK_EQ(f->pixels[17], i * 18 + 17);
        CHECK_STR(um_source_frame_name(s), i ? "00001" : "00000");
        um_frame_unref(&f);
    }
    CHECK_EQ(um_source_read(s, &f), UM_EFORMAT);
    CHECK_MSG(strstr(um_last_error(), "frame 2 ends after 7 of 18 bytes"), "%s", um_last_error());
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
    dup2(saved, STDIN_FILENO);
    close(saved);
    close(ends[0]);
}

TEST(source_open_survives_failed_allocations)
{
    tmp_open();
    for (int i = 0; i < 70; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.png", i);
        put_png(name, 1);
    }
    um_status st = UM_ENOMEM;
    for (uint64_t k = 1; st != UM_OK && k < 200; k++) {
        um_source *s = NULL;
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_source_open(&s, tmp, NULL);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK(st == UM_OK || (st == UM_ENOMEM && !s));
        um_source_close(&s);
    }
    CHECK_EQ(st, UM_OK);
    tmp_close();
}

/* ---- sinks ---- */

static uint8_t bits[4 * 40];

/* A packet of 30x40 with a mask at x 8..20, y 10..30 and a box around it. */
static um_packet packet(void)
{
    um_packet p = {.struct_size = sizeof p,
                   .frame_id = 7,
                   .ts = 1,
                   .state = UM_STATE_VISIBLE,
                   .score = .5f,
                   .has_box = 1,
                   .has_mask = 1,
                   .width = 30,
                   .height = 40,
                   .crop = {0, 0, 30, 40},
                   .box = {7, 9, 21, 31},
                   .bits = bits};
    memset(bits, 0, sizeof bits);
    for (int y = 10; y < 30; y++)
        for (int x = 8; x < 20; x++)
            bits[4 * y + x / 8] |= (uint8_t)(1 << x % 8);
    p.mask_area_px = 240;
    return p;
}

/* Write a packet of these fields. */
static um_status put(um_sink *s, const um_packet *fields, const um_frame *frame, const char *name)
{
    um_packet *p = NULL;
    if (um_packet_create(&p, fields, NULL, 0) != UM_OK)
        abort();
    um_status st = um_sink_write(s, p, frame, name);
    const um_packet *done = p;
    um_packet_unref(&done);
    return st;
}

static um_status paint(const um_packet *fields, const um_frame *frame, uint8_t **rgb)
{
    um_packet *p = NULL;
    if (um_packet_create(&p, fields, NULL, 0) != UM_OK)
        abort();
    um_status st = um_overlay(p, frame, rgb);
    const um_packet *done = p;
    um_packet_unref(&done);
    return st;
}

static um_frame *gray_frame(void)
{
    um_frame *f = NULL;
    if (um_frame_create(&f, 30, 40, 1) != UM_OK)
        abort();
    memset(f->pixels, 100, 30 * 40);
    return f;
}

TEST(sink_specs)
{
    um_sink *s = NULL;
    CHECK_EQ(um_sink_open(&s, "film:x", NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "dir:PATH") && strstr(um_last_error(), "null:"), "%s",
              um_last_error());
    CHECK_EQ(um_sink_open(&s, "out", NULL), UM_EINVAL);
    CHECK_EQ(um_sink_open(&s, "", NULL), UM_EINVAL);
    CHECK_EQ(um_sink_open(&s, "dir:", NULL), UM_EINVAL);
    CHECK_EQ(um_sink_open(&s, "jsonl:", NULL), UM_EINVAL);
    CHECK_EQ(um_sink_open(&s, "null:x", NULL), UM_EINVAL);
    CHECK_EQ(um_sink_open(&s, "jsonl:/no/such/folder/a.jsonl", NULL), UM_EIO);
    CHECK(strstr(um_last_error(), "/no/such/folder/a.jsonl"));
    CHECK(s == NULL);
    um_packet p = packet();
    CHECK_OK(um_sink_open(&s, "null:", NULL));
    CHECK_STR(um_sink_name(s), "null:");
    CHECK_OK(put(s, &p, NULL, NULL));
    CHECK_OK(um_sink_close(&s));
    CHECK(s == NULL);
    CHECK_OK(um_sink_close(&s));
}

TEST(dir_sink_writes_mask_and_overlay)
{
    tmp_open();
    char spec[128];
    snprintf(spec, sizeof spec, "dir:%s/a/b", tmp);
    um_packet p = packet();
    um_frame *f = gray_frame(), *g = NULL;
    um_sink *s = NULL;
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(put(s, &p, f, "x"));
    CHECK_OK(put(s, &p, f, NULL));
    p.state = UM_STATE_LOST;
    CHECK_OK(put(s, &p, f, "lost"));
    CHECK_OK(um_sink_close(&s));
    CHECK_OK(um_image_read(in_tmp("a/b/x_mask.png"), &g));
    CHECK_EQ(g->channels, 1);
    for (int y = 0; y < 40; y++)
        for (int x = 0; x < 30; x++)
            CHECK_EQ(g->pixels[y * 30 + x], x >= 8 && x < 20 && y >= 10 && y < 30 ? 255 : 0);
    um_frame_unref(&g);
    CHECK_OK(um_image_read(in_tmp("a/b/x_overlay.png"), &g));
    CHECK(g->channels == 3 && g->width == 30 && g->height == 40);
    um_frame_unref(&g);
    CHECK(access(in_tmp("a/b/00007_mask.png"), R_OK) == 0);
    CHECK_OK(um_image_read(in_tmp("a/b/lost_mask.png"), &g));
    for (int i = 0; i < 30 * 40; i++)
        CHECK_EQ(g->pixels[i], 0);
    um_frame_unref(&g);
    um_frame_unref(&f);
    spit(in_tmp("file"), "x", 1);
    snprintf(spec, sizeof spec, "dir:%s/file", tmp);
    CHECK_EQ(um_sink_open(&s, spec, NULL), UM_EIO);
    CHECK(strstr(um_last_error(), "/file"));
    tmp_close();
}

TEST(dir_sink_writes_label_maps)
{
    tmp_open();
    char spec[128];
    snprintf(spec, sizeof spec, "dir:%s/o", tmp);
    um_packet fields = packet();
    um_object a = {.struct_size = sizeof a,
                   .has_mask = 1,
                   .bits = bits,
                   .name = "b\xc3\xb6ne, x",
                   .has_box = 1,
                   .box = {7, 9, 21, 31},
                   .score = .9f},
              b = a;
    static uint8_t right[sizeof bits];
    for (int y = 5; y < 15; y++)
        right[4 * y + 3] = 0x0f; /* x 24..27 */
    right[4 * 12 + 1] = 0xff;    /* and a part of the first's */
    b.bits = right;
    b.box[0] = 24;
    b.box[1] = 5;
    b.box[2] = 28;
    b.box[3] = 15;
    const um_object *both[] = {&a, &b};
    um_packet *p = NULL;
    um_frame *f = gray_frame(), *g = NULL;
    um_sink *s = NULL;
    CHECK_OK(um_packet_create(&p, &fields, both, 2));
    for (int objects = 1; objects <= 2; objects++) { /* as asked for, whatever a packet has */
        um_sink_settings set;
        um_sink_settings_default(&set);
        set.objects = objects;
        CHECK_OK(um_sink_open(&s, spec, &set));
        CHECK_OK(um_sink_write(s, p, f, "x"));
        CHECK_OK(um_sink_close(&s));
        CHECK_OK(um_image_read(in_tmp("o/x_mask.png"), &g));
        CHECK_EQ(g->pixels[20 * 30 + 14], objects == 1 ? 255 : 1);
        CHECK_EQ(g->pixels[12 * 30 + 10], objects == 1 ? 255 : 1); /* the best lies on top */
        CHECK_EQ(g->pixels[6 * 30 + 25], objects == 1 ? 0 : 2);
        CHECK_EQ(g->pixels[0], 0);
        um_frame_unref(&g);
    }
    CHECK_OK(um_image_read(in_tmp("o/x_overlay.png"), &g));
    const uint8_t *first = g->pixels + 3 * (20 * 30 + 14), *second = g->pixels + 3 * (8 * 30 + 26);
    CHECK(first[2] > first[1] && second[1] > second[2]); /* of a colour each */
    um_frame_unref(&g);
    const um_packet *done = p;
    um_packet_unref(&done);
    um_frame_unref(&f);
    tmp_close();
}

TEST(dir_sink_keeps_names_apart_and_inside)
{
    tmp_open();
    char spec[128], stem[252], file[300];
    snprintf(spec, sizeof spec, "dir:%s/o", tmp);
    um_packet p = packet();
    um_frame *f = gray_frame();
    um_sink *s = NULL, *t = NULL;
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(put(s, &p, f, "p1/frame"));
    CHECK_OK(put(s, &p, f, "p2/frame"));
    CHECK(access(in_tmp("o/p1/frame_mask.png"), R_OK) == 0);
    CHECK(access(in_tmp("o/p2/frame_overlay.png"), R_OK) == 0);
    static const char *const bad[] = {"../x", "a/../../x", "/tmp/x", "..", "a/.."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(put(s, &p, f, bad[i]) == UM_EINVAL, "%s", bad[i]);
    /* two long names that differ at their ends only; a character of two bytes where it is cut */
    memset(stem, 'n', sizeof stem);
    stem[sizeof stem - 1] = 0;
    memcpy(stem + 226, "\xc3\xa9", 2);
    CHECK_OK(put(s, &p, f, stem));
    stem[sizeof stem - 2] = 'm';
    CHECK_OK(put(s, &p, f, stem));
    int files = 0;
    DIR *d = opendir(in_tmp("o"));
    for (struct dirent *e; (e = readdir(d));)
        files += e->d_name[0] == 'n' && strlen(e->d_name) <= 255;
    closedir(d);
    CHECK_EQ(files, 4);
    /* as long as fits: left as it is */
    stem[243] = 0;
    CHECK_OK(put(s, &p, f, stem));
    snprintf(file, sizeof file, "%s_overlay.png", stem);
    snprintf(spec, sizeof spec, "%s/o", tmp);
    char *path = um_alloc(strlen(spec) + strlen(file) + 2);
    sprintf(path, "%s/%s", spec, file);
    CHECK(access(path, R_OK) == 0);
    um_free(path);
    snprintf(spec, sizeof spec, "dir:%s/o", tmp);
    CHECK_EQ(um_sink_open(&t, spec, NULL), UM_EIO); /* two that write to one folder */
    CHECK_MSG(strstr(um_last_error(), "another one writes"), "%s", um_last_error());
    CHECK_OK(um_sink_close(&s));
    CHECK_OK(um_sink_open(&t, spec, NULL));
    CHECK_OK(um_sink_close(&t));
    um_frame_unref(&f);
    tmp_close();
}

TEST(jsonl_sink_has_its_file_for_itself)
{
    tmp_open();
    char spec[128], text[4096];
    snprintf(spec, sizeof spec, "jsonl:%s/a.jsonl", tmp);
    um_packet p = packet();
    um_sink *s = NULL, *t = NULL;
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(put(s, &p, NULL, NULL));
    CHECK_EQ(um_sink_open(&t, spec, NULL), UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "a.jsonl: another one writes"), "%s", um_last_error());
    CHECK(slurp(in_tmp("a.jsonl"), (uint8_t *)text, sizeof text) > 0); /* and it is still there */
    CHECK_OK(um_sink_close(&s));
    CHECK_OK(um_sink_open(&t, spec, NULL));
    size_t one = slurp(in_tmp("a.jsonl"), (uint8_t *)text, sizeof text);
    CHECK_OK(put(t, &p, NULL, NULL)); /* begun anew with the first line, not before */
    CHECK(one > 0 && slurp(in_tmp("a.jsonl"), (uint8_t *)text, sizeof text) == one);
    CHECK_OK(um_sink_close(&t));
    tmp_close();
}

/* Nor does a descriptor of the sink's own take its place. */
TEST(stdout_that_was_closed_is_refused)
{
    um_sink *s = NULL;
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    close(STDOUT_FILENO);
    um_status st = um_sink_open(&s, "jsonl:-", NULL);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    CHECK_EQ(st, UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "stdout: Bad file descriptor"), "%s", um_last_error());
}

/* What does not fit waits for its reader; a cancelled sink writes no more. */
TEST(lines_wait_for_their_reader)
{
    tmp_open();
    um_lines *l = NULL;
    int wake[2], reader;
    static char line[100000], back[sizeof line + 1];
    memset(line, 'x', sizeof line - 1);
    CHECK(mkfifo(in_tmp("fifo"), 0600) == 0 && pipe(wake) == 0);
    CHECK_OK(um_lines_open(&l, in_tmp("fifo")));
    CHECK(write(wake[1], "", 1) == 1);
    CHECK_EQ(um_lines_write(l, "nobody reads", wake[0]), UM_AGAIN);
    CHECK_EQ(um_lines_write(l, "nor later", wake[0]), UM_AGAIN);
    CHECK_OK(um_lines_close(&l));
    reader = open(in_tmp("fifo"), O_RDONLY | O_NONBLOCK);
    CHECK_OK(um_lines_open(&l, in_tmp("fifo")));
    CHECK_OK(um_lines_write(l, "short", wake[0])); /* there is room: woken or not */
    CHECK_EQ(um_lines_write(l, line, wake[0]), UM_AGAIN);
    CHECK(read(reader, back, 6) == 6 && memcmp(back, "short\n", 6) == 0);
    CHECK_EQ(um_lines_write(l, "after half a line", -1), UM_AGAIN);
    CHECK_OK(um_lines_close(&l));
    CHECK_OK(um_lines_close(&l));
    close(reader);
    close(wake[0]);
    close(wake[1]);
    tmp_close();
}

TEST(sink_settings_that_mean_nothing_are_refused)
{
    um_sink *s = NULL;
    um_sink_settings set, was;
    um_sink_settings_default(&set);
    CHECK(set.objects == 1 && set.capacity == 4 && set.deadline_ms == 10000 && !set.policy);
    set.capacity = 0;
    CHECK_EQ(um_sink_open(&s, "null:", &set), UM_EINVAL);
    um_sink_settings_default(&set);
    set.objects = UM_OBJECTS_MAX + 1;
    CHECK_EQ(um_sink_open(&s, "null:", &set), UM_EINVAL);
    um_sink_settings_default(&set);
    set.deadline_ms = -1;
    CHECK_EQ(um_sink_open(&s, "null:", &set), UM_EINVAL);
    set.deadline_ms = 0;
    set.struct_size = 3;
    CHECK_EQ(um_sink_open(&s, "null:", &set), UM_EINVAL);
    CHECK(s == NULL);
    set.struct_size = offsetof(um_sink_settings, auxiliary); /* an older caller's */
    set.auxiliary = 77;
    CHECK_OK(um_sink_open(&s, "null:", &set));
    um_sink_settings_default(&was);
    CHECK_OK(um_sink_settings_of(s, &was));
    CHECK(was.deadline_ms == 0 && was.auxiliary == 0);
    um_packet p = packet();
    um_sink_cancel(s);
    CHECK_EQ(put(s, &p, NULL, NULL), UM_AGAIN);
    um_sink_close(&s);
    um_sink_cancel(NULL);
}

TEST(overlay_pixels)
{
    um_packet p = packet();
    um_frame *f = gray_frame();
    uint8_t *rgb = NULL;
    CHECK_OK(paint(&p, f, &rgb));
    const uint8_t *inside = rgb + 3 * (20 * 30 + 14), *edge = rgb + 3 * (20 * 30 + 8),
                  *out = rgb + 3 * (38 * 30 + 2), *box = rgb + 3 * (20 * 30 + 7);
    CHECK(inside[2] > 120 && inside[0] < 100);              /* tinted, the image still shows */
    CHECK(edge[2] == 255 && edge[1] > 200);                 /* crisp */
    CHECK(out[0] == 100 && out[1] == 100 && out[2] == 100); /* untouched */
    CHECK(box[0] == 255 && box[2] < 100);
    free(rgb);
    p.state = UM_STATE_LOST;
    CHECK_OK(paint(&p, f, &rgb));
    CHECK(rgb[3 * (20 * 30 + 14)] == 100); /* no mask */
    int red = 0;
    for (int i = 0; i < 30 * 20; i++)
        red += rgb[3 * i] > 200 && rgb[3 * i + 2] < 120;
    CHECK(red > 50); /* the plate that says LOST */
    free(rgb);
    memcpy(p.crop, (int[]){3, 25, 20, 10}, sizeof p.crop); /* the part that was looked at */
    CHECK_OK(paint(&p, f, &rgb));
    CHECK(rgb[3 * (25 * 30 + 3) + 2] == 120 && rgb[3 * (34 * 30 + 22) + 2] == 120);
    CHECK(rgb[3 * (26 * 30 + 4) + 2] == 100 && rgb[3 * (30 * 30 + 24) + 2] == 100);
    free(rgb);
    p.width = 31;
    CHECK_EQ(paint(&p, f, &rgb), UM_EINVAL);
    CHECK(rgb == NULL);
    um_frame_unref(&f);
}

TEST(jsonl_sink_writes_lines)
{
    tmp_open();
    char spec[128], text[8192];
    snprintf(spec, sizeof spec, "jsonl:%s/a.jsonl", tmp);
    um_packet p = packet();
    um_sink *s = NULL;
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(put(s, &p, NULL, NULL));
    size_t n = slurp(in_tmp("a.jsonl"), (uint8_t *)text, sizeof text);
    CHECK(n > 0 && text[n - 1] == '\n'); /* before close */
    p.frame_id = 8;
    CHECK_OK(put(s, &p, NULL, NULL));
    CHECK_OK(um_sink_close(&s));
    n = slurp(in_tmp("a.jsonl"), (uint8_t *)text, sizeof text - 1);
    text[n] = 0;
    CHECK(strncmp(text, "{\"frame_id\":7,", 14) == 0 && strstr(text, "}\n{\"frame_id\":8,"));
    if (access("/dev/full", W_OK) == 0) {
        CHECK_OK(um_sink_open(&s, "jsonl:/dev/full", NULL));
        CHECK_EQ(put(s, &p, NULL, NULL), UM_EIO);
        CHECK(strstr(um_last_error(), "/dev/full"));
        um_sink_close(&s);
    }
    tmp_close();
}

TEST(jsonl_sink_ends_when_the_reader_leaves)
{
    tmp_open();
    char spec[128];
    snprintf(spec, sizeof spec, "jsonl:%s/fifo", tmp);
    CHECK(mkfifo(in_tmp("fifo"), 0600) == 0);
    signal(SIGPIPE, SIG_DFL); /* as of a program that knows nothing of it */
    int reader = open(in_tmp("fifo"), O_RDONLY | O_NONBLOCK);
    um_packet p = packet();
    um_sink *s = NULL;
    CHECK_OK(um_sink_open(&s, spec, NULL));
    CHECK_OK(put(s, &p, NULL, NULL));
    close(reader);
    CHECK_EQ(put(s, &p, NULL, NULL), UM_EOF);
    CHECK_OK(um_sink_close(&s));
    tmp_close();
}

TEST_MAIN
