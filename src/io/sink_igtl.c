/* SPDX-License-Identifier: Apache-2.0 */
/* "igtl:[HOST]:PORT" (any number of clients) and "igtl-connect:HOST:PORT" (one server): masks,
 * boxes and states over OpenIGTLink. A frame's messages are made once for each version that
 * somebody speaks, and shared; every client has a mailbox of a few frames, of which the oldest goes
 * when a newer one finds no room, so that a slow client costs nobody but itself. */
#include "io/sink.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "base/wake.h"
#include "io/igtl_frame.h"
#include "io/igtl_link.h"
#include "io/scheme.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum count {
    CLIENTS, /* that came */
    GONE,
    REFUSED, /* there were too many */
    STALLED, /* took nothing for too long */
    MALFORMED,
    QUERIES,
    FRAMES,  /* given to write() */
    LIMITED, /* not sent: --igtl-max-fps */
    SENT,    /* frames that a client has whole */
    DROPPED, /* frames that a client missed, being behind */
    UNSENT,  /* frames that waited for a client that went */
    CUT,     /* names that were too long */
    COUNTS
};
static const char *const count_names[COUNTS] = {"clients",   "gone",    "refused", "stalled",
                                                "malformed", "queries", "frames",  "limited",
                                                "sent",      "dropped", "unsent",  "cut"};

enum { CLIENTS_MOST = 64, MAILBOX_MOST = 64, ASKED_MOST = 8 };

/* Messages as bytes, shared by the clients that still have to get them. */
struct bundle {
    atomic_int refs;
    struct um_igtl_outbox out;
    struct um_igtl_relayed relayed; /* in front */
};

struct letter {
    struct bundle *bundle;
    size_t at, end;
    bool frame; /* may be dropped while at is its start */
};

struct client {
    struct um_igtl_link link;
    char peer[UM_SOCKET_PEER];
    struct letter box[MAILBOX_MOST];
    int letters;
    bool streaming, relaying; /* frames; the source's transforms among them */
    bool started;             /* a part of the first letter is sent */
    int asks;                 /* before there was a frame, for these */
    struct um_igtl_message asked[ASKED_MOST];
    unsigned labels; /* the version of LBMETA that it has */
    uint64_t moved;  /* when it last took something, ns */
};

struct server {
    char *spec;
    void (*log)(void *ctx, const char *text);
    void *log_ctx;
    bool connects;
    struct um_address address;
    int version; /* 0: as each client speaks */
    int mailbox, most;
    double max_fps;
    int wake_up, stop, listening, port;
    pthread_t thread;
    bool started;
    struct um_igtl_news news; /* of the thread alone */
    atomic_ullong count[COUNTS];
    atomic_bool ending;
    pthread_mutex_t lock;
    struct client *client; /* CLIENTS_MOST of them; guarded by lock, as all below */
    int clients;
    struct um_igtl_exits exits;
    struct bundle *last[3]; /* by version */
    struct bundle *labels[3];
    unsigned labels_version;
    /* of the writing thread alone */
    uint64_t due;               /* the next frame, by max_fps */
    struct um_igtl_frame frame; /* its options do not change */
};

static void count(struct server *s, enum count what)
{
    atomic_fetch_add_explicit(&s->count[what], 1, memory_order_relaxed);
}

static void note(struct server *s, const char *what, const char *who, const char *why)
{
    um_igtl_news_note(&s->news, s->spec, what, who, why);
}

/* Without the lock: neither frames nor those who count wait for whoever is told. */
static void say(struct server *s, bool last)
{
    char line[UM_IGTL_LINE];
    while (um_igtl_news_take(&s->news, s->spec, last, line))
        if (s->log)
            s->log(s->log_ctx, line);
}

/* ---- letters ---- */

static struct bundle *bundle_new(void)
{
    struct bundle *b = um_zalloc(sizeof *b);
    if (b)
        atomic_init(&b->refs, 1);
    return b;
}

static void bundle_drop(struct bundle *b)
{
    if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
        return;
    um_igtl_outbox_finish(&b->out);
    um_free(b);
}

static void letter_drop(struct client *c, int i)
{
    bundle_drop(c->box[i].bundle);
    c->letters--;
    memmove(&c->box[i], &c->box[i + 1], (size_t)(c->letters - i) * sizeof *c->box);
}

/* The oldest frame that nothing was sent of makes room; answers stay. */
static bool make_room(struct server *s, struct client *c)
{
    int frames = 0, oldest = -1;
    for (int i = c->letters - 1; i >= 0; i--) {
        if (!c->box[i].frame)
            continue;
        frames++;
        if (i > 0 || !c->started)
            oldest = i;
    }
    if (frames < s->mailbox && c->letters < MAILBOX_MOST - 1) /* LBMETA may be before it */
        return true;
    count(s, DROPPED);
    if (oldest < 0)
        return false; /* the new one goes: the only other is half sent */
    letter_drop(c, oldest);
    return true;
}

static void post(struct client *c, struct bundle *b, size_t from, size_t to, bool frame)
{
    if (from == to || c->letters == MAILBOX_MOST)
        return;
    if (!c->letters)
        c->moved = um_clock_ns();
    atomic_fetch_add(&b->refs, 1);
    c->box[c->letters++] = (struct letter){b, from, to, frame};
}

/* All of what is for one client alone; it takes the bundle. */
static void post_own(struct client *c, struct bundle *b)
{
    if (!b->out.failed)
        post(c, b, 0, b->out.size, false);
    bundle_drop(b);
}

static int spoken(const struct server *s, const struct client *c)
{
    return s->version ? s->version : c->link.version;
}

/* Of a frame's messages, those that one who speaks `version` can read: of 2 also 1. NULL: none were
 * made, as nobody spoke it. */
static struct bundle *readable(struct bundle *const made[3], int version)
{
    return made[version] ? made[version] : made[1];
}

/* ---- writing a frame ---- */

/* NULL: no memory. */
static struct bundle *make_bundle(struct server *s, int version, bool labels)
{
    struct bundle *b = bundle_new();
    if (b && labels)
        um_igtl_labels_write(&s->frame, &b->out, version);
    else if (b)
        b->relayed = um_igtl_frame_write(&s->frame, &b->out, version);
    if (b && b->out.failed) {
        bundle_drop(b);
        return NULL;
    }
    return b;
}

/* Versions that somebody who is there speaks. */
static void versions(struct server *s, bool used[3])
{
    used[0] = used[1] = used[2] = false;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->clients; i++)
        used[spoken(s, &s->client[i])] = true;
    pthread_mutex_unlock(&s->lock);
}

/* Where the image of a name lies among a frame's messages; without a name the mask. */
static bool find_image(const struct bundle *b, const char *device, size_t *from, size_t *to)
{
    struct um_igtl_header h;
    for (*from = 0; *from < b->out.size; *from = *to) {
        um_igtl_header_read(&h, b->out.data + *from, UM_IGTL_HEADER);
        *to = *from + UM_IGTL_HEADER + (size_t)h.body_size;
        if (strcmp(h.type, "IMAGE") == 0 &&
            (device[0] ? strcmp(h.device, device) == 0 : *from == b->relayed.all))
            return true;
    }
    return false;
}

/* Who asked for an image when there was none gets it, and nothing else of the frame. */
static void answer_late(struct server *s, struct client *c, struct bundle *b,
                        const struct um_igtl_message *asked)
{
    size_t from = 0, to = 0;
    bool found = find_image(b, asked->header.device, &from, &to);
    struct bundle *own = found ? NULL : bundle_new();
    if (found && !c->streaming && make_room(s, c))
        post(c, b, from, to, true);
    if (!own)
        return;
    um_igtl_reply(&own->out, asked, spoken(s, c), 1);
    post_own(c, own);
}

static void hand_out(struct server *s, struct bundle *frame[3], struct bundle *labels[3])
{
    pthread_mutex_lock(&s->lock);
    for (int v = 1; v < 3; v++) {
        bundle_drop(s->last[v]);
        s->last[v] = frame[v];
        if (s->frame.labels_changed || labels[v]) {
            bundle_drop(s->labels[v]);
            s->labels[v] = labels[v];
        }
    }
    s->labels_version += s->frame.labels_changed;
    s->frame.labels_changed = false;
    for (int i = 0; i < s->clients; i++) {
        struct client *c = &s->client[i];
        int v = spoken(s, c);
        struct bundle *b = readable(frame, v); /* who has come since gets the next */
        for (int k = 0; b && k < c->asks; k++)
            answer_late(s, c, b, &c->asked[k]);
        c->asks = b ? 0 : c->asks;
        if (!b || !c->streaming || !make_room(s, c))
            continue;
        if (c->labels != s->labels_version && s->labels[v]) {
            post(c, s->labels[v], 0, s->labels[v]->out.size, false);
            c->labels = s->labels_version;
        }
        post(c, b, c->relaying ? 0 : b->relayed.transforms, b->out.size, true);
    }
    pthread_mutex_unlock(&s->lock);
    um_wake_set(s->wake_up);
}

static um_status igtl_write(void *priv, const um_packet *packet, const um_frame *frame,
                            const char *name)
{
    (void)name;
    struct server *s = *(struct server **)priv;
    struct bundle *made[3] = {NULL}, *labels[3] = {NULL};
    bool used[3];
    count(s, FRAMES);
    if (s->max_fps > 0 && !um_clock_due(&s->due, s->max_fps, um_clock_ns())) {
        count(s, LIMITED);
        return UM_OK;
    }
    if (!um_igtl_frame_begin(&s->frame, packet, frame))
        count(s, CUT);
    versions(s, used);
    um_status st = UM_OK;
    for (int v = 1; v < 3 && st == UM_OK; v++) {
        if (!used[v])
            continue;
        bool due = s->frame.labels_changed || !s->labels[v];
        made[v] = make_bundle(s, v, false);
        labels[v] = due ? make_bundle(s, v, true) : NULL;
        if (!made[v] || (due && !labels[v]))
            st = um_fail(UM_ENOMEM, "%s: the messages of a frame", s->spec);
    }
    if (st == UM_OK) {
        hand_out(s, made, labels);
        return UM_OK;
    }
    for (int v = 1; v < 3; v++) {
        bundle_drop(made[v]);
        bundle_drop(labels[v]);
    }
    return st;
}

/* ---- clients; the lock is held ---- */

static void client_gone(struct server *s, int i, const char *why)
{
    struct client *c = &s->client[i];
    note(s, "gone", c->peer, why);
    count(s, GONE);
    while (c->letters) {
        if (c->box[0].frame)
            count(s, UNSENT);
        letter_drop(c, 0);
    }
    um_igtl_link_close(&c->link);
    s->clients--;
    s->client[i] = s->client[s->clients];
}

static void client_come(struct server *s, int fd, const char *peer)
{
    struct client *c = &s->client[s->clients];
    if (s->clients >= s->most) {
        struct um_igtl_outbox out = {0};
        um_igtl_tell(&out, 1, UM_IGTL_RESOURCE, "too many clients");
        um_igtl_exits_add(&s->exits, fd, &out);
        count(s, REFUSED);
        note(s, "refused", peer, "too many clients");
        return;
    }
    *c = (struct client){.link = {.fd = fd, .version = 1},
                         .streaming = true,
                         .relaying = true,
                         .moved = um_clock_ns()};
    c->link.in.image_limit = c->link.in.limit = 1 << 20; /* nobody has a reason to send images */
    snprintf(c->peer, sizeof c->peer, "%s", peer);
    s->clients++;
    count(s, CLIENTS);
    note(s, "client", peer, "");
}

/* Last words to one whose messages are no OpenIGTLink. */
static void reproach(struct server *s, struct client *c, const char *why)
{
    struct um_igtl_outbox out = {0};
    if (c->started)
        return; /* in the middle of another message */
    um_igtl_tell(&out, 1, UM_IGTL_OVERFLOW, why);
    um_igtl_exits_add(&s->exits, c->link.fd, &out);
    c->link.fd = -1;
}

static void answer(struct server *s, struct client *c, const struct um_igtl_message *m)
{
    const char *type = m->header.type;
    int v = spoken(s, c);
    struct bundle *b = readable(s->last, v), *own = bundle_new();
    size_t from = 0, to = 0;
    bool done = true, get = um_igtl_asks(type, "GET_", "IMAGE"),
         turn = um_igtl_asks(type, "STT_", "IMAGE") || um_igtl_asks(type, "STP_", "IMAGE");
    if (!own)
        return;
    if ((turn || get) && b && !find_image(b, m->header.device, &from, &to)) {
        um_igtl_reply(&own->out, m, v, 1);
    } else if (turn) {
        c->streaming = type[2] == 'T';
        um_igtl_reply(&own->out, m, v, 0);
    } else if (um_igtl_asks(type, "STT_", "TRANSFORM") || um_igtl_asks(type, "STP_", "TRANSFORM")) {
        c->relaying = type[2] == 'T';
        um_igtl_reply(&own->out, m, v, !s->frame.relay_transforms);
    } else if (get && !b && c->asks == ASKED_MOST) {
        um_igtl_reply(&own->out, m, v, 1);
    } else if (get && !b) { /* the next one */
        c->asked[c->asks++] = (struct um_igtl_message){.header = m->header, .id = m->id};
    } else if (get) { /* as much of frames waits for who asks as for who is sent them */
        if (make_room(s, c))
            post(c, b, from, to, true);
    } else if (um_igtl_asks(type, "GET_", "LBMETA") && s->labels[v]) {
        post(c, s->labels[v], 0, s->labels[v]->out.size, false);
    } else {
        done = um_igtl_answer(&own->out, m, v);
    }
    if (done)
        count(s, QUERIES);
    post_own(c, own);
}

/* UM_OK: it goes on. */
static um_status client_reads(struct server *s, struct client *c)
{
    enum { TURN = 32 };
    um_status st = UM_OK;
    for (int i = 0; i < TURN && (st = um_igtl_link_receive(&c->link)) == UM_OK; i++) {
        struct um_igtl_message m;
        if (um_igtl_message_read(&m, &c->link.in.header, c->link.in.body, c->link.in.have, true) ==
            UM_OK)
            answer(s, c, &m);
        else
            count(s, MALFORMED);
    }
    if (st == UM_EFORMAT) {
        count(s, MALFORMED);
        reproach(s, c, um_last_error());
    }
    return st == UM_AGAIN ? UM_OK : st;
}

static um_status client_takes(struct server *s, struct client *c)
{
    while (c->letters) {
        struct letter *l = &c->box[0];
        ssize_t n = send(c->link.fd, l->bundle->out.data + l->at, l->end - l->at,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return UM_OK;
        if (n < 0)
            return um_fail(UM_EIO, "%s", strerror(errno));
        l->at += (size_t)n;
        c->moved = um_clock_ns();
        c->started = l->at < l->end;
        if (c->started)
            continue;
        if (l->frame)
            count(s, SENT);
        letter_drop(c, 0);
    }
    return UM_OK;
}

/* Those who hear nothing else hear that we are there. */
static void keep_alive(struct server *s, struct client *c)
{
    struct bundle *b = bundle_new();
    if (!b)
        return;
    um_igtl_tell(&b->out, spoken(s, c), UM_IGTL_OK, "");
    post_own(c, b);
}

/* ---- the thread ---- */

static const uint64_t ALIVE_NS = 1000000000, STALL_NS = 10000000000;

static void look_after(struct server *s, int i, short events)
{
    struct client *c = &s->client[i];
    um_status st = events & (POLLIN | POLLHUP | POLLERR) ? client_reads(s, c) : UM_OK;
    if (st == UM_OK && !c->letters && um_clock_ns() - c->moved > ALIVE_NS)
        keep_alive(s, c);
    if (st == UM_OK)
        st = client_takes(s, c);
    if (st != UM_OK) {
        client_gone(s, i, st == UM_EOF ? "" : um_last_error());
    } else if (c->letters && um_clock_ns() - c->moved > STALL_NS) {
        count(s, STALLED);
        client_gone(s, i, "it took nothing for 10 s");
    }
}

/* igtl-connect: the one peer is looked for, with more patience each time until it takes frames. */
struct search {
    double backoff; /* ms to wait before the next try; 0: the first */
    uint64_t sent;
    bool told;
};

static void look_for(struct server *s, struct search *h)
{
    enum { MS = 2000, LEAST_MS = 100, MOST_MS = 5000 };
    int fd = -1;
    char peer[UM_SOCKET_PEER];
    uint64_t sent = atomic_load(&s->count[SENT]);
    if (sent != h->sent)
        h->backoff = LEAST_MS;
    h->sent = sent;
    if (h->backoff > 0 && um_wake_wait(s->stop, (int)h->backoff))
        return;
    h->backoff = h->backoff > 0 ? fmin(h->backoff * 2, MOST_MS) : LEAST_MS;
    um_status st = um_socket_connect(&fd, &s->address, s->stop, MS);
    if (st == UM_OK) {
        snprintf(peer, sizeof peer, "%.60s:%s", s->address.host, s->address.port);
        pthread_mutex_lock(&s->lock);
        client_come(s, fd, peer);
        pthread_mutex_unlock(&s->lock);
    } else if (!h->told && st != UM_AGAIN) {
        note(s, "nobody at", s->address.host, um_last_error());
    }
    h->told = st != UM_OK;
    say(s, false);
}

static void *run_server(void *ctx)
{
    enum { BEAT_MS = 250, PAUSE_MS = 20, TURN = 16 };
    struct server *s = ctx;
    struct search search = {0};
    while (!atomic_load(&s->ending)) {
        struct pollfd p[CLIENTS_MOST + 2 + UM_IGTL_EXITS] = {
            {.fd = s->wake_up, .events = POLLIN}, {.fd = s->listening, .events = POLLIN}};
        char peer[UM_SOCKET_PEER];
        int fd = -1;
        pthread_mutex_lock(&s->lock);
        int n = s->clients;
        for (int i = 0; i < n; i++)
            p[i + 2] =
                (struct pollfd){.fd = s->client[i].link.fd,
                                .events = (short)(POLLIN | (s->client[i].letters ? POLLOUT : 0))};
        int exits = um_igtl_exits_poll(&s->exits, p + 2 + n);
        pthread_mutex_unlock(&s->lock);
        if (s->connects && n == 0 && exits == 0) { /* who was sent away goes first */
            look_for(s, &search);
            continue;
        }
        poll(p, (nfds_t)(2 + n + exits), BEAT_MS);
        um_wake_clear(s->wake_up);
        pthread_mutex_lock(&s->lock);
        for (int i = n - 1; i >= 0; i--) /* from behind: who goes is replaced by the last */
            look_after(s, i, p[i + 2].revents);
        um_igtl_exits_turn(&s->exits, false);
        pthread_mutex_unlock(&s->lock);
        bool knocked = p[1].revents != 0, came = false;
        for (int i = 0; i < TURN && knocked && um_socket_accept(&fd, s->listening, peer) == UM_OK;
             i++) {
            pthread_mutex_lock(&s->lock);
            client_come(s, fd, peer);
            pthread_mutex_unlock(&s->lock);
            came = true;
        }
        say(s, false);
        if (knocked && !came) /* no descriptors left: they do not come faster by asking faster */
            um_wake_wait(s->stop, PAUSE_MS);
    }
    return NULL;
}

/* Everybody is told that this is the end, behind what still waits for them. */
static void say_farewell(struct server *s)
{
    for (int i = 0; i < s->clients; i++) {
        struct bundle *b = bundle_new();
        if (!b)
            return;
        um_igtl_farewell(&b->out, spoken(s, &s->client[i]));
        post_own(&s->client[i], b);
    }
}

/* What still waits goes out, if it is taken soon. */
static void last_words(struct server *s)
{
    enum { PATIENCE_MS = 300 };
    uint64_t until = um_clock_ns() + PATIENCE_MS * 1000000ull;
    say_farewell(s);
    for (bool more = true; more && um_clock_ns() < until;) {
        struct pollfd p[CLIENTS_MOST];
        nfds_t n = 0;
        for (int i = s->clients - 1; i >= 0; i--)
            if (client_takes(s, &s->client[i]) != UM_OK)
                client_gone(s, i, um_last_error());
        for (int i = 0; i < s->clients; i++)
            if (s->client[i].letters)
                p[n++] = (struct pollfd){.fd = s->client[i].link.fd, .events = POLLOUT};
        more = n > 0;
        if (more)
            poll(p, n, 20);
    }
    for (int i = 0; i < s->clients; i++) /* to all, before one of them is waited for */
        shutdown(s->client[i].link.fd, SHUT_WR);
    for (int i = 0; i < s->clients; i++)
        um_igtl_link_drain(&s->client[i].link, until);
}

/* ---- the table ---- */

static um_status set_option(void *ctx, const char *key, const char *value)
{
    struct server *s = ctx;
    struct um_igtl_frame *f = &s->frame;
    if (strcmp(key, "name") == 0) {
        if (!value[0] || strlen(value) > UM_IGTL_NAME)
            return um_fail(UM_EINVAL, "name: \"%s\" is not 1 to %d characters", value,
                           UM_IGTL_NAME);
        strcpy(f->name, value);
        return UM_OK;
    }
    if (strcmp(key, "relay") == 0) {
        f->relay_image = strcmp(value, "image") == 0 || strcmp(value, "all") == 0;
        f->relay_transforms = strcmp(value, "transforms") == 0 || strcmp(value, "all") == 0;
        return f->relay_image || f->relay_transforms
                   ? UM_OK
                   : um_fail(UM_EINVAL, "relay: \"%s\" is not image, transforms or all", value);
    }
    if (strcmp(key, "per-class") == 0) {
        f->per_class = true;
        return value[0] ? um_fail(UM_EINVAL, "per-class takes no value") : UM_OK;
    }
    if (strcmp(key, "labels") == 0) {
        f->by_object = strcmp(value, "object") == 0;
        return f->by_object || strcmp(value, "class") == 0
                   ? UM_OK
                   : um_fail(UM_EINVAL, "labels: \"%s\" is not class or object", value);
    }
    if (strcmp(key, "version") == 0)
        return um_scheme_whole(key, value, 1, 2, &s->version);
    if (strcmp(key, "max-fps") == 0)
        return um_scheme_number(key, value, 0, 1000, &s->max_fps);
    if (strcmp(key, "mailbox") == 0)
        return um_scheme_whole(key, value, 1, MAILBOX_MOST / 2, &s->mailbox);
    if (strcmp(key, "clients") == 0 && s->connects)
        return um_fail(UM_EINVAL, "clients: there is one, which igtl-connect: connects to");
    if (strcmp(key, "clients") == 0)
        return um_scheme_whole(key, value, 1, CLIENTS_MOST, &s->most);
    return um_fail(UM_EINVAL,
                   "no option %s=%s: known are name, relay=image|transforms|all, per-class, "
                   "labels=class|object, version, max-fps, mailbox, clients",
                   key, value);
}

static um_status open_server(void *priv, const char *arg, const um_sink_settings *settings,
                             bool connects)
{
    const char *scheme = connects ? "igtl-connect" : "igtl";
    struct server *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "OpenIGTLink sink");
    *(struct server **)priv = s;
    pthread_mutex_init(&s->lock, NULL);
    s->stop = s->wake_up = s->listening = -1;
    s->connects = connects;
    s->log = settings->log;
    s->log_ctx = settings->log_ctx;
    s->frame.objects = settings->objects;
    s->mailbox = 3;
    s->most = 16;
    um_status st = um_address_read(&s->address, scheme, arg);
    s->spec = um_scheme_spec(scheme, arg);
    s->client = um_array(CLIENTS_MOST, sizeof *s->client);
    if (st == UM_OK && (!s->spec || !s->client))
        st = um_fail(UM_ENOMEM, "OpenIGTLink sink");
    if (st == UM_OK)
        st = um_scheme_options(s->address.options, s->spec, NULL, set_option, s);
    if (st == UM_OK && connects)
        st = um_address_to_connect(&s->address, s->spec, "igtl::PORT waits for clients");
    if (st == UM_OK)
        st = um_wake_open(&s->stop, s->spec);
    if (st == UM_OK)
        st = um_wake_open(&s->wake_up, s->spec);
    if (st == UM_OK && !connects &&
        (st = um_socket_listen(&s->listening, &s->port, &s->address)) == UM_OK) {
        char port[8];
        snprintf(port, sizeof port, "%d", s->port);
        note(s, "listening on port", port, "");
        say(s, false);
    }
    if (st == UM_OK)
        st = um_thread_start(&s->thread, run_server, s, s->spec);
    s->started = st == UM_OK;
    return st;
}

static um_status igtl_open(void *priv, const char *arg, const um_sink_settings *settings,
                           int wake_fd)
{
    (void)wake_fd; /* write() never waits */
    return open_server(priv, arg, settings, false);
}

static um_status igtl_connect(void *priv, const char *arg, const um_sink_settings *settings,
                              int wake_fd)
{
    (void)wake_fd;
    return open_server(priv, arg, settings, true);
}

static um_status igtl_close(void *priv)
{
    struct server *s = *(struct server **)priv;
    if (!s)
        return UM_OK;
    if (s->started) {
        atomic_store(&s->ending, true);
        um_wake_set(s->stop);
        um_wake_set(s->wake_up);
        pthread_join(s->thread, NULL);
        last_words(s);
    }
    while (s->clients)
        client_gone(s, s->clients - 1, "closing");
    um_igtl_exits_turn(&s->exits, true);
    say(s, true);
    if (s->listening >= 0)
        close(s->listening);
    for (int v = 1; v < 3; v++) {
        bundle_drop(s->last[v]);
        bundle_drop(s->labels[v]);
    }
    um_wake_close(&s->stop);
    um_wake_close(&s->wake_up);
    pthread_mutex_destroy(&s->lock);
    um_igtl_frame_finish(&s->frame);
    um_free(s->client);
    um_free(s->spec);
    um_free(s);
    return UM_OK;
}

static void igtl_counts(const void *priv, void (*each)(void *ctx, const char *name, uint64_t n),
                        void *ctx)
{
    struct server *s = *(struct server *const *)priv;
    pthread_mutex_lock(&s->lock);
    int now = s->clients, waiting = 0;
    for (int i = 0; i < now; i++)
        for (int k = 0; k < s->client[i].letters; k++)
            waiting += s->client[i].box[k].frame;
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < COUNTS; i++)
        each(ctx, count_names[i], atomic_load(&s->count[i]));
    each(ctx, "connected", (uint64_t)now);
    each(ctx, "waiting", (uint64_t)waiting);
    if (!s->connects)
        each(ctx, "port", (uint64_t)s->port);
}

const um_sink_ops um_sink_igtl = {
    .struct_size = sizeof um_sink_igtl,
    .priv_size = sizeof(struct server *),
    .open = igtl_open,
    .write = igtl_write,
    .close = igtl_close,
    .counts = igtl_counts,
};

const um_sink_ops um_sink_igtl_connect = {
    .struct_size = sizeof um_sink_igtl_connect,
    .priv_size = sizeof(struct server *),
    .open = igtl_connect,
    .write = igtl_write,
    .close = igtl_close,
    .counts = igtl_counts,
};
