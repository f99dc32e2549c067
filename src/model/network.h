/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_NETWORK_H
#define UM_MODEL_NETWORK_H

#include "weights/weights.h"

/* UM_EFORMAT for a file that is not the network wanted: "FILE: what it is, want WANT; what to do".
 * It knows whole networks of many kinds, and parts of ours. */
um_status um_network_refuse(const um_weights *file, const char *want);

#endif
