/* SPDX-License-Identifier: Apache-2.0 */
/* A second pipeline in legacy host mode beside one that keeps masks on the device: every N-th frame
 * goes through both, and where they differ too much, or the first has no numbers, the legacy one
 * goes on alone. */
#ifndef UM_PIPELINE_SHADOW_H
#define UM_PIPELINE_SHADOW_H

#include "pipeline/crew.h"

struct um_shadow {
    um_pipeline *legacy;
    um_pipeline_settings set; /* of the pipeline that is watched */
    struct um_crew_wish wish; /* of its next frame */
    float limit;              /* masks with a Dice below it have diverged */
    uint64_t seen, next;      /* frames, whose ids may leave some out; the next one to compare */
    um_shadow_counts counts;
};

/* `set` are settings of an open pipeline. On error nothing to close. */
um_status um_shadow_open(struct um_shadow **out, const um_pipeline_settings *set);
void um_shadow_close(struct um_shadow **s); /* accepts NULL */
/* The legacy pipeline's um_pipeline_send(), of a frame that `wish` is of. */
um_status um_shadow_send(struct um_shadow *s, um_frame **frame);
/* A frame was received with `st` and, if UM_OK, `*packet`: what is to be delivered instead. */
um_status um_shadow_look(struct um_shadow *s, const um_frame *frame, um_status st,
                         const um_packet **packet);

#endif
