/* SPDX-License-Identifier: Apache-2.0 */
#include "tell.h"

#include "clock.h"
#include "text.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 4096 }; /* PIPE_BUF: a pipe that is ready takes as much at once */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long left_out; /* guarded by lock, as all below */
static double shown;           /* when progress was, 0: there is no such line */

static bool ready(int ms)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&p, 1, ms) != 0;
}

/* In place of the progress line, where there is one. Not by stdio, whose lock another may hold. */
static void put(const char *prefix, const char *text)
{
    char line[LINE], shown_as[TEXT_SHOWN];
    size_t n = (size_t)sprintf(line, "%s%s", isatty(STDERR_FILENO) ? "\r\033[K" : "", prefix);
    for (; *text && n + TEXT_SHOWN < LINE; n += strlen(shown_as)) {
        text += text_show(text, shown_as);
        strcpy(line + n, shown_as);
    }
    line[n++] = '\n';
    ssize_t done = write(STDERR_FILENO, line, n);
    (void)done;
    shown = 0;
}

static void put_left_out(void)
{
    char text[64];
    if (!left_out || !ready(0))
        return;
    snprintf(text, sizeof text, "%lu line%s left out here, which nobody read", left_out,
             plural(left_out));
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

void tell_progress(uint64_t done, long all, const char *more)
{
    char line[160], end[32] = "";
    double now = seconds_now();
    bool last = all > 0 && done >= (uint64_t)all;
    if (all > 0)
        snprintf(end, sizeof end, "/%ld", all);
    pthread_mutex_lock(&lock);
    if ((last || now - shown >= 0.1) && isatty(STDERR_FILENO) && ready(0)) {
        int n = snprintf(line, sizeof line, "%llu%s %s\r", (unsigned long long)done, end, more);
        ssize_t written = write(STDERR_FILENO, line, (size_t)n);
        (void)written;
        shown = now;
    }
    pthread_mutex_unlock(&lock);
}

bool told_before(struct told *t, const char *text)
{
    enum { LAST = sizeof t->text / sizeof *t->text };
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    for (uint64_t i = 0; i < t->n && i < LAST; i++)
        if (t->text[i] == hash)
            return true;
    t->text[t->n++ % LAST] = hash;
    return false;
}

void tell_progress_end(void)
{
    pthread_mutex_lock(&lock);
    if (shown > 0 && ready(0)) {
        ssize_t written = write(STDERR_FILENO, "\n", 1);
        (void)written;
    }
    shown = 0;
    pthread_mutex_unlock(&lock);
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
