/* SPDX-License-Identifier: Apache-2.0 */
/* One OpenIGTLink connection, message by message: for tools and tests. Streams are sources and
 * sinks (docs/OPENIGTLINK.md). */
#ifndef ULTRAMOTION_IGTL_H
#define ULTRAMOTION_IGTL_H

#include "ultramotion/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Threads: one at a time. */
typedef struct um_igtl um_igtl;

/** "HOST:PORT" or "igtl://HOST:PORT" connects, ":PORT" waits for a connection (port 0: the system's
 * choice).
 * @return UM_OK; UM_EINVAL; UM_EIO if it cannot listen. There is no connection yet: um_igtl_wait().
 */
UM_API um_status um_igtl_open(um_igtl **out, const char *address);
/** While wake_fd is readable nothing is waited for any more; -1 (so at first): no such. */
UM_API void um_igtl_set_wake(um_igtl *link, int wake_fd);
/** Drop the current connection, if any, and wait for the next one.
 * @return UM_OK: connected; UM_AGAIN: not within the time, or woken; UM_EIO. */
UM_API um_status um_igtl_wait(um_igtl *link, int timeout_ms);
/** The port that it listens on, 0 if it connects. */
UM_API int um_igtl_port(const um_igtl *link);
/**
 * The next message as one JSON object: type, device, version, stamp (16 hexadecimal digits), ts,
 * id, body_bytes, metadata, and what it is about: image, transform, position, status, string,
 * labels or capability. Pixels come as the sha256 of their bytes. `problem` says what is wrong with
 * invalid content, including a wrong CRC or metadata that do not fit.
 * @param json owned by the caller (um_free()).
 * @return UM_OK; UM_AGAIN: none within the time, or woken; UM_EOF: the other side left; UM_EFORMAT:
 * what arrived is not OpenIGTLink; UM_EIO.
 */
UM_API um_status um_igtl_receive(um_igtl *link, int timeout_ms, char **json);
/** Send a frame as IMAGE of this device, stamped with its ts, and its pose, if any, as TRANSFORM
 * "ProbeToReference" before it. Waits for the other side at most 10 s.
 * @return UM_OK; UM_EOF: it left; UM_EIO, also if it was woken. Where that cuts a message off, the
 * connection takes no other (UM_EOF): um_igtl_wait() makes a new one. */
UM_API um_status um_igtl_send_frame(um_igtl *link, const um_frame *frame, const char *device);
/** Send a message of `type`: a STRING with this text, a STATUS OK of version 2 with it, or, for any
 * other type, one without content (a query). @return as um_igtl_send_frame(). */
UM_API um_status um_igtl_send_text(um_igtl *link, const char *type, const char *device,
                                   const char *text);
/** Close and set to NULL; what was sent arrives. Waits for the other side's end at most 0.3 s.
 * Accepts NULL. */
UM_API void um_igtl_close(um_igtl **link);

#ifdef __cplusplus
}
#endif
#endif
