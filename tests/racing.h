/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the thread sanitizer tells of what two threads do without order: tried in a child, which
 * keeps the report to itself. Only where it is there (SEES_RACES). */
#ifndef UM_TEST_RACING_H
#define UM_TEST_RACING_H

#include "base/races.h"

#if UM_RACES
#define SEES_RACES 1
#include "child.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_int racing_reports;

void __tsan_on_report(void *report);
void __tsan_on_report(void *report)
{
    (void)report;
    atomic_fetch_add(&racing_reports, 1);
}

struct racing {
    void *(*one)(void *ctx); /* what each of the two does */
    void *ctx;
};

static int racing_child(void *ctx)
{
    const struct racing *r = ctx;
    pthread_t thread[2];
    if (!freopen("/dev/null", "w", stderr))
        return 2;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread[i], NULL, r->one, r->ctx) != 0)
            return 2;
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    return atomic_load(&racing_reports) > 0;
}

/* 1: it tells, 0: it does not. */
static int racing_is_told(void *(*one)(void *ctx), void *ctx)
{
    struct racing r = {one, ctx};
    return child_run(racing_child, &r);
}
#endif

#endif
