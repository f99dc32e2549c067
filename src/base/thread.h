/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_THREAD_H
#define UM_BASE_THREAD_H

#include "base/status.h"

#include <pthread.h>

/* Start a thread that leaves the host program's signals to the host program's threads. `what` is
 * for the message. */
um_status um_thread_start(pthread_t *thread, void *(*run)(void *ctx), void *ctx, const char *what);

/* A lock under which a user's function is called: who comes from there is told so and does not wait
 * for himself. */
void um_turn_init(pthread_mutex_t *turn);
/* Wait for a turn. UM_EINVAL: this thread has it; `call` and `whose` ("this pipeline") are for the
 * message. */
um_status um_turn_take(pthread_mutex_t *turn, const char *call, const char *whose);

#endif
