/* SPDX-License-Identifier: Apache-2.0 */
#include "stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 1 };

static atomic_bool requested;
static int ends[2] = {-1, -1};
static sigset_t caught;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static um_run *run; /* guarded by lock, as all below */
static um_source *source;
static um_sink **sinks;
static int n_sinks;

static void end_input(void)
{
    um_run_stop(run);
    um_source_cancel(source);
}

/* Another one came: the process ends by it as if nobody had waited for it. */
static void end_at_once(int number)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, SIG_DFL);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void *wait_for_signals(void *ctx)
{
    const struct timespec patience = {.tv_sec = PATIENCE_S};
    int number = 0;
    (void)ctx;
    if (sigwait(&caught, &number) != 0)
        return NULL;
    if (atomic_exchange(&requested, true))
        end_at_once(number);
    pthread_mutex_lock(&lock);
    end_input();
    pthread_mutex_unlock(&lock);
    number = sigtimedwait(&caught, NULL, &patience);
    if (number > 0)
        end_at_once(number);
    ssize_t n = write(ends[1], "", 1);
    (void)n;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_sinks; i++)
        um_sink_cancel(sinks[i]);
    pthread_mutex_unlock(&lock);
    if (sigwait(&caught, &number) == 0)
        end_at_once(number);
    return NULL;
}

/* All threads leave the signals to one that waits for them: no call is interrupted, and what they
 * end cannot be closed meanwhile. */
void stop_catch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction was;
    pthread_t thread;
    sigemptyset(&caught);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaddset(&caught, signals[i]);
    pthread_sigmask(SIG_BLOCK, &caught, NULL);
    if (pipe(ends) == 0 && pthread_create(&thread, NULL, wait_for_signals, NULL) == 0)
        pthread_detach(thread);
    else /* then the first one ends it at once */
        pthread_sigmask(SIG_UNBLOCK, &caught, NULL);
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
    pthread_mutex_lock(&lock);
    run = r;
    if (requested)
        end_input();
    pthread_mutex_unlock(&lock);
}

void stop_ends_source(um_source *s)
{
    pthread_mutex_lock(&lock);
    source = s;
    if (requested)
        end_input();
    pthread_mutex_unlock(&lock);
}

int stop_fd(void)
{
    return ends[0];
}

void stop_ends_sinks(um_sink **s, int n)
{
    pthread_mutex_lock(&lock);
    sinks = s;
    n_sinks = n;
    pthread_mutex_unlock(&lock);
}
