/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: 8 bytes of header length, that many bytes of JSON
 * {"name":{"dtype","shape","data_offsets"}, …}, then the data.
 * https://github.com/huggingface/safetensors, "Format". */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "weights/view.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 8 << 20, ALIGN = 8 };

/* ---- reading ---- */

static bool whole_number(const cJSON *x, int64_t *n)
{
    if (!cJSON_IsNumber(x) || !(x->valuedouble >= 0 && x->valuedouble <= 0x1p53))
        return false;
    *n = (int64_t)x->valuedouble;
    return (double)*n == x->valuedouble;
}

struct span {
    int64_t from, to;
    const char *name;
};

/* The value of a key that a tensor's entry must have exactly once; NULL if it has not. */
static const cJSON *only(const cJSON *entry, const char *key)
{
    const cJSON *found = NULL, *x = NULL;
    cJSON_ArrayForEach(x, entry)
    {
        if (!x->string || strcmp(x->string, key) != 0)
            continue;
        if (found)
            return NULL;
        found = x;
    }
    return found;
}

static um_status add_tensor(um_weights *w, const unsigned char *data, size_t size, const cJSON *x,
                            struct span *place)
{
    const char *name = x->string;
    char shape[128];
    struct um_wtensor t = {.rank = 0};
    const cJSON *dtype = only(x, "dtype"), *dims = only(x, "shape"),
                *span = only(x, "data_offsets");
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(dims) || !cJSON_IsArray(span))
        return um_fail(UM_EFORMAT, "tensor %.99s: want dtype, shape and data_offsets, each once",
                       name);
    bool known = false;
    for (int i = UM_W_F32; i <= UM_W_BOOL && !known; i++)
        if (strcmp(dtype->valuestring, um_wtype_name((enum um_wtype)i)) == 0) {
            t.type = (enum um_wtype)i;
            known = true;
        }
    if (!known)
        return um_fail(UM_EFORMAT,
                       "tensor %.99s: dtype %.20s, want F32, F16, BF16 or another plain one", name,
                       dtype->valuestring);
    const cJSON *d = NULL;
    cJSON_ArrayForEach(d, dims)
    {
        if (t.rank == UM_W_RANK)
            return um_fail(UM_EFORMAT, "tensor %.99s: more than %d dimensions", name, UM_W_RANK);
        if (!whole_number(d, &t.dim[t.rank++]))
            return um_fail(UM_EFORMAT, "tensor %.99s: dimension %d is no size", name, t.rank - 1);
    }
    int64_t elements = um_view_elements(t.rank, t.dim);
    int64_t from = 0, to = 0;
    if (!span->child || !whole_number(span->child, &from) || !span->child->next ||
        !whole_number(span->child->next, &to) || span->child->next->next)
        return um_fail(UM_EFORMAT, "tensor %.99s: data_offsets are not two sizes", name);
    if (from > to || (uint64_t)to > size)
        return um_fail(UM_EFORMAT,
                       "tensor %.99s: bytes %" PRId64 " to %" PRId64
                       " of %zu, want a whole file; if it is cut short, download or copy it again",
                       name, from, to, size);
    if (elements < 0 || elements > INT64_MAX / 8 ||
        elements * (int64_t)um_wtype_bytes(t.type) != to - from)
        return um_fail(UM_EFORMAT,
                       "tensor %.99s: %s %s in %" PRId64 " bytes, want %zu for each number", name,
                       dtype->valuestring, um_view_shape(shape, sizeof shape, t.rank, t.dim),
                       to - from, um_wtype_bytes(t.type));
    um_view_strides(t.rank, t.dim, t.stride);
    t.data = data + from;
    *place = (struct span){from, to, name};
    return um_view_add(w, name, strlen(name), &t);
}

static um_status add_metadata(um_weights *w, const cJSON *pairs)
{
    if (!cJSON_IsObject(pairs))
        return um_fail(UM_EFORMAT, "__metadata__ is no object");
    int n = cJSON_GetArraySize(pairs);
    if (n > UM_W_META_MAX)
        return um_fail(UM_EFORMAT, "__metadata__ of %d entries, at most %d", n, UM_W_META_MAX);
    w->meta = um_arena_take(&w->arena, (size_t)n * sizeof *w->meta);
    if (!w->meta)
        return um_fail(UM_ENOMEM, "metadata");
    w->meta_count = 0;
    const cJSON *x = NULL;
    cJSON_ArrayForEach(x, pairs)
    {
        if (!cJSON_IsString(x))
            return um_fail(UM_EFORMAT, "__metadata__ %.99s is no string", x->string);
        for (int i = 0; i < w->meta_count; i++)
            if (strcmp(w->meta[i].key, x->string) == 0)
                return um_fail(UM_EFORMAT, "__metadata__ %.99s: found twice", x->string);
        struct um_wpair *m = &w->meta[w->meta_count];
        m->key = um_arena_string(&w->arena, x->string, strlen(x->string));
        m->value = um_arena_string(&w->arena, x->valuestring, strlen(x->valuestring));
        if (!m->key || !m->value)
            return um_fail(UM_ENOMEM, "metadata");
        w->meta_count++;
    }
    return UM_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->from != y->from ? (x->from > y->from) - (x->from < y->from)
                              : (x->to > y->to) - (x->to < y->to);
}

/* Each byte of the data belongs to one tensor: no overlaps, no holes. */
static um_status check_places(struct span *place, size_t n, size_t size)
{
    int64_t at = 0;
    if (n)
        qsort(place, n, sizeof *place, by_place);
    for (size_t i = 0; i < n; at = place[i++].to)
        if (place[i].from != at)
            return um_fail(
                UM_EFORMAT, "tensor %.99s: its bytes from %" PRId64 " %s %" PRId64, place[i].name,
                place[i].from,
                place[i].from < at ? "overlap those of others up to" : "leave a hole from", at);
    if ((uint64_t)at != size)
        return um_fail(UM_EFORMAT, "%" PRIu64 " of %zu bytes of data belong to no tensor",
                       size - (uint64_t)at, size);
    return UM_OK;
}

static um_status read_entries(um_weights *w, const cJSON *header, size_t data_at,
                              struct span *place)
{
    const cJSON *x = NULL;
    um_status st = UM_OK;
    size_t n = 0;
    bool meta = false;
    cJSON_ArrayForEach(x, header)
    {
        if (st != UM_OK)
            return st;
        if (strcmp(x->string, "__metadata__") == 0) {
            st = meta ? um_fail(UM_EFORMAT, "__metadata__: found twice") : add_metadata(w, x);
            meta = true;
        } else {
            st = add_tensor(w, w->bytes + data_at, w->size - data_at, x, &place[n++]);
        }
    }
    return st == UM_OK ? check_places(place, n, w->size - data_at) : st;
}

static um_status read_header(um_weights *w, const cJSON *header, size_t data_at)
{
    struct span *place = um_array((size_t)cJSON_GetArraySize(header) + 1, sizeof *place);
    um_status st = place ? read_entries(w, header, data_at, place)
                         : um_fail(UM_ENOMEM, "places of the tensors");
    um_free(place);
    return st;
}

/* cJSON ends strings at a zero and takes any bytes for text, so a name could say one thing to us
 * and another to the next reader. */
static um_status check_text(const char *text, size_t n)
{
    for (size_t i = 0, bytes = 0; i < n; i += bytes) {
        bytes = um_text_utf8(text + i, n - i, NULL);
        if (bytes == 0 || text[i] == 0)
            return um_fail(UM_EFORMAT, "safetensors header: %s at offset %zu",
                           bytes ? "a zero" : "no UTF-8", 8 + i);
        if (text[i] != '\\' || i + 1 == n)
            continue;
        if (n - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
            return um_fail(UM_EFORMAT, "safetensors header: a zero at offset %zu", 8 + i);
        bytes = 2; /* what is escaped starts no escape */
    }
    return UM_OK;
}

/* The header is there and starts with '{': that is how the format is known. */
um_status um_safetensors_load(um_weights *w)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n |= (uint64_t)w->bytes[i] << 8 * i;
    if (n > w->size - 8 || n > HEADER_MAX)
        return um_fail(UM_EFORMAT,
                       "safetensors header of %" PRIu64
                       " bytes in a file of %zu, want at most %d; if it "
                       "is cut short, download or copy it again",
                       n, w->size, HEADER_MAX);
    const char *text = (const char *)w->bytes + 8, *end = NULL;
    um_status st = check_text(text, (size_t)n);
    if (st != UM_OK)
        return st;
    cJSON *header = NULL;
    st = um_json_parse(&header, text, (size_t)n, &end, false);
    if (st == UM_OK && !header)
        st = um_fail(UM_EFORMAT,
                     "safetensors header: bad JSON at offset %td, want a whole file; download or "
                     "copy it again",
                     end ? 8 + (end - text) : 8);
    for (const char *p = end; st == UM_OK && p < text + n; p++)
        if (*p != ' ' && *p != '\n' && *p != '\t' && *p != '\r')
            st = um_fail(UM_EFORMAT, "safetensors header: more than one JSON value at offset %td",
                         8 + (p - text));
    if (st == UM_OK)
        st = read_header(w, header, 8 + (size_t)n);
    cJSON_Delete(header);
    return st;
}

/* ---- writing ---- */

static cJSON *tensor_entry(const struct um_wout *t, int64_t from, int64_t to)
{
    cJSON *x = cJSON_CreateObject(), *dims = NULL, *span = NULL;
    if (!x || !cJSON_AddStringToObject(x, "dtype", um_wtype_name(t->type)) ||
        !(dims = cJSON_AddArrayToObject(x, "shape")) ||
        !(span = cJSON_AddArrayToObject(x, "data_offsets")))
        goto fail;
    for (int i = 0; i < t->rank + 2; i++) {
        int64_t n = i < t->rank ? t->dim[i] : i == t->rank ? from : to;
        cJSON *number = cJSON_CreateNumber((double)n);
        if (!number || !cJSON_AddItemToArray(i < t->rank ? dims : span, number)) {
            cJSON_Delete(number);
            goto fail;
        }
    }
    return x;
fail:
    cJSON_Delete(x);
    return NULL;
}

static um_status make_header(const struct um_wout *t, int n, const char *const *meta, char **out)
{
    cJSON *header = cJSON_CreateObject(), *pairs = NULL;
    um_status st = header ? UM_OK : um_fail(UM_ENOMEM, "safetensors header");
    if (st == UM_OK && meta && meta[0] &&
        !(pairs = cJSON_AddObjectToObject(header, "__metadata__")))
        st = um_fail(UM_ENOMEM, "safetensors header");
    for (int i = 0; st == UM_OK && pairs && meta[i]; i += 2) {
        if (!meta[i + 1])
            st = um_fail(UM_EINVAL, "metadata %s has no value", meta[i]);
        else if (!cJSON_AddStringToObject(pairs, meta[i], meta[i + 1]))
            st = um_fail(UM_ENOMEM, "safetensors header");
    }
    int64_t at = 0;
    for (int i = 0; st == UM_OK && i < n; i++) {
        int64_t elements = um_view_elements(t[i].rank, t[i].dim);
        if (t[i].rank < 0 || t[i].rank > UM_W_RANK || elements < 0 ||
            elements > ((int64_t)1 << 48)) {
            st = um_fail(UM_EINVAL, "tensor %s: bad shape", t[i].name);
            break;
        }
        int64_t bytes = elements * (int64_t)um_wtype_bytes(t[i].type);
        cJSON *x = tensor_entry(&t[i], at, at + bytes);
        if (!x || !cJSON_AddItemToObject(header, t[i].name, x)) {
            cJSON_Delete(x);
            st = um_fail(UM_ENOMEM, "safetensors header");
        }
        at += bytes;
    }
    if (st == UM_OK && !(*out = cJSON_PrintUnformatted(header)))
        st = um_fail(UM_ENOMEM, "safetensors header");
    cJSON_Delete(header);
    return st;
}

um_status um_safetensors_write(const char *path, const struct um_wout *t, int n,
                               const char *const *meta)
{
    char *header = NULL;
    um_status st = make_header(t, n, meta, &header);
    if (st != UM_OK)
        return st;
    struct um_part part;
    st = um_part_open(&part, path);
    if (st == UM_OK) {
        size_t length = strlen(header), padded = (length + ALIGN - 1) / ALIGN * ALIGN;
        unsigned char size[8];
        for (int i = 0; i < 8; i++)
            size[i] = (unsigned char)((uint64_t)padded >> 8 * i);
        bool good = um_part_write(&part, size, 8) && um_part_write(&part, header, length) &&
                    um_part_write(&part, "       ", padded - length);
        for (int i = 0; i < n && good; i++)
            good = um_part_write(&part, t[i].data,
                                 (size_t)um_view_elements(t[i].rank, t[i].dim) *
                                     um_wtype_bytes(t[i].type));
        st = um_part_close(&part, UM_OK);
    }
    cJSON_free(header);
    return st;
}
