/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_FUZZ_TENSORS_H
#define UM_FUZZ_TENSORS_H

#include "model/dfine.h"
#include "model/sam.h"
#include "weights/view.h"

#include <stdlib.h>

/* Open a weight file and read every value of every tensor, so that a view outside the file shows.
 */
static inline void read_tensors(const uint8_t *data, size_t size)
{
    um_weights *w = NULL;
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
    um_weights_close(&w);
}

#endif
