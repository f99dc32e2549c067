/* SPDX-License-Identifier: Apache-2.0 */
#include "tell.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 4096 }; /* PIPE_BUF: a pipe that is ready takes as much at once */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long left_out; /* guarded by lock */

static bool ready(int ms)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&p, 1, ms) != 0;
}

/* In place of the progress line, where there is one. Not by stdio, whose lock another may hold. */
static void put(const char *prefix, const char *text)
{
    char line[LINE];
    snprintf(line, sizeof line - 1, "%s%s%s", isatty(STDERR_FILENO) ? "\r\033[K" : "", prefix,
             text);
    size_t n = strlen(line);
    line[n++] = '\n';
    ssize_t done = write(STDERR_FILENO, line, n);
    (void)done;
}

static void put_left_out(void)
{
    char text[64];
    if (!left_out || !ready(0))
        return;
    snprintf(text, sizeof text, "%lu line%s left out here, which nobody read", left_out,
             left_out == 1 ? "" : "s");
    left_out = 0;
    put("ultramotion: ", text);
}

void tell_line(const char *prefix, const char *text)
{
    pthread_mutex_lock(&lock);
    put_left_out();
    if (ready(0))
        put(prefix, text);
    else
        left_out++;
    pthread_mutex_unlock(&lock);
}

void tell(const char *text)
{
    tell_line("ultramotion: ", text);
}

void tell_end(void)
{
    enum { PATIENCE_MS = 1000 };
    int nowhere = ready(PATIENCE_MS) ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0) {
        dup2(nowhere, STDERR_FILENO);
        close(nowhere);
    }
    pthread_mutex_lock(&lock);
    put_left_out();
    pthread_mutex_unlock(&lock);
}
