/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_STATUS_H
#define ULTRAMOTION_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define UM_API __attribute__((visibility("default")))
#else
#define UM_API
#endif

/** Result of every call that can fail: 0 is success, positive an ordinary event, negative an error.
 */
typedef enum um_status {
    UM_OK = 0,
    UM_AGAIN = 1,         /**< nothing to deliver yet: call again after sending more */
    UM_EOF = 2,           /**< the stream has ended */
    UM_EINVAL = -1,       /**< invalid argument from the caller */
    UM_ENOMEM = -2,       /**< host or device memory ran out */
    UM_EIO = -3,          /**< a file or stream could not be read or written */
    UM_EFORMAT = -4,      /**< the content of a file is invalid */
    UM_EDEVICE = -5,      /**< the device failed; from now on only close is useful */
    UM_EUNSUPPORTED = -6, /**< valid, but not in this build */
    UM_EASSERT = -7,      /**< an assertion asked for by the caller did not hold */
    UM_ENUMERIC = -8      /**< a network's result is not finite; the next frame may be right */
} um_status;

/**
 * Text of the last error on the calling thread: what, where, expected and found. Calls that succeed
 * (UM_OK, UM_AGAIN, UM_EOF) may or may not overwrite it: it is meaningful only directly after an
 * error.
 *
 * @return a string owned by the library, valid until the next call on this thread; "" if nothing
 * failed yet. Threads: every thread has its own text.
 */
UM_API const char *um_last_error(void);

/** Set the text of um_last_error() on the calling thread and return `status`: for functions that a
 * program hands to the library. Threads: any. */
UM_API um_status um_set_error(um_status status, const char *text);

/** Free memory that a function of this library gave to the caller to free. Accepts NULL.
 * Threads: any. */
UM_API void um_free(void *memory);

/** Name of a status, e.g. "UM_EFORMAT". Never NULL. Threads: any. */
UM_API const char *um_status_name(um_status status);

#ifdef __cplusplus
}
#endif
#endif
