/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/weights.h"

#include "base/file.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/text.h"
#include "weights/view.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TENSORS_MAX = 1 << 20,
    /* Shared storages, broadcast strides and deflate let a small file describe huge tensors; honest
       ones stay near 1. */
    EXPANSION_MAX = 8,
    SLACK_BYTES = 1 << 20, /* what a file may take besides, however small it is */
};
static const int64_t FILE_BYTES_MAX = (int64_t)16 << 30;
static const int64_t DIM_MAX = (int64_t)1 << 40; /* also beside a dimension of 0 */

static const struct {
    const char *name;
    size_t bytes;
} TYPES[] = {
    [UM_W_F32] = {"F32", 4},   [UM_W_F16] = {"F16", 2}, [UM_W_BF16] = {"BF16", 2},
    [UM_W_F64] = {"F64", 8},   [UM_W_I64] = {"I64", 8}, [UM_W_I32] = {"I32", 4},
    [UM_W_I16] = {"I16", 2},   [UM_W_I8] = {"I8", 1},   [UM_W_U8] = {"U8", 1},
    [UM_W_BOOL] = {"BOOL", 1},
};

const char *um_wtype_name(enum um_wtype t)
{
    return TYPES[t].name;
}

size_t um_wtype_bytes(enum um_wtype t)
{
    return TYPES[t].bytes;
}

int64_t um_view_elements(int rank, const int64_t *dim)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0 || (dim[i] && n > INT64_MAX / dim[i]))
            return -1;
        n *= dim[i];
    }
    return n;
}

void um_view_strides(int rank, const int64_t *dim, int64_t *stride)
{
    uint64_t step = 1; /* of an empty tensor it may wrap: nobody takes it */
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = (int64_t)step;
        step *= dim[i] ? (uint64_t)dim[i] : 1;
    }
}

const char *um_view_shape(char *buf, size_t n, int rank, const int64_t *dim)
{
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int i = 0; i < rank && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, i ? ",%" PRId64 : "%" PRId64, dim[i]);
    if (at < n)
        snprintf(buf + at, n - at, "]");
    return buf;
}

uint64_t um_view_budget(const um_weights *w)
{
    return (uint64_t)w->size * EXPANSION_MAX + SLACK_BYTES;
}

static um_status check_length(const char *name, size_t n)
{
    return n > 0 && n <= UM_W_NAME_MAX
               ? UM_OK
               : um_fail(UM_EFORMAT, "tensor name %.*s…: %zu bytes, want 1 to %d",
                         n > 40 ? 40 : (int)n, name, n, UM_W_NAME_MAX);
}

static um_status check_name(const char *name, size_t n)
{
    um_status st = check_length(name, n);
    if (st != UM_OK)
        return st;
    for (size_t i = 0, bytes = 0; i < n; i += bytes) {
        uint32_t code = 0;
        bytes = um_text_utf8(name + i, n - i, &code);
        if (bytes == 0 || um_text_is_control(code))
            return um_fail(UM_EFORMAT, "tensor name %.*s…: %s at byte %zu", (int)i, name,
                           bytes ? "control character" : "no UTF-8", i);
    }
    return UM_OK;
}

um_status um_view_add(um_weights *w, const char *name, size_t n, const struct um_wtensor *t)
{
    um_status st = check_name(name, n);
    for (int i = 0; st == UM_OK && i < t->rank; i++)
        if (t->dim[i] > DIM_MAX)
            st = um_fail(UM_EFORMAT, "tensor %.*s: dimension %d is %" PRId64, (int)n, name, i,
                         t->dim[i]);
    if (st != UM_OK)
        return st;
    w->tensor_bytes += (double)um_wtensor_elements(t) * (double)um_wtype_bytes(t->type);
    if (w->tensor_bytes > (double)um_view_budget(w))
        return um_fail(UM_EFORMAT,
                       "tensor %.*s: with it %.0f bytes of tensors in a file of %zu, at most "
                       "%" PRIu64,
                       (int)n, name, w->tensor_bytes, w->size, um_view_budget(w));
    if (w->count == TENSORS_MAX)
        return um_fail(UM_EFORMAT, "more than %d tensors", TENSORS_MAX);
    if (!um_make_room(&w->tensor, &w->capacity, (size_t)w->count, 1, sizeof *w->tensor))
        return um_fail(UM_ENOMEM, "table of %d tensors", w->count + 1);
    char *copy = um_arena_string(&w->arena, name, n);
    if (!copy)
        return um_fail(UM_ENOMEM, "name of a tensor");
    w->tensor[w->count] = *t;
    w->tensor[w->count++].name = copy;
    return UM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct um_wtensor *)a)->name, ((const struct um_wtensor *)b)->name);
}

void um_view_sort(um_weights *w)
{
    if (w->count)
        qsort(w->tensor, (size_t)w->count, sizeof *w->tensor, by_name);
}

/* safetensors.torch.save_model() leaves out all but one of the tensors that share memory and says
 * so in the metadata: the name left out, and the one that is there. */
static um_status add_shared(um_weights *w)
{
    int kept = 0, there = w->count;
    um_status st = UM_OK;
    for (int i = 0; i < w->meta_count && st == UM_OK; i++) {
        const struct um_wpair *pair = &w->meta[i];
        const struct um_wtensor *t = NULL;
        bool whole = false;
        for (int k = 0; k < there; k++) {
            t = strcmp(w->tensor[k].name, pair->value) == 0 ? &w->tensor[k] : t;
            whole = whole || strcmp(w->tensor[k].name, pair->key) == 0;
        }
        if (!t)
            w->meta[kept++] = *pair;
        else if (!whole) {
            struct um_wtensor copy = *t; /* the table may move */
            st = um_view_add(w, pair->key, strlen(pair->key), &copy);
        }
    }
    w->meta_count = kept;
    return st;
}

/* What holds for every format: unique names, sorted, also those that were made longer. */
static um_status finish(um_weights *w)
{
    um_status st = add_shared(w);
    if (st == UM_OK)
        st = um_names_strip(w);
    if (st == UM_OK)
        st = um_hf_rename(w);
    for (int i = 0; st == UM_OK && i < w->count; i++)
        st = check_length(w->tensor[i].name, strlen(w->tensor[i].name));
    if (st != UM_OK)
        return st;
    um_view_sort(w);
    for (int i = 1; i < w->count; i++)
        if (strcmp(w->tensor[i].name, w->tensor[i - 1].name) == 0)
            return um_fail(UM_EFORMAT, "tensor %s: found twice", w->tensor[i].name);
    return UM_OK;
}

static um_status load(um_weights *w)
{
    const unsigned char *b = w->bytes;
    if (w->size >= 4 && b[0] == 'P' && b[1] == 'K') {
        w->format = "torch zip";
        return um_torch_zip_load(w);
    }
    /* A text may have a brace there, too, but no such length before it. */
    if (w->size >= 9 && b[8] == '{' && (b[7] < '\t' || b[7] > '~')) {
        w->format = "safetensors";
        return um_safetensors_load(w);
    }
    return um_stranger(b, w->size);
}

static um_status open_view(um_weights **out, const char *label, const void *data, size_t size)
{
    um_weights *w = um_zalloc(sizeof *w);
    if (!w || !(w->path = um_strdup(label))) {
        um_weights_close(&w);
        return um_fail_in(um_fail(UM_ENOMEM, "view of a weight file"), label);
    }
    w->bytes = data;
    w->size = size;
    um_status st = data ? UM_OK : um_file_read(label, FILE_BYTES_MAX, &w->own, &w->size);
    if (w->own)
        w->bytes = w->own;
    if (st == UM_OK)
        st = load(w);
    if (st == UM_OK)
        st = finish(w);
    if (st == UM_OK && !data) {
        st = um_config_read(w);
        if (st != UM_OK) { /* names its own file */
            um_weights_close(&w);
            return st;
        }
    }
    if (st != UM_OK) {
        um_weights_close(&w);
        return um_fail_in(st, label);
    }
    um_sha256_hex(w->sha256, w->bytes, w->size);
    *out = w;
    return UM_OK;
}

um_status um_weights_open(um_weights **out, const char *path)
{
    *out = NULL;
    if (!path || !*path)
        return um_fail(UM_EINVAL, "um_weights_open: no path");
    char *inside = NULL;
    um_status st = um_folder_resolve(path, &inside);
    if (st == UM_OK)
        st = open_view(out, inside ? inside : path, NULL, 0);
    um_free(inside);
    return st;
}

um_status um_weights_open_memory(um_weights **out, const void *data, size_t size, const char *label)
{
    *out = NULL;
    if ((!data && size) || !label || !*label)
        return um_fail(UM_EINVAL, "um_weights_open_memory: no %s",
                       label && *label ? "data" : "label");
    return open_view(out, label, data ? data : "", size);
}

void um_weights_close(um_weights **w)
{
    if (!w || !*w)
        return;
    um_arena_finish(&(*w)->arena);
    um_free((*w)->tensor);
    um_free((*w)->own);
    um_free((*w)->path);
    um_free(*w);
    *w = NULL;
}

int um_weights_count(const um_weights *w)
{
    return w->count;
}

const struct um_wtensor *um_weights_at(const um_weights *w, int i)
{
    return i >= 0 && i < w->count ? &w->tensor[i] : NULL;
}

const struct um_wtensor *um_weights_find(const um_weights *w, const char *name)
{
    struct um_wtensor key = {.name = name};
    return w->count ? bsearch(&key, w->tensor, (size_t)w->count, sizeof key, by_name) : NULL;
}

bool um_weights_has(const um_weights *w, const char *prefix)
{
    size_t n = strlen(prefix);
    int lo = 0, hi = w->count;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (strcmp(w->tensor[mid].name, prefix) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < w->count && strncmp(w->tensor[lo].name, prefix, n) == 0;
}

const char *um_weights_meta(const um_weights *w, const char *key)
{
    for (int i = 0; i < w->meta_count; i++)
        if (strcmp(w->meta[i].key, key) == 0)
            return w->meta[i].value;
    return NULL;
}

const char *um_weights_fact(const um_weights *w, const char *key, const char **from)
{
    const char *value = um_weights_meta(w, key), *where = "metadata";
    for (int i = 0; i < w->fact_count && !value; i++)
        if (strcmp(w->fact[i].key, key) == 0) {
            value = w->fact[i].value;
            where = "config.json";
        }
    if (value && from)
        *from = where;
    return value;
}

bool um_weights_broken_config(const um_weights *w)
{
    return w->broken_config;
}

bool um_weights_hugging_face(const um_weights *w)
{
    return w->hugging_face;
}

const char *um_weights_format(const um_weights *w)
{
    return w->format;
}

const char *um_weights_sha256(const um_weights *w)
{
    return w->sha256;
}

const char *um_weights_path(const um_weights *w)
{
    return w->path;
}

int64_t um_wtensor_elements(const struct um_wtensor *t)
{
    return um_view_elements(t->rank, t->dim);
}

static const unsigned char *element(const struct um_wtensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int d = t->rank - 1; d >= 0; d--) {
        offset += i % t->dim[d] * t->stride[d];
        i /= t->dim[d];
    }
    return t->data + (size_t)offset * um_wtype_bytes(t->type);
}

/* Tensors in a file may lie at any address, so every access goes through memcpy. */
static double value(enum um_wtype type, const unsigned char *p)
{
    union {
        float f32;
        double f64;
        uint16_t u16;
        int64_t i64;
        int32_t i32;
        int16_t i16;
    } v;
    float f;
    switch (type) {
    case UM_W_F32: memcpy(&v.f32, p, 4); return v.f32;
    case UM_W_F64: memcpy(&v.f64, p, 8); return v.f64;
    case UM_W_F16:
        memcpy(&v.u16, p, 2);
        um_f16_to_f32(&f, &v.u16, 1);
        return f;
    case UM_W_BF16:
        memcpy(&v.u16, p, 2);
        um_bf16_to_f32(&f, &v.u16, 1);
        return f;
    case UM_W_I64: memcpy(&v.i64, p, 8); return (double)v.i64;
    case UM_W_I32: memcpy(&v.i32, p, 4); return v.i32;
    case UM_W_I16: memcpy(&v.i16, p, 2); return v.i16;
    case UM_W_I8: return *(const signed char *)p;
    case UM_W_U8: return *p;
    case UM_W_BOOL: return *p != 0;
    }
    return 0;
}

double um_wtensor_at(const struct um_wtensor *t, int64_t i)
{
    return i >= 0 && i < um_wtensor_elements(t) ? value(t->type, element(t, i)) : NAN;
}

static bool contiguous(const struct um_wtensor *t)
{
    int64_t want = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        if (t->dim[d] != 1 && t->stride[d] != want)
            return false;
        want *= t->dim[d];
    }
    return true;
}

void um_view_copy(const struct um_wtensor *t, void *out)
{
    int64_t n = um_wtensor_elements(t);
    size_t size = um_wtype_bytes(t->type);
    unsigned char *to = out;
    if (contiguous(t)) {
        if (n)
            memcpy(out, t->data, (size_t)n * size);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * size, element(t, i), size);
}

/* n values that need not be aligned. */
static void halves(const unsigned char *from, size_t n, float *out,
                   void (*widen)(float *, const uint16_t *, size_t))
{
    uint16_t some[512];
    for (size_t i = 0, k; i < n; i += k) {
        k = n - i < 512 ? n - i : 512;
        memcpy(some, from + 2 * i, 2 * k);
        widen(out + i, some, k);
    }
}

void um_view_floats(const struct um_wtensor *t, float *out)
{
    int64_t n = um_wtensor_elements(t);
    size_t size = um_wtype_bytes(t->type);
    if (contiguous(t) && t->type == UM_W_F32) {
        if (n)
            memcpy(out, t->data, (size_t)n * 4);
    } else if (contiguous(t) && (t->type == UM_W_F16 || t->type == UM_W_BF16)) {
        halves(t->data, (size_t)n, out, t->type == UM_W_F16 ? um_f16_to_f32 : um_bf16_to_f32);
    } else if (contiguous(t)) {
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)value(t->type, t->data + (size_t)i * size);
    } else {
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)value(t->type, element(t, i));
    }
}

um_status um_weights_read(const um_weights *w, const char *name, int rank, const int64_t *dim,
                          float **out)
{
    return um_weights_take(w, name, rank, dim, true, out);
}

um_status um_weights_take(const um_weights *w, const char *name, int rank, const int64_t *dim,
                          bool numbers, float **out)
{
    *out = NULL;
    char want[128], found[128];
    const struct um_wtensor *t = um_weights_find(w, name);
    if (!t)
        return um_fail(UM_EFORMAT, "%s: missing tensor %s, want %s", w->path, name,
                       um_view_shape(want, sizeof want, rank, dim));
    bool same = rank == t->rank;
    for (int i = 0; same && i < rank; i++)
        same = dim[i] == t->dim[i];
    if (!same)
        return um_fail(UM_EFORMAT, "%s: tensor %s is %s, want %s", w->path, name,
                       um_view_shape(found, sizeof found, t->rank, t->dim),
                       um_view_shape(want, sizeof want, rank, dim));
    int64_t n = um_wtensor_elements(t);
    float *values =
        (uint64_t)n <= SIZE_MAX / sizeof *values ? um_alloc((size_t)n * sizeof *values) : NULL;
    if (!values)
        return um_fail(UM_ENOMEM, "%s: tensor %s: %" PRId64 " floats", w->path, name, n);
    if (numbers)
        um_view_floats(t, values);
    *out = values;
    return UM_OK;
}
