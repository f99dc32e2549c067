/* SPDX-License-Identifier: Apache-2.0 */
/* A sketch of B-mode physics. One image is
 *
 *   amp   echo amplitude of the tissue: layers with bright borders, striated texture,
 *         vessels, short bright distractors
 *   bone  a bright ridge, with a shadow below it that takes amp away
 *   loss  poor contact on one side, attenuation with depth
 *   env   amp times speckle: the magnitude of complex white noise through the point-spread
 *         function, to a power
 *   u8    log compression, gamma, gain, a little noise
 *
 * Lengths scale with the height, 320 rows being the unit. Truth: the mask is where the ridge's
 * profile exp(-d^2) exceeds 0.21 of its peak, |d| < 1.25, and the box is the mask's. */
#include "io/phantom.h"

#include "base/mem.h"
#include "io/field.h"
#include "io/phantom_hard.h"

static const float RIDGE_DIST = 1.25f;

struct um_phantom {
    int w, h;
    float s; /* pixels per unit of length */
    double empty;
    um_look look;
    struct um_hard hard; /* where the look is that */
    struct um_field field;
    float *amp, *re, *im;                                  /* [h,w] */
    float *curve, *ridge, *slope, *wide, *bright, *column; /* [w] */
};

/* ---- the parts of an image ---- */

static void draw_layers(struct um_phantom *g, struct rng *r)
{
    int w = g->w, h = g->h, n = below(r, 3, 7);
    float s = g->s, tops[6], base = uniform(r, .05, .35);
    for (size_t i = 0; i < (size_t)w * (size_t)h; i++)
        g->amp[i] = base;
    for (int i = 0; i < n; i++) {
        float top = uniform(r, 0, .8) * (float)h;
        int j = i;
        for (; j > 0 && tops[j - 1] > top; j--)
            tops[j] = tops[j - 1];
        tops[j] = top;
    }
    float *restrict c = g->curve;
    for (int l = 0; l < n; l++) {
        float bend = uniform(r, 2, 8) * s, spacing = uniform(r, 40, 120) * s,
              tilt = uniform(r, -20, 20) * s;
        float level = uniform(r, .03, .5);
        int border = uniform(r, 0, 1) < .8f;
        float thick = uniform(r, .8, 3) * s, bright = uniform(r, .3, 1.6);
        um_field_curve(&g->field, r, bend, spacing, c);
        float least = 1e9f, most = -1e9f;
        for (int x = 0; x < w; x++) {
            c[x] += tops[l] + tilt * (2 * (float)x / (float)(w - 1) - 1);
            least = c[x] < least ? c[x] : least;
            most = c[x] > most ? c[x] : most;
        }
        for (int y = 0; y < h; y++) {
            float *restrict row = g->amp + (size_t)y * (size_t)w, fy = (float)y;
            if (fy > most) {
                for (int x = 0; x < w; x++)
                    row[x] = level;
            } else if (fy > least) {
                for (int x = 0; x < w; x++)
                    row[x] = fy > c[x] ? level : row[x];
            }
            if (!border || fy < least - 4 * thick || fy > most + 4 * thick)
                continue;
            for (int x = 0; x < w; x++) {
                float d = (fy - c[x]) / thick;
                row[x] += bright * natural_exp(-d * d);
            }
        }
    }
}

/* Striation of muscle: smooth noise, long in x. It is made on a grid that is coarser in x, which no
 * one can tell once it is blurred by at least four cells, and costs a fraction. */
static void draw_texture(struct um_phantom *g, struct rng *r, struct rng *field)
{
    int w = g->w, h = g->h;
    float sx = uniform(r, 6, 20) * g->s, sy = uniform(r, 1, 4) * g->s, depth = uniform(r, .2, .9);
    int cell = (int)(sx / 4);
    cell = cell < 1 ? 1 : cell;
    int gw = (w - 1) / cell + 2;
    float *grid = g->re;
    if (gw > w) { /* cells of one pixel need no column more */
        gw = w;
        cell = 1;
    }
    size_t n = (size_t)gw * (size_t)h;
    um_field_noise(field, grid, n);
    um_field_blur(&g->field, grid, gw, h, sx / (float)cell, sy);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)grid[i];
        squares += (double)grid[i] * (double)grid[i];
    }
    double mean = sum / (double)n;
    float scale = depth / (float)(sqrt(squares / (double)n - mean * mean) + 1e-6);
    for (int y = 0; y < h; y++) {
        const float *from = grid + (size_t)y * (size_t)gw;
        float *restrict row = g->amp + (size_t)y * (size_t)w, *restrict line = g->field.line;
        float step = 1 / (float)cell;
        for (int i = 0, x = 0; x < w; i++) {
            float v = from[i], dv = i + 1 < gw ? (from[i + 1] - v) * step : 0;
            for (int k = 0; k < cell && x < w; k++, x++)
                line[x] = v + (float)k * dv;
        }
        for (int x = 0; x < w; x++)
            row[x] *= natural_exp(scale * line[x]);
    }
}

static void draw_vessels(struct um_phantom *g, struct rng *r)
{
    for (int n = below(r, 0, 4); n > 0; n--) {
        float cx = uniform(r, 0, 1) * (float)g->w, cy = uniform(r, .1, .8) * (float)g->h;
        float a = uniform(r, 5, 30) * g->s, b = uniform(r, 5, 25) * g->s,
              dark = uniform(r, .02, .3);
        int wall = uniform(r, 0, 1) < .5f;
        float bright = wall ? uniform(r, .2, .8) : 0, reach = wall ? 1.5f : 1;
        int x0 = clamp(cx - reach * a, g->w), x1 = clamp(cx + reach * a + 1, g->w);
        int y0 = clamp(cy - reach * b, g->h), y1 = clamp(cy + reach * b + 1, g->h);
        for (int y = y0; y < y1; y++) {
            float *row = g->amp + (size_t)y * (size_t)g->w, v = ((float)y - cy) / b;
            for (int x = x0; x < x1; x++) {
                float u = ((float)x - cx) / a, e = u * u + v * v;
                if (e < 1)
                    row[x] *= dark;
                if (wall) {
                    float d = (sqrtf(e) - 1) / .12f;
                    row[x] += bright * natural_exp(-d * d);
                }
            }
        }
    }
}

static void draw_distractors(struct um_phantom *g, struct rng *r)
{
    for (int n = below(r, 0, 8); n > 0; n--) {
        float cx = uniform(r, 0, 1) * (float)g->w, cy = uniform(r, 0, .9) * (float)g->h;
        float half = uniform(r, 8, 60) * g->s / 2, sn = sine(uniform(r, -.6, .6)),
              cs = sqrtf(1 - sn * sn);
        float thick = uniform(r, .8, 2.5) * g->s, bright = uniform(r, .2, 1.5);
        float rx = half + 4 * thick, ry = half * fabsf(sn) + 4 * thick;
        int x0 = clamp(cx - rx, g->w), x1 = clamp(cx + rx + 1, g->w);
        int y0 = clamp(cy - ry, g->h), y1 = clamp(cy + ry + 1, g->h);
        for (int y = y0; y < y1; y++) {
            float *row = g->amp + (size_t)y * (size_t)g->w;
            for (int x = x0; x < x1; x++) {
                float u = ((float)x - cx) * cs + ((float)y - cy) * sn;
                float v = (((float)y - cy) * cs - ((float)x - cx) * sn) / thick;
                if (fabsf(u) < half)
                    row[x] += bright * natural_exp(-v * v);
            }
        }
    }
}

/* The ridge y(x): two flanks of their own steepness, round at the top, with some roughness. Returns
 * 0 if too little of it is in the image. g->ridge: y per column; g->wide: half thickness along y,
 * negative where there is no ridge. */
static int shape_bone(struct um_phantom *g, struct rng *r, float *left, float *right)
{
    int w = g->w, h = g->h;
    float s = g->s, x0 = uniform(r, .15, .95) * (float)w, y0 = uniform(r, .06, .6) * (float)h;
    float steep_l = uniform(r, .1, 2.2), steep_r = uniform(r, .1, 2.2), p = uniform(r, 1, 2.2);
    float wide_l = uniform(r, 20, 130) * s, wide_r = uniform(r, 20, 130) * s,
          round = uniform(r, 20, 80) * s;
    float thick = uniform(r, 1.6, 4) * s;
    float *y = g->ridge, *slope = g->slope;
    um_field_curve(&g->field, r, 1.5f * s, 20 * s, y);
    int seen = 0;
    for (int x = 0; x < w; x++) {
        float d = (float)x - x0, top = round * .3f;
        float f = (d < 0 ? steep_l : steep_r) * (sqrtf(d * d + top * top) - top);
        y[x] += y0 + (p > 1.5f ? f * (1 + fabsf(d) / (3 * round)) : f);
    }
    for (int x = 0; x < w; x++) {
        int a = x > 0 ? x - 1 : 0, b = x < w - 1 ? x + 1 : x;
        slope[x] = (y[b] - y[a]) / (float)(b - a);
    }
    for (int x = 0; x < w; x++) {
        float d = (float)x - x0;
        int in = d > -wide_l && d < wide_r && y[x] < (float)(h - 3);
        seen += in;
        g->wide[x] = in ? thick * sqrtf(1 + slope[x] * slope[x]) : -1;
    }
    *left = x0 - wide_l;
    *right = x0 + wide_r;
    return (float)seen > 12 * s;
}

bool um_phantom_box(const uint8_t *mask, int w, int h, float box[4])
{
    int b[4] = {w, h, 0, 0};
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            if (!mask[(size_t)y * (size_t)w + (size_t)x])
                continue;
            b[0] = x < b[0] ? x : b[0];
            b[1] = y < b[1] ? y : b[1];
            b[2] = x >= b[2] ? x + 1 : b[2];
            b[3] = y + 1;
        }
    for (int i = 0; i < 4; i++)
        box[i] = b[2] ? (float)b[i] : 0;
    return b[2] > 0;
}

static void draw_bone(struct um_phantom *g, struct rng *r, uint8_t *mask, um_truth *truth)
{
    int w = g->w, h = g->h;
    const float *restrict ridge = g->ridge, *restrict wide = g->wide;
    float *restrict bright = g->bright;
    float peak = uniform(r, 1.6, 4.5), fade = uniform(r, 0, .6), shadow = uniform(r, 0, .15);
    float decay = -1.44269504f / (uniform(r, 4, 25) * g->s), rest = .25f - .25f * shadow;
    um_field_curve(&g->field, r, 1, 15 * g->s, g->curve);
    float first = (float)h, last = -1; /* rows the ridge can touch */
    for (int x = 0; x < w; x++) {
        float steep = 1 + g->slope[x] * g->slope[x];
        bright[x] =
            wide[x] < 0 ? 0 : peak * power(steep, -.5f * fade) * natural_exp(.25f * g->curve[x]);
        if (wide[x] < 0)
            continue;
        first = ridge[x] - 4 * wide[x] < first ? ridge[x] - 4 * wide[x] : first;
        last = ridge[x] + 4 * wide[x] > last ? ridge[x] + 4 * wide[x] : last;
    }
    int y0 = clamp(first, h), y1 = clamp(last + 1, h);
    float *restrict att = g->re;
    for (int y = 0; y < h; y++) {
        float *restrict row = att + (size_t)y * (size_t)w;
        for (int x = 0; x < w; x++) {
            float under = (float)y - ridge[x];
            int dark = wide[x] >= 0 && under > wide[x];
            row[x] = dark ? shadow + rest * power2(decay * under) : 1;
        }
    }
    um_field_blur(&g->field, att, w, h, 1.5f * g->s, .5f);
    for (size_t i = 0; i < (size_t)w * (size_t)h; i++)
        g->amp[i] *= att[i];
    for (int y = y0; y < y1; y++) {
        float *restrict row = g->amp + (size_t)y * (size_t)w;
        uint8_t *restrict m = mask + (size_t)y * (size_t)w;
        for (int x = 0; x < w; x++) {
            float d = ((float)y - ridge[x]) / wide[x];
            row[x] += bright[x] * natural_exp(-d * d);
            m[x] = wide[x] >= 0 && fabsf(d) < RIDGE_DIST;
        }
    }
    truth->has_bone = um_phantom_box(mask, w, h, truth->box);
}

/* g->column[x]: what poor contact leaves of the amplitude. */
static void lose_contact(struct um_phantom *g, struct rng *r)
{
    int lost = uniform(r, 0, 1) < .35f, left = uniform(r, 0, 1) < .5f;
    float edge = uniform(r, .05, .35) * (float)g->w;
    for (int x = 0; x < g->w; x++) {
        float inside = left ? (float)x - edge : (float)g->w - edge - (float)x;
        g->column[x] = lost ? .05f + .95f / (1 + natural_exp(-inside / (4 * g->s))) : 1;
    }
}

static void draw_speckle(struct um_phantom *g, struct rng *r, struct rng *field)
{
    int w = g->w, h = g->h;
    size_t n = (size_t)w * (size_t)h;
    float depth = uniform(r, 0, 3), sx = uniform(r, .8, 2.2) * g->s,
          sy = uniform(r, .5, 1.1) * g->s;
    float half_power = uniform(r, .35, 1) / 2;
    um_field_noise(field, g->re, n);
    um_field_noise(field, g->im, n);
    um_field_blur(&g->field, g->re, w, h, sx, sy);
    float variance = um_field_blur(&g->field, g->im, w, h, sx, sy);
    /* The magnitude of a complex Gaussian has the mean sqrt(pi/2) sigma; here it becomes 1. */
    float unit = 1 / (1.57079633f * variance);
    for (int y = 0; y < h; y++) {
        float *restrict amp = g->amp + (size_t)y * (size_t)w;
        const float *restrict re = g->re + (size_t)y * (size_t)w, *restrict im =
                                                                      g->im + (size_t)y * (size_t)w;
        const float *restrict column = g->column;
        float row = natural_exp(-(float)y / (float)h * depth);
        for (int x = 0; x < w; x++)
            amp[x] *= row * column[x] *
                      power2(half_power * log_2((re[x] * re[x] + im[x] * im[x]) * unit + 1e-20f));
    }
    um_field_blur(&g->field, g->amp, w, h, .6f * g->s, .4f * g->s);
}

static void compress(struct um_phantom *g, struct rng *r, struct rng *field, uint8_t *pixels)
{
    size_t n = (size_t)g->w * (size_t)g->h;
    float range = uniform(r, 35, 65), full = uniform(r, .8, 3), gamma = uniform(r, .9, 1.8),
          gain = uniform(r, .85, 1.2);
    float scale = 6.0205999f / range,
          offset = 1 - scale * log_2(full); /* 20 log10(2) dB per octave */
    const float *restrict env = g->amp;
    float *restrict grain = g->re;
    um_field_noise(field, grain, n);
    for (size_t i = 0; i < n; i++) {
        float v = scale * log_2(env[i] + 1e-5f) + offset;
        v = v < 1e-9f ? 1e-9f : v;
        v = v > 1 ? 1 : v;
        v = gain * power2(gamma * log_2(v)) + .01f * grain[i];
        v = v < 0 ? 0 : v;
        v = v > 1 ? 1 : v;
        pixels[i] = (uint8_t)(int32_t)(v * 255);
    }
}

void um_phantom_set_surface(um_phantom *g, um_surface surface)
{
    g->hard.surface = surface;
}

/* Ridge columns inside the image and in contact, of all columns the ridge has. */
static float visibility(const struct um_phantom *g, float left, float right)
{
    int seen = 0, all = (int)(ceil((double)right) - floor((double)left)) - 1;
    for (int x = 0; x < g->w; x++)
        seen += g->wide[x] >= 0 && g->ridge[x] >= 0 && g->column[x] >= .5f;
    return all < seen || all < 1 ? 1 : (float)seen / (float)all;
}

um_status um_phantom_open(um_phantom **out, int width, int height, double empty, um_look look)
{
    *out = NULL;
    um_frame *probe = NULL; /* the limits of a frame are written in one place */
    um_status st = um_frame_create(&probe, width, height, 1);
    um_frame_unref(&probe);
    if (st != UM_OK)
        return st;
    if (width < UM_PHANTOM_MIN_SIDE || height < UM_PHANTOM_MIN_SIDE)
        return um_fail(UM_EINVAL, "phantom of %dx%d pixels: sides must be at least %d", width,
                       height, (int)UM_PHANTOM_MIN_SIDE);
    if (!(empty >= 0 && empty <= 1))
        return um_fail(UM_EINVAL, "phantom: empty=%g must be 0 to 1", empty);
    um_phantom *g = um_zalloc(sizeof *g);
    if (!g)
        return um_fail(UM_ENOMEM, "phantom");
    g->w = width;
    g->h = height;
    g->s = (float)height / 320;
    g->empty = empty;
    g->look = look;
    if (look == UM_LOOK_HARD) {
        if ((st = um_hard_open(&g->hard, width, height, empty)) != UM_OK)
            um_phantom_close(&g);
        *out = g;
        return st;
    }
    float **fields[] = {&g->amp, &g->re, &g->im};
    float **rows[] = {&g->curve, &g->ridge, &g->slope, &g->wide, &g->bright, &g->column};
    int ok = 1;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        ok &= (*fields[i] = um_array((size_t)width * (size_t)height, sizeof(float))) != NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ok &= (*rows[i] = um_array((size_t)width, sizeof(float))) != NULL;
    ok &= um_field_open(&g->field, width, height) == UM_OK;
    if (!ok) {
        um_phantom_close(&g);
        return um_fail(UM_ENOMEM, "phantom of %dx%d pixels", width, height);
    }
    *out = g;
    return UM_OK;
}

void um_phantom_close(um_phantom **phantom)
{
    if (!phantom || !*phantom)
        return;
    um_phantom *g = *phantom;
    *phantom = NULL;
    float *all[] = {g->amp,   g->re,   g->im,     g->curve, g->ridge,
                    g->slope, g->wide, g->bright, g->column};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        um_free(all[i]);
    um_field_close(&g->field);
    um_hard_close(&g->hard);
    um_free(g);
}

void um_phantom_draw(um_phantom *phantom, uint64_t seed, uint64_t index, uint8_t *pixels,
                     uint8_t *mask, um_truth *truth)
{
    um_phantom *g = phantom;
    struct rng r = {mix(mix(seed + 0x9e3779b97f4a7c15u) + index * 0xd1342543de82ef95u)};
    struct rng field = {
        mix(r.state ^
            0xa0761d6478bd642fu)}; /* the pixels' noise: how much is drawn changes no parameter */
    float left = 0, right = 0;
    *truth = (um_truth){.struct_size = sizeof *truth};
    if (g->look == UM_LOOK_HARD) {
        um_hard_draw(&g->hard, r, pixels, mask, truth);
        return;
    }
    memset(mask, 0, (size_t)g->w * (size_t)g->h);
    draw_layers(g, &r);
    draw_texture(g, &r, &field);
    draw_vessels(g, &r);
    draw_distractors(g, &r);
    int bone = (double)uniform(&r, 0, 1) >= g->empty && shape_bone(g, &r, &left, &right);
    if (bone)
        draw_bone(g, &r, mask, truth);
    lose_contact(g, &r);
    draw_speckle(g, &r, &field);
    compress(g, &r, &field, pixels);
    if (truth->has_bone) {
        truth->mask = mask;
        truth->visibility = visibility(g, left, right);
    }
}
