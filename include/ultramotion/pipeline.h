/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_PIPELINE_H
#define ULTRAMOTION_PIPELINE_H

#include "ultramotion/detector.h"
#include "ultramotion/packet.h"
#include "ultramotion/segmenter.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Detector, gate, segmenter, mask and packet on one device: frames in, ResultPackets out. */
typedef struct um_pipeline um_pipeline;

enum { UM_INFLIGHT_MAX = 3 }; /**< frames that may be in flight */

typedef enum um_gate_mode { UM_GATE_AUTO, UM_GATE_SPECULATIVE, UM_GATE_SYNC } um_gate_mode;

typedef struct um_pipeline_settings {
    size_t struct_size;
    um_detector *detector;   /**< borrowed; both on the same device, else UM_EINVAL naming both */
    um_segmenter *segmenter; /**< borrowed; NULL = boxes only */
    float conf;              /**< tau_conf: score >= conf is VISIBLE; default 0.5 */
    int label;               /**< class to follow; -1 = the best of all (default) */
    um_gate_mode gate;       /**< AUTO: speculative where queues overlap, sync on cpu */
    um_mask_mode sam_as_numpy;
    int crop[4];                /**< x, y, w, h: part of the picture to look at; w 0 = all */
    int assert_up, assert_down; /**< most copies per frame; -1 = no assertion (default) */
    int dump;                   /**< keep taps for um_pipeline_dump() */
    int inflight;               /**< frames that may be in flight, 1 (default) to UM_INFLIGHT_MAX;
                                   more than one only with the speculative gate */
    void (*kpi)(void *ctx,
                const char *line); /**< one JSON line per published prediction, or NULL */
    void *kpi_ctx;
    const char *lost_device; /**< borrowed; name of the lost device whose work this pipeline goes on
                                with, for its packets; NULL = none (default) */
} um_pipeline_settings;

/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_pipeline_settings_init(um_pipeline_settings *s, size_t struct_size);
#define um_pipeline_settings_default(s) um_pipeline_settings_init((s), sizeof *(s))
UM_API um_status um_pipeline_open(um_pipeline **out, const um_pipeline_settings *settings);
UM_API void um_pipeline_close(um_pipeline **pipeline); /**< accepts NULL */

/** Frames that may be in flight: settings.inflight, or 1 where the gate is synchronous. */
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
 * is delivered all the same).
 *
 * @param packet receives a packet that stays valid until the next receive or close.
 */
UM_API um_status um_pipeline_receive(um_pipeline *pipeline, const um_packet **packet);
/** Taps of the last frame (settings.dump) as .safetensors. */
UM_API um_status um_pipeline_dump(um_pipeline *pipeline, const char *path);
/** Bytes the pipeline planned on the device: weights, arenas, blocks of the current geometry. */
UM_API uint64_t um_pipeline_device_bytes(const um_pipeline *pipeline);

#ifdef __cplusplus
}
#endif
#endif
