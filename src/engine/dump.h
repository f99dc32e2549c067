/* SPDX-License-Identifier: Apache-2.0 */
/* Taps collected from tapes, written as .safetensors. Maps are [1,C,H,W], token tensors (h = 1)
 * [1,T,C], single rows [1,C]. */
#ifndef UM_ENGINE_DUMP_H
#define UM_ENGINE_DUMP_H

#include "nn/tape.h"
#include "weights/weights.h"

enum { UM_DUMP_MAX = 256 };

struct um_dump {
    int n;
    struct um_wout t[UM_DUMP_MAX];
    char name[UM_DUMP_MAX][48];
};

um_status um_dump_tape(struct um_dump *d, um_tape *t);
/* Takes `data` (from um_alloc). */
um_status um_dump_add(struct um_dump *d, const char *name, int rank, const int64_t *dim,
                      float *data);
um_status um_dump_write(const struct um_dump *d, const char *path);
void um_dump_close(struct um_dump *d);

#endif
