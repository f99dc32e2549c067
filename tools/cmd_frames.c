/* SPDX-License-Identifier: Apache-2.0 */
/* detect, segment: one network on each frame of a source. */
#include "cli.h"
#include "clock.h"
#include "json.h"
#include "kpi.h"
#include "outputs.h"
#include "recording.h"
#include "stop.h"
#include "tell.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The loop. */
struct each {
    const struct options *o;
    um_source *source;
    struct engine engine; /* one network of it */
    int crop[4], find;    /* of each image, w 0: all of it; with `find` as found so far */
    int width, height;    /* of the last image, before that */
    uint64_t frames, unreadable;
    bool shows; /* a terminal is told how many */
};

static void count_frame(struct each *e)
{
    e->frames++;
    if (e->shows)
        tell_progress(e->frames, um_source_length(e->source), "");
}

/* A frame that cannot be used, as the last error says: counted, with --strict the end. */
static void pass_over(struct each *e, const um_frame *frame, int *code)
{
    const char *source = frame ? frame->source : "";
    e->unreadable++;
    fprintf(stderr, "ultramotion: ");
    cli_put(stderr, source);
    fprintf(stderr, "%s%s\n", source[0] ? ": " : "", um_last_error());
    if (e->o->strict)
        *code = EXIT_FAILED;
}

/* The next readable frame; NULL at the end. *code changes with --strict. */
static um_frame *next_frame(struct each *e, int *code)
{
    um_frame *frame = NULL;
    while (!stop_requested()) {
        um_status st = um_source_read(e->source, &frame);
        if (st == UM_EOF)
            return NULL;
        if (st == UM_OK) {
            if (e->find && (e->width != frame->width || e->height != frame->height))
                memset(e->crop, 0, sizeof e->crop);
            e->width = frame->width;
            e->height = frame->height;
            if (e->find)
                um_frame_find_image(frame, e->crop);
            st = cli_crop_frame(&frame, e->crop);
        }
        if (st == UM_OK)
            return frame;
        pass_over(e, frame, code);
        um_frame_unref(&frame);
        if (*code != EXIT_DONE)
            return NULL;
    }
    return NULL;
}

static int no_frames(const struct each *e, int code)
{
    if (code == EXIT_DONE && !e->frames && !stop_requested()) {
        cli_say_no_frame(e->o, e->unreadable);
        return EXIT_FAILED;
    }
    if ((e->shows && e->frames) || (!e->o->quiet && e->unreadable))
        fprintf(stderr, "%llu frame%s, %llu unreadable\n", (unsigned long long)e->frames,
                plural(e->frames), (unsigned long long)e->unreadable);
    return code;
}

/* All but the network. */
static um_status open_each(struct each *e)
{
    bool lines = isatty(1) && !e->o->sinks; /* are seen there, and say enough */
    e->shows = isatty(2) && !e->o->quiet && !lines;
    stop_catch();
    um_status st = cli_open_device(&e->engine.dev, e->o);
    if (st == UM_OK)
        st = cli_open_source(&e->source, e->o);
    if (st == UM_OK)
        st = cli_check_outputs(e->o, e->source);
    if (st == UM_OK)
        stop_ends_source(e->source);
    return st;
}

static void close_each(struct each *e)
{
    stop_ends_source(NULL);
    cli_close_engine(&e->engine);
    um_source_close(&e->source);
}

static double clamp(double v, double hi)
{
    return v < 0 ? 0 : v > hi ? hi : v;
}

struct found {
    um_box box[MAX_QUERIES];
    int n, label;                /* of the class to print, -1 = all */
    const um_detector *detector; /* that knows the classes' names */
};

static void print_boxes(const struct each *e, const um_frame *f, const struct found *found,
                        FILE *out)
{
    bool first = true;
    fprintf(out, "{\"frame_id\":%llu,\"ts\":%.17g,\"source\":", (unsigned long long)f->id, f->ts);
    json_string(out, f->source);
    fprintf(out, ",\"boxes\":[");
    for (int i = 0; i < found->n; i++) {
        const um_box *b = &found->box[i];
        if (found->label >= 0 && b->label != found->label)
            continue;
        fprintf(out, "%s{\"box_xyxy\":[%.9g,%.9g,%.9g,%.9g],\"score\":%.9g,\"label\":%d,\"name\":",
                first ? "" : ",", clamp(b->x0 + e->crop[0], e->width),
                clamp(b->y0 + e->crop[1], e->height), clamp(b->x1 + e->crop[0], e->width),
                clamp(b->y1 + e->crop[1], e->height), (double)b->score, b->label);
        json_string(out, um_detector_class_name(found->detector, b->label));
        fprintf(out, "}");
        first = false;
    }
    fprintf(out, "]}");
}

/* UM_EOF when the reader has left, UM_AGAIN when it took nothing after a signal. */
static um_status write_boxes(const struct each *e, const um_frame *f, const struct found *found,
                             um_lines *lines)
{
    char *line = NULL;
    FILE *out = text_open(&line);
    if (out)
        print_boxes(e, f, found, out);
    um_status st = text_close(out, &line) ? um_lines_write(lines, line, stop_fd())
                                          : um_set_error(UM_ENOMEM, "a line of boxes");
    free(line);
    return st;
}

int command_detect(const struct options *o)
{
    um_lines *lines = NULL;
    struct each e = {.o = o};
    static struct found found; /* too large for a small stack */
    um_frame *frame;
    int code = EXIT_DONE;
    um_status st = open_each(&e);
    if (st == UM_OK)
        st = cli_open_detector(&e.engine.detector, e.engine.dev, o);
    um_detector *detector = e.engine.detector;
    if (st == UM_OK)
        st = cli_class(o, detector, &found.label);
    if (st == UM_OK && !cli_crop(o, e.crop, &e.find))
        st = UM_EINVAL;
    if (st != UM_OK)
        code = cli_exit(st);
    else if ((o->dump && (st = um_detector_keep_taps(detector)) != UM_OK) ||
             (st = um_lines_open(&lines, "-")) != UM_OK)
        code = cli_fail(st);
    else {
        found.detector = detector;
        cli_announce(o, e.engine.dev, detector, NULL);
    }
    while (code == EXIT_DONE && (frame = next_frame(&e, &code))) {
        st = um_detector_run(detector, frame, o->conf, found.box,
                             (int)(sizeof found.box / sizeof *found.box), &found.n);
        count_frame(&e);
        if (st == UM_OK)
            st = write_boxes(&e, frame, &found, lines);
        if (st == UM_EOF)
            stop_request();
        else if (st != UM_OK)
            code = cli_fail(st);
        um_frame_unref(&frame);
    }
    code = no_frames(&e, code);
    if (code == EXIT_DONE && o->dump && e.frames &&
        (st = um_detector_dump(detector, o->dump)) != UM_OK)
        code = cli_fail(st);
    um_lines_close(&lines);
    close_each(&e);
    return code;
}

/* ---- segment ---- */

struct prompt_list {
    float box[4], xy[2 * MAX_LIST];
    int label[MAX_LIST];
    um_prompts prompts;
};

static bool read_prompts(const struct options *o, struct prompt_list *l)
{
    l->prompts = (um_prompts){.struct_size = sizeof l->prompts,
                              .points = l->xy,
                              .labels = l->label,
                              .n_points = o->points,
                              .multimask = o->multimask};
    for (int i = 0; i < 4; i++)
        l->box[i] = (float)o->box[i];
    if (o->has_box)
        l->prompts.box = l->box;
    for (int i = 0; i < o->points; i++) {
        double v[3];
        if (!options_numbers(o->point[i], 3, v) || (v[2] != 0 && v[2] != 1))
            return cli_usage("--point: \"%s\" is not X,Y,LABEL, with LABEL 1 for object or 0 for "
                             "background",
                             o->point[i]),
                   false;
        l->xy[2 * i] = (float)v[0];
        l->xy[2 * i + 1] = (float)v[1];
        l->label[i] = (int)v[2];
    }
    if (!o->has_box && !o->points)
        return cli_usage("segment: give --box X0,Y0,X1,Y1 or --point X,Y,LABEL"), false;
    l->prompts.as_numpy = cli_mask_mode(o);
    return true;
}

/* The copies since then. */
static um_transfers transfers_since(const um_device *dev, const um_transfers *then)
{
    um_transfers t;
    um_device_transfers(dev, &t);
    t.up -= then->up;
    t.down -= then->down;
    t.waits -= then->waits;
    t.setup -= then->setup;
    t.up_bytes -= then->up_bytes;
    t.down_bytes -= then->down_bytes;
    return t;
}

/* `pixels` as the packet's bits, with its area, box and middle. */
static void put_mask(um_packet *k, const uint8_t *pixels, uint8_t *bits)
{
    size_t row = ((size_t)k->width + 31) / 32 * 4;
    double sx = 0, sy = 0;
    int box[4] = {k->width, k->height, 0, 0};
    memset(bits, 0, row * (size_t)k->height);
    for (int y = 0; y < k->height; y++)
        for (int x = 0; x < k->width; x++) {
            if (!pixels[(size_t)y * (size_t)k->width + (size_t)x])
                continue;
            bits[(size_t)y * row + (size_t)x / 8] |= (uint8_t)(1 << x % 8);
            k->mask_area_px++;
            sx += x;
            sy += y;
            box[0] = x < box[0] ? x : box[0];
            box[1] = y < box[1] ? y : box[1];
            box[2] = x + 1 > box[2] ? x + 1 : box[2];
            box[3] = y + 1;
        }
    k->has_mask = 1;
    k->bits = bits;
    if (k->mask_area_px)
        memcpy(k->mask_box, box, sizeof box);
    k->centroid[0] = k->mask_area_px ? (float)(sx / k->mask_area_px) : NAN;
    k->centroid[1] = k->mask_area_px ? (float)(sy / k->mask_area_px) : NAN;
}

/* The best mask of a prediction as a packet, so that sinks can write it. bits: (w+31)/32*4*h bytes.
 */
static um_status mask_packet(const struct options *o, const um_segmenter *segmenter,
                             const um_frame *f, const um_prediction *pred,
                             const um_transfers *before, double ms, uint8_t *pixels, uint8_t *bits,
                             um_packet **out)
{
    int best = 0;
    for (int i = 1; i < pred->count; i++)
        if (pred->iou[i] > pred->iou[best])
            best = i;
    um_status st = um_values_read(pred->mask[best], pixels);
    if (st != UM_OK)
        return st;
    um_packet k = {.struct_size = sizeof k,
                   .frame_id = f->id,
                   .ts = f->ts,
                   .source = f->source,
                   .state = UM_STATE_VISIBLE,
                   .has_box = o->has_box,
                   .has_pose = f->has_pose,
                   .has_spacing = f->has_spacing,
                   .width = f->width,
                   .height = f->height,
                   .crop = {0, 0, f->width, f->height},
                   .score = pred->iou[best],
                   .iou = pred->iou[best],
                   .as_numpy = um_values_host(pred->mask[best]) != NULL,
                   .ms = {.segment = ms, .total = ms}};
    memcpy(k.pose, f->pose, sizeof k.pose);
    memcpy(k.spacing_mm, f->spacing_mm, sizeof k.spacing_mm);
    const um_device *dev = um_segmenter_device(segmenter);
    snprintf(k.device, sizeof k.device, "%s", um_device_name(dev));
    snprintf(k.precision, sizeof k.precision, "%s", um_device_precision(dev));
    snprintf(k.precision_reason, sizeof k.precision_reason, "%s", um_device_precision_reason(dev));
    snprintf(k.segmenter_sha256, sizeof k.segmenter_sha256, "%s", um_segmenter_sha256(segmenter));
    for (int i = 0; i < 4 && o->has_box; i++)
        k.box[i] = (float)clamp(o->box[i], i % 2 ? f->height : f->width);
    put_mask(&k, pixels, bits);
    k.transfers = transfers_since(dev, before);
    return um_packet_create(out, &k, NULL, 0);
}

/* A click beside the image would be computed all the same, and mean nothing. */
static um_status points_lie_within(const struct options *o, const struct prompt_list *l,
                                   const um_frame *f)
{
    char text[160];
    for (int i = 0; i < o->points; i++) {
        const float *xy = &l->xy[2 * i];
        if (xy[0] >= 0 && xy[1] >= 0 && xy[0] <= (float)f->width && xy[1] <= (float)f->height)
            continue;
        snprintf(text, sizeof text, "--point %g,%g is not in the %dx%d image", (double)xy[0],
                 (double)xy[1], f->width, f->height);
        return um_set_error(UM_EINVAL, text);
    }
    return UM_OK;
}

static um_status segment_frame(const struct options *o, um_segmenter *segmenter,
                               um_predictor *predictor, const struct prompt_list *l,
                               const um_frame *f, um_packet **packet)
{
    um_prediction pred = {.struct_size = sizeof pred};
    uint8_t *mask = malloc((size_t)f->width * (size_t)f->height),
            *bits = malloc((size_t)(f->width + 31) / 32 * 4 * (size_t)f->height);
    um_image image = {.struct_size = sizeof image,
                      .data = f->pixels,
                      .type = UM_IMAGE_U8,
                      .layout = UM_IMAGE_HWC,
                      .height = f->height,
                      .width = f->width,
                      .channels = f->channels,
                      .row_bytes = f->stride};
    um_status st =
        mask && bits ? points_lie_within(o, l, f) : um_set_error(UM_ENOMEM, "masks of a frame");
    double started = seconds_now();
    um_transfers before;
    um_device_transfers(um_segmenter_device(segmenter), &before);
    if (st == UM_OK && (st = um_predictor_set_image(predictor, &image)) == UM_EINVAL)
        st = UM_EFORMAT; /* the image is too thin: no argument is wrong */
    if (st == UM_OK)
        st = um_predictor_predict(predictor, &l->prompts, &pred);
    if (st == UM_OK)
        st = um_predictor_scores(predictor, pred.iou);
    if (st == UM_OK)
        st = mask_packet(o, segmenter, f, &pred, &before, 1e3 * (seconds_now() - started), mask,
                         bits, packet);
    um_prediction_close(&pred);
    free(mask);
    free(bits);
    return st;
}

/* The prompt means nothing in this image, or nothing goes on: of which one is said. */
static int fail_at(const um_frame *f, um_status st)
{
    char text[1400];
    snprintf(text, sizeof text, "%.400s: %s", f->source, um_last_error());
    return cli_fail(um_set_error(st, text));
}

int command_segment(const struct options *o)
{
    um_predictor *predictor = NULL;
    struct outputs out = {.n = 0};
    struct each e = {.o = o};
    struct prompt_list prompts;
    um_frame *frame;
    int code = EXIT_DONE, written = EXIT_DONE;
    if (!read_prompts(o, &prompts))
        return EXIT_USAGE;
    um_status st = open_each(&e);
    if (st == UM_OK)
        st = cli_open_segmenter(&e.engine.segmenter, e.engine.dev, o);
    um_segmenter *segmenter = e.engine.segmenter;
    if (st != UM_OK)
        code = cli_exit(st);
    else if ((st = um_predictor_open(&predictor, segmenter)) != UM_OK ||
             (o->dump && (st = um_predictor_keep_taps(predictor)) != UM_OK) ||
             (st = outputs_open(o, e.source, NULL, &out)) != UM_OK ||
             (st = recording_keep(o, &e.engine)) != UM_OK)
        code = cli_fail(st);
    else {
        stop_ends_sinks(out.sink, out.n);
        cli_announce(o, e.engine.dev, NULL, segmenter);
        if (o->kpi)
            um_segmenter_set_kpi(segmenter, kpi_line, NULL);
    }
    while (code == EXIT_DONE && (frame = next_frame(&e, &code))) {
        um_packet *packet = NULL;
        bool left = true;
        st = segment_frame(o, segmenter, predictor, &prompts, frame, &packet);
        if (st == UM_OK) {
            written =
                outputs_write(&out, packet, frame, um_source_frame_name(e.source), written, &left);
            count_frame(&e);
        } else if (st == UM_EFORMAT) {
            pass_over(&e, frame, &code);
        } else {
            code = fail_at(frame, st);
        }
        if (!left)
            stop_request();
        const um_packet *done = packet;
        um_packet_unref(&done);
        um_frame_unref(&frame);
    }
    code = no_frames(&e, code);
    if (code == EXIT_DONE && o->dump && e.frames &&
        (st = um_predictor_dump(predictor, o->dump)) != UM_OK)
        code = cli_fail(st);
    stop_ends_sinks(NULL, 0);
    code = outputs_close(&out, code == EXIT_DONE ? written : code);
    um_predictor_close(&predictor);
    close_each(&e);
    return code;
}
