/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op_sam.h"

#include "nn/clean.h"

static int64_t rows(um_tensor x)
{
    return (int64_t)x.h * x.w;
}

um_tensor um_prompt_tokens(um_tape *t, um_tensor prompt, um_tensor table, um_tensor gauss,
                           const struct um_prompt_args *a)
{
    int points = a->points, n = points + (a->box ? 2 : points ? 1 : 0);
    if (!um_op_check(t, UM_OP_PROMPT,
                     prompt.dtype == UM_U8 && prompt.c == (int)sizeof(struct um_prompt) &&
                         rows(table) == 10 && rows(gauss) == 2 && table.c == 2 * gauss.c &&
                         table.ld == table.c && gauss.ld == gauss.c,
                     "prompt of %d bytes, table %dx%d, frequencies %dx%d", prompt.c,
                     (int)rows(table), table.c, (int)rows(gauss), gauss.c) ||
        !um_op_check(t, UM_OP_PROMPT, points >= 0 && points <= UM_POINTS_MAX && a->canvas > 0,
                     "%d points (at most %d) and %s box", points, UM_POINTS_MAX,
                     a->box ? "a" : "no"))
        return (um_tensor){0};
    um_tensor y = um_tape_new(t, UM_F32, 1, 5 + n, table.c);
    um_op_step(t, UM_OP_PROMPT, a, y, prompt, table, gauss);
    return y;
}

static bool is_gate(um_tensor gate)
{
    return !gate.id || (gate.dtype == UM_U8 && gate.c == UM_GATE_BYTES);
}

um_tensor um_mask_upsample(um_tape *t, um_tensor low, um_tensor tx, um_tensor ty, um_tensor gate,
                           um_tensor logits)
{
    int h = (int)rows(ty), w = (int)rows(tx);
    if (!um_op_check(t, UM_OP_MASK,
                     low.dtype == UM_F32 && low.c == 1 && low.h >= 3 && low.w >= 3 && tx.c == 4 &&
                         tx.ld == 4 && ty.c == 4 && ty.ld == 4 && is_gate(gate),
                     "logits [%d,%d,%d], tables %d and %d wide", low.h, low.w, low.c, tx.c, ty.c) ||
        !um_op_check(t, UM_OP_MASK, !logits.id || (rows(logits) == (int64_t)h * w && logits.c == 1),
                     "full-size logits are [%d,%d,%d], want [%d,%d,1]", logits.h, logits.w,
                     logits.c, h, w))
        return (um_tensor){0};
    um_tensor mask = um_tape_new(t, UM_U8, h, w, 1);
    um_op_step(t, UM_OP_MASK, NULL, mask, logits, low, tx, ty, gate);
    return mask;
}

struct um_mask_stats um_mask_statistics(um_tape *t, um_tensor mask)
{
    struct um_mask_stats s = {{0}, {0}};
    if (!um_op_check(t, UM_OP_MASK_STATS, mask.dtype == UM_U8 && mask.c == 1 && mask.ld == 1,
                     "mask is [%d,%d,%d]", mask.h, mask.w, mask.c))
        return s;
    s.weights = um_tape_new(t, UM_U8, 3 * mask.h, mask.w, 1);
    s.record = um_tape_new(t, UM_U8, 1, 1, UM_RECORD_BYTES);
    um_op_step(t, UM_OP_MASK_STATS, NULL, s.weights, s.record, mask);
    return s;
}

um_tensor um_packet_op(um_tape *t, um_tensor stats, um_tensor mask, um_tensor gate, um_tensor iou,
                       um_tensor low, um_tensor header, um_tensor out)
{
    int bytes = UM_RECORD_BYTES + mask.h * um_mask_row_bytes(mask.w);
    if (!um_op_check(t, UM_OP_PACKET, !out.id || (out.dtype == UM_U8 && out.c == bytes),
                     "packet of %d bytes, want %d", out.c, bytes) ||
        !um_op_check(t, UM_OP_PACKET,
                     stats.c == UM_RECORD_BYTES && header.c == UM_HEADER_BYTES && is_gate(gate) &&
                         mask.dtype == UM_U8 && mask.c == 1 && mask.ld == 1,
                     "record of %d bytes, header of %d, mask [%d,%d,%d]", stats.c, header.c, mask.h,
                     mask.w, mask.c))
        return (um_tensor){0};
    um_tensor y = out.id ? out : um_tape_new(t, UM_U8, 1, 1, bytes);
    um_op_step(t, UM_OP_PACKET, NULL, y, stats, mask, gate, iou, low, header);
    return y;
}

void um_clean(um_tape *t, um_tensor packet, um_tensor work, um_tensor gate, int h, int w)
{
    struct um_clean_args a = {.h = h, .w = w};
    int bytes = UM_RECORD_BYTES + h * um_mask_row_bytes(w);
    int64_t need = (int64_t)um_clean_bytes(h, w);
    if (um_op_check(t, UM_OP_CLEAN, packet.c == bytes && work.c == need && is_gate(gate),
                    "packet of %d bytes, want %d; work of %d, want %lld", packet.c, bytes, work.c,
                    (long long)need))
        um_op_step(t, UM_OP_CLEAN, &a, packet, work, gate);
}

static bool is_beyond(um_tensor beyond)
{
    return beyond.dtype == UM_U8 && beyond.c == (int)sizeof(struct um_beyond);
}

void um_reach(um_tape *t, um_tensor beyond, um_tensor x, const struct um_reach_args *a)
{
    if (um_op_check(t, UM_OP_REACH,
                    is_beyond(beyond) && a->n > 0 && a->n <= UM_REACH_STEPS && x.dtype == UM_F32 &&
                        x.ld == x.c && x.h == x.w,
                    "%d steps, want 1 to %d, and a canvas of floats", a->n, UM_REACH_STEPS))
        um_op_step(t, UM_OP_REACH, a, beyond, x);
}

void um_beyond(um_tape *t, um_tensor x, um_tensor kept, um_tensor beyond,
               const struct um_beyond_args *a)
{
    if (um_op_check(t, UM_OP_BEYOND,
                    is_beyond(beyond) && a->step >= 0 && a->step < UM_REACH_STEPS &&
                        x.dtype == UM_F32 && x.ld == x.c && x.h == x.w && kept.dtype == UM_F32 &&
                        kept.c == a->n * x.w * x.c,
                    "%d numbers for %d rows of [%d,%d,%d]", kept.c, a->n, x.h, x.w, x.c))
        um_op_step(t, UM_OP_BEYOND, a, x, kept, beyond);
}

/* src = (dst + 0.5)*in/out - 0.5, clamped at 0 (PyTorch, area_pixel_compute_source_index); taps i,
 * min(i+1, in-1). */
static int source(int dst, int in, int out, double *fraction)
{
    double src = (dst + 0.5) * ((double)in / out) - 0.5;
    src = src < 0 ? 0 : src;
    int i = (int)src;
    i = i > in - 1 ? in - 1 : i;
    *fraction = i < in - 1 ? src - i : 0;
    return i;
}

void um_mask_taps(float *taps, int n4, int canvas, int used, int out)
{
    for (int o = 0; o < out; o++, taps += 4) {
        double outer, inner, weight[3] = {0};
        int j = source(o, used, out, &outer);
        int first = source(j, n4, canvas, &inner);
        first = first > n4 - 3 ? n4 - 3 : first;
        for (int k = 0; k < 2; k++) {
            int canvas_at = j + k < used ? j + k : used - 1;
            double part = k ? outer : 1 - outer;
            int at = source(canvas_at, n4, canvas, &inner) - first;
            if (part == 0)
                continue;
            weight[at] += part * (1 - inner);
            if (inner != 0)
                weight[at + 1] += part * inner;
        }
        taps[0] = (float)first;
        for (int k = 0; k < 3; k++)
            taps[1 + k] = (float)weight[k];
    }
}
