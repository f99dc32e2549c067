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
    char scope[96]; /* what all names start with */
} um_bind;

/* Set the scope, printf style: "image_encoder.layers.0." */
void um_bind_scope(um_bind *b, const char *fmt, ...) UM_PRINTF(2, 3);
/* Tensor SCOPE NAME SUFFIX of exactly this shape; NULL once anything has failed. The caller frees
 * it with um_free(). */
float *um_bind_read(um_bind *b, const char *name, const char *suffix, int rank, const int64_t *dim);
/* The same as a constant on the device. */
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

#endif
