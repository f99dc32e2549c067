/* SPDX-License-Identifier: Apache-2.0 */
/* Times of any number of frames in bounded memory: least, most, count and sum are exact, quantiles
 * are within 1 % (each bucket is 2 % wide; below 1 us and above 1000 s the ends of that range). */
#ifndef UM_MONITOR_TIMES_H
#define UM_MONITOR_TIMES_H

#include "ultramotion/monitor.h"

enum { UM_TIME_BUCKETS = 1048 };

struct um_histogram {
    uint64_t bucket[UM_TIME_BUCKETS], count;
    double least, most, sum; /* ms */
};

void um_histogram_add(struct um_histogram *h, double ms);
/* The value that a share `q` (0..1) of all is not above; 0 without any. */
double um_histogram_quantile(const struct um_histogram *h, double q);
um_times um_histogram_times(const struct um_histogram *h);

#endif
