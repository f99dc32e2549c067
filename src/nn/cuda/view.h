/* SPDX-License-Identifier: Apache-2.0 */
/* A tensor as a GPU kernel sees it, in its by-value argument struct. For host and device code. */
#ifndef UM_NN_CUDA_VIEW_H
#define UM_NN_CUDA_VIEW_H

#include "device/dtype.h"
#include "nn/act.h"

struct um_gview {
    void *data; /* NULL: an absent optional operand */
    int dtype;  /* enum um_dtype */
    int h, w, c;
    int ld;  /* elements from row to row */
    int vec; /* 8, 4, 2 or 1: rows start at, and consist of, groups of this many elements that may
                be moved at once (at most 16 bytes) */
};

#endif
