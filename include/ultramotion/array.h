/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_ARRAY_H
#define ULTRAMOTION_ARRAY_H

#include "ultramotion/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { UM_ARRAY_RANK = 4 };

typedef enum um_device_array_type {
    UM_ARRAY_BOOL,
    UM_ARRAY_F32,
    UM_ARRAY_F16,
    UM_ARRAY_BF16
} um_device_array_type;

/** A tensor in memory of the library, as plain numbers: what DLPack's DLTensor says. Nothing is
 * owned by it; it is valid as long as what it was asked of. */
typedef struct um_device_array {
    size_t struct_size;
    void *data;         /**< address on the device; on `guard` not to be touched */
    const char *device; /**< "cpu", "guard" or "cuda:N" */
    um_device_array_type type;
    int rank;
    int64_t shape[UM_ARRAY_RANK],
        strides[UM_ARRAY_RANK]; /**< `rank` entries; strides in elements */
    void *stream; /**< the CUstream in whose order the data is there; NULL: it is there */
} um_device_array;

#ifdef __cplusplus
}
#endif
#endif
