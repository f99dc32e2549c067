/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/segmenter.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "pipeline/dump.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct um_mask {
    um_device *dev;
    um_buf *buf;   /* device mask: u8 0/1 [h,w] */
    uint8_t *data; /* host mask */
    int h, w;
};

static int low_side(const um_segmenter *s)
{
    return um_sam_canvas(s->net) / 4;
}

um_status um_segmenter_open(um_segmenter **out, um_device *device, const char *path, int canvas)
{
    um_weights *file = NULL;
    *out = NULL;
    if (!device || !path)
        return um_fail(UM_EINVAL, "um_segmenter_open: %s is NULL", device ? "path" : "device");
    um_segmenter *s = um_zalloc(sizeof *s);
    um_status st = s ? UM_OK : um_fail(UM_ENOMEM, "segmenter");
    if (st == UM_OK) {
        s->dev = device;
        st = um_weights_open(&file, path);
    }
    if (st == UM_OK) {
        memcpy(s->sha256, um_weights_sha256(file), sizeof s->sha256);
        st = um_sam_open(&s->net, device, file, canvas);
    }
    um_weights_close(&file);
    size_t side = st == UM_OK ? (size_t)um_sam_canvas(s->net) : 0, low = side / 4;
    if (st == UM_OK)
        st = um_buf_open(&s->input, device, side * side * 3 * um_dtype_size(device->precision),
                         "segmenter input");
    if (st == UM_OK)
        st = um_buf_open(&s->prompt, device, sizeof(struct um_prompt), "prompt");
    if (st == UM_OK)
        st = um_buf_open(&s->mask_input, device, low * low * sizeof(float), "mask prompt");
    if (st == UM_OK)
        st = um_hostbuf_open(&s->prompt_slot, device, sizeof(struct um_prompt));
    if (st == UM_OK)
        st = um_hostbuf_open(&s->mask_slot, device, low * low * sizeof(float));
    if (st == UM_OK)
        st = um_event_open(&s->sent, device);
    if (st != UM_OK)
        um_segmenter_close(&s);
    *out = s;
    return st;
}

static void close_mask_path(struct um_mask_path *m)
{
    um_tape_close(&m->tape);
    um_params_close(&m->params);
    *m = (struct um_mask_path){0};
}

void um_segmenter_close(um_segmenter **segmenter)
{
    um_segmenter *s = *segmenter;
    if (!s)
        return;
    close_mask_path(&s->mask);
    for (int i = 0; i < s->decodes; i++)
        um_tape_close(&s->decode[i].tape);
    um_front_close(&s->front);
    um_tape_close(&s->encode);
    um_event_close(&s->sent, s->dev);
    um_hostbuf_close(&s->mask_slot);
    um_hostbuf_close(&s->prompt_slot);
    um_buf_close(&s->mask_input);
    um_buf_close(&s->prompt);
    um_buf_close(&s->input);
    um_sam_close(&s->net);
    um_free(s);
    *segmenter = NULL;
}

int um_segmenter_canvas(const um_segmenter *segmenter)
{
    return um_sam_canvas(segmenter->net);
}

const char *um_segmenter_sha256(const um_segmenter *segmenter)
{
    return segmenter->sha256;
}

um_device *um_segmenter_device(const um_segmenter *segmenter)
{
    return segmenter->dev;
}

void um_segmenter_set_mask_mode(um_segmenter *segmenter, um_mask_mode mode)
{
    segmenter->mode = mode;
}

void um_segmenter_set_kpi(um_segmenter *segmenter, void (*write)(void *ctx, const char *line),
                          void *ctx)
{
    segmenter->kpi = write;
    segmenter->kpi_ctx = ctx;
}

um_status um_mask_mode_resolve(um_mask_mode argument, um_mask_mode option, um_mask_mode *out)
{
    const char *env = getenv("ULTRAMOTION_SAM_AS_NUMPY");
    *out = argument != UM_MASK_AUTO ? argument : option;
    if (*out == UM_MASK_DEVICE || *out == UM_MASK_HOST)
        return UM_OK;
    if (*out != UM_MASK_AUTO)
        return um_fail(UM_EINVAL, "mask mode %d: want UM_MASK_AUTO, UM_MASK_DEVICE or UM_MASK_HOST",
                       (int)*out);
    if (!env || !*env || strcmp(env, "0") == 0)
        *out = UM_MASK_DEVICE;
    else if (strcmp(env, "1") == 0)
        *out = UM_MASK_HOST;
    else
        return um_fail(UM_EINVAL, "ULTRAMOTION_SAM_AS_NUMPY is \"%s\", want 0 or 1", env);
    return UM_OK;
}

um_status um_box_check(const float box[4], int w, int h)
{
    for (int i = 0; i < 4; i++)
        if (!isfinite(box[i]))
            return um_fail(UM_EINVAL, "box %g,%g,%g,%g: not a finite number", box[0], box[1],
                           box[2], box[3]);
    if (box[2] < box[0] || box[3] < box[1])
        return um_fail(UM_EINVAL, "box %g,%g,%g,%g: inverted, want x0 <= x1 and y0 <= y1", box[0],
                       box[1], box[2], box[3]);
    if (box[2] < 0 || box[3] < 0 || box[0] > (float)w || box[1] > (float)h)
        return um_fail(UM_EINVAL, "box %g,%g,%g,%g does not touch the %dx%d picture", box[0],
                       box[1], box[2], box[3], w, h);
    return UM_OK;
}

void um_kpi_line(char *line, size_t size, double ts, bool as_numpy, const char *device,
                 const char *more)
{
    um_number_print(
        line, size,
        "{\"ts\": %.6f, \"event\": \"sam_mask_output\", \"as_numpy\": %d, \"device\": \"%s\"%s}",
        ts, as_numpy, device, more);
}

/* ---- paths ---- */

um_status um_segmenter_encoder(um_segmenter *s)
{
    if (s->encode)
        return UM_OK;
    int side = um_sam_canvas(s->net);
    um_status st = um_tape_open(&s->encode, s->dev, "encode");
    if (st != UM_OK)
        return st;
    if (s->keep_taps)
        um_tape_keep_taps(s->encode);
    s->embedding = um_keep(
        s->encode,
        um_sam_encode(s->net, s->encode,
                      um_tape_buffer(s->encode, s->input, 0, s->dev->precision, side, side, 3)));
    st = um_tape_compile(s->encode);
    if (st != UM_OK)
        um_tape_close(&s->encode);
    return st;
}

um_status um_segmenter_decoder(um_segmenter *s, int points, bool box, bool mask_input,
                               bool multimask, struct um_decode_path **out)
{
    um_status st = um_segmenter_encoder(s);
    if (st != UM_OK)
        return st;
    for (int i = 0; i < s->decodes; i++) {
        struct um_decode_path *d = &s->decode[i];
        if (d->points == points && d->box == box && d->mask_input == mask_input &&
            d->multimask == multimask) {
            *out = d;
            return UM_OK;
        }
    }
    struct um_decode_path *d = &s->decode[s->decodes];
    if (s->decodes == UM_DECODE_PATHS) { /* slot 0 is kept: a pipeline's box prompt lives there */
        s->next_decode = s->next_decode % (UM_DECODE_PATHS - 1) + 1;
        d = &s->decode[s->next_decode];
        if (s->mask.decode == d)
            close_mask_path(&s->mask);
        um_tape_close(&d->tape);
    } else
        s->decodes++;
    *d = (struct um_decode_path){
        .points = points, .box = box, .mask_input = mask_input, .multimask = multimask};
    st = um_tape_open(&d->tape, s->dev, "decode");
    if (st == UM_OK) {
        int low = low_side(s);
        if (s->keep_taps)
            um_tape_keep_taps(d->tape);
        um_tensor prompt =
            um_tape_buffer(d->tape, s->prompt, 0, UM_U8, 1, 1, (int)sizeof(struct um_prompt));
        um_tensor previous = mask_input
                                 ? um_tape_buffer(d->tape, s->mask_input, 0, UM_F32, low, low, 1)
                                 : (um_tensor){0};
        d->out = um_sam_decode(s->net, d->tape, um_tape_import(d->tape, s->encode, s->embedding),
                               prompt, points, box, previous, multimask);
        for (int m = 0; m < d->out.masks; m++)
            um_keep(d->tape, d->out.low[m]);
        um_keep(d->tape, d->out.iou);
        st = um_tape_compile(d->tape);
    }
    if (st != UM_OK) {
        close_mask_path(&s->mask); /* its decode path may move */
        um_tape_close(&d->tape);
        *d = s->decode[s->decodes - 1]; /* drop the half-made entry */
        s->decodes--;
    }
    *out = d;
    return st;
}

struct um_front_target um_segmenter_target(um_segmenter *s, int w, int h)
{
    static _Thread_local float lut[3][256];
    int side = um_sam_canvas(s->net), new_h = 0, new_w = 0;
    um_sam_lut(lut);
    um_sam_target(side, h, w, &new_h, &new_w);
    return (struct um_front_target){.input = s->input,
                                    .size_h = side,
                                    .size_w = side,
                                    .c = 3,
                                    .new_h = new_h,
                                    .new_w = new_w,
                                    .lut = (const float(*)[256])lut};
}

struct um_mask_tables um_segmenter_tables(um_segmenter *s, um_params *p, int w, int h)
{
    struct um_mask_tables k = {{0, 0}, {0, 0}};
    int side = um_sam_canvas(s->net), new_h = 0, new_w = 0;
    um_sam_target(side, h, w, &new_h, &new_w);
    float *tx = um_params_reserve(p, (size_t)w * 4 * sizeof *tx, &k.tx);
    if (tx)
        um_mask_taps(tx, side / 4, side, new_w, w);
    float *ty = um_params_reserve(p, (size_t)h * 4 * sizeof *ty, &k.ty);
    if (ty)
        um_mask_taps(ty, side / 4, side, new_h, h);
    return k;
}

uint64_t um_segmenter_device_bytes(const um_segmenter *s)
{
    uint64_t n =
        um_sam_weight_bytes(s->net) + s->input->size + s->prompt->size + s->mask_input->size;
    if (s->encode)
        n += um_tape_arena_bytes(s->encode);
    for (int i = 0; i < s->decodes; i++)
        n += um_tape_arena_bytes(s->decode[i].tape);
    return n;
}

static um_status mask_path(um_segmenter *s, const struct um_decode_path *decode)
{
    struct um_mask_path *m = &s->mask;
    int w = s->image_w, h = s->image_h;
    if (m->tape && m->decode == decode && m->w == w && m->h == h)
        return UM_OK;
    close_mask_path(m);
    *m = (struct um_mask_path){.w = w, .h = h, .decode = decode};
    um_status st = um_params_open(&m->params, s->dev);
    struct um_mask_tables k = {{0, 0}, {0, 0}};
    if (st == UM_OK) {
        k = um_segmenter_tables(s, m->params, w, h);
        st = um_params_upload(m->params);
    }
    if (st == UM_OK)
        st = um_tape_open(&m->tape, s->dev, "mask");
    if (st == UM_OK) {
        if (s->keep_taps)
            um_tape_keep_taps(m->tape);
        for (int i = 0; i < decode->out.masks; i++) {
            um_tensor low = um_tape_import(m->tape, decode->tape, decode->out.low[i]);
            m->logits[i] = um_keep(m->tape, um_tape_new(m->tape, UM_F32, h, w, 1));
            m->mask[i] = um_keep(
                m->tape, um_mask_upsample(m->tape, low,
                                          um_tape_const(m->tape, m->params, k.tx, UM_F32, 1, w, 4),
                                          um_tape_const(m->tape, m->params, k.ty, UM_F32, 1, h, 4),
                                          (um_tensor){0}, m->logits[i]));
            char name[16];
            snprintf(name, sizeof name, decode->out.masks > 1 ? "mask_%d" : "mask", i);
            um_tap(m->tape, name, m->mask[i]);
        }
        st = um_tape_compile(m->tape);
    }
    if (st != UM_OK)
        close_mask_path(m);
    return st;
}

/* ---- images ---- */

static um_status frame_of(const um_segmenter *s, const um_image *image, um_frame **out)
{
    int c = image->channels, h = image->height, w = image->width;
    if (image->device && strcmp(image->device, "cpu") != 0)
        return um_fail(UM_EINVAL,
                       "image is on device %s, the model on %s: put the image into host memory",
                       image->device, um_device_name(s->dev));
    if (!image->data)
        return um_fail(UM_EINVAL, "image without data");
    if (image->type != UM_IMAGE_U8 && image->type != UM_IMAGE_F32)
        return um_fail(UM_EINVAL, "image type %d: want UM_IMAGE_U8 or UM_IMAGE_F32",
                       (int)image->type);
    if (image->layout != UM_IMAGE_HW && image->layout != UM_IMAGE_HWC &&
        image->layout != UM_IMAGE_CHW)
        return um_fail(UM_EINVAL, "image layout %d: want UM_IMAGE_HW, UM_IMAGE_HWC or UM_IMAGE_CHW",
                       (int)image->layout);
    if (image->layout == UM_IMAGE_HW && c != 1)
        return um_fail(UM_EINVAL, "image layout HW has 1 channel, not %d", c);
    um_status st = um_frame_create(out, w, h, c);
    if (st != UM_OK)
        return st;
    bool planar = image->layout == UM_IMAGE_CHW;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int k = 0; k < c; k++) {
                size_t i = planar ? ((size_t)k * (size_t)h + (size_t)y) * (size_t)w + (size_t)x
                                  : ((size_t)y * (size_t)w + (size_t)x) * (size_t)c + (size_t)k;
                uint8_t *dst =
                    (*out)->pixels + (ptrdiff_t)y * (*out)->stride + (ptrdiff_t)x * c + k;
                if (image->type == UM_IMAGE_U8) {
                    *dst = ((const uint8_t *)image->data)[i];
                    continue;
                }
                float v = ((const float *)image->data)[i];
                *dst = (uint8_t)((v > 0 ? (v < 1 ? v : 1) : 0) *
                                 255.0f); /* clip, times 255, truncate; NaN is black */
            }
    return UM_OK;
}

/* Slots may be written again once their last uploads have passed. */
static um_status slots_free(um_segmenter *s)
{
    um_status st = s->sent_pending
                       ? um_event_sync(s->dev, s->sent, UM_STAGE_SEGMENT, "prompt slot in use")
                       : UM_OK;
    s->sent_pending = st != UM_OK;
    return st;
}

static um_status slots_sent(um_segmenter *s)
{
    s->sent_pending = true;
    return um_event_record(s->dev, UM_QUEUE_MAIN, s->sent);
}

static um_status set_frame(um_segmenter *s, const um_frame *frame)
{
    struct um_front *f = &s->front;
    int w = frame->width, h = frame->height, c = um_front_channels(frame, 0, 0, w, h);
    struct um_frame_header header = {
        .frame_id = frame->id, .width = (uint32_t)w, .height = (uint32_t)h, .label = -1};
    s->image_w = s->image_h = 0;
    um_status st = um_segmenter_encoder(s);
    if (st == UM_OK)
        st = slots_free(s);
    if (st == UM_OK && (!f->tape || f->w != w || f->h != h || f->c != c)) {
        um_front_close(f);
        struct um_front_target target = um_segmenter_target(s, w, h);
        st = um_front_open(f, s->dev, w, h, c, &target, 1, 1);
        if (st != UM_OK)
            um_front_close(f);
    }
    if (st != UM_OK)
        return st;
    st = um_front_fill(f, 0, &header, frame, 0, 0);
    if (st == UM_OK)
        st = um_front_upload(f, 0, UM_QUEUE_MAIN, UM_STAGE_UPLOAD);
    if (st == UM_OK)
        st = slots_sent(s);
    if (st == UM_OK)
        st = um_front_run(f, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_tape_run(s->encode, UM_QUEUE_MAIN);
    if (st == UM_OK) {
        s->image_w = w;
        s->image_h = h;
    }
    return st;
}

um_status um_segmenter_set_image(um_segmenter *segmenter, const um_image *image)
{
    um_frame *frame = NULL;
    if (!segmenter || !image)
        return um_fail(UM_EINVAL, "um_segmenter_set_image: %s is NULL",
                       segmenter ? "image" : "segmenter");
    um_status st = frame_of(segmenter, image, &frame);
    if (st == UM_OK)
        st = set_frame(segmenter, frame);
    um_frame_unref(&frame);
    return st;
}

/* ---- predictions ---- */

static um_status check_prompts(const um_segmenter *s, const um_prompts *p)
{
    if (p->struct_size != sizeof *p)
        return um_fail(UM_EINVAL, "um_prompts is %zu bytes, want %zu: set struct_size",
                       p->struct_size, sizeof *p);
    if (!s->image_w)
        return um_fail(UM_EINVAL, "um_segmenter_predict: no image is set");
    if (p->n_points < 0 || p->n_points > UM_POINTS_MAX)
        return um_fail(UM_EINVAL, "%d points: want 0 to %d", p->n_points, UM_POINTS_MAX);
    if (p->n_points && (!p->points || !p->labels))
        return um_fail(UM_EINVAL, "points without coordinates or labels");
    if (!p->box && !p->n_points && !p->mask_input)
        return um_fail(UM_EINVAL, "um_segmenter_predict: no box, no points, no mask");
    for (int i = 0; i < p->n_points; i++) {
        if (!isfinite(p->points[2 * i]) || !isfinite(p->points[2 * i + 1]))
            return um_fail(UM_EINVAL, "point %d is not a finite number", i);
        if (p->labels[i] < -1 || p->labels[i] > 1)
            return um_fail(UM_EINVAL,
                           "point %d has label %d, want 1 (object), 0 (background) or -1", i,
                           p->labels[i]);
    }
    return p->box ? um_box_check(p->box, s->image_w, s->image_h) : UM_OK;
}

static um_status send_prompts(um_segmenter *s, const um_prompts *p)
{
    struct um_prompt *record = s->prompt_slot->data;
    um_status st = slots_free(s);
    if (st != UM_OK)
        return st;
    *record = (struct um_prompt){.width = (uint32_t)s->image_w,
                                 .height = (uint32_t)s->image_h,
                                 .has_box = p->box != NULL,
                                 .n_points = (uint32_t)p->n_points};
    if (p->box)
        memcpy(record->box, p->box, sizeof record->box);
    for (int i = 0; i < p->n_points; i++) {
        record->xy[2 * i] = p->points[2 * i];
        record->xy[2 * i + 1] = p->points[2 * i + 1];
        record->label[i] = p->labels[i];
    }
    st = um_upload(s->dev, UM_QUEUE_MAIN, s->prompt, 0, s->prompt_slot, 0, sizeof *record,
                   UM_STAGE_SEGMENT, "prompt");
    if (st == UM_OK && p->mask_input) {
        memcpy(s->mask_slot->data, p->mask_input, s->mask_slot->size);
        st = um_upload(s->dev, UM_QUEUE_MAIN, s->mask_input, 0, s->mask_slot, 0, s->mask_slot->size,
                       UM_STAGE_SEGMENT, "mask prompt");
    }
    return st == UM_OK ? slots_sent(s) : st;
}

static um_mask *mask_alloc(um_segmenter *s, int h, int w)
{
    um_mask *m = um_zalloc(sizeof *m);
    if (m) {
        m->dev = s->dev;
        m->h = h;
        m->w = w;
    }
    return m;
}

static um_status device_mask(um_segmenter *s, um_tensor x, um_mask **out)
{
    um_buf *buf = NULL;
    size_t off = 0, n = (size_t)s->image_h * (size_t)s->image_w;
    um_mask *m = mask_alloc(s, s->image_h, s->image_w);
    um_status st = m ? um_buf_open(&m->buf, s->dev, n, "mask") : um_fail(UM_ENOMEM, "mask");
    if (st == UM_OK) {
        um_tape_locate(s->mask.tape, x, &buf, &off);
        st = um_copy(s->dev, UM_QUEUE_MAIN, m->buf, 0, buf, off, n);
    }
    if (st != UM_OK)
        um_mask_close(&m);
    *out = m;
    return st;
}

/* Legacy: full-size logits come to the host, which thresholds them. */
static um_status host_mask(um_segmenter *s, um_tensor logits, um_mask **out)
{
    um_buf *buf = NULL;
    size_t off = 0, n = (size_t)s->image_h * (size_t)s->image_w;
    um_mask *m = mask_alloc(s, s->image_h, s->image_w);
    float *v = um_array(n, sizeof *v);
    if (m)
        m->data = um_zalloc(n);
    um_status st = m && m->data && v ? UM_OK : um_fail(UM_ENOMEM, "mask");
    if (st == UM_OK) {
        um_tape_locate(s->mask.tape, logits, &buf, &off);
        st = um_download_now(s->dev, v, buf, off, n * sizeof *v, UM_STAGE_SEGMENT,
                             "legacy mode: mask logits to the host");
    }
    for (size_t i = 0; st == UM_OK && i < n; i++)
        m->data[i] = v[i] > 0;
    um_free(v);
    if (st != UM_OK)
        um_mask_close(&m);
    *out = m;
    return st;
}

static um_status host_extras(um_segmenter *s, const struct um_decode_path *d, um_prediction *out)
{
    um_buf *buf = NULL;
    size_t off = 0, n = (size_t)low_side(s) * (size_t)low_side(s);
    um_tape_locate(d->tape, d->out.iou, &buf, &off);
    um_status st = um_download_now(s->dev, out->iou, buf, off, (size_t)out->count * sizeof(float),
                                   UM_STAGE_SEGMENT, "legacy mode: scores to the host");
    out->low_res_side = low_side(s);
    out->low_res = um_array(n * (size_t)out->count, sizeof(float));
    if (!out->low_res && st == UM_OK)
        st = um_fail(UM_ENOMEM, "low-res logits");
    for (int i = 0; i < out->count && st == UM_OK; i++) {
        um_tape_locate(d->tape, d->out.low[i], &buf, &off);
        st = um_download_now(s->dev, out->low_res + (size_t)i * n, buf, off, n * sizeof(float),
                             UM_STAGE_SEGMENT, "legacy mode: low-res logits to the host");
    }
    return st;
}

um_status um_segmenter_predict(um_segmenter *segmenter, const um_prompts *prompts,
                               um_prediction *out)
{
    um_segmenter *s = segmenter;
    struct um_decode_path *d = NULL;
    um_mask_mode mode = UM_MASK_AUTO;
    if (!s || !prompts || !out)
        return um_fail(UM_EINVAL, "um_segmenter_predict: segmenter, prompts and out must be given");
    *out = (um_prediction){0};
    um_status st = um_mask_mode_resolve(prompts->as_numpy, s->mode, &mode);
    if (st == UM_OK)
        st = check_prompts(s, prompts);
    if (st == UM_OK)
        st = um_segmenter_decoder(s, prompts->n_points, prompts->box != NULL,
                                  prompts->mask_input != NULL, prompts->multimask, &d);
    if (st == UM_OK)
        st = mask_path(s, d);
    if (st == UM_OK)
        st = send_prompts(s, prompts);
    if (st == UM_OK)
        st = um_tape_run(d->tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_tape_run(s->mask.tape, UM_QUEUE_MAIN);
    if (st != UM_OK)
        return st;
    out->count = d->out.masks;
    for (int i = 0; i < out->count; i++)
        out->iou[i] = NAN;
    for (int i = 0; i < out->count && st == UM_OK; i++)
        st = mode == UM_MASK_HOST ? host_mask(s, s->mask.logits[i], &out->mask[i])
                                  : device_mask(s, s->mask.mask[i], &out->mask[i]);
    if (st == UM_OK && mode == UM_MASK_HOST)
        st = host_extras(s, d, out);
    if (st != UM_OK) {
        um_prediction_close(out);
        return st;
    }
    if (s->kpi) {
        char line[256];
        um_kpi_line(line, sizeof line, um_clock_unix(), mode == UM_MASK_HOST,
                    um_device_name(s->dev), "");
        s->kpi(s->kpi_ctx, line);
    }
    return UM_OK;
}

void um_prediction_close(um_prediction *prediction)
{
    for (int i = 0; i < 3; i++)
        um_mask_close(&prediction->mask[i]);
    um_free(prediction->low_res);
    *prediction = (um_prediction){0};
}

um_status um_run_segmentation(um_segmenter *segmenter, const um_image *image,
                              const float *bbox_xyxy, um_mask_mode as_numpy, um_mask **out)
{
    um_prediction prediction;
    if (!out)
        return um_fail(UM_EINVAL, "um_run_segmentation: out is NULL");
    *out = NULL;
    if (!segmenter || !image)
        return UM_OK;
    float whole[4] = {0, 0, (float)image->width, (float)image->height};
    um_prompts prompts = {
        .struct_size = sizeof prompts, .box = bbox_xyxy ? bbox_xyxy : whole, .as_numpy = as_numpy};
    um_status st = bbox_xyxy ? um_box_check(bbox_xyxy, image->width, image->height) : UM_OK;
    if (st == UM_OK)
        st = um_segmenter_set_image(segmenter, image);
    if (st == UM_OK)
        st = um_segmenter_predict(segmenter, &prompts, &prediction);
    if (st != UM_OK)
        return st;
    *out = prediction.mask[0];
    prediction.mask[0] = NULL;
    um_prediction_close(&prediction);
    return UM_OK;
}

um_status um_run_segmentation_legacy(um_segmenter *segmenter, const um_image *roi,
                                     um_mask_mode as_numpy, um_mask **out)
{
    return um_run_segmentation(segmenter, roi, NULL, as_numpy, out);
}

/* ---- masks ---- */

void um_mask_close(um_mask **mask)
{
    um_mask *m = *mask;
    if (!m)
        return;
    um_buf_close(&m->buf);
    um_free(m->data);
    um_free(m);
    *mask = NULL;
}

bool um_mask_on_host(const um_mask *mask)
{
    return mask->data != NULL;
}

int um_mask_rank(const um_mask *mask)
{
    return mask->data ? 2 : 4;
}

void um_mask_shape(const um_mask *mask, int64_t shape[4])
{
    int first = um_mask_rank(mask) - 2;
    for (int i = 0; i < first; i++)
        shape[i] = 1;
    shape[first] = mask->h;
    shape[first + 1] = mask->w;
}

const char *um_mask_device(const um_mask *mask)
{
    return mask->data ? "cpu" : um_device_name(mask->dev);
}

const uint8_t *um_mask_data(const um_mask *mask)
{
    return mask->data;
}

um_status um_mask_read(const um_mask *mask, uint8_t *out)
{
    size_t n = (size_t)mask->h * (size_t)mask->w;
    if (!mask->data)
        return um_download_now(mask->dev, out, mask->buf, 0, n, UM_STAGE_PACKET,
                               "mask read by the caller");
    memcpy(out, mask->data, n);
    return UM_OK;
}

um_status um_mask_from_host(um_mask **out, um_segmenter *segmenter, const float *values, int height,
                            int width)
{
    if (out)
        *out = NULL;
    if (!out || !segmenter || !values || height < 1 || width < 1 || height > UM_FRAME_MAX_SIDE ||
        width > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EINVAL, "um_mask_from_host: %dx%d", width, height);
    size_t n = (size_t)height * (size_t)width;
    um_mask *m = mask_alloc(segmenter, height, width);
    uint8_t *bits = um_zalloc(n);
    um_status st =
        m && bits ? um_buf_open(&m->buf, segmenter->dev, n, "mask") : um_fail(UM_ENOMEM, "mask");
    for (size_t i = 0; st == UM_OK && i < n; i++)
        bits[i] = values[i] > 0.5f;
    if (st == UM_OK)
        st = um_upload_now(segmenter->dev, m->buf, 0, bits, n, UM_STAGE_SEGMENT,
                           "host mask to the model's device");
    um_free(bits);
    if (st != UM_OK)
        um_mask_close(&m);
    *out = m;
    return st;
}

/* ---- taps ---- */

um_status um_segmenter_keep_taps(um_segmenter *segmenter)
{
    if (!segmenter || segmenter->encode)
        return um_fail(UM_EINVAL, "um_segmenter_keep_taps: call it before the first image");
    segmenter->keep_taps = true;
    return UM_OK;
}

/* Of three masks, "mask" is the one with the best score. */
static um_status dump_best_mask(um_segmenter *s, struct um_dump *dump)
{
    um_buf *buf = NULL;
    size_t off = 0;
    float iou[3], *data = NULL;
    int best = 0, h = 0, w = 0, c = 0;
    const char *name = NULL;
    char tap[16];
    um_tape_locate(s->mask.decode->tape, s->mask.decode->out.iou, &buf, &off);
    um_status st = um_download_now(s->dev, iou, buf, off, sizeof iou, UM_STAGE_DEBUG, "tap");
    if (st != UM_OK)
        return st;
    for (int i = 1; i < 3; i++)
        if (iou[i] > iou[best])
            best = i;
    snprintf(tap, sizeof tap, "mask_%d", best);
    st = um_tape_read_tap(s->mask.tape, um_tape_find_tap(s->mask.tape, tap), &name, &h, &w, &c,
                          &data);
    return st == UM_OK ? um_dump_add(dump, "mask", 4, (int64_t[]){1, c, h, w}, data) : st;
}

um_status um_segmenter_dump(um_segmenter *segmenter, const char *path)
{
    struct um_dump dump = {0};
    um_segmenter *s = segmenter;
    um_status st = s->mask.tape ? um_dump_tape(&dump, s->encode)
                                : um_fail(UM_EINVAL, "um_segmenter_dump: no prediction was made");
    if (st == UM_OK)
        st = um_dump_tape(&dump, s->mask.decode->tape);
    if (st == UM_OK)
        st = um_dump_tape(&dump, s->mask.tape);
    if (st == UM_OK && s->mask.decode->out.masks > 1)
        st = dump_best_mask(s, &dump);
    if (st == UM_OK)
        st = um_dump_write(&dump, path);
    um_dump_close(&dump);
    return st;
}
