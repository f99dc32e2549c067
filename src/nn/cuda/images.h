/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels, by image: each source becomes one, and a driver finds a kernel in that of its own
 * source only. */
#ifndef UM_NN_CUDA_IMAGES_H
#define UM_NN_CUDA_IMAGES_H

#include "nn/cuda/attention.h"
#include "nn/cuda/chain.h"
#include "nn/cuda/front.h"
#include "nn/cuda/gemm.h"
#include "nn/cuda/mask.h"
#include "nn/cuda/norm.h"
#include "nn/cuda/pixel.h"
#include "nn/cuda/select.h"
#include "nn/cuda/track.h"

/* X(source, its kernels) */
#define UM_CUDA_IMAGES(X)                   \
    X(gemm, UM_CUDA_GEMM_KERNELS)           \
    X(attention, UM_CUDA_ATTENTION_KERNELS) \
    X(select, UM_CUDA_SELECT_KERNELS)       \
    X(pixel, UM_CUDA_PIXEL_KERNELS)         \
    X(chain, UM_CUDA_CHAIN_KERNELS)         \
    X(front, UM_CUDA_FRONT_KERNELS)         \
    X(mask, UM_CUDA_MASK_KERNELS)           \
    X(norm, UM_CUDA_NORM_KERNELS)           \
    X(track, UM_CUDA_TRACK_KERNELS)

#endif
