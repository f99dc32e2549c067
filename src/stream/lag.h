/* SPDX-License-Identifier: Apache-2.0 */
/* How far the sender's clock is from ours, and how much later than at best its frames come: times
 * in, values out, nothing else (docs/SUPERVISION.md). */
#ifndef UM_STREAM_LAG_H
#define UM_STREAM_LAG_H

#include <stdbool.h>

/* A zeroed one has seen nothing. All in seconds. */
struct um_lag {
    bool known, alarm;
    double offset; /* receipt minus stamp, at best */
    double lag;    /* of the last frame: later than that by so much */
    double stamp, received;
    bool doubtful; /* frames say that the alarm is wrong (raised or not) ... */
    double since;  /* ... since then */
};

enum um_lag_news { UM_LAG_NOTHING, UM_LAG_RAISED, UM_LAG_CLEARED };

/* A frame came. limit: of the lag, 0 = no alarm. received: by a clock that nobody sets. quiet: the
 * longest time since the last step in which none came, also none that nobody looked at. */
enum um_lag_news um_lag_step(struct um_lag *l, double limit, double stamp, double received,
                             double quiet);

#endif
