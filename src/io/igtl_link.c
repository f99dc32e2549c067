/* SPDX-License-Identifier: Apache-2.0 */
#include "io/igtl_link.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- a connection ---- */

void um_igtl_link_close(struct um_igtl_link *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    l->version = 1;
    um_igtl_inbox_finish(&l->in);
}

um_status um_igtl_link_receive(struct um_igtl_link *l)
{
    enum { PIECES = 64 }; /* so that one who never stops does not keep others waiting */
    for (int i = 0; i < PIECES; i++) {
        uint8_t *to = NULL;
        size_t room = 0;
        um_status st = um_igtl_inbox_room(&l->in, &to, &room);
        if (st != UM_OK)
            return st;
        ssize_t n = recv(l->fd, to, room, MSG_DONTWAIT);
        if (n == 0)
            return UM_EOF;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return UM_AGAIN;
        if (n < 0 && errno != EINTR)
            return um_fail(UM_EIO, "%s", strerror(errno));
        st = n > 0 ? um_igtl_inbox_filled(&l->in, (size_t)n) : UM_AGAIN;
        if (st == UM_OK && l->in.header.version > l->version)
            l->version = l->in.header.version;
        if (st != UM_AGAIN)
            return st;
    }
    return UM_AGAIN;
}

static void exits_close(struct um_igtl_exits *e, int i)
{
    close(e->fd[i]);
    e->n--;
    memmove(&e->fd[i], &e->fd[i + 1], (size_t)(e->n - i) * sizeof *e->fd);
    memmove(&e->until[i], &e->until[i + 1], (size_t)(e->n - i) * sizeof *e->until);
}

/* Throw away what has come. UM_OK: there may be more; UM_AGAIN: not yet; UM_EOF: never. */
static um_status waste(int fd)
{
    uint8_t piece[4096];
    ssize_t n = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
    if (n > 0 || (n < 0 && errno == EINTR))
        return UM_OK;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? UM_AGAIN : UM_EOF;
}

void um_igtl_link_drain(struct um_igtl_link *l, uint64_t until)
{
    shutdown(l->fd, SHUT_WR);
    for (int left; (left = um_clock_ms_until(until)) > 0;) {
        um_status st = waste(l->fd);
        if (st == UM_EOF)
            return;
        struct pollfd p = {.fd = l->fd, .events = POLLIN};
        if (st == UM_AGAIN)
            poll(&p, 1, left);
    }
}

void um_igtl_exits_add(struct um_igtl_exits *e, int fd, struct um_igtl_outbox *out)
{
    static const uint64_t PATIENCE_NS = 300000000;
    um_igtl_send_now(fd, out);
    shutdown(fd, SHUT_WR);
    if (e->n == UM_IGTL_EXITS)
        exits_close(e, 0);
    e->fd[e->n] = fd;
    e->until[e->n++] = um_clock_ns() + PATIENCE_NS;
}

int um_igtl_exits_poll(const struct um_igtl_exits *e, struct pollfd p[UM_IGTL_EXITS])
{
    for (int i = 0; i < e->n; i++)
        p[i] = (struct pollfd){.fd = e->fd[i], .events = POLLIN};
    return e->n;
}

void um_igtl_exits_turn(struct um_igtl_exits *e, bool all)
{
    enum { PIECES = 64 };
    for (int i = e->n - 1; i >= 0; i--) {
        um_status st = UM_OK;
        for (int k = 0; k < PIECES && st == UM_OK; k++)
            st = waste(e->fd[i]);
        if (all || st == UM_EOF || um_clock_ns() > e->until[i])
            exits_close(e, i);
    }
}

void um_igtl_tell(struct um_igtl_outbox *out, int version, int code, const char *text)
{
    um_igtl_begin(out, version, "STATUS", "Ultramotion", 0, 0);
    um_igtl_status_write(out, code, 0, "", text);
    um_igtl_end(out, NULL, 0);
}

void um_igtl_farewell(struct um_igtl_outbox *out, int version)
{
    um_igtl_tell(out, version, UM_IGTL_SHUTDOWN, "the run has ended");
}

void um_igtl_send_now(int fd, struct um_igtl_outbox *out)
{
    if (!out->failed && out->size)
        (void)!send(fd, out->data, out->size, MSG_NOSIGNAL | MSG_DONTWAIT);
    um_igtl_outbox_finish(out);
}

/* ---- queries ---- */

void um_igtl_reply(struct um_igtl_outbox *out, const struct um_igtl_message *m, int version,
                   uint8_t status)
{
    char type[UM_IGTL_TYPE + 1];
    snprintf(type, sizeof type, "RTS_%.8s", m->header.type + 4);
    um_igtl_begin(out, version, type, m->header.device, 0, m->id);
    um_igtl_u8(out, status);
    um_igtl_end(out, NULL, 0);
}

bool um_igtl_answer(struct um_igtl_outbox *out, const struct um_igtl_message *m, int version)
{
    static const char *const types[] = {"IMAGE",      "TRANSFORM",   "STRING",     "STATUS",
                                        "LBMETA",     "CAPABILITY",  "GET_STATUS", "GET_IMAGE",
                                        "GET_LBMETA", "GET_CAPABIL", "STT_IMAGE",  "STP_IMAGE",
                                        "STT_TRANS",  "STP_TRANS"};
    const char *type = m->header.type;
    if (um_igtl_asks(type, "GET_", "STATUS")) {
        um_igtl_begin(out, version, "STATUS", m->header.device, 0, m->id);
        um_igtl_status_write(out, UM_IGTL_OK, 0, "", "");
        um_igtl_end(out, NULL, 0);
    } else if (um_igtl_asks(type, "GET_", "CAPABILITY")) {
        um_igtl_begin(out, version, "CAPABILITY", m->header.device, 0, m->id);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            um_igtl_name(out, types[i], UM_IGTL_TYPE);
        um_igtl_end(out, NULL, 0);
    } else if (strncmp(type, "GET_", 4) == 0 || strncmp(type, "STT_", 4) == 0 ||
               strncmp(type, "STP_", 4) == 0) {
        um_igtl_reply(out, m, version, 1);
    } else {
        return false;
    }
    return true;
}

/* ---- news ---- */

void um_igtl_news_note(struct um_igtl_news *n, const char *spec, const char *what, const char *who,
                       const char *why)
{
    if (n->noted == UM_IGTL_NEWS) {
        n->more++;
        return;
    }
    if (!n->noted)
        n->since = um_clock_ns();
    char line[UM_IGTL_LINE]; /* a peer's names are in it */
    snprintf(line, sizeof line, "%s: %s%s%s%s%s", spec, what, who[0] ? " " : "", who,
             why[0] ? ": " : "", why);
    um_text_show(n->line[n->noted++], sizeof *n->line, line);
}

bool um_igtl_news_take(struct um_igtl_news *n, const char *spec, bool last, char line[UM_IGTL_LINE])
{
    static const uint64_t WHILE_NS = 10000000000;
    if (n->taken < n->noted) {
        memcpy(line, n->line[n->taken++], sizeof *n->line);
        return true;
    }
    if (!n->noted || (!last && um_clock_ns() - n->since < WHILE_NS))
        return false;
    unsigned long more = n->more;
    n->noted = n->taken = 0;
    n->more = 0;
    if (more)
        snprintf(line, sizeof *n->line, "%s: %lu more comings and goings", spec, more);
    return more > 0;
}
