/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/tape.h"

#include "base/half.h"
#include "base/mem.h"
#include "nn/op_table.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { ALIGN = 128 };

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static um_status check_precision(enum um_dtype layers, const struct um_ops *ops)
{
    if (layers == UM_I8 && !ops->int8)
        return um_fail(UM_EUNSUPPORTED,
                       "precision int8: level %s of this processor has none (AVX-512 VNNI has), "
                       "want fp32",
                       ops->name);
    if (layers == UM_BF16 && !ops->bf16)
        return um_fail(
            UM_EUNSUPPORTED,
            "precision bf16: on level %s of this processor it is no quicker (with AMX it "
            "is, and with AMD's AVX-512 BF16), want fp32%s",
            ops->name, ops->int8 ? " or int8" : "");
    return UM_OK;
}

/* The kernels of a device are chosen when the first params or tape is opened on it. */
static um_status attach_ops(um_device *dev)
{
    const struct um_ops *ops = NULL;
    um_status st = UM_OK;
    um_device_lock(dev);
    if (!dev->ops) { /* written once: whoever has a tape reads it without the lock */
        st = dev->caps.launches ? um_ops_choose_gpu(dev, &ops) : um_ops_choose(&ops);
        if (st == UM_OK)
            st = check_precision(dev->layers, ops);
        if (st == UM_OK && dev->choose && ops->narrow == UM_NARROW_TILES)
            dev->layers = UM_BF16;
        dev->isa = st == UM_OK ? ops->name : dev->isa;
        dev->ops = st == UM_OK ? ops : NULL;
    }
    um_device_unlock(dev);
    return st;
}

const char *um_device_isa(const um_device *device)
{
    um_device *dev = (um_device *)(uintptr_t)device;
    if (!dev)
        return "";
    um_device_lock(dev);
    const char *isa = dev->isa || attach_ops(dev) == UM_OK ? dev->isa : "none";
    um_device_unlock(dev);
    return isa;
}

const char *um_device_precision(const um_device *device)
{
    if (!device)
        return "";
    if (device->caps.launches)
        return um_precision_name(device->precision);
    um_device_isa(device); /* which the choice hangs on */
    return um_precision_name(device->layers);
}

const char *um_device_precision_reason(const um_device *device)
{
    if (!device)
        return "";
    if (!device->choose)
        return "asked for";
    if (device->caps.launches)
        return "tensor cores";
    return strcmp(um_device_precision(device), "bf16") == 0 ? "AMX" : "no AMX";
}

/* ---- params ---- */

/* What is added is staged in blocks, each of which is uploaded and freed on its own: the weights of
 * a big model then never lie in host memory twice, and none is moved as it grows. */
enum { BLOCK = 8 << 20 };

struct block {
    struct block *next;
    unsigned char *data;
    size_t off, size, capacity; /* off: in the buffer */
};

enum { PLACE = 96 }; /* bytes of a place in a network: dotted, as the file names its tensors */

struct named {
    size_t off;
    char place[PLACE];
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
    char place[PLACE]; /* of the next one */
    bool place_taken;  /* it was of the last one */
    struct um_quant *quant;
    bool bf16;
    um_status status;
};

um_status um_params_open(um_params **out, um_device *dev)
{
    um_params *p = um_zalloc(sizeof *p);
    um_status st = p ? attach_ops(dev) : um_fail(UM_ENOMEM, "params");
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

/* Cut `place` to what it has in common with another, whole words between dots. */
static void keep_common(char *place, const char *other, size_t n)
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
        keep_common(p->place, tensor, n);
        return;
    }
    n = n < PLACE - 1 ? n : PLACE - 1;
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
    memcpy(n->place, p->place, PLACE);
    p->place_taken = true;
}

/* Of a constant, or of the last one before it that has a name: they are made of the same tensors.
 * NULL: there is none. */
static const char *place_of(const um_params *p, size_t off)
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
    size_t off = round_up(p->size);
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
    p->status = um_buf_open(&p->buf, p->dev, p->size ? p->size : ALIGN, "weights");
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

um_device *um_params_device(const um_params *p)
{
    return p->dev;
}

/* ---- tape ---- */

struct value {
    um_params *params; /* constants: buf is known once the params are uploaded */
    um_buf *buf;       /* NULL: an activation in the arena */
    size_t off, bytes;
    int first, last; /* steps between which an activation is alive */
    bool keep;
};

struct tap {
    char name[48];
    um_tensor x;
};

/* A step, and what is kept of it until the tape is compiled. */
struct record {
    struct um_step step;
    const struct um_op_info *op;
    um_tensor x[UM_OPERANDS], limit;
    size_t args_off;
    char place[PLACE];
};

struct um_tape {
    um_device *dev;
    char name[24];
    um_status status;
    bool keep_taps, compiled;
    struct value *values;
    struct record *steps;
    struct tap *taps;
    unsigned char *args;
    int n_values, n_steps, n_taps;
    size_t cap_values, cap_steps, cap_taps, args_size, cap_args;
    um_buf *arena;
    size_t arena_bytes;
};

/* For `more` behind the `used` ones of a list. */
static bool room(um_tape *t, void *list, size_t *capacity, size_t used, size_t more, size_t size)
{
    bool good = um_make_room(list, capacity, used, more, size);
    if (!good)
        um_tape_fail(t, um_fail(UM_ENOMEM, "tape %s: %zu entries", t->name, used + more));
    return good;
}

um_status um_tape_open(um_tape **out, um_device *dev, const char *name)
{
    *out = NULL;
    um_status st = attach_ops(dev);
    if (st != UM_OK)
        return st;
    um_tape *t = um_zalloc(sizeof *t);
    if (!t)
        return um_fail(UM_ENOMEM, "tape %s", name);
    t->dev = dev;
    snprintf(t->name, sizeof t->name, "%s", name);
    *out = t;
    return UM_OK;
}

void um_tape_close(um_tape **tape)
{
    um_tape *t = *tape;
    if (!t)
        return;
    um_buf_close(&t->arena);
    um_free(t->values);
    um_free(t->steps);
    um_free(t->taps);
    um_free(t->args);
    um_free(t);
    *tape = NULL;
}

um_device *um_tape_device(const um_tape *t)
{
    return t->dev;
}

enum um_dtype um_tape_act(const um_tape *t)
{
    return ((const struct um_ops *)t->dev->ops)->act;
}

um_status um_tape_status(const um_tape *t)
{
    return t->status;
}

void um_tape_fail(um_tape *t, um_status st)
{
    if (t->status == UM_OK)
        t->status = st;
}

static um_tensor add_value(um_tape *t, struct value v, enum um_dtype dtype, int h, int w, int c)
{
    um_tensor none = {0};
    if (t->status != UM_OK)
        return none;
    if (t->compiled) {
        um_tape_fail(t, um_fail(UM_EINVAL, "tape %s: recording after compile", t->name));
        return none;
    }
    if (h < 1 || w < 1 || c < 1 || (int64_t)h * w > INT_MAX ||
        (int64_t)h * w * c > (int64_t)1 << 40) {
        um_tape_fail(t,
                     um_fail(UM_EINVAL, "tape %s: tensor of shape [%d,%d,%d]", t->name, h, w, c));
        return none;
    }
    if (!room(t, &t->values, &t->cap_values, (size_t)t->n_values, 1, sizeof *t->values))
        return none;
    v.bytes = (size_t)h * (size_t)w * (size_t)c * um_dtype_size(dtype);
    v.first = INT_MAX;
    v.last = -1;
    t->values[t->n_values++] = v;
    return (um_tensor){.id = t->n_values, .dtype = dtype, .h = h, .w = w, .c = c, .ld = c};
}

um_tensor um_tape_new(um_tape *t, enum um_dtype dtype, int h, int w, int c)
{
    return add_value(t, (struct value){0}, dtype, h, w, c);
}

um_tensor um_tape_const(um_tape *t, um_params *p, um_const k, enum um_dtype dtype, int h, int w,
                        int c)
{
    if (t->status == UM_OK && (size_t)h * (size_t)w * (size_t)c * um_dtype_size(dtype) > k.size)
        um_tape_fail(t, um_fail(UM_EINVAL, "tape %s: constant of %zu bytes read as [%d,%d,%d]",
                                t->name, k.size, h, w, c));
    return add_value(t, (struct value){.params = p, .off = k.off}, dtype, h, w, c);
}

um_tensor um_tape_buffer(um_tape *t, um_buf *buf, size_t byte_offset, enum um_dtype dtype, int h,
                         int w, int c)
{
    um_tensor x = add_value(t, (struct value){.buf = buf, .off = byte_offset}, dtype, h, w, c);
    if (x.id && (byte_offset > buf->size || t->values[x.id - 1].bytes > buf->size - byte_offset))
        um_tape_fail(t, um_fail(UM_EINVAL,
                                "tape %s: [%d,%d,%d] at %zu is beyond buffer %s of %zu bytes",
                                t->name, h, w, c, byte_offset, buf->label, buf->size));
    return x;
}

/* Bytes from the first to the last element of x. */
static size_t span(um_tensor x)
{
    return ((size_t)((int64_t)x.h * x.w - 1) * (size_t)x.ld + (size_t)x.c) * um_dtype_size(x.dtype);
}

um_tensor um_tape_import(um_tape *t, const um_tape *from, um_tensor x)
{
    um_buf *buf = NULL;
    size_t off = 0;
    if (t->status != UM_OK || !x.id)
        return (um_tensor){0};
    if (!from->compiled) {
        um_tape_fail(t, um_fail(UM_EINVAL, "tape %s: import from %s before it is compiled", t->name,
                                from->name));
        return (um_tensor){0};
    }
    um_tape_locate(from, x, &buf, &off);
    um_tensor y = add_value(t, (struct value){.buf = buf, .off = off}, x.dtype, x.h, x.w, x.c);
    if (y.id) {
        y.ld = x.ld;
        t->values[y.id - 1].bytes = span(y);
    }
    return y;
}

um_tensor um_slice(um_tensor x, int c0, int c)
{
    x.off += c0;
    x.c = c;
    return x;
}

um_tensor um_rows(um_tensor x, int row0, int rows)
{
    x.off += (int64_t)row0 * x.ld;
    x.h = 1;
    x.w = rows;
    return x;
}

um_tensor um_reshape(um_tensor x, int h, int w)
{
    x.h = h;
    x.w = w;
    return x;
}

um_tensor um_keep(um_tape *t, um_tensor x)
{
    if (x.id && t->status == UM_OK)
        t->values[x.id - 1].keep = true;
    return x;
}

void um_tap(um_tape *t, const char *name, um_tensor x)
{
    if (!t->keep_taps || t->status != UM_OK || !x.id ||
        !room(t, &t->taps, &t->cap_taps, (size_t)t->n_taps, 1, sizeof *t->taps))
        return;
    struct tap *tap = &t->taps[t->n_taps++];
    snprintf(tap->name, sizeof tap->name, "%s", name);
    tap->x = um_keep(t, x);
}

void um_tape_step(um_tape *t, const struct um_op_info *op, um_kernel *kernel, const void *args,
                  size_t args_size, const um_tensor *x)
{
    if (t->status != UM_OK)
        return;
    if (t->compiled) {
        um_tape_fail(t,
                     um_fail(UM_EINVAL, "tape %s: %s recorded after compile", t->name, op->name));
        return;
    }
    size_t args_off = (t->args_size + 15) / 16 * 16;
    size_t more = args_off + args_size - t->args_size;
    if (!room(t, &t->args, &t->cap_args, t->args_size, more, 1) ||
        !room(t, &t->steps, &t->cap_steps, (size_t)t->n_steps, 1, sizeof *t->steps))
        return;
    if (args_size)
        memcpy(t->args + args_off, args, args_size);
    t->args_size = args_off + args_size;
    struct record *r = &t->steps[t->n_steps];
    *r = (struct record){
        .step = {.name = op->name, .kernel = kernel, .n = op->n}, .op = op, .args_off = args_off};
    for (int i = 0; i < op->n; i++) {
        r->x[i] = x[i];
        if (!x[i].id)
            continue;
        struct value *v = &t->values[x[i].id - 1];
        size_t begin = (size_t)x[i].off * um_dtype_size(x[i].dtype);
        if (x[i].off < 0 || begin > v->bytes || span(x[i]) > v->bytes - begin) {
            um_tape_fail(t, um_fail(UM_EINVAL,
                                    "tape %s: %s: operand %s [%d,%d,%d] lies outside its memory",
                                    t->name, op->name, op->operand[i], x[i].h, x[i].w, x[i].c));
            return;
        }
        v->first = v->first < t->n_steps ? v->first : t->n_steps;
        v->last = t->n_steps;
    }
    t->n_steps++;
}

void um_tape_limit(um_tape *t, um_tensor size)
{
    if (t->status != UM_OK || t->compiled)
        return;
    if (t->dev->caps.launches || !t->n_steps || size.dtype != UM_I32 || size.c != 2)
        um_tape_fail(t, um_fail(UM_EINVAL, "tape %s: no step that can be limited", t->name));
    else
        t->steps[t->n_steps - 1].limit = size;
}

/* Offsets for all activations: the largest first, each at the lowest place where no value alive at
 * the same time lies. Two values share bytes only if one is dead before the other is born. */
static um_status plan(um_tape *t)
{
    int n = 0;
    int *order = um_array((size_t)t->n_values + 1, 2 * sizeof *order);
    if (!order)
        return um_fail(UM_ENOMEM, "tape %s: plan", t->name);
    int *placed = order + t->n_values + 1; /* by offset */
    for (int i = 0; i < t->n_values; i++) {
        struct value *v = &t->values[i];
        if (v->buf || v->params || v->last < 0)
            continue;
        if (v->keep)
            v->last = INT_MAX;
        int at = n++;
        for (; at > 0 && t->values[order[at - 1]].bytes < v->bytes; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    size_t total = 0;
    for (int k = 0; k < n; k++) {
        struct value *v = &t->values[order[k]];
        size_t off = 0;
        for (int j = 0; j < k; j++) { /* in order of offset: the first gap wins */
            const struct value *o = &t->values[placed[j]];
            if (o->first > v->last || v->first > o->last)
                continue;
            if (o->off >= off + round_up(v->bytes))
                break;
            if (o->off + round_up(o->bytes) > off)
                off = o->off + round_up(o->bytes);
        }
        v->off = off;
        if (off + round_up(v->bytes) > total)
            total = off + round_up(v->bytes);
        int at = k;
        for (; at > 0 && t->values[placed[at - 1]].off > off; at--)
            placed[at] = placed[at - 1];
        placed[at] = order[k];
    }
    um_free(order);
    t->arena_bytes = total;
    return UM_OK;
}

/* Where step s lies: at what the places of its weights and norms have in common; a step without
 * any, where its first input was made. `made` says in which step a value was written last, -1 = in
 * none. */
static void place_step(um_tape *t, int s, const int *made)
{
    struct record *r = &t->steps[s];
    const struct um_op_info *op = r->op;
    char *place = r->place;
    for (int i = op->n_out; i < op->n; i++) {
        const struct value *v = r->x[i].id ? &t->values[r->x[i].id - 1] : NULL;
        bool layer = op->operand[i][0] == 'w' || strncmp(op->operand[i], "gamma", 5) == 0;
        const char *own = layer && v && v->params ? place_of(v->params, v->off) : NULL;
        if (own && !place[0])
            snprintf(place, PLACE, "%s", own);
        else if (own)
            keep_common(place, own, strlen(own));
    }
    for (int i = op->n_out; i < op->n && !place[0]; i++)
        if (r->x[i].id && made[r->x[i].id - 1] >= 0)
            memcpy(place, t->steps[made[r->x[i].id - 1]].place, PLACE);
    if (!place[0])
        snprintf(place, PLACE, "%s", t->name);
}

static um_status place_steps(um_tape *t)
{
    int *made = um_array((size_t)t->n_values + 1, sizeof *made);
    if (!made)
        return um_fail(UM_ENOMEM, "tape %s: places of %d steps", t->name, t->n_steps);
    for (int i = 0; i < t->n_values; i++)
        made[i] = -1;
    for (int s = 0; s < t->n_steps; s++) {
        struct record *r = &t->steps[s];
        place_step(t, s, made);
        for (int i = 0; i < r->op->n_out; i++)
            if (r->x[i].id)
                made[r->x[i].id - 1] = s;
        r->step.place = r->place;
    }
    um_free(made);
    return UM_OK;
}

/* Its operands in memory, all of which is there. */
static void bind_step(const um_tape *t, struct record *r)
{
    struct um_step *step = &r->step;
    step->args = t->args + r->args_off;
    if (r->limit.id) {
        const struct value *v = &t->values[r->limit.id - 1];
        step->limit = (struct um_operand){
            .buf = v->buf, .offset = v->off + (size_t)r->limit.off * sizeof(int32_t)};
    }
    for (int i = 0; i < step->n; i++) {
        um_tensor x = r->x[i];
        struct um_operand *o = &step->operand[i];
        o->view = (struct um_view){.dtype = x.dtype, .h = x.h, .w = x.w, .c = x.c, .ld = x.ld};
        if (!x.id)
            continue;
        const struct value *v = &t->values[x.id - 1];
        o->buf = v->buf;
        o->offset = v->off + (size_t)x.off * um_dtype_size(x.dtype);
        o->size = span(x);
        o->write = i < r->op->n_out;
    }
}

um_status um_tape_compile(um_tape *t)
{
    if (t->status != UM_OK || t->compiled)
        return t->status;
    t->status = plan(t);
    if (t->status == UM_OK)
        t->status = place_steps(t);
    if (t->status == UM_OK && t->arena_bytes)
        t->status = um_buf_open(&t->arena, t->dev, t->arena_bytes, "arena");
    for (int i = 0; i < t->n_values && t->status == UM_OK; i++) {
        struct value *v = &t->values[i];
        if (v->params && !v->params->buf)
            t->status = um_fail(UM_EINVAL, "tape %s: its weights are not uploaded", t->name);
        else if (v->params)
            v->buf = v->params->buf;
        else if (!v->buf)
            v->buf = t->arena;
    }
    for (int s = 0; s < t->n_steps && t->status == UM_OK; s++)
        bind_step(t, &t->steps[s]);
    t->compiled = t->status == UM_OK;
    return t->status;
}

um_status um_tape_run(um_tape *t, enum um_queue q)
{
    if (!t->compiled)
        return um_fail(UM_EINVAL, "tape %s: run before compile", t->name);
    um_status st = t->arena ? um_discard(t->dev, q, t->arena, 0, t->arena->size) : UM_OK;
    for (int s = 0; s < t->n_steps && st == UM_OK; s++)
        st = um_step_run(t->dev, q, &t->steps[s].step);
    return st;
}

size_t um_tape_arena_bytes(const um_tape *t)
{
    return t->arena_bytes;
}

int um_tape_steps(const um_tape *t)
{
    return t->n_steps;
}

const struct um_step *um_tape_step_at(const um_tape *t, int i)
{
    return &t->steps[i].step;
}

void um_tape_locate(const um_tape *t, um_tensor x, um_buf **buf, size_t *byte_offset)
{
    const struct value *v = &t->values[x.id - 1];
    *buf = v->buf;
    *byte_offset = v->off + (size_t)x.off * um_dtype_size(x.dtype);
}

um_status um_tape_copy(const um_tape *t, enum um_queue q, um_tensor x, um_buf *to, size_t off)
{
    um_buf *buf = NULL;
    size_t at = 0;
    um_tape_locate(t, x, &buf, &at);
    return um_copy(t->dev, q, to, off, buf, at, span(x));
}

um_status um_tape_read(const um_tape *t, um_tensor x, void *to, enum um_stage stage,
                       const char *reason)
{
    um_buf *buf = NULL;
    size_t at = 0;
    um_tape_locate(t, x, &buf, &at);
    return um_download_now(t->dev, to, buf, at, span(x), stage, reason);
}

/* ---- taps ---- */

void um_tape_keep_taps(um_tape *t)
{
    t->keep_taps = true;
}

int um_tape_taps(const um_tape *t)
{
    return t->n_taps;
}

int um_tape_find_tap(const um_tape *t, const char *name)
{
    for (int i = 0; i < t->n_taps; i++)
        if (strcmp(t->taps[i].name, name) == 0)
            return i;
    return -1;
}

um_status um_tape_read_tap(um_tape *t, int i, const char **name, int *h, int *w, int *c,
                           float **data)
{
    um_tensor x = t->taps[i].x;
    size_t rows = (size_t)x.h * (size_t)x.w;
    *data = NULL;
    unsigned char *raw = um_alloc(span(x));
    float *out = um_array(rows * (size_t)x.c, sizeof *out);
    um_status st = raw && out ? um_tape_read(t, x, raw, UM_STAGE_DEBUG, "tap")
                              : um_fail(UM_ENOMEM, "tap %s", t->taps[i].name);
    for (size_t r = 0; r < rows && st == UM_OK; r++)
        for (size_t k = 0; k < (size_t)x.c; k++) {
            size_t e = r * (size_t)x.ld + k;
            float v = 0;
            if (x.dtype == UM_F32)
                memcpy(&v, raw + 4 * e, 4);
            else if (x.dtype == UM_F16)
                um_f16_to_f32(&v, (const uint16_t *)raw + e, 1);
            else if (x.dtype == UM_BF16)
                um_bf16_to_f32(&v, (const uint16_t *)raw + e, 1);
            else if (x.dtype == UM_U8)
                v = raw[e];
            else if (x.dtype == UM_I32) {
                int32_t n;
                memcpy(&n, raw + 4 * e, 4);
                v = (float)n;
            }
            out[k * rows + r] = v;
        }
    um_free(raw);
    if (st != UM_OK) {
        um_free(out);
        return st;
    }
    *name = t->taps[i].name;
    *h = x.h;
    *w = x.w;
    *c = x.c;
    *data = out;
    return UM_OK;
}
