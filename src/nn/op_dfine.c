/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op_dfine.h"

#include "nn/record.h"

static int64_t rows(um_tensor x)
{
    return (int64_t)x.h * x.w;
}

um_tensor um_topk(um_tape *t, um_tensor scores, int k)
{
    if (!um_op_check(t, UM_OP_TOPK, scores.dtype == UM_F32 && k > 0 && k <= rows(scores),
                     "the best %d of %d rows", k, (int)rows(scores)))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_I32, 1, k, 1);
    um_op_step(t, UM_OP_TOPK, NULL, y, scores);
    return y;
}

um_tensor um_deform(um_tape *t, um_tensor ow, um_tensor ref, um_tensor memory,
                    const struct um_deform_args *a)
{
    int64_t points = 0, tokens = 0;
    bool levels = a->levels > 0 && a->levels <= UM_LEVELS_MAX && a->heads > 0;
    for (int l = 0; levels && l < a->levels; l++) {
        levels = a->points[l] > 0 && a->h[l] > 0 && a->w[l] > 0;
        points += a->points[l];
        tokens += (int64_t)a->h[l] * a->w[l];
    }
    if (!um_op_check(t, UM_OP_DEFORM, levels && points <= 64, "%d levels, %d points", a->levels,
                     (int)points) ||
        !um_op_check(t, UM_OP_DEFORM,
                     ow.c == a->heads * points * 3 && ref.c == 4 && rows(ref) == rows(ow) &&
                         rows(memory) == tokens && memory.c % a->heads == 0,
                     "offsets %dx%d, ref %dx%d, memory %dx%d for %d heads and %d points",
                     (int)rows(ow), ow.c, (int)rows(ref), ref.c, (int)rows(memory), memory.c,
                     a->heads, (int)points))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, ow.h, ow.w, memory.c);
    um_op_step(t, UM_OP_DEFORM, a, y, ow, ref, memory);
    return y;
}

um_tensor um_refine(um_tape *t, um_tensor delta, um_tensor base, bool inverse)
{
    if (!um_op_check(t, UM_OP_REFINE, rows(delta) == rows(base) && delta.c == base.c,
                     "delta %dx%d, base %dx%d", (int)rows(delta), delta.c, (int)rows(base), base.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, delta.h, delta.w, delta.c);
    struct um_refine_args a = {.inverse = inverse};
    um_op_step(t, UM_OP_REFINE, &a, y, delta, base);
    return y;
}

um_tensor um_integral(um_tape *t, um_tensor corners, um_tensor ref, um_tensor project,
                      float reg_scale)
{
    if (!um_op_check(t, UM_OP_INTEGRAL,
                     corners.c == 4 * rows(project) && project.c == 1 && ref.c == 4 &&
                         rows(ref) == rows(corners) && reg_scale > 0,
                     "corners %dx%d, ref %dx%d, %d bins, scale %g", (int)rows(corners), corners.c,
                     (int)rows(ref), ref.c, (int)rows(project), (double)reg_scale))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, corners.h, corners.w, 4);
    struct um_integral_args a = {.reg_scale = reg_scale};
    um_op_step(t, UM_OP_INTEGRAL, &a, y, corners, ref, project);
    return y;
}

um_tensor um_lqe_stats(um_tape *t, um_tensor corners)
{
    if (!um_op_check(t, UM_OP_LQE_STATS, corners.c % 4 == 0 && corners.c >= 16, "%d corner logits",
                     corners.c))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, corners.h, corners.w, UM_LQE_STATS);
    um_op_step(t, UM_OP_LQE_STATS, NULL, y, corners);
    return y;
}

struct um_best_box um_best_box(um_tape *t, um_tensor logits, um_tensor boxes, um_tensor header,
                               int n, um_tensor prompt)
{
    int prompt_bytes = (int)sizeof(struct um_prompt);
    if (!um_op_check(t, UM_OP_BEST_BOX,
                     boxes.c == 4 && rows(boxes) == rows(logits) && header.dtype == UM_U8 &&
                         header.c == UM_HEADER_BYTES && n > 0 && n <= UM_BOXES_MAX &&
                         (!prompt.id || (prompt.dtype == UM_U8 && prompt.c == prompt_bytes &&
                                         prompt.ld == prompt_bytes && rows(prompt) == n)),
                     "%d of logits %dx%d, boxes %dx%d, header of %d bytes, %d prompts of %d", n,
                     (int)rows(logits), logits.c, (int)rows(boxes), boxes.c, header.c,
                     (int)rows(prompt), prompt.c))
        return (struct um_best_box){{0}, {0}};
    struct um_best_box best = {.gate = um_tape_new(t, UM_U8, 1, n, UM_GATE_BYTES),
                               .prompt =
                                   prompt.id ? prompt : um_tape_new(t, UM_U8, 1, n, prompt_bytes)};
    um_op_step(t, UM_OP_BEST_BOX, NULL, best.gate, best.prompt, logits, boxes, header);
    return best;
}
