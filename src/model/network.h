/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_NETWORK_H
#define UM_MODEL_NETWORK_H

#include "weights/weights.h"

/* UM_EFORMAT for a file that is not the network wanted: "FILE: what it is, want WANT; what to do".
 * It knows whole networks of many kinds, and parts of ours. */
um_status um_network_refuse(const um_weights *file, const char *want);

/* A tensor that a network is told by, and the start of names beside it. */
struct um_network_mark {
    const char *beside, *name;
    int rank;
};
/* UM_EFORMAT for a file that has everything beside n marks, but not all of them. */
um_status um_network_marks(const um_weights *file, const struct um_network_mark *mark, int n);

#endif
