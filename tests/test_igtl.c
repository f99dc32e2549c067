/* SPDX-License-Identifier: Apache-2.0 */
/* OpenIGTLink: bytes against vectors that others made, everything that must be refused, and the
 * source and the sink against sockets of this process on 127.0.0.1. Nothing sleeps: who waits waits
 * for a socket, at most TIMEOUT_S. */
#include "test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/wake.h"
#include "igtl/content.h"
#include "io/igtl_link.h"
#include "io/origin.h"
#include "ultramotion/ultramotion.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { TIMEOUT_S = 20 };

/* ---- bytes ---- */

static size_t unhex(uint8_t *to, const char *hex)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;
        if (sscanf(hex + 2 * i, "%2x", &v) != 1)
            abort();
        to[i] = (uint8_t)v;
    }
    return n;
}

static const char A_HEAD[] =
    "0001494D41474500000000000000496D6167655F5265666572656E636500000000006553F1008000000000000000"
    "0000"
    "0050E0423CC4F1969681";
static const char A_BODY[] =
    "0001010302010004000200013F0000000000000000000000000000003E8000000000000000000000000000003F8000"
    "00412C000041A1000041F000000000000000000004000200010001020304050607";
static const char B_HEAD[] =
    "0002535452494E4700000000000053746174650000000000000000000000000000006553F1000000000000000000"
    "0000"
    "003961F7B369A5C909FE";
static const char B_BODY[] = "000C00120000001500000007000300024F4B00020007000300000002000500030000"
                             "00074672616D6549643432537461746556495349424C45";

static uint64_t slow_crc(const uint8_t *p, size_t n)
{
    uint64_t crc = 0;
    for (size_t i = 0; i < n; i++) {
        crc ^= (uint64_t)p[i] << 56;
        for (int bit = 0; bit < 8; bit++)
            crc = crc << 1 ^ (crc >> 63 ? 0x42F0E1EBA9EA3693 : 0);
    }
    return crc;
}

TEST(crc_is_that_of_the_reference)
{
    uint8_t b[512];
    CHECK(um_igtl_crc(0, "123456789", 9) == 0x6C40DF5F0B497347);
    CHECK(um_igtl_crc(0, "", 0) == 0);
    b[0] = 1;
    CHECK(um_igtl_crc(0, b, 1) == 0x42F0E1EBA9EA3693);
    b[0] = 255;
    CHECK(um_igtl_crc(0, b, 1) == 0x9AFCE626CE85B507);
    size_t n = unhex(b, "BF7473CD3E4959E6BE63DD98BE4959E63E12491B3F7852D63E63DD983F7852D6BDC830AE42"
                        "383660419BC46742383660");
    CHECK(um_igtl_crc(0, b, n) == 0xF6DD2B8EB4DF6DD2);
    memcpy(b, "\0\3\0\x16Welcome to OpenIGTLink", 26);
    CHECK(um_igtl_crc(0, b, 26) == 0xCEF1B42A701104D4);
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)(i * 89 + (i >> 3));
    for (size_t from = 0; from < 17; from++) /* whatever the alignment, the length and the cut */
        for (n = 0; from + n <= sizeof b; n += n < 40 ? 1 : 37) {
            size_t cut = n / 3;
            uint64_t crc = um_igtl_crc(0, b + from, cut);
            CHECK(um_igtl_crc(crc, b + from + cut, n - cut) == slow_crc(b + from, n));
        }
}

TEST(status_vectors_of_the_reference)
{
    struct um_igtl_outbox out = {0};
    struct um_igtl_header h;
    struct um_igtl_message m;
    struct um_igtl_status s;
    um_igtl_begin(&out, 1, "STATUS", "Device", 0, 0);
    um_igtl_status_write(&out, 15, 10, "ACTUATOR_DISABLED", "Actuator A is disabled.");
    um_igtl_end(&out, NULL, 0);
    CHECK_OK(um_igtl_header_read(&h, out.data, out.size));
    CHECK_EQ(h.body_size, 54);
    CHECK(h.crc == 0x98EE43EED8E431CF);
    CHECK_OK(um_igtl_message_read(&m, &h, out.data + UM_IGTL_HEADER, 54, true));
    CHECK_OK(um_igtl_status_read(&s, &m));
    CHECK_EQ(s.code, 15);
    CHECK_EQ(s.subcode, 10);
    CHECK_STR(s.name, "ACTUATOR_DISABLED");
    CHECK_STR(s.text, "Actuator A is disabled.");
    um_igtl_begin(&out, 1, "STATUS", "", 0, 0);
    size_t at = out.start;
    um_igtl_status_write(&out, 1, 0, "", "");
    um_igtl_end(&out, NULL, 0);
    CHECK_OK(um_igtl_header_read(&h, out.data + at, UM_IGTL_HEADER));
    CHECK_EQ(h.body_size, 31);
    CHECK(h.crc == 0x4EB66A467286AFA6);
    um_igtl_outbox_finish(&out);
}

/* Vector A: what pyigtl packs. */
TEST(image_vector)
{
    uint8_t want[512];
    size_t n = unhex(want, A_HEAD);
    n += unhex(want + n, A_BODY);
    struct um_igtl_header h;
    struct um_igtl_message m;
    struct um_igtl_image image;
    struct um_igtl_outbox out = {0};
    double matrix[16];
    CHECK_OK(um_igtl_header_read(&h, want, n));
    CHECK_EQ(h.version, 1);
    CHECK_STR(h.type, "IMAGE");
    CHECK_STR(h.device, "Image_Reference");
    CHECK_NEAR(um_igtl_seconds(h.stamp), 1700000000.5, 0);
    CHECK_OK(um_igtl_message_read(&m, &h, want + UM_IGTL_HEADER, n - UM_IGTL_HEADER, true));
    CHECK_OK(um_igtl_image_read(&image, &m));
    CHECK_EQ(image.size[0], 4);
    CHECK_EQ(image.size[1], 2);
    CHECK_EQ(image.bytes, 8);
    for (int i = 0; i < 8; i++)
        CHECK_EQ(image.pixels[i], i);
    um_igtl_image_matrix(&image, matrix);
    CHECK_NEAR(matrix[0], 0.5, 0);
    CHECK_NEAR(matrix[5], 0.25, 0);
    CHECK_NEAR(matrix[3], 10, 0);
    CHECK_NEAR(matrix[7], 20, 0);
    CHECK_NEAR(matrix[11], 30, 0);
    struct um_igtl_image placed = image;
    um_igtl_image_place(&placed, matrix);
    CHECK(memcmp(placed.p, image.p, sizeof image.p) == 0);
    um_igtl_begin(&out, 1, "IMAGE", "Image_Reference", um_igtl_stamp(1700000000.5), 0);
    um_igtl_image_write(&out, &image);
    um_igtl_bytes(&out, image.pixels, image.bytes);
    um_igtl_end(&out, NULL, 0);
    CHECK_EQ(out.size, n);
    CHECK(memcmp(out.data, want, n) == 0);
    um_igtl_outbox_finish(&out);
}

/* Vector B. */
TEST(string_vector_with_metadata)
{
    uint8_t want[512];
    size_t n = unhex(want, B_HEAD), at = 0;
    n += unhex(want + n, B_BODY);
    struct um_igtl_header h;
    struct um_igtl_message m;
    struct um_igtl_string s;
    struct um_igtl_pair pair, sent[2] = {{"FrameId", "42", 7, 2, UM_IGTL_ASCII},
                                         {"State", "VISIBLE", 5, 7, UM_IGTL_ASCII}};
    struct um_igtl_outbox out = {0};
    CHECK_OK(um_igtl_header_read(&h, want, n));
    CHECK_OK(um_igtl_message_read(&m, &h, want + UM_IGTL_HEADER, n - UM_IGTL_HEADER, true));
    CHECK_EQ(m.id, 7);
    CHECK_EQ(m.pairs, 2);
    CHECK_OK(um_igtl_string_read(&s, &m));
    CHECK(s.size == 2 && memcmp(s.text, "OK", 2) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(um_igtl_message_pair(&m, &at, &pair));
        CHECK(pair.key_size == sent[i].key_size && pair.value_size == sent[i].value_size &&
              memcmp(pair.key, sent[i].key, pair.key_size) == 0 &&
              memcmp(pair.value, sent[i].value, pair.value_size) == 0);
    }
    CHECK(!um_igtl_message_pair(&m, &at, &pair));
    um_igtl_begin(&out, 2, "STRING", "State", um_igtl_stamp(1700000000), 7);
    um_igtl_u16(&out, UM_IGTL_ASCII);
    um_igtl_u16(&out, 2);
    um_igtl_bytes(&out, "OK", 2);
    um_igtl_end(&out, sent, 2);
    CHECK_EQ(out.size, n);
    CHECK(memcmp(out.data, want, n) == 0);
    /* the reference's TRANSFORM with two entries: 12 + 48 + 18 + 39 */
    const float unit[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    struct um_igtl_pair two[2] = {{"First patient age", "22", 17, 2, UM_IGTL_ASCII},
                                  {"Second patient age", "25", 18, 2, UM_IGTL_ASCII}};
    um_igtl_begin(&out, 2, "TRANSFORM", "Device", 0, 1);
    at = out.start;
    um_igtl_transform_write(&out, unit);
    um_igtl_end(&out, two, 2);
    CHECK_OK(um_igtl_header_read(&h, out.data + at, UM_IGTL_HEADER));
    CHECK_EQ(h.body_size, 117);
    um_igtl_outbox_finish(&out);
}

TEST(stamps_there_and_back)
{
    CHECK(um_igtl_stamp(1700000000.5) == 0x6553F10080000000);
    CHECK(um_igtl_stamp(0) == 0 && um_igtl_stamp(-1) == 0 && um_igtl_stamp(NAN) == 0);
    CHECK(um_igtl_stamp(1e12) == UINT64_MAX);
    for (uint64_t s = 0x6553F10000000000; s < 0x6553F10100000000; s += 0x246913579)
        CHECK(um_igtl_stamp(um_igtl_seconds(s)) >> 11 == s >> 11); /* a double has 52 bits */
}

/* ---- what must be refused ---- */

/* A message in one piece. */
static um_status read_whole(const uint8_t *p, size_t n, struct um_igtl_message *m)
{
    struct um_igtl_header h;
    um_status st = um_igtl_header_read(&h, p, n);
    return st == UM_OK ? um_igtl_message_read(m, &h, p + UM_IGTL_HEADER, n - UM_IGTL_HEADER, true)
                       : st;
}

/* A message of `type` whose body is `body`, with a right CRC. */
static um_status read_body(int version, const char *type, const uint8_t *body, size_t n,
                           struct um_igtl_message *m)
{
    static uint8_t kept[2048];
    struct um_igtl_outbox out = {0};
    um_igtl_begin(&out, 1, type, "Device", 0, 0);
    um_igtl_bytes(&out, body, n);
    um_igtl_end(&out, NULL, 0);
    out.data[1] = (uint8_t)version;
    size_t size = out.size;
    memcpy(kept, out.data, size);
    um_igtl_outbox_finish(&out);
    return read_whole(kept, size, m);
}

TEST(headers_that_are_refused)
{
    uint8_t b[UM_IGTL_HEADER];
    struct um_igtl_header h;
    unhex(b, A_HEAD);
    for (size_t n = 0; n < UM_IGTL_HEADER; n++)
        CHECK_EQ(um_igtl_header_read(&h, b, n), UM_EFORMAT);
    CHECK_OK(um_igtl_header_read(&h, b, UM_IGTL_HEADER));
    b[1] = 0;
    CHECK_EQ(um_igtl_header_read(&h, b, UM_IGTL_HEADER), UM_EFORMAT);
    b[1] = 3;
    CHECK_EQ(um_igtl_header_read(&h, b, UM_IGTL_HEADER), UM_EUNSUPPORTED);
    b[1] = 99;
    CHECK_EQ(um_igtl_header_read(&h, b, UM_IGTL_HEADER), UM_EUNSUPPORTED);
}

/* The inbox takes `data` in pieces of `piece` bytes; *messages of them come out whole. */
static um_status feed(struct um_igtl_inbox *in, const uint8_t *data, size_t n, size_t piece,
                      int *messages)
{
    while (n > 0) {
        uint8_t *to = NULL;
        size_t room = 0;
        um_status st = um_igtl_inbox_room(in, &to, &room);
        if (st != UM_OK)
            return st;
        room = room < piece ? room : piece;
        room = room < n ? room : n;
        memcpy(to, data, room);
        data += room;
        n -= room;
        st = um_igtl_inbox_filled(in, room);
        if (st != UM_OK && st != UM_AGAIN)
            return st;
        *messages += st == UM_OK;
    }
    return UM_OK;
}

TEST(bodies_that_are_too_long_are_refused)
{
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 57, 1 << 20 | 1, (64 << 20) + 1};
    uint8_t b[UM_IGTL_HEADER];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int image = 0; image < 2; image++) {
            struct um_igtl_inbox in = {.limit = 1 << 20, .image_limit = 64 << 20};
            int messages = 0;
            unhex(b, image ? A_HEAD : B_HEAD);
            for (int k = 0; k < 8; k++)
                b[42 + k] = (uint8_t)(sizes[i] >> (56 - 8 * k));
            bool fits = image && sizes[i] < 64 << 20;
            CHECK_EQ(feed(&in, b, sizeof b, 7, &messages), fits ? UM_OK : UM_EFORMAT);
            CHECK(in.capacity == 0); /* no memory for what has not come */
            um_igtl_inbox_finish(&in);
        }
}

TEST(what_nobody_reads_is_passed_over_whatever_its_size)
{
    enum { BIG = 1200000 };
    static uint8_t stream[UM_IGTL_HEADER + BIG + 256];
    static const struct {
        const char *type;
        um_status status;
    } big[] = {{"POLYDATA", UM_OK},
               {"VIDEO", UM_OK},
               {"STRING", UM_EFORMAT},
               {"GET_POLYDATA", UM_EFORMAT}};
    for (size_t i = 0; i < sizeof big / sizeof *big; i++) {
        struct um_igtl_inbox in = {.limit = 1 << 20, .image_limit = 64 << 20};
        struct um_igtl_outbox out = {0};
        int messages = 0;
        um_igtl_begin(&out, 1, big[i].type, "p", 0, 0);
        um_igtl_room(&out, BIG);
        um_igtl_end(&out, NULL, 0);
        CHECK(!out.failed && out.size == UM_IGTL_HEADER + BIG);
        memcpy(stream, out.data, out.size);
        size_t n = out.size;
        n += unhex(stream + n, B_HEAD);
        n += unhex(stream + n, B_BODY);
        CHECK_EQ(feed(&in, stream, n, 70000, &messages), big[i].status);
        CHECK_EQ(messages, big[i].status == UM_OK);
        CHECK_EQ(in.passed, big[i].status == UM_OK);
        um_igtl_inbox_finish(&in);
        um_igtl_outbox_finish(&out);
    }
    struct um_igtl_inbox in = {.limit = 1 << 20, .image_limit = 64 << 20};
    struct um_igtl_outbox out = {0};
    int messages = 0;
    um_igtl_begin(&out, 1, "POLYDATA", "p", 0, 0);
    um_igtl_end(&out, NULL, 0);
    out.data[42 + 4] = 0x40; /* 1 GiB and a byte */
    out.data[42 + 7] = 1;
    CHECK_EQ(feed(&in, out.data, out.size, 70000, &messages), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "a body of 1073741825 bytes, the limit is 1073741824"));
    static const char *const web[] = {
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:18945\r\nUser-Agent: a browser\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\nServer: one of web pages\r\nConnection: close\r\n\r\n",
        "<!DOCTYPE HTML>\n<html lang=\"en\">\n<head>\n<title>Bad request</title>\n</head>"};
    for (size_t i = 0; i < sizeof web / sizeof *web; i++) {
        struct um_igtl_inbox other = {.limit = 1 << 20, .image_limit = 64 << 20};
        CHECK_EQ(feed(&other, (const uint8_t *)web[i], strlen(web[i]), 70000, &messages),
                 UM_EFORMAT);
        CHECK_STR(um_last_error(), "HTTP instead of OpenIGTLink: is another port meant?");
        um_igtl_inbox_finish(&other);
    }
    um_igtl_inbox_finish(&in);
    um_igtl_outbox_finish(&out);
}

TEST(partial_messages_stay_and_later_versions_are_skipped)
{
    uint8_t stream[1024];
    size_t n = 0, start;
    for (int round = 0; round < 2; round++) {
        n += unhex(stream + n, A_HEAD);
        n += unhex(stream + n, A_BODY);
        start = n;
        n += unhex(stream + n, B_HEAD);
        n += unhex(stream + n, B_BODY);
        stream[start + 1] = round ? 99 : 3;
        n += unhex(stream + n, B_HEAD);
        n += unhex(stream + n, B_BODY);
    }
    for (size_t piece = 1; piece < n; piece++) {
        struct um_igtl_inbox in = {.limit = 1 << 20, .image_limit = 1 << 20};
        int messages = 0;
        CHECK_OK(feed(&in, stream, n, piece, &messages));
        CHECK_EQ(messages, 4);
        CHECK_EQ(in.skipped, 2);
        CHECK_STR(in.header.device, "State");
        um_igtl_inbox_finish(&in);
    }
}

TEST(a_wrong_crc_is_refused)
{
    uint8_t b[512];
    struct um_igtl_message m;
    struct um_igtl_header h;
    size_t n = unhex(b, A_HEAD);
    n += unhex(b + n, A_BODY);
    for (size_t i = UM_IGTL_HEADER - 8; i < n; i++) {
        b[i] ^= 1;
        CHECK_EQ(read_whole(b, n, &m), UM_EFORMAT);
        CHECK_OK(um_igtl_header_read(&h, b, n));
        CHECK_OK(um_igtl_message_read(&m, &h, b + UM_IGTL_HEADER, n - UM_IGTL_HEADER, false));
        b[i] ^= 1;
    }
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

TEST(extended_headers_that_are_refused)
{
    uint8_t b[512], good[512];
    struct um_igtl_message m;
    size_t n = unhex(good, B_BODY);
    CHECK_OK(read_body(2, "STRING", good, n, &m));
    for (size_t k = 0; k < 12; k++) /* too short for one */
        CHECK_EQ(read_body(2, "STRING", good, k, &m), UM_EFORMAT);
    static const struct {
        unsigned at, value;
    } bad[] = {
        {0, 11}, {0, 0},      {0, 58},     {0, 65535}, /* extended header's size */
        {2, 17}, {2, 1},      {2, 0},      {2, 65535}, /* metadata header's: 18 is right */
        {6, 22}, {6, 20},     {4, 1},                  /* metadata's: 21 is right */
        {18, 3}, {18, 65535},                          /* pairs; the content ends at 18 */
        {20, 8}, {20, 65535},                          /* a key's size */
        {26, 3}, {24, 1},     {24, 65535},             /* a value's */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(b, good, n);
        put16(b + bad[i].at, bad[i].value);
        CHECK_MSG(read_body(2, "STRING", b, n, &m) == UM_EFORMAT, "%u at %u", bad[i].value,
                  bad[i].at);
    }
    /* one entry whose description lacks its last byte, then one whose key is a byte too long */
    static const uint8_t entry[] = {0, 12, 0, 10, 0, 0, 0, 3, 0, 0,   0,   0,  0,
                                    1, 0,  3, 0,  3, 0, 0, 0, 0, 'k', 'e', 'y'};
    CHECK_OK(read_body(2, "STRING", entry, sizeof entry, &m));
    memcpy(b, entry, sizeof entry);
    b[3] = 9;
    b[7] = 4;
    CHECK_EQ(read_body(2, "STRING", b, sizeof entry, &m), UM_EFORMAT);
    memcpy(b, entry, sizeof entry);
    b[15] = 4;
    CHECK_EQ(read_body(2, "STRING", b, sizeof entry, &m), UM_EFORMAT);
    /* an extended header that has grown is skipped by its size */
    memcpy(b, good, 12);
    memset(b + 12, 0xee, 4);
    memcpy(b + 16, good + 12, n - 12);
    put16(b, 16);
    CHECK_OK(read_body(2, "STRING", b, n + 4, &m));
    CHECK(m.content_size == 6 && memcmp(m.content + 4, "OK", 2) == 0);
    /* and there may be no metadata at all */
    memset(b, 0, 12);
    put16(b, 12);
    CHECK_OK(read_body(2, "STRING", b, 12, &m));
    CHECK(m.content_size == 0 && m.pairs == 0);
}

TEST(images_that_are_refused)
{
    uint8_t b[512], good[512];
    struct um_igtl_message m;
    struct um_igtl_image image;
    size_t n = unhex(good, A_BODY);
    for (size_t k = 0; k < n; k++) { /* 71 and one byte short among them */
        CHECK_OK(read_body(1, "IMAGE", good, k, &m));
        CHECK_EQ(um_igtl_image_read(&image, &m), UM_EFORMAT);
    }
    memcpy(b, good, n);
    b[n] = 0;
    CHECK_OK(read_body(1, "IMAGE", b, n + 1, &m));
    CHECK_EQ(um_igtl_image_read(&image, &m), UM_EFORMAT);
    static const struct {
        unsigned at, value;
    } bad[] = {
        {1, 0},  {1, 2},  {3, 0},    {3, 1},    {3, 8},  {3, 9},  {3, 12}, {3, 5},  {3, 255},
        {2, 0},  {2, 2},  {2, 255},  {4, 0},    {4, 4},  {5, 0},  {5, 3},  {7, 3},  {9, 1},
        {11, 0}, {61, 1}, {63, 255}, {60, 255}, {67, 5}, {69, 3}, {71, 0}, {71, 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(b, good, n);
        b[bad[i].at] = (uint8_t)bad[i].value;
        CHECK_OK(read_body(1, "IMAGE", b, n, &m));
        CHECK_MSG(um_igtl_image_read(&image, &m) == UM_EFORMAT, "%u at %u", bad[i].value,
                  bad[i].at);
    }
    /* sizes whose product wraps in 32 bits and would in 64 if there were more of them */
    memcpy(b, good, n);
    memset(b + 6, 0xff, 6);
    memset(b + 66, 0xff, 6);
    b[2] = 254;
    b[3] = UM_IGTL_F64;
    CHECK_OK(read_body(1, "IMAGE", b, n, &m));
    CHECK_EQ(um_igtl_image_read(&image, &m), UM_EFORMAT);
}

TEST(other_contents_that_are_refused)
{
    uint8_t b[128] = {0};
    struct um_igtl_message m;
    struct um_igtl_status status;
    struct um_igtl_string string;
    float matrix[12], position[3], quaternion[4];
    int types = 0;
    for (size_t n = 0; n < 128; n++) {
        CHECK_OK(read_body(1, "TRANSFORM", b, n, &m));
        CHECK_EQ(um_igtl_transform_read(matrix, &m), n == 48 ? UM_OK : UM_EFORMAT);
        CHECK_EQ(um_igtl_position_read(position, quaternion, &m),
                 n == 12 || n == 24 || n == 28 ? UM_OK : UM_EFORMAT);
        CHECK_EQ(um_igtl_capability_read(&types, &m), n % 12 == 0 ? UM_OK : UM_EFORMAT);
        CHECK_EQ(um_igtl_label_count(&types, &m), n % 116 == 0 ? UM_OK : UM_EFORMAT);
        CHECK_EQ(um_igtl_status_read(&status, &m), n >= 31 ? UM_OK : UM_EFORMAT);
        CHECK_EQ(um_igtl_string_read(&string, &m), n >= 4 ? UM_OK : UM_EFORMAT);
    }
    b[40] = 'x'; /* a text without an end */
    CHECK_OK(read_body(1, "STATUS", b, 41, &m));
    CHECK_EQ(um_igtl_status_read(&status, &m), UM_EFORMAT);
    put16(b + 2, 3);
    CHECK_OK(read_body(1, "STRING", b, 6, &m));
    CHECK_EQ(um_igtl_string_read(&string, &m), UM_EFORMAT);
    CHECK_OK(read_body(1, "STRING", b, 7, &m));
    CHECK_OK(um_igtl_string_read(&string, &m));
}

TEST(what_a_strict_peer_refuses_is_said)
{
    static const struct {
        const char *type;
        unsigned size, at; /* the byte that is 0xC3 */
        bool strict;
    } of[] = {
        {"STATUS", 40, 9, false},    {"STATUS", 40, 10, true},      {"STATUS", 40, 29, false},
        {"STATUS", 40, 30, true},    {"STATUS", 40, 38, true},      {"STATUS", 20, 12, false},
        {"CAPABILITY", 24, 0, true}, {"CAPABILITY", 24, 23, false}, {"LBMETA", 232, 0, true},
        {"LBMETA", 232, 64, true},   {"LBMETA", 232, 84, false},    {"LBMETA", 232, 96, true},
        {"LBMETA", 232, 116, true},  {"LBMETA", 232, 180, true},    {"LBMETA", 232, 212, true},
        {"LBMETA", 232, 202, false}, {"TRANSFORM", 48, 0, false},   {"POLYDATA", 9, 3, false},
    };
    uint8_t b[256];
    struct um_igtl_message m;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        memset(b, 0, sizeof b);
        if (strcmp(of[i].type, "CAPABILITY") == 0)
            b[12] = 'X'; /* ends before its last byte */
        b[of[i].at] = 0xc3;
        CHECK_OK(read_body(1, of[i].type, b, of[i].size, &m));
        CHECK_MSG(!um_igtl_strict(&m) == !of[i].strict, "%s at %u", of[i].type, of[i].at);
    }
    for (unsigned n = 0; n <= 8; n++) { /* a text of 3 bytes, whatever they are */
        memset(b, 0xc3, 8);
        put16(b + 2, 3);
        CHECK_OK(read_body(1, "STRING", b, n, &m));
        CHECK_EQ(um_igtl_strict(&m) != NULL, n > 7);
    }
    CHECK_OK(read_body(1, "STRING", b, 7, &m));
    m.header.device[0] = (char)0xc3;
    CHECK(um_igtl_strict(&m) != NULL);
}

TEST(queries_may_be_cut)
{
    CHECK(um_igtl_asks("GET_TRANSFOR", "GET_", "TRANSFORM"));
    CHECK(um_igtl_asks("GET_TRANS", "GET_", "TRANSFORM"));
    CHECK(um_igtl_asks("GET_CAPABIL", "GET_", "CAPABILITY"));
    CHECK(um_igtl_asks("GET_IMAGE", "GET_", "IMAGE"));
    CHECK(!um_igtl_asks("GET_TRAN", "GET_", "TRANSFORM"));
    CHECK(!um_igtl_asks("STT_IMAGE", "GET_", "IMAGE"));
    CHECK(!um_igtl_asks("GET_IMAGES", "GET_", "IMAGE"));
    CHECK(!um_igtl_asks("GET_", "GET_", "IMAGE"));
}

TEST(writing_survives_failed_allocations)
{
    enum { TIMES = 20, EACH = 58 + 12 + 30 + 45 + 2 };
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
        struct um_igtl_outbox out = {0};
        um_mem_fail_at(k);
        for (int i = 0; i < TIMES; i++) {
            um_igtl_begin(&out, 2, "STATUS", "Device", 0, 0);
            um_igtl_status_write(&out, 1, 0, "", "a text that is long enough to need more room");
            um_igtl_end(&out, NULL, 0);
        }
        um_mem_fail_at(0);
        failed = out.failed;
        CHECK(failed ? k < 10 : k > 3 && out.size == TIMES * EACH);
        um_igtl_outbox_finish(&out);
    }
}

/* ---- sockets ---- */

static int patient(int fd)
{
    struct timeval t = {.tv_sec = TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    return fd;
}

/* A server of this test; *port is the system's choice. */
static int listen_here(int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    int fd = patient(socket(AF_INET, SOCK_STREAM, 0));
    if (bind(fd, (struct sockaddr *)&a, n) || listen(fd, 8) ||
        getsockname(fd, (struct sockaddr *)&a, &n))
        abort();
    *port = ntohs(a.sin_port);
    return fd;
}

static int connect_to(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = patient(socket(AF_INET, SOCK_STREAM, 0));
    if (connect(fd, (struct sockaddr *)&a, sizeof a))
        abort();
    return fd;
}

static bool send_all(int fd, const void *data, size_t n)
{
    return send(fd, data, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool send_box(int fd, struct um_igtl_outbox *out)
{
    bool sent = !out->failed && send_all(fd, out->data, out->size);
    um_igtl_outbox_finish(out);
    return sent;
}

/* The next message, in `room`; false: the other side left, or nothing came. */
static bool receive(int fd, struct um_igtl_message *m, uint8_t *room, size_t most)
{
    uint8_t head[UM_IGTL_HEADER];
    struct um_igtl_header h;
    return recv(fd, head, sizeof head, MSG_WAITALL) == sizeof head &&
           um_igtl_header_read(&h, head, sizeof head) == UM_OK && h.body_size <= most &&
           (h.body_size == 0 ||
            recv(fd, room, (size_t)h.body_size, MSG_WAITALL) == (ssize_t)h.body_size) &&
           um_igtl_message_read(m, &h, room, (size_t)h.body_size, true) == UM_OK;
}

/* The next one of a type; others are passed over. */
static bool receive_type(int fd, const char *type, struct um_igtl_message *m, uint8_t *room,
                         size_t most)
{
    while (receive(fd, m, room, most))
        if (strcmp(m->header.type, type) == 0)
            return true;
    return false;
}

static void put_image(struct um_igtl_outbox *out, int version, const char *device, uint64_t stamp,
                      int w, int h, int channels, uint8_t first)
{
    struct um_igtl_image image = {.components = channels,
                                  .scalar = UM_IGTL_U8,
                                  .endian = UM_IGTL_LITTLE,
                                  .coordinates = UM_IGTL_RAS,
                                  .size = {(uint16_t)w, (uint16_t)h, 1},
                                  .part = {(uint16_t)w, (uint16_t)h, 1},
                                  .t = {0.1f, 0.02f, -0.03f},
                                  .s = {-0.2f, 0.15f, 0.01f},
                                  .n = {0, 0, 1},
                                  .p = {12.25f, -7.125f, 1e-7f}};
    um_igtl_begin(out, version, "IMAGE", device, stamp, 5);
    um_igtl_image_write(out, &image);
    for (int i = 0; i < w * h * channels; i++)
        um_igtl_u8(out, (uint8_t)(first + i));
    um_igtl_end(out, NULL, 0);
}

/* As PlusServer says whether it is one. */
static void put_said_transform(struct um_igtl_outbox *out, uint64_t stamp, const char *key,
                               const char *value)
{
    const float m[12] = {1, 0, 0, 41, 0, 1, 0, 0, 0, 0, 1, 0};
    struct um_igtl_pair pair = {key, value, strlen(key), strlen(value), UM_IGTL_ASCII};
    um_igtl_begin(out, 2, "TRANSFORM", "ProbeToReference", stamp, 0);
    um_igtl_transform_write(out, m);
    um_igtl_end(out, &pair, 1);
}

static void put_transform(struct um_igtl_outbox *out, const char *device, uint64_t stamp, float x)
{
    const float m[12] = {0, -1, 0, x, 1, 0, 0, 2, 0, 0, 1, 3};
    um_igtl_begin(out, 1, "TRANSFORM", device, stamp, 0);
    um_igtl_transform_write(out, m);
    um_igtl_end(out, NULL, 0);
}

struct wanted {
    const char *name;
    uint64_t n;
};

static void look(void *ctx, const char *name, uint64_t n)
{
    struct wanted *w = ctx;
    if (strcmp(name, w->name) == 0)
        w->n = n;
}

static uint64_t source_count(const um_source *s, const char *name)
{
    struct wanted w = {name, UINT64_MAX};
    um_source_counts(s, look, &w);
    return w.n;
}

static uint64_t sink_count(const um_sink *s, const char *name)
{
    struct wanted w = {name, UINT64_MAX};
    um_sink_counts(s, look, &w);
    return w.n;
}

/* A source that has connected to a server of this test. */
struct wire {
    int listening, fd;
    um_source *source;
    char heard[2000]; /* what the source says, a line for each */
};

static void hear(void *ctx, const char *text)
{
    struct wire *w = ctx;
    size_t n = strlen(w->heard);
    snprintf(w->heard + n, sizeof w->heard - n, "%s\n", text);
}

static bool wire_open(struct wire *w, const char *options)
{
    char spec[256];
    int port = 0;
    um_source_settings set;
    um_source_settings_default(&set);
    set.on_notice = hear;
    set.ctx = w;
    w->heard[0] = 0;
    w->listening = listen_here(&port);
    snprintf(spec, sizeof spec, "igtl://127.0.0.1:%d?%s", port, options);
    if (um_source_open(&w->source, spec, &set) != UM_OK) {
        printf("  %s\n", um_last_error());
        return false;
    }
    w->fd = patient(accept(w->listening, NULL, NULL));
    return w->fd >= 0;
}

static void wire_close(struct wire *w)
{
    um_source_close(&w->source);
    close(w->fd);
    close(w->listening);
}

TEST(specs_that_mean_nothing)
{
    static const char *const sources[] = {"igtl:",
                                          "igtl://",
                                          "igtl://host",
                                          "igtl://:18944",
                                          "igtl://h:0",
                                          "igtl://h:99999",
                                          "igtl://h:1?devise=x",
                                          "igtl://h:1?crc=no",
                                          "igtl://h:1?idle-ms=-1",
                                          "igtl://h:1?device=",
                                          "igtl-listen:18944",
                                          "igtl://h:1?coord=lps",
                                          "igtl://h:1?=",
                                          "igtl://h:1?version=1.5",
                                          "igtl://h:1?device=ABCDEFGHIJKLMNOPQRSTU"};
    static const char *const sinks[] = {"igtl:",
                                        "igtl:18945",
                                        "igtl::x",
                                        "igtl::1?relay=no",
                                        "igtl-connect::18945",
                                        "igtl-connect:h:00",
                                        "igtl-connect:h:1?clients=2",
                                        "igtl::1?version=3",
                                        "igtl::1?clients=0",
                                        "igtl::1?clients=2.5",
                                        "igtl::1?mailbox=1e1",
                                        "igtl::1?version=1.5",
                                        "igtl::1?per-class=1",
                                        "igtl::1?name="};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        um_source *s = NULL;
        um_status st = um_source_open(&s, sources[i], NULL);
        um_source_close(&s);
        if (strcmp(sources[i], "igtl://h:1?device=") != 0) /* the first that comes */
            CHECK_MSG(st == UM_EINVAL, "%s", sources[i]);
    }
    for (size_t i = 0; i < sizeof sinks / sizeof *sinks; i++) {
        um_sink *s = NULL;
        CHECK_MSG(um_sink_open(&s, sinks[i], NULL) == UM_EINVAL, "%s", sinks[i]);
    }
    um_igtl *link = NULL; /* ":0" would listen */
    CHECK_EQ(um_igtl_open(&link, "h:0"), UM_EINVAL);
    CHECK_MSG(strstr(um_last_error(), "h:0: port 0"), "%s", um_last_error());
}

TEST(a_source_reads_images_with_stamp_place_and_pose)
{
    struct wire w;
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    uint8_t room[256];
    um_frame *f = NULL;
    CHECK(wire_open(&w, "pair-ms=10000"));
    /* it says that it knows version 2 */
    CHECK(receive(w.fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "STATUS");
    CHECK_EQ(m.header.version, 2);
    CHECK_EQ(m.pairs, 1);
    uint64_t stamp = 0x6553F10012345678;
    put_image(&out, 2, "Image_Reference", stamp, 5, 3, 1, 7);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(f->width == 5 && f->height == 3 && f->channels == 1 && f->pixels[14] == 21);
    CHECK_NEAR(f->ts, 1700000000.0711109, 1e-6);
    CHECK(f->has_spacing && !f->has_pose);
    CHECK_NEAR(f->spacing_mm[1], 0.2501999, 1e-6);
    const struct um_origin *o = um_frame_origin(f);
    CHECK(o && o->stamp == stamp);
    CHECK_STR(o->device, "Image_Reference");
    CHECK(o->image.p[0] == 12.25f && o->image.p[2] == 1e-7f && o->image.s[0] == -0.2f);
    um_frame_unref(&f);
    /* the pose comes before its image, then behind it */
    put_transform(&out, "ProbeToReference", stamp + 1, 11);
    put_transform(&out, "StylusToReference", stamp + 1, 12);
    put_image(&out, 1, "Image_Reference", stamp + 1, 5, 3, 1, 0);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(f->has_pose && f->pose[3] == 11 && f->pose[1] == -1 && f->pose[7] == 2);
    CHECK(f->pose[15] == 1 && f->pose[12] == 0);
    CHECK_EQ(um_frame_origin(f)->transforms, 2);
    um_frame_unref(&f);
    put_image(&out, 1, "Image_Reference", stamp + 2, 5, 3, 3, 0);
    put_transform(&out, "ProbeToReference", stamp + 2, 21);
    put_transform(&out, "StylusToReference", stamp + 2, 22);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(f->channels == 3 && f->has_pose && f->pose[3] == 21);
    CHECK_EQ(um_frame_origin(f)->transforms, 2);
    um_frame_unref(&f);
    /* and later, when the image has been looked at */
    put_image(&out, 1, "Image_Reference", stamp + 3, 5, 3, 1, 0);
    CHECK(send_box(w.fd, &out));
    while (source_count(w.source, "images") < 4)
        sched_yield();
    put_transform(&out, "ProbeToReference", stamp + 3, 31);
    put_transform(&out, "StylusToReference", stamp + 3, 32);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(f->has_pose && f->pose[3] == 31);
    CHECK_EQ(um_frame_origin(f)->transforms, 2);
    um_frame_unref(&f);
    /* it never comes: the next stamp says so, and that is counted */
    put_image(&out, 1, "Image_Reference", stamp + 4, 5, 3, 1, 0);
    put_transform(&out, "ProbeToReference", stamp + 5, 41);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(!f->has_pose && um_frame_origin(f)->stamp == stamp + 4);
    um_frame_unref(&f);
    CHECK_EQ(source_count(w.source, "without_pose"), 1);
    CHECK_EQ(source_count(w.source, "images"), 5);
    CHECK_EQ(source_count(w.source, "transforms"), 7);
    wire_close(&w);
}

/* The matrix of a tracked image turns with the probe, and its pixels stay as large as they are. */
TEST(the_spacing_of_a_turned_image_is_the_same)
{
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    double first[2] = {0};
    CHECK(wire_open(&w, ""));
    for (int i = 0; i < 100; i++) {
        struct um_igtl_image image = {0};
        const uint8_t pixels[15] = {0};
        um_igtl_image_place_plainly(&image, 5, 3, NULL);
        image.components = 1;
        image.scalar = UM_IGTL_U8;
        image.endian = UM_IGTL_LITTLE;
        image.coordinates = UM_IGTL_RAS;
        memcpy(image.part, image.size, sizeof image.part);
        double a = .1 * i, mm = i < 90 ? .1 : .2; /* and then the depth is changed */
        float t[3] = {(float)(mm * cos(a)), (float)(mm * sin(a)), 0},
              s[3] = {(float)(-mm * sin(a)), (float)(mm * cos(a)), 0};
        memcpy(image.t, t, sizeof t);
        memcpy(image.s, s, sizeof s);
        um_igtl_begin(&out, 1, "IMAGE", "Image_Reference", 0, 0);
        um_igtl_image_write(&out, &image);
        um_igtl_bytes(&out, pixels, sizeof pixels);
        um_igtl_end(&out, NULL, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        if (i % 90 == 0)
            memcpy(first, f->spacing_mm, sizeof first);
        CHECK_NEAR(first[0], mm, 1e-7);
        CHECK(f->has_spacing && memcmp(first, f->spacing_mm, sizeof first) == 0);
        CHECK(memcmp(um_frame_origin(f)->image.t, t, sizeof t) == 0);
        um_frame_unref(&f);
    }
    wire_close(&w);
}

/* Some senders send the image first, and one sends more than a few. */
TEST(all_transforms_of_an_image_are_its_own)
{
    enum { TOOLS = 40 };
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, "pair-ms=10000"));
    for (unsigned i = 0; i < 6; i++) { /* of the first image nobody knows that more is to come */
        uint64_t stamp = 0x6553F10000000000 + i;
        unsigned tools = i < 3 ? TOOLS : 1; /* those that are seen no more are missed once */
        put_image(&out, 1, "Image_Reference", stamp, 5, 3, 1, 0);
        for (unsigned k = 0; k < tools; k++) {
            char name[UM_IGTL_NAME + 1];
            snprintf(name, sizeof name, "Tool%uToTracker", k);
            put_transform(&out, name, stamp, (float)k);
        }
        if (i == 3)
            put_transform(&out, "Tool0ToTracker", stamp + 1, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK_MSG(i == 0 || um_frame_origin(f)->transforms == (int)tools, "image %u: %d", i,
                  um_frame_origin(f)->transforms);
        um_frame_unref(&f);
        while (source_count(w.source, "transforms") < (i < 3 ? (i + 1) * TOOLS : 3 * TOOLS + i - 1))
            sched_yield();
    }
    wire_close(&w);
    CHECK(wire_open(&w, "pair-ms=10000"));
    for (unsigned k = 0; k < TOOLS; k++) { /* the pose is the last of many */
        char name[UM_IGTL_NAME + 1];
        snprintf(name, sizeof name, "Tool%uToTracker", k);
        put_transform(&out, k + 1 < TOOLS ? name : "ProbeToReference", 0x6553F10000000000, 7);
    }
    put_image(&out, 1, "Image_Reference", 0x6553F10000000000, 5, 3, 1, 0);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(f->has_pose && f->pose[3] == 7);
    CHECK_EQ(um_frame_origin(f)->transforms, TOOLS);
    um_frame_unref(&f);
    wire_close(&w);
}

TEST(a_pose_that_is_none_is_not_taken)
{
    static const struct {
        const char *key, *value;
        int pose;
    } said[] = {{"TransformStatus", "OK", 1},       {"TransformStatus", "INVALID", 0},
                {"TransformStatus", "MISSING", 0},  {"TransformValid", "True", 1},
                {"TransformValid", "False", 0},     {"TransformValid", "0", 0},
                {"TransformStatusText", "poor", 1}, {"", "", 0}};
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, "pair-ms=10000"));
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        uint64_t stamp = 0x6553F10000000000 + i;
        if (said[i].key[0])
            put_said_transform(&out, stamp, said[i].key, said[i].value);
        else
            put_transform(&out, "ProbeToReference", stamp, NAN);
        put_image(&out, 2, "Image_Reference", stamp, 5, 3, 1, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK_MSG(f->has_pose == said[i].pose, "%s %s", said[i].key, said[i].value);
        CHECK_EQ(um_frame_origin(f)->transforms, 1);
        CHECK_EQ(um_frame_origin(f)->transform[0].valid, said[i].pose);
        um_frame_unref(&f);
    }
    CHECK_EQ(source_count(w.source, "invalid"), 5);
    CHECK_EQ(source_count(w.source, "without_pose"), 5);
    wire_close(&w);
}

TEST(of_poses_with_one_stamp_the_newest_is_taken)
{
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, ""));
    for (int i = 0; i < 100; i++) { /* a clock of whole seconds */
        put_transform(&out, "ImageToReference", 0x6553F10000000000, (float)-i);
        put_transform(&out, "ProbeToReference", 0x6553F10000000000, (float)i);
        put_image(&out, 1, "Image_Reference", 0x6553F10000000000, 5, 3, 1, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK(f->has_pose);
        CHECK_EQ((int)f->pose[3], i);
        CHECK_EQ(um_frame_origin(f)->transforms, 2);
        um_frame_unref(&f);
    }
    wire_close(&w);
}

/* One that waits for its pose when the run ends, and the one before that nobody took. */
TEST(images_that_come_to_nothing_at_the_end_are_counted)
{
    struct wire w;
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    uint8_t room[256];
    for (int others = 0; others < 2; others++) {
        um_frame *f = NULL;
        CHECK(wire_open(&w, "pair-ms=10000"));
        put_transform(&out, "ProbeToReference", 1, 0);
        put_image(&out, 1, "Image_Reference", 1, 5, 3, 1, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        um_frame_unref(&f);
        for (int i = 0; i <= others; i++)
            put_image(&out, 1, "Image_Reference", 2 + (uint64_t)i, 5, 3, 1, 0);
        CHECK(send_box(w.fd, &out));
        while (source_count(w.source, "images") < 2 + (uint64_t)others)
            sched_yield();
        um_source_cancel(w.source);
        for (int i = 0; i < 2; i++) /* the greeting, and the last message */
            CHECK(receive(w.fd, &m, room, sizeof room));
        CHECK_EQ(source_count(w.source, "waiting"), 1 + (uint64_t)others);
        wire_close(&w);
    }
}

static void count_refusals(const char *options, uint64_t images, uint64_t bad_crc)
{
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, options));
    put_image(&out, 1, "Other", 1, 4, 4, 1, 0);
    put_image(&out, 1, "Image_Reference", 2, 4, 4, 4, 0); /* RGBA */
    put_image(&out, 3, "Image_Reference", 3, 4, 4, 1, 0); /* a later version */
    size_t bad = out.size;
    put_image(&out, 1, "Image_Reference", 4, 4, 4, 1, 0);
    out.data[bad + UM_IGTL_HEADER + 80] ^= 1; /* CRC */
    size_t wrong = out.size;
    um_igtl_begin(&out, 1, "TRANSFORM", "T", 0, 0);
    um_igtl_u32(&out, 0);
    um_igtl_end(&out, NULL, 0);
    CHECK(out.size > wrong);
    um_igtl_begin(&out, 1, "SENSOR", "S", 0, 0);
    um_igtl_end(&out, NULL, 0);
    put_image(&out, 1, "Image_Reference", 5, 4, 4, 1, 100);
    /* in pieces: what has come stays */
    for (size_t at = 0; at < out.size; at += 11)
        CHECK(send_all(w.fd, out.data + at, out.size - at < 11 ? out.size - at : 11));
    um_igtl_outbox_finish(&out);
    um_status st;
    int first = 0; /* of the pixels: 100 is the last image, that of the wrong CRC may come before */
    do {
        while ((st = um_source_read(w.source, &f)) == UM_EFORMAT)
            CHECK(strstr(um_last_error(), "neither gray nor RGB"));
        CHECK_OK(st);
        first = f->pixels[0];
        um_frame_unref(&f);
    } while (first != 100);
    CHECK_EQ(source_count(w.source, "other_device"), 1);
    CHECK_EQ(source_count(w.source, "unsupported"), 1);
    CHECK_EQ(source_count(w.source, "bad_crc"), bad_crc);
    CHECK_EQ(source_count(w.source, "images"), images);
    CHECK_EQ(source_count(w.source, "skipped"), 1);
    CHECK_EQ(source_count(w.source, "malformed"), 1);
    CHECK_EQ(source_count(w.source, "other_type"), 1);
    wire_close(&w);
}

TEST(a_source_counts_what_it_does_not_take)
{
    count_refusals("device=Image_Reference", 2, 1);
    count_refusals("device=Image_Reference&crc=count", 3, 1);
    count_refusals("crc=ignore,device=Image_Reference", 3, 0);
}

TEST(the_newest_image_wins_and_every_other_is_counted)
{
    enum { N = 200 };
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    uint64_t got = 0, last = 0;
    CHECK(wire_open(&w, ""));
    for (uint64_t i = 1; i <= N; i++)
        put_image(&out, 1, "Image", i << 32, 16, 16, 1, 0);
    CHECK(send_box(w.fd, &out));
    while (last < N) {
        CHECK_OK(um_source_read(w.source, &f));
        uint64_t stamp = um_frame_origin(f)->stamp >> 32;
        CHECK(stamp > last);
        last = stamp;
        got++;
        um_frame_unref(&f);
    }
    CHECK_EQ(source_count(w.source, "images"), N);
    CHECK_EQ(um_source_replaced(w.source), N - got);
    CHECK_EQ(source_count(w.source, "replaced"), N - got);
    CHECK(um_source_live(w.source));
    wire_close(&w);
}

TEST(a_source_connects_again_and_again)
{
    enum { TIMES = 12 };
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, ""));
    for (int i = 1; i <= TIMES; i++) {
        put_image(&out, 1, "Image", (uint64_t)i << 32, 4, 4, 1, (uint8_t)i);
        if (i % 3 == 0) /* cut in the middle, or followed by what is no message */
            out.size -= 5;
        if (i % 3 == 1) {
            uint8_t *garbage = um_igtl_room(&out, 80);
            memset(garbage, 0, 80);
        }
        CHECK(send_box(w.fd, &out));
        if (i % 3) {
            CHECK_OK(um_source_read(w.source, &f));
            CHECK_EQ(f->pixels[0], i);
            um_frame_unref(&f);
        }
        close(w.fd);
        w.fd = patient(accept(w.listening, NULL, NULL));
        CHECK(w.fd >= 0);
    }
    CHECK(source_count(w.source, "connections") >= TIMES);
    CHECK(source_count(w.source, "lost") >= TIMES);
    wire_close(&w);
}

TEST(a_silent_sender_is_left)
{
    struct wire w;
    CHECK(wire_open(&w, "idle-ms=20"));
    int again = patient(accept(w.listening, NULL, NULL)); /* it comes back by itself */
    CHECK(again >= 0);
    CHECK(source_count(w.source, "silent") >= 1);
    close(again);
    wire_close(&w);
}

TEST(a_source_listens_too_and_answers)
{
    um_source *source = NULL;
    struct um_igtl_outbox out = {0};
    struct um_igtl_message m;
    uint8_t room[512];
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&source, "igtl-listen:127.0.0.1:0", NULL));
    int port = (int)source_count(source, "port"), fd = connect_to(port);
    CHECK(receive(fd, &m, room, sizeof room)); /* its greeting */
    um_igtl_begin(&out, 1, "GET_STATUS", "me", 0, 0);
    um_igtl_end(&out, NULL, 0);
    um_igtl_begin(&out, 1, "STT_TDATA", "me", 0, 0);
    um_igtl_end(&out, NULL, 0);
    put_image(&out, 1, "Image", 77, 4, 4, 1, 9);
    CHECK(send_box(fd, &out));
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "STATUS");
    CHECK_STR(m.header.device, "me");
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "RTS_TDATA");
    CHECK(m.content_size == 1 && m.content[0] == 1);
    CHECK_OK(um_source_read(source, &f));
    CHECK_EQ(f->pixels[0], 9);
    um_frame_unref(&f);
    int second = connect_to(port); /* one sender at a time, and it is told */
    CHECK(receive(second, &m, room, sizeof room));
    CHECK(m.content_size > 2 && m.content[1] == UM_IGTL_BUSY);
    CHECK(!receive(second, &m, room, sizeof room));
    close(second);
    close(fd);
    um_source_close(&source);
}

static um_sink *open_sink(const char *options, int objects, int *port)
{
    um_sink_settings set;
    char spec[128];
    um_sink *s = NULL;
    um_sink_settings_default(&set);
    set.objects = objects;
    snprintf(spec, sizeof spec, "igtl:127.0.0.1:0?%s", options);
    if (um_sink_open(&s, spec, &set) != UM_OK)
        printf("  %s\n", um_last_error());
    *port = (int)sink_count(s, "port");
    return s;
}

/* A client that the sink knows, speaking `version`: it has answered. */
static int join(int port, int version)
{
    struct um_igtl_outbox out = {0};
    struct um_igtl_message m;
    uint8_t room[256];
    int fd = connect_to(port);
    um_igtl_begin(&out, version, "GET_STATUS", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    if (!send_box(fd, &out) || !receive_type(fd, "STATUS", &m, room, sizeof room))
        abort();
    return fd;
}

/* One who does not stop sending until it has to reads why it is sent away. */
static bool reads_why(int fd, int code)
{
    static uint8_t room[1 << 16];
    struct um_igtl_message m;
    bool told = false;
    memset(room, 0xff, sizeof room);
    room[0] = 0; /* version 255 */
    for (int i = 0; i < 10; i++)
        if (!send_all(fd, room, sizeof room))
            return false;
    poll(NULL, 0, 50); /* a reset is here by now: other systems than Linux drop what came before */
    errno = 0;
    while (receive(fd, &m, room, sizeof room))
        told = strcmp(m.header.type, "STATUS") == 0 && m.content_size > 2 && m.content[1] == code;
    bool reset = errno == ECONNRESET;
    close(fd);
    return told && !reset;
}

TEST(who_is_sent_away_reads_why)
{
    um_source *source = NULL;
    int port = 0;
    CHECK_OK(um_source_open(&source, "igtl-listen:127.0.0.1:0", NULL));
    int first = connect_to((int)source_count(source, "port"));
    CHECK(reads_why(connect_to((int)source_count(source, "port")), UM_IGTL_BUSY));
    close(first);
    um_source_close(&source);
    um_sink *sink = open_sink("clients=1", 1, &port);
    first = connect_to(port);
    CHECK(reads_why(connect_to(port), UM_IGTL_RESOURCE));
    CHECK(reads_why(first, UM_IGTL_OVERFLOW));
    int quiet[16]; /* they neither read nor leave, and cost nothing for long */
    first = join(port, 1);
    for (int i = 0; i < 16; i++)
        quiet[i] = connect_to(port);
    CHECK(reads_why(connect_to(port), UM_IGTL_RESOURCE));
    close(first);
    CHECK_OK(um_sink_close(&sink));
    for (int i = 0; i < 16; i++)
        close(quiet[i]);
}

TEST(what_a_source_left_out_is_told_at_its_end)
{
    struct wire w = {.listening = -1, .fd = -1};
    um_source_settings set;
    struct um_igtl_message m;
    uint8_t room[512];
    um_source_settings_default(&set);
    set.on_notice = hear;
    set.ctx = &w;
    CHECK_OK(um_source_open(&w.source, "igtl-listen:127.0.0.1:0", &set));
    for (int i = 0; i < 10; i++) {
        int fd = connect_to((int)source_count(w.source, "port"));
        CHECK(receive(fd, &m, room, sizeof room));                 /* its greeting */
        CHECK(m.content_size < 2 || m.content[1] != UM_IGTL_BUSY); /* the one before has left */
        close(fd);
    }
    while (source_count(w.source, "lost") < 10)
        poll(NULL, 0, 1);
    um_source_close(&w.source);
    CHECK_MSG(strstr(w.heard, ": 11 more comings and goings\n"), "%s", w.heard);
}

TEST(a_cancelled_source_ends_whatever_it_waits_for)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    CHECK_OK(um_source_open(&s, "igtl://127.0.0.1:1", NULL)); /* nobody is there */
    um_source_cancel(s);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
    CHECK_OK(um_source_open(&s, "igtl-listen:127.0.0.1:0", NULL));
    um_source_cancel(s);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
}

/* ---- the sink ---- */

enum { W = 32, H = 10 };

/* One byte, and then characters of two: LBMETA's 64 end within one. */
#define TEN "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
#define LONG_NAME "x" TEN TEN TEN TEN

/* A packet with objects of these classes, each a row of its mask: row i of object i. */
static const um_packet *make_packet(uint64_t id, const int *labels, int n)
{
    static uint8_t bits[4][W / 8 * H];
    um_object object[4];
    const um_object *objects[4];
    um_packet p = {.struct_size = sizeof p,
                   .detector = "dfine-n",
                   .segmenter = "tiny-sam",
                   .frame_id = id,
                   .ts = 1700000000.25,
                   .state = n ? UM_STATE_VISIBLE : UM_STATE_LOST,
                   .width = W,
                   .height = H,
                   .crop = {0, 0, W, H},
                   .score = 0.75f,
                   .source = "phantom",
                   .device = "cpu",
                   .precision = "fp32"},
              *made = NULL;
    for (int i = 0; i < n; i++) {
        memset(bits[i], 0, sizeof bits[i]);
        memset(bits[i] + (i + 1) * (W / 8), 0xff, W / 8);
        object[i] = (um_object){.struct_size = sizeof *object,
                                .label = labels[i],
                                .name = labels[i] > 255 ? LONG_NAME
                                        : labels[i]     ? "rib"
                                                        : "spine",
                                .score = 0.75f,
                                .has_box = 1,
                                .box = {1, 2, 3.5f, 4},
                                .has_mask = 1,
                                .bits = bits[i]};
        objects[i] = &object[i];
    }
    return um_packet_create(&made, &p, objects, n) == UM_OK ? made : NULL;
}

/* The frame that a source would have given. */
static um_frame *make_frame(uint64_t stamp)
{
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    if (!wire_open(&w, ""))
        return NULL;
    put_transform(&out, "ProbeToReference", stamp, 5);
    put_image(&out, 1, "Image_Reference", stamp, W, H, 1, 3);
    if (send_box(w.fd, &out))
        um_source_read(w.source, &f);
    wire_close(&w);
    return f;
}

TEST(a_sink_sends_the_mask_where_the_image_lay)
{
    static uint8_t room[4096];
    const int one[] = {0};
    int port = 0;
    uint64_t stamp = 0x6553F100deadbeef;
    um_frame *frame = make_frame(stamp);
    const um_packet *packet = make_packet(0x100000007, one, 1);
    um_sink *sink = open_sink("relay=all", 1, &port);
    CHECK(frame && packet && sink);
    const struct um_origin *o = um_frame_origin(frame);
    for (int version = 1; version <= 2; version++) {
        int fd = join(port, version);
        struct um_igtl_message m;
        struct um_igtl_image image;
        struct um_igtl_string string;
        CHECK_OK(um_sink_write(sink, packet, frame, NULL));
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "LBMETA");
        CHECK_EQ(m.header.version, version);
        struct um_igtl_label label;
        um_igtl_label_read(&label, &m, 0);
        CHECK_STR(label.name, "spine");
        CHECK_STR(label.device, "Mask_Reference");
        CHECK_STR(label.owner, "Image_Reference");
        CHECK(label.label == 1 && label.size[0] == W && label.size[1] == H);
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "TRANSFORM");
        CHECK_STR(m.header.device, "ProbeToReference");
        float matrix[12];
        CHECK_OK(um_igtl_transform_read(matrix, &m));
        CHECK(matrix[3] == 5 && matrix[1] == -1 && m.header.stamp == stamp);
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.device, "Image_Reference");
        CHECK_OK(um_igtl_image_read(&image, &m));
        CHECK(image.bytes == W * H && memcmp(image.pixels, frame->pixels, W * H) == 0);
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "IMAGE");
        CHECK_STR(m.header.device, "Mask_Reference");
        CHECK(m.header.stamp == stamp);
        CHECK_OK(um_igtl_image_read(&image, &m));
        CHECK(memcmp(image.t, o->image.t, 12) == 0 && memcmp(image.s, o->image.s, 12) == 0 &&
              memcmp(image.n, o->image.n, 12) == 0 && memcmp(image.p, o->image.p, 12) == 0);
        CHECK(image.components == 1 && image.scalar == UM_IGTL_U8 && image.bytes == W * H);
        for (int i = 0; i < W * H; i++)
            CHECK_EQ(image.pixels[i], i / W == 1);
        if (version == 2) {
            static const char *const keys[] = {
                "FrameId", "SourceTimestamp", "RxTimestamp", "TxTimestamp", "LatencyMs", "State",
                "Score",   "BoxXYXY",         "Model",       "ModelSha256", "Engine",    "Status"};
            struct um_igtl_pair pair;
            size_t at = 0;
            CHECK_EQ(m.id, 7); /* the low 32 bits of the frame's */
            CHECK_EQ(m.pairs, 12);
            for (int i = 0; i < 12; i++) {
                CHECK(um_igtl_message_pair(&m, &at, &pair));
                CHECK(pair.key_size == strlen(keys[i]) &&
                      memcmp(pair.key, keys[i], pair.key_size) == 0);
                if (i == 0)
                    CHECK(memcmp(pair.value, "4294967303", 10) == 0);
                if (i == 1)
                    CHECK(memcmp(pair.value, "1700000000.869", 14) == 0);
                if (i == 8)
                    CHECK(memcmp(pair.value, "dfine-n,tiny-sam", 16) == 0);
                if (i == 7)
                    CHECK(pair.value_size == 9 && memcmp(pair.value, "1,2,3.5,4", 9) == 0);
            }
        } else {
            CHECK_EQ(m.pairs, 0);
        }
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.device, "Box");
        CHECK_OK(um_igtl_string_read(&string, &m));
        CHECK(m.header.stamp == stamp && memcmp(string.text, "{\"frame_id\":4294967303,", 23) == 0);
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.device, "State");
        CHECK_OK(um_igtl_string_read(&string, &m));
        CHECK(string.size == 7 && memcmp(string.text, "VISIBLE", 7) == 0);
        close(fd);
    }
    um_packet_unref(&packet);
    um_frame_unref(&frame);
    CHECK_OK(um_sink_close(&sink));
}

TEST(metadata_has_room_for_all_that_a_packet_says)
{
    static uint8_t room[4096];
    int port = 0;
    um_packet *made = NULL, p = {.struct_size = sizeof p,
                                 .state = UM_STATE_LOST,
                                 .width = W,
                                 .height = H,
                                 .crop = {0, 0, W, H},
                                 .gain = 2,
                                 .reused = 1};
    struct um_igtl_message m;
    CHECK_OK(um_packet_create(&made, &p, NULL, 0));
    um_sink *sink = open_sink("", 1, &port);
    int fd = join(port, 2);
    CHECK_OK(um_sink_write(sink, made, NULL, NULL));
    CHECK(receive_type(fd, "IMAGE", &m, room, sizeof room));
    CHECK_EQ(m.pairs, 14);
    const um_packet *packet = made;
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
    close(fd);
}

/* A frame of a video is of no date: its time is that in the video. */
TEST(latency_is_since_the_frame_was_here)
{
    static uint8_t room[65536];
    const int one[] = {0};
    um_sink *sink = NULL;
    um_frame *frame = NULL;
    struct um_igtl_message m;
    struct um_igtl_pair pair;
    const um_packet *packet = make_packet(1, one, 1);
    CHECK_OK(um_sink_open(&sink, "igtl:127.0.0.1:0", NULL));
    int fd = join((int)sink_count(sink, "port"), 2);
    CHECK_OK(um_frame_create(&frame, W, H, 1));
    frame->ts = 0.04;
    frame->received_ns = um_clock_ns() - 5000000;
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    CHECK(receive_type(fd, "IMAGE", &m, room, sizeof room));
    int seen = 0;
    for (size_t at = 0; um_igtl_message_pair(&m, &at, &pair);) {
        char value[40];
        snprintf(value, sizeof value, "%.*s", (int)pair.value_size, pair.value);
        double v = strtod(value, NULL);
        if (pair.key_size == 9 && memcmp(pair.key, "LatencyMs", 9) == 0)
            seen += v >= 5 && v < 20000;
        if (pair.key_size == 11 && memcmp(pair.key, "RxTimestamp", 11) == 0)
            seen += fabs(v - um_clock_unix()) < 20;
    }
    CHECK_EQ(seen, 2);
    um_frame_unref(&frame);
    um_packet_unref(&packet);
    um_sink_close(&sink);
    close(fd);
}

TEST(several_classes_are_a_label_map_or_an_image_each)
{
    static uint8_t room[4096];
    const int two[] = {2, 0};
    int port = 0;
    const um_packet *packet = make_packet(1, two, 2), *lost = make_packet(2, two, 0);
    um_sink *sink = open_sink("per-class", 2, &port);
    struct um_igtl_message m;
    struct um_igtl_image image;
    int fd = join(port, 1), labels = 0;
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "LBMETA");
    CHECK_OK(um_igtl_label_count(&labels, &m));
    CHECK_EQ(labels, 4); /* two in the map, and two images */
    struct um_igtl_label label;
    um_igtl_label_read(&label, &m, 2);
    CHECK_STR(label.name, "rib");
    CHECK(label.label == 3);
    CHECK_STR(label.device, "Mask");
    um_igtl_label_read(&label, &m, 3);
    CHECK_STR(label.device, "Mask3");
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.device, "Mask");
    CHECK(m.header.stamp == um_igtl_stamp(1700000000.25));
    CHECK_OK(um_igtl_image_read(&image, &m));
    CHECK_NEAR(image.p[0], (W - 1) / 2.0, 0); /* its first pixel lies at the origin */
    for (int i = 0; i < W * H; i++)
        CHECK_EQ(image.pixels[i], i / W == 1 ? 3 : i / W == 2 ? 1 : 0);
    for (int class = 0; class < 3; class += 2) {
        char name[8];
        snprintf(name, sizeof name, "Mask%d", class + 1);
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.device, name);
        CHECK_OK(um_igtl_image_read(&image, &m));
        for (int i = 0; i < W * H; i++)
            CHECK_EQ(image.pixels[i], i / W == (class ? 1 : 2));
    }
    CHECK_OK(um_sink_write(sink, lost, NULL, NULL)); /* nothing stays on the screen */
    for (int k = 0; k < 3; k++) {
        CHECK(receive_type(fd, "IMAGE", &m, room, sizeof room));
        CHECK_OK(um_igtl_image_read(&image, &m));
        for (int i = 0; i < W * H; i++)
            CHECK_EQ(image.pixels[i], 0);
    }
    close(fd);
    um_packet_unref(&packet);
    um_packet_unref(&lost);
    CHECK_OK(um_sink_close(&sink));
}

/* 1 is of one class at a time; of many classes the values end at 255; names are cut between two
 * characters. */
TEST(labels_say_what_a_mask_shows_now)
{
    static uint8_t room[4096];
    static const int seen[] = {2, 0, 2};
    int port = 0, labels = 0;
    struct um_igtl_message m;
    struct um_igtl_image image;
    struct um_igtl_label label;
    um_sink *sink = open_sink("", 1, &port);
    int fd = join(port, 1);
    for (int i = 0; i < 3; i++) {
        const um_packet *packet = make_packet((uint64_t)i, &seen[i], 1);
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        CHECK(receive_type(fd, "LBMETA", &m, room, sizeof room));
        CHECK_OK(um_igtl_label_count(&labels, &m));
        CHECK_EQ(labels, 1);
        um_igtl_label_read(&label, &m, 0);
        CHECK_STR(label.name, seen[i] ? "rib" : "spine");
        CHECK_EQ(label.label, 1);
        um_packet_unref(&packet);
    }
    close(fd);
    CHECK_OK(um_sink_close(&sink));

    const int many[] = {300, 0};
    const um_packet *packet = make_packet(1, many, 2);
    sink = open_sink("per-class", 2, &port);
    fd = join(port, 1);
    for (int twice = 0; twice < 2; twice++) { /* LBMETA once: the cut name is not another one */
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        if (!twice) {
            CHECK(receive(fd, &m, room, sizeof room));
            CHECK_STR(m.header.type, "LBMETA");
            um_igtl_label_read(&label, &m, 2);
            CHECK_EQ(label.label, 255);
            CHECK_STR(label.name, "x" TEN TEN TEN "\u00e9");
        }
        for (int k = 0; k < 3; k++) {
            CHECK(receive(fd, &m, room, sizeof room));
            CHECK_OK(um_igtl_image_read(&image, &m));
            CHECK_EQ(image.pixels[W], k == 0 ? 255 : k == 2);
        }
        CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* Box */
        CHECK(receive(fd, &m, room, sizeof room));                /* State */
    }
    close(fd);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

/* Where ::1 has that name, too, peers that know IPv4 alone would find nobody. */
TEST(localhost_is_127_0_0_1)
{
    um_sink *sink = NULL;
    CHECK_OK(um_sink_open(&sink, "igtl:localhost:0", NULL));
    close(join((int)sink_count(sink, "port"), 1));
    CHECK_OK(um_sink_close(&sink));
}

TEST(a_sink_answers_queries)
{
    static uint8_t room[4096];
    const int one[] = {0};
    int port = 0;
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("", 1, &port);
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    int fd = join(port, 2);
    static const struct {
        const char *query, *type;
        int status; /* of an RTS */
    } asked[] = {{"STP_IMAGE", "RTS_IMAGE", 0},       {"GET_IMAGE", "IMAGE", -1},
                 {"GET_LBMETA", "LBMETA", -1},        {"GET_CAPABIL", "CAPABILITY", -1},
                 {"GET_STATUS", "STATUS", -1},        {"STT_TRANS", "RTS_TRANS", 1},
                 {"GET_POLYDATA", "RTS_POLYDATA", 1}, {"GET_TRANSFOR", "RTS_TRANSFOR", 1},
                 {"STT_IMAGE", "RTS_IMAGE", 0}};
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* Box */
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* State */
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        um_igtl_begin(&out, 2, asked[i].query, "Mask", 0, 0);
        um_igtl_end(&out, NULL, 0);
        CHECK(send_box(fd, &out));
        CHECK_MSG(receive(fd, &m, room, sizeof room), "%s", asked[i].query);
        CHECK_STR(m.header.type, asked[i].type);
        CHECK_STR(m.header.device, "Mask");
        if (asked[i].status >= 0)
            CHECK_EQ(m.content[0], asked[i].status);
    }
    /* another device's images are neither sent nor stopped */
    static const char *const others[] = {"GET_IMAGE", "STP_IMAGE"};
    for (int i = 0; i < 2; i++) {
        um_igtl_begin(&out, 2, others[i], "Other", 0, 0);
        um_igtl_end(&out, NULL, 0);
        CHECK(send_box(fd, &out));
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "RTS_IMAGE");
        CHECK_STR(m.header.device, "Other");
        CHECK_EQ(m.content[0], 1);
    }
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    CHECK(receive_type(fd, "IMAGE", &m, room, sizeof room));
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room));
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room));
    /* stopped means stopped: the next frame comes after STT only */
    um_igtl_begin(&out, 2, "STP_IMAGE", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    CHECK(send_box(fd, &out));
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    um_igtl_begin(&out, 2, "STT_IMAGE", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    CHECK(send_box(fd, &out));
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "RTS_IMAGE");
    /* what is no message is named, then the door closes */
    memset(room, 0xff, 58);
    room[0] = 0;
    room[1] = 1;
    CHECK(send_all(fd, room, 58));
    CHECK(receive_type(fd, "STATUS", &m, room, sizeof room));
    CHECK_EQ(m.content[1], UM_IGTL_OVERFLOW);
    CHECK(!receive(fd, &m, room, sizeof room));
    close(fd);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

TEST(who_asks_for_an_image_gets_the_one_of_that_name)
{
    static uint8_t room[4096];
    const int one[] = {2};
    static const char *const asked[] = {"Image_Reference", "Mask3_Reference", "Mask_Reference", ""};
    int port = 0;
    um_frame *frame = make_frame(0x6553F100deadbeef);
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("relay=image,per-class", 2, &port);
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    int fd = join(port, 1);
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* Box */
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* State */
    for (int i = 0; i < 4; i++) {
        um_igtl_begin(&out, 1, "GET_IMAGE", asked[i], 0, 0);
        um_igtl_end(&out, NULL, 0);
        CHECK(send_box(fd, &out));
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "IMAGE");
        CHECK_STR(m.header.device, asked[i][0] ? asked[i] : "Mask_Reference");
    }
    close(fd);
    um_frame_unref(&frame);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

/* Also who asks before there is one; nothing else comes with it. */
TEST(who_asks_too_early_gets_the_next_one_of_that_name)
{
    static uint8_t room[4096];
    const int one[] = {0};
    static const char *const asked[] = {"Image_Reference", "", "Other"};
    int port = 0, fd[3];
    um_frame *frame = make_frame(0x6553F100deadbeef);
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("relay=all", 1, &port);
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    for (int i = 0; i < 3; i++) {
        fd[i] = join(port, 1);
        um_igtl_begin(&out, 1, "STP_IMAGE", "", 0, 0);
        um_igtl_end(&out, NULL, 0);
        um_igtl_begin(&out, 1, "GET_IMAGE", asked[i], 0, 0);
        um_igtl_end(&out, NULL, 0);
        um_igtl_begin(&out, 1, "GET_STATUS", "", 0, 0);
        um_igtl_end(&out, NULL, 0);
        CHECK(send_box(fd[i], &out));
        CHECK(receive_type(fd[i], "STATUS", &m, room, sizeof room)); /* all of them have come */
    }
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    for (int i = 0; i < 3; i++) {
        um_igtl_begin(&out, 1, "GET_CAPABIL", "", 0, 0);
        um_igtl_end(&out, NULL, 0);
        CHECK(receive(fd[i], &m, room, sizeof room));
        CHECK_STR(m.header.type, i < 2 ? "IMAGE" : "RTS_IMAGE");
        CHECK_STR(m.header.device, i == 1 ? "Mask_Reference" : asked[i]);
        CHECK(i < 2 || m.content[0] == 1);
        CHECK(send_box(fd[i], &out));
        CHECK(receive(fd[i], &m, room, sizeof room));
        CHECK_STR(m.header.type, "CAPABILITY");
        close(fd[i]);
    }
    um_frame_unref(&frame);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

/* Of too many the last ones are refused. */
TEST(who_asks_too_early_for_several_images_gets_each)
{
    enum { MOST = 8 };
    static uint8_t room[4096];
    const int one[] = {0};
    int port = 0, fd;
    um_frame *frame = make_frame(0x6553F100deadbeef);
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("relay=all,mailbox=32", 1, &port);
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    fd = join(port, 1);
    um_igtl_begin(&out, 1, "STP_IMAGE", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    for (int i = 0; i <= MOST; i++) {
        um_igtl_begin(&out, 1, "GET_IMAGE", i % 2 ? "Image_Reference" : "Mask_Reference", 0, 0);
        um_igtl_end(&out, NULL, 0);
    }
    CHECK(send_box(fd, &out));
    for (int i = 0; i < 2; i++) { /* of STP_IMAGE, and of the one too many */
        CHECK(receive_type(fd, "RTS_IMAGE", &m, room, sizeof room));
        CHECK_EQ(m.content[0], i);
    }
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    for (int i = 0; i < MOST; i++) {
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "IMAGE");
        CHECK_STR(m.header.device, i % 2 ? "Image_Reference" : "Mask_Reference");
    }
    close(fd);
    um_frame_unref(&frame);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

/* A camera's or a file's image is relayed, too. */
TEST(what_did_not_come_over_openigtlink_is_relayed)
{
    static uint8_t room[4096];
    static const char *const want[][2] = {
        {"TRANSFORM", "ProbeToReference"}, {"IMAGE", "Image"}, {"IMAGE", "Mask"}};
    const int one[] = {0};
    int port = 0;
    um_frame *frame = NULL;
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("relay=all", 1, &port);
    struct um_igtl_message m;
    struct um_igtl_image image;
    struct um_igtl_label label;
    float matrix[12];
    int fd = join(port, 1);
    CHECK_OK(um_frame_create(&frame, W, H, 3));
    for (int i = 0; i < W * H * 3; i++)
        frame->pixels[i / (W * 3) * frame->stride + i % (W * 3)] = (uint8_t)i;
    frame->has_pose = 1;
    frame->pose[3] = 7;
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "LBMETA");
    um_igtl_label_read(&label, &m, 0);
    CHECK_STR(label.owner, "Image");
    CHECK_STR(label.device, "Mask");
    for (int i = 0; i < 3; i++) {
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, want[i][0]);
        CHECK_STR(m.header.device, want[i][1]);
        if (i == 0) {
            CHECK_OK(um_igtl_transform_read(matrix, &m));
            CHECK(matrix[3] == 7);
        } else {
            CHECK_OK(um_igtl_image_read(&image, &m));
            CHECK(image.components == (i == 1 ? 3 : 1) && image.size[0] == W);
            CHECK(i == 2 || image.pixels[W * 3 + 1] == (uint8_t)(W * 3 + 1));
        }
    }
    close(fd);
    um_frame_unref(&frame);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

/* Messages are made in the versions that are spoken, and who speaks 1 cannot read 2. */
TEST(who_comes_later_is_answered_in_its_version)
{
    static uint8_t room[4096];
    const int one[] = {0};
    int port = 0, fd[2];
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("", 1, &port);
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    fd[1] = join(port, 2);
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    CHECK(receive_type(fd[1], "IMAGE", &m, room, sizeof room));
    fd[0] = join(port, 1);
    um_igtl_begin(&out, 1, "GET_IMAGE", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    um_igtl_begin(&out, 1, "GET_STATUS", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    CHECK(send_box(fd[0], &out));
    CHECK(receive(fd[0], &m, room, sizeof room)); /* there is no image for it yet */
    CHECK_STR(m.header.type, "STATUS");
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    for (int i = 0; i < 2; i++) {
        CHECK(receive_type(fd[i], "IMAGE", &m, room, sizeof room));
        CHECK_EQ(m.header.version, i + 1);
        close(fd[i]);
    }
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

TEST(who_stops_transforms_still_gets_images)
{
    static uint8_t room[4096];
    const int one[] = {0};
    int port = 0;
    um_frame *frame = make_frame(0x6553F100deadbeef);
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("relay=all", 1, &port);
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    int fd = join(port, 1);
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    CHECK(receive_type(fd, "TRANSFORM", &m, room, sizeof room));
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* Box */
    CHECK(receive_type(fd, "STRING", &m, room, sizeof room)); /* State */
    um_igtl_begin(&out, 1, "STP_TRANS", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    CHECK(send_box(fd, &out));
    CHECK(receive(fd, &m, room, sizeof room));
    CHECK_STR(m.header.type, "RTS_TRANS");
    CHECK_OK(um_sink_write(sink, packet, frame, NULL));
    for (int i = 0; i < 2; i++) {
        CHECK(receive(fd, &m, room, sizeof room));
        CHECK_STR(m.header.type, "IMAGE");
        CHECK_STR(m.header.device, i ? "Mask_Reference" : "Image_Reference");
    }
    close(fd);
    um_frame_unref(&frame);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

TEST(a_slow_client_costs_others_nothing)
{
    enum { FRAMES = 100, BIG = 512 };
    static uint8_t room[BIG * BIG + 4096];
    int port = 0;
    um_packet p = {.struct_size = sizeof p, .width = BIG, .height = BIG, .crop = {0, 0, BIG, BIG}};
    um_packet *made = NULL;
    um_sink *sink = open_sink("", 1, &port);
    struct um_igtl_message m;
    int slow = join(port, 1), quick = join(port, 1);
    for (unsigned i = 1; i <= FRAMES; i++) {
        p.frame_id = i;
        p.ts = i;
        CHECK_OK(um_packet_create(&made, &p, NULL, 0));
        const um_packet *packet = made;
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        um_packet_unref(&packet);
        /* the quick one gets each of them, one after the other */
        CHECK(receive_type(quick, "IMAGE", &m, room, sizeof room));
        CHECK_EQ(m.header.stamp >> 32, i);
    }
    CHECK(receive_type(quick, "STRING", &m, room, sizeof room));
    CHECK(receive_type(quick, "STRING", &m, room, sizeof room));
    uint64_t dropped = sink_count(sink, "dropped"), got = 0, last = 0;
    CHECK(dropped > 0);
    /* and the slow one gets whole messages, in order, the newest last; all are accounted for */
    while (last < FRAMES) {
        CHECK(receive_type(slow, "IMAGE", &m, room, sizeof room));
        CHECK(m.header.stamp >> 32 > last);
        last = m.header.stamp >> 32;
        got++;
    }
    CHECK_EQ(got + dropped, FRAMES);
    close(slow);
    close(quick);
    CHECK_OK(um_sink_close(&sink));
}

/* Megabytes that wait in its socket would be seconds on a slow network. */
TEST(a_slow_client_is_behind_by_its_mailbox_and_no_more)
{
    enum { FRAMES = 20, BIG = 512 };
    int port = 0;
    um_packet p = {.struct_size = sizeof p, .width = BIG, .height = BIG};
    um_packet *made = NULL;
    um_sink *sink = open_sink("", 1, &port);
    int fd = join(port, 1);
    for (int i = 0; i < FRAMES; i++) {
        CHECK_OK(um_packet_create(&made, &p, NULL, 0));
        const um_packet *packet = made;
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        um_packet_unref(&packet);
        poll(NULL, 0, 5);
    }
    CHECK_MSG(sink_count(sink, "sent") <= 2, "%d", (int)sink_count(sink, "sent"));
    close(fd);
    CHECK_OK(um_sink_close(&sink));
}

TEST(who_asks_and_takes_nothing_holds_no_more_than_its_mailbox)
{
    enum { FRAMES = 60, BIG = 512 };
    int port = 0;
    um_packet p = {.struct_size = sizeof p, .width = BIG, .height = BIG, .crop = {0, 0, BIG, BIG}};
    um_packet *made = NULL;
    um_sink *sink = open_sink("", 1, &port);
    struct um_igtl_outbox out = {0};
    int fd = join(port, 1);
    um_igtl_begin(&out, 1, "STP_IMAGE", "", 0, 0);
    um_igtl_end(&out, NULL, 0);
    CHECK(send_box(fd, &out));
    for (uint64_t i = 1; i <= FRAMES; i++) {
        while (sink_count(sink, "queries") < i + 1) /* join() asks, too */
            sched_yield();
        p.frame_id = i;
        CHECK_OK(um_packet_create(&made, &p, NULL, 0));
        const um_packet *packet = made;
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        um_packet_unref(&packet);
        um_igtl_begin(&out, 1, "GET_IMAGE", "", 0, 0);
        um_igtl_end(&out, NULL, 0);
        CHECK(send_box(fd, &out));
    }
    while (sink_count(sink, "queries") < FRAMES + 2)
        sched_yield();
    uint64_t waiting = sink_count(sink, "waiting"), all = 0;
    CHECK(waiting <= 3);
    for (int i = 0; i < 1000 && all != FRAMES; i++) /* some of them go while they are counted */
        all = sink_count(sink, "sent") + sink_count(sink, "dropped") + sink_count(sink, "waiting");
    CHECK_EQ(all, FRAMES);
    close(fd);
    CHECK_OK(um_sink_close(&sink));
}

static void tell_gone(void *ctx, const char *text)
{
    if (strstr(text, ": gone ") && write(*(int *)ctx, "", 1) != 1)
        abort();
}

/* LBMETA (which changes with the size) and answers wait beside frames, and are none. */
TEST(answers_that_wait_are_no_frames_and_cost_none)
{
    enum { MOST = 64, BIG = 4096 };
    int port = 0;
    um_packet *made = NULL;
    um_sink *sink = open_sink("mailbox=20", 1, &port);
    struct um_igtl_outbox out = {0};
    int fd = join(port, 1);
    for (int i = 0; i < 3; i++) { /* the first is too much for the socket */
        um_packet p = {.struct_size = sizeof p, .width = BIG + i, .height = BIG};
        CHECK_OK(um_packet_create(&made, &p, NULL, 0));
        const um_packet *packet = made;
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        um_packet_unref(&packet);
        while (i == 0 && sink_count(sink, "waiting") > 1)
            sched_yield(); /* LBMETA goes */
        for (int k = 0; k < (i == 0 ? MOST - 4 : 0); k++) {
            um_igtl_begin(&out, 1, "GET_STATUS", "", 0, 0);
            um_igtl_end(&out, NULL, 0);
            CHECK(send_box(fd, &out));
        }
        while (sink_count(sink, "queries") < 1 + MOST - 4)
            sched_yield();
        CHECK_EQ(sink_count(sink, "sent") + sink_count(sink, "dropped") +
                     sink_count(sink, "waiting"),
                 (uint64_t)i + 1);
    }
    close(fd);
    CHECK_OK(um_sink_close(&sink));
}

TEST(frames_of_a_client_that_leaves_are_counted)
{
    enum { FRAMES = 12, BIG = 1024 };
    int news[2];
    char byte;
    um_sink_settings set;
    um_sink *sink = NULL;
    um_sink_settings_default(&set);
    set.log = tell_gone;
    set.log_ctx = &news[1];
    CHECK(pipe(news) == 0);
    CHECK_OK(um_sink_open(&sink, "igtl:127.0.0.1:0?mailbox=5", &set));
    int fd = join((int)sink_count(sink, "port"), 1);
    for (uint64_t i = 1; i <= FRAMES; i++) {
        um_packet fields = {
            .struct_size = sizeof fields, .frame_id = i, .width = BIG, .height = BIG};
        um_packet *made = NULL;
        CHECK_OK(um_packet_create(&made, &fields, NULL, 0));
        const um_packet *packet = made;
        CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
        um_packet_unref(&packet);
    }
    close(fd);
    CHECK(read(news[0], &byte, 1) == 1);
    CHECK(sink_count(sink, "unsent") > 0);
    CHECK_EQ(sink_count(sink, "sent") + sink_count(sink, "dropped") + sink_count(sink, "unsent"),
             FRAMES);
    CHECK_OK(um_sink_close(&sink));
    close(news[0]);
    close(news[1]);
}

TEST(clients_are_counted_and_too_many_refused)
{
    int port = 0;
    uint8_t room[256];
    struct um_igtl_message m;
    um_sink *sink = open_sink("clients=2", 1, &port);
    int a = join(port, 1), b = join(port, 2), c = connect_to(port);
    CHECK(receive(c, &m, room, sizeof room));
    CHECK_EQ(m.content[1], UM_IGTL_RESOURCE);
    CHECK(!receive(c, &m, room, sizeof room));
    CHECK_EQ(sink_count(sink, "clients"), 2);
    CHECK_EQ(sink_count(sink, "connected"), 2);
    CHECK_EQ(sink_count(sink, "refused"), 1);
    close(a);
    close(b);
    close(c);
    CHECK_OK(um_sink_close(&sink));
}

/* The last message of a connection, a STATUS, and then its end. */
static bool parts(int fd, int version, int code)
{
    static uint8_t room[1 << 16];
    struct um_igtl_message m;
    struct um_igtl_status status = {0};
    bool last = false;
    while (receive(fd, &m, room, sizeof room))
        last = strcmp(m.header.type, "STATUS") == 0 && m.header.version == version &&
               um_igtl_status_read(&status, &m) == UM_OK && status.code == code;
    return last && recv(fd, room, 1, 0) == 0;
}

TEST(both_say_when_they_end)
{
    const int one[] = {0};
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    int port = 0;
    const um_packet *packet = make_packet(1, one, 1);
    um_sink *sink = open_sink("", 1, &port);
    int first = join(port, 1), second = join(port, 2);
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    um_igtl_begin(&out, 1, "STRING", "nobody reads this", 0, 0);
    um_igtl_string_write(&out, "and it must not cost the peer our last words");
    um_igtl_end(&out, NULL, 0);
    CHECK(send_all(first, out.data, out.size));
    CHECK_OK(um_sink_close(&sink)); /* though neither has read anything, nor ends its side */
    CHECK(parts(first, 1, UM_IGTL_SHUTDOWN));
    CHECK(parts(second, 2, UM_IGTL_SHUTDOWN));
    close(first);
    close(second);
    um_packet_unref(&packet);
    CHECK(wire_open(&w, ""));
    um_igtl_outbox_finish(&out);
    put_image(&out, 1, "Image_Reference", 1, W, H, 1, 3);
    CHECK(send_all(w.fd, out.data, out.size));
    CHECK_OK(um_source_read(w.source, &f));
    CHECK(send_box(w.fd, &out)); /* a sender does not stop sending when nobody listens */
    um_frame_unref(&f);
    um_source_close(&w.source);
    CHECK(parts(w.fd, 1, UM_IGTL_SHUTDOWN));
    close(w.fd);
    close(w.listening);
}

TEST(who_sends_what_cannot_be_read_hears_why)
{
    /* a body that nobody could hold, a header of version 0 */
    for (int kind = 0; kind < 2; kind++) {
        struct wire w;
        struct um_igtl_outbox out = {0};
        um_frame *f = NULL;
        CHECK(wire_open(&w, ""));
        put_image(&out, 1, "Image_Reference", 1, W, H, 1, 3);
        size_t whole = out.size;
        put_image(&out, 1, "Image_Reference", 2, W, H, 1, 3);
        if (kind)
            out.data[whole + 1] = 0;
        else
            memset(out.data + whole + 42, 0xff, 8);
        CHECK(send_box(w.fd, &out));
        CHECK(parts(w.fd, 1, UM_IGTL_OVERFLOW));
        CHECK_OK(um_source_read(w.source, &f)); /* what came before counts */
        um_frame_unref(&f);
        CHECK_EQ(source_count(w.source, "malformed"), 1);
        wire_close(&w);
    }
}

/* A sum of frames and replaced ones that is taken then is right also later. */
TEST(a_cancelled_source_replaces_nothing_and_says_farewell)
{
    enum { N = 200 };
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, ""));
    for (uint64_t i = 1; i <= N; i++)
        put_image(&out, 1, "Image", i << 32, 16, 16, 1, 0);
    CHECK(send_all(w.fd, out.data, out.size));
    CHECK_OK(um_source_read(w.source, &f));
    um_frame_unref(&f);
    um_source_cancel(w.source);
    uint64_t replaced = um_source_replaced(w.source);
    (void)send(w.fd, out.data, out.size, MSG_NOSIGNAL);
    um_igtl_outbox_finish(&out);
    CHECK(parts(w.fd, 1, UM_IGTL_SHUTDOWN));
    CHECK_EQ(um_source_replaced(w.source), replaced);
    CHECK_EQ(source_count(w.source, "replaced"), replaced);
    wire_close(&w);
}

static void tell(void *ctx, const char *text)
{
    if (strstr(text, ": client ") && write(*(int *)ctx, "", 1) != 1)
        abort();
}

TEST(a_sink_connects_and_our_source_listens)
{
    um_sink_settings set;
    int news[2];
    char byte;
    um_source *source = NULL;
    um_sink *sink = NULL;
    char spec[64];
    const int one[] = {0};
    um_frame *f = NULL, *from = make_frame(12345);
    const um_packet *packet = make_packet(3, one, 1);
    CHECK(from && packet);
    CHECK_OK(um_source_open(&source, "igtl-listen:127.0.0.1:0", NULL));
    snprintf(spec, sizeof spec, "igtl-connect:127.0.0.1:%d", (int)source_count(source, "port"));
    CHECK(pipe(news) == 0);
    um_sink_settings_default(&set);
    set.log = tell;
    set.log_ctx = &news[1];
    CHECK_OK(um_sink_open(&sink, spec, &set));
    CHECK(read(news[0], &byte, 1) == 1);
    CHECK_OK(um_sink_write(sink, packet, from, NULL));
    CHECK_OK(um_source_read(source, &f));
    CHECK(f->width == W && f->height == H && um_frame_origin(f)->stamp == 12345);
    CHECK_STR(um_frame_origin(f)->device, "Mask_Reference");
    for (int i = 0; i < W * H; i++)
        CHECK_EQ(f->pixels[i], i / W == 1);
    um_frame_unref(&f);
    um_frame_unref(&from);
    um_packet_unref(&packet);
    um_source_close(&source);
    CHECK_OK(um_sink_close(&sink));
    close(news[0]);
    close(news[1]);
}

TEST(a_server_that_sends_us_away_is_not_stormed)
{
    um_sink *sink = NULL;
    char spec[64];
    int port = 0, came = 0, listening = listen_here(&port);
    snprintf(spec, sizeof spec, "igtl-connect:127.0.0.1:%d", port);
    CHECK_OK(um_sink_open(&sink, spec, NULL));
    for (uint64_t begin = um_clock_ns(); um_clock_ns() - begin < 1000000000;) {
        struct pollfd p = {.fd = listening, .events = POLLIN};
        if (poll(&p, 1, 50) == 1) {
            close(accept(listening, NULL, NULL));
            came++;
        }
    }
    CHECK_MSG(came >= 2 && came <= 5, "%d connections", came); /* after 0, 0.1, 0.3, 0.7 s */
    CHECK_OK(um_sink_close(&sink));
    /* and one that we send away is let go, though there is nobody else */
    CHECK_OK(um_sink_open(&sink, spec, NULL));
    int fd = accept(listening, NULL, NULL);
    close(listening);
    uint8_t garbage[58];
    memset(garbage, 0xff, sizeof garbage);
    garbage[0] = 0;
    garbage[1] = 1;
    CHECK(send_all(fd, garbage, sizeof garbage));
    bool gone = false;
    for (uint64_t begin = um_clock_ns(); !gone && um_clock_ns() - begin < 3000000000;) {
        poll(NULL, 0, 50);
        gone = send(fd, "", 1, MSG_NOSIGNAL) < 0;
    }
    CHECK(gone);
    close(fd);
    CHECK_OK(um_sink_close(&sink));
    listening = listen_here(&port);
    snprintf(spec, sizeof spec, "igtl-connect:127.0.0.1:%d", port);
    um_igtl *peer = NULL;
    CHECK_OK(um_igtl_open(&peer, strchr(spec, ':') + 1));
    came = 0;
    for (uint64_t begin = um_clock_ns(); um_clock_ns() - begin < 1000000000; came++) {
        CHECK_OK(um_igtl_wait(peer, 1000));
        close(accept(listening, NULL, NULL));
    }
    CHECK_MSG(came >= 2 && came <= 11, "%d connections", came);
    um_igtl_close(&peer);
    close(listening);
}

/* What is cut off stays the last: a message behind it would lie in its middle. */
TEST(nothing_follows_a_message_that_was_cut_off)
{
    um_igtl *from = NULL, *to = NULL;
    um_frame *frame = NULL;
    char address[32], *json = NULL;
    int woken = -1;
    CHECK_OK(um_igtl_open(&to, ":0"));
    snprintf(address, sizeof address, "127.0.0.1:%d", um_igtl_port(to));
    CHECK_OK(um_igtl_open(&from, address));
    CHECK_OK(um_igtl_wait(from, 1000));
    CHECK_OK(um_igtl_wait(to, 1000));
    CHECK_OK(um_frame_create(&frame, 4096, 4096, 1)); /* more than a socket holds */
    memset(frame->pixels, 7, 4096 * 4096);
    CHECK_EQ(um_igtl_send_frame(from, frame, NULL), UM_EINVAL);
    CHECK_STR(um_last_error(), "um_igtl_send_frame: no device");
    CHECK_OK(um_wake_open(&woken, "a test"));
    um_wake_set(woken);
    um_igtl_set_wake(from, woken);
    CHECK_EQ(um_igtl_send_frame(from, frame, "Image"), UM_EIO);
    um_igtl_set_wake(from, -1);
    CHECK_EQ(um_igtl_send_text(from, "STRING", "Text", "behind it"), UM_EOF);
    CHECK_EQ(um_igtl_receive(to, 1000, &json), UM_EOF);
    um_wake_close(&woken);
    um_frame_unref(&frame);
    um_igtl_close(&from);
    um_igtl_close(&to);
}

struct listener {
    int told, free; /* ends of pipes */
    int lines;
};

/* Somebody who is told, and takes until he is let go. */
static void listen_long(void *ctx, const char *text)
{
    struct listener *l = ctx;
    char byte;
    if (strstr(text, "listening"))
        return;
    if (!l->lines++ && write(l->told, "", 1) != 1)
        abort();
    while (read(l->free, &byte, 1) > 0)
        ;
}

TEST(names_of_peers_do_not_speak_to_the_terminal)
{
    struct um_igtl_news news = {0};
    char line[UM_IGTL_LINE];
    um_igtl_news_note(&news, "igtl://a:1", "transform \"\x1b[31m\xffT\"", "", "none");
    CHECK(um_igtl_news_take(&news, "igtl://a:1", false, line));
    CHECK_STR(line, "igtl://a:1: transform \"\\x1b[31m\\xffT\": none");
}

/* An image of one pixel, whose axes are so long, along x, y and z. */
static bool send_pixel(const struct wire *w, uint64_t stamp, float t, float s, float n)
{
    struct um_igtl_outbox out = {0};
    struct um_igtl_image image = {.components = 1,
                                  .scalar = UM_IGTL_U8,
                                  .endian = UM_IGTL_LITTLE,
                                  .coordinates = UM_IGTL_RAS,
                                  .size = {1, 1, 1},
                                  .part = {1, 1, 1},
                                  .t = {t},
                                  .s = {0, s},
                                  .n = {0, 0, n}};
    um_igtl_begin(&out, 1, "IMAGE", "Image_Reference", stamp, 5);
    um_igtl_image_write(&out, &image);
    um_igtl_u8(&out, 1);
    um_igtl_end(&out, NULL, 0);
    return send_box(w->fd, &out);
}

TEST(a_place_that_is_none_is_told_once_and_kept)
{
    struct wire w;
    um_frame *f = NULL;
    CHECK(wire_open(&w, ""));
    for (int i = 0; i < 2; i++) {
        CHECK(send_pixel(&w, 7 + (uint64_t)i, NAN, 0, 0));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK(isnan(um_frame_origin(f)->image.t[0]) && !f->has_spacing);
        um_frame_unref(&f);
    }
    wire_close(&w); /* from here on nobody speaks */
    const char *first = strstr(w.heard, "image \"Image_Reference\": its matrix is not finite");
    CHECK_MSG(first && !strstr(first + 1, "image \""), "%s", w.heard);
}

TEST(a_place_that_is_none_costs_the_next_image_nothing)
{
    static const float axis[] = {NAN, .5f, INFINITY, .5f, 1e30f, .5f};
    struct wire w;
    um_frame *f = NULL;
    CHECK(wire_open(&w, ""));
    for (int i = 0; i < 6; i++) {
        CHECK(send_pixel(&w, 7 + (uint64_t)i, axis[i], .5f, 1));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK_EQ(f->has_spacing, i % 2);
        um_frame_unref(&f);
    }
    wire_close(&w);
}

/* Each a message of its own that is dropped; one that comes twice is told once. */
static void is_told(const char *options, void (*spoil)(struct um_igtl_outbox *out),
                    const char *text)
{
    struct wire w;
    um_frame *f = NULL;
    struct um_igtl_outbox out = {0};
    CHECK(wire_open(&w, options));
    for (int i = 0; i < 2; i++) {
        put_image(&out, 1, "Image_Reference", 7, 4, 4, 1, 0);
        spoil(&out);
        CHECK(send_box(w.fd, &out));
    }
    put_image(&out, 1, "Image_Reference", 8, 4, 4, 1, 0);
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    um_frame_unref(&f);
    wire_close(&w);
    const char *told = strstr(w.heard, text);
    CHECK_MSG(told && !strstr(told + 1, "dropped"), "%s", w.heard);
}

static void without_crc(struct um_igtl_outbox *out)
{
    memset(out->data + UM_IGTL_HEADER - 8, 0, 8);
}

static void of_doubles(struct um_igtl_outbox *out)
{
    out->data[UM_IGTL_HEADER + 3] = UM_IGTL_F64;
}

TEST(messages_that_are_dropped_are_told)
{
    is_told("crc=check", without_crc,
            "dropped: IMAGE \"Image_Reference\": its CRC is wrong (crc=count takes it)");
    is_told("crc=ignore", of_doubles, "dropped: IMAGE \"Image_Reference\": 16 bytes of pixels");
}

TEST(images_of_another_device_are_told_where_nothing_else_comes)
{
    struct wire w;
    struct um_igtl_outbox out = {0};
    CHECK(wire_open(&w, "device=Image_Refrence"));
    for (uint64_t i = 0; i < 4; i++) {
        put_image(&out, 1, "Image_Reference", 7 + i, 4, 4, 1, 0);
        CHECK(send_box(w.fd, &out));
        sleep(1);
        CHECK_EQ(source_count(w.source, "other_device"), i + 1);
    }
    wire_close(&w);
    const char *told =
        strstr(w.heard, "image \"Image_Reference\": passed over, but no \"Image_Refrence\"");
    CHECK_MSG(told && !strstr(told + 1, "image \""), "%s", w.heard);
}

TEST(of_two_images_it_is_told_which_is_followed)
{
    struct wire w;
    struct um_igtl_outbox out = {0};
    um_frame *f = NULL;
    CHECK(wire_open(&w, ""));
    for (uint64_t i = 0; i < 4; i++) {
        put_image(&out, 1, i % 2 ? "Image_Reference" : "Video", 7 + i, 4, 4, 1, 0);
        CHECK(send_box(w.fd, &out));
    }
    CHECK_OK(um_source_read(w.source, &f));
    CHECK_STR(um_frame_origin(f)->device, "Video");
    um_frame_unref(&f);
    while (source_count(w.source, "other_device") < 2)
        sched_yield();
    wire_close(&w);
    const char *told =
        strstr(w.heard, "image \"Image_Reference\": passed over, as \"Video\" came first");
    CHECK_MSG(told && !strstr(told + 1, "image \""), "%s", w.heard);
}

TEST(poses_that_fit_no_image_are_told_once)
{
    struct wire w;
    um_frame *f = NULL;
    struct um_igtl_outbox out = {0};
    CHECK(wire_open(&w, "pair-ms=0"));
    for (uint64_t i = 1; i < 30; i++) { /* each message is stamped when it is sent */
        put_transform(&out, "ProbeToReference", 1000 * i, 1);
        put_image(&out, 1, "Image_Reference", 1000 * i + 1, 4, 4, 1, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK(!f->has_pose);
        um_frame_unref(&f);
    }
    wire_close(&w);
    const char *told = strstr(w.heard, "transform \"ProbeToReference\": it comes, but none");
    CHECK_MSG(told && !strstr(told + 1, "transform"), "%s", w.heard);
}

/* A pose of another name is taken for none, and that is told, too. */
TEST(a_transform_that_may_be_the_pose_is_told)
{
    struct wire w;
    um_frame *f = NULL;
    struct um_igtl_outbox out = {0};
    CHECK(wire_open(&w, ""));
    for (uint64_t i = 1; i < 30; i++) {
        put_transform(&out, "ProbeToTracker", i, 1);
        put_image(&out, 1, "Image_Tracker", i, 4, 4, 1, 0);
        CHECK(send_box(w.fd, &out));
        CHECK_OK(um_source_read(w.source, &f));
        CHECK(!f->has_pose);
        um_frame_unref(&f);
    }
    CHECK_EQ(source_count(w.source, "without_pose"), 0);
    wire_close(&w);
    const char *told = strstr(w.heard, "transform \"ProbeToTracker\": it comes with images, and "
                                       "\"ProbeToReference\" does not: no poses (pose=)");
    CHECK_MSG(told && !strstr(told + 1, "transform"), "%s", w.heard);
}

TEST(who_is_told_holds_no_frames)
{
    static uint8_t room[4096];
    const int one[] = {0};
    int told[2], free[2], port = 0;
    char byte;
    um_sink_settings set;
    um_sink *sink = NULL;
    struct um_igtl_message m;
    CHECK(pipe(told) == 0 && pipe(free) == 0);
    struct listener l = {told[1], free[0], 0};
    um_sink_settings_default(&set);
    set.log = listen_long;
    set.log_ctx = &l;
    const um_packet *packet = make_packet(1, one, 1);
    CHECK_OK(um_sink_open(&sink, "igtl:127.0.0.1:0?clients=1", &set));
    port = (int)sink_count(sink, "port");
    int fd = connect_to(port);
    CHECK(read(told[0], &byte, 1) == 1);
    CHECK_OK(um_sink_write(sink, packet, NULL, NULL));
    CHECK_EQ(sink_count(sink, "connected"), 1);
    close(free[1]);
    for (int i = 0; i < 40; i++) { /* only some of many are told */
        int other = connect_to(port);
        CHECK(receive(other, &m, room, sizeof room));
        CHECK_STR(m.header.type, "STATUS");
        close(other);
    }
    CHECK_OK(um_sink_close(&sink));
    CHECK_EQ(l.lines, 10); /* of ten the first is "listening"; and how many more there were */
    um_packet_unref(&packet);
    close(fd);
    close(free[0]);
    close(told[0]);
    close(told[1]);
}

TEST(opening_and_writing_survive_failed_allocations)
{
    static uint8_t room[4096];
    const int one[] = {0};
    um_status st = UM_ENOMEM;
    um_source *source = NULL;
    um_sink *sink = NULL;
    struct um_igtl_message m;
    const um_packet *packet = make_packet(3, one, 1);
    int port = 0;
    for (uint64_t k = 1; st != UM_OK; k++) {
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_source_open(&source, "igtl-listen:127.0.0.1:0", NULL);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK((st == UM_OK) == (source != NULL) && k < 50);
        um_source_close(&source);
    }
    st = UM_ENOMEM;
    for (uint64_t k = 1; st != UM_OK; k++) {
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_sink_open(&sink, "igtl:127.0.0.1:0", NULL);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK((st == UM_OK) == (sink != NULL) && k < 50);
        um_sink_close(&sink);
    }
    sink = open_sink("", 1, &port);
    int fd = join(port, 2);
    st = UM_ENOMEM;
    for (uint64_t k = 1; st != UM_OK; k++) {
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_sink_write(sink, packet, NULL, NULL);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK(k < 50);
    }
    CHECK(receive_type(fd, "IMAGE", &m, room, sizeof room)); /* and then it comes */
    close(fd);
    um_packet_unref(&packet);
    CHECK_OK(um_sink_close(&sink));
}

TEST(long_names_are_cut_and_counted)
{
    static uint8_t room[4096];
    const int one[] = {0};
    struct wire w;
    struct um_igtl_outbox out = {0};
    struct um_igtl_message m;
    um_frame *f = NULL;
    int port = 0;
    const um_packet *packet = make_packet(3, one, 1);
    CHECK(wire_open(&w, ""));
    put_image(&out, 1, "I_ABCDEFGHIJKLMNOPQR", 1, W, H, 1, 3); /* 20 characters, no end */
    CHECK(send_box(w.fd, &out));
    CHECK_OK(um_source_read(w.source, &f));
    um_sink *sink = open_sink("", 1, &port);
    int fd = join(port, 1);
    CHECK_OK(um_sink_write(sink, packet, f, NULL));
    CHECK_OK(um_sink_write(sink, packet, f, NULL));
    CHECK(receive_type(fd, "IMAGE", &m, room, sizeof room));
    CHECK_STR(m.header.device, "Mask_ABCDEFGHIJKLMNO");
    CHECK_EQ(sink_count(sink, "cut"), 1);
    close(fd);
    um_frame_unref(&f);
    um_packet_unref(&packet);
    wire_close(&w);
    CHECK_OK(um_sink_close(&sink));
}

TEST_MAIN
