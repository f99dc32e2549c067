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

#include "nn/params.h"

typedef struct um_tape um_tape;
struct um_op_info; /* nn/op_table.h */

typedef struct um_tensor {
    int32_t id; /* value in the tape; 0 = no tensor */
    enum um_dtype dtype;
    int32_t h, w, c;
    int32_t ld;  /* elements from one row (pixel, token) to the next */
    int64_t off; /* elements from the start of the value */
} um_tensor;

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
void um_tap_map(um_tape *t, const char *name, um_tensor x); /* the same of a map, not of rows */

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
/* A kept tensor without gaps: to byte `off` of a buffer, by the main queue; or to the host, at
 * once. */
um_status um_tape_copy(const um_tape *t, um_tensor x, um_buf *to, size_t off);
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
bool um_tape_tap_is_map(const um_tape *t, int i);

#endif
