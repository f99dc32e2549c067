/* SPDX-License-Identifier: Apache-2.0 */
/* Masks, their weights and statistics, and the packet: against PyTorch and OpenCV
 * (tests/gen/mask_golden.py) and against the definitions written out, on every instruction level.
 */
#include "test.h"

#include "base/mem.h"
#include "cleaned.h"
#include "hashed.h"
#include "nn/clean.h"
#include "nn/op_sam.h"

static um_device *open_level(const struct um_ops *level)
{
    um_device *dev = NULL;
    um_device_settings settings;
    um_device_settings_default(&settings);
    settings.name = "cpu";
    if (um_device_open(&dev, &settings) != UM_OK)
        return NULL;
    dev->ops = level;
    dev->isa = level->name;
    return dev;
}

static um_tensor input(um_tape *t, um_buf **buf, enum um_dtype type, int h, int w, int c,
                       const void *data)
{
    size_t size = (size_t)h * (size_t)w * (size_t)c * um_dtype_size(type);
    um_status st = um_buf_open(buf, um_tape_device(t), size, "test");
    if (st == UM_OK)
        st = um_upload_now(um_tape_device(t), *buf, 0, data, size, UM_STAGE_SETUP, "test");
    if (st != UM_OK)
        um_tape_fail(t, st);
    return st == UM_OK ? um_tape_buffer(t, *buf, 0, type, h, w, c) : (um_tensor){0};
}

static void *output(um_tape *t, um_tensor x)
{
    um_buf *buf = NULL;
    size_t off = 0, size = (size_t)x.h * (size_t)x.w * (size_t)x.c * um_dtype_size(x.dtype);
    void *data = um_alloc(size);
    um_tape_locate(t, x, &buf, &off);
    if (data &&
        um_download_now(um_tape_device(t), data, buf, off, size, UM_STAGE_DEBUG, "test") != UM_OK) {
        um_free(data);
        return NULL;
    }
    return data;
}

/* ---- against the definitions ---- */

static int pixel(const uint8_t *m, int h, int w, int y, int x, int outside)
{
    return y < 0 || y >= h || x < 0 || x >= w ? outside : m[y * w + x];
}

static int dilated(const uint8_t *m, int h, int w, int y, int x, int reach)
{
    int any = 0;
    for (int dy = -reach; dy <= reach; dy++)
        for (int dx = -reach; dx <= reach; dx++)
            any |= pixel(m, h, w, y + dy, x + dx, 0);
    return any;
}

static int eroded(const uint8_t *m, int h, int w, int y, int x)
{
    int all = 1;
    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++)
            all &= pixel(m, h, w, y + dy, x + dx, 1);
    return all;
}

struct packet {
    uint8_t *weights, *bytes;
    struct um_record record;
};

/* Statistics and packet of one mask. */
static void make_packet(struct packet *p, um_device *dev, const uint8_t *mask, int h, int w,
                        const struct um_gate *gate)
{
    static const float iou[2] = {0.75f, 9};
    static const float low[6] = {1, NAN, 2, INFINITY, -INFINITY, -3};
    struct um_frame_header header = {.frame_id = 0x123456789abcdefull};
    um_tape *t = NULL;
    um_buf *buf[5] = {NULL};
    CHECK_OK(um_tape_open(&t, dev, "packet"));
    um_tensor m = input(t, &buf[0], UM_U8, h, w, 1, mask);
    um_tensor g = gate ? input(t, &buf[1], UM_U8, 1, 1, UM_GATE_BYTES, gate) : (um_tensor){0};
    um_tensor i = input(t, &buf[2], UM_F32, 1, 1, 2, iou);
    um_tensor l = input(t, &buf[3], UM_F32, 2, 3, 1, low);
    um_tensor head = input(t, &buf[4], UM_U8, 1, 1, UM_HEADER_BYTES, &header);
    struct um_mask_stats s = um_mask_statistics(t, m);
    um_keep(t, s.weights);
    um_tensor out = um_keep(t, um_packet_op(t, s.record, m, g, i, l, head, (um_tensor){0}));
    CHECK_OK(um_tape_compile(t));
    CHECK_OK(um_tape_run(t, UM_QUEUE_MAIN));
    p->weights = output(t, s.weights);
    p->bytes = output(t, out);
    CHECK(p->weights && p->bytes);
    memcpy(&p->record, p->bytes, sizeof p->record);
    um_tape_close(&t);
    for (int k = 0; k < 5; k++)
        um_buf_close(&buf[k]);
}

static void check_packet(um_device *dev, const uint8_t *m, int h, int w)
{
    struct packet p = {0};
    struct um_record want = {.frame_id = 0x123456789abcdefull, .iou = 0.75f, .nonfinite = 3};
    int plane = h * w, before = test_failures;
    make_packet(&p, dev, m, h, w, NULL);
    if (test_failures != before)
        return;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            int at = y * w + x, e3 = eroded(m, h, w, y, x);
            int edge = dilated(m, h, w, y, x, 1) - e3, out = dilated(m, h, w, y, x, 2) - m[at];
            CHECK_MSG(p.weights[at] == edge && p.weights[plane + at] == e3 &&
                          p.weights[2 * plane + at] == out,
                      "%dx%d pixel %d,%d: %d %d %d, want %d %d %d", w, h, x, y, p.weights[at],
                      p.weights[plane + at], p.weights[2 * plane + at], edge, e3, out);
            int bit =
                p.bytes[UM_RECORD_BYTES + y * um_mask_row_bytes(w) + x / 32 * 4 + x % 32 / 8] >>
                    (x % 8) &
                1;
            CHECK_MSG(bit == m[at], "%dx%d bit %d,%d", w, h, x, y);
            want.edge_px += (uint32_t)edge;
            want.in_px += (uint32_t)e3;
            want.out_px += (uint32_t)out;
            if (!m[at])
                continue;
            if (!want.area_px)
                want.mask_box[0] = w;
            want.mask_box[0] = x < want.mask_box[0] ? x : want.mask_box[0];
            want.mask_box[1] = want.area_px ? want.mask_box[1] : y;
            want.mask_box[2] = x + 1 > want.mask_box[2] ? x + 1 : want.mask_box[2];
            want.mask_box[3] = y + 1;
            want.area_px++;
            want.sum_x += (uint64_t)x;
            want.sum_y += (uint64_t)y;
        }
    /* bits beyond the width are zero */
    for (int y = 0; y < h && w % 32; y++) {
        uint32_t word;
        memcpy(&word, p.bytes + UM_RECORD_BYTES + (y + 1) * um_mask_row_bytes(w) - 4, 4);
        CHECK_EQ(word >> (w % 32), 0);
    }
    CHECK_EQ(p.record.area_px, want.area_px);
    CHECK_EQ(p.record.sum_x, want.sum_x);
    CHECK_EQ(p.record.sum_y, want.sum_y);
    CHECK_EQ(p.record.edge_px, want.edge_px);
    CHECK_EQ(p.record.in_px, want.in_px);
    CHECK_EQ(p.record.out_px, want.out_px);
    for (int k = 0; k < 4; k++)
        CHECK_EQ(p.record.mask_box[k], want.mask_box[k]);
    CHECK(memcmp(&p.record, &want, sizeof want) == 0);
    um_free(p.weights);
    um_free(p.bytes);
}

TEST(weights_statistics_and_bits)
{
    static const int size[][2] = {{40, 33}, {1, 1}, {1, 70}, {70, 1}, {2, 2}, {7, 128}, {130, 5}};
    static uint8_t m[70 * 128];
    for (const struct um_ops *const *level = um_ops_host(); *level; level++) {
        um_device *dev = open_level(*level);
        CHECK(dev != NULL);
        for (size_t s = 0; s < sizeof size / sizeof *size; s++)
            for (int kind = 0; kind < 5; kind++) {
                int h = size[s][0], w = size[s][1], before = test_failures;
                for (int i = 0; i < h * w; i++) {
                    double u = hashed_uniform(hashed_fnv("mask"), (uint32_t)i);
                    int y = i / w, x = i % w,
                        disc = (2 * y - h) * (2 * y - h) + (2 * x - w) * (2 * x - w) < h * w / 2;
                    m[i] = (uint8_t)(kind == 0   ? 0
                                     : kind == 1 ? 1
                                     : kind == 2 ? u < 0.5
                                     : kind == 3 ? u < 0.03
                                                 : disc);
                }
                check_packet(dev, m, h, w);
                if (test_failures != before)
                    printf("  (level %s, kind %d)\n", dev->isa, kind);
            }
        um_device_close(&dev);
    }
}

/* ---- cleaning ---- */

/* The packet of a mask before, and after um_clean(). */
static void clean_packet(struct packet *p, um_device *dev, const uint8_t *mask, int h, int w,
                         const struct um_gate *gate)
{
    um_tape *t = NULL;
    um_buf *buf[3] = {NULL};
    uint8_t *work = um_zalloc(um_clean_bytes(h, w));
    memset(work, 0xee, um_clean_bytes(h, w));
    make_packet(p, dev, mask, h, w, gate);
    CHECK_OK(um_tape_open(&t, dev, "clean"));
    um_tensor packet =
        input(t, &buf[0], UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), p->bytes);
    um_tensor g = gate ? input(t, &buf[2], UM_U8, 1, 1, UM_GATE_BYTES, gate) : (um_tensor){0};
    um_clean(t, packet, input(t, &buf[1], UM_U8, 1, 1, (int)um_clean_bytes(h, w), work), g, h, w);
    CHECK_OK(um_tape_compile(t));
    CHECK_OK(um_tape_run(t, UM_QUEUE_MAIN));
    um_free(work);
    um_free(p->bytes);
    um_free(p->weights);
    p->weights = NULL;
    p->bytes = output(t, packet);
    CHECK(p->bytes != NULL);
    memcpy(&p->record, p->bytes, sizeof p->record);
    um_tape_close(&t);
    for (int k = 0; k < 3; k++)
        um_buf_close(&buf[k]);
}

/* Cleaned, the packet is in every byte that of the mask cleaned by its definition, but for the two
 * counts. */
static void check_clean(um_device *dev, const uint8_t *mask, int h, int w,
                        const struct um_gate *gate, uint32_t counts[2])
{
    static uint8_t m[200 * 200];
    struct packet got = {0}, want = {0};
    memcpy(m, mask, (size_t)h * (size_t)w);
    cleaned(m, h, w, gate ? gate->box : NULL, &counts[0], &counts[1]);
    clean_packet(&got, dev, mask, h, w, gate);
    make_packet(&want, dev, m, h, w, gate);
    want.record.removed_px = counts[0];
    want.record.filled_px = counts[1];
    CHECK_EQ(got.record.removed_px, counts[0]);
    CHECK_EQ(got.record.filled_px, counts[1]);
    CHECK(memcmp(&got.record, &want.record, sizeof want.record) == 0);
    CHECK(memcmp(got.bytes + UM_RECORD_BYTES, want.bytes + UM_RECORD_BYTES,
                 (size_t)h * (size_t)um_mask_row_bytes(w)) == 0);
    um_free(got.bytes);
    um_free(want.bytes);
    um_free(want.weights);
}

/* A rectangle with its right and lower ends outside. */
static void rectangle(uint8_t *m, int x0, int y0, int x1, int y1, uint8_t v)
{
    for (int y = y0; y < y1; y++)
        memset(m + y * 200 + x0, v, (size_t)(x1 - x0));
}

/* One rule after the other, with masks for which the answer is known. */
TEST(cleaning_follows_its_rules)
{
    static uint8_t m[200 * 200];
    um_device *dev = open_level(um_ops_host()[0]);
    struct um_gate gate = {.flags = UM_GATE_OK, .box = {50, 50, 150, 100}};
    uint32_t n[2];
    rectangle(m, 60, 60, 140, 90, 1); /* 2400 pixels */
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 0);
    /* the box reaches to 50 - 10 - 2 = 38 and 150 + 12 = 162, 50 - 7 = 43 and 100 + 7 = 107 */
    rectangle(m, 162, 20, 190, 180, 1); /* however large it is */
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 28 * 160 && n[1] == 0);
    rectangle(m, 161, 100, 162, 101, 1); /* a pixel within holds all of it */
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 0);
    rectangle(m, 160, 20, 200, 180, 0);
    rectangle(m, 60, 107, 140, 190, 1);
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 80 * 83 && n[1] == 0);
    check_clean(dev, m, 200, 200, NULL, n); /* without a box only its size counts */
    CHECK(n[0] == 0 && n[1] == 0);
    rectangle(m, 60, 107, 140, 190, 0);
    /* specks: 120 of 2400 pixels are none, 119 are one */
    rectangle(m, 60, 92, 100, 95, 1);
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 0);
    m[92 * 200 + 60] = 0;
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 119 && n[1] == 0);
    m[91 * 200 + 60] = m[90 * 200 + 59] = 1; /* they hang together over two corners */
    m[92 * 200 + 61] = 1;
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 0);
    rectangle(m, 0, 90, 200, 200, 0);
    /* holes: 118 of 2400 - 118 close, 120 of 2280 do not */
    rectangle(m, 65, 65, 70, 80, 0);
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 75);
    rectangle(m, 65, 65, 73, 80, 0);
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 0);
    rectangle(m, 65, 65, 73, 80, 1);
    rectangle(m, 65, 61, 70, 70, 0);
    m[60 * 200 + 64] = 0; /* a corner is no way out, a side is one */
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 45);
    m[61 * 200 + 64] = 0;
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 0 && n[1] == 0);
    m[61 * 200 + 64] = 1;
    rectangle(m, 66, 64, 68, 66, 1); /* what is in a hole goes, and the hole closes over it */
    check_clean(dev, m, 200, 200, &gate, n);
    CHECK(n[0] == 4 && n[1] == 45);
    um_device_close(&dev);
}

TEST(cleaning_is_what_it_is_defined_as)
{
    static const int size[][2] = {{40, 33},  {1, 1},   {1, 70},  {70, 1},
                                  {64, 128}, {130, 5}, {97, 161}};
    static uint8_t m[200 * 200];
    um_device *dev = open_level(um_ops_host()[0]);
    uint32_t n[2], some[2] = {0};
    for (size_t s = 0; s < sizeof size / sizeof *size; s++)
        for (int kind = 0; kind < 40; kind++) {
            int h = size[s][0], w = size[s][1], before = test_failures;
            double density = hashed_uniform(hashed_fnv("clean"), (uint32_t)kind);
            for (int i = 0; i < h * w; i++) {
                double u = hashed_uniform(hashed_fnv("mask") + (uint64_t)kind, (uint32_t)i);
                double v = sin(i % w / (4. + kind)) + cos(i / w / (3. + kind % 7));
                m[i] = (uint8_t)(kind % 2 ? (v > density) ^ (u < .03) : u < density);
            }
            struct um_gate gate = {
                .flags = UM_GATE_OK,
                .box = {(float)w * .3f, (float)h * .2f, (float)w * .6f, (float)h * .7f}};
            check_clean(dev, m, h, w, kind % 3 ? &gate : NULL, n);
            some[0] += n[0];
            some[1] += n[1];
            if (test_failures != before)
                printf("  (%dx%d, kind %d)\n", w, h, kind);
        }
    CHECK(some[0] && some[1]);
    um_device_close(&dev);
}

TEST(gate_decides)
{
    static const uint8_t mask[6] = {1, 1, 0, 0, 1, 0};
    static const float low[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1},
                       taps[2][4] = {{0, 1, 0, 0}, {0, 0, 1, 0}};
    for (const struct um_ops *const *level = um_ops_host(); *level; level++) {
        um_device *dev = open_level(*level);
        CHECK(dev != NULL);
        for (int flags = 0; flags < 32; flags++) {
            struct um_gate gate = {.flags = (uint32_t)flags, .score = 0.5f, .query = 7};
            struct packet p = {0};
            um_tape *t = NULL;
            um_buf *buf[4] = {NULL};
            int ok = flags == UM_GATE_OK;
            make_packet(&p, dev, mask, 2, 3, &gate);
            CHECK(p.bytes != NULL);
            CHECK(memcmp(&p.record.gate, &gate, sizeof gate) == 0);
            CHECK_EQ(p.record.nonfinite, ok ? 3 : 0);
            CHECK_NEAR(p.record.iou, ok ? 0.75 : 0, 0);
            um_free(p.weights);
            um_free(p.bytes);
            CHECK_OK(um_tape_open(&t, dev, "mask"));
            um_tensor m =
                um_keep(t, um_mask_upsample(t, input(t, &buf[0], UM_F32, 3, 3, 1, low),
                                            input(t, &buf[1], UM_F32, 1, 2, 4, taps),
                                            input(t, &buf[2], UM_F32, 1, 2, 4, taps),
                                            input(t, &buf[3], UM_U8, 1, 1, UM_GATE_BYTES, &gate),
                                            (um_tensor){0}));
            CHECK_OK(um_tape_compile(t));
            CHECK_OK(um_tape_run(t, UM_QUEUE_MAIN));
            uint8_t *got = output(t, m);
            CHECK(got != NULL);
            for (int i = 0; i < 4; i++)
                CHECK_EQ(got[i], ok);
            um_free(got);
            um_tape_close(&t);
            for (int k = 0; k < 4; k++)
                um_buf_close(&buf[k]);
        }
        um_device_close(&dev);
    }
}

/* ---- against PyTorch and OpenCV ---- */

enum { SAMPLES = 41 };

static void check_upsampling(um_device *dev, const int *g, FILE *f)
{
    int n4 = g[0], canvas = g[1], h = g[2], w = g[3], new_h, new_w;
    double want[SAMPLES];
    for (int i = 0; i < SAMPLES; i++)
        CHECK_EQ(fscanf(f, "%lf", &want[i]), 1);
    float *low = um_array((size_t)(n4 * n4), sizeof *low),
          *tx = um_array((size_t)w * 4, sizeof *tx);
    float *ty = um_array((size_t)h * 4, sizeof *ty);
    CHECK(low && tx && ty);
    for (int y = 0; y < n4; y++)
        for (int x = 0; x < n4; x++)
            low[y * n4 + x] =
                (float)(6 * sin(7 * ((double)x / n4) + 1) * cos(5 * ((double)y / n4) + 0.5) +
                        3 * (hashed_uniform(hashed_fnv("mask"), (uint32_t)(y * n4 + x)) - 0.5));
    um_longest_side(canvas, h, w, &new_h, &new_w);
    um_mask_taps(tx, n4, canvas, new_w, w);
    um_mask_taps(ty, n4, canvas, new_h, h);
    um_tape *t = NULL;
    um_buf *buf[3] = {NULL};
    CHECK_OK(um_tape_open(&t, dev, "mask"));
    um_tensor logits = um_keep(t, um_tape_new(t, UM_F32, h, w, 1)),
              x = input(t, &buf[0], UM_F32, n4, n4, 1, low);
    um_tensor at_x = input(t, &buf[1], UM_F32, 1, w, 4, tx),
              at_y = input(t, &buf[2], UM_F32, 1, h, 4, ty), none = {0};
    um_tensor m = um_keep(t, um_mask_upsample(t, x, at_x, at_y, none, logits));
    um_tensor again = um_keep(
        t, um_mask_upsample(t, x, at_x, at_y, none, none)); /* without logits: the same mask */
    struct um_mask_stats s = um_mask_statistics(t, m);
    um_keep(t, s.record);
    CHECK_OK(um_tape_compile(t));
    CHECK_OK(um_tape_run(t, UM_QUEUE_MAIN));
    uint8_t *mask = output(t, m), *mask2 = output(t, again);
    float *got = output(t, logits);
    struct um_record *record = output(t, s.record);
    CHECK(mask && mask2 && got && record);
    CHECK(memcmp(mask, mask2, (size_t)(h * w)) == 0);
    for (int i = 0; i < h * w; i++)
        CHECK_EQ(mask[i], got[i] > 0);
    for (int i = 0; i < SAMPLES; i++) {
        int k = (int)((int64_t)i * (h * w - 1) / (SAMPLES - 1));
        CHECK_MSG(fabs(got[k] - want[i]) <= 2e-4, "%dx%d logit %d is %.7g, want %.7g", w, h, k,
                  got[k], want[i]);
    }
    /* only pixels within 1e-3 of the threshold may differ: one moves the area by 1, the weights by
     * at most 25 */
    int loose = g[5];
    CHECK_MSG(labs((long)record->area_px - g[4]) <= loose, "area %u, want %d", record->area_px,
              g[4]);
    if (loose == 0 || (int)record->area_px == g[4]) {
        CHECK(labs((long)record->edge_px - g[6]) <= 25 * loose);
        CHECK(labs((long)record->in_px - g[7]) <= 25 * loose);
        CHECK(labs((long)record->out_px - g[8]) <= 25 * loose);
    }
    um_free(mask);
    um_free(mask2);
    um_free(got);
    um_free(record);
    um_free(low);
    um_free(tx);
    um_free(ty);
    um_tape_close(&t);
    for (int k = 0; k < 3; k++)
        um_buf_close(&buf[k]);
}

TEST(upsampling_is_upstreams)
{
    for (const struct um_ops *const *level = um_ops_host(); *level; level++) {
        um_device *dev = open_level(*level);
        FILE *f = fopen(UM_GOLDEN_DIR "/mask.txt", "r");
        CHECK(dev && f);
        int g[9], cases = 0;
        while (fscanf(f, " case %d %d %d %d %d %d %d %d %d", g, g + 1, g + 2, g + 3, g + 4, g + 5,
                      g + 6, g + 7, g + 8) == 9) {
            check_upsampling(dev, g, f);
            cases++;
        }
        fclose(f);
        um_device_close(&dev);
        CHECK(cases >= 9);
    }
}

/* Two bilinear steps written out for one axis. */
static double two_steps(const double *v, int n4, int canvas, int used, int out, int o)
{
    double src = fmax((o + 0.5) * used / out - 0.5, 0), sum = 0;
    int j = (int)src;
    for (int k = 0; k < 2; k++) {
        int at = j + k < used ? j + k : used - 1;
        double s = fmax((at + 0.5) * n4 / canvas - 0.5, 0);
        int i = (int)s, i1 = i + 1 < n4 ? i + 1 : n4 - 1;
        sum += (k ? src - j : 1 - (src - j)) * (v[i] * (1 - (s - i)) + v[i1] * (s - i));
    }
    return sum;
}

TEST(taps_compose_two_steps)
{
    static const int axis[][4] = {
        {256, 1024, 774, 422}, {256, 1024, 1024, 558}, {64, 256, 256, 3000}, {64, 256, 17, 1},
        {4, 16, 16, 5},        {4, 16, 1, 9},          {256, 256, 194, 422}};
    double v[256];
    static float taps[3000][4];
    for (int i = 0; i < 256; i++)
        v[i] = hashed_uniform(hashed_fnv("taps"), (uint32_t)i);
    for (size_t k = 0; k < sizeof axis / sizeof *axis; k++) {
        int n4 = axis[k][0], out = axis[k][3];
        um_mask_taps(taps[0], n4, axis[k][1], axis[k][2], out);
        for (int o = 0; o < out; o++) {
            int first = (int)taps[o][0];
            CHECK(first >= 0 && first + 3 <= n4);
            double got =
                taps[o][1] * v[first] + taps[o][2] * v[first + 1] + taps[o][3] * v[first + 2];
            CHECK_NEAR(got, two_steps(v, n4, axis[k][1], axis[k][2], out, o), 1e-6);
        }
    }
}

TEST_MAIN
