/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_STREAM_QUEUE_H
#define UM_STREAM_QUEUE_H

#include "base/status.h"

#include <pthread.h>
#include <stdbool.h>

/* A bounded queue of pointers between two threads, either of which may leave. */
struct um_queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void **item; /* oldest first; guarded by lock, as all below */
    int capacity, count;
    bool ended; /* no more will be put */
    bool left;  /* no more will be taken */
};

/* What to do without room. */
enum um_queue_full {
    UM_QUEUE_WAIT,   /* until there is, or the taker leaves */
    UM_QUEUE_REFUSE, /* say so */
    UM_QUEUE_REPLACE /* the oldest goes */
};
enum um_queue_put { UM_QUEUE_PUT, UM_QUEUE_FULL, UM_QUEUE_LEFT };

um_status um_queue_init(struct um_queue *q, int capacity);
void um_queue_finish(struct um_queue *q); /* what waits is the caller's to take before */

/* On UM_QUEUE_PUT the queue has the item. *old is what it replaced, or NULL. */
enum um_queue_put um_queue_put(struct um_queue *q, void *item, enum um_queue_full full, void **old);
/* The oldest; NULL if there is none, with `wait` only at the end. */
void *um_queue_take(struct um_queue *q, bool wait);
/* Ended, and all taken. */
bool um_queue_over(struct um_queue *q);
int um_queue_count(struct um_queue *q);
void um_queue_end(struct um_queue *q);
void um_queue_leave(struct um_queue *q);

#endif
