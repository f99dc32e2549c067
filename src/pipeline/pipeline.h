/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a pipeline, shared by pipeline.c (frames), settings.c, geometry.c (what is recorded for
 * a size of image), track.c (keeping track) and host.c (legacy host mode). */
#ifndef UM_PIPELINE_PIPELINE_H
#define UM_PIPELINE_PIPELINE_H

#include "engine/detector.h"
#include "engine/segmenter.h"
#include "nn/block.h"
#include "nn/op_dfine.h"
#include "nn/op_track.h"
#include "pipeline/budget.h"
#include "pipeline/crew.h"
#include "pipeline/packet.h"
#include "pipeline/sent.h"
#include "pipeline/shadow.h"
#include "pipeline/visibility.h"
#include "ultramotion/pipeline.h"

#include <stdatomic.h>

enum { GEOMETRIES = 4 };
static_assert((int)UM_OBJECTS_MAX == (int)UM_BOXES_MAX, "a gate for each object");

enum mark {
    MARK_START,
    MARK_UPLOADED,
    MARK_DETECTED,
    MARK_ENCODE_START,
    MARK_ENCODED,
    MARK_SEGMENTED,
    MARK_DONE,
    MARKS
};

/* What a frame launches. Speculative: the whole frame. Sync: up to the gates; then the rest for n
 * objects in second[n - 1]. Host mode: second[0] is the encoder and the first object, second[i]
 * object i. Keeping track: `followed` is the frame without the detector; in host mode, up to its
 * gate. */
struct graphs {
    um_graph *whole[UM_FRONT_SLOTS], *first, *second[UM_OBJECTS_MAX], *followed;
};

/* Everything that depends on the size of the frame. Objects: as many as the pipeline was opened
 * for. */
struct geometry {
    int w, h, c;
    uint64_t used; /* `uses` at its last one: the oldest that is not in flight makes room */
    struct um_front front;
    const struct um_detect_path *detect;
    um_tape *gate;
    struct um_best_box best; /* [objects] */
    um_params *tables;
    um_const work, clean;            /* of um_mask_packet(), um_clean() */
    um_tape *follow;                 /* keeping track: in place of detector and gate */
    um_const memory;                 /* of um_scores() */
    um_tape *packet[UM_OBJECTS_MAX]; /* mask, statistics, packet of an object; in host mode only
                                        packet[0], the logits */
    um_tensor logits;
    um_buf *packets;      /* a record and mask bits for each object, `stride` bytes apart */
    size_t bytes, stride; /* bytes: of a record and its bits */
    um_hostbuf *gate_slot, *packet_slot[UM_FRONT_SLOTS];
    bool anew;               /* the next frame begins a stream, or was not of this size before:
                                its gain follows none */
    struct graphs graphs[2]; /* [1], with `reuse`: of an image that the networks have seen */
    /* host mode: the host's own mask, statistics and packet */
    float *host_logits;
    uint8_t *host_mask, *host_weights, *host_stats, *host_memory, *host_clean;
};

/* The host's side of a frame in flight: which of the pinned slots are its own, and when its stages
 * passed. The graphs of a geometry differ in this alone. */
struct lane {
    int slot;
    um_event *mark[MARKS];
};

/* A frame in flight, and its packet as far as it is known. */
struct flight {
    struct geometry *g;
    um_frame *frame;
    struct um_crew_wish wish; /* what was looked for in it, and where */
    uint64_t sent_ns;
    bool detected;             /* by the detector, or followed without it */
    const um_packet *repeated; /* nothing was launched: the mask of this one once more */
    bool same;                 /* its image is the one before, */
    bool boxes, embedding;     /* with `reuse`: those of that one are taken */
    um_packet packet;
    um_ledger ledger;
};

/* Of a pipeline that keeps track: what is known of the frames before. */
struct track {
    const struct geometry *g; /* whose memory it is */
    struct um_visibility seen;
    bool detect;               /* on the next frame */
    bool previous, good, keep; /* um_track_flag of the next frame */
    struct um_gate follow;     /* of the structure: box of its mask, label, score */
    struct um_place place;     /* of its mask */
    const um_packet *shown;    /* the last one with a mask of its own */
};

/* What um_pipeline_change() asked for. */
struct wish {
    bool any, relabel;
    float conf;
    int label, objects;
};

struct um_pipeline {
    atomic_int refs;
    um_pipeline_settings set; /* with crop_auto, its crop is that of the last frame, */
    int screen[2];            /* of this width and height */
    um_device *dev;
    um_detector *detector;                                    /* a reference */
    um_segmenter *segmenter;                                  /* a reference, or NULL */
    char lost_device[sizeof((um_packet *)NULL)->lost_device]; /* that of the settings */
    um_detect detect;
    um_encode encode;
    um_decode decode;
    um_buf *prompt;  /* that the decoder reads */
    um_buf *prompts; /* of all objects; with one object, `prompt` */
    bool host_mode, speculative;
    atomic_uint_fast64_t bytes; /* of the session, as planned so far */
    um_pool
        *pool; /* host mode on a device without one: where the host's part of a packet is made */
    pthread_mutex_t planning; /* one geometry is planned at a time, aside of the frames */
    pthread_mutex_t wishing;  /* of `wish`: who changes something does not wait for a frame */
    struct wish wish;
    pthread_mutex_t lock; /* of frames and the table of geometries, as all below */
    float conf;           /* those of the settings, as changed since */
    int label, objects;
    struct geometry geometry[GEOMETRIES];
    struct lane lane[UM_FRONT_SLOTS], warm; /* warm: of warm-ups, beside frames in flight */
    um_event *fork, *join;
    struct flight flight[UM_INFLIGHT_MAX]; /* frame n in flight[n % inflight] */
    uint64_t uses; /* of geometries: planned, or a frame of theirs was sent */
    uint64_t sent, received;
    struct um_sent before;
    struct track track;
    struct um_budget budget;
    struct geometry *last;    /* of the last packet */
    bool encoded;             /* the last packet's frame ran the segmenter */
    double host_ms[2];        /* host mode: of the mask, and of the rest of the packet */
    struct um_shadow *shadow; /* or NULL */
    float gain;               /* of a shadow: that of the image it looks at; 0: its own */
    um_crew *crew; /* or NULL: its members do the frames, and this pipeline has no session */
    um_packet_pool *packets;
    const um_packet *packet; /* the last one received */
};

/* Checked; theirs are as um_record_in() has them. */
um_status um_pipeline_settings_read(um_pipeline_settings *own, const um_pipeline_settings *theirs);
/* What holds for the frame that is sent now: what was changed does for it and those behind it. */
struct um_crew_wish um_wish_take(um_pipeline *p);

/* Plan for a frame that is sent next, and of which this crop is looked at. What may be wrong with
 * it alone shows here: UM_EINVAL. */
um_status um_pipeline_plan(um_pipeline *p, const um_frame *frame, const int crop[4]);
uint64_t um_pipeline_session_bytes(const um_pipeline *p); /* um_pipeline_device_bytes(), without
                                                             the weights */

/* Plan a geometry in *g, which nobody else sees. On error it is closed. */
um_status um_geometry_open(um_pipeline *p, struct geometry *g, int w, int h, int c);
void um_geometry_close(um_pipeline *p, struct geometry *g); /* accepts a zeroed one */
/* Record the graphs: from then on its frames only launch. `warm`: run once on a blank frame first;
 * nothing may be in flight. */
um_status um_geometry_capture(um_pipeline *p, struct geometry *g, bool warm);
uint64_t um_geometry_device_bytes(const struct geometry *g);

/* Keeping track: the next frame is of this geometry. A new one is a new image, of which nothing is
 * known. */
void um_track_enter(struct track *t, const struct geometry *g);
/* The same, but one of the same size is the same image, in colour now or in gray. */
um_status um_track_go_on(um_pipeline *p, const struct geometry *g);
/* What a frame's header says of the frames before. */
void um_track_tell(const struct track *t, struct um_frame_header *header);
/* State, tag and reason of a frame. `object` is what it shows, if something was found; what is to
 * be published is left there. NULL: nothing is. */
const um_object *um_track_judge(um_pipeline *p, struct flight *flight, const struct um_gate *gate,
                                bool found, um_object *object);
/* What is published of a frame that nothing looked at; what is known of the structure stays. */
const um_object *um_track_repeat(struct flight *flight, um_object *object);

/* Legacy host mode: logits and score of object i come to the host, which makes its record and mask
 * bits in the packet's slot. */
um_status um_host_packet(um_pipeline *p, struct geometry *g, int i);
um_status um_host_open(const um_pipeline *p, struct geometry *g);
void um_host_close(struct geometry *g);

#endif
