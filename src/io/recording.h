/* SPDX-License-Identifier: Apache-2.0 */
/* A recording is a folder (docs/SEQUENCES.md): frames in parts of one form each, one packet a line.
 * "record:" writes it, "replay:" reads it. */
#ifndef UM_IO_RECORDING_H
#define UM_IO_RECORDING_H

#include "base/status.h"
#include "ultramotion/frame.h"

#define UM_RECORDING_PACKETS "packets.jsonl"
enum { UM_RECORDING_PARTS = 1000000, UM_RECORDING_NAME = 24, UM_RECORDING_PLACE = 64 };

/* "frames_000.mhd", "frames_000.raw". */
void um_recording_part(char name[UM_RECORDING_NAME], int part, const char *ending);
/* CRC-32 of the pixels, row by row, as 8 hex digits. */
void um_recording_sum(char sum[9], const um_frame *frame);
/* What a live source knew of the frame, from its notes: so that what is made of it lies where the
 * image lay. Nothing, where they do not say. */
um_status um_recording_restore(um_frame *frame);
/* Names are words. */
void um_recording_tidy(char *name);
/* The transform that says where an image lies, if its device is called as Plus calls it:
 * "Image_Reference" is the image in the reference's frame. Else "". */
void um_recording_place(char name[UM_RECORDING_PLACE], const char *device);
/* Text on one line, of up to three times the length: controls, spaces and % become %XX. */
void um_recording_escape(char *to, const char *text);
void um_recording_unescape(char *text); /* in place */

#endif
