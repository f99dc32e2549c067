/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_H
#define ULTRAMOTION_H

#include "ultramotion/bench.h"
#include "ultramotion/detector.h"
#include "ultramotion/device.h"
#include "ultramotion/dlpack.h"
#include "ultramotion/frame.h"
#include "ultramotion/igtl.h"
#include "ultramotion/io.h"
#include "ultramotion/model.h"
#include "ultramotion/monitor.h"
#include "ultramotion/packet.h"
#include "ultramotion/pipeline.h"
#include "ultramotion/predictor.h"
#include "ultramotion/python.h"
#include "ultramotion/run.h"
#include "ultramotion/segmenter.h"
#include "ultramotion/sink.h"
#include "ultramotion/source.h"
#include "ultramotion/status.h"
#include "ultramotion/values.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every function takes NULL. For a NULL handle, those that return a status return UM_EINVAL, the
 * others 0, NULL or "", unless they say otherwise. */

/** Version of the library, e.g. "0.1.0". */
UM_API const char *um_version(void);
/** Number of the binary interface; equal numbers are compatible. */
UM_API int um_abi(void);

/** A fact of the binary interface, as the compiler of this library sees it. */
typedef struct um_layout {
    const char *record; /**< a struct, or "" for a constant */
    const char *field;  /**< of the struct, or "" for all of it; or the constant's name */
    long offset;        /**< of the field in bytes; or the constant's value */
    size_t size;        /**< of the field or the struct; 0 for a constant */
} um_layout;
/** All structs with their fields, and all constants: for bindings that repeat the headers in
 * another language and want to verify them. @param count how many there are. */
UM_API const um_layout *um_abi_layout(size_t *count);

#ifdef __cplusplus
}
#endif
#endif
