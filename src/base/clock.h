/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_CLOCK_H
#define UM_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

uint64_t um_clock_ns(void); /* monotonic */
double um_clock_unix(void); /* seconds since 1970 */
/* For poll(): milliseconds until um_clock_ns() is `then`, rounded up; 0 = it is, -1 = UINT64_MAX,
 * which is never. */
int um_clock_ms_until(uint64_t then);
/* Of what comes at any time, is this one of at most `hz` a second? The mean is kept, because each
 * may be half a period early or late on `next`, a schedule that begins with 0; a pause gives no
 * right to more. */
bool um_clock_due(uint64_t *next, double hz, uint64_t now);

#endif
