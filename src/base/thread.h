/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_THREAD_H
#define UM_BASE_THREAD_H

#include "base/status.h"

#include <pthread.h>

/* Start a thread that leaves the host program's signals to the host program's threads. `what` is
 * for the message. */
um_status um_thread_start(pthread_t *thread, void *(*run)(void *ctx), void *ctx, const char *what);

#endif
