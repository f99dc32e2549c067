/* SPDX-License-Identifier: Apache-2.0 */
#include "io/phantom_sweep.h"

#include "base/mem.h"

#include <string.h>

enum { W = UM_PHANTOM_WIDTH, H = UM_PHANTOM_HEIGHT, WIDE = UM_SWEEP_WIDE };

enum place { HOME, COMING, GOING, AWAY };

static const float GAINS[] = {.8f, .65f, .5f, .5f, .8f, 1.1f, 1.3f, 1.f};
static const float SHADES[] = {.7f, .4f, .15f, .02f, .02f, .02f, .02f, .02f, .3f, .6f};
static const double LIFTS[] = {5, 10, 15, 20, 20, 15, 10, 5};

static const struct part {
    const char *event;
    int frames, view;
    enum place place;
    const float *gain, *shade; /* by frame; NULL = 1 */
    const double *lift_mm;     /* NULL = 0 */
    bool frozen;
} script[] = {
    {"away", .frames = 8, .place = AWAY},
    {"approach", .frames = 10, .place = COMING},
    {"dwell", .frames = 7},
    {"gain", .frames = 8, .gain = GAINS},
    {"freeze", .frames = 6, .frozen = true},
    {"dwell", .frames = 2},
    {"shadow", .frames = 10, .shade = SHADES},
    {"dwell", .frames = 6},
    {"lift", .frames = 8, .lift_mm = LIFTS},
    {"dwell", .frames = 7},
    {"jump", .frames = 7, .view = 1},
    {"slide", .frames = 10, .view = 1, .place = GOING},
    {"away", .frames = 9, .view = 1, .place = AWAY},
    {"jump back", .frames = 7},
};

static uint32_t noise(struct um_sweep *s)
{
    s->noise = s->noise * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->noise >> 33);
}

static int inside(int x)
{
    return x < 0 ? 0 : x > WIDE - W ? WIDE - W : x;
}

static void find_view(struct um_sweep *s, struct um_sweep_view *v, uint64_t seed)
{
    um_truth truth;
    for (uint64_t index = 0;; index++) {
        um_phantom_draw(s->phantom, seed, index, v->pixels, v->mask, &truth);
        v->from = (int)truth.box[0];
        v->to = (int)truth.box[2];
        int left = v->from - W, width = v->to - v->from;
        v->away = left >= 8 ? left - 8 : v->to + 8;
        v->home = inside((v->from + v->to - W) / 2);
        bool contact = truth.visibility > .3f; /* else nobody could tell that it is there */
        if (truth.has_bone && contact && width >= 60 && width <= W - 20 && v->away <= WIDE - W - 8)
            break;
    }
    v->bone = 0;
    for (size_t i = 0; i < (size_t)H * WIDE; i++)
        v->bone += v->mask[i];
}

um_status um_sweep_open(struct um_sweep *s)
{
    *s = (struct um_sweep){0};
    um_status st = um_phantom_open(&s->phantom, WIDE, H, 0, UM_LOOK_DEFAULT);
    bool ok = (s->pixels = um_alloc((size_t)H * W)) && (s->mask = um_alloc((size_t)H * W));
    for (int i = 0; i < 2; i++)
        ok = ok && (s->view[i].pixels = um_alloc((size_t)H * WIDE)) &&
             (s->view[i].mask = um_alloc((size_t)H * WIDE));
    if (st == UM_OK && !ok)
        st = um_fail(UM_ENOMEM, "sweeps of the phantom");
    if (st != UM_OK)
        um_sweep_close(s);
    return st;
}

void um_sweep_close(struct um_sweep *s)
{
    um_phantom_close(&s->phantom);
    for (int i = 0; i < 2; i++) {
        um_free(s->view[i].pixels);
        um_free(s->view[i].mask);
    }
    um_free(s->pixels);
    um_free(s->mask);
    *s = (struct um_sweep){0};
}

void um_sweep_start(struct um_sweep *s, uint64_t seed, uint64_t number)
{
    uint64_t own = seed + number * 0x9e3779b97f4a7c15u; /* no neighbour's */
    s->seed = seed;
    s->number = number;
    s->noise = own;
    s->played = 0;
    for (unsigned i = 0; i < 2; i++)
        find_view(s, &s->view[i], 900000 + 2 * own + i); /* seeds that nothing is trained on */
}

/* The bone counts from its hundredth part on. */
static void tell_truth(struct um_sweep *s)
{
    const struct um_sweep_view *v = s->shown;
    s->truth = (um_truth){.struct_size = sizeof s->truth};
    if (100 * s->seen <= v->bone) {
        memset(s->mask, 0, (size_t)H * W);
        return;
    }
    s->truth.mask = s->mask;
    s->truth.has_bone = um_phantom_box(s->mask, W, H, s->truth.box);
    s->truth.visibility = (float)s->seen / (float)v->bone;
}

/* The tracker's axes are the image's: x along the array, y into the body; the second place is
 * beside the first. */
static void tell_pose(struct um_sweep *s, const struct um_sweep_shot *shot)
{
    memset(s->pose, 0, sizeof s->pose);
    for (int i = 0; i < 16; i += 5)
        s->pose[i] = 1;
    s->pose[3] = s->left * UM_SWEEP_SPACING;
    s->pose[7] = 0 - shot->lift_mm;
    s->pose[11] = 60 * shot->view;
}

void um_sweep_shoot(struct um_sweep *s, const struct um_sweep_shot *shot)
{
    const struct um_sweep_view *v = &s->view[shot->view];
    s->shown = v;
    s->left = inside(shot->x + (int)(noise(s) % 3) - 1);
    s->lifted = shot->lift_mm > 0;
    s->seen = s->faint = 0;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            int column = s->left + x;
            size_t at = (size_t)y * WIDE + (size_t)column;
            bool shaded = column >= v->from - 8 && column < v->to + 8;
            float gain = shot->gain * (shaded ? shot->shade : 1);
            float value = gain * (float)v->pixels[at] + (float)(noise(s) % 5) - 2;
            if (s->lifted)
                value = (y < 40 ? 120.f * (y % 12 < 3) : 0) + (float)(noise(s) % 5);
            bool bone = v->mask[at] && !s->lifted;
            s->pixels[y * W + x] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
            s->mask[y * W + x] = bone && gain >= 0.3f;
            s->seen += s->mask[y * W + x];
            s->faint += bone && gain >= 0.05f;
        }
    tell_truth(s);
    tell_pose(s, shot);
}

static int between(int a, int b, int i, int n)
{
    return a + (b - a) * i / n;
}

static void play(struct um_sweep *s)
{
    const struct part *p = script;
    int i = s->played++;
    while (i >= p->frames)
        i -= p++->frames;
    const struct um_sweep_view *v = &s->view[p->view];
    s->event = p->event;
    s->frozen = p->frozen;
    if (p->frozen)
        return;
    int x = p->place == AWAY     ? v->away
            : p->place == COMING ? between(v->away, v->home, i + 1, p->frames)
            : p->place == GOING  ? between(v->home, v->away, i + 1, p->frames)
                                 : v->home;
    um_sweep_shoot(s, &(struct um_sweep_shot){.view = p->view,
                                              .x = x,
                                              .gain = p->gain ? p->gain[i] : 1,
                                              .shade = p->shade ? p->shade[i] : 1,
                                              .lift_mm = p->lift_mm ? p->lift_mm[i] : 0});
}

void um_sweep_draw(struct um_sweep *s, uint64_t seed, uint64_t index)
{
    uint64_t number = index / UM_SWEEP_FRAMES;
    int frame = (int)(index % UM_SWEEP_FRAMES);
    if (!s->played || s->seed != seed || s->number != number || s->played > frame + 1)
        um_sweep_start(s, seed, number);
    while (s->played <= frame)
        play(s);
}
