/* SPDX-License-Identifier: Apache-2.0 */
/* Plain-C kernel of um_clean(): its specification. */
#include "nn/bits.h"
#include "nn/clean.h"
#include "nn/op_ref.h"
#include "nn/op_sam.h"

#include <string.h>

static void gather(const struct um_clean_field *f, uint32_t *label)
{
    for (int phase = UM_CLEAN_BEGIN; phase < UM_CLEAN_PHASES; phase++)
        for (int y = f->y0; y < f->y1; y++)
            for (int x = um_clean_next(f, y, f->x0, false); x < f->x1;
                 x = um_clean_next(f, y, um_clean_next(f, y, x, true), false))
                um_clean_visit(f, label, (enum um_clean_phase)phase, y, x);
}

static uint32_t find_largest(const struct um_clean_field *f, const uint32_t *label)
{
    uint32_t largest = 0;
    for (int y = f->y0; y < f->y1; y++)
        for (int x = um_clean_next(f, y, f->x0, false); x < f->x1;
             x = um_clean_next(f, y, um_clean_next(f, y, x, true), false)) {
            uint32_t area = um_clean_area(f, label, y, x);
            largest = area > largest ? area : largest;
        }
    return largest;
}

/* In `out`, the chosen pixels of the field: those alone, or (`flip`) beside what is set. Returns
 * how many pixels change. */
static uint32_t choose(uint32_t *out, const struct um_clean_field *f, const uint32_t *label,
                       uint32_t largest)
{
    uint32_t changed = 0;
    for (int y = f->y0; y < f->y1; y++)
        for (int i = f->x0 / 32; 32 * i < f->x1; i++) {
            ptrdiff_t at = (ptrdiff_t)y * f->words + i;
            uint32_t was = f->bits[at], is = um_clean_choose(f, label, largest, y, i);
            out[at] = f->flip ? was | is : is;
            changed += (uint32_t)__builtin_popcount(out[at] ^ was);
        }
    return changed;
}

/* Statistics as those of um_mask_statistics(), of a mask that lies within rows y0..y1-1. */
static void measure(struct um_record *r, const struct um_bits *b, int y0, int y1)
{
    int32_t box[4] = {b->w, b->h, 0, 0};
    r->area_px = r->edge_px = r->in_px = r->out_px = 0;
    r->sum_x = r->sum_y = 0;
    for (int y = y0 < 2 ? 0 : y0 - 2; y < y1 + 2 && y < b->h; y++)
        for (int i = 0; i < b->words; i++) {
            uint32_t m = um_bits_word(b, y, i), wide = um_bits_dilated(b, y, i, 2);
            if (!wide)
                continue;
            uint32_t in = um_bits_eroded(b, y, i);
            r->in_px += (uint32_t)__builtin_popcount(in);
            r->edge_px += (uint32_t)__builtin_popcount(um_bits_dilated(b, y, i, 1) & ~in);
            r->out_px += (uint32_t)__builtin_popcount(wide & ~m);
            for (uint32_t rest = m; rest; rest &= rest - 1) {
                int x = 32 * i + __builtin_ctz(rest);
                r->area_px++;
                r->sum_x += (uint64_t)x;
                r->sum_y += (uint64_t)y;
                box[0] = x < box[0] ? x : box[0];
                box[1] = y < box[1] ? y : box[1];
                box[2] = x + 1 > box[2] ? x + 1 : box[2];
                box[3] = y + 1;
            }
        }
    memset(r->mask_box, 0, sizeof r->mask_box);
    if (r->area_px)
        memcpy(r->mask_box, box, sizeof box);
}

void um_ref_clean(const struct um_call *call)
{
    const struct um_clean_args *a = call->args;
    struct um_record *packet = call->t[0].data;
    uint32_t *bits = (uint32_t *)(packet + 1), *label = call->t[1].data,
             *kept = label + um_clean_bits_at(a->h, a->w) / sizeof *label;
    struct um_record r;
    memcpy(&r, packet, sizeof r);
    r.removed_px = r.filled_px = 0;
    if (r.area_px) {
        struct um_clean_field f = um_clean_pieces(&r, call->t[2].data, bits, a->h, a->w);
        gather(&f, label);
        uint32_t largest = find_largest(&f, label);
        r.removed_px = choose(kept, &f, label, largest);
        f = um_clean_holes(&f, kept);
        gather(&f, label);
        r.filled_px = choose(bits, &f, label, largest);
        if (r.removed_px || r.filled_px)
            measure(&r, &(struct um_bits){bits, a->h, a->w, um_clean_words(a->w)}, f.y0, f.y1);
    }
    memcpy(packet, &r, sizeof r);
}
