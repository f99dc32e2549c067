/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/quant.h"

#include "base/mem.h"
#include "base/number.h"

#include <stdio.h>
#include <string.h>

/* BINS on each side of 0, so many that a clipped range is found to 1 % where outliers are a hundred
 * times it; whatever a layer's input has, LEAST is small. */
enum { BINS = 8192, LAYERS = 4096, SHIFTS = 7 };
static const float LEAST = 0x1p-20f, FARTHEST = 0x1p60f;

struct layer {
    struct um_quant_layer pub;
    bool met;
    float reach;   /* of the bins on each side */
    uint64_t *bin; /* [2*BINS] */
    float *most;   /* [inputs] */
    double signal, noise;
    um_quant *owner;
};

struct um_quant {
    struct layer *layer[LAYERS];
    int count;
    enum um_quant_use use;
    const struct um_ops *level; /* that calibrates */
    struct um_ops ops;          /* its primitives; convolutions are observed */
    char name[96];
    int repeat; /* layers that came of this name */
};

um_status um_quant_open(um_quant **out)
{
    *out = um_zalloc(sizeof **out);
    return *out ? UM_OK : um_fail(UM_ENOMEM, "plan of a network's bytes");
}

void um_quant_close(um_quant **q)
{
    for (int i = 0; *q && i < (*q)->count; i++) {
        um_free((*q)->layer[i]->bin);
        um_free((*q)->layer[i]->most);
        um_free((*q)->layer[i]->pub.shift);
        um_free((*q)->layer[i]);
    }
    um_free(*q);
    *q = NULL;
}

int um_quant_count(const um_quant *q)
{
    return q->count;
}

struct um_quant_layer *um_quant_at(um_quant *q, int i)
{
    return &q->layer[i]->pub;
}

static struct layer *add_layer(um_quant *q, const char *name)
{
    struct layer *l = q->count < LAYERS ? um_zalloc(sizeof *l) : NULL;
    if (!l)
        return NULL;
    snprintf(l->pub.name, sizeof l->pub.name, "%s", name);
    l->owner = q;
    q->layer[q->count++] = l;
    return l;
}

/* ---- as text ---- */

/* The next word of *text, ended by `end`; NULL: there is none. */
static char *word(char **text, char end)
{
    char *from = *text, *at = strchr(from, end);
    if (!at || at == from)
        return NULL;
    *at = 0;
    *text = at + 1;
    return from;
}

static bool take_shifts(struct um_quant_layer *l, const char *digits, int n)
{
    l->shift = um_array((size_t)n, 1);
    for (int i = 0; l->shift && i < n; i++)
        l->shift[i] = (uint8_t)(digits[i] - '0');
    l->inputs = n;
    return l->shift != NULL;
}

static um_status read_layer(um_quant *q, char **text)
{
    double lo = 0, hi = 0, snr = 0;
    const char *low = word(text, ' '), *high = low ? word(text, ' ') : NULL,
               *score = high ? word(text, ' ') : NULL, *name = score ? word(text, ' ') : NULL,
               *shift = name ? word(text, '\n') : NULL;
    if (!shift || !um_number_read(score, &snr) || q->count == LAYERS)
        return UM_EFORMAT;
    bool bytes = strcmp(low, "-") != 0 || strcmp(high, "-") != 0;
    if (bytes && !(um_number_read(low, &lo) && um_number_read(high, &hi) && lo <= 0 && hi >= 0 &&
                   hi - lo > 1e-30 && hi - lo < 1e30))
        return UM_EFORMAT;
    size_t inputs = strlen(shift);
    if (bytes ? strspn(shift, "01234567") != inputs : strcmp(shift, "-") != 0)
        return UM_EFORMAT;
    struct layer *l = add_layer(q, name);
    if (!l || (bytes && inputs > 1 && !take_shifts(&l->pub, shift, (int)inputs)))
        return UM_ENOMEM;
    l->pub.range = (struct um_range){(float)lo, (float)hi};
    l->pub.snr = snr;
    l->pub.bytes = bytes;
    return UM_OK;
}

um_status um_quant_parse(um_quant **out, const char *text, const char *where)
{
    size_t n = strlen(text);
    char *copy = um_array(n + 1, 1), *at = copy;
    um_status st = um_quant_open(out);
    if (st == UM_OK && !copy)
        st = um_fail(UM_ENOMEM, "%s: metadata int8", where);
    if (st == UM_OK)
        memcpy(copy, text, n + 1);
    while (st == UM_OK && *at) {
        int line = (*out)->count + 1;
        st = read_layer(*out, &at);
        if (st == UM_ENOMEM)
            um_fail(st, "%s: metadata int8", where);
        else if (st != UM_OK)
            um_fail(st,
                    "%s: metadata int8, line %d: want LO HI SNR NAME SHIFTS with LO <= 0 <= "
                    "HI, or - - SNR NAME -",
                    where, line);
    }
    um_free(copy);
    if (st != UM_OK)
        um_quant_close(out);
    return st;
}

um_status um_quant_print(const um_quant *q, char **text)
{
    size_t room = 1, at = 0;
    for (int i = 0; i < q->count; i++)
        room += 3 * UM_NUMBER_BYTES + sizeof q->layer[i]->pub.name +
                (size_t)q->layer[i]->pub.inputs + 2;
    *text = um_zalloc(room);
    if (!*text)
        return um_fail(UM_ENOMEM, "plan of a network's bytes");
    for (int i = 0; i < q->count; i++) {
        const struct um_quant_layer *l = &q->layer[i]->pub;
        char lo[UM_NUMBER_BYTES] = "-", hi[UM_NUMBER_BYTES] = "-";
        if (l->bytes) {
            um_number_float(lo, l->range.lo);
            um_number_float(hi, l->range.hi);
        }
        at += (size_t)um_number_print(*text + at, room - at, "%s %s %.1f %s ", lo, hi, l->snr,
                                      l->name);
        for (int c = 0; l->bytes && l->shift && c < l->inputs; c++)
            (*text)[at++] = (char)('0' + l->shift[c]);
        if (!l->bytes || !l->shift)
            (*text)[at++] = l->bytes ? '0' : '-';
        (*text)[at++] = '\n';
    }
    return UM_OK;
}

/* ---- packing ---- */

void um_quant_begin(um_quant *q)
{
    for (int i = 0; i < q->count; i++)
        q->layer[i]->met = false;
    q->name[0] = 0;
    q->repeat = 0;
}

void um_quant_name(um_quant *q, const char *name)
{
    static const char SUFFIX[] = ".weight";
    char plain[sizeof q->name];
    int n = snprintf(plain, sizeof plain, "%s", name), end = n - (int)sizeof SUFFIX + 1;
    if (end > 0 && n < (int)sizeof plain && strcmp(plain + end, SUFFIX) == 0)
        plain[end] = 0;
    if (strcmp(plain, q->name) != 0)
        q->repeat = 0;
    memcpy(q->name, plain, sizeof plain);
}

const char *um_quant_missed(const um_quant *q)
{
    for (int i = 0; i < q->count; i++)
        if (!q->layer[i]->met)
            return q->layer[i]->pub.name;
    return NULL;
}

/* The layer that is packed now. One made of several tensors is called after the last; several of
 * one tensor are counted. */
static struct layer *next_layer(um_quant *q)
{
    char name[sizeof q->name + 16];
    q->repeat++;
    if (q->repeat == 1)
        snprintf(name, sizeof name, "%s", q->name);
    else
        snprintf(name, sizeof name, "%s:%d", q->name, q->repeat);
    for (int i = 0; i < q->count; i++)
        if (strcmp(q->layer[i]->pub.name, name) == 0)
            return q->layer[i];
    return q->use == UM_QUANT_CHANNELS ? add_layer(q, name) : NULL;
}

/* Weights as bytes, each output's largest as 127; factor [i]: 2^shift. */
static void quantise_weights(int8_t *to, float *scale, int32_t *start, const um_conv *c,
                             const float *w, const float *factor, float step, int32_t zero)
{
    ptrdiff_t k = (ptrdiff_t)c->kh * c->kw * c->i;
    for (int o = 0; o < c->o; o++, w += k, to += k) {
        float most = 0;
        int32_t sum = 0;
        bool numbers = true;
        for (ptrdiff_t i = 0; i < k; i++) {
            float v = fabsf(w[i] / factor[i % c->i]);
            numbers = numbers && isfinite(v);
            most = v > most ? v : most;
        }
        for (ptrdiff_t i = 0; i < k; i++) {
            float v = w[i] / factor[i % c->i];
            to[i] = numbers && most > 0 ? (int8_t)rintf(v / most * 127) : (int8_t)0;
            sum += to[i];
        }
        scale[o] = numbers ? most / 127 * step : NAN; /* it shows, as on floats */
        start[o] = -zero * sum;
    }
}

size_t um_quant_bytes(const struct um_ops *ops, void *dst, const um_conv *c, const float *w,
                      struct um_range range, const uint8_t *shift)
{
    size_t n = (size_t)c->o * (size_t)c->kh * (size_t)c->kw * (size_t)c->i, size = 0;
    float step = (range.hi - range.lo) / 255;
    struct um_int8_layer l = {.o = c->o, .kh = c->kh, .kw = c->kw, .i = c->i};
    l.zero = (int32_t)rintf(-range.lo / step);
    if (!dst)
        return ops->pack_int8(NULL, &l);
    int8_t *bytes = um_array(n, 1);
    float *scale = um_array(2 * ((size_t)c->o + (size_t)c->i), sizeof *scale);
    if (bytes && scale) {
        int32_t *start = (int32_t *)(void *)(scale + c->o);
        float *factor = scale + 2 * c->o, *inv = factor + c->i;
        for (int i = 0; i < c->i; i++) {
            factor[i] = (float)(1 << (shift ? shift[i] : 0));
            inv[i] = factor[i] / step;
        }
        quantise_weights(bytes, scale, start, c, w, factor, step, l.zero);
        l.w = bytes;
        l.inv = inv;
        l.scale = scale;
        l.start = start;
        size = ops->pack_int8(dst, &l);
    }
    um_free(bytes);
    um_free(scale);
    return size;
}

/* What the weights of an observed layer begin with; floats follow, then (UM_QUANT_SCORES) bytes. */
struct head {
    struct layer *layer;
    size_t bytes_at; /* 0: none */
};

bool um_quant_pack(um_quant *q, um_conv *c, const float *w)
{
    const struct um_ops *ops = um_params_device(c->params)->ops;
    if (!um_may_be_narrow(c))
        return false;
    struct layer *l = next_layer(q);
    if (!l)
        return false;
    l->met = true;
    if (l->pub.inputs && l->pub.inputs != c->i) {
        um_params_fail(c->params,
                       um_fail(UM_EFORMAT, "metadata int8: layer %s has %d channels, want %d",
                               l->pub.name, l->pub.inputs, c->i));
        return false;
    }
    if (q->use == UM_QUANT_APPLY) {
        if (!l->pub.bytes)
            return false;
        void *dst = um_params_reserve(
            c->params, um_quant_bytes(ops, NULL, c, w, l->pub.range, l->pub.shift), &c->w);
        if (dst && !um_quant_bytes(ops, dst, c, w, l->pub.range, l->pub.shift))
            um_params_fail(c->params, um_fail(UM_ENOMEM, "%s: weights as bytes", l->pub.name));
        c->type = UM_I8;
        return true;
    }
    size_t floats = um_int8_round(q->level->pack_conv(NULL, w, c->o, c->kh, c->kw, c->i));
    bool scores = q->use == UM_QUANT_SCORES && l->pub.range.hi > l->pub.range.lo;
    size_t bytes = scores ? um_quant_bytes(q->level, NULL, c, w, l->pub.range, l->pub.shift) : 0;
    unsigned char *dst = um_params_reserve(c->params, UM_INT8_ALIGN + floats + bytes, &c->w);
    if (dst) {
        struct head head = {l, scores ? UM_INT8_ALIGN + floats : 0};
        memcpy(dst, &head, sizeof head);
        q->level->pack_conv(dst + UM_INT8_ALIGN, w, c->o, c->kh, c->kw, c->i);
        if (scores &&
            !um_quant_bytes(q->level, dst + head.bytes_at, c, w, l->pub.range, l->pub.shift))
            um_params_fail(c->params, um_fail(UM_ENOMEM, "%s: weights as bytes", l->pub.name));
    }
    c->type = UM_I8;
    return true;
}

/* ---- observing ---- */

/* The level that the device would have, if it has kernels for bytes; else the best that has. */
static const struct um_ops *calibration_level(void)
{
    const struct um_ops *const *all = um_ops_host(), *chosen = NULL;
    if (um_ops_choose(&chosen) == UM_OK && chosen->pack_int8)
        return chosen;
    while (!(*all)->pack_int8)
        all++;
    return *all;
}

static void widen(struct layer *l)
{
    for (int i = 0; i < BINS / 2; i++) { /* from 0 outwards, both sides */
        l->bin[BINS + i] = l->bin[BINS + 2 * i] + l->bin[BINS + 2 * i + 1];
        l->bin[BINS - 1 - i] = l->bin[BINS - 1 - 2 * i] + l->bin[BINS - 2 - 2 * i];
    }
    memset(l->bin, 0, BINS / 2 * sizeof *l->bin);
    memset(l->bin + BINS + BINS / 2, 0, BINS / 2 * sizeof *l->bin);
    l->reach *= 2;
}

static void measure(struct layer *l, const struct um_view *x)
{
    if (!l->most) {
        l->most = um_zalloc((size_t)x->c * sizeof *l->most);
        l->pub.inputs = x->c;
    }
    for (int r = 0; l->most && r < x->h * x->w; r++) {
        const float *row = um_view_at(x, r);
        for (int i = 0; i < x->c; i++) {
            float v = fabsf(row[i]);
            l->most[i] = v > l->most[i] && v < FARTHEST ? v : l->most[i];
        }
    }
}

static void count(struct layer *l, const struct um_view *x)
{
    const uint8_t *shift = l->pub.shift;
    if (!l->bin) {
        l->bin = um_zalloc(2 * BINS * sizeof *l->bin);
        l->reach = LEAST;
    }
    for (int r = 0; l->bin && shift && r < x->h * x->w; r++) {
        const float *row = um_view_at(x, r);
        for (int i = 0; i < x->c; i++) {
            float v = row[i] * (float)(1 << shift[i]);
            if (!(fabsf(v) < FARTHEST)) /* a network that leaves the numbers has no range */
                continue;
            while (fabsf(v) >= l->reach)
                widen(l);
            l->bin[BINS + (int)floorf(v / l->reach * BINS)]++; /* powers of two: exact */
        }
    }
}

static void compare(struct layer *l, const struct um_view *y, const struct um_view *bytes)
{
    for (int r = 0; r < y->h * y->w; r++) {
        const float *a = um_view_at(y, r), *b = um_view_at(bytes, r);
        for (int i = 0; i < y->c; i++) {
            double d = (double)a[i] - b[i];
            l->signal += (double)a[i] * a[i];
            l->noise += d * d;
        }
    }
}

static void observed_conv2d(const struct um_call *call)
{
    um_kernel *conv2d = calibration_level()->kernel[UM_OP_CONV2D];
    struct um_view t[5];
    struct um_call own = *call;
    struct head head;
    if (call->t[2].dtype != UM_I8) {
        conv2d(call);
        return;
    }
    memcpy(t, call->t, sizeof t);
    own.t = t;
    unsigned char *weights = t[2].data;
    memcpy(&head, weights, sizeof head);
    if (head.layer->owner->use == UM_QUANT_CHANNELS)
        measure(head.layer, &t[1]);
    else if (head.layer->owner->use == UM_QUANT_RANGES)
        count(head.layer, &t[1]);
    t[2].data = weights + UM_INT8_ALIGN;
    t[2].dtype = UM_U8;
    conv2d(&own);
    struct um_view floats = t[0];
    float *y = head.bytes_at ? um_array((size_t)t[0].h * (size_t)t[0].w * (size_t)t[0].c, sizeof *y)
                             : NULL;
    if (!y)
        return; /* nothing to compare, or no memory for this frame */
    t[0].data = y;
    t[0].ld = t[0].c;
    t[2].data = weights + head.bytes_at;
    t[2].dtype = UM_I8;
    conv2d(&own);
    compare(head.layer, &floats, &t[0]);
    um_free(y);
}

um_status um_quant_attach(um_quant *q, um_device *dev, enum um_quant_use use)
{
    if (dev->caps.launches || dev->ops)
        return um_fail(UM_EINVAL, "um_quant_attach: want a processor without networks");
    q->level = calibration_level();
    q->ops = *q->level;
    for (int op = 0; op < UM_OPS; op++)
        if (!um_op_info((enum um_op)op)->primitive)
            q->ops.kernel[op] = NULL;
    q->ops.kernel[UM_OP_CONV2D] = observed_conv2d;
    q->use = use;
    dev->ops = use == UM_QUANT_APPLY ? q->level : &q->ops;
    dev->isa = q->level->name;
    dev->quant = q;
    return UM_OK;
}

/* Mean square error of what was counted, as bytes of this range. */
static double error_of(const struct layer *l, double lo, double hi)
{
    double width = (double)l->reach / BINS, step = (hi - lo) / 255, sum = 0;
    for (int i = 0; i < 2 * BINS; i++) {
        if (!l->bin[i])
            continue;
        double v = (i - BINS + 0.5) * width, d = v < lo ? lo - v : v > hi ? v - hi : 0;
        sum += (double)l->bin[i] * (d > 0 ? d * d : step * step / 12);
    }
    return sum;
}

static struct um_range best_range(const struct layer *l)
{
    enum { STEPS = 64 };
    double width = (double)l->reach / BINS, lo = 0, hi = 0, least = INFINITY;
    for (int i = 0; i < 2 * BINS; i++)
        if (l->bin[i]) {
            lo = (i - BINS) * width < lo ? (i - BINS) * width : lo;
            hi = (i - BINS + 1) * width > hi ? (i - BINS + 1) * width : hi;
        }
    double best_lo = lo, best_hi = hi;
    /* Both ends together, then each alone. */
    for (int end = 0; end < 3; end++) {
        double from_lo = end ? best_lo : lo, from_hi = end ? best_hi : hi;
        for (int i = STEPS; i > 0; i--) {
            double f = (double)i / STEPS, a = end == 2 ? from_lo : from_lo * f,
                   b = end == 1 ? from_hi : from_hi * f, error = error_of(l, a, b);
            if (b > a && error < least) {
                least = error;
                best_lo = a;
                best_hi = b;
            }
        }
    }
    return (struct um_range){(float)best_lo, (float)best_hi};
}

void um_quant_find_channels(um_quant *q)
{
    for (int n = 0; n < q->count; n++) {
        struct layer *l = q->layer[n];
        float most = 0;
        for (int i = 0; l->most && i < l->pub.inputs; i++)
            most = l->most[i] > most ? l->most[i] : most;
        l->pub.shift = l->most ? um_zalloc((size_t)l->pub.inputs) : NULL;
        for (int i = 0; l->pub.shift && i < l->pub.inputs; i++)
            while (l->pub.shift[i] < SHIFTS && l->most[i] * (float)(2 << l->pub.shift[i]) <= most)
                l->pub.shift[i]++;
    }
}

void um_quant_find_ranges(um_quant *q)
{
    for (int i = 0; i < q->count; i++)
        if (q->layer[i]->bin)
            q->layer[i]->pub.range = best_range(q->layer[i]);
}

void um_quant_find_scores(um_quant *q)
{
    for (int i = 0; i < q->count; i++) {
        struct layer *l = q->layer[i];
        l->pub.bytes = l->signal > 0;
        l->pub.snr = l->noise > 0 && l->signal > 0 ? 10 * log10(l->signal / l->noise) : 0;
    }
}
