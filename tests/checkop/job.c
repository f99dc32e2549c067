/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers, and operands in memory with canaries before, after and between the rows. */
#include "checkop.h"

#include "base/half.h"
#include "nn/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random numbers ---- */

uint64_t rng_state;

uint32_t rng(void) /* splitmix64 */
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

int pick(int lo, int hi) /* lo..hi */
{
    return lo + (int)(rng() % (uint32_t)(hi - lo + 1));
}

bool chance(int percent)
{
    return pick(0, 99) < percent;
}

float uniform(void) /* -1..1 */
{
    return (float)(int32_t)rng() * 0x1p-31f;
}

/* ---- memory ---- */

enum { CANARY = 0xa5 };

void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "checkop: out of memory\n");
        exit(2);
    }
    return p;
}

struct memory memory_new(enum um_dtype dtype, int h, int w, int c, int gap)
{
    struct memory m = {.view = {.dtype = dtype, .h = h, .w = w, .c = c, .ld = c + gap}};
    size_t bytes = (size_t)h * (size_t)w * (size_t)m.view.ld * um_dtype_size(dtype);
    m.size = (bytes + 2 * GUARD + 63) / 64 * 64;
    m.base = need(aligned_alloc(64, m.size));
    memset(m.base, CANARY, m.size);
    m.view.data = m.base + GUARD;
    return m;
}

bool canaries_alive(const struct memory *m)
{
    size_t e = um_dtype_size(m->view.dtype), row = (size_t)m->view.c * e,
           step = (size_t)m->view.ld * e;
    size_t rows = (size_t)m->view.h * (size_t)m->view.w;
    for (size_t i = 0; i < m->size; i++) {
        if (i >= GUARD && i < GUARD + rows * step && (i - GUARD) % step < row) {
            i += row - 1 - (i - GUARD) % step;
            continue;
        }
        if (m->base[i] != CANARY)
            return false;
    }
    return true;
}

float *at(const struct um_view *v, int row, int col)
{
    return (float *)v->data + (ptrdiff_t)row * v->ld + col;
}

/* ---- halves ---- */

float half_value(enum um_dtype dtype, uint16_t u)
{
    float v;
    (dtype == UM_F16 ? um_f16_to_f32 : um_bf16_to_f32)(&v, &u, 1);
    return v;
}

uint16_t half_bits(enum um_dtype dtype, float v)
{
    uint16_t u;
    (dtype == UM_F16 ? um_f32_to_f16 : um_f32_to_bf16)(&u, &v, 1);
    return u;
}

/* ---- operands ---- */

void job_free(struct job *job)
{
    for (int i = 0; i < UM_OPERANDS; i++) {
        free(job->m[i].base);
        free(job->pack[i].plain);
        free(job->pack[i].shift);
    }
}

int gap(void)
{
    return chance(50) ? 0 : pick(1, 37);
}

struct um_view *output(struct job *job, enum um_dtype dtype, int h, int w, int c, int space)
{
    struct memory *m = &job->m[job->n++];
    job->n_out++;
    *m = memory_new(dtype, h, w, c, space);
    return &m->view;
}

/* A float operand of numbers in -scale..scale. */
struct um_view *input(struct job *job, int h, int w, int c, int space, float scale)
{
    struct memory *m = &job->m[job->n++];
    *m = memory_new(UM_F32, h, w, c, space);
    for (int r = 0; r < h * w; r++)
        for (int i = 0; i < c; i++)
            *at(&m->view, r, i) = uniform() * scale;
    return &m->view;
}

struct um_view *input_u8(struct job *job, int h, int w, int c)
{
    struct memory *m = &job->m[job->n++];
    *m = memory_new(UM_U8, h, w, c, 0);
    for (int i = 0; i < h * w * c; i++)
        ((uint8_t *)m->view.data)[i] = (uint8_t)rng();
    return &m->view;
}

void absent(struct job *job)
{
    job->n++;
}

void absent_output(struct job *job)
{
    absent(job);
    job->n_out++;
}

/* Rows of floats that may be absent. */
void maybe(struct job *job, bool there, int rows, int c, float scale)
{
    if (there)
        input(job, 1, rows, c, gap(), scale);
    else
        absent(job);
}

void maybe_bias(struct job *job, bool there, int c)
{
    if (there)
        input(job, 1, 1, c, 0, 0.5f);
    else
        absent(job);
}

/* Weights of a convolution of about unit gain, packed per level. */
void weights(struct job *job, int o, int kh, int kw, int i)
{
    struct packing *p = &job->pack[job->n++];
    size_t n = (size_t)o * (size_t)(kh * kw) * (size_t)i;
    float scale = sqrtf(3.0f / (float)(kh * kw * i));
    *p = (struct packing){.plain = need(malloc(n * sizeof(float))),
                          .type = UM_U8,
                          .o = o,
                          .kh = kh,
                          .kw = kw,
                          .i = i};
    for (size_t k = 0; k < n; k++)
        p->plain[k] = uniform() * scale;
}

/* ---- operands of a level ---- */

/* dst NULL: only how many bytes. */
static size_t pack(void *dst, const struct packing *p, const struct um_ops *ops)
{
    um_conv conv = {.o = p->o, .kh = p->kh, .kw = p->kw, .i = p->i};
    if (p->type == UM_I8)
        return um_quant_bytes(ops, dst, &conv, p->plain, p->range, p->shift);
    return (p->type == UM_BF16 ? ops->pack_bf16 : ops->pack_conv)(dst, p->plain, p->o, p->kh, p->kw,
                                                                  p->i);
}

static struct um_view packed(const struct packing *p, const struct um_ops *ops)
{
    size_t bytes = pack(NULL, p, ops), n = bytes / um_dtype_size(p->type);
    struct um_view v = {.dtype = p->type, .h = 1, .w = 1, .c = (int)n, .ld = (ptrdiff_t)n};
    v.data = need(aligned_alloc(64, (bytes + 63) / 64 * 64));
    pack(v.data, p, ops);
    return v;
}

/* Views of a job's operands with weights packed for a level; `out` gets fresh outputs. */
void views(const struct job *job, const struct um_ops *ops, struct um_view *t, struct memory *out)
{
    for (int i = 0; i < job->n; i++) {
        t[i] = job->m[i].view;
        if (job->pack[i].plain)
            t[i] = packed(&job->pack[i], ops);
        bool half = ops->act != UM_F32 && job->half[i] && t[i].data;
        if ((i < job->n_out || half) && t[i].data) {
            out[i] = memory_new(half ? ops->act : t[i].dtype, t[i].h, t[i].w, t[i].c,
                                (int)t[i].ld - t[i].c);
            if (job->preset >> i & 1)
                memcpy(out[i].base, job->m[i].base, out[i].size);
            for (int r = 0; i >= job->n_out && r < t[i].h * t[i].w; r++)
                for (int k = 0; k < t[i].c; k++)
                    ((uint16_t *)out[i].view.data)[(ptrdiff_t)r * t[i].ld + k] =
                        half_bits(ops->act, *at(&t[i], r, k));
            t[i] = out[i].view;
        }
    }
}

void views_free(const struct job *job, struct um_view *t, struct memory *out)
{
    for (int i = 0; i < job->n; i++) {
        if (job->pack[i].plain)
            free(t[i].data);
        free(out[i].base);
    }
}

/* Which operands are halves, and all of those and the weights rounded: the reference gets the same
 * numbers. */
void round_operands(struct job *job, enum um_dtype act)
{
    job->act = act;
    for (int i = 0; i < job->n && act != UM_F32; i++) {
        const struct um_view *v = &job->m[i].view;
        struct packing *p = &job->pack[i];
        job->half[i] = job->halves >> i & 1 && chance(75);
        for (int r = 0; job->half[i] && i >= job->n_out && v->data && r < v->h * v->w; r++)
            for (int k = 0; k < v->c; k++)
                *at(v, r, k) = half_value(act, half_bits(act, *at(v, r, k)));
        for (int k = 0; p->plain && k < p->o * p->kh * p->kw * p->i; k++)
            p->plain[k] = half_value(act, half_bits(act, p->plain[k]));
    }
}

void round_times(float *x, float scale)
{
    *x = half_value(UM_BF16, half_bits(UM_BF16, *x * scale)) / scale;
}

bool takes_type(const struct um_ops *ops, enum um_dtype type)
{
    return type == UM_I8 ? ops->pack_int8 != NULL : type == UM_BF16 ? ops->pack_bf16 != NULL : true;
}

bool use_narrow(struct job *job, enum um_dtype type)
{
    bool any = false;
    for (int i = 0; i < job->n; i++) {
        struct packing *p = &job->pack[i];
        if (!p->plain || chance(20))
            continue;
        p->type = type;
        any = true;
        p->range = (struct um_range){chance(25) ? 0 : -1.5f + uniform(), 1.5f + uniform()};
        p->shift = need(malloc((size_t)p->i));
        for (int k = 0; k < p->i; k++)
            p->shift[k] = (uint8_t)pick(0, 2);
    }
    return any;
}

/* ---- references of blocks ---- */

/* A reference kernel on explicit operands, for composing blocks. */
void ref(um_kernel *kernel, const void *args, um_pool *pool, const struct um_view *t, int n)
{
    struct um_call call = {.args = args, .t = t, .n = n, .pool = pool};
    kernel(&call);
}

struct um_view scratch(int h, int w, int c)
{
    struct um_view v = {.dtype = UM_F32, .h = h, .w = w, .c = c, .ld = c};
    v.data = need(calloc((size_t)h * (size_t)w * (size_t)c, sizeof(float)));
    return v;
}

struct um_view bytes(int h, int w, int c)
{
    struct um_view v = {.dtype = UM_U8, .h = h, .w = w, .c = c, .ld = c};
    v.data = need(calloc((size_t)h * (size_t)w, (size_t)c));
    return v;
}

const struct um_view none;

const char *const act_names[] = {"", " relu", " silu", " gelu", " sigmoid", " clamp"};
