/* SPDX-License-Identifier: Apache-2.0 */
/* What `val -o` draws: images with what was found and what is true, the worst of them, and small
 * ones of all on one sheet. */
#ifndef UM_SHEET_H
#define UM_SHEET_H

#include "truth.h"

typedef struct sheet sheet;

/* frames: how many will come, at least; <= 0 = unknown. NULL: no memory. */
sheet *sheet_open(long frames);
void sheet_close(sheet *s);
/* found: bytes 0/1 or NULL; box: x, y, width, height, or NULL. badness: what the worst are chosen
 * by; NaN: never among them. False: no memory. */
bool sheet_add(sheet *s, const struct truth_frame *truth, const uint8_t *found, const double *box,
               double badness);
/* worst/RANK_NAME.png, rank 00 = the worst, in place of those of an earlier run, and contact.png.
 */
um_status sheet_write(const sheet *s, const char *folder);

#endif
