/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_DETECTOR_H
#define ULTRAMOTION_DETECTOR_H

#include "ultramotion/device.h"
#include "ultramotion/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A D-FINE network on a device: immutable weights, shared by any number of pipelines and threads.
 * Threads: any, unless a function says otherwise; open and close are the owner's. */
typedef struct um_detector um_detector;

/** One detection, in pixels of the frame; the box is not clamped to the picture. */
typedef struct um_box {
    float x0, y0, x1, y1;
    float score; /**< 0..1 */
    int label;   /**< class index */
} um_box;

/**
 * Load a D-FINE checkpoint (.pt, .pth, .safetensors; N, S, M, L, X by its tensors) and put it on a
 * device.
 *
 * @param out    receives the detector or NULL; close it before the device.
 * @param input_size  side of the square input in pixels, a multiple of 32; 0 = the file's metadata,
 * else its anchors, else 640.
 * @return UM_OK; UM_EIO, UM_EFORMAT (not a D-FINE file; a tensor missing or of the wrong shape,
 * named), UM_EINVAL (size), UM_ENOMEM.
 */
UM_API um_status um_detector_open(um_detector **out, um_device *device, const char *path,
                                  int input_size);
/** The same from a file's bytes in memory, which are needed no more when it returns. @param label
 * its name in messages. */
UM_API um_status um_detector_open_memory(um_detector **out, um_device *device, const void *data,
                                         size_t size, const char *label, int input_size);
/** Close and set to NULL. Accepts NULL. */
UM_API void um_detector_close(um_detector **detector);

/** Number of classes. */
UM_API int um_detector_classes(const um_detector *detector);
/** Name of a class (metadata "classes" of the file: names separated by commas), or NULL. Valid
 * until close. */
UM_API const char *um_detector_class_name(const um_detector *detector, int label);
/** Side of the square input in pixels. */
UM_API int um_detector_input_size(const um_detector *detector);
/** "dfine-n" … "dfine-x". Valid until close. */
UM_API const char *um_detector_architecture(const um_detector *detector);
/** SHA-256 of the file, 64 hex digits. Valid until close. */
UM_API const char *um_detector_sha256(const um_detector *detector);
/** The device it was opened on. */
UM_API um_device *um_detector_device(const um_detector *detector);

/**
 * Detect in one frame; blocks until done.
 *
 * @param boxes  receives the pairs of a query and a class with score >= conf, best first: at most
 * `capacity`, and at most as many as the network has queries (300), as upstream.
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
