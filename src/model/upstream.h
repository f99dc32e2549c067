/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_UPSTREAM_H
#define UM_MODEL_UPSTREAM_H

#include "model/dfine.h"
#include "weights/arena.h"

enum { UM_UPSTREAM_MAX = 64 }; /* tensors that may have to be added */

/* Add to tensor[0..*n-1] what upstream's code insists on finding in a file, though nothing of it
 * changes a result: aliases, tables of a D-FINE's input, the classifier of MobileSAM's encoder.
 * dfine: NULL for a segmenter. Data lies in the arena. UM_EUNSUPPORTED where upstream could not
 * load it. */
um_status um_upstream_complete(struct um_arena *arena, const um_weights *file,
                               const struct um_dfine_info *dfine, struct um_wout *tensor, int *n);

#endif
