/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

um_status um_thread_start(pthread_t *thread, void *(*run)(void *ctx), void *ctx, const char *what)
{
    /* what a thread does itself stays its own; SIGPIPE is not among it: a write then says EPIPE */
    static const int own[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, SIGPROF};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int error = pthread_create(thread, NULL, run, ctx);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        return UM_OK;
    return um_fail(UM_ENOMEM, "a thread for %s: %s%s", what, strerror(error),
                   error == EAGAIN ? ": or the limit of processes is reached (ulimit -u, pids.max)"
                                   : "");
}

void um_turn_init(pthread_mutex_t *turn)
{
    pthread_mutexattr_t checked;
    pthread_mutexattr_init(&checked);
    pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(turn, &checked);
    pthread_mutexattr_destroy(&checked);
}

um_status um_turn_take(pthread_mutex_t *turn, const char *call, const char *whose)
{
    if (pthread_mutex_lock(turn) == EDEADLK)
        return um_fail(UM_EINVAL, "%s: called by the kpi function of %s, which waits for that",
                       call, whose);
    return UM_OK;
}
