/* SPDX-License-Identifier: Apache-2.0 */
/* TinyViT-5M, the image encoder of MobileSAM, TinySAM and LiteMedSAM. */
#ifndef UM_MODEL_TINYVIT_H
#define UM_MODEL_TINYVIT_H

#include "model/bind.h"
#include "nn/block.h"

enum {
    UM_TINYVIT_OUT = 320,
    UM_TINYVIT_WINDOW = 14 /* cells of the output that no window reaches beyond: multiples of it */
};

struct um_vit_block {
    struct um_window_block attn;
    um_conv local; /* depthwise 3x3 */
    struct um_mlp mlp;
};

typedef struct um_tinyvit {
    um_conv stem[2];
    struct um_mbconv stage0[2], merge[3];
    struct um_vit_block stage1[2], stage2[6], stage3[2];
} um_tinyvit;

/* Bind the tensors under "image_encoder.". Errors are in b->status. patch: pixels of the image per
 * cell of the output, 16, or 4 (LiteMedSAM). */
void um_tinyvit_bind(um_tinyvit *v, um_bind *b, int patch);
/* x [S,S,3] -> [S/patch,S/patch,320]. beyond: u8 [1,1,um_tinyvit_beyond_bytes()], zeros before the
 * first image, where rows are kept that no image changes (nn/reach.h), or id 0. */
um_tensor um_tinyvit_record(const um_tinyvit *v, um_tape *t, um_tensor x, um_tensor beyond);
size_t um_tinyvit_beyond_bytes(const um_tinyvit *v, int side);

#endif
