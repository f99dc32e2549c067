/* SPDX-License-Identifier: Apache-2.0 */
/* Constants of a network: weights and tables, packed on the host, uploaded once, shared by the
 * tapes of a model. */
#ifndef UM_NN_PARAMS_H
#define UM_NN_PARAMS_H

#include "device/backend.h"

/* Constants and activations start at multiples of it. */
enum { UM_ALIGN = 128 };

static inline size_t um_aligned(size_t n)
{
    return (n + UM_ALIGN - 1) / UM_ALIGN * UM_ALIGN;
}

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
um_buf *um_params_buf(const um_params *p); /* NULL: not uploaded */
um_device *um_params_device(const um_params *p);
void um_params_fail(um_params *p, um_status st); /* make the status sticky */
/* A step lies in the network where its weights do (um_step.place). What is added next is made of
 * this tensor of the file; if several were named before it, its place is what their names share. */
void um_params_name(um_params *p, const char *tensor);
/* The place of a constant, or of the last one before it that has a name: they are made of the same
 * tensors. NULL: there is none. */
const char *um_params_place(const um_params *p, size_t off);

enum { UM_PLACE = 96 }; /* bytes of a place in a network: dotted, as the file names its tensors */
/* Cut `place` to what it has in common with other[0..n-1], whole words between dots. */
void um_place_share(char *place, const char *other, size_t n);

#endif
