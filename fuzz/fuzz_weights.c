/* SPDX-License-Identifier: Apache-2.0 */
/* A weight file: every value of every tensor is read, so that a view outside the file shows. */
#include "model/dfine.h"
#include "model/sam.h"
#include "weights/view.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    um_weights *w = NULL;
    if (um_weights_open_memory(&w, data, size, "input") != UM_OK)
        return 0;
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
    um_weights_close(&w);
    return 0;
}
