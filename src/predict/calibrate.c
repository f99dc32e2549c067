/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers of a network compute on bytes: it is run on some frames as it is, looked at, scored
 * layer by layer, and then tried. */
#include "base/file.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/record.h"
#include "model/convert.h"
#include "nn/quant.h"
#include "weights/view.h"

#include <math.h>
#include <string.h>
#include <ultramotion/ultramotion.h>

/* The gate. A box counts that the network on floats is sure of. What is wanted of many frames, 99 %
 * within 2 px, few do not show: where it held, 90 % were within 0.5 px. */
static const float SURE = 0.5f, BOX_PX = 2, MOST_PX = 0.5f;
static const double DICE = 0.99, BOXES = 0.99, MOST = 0.9;
enum { SHARE = 16 /* of the layers become floats at a time */ };

void um_calibration_settings_init(um_calibration_settings *s, size_t struct_size)
{
    static const um_calibration_settings defaults = {.struct_size = sizeof defaults};
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

struct job {
    const char *path;
    const um_convert_settings *convert;
    const um_calibration_settings *s;
    bool detector;
    um_quant *plan;
};

/* What the network finds in a frame. */
struct found {
    um_box best; /* score < 0: nothing */
    uint8_t *mask;
    size_t pixels;
};

static void free_found(struct found *f, int n)
{
    for (int i = 0; f && i < n; i++)
        um_free(f[i].mask);
    um_free(f);
}

static void UM_PRINTF(2, 3) say(const struct job *j, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    um_number_vprint(line, sizeof line, fmt, ap);
    va_end(ap);
    if (j->s->say)
        j->s->say(j->s->ctx, line);
}

static um_status detect(um_detector *d, const um_frame *frame, struct found *f)
{
    int n = 0;
    f->best.score = -1;
    return um_detector_run(d, frame, 0, &f->best, 1, &n);
}

static um_status outline(um_segmenter *s, const um_frame *frame, const float *box, struct found *f)
{
    float middle[4] = {(float)frame->width / 4, (float)frame->height / 4,
                       (float)frame->width * 3 / 4, (float)frame->height * 3 / 4};
    um_image image = {.struct_size = sizeof image,
                      .data = frame->pixels,
                      .layout = frame->channels == 3 ? UM_IMAGE_HWC : UM_IMAGE_HW,
                      .height = frame->height,
                      .width = frame->width,
                      .channels = frame->channels,
                      .row_bytes = frame->stride};
    um_values *mask = NULL;
    um_status st = um_run_segmentation(s, &image, box ? box : middle, UM_MASK_HOST, &mask);
    f->pixels = (size_t)frame->width * (size_t)frame->height;
    f->mask = st == UM_OK ? um_zalloc(f->pixels) : NULL;
    if (st == UM_OK)
        st = f->mask ? um_values_read(mask, f->mask) : um_fail(UM_ENOMEM, "mask");
    um_values_unref(&mask);
    return st;
}

/* The family that the new file will say, which decides what images its network sees; NULL = as the
 * old one says. */
static const char *family_of(const um_convert_settings *s)
{
    const char *family = NULL;
    for (int i = 0; s->metadata && s->metadata[i] && s->metadata[i + 1]; i += 2)
        if (strcmp(s->metadata[i], "architecture") == 0)
            family = s->metadata[i + 1];
    return family;
}

/* Run the network on every frame, its layers as `use` says; without a plan as it is. */
static um_status run(const struct job *j, um_quant *plan, enum um_quant_use use,
                     struct found *found)
{
    um_device_settings where;
    um_device *dev = NULL;
    um_detector *detector = NULL;
    um_segmenter *segmenter = NULL;
    um_device_settings_default(&where);
    where.name = "cpu";
    where.threads = j->s->threads;
    um_status st = um_device_open(&dev, &where);
    if (st == UM_OK && plan)
        st = um_quant_attach(plan, dev, use);
    if (st == UM_OK && j->detector) {
        um_detector_settings d;
        um_detector_settings_default(&d);
        d.input_width = j->convert->input_width;
        d.input_height = j->convert->input_height;
        d.queries = j->convert->queries;
        d.activation = j->convert->activation;
        d.fit = j->convert->fit;
        d.names = j->convert->names;
        st = um_detector_open(&detector, dev, j->path, &d);
    } else if (st == UM_OK) {
        st = um_segmenter_open(&segmenter, dev, j->path, j->convert->input_width,
                               family_of(j->convert));
    }
    for (int i = 0; i < j->s->count && st == UM_OK; i++) {
        struct found own = {.mask = NULL}, *f = found ? &found[i] : &own;
        st = j->detector
                 ? detect(detector, j->s->frames[i], f)
                 : outline(segmenter, j->s->frames[i], j->s->boxes ? j->s->boxes[i] : NULL, f);
        um_free(own.mask);
    }
    um_segmenter_close(&segmenter);
    um_detector_close(&detector);
    um_device_close(&dev);
    return st;
}

/* NAN where neither has a pixel, which says nothing. */
static double dice(const struct found *a, const struct found *b)
{
    size_t both = 0, all = 0;
    for (size_t i = 0; i < a->pixels; i++) {
        both += a->mask[i] & b->mask[i];
        all += (size_t)a->mask[i] + b->mask[i];
    }
    return all ? 2.0 * (double)both / (double)all : NAN;
}

static bool any_mask(const struct found *f, int n)
{
    for (int i = 0; i < n; i++)
        if (f[i].pixels && memchr(f[i].mask, 1, f[i].pixels))
            return true;
    return false;
}

static float distance(const um_box *a, const um_box *b)
{
    const float d[4] = {a->x0 - b->x0, a->y0 - b->y0, a->x1 - b->x1, a->y1 - b->y1};
    float most = 0;
    for (int i = 0; i < 4; i++)
        most = fabsf(d[i]) > most ? fabsf(d[i]) : most;
    return most;
}

/* Does what was found on bytes hold? `text`: the scores. */
static bool holds(const struct job *j, const struct found *floats, const struct found *bytes,
                  char *text, size_t size)
{
    int n = j->s->count, sure = 0, near = 0, close = 0, outlined = 0;
    double sum = 0;
    float score = 0, least = 0; /* all count, where the network on floats is sure of none */
    for (int i = 0; i < n; i++)
        least = floats[i].best.score >= SURE ? SURE : least;
    for (int i = 0; i < n; i++) {
        if (!j->detector) {
            double same = dice(&floats[i], &bytes[i]);
            outlined += !isnan(same);
            sum += isnan(same) ? 0 : same;
            continue;
        }
        float d = fabsf(floats[i].best.score - bytes[i].best.score);
        score = d > score ? d : score;
        if (floats[i].best.score < least)
            continue;
        sure++;
        near += distance(&floats[i].best, &bytes[i].best) <= BOX_PX;
        close += distance(&floats[i].best, &bytes[i].best) <= MOST_PX;
    }
    if (j->detector)
        um_number_print(
            text, size,
            "of %d best boxes with a score from %.1f on %d within %g px, %d within %g px; scores "
            "within %.3f",
            sure, (double)least, near, (double)BOX_PX, close, (double)MOST_PX, (double)score);
    else
        um_number_print(text, size, "mean Dice %.4f over %d frames with a mask", sum / outlined,
                        outlined);
    return j->detector ? near >= BOXES * sure && close >= MOST * sure : sum >= DICE * outlined;
}

static struct um_quant_layer *worst(um_quant *plan)
{
    struct um_quant_layer *least = NULL;
    for (int i = 0; i < um_quant_count(plan); i++) {
        struct um_quant_layer *l = um_quant_at(plan, i);
        if (l->bytes && (!least || l->snr < least->snr))
            least = l;
    }
    return least;
}

static int on_bytes(um_quant *plan)
{
    int n = 0;
    for (int i = 0; i < um_quant_count(plan); i++)
        n += um_quant_at(plan, i)->bytes;
    return n;
}

/* Layers to floats, the worst first, until the gate holds. */
static um_status settle(const struct job *j, const struct found *floats, char *text, size_t size)
{
    int all = um_quant_count(j->plan);
    for (;;) {
        struct found *bytes = um_array((size_t)j->s->count, sizeof *bytes);
        um_status st = bytes ? UM_OK : um_fail(UM_ENOMEM, "results of calibration");
        if (st == UM_OK)
            st = run(j, j->plan, UM_QUANT_APPLY, bytes);
        bool good = st == UM_OK && holds(j, floats, bytes, text, size);
        if (st == UM_OK)
            say(j, "%d of %d layers on bytes: %s", on_bytes(j->plan), all, text);
        free_found(bytes, j->s->count);
        if (st != UM_OK || good)
            return st;
        for (int i = 0; i < (all + SHARE - 1) / SHARE; i++) {
            struct um_quant_layer *l = worst(j->plan);
            if (2 * (on_bytes(j->plan) - 1) < all)
                return um_fail(UM_EUNSUPPORTED,
                               "%s: with half of its layers on bytes: %s, want %s; the worst of "
                               "them is %s, %.1f dB",
                               j->path, text,
                               j->detector ? "99 and 90 % of them" : "a mean of 0.99", l->name,
                               l->snr);
            l->bytes = false;
            say(j, "%s stays floats: %.1f dB", l->name, l->snr);
        }
    }
}

static um_status write_model(const struct job *j, const char *out, const char *plan,
                             const char *scores)
{
    const char *const own[] = {"int8", plan, "int8_scores", scores}, *const *more =
                                                                         j->convert->metadata;
    um_convert_settings with = *j->convert;
    size_t n = 0;
    while (more && more[n])
        n += more[n + 1] ? 2 : 1; /* a key without value is refused */
    const char **pair = um_array(n + 5, sizeof *pair);
    if (!pair)
        return um_fail(UM_ENOMEM, "metadata");
    memcpy(pair, own, sizeof own);
    if (n)
        memcpy(pair + 4, more, n * sizeof *pair);
    with.metadata = pair;
    um_status st = um_model_convert(j->path, out, &with);
    um_free(pair);
    return st;
}

static um_status calibrate(struct job *j, const char *out)
{
    char scores[160], *plan = NULL;
    struct found *floats = um_array((size_t)j->s->count, sizeof *floats);
    um_status st = floats ? um_quant_open(&j->plan) : um_fail(UM_ENOMEM, "results of calibration");
    if (st == UM_OK)
        st = run(j, NULL, UM_QUANT_APPLY, floats);
    if (st == UM_OK && !j->detector && !any_mask(floats, j->s->count))
        st = um_fail(UM_EINVAL, "%s: outlines nothing in %d frames: want some with what it is for",
                     j->path, j->s->count);
    if (st == UM_OK)
        st = run(j, j->plan, UM_QUANT_CHANNELS, NULL);
    if (st == UM_OK) {
        um_quant_find_channels(j->plan);
        st = run(j, j->plan, UM_QUANT_RANGES, NULL);
    }
    if (st == UM_OK) {
        um_quant_find_ranges(j->plan);
        st = run(j, j->plan, UM_QUANT_SCORES, NULL);
    }
    if (st == UM_OK) {
        um_quant_find_scores(j->plan);
        for (int i = 0; i < um_quant_count(j->plan); i++) {
            const struct um_quant_layer *l = um_quant_at(j->plan, i);
            say(j, "%6.1f dB  [%g, %g]  %s", l->snr, (double)l->range.lo, (double)l->range.hi,
                l->name);
        }
        st = settle(j, floats, scores, sizeof scores);
    }
    if (st == UM_OK)
        st = um_quant_print(j->plan, &plan);
    if (st == UM_OK)
        st = write_model(j, out, plan, scores);
    um_free(plan);
    um_quant_close(&j->plan);
    free_found(floats, j->s->count);
    return st;
}

/* Before minutes of work, what would fail behind it. */
static um_status check_target(const char *path, const char *out, const um_convert_settings *how)
{
    struct um_part part;
    char *inside = NULL; /* a folder */
    if (how->upstream)
        return um_fail(UM_EINVAL, "um_model_calibrate: a file of upstream's has no metadata, and "
                                  "int8 is nothing else");
    um_status st = um_folder_resolve(path, &inside);
    if (st == UM_OK)
        st = um_convert_check(inside ? inside : path, out, how);
    um_free(inside);
    if (st == UM_OK)
        st = um_part_open(&part, out);
    if (st == UM_OK)
        um_part_close(&part, UM_EOF);
    return st;
}

um_status um_model_calibrate(const char *path, const char *out, const um_convert_settings *convert,
                             const um_calibration_settings *settings)
{
    um_convert_settings how;
    um_calibration_settings s;
    um_model_info info = {.struct_size = sizeof info};
    um_convert_settings_default(&how);
    um_calibration_settings_default(&s);
    if (!path || !out || !settings)
        return um_fail(UM_EINVAL, "um_model_calibrate: want an input, an output and settings");
    um_status st = um_record_in(&s, sizeof s, settings, "um_calibration_settings");
    if (st == UM_OK)
        st = um_record_in(&how, sizeof how, convert, "um_convert_settings");
    if (st == UM_OK && (s.count < 1 || !s.frames))
        st = um_fail(UM_EINVAL, "um_model_calibrate: want at least one frame");
    if (st == UM_OK)
        st = um_model_inspect(path, &info);
    if (st == UM_OK && info.kind == UM_MODEL_UNKNOWN)
        st = um_fail(UM_EUNSUPPORTED, "%s: no network that is known here", path);
    if (st == UM_OK)
        st = check_target(path, out, &how);
    struct job j = {
        .path = path, .convert = &how, .s = &s, .detector = info.kind == UM_MODEL_DFINE};
    return st == UM_OK ? calibrate(&j, out) : st;
}
