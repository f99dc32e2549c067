/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the kernels in front.cu. */
#ifndef UM_NN_CUDA_FRONT_H
#define UM_NN_CUDA_FRONT_H

#include "nn/cuda/view.h"
#include "nn/record.h"

#include <stdint.h>

#define UM_CUDA_FRONT_KERNELS(X) \
    X(um_resize_axis)            \
    X(um_area_pixels)            \
    X(um_fir_axis)               \
    X(um_range_values) X(um_levels_table) X(um_gain_tables) X(um_normalize_pixels) X(um_front_tiles)

/* One pass of a resize: one thread per element */
struct um_resize_axis_args {
    struct um_gview out, x, taps; /* u8, u8, i32 */
    int vertical;
};

/* OpenCV's area filter: one thread per element */
struct um_area_pixels_args {
    struct um_gview out, x; /* u8 */
    const float *tx, *ty;
    int kx, ky; /* floats per output index */
    int linear, half_up;
    float scale;
};

/* One axis of a linear filter: one thread per element */
struct um_fir_axis_args {
    struct um_gview out, x; /* u8, or pairs of f32 */
    const float *taps, *range;
    int k, vertical; /* floats per output index */
};

/* Least and greatest value: one block */
struct um_range_values_args {
    struct um_gview out, x;
};

/* (u - min)/(max - min): one block, a thread per value */
struct um_levels_table_args {
    struct um_gview out;
    const float *range;
};

/* Tables for this image: one block, a thread per gray level */
struct um_gain_tables_args {
    struct um_gview out[2], base[2];
    struct um_frame_header *header;
    uint32_t *state;
    const uint8_t *x;
    int h, w, c, smooth;
};

/* y = lut[c][u], zero outside x: one thread per element */
struct um_normalize_pixels_args {
    struct um_gview out, x, lut;
};

/* Both passes and the table for one or two networks: a block per tile of tile_w x tile_h output
 * pixels, grid.z = target. The pass that comes first leaves its bytes in shared memory. */
struct um_front_target_args {
    struct um_gview out;    /* dense: [size_h,1,size_w*c], else [size_h,size_w,c] */
    const float *lut;       /* [c,256] */
    const int32_t *tx, *ty; /* NULL: the axis keeps its size */
    int lut_ld, kx, ky;     /* ints per output index of tx, ty */
    int new_h, new_w, vertical_first;
    int size_h, size_w, c, dense;
    int tile_w, tile_h, tiles_x, tiles;
    int shift;   /* tile_w is 1 << shift, at most 64 */
    int between; /* bytes of shared memory for the pass in between */
};
struct um_front_tiles_args {
    struct um_gview x;
    struct um_front_target_args target[2];
};

#endif
