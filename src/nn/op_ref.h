/* SPDX-License-Identifier: Apache-2.0 */
/* The plain-C kernels: the specification of every op, and the fallback for any CPU. */
#ifndef UM_NN_OP_REF_H
#define UM_NN_OP_REF_H

#include "nn/op.h"

um_kernel um_ref_conv2d, um_ref_dwconv, um_ref_upconv2, um_ref_layer_norm, um_ref_add,
    um_ref_maxpool2, um_ref_attention, um_ref_window_attention, um_ref_matmul_nt, um_ref_resize,
    um_ref_normalize, um_ref_scale_rows, um_ref_gather, um_ref_gate_norm; /* op_ref.c */
um_kernel um_ref_topk, um_ref_deform, um_ref_refine, um_ref_integral, um_ref_lqe_stats,
    um_ref_best_box;                                                    /* op_ref_dfine.c */
um_kernel um_ref_prompt, um_ref_mask, um_ref_mask_stats, um_ref_packet; /* op_ref_sam.c */

size_t um_ref_pack_conv(void *dst, const float *w, int o, int kh, int kw, int i);

#endif
