/* SPDX-License-Identifier: Apache-2.0 */
/* TinyViT's MBConv and PatchMerging as one pass: the map is cut into strips of columns and bands of
 * rows; within one, the expanded rows under the depthwise kernel live in a ring of three, and
 * neither hidden map ever leaves the L2 cache.
 *
 * Hidden channels lie in groups, [group][pixel][width], so that the product writes and the
 * depthwise convolution reads contiguous memory: pixels a power of two apart would share a few sets
 * of the cache. */
#include "nn/block.h"
#include "nn/simd/conv.h"
#include "nn/simd/dw.h"
#include "nn/simd/gemm.h"

enum {
    RING = 3,
    RING_FLOATS = (VL == 16 ? 64 : 36) << 10, /* of one strip: the cache also holds the weights.
                                                 Processors with AVX-512 have 1 MB of it and more */
    CHUNK = 16,                               /* output pixels between depthwise and projection */
    GROUP = 96,                               /* most channels of a group */
};

struct job {
    const struct um_call *call;
    struct gemm expand, project, gelu;
    int strips, bands;
    int width, groups; /* hidden channels as groups of this width */
};

static float *pixel(const struct um_view *v, int y, int x)
{
    return um_view_at(v, um_view_row(v, y, x));
}

/* Hidden row of input pixels x0..x1-1 of row y; room: for what they are as narrow numbers. */
static void expand_row(const struct job *j, float *ring, float *room, int y, int x0, int x1)
{
    const struct um_view *x = &j->call->t[1];
    int per = j->width / um_gemm_nr(j->expand.n), n = x1 - x0;
    const float *in = pixel(x, y, x0);
    ptrdiff_t ld = x->ld;
    if (j->expand.ready) {
        um_gemm_ready(&j->expand, (uint8_t *)room, in, ld, n);
        in = room;
        ld = gemm_depth(&j->expand, x->c) / (int)sizeof *room;
    }
    if (j->groups == 1) {
        um_gemm_block(&j->expand, in, ld, n, ring, j->width, NULL, 0, 0,
                      um_gemm_panels(j->expand.n));
        return;
    }
    for (int g = 0; g < j->groups; g++) {
        /* A panel stores at its own column: move that column to the start of the group. */
        float *c = ring + (ptrdiff_t)g * n * j->width - (ptrdiff_t)g * j->width;
        um_gemm_block(&j->expand, in, ld, n, c, j->width, NULL, 0, g * per, (g + 1) * per);
    }
}

static void strip_item(void *ctx, int item, int worker)
{
    const struct job *j = ctx;
    const struct um_mbconv_args *a = j->call->args;
    const struct um_view *t = j->call->t, *out = &t[0], *x = &t[1];
    int strip = item % j->strips, band = item / j->strips, s = a->stride, hidden = a->hidden;
    int eights = (out->w + 7) / 8; /* strips end where tiles of the depthwise kernel do */
    int ox0 = 8 * split_at(eights, j->strips, strip),
        ox1 = 8 * split_at(eights, j->strips, strip + 1);
    int oy0 = split_at(out->h, j->bands, band), oy1 = split_at(out->h, j->bands, band + 1);
    if (ox1 > out->w)
        ox1 = out->w;
    int ix0 = ox0 * s - 1 < 0 ? 0 : ox0 * s - 1,
        ix1 = (ox1 - 1) * s + 2 < x->w ? (ox1 - 1) * s + 2 : x->w;
    int n = ix1 - ix0, done = oy0 * s - 1 < 0 ? 0 : oy0 * s - 1; /* next row to expand */

    const void **in = um_pool_scratch(j->call->pool, worker);
    const float **plus = (const float **)(in + (ptrdiff_t)CHUNK * j->groups);
    float **to = (float **)(plus + CHUNK);
    float *mid = (float *)(to + CHUNK), *ring = mid + (ptrdiff_t)CHUNK * hidden,
          *room = ring + (ptrdiff_t)RING * n * hidden;
    bool ready = j->project.ready;
    ptrdiff_t row = ready ? gemm_depth(&j->project, hidden) : 0;
    int size = ready ? gemm_size(&j->project) : 0;
    struct gemm_rows rows = {in, to, a->residual ? plus : NULL, ready ? 1 : j->groups};
    uint8_t *narrow = (uint8_t *)room;
    const float *under[3];
    struct dw_row d = {.in = under,
                       .ldx = j->width,
                       .ldy = j->width,
                       .ldw = hidden,
                       .kh = 3,
                       .kw = 3,
                       .stride = s,
                       .pad_left = ix0 + 1 - ox0 * s,
                       .width = n,
                       .c = j->width};

    for (int oy = oy0; oy < oy1; oy++) {
        for (; done < x->h && done <= oy * s + 1; done++)
            expand_row(j, ring + (ptrdiff_t)(done % RING) * n * hidden, room, done, ix0, ix1);
        for (int c0 = ox0; c0 < ox1; c0 += CHUNK) {
            int m = ox1 - c0 < CHUNK ? ox1 - c0 : CHUNK;
            for (int g = 0; g < j->groups; g++) {
                float *y = mid + (ptrdiff_t)g * m * j->width;
                for (int ky = 0; ky < 3; ky++) {
                    int iy = oy * s - 1 + ky;
                    under[ky] = iy >= 0 && iy < x->h ? ring + (ptrdiff_t)(iy % RING) * n * hidden +
                                                           (ptrdiff_t)g * n * j->width
                                                     : NULL;
                }
                d.w = (const float *)t[4].data + (ptrdiff_t)g * j->width;
                d.bias = t[5].data ? (const float *)t[5].data + (ptrdiff_t)g * j->width : NULL;
                um_dw_row(&d, y, c0 - ox0, c0 - ox0 + m);
                if (ready) {
                    um_gemm_round(&j->project, narrow + (ptrdiff_t)g * j->width * size, row, y,
                                  j->width, m, j->width, g * j->width, true);
                    continue;
                }
                um_gemm_finish(&j->gelu, y, NULL, m * j->width);
                for (int i = 0; i < m; i++)
                    in[i * j->groups + g] = y + (ptrdiff_t)i * j->width;
            }
            for (int i = 0; i < m; i++) {
                if (ready) {
                    in[i] = narrow + i * row;
                    memset(narrow + i * row + hidden * size, 0, (size_t)(row - hidden * size));
                }
                to[i] = pixel(out, oy, c0 + i);
                plus[i] = a->residual ? pixel(x, oy, c0 + i) : NULL;
            }
            um_gemm_rows(&j->project, &rows, m, 0, um_gemm_panels(out->c));
        }
    }
}

void UM_NAME(mbconv)(const struct um_call *call)
{
    const struct um_mbconv_args *a = call->args;
    const struct um_view *t = call->t, *out = &t[0], *x = &t[1];
    int threads = um_pool_threads(call->pool), nr = um_gemm_nr(a->hidden);
    struct job j = {
        .call = call,
        .expand = gemm_of(&t[2], &t[3], x->c, a->hidden),
        .project = gemm_of(&t[6], &t[7], a->hidden, out->c),
        .gelu = {.act = UM_ACT_GELU},
        .width = a->hidden,
        .groups = 1,
    };
    j.expand.ready = j.expand.narrow != NULL;
    j.project.ready = j.project.narrow != NULL;
    j.expand.act = UM_ACT_GELU;
    j.project.act = a->residual ? UM_ACT_GELU : UM_ACT_NONE;
    for (int width = GROUP / nr * nr; width >= nr; width -= nr)
        if (a->hidden % width == 0) {
            j.width = width;
            j.groups = a->hidden / width;
            break;
        }
    int columns =
        (RING_FLOATS / (RING * a->hidden) - 2) / a->stride; /* output columns of a strip */
    int eights = columns < 16 ? 1 : columns / 8;
    j.strips = (out->w + 8 * eights - 1) / (8 * eights);
    /* Bands of at least 16 rows, because each repeats two; the same number of items for every
     * thread. */
    int most = (out->h + 15) / 16;
    j.bands = (8 * threads + j.strips - 1) / j.strips;
    while (j.bands < most && j.strips * j.bands % threads != 0)
        j.bands++;
    if (j.bands > most)
        j.bands = most;
    while (j.bands > 1 && j.strips * j.bands > threads && j.strips * j.bands % threads != 0)
        j.bands--;
    um_pool_run(call->pool, j.strips * j.bands, strip_item, &j);
}
