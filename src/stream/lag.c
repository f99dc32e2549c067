/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/lag.h"

/* Two clocks drift apart by less than that, and what is always late is forgotten no faster. */
static const double DRIFT = 200e-6;
static const double HOLD = 1; /* s that frames must say the same before it is said */
static const double GONE = 5; /* s without a frame, after which it may be another sender */

enum um_lag_news um_lag_step(struct um_lag *l, double limit, double stamp, double received,
                             double quiet)
{
    double way = received - stamp;
    bool was = l->alarm;
    /* another sender, or its clock was set back, perhaps while it was away */
    if (!l->known || stamp < l->stamp || quiet > GONE)
        *l = (struct um_lag){.known = true, .offset = way, .received = received};
    double risen = l->offset + DRIFT * (received - l->received);
    l->offset = way < risen ? way : risen;
    l->lag = way - l->offset;
    l->stamp = stamp;
    l->received = received;
    bool other = l->alarm ? l->lag < limit / 2 : limit > 0 && l->lag > limit;
    if (other && !l->doubtful)
        l->since = received;
    l->doubtful = other;
    if (other && received - l->since >= HOLD) {
        l->alarm = !l->alarm;
        l->doubtful = false;
    }
    return l->alarm == was ? UM_LAG_NOTHING : l->alarm ? UM_LAG_RAISED : UM_LAG_CLEARED;
}
