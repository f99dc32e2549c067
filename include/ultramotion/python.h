/* SPDX-License-Identifier: Apache-2.0 */
/* For the package `ultramotion` of Python: what it does once per frame, in C. */
#ifndef ULTRAMOTION_PYTHON_H
#define ULTRAMOTION_PYTHON_H

#include "ultramotion/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { UM_PYTHON_TYPES = 2 };

/**
 * Make the types that the package's `Packet` and `Pipeline` are derived from; src/python/call.c has
 * their methods. After a frame nothing of the interpreter is left in the caches, and each step that
 * Python itself takes costs microseconds.
 *
 * @param view  called with a packet's address, returns what Python sees of its fields; kept
 * forever.
 * @param types receives new references [UM_PYTHON_TYPES], of a packet and of a pipeline; none on
 *              error.
 * @return UM_OK; UM_EUNSUPPORTED in a process without Python 3.10 or newer, with the name of what
 * is missing; UM_EINVAL for NULL, and where Python refused, with its exception set. Threads: one
 * that holds the interpreter's lock.
 */
UM_API um_status um_python_types(void *view, void **types);

/**
 * Pass a line to a Python function: for whatever has a `void (*)(void *ctx, const char *line)`,
 * with the function as ctx. A signal is answered when Python is called, so here: what its handler
 * raises, and what else the function raises, is kept for the call that this thread is in.
 *
 * @param function  borrowed; called with the line as text. Without one, or without a line, nothing
 *                  happens.
 * Threads: any; on one that is not Python's an exception is reported through sys.unraisablehook.
 */
UM_API void um_python_say(void *function, const char *line);

/** Set the exception that um_python_say() kept for this thread, if there is one. Threads: one that
 * holds the interpreter's lock. */
UM_API void um_python_raise(void);

#ifdef __cplusplus
}
#endif
#endif
