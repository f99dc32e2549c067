/* SPDX-License-Identifier: Apache-2.0 */
/* "igtl://HOST:PORT" and "igtl-listen:[HOST]:PORT": images from an OpenIGTLink peer. A thread reads
 * the socket to its end at all times, because a sender such as PlusServer waits for its slowest
 * reader; the newest image waits to be read, and whatever becomes of the others is counted. */
#include "io/source.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"
#include "base/wake.h"
#include "io/igtl_link.h"
#include "io/origin.h"
#include "io/scheme.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum count {
    IMAGES,       /* messages that were frames of the device */
    REPLACED,     /* by a newer one before they were read */
    WITHOUT_POSE, /* the pose of that stamp never came */
    OTHER_DEVICE,
    UNSUPPORTED, /* volumes, parts, scalars that are no 8-bit gray or RGB */
    MALFORMED,
    BAD_CRC,
    SKIPPED, /* versions above 2 */
    TRANSFORMS,
    INVALID, /* of these: said to be so, or not finite */
    OTHER_TYPE,
    CONNECTIONS,
    LOST,    /* connections that ended by themselves */
    SILENT,  /* ended because nothing came */
    REFUSED, /* a second sender */
    COUNTS
};
static const char *const count_names[COUNTS] = {
    "images",     "replaced",    "without_pose", "other_device", "unsupported",
    "malformed",  "bad_crc",     "skipped",      "transforms",   "invalid",
    "other_type", "connections", "lost",         "silent",       "refused"};

enum crc { CRC_CHECK, CRC_COUNT, CRC_IGNORE };
enum { POSES = UM_ORIGIN_TRANSFORMS };

struct pose {
    uint64_t stamp; /* 0 = none */
    char name[UM_IGTL_NAME + 1];
    float matrix[12];
    bool valid;
};

/* Outlives the source where its thread is inside a call that cannot be woken: the resolver's. */
struct live {
    atomic_int refs;
    bool listens;
    struct um_address address;
    char *spec;
    void (*log)(void *ctx, const char *text);
    void *log_ctx;
    /* options */
    char device[UM_IGTL_NAME + 1], pose[UM_IGTL_NAME + 1];
    enum crc crc;
    bool honour, quiet; /* coordinates; quiet: say nothing of version 2 */
    double idle_ms, pair_ms, connect_ms;
    /* descriptors: end, which is the source's own, by another number; the thread has; a frame or a
     * problem waits */
    int stop, done, ready;
    int listening, port;
    atomic_ullong count[COUNTS];
    pthread_mutex_t lock;
    um_frame *newest;  /* guarded by lock, as all below */
    uint64_t late;     /* frames that were whole only when the source was cancelled */
    char problem[256]; /* of the sender's images; "" = none */
    bool muted;        /* from now on: nobody may be told */
    /* of the thread alone */
    struct um_igtl_news news;
    struct um_igtl_link link;
    struct um_igtl_exits exits;
    char peer[UM_SOCKET_PEER];
    um_frame *held;             /* waits for its pose */
    atomic_bool holds;          /* there is one, for who counts */
    uint64_t held_until, heard; /* heard: when something came last, ns */
    struct {                    /* of this connection */
        char following[UM_IGTL_NAME + 1];
        bool following_set;
        uint64_t followed; /* when its last image came, or the peer, ns */
        struct pose poses[POSES];
        unsigned next_pose;
        bool pose_comes, posed; /* its name has been seen; an image had one */
        int unposed;            /* images that had none */
        double spacing[2];      /* of the last image */
        uint64_t last;          /* stamp of the image that went last, */
        int together;           /* and how many transforms had it */
        struct {
            bool unfit, place, pose, device, broken;
        } told;
    } here;
};

struct source {
    struct live *live;
    pthread_t thread;
    bool started;
};

static void leave(struct live *l)
{
    if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    um_igtl_link_close(&l->link);
    um_frame_unref(&l->held);
    um_frame_unref(&l->newest);
    if (l->listening >= 0)
        close(l->listening);
    um_wake_close(&l->stop);
    um_wake_close(&l->done);
    um_wake_close(&l->ready);
    pthread_mutex_destroy(&l->lock);
    um_free(l->spec);
    um_free(l);
}

static void count(struct live *l, enum count what)
{
    atomic_fetch_add_explicit(&l->count[what], 1, memory_order_relaxed);
}

/* Frames do not wait for whoever is told. */
static void tell(struct live *l, bool last)
{
    char line[UM_IGTL_LINE];
    while (um_igtl_news_take(&l->news, l->spec, last, line)) {
        pthread_mutex_lock(&l->lock);
        bool muted = l->muted;
        pthread_mutex_unlock(&l->lock);
        if (l->log && !muted)
            l->log(l->log_ctx, line);
    }
}

static void say(struct live *l, const char *what, const char *why)
{
    tell(l, false);
    um_igtl_news_note(&l->news, l->spec, what, "", why);
    tell(l, false);
}

static void say_of(struct live *l, const char *kind, const char *device, const char *why)
{
    char text[80];
    snprintf(text, sizeof text, "%s \"%s\"", kind, device);
    say(l, text, why);
}

/* ---- frames ---- */

/* Once the source is cancelled, when others take stock, nothing is replaced any more. */
static void deliver(struct live *l, um_frame *frame)
{
    pthread_mutex_lock(&l->lock);
    um_frame *old = frame;
    if (!um_wake_wait(l->stop, 0)) {
        old = l->newest;
        l->newest = frame;
    } else {
        l->late++;
    }
    if (old && old != frame)
        count(l, REPLACED);
    pthread_mutex_unlock(&l->lock);
    um_frame_unref(&old);
    um_wake_set(l->ready);
}

/* An image that is no frame for us: said once a connection, always counted. */
static void refuse(struct live *l, const struct um_igtl_message *m, const char *why)
{
    count(l, UNSUPPORTED);
    if (l->here.told.unfit)
        return;
    l->here.told.unfit = true;
    pthread_mutex_lock(&l->lock);
    snprintf(l->problem, sizeof l->problem, "%s: image \"%s\": %s", l->spec, m->header.device, why);
    pthread_mutex_unlock(&l->lock);
    um_wake_set(l->ready);
}

/* What came with the same stamp belongs to the frame. */
static void take_poses(struct live *l, um_frame *frame, struct um_origin *o)
{
    o->transforms = 0;
    for (int i = 0; i < POSES && o->stamp; i++) {
        const struct pose *p = &l->here.poses[i];
        if (p->stamp != o->stamp)
            continue;
        memcpy(o->transform[o->transforms].name, p->name, sizeof p->name);
        memcpy(o->transform[o->transforms].matrix, p->matrix, sizeof p->matrix);
        o->transform[o->transforms++].valid = p->valid;
        if (!p->valid || strcmp(p->name, l->pose) != 0)
            continue;
        frame->has_pose = 1;
        for (int k = 0; k < 12; k++)
            frame->pose[k] = p->matrix[k];
        frame->pose[15] = 1;
    }
}

/* Said once a connection, where no image has had one yet. */
static void lack_pose(struct live *l, const struct um_origin *o)
{
    enum { PATIENCE = 10 };
    char why[100];
    if (l->here.pose_comes)
        count(l, WITHOUT_POSE);
    if (l->here.posed || ++l->here.unposed != PATIENCE)
        return;
    snprintf(why, sizeof why, "it comes with images, and \"%s\" does not: no poses (pose=)",
             l->pose);
    if (l->here.pose_comes)
        say_of(l, "transform", l->pose,
               "it comes, but none that is valid has an image's stamp: no poses");
    else
        say_of(l, "transform", o->transform[0].name, why);
}

/* The held frame goes, with the transforms that are there. */
static void release(struct live *l)
{
    um_frame *frame = l->held;
    if (!frame)
        return;
    l->held = NULL;
    atomic_store(&l->holds, false);
    struct um_origin *o = (struct um_origin *)(uintptr_t)um_frame_origin(frame);
    take_poses(l, frame, o);
    l->here.last = o->stamp;
    l->here.together = o->transforms;
    l->here.posed = l->here.posed || frame->has_pose;
    if (!frame->has_pose && (l->here.pose_comes || o->transforms))
        lack_pose(l, o);
    deliver(l, frame);
}

static float length(const float v[3])
{
    return sqrtf(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
}

/* The length of an axis. Of one that turns it differs in the last digits, and the pixels do not. */
static double spacing_of(double before, const float v[3])
{
    const double digits = 1e-4;
    double mm = (double)length(v);
    return isfinite(before) && fabs(mm - before) <= digits * before ? before : mm;
}

static um_status make_frame(struct live *l, um_frame **frame, const struct um_igtl_image *image,
                            const struct um_igtl_message *m)
{
    struct um_origin *o = um_zalloc(sizeof *o);
    if (!o)
        return um_fail(UM_ENOMEM, "an image's origin");
    um_status st = um_frame_create(frame, image->size[0], image->size[1], image->components);
    if (st != UM_OK) {
        um_free(o);
        return st;
    }
    um_frame *f = *frame;
    memcpy(f->pixels, image->pixels, image->bytes);
    memcpy(o->device, m->header.device, sizeof o->device);
    o->stamp = m->header.stamp;
    o->image = *image;
    o->image.pixels = NULL;
    f->received_ns = um_clock_ns();
    if (l->honour && image->coordinates == UM_IGTL_LPS)
        um_igtl_image_mirror(&o->image);
    f->ts = o->stamp ? um_igtl_seconds(o->stamp) : um_clock_unix();
    f->spacing_mm[0] = l->here.spacing[0] = spacing_of(l->here.spacing[0], image->t);
    f->spacing_mm[1] = l->here.spacing[1] = spacing_of(l->here.spacing[1], image->s);
    f->has_spacing = f->spacing_mm[0] > 0 && f->spacing_mm[1] > 0 && isfinite(f->spacing_mm[0]) &&
                     isfinite(f->spacing_mm[1]);
    um_frame_set_origin(f, o);
    return UM_OK;
}

static const char *unfit(const struct um_igtl_image *image)
{
    for (int i = 0; i < 3; i++)
        if (image->offset[i] || image->part[i] != image->size[i])
            return "a part of a volume";
    if (image->size[2] != 1)
        return "a volume of several slices";
    if (image->scalar != UM_IGTL_U8)
        return "its pixels are not unsigned 8 bits";
    if (image->components != 1 && image->components != 3)
        return "neither gray nor RGB";
    return NULL;
}

static bool finite(const float *v, int n)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return false;
    return true;
}

static bool placed(const struct um_igtl_image *image)
{
    return finite(image->t, 3) && finite(image->s, 3) && finite(image->n, 3) && finite(image->p, 3);
}

/* How many transforms there are of a stamp; `pose`: is the probe's among them? */
static int transforms_of(const struct live *l, uint64_t stamp, bool *pose)
{
    int n = 0;
    *pose = false;
    for (int i = 0; i < POSES; i++)
        if (l->here.poses[i].stamp == stamp) {
            n++;
            *pose = *pose || strcmp(l->here.poses[i].name, l->pose) == 0;
        }
    return n;
}

/* Is all there that is expected with an image: its pose, and as many as the one before had? */
static bool whole(const struct live *l, uint64_t stamp)
{
    bool pose;
    int n = transforms_of(l, stamp, &pose);
    return !stamp || (n >= l->here.together && (pose || !l->here.pose_comes));
}

/* An image of another device: said once a connection, if those that are followed do not come, or
 * are followed only because they came first. */
static void pass_over(struct live *l, const struct um_igtl_message *m)
{
    static const uint64_t PATIENCE_NS = 2000000000;
    char why[80];
    count(l, OTHER_DEVICE);
    bool silent = um_clock_ns() - l->here.followed >= PATIENCE_NS;
    if (l->here.told.device || (l->device[0] && !silent))
        return;
    l->here.told.device = true;
    snprintf(why, sizeof why,
             silent ? "passed over, but no \"%s\" has come for 2 s (device=)"
                    : "passed over, as \"%s\" came first (device=)",
             l->here.following);
    say_of(l, "image", m->header.device, why);
}

static um_status on_image(struct live *l, const struct um_igtl_message *m)
{
    struct um_igtl_image image;
    um_frame *frame = NULL;
    um_status st = um_igtl_image_read(&image, m);
    if (st != UM_OK)
        return st;
    if (!l->here.following_set) { /* the first one, unless one was asked for */
        memcpy(l->here.following, l->device[0] ? l->device : m->header.device,
               sizeof l->here.following);
        l->here.following_set = true;
    }
    if (strcmp(m->header.device, l->here.following) != 0) {
        pass_over(l, m);
        return UM_OK;
    }
    count(l, IMAGES);
    l->here.followed = um_clock_ns();
    const char *why = unfit(&image);
    st = why ? UM_OK : make_frame(l, &frame, &image, m);
    if (why || st != UM_OK) {
        refuse(l, m, why ? why : um_last_error());
        return UM_OK;
    }
    if (!placed(&image) && !l->here.told.place) {
        l->here.told.place = true;
        say_of(l, "image", m->header.device,
               "its matrix is not finite, and so is that of its masks");
    }
    release(l); /* its pose will not come any more */
    l->held = frame;
    atomic_store(&l->holds, true);
    l->held_until = um_clock_ns() + (uint64_t)(l->pair_ms * 1e6);
    if (whole(l, m->header.stamp))
        release(l);
    return UM_OK;
}

static bool equal(const char *text, size_t n, const char *word)
{
    return n == strlen(word) && um_text_same_n(text, word, n);
}

/* What PlusServer says of a tracker that does not see its tool; the numbers mean nothing then. */
static bool said_invalid(const struct um_igtl_message *m)
{
    struct um_igtl_pair p;
    size_t at = 0;
    bool invalid = false;
    while (um_igtl_message_pair(m, &at, &p))
        if (equal(p.key, p.key_size, "TransformStatus"))
            invalid = invalid || !equal(p.value, p.value_size, "OK");
        else if (equal(p.key, p.key_size, "TransformValid"))
            invalid = invalid || equal(p.value, p.value_size, "false") ||
                      equal(p.value, p.value_size, "0");
    return invalid;
}

/* A newer one of a name takes the place of one with the same stamp: clocks may be coarse. */
static struct pose *place_for(struct live *l, const struct um_igtl_header *h)
{
    for (int i = 0; i < POSES; i++)
        if (l->here.poses[i].stamp == h->stamp && strcmp(l->here.poses[i].name, h->device) == 0)
            return &l->here.poses[i];
    return &l->here.poses[l->here.next_pose++ % POSES];
}

static um_status on_transform(struct live *l, const struct um_igtl_message *m)
{
    float matrix[12];
    um_status st = um_igtl_transform_read(matrix, m);
    if (st != UM_OK)
        return st;
    count(l, TRANSFORMS);
    struct pose *p = place_for(l, &m->header);
    p->stamp = m->header.stamp;
    memcpy(p->name, m->header.device, sizeof p->name);
    memcpy(p->matrix, matrix, sizeof matrix);
    p->valid = finite(matrix, 12) && !said_invalid(m);
    if (!p->valid)
        count(l, INVALID);
    if (!finite(matrix, 12) && !l->here.told.pose) {
        l->here.told.pose = true;
        say_of(l, "transform", m->header.device, "its numbers are not finite: taken as none");
    }
    bool pose;
    l->here.pose_comes = l->here.pose_comes || strcmp(p->name, l->pose) == 0;
    if (p->stamp && p->stamp == l->here.last) /* too late: the next image waits for as many */
        l->here.together = transforms_of(l, p->stamp, &pose);
    const struct um_origin *held = um_frame_origin(l->held);
    if (held && (p->stamp > held->stamp || whole(l, held->stamp)))
        release(l); /* a later one says that no more comes for this stamp */
    return UM_OK;
}

/* ---- the connection ---- */

/* PlusServer sends metadata to those only who have sent a message of version 2. */
static void greet(struct live *l)
{
    struct um_igtl_outbox out = {0};
    if (l->quiet)
        return;
    um_igtl_begin(&out, 2, "STATUS", "Ultramotion", 0, 0);
    um_igtl_status_write(&out, UM_IGTL_OK, 0, "", "");
    um_igtl_end(&out, &um_igtl_client, 1);
    um_igtl_send_now(l->link.fd, &out);
}

/* A message that is none: said once a connection. */
static void reject(struct live *l, const char *why)
{
    if (l->here.told.broken)
        return;
    l->here.told.broken = true;
    say(l, "dropped", why);
}

static void on_message(struct live *l)
{
    const struct um_igtl_header *h = &l->link.in.header;
    struct um_igtl_message m;
    struct um_igtl_outbox out = {0};
    size_t n = l->link.in.have;
    if (l->crc != CRC_IGNORE && um_igtl_crc(0, l->link.in.body, n) != h->crc) {
        count(l, BAD_CRC);
        if (l->crc == CRC_CHECK) {
            char why[120];
            snprintf(why, sizeof why, "%s \"%s\": its CRC is wrong (crc=count takes it)", h->type,
                     h->device);
            reject(l, why);
            return;
        }
    }
    um_status st = um_igtl_message_read(&m, h, l->link.in.body, n, false);
    if (st == UM_OK && strcmp(h->type, "IMAGE") == 0)
        st = on_image(l, &m);
    else if (st == UM_OK && strcmp(h->type, "TRANSFORM") == 0)
        st = on_transform(l, &m);
    else if (st == UM_OK && um_igtl_answer(&out, &m, l->link.version))
        um_igtl_send_now(l->link.fd, &out);
    else if (st == UM_OK && strcmp(h->type, "STATUS") != 0)
        count(l, OTHER_TYPE);
    if (st != UM_OK) {
        count(l, MALFORMED);
        reject(l, um_last_error());
    }
}

/* Someone else knocks while a sender is there. */
static void turn_away(struct live *l)
{
    char peer[UM_SOCKET_PEER];
    int fd = -1;
    struct um_igtl_outbox out = {0};
    if (um_socket_accept(&fd, l->listening, peer) != UM_OK)
        return;
    count(l, REFUSED);
    um_igtl_tell(&out, 1, UM_IGTL_BUSY, "another sender is connected");
    um_igtl_exits_add(&l->exits, fd, &out);
    say(l, "refused a second sender", peer);
}

static void count_skipped(struct live *l)
{
    atomic_fetch_add(&l->count[SKIPPED], l->link.in.skipped);
    atomic_fetch_add(&l->count[OTHER_TYPE], l->link.in.passed);
    l->link.in.skipped = l->link.in.passed = 0;
}

/* The sender hears why nobody listens any more. */
static void part(struct live *l, struct um_igtl_outbox *last_words)
{
    enum { PATIENCE_MS = 100 };
    um_igtl_send_now(l->link.fd, last_words);
    um_igtl_link_drain(&l->link, um_clock_ns() + PATIENCE_MS * 1000000ull);
}

/* Until the connection is of no more use; false: it is time to end. `last_words` stay empty where
 * the other side would not hear them. */
static bool serve(struct live *l, struct um_igtl_outbox *last_words)
{
    enum {
        TURN = 256, /* messages before the other descriptors are looked at */
        EXIT_MS = 100
    };
    l->heard = um_clock_ns();
    for (;;) {
        uint64_t silent = l->idle_ms > 0 ? l->heard + (uint64_t)(l->idle_ms * 1e6) : UINT64_MAX,
                 due = l->held && l->held_until < silent ? l->held_until : silent;
        int wait = um_clock_ms_until(due);
        struct pollfd p[3 + UM_IGTL_EXITS] = {{.fd = l->stop, .events = POLLIN},
                                              {.fd = l->link.fd, .events = POLLIN},
                                              {.fd = l->listening, .events = POLLIN}};
        int exits = um_igtl_exits_poll(&l->exits, p + 3);
        if (exits > 0 && (wait < 0 || wait > EXIT_MS))
            wait = EXIT_MS;
        poll(p, (nfds_t)(3 + exits), wait);
        um_igtl_exits_turn(&l->exits, false);
        if (p[0].revents) {
            um_igtl_farewell(last_words, l->link.version);
            return false;
        }
        uint64_t now = um_clock_ns();
        if (p[1].revents) {
            um_status st = UM_OK;
            for (int i = 0; i < TURN && st == UM_OK; i++) {
                st = um_igtl_link_receive(&l->link);
                count_skipped(l); /* before what came behind is given out */
                if (st == UM_OK)
                    on_message(l);
            }
            l->heard = now;
            if (st != UM_OK && st != UM_AGAIN) {
                count(l, LOST);
                say(l, "disconnected", st == UM_EOF ? "the other side left" : um_last_error());
                if (st == UM_EFORMAT) {
                    count(l, MALFORMED);
                    um_igtl_tell(last_words, l->link.version, UM_IGTL_OVERFLOW, um_last_error());
                }
                return true;
            }
        } else if (now >= silent) {
            count(l, SILENT);
            say(l, "disconnected", "nothing came for too long");
            return true;
        }
        if (l->held && now >= l->held_until)
            release(l);
        if (p[2].revents) /* the one who was here has not left before */
            turn_away(l);
    }
}

/* @return UM_OK, UM_AGAIN: it is time to end; UM_EIO: nobody there. */
static um_status reach(struct live *l)
{
    enum { PAUSE_MS = 20 };
    int pause = -1;
    if (!l->listens) {
        snprintf(l->peer, sizeof l->peer, "%.60s:%s", l->address.host, l->address.port);
        return um_socket_connect(&l->link.fd, &l->address, l->stop, (int)l->connect_ms);
    }
    while (um_socket_accept(&l->link.fd, l->listening, l->peer) != UM_OK) {
        bool knocked = um_wake_poll(l->listening, POLLIN, l->stop, pause);
        if (um_wake_wait(l->stop, knocked && pause > 0 ? pause : 0))
            return UM_AGAIN; /* who knocks twice in vain waits: there are no descriptors left */
        pause = knocked ? PAUSE_MS : -1;
    }
    return UM_OK;
}

static void *receive(void *ctx)
{
    const double least_ms = 100, most_ms = 5000;
    struct live *l = ctx;
    double backoff = least_ms;
    bool going = true, told = false;
    while (going) {
        um_status st = reach(l);
        if (st == UM_AGAIN)
            break;
        if (st == UM_OK) {
            uint64_t images = atomic_load(&l->count[IMAGES]);
            struct um_igtl_outbox last_words = {0};
            count(l, CONNECTIONS);
            say(l, "connected", l->peer);
            l->link.version = 1;
            told = false;
            memset(&l->here, 0, sizeof l->here);
            l->here.followed = um_clock_ns();
            greet(l);
            going = serve(l, &last_words);
            release(l);
            um_igtl_exits_turn(&l->exits, true);
            if (last_words.size)
                part(l, &last_words);
            um_igtl_link_close(&l->link);
            if (atomic_load(&l->count[IMAGES]) != images)
                backoff = least_ms;
        } else if (!told) {
            say(l, "nobody there yet", um_last_error());
            told = true;
        }
        if (going && !l->listens) {
            going = !um_wake_wait(l->stop, (int)backoff);
            backoff = backoff * 2 < most_ms ? backoff * 2 : most_ms;
        }
    }
    um_wake_set(l->done);
    leave(l);
    return NULL;
}

/* ---- the table ---- */

static um_status copy_name(char to[UM_IGTL_NAME + 1], const char *key, const char *value)
{
    if (strlen(value) > UM_IGTL_NAME)
        return um_fail(UM_EINVAL, "%s: \"%s\" is longer than %d characters", key, value,
                       UM_IGTL_NAME);
    strcpy(to, value);
    return UM_OK;
}

static um_status set_option(void *ctx, const char *key, const char *value)
{
    struct live *l = ctx;
    static const char *const crc[] = {"check", "count", "ignore"};
    double megabytes = 0;
    int version = 2;
    if (strcmp(key, "device") == 0)
        return copy_name(l->device, key, value);
    if (strcmp(key, "pose") == 0)
        return copy_name(l->pose, key, value);
    if (strcmp(key, "idle-ms") == 0)
        return um_scheme_number(key, value, 0, 3.6e6, &l->idle_ms);
    if (strcmp(key, "pair-ms") == 0)
        return um_scheme_number(key, value, 0, 10000, &l->pair_ms);
    if (strcmp(key, "connect-ms") == 0)
        return um_scheme_number(key, value, 1, 60000, &l->connect_ms);
    if (strcmp(key, "limit-mb") == 0) {
        um_status st = um_scheme_number(key, value, 1, 1024, &megabytes);
        l->link.in.image_limit = (uint64_t)(megabytes * 1048576);
        return st;
    }
    if (strcmp(key, "version") == 0) {
        um_status st = um_scheme_whole(key, value, 1, 2, &version);
        l->quiet = version < 2;
        return st;
    }
    if (strcmp(key, "coord") == 0) {
        l->honour = strcmp(value, "honour") == 0;
        return l->honour || strcmp(value, "assume-ras") == 0
                   ? UM_OK
                   : um_fail(UM_EINVAL, "coord: \"%s\" is not assume-ras or honour", value);
    }
    for (int i = 0; strcmp(key, "crc") == 0 && i < 3; i++)
        if (strcmp(value, crc[i]) == 0) {
            l->crc = (enum crc)i;
            return UM_OK;
        }
    return um_fail(UM_EINVAL,
                   "no option %s=%s: known are device, pose, crc=check|count|ignore, "
                   "coord=assume-ras|honour, version, idle-ms, pair-ms, connect-ms, limit-mb",
                   key, value);
}

static um_status open_live(struct source *s, const char *arg, const um_source_settings *settings,
                           int wake_fd, bool listens)
{
    const char *scheme = listens ? "igtl-listen" : "igtl";
    struct live *l = um_zalloc(sizeof *l);
    if (!l)
        return um_fail(UM_ENOMEM, "OpenIGTLink source");
    s->live = l;
    atomic_init(&l->refs, 1);
    pthread_mutex_init(&l->lock, NULL);
    l->listens = listens;
    l->log = settings->on_notice;
    l->log_ctx = settings->ctx;
    l->stop = l->done = l->ready = l->listening = l->link.fd = -1;
    l->link.in.image_limit = 64 << 20;
    l->link.in.limit = 1 << 20;
    l->idle_ms = 5000;
    l->pair_ms = 20;
    l->connect_ms = 2000;
    strcpy(l->pose, "ProbeToReference");
    if (settings->loop)
        return um_fail(UM_EINVAL, "%s: what was received is gone and cannot be looped", scheme);
    um_status st = um_address_read(&l->address, scheme, arg);
    if (st == UM_OK && !(l->spec = um_scheme_spec(scheme, arg)))
        st = um_fail(UM_ENOMEM, "OpenIGTLink source");
    if (st == UM_OK) {
        l->spec[strcspn(l->spec, "?")] = 0;
        st = um_scheme_options(l->address.options, l->spec, NULL, set_option, l);
    }
    if (st == UM_OK && !listens)
        st = um_address_to_connect(&l->address, l->spec, "igtl-listen::PORT waits for a sender");
    if (st == UM_OK && (l->stop = fcntl(wake_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)) < 0)
        st = um_fail(UM_EIO, "%s: no descriptor: %s", l->spec, strerror(errno));
    if (st == UM_OK)
        st = um_wake_open(&l->done, l->spec);
    if (st == UM_OK)
        st = um_wake_open(&l->ready, l->spec);
    if (st == UM_OK && listens &&
        (st = um_socket_listen(&l->listening, &l->port, &l->address)) == UM_OK) {
        char text[40];
        snprintf(text, sizeof text, "listening on port %d", l->port);
        say(l, text, "");
    }
    if (st != UM_OK)
        return st;
    atomic_fetch_add(&l->refs, 1);
    st = um_thread_start(&s->thread, receive, l, l->spec);
    if (st != UM_OK)
        leave(l);
    s->started = st == UM_OK;
    return st;
}

static um_status igtl_open(void *priv, const char *arg, const um_source_settings *settings,
                           int wake_fd)
{
    return open_live(priv, arg, settings, wake_fd, false);
}

static um_status igtl_listen(void *priv, const char *arg, const um_source_settings *settings,
                             int wake_fd)
{
    return open_live(priv, arg, settings, wake_fd, true);
}

static void igtl_close(void *priv)
{
    enum { PATIENCE_MS = 1000 };
    struct source *s = priv;
    struct live *l = s->live;
    if (!l)
        return;
    um_wake_set(l->stop);
    if (s->started && um_wake_wait(l->done, PATIENCE_MS)) {
        pthread_join(s->thread, NULL);
        tell(l, true);
    } else if (s->started) {
        pthread_mutex_lock(&l->lock);
        l->muted = true;
        pthread_mutex_unlock(&l->lock);
        pthread_detach(s->thread);
    }
    leave(l);
}

static um_status igtl_read(void *priv, uint64_t index, um_frame **frame)
{
    (void)index;
    struct source *s = priv;
    struct live *l = s->live;
    char problem[sizeof l->problem];
    for (;;) {
        um_wake_clear(l->ready);
        pthread_mutex_lock(&l->lock);
        *frame = l->newest;
        l->newest = NULL;
        memcpy(problem, l->problem, sizeof problem);
        if (!*frame)
            l->problem[0] = 0;
        else if (problem[0])
            um_wake_set(l->ready); /* it waits for the next call */
        pthread_mutex_unlock(&l->lock);
        if (*frame)
            return UM_OK;
        if (problem[0])
            return um_fail(UM_EFORMAT, "%s", problem);
        if (um_wake_wait(l->stop, 0))
            return UM_EOF;
        um_wake_poll(l->ready, POLLIN, l->stop, -1);
    }
}

static void igtl_counts(const void *priv, void (*each)(void *ctx, const char *name, uint64_t n),
                        void *ctx)
{
    struct live *l = ((const struct source *)priv)->live;
    pthread_mutex_lock(&l->lock);
    uint64_t waiting = (l->newest != NULL) + atomic_load(&l->holds) + l->late;
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < COUNTS; i++)
        each(ctx, count_names[i], atomic_load(&l->count[i]));
    each(ctx, "waiting", waiting);
    if (l->listens)
        each(ctx, "port", (uint64_t)l->port);
}

static uint64_t igtl_replaced(const void *priv)
{
    struct live *l = ((const struct source *)priv)->live;
    pthread_mutex_lock(&l->lock);
    uint64_t n = atomic_load(&l->count[REPLACED]);
    pthread_mutex_unlock(&l->lock);
    return n;
}

const um_source_ops um_source_igtl = {
    .struct_size = sizeof um_source_igtl,
    .priv_size = sizeof(struct source),
    .open = igtl_open,
    .close = igtl_close,
    .read = igtl_read,
    .live = 1,
    .counts = igtl_counts,
    .replaced = igtl_replaced,
};

const um_source_ops um_source_igtl_listen = {
    .struct_size = sizeof um_source_igtl_listen,
    .priv_size = sizeof(struct source),
    .open = igtl_listen,
    .close = igtl_close,
    .read = igtl_read,
    .live = 1,
    .counts = igtl_counts,
    .replaced = igtl_replaced,
};
