/* SPDX-License-Identifier: Apache-2.0 */
/* The preconditions of the device layer, each written once. `fn` is the function that asks, for the
 * message; UM_EINVAL, or UM_EDEVICE on a lost device. */
#ifndef UM_DEVICE_CHECK_H
#define UM_DEVICE_CHECK_H

#include "device/backend.h"

um_status um_check_device(const char *fn, const um_device *dev);
um_status um_check_idle(const char *fn, const um_device *dev); /* and no capture is going on */
um_status um_check_queue(const char *fn, const um_device *dev, enum um_queue q);
um_status um_check_buf(const char *fn, const um_device *dev, const um_buf *buf, size_t off,
                       size_t n);
um_status um_check_host(const char *fn, const um_device *dev, const um_hostbuf *buf, size_t off,
                        size_t n);
um_status um_check_event(const char *fn, const um_device *dev, const um_event *event);
um_status um_check_stage(const char *fn, enum um_stage stage, const char *reason);
/* In a capture, a queue other than the main one takes part from its first wait for an event of the
 * capture. */
um_status um_check_forked(const char *fn, const um_device *dev, enum um_queue q);
um_status um_check_step(const um_device *dev, const struct um_step *step);

#endif
