/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of a GPU kernel: views and launches. */
#ifndef UM_NN_CUDA_LAUNCH_H
#define UM_NN_CUDA_LAUNCH_H

#include "nn/cuda/view.h"
#include "nn/op.h"

#include <stdint.h>

static inline struct um_gview um_gview(const struct um_view *v)
{
    int size = (int)um_dtype_size(v->dtype), vec = 16 / size < 8 ? 16 / size : 8;
    while (vec > 1 && ((uintptr_t)v->data % (uintptr_t)(vec * size) || v->ld % vec || v->c % vec))
        vec /= 2;
    return (struct um_gview){.data = v->data,
                             .dtype = (int)v->dtype,
                             .h = v->h,
                             .w = v->w,
                             .c = v->c,
                             .ld = (int)v->ld,
                             .vec = v->data ? vec : 1};
}

static inline int um_blocks(int64_t items, int per_block)
{
    return (int)((items + per_block - 1) / per_block);
}

/* Launch `kernel` with the struct `args` by value. */
#define um_launch_grid(call, kernel_, args_, threads_, shared_, ...)                            \
    (call)->stream->launch((call)->stream, &(struct um_launch){.kernel = (kernel_),             \
                                                               .grid = {__VA_ARGS__},           \
                                                               .threads = (unsigned)(threads_), \
                                                               .shared = (unsigned)(shared_),   \
                                                               .args = &(args_),                \
                                                               .size = sizeof(args_)})

/* norm.cu's layer norm as a kernel of its own; out may be x. A row has at most 1280 channels. */
struct um_layer_norm_rows_args;
void um_launch_layer_norm(const struct um_call *call, const struct um_layer_norm_rows_args *k);

#endif
