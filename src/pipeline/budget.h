/* SPDX-License-Identifier: Apache-2.0 */
/* How much work a frame gets, so that packets come in time (docs/SUPERVISION.md): times in, an
 * effort out, nothing else. */
#ifndef UM_PIPELINE_BUDGET_H
#define UM_PIPELINE_BUDGET_H

#include "ultramotion/packet.h"

#include <stdbool.h>

enum { UM_BUDGET_HEARTBEAT = 8 }; /* in a hurry the detector runs at least on every 8th frame */

/* A zeroed one works in full. */
struct um_budget {
    um_effort effort;
    unsigned late; /* of the last frames of this effort, a bit each */
    int in_time;   /* frames in a row that say that more could be done */
    int patience;  /* how many of these it takes; 0 = the least */
    int trial;     /* frames until it is believed that more can be done; 0 = none goes on */
    int repeated;  /* frames in a row that got no work */
};

/* May the next frame do without any work, if the mask before is good enough? */
bool um_budget_repeats(const struct um_budget *b);

/* A frame is done. */
struct um_budget_frame {
    double latency_ms;
    bool repeated; /* no work */
    bool detected; /* the detector ran */
};
void um_budget_step(struct um_budget *b, double budget_ms, const struct um_budget_frame *f);

#endif
