/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_SEGMENTER_H
#define ULTRAMOTION_SEGMENTER_H

#include "ultramotion/device.h"
#include "ultramotion/frame.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A MobileSAM network on a device, with the embedding of the last image. */
typedef struct um_segmenter um_segmenter;

/** Where a mask lives. AUTO asks um_segmenter_set_mask_mode(), then the environment
 * ULTRAMOTION_SAM_AS_NUMPY, then means DEVICE. */
typedef enum um_mask_mode { UM_MASK_AUTO = 0, UM_MASK_DEVICE = 1, UM_MASK_HOST = 2 } um_mask_mode;

/**
 * Load a MobileSAM checkpoint and put it on a device.
 *
 * @param canvas  side S of the square canvas, a multiple of 16; 0 = the file's metadata, else 1024.
 * @return UM_OK; UM_EIO, UM_EFORMAT, UM_EINVAL, UM_EUNSUPPORTED (SAM ViT, LiteMedSAM: not in this
 * build), UM_ENOMEM.
 */
UM_API um_status um_segmenter_open(um_segmenter **out, um_device *device, const char *path,
                                   int canvas);
/** Close and set to NULL; masks made by it must be closed first. Accepts NULL. */
UM_API void um_segmenter_close(um_segmenter **segmenter);
UM_API int um_segmenter_canvas(const um_segmenter *segmenter);
UM_API const char *um_segmenter_sha256(const um_segmenter *segmenter);
UM_API um_device *um_segmenter_device(const um_segmenter *segmenter);
/** What UM_MASK_AUTO means for this segmenter: UM_MASK_DEVICE or UM_MASK_HOST; UM_MASK_AUTO = ask
 * the environment (default). */
UM_API void um_segmenter_set_mask_mode(um_segmenter *segmenter, um_mask_mode mode);
/** Where the KPI line of each prediction goes: called with one JSON object, no newline. NULL:
 * nowhere (default). */
UM_API void um_segmenter_set_kpi(um_segmenter *segmenter,
                                 void (*write)(void *ctx, const char *line), void *ctx);

/** Pixels handed to um_run_segmentation(): u8 0..255 or f32 0..1 (f32 is clipped, times 255,
 * truncated). */
typedef enum um_image_type { UM_IMAGE_U8, UM_IMAGE_F32 } um_image_type;
typedef enum um_image_layout { UM_IMAGE_HW, UM_IMAGE_HWC, UM_IMAGE_CHW } um_image_layout;

typedef struct um_image {
    const void *data; /**< host memory, contiguous */
    um_image_type type;
    um_image_layout layout;      /**< CHW also for NCHW with N = 1 */
    int height, width, channels; /**< channels 1 or 3 */
    const char *device; /**< where the caller says it is: NULL or "cpu" = host memory; the name of
                           another device is an error */
} um_image;

/** The result of a prediction: a boolean mask the size of the image. Device masks are [1,1,H,W],
 * host masks [H,W]. */
typedef struct um_mask um_mask;
UM_API void um_mask_close(um_mask **mask); /**< accepts NULL */
UM_API bool um_mask_on_host(const um_mask *mask);
UM_API int um_mask_rank(const um_mask *mask); /**< 4 on the device, 2 on the host */
UM_API void um_mask_shape(const um_mask *mask, int64_t shape[4]); /**< `rank` entries */
UM_API const char *um_mask_device(const um_mask *mask);           /**< "cpu" for host masks */
/** Host mask: its bytes, 0 or 1, row-major [H,W]. Device mask: NULL. */
UM_API const uint8_t *um_mask_data(const um_mask *mask);
/** Copy a mask to host bytes 0/1 [H*W]; a device mask costs one download, booked in the ledger. */
UM_API um_status um_mask_read(const um_mask *mask, uint8_t *out);
/**
 * Put a host mask on the segmenter's device as a boolean mask [1,1,H,W]: value > 0.5. For masks a
 * caller or another predictor made.
 * @param values f32 [height*width]
 */
UM_API um_status um_mask_from_host(um_mask **out, um_segmenter *segmenter, const float *values,
                                   int height, int width);

/**
 * Segment one image with a box prompt (R1). Same names, arguments and defaults in Python.
 *
 * @param segmenter  NULL: *out = NULL and UM_OK.
 * @param image      NULL: *out = NULL and UM_OK.
 * @param bbox_xyxy  4 numbers in pixels, or NULL: the whole image. NaN, inverted or not touching
 * the image: UM_EINVAL.
 * @param as_numpy   where the mask should be; UM_MASK_AUTO by default.
 * @param out        receives the mask; closed by the caller with um_mask_close() before the
 * segmenter.
 */
UM_API um_status um_run_segmentation(um_segmenter *segmenter, const um_image *image,
                                     const float *bbox_xyxy, um_mask_mode as_numpy, um_mask **out);
/** The legacy call: like um_run_segmentation() on a region of interest without box; UM_MASK_AUTO
 * means UM_MASK_HOST only by rollback. */
UM_API um_status um_run_segmentation_legacy(um_segmenter *segmenter, const um_image *roi,
                                            um_mask_mode as_numpy, um_mask **out);

/** Prompts in pixels of the image. */
typedef struct um_prompts {
    size_t struct_size;
    const float *box;    /**< x0,y0,x1,y1 or NULL */
    const float *points; /**< n_points x,y pairs */
    const int *labels;   /**< n_points: 1 object, 0 background, -1 padding */
    int n_points;        /**< at most 16 */
    const float
        *mask_input; /**< low-res logits [4n,4n] of an earlier prediction, or NULL; n = canvas/16 */
    bool multimask;  /**< three masks instead of one */
    bool want_logits; /**< also full-resolution logits f32 */
    um_mask_mode as_numpy;
} um_prompts;

/** What predict() returns. Everything in it is owned by the caller and freed with
 * um_prediction_close(). */
typedef struct um_prediction {
    int count; /**< 1 or 3 */
    um_mask *mask[3];
    float iou[3];   /**< host mode only; NaN in device mode (they stay on the device) */
    float *low_res; /**< host mode: [count,4n,4n] logits; NULL in device mode */
    int low_res_side;
} um_prediction;

/** Encode an image; its embedding stays on the device for any number of predictions. */
UM_API um_status um_segmenter_set_image(um_segmenter *segmenter, const um_image *image);
/** Predict on the last image. UM_EINVAL without an image or prompt, or for a bad box. */
UM_API um_status um_segmenter_predict(um_segmenter *segmenter, const um_prompts *prompts,
                                      um_prediction *out);
UM_API void um_prediction_close(um_prediction *prediction);

/** Keep the named intermediates of every prediction for um_segmenter_dump(); before the first
 * image. Costs memory. */
UM_API um_status um_segmenter_keep_taps(um_segmenter *segmenter);
/** Write the taps of the last prediction as .safetensors: image_embedding, low_res_logits, iou,
 * mask and the named intermediates. */
UM_API um_status um_segmenter_dump(um_segmenter *segmenter, const char *path);

#ifdef __cplusplus
}
#endif
#endif
