/* SPDX-License-Identifier: Apache-2.0 */
#include "model/bind.h"

#include "base/build.h"
#include "base/mem.h"
#include "nn/op_table.h"
#include "nn/quant.h"
#include "weights/packed.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The plan of the device that calibrates, or of the file. */
static void begin_quant(um_bind *b)
{
    um_device *dev = um_params_device(b->params);
    const char *text = um_weights_meta(b->file, "int8");
    b->quant = dev->quant;
    if (!b->quant && dev->layers == UM_I8 && b->status == UM_OK) {
        if (text)
            b->status = um_quant_parse(&b->own, text, um_weights_path(b->file));
        else
            b->status = um_fail(UM_EFORMAT,
                                "%s: no ranges for int8, want a file made by: ultramotion convert "
                                "--precision int8 --calibrate SOURCE %s OUT.safetensors",
                                um_weights_path(b->file), um_weights_path(b->file));
        b->quant = b->own;
    }
    if (b->quant)
        um_quant_begin(b->quant);
    um_bind_narrow(b, true);
}

um_bind um_bind_begin(const um_weights *file, um_params *params)
{
    um_bind b = {.file = file, .params = params};
    b.used = um_zalloc((size_t)um_weights_count(file) + 1);
    if (!b.used)
        b.status = um_fail(UM_ENOMEM, "list of tensors");
    begin_quant(&b);
    return b;
}

void um_bind_narrow(um_bind *b, bool may)
{
    um_params_quantise(b->params, may ? b->quant : NULL);
    um_bind_round(b, may);
}

bool um_bind_rounds(const um_bind *b)
{
    const um_device *dev = um_params_device(b->params);
    const struct um_ops *ops = dev->ops;
    bool fewer = dev->layers == UM_BF16 || (dev->layers == UM_I8 && ops->bf16);
    return fewer && !(b->unproven && dev->choose);
}

void um_bind_round(um_bind *b, bool may)
{
    um_params_round(b->params, may && um_bind_rounds(b));
}

void um_bind_unproven(um_bind *b)
{
    b->unproven = true;
    um_bind_narrow(b, true);
}

um_status um_bind_finish(um_bind *b)
{
    const char *missed = b->own && b->status == UM_OK ? um_quant_missed(b->own) : NULL;
    if (missed)
        b->status = um_fail(UM_EFORMAT, "%s: metadata int8: layer %s is none of the network's",
                            um_weights_path(b->file), missed);
    um_quant_close(&b->own);
    um_bind_narrow(b, false);
    um_free(b->used);
    b->used = NULL;
    return b->status;
}

void um_bind_scope(um_bind *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b->scope, sizeof b->scope, fmt, ap);
    va_end(ap);
}

/* Of a tensor that is there. */
static void mark_used(um_bind *b, const char *name)
{
    int lo = 0, hi = um_weights_count(b->file);
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(um_weights_at(b->file, mid)->name, name);
        if (c == 0)
            b->used[mid] = 1;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
}

/* What PyTorch, its averaging of weights and profilers count beside any network. */
static bool is_counter(const char *name)
{
    static const char *const END[] = {".num_batches_tracked", ".total_ops", ".total_params"};
    static const char *const WHOLE[] = {"total_ops", "total_params", "n_averaged", "updates",
                                        "initted",   "step",         "decay",      "num_updates"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof END / sizeof *END; i++) {
        size_t m = strlen(END[i]);
        if (n >= m && strcmp(name + n - m, END[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof WHOLE / sizeof *WHOLE; i++)
        if (strcmp(name, WHOLE[i]) == 0)
            return true;
    return false;
}

void um_bind_all_used(um_bind *b, bool (*ignorable)(const char *name))
{
    const char *first = NULL;
    int unused = 0;
    for (int i = 0; b->status == UM_OK && i < um_weights_count(b->file); i++) {
        const char *name = um_weights_at(b->file, i)->name;
        if (b->used[i] || is_counter(name) || ignorable(name))
            continue;
        first = first ? first : name;
        unused++;
    }
    if (first)
        b->status = um_fail(UM_EFORMAT,
                            "%s: tensor %s is none of the network's (%d of %d are not), want "
                            "nothing that changes its result; give a checkpoint without additions",
                            um_weights_path(b->file), first, unused, um_weights_count(b->file));
}

bool um_bind_reads(const um_bind *b)
{
    return b->status == UM_OK && !um_params_held(b->params);
}

/* Whole numbers would be codes of something, and one that is no number spoils every result. */
static um_status check_numbers(const um_bind *b, const char *name, const float *data)
{
    const struct um_wtensor *t = um_weights_find(b->file, name);
    int64_t n = um_bind_reads(b) ? um_wtensor_elements(t) : 0;
    if (t->type > UM_W_F64)
        return um_fail(UM_EFORMAT,
                       "%s: tensor %s is of %s, want F32, F16 or BF16; save the network as floats",
                       um_weights_path(b->file), name, um_wtype_name(t->type));
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(data[i]))
            return um_fail(UM_EFORMAT,
                           "%s: tensor %s: number %" PRId64 " of %" PRId64
                           " is %g, want finite ones; take a checkpoint from before the training "
                           "diverged, or copy the file again",
                           um_weights_path(b->file), name, i, n, (double)data[i]);
    return UM_OK;
}

float *um_bind_read(um_bind *b, const char *name, const char *suffix, int rank, const int64_t *dim)
{
    char full[256];
    float *data = NULL;
    if (b->status != UM_OK)
        return NULL;
    snprintf(full, sizeof full, "%s%s%s", b->scope, name, suffix);
    b->status = um_weights_take(b->file, full, rank, dim, um_bind_reads(b), &data);
    if (b->status == UM_OK)
        b->status = check_numbers(b, full, data);
    if (b->status != UM_OK) {
        um_free(data);
        return NULL;
    }
    mark_used(b, full);
    um_params_name(b->params, full);
    if (b->quant && rank > 1)
        um_quant_name(b->quant, full);
    return data;
}

float *um_bind_vector(um_bind *b, const char *name, const char *suffix, int n)
{
    return um_bind_read(b, name, suffix, 1, (int64_t[]){n});
}

float *um_bind_matrix(um_bind *b, const char *name, const char *suffix, int o, int i)
{
    return um_bind_read(b, name, suffix, 2, (int64_t[]){o, i});
}

double um_bind_scalar(um_bind *b, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", b->scope, name);
    const struct um_wtensor *t = um_weights_find(b->file, full);
    if (b->status != UM_OK)
        return 0;
    if (!t || um_wtensor_elements(t) != 1 || !isfinite(um_wtensor_at(t, 0))) {
        b->status = um_fail(UM_EFORMAT, "%s: %s %s, want one finite number; copy the file again",
                            um_weights_path(b->file), t ? "tensor" : "missing tensor", full);
        return 0;
    }
    mark_used(b, full);
    return um_wtensor_at(t, 0);
}

um_const um_bind_table(um_bind *b, const char *name, int rank, const int64_t *dim)
{
    um_const k = {0};
    size_t n = 1;
    float *data = um_bind_read(b, name, "", rank, dim);
    for (int i = 0; i < rank; i++)
        n *= (size_t)dim[i];
    if (data)
        k = um_params_add(b->params, data, n * sizeof *data);
    um_free(data);
    return k;
}

um_conv um_bind_conv(um_bind *b, const char *name, int o, int i, int k, int stride, int pad,
                     bool bias)
{
    um_conv conv = {0};
    float *w = um_bind_read(b, name, ".weight", 4, (int64_t[]){o, i, k, k});
    float *shift = bias ? um_bind_vector(b, name, ".bias", o) : NULL;
    if (b->status == UM_OK)
        conv = um_conv_pack(b->params, w, shift, o, i, k, k, stride, pad, false);
    um_free(w);
    um_free(shift);
    return conv;
}

um_conv um_bind_linears(um_bind *b, const char *const *names, int n, int o, int i)
{
    um_conv conv = {0};
    size_t one = (size_t)o * (size_t)i;
    bool held = um_params_held(b->params);
    float *all = um_array(held ? 1 : (size_t)n * (one + (size_t)o), sizeof *all);
    if (!all && b->status == UM_OK)
        b->status = um_fail(UM_ENOMEM, "%s%s: %d x %d weights", b->scope, names[0], n * o, i);
    for (int k = 0; k < n; k++) {
        float *w = um_bind_matrix(b, names[k], ".weight", o, i);
        float *s = um_bind_vector(b, names[k], ".bias", o);
        if (um_bind_reads(b)) {
            memcpy(all + (size_t)k * one, w, one * sizeof *w);
            memcpy(all + (size_t)n * one + (size_t)k * (size_t)o, s, (size_t)o * sizeof *s);
        }
        um_free(w);
        um_free(s);
    }
    if (b->status == UM_OK)
        conv = um_linear_pack(b->params, all, held ? all : all + (size_t)n * one, n * o, i);
    um_free(all);
    return conv;
}

um_conv um_bind_linear(um_bind *b, const char *name, int o, int i)
{
    return um_bind_linears(b, &name, 1, o, i);
}

um_conv um_bind_conv_bn(um_bind *b, const char *name, int o, int i, int k, int stride, int pad,
                        bool depthwise)
{
    char conv[96], bn[96];
    snprintf(conv, sizeof conv, "%s.c", name);
    snprintf(bn, sizeof bn, "%s.bn", name);
    struct um_fold f = um_fold_conv_bn(b, conv, bn, o, depthwise ? 1 : i, k);
    return um_fold_pack(b, f, stride, pad, depthwise, true);
}

um_norm um_bind_norm(um_bind *b, const char *name, int c, float eps)
{
    um_norm norm = {0};
    float *gamma = um_bind_vector(b, name, ".weight", c);
    float *beta = um_bind_vector(b, name, ".bias", c);
    if (b->status == UM_OK)
        norm = um_norm_pack(b->params, gamma, beta, c, eps);
    um_free(gamma);
    um_free(beta);
    return norm;
}

/* ---- folding ---- */

struct um_fold um_fold_new(um_bind *b, int o, int i, int k)
{
    struct um_fold f = {NULL, NULL, o, i, k};
    if (!um_bind_reads(b))
        return f;
    size_t n = (size_t)o * (size_t)i * (size_t)(k * k);
    f.w = um_array(n + (size_t)o, sizeof *f.w);
    if (f.w)
        f.b = f.w + n;
    else
        b->status = um_fail(UM_ENOMEM, "convolution weights %dx%dx%dx%d", o, i, k, k);
    return f;
}

struct um_fold um_fold_conv(um_bind *b, const char *name, int o, int i, int k)
{
    struct um_fold f = um_fold_new(b, o, i, k);
    size_t n = (size_t)o * (size_t)i * (size_t)(k * k);
    float *w = um_bind_read(b, name, ".weight", 4, (int64_t[]){o, i, k, k});
    float *bias = um_bind_vector(b, name, ".bias", o);
    for (size_t e = 0; um_bind_reads(b) && e < n; e++)
        f.w[e] = w[e];
    for (int r = 0; um_bind_reads(b) && r < o; r++)
        f.b[r] = bias[r];
    um_free(w);
    um_free(bias);
    return f;
}

struct um_fold um_fold_conv_bn(um_bind *b, const char *conv, const char *bn, int o, int i, int k)
{
    struct um_fold f = um_fold_new(b, o, i, k);
    size_t per_output = (size_t)i * (size_t)(k * k);
    float *w = um_bind_read(b, conv, ".weight", 4, (int64_t[]){o, i, k, k});
    float *gamma = um_bind_vector(b, bn, ".weight", o);
    float *beta = um_bind_vector(b, bn, ".bias", o);
    float *mean = um_bind_vector(b, bn, ".running_mean", o);
    float *var = um_bind_vector(b, bn, ".running_var", o);
    for (size_t r = 0; um_bind_reads(b) && r < (size_t)o; r++) {
        double scale = gamma[r] / sqrt((double)var[r] + 1e-5);
        for (size_t e = r * per_output; e < (r + 1) * per_output; e++)
            f.w[e] = w[e] * scale;
        f.b[r] = beta[r] - mean[r] * scale;
    }
    um_free(w);
    um_free(gamma);
    um_free(beta);
    um_free(mean);
    um_free(var);
    return f;
}

um_conv um_fold_pack(um_bind *b, struct um_fold f, int stride, int pad, bool depthwise, bool bias)
{
    um_conv conv = {0};
    size_t n = (size_t)f.o * (size_t)f.i * (size_t)(f.k * f.k);
    bool held = um_params_held(b->params);
    float *w = b->status == UM_OK ? um_array(held ? 1 : n + (size_t)f.o, sizeof *w) : NULL;
    if (w) {
        for (size_t i = 0; !held && i < n + (size_t)f.o; i++)
            w[i] = (float)f.w[i];
        conv = um_conv_pack(b->params, w, bias ? (held ? w : w + n) : NULL, f.o,
                            depthwise ? f.o : f.i, f.k, f.k, stride, pad, depthwise);
    } else if (b->status == UM_OK) {
        b->status = um_fail(UM_ENOMEM, "convolution weights %dx%dx%dx%d", f.o, f.i, f.k, f.k);
    }
    um_free(w);
    um_free(f.w);
    return conv;
}

/* ---- a whole network ---- */

static void drop_packed(void *ctx)
{
    um_packed *packed = ctx;
    um_packed_close(&packed);
}

/* Small ones are packed in no time, and what is measured is packed for that alone. */
static bool is_cached(const um_device *dev, size_t bytes)
{
    enum { LEAST = 1 << 20 };
    return dev->weight_cache && !dev->quant && bytes >= LEAST;
}

static void say(um_device *dev, const char *what, const char *why)
{
    um_device_lock(dev);
    snprintf(dev->cache_said, sizeof dev->cache_said, "%s: %s%s", dev->weight_cache, what, why);
    um_device_unlock(dev);
}

/* What was packed is what is asked for. */
static bool fits(const um_params *p, size_t size, uint64_t layout)
{
    return um_params_bytes(p) == size && um_params_layout(p) == layout;
}

static um_status bind_once(void *network, const struct um_bind_network *how, const um_weights *file,
                           um_params *params)
{
    um_bind b = um_bind_begin(file, params);
    how->bind(network, &b);
    um_bind_all_used(&b, how->ignorable);
    return um_bind_finish(&b);
}

static void keep_packed(um_params *params, const struct um_packed_key *key)
{
    um_device *dev = um_params_device(params);
    size_t off, size;
    int n = 0;
    while (um_params_staged(params, n, &off, &size))
        n++;
    struct um_packed_piece *piece = um_array((size_t)n, sizeof *piece);
    for (int i = 0; piece && i < n; i++)
        piece[i].data = um_params_staged(params, i, &piece[i].off, &piece[i].size);
    um_status st = piece ? um_packed_write(dev->weight_cache, key, um_params_layout(params),
                                           um_params_bytes(params), piece, n)
                         : um_fail(UM_ENOMEM, "pieces");
    um_free(piece);
    say(dev,
        st == UM_OK      ? "written"
        : st == UM_AGAIN ? "not written, another process is at it"
                         : "not written: ",
        st < UM_OK ? um_last_error() : "");
}

um_status um_bind_network(void *network, const struct um_bind_network *how, const um_weights *file,
                          um_params *params)
{
    um_device *dev = um_params_device(params);
    const struct um_ops *level = dev->ops;
    char what[256];
    struct um_packed_key key = {.sha256 = um_weights_sha256(file), .what = what};
    um_packed *packed = NULL;
    snprintf(what, sizeof what, "%s %s %s %s%s %s", um_build_id(), how->geometry, level->name,
             um_device_precision(dev), dev->choose ? " by choice" : "", dev->name);
    if (is_cached(dev, SIZE_MAX))
        um_packed_open(&packed, dev->weight_cache, &key);
    um_status st = UM_OK;
    if (packed) {
        size_t size;
        const void *data = um_packed_data(packed, &size);
        uint64_t layout = um_packed_layout(packed);
        um_params_hold(params, data, size, drop_packed, packed);
        st = bind_once(network, how, file, params);
        if (st == UM_OK && fits(params, size, layout))
            say(dev, "read", "");
        else
            um_params_reset(params);
    }
    if (!um_params_held(params)) {
        st = bind_once(network, how, file, params);
        if (st == UM_OK && is_cached(dev, um_params_bytes(params)))
            keep_packed(params, &key);
    }
    return st == UM_OK ? um_params_upload(params) : st;
}
