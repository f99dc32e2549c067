/* SPDX-License-Identifier: Apache-2.0 */
/* Activations, for host and device code. */
#ifndef UM_NN_ACT_H
#define UM_NN_ACT_H

enum um_act {
    UM_ACT_NONE,
    UM_ACT_RELU,
    UM_ACT_SILU,
    UM_ACT_GELU /* erf */,
    UM_ACT_SIGMOID,
    UM_ACT_CLAMP /* to +-limit */
};

#endif
