/* SPDX-License-Identifier: Apache-2.0 */
#include "io/phantom_screen.h"

#include "base/mem.h"

#include <string.h>

enum { W = UM_SCREEN_WIDTH, H = UM_SCREEN_HEIGHT, HEADER = 70, FOOTER = 50, MENU = 200, SIDE = 90 };

static void fill(uint8_t *screen, int x, int y, int w, int h, uint8_t level)
{
    for (int row = y; row < y + h; row++)
        memset(screen + row * W + x, level, (size_t)w);
}

/* A word, as far as the shape of letters goes. */
static void put_word(uint8_t *screen, struct rng *r, int x, int y, int letters)
{
    enum { DOT = 2 };
    for (; letters > 0; letters--, x += 6 * DOT) {
        uint64_t shape = next(r) & next(r);
        for (int i = 0; i < 35; i++)
            if (shape >> i & 1)
                fill(screen, x + i % 5 * DOT, y + i / 5 * DOT, DOT, DOT, 220);
    }
}

static void draw_empty(struct um_screen *s, struct rng *r)
{
    uint8_t ground = (uint8_t)(below(r, 0, 2) ? below(r, 10, 60) : 0), *screen = s->empty;
    fill(screen, 0, 0, W, H, ground);
    fill(screen, 0, 0, W, HEADER - 20, (uint8_t)(ground + 40));
    put_word(screen, r, 30, 18, 40);
    for (int y = HEADER + 30; y < H - FOOTER - 20; y += below(r, 34, 70))
        put_word(screen, r, 20, y, below(r, 3, 12));
    put_word(screen, r, MENU, H - 30, below(r, 8, 30));
    for (int i = 0; i < 256; i++)
        fill(screen, W - 40, HEADER + 30 + i, 16, 1, (uint8_t)(255 - i));
    for (int y = s->y, k = 0; y < s->y + s->h; y += 20, k++)
        fill(screen, s->x + s->w + 20, y, k % 5 ? 6 : 12, 2, 200);
    fill(screen, s->x, s->y, s->w, s->h, 0);
}

um_status um_screen_open(struct um_screen *s, uint64_t seed, int width, int height)
{
    enum { MOST_W = W - MENU - SIDE, MOST_H = H - HEADER - FOOTER };
    struct rng r = {seed ^ 0x73637265656eull};
    *s = (struct um_screen){.w = width, .h = height};
    if (width > MOST_W || height > MOST_H)
        return um_fail(UM_EINVAL,
                       "phantom: width=%d, height=%d: on a screen there is room for %dx%d", width,
                       height, (int)MOST_W, (int)MOST_H);
    size_t pixels = (size_t)width * (size_t)height, all = (size_t)W * H;
    if (!(s->image = um_alloc(2 * pixels + 3 * all)))
        return um_fail(UM_ENOMEM, "screen of the phantom");
    s->image_mask = s->image + pixels;
    s->empty = s->image_mask + pixels;
    s->mask = s->empty + all;
    s->map = s->mask + all;
    s->x = MENU + below(&r, 0, MOST_W - width + 1);
    s->y = HEADER + below(&r, 0, MOST_H - height + 1);
    draw_empty(s, &r);
    return UM_OK;
}

void um_screen_close(struct um_screen *s)
{
    um_free(s->image);
    s->image = NULL;
}

static void paste(const struct um_screen *s, uint8_t *to, const uint8_t *image)
{
    for (int row = 0; row < s->h; row++)
        memcpy(to + (s->y + row) * W + s->x, image + (ptrdiff_t)row * s->w, (size_t)s->w);
}

static void move_box(const struct um_screen *s, float box[4])
{
    for (int k = 0; k < 4; k++)
        box[k] += (float)(k % 2 ? s->y : s->x);
}

void um_screen_show(struct um_screen *s, uint8_t *pixels, um_truth *truth)
{
    memcpy(pixels, s->empty, (size_t)W * H);
    paste(s, pixels, s->image);
    if (truth->mask) {
        memset(s->mask, 0, (size_t)W * H);
        paste(s, s->mask, truth->mask);
        truth->mask = s->mask;
    }
    if (truth->map) {
        memset(s->map, 0, (size_t)W * H);
        paste(s, s->map, truth->map);
        truth->map = s->map;
    }
    if (truth->has_bone)
        move_box(s, truth->box);
    for (int i = 0; i < truth->n_structures; i++) {
        s->structure[i] = truth->structure[i];
        move_box(s, s->structure[i].box);
    }
    truth->structure = truth->n_structures ? s->structure : truth->structure;
}
