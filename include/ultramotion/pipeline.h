/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_PIPELINE_H
#define ULTRAMOTION_PIPELINE_H

#include "ultramotion/detector.h"
#include "ultramotion/segmenter.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Detector, gate, segmenter, mask and packet on one device: frames in, ResultPackets out. */
typedef struct um_pipeline um_pipeline;

enum { UM_INFLIGHT_MAX = 3 }; /**< frames that may be in flight */

typedef enum um_gate_mode { UM_GATE_AUTO, UM_GATE_SPECULATIVE, UM_GATE_SYNC } um_gate_mode;
typedef enum um_state { UM_STATE_LOST, UM_STATE_VISIBLE } um_state;

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

typedef struct um_stage_times {
    double upload, detect, segment, packet, total;
} um_stage_times; /**< ms */

/** One result. Read-only; mask bits are expanded by um_packet_mask() and um_packet_rle(). */
typedef struct um_packet {
    uint64_t frame_id;
    double ts;
    um_state state;
    int label;   /**< of the best box */
    float score; /**< of the best box, also when LOST */
    int has_box;
    float box[4]; /**< xyxy, clamped to the picture; valid if has_box */
    int has_mask;
    int width, height;   /**< of the full picture */
    int crop[4];         /**< x, y, w, h of the part the mask bits cover */
    const uint8_t *bits; /**< rows of um_packet_row_bytes() bytes, bit x%8 of byte x/8 = pixel x of
                            the crop; owned by the packet */
    uint32_t mask_area_px, edge_px, in_px, out_px;
    int32_t
        mask_box[4]; /**< x0,y0,x1,y1 (exclusive) in the full picture; zeros if the mask is empty */
    float centroid[2]; /**< of the mask, in the full picture; NaN if empty */
    float iou;         /**< predicted by the segmenter */
    float scores[8];   /**< S1-S4, C1-C3; zero until the state machine lands */
    um_stage_times ms;
    um_transfers transfers;
    int has_pose, has_spacing;
    double pose[16], spacing_mm[2];
    char device[16];
    char precision[8];
    int as_numpy;
    char detector_sha256[65], segmenter_sha256[65]; /**< "" = none */
    char lost_device[16]; /**< the device that was lost before this frame; "" = none */
} um_packet;

/** Fill `s` with defaults. */
UM_API void um_pipeline_settings_default(um_pipeline_settings *s);
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

static inline int um_packet_row_bytes(const um_packet *p)
{
    return (p->crop[2] + 31) / 32 * 4;
}
/** Expand the mask to bytes [height*width] of the full picture: 0 or `on`. All 0 without a mask. */
UM_API void um_packet_mask(const um_packet *packet, uint8_t *out, uint8_t on);
/** COCO compressed RLE counts of the mask in the full picture. *counts is owned by the caller
 * (free()). */
UM_API um_status um_packet_rle(const um_packet *packet, char **counts);
/** The packet as one JSON line without newline, every key always there. *line is owned by the
 * caller (free()). */
UM_API um_status um_packet_json(const um_packet *packet, char **line);

#ifdef __cplusplus
}
#endif
#endif
