/* SPDX-License-Identifier: Apache-2.0 */
#include "io/igtl_frame.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"
#include "ultramotion/ultramotion.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* "Image_Reference" -> "Mask_Reference": what is in front of the frame it lies in changes. `class`
 * -1: of all. True: it had to be cut. */
static bool mask_name(const struct um_igtl_frame *f, char *to, const char *device, int class)
{
    char name[64], number[12] = "";
    const char *in = f->name[0] ? NULL : strchr(device, '_');
    if (class >= 0)
        snprintf(number, sizeof number, "%d", class + 1);
    snprintf(name, sizeof name, "%s%s%s", f->name[0] ? f->name : "Mask", number, in ? in : "");
    snprintf(to, UM_IGTL_NAME + 1, "%.*s", (int)um_text_cut(name, UM_IGTL_NAME), name);
    return strlen(name) > UM_IGTL_NAME;
}

static void describe(struct um_igtl_frame *f, const um_packet *packet, const um_frame *frame)
{
    f->packet = packet;
    f->frame = frame;
    f->origin = um_frame_origin(frame);
    f->image = (struct um_igtl_image){0};
    if (f->origin && f->origin->image.size[0] == packet->width &&
        f->origin->image.size[1] == packet->height)
        f->image = f->origin->image;
    else
        um_igtl_image_place_plainly(&f->image, packet->width, packet->height,
                                    packet->has_spacing ? packet->spacing_mm : NULL);
    f->image.components = 1;
    f->image.scalar = UM_IGTL_U8;
    f->image.endian = UM_IGTL_LITTLE;
    f->image.coordinates = UM_IGTL_RAS; /* what everybody takes it for */
    for (int i = 0; i < 3; i++) {
        f->image.offset[i] = 0;
        f->image.part[i] = f->image.size[i];
    }
    snprintf(f->owner, sizeof f->owner, "%s",
             f->origin                    ? f->origin->device
             : f->relay_image && f->frame ? "Image"
                                          : "");
    mask_name(f, f->mask, f->owner, -1);
    f->stamp = f->origin && f->origin->stamp ? f->origin->stamp : um_igtl_stamp(packet->ts);
    f->id = (uint32_t)packet->frame_id;
}

/* ---- metadata ---- */

enum { PAIRS = 14 };
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
static double latency_ms(const struct um_igtl_frame *f)
{
    uint64_t since = f->frame ? f->frame->received_ns : 0;
    return since ? (double)(um_clock_ns() - since) * 1e-6 : f->packet->latency_ms;
}

static void make_meta(struct meta *m, const struct um_igtl_frame *f)
{
    const um_packet *p = f->packet;
    double now = um_clock_unix(), ms = latency_ms(f);
    m->n = 0;
    add(m, "FrameId", "%llu", (unsigned long long)p->frame_id);
    add(m, "SourceTimestamp", "%u.%09u", (unsigned)(f->stamp >> 32),
        (unsigned)(((f->stamp & 0xffffffff) * 1000000000) >> 32));
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

static bool room_for_pixels(struct um_igtl_frame *f)
{
    size_t n = (size_t)f->packet->width * (size_t)f->packet->height;
    if (n <= f->pixel_bytes)
        return true;
    um_free(f->pixels);
    f->pixels = um_alloc(n);
    f->pixel_bytes = f->pixels ? n : 0;
    return f->pixels != NULL;
}

/* Beyond what a mask's values can say, all are the last. */
static int class_of(const um_object *o)
{
    return o->label >= 0 && o->label < UM_IGTL_CLASSES - 1 ? o->label : UM_IGTL_CLASSES - 1;
}

static uint8_t value_of_class(int class)
{
    return (uint8_t)(class + 1 < UM_IGTL_CLASSES ? class + 1 : UM_IGTL_CLASSES - 1);
}

static uint8_t value_of(const struct um_igtl_frame *f, int i)
{
    return f->by_object ? (uint8_t)(i + 1)
                        : value_of_class(class_of(um_packet_object(f->packet, i)));
}

/* The values 0 and, where there is a mask, its label; of several the best. `class` -1: all. */
static void draw(struct um_igtl_frame *f, int class)
{
    const um_packet *p = f->packet;
    size_t n = (size_t)p->width * (size_t)p->height;
    uint8_t value[256] = {0};
    if (class < 0 && f->objects == 1) {
        um_packet_mask(p, f->pixels, 1);
        return;
    }
    um_packet_label_map(p, f->pixels);
    for (int i = 0; i < p->objects && i < UM_OBJECTS_MAX; i++)
        value[i + 1] = class < 0 ? value_of(f, i) : class_of(um_packet_object(p, i)) == class;
    for (size_t k = 0; k < n; k++)
        f->pixels[k] = value[f->pixels[k]];
}

static void put_mask(struct um_igtl_frame *f, struct um_igtl_outbox *out, int version,
                     const struct meta *meta, int class)
{
    char name[UM_IGTL_NAME + 1];
    const um_packet *p = f->packet;
    size_t n = (size_t)p->width * (size_t)p->height;
    mask_name(f, name, f->owner, class);
    draw(f, class);
    um_igtl_begin(out, version, "IMAGE", name, f->stamp, f->id);
    um_igtl_image_write(out, &f->image);
    um_igtl_bytes(out, f->pixels, n);
    um_igtl_end(out, meta->pair, meta->n);
}

static void put_string(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int version,
                       const char *device, const char *text)
{
    um_igtl_begin(out, version, "STRING", device, f->stamp, f->id);
    um_igtl_string_write(out, text);
    um_igtl_end(out, NULL, 0);
}

static char *box_text(const struct um_igtl_frame *f)
{
    const um_packet *p = f->packet;
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

static void put_transform(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int version,
                          const char *name, const float matrix[12])
{
    um_igtl_begin(out, version, "TRANSFORM", name, f->stamp, f->id);
    um_igtl_transform_write(out, matrix);
    um_igtl_end(out, NULL, 0);
}

/* Those that came with the image; of a source that is no OpenIGTLink its pose. */
static void put_transforms(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int version)
{
    const struct um_origin *o = f->origin;
    for (int i = 0; o && i < o->transforms; i++)
        if (o->transform[i].valid)
            put_transform(f, out, version, o->transform[i].name, o->transform[i].matrix);
    float pose[12];
    for (int i = 0; i < 12; i++)
        pose[i] = (float)f->frame->pose[i];
    if (!o && f->frame->has_pose)
        put_transform(f, out, version, "ProbeToReference", pose);
}

static void put_image(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int version)
{
    const um_frame *frame = f->frame;
    struct um_igtl_image image = f->origin ? f->origin->image : f->image;
    image.components = frame->channels;
    image.endian = UM_IGTL_LITTLE;
    image.coordinates = UM_IGTL_RAS;
    um_igtl_begin(out, version, "IMAGE", f->owner, f->stamp, f->id);
    um_igtl_image_write(out, &image);
    for (int y = 0; y < frame->height; y++)
        um_igtl_bytes(out, frame->pixels + y * frame->stride,
                      (size_t)frame->width * (size_t)frame->channels);
    um_igtl_end(out, NULL, 0);
}

/* The source's own, for those who see only us. */
static struct um_igtl_relayed put_relay(const struct um_igtl_frame *f, struct um_igtl_outbox *out,
                                        int version)
{
    struct um_igtl_relayed r;
    if (f->frame && f->relay_transforms)
        put_transforms(f, out, version);
    r.transforms = out->size;
    if (f->frame && f->relay_image)
        put_image(f, out, version);
    r.all = out->size;
    return r;
}

struct um_igtl_relayed um_igtl_frame_write(struct um_igtl_frame *f, struct um_igtl_outbox *out,
                                           int version)
{
    char *box = box_text(f);
    struct meta meta;
    make_meta(&meta, f);
    struct um_igtl_relayed relayed = put_relay(f, out, version);
    if (!box || !room_for_pixels(f))
        out->failed = true;
    if (!out->failed)
        put_mask(f, out, version, &meta, -1);
    for (int class = 0; f->per_class && class < UM_IGTL_CLASSES && !out->failed; class ++)
        if (f->class_seen[class]) /* an empty one too, or the last would stay on the screen */
            put_mask(f, out, version, &meta, class);
    put_string(f, out, version, "Box", box ? box : "");
    put_string(f, out, version, "State", um_state_name(f->packet->state));
    um_free(box);
    return relayed;
}

/* ---- labels ---- */

/* Has anything that LBMETA says become different? False: a new name of the mask had to be cut. */
static bool learn_labels(struct um_igtl_frame *f)
{
    const um_packet *p = f->packet;
    for (int i = 0; i < p->objects; i++) {
        const um_object *o = um_packet_object(p, i);
        int class = class_of(o);
        const char *whole = o->name ? o->name : "";
        char name[sizeof f->class_name[class]];
        snprintf(name, sizeof name, "%.*s", (int)um_text_cut(whole, sizeof name - 1), whole);
        if (i == 0 && class != f->last_class) {
            f->last_class = class;
            f->labels_changed = f->labels_changed || f->objects == 1;
        }
        if (f->class_seen[class] && strcmp(f->class_name[class], name) == 0)
            continue;
        f->class_seen[class] = f->labels_changed = true;
        memcpy(f->class_name[class], name, sizeof name);
    }
    if (strcmp(f->labelled[0], f->mask) == 0 && strcmp(f->labelled[1], f->owner) == 0 &&
        f->labelled_size[0] == f->image.size[0] && f->labelled_size[1] == f->image.size[1])
        return true;
    memcpy(f->labelled[0], f->mask, sizeof f->mask);
    memcpy(f->labelled[1], f->owner, sizeof f->owner);
    f->labelled_size[0] = f->image.size[0];
    f->labelled_size[1] = f->image.size[1];
    f->labels_changed = true;
    return !mask_name(f, f->mask, f->owner, -1);
}

static void put_label(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int class,
                      int value, bool own_image)
{
    static const uint8_t colors[6][3] = {{255, 96, 64},  {64, 200, 96},  {80, 144, 255},
                                         {240, 208, 64}, {208, 96, 240}, {64, 216, 224}};
    struct um_igtl_label l = {
        .label = (uint8_t)value,
        .rgba = {colors[value % 6][0], colors[value % 6][1], colors[value % 6][2], 255},
        .size = {f->image.size[0], f->image.size[1], f->image.size[2]}};
    if (f->class_name[class][0])
        snprintf(l.name, sizeof l.name, "%s", f->class_name[class]);
    else
        snprintf(l.name, sizeof l.name, "class %d", class);
    memcpy(l.owner, f->owner, sizeof l.owner);
    mask_name(f, l.device, f->owner, own_image ? class : -1);
    um_igtl_label_write(out, &l);
}

bool um_igtl_frame_begin(struct um_igtl_frame *f, const um_packet *packet, const um_frame *frame)
{
    describe(f, packet, frame);
    return learn_labels(f);
}

void um_igtl_labels_write(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int version)
{
    bool any = false;
    um_igtl_begin(out, version, "LBMETA", f->mask, f->stamp, f->id);
    for (int class = 0; class < UM_IGTL_CLASSES; class ++) {
        if (!f->class_seen[class])
            continue;
        any = true;
        if (f->objects > 1 && !f->by_object)
            put_label(f, out, class, value_of_class(class), false);
        else if (f->objects == 1 && class == f->last_class) /* 1 is what was seen last */
            put_label(f, out, class, 1, false);
        if (f->per_class)
            put_label(f, out, class, 1, true);
    }
    if (!any)
        put_label(f, out, 0, 1, false);
    um_igtl_end(out, NULL, 0);
}

void um_igtl_frame_finish(struct um_igtl_frame *f)
{
    um_free(f->pixels);
}
