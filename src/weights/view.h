/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of um_weights, for the loaders: each adds tensors and metadata, weights.c does the
 * rest. */
#ifndef UM_WEIGHTS_VIEW_H
#define UM_WEIGHTS_VIEW_H

#include "weights/arena.h"
#include "weights/weights.h"

enum {
    UM_W_NAME_MAX = 255, /* bytes of a tensor's name */
    UM_W_META_MAX = 512, /* entries of metadata, read and written */
};

struct um_wpair {
    const char *key, *value;
};

struct um_weights {
    char *path;
    const char *format;
    const unsigned char *bytes; /* the whole file */
    size_t size;
    unsigned char *own;  /* the same if it was read from a path */
    uint64_t inflated;   /* bytes that the loader unpacked besides */
    double tensor_bytes; /* of all tensors added */
    struct um_arena arena;
    struct um_wtensor *tensor; /* sorted by name once open */
    int count;
    size_t capacity;
    struct um_wpair *meta;
    int meta_count;
    struct um_wpair *fact; /* of a config.json beside the file, in the words of our metadata */
    int fact_count;
    bool hugging_face;  /* the names were Hugging Face's */
    bool broken_config; /* a config.json that is no JSON object lies beside other names */
    char sha256[65];
};

/* Bytes that the tensors of a file may have in all, and that its deflated parts may inflate to:
 * eight times its own and a megabyte. */
uint64_t um_view_budget(const um_weights *w);
/* Add a tensor: t->name is ignored, name[0..n-1] is checked and copied. data and strides have been
 * checked by the caller. */
um_status um_view_add(um_weights *w, const char *name, size_t n, const struct um_wtensor *t);
size_t um_wtype_bytes(enum um_wtype t);
/* Elements of a shape, or -1 if a dimension is negative or the product leaves int64. */
int64_t um_view_elements(int rank, const int64_t *dim);
/* By name, as um_weights_find() wants them. */
void um_view_sort(um_weights *w);
/* Of a contiguous tensor. */
void um_view_strides(int rank, const int64_t *dim, int64_t *stride);
/* Copy in row-major order, as stored or as floats. */
void um_view_copy(const struct um_wtensor *t, void *out);
void um_view_floats(const struct um_wtensor *t, float *out);
/* Shape as text, "[1,3,16]". */
const char *um_view_shape(char *buf, size_t n, int rank, const int64_t *dim);

/* Loaders: read w->bytes. Errors do not name the file; um_weights_open() puts its name in front. */
um_status um_safetensors_load(um_weights *w);
um_status um_torch_zip_load(um_weights *w);

/* Without what trainers, compilers and wrappers put in front of names; of the averaged and the raw
 * weights of a checkpoint that has both, the averaged ones. */
um_status um_names_strip(um_weights *w);

/* Hugging Face D-FINE names to upstream names, separate q, k, v joined. Does nothing to other
 * files. */
um_status um_hf_rename(um_weights *w);

/* The config.json of Hugging Face in the file's folder, if it is of a D-FINE. */
um_status um_config_read(um_weights *w);
/* The text of a config.json and a preprocessor_config.json; `path` is for messages. */
um_status um_config_parse(um_weights *w, const char *path, const void *text, size_t n);
um_status um_preprocessor_parse(um_weights *w, const char *path, const void *text, size_t n);
/* *out: the weight file in a folder, freed by the caller; NULL if `path` is none. */
um_status um_folder_resolve(const char *path, char **out);
/* UM_EFORMAT that says what it is instead of a weight file, what was expected and what to do. */
um_status um_stranger(const unsigned char *bytes, size_t size);
/* The same for what was found to be `what`: "WHAT, want weights …; MEND". */
um_status um_stranger_fail(const char *what, const char *mend);

#endif
