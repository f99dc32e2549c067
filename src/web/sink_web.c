/* SPDX-License-Identifier: Apache-2.0 */
/* "web:[HOST]:PORT": the viewer. libwebsockets speaks HTTP and WebSocket on one thread of ours; the
 * run's writer makes a frame's message once for all viewers, and none if nobody looks. Every viewer
 * has room for one frame, and a newer one takes its place: who is slow sees fewer. */
#include "io/sink.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"
#include "io/jpeg_write.h"
#include "io/scheme.h"
#include "io/socket.h"
#include "ultramotion/monitor.h"
#include "web/page.h"
#include "web/request.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <libwebsockets.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum count {
    VIEWERS, /* that came */
    GONE,
    REFUSED,   /* there were too many */
    FORBIDDEN, /* a wrong host, origin or token */
    MALFORMED,
    STALLED, /* took nothing for too long */
    REQUESTS,
    CHANGES, /* POST /control */
    FRAMES,  /* given to write() */
    UNSEEN,  /* nobody looked */
    LIMITED, /* max-fps */
    ENCODED,
    SENT,    /* frames that a viewer was sent */
    SKIPPED, /* frames that a viewer missed for a newer one */
    COUNTS
};
static const char *const count_names[COUNTS] = {
    "viewers", "gone",   "refused", "forbidden", "malformed", "stalled", "requests",
    "changes", "frames", "unseen",  "limited",   "encoded",   "sent",    "skipped"};

enum { VIEWERS_MOST = 256, DESCRIPTORS_SPARE = 128, HEAD = 24, PATH = 64, REQUEST_S = 5 };
static const uint64_t STALL_NS = 10000000000;
static const double STALL_S = 10; /* /healthz */
static const int TICK_US = 500000;

/* Bytes to send, behind the room that libwebsockets wants in front; shared by viewers. */
struct bundle {
    atomic_int refs;
    size_t size;
    uint8_t *data; /* LWS_PRE bytes are before it */
};

/* A connection; libwebsockets keeps it. */
struct peer {
    /* HTTP */
    char path[PATH], body[UM_WEB_BODY];
    size_t body_size, body_length; /* read so far, and as the head says */
    uint64_t asked;                /* when the head was there, ns */
    bool head_only, answered;
    /* a viewer */
    bool viewer, streaming;
    struct lws *wsi;
    struct bundle *frame, *stats; /* frame: guarded by the server's lock */
    bool pinged;
    double ping;
    uint64_t waits_since; /* that it takes what there is for it, ns; 0 = there is nothing */
};

struct server {
    char *spec;
    um_monitor *monitor;
    void (*log)(void *ctx, const char *text);
    void *log_ctx;
    char host[256], token[UM_WEB_TOKEN + 1], names[256], token_file[UM_SCHEME_VALUE];
    bool loopback;
    double max_fps;
    int quality, most, port;
    struct lws_context *context;
    bool starved; /* no descriptors left for who knocks; of the server's thread alone */
    pthread_t thread;
    bool started;
    atomic_bool ending;
    atomic_ullong count[COUNTS];
    atomic_ullong cpu_ns[2]; /* of the server's thread, and of making messages */
    lws_sorted_usec_list_t tick;
    pthread_mutex_t lock;
    struct peer *viewer[VIEWERS_MOST]; /* guarded by lock, as all below */
    int viewers;
    /* of the writing thread alone */
    uint64_t due; /* the next frame, by max_fps */
    struct um_jpeg jpeg;
};

static void count(struct server *s, enum count what)
{
    atomic_fetch_add_explicit(&s->count[what], 1, memory_order_relaxed);
}

static void say(struct server *s, const char *what, const char *why)
{
    char text[640];
    snprintf(text, sizeof text, "%s: %s%s", s->spec, what, why);
    if (s->log)
        s->log(s->log_ctx, text);
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- bundles ---- */

static struct bundle *bundle_new(size_t size)
{
    struct bundle *b = um_alloc(sizeof *b + LWS_PRE + size + 1);
    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    b->size = size;
    b->data = (uint8_t *)(b + 1) + LWS_PRE;
    return b;
}

static void bundle_drop(struct bundle **bundle)
{
    struct bundle *b = *bundle;
    *bundle = NULL;
    if (b && atomic_fetch_sub(&b->refs, 1) == 1)
        um_free(b);
}

static struct bundle *bundle_share(struct bundle *b)
{
    if (b)
        atomic_fetch_add(&b->refs, 1);
    return b;
}

/* The text is freed. */
static struct bundle *bundle_of(char *text)
{
    struct bundle *b = text ? bundle_new(strlen(text)) : NULL;
    if (b)
        memcpy(b->data, text, b->size);
    um_free(text);
    return b;
}

/* ---- HTTP ---- */

static bool add_header(struct lws *wsi, const char *name, const char *value, unsigned char **at,
                       unsigned char *end)
{
    return lws_add_http_header_by_name(wsi, (const unsigned char *)name,
                                       (const unsigned char *)value, (int)strlen(value), at,
                                       end) == 0;
}

/* What may be loaded, by whom, and who may look: this page's own files alone. */
static bool add_headers(struct lws *wsi, unsigned char **at, unsigned char *end)
{
    static const char *const header[][2] = {
        {"content-security-policy:",
         "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
         "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
         "frame-ancestors 'none'"},
        {"x-content-type-options:", "nosniff"},
        {"x-frame-options:", "DENY"},
        {"referrer-policy:", "no-referrer"},
        {"cross-origin-resource-policy:", "same-origin"},
        {"cache-control:", "no-store"}};
    for (size_t i = 0; i < sizeof header / sizeof *header; i++)
        if (!add_header(wsi, header[i][0], header[i][1], at, end))
            return false;
    return true;
}

/* Send an answer, whose body is dropped, and close: where two requests came at once and the second
 * one has a body, libwebsockets takes the head for it, and never ends. What the socket has no room
 * for it keeps. A request's body is read to its end before. */
static int respond(struct lws *wsi, struct peer *p, unsigned code, const char *type,
                   struct bundle *body)
{
    unsigned char head[LWS_PRE + 2048], *start = head + LWS_PRE, *at = start,
                                        *end = head + sizeof head - 1;
    bool sent = body && !lws_add_http_common_headers(wsi, code, type, body->size, &at, end) &&
                add_headers(wsi, &at, end) && add_header(wsi, "connection:", "close", &at, end) &&
                (code != 401 || add_header(wsi, "www-authenticate:", "Bearer", &at, end)) &&
                !lws_finalize_write_http_header(wsi, start, &at, end) &&
                (p->head_only || !body->size ||
                 lws_write(wsi, body->data, body->size, LWS_WRITE_HTTP_FINAL) >= 0);
    bundle_drop(&body);
    p->answered = true;
    return sent && p->body_size < p->body_length ? 0 : -1;
}

static int respond_error(struct lws *wsi, struct peer *p, unsigned code, const char *text)
{
    um_json j = {0};
    char *line = NULL;
    um_json_begin(&j, '{');
    um_json_put_string(&j, "error", text);
    um_json_end(&j, '}');
    um_json_finish(&j, &line);
    return respond(wsi, p, code, "application/json", bundle_of(line));
}

static int respond_health(struct lws *wsi, struct peer *p, bool good, const char *why)
{
    um_json j = {0};
    char *line = NULL;
    um_json_begin(&j, '{');
    um_json_put_string(&j, "status", good ? "ok" : "unavailable");
    um_json_put_string(&j, "reason", good ? NULL : why);
    um_json_end(&j, '}');
    um_json_finish(&j, &line);
    return respond(wsi, p, good ? 200 : 503, "application/json", bundle_of(line));
}

static void header(struct lws *wsi, enum lws_token_indexes which, char *out, int size)
{
    if (lws_hdr_total_length(wsi, which) >= size || lws_hdr_copy(wsi, out, size, which) <= 0)
        out[0] = 0;
}

/* 0: who asks may; else the code to refuse with. */
static unsigned refusal(struct server *s, struct lws *wsi, bool needs_token)
{
    char host[256], origin[256], authorization[256], argument[UM_WEB_TOKEN + 16];
    header(wsi, WSI_TOKEN_HOST, host, sizeof host);
    header(wsi, WSI_TOKEN_ORIGIN, origin, sizeof origin);
    bool has_origin = lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0;
    if (!um_web_host_good(host, s->names) || (has_origin && !origin[0]) ||
        !um_web_origin_good(origin, host)) {
        count(s, FORBIDDEN);
        return 403;
    }
    if (!needs_token || !s->token[0])
        return 0;
    header(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, authorization, sizeof authorization);
    const char *value = lws_get_urlarg_by_name(wsi, "token=", argument, sizeof argument);
    if (um_web_token_good(s->token, authorization, value ? value : ""))
        return 0;
    count(s, FORBIDDEN);
    return 401;
}

static const char *refusal_text(unsigned code)
{
    return code == 401 ? "want the token: Authorization: Bearer TOKEN, or ?token=TOKEN"
                       : "this host name or origin is not ours";
}

/* What is no page. Where there is a token, all but the first two need it. */
enum place { HEALTHZ, READYZ, STATS, HISTORY, METRICS, CONTROL, LIVE, NOWHERE };

static enum place place_of(const char *path)
{
    static const char *const paths[NOWHERE] = {"/healthz", "/readyz",  "/stats", "/history",
                                               "/metrics", "/control", "/live"};
    int i = 0;
    while (i < NOWHERE && strcmp(path, paths[i]) != 0)
        i++;
    return (enum place)i;
}

static int get(struct server *s, struct lws *wsi, struct peer *p, enum place place)
{
    char why[256], *text = NULL;
    const char *type = "application/json";
    um_status st = UM_OK;
    for (size_t i = 0; i < um_web_page_count; i++) {
        const struct um_web_page *page = &um_web_pages[i];
        if (strcmp(p->path, page->path) != 0)
            continue;
        struct bundle *b = bundle_new(page->size);
        if (b)
            memcpy(b->data, page->data, page->size);
        return respond(wsi, p, 200, page->type, b);
    }
    if (!s->monitor && place < CONTROL)
        return respond_error(wsi, p, 503, "nobody counts here");
    switch (place) {
    case HEALTHZ:
        return respond_health(wsi, p, um_monitor_alive(s->monitor, STALL_S, why, sizeof why), why);
    case READYZ: return respond_health(wsi, p, um_monitor_ready(s->monitor, why, sizeof why), why);
    case STATS: st = um_monitor_json(s->monitor, &text); break;
    case HISTORY: st = um_monitor_history(s->monitor, &text); break;
    case METRICS:
        type = "text/plain; version=0.0.4; charset=utf-8";
        st = um_monitor_prometheus(s->monitor, &text);
        break;
    case CONTROL: return respond_error(wsi, p, 405, "POST a JSON object; GET changes nothing");
    case LIVE: return respond_error(wsi, p, 426, "this is for WebSocket");
    case NOWHERE: return respond_error(wsi, p, 404, "there is no such page");
    }
    if (st != UM_OK)
        return respond_error(wsi, p, 500, um_last_error());
    return respond(wsi, p, 200, type, bundle_of(text));
}

static int control(struct server *s, struct lws *wsi, struct peer *p)
{
    struct um_web_control c;
    um_status st = um_web_control_read(&c, p->body, p->body_size);
    if (st == UM_OK)
        st = s->monitor ? um_monitor_change(s->monitor, c.n, c.key, c.value)
                        : um_fail(UM_AGAIN, "no run goes on");
    if (st != UM_OK)
        return respond_error(wsi, p, st == UM_AGAIN ? 503 : 400, um_last_error());
    count(s, CHANGES);
    char *done = um_strdup("{\"status\":\"ok\"}");
    return respond(wsi, p, 200, "application/json", bundle_of(done));
}

/* A request's head is there. */
static int request(struct server *s, struct lws *wsi, struct peer *p)
{
    char *uri = NULL, type[64], length[24];
    int n = 0, method = lws_http_get_uri_and_method(wsi, &uri, &n);
    header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof length);
    p->body_size = 0;
    p->body_length = strtoul(length, NULL, 10);
    p->asked = um_clock_ns();
    p->answered = false;
    p->head_only = method == LWSHUMETH_HEAD;
    count(s, REQUESTS);
    snprintf(p->path, sizeof p->path, "%.*s", n < PATH ? n : 0, uri ? uri : "");
    enum place place = place_of(p->path);
    unsigned refused = refusal(s, wsi, place > READYZ && place < NOWHERE);
    if (refused)
        return respond_error(wsi, p, refused, refusal_text(refused));
    if (method == LWSHUMETH_GET || method == LWSHUMETH_HEAD)
        return get(s, wsi, p, place);
    if (method != LWSHUMETH_POST || place != CONTROL)
        return respond_error(wsi, p, 405, "only GET, HEAD, and POST /control");
    header(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, type, sizeof type);
    if (!um_web_is_json(type)) /* forms of other pages cannot send it */
        return respond_error(wsi, p, 415, "want content-type application/json");
    if (!length[0] || strspn(length, "0123456789") != strlen(length))
        return respond_error(wsi, p, 411, "want a content-length");
    if (p->body_length > UM_WEB_BODY)
        return respond_error(wsi, p, 413, "that is too much");
    return p->body_length > 0 ? 0 : control(s, wsi, p);
}

/* A part of a request's body. What follows a refusal is read, so that the refusal is, too. */
static int body(struct peer *p, const void *in, size_t n)
{
    enum { PATIENCE = 1 << 16 };
    size_t most = p->answered ? PATIENCE : sizeof p->body;
    /* libwebsockets waits as long for every piece */
    bool late = um_clock_ns() - p->asked > REQUEST_S * 1000000000ull;
    if (late || n > most - p->body_size)
        return -1;
    if (!p->answered && n > 0) /* of nothing libwebsockets has no address */
        memcpy(p->body + p->body_size, in, n);
    p->body_size += n;
    return 0;
}

/* Some clients offer HTTP/2 with whatever they ask (Java's, curl --http2): they are answered as if
 * they had not. A body does not come here. */
static int stay(struct server *s, struct lws *wsi)
{
    struct peer p = {.answered = false}; /* there is none yet */
    request(s, wsi, &p);
    if (!p.answered)
        respond_error(wsi, &p, 400, "POST it without Upgrade");
    return -1;
}

/* ---- viewers ---- */

static bool may_upgrade(struct server *s, struct lws *wsi)
{
    char *uri = NULL;
    int n = 0, method = lws_http_get_uri_and_method(wsi, &uri, &n);
    unsigned code = refusal(s, wsi, true);
    bool ours = method == LWSHUMETH_GET && uri && n == 5 && memcmp(uri, "/live", 5) == 0;
    if (!code && !ours)
        code = 404;
    pthread_mutex_lock(&s->lock);
    if (!code && s->viewers >= s->most) {
        code = 503;
        count(s, REFUSED);
    }
    pthread_mutex_unlock(&s->lock);
    if (code)
        lws_return_http_status(wsi, code, NULL);
    return !code;
}

static void look(struct server *s, struct peer *p, bool streaming)
{
    pthread_mutex_lock(&s->lock);
    p->streaming = streaming;
    if (!streaming)
        bundle_drop(&p->frame);
    pthread_mutex_unlock(&s->lock);
}

static void viewer_comes(struct server *s, struct lws *wsi, struct peer *p)
{
    *p = (struct peer){.wsi = wsi, .streaming = true};
    pthread_mutex_lock(&s->lock);
    p->viewer = s->viewers < s->most;
    if (p->viewer)
        s->viewer[s->viewers++] = p;
    pthread_mutex_unlock(&s->lock);
    if (!p->viewer) /* several knocked at once */
        lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
    count(s, p->viewer ? VIEWERS : REFUSED);
}

static void viewer_goes(struct server *s, struct peer *p)
{
    if (!p->viewer)
        return;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->viewers; i++)
        if (s->viewer[i] == p)
            s->viewer[i] = s->viewer[--s->viewers];
    pthread_mutex_unlock(&s->lock);
    bundle_drop(&p->frame);
    bundle_drop(&p->stats);
    p->viewer = p->pinged = false;
    count(s, GONE);
}

/* A piece of a message: networks and proxies cut them where they like. */
static int viewer_says(struct server *s, struct lws *wsi, struct peer *p, const void *in, size_t n)
{
    struct um_web_message m;
    if (lws_is_first_fragment(wsi))
        p->body_size = 0;
    bool good = n <= UM_WEB_MESSAGE - p->body_size && !lws_frame_is_binary(wsi);
    if (good && n > 0) {
        memcpy(p->body + p->body_size, in, n);
        p->body_size += n;
    }
    if (good && !lws_is_final_fragment(wsi))
        return 0;
    if (!good || um_web_message_read(&m, p->body, p->body_size) != UM_OK) {
        count(s, MALFORMED);
        viewer_goes(s, p); /* behind a close nothing may come, and it may be long until its end */
        lws_close_reason(wsi, LWS_CLOSE_STATUS_POLICY_VIOLATION, NULL, 0);
        return -1;
    }
    if (m.has_stream)
        look(s, p, m.stream);
    if (m.has_ping) {
        p->pinged = true;
        p->ping = m.ping;
        lws_callback_on_writable(wsi);
    }
    return 0;
}

static int write_pong(struct lws *wsi, struct peer *p)
{
    um_json j = {0};
    char *line = NULL;
    um_json_begin(&j, '{');
    um_json_put_double(&j, "ping", p->ping);
    um_json_put_double(&j, "clock", um_clock_unix());
    um_json_end(&j, '}');
    p->pinged = false;
    um_json_finish(&j, &line);
    struct bundle *b = bundle_of(line);
    int n = b ? lws_write(wsi, b->data, b->size, LWS_WRITE_TEXT) : -1;
    bundle_drop(&b);
    return n;
}

/* One message; the next when there is room again. */
static int viewer_takes(struct server *s, struct lws *wsi, struct peer *p)
{
    int n = 0;
    pthread_mutex_lock(&s->lock);
    struct bundle *frame = p->pinged || p->stats ? NULL : p->frame;
    if (frame)
        p->frame = NULL;
    pthread_mutex_unlock(&s->lock);
    if (p->pinged) {
        n = write_pong(wsi, p);
    } else if (p->stats) {
        n = lws_write(wsi, p->stats->data, p->stats->size, LWS_WRITE_TEXT);
        bundle_drop(&p->stats);
    } else if (frame) {
        n = lws_write(wsi, frame->data, frame->size, LWS_WRITE_BINARY);
        bundle_drop(&frame);
        if (n >= 0)
            count(s, SENT);
    }
    if (n < 0)
        return -1;
    pthread_mutex_lock(&s->lock);
    bool more = p->pinged || p->stats || p->frame;
    pthread_mutex_unlock(&s->lock);
    p->waits_since = more ? um_clock_ns() : 0;
    if (more)
        lws_callback_on_writable(wsi);
    return 0;
}

/* There is something for viewers. */
static void wake_viewers(struct server *s)
{
    uint64_t now = um_clock_ns();
    for (int i = 0; i < s->viewers; i++) { /* changed by this thread alone */
        struct peer *p = s->viewer[i];
        pthread_mutex_lock(&s->lock);
        bool any = p->frame || p->stats || p->pinged;
        pthread_mutex_unlock(&s->lock);
        if (!any)
            continue;
        if (!p->waits_since)
            p->waits_since = now;
        if (now - p->waits_since > STALL_NS) {
            count(s, STALLED);
            lws_set_timeout(p->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
        } else {
            lws_callback_on_writable(p->wsi);
        }
    }
}

/* Twice a second: the numbers, made once for all. */
static void tick(lws_sorted_usec_list_t *sul)
{
    struct server *s = lws_container_of(sul, struct server, tick);
    char *text = NULL;
    lws_sul_schedule(s->context, 0, &s->tick, tick, TICK_US);
    if (s->viewers && s->monitor && um_monitor_json(s->monitor, &text) == UM_OK) {
        struct bundle *b = bundle_of(text);
        for (int i = 0; b && i < s->viewers; i++) {
            bundle_drop(&s->viewer[i]->stats);
            s->viewer[i]->stats = bundle_share(b);
        }
        bundle_drop(&b);
    }
    wake_viewers(s);
    atomic_store(&s->cpu_ns[0], thread_cpu_ns());
}

/* ---- libwebsockets' side ---- */

/* Whoever knocks. We listen ourselves: where libwebsockets cannot ask for the machine's addresses,
 * it listens on all of them instead of the one that it was given. */
static int on_knock(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t n)
{
    enum { TURN = 16 };
    struct server *s = lws_context_user(lws_get_context(wsi));
    char peer[UM_SOCKET_PEER];
    int fd = -1;
    (void)user, (void)in, (void)n;
    if (reason != LWS_CALLBACK_RAW_RX_FILE)
        return 0;
    s->starved = true;
    for (int i = 0; i < TURN && um_socket_accept(&fd, lws_get_socket_fd(wsi), peer) == UM_OK; i++) {
        lws_adopt_socket_vhost(lws_get_vhost(wsi), fd); /* closes it where that fails */
        s->starved = false;
    }
    return 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t n)
{
    struct server *s = lws_context_user(lws_get_context(wsi));
    struct peer *p = user;
    switch (reason) {
    case LWS_CALLBACK_HTTP: return request(s, wsi, p);
    case LWS_CALLBACK_HTTP_BODY: return body(p, in, n);
    case LWS_CALLBACK_HTTP_BODY_COMPLETION: return p->answered ? -1 : control(s, wsi, p);
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return !um_text_same(in, "websocket") ? stay(s, wsi) : may_upgrade(s, wsi) ? 0 : -1;
    case LWS_CALLBACK_ESTABLISHED: viewer_comes(s, wsi, p); return 0;
    case LWS_CALLBACK_CLOSED: viewer_goes(s, p); return 0;
    case LWS_CALLBACK_RECEIVE: return viewer_says(s, wsi, p, in, n);
    case LWS_CALLBACK_SERVER_WRITEABLE: return viewer_takes(s, wsi, p);
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED: wake_viewers(s); return 0;
    case LWS_CALLBACK_RAW_ADOPT: return -1; /* CONNECT: it would be kept open without a limit */
    default: return 0;
    }
}

static void *run_server(void *ctx)
{
    enum { PAUSE_MS = 20 };
    struct server *s = ctx;
    lws_sul_schedule(s->context, 0, &s->tick, tick, TICK_US);
    for (int going = 0; !atomic_load(&s->ending) && going >= 0;) {
        s->starved = false;
        going = lws_service(s->context, 0);
        if (s->starved) /* who knocks finds no descriptor, and knocks on */
            poll(NULL, 0, PAUSE_MS);
    }
    lws_sul_cancel(&s->tick);
    return NULL;
}

static bool is_every_address(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* libwebsockets does not say why: errno, 0 before, is what the system did. */
static um_status no_server(const struct server *s)
{
    return um_fail(errno && errno != ENOMEM ? UM_EIO : UM_ENOMEM, "%s: no server: %s", s->spec,
                   errno ? strerror(errno) : "libwebsockets refuses the socket");
}

static um_status open_context(struct server *s, const struct um_address *a)
{
    static const struct lws_protocols protocols[] = {
        {.name = "ultramotion",
         .callback = on_event,
         .per_session_data_size = sizeof(struct peer),
         .rx_buffer_size = UM_WEB_MESSAGE,
         .tx_packet_size = 8 << 20}, /* one call for a frame */
        {.name = "knock", .callback = on_knock},
        {0}};
    static const lws_retry_bo_t patience = {.secs_since_valid_ping = 10,
                                            .secs_since_valid_hangup = 20};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = protocols,
        .user = s,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
        .fd_limit_per_thread = (unsigned)s->most + DESCRIPTORS_SPARE,
        .timeout_secs = REQUEST_S, /* a head or a body that does not come */
        .timeout_secs_ah_idle = REQUEST_S,
        .keepalive_timeout = REQUEST_S,
        .max_http_header_data = 4096,
        .max_http_header_pool = (unsigned short)(s->most + DESCRIPTORS_SPARE), /* who says
                                                  nothing holds one, too */
        .server_string = "ultramotion",
        .retry_and_idle_policy = &patience};
    struct um_address own = *a;
    lws_sock_file_fd_type listening = {.filefd = -1};
    struct sigaction before; /* libwebsockets ignores SIGPIPE, for the whole program */
    lws_set_log_level(0, NULL);
    sigaction(SIGPIPE, NULL, &before);
    errno = 0;
    s->context = lws_create_context(&info);
    sigaction(SIGPIPE, &before, NULL);
    snprintf(own.host, sizeof own.host, "%s", s->host);
    um_status st = s->context ? um_socket_listen(&listening.filefd, &s->port, &own) : no_server(s);
    if (st != UM_OK)
        return st;
    struct lws_vhost *host = lws_get_vhost_by_name(s->context, "default");
    errno = 0;
    return lws_adopt_descriptor_vhost(host, LWS_ADOPT_RAW_FILE_DESC, listening, "knock", NULL)
               ? UM_OK
               : no_server(s);
}

/* ---- the sink ---- */

/* The message of a frame: docs/VIEWER.md has it. */
static um_status make_message(struct server *s, const um_packet *packet, const um_frame *frame,
                              double now, struct bundle **out)
{
    char *line = NULL;
    s->jpeg.size = 0;
    um_status st = frame ? um_jpeg_write(&s->jpeg, frame, s->quality) : UM_OK;
    if (st == UM_OK)
        st = um_packet_json(packet, &line);
    size_t n = line ? strlen(line) : 0;
    struct bundle *b = st == UM_OK ? bundle_new(HEAD + n + s->jpeg.size) : NULL;
    if (b) {
        uint64_t bits = 0;
        memcpy(&bits, &now, sizeof bits);
        memcpy(b->data, "UMF1", 4);
        for (int i = 0; i < 4; i++) {
            b->data[4 + i] = (uint8_t)(n >> 8 * i);
            b->data[8 + i] = (uint8_t)(s->jpeg.size >> 8 * i);
            b->data[12 + i] = 0;
        }
        for (int i = 0; i < 8; i++)
            b->data[16 + i] = (uint8_t)(bits >> 8 * i);
        memcpy(b->data + HEAD, line, n);
        memcpy(b->data + HEAD + n, s->jpeg.data, s->jpeg.size);
        *out = b;
    } else if (st == UM_OK) {
        st = um_fail(UM_ENOMEM, "%s: a frame's message", s->spec);
    }
    um_free(line);
    return st;
}

static bool anyone_looks(struct server *s)
{
    bool any = false;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->viewers; i++)
        any = any || s->viewer[i]->streaming;
    pthread_mutex_unlock(&s->lock);
    return any;
}

static um_status web_write(void *priv, const um_packet *packet, const um_frame *frame,
                           const char *name)
{
    (void)name;
    struct server *s = *(struct server **)priv;
    struct bundle *b = NULL;
    double unix_now = um_clock_unix();
    count(s, FRAMES);
    if (!anyone_looks(s)) {
        count(s, UNSEEN);
        return UM_OK;
    }
    if (s->max_fps > 0 && !um_clock_due(&s->due, s->max_fps, um_clock_ns())) {
        count(s, LIMITED);
        return UM_OK;
    }
    uint64_t cpu = thread_cpu_ns();
    um_status st = make_message(s, packet, frame, unix_now, &b);
    atomic_fetch_add(&s->cpu_ns[1], thread_cpu_ns() - cpu);
    if (st != UM_OK)
        return st;
    count(s, ENCODED);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->viewers; i++) {
        struct peer *p = s->viewer[i];
        if (!p->streaming)
            continue;
        if (p->frame)
            count(s, SKIPPED);
        bundle_drop(&p->frame);
        p->frame = bundle_share(b);
    }
    pthread_mutex_unlock(&s->lock);
    bundle_drop(&b);
    lws_cancel_service(s->context);
    return UM_OK;
}

static um_status set_option(void *ctx, const char *key, const char *value)
{
    struct server *s = ctx;
    if (strcmp(key, "max-fps") == 0)
        return um_scheme_number(key, value, 0, 1000, &s->max_fps);
    if (strcmp(key, "quality") == 0)
        return um_scheme_whole(key, value, 1, 100, &s->quality);
    if (strcmp(key, "viewers") == 0)
        return um_scheme_whole(key, value, 1, VIEWERS_MOST, &s->most);
    if (strcmp(key, "host") == 0) { /* may be repeated */
        size_t n = strlen(s->names);
        if (!value[0] || n + strlen(value) + 2 > sizeof s->names)
            return um_fail(UM_EINVAL, "host: \"%s\" is no name, or one too many", value);
        snprintf(s->names + n, sizeof s->names - n, "%s%s", n ? "," : "", value);
        return UM_OK;
    }
    if (strcmp(key, "token-file") == 0 && value[0]) {
        snprintf(s->token_file, sizeof s->token_file, "%s", value);
        return UM_OK;
    }
    return um_fail(UM_EINVAL,
                   "no option %s=%s: known are max-fps, quality, viewers, host=NAME, "
                   "token-file=PATH",
                   key, value);
}

/* An address for libwebsockets, and whether it is this machine's own. */
static um_status resolve(struct server *s, const struct um_address *a)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    const char *name = a->host[0] ? a->host : "127.0.0.1";
    if (strcmp(name, "localhost") == 0)
        hints.ai_family = AF_INET;
    int error = getaddrinfo(name, a->port, &hints, &list);
    if (!error)
        error = getnameinfo(list->ai_addr, list->ai_addrlen, s->host, sizeof s->host, NULL, 0,
                            NI_NUMERICHOST);
    if (list)
        freeaddrinfo(list);
    if (error)
        return um_fail(UM_EIO, "%s: %s: %s", s->spec, name, gai_strerror(error));
    s->loopback = strncmp(s->host, "127.", 4) == 0 || strcmp(s->host, "::1") == 0;
    return UM_OK;
}

static um_status make_token(struct server *s)
{
    uint8_t random[16];
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, random, sizeof random) : -1;
    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)sizeof random)
        return um_fail(UM_EIO, "%s: no random numbers for a token", s->spec);
    for (int i = 0; i < 16; i++)
        snprintf(s->token + 2 * i, 3, "%02x", random[i]);
    return UM_OK;
}

/* The first line of a file. */
static um_status read_token(struct server *s)
{
    unsigned char *data = NULL;
    size_t size = 0;
    um_status st = um_file_read(s->token_file, 4096, &data, &size);
    if (st != UM_OK)
        return um_fail_in(st, s->token_file);
    size_t n = strcspn((const char *)data, "\r\n");
    bool good = n >= 8 && n <= UM_WEB_TOKEN;
    for (size_t i = 0; i < n && good; i++)
        good = (data[i] >= '0' && data[i] <= '9') || (data[i] >= 'a' && data[i] <= 'z') ||
               (data[i] >= 'A' && data[i] <= 'Z') || data[i] == '-' || data[i] == '_';
    if (good)
        snprintf(s->token, sizeof s->token, "%.*s", (int)n, (const char *)data);
    um_free(data);
    return good ? UM_OK
                : um_fail(UM_EFORMAT,
                          "%s: want a token of 8 to %d letters, digits, '-' and '_' in the first "
                          "line",
                          s->token_file, UM_WEB_TOKEN);
}

static um_status choose_token(struct server *s)
{
    if (s->token_file[0])
        return read_token(s);
    if (s->loopback)
        return UM_OK;
    if (!s->log)
        return um_fail(UM_EINVAL,
                       "%s: others can reach it, so it needs a token, which nobody would hear of: "
                       "give one with ?token-file=PATH",
                       s->spec);
    return make_token(s);
}

/* By which others reach a server on all addresses: the first that is not loopback. */
static void outer_address(char *host, size_t size)
{
    struct ifaddrs *all = NULL;
    char found[INET_ADDRSTRLEN];
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next)
        if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET &&
            getnameinfo(a->ifa_addr, sizeof(struct sockaddr_in), found, sizeof found, NULL, 0,
                        NI_NUMERICHOST) == 0 &&
            strncmp(found, "127.", 4) != 0) {
            snprintf(host, size, "%s", found);
            break;
        }
    freeifaddrs(all);
}

static void announce(struct server *s)
{
    char text[512], host[sizeof s->host];
    snprintf(host, sizeof host, "%s", s->host);
    if (is_every_address(host))
        outer_address(host, sizeof host);
    bool v6 = strchr(host, ':') != NULL;
    snprintf(text, sizeof text, "open http://%s%s%s:%d/%s%s", v6 ? "[" : "", host, v6 ? "]" : "",
             s->port, s->token[0] && !s->token_file[0] ? "#token=" : "",
             s->token[0] && !s->token_file[0] ? s->token : "");
    say(s, text, s->token_file[0] ? " (with #token= and the token of the file)" : "");
}

static um_status web_open(void *priv, const char *arg, const um_sink_settings *settings,
                          int wake_fd)
{
    (void)wake_fd; /* write() never waits */
    struct um_address address;
    struct server *s = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "viewer");
    *(struct server **)priv = s;
    pthread_mutex_init(&s->lock, NULL);
    s->log = settings->log;
    s->log_ctx = settings->log_ctx;
    s->monitor = um_monitor_ref(settings->monitor);
    s->max_fps = 60;
    s->quality = 85;
    s->most = 32;
    um_status st = um_address_read(&address, "web", arg);
    s->spec = um_scheme_spec("web", arg);
    if (st == UM_OK && !s->spec)
        st = um_fail(UM_ENOMEM, "viewer");
    if (st != UM_OK)
        return st;
    st = um_scheme_options(address.options, s->spec, "host", set_option, s);
    if (st == UM_OK)
        st = resolve(s, &address);
    if (st == UM_OK)
        st = choose_token(s);
    if (st == UM_OK)
        st = open_context(s, &address);
    if (st == UM_OK)
        st = um_thread_start(&s->thread, run_server, s, s->spec);
    s->started = st == UM_OK;
    if (s->started)
        announce(s);
    return st;
}

static um_status web_close(void *priv)
{
    struct server *s = *(struct server **)priv;
    if (!s)
        return UM_OK;
    if (s->started) {
        atomic_store(&s->ending, true);
        lws_cancel_service(s->context);
        pthread_join(s->thread, NULL);
    }
    if (s->context)
        lws_context_destroy(s->context);
    um_jpeg_finish(&s->jpeg);
    um_monitor_close(&s->monitor);
    pthread_mutex_destroy(&s->lock);
    um_free(s->spec);
    um_free(s);
    return UM_OK;
}

static void web_counts(const void *priv, void (*each)(void *ctx, const char *name, uint64_t n),
                       void *ctx)
{
    struct server *s = *(struct server *const *)priv;
    pthread_mutex_lock(&s->lock);
    int viewers = s->viewers;
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < COUNTS; i++)
        each(ctx, count_names[i], atomic_load(&s->count[i]));
    each(ctx, "connected", (uint64_t)viewers);
    each(ctx, "server_cpu_us", atomic_load(&s->cpu_ns[0]) / 1000);
    each(ctx, "encoding_cpu_us", atomic_load(&s->cpu_ns[1]) / 1000);
    each(ctx, "port", (uint64_t)s->port);
}

const um_sink_ops um_sink_web = {
    .struct_size = sizeof um_sink_web,
    .priv_size = sizeof(struct server *),
    .open = web_open,
    .write = web_write,
    .close = web_close,
    .counts = web_counts,
};
