/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/simd/slim.h"

#if VL == 16

struct strip {
    const struct gemm *g;
    const float *row[SLIM_TAPS]; /* for each tap downwards, pixels without gaps */
    int kh;
    float *out; /* [SLIM], ld floats apart */
    ptrdiff_t ld;
};

/* PAIRED: at most half a vector of outputs, of an even number of inputs C. Output o has lanes 2o,
 * to which the even inputs add, and 2o + 1, to which the odd ones do. */
UM_INLINE void strip(const struct strip *s, const int C, const int KW, const int STRIDE,
                     const bool PAIRED)
{
    const struct gemm *g = s->g;
    const float *w = g->b;
    vf acc[SLIM], lo = vf_set1(g->act == UM_ACT_RELU ? 0 : -__builtin_inff()),
                  scale = vf_set1(g->lab_scale != 0 ? g->lab_scale : 1),
                  shift = vf_set1(g->lab_shift);
    vf start = g->bias ? vf_load_n(g->bias, g->n) : vf_zero();
    if (PAIRED)
        start = vf_interleave(start, vf_zero());
    UM_UNROLL
    for (int m = 0; m < SLIM; m++)
        acc[m] = start;
    for (int ky = 0; ky < s->kh; ky++, w += KW * C * VL) {
        const float *x = s->row[ky];
        for (int c = 0; c < C; c += 1 + PAIRED) {
            vf tap[SLIM_TAPS];
            UM_UNROLL
            for (int kx = 0; kx < KW; kx++) {
                const float *row = w + (kx * C + c) * VL;
                tap[kx] = PAIRED ? vf_interleave(vf_load(row), vf_load(row + VL)) : vf_load(row);
                VF_KEEP(tap[kx]);
            }
            UM_UNROLL
            for (int b = 0; b < SLIM + SLIM_TAPS - 1; b++) {
                UM_UNROLL
                for (int o = 0; o < STRIDE; o++) {
                    int i = b * STRIDE + o;
                    if (i >= (SLIM - 1) * STRIDE + KW)
                        continue;
                    vf y = PAIRED ? vf_set2(x + i * C + c) : vf_set1(x[i * C + c]);
                    VF_KEEP(y);
                    UM_UNROLL
                    for (int kx = 0; kx < KW; kx++)
                        if (i >= kx && (i - kx) % STRIDE == 0 && (i - kx) / STRIDE < SLIM)
                            acc[(i - kx) / STRIDE] = vf_fma(y, tap[kx], acc[(i - kx) / STRIDE]);
                }
            }
        }
    }
    if (PAIRED) {
        UM_UNROLL
        for (int m = 0; m < SLIM; m++)
            acc[m] = vf_evens(acc[m]) + vf_odds(acc[m]);
    }
    UM_UNROLL
    for (int m = 0; m < SLIM; m++)
        acc[m] = vf_max(lo, acc[m]);
    if (g->lab_scale != 0) {
        UM_UNROLL
        for (int m = 0; m < SLIM; m++)
            acc[m] = vf_fma(acc[m], scale, shift);
    }
    UM_UNROLL
    for (int m = 0; m < SLIM; m++)
        if (g->n == VL)
            vf_store(s->out + m * s->ld, acc[m]);
        else
            vf_store_n(s->out + m * s->ld, acc[m], g->n);
}

#define SLIM_OF(c, kw, stride, paired)                                           \
    static __attribute__((noinline)) void slim_##c##_##kw##_##stride##_##paired( \
        const struct strip *s)                                                   \
    {                                                                            \
        strip(s, c, kw, stride, paired);                                         \
    }
#define SLIM_ENTRY(c, kw, stride, paired) \
    {c, kw, stride, paired, slim_##c##_##kw##_##stride##_##paired},
#define SLIM_KERNELS(X) \
    X(1, 3, 2, 0)       \
    X(3, 3, 2, 0) X(16, 2, 1, 0) X(16, 2, 1, 1) X(8, 2, 1, 0) X(32, 3, 2, 0) X(16, 3, 1, 0)

SLIM_KERNELS(SLIM_OF)

static const struct kernel {
    int c, kw, stride;
    bool paired;
    void (*run)(const struct strip *s);
} kernels[] = {SLIM_KERNELS(SLIM_ENTRY)};

static const struct kernel *find(const struct gemm *g, const struct um_conv_args *a, int c)
{
    const struct kernel *found = NULL;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i].c == c && kernels[i].kw == a->kw && kernels[i].stride == a->stride &&
            (!kernels[i].paired || g->n <= VL / 2))
            found = &kernels[i];
    return found;
}

bool UM_NAME(slim_fits)(const struct gemm *g, const struct um_conv_args *a, int c, int out_w)
{
    return g->n <= VL && out_w >= SLIM && !g->narrow && a->kh <= SLIM_TAPS &&
           (g->act == UM_ACT_NONE || g->act == UM_ACT_RELU) && find(g, a, c);
}

void UM_NAME(slim_row)(const struct slim *s, int c, float *out, int out_w, float *room)
{
    const struct um_conv_args *a = s->conv;
    const struct kernel *kernel = find(s->g, a, c);
    int span = (SLIM - 1) * a->stride + a->kw;
    struct strip strip = {.g = s->g, .kh = a->kh, .ld = s->ld};
    for (int px = 0; px < out_w; px += SLIM) {
        int at = px < out_w - SLIM ? px : out_w - SLIM; /* the last may overlap */
        int ix = at * a->stride - a->pad_left;
        float *copy = room;
        for (int ky = 0; ky < a->kh; ky++) {
            const float *from = s->row[ky];
            if (from && s->ldx == c && ix >= 0 && ix + span <= s->width) {
                strip.row[ky] = from + (ptrdiff_t)ix * c;
                continue;
            }
            strip.row[ky] = copy;
            for (int i = ix; i < ix + span; i++, copy += c)
                for (int k = 0; k < c; k += VL)
                    vf_store(copy + k,
                             from && i >= 0 && i < s->width
                                 ? vf_load_n(from + i * s->ldx + k, c - k < VL ? c - k : VL)
                                 : vf_zero());
        }
        strip.out = out + at * s->ld;
        kernel->run(&strip);
    }
}

#else

bool UM_NAME(slim_fits)(const struct gemm *g, const struct um_conv_args *a, int c, int out_w)
{
    (void)g, (void)a, (void)c, (void)out_w;
    return false;
}

void UM_NAME(slim_row)(const struct slim *s, int c, float *out, int out_w, float *room)
{
    (void)s, (void)c, (void)out, (void)out_w, (void)room;
}

#endif
