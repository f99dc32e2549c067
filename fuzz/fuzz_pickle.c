/* SPDX-License-Identifier: Apache-2.0 */
/* data.pkl of a torch archive. */
#include "weights/pickle.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct um_arena arena = {NULL};
    const struct um_pvalue *v = NULL;
    if (um_pickle_read(&arena, data, size, &v) == UM_OK && v->kind == UM_P_DICT) {
        if (v->list.count % 2)
            abort(); /* keys and values come in pairs */
        um_pickle_get(um_pickle_get(v, "ema"), "module");
    }
    um_arena_finish(&arena);
    return 0;
}
