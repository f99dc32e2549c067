/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/detector.h"

#include "base/mem.h"
#include "pipeline/dump.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

um_status um_detector_open(um_detector **out, um_device *device, const char *path, int input_size)
{
    um_weights *file = NULL;
    *out = NULL;
    if (!device || !path)
        return um_fail(UM_EINVAL, "um_detector_open: %s is NULL", device ? "path" : "device");
    um_detector *d = um_zalloc(sizeof *d);
    um_status st = d ? UM_OK : um_fail(UM_ENOMEM, "detector");
    if (st == UM_OK) {
        d->dev = device;
        st = um_weights_open(&file, path);
    }
    if (st == UM_OK) {
        memcpy(d->sha256, um_weights_sha256(file), sizeof d->sha256);
        st = um_dfine_open(&d->net, device, file, input_size, input_size);
    }
    um_weights_close(&file);
    if (st != UM_OK)
        um_detector_close(&d);
    *out = d;
    return st;
}

void um_detector_close(um_detector **detector)
{
    um_detector *d = *detector;
    if (!d)
        return;
    um_front_close(&d->front);
    um_hostbuf_close(&d->result);
    um_event_close(&d->done, d->dev);
    for (int i = 0; i < 2; i++) {
        um_tape_close(&d->path[i].tape);
        um_buf_close(&d->path[i].input);
    }
    um_dfine_close(&d->net);
    um_free(d);
    *detector = NULL;
}

int um_detector_classes(const um_detector *detector)
{
    return um_dfine_info(detector->net)->classes;
}

int um_detector_input_size(const um_detector *detector)
{
    return um_dfine_info(detector->net)->input_size;
}

const char *um_detector_architecture(const um_detector *detector)
{
    return um_dfine_info(detector->net)->architecture;
}

const char *um_detector_sha256(const um_detector *detector)
{
    return detector->sha256;
}

um_device *um_detector_device(const um_detector *detector)
{
    return detector->dev;
}

int um_detector_channels(const um_detector *d, int channels)
{
    return um_dfine_info(d->net)->channels == 1 ? 1 : channels;
}

um_status um_detector_path(um_detector *d, int channels, struct um_detect_path **out)
{
    struct um_detect_path *p = &d->path[channels == 3];
    int s = um_dfine_info(d->net)->input_size;
    um_status st = UM_OK;
    *out = p;
    if (p->tape)
        return UM_OK;
    if (!p->input)
        st =
            um_buf_open(&p->input, d->dev,
                        (size_t)s * (size_t)s * (size_t)channels * um_dtype_size(d->dev->precision),
                        "detector input");
    if (st == UM_OK)
        st = um_tape_open(&p->tape, d->dev, "detect");
    if (st != UM_OK)
        return st;
    if (d->keep_taps)
        um_tape_keep_taps(p->tape);
    p->out = um_dfine_forward(
        d->net, p->tape, um_tape_buffer(p->tape, p->input, 0, d->dev->precision, s, s, channels));
    um_keep(p->tape, p->out.logits);
    um_keep(p->tape, p->out.boxes);
    st = um_tape_compile(p->tape);
    if (st != UM_OK)
        um_tape_close(&p->tape);
    return st;
}

struct um_front_target um_detector_target(um_detector *d, const struct um_detect_path *path,
                                          int channels)
{
    static _Thread_local float lut[3][256];
    int s = um_dfine_info(d->net)->input_size;
    um_dfine_lut(lut);
    return (struct um_front_target){.input = path->input,
                                    .size_h = s,
                                    .size_w = s,
                                    .c = channels,
                                    .new_h = s,
                                    .new_w = s,
                                    .lut = (const float(*)[256])lut};
}

uint64_t um_detector_device_bytes(const um_detector *d)
{
    uint64_t n = um_dfine_weight_bytes(d->net);
    for (int i = 0; i < 2; i++)
        if (d->path[i].tape)
            n += um_tape_arena_bytes(d->path[i].tape) + d->path[i].input->size;
    return n;
}

/* ---- all boxes of one frame ---- */

static um_status run_front(um_detector *d, const um_frame *frame, int channels,
                           struct um_detect_path *path)
{
    struct um_front *f = &d->front;
    struct um_frame_header header = {.frame_id = frame->id,
                                     .width = (uint32_t)frame->width,
                                     .height = (uint32_t)frame->height,
                                     .label = -1};
    um_status st = UM_OK;
    if (!f->tape || f->w != frame->width || f->h != frame->height || f->c != channels) {
        um_front_close(f);
        struct um_front_target target = um_detector_target(d, path, channels);
        st = um_front_open(f, d->dev, frame->width, frame->height, channels, &target, 1, 1);
        if (st != UM_OK)
            um_front_close(f);
    }
    if (st != UM_OK)
        return st;
    um_ledger_frame(d->dev, frame->id);
    st = um_front_fill(f, 0, &header, frame, 0, 0);
    if (st == UM_OK)
        st = um_front_upload(f, 0, UM_QUEUE_MAIN, UM_STAGE_UPLOAD);
    return st == UM_OK ? um_front_run(f, UM_QUEUE_MAIN) : st;
}

static um_status fetch(um_detector *d, struct um_detect_path *path, size_t logits_bytes,
                       size_t boxes_bytes)
{
    um_buf *buf = NULL;
    size_t off = 0;
    um_tape_locate(path->tape, path->out.logits, &buf, &off);
    um_status st = um_download(d->dev, UM_QUEUE_MAIN, d->result, 0, buf, off, logits_bytes,
                               UM_STAGE_DETECT, "logits");
    if (st == UM_OK) {
        um_tape_locate(path->tape, path->out.boxes, &buf, &off);
        st = um_download(d->dev, UM_QUEUE_MAIN, d->result, logits_bytes, buf, off, boxes_bytes,
                         UM_STAGE_DETECT, "boxes");
    }
    if (st == UM_OK)
        st = um_event_record(d->dev, UM_QUEUE_MAIN, d->done);
    return st == UM_OK ? um_event_sync(d->dev, d->done, UM_STAGE_DETECT, "boxes") : st;
}

static int best_first(const void *a, const void *b)
{
    const um_box *p = a, *q = b;
    return p->score < q->score ? 1 : p->score > q->score ? -1 : 0;
}

um_status um_detector_run(um_detector *detector, const um_frame *frame, float conf, um_box *boxes,
                          int capacity, int *count)
{
    um_detector *d = detector;
    struct um_detect_path *path = NULL;
    if (!d || !frame || !count || (!boxes && capacity > 0) || capacity < 0)
        return um_fail(
            UM_EINVAL,
            "um_detector_run: detector, frame and count must be given, boxes for a capacity of %d",
            capacity);
    *count = 0;
    int q = um_dfine_info(d->net)->queries, c = um_dfine_info(d->net)->classes;
    size_t logits_bytes = (size_t)q * (size_t)c * sizeof(float),
           boxes_bytes = (size_t)q * 4 * sizeof(float);
    int channels =
        um_detector_channels(d, um_front_channels(frame, 0, 0, frame->width, frame->height));
    um_status st = um_detector_path(d, channels, &path);
    if (st == UM_OK && !d->result) /* whatever can fail comes before the first command: no copy may
                                      stay in flight */
        st = um_hostbuf_open(&d->result, d->dev, logits_bytes + boxes_bytes);
    if (st == UM_OK && !d->done)
        st = um_event_open(&d->done, d->dev);
    um_box *all = st == UM_OK ? um_array((size_t)q * (size_t)c, sizeof *all) : NULL;
    if (st == UM_OK && !all)
        st = um_fail(UM_ENOMEM, "boxes");
    if (st == UM_OK)
        st = run_front(d, frame, channels, path);
    if (st == UM_OK)
        st = um_tape_run(path->tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = fetch(d, path, logits_bytes, boxes_bytes);
    if (st != UM_OK) {
        um_free(all);
        return st;
    }
    const float *logits = d->result->data,
                *b = (const float *)d->result->data + (size_t)q * (size_t)c;
    int n = 0;
    for (int i = 0; i < q * c; i++) {
        float score = 1 / (1 + expf(-logits[i]));
        const float *p = b + 4 * (i / c);
        float w = (float)frame->width, h = (float)frame->height;
        if (score >= conf)
            all[n++] = (um_box){(p[0] - p[2] / 2) * w,
                                (p[1] - p[3] / 2) * h,
                                (p[0] + p[2] / 2) * w,
                                (p[1] + p[3] / 2) * h,
                                score,
                                i % c};
    }
    qsort(all, (size_t)n, sizeof *all, best_first);
    *count = n < q ? n : q; /* upstream keeps as many as there are queries */
    if (*count > capacity)
        *count = capacity;
    if (*count)
        memcpy(boxes, all, (size_t)*count * sizeof *boxes);
    um_free(all);
    return UM_OK;
}

um_status um_detector_keep_taps(um_detector *detector)
{
    if (!detector || detector->path[0].tape || detector->path[1].tape)
        return um_fail(UM_EINVAL, "um_detector_keep_taps: call it before the first frame");
    detector->keep_taps = true;
    return UM_OK;
}

um_status um_detector_dump(um_detector *detector, const char *path)
{
    struct um_dump dump = {0};
    const struct um_front *f = &detector->front;
    um_status st = f->tape && detector->path[f->c == 3].tape
                       ? um_dump_tape(&dump, detector->path[f->c == 3].tape)
                       : um_fail(UM_EINVAL, "um_detector_dump: no frame has run");
    if (st == UM_OK)
        st = um_dump_write(&dump, path);
    um_dump_close(&dump);
    return st;
}
