/* SPDX-License-Identifier: Apache-2.0 */
#include "predict/predictor.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/record.h"
#include "engine/dump.h"
#include "predict/image.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

um_status um_predictor_open_own(um_predictor **out, um_segmenter *segmenter)
{
    *out = NULL;
    um_predictor *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "predictor");
    um_device *dev = segmenter->dev;
    size_t low = (size_t)um_segmenter_low_side(segmenter), n = low / 4;
    s->model = segmenter;
    s->dev = dev;
    um_status st =
        um_buf_open(&s->embedding, dev, n * n * 256 * um_dtype_size(dev->precision), "embedding");
    if (st == UM_OK)
        st = um_buf_open(&s->prompt, dev, sizeof(struct um_prompt), "prompt");
    if (st == UM_OK)
        st = um_buf_open(&s->mask_input, dev, low * low * sizeof(float), "mask prompt");
    if (st == UM_OK)
        st = um_hostbuf_open(&s->prompt_slot, dev, sizeof(struct um_prompt));
    if (st == UM_OK)
        st = um_hostbuf_open(&s->mask_slot, dev, low * low * sizeof(float));
    if (st == UM_OK)
        st = um_event_open(&s->sent, dev);
    if (st != UM_OK)
        um_predictor_close(&s);
    *out = s;
    return st;
}

um_status um_predictor_open(um_predictor **out, um_segmenter *segmenter)
{
    if (out)
        *out = NULL;
    if (!out || !segmenter)
        return um_fail(UM_EINVAL, "um_predictor_open: %s is NULL", out ? "segmenter" : "out");
    um_status st = um_predictor_open_own(out, segmenter);
    if (st == UM_OK)
        (*out)->held = um_segmenter_ref(segmenter);
    return st;
}

static void close_mask_path(struct um_mask_path *m)
{
    um_tape_close(&m->tape);
    um_params_close(&m->params);
    *m = (struct um_mask_path){0};
}

static void close_decode(um_decode **decode)
{
    if (*decode)
        um_decode_close(*decode);
    um_free(*decode);
    *decode = NULL;
}

void um_predictor_close(um_predictor **predictor)
{
    um_predictor *s = predictor ? *predictor : NULL;
    if (!s)
        return;
    close_mask_path(&s->mask);
    for (int i = 0; i < UM_DECODE_PATHS; i++)
        close_decode(&s->decode[i]);
    um_front_close(&s->front);
    um_encode_close(&s->encode);
    um_event_close(&s->sent, s->dev);
    um_hostbuf_close(&s->mask_slot);
    um_hostbuf_close(&s->prompt_slot);
    um_buf_close(&s->mask_input);
    um_buf_close(&s->prompt);
    um_buf_close(&s->embedding);
    um_segmenter_close(&s->held);
    um_free(s);
    *predictor = NULL;
}

/* ---- what is recorded ---- */

static um_status find_encode(um_predictor *s)
{
    um_status st = s->encode.tape ? UM_OK : um_encode_open(&s->encode, s->model, s->keep_taps);
    if (st != UM_OK)
        um_encode_close(&s->encode);
    return st;
}

static bool same_kind(struct um_prompt_kind a, struct um_prompt_kind b)
{
    return a.points == b.points && a.box == b.box && a.mask_input == b.mask_input &&
           a.multimask == b.multimask;
}

/* The decoder of a kind of prompt; a new one takes the place of the one that was not used for the
 * longest time. */
static um_status find_decode(um_predictor *s, struct um_prompt_kind kind, const um_decode **out)
{
    int at = 0;
    for (int i = 0; i < UM_DECODE_PATHS; i++) {
        if (s->decode[i] && same_kind(s->decode[i]->kind, kind)) {
            *out = s->decode[i];
            s->used[i] = ++s->uses;
            return UM_OK;
        }
        if (s->used[i] < s->used[at])
            at = i;
    }
    um_decode *d = um_zalloc(sizeof *d);
    if (!d)
        return um_fail(UM_ENOMEM, "decoder");
    struct um_decode_input in = {
        .embedding = s->embedding, .prompt = s->prompt, .mask_input = s->mask_input};
    um_status st = um_decode_open(d, s->model, kind, &in, s->keep_taps);
    if (st != UM_OK) {
        close_decode(&d);
        return st;
    }
    if (s->decode[at] && s->mask.decode == s->decode[at])
        close_mask_path(&s->mask);
    close_decode(&s->decode[at]);
    s->decode[at] = d;
    s->used[at] = ++s->uses;
    *out = d;
    return UM_OK;
}

static um_status mask_path(um_predictor *s, const um_decode *decode)
{
    struct um_mask_path *m = &s->mask;
    int w = s->image_w, h = s->image_h;
    if (m->tape && m->decode == decode && m->w == w && m->h == h)
        return UM_OK;
    close_mask_path(m);
    *m = (struct um_mask_path){.w = w, .h = h, .decode = decode};
    um_status st = um_params_open(&m->params, s->dev);
    struct um_mask_tables k = {.tx = {0, 0}};
    if (st == UM_OK) {
        k = um_segmenter_tables(s->model, m->params, w, h);
        st = um_params_upload(m->params);
    }
    if (st == UM_OK)
        st = um_tape_open(&m->tape, s->dev, "mask");
    if (st == UM_OK) {
        if (s->keep_taps)
            um_tape_keep_taps(m->tape);
        for (int i = 0; i < decode->out.masks; i++) {
            um_tensor low =
                um_segmenter_scores(s->model, m->tape, m->params, k,
                                    um_tape_import(m->tape, decode->tape, decode->out.low[i]));
            m->logits[i] = um_keep(m->tape, um_tape_new(m->tape, UM_F32, h, w, 1));
            m->mask[i] = um_keep(
                m->tape, um_mask_upsample(m->tape, low,
                                          um_tape_const(m->tape, m->params, k.tx, UM_F32, 1, w, 4),
                                          um_tape_const(m->tape, m->params, k.ty, UM_F32, 1, h, 4),
                                          (um_tensor){0}, m->logits[i]));
            char name[16];
            snprintf(name, sizeof name, decode->out.masks > 1 ? "mask_%d" : "mask", i);
            um_tap_map(m->tape, name, m->mask[i]);
        }
        st = um_tape_compile(m->tape);
    }
    if (st != UM_OK)
        close_mask_path(m);
    return st;
}

/* ---- images ---- */

static um_status check_device(const um_predictor *s, const um_image *image)
{
    if (strcmp(image->device, um_device_name(s->dev)) != 0)
        return um_fail(UM_EINVAL, "image is on device %s, the model on %s", image->device,
                       um_device_name(s->dev));
    if (image->type != UM_IMAGE_U8 || image->layout == UM_IMAGE_CHW)
        return um_fail(UM_EUNSUPPORTED,
                       "image on device %s: want UM_IMAGE_U8 in UM_IMAGE_HW or UM_IMAGE_HWC",
                       image->device);
    return um_image_check(image);
}

/* Slots may be written again once their last uploads have passed; where something failed behind
 * these, once all has. */
static um_status slots_take(um_predictor *s)
{
    um_status st = UM_OK;
    if (s->sent_pending && !s->sent_marked)
        st = um_event_record(s->dev, UM_QUEUE_MAIN, s->sent);
    if (st == UM_OK && s->sent_pending)
        st = um_event_sync(s->dev, s->sent, UM_STAGE_SEGMENT, "prompt slot in use");
    if (st == UM_OK) {
        s->sent_pending = true;
        s->sent_marked = false;
    }
    return st;
}

static um_status slots_sent(um_predictor *s)
{
    um_status st = um_event_record(s->dev, UM_QUEUE_MAIN, s->sent);
    s->sent_marked = st == UM_OK;
    return st;
}

/* frame NULL: the image is on the device. */
static um_status set_image(um_predictor *s, const um_frame *frame, const um_image *image)
{
    struct um_front *f = &s->front;
    int w = image->width, h = image->height,
        c = !frame                       ? image->channels
            : um_sam_gray(s->model->net) ? 1
                                         : um_front_channels(frame, 0, 0, w, h);
    struct um_frame_header header = {.width = (uint32_t)w, .height = (uint32_t)h, .label = -1};
    s->image_w = s->image_h = 0;
    s->holds = 0;
    s->encoded = false;
    um_status st = find_encode(s);
    if (st == UM_OK)
        st = slots_take(s);
    if (st == UM_OK && (!f->tape || f->w != w || f->h != h || f->c != c)) {
        um_front_close(f);
        struct um_front_target target = um_encode_target(&s->encode, w, h);
        st = um_front_open(f, s->dev, w, h, c, &target, 1, 1, NULL, false);
        if (st != UM_OK)
            um_front_close(f);
    }
    if (st != UM_OK)
        return st;
    st = frame
             ? um_front_fill(f, 0, &header, frame, 0, 0)
             : um_front_copy(f, 0, &header, image->data,
                             image->row_bytes ? image->row_bytes : (ptrdiff_t)w * c, image->stream);
    if (st == UM_OK && frame)
        st = um_front_upload(f, 0, UM_STAGE_UPLOAD);
    if (st == UM_OK)
        st = slots_sent(s);
    if (st == UM_OK)
        st = um_front_run(f);
    if (st == UM_OK)
        st = um_tape_run(s->encode.tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_tape_copy(s->encode.tape, s->encode.embedding, s->embedding, 0);
    if (st == UM_OK) {
        s->image_w = w;
        s->image_h = h;
        s->encoded = true;
    }
    return st;
}

um_status um_predictor_set_image(um_predictor *predictor, const um_image *image)
{
    um_frame *frame = NULL;
    um_image own = {0};
    if (!predictor || !image)
        return um_fail(UM_EINVAL, "um_predictor_set_image: %s is NULL",
                       predictor ? "image" : "predictor");
    um_status st = um_record_in(&own, sizeof own, image, "um_image");
    if (st == UM_OK)
        st = um_image_on_device(&own) ? check_device(predictor, &own)
                                      : um_frame_from_image(&frame, &own);
    if (st == UM_OK)
        st = set_image(predictor, frame, &own);
    um_frame_unref(&frame);
    return st;
}

um_status um_predictor_set_embedding(um_predictor *predictor, const um_embedding *embedding)
{
    um_predictor *s = predictor;
    const um_embedding *e = embedding;
    if (!s || !e)
        return um_fail(UM_EINVAL, "um_predictor_set_embedding: %s is NULL",
                       s ? "embedding" : "predictor");
    if (e->dev != s->dev || e->buf->size != s->embedding->size ||
        strcmp(e->sha256, s->model->sha256) != 0) {
        const char *here = um_device_name(s->dev), *there = um_device_name(e->dev);
        bool apart = e->dev != s->dev && strcmp(here, there) == 0;
        return um_fail(
            UM_EINVAL,
            "embedding of device %s, side %d, model %.12s: the predictor's are %s%s, %d, "
            "%.12s",
            there, e->n, e->sha256, apart ? "another " : "", here,
            um_segmenter_low_side(s->model) / 4, s->model->sha256);
    }
    if (s->holds == e->id)
        return UM_OK;
    s->image_w = s->image_h = 0;
    s->encoded = false;
    um_status st = um_copy(s->dev, UM_QUEUE_MAIN, s->embedding, 0, e->buf, 0, e->buf->size);
    if (st != UM_OK)
        return st;
    s->holds = e->id;
    s->image_w = e->w;
    s->image_h = e->h;
    return UM_OK;
}

um_status um_predictor_embedding(um_predictor *predictor, um_embedding **out)
{
    um_predictor *s = predictor;
    um_embedding *e = NULL;
    if (out)
        *out = NULL;
    if (!s || !out)
        return um_fail(UM_EINVAL, "um_predictor_embedding: %s is NULL", s ? "out" : "predictor");
    um_status st = s->image_w ? um_embedding_new(&e, s->model, s->image_w, s->image_h)
                              : um_fail(UM_EINVAL, "um_predictor_embedding: no image is set");
    if (st == UM_OK)
        st = um_copy(s->dev, UM_QUEUE_MAIN, e->buf, 0, s->embedding, 0, e->buf->size);
    if (st == UM_OK)
        s->holds = e->id;
    else
        um_embedding_unref(&e);
    *out = e;
    return st;
}

/* ---- predictions ---- */

static um_status check_prompts(const um_predictor *s, const um_prompts *p)
{
    if (!s->image_w)
        return um_fail(UM_EINVAL, "um_predictor_predict: no image is set");
    if (p->n_points < 0 || p->n_points > UM_POINTS_MAX)
        return um_fail(UM_EINVAL, "%d points: want 0 to %d", p->n_points, UM_POINTS_MAX);
    if (p->n_points && (!p->points || !p->labels))
        return um_fail(UM_EINVAL, "points without coordinates or labels");
    if (!p->box && !p->n_points && !p->mask_input)
        return um_fail(UM_EINVAL, "um_predictor_predict: no box, no points, no mask");
    if (p->want_logits && !p->want_values)
        return um_fail(UM_EINVAL, "um_predictor_predict: want_logits without want_values");
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

static um_status send_prompts(um_predictor *s, const um_prompts *p)
{
    struct um_prompt *record = s->prompt_slot->data;
    um_status st = slots_take(s);
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

/* Legacy: full-size logits come to the host, which thresholds them. */
static um_status host_bits(um_predictor *s, um_tensor logits, uint8_t *bits)
{
    size_t n = (size_t)s->image_h * (size_t)s->image_w;
    float *v = um_array(n, sizeof *v);
    if (!v)
        return um_fail(UM_ENOMEM, "mask");
    um_status st = um_tape_read(s->mask.tape, logits, v, UM_STAGE_SEGMENT,
                                "legacy mode: mask logits to the host");
    for (size_t i = 0; st == UM_OK && i < n; i++)
        bits[i] = v[i] > 0;
    um_free(v);
    return st;
}

um_status um_mask_open(um_values **out, um_device *dev, bool host, int h, int w)
{
    const int64_t shape[] = {1, 1, h, w};
    return um_values_open(out, dev, host, UM_ARRAY_BOOL, host ? 2 : 4, host ? shape + 2 : shape,
                          "mask");
}

static um_status make_mask(um_predictor *s, int i, bool host, um_values **out)
{
    um_status st = um_mask_open(out, s->dev, host, s->image_h, s->image_w);
    if (st != UM_OK)
        return st;
    return host ? host_bits(s, s->mask.logits[i], (*out)->host)
                : um_tape_copy(s->mask.tape, s->mask.mask[i], (*out)->buf, 0);
}

/* A tape's result to byte `at` of the values, on the device or to the host. */
static um_status take(const um_tape *tape, um_tensor x, um_values *to, size_t at,
                      const char *reason)
{
    return to->buf ? um_tape_copy(tape, x, to->buf, at)
                   : um_tape_read(tape, x, (char *)to->host + at, UM_STAGE_SEGMENT, reason);
}

/* What was predicted, as values on the device or, in legacy mode, on the host. */
static um_status make_values(um_predictor *s, const um_decode *d, bool host, bool logits,
                             um_prediction *out)
{
    int low = um_segmenter_low_side(s->model), count = out->count;
    size_t n = (size_t)s->image_h * (size_t)s->image_w, n_low = (size_t)low * (size_t)low,
           element = logits ? sizeof(float) : 1;
    um_status st = um_values_open(&out->masks, s->dev, host, logits ? UM_ARRAY_F32 : UM_ARRAY_BOOL,
                                  3, (int64_t[]){count, s->image_h, s->image_w}, "masks");
    if (st == UM_OK)
        st = um_values_open(&out->scores, s->dev, host, UM_ARRAY_F32, 1, (int64_t[]){count},
                            "scores");
    if (st == UM_OK)
        st = um_values_open(&out->low, s->dev, host, UM_ARRAY_F32, 3, (int64_t[]){count, low, low},
                            "low-res logits");
    for (int i = 0; i < count && st == UM_OK; i++) {
        if (host && !logits)
            st = host_bits(s, s->mask.logits[i], (uint8_t *)out->masks->host + (size_t)i * n);
        else
            st = take(s->mask.tape, logits ? s->mask.logits[i] : s->mask.mask[i], out->masks,
                      (size_t)i * n * element, "legacy mode: mask logits to the host");
        if (st == UM_OK)
            st = take(d->tape, d->out.low[i], out->low, (size_t)i * n_low * sizeof(float),
                      "legacy mode: low-res logits to the host");
    }
    if (st == UM_OK)
        st = take(d->tape, d->out.iou, out->scores, 0, "legacy mode: scores to the host");
    return st;
}

static um_status host_extras(um_predictor *s, const um_decode *d, um_prediction *out)
{
    int side = um_segmenter_low_side(s->model);
    size_t n = (size_t)side * (size_t)side;
    um_status st = um_tape_read(d->tape, d->out.iou, out->iou, UM_STAGE_SEGMENT,
                                "legacy mode: scores to the host");
    out->low_res_side = side;
    out->low_res = um_array(n * (size_t)out->count, sizeof(float));
    if (!out->low_res && st == UM_OK)
        st = um_fail(UM_ENOMEM, "low-res logits");
    for (int i = 0; i < out->count && st == UM_OK; i++)
        st = um_tape_read(d->tape, d->out.low[i], out->low_res + (size_t)i * n, UM_STAGE_SEGMENT,
                          "legacy mode: low-res logits to the host");
    return st;
}

static um_status check_finite(int count, const float *iou, const float *low, int side)
{
    size_t n = (size_t)count * (size_t)side * (size_t)side;
    bool finite = true;
    for (int i = 0; i < count; i++)
        finite = finite && isfinite(iou[i]);
    for (size_t i = 0; finite && i < n; i++)
        finite = isfinite(low[i]);
    return finite ? UM_OK
                  : um_fail(UM_ENUMERIC, "the segmenter's logits or scores are not finite numbers");
}

static void write_kpi(um_predictor *s, bool host)
{
    char line[256];
    pthread_mutex_lock(&s->model->lock);
    void (*kpi)(void *, const char *) = s->model->kpi;
    void *ctx = s->model->kpi_ctx;
    pthread_mutex_unlock(&s->model->lock);
    if (!kpi)
        return;
    um_kpi_line(line, sizeof line, um_clock_unix(), host, um_device_name(s->dev), "");
    kpi(ctx, line);
}

static um_status predict(um_predictor *s, const um_prompts *prompts, um_prediction *out)
{
    const um_decode *d = NULL;
    um_mask_mode mode = UM_MASK_AUTO;
    um_status st = um_mask_mode_resolve(prompts->as_numpy, s->model, &mode);
    if (st == UM_OK)
        st = check_prompts(s, prompts);
    struct um_prompt_kind kind = {.points = prompts->n_points,
                                  .box = prompts->box != NULL,
                                  .mask_input = prompts->mask_input != NULL,
                                  .multimask = prompts->multimask};
    if (st == UM_OK)
        st = find_decode(s, kind, &d);
    if (st == UM_OK)
        st = mask_path(s, d);
    if (st == UM_OK)
        st = send_prompts(s, prompts);
    if (st == UM_OK)
        st = um_tape_run(d->tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_tape_run(s->mask.tape, UM_QUEUE_MAIN);
    out->count = d ? d->out.masks : 0;
    for (int i = 0; i < out->count; i++)
        out->iou[i] = NAN;
    bool host = mode == UM_MASK_HOST;
    if (st == UM_OK && prompts->want_values) {
        st = make_values(s, d, host, prompts->want_logits, out);
        if (st == UM_OK && host)
            st = check_finite(out->count, out->scores->host, out->low->host,
                              um_segmenter_low_side(s->model));
    } else {
        for (int i = 0; i < out->count && st == UM_OK; i++)
            st = make_mask(s, i, host, &out->mask[i]);
        if (st == UM_OK && host)
            st = host_extras(s, d, out);
        if (st == UM_OK && host)
            st = check_finite(out->count, out->iou, out->low_res, out->low_res_side);
    }
    if (st == UM_OK)
        write_kpi(s, host);
    return st;
}

um_status um_prediction_empty(um_prediction *out)
{
    const um_prediction none = {.struct_size = sizeof none};
    return out ? um_record_out(out, &none, sizeof none, "um_prediction") : UM_OK;
}

um_status um_predictor_predict(um_predictor *predictor, const um_prompts *prompts,
                               um_prediction *out)
{
    um_prompts own = {0};
    um_prediction made = {.struct_size = sizeof made};
    um_status st = um_prediction_empty(out);
    if (!predictor || !prompts || !out)
        return um_fail(UM_EINVAL, "um_predictor_predict: predictor, prompts and out must be given");
    if (st == UM_OK)
        st = um_record_in(&own, sizeof own, prompts, "um_prompts");
    if (st == UM_OK)
        st = predict(predictor, &own, &made);
    if (st == UM_OK)
        st = um_record_out(out, &made, sizeof made, "um_prediction");
    if (st != UM_OK)
        um_prediction_close(&made);
    return st;
}

um_status um_predictor_scores(um_predictor *predictor, float *iou)
{
    if (!predictor || !iou || !predictor->mask.tape)
        return um_fail(UM_EINVAL, "um_predictor_scores: %s", iou ? "no prediction" : "iou is NULL");
    const um_decode *d = predictor->mask.decode;
    um_status st =
        um_tape_read(d->tape, d->out.iou, iou, UM_STAGE_SEGMENT, "scores read by the caller");
    for (int i = 0; i < d->out.masks && st == UM_OK; i++)
        if (!isfinite(iou[i]))
            st = um_fail(UM_ENUMERIC, "the segmenter's score of mask %d is not a finite number", i);
    return st;
}

void um_prediction_close(um_prediction *prediction)
{
    um_prediction own = {0};
    if (!prediction || um_record_in(&own, sizeof own, prediction, "um_prediction") != UM_OK)
        return;
    for (int i = 0; i < 3; i++)
        um_values_unref(&own.mask[i]);
    um_free(own.low_res);
    um_values_unref(&own.masks);
    um_values_unref(&own.scores);
    um_values_unref(&own.low);
    um_record_init(prediction, prediction->struct_size, &(um_prediction){0}, sizeof own);
}

/* ---- taps ---- */

um_status um_predictor_keep_taps(um_predictor *predictor)
{
    if (!predictor || predictor->encode.tape || predictor->uses)
        return um_fail(UM_EINVAL, "um_predictor_keep_taps: call it before the first image");
    predictor->keep_taps = true;
    return UM_OK;
}

/* Of three masks, "mask" is the one with the best score. */
static um_status dump_best_mask(um_predictor *s, struct um_dump *dump)
{
    const um_decode *d = s->mask.decode;
    float iou[3], *data = NULL;
    int best = 0, h = 0, w = 0, c = 0;
    const char *name = NULL;
    char tap[16];
    um_status st = um_tape_read(d->tape, d->out.iou, iou, UM_STAGE_DEBUG, "tap");
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

/* Of an image that was encoded elsewhere this is all that there is of the encoder. */
static um_status dump_embedding(um_predictor *s, struct um_dump *dump)
{
    um_embedding *e = NULL;
    um_status st = um_predictor_embedding(s, &e);
    if (st != UM_OK)
        return st;
    const int64_t dim[] = {1, 256, e->n, e->n};
    float *data = um_array((size_t)e->n * (size_t)e->n * 256, sizeof *data);
    st = data ? um_embedding_numbers(e, data) : um_fail(UM_ENOMEM, "dump of image_embedding");
    if (st == UM_OK)
        st = um_dump_add(dump, "image_embedding", 4, dim, data);
    else
        um_free(data);
    um_embedding_unref(&e);
    return st;
}

um_status um_predictor_dump(um_predictor *predictor, const char *path)
{
    struct um_dump dump = {0};
    um_predictor *s = predictor;
    if (!s || !path)
        return um_fail(UM_EINVAL, "um_predictor_dump: %s is NULL", s ? "path" : "predictor");
    um_status st =
        s->mask.tape ? UM_OK : um_fail(UM_EINVAL, "um_predictor_dump: no prediction was made");
    if (st == UM_OK)
        st = s->encoded ? um_dump_tape(&dump, s->encode.tape) : dump_embedding(s, &dump);
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
