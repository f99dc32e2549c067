/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op_ref.h"

#include "nn/bf16.h"
#include "nn/gain.h"
#include "nn/record.h"

#include <float.h>
#include <math.h>
#include <string.h>

static float activate(enum um_act act, float limit, float x)
{
    switch (act) {
    case UM_ACT_NONE: return x;
    case UM_ACT_RELU: return x > 0 ? x : (x != x ? x : 0);
    case UM_ACT_SILU: return x / (1 + expf(-x));
    case UM_ACT_GELU: return 0.5f * x * (1 + erff(x * 0.70710678118654752f));
    case UM_ACT_SIGMOID: return 1 / (1 + expf(-x));
    case UM_ACT_CLAMP: return x < -limit ? -limit : x > limit ? limit : x;
    }
    return x;
}

size_t um_ref_pack_conv(void *dst, const float *w, int o, int kh, int kw, int i)
{
    size_t bytes = (size_t)o * (size_t)kh * (size_t)kw * (size_t)i * sizeof *w;
    if (dst)
        memcpy(dst, w, bytes);
    return bytes;
}

size_t um_ref_pack_int8(void *dst, const struct um_int8_layer *l)
{
    size_t n = (size_t)l->o * (size_t)l->kh * (size_t)l->kw * (size_t)l->i;
    if (dst)
        memcpy(um_int8_write(dst, UM_NARROW_DOT, l, (size_t)l->o), l->w, n);
    return um_int8_places(l->i, (size_t)l->o).w + n;
}

size_t um_ref_pack_bf16(void *dst, const float *w, int o, int kh, int kw, int i)
{
    size_t n = (size_t)o * (size_t)kh * (size_t)kw * (size_t)i;
    uint16_t *to = dst ? um_bf16_write(dst, UM_NARROW_DOT) : NULL;
    for (size_t k = 0; to && k < n; k++)
        to[k] = um_bf16_of(w[k]);
    return UM_BF16_ALIGN + n * sizeof *to;
}

static float finish(const struct um_conv_args *a, const struct um_view *add, int y, int x, int w,
                    int o, float v)
{
    ptrdiff_t r = a->add_up2 ? (ptrdiff_t)(y / 2) * (w / 2) + x / 2 : (ptrdiff_t)y * w + x;
    float residual = add->data ? um_view_at(add, r)[o] : 0;
    if (add->data && !a->add_last)
        v += residual;
    v = activate(a->act, a->limit, v);
    if (a->lab_scale != 0)
        v = v * a->lab_scale + a->lab_shift;
    if (add->data && a->add_last)
        v += residual;
    return v;
}

struct conv_job {
    const struct um_call *call;
    bool depthwise;
};

static void conv_row(void *ctx, int y, int worker)
{
    const struct conv_job *job = ctx;
    const struct um_conv_args *a = job->call->args;
    const struct um_view *t = job->call->t, *out = &t[0], *in = &t[1];
    const float *w = t[2].data, *b = t[3].data;
    (void)worker;
    for (int x = 0; x < out->w; x++) {
        float *dst = um_view_at(out, (ptrdiff_t)y * out->w + x);
        for (int o = 0; o < out->c; o++) {
            float acc = b ? b[o] : 0;
            for (int ky = 0; ky < a->kh; ky++)
                for (int kx = 0; kx < a->kw; kx++) {
                    int iy = y * a->stride - a->pad_top + ky, ix = x * a->stride - a->pad_left + kx;
                    if (iy < 0 || iy >= in->h || ix < 0 || ix >= in->w)
                        continue;
                    const float *src = um_view_at(in, (ptrdiff_t)iy * in->w + ix);
                    if (job->depthwise) {
                        acc += src[o] * w[(ptrdiff_t)(ky * a->kw + kx) * out->c + o];
                        continue;
                    }
                    const float *wk = w + ((ptrdiff_t)(o * a->kh + ky) * a->kw + kx) * in->c;
                    for (int i = 0; i < in->c; i++)
                        acc += src[i] * wk[i];
                }
            dst[o] = finish(a, &t[4], y, x, out->w, o, acc);
        }
    }
}

/* What output pixel x,y sees, kh*kw*c numbers; beyond the border 0. */
static void read_window(const struct um_conv_args *a, const struct um_view *in, int y, int x,
                        float *to)
{
    for (int ky = 0; ky < a->kh; ky++)
        for (int kx = 0; kx < a->kw; kx++) {
            int iy = y * a->stride - a->pad_top + ky, ix = x * a->stride - a->pad_left + kx;
            bool inside = iy >= 0 && iy < in->h && ix >= 0 && ix < in->w;
            const float *src = inside ? um_view_at(in, (ptrdiff_t)iy * in->w + ix) : NULL;
            for (int i = 0; i < in->c; i++)
                *to++ = src ? src[i] : 0;
        }
}

static void bf16_conv_row(void *ctx, int y, int worker)
{
    const struct conv_job *job = ctx;
    const struct um_conv_args *a = job->call->args;
    const struct um_view *t = job->call->t, *out = &t[0], *in = &t[1];
    const uint16_t *w = um_bf16_weights(t[2].data);
    const float *b = t[3].data;
    int k = a->kh * a->kw * in->c;
    float *window = um_pool_scratch(job->call->pool, worker);
    for (int x = 0; x < out->w; x++) {
        read_window(a, in, y, x, window);
        for (int i = 0; i < k; i++)
            window[i] = um_bf16_float(um_bf16_of(window[i]));
        for (int o = 0; o < out->c; o++) {
            float acc = b ? b[o] : 0;
            for (int i = 0; i < k; i++)
                acc += window[i] * um_bf16_float(w[(ptrdiff_t)o * k + i]);
            um_view_at(out, (ptrdiff_t)y * out->w + x)[o] = finish(a, &t[4], y, x, out->w, o, acc);
        }
    }
}

static void byte_conv_row(void *ctx, int y, int worker)
{
    const struct conv_job *job = ctx;
    const struct um_conv_args *a = job->call->args;
    const struct um_view *t = job->call->t, *out = &t[0], *in = &t[1];
    struct um_int8_packed q = um_int8_read(t[2].data, (size_t)out->c);
    const float *b = t[3].data;
    int k = a->kh * a->kw * in->c;
    float *window = um_pool_scratch(job->call->pool, worker);
    uint8_t *bytes = (uint8_t *)(window + k);
    for (int x = 0; x < out->w; x++) {
        read_window(a, in, y, x, window);
        for (int i = 0; i < k; i++)
            bytes[i] = um_int8_of(window[i], q.inv[i % in->c], q.zero);
        for (int o = 0; o < out->c; o++) {
            int32_t sum = q.start[o];
            for (int i = 0; i < k; i++)
                sum += bytes[i] * q.w[(ptrdiff_t)o * k + i];
            float v = fmaf((float)sum, q.scale[o], b ? b[o] : 0);
            um_view_at(out, (ptrdiff_t)y * out->w + x)[o] = finish(a, &t[4], y, x, out->w, o, v);
        }
    }
}

void um_ref_conv2d(const struct um_call *call)
{
    struct conv_job job = {call, false};
    enum um_dtype type = call->t[2].dtype;
    um_pool_run(call->pool, call->t[0].h,
                type == UM_I8     ? byte_conv_row
                : type == UM_BF16 ? bf16_conv_row
                                  : conv_row,
                &job);
}

void um_ref_dwconv(const struct um_call *call)
{
    struct conv_job job = {call, true};
    um_pool_run(call->pool, call->t[0].h, conv_row, &job);
}

void um_ref_upconv2(const struct um_call *call)
{
    const struct um_conv_args *a = call->args;
    const struct um_view *out = &call->t[0], *in = &call->t[1];
    const float *w = call->t[2].data, *b = call->t[3].data;
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++) {
            const float *src = um_view_at(in, (ptrdiff_t)(y / 2) * in->w + x / 2);
            float *dst = um_view_at(out, (ptrdiff_t)y * out->w + x);
            for (int o = 0; o < out->c; o++) {
                ptrdiff_t n = (ptrdiff_t)(y % 2 * 2 + x % 2) * out->c + o;
                float acc = b ? b[n] : 0;
                for (int i = 0; i < in->c; i++)
                    acc += src[i] * w[n * in->c + i];
                dst[o] = activate(a->act, 0, acc);
            }
        }
}

static void norm_row(const struct um_norm_args *a, const float *gamma, const float *beta, float *x,
                     int c)
{
    float mean = 0, var = 0;
    for (int i = 0; i < c; i++)
        mean += x[i];
    mean /= (float)c;
    for (int i = 0; i < c; i++)
        var += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(var / (float)c + a->eps);
    for (int i = 0; i < c; i++)
        x[i] = activate(a->act, 0, (x[i] - mean) * scale * gamma[i] + beta[i]);
}

void um_ref_layer_norm(const struct um_call *call)
{
    const struct um_view *t = call->t;
    int c = t[0].c;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)t[0].h * t[0].w; r++) {
        float *y = um_view_at(&t[0], r);
        for (int i = 0; i < c; i++)
            y[i] = um_view_at(&t[1], r)[i] + (t[2].data ? um_view_at(&t[2], r)[i] : 0);
        norm_row(call->args, t[3].data, t[4].data, y, c);
    }
}

void um_ref_gate_norm(const struct um_call *call)
{
    const struct um_view *t = call->t;
    int c = t[0].c;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)t[0].h * t[0].w; r++) {
        float *y = um_view_at(&t[0], r);
        const float *g = um_view_at(&t[1], r);
        for (int i = 0; i < c; i++)
            y[i] = g[i] * um_view_at(&t[2], r)[i] + g[c + i] * um_view_at(&t[3], r)[i];
        norm_row(call->args, t[4].data, t[5].data, y, c);
    }
}

void um_ref_add(const struct um_call *call)
{
    const struct um_add_args *a = call->args;
    const struct um_view *t = call->t;
    bool one_row = t[2].h * t[2].w == 1 && t[2].c == t[0].c;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)t[0].h * t[0].w; r++) {
        const float *b = um_view_at(&t[2], one_row ? 0 : r);
        for (int i = 0; i < t[0].c; i++)
            um_view_at(&t[0], r)[i] =
                activate(a->act, a->limit, um_view_at(&t[1], r)[i] + b[t[2].c == 1 ? 0 : i]);
    }
}

void um_ref_maxpool2(const struct um_call *call)
{
    const struct um_view *out = &call->t[0], *in = &call->t[1];
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++)
            for (int o = 0; o < out->c; o++) {
                float m = -FLT_MAX;
                for (int k = 0; k < 4; k++) {
                    int iy = y + k / 2, ix = x + k % 2;
                    float v = iy < in->h && ix < in->w
                                  ? um_view_at(in, (ptrdiff_t)iy * in->w + ix)[o]
                                  : 0;
                    m = v > m || v != v ? v : m;
                }
                um_view_at(out, (ptrdiff_t)y * out->w + x)[o] = m;
            }
}

static float dot(const float *a, const float *b, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* One query against n keys in columns col..col+d-1: two passes over the keys, no scores stored. */
static void attend(float *out, const float *q, int d, float scale, int n, const struct um_view *k,
                   const struct um_view *v, int col)
{
    float best = -FLT_MAX, sum = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int j = 0; j < n; j++) {
            const float *key = um_view_at(k, j) + col, *val = um_view_at(v, j) + col;
            float s = dot(q, key, d) * scale;
            if (pass == 0) {
                best = s > best ? s : best;
                continue;
            }
            float e = expf(s - best);
            sum += e;
            for (int i = 0; i < d; i++)
                out[i] = (j ? out[i] : 0) + e * val[i];
        }
    for (int i = 0; i < d; i++)
        out[i] /= sum;
}

static void attention_row(void *ctx, int r, int worker)
{
    const struct um_call *call = ctx;
    const struct um_attention_args *a = call->args;
    const struct um_view *t = call->t;
    int d = t[0].c / a->heads;
    (void)worker;
    for (int h = 0; h < a->heads; h++)
        attend(um_view_at(&t[0], r) + h * d, um_view_at(&t[1], r) + h * d, d, a->scale,
               t[2].h * t[2].w, &t[2], &t[3], h * d);
}

void um_ref_attention(const struct um_call *call)
{
    um_pool_run(call->pool, call->t[0].h * call->t[0].w, attention_row, (void *)(uintptr_t)call);
}

static void window_row(void *ctx, int y, int worker)
{
    const struct um_call *call = ctx;
    const struct um_window_args *a = call->args;
    const struct um_view *out = &call->t[0], *qkv = &call->t[1];
    const float *pad = call->t[2].data;
    int ws = a->window, c = out->c, d = c / a->heads;
    float scale = 1 / sqrtf((float)d);
    (void)worker;
    for (int x = 0; x < out->w; x++)
        for (int h = 0; h < a->heads; h++) {
            const float *q = um_view_at(qkv, (ptrdiff_t)y * out->w + x) + 3 * d * h;
            const float *bias = um_view_at(&call->t[3], h);
            float *dst = um_view_at(out, (ptrdiff_t)y * out->w + x) + d * h, best = -FLT_MAX,
                  sum = 0;
            for (int i = 0; i < d; i++)
                dst[i] = 0;
            for (int pass = 0; pass < 2; pass++)
                for (int j = 0; j < ws * ws; j++) {
                    int ky = y / ws * ws + j / ws, kx = x / ws * ws + j % ws;
                    const float *kv =
                        (ky < out->h && kx < out->w ? um_view_at(qkv, (ptrdiff_t)ky * out->w + kx)
                                                    : pad) +
                        3 * d * h;
                    int dy = ky > y ? ky - y : y - ky, dx = kx > x ? kx - x : x - kx;
                    float s = dot(q, kv + d, d) * scale + bias[dy * ws + dx];
                    if (pass == 0) {
                        best = s > best ? s : best;
                        continue;
                    }
                    float e = expf(s - best);
                    sum += e;
                    for (int i = 0; i < d; i++)
                        dst[i] += e * kv[2 * d + i];
                }
            for (int i = 0; i < d; i++)
                dst[i] /= sum;
        }
}

void um_ref_window_attention(const struct um_call *call)
{
    um_pool_run(call->pool, call->t[0].h, window_row, (void *)(uintptr_t)call);
}

static void relative_row(void *ctx, int y, int worker)
{
    const struct um_call *call = ctx;
    const struct um_relative_args *a = call->args;
    const struct um_view *out = &call->t[0], *qkv = &call->t[1];
    const float *pad = call->t[2].data;
    int ws = a->window, c = out->c, d = c / a->heads;
    float scale = 1 / sqrtf((float)d), down[UM_RELATIVE_MAX], across[UM_RELATIVE_MAX];
    (void)worker;
    for (int x = 0; x < out->w; x++)
        for (int h = 0; h < a->heads; h++) {
            const float *q = um_view_at(qkv, (ptrdiff_t)y * out->w + x) + d * h;
            float *dst = um_view_at(out, (ptrdiff_t)y * out->w + x) + d * h, best = -FLT_MAX,
                  sum = 0;
            for (int i = 0; i < ws; i++) {
                down[i] = dot(q, um_view_at(&call->t[3], y % ws - i + ws - 1), d);
                across[i] = dot(q, um_view_at(&call->t[4], x % ws - i + ws - 1), d);
            }
            for (int i = 0; i < d; i++)
                dst[i] = 0;
            for (int pass = 0; pass < 2; pass++)
                for (int j = 0; j < ws * ws; j++) {
                    int ky = y / ws * ws + j / ws, kx = x / ws * ws + j % ws;
                    const float *kv =
                        (ky < out->h && kx < out->w ? um_view_at(qkv, (ptrdiff_t)ky * out->w + kx)
                                                    : pad) +
                        d * h;
                    float s = dot(q, kv + c, d) * scale + down[j / ws] + across[j % ws];
                    if (pass == 0) {
                        best = s > best ? s : best;
                        continue;
                    }
                    float e = expf(s - best);
                    sum += e;
                    for (int i = 0; i < d; i++)
                        dst[i] += e * kv[2 * c + i];
                }
            for (int i = 0; i < d; i++)
                dst[i] /= sum;
        }
}

void um_ref_relative_attention(const struct um_call *call)
{
    um_pool_run(call->pool, call->t[0].h, relative_row, (void *)(uintptr_t)call);
}

void um_ref_matmul_nt(const struct um_call *call)
{
    const struct um_view *t = call->t;
    for (ptrdiff_t m = 0; m < (ptrdiff_t)t[0].h * t[0].w; m++)
        for (int n = 0; n < t[0].c; n++)
            um_view_at(&t[0], m)[n] = dot(um_view_at(&t[1], m), um_view_at(&t[2], n), t[1].c);
}

void um_ref_resize(const struct um_call *call)
{
    const struct um_resize_args *a = call->args;
    const struct um_view *out = &call->t[0], *in = &call->t[1], *taps = &call->t[2];
    int c = in->c;
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++) {
            const int32_t *k =
                (const int32_t *)taps->data + (ptrdiff_t)(a->vertical ? y : x) * taps->ld;
            for (int o = 0; o < c; o++) {
                int32_t acc = 1 << 21;
                for (int j = 0; j < k[1]; j++) {
                    int iy = a->vertical ? k[0] + j : y, ix = a->vertical ? x : k[0] + j;
                    acc += k[2 + j] *
                           ((const uint8_t *)in->data)[((ptrdiff_t)iy * in->w + ix) * in->ld + o];
                }
                acc >>= 22;
                ((uint8_t *)out->data)[((ptrdiff_t)y * out->w + x) * out->ld + o] =
                    (uint8_t)(acc < 0     ? 0
                              : acc > 255 ? 255
                                          : acc);
            }
        }
}

static void area_row(void *ctx, int y, int worker)
{
    const struct um_call *call = ctx;
    const struct um_area_args *a = call->args;
    const struct um_view *out = &call->t[0], *in = &call->t[1];
    const float *ky = um_view_at(&call->t[3], y);
    (void)worker;
    for (int x = 0; x < out->w; x++)
        for (int o = 0; o < out->c; o++) {
            const float *kx = um_view_at(&call->t[2], x);
            float sum = 0;
            int32_t fixed = 0;
            for (int j = 0; j < (int)ky[1]; j++) {
                const uint8_t *p =
                    (const uint8_t *)in->data +
                    ((ptrdiff_t)((int)ky[0] + j) * in->w + (ptrdiff_t)kx[0]) * in->ld + o;
                float line = 0;
                for (int i = 0; i < (int)kx[1]; i++, p += in->ld)
                    line += (float)*p * kx[2 + i];
                sum += line * ky[2 + j];
                fixed += (int32_t)ky[2 + j] * ((int32_t)line >> 4) >> 16;
            }
            float v = sum * a->scale;
            v = a->half_up ? v + 0.5f : rintf(v);
            ((uint8_t *)out->data)[((ptrdiff_t)y * out->w + x) * out->ld + o] =
                (uint8_t)(a->linear ? (fixed + 2) >> 2
                          : v < 0   ? 0
                          : v > 255 ? 255
                                    : (int)v);
        }
}

void um_ref_area(const struct um_call *call)
{
    um_pool_run(call->pool, call->t[0].h, area_row, (void *)(uintptr_t)call);
}

static void fir_row(void *ctx, int y, int worker)
{
    const struct um_call *call = ctx;
    const struct um_resize_args *a = call->args;
    const struct um_view *out = &call->t[0], *in = &call->t[1];
    const float *range = call->t[3].data, *f = in->data;
    const uint8_t *u = in->data;
    int c = range ? out->c : out->c / 2;
    ptrdiff_t step = a->vertical ? (ptrdiff_t)in->w * c : c;
    (void)worker;
    for (int x = 0; x < out->w; x++) {
        const float *k = um_view_at(&call->t[2], a->vertical ? y : x);
        ptrdiff_t at = a->vertical ? (ptrdiff_t)k[0] * in->w + x : (ptrdiff_t)y * in->w + (int)k[0];
        for (int o = 0; o < c; o++) {
            double sum = 0;
            ptrdiff_t i = at * c + o, to = ((ptrdiff_t)y * out->w + x) * c + o;
            for (int j = 0; j < (int)k[1]; j++, i += step)
                sum += ((double)k[2 + 2 * j] + k[3 + 2 * j]) *
                       (in->dtype == UM_U8 ? (double)u[i] : (double)f[2 * i] + f[2 * i + 1]);
            if (!range) {
                float *pair = (float *)out->data + 2 * to;
                pair[0] = (float)sum;
                pair[1] = (float)(sum - pair[0]);
                continue;
            }
            sum = sum < range[0] ? range[0] : sum > range[1] ? range[1] : sum;
            ((uint8_t *)out->data)[to] = (uint8_t)(sum + 1e-9);
        }
    }
}

void um_ref_fir(const struct um_call *call)
{
    um_pool_run(call->pool, call->t[0].h, fir_row, (void *)(uintptr_t)call);
}

void um_ref_range(const struct um_call *call)
{
    const struct um_view *in = &call->t[1];
    int lo = 255, hi = 0;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)in->h * in->w; r++)
        for (int o = 0; o < in->c; o++) {
            int u = ((const uint8_t *)in->data)[r * in->ld + o];
            lo = u < lo ? u : lo;
            hi = u > hi ? u : hi;
        }
    ((float *)call->t[0].data)[0] = (float)lo;
    ((float *)call->t[0].data)[1] = (float)hi;
}

void um_ref_levels(const struct um_call *call)
{
    const struct um_view *out = &call->t[0];
    const float *range = call->t[1].data, span = range[1] - range[0];
    for (ptrdiff_t r = 0; r < (ptrdiff_t)out->h * out->w; r++)
        for (int u = 0; u < 256; u++)
            um_view_at(out, r)[u] = ((float)u - range[0]) / (span > 0 ? span : 1);
}

void um_ref_gain(const struct um_call *call)
{
    const struct um_gain_args *a = call->args;
    const struct um_view *t = call->t, *x = &t[4];
    struct um_frame_header *header = t[2].data;
    uint32_t count[256] = {0}, before;
    int dy = um_gain_step(x->h), dx = um_gain_step(x->w);
    for (int y = dy / 2; y < x->h; y += dy)
        for (int i = dx / 2; i < x->w; i += dx) {
            const uint8_t *v = (const uint8_t *)x->data + ((ptrdiff_t)y * x->w + i) * x->c;
            count[x->c == 1 ? v[0] : (v[0] + 2 * v[1] + v[2]) / 4]++;
        }
    memcpy(&before, t[3].data, sizeof before);
    before = header->anew ? 0 : before;
    uint32_t now = um_gain_white(count);
    uint32_t white =
        header->gain > 0 ? um_gain_back(header->gain) : um_gain_follow(before, now, a->smooth);
    memcpy(t[3].data, now ? &white : &before, sizeof before);
    header->gain = um_gain_times(white);
    for (int i = 0; i < 2; i++)
        for (ptrdiff_t o = 0; t[i].data && o < (ptrdiff_t)t[i].h * t[i].w; o++)
            for (int u = 0; u < 256; u++)
                um_view_at(&t[i], o)[u] = um_view_at(&t[5 + i], o)[um_gain_level(white, u)];
}

void um_ref_normalize(const struct um_call *call)
{
    const struct um_view *out = &call->t[0], *in = &call->t[1], *lut = &call->t[2];
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++)
            for (int o = 0; o < out->c; o++) {
                float v = 0;
                if (y < in->h && x < in->w)
                    v = um_view_at(
                        lut, o)[((const uint8_t *)in->data)[((ptrdiff_t)y * in->w + x) * in->ld +
                                                            (in->c == 1 ? 0 : o)]];
                um_view_at(out, (ptrdiff_t)y * out->w + x)[o] = v;
            }
}

void um_ref_scale_rows(const struct um_call *call)
{
    const struct um_view *t = call->t;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)t[0].h * t[0].w; r++)
        for (int i = 0; i < t[0].c; i++)
            um_view_at(&t[0], r)[i] = um_view_at(&t[1], r)[i] * um_view_at(&t[2], r)[0];
}

void um_ref_gather(const struct um_call *call)
{
    const struct um_view *t = call->t;
    for (ptrdiff_t r = 0; r < (ptrdiff_t)t[0].h * t[0].w; r++)
        memcpy(um_view_at(&t[0], r), um_view_at(&t[1], ((const int32_t *)t[2].data)[r * t[2].ld]),
               (size_t)t[0].c * sizeof(float));
}
