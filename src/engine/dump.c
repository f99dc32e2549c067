/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dump.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

um_status um_dump_add(struct um_dump *d, const char *name, int rank, const int64_t *dim,
                      float *data)
{
    if (d->n == UM_DUMP_MAX) {
        um_free(data);
        return um_fail(UM_EINVAL, "dump: more than %d tensors", UM_DUMP_MAX);
    }
    struct um_wout *t = &d->t[d->n];
    bool taken = false; /* both networks have a "stem"; names in a file are unique */
    for (int i = 0; i < d->n; i++)
        taken = taken || strcmp(d->name[i], name) == 0;
    snprintf(d->name[d->n], sizeof d->name[0], "%s%s", taken ? "segmenter_" : "", name);
    *t = (struct um_wout){.name = d->name[d->n], .type = UM_W_F32, .rank = rank, .data = data};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    d->n++;
    return UM_OK;
}

um_status um_dump_tape(struct um_dump *d, um_tape *t)
{
    um_status st = UM_OK;
    for (int i = 0; i < um_tape_taps(t) && st == UM_OK; i++) {
        const char *name = NULL;
        int h = 0, w = 0, c = 0;
        float *data = NULL;
        st = um_tape_read_tap(t, i, &name, &h, &w, &c, &data);
        if (st != UM_OK)
            break;
        if (strcmp(name, "low_res_logits") == 0) { /* square planes one after the other */
            st = um_dump_add(d, name, 4, (int64_t[]){1, h / w, w, w}, data);
            continue;
        }
        bool map = um_tape_tap_is_map(t, i);
        if (map || w == 1) {
            st = map ? um_dump_add(d, name, 4, (int64_t[]){1, c, h, w}, data)
                     : um_dump_add(d, name, 2, (int64_t[]){1, c}, data);
            continue;
        }
        float *rows = um_array((size_t)w * (size_t)c, sizeof *rows);
        for (int r = 0; rows && r < w; r++)
            for (int k = 0; k < c; k++)
                rows[(size_t)r * (size_t)c + (size_t)k] = data[(size_t)k * (size_t)w + (size_t)r];
        um_free(data);
        st = rows ? um_dump_add(d, name, 3, (int64_t[]){1, w, c}, rows)
                  : um_fail(UM_ENOMEM, "dump of %s", name);
    }
    return st;
}

um_status um_dump_write(const struct um_dump *d, const char *path)
{
    return um_safetensors_write(path, d->t, d->n, NULL);
}

void um_dump_close(struct um_dump *d)
{
    for (int i = 0; i < d->n; i++)
        um_free((void *)(uintptr_t)d->t[i].data);
    d->n = 0;
}
