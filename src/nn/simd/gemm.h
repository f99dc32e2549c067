/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product under convolutions, linear layers and the fused blocks: C[r][:] = finish(sum_k
 * A[r][k] B[k][:] + bias). Rows of A are pixels of an NHWC map as they lie in memory, never packed.
 * B is packed once at load into panels of a few vectors, [panel][k][panel width], the last one
 * filled with zeros.
 *
 * Every output is one chain of FMAs in order of k, whatever the tile that computes it: results
 * depend neither on the split of the work nor on the number of threads. */
#ifndef UM_NN_SIMD_GEMM_H
#define UM_NN_SIMD_GEMM_H

#include "nn/bf16.h"
#include "nn/int8.h"
#include "nn/op.h"
#include "nn/simd/vec.h"

struct gemm {
    const float *b;     /* packed */
    const void *narrow; /* packed by pack_int8 or pack_bf16; instead of b */
    enum um_dtype type; /* of narrow: UM_I8 or UM_BF16 */
    bool ready;         /* rows of A are such numbers, not floats. Each run is read up to
                           gemm_depth(): what lies behind it meets zeros, but must be numbers */
    const float *bias;  /* [n] or NULL */
    bool half;          /* rows of C are bf16, which the next product reads. Without `add` */
    int k, n;
    enum um_act act; /* then as struct um_conv_opts says */
    float limit, lab_scale, lab_shift;
    bool add_last;
};

/* Rows by address: row r reads taps*c numbers, c at each of a[r*taps + tap]; writes c[r][0..n); add
 * (or NULL) likewise. */
struct gemm_rows {
    const void *const *a;
    float *const *c;
    const float *const *add;
    int taps;
};

int UM_NAME(gemm_nr)(int n);     /* panel width for n columns */
int UM_NAME(gemm_mr)(int n);     /* rows of the largest tile for n columns */
int UM_NAME(gemm_panels)(int n); /* number of panels */
/* Pack w [n][k] into dst (NULL: only the size). Returns bytes. */
size_t UM_NAME(gemm_pack)(float *dst, const float *w, int n, int k);

/* n rows of k floats (or anything of their size), ld apart, as one panel nr wide: [k][nr], zeros
 * behind them. */
void UM_NAME(gemm_panel)(float *dst, const float *rows, ptrdiff_t ld, int n, int k, int nr);

/* Rows lda, ldc, ldadd floats apart; panels panel0..panel1-1 of g. add NULL: none. c may be add. */
void UM_NAME(gemm_block)(const struct gemm *g, const float *a, ptrdiff_t lda, int rows, float *c,
                         ptrdiff_t ldc, const float *add, ptrdiff_t ldadd, int panel0, int panel1);
void UM_NAME(gemm_rows)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                        int panel1);

/* ---- on narrow numbers, bytes (nn/int8.h) or bf16 (nn/bf16.h), of which four or two fill a lane:
 * where a gemm has them, the functions above round rows of A as they read them, or find them ready
 * ---- */

size_t UM_NAME(pack_int8)(void *dst, const struct um_int8_layer *l);
size_t UM_NAME(pack_bf16)(void *dst, const float *w, int o, int kh, int kw, int i);
size_t UM_NAME(pack_int8_vnni)(void *dst, const struct um_int8_layer *l); /* 8 lanes */

/* Make `rows` rows of A, ldx floats apart, ready: gemm_depth(g, g->k) bytes from one to the next.
 * Whole vectors are stored: up to VL numbers behind the last are lost. */
void UM_NAME(gemm_ready)(const struct gemm *g, uint8_t *to, const float *x, ptrdiff_t ldx,
                         int rows);
/* um_gemm_rows() of a gemm whose rows are ready. */
void UM_NAME(gemm8_rows)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                         int panel1);
void UM_NAME(gemm8_vnni_rows)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                              int panel1);
void UM_NAME(gemm16_rows)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                          int panel1);
/* Both on AMX's tiles and, 16 lanes wide, on their twin. */
size_t UM_NAME(pack_int8_amx)(void *dst, const struct um_int8_layer *l);
size_t UM_NAME(pack_int8_twin)(void *dst, const struct um_int8_layer *l);
size_t UM_NAME(pack_bf16_amx)(void *dst, const float *w, int o, int kh, int kw, int i);
size_t UM_NAME(pack_bf16_twin)(void *dst, const float *w, int o, int kh, int kw, int i);
void UM_NAME(gemm_amx)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                       int panel1);
void UM_NAME(gemm_twin)(const struct gemm *g, const struct gemm_rows *r, int rows, int panel0,
                        int panel1);
/* Round rows of c floats, ldx floats apart, or with `gelu` what GELU makes of them, to rows ldto
 * bytes apart; the first is channel `first` of the layer. Whole vectors are stored: up to VL
 * numbers behind each row are lost, before the next is written. */
void UM_NAME(gemm_round)(const struct gemm *g, uint8_t *to, ptrdiff_t ldto, const float *x,
                         ptrdiff_t ldx, int rows, int c, int first, bool gelu);
void UM_NAME(gemm8_round)(uint8_t *to, ptrdiff_t ldto, const float *x, ptrdiff_t ldx, int rows,
                          int c, const float *inv, int32_t zero, bool gelu);
void UM_NAME(gemm16_round)(uint8_t *to, ptrdiff_t ldto, const float *x, ptrdiff_t ldx, int rows,
                           int c, bool gelu);

UM_INLINE int gemm_size(const struct gemm *g) /* bytes of a narrow number */
{
    return g->type == UM_I8 ? 1 : 2;
}

UM_INLINE int gemm_zero(const struct gemm *g) /* all bytes of the number that stands for 0 */
{
    return g->type == UM_I8 ? ((const struct um_int8_head *)g->narrow)->zero : 0;
}

/* Bytes that a run of k numbers takes among the panels: whole lanes, and rows of a tile. */
enum { GEMM_LANE = 4, GEMM_TILE_ROW = 64 };
UM_INLINE int gemm_whole(int bytes, int unit)
{
    return (bytes + unit - 1) / unit * unit;
}
UM_INLINE int gemm8_depth(enum um_narrow_how how, int k)
{
    bool tiles = how == UM_NARROW_TILES || how == UM_NARROW_TWIN;
    return gemm_whole(k, tiles ? GEMM_TILE_ROW : GEMM_LANE);
}
UM_INLINE int gemm16_depth(enum um_narrow_how how, int k)
{
    return gemm8_depth(how, 2 * k);
}
UM_INLINE int gemm_depth(const struct gemm *g, int k)
{
    return gemm8_depth(um_narrow_how(g->narrow), k * gemm_size(g));
}

/* The epilogue on n finished sums: act, then LAB, then add (if add_last; may be NULL). */
void UM_NAME(gemm_finish)(const struct gemm *g, float *c, const float *add, int n);

/* How to divide m rows x n columns of depth k among threads: blocks of rows of A (row_floats of
 * memory each) small enough for the L2 cache, then groups of panels; few items if there is little
 * to do. A block has at most GEMM_BLOCK_ROWS rows. */
enum { GEMM_BLOCK_ROWS = 1024 };
struct gemm_split {
    int row_blocks, panel_groups;
};
struct gemm_split UM_NAME(gemm_split)(int m, int n, int k, int row_floats, int threads);

/* This level's, by a shorter name. */
#define um_gemm_nr UM_NAME(gemm_nr)
#define um_gemm_mr UM_NAME(gemm_mr)
#define um_gemm_panels UM_NAME(gemm_panels)
#define um_gemm_pack UM_NAME(gemm_pack)
#define um_gemm_panel UM_NAME(gemm_panel)
#define um_gemm_block UM_NAME(gemm_block)
#define um_gemm_rows UM_NAME(gemm_rows)
#define um_gemm_finish UM_NAME(gemm_finish)
#define um_gemm_split UM_NAME(gemm_split)
#define um_gemm_round UM_NAME(gemm_round)
#define um_gemm_ready UM_NAME(gemm_ready)
#define um_gemm8_rows UM_NAME(gemm8_rows)
#define um_gemm8_round UM_NAME(gemm8_round)
#define um_gemm16_rows UM_NAME(gemm16_rows)
#define um_gemm16_round UM_NAME(gemm16_round)

/* k x n weights as a kernel's operands hold them, floats (UM_U8) or narrow, and a bias. */
UM_INLINE struct gemm gemm_of(const struct um_view *w, const struct um_view *bias, int k, int n)
{
    bool narrow = w->dtype == UM_I8 || w->dtype == UM_BF16;
    return (struct gemm){.b = narrow ? NULL : w->data,
                         .narrow = narrow ? w->data : NULL,
                         .type = w->dtype,
                         .bias = bias->data,
                         .k = k,
                         .n = n};
}

UM_INLINE int split_at(int n, int parts, int i) /* where part i of n begins */
{
    return (int)((int64_t)n * i / parts);
}

#endif
