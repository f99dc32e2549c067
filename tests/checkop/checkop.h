/* SPDX-License-Identifier: Apache-2.0 */
/* A case is data and a builder: `random` draws a shape and makes one call of an operator, `bench`
 * makes the call of a row of bench.c. Builders append operands in the order of the operator's
 * kernel (outputs first), so that a seed gives the same numbers for ever. One file per family. */
#ifndef UM_TESTS_CHECKOP_H
#define UM_TESTS_CHECKOP_H

#include "nn/block.h"
#include "nn/op_dfine.h"
#include "nn/op_ref.h"
#include "nn/op_sam.h"

/* ---- cases ---- */

struct job;
struct bench;

struct op_case {
    enum um_op op;
    void (*random)(struct job *job);
    int cases;
    unsigned halves; /* operands that are activations, one bit each */
    void (*bench)(struct job *job, const struct bench *b); /* NULL: never timed */
};

/* One table per family; a row without `random` ends it. */
extern const struct op_case attention_cases[], block_cases[], convolution_cases[], linear_cases[],
    norm_cases[], pixel_cases[], sam_cases[], select_cases[], track_cases[];

/* The case of an operator; NULL if there is none. */
const struct op_case *find_case(enum um_op op);

struct bench {
    const char *net;
    enum um_op op;
    int count; /* per frame */
    int p[7];  /* shape, as the maker of the op takes it */
    enum um_act act;
};

/* ---- random numbers: job.c ---- */

extern uint64_t rng_state;

uint32_t rng(void);       /* splitmix64 */
int pick(int lo, int hi); /* lo..hi */
bool chance(int percent); /* true so often */
float uniform(void);      /* -1..1 */

/* ---- operands: memory with canaries before, after and between the rows ---- */

enum { GUARD = 256 }; /* bytes before and after */

struct memory {
    struct um_view view;
    unsigned char *base;
    size_t size;
};

void *need(void *p); /* p, or out of memory ends the program */
struct memory memory_new(enum um_dtype dtype, int h, int w, int c, int gap);
bool canaries_alive(const struct memory *m);
float *at(const struct um_view *v, int row, int col);
float half_value(enum um_dtype dtype, uint16_t u);
uint16_t half_bits(enum um_dtype dtype, float v);

/* ---- one call: operands, arguments, and what it costs ---- */

struct packing {
    float *plain; /* [o][kh][kw][i]; NULL: the operand is used as it is */
    int o, kh, kw, i;
    enum um_dtype type; /* as what: UM_U8 (floats), UM_BF16, or UM_I8 of inputs in this range */
    struct um_range range;
    uint8_t *shift; /* [i] */
};

union args {
    struct um_conv_args conv;
    struct um_norm_args norm;
    struct um_add_args add;
    struct um_attention_args attention;
    struct um_window_args window;
    struct um_relative_args relative;
    struct um_resize_args resize;
    struct um_area_args area;
    struct um_deform_args deform;
    struct um_refine_args refine;
    struct um_integral_args integral;
    struct um_prompt_args prompt;
    struct um_mlp_args mlp;
    struct um_mbconv_args mbconv;
    struct um_stem_args stem;
    struct um_window_block_args block;
    struct um_cross_args cross;
    struct um_linear_args linear;
    struct um_chain_args chain;
    struct um_tokens_args tokens;
    struct um_front_args front;
    struct um_clean_args clean;
    struct um_reach_args reach;
    struct um_beyond_args beyond;
    struct um_gain_args gain;
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

void job_free(struct job *job);

int gap(void); /* elements between rows */
struct um_view *output(struct job *job, enum um_dtype dtype, int h, int w, int c, int space);
void absent_output(struct job *job);
/* A float operand of numbers in -scale..scale. */
struct um_view *input(struct job *job, int h, int w, int c, int space, float scale);
struct um_view *input_u8(struct job *job, int h, int w, int c);
void absent(struct job *job);
/* Rows of floats, and a bias, that may be absent. */
void maybe(struct job *job, bool there, int rows, int c, float scale);
void maybe_bias(struct job *job, bool there, int c);
/* Weights of a convolution of about unit gain, packed per level. */
void weights(struct job *job, int o, int kh, int kw, int i);
extern const char *const act_names[]; /* for job.what */

/* Which operands are halves, and all of those and the weights rounded: the reference gets the same
 * numbers. */
void round_operands(struct job *job, enum um_dtype act);
/* x such that x times scale is a bf16. */
void round_times(float *x, float scale);
/* Makes weights of convolutions narrow: UM_I8 or UM_BF16. False: there are none. */
bool use_narrow(struct job *job, enum um_dtype type);
/* Has a level kernels for weights of this type? */
bool takes_type(const struct um_ops *ops, enum um_dtype type);
/* Views of a job's operands with weights packed for a level; `out` gets fresh outputs. */
void views(const struct job *job, const struct um_ops *ops, struct um_view *t, struct memory *out);
void views_free(const struct job *job, struct um_view *t, struct memory *out);

/* ---- references composed of reference kernels on explicit operands ---- */

void ref(um_kernel *kernel, const void *args, um_pool *pool, const struct um_view *t, int n);
struct um_view scratch(int h, int w, int c); /* floats, packed, zero */
struct um_view bytes(int h, int w, int c);   /* u8, packed, zero */
extern const struct um_view none;            /* an operand that is absent */

/* ---- where kernels run: run.c ---- */

extern const struct um_ops *levels[16]; /* NULL-ended, set by find_levels() */
extern const char *wanted_precision;    /* of a GPU's levels; NULL: all */
extern const char *wanted_level;        /* NULL: all */
extern um_device *gpu;                  /* GPU kernels run there; NULL: on the host */

int open_gpu(const char *name);         /* exit code */
const struct um_ops *find_levels(void); /* returns the reference */
bool takes_part(const struct um_ops *level, const struct um_ops *base, enum um_op op);
um_status run(const struct job *job, const struct um_ops *ops, um_pool *pool,
              const struct um_view *t);

int bench(const char *only, int threads); /* bench.c; exit code */

#endif
