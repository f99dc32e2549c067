/* SPDX-License-Identifier: Apache-2.0 */
/* Images as strange scanners make them. In the probe's own grid (beams along x, depth along y):
 *
 *   amp    scatterers: skin, fat, muscle with fibres, vessels, cysts, nerves, tendons
 *   spec   what mirrors: skin lines, fascia, septa, bone, a needle, and their echoes of echoes
 *   att    what is left of the beam: attenuation, shadows, what lies behind fluid, poor contact
 *
 *   env = |(amp * speckle + spec) * att * depth gain + floor * depth gain|
 *
 * where speckle is complex noise through a point-spread function that widens away from the focus.
 * Then log compression with a random range, gain and gamma, the probe's shape (a fan for curved
 * ones), black margins, rulers and text.
 *
 * A bone is a surface of any depth and shape, as bright as its angle to the beam lets it be, often
 * weaker than the fascia above it; its mask is where the surface's profile exceeds 0.21 of its
 * peak, as in the other look, where the surface can be seen at all.
 *
 * Random numbers are drawn before they are handed over: C does not say in which order a call looks
 * at its arguments. */
#include "io/phantom_hard.h"

#include "base/mem.h"

static const float EDGE = 1.25f; /* exp(-EDGE^2) = 0.21 */
enum { ENDS = 8 };               /* least width of a bone, in units of length */

static float log_uniform(struct rng *r, float lo, float hi)
{
    return lo * power2(uniform(r, 0, 1) * log_2(hi / lo));
}

static int chance(struct rng *r, double p)
{
    return uniform(r, 0, 1) < (float)p;
}

static size_t at(const struct um_hard *g, int x, int y)
{
    return (size_t)y * (size_t)g->w + (size_t)x;
}

/* 0: no more room. */
static int add_structure(struct um_hard *g, um_structure_kind kind)
{
    if (g->structures == UM_HARD_STRUCTURES)
        return 0;
    g->kind[g->structures++] = kind;
    return g->structures;
}

/* ---- tissue ---- */

/* A stroke of a line that bends: its middle, half length, slope, bend and half thickness. Adds to
 * `field`; marks it in the map where it is well seen. */
static void draw_stroke(struct um_hard *g, float *field, float cx, float cy, float half,
                        float angle, float bend, float thick, float bright, int id)
{
    float sn = sine(angle), cs = sqrtf(1 - sn * sn), sag = fabsf(bend) * half * half;
    float rx = half * cs + sag + 4 * thick, ry = half * fabsf(sn) + sag + 4 * thick;
    int x0 = clamp(cx - rx, g->w), x1 = clamp(cx + rx + 1, g->w);
    int y0 = clamp(cy - ry, g->h), y1 = clamp(cy + ry + 1, g->h);
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) {
            float dx = (float)x - cx, dy = (float)y - cy, u = dx * cs + dy * sn;
            float v = (dy * cs - dx * sn - bend * u * u) / thick, e = u / half;
            if (e < -1 || e > 1 || v < -3.5f || v > 3.5f)
                continue;
            field[at(g, x, y)] += bright * (1 - e * e) * natural_exp(-v * v);
            if (id && fabsf(v) < EDGE)
                g->scan[at(g, x, y)] = (uint8_t)id;
        }
}

/* A line across the image at g->curve, between two columns, soft at its ends. */
static void draw_sheet(struct um_hard *g, struct rng *r, float *field, int from, int to,
                       float thick, float bright, float rough, int id)
{
    float *along = g->bright;
    um_field_curve(&g->field, r, rough, log_uniform(r, 3, 50) * g->s, along);
    float soft = 12 * g->s;
    for (int x = from; x < to; x++) {
        int a = x > 0 ? x - 1 : 0, b = x < g->w - 1 ? x + 1 : x;
        float slope = (g->curve[b] - g->curve[a]) / (float)(b - a);
        float end = (float)(x - from < to - x ? x - from : to - x) / soft;
        if (from == 0 && x - from < to - x)
            end = 1;
        if (to == g->w && to - x <= x - from)
            end = 1;
        float level =
            bright * natural_exp(along[x]) * power(1 + slope * slope, -1.5f) * (end < 1 ? end : 1);
        float c = g->curve[x], t = thick * sqrtf(1 + slope * slope);
        int y0 = clamp(c - 3.5f * t, g->h), y1 = clamp(c + 3.5f * t + 1, g->h);
        for (int y = y0; y < y1; y++) {
            float d = ((float)y - c) / t;
            field[at(g, x, y)] += level * natural_exp(-d * d);
            if (id && fabsf(d) < EDGE && level > .4f * bright)
                g->scan[at(g, x, y)] = (uint8_t)id;
        }
    }
}

static void line_curve(struct um_hard *g, struct rng *r, float y, float bend, float tilt)
{
    um_field_curve(&g->field, r, bend * g->s, uniform(r, 40, 150) * g->s, g->curve);
    float arch = uniform(r, -1, 1) * tilt * .5f * g->s;
    for (int x = 0; x < g->w; x++) {
        float t = 2 * (float)x / (float)(g->w - 1) - 1;
        g->curve[x] += y + tilt * g->s * t + arch * t * t;
    }
}

static void draw_layers(struct um_hard *g, struct rng *r, float *muscle_top)
{
    int h = g->h, w = g->w;
    float s = g->s, gel = chance(r, .3) ? uniform(r, 0, .06) * (float)h : 0;
    float skin = gel + uniform(r, 3, 14) * s, fat = skin + uniform(r, 0, 60) * s;
    float dim = log_uniform(r, .02f, .3f), fat_level = dim * uniform(r, .4, 2),
          skin_level = dim * uniform(r, .8, 4);
    for (size_t i = 0; i < (size_t)w * (size_t)h; i++) {
        g->amp[i] = dim;
        g->spec[i] = 0;
        g->att[i] = 1;
        g->scan[i] = 0;
    }
    float slant = uniform(r, -14, 14), wave = uniform(r, 1, 8);
    line_curve(g, r, fat, wave, slant);
    for (int x = 0; x < w; x++)
        for (int y = 0; y < h && (float)y < g->curve[x]; y++)
            g->amp[at(g, x, y)] = (float)y < gel ? .002f : (float)y < skin ? skin_level : fat_level;
    *muscle_top = fat;
    for (int n = below(r, 1, 4); n > 0; n--) { /* skin lines */
        float tilt = uniform(r, -3, 3), bend = uniform(r, .2, 2), y = gel + uniform(r, 0, 12) * s;
        line_curve(g, r, y, bend, tilt);
        float bright = log_uniform(r, .2f, 3), thick = uniform(r, .6, 1.8) * s;
        draw_sheet(g, r, g->spec, 0, w, thick, bright, .3f, 0);
    }
    for (int n = below(r, 0, 30); n > 0; n--) { /* septa of fat */
        float bright = log_uniform(r, .1f, 1), thick = uniform(r, .5, 1.2) * s,
              bend = uniform(r, -.002, .002) / s, angle = uniform(r, -.2, .2),
              half = log_uniform(r, 6, 120) * s, y = uniform(r, skin, fat + .1),
              x = uniform(r, 0, 1) * (float)w;
        draw_stroke(g, g->spec, x, y, half, angle, bend, thick, bright, 0);
    }
}

/* Anisotropic structure of muscle: smooth noise, long along the fibres. */
static void draw_texture(struct um_hard *g, struct rng *r, struct rng *noise)
{
    int w = g->w, h = g->h;
    size_t n = (size_t)w * (size_t)h;
    float sx = log_uniform(r, 2, 14) * g->s, sy = log_uniform(r, .8f, 5) * g->s,
          depth = uniform(r, .1, .55);
    um_field_noise(noise, g->re, n);
    float left = um_field_blur(&g->field, g->re, w, h, sx, sy);
    float scale = depth / sqrtf(left + 1e-12f), shear = uniform(r, -.22, .22);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) { /* pennate: fibres at an angle */
            int from = y + (int)(shear * (float)x);
            from = from % h < 0 ? from % h + h : from % h;
            g->amp[at(g, x, y)] *= natural_exp(scale * g->re[at(g, x, from)]);
        }
}

static void draw_fibres(struct um_hard *g, struct rng *r, float top)
{
    float s = g->s, angle = uniform(r, -.45, .45), turn = uniform(r, -.5, .5);
    float bright = log_uniform(r, .05f, 1), length = log_uniform(r, 4, 30) * s;
    float cx = uniform(r, 0, 1) * (float)g->w, cy = uniform(r, .2, .9) * (float)g->h,
          reach = uniform(r, .3, 1.5) * (float)g->h;
    for (int n = below(r, 0, 2) ? below(r, 60, 320) : below(r, 0, 60); n > 0; n--) {
        float x = uniform(r, 0, 1) * (float)g->w, y = uniform(r, top, g->h);
        float d = ((x - cx) * (x - cx) + (y - cy) * (y - cy)) / (reach * reach);
        float a = angle + turn * (x / (float)g->w - .5f) + uniform(r, -.12, .12);
        a = a > .6f ? .6f : a < -.6f ? -.6f : a;
        float level = bright * log_uniform(r, .1f, 2) * natural_exp(-d),
              thick = uniform(r, .5, 1.3) * s, bend = uniform(r, -.02, .02) / s,
              half = length * uniform(r, .4, 1.6);
        draw_stroke(g, g->spec, x, y, half, a, bend, thick, level, 0);
    }
}

static void draw_fascia(struct um_hard *g, struct rng *r, float top)
{
    for (int n = below(r, 0, 9); n > 0; n--) {
        int whole = chance(r, .4);
        int from = whole ? 0 : below(r, 0, g->w * 3 / 4), to = g->w;
        if (!whole && chance(r, .6))
            to = from + (int)(uniform(r, .15, .6) * (float)g->w);
        to = to > g->w ? g->w : to;
        float tilt = uniform(r, -45, 45), bend = uniform(r, 1, 14),
              y = uniform(r, .6 * top, .75 * g->h);
        line_curve(g, r, y, bend, tilt);
        float thick = uniform(r, .6, 2.2) * g->s, bright = log_uniform(r, .06f, 3);
        draw_sheet(g, r, g->spec, from, to, thick, bright, uniform(r, .2, 1.1),
                   bright > .5f ? add_structure(g, UM_STRUCTURE_FASCIA) : 0);
        for (int strands = below(r, 0, 5); strands > 0; strands--) { /* close by, and broken */
            int a = from + (int)(uniform(r, 0, .6) * (float)(to - from)),
                b = a + (int)(uniform(r, .2, .9) * (float)(to - a));
            float gap = uniform(r, -5, 7) * g->s, drift = uniform(r, -.03, .03);
            for (int x = 0; x < g->w; x++)
                g->curve[x] += gap + drift * (float)(x - a);
            float level = bright * uniform(r, .1, 1), thin = thick * uniform(r, .5, 1);
            draw_sheet(g, r, g->spec, a, b, thin, level, 1, 0);
        }
    }
}

/* An ellipse: what it does to the scatterers, to the beam below it, and its wall. */
static void draw_ellipse(struct um_hard *g, float cx, float cy, float a, float b, float level,
                         float wall, float wall_thick, float behind, int id)
{
    int x0 = clamp(cx - 1.5f * a, g->w), x1 = clamp(cx + 1.5f * a + 1, g->w);
    int y0 = clamp(cy - 1.5f * b, g->h), y1 = clamp(cy + 1.5f * b + 1, g->h);
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) {
            float u = ((float)x - cx) / a, v = ((float)y - cy) / b, e = sqrtf(u * u + v * v);
            size_t i = at(g, x, y);
            if (e < 1) {
                g->amp[i] *= level;
                g->spec[i] *= level < 1 ? level : 1;
                if (id)
                    g->scan[i] = (uint8_t)id;
            }
            float d = (e - 1) / wall_thick;
            if (wall > 0 && d * d < 9) /* walls across the beam are seen, those along it are not */
                g->spec[i] += wall * natural_exp(-d * d) * v * v / (e * e + 1e-6f);
        }
    for (int x = x0; x < x1; x++) {
        float u = ((float)x - cx) / a, chord = 1 - u * u;
        if (chord <= 0)
            continue;
        float low = cy + b * sqrtf(chord), gain = 1 + (behind - 1) * sqrtf(chord);
        for (int y = clamp(low + 1, g->h); y < g->h; y++)
            g->att[at(g, x, y)] *= gain;
    }
}

static void draw_inclusions(struct um_hard *g, struct rng *r, float top)
{
    float s = g->s;
    for (int n = chance(r, .5) ? below(r, 0, 4) : 0; n > 0; n--) { /* vessels: wall, fluid */
        int id = add_structure(g, UM_STRUCTURE_VESSEL);
        float behind = uniform(r, 1, 2), wall = log_uniform(r, .1f, 1.2f),
              dark = uniform(r, .01, .2), b = uniform(r, 4, 20) * s, a = uniform(r, 4, 26) * s,
              cy = uniform(r, top, .85 * g->h), cx = uniform(r, 0, 1) * (float)g->w;
        draw_ellipse(g, cx, cy, a, b, dark, wall, .15f, behind, id);
    }
    if (chance(r, .12)) {
        int id = add_structure(g, UM_STRUCTURE_CYST);
        float behind = uniform(r, 1.5, 3), wall = uniform(r, 0, .5), b = uniform(r, 8, 36) * s,
              a = uniform(r, 10, 50) * s, cy = uniform(r, top, .7 * g->h),
              cx = uniform(r, 0, 1) * (float)g->w;
        draw_ellipse(g, cx, cy, a, b, .01f, wall, .08f, behind, id);
    }
    if (chance(r, .12)) { /* a nerve: bright, with dark fascicles */
        float cx = uniform(r, 0, 1) * (float)g->w, cy = uniform(r, top, .7 * g->h),
              a = uniform(r, 10, 30) * s, b = uniform(r, 7, 18) * s;
        draw_ellipse(g, cx, cy, a, b, uniform(r, 1.5, 4), .4f, .15f, 1,
                     add_structure(g, UM_STRUCTURE_NERVE));
        for (int n = below(r, 4, 14); n > 0; n--) {
            float high = uniform(r, 1.2, 2.5) * s, wide = uniform(r, 1.2, 3) * s,
                  y = cy + uniform(r, -.7, .7) * b, x = cx + uniform(r, -.7, .7) * a;
            draw_ellipse(g, x, y, wide, high, .15f, 0, .2f, 1, 0);
        }
    }
    if (chance(r, .15)) { /* a tendon: bright fibres side by side */
        float cx = uniform(r, 0, 1) * (float)g->w, cy = uniform(r, top, .7 * g->h),
              a = uniform(r, 20, 110) * s, b = uniform(r, 5, 16) * s;
        float behind = uniform(r, .5, 1), level = uniform(r, 1, 3);
        draw_ellipse(g, cx, cy, a, b, level, .5f, .1f, behind,
                     add_structure(g, UM_STRUCTURE_TENDON));
        for (int n = below(r, 8, 30); n > 0; n--) {
            float bright = log_uniform(r, .2f, 1.5f), thick = uniform(r, .4, .9) * s,
                  angle = uniform(r, -.06, .06), half = uniform(r, 8, 40) * s,
                  y = cy + uniform(r, -.8, .8) * b, x = cx + uniform(r, -.6, .6) * a;
            draw_stroke(g, g->spec, x, y, half, angle, 0, thick, bright, 0);
        }
    }
    for (int n = chance(r, .5) ? below(r, 0, 9) : 0; n > 0; n--) { /* short bright lines */
        float bright = log_uniform(r, .1f, 2), thick = uniform(r, .8, 2.5) * s,
              bend = uniform(r, -.01, .01) / s, angle = uniform(r, -.6, .6),
              half = uniform(r, 4, 40) * s, y = uniform(r, 0, .95) * (float)g->h,
              x = uniform(r, 0, 1) * (float)g->w;
        draw_stroke(g, g->spec, x, y, half, angle, bend, thick, bright, 0);
    }
    if (chance(r, .06)) { /* a needle, and what rings behind it */
        float cx = uniform(r, .2, .8) * (float)g->w, cy = uniform(r, .1, .5) * (float)g->h,
              angle = uniform(r, -.6, .6), half = uniform(r, 30, 110) * s,
              bright = uniform(r, 1.5, 5), gap = uniform(r, 5, 12) * s;
        int id = add_structure(g, UM_STRUCTURE_NEEDLE);
        for (int k = 0; k < 5; k++, bright *= uniform(r, .2, .5))
            draw_stroke(g, g->spec, cx, cy + gap * (float)k, half, angle, 0,
                        uniform(r, .8, 1.6) * s, bright, k ? 0 : id);
    }
}

/* ---- bone ---- */

static um_surface draw_surface(const struct um_hard *g, struct rng *r)
{
    static const um_surface often[10] = {
        UM_SURFACE_ARC,   UM_SURFACE_ARC,   UM_SURFACE_ARC, UM_SURFACE_ARC,   UM_SURFACE_ARC,
        UM_SURFACE_PLATE, UM_SURFACE_PLATE, UM_SURFACE_RIB, UM_SURFACE_FLANK, UM_SURFACE_HUMPS};
    um_surface drawn = often[below(r, 0, 10)];
    return g->surface == UM_SURFACE_ANY ? drawn : g->surface;
}

/* g->ridge: y of the surface at every column from *first to *last, the seen part of a shape that
 * starts and ends at random. */
static void shape_bone(struct um_hard *g, struct rng *r, int left, int right, int *first, int *last)
{
    float s = g->s, w = (float)(right - left), *y = g->ridge;
    um_surface kind = draw_surface(g, r);
    float x0 = (float)left + uniform(r, .15, .85) * w, y0 = uniform(r, .06, .8) * (float)g->h;
    float wide_l, wide_r;
    float spacing = uniform(r, 12, 40) * s, rough = uniform(r, .2, 1.6) * s;
    um_field_curve(&g->field, r, rough, spacing, y);
    if (kind == UM_SURFACE_ARC) {
        float half = log_uniform(r, 30, 130) * s, rise = uniform(r, .4, 1.4) * half,
              p = uniform(r, 1.4, 3.2), lean = uniform(r, .6, 1.6), tilt = uniform(r, -.35, .35);
        wide_l = half * uniform(r, .8, 1.8);
        wide_r = half * uniform(r, .8, 1.8) * lean;
        for (int x = 0; x < g->w; x++) {
            float d = (float)x - x0, u = fabsf(d) / (d < 0 ? half : half * lean);
            float top = sqrtf(u * u + .01f) - .1f;
            y[x] += y0 + rise * power(top + 1e-6f, p) + tilt * d;
        }
    } else if (kind == UM_SURFACE_PLATE) {
        float tilt = uniform(r, -.45, .45), bow = uniform(r, -.25, .6) / (float)g->w;
        wide_l = chance(r, .5) ? w : uniform(r, .1, .9) * w;
        wide_r = chance(r, .5) ? w : uniform(r, .1, .9) * w;
        for (int x = 0; x < g->w; x++) {
            float d = (float)x - x0;
            y[x] += y0 + tilt * d + bow * d * d;
        }
    } else if (kind == UM_SURFACE_RIB) {
        float radius = uniform(r, 14, 45) * s;
        y0 = uniform(r, .08, .5) * (float)g->h;
        wide_l = radius * uniform(r, .6, .95);
        wide_r = radius * uniform(r, .6, .95);
        for (int x = 0; x < g->w; x++) {
            float u = ((float)x - x0) / radius;
            u = u > .97f ? .97f : u < -.97f ? -.97f : u;
            y[x] += y0 + radius * (1 - sqrtf(1 - u * u));
        }
    } else {
        int humps = kind == UM_SURFACE_HUMPS;
        float span = uniform(r, 50, 130) * s, rise = uniform(r, 20, 90) * s,
              other = uniform(r, .3, 1.1), gap = uniform(r, .7, 1.5), steep = uniform(r, .25, 1.6);
        steep = chance(r, .5) ? steep : -steep;
        wide_l = span * uniform(r, .6, 1.1);
        wide_r = span * uniform(r, .6, 1.1);
        for (int x = 0; x < g->w; x++) {
            float d = (float)x - x0, u = d / (.4f * span);
            float a = (u + gap) / .8f, b = (u - gap) / .8f;
            y[x] += humps ? y0 + rise - rise * (natural_exp(-a * a) + other * natural_exp(-b * b)) +
                                .1f * fabsf(d)
                          : y0 + steep * d + .3f * span * u * u * .1f;
        }
    }
    int a = (int)(x0 - wide_l), b = (int)(x0 + wide_r);
    *first = a > left ? a : left;
    *last = b < right ? b : right;
}

/* Brightness by angle, profile, shadow, and echoes of the surface. 0: nothing that anyone could
 * see. */
static int draw_bone(struct um_hard *g, struct rng *r, int left, int right)
{
    float s = g->s;
    int first, last;
    shape_bone(g, r, left, right, &first, &last);
    float peak = log_uniform(r, .35f, 5), steepness = uniform(r, .5, 5), rough = uniform(r, .1, .5);
    float onset = uniform(r, 1.1, 3) * s, decay = onset * uniform(r, 1, 3.2);
    float wall = uniform(r, .25, 1); /* scatterers' share in the surface */
    float glow = chance(r, .7) ? uniform(r, 0, .35) : 0,
          deep = 1.44269504f / (log_uniform(r, 6, 50) * s);
    um_field_curve(&g->field, r, rough, uniform(r, 8, 40) * s, g->curve);
    float most = 0;
    for (int x = 0; x < g->w; x++) {
        int a = x > 0 ? x - 1 : 0, b = x < g->w - 1 ? x + 1 : x;
        g->slope[x] = (g->ridge[b] - g->ridge[a]) / (float)(b - a);
        float steep = 1 + g->slope[x] * g->slope[x];
        g->bright[x] = peak * power(steep, -.5f * steepness) * natural_exp(g->curve[x]);
        if (x >= first && x < last && g->ridge[x] > 0 && g->ridge[x] < (float)g->h)
            most = g->bright[x] > most ? g->bright[x] : most;
    }
    int begin = first, end_at = last; /* what is too steep to be seen casts a shadow all the same */
    while (first < last && (g->bright[first] < .2f * most || g->ridge[first] < 2 * s ||
                            g->ridge[first] > (float)g->h - 3))
        first++;
    while (first < last && (g->bright[last - 1] < .2f * most || g->ridge[last - 1] < 2 * s ||
                            g->ridge[last - 1] > (float)g->h - 3))
        last--;
    if ((float)(last - first) < (float)ENDS * s)
        return 0;
    float floor = chance(r, .5) ? uniform(r, 0, .05) : uniform(r, .02, .3),
          soft = log_uniform(r, .8f, 14) * s;
    float fall = -1.44269504f / (log_uniform(r, 2, 60) * s), rest = uniform(r, .1, .8);
    float fade = uniform(r, 2, 14) * s, haze = g->amp[at(g, 0, g->h - 1)] * uniform(r, .3, 1);
    for (int y = 0; y < g->h; y++) /* the shadow, in g->re */
        for (int x = 0; x < g->w; x++) {
            float under = (float)y - g->ridge[x], t = 1;
            if (x >= begin && x < end_at && under > .5f * decay)
                t = floor + (1 - floor) * rest * power2(fall * under);
            g->re[at(g, x, y)] = t;
        }
    um_field_blur(&g->field, g->re, g->w, g->h, soft, 1);
    int id = add_structure(g, UM_STRUCTURE_BONE);
    if (!id)
        return 0;
    for (size_t i = 0; i < (size_t)g->w * (size_t)g->h; i++) {
        float t = g->re[i] < 1 ? g->re[i] : 1;
        g->att[i] *= t;
        g->spec[i] *= t * t; /* nothing mirrors down there, what is left is a haze */
        g->amp[i] += (haze - g->amp[i]) * (1 - t);
        if (t < .6f)
            g->scan[i] = 0; /* what lies in the shadow is not seen */
    }
    float echo = chance(r, .3) ? uniform(r, .03, .25) : 0;
    for (int x = first; x < last; x++) {
        float steep = sqrtf(1 + g->slope[x] * g->slope[x]), up = onset * steep,
              down = decay * steep;
        float end = (float)(x - first < last - 1 - x ? x - first : last - 1 - x) / fade;
        float level = g->bright[x] * (.35f + .65f * (end < 1 ? end : 1)), ridge = g->ridge[x];
        int y0 = clamp(ridge - 3 * up, g->h), y1 = clamp(ridge + 3 * down + 1, g->h);
        for (int y = y0; y < y1; y++) {
            float d = (float)y - ridge, e = d < 0 ? d / up : d / down;
            float p = level * natural_exp(-e * e) / (g->att[at(g, x, y)] + .02f);
            /* of the beam as it was before the shadow */
            float beam = d > 0 ? 1 : g->att[at(g, x, y)];
            p *= beam < 1 ? beam : 1;
            g->spec[at(g, x, y)] += p * (1 - .5f * wall);
            g->amp[at(g, x, y)] += p * .6f * wall;
            if (fabsf(e) < EDGE)
                g->scan[at(g, x, y)] = (uint8_t)id;
        }
        for (int y = clamp(ridge, g->h); y < g->h && glow > 0; y++)
            g->amp[at(g, x, y)] +=
                level * glow * power2(-deep * ((float)y - ridge)) / (g->att[at(g, x, y)] + .02f);
        for (int k = 2; k < 4 && echo > 0; k++) { /* between probe and bone, twice and thrice */
            int y = (int)(ridge * (float)k);
            for (int v = y - 3 * (int)decay; v <= y + 3 * (int)decay; v++)
                if (v >= 0 && v < g->h) {
                    float e = ((float)v - ridge * (float)k) / (decay * (float)k);
                    g->spec[at(g, x, v)] +=
                        level * power(echo, (float)(k - 1)) * natural_exp(-e * e);
                }
        }
    }
    if (chance(r, .45)) /* sheets of tissue that start at its foot */
        for (int side = 0; side < 2; side++) {
            int foot = side ? last - 1 : first;
            float len = log_uniform(r, 10, 160) * s, angle = uniform(r, -.3, .3);
            float level = g->bright[foot] * uniform(r, .3, 1.5), thick = uniform(r, .8, 2.2) * s,
                  bend = uniform(r, -.003, .003) / s, out = side ? len : -len;
            draw_stroke(g, g->spec, (float)foot + out, g->ridge[foot] + angle * out, len, angle,
                        bend, thick, level, 0);
        }
    return 1;
}

/* What looks like one and is none: a sheet with a dim, ragged shadow. */
static void draw_decoy(struct um_hard *g, struct rng *r)
{
    int from = below(r, 0, g->w / 2), to = from + (int)(uniform(r, .2, .6) * (float)g->w);
    to = to < g->w ? to : g->w;
    float tilt = uniform(r, -30, 30), bend = uniform(r, 1, 5),
          level = uniform(r, .1, .7) * (float)g->h;
    line_curve(g, r, level, bend, tilt);
    float dark = uniform(r, .4, .9);
    for (int x = from; x < to; x++)
        for (int y = clamp(g->curve[x] + 2, g->h); y < g->h; y++)
            g->att[at(g, x, y)] *= dark;
    float rough = uniform(r, .1, .6), bright = log_uniform(r, .3f, 3),
          thick = uniform(r, .8, 2.6) * g->s;
    draw_sheet(g, r, g->spec, from, to, thick, bright, rough,
               add_structure(g, UM_STRUCTURE_FASCIA));
}

/* ---- the beam ---- */

/* g->column[x]: what contact leaves. */
static void lose_contact(struct um_hard *g, struct rng *r)
{
    float s = g->s;
    for (int x = 0; x < g->w; x++)
        g->column[x] = 1;
    for (int side = 0; side < 2; side++) {
        if (!chance(r, .22))
            continue;
        float edge = uniform(r, .03, .38) * (float)g->w, soft = uniform(r, 1, 10) * s,
              rest = chance(r, .7) ? uniform(r, 0, .05) : uniform(r, .05, .3);
        for (int x = 0; x < g->w; x++) {
            float inside = side ? (float)(g->w - 1 - x) - edge : (float)x - edge;
            g->column[x] *= rest + (1 - rest) / (1 + natural_exp(-inside / soft));
        }
    }
    for (int n = chance(r, .25) ? below(r, 1, 4) : 0; n > 0; n--) { /* hair, air */
        float cx = uniform(r, 0, 1) * (float)g->w, half = uniform(r, 2, 30) * s,
              dark = uniform(r, .1, .8);
        for (int x = 0; x < g->w; x++) {
            float d = ((float)x - cx) / half;
            g->column[x] *= 1 - dark * natural_exp(-d * d);
        }
    }
    if (chance(r, .3)) /* beams that differ */
        for (int x = 0; x < g->w; x++)
            g->column[x] *= uniform(r, .88, 1.12);
    for (int x = 0; x < g->w; x++) /* air rings: bright lines at the top of what is lost */
        if (g->column[x] < .3f)
            for (int y = 0; y < clamp(24 * s, g->h); y++) {
                float v = (float)y / (3 * s);
                v = v - (float)(int)v - .5f;
                g->spec[at(g, x, y)] += (.3f - g->column[x]) * 6 * natural_exp(-v * v * 12) *
                                        natural_exp(-(float)y / (8 * s));
            }
}

static void make_echo(struct um_hard *g, struct rng *r, struct rng *noise)
{
    int w = g->w, h = g->h;
    size_t n = (size_t)w * (size_t)h;
    float s = g->s, focus = uniform(r, .7, 1.8) * s, near = focus * uniform(r, 1, 2.2),
          far = focus * uniform(r, 1, 2.6), depth = uniform(r, .2, .7) * (float)h,
          axial = uniform(r, .4, .9) * s;
    um_field_noise(noise, g->re, n);
    um_field_noise(noise, g->im, n);
    um_field_widen(&g->field, g->re, w, h, near, focus, far, depth, axial);
    um_field_widen(&g->field, g->im, w, h, near, focus, far, depth, axial);
    float loss = uniform(r, .2, 5.5), knee = uniform(r, .3, .9), slide[9];
    float speckle = uniform(r, .25, .9); /* less than one: the scanner smooths */
    float ground = log_uniform(r, .0008f, .04f), rise = uniform(r, 0, 3);
    for (int i = 0; i < 9; i++)
        slide[i] = uniform(r, -.45, .45);
    um_field_noise(noise, g->field.tmp, n);
    for (int y = 0; y < h; y++) {
        float t = (float)y / (float)h, k = t * 8;
        int i = (int)k < 7 ? (int)k : 7;
        float tgc = natural_exp(slide[i] + (k - (float)i) * (slide[i + 1] - slide[i]));
        float beam = natural_exp(-loss * (t < knee ? t * .5f : knee * .5f + (t - knee)));
        float bare = ground * natural_exp(rise * t) * tgc;
        for (int x = 0; x < w; x++) {
            size_t j = at(g, x, y);
            float gain = tgc * beam * g->column[x] * g->att[j];
            float a = g->amp[j] * gain, m = g->spec[j] * gain, noisy = g->field.tmp[j] * bare;
            float re = a * g->re[j] * .7071f + m + noisy, im = a * g->im[j] * .7071f + noisy * .5f;
            float e2 = re * re + im * im, smooth = a * a + m * m + bare * bare;
            g->amp[j] = power2(
                .5f * (speckle * log_2(e2 + 1e-20f) + (1 - speckle) * log_2(smooth + 1e-20f)));
        }
    }
    float sy = uniform(r, .3, .7) * s, sx = uniform(r, .3, 1) * s;
    um_field_blur(&g->field, g->amp, w, h, sx, sy);
}

static void compress(struct um_hard *g, struct rng *r, struct rng *noise)
{
    size_t n = (size_t)g->w * (size_t)g->h;
    float range = uniform(r, 34, 75), full = log_uniform(r, .8f, 6), gamma = uniform(r, .8, 2.2),
          gain = chance(r, .5) ? uniform(r, .3, .8) : uniform(r, .75, 1.2);
    float scale = 6.0205999f / range, offset = 1 - scale * log_2(full), grain = uniform(r, 0, .015),
          lift = chance(r, .6) ? uniform(r, 0, .05) : 0;
    um_field_noise(noise, g->re, n);
    for (size_t i = 0; i < n; i++) {
        float v = scale * log_2(g->amp[i] + 1e-6f) + offset;
        v = v < 1e-9f ? 1e-9f : v > 1 ? 1 : v;
        v = lift + gain * power2(gamma * log_2(v)) + grain * g->re[i];
        g->amp[i] = v < 0 ? 0 : v > 1 ? 1 : v;
    }
}

/* ---- the screen ---- */

static float arc_tangent(float x) /* |x| <= 1, to 1e-3 */
{
    float q = x * x;
    return x * (.99987f + q * (-.330299f + q * (.180141f + q * (-.085133f + q * .0208351f))));
}

/* The probe's grid as an image: as it is, or a fan. */
static void shape_image(struct um_hard *g, struct rng *r, uint8_t *pixels)
{
    int w = g->w, h = g->h, curved = chance(r, .15);
    float half = uniform(r, .35, .62), radius = uniform(r, .15, .6) * (float)h;
    float span = (float)h / (1 + radius / (float)h * (1 - sqrtf(1 - half * half)) + .02f);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            size_t to = at(g, x, y);
            if (!curved) {
                pixels[to] = (uint8_t)(int)(g->amp[to] * 255);
                g->map[to] = g->scan[to];
                continue;
            }
            float dx = (float)x - .5f * (float)w,
                  dy = (float)y + radius * sqrtf(1 - half * half) + .01f;
            float d = sqrtf(dx * dx + dy * dy),
                  angle = dx < -dy || dx > dy ? 1 : arc_tangent(dx / dy);
            float u = (angle / (2 * half) + .5f) * (float)(w - 1),
                  v = (d - radius) * (float)(h - 1) / span;
            pixels[to] = 0;
            g->map[to] = 0;
            if (!(u >= 0 && u < (float)(w - 1) && v >= 0 && v < (float)(h - 1)))
                continue;
            int i = (int)u, j = (int)v;
            float a = u - (float)i, b = v - (float)j;
            const float *p = g->amp + at(g, i, j);
            pixels[to] = (uint8_t)(int)(255 * ((p[0] + a * (p[1] - p[0])) * (1 - b) +
                                               (p[w] + a * (p[w + 1] - p[w])) * b));
            g->map[to] = g->scan[at(g, (int)(u + .5f), (int)(v + .5f))];
        }
}

static void fill(struct um_hard *g, uint8_t *pixels, int x0, int y0, int x1, int y1, uint8_t value)
{
    for (int y = y0 < 0 ? 0 : y0; y < y1 && y < g->h; y++)
        for (int x = x0 < 0 ? 0 : x0; x < x1 && x < g->w; x++) {
            pixels[at(g, x, y)] = value;
            g->map[at(g, x, y)] = 0;
        }
}

static void draw_screen(struct um_hard *g, struct rng *r, uint8_t *pixels)
{
    int w = g->w, h = g->h, left = 0, right = w;
    if (chance(r, .3)) {
        left = (int)(uniform(r, 0, .16) * (float)w);
        right = w - (int)(uniform(r, 0, .16) * (float)w);
        fill(g, pixels, 0, 0, left, h, 0);
        fill(g, pixels, right, 0, w, h, 0);
    }
    if (chance(r, .12))
        fill(g, pixels, 0, 0, w, (int)(uniform(r, 0, .06) * (float)h), 0);
    if (chance(r, .12))
        fill(g, pixels, 0, h - (int)(uniform(r, 0, .12) * (float)h), w, h, 0);
    int unit = g->s > 1 ? (int)g->s : 1;
    if (chance(r, .15)) { /* a ruler */
        int x = chance(r, .5) ? left + 2 : right - 5 * unit,
            step = (int)(uniform(r, 9, 30) * g->s) + 1;
        uint8_t value = (uint8_t)below(r, 90, 256);
        for (int y = below(r, 0, step), k = 0; y < h; y += step, k++)
            fill(g, pixels, x, y, x + (k % 5 ? 2 : 4) * unit, y + unit, value);
    }
    for (int n = chance(r, .15) ? below(r, 1, 4) : 0; n > 0;
         n--) { /* letters, as far as shape goes */
        int x = below(r, 0, w), y = chance(r, .6) ? below(r, 0, h / 12 + 1) : below(r, 0, h);
        uint8_t value = (uint8_t)below(r, 120, 256);
        for (int k = below(r, 2, 12); k > 0; k--, x += 6 * unit) {
            uint64_t shape = next(r);
            shape &= next(r);
            shape |= next(r) & 0x1f8c6318c63f;
            for (int i = 0; i < 35; i++)
                if (shape >> i & 1)
                    fill(g, pixels, x + i % 5 * unit, y + i / 5 * unit, x + (i % 5 + 1) * unit,
                         y + (i / 5 + 1) * unit, value);
        }
    }
    if (chance(r, .05)) { /* a bar of grays */
        int x = right - 10 * unit, y0 = h / 8, y1 = h / 3;
        for (int y = y0; y < y1; y++)
            fill(g, pixels, x, y, x + 5 * unit, y + 1, (uint8_t)(255 * (y1 - y) / (y1 - y0)));
    }
}

/* ---- truth ---- */

/* Structures by what is left of them in the map, bones first; the map follows. */
static void take_stock(struct um_hard *g, const float *whole, uint8_t *mask, um_truth *truth)
{
    int box[UM_HARD_STRUCTURES][4], name[UM_HARD_STRUCTURES], n = 0;
    float area[UM_HARD_STRUCTURES];
    for (int i = 0; i < g->structures; i++) {
        area[i] = 0;
        name[i] = 0;
        box[i][0] = g->w;
        box[i][1] = g->h;
        box[i][2] = box[i][3] = 0;
    }
    for (int y = 0; y < g->h; y++)
        for (int x = 0; x < g->w; x++) {
            int i = g->map[at(g, x, y)] - 1;
            if (i < 0)
                continue;
            area[i]++;
            box[i][0] = x < box[i][0] ? x : box[i][0];
            box[i][1] = y < box[i][1] ? y : box[i][1];
            box[i][2] = x + 1 > box[i][2] ? x + 1 : box[i][2];
            box[i][3] = y + 1;
        }
    float least = 12 * g->s * g->s;
    for (int pass = 0; pass < 2; pass++)
        for (;;) { /* bones by size, then the others */
            int best = -1;
            for (int i = 0; i < g->structures; i++)
                if (!name[i] && area[i] > least && (g->kind[i] == UM_STRUCTURE_BONE) == !pass &&
                    (pass == 0 || area[i] > .4f * whole[i]) && (best < 0 || area[i] > area[best]))
                    best = i;
            if (best < 0)
                break;
            g->structure[n].kind = g->kind[best];
            for (int k = 0; k < 4; k++)
                g->structure[n].box[k] = (float)box[best][k];
            name[best] = ++n;
        }
    for (size_t i = 0; i < (size_t)g->w * (size_t)g->h; i++) {
        g->map[i] = g->map[i] ? (uint8_t)name[g->map[i] - 1] : 0;
        mask[i] = g->map[i] == 1 && n && g->structure[0].kind == UM_STRUCTURE_BONE;
    }
    truth->map = g->map;
    truth->structure = g->structure;
    truth->n_structures = n;
    if (!n || g->structure[0].kind != UM_STRUCTURE_BONE)
        return;
    truth->has_bone = 1;
    truth->mask = mask;
    memcpy(truth->box, g->structure[0].box, sizeof truth->box);
    for (int i = 0; i < g->structures; i++)
        if (name[i] == 1)
            truth->visibility = area[i] < whole[i] ? area[i] / whole[i] : 1;
}

/* What cannot be seen is not true. Here: where contact is lost. */
static void hide_lost(struct um_hard *g, float *whole)
{
    for (int i = 0; i < UM_HARD_STRUCTURES; i++)
        whole[i] = 0;
    for (int y = 0; y < g->h; y++)
        for (int x = 0; x < g->w; x++) {
            uint8_t *m = &g->scan[at(g, x, y)];
            if (!*m)
                continue;
            whole[*m - 1]++;
            if (g->column[x] < .25f)
                *m = 0;
        }
}

/* Brightness of some pixels, 0..1. */
struct gray {
    float n, sum, squares;
};

static void add_pixels(const struct um_hard *g, struct gray *c, int x, int y0, int y1)
{
    for (int y = y0 < 0 ? 0 : y0; y < y1 && y < g->h; y++) {
        float v = g->amp[at(g, x, y)];
        c->n++;
        c->sum += v;
        c->squares += v * v;
    }
}

/* Can an eye tell an area from what lies beside it? By two steps of a screen of 256, and by 5 times
 * the noise of its mean: Rose, The sensitivity performance of the human eye on an absolute scale,
 * J. Opt. Soc. Am. 1948. A speckle of 6 square units is one sample. */
static int stands_out(const struct um_hard *g, const struct gray *a, const struct gray *beside)
{
    if (beside->n < 1)
        return 0;
    float mean = beside->sum / beside->n, d = a->sum / a->n - mean,
          variance = beside->squares / beside->n - mean * mean, samples = a->n / (6 * g->s * g->s);
    return fabsf(d) > 2.f / 255 && d * d * (samples > 1 ? samples : 1) > 25 * variance;
}

enum { IN, ABOVE, BELOW, PARTS };

/* And here: columns of a bone that do not stand out from what is above them nor from what is below
 * in the compressed image, with 12 units to both sides of them taken together. */
static void hide_faint(struct um_hard *g, int id)
{
    struct gray *column = (struct gray *)(void *)g->re; /* [w][PARTS]; free by now */
    int gap = (int)(2 * g->s), deep = (int)(8 * g->s), half = (int)(12 * g->s);
    for (int x = 0; x < g->w; x++) {
        struct gray *c = &column[x * PARTS];
        int top = 0, end = g->h;
        while (top < end && g->scan[at(g, x, top)] != id)
            top++;
        while (end > top && g->scan[at(g, x, end - 1)] != id)
            end--;
        memset(c, 0, PARTS * sizeof *c);
        if (top == end)
            continue;
        for (int y = top; y < end; y++)
            if (g->scan[at(g, x, y)] == id)
                add_pixels(g, &c[IN], x, y, y + 1);
        add_pixels(g, &c[ABOVE], x, top - gap - deep, top - gap);
        add_pixels(g, &c[BELOW], x, end + gap, end + gap + deep);
    }
    for (int x = 0; x < g->w; x++) {
        struct gray sum[PARTS] = {0};
        if (column[x * PARTS].n < 1)
            continue;
        for (int u = x - half < 0 ? 0 : x - half; u <= x + half && u < g->w; u++)
            for (int i = 0; i < PARTS; i++) {
                sum[i].n += column[u * PARTS + i].n;
                sum[i].sum += column[u * PARTS + i].sum;
                sum[i].squares += column[u * PARTS + i].squares;
            }
        if (stands_out(g, &sum[IN], &sum[ABOVE]) || stands_out(g, &sum[IN], &sum[BELOW]))
            continue;
        for (int y = 0; y < g->h; y++)
            if (g->scan[at(g, x, y)] == id)
                g->scan[at(g, x, y)] = 0;
    }
}

void um_hard_draw(struct um_hard *g, struct rng r, uint8_t *pixels, uint8_t *mask, um_truth *truth)
{
    struct rng noise = {mix(r.state ^ 0xa0761d6478bd642fu)};
    float top, whole[UM_HARD_STRUCTURES];
    g->structures = 0;
    draw_layers(g, &r, &top);
    draw_texture(g, &r, &noise);
    draw_fibres(g, &r, top);
    draw_fascia(g, &r, top);
    draw_inclusions(g, &r, top);
    if (!chance(&r, g->empty)) {
        if (chance(&r, .15)) {
            int middle = (int)(uniform(&r, .35, .65) * (float)g->w), gap = (int)(8 * g->s);
            draw_bone(g, &r, 0, middle - gap);
            draw_bone(g, &r, middle + gap, g->w);
        } else {
            for (int tries = 0; tries < 4 && !draw_bone(g, &r, 0, g->w); tries++)
                ;
        }
    } else if (chance(&r, .6)) {
        draw_decoy(g, &r);
    }
    lose_contact(g, &r);
    hide_lost(g, whole);
    make_echo(g, &r, &noise);
    compress(g, &r, &noise);
    for (int i = 0; i < g->structures; i++)
        if (g->kind[i] == UM_STRUCTURE_BONE)
            hide_faint(g, i + 1);
    shape_image(g, &r, pixels);
    draw_screen(g, &r, pixels);
    take_stock(g, whole, mask, truth);
}

um_status um_hard_open(struct um_hard *g, int width, int height, double empty)
{
    size_t n = (size_t)width * (size_t)height;
    float **fields[] = {&g->amp, &g->spec, &g->att, &g->re, &g->im};
    float **rows[] = {&g->curve, &g->ridge, &g->slope, &g->bright, &g->column};
    int ok = 1;
    g->w = width;
    g->h = height;
    g->s = (float)height / 320;
    g->empty = empty;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        ok &= (*fields[i] = um_array(n, sizeof(float))) != NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ok &= (*rows[i] = um_array((size_t)width, sizeof(float))) != NULL;
    ok &= (g->map = um_alloc(n)) != NULL;
    ok &= (g->scan = um_alloc(n)) != NULL;
    um_status st = um_field_open(&g->field, width, height);
    return ok && st == UM_OK ? UM_OK : um_fail(UM_ENOMEM, "phantom of %dx%d pixels", width, height);
}

void um_hard_close(struct um_hard *g)
{
    void *all[] = {g->amp,   g->spec,  g->att,    g->re,     g->im,  g->curve,
                   g->ridge, g->slope, g->bright, g->column, g->map, g->scan};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        um_free(all[i]);
    um_field_close(&g->field);
}
