/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that wake poll(): how a thread that waits for something outside is told that it need
 * not any more. */
#ifndef UM_BASE_WAKE_H
#define UM_BASE_WAKE_H

#include "base/status.h"

#include <stdbool.h>

/* *fd is -1 on error. `what` is for the message. */
um_status um_wake_open(int *fd, const char *what);
void um_wake_close(int *fd); /* accepts -1 */
/* Make it readable until it is cleared. Any thread, and signal handlers. Accepts -1: nobody waits.
 */
void um_wake_set(int fd);
void um_wake_clear(int fd);
/* Wait until it is readable: false after `ms` (-1 = never). */
bool um_wake_wait(int fd, int ms);
/* Wait until `fd` has one of `events` of poll() or an error: false if `wake` (-1 = none) became
 * readable and `fd` did not, or after `ms`. */
bool um_wake_poll(int fd, short events, int wake, int ms);

#endif
