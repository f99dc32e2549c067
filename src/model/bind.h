/* SPDX-License-Identifier: Apache-2.0 */
/* Weight file to packed layers, by upstream name. The first failure is sticky, so a bind table is a
 * plain list of calls. */
#ifndef UM_MODEL_BIND_H
#define UM_MODEL_BIND_H

#include "nn/op.h"
#include "weights/weights.h"

typedef struct um_bind {
    const um_weights *file;
    um_params *params;
    um_status status;
    unsigned char *used;          /* one flag per tensor of the file: it has been read */
    char scope[96];               /* what all names start with */
    bool unproven;                /* see um_bind_unproven() */
    struct um_quant *quant, *own; /* which layers compute on bytes; NULL: none. Own: the file's */
} um_bind;

/* A network's weights: named by `bind`, then on the device. Where it can be (um_device_settings.
 * weight_cache) they come packed from a file of an earlier time, and then nothing but names and
 * shapes is read; else they are packed and kept for the next. `bind` may be called twice. */
struct um_bind_network {
    const char *geometry; /* what packed weights depend on beside file, kernels and precision */
    void (*bind)(void *network, um_bind *b);
    bool (*ignorable)(const char *name); /* of um_bind_all_used() */
};
um_status um_bind_network(void *network, const struct um_bind_network *how, const um_weights *file,
                          um_params *params);

um_bind um_bind_begin(const um_weights *file, um_params *params);
/* May what is bound from now on compute on bytes, if the file says so, or in bf16? At first it may.
 */
void um_bind_narrow(um_bind *b, bool may);
/* Or in bf16 alone? */
void um_bind_round(um_bind *b, bool may);
/* Would it then be in bf16? */
bool um_bind_rounds(const um_bind *b);
/* Nobody has shown that bf16 serves this network as floats do: it stays floats on a device that may
 * choose. */
void um_bind_unproven(um_bind *b);
um_status um_bind_finish(um_bind *b); /* the first failure */
/* A tensor of the file that has not been read is a failure, unless it is a counter of training or
 * of a profiler, or `ignorable` knows that upstream itself passes over it. */
void um_bind_all_used(um_bind *b, bool (*ignorable)(const char *name));

/* Set the scope, printf style: "image_encoder.layers.0." */
void um_bind_scope(um_bind *b, const char *fmt, ...) UM_PRINTF(2, 3);
/* Are the numbers wanted? Not after a failure, nor where they are packed already. */
bool um_bind_reads(const um_bind *b);
/* Tensor SCOPE NAME SUFFIX of exactly this shape, of finite floats; NULL once anything has failed.
 * Without um_bind_reads() its numbers are undefined. The caller frees it with um_free(). */
float *um_bind_read(um_bind *b, const char *name, const char *suffix, int rank, const int64_t *dim);
float *um_bind_vector(um_bind *b, const char *name, const char *suffix, int n);        /* [n] */
float *um_bind_matrix(um_bind *b, const char *name, const char *suffix, int o, int i); /* [o,i] */
double um_bind_scalar(um_bind *b, const char *name); /* of any type, with one element */
/* Tensor SCOPE NAME as a constant on the device. */
um_const um_bind_table(um_bind *b, const char *name, int rank, const int64_t *dim);
/* NAME.weight [o,i,k,k] and, if asked for, NAME.bias [o]. */
um_conv um_bind_conv(um_bind *b, const char *name, int o, int i, int k, int stride, int pad,
                     bool bias);
um_conv um_bind_linear(um_bind *b, const char *name, int o, int i);
/* n layers of the same shape and input as one: outputs one after the other. */
um_conv um_bind_linears(um_bind *b, const char *const *names, int n, int o, int i);
/* NAME.c.weight with NAME.bn.* folded in: eps 1e-5, in double. */
um_conv um_bind_conv_bn(um_bind *b, const char *name, int o, int i, int k, int stride, int pad,
                        bool depthwise);
/* NAME.weight, NAME.bias [c]. */
um_norm um_bind_norm(um_bind *b, const char *name, int c, float eps);

/* A convolution while it is being folded, in double: w [o][i][k*k] and behind it b [o]; both NULL
 * without um_bind_reads(). */
struct um_fold {
    double *w, *b;
    int o, i, k;
};
struct um_fold um_fold_new(um_bind *b, int o, int i, int k);
/* NAME.weight [o,i,k,k], NAME.bias [o]. */
struct um_fold um_fold_conv(um_bind *b, const char *name, int o, int i, int k);
/* CONV.weight [o,i,k,k] with BN.weight, BN.bias, BN.running_mean and BN.running_var folded in: eps
 * 1e-5. */
struct um_fold um_fold_conv_bn(um_bind *b, const char *conv, const char *bn, int o, int i, int k);
/* Round to fp32, pack and free. i = 1 if depthwise. */
um_conv um_fold_pack(um_bind *b, struct um_fold f, int stride, int pad, bool depthwise, bool bias);

#endif
