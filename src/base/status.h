/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_STATUS_H
#define UM_BASE_STATUS_H

#include "ultramotion/status.h"

#if defined(__GNUC__)
#define UM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define UM_PRINTF(fmt, args)
#endif

/* Of an error text, with its end. */
enum { UM_ERROR_BYTES = 1024 };

/* Record the error text of this thread (printf style) and return `status`. Called once, at the
 * place that knows. UM_ENOMEM puts "out of memory: " in front if it is not there: say what for.
 * Control characters, which file names and files may bring, become \\xNN; the decimal point is a
 * point. */
um_status um_fail(um_status status, const char *fmt, ...) UM_PRINTF(2, 3);

/* Put "prefix: " in front of the recorded text and return `status` unchanged: for callers that know
 * the file or frame. */
um_status um_fail_in(um_status status, const char *prefix);

#endif
