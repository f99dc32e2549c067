/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a weight file, and writing it again as safetensors. */
#include "ultramotion/model.h"

#include "base/half.h"
#include "base/mem.h"
#include "base/record.h"
#include "model/dfine.h"
#include "model/recognise.h"
#include "model/sam.h"
#include "ultramotion/ultramotion.h"
#include "weights/view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SAM_STEP = 16, PAIRS_MAX = 512 };

/* ---- inspect ---- */

static um_status describe_sam(const um_weights *file, um_model_info *info)
{
    const struct um_sam_family *family = NULL;
    um_status st = um_sam_family_find(file, NULL, &family);
    if (st != UM_OK)
        return st;
    info->kind = family->kind;
    info->channels = 3;
    um_sam_architecture(family, file, info->architecture, sizeof info->architecture);
    st = um_input_size(file, SAM_STEP, &info->input_size);
    info->input_size_from = "metadata";
    if (st != UM_OK || info->input_size)
        return st;
    info->input_size = um_sam_native_canvas(family, file);
    info->input_size_from = family->vit ? "tensors" : "default";
    return UM_OK;
}

static um_status describe(const um_weights *file, um_model_info *info)
{
    snprintf(info->architecture, sizeof info->architecture, "unknown");
    snprintf(info->format, sizeof info->format, "%s", um_weights_format(file));
    snprintf(info->sha256, sizeof info->sha256, "%s", um_weights_sha256(file));
    info->input_size_from = "default";
    info->tensors = um_weights_count(file);
    for (int i = 0; i < info->tensors; i++) {
        const struct um_wtensor *t = um_weights_at(file, i);
        info->parameters += (uint64_t)um_wtensor_elements(t);
        info->bytes += (uint64_t)um_wtensor_elements(t) * um_wtype_bytes(t->type);
    }
    if (um_sam_recognise(file))
        return describe_sam(file, info);
    if (!um_weights_find(file, "decoder.enc_score_head.weight"))
        return UM_OK;
    struct um_dfine_info dfine;
    int side = 0;
    um_status st = um_dfine_recognise(file, &dfine);
    if (st != UM_OK) /* a relative (RT-DETR), unless only the metadata is wrong */
        return um_input_size(file, UM_DFINE_STEP, &side);
    info->kind = UM_MODEL_DFINE;
    snprintf(info->architecture, sizeof info->architecture, "%s", dfine.architecture);
    info->classes = dfine.classes;
    info->channels = dfine.channels;
    info->input_size = dfine.input_size;
    info->input_size_from = um_weights_meta(file, "input_size") ? "metadata"
                            : um_dfine_anchor_side(file)        ? "tensors"
                                                                : "default";
    return UM_OK;
}

/* Takes the file, which was opened with `st`. */
static um_status inspect(um_weights *file, um_status st, um_model_info *info)
{
    um_model_info found = {.struct_size = sizeof found};
    if (st == UM_OK)
        st = describe(file, &found);
    um_weights_close(&file);
    return st == UM_OK ? um_record_out(info, &found, sizeof found, "um_model_info") : st;
}

um_status um_model_inspect(const char *path, um_model_info *info)
{
    if (!path || !info)
        return um_fail(UM_EINVAL, "um_model_inspect: %s is NULL", path ? "info" : "path");
    um_weights *file = NULL;
    um_status st = um_weights_open(&file, path);
    return inspect(file, st, info);
}

um_status um_model_inspect_memory(const void *data, size_t size, const char *label,
                                  um_model_info *info)
{
    if (!data || !label || !info)
        return um_fail(UM_EINVAL, "um_model_inspect_memory: want data, a label and an info");
    um_weights *file = NULL;
    um_status st = um_weights_open_memory(&file, data, size, label);
    return inspect(file, st, info);
}

um_status um_model_tensors(const char *path, um_model_tensor_fn *fn, void *ctx)
{
    if (!path || !fn)
        return um_fail(UM_EINVAL, "um_model_tensors: want a path and a function");
    um_weights *file = NULL;
    um_status st = um_weights_open(&file, path);
    for (int i = 0; st == UM_OK && i < um_weights_count(file); i++) {
        const struct um_wtensor *t = um_weights_at(file, i);
        fn(ctx, t->name, um_wtype_name(t->type), t->rank, t->dim);
    }
    um_weights_close(&file);
    return st;
}

um_status um_model_metadata(const char *path, um_model_meta_fn *fn, void *ctx)
{
    if (!path || !fn)
        return um_fail(UM_EINVAL, "um_model_metadata: want a path and a function");
    um_weights *file = NULL;
    um_status st = um_weights_open(&file, path);
    for (int i = 0; st == UM_OK && i < file->meta_count; i++)
        fn(ctx, file->meta[i].key, file->meta[i].value);
    um_weights_close(&file);
    return st;
}

/* ---- convert ---- */

struct pairs {
    const char *text[2 * PAIRS_MAX + 1]; /* key, value, …, NULL */
    int count;
};

/* The last value given for a key holds. */
static um_status set(struct pairs *p, const char *key, const char *value)
{
    int i = 0;
    while (i < p->count && strcmp(p->text[2 * i], key) != 0)
        i++;
    if (i == PAIRS_MAX)
        return um_fail(UM_EINVAL, "more than %d metadata entries", PAIRS_MAX);
    p->count += i == p->count;
    p->text[2 * i] = key;
    p->text[2 * i + 1] = value;
    return UM_OK;
}

static bool floating(enum um_wtype t)
{
    return t == UM_W_F32 || t == UM_W_F16 || t == UM_W_BF16 || t == UM_W_F64;
}

/* Counters of training, and tables made for one input size when the file shall say another. */
static bool dropped(const char *name, bool same_size)
{
    static const char COUNTER[] = ".num_batches_tracked";
    size_t n = strlen(name), c = sizeof COUNTER - 1;
    if (n >= c && strcmp(name + n - c, COUNTER) == 0)
        return true;
    return !same_size &&
           (strcmp(name, "decoder.anchors") == 0 || strcmp(name, "decoder.valid_mask") == 0);
}

static um_status convert_tensor(struct um_arena *arena, const struct um_wtensor *t, bool half,
                                struct um_wout *out)
{
    *out = (struct um_wout){.name = t->name, .type = t->type, .rank = t->rank};
    memcpy(out->dim, t->dim, sizeof out->dim);
    size_t n = (size_t)um_wtensor_elements(t), bytes = um_wtype_bytes(t->type);
    if (floating(t->type)) {
        out->type = half ? UM_W_F16 : UM_W_F32;
        bytes = um_wtype_bytes(out->type);
    }
    void *data = um_arena_take(arena, n * bytes);
    if (!data)
        return um_fail(UM_ENOMEM, "tensor %s: %zu bytes", t->name, n * bytes);
    out->data = data;
    if (out->type == t->type) {
        um_view_copy(t, data);
        return UM_OK;
    }
    float *values = half ? um_array(n, sizeof *values) : data;
    if (!values)
        return um_fail(UM_ENOMEM, "tensor %s: %zu floats", t->name, n);
    um_view_floats(t, values);
    um_status st = UM_OK;
    for (size_t i = 0; i < n && st == UM_OK; i++) {
        /* 65520 and more round to infinity in fp16; F64 may already have left fp32. */
        bool lost = half ? isfinite(values[i]) && fabsf(values[i]) >= 65520.0f : isinf(values[i]);
        if ((lost || (half && isinf(values[i]))) && isfinite(um_wtensor_at(t, (int64_t)i)))
            st = um_fail(UM_EFORMAT, "tensor %s: value %g at %zu does not fit %s", t->name,
                         um_wtensor_at(t, (int64_t)i), i, half ? "fp16" : "fp32");
    }
    if (half) {
        if (st == UM_OK)
            um_f32_to_f16(data, values, n);
        um_free(values);
    }
    return st;
}

static um_status check_target(const char *path, const char *out)
{
    struct stat a, b;
    if (stat(path, &a) == 0 && stat(out, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return um_fail(UM_EINVAL, "%s: is also the input %s", out, path);
    return UM_OK;
}

static um_status check_size(const um_model_info *info, int input_size)
{
    int step = info->kind == UM_MODEL_DFINE ? UM_DFINE_STEP : SAM_STEP;
    if (input_size < 0 || input_size > UM_INPUT_MAX || input_size % step)
        return um_fail(UM_EINVAL, "input size %d: want a multiple of %d up to %d", input_size, step,
                       UM_INPUT_MAX);
    return UM_OK;
}

static um_status convert(const um_weights *file, const char *out, bool half, int input_size,
                         const char *const *metadata, struct pairs *p)
{
    um_model_info info = {.struct_size = sizeof info};
    um_status st = describe(file, &info);
    if (st == UM_OK)
        st = check_size(&info, input_size);
    char size[16], classes[16], producer[48];
    bool same_size = input_size == 0 || input_size == info.input_size;
    snprintf(size, sizeof size, "%d", input_size ? input_size : info.input_size);
    snprintf(classes, sizeof classes, "%d", info.classes);
    snprintf(producer, sizeof producer, "ultramotion %s", um_version());
    for (int i = 0; st == UM_OK && i < file->meta_count; i++)
        st = set(p, file->meta[i].key, file->meta[i].value);
    if (st == UM_OK)
        st = set(p, "architecture", info.architecture);
    if (st == UM_OK && strcmp(size, "0") != 0)
        st = set(p, "input_size", size);
    /* A list of names that the file already has says more than a number. */
    if (st == UM_OK && info.classes && !um_weights_meta(file, "classes"))
        st = set(p, "classes", classes);
    if (st == UM_OK)
        st = set(p, "source_sha256", info.sha256);
    if (st == UM_OK)
        st = set(p, "producer", producer);
    const struct um_sam_family *family = NULL;
    for (int i = 0; st == UM_OK && metadata && metadata[i]; i += 2) {
        st = metadata[i + 1] ? set(p, metadata[i], metadata[i + 1])
                             : um_fail(UM_EINVAL, "metadata %s has no value", metadata[i]);
        if (st == UM_OK && strcmp(metadata[i], "architecture") == 0 && um_sam_recognise(file))
            st = um_sam_family_find(file, metadata[i + 1], &family);
    }
    if (st != UM_OK)
        return st;

    struct um_arena arena = {NULL};
    struct um_wout *tensor = um_array((size_t)um_weights_count(file) + 1, sizeof *tensor);
    int n = 0;
    if (!tensor)
        st = um_fail(UM_ENOMEM, "table of tensors");
    for (int i = 0; st == UM_OK && i < um_weights_count(file); i++) {
        const struct um_wtensor *t = um_weights_at(file, i);
        if (!dropped(t->name, same_size))
            st = convert_tensor(&arena, t, half, &tensor[n++]);
    }
    if (st != UM_OK)
        st = um_fail_in(st, um_weights_path(file));
    else
        st = um_safetensors_write(out, tensor, n, p->text);
    um_free(tensor);
    um_arena_finish(&arena);
    return st;
}

um_status um_model_convert(const char *path, const char *out, const char *precision, int input_size,
                           const char *const *metadata)
{
    if (!path || !out || !*out || !precision)
        return um_fail(UM_EINVAL, "um_model_convert: want an input, an output and a precision");
    bool half = strcmp(precision, "fp16") == 0;
    if (!half && strcmp(precision, "fp32") != 0)
        return um_fail(UM_EUNSUPPORTED, "precision %.20s: want fp32 or fp16", precision);
    um_status st = check_target(path, out);
    if (st != UM_OK)
        return st;
    um_weights *file = NULL;
    struct pairs *p = um_zalloc(sizeof *p);
    st = p ? um_weights_open(&file, path) : um_fail(UM_ENOMEM, "metadata");
    if (st == UM_OK)
        st = convert(file, out, half, input_size, metadata, p);
    um_weights_close(&file);
    um_free(p);
    return st;
}
