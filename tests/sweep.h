/* SPDX-License-Identifier: Apache-2.0 */
/* A scripted sweep of a probe: windows of two wide phantom pictures, with noise of their own in
 * each frame, shifted, dimmed, shadowed, frozen and blanked; the truth of each frame is known. */
#ifndef UM_TEST_SWEEP_H
#define UM_TEST_SWEEP_H

#include "fixture.h"
#include "io/phantom.h"

enum { SWEEP_W = UM_PHANTOM_WIDTH, SWEEP_H = UM_PHANTOM_HEIGHT, SWEEP_WIDE = 4 * SWEEP_W };

enum truth { ABSENT, PRESENT, BETWEEN /* partly seen: either state will do */ };

struct view {
    uint8_t *pixels, *mask; /* [SWEEP_H][SWEEP_WIDE] */
    long bone;              /* pixels of it */
    int home, away;         /* left side of windows with all of it, and with nothing */
    int from, to;           /* columns that it covers */
};

struct sweep {
    struct view view[2];
    uint64_t noise;
    int frame;
    um_frame *last; /* to be frozen */
};

struct moment {
    enum truth truth;
    bool frozen, lifted;
    const char *event;
};

static inline uint32_t sweep_random(struct sweep *s)
{
    s->noise = s->noise * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->noise >> 33);
}

/* A wide picture with a bone beside which there is room. */
static inline void view_open(struct view *v, uint64_t seed)
{
    um_phantom *phantom = NULL;
    um_truth truth;
    v->pixels = malloc(SWEEP_H * SWEEP_WIDE);
    v->mask = malloc(SWEEP_H * SWEEP_WIDE);
    if (!v->pixels || !v->mask ||
        um_phantom_open(&phantom, SWEEP_WIDE, SWEEP_H, 0, UM_LOOK_DEFAULT) != UM_OK)
        fixture_die("sweep");
    for (uint64_t index = 0;; index++) {
        um_phantom_draw(phantom, seed, index, v->pixels, v->mask, &truth);
        v->from = (int)truth.box[0];
        v->to = (int)truth.box[2];
        int left = v->from - SWEEP_W, width = v->to - v->from;
        v->away = left >= 8 ? left - 8 : v->to + 8;
        v->home = (v->from + v->to - SWEEP_W) / 2;
        v->home = v->home < 0 ? 0 : v->home > SWEEP_WIDE - SWEEP_W ? SWEEP_WIDE - SWEEP_W : v->home;
        if (truth.has_bone && width >= 60 && width <= SWEEP_W - 20 &&
            v->away <= SWEEP_WIDE - SWEEP_W - 8)
            break;
    }
    um_phantom_close(&phantom);
    v->bone = set_pixels(v->mask, SWEEP_H * SWEEP_WIDE);
}

static inline void sweep_open(struct sweep *s, uint64_t seed)
{
    *s = (struct sweep){.noise = seed};
    view_open(&s->view[0], 900000 + 2 * seed);
    view_open(&s->view[1], 900001 + 2 * seed);
}

static inline void sweep_close(struct sweep *s)
{
    for (int i = 0; i < 2; i++) {
        free(s->view[i].pixels);
        free(s->view[i].mask);
    }
    um_frame_unref(&s->last);
}

/* What happens to a window. */
struct shot {
    const struct view *v;
    int x;       /* left side */
    float gain;  /* of all */
    float shade; /* of the columns of the bone, 1 = none */
    bool lifted; /* nothing but the probe's own echoes */
};

/* *left: the window's left side, which trembles. */
static inline um_frame *shoot(struct sweep *s, const struct shot *shot, enum truth *truth,
                              int *left)
{
    um_frame *f = new_frame(SWEEP_W, SWEEP_H, 1);
    long seen = 0, faint = 0;
    int x0 = shot->x + (int)(sweep_random(s) % 3) - 1;
    x0 = x0 < 0 ? 0 : x0 > SWEEP_WIDE - SWEEP_W ? SWEEP_WIDE - SWEEP_W : x0;
    *left = x0;
    for (int y = 0; y < SWEEP_H; y++)
        for (int x = 0; x < SWEEP_W; x++) {
            size_t at = (size_t)y * SWEEP_WIDE + (size_t)(x0 + x);
            bool shaded = x0 + x >= shot->v->from - 8 && x0 + x < shot->v->to + 8;
            float gain = shot->gain * (shaded ? shot->shade : 1);
            float v = gain * (float)shot->v->pixels[at] + (float)(sweep_random(s) % 5) - 2;
            if (shot->lifted)
                v = (y < 40 ? 120.f * (y % 12 < 3) : 0) + (float)(sweep_random(s) % 5);
            *pixel(f, x, y) = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            bool bone = shot->v->mask[at] && !shot->lifted;
            seen += bone && gain >= 0.3f;
            faint += bone && gain >= 0.05f;
        }
    *truth = seen >= 0.4 * (double)shot->v->bone     ? PRESENT
             : faint <= 0.01 * (double)shot->v->bone ? ABSENT
                                                     : BETWEEN;
    return f;
}

static inline int between(int a, int b, int i, int n)
{
    return a + (b - a) * i / n;
}

/* The next frame, which is the caller's, and its truth; NULL at the end. */
static inline um_frame *sweep_next(struct sweep *s, struct moment *m)
{
    static const float gains[] = {.8f, .65f, .5f, .5f, .8f, 1.1f, 1.3f, 1.f};
    static const float shades[] = {.7f, .4f, .15f, .02f, .02f, .02f, .02f, .02f, .3f, .6f};
    static const struct {
        const char *event;
        int frames;
    } script[] = {{"away", 8},  {"approach", 10}, {"dwell", 7}, {"gain", 8},      {"freeze", 6},
                  {"dwell", 2}, {"shadow", 10},   {"dwell", 6}, {"lift", 8},      {"dwell", 7},
                  {"jump", 7},  {"slide", 10},    {"away", 9},  {"jump back", 7}, {NULL, 0}};
    int part = 0, i = s->frame;
    while (script[part].event && i >= script[part].frames)
        i -= script[part++].frames;
    if (!script[part].event)
        return NULL;
    int n = script[part].frames;
    const struct view *a = &s->view[0], *b = &s->view[1];
    struct shot shot = {.v = part == 10 || part == 11 || part == 12 ? b : a, .gain = 1, .shade = 1};
    shot.x = part == 0    ? a->away
             : part == 1  ? between(a->away, a->home, i + 1, n)
             : part == 11 ? between(b->home, b->away, i + 1, n)
             : part == 12 ? b->away
                          : shot.v->home;
    if (part == 3)
        shot.gain = gains[i];
    if (part == 6)
        shot.shade = shades[i];
    shot.lifted = part == 8;
    um_frame *f;
    *m = (struct moment){.event = script[part].event, .frozen = part == 4, .lifted = shot.lifted};
    if (part == 4) {
        f = um_frame_ref(s->last);
        m->truth = PRESENT;
    } else {
        int left;
        f = shoot(s, &shot, &m->truth, &left);
        um_frame_unref(&s->last);
        s->last = um_frame_ref(f);
    }
    f->id = (uint64_t)s->frame++;
    return f;
}

#endif
