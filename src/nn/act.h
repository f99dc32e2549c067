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

/* How far GELU and SiLU may be off behind products of bf16 or bytes on a processor. */
#define UM_GELU_BRIEF 2.6e-5
#define UM_SILU_BRIEF 1.7e-4

#endif
