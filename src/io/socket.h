/* SPDX-License-Identifier: Apache-2.0 */
/* TCP sockets that never block. */
#ifndef UM_IO_SOCKET_H
#define UM_IO_SOCKET_H

#include "io/scheme.h"

enum { UM_SOCKET_PEER = 80 };

um_status um_socket_listen(int *fd, int *port, const struct um_address *a);
/* *fd -1 and UM_AGAIN: nobody is there. */
um_status um_socket_accept(int *fd, int listening, char peer[UM_SOCKET_PEER]);
/* UM_AGAIN: `stop` became readable; UM_EIO: it did not answer within `ms`, or said no. */
um_status um_socket_connect(int *fd, const struct um_address *a, int stop, int ms);

#endif
