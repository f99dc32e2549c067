/* SPDX-License-Identifier: Apache-2.0 */
/* MetaImage and NRRD sequences: what Plus and Slicer write is read, whatever its order, type and
 * coding; what is damaged gives the frames that are there, and one error. */
#include "base/mem.h"
#include "io/origin.h"
#include "scratch.h"
#include "test.h"
#include "ultramotion/ultramotion.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <zlib.h>

enum { W = 5, H = 3, N = 4, BYTES = 65536 };

/* A file that grows. */
static uint8_t file[BYTES];
static size_t size;

static void text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void text(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size += (size_t)vsnprintf((char *)file + size, sizeof file - size, fmt, ap);
    va_end(ap);
}

static void bytes(const void *data, size_t n)
{
    memcpy(file + size, data, n);
    size += n;
}

static const char *save(const char *name)
{
    const char *path = in_scratch(name);
    spit(path, file, size);
    size = 0;
    return path;
}

static uint8_t value(int frame, int x, int y)
{
    return (uint8_t)(40 * frame + 10 * y + x);
}

static void pixels(uint8_t *out) /* of all frames, [N,H,W] */
{
    for (int i = 0; i < N * H * W; i++)
        out[i] = value(i / (H * W), i % W, i / W % H);
}

static const char plus[] = "ObjectType = Image\nNDims = 3\nDimSize = 5 3 4\nKinds = domain domain "
                           "list\nElementSpacing = 0.2 0.25 1\nElementType = MET_UCHAR\n";

static void fields(int frame)
{
    text("Seq_Frame%04d_FrameNumber = %d\n", frame, 70 + frame);
    text("Seq_Frame%04d_Timestamp = %d.125\n", frame, 10 + frame);
    text("Seq_Frame%04d_ProbeToTrackerTransform = 1 0 0 %d 0 1 0 2.5 0 0 1 -3 0 0 0 1 \n", frame,
         frame);
    text("Seq_Frame%04d_ProbeToTrackerTransformStatus = %s\n", frame,
         frame == 2 ? "INVALID" : "OK");
}

/* What Plus writes, with the data as they are or compressed. */
static const char *plus_file(const char *name, bool compressed)
{
    uint8_t all[N * H * W], packed[1024];
    uLongf n = sizeof packed;
    pixels(all);
    compress(packed, &n, all, sizeof all);
    text("%sCompressedData = %s\nUltrasoundImageOrientation = MF\nProbe = L14-5\n", plus,
         compressed ? "True" : "False");
    for (int i = N - 1; i >= 0; i--) /* in any order */
        fields(i);
    text("ElementDataFile = LOCAL\n");
    bytes(compressed ? packed : all, compressed ? n : sizeof all);
    return save(name);
}

static int next(um_source *s, um_frame **f)
{
    um_frame_unref(f);
    return um_source_read(s, f);
}

static void check_pixels(const um_frame *f, int frame)
{
    CHECK(f->width == W && f->height == H && f->channels == 1);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            CHECK_EQ(f->pixels[y * f->stride + x], value(frame, x, y));
}

/* All frames are there, in their order. */
static void check_all(const char *path)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, path, NULL));
    for (int i = 0; i < N; i++) {
        CHECK_MSG(next(s, &f) == UM_OK, "%s: frame %d: %s", path, i, um_last_error());
        check_pixels(f, i);
        CHECK(f->has_spacing && f->spacing_mm[0] == 0.2 && f->spacing_mm[1] == 0.25);
    }
    CHECK_EQ(next(s, &f), UM_EOF);
    um_source_close(&s);
}

TEST(plus_sequences_are_read_with_times_and_poses)
{
    for (int compressed = 0; compressed < 2; compressed++) {
        um_source *s = NULL;
        um_frame *f = NULL;
        const char *path = plus_file("plus.mha", compressed);
        check_all(path);
        CHECK_OK(um_source_open(&s, path, NULL));
        for (int i = 0; i < N; i++) {
            CHECK_OK(next(s, &f));
            CHECK(f->has_ts && f->ts == 10.125 + i);
            CHECK_EQ(f->has_pose, i != 2); /* INVALID */
            CHECK(!f->has_pose || (f->pose[3] == i && f->pose[7] == 2.5 && f->pose[11] == -3));
            CHECK_STR(f->source, "plus.mha");
            char name[32];
            snprintf(name, sizeof name, "plus_%05d", i);
            CHECK_STR(um_source_frame_name(s), name);
            const char *notes = um_frame_notes(f);
            CHECK(notes && strstr(notes, "FrameNumber = 7"));
            CHECK_EQ(strstr(notes, "\nProbe = L14-5\n") != NULL, i == 0);
        }
        um_frame_unref(&f);
        um_source_close(&s);
    }
}

TEST(pixels_in_a_file_beside_are_found)
{
    uint8_t all[N * H * W];
    pixels(all);
    bytes(all, sizeof all);
    save("beside.raw");
    for (int dot = 0; dot < 2; dot++) {
        text("%sElementDataFile = %sbeside.raw\n", plus, dot ? "./" : "");
        check_all(save("beside.mhd"));
    }
    static const char *const elsewhere[] = {"../beside.raw", "./../beside.raw", "/etc/passwd",
                                            "LIST",          "a%03d.raw",       ""};
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++) {
        um_frame *f = NULL;
        text("%sElementDataFile = %s\n", plus, elsewhere[i]);
        CHECK_EQ(um_image_read(save("bad.mhd"), &f), UM_EFORMAT);
        CHECK_MSG(strstr(um_last_error(), "not in one file of the same folder"), "%s",
                  um_last_error());
    }
    um_frame *f = NULL;
    text("%sElementDataFile = none.raw\n", plus);
    CHECK_EQ(um_image_read(save("bad.mhd"), &f), UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "bad.mhd: none.raw: cannot open"), "%s", um_last_error());
}

TEST(slicer_sequences_are_read_in_both_orders)
{
    uint8_t all[N * H * W], mixed[N * H * W], packed[1024];
    pixels(all);
    for (int i = 0; i < H * W; i++)
        for (int k = 0; k < N; k++)
            mixed[i * N + k] = all[k * H * W + i];
    z_stream z = {
        .next_in = all, .avail_in = sizeof all, .next_out = packed, .avail_out = sizeof packed};
    CHECK(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    for (int form = 0; form < 3; form++) {
        bool first = form == 1;
        text("NRRD0004\n# from Slicer\ntype: unsigned char\ndimension: 4\nspace: "
             "left-posterior-superior\nsizes: %s\nspace directions: %s\nkinds: %s\nencoding: "
             "%s\nspace origin: (0,0,0)\naxis %d index values:=0.5 1.5 2.5 x\n\n",
             first ? "4 5 3 1" : "5 3 1 4",
             first ? "none (0.2,0,0) (0,0.25,0) (0,0,1)" : "(0.2,0,0) (0,-0.25,0) (0,0,1) none",
             first ? "list domain domain domain" : "domain domain domain list",
             form == 2 ? "gzip" : "raw", first ? 0 : 3);
        bytes(form == 2 ? packed
              : first   ? mixed
                        : all,
              form == 2 ? sizeof packed - z.avail_out : sizeof all);
        const char *path = save("a.seq.nrrd");
        check_all(path);
        um_source *s = NULL;
        um_frame *f = NULL;
        CHECK_OK(um_source_open(&s, path, NULL));
        for (int i = 0; i < 3; i++) {
            CHECK_OK(next(s, &f));
            CHECK(f->has_ts && f->ts == 0.5 + i);
        }
        CHECK_OK(next(s, &f));
        CHECK(!f->has_ts);
        um_frame_unref(&f);
        um_source_close(&s);
    }
}

TEST(sixteen_bits_and_colours_are_read)
{
    um_frame *f = NULL;
    for (int top = 0; top < 2; top++) {
        text("ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_USHORT\n"
             "ElementByteOrderMSB = %s\nElementDataFile = %s\n",
             top ? "True" : "False", top ? "Local" : "LOCAL"); /* MetaIO takes both */
        bytes(top ? "\x10\x00\x20\x00\xff\xff\x00\x00" : "\x00\x10\x00\x20\xff\xff\x00\x00", 8);
        CHECK_OK(um_image_read(save("wide.mha"), &f));
        CHECK(f->pixels[0] == 16 && f->pixels[1] == 32 && f->pixels[2] == 255 && !f->pixels[3]);
        um_frame_unref(&f);
    }
    text("NRRD0005\ntype: uchar\ndimension: 3\nsizes: 3 2 1\nencoding: raw\n\nabcdef");
    CHECK_OK(um_image_read(save("rgb.nrrd"), &f));
    CHECK(f->channels == 3 && f->width == 2 && f->height == 1 && !memcmp(f->pixels, "abcdef", 6));
    um_frame_unref(&f);
    text("ObjectType = Image\nNDims = 2\nDimSize = 1 2\nElementType = MET_UCHAR\n"
         "ElementNumberOfChannels = 3\nKinds = domain domain\nkinds = vector domain domain\n"
         "ElementDataFile = LOCAL\nabcdef");
    CHECK_OK(um_image_read(save("rgb.mha"), &f));
    CHECK(f->channels == 3 && f->width == 1 && f->height == 2 && !memcmp(f->pixels, "abcdef", 6));
    um_frame_unref(&f);
}

TEST(a_volume_at_one_time_is_its_slices)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    text("NDims = 4\nDimSize = 2 1 3 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nabcdef");
    CHECK_OK(um_source_open(&s, save("volume.mha"), NULL));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(next(s, &f));
        CHECK(f->width == 2 && f->height == 1 && !memcmp(f->pixels, &"abcdef"[2 * i], 2));
        um_frame_unref(&f);
    }
    CHECK_EQ(next(s, &f), UM_EOF);
    um_source_close(&s);
}

/* The list's axis is the fifth where colours come first, and one of four of space, as ITK says it.
 */
TEST(axes_of_other_writers_are_read)
{
    static const struct {
        const char *sizes, *kinds, *times;
        int channels;
    } cases[] = {
        {"3 2 1 1 2", "RGB-color domain domain domain list", "axis 4 index values:=7 8\n", 3},
        {"3 2 1 1 2", "RGB-color domain domain domain list",
         "axis 4 index values:=7000 8000\nlabels: \"\" \"\" \"\" \"\" \"trigger\"\n"
         "units: \"\" \"mm\" \"mm\" \"mm\" \"ms\"\n",
         3},
        {"3 2 1 1 2", "RGB-color domain domain domain list", /* of DICOM without times */
         "axis 4 index values:=0 1\nlabels: \"\" \"\" \"\" \"\" \"frame\"\n", 3},
        {"2 3 1 2", "domain domain domain domain", "", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        um_source *s = NULL;
        um_frame *f = NULL;
        text("NRRD0004\ntype: uchar\ndimension: %d\nsizes: %s\nkinds: %s\nencoding: raw\n%s\n"
             "abcdefghijkl",
             i == 3 ? 4 : 5, cases[i].sizes, cases[i].kinds, cases[i].times);
        CHECK_OK(um_source_open(&s, save("axes.nrrd"), NULL));
        CHECK_OK(next(s, &f));
        CHECK(f->width == 2 && f->channels == cases[i].channels && !memcmp(f->pixels, "abcdef", 6));
        CHECK_OK(next(s, &f));
        CHECK(!memcmp(f->pixels, "ghijkl", 6) && f->has_ts == (i < 2) && (i > 1 || f->ts == 8));
        CHECK_EQ(next(s, &f), UM_EOF);
        um_source_close(&s);
    }
}

TEST(units_of_spacing_are_obeyed)
{
    static const struct {
        const char *line;
        double mm; /* 0 = not known */
    } cases[] = {{"spacings: 0.5 0.5\nunits: \"\" \"mm\"", 0.5},
                 {"spacings: 50 50\nunits: \"\xc2\xb5m\" \"um\"", 0.05},
                 {"spacings: 0.5 0.5\nunits: \"pixel\" \"pixel\"", 0},
                 {"space: LPS\nspace directions: (0.05,0,0) (0,0.05,0)\nspace units: \"cm\" \"cm\" "
                  "\"cm\"",
                  0.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        um_frame *f = NULL;
        text("NRRD0004\ntype: uchar\ndimension: 2\nsizes: 2 1\nencoding: raw\n%s\n\nab",
             cases[i].line);
        CHECK_OK(um_image_read(save("units.nrrd"), &f));
        CHECK_EQ(f->has_spacing, cases[i].mm > 0);
        for (int k = 0; k < 2 && f->has_spacing; k++)
            CHECK_NEAR(f->spacing_mm[k], cases[i].mm, 1e-12);
        um_frame_unref(&f);
    }
}

/* Stored so that bringing it to MF gives 0 1 2 / 3 4 5. */
TEST(images_are_brought_into_the_marked_far_position)
{
    static const struct {
        const char *orientation, *data;
        int w, h;
    } cases[] = {{"MF", "012345", 3, 2}, {"MFA", "012345", 3, 2}, {"UF", "210543", 3, 2},
                 {"UN", "543210", 3, 2}, {"MN", "345012", 3, 2},  {"FM", "031425", 2, 3},
                 {"FU", "251403", 2, 3}, {"NU", "524130", 2, 3},  {"NM", "304152", 2, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        um_source *s = NULL;
        um_frame *f = NULL;
        text("NDims = 2\nDimSize = %d %d\nElementType = MET_UCHAR\nElementSpacing = 0.1 0.2\n"
             "UltrasoundImageOrientation = %s\nSeq_Frame0000_Timestamp = 3\nElementDataFile = "
             "LOCAL\n%s",
             cases[i].w, cases[i].h, cases[i].orientation, cases[i].data);
        CHECK_OK(um_source_open(&s, save("turned.mha"), NULL));
        CHECK_OK(next(s, &f));
        CHECK(f->width == 3 && f->height == 2 && f->ts == 3);
        CHECK_MSG(!memcmp(f->pixels, "012345", 6), "%s: %.6s", cases[i].orientation, f->pixels);
        CHECK_EQ(f->spacing_mm[0] == 0.2, cases[i].w == 2); /* turned with it */
        um_frame_unref(&f);
        um_source_close(&s);
    }
}

TEST(spacing_of_one_is_what_plus_writes_for_unknown)
{
    for (int known = 0; known < 2; known++) {
        um_frame *f = NULL;
        text("ObjectType = Image\nNDims = 2\nDimSize = 1 1\nElementType = MET_UCHAR\n"
             "ElementSpacing = 1 1\n%sElementDataFile = LOCAL\na",
             known ? "UltramotionSpacing = known\n" : "");
        CHECK_OK(um_image_read(save("one.mha"), &f));
        CHECK_EQ(f->has_spacing, known);
        um_frame_unref(&f);
    }
}

TEST(a_cut_file_gives_its_frames_and_one_error)
{
    for (int compressed = 0; compressed < 2; compressed++) {
        const char *path = plus_file("whole.mha", compressed);
        static uint8_t whole[BYTES];
        size_t n = slurp(path, whole, sizeof whole), head = 0;
        while (memcmp(whole + head, "LOCAL\n", 6) != 0)
            head++;
        head += 6;
        int most = 0;
        for (size_t cut = head; cut < n; cut++) {
            um_source *s = NULL;
            um_frame *f = NULL;
            int frames = 0, errors = 0;
            um_status st;
            spit(in_scratch("cut.mha"), whole, cut);
            CHECK_OK(um_source_open(&s, in_scratch("cut.mha"), NULL));
            while ((st = next(s, &f)) != UM_EOF) {
                frames += st == UM_OK;
                errors += st != UM_OK;
                if (f)
                    check_pixels(f, frames - 1);
                CHECK_MSG(st == UM_OK || strstr(um_last_error(), "ends in frame"), "%s",
                          um_last_error());
                CHECK(st == UM_OK || errors == 1);
            }
            CHECK(compressed || frames == (int)((cut - head) / (W * H)));
            CHECK(errors == 1 || (compressed && frames == N)); /* all but the checksum is there */
            most = frames > most ? frames : most;
            um_source_close(&s);
        }
        CHECK(most >= N - 1);
    }
}

TEST(hostile_headers_are_refused_in_a_sentence)
{
    static const char meta[] = "ObjectType = Image\n";
    static const struct {
        const char *head, *why;
    } cases[] = {
        {"NDims = 3\nDimSize = 20000 2 2\nElementType = MET_UCHAR\n",
         "sides must be at most 16384"},
        {"NDims = 3\nDimSize = 16384 16384 2\nElementType = MET_UCHAR\n", "the area at most"},
        {"NDims = 3\nDimSize = 16384 4096 9223372036854775807\nElementType = MET_UCHAR\n",
         "ends in frame 0 of 9223372036854775807"},
        {"NDims = 3\nDimSize = 2 2 99999999999999999999\nElementType = MET_UCHAR\n", "size "},
        {"NDims = 3\nDimSize = -2 2 2\nElementType = MET_UCHAR\n", "size -2"},
        {"NDims = 3\nDimSize = 2 2 0\nElementType = MET_UCHAR\n", "without a frame"},
        {"NDims = 3\nDimSize = 0 0 7\nElementType = MET_UCHAR\n", "7 entries and no image"},
        {"NDims = 9\nDimSize = 2 2 2\nElementType = MET_UCHAR\n", "NDims 9"},
        {"NDims = 1\nDimSize = 2\nElementType = MET_UCHAR\n", "no NDims"},
        {"NDims = 3\nDimSize = 2 2\nElementType = MET_UCHAR\n", "one size for each axis"},
        {"NDims = 4\nDimSize = 2 2 2 2\nElementType = MET_UCHAR\n", "a volume at each time"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_FLOAT\n", "samples of type MET_FLOAT"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_SHORT\n",
         "MET_SHORT is not read: save it with unsigned"},
        {"NDims = 2\nDimSize = 2 2\n", "no type of samples"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nElementNumberOfChannels = 4\n",
         "4 channels"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nBinaryData = False\n",
         "pixels as text"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nUltrasoundImageOrientation = QQ\n",
         "orientation QQ"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nSeq_FrameX_Timestamp = 1\n", "field "},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nSeq_Frame0000_Timestamp = soon\n",
         "a time that is no number: soon"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nnonsense\n", "no field: nonsense"},
        {"NDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\n"
         "Seq_Frame0000_ProbeToTrackerTransform = 1 2 3\n",
         "not 16 numbers: 1 2 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        um_frame *f = NULL;
        text("%s%sElementDataFile = LOCAL\n0123456789abcdef", meta, cases[i].head);
        CHECK_MSG(um_image_read(save("bad.mha"), &f) == UM_EFORMAT && !f, "%s", cases[i].head);
        CHECK_MSG(strstr(um_last_error(), cases[i].why), "%s: %s", cases[i].head, um_last_error());
    }
    um_frame *f = NULL;
    text("%sNDims = 2\nDimSize = 2 2\n", meta);
    CHECK_EQ(um_image_read(save("bad.mha"), &f), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "ends before its line ElementDataFile"));
    static const char *const of_nrrd[][2] = {
        {"type: uchar\nencoding: bzip2\n", "encoding bzip2"},
        {"type: uchar\n", "no encoding"},
        {"type: ushort\nencoding: raw\n", "16-bit samples and no endian"},
        {"type: ushort\nencoding: raw\nendian: middle\n", "endian middle"}};
    for (size_t i = 0; i < sizeof of_nrrd / sizeof *of_nrrd; i++) {
        text("NRRD0004\n%sdimension: 2\nsizes: 2 2\n\nabcdefgh", of_nrrd[i][0]);
        CHECK_EQ(um_image_read(save("bad.nrrd"), &f), UM_EFORMAT);
        CHECK_MSG(strstr(um_last_error(), of_nrrd[i][1]), "%s", um_last_error());
    }
}

/* ---- recordings ---- */

static um_frame *image(int i)
{
    um_frame *f = NULL;
    char source[80];
    if (um_frame_create(&f, 4, 3, 1) != UM_OK)
        abort();
    for (int k = 0; k < 12; k++)
        f->pixels[k] = (uint8_t)(i + 7 * k);
    f->id = (uint64_t)i;
    f->ts = 1e9 + i / 3.0;
    f->has_pose = i % 3 == 0;
    for (int k = 0; k < 16; k++)
        f->pose[k] = f->has_pose ? i / 7.0 + k : 0;
    f->has_spacing = 1;
    f->spacing_mm[0] = f->spacing_mm[1] = 1;
    snprintf(source, sizeof source, "a %% b\n%.*s.png", i % 50, /* lines of many lengths */
             "0123456789012345678901234567890123456789012345678");
    um_frame_set_source(f, source);
    return f;
}

static um_status record_one(um_sink *sink, int i)
{
    um_frame *f = image(i);
    um_packet fields = {.struct_size = sizeof fields,
                        .frame_id = (uint64_t)i,
                        .width = 4,
                        .height = 3,
                        .source = f->source};
    um_packet *made = NULL;
    um_status st = um_packet_create(&made, &fields, NULL, 0);
    if (st == UM_OK)
        st = um_sink_write(sink, made, f, NULL);
    const um_packet *done = made;
    um_packet_unref(&done);
    um_frame_unref(&f);
    return st;
}

static const char *spec(const char *scheme, const char *folder)
{
    static char text[2][500];
    static int turn;
    turn = !turn;
    snprintf(text[turn], sizeof *text, "%s:%s", scheme, folder);
    return text[turn];
}

static void forget(const char *folder)
{
    static const char *const names[] = {"frames_000.mhd", "frames_000.raw", "packets.jsonl"};
    char path[500];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* The frames of a recording, each to the bit; -1: one is not. */
static int replayed(const char *folder)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    int n = 0;
    um_status st = um_source_open(&s, spec("replay", folder), NULL);
    for (; st == UM_OK && (st = next(s, &f)) == UM_OK; n++) {
        um_frame *want = image(n);
        bool same = f->width == 4 && f->height == 3 && !memcmp(f->pixels, want->pixels, 12) &&
                    f->ts == want->ts && f->has_pose == want->has_pose &&
                    !memcmp(f->pose, want->pose, f->has_pose ? sizeof f->pose : 0) &&
                    f->has_spacing && f->spacing_mm[0] == 1 && strcmp(f->source, want->source) == 0;
        um_frame_unref(&want);
        if (!same)
            break;
    }
    um_frame_unref(&f);
    um_source_close(&s);
    return st == UM_EOF ? n : -1;
}

TEST(a_recording_comes_back_to_the_bit)
{
    um_sink *sink = NULL;
    const char *folder = in_scratch("back");
    CHECK_OK(um_sink_open(&sink, spec("record", folder), NULL));
    for (int i = 0; i < 60; i++)
        CHECK_OK(record_one(sink, i));
    CHECK_OK(um_sink_close(&sink));
    CHECK_EQ(replayed(folder), 60);
    CHECK_EQ(um_sink_open(&sink, spec("record", folder), NULL), UM_EIO);
    CHECK(strstr(um_last_error(), "holds a recording"));
    char path[500];
    snprintf(path, sizeof path, "%s/frames_000.raw", folder);
    size_t n = slurp(path, file, sizeof file);
    file[12 * 40 + 3] ^= 16;
    spit(path, file, n);
    CHECK_EQ(replayed(folder), -1);
    CHECK_MSG(strstr(um_last_error(), "frames_000.mhd: pixels of a frame have changed: CRC-32"),
              "%s", um_last_error());
    forget(folder);
}

/* Readers keep a header in memory, and ours has a limit. */
TEST(a_long_recording_has_parts)
{
    enum { FRAMES = 3, LONG = 33 << 20 };
    um_sink *sink = NULL;
    um_source *s = NULL;
    um_frame *f = NULL;
    char *name = malloc(LONG + 1), path[500], later[500];
    const char *folder = in_scratch("long");
    memset(name, 'a', LONG);
    name[LONG] = 0;
    CHECK_OK(um_sink_open(&sink, spec("record", folder), NULL));
    for (int i = 0; i < FRAMES; i++) {
        um_packet fields = {.struct_size = sizeof fields, .width = 4, .height = 3}, *made = NULL;
        f = image(i);
        CHECK_OK(um_frame_set_source(f, i ? "b" : name));
        CHECK_OK(um_packet_create(&made, &fields, NULL, 0));
        CHECK_OK(um_sink_write(sink, made, f, NULL));
        const um_packet *done = made;
        um_packet_unref(&done);
        um_frame_unref(&f);
    }
    CHECK_OK(um_sink_close(&sink));
    CHECK_OK(um_source_open(&s, spec("replay", folder), NULL));
    for (int i = 0; i < FRAMES; i++) {
        CHECK_OK(next(s, &f));
        CHECK(f && f->ts == 1e9 + i / 3.0 && strcmp(f->source, i ? "b" : name) == 0);
    }
    CHECK_EQ(next(s, &f), UM_EOF);
    um_source_close(&s);
    snprintf(path, sizeof path, "%s/frames_001.mhd", folder);
    snprintf(later, sizeof later, "%s/frames_002.mhd", folder);
    CHECK(rename(path, later) == 0); /* one that is missing is told, and those after it come */
    CHECK_OK(um_source_open(&s, spec("replay", folder), NULL));
    CHECK_OK(next(s, &f));
    CHECK_EQ(next(s, &f), UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "frames_001.mhd: not there, and parts behind it are"), "%s",
              um_last_error());
    for (int i = 1; i < FRAMES; i++)
        CHECK_OK(next(s, &f));
    CHECK_EQ(next(s, &f), UM_EOF);
    um_source_close(&s);
    CHECK(unlink(later) == 0);
    snprintf(path, sizeof path, "%s/frames_001.raw", folder);
    CHECK(unlink(path) == 0);
    forget(folder);
    free(name);
}

/* A key's value is no field, whatever the key, and does not get into the header of a recording. */
TEST(keys_are_not_taken_for_fields)
{
    um_sink *sink = NULL;
    um_source *s = NULL;
    um_frame *f = NULL;
    char wanted[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const char *folder = in_scratch("keys");
    text("NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 3 3\nencoding: raw\n"
         "Kinds:=domain domain\ntype:=double\nDimSize:=1 1 1\nElementDataFile:=LOCAL\n"
         "Modality:=US\nSeq_Frame0000_ImageStatus:=INVALID\n\n%s",
         wanted);
    CHECK_OK(um_sink_open(&sink, spec("record", folder), NULL));
    CHECK_OK(um_source_open(&s, save("keys.nrrd"), NULL));
    CHECK_EQ(next(s, &f), UM_EFORMAT); /* the next one brings the keys */
    for (int i = 1; i < 3; i++) {
        um_packet fields = {.struct_size = sizeof fields, .width = 4, .height = 3}, *made = NULL;
        CHECK_OK(next(s, &f));
        CHECK(f->width == 4 && !memcmp(f->pixels, wanted + 12 * i, 12));
        CHECK_OK(um_packet_create(&made, &fields, NULL, 0));
        CHECK_OK(um_sink_write(sink, made, f, NULL));
        const um_packet *done = made;
        um_packet_unref(&done);
    }
    um_source_close(&s);
    CHECK_OK(um_sink_close(&sink));
    CHECK_OK(um_source_open(&s, spec("replay", folder), NULL));
    for (int i = 1; i < 3; i++) {
        CHECK_OK(next(s, &f));
        CHECK(!memcmp(f->pixels, wanted + 12 * i, 12));
        CHECK(i > 1 || strstr(um_frame_notes(f), "\nModality = US\n"));
    }
    CHECK_EQ(next(s, &f), UM_EOF);
    um_source_close(&s);
    forget(folder);
}

/* Every state of the header between two frames, a write that ended anywhere included, is that of
 * the frame before. */
TEST(a_header_is_whole_at_every_moment)
{
    static uint8_t before[BYTES], after[BYTES], mixed[BYTES];
    static const char last[] = "ElementDataFile = frames_000.raw\n", dims[] = "\nDimSize = 4 3 ";
    enum { LAST = sizeof last - 1, COUNT = 20 };
    um_sink *sink = NULL;
    char folder[400], other[400], header[500], pixels_of[500], copied[500], path[500];
    strcpy(folder, in_scratch("moments"));
    strcpy(other, in_scratch("other"));
    snprintf(header, sizeof header, "%s/frames_000.mhd", folder);
    snprintf(pixels_of, sizeof pixels_of, "%s/frames_000.raw", folder);
    snprintf(path, sizeof path, "%s/frames_000.mhd", other);
    snprintf(copied, sizeof copied, "%s/frames_000.raw", other);
    CHECK(mkdir(other, 0777) == 0);
    CHECK_OK(um_sink_open(&sink, spec("record", folder), NULL));
    CHECK_OK(record_one(sink, 0));
    size_t was = slurp(header, before, sizeof before);
    for (int i = 1; i < 120; i++) {
        CHECK_OK(record_one(sink, i));
        size_t n = slurp(header, after, sizeof after), tail = was - LAST, at = 0;
        spit(copied, file, slurp(pixels_of, file, sizeof file));
        CHECK(n > was && n < sizeof after);
        CHECK(memcmp(before + tail, last, LAST) == 0 && memcmp(after + n - LAST, last, LAST) == 0);
        CHECK((n - LAST) % 4096 + LAST <= 4096); /* the write that counts lies in one page */
        while (memcmp(before + at, dims, sizeof dims - 1) != 0)
            at++;
        at += sizeof dims - 1;
        CHECK(at + COUNT < 4096);
        for (size_t cut = was; cut <= n + 1; cut += cut < n ? (n - was) / 3 + 1 : 1) {
            memcpy(mixed, after, n);
            memcpy(mixed + at, before + at, COUNT);
            if (cut <= n) /* n + 1: all but the number of frames */
                memcpy(mixed + tail, last, LAST);
            spit(path, mixed, cut < n ? cut : n);
            CHECK_EQ(replayed(other), i);
        }
        spit(path, after, n);
        CHECK_EQ(replayed(other), i + 1);
        memcpy(before, after, n);
        was = n;
    }
    um_sink_close(&sink);
    forget(folder);
    forget(other);
}

TEST(a_killed_recording_opens_up_to_its_last_whole_frame)
{
    const char *folder = in_scratch("killed");
    for (int round = 0; round < 12; round++) {
        int told[2], written = 0, want = 3 + 37 * round;
        char one;
        CHECK(pipe(told) == 0);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            um_sink *sink = NULL;
            um_status st = um_sink_open(&sink, spec("record", folder), NULL);
            for (int i = 0; st == UM_OK; i++)
                if ((st = record_one(sink, i)) == UM_OK && write(told[1], "", 1) != 1)
                    break;
            _exit(1);
        }
        close(told[1]);
        while (written < want && read(told[0], &one, 1) == 1)
            written++;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(told[0], &one, 1) == 1)
            written++;
        close(told[0]);
        CHECK(written >= want);
        int n = replayed(folder);
        CHECK_MSG(n == written || n == written + 1, "%d frames, %d were told: %s", n, written,
                  um_last_error());
        forget(folder);
    }
}

static um_status record_frame(const char *folder, um_frame *f)
{
    um_sink *sink = NULL;
    um_packet *made = NULL;
    um_packet fields = {.struct_size = sizeof fields, .width = f->width, .height = f->height};
    um_status st = um_sink_open(&sink, spec("record", folder), NULL);
    if (st == UM_OK)
        st = um_packet_create(&made, &fields, NULL, 0);
    if (st == UM_OK)
        st = um_sink_write(sink, made, f, NULL);
    const um_packet *done = made;
    um_packet_unref(&done);
    um_status closed = um_sink_close(&sink);
    return st == UM_OK ? closed : st;
}

TEST(what_came_over_a_network_lies_where_it_lay)
{
    um_frame *f = image(0), *back = NULL;
    um_source *s = NULL;
    char folder[400];
    struct um_origin *o = um_zalloc(sizeof *o);
    strcpy(folder, in_scratch("live"));
    strcpy(o->device, "Image %1_Reference");
    o->stamp = 0x6507f3a1deadbeef;
    o->image = (struct um_igtl_image){.components = 1,
                                      .scalar = UM_IGTL_U8,
                                      .endian = UM_IGTL_LITTLE,
                                      .coordinates = UM_IGTL_RAS,
                                      .size = {4, 3, 1},
                                      .part = {4, 3, 1}};
    for (int i = 0; i < 3; i++) {
        o->image.t[i] = .1f + (float)i;
        o->image.s[i] = -1 / (3.f + (float)i);
        o->image.n[i] = i == 2;
        o->image.p[i] = 1e-7f * (float)i;
    }
    o->transforms = 4;
    strcpy(o->transform[0].name, "StylusToTracker");
    strcpy(o->transform[1].name, "ProbeToReference");
    strcpy(o->transform[2].name, "NeedleToReference"); /* said to be none */
    strcpy(o->transform[3].name, "PointerToTracker");  /* not finite, and so none */
    o->transform[0].valid = o->transform[1].valid = o->transform[3].valid = true;
    for (int i = 0; i < 12; i++) {
        o->transform[0].matrix[i] = (float)i / 7;
        o->transform[1].matrix[i] = o->transform[2].matrix[i] = (float)i / -3;
        o->transform[3].matrix[i] = i == 7 ? INFINITY : i == 3 ? NAN : 0;
        f->pose[i] = (double)o->transform[1].matrix[i];
    }
    f->pose[12] = f->pose[13] = f->pose[14] = 0;
    f->pose[15] = 1;
    um_frame_set_origin(f, o);
    CHECK_OK(record_frame(folder, f));
    CHECK_OK(um_source_open(&s, spec("replay", folder), NULL));
    CHECK_OK(next(s, &back));
    const struct um_origin *r = um_frame_origin(back);
    CHECK(r && r->stamp == o->stamp && r->transforms == 4);
    CHECK_STR(r->device, o->device);
    CHECK(!memcmp(r->image.t, o->image.t, 12) && !memcmp(r->image.s, o->image.s, 12) &&
          !memcmp(r->image.n, o->image.n, 12) && !memcmp(r->image.p, o->image.p, 12) &&
          !memcmp(r->image.size, o->image.size, 6) && !memcmp(r->image.part, o->image.part, 6));
    CHECK(memcmp(r->transform, o->transform, 3 * sizeof *r->transform) == 0);
    CHECK(!r->transform[3].valid);
    CHECK(back->has_pose && memcmp(back->pose, f->pose, sizeof f->pose) == 0);
    char path[500];
    snprintf(path, sizeof path, "%s/frames_000.mhd", folder);
    file[slurp(path, file, sizeof file - 1)] = 0;
    CHECK(strstr((char *)file, "\nSeq_Frame0000_Image__1ToReferenceTransform = 0.1") &&
          strstr((char *)file, "\nSeq_Frame0000_UltramotionPose = ProbeToReference\n"));
    size = 0;
    um_frame_unref(&f);
    um_frame_unref(&back);
    um_source_close(&s);
    forget(folder);
}

/* Plus sends its calibration, and may send the image's place, too. */
TEST(transforms_of_the_image_come_back_as_well)
{
    static const char *const names[] = {"ImageToProbe", "ImageToReference"};
    char folder[400], path[500];
    for (int n = 1; n <= 2; n++) {
        um_frame *f = image(0), *back = NULL;
        um_source *s = NULL;
        struct um_origin *o = um_zalloc(sizeof *o);
        strcpy(folder, in_scratch(names[n - 1]));
        strcpy(o->device, "Image_Reference");
        o->image.t[0] = o->image.s[1] = o->image.n[2] = .5f;
        o->transforms = n;
        for (int i = 0; i < n; i++) {
            strcpy(o->transform[i].name, names[i]);
            o->transform[i].matrix[0] = 3 + (float)i;
            o->transform[i].valid = true;
        }
        um_frame_set_origin(f, o);
        CHECK_OK(record_frame(folder, f));
        CHECK_OK(um_source_open(&s, spec("replay", folder), NULL));
        CHECK_OK(next(s, &back));
        const struct um_origin *r = um_frame_origin(back);
        CHECK(r && r->transforms == n);
        CHECK(r && memcmp(r->transform, o->transform, (size_t)n * sizeof *r->transform) == 0);
        snprintf(path, sizeof path, "%s/frames_000.mhd", folder);
        file[slurp(path, file, sizeof file - 1)] = 0;
        const char *place = strstr((char *)file, "_ImageToReferenceTransform = ");
        CHECK(place && strncmp(place + 29, n == 1 ? "0.5 " : "4 ", 2) == 0);
        CHECK(place && !strstr(place + 1, "_ImageToReferenceTransform = "));
        size = 0;
        um_frame_unref(&f);
        um_frame_unref(&back);
        um_source_close(&s);
        forget(folder);
    }
}

TEST(a_place_that_is_none_comes_back_as_it_was)
{
    um_frame *f = image(0), *back = NULL;
    um_source *s = NULL;
    char folder[400];
    struct um_origin *o = um_zalloc(sizeof *o);
    strcpy(folder, in_scratch("nowhere"));
    strcpy(o->device, "Image_Reference");
    o->stamp = 0x6507f3a1deadbeef;
    o->image.t[0] = NAN;
    o->image.s[1] = INFINITY;
    o->image.p[2] = -INFINITY;
    um_frame_set_origin(f, o);
    CHECK_OK(record_frame(folder, f));
    CHECK_OK(um_source_open(&s, spec("replay", folder), NULL));
    CHECK_OK(next(s, &back));
    const struct um_origin *r = um_frame_origin(back);
    CHECK(r && r->stamp == o->stamp && strcmp(r->device, o->device) == 0);
    CHECK(r && !memcmp(r->image.t, o->image.t, 12) && !memcmp(r->image.s, o->image.s, 12) &&
          !memcmp(r->image.p, o->image.p, 12));
    um_frame_unref(&f);
    um_frame_unref(&back);
    um_source_close(&s);
    forget(folder);
}

/* ---- masks ---- */

/* Frame i of 4x3: class 0 where x <= i, the better object, over class 4 where y <= 1; none in frame
 * 2. */
static um_status mask_one(um_sink *sink, int i)
{
    um_frame *f = image(i);
    uint8_t left[12] = {0}, top[12] = {0}; /* rows of 4 bytes, a bit a pixel */
    for (int y = 0; y < 3; y++) {
        left[4 * y] = (uint8_t)((1 << (i + 1)) - 1);
        top[4 * y] = y <= 1 ? 15 : 0;
    }
    um_object best = {.struct_size = sizeof best,
                      .name = "bone\n",
                      .has_mask = 1,
                      .bits = left,
                      .mask_area_px = 3 * (uint32_t)(i + 1),
                      .mask_box = {0, 0, i + 1, 3}};
    um_object other = {.struct_size = sizeof other,
                       .label = 4,
                       .has_mask = 1,
                       .bits = top,
                       .mask_area_px = 8,
                       .mask_box = {0, 0, 4, 2}};
    const um_object *objects[] = {&best, &other};
    um_packet fields = {.struct_size = sizeof fields,
                        .frame_id = (uint64_t)i,
                        .ts = f->ts,
                        .width = 4,
                        .height = 3,
                        .crop = {0, 0, 4, 3},
                        .state = i != 2};
    um_packet *made = NULL;
    um_status st = um_packet_create(&made, &fields, objects, i == 2 ? 0 : 2);
    if (st == UM_OK)
        st = um_sink_write(sink, made, f, NULL);
    const um_packet *done = made;
    um_packet_unref(&done);
    um_frame_unref(&f);
    return st;
}

static int label(int i, int x, int y)
{
    return i == 2 ? 0 : x <= i ? 1 : y <= 1 ? 5 : 0;
}

TEST(masks_are_label_maps_by_class)
{
    static const char *const names[] = {"out.mha", "out.seq.nrrd", "out.seg.nrrd"};
    for (int k = 0; k < 3; k++) {
        um_sink *sink = NULL;
        um_source *s = NULL;
        um_frame *f = NULL;
        char path[400];
        strcpy(path, in_scratch(names[k]));
        CHECK_OK(um_sink_open(&sink, spec("masks", path), NULL));
        for (int i = 0; i < 4; i++)
            CHECK_OK(mask_one(sink, i));
        struct stat now;
        CHECK(stat(path, &now) == 0 && now.st_size == 0); /* held, and nothing of it yet */
        CHECK_OK(um_sink_close(&sink));
        CHECK_OK(um_source_open(&s, path, NULL));
        for (int i = 0; i < 4; i++) {
            CHECK_OK(next(s, &f));
            CHECK(f->width == 4 && f->height == 3 && f->channels == 1);
            for (int j = 0; j < 12; j++)
                CHECK_EQ(f->pixels[j], label(i, j % 4, j / 4));
            CHECK_EQ(f->has_ts, k < 2);
            CHECK(k == 2 || f->ts == 1e9 + i / 3.0);
            CHECK_EQ(f->has_pose, k == 0 && i % 3 == 0);
        }
        CHECK_EQ(next(s, &f), UM_EOF);
        um_source_close(&s);
        size_t n = slurp(path, file, sizeof file - 1);
        file[n] = 0;
        CHECK(k == 0 || memcmp(file, "NRRD0004\n", 9) == 0);
        if (k == 1)
            CHECK(strstr((char *)file, "\nsizes: 4 3 1 4\n") &&
                  strstr((char *)file, "\nkinds: domain domain domain list\n") &&
                  strstr((char *)file, "\nDataNodeClassName:=vtkMRMLLabelMapVolumeNode\n"));
        if (k == 2)
            CHECK(strstr((char *)file, "\nsizes: 4 3 4\n") &&
                  strstr((char *)file, "\nSegment0_Extent:=0 3 0 2 0 3\n") &&
                  strstr((char *)file, "\nSegment0_Name:=bone\\x0a\n") &&
                  strstr((char *)file, "\nSegment1_Extent:=0 3 0 1 0 3\n") &&
                  strstr((char *)file, "\nSegment1_LabelValue:=5\n") &&
                  strstr((char *)file, "\nSegment1_Name:=class 4\n"));
        size = 0;
    }
}

/* Slice i stays that of frame i where others could not be read. */
TEST(masks_leave_room_for_frames_without_a_packet)
{
    static const char *const names[] = {"gaps.mha", "gaps.seq.nrrd", "gaps.seg.nrrd"};
    um_sink_settings settings;
    um_sink_settings_default(&settings);
    for (int k = 0; k < 3; k++) {
        um_sink *sink = NULL;
        um_source *s = NULL, *of = NULL;
        um_frame *f = NULL;
        CHECK_OK(um_source_open(&of, "push:", NULL));
        settings.source = of;
        char path[400];
        strcpy(path, in_scratch(names[k]));
        CHECK_OK(um_sink_open(&sink, spec("masks", path), &settings));
        CHECK_OK(mask_one(sink, 1));
        CHECK_OK(mask_one(sink, 3));
        CHECK_OK(um_sink_close(&sink));
        um_source_close(&of);
        CHECK_OK(um_source_open(&s, path, NULL));
        for (int i = 0; i < 4; i++) {
            if (k == 0 && i % 2 == 0) {
                CHECK_EQ(next(s, &f), UM_EFORMAT);
                CHECK_MSG(strstr(um_last_error(), "its image is INVALID"), "%s", um_last_error());
                continue;
            }
            CHECK_OK(next(s, &f));
            for (int j = 0; j < 12; j++)
                CHECK_EQ(f->pixels[j], i % 2 ? label(i, j % 4, j / 4) : 0);
            CHECK(k == 2 || fabs(f->ts - (1e9 + (i | 1) / 3.0 - (i % 2 ? 0 : .002))) < 1e-6);
        }
        CHECK_EQ(next(s, &f), UM_EOF);
        um_source_close(&s);
    }
}

/* 3D Slicer sorts frames by time, and keeps one of those within 1 ms. */
TEST(masks_in_a_sequence_follow_each_other)
{
    static const int frames[] = {0, 3, 1, 2, 2};
    static const double times[] = {0, 1, 1.002, 1.002 + 1 / 3., 1.004 + 1 / 3.};
    um_sink *sink = NULL;
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_sink_open(&sink, spec("masks", in_scratch("back.seq.nrrd")), NULL));
    for (int i = 0; i < 5; i++)
        CHECK_OK(mask_one(sink, frames[i]));
    CHECK_OK(um_sink_close(&sink));
    CHECK_OK(um_source_open(&s, in_scratch("back.seq.nrrd"), NULL));
    for (int i = 0; i < 5; i++) {
        CHECK_OK(next(s, &f));
        CHECK_MSG(fabs(f->ts - 1e9 - times[i]) < 1e-6, "%d: %.6f", i, f->ts - 1e9);
    }
    CHECK_EQ(next(s, &f), UM_EOF);
    um_source_close(&s);
}

TEST(masks_that_cannot_be_written_are_refused)
{
    um_sink *sink = NULL, *other = NULL;
    um_frame *f = NULL;
    um_packet *made = NULL;
    CHECK_EQ(um_sink_open(&sink, spec("masks", in_scratch("out.png")), NULL), UM_EINVAL);
    CHECK(strstr(um_last_error(), "want a file that ends in .mha"));
    CHECK_EQ(um_sink_open(&sink, "masks:/none/out.mha", NULL), UM_EIO);
    CHECK_OK(um_sink_open(&sink, spec("masks", in_scratch("sizes.mha")), NULL));
    CHECK_EQ(um_sink_open(&other, spec("masks", in_scratch("sizes.mha")), NULL), UM_EIO);
    CHECK_MSG(strstr(um_last_error(), "another one writes"), "%s", um_last_error());
    CHECK_OK(mask_one(sink, 0));
    CHECK_OK(um_frame_create(&f, 3, 4, 1));
    um_packet fields = {.struct_size = sizeof fields, .frame_id = 7, .width = 3, .height = 4};
    CHECK_OK(um_packet_create(&made, &fields, NULL, 0));
    CHECK_EQ(um_sink_write(sink, made, f, NULL), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "frame 7 has 3x4 pixels, those before 4x3"), "%s",
              um_last_error());
    const um_packet *done = made;
    um_packet_unref(&done);
    um_frame_unref(&f);
    CHECK_OK(um_sink_close(&sink)); /* what came before is kept */
    CHECK_OK(um_image_read(in_scratch("sizes.mha"), &f));
    um_frame_unref(&f);
}

TEST(writing_survives_failed_allocations)
{
    static const char *const names[] = {"fail.mha", "fail.seg.nrrd"};
    for (int k = 0; k < 3; k++)
        for (uint64_t at = 1; at < 40; at++) {
            um_sink *sink = NULL;
            const char *folder = in_scratch("fail");
            FORGET_ERROR();
            um_mem_fail_at(at);
            um_status st = k < 2 ? um_sink_open(&sink, spec("masks", in_scratch(names[k])), NULL)
                                 : um_sink_open(&sink, spec("record", folder), NULL);
            for (int i = 0; i < 2 && st == UM_OK; i++) {
                um_frame *f = NULL;
                um_mem_fail_at(0); /* of the library, not of the test's own packet */
                um_packet *made = NULL;
                um_packet fields = {.struct_size = sizeof fields, .width = 4, .height = 3};
                f = image(i);
                CHECK_OK(um_packet_create(&made, &fields, NULL, 0));
                FORGET_ERROR();
                um_mem_fail_at(at);
                st = um_sink_write(sink, made, f, NULL);
                um_mem_fail_at(0);
                const um_packet *done = made;
                um_packet_unref(&done);
                um_frame_unref(&f);
                um_mem_fail_at(at);
            }
            CHECK_MEMORY(st);
            FORGET_ERROR();
            st = um_sink_close(&sink);
            um_mem_fail_at(0);
            CHECK_MEMORY(st);
            forget(folder);
        }
}

TEST(failed_allocations_are_survived)
{
    const char *path = plus_file("memory.mha", true);
    for (uint64_t k = 1; k < 40; k++) {
        um_source *s = NULL;
        um_frame *f = NULL;
        FORGET_ERROR();
        um_mem_fail_at(k);
        um_status st = um_source_open(&s, path, NULL);
        CHECK_MEMORY(st);
        while (st == UM_OK) {
            FORGET_ERROR();
            st = next(s, &f);
            CHECK(st == UM_EOF || st == UM_OK || st == UM_ENOMEM);
        }
        um_mem_fail_at(0);
        um_frame_unref(&f);
        um_source_close(&s);
    }
    scratch_close();
}

TEST_MAIN
