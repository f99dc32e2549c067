/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of a pipeline that keeps track of what it sees: whether the probe touches anything, how
 * far a mask can be believed, and a prompt without a detector. Formulas: docs/STATE.md. Plain-C
 * specification: op_ref_track.c. */
#ifndef UM_NN_OP_TRACK_H
#define UM_NN_OP_TRACK_H

#include "nn/op.h"
#include "nn/track.h"

/* um_gate.contact of the first gate: the share of cells of 8x8 pixels whose gray levels span 16 or
 * more, of every second cell along both axes; 0 where there is none. Changes nothing else.
 * t: gate, x (u8 [h,w,1 or 3]). No args */
void um_contact(um_tape *t, um_tensor gate, um_tensor x);

/* Gate and prompt of the structure that the header says to follow, instead of a detector's.
 * t: gate, prompt, header. No args */
void um_follow(um_tape *t, um_tensor gate, um_tensor prompt, um_tensor header);

/* um_record.score of a packet: S1-S4, C1, C2 of its mask on the image x it was made of, and the
 * gate's contact; NaN: not defined (C3, which needs poses, S4 and C2 without anything before, all
 * but contact where the gate is not OK). The memory (u8 [1,1,um_track_bytes()], zeros at first) is
 * then that of this frame. Changes nothing else. t: packet, memory, x, header. No args */
void um_scores(um_tape *t, um_tensor packet, um_tensor memory, um_tensor x, um_tensor header);

#endif
