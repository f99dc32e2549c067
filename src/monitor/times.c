/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/times.h"

#include <math.h>

static const double SHORTEST = 1e-3, GROWTH = 1.02; /* ms; of a bucket's end over its beginning */

void um_histogram_add(struct um_histogram *h, double ms)
{
    double at = ms > SHORTEST ? ceil(log(ms / SHORTEST) / log(GROWTH)) : 0;
    int i = at < UM_TIME_BUCKETS - 1 ? (int)at : UM_TIME_BUCKETS - 1;
    h->bucket[i]++;
    h->least = h->count && h->least < ms ? h->least : ms;
    h->most = h->count && h->most > ms ? h->most : ms;
    h->sum += ms;
    h->count++;
}

double um_histogram_quantile(const struct um_histogram *h, double q)
{
    uint64_t rank = (uint64_t)ceil(q * (double)h->count), seen = 0;
    int i = 0;
    for (; i < UM_TIME_BUCKETS - 1; i++) {
        seen += h->bucket[i];
        if (seen >= rank && seen > 0)
            break;
    }
    double v = SHORTEST * pow(GROWTH, i - 0.5); /* the bucket's middle: half of 2 % off at most */
    return v < h->least ? h->least : v > h->most ? h->most : v;
}

um_times um_histogram_times(const struct um_histogram *h)
{
    return (um_times){h->count,
                      h->least,
                      h->most,
                      h->sum,
                      um_histogram_quantile(h, 0.5),
                      um_histogram_quantile(h, 0.95),
                      um_histogram_quantile(h, 0.99)};
}
