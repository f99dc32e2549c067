/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_SEGMENTER_H
#define ULTRAMOTION_SEGMENTER_H

#include "ultramotion/device.h"
#include "ultramotion/frame.h"
#include "ultramotion/values.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A network of SAM's families on a device (docs/MODELS.md): immutable weights, shared by any
 * number of predictors, pipelines and threads. Reference counted: a predictor or pipeline of it has
 * a reference, it has one to its device, so that they may be closed in any order. Threads: any,
 * unless a function says otherwise. */
typedef struct um_segmenter um_segmenter;

/** Where a mask lives: booleans, [1,1,H,W] on the device, [H,W] on the host. AUTO asks
 * um_segmenter_set_mask_mode(), then the environment ULTRAMOTION_SAM_AS_NUMPY, then means DEVICE.
 */
typedef enum um_mask_mode { UM_MASK_AUTO = 0, UM_MASK_DEVICE = 1, UM_MASK_HOST = 2 } um_mask_mode;

/**
 * Load a checkpoint of SAM's families and put it on a device.
 *
 * @param canvas  side S of the square canvas, a multiple of 16; 0 = the file's metadata, else
 * upstream's: 1024, of LiteMedSAM 256.
 * @param family  of a checkpoint that cannot tell it, and whose metadata "architecture" does not:
 * "mobile-sam", "tiny-sam", "lite-medsam", "sam-vit", "medsam-vit"; NULL = what the file says.
 * UM_EINVAL if its tensors are another's.
 * @return UM_OK; UM_EIO, UM_EFORMAT, UM_EINVAL, UM_ENOMEM.
 */
UM_API um_status um_segmenter_open(um_segmenter **out, um_device *device, const char *path,
                                   int canvas, const char *family);
/** The same from a file's bytes in memory, which are no longer needed when it returns. @param label
 * its name in messages. */
UM_API um_status um_segmenter_open_memory(um_segmenter **out, um_device *device, const void *data,
                                          size_t size, const char *label, int canvas,
                                          const char *family);
/** Add a reference and return the segmenter. Threads: any. */
UM_API um_segmenter *um_segmenter_ref(um_segmenter *segmenter);
/** Drop a reference and set *segmenter to NULL; the last one closes it. Accepts NULL. Threads: any.
 */
UM_API void um_segmenter_close(um_segmenter **segmenter);
/** Side S of the square canvas. */
UM_API int um_segmenter_canvas(const um_segmenter *segmenter);
/** The network's windows tile canvases that are multiples of this exactly: 224 for MobileSAM and
 * TinySAM, 56 for LiteMedSAM. At others the last windows reach beyond the map, which costs
 * up to 5 % (docs/SPEED.md). 0: the network has one canvas. */
UM_API int um_segmenter_canvas_step(const um_segmenter *segmenter);
/** "mobile-sam", "tiny-sam", "lite-medsam", "sam-vit-b", "medsam-vit-b", … Valid until close. */
UM_API const char *um_segmenter_architecture(const um_segmenter *segmenter);
/** SHA-256 of the file, 64 hex digits. Valid until close. */
UM_API const char *um_segmenter_sha256(const um_segmenter *segmenter);
/** The device it was opened on. */
UM_API um_device *um_segmenter_device(const um_segmenter *segmenter);
/** What UM_MASK_AUTO means for this segmenter: UM_MASK_DEVICE or UM_MASK_HOST; UM_MASK_AUTO = ask
 * the environment (default). */
UM_API void um_segmenter_set_mask_mode(um_segmenter *segmenter, um_mask_mode mode);
/** What the argument of a call resolves to, UM_MASK_DEVICE or UM_MASK_HOST. @return UM_OK;
 * UM_EINVAL for an invalid mode, also in the environment. */
UM_API um_status um_segmenter_mask_mode(const um_segmenter *segmenter, um_mask_mode as_numpy,
                                        um_mask_mode *out);
/** Where the KPI line of each prediction goes: called with one JSON object, no newline, on the
 * thread that predicts, which waits for it: one-shot calls of this segmenter from there are
 * UM_EINVAL. It is called as long as predictors are open, also after um_segmenter_close(). NULL:
 * nowhere (default). */
UM_API void um_segmenter_set_kpi(um_segmenter *segmenter,
                                 void (*write)(void *ctx, const char *line), void *ctx);

/** Pixels as a caller has them: u8 0..255 or f32 0..1 (f32 is clipped, times 255,
 * truncated, NaN is 0; below -0.75, as -1..1 is, and above 2 it is UM_EINVAL). */
typedef enum um_image_type { UM_IMAGE_U8, UM_IMAGE_F32 } um_image_type;
typedef enum um_image_layout { UM_IMAGE_HW, UM_IMAGE_HWC, UM_IMAGE_CHW } um_image_layout;

typedef struct um_image {
    size_t struct_size;
    const void *data; /**< an address on `device` */
    um_image_type type;
    um_image_layout layout;      /**< CHW also for NCHW with N = 1 */
    int height, width, channels; /**< channels 1 or 3 */
    const char *device;  /**< where the pixels are: NULL or "cpu" = host memory, or the segmenter's
                            device (u8 HW or HWC only); another is UM_EINVAL, naming both */
    ptrdiff_t row_bytes; /**< from one row to the next: at least what a row has and, of floats, a
                            multiple of 4; in host memory also negative, with data at the last
                            row in memory, the image's first; 0 = contiguous */
    void *stream; /**< on a GPU: the CUstream in whose order the pixels become available, and which
                     waits until they were read; NULL: they are available, and stay valid until a
                     result is */
} um_image;
/** A frame of its own memory with what an image in host memory shows.
 *
 * @return UM_OK; UM_EINVAL for what is no image, or is elsewhere; UM_ENOMEM. Threads: any. */
UM_API um_status um_frame_from_image(um_frame **out, const um_image *image);

/**
 * Put a host mask on the segmenter's device as a boolean mask [1,1,H,W]: value > 0.5. For masks a
 * caller or another predictor made.
 * @param values f32 [height*width]
 */
UM_API um_status um_mask_from_host(um_values **out, um_segmenter *segmenter, const float *values,
                                   int height, int width);

/**
 * Segment one image with a box prompt (R1). Same names, arguments and defaults in Python.
 *
 * @param segmenter  NULL: *out = NULL and UM_OK.
 * @param image      NULL: *out = NULL and UM_OK.
 * @param bbox_xyxy  4 numbers in pixels, or NULL: the whole image. NaN, inverted or not touching
 * the image: UM_EINVAL.
 * @param as_numpy   where the mask should be; UM_MASK_AUTO by default.
 * @param out        receives the mask, one reference for the caller.
 * Threads: any; such calls on one segmenter take turns.
 */
UM_API um_status um_run_segmentation(um_segmenter *segmenter, const um_image *image,
                                     const float *bbox_xyxy, um_mask_mode as_numpy,
                                     um_values **out);
/** The legacy call: like um_run_segmentation() on a region of interest without box; UM_MASK_AUTO
 * means UM_MASK_HOST only by rollback. */
UM_API um_status um_run_segmentation_legacy(um_segmenter *segmenter, const um_image *roi,
                                            um_mask_mode as_numpy, um_values **out);

#ifdef __cplusplus
}
#endif
#endif
