/* SPDX-License-Identifier: Apache-2.0 */
/* A state dict as torch.save() writes it, for torch.load(weights_only=True): a zip of stored
 * entries, the pickle first. */
#include "base/file.h"
#include "base/mem.h"
#include "weights/view.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum { ALIGN = 64, LOCAL_BYTES = 30, CENTRAL_BYTES = 46, NAME_BYTES = 48 };
static const uint64_t ARCHIVE_BYTES_MAX = 0xf0000000; /* beyond lies zip64 */

struct writer {
    struct um_part part;
    uint64_t at;
    char *directory;
    size_t directory_bytes, entries;
    um_status status;
};

static void put(struct writer *w, const void *data, size_t n)
{
    um_part_write(&w->part, data, n);
    w->at += n;
}

static void put_number(unsigned char *p, uint64_t n, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(n >> 8 * i);
}

/* An entry whose content starts at a multiple of ALIGN, with the padding in its extra field. */
static void put_entry(struct writer *w, const char *name, const void *data, size_t n)
{
    unsigned char local[LOCAL_BYTES] = {'P', 'K', 3, 4}, extra[4 + ALIGN] = {'F', 'B'};
    unsigned char *central = (unsigned char *)w->directory + w->directory_bytes;
    size_t name_bytes = strlen(name), fixed = LOCAL_BYTES + name_bytes + 4;
    size_t pad = (ALIGN - (w->at + fixed) % ALIGN) % ALIGN;
    uint32_t sum = (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, n);
    if (w->status == UM_OK && w->at + fixed + ALIGN + n > ARCHIVE_BYTES_MAX)
        w->status = um_fail(UM_EUNSUPPORTED, "%s: more than 4 GB", w->part.path);
    if (w->status != UM_OK)
        return;
    memset(central, 0, CENTRAL_BYTES);
    memcpy(central, "PK\1\2", 4);
    put_number(central + 16, sum, 4);
    put_number(central + 20, n, 4);
    put_number(central + 24, n, 4);
    put_number(central + 28, name_bytes, 2);
    put_number(central + 42, w->at, 4);
    memcpy(central + CENTRAL_BYTES, name, name_bytes);
    w->directory_bytes += CENTRAL_BYTES + name_bytes;
    w->entries++;
    put_number(local + 14, sum, 4);
    put_number(local + 18, n, 4);
    put_number(local + 22, n, 4);
    put_number(local + 26, name_bytes, 2);
    put_number(local + 28, 4 + pad, 2);
    put_number(extra + 2, pad, 2);
    put(w, local, sizeof local);
    put(w, name, name_bytes);
    put(w, extra, 4 + pad);
    put(w, data, n);
}

static void put_end(struct writer *w)
{
    unsigned char end[22] = {'P', 'K', 5, 6};
    put_number(end + 8, w->entries, 2);
    put_number(end + 10, w->entries, 2);
    put_number(end + 12, w->directory_bytes, 4);
    put_number(end + 16, w->at, 4);
    put(w, w->directory, w->directory_bytes);
    put(w, end, sizeof end);
}

/* ---- the pickle, protocol 2 ---- */

struct pickle {
    unsigned char *bytes;
    size_t n, capacity;
};

#define OP(p, text) op(p, text, sizeof text - 1)
/* There is room: um_torch_write() reckoned with the most that a tensor takes. */
static void op(struct pickle *p, const void *data, size_t n)
{
    memcpy(p->bytes + p->n, data, n);
    p->n += n;
}

static void op_text(struct pickle *p, const char *s)
{
    unsigned char head[5] = {'X'};
    put_number(head + 1, strlen(s), 4);
    op(p, head, sizeof head);
    op(p, s, strlen(s));
}

static void op_int(struct pickle *p, int64_t n)
{
    unsigned char small[5] = {'J'}, large[10] = {0x8a, 8};
    put_number(small + 1, (uint64_t)n, 4);
    put_number(large + 2, (uint64_t)n, 8);
    if (n <= INT32_MAX)
        op(p, small, sizeof small);
    else
        op(p, large, sizeof large);
}

static void op_tuple(struct pickle *p, int rank, const int64_t *n)
{
    OP(p, "(");
    for (int i = 0; i < rank; i++)
        op_int(p, n[i]);
    OP(p, "t");
}

static const char *storage(enum um_wtype t)
{
    switch (t) {
    case UM_W_F32: return "Float";
    case UM_W_F16: return "Half";
    case UM_W_BF16: return "BFloat16";
    case UM_W_F64: return "Double";
    case UM_W_I64: return "Long";
    case UM_W_I32: return "Int";
    case UM_W_I16: return "Short";
    case UM_W_I8: return "Char";
    case UM_W_U8: return "Byte";
    case UM_W_BOOL: break;
    }
    return "Bool";
}

/* torch._utils._rebuild_tensor_v2((storage, type, key, 'cpu', n), 0, size, stride, False, {}) */
static void op_tensor(struct pickle *p, const struct um_wout *t, int key)
{
    char text[64];
    int64_t stride[UM_W_RANK];
    um_view_strides(t->rank, t->dim, stride);
    op_text(p, t->name);
    OP(p, "ctorch._utils\n_rebuild_tensor_v2\n((");
    op_text(p, "storage");
    op(p, text, (size_t)snprintf(text, sizeof text, "ctorch\n%sStorage\n", storage(t->type)));
    snprintf(text, sizeof text, "%d", key);
    op_text(p, text);
    op_text(p, "cpu");
    op_int(p, um_view_elements(t->rank, t->dim));
    OP(p, "tQ");
    op_int(p, 0);
    op_tuple(p, t->rank, t->dim);
    op_tuple(p, t->rank, stride);
    OP(p, "\x89"
          "ccollections\nOrderedDict\n)RtR");
}

static void op_state(struct pickle *p, const struct um_wout *t, int n, const char *wrapper)
{
    OP(p, "\x80\x02");
    if (wrapper) {
        OP(p, "}");
        op_text(p, wrapper);
    }
    OP(p, "ccollections\nOrderedDict\n)R(");
    for (int i = 0; i < n; i++)
        op_tensor(p, &t[i], i);
    op(p, wrapper ? "us." : "u.", wrapper ? 3 : 2);
}

um_status um_torch_write(const char *path, const struct um_wout *t, int n, const char *wrapper)
{
    enum { OF_TENSOR = 400 }; /* more than everything but its name takes in the pickle */
    struct writer w = {.status = UM_OK};
    struct pickle p = {NULL, 0, 256};
    char name[NAME_BYTES];
    for (int i = 0; i < n; i++)
        p.capacity += OF_TENSOR + strlen(t[i].name);
    p.bytes = um_alloc(p.capacity);
    w.directory = um_alloc((size_t)(n + 3) * (CENTRAL_BYTES + NAME_BYTES));
    if (n > 60000)
        w.status = um_fail(UM_EUNSUPPORTED, "%s: more than 60000 tensors", path);
    um_status st = w.status != UM_OK        ? w.status
                   : p.bytes && w.directory ? um_part_open(&w.part, path)
                                            : um_fail(UM_ENOMEM, "archive of %d tensors", n);
    if (st == UM_OK) {
        op_state(&p, t, n, wrapper);
        put_entry(&w, "archive/data.pkl", p.bytes, p.n);
        put_entry(&w, "archive/byteorder", "little", 6);
        for (int i = 0; i < n; i++) {
            snprintf(name, sizeof name, "archive/data/%d", i);
            put_entry(&w, name, t[i].data,
                      (size_t)um_view_elements(t[i].rank, t[i].dim) * um_wtype_bytes(t[i].type));
        }
        put_entry(&w, "archive/version", "3\n", 2);
        put_end(&w);
        st = um_part_close(&w.part, w.status);
    }
    um_free(p.bytes);
    um_free(w.directory);
    return st;
}
