/* SPDX-License-Identifier: Apache-2.0 */
/* The plain-C kernels: the specification of every op, and the fallback for any CPU. */
#ifndef UM_NN_OP_REF_H
#define UM_NN_OP_REF_H

#include "nn/op.h"

#define UM_REF_SIMD_(name) um_kernel um_ref_##name;
#define UM_REF_PLAIN_(name) um_kernel um_ref_##name;
#define UM_REF_BLOCK_(name)
#define UM_REF_WIDE_(name)
#define UM_REF_NONE_(name)
#define UM_REF_(with, entry, name, host, ...) UM_REF_##host##_(name)
UM_OPERATORS(UM_REF_, ) /* op_ref*.c */

size_t um_ref_pack_conv(void *dst, const float *w, int o, int kh, int kw, int i);
size_t um_ref_pack_int8(void *dst, const struct um_int8_layer *l);
size_t um_ref_pack_bf16(void *dst, const float *w, int o, int kh, int kw, int i);

#endif
