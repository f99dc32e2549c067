/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that leaves the library: every mask, embedding and prediction keeps its numbers in one. */
#ifndef UM_PREDICT_VALUES_H
#define UM_PREDICT_VALUES_H

#include "device/backend.h"
#include "ultramotion/values.h"

#include <stdatomic.h>

struct um_values {
    atomic_int refs;
    um_device *dev; /* a reference, also of host memory */
    um_buf *buf;    /* memory of the device, or */
    void *host;     /* of the host */
    um_device_array_type type;
    int rank;
    int64_t shape[UM_ARRAY_RANK], strides[UM_ARRAY_RANK];
    bool read_only;
};

/* Contiguous, zeroed where it is host memory; one reference. On error *out is NULL. */
um_status um_values_open(um_values **out, um_device *dev, bool host, um_device_array_type type,
                         int rank, const int64_t *shape, const char *label);
/* um_values_read() with what the ledger shall say. */
um_status um_values_download(const um_values *a, void *out, enum um_stage stage,
                             const char *reason);

#endif
