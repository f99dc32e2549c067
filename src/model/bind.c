/* SPDX-License-Identifier: Apache-2.0 */
#include "model/bind.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void um_bind_scope(um_bind *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b->scope, sizeof b->scope, fmt, ap);
    va_end(ap);
}

float *um_bind_read(um_bind *b, const char *name, const char *suffix, int rank, const int64_t *dim)
{
    char full[192];
    float *data = NULL;
    if (b->status != UM_OK)
        return NULL;
    snprintf(full, sizeof full, "%s%s%s", b->scope, name, suffix);
    b->status = um_weights_read(b->file, full, rank, dim, &data);
    return b->status == UM_OK ? data : NULL;
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
    float *shift = bias ? um_bind_read(b, name, ".bias", 1, (int64_t[]){o}) : NULL;
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
    float *all = um_array((size_t)n * (one + (size_t)o), sizeof *all);
    if (!all && b->status == UM_OK)
        b->status = um_fail(UM_ENOMEM, "%s%s: %d x %d weights", b->scope, names[0], n * o, i);
    for (int k = 0; k < n; k++) {
        float *w = um_bind_read(b, names[k], ".weight", 2, (int64_t[]){o, i});
        float *s = um_bind_read(b, names[k], ".bias", 1, (int64_t[]){o});
        if (b->status == UM_OK) {
            memcpy(all + (size_t)k * one, w, one * sizeof *w);
            memcpy(all + (size_t)n * one + (size_t)k * (size_t)o, s, (size_t)o * sizeof *s);
        }
        um_free(w);
        um_free(s);
    }
    if (b->status == UM_OK)
        conv = um_linear_pack(b->params, all, all + (size_t)n * one, n * o, i);
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
    um_conv conv = {0};
    int in = depthwise ? 1 : i;
    size_t per_output = (size_t)in * (size_t)k * (size_t)k;
    float *w = um_bind_read(b, name, ".c.weight", 4, (int64_t[]){o, in, k, k});
    float *gamma = um_bind_read(b, name, ".bn.weight", 1, (int64_t[]){o});
    float *beta = um_bind_read(b, name, ".bn.bias", 1, (int64_t[]){o});
    float *mean = um_bind_read(b, name, ".bn.running_mean", 1, (int64_t[]){o});
    float *var = um_bind_read(b, name, ".bn.running_var", 1, (int64_t[]){o});
    if (b->status == UM_OK) {
        for (int n = 0; n < o; n++) {
            double scale = gamma[n] / sqrt((double)var[n] + 1e-5);
            for (size_t e = 0; e < per_output; e++)
                w[(size_t)n * per_output + e] = (float)(w[(size_t)n * per_output + e] * scale);
            beta[n] = (float)(beta[n] - mean[n] * scale);
        }
        conv = um_conv_pack(b->params, w, beta, o, i, k, k, stride, pad, depthwise);
    }
    um_free(w);
    um_free(gamma);
    um_free(beta);
    um_free(mean);
    um_free(var);
    return conv;
}

um_norm um_bind_norm(um_bind *b, const char *name, int c, float eps)
{
    um_norm norm = {0};
    float *gamma = um_bind_read(b, name, ".weight", 1, (int64_t[]){c});
    float *beta = um_bind_read(b, name, ".bias", 1, (int64_t[]){c});
    if (b->status == UM_OK)
        norm = um_norm_pack(b->params, gamma, beta, c, eps);
    um_free(gamma);
    um_free(beta);
    return norm;
}
