/* SPDX-License-Identifier: Apache-2.0 */
/* The image people look at: the frame in gray, each object's mask as a tint with a crisp outline,
 * its box, and a caption. */
#include "base/mem.h"
#include "base/number.h"
#include "ultramotion/io.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef struct rgb {
    uint8_t r, g, b;
} rgb;

/* Objects in turn, best first. */
static const struct look {
    rgb tint, outline, box;
} looks[] = {
    {{0, 190, 255}, {60, 235, 255}, {255, 196, 40}},
    {{60, 220, 90}, {130, 255, 150}, {130, 255, 150}},
    {{235, 90, 220}, {255, 150, 245}, {255, 150, 245}},
    {{255, 140, 60}, {255, 180, 120}, {255, 180, 120}},
};
enum { LOOKS = sizeof looks / sizeof *looks };
static const rgb CROP = {110, 110, 120}, LOST = {255, 96, 80}, INK = {16, 16, 16};

enum { GLYPH_W = 5, GLYPH_H = 7, TINT_PERCENT = 30, TEXT_BYTES = 48 };

/* Rows from the top, bit 4 is the leftmost pixel. */
static const struct glyph {
    char c;
    uint8_t rows[GLYPH_H];
} font[] = {
    {'0', {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}},
    {'1', {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'2', {0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f}},
    {'3', {0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e}},
    {'4', {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}},
    {'5', {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e}},
    {'6', {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}},
    {'7', {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08}},
    {'8', {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}},
    {'9', {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c}},
    {'.', {0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c}},
    {'-', {0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00}},
    {'A', {0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}},
    {'B', {0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e}},
    {'C', {0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e}},
    {'D', {0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e}},
    {'E', {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f}},
    {'F', {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10}},
    {'G', {0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f}},
    {'H', {0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}},
    {'I', {0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'J', {0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c}},
    {'K', {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11}},
    {'L', {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f}},
    {'M', {0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11}},
    {'N', {0x11, 0x11, 0x19, 0x15, 0x13, 0x11, 0x11}},
    {'O', {0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}},
    {'P', {0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10}},
    {'Q', {0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d}},
    {'R', {0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11}},
    {'S', {0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e}},
    {'T', {0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04}},
    {'U', {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}},
    {'V', {0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04}},
    {'W', {0x11, 0x11, 0x11, 0x15, 0x15, 0x15, 0x0a}},
    {'X', {0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11}},
    {'Y', {0x11, 0x11, 0x0a, 0x04, 0x04, 0x04, 0x04}},
    {'Z', {0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f}},
    {'_', {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1f}},
    {'/', {0x01, 0x01, 0x02, 0x04, 0x08, 0x10, 0x10}},
    {'?', {0x0e, 0x11, 0x01, 0x02, 0x04, 0x00, 0x04}},
};

struct canvas {
    uint8_t *rgb;
    int width, height;
};

static void fill(struct canvas *c, int x0, int y0, int x1, int y1, rgb color)
{
    x0 = x0 < 0 ? 0 : x0;
    y0 = y0 < 0 ? 0 : y0;
    x1 = x1 > c->width ? c->width : x1;
    y1 = y1 > c->height ? c->height : y1;
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++)
            memcpy(c->rgb + ((size_t)y * (size_t)c->width + (size_t)x) * 3, &color, 3);
}

/* Dark text on a plate, its lower left corner at x, bottom, moved so that it lies inside the
 * image. */
static void caption(struct canvas *c, int x, int bottom, int scale, const char *text, rgb plate)
{
    int w = ((int)strlen(text) * (GLYPH_W + 1) + 3) * scale, h = (GLYPH_H + 4) * scale;
    x = x + w > c->width ? c->width - w : x;
    x = x < 0 ? 0 : x;
    int y = bottom - h < 0 ? 0 : bottom - h;
    fill(c, x, y, x + w, y + h, plate);
    x += 2 * scale;
    y += 2 * scale;
    for (; *text; text++, x += (GLYPH_W + 1) * scale)
        for (size_t g = 0; g < sizeof font / sizeof *font; g++)
            for (int i = 0; font[g].c == *text && i < GLYPH_W * GLYPH_H; i++)
                if (font[g].rows[i / GLYPH_W] >> (GLYPH_W - 1 - i % GLYPH_W) & 1) {
                    int px = x + i % GLYPH_W * scale, py = y + i / GLYPH_W * scale;
                    fill(c, px, py, px + scale, py + scale, INK);
                }
}

static void paint_mask(struct canvas *c, const uint8_t *mask, const struct look *look)
{
    int w = c->width, h = c->height;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const uint8_t *m = mask + (size_t)y * (size_t)w + (size_t)x;
            uint8_t *p = c->rgb + ((size_t)y * (size_t)w + (size_t)x) * 3;
            if (!*m)
                continue;
            /* the image's border is no outline: the structure goes on outside */
            int edge = (x > 0 && !m[-1]) || (x < w - 1 && !m[1]) || (y > 0 && !m[-w]) ||
                       (y < h - 1 && !m[w]);
            const uint8_t color[3] = {edge ? look->outline.r : look->tint.r,
                                      edge ? look->outline.g : look->tint.g,
                                      edge ? look->outline.b : look->tint.b};
            for (int i = 0; i < 3; i++)
                p[i] =
                    edge ? color[i]
                         : (uint8_t)((p[i] * (100 - TINT_PERCENT) + color[i] * TINT_PERCENT + 50) /
                                     100);
        }
}

/* A whole number of pixels; far outside every image is all the same, and so is NaN. */
static int pixel(float v)
{
    enum { FAR = 1 << 20 };
    return v < -FAR ? -FAR : v < FAR ? (int)v : FAR;
}

static void paint_box(struct canvas *c, const float box[4], int line, rgb color)
{
    int x0 = pixel(floorf(box[0])), y0 = pixel(floorf(box[1])), x1 = pixel(ceilf(box[2])),
        y1 = pixel(ceilf(box[3]));
    x1 = x1 > x0 + line ? x1 : x0 + line;
    y1 = y1 > y0 + line ? y1 : y0 + line;
    fill(c, x0, y0, x1, y0 + line, color);
    fill(c, x0, y1 - line, x1, y1, color);
    fill(c, x0, y0, x0 + line, y1, color);
    fill(c, x1 - line, y0, x1, y1, color);
}

static void copy_gray(struct canvas *c, const um_frame *f)
{
    for (int y = 0; y < f->height; y++) {
        const uint8_t *from = f->pixels + y * f->stride;
        uint8_t *to = c->rgb + (size_t)y * (size_t)f->width * 3;
        for (int x = 0; x < f->width; x++, to += 3) {
            /* Rec. 601 luma, as in Pillow's convert("L") */
            unsigned v = f->channels == 1 ? from[x]
                                          : (19595u * from[3 * x] + 38470u * from[3 * x + 1] +
                                             7471u * from[3 * x + 2] + 0x8000u) >>
                                                16;
            memset(to, (int)v, 3);
        }
    }
}

/* "BONE 0.93": what the font has of a class's name, and the score. */
static void describe(const um_object *o, char text[TEXT_BYTES])
{
    enum { NAME = 32 };
    size_t n = 0;
    for (const char *s = o->name ? o->name : ""; *s && n < NAME; s++) {
        unsigned char c = (unsigned char)*s;
        bool known = strchr(" .-_/", c) || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
        if (c >= 'a' && c <= 'z')
            text[n++] = (char)(c - 'a' + 'A');
        else if ((c & 0xc0) != 0x80) /* one for each character that it has not */
            text[n++] = known ? (char)c : '?';
    }
    um_number_print(text + n, TEXT_BYTES - n, "%s%.2f", n ? " " : "", (double)o->score);
}

/* The worst first, so that the best lies on top. */
static um_status paint_objects(struct canvas *c, const um_packet *packet, int line, int scale)
{
    uint8_t *mask = um_alloc((size_t)c->width * (size_t)c->height);
    if (!mask)
        return um_fail(UM_ENOMEM, "mask of %dx%d", c->width, c->height);
    for (int i = packet->objects - 1; i >= 0; i--)
        if (um_packet_object(packet, i)->has_mask) {
            um_packet_object_mask(packet, i, mask, 1);
            paint_mask(c, mask, &looks[i % LOOKS]);
        }
    um_free(mask);
    for (int i = packet->objects - 1; i >= 0; i--) {
        const um_object *o = um_packet_object(packet, i);
        rgb color = looks[i % LOOKS].box;
        char text[TEXT_BYTES];
        if (!o->has_box)
            continue;
        describe(o, text);
        paint_box(c, o->box, line, color);
        caption(c, pixel(floorf(o->box[0])), pixel(floorf(o->box[1])), scale, text, color);
    }
    return UM_OK;
}

um_status um_overlay(const um_packet *packet, const um_frame *frame, uint8_t **out)
{
    if (!packet || !frame || !out)
        return um_fail(UM_EINVAL, "um_overlay: %s is NULL",
                       !packet  ? "packet"
                       : !frame ? "frame"
                                : "rgb");
    *out = NULL;
    if (packet->width != frame->width || packet->height != frame->height)
        return um_fail(UM_EINVAL, "overlay: packet of %dx%d on a frame of %dx%d", packet->width,
                       packet->height, frame->width, frame->height);
    struct canvas c = {um_alloc((size_t)frame->width * (size_t)frame->height * 3), frame->width,
                       frame->height};
    if (!c.rgb)
        return um_fail(UM_ENOMEM, "overlay of %dx%d", frame->width, frame->height);
    copy_gray(&c, frame);
    const int *p = packet->crop;
    if (p[2] && (p[2] < c.width || p[3] < c.height))
        paint_box(&c,
                  (float[]){(float)p[0], (float)p[1], (float)(p[0] + p[2]), (float)(p[1] + p[3])},
                  1, CROP);
    int side = c.width < c.height ? c.width : c.height;
    int line = 1 + side / 800, scale = 1 + side / 350;
    um_status st = UM_OK;
    if (packet->state == UM_STATE_LOST) {
        char text[TEXT_BYTES];
        um_number_print(text, sizeof text, "LOST %.2f", (double)packet->score);
        caption(&c, 2 * scale, 2 * scale + (GLYPH_H + 4) * scale, scale, text, LOST);
    } else
        st = paint_objects(&c, packet, line, scale);
    if (st != UM_OK)
        um_free(c.rgb);
    else
        *out = c.rgb;
    return st;
}
