/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel tables of GPUs, one per precision and tier. */
#include "nn/cuda/op_cuda.h"

#include "nn/cuda/images.h"
#include "nn/cuda/pack.h"
#include "nn/op_ref.h"

#include <stdlib.h>
#include <string.h>

/* Launchers of a row in the tables: plain, fp32, fp16, bf16. */
#define GPU_SHARED(name) um_cuda_##name, um_cuda_##name, um_cuda_##name, um_cuda_##name
#define GPU_TWIN(name) \
    um_cuda_##name##_plain, um_cuda_##name##_plain, um_cuda_##name##_f16, um_cuda_##name##_bf16
#define GPU_HALF(name) NULL, NULL, um_cuda_##name##_f16, um_cuda_##name##_bf16
#define GPU_FUSED(name) NULL, um_cuda_##name, um_cuda_##name, um_cuda_##name
#define GPU_NONE(name) NULL, NULL, NULL, NULL

#define PICK(n, ...) UM_PICK_##n(__VA_ARGS__, )
#define LAUNCHER(n, entry, name, host, gpu, ...) [UM_OP_##entry] = PICK(n, GPU_##gpu(name)),

static const struct um_ops fp32 = {.name = "cuda fp32",
                                   .act = UM_F32,
                                   .launches = true,
                                   .kernel = {UM_OPERATORS(LAUNCHER, 1)},
                                   .pack_conv = um_ref_pack_conv};
static const struct um_ops fp16_plain = {.name = "cuda fp16 plain",
                                         .act = UM_F16,
                                         .launches = true,
                                         .kernel = {UM_OPERATORS(LAUNCHER, 0)},
                                         .pack_conv = um_ref_pack_conv};
static const struct um_ops bf16_plain = {.name = "cuda bf16 plain",
                                         .act = UM_BF16,
                                         .launches = true,
                                         .kernel = {UM_OPERATORS(LAUNCHER, 0)},
                                         .pack_conv = um_ref_pack_conv};
static const struct um_ops fp16 = {.name = "cuda fp16",
                                   .act = UM_F16,
                                   .launches = true,
                                   .kernel = {UM_OPERATORS(LAUNCHER, 2)},
                                   .pack_conv = um_cuda_pack_f16};
static const struct um_ops bf16 = {.name = "cuda bf16",
                                   .act = UM_BF16,
                                   .launches = true,
                                   .kernel = {UM_OPERATORS(LAUNCHER, 3)},
                                   .pack_conv = um_cuda_pack_bf16};

const struct um_ops *um_cuda_ops(enum um_dtype precision, bool plain)
{
    switch (precision) {
    case UM_F16: return plain ? &fp16_plain : &fp16;
    case UM_BF16: return plain ? &bf16_plain : &bf16;
    default: return &fp32;
    }
}

um_status um_ops_choose_gpu(um_device *dev, const struct um_ops **out)
{
    const char *tier = getenv("ULTRAMOTION_CUDA");
    int n = 0;
    const char *const *kernels = um_cuda_kernels(&n);
    bool plain = tier && strcmp(tier, "plain") == 0;
    if (tier && *tier && !plain && strcmp(tier, "fused") != 0)
        return um_fail(UM_EINVAL, "ULTRAMOTION_CUDA is \"%s\", want \"fused\" or \"plain\"", tier);
    *out = um_cuda_ops(dev->precision, plain);
    return um_load_kernels(dev, kernels, n);
}

#define NAME(kernel) #kernel,
#define NAMES(image, kernels) kernels(NAME)
static const char *const names[] = {UM_CUDA_IMAGES(NAMES)};

const char *const *um_cuda_kernels(int *n)
{
    *n = sizeof names / sizeof *names;
    return names;
}
