/* SPDX-License-Identifier: Apache-2.0 */
#include "io/socket.h"

#include "base/wake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool prepare(int fd)
{
    const int on = 1, most = 1 << 17;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a frame must not wait for more */
    /* nor for megabytes of older ones on a slow way: those wait where newer ones replace them */
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
           fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0;
}

/* What is wrong with the name, or NULL. */
static const char *resolve(struct addrinfo **list, const struct um_address *a, int flags)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    if (flags & AI_PASSIVE && (!a->host[0] || strcmp(a->host, "localhost") == 0))
        hints.ai_family = AF_INET; /* as all peers do; an address says otherwise */
    int error = getaddrinfo(a->host[0] ? a->host : NULL, a->port, &hints, list);
    return error ? gai_strerror(error) : NULL;
}

um_status um_socket_listen(int *fd, int *port, const struct um_address *a)
{
    struct addrinfo *list = NULL;
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof own;
    const int on = 1;
    *fd = -1;
    const char *wrong = resolve(&list, a, AI_PASSIVE);
    if (wrong)
        return um_fail(UM_EIO, "cannot listen on %s:%s: %s", a->host, a->port, wrong);
    *fd = socket(list->ai_family, list->ai_socktype, list->ai_protocol);
    bool good = *fd >= 0 && prepare(*fd) &&
                setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                bind(*fd, list->ai_addr, list->ai_addrlen) == 0 && listen(*fd, SOMAXCONN) == 0 &&
                getsockname(*fd, (struct sockaddr *)&own, &size) == 0;
    freeaddrinfo(list);
    if (!good) {
        um_status st =
            um_fail(UM_EIO, "cannot listen on %s:%s: %s", a->host, a->port, strerror(errno));
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        return st;
    }
    *port = own.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&own)->sin6_port)
                                      : ntohs(((struct sockaddr_in *)&own)->sin_port);
    return UM_OK;
}

um_status um_socket_accept(int *fd, int listening, char peer[UM_SOCKET_PEER])
{
    struct sockaddr_storage from = {0};
    socklen_t size = sizeof from;
    char host[64] = "?", port[8] = "?";
    *fd = accept(listening, (struct sockaddr *)&from, &size);
    if (*fd < 0)
        return UM_AGAIN; /* who knocked is gone, or there are no descriptors: both may change */
    getnameinfo((struct sockaddr *)&from, size, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(peer, UM_SOCKET_PEER, "%s:%s", host, port);
    if (prepare(*fd))
        return UM_OK;
    close(*fd);
    *fd = -1;
    return UM_AGAIN;
}

/* One of the addresses of a name. */
static um_status connect_one(int *fd, const struct addrinfo *to, int stop, int ms)
{
    *fd = socket(to->ai_family, to->ai_socktype, to->ai_protocol);
    if (*fd < 0 || !prepare(*fd))
        return um_fail(UM_EIO, "no socket: %s", strerror(errno));
    if (connect(*fd, to->ai_addr, to->ai_addrlen) == 0)
        return UM_OK;
    int error = errno;
    socklen_t size = sizeof error;
    if (error == EINPROGRESS) {
        if (!um_wake_poll(*fd, POLLOUT, stop, ms))
            return um_wake_wait(stop, 0) ? UM_AGAIN : um_fail(UM_EIO, "no answer for %d ms", ms);
        getsockopt(*fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    return error ? um_fail(UM_EIO, "%s", strerror(error)) : UM_OK;
}

um_status um_socket_connect(int *fd, const struct um_address *a, int stop, int ms)
{
    struct addrinfo *list = NULL;
    *fd = -1;
    const char *wrong = resolve(&list, a, 0);
    if (wrong)
        return um_fail(UM_EIO, "%s", wrong);
    um_status st = UM_EIO;
    for (const struct addrinfo *to = list; to && st != UM_OK && st != UM_AGAIN; to = to->ai_next) {
        st = connect_one(fd, to, stop, ms);
        if (st != UM_OK && *fd >= 0)
            close(*fd);
        if (st != UM_OK)
            *fd = -1;
    }
    freeaddrinfo(list);
    return st;
}
