/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_FUZZ_TENSORS_H
#define UM_FUZZ_TENSORS_H

#include "memory_file.h"

#include "base/mem.h"
#include "model/dfine.h"
#include "model/sam.h"
#include "weights/view.h"

#include <string.h>

/* A file that opened is written again and read back: same names, shapes, bytes. */
static inline void write_tensors(const um_weights *w)
{
    char path[MEMORY_PATH];
    int n = um_weights_count(w);
    struct um_wout *out = calloc((size_t)n + 1, sizeof *out);
    const char **meta = calloc(2 * (size_t)w->meta_count + 1, sizeof *meta);
    um_weights *back = NULL;
    if (!out || !meta)
        abort();
    for (int i = 0; i < n; i++) {
        const struct um_wtensor *t = um_weights_at(w, i);
        void *data = calloc((size_t)um_wtensor_elements(t) + 1, um_wtype_bytes(t->type));
        if (!data)
            abort();
        um_view_copy(t, data);
        out[i] = (struct um_wout){.name = t->name, .type = t->type, .rank = t->rank, .data = data};
        memcpy(out[i].dim, t->dim, sizeof t->dim);
    }
    for (int i = 0; i < w->meta_count; i++) {
        meta[2 * i] = w->meta[i].key;
        meta[2 * i + 1] = w->meta[i].value;
    }
    scratch_path(path);
    if (um_safetensors_write(path, out, n, meta) != UM_OK ||
        um_weights_open(&back, path) != UM_OK || um_weights_count(back) != n)
        abort();
    for (int i = 0; i < n; i++) {
        const struct um_wtensor *t = um_weights_find(back, out[i].name);
        if (!t || t->type != out[i].type || t->rank != out[i].rank ||
            memcmp(t->dim, out[i].dim, sizeof t->dim) != 0 ||
            memcmp(t->data, out[i].data,
                   (size_t)um_wtensor_elements(t) * um_wtype_bytes(t->type)) != 0)
            abort();
        free((void *)(uintptr_t)out[i].data);
    }
    for (int i = 0; i < w->meta_count; i++)
        if (strcmp(um_weights_meta(back, meta[2 * i]), meta[2 * i + 1]) != 0)
            abort();
    um_weights_close(&back);
    unlink(path);
    free(out);
    free(meta);
}

/* The same once more with an allocation that fails: an error, whichever. */
static inline void read_without_memory(const uint8_t *data, size_t size)
{
    um_weights *w = NULL;
    um_mem_fail_at(size ? 1 + data[size / 2] % 24 : 1);
    um_status st = um_weights_open_memory(&w, data, size, "input");
    um_mem_fail_at(0);
    if ((st == UM_OK) != (w != NULL))
        abort();
    um_weights_close(&w);
}

/* Open a weight file and read every value of every tensor, so that a view outside the file shows.
 */
static inline void read_tensors(const uint8_t *data, size_t size)
{
    um_weights *w = NULL;
    read_without_memory(data, size);
    if (size % 8 == 0) { /* from a file, too */
        char path[MEMORY_PATH];
        int fd = memory_file(data, size, path);
        um_weights_open(&w, path);
        um_weights_close(&w);
        close(fd);
    }
    if (um_weights_open_memory(&w, data, size, "input") != UM_OK)
        return;
    struct um_dfine_info info;
    um_dfine_recognise(w, &info);
    um_sam_recognise(w);
    for (int i = 0; i < um_weights_count(w); i++) {
        const struct um_wtensor *t = um_weights_at(w, i);
        if (um_weights_find(w, t->name) != t)
            abort(); /* names are unique and sorted */
        int64_t n = um_wtensor_elements(t);
        for (int64_t e = 0; e < n; e++)
            um_wtensor_at(t, e);
        float *values = NULL;
        if (um_weights_read(w, t->name, t->rank, t->dim, &values) != UM_OK)
            abort();
        free(values);
    }
    if (w->tensor_bytes > (double)um_view_budget(w) || w->inflated > um_view_budget(w))
        abort();
    if (w->tensor_bytes < 1 << 16)
        write_tensors(w);
    um_weights_close(&w);
}

#endif
