/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pipeline.h"

#include "base/clock.h"
#include "base/mem.h"
#include "nn/clean.h"
#include "nn/op_ref.h"

um_status um_host_open(const um_pipeline *p, struct geometry *g)
{
    size_t n = (size_t)g->w * (size_t)g->h;
    g->host_logits = um_array(n, sizeof *g->host_logits);
    g->host_mask = um_zalloc(n);
    g->host_weights = um_zalloc(3 * n);
    g->host_stats = um_zalloc(UM_RECORD_BYTES);
    if (p->set.track)
        g->host_memory = um_zalloc(um_track_bytes(g->h, g->w));
    if (p->set.mask_clean)
        g->host_clean = um_zalloc(um_clean_bytes(g->h, g->w));
    return g->host_logits && g->host_mask && g->host_weights && g->host_stats &&
                   (g->host_memory || !p->set.track) && (g->host_clean || !p->set.mask_clean)
               ? UM_OK
               : um_fail(UM_ENOMEM, "host masks of %dx%d", g->w, g->h);
}

void um_host_close(struct geometry *g)
{
    um_free(g->host_logits);
    um_free(g->host_mask);
    um_free(g->host_weights);
    um_free(g->host_stats);
    um_free(g->host_memory);
    um_free(g->host_clean);
}

static struct um_view view_of(void *data, enum um_dtype dtype, int h, int w, int c)
{
    return (struct um_view){.data = data, .dtype = dtype, .h = h, .w = w, .c = c, .ld = c};
}

static struct um_view bytes_of(void *data, size_t n)
{
    return view_of(data, UM_U8, 1, 1, (int)n);
}

/* Weights, statistics and packet of object i of the mask, by the reference kernels. */
static void make_packet(um_pipeline *p, struct geometry *g, int i, float iou)
{
    int h = g->h, w = g->w;
    uint8_t *sent = g->front.slot[0]->data; /* header, pixels */
    struct um_view mask = view_of(g->host_mask, UM_U8, h, w, 1);
    struct um_view weights = view_of(g->host_weights, UM_U8, 3 * h, w, 1);
    struct um_view logits = view_of(g->host_logits, UM_F32, h, w, 1);
    struct um_view score = view_of(&iou, UM_F32, 1, 1, 1);
    struct um_view stats = bytes_of(g->host_stats, UM_RECORD_BYTES);
    struct um_view out =
        bytes_of((uint8_t *)g->packet_slot[0]->data + (size_t)i * g->stride, g->bytes);
    struct um_view gate =
        bytes_of((uint8_t *)g->gate_slot->data + (size_t)i * UM_GATE_BYTES, UM_GATE_BYTES);
    struct um_view head = bytes_of(sent, UM_HEADER_BYTES);
    um_pool *pool = um_pool_take(p->pool ? p->pool : p->dev->pool);
    um_ref_mask_stats(
        &(struct um_call){.t = (struct um_view[]){weights, stats, mask}, .n = 3, .pool = pool});
    um_ref_packet(
        &(struct um_call){.t = (struct um_view[]){out, stats, mask, gate, score, logits, head},
                          .n = 7,
                          .pool = pool});
    if (p->set.mask_clean) {
        struct um_clean_args args = {.h = h, .w = w};
        struct um_view work = bytes_of(g->host_clean, um_clean_bytes(h, w));
        um_ref_clean(&(struct um_call){
            .args = &args, .t = (struct um_view[]){out, work, gate}, .n = 3, .pool = pool});
    }
    if (p->set.track) {
        struct um_view memory = bytes_of(g->host_memory, um_track_bytes(h, w));
        struct um_view x = view_of(sent + UM_HEADER_BYTES, UM_U8, h, w, g->c);
        um_ref_scores(
            &(struct um_call){.t = (struct um_view[]){out, memory, x, head}, .n = 4, .pool = pool});
    }
    um_pool_give(pool);
}

/* Logits and score come in blocking copies, and nothing goes back up. */
um_status um_host_packet(um_pipeline *p, struct geometry *g, int i)
{
    size_t n = (size_t)g->w * (size_t)g->h;
    uint64_t start = um_clock_ns();
    float iou = 0;
    um_status st = um_tape_read(g->packet[0], g->logits, g->host_logits, UM_STAGE_SEGMENT,
                                "legacy mode: mask logits to the host");
    if (st == UM_OK)
        st = um_tape_read(p->decode.tape, p->decode.out.iou, &iou, UM_STAGE_SEGMENT,
                          "legacy mode: score to the host");
    if (st != UM_OK)
        return st;
    for (size_t at = 0; at < n; at++)
        g->host_mask[at] = g->host_logits[at] > 0;
    uint64_t masked = um_clock_ns();
    make_packet(p, g, i, iou);
    p->host_ms[0] += (double)(masked - start) * 1e-6;
    p->host_ms[1] += (double)(um_clock_ns() - masked) * 1e-6;
    return UM_OK;
}
