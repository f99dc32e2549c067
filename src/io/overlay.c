/* SPDX-License-Identifier: Apache-2.0 */
/* The picture people look at: the frame in gray, the mask as a tint with a crisp outline, the box,
 * and a caption. */
#include "base/mem.h"
#include "base/number.h"
#include "ultramotion/io.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct rgb {
    uint8_t r, g, b;
} rgb;

static const rgb TINT = {0, 190, 255}, OUTLINE = {60, 235, 255}, BOX = {255, 196, 40},
                 LOST = {255, 96, 80}, INK = {16, 16, 16};

enum { GLYPH_W = 5, GLYPH_H = 7, TINT_PERCENT = 30 };

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
    {'L', {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f}},
    {'O', {0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}},
    {'S', {0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e}},
    {'T', {0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04}},
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
 * picture. */
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

static void paint_mask(struct canvas *c, const uint8_t *mask)
{
    int w = c->width, h = c->height;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const uint8_t *m = mask + (size_t)y * (size_t)w + (size_t)x;
            uint8_t *p = c->rgb + ((size_t)y * (size_t)w + (size_t)x) * 3;
            if (!*m)
                continue;
            /* the picture's border is no outline: the structure goes on outside */
            int edge = (x > 0 && !m[-1]) || (x < w - 1 && !m[1]) || (y > 0 && !m[-w]) ||
                       (y < h - 1 && !m[w]);
            const uint8_t color[3] = {edge ? OUTLINE.r : TINT.r, edge ? OUTLINE.g : TINT.g,
                                      edge ? OUTLINE.b : TINT.b};
            for (int i = 0; i < 3; i++)
                p[i] =
                    edge ? color[i]
                         : (uint8_t)((p[i] * (100 - TINT_PERCENT) + color[i] * TINT_PERCENT + 50) /
                                     100);
        }
}

/* A whole number of pixels; far outside every picture is all the same, and so is NaN. */
static int pixel(float v)
{
    enum { FAR = 1 << 20 };
    return v < -FAR ? -FAR : v < FAR ? (int)v : FAR;
}

static void paint_box(struct canvas *c, const float box[4], int line)
{
    int x0 = pixel(floorf(box[0])), y0 = pixel(floorf(box[1])), x1 = pixel(ceilf(box[2])),
        y1 = pixel(ceilf(box[3]));
    x1 = x1 > x0 + line ? x1 : x0 + line;
    y1 = y1 > y0 + line ? y1 : y0 + line;
    fill(c, x0, y0, x1, y0 + line, BOX);
    fill(c, x0, y1 - line, x1, y1, BOX);
    fill(c, x0, y0, x0 + line, y1, BOX);
    fill(c, x1 - line, y0, x1, y1, BOX);
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
    int side = c.width < c.height ? c.width : c.height;
    int line = 1 + side / 800, scale = 1 + side / 350;
    char text[32];
    if (packet->state == UM_STATE_LOST) {
        um_number_print(text, sizeof text, "LOST %.2f", (double)packet->score);
        caption(&c, 2 * scale, 2 * scale + (GLYPH_H + 4) * scale, scale, text, LOST);
    } else {
        if (packet->has_mask) {
            uint8_t *mask = um_alloc((size_t)c.width * (size_t)c.height);
            if (!mask) {
                um_free(c.rgb);
                return um_fail(UM_ENOMEM, "mask of %dx%d", c.width, c.height);
            }
            um_packet_mask(packet, mask, 1);
            paint_mask(&c, mask);
            um_free(mask);
        }
        um_number_print(text, sizeof text, "%.2f", (double)packet->score);
        if (packet->has_box) {
            paint_box(&c, packet->box, line);
            caption(&c, pixel(floorf(packet->box[0])), pixel(floorf(packet->box[1])), scale, text,
                    BOX);
        }
    }
    *out = c.rgb;
    return UM_OK;
}
