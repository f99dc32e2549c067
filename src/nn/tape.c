/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/tape.h"

#include "base/half.h"
#include "base/mem.h"
#include "nn/op_table.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

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
    bool map;
};

/* A step, and what is kept of it until the tape is compiled. */
struct record {
    struct um_step step;
    const struct um_op_info *op;
    um_tensor x[UM_OPERANDS], limit;
    size_t args_off;
    char place[UM_PLACE];
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
    um_status st = um_ops_attach(dev);
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

static void add_tap(um_tape *t, const char *name, um_tensor x, bool map)
{
    if (!t->keep_taps || t->status != UM_OK || !x.id ||
        !room(t, &t->taps, &t->cap_taps, (size_t)t->n_taps, 1, sizeof *t->taps))
        return;
    struct tap *tap = &t->taps[t->n_taps++];
    snprintf(tap->name, sizeof tap->name, "%s", name);
    tap->x = um_keep(t, x);
    tap->map = map;
}

void um_tap(um_tape *t, const char *name, um_tensor x)
{
    add_tap(t, name, x, false);
}

void um_tap_map(um_tape *t, const char *name, um_tensor x)
{
    add_tap(t, name, x, true);
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
            if (o->off >= off + um_aligned(v->bytes))
                break;
            if (o->off + um_aligned(o->bytes) > off)
                off = o->off + um_aligned(o->bytes);
        }
        v->off = off;
        if (off + um_aligned(v->bytes) > total)
            total = off + um_aligned(v->bytes);
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
        const char *own = layer && v && v->params ? um_params_place(v->params, v->off) : NULL;
        if (own && !place[0])
            snprintf(place, UM_PLACE, "%s", own);
        else if (own)
            um_place_share(place, own, strlen(own));
    }
    for (int i = op->n_out; i < op->n && !place[0]; i++)
        if (r->x[i].id && made[r->x[i].id - 1] >= 0)
            memcpy(place, t->steps[made[r->x[i].id - 1]].place, UM_PLACE);
    if (!place[0])
        snprintf(place, UM_PLACE, "%s", t->name);
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
        if (v->params && !um_params_buf(v->params))
            t->status = um_fail(UM_EINVAL, "tape %s: its weights are not uploaded", t->name);
        else if (v->params)
            v->buf = um_params_buf(v->params);
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

um_status um_tape_copy(const um_tape *t, um_tensor x, um_buf *to, size_t off)
{
    um_buf *buf = NULL;
    size_t at = 0;
    um_tape_locate(t, x, &buf, &at);
    return um_copy(t->dev, UM_QUEUE_MAIN, to, off, buf, at, span(x));
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

bool um_tape_tap_is_map(const um_tape *t, int i)
{
    return t->taps[i].map;
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
