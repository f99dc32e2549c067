/* SPDX-License-Identifier: Apache-2.0 */
/* What a file gives is shared; what a user does with it is his own: predictors, embeddings and
 * pipelines on one set of weights, one after the other and at the same time. */
#include "fixture.h"

#include "base/mem.h"
#include "engine/segmenter.h"
#include "weights/weights.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { DET = 256, SAM = 64, SIDE = 96, AREA = SIDE * SIDE };

/* A part of golden frame i. */
static um_frame *part(int i)
{
    um_frame *whole = golden_frame(i % 6), *f = cut(whole, 60 + 8 * i, 200 + 4 * i, SIDE, SIDE);
    f->id = (uint64_t)i;
    um_frame_unref(&whole);
    return f;
}

static um_predictor *open_predictor(um_segmenter *s)
{
    um_predictor *p = NULL;
    if (um_predictor_open(&p, s) != UM_OK)
        fixture_die("predictor");
    return p;
}

static um_pipeline *open_pipeline(const struct fixture *f, int objects)
{
    um_pipeline_settings s = fixture_settings(f);
    s.conf = 0;
    s.objects = objects;
    return fixture_pipeline(&s);
}

/* Prompts of `kind`: points, and a box with every third. */
static um_prompts prompts_of(int kind, float *numbers, int *labels)
{
    int points = kind % 10, box = points == 0 || kind % 3 == 0;
    for (int i = 0; i < 2 * points; i++)
        numbers[i] = (float)(8 + (i * 37 + kind * 11) % 80);
    for (int i = 0; i < points; i++)
        labels[i] = i % 2 == 0;
    float *corners = numbers + 2 * points;
    memcpy(corners, (float[]){10, 12, (float)(40 + kind), 80}, 4 * sizeof *corners);
    return (um_prompts){.struct_size = sizeof(um_prompts),
                        .points = points ? numbers : NULL,
                        .labels = points ? labels : NULL,
                        .n_points = points,
                        .box = box ? corners : NULL,
                        .as_numpy = UM_MASK_HOST};
}

/* A prediction's numbers: FNV-1a of its logits and score. */
static uint64_t hash(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static um_device_array described(const um_embedding *embedding)
{
    um_device_array a = {.struct_size = sizeof a};
    um_values *values = um_embedding_values(embedding);
    um_values_describe(values, &a); /* on error it stays empty */
    um_values_unref(&values);       /* the embedding has them */
    return a;
}

static uint64_t result_of(const um_prediction *r)
{
    size_t side = (size_t)r->low_res_side;
    uint64_t h = hash(0xcbf29ce484222325u, r->low_res, side * side * sizeof(float));
    h = hash(h, r->iou, sizeof(float));
    return hash(h, um_values_host(r->mask[0]), AREA);
}

static uint64_t packet_hash(const um_packet *k)
{
    uint64_t h = hash(0xcbf29ce484222325u, &k->objects, sizeof k->objects);
    for (int i = 0; i < k->objects; i++) {
        const um_object *o = um_packet_object(k, i);
        h = hash(h, o->box, sizeof o->box);
        h = hash(h, &o->score, sizeof o->score);
        h = hash(h, &o->iou, sizeof o->iou);
        if (o->has_mask)
            h = hash(h, o->bits, (size_t)um_packet_row_bytes(k) * (size_t)k->crop[3]);
    }
    return h;
}

/* ---- one after the other ---- */

/* More kinds of prompts than a predictor keeps, beside a pipeline that is open all the while. */
TEST_ON_DEVICES(prompts_of_every_kind_beside_a_pipeline)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    float numbers[24];
    int labels[10];
    um_frame *frame = part(0);
    um_image image = image_of(frame);
    um_predictor *p = open_predictor(f.segmenter);
    const um_packet *packet = NULL;
    uint64_t first[10], want = 0;
    CHECK_OK(um_predictor_set_image(p, &image));
    um_pipeline *pipe = NULL;
    for (int round = 0; round < 3; round++)
        for (int kind = 0; kind < 10; kind++) {
            um_prediction r = {.struct_size = sizeof r};
            um_prompts prompts = prompts_of(kind, numbers, labels);
            CHECK_OK(um_predictor_predict(p, &prompts, &r));
            uint64_t got = result_of(&r);
            if (round)
                CHECK_EQ(got, first[kind]);
            first[kind] = got;
            um_prediction_close(&r);
            if (kind == 1 && !pipe)
                pipe = open_pipeline(&f, 1);
            if (pipe) {
                CHECK_OK(pass(pipe, frame, &packet));
                if (want)
                    CHECK_EQ(packet_hash(packet), want);
                want = packet_hash(packet);
            }
        }
    um_pipeline_close(&pipe);
    um_predictor_close(&p);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* Whichever allocation fails while a new kind of prompt is recorded, the predictor goes on. */
TEST(a_decoder_that_cannot_be_made_disturbs_no_other)
{
    struct fixture f = fixture_open("cpu", 1, DET, SAM);
    float numbers[24];
    int labels[10];
    um_frame *frame = part(0);
    um_image image = image_of(frame);
    um_predictor *p = open_predictor(f.segmenter);
    um_prediction r = {.struct_size = sizeof r};
    CHECK_OK(um_predictor_set_image(p, &image));
    for (int kind = 0; kind < 9; kind++) { /* the places are taken */
        um_prompts prompts = prompts_of(kind, numbers, labels);
        CHECK_OK(um_predictor_predict(p, &prompts, &r));
        um_prediction_close(&r);
    }
    um_prompts last = prompts_of(8, numbers, labels);
    CHECK_OK(um_predictor_predict(p, &last, &r));
    uint64_t want = result_of(&r);
    um_prediction_close(&r);
    um_status st = UM_ENOMEM;
    for (uint64_t k = 1; st != UM_OK && k < 400; k++) {
        float other[24];
        int other_labels[10];
        um_prompts prompts = prompts_of(9, other, other_labels);
        um_mem_fail_at(k);
        st = um_predictor_predict(p, &prompts, &r);
        um_mem_fail_at(0);
        CHECK(st == UM_OK || (st == UM_ENOMEM && r.count == 0));
        um_prediction_close(&r);
        CHECK_OK(um_predictor_predict(p, &last, &r));
        CHECK_EQ(result_of(&r), want);
        um_prediction_close(&r);
    }
    CHECK_EQ(st, UM_OK);
    um_predictor_close(&p);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* An assertion holds as long as its pipeline, whatever others open and close, and every frame that
 * breaks it says so. */
TEST(transfer_assertions_are_their_pipelines)
{
    struct fixture f = fixture_open("guard", 1, DET, SAM);
    um_pipeline *strict = NULL, *other = NULL;
    um_pipeline_settings s;
    um_frame *frame = part(0);
    const um_packet *packet = NULL;
    um_pipeline_settings_default(&s);
    s.detector = f.detector;
    s.segmenter = f.segmenter;
    s.conf = 0;
    CHECK_OK(um_pipeline_open(&other, &s));
    s.assert_up = 1;
    s.assert_down = 0;
    CHECK_OK(um_pipeline_open(&strict, &s));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pass(strict, frame, &packet), UM_EASSERT);
        CHECK(packet && strstr(um_last_error(), "copies down"));
        CHECK_OK(pass(other, frame, &packet));
        if (i == 1)
            um_pipeline_close(&other);
        if (!other) {
            s.assert_up = s.assert_down = -1;
            CHECK_OK(um_pipeline_open(&other, &s));
        }
    }
    um_pipeline_close(&strict);
    um_pipeline_close(&other);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* Several embeddings at once, each as good as setting its image; as numbers and as a file. */
TEST_ON_DEVICES(embeddings_are_values)
{
    enum { IMAGES = 3 };
    struct fixture f = fixture_open(device, 1, DET, SAM);
    float numbers[24];
    int labels[10];
    um_embedding *e[IMAGES] = {NULL}, *read = NULL;
    um_predictor *p = open_predictor(f.segmenter);
    um_prediction r = {.struct_size = sizeof r};
    um_prompts prompts = prompts_of(3, numbers, labels);
    char path[64];
    snprintf(path, sizeof path, "/tmp/um_embedding_%d.safetensors", (int)getpid());
    for (int i = 0; i < IMAGES; i++) {
        um_frame *frame = part(i);
        um_image image = image_of(frame);
        CHECK_OK(um_segmenter_encode(f.segmenter, &image, &e[i]));
        um_frame_unref(&frame);
    }
    for (int i = IMAGES; i-- > 0;) {
        um_frame *frame = part(i);
        um_image image = image_of(frame);
        CHECK_OK(um_predictor_set_image(p, &image));
        CHECK_OK(um_predictor_predict(p, &prompts, &r));
        uint64_t want = result_of(&r);
        um_prediction_close(&r);
        CHECK_OK(um_segmenter_predict(f.segmenter, e[i], &prompts, &r));
        CHECK_EQ(result_of(&r), want);
        um_prediction_close(&r);
        CHECK_OK(um_embedding_save(e[i], path));
        CHECK_OK(um_embedding_load(&read, f.segmenter, path));
        int w = 0, h = 0;
        um_embedding_image_size(read, &w, &h);
        CHECK(w == SIDE && h == SIDE && described(read).shape[2] == SAM / 16);
        CHECK_OK(um_predictor_set_embedding(p, read));
        CHECK_OK(um_predictor_predict(p, &prompts, &r));
        CHECK_EQ(result_of(&r), want);
        um_prediction_close(&r);
        um_embedding_unref(&read);
        um_frame_unref(&frame);
    }
    um_predictor_close(&p);
    struct fixture g = fixture_open(device, 1, DET, 2 * SAM);
    p = open_predictor(g.segmenter);
    CHECK_EQ(um_predictor_set_embedding(p, e[0]), UM_EINVAL);
    r.count = 3; /* of another one, which somebody else closes */
    r.mask[0] = (um_values *)&f;
    CHECK_EQ(um_segmenter_predict(g.segmenter, e[0], &prompts, &r), UM_EINVAL);
    CHECK(r.count == 0 && !r.mask[0]);
    um_prediction_close(&r);
    CHECK_EQ(um_embedding_load(&read, g.segmenter, path), UM_EFORMAT);
    CHECK(read == NULL);
    um_predictor_close(&p);
    fixture_close(&g);
    unlink(path);
    for (int i = 0; i < IMAGES; i++)
        um_embedding_unref(&e[i]);
    fixture_close(&f);
}

/* An image that is on the device is copied there; nothing but a header crosses. */
TEST_ON_DEVICES(images_on_the_device_stay_there)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    float numbers[24];
    int labels[10];
    um_frame *frame = part(0);
    um_image image = image_of(frame);
    um_predictor *p = open_predictor(f.segmenter);
    um_prediction r = {.struct_size = sizeof r};
    um_prompts prompts = prompts_of(0, numbers, labels);
    um_buf *there = NULL;
    um_transfers before, after;
    enum { PITCH = SIDE + 32 };
    CHECK_OK(um_predictor_set_image(p, &image));
    CHECK_OK(um_predictor_predict(p, &prompts, &r));
    uint64_t want = result_of(&r);
    float iou = r.iou[0];
    um_prediction_close(&r);
    CHECK_OK(um_buf_open(&there, f.dev, PITCH * SIDE, "the caller's"));
    for (int y = 0; y < SIDE; y++)
        CHECK_OK(um_upload_now(f.dev, there, (size_t)(y * PITCH), pixel(frame, 0, y), SIDE,
                               UM_STAGE_DEBUG, "the caller's"));
    image.data = (const void *)um_buf_address(there);
    image.device = um_device_name(f.dev);
    image.row_bytes = PITCH;
    um_device_transfers(f.dev, &before);
    CHECK_OK(um_predictor_set_image(p, &image));
    um_device_transfers(f.dev, &after);
    if (strcmp(device, "cpu") != 0)
        CHECK_EQ(after.up_bytes - before.up_bytes, 256);
    CHECK_OK(um_predictor_predict(p, &prompts, &r));
    CHECK_EQ(result_of(&r), want);
    um_prediction_close(&r);
    prompts.as_numpy = UM_MASK_DEVICE;
    CHECK_OK(um_predictor_predict(p, &prompts, &r));
    float score = 0;
    CHECK_OK(um_predictor_scores(p, &score));
    CHECK(score == iou && isnan(r.iou[0]));
    um_device_array a = {.struct_size = sizeof a};
    CHECK_OK(um_values_describe(r.mask[0], &a));
    CHECK(a.rank == 4 && a.shape[0] == 1 && a.shape[2] == SIDE && a.shape[3] == SIDE);
    CHECK(a.strides[3] == 1 && a.strides[2] == SIDE && a.type == UM_ARRAY_BOOL && a.data);
    CHECK_STR(a.device, um_device_name(f.dev));
    um_prediction_close(&r);
    if (strcmp(device, "cpu") != 0) {
        image.type = UM_IMAGE_F32;
        CHECK_EQ(um_predictor_set_image(p, &image), UM_EUNSUPPORTED);
        image.type = UM_IMAGE_U8;
        image.data = numbers; /* on guard: no memory of the device */
        if (strcmp(device, "guard") == 0)
            CHECK_EQ(um_predictor_set_image(p, &image), UM_EINVAL);
    }
    um_predictor_close(&p);
    um_buf_close(&there);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* A model's file may come from anywhere. */
TEST(models_are_opened_from_memory)
{
    struct fixture f = fixture_open("cpu", 1, DET, SAM);
    um_frame *frame = part(0);
    const char *const files[2] = {DETECTOR_FILE, SEGMENTER_FILE};
    um_detector *detector = NULL;
    um_segmenter *segmenter = NULL;
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(files[i], "rb");
        CHECK(file && fseek(file, 0, SEEK_END) == 0);
        long size = ftell(file);
        void *data = malloc((size_t)size);
        rewind(file);
        CHECK_EQ(fread(data, 1, (size_t)size, file), (size_t)size);
        fclose(file);
        if (i)
            CHECK_OK(
                um_segmenter_open_memory(&segmenter, f.dev, data, (size_t)size, "here", SAM, NULL));
        else
            CHECK_OK(um_detector_open_memory(&detector, f.dev, data, (size_t)size, "here",
                                             OF_SIZE(DET)));
        um_detector *none = NULL;
        CHECK_EQ(um_detector_open_memory(&none, f.dev, data, (size_t)size / 2, "half", NULL),
                 UM_EFORMAT);
        CHECK(!none && strstr(um_last_error(), "half"));
        memset(data, 0, (size_t)size);
        free(data);
    }
    CHECK_STR(um_detector_sha256(detector), um_detector_sha256(f.detector));
    um_box a[4], b[4];
    int n = 0, m = 0;
    CHECK_OK(um_detector_run(f.detector, frame, 0, a, 4, &n));
    CHECK_OK(um_detector_run(detector, frame, 0, b, 4, &m));
    CHECK(n == 4 && m == 4 && memcmp(a, b, sizeof a) == 0);
    um_detector_close(&detector);
    um_segmenter_close(&segmenter);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* Also where an argument is missing: whoever closes what he wanted closes nothing. */
TEST(on_every_error_there_is_no_handle)
{
    struct fixture f = fixture_open("cpu", 1, DET, SAM);
    int mark;
#define NONE(type, call)           \
    do {                           \
        type *x = (void *)&mark;   \
        CHECK_EQ(call, UM_EINVAL); \
        CHECK(x == NULL);          \
    } while (0)
    NONE(um_detector, um_detector_open(&x, NULL, DETECTOR_FILE, NULL));
    NONE(um_detector, um_detector_open(&x, f.dev, NULL, NULL));
    NONE(um_detector, um_detector_open_memory(&x, f.dev, NULL, 0, "here", NULL));
    NONE(um_segmenter, um_segmenter_open(&x, NULL, SEGMENTER_FILE, 0, NULL));
    NONE(um_segmenter, um_segmenter_open_memory(&x, f.dev, NULL, 0, "here", 0, NULL));
    NONE(um_predictor, um_predictor_open(&x, NULL));
    NONE(um_pipeline, um_pipeline_open(&x, NULL));
    NONE(um_bench, um_bench_open(&x, UM_BENCH_ENCODE, f.detector, NULL, 0));
    NONE(um_bench, um_bench_open(&x, (um_bench_stage)9, f.detector, f.segmenter, 0));
    NONE(um_embedding, um_predictor_embedding(NULL, &x));
    NONE(um_embedding, um_segmenter_encode(f.segmenter, NULL, &x));
    NONE(um_embedding, um_embedding_load(&x, f.segmenter, NULL));
    NONE(um_embedding, um_embedding_resized(&x, NULL, 1, 1));
    NONE(um_frame, um_frame_from_image(&x, NULL));
    NONE(struct DLManagedTensor, um_dlpack_export(NULL, &x));
    NONE(struct DLManagedTensorVersioned, um_dlpack_export_versioned(NULL, &x));
#undef NONE
    fixture_close(&f);
}

/* The first frame of a prepared size finds everything made: no setup, no allocation but its packet.
 */
TEST_ON_DEVICES(prepared_sizes_are_not_planned_in_the_stream)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    um_pipeline *p = open_pipeline(&f, 1);
    um_frame *gray = part(0), *rgb = new_frame(80, 64, 3);
    const um_packet *packet = NULL;
    *pixel(rgb, 3, 3) = 200;
    CHECK_OK(um_pipeline_prepare(p, SIDE, SIDE, 1));
    CHECK_OK(um_pipeline_prepare(p, 80, 64, 3));
    CHECK_OK(pass(p, gray, &packet)); /* the first packet's memory */
    uint64_t before = um_mem_count();
    CHECK_OK(pass(p, rgb, &packet));
    CHECK_EQ(packet->transfers.setup, 0);
    CHECK(um_mem_count() - before <= 2); /* a larger mask, a longer name */
    uint64_t want = packet_hash(packet);
    CHECK_OK(um_pipeline_prepare(p, 80, 64, 3)); /* known */
    CHECK_OK(pass(p, rgb, &packet));
    CHECK_EQ(packet_hash(packet), want);
    CHECK_EQ(um_pipeline_prepare(p, 0, 64, 3), UM_EINVAL);
    CHECK_EQ(um_pipeline_prepare(p, 80, 64, 2), UM_EINVAL);
    um_pipeline_close(&p);
    p = open_pipeline(&f, 1); /* the same without preparation */
    CHECK_OK(pass(p, rgb, &packet));
    CHECK_EQ(packet_hash(packet), want);
    um_pipeline_close(&p);
    um_frame_unref(&gray);
    um_frame_unref(&rgb);
    fixture_close(&f);
}

TEST_ON_DEVICES(legacy_mode_allocates_nothing_per_frame)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    um_pipeline *p = NULL;
    um_pipeline_settings s;
    um_frame *frame = part(0);
    const um_packet *packet = NULL;
    um_pipeline_settings_default(&s);
    s.detector = f.detector;
    s.segmenter = f.segmenter;
    s.sam_as_numpy = UM_MASK_HOST;
    s.conf = 0;
    s.objects = 2;
    CHECK_OK(um_pipeline_open(&p, &s));
    uint64_t before = 0;
    for (int i = 0; i < 8; i++) {
        if (i == 3)
            before = um_mem_count();
        CHECK_OK(pass(p, frame, &packet));
        CHECK_EQ(packet->objects, 2);
    }
    CHECK_EQ(um_mem_count() - before, 0);
    um_pipeline_close(&p);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* ---- changed while running ---- */

TEST_ON_DEVICES(threshold_class_and_objects_change_at_run_time)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    um_pipeline *p = open_pipeline(&f, 3);
    um_frame *frame = part(0);
    const um_packet *packet = NULL;
    CHECK_OK(pass(p, frame, &packet));
    CHECK_EQ(packet->objects, 3);
    CHECK_OK(um_pipeline_change(p, NULL, NULL, &(int){1}));
    CHECK_OK(pass(p, frame, &packet));
    CHECK_EQ(packet->objects, 1);
    CHECK_OK(um_pipeline_change(p, &(float){1}, NULL, NULL));
    CHECK_OK(pass(p, frame, &packet));
    CHECK(packet->objects == 0 && packet->state == UM_STATE_LOST);
    CHECK_OK(um_pipeline_change(p, NULL, &(int){0}, NULL));
    CHECK_OK(um_pipeline_change(p, &(float){0}, NULL, NULL));
    CHECK_OK(um_pipeline_change(p, NULL, NULL, &(int){3}));
    CHECK_OK(pass(p, frame, &packet));
    CHECK_EQ(packet->objects, 3);
    CHECK_EQ(um_pipeline_change(p, &(float){NAN}, NULL, NULL), UM_EINVAL);
    CHECK_EQ(um_pipeline_change(p, NULL, &(int){1}, NULL), UM_EINVAL);
    CHECK_EQ(um_pipeline_change(p, NULL, NULL, &(int){4}), UM_EINVAL);
    CHECK_EQ(um_pipeline_change(p, NULL, NULL, &(int){0}), UM_EINVAL);
    um_pipeline_close(&p);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* ---- several objects ---- */

static uint64_t object_hash(const um_packet *k, const um_object *o)
{
    uint64_t h = hash(0xcbf29ce484222325u, o->box, sizeof o->box);
    h = hash(h, &o->score, sizeof o->score);
    h = hash(h, &o->iou, sizeof o->iou);
    h = hash(h, &o->mask_area_px, sizeof o->mask_area_px);
    h = hash(h, &o->edge_px, sizeof o->edge_px);
    h = hash(h, o->mask_box, sizeof o->mask_box);
    return hash(h, o->bits, (size_t)um_packet_row_bytes(k) * (size_t)k->crop[3]);
}

/* Each object is what a run for its box alone gives, bit for bit; with one more upload for none. */
TEST_ON_DEVICES(objects_are_what_each_alone_would_be)
{
    enum { OBJECTS = 4 };
    struct fixture f = fixture_open(device, 1, DET, SAM);
    um_frame *frame = part(1);
    um_box boxes[300];
    int found = 0;
    CHECK_OK(um_detector_run(f.detector, frame, 0, boxes, 300, &found));
    uint64_t want[OBJECTS] = {0};
    for (int way = 0; way < 3; way++) {
        um_pipeline *p = NULL;
        const um_packet *packet = NULL;
        um_pipeline_settings s = fixture_settings(&f);
        s.conf = 0;
        s.objects = OBJECTS;
        s.gate = way ? UM_GATE_SYNC : UM_GATE_SPECULATIVE;
        s.sam_as_numpy = way == 2 ? UM_MASK_HOST : UM_MASK_DEVICE;
        CHECK_OK(um_pipeline_open(&p, &s));
        for (int round = 0; round < 2; round++)
            CHECK_OK(pass(p, frame, &packet));
        CHECK_EQ(packet->objects, OBJECTS);
        if (way == 0 && strcmp(device, "cpu") != 0)
            CHECK(packet->transfers.up == 1 && packet->transfers.down == 1);
        for (int i = 0; i < OBJECTS; i++) {
            const um_object *o = um_packet_object(packet, i);
            CHECK_EQ(o->score, boxes[i].score);
            uint64_t got = object_hash(packet, o);
            if (way)
                CHECK_EQ(got, want[i]);
            want[i] = got;
        }
        um_pipeline_close(&p);
    }
    um_predictor *alone = open_predictor(f.segmenter);
    um_image image = image_of(frame);
    CHECK_OK(um_predictor_set_image(alone, &image));
    um_pipeline *p = open_pipeline(&f, OBJECTS);
    const um_packet *packet = NULL;
    CHECK_OK(pass(p, frame, &packet));
    for (int i = 0; i < OBJECTS; i++) {
        static uint8_t one[AREA], mine[AREA];
        um_prediction r = {.struct_size = sizeof r};
        const float box[4] = {boxes[i].x0, boxes[i].y0, boxes[i].x1, boxes[i].y1};
        um_prompts prompts = {.struct_size = sizeof prompts, .box = box, .as_numpy = UM_MASK_HOST};
        CHECK_OK(um_predictor_predict(alone, &prompts, &r));
        CHECK_OK(um_values_read(r.mask[0], one));
        um_packet_object_mask(packet, i, mine, 1);
        CHECK_EQ(differing(one, mine, AREA), 0);
        CHECK_EQ(r.iou[0], um_packet_object(packet, i)->iou);
        um_prediction_close(&r);
    }
    um_pipeline_close(&p);
    um_predictor_close(&alone);
    um_frame_unref(&frame);
    fixture_close(&f);
}

/* ---- at the same time ---- */

enum { PREDICTORS = 8, PIPELINES = 2, IMAGES = 4, KINDS = 10 };

/* Results made alone, to be met again. */
struct alone {
    uint64_t prediction[IMAGES][KINDS], packet[PIPELINES][IMAGES];
    um_embedding *embedding[IMAGES];
};

struct worker {
    const struct fixture *f;
    const struct alone *want;
    int index, calls;
    pthread_t thread;
    int wrong;
};

static void *work_predictor(void *ctx)
{
    struct worker *w = ctx;
    um_predictor *p = open_predictor(w->f->segmenter);
    uint32_t x = (uint32_t)w->index * 7919u + 1;
    int current = -1;
    for (int i = 0; i < w->calls; i++) {
        float numbers[24];
        int labels[10];
        x = x * 1664525u + 1013904223u;
        int image = (int)(x >> 24) % IMAGES, kind = (int)(x >> 16) % KINDS, way = (int)(x >> 8) % 4;
        um_prompts prompts = prompts_of(kind, numbers, labels);
        um_prediction r = {.struct_size = sizeof r};
        um_status st = UM_OK;
        if (way == 0) { /* without a session */
            st = um_segmenter_predict(w->f->segmenter, w->want->embedding[image], &prompts, &r);
        } else {
            if (way == 1 || current < 0) {
                um_frame *frame = part(image);
                um_image pixels = image_of(frame);
                st = um_predictor_set_image(p, &pixels);
                um_frame_unref(&frame);
                current = image;
            } else if (way == 2) {
                st = um_predictor_set_embedding(p, w->want->embedding[image]);
                current = image;
            }
            image = current;
            if (st == UM_OK)
                st = um_predictor_predict(p, &prompts, &r);
        }
        w->wrong += st != UM_OK || result_of(&r) != w->want->prediction[image][kind];
        um_prediction_close(&r);
    }
    um_predictor_close(&p);
    return NULL;
}

static void *work_pipeline(void *ctx)
{
    struct worker *w = ctx;
    um_pipeline *p = open_pipeline(w->f, 1 + 2 * w->index);
    for (int i = 0; i < w->calls; i++) {
        const um_packet *packet = NULL;
        um_frame *frame = part(i % IMAGES);
        um_status st = pass(p, frame, &packet);
        w->wrong += st != UM_OK || packet_hash(packet) != w->want->packet[w->index][i % IMAGES];
        um_frame_unref(&frame);
    }
    um_pipeline_close(&p);
    return NULL;
}

static void alone_open(struct alone *a, const struct fixture *f)
{
    um_predictor *p = open_predictor(f->segmenter);
    for (int i = 0; i < IMAGES; i++) {
        um_frame *frame = part(i);
        um_image image = image_of(frame);
        CHECK_OK(um_predictor_set_image(p, &image));
        CHECK_OK(um_predictor_embedding(p, &a->embedding[i]));
        for (int kind = 0; kind < KINDS; kind++) {
            float numbers[24];
            int labels[10];
            um_prompts prompts = prompts_of(kind, numbers, labels);
            um_prediction r = {.struct_size = sizeof r};
            CHECK_OK(um_predictor_predict(p, &prompts, &r));
            a->prediction[i][kind] = result_of(&r);
            um_prediction_close(&r);
        }
        um_frame_unref(&frame);
    }
    um_predictor_close(&p);
    for (int k = 0; k < PIPELINES; k++) {
        um_pipeline *pipe = open_pipeline(f, 1 + 2 * k);
        for (int i = 0; i < IMAGES; i++) {
            const um_packet *packet = NULL;
            um_frame *frame = part(i);
            CHECK_OK(pass(pipe, frame, &packet));
            a->packet[k][i] = packet_hash(packet);
            um_frame_unref(&frame);
        }
        um_pipeline_close(&pipe);
    }
}

/* UM_CALLS: how many mixed calls in all. */
TEST_ON_DEVICES(many_threads_share_one_set_of_weights)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    struct alone want;
    struct worker w[PREDICTORS + PIPELINES];
    const char *calls = getenv("UM_CALLS");
    int each = (calls ? atoi(calls) : SANITIZED ? 50 : 200) / (PREDICTORS + PIPELINES);
    memset(&want, 0, sizeof want);
    alone_open(&want, &f);
    for (int i = 0; i < PREDICTORS + PIPELINES; i++) {
        bool pipe = i >= PREDICTORS;
        w[i] = (struct worker){
            .f = &f, .want = &want, .index = pipe ? i - PREDICTORS : i, .calls = each};
        if (pthread_create(&w[i].thread, NULL, pipe ? work_pipeline : work_predictor, &w[i]) != 0)
            fixture_die("thread");
    }
    for (int i = 0; i < PREDICTORS + PIPELINES; i++) {
        pthread_join(w[i].thread, NULL);
        CHECK_EQ(w[i].wrong, 0);
    }
    for (int i = 0; i < IMAGES; i++)
        um_embedding_unref(&want.embedding[i]);
    fixture_close(&f);
}

static void *prepare_sizes(void *ctx)
{
    bool ok = true;
    for (int n = 0; ok && n < 12; n++) /* more than are kept */
        ok = um_pipeline_prepare(ctx, 64 + n % 6 * 16, 80, 1) == UM_OK;
    return ok ? ctx : NULL;
}

/* Who asks for the memory, as a run does after each packet, sees none of a plan in the making. */
TEST(memory_is_asked_for_while_sizes_are_prepared)
{
    for (int inflight = 1; inflight <= 2; inflight++) {
        const struct fixture *f = tiny("cpu");
        um_pipeline_settings s;
        um_pipeline_settings_default(&s);
        s.detector = f->detector;
        s.segmenter = f->segmenter;
        s.inflight = inflight;
        um_pipeline *p = fixture_pipeline(&s);
        uint64_t empty = um_pipeline_device_bytes(p);
        um_frame *frame = part(0);
        const um_packet *packet = NULL;
        pthread_t thread;
        void *prepared = NULL;
        CHECK(pthread_create(&thread, NULL, prepare_sizes, p) == 0);
        for (int n = 0; n < 20; n++) {
            CHECK_OK(pass(p, frame, &packet));
            CHECK(um_pipeline_device_bytes(p) > empty);
        }
        pthread_join(thread, &prepared);
        CHECK(prepared == p);
        um_frame_unref(&frame);
        um_pipeline_close(&p);
    }
}

/* A predictor whose second upload fails does not write to the slot of the first, which is on its
 * way: on `guard`, whose queue has no room for it and no memory for more. */
TEST(slots_of_a_prediction_that_failed_are_waited_for)
{
    enum { ROOM = 256, LAST = 8 };
    int failed = 0;
    for (int n = ROOM - LAST; n < ROOM; n++) {
        struct fixture f = fixture_open("guard", 1, DET, SAM);
        um_frame *frame = part(0);
        um_image image = image_of(frame);
        um_predictor *p = open_predictor(f.segmenter);
        um_prediction r = {.struct_size = sizeof r};
        float low[SAM * SAM / 16] = {0};
        um_prompts prompts = {.struct_size = sizeof prompts,
                              .box = (const float[]){10, 12, 60, 70},
                              .as_numpy = UM_MASK_HOST,
                              .mask_input = low};
        um_buf *buf = NULL;
        CHECK_OK(um_predictor_set_image(p, &image));
        CHECK_OK(um_predictor_predict(p, &prompts, &r));
        uint64_t want = result_of(&r);
        um_prediction_close(&r);
        CHECK_OK(um_buf_open(&buf, f.dev, 64, "filled"));
        for (int i = 0; i < n; i++)
            CHECK_OK(um_fill(f.dev, UM_QUEUE_MAIN, buf, 0, 64, 0));
        um_mem_fail_at(1);
        um_status st = um_predictor_predict(p, &prompts, &r);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        failed += st != UM_OK;
        um_prediction_close(&r);
        CHECK_OK(um_predictor_predict(p, &prompts, &r));
        CHECK_EQ(result_of(&r), want);
        um_prediction_close(&r);
        um_buf_close(&buf);
        um_predictor_close(&p);
        um_frame_unref(&frame);
        fixture_close(&f);
    }
    CHECK(failed > 0);
}

/* A dump is of what was predicted, also where the encoder has seen another image since. */
TEST_ON_DEVICES(a_dump_is_of_the_embedding_that_was_set)
{
    struct fixture f = fixture_open(device, 1, DET, SAM);
    um_predictor *p = open_predictor(f.segmenter);
    um_embedding *e = NULL;
    um_prediction r = {.struct_size = sizeof r};
    um_prompts prompts = {.struct_size = sizeof prompts, .box = (const float[]){10, 12, 60, 70}};
    const int64_t dim[] = {1, 256, SAM / 16, SAM / 16};
    const size_t n = (size_t)256 * (SAM / 16) * (SAM / 16);
    char path[2][64];
    CHECK_OK(um_predictor_keep_taps(p));
    for (int i = 0; i < 2; i++) {
        um_frame *frame = part(i);
        um_image image = image_of(frame);
        snprintf(path[i], sizeof path[i], "/tmp/um_dump_%d_%d.safetensors", i, (int)getpid());
        CHECK_OK(um_predictor_set_image(p, &image));
        if (i == 0)
            CHECK_OK(um_predictor_embedding(p, &e));
        um_frame_unref(&frame);
    }
    CHECK_OK(um_predictor_set_embedding(p, e));
    CHECK_OK(um_predictor_predict(p, &prompts, &r));
    um_prediction_close(&r);
    CHECK_OK(um_predictor_dump(p, path[0]));
    CHECK_OK(um_embedding_save(e, path[1]));
    float *data[2] = {NULL};
    for (int i = 0; i < 2; i++) {
        um_weights *file = NULL;
        CHECK_OK(um_weights_open(&file, path[i]));
        CHECK_OK(um_weights_read(file, "image_embedding", 4, dim, &data[i]));
        um_weights_close(&file);
        unlink(path[i]);
    }
    CHECK(memcmp(data[0], data[1], n * sizeof *data[0]) == 0);
    um_free(data[0]);
    um_free(data[1]);
    um_embedding_unref(&e);
    um_predictor_close(&p);
    fixture_close(&f);
}

/* ---- the order of closing ---- */

/* Whatever is left goes on as before. */
static void use_what_is_left(um_pipeline *pipe, um_predictor *p, um_bench *bench,
                             const um_embedding *e, um_frame *frame, uint64_t want[2])
{
    const um_packet *packet = NULL;
    um_prediction r = {.struct_size = sizeof r};
    um_prompts prompts = {.struct_size = sizeof prompts,
                          .box = (const float[]){10, 12, 60, 70},
                          .as_numpy = UM_MASK_HOST};
    double ms = 0;
    CHECK_OK(pass(pipe, frame, &packet));
    CHECK_OK(um_predictor_set_embedding(p, e));
    CHECK_OK(um_predictor_predict(p, &prompts, &r));
    uint64_t got[2] = {packet_hash(packet), result_of(&r)};
    for (int i = 0; i < 2; i++) {
        CHECK(!want[i] || got[i] == want[i]);
        want[i] = got[i];
    }
    CHECK_STR(packet->lost_device, "another");
    CHECK_STR(described(e).device, packet->device);
    CHECK_OK(um_bench_run(bench, &ms));
    um_prediction_close(&r);
}

/* Device, detector and segmenter are closed in each of their orders below what was opened on them,
 * that in each of its own. */
TEST_ON_DEVICES(handles_are_closed_in_any_order)
{
    static const int order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    uint64_t want[2] = {0};
    for (int n = 0; n < 6; n++) {
        struct fixture f = fixture_open(device, 1, DET, SAM);
        um_frame *frame = part(0);
        um_image image = image_of(frame);
        um_predictor *p = open_predictor(f.segmenter);
        um_pipeline *pipe = NULL, *of_run = open_pipeline(&f, 1);
        um_bench *bench = NULL;
        um_embedding *e = NULL, *own = NULL;
        um_source *source = NULL;
        um_run *run = NULL;
        um_monitor *monitor = NULL;
        um_run_counts counts = {.struct_size = sizeof counts};
        char lost[] = "another";
        um_pipeline_settings s;
        um_pipeline_settings_default(&s);
        s.detector = f.detector;
        s.segmenter = f.segmenter;
        s.conf = 0;
        s.inflight = n % 2 + 1; /* on cpu with a crew */
        s.shadow_every = n < 3;
        s.lost_device = lost;
        CHECK_OK(um_pipeline_open(&pipe, &s));
        memset(lost, 0, sizeof lost);
        CHECK_OK(um_bench_open(&bench, UM_BENCH_DECODE, NULL, f.segmenter, 0));
        CHECK_OK(um_predictor_set_image(p, &image));
        CHECK_OK(um_predictor_embedding(p, &e));
        CHECK_OK(um_segmenter_encode(f.segmenter, &image, &own)); /* its own session */
        CHECK_OK(um_source_open(&source, "push:", NULL));
        CHECK_OK(um_monitor_open(&monitor));
        um_status watched = um_monitor_watch(monitor, f.dev);
        CHECK(watched == UM_OK || watched == UM_EUNSUPPORTED);
        um_run_settings of = {.struct_size = sizeof of, .pipeline = of_run, .source = source};
        CHECK_OK(um_run_open(&run, &of));
        um_pipeline_close(&of_run);
        for (int i = 0; i < 3; i++) {
            if (order[n][i] == 0)
                um_device_close(&f.dev);
            else if (order[n][i] == 1)
                um_detector_close(&f.detector);
            else
                um_segmenter_close(&f.segmenter);
            if (i == 1)
                um_monitor_close(&monitor);
            use_what_is_left(pipe, p, bench, e, frame, want);
        }
        um_frame *sent = part(0),
                 *flies = um_frame_ref(frame); /* a pushed frame is read by nobody else */
        CHECK_OK(um_pipeline_send(pipe, &flies));
        CHECK_OK(um_source_push(source, &sent));
        CHECK_OK(um_source_finish(source));
        um_source_close(&source);
        CHECK_OK(um_run_start(run));
        CHECK_OK(um_run_join(run));
        CHECK_OK(um_run_stats(run, &counts));
        CHECK_EQ(counts.frames, 1);
        for (int i = 0; i < 6; i++)
            switch ((n + i * (n % 2 ? 1 : 5)) % 6) {
            case 0: um_pipeline_close(&pipe); break;
            case 1: um_predictor_close(&p); break;
            case 2: um_bench_close(&bench); break;
            case 3: um_embedding_unref(&e); break;
            case 4: um_embedding_unref(&own); break;
            case 5: um_run_close(&run); break;
            }
        um_frame_unref(&frame);
    }
}

TEST_MAIN
