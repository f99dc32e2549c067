/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_PHANTOM_SWEEP_H
#define UM_IO_PHANTOM_SWEEP_H

#include "io/phantom.h"

#include <stdbool.h>

enum { UM_SWEEP_WIDE = 4 * UM_PHANTOM_WIDTH, UM_SWEEP_FRAMES = 105 };

#define UM_SWEEP_SPACING 0.1 /* mm a pixel */

/* What lies under the skin at one place: a wide image of the default look, with a bone beside
 * which there is room. */
struct um_sweep_view {
    uint8_t *pixels, *mask; /* [UM_PHANTOM_HEIGHT, UM_SWEEP_WIDE] */
    long bone;              /* pixels of it */
    int home, away;         /* left side of windows with all of it, and with nothing */
    int from, to;           /* columns that it covers */
};

/* What happens to a window. */
struct um_sweep_shot {
    int view, x;    /* x: left side, which trembles */
    float gain;     /* of all */
    float shade;    /* of the columns of the bone, 1 = none */
    double lift_mm; /* off the skin: nothing but the probe's own echoes */
};

/* Scripted sweeps of a probe: windows of two views, with noise of their own in each frame, shifted,
 * dimmed, shadowed, frozen and blanked. As reproducible as the phantom. */
struct um_sweep {
    um_phantom *phantom;
    struct um_sweep_view view[2];
    uint64_t seed, number; /* of the sweep that is played */
    uint64_t noise;
    int played; /* frames of it; 0 = none is played */
    /* of the last frame */
    uint8_t *pixels, *mask; /* [UM_PHANTOM_HEIGHT, UM_PHANTOM_WIDTH], 0/1 */
    um_truth truth;         /* the bone that is seen; its visibility: how much of all of it */
    long seen, faint;       /* pixels of the bone: bright enough, and not quite gone */
    const struct um_sweep_view *shown;
    int left; /* side of the window */
    double pose[16];
    const char *event;
    bool frozen, lifted;
};

um_status um_sweep_open(struct um_sweep *s);
void um_sweep_close(struct um_sweep *s);

/* Draw frame `index` of an endless row of sweeps, UM_SWEEP_FRAMES each: quick in their order. */
void um_sweep_draw(struct um_sweep *s, uint64_t seed, uint64_t index);

/* Outside the script: the views and the noise of a sweep of the row, and a frame of one's own. */
void um_sweep_start(struct um_sweep *s, uint64_t seed, uint64_t number);
void um_sweep_shoot(struct um_sweep *s, const struct um_sweep_shot *shot);

#endif
