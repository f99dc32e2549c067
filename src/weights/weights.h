/* SPDX-License-Identifier: Apache-2.0 */
/* A read-only view of a weight file: name -> dtype, shape, bytes. The file is hostile until proven
 * otherwise: every offset is checked against the file before use, nothing in it is executed. */
#ifndef UM_WEIGHTS_H
#define UM_WEIGHTS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum um_wtype {
    UM_W_F32,
    UM_W_F16,
    UM_W_BF16,
    UM_W_F64,
    UM_W_I64,
    UM_W_I32,
    UM_W_I16,
    UM_W_I8,
    UM_W_U8,
    UM_W_BOOL
};
enum { UM_W_RANK = 8 };

struct um_wtensor {
    const char *name; /* canonical upstream name: wrapper prefixes ("module.") stripped */
    enum um_wtype type;
    int rank;
    int64_t dim[UM_W_RANK];
    int64_t stride[UM_W_RANK]; /* elements; torch files may be non-contiguous */
    const unsigned char *data; /* first element */
};

typedef struct um_weights um_weights;

/* Open .safetensors, .pt or .pth (by content, not by name), or a folder of Hugging Face. Wrappers
 * ({"model":…}, {"ema":{"module":…}}, {"state_dict":…}, …) are unwrapped, averaged weights first,
 * and prefixes of all names ("_orig_mod.", "model.", …) are dropped. */
um_status um_weights_open(um_weights **out, const char *path);
/* The same for a file in memory: data[0..size-1] is borrowed until close; `label` stands for its
 * path in messages. */
um_status um_weights_open_memory(um_weights **out, const void *data, size_t size,
                                 const char *label);
void um_weights_close(um_weights **w);
int um_weights_count(const um_weights *w);
const struct um_wtensor *um_weights_at(const um_weights *w, int i); /* sorted by name */
const struct um_wtensor *um_weights_find(const um_weights *w, const char *name); /* NULL = none */
/* Does the name of any tensor start like this? */
bool um_weights_has(const um_weights *w, const char *prefix);
const char *um_weights_meta(const um_weights *w,
                            const char *key); /* safetensors metadata; NULL = none */
/* What a file says in words: its metadata, else the config.json beside it. *from (may be NULL):
 * "metadata" or "config.json". NULL = nothing. Keys: input_size ("320", "WxH"), queries,
 * activation, head_activation, fit, classes, family, points. */
const char *um_weights_fact(const um_weights *w, const char *key, const char **from);
/* Does a config.json that is no JSON object lie beside a file with other names? */
bool um_weights_broken_config(const um_weights *w);
bool um_weights_hugging_face(const um_weights *w);  /* were the names Hugging Face's? */
const char *um_weights_format(const um_weights *w); /* "safetensors", "torch zip" */
const char *um_weights_sha256(const um_weights *w); /* 64 hex digits, of the file */
const char *um_weights_path(const um_weights *w);

/* Copy a tensor as contiguous row-major fp32. The shape must be exactly `dim[0..rank-1]`; else
 * UM_EFORMAT naming tensor, expected and found. A missing tensor is UM_EFORMAT "missing tensor".
 * *out is owned by the caller (um_free). */
um_status um_weights_read(const um_weights *w, const char *name, int rank, const int64_t *dim,
                          float **out);
/* The same, its numbers wanted or not: where they are not, *out has the room, but not them. */
um_status um_weights_take(const um_weights *w, const char *name, int rank, const int64_t *dim,
                          bool numbers, float **out);
/* Element i (row-major) of a tensor as double: for scalars such as reg_scale (int64) or
 * num_points_scale. */
double um_wtensor_at(const struct um_wtensor *t, int64_t i);
int64_t um_wtensor_elements(const struct um_wtensor *t);
const char *um_wtype_name(enum um_wtype t); /* "F32", "BF16", … as in safetensors */

/* Writing .safetensors: tensors in the order given, metadata as key/value pairs. data[i] is
 * contiguous in type[i]. */
struct um_wout {
    const char *name;
    enum um_wtype type;
    int rank;
    int64_t dim[UM_W_RANK];
    const void *data;
};
um_status um_safetensors_write(const char *path, const struct um_wout *t, int n,
                               const char *const *meta /* key, value, …, NULL */);

/* Writing what torch.load() reads: {wrapper: state dict}, or the state dict if wrapper is NULL. */
um_status um_torch_write(const char *path, const struct um_wout *t, int n, const char *wrapper);

#endif
