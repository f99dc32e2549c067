/* SPDX-License-Identifier: Apache-2.0 */
#include "stop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

enum { PATIENCE_S = 1 };

/* The library's threads leave signals to this program's only one: handlers interrupt it, and run
 * beside nobody. */
static atomic_bool requested;
static _Atomic(um_run *) run;
static _Atomic(um_source *) source;
static _Atomic(um_sink **) sinks;
static atomic_int n_sinks;
static int ends[2] = {-1, -1};

static void tell(void)
{
    um_run_stop(run);
    um_source_cancel(source);
}

static void on_signal(int sig)
{
    int saved = errno;
    if (requested) { /* it ends as if nobody had caught it, when this returns */
        signal(sig, SIG_DFL);
        raise(sig);
    } else {
        requested = true;
        tell();
        alarm(PATIENCE_S);
    }
    errno = saved;
}

static void on_alarm(int sig)
{
    (void)sig;
    int saved = errno;
    ssize_t n = write(ends[1], "", 1);
    (void)n;
    for (int i = 0; i < n_sinks; i++)
        um_sink_cancel(sinks[i]);
    errno = saved;
}

void stop_catch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, old;
    if (pipe(ends) == 0)
        for (int i = 0; i < 2; i++)
            fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        sigaddset(&act.sa_mask, signals[i]);
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &act, NULL);
    }
    act.sa_handler = on_alarm;
    sigaction(SIGALRM, &act, NULL);
}

bool stop_requested(void)
{
    return requested;
}

void stop_request(void)
{
    requested = true;
}

void stop_ends_run(um_run *r)
{
    run = r;
    if (requested)
        tell();
}

void stop_ends_source(um_source *s)
{
    source = s;
    if (requested)
        tell();
}

int stop_fd(void)
{
    return ends[0];
}

void stop_ends_sinks(um_sink **s, int n)
{
    n_sinks = 0;
    sinks = s;
    n_sinks = n;
}
