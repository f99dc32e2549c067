/* SPDX-License-Identifier: Apache-2.0 */
/* The visibility state machine and the schedule of the detector (docs/STATE.md): values in, values
 * out, nothing else. */
#ifndef UM_PIPELINE_VISIBILITY_H
#define UM_PIPELINE_VISIBILITY_H

#include "ultramotion/packet.h"

#include <stdbool.h>

struct um_visibility_rules {
    float tau_conf, theta_on, theta_off, theta_cont;
    int detect_every; /* the detector runs on every n-th frame where that suffices; 1: on all */
};

/* What one frame shows. */
struct um_sight {
    bool detected;          /* the detector ran: `conf` is of this frame */
    bool outlined;          /* there is a mask, and it is not empty */
    bool same;              /* pixel by pixel the frame before */
    float conf;             /* score of the best box */
    float score[UM_SCORES]; /* NaN: not defined */
};

struct um_visibility {
    um_state state;
    /* Evidence in a row since the state changed: for VISIBLE; that there is nothing; that what
     * there is scores low; either of these. */
    int good, missed, weak, bad;
    int same, dark; /* frames in a row: equal, without speckle */
    int steady;     /* frames in a row that give no reason to detect */
    int skipped;    /* frames in a row without the detector */
};

struct um_verdict {
    um_state state;
    um_tag tag;
    um_reason reason;
    bool detect; /* on the next frame */
};

/* Of the scores that are defined; NaN where none is. */
float um_visibility_total(const float score[UM_SCORES]);      /* S1 to S4 */
float um_visibility_continuity(const float score[UM_SCORES]); /* C1 to C3 */

/* Has nothing spoken against it for a while, so that less work will do? */
bool um_visibility_steady(const struct um_visibility *v);

/* The next frame. A zeroed um_visibility is LOST and has seen nothing. */
struct um_verdict um_visibility_step(struct um_visibility *v, const struct um_visibility_rules *r,
                                     const struct um_sight *s);

/* C3 of a mask's centroid, in pixels of the image, and that of an earlier frame; NaN where there
 * is no pose, no spacing or no centroid. pose: row-major, image (mm) to world. */
struct um_place {
    bool known;
    double pose[16], spacing_mm[2], centroid[2];
};
float um_visibility_depth(const struct um_place *now, const struct um_place *before);

#endif
