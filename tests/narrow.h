/* SPDX-License-Identifier: Apache-2.0 */
/* Networks on narrow numbers against the same networks on floats. */
#ifndef UM_TEST_NARROW_H
#define UM_TEST_NARROW_H

#include "base/mem.h"
#include "nn/op_table.h"

#include "fixture.h"

#include <math.h>

/* A device of a precision, with the kernels of a level that need not offer it. */
static inline um_device *narrow_open(const char *name, int threads, const char *precision,
                                     const struct um_ops *level)
{
    um_device_settings s;
    um_device *dev = NULL;
    um_device_settings_default(&s);
    s.name = name;
    s.threads = threads;
    s.precision = precision;
    if (um_device_open(&dev, &s) != UM_OK)
        fixture_die("device");
    dev->ops = level;
    dev->isa = level->name;
    return dev;
}

/* How opening the shipped detector on a level ends that is asked for the precision. */
static inline void narrow_try(const struct um_ops *level, const char *precision, um_status *st)
{
    um_device_settings s;
    um_device *dev = NULL;
    um_detector *d = NULL;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.precision = precision;
    setenv("ULTRAMOTION_CPU", level->name, 1);
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_STR(um_device_precision(dev), precision);
    *st = um_detector_open(&d, dev, DETECTOR_FILE, NULL);
    um_detector_close(&d);
    um_device_close(&dev);
    unsetenv("ULTRAMOTION_CPU");
}

enum { MOST = 5 };

/* How many frames where kernels may be slow. */
static inline int narrow_few(const struct um_ops *level)
{
    bool slow = strcmp(level->name, "c") == 0 || strcmp(level->name, "amx-twin") == 0;
    return SANITIZED ? 1 : slow ? 3 : MOST;
}

struct frames {
    um_frame *frame[MOST];
    float box[MOST][4];
    int n;
};

static inline void read_frames(struct frames *f, int seed, int n)
{
    char spec[64];
    *f = (struct frames){.n = n};
    um_source *source = NULL;
    snprintf(spec, sizeof spec, "phantom:seed=%d,frames=%d,empty=0", seed, n);
    CHECK_OK(um_source_open(&source, spec, NULL));
    for (int i = 0; i < n; i++) {
        um_truth truth = {.struct_size = sizeof truth};
        CHECK_OK(um_source_read(source, &f->frame[i]));
        CHECK_OK(um_source_truth(source, &truth));
        memcpy(f->box[i], truth.box, sizeof truth.box);
    }
    um_source_close(&source);
}

static inline void frames_close(struct frames *f)
{
    for (int i = 0; i < f->n; i++)
        um_frame_unref(&f->frame[i]);
}

/* A model with its plan, found on some frames, as a file. */
static inline void narrow_calibrate(const char *model, const char *file)
{
    struct frames f;
    read_frames(&f, 4711, MOST); /* ranges of fewer are too coarse for what is asked here */
    um_calibration_settings s;
    um_calibration_settings_default(&s);
    s.frames = (const um_frame *const *)f.frame;
    s.boxes = (const float(*)[4])f.box;
    s.count = f.n;
    s.threads = 2;
    CHECK_OK(um_model_calibrate(model, file, NULL, &s));
    frames_close(&f);
}

static inline void detect_all(um_device *dev, const char *file, const struct frames *f,
                              um_box *best)
{
    um_detector *d = NULL;
    CHECK_OK(um_detector_open(&d, dev, file, NULL));
    for (int i = 0; i < f->n; i++) {
        int n = 0;
        CHECK_OK(um_detector_run(d, f->frame[i], 0, &best[i], 1, &n));
        CHECK_EQ(n, 1);
    }
    um_detector_close(&d);
}

/* Best boxes on `model` in a precision, on 1, 2 and 5 threads and on guard, against those of the
 * shipped model on floats: within px, scores within 0.05. */
static inline void narrow_boxes(const struct um_ops *level, const char *precision,
                                const char *model, float px, int frames)
{
    struct frames f;
    um_box floats[MOST], narrow[MOST], again[MOST];
    int sure = 0;
    read_frames(&f, 815, frames);
    detect_all(fixture("cpu")->dev, DETECTOR_FILE, &f, floats);
    for (int turn = 0; turn < 4; turn++) {
        static const int threads[] = {1, 2, 5, 2};
        um_device *dev = narrow_open(turn == 3 ? "guard" : "cpu", threads[turn], precision, level);
        memset(again, 0, sizeof again);
        detect_all(dev, model, &f, turn ? again : narrow);
        CHECK_MSG(!turn || memcmp(again, narrow, (size_t)f.n * sizeof *narrow) == 0,
                  "%s: run %d differs from the first", level->name, turn);
        um_device_close(&dev);
    }
    for (int i = 0; i < f.n; i++) {
        const um_box *a = &floats[i], *b = &narrow[i];
        if (a->score < 0.5f)
            continue;
        sure++;
        CHECK(fabsf(a->x0 - b->x0) <= px && fabsf(a->y0 - b->y0) <= px);
        CHECK(fabsf(a->x1 - b->x1) <= px && fabsf(a->y1 - b->y1) <= px);
        CHECK(fabsf(a->score - b->score) < 0.05f);
        CHECK_MSG(memcmp(a, b, sizeof *a) != 0, "these are floats");
    }
    CHECK(2 * sure >= f.n);
    frames_close(&f);
}

static inline void outline(um_device *dev, const char *file, const struct frames *f, uint8_t *all)
{
    um_segmenter *s = NULL;
    size_t pixels = (size_t)f->frame[0]->width * (size_t)f->frame[0]->height;
    CHECK_OK(um_segmenter_open(&s, dev, file, 0, NULL));
    for (int i = 0; i < f->n; i++) {
        um_image image = image_of(f->frame[i]);
        um_values *mask = NULL;
        CHECK_OK(um_run_segmentation(s, &image, f->box[i], UM_MASK_HOST, &mask));
        CHECK_OK(um_values_read(mask, all + pixels * (size_t)i));
        um_values_unref(&mask);
    }
    um_segmenter_close(&s);
}

/* The same of masks: their overlap is at least `dice`. */
static inline void narrow_masks(const struct um_ops *level, const char *precision,
                                const char *model, double dice, int frames)
{
    struct frames f;
    read_frames(&f, 815, frames);
    size_t pixels = (size_t)f.frame[0]->width * (size_t)f.frame[0]->height,
           all = pixels * (size_t)f.n;
    uint8_t *floats = um_zalloc(3 * all), *narrow = floats + all, *again = narrow + all;
    CHECK(floats);
    outline(fixture("cpu")->dev, SEGMENTER_FILE, &f, floats);
    for (int turn = 0; turn < 4; turn++) {
        static const int threads[] = {1, 2, 5, 2};
        um_device *dev = narrow_open(turn == 3 ? "guard" : "cpu", threads[turn], precision, level);
        outline(dev, model, &f, turn ? again : narrow);
        CHECK_MSG(!turn || memcmp(again, narrow, all) == 0, "%s: run %d differs from the first",
                  level->name, turn);
        um_device_close(&dev);
    }
    size_t both = 0, sum = 0;
    for (size_t i = 0; i < all; i++) {
        both += floats[i] & narrow[i];
        sum += (size_t)floats[i] + narrow[i];
    }
    CHECK(sum > 1000);
    double found = 2 * (double)both / (double)sum;
    CHECK_MSG(found >= dice, "%s: Dice %g", level->name, found);
    CHECK_MSG(memcmp(floats, narrow, all) != 0, "these are floats");
    um_free(floats);
    frames_close(&f);
}

#endif
