/* SPDX-License-Identifier: Apache-2.0 */
/* The blocks models call. Each has a default body of primitives (its reference and its test); a
 * backend may take the whole block as one step (um_tape_takes), so fusion needs no change in a
 * model file. */
#ifndef UM_NN_BLOCK_H
#define UM_NN_BLOCK_H

#include "nn/op.h"

/* x + fc2(act(fc1(LN(x)))) [+ final LN]: pre-norm MLP of TinyViT. norm.params NULL: no LN.
 * t of UM_OP_MLP: out, x, gamma[opt], beta[opt], w1, b1, w2, b2; args um_mlp_args */
struct um_mlp {
    um_norm norm;
    um_conv fc1, fc2;
};
struct um_mlp_args {
    float eps;
    int hidden;
    enum um_act act;
    bool residual;
};
um_tensor um_mlp(um_tape *t, const struct um_mlp *w, um_tensor x, enum um_act act, bool residual);

/* TinyViT MBConv (tiny_vit_sam.py): GELU(x + conv3(GELU(dw(GELU(conv1 x))))), residual; or
 * PatchMerging: no residual, no last activation, the depthwise conv may have stride 2. t: out, x,
 * w1, b1, wd [9,hidden], bd, w3, b3; args um_mbconv_args */
struct um_mbconv {
    um_conv expand, dw, project;
};
struct um_mbconv_args {
    int hidden, stride;
    bool residual; /* y = GELU(x + .) */
};
um_tensor um_mbconv(um_tape *t, const struct um_mbconv *w, um_tensor x, bool residual);

/* TinyViT window attention block: x + proj(window_attention(qkv(LN(x)))). pad_qkv = qkv(LN beta),
 * made at load. t: out, x, gamma, beta, wqkv, bqkv, pad [1,3c], bias [heads, window*window], wproj,
 * bproj; args um_window_block_args */
struct um_window_block {
    um_norm norm;
    um_conv qkv, proj;
    um_const pad_qkv, bias;
    int window, heads;
};
struct um_window_block_args {
    float eps;
    int window, heads;
};
um_tensor um_window_block(um_tape *t, const struct um_window_block *w, um_tensor x);

#endif
