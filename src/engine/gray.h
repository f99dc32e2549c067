/* SPDX-License-Identifier: Apache-2.0 */
/* What networks that know gray only see of an RGB image. */
#ifndef UM_ENGINE_GRAY_H
#define UM_ENGINE_GRAY_H

#include "ultramotion/frame.h"

/* Bytes that um_gray() works in for w columns. */
size_t um_gray_work(int w);
/* The w x h crop at x0,y0 of an RGB frame as dst[h][w]. In a gray or evenly tinted image strokes of
 * another colour are painted over with what is beside them. */
void um_gray(uint8_t *dst, const um_frame *frame, int x0, int y0, int w, int h, void *work);

#endif
