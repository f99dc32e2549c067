/* SPDX-License-Identifier: Apache-2.0 */
/* What no image changes. A canvas is zeros below its image, or right of it, and as far out as
 * neither a kernel nor a window brings anything of the image, the maps of an encoder's first
 * steps are the same for all images of that size. Those steps compute what an image reaches; of
 * the rest, what the next step reads is kept from the first image of a size, whose maps are
 * computed whole. So nothing is approximated. */
#ifndef UM_NN_REACH_H
#define UM_NN_REACH_H

#include <stdint.h>

enum { UM_REACH_STEPS = 16 };

struct um_reach_args {
    int n;
    struct um_reach {
        int side;                   /* of the step's map, a square */
        int kernel, stride, window; /* what it does along a side; a kernel that is not 1 has a
                                       padding of kernel/2; window 0: none */
    } step[UM_REACH_STEPS];
};

/* What stays from image to image; zeros before the first. */
struct um_beyond {
    int32_t used, columns; /* of the canvas' rows or, if `columns`, columns, by the image that the
                              rest is kept of */
    int32_t seen;          /* there was one */
    int32_t reach[UM_REACH_STEPS];      /* rows or columns of a map that such an image changes */
    int32_t compute[UM_REACH_STEPS][2]; /* what its step computes now, h x w */
};

/* Rows of a step's map that differ if the first `n` of its input do. */
static inline int um_reach_of(const struct um_reach *s, int n)
{
    if (s->window)
        n = (n + s->window - 1) / s->window * s->window;
    else if (s->kernel > 1)
        n = (n - 1 + s->kernel / 2) / s->stride + 1;
    return n < s->side ? n : s->side;
}

/* Rows of its input that a step reads, at most, beyond those that an image changes. */
static inline int um_reach_beyond(const struct um_reach *s)
{
    return s->window ? s->window - 1 : s->kernel > 1 ? s->kernel - 1 : 0;
}

#endif
