/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_STREAM_READER_H
#define UM_STREAM_READER_H

#include "monitor/monitor.h"
#include "stream/queue.h"
#include "ultramotion/source.h"

#include <stdatomic.h>

/* A frame on its way to the pipeline, or (frame NULL) one that could not be read. */
struct um_arrival {
    um_frame *frame;
    char *name; /* of its outputs */
    um_status status;
    char problem[512];
    bool has_truth;
    um_truth truth;
    void *truth_data; /* copies: the source's own last only until its next read */
    struct um_passage way;
};
void um_arrival_drop(struct um_arrival *a); /* accepts NULL */

/* The thread that reads a source. */
struct um_reader {
    um_source *source; /* a reference, until the thread has ended */
    bool realtime;     /* a frame that waits makes room for the next */
    bool want_truth;
    int wake;                   /* set after every change, for who takes the arrivals */
    void (*leave)(void *owner); /* the thread's last word: this struct may go */
    void *owner;
    struct um_queue arrivals;
    atomic_ullong replaced, left;  /* left: nobody took them any more */
    atomic_ullong frames;          /* with these */
    atomic_ullong heard, interval; /* ns: when the last one came, how long after the one before */
    atomic_ullong quiet;           /* the longest of these since somebody made it 0 */
    atomic_bool done;
    bool started, no_memory; /* the latter is read when done */
    pthread_t thread;
};

um_status um_reader_init(struct um_reader *r);
um_status um_reader_start(struct um_reader *r);
void um_reader_empty(struct um_reader *r); /* what waits is left */
void um_reader_finish(struct um_reader *r);

#endif
