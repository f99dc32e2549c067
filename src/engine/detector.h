/* SPDX-License-Identifier: Apache-2.0 */
/* A detector is what a file gives: weights, immutable, shared. A um_detect is one user's session on
 * it: input buffers and recorded tapes. */
#ifndef UM_ENGINE_DETECTOR_H
#define UM_ENGINE_DETECTOR_H

#include "engine/front.h"
#include "model/dfine.h"
#include "ultramotion/detector.h"

#include <pthread.h>
#include <stdatomic.h>

/* The network for gray or for RGB input: its input buffer and its tape, made when first needed. */
struct um_detect_path {
    um_buf *input;
    um_tape *tape;
    struct um_dfine_out out;
};

typedef struct um_detect {
    const um_detector *model;
    bool keep_taps;
    struct um_detect_path path[2]; /* channels 1, 3 */
} um_detect;

/* um_detector_run(): a session of the detector's own, one caller at a time. */
struct um_detector_own {
    pthread_mutex_t lock;
    um_detect session;     /* guarded by lock, as all below */
    struct um_front front; /* the last geometry */
    um_hostbuf *result;    /* logits, boxes */
    um_event *done;
    um_box *boxes; /* [queries * classes] */
};

struct um_detector {
    atomic_int refs;
    um_device *dev; /* a reference */
    um_dfine *net;
    char sha256[65];
    char **names; /* [classes]; NULL where unnamed */
    struct um_detector_own own;
};

/* A session in place; closed with um_detect_close(), which accepts a zeroed one. */
void um_detect_open(um_detect *s, const um_detector *model, bool keep_taps);
void um_detect_close(um_detect *s);
/* The path for frames of `channels` (1 or 3) channels, recorded and compiled. */
um_status um_detect_path(um_detect *s, int channels, struct um_detect_path **out);
/* What the front must deliver for a w x h image. */
struct um_front_target um_detect_target(const um_detect *s, const struct um_detect_path *path,
                                        int w, int h);
/* Says in a header that has its image's size how boxes of the input become boxes of the image,
 * and which of them go. */
void um_detector_tell(const um_detector *d, struct um_frame_header *header);
/* Bytes on the device beside the weights. */
uint64_t um_detect_device_bytes(const um_detect *s);

/* Channels the detector runs on for a frame of `channels`: 1 if it knows gray only. */
int um_detector_channels(const um_detector *d, int channels);
/* The same for the w x h pixels of a frame from x0, y0: also 1 if they have no colour. */
int um_detector_channels_of(const um_detector *d, const um_frame *frame, int x0, int y0, int w,
                            int h);

#endif
