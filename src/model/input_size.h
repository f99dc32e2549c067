/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_INPUT_SIZE_H
#define UM_MODEL_INPUT_SIZE_H

#include "weights/weights.h"

#include <stdbool.h>

enum { UM_INPUT_MAX = 8192 }; /* side of a network's input */

/* Metadata "input_size", "N" or "WxH"; 0 if the file has none; UM_EFORMAT if a side is no multiple
 * of `step`. *from may be NULL. */
um_status um_input_extent(const um_weights *file, int step, int *w, int *h, const char **from);
/* The same for a square input. */
um_status um_input_size(const um_weights *file, int step, int *side);
/* Metadata "gray", "0" or "1": does the network know gray images only? Without it: no. */
um_status um_input_gray(const um_weights *file, bool *gray);

#endif
