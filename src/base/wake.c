/* SPDX-License-Identifier: Apache-2.0 */
#include "base/wake.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

um_status um_wake_open(int *fd, const char *what)
{
    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (*fd >= 0 && *fd <= STDERR_FILENO) { /* a program closed that: nothing is to write there */
        int low = *fd;
        *fd = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        close(low);
    }
    return *fd >= 0 ? UM_OK : um_fail(UM_EIO, "%s: no descriptor: %s", what, strerror(errno));
}

void um_wake_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void um_wake_set(int fd)
{
    const uint64_t one = 1;
    if (fd < 0)
        return;
    int saved = errno; /* a signal handler must not change it */
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* it fails only where it is readable already */
    errno = saved;
}

void um_wake_clear(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n;
}

bool um_wake_wait(int fd, int ms)
{
    return um_wake_poll(fd, POLLIN, -1, ms);
}

bool um_wake_poll(int fd, short events, int wake, int ms)
{
    struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = wake, .events = POLLIN}};
    const uint64_t until = ms < 0 ? UINT64_MAX : um_clock_ns() + (uint64_t)ms * 1000000;
    while (poll(p, 2, ms) < 0 && errno == EINTR) /* a timer of the program that we are in, say */
        ms = um_clock_ms_until(until);
    return p[0].revents != 0;
}
