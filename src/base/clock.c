/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <limits.h>
#include <math.h>
#include <time.h>

uint64_t um_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double um_clock_unix(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int um_clock_ms_until(uint64_t then)
{
    const uint64_t ms = 1000000;
    uint64_t now = um_clock_ns(), left = then > now ? then - now : 0;
    if (then == UINT64_MAX)
        return -1;
    left = left / ms + (left % ms != 0);
    return left < INT_MAX ? (int)left : INT_MAX;
}

bool um_clock_due(uint64_t *next, double hz, uint64_t now)
{
    uint64_t period = (uint64_t)fmin(1e9 / hz, 1e18);
    if (now + period / 2 < *next)
        return false;
    *next = (now < *next + period / 2 ? *next : now) + period;
    return true;
}
