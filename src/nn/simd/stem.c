/* SPDX-License-Identifier: Apache-2.0 */
/* HGNetV2's stem as one pass: rows of the maps between its convolutions live in rings that stay in
 * the L2 cache, where the maps themselves would be 3 to 13 MB at 640. Bands of rows of the result
 * are items; each repeats three rows of the one above. */
#include "nn/block.h"
#include "nn/simd/conv.h"
#include "nn/simd/slim.h"

#if VL == 16

enum { RING = 4 /* rows */, BAND = 8 /* rows of the result, at least */ };
enum { HALVE, LEFT, RIGHT, JOIN }; /* the layers: um_stem in nn/block.h */

struct job {
    const struct um_call *call;
    struct um_conv_args conv[UM_STEM_LAYERS];
    struct gemm g[UM_STEM_LAYERS];
    int bands;
};

/* Rows of a map of `h` rows, made one after the other. */
struct ring {
    float *data;
    int h, w, c, done; /* rows before `done` are made; the last RING of them are there */
};

static float *row(const struct ring *r, int y)
{
    return r->data + (ptrdiff_t)(y % RING) * r->w * r->c;
}

static const float *row_or_none(const struct ring *r, int y)
{
    return y >= 0 && y < r->h ? row(r, y) : NULL;
}

struct band {
    const struct job *j;
    struct ring half, left, both; /* a, b and [maximum of a | c of b] */
    float *room;
};

/* Layer i, whose inputs and outputs are `ldx` and `ld` floats apart. */
static struct slim layer(const struct job *j, int i, int width, ptrdiff_t ldx, ptrdiff_t ld)
{
    return (struct slim){.g = &j->g[i], .conv = &j->conv[i], .width = width, .ldx = ldx, .ld = ld};
}

static void make_half(struct band *b, int until)
{
    const struct um_view *x = &b->j->call->t[1];
    struct slim s = layer(b->j, HALVE, x->w, x->ld, b->half.c);
    for (; b->half.done < until && b->half.done < b->half.h; b->half.done++) {
        slim_look(&s, x, b->half.done);
        um_slim_row(&s, x->c, row(&b->half, b->half.done), b->half.w, b->room);
    }
}

static void make_left(struct band *b, int until)
{
    struct slim s = layer(b->j, LEFT, b->half.w, b->half.c, b->left.c);
    for (; b->left.done < until && b->left.done < b->left.h; b->left.done++) {
        int y = b->left.done;
        make_half(b, y + 2);
        s.row[0] = row(&b->half, y);
        s.row[1] = row_or_none(&b->half, y + 1);
        um_slim_row(&s, b->half.c, row(&b->left, y), b->left.w, b->room);
    }
}

/* The maximum of 2x2 pixels of one vector each; zeros stand right of the map and below it. */
static void max_row(float *to, ptrdiff_t ld, const float *above, const float *below, int w)
{
    vf left = vf_load(above), under = below ? vf_load(below) : vf_zero();
    for (int x = 0; x < w; x++, to += ld) {
        vf right = vf_zero(), corner = vf_zero();
        if (x + 1 < w) {
            right = vf_load(above + (x + 1) * VL);
            corner = below ? vf_load(below + (x + 1) * VL) : vf_zero();
        }
        vf_store(to, vf_larger(corner, vf_larger(under, vf_larger(right, left))));
        left = right;
        under = corner;
    }
}

static void make_both(struct band *b, int until)
{
    struct slim s = layer(b->j, RIGHT, b->left.w, b->left.c, b->both.c);
    for (; b->both.done < until && b->both.done < b->both.h; b->both.done++) {
        int y = b->both.done;
        make_left(b, y + 2);
        max_row(row(&b->both, y), b->both.c, row(&b->half, y), row_or_none(&b->half, y + 1),
                b->both.w);
        s.row[0] = row(&b->left, y);
        s.row[1] = row_or_none(&b->left, y + 1);
        um_slim_row(&s, b->left.c, row(&b->both, y) + VL, b->both.w, b->room);
    }
}

static void band_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1];
    const struct um_conv_args *a = &j->conv[JOIN];
    int h = (x->h - 1) / 2 + 1, w = (x->w - 1) / 2 + 1, n = j->g[LEFT].n;
    int y0 = split_at(out->h, j->bands, item), y1 = split_at(out->h, j->bands, item + 1);
    int first = y0 * a->stride - a->pad_top < 0 ? 0 : y0 * a->stride - a->pad_top;
    float *data = um_pool_scratch(j->call->pool, worker);
    struct band b = {.j = j};
    b.half = (struct ring){data, h, w, VL, first};
    b.left = (struct ring){b.half.data + (ptrdiff_t)RING * w * VL, h, w, n, first};
    b.both = (struct ring){b.left.data + (ptrdiff_t)RING * w * n, h, w, 2 * VL, first};
    b.room = b.both.data + (ptrdiff_t)RING * w * 2 * VL;
    struct slim s = layer(j, JOIN, w, b.both.c, out->ld);
    for (int y = y0; y < y1; y++) {
        int iy = y * a->stride - a->pad_top;
        make_both(&b, iy + a->kh);
        for (int ky = 0; ky < a->kh; ky++)
            s.row[ky] = row_or_none(&b.both, iy + ky);
        um_slim_row(&s, b.both.c, um_view_at(out, (ptrdiff_t)y * out->w), out->w, b.room);
    }
}

void UM_NAME(stem)(const struct um_call *call)
{
    const struct um_stem_args *a = call->args;
    const struct um_view *t = call->t, *out = &t[0], *x = &t[1];
    struct job j = {.call = call};
    const int inputs[UM_STEM_LAYERS] = {9 * x->c, 4 * VL, 4 * VL / 2, 9 * 2 * VL},
              outputs[UM_STEM_LAYERS] = {VL, VL / 2, VL, out->c};
    for (int i = 0; i < UM_STEM_LAYERS; i++) {
        bool pairs = i == LEFT || i == RIGHT;
        j.conv[i] = (struct um_conv_args){.kh = pairs ? 2 : 3,
                                          .kw = pairs ? 2 : 3,
                                          .stride = pairs ? 1 : 2,
                                          .pad_top = !pairs,
                                          .pad_left = !pairs};
        j.g[i] = gemm_of(&t[2 + 2 * i], &t[3 + 2 * i], inputs[i], outputs[i]);
        j.g[i].act = UM_ACT_RELU;
        j.g[i].lab_scale = a->lab_scale[i];
        j.g[i].lab_shift = a->lab_shift[i];
    }
    j.bands = 4 * um_pool_threads(call->pool);
    if (j.bands > (out->h + BAND - 1) / BAND)
        j.bands = (out->h + BAND - 1) / BAND;
    um_pool_run(call->pool, j.bands, band_item, &j);
}

#endif
