/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_SEGMENTATION_H
#define UM_SEGMENTATION_H

#include <stdbool.h>
#include <stdint.h>

struct cJSON;

/* COCO's "segmentation", polygons or run lengths, as bytes 0/1 [height*width], zeroed before.
 * False: it is neither, or of another size. */
bool segmentation_read(const struct cJSON *s, int width, int height, uint8_t *mask);

#endif
