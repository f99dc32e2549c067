/* SPDX-License-Identifier: Apache-2.0 */
/* A packet whose fields may be anything, as JSON, RLE, mask and overlay. Pointers and the ends of
 * strings are the caller's promise. */
#include "base/mem.h"
#include "ultramotion/ultramotion.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OBJECTS = 4 };

static const uint8_t *from;
static size_t left;

static void take(void *to, size_t n)
{
    size_t have = n < left ? n : left;
    memset(to, 0, n);
    if (have)
        memcpy(to, from, have);
    from += have;
    left -= have;
}
#define TAKE(field) take(&(field), sizeof(field))
#define TAKE_TEXT(field) take(field, sizeof(field) - 1)

/* Numbers that are often small enough to mean something. */
static int side(void)
{
    int32_t v = 0;
    TAKE(v);
    return v & 1 ? v >> 1 : v >> 1 & 0x7f;
}

static void drop(const um_packet *packet)
{
    um_packet_unref(&packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    um_packet p = {.struct_size = sizeof p};
    from = data;
    left = size;
    p.width = side();
    p.height = side();
    for (int i = 0; i < 4; i++)
        p.crop[i] = side();
    uint8_t flags = 0;
    TAKE(flags);
    p.has_box = flags & 1;
    p.has_mask = flags >> 1 & 1;
    p.state = flags & 4 ? UM_STATE_LOST : UM_STATE_VISIBLE;
    p.tag = (um_tag)(flags % 5);
    p.reason = (um_reason)(flags % 7);
    p.has_scores = flags & 1;
    p.has_pose = flags >> 3 & 1;
    p.has_spacing = flags >> 4 & 1;
    p.as_numpy = flags >> 5 & 1;
    TAKE(p.box);
    TAKE(p.score);
    TAKE(p.label);
    TAKE(p.frame_id);
    TAKE(p.ts);
    TAKE(p.iou);
    TAKE(p.mask_area_px);
    TAKE(p.ms);
    TAKE(p.transfers);
    TAKE(p.pose);
    TAKE(p.spacing_mm);
    TAKE_TEXT(p.device);
    TAKE_TEXT(p.precision);
    TAKE_TEXT(p.detector_sha256);
    TAKE_TEXT(p.segmenter_sha256);
    TAKE_TEXT(p.lost_device);
    TAKE_TEXT(p.detector);
    TAKE_TEXT(p.segmenter);
    bool small = p.crop[2] > 0 && p.crop[3] > 0 && p.crop[2] <= 4096 && p.crop[3] <= 4096;
    uint8_t *bits = NULL;
    if (small) { /* exactly as many as the crop says */
        size_t n = (size_t)um_packet_row_bytes(&p) * (size_t)p.crop[3];
        bits = malloc(n);
        if (!bits)
            return 0;
        take(bits, n);
        p.bits = bits;
    }
    char *text = NULL, *counts = NULL, source[40], names[OBJECTS][12];
    um_object object[OBJECTS] = {{0}};
    const um_object *objects[OBJECTS];
    uint8_t n = 0;
    TAKE(n);
    n %= OBJECTS + 1;
    take(source, sizeof source);
    source[sizeof source - 1] = 0;
    p.source = source;
    for (int i = 0; i < n; i++) {
        um_object *o = &object[i];
        objects[i] = o;
        *o = (um_object){.struct_size = sizeof *o, .bits = bits, .name = names[i]};
        take(names[i], sizeof names[i]);
        names[i][sizeof names[i] - 1] = 0;
        uint8_t has = 0;
        TAKE(has);
        o->has_box = has & 1;
        o->has_mask = has >> 1 & 1;
        TAKE(o->box);
        TAKE(o->score);
        TAKE(o->label);
    }
    um_packet *made = NULL;
    um_mem_fail_at(1 + flags % 4);
    if ((um_packet_create(&made, &p, objects, n) == UM_OK) != (made != NULL))
        abort();
    um_mem_fail_at(0);
    drop(made);
    if ((um_packet_create(&made, &p, objects, n) == UM_OK) != (made != NULL))
        abort();
    if (!made) { /* fields that mean nothing */
        free(bits);
        return 0;
    }
    um_mem_fail_at(1 + flags % 8);
    um_status st = um_packet_json(made, &text);
    um_mem_fail_at(0);
    if ((st == UM_OK) != (text != NULL))
        abort();
    free(text);
    st = um_packet_json(made, &text);
    if ((st == UM_OK) != (text != NULL) || (text && strpbrk(text, "\n\x1b")))
        abort(); /* one line, whatever is in it */
    free(text);
    for (int i = -1; i <= made->objects; i++) {
        st = um_packet_object_rle(made, i, &counts);
        if ((st == UM_OK) != (um_packet_object(made, i) != NULL) ||
            (st == UM_OK) != (counts != NULL))
            abort();
        free(counts);
    }
    um_frame *frame = NULL;
    if (p.width <= 512 && p.height <= 512 &&
        um_frame_create(&frame, p.width, p.height, flags & 64 ? 3 : 1) == UM_OK) {
        uint8_t *rgb = NULL, *mask = malloc((size_t)p.width * (size_t)p.height);
        memset(frame->pixels, 100, (size_t)frame->stride * (size_t)p.height);
        um_mem_fail_at(1 + flags % 3);
        if ((um_overlay(made, frame, &rgb) == UM_OK) != (rgb != NULL))
            abort();
        um_mem_fail_at(0);
        free(rgb);
        if (um_overlay(made, frame, &rgb) != UM_OK || !mask)
            abort();
        um_packet_mask(made, mask, 255);
        um_packet_object_mask(made, made->objects - 1, mask, 1);
        um_packet_label_map(made, mask);
        free(rgb);
        free(mask);
    }
    um_frame_unref(&frame);
    drop(made);
    free(bits);
    return 0;
}
