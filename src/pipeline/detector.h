/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_PIPELINE_DETECTOR_H
#define UM_PIPELINE_DETECTOR_H

#include "model/dfine.h"
#include "pipeline/front.h"
#include "ultramotion/detector.h"

/* The network for gray or for RGB input: its input buffer and its tape, made when first needed. */
struct um_detect_path {
    um_buf *input;
    um_tape *tape;
    struct um_dfine_out out;
};

struct um_detector {
    um_device *dev;
    um_dfine *net;
    char sha256[65];
    bool keep_taps;
    struct um_detect_path path[2]; /* channels 1, 3 */
    struct um_front front;         /* of um_detector_run(): the last geometry */
    um_hostbuf *result;            /* of um_detector_run(): logits, boxes */
    um_event *done;                /* of um_detector_run() */
};

/* The path for frames of `channels` (1 or 3) channels, recorded and compiled. */
um_status um_detector_path(um_detector *d, int channels, struct um_detect_path **out);
/* What the front must deliver for a picture: always stretched to the square input. */
struct um_front_target um_detector_target(um_detector *d, const struct um_detect_path *path,
                                          int channels);
/* Channels the detector runs on for a frame of `channels`: 1 if its stem has one. */
int um_detector_channels(const um_detector *d, int channels);
uint64_t um_detector_device_bytes(const um_detector *d);

#endif
