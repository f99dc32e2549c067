/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_STREAM_WRITER_H
#define UM_STREAM_WRITER_H

#include "monitor/monitor.h"
#include "stream/queue.h"
#include "ultramotion/sink.h"

#include <stdatomic.h>
#include <stdint.h>

/* A packet on its way to the sinks: shared by them, freed by the last. */
struct um_parcel {
    atomic_int refs;
    const um_packet *packet;
    um_frame *frame;
    char *name;
};
struct um_parcel *um_parcel_pack(const um_packet *packet, const um_frame *frame, const char *name);
void um_parcel_drop(struct um_parcel *p); /* accepts NULL */

/* The thread that writes a sink. */
struct um_writer {
    um_sink *sink; /* a reference, until the thread has ended */
    um_sink_settings set;
    char name[96];              /* in numbers: that of the sink, equal ones with "#2", "#3" */
    int wake;                   /* set after every change, for who puts packets */
    void (*leave)(void *owner); /* the thread's last word: this struct may go */
    void *owner;
    struct um_queue queue;
    um_monitor *monitor;      /* of the run, or NULL */
    int number;               /* among the run's sinks */
    atomic_ullong busy_since; /* ns; 0 = it waits for a packet */
    atomic_ullong written, dropped;
    atomic_bool done, given_up;
    um_status status; /* with `problem`, read when done */
    char problem[512];
    pthread_t thread;
    /* of who puts packets */
    bool started, over; /* over: done or given up, and told */
    bool pending;       /* the packet of the moment has not found room yet */
    uint64_t given_up_at;
    uint64_t late_since,
        late_at; /* busy_since of a packet that takes long, and when that was seen */
};

um_status um_writer_init(struct um_writer *w);
um_status um_writer_start(struct um_writer *w);
void um_writer_finish(struct um_writer *w);
/* When it is to be given up, in ns, if nothing changes: UINT64_MAX = never. `last`: when the run
 * must have ended, UINT64_MAX = it has time. */
uint64_t um_writer_due(struct um_writer *w, uint64_t last);
void um_writer_give_up(struct um_writer *w, uint64_t now);

#endif
