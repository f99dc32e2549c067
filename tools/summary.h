/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells at its end: states, stage times, transfers and, on frames with truth, accuracy.
 */
#ifndef UM_SUMMARY_H
#define UM_SUMMARY_H

#include "ultramotion/ultramotion.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { STAGES = 5 }; /* upload, detect, segment, packet, total */

/* Times of any number of frames in bounded memory: least, most, count and sum are exact, quantiles
 * are within 1 % (each bucket is 2 % wide; below 1 us and above 1000 s the ends of that range). */
enum { TIME_BUCKETS = 1048 };
struct times {
    uint64_t bucket[TIME_BUCKETS], count;
    double least, most, sum; /* ms */
};

/* Boxes by score, to 1/4096: boxes nearer than that count as tied. */
enum { SCORE_BUCKETS = 4097 };
struct scored {
    uint64_t hits, misses;
};

struct summary {
    struct times ms[STAGES];
    uint64_t frames;
    /* ledger: most and least per frame */
    um_transfers last, most, least;
    uint64_t up_bytes, down_bytes, waits;
    /* of frames of a pipeline that keeps track */
    uint64_t tracked, detected, tag[4];
    /* accuracy */
    struct scored boxes[SCORE_BUCKETS]; /* of VISIBLE frames with truth */
    uint64_t with_truth, with_bone, found, false_found;
    double dice_sum, iou_sum, box_iou_sum;
};

void times_add(struct times *t, double ms);
/* The value that a share `q` (0..1) of all is not above. */
double times_quantile(const struct times *t, double q);

void summary_add(struct summary *s, const um_packet *packet, const um_truth *truth);
/* Average precision at IoU 0.5 with COCO's 101 recall points; one box a frame, frames below --conf
 * have none. */
double summary_precision(const struct summary *s);
void summary_print(const struct summary *s, FILE *f, const um_run_counts *counts, double seconds);
/* min, p50 and p99 of n values; sorts a copy. */
void summary_percentiles(const double *values, size_t n, double *min, double *p50, double *p99,
                         double *max);

#endif
