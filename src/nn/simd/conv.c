/* SPDX-License-Identifier: Apache-2.0 */
/* Dense convolutions as matrix products over addresses (the indirection of XNNPACK): a 1x1
 * convolution is a product on the pixels as they lie. A larger one walks, per output pixel, kh runs
 * of kw neighbouring pixels, which lie side by side in an NHWC map; only windows that reach over
 * the left or right border are copied out. A map with gaps between its pixels (a slice of channels)
 * is copied without them if its pixels are short, with a border of zeros; else single pixels are
 * walked. */
#include "nn/simd/conv.h"

#include "nn/simd/gemm.h"
#include "nn/simd/slim.h"
#include "nn/simd/winograd.h"

enum {
    ROOM_FLOATS = 512 << 10, /* of the scratch, for copied windows */
    SHORT = 64,              /* floats of a pixel that are better copied beside their neighbours */
};

size_t UM_NAME(pack_conv)(void *dst, const float *w, int o, int kh, int kw, int i)
{
    size_t direct = um_gemm_pack(dst, w, o, kh * kw * i);
    size_t tiles = kh == 3 && kw == 3 ? um_winograd_floats(o, i) : 0;
    if (dst && tiles)
        um_winograd_pack((float *)dst + direct / sizeof *w, w, o, i);
    return direct + tiles * sizeof *w;
}

static struct gemm conv_gemm(const struct um_call *call, int k, int n)
{
    const struct um_conv_args *a = call->args;
    struct gemm g = gemm_of(&call->t[2], &call->t[3], k, n);
    g.act = a->act;
    g.limit = a->limit;
    g.lab_scale = a->lab_scale;
    g.lab_shift = a->lab_shift;
    g.add_last = a->add_last;
    return g;
}

struct job {
    const struct um_call *call;
    struct gemm g;
    struct gemm_split split;
    int panels;
};

static void linear_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1], *add = &j->call->t[4];
    int block = item % j->split.row_blocks, group = item / j->split.row_blocks,
        rows = out->h * out->w;
    int r0 = split_at(rows, j->split.row_blocks, block),
        r1 = split_at(rows, j->split.row_blocks, block + 1);
    (void)worker;
    um_gemm_block(&j->g, um_view_at(x, r0), x->ld, r1 - r0, um_view_at(out, r0), out->ld,
                  add->data ? um_view_at(add, r0) : NULL, add->ld,
                  split_at(j->panels, j->split.panel_groups, group),
                  split_at(j->panels, j->split.panel_groups, group + 1));
}

/* Copy the window of output pixel (oy, ox) to dst [kh][kw][c]. Whole vectors are stored: up to VL
 * floats behind dst are lost. */
static void copy_window(float *dst, const struct um_view *x, const struct um_conv_args *a, int oy,
                        int ox)
{
    int c = x->c, ix = ox * a->stride - a->pad_left;
    for (int ky = 0; ky < a->kh; ky++) {
        int iy = oy * a->stride - a->pad_top + ky;
        for (int kx = 0; kx < a->kw; kx++, dst += c) {
            bool inside = iy >= 0 && iy < x->h && ix + kx >= 0 && ix + kx < x->w;
            const float *src = inside ? um_view_at(x, (ptrdiff_t)iy * x->w + ix + kx) : NULL;
            for (int i = 0; i < c; i += VL)
                vf_store(dst + i, src ? vf_load_n(src + i, c - i < VL ? c - i : VL) : vf_zero());
        }
    }
}

/* The part of x that output rows y0..y1 see, zeros around it, as a map of its own in `room`; *a is
 * made to fit. */
static struct um_view copy_map(float *room, const struct um_view *x, struct um_conv_args *a, int y0,
                               int y1, int out_w)
{
    int c = x->c, top = y0 * a->stride - a->pad_top;
    struct um_view to = {.data = room,
                         .h = (y1 - y0) * a->stride + a->kh,
                         .w = (out_w - 1) * a->stride + a->kw,
                         .c = c,
                         .ld = c};
    for (int y = 0; y < to.h; y++)
        for (int px = 0; px < to.w; px++, room += c) {
            int iy = top + y, ix = px - a->pad_left;
            bool inside = iy >= 0 && iy < x->h && ix >= 0 && ix < x->w;
            const float *src = inside ? um_view_at(x, (ptrdiff_t)iy * x->w + ix) : NULL;
            for (int i = 0; i < c; i += VL)
                vf_store(room + i, !src         ? vf_zero()
                                   : c - i < VL ? vf_load_n(src + i, c - i)
                                                : vf_load(src + i));
        }
    a->pad_top += top;
    a->pad_left = 0;
    return to;
}

static void window_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_conv_args *a = j->call->args;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1], *add = &j->call->t[4];
    int block = item % j->split.row_blocks, group = item / j->split.row_blocks,
        all = out->h * out->w;
    int r0 = split_at(all, j->split.row_blocks, block),
        rows = split_at(all, j->split.row_blocks, block + 1) - r0;
    int kh = a->kh, y0 = r0 / out->w, y1 = (r0 + rows - 1) / out->w;
    bool dense = x->ld == x->c || a->kw == 1;
    int64_t copied =
        ((int64_t)(y1 - y0) * a->stride + kh) * ((int64_t)(out->w - 1) * a->stride + a->kw) * x->c;
    bool copy = !dense && x->c <= SHORT && copied <= ROOM_FLOATS, single = !dense && !copy;
    int runs = single ? kh * a->kw : kh, run = j->g.k / runs;

    /* Scratch: addresses of the block's rows, a run of zeros for rows of padding, what is copied.
     */
    const void **in = um_pool_scratch(j->call->pool, worker);
    float **to = (float **)(in + (ptrdiff_t)rows * runs);
    const float **plus = (const float **)(to + rows);
    float *zeros = (float *)(plus + rows), *room = zeros + run;
    for (int i = 0; i < run; i++)
        zeros[i] = 0;
    struct um_conv_args fit = *a;
    struct um_view map;
    if (copy) {
        map = copy_map(room, x, &fit, y0, y1, out->w);
        x = &map;
        a = &fit;
    }
    /* Output columns lo..hi-1 have their window inside the row. */
    int lo = (a->pad_left + a->stride - 1) / a->stride, hi = x->w + a->pad_left - a->kw;
    hi = hi < 0 ? 0 : hi / a->stride + 1;

    for (int r = 0, y = y0, px = r0 % out->w; r < rows; y++, px = 0) {
        int end = out->w - px < rows - r ? out->w : px + rows - r; /* pixels px..end-1 of row y */
        float *dst = um_view_at(out, um_view_row(out, y, px));
        const float *from[64];
        for (int ky = 0; ky < kh; ky++) {
            int iy = y * a->stride - a->pad_top + ky;
            from[ky] = iy >= 0 && iy < x->h ? um_view_at(x, (ptrdiff_t)iy * x->w) : NULL;
        }
        for (; px < end; px++, r++, dst += out->ld) {
            const void **at = in + (ptrdiff_t)r * runs;
            to[r] = dst;
            if (add->data)
                plus[r] = um_view_at(add, a->add_up2 ? (ptrdiff_t)(y / 2) * (out->w / 2) + px / 2
                                                     : um_view_row(out, y, px));
            if (!single && px >= lo && px < hi) {
                ptrdiff_t ix = (ptrdiff_t)(px * a->stride - a->pad_left) * x->ld;
                for (int ky = 0; ky < kh; ky++)
                    at[ky] = from[ky] ? from[ky] + ix : zeros;
                continue;
            }
            if (single) {
                for (int i = 0; i < runs; i++) {
                    int ix = px * a->stride - a->pad_left + i % a->kw;
                    const float *row = ix >= 0 && ix < x->w ? from[i / a->kw] : NULL;
                    at[i] = row ? row + (ptrdiff_t)ix * x->ld : zeros;
                }
                continue;
            }
            copy_window(room, x, a, y, px);
            for (int ky = 0; ky < kh; ky++, room += run)
                at[ky] = room;
        }
    }
    struct gemm_rows rp = {in, to, add->data ? plus : NULL, runs};
    um_gemm_rows(&j->g, &rp, rows, split_at(j->panels, j->split.panel_groups, group),
                 split_at(j->panels, j->split.panel_groups, group + 1));
}

/* ---- on narrow numbers: what a run of output pixels sees is rounded once, as a map with a border
 * of what stands for 0 ---- */

/* Columns x0.. and rows y0.. of x, h x w of them. */
static void round_map(uint8_t *to, const struct um_view *x, int y0, int x0, int h, int w,
                      const struct gemm *g)
{
    int c = x->c, from = x0 < 0 ? -x0 : 0, n = x->w - x0 < w ? x->w - x0 : w; /* columns inside */
    int zero = gemm_zero(g);
    ptrdiff_t bytes = (ptrdiff_t)c * gemm_size(g);
    for (int y = y0; y < y0 + h; y++, to += w * bytes) {
        bool inside = y >= 0 && y < x->h;
        memset(to, zero, (size_t)((inside ? from : w) * bytes));
        if (!inside)
            continue;
        const float *src = um_view_at(x, (ptrdiff_t)y * x->w + x0 + from);
        um_gemm_round(g, to + from * bytes, bytes, src, x->ld, n - from, c, 0, false);
        memset(to + n * bytes, zero, (size_t)((w - n) * bytes));
    }
    memset(to, 0, GEMM_TILE_ROW); /* the last run is read beyond its end */
}

/* How many output pixels from pixel r on, at most `most`, have a map that fits: whole rows, or a
 * part of one. `bytes` of an input pixel. */
static int map_pixels(const struct um_conv_args *a, int bytes, int out_w, int r, int most)
{
    enum { ROOM = ROOM_FLOATS * (int)sizeof(float) };
    int64_t row = ((int64_t)(out_w - 1) * a->stride + a->kw) * bytes;
    int64_t rows = (ROOM / row - a->kh) / a->stride + 1;
    if (r % out_w == 0 && most >= out_w && ROOM / row >= a->kh)
        return (int)(most / out_w < rows ? most / out_w : rows) * out_w;
    int64_t columns = (ROOM / ((int64_t)a->kh * bytes) - a->kw) / a->stride + 1;
    int n = columns < 1 ? 1 : columns < most ? (int)columns : most;
    return n < out_w - r % out_w ? n : out_w - r % out_w;
}

static void narrow_window_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_conv_args *a = j->call->args;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1], *add = &j->call->t[4];
    int block = item % j->split.row_blocks, group = item / j->split.row_blocks,
        all = out->h * out->w, bytes = x->c * gemm_size(&j->g);
    int r = split_at(all, j->split.row_blocks, block),
        end = split_at(all, j->split.row_blocks, block + 1), most = end - r;
    const void **in = um_pool_scratch(j->call->pool, worker);
    float **to = (float **)(in + (ptrdiff_t)most * a->kh);
    const float **plus = (const float **)(to + most);
    uint8_t *map = (uint8_t *)(plus + most);
    struct gemm_rows rows = {in, to, add->data ? plus : NULL, a->kh};
    for (int n = 0; r < end; r += n) {
        n = map_pixels(a, bytes, out->w, r, end - r);
        int y0 = r / out->w, px0 = r % out->w, y1 = (r + n - 1) / out->w,
            across = n < out->w ? n : out->w;
        int w = (across - 1) * a->stride + a->kw;
        round_map(map, x, y0 * a->stride - a->pad_top, px0 * a->stride - a->pad_left,
                  (y1 - y0) * a->stride + a->kh, w, &j->g);
        for (int i = 0; i < n; i++) {
            int y = (r + i) / out->w, px = (r + i) % out->w;
            const uint8_t *at = map + ((ptrdiff_t)(y - y0) * w + (px - px0)) * a->stride * bytes;
            for (int ky = 0; ky < a->kh; ky++)
                in[i * a->kh + ky] = at + (ptrdiff_t)ky * w * bytes;
            to[i] = um_view_at(out, um_view_row(out, y, px));
            if (add->data)
                plus[i] = um_view_at(add, a->add_up2 ? (ptrdiff_t)(y / 2) * (out->w / 2) + px / 2
                                                     : um_view_row(out, y, px));
        }
        um_gemm_rows(&j->g, &rows, n, split_at(j->panels, j->split.panel_groups, group),
                     split_at(j->panels, j->split.panel_groups, group + 1));
    }
}

/* ---- few outputs: rows of a map, one after the other ---- */

static void slim_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1];
    struct slim s = {.g = &j->g, .conv = j->call->args, .width = x->w, .ldx = x->ld, .ld = out->ld};
    float *room = um_pool_scratch(j->call->pool, worker);
    for (int y = split_at(out->h, j->split.row_blocks, item);
         y < split_at(out->h, j->split.row_blocks, item + 1); y++) {
        slim_look(&s, x, y);
        um_slim_row(&s, x->c, um_view_at(out, um_view_row(out, y, 0)), out->w, room);
    }
}

void UM_NAME(conv2d)(const struct um_call *call)
{
    const struct um_conv_args *a = call->args;
    const struct um_view *out = &call->t[0], *x = &call->t[1], *add = &call->t[4];
    bool linear = a->kh == 1 && a->kw == 1 && a->stride == 1 && a->pad_top == 0 &&
                  a->pad_left == 0 && !a->add_up2 && out->h * out->w == x->h * x->w;
    int k = a->kh * a->kw * x->c, rows = out->h * out->w;
    struct job j = {
        .call = call, .g = conv_gemm(call, k, out->c), .panels = um_gemm_panels(out->c)};
    j.split = um_gemm_split(rows, out->c, k, linear ? k : x->c * a->stride * a->stride,
                            um_pool_threads(call->pool));
    if (um_winograd(call, &j.g, j.g.b))
        return;
    if (!add->data && um_slim_fits(&j.g, a, x->c, out->w)) {
        j.split.row_blocks = j.split.row_blocks < out->h ? j.split.row_blocks : out->h;
        um_pool_run(call->pool, j.split.row_blocks, slim_item, &j);
        return;
    }
    j.g.ready = j.g.narrow && !linear;
    if (!linear && !j.g.narrow) {
        int most = ROOM_FLOATS / k > 0 ? ROOM_FLOATS / k : 1, blocks = (rows + most - 1) / most;
        if (j.split.row_blocks < blocks)
            j.split.row_blocks = blocks;
    }
    um_pool_run(call->pool, j.split.row_blocks * j.split.panel_groups,
                linear       ? linear_item
                : j.g.narrow ? narrow_window_item
                             : window_item,
                &j);
}

/* ---- transposed convolution: a product with 4 times the channels, whose rows are then dealt to
 * four pixels ---- */

static void up_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_view *out = &j->call->t[0], *x = &j->call->t[1];
    int c = out->c, all = x->h * x->w;
    int r0 = split_at(all, j->split.row_blocks, item),
        r1 = split_at(all, j->split.row_blocks, item + 1);
    float *buf = um_pool_scratch(j->call->pool, worker);
    int chunk = UM_POOL_SCRATCH / 16 / (4 * c * (int)sizeof *buf);
    if (chunk < 1)
        chunk = 1;
    for (int r = r0; r < r1; r += chunk) {
        int rows = r1 - r < chunk ? r1 - r : chunk;
        um_gemm_block(&j->g, um_view_at(x, r), x->ld, rows, buf, 4 * c, NULL, 0, 0, j->panels);
        for (int i = 0; i < rows; i++)
            for (int sub = 0; sub < 4; sub++) {
                int y = (r + i) / x->w * 2 + sub / 2, px = (r + i) % x->w * 2 + sub % 2;
                memcpy(um_view_at(out, (ptrdiff_t)y * out->w + px),
                       buf + ((ptrdiff_t)i * 4 + sub) * c, (size_t)c * sizeof *buf);
            }
    }
}

void UM_NAME(upconv2)(const struct um_call *call)
{
    const struct um_view *out = &call->t[0], *x = &call->t[1];
    struct job j = {
        .call = call, .g = conv_gemm(call, x->c, 4 * out->c), .panels = um_gemm_panels(4 * out->c)};
    j.g.lab_scale = 0;
    j.split = um_gemm_split(x->h * x->w, 4 * out->c, x->c, x->c, um_pool_threads(call->pool));
    if (j.split.row_blocks == 1 && j.split.panel_groups > 1)
        j.split.row_blocks =
            j.split.panel_groups < x->h * x->w ? j.split.panel_groups : x->h * x->w;
    um_pool_run(call->pool, j.split.row_blocks, up_item, &j);
}

/* ---- a [M,K] . b [N,K]^T: b is packed on the fly, panel by panel ---- */

static void nt_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_view *out = &j->call->t[0], *a = &j->call->t[1], *b = &j->call->t[2];
    int nr = um_gemm_nr(j->g.n), parts = j->split.panel_groups;
    float *panel = um_pool_scratch(j->call->pool, worker);
    for (int p = split_at(j->panels, parts, item); p < split_at(j->panels, parts, item + 1); p++) {
        struct gemm g = {.b = panel, .k = j->g.k, .n = j->g.n - p * nr < nr ? j->g.n - p * nr : nr};
        um_gemm_panel(panel, um_view_at(b, p * nr), b->ld, b->h * b->w - p * nr, b->c,
                      um_gemm_nr(g.n));
        um_gemm_block(&g, a->data, a->ld, a->h * a->w, (float *)out->data + (ptrdiff_t)p * nr,
                      out->ld, NULL, 0, 0, 1);
    }
}

void UM_NAME(matmul_nt)(const struct um_call *call)
{
    const struct um_view *a = &call->t[1], *b = &call->t[2];
    int n = b->h * b->w, m = a->h * a->w;
    struct job j = {.call = call, .g = {.k = a->c, .n = n}, .panels = um_gemm_panels(n)};
    int64_t worth = (int64_t)(m + 8) * n * a->c / 200000 + 1,
            most = 4 * um_pool_threads(call->pool);
    j.split.panel_groups = (int)(worth < most ? worth : most);
    if (j.split.panel_groups > j.panels)
        j.split.panel_groups = j.panels;
    um_pool_run(call->pool, j.split.panel_groups, nt_item, &j);
}
