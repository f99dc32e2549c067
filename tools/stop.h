/* SPDX-License-Identifier: Apache-2.0 */
/* The first SIGINT, SIGTERM or SIGHUP ends a command gracefully, the second one at once. */
#ifndef UM_STOP_H
#define UM_STOP_H

#include "ultramotion/ultramotion.h"

#include <stdbool.h>

/* From now on. A signal that was ignored at the start (nohup) stays ignored. */
void stop_catch(void);
bool stop_requested(void);
void stop_request(void);
/* What the first signal ends: it is told at once if that has come already. NULL before closing. */
void stop_ends_run(um_run *run);
void stop_ends_source(um_source *source);
/* Readable a second after the first signal: who still waits for a reader then goes. */
int stop_fd(void);
/* The same for sinks that no run writes. */
void stop_ends_sinks(um_sink **sinks, int n);

#endif
