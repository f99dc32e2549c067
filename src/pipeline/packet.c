/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet's record looks like to people and programs: mask bytes, COCO RLE, one JSON line. */
#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "io/rle.h"
#include "ultramotion/pipeline.h"

#include <stdio.h>
#include <string.h>

static int sized(const um_packet *p)
{
    return p->width > 0 && p->height > 0 && p->width <= UM_FRAME_MAX_SIDE &&
           p->height <= UM_FRAME_MAX_SIDE;
}

static int has_mask(const um_packet *p)
{
    const int *c = p->crop;
    return sized(p) && p->has_mask && p->bits && c[0] >= 0 && c[1] >= 0 && c[2] > 0 && c[3] > 0 &&
           c[0] <= p->width - c[2] && c[1] <= p->height - c[3];
}

void um_packet_mask(const um_packet *packet, uint8_t *out, uint8_t on)
{
    if (!sized(packet))
        return;
    memset(out, 0, (size_t)packet->width * (size_t)packet->height);
    if (!has_mask(packet))
        return;
    const int *crop = packet->crop;
    size_t row_bytes = (size_t)um_packet_row_bytes(packet);
    for (int y = 0; y < crop[3]; y++) {
        const uint8_t *bits = packet->bits + (size_t)y * row_bytes;
        uint8_t *row = out + (size_t)(crop[1] + y) * (size_t)packet->width + (size_t)crop[0];
        for (int x = 0; x < crop[2]; x++)
            row[x] = (uint8_t)(-(bits[x >> 3] >> (x & 7) & 1) & on);
    }
}

um_status um_packet_rle(const um_packet *packet, char **counts)
{
    if (!packet || !counts)
        return um_fail(UM_EINVAL, "um_packet_rle: %s is NULL", packet ? "counts" : "packet");
    *counts = NULL;
    if (!sized(packet))
        return um_fail(UM_EINVAL, "packet of %dx%d pixels", packet->width, packet->height);
    if (!has_mask(packet)) {
        um_rle empty = {0};
        um_rle_add(&empty, 0, (uint32_t)packet->width * (uint32_t)packet->height);
        return um_rle_finish(&empty, counts);
    }
    const int *c = packet->crop;
    return um_rle_encode_bits(packet->bits, (size_t)um_packet_row_bytes(packet), c[0], c[1], c[2],
                              c[3], packet->width, packet->height, counts);
}

static void put_floats(um_json *j, const float *v, int n)
{
    um_json_begin(j, '[');
    for (int i = 0; i < n; i++)
        um_json_float(j, v[i]);
    um_json_end(j, ']');
}

static void put_doubles(um_json *j, const double *v, int n)
{
    um_json_begin(j, '[');
    for (int i = 0; i < n; i++)
        um_json_double(j, v[i]);
    um_json_end(j, ']');
}

static void put_ms(um_json *j, const char *key, double ms)
{
    um_json_key(j, key);
    um_json_float(j, (float)ms); /* a double's 17 digits of a clock would be noise */
}

static void put_model(um_json *j, const char *key, const char *sha256)
{
    char text[sizeof "sha256:" + 64];
    um_json_key(j, key);
    if (!sha256[0]) {
        um_json_null(j);
        return;
    }
    snprintf(text, sizeof text, "sha256:%.64s", sha256);
    um_json_string(j, text);
}

um_status um_packet_json(const um_packet *packet, char **line)
{
    if (!packet || !line)
        return um_fail(UM_EINVAL, "um_packet_json: %s is NULL", packet ? "line" : "packet");
    *line = NULL;
    const um_packet *p = packet;
    int visible = p->state == UM_STATE_VISIBLE;
    int masked = visible && p->has_mask;
    char *counts = NULL;
    if (masked) {
        um_status st = um_packet_rle(p, &counts);
        if (st != UM_OK)
            return st;
    }
    um_json j = {0};
    um_json_begin(&j, '{');
    um_json_key(&j, "frame_id");
    um_json_uint(&j, p->frame_id);
    um_json_key(&j, "ts");
    um_json_double(&j, p->ts);
    um_json_key(&j, "state");
    um_json_string(&j, visible ? "VISIBLE" : "LOST");
    um_json_key(&j, "tag");
    um_json_string(&j, "fresh");
    um_json_key(&j, "label");
    um_json_int(&j, p->label);
    um_json_key(&j, "score");
    um_json_float(&j, p->score);
    um_json_key(&j, "box_xyxy");
    if (visible && p->has_box)
        put_floats(&j, p->box, 4);
    else
        um_json_null(&j);
    um_json_key(&j, "mask");
    if (masked) {
        um_json_begin(&j, '{');
        um_json_key(&j, "size");
        um_json_begin(&j, '[');
        um_json_int(&j, p->height);
        um_json_int(&j, p->width);
        um_json_end(&j, ']');
        um_json_key(&j, "counts");
        um_json_string(&j, counts);
        um_json_end(&j, '}');
    } else {
        um_json_null(&j);
    }
    um_json_key(&j, "mask_area_px");
    um_json_uint(&j, masked ? p->mask_area_px : 0);
    um_json_key(&j, "stages_ms");
    um_json_begin(&j, '{');
    put_ms(&j, "upload", p->ms.upload);
    put_ms(&j, "detect", p->ms.detect);
    put_ms(&j, "segment", p->ms.segment);
    put_ms(&j, "packet", p->ms.packet);
    put_ms(&j, "total", p->ms.total);
    um_json_end(&j, '}');
    um_json_key(&j, "transfers");
    um_json_begin(&j, '{');
    um_json_key(&j, "up");
    um_json_uint(&j, p->transfers.up);
    um_json_key(&j, "down");
    um_json_uint(&j, p->transfers.down);
    um_json_key(&j, "up_bytes");
    um_json_uint(&j, p->transfers.up_bytes);
    um_json_key(&j, "down_bytes");
    um_json_uint(&j, p->transfers.down_bytes);
    um_json_key(&j, "setup");
    um_json_uint(&j, p->transfers.setup);
    um_json_key(&j, "shared");
    um_json_bool(&j, p->transfers.shared);
    um_json_end(&j, '}');
    um_json_key(&j, "pose");
    if (p->has_pose)
        put_doubles(&j, p->pose, 16);
    else
        um_json_null(&j);
    um_json_key(&j, "spacing_mm");
    if (p->has_spacing)
        put_doubles(&j, p->spacing_mm, 2);
    else
        um_json_null(&j);
    um_json_key(&j, "device");
    um_json_string(&j, p->device);
    um_json_key(&j, "precision");
    um_json_string(&j, p->precision);
    um_json_key(&j, "as_numpy");
    um_json_int(&j, p->as_numpy);
    um_json_key(&j, "models");
    um_json_begin(&j, '{');
    put_model(&j, "detector", p->detector_sha256);
    put_model(&j, "segmenter", p->segmenter_sha256);
    um_json_end(&j, '}');
    um_json_key(&j, "lost_device");
    if (p->lost_device[0])
        um_json_string(&j, p->lost_device);
    else
        um_json_null(&j);
    um_json_end(&j, '}');
    um_free(counts);
    return um_json_finish(&j, line);
}
