/* SPDX-License-Identifier: Apache-2.0 */
/* The operands of a step on the host, for the thread sanitizer: of two steps that touch the same
 * memory unordered, one of them writing, it tells whatever their kernels do. */
#ifndef UM_DEVICE_RACES_H
#define UM_DEVICE_RACES_H

#include "base/races.h"
#include "device/backend.h"

static inline void um_races_step(const struct um_step *step, const struct um_view *view)
{
    for (int i = 0; UM_RACES && i < step->n; i++) {
        const struct um_view *v = &view[i];
        size_t elt = um_dtype_size(v->dtype), row = (size_t)v->c * elt,
               rows = v->pitch ? (size_t)(v->h - 1) * (size_t)v->pitch + (size_t)v->w
                               : (size_t)v->h * (size_t)v->w;
        bool whole = v->ld == v->c;
        for (size_t r = 0; v->data && r < (whole ? 1 : rows); r++)
            um_races_note((char *)v->data + r * (size_t)v->ld * elt, whole ? rows * row : row,
                          step->operand[i].write);
    }
}

#endif
