/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_DETECTOR_H
#define ULTRAMOTION_DETECTOR_H

#include "ultramotion/device.h"
#include "ultramotion/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A D-FINE network on a device: immutable weights, shared by any number of pipelines and threads.
 * Reference counted: a pipeline of it has a reference, it has one to its device, so that they may
 * be closed in any order. Threads: any, unless a function says otherwise. */
typedef struct um_detector um_detector;

/** One detection, in pixels of the frame; the box is not clamped to the image. */
typedef struct um_box {
    float x0, y0, x1, y1;
    float score; /**< 0..1 */
    int label;   /**< class index */
} um_box;

/** What the file does not say, or is not to decide. Initialise with um_detector_settings_default():
 * all as the file says. */
typedef struct um_detector_settings {
    size_t struct_size;
    int input_width, input_height; /**< of the input, multiples of 32; 0 = the file's: its metadata,
                                      else its anchors, else 640 */
    int queries;                   /**< 0 = the file's, else 300 */
    const char *activation;        /**< of the decoder: "auto", "relu" (D-FINE) or "silu" (DEIM) */
    const char *fit;   /**< of images into the input: "auto", "stretch" or "letterbox": as large as
                          fits, centred, black around */
    const char *names; /**< a text file with one name per class and line; or NULL */
    const char *gain;  /**< of the images: "off", "auto" (0.5 % of the pixels become white) or "G"
                          (times G), the latter two optionally followed by ",GAMMA" (docs/FRAME.md);
                          NULL = as the file says, else off */
    float nms;         /**< a box whose IoU with a better one of its class is above this is dropped,
                          in um_detector_run() and where a pipeline picks its objects; 1 = none is,
                          as upstream; 0 = as the file says, else 1 */
    const char *presence; /**< "K[,P]", of a pipeline of one object: a frame's score is the
                             probability that one of the K best boxes of a class is right, 1 - (1 -
                             s1)(1 - s2)..., as if each were independent of the others, scaled such
                             that P (0.5 by default) becomes 0.5; "1" = the best box's own score, as
                             upstream; NULL = as the file says, else "1" */
    int gray;     /**< 1: colours become gray before the networks see them, of a pipeline both
                     (um_frame_gray()): for networks trained on gray images, which miss what a scanner
                     tints or draws over; -1: they stay; 0 = as the file says, else they stay */
    float smooth; /**< the triangle that resizes images into the input reaches at least so many of
                     its pixels to both sides, 1 to 8: above 1 it takes away noise and enhanced
                     edges; 1 = Pillow's bilinear, as upstream; 0 = as the file says, else 1 */
} um_detector_settings;
UM_API void um_detector_settings_init(um_detector_settings *s, size_t struct_size);
#define um_detector_settings_default(s) um_detector_settings_init((s), sizeof *(s))

/**
 * Load a D-FINE checkpoint (.pt, .pth, .safetensors, or a Hugging Face folder; its sizes are
 * derived from its tensors) and put it on a device. A Hugging Face config.json beside the file is
 * honoured.
 *
 * @param out      receives the detector or NULL.
 * @param settings NULL = defaults.
 * @return UM_OK; UM_EIO, UM_EFORMAT (not a D-FINE file; a tensor missing or of the wrong shape,
 * named), UM_EINVAL (a setting), UM_EUNSUPPORTED (a config.json that asks for something not
 * implemented here), UM_ENOMEM.
 */
UM_API um_status um_detector_open(um_detector **out, um_device *device, const char *path,
                                  const um_detector_settings *settings);
/** The same from a file's bytes in memory, which are no longer needed when it returns. @param label
 * its name in messages. */
UM_API um_status um_detector_open_memory(um_detector **out, um_device *device, const void *data,
                                         size_t size, const char *label,
                                         const um_detector_settings *settings);
/** Add a reference and return the detector. Threads: any. */
UM_API um_detector *um_detector_ref(um_detector *detector);
/** Drop a reference and set *detector to NULL; the last one closes it. Accepts NULL. Threads: any.
 */
UM_API void um_detector_close(um_detector **detector);

/** Number of classes. */
UM_API int um_detector_classes(const um_detector *detector);
/** Name of a class (of the text file in the settings, else of the file's metadata or config.json),
 * or NULL. Valid until close. */
UM_API const char *um_detector_class_name(const um_detector *detector, int label);
/** Side of the square input in pixels; the width if it is not square. */
UM_API int um_detector_input_size(const um_detector *detector);
/** Size of the input in pixels; either may be NULL. */
UM_API void um_detector_input(const um_detector *detector, int *width, int *height);
/** Number of queries, the most boxes there can be. */
UM_API int um_detector_queries(const um_detector *detector);
/** What the user of this file should know, or NULL. A static string. */
UM_API const char *um_detector_warning(const um_detector *detector);
/** "dfine-n" … "dfine-x", or "dfine" for other sizes. Valid until close. */
UM_API const char *um_detector_architecture(const um_detector *detector);
/** SHA-256 of the file, 64 hex digits. Valid until close. */
UM_API const char *um_detector_sha256(const um_detector *detector);
/** The device it was opened on. */
UM_API um_device *um_detector_device(const um_detector *detector);

/**
 * Detect in one frame; blocks until done.
 *
 * @param boxes  receives the pairs of a query and a class with score >= conf, best first: at most
 * `capacity`, and at most as many as the network has queries, as upstream.
 * @param count  receives how many were written.
 * @return UM_OK (also for none); UM_EINVAL; UM_ENUMERIC; UM_EDEVICE.
 * Threads: any; calls on one detector take turns.
 */
UM_API um_status um_detector_run(um_detector *detector, const um_frame *frame, float conf,
                                 um_box *boxes, int capacity, int *count);

/** Keep the named intermediates of every frame for um_detector_dump(); before the first frame.
 * Costs memory. */
UM_API um_status um_detector_keep_taps(um_detector *detector);
/** Write the taps of the last frame as .safetensors: pred_logits [1,Q,C], pred_boxes [1,Q,4] and
 * the named intermediates. */
UM_API um_status um_detector_dump(um_detector *detector, const char *path);

#ifdef __cplusplus
}
#endif
#endif
