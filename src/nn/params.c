/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/params.h"

#include "base/mem.h"
#include "nn/op_table.h"

#include <string.h>

/* What is added is staged in blocks, each of which is uploaded and freed on its own: the weights of
 * a big model then never lie in host memory twice, and none is moved as it grows. */
enum { BLOCK = 8 << 20 };

struct block {
    struct block *next;
    unsigned char *data;
    size_t off, size, capacity; /* off: in the buffer */
};

struct named {
    size_t off;
    char place[UM_PLACE];
};

struct um_params {
    um_device *dev;
    um_buf *buf;
    struct block *first, *last;
    size_t size;
    uint64_t layout;
    struct {
        const unsigned char *data;
        size_t size;
        void (*drop)(void *ctx);
        void *ctx;
    } held;
    struct named *named; /* constants, by offset */
    size_t n_named, cap_named;
    char place[UM_PLACE]; /* of the next one */
    bool place_taken;     /* it was of the last one */
    struct um_quant *quant;
    bool bf16;
    um_status status;
};

um_status um_params_open(um_params **out, um_device *dev)
{
    um_params *p = um_zalloc(sizeof *p);
    um_status st = p ? um_ops_attach(dev) : um_fail(UM_ENOMEM, "params");
    if (st == UM_OK)
        p->dev = dev;
    else {
        um_free(p);
        p = NULL;
    }
    *out = p;
    return st;
}

static void drop_block(um_params *p)
{
    struct block *b = p->first;
    p->first = b->next;
    um_free(b->data);
    um_free(b);
}

static void drop_held(um_params *p)
{
    if (p->held.data)
        p->held.drop(p->held.ctx);
    p->held.data = NULL;
}

void um_params_close(um_params **params)
{
    um_params *p = *params;
    if (!p)
        return;
    um_buf_close(&p->buf);
    while (p->first)
        drop_block(p);
    drop_held(p);
    um_free(p->named);
    um_free(p);
    *params = NULL;
}

void um_params_hold(um_params *p, const void *data, size_t size, void (*drop)(void *ctx), void *ctx)
{
    drop_held(p);
    p->held.data = data;
    p->held.size = size;
    p->held.drop = drop;
    p->held.ctx = ctx;
}

bool um_params_held(const um_params *p)
{
    return p->held.data != NULL;
}

void um_params_reset(um_params *p)
{
    while (p->first)
        drop_block(p);
    drop_held(p);
    p->last = NULL;
    p->size = 0;
    p->layout = 0;
    p->n_named = 0;
    p->place[0] = 0;
    p->place_taken = false;
    p->status = UM_OK;
}

uint64_t um_params_layout(const um_params *p)
{
    return p->layout;
}

const void *um_params_staged(const um_params *p, int i, size_t *off, size_t *size)
{
    const struct block *b = p->first;
    while (b && i--)
        b = b->next;
    *off = b ? b->off : 0;
    *size = b ? b->size : 0;
    return b ? b->data : NULL;
}

void um_params_fail(um_params *p, um_status st)
{
    if (p->status == UM_OK)
        p->status = st;
}

/* ---- where in the network a constant belongs ---- */

void um_place_share(char *place, const char *other, size_t n)
{
    size_t i = 0, dot = 0;
    for (; place[i] && i < n && place[i] == other[i]; i++)
        dot = place[i] == '.' ? i : dot;
    bool whole = (!place[i] || place[i] == '.') && (i == n || other[i] == '.');
    place[whole ? i : dot] = 0;
}

void um_params_name(um_params *p, const char *tensor)
{
    const char *dot = strrchr(tensor, '.');
    size_t n = dot ? (size_t)(dot - tensor) : strlen(tensor);
    if (!p->place_taken && p->place[0]) {
        um_place_share(p->place, tensor, n);
        return;
    }
    n = n < UM_PLACE - 1 ? n : UM_PLACE - 1;
    memcpy(p->place, tensor, n);
    p->place[n] = 0;
    p->place_taken = false;
}

static void take_place(um_params *p, size_t off)
{
    if (p->place_taken || !p->place[0])
        return;
    if (!um_make_room(&p->named, &p->cap_named, p->n_named, 1, sizeof *p->named)) {
        um_params_fail(p, um_fail(UM_ENOMEM, "names of %zu constants", p->n_named + 1));
        return;
    }
    struct named *n = &p->named[p->n_named++];
    n->off = off;
    memcpy(n->place, p->place, UM_PLACE);
    p->place_taken = true;
}

const char *um_params_place(const um_params *p, size_t off)
{
    size_t lo = 0, hi = p->n_named; /* the first behind off is in lo..hi */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (p->named[mid].off <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo ? p->named[lo - 1].place : NULL;
}

/* A block with room for `size` bytes from `off` on. */
static struct block *find_block(um_params *p, size_t off, size_t size)
{
    struct block *b = p->last;
    if (b && off + size - b->off <= b->capacity)
        return b;
    b = um_zalloc(sizeof *b);
    if (!b)
        return NULL;
    b->off = off;
    b->capacity = size > BLOCK ? size : BLOCK;
    b->data = um_alloc(b->capacity);
    if (!b->data) {
        um_free(b);
        return NULL;
    }
    if (p->first)
        p->last->next = b;
    else
        p->first = b;
    p->last = b;
    return b;
}

void *um_params_reserve(um_params *p, size_t size, um_const *out)
{
    *out = (um_const){0, 0};
    if (p->status != UM_OK)
        return NULL;
    if (p->buf) {
        p->status = um_fail(UM_EINVAL, "params: add after upload");
        return NULL;
    }
    size_t off = um_aligned(p->size);
    p->layout = (p->layout ^ size) * 0x100000001b3; /* FNV-1a, a word at a time */
    if (p->held.data && size <= SIZE_MAX / 4 - off) {
        p->size = off + size;
        *out = (um_const){off, size};
        take_place(p, off);
        return NULL;
    }
    struct block *b = size <= SIZE_MAX / 4 - off ? find_block(p, off, size) : NULL;
    if (!b) {
        p->status = um_fail(UM_ENOMEM, "params: %zu bytes", size);
        return NULL;
    }
    memset(b->data + b->size, 0, off + size - b->off - b->size);
    b->size = off + size - b->off;
    p->size = off + size;
    *out = (um_const){off, size};
    take_place(p, off);
    return b->data + (off - b->off);
}

um_const um_params_add(um_params *p, const void *data, size_t size)
{
    um_const k;
    void *dst = um_params_reserve(p, size, &k);
    if (dst)
        memcpy(dst, data, size);
    return k;
}

/* Where the device shares the host's memory they stay where they are. */
static um_status upload_held(um_params *p)
{
    if (p->held.size != p->size)
        return um_fail(UM_EINVAL, "params: %zu bytes are held, want %zu", p->held.size, p->size);
    if (p->dev->caps.shared)
        return um_buf_over(&p->buf, p->dev, p->held.data, p->size, "weights");
    um_status st = um_buf_open(&p->buf, p->dev, p->size, "weights");
    for (size_t off = 0, n; st == UM_OK && off < p->size; off += n) {
        n = p->size - off < BLOCK ? p->size - off : BLOCK;
        st = um_upload_now(p->dev, p->buf, off, p->held.data + off, n, UM_STAGE_SETUP, "weights");
    }
    drop_held(p);
    return st;
}

um_status um_params_upload(um_params *p)
{
    if (p->status != UM_OK || p->buf)
        return p->status;
    if (p->held.data)
        return p->status = upload_held(p);
    p->status = um_buf_open(&p->buf, p->dev, p->size ? p->size : UM_ALIGN, "weights");
    while (p->first) {
        if (p->status == UM_OK && p->first->size)
            p->status = um_upload_now(p->dev, p->buf, p->first->off, p->first->data, p->first->size,
                                      UM_STAGE_SETUP, "weights");
        drop_block(p);
    }
    return p->status;
}

size_t um_params_bytes(const um_params *p)
{
    return p->size;
}

void um_params_quantise(um_params *p, struct um_quant *q)
{
    p->quant = q;
}

struct um_quant *um_params_quant(const um_params *p)
{
    return p->quant;
}

void um_params_round(um_params *p, bool bf16)
{
    p->bf16 = bf16;
}

bool um_params_bf16(const um_params *p)
{
    return p->bf16;
}

um_buf *um_params_buf(const um_params *p)
{
    return p->buf;
}

um_device *um_params_device(const um_params *p)
{
    return p->dev;
}
