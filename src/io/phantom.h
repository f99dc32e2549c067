/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_PHANTOM_H
#define UM_IO_PHANTOM_H

#include "base/status.h"
#include "ultramotion/source.h"

#include <stdbool.h>

enum { UM_PHANTOM_WIDTH = 422, UM_PHANTOM_HEIGHT = 558, UM_PHANTOM_MIN_SIDE = 32 };

/* A generator of B-mode-like images of a bone surface, with truth. Frame `index` of `seed`
 * depends on nothing else, and is the same bytes on every machine: no libm, no contraction, its own
 * random numbers. */
typedef struct um_phantom um_phantom;

/* DEFAULT: a bright surface, as the first models were trained on. HARD: what scanners and people
 * differ in (phantom_hard.c). */
typedef enum um_look { UM_LOOK_DEFAULT, UM_LOOK_HARD } um_look;

/* Shapes of surfaces that the hard look knows. */
typedef enum um_surface {
    UM_SURFACE_ANY,
    UM_SURFACE_ARC,   /* a long bone across */
    UM_SURFACE_PLATE, /* along a bone: over the whole width, or an edge of it */
    UM_SURFACE_RIB,   /* small, round, shallow */
    UM_SURFACE_FLANK,
    UM_SURFACE_HUMPS, /* two */
    UM_SURFACES
} um_surface;

um_status um_phantom_open(um_phantom **out, int width, int height, double empty,
                          um_look look); /* empty: share of frames without bone */
void um_phantom_close(um_phantom **phantom);
/* Only this shape from now on; without meaning for the default look. */
void um_phantom_set_surface(um_phantom *phantom, um_surface surface);

/* Draw one frame: pixels and mask (0/1) are [height*width] of the caller. truth->mask is set to
 * `mask`, or NULL without bone; its structures are the phantom's, until the next frame. */
void um_phantom_draw(um_phantom *phantom, uint64_t seed, uint64_t index, uint8_t *pixels,
                     uint8_t *mask, um_truth *truth);
/* The box around a mask's pixels, in `box`; false, and zeros, without any. */
bool um_phantom_box(const uint8_t *mask, int width, int height, float box[4]);

#endif
