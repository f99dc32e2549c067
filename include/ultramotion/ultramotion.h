/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_H
#define ULTRAMOTION_H

#include "ultramotion/array.h"
#include "ultramotion/bench.h"
#include "ultramotion/detector.h"
#include "ultramotion/device.h"
#include "ultramotion/frame.h"
#include "ultramotion/igtl.h"
#include "ultramotion/io.h"
#include "ultramotion/model.h"
#include "ultramotion/packet.h"
#include "ultramotion/pipeline.h"
#include "ultramotion/predictor.h"
#include "ultramotion/run.h"
#include "ultramotion/segmenter.h"
#include "ultramotion/sink.h"
#include "ultramotion/source.h"
#include "ultramotion/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the library, e.g. "0.1.0". */
UM_API const char *um_version(void);
/** Number of the binary interface; equal numbers are compatible. */
UM_API int um_abi(void);

#ifdef __cplusplus
}
#endif
#endif
