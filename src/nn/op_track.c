/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op_track.h"

#include "nn/op_sam.h"

static bool is_image(um_tensor x)
{
    return x.dtype == UM_U8 && (x.c == 1 || x.c == 3) && x.ld == x.c;
}

static bool is_header(um_tensor header)
{
    return header.dtype == UM_U8 && header.c == UM_HEADER_BYTES;
}

void um_contact(um_tape *t, um_tensor gate, um_tensor x)
{
    if (um_op_check(t, UM_OP_CONTACT, gate.dtype == UM_U8 && gate.c == UM_GATE_BYTES && is_image(x),
                    "gate of %d bytes, image [%d,%d,%d]", gate.c, x.h, x.w, x.c))
        um_op_step(t, UM_OP_CONTACT, NULL, gate, x);
}

void um_follow(um_tape *t, um_tensor gate, um_tensor prompt, um_tensor header)
{
    if (um_op_check(t, UM_OP_FOLLOW,
                    gate.dtype == UM_U8 && gate.c == UM_GATE_BYTES && prompt.dtype == UM_U8 &&
                        prompt.c == (int)sizeof(struct um_prompt) && is_header(header),
                    "gate of %d bytes, prompt of %d, header of %d", gate.c, prompt.c, header.c))
        um_op_step(t, UM_OP_FOLLOW, NULL, gate, prompt, header);
}

void um_scores(um_tape *t, um_tensor packet, um_tensor memory, um_tensor x, um_tensor header)
{
    int bytes = UM_RECORD_BYTES + x.h * um_mask_row_bytes(x.w);
    int64_t need = (int64_t)um_track_bytes(x.h, x.w);
    if (um_op_check(t, UM_OP_SCORES,
                    packet.c == bytes && is_image(x) && is_header(header) && memory.c == need,
                    "packet of %d bytes, want %d; memory of %d, want %lld; image [%d,%d,%d]",
                    packet.c, bytes, memory.c, (long long)need, x.h, x.w, x.c))
        um_op_step(t, UM_OP_SCORES, NULL, packet, memory, x, header);
}
