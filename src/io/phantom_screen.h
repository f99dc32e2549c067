/* SPDX-License-Identifier: Apache-2.0 */
/* Phantom images as a frame grabber gives them: on a scanner's screen, beside a header, lines of
 * text, a ruler and a bar of grays. The layout depends on the seed alone. */
#ifndef UM_IO_PHANTOM_SCREEN_H
#define UM_IO_PHANTOM_SCREEN_H

#include "io/phantom_hard.h"

enum { UM_SCREEN_WIDTH = 1280, UM_SCREEN_HEIGHT = 960 };

struct um_screen {
    int x, y, w, h;              /* of the image in it */
    uint8_t *image, *image_mask; /* where it is to be drawn */
    uint8_t *empty;              /* the screen without an image */
    uint8_t *mask, *map;         /* of the screen */
    um_structure structure[UM_HARD_STRUCTURES];
};

/* UM_EINVAL: the image does not fit. On error nothing to close. */
um_status um_screen_open(struct um_screen *s, uint64_t seed, int width, int height);
void um_screen_close(struct um_screen *s); /* accepts a zeroed one */
/* The screen with the image that s->image holds; its truth becomes that of the screen. */
void um_screen_show(struct um_screen *s, uint8_t *pixels, um_truth *truth);

#endif
