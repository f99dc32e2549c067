/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a weight file, and writing it again as safetensors. */
#include "ultramotion/model.h"

#include "base/file.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/record.h"
#include "base/text.h"
#include "model/convert.h"
#include "model/dfine_net.h"
#include "model/input_size.h"
#include "model/sam.h"
#include "model/upstream.h"
#include "ultramotion/ultramotion.h"
#include "weights/labels.h"
#include "weights/view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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
    st = um_input_size(file, UM_SAM_STEP, &info->input_size);
    info->input_size_from = "metadata";
    if (st != UM_OK || info->input_size)
        return st;
    info->input_size = um_sam_native_canvas(family, file);
    info->input_size_from = family->vit ? "tensors" : "default";
    return UM_OK;
}

static const char *act_name(enum um_act act)
{
    return act == UM_ACT_SILU ? "silu" : "relu";
}

static const char *fit_name(const struct um_dfine_info *d)
{
    return d->letterbox ? "letterbox" : "stretch";
}

static void describe_dfine(const um_weights *file, const struct um_dfine_info *d,
                           um_model_info *info)
{
    const char *from = NULL, *names = um_weights_fact(file, "classes", &from);
    info->kind = UM_MODEL_DFINE;
    snprintf(info->architecture, sizeof info->architecture, "%s", d->architecture);
    info->family = d->family;
    info->classes = d->classes;
    info->channels = d->channels;
    info->input_size = info->input_width = d->input_w;
    info->input_height = d->input_h;
    info->input_size_from = d->size_from;
    info->queries = d->queries;
    info->queries_from = d->queries_from;
    info->activation = act_name(d->act);
    info->activation_from = d->act_from;
    info->fit = fit_name(d);
    info->fit_from = d->fit_from;
    if (names && strspn(names, "0123456789") < strlen(names)) /* a plain number is their count */
        info->names_from = from;
    info->warning = d->warning;
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
    if (um_sam_recognise(file)) {
        um_status st = describe_sam(file, info);
        info->input_width = info->input_height = info->input_size;
        return st;
    }
    if (!um_weights_find(file, "decoder.enc_score_head.weight"))
        return UM_OK;
    struct um_dfine_info dfine;
    int side = 0;
    if (!um_dfine_tensors(file)) /* a relative (RT-DETR), unless its metadata is wrong */
        return um_input_size(file, UM_DFINE_STEP, &side);
    um_status st = um_dfine_recognise(file, &dfine);
    if (st == UM_OK)
        describe_dfine(file, &dfine, info);
    return st;
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
    const char *text[2 * UM_W_META_MAX + 1]; /* key, value, …, NULL */
    int count;
};

/* The last value given for a key holds. */
static um_status set(struct pairs *p, const char *key, const char *value)
{
    int i = 0;
    while (i < p->count && strcmp(p->text[2 * i], key) != 0)
        i++;
    if (i == UM_W_META_MAX)
        return um_fail(UM_EINVAL, "more than %d metadata entries", UM_W_META_MAX);
    p->count += i == p->count;
    p->text[2 * i] = key;
    p->text[2 * i + 1] = value;
    return UM_OK;
}

static const struct precision {
    const char *name;
    enum um_wtype type;
    bool same; /* as each tensor is stored */
} PRECISIONS[] = {{"fp32", UM_W_F32, false},
                  {"fp16", UM_W_F16, false},
                  {"bf16", UM_W_BF16, false},
                  {"same", UM_W_F32, true}};

static bool floating(enum um_wtype t)
{
    return t == UM_W_F32 || t == UM_W_F16 || t == UM_W_BF16 || t == UM_W_F64;
}

/* Counters of training, and tables made for one input size when the file shall say another. */
static bool dropped(const char *name, bool same_size, bool counters)
{
    static const char COUNTER[] = ".num_batches_tracked";
    size_t n = strlen(name), c = sizeof COUNTER - 1;
    if (n >= c && strcmp(name + n - c, COUNTER) == 0)
        return !counters;
    return !same_size &&
           (strcmp(name, "decoder.anchors") == 0 || strcmp(name, "decoder.valid_mask") == 0);
}

static void round_to(enum um_wtype type, void *data, const float *values, size_t n)
{
    if (type == UM_W_F16)
        um_f32_to_f16(data, values, n);
    else
        um_f32_to_bf16(data, values, n);
}

/* Does a number that was finite still be one? 65520 and more round to infinity in fp16, and F64 may
 * already have left fp32. */
static bool survives(enum um_wtype type, float v)
{
    uint16_t half = 0;
    if (type == UM_W_F16)
        return fabsf(v) < 65520.0f;
    if (type == UM_W_BF16) {
        um_f32_to_bf16(&half, &v, 1);
        um_bf16_to_f32(&v, &half, 1);
    }
    return isfinite(v);
}

static um_status convert_tensor(struct um_arena *arena, const struct um_wtensor *t,
                                const struct precision *to, struct um_wout *out)
{
    *out = (struct um_wout){.name = t->name, .type = t->type, .rank = t->rank};
    memcpy(out->dim, t->dim, sizeof out->dim);
    size_t n = (size_t)um_wtensor_elements(t), bytes = um_wtype_bytes(t->type);
    if (floating(t->type) && !to->same) {
        out->type = to->type;
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
    bool half = out->type != UM_W_F32;
    float *values = half ? um_array(n, sizeof *values) : data;
    if (!values)
        return um_fail(UM_ENOMEM, "tensor %s: %zu floats", t->name, n);
    um_view_floats(t, values);
    um_status st = UM_OK;
    for (size_t i = 0; i < n && st == UM_OK; i++)
        if (!survives(out->type, values[i]) && isfinite(um_wtensor_at(t, (int64_t)i)))
            st = um_fail(UM_EFORMAT, "tensor %s: value %g at %zu does not fit %s", t->name,
                         um_wtensor_at(t, (int64_t)i), i, to->name);
    if (half) {
        if (st == UM_OK)
            round_to(out->type, data, values, n);
        um_free(values);
    }
    return st;
}

/* Readers go by the ending: torch.load() takes no safetensors, and the other way round. */
static um_status check_ending(const char *out, bool upstream)
{
    static const char *const torch[] = {".pth", ".pt", ".ckpt", ".bin"}, *const foreign[] = {
                                                                             ".onnx", ".engine",
                                                                             ".plan", ".trt",
                                                                             ".xml",  ".tflite",
                                                                             ".json"};
    const char *ending = strrchr(out, '.');
    bool is_torch = false;
    for (size_t i = 0; ending && i < sizeof foreign / sizeof *foreign; i++)
        if (um_text_same(ending, foreign[i]))
            return um_fail(UM_EINVAL,
                           "%s: want .safetensors, which is what is written, or --upstream and "
                           ".pth: nothing is exported to %s",
                           out, ending);
    for (size_t i = 0; ending && i < sizeof torch / sizeof *torch; i++)
        is_torch = is_torch || um_text_same(ending, torch[i]);
    if (is_torch && !upstream)
        return um_fail(UM_EINVAL,
                       "%s: a name of PyTorch's, want .safetensors, which is what is written, or "
                       "--upstream",
                       out);
    if (upstream && ending && um_text_same(ending, ".safetensors"))
        return um_fail(UM_EINVAL, "%s: want .pth or .pt, --upstream writes a PyTorch file", out);
    return UM_OK;
}

/* NULL: none is called so. */
static const struct precision *find_precision(const char *name)
{
    for (size_t i = 0; i < sizeof PRECISIONS / sizeof *PRECISIONS; i++)
        if (strcmp(name, PRECISIONS[i].name) == 0)
            return &PRECISIONS[i];
    return NULL;
}

um_status um_convert_check(const char *path, const char *out, const um_convert_settings *s)
{
    if (!s->precision)
        return um_fail(UM_EINVAL, "um_model_convert: want a precision");
    if (!find_precision(s->precision))
        return um_fail(strcmp(s->precision, "int8") == 0 ? UM_EUNSUPPORTED : UM_EINVAL,
                       "precision %.20s: want fp32, fp16, bf16, same, or int8 with --calibrate",
                       s->precision);
    um_status st = check_ending(out, s->upstream != 0);
    if (st == UM_OK && um_file_same(path, out))
        st = um_fail(UM_EINVAL, "%s: is also the input %s", out, path);
    if (st == UM_OK && s->names && um_file_same(s->names, out))
        st = um_fail(UM_EINVAL, "%s: is also the input %s", out, s->names);
    return st;
}

/* What the metadata of the new file says beside the old one's, in texts that live until it is
 * written. */
struct facts {
    char size[32], classes[16], queries[16], nms[UM_NUMBER_BYTES], smooth[UM_NUMBER_BYTES],
        producer[48], *names;
};

static um_status check_size(const um_model_info *info, const um_convert_settings *s)
{
    int step = info->kind == UM_MODEL_DFINE ? UM_DFINE_STEP : UM_SAM_STEP;
    bool square = info->kind == UM_MODEL_DFINE || s->input_width == s->input_height;
    const int side[2] = {s->input_width, s->input_height};
    for (int i = 0; i < 2; i++)
        if (side[i] < 0 || side[i] > UM_INPUT_MAX || side[i] % step || !square)
            return um_fail(UM_EINVAL, "input size %dx%d: want %smultiples of %d up to %d", side[0],
                           side[1], square ? "" : "a square, ", step, UM_INPUT_MAX);
    return UM_OK;
}

/* The names of a text file as one text. Without one: has what the model's file says, if it does,
 * one for each class? */
static um_status read_names(const char *path, const um_weights *file, int classes, char **text)
{
    char **name = um_array((size_t)classes, sizeof *name);
    const char *said = um_weights_fact(file, "classes", NULL);
    um_status st = name ? UM_OK : um_fail(UM_ENOMEM, "names of %d classes", classes);
    if (st == UM_OK && path)
        st = um_labels_read_file(path, name, classes);
    else if (st == UM_OK && said && (st = um_labels_read(said, name, classes)) != UM_OK)
        st = um_fail_in(st, um_weights_path(file));
    if (st == UM_OK && path)
        st = um_labels_print((const char *const *)name, classes, text);
    for (int i = 0; name && i < classes; i++)
        um_free(name[i]);
    um_free(name);
    return st;
}

static um_status set_dfine(struct pairs *p, struct facts *f, const um_weights *file,
                           const struct um_dfine_info *d, const um_convert_settings *s)
{
    struct um_dfine_info plain = *d;
    const char *names = um_weights_fact(file, "classes", NULL);
    const char *points = um_weights_fact(file, "points", NULL);
    um_dfine_set_act(&plain, d->act);
    snprintf(f->queries, sizeof f->queries, "%d", d->queries);
    um_number_float(f->nms, d->nms);
    um_number_float(f->smooth, d->smooth);
    um_status st =
        s->names || !s->upstream ? read_names(s->names, file, d->classes, &f->names) : UM_OK;
    /* A list of names says more than a number. */
    snprintf(f->classes, sizeof f->classes, "%d", d->classes);
    const char *const pair[][2] = {
        {"family", d->family},
        {"queries", f->queries},
        {"activation", act_name(d->act)},
        {"head_activation", d->head_act == plain.head_act ? NULL : act_name(d->head_act)},
        {"fit", fit_name(d)},
        {"gain", d->gain.mode == UM_GAIN_OFF ? NULL : d->gain_text},
        {"nms", d->nms > 0 ? f->nms : NULL},
        {"presence", d->presence.boxes ? d->presence_text : NULL},
        {"smooth", d->smooth > 1 ? f->smooth : NULL},
        {"points", points},
        {"classes", f->names ? f->names
                    : names  ? names
                             : f->classes}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair && st == UM_OK; i++)
        if (pair[i][1])
            st = set(p, pair[i][0], pair[i][1]);
    return st;
}

/* Does the new file's network compute other numbers than the old one's, for which the ranges of
 * int8 were not measured? */
static bool changes_ranges(const um_weights *file, const um_model_info *info,
                           const struct um_dfine_info *dfine, const um_convert_settings *s)
{
    struct um_dfine_info was;
    bool changes = dfine && um_dfine_recognise(file, &was) == UM_OK && was.act != dfine->act;
    for (int i = 0; s->metadata && s->metadata[i] && s->metadata[i + 1]; i += 2)
        if (!dfine && strcmp(s->metadata[i], "architecture") == 0)
            changes = strcmp(s->metadata[i + 1], info->architecture) != 0;
    return changes;
}

static um_status set_all(struct pairs *p, struct facts *f, const um_weights *file,
                         const um_model_info *info, const struct um_dfine_info *dfine,
                         const um_convert_settings *s)
{
    bool stale = changes_ranges(file, info, dfine, s);
    int w = s->input_width ? s->input_width : info->input_width,
        h = s->input_height ? s->input_height : info->input_height;
    um_status st = UM_OK;
    int n = snprintf(f->size, sizeof f->size, "%d", w);
    if (h != w)
        snprintf(f->size + n, sizeof f->size - (size_t)n, "x%d", h);
    snprintf(f->producer, sizeof f->producer, "ultramotion %s", um_version());
    for (int i = 0; st == UM_OK && i < file->meta_count; i++)
        if (!stale || strncmp(file->meta[i].key, "int8", strlen("int8")) != 0)
            st = set(p, file->meta[i].key, file->meta[i].value);
    if (st == UM_OK)
        st = set(p, "architecture", info->architecture);
    if (st == UM_OK && w)
        st = set(p, "input_size", f->size);
    if (st == UM_OK && dfine)
        st = set_dfine(p, f, file, dfine, s);
    if (st == UM_OK)
        st = set(p, "source_sha256", info->sha256);
    if (st == UM_OK)
        st = set(p, "producer", f->producer);
    const struct um_sam_family *family = NULL;
    for (int i = 0; st == UM_OK && s->metadata && s->metadata[i]; i += 2) {
        st = s->metadata[i + 1] ? set(p, s->metadata[i], s->metadata[i + 1])
                                : um_fail(UM_EINVAL, "metadata %s has no value", s->metadata[i]);
        bool family_said = strcmp(s->metadata[i], "architecture") == 0;
        if (st == UM_OK && family_said && dfine)
            st = um_fail(UM_EINVAL, "%s: a family is a segmenter's", um_weights_path(file));
        if (st == UM_OK && family_said && um_sam_recognise(file))
            st = um_sam_family_find(file, s->metadata[i + 1], &family);
    }
    return st;
}

static um_status write_model(const um_weights *file, const char *out, const struct precision *to,
                             bool same_size, const struct um_dfine_info *dfine, struct pairs *p,
                             bool upstream)
{
    struct um_arena arena = {NULL};
    int count = um_weights_count(file), n = 0;
    struct um_wout *tensor = um_array((size_t)count + UM_UPSTREAM_MAX + 1, sizeof *tensor);
    um_status st = tensor ? UM_OK : um_fail(UM_ENOMEM, "table of tensors");
    for (int i = 0; st == UM_OK && i < count; i++) {
        const struct um_wtensor *t = um_weights_at(file, i);
        if (!dropped(t->name, same_size, upstream))
            st = convert_tensor(&arena, t, to, &tensor[n++]);
    }
    if (st == UM_OK && upstream)
        st = um_upstream_complete(&arena, file, dfine, tensor, &n);
    if (st != UM_OK)
        st = um_fail_in(st, um_weights_path(file));
    else if (upstream)
        st = um_torch_write(out, tensor, n, dfine ? "model" : NULL);
    else
        st = um_safetensors_write(out, tensor, n, p->text);
    um_free(tensor);
    um_arena_finish(&arena);
    return st;
}

static um_status convert(const um_weights *file, const char *out, const struct precision *to,
                         const um_convert_settings *s, struct pairs *p)
{
    um_model_info info = {.struct_size = sizeof info};
    struct um_dfine_info dfine;
    struct um_dfine_wish wish;
    struct facts f = {.names = NULL};
    um_status st = describe(file, &info);
    bool detector = info.kind == UM_MODEL_DFINE;
    if (st == UM_OK)
        st = check_size(&info, s);
    if (st == UM_OK && detector)
        st = um_dfine_wish_read(&wish, &(um_detector_settings){.input_width = s->input_width,
                                                               .input_height = s->input_height,
                                                               .queries = s->queries,
                                                               .activation = s->activation,
                                                               .fit = s->fit});
    if (st == UM_OK && detector)
        st = um_dfine_recognise(file, &dfine);
    if (st == UM_OK && detector) {
        um_dfine_obey(&dfine, &wish);
        if (wish.input_w || wish.queries)
            st = um_dfine_check_queries(&dfine, um_dfine_maps(file).levels);
    } else if (st == UM_OK && (s->queries || s->activation || s->fit || s->names)) {
        st = um_fail(UM_EINVAL, "%s: queries, activation, fit and names are a detector's",
                     um_weights_path(file));
    }
    if (st == UM_OK && s->upstream && info.kind == UM_MODEL_UNKNOWN)
        st = um_fail(UM_EUNSUPPORTED, "%s: no network whose upstream is known",
                     um_weights_path(file));
    bool same_size = (!s->input_width || s->input_width == info.input_width) &&
                     (!s->input_height || s->input_height == info.input_height);
    if (st == UM_OK)
        st = set_all(p, &f, file, &info, detector ? &dfine : NULL, s);
    if (st == UM_OK)
        st = write_model(file, out, to, same_size, detector ? &dfine : NULL, p, s->upstream != 0);
    um_free(f.names);
    return st;
}

static const um_convert_settings DEFAULTS = {.struct_size = sizeof DEFAULTS, .precision = "fp32"};

void um_convert_settings_init(um_convert_settings *s, size_t struct_size)
{
    um_record_init(s, struct_size, &DEFAULTS, sizeof DEFAULTS);
}

um_status um_model_convert(const char *path, const char *out, const um_convert_settings *settings)
{
    um_convert_settings own = DEFAULTS;
    if (!path || !out || !*out)
        return um_fail(UM_EINVAL, "um_model_convert: want an input and an output");
    um_status st = um_record_in(&own, sizeof own, settings, "um_convert_settings");
    if (st != UM_OK)
        return st;
    um_weights *file = NULL;
    struct pairs *p = um_zalloc(sizeof *p);
    st = p ? um_weights_open(&file, path) : um_fail(UM_ENOMEM, "metadata");
    if (st == UM_OK)
        st = um_convert_check(um_weights_path(file), out, &own);
    if (st == UM_OK)
        st = convert(file, out, find_precision(own.precision), &own, p);
    um_weights_close(&file);
    um_free(p);
    return st;
}
