/* SPDX-License-Identifier: Apache-2.0 */
/* "igtl:[HOST]:PORT" (any number of clients) and "igtl-connect:HOST:PORT" (one server): masks,
 * boxes and states over OpenIGTLink. A frame's messages are made once for each version that
 * somebody speaks, and shared; every client has a mailbox of a few frames, of which the oldest goes
 * when a newer one finds no room, so that a slow client costs nobody but itself. */
#include "io/sink.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/thread.h"
#include "base/wake.h"
#include "io/igtl_link.h"
#include "io/origin.h"
#include "io/scheme.h"
#include "ultramotion/ultramotion.h"

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

enum { CLIENTS_MOST = 64, MAILBOX_MOST = 64, CLASSES = 256 };

/* Messages as bytes, shared by the clients that still have to get them. */
struct bundle {
    atomic_int refs;
    struct um_igtl_outbox out;
    size_t relayed; /* bytes in front that are the source's own messages; the mask is next */
};

struct letter {
    struct bundle *bundle;
    size_t at, end;
    bool frame; /* may be dropped while at is its start */
};

struct client {
    struct um_igtl_link link;
    char peer[UM_IGTL_PEER];
    struct letter box[MAILBOX_MOST];
    int letters;
    bool streaming, relaying, started; /* started: a part of the first letter is sent */
    bool once;                         /* it asked before there was a frame */
    unsigned labels;                   /* the version of LBMETA that it has */
    uint64_t moved;                    /* when it last took something, ns */
};

struct server {
    char *spec;
    void (*log)(void *ctx, const char *text);
    void *log_ctx;
    bool connects;
    struct um_address address;
    int objects;
    /* options */
    char name[UM_IGTL_NAME + 1];
    bool relay_image, relay_transforms, per_class, by_object;
    int version; /* 0: as each client speaks */
    double max_fps, mailbox, most;
    int wake_up, stop, listening, port;
    pthread_t thread;
    bool started;
    struct um_igtl_news news; /* of the thread alone */
    atomic_ullong count[COUNTS];
    atomic_bool ending;
    pthread_mutex_t lock;
    struct client *client; /* CLIENTS_MOST of them; guarded by lock, as all below */
    int clients;
    struct bundle *last[3]; /* by version */
    struct bundle *labels[3];
    unsigned labels_version;
    /* of the writing thread alone */
    uint64_t sent_at;
    char class_name[CLASSES][65];
    bool class_seen[CLASSES], labels_changed;
    char labelled[2][UM_IGTL_NAME + 1]; /* mask and owner that LBMETA speaks of */
    uint16_t labelled_size[2];
    uint8_t *pixels;
    size_t pixel_bytes;
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
    if (frames < (int)s->mailbox && c->letters < MAILBOX_MOST)
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

/* ---- what is sent ---- */

struct content {
    const um_packet *packet;
    const um_frame *frame;
    const struct um_origin *origin; /* or NULL */
    struct um_igtl_image image;     /* where the mask lies */
    char mask[UM_IGTL_NAME + 1], owner[UM_IGTL_NAME + 1];
    uint64_t stamp;
    uint32_t id;
};

/* "Image_Reference" -> "Mask_Reference": what is in front of the frame it lies in changes. `class`
 * -1: of all. True: it had to be cut. */
static bool mask_name(const struct server *s, char *to, const char *device, int class)
{
    char name[64], number[12] = "";
    const char *in = s->name[0] ? NULL : strchr(device, '_');
    if (class >= 0)
        snprintf(number, sizeof number, "%d", class + 1);
    snprintf(name, sizeof name, "%s%s%s", s->name[0] ? s->name : "Mask", number, in ? in : "");
    snprintf(to, UM_IGTL_NAME + 1, "%.20s", name);
    return strlen(name) > UM_IGTL_NAME;
}

static void describe(const struct server *s, struct content *c, const um_packet *packet,
                     const um_frame *frame)
{
    *c = (struct content){.packet = packet, .frame = frame, .origin = um_frame_origin(frame)};
    if (c->origin && c->origin->image.size[0] == packet->width &&
        c->origin->image.size[1] == packet->height)
        c->image = c->origin->image;
    else
        um_igtl_image_place_plainly(&c->image, packet->width, packet->height,
                                    packet->has_spacing ? packet->spacing_mm : NULL);
    c->image.components = 1;
    c->image.scalar = UM_IGTL_U8;
    c->image.endian = UM_IGTL_LITTLE;
    c->image.coordinates = UM_IGTL_RAS; /* what everybody takes it for */
    for (int i = 0; i < 3; i++) {
        c->image.offset[i] = 0;
        c->image.part[i] = c->image.size[i];
    }
    snprintf(c->owner, sizeof c->owner, "%s", c->origin ? c->origin->device : "");
    mask_name(s, c->mask, c->owner, -1);
    c->stamp = c->origin && c->origin->stamp ? c->origin->stamp : um_igtl_stamp(packet->ts);
    c->id = (uint32_t)packet->frame_id;
}

/* ---- metadata ---- */

enum { PAIRS = 13 };
struct meta {
    char text[PAIRS][160];
    struct um_igtl_pair pair[PAIRS];
    int n;
};

static void add(struct meta *m, const char *key, const char *fmt, ...) UM_PRINTF(3, 4);
static void add(struct meta *m, const char *key, const char *fmt, ...)
{
    va_list ap;
    char *text = m->text[m->n];
    va_start(ap, fmt);
    um_number_vprint(text, sizeof *m->text, fmt, ap);
    va_end(ap);
    m->pair[m->n++] = (struct um_igtl_pair){key, text, strlen(key), strlen(text), UM_IGTL_ASCII};
}

/* Since the frame was here, by a clock that nobody sets. */
static double latency_ms(const struct content *c)
{
    uint64_t since = c->frame ? c->frame->received_ns : 0;
    return since ? (double)(um_clock_ns() - since) * 1e-6 : c->packet->latency_ms;
}

static void make_meta(struct meta *m, const struct content *c)
{
    const um_packet *p = c->packet;
    double now = um_clock_unix(), ms = latency_ms(c);
    m->n = 0;
    add(m, "FrameId", "%llu", (unsigned long long)p->frame_id);
    add(m, "SourceTimestamp", "%u.%09u", (unsigned)(c->stamp >> 32),
        (unsigned)(((c->stamp & 0xffffffff) * 1000000000) >> 32));
    add(m, "RxTimestamp", "%.6f", now - ms * 1e-3);
    add(m, "TxTimestamp", "%.6f", now);
    add(m, "LatencyMs", "%.3f", ms);
    add(m, "State", "%s", um_state_name(p->state));
    add(m, "Score", "%.6g", (double)p->score);
    if (p->has_box)
        add(m, "BoxXYXY", "%.9g,%.9g,%.9g,%.9g", (double)p->box[0], (double)p->box[1],
            (double)p->box[2], (double)p->box[3]);
    else
        add(m, "BoxXYXY", "%s", "");
    add(m, "Model", "%s%s%s", p->detector, p->segmenter[0] ? "," : "", p->segmenter);
    add(m, "ModelSha256", "%s%s%s", p->detector_sha256, p->segmenter_sha256[0] ? "," : "",
        p->segmenter_sha256);
    add(m, "Engine", "ultramotion %s %s %s", um_version(), p->device, p->precision);
    add(m, "Status", "%s", "OK");
    if (p->gain > 0)
        add(m, "Gain", "%.6g", (double)p->gain);
    if (p->reused)
        add(m, "Reused", "%d", 1);
}

/* ---- messages of a frame ---- */

static uint8_t value_of(const struct server *s, const um_packet *p, int i)
{
    const um_object *o = um_packet_object(p, i);
    int v = s->by_object ? i + 1 : o->label + 1;
    return (uint8_t)(v > 0 && v < 256 ? v : 255);
}

/* The values 0 and, where there is a mask, its label; of several the best. `class` -1: all. */
static void draw(struct server *s, const um_packet *p, int class)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    uint8_t value[256] = {0};
    if (class < 0 && s->objects == 1) {
        um_packet_mask(p, s->pixels, 1);
        return;
    }
    um_packet_label_map(p, s->pixels);
    for (int i = 0; i < p->objects; i++)
        value[i + 1] = class < 0 ? value_of(s, p, i) : um_packet_object(p, i)->label == class;
    for (size_t k = 0; k < n; k++)
        s->pixels[k] = value[s->pixels[k]];
}

static void put_mask(struct server *s, struct um_igtl_outbox *out, const struct content *c,
                     int version, const struct meta *meta, int class)
{
    char name[UM_IGTL_NAME + 1];
    const um_packet *p = c->packet;
    size_t n = (size_t)p->width * (size_t)p->height;
    mask_name(s, name, c->owner, class);
    draw(s, p, class);
    um_igtl_begin(out, version, "IMAGE", name, c->stamp, c->id);
    um_igtl_image_write(out, &c->image);
    um_igtl_bytes(out, s->pixels, n);
    um_igtl_end(out, meta->pair, meta->n);
}

static void put_string(struct um_igtl_outbox *out, const struct content *c, int version,
                       const char *device, const char *text)
{
    um_igtl_begin(out, version, "STRING", device, c->stamp, c->id);
    um_igtl_string_write(out, text);
    um_igtl_end(out, NULL, 0);
}

static char *box_text(const struct content *c)
{
    const um_packet *p = c->packet;
    um_json j = {0};
    char *text = NULL;
    um_json_begin(&j, '{');
    um_json_put_uint(&j, "frame_id", p->frame_id);
    um_json_put_string(&j, "state", um_state_name(p->state));
    um_json_put_float(&j, "score", p->score);
    um_json_put_floats(&j, "box_xyxy", p->has_box ? p->box : NULL, 4);
    um_json_put_begin(&j, "objects", '[');
    for (int i = 0; i < p->objects; i++) {
        const um_object *o = um_packet_object(p, i);
        um_json_begin(&j, '{');
        um_json_put_int(&j, "label", o->label);
        um_json_put_string(&j, "name", o->name);
        um_json_put_float(&j, "score", o->score);
        um_json_put_floats(&j, "box_xyxy", o->has_box ? o->box : NULL, 4);
        um_json_end(&j, '}');
    }
    um_json_end(&j, ']');
    um_json_end(&j, '}');
    return um_json_finish(&j, &text) == UM_OK ? text : NULL;
}

/* What the sender sent, for those who see only us. */
static void put_relay(struct server *s, struct um_igtl_outbox *out, const struct content *c,
                      int version)
{
    const struct um_origin *o = c->origin;
    const um_frame *f = c->frame;
    if (!o || !f)
        return;
    for (int i = 0; s->relay_transforms && i < o->transforms; i++) {
        if (!o->transform[i].valid)
            continue;
        um_igtl_begin(out, version, "TRANSFORM", o->transform[i].name, c->stamp, c->id);
        um_igtl_transform_write(out, o->transform[i].matrix);
        um_igtl_end(out, NULL, 0);
    }
    if (!s->relay_image)
        return;
    struct um_igtl_image image = o->image;
    image.endian = UM_IGTL_LITTLE;
    image.coordinates = UM_IGTL_RAS;
    um_igtl_begin(out, version, "IMAGE", o->device, c->stamp, c->id);
    um_igtl_image_write(out, &image);
    for (int y = 0; y < f->height; y++)
        um_igtl_bytes(out, f->pixels + y * f->stride, (size_t)f->width * (size_t)f->channels);
    um_igtl_end(out, NULL, 0);
}

static struct bundle *make_bundle(struct server *s, const struct content *c, int version)
{
    struct bundle *b = bundle_new();
    char *box = box_text(c);
    struct meta meta;
    if (!b || !box) {
        bundle_drop(b);
        um_free(box);
        return NULL;
    }
    make_meta(&meta, c);
    put_relay(s, &b->out, c, version);
    b->relayed = b->out.size;
    put_mask(s, &b->out, c, version, &meta, -1);
    for (int class = 0; s->per_class && class < CLASSES; class ++)
        if (s->class_seen[class]) /* an empty one too, or the last would stay on the screen */
            put_mask(s, &b->out, c, version, &meta, class);
    put_string(&b->out, c, version, "Box", box);
    put_string(&b->out, c, version, "State", um_state_name(c->packet->state));
    um_free(box);
    if (!b->out.failed)
        return b;
    bundle_drop(b);
    return NULL;
}

/* ---- labels ---- */

/* Has anything that LBMETA says become different? */
static void learn_labels(struct server *s, const struct content *c)
{
    const um_packet *p = c->packet;
    for (int i = 0; i < p->objects; i++) {
        const um_object *o = um_packet_object(p, i);
        int class = o->label >= 0 && o->label < CLASSES - 1 ? o->label : CLASSES - 1;
        const char *name = o->name ? o->name : "";
        if (s->class_seen[class] && strncmp(s->class_name[class], name, 64) == 0)
            continue;
        s->class_seen[class] = s->labels_changed = true;
        snprintf(s->class_name[class], sizeof s->class_name[class], "%.64s", name);
    }
    if (strcmp(s->labelled[0], c->mask) != 0 || strcmp(s->labelled[1], c->owner) != 0 ||
        s->labelled_size[0] != c->image.size[0] || s->labelled_size[1] != c->image.size[1]) {
        memcpy(s->labelled[0], c->mask, sizeof c->mask);
        memcpy(s->labelled[1], c->owner, sizeof c->owner);
        s->labelled_size[0] = c->image.size[0];
        s->labelled_size[1] = c->image.size[1];
        s->labels_changed = true;
        char name[UM_IGTL_NAME + 1];
        if (mask_name(s, name, c->owner, -1))
            count(s, CUT);
    }
}

static void put_label(struct server *s, struct um_igtl_outbox *out, const struct content *c,
                      int class, int value, bool own_image)
{
    static const uint8_t colors[6][3] = {{255, 96, 64},  {64, 200, 96},  {80, 144, 255},
                                         {240, 208, 64}, {208, 96, 240}, {64, 216, 224}};
    struct um_igtl_label l = {
        .label = (uint8_t)value,
        .rgba = {colors[value % 6][0], colors[value % 6][1], colors[value % 6][2], 255},
        .size = {c->image.size[0], c->image.size[1], c->image.size[2]}};
    if (s->class_name[class][0])
        snprintf(l.name, sizeof l.name, "%s", s->class_name[class]);
    else
        snprintf(l.name, sizeof l.name, "class %d", class);
    memcpy(l.owner, c->owner, sizeof l.owner);
    mask_name(s, l.device, c->owner, own_image ? class : -1);
    um_igtl_label_write(out, &l);
}

static struct bundle *make_labels(struct server *s, const struct content *c, int version)
{
    struct bundle *b = bundle_new();
    if (!b)
        return NULL;
    um_igtl_begin(&b->out, version, "LBMETA", c->mask, c->stamp, c->id);
    bool any = false;
    for (int class = 0; class < CLASSES; class ++) {
        if (!s->class_seen[class])
            continue;
        any = true;
        if (!s->by_object || s->objects == 1)
            put_label(s, &b->out, c, class, s->objects > 1 ? class + 1 : 1, false);
        if (s->per_class)
            put_label(s, &b->out, c, class, 1, true);
    }
    if (!any)
        put_label(s, &b->out, c, 0, 1, false);
    um_igtl_end(&b->out, NULL, 0);
    if (!b->out.failed)
        return b;
    bundle_drop(b);
    return NULL;
}

/* ---- writing a frame ---- */

static um_status room_for_pixels(struct server *s, const um_packet *p)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    if (n <= s->pixel_bytes)
        return UM_OK;
    um_free(s->pixels);
    s->pixels = um_alloc(n);
    s->pixel_bytes = s->pixels ? n : 0;
    return s->pixels ? UM_OK : um_fail(UM_ENOMEM, "%s: a mask of %zu bytes", s->spec, n);
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

static void hand_out(struct server *s, struct bundle *frame[3], struct bundle *labels[3])
{
    pthread_mutex_lock(&s->lock);
    for (int v = 1; v < 3; v++) {
        bundle_drop(s->last[v]);
        s->last[v] = frame[v];
        if (s->labels_changed || labels[v]) {
            bundle_drop(s->labels[v]);
            s->labels[v] = labels[v];
        }
    }
    s->labels_version += s->labels_changed;
    s->labels_changed = false;
    for (int i = 0; i < s->clients; i++) {
        struct client *c = &s->client[i];
        int v = spoken(s, c);
        struct bundle *b = frame[v] ? frame[v] : frame[3 - v]; /* it has just changed */
        if (!b || !(c->streaming || c->once) || !make_room(s, c))
            continue;
        if (c->labels != s->labels_version && s->labels[v]) {
            post(c, s->labels[v], 0, s->labels[v]->out.size, false);
            c->labels = s->labels_version;
        }
        post(c, b, c->relaying ? 0 : b->relayed, b->out.size, true);
        c->once = false;
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
    struct content c;
    bool used[3];
    uint64_t now = um_clock_ns();
    count(s, FRAMES);
    if (s->max_fps > 0 && s->sent_at && (double)(now - s->sent_at) * s->max_fps < 0.95e9) {
        count(s, LIMITED);
        return UM_OK;
    }
    s->sent_at = now;
    describe(s, &c, packet, frame);
    learn_labels(s, &c);
    versions(s, used);
    um_status st = used[1] || used[2] ? room_for_pixels(s, packet) : UM_OK;
    for (int v = 1; v < 3 && st == UM_OK; v++) {
        if (!used[v])
            continue;
        bool due = s->labels_changed || !s->labels[v];
        made[v] = make_bundle(s, &c, v);
        labels[v] = due ? make_labels(s, &c, v) : NULL;
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
    if (s->clients >= (int)s->most) {
        struct um_igtl_outbox out = {0};
        um_igtl_tell(&out, 1, UM_IGTL_RESOURCE, "too many clients");
        um_igtl_send_now(fd, &out);
        close(fd);
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
static void reproach(struct client *c, const char *why)
{
    struct um_igtl_outbox out = {0};
    if (c->started)
        return; /* in the middle of another message */
    um_igtl_tell(&out, 1, UM_IGTL_OVERFLOW, why);
    um_igtl_send_now(c->link.fd, &out);
}

/* Where the image of a name lies among a frame's messages; without a name the mask. */
static bool find_image(const struct bundle *b, const char *device, size_t *from, size_t *to)
{
    struct um_igtl_header h;
    for (*from = 0; *from < b->out.size; *from = *to) {
        um_igtl_header_read(&h, b->out.data + *from, UM_IGTL_HEADER);
        *to = *from + UM_IGTL_HEADER + (size_t)h.body_size;
        if (strcmp(h.type, "IMAGE") == 0 &&
            (device[0] ? strcmp(h.device, device) == 0 : *from == b->relayed))
            return true;
    }
    return false;
}

static void answer(struct server *s, struct client *c, const struct um_igtl_message *m)
{
    const char *type = m->header.type;
    int v = spoken(s, c);
    struct bundle *b = s->last[v] ? s->last[v] : s->last[3 - v], *own = bundle_new();
    size_t from = 0, to = 0;
    bool done = false;
    if (!own)
        return;
    bool image = um_igtl_asks(type, "STT_", "IMAGE") || um_igtl_asks(type, "STP_", "IMAGE") ||
                 um_igtl_asks(type, "GET_", "IMAGE");
    if (image && b && !find_image(b, m->header.device, &from, &to)) {
        um_igtl_reply(&own->out, m, v, 1);
        done = true;
    } else if (um_igtl_asks(type, "STT_", "IMAGE") || um_igtl_asks(type, "STP_", "IMAGE")) {
        c->streaming = type[2] == 'T';
        um_igtl_reply(&own->out, m, v, 0);
        done = true;
    } else if (um_igtl_asks(type, "STT_", "TRANSFORM") || um_igtl_asks(type, "STP_", "TRANSFORM")) {
        c->relaying = type[2] == 'T';
        um_igtl_reply(&own->out, m, v, !s->relay_transforms);
        done = true;
    } else if (um_igtl_asks(type, "GET_", "IMAGE")) {
        done = true;
        if (b && make_room(s, c)) /* as much of frames waits for who asks as for who is sent them */
            post(c, b, from, to, true);
        else if (!b)
            c->once = true; /* the next one */
    } else if (um_igtl_asks(type, "GET_", "LBMETA") && s->labels[v]) {
        post(c, s->labels[v], 0, s->labels[v]->out.size, false);
        done = true;
    }
    if (!done)
        done = um_igtl_answer(&own->out, m, v);
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
        reproach(c, um_last_error());
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
    char peer[UM_IGTL_PEER];
    uint64_t sent = atomic_load(&s->count[SENT]);
    if (sent != h->sent)
        h->backoff = LEAST_MS;
    h->sent = sent;
    if (h->backoff > 0 && um_wake_wait(s->stop, (int)h->backoff))
        return;
    h->backoff = h->backoff > 0 ? fmin(h->backoff * 2, MOST_MS) : LEAST_MS;
    um_status st = um_igtl_connect(&fd, &s->address, s->stop, MS);
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
    enum { BEAT_MS = 250, PAUSE_MS = 20 };
    struct server *s = ctx;
    struct search search = {0};
    while (!atomic_load(&s->ending)) {
        struct pollfd p[CLIENTS_MOST + 2] = {{.fd = s->wake_up, .events = POLLIN},
                                             {.fd = s->listening, .events = POLLIN}};
        char peer[UM_IGTL_PEER];
        int fd = -1;
        pthread_mutex_lock(&s->lock);
        int n = s->clients;
        for (int i = 0; i < n; i++)
            p[i + 2] =
                (struct pollfd){.fd = s->client[i].link.fd,
                                .events = (short)(POLLIN | (s->client[i].letters ? POLLOUT : 0))};
        pthread_mutex_unlock(&s->lock);
        if (s->connects && n == 0) {
            look_for(s, &search);
            continue;
        }
        poll(p, (nfds_t)n + 2, BEAT_MS);
        um_wake_clear(s->wake_up);
        pthread_mutex_lock(&s->lock);
        for (int i = n - 1; i >= 0; i--) /* from behind: who goes is replaced by the last */
            look_after(s, i, p[i + 2].revents);
        bool knocked = p[1].revents != 0, came = false;
        for (; knocked && um_igtl_accept(&fd, s->listening, peer) == UM_OK; came = true)
            client_come(s, fd, peer);
        pthread_mutex_unlock(&s->lock);
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
    double number = 0;
    if (strcmp(key, "name") == 0) {
        if (!value[0] || strlen(value) > UM_IGTL_NAME)
            return um_fail(UM_EINVAL, "name: \"%s\" is not 1 to %d characters", value,
                           UM_IGTL_NAME);
        strcpy(s->name, value);
        return UM_OK;
    }
    if (strcmp(key, "relay") == 0) {
        s->relay_image = strcmp(value, "image") == 0 || strcmp(value, "all") == 0;
        s->relay_transforms = strcmp(value, "transforms") == 0 || strcmp(value, "all") == 0;
        return s->relay_image || s->relay_transforms
                   ? UM_OK
                   : um_fail(UM_EINVAL, "relay: \"%s\" is not image, transforms or all", value);
    }
    if (strcmp(key, "per-class") == 0) {
        s->per_class = true;
        return value[0] ? um_fail(UM_EINVAL, "per-class takes no value") : UM_OK;
    }
    if (strcmp(key, "labels") == 0) {
        s->by_object = strcmp(value, "object") == 0;
        return s->by_object || strcmp(value, "class") == 0
                   ? UM_OK
                   : um_fail(UM_EINVAL, "labels: \"%s\" is not class or object", value);
    }
    if (strcmp(key, "version") == 0) {
        um_status st = um_scheme_number(key, value, 1, 2, &number);
        s->version = (int)number;
        return st;
    }
    if (strcmp(key, "max-fps") == 0)
        return um_scheme_number(key, value, 0, 1000, &s->max_fps);
    if (strcmp(key, "mailbox") == 0)
        return um_scheme_number(key, value, 1, MAILBOX_MOST / 2, &s->mailbox);
    if (strcmp(key, "clients") == 0)
        return um_scheme_number(key, value, 1, CLIENTS_MOST, &s->most);
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
    s->objects = settings->objects;
    s->mailbox = 3;
    s->most = 16;
    um_status st = um_address_read(&s->address, scheme, arg);
    s->spec = um_scheme_spec(scheme, arg);
    s->client = um_array(CLIENTS_MOST, sizeof *s->client);
    if (st == UM_OK && (!s->spec || !s->client))
        st = um_fail(UM_ENOMEM, "OpenIGTLink sink");
    if (st == UM_OK)
        st = um_scheme_options(s->address.options, s->spec, set_option, s);
    if (st == UM_OK && connects && !s->address.host[0])
        st = um_fail(UM_EINVAL, "%s: no host; igtl:%s waits for clients", s->spec, arg);
    if (st == UM_OK)
        st = um_wake_open(&s->stop, s->spec);
    if (st == UM_OK)
        st = um_wake_open(&s->wake_up, s->spec);
    if (st == UM_OK && !connects &&
        (st = um_igtl_listen(&s->listening, &s->port, &s->address)) == UM_OK) {
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
    um_free(s->pixels);
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
        waiting += s->client[i].letters;
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
