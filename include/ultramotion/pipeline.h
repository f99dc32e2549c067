/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_PIPELINE_H
#define ULTRAMOTION_PIPELINE_H

#include "ultramotion/detector.h"
#include "ultramotion/packet.h"
#include "ultramotion/segmenter.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Detector, gate, segmenter, mask and packet on one device: frames in, ResultPackets out. A
 * session: the models are shared, everything else is its own. Reference counted: it has references
 * to its models, a run has one to it, so they may be closed in any order. Threads: one that
 * sends and one that receives, or one that does both; functions that say so may be called from any
 * other at the same time. */
typedef struct um_pipeline um_pipeline;

enum { UM_INFLIGHT_MAX = 16 };       /**< frames that may be in flight */
enum { UM_DETECT_EVERY_MAX = 1000 }; /**< the longest heartbeat of the detector, in frames */

typedef enum um_gate_mode { UM_GATE_AUTO, UM_GATE_SPECULATIVE, UM_GATE_SYNC } um_gate_mode;

typedef struct um_pipeline_settings {
    size_t struct_size;
    um_detector *detector;   /**< both on the same device, else UM_EINVAL naming both */
    um_segmenter *segmenter; /**< NULL = boxes only */
    float conf;              /**< tau_conf: score >= conf is VISIBLE; default 0.5 */
    int label;               /**< class to follow; -1 = the best of all (default) */
    um_gate_mode gate;       /**< AUTO: speculative where queues overlap, sync on cpu */
    um_mask_mode sam_as_numpy;
    int crop[4];   /**< x, y, w, h: part of the image to process; w 0 = all */
    int crop_auto; /**< 1: instead, the part of a scanner's screen that is the ultrasound image, as
                      um_frame_find_image() finds it in the frames sent so far of the same size;
                      each packet says which. 0 (default): `crop` */
    int assert_up, assert_down; /**< most copies per frame; -1 = no assertion (default) */
    int dump;                   /**< keep taps for um_pipeline_dump(), of one object */
    int inflight; /**< frames that may be in flight, 1 (default) to UM_INFLIGHT_MAX. On `cpu` each
                     has a session and a share of the device's threads of its own, at most one
                     frame for each thread: more frames a second, each of them later. Elsewhere
                     they overlap in one queue, at most 3, and only with the speculative gate.
                     um_pipeline_inflight() says how many they are */
    void (*kpi)(void *ctx, const char *line); /**< one JSON line per published prediction, or NULL.
                                                 The pipeline waits for it: calls of it from there
                                                 are UM_EINVAL, but for um_pipeline_change() */
    void *kpi_ctx;
    const char *lost_device; /**< name of the lost device whose work this pipeline continues, for
                                its packets; NULL = none (default) */
    int objects;   /**< structures to outline, 1 (default) to UM_OBJECTS_MAX: the best boxes with a
                      score of at least conf, at most one of each of the detector's queries */
    int per_class; /**< 1: at most one of each class instead */
    int track;     /**< 1: track one structure: scores, and the state that follows from them and
                      from previous frames (docs/STATE.md). One frame is in flight then.
                      Needs a segmenter. 0 (default): the state is the detector's score */
    float theta_on, theta_off, theta_cont; /**< of `track`: 0.6, 0.4, 0.5 */
    int detect_every; /**< of `track`: when it is steady, only every n-th frame runs the detector;
                         1 (default) to UM_DETECT_EVERY_MAX */
    int shadow_every; /**< N > 0: every N-th frame also goes through legacy host mode, and what
                         differs is counted (um_pipeline_shadow()). Masks with a Dice below 0.98,
                         boxes or classes that differ, or a result that is finite in legacy mode
                         only: from that frame on legacy mode alone makes the packets. 0 (default):
                         off */
    double budget_ms; /**< a packet is due within this time of its frame's receipt: a late one says
                         so, and with `track` less work is done while packets are late (um_effort,
                         docs/SUPERVISION.md). 0 (default): no budget */
    int mask_clean;   /**< 1: pieces of a mask outside the detector's box and specks are removed and
                         small holes filled, on the device (docs/FRAME.md). 0 (default): the mask is
                         the network's; the command's `run`, `serve` and `val` default to 1 */
    int reuse; /**< 1: an image identical to the previous one, pixel by pixel, takes the boxes and
                  the embedding computed for that: the same packet, bit for bit, except `reused` and
                  times. Not with `track` and a gain of "auto", which follows previous images. 0
                  (default): every image is computed */
} um_pipeline_settings;

/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_pipeline_settings_init(um_pipeline_settings *s, size_t struct_size);
#define um_pipeline_settings_default(s) um_pipeline_settings_init((s), sizeof *(s))
/** Open a pipeline. @return UM_OK; UM_EINVAL for an invalid setting, named; UM_ENOMEM;
 * UM_EDEVICE. On error *out is NULL. */
UM_API um_status um_pipeline_open(um_pipeline **out, const um_pipeline_settings *settings);
/** Add a reference and return the pipeline. Threads: any. */
UM_API um_pipeline *um_pipeline_ref(um_pipeline *pipeline);
/** Drop a reference and set *pipeline to NULL; the last one waits for frames in flight and closes
 * it. Packets that are still referenced stay. Accepts NULL. Threads: any. */
UM_API void um_pipeline_close(um_pipeline **pipeline);

/**
 * Plan for images of a size before the first of them is sent, so that um_pipeline_send() need not.
 * Frames go on meanwhile; if none is in flight the plan is also tried on a blank image. The last
 * four sizes are kept.
 *
 * @param channels 3: colour images; 1: gray, also RGB whose channels are equal.
 * @return UM_OK, also if it is already planned; UM_EINVAL; UM_ENOMEM; UM_EDEVICE. Threads: any.
 */
UM_API um_status um_pipeline_prepare(um_pipeline *pipeline, int width, int height, int channels);

/**
 * Change what is looked for, from the next frame on. If something is invalid, nothing is changed.
 * Never waits for a frame.
 *
 * @param conf    the score from which a box counts, 0 to 1; NULL, as of all: unchanged.
 * @param label   the class to follow, -1 = the best of all.
 * @param objects structures to outline, 1 to settings.objects.
 * @return UM_OK; UM_EINVAL. Threads: any.
 */
UM_API um_status um_pipeline_change(um_pipeline *pipeline, const float *conf, const int *label,
                                    const int *objects);
/** Forget previous frames: the next one begins a stream, starting from LOST. A run does so when
 * it starts. @return UM_OK; UM_EINVAL. Threads: any. */
UM_API um_status um_pipeline_forget(um_pipeline *pipeline);

/** Frames that may be in flight: at most settings.inflight; 1 where a frame depends on the one
 * before (`track`; on `cpu` a gain of "auto"), with `dump` on `cpu`, and elsewhere with the
 * synchronous gate or in legacy host mode. */
UM_API int um_pipeline_inflight(const um_pipeline *pipeline);

/**
 * Submit one frame. On UM_OK the pipeline takes the caller's reference and sets *frame to NULL;
 * else the caller keeps it. With as many frames in flight as the settings allow it answers
 * UM_AGAIN: call um_pipeline_receive() first.
 */
UM_API um_status um_pipeline_send(um_pipeline *pipeline, um_frame **frame);
/**
 * Wait for the result of the oldest frame in flight. UM_AGAIN if there is none. UM_EASSERT when an
 * asserted transfer count was exceeded (um_last_error() names frame, stage and reason; the packet
 * is delivered all the same). UM_ENUMERIC when a network's results are not finite numbers: this
 * frame has no packet, the next may have one.
 *
 * @param packet receives a packet that stays valid until the next receive or close, or longer with
 * um_packet_ref().
 */
UM_API um_status um_pipeline_receive(um_pipeline *pipeline, const um_packet **packet);
/**
 * um_pipeline_send() and um_pipeline_receive() of one frame in one call, for callers with nothing
 * in flight. What was sent belongs to the pipeline, as there.
 *
 * @param packet receives a reference that is the caller's, for um_packet_unref(); NULL without one.
 * @return as the two; UM_AGAIN with a frame in flight, which um_pipeline_receive() takes.
 */
UM_API um_status um_pipeline_pass(um_pipeline *pipeline, um_frame **frame,
                                  const um_packet **packet);
/** Results of the comparison with legacy host mode so far (settings.shadow_every). */
typedef struct um_shadow_counts {
    size_t struct_size;
    uint64_t compared,
        disagreed;    /**< frames; and those of them with at least one differing pixel */
    uint64_t failed;  /**< frames that legacy mode could not do */
    float least_dice; /**< of two masks; 1 where none differed */
    int fell_back;    /**< 1: legacy mode makes the packets, from frame `fell_at` on */
    uint64_t fell_at; /**< id of that frame */
} um_shadow_counts;
/** Read them; its struct_size is set by the caller. @return UM_OK; UM_EINVAL; UM_AGAIN
 * without settings.shadow_every. Threads: any. */
UM_API um_status um_pipeline_shadow(um_pipeline *pipeline, um_shadow_counts *out);

/** Taps of the last frame (settings.dump) as .safetensors. */
UM_API um_status um_pipeline_dump(um_pipeline *pipeline, const char *path);
/** Bytes the pipeline planned on the device: weights, arenas, blocks of the current geometries.
 * Threads: any. */
UM_API uint64_t um_pipeline_device_bytes(const um_pipeline *pipeline);

#ifdef __cplusplus
}
#endif
#endif
