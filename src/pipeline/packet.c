/* SPDX-License-Identifier: Apache-2.0 */
/* Packets: their memory, and what they look like to people and programs (mask bytes, COCO RLE, one
 * JSON line). */
#include "pipeline/packet.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/record.h"
#include "io/rle.h"
#include "ultramotion/frame.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct packet {
    um_packet pub; /* first: a um_packet * of the library is a struct packet * */
    atomic_int refs;
    um_packet_pool *pool; /* or NULL */
    struct packet *next;  /* in the pool */
    um_object object[UM_OBJECTS_MAX];
    uint8_t *bits; /* of all objects */
    char *text;    /* source and names */
    size_t bits_size, text_size;
};

struct um_packet_pool {
    pthread_mutex_t lock;
    struct packet *spare; /* guarded by lock, as all below */
    int users;            /* the owner, and packets on their way */
};

/* ---- names ---- */

const char *um_state_name(um_state state)
{
    static const char *const names[] = {"LOST", "VISIBLE", "RELOCALIZING"};
    return (unsigned)state < 3 ? names[state] : names[UM_STATE_LOST];
}

const char *um_tag_name(um_tag tag)
{
    static const char *const names[] = {"fresh", "predicted", "stale", "withheld"};
    return (unsigned)tag < 4 ? names[tag] : names[UM_TAG_WITHHELD];
}

const char *um_reason_name(um_reason reason)
{
    static const char *const names[] = {NULL,     "not_found",  "low_score", "unconfirmed",
                                        "frozen", "no_contact", "no_time"};
    return (unsigned)reason < 7 ? names[reason] : NULL;
}

const char *um_effort_name(um_effort effort)
{
    static const char *const names[UM_EFFORTS] = {"full", "follow", "repeat"};
    return (unsigned)effort < UM_EFFORTS ? names[effort] : names[UM_EFFORT_FULL];
}

/* ---- memory ---- */

static void destroy(struct packet *p)
{
    um_free(p->bits);
    um_free(p->text);
    um_free(p);
}

um_status um_packet_pool_open(um_packet_pool **out)
{
    um_packet_pool *pool = um_zalloc(sizeof *pool);
    *out = pool;
    if (!pool)
        return um_fail(UM_ENOMEM, "packets");
    pthread_mutex_init(&pool->lock, NULL);
    pool->users = 1;
    return UM_OK;
}

/* One user less, who may leave a packet behind; the last one frees the pool. */
static void leave(um_packet_pool *pool, struct packet *p)
{
    pthread_mutex_lock(&pool->lock);
    if (p) {
        p->next = pool->spare;
        pool->spare = p;
    }
    int users = --pool->users;
    pthread_mutex_unlock(&pool->lock);
    if (users)
        return;
    while (pool->spare) {
        p = pool->spare;
        pool->spare = p->next;
        destroy(p);
    }
    pthread_mutex_destroy(&pool->lock);
    um_free(pool);
}

void um_packet_pool_close(um_packet_pool **pool)
{
    if (*pool)
        leave(*pool, NULL);
    *pool = NULL;
}

static struct packet *take(um_packet_pool *pool)
{
    struct packet *p = NULL;
    if (pool) {
        pthread_mutex_lock(&pool->lock);
        pool->users++;
        p = pool->spare;
        if (p)
            pool->spare = p->next;
        pthread_mutex_unlock(&pool->lock);
    }
    if (!p)
        p = um_zalloc(sizeof *p);
    if (p)
        p->pool = pool;
    else if (pool)
        leave(pool, NULL);
    return p;
}

static void give_back(struct packet *p)
{
    if (p->pool)
        leave(p->pool, p);
    else
        destroy(p);
}

/* Room for n bytes, whose old contents are lost. */
static bool fit(void *memory, size_t *size, size_t n)
{
    void **at = memory;
    if (*size >= n)
        return true;
    um_free(*at);
    *at = um_alloc(n);
    *size = *at ? n : 0;
    return *at != NULL;
}

/* ---- making ---- */

/* The object that a packet's own fields describe. */
static um_object first_of(const um_packet *p)
{
    um_object o = {.struct_size = sizeof o,
                   .label = p->label,
                   .name = p->name,
                   .score = p->score,
                   .has_box = p->has_box,
                   .has_mask = p->has_mask,
                   .bits = p->bits,
                   .mask_area_px = p->mask_area_px,
                   .edge_px = p->edge_px,
                   .in_px = p->in_px,
                   .out_px = p->out_px,
                   .iou = p->iou,
                   .removed_px = p->removed_px,
                   .filled_px = p->filled_px};
    memcpy(o.box, p->box, sizeof o.box);
    memcpy(o.mask_box, p->mask_box, sizeof o.mask_box);
    memcpy(o.centroid, p->centroid, sizeof o.centroid);
    memcpy(o.scores, p->scores, sizeof o.scores);
    return o;
}

static void set_first(um_packet *p, const um_object *o)
{
    p->label = o->label;
    p->name = o->name;
    p->score = o->score;
    p->has_box = o->has_box;
    p->has_mask = o->has_mask;
    p->bits = o->bits;
    p->mask_area_px = o->mask_area_px;
    p->edge_px = o->edge_px;
    p->in_px = o->in_px;
    p->out_px = o->out_px;
    p->iou = o->iou;
    p->removed_px = o->removed_px;
    p->filled_px = o->filled_px;
    memcpy(p->box, o->box, sizeof p->box);
    memcpy(p->mask_box, o->mask_box, sizeof p->mask_box);
    memcpy(p->centroid, o->centroid, sizeof p->centroid);
    memcpy(p->scores, o->scores, sizeof p->scores);
}

static bool crop_fits(const um_packet *p)
{
    const int *c = p->crop;
    return c[0] >= 0 && c[1] >= 0 && c[2] > 0 && c[3] > 0 && c[0] <= p->width - c[2] &&
           c[1] <= p->height - c[3];
}

static size_t bits_bytes(const um_packet *p)
{
    return (size_t)um_packet_row_bytes(p) * (size_t)p->crop[3];
}

static const char *store(char **at, const char *text)
{
    size_t n = strlen(text) + 1;
    const char *here = memcpy(*at, text, n);
    *at += n;
    return here;
}

static um_status fill(struct packet *p, const um_packet *fields, const um_object *const *objects,
                      int n)
{
    size_t masks = 0, text = strlen(fields->source) + 1;
    if (fields->name)
        text += strlen(fields->name) + 1;
    for (int i = 0; i < n; i++) {
        p->object[i] = (um_object){0};
        um_status st = um_record_in(&p->object[i], sizeof p->object[i], objects[i], "um_object");
        if (st != UM_OK)
            return st;
        p->object[i].has_mask = p->object[i].has_mask && p->object[i].bits;
        masks += p->object[i].has_mask != 0;
        text += p->object[i].name ? strlen(p->object[i].name) + 1 : 0;
    }
    static const int none[4];
    if ((masks || memcmp(fields->crop, none, sizeof none) != 0) && !crop_fits(fields))
        return um_fail(UM_EINVAL, "packet: the masks' part %d,%d,%d,%d of a %dx%d frame",
                       fields->crop[0], fields->crop[1], fields->crop[2], fields->crop[3],
                       fields->width, fields->height);
    size_t each = masks ? bits_bytes(fields) : 0;
    if (!fit(&p->bits, &p->bits_size, masks * each) || !fit(&p->text, &p->text_size, text))
        return um_fail(UM_ENOMEM, "packet of a %dx%d frame", fields->width, fields->height);
    char *at = p->text;
    uint8_t *bits = p->bits;
    p->pub = *fields;
    p->pub.device[sizeof p->pub.device - 1] = 0;
    p->pub.precision[sizeof p->pub.precision - 1] = 0;
    p->pub.precision_reason[sizeof p->pub.precision_reason - 1] = 0;
    p->pub.detector_sha256[sizeof p->pub.detector_sha256 - 1] = 0;
    p->pub.segmenter_sha256[sizeof p->pub.segmenter_sha256 - 1] = 0;
    p->pub.lost_device[sizeof p->pub.lost_device - 1] = 0;
    p->pub.detector[sizeof p->pub.detector - 1] = 0;
    p->pub.segmenter[sizeof p->pub.segmenter - 1] = 0;
    p->pub.source = store(&at, fields->source);
    p->pub.name = fields->name ? store(&at, fields->name) : NULL;
    p->pub.has_mask = 0; /* that of the first object, if there is one */
    p->pub.bits = NULL;
    p->pub.objects = n;
    for (int i = 0; i < n; i++) {
        um_object *o = &p->object[i];
        o->name = o->name ? store(&at, o->name) : NULL;
        if (o->has_mask) {
            o->bits = memcpy(bits, o->bits, each);
            bits += each;
        } else
            o->bits = NULL;
    }
    if (n)
        set_first(&p->pub, &p->object[0]);
    return UM_OK;
}

um_status um_packet_make(um_packet **out, um_packet_pool *pool, const um_packet *fields,
                         const um_object *const *objects, int n)
{
    um_packet own = {0};
    *out = NULL;
    um_status st = um_record_in(&own, sizeof own, fields, "um_packet");
    if (st == UM_OK &&
        (n < 0 || n > UM_OBJECTS_MAX || (n && !objects) || own.width < 0 || own.height < 0 ||
         own.width > UM_FRAME_MAX_SIDE || own.height > UM_FRAME_MAX_SIDE))
        st = um_fail(UM_EINVAL, "packet: %d objects, want 0 to %d, in a %dx%d frame", n,
                     UM_OBJECTS_MAX, own.width, own.height);
    if (st == UM_OK && (unsigned)own.state > UM_STATE_RELOCALIZING)
        st = um_fail(UM_EINVAL, "packet: state %d is none", (int)own.state);
    if (st == UM_OK && own.state == UM_STATE_LOST && n > 0)
        st = um_fail(UM_EINVAL, "packet: LOST, with %d object(s)", n);
    for (int i = 0; st == UM_OK && i < n; i++)
        if (!objects[i])
            st = um_fail(UM_EINVAL, "packet: object %d of %d is NULL", i, n);
    if (st != UM_OK)
        return st;
    if (!own.source)
        own.source = "";
    um_object first = first_of(&own);
    const um_object *one[1] = {&first};
    if (n == 0 && own.state == UM_STATE_VISIBLE) {
        objects = one;
        n = 1;
    }
    struct packet *p = take(pool);
    if (!p)
        return um_fail(UM_ENOMEM, "packet");
    st = fill(p, &own, objects, n);
    if (st != UM_OK) {
        give_back(p);
        return st;
    }
    atomic_store(&p->refs, 1);
    *out = &p->pub;
    return UM_OK;
}

um_status um_packet_create(um_packet **out, const um_packet *fields,
                           const um_object *const *objects, int n)
{
    if (out)
        *out = NULL;
    if (!out || !fields)
        return um_fail(UM_EINVAL, "um_packet_create: %s is NULL", out ? "fields" : "out");
    return um_packet_make(out, NULL, fields, objects, n);
}

const um_packet *um_packet_ref(const um_packet *packet)
{
    if (packet)
        atomic_fetch_add_explicit(&((struct packet *)(uintptr_t)packet)->refs, 1,
                                  memory_order_relaxed);
    return packet;
}

void um_packet_unref(const um_packet **packet)
{
    if (!packet || !*packet)
        return;
    struct packet *p = (struct packet *)(uintptr_t)*packet;
    *packet = NULL;
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        give_back(p);
}

/* ---- reading ---- */

const um_object *um_packet_object(const um_packet *packet, int i)
{
    const struct packet *p = (const struct packet *)packet;
    return packet && i >= 0 && i < packet->objects ? &p->object[i] : NULL;
}

int um_packet_row_bytes(const um_packet *packet)
{
    return packet ? (packet->crop[2] + 31) / 32 * 4 : 0;
}

/* Where the mask of object i is 1, `out` becomes `on`. */
static void paint(const um_packet *packet, int i, uint8_t *out, uint8_t on)
{
    const um_object *o = um_packet_object(packet, i);
    const int *crop = packet->crop;
    size_t row_bytes = (size_t)um_packet_row_bytes(packet);
    for (int y = 0; o && o->has_mask && y < crop[3]; y++) {
        const uint8_t *bits = o->bits + (size_t)y * row_bytes;
        uint8_t *row = out + (size_t)(crop[1] + y) * (size_t)packet->width + (size_t)crop[0];
        for (int x = 0; x < crop[2]; x += 8) { /* most bytes are 0 */
            unsigned left = bits[x >> 3];
            for (int k = x; left && k < crop[2]; k++, left >>= 1)
                if (left & 1)
                    row[k] = on;
        }
    }
}

void um_packet_object_mask(const um_packet *packet, int i, uint8_t *out, uint8_t on)
{
    if (!packet || !out)
        return;
    memset(out, 0, (size_t)packet->width * (size_t)packet->height);
    paint(packet, i, out, on);
}

void um_packet_mask(const um_packet *packet, uint8_t *out, uint8_t on)
{
    um_packet_object_mask(packet, 0, out, on);
}

void um_packet_label_map(const um_packet *packet, uint8_t *out)
{
    if (!packet || !out)
        return;
    memset(out, 0, (size_t)packet->width * (size_t)packet->height);
    for (int i = packet->objects - 1; i >= 0; i--)
        paint(packet, i, out, (uint8_t)(i + 1));
}

static um_status rle_of(const um_packet *packet, const um_object *o, char **counts)
{
    const int *c = packet->crop;
    return um_rle_encode_bits(o->bits, (size_t)um_packet_row_bytes(packet), c[0], c[1], c[2], c[3],
                              packet->width, packet->height, counts);
}

um_status um_packet_object_rle(const um_packet *packet, int i, char **counts)
{
    if (!packet || !counts)
        return um_fail(UM_EINVAL, "um_packet_object_rle: %s is NULL", packet ? "counts" : "packet");
    *counts = NULL;
    if (i < 0 || i >= packet->objects)
        return um_fail(UM_EINVAL, "um_packet_object_rle: object %d of %d", i, packet->objects);
    const um_object *o = um_packet_object(packet, i);
    if (o->has_mask)
        return rle_of(packet, o, counts);
    um_rle empty = {0};
    um_rle_add(&empty, 0, (uint32_t)packet->width * (uint32_t)packet->height);
    return um_rle_finish(&empty, counts);
}

static void put_model(um_json *j, const char *key, const char *sha256)
{
    char text[sizeof "sha256:" + 64];
    snprintf(text, sizeof text, "sha256:%.64s", sha256);
    um_json_put_string(j, key, sha256[0] ? text : NULL);
}

/* NaN: a score that is not defined. */
static void put_scores(um_json *j, const um_packet *p)
{
    static const char *const names[UM_SCORES] = {"s1", "s2", "s3", "s4",
                                                 "c1", "c2", "c3", "contact"};
    if (!um_json_put_begin_if(j, p->has_scores, "scores", '{'))
        return;
    for (int i = 0; i < UM_SCORES; i++)
        um_json_put_float(j, names[i], p->scores[i]);
    um_json_end(j, '}');
}

static void put_deadline(um_json *j, const um_packet *p)
{
    if (!um_json_put_begin_if(j, p->has_deadline, "deadline", '{'))
        return;
    um_json_put_measured(j, "latency_ms", p->latency_ms);
    um_json_put_bool(j, "missed", p->missed != 0);
    um_json_put_string(j, "effort", um_effort_name(p->effort));
    um_json_end(j, '}');
}

/* null: the whole image. */
static void put_crop(um_json *j, const um_packet *p)
{
    bool whole = p->crop[2] == p->width && p->crop[3] == p->height;
    if (!um_json_put_begin_if(j, !whole, "crop", '['))
        return;
    for (int i = 0; i < 4; i++)
        um_json_int(j, p->crop[i]);
    um_json_end(j, ']');
}

/* What was done to a mask; null where nobody cleans, or there is none. */
static void put_cleaned(um_json *j, bool cleaned, uint32_t removed, uint32_t filled)
{
    if (!um_json_put_begin_if(j, cleaned, "cleaned", '{'))
        return;
    um_json_put_uint(j, "removed_px", removed);
    um_json_put_uint(j, "filled_px", filled);
    um_json_end(j, '}');
}

static void put_mask(um_json *j, const um_packet *p, int has_mask, const char *counts)
{
    if (!um_json_put_begin_if(j, has_mask, "mask", '{'))
        return;
    um_json_put_begin(j, "size", '[');
    um_json_int(j, p->height);
    um_json_int(j, p->width);
    um_json_end(j, ']');
    um_json_put_string(j, "counts", counts);
    um_json_end(j, '}');
}

static um_status put_object(um_json *j, const um_packet *p, const um_object *o)
{
    char *counts = NULL;
    um_status st = o->has_mask ? rle_of(p, o, &counts) : UM_OK;
    if (st != UM_OK)
        return st;
    um_json_begin(j, '{');
    um_json_put_int(j, "label", o->label);
    um_json_put_string(j, "name", o->name);
    um_json_put_float(j, "score", o->score);
    um_json_put_floats(j, "box_xyxy", o->has_box ? o->box : NULL, 4);
    put_mask(j, p, o->has_mask, counts);
    um_json_put_uint(j, "mask_area_px", o->has_mask ? o->mask_area_px : 0);
    um_json_put_float(j, "iou", o->has_mask ? o->iou : NAN);
    put_cleaned(j, p->has_cleaned && o->has_mask, o->removed_px, o->filled_px);
    um_json_end(j, '}');
    um_free(counts);
    return UM_OK;
}

um_status um_packet_json(const um_packet *packet, char **line)
{
    if (!packet || !line)
        return um_fail(UM_EINVAL, "um_packet_json: %s is NULL", packet ? "line" : "packet");
    *line = NULL;
    const um_packet *p = packet;
    int seen = p->state != UM_STATE_LOST;
    int masked = seen && p->has_mask;
    char *counts = NULL;
    if (masked) {
        um_status st = um_packet_object_rle(p, 0, &counts);
        if (st != UM_OK)
            return st;
    }
    um_json j = {0};
    um_json_begin(&j, '{');
    um_json_put_uint(&j, "frame_id", p->frame_id);
    um_json_put_double(&j, "ts", p->ts);
    um_json_put_string(&j, "state", um_state_name(p->state));
    um_json_put_string(&j, "tag", um_tag_name(p->tag));
    um_json_put_int(&j, "label", p->label);
    um_json_put_float(&j, "score", p->score);
    um_json_put_floats(&j, "box_xyxy", seen && p->has_box ? p->box : NULL, 4);
    put_mask(&j, p, masked, counts);
    um_json_put_uint(&j, "mask_area_px", masked ? p->mask_area_px : 0);
    um_json_put_begin(&j, "stages_ms", '{');
    um_json_put_measured(&j, "upload", p->ms.upload);
    um_json_put_measured(&j, "detect", p->ms.detect);
    um_json_put_measured(&j, "segment", p->ms.segment);
    um_json_put_measured(&j, "packet", p->ms.packet);
    um_json_put_measured(&j, "total", p->ms.total);
    um_json_end(&j, '}');
    um_json_put_begin(&j, "transfers", '{');
    um_json_put_uint(&j, "up", p->transfers.up);
    um_json_put_uint(&j, "down", p->transfers.down);
    um_json_put_uint(&j, "up_bytes", p->transfers.up_bytes);
    um_json_put_uint(&j, "down_bytes", p->transfers.down_bytes);
    um_json_put_uint(&j, "setup", p->transfers.setup);
    um_json_put_bool(&j, "shared", p->transfers.shared);
    um_json_end(&j, '}');
    um_json_put_doubles(&j, "pose", p->has_pose ? p->pose : NULL, 16);
    um_json_put_doubles(&j, "spacing_mm", p->has_spacing ? p->spacing_mm : NULL, 2);
    um_json_put_string(&j, "device", p->device);
    um_json_put_string(&j, "precision", p->precision);
    um_json_put_int(&j, "as_numpy", p->as_numpy);
    um_json_put_begin(&j, "models", '{');
    put_model(&j, "detector", p->detector_sha256);
    put_model(&j, "segmenter", p->segmenter_sha256);
    um_json_end(&j, '}');
    um_json_put_string(&j, "lost_device", p->lost_device[0] ? p->lost_device : NULL);
    um_json_put_string(&j, "source", p->source);
    um_json_put_string(&j, "name", seen ? p->name : NULL);
    um_json_put_begin(&j, "objects", '[');
    for (int i = 0; i < p->objects && seen; i++) {
        um_status st = put_object(&j, p, um_packet_object(p, i));
        if (st != UM_OK) {
            um_json_free(&j);
            um_free(counts);
            return st;
        }
    }
    um_json_end(&j, ']');
    um_json_put_bool(&j, "detected", p->detected != 0);
    um_json_put_string(&j, "reason", um_reason_name(p->reason));
    put_scores(&j, p);
    put_deadline(&j, p);
    put_cleaned(&j, p->has_cleaned && masked, p->removed_px, p->filled_px);
    um_json_put_float(&j, "gain", p->gain > 0 ? p->gain : NAN);
    um_json_put_bool(&j, "reused", p->reused != 0);
    um_json_put_string(&j, "precision_reason", p->precision_reason);
    put_crop(&j, p);
    um_json_end(&j, '}');
    um_free(counts);
    return um_json_finish(&j, line);
}
