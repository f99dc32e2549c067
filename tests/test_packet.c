/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer, COCO RLE and what a packet looks like outside. */
#include "base/json.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/status.h"
#include "base/text.h"
#include "coco.h"
#include "engine/segmenter.h"
#include "io/rle.h"
#include "language.h"
#include "test.h"
#include "ultramotion/ultramotion.h"

#include <ctype.h>
#include <locale.h>
#include <unistd.h>

/* ---- JSON ---- */

static char *text_of(um_json *j)
{
    char *text = NULL;
    if (um_json_finish(j, &text) != UM_OK)
        abort();
    return text;
}

TEST(json_structure_and_escapes)
{
    um_json j = {0};
    um_json_begin(&j, '{');
    um_json_key(&j, "a");
    um_json_begin(&j, '[');
    um_json_end(&j, ']');
    um_json_key(&j, "b\"");
    um_json_begin(&j, '[');
    um_json_int(&j, -3);
    um_json_uint(&j, 18446744073709551615u);
    um_json_bool(&j, 1);
    um_json_null(&j);
    um_json_string(&j, NULL);
    um_json_begin(&j, '{');
    um_json_end(&j, '}');
    um_json_string(&j, "q\"b\\n\nt\x01 \xc3\xa9 \xff \xed\xa0\x80 \xf0\x9f\xa6\xb4");
    um_json_end(&j, ']');
    um_json_end(&j, '}');
    char *text = text_of(&j);
    CHECK_STR(text, "{\"a\":[],\"b\\\"\":[-3,18446744073709551615,true,null,null,{},"
                    "\"q\\\"b\\\\n\\u000at\\u0001 \xc3\xa9 \xef\xbf\xbd "
                    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xf0\x9f\xa6\xb4\"]}");
    um_free(text);
}

TEST(json_numbers_read_back)
{
    um_json j = {0};
    um_json_begin(&j, '[');
    um_json_float(&j, 0.1f);
    um_json_float(&j, 0.93f);
    um_json_float(&j, 16777216.f);
    um_json_float(&j, 1.f / 3);
    um_json_float(&j, -0.f);
    um_json_float(&j, NAN);
    um_json_float(&j, INFINITY);
    um_json_double(&j, 0.1);
    um_json_double(&j, 1.0 / 3);
    um_json_double(&j, 1732389839.25);
    um_json_end(&j, ']');
    char *text = text_of(&j);
    CHECK_STR(text,
              "[0.1,0.93,16777216,0.33333334,-0,null,null,0.1,0.3333333333333333,1732389839.25]");
    um_free(text);
    uint32_t state = 1;
    for (int i = 0; i < 20000; i++) { /* any bit pattern that is a number */
        float v, w;
        state = state * 1664525u + 1013904223u;
        memcpy(&v, &state, 4);
        um_json_float(&j, v);
        text = text_of(&j);
        w = strtof(text, NULL);
        CHECK_MSG(!isfinite(v) || memcmp(&v, &w, 4) == 0, "%s", text);
        um_free(text);
    }
}

/* A packet of these fields; the caller drops it. */
static const um_packet *make(um_packet fields)
{
    um_packet *p = NULL;
    fields.struct_size = sizeof fields;
    if (um_packet_create(&p, &fields, NULL, 0) != UM_OK)
        abort();
    return p;
}

/* ---- RLE ---- */

static char *read_text(const char *path)
{
    static char text[65536];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    return text;
}

enum { GW = 422, GH = 558, GROW = (GW + 31) / 32 * 4 };

/* pycocotools' own strings: decode, encode, compare; from bytes and from a packet's bits. */
TEST(rle_equals_pycocotools)
{
    static uint8_t mask[GW * GH], bits[GROW * GH], back[GW * GH];
    char *text = read_text(UM_GOLDEN_DIR "/end_to_end/expected.json");
    int found = 0;
    for (char *at = text; (at = strstr(at, "\"counts\": \"")); found++) {
        char counts[4096];
        size_t n = 0;
        for (at += 11; *at != '"' && n < sizeof counts - 1; at++) {
            at += *at == '\\';
            counts[n++] = *at;
        }
        counts[n] = 0;
        memset(mask, 0, sizeof mask);
        CHECK_EQ(rle_decode(counts, GW, GH, mask), GW * GH);
        char *mine = NULL;
        CHECK_OK(um_rle_encode(mask, GW, GH, &mine));
        CHECK_STR(mine, counts);
        free(mine);
        memset(bits, 0, sizeof bits);
        for (int y = 0; y < GH; y++)
            for (int x = 0; x < GW; x++)
                bits[y * GROW + x / 8] |= (uint8_t)(mask[y * GW + x] << x % 8);
        const um_packet *p = make((um_packet){.state = UM_STATE_VISIBLE,
                                              .has_mask = 1,
                                              .width = GW,
                                              .height = GH,
                                              .crop = {0, 0, GW, GH},
                                              .bits = bits});
        CHECK_OK(um_packet_object_rle(p, 0, &mine));
        CHECK_STR(mine, counts);
        free(mine);
        um_packet_mask(p, back, 1);
        um_packet_unref(&p);
        CHECK(memcmp(back, mask, sizeof mask) == 0);
    }
    CHECK_EQ(found, 6);
}

TEST(rle_of_small_masks)
{
    static const struct {
        int w, h;
        uint8_t mask[6];
        const char *counts;
    } cases[] = {
        {3, 2, {0, 0, 0, 0, 0, 0}, "6"}, /* as pycocotools.mask.encode(np.asfortranarray(mask)) */
        {3, 2, {1, 1, 1, 1, 1, 1}, "06"},     {3, 2, {1, 0, 0, 0, 0, 0}, "015"},
        {3, 2, {0, 9, 0, 0, 1, 0}, "222"},    {1, 1, {1}, "01"},
        {2, 3, {0, 1, 1, 0, 0, 1}, "111000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *counts = NULL;
        CHECK_OK(um_rle_encode(cases[i].mask, cases[i].w, cases[i].h, &counts));
        CHECK_STR(counts, cases[i].counts);
        free(counts);
    }
    char *counts = NULL;
    CHECK_EQ(um_rle_encode(NULL, 3, 2, &counts), UM_EINVAL);
    CHECK_EQ(um_rle_encode(cases[0].mask, 0, 2, &counts), UM_EINVAL);
}

/* Random masks in crops of every alignment, with rubbish in the padding bits. */
TEST(packet_mask_in_a_crop)
{
    uint32_t seed = 7;
    for (int round = 0; round < 300; round++) {
        int v[6];
        for (int i = 0; i < 6; i++) {
            seed = seed * 1664525u + 1013904223u;
            v[i] = (int)(seed >> 16);
        }
        int cw = 1 + v[0] % 70, ch = 1 + v[1] % 20, x0 = v[2] % 9, y0 = v[3] % 9,
            w = x0 + cw + v[4] % 9, h = y0 + ch + v[5] % 9;
        um_packet fields = {.state = UM_STATE_VISIBLE,
                            .has_mask = 1,
                            .width = w,
                            .height = h,
                            .crop = {x0, y0, cw, ch}};
        int row = um_packet_row_bytes(&fields);
        uint8_t bits[12 * 20], mask[90 * 40], want[90 * 40] = {0};
        for (int i = 0; i < row * ch; i++) {
            seed = seed * 1664525u + 1013904223u;
            bits[i] = round % 3 == 0   ? (uint8_t)(seed >> 24)
                      : round % 3 == 1 ? (uint8_t)(-(int)(seed >> 29 == 0))
                                       : 0;
        }
        for (int y = 0; y < ch; y++)
            for (int x = 0; x < cw; x++)
                want[(y + y0) * w + x + x0] = bits[y * row + x / 8] >> x % 8 & 1 ? 200 : 0;
        fields.bits = bits;
        const um_packet *p = make(fields);
        um_packet_mask(p, mask, 200);
        CHECK(memcmp(mask, want, (size_t)(w * h)) == 0);
        char *a = NULL, *b = NULL;
        CHECK_OK(um_packet_object_rle(p, 0, &a));
        um_packet_unref(&p);
        CHECK_OK(um_rle_encode(want, w, h, &b));
        CHECK_STR(a, b);
        free(a);
        free(b);
    }
}

/* ---- the line ---- */

TEST(packet_json_visible)
{
    static const uint8_t bits[8] = {1, 0, 0, 0, 2, 0, 0, 0};
    um_packet fields = {.frame_id = 3,
                        .ts = 1700000000.25,
                        .state = UM_STATE_VISIBLE,
                        .label = 1,
                        .score = .93f,
                        .has_box = 1,
                        .box = {0, .5f, 2, 2},
                        .has_mask = 1,
                        .width = 3,
                        .height = 2,
                        .crop = {0, 0, 3, 2},
                        .bits = bits,
                        .mask_area_px = 2,
                        .ms = {.1, 12.3456789, 0, 2, 15},
                        .transfers = {1, 1, 2, 0, 235476, 29760, 0},
                        .has_spacing = 1,
                        .spacing_mm = {.1, .2},
                        .device = "guard",
                        .precision = "fp32",
                        .iou = .75f,
                        .source = "sweep/a.png",
                        .name = "bone",
                        .lost_device = "cuda:0",
                        .has_deadline = 1,
                        .missed = 1,
                        .effort = UM_EFFORT_REPEAT,
                        .latency_ms = 20.5,
                        .has_cleaned = 1,
                        .removed_px = 7,
                        .filled_px = 1,
                        .gain = 1.5f,
                        .reused = 1,
                        .precision_reason = "asked for"};
    for (int i = 0; i < 64; i++)
        fields.detector_sha256[i] = 'a';
    const um_packet *p = make(fields);
    char *line = NULL;
    CHECK_OK(um_packet_json(p, &line));
    um_packet_unref(&p);
    CHECK_STR(line,
              "{\"frame_id\":3,\"ts\":1700000000.25,"
              "\"state\":\"VISIBLE\",\"tag\":\"fresh\","
              "\"label\":1,\"score\":0.93,"
              "\"box_xyxy\":[0,0.5,2,2],\"mask\":{\"size\":[2,3],\"counts\":\"01200\"},"
              "\"mask_area_px\":2,"
              "\"stages_ms\":{\"upload\":0.1,\"detect\":12.345679,\"segment\":0,\"packet\":2,"
              "\"total\":15},"
              "\"transfers\":{\"up\":1,\"down\":1,\"up_bytes\":235476,\"down_bytes\":29760,"
              "\"setup\":0,\"shared\":false},"
              "\"pose\":null,\"spacing_mm\":[0.1,0.2],\"device\":\"guard\",\"precision\":"
              "\"fp32\",\"as_numpy\":0,"
              "\"models\":{\"detector\":\"sha256:"
              "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
              "\"segmenter\":null},\"lost_device\":\"cuda:0\","
              "\"source\":\"sweep/a.png\",\"name\":\"bone\","
              "\"objects\":[{\"label\":1,\"name\":\"bone\",\"score\":0.93,"
              "\"box_xyxy\":[0,0.5,2,2],\"mask\":{\"size\":[2,3],\"counts\":\"01200\"},"
              "\"mask_area_px\":2,\"iou\":0.75,\"cleaned\":{\"removed_px\":7,\"filled_px\":1}}],"
              "\"detected\":false,\"reason\":null,\"scores\":null,"
              "\"deadline\":{\"latency_ms\":20.5,\"missed\":true,\"effort\":\"repeat\"},"
              "\"cleaned\":{\"removed_px\":7,\"filled_px\":1},\"gain\":1.5,\"reused\":true,"
              "\"precision_reason\":\"asked for\",\"crop\":null}");
    free(line);
}

TEST(packet_json_lost)
{
    static const uint8_t bits[8] = {1};
    um_packet fields = {.state = UM_STATE_LOST,
                        .score = NAN,
                        .has_box = 1,
                        .has_mask = 1,
                        .width = 3,
                        .height = 2,
                        .crop = {0, 0, 3, 2},
                        .bits = bits,
                        .mask_area_px = 2,
                        .has_pose = 1,
                        .pose = {1, 0, 0, 5.5},
                        .transfers = {.shared = 1},
                        .device = "cpu",
                        .tag = UM_TAG_WITHHELD,
                        .reason = UM_REASON_NO_CONTACT,
                        .detected = 1,
                        .has_scores = 1,
                        .scores = {.5f, .25f, 1, NAN, .75f, 0, NAN, .125f}};
    char *line = NULL;
    const um_packet *p = make(fields);
    CHECK_OK(um_packet_json(p, &line));
    um_packet_unref(&p);
    CHECK_STR(
        line,
        "{\"frame_id\":0,\"ts\":0,\"state\":\"LOST\",\"tag\":\"withheld\",\"label\":0,\"score\":"
        "null,"
        "\"box_xyxy\":null,\"mask\":null,\"mask_area_px\":0,"
        "\"stages_ms\":{\"upload\":0,\"detect\":0,\"segment\":0,\"packet\":0,\"total\":0},"
        "\"transfers\":{\"up\":0,\"down\":0,\"up_bytes\":0,\"down_bytes\":0,\"setup\":0,\"shared\":"
        "true},"
        "\"pose\":[1,0,0,5.5,0,0,0,0,0,0,0,0,0,0,0,0],\"spacing_mm\":null,\"device\":\"cpu\","
        "\"precision\":\"\","
        "\"as_numpy\":0,\"models\":{\"detector\":null,\"segmenter\":null},\"lost_device\":null,"
        "\"source\":\"\",\"name\":null,\"objects\":[],\"detected\":true,\"reason\":\"no_contact\","
        "\"scores\":{\"s1\":0.5,\"s2\":0.25,\"s3\":1,\"s4\":null,\"c1\":0.75,\"c2\":0,\"c3\":null,"
        "\"contact\":0.125},\"deadline\":null,\"cleaned\":null,\"gain\":null,\"reused\":false,"
        "\"precision_reason\":\"\",\"crop\":null}");
    free(line);
    fields.struct_size = sizeof fields;
    fields.state = UM_STATE_RELOCALIZING; /* a box, and no mask */
    fields.has_mask = 0;
    const um_object box = {
        .struct_size = sizeof box, .has_box = 1, .box = {0, 1, 2, 2}, .score = .5f};
    um_packet *made = NULL;
    CHECK_OK(um_packet_create(&made, &fields, (const um_object *const[]){&box}, 1));
    CHECK_OK(um_packet_json(made, &line));
    p = made;
    um_packet_unref(&p);
    CHECK(strstr(line, "\"state\":\"RELOCALIZING\"") && strstr(line, "\"mask\":null") &&
          strstr(line, "\"box_xyxy\":[0,1,2,2]"));
    free(line);
    CHECK_STR(um_state_name((um_state)7), "LOST");
    CHECK_STR(um_tag_name((um_tag)7), "withheld");
    CHECK(um_reason_name((um_reason)7) == NULL);
}

TEST(packet_json_survives_failed_allocations)
{
    static const uint8_t bits[8] = {1, 0, 0, 0, 2, 0, 0, 0};
    um_packet fields = {.state = UM_STATE_VISIBLE,
                        .has_mask = 1,
                        .width = 3,
                        .height = 2,
                        .crop = {0, 0, 3, 2},
                        .bits = bits};
    const um_packet *p = make(fields);
    um_status st = UM_ENOMEM;
    for (uint64_t k = 1; st != UM_OK && k < 50; k++) {
        char *line = NULL;
        FORGET_ERROR();
        um_mem_fail_at(k);
        st = um_packet_json(p, &line);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK(st == UM_OK ? line != NULL : st == UM_ENOMEM && !line);
        free(line);
    }
    CHECK_EQ(st, UM_OK);
    um_packet_unref(&p);
}

/* ---- packets as objects ---- */

enum { W = 40, H = 3, ROW = 8 };

/* Three objects with masks of one row each. */
static um_packet *three(um_status *st)
{
    static uint8_t bits[3][ROW * H];
    um_object o[3];
    const um_object *list[3] = {&o[0], &o[1], &o[2]};
    char names[3][8] = {"a", "b", "c"}, source[16] = "one.png";
    for (int i = 0; i < 3; i++) {
        memset(bits[i], 0, sizeof bits[i]);
        bits[i][ROW * i] = 0xff;
        bits[i][ROW * (i ? i - 1 : 0) + 1] = 1;
        o[i] = (um_object){.struct_size = sizeof o[i],
                           .label = 10 + i,
                           .name = i == 1 ? NULL : names[i],
                           .score = 0.9f - 0.1f * (float)i,
                           .has_mask = i < 2,
                           .bits = bits[i],
                           .mask_area_px = 9};
    }
    um_packet fields = {.struct_size = sizeof fields,
                        .state = UM_STATE_VISIBLE,
                        .width = W,
                        .height = H,
                        .crop = {0, 0, W, H},
                        .source = source};
    um_packet *p = NULL;
    *st = um_packet_create(&p, &fields, list, 3);
    memset(names, 'x', sizeof names); /* what was handed in may go */
    memset(bits, 0x55, sizeof bits);
    memset(source, 'x', sizeof source);
    return p;
}

TEST(packet_owns_its_objects)
{
    um_status st;
    uint8_t map[W * H], mask[W * H];
    char *counts = NULL;
    const um_packet *first = three(&st), *q = um_packet_ref(first);
    CHECK_OK(st);
    um_packet_unref(&first);
    CHECK(first == NULL);
    CHECK_EQ(q->objects, 3);
    CHECK_STR(q->source, "one.png");
    CHECK_STR(um_packet_object(q, 0)->name, "a");
    CHECK(um_packet_object(q, 1)->name == NULL);
    CHECK_STR(um_packet_object(q, 2)->name, "c");
    CHECK(um_packet_object(q, 3) == NULL && um_packet_object(q, -1) == NULL);
    CHECK(q->label == 10 && q->score == 0.9f && q->bits == um_packet_object(q, 0)->bits);
    um_packet_label_map(q, map);
    CHECK(map[0] == 1 && map[7] == 1 && map[8] == 1 && map[W] == 2 && map[2 * W] == 0);
    um_packet_object_mask(q, 1, mask, 7);
    CHECK(mask[0] == 0 && mask[8] == 7 && mask[W] == 7 && mask[W + 8] == 0);
    um_packet_object_mask(q, 2, mask, 7);
    CHECK(mask[2 * W] == 0); /* has none */
    CHECK_OK(um_packet_object_rle(q, 1, &counts));
    um_free(counts);
    CHECK_EQ(um_packet_object_rle(q, 3, &counts), UM_EINVAL);
    um_packet_unref(&q);
}

/* Without objects there is no mask, whatever the fields say: of whoever withholds a packet's. */
TEST(a_packet_without_objects_has_no_mask)
{
    static const um_state states[] = {UM_STATE_LOST, UM_STATE_RELOCALIZING};
    uint8_t bits[16] = {0xff};
    for (int i = 0; i < 2; i++) {
        um_packet f = {.struct_size = sizeof f,
                       .state = states[i],
                       .width = 4,
                       .height = 4,
                       .crop = {0, 0, 4, 4},
                       .has_mask = 1,
                       .bits = bits};
        um_packet *p = NULL;
        char *line = NULL;
        CHECK_OK(um_packet_create(&p, &f, NULL, 0));
        CHECK(!p->has_mask && !p->bits && p->objects == 0);
        CHECK_OK(um_packet_json(p, &line));
        CHECK(strstr(line, "\"mask\":null"));
        um_free(line);
        um_packet_unref((const um_packet **)(uintptr_t)&p);
        p = (um_packet *)&f;
        CHECK_EQ(um_packet_create(&p, NULL, NULL, 0), UM_EINVAL);
        CHECK(p == NULL);
    }
}

TEST(packet_fields_that_mean_nothing)
{
    um_packet *p = NULL;
    um_packet f = {.struct_size = sizeof f, .state = UM_STATE_VISIBLE, .width = 4, .height = 4};
    uint8_t bits[16] = {0};
    CHECK_OK(um_packet_create(&p, &f, NULL, 0));
    um_packet_unref((const um_packet **)(uintptr_t)&p);
    f.has_mask = 1;
    f.bits = bits;
    CHECK_EQ(um_packet_create(&p, &f, NULL, 0), UM_EINVAL); /* no crop */
    CHECK(p == NULL);
    memcpy(f.crop, (int[]){1, 0, 4, 4}, sizeof f.crop);
    CHECK_EQ(um_packet_create(&p, &f, NULL, 0), UM_EINVAL);
    CHECK_EQ(um_packet_create(&p, &f, NULL, 1), UM_EINVAL);
    f.has_mask = 0;
    CHECK_EQ(um_packet_create(&p, &f, NULL, 0), UM_EINVAL);
    memset(f.crop, 0, sizeof f.crop);
    CHECK_EQ(um_packet_create(&p, &f, (const um_object *const[]){NULL}, 1), UM_EINVAL);
    CHECK(strstr(um_last_error(), "object 0 of 1 is NULL"));
    f.state = UM_STATE_LOST;
    CHECK_EQ(
        um_packet_create(
            &p, &f, (const um_object *const[]){&(um_object){.struct_size = sizeof(um_object)}}, 1),
        UM_EINVAL);
    CHECK(strstr(um_last_error(), "LOST, with 1 object(s)"));
    f.state = (um_state)3;
    CHECK_EQ(um_packet_create(&p, &f, NULL, 0), UM_EINVAL);
    CHECK(strstr(um_last_error(), "state 3"));
    f.struct_size = 0;
    CHECK_EQ(um_packet_create(&p, &f, NULL, 0), UM_EINVAL);
    CHECK(strstr(um_last_error(), "um_packet.struct_size is 0"));
}

TEST(packet_survives_failed_allocations)
{
    um_status st = UM_ENOMEM;
    for (uint64_t k = 1; st != UM_OK && k < 50; k++) {
        um_mem_fail_at(k);
        um_packet *p = three(&st);
        um_mem_fail_at(0);
        CHECK(st == UM_OK ? p != NULL : st == UM_ENOMEM && !p);
        const um_packet *q = p;
        um_packet_unref(&q);
    }
    CHECK_EQ(st, UM_OK);
}

/* ---- numbers and text ---- */

TEST(numbers_are_read_whole_or_not_at_all)
{
    static const char *const GOOD[] = {"0", "0.5", "-1.25e-3", "+3.", "1e30", ".5"};
    static const double WANT[] = {0, 0.5, -1.25e-3, 3, 1e30, 0.5};
    static const char *const BAD[] = {"",      " 1",  "1 ",  "0x10",  "nan", "inf", "1,5",
                                      "1e999", "1e+", "--1", "1.2.3", "e5",  ".",   "5x"};
    double v = 0;
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++)
        CHECK_MSG(um_number_read(GOOD[i], &v) && v == WANT[i], "%s is %g", GOOD[i], v);
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        CHECK_MSG(!um_number_read(BAD[i], &v), "\"%s\" is %g", BAD[i], v);
    CHECK(um_number_whole("18446744073709551615", UINT64_MAX, &n) && n == UINT64_MAX);
    CHECK(um_number_whole("007", 7, &n) && n == 7);
    static const char *const NOT_WHOLE[] = {
        "", "-1", "+1", " 1", "1 ", "1.0", "0x1", "8", "4294967303", "18446744073709551616"};
    for (size_t i = 0; i < sizeof NOT_WHOLE / sizeof *NOT_WHOLE; i++)
        CHECK_MSG(!um_number_whole(NOT_WHOLE[i], 7, &n), "\"%s\"", NOT_WHOLE[i]);
}

TEST(text_is_cut_between_characters)
{
    CHECK_EQ(um_text_cut("abc", 3), 3);
    CHECK_EQ(um_text_cut("abcd", 3), 3);
    CHECK_EQ(um_text_cut("ab\xc3\xa4", 4), 4);
    CHECK_EQ(um_text_cut("ab\xc3\xa4", 3), 2);
    CHECK_EQ(um_text_cut("a\xe2\x80\xa6z", 3), 1);
    CHECK_EQ(um_text_cut("\x80\x80\x80\x80", 3), 0); /* no characters at all */
    CHECK_EQ(um_text_cut("", 0), 0);
}

TEST(text_is_shown_without_controls)
{
    char out[64], small[8];
    um_text_show(out, sizeof out, "a\x1b[0m\n\x7f\xc2\x9b\xff\xc3\xa4\xc2\xa0\xe2\x80");
    CHECK_STR(out, "a\\x1b[0m\\x0a\\x7f\\xc2\\x9b\\xff\xc3\xa4\xc2\xa0\\xe2\\x80");
    um_text_show(small, sizeof small, "12345\n7"); /* an escape is whole or not there */
    CHECK_STR(small, "12345");
    um_text_show(small, 1, "1");
    CHECK_STR(small, "");
    um_json j = {0};
    um_json_string(&j, "\xc2\x9b\x7f\xc2\xa0");
    char *text = text_of(&j);
    CHECK_STR(text, "\"\\u009b\\u007f\xc2\xa0\"");
    um_free(text);
}

TEST(errors_say_memory_once)
{
    CHECK_EQ(um_fail(UM_ENOMEM, "%d floats", 3), UM_ENOMEM);
    CHECK_STR(um_last_error(), "out of memory: 3 floats");
    um_fail_in(UM_ENOMEM, "file\n");
    CHECK_STR(um_last_error(), "file\\x0a: out of memory: 3 floats");
    um_fail(UM_ENOMEM, "%s", um_last_error()); /* passed on */
    CHECK_STR(um_last_error(), "file\\x0a: out of memory: 3 floats");
    um_fail(UM_EIO, "again: %s", um_last_error()); /* of itself */
    CHECK_STR(um_last_error(), "again: file\\x0a: out of memory: 3 floats");
}

TEST(a_comma_locale_changes_nothing)
{
    if (!enter_locale("de_DE"))
        SKIP("no locale with a decimal comma, and localedef cannot make one");
    char text[200];
    snprintf(text, sizeof text, "%.1f", 0.5);
    CHECK_STR(text, "0,5"); /* so it is in force */
    um_kpi_line(text, sizeof text, 1732389839.25, false, "cpu", "");
    um_json j = {0};
    um_json_begin(&j, '[');
    um_json_float(&j, 0.1f);
    um_json_double(&j, 1.0 / 3);
    um_json_end(&j, ']');
    char *list = text_of(&j), error[200];
    um_source *source = NULL;
    um_status opened = um_source_open(&source, "phantom:width=64,height=64,empty=0.5", NULL);
    um_source_close(&source);
    um_status comma = um_source_open(&source, "phantom:empty=1.5", NULL);
    snprintf(error, sizeof error, "%s", um_last_error());
    enum { W = 80, H = 60 };
    um_packet fields = {.struct_size = sizeof fields,
                        .score = .5f,
                        .has_box = 1,
                        .box = {10, 20, 30, 40},
                        .crop = {0, 0, W, H},
                        .width = W,
                        .height = H},
              *p[2] = {NULL};
    um_frame *f = NULL;
    uint8_t *here[2] = {NULL}, *there[2] = {NULL};
    um_status made = um_frame_create(&f, W, H, 1);
    for (int i = 0; i < 2 && made == UM_OK; i++) {
        memset(f->pixels, 9, W * H);
        fields.state = i ? UM_STATE_VISIBLE : UM_STATE_LOST;
        made = um_packet_create(&p[i], &fields, NULL, 0);
        if (made == UM_OK)
            made = um_overlay(p[i], f, &there[i]);
    }
    um_fail(UM_EINVAL, "%g", 0.5);
    setlocale(LC_ALL, "C");
    CHECK_STR(um_last_error(), "0.5");
    CHECK_STR(text, "{\"ts\": 1732389839.250000, \"event\": \"sam_mask_output\", \"as_numpy\": 0, "
                    "\"device\": \"cpu\"}");
    CHECK_STR(list, "[0.1,0.3333333333333333]");
    CHECK_EQ(opened, UM_OK);
    CHECK_EQ(comma, UM_EINVAL);
    CHECK_STR(error, "phantom: empty: \"1.5\" is not a number from 0 to 1");
    CHECK_EQ(made, UM_OK);
    for (int i = 0; i < 2; i++) {
        const um_packet *done = p[i];
        CHECK_OK(um_overlay(p[i], f, &here[i]));
        CHECK_MSG(memcmp(here[i], there[i], W * H * 3) == 0, "%d", i); /* the captions, too */
        free(here[i]);
        free(there[i]);
        um_packet_unref(&done);
    }
    um_free(list);
    um_frame_unref(&f);
}

TEST(a_turkish_locale_knows_the_same_names)
{
    if (!enter_locale("tr_TR"))
        SKIP("no Turkish locale, and localedef cannot make one");
    bool in_force = tolower('I') != 'i'; /* a sanitizer's strcasecmp() knows no locale */
    bool same = um_text_same("TIF", "tif") && um_text_same_n("LISTS", "list", 4);
    setlocale(LC_ALL, "C");
    CHECK(in_force);
    CHECK(same);
    CHECK(um_text_same("", "") && !um_text_same("a", "ab") && !um_text_same("ab", "a"));
    CHECK(um_text_same_n("a", "A", 9) && um_text_same_n("ab", "ac", 1));
    CHECK(!um_text_same("\xc4", "\xe4") && !um_text_same("[", "{"));
}

TEST_MAIN
