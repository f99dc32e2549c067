/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/segmenter.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/thread.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

static um_status open_model(um_segmenter **out, um_device *device, const um_weights *file,
                            int canvas, const char *family)
{
    um_segmenter *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "segmenter");
    pthread_mutex_init(&s->lock, NULL);
    um_turn_init(&s->own_lock);
    atomic_init(&s->refs, 1);
    s->dev = um_device_ref(device);
    memcpy(s->sha256, um_weights_sha256(file), sizeof s->sha256);
    um_status st = um_sam_open(&s->net, device, file, canvas, family);
    if (st == UM_OK)
        um_sam_architecture(um_sam_family(s->net), file, s->architecture, sizeof s->architecture);
    else
        um_segmenter_close(&s);
    *out = s;
    return st;
}

/* The file of this name; data: what is in it. */
static um_status open_file(um_segmenter **out, um_device *device, const char *name,
                           const void *data, size_t size, int canvas, const char *family)
{
    um_weights *file = NULL;
    if (out)
        *out = NULL;
    if (!out || !device)
        return um_fail(UM_EINVAL, "um_segmenter_open: %s is NULL", out ? "device" : "out");
    um_status st =
        data ? um_weights_open_memory(&file, data, size, name) : um_weights_open(&file, name);
    if (st == UM_OK)
        st = open_model(out, device, file, canvas, family);
    um_weights_close(&file);
    return st;
}

um_status um_segmenter_open(um_segmenter **out, um_device *device, const char *path, int canvas,
                            const char *family)
{
    return open_file(out, device, path, NULL, 0, canvas, family);
}

um_status um_segmenter_open_memory(um_segmenter **out, um_device *device, const void *data,
                                   size_t size, const char *label, int canvas, const char *family)
{
    if (out)
        *out = NULL;
    return data ? open_file(out, device, label, data, size, canvas, family)
                : um_fail(UM_EINVAL, "um_segmenter_open_memory: data is NULL");
}

um_segmenter *um_segmenter_ref(um_segmenter *segmenter)
{
    if (segmenter)
        atomic_fetch_add_explicit(&segmenter->refs, 1, memory_order_relaxed);
    return segmenter;
}

void um_segmenter_close(um_segmenter **segmenter)
{
    um_segmenter *s = segmenter ? *segmenter : NULL;
    if (!s)
        return;
    *segmenter = NULL;
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (s->own)
        s->close_own(&s->own);
    um_sam_close(&s->net);
    pthread_mutex_destroy(&s->own_lock);
    pthread_mutex_destroy(&s->lock);
    um_device_close(&s->dev);
    um_free(s);
}

int um_segmenter_canvas(const um_segmenter *segmenter)
{
    return segmenter ? um_sam_canvas(segmenter->net) : 0;
}

int um_segmenter_canvas_step(const um_segmenter *segmenter)
{
    return segmenter ? um_sam_canvas_step(segmenter->net) : 0;
}

int um_segmenter_low_side(const um_segmenter *s)
{
    return 4 * um_sam_grid(s->net);
}

const char *um_segmenter_architecture(const um_segmenter *segmenter)
{
    return segmenter ? segmenter->architecture : "";
}

const char *um_segmenter_sha256(const um_segmenter *segmenter)
{
    return segmenter ? segmenter->sha256 : "";
}

um_device *um_segmenter_device(const um_segmenter *segmenter)
{
    return segmenter ? segmenter->dev : NULL;
}

void um_segmenter_set_mask_mode(um_segmenter *segmenter, um_mask_mode mode)
{
    if (!segmenter)
        return;
    pthread_mutex_lock(&segmenter->lock);
    segmenter->mode = mode;
    pthread_mutex_unlock(&segmenter->lock);
}

void um_segmenter_set_kpi(um_segmenter *segmenter, void (*write)(void *ctx, const char *line),
                          void *ctx)
{
    if (!segmenter)
        return;
    pthread_mutex_lock(&segmenter->lock);
    segmenter->kpi = write;
    segmenter->kpi_ctx = ctx;
    pthread_mutex_unlock(&segmenter->lock);
}

um_status um_mask_mode_resolve(um_mask_mode argument, const um_segmenter *s, um_mask_mode *out)
{
    const char *env = getenv("ULTRAMOTION_SAM_AS_NUMPY");
    *out = argument;
    if (argument == UM_MASK_AUTO && s) {
        pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&s->lock);
        *out = s->mode;
        pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&s->lock);
    }
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

um_status um_segmenter_mask_mode(const um_segmenter *segmenter, um_mask_mode as_numpy,
                                 um_mask_mode *out)
{
    if (!segmenter || !out)
        return um_fail(UM_EINVAL, "um_segmenter_mask_mode: %s is NULL",
                       segmenter ? "out" : "segmenter");
    return um_mask_mode_resolve(as_numpy, segmenter, out);
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
        return um_fail(UM_EINVAL, "box %g,%g,%g,%g does not touch the %dx%d image", box[0], box[1],
                       box[2], box[3], w, h);
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

/* ---- image encoder ---- */

/* Only where each step of the encoder is one of the tape's. */
static um_status open_beyond(um_encode *s)
{
    um_device *dev = s->model->dev;
    size_t bytes = um_sam_beyond_bytes(s->model->net);
    if (!bytes || !um_tape_takes(s->tape, UM_OP_MBCONV) || !um_tape_takes(s->tape, UM_OP_MLP) ||
        !um_tape_takes(s->tape, UM_OP_WINDOW_BLOCK))
        return UM_OK;
    um_status st = um_buf_open(&s->beyond, dev, bytes, "beyond the image");
    struct um_beyond none = {0};
    return st == UM_OK ? um_upload_now(dev, s->beyond, 0, &none, sizeof none, UM_STAGE_SETUP,
                                       "beyond the image")
                       : st;
}

um_status um_encode_open(um_encode *s, const um_segmenter *model, bool keep_taps)
{
    um_device *dev = model->dev;
    int side = um_sam_canvas(model->net);
    *s = (um_encode){.model = model};
    um_status st =
        um_buf_open(&s->input, dev, (size_t)side * (size_t)side * 3 * um_dtype_size(dev->precision),
                    "segmenter input");
    if (st == UM_OK)
        st = um_tape_open(&s->tape, dev, "encode");
    if (st != UM_OK)
        return st;
    if (keep_taps) /* whole maps are wanted */
        um_tape_keep_taps(s->tape);
    else if ((st = open_beyond(s)) != UM_OK)
        return st;
    um_tensor x = um_tape_buffer(s->tape, s->input, 0, dev->precision, side, side, 3), beyond = {0};
    if (s->beyond)
        beyond = um_tape_buffer(s->tape, s->beyond, 0, UM_U8, 1, 1, (int)s->beyond->size);
    s->embedding = um_keep(s->tape, um_sam_encode(model->net, s->tape, x, beyond));
    return um_tape_compile(s->tape);
}

void um_encode_close(um_encode *s)
{
    um_tape_close(&s->tape);
    um_buf_close(&s->beyond);
    um_buf_close(&s->input);
}

uint64_t um_encode_device_bytes(const um_encode *s)
{
    if (!s->tape)
        return 0;
    return um_tape_arena_bytes(s->tape) + s->input->size + (s->beyond ? s->beyond->size : 0);
}

struct um_front_target um_encode_target(const um_encode *s, int w, int h)
{
    static _Thread_local float lut[3][256];
    int side = um_sam_canvas(s->model->net), new_h = side, new_w = side;
    enum um_fit fit = um_sam_family(s->model->net)->fit;
    um_sam_lut(lut);
    if (fit != UM_FIT_STRETCH)
        um_longest_side(side, h, w, &new_h, &new_w);
    return (struct um_front_target){.input = s->input,
                                    .size_h = side,
                                    .size_w = side,
                                    .c = 3,
                                    .new_h = new_h,
                                    .new_w = new_w,
                                    .fit = fit,
                                    .smooth = 1,
                                    .lut = fit == UM_FIT_LONGEST ? (const float(*)[256])lut : NULL};
}

/* ---- prompt encoder and mask decoder ---- */

um_status um_decode_open(um_decode *s, const um_segmenter *model, struct um_prompt_kind kind,
                         const struct um_decode_input *in, bool keep_taps)
{
    int low = um_segmenter_low_side(model), n = low / 4;
    *s = (um_decode){.kind = kind};
    um_status st = um_tape_open(&s->tape, model->dev, "decode");
    if (st != UM_OK)
        return st;
    um_tape *t = s->tape;
    if (keep_taps)
        um_tape_keep_taps(t);
    um_tensor embedding =
        in->encode ? um_tape_import(t, in->encode->tape, in->encode->embedding)
                   : um_tape_buffer(t, in->embedding, 0, model->dev->precision, n, n, 256);
    um_tensor prompt = um_tape_buffer(t, in->prompt, 0, UM_U8, 1, 1, (int)sizeof(struct um_prompt));
    um_tensor previous = kind.mask_input ? um_tape_buffer(t, in->mask_input, 0, UM_F32, low, low, 1)
                                         : (um_tensor){0};
    s->out = um_sam_decode(model->net, t, embedding, prompt, kind.points, kind.box, previous,
                           kind.multimask);
    for (int m = 0; m < s->out.masks; m++)
        um_keep(t, s->out.low[m]);
    um_keep(t, s->out.iou);
    return um_tape_compile(t);
}

void um_decode_close(um_decode *s)
{
    um_tape_close(&s->tape);
}

struct um_mask_tables um_segmenter_tables(const um_segmenter *s, um_params *p, int w, int h)
{
    static const float bias[2] = {0, -0.5f};
    struct um_mask_tables k = {.tx = {0, 0}};
    int side = um_sam_canvas(s->net), low = um_segmenter_low_side(s), new_h = low, new_w = low;
    if (um_sam_family(s->net)->fit == UM_FIT_STRETCH) {
        side = low; /* from the logits to the image in one step */
        for (int i = 0; i < 2; i++)
            k.bias[i] = um_params_add(p, &bias[i], sizeof bias[i]);
    } else {
        um_longest_side(side, h, w, &new_h, &new_w);
    }
    float *tx = um_params_reserve(p, (size_t)w * 4 * sizeof *tx, &k.tx);
    if (tx)
        um_mask_taps(tx, low, side, new_w, w);
    float *ty = um_params_reserve(p, (size_t)h * 4 * sizeof *ty, &k.ty);
    if (ty)
        um_mask_taps(ty, low, side, new_h, h);
    return k;
}

um_tensor um_segmenter_scores(const um_segmenter *s, um_tape *t, um_params *p,
                              struct um_mask_tables k, um_tensor low)
{
    if (um_sam_family(s->net)->fit != UM_FIT_STRETCH)
        return low;
    um_tensor zero = um_tape_const(t, p, k.bias[0], UM_F32, 1, 1, 1),
              half = um_tape_const(t, p, k.bias[1], UM_F32, 1, 1, 1);
    return um_add(t, um_add(t, low, zero, .act = UM_ACT_SIGMOID), half);
}
