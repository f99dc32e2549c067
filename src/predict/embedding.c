/* SPDX-License-Identifier: Apache-2.0 */
#include "predict/predictor.h"

#include "base/half.h"
#include "base/mem.h"
#include "base/number.h"
#include "weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 256 };

static uint64_t new_id(void)
{
    static atomic_ullong ids;
    return 1 + atomic_fetch_add(&ids, 1);
}

um_status um_embedding_new(um_embedding **out, const um_segmenter *s, int w, int h)
{
    int n = um_segmenter_low_side(s) / 4;
    um_embedding *e = um_zalloc(sizeof *e);
    *out = NULL;
    if (!e)
        return um_fail(UM_ENOMEM, "embedding");
    atomic_init(&e->refs, 1);
    e->id = new_id();
    e->dev = s->dev;
    e->n = n;
    e->w = w;
    e->h = h;
    memcpy(e->sha256, s->sha256, sizeof e->sha256);
    static const um_device_array_type types[UM_DTYPES] = {
        [UM_F32] = UM_ARRAY_F32, [UM_F16] = UM_ARRAY_F16, [UM_BF16] = UM_ARRAY_BF16};
    um_status st = um_values_open(&e->values, e->dev, false, types[e->dev->precision], 4,
                                  (int64_t[]){1, CHANNELS, n, n}, "embedding");
    if (st == UM_OK) {
        const int64_t strides[] = {(int64_t)CHANNELS * n * n, 1, (int64_t)CHANNELS * n, CHANNELS};
        memcpy(e->values->strides, strides, sizeof strides);
        e->values->read_only = true;
        e->buf = e->values->buf;
    } else {
        um_embedding_unref(&e);
    }
    *out = e;
    return st;
}

um_embedding *um_embedding_ref(um_embedding *embedding)
{
    if (embedding)
        atomic_fetch_add_explicit(&embedding->refs, 1, memory_order_relaxed);
    return embedding;
}

void um_embedding_unref(um_embedding **embedding)
{
    um_embedding *e = embedding ? *embedding : NULL;
    if (!e)
        return;
    *embedding = NULL;
    if (atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    um_values_unref(&e->values);
    um_free(e);
}

um_status um_embedding_resized(um_embedding **out, const um_embedding *embedding, int width,
                               int height)
{
    if (out)
        *out = NULL;
    if (!out || !embedding || width < 1 || height < 1 || width > UM_FRAME_MAX_SIDE ||
        height > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EINVAL,
                       "um_embedding_resized: %dx%d: want an embedding, and sides of 1 to %d",
                       width, height, UM_FRAME_MAX_SIDE);
    um_embedding *e = um_zalloc(sizeof *e);
    *out = e;
    if (!e)
        return um_fail(UM_ENOMEM, "embedding");
    *e = *embedding;
    atomic_init(&e->refs, 1);
    e->id = new_id();
    e->values = um_values_ref(embedding->values);
    e->w = width;
    e->h = height;
    return UM_OK;
}

void um_embedding_image_size(const um_embedding *embedding, int *width, int *height)
{
    if (width)
        *width = embedding ? embedding->w : 0;
    if (height)
        *height = embedding ? embedding->h : 0;
}

um_values *um_embedding_values(const um_embedding *embedding)
{
    return embedding ? um_values_ref(embedding->values) : NULL;
}

/* ---- as numbers: [n,n,256] of the device's precision <-> f32 [1,256,n,n] ---- */

um_status um_embedding_numbers(const um_embedding *e, float *out)
{
    static const char REASON[] = "embedding read by the caller";
    enum um_dtype dtype = e->dev->precision;
    if (dtype == UM_F32)
        return um_values_download(e->values, out, UM_STAGE_SEGMENT, REASON);
    uint16_t *half = um_alloc(e->buf->size);
    if (!half)
        return um_fail(UM_ENOMEM, "embedding");
    um_status st = um_values_download(e->values, half, UM_STAGE_SEGMENT, REASON);
    if (st == UM_OK)
        (dtype == UM_F16 ? um_f16_to_f32 : um_bf16_to_f32)(out, half, e->buf->size / sizeof *half);
    um_free(half);
    return st;
}

static um_status write_numbers(um_embedding *e, const float *in)
{
    enum um_dtype dtype = e->dev->precision;
    size_t pixels = (size_t)e->n * (size_t)e->n, size = um_dtype_size(dtype);
    unsigned char *raw = um_alloc(e->buf->size);
    if (!raw)
        return um_fail(UM_ENOMEM, "embedding");
    for (size_t i = 0; i < pixels * CHANNELS; i++) {
        const float *from = &in[i % CHANNELS * pixels + i / CHANNELS];
        void *to = raw + i * size;
        if (dtype == UM_F16)
            um_f32_to_f16(to, from, 1);
        else if (dtype == UM_BF16)
            um_f32_to_bf16(to, from, 1);
        else
            memcpy(to, from, sizeof *from);
    }
    um_status st =
        um_upload_now(e->dev, e->buf, 0, raw, e->buf->size, UM_STAGE_SETUP, "embedding of a file");
    um_free(raw);
    return st;
}

/* ---- files ---- */

um_status um_embedding_save(const um_embedding *embedding, const char *path)
{
    const um_embedding *e = embedding;
    if (!e || !path)
        return um_fail(UM_EINVAL, "um_embedding_save: %s is NULL", e ? "path" : "embedding");
    char width[16], height[16];
    snprintf(width, sizeof width, "%d", e->w);
    snprintf(height, sizeof height, "%d", e->h);
    const char *meta[] = {"segmenter_sha256", e->sha256, "image_width", width,
                          "image_height",     height,    NULL};
    float *data = um_array((size_t)e->n * (size_t)e->n * CHANNELS, sizeof *data);
    um_status st = data ? um_embedding_numbers(e, data) : um_fail(UM_ENOMEM, "embedding");
    struct um_wout tensor = {.name = "image_embedding",
                             .type = UM_W_F32,
                             .rank = 4,
                             .dim = {1, CHANNELS, e->n, e->n},
                             .data = data};
    if (st == UM_OK)
        st = um_safetensors_write(path, &tensor, 1, meta);
    um_free(data);
    return st;
}

static um_status read_side(const um_weights *file, const char *key, int *out)
{
    const char *text = um_weights_meta(file, key);
    uint64_t v = 0;
    if (!text || !um_number_whole(text, UM_FRAME_MAX_SIDE, &v) || v < 1)
        return um_fail(UM_EFORMAT, "%s: metadata %s is %s, want 1 to %d", um_weights_path(file),
                       key, text ? text : "missing", UM_FRAME_MAX_SIDE);
    *out = (int)v;
    return UM_OK;
}

um_status um_embedding_load(um_embedding **out, const um_segmenter *segmenter, const char *path)
{
    um_weights *file = NULL;
    float *data = NULL;
    int w = 0, h = 0;
    if (out)
        *out = NULL;
    if (!out || !segmenter || !path)
        return um_fail(UM_EINVAL, "um_embedding_load: out, segmenter and path must be given");
    int n = um_segmenter_low_side(segmenter) / 4;
    um_status st = um_weights_open(&file, path);
    const char *sha = st == UM_OK ? um_weights_meta(file, "segmenter_sha256") : NULL;
    if (st == UM_OK && (!sha || strcmp(sha, segmenter->sha256) != 0))
        st = um_fail(UM_EFORMAT, "%s: an embedding of model %.12s, not of this segmenter, %.12s",
                     path, sha ? sha : "unknown", segmenter->sha256);
    if (st == UM_OK)
        st = read_side(file, "image_width", &w);
    if (st == UM_OK)
        st = read_side(file, "image_height", &h);
    if (st == UM_OK)
        st = um_weights_read(file, "image_embedding", 4, (int64_t[]){1, CHANNELS, n, n}, &data);
    for (size_t i = 0; st == UM_OK && i < (size_t)n * (size_t)n * CHANNELS; i++)
        if (!isfinite(data[i]))
            st = um_fail(UM_EFORMAT, "%s: a number of image_embedding is not finite", path);
    if (st == UM_OK)
        st = um_embedding_new(out, segmenter, w, h);
    if (st == UM_OK)
        st = write_numbers(*out, data);
    if (st != UM_OK)
        um_embedding_unref(out);
    um_free(data);
    um_weights_close(&file);
    return st;
}
