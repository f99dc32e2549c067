/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells at its end: states, stage times, transfers and, on frames with truth, accuracy.
 */
#ifndef UM_SUMMARY_H
#define UM_SUMMARY_H

#include "ultramotion/ultramotion.h"

#include <stdio.h>

enum { STAGES = 5 }; /* upload, detect, segment, packet, total */

struct scored_box {
    float score;
    int hit;
};

struct summary {
    double *ms[STAGES]; /* one value per frame */
    size_t frames, capacity;
    /* ledger: most and least per frame */
    um_transfers last, most, least;
    uint64_t up_bytes, down_bytes, waits;
    /* accuracy */
    struct scored_box *boxes; /* one per VISIBLE frame with truth */
    size_t n_boxes;
    size_t with_truth, with_bone, found, false_found;
    double dice_sum, iou_sum, box_iou_sum;
};

int summary_add(struct summary *s, const um_packet *packet,
                const um_truth *truth); /* 0 = out of memory */
void summary_print(const struct summary *s, FILE *f, const um_run_stats *stats, double seconds);
void summary_free(struct summary *s);
/* min, p50 and p99 of n values; sorts a copy. */
void summary_percentiles(const double *values, size_t n, double *min, double *p50, double *p99,
                         double *max);

#endif
