/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_VALUES_H
#define ULTRAMOTION_VALUES_H

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
    void *stream; /**< the CUstream in whose order the data becomes available; NULL: it is available
                   */
} um_device_array;

/** Numbers that the library made and a caller keeps: masks, scores, logits, an embedding. Reference
 * counted. It keeps its device alive and outlives everything else: the prediction, its predictor,
 * the model, um_device_close(). Threads: any. */
typedef struct um_values um_values;

/** Add a reference and return the values. */
UM_API um_values *um_values_ref(um_values *values);
/** Drop a reference and set *values to NULL; the last one frees it. Accepts NULL. */
UM_API void um_values_unref(um_values **values);
/** Describe it. @param out its struct_size is set by the caller. */
UM_API um_status um_values_describe(const um_values *values, um_device_array *out);
/** Where they are in host memory; NULL if they are on a device. */
UM_API const void *um_values_host(const um_values *values);
/** 1 if others use the same memory, so that it must not be written to: embeddings. */
UM_API int um_values_read_only(const um_values *values);
/** Copy it to host memory, row-major and contiguous, elements of its type (booleans are bytes 0 and
 * 1); on a device of its own one download, booked. */
UM_API um_status um_values_read(const um_values *values, void *out);
/** Make a CUstream of its GPU wait until the numbers are available. No effect on other devices. */
UM_API um_status um_values_wait(const um_values *values, void *stream);

#ifdef __cplusplus
}
#endif
#endif
