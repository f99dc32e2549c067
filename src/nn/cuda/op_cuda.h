/* SPDX-License-Identifier: Apache-2.0 */
/* The launchers of GPU kernels: um_kernel functions that launch on call->stream. Every operand that
 * is an activation may be fp32 or the level's half; constants are fp32 unless packed. */
#ifndef UM_NN_CUDA_OP_CUDA_H
#define UM_NN_CUDA_OP_CUDA_H

#include "nn/op.h"

#define UM_CUDA_SHARED_(name) um_kernel um_cuda_##name;
#define UM_CUDA_TWIN_(name) \
    um_kernel um_cuda_##name##_plain, um_cuda_##name##_f16, um_cuda_##name##_bf16;
#define UM_CUDA_HALF_(name) um_kernel um_cuda_##name##_f16, um_cuda_##name##_bf16;
#define UM_CUDA_FUSED_(name) um_kernel um_cuda_##name;
#define UM_CUDA_NONE_(name)
#define UM_CUDA_(with, entry, name, host, gpu, ...) UM_CUDA_##gpu##_(name)
UM_OPERATORS(UM_CUDA_, )

/* The table of a precision: fp16 and bf16 on tensor cores with fused steps, or (plain) the plain
 * twins, one primitive a step; fp32 is always plain. */
const struct um_ops *um_cuda_ops(enum um_dtype precision, bool plain);
/* Names of all kernels. */
const char *const *um_cuda_kernels(int *n);

#endif
