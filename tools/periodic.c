/* SPDX-License-Identifier: Apache-2.0 */
#include "periodic.h"

#include "clock.h"
#include "kpi.h"
#include "tell.h"

#include <stdio.h>
#include <time.h>

/* False: it is to end. */
static bool wait_until(struct periodic *p, double when)
{
    struct timespec t = {.tv_sec = (time_t)when};
    t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
    pthread_mutex_lock(&p->lock);
    while (!p->ending && seconds_now() < when)
        pthread_cond_timedwait(&p->changed, &p->lock, &t);
    bool ending = p->ending;
    pthread_mutex_unlock(&p->lock);
    return !ending;
}

static void see_stall(void *ctx, int part, const char *why)
{
    struct periodic *p = ctx;
    char text[300];
    uint64_t bit = UINT64_C(1) << part;
    p->seen |= bit;
    if (p->stalled & bit)
        return;
    snprintf(text, sizeof text, "stalled: %s", why);
    tell(text);
}

/* A stall is told when it is seen, and not again while it lasts. */
static void watch(struct periodic *p)
{
    static const double LIMIT_S = 0.7;
    p->seen = 0;
    um_monitor_stalls(p->monitor, LIMIT_S, see_stall, p);
    p->stalled = p->seen;
}

static void *speak(void *ctx)
{
    static const double WATCH_S = 0.25, KPI_S = 1, NEVER = 1e18;
    struct periodic *p = ctx;
    double begin = seconds_now(), period[3] = {p->summary_s, KPI_S, WATCH_S},
           next[3] = {p->summary_s > 0 ? begin + p->summary_s : NEVER,
                      p->kpi ? begin + KPI_S : NEVER, p->watch ? begin + WATCH_S : NEVER};
    for (;;) {
        int k = next[1] < next[0] ? 1 : 0;
        k = next[2] < next[k] ? 2 : k;
        if (!wait_until(p, next[k]))
            return NULL;
        double now = seconds_now(), then = next[k] + period[k];
        next[k] = then > now ? then : now + period[k]; /* a pause is not made up for */
        if (k == 0) {
            char text[512];
            um_monitor_line(p->monitor, text, sizeof text);
            tell(text);
        } else if (k == 1) {
            um_monitor_kpi(p->monitor, kpi_line, NULL);
        } else {
            watch(p);
        }
    }
}

um_status periodic_start(struct periodic *p, um_monitor *monitor, double summary_s, bool kpi,
                         bool watch_it)
{
    pthread_condattr_t monotonic;
    *p = (struct periodic){
        .monitor = monitor, .summary_s = summary_s, .kpi = kpi, .watch = watch_it};
    if (summary_s <= 0 && !kpi && !watch_it)
        return UM_OK;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    p->started = pthread_create(&p->thread, NULL, speak, p) == 0;
    return p->started ? UM_OK : um_set_error(UM_ENOMEM, "no thread for --summary-every and --kpi");
}

void periodic_stop(struct periodic *p)
{
    if (!p->started)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    p->started = false;
    if (p->kpi)
        um_monitor_kpi(p->monitor, kpi_line, NULL);
}
