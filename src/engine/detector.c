/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/detector.h"

#include "base/mem.h"
#include "base/record.h"
#include "engine/dump.h"
#include "nn/score.h"
#include "nn/track.h"
#include "weights/labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

/* The names of a text file, else those that the model's file or its config.json has. */
static um_status read_names(um_detector *d, const um_weights *file, const char *path)
{
    int classes = um_dfine_info(d->net)->classes;
    const char *text = um_weights_fact(file, "classes", NULL);
    d->names = um_array((size_t)classes, sizeof *d->names);
    if (!d->names)
        return um_fail(UM_ENOMEM, "names of %d classes", classes);
    if (path)
        return um_labels_read_file(path, d->names, classes);
    um_status st = text ? um_labels_read(text, d->names, classes) : UM_OK;
    return st == UM_OK ? st : um_fail_in(st, um_weights_path(file));
}

static const um_detector_settings DEFAULTS = {
    .struct_size = sizeof DEFAULTS, .activation = "auto", .fit = "auto"};

void um_detector_settings_init(um_detector_settings *s, size_t struct_size)
{
    um_record_init(s, struct_size, &DEFAULTS, sizeof DEFAULTS);
}

static um_status open_model(um_detector **out, um_device *device, const um_weights *file,
                            const struct um_dfine_wish *wish, const char *names)
{
    um_detector *d = um_zalloc(sizeof *d);
    if (!d)
        return um_fail(UM_ENOMEM, "detector");
    pthread_mutex_init(&d->own.lock, NULL);
    atomic_init(&d->refs, 1);
    d->dev = um_device_ref(device);
    memcpy(d->sha256, um_weights_sha256(file), sizeof d->sha256);
    um_status st = um_dfine_open(&d->net, device, file, wish);
    if (st == UM_OK)
        st = read_names(d, file, names);
    um_detect_open(&d->own.session, d, false);
    if (st != UM_OK)
        um_detector_close(&d);
    *out = d;
    return st;
}

/* The file of this name; data: what is in it. */
static um_status open_file(um_detector **out, um_device *device, const char *name, const void *data,
                           size_t size, const um_detector_settings *settings)
{
    um_weights *file = NULL;
    um_detector_settings own = DEFAULTS;
    struct um_dfine_wish wish;
    if (out)
        *out = NULL;
    if (!out || !device)
        return um_fail(UM_EINVAL, "um_detector_open: %s is NULL", out ? "device" : "out");
    um_status st = um_record_in(&own, sizeof own, settings, "um_detector_settings");
    if (st == UM_OK)
        st = um_dfine_wish_read(&wish, &own);
    if (st == UM_OK)
        st = data ? um_weights_open_memory(&file, data, size, name) : um_weights_open(&file, name);
    if (st == UM_OK)
        st = open_model(out, device, file, &wish, own.names);
    um_weights_close(&file);
    return st;
}

um_status um_detector_open(um_detector **out, um_device *device, const char *path,
                           const um_detector_settings *settings)
{
    return open_file(out, device, path, NULL, 0, settings);
}

um_status um_detector_open_memory(um_detector **out, um_device *device, const void *data,
                                  size_t size, const char *label,
                                  const um_detector_settings *settings)
{
    if (out)
        *out = NULL;
    return data ? open_file(out, device, label, data, size, settings)
                : um_fail(UM_EINVAL, "um_detector_open_memory: data is NULL");
}

um_detector *um_detector_ref(um_detector *detector)
{
    if (detector)
        atomic_fetch_add_explicit(&detector->refs, 1, memory_order_relaxed);
    return detector;
}

void um_detector_close(um_detector **detector)
{
    um_detector *d = detector ? *detector : NULL;
    if (!d)
        return;
    *detector = NULL;
    if (atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
        return;
    um_front_close(&d->own.front);
    um_hostbuf_close(&d->own.result);
    um_event_close(&d->own.done, d->dev);
    um_detect_close(&d->own.session);
    um_free(d->own.boxes);
    pthread_mutex_destroy(&d->own.lock);
    for (int i = 0; d->names && i < um_dfine_info(d->net)->classes; i++)
        um_free(d->names[i]);
    um_free(d->names);
    um_dfine_close(&d->net);
    um_device_close(&d->dev);
    um_free(d);
}

const char *um_detector_class_name(const um_detector *detector, int label)
{
    bool known = detector && label >= 0 && label < um_dfine_info(detector->net)->classes;
    return known ? detector->names[label] : NULL;
}

int um_detector_classes(const um_detector *detector)
{
    return detector ? um_dfine_info(detector->net)->classes : 0;
}

int um_detector_input_size(const um_detector *detector)
{
    return detector ? um_dfine_info(detector->net)->input_w : 0;
}

void um_detector_input(const um_detector *detector, int *width, int *height)
{
    const struct um_dfine_info *info = detector ? um_dfine_info(detector->net) : NULL;
    if (width)
        *width = info ? info->input_w : 0;
    if (height)
        *height = info ? info->input_h : 0;
}

int um_detector_queries(const um_detector *detector)
{
    return detector ? um_dfine_info(detector->net)->queries : 0;
}

const char *um_detector_warning(const um_detector *detector)
{
    return detector ? um_dfine_info(detector->net)->warning : NULL;
}

const char *um_detector_architecture(const um_detector *detector)
{
    return detector ? um_dfine_info(detector->net)->architecture : "";
}

const char *um_detector_sha256(const um_detector *detector)
{
    return detector ? detector->sha256 : "";
}

um_device *um_detector_device(const um_detector *detector)
{
    return detector ? detector->dev : NULL;
}

int um_detector_channels(const um_detector *d, int channels)
{
    const struct um_dfine_info *info = um_dfine_info(d->net);
    return info->channels == 1 || info->gray ? 1 : channels;
}

int um_detector_channels_of(const um_detector *d, const um_frame *frame, int x0, int y0, int w,
                            int h)
{
    return um_detector_channels(d, frame->channels) == 1 ? 1
                                                         : um_front_channels(frame, x0, y0, w, h);
}

/* ---- a session ---- */

void um_detect_open(um_detect *s, const um_detector *model, bool keep_taps)
{
    *s = (um_detect){.model = model, .keep_taps = keep_taps};
}

void um_detect_close(um_detect *s)
{
    for (int i = 0; i < 2; i++) {
        um_tape_close(&s->path[i].tape);
        um_buf_close(&s->path[i].input);
    }
}

um_status um_detect_path(um_detect *s, int channels, struct um_detect_path **out)
{
    const um_detector *d = s->model;
    struct um_detect_path *p = &s->path[channels == 3];
    int w = um_dfine_info(d->net)->input_w, h = um_dfine_info(d->net)->input_h;
    size_t bytes = (size_t)w * (size_t)h * (size_t)channels * um_dtype_size(d->dev->precision);
    um_tape *t = NULL;
    *out = p;
    if (p->tape)
        return UM_OK;
    um_status st = p->input ? UM_OK : um_buf_open(&p->input, d->dev, bytes, "detector input");
    if (st == UM_OK)
        st = um_tape_open(&t, d->dev, "detect");
    if (st != UM_OK)
        return st;
    if (s->keep_taps)
        um_tape_keep_taps(t);
    p->out = um_dfine_forward(d->net, t,
                              um_tape_buffer(t, p->input, 0, d->dev->precision, h, w, channels));
    st = um_tape_compile(t);
    if (st != UM_OK)
        um_tape_close(&t);
    p->tape = t;
    return st;
}

/* Where a w x h image lies in the input. A letterbox is upstream's tools/inference/onnx_inf.py:
 * as large as it fits, both sides cut to whole pixels, in the middle. */
static struct um_margin place(const struct um_dfine_info *info, int w, int h)
{
    struct um_margin m = {0, 0, info->input_h, info->input_w};
    if (!info->letterbox)
        return m;
    double x = (double)info->input_w / w, y = (double)info->input_h / h, ratio = x < y ? x : y;
    m.inner_w = (int)(w * ratio);
    m.inner_h = (int)(h * ratio);
    m.inner_w = m.inner_w < 1 ? 1 : m.inner_w; /* an image of one row */
    m.inner_h = m.inner_h < 1 ? 1 : m.inner_h;
    m.left = (info->input_w - m.inner_w) / 2;
    m.top = (info->input_h - m.inner_h) / 2;
    return m;
}

struct um_front_target um_detect_target(const um_detect *s, const struct um_detect_path *path,
                                        int w, int h)
{
    static _Thread_local float lut[3][256];
    const struct um_dfine_info *info = um_dfine_info(s->model->net);
    struct um_margin m = place(info, w, h);
    um_dfine_lut(lut);
    return (struct um_front_target){.input = path->input,
                                    .size_h = info->input_h,
                                    .size_w = info->input_w,
                                    .c = path == &s->path[1] ? 3 : 1,
                                    .new_h = m.inner_h,
                                    .new_w = m.inner_w,
                                    .letterbox = info->letterbox,
                                    .top = m.top,
                                    .left = m.left,
                                    .smooth = info->smooth,
                                    .lut = (const float(*)[256])lut};
}

void um_detector_tell(const um_detector *d, struct um_frame_header *header)
{
    const struct um_dfine_info *info = um_dfine_info(d->net);
    header->nms = info->nms;
    header->presence = info->presence.boxes;
    header->presence_half = info->presence.half;
    struct um_margin m = place(info, (int)header->width, (int)header->height);
    if (!info->letterbox)
        return;
    header->box_scale[0] = (float)((double)info->input_w / m.inner_w);
    header->box_scale[1] = (float)((double)info->input_h / m.inner_h);
    header->box_shift[0] = (float)(-(double)m.left / m.inner_w);
    header->box_shift[1] = (float)(-(double)m.top / m.inner_h);
}

uint64_t um_detect_device_bytes(const um_detect *s)
{
    uint64_t n = 0;
    for (int i = 0; i < 2; i++)
        if (s->path[i].tape)
            n += um_tape_arena_bytes(s->path[i].tape) + s->path[i].input->size;
    return n;
}

/* ---- all boxes of one frame ---- */

static um_status run_front(um_detector *d, const um_frame *frame, int channels,
                           struct um_detect_path *path)
{
    struct um_front *f = &d->own.front;
    struct um_frame_header header = {.frame_id = frame->id,
                                     .width = (uint32_t)frame->width,
                                     .height = (uint32_t)frame->height,
                                     .label = -1};
    um_status st = UM_OK;
    if (!f->tape || f->w != frame->width || f->h != frame->height || f->c != channels) {
        um_front_close(f);
        struct um_front_target target =
            um_detect_target(&d->own.session, path, frame->width, frame->height);
        st = um_front_open(f, d->dev, frame->width, frame->height, channels, &target, 1, 1,
                           &um_dfine_info(d->net)->gain, false);
        if (st != UM_OK)
            um_front_close(f);
    }
    if (st != UM_OK)
        return st;
    st = um_front_fill(f, 0, &header, frame, 0, 0);
    if (st == UM_OK)
        st = um_front_upload(f, 0, UM_STAGE_UPLOAD);
    return st == UM_OK ? um_front_run(f) : st;
}

static um_status fetch(um_detector *d, struct um_detect_path *path, size_t logits_bytes,
                       size_t boxes_bytes)
{
    um_buf *buf = NULL;
    size_t off = 0;
    um_tape_locate(path->tape, path->out.logits, &buf, &off);
    um_status st = um_download(d->dev, UM_QUEUE_MAIN, d->own.result, 0, buf, off, logits_bytes,
                               UM_STAGE_DETECT, "logits");
    if (st == UM_OK) {
        um_tape_locate(path->tape, path->out.boxes, &buf, &off);
        st = um_download(d->dev, UM_QUEUE_MAIN, d->own.result, logits_bytes, buf, off, boxes_bytes,
                         UM_STAGE_DETECT, "boxes");
    }
    if (st == UM_OK)
        st = um_event_record(d->dev, UM_QUEUE_MAIN, d->own.done);
    return st == UM_OK ? um_event_sync(d->dev, d->own.done, UM_STAGE_DETECT, "boxes") : st;
}

static int best_first(const void *a, const void *b)
{
    const um_box *p = a, *q = b;
    return p->score < q->score ? 1 : p->score > q->score ? -1 : 0;
}

/* Whatever can fail comes before the first command: no copy may stay in flight. */
static um_status reserve(um_detector *d, size_t bytes, size_t pairs)
{
    struct um_detector_own *own = &d->own;
    um_status st = own->result ? UM_OK : um_hostbuf_open(&own->result, d->dev, bytes);
    if (st == UM_OK && !own->done)
        st = um_event_open(&own->done, d->dev);
    if (st == UM_OK && !own->boxes && !(own->boxes = um_array(pairs, sizeof *own->boxes)))
        st = um_fail(UM_ENOMEM, "%zu boxes", pairs);
    return st;
}

static double iou(const um_box *a, const um_box *b)
{
    return um_track_iou((const float[]){a->x0, a->y0, a->x1, a->y1},
                        (const float[]){b->x0, b->y0, b->x1, b->y1});
}

/* Of boxes, best first, those that overlap no better one of their class, at most `most`; how many.
 */
static int suppress(um_box *boxes, int n, int most, float nms)
{
    int kept = 0;
    for (int i = 0; i < n && kept < most; i++) {
        bool taken = false;
        for (int k = 0; k < kept && nms > 0 && !taken; k++)
            taken = boxes[k].label == boxes[i].label && iou(&boxes[k], &boxes[i]) > (double)nms;
        if (!taken)
            boxes[kept++] = boxes[i];
    }
    return kept;
}

/* Every pair of a query and a class with a score of at least conf, best first, less what
 * overlaps; how many. UM_ENUMERIC if a number of them is none. */
static um_status read_boxes(um_detector *d, const um_frame *frame, float conf, int *count)
{
    int q = um_dfine_info(d->net)->queries, c = um_dfine_info(d->net)->classes;
    const float *logits = d->own.result->data, *b = logits + (size_t)q * (size_t)c;
    float w = (float)frame->width, h = (float)frame->height;
    struct um_frame_header header = {.width = (uint32_t)frame->width,
                                     .height = (uint32_t)frame->height};
    um_detector_tell(d, &header);
    int n = 0;
    for (int i = 0; i < q * c; i++) {
        float score = um_box_score(logits[i]);
        const float *p = b + 4 * (i / c);
        if (isnan(logits[i]))
            return um_fail(UM_ENUMERIC,
                           "frame %llu: the detector's score of query %d, class %d is not a number",
                           (unsigned long long)frame->id, i / c, i % c);
        if (!(score >= conf))
            continue;
        float side[4] = {p[0] - p[2] / 2, p[1] - p[3] / 2, p[0] + p[2] / 2, p[1] + p[3] / 2};
        for (int k = 0; k < 4 && header.box_scale[0] != 0; k++)
            side[k] = side[k] * header.box_scale[k % 2] + header.box_shift[k % 2];
        um_box box = {side[0] * w, side[1] * h, side[2] * w, side[3] * h, score, i % c};
        if (!isfinite(box.x0) || !isfinite(box.y0) || !isfinite(box.x1) || !isfinite(box.y1))
            return um_fail(UM_ENUMERIC, "frame %llu: the detector's box of query %d is not finite",
                           (unsigned long long)frame->id, i / c);
        d->own.boxes[n++] = box;
    }
    qsort(d->own.boxes, (size_t)n, sizeof *d->own.boxes, best_first);
    *count = suppress(d->own.boxes, n, q, header.nms); /* upstream keeps as many as queries */
    return UM_OK;
}

static um_status detect(um_detector *d, const um_frame *frame, float conf, int *count)
{
    struct um_detect_path *path = NULL;
    size_t q = (size_t)um_dfine_info(d->net)->queries, c = (size_t)um_dfine_info(d->net)->classes;
    size_t logits_bytes = q * c * sizeof(float), boxes_bytes = q * 4 * sizeof(float);
    int channels = um_detector_channels_of(d, frame, 0, 0, frame->width, frame->height);
    um_status st = um_detect_path(&d->own.session, channels, &path);
    if (st == UM_OK)
        st = reserve(d, logits_bytes + boxes_bytes, q * c);
    if (st == UM_OK)
        st = run_front(d, frame, channels, path);
    if (st == UM_OK)
        st = um_tape_run(path->tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = fetch(d, path, logits_bytes, boxes_bytes);
    return st == UM_OK ? read_boxes(d, frame, conf, count) : st;
}

um_status um_detector_run(um_detector *detector, const um_frame *frame, float conf, um_box *boxes,
                          int capacity, int *count)
{
    um_detector *d = detector;
    if (!d || !frame || !count || (!boxes && capacity > 0) || capacity < 0)
        return um_fail(
            UM_EINVAL,
            "um_detector_run: detector, frame and count must be given, boxes for a capacity of %d",
            capacity);
    *count = 0;
    if (isnan(conf))
        return um_fail(UM_EINVAL, "um_detector_run: conf is not a number");
    pthread_mutex_lock(&d->own.lock);
    um_status st = detect(d, frame, conf, count);
    if (*count > capacity)
        *count = capacity;
    if (*count)
        memcpy(boxes, d->own.boxes, (size_t)*count * sizeof *boxes);
    pthread_mutex_unlock(&d->own.lock);
    return st;
}

um_status um_detector_keep_taps(um_detector *detector)
{
    if (!detector || detector->own.session.path[0].tape || detector->own.session.path[1].tape)
        return um_fail(UM_EINVAL, "um_detector_keep_taps: call it before the first frame");
    detector->own.session.keep_taps = true;
    return UM_OK;
}

um_status um_detector_dump(um_detector *detector, const char *path)
{
    struct um_dump dump = {0};
    if (!detector || !path)
        return um_fail(UM_EINVAL, "um_detector_dump: %s is NULL", detector ? "path" : "detector");
    struct um_detector_own *own = &detector->own;
    pthread_mutex_lock(&own->lock);
    um_status st = own->front.tape ? um_dump_tape(&dump, own->session.path[own->front.c == 3].tape)
                                   : um_fail(UM_EINVAL, "um_detector_dump: no frame has run");
    if (st == UM_OK)
        st = um_dump_write(&dump, path);
    um_dump_close(&dump);
    pthread_mutex_unlock(&own->lock);
    return st;
}
