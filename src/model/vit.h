/* SPDX-License-Identifier: Apache-2.0 */
/* SAM's own image encoder, a ViT of any width and depth; MedSAM's too. */
#ifndef UM_MODEL_VIT_H
#define UM_MODEL_VIT_H

#include "model/bind.h"
#include "nn/block.h"

enum { UM_VIT_PATCH = 16 };

struct um_vit_layer {
    um_norm norm;
    um_conv qkv, proj;
    um_const pad, rows, columns; /* a pad token's qkv; tables of relative positions */
    int window;
    struct um_mlp mlp;
};

typedef struct um_vit {
    int n, width, heads, depth; /* n x n patches */
    um_params *params;
    um_conv patch;
    um_const position; /* [n,n,width] */
    struct um_vit_layer *layer;
} um_vit;

/* Bind the tensors under "image_encoder." for n x n patches. Errors are in b->status; UM_EINVAL if
 * the file was made for another n. */
void um_vit_bind(um_vit *v, um_bind *b, int n);
void um_vit_close(um_vit *v); /* accepts a zeroed or half-bound one */
/* x [16n,16n,3] -> [n,n,width]. */
um_tensor um_vit_record(const um_vit *v, um_tape *t, um_tensor x);

#endif
