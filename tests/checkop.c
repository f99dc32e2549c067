/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of every level this machine can run against the plain-C reference: random odd
 * shapes, channel slices (rows further apart than their elements), canaries round every operand,
 * one, two and three threads bit for bit. The GPU's kernels run here too, thread by thread, in
 * three orders of warps and lanes that must agree bit for bit.
 *
 *     checkop [--seed N] [OP]            check all, or one op
 *     checkop --device cuda:0 [--precision fp32|fp16|bf16] [--seed N] [OP]
 *                                        the GPU's kernels on a device, three runs bit for bit
 *     checkop --bench [--threads N] [OP] time the shapes of MobileSAM at 1024 and D-FINE at 640
 */
#include "base/clock.h"
#include "base/half.h"
#include "cuda/host_launch.h"
#include "nn/block.h"
#include "nn/cuda/op_cuda.h"
#include "nn/op_dfine.h"
#include "nn/op_level.h"
#include "nn/op_sam.h"
#include "nn/resize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
UM_LEVEL(emu512, "emu512") /* the 16-lane kernels on pairs of 8-lane registers: for tests on
                              machines without AVX-512 */
#endif

/* ---- random numbers ---- */

static uint64_t rng_state;

static uint32_t rng(void) /* splitmix64 */
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static int pick(int lo, int hi) /* lo..hi */
{
    return lo + (int)(rng() % (uint32_t)(hi - lo + 1));
}

static bool chance(int percent)
{
    return pick(0, 99) < percent;
}

static float uniform(void) /* -1..1 */
{
    return (float)(int32_t)rng() * 0x1p-31f;
}

/* ---- operands: memory with canaries before, after and between the rows ---- */

enum { GUARD = 256, CANARY = 0xa5 };

struct memory {
    struct um_view view;
    unsigned char *base;
    size_t size;
};

static void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "checkop: out of memory\n");
        exit(2);
    }
    return p;
}

static struct memory memory_new(enum um_dtype dtype, int h, int w, int c, int gap)
{
    struct memory m = {.view = {.dtype = dtype, .h = h, .w = w, .c = c, .ld = c + gap}};
    size_t bytes = (size_t)h * (size_t)w * (size_t)m.view.ld * um_dtype_size(dtype);
    m.size = (bytes + 2 * GUARD + 63) / 64 * 64;
    m.base = need(aligned_alloc(64, m.size));
    memset(m.base, CANARY, m.size);
    m.view.data = m.base + GUARD;
    return m;
}

static bool canaries_alive(const struct memory *m)
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

static float *at(const struct um_view *v, int row, int col)
{
    return (float *)v->data + (ptrdiff_t)row * v->ld + col;
}

/* ---- halves ---- */

static float half_value(enum um_dtype dtype, uint16_t u)
{
    float v;
    (dtype == UM_F16 ? um_f16_to_f32 : um_bf16_to_f32)(&v, &u, 1);
    return v;
}

static uint16_t half_bits(enum um_dtype dtype, float v)
{
    uint16_t u;
    (dtype == UM_F16 ? um_f32_to_f16 : um_f32_to_bf16)(&u, &v, 1);
    return u;
}

/* ---- one call: operands, arguments, and what it costs ---- */

struct packing {
    float *plain; /* [o][kh][kw][i]; NULL: the operand is used as it is */
    int o, kh, kw, i;
};

union args {
    struct um_conv_args conv;
    struct um_norm_args norm;
    struct um_add_args add;
    struct um_attention_args attention;
    struct um_window_args window;
    struct um_resize_args resize;
    struct um_deform_args deform;
    struct um_refine_args refine;
    struct um_integral_args integral;
    struct um_prompt_args prompt;
    struct um_mlp_args mlp;
    struct um_mbconv_args mbconv;
    struct um_window_block_args block;
    struct um_linear_args linear;
    struct um_chain_args chain;
    struct um_tokens_args tokens;
    struct um_front_args front;
};

struct job {
    enum um_op op;
    union args args;
    struct memory m[UM_OPERANDS];
    struct packing pack[UM_OPERANDS];
    int n, n_out;
    void (*reference)(const struct job *job, um_pool *pool,
                      struct um_view *t); /* NULL: the op's kernel at level c */
    double tolerance; /* absolute error allowed per 1 + |result|; 0 = bit for bit */
    double rounding;  /* where activations are halves: half steps beside the output's own; 0 = 1 */
    unsigned halves;  /* operands that may be halves, one bit each */
    unsigned preset;  /* outputs that start with what is written here, one bit each */
    bool half[UM_OPERANDS];
    enum um_dtype act;
    double macs;
    char what[160];
};

static void job_free(struct job *job)
{
    for (int i = 0; i < UM_OPERANDS; i++) {
        free(job->m[i].base);
        free(job->pack[i].plain);
    }
}

static int gap(void)
{
    return chance(50) ? 0 : pick(1, 37);
}

static struct um_view *output(struct job *job, enum um_dtype dtype, int h, int w, int c, int space)
{
    struct memory *m = &job->m[job->n++];
    job->n_out++;
    *m = memory_new(dtype, h, w, c, space);
    return &m->view;
}

/* A float operand of numbers in -scale..scale. */
static struct um_view *input(struct job *job, int h, int w, int c, int space, float scale)
{
    struct memory *m = &job->m[job->n++];
    *m = memory_new(UM_F32, h, w, c, space);
    for (int r = 0; r < h * w; r++)
        for (int i = 0; i < c; i++)
            *at(&m->view, r, i) = uniform() * scale;
    return &m->view;
}

static struct um_view *input_u8(struct job *job, int h, int w, int c)
{
    struct memory *m = &job->m[job->n++];
    *m = memory_new(UM_U8, h, w, c, 0);
    for (int i = 0; i < h * w * c; i++)
        ((uint8_t *)m->view.data)[i] = (uint8_t)rng();
    return &m->view;
}

static void absent(struct job *job)
{
    job->n++;
}

/* Weights of a convolution of about unit gain, packed per level. */
static void weights(struct job *job, int o, int kh, int kw, int i)
{
    struct packing *p = &job->pack[job->n++];
    size_t n = (size_t)o * (size_t)(kh * kw) * (size_t)i;
    float scale = sqrtf(3.0f / (float)(kh * kw * i));
    *p = (struct packing){need(malloc(n * sizeof(float))), o, kh, kw, i};
    for (size_t k = 0; k < n; k++)
        p->plain[k] = uniform() * scale;
}

/* ---- running ---- */

static struct um_view packed(const struct packing *p, const struct um_ops *ops)
{
    size_t bytes = ops->pack_conv(NULL, p->plain, p->o, p->kh, p->kw, p->i);
    struct um_view v = {.dtype = UM_U8, .h = 1, .w = 1, .c = (int)bytes, .ld = (ptrdiff_t)bytes};
    v.data = need(aligned_alloc(64, (bytes + 63) / 64 * 64));
    ops->pack_conv(v.data, p->plain, p->o, p->kh, p->kw, p->i);
    return v;
}

/* Views of a job's operands with weights packed for a level; `out` gets fresh outputs. */
static void views(const struct job *job, const struct um_ops *ops, struct um_view *t,
                  struct memory *out)
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

static void views_free(const struct job *job, struct um_view *t, struct memory *out)
{
    for (int i = 0; i < job->n; i++) {
        if (job->pack[i].plain)
            free(t[i].data);
        free(out[i].base);
    }
}

/* Which operands are halves, and all of those and the weights rounded: the reference gets the same
 * numbers. */
static void round_operands(struct job *job, enum um_dtype act)
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

/* A GPU's stream, and the kernel runs at once. */
static void launch_here(struct um_stream *stream, const struct um_launch *l)
{
    const char *problem =
        um_host_launch(l->kernel, l->grid, l->threads, l->shared, l->args, l->size);
    if (problem && stream->status == UM_OK)
        stream->status = um_fail(UM_EDEVICE, "%s", problem);
}

static um_device *gpu; /* --device: GPU kernels run there */

/* The same call on the device: each operand's whole memory goes up with its canaries, and comes
 * down again. Outputs start as NaN; what is no output must come back as it was. */
static um_status run_on_device(const struct job *job, const struct um_ops *ops,
                               const struct um_view *t)
{
    static um_hostbuf *staging;
    struct um_step step = {.name = um_op_name(job->op),
                           .kernel = ops->kernel[job->op],
                           .args = &job->args,
                           .n = job->n};
    um_buf *buf[UM_OPERANDS] = {NULL};
    size_t size[UM_OPERANDS] = {0}, place[UM_OPERANDS] = {0}, room = 0;
    um_event *done = NULL;
    um_status st = um_event_open(&done, gpu);
    for (int i = 0; i < job->n; i++) {
        size_t guard = job->pack[i].plain ? 0 : GUARD;
        size_t bytes =
            (size_t)t[i].h * (size_t)t[i].w * (size_t)t[i].ld * um_dtype_size(t[i].dtype);
        if (!t[i].data)
            continue;
        size[i] = guard ? (bytes + 2 * guard + 63) / 64 * 64 : bytes;
        place[i] = room;
        room += (size[i] + 255) / 256 * 256;
        if (st == UM_OK)
            st = um_buf_open(&buf[i], gpu, size[i], "operand");
        step.operand[i] = (struct um_operand){
            .buf = buf[i], .offset = guard, .size = bytes, .write = i < job->n_out, .view = t[i]};
    }
    if (st == UM_OK && (!staging || staging->size < room)) {
        um_hostbuf_close(&staging);
        st = um_hostbuf_open(&staging, gpu, 2 * room);
    }
    unsigned char *host = st == UM_OK ? staging->data : NULL;
    for (int i = 0; i < job->n && st == UM_OK; i++) {
        size_t guard = step.operand[i].offset, e = um_dtype_size(t[i].dtype);
        bool poison = i < job->n_out && !(job->preset >> i & 1);
        if (size[i])
            memcpy(host + place[i], (unsigned char *)t[i].data - guard, size[i]);
        for (int r = 0; size[i] && poison && r < t[i].h * t[i].w; r++)
            memset(host + place[i] + guard + (size_t)r * (size_t)t[i].ld * e, 0xff,
                   (size_t)t[i].c * e);
    }
    for (int i = 0; i < job->n && st == UM_OK; i++)
        if (size[i])
            st = um_upload(gpu, UM_QUEUE_MAIN, buf[i], 0, staging, place[i], size[i],
                           UM_STAGE_DEBUG, "operand");
    if (st == UM_OK)
        st = um_run(gpu, UM_QUEUE_MAIN, &step);
    for (int i = 0; i < job->n && st == UM_OK; i++)
        if (size[i])
            st = um_download(gpu, UM_QUEUE_MAIN, staging, place[i], buf[i], 0, size[i],
                             UM_STAGE_DEBUG, "operand");
    if (st == UM_OK)
        st = um_event_record(gpu, UM_QUEUE_MAIN, done);
    if (st == UM_OK)
        st = um_event_sync(gpu, done, UM_STAGE_DEBUG, "checkop");
    for (int i = 0; i < job->n && st == UM_OK; i++) {
        unsigned char *memory = (unsigned char *)t[i].data - step.operand[i].offset;
        if (i < job->n_out && size[i])
            memcpy(memory, host + place[i], size[i]);
        else if (size[i] && memcmp(memory, host + place[i], size[i]) != 0)
            st = um_fail(UM_EDEVICE, "operand %d changed, which is no output", i);
    }
    for (int i = 0; i < job->n; i++)
        um_buf_close(&buf[i]);
    um_event_close(&done, gpu);
    return st;
}

static um_status run(const struct job *job, const struct um_ops *ops, um_pool *pool,
                     const struct um_view *t)
{
    if (gpu && ops->launches)
        return run_on_device(job, ops, t);
    struct um_stream stream = {.launch = launch_here};
    struct um_call call = {
        .args = &job->args, .t = t, .n = job->n, .pool = pool, .stream = &stream};
    ops->kernel[job->op](&call);
    return stream.status;
}

/* A reference kernel on explicit operands, for composing blocks. */
static void ref(um_kernel *kernel, const void *args, um_pool *pool, const struct um_view *t, int n)
{
    struct um_call call = {.args = args, .t = t, .n = n, .pool = pool};
    kernel(&call);
}

static int failures;

/* What rounding to a half may add per 1 + |result|. */
static double half_tolerance(const struct job *job)
{
    double step = job->act == UM_F16 ? 0x1p-11 : job->act == UM_BF16 ? 0x1p-8 : 0;
    return step * (1 + (job->rounding > 0 ? job->rounding : 1));
}

/* Prints the first element that differs by more than the tolerance. */
static bool same(const struct job *job, const char *level, const struct um_view *want,
                 const struct um_view *got)
{
    size_t e = um_dtype_size(want->dtype), f = um_dtype_size(got->dtype);
    double tolerance = job->tolerance + half_tolerance(job);
    for (int r = 0; r < want->h * want->w; r++)
        for (int i = 0; i < want->c; i++) {
            size_t off = (size_t)r * (size_t)want->ld + (size_t)i;
            const unsigned char *a = (unsigned char *)want->data + off * e,
                                *b = (unsigned char *)got->data + off * f;
            float x = 0, y = 0;
            if (want->dtype == UM_F32) {
                uint16_t half = 0;
                memcpy(&x, a, 4);
                memcpy(got->dtype == UM_F32 ? (void *)&y : (void *)&half, b, f);
                if (got->dtype != UM_F32)
                    y = half_value(got->dtype, half);
                if (x == y || (isnan(x) && isnan(y)) ||
                    fabs((double)x - y) <= tolerance * (1 + fabs((double)x)))
                    continue;
            } else if (memcmp(a, b, e) == 0) {
                continue;
            } else {
                x = *a;
                y = *b;
            }
            printf("FAILED %s at %s: %s: row %d of %d, channel %d: %.9g, want %.9g\n",
                   um_op_name(job->op), level, job->what, r, want->h * want->w, i, (double)y,
                   (double)x);
            return false;
        }
    return true;
}

static bool check_level(const struct job *job, const struct um_ops *ops, const struct um_view *want,
                        um_pool *const *pools)
{
    struct memory first[UM_OPERANDS] = {{{0}, NULL, 0}}, out[UM_OPERANDS] = {{{0}, NULL, 0}};
    struct um_view t[UM_OPERANDS], u[UM_OPERANDS];
    views(job, ops, t, first);
    um_host_schedule(UM_HOST_FORWARD, 1);
    bool ok = run(job, ops, pools[0], t) == UM_OK;
    if (!ok)
        printf("FAILED %s at %s: %s: %s\n", um_op_name(job->op), ops->name, job->what,
               um_last_error());
    for (int i = 0; i < job->n_out && ok; i++) {
        if (!t[i].data)
            continue;
        ok = same(job, ops->name, &want[i], &t[i]);
        if (ok && !canaries_alive(&first[i])) {
            printf("FAILED %s at %s: %s: wrote outside output %d\n", um_op_name(job->op), ops->name,
                   job->what, i);
            ok = false;
        }
    }
    for (int i = job->n_out; i < job->n && ok; i++)
        if (job->m[i].base && !canaries_alive(&job->m[i])) {
            printf("FAILED %s at %s: %s: wrote round input %d\n", um_op_name(job->op), ops->name,
                   job->what, i);
            ok = false;
        }
    for (int p = 1; p < 3 && ok; p++) {
        views(job, ops, u, out);
        um_host_schedule(p == 1 ? UM_HOST_REVERSE : UM_HOST_SEEDED, (uint64_t)p);
        ok = run(job, ops, pools[p], u) == UM_OK;
        if (!ok)
            printf("FAILED %s at %s: %s: %s\n", um_op_name(job->op), ops->name, job->what,
                   um_last_error());
        for (int i = 0; i < job->n_out && ok; i++)
            if (u[i].data && memcmp(out[i].base, first[i].base, out[i].size) != 0) {
                printf("FAILED %s at %s: %s: %s %d gives another result than the first\n",
                       um_op_name(job->op), ops->name, job->what,
                       ops->launches ? "order" : "number of threads", p + 1);
                ok = false;
            }
        views_free(job, u, out);
        memset(out, 0, sizeof out);
    }
    views_free(job, t, first);
    return ok;
}

/* ---- the ops: each makes a call of the given shape. Tolerances: what a different order of fp32
 * sums may do. ---- */

static const char *const act_names[] = {"", " relu", " silu", " gelu", " sigmoid", " clamp"};

static void conv_epilogue(struct job *job, int oh, int ow, int o, enum um_act act,
                          int residual /* 0 none 1 add 2 last 3 up2 */)
{
    struct um_conv_args *a = &job->args.conv;
    a->act = act;
    a->limit = 0.5f;
    a->add_last = residual == 2;
    a->add_up2 = residual == 3;
    if (residual == 3)
        input(job, oh / 2, ow / 2, o, gap(), 1);
    else if (residual)
        input(job, oh, ow, o, gap(), 1);
    else
        absent(job);
}

static void make_conv(struct job *job, int h, int w, int i, int o, int k, int stride, int pad,
                      enum um_act act, int residual, bool lab, bool bias)
{
    int oh = (h + 2 * pad - k) / stride + 1, ow = (w + 2 * pad - k) / stride + 1;
    if (k == 2 &&
        stride == 1) { /* D-FINE's stem: one zero column on the right, one zero row below */
        oh = h;
        ow = w;
    }
    job->op = UM_OP_CONV2D;
    job->tolerance = 1e-5; /* sums of unit gain over up to 3000 products, in another order */
    job->macs = (double)oh * ow * o * i * k * k;
    job->args.conv =
        (struct um_conv_args){.kh = k, .kw = k, .stride = stride, .pad_top = pad, .pad_left = pad};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> [%d,%d,%d] k%d s%d p%d%s residual %d%s", h,
             w, i, oh, ow, o, k, stride, pad, act_names[act], residual, lab ? " lab" : "");
    output(job, UM_F32, oh, ow, o, gap());
    input(job, h, w, i, gap(), 1);
    weights(job, o, k, k, i);
    if (bias)
        input(job, 1, 1, o, 0, 0.5f);
    else
        absent(job);
    if (residual == 3 && (oh % 2 || ow % 2))
        residual = 1;
    conv_epilogue(job, oh, ow, o, act, residual);
    if (lab) {
        job->args.conv.lab_scale = 0.7f;
        job->args.conv.lab_shift = -0.2f;
    }
}

static void random_conv(struct job *job)
{
    int k = chance(50) ? 1 : pick(2, 3), stride = k == 3 && chance(40) ? 2 : 1, h = pick(k, 19),
        w = pick(k, 23);
    int i = chance(30) ? pick(1, 7) : pick(1, 130), o = chance(20) ? pick(100, 330) : pick(1, 100);
    if (chance(15)) { /* deep and narrow, or one row as in the token decoder */
        h = 1;
        w = pick(1, 9);
        k = stride = 1;
        i = pick(100, 700);
    }
    if (chance(5)) { /* so many rows that a GPU takes its largest tile */
        h = 130;
        w = pick(120, 128);
        k = stride = 1;
        i = 8 * pick(1, 2);
        o = pick(1, 9);
    }
    make_conv(job, h, w, i, o, k, stride, k == 3 ? pick(0, 1) : 0, (enum um_act)pick(0, 5),
              pick(0, 3), chance(20), chance(80));
}

static void make_dwconv(struct job *job, int h, int w, int c, int k, int stride, enum um_act act,
                        int residual)
{
    int pad = k / 2, oh = (h + 2 * pad - k) / stride + 1, ow = (w + 2 * pad - k) / stride + 1;
    job->op = UM_OP_DWCONV;
    job->tolerance = 3e-6; /* 25 products */
    job->macs = (double)oh * ow * c * k * k;
    job->args.conv =
        (struct um_conv_args){.kh = k, .kw = k, .stride = stride, .pad_top = pad, .pad_left = pad};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] k%d s%d%s residual %d", h, w, c, k, stride,
             act_names[act], residual);
    output(job, UM_F32, oh, ow, c, gap());
    input(job, h, w, c, gap(), 1);
    input(job, 1, k * k, c, 0, 0.5f);
    input(job, 1, 1, c, 0, 0.5f);
    conv_epilogue(job, oh, ow, c, act, residual == 3 && (oh % 2 || ow % 2) ? 1 : residual);
}

static void random_dwconv(struct job *job)
{
    int h = pick(1, 21), w = pick(1, 21), c = chance(50) ? pick(1, 100) : 8 * pick(1, 12);
    int k = chance(10) ? 7 : chance(60) ? 3 : 5, stride = pick(1, 2);
    if (chance(6)) { /* large enough for longer strips on a GPU */
        h = w = 66;
        c = 248;
        stride = 1;
    }
    make_dwconv(job, h, w, c, k, stride, (enum um_act)pick(0, 5), pick(0, 3));
    if (chance(20)) {
        job->args.conv.lab_scale = 0.7f;
        job->args.conv.lab_shift = -0.2f;
    }
}

static void make_upconv2(struct job *job, int h, int w, int i, int o, enum um_act act)
{
    job->op = UM_OP_UPCONV2;
    job->tolerance = 1e-5;
    job->macs = 4.0 * h * w * o * i;
    job->args.conv = (struct um_conv_args){.kh = 2, .kw = 2, .stride = 2, .act = act};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d%s", h, w, i, o, act_names[act]);
    output(job, UM_F32, 2 * h, 2 * w, o, gap());
    input(job, h, w, i, gap(), 1);
    weights(job, 4 * o, 1, 1, i);
    input(job, 1, 1, 4 * o, 0, 0.5f);
}

static void random_upconv2(struct job *job)
{
    make_upconv2(job, pick(1, 9), pick(1, 13), pick(1, 70), pick(1, 70),
                 (enum um_act)(chance(50) ? UM_ACT_GELU : UM_ACT_NONE));
}

static void make_layer_norm(struct job *job, int h, int w, int c, bool add, enum um_act act,
                            float offset)
{
    job->op = UM_OP_LAYER_NORM;
    job->tolerance =
        1e-5 + 5e-6 * (double)offset; /* the reference adds 400 numbers near offset one by one */
    job->macs = (double)h * w * c;
    job->args.norm = (struct um_norm_args){.eps = chance(50) ? 1e-5f : 1e-6f, .act = act};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d]%s%s offset %g", h, w, c, add ? " add" : "",
             act_names[act], (double)offset);
    output(job, UM_F32, h, w, c, gap());
    struct um_view *x = input(job, h, w, c, gap(), 1);
    for (int r = 0; r < h * w; r++)
        for (int i = 0; i < c; i++)
            *at(x, r, i) += offset;
    if (add)
        input(job, h, w, c, gap(), 1);
    else
        absent(job);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
}

static void random_layer_norm(struct job *job)
{
    static const int widths[] = {2, 4, 16, 64, 128, 160, 256, 320, 384};
    int c = chance(50) ? widths[pick(0, 8)] : pick(2, 400);
    make_layer_norm(job, pick(1, 9), pick(1, 50), c, chance(40), (enum um_act)pick(0, 4),
                    chance(20) ? 100 : 0);
}

static void make_gate_norm(struct job *job, int rows, int c)
{
    job->op = UM_OP_GATE_NORM;
    job->tolerance = 1e-5;
    job->macs = (double)rows * c;
    job->args.norm = (struct um_norm_args){.eps = 1e-5f};
    snprintf(job->what, sizeof job->what, "%d rows of %d", rows, c);
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, 2 * c, gap(), 1);
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
}

static void random_gate_norm(struct job *job)
{
    make_gate_norm(job, pick(1, 300), pick(3, 260));
}

static void make_add(struct job *job, int h, int w, int c, int mode /* 0 full 1 row 2 channel */,
                     enum um_act act, int space)
{
    job->op = UM_OP_ADD;
    job->tolerance = act == UM_ACT_NONE || act == UM_ACT_RELU || act == UM_ACT_CLAMP
                         ? 0
                         : 1e-6; /* math.h against libm */
    job->macs = (double)h * w * c;
    job->args.add = (struct um_add_args){.act = act, .limit = 0.5f};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] mode %d%s", h, w, c, mode, act_names[act]);
    output(job, UM_F32, h, w, c, space);
    struct um_view *a = input(job, h, w, c, space, 4);
    if (mode == 1)
        input(job, 1, 1, c, 0, 1);
    else
        input(job, h, w, mode == 2 ? 1 : c, space ? gap() : 0, 1);
    if (chance(30))
        *at(a, pick(0, h * w - 1), pick(0, c - 1)) = NAN;
}

static void random_add(struct job *job)
{
    make_add(job, pick(1, 30), pick(1, 30), pick(1, 130), pick(0, 2), (enum um_act)pick(0, 5),
             gap());
}

static void make_maxpool2(struct job *job, int h, int w, int c)
{
    job->op = UM_OP_MAXPOOL2;
    job->macs = (double)h * w * c;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d]", h, w, c);
    output(job, UM_F32, h, w, c, gap());
    struct um_view *x = input(job, h, w, c, gap(), 1);
    if (chance(30))
        *at(x, pick(0, h * w - 1), pick(0, c - 1)) = NAN;
}

static void random_maxpool2(struct job *job)
{
    make_maxpool2(job, pick(1, 20), pick(1, 20), pick(1, 40));
}

static void make_attention(struct job *job, int queries, int keys, int heads, int d, float spread)
{
    job->op = UM_OP_ATTENTION;
    job->tolerance = 1e-5; /* a weighted mean; exp turns absolute errors of the scores (up to 30)
                              into relative ones */
    job->rounding = 5; /* on tensor cores q and k that were fp32 become halves, and the error of a
                          score is a relative one of its weight; so do v and the weights */
    job->macs = 2.0 * queries * keys * heads * d;
    job->args.attention = (struct um_attention_args){.heads = heads, .scale = 1 / sqrtf((float)d)};
    snprintf(job->what, sizeof job->what, "%d queries, %d keys, %d heads of %d", queries, keys,
             heads, d);
    output(job, UM_F32, 1, queries, heads * d, gap());
    input(job, 1, queries, heads * d, gap(), spread);
    int space = gap();
    input(job, 1, keys, heads * d, space, spread);
    input(job, 1, keys, heads * d, space, 1);
}

static void random_attention(struct job *job)
{
    static const int widths[] = {16, 32, 48};
    static const int shapes[][3] = {/* of the networks: queries, keys, width */
                                    {300, 300, 32},
                                    {400, 400, 16},
                                    {7, 4096, 16},
                                    {4096, 7, 16},
                                    {7, 7, 32}};
    int d = chance(70) ? widths[pick(0, 2)] : pick(1, 70);
    if (chance(30)) {
        const int *s = shapes[pick(0, 4)];
        make_attention(job, s[0], s[1], pick(1, 2), s[2], chance(30) ? 4.0f : 1.5f);
        return;
    }
    make_attention(job, pick(1, 120), chance(20) ? pick(200, 700) : pick(1, 90), pick(1, 5), d,
                   chance(30) ? 4.0f : 1.5f);
}

static void make_window(struct job *job, int h, int w, int window, int heads, int d)
{
    int c = heads * d, n = window * window;
    job->op = UM_OP_WINDOW_ATTENTION;
    job->tolerance = 1e-5;
    job->rounding = 3; /* as above */
    job->macs = 2.0 * ((h + window - 1) / window) * ((w + window - 1) / window) * n * n * c;
    job->args.window = (struct um_window_args){.window = window, .heads = heads};
    snprintf(job->what, sizeof job->what, "[%d,%d] window %d, %d heads of %d", h, w, window, heads,
             d);
    output(job, UM_F32, h, w, c, gap());
    input(job, h, w, 3 * c, gap(), 2);
    input(job, 1, 1, 3 * c, 0, 2);
    input(job, 1, heads, n, 0, 2);
}

static void random_window(struct job *job)
{
    int window = chance(60) ? 7 : chance(60) ? 14 : pick(1, 12), d = chance(80) ? 32 : pick(1, 40);
    static const int maps[][2] = {{19, 23}, {5, 11}};
    int h = pick(1, 30), w = pick(1, 30);
    if (chance(20)) { /* windows of the networks: some beyond the edge, a map smaller than one */
        const int *map = maps[pick(0, 1)];
        make_window(job, map[0], map[1], chance(50) ? 7 : 14, pick(1, 2), 32);
    } else
        make_window(job, h, w, window, pick(1, 3), d);
}

static void make_matmul_nt(struct job *job, int m, int n, int k)
{
    job->op = UM_OP_MATMUL_NT;
    job->tolerance = 1e-5 * sqrt((double)k); /* not of unit gain */
    job->macs = (double)m * n * k;
    snprintf(job->what, sizeof job->what, "%d x %d, k %d", m, n, k);
    output(job, UM_F32, 1, m, n, gap());
    input(job, 1, m, k, gap(), 1);
    input(job, 1, n, k, gap(), 1);
}

static void random_matmul_nt(struct job *job)
{
    make_matmul_nt(job, pick(1, 200), chance(50) ? pick(1, 4) : pick(1, 50), pick(1, 70));
}

static void make_resize(struct job *job, int h, int w, int c, int n, bool vertical)
{
    int in = vertical ? h : w, support = in > n ? (in + n - 1) / n + 1 : 2, ksize = 2 * support + 1;
    job->op = UM_OP_RESIZE;
    job->macs = (double)(vertical ? n * w : h * n) * c * (in > n ? 2.0 * in / n : 2);
    job->args.resize = (struct um_resize_args){.vertical = vertical};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d %s", h, w, c, n,
             vertical ? "rows" : "columns");
    output(job, UM_U8, vertical ? n : h, vertical ? w : n, c, 0);
    input_u8(job, h, w, c);
    struct memory *taps = &job->m[job->n++];
    *taps = memory_new(UM_I32, 1, n, 2 + ksize, 0);
    for (int o = 0; o < n;
         o++) { /* triangle of the width Pillow uses; a few overshoot so that clipping is seen */
        int32_t *k = (int32_t *)taps->view.data + (ptrdiff_t)o * (2 + ksize);
        double ratio = (double)in / n, reach = ratio > 1 ? ratio : 1, middle = (o + 0.5) * ratio,
               sum = 0;
        int first = (int)(middle - reach + 0.5), last = (int)(middle + reach + 0.5);
        first = first < 0 ? 0 : first;
        last = last > in ? in : last;
        memset(k, 0, (size_t)(2 + ksize) * sizeof *k);
        k[0] = first;
        k[1] = last - first < ksize ? last - first : ksize;
        for (int pass = 0; pass < 2; pass++)
            for (int j = 0; j < k[1]; j++) {
                double x = fabs((first + j - middle + 0.5) / reach), v = x < 1 ? 1 - x : 0;
                if (pass == 0)
                    sum += v;
                else
                    k[2 + j] = (int32_t)lrint(v / sum * (1 << 22) * (chance(3) ? 1.3 : 1));
            }
        if (chance(3))
            k[2] = -k[2];
    }
}

static void random_resize(struct job *job)
{
    make_resize(job, pick(1, 60), pick(1, 60), chance(50) ? 1 : 3, pick(1, 90), chance(50));
}

static void make_normalize(struct job *job, int h, int w, int in_c, int size_h, int size_w, int c)
{
    job->op = UM_OP_NORMALIZE;
    job->macs = (double)size_h * size_w * c;
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> [%d,%d,%d]", h, w, in_c, size_h, size_w,
             c);
    output(job, UM_F32, size_h, size_w, c, chance(70) ? 0 : 1);
    input_u8(job, h, w, in_c);
    input(job, 1, c, 256, 0, 2);
}

static void random_normalize(struct job *job)
{
    int h = pick(1, 40), w = pick(1, 40), c = chance(60) ? 3 : pick(1, 4);
    make_normalize(job, h, w, chance(50) ? 1 : c, h + (chance(50) ? 0 : pick(0, 9)),
                   w + (chance(50) ? 0 : pick(0, 9)), c);
}

static void make_scale_rows(struct job *job, int rows, int c)
{
    job->op = UM_OP_SCALE_ROWS;
    job->macs = (double)rows * c;
    snprintf(job->what, sizeof job->what, "%d rows of %d", rows, c);
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, rows, 1, 0, 1);
}

static void random_scale_rows(struct job *job)
{
    make_scale_rows(job, pick(1, 300), pick(1, 200));
}

static void make_gather(struct job *job, int rows, int n, int c)
{
    job->op = UM_OP_GATHER;
    job->macs = (double)n * c;
    snprintf(job->what, sizeof job->what, "%d of %d rows of %d", n, rows, c);
    output(job, UM_F32, 1, n, c, gap());
    input(job, 1, rows, c, gap(), 1);
    struct memory *idx = &job->m[job->n++];
    *idx = memory_new(UM_I32, 1, n, 1, 0);
    for (int i = 0; i < n; i++)
        ((int32_t *)idx->view.data)[i] = pick(0, rows - 1);
}

static void random_gather(struct job *job)
{
    make_gather(job, pick(1, 300), pick(1, 300), pick(1, 200));
}

static void make_topk(struct job *job, int rows, int c, int k)
{
    job->op = UM_OP_TOPK;
    job->macs = (double)rows * c;
    snprintf(job->what, sizeof job->what, "%d of [%d,%d]", k, rows, c);
    output(job, UM_I32, 1, k, 1, 0);
    struct um_view *s = input(job, 1, rows, c, gap(), 1);
    for (int r = 0; r < rows; r++) /* coarse, so that ties are common; some NaN */
        for (int i = 0; i < c; i++)
            *at(s, r, i) = chance(1) ? NAN : roundf(*at(s, r, i) * 64);
}

static void random_topk(struct job *job)
{
    int rows = chance(90) ? pick(1, 500) : chance(80) ? pick(500, 9000) : pick(20000, 40000);
    int c = rows > 500 ? pick(1, 3) : chance(40) ? 1 : chance(80) ? pick(1, 90) : pick(90, 400);
    make_topk(job, rows, c,
              chance(10) ? (rows < 512 ? rows : 512) : pick(1, rows < 300 ? rows : 300));
    if (chance(10)) /* all equal, but for the sign of zeros */
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < c; i++)
                *at(&job->m[1].view, r, i) = chance(50) ? 0.0f : -0.0f;
}

static void make_deform(struct job *job, int queries, int heads, int d, int levels, const int *size,
                        const int *points)
{
    struct um_deform_args *a = &job->args.deform;
    int tokens = 0, p = 0;
    *a = (struct um_deform_args){.heads = heads, .levels = levels};
    for (int l = 0; l < levels; l++) {
        a->h[l] = size[l];
        a->w[l] = size[l] + (chance(30) ? 3 : 0);
        a->points[l] = points[l];
        tokens += a->h[l] * a->w[l];
        p += points[l];
    }
    job->op = UM_OP_DEFORM;
    job->tolerance =
        1e-4; /* a coordinate of 80 pixels has 8e-6 of rounding, a map of noise a slope of 2 */
    job->macs = 4.0 * queries * heads * d * p;
    snprintf(job->what, sizeof job->what, "%d queries, %d heads of %d, %d levels, %d points",
             queries, heads, d, levels, p);
    output(job, UM_F32, 1, queries, heads * d, gap());
    input(job, 1, queries, heads * p * 3, gap(), 4);
    struct um_view *box = input(job, 1, queries, 4, gap(), 0.5f);
    for (int q = 0; q < queries; q++)
        for (int i = 0; i < 4; i++)
            *at(box, q, i) += 0.5f;
    if (chance(30))
        *at(&job->m[1].view, pick(0, queries - 1), 0) = chance(50) ? NAN : 1e30f;
    input(job, 1, tokens, heads * d, gap(), 1);
}

static void random_deform(struct job *job)
{
    int size[UM_LEVELS_MAX], points[UM_LEVELS_MAX], levels = pick(1, UM_LEVELS_MAX),
                                                    most = chance(80) ? 6 : 64 / levels;
    for (int l = 0; l < levels; l++) {
        size[l] = pick(1, 20);
        points[l] = pick(1, most);
    }
    make_deform(job, pick(1, 60), pick(1, 8),
                chance(40)   ? 16 * pick(1, 2)
                : chance(50) ? 8 * pick(1, 9)
                             : pick(1, 40),
                levels, size, points);
}

static void make_refine(struct job *job, int rows, int c, bool inverse)
{
    job->op = UM_OP_REFINE;
    job->tolerance = 1e-6;
    job->macs = (double)rows * c;
    job->args.refine = (struct um_refine_args){.inverse = inverse};
    snprintf(job->what, sizeof job->what, "%d rows of %d%s", rows, c, inverse ? " inverse" : "");
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, c, gap(), 3);
    struct um_view *base = input(job, 1, rows, c, gap(), inverse ? 1.1f : 3);
    *at(base, 0, 0) = INFINITY;
}

static void random_refine(struct job *job)
{
    make_refine(job, pick(1, 300), pick(1, 5), chance(50));
}

static void make_integral(struct job *job, int rows, int bins)
{
    job->op = UM_OP_INTEGRAL;
    job->tolerance = 1e-5; /* softmax mean of 33 bins, then about ten operations */
    job->macs = 4.0 * rows * bins;
    job->args.integral = (struct um_integral_args){.reg_scale = 4};
    snprintf(job->what, sizeof job->what, "%d rows of 4 x %d", rows, bins);
    output(job, UM_F32, 1, rows, 4, gap());
    input(job, 1, rows, 4 * bins, gap(), 4);
    input(job, 1, rows, 4, gap(), 1);
    input(job, 1, bins, 1, 0, 2);
}

static void random_integral(struct job *job)
{
    make_integral(job, pick(1, 100), chance(50) ? 33 : pick(4, 40));
}

static void make_lqe_stats(struct job *job, int rows, int bins)
{
    job->op = UM_OP_LQE_STATS;
    job->tolerance = 1e-6;
    job->macs = 4.0 * rows * bins;
    snprintf(job->what, sizeof job->what, "%d rows of 4 x %d", rows, bins);
    output(job, UM_F32, 1, rows, 20, gap());
    input(job, 1, rows, 4 * bins, gap(), 4);
}

static void random_lqe_stats(struct job *job)
{
    make_lqe_stats(job, pick(1, 100), chance(50) ? 33 : pick(4, 40));
}

/* The records bit for bit: expf is the same on every level here. */
static void make_best_box(struct job *job, int rows, int c)
{
    struct um_frame_header header = {.frame_id = 7,
                                     .width = (uint32_t)pick(1, 2000),
                                     .height = (uint32_t)pick(1, 2000),
                                     .tau_conf = chance(90) ? 0.5f + 0.5f * uniform() : NAN,
                                     .label = chance(60) ? -1 : pick(0, c)}; /* c: no such class */
    job->op = UM_OP_BEST_BOX;
    job->macs = (double)rows * c;
    snprintf(job->what, sizeof job->what, "%d rows of %d, class %d", rows, c, (int)header.label);
    output(job, UM_U8, 1, 1, UM_GATE_BYTES, 0);
    output(job, UM_U8, 1, 1, (int)sizeof(struct um_prompt), 0);
    struct um_view *logits = input(job, 1, rows, c, gap(), 6);
    bool coarse = chance(60), dead = chance(10);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < c; i++) { /* ties, both zeros among them; nothing to choose from */
            float *v = at(logits, r, i);
            *v = dead        ? (chance(50) ? NAN : -INFINITY)
                 : chance(3) ? NAN
                 : chance(3) ? -INFINITY
                 : coarse    ? (*v < -4  ? -1.0f
                                : *v < 0 ? -0.0f
                                         : 0.0f)
                             : *v;
        }
    if (chance(10))
        *at(logits, pick(0, rows - 1), pick(0, c - 1)) = INFINITY;
    struct um_view *boxes = input(job, 1, rows, 4, gap(), 0.5f);
    for (int r = 0; r < rows; r++) {
        static const float odd[] = {NAN, INFINITY, -INFINITY, -0.4f, 3, -2, 1e38f, 0};
        for (int i = 0; i < 4; i++)
            *at(boxes, r, i) += 0.5f;
        if (chance(30))
            *at(boxes, r, pick(0, 3)) = odd[pick(0, 7)];
    }
    memcpy(input_u8(job, 1, 1, UM_HEADER_BYTES)->data, &header, sizeof header);
}

static void random_best_box(struct job *job)
{
    make_best_box(job, pick(1, 300), chance(30) ? 1 : pick(1, 90));
}

static void make_prompt(struct job *job, int c, int points, bool box)
{
    struct um_prompt_args *a = &job->args.prompt;
    *a = (struct um_prompt_args){.canvas = pick(16, 1024), .points = points, .box = box};
    job->op = UM_OP_PROMPT;
    job->tolerance = 1e-6; /* sinf, cosf */
    job->rounding = 1e-6;
    job->macs = 5.0 * c * (points + 2);
    snprintf(job->what, sizeof job->what, "%d channels, %d points%s, canvas %d", c, points,
             box ? ", box" : "", a->canvas);
    output(job, UM_F32, 1, 5 + points + (box ? 2 : points ? 1 : 0), c, gap());
    struct um_prompt p = {.has_box = box, .n_points = (uint32_t)points};
    p.width = chance(90) ? (uint32_t)pick(1, 2000) : 0;
    p.height = chance(90) ? (uint32_t)pick(1, 2000) : 0;
    for (int i = 0; i < 4; i++)
        p.box[i] = (0.5f + uniform()) * (float)(i % 2 ? p.height : p.width);
    for (int i = 0; i < UM_POINTS_MAX; i++) {
        p.xy[2 * i] = (0.5f + uniform()) * (float)p.width;
        p.xy[2 * i + 1] = (0.5f + uniform()) * (float)p.height;
        p.label[i] = pick(-1, 2);
    }
    memcpy(input_u8(job, 1, 1, sizeof p)->data, &p, sizeof p);
    input(job, 1, 10, c, 0, 1);
    input(job, 1, 2, c / 2, 0, 2);
}

static void random_prompt(struct job *job)
{
    bool box = chance(60);
    make_prompt(job, chance(50) ? 256 : 2 * pick(1, 150), pick(box ? 0 : 1, UM_POINTS_MAX), box);
}

static void make_mask(struct job *job, int n4, int used_h, int used_w, int h, int w, bool logits)
{
    job->op = UM_OP_MASK; /* equal logits must give equal masks on every level: bit for bit */
    job->macs = 12.0 * h * w;
    snprintf(job->what, sizeof job->what, "%d -> [%d,%d]%s", n4, h, w,
             logits ? " with logits" : "");
    output(job, UM_U8, h, w, 1, 0);
    if (logits) {
        output(job, UM_F32, h, w, 1, 0);
    } else {
        absent(job);
        job->n_out++;
    }
    struct um_view *low = input(job, n4, n4, 1, chance(50) ? 0 : 3, 2);
    for (int i = 0; i < n4 * n4 && chance(99); i++) /* exact zeros: not part of the mask */
        *at(low, i, 0) = roundf(*at(low, i, 0) * 0.6f);
    um_mask_taps(input(job, 1, w, 4, 0, 1)->data, n4, 4 * n4, used_w, w);
    um_mask_taps(input(job, 1, h, 4, 0, 1)->data, n4, 4 * n4, used_h, h);
    if (chance(70)) {
        struct um_view *gate = input_u8(job, 1, 1, UM_GATE_BYTES);
        uint32_t flags = chance(80) ? UM_GATE_OK : UM_GATE_BELOW_TAU;
        memcpy(gate->data, &flags, sizeof flags);
    } else {
        absent(job);
    }
}

static void random_mask(struct job *job)
{
    int n4 = pick(3, 20);
    make_mask(job, n4, pick(1, 4 * n4), 4 * n4, pick(1, 90), pick(1, 90), chance(50));
}

static void make_mask_stats(struct job *job, int h, int w, int density)
{
    job->op = UM_OP_MASK_STATS;
    job->macs = (double)h * w;
    snprintf(job->what, sizeof job->what, "[%d,%d] %d %%", h, w, density);
    output(job, UM_U8, 3 * h, w, 1, 0);
    output(job, UM_U8, 1, 1, UM_RECORD_BYTES, 0);
    struct um_view *m = input_u8(job, h, w, 1);
    for (int i = 0; i < h * w; i++)
        ((uint8_t *)m->data)[i] = chance(density);
}

static void random_mask_stats(struct job *job)
{
    static const int density[] = {0, 2, 50, 97, 100};
    make_mask_stats(job, pick(1, 50), pick(1, 90), density[pick(0, 4)]);
}

static void make_packet(struct job *job, int h, int w)
{
    job->op = UM_OP_PACKET;
    job->macs = (double)h * w;
    snprintf(job->what, sizeof job->what, "[%d,%d]", h, w);
    output(job, UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), 0);
    input_u8(job, 1, 1, UM_RECORD_BYTES);
    struct um_view *m = input_u8(job, h, w, 1);
    for (int i = 0; i < h * w; i++)
        ((uint8_t *)m->data)[i] &= 1;
    struct um_view *gate = input_u8(job, 1, 1, UM_GATE_BYTES);
    uint32_t flags = chance(80) ? UM_GATE_OK : UM_GATE_OUTSIDE;
    memcpy(gate->data, &flags, sizeof flags);
    input(job, 1, 1, 4, 0, 1);
    struct um_view *low = input(job, 8, 8, 1, 0, 1);
    *at(low, 3, 0) = chance(50) ? NAN : INFINITY;
    input_u8(job, 1, 1, UM_HEADER_BYTES);
}

static void random_packet(struct job *job)
{
    make_packet(job, pick(1, 40), pick(1, 90));
}

/* ---- blocks: their reference is the default body, composed of reference kernels ---- */

static struct um_view scratch(int h, int w, int c)
{
    struct um_view v = {.dtype = UM_F32, .h = h, .w = w, .c = c, .ld = c};
    v.data = need(calloc((size_t)h * (size_t)w * (size_t)c, sizeof(float)));
    return v;
}

static const struct um_view none;

static void mlp_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_mlp_args *a = &job->args.mlp;
    struct um_norm_args norm = {.eps = a->eps};
    struct um_conv_args fc1 = {.kh = 1, .kw = 1, .stride = 1, .act = a->act},
                        fc2 = {.kh = 1, .kw = 1, .stride = 1};
    struct um_view x = scratch(t[1].h, t[1].w, t[1].c), h = scratch(t[1].h, t[1].w, a->hidden);
    if (t[2].data)
        ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[2], t[3]}, 5);
    ref(um_ref_conv2d, &fc1, pool, (struct um_view[]){h, t[2].data ? x : t[1], t[4], t[5], none},
        5);
    ref(um_ref_conv2d, &fc2, pool,
        (struct um_view[]){t[0], h, t[6], t[7], a->residual ? t[1] : none}, 5);
    free(x.data);
    free(h.data);
}

static void make_mlp(struct job *job, int h, int w, int c, int hidden, int o, bool norm,
                     enum um_act act)
{
    job->op = UM_OP_MLP;
    job->reference = mlp_reference;
    job->tolerance = 3e-5; /* two sums of unit gain after a LayerNorm */
    job->macs = (double)h * w * hidden * (c + o);
    job->args.mlp =
        (struct um_mlp_args){.eps = 1e-5f, .hidden = hidden, .act = act, .residual = c == o};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] hidden %d -> %d%s%s", h, w, c, hidden, o,
             norm ? " norm" : "", act_names[act]);
    output(job, UM_F32, h, w, o, gap());
    input(job, h, w, c, gap(), 1);
    if (norm) {
        input(job, 1, 1, c, 0, 2);
        input(job, 1, 1, c, 0, 1);
    } else {
        absent(job);
        absent(job);
    }
    weights(job, hidden, 1, 1, c);
    input(job, 1, 1, hidden, 0, 0.5f);
    weights(job, o, 1, 1, hidden);
    input(job, 1, 1, o, 0, 0.5f);
}

static void random_mlp(struct job *job)
{
    int c = pick(2, 130), hidden = pick(1, 300);
    make_mlp(job, pick(1, 12), pick(1, 25), c, hidden, chance(70) ? c : pick(1, 130), chance(70),
             chance(70) ? UM_ACT_GELU : UM_ACT_RELU);
}

static void mbconv_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_mbconv_args *a = &job->args.mbconv;
    struct um_conv_args c1 = {.kh = 1, .kw = 1, .stride = 1, .act = UM_ACT_GELU},
                        c3 = {.kh = 1, .kw = 1, .stride = 1};
    struct um_conv_args dw = {
        .kh = 3, .kw = 3, .stride = a->stride, .pad_top = 1, .pad_left = 1, .act = UM_ACT_GELU};
    struct um_view x = scratch(t[1].h, t[1].w, a->hidden), y = scratch(t[0].h, t[0].w, a->hidden);
    c3.act = a->residual ? UM_ACT_GELU : UM_ACT_NONE;
    ref(um_ref_conv2d, &c1, pool, (struct um_view[]){x, t[1], t[2], t[3], none}, 5);
    ref(um_ref_dwconv, &dw, pool, (struct um_view[]){y, x, t[4], t[5], none}, 5);
    ref(um_ref_conv2d, &c3, pool,
        (struct um_view[]){t[0], y, t[6], t[7], a->residual ? t[1] : none}, 5);
    free(x.data);
    free(y.data);
}

static void make_mbconv(struct job *job, int h, int w, int c, int hidden, int o, int stride,
                        bool residual)
{
    int oh = (h - 1) / stride + 1, ow = (w - 1) / stride + 1;
    job->op = UM_OP_MBCONV;
    job->reference = mbconv_reference;
    job->tolerance = 3e-5;
    job->macs = (double)h * w * c * hidden + (double)oh * ow * hidden * (9 + o);
    job->args.mbconv =
        (struct um_mbconv_args){.hidden = hidden, .stride = stride, .residual = residual};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] hidden %d -> %d s%d%s", h, w, c, hidden, o,
             stride, residual ? " residual" : "");
    output(job, UM_F32, oh, ow, o, gap());
    input(job, h, w, c, gap(), 1);
    weights(job, hidden, 1, 1, c);
    input(job, 1, 1, hidden, 0, 0.5f);
    input(job, 1, 9, hidden, 0, 0.6f);
    input(job, 1, 1, hidden, 0, 0.5f);
    weights(job, o, 1, 1, hidden);
    input(job, 1, 1, o, 0, 0.5f);
}

static void random_mbconv(struct job *job)
{
    int c = pick(1, 70), stride = pick(1, 2);
    bool residual = stride == 1 && chance(50);
    make_mbconv(job, pick(1, 30), pick(1, 80), c, pick(1, 130), residual ? c : pick(1, 70), stride,
                residual);
}

static void block_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_window_block_args *a = &job->args.block;
    struct um_norm_args norm = {.eps = a->eps};
    struct um_window_args window = {.window = a->window, .heads = a->heads};
    struct um_conv_args fc = {.kh = 1, .kw = 1, .stride = 1};
    int h = t[1].h, w = t[1].w, c = t[1].c;
    struct um_view x = scratch(h, w, c), qkv = scratch(h, w, 3 * c);
    ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[2], t[3]}, 5);
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){qkv, x, t[4], t[5], none}, 5);
    ref(um_ref_window_attention, &window, pool, (struct um_view[]){x, qkv, t[6], t[7]}, 4);
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){t[0], x, t[8], t[9], t[1]}, 5);
    free(x.data);
    free(qkv.data);
}

static void make_block(struct job *job, int h, int w, int window, int heads, int d)
{
    int c = heads * d;
    double windows = (double)((h + window - 1) / window) * ((w + window - 1) / window);
    job->op = UM_OP_WINDOW_BLOCK;
    job->reference = block_reference;
    job->tolerance = 3e-5;
    job->macs = (double)h * w * c * c * 4 + 2 * windows * window * window * window * window * c;
    job->args.block = (struct um_window_block_args){.eps = 1e-5f, .window = window, .heads = heads};
    snprintf(job->what, sizeof job->what, "[%d,%d] window %d, %d heads of %d", h, w, window, heads,
             d);
    output(job, UM_F32, h, w, c, gap());
    input(job, h, w, c, gap(), 1);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
    weights(job, 3 * c, 1, 1, c);
    input(job, 1, 1, 3 * c, 0, 0.5f);
    input(job, 1, 1, 3 * c, 0, 2);
    input(job, 1, heads, window * window, 0, 2);
    weights(job, c, 1, 1, c);
    input(job, 1, 1, c, 0, 0.5f);
}

static void random_block(struct job *job)
{
    int window = chance(60) ? 7 : chance(40) ? 14 : pick(1, 9);
    make_block(job, pick(1, 30), pick(1, 30), window, pick(1, 3), chance(80) ? 32 : pick(2, 33));
}

static struct um_view bytes(int h, int w, int c)
{
    struct um_view v = {.dtype = UM_U8, .h = h, .w = w, .c = c, .ld = c};
    v.data = need(calloc((size_t)h * (size_t)w, (size_t)c));
    return v;
}

static void front_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_front_args *a = &job->args.front;
    for (int i = 0; i < 2; i++) {
        struct um_view x = t[2], y, *k = &t[3 + 3 * i]; /* table, taps across, taps down */
        for (int pass = 0; pass < 2 && t[i].data; pass++) {
            struct um_resize_args axis = {.vertical = (pass == 0) == a->vertical_first[i]};
            const struct um_view *taps = &k[axis.vertical ? 2 : 1];
            if (!taps->data)
                continue;
            y = axis.vertical ? bytes(a->new_h[i], x.w, x.c) : bytes(x.h, a->new_w[i], x.c);
            ref(um_ref_resize, &axis, pool, (struct um_view[]){y, x, *taps}, 3);
            if (x.data != t[2].data)
                free(x.data);
            x = y;
        }
        if (t[i].data)
            ref(um_ref_normalize, NULL, pool, (struct um_view[]){t[i], x, k[0]}, 3);
        if (x.data != t[2].data)
            free(x.data);
    }
}

/* Pillow's taps, some of them changed so that clipping is seen. */
static void axis_taps(struct job *job, int in, int out)
{
    int ld = 2 + um_resize_ksize(in, out);
    struct memory *m = &job->m[job->n++];
    if (in == out)
        return;
    *m = memory_new(UM_I32, 1, out, ld, 0);
    um_resize_taps(m->view.data, in, out);
    for (int32_t *k = m->view.data; out-- > 0; k += ld)
        if (chance(5))
            k[2] = chance(50) ? -k[2] : k[2] + k[2] / 4;
}

static void make_front(struct job *job, int h, int w, int c, int targets, const int *new_h,
                       const int *new_w, const bool *vertical_first)
{
    struct um_front_args *a = &job->args.front;
    job->op = UM_OP_FRONT;
    job->reference = front_reference;
    job->rounding = 1e-6; /* bytes are exact in between: only the output rounds */
    int n = snprintf(job->what, sizeof job->what, "[%d,%d,%d] ->", h, w, c), channels[2];
    for (int i = 0; i < 2; i++) {
        if (i >= targets) {
            absent(job);
            job->n_out++;
            continue;
        }
        int size_h = new_h[i] + (chance(50) ? 0 : pick(0, 20)),
            size_w = new_w[i] + (chance(50) ? 0 : pick(0, 90));
        a->new_h[i] = new_h[i];
        a->new_w[i] = new_w[i];
        a->vertical_first[i] = vertical_first[i];
        channels[i] = chance(70) ? 3 : 1;
        struct um_view *v = output(job, UM_F32, size_h, size_w, channels[i], chance(70) ? 0 : 1);
        n += snprintf(job->what + n, sizeof job->what - (size_t)n, " [%d,%d of %d,%d,%d]%s",
                      new_h[i], new_w[i], size_h, size_w, v->c, vertical_first[i] ? "v" : "");
        job->macs += (double)size_h * size_w * v->c;
    }
    input_u8(job, h, w, c);
    for (int i = 0; i < 2; i++) {
        if (i >= targets) {
            job->n += 3;
            continue;
        }
        input(job, 1, channels[i], 256, 0, 2);
        axis_taps(job, w, new_w[i]);
        axis_taps(job, h, new_h[i]);
    }
}

static void random_front(struct job *job)
{
    int h = pick(1, 90), w = pick(1, 90), new_h[2], new_w[2], kind = pick(0, 9);
    bool vertical_first[2];
    for (int i = 0; i < 2; i++) {
        new_h[i] = chance(20) ? h : pick(1, 90);
        new_w[i] = chance(20) ? w : pick(1, 150);
        vertical_first[i] =
            chance(80) ? um_resize_vertical_first(h, w, new_h[i], new_w[i]) : chance(50);
    }
    if (kind == 0) { /* shrinks much: small tiles */
        h = pick(300, 900);
        w = pick(300, 900);
        new_h[0] = pick(1, 12);
        new_w[0] = pick(1, 12);
    } else if (kind == 1) { /* so much that no tile has room */
        h = vertical_first[0] ? pick(1, 3) : pick(9000, 20000);
        w = vertical_first[0] ? pick(20000, 50000) : pick(1, 3);
        new_h[0] = pick(1, 3);
        new_w[0] = pick(1, 3);
    }
    make_front(job, h, w, chance(50) ? 1 : 3, kind > 1 && chance(60) ? 2 : 1, new_h, new_w,
               vertical_first);
}

static void absent_output(struct job *job)
{
    absent(job);
    job->n_out++;
}

/* Rows of floats that may be absent. */
static void maybe(struct job *job, bool there, int rows, int c, float scale)
{
    if (there)
        input(job, 1, rows, c, gap(), scale);
    else
        absent(job);
}

static void maybe_bias(struct job *job, bool there, int c)
{
    if (there)
        input(job, 1, 1, c, 0, 0.5f);
    else
        absent(job);
}

static void indices(struct job *job, int n, int rows)
{
    struct memory *m = &job->m[job->n++];
    *m = memory_new(UM_I32, 1, n, 1, gap());
    for (int i = 0; i < n; i++)
        ((int32_t *)m->view.data)[i * m->view.ld] = pick(0, rows - 1);
}

static void chain_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_chain_args *a = &job->args.chain;
    struct um_add_args plain = {.act = UM_ACT_NONE};
    struct um_refine_args refine = {.inverse = a->inverse};
    struct um_integral_args integral = {.reg_scale = a->reg_scale};
    int rows = t[0].h * t[0].w;
    struct um_view x = scratch(1, rows, t[3].c), base = t[13], y[3];
    for (int i = 0; i < a->layers; i++)
        y[i] = scratch(1, rows, a->width[i]);
    if (t[4].data) {
        ref(um_ref_gather, NULL, pool, (struct um_view[]){x, t[3], t[4]}, 3);
        if (a->finish == UM_FINISH_REFINE) {
            base = scratch(1, rows, t[13].c);
            ref(um_ref_gather, NULL, pool, (struct um_view[]){base, t[13], t[4]}, 3);
        }
    } else {
        for (int r = 0; r < rows; r++)
            memcpy(at(&x, r, 0), at(&t[3], r, 0), (size_t)x.c * sizeof(float));
    }
    for (int r = 0; r < rows && t[2].data; r++)
        memcpy(at(&t[2], r, 0), at(&x, r, 0), (size_t)x.c * sizeof(float));
    if (t[5].data)
        ref(um_ref_add, &plain, pool, (struct um_view[]){x, x, t[5]}, 3);
    for (int i = 0; i < a->layers; i++) {
        bool last = i == a->layers - 1;
        struct um_conv_args fc = {
            .kh = 1, .kw = 1, .stride = 1, .act = a->act[i], .limit = a->limit, .add_last = true};
        ref(um_ref_conv2d, &fc, pool,
            (struct um_view[]){last && a->finish != UM_FINISH_REFINE ? t[0] : y[i],
                               i ? y[i - 1] : x, t[6 + 2 * i], t[7 + 2 * i], last ? t[12] : none},
            5);
    }
    if (a->finish == UM_FINISH_REFINE)
        ref(um_ref_refine, &refine, pool, (struct um_view[]){t[0], y[a->layers - 1], base}, 3);
    if (a->finish == UM_FINISH_BOX)
        ref(um_ref_integral, &integral, pool, (struct um_view[]){t[1], t[0], base, t[14]}, 4);
    for (int i = 0; i < a->layers; i++)
        free(y[i].data);
    if (base.data != t[13].data)
        free(base.data);
    free(x.data);
}

static void make_chain(struct job *job, int rows, int source /* rows behind an index, or 0 */,
                       int c, int layers, const int *width, const enum um_act *act,
                       enum um_finish finish, bool plus, bool add, bool picked)
{
    struct um_chain_args *a = &job->args.chain;
    int o = width[layers - 1], from = source ? source : rows;
    job->op = UM_OP_CHAIN;
    job->reference = chain_reference;
    job->tolerance = 5e-5;  /* up to three sums of unit gain */
    job->rounding = layers; /* x + plus and every hidden row become halves: one step a layer */
    *a = (struct um_chain_args){
        .layers = layers, .limit = 0.5f, .finish = finish, .inverse = chance(50), .reg_scale = 4};
    for (int i = 0; i < layers; i++) {
        a->width[i] = width[i];
        a->act[i] = act[i];
        job->macs += (double)rows * width[i] * (i ? width[i - 1] : c);
    }
    snprintf(job->what, sizeof job->what, "%d of %d rows of %d -> %d%s %d%s %d%s finish %d%s%s%s%s",
             rows, source, c, width[0], act_names[act[0]], width[1], act_names[act[1]],
             layers > 2 ? width[2] : 0, layers > 2 ? act_names[act[2]] : "", (int)finish,
             a->inverse ? " inverse" : "", plus ? " plus" : "", add ? " add" : "",
             picked ? " picked" : "");
    output(job, UM_F32, 1, rows, o, gap());
    if (finish == UM_FINISH_BOX)
        output(job, UM_F32, 1, rows, 4, gap());
    else
        absent_output(job);
    if (picked)
        output(job, UM_F32, 1, rows, c, gap());
    else
        absent_output(job);
    struct um_view *x = input(job, 1, from, c, gap(), 1);
    if (chance(10)) /* stays in its row */
        *at(x, pick(0, from - 1), pick(0, c - 1)) = NAN;
    if (source)
        indices(job, rows, source);
    else
        absent(job);
    maybe(job, plus, rows, c, 1);
    for (int i = 0; i < 3; i++) {
        if (i < layers)
            weights(job, width[i], 1, 1, i ? width[i - 1] : c);
        else
            absent(job);
        maybe_bias(job, i < layers && chance(90), i < layers ? width[i] : 0);
    }
    maybe(job, add, rows, o, 1);
    if (finish == UM_FINISH_NONE) {
        absent(job);
        absent(job);
        return;
    }
    struct um_view *base = finish == UM_FINISH_BOX ? input(job, 1, rows, 4, gap(), 1)
                                                   : input(job, 1, from, o, gap(), 1.1f);
    if (finish == UM_FINISH_REFINE)
        *at(base, pick(0, from - 1), pick(0, o - 1)) = INFINITY;
    if (finish == UM_FINISH_BOX)
        input(job, 1, o / 4, 1, 0, 2);
    else
        absent(job);
}

static void random_chain(struct job *job)
{
    static const int known[] = {4, 20, 64, 128, 256};
    int layers = pick(2, 3), width[3];
    enum um_act act[3];
    enum um_finish finish = (enum um_finish)pick(0, 2);
    for (int i = 0; i < 3; i++) {
        width[i] = chance(10) ? pick(300, 512) : chance(30) ? known[pick(0, 4)] : pick(4, 200);
        act[i] = (enum um_act)pick(0, 5);
    }
    if (finish == UM_FINISH_REFINE)
        width[layers - 1] = chance(80) ? 4 : pick(1, 40);
    if (finish == UM_FINISH_BOX)
        width[layers - 1] = 4 * (chance(70) ? 33 : pick(4, 70));
    if (finish != UM_FINISH_NONE)
        act[layers - 1] = UM_ACT_NONE;
    make_chain(job, pick(1, 70), chance(40) ? pick(1, 90) : 0,
               chance(40) ? known[pick(0, 4)] : pick(1, 300), layers, width, act, finish,
               chance(40), chance(50), chance(40));
}

/* Rows through a linear layer and all that may stand around it, as primitives. */
static void linear_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_linear_args *a = &job->args.linear;
    struct um_norm_args norm = {.eps = a->eps_in};
    struct um_add_args plain = {.act = UM_ACT_NONE};
    int rows = t[1].h * t[1].w, n = a->up ? 4 * t[0].c : t[0].c;
    struct um_view x = t[1], placed, y = scratch(1, rows, n), wide = none;
    x = scratch(1, rows, t[1].c);
    if (t[8].data)
        ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){x, t[1], none, t[8], t[9]}, 5);
    else
        for (int r = 0; r < rows; r++)
            memcpy(at(&x, r, 0), at(&t[1], r, 0), (size_t)x.c * sizeof(float));
    placed = x;
    if (t[5].data) {
        placed = scratch(1, rows, x.c);
        ref(um_ref_add, &plain, pool, (struct um_view[]){placed, x, t[5]}, 3);
    }
    if (t[4].data) { /* one channel is broadcast */
        wide = scratch(1, rows, n);
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < n; k++)
                *at(&wide, r, k) = *at(&t[4], r, t[4].c > 1 ? k : 0);
    }
    for (int part = 0; part < (t[6].data ? 2 : 1); part++) {
        struct um_conv_args fc = {.kh = 1,
                                  .kw = 1,
                                  .stride = 1,
                                  .act = a->act,
                                  .limit = a->limit,
                                  .add_last = a->add_last};
        struct um_view out = y, add = wide;
        out.c = part ? n - a->n : a->n;
        out.data = at(&y, 0, part ? a->n : 0);
        if (add.data) {
            add.c = out.c;
            add.data = at(&wide, 0, part ? a->n : 0);
        }
        ref(um_ref_conv2d, &fc, pool,
            (struct um_view[]){out, part ? x : placed, t[part ? 6 : 2], t[part ? 7 : 3], add}, 5);
    }
    norm = (struct um_norm_args){.eps = a->eps_out, .act = a->out_act};
    for (int g = 0; t[10].data && g < n / a->group; g++) {
        struct um_view part = y;
        part.c = a->group;
        part.data = at(&y, 0, g * a->group);
        ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){part, part, none, t[10], t[11]}, 5);
    }
    int c = t[0].c, w = t[1].w;
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < n; k++) {
            int ab = k / c, up = (2 * (r / w) + ab / 2) * t[0].w + 2 * (r % w) + ab % 2;
            *at(&t[0], a->up ? up : r, a->up ? k % c : k) = *at(&y, r, k);
        }
    if (placed.data != x.data)
        free(placed.data);
    free(wide.data);
    free(x.data);
    free(y.data);
}

struct linear_kind {
    bool norm_in, norm_out, plus, second, up, broadcast;
    int add; /* 0 none, 1 before, 2 after the activation */
};

static void make_linear(struct job *job, int h, int w, int k, int n, int n2, int group,
                        struct linear_kind kind, enum um_act act)
{
    struct um_linear_args *a = &job->args.linear;
    int all = n + n2, rows = h * w;
    job->op = UM_OP_LINEAR;
    job->reference = linear_reference;
    job->tolerance = 3e-5;
    /* the input becomes halves after its norm and addend; a norm of the output magnifies that where
     * the sums of a row hardly differ */
    job->rounding = kind.norm_out ? 8 : 3;
    job->macs = (double)rows * k * all;
    *a = (struct um_linear_args){.n = n,
                                 .act = act,
                                 .out_act = kind.up ? UM_ACT_GELU : UM_ACT_NONE,
                                 .limit = 0.5f,
                                 .add_last = kind.add == 2,
                                 .up = kind.up,
                                 .eps_in = 1e-5f,
                                 .eps_out = 1e-5f,
                                 .group = kind.norm_out ? group : 0};
    snprintf(job->what, sizeof job->what, "[%d,%d,%d] -> %d + %d%s%s%s%s%s add %d%s", h, w, k, n,
             n2, act_names[act], kind.norm_in ? " norm" : "", kind.plus ? " plus" : "",
             kind.norm_out ? " then norm" : "", kind.up ? " up" : "", kind.add,
             kind.broadcast ? " broadcast" : "");
    if (kind.up)
        output(job, UM_F32, 2 * h, 2 * w, all / 4, gap());
    else
        output(job, UM_F32, h, w, all, gap());
    input(job, h, w, k, gap(), 1);
    weights(job, n, 1, 1, k);
    maybe_bias(job, chance(80), n);
    maybe(job, kind.add > 0, rows, kind.broadcast ? 1 : all, 1);
    maybe(job, kind.plus, rows, k, 1);
    if (kind.second)
        weights(job, n2, 1, 1, k);
    else
        absent(job);
    maybe_bias(job, kind.second && chance(80), n2);
    for (int i = 0; i < 2; i++)
        maybe_bias(job, kind.norm_in, k);
    for (int i = 0; i < 2; i++)
        maybe_bias(job, kind.norm_out, group);
}

static void random_linear(struct job *job)
{
    struct linear_kind kind = {.norm_in = chance(40), .plus = chance(40), .add = pick(0, 2)};
    int h = pick(1, 8), w = pick(1, 20), k = chance(70) ? 8 * pick(1, 40) : pick(3, 200);
    int n = chance(70) ? 8 * pick(1, 40) : pick(1, 200), n2 = 0;
    if (chance(15)) /* enough rows for the large tiles */
        w = pick(400, 600);
    kind.norm_out = chance(40);
    kind.up = kind.norm_out && chance(40);
    kind.second = !kind.norm_out && chance(40);
    if (kind.second)
        n2 = chance(70) ? 8 * pick(1, 20) : pick(1, 90);
    int group = n;
    if (kind.up) {
        group = chance(70) ? 8 * pick(1, 16) : pick(3, 60);
        n = 4 * group;
        kind.plus = kind.norm_in = false;
        kind.add = 0;
    } else if (kind.norm_out)
        group = n < 8 ? 0 : n;
    if (kind.norm_out && group < 3) /* a norm of one or two numbers is a sign */
        group = n = 16;
    kind.broadcast = kind.add && n + n2 > 1 && chance(30);
    make_linear(job, h, w, k, n, n2, group, kind, kind.up ? UM_ACT_NONE : (enum um_act)pick(0, 5));
}

static void gate_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    struct um_conv_args fc = {.kh = 1, .kw = 1, .stride = 1};
    int rows = t[0].w, c = t[0].c;
    struct um_view g = scratch(1, rows, 2 * c);
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){g, t[1], t[3], t[4], none}, 5);
    fc.act = UM_ACT_SIGMOID;
    ref(um_ref_conv2d, &fc, pool, (struct um_view[]){g, t[2], t[5], none, g}, 5);
    ref(um_ref_gate_norm, &job->args, pool, (struct um_view[]){t[0], g, t[1], t[2], t[6], t[7]}, 6);
    free(g.data);
}

static void random_gate(struct job *job)
{
    int rows = pick(1, 70), c = chance(60) ? 8 * pick(2, 32) : pick(16, 256);
    job->op = UM_OP_GATE;
    job->reference = gate_reference;
    job->tolerance = 3e-5;
    job->rounding = 6; /* both inputs of the product become halves, and the norm magnifies */
    job->args.norm = (struct um_norm_args){.eps = 1e-5f};
    snprintf(job->what, sizeof job->what, "%d rows of %d", rows, c);
    output(job, UM_F32, 1, rows, c, gap());
    input(job, 1, rows, c, gap(), 1);
    input(job, 1, rows, c, gap(), 1);
    weights(job, 2 * c, 1, 1, c);
    maybe_bias(job, true, 2 * c);
    weights(job, 2 * c, 1, 1, c);
    maybe_bias(job, true, c);
    maybe_bias(job, true, c);
}

static void tokens_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    const struct um_tokens_args *a = &job->args.tokens;
    struct um_conv_args fc = {.kh = 1, .kw = 1, .stride = 1};
    struct um_attention_args attention = {.heads = a->heads, .scale = a->scale};
    struct um_norm_args norm = {.eps = a->eps};
    struct um_add_args plain = {.act = UM_ACT_NONE};
    int n = t[1].w, c = t[1].c, first = t[5].data ? 2 * c : 3 * c;
    struct um_view x = scratch(1, n, c), qkv = scratch(1, n, 3 * c), part[4];
    for (int i = 0; i < 4; i++) { /* q, k, v, and what the first layer writes */
        part[i] = qkv;
        part[i].c = i < 3 ? c : first;
        part[i].data = at(&qkv, 0, i < 3 ? i * c : 0);
    }
    if (t[2].data)
        ref(um_ref_add, &plain, pool, (struct um_view[]){x, t[1], t[2]}, 3);
    ref(um_ref_conv2d, &fc, pool,
        (struct um_view[]){part[3], t[2].data ? x : t[1], t[3], t[4], none}, 5);
    if (t[5].data)
        ref(um_ref_conv2d, &fc, pool, (struct um_view[]){part[2], t[1], t[5], t[6], none}, 5);
    ref(um_ref_attention, &attention, pool, (struct um_view[]){x, part[0], part[1], part[2]}, 4);
    ref(um_ref_conv2d, &fc, pool,
        (struct um_view[]){part[0], x, t[7], t[8], a->residual ? t[1] : none}, 5);
    ref(um_ref_layer_norm, &norm, pool, (struct um_view[]){t[0], part[0], none, t[9], t[10]}, 5);
    free(x.data);
    free(qkv.data);
}

static void make_tokens(struct job *job, int n, int heads, int d, bool v, bool plus, bool residual)
{
    int c = heads * d;
    job->op = UM_OP_TOKENS;
    job->reference = tokens_reference;
    job->tolerance = 5e-5;
    /* x, q and k, v and the attention's output become halves; a norm of their mean alone, which is
     * small against x, magnifies that */
    job->rounding = residual ? 3 : 5;
    job->macs = 4.0 * n * c * c + 2.0 * n * n * c;
    job->args.tokens = (struct um_tokens_args){
        .heads = heads, .scale = 1 / sqrtf((float)d), .eps = 1e-5f, .residual = residual};
    snprintf(job->what, sizeof job->what, "%d tokens, %d heads of %d%s%s%s", n, heads, d,
             v ? " v apart" : "", plus ? " plus" : "", residual ? " residual" : "");
    output(job, UM_F32, 1, n, c, gap());
    input(job, 1, n, c, gap(), 1);
    maybe(job, plus, n, c, 1);
    weights(job, v ? 2 * c : 3 * c, 1, 1, c);
    maybe_bias(job, chance(90), v ? 2 * c : 3 * c);
    if (v)
        weights(job, c, 1, 1, c);
    else
        absent(job);
    maybe_bias(job, v && chance(90), c);
    weights(job, c, 1, 1, c);
    maybe_bias(job, chance(90), c);
    input(job, 1, 1, c, 0, 2);
    input(job, 1, 1, c, 0, 1);
}

static void random_tokens(struct job *job)
{
    static const int width[] = {32, 64, 256};
    int heads = 1 << pick(0, 3), d = width[pick(0, 2)] / heads;
    if (chance(20)) {
        heads = pick(1, 7);
        d = pick(2, 30);
    }
    bool v = chance(60);
    make_tokens(job, chance(60) ? pick(1, 12) : pick(1, 32), heads, d, v, v && chance(70),
                chance(60));
}

static void mask_packet_reference(const struct job *job, um_pool *pool, struct um_view *t)
{
    int h = t[4].w, w = t[3].w;
    struct um_view mask = bytes(h, w, 1), weights = bytes(3 * h, w, 1),
                   record = bytes(1, 1, UM_RECORD_BYTES);
    (void)job;
    ref(um_ref_mask, NULL, pool, (struct um_view[]){mask, none, t[2], t[3], t[4], t[5]}, 6);
    ref(um_ref_mask_stats, NULL, pool, (struct um_view[]){weights, record, mask}, 3);
    ref(um_ref_packet, NULL, pool, (struct um_view[]){t[0], record, mask, t[5], t[6], t[2], t[7]},
        7);
    free(mask.data);
    free(weights.data);
    free(record.data);
}

static void make_mask_packet(struct job *job, int n4, int used_h, int used_w, int h, int w,
                             float bias)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    job->op = UM_OP_MASK_PACKET;
    job->reference = mask_packet_reference;
    job->macs = 12.0 * h * w;
    output(job, UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), 0);
    memset(output(job, UM_U8, 1, 1, UM_MASK_WORK_BYTES, 0)->data, 0, UM_MASK_WORK_BYTES);
    job->preset = 1u << 1;
    struct um_view *low = input(job, n4, n4, 1, chance(50) ? 0 : 3, 2);
    for (int i = 0; i < n4 * n4; i++)
        *at(low, i, 0) = chance(1) ? odd[pick(0, 2)] : chance(30) ? 0 : *at(low, i, 0) + bias;
    um_mask_taps(input(job, 1, w, 4, 0, 1)->data, n4, 4 * n4, used_w, w);
    um_mask_taps(input(job, 1, h, 4, 0, 1)->data, n4, 4 * n4, used_h, h);
    uint32_t flags = chance(80) ? UM_GATE_OK : chance(50) ? UM_GATE_BELOW_TAU : 0;
    bool gate = chance(80);
    if (gate)
        memcpy(input_u8(job, 1, 1, UM_GATE_BYTES)->data, &flags, sizeof flags);
    else
        absent(job);
    if (chance(80))
        input(job, 1, 1, 4, 0, 1);
    else
        absent(job);
    input_u8(job, 1, 1, UM_HEADER_BYTES);
    snprintf(job->what, sizeof job->what, "%d -> [%d,%d] bias %g%s%s", n4, h, w, (double)bias,
             gate ? " gate" : "", gate && flags != UM_GATE_OK ? " lost" : "");
}

static void random_mask_packet(struct job *job)
{
    static const float bias[] = {-5, -1.5f, 0, 0, 1.5f, 5};
    int n4 = chance(80) ? pick(3, 20) : pick(30, 60), h = chance(20) ? pick(1, 5) : pick(1, 60),
        w = chance(20) ? 32 * pick(1, 4) : pick(1, 100);
    if (chance(10))
        w = pick(500, 1500);
    if (chance(4)) { /* fewer rows per block fit into shared memory */
        h = pick(1, 6);
        w = pick(32000, 70000);
    }
    make_mask_packet(job, n4, pick(1, 4 * n4), pick(1, 4 * n4), h, w, bias[pick(0, 5)]);
}

/* ---- check ---- */

static const struct generator {
    enum um_op op;
    void (*random)(struct job *job);
    int cases;
    unsigned halves; /* operands that are activations, one bit each */
} generators[] = {
    {UM_OP_CONV2D, random_conv, 120, 0x13},
    {UM_OP_DWCONV, random_dwconv, 60, 0x13},
    {UM_OP_UPCONV2, random_upconv2, 30, 0x3},
    {UM_OP_LAYER_NORM, random_layer_norm, 60, 0x7},
    {UM_OP_ADD, random_add, 40, 0x7},
    {UM_OP_MAXPOOL2, random_maxpool2, 30, 0x3},
    {UM_OP_ATTENTION, random_attention, 60, 0xf},
    {UM_OP_WINDOW_ATTENTION, random_window, 40, 0x3},
    {UM_OP_MATMUL_NT, random_matmul_nt, 30, 0x6},
    {UM_OP_RESIZE, random_resize, 60, 0x0},
    {UM_OP_NORMALIZE, random_normalize, 40, 0x1},
    {UM_OP_SCALE_ROWS, random_scale_rows, 20, 0x3},
    {UM_OP_GATHER, random_gather, 20, 0x3},
    {UM_OP_GATE_NORM, random_gate_norm, 30, 0xf},
    {UM_OP_TOPK, random_topk, 60, 0x0},
    {UM_OP_DEFORM, random_deform, 40, 0x9},
    {UM_OP_REFINE, random_refine, 20, 0x0},
    {UM_OP_INTEGRAL, random_integral, 30, 0x0},
    {UM_OP_LQE_STATS, random_lqe_stats, 30, 0x0},
    {UM_OP_BEST_BOX, random_best_box, 80, 0xc},
    {UM_OP_MASK, random_mask, 40, 0x0},
    {UM_OP_MASK_STATS, random_mask_stats, 40, 0x0},
    {UM_OP_PACKET, random_packet, 30, 0x10},
    {UM_OP_MLP, random_mlp, 40, 0x3},
    {UM_OP_MBCONV, random_mbconv, 40, 0x3},
    {UM_OP_WINDOW_BLOCK, random_block, 20, 0x3},
    {UM_OP_LINEAR, random_linear, 240, 0x33},
    {UM_OP_GATE, random_gate, 60, 0x7},
    {UM_OP_CHAIN, random_chain, 160, 0x102d}, /* out, picked, x, plus, add */
    {UM_OP_TOKENS, random_tokens, 160, 0x7},
    {UM_OP_PROMPT, random_prompt, 60, 0x1},
    {UM_OP_FRONT, random_front, 200, 0x3},
    {UM_OP_MASK_PACKET, random_mask_packet, 120, 0x40}, /* iou */
};
enum { GENERATORS = sizeof generators / sizeof *generators };

static const struct um_ops *levels[16];

/* With --device the levels are the GPU's, of one precision or of all. */
static const char *wanted_precision;

static bool wanted(enum um_dtype act)
{
    return !wanted_precision || strcmp(wanted_precision, um_precision_name(act)) == 0;
}

/* Run by the host, thread by thread, a GPU's kernels take long. */
static int cases_of(const struct generator *g, bool on_host)
{
    return gpu && !getenv("ULTRAMOTION_CUDA_DRIVER") ? g->cases
           : on_host                                 ? 8 + g->cases / 4
                                                     : g->cases;
}

static const struct um_ops *find_levels(void) /* returns the reference */
{
    static const enum um_dtype precisions[] = {UM_F32, UM_F16, UM_BF16};
    int n = 0;
    const struct um_ops *last = NULL;
    for (const struct um_ops *const *l = um_ops_host(); *l; l++) {
        levels[n++] = *l;
        last = *l;
    }
    n = gpu ? 0 : n - 1;
#if defined(__x86_64__)
    if (n > 0) /* it needs AVX2, as every level above plain C */
        levels[n++] = &um_ops_emu512;
#endif
    for (int p = 0; p < 3; p++)
        for (int plain = 1; plain >= 0; plain--)
            if ((p > 0 || plain) && wanted(precisions[p]))
                levels[n++] = um_cuda_ops(precisions[p], plain);
    levels[n] = NULL;
    return last;
}

static bool takes_part(const struct um_ops *level, const struct um_ops *base, enum um_op op)
{
    return level->kernel[op] && level->kernel[op] != base->kernel[op];
}

/* One random call against every level whose activations are of type `act`. */
static bool check_case(const struct generator *g, int k, enum um_dtype act,
                       const struct um_ops *base, uint64_t seed, um_pool *const *pools)
{
    struct job job = {.tolerance = 0};
    struct um_view want[UM_OPERANDS];
    struct memory out[UM_OPERANDS] = {{{0}, NULL, 0}};
    bool ok = true;
    rng_state = seed + (uint64_t)g->op * 1000003u + (uint64_t)k * 7919u;
    g->random(&job);
    job.halves = g->halves;
    round_operands(&job, act);
    views(&job, base, want, out);
    if (job.reference)
        job.reference(&job, pools[1], want);
    else
        run(&job, base, pools[1], want);
    for (int l = 0; levels[l] && ok; l++)
        if (levels[l]->act == act && takes_part(levels[l], base, g->op) &&
            k < cases_of(g, levels[l]->launches))
            ok = check_level(&job, levels[l], want, pools);
    if (!ok)
        printf("  case %d of --seed %llu %s\n", k, (unsigned long long)seed, um_op_name(g->op));
    views_free(&job, want, out);
    job_free(&job);
    return ok;
}

static bool check_op(const struct generator *g, const struct um_ops *base, uint64_t seed,
                     um_pool *const *pools)
{
    bool any = false, ok = true;
    for (int l = 0; levels[l]; l++)
        any = any || takes_part(levels[l], base, g->op);
    for (int k = 0; any && k < g->cases && ok; k++)
        ok = check_case(g, k, UM_F32, base, seed, pools);
    for (int k = 0; any && k < cases_of(g, true) && ok; k++)
        ok = check_case(g, k, UM_F16, base, seed, pools) &&
             check_case(g, k, UM_BF16, base, seed, pools);
    return ok;
}

static int open_gpu(const char *name)
{
    um_device_settings s;
    int n = 0;
    const char *const *kernels = um_cuda_kernels(&n);
    um_device_settings_default(&s);
    s.name = name;
    if (um_device_open(&gpu, &s) != UM_OK || um_load_kernels(gpu, kernels, n) != UM_OK) {
        fprintf(stderr, "checkop: %s\n", um_last_error());
        return 2;
    }
    return 0;
}

static int check(const char *only, uint64_t seed)
{
    const struct um_ops *base = find_levels();
    um_pool *pools[3] = {NULL};
    int checked = 0;
    for (int i = 0; i < 3; i++)
        if (um_pool_open(&pools[i], i + 1) != UM_OK) {
            fprintf(stderr, "checkop: %s\n", um_last_error());
            return 2;
        }
    printf("levels:");
    for (int l = 0; levels[l]; l++)
        printf(" %s", levels[l]->name);
    printf(", against %s, seed %llu\n", base->name, (unsigned long long)seed);
    for (int i = 0; i < GENERATORS; i++) {
        if (only && strcmp(only, um_op_name(generators[i].op)) != 0)
            continue;
        checked++;
        if (!check_op(&generators[i], base, seed, pools))
            failures++;
    }
    for (int i = 0; i < 3; i++)
        um_pool_close(&pools[i]);
    printf("%d ops checked, %d failed\n", checked, failures);
    return failures || !checked ? 1 : 0;
}

/* ---- bench ---- */

static const struct bench {
    const char *net;
    enum um_op op;
    int count; /* per frame */
    int p[7];  /* shape, as the maker of the op takes it */
    int act;
} benches[] = {
    {"sam", UM_OP_NORMALIZE, 1, {768, 1024, 1, 1024, 1024, 3}, 0},
    {"sam", UM_OP_RESIZE, 1, {960, 1280, 1, 1024, 0}, 0},
    {"sam", UM_OP_RESIZE, 1, {960, 1024, 1, 768, 1}, 0},
    {"sam", UM_OP_CONV2D, 1, {1024, 1024, 3, 32, 3, 2, 1}, UM_ACT_GELU},
    {"sam", UM_OP_CONV2D, 1, {512, 512, 32, 64, 3, 2, 1}, UM_ACT_NONE},
    {"sam", UM_OP_MBCONV, 2, {256, 256, 64, 256, 64, 1, 1}, 0},
    {"sam", UM_OP_MBCONV, 1, {256, 256, 64, 128, 128, 2, 0}, 0},
    {"sam", UM_OP_WINDOW_BLOCK, 2, {128, 128, 7, 4, 32}, 0},
    {"sam", UM_OP_LAYER_NORM, 2, {128, 128, 128}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 16384, 128, 384, 1, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_ATTENTION, 2, {128, 128, 7, 4, 32}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 16384, 128, 128, 1, 1, 0}, 0},
    {"sam", UM_OP_DWCONV, 2, {128, 128, 128, 3, 1}, 0},
    {"sam", UM_OP_MLP, 2, {128, 128, 128, 512, 128}, UM_ACT_GELU},
    {"sam", UM_OP_MBCONV, 1, {128, 128, 128, 160, 160, 2, 0}, 0},
    {"sam", UM_OP_WINDOW_BLOCK, 6, {64, 64, 14, 5, 32}, 0},
    {"sam", UM_OP_LAYER_NORM, 6, {64, 64, 160}, 0},
    {"sam", UM_OP_CONV2D, 6, {1, 4096, 160, 480, 1, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_ATTENTION, 6, {64, 64, 14, 5, 32}, 0},
    {"sam", UM_OP_CONV2D, 6, {1, 4096, 160, 160, 1, 1, 0}, 0},
    {"sam", UM_OP_DWCONV, 6, {64, 64, 160, 3, 1}, 0},
    {"sam", UM_OP_MLP, 6, {64, 64, 160, 640, 160}, UM_ACT_GELU},
    {"sam", UM_OP_MBCONV, 1, {64, 64, 160, 320, 320, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_BLOCK, 2, {64, 64, 7, 10, 32}, 0},
    {"sam", UM_OP_LAYER_NORM, 2, {64, 64, 320}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 4096, 320, 960, 1, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_ATTENTION, 2, {64, 64, 7, 10, 32}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 4096, 320, 320, 1, 1, 0}, 0},
    {"sam", UM_OP_DWCONV, 2, {64, 64, 320, 3, 1}, 0},
    {"sam", UM_OP_MLP, 2, {64, 64, 320, 1280, 320}, UM_ACT_GELU},
    {"sam", UM_OP_CONV2D, 1, {64, 64, 320, 256, 1, 1, 0}, 0},
    {"sam", UM_OP_CONV2D, 1, {64, 64, 256, 256, 3, 1, 1}, 0},
    {"sam", UM_OP_LAYER_NORM, 2, {64, 64, 256}, 0},
    {"sam decoder", UM_OP_ATTENTION, 2, {7, 7, 8, 32}, 0},
    {"sam decoder", UM_OP_ATTENTION, 3, {7, 4096, 8, 16}, 0},
    {"sam decoder", UM_OP_ATTENTION, 2, {4096, 7, 8, 16}, 0},
    {"sam decoder", UM_OP_CONV2D, 6, {1, 4096, 256, 128, 1, 1, 0}, 0},
    {"sam decoder", UM_OP_CONV2D, 2, {1, 4096, 128, 256, 1, 1, 0}, 0},
    {"sam decoder", UM_OP_CONV2D, 2, {1, 7, 256, 2048, 1, 1, 0}, UM_ACT_RELU},
    {"sam decoder", UM_OP_ADD, 5, {64, 64, 256, 0}, 0},
    {"sam decoder", UM_OP_LAYER_NORM, 2, {64, 64, 256}, 0},
    {"sam decoder", UM_OP_UPCONV2, 1, {64, 64, 256, 64}, 0},
    {"sam decoder", UM_OP_LAYER_NORM, 1, {128, 128, 64}, UM_ACT_GELU},
    {"sam decoder", UM_OP_UPCONV2, 1, {128, 128, 64, 32}, UM_ACT_GELU},
    {"sam decoder", UM_OP_MATMUL_NT, 1, {65536, 1, 32}, 0},
    {"sam decoder", UM_OP_MASK, 1, {256, 768, 1024, 960, 1280}, 0},
    {"sam decoder", UM_OP_MASK_STATS, 1, {960, 1280, 2}, 0},
    {"sam decoder", UM_OP_PACKET, 1, {960, 1280}, 0},
    {"dfine-n", UM_OP_NORMALIZE, 1, {640, 640, 1, 640, 640, 3}, 0},
    {"dfine-n", UM_OP_CONV2D, 1, {640, 640, 3, 16, 3, 2, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {320, 320, 16, 8, 2, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {320, 320, 8, 16, 2, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_MAXPOOL2, 1, {320, 320, 16}, 0},
    {"dfine-n", UM_OP_CONV2D, 1, {320, 320, 32, 16, 3, 2, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {160, 160, 16, 16, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 3, {160, 160, 16, 16, 3, 1, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {160, 160, 64, 32, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {160, 160, 32, 64, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 2, {80, 80, 32, 32, 3, 1, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {80, 80, 160, 128, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {80, 80, 128, 256, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_DWCONV, 6, {40, 40, 64, 5, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 2, {40, 40, 448, 256, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 2, {20, 20, 896, 512, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_ATTENTION, 1, {400, 400, 8, 16}, 0},
    {"dfine-n", UM_OP_ATTENTION, 3, {300, 300, 8, 16}, 0},
    {"dfine-n", UM_OP_CONV2D, 12, {1, 300, 128, 128, 1, 1, 0}, 0},
    {"dfine-n", UM_OP_CONV2D, 3, {1, 300, 128, 512, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_LAYER_NORM, 6, {1, 300, 128}, 0},
    {"dfine-n", UM_OP_GATE_NORM, 3, {300, 128}, 0},
    {"dfine-n", UM_OP_TOPK, 1, {2000, 80, 300}, 0},
    {"dfine-n", UM_OP_DEFORM, 3, {300, 8, 16, 2}, 0},
    {"dfine-n", UM_OP_INTEGRAL, 3, {300, 33}, 0},
    {"dfine-n", UM_OP_LQE_STATS, 1, {300, 33}, 0},
    {"dfine-n", UM_OP_REFINE, 3, {300, 4, 1}, 0},
    {"dfine-s", UM_OP_ATTENTION, 1, {400, 400, 8, 32}, 0},
    {"dfine-s", UM_OP_ATTENTION, 3, {300, 300, 8, 32}, 0},
    {"dfine-s", UM_OP_TOPK, 1, {8400, 80, 300}, 0},
    {"dfine-s", UM_OP_DEFORM, 3, {300, 8, 32, 3}, 0},
    {"dfine-s", UM_OP_CONV2D, 6, {1, 8400, 256, 256, 1, 1, 0}, 0},
    {"dfine-s", UM_OP_CONV2D, 4, {80, 80, 64, 64, 3, 1, 1}, UM_ACT_SILU},
    {"act", UM_OP_ADD, 1, {64, 64, 64, 1}, UM_ACT_GELU},
    {"act", UM_OP_ADD, 1, {64, 64, 64, 1}, UM_ACT_SILU},
    {"act", UM_OP_ADD, 1, {64, 64, 64, 1}, UM_ACT_RELU},
};

static void make(struct job *job, const struct bench *b)
{
    static const int sizes[] = {80, 40, 20}, points[] = {3, 6, 3};
    const int *p = b->p;
    enum um_act act = (enum um_act)b->act;
    switch (b->op) {
    case UM_OP_NORMALIZE: make_normalize(job, p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case UM_OP_RESIZE: make_resize(job, p[0], p[1], p[2], p[3], p[4]); break;
    case UM_OP_CONV2D:
        make_conv(job, p[0], p[1], p[2], p[3], p[4], p[5], p[6], act, 0, false, true);
        break;
    case UM_OP_DWCONV: make_dwconv(job, p[0], p[1], p[2], p[3], p[4], act, 0); break;
    case UM_OP_UPCONV2: make_upconv2(job, p[0], p[1], p[2], p[3], act); break;
    case UM_OP_MBCONV: make_mbconv(job, p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case UM_OP_WINDOW_BLOCK: make_block(job, p[0], p[1], p[2], p[3], p[4]); break;
    case UM_OP_WINDOW_ATTENTION: make_window(job, p[0], p[1], p[2], p[3], p[4]); break;
    case UM_OP_MLP: make_mlp(job, p[0], p[1], p[2], p[3], p[4], true, act); break;
    case UM_OP_LAYER_NORM: make_layer_norm(job, p[0], p[1], p[2], false, act, 0); break;
    case UM_OP_GATE_NORM: make_gate_norm(job, p[0], p[1]); break;
    case UM_OP_ADD: make_add(job, p[0], p[1], p[2], p[3], act, 0); break;
    case UM_OP_MAXPOOL2: make_maxpool2(job, p[0], p[1], p[2]); break;
    case UM_OP_ATTENTION: make_attention(job, p[0], p[1], p[2], p[3], 1); break;
    case UM_OP_MATMUL_NT: make_matmul_nt(job, p[0], p[1], p[2]); break;
    case UM_OP_TOPK: make_topk(job, p[0], p[1], p[2]); break;
    case UM_OP_DEFORM:
        make_deform(job, p[0], p[1], p[2], p[3], sizes + 3 - p[3],
                    p[3] == 2 ? (const int[]){6, 6} : points);
        break;
    case UM_OP_INTEGRAL: make_integral(job, p[0], p[1]); break;
    case UM_OP_LQE_STATS: make_lqe_stats(job, p[0], p[1]); break;
    case UM_OP_REFINE: make_refine(job, p[0], p[1], p[2]); break;
    case UM_OP_MASK: make_mask(job, p[0], p[1], p[2], p[3], p[4], false); break;
    case UM_OP_MASK_STATS: make_mask_stats(job, p[0], p[1], p[2]); break;
    case UM_OP_PACKET: make_packet(job, p[0], p[1]); break;
    default: break;
    }
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* On one thread processor time, which other work on the machine hardly changes; else the time that
 * passes. */
static uint64_t now_ns(const um_pool *pool)
{
    struct timespec t;
    if (um_pool_threads(pool) > 1 || clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0)
        return um_clock_ns();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Quickest and median ms of some 60 ms of runs. */
static void measure(const struct job *job, const struct um_ops *ops, um_pool *pool, double *best,
                    double *median)
{
    enum { RUNS = 400 };
    static uint64_t t[RUNS];
    struct um_view v[UM_OPERANDS];
    struct memory out[UM_OPERANDS] = {{{0}, NULL, 0}};
    int n = 0;
    uint64_t spent = 0;
    views(job, ops, v, out);
    run(job, ops, pool, v);
    while (n < 3 || (n < RUNS && spent < 60000000u)) {
        uint64_t start = now_ns(pool);
        run(job, ops, pool, v);
        t[n] = now_ns(pool) - start;
        spent += t[n++];
    }
    qsort(t, (size_t)n, sizeof *t, by_time);
    *best = (double)t[0] * 1e-6;
    *median = (double)t[n / 2] * 1e-6;
    views_free(job, v, out);
}

static int bench(const char *only, int threads)
{
    const struct um_ops *base = find_levels();
    um_pool *pool = NULL;
    if (um_pool_open(&pool, threads) != UM_OK) {
        fprintf(stderr, "checkop: %s\n", um_last_error());
        return 2;
    }
    const struct um_ops *ops = um_ops_host()[0];
    double total = 0;
    printf("level %s, %d threads; per call the quickest run, the median, and the median times "
           "calls per frame\n",
           ops->name, um_pool_threads(pool));
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        const struct bench *b = &benches[i];
        if ((only && strcmp(only, um_op_name(b->op)) != 0) || !ops->kernel[b->op])
            continue;
        struct job job = {.tolerance = 0};
        double best, median;
        rng_state = 1;
        make(&job, b);
        double bytes = 0;
        for (int k = 0; k < job.n; k++)
            bytes += job.m[k].base
                         ? (double)job.m[k].size
                         : 4.0 * job.pack[k].o * job.pack[k].kh * job.pack[k].kw * job.pack[k].i;
        measure(&job, ops, pool, &best, &median);
        total += median * b->count;
        printf("%-12s %-17s%s %8.3f %8.3f ms %8.2f ms %7.1f GFLOP/s %6.1f GB/s  %s\n", b->net,
               um_op_name(b->op), takes_part(ops, base, b->op) ? "" : "*", best, median,
               median * b->count, 2e-6 * job.macs / median, 1e-6 * bytes / median, job.what);
        fflush(stdout);
        job_free(&job);
    }
    printf("sum %.1f ms (* = reference kernel)\n", total);
    um_pool_close(&pool);
    return 0;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *device = NULL;
    bool timing = false;
    uint64_t seed = 1;
    int threads = 2;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            timing = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else if (strcmp(argv[i], "--precision") == 0 && i + 1 < argc)
            wanted_precision = argv[++i];
        else
            only = argv[i];
    }
    if (device && open_gpu(device) != 0)
        return 2;
    return timing ? bench(only, threads) : check(only, seed);
}
