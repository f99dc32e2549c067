/* SPDX-License-Identifier: Apache-2.0 */
/* What a long run says again and again, on a thread of its own: a line for people
 * (--summary-every), KPI lines about the state of the run, and who has stalled. */
#ifndef UM_PERIODIC_H
#define UM_PERIODIC_H

#include "ultramotion/ultramotion.h"

#include <pthread.h>
#include <stdbool.h>

struct periodic {
    um_monitor *monitor; /* borrowed */
    double summary_s;    /* 0: no line for people */
    bool kpi;            /* every second */
    bool watch;          /* name a stage that stalls, within a second */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t stalled, seen; /* bits of parts of the run; of the thread alone */
    bool started, ending;   /* ending: guarded by lock */
};

/* Start what is asked for, if anything is. */
um_status periodic_start(struct periodic *p, um_monitor *monitor, double summary_s, bool kpi,
                         bool watch);
void periodic_stop(struct periodic *p); /* also where nothing was started */

#endif
