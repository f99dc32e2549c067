/* SPDX-License-Identifier: Apache-2.0 */
/* A tape records a network once (each op checks shapes and appends a step), plans one arena for its
 * activations, and is replayed for every frame. Tensors are value types: [h, w, c] rows of c
 * elements (NHWC, batch 1), `ld` elements apart, so pixels and tokens are the same memory and a
 * channel slice is just another tensor: concatenation is a store.
 *
 * The first bad shape makes the tape's status sticky and every later call a no-op that returns an
 * empty tensor, which keeps models free of `if`; um_tape_compile() reports it. */
#ifndef UM_NN_TAPE_H
#define UM_NN_TAPE_H

#include "device/backend.h"

typedef struct um_tape um_tape;
struct um_op_info; /* nn/op_table.h */

typedef struct um_tensor {
    int32_t id; /* value in the tape; 0 = no tensor */
    enum um_dtype dtype;
    int32_t h, w, c;
    int32_t ld;  /* elements from one row (pixel, token) to the next */
    int64_t off; /* elements from the start of the value */
} um_tensor;

/* ---- constants: weights and tables, packed on the host, uploaded once, shared by the tapes of a
 * model ---- */
typedef struct um_params um_params;

/* A constant on the device: off/size bytes in the params buffer. size 0 = absent. */
typedef struct um_const {
    size_t off, size;
} um_const;

um_status um_params_open(um_params **out, um_device *dev);
void um_params_close(um_params **params);
/* Copy `size` bytes into the staging area. On failure (no memory, or already uploaded) the params'
 * status is sticky. */
um_const um_params_add(um_params *p, const void *data, size_t size);
/* Like add, but returns the zeroed staging memory to be filled before the next add; NULL on
 * failure, and where the bytes are held already. */
void *um_params_reserve(um_params *p, size_t size, um_const *out);
/* Packed bytes that are there already: until um_params_reset() nothing is staged, constants only
 * get their places, in which data[0..size-1] has them, and which um_params_layout() tells from
 * others. `drop` is called when they are needed no more. */
void um_params_hold(um_params *p, const void *data, size_t size, void (*drop)(void *ctx),
                    void *ctx);
bool um_params_held(const um_params *p);
void um_params_reset(um_params *p);            /* as just opened; not once uploaded */
uint64_t um_params_layout(const um_params *p); /* of the sizes of all constants, in their order */
/* Block i of what is staged, at `off`; NULL beyond the last. */
const void *um_params_staged(const um_params *p, int i, size_t *off, size_t *size);
um_status um_params_upload(um_params *p); /* one upload, stage setup (more of more than 256 MB);
                                             frees the staging area; reports the sticky status */
size_t um_params_bytes(const um_params *p);
/* Dense weights that are packed from now on are q's to pack (nn/quant.h); NULL: as floats. */
void um_params_quantise(um_params *p, struct um_quant *q);
struct um_quant *um_params_quant(const um_params *p);
/* Dense weights that are packed from now on are bf16 (nn/bf16.h), unless q has them. */
void um_params_round(um_params *p, bool bf16);
bool um_params_bf16(const um_params *p);
um_device *um_params_device(const um_params *p);
void um_params_fail(um_params *p, um_status st); /* make the status sticky */
/* A step lies in the network where its weights do (um_step.place). What is added next is made of
 * this tensor of the file; if several were named before it, its place is what their names share. */
void um_params_name(um_params *p, const char *tensor);

/* ---- recording ---- */
um_status um_tape_open(um_tape **out, um_device *dev, const char *name);
void um_tape_close(um_tape **tape); /* accepts NULL */
um_device *um_tape_device(const um_tape *t);
enum um_dtype um_tape_act(const um_tape *t); /* in which the device stores activations */
um_status um_tape_status(const um_tape *t);
void um_tape_fail(um_tape *t,
                  um_status st); /* st negative, text already recorded; first one wins */

um_tensor um_tape_new(um_tape *t, enum um_dtype dtype, int h, int w,
                      int c); /* an activation, to be written by an op */
um_tensor um_tape_const(um_tape *t, um_params *p, um_const k, enum um_dtype dtype, int h, int w,
                        int c);
um_tensor um_tape_buffer(um_tape *t, um_buf *buf, size_t byte_offset, enum um_dtype dtype, int h,
                         int w, int c); /* external memory */
/* A tensor of an already compiled tape that was kept with um_keep(), as input of this one. */
um_tensor um_tape_import(um_tape *t, const um_tape *from, um_tensor x);

um_tensor um_slice(um_tensor x, int c0, int c);     /* channels c0..c0+c-1 */
um_tensor um_rows(um_tensor x, int row0, int rows); /* rows row0.. as [1, rows, c] */
um_tensor um_reshape(um_tensor x, int h, int w);    /* same rows, other h*w; channels stay */
um_tensor um_keep(um_tape *t,
                  um_tensor x); /* memory not reused inside the tape; readable after it ran */
void um_tap(
    um_tape *t, const char *name,
    um_tensor x); /* name a point of interest: kept only if the tape was opened for dumping */

/* Append one kernel call. Operand i of those that `op` has is tensor x[i] (id 0 = absent). args is
 * copied. */
void um_tape_step(um_tape *t, const struct um_op_info *op, um_kernel *kernel, const void *args,
                  size_t args_size, const um_tensor *x);

/* The last step computes only the first h x w pixels of its first operand, as `size`, int32 {h, w}
 * that outlive the tape's runs, says when it runs; the others stay as they are. For convolutions,
 * MBConv, MLP and window blocks, and not on a GPU. */
void um_tape_limit(um_tape *t, um_tensor size);

/* ---- replay ---- */
um_status um_tape_compile(um_tape *t); /* plan and create the arena; reports the sticky status */
um_status um_tape_run(um_tape *t, enum um_queue q);
size_t um_tape_arena_bytes(const um_tape *t);
int um_tape_steps(const um_tape *t);
const struct um_step *um_tape_step_at(const um_tape *t, int i);

/* Where a kept tensor lives after compile. */
void um_tape_locate(const um_tape *t, um_tensor x, um_buf **buf, size_t *byte_offset);
/* A kept tensor without gaps: to byte `off` of a buffer, by queue q; or to the host, at once. */
um_status um_tape_copy(const um_tape *t, enum um_queue q, um_tensor x, um_buf *to, size_t off);
um_status um_tape_read(const um_tape *t, um_tensor x, void *to, enum um_stage stage,
                       const char *reason);

/* ---- taps ---- */
void um_tape_keep_taps(um_tape *t); /* call before recording: um_tap() then keeps its tensors */
int um_tape_taps(const um_tape *t);
/* Download tap i as fp32 (other types converted to it) in NCHW order; *name, *h, *w, *c describe
 * it. Caller frees *data with um_free(). */
um_status um_tape_read_tap(um_tape *t, int i, const char **name, int *h, int *w, int *c,
                           float **data);
int um_tape_find_tap(const um_tape *t, const char *name); /* -1 = none */

#endif
