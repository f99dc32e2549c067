/* SPDX-License-Identifier: Apache-2.0 */
/* What the source and the sink of OpenIGTLink share: one connection's receiving side, and what is
 * told. */
#ifndef UM_IO_IGTL_LINK_H
#define UM_IO_IGTL_LINK_H

#include "igtl/content.h"
#include "io/socket.h"

#include <poll.h>

struct um_igtl_link {
    int fd; /* -1 = none */
    struct um_igtl_inbox in;
    int version; /* the highest that came */
};
void um_igtl_link_close(struct um_igtl_link *l);
/* What has come by now. @return UM_OK: a message is whole (l->in); UM_AGAIN: not yet; UM_EOF: the
 * other side left; an error: the connection is of no more use. */
um_status um_igtl_link_receive(struct um_igtl_link *l);
/* We say no more. What still comes is thrown away until the other side ends too, or it is `until`
 * (um_clock_ns): a socket that is closed over unread bytes takes back what the peer did not read.
 */
void um_igtl_link_drain(struct um_igtl_link *l, uint64_t until);
/* The same for those who are sent away while others are served: a turn now and then. */
enum { UM_IGTL_EXITS = 8 };
struct um_igtl_exits {
    int n;
    int fd[UM_IGTL_EXITS];
    uint64_t until[UM_IGTL_EXITS];
};
/* Takes the descriptor, and sends the last words; of too many the first is closed at once. */
void um_igtl_exits_add(struct um_igtl_exits *e, int fd, struct um_igtl_outbox *out);
int um_igtl_exits_poll(const struct um_igtl_exits *e, struct pollfd p[UM_IGTL_EXITS]);
/* Close those who have left, or had their time. `all`: everyone. */
void um_igtl_exits_turn(struct um_igtl_exits *e, bool all);
/* What is told of connections: a few lines in a while, of the others how many. Noted where a lock
 * may be held, and taken where none is: who is told may take long. Of one thread at a time. */
enum { UM_IGTL_NEWS = 10, UM_IGTL_LINE = 512 };
struct um_igtl_news {
    uint64_t since; /* um_clock_ns() of the first of these lines */
    int noted, taken;
    unsigned long more; /* that came when there were UM_IGTL_NEWS */
    char line[UM_IGTL_NEWS][UM_IGTL_LINE];
};
void um_igtl_news_note(struct um_igtl_news *n, const char *spec, const char *what, const char *who,
                       const char *why);
/* The next line. False: none is due; `last`: nor will be, so what was left out is. */
bool um_igtl_news_take(struct um_igtl_news *n, const char *spec, bool last,
                       char line[UM_IGTL_LINE]);
/* A STATUS of ours, and the last message of an orderly end. */
void um_igtl_tell(struct um_igtl_outbox *out, int version, int code, const char *text);
void um_igtl_farewell(struct um_igtl_outbox *out, int version);
/* Send what fits into the socket, nobody waits for more; the box is empty then. */
void um_igtl_send_now(int fd, struct um_igtl_outbox *out);

/* The answer to a query that needs no data; false for what is no query. Whoever knows more answers
 * before. */
bool um_igtl_answer(struct um_igtl_outbox *out, const struct um_igtl_message *m, int version);
/* RTS_… of a query: 0 = it will be done. */
void um_igtl_reply(struct um_igtl_outbox *out, const struct um_igtl_message *m, int version,
                   uint8_t status);

#endif
