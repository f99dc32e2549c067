/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights in files: found where they are whole, as if they were not there where they are
 * not, and networks that are the same with them and without. */
#define _DEFAULT_SOURCE /* flock() */
#include "fixture.h"
#include "scratch.h"

#include "base/build.h"
#include "base/mem.h"
#include "base/status.h"
#include "child.h"
#include "weights/packed.h"
#include "weights/weights.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

static const char HASH[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

enum { SIZE = 5000, HEAD = 4096, FILE_SIZE = HEAD + 5120 };
static unsigned char content[SIZE], bytes[1 << 16];

/* Two pieces with a gap between, and a rest behind. */
static um_status write_some(const char *folder, const char *what)
{
    struct um_packed_key key = {HASH, what};
    for (int i = 0; i < SIZE; i++)
        content[i] = i >= 1000 && i < 1024 ? 0 : (unsigned char)(i * 7 + i / 256);
    struct um_packed_piece piece[] = {{0, 1000, content}, {1024, SIZE - 1024, content + 1024}};
    return um_packed_write(folder, &key, 77, SIZE, piece, 2);
}

/* Is that found? */
static bool found(const char *folder, const char *what)
{
    struct um_packed_key key = {HASH, what};
    um_packed *p = NULL;
    size_t size = 0;
    um_packed_open(&p, folder, &key);
    bool whole = p && memcmp(um_packed_data(p, &size), content, SIZE) == 0 && size == SIZE &&
                 um_packed_layout(p) == 77;
    um_packed_close(&p);
    return whole;
}

/* The files of a folder: how many end so, and one of them. */
static int files(const char *folder, const char *end, char *one)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t have = strlen(e->d_name), want = strlen(end);
        if (have < want || strcmp(e->d_name + have - want, end) != 0 || strcmp(e->d_name, ".") == 0)
            continue;
        n++;
        if (one)
            snprintf(one, 800, "%s/%s", folder, e->d_name);
    }
    if (d)
        closedir(d);
    return n;
}

static void clear(const char *folder)
{
    char one[800];
    while (files(folder, ".packed", one) || files(folder, ".part", one) ||
           files(folder, "lock", one))
        if (unlink(one) != 0)
            abort();
    rmdir(folder);
}

TEST(what_was_written_is_found)
{
    char folder[200];
    snprintf(folder, sizeof folder, "%s/new/deep", in_scratch("packed"));
    CHECK(!found(folder, "a"));
    CHECK_OK(write_some(folder, "a"));
    CHECK(found(folder, "a") && !found(folder, "b"));
    CHECK_OK(write_some(folder, "a")); /* again */
    CHECK_OK(write_some(folder, "b"));
    CHECK(found(folder, "a") && found(folder, "b"));
    CHECK_EQ(files(folder, ".packed", NULL), 2);
    CHECK_EQ(files(folder, ".part", NULL), 0);
    struct um_packed_key key = {"0123", "a"};
    char longer[600] = {0};
    memset(longer, 'x', sizeof longer - 1);
    CHECK_EQ(um_packed_write(folder, &key, 0, 1, &(struct um_packed_piece){0, 1, "x"}, 1),
             UM_EINVAL);
    CHECK_EQ(write_some(folder, longer), UM_EINVAL);
    CHECK(!found(folder, longer));
    key.sha256 = HASH; /* pieces that are not in order, or too many */
    struct um_packed_piece piece[] = {{1024, 8, content}, {0, 8, content}};
    CHECK_EQ(um_packed_write(folder, &key, 0, 2000, piece, 2), UM_EINVAL);
    CHECK_EQ(um_packed_write(folder, &key, 0, 100, piece, 1), UM_EINVAL);
    clear(folder);
    rmdir(in_scratch("packed/new"));
    rmdir(in_scratch("packed"));
}

/* Cut at every hundredth byte and every edge, and longer. */
TEST(cut_files_are_not_believed)
{
    char folder[400], one[800];
    snprintf(folder, sizeof folder, "%s", in_scratch("cut"));
    CHECK_OK(write_some(folder, "a"));
    CHECK_EQ(files(folder, ".packed", one), 1);
    CHECK_EQ(slurp(one, bytes, sizeof bytes), FILE_SIZE);
    for (size_t n = 0; n <= FILE_SIZE + 128; n += n % 128 == 127 || n % 128 == 0 ? 1 : 63) {
        if (n == FILE_SIZE)
            continue;
        spit(one, bytes, n);
        chmod(one, 0600);
        CHECK_MSG(!found(folder, "a"), "%zu bytes", n);
    }
    spit(one, bytes, FILE_SIZE);
    chmod(one, 0600);
    CHECK(found(folder, "a"));
    clear(folder);
}

TEST(any_byte_that_changed_is_seen)
{
    char folder[400], one[800];
    snprintf(folder, sizeof folder, "%s", in_scratch("bits"));
    CHECK_OK(write_some(folder, "a"));
    CHECK_EQ(files(folder, ".packed", one), 1);
    int fd = open(one, O_RDWR);
    CHECK(fd >= 0);
    for (int i = 0; i < FILE_SIZE; i++) {
        unsigned char was, is;
        CHECK_EQ(pread(fd, &was, 1, i), 1);
        is = was ^ (unsigned char)(1 << i % 8);
        CHECK_EQ(pwrite(fd, &is, 1, i), 1);
        CHECK_MSG(!found(folder, "a"), "byte %d", i);
        CHECK_EQ(pwrite(fd, &was, 1, i), 1);
    }
    /* two words that change places, and changes that cancel out in a plain sum */
    unsigned char two[128];
    CHECK_EQ(pread(fd, two, 128, HEAD + 256), 128);
    CHECK_EQ(pwrite(fd, two + 64, 64, HEAD + 256), 64);
    CHECK_EQ(pwrite(fd, two, 64, HEAD + 320), 64);
    CHECK(!found(folder, "a"));
    two[7] ^= 0x80;
    two[71] ^= 0x80;
    CHECK_EQ(pwrite(fd, two, 128, HEAD + 256), 128);
    CHECK(!found(folder, "a"));
    two[7] ^= 0x80;
    two[71] ^= 0x80;
    CHECK_EQ(pwrite(fd, two, 128, HEAD + 256), 128);
    CHECK(found(folder, "a"));
    close(fd);
    clear(folder);
}

/* Others could write it, or it is no file of its own. */
TEST(files_of_others_are_not_believed)
{
    char folder[400], one[800], other[900];
    snprintf(folder, sizeof folder, "%s", in_scratch("own"));
    CHECK_OK(write_some(folder, "a"));
    CHECK_EQ(files(folder, ".packed", one), 1);
    CHECK(chmod(one, 0620) == 0 && !found(folder, "a"));
    CHECK(chmod(one, 0602) == 0 && !found(folder, "a"));
    CHECK(chmod(one, 0644) == 0 && found(folder, "a"));
    if (geteuid() == 0) {
        CHECK(chown(one, 4711, 4711) == 0 && !found(folder, "a"));
        CHECK(chown(one, 0, 0) == 0 && found(folder, "a"));
    }
    snprintf(other, sizeof other, "%s.there", one);
    CHECK(rename(one, other) == 0 && symlink(other, one) == 0);
    CHECK(!found(folder, "a"));
    CHECK(unlink(one) == 0 && mkfifo(one, 0600) == 0);
    CHECK(!found(folder, "a")); /* and does not wait for who writes */
    CHECK_EQ(write_some(folder, "a"), UM_EIO);
    CHECK(unlink(one) == 0 && mkdir(one, 0700) == 0);
    CHECK(!found(folder, "a"));
    CHECK(rmdir(one) == 0 && unlink(other) == 0);
    CHECK_OK(write_some(folder, "a"));
    CHECK(found(folder, "a"));
    clear(folder);
}

static int write_beyond_a_limit(void *folder)
{
    struct rlimit most = {6000, 6000};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &most);
    return write_some(folder, "a") == UM_EIO ? 0 : 1;
}

TEST(where_nothing_can_be_written_nothing_is_left)
{
    char folder[400], below[500];
    snprintf(folder, sizeof folder, "%s", in_scratch("full"));
    CHECK_EQ(child_run(write_beyond_a_limit, folder), 0); /* a full disk */
    CHECK_EQ(files(folder, ".packed", NULL) + files(folder, ".part", NULL), 0);
    snprintf(below, sizeof below, "%s/lock/below", folder);
    CHECK_EQ(write_some(below, "a"), UM_EIO); /* a file in the place of a folder */
    CHECK(strstr(um_last_error(), "cannot be made"));
    clear(folder);
}

TEST(one_process_at_a_time_writes)
{
    char folder[400], lock[500];
    snprintf(folder, sizeof folder, "%s", in_scratch("lock"));
    CHECK_OK(write_some(folder, "a"));
    snprintf(lock, sizeof lock, "%s/lock", folder);
    int fd = open(lock, O_RDWR);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK_EQ(write_some(folder, "b"), UM_AGAIN);
    CHECK(found(folder, "a") && !found(folder, "b")); /* reading needs no lock */
    close(fd);
    CHECK_OK(write_some(folder, "b"));
    clear(folder);
}

TEST(what_was_used_longest_ago_goes)
{
    char folder[400], part[500], what[16];
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    snprintf(folder, sizeof folder, "%s", in_scratch("many"));
    for (int i = 0; i < 16; i++) {
        snprintf(what, sizeof what, "%d", i);
        CHECK_OK(write_some(folder, what));
    }
    CHECK_EQ(files(folder, ".packed", NULL), 16);
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) /* all long ago, but for the third, which is used */
        if (strstr(e->d_name, ".packed"))
            CHECK_EQ(utimensat(dirfd(d), e->d_name, old, 0), 0);
    closedir(d);
    CHECK(found(folder, "3"));
    snprintf(part, sizeof part, "%s/.ultramotion.1.2.part",
             folder); /* of a process that was killed */
    spit(part, "x", 1);
    CHECK_EQ(utimensat(AT_FDCWD, part, old, 0), 0);
    for (int i = 16; i < 24; i++) {
        snprintf(what, sizeof what, "%d", i);
        CHECK_OK(write_some(folder, what));
        CHECK_EQ(files(folder, ".packed", NULL), 16);
    }
    CHECK(found(folder, "3") && found(folder, "23") && found(folder, "16"));
    CHECK_EQ(files(folder, ".part", NULL), 0);
    snprintf(part, sizeof part, "%s/00000000000000000000000000000000.packed", folder);
    spit(part, "x", 1);
    CHECK(truncate(part, (off_t)4 << 30) == 0 && chmod(part, 0600) == 0);
    CHECK_EQ(utimensat(AT_FDCWD, part, old, 0), 0);
    CHECK(found(folder, "23"));
    CHECK_OK(write_some(folder, "24"));
    CHECK(access(part, F_OK) != 0 && found(folder, "23") && found(folder, "24"));
    clear(folder);
}

TEST(files_of_others_stay)
{
    static const char *const theirs[] = {"meal.packed", ".thesis.part", "0123.packed",
                                         "0000000000000000000000000000000g.packed"};
    enum { THEIRS = sizeof theirs / sizeof *theirs };
    char folder[400], path[THEIRS][500], what[16];
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    snprintf(folder, sizeof folder, "%s", in_scratch("others"));
    CHECK_OK(write_some(folder, "0"));
    for (int i = 0; i < THEIRS; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", folder, theirs[i]);
        spit(path[i], "x", 1);
        CHECK_EQ(utimensat(AT_FDCWD, path[i], old, 0), 0);
    }
    for (int i = 1; i < 20; i++) {
        snprintf(what, sizeof what, "%d", i);
        CHECK_OK(write_some(folder, what));
    }
    for (int i = 0; i < THEIRS; i++)
        CHECK_EQ(access(path[i], F_OK), 0);
    CHECK_EQ(files(folder, ".packed", NULL), 16 + THEIRS - 1);
    clear(folder);
}

TEST(a_build_is_told_from_others)
{
    CHECK(strlen(um_build_id()) >= 5 && strlen(um_build_id()) <= 64);
    CHECK(um_build_id() == um_build_id());
}

/* ---- networks ---- */

struct opened {
    um_status status;
    char said[2][600];
    um_packet packet;
    uint8_t mask[422 * 558];
};

/* Networks of the golden models, and what they make of an image; folder NULL: nothing is kept. */
static void open_and_run(const char *device, const char *folder, int canvas, struct opened *o)
{
    struct fixture f = {0};
    um_device_settings s;
    um_pipeline_settings p;
    um_pipeline *pipeline = NULL;
    um_frame *frame = golden_frame(2);
    const um_packet *k = NULL;
    um_device_settings_default(&s);
    s.name = device;
    s.threads = 2;
    s.precision = "fp32";
    s.weight_cache = folder;
    *o = (struct opened){.status = um_device_open(&f.dev, &s)};
    if (o->status == UM_OK)
        o->status = um_detector_open(&f.detector, f.dev, DETECTOR_FILE, OF_SIZE(256));
    if (f.dev)
        um_device_weight_cache(f.dev, o->said[0], sizeof o->said[0]);
    if (o->status == UM_OK)
        o->status = um_segmenter_open(&f.segmenter, f.dev, SEGMENTER_FILE, canvas, NULL);
    if (f.dev)
        um_device_weight_cache(f.dev, o->said[1], sizeof o->said[1]);
    um_pipeline_settings_default(&p);
    p.detector = f.detector;
    p.segmenter = f.segmenter;
    p.conf = 0;
    if (o->status == UM_OK)
        o->status = um_pipeline_open(&pipeline, &p);
    if (o->status == UM_OK)
        o->status = pass(pipeline, frame, &k);
    if (k) {
        o->packet = *k;
        um_packet_mask(k, o->mask, 1);
    }
    um_frame_unref(&frame);
    um_pipeline_close(&pipeline);
    fixture_close(&f);
}

/* It says so of both networks, and the result is that of `want`. */
static void check_run(const char *device, const char *folder, const char *say,
                      const struct opened *want)
{
    static struct opened o;
    open_and_run(device, folder, 128, &o);
    CHECK_OK(o.status);
    for (int i = 0; i < 2; i++)
        CHECK_MSG(strstr(o.said[i], say), "%s, want %s", o.said[i], say);
    CHECK(o.packet.score == want->packet.score && o.packet.iou == want->packet.iou);
    CHECK(memcmp(o.packet.box, want->packet.box, sizeof o.packet.box) == 0);
    CHECK(memcmp(o.mask, want->mask, sizeof o.mask) == 0);
}

static void networks_are_the_same(const char *device)
{
    static struct opened want;
    char folder[400], one[800];
    snprintf(folder, sizeof folder, "%s", in_scratch(device));
    open_and_run(device, NULL, 128, &want);
    CHECK_OK(want.status);
    CHECK(strcmp(want.said[0], "off") == 0 && want.packet.mask_area_px > 0);
    check_run(device, folder, ": written", &want);
    CHECK_EQ(files(folder, ".packed", one), 2);
    check_run(device, folder, ": read", &want);
    check_run(device, folder, ": read", &want);
    static struct opened larger, plain;
    open_and_run(device, folder, 192, &larger); /* other tables: other weights */
    CHECK(strstr(larger.said[0], ": read") && strstr(larger.said[1], ": written"));
    CHECK_EQ(files(folder, ".packed", NULL), 3);
    open_and_run(device, NULL, 192, &plain);
    CHECK(memcmp(larger.mask, plain.mask, sizeof plain.mask) == 0);
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) { /* a bit in the middle of each */
        unsigned char byte;
        int fd = strstr(e->d_name, ".packed") ? openat(dirfd(d), e->d_name, O_RDWR) : -1;
        if (fd < 0)
            continue;
        CHECK(pread(fd, &byte, 1, 500000) == 1);
        byte ^= 4;
        CHECK(pwrite(fd, &byte, 1, 500000) == 1);
        close(fd);
    }
    closedir(d);
    check_run(device, folder, ": written", &want);
    check_run(device, folder, ": read", &want);
    check_run(device, DETECTOR_FILE "/below", ": not written: ", &want);
    clear(folder);
}

TEST(networks_are_the_same_on_cpu)
{
    networks_are_the_same("cpu");
}

TEST(networks_are_the_same_on_guard)
{
    networks_are_the_same("guard");
}

TEST(levels_have_weights_of_their_own)
{
    static struct opened o;
    char folder[400];
    snprintf(folder, sizeof folder, "%s", in_scratch("levels"));
    unsetenv("ULTRAMOTION_CPU"); /* the best there is, and plain C */
    open_and_run("cpu", folder, 64, &o);
    CHECK_OK(o.status);
    setenv("ULTRAMOTION_CPU", "c", 1);
    open_and_run("cpu", folder, 64, &o);
    unsetenv("ULTRAMOTION_CPU");
    CHECK_OK(o.status);
    CHECK(strstr(o.said[0], ": written") && strstr(o.said[1], ": written"));
    CHECK_EQ(files(folder, ".packed", NULL), 4);
    clear(folder);
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Whole files with a sum that is right, and nothing else: other sizes are packed again, and other
 * numbers are numbers, whatever comes out. */
TEST(forged_weights_do_no_harm)
{
    enum { ROOM = 64 << 20 };
    static struct opened o, want;
    char folder[400], what[300];
    um_device *dev = NULL;
    um_weights *file = NULL;
    um_device_settings s;
    snprintf(folder, sizeof folder, "%s", in_scratch("forged"));
    open_and_run("cpu", folder, 64, &want);
    um_device_settings_default(&s);
    s.name = "cpu";
    s.precision = "fp32";
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_OK(um_weights_open(&file, SEGMENTER_FILE));
    snprintf(what, sizeof what, "%s mobile-sam 64 %s fp32 cpu", um_build_id(), um_device_isa(dev));
    struct um_packed_key key = {um_weights_sha256(file), what};
    um_packed *p = NULL;
    um_packed_open(&p, folder, &key);
    CHECK(p != NULL); /* that is its key */
    size_t size = 0;
    (void)um_packed_data(p, &size);
    uint64_t layout = um_packed_layout(p), x = 1;
    um_packed_close(&p);
    CHECK(size < ROOM);
    uint32_t *numbers = um_alloc(size + 128);
    CHECK(numbers != NULL);
    for (size_t i = 0; i < size / 4; i++)
        numbers[i] = (uint32_t)next_random(&x);
    struct um_packed_piece all = {0, size, numbers};
    for (int lie = 0; lie < 4; lie++) { /* a size, a layout; the last two are taken for weights */
        all.size = lie == 0 ? size - 128 : size;
        CHECK_OK(um_packed_write(folder, &key, layout + (lie == 1), all.size, &all, 1));
        open_and_run("cpu", folder, 64, &o);
        CHECK(strstr(o.said[1], lie < 2 ? ": written" : ": read"));
        CHECK_MSG(o.status == UM_OK || (lie > 1 && o.status == UM_ENUMERIC), "%s", um_last_error());
        if (lie < 2)
            CHECK(memcmp(o.mask, want.mask, sizeof o.mask) == 0);
        for (size_t i = 0; i < size / 4; i++)
            numbers[i] = 0x7fc00000; /* NaN */
    }
    um_free(numbers);
    um_weights_close(&file);
    um_device_close(&dev);
    clear(folder);
}

TEST(running_out_of_memory_is_survived)
{
    char folder[400];
    um_device *dev = NULL;
    um_device_settings s;
    snprintf(folder, sizeof folder, "%s", in_scratch("memory"));
    um_device_settings_default(&s);
    s.name = "cpu";
    s.threads = 1;
    s.weight_cache = folder;
    CHECK_OK(um_device_open(&dev, &s));
    for (int warm = 0; warm < 2; warm++) {
        int failed = 0, opened = 0;
        for (uint64_t k = 1; !opened || k < 400; k += 1 + k / 3) {
            um_detector *d = NULL;
            uint64_t before = um_mem_count();
            if (!warm)
                clear(folder);
            um_mem_fail_at(k);
            um_status st = um_detector_open(&d, dev, DETECTOR_FILE, OF_SIZE(256));
            um_mem_fail_at(0);
            CHECK_MSG(st == UM_OK || st == UM_ENOMEM, "allocation %d: %s", (int)k, um_last_error());
            CHECK((st == UM_OK) == (d != NULL));
            failed += st != UM_OK;
            opened += st == UM_OK && um_mem_count() - before < k;
            um_detector_close(&d);
        }
        CHECK_MSG(failed > 5, "only %d failures", failed);
    }
    um_device_close(&dev);
    clear(folder);
}

TEST(the_users_folder)
{
    struct fixture f = {0};
    um_device_settings s;
    char text[600], home[300], *was = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    char *xdg = getenv("XDG_CACHE_HOME") ? strdup(getenv("XDG_CACHE_HOME")) : NULL;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.weight_cache = "auto";
    snprintf(home, sizeof home, "%s", in_scratch("home"));
    for (int i = 0; i < 5; i++) {
        static const char *const want[] = {"/x/ultramotion", "home/.cache/ultramotion", "off",
                                           "home/.cache/ultramotion", "off"};
        setenv("XDG_CACHE_HOME", i == 0 ? "/x" : i == 3 ? "relative" : "", 1);
        setenv("HOME", i == 2 ? "" : home, 1);
        s.weight_cache = i == 4 ? "off" : "auto";
        CHECK_OK(um_device_open(&f.dev, &s));
        um_device_weight_cache(f.dev, text, sizeof text);
        CHECK_MSG(strlen(text) >= strlen(want[i]) &&
                      strcmp(text + strlen(text) - strlen(want[i]), want[i]) == 0,
                  "%s, want %s", text, want[i]);
        um_device_close(&f.dev);
    }
    s.weight_cache = "";
    CHECK_EQ(um_device_open(&f.dev, &s), UM_EINVAL);
    if (was)
        setenv("HOME", was, 1);
    if (xdg)
        setenv("XDG_CACHE_HOME", xdg, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    free(was);
    free(xdg);
    CHECK(files(home, "", NULL) == 0); /* nothing was written for being asked */
    scratch_close();
}

TEST_MAIN
