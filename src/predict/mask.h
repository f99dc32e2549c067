/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_PREDICT_MASK_H
#define UM_PREDICT_MASK_H

#include "predict/values.h"
#include "ultramotion/segmenter.h"

struct um_mask {
    um_values *values; /* [1,1,h,w] on the device, [h,w] on the host */
    int h, w;
};

/* A mask yet to be filled in. On error *out is NULL. */
um_status um_mask_open(um_mask **out, um_device *dev, bool host, int h, int w);

#endif
