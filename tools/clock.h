/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TOOLS_CLOCK_H
#define UM_TOOLS_CLOCK_H

#include <time.h>

static inline double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of a clock that only goes forward. */
static inline double seconds_now(void)
{
    return clock_seconds(CLOCK_MONOTONIC);
}

/* Since 1970. */
static inline double unix_now(void)
{
    return clock_seconds(CLOCK_REALTIME);
}

#endif
