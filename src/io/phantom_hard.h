/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_PHANTOM_HARD_H
#define UM_IO_PHANTOM_HARD_H

#include "io/field.h"
#include "io/phantom.h"
#include "ultramotion/source.h"

enum { UM_HARD_STRUCTURES = 64 };

/* The look "hard". */
struct um_hard {
    int w, h;
    float s; /* pixels per unit of length: 320 rows */
    double empty;
    um_surface surface;
    struct um_field field;
    float *amp, *spec, *att, *re, *im;              /* [h,w] */
    float *curve, *ridge, *slope, *bright, *column; /* [w] */
    uint8_t *map, *scan; /* [h,w]; scan: before the image takes the probe's shape */
    um_structure structure[UM_HARD_STRUCTURES];
    um_structure_kind kind[UM_HARD_STRUCTURES];
    int structures;
};

um_status um_hard_open(struct um_hard *g, int width, int height, double empty);
void um_hard_close(struct um_hard *g);
void um_hard_draw(struct um_hard *g, struct rng r, uint8_t *pixels, uint8_t *mask, um_truth *truth);

#endif
