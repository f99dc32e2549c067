/* SPDX-License-Identifier: Apache-2.0 */
/* What torch.save() writes since 1.6: a zip archive with <root>/data.pkl and one entry
 * <root>/data/<key> per storage. Zip: APPNOTE.TXT 4.3; the central directory alone is trusted for
 * sizes, so data descriptors do not matter. */
#include "base/mem.h"
#include "weights/pickle.h"
#include "weights/view.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    ENTRIES_MAX = 1 << 20,
    PICKLE_MAX = 16 << 20, /* a checkpoint of D-FINE-X with its optimizer has 1 MB */
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    STORED = 0,
    DEFLATED = 8,
};

struct entry {
    const char *name; /* not terminated */
    size_t name_bytes;
    int method;
    bool encrypted;
    uint32_t crc;
    uint64_t packed, size;     /* bytes in the file, bytes of content */
    uint64_t header, at;       /* offsets of the local header and of what follows it */
    const unsigned char *data; /* content once asked for */
};

struct archive {
    um_weights *w;
    struct entry *entry; /* sorted by name */
    size_t count;
    const char *root; /* "archive/"; not terminated */
    size_t root_bytes;
};

static uint64_t number(const unsigned char *p, int bytes)
{
    uint64_t n = 0;
    for (int i = 0; i < bytes; i++)
        n |= (uint64_t)p[i] << 8 * i;
    return n;
}

/* Is [offset, offset+n) inside the file? */
static bool inside(const um_weights *w, uint64_t offset, uint64_t n)
{
    return offset <= w->size && n <= w->size - offset;
}

/* ---- directory ---- */

static um_status find_directory(const um_weights *w, uint64_t *offset, uint64_t *bytes,
                                uint64_t *count)
{
    const unsigned char *b = w->bytes;
    size_t lowest = w->size > END_BYTES + 0xffff ? w->size - END_BYTES - 0xffff : 0;
    size_t end = w->size; /* position of the end record, searched backwards over its comment */
    for (size_t i = w->size < END_BYTES ? 0 : w->size - END_BYTES + 1; i-- > lowest;)
        if (memcmp(b + i, "PK\5\6", 4) == 0 && number(b + i + 20, 2) <= w->size - i - END_BYTES) {
            end = i;
            break;
        }
    if (end == w->size)
        return um_fail(UM_EFORMAT,
                       "zip without end record: the file is cut short (%zu bytes), want a whole "
                       ".pt or .pth file; download or copy it again",
                       w->size);
    *count = number(b + end + 10, 2);
    *bytes = number(b + end + 12, 4);
    *offset = number(b + end + 16, 4);
    if (end >= LOCATOR_BYTES && memcmp(b + end - LOCATOR_BYTES, "PK\6\7", 4) == 0) {
        uint64_t at = number(b + end - LOCATOR_BYTES + 8, 8);
        if (!inside(w, at, END64_BYTES) || memcmp(b + at, "PK\6\6", 4) != 0)
            return um_fail(UM_EFORMAT, "zip64 end record at %" PRIu64 " of %zu bytes: not there",
                           at, w->size);
        *count = number(b + at + 32, 8);
        *bytes = number(b + at + 40, 8);
        *offset = number(b + at + 48, 8);
    }
    if (!inside(w, *offset, *bytes))
        return um_fail(UM_EFORMAT,
                       "zip directory at %" PRIu64 ", %" PRIu64 " bytes: outside the file's %zu",
                       *offset, *bytes, w->size);
    if (*count > ENTRIES_MAX || *count > *bytes / CENTRAL_BYTES)
        return um_fail(UM_EFORMAT,
                       "zip of %" PRIu64 " entries in a directory of %" PRIu64 " bytes, at most %d",
                       *count, *bytes, ENTRIES_MAX);
    return UM_OK;
}

/* Sizes of 0xffffffff are in the extra field 1, those that need it, in this order. */
static void read_zip64(struct entry *e, const unsigned char *extra, size_t n)
{
    for (size_t i = 0; n - i >= 4;) {
        size_t id = (size_t)number(extra + i, 2), bytes = (size_t)number(extra + i + 2, 2);
        i += 4;
        if (bytes > n - i)
            break;
        if (id == 1) {
            uint64_t *field[3] = {&e->size, &e->packed, &e->header};
            for (size_t k = 0, at = 0; k < 3; k++)
                if (*field[k] == 0xffffffff && bytes - at >= 8) {
                    *field[k] = number(extra + i + at, 8);
                    at += 8;
                }
        }
        i += bytes;
    }
}

static int by_name(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t n = x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes;
    int c = memcmp(x->name, y->name, n);
    return c ? c : (x->name_bytes > y->name_bytes) - (x->name_bytes < y->name_bytes);
}

static int by_header(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

/* Every entry in its own part of the file. */
static um_status locate(struct archive *z)
{
    const um_weights *w = z->w;
    const unsigned char *b = w->bytes;
    if (z->count)
        qsort(z->entry, z->count, sizeof *z->entry, by_header);
    for (size_t i = 0; i < z->count; i++) {
        struct entry *e = &z->entry[i];
        int name_bytes = (int)e->name_bytes;
        if (!inside(w, e->header, LOCAL_BYTES) || memcmp(b + e->header, "PK\3\4", 4) != 0)
            return um_fail(UM_EFORMAT,
                           "zip entry %.*s: no local header at %" PRIu64 " of %zu bytes",
                           name_bytes, e->name, e->header, w->size);
        e->at =
            e->header + LOCAL_BYTES + number(b + e->header + 26, 2) + number(b + e->header + 28, 2);
        if (!inside(w, e->at, e->packed))
            return um_fail(UM_EFORMAT,
                           "zip entry %.*s: %" PRIu64 " bytes at %" PRIu64
                           ": outside the file's %zu",
                           name_bytes, e->name, e->packed, e->at, w->size);
        if (i > 0 && e->header < e[-1].at + e[-1].packed)
            return um_fail(UM_EFORMAT, "zip entries %.*s and %.*s overlap at %" PRIu64,
                           (int)e[-1].name_bytes, e[-1].name, name_bytes, e->name, e->header);
    }
    return UM_OK;
}

static um_status read_directory(struct archive *z)
{
    const um_weights *w = z->w;
    uint64_t offset = 0, left = 0, count = 0;
    um_status st = find_directory(w, &offset, &left, &count);
    if (st != UM_OK)
        return st;
    z->entry = um_array((size_t)count, sizeof *z->entry);
    if (!z->entry)
        return um_fail(UM_ENOMEM, "zip directory of %" PRIu64 " entries", count);
    const unsigned char *p = w->bytes + offset;
    for (; z->count < count; z->count++) {
        struct entry *e = &z->entry[z->count];
        if (left < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
            return um_fail(UM_EFORMAT, "zip entry %zu: no directory record at offset %td", z->count,
                           p - w->bytes);
        size_t name = (size_t)number(p + 28, 2), extra = (size_t)number(p + 30, 2);
        size_t record = CENTRAL_BYTES + name + extra + (size_t)number(p + 32, 2);
        if (record > left)
            return um_fail(UM_EFORMAT,
                           "zip entry %zu: its directory record of %zu bytes is cut at %" PRIu64,
                           z->count, record, left);
        *e = (struct entry){.name = (const char *)p + CENTRAL_BYTES,
                            .name_bytes = name,
                            .encrypted = number(p + 8, 2) & 1,
                            .method = (int)number(p + 10, 2),
                            .crc = (uint32_t)number(p + 16, 4),
                            .packed = number(p + 20, 4),
                            .size = number(p + 24, 4),
                            .header = number(p + 42, 4)};
        read_zip64(e, p + CENTRAL_BYTES + name, extra);
        for (size_t i = 0; i < name; i++)
            if (e->name[i] < 0x20 || e->name[i] > 0x7e)
                return um_fail(UM_EFORMAT, "zip entry %zu: its name is not printable ASCII",
                               z->count);
        p += record;
        left -= record;
    }
    st = locate(z);
    if (st != UM_OK)
        return st;
    if (z->count)
        qsort(z->entry, z->count, sizeof *z->entry, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (by_name(&z->entry[i - 1], &z->entry[i]) == 0)
            return um_fail(UM_EFORMAT, "zip entry %.*s: found twice", (int)z->entry[i].name_bytes,
                           z->entry[i].name);
    return UM_OK;
}

/* ---- content ---- */

/* <root><name>; NULL if there is none. */
static struct entry *find(const struct archive *z, const char *name)
{
    char full[256];
    int n = snprintf(full, sizeof full, "%.*s%s", (int)z->root_bytes, z->root, name);
    struct entry key = {.name = full, .name_bytes = (size_t)n};
    return z->count && n > 0 && (size_t)n < sizeof full
               ? bsearch(&key, z->entry, z->count, sizeof key, by_name)
               : NULL;
}

static um_status unpack(um_weights *w, struct entry *e)
{
    int name_bytes = (int)e->name_bytes;
    if (e->size > UINT_MAX || e->packed > UINT_MAX)
        return um_fail(UM_EFORMAT,
                       "zip entry %.*s: %" PRIu64 " bytes from %" PRIu64 " deflated ones",
                       name_bytes, e->name, e->size, e->packed);
    if (e->size > um_view_budget(w) - w->inflated)
        return um_fail(UM_EFORMAT,
                       "zip entry %.*s: with it the file of %zu bytes inflates to %" PRIu64
                       ", at most %" PRIu64,
                       name_bytes, e->name, w->size, w->inflated + e->size, um_view_budget(w));
    unsigned char *data = um_arena_take(&w->arena, (size_t)e->size);
    if (!data)
        return um_fail(UM_ENOMEM, "zip entry %.*s: %" PRIu64 " bytes", name_bytes, e->name,
                       e->size);
    z_stream s = {.next_in = (unsigned char *)w->bytes + e->at,
                  .avail_in = (unsigned)e->packed,
                  .next_out = data,
                  .avail_out = (unsigned)e->size};
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
        return um_fail(UM_ENOMEM, "zip entry %.*s: inflate", name_bytes, e->name);
    int rc = inflate(&s, Z_FINISH);
    uint64_t size = s.total_out;
    inflateEnd(&s);
    if (rc != Z_STREAM_END || size != e->size)
        return um_fail(UM_EFORMAT,
                       "zip entry %.*s: bad deflate stream, %" PRIu64 " bytes of %" PRIu64,
                       name_bytes, e->name, size, e->size);
    w->inflated += e->size;
    e->data = data;
    return UM_OK;
}

/* A checksum of 0 is none: what torch.serialization.set_crc32_options(False) leaves. */
static um_status check_sum(const struct entry *e)
{
    uint32_t crc = e->crc ? (uint32_t)crc32_z(0, e->data, (size_t)e->size) : 0;
    return crc == e->crc ? UM_OK
                         : um_fail(UM_EFORMAT,
                                   "zip entry %.*s: damaged, its checksum is %08" PRIx32
                                   ", want %08" PRIx32 "; download or copy the file again",
                                   (int)e->name_bytes, e->name, crc, e->crc);
}

/* e->data: in the file for a stored entry, unpacked for a deflated one. */
static um_status open_entry(um_weights *w, struct entry *e)
{
    if (e->data)
        return UM_OK;
    int name_bytes = (int)e->name_bytes;
    if (e->encrypted || (e->method != STORED && e->method != DEFLATED))
        return um_fail(UM_EFORMAT, "zip entry %.*s: %s, want stored or deflated (method %d)",
                       name_bytes, e->name, e->encrypted ? "encrypted" : "unknown packing",
                       e->method);
    if (e->method == STORED && e->packed != e->size)
        return um_fail(UM_EFORMAT, "zip entry %.*s: stored %" PRIu64 " bytes as %" PRIu64,
                       name_bytes, e->name, e->size, e->packed);
    um_status st = UM_OK;
    if (e->method == DEFLATED)
        st = unpack(w, e);
    else
        e->data = w->bytes + e->at;
    return st == UM_OK ? check_sum(e) : st;
}

static bool ends_with(const struct entry *e, const char *end)
{
    size_t n = strlen(end);
    return e->name_bytes >= n && memcmp(e->name + e->name_bytes - n, end, n) == 0;
}

/* A zip archive that torch.save() did not write. */
static um_status other_zip(const struct archive *z)
{
    static const struct {
        const char *end, *what, *mend;
    } KINDS[] = {
        {".pth", "a zip archive with a .pth file in it", "unpack it and give that file"},
        {".pt", "a zip archive with a .pt file in it", "unpack it and give that file"},
        {".ckpt", "a zip archive with a .ckpt file in it", "unpack it and give that file"},
        {".safetensors", "a zip archive with weights in it", "unpack it and give that file"},
        {".weights.h5", "a Keras model", "give the PyTorch checkpoint that it was made of"},
        {".npy", "NumPy arrays (.npz)", "save the network's state dict with torch.save()"},
        {".mlmodel", "a Core ML model", "give the PyTorch checkpoint that it was made of"},
        {"AndroidManifest.xml", "an Android program", "give the weights themselves"},
        {"[Content_Types].xml", "an Office document", "give the weights themselves"},
    };
    for (size_t i = 0; i < z->count; i++)
        if (z->entry[i].encrypted)
            return um_stranger_fail("an encrypted zip archive", "decrypt and unpack it first");
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++)
        for (size_t i = 0; i < z->count; i++)
            if (ends_with(&z->entry[i], KINDS[k].end))
                return um_stranger_fail(KINDS[k].what, KINDS[k].mend);
    char what[96];
    snprintf(what, sizeof what, "a zip of %zu entries without */data.pkl: not a PyTorch file",
             z->count);
    return um_stranger_fail(what, "unpack it and give the weight file in it");
}

/* The folder with data.pkl, and nothing that says this is a program rather than weights. */
static um_status find_root(struct archive *z, struct entry **pickle)
{
    static const char NAME[] = "data.pkl";
    enum { NAME_BYTES = sizeof NAME - 1 };
    *pickle = NULL;
    for (size_t i = 0; i < z->count; i++) {
        struct entry *e = &z->entry[i];
        size_t root = e->name_bytes - NAME_BYTES;
        if (e->name_bytes < NAME_BYTES || memcmp(e->name + root, NAME, NAME_BYTES) != 0)
            continue;
        const char *slash = memchr(e->name, '/', e->name_bytes);
        if (root == 0 || slash != e->name + root - 1)
            continue;
        if (*pickle)
            return um_fail(UM_EFORMAT, "zip with two data.pkl: %.*s and %.*s",
                           (int)(*pickle)->name_bytes, (*pickle)->name, (int)e->name_bytes,
                           e->name);
        *pickle = e;
        z->root = e->name;
        z->root_bytes = root;
    }
    if (!*pickle)
        return other_zip(z);
    if ((*pickle)->encrypted)
        return um_stranger_fail("an encrypted zip archive", "decrypt and unpack it first");
    if (z->root_bytes > 128)
        return um_fail(UM_EFORMAT, "zip folder name of %zu bytes, at most 128", z->root_bytes);
    bool script = find(z, "constants.pkl") != NULL;
    for (size_t i = 0; i < z->count && !script; i++)
        script = z->entry[i].name_bytes > z->root_bytes + 5 &&
                 memcmp(z->entry[i].name, z->root, z->root_bytes) == 0 &&
                 memcmp(z->entry[i].name + z->root_bytes, "code/", 5) == 0;
    if (script)
        return um_fail(
            UM_EFORMAT,
            "a TorchScript archive, want weights; save model.state_dict() with torch.save()");
    struct entry *order = find(z, "byteorder");
    um_status st = order ? open_entry(z->w, order) : UM_OK;
    if (st == UM_OK && order && !(order->size == 6 && memcmp(order->data, "little", 6) == 0))
        return um_fail(UM_EFORMAT, "byte order is not little-endian");
    return st;
}

/* ---- tensors ---- */

static bool storage_type(const char *name, enum um_wtype *t)
{
    static const struct {
        const char *name;
        enum um_wtype type;
    } TYPES[] = {{"Float", UM_W_F32},  {"Half", UM_W_F16}, {"BFloat16", UM_W_BF16},
                 {"Double", UM_W_F64}, {"Long", UM_W_I64}, {"Int", UM_W_I32},
                 {"Short", UM_W_I16},  {"Char", UM_W_I8},  {"Byte", UM_W_U8},
                 {"Bool", UM_W_BOOL}};
    if (strncmp(name, "torch.cuda.", 11) == 0)
        name += 11;
    else if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    else
        return false;
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        size_t n = strlen(TYPES[i].name);
        if (strncmp(name, TYPES[i].name, n) == 0 && strcmp(name + n, "Storage") == 0) {
            *t = TYPES[i].type;
            return true;
        }
    }
    return false;
}

/* name: not terminated, not yet known to be printable. */
static um_status add_tensor(struct archive *z, const struct um_pvalue *name,
                            const struct um_ptensor *p)
{
    const struct um_pvalue *s = p->storage;
    int n = name->string.length > UM_W_NAME_MAX ? UM_W_NAME_MAX : (int)name->string.length;
    const char *text = name->string.text;
    struct um_wtensor t = {.rank = p->rank};
    if (!storage_type(s->storage.type, &t.type))
        return um_fail(UM_EFORMAT,
                       "tensor %.*s: storage %s, want torch.FloatStorage or another plain one", n,
                       text, s->storage.type);
    memcpy(t.dim, p->dim, sizeof t.dim);
    memcpy(t.stride, p->stride, sizeof t.stride);
    int64_t elements = um_view_elements(t.rank, t.dim);
    if (elements < 0)
        return um_fail(UM_EFORMAT, "tensor %.*s: its shape overflows", n, text);
    /* Last element used: offset + sum (dim-1)*stride, below the storage's length at every step. */
    int64_t last = p->offset, have = s->storage.elements;
    bool fits = elements == 0 ? last <= have : last < have;
    for (int i = 0; i < t.rank && elements > 0 && fits; i++) {
        int64_t room = have - 1 - last;
        fits = t.dim[i] == 1 || t.stride[i] == 0 || t.dim[i] - 1 <= room / t.stride[i];
        if (fits && t.dim[i] > 1)
            last += (t.dim[i] - 1) * t.stride[i];
    }
    char shape[128];
    if (!fits)
        return um_fail(UM_EFORMAT,
                       "tensor %.*s: %s at offset %" PRId64 " leaves its storage %s of %" PRId64
                       " elements",
                       n, text, um_view_shape(shape, sizeof shape, t.rank, t.dim), p->offset,
                       s->storage.key, have);
    char path[80];
    snprintf(path, sizeof path, "data/%s", s->storage.key);
    struct entry *e = find(z, path);
    if (!e)
        return um_fail(UM_EFORMAT, "tensor %.*s: no zip entry %s for its storage", n, text, path);
    um_status st = open_entry(z->w, e);
    if (st != UM_OK)
        return st;
    if ((uint64_t)have != e->size / um_wtype_bytes(t.type))
        return um_fail(UM_EFORMAT,
                       "tensor %.*s: storage %s has %" PRIu64 " bytes, want %" PRId64
                       " elements of %zu",
                       n, text, s->storage.key, e->size, have, um_wtype_bytes(t.type));
    t.data = e->data + (size_t)p->offset * um_wtype_bytes(t.type);
    return um_view_add(z->w, text, name->string.length, &t);
}

/* Does it hold tensors of at least so many dimensions? */
static bool has_tensor(const struct um_pvalue *dict, int rank)
{
    if (!dict || dict->kind != UM_P_DICT)
        return false;
    for (size_t i = 0; i + 1 < dict->list.count; i += 2)
        if (dict->list.item[i]->kind == UM_P_STRING &&
            dict->list.item[i + 1]->kind == UM_P_TENSOR &&
            dict->list.item[i + 1]->tensor->rank >= rank)
            return true;
    return false;
}

/* Where the tensors may be, best first; averaged weights are what trainers evaluate. Those kept
 * flat lie beside a counter, which may be a tensor without dimensions. */
static const struct {
    const char *outer, *inner;
    int rank;
} PLACE[] = {{"ema", "module", 0},
             {"ema", "state_dict", 0},
             {"ema", NULL, 1},
             {"ema_state_dict", NULL, 0},
             {"state_dict_ema", NULL, 0},
             {"model_ema", NULL, 0},
             {"ema_model", NULL, 0},
             {"params_ema", NULL, 0},
             {"model", NULL, 0},
             {"state_dict", NULL, 0},
             {"model_state_dict", NULL, 0},
             {"model_state", NULL, 0},
             {"weights", NULL, 0},
             {"net", NULL, 0},
             {"network", NULL, 0},
             {"params", NULL, 0},
             {NULL, NULL, 0}};
enum {
    PLACES = sizeof PLACE / sizeof *PLACE,
    AVERAGED = 8, /* the first ones */
    WRAPPED_MAX = 3,
    SEARCHED_MAX = 64 /* dicts: one that lies under every name of every other is met thousands of
                         times */
};

static const struct um_pvalue *candidate(const struct um_pvalue *file, int i)
{
    const struct um_pvalue *v = PLACE[i].outer ? um_pickle_get(file, PLACE[i].outer) : file;
    return PLACE[i].inner ? um_pickle_get(v, PLACE[i].inner) : v;
}

/* In the first `places` of PLACE. */
static const struct um_pvalue *find_state(const struct um_pvalue *file, int places, int depth,
                                          int *left)
{
    for (int i = 0; i < places; i++) {
        const struct um_pvalue *v = candidate(file, i), *inside = NULL;
        bool dict = v && v != file && v->kind == UM_P_DICT;
        if ((v != file || depth == 0) && has_tensor(v, PLACE[i].rank)) /* else looked at before */
            return v;
        if (!dict || depth == WRAPPED_MAX || !*left)
            continue;
        --*left;
        if ((inside = find_state(v, PLACES, depth + 1, left)))
            return inside;
    }
    return NULL;
}

static bool has_any_tensor(const struct um_pvalue *v, int *left)
{
    if (v->kind == UM_P_TENSOR)
        return v->tensor->rank > 0;
    if ((v->kind != UM_P_TUPLE && v->kind != UM_P_LIST && v->kind != UM_P_DICT) || !*left)
        return false;
    --*left;
    for (size_t i = 0; i < v->list.count; i++)
        if (has_any_tensor(v->list.item[i], left))
            return true;
    return false;
}

/* Averaged weights that are none of these places are not passed over for others. */
static um_status check_averaged(const struct um_pvalue *file)
{
    int left = SEARCHED_MAX;
    if (find_state(file, AVERAGED, 0, &left))
        return UM_OK;
    left = SEARCHED_MAX;
    for (int i = 0; i < AVERAGED; i++) {
        const struct um_pvalue *v = candidate(file, i);
        if (v && (v->kind == UM_P_OTHER || has_any_tensor(v, &left)))
            return um_fail(UM_EFORMAT,
                           "the averaged weights in %s are %s, which is not read, want a dict of "
                           "tensors; save the state_dict() that is to be used with torch.save()",
                           PLACE[i].outer,
                           v->kind == UM_P_OTHER ? v->name : "tensors in another layout");
    }
    return UM_OK;
}

static um_status not_read(const struct um_pvalue *name, const char *made_by)
{
    return um_fail(UM_EFORMAT,
                   "tensor %.*s: made by %s, which is not read, want plain tensors; save "
                   "model.state_dict() with torch.save()",
                   name->string.length > UM_W_NAME_MAX ? UM_W_NAME_MAX : (int)name->string.length,
                   name->string.text, made_by);
}

static um_status no_state(const struct um_pvalue *file)
{
    if (um_pickle_get(file, "in_training")) /* train/run.py; it tells no size */
        return um_fail(UM_EFORMAT, "the checkpoint of a run of train/, want the model that the run "
                                   "writes beside it; --export writes that of an unfinished run");
    for (int i = 0; i < PLACES; i++) {
        const struct um_pvalue *v = candidate(file, i);
        if (v && v->kind == UM_P_OTHER)
            return um_fail(UM_EFORMAT,
                           "holds an object of class %s, want a state dict; load it with the "
                           "program that wrote it and save model.state_dict() with torch.save()",
                           v->name);
        for (size_t k = 0; v && v->kind == UM_P_DICT && k + 1 < v->list.count; k += 2)
            if (v->list.item[k]->kind == UM_P_STRING && v->list.item[k + 1]->kind == UM_P_OTHER)
                return not_read(v->list.item[k], v->list.item[k + 1]->name);
    }
    return um_fail(UM_EFORMAT, "a PyTorch file without tensors under ema, model, state_dict, "
                               "weights, net or at the top, want a state dict; save "
                               "model.state_dict() with torch.save()");
}

static um_status add_tensors(struct archive *z, const struct um_pvalue *file)
{
    int left = SEARCHED_MAX;
    const struct um_pvalue *state = find_state(file, PLACES, 0, &left);
    if (!state)
        return no_state(file);
    um_status st = check_averaged(file);
    for (size_t i = 0; st == UM_OK && i + 1 < state->list.count; i += 2) {
        const struct um_pvalue *name = state->list.item[i], *v = state->list.item[i + 1];
        if (name->kind != UM_P_STRING)
            continue;
        if (v->kind == UM_P_TENSOR)
            st = add_tensor(z, name, v->tensor);
        else if (v->kind ==
                 UM_P_OTHER) /* perhaps a tensor of a kind we cannot rebuild: never pass over it */
            st = not_read(name, v->name);
    }
    return st;
}

um_status um_torch_zip_load(um_weights *w)
{
    struct archive z = {.w = w};
    struct um_arena values = {NULL};
    struct entry *pickle = NULL;
    const struct um_pvalue *file = NULL;
    um_status st = read_directory(&z);
    if (st == UM_OK)
        st = find_root(&z, &pickle);
    if (st == UM_OK && pickle->size > PICKLE_MAX)
        st = um_fail(UM_EFORMAT, "zip entry %.*s: %" PRIu64 " bytes, at most %d",
                     (int)pickle->name_bytes, pickle->name, pickle->size, PICKLE_MAX);
    if (st == UM_OK)
        st = open_entry(w, pickle);
    if (st == UM_OK)
        st = um_pickle_read(&values, pickle->data, (size_t)pickle->size, &file);
    if (st == UM_OK)
        st = add_tensors(&z, file);
    um_arena_finish(&values);
    um_free(z.entry);
    return st;
}
