/* SPDX-License-Identifier: Apache-2.0 */
/* Frames beside each other on a processor, where a frame runs on its caller's thread: sessions of
 * one pipeline on the same networks, each with a thread of its own that computes with its part of
 * the device's threads. Frame n goes to member n % members, which does one at a time; its packet
 * is what a pipeline of one frame in flight would have made. Threads: one that gives and one that
 * takes, of which neither may be at a member that the other is at. */
#ifndef UM_PIPELINE_CREW_H
#define UM_PIPELINE_CREW_H

#include "ultramotion/pipeline.h"

typedef struct um_crew um_crew;

/* What may change from frame to frame. */
struct um_crew_wish {
    float conf;
    int label, objects, crop[4];
};

/* `settings` are the pipeline's; their inflight is the number of members, at most as many as the
 * device has threads. */
um_status um_crew_open(um_crew **out, const um_pipeline_settings *settings);
void um_crew_close(um_crew **crew); /* waits for the frames that are being done; accepts NULL */
um_status um_crew_prepare(um_crew *c, int width, int height, int channels);
um_status um_crew_forget(um_crew *c); /* waits for the frames that are being done */

/* A frame for a member that has none. On UM_OK its reference is taken. UM_EINVAL: it is wrong. */
um_status um_crew_give(um_crew *c, int member, um_frame **frame, const struct um_crew_wish *wish);
/* Wait for what became of a member's frame: as um_pipeline_receive(), but the packet is the
 * caller's, or NULL. */
um_status um_crew_take(um_crew *c, int member, const um_packet **packet);
uint64_t um_crew_session_bytes(const um_crew *c); /* of all sessions, without the weights */

#endif
