/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of SAM's families with formula-made weights: the parameters that a golden file lists.
 */
#ifndef UM_TESTS_SAM_WEIGHTS_H
#define UM_TESTS_SAM_WEIGHTS_H

#include "base/mem.h"
#include "base/status.h"
#include "hashed.h"
#include "weights/weights.h"

#include <stdio.h>

enum { SW_PARAMS_MAX = 512 };

struct sw_param {
    char name[128];
    struct um_wout out;
};

/* What to leave out, and what to put in: names, or NULL. */
struct sw_damage {
    const char *skip, *extra;
};

static inline um_status sw_write(const char *path, const char *golden, struct sw_damage damage,
                                 const char *const *meta)
{
    static struct sw_param params[SW_PARAMS_MAX + 1];
    static struct um_wout list[SW_PARAMS_MAX + 1];
    static const float zero[4] = {0};
    char line[512];
    int n = 0;
    FILE *f = fopen(golden, "r");
    if (!f)
        return UM_EIO;
    while (n < SW_PARAMS_MAX && fgets(line, sizeof line, f)) {
        struct sw_param *p = &params[n];
        int at = 0, used;
        memset(p, 0, sizeof *p);
        if (sscanf(line, "param %127s%n", p->name, &at) != 1 ||
            (damage.skip && strcmp(damage.skip, p->name) == 0))
            continue;
        size_t count = 1;
        long dim;
        for (; sscanf(line + at, "%ld%n", &dim, &used) == 1; at += used)
            p->out.dim[p->out.rank++] = dim;
        for (int i = 0; i < p->out.rank; i++)
            count *= (size_t)p->out.dim[i];
        float *data = um_array(count, sizeof *data);
        if (!data)
            break;
        hashed_sam_weight(data, p->name, p->out.rank, p->out.dim);
        p->out.name = p->name;
        p->out.type = UM_W_F32;
        p->out.data = data;
        list[n++] = p->out;
    }
    fclose(f);
    int made = n;
    if (damage.extra)
        list[n++] = (struct um_wout){
            .name = damage.extra, .type = UM_W_F32, .rank = 1, .dim = {4}, .data = zero};
    um_status st = um_safetensors_write(path, list, n, meta);
    for (int i = 0; i < made; i++)
        um_free((void *)(uintptr_t)list[i].data);
    return st;
}

#endif
