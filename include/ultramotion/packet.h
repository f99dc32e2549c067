/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_PACKET_H
#define ULTRAMOTION_PACKET_H

#include "ultramotion/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { UM_OBJECTS_MAX = 16 }; /**< structures that a packet may hold */

/** State of the structure. Without tracking (um_pipeline_settings.track) it is VISIBLE exactly when
 * its score is at least conf. */
typedef enum um_state {
    UM_STATE_LOST,
    UM_STATE_VISIBLE,
    UM_STATE_RELOCALIZING /**< seen, but not yet, or no longer, trusted */
} um_state;
UM_API const char *um_state_name(um_state state); /**< "VISIBLE", … */

/** What a packet's mask is. */
typedef enum um_tag {
    UM_TAG_FRESH,     /**< of this image, prompted by its detection (also if there is none) */
    UM_TAG_PREDICTED, /**< of this image, prompted by the previous mask */
    UM_TAG_STALE,     /**< of an earlier moment: the previous mask, or the image is frozen */
    UM_TAG_WITHHELD   /**< there is none, or it is not to be trusted */
} um_tag;
UM_API const char *um_tag_name(um_tag tag); /**< "fresh", … */

/** What is wrong, if anything. */
typedef enum um_reason {
    UM_REASON_NONE,
    UM_REASON_NOT_FOUND,   /**< score below conf, or an empty mask */
    UM_REASON_LOW_SCORE,   /**< S1 to S4 say that the mask is not the structure */
    UM_REASON_UNCONFIRMED, /**< found again, but not yet confirmed by C1 to C3 */
    UM_REASON_FROZEN,      /**< the same image, pixel by pixel, several times in a row */
    UM_REASON_NO_CONTACT,  /**< no speckle: the probe touches nothing */
    UM_REASON_NO_TIME      /**< the budget left none: this image was not processed */
} um_reason;
UM_API const char *um_reason_name(um_reason reason); /**< "not_found", …; NULL of NONE */

/** How much work a steady frame may get (um_pipeline_settings.budget_ms). */
typedef enum um_effort {
    UM_EFFORT_FULL,   /**< as without a budget */
    UM_EFFORT_FOLLOW, /**< prompt from the previous mask; the detector on every 8th frame */
    UM_EFFORT_REPEAT, /**< in addition two frames of three repeat the previous mask, `stale` */
    UM_EFFORTS
} um_effort;
UM_API const char *um_effort_name(um_effort effort); /**< "full", … */

/** Places in um_packet.scores, all 0 to 1; NaN = not defined. docs/STATE.md has the formulas. */
enum um_score {
    UM_SCORE_SHARPNESS,  /**< S1, of the edge */
    UM_SCORE_CONTRAST,   /**< S2, inside against outside */
    UM_SCORE_LINE,       /**< S3, continuity of the bone line */
    UM_SCORE_COHERENCE,  /**< S4, with the mask before */
    UM_SCORE_AGREEMENT,  /**< C1, of box and mask, and with the box before */
    UM_SCORE_APPEARANCE, /**< C2, correlation with the last good frame */
    UM_SCORE_DEPTH,      /**< C3, with poses */
    UM_SCORE_CONTACT,    /**< share of the image with speckle */
    UM_SCORES
};

typedef struct um_stage_times {
    double upload, detect, segment, packet, total;
} um_stage_times; /**< ms. A value: never grows. */

/** One structure in an image. Made by the library: grows at its end, so it is reached by pointer
 * (um_packet_object()), never by index. */
typedef struct um_object {
    size_t struct_size;
    int label;           /**< class index */
    const char *name;    /**< of the class, or NULL; owned by the packet */
    float score;         /**< of the detector, 0..1 */
    int has_box;         /**< 0 for the outline of a prompt without a box */
    float box[4];        /**< xyxy, clamped to the image; valid if has_box */
    int has_mask;        /**< 0 without a segmenter, or if the mask is withheld */
    const uint8_t *bits; /**< mask: rows of um_packet_row_bytes() bytes, bit x%8 of byte x/8 = pixel
                            x of the packet's crop; owned by the packet */
    uint32_t mask_area_px, edge_px, in_px, out_px;
    int32_t
        mask_box[4];   /**< x0,y0,x1,y1 (exclusive) in the full image; zeros if the mask is empty */
    float centroid[2]; /**< of the mask, in the full image; NaN if empty */
    float iou;         /**< predicted by the segmenter */
    float scores[UM_SCORES]; /**< see um_packet */
    uint32_t removed_px;     /**< taken from the mask by um_pipeline_settings.mask_clean, */
    uint32_t filled_px;      /**< and added: holes */
} um_object;

/**
 * One result: what was found in one image, with timing and provenance. Read-only, made by the
 * library, reference counted, grows at its end. The per-structure fields here are those of the
 * first object. Threads: a packet may be read, referenced and dropped by any thread.
 */
typedef struct um_packet {
    size_t struct_size;
    uint64_t frame_id;
    double ts; /**< of the frame, see um_frame */
    um_state state;
    int label;   /**< of the best box */
    float score; /**< of the best box, also when LOST; of several, if the detector wants it
                    (um_detector_settings.presence) */
    int has_box;
    float box[4]; /**< xyxy, clamped to the image; valid if has_box */
    int has_mask;
    int width, height;   /**< of the full image */
    int crop[4];         /**< x, y, w, h of the part the mask bits cover */
    const uint8_t *bits; /**< as of um_object */
    uint32_t mask_area_px, edge_px, in_px, out_px;
    int32_t mask_box[4];
    float centroid[2];
    float iou;
    float scores[UM_SCORES]; /**< valid if has_scores */
    um_stage_times ms;
    um_transfers transfers;
    int has_pose, has_spacing;
    double pose[16], spacing_mm[2];
    char device[16];
    char precision[8];
    int as_numpy;
    char detector_sha256[65], segmenter_sha256[65]; /**< "" = none */
    char lost_device[16]; /**< the device that was lost before this frame; "" = none */
    const char *source;   /**< the image: um_frame.source; "" = unknown */
    const char *name;     /**< of the class of the first object, or NULL */
    int objects;          /**< how many um_packet_object() has, best first; 0 when LOST */
    um_tag tag;
    um_reason reason;
    int detected;     /**< 0: the detector was left out; `score` is of the frame that it last saw */
    int has_scores;   /**< a pipeline that keeps track made this */
    int has_deadline; /**< a pipeline with a budget made this */
    int missed;       /**< latency_ms is above the budget */
    um_effort effort; /**< that the budget allowed */
    double latency_ms; /**< from um_frame.received_ns, where it is known, else from
                          um_pipeline_send(), until the packet was made */
    int has_cleaned;   /**< a pipeline that cleans masks made this */
    uint32_t removed_px, filled_px;
    float gain; /**< that the networks saw the image with (um_detector_settings.gain); 0: none */
    int reused; /**< 1: the image is identical to the previous one, and what the networks had made
                   of that was taken (um_pipeline_settings.reuse) */
    char precision_reason[16];        /**< why that precision (um_device_precision_reason()) */
    char detector[32], segmenter[32]; /**< their architectures; "" = none, or not known */
} um_packet;

/**
 * Make a packet on the heap.
 *
 * @param out     receives the packet with one reference; NULL on error.
 * @param fields  what it says; copied with its strings and masks. The fields of its first object
 *                are replaced by those of objects[0].
 * @param objects n of them, best first, at most UM_OBJECTS_MAX. NULL with n 0: none, or, in a
 *                VISIBLE packet, the one that `fields` describes.
 * @return UM_OK; UM_EINVAL for a size, a state, a crop or a count that means nothing, for objects
 * of a LOST packet, and for an object that is NULL; UM_ENOMEM.
 */
UM_API um_status um_packet_create(um_packet **out, const um_packet *fields,
                                  const um_object *const *objects, int n);
/** Add a reference and return the packet, which then stays valid until um_packet_unref(). A
 * pipeline that is asked for its next packet uses another memory for it. Threads: any. */
UM_API const um_packet *um_packet_ref(const um_packet *packet);
/** Drop a reference and set *packet to NULL. Accepts NULL. Threads: any. */
UM_API void um_packet_unref(const um_packet **packet);

/** Object i, 0..objects-1, valid as long as the packet; NULL beyond. */
UM_API const um_object *um_packet_object(const um_packet *packet, int i);
/** Bytes of a row of mask bits. */
UM_API int um_packet_row_bytes(const um_packet *packet);
/** Expand the first object's mask to bytes [height*width] of the full image: 0 or `on`. All 0
 * without a mask. */
UM_API void um_packet_mask(const um_packet *packet, uint8_t *out, uint8_t on);
/** The same of object i. */
UM_API void um_packet_object_mask(const um_packet *packet, int i, uint8_t *out, uint8_t on);
/** All masks in one image [height*width]: 0, or the index of the object + 1; where several
 * overlap, the best. */
UM_API void um_packet_label_map(const um_packet *packet, uint8_t *out);
/** COCO compressed RLE counts of object i's mask in the full image. *counts is owned by the caller
 * (um_free()). @return UM_OK, UM_EINVAL (no such object), UM_ENOMEM. */
UM_API um_status um_packet_object_rle(const um_packet *packet, int i, char **counts);
/** The packet as one JSON line without newline, every key always there. *line is owned by the
 * caller (um_free()). */
UM_API um_status um_packet_json(const um_packet *packet, char **line);

#ifdef __cplusplus
}
#endif
#endif
