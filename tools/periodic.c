/* SPDX-License-Identifier: Apache-2.0 */
#include "periodic.h"

#include "kpi.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* False: it is to end. */
static bool wait_until(struct periodic *p, double when)
{
    struct timespec t = {.tv_sec = (time_t)when};
    t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
    pthread_mutex_lock(&p->lock);
    while (!p->ending && now_s() < when)
        pthread_cond_timedwait(&p->changed, &p->lock, &t);
    bool ending = p->ending;
    pthread_mutex_unlock(&p->lock);
    return !ending;
}

static void *speak(void *ctx)
{
    static const double KPI_S = 1;
    struct periodic *p = ctx;
    double begin = now_s(), summary = begin + p->summary_s, kpi = begin + KPI_S;
    for (;;) {
        bool first_summary = p->summary_s > 0 && (!p->kpi || summary <= kpi);
        if (!wait_until(p, first_summary ? summary : kpi))
            return NULL;
        if (first_summary) {
            char text[512];
            um_monitor_line(p->monitor, text, sizeof text);
            fprintf(stderr, "%sultramotion: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", text);
            summary += p->summary_s;
        } else {
            um_monitor_kpi(p->monitor, kpi_line, NULL);
            kpi += KPI_S;
        }
    }
}

um_status periodic_start(struct periodic *p, um_monitor *monitor, double summary_s, bool kpi)
{
    pthread_condattr_t monotonic;
    *p = (struct periodic){.monitor = monitor, .summary_s = summary_s, .kpi = kpi};
    if (summary_s <= 0 && !kpi)
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
}
