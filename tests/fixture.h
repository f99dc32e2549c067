/* SPDX-License-Identifier: Apache-2.0 */
/* The shipped models on a device, and images: what the tests of whole predictions start from. */
#ifndef UM_TEST_FIXTURE_H
#define UM_TEST_FIXTURE_H

#include "ultramotion/ultramotion.h"

#include "device/backend.h"
#include "test.h"

#include <stdbool.h>

/* Under a sanitizer everything takes ten times as long: tests that repeat do so less often. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* The networks that the golden values are of; better ones may ship (a test of those says so before
 * it includes this). */
#ifdef TEST_WHAT_SHIPS
#define DETECTOR_FILE UM_SOURCE_DIR "/models/dfine_n_bone_320.safetensors"
#define SEGMENTER_FILE UM_SOURCE_DIR "/models/mobile_sam_bone_384.safetensors"
#else
#define DETECTOR_FILE UM_GOLDEN_DIR "/models/dfine_n_bone_320.safetensors"
#define SEGMENTER_FILE UM_GOLDEN_DIR "/models/mobile_sam_bone_256.safetensors"
#endif

/* The same test on every device, as id_on_cpu, id_on_guard and id_on_cuda_0, the latter in fp32. */
#define TEST_ON_DEVICES(id)             \
    static void id(const char *device); \
    TEST(id##_on_cpu)                   \
    {                                   \
        id("cpu");                      \
    }                                   \
    TEST(id##_on_guard)                 \
    {                                   \
        id("guard");                    \
    }                                   \
    TEST(id##_on_cuda_0)                \
    {                                   \
        if (um_cuda_count() == 0)       \
            SKIP("no GPU");             \
        id("cuda:0");                   \
    }                                   \
    static void id(const char *device)

struct fixture {
    um_device *dev;
    um_detector *detector;
    um_segmenter *segmenter;
};

static inline void fixture_die(const char *what)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", what, um_last_error());
    exit(1);
}

/* Settings of a detector with a square input; 0: the file's. */
#define OF_SIZE(side)                                                                              \
    &(um_detector_settings)                                                                        \
    {                                                                                              \
        .struct_size = sizeof(um_detector_settings), .input_width = (side), .input_height = (side) \
    }

enum { TINY = 160 /* the side of the detector where only bits count */ };

/* A device of its own with networks of the sizes given (0: the file's). Two threads: enough to be
 * parallel, few enough for a machine that runs other tests beside. */
static inline struct fixture fixture_open(const char *device, uint64_t seed, int detector_size,
                                          int canvas)
{
    struct fixture f = {0};
    um_device_settings s;
    um_detector_settings d = *OF_SIZE(detector_size);
    um_device_settings_default(&s);
    if (detector_size == TINY)
        d.queries = 100; /* of its 125 tokens */
    s.name = device;
    s.threads = 2;
    s.guard_seed = seed;
    s.precision = "fp32"; /* what the numbers of the tests are made of */
    if (um_device_open(&f.dev, &s) != UM_OK ||
        um_detector_open(&f.detector, f.dev, DETECTOR_FILE, &d) != UM_OK ||
        um_segmenter_open(&f.segmenter, f.dev, SEGMENTER_FILE, canvas, NULL) != UM_OK)
        fixture_die(device);
    return f;
}

/* The defaults, of its networks. */
static inline um_pipeline_settings fixture_settings(const struct fixture *f)
{
    um_pipeline_settings s;
    um_pipeline_settings_default(&s);
    s.detector = f->detector;
    s.segmenter = f->segmenter;
    return s;
}

static inline um_pipeline *fixture_pipeline(const um_pipeline_settings *s)
{
    um_pipeline *p = NULL;
    if (um_pipeline_open(&p, s) != UM_OK)
        fixture_die("pipeline");
    return p;
}

static inline void fixture_close(struct fixture *f)
{
    um_segmenter_close(&f->segmenter);
    um_detector_close(&f->detector);
    um_device_close(&f->dev);
}

/* The fixtures that tests share: opened at first use, closed at exit. */
static struct fixture fixture_shared[2][3];

static inline void fixture_close_shared(void)
{
    for (int i = 0; i < 6; i++)
        fixture_close(&fixture_shared[i / 3][i % 3]);
}

static inline struct fixture *fixture_share(const char *device, bool small)
{
    static bool any;
    int i = strcmp(device, "cpu") == 0 ? 0 : strcmp(device, "guard") == 0 ? 1 : 2;
    struct fixture *f = &fixture_shared[small][i];
    if (!any) {
        unsetenv("ULTRAMOTION_SAM_AS_NUMPY");
        atexit(fixture_close_shared);
    }
    any = true;
    if (!f->dev)
        *f = fixture_open(device, 1, small ? TINY : 0, small ? 64 : 0);
    return f;
}

static inline struct fixture *fixture(const char *device)
{
    return fixture_share(device, false);
}

/* Of small networks: for tests of many frames. */
static inline const struct fixture *tiny(const char *device)
{
    return fixture_share(device, true);
}

/* Send a frame that stays the caller's and receive its packet. */
static inline um_status pass(um_pipeline *p, um_frame *frame, const um_packet **packet)
{
    um_frame *mine = um_frame_ref(frame);
    *packet = NULL;
    um_status st = um_pipeline_send(p, &mine);
    if (st == UM_OK)
        st = um_pipeline_receive(p, packet);
    um_frame_unref(&mine);
    return st;
}

/* ---- images ---- */

/* A copy of frame i of the golden sequence: 422 x 558, gray. */
static inline um_frame *golden_frame(int i)
{
    char path[512];
    um_frame *f = NULL;
    snprintf(path, sizeof path, "%s/end_to_end/phantom_%d.png", UM_GOLDEN_DIR, i);
    if (um_image_read(path, &f) != UM_OK)
        fixture_die(path);
    f->id = (uint64_t)i;
    return f;
}

static inline um_frame *new_frame(int width, int height, int channels)
{
    um_frame *f = NULL;
    if (um_frame_create(&f, width, height, channels) != UM_OK)
        fixture_die("frame");
    for (int y = 0; y < height; y++)
        memset(f->pixels + (ptrdiff_t)y * f->stride, 0, (size_t)(width * channels));
    return f;
}

static inline uint8_t *pixel(const um_frame *f, int x, int y)
{
    return f->pixels + (ptrdiff_t)y * f->stride + (ptrdiff_t)x * f->channels;
}

/* Of a gray frame, which it does not hold. */
static inline um_image image_of(const um_frame *f)
{
    return (um_image){.struct_size = sizeof(um_image),
                      .data = f->pixels,
                      .layout = UM_IMAGE_HW,
                      .height = f->height,
                      .width = f->width,
                      .channels = 1,
                      .row_bytes = f->stride};
}

/* A gray frame as RGB whose channels are equal. */
static inline um_frame *rgb_of(const um_frame *gray)
{
    um_frame *f = new_frame(gray->width, gray->height, 3);
    f->id = gray->id;
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++)
            memset(pixel(f, x, y), *pixel(gray, x, y), 3);
    return f;
}

/* The part x0, y0, w, h of a frame as a frame of its own. */
static inline um_frame *cut(const um_frame *from, int x0, int y0, int w, int h)
{
    um_frame *f = new_frame(w, h, from->channels);
    f->id = from->id;
    for (int y = 0; y < h; y++)
        memcpy(pixel(f, 0, y), pixel(from, x0, y0 + y), (size_t)(w * from->channels));
    return f;
}

/* Noise. */
static inline um_frame *tiny_frame(int w, int h, int channels)
{
    um_frame *f = new_frame(w, h, channels);
    uint32_t x = 1;
    for (int y = 0; y < h; y++)
        for (int i = 0; i < w * channels; i++)
            pixel(f, 0, y)[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    return f;
}

static inline long differing(const uint8_t *a, const uint8_t *b, size_t n)
{
    long d = 0;
    for (size_t i = 0; i < n; i++)
        d += a[i] != b[i];
    return d;
}

static inline long set_pixels(const uint8_t *mask, size_t n)
{
    long k = 0;
    for (size_t i = 0; i < n; i++)
        k += mask[i] != 0;
    return k;
}

#endif
