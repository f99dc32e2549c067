/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_RECOGNISE_H
#define UM_MODEL_RECOGNISE_H

#include "model/dfine_size.h"
#include "weights/weights.h"

enum { UM_INPUT_MAX = 8192 }; /* side of a network's input */

/* Metadata "input_size" in *side, 0 if the file has none; UM_EFORMAT if it is no multiple of
 * `step`. */
um_status um_input_size(const um_weights *file, int step, int *side);
/* Side of the square input that a D-FINE checkpoint's anchors were made for; 0 without anchors or
 * if it was not square. */
int um_dfine_anchor_side(const um_weights *file);
/* The sizes of the D-FINE in a checkpoint. UM_EFORMAT if it has none that is known. */
um_status um_dfine_measure(const um_weights *file, struct um_dfine_size *out);

#endif
