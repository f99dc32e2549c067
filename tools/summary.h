/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells at its end: its counts, the monitor's times and transfers and, on frames with
 * truth, accuracy, which is reckoned here. */
#ifndef UM_SUMMARY_H
#define UM_SUMMARY_H

#include "ultramotion/ultramotion.h"

#include <stdint.h>
#include <stdio.h>

/* Boxes by score, to 1/4096: boxes nearer than that count as tied. */
enum { SCORE_BUCKETS = 4097 };
struct scored {
    uint64_t hits, misses;
};

struct summary {
    uint64_t frames;
    /* of frames of a pipeline that keeps track */
    uint64_t tracked, detected, tag[4];
    /* accuracy */
    struct scored boxes[SCORE_BUCKETS]; /* of VISIBLE frames with truth */
    uint64_t with_truth, with_bone, found, false_found;
    double dice_sum, iou_sum, box_iou_sum;
};

void summary_add(struct summary *s, const um_packet *packet, const um_truth *truth);
/* Average precision at IoU 0.5 with COCO's 101 recall points; one box a frame, frames below --conf
 * have none. */
double summary_precision(const struct summary *s);
void summary_print(const struct summary *s, FILE *f, const um_run_counts *counts,
                   const um_monitor_view *view, double seconds);

#endif
