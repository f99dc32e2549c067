/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what torch.save() pickles, executing nothing: tensors, numbers, strings and containers
 * become values; every other object becomes an UM_P_OTHER that only knows the name of its class. */
#ifndef UM_WEIGHTS_PICKLE_H
#define UM_WEIGHTS_PICKLE_H

#include "base/status.h"
#include "weights/arena.h"
#include "weights/weights.h"

enum um_pkind {
    UM_P_NONE,
    UM_P_BOOL,
    UM_P_INT,
    UM_P_FLOAT,
    UM_P_STRING,
    UM_P_TUPLE,
    UM_P_LIST,
    UM_P_DICT, /* items: key, value, key, value, … */
    UM_P_GLOBAL,
    UM_P_STORAGE,
    UM_P_TENSOR,
    UM_P_OTHER,
};

struct um_ptensor {
    const struct um_pvalue *storage;
    int64_t offset; /* elements */
    int rank;
    int64_t dim[UM_W_RANK], stride[UM_W_RANK];
};

struct um_pvalue {
    enum um_pkind kind;
    union {
        int64_t integer; /* also UM_P_BOOL */
        double real;
        struct {
            const char *text; /* not terminated: a slice of the pickle */
            size_t length;
        } string;
        struct {
            const struct um_pvalue **item;
            size_t count, capacity;
        } list;
        const char *name; /* UM_P_GLOBAL, UM_P_OTHER: "module.class" */
        struct {
            const char *type; /* "torch.FloatStorage" */
            const char *key;
            int64_t elements;
        } storage;
        const struct um_ptensor *tensor;
    };
};

/* Values live in the arena and point into data[0..size-1]. */
um_status um_pickle_read(struct um_arena *arena, const unsigned char *data, size_t size,
                         const struct um_pvalue **out);
/* Value of a string key; NULL if there is none or `dict` is not a dict. */
const struct um_pvalue *um_pickle_get(const struct um_pvalue *dict, const char *key);

#endif
