/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_PREDICT_MASK_H
#define UM_PREDICT_MASK_H

#include "device/backend.h"
#include "ultramotion/segmenter.h"

struct um_mask {
    um_device *dev;
    um_buf *buf;   /* device mask: u8 0/1 [h,w] */
    uint8_t *data; /* host mask */
    int h, w;
};

/* A mask without memory, or NULL. */
um_mask *um_mask_new(um_device *dev, int h, int w);

#endif
