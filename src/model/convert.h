/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_MODEL_CONVERT_H
#define UM_MODEL_CONVERT_H

#include "base/status.h"
#include "ultramotion/model.h"

/* May the model in `path` be converted to `out`? UM_EINVAL: it is the input, or is called like
 * files of another kind, or the precision is none. */
um_status um_convert_check(const char *path, const char *out, const um_convert_settings *s);

#endif
