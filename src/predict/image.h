/* SPDX-License-Identifier: Apache-2.0 */
/* Images as callers have them (um_image). */
#ifndef UM_PREDICT_IMAGE_H
#define UM_PREDICT_IMAGE_H

#include "ultramotion/segmenter.h"

#include <stdbool.h>

bool um_image_on_device(const um_image *image); /* and not in host memory */
/* UM_EINVAL for a type, layout or size that is none. */
um_status um_image_check(const um_image *image);

#endif
