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

/* Legacy mode: logits and score come to the host in blocking copies; mask, weights, statistics and
 * packet are made here by the reference kernels, and nothing goes back up. */
um_status um_host_packet(um_pipeline *p, struct geometry *g, int i)
{
    um_buf *buf = NULL;
    size_t off = 0, n = (size_t)g->w * (size_t)g->h;
    uint64_t start = um_clock_ns();
    float iou = 0;
    um_tape_locate(g->packet[0], g->logits, &buf, &off);
    um_status st = um_download_now(p->dev, g->host_logits, buf, off, n * sizeof(float),
                                   UM_STAGE_SEGMENT, "legacy mode: mask logits to the host");
    if (st != UM_OK)
        return st;
    um_tape_locate(p->decode.tape, p->decode.out.iou, &buf, &off);
    st = um_download_now(p->dev, &iou, buf, off, sizeof iou, UM_STAGE_SEGMENT,
                         "legacy mode: score to the host");
    if (st != UM_OK)
        return st;
    for (size_t at = 0; at < n; at++)
        g->host_mask[at] = g->host_logits[at] > 0;
    uint64_t masked = um_clock_ns();
    um_pool *pool = um_pool_take(p->pool ? p->pool : p->dev->pool);
    struct um_view mask = {
        .data = g->host_mask, .dtype = UM_U8, .h = g->h, .w = g->w, .c = 1, .ld = 1};
    struct um_view weights = {
        .data = g->host_weights, .dtype = UM_U8, .h = 3 * g->h, .w = g->w, .c = 1, .ld = 1};
    struct um_view stats = {.data = g->host_stats,
                            .dtype = UM_U8,
                            .h = 1,
                            .w = 1,
                            .c = UM_RECORD_BYTES,
                            .ld = UM_RECORD_BYTES};
    um_ref_mask_stats(
        &(struct um_call){.t = (struct um_view[]){weights, stats, mask}, .n = 3, .pool = pool});
    struct um_view out = {.data = (uint8_t *)g->packet_slot[0]->data + (size_t)i * g->stride,
                          .dtype = UM_U8,
                          .h = 1,
                          .w = 1,
                          .c = (int)g->bytes,
                          .ld = (int)g->bytes};
    struct um_view gate = {.data = (uint8_t *)g->gate_slot->data + (size_t)i * UM_GATE_BYTES,
                           .dtype = UM_U8,
                           .h = 1,
                           .w = 1,
                           .c = UM_GATE_BYTES,
                           .ld = UM_GATE_BYTES};
    struct um_view score = {.data = &iou, .dtype = UM_F32, .h = 1, .w = 1, .c = 1, .ld = 1};
    struct um_view logits = {
        .data = g->host_logits, .dtype = UM_F32, .h = g->h, .w = g->w, .c = 1, .ld = 1};
    uint8_t *sent = g->front.slot[0]->data; /* header, pixels */
    struct um_view head = {
        .data = sent, .dtype = UM_U8, .h = 1, .w = 1, .c = UM_HEADER_BYTES, .ld = UM_HEADER_BYTES};
    um_ref_packet(
        &(struct um_call){.t = (struct um_view[]){out, stats, mask, gate, score, logits, head},
                          .n = 7,
                          .pool = pool});
    if (p->set.mask_clean) {
        struct um_clean_args args = {.h = g->h, .w = g->w};
        int bytes = (int)um_clean_bytes(g->h, g->w);
        struct um_view work = {
            .data = g->host_clean, .dtype = UM_U8, .h = 1, .w = 1, .c = bytes, .ld = bytes};
        um_ref_clean(&(struct um_call){
            .args = &args, .t = (struct um_view[]){out, work, gate}, .n = 3, .pool = pool});
    }
    if (p->set.track) {
        struct um_view memory = {.data = g->host_memory,
                                 .dtype = UM_U8,
                                 .h = 1,
                                 .w = 1,
                                 .c = (int)um_track_bytes(g->h, g->w),
                                 .ld = (int)um_track_bytes(g->h, g->w)};
        struct um_view x = {.data = sent + UM_HEADER_BYTES,
                            .dtype = UM_U8,
                            .h = g->h,
                            .w = g->w,
                            .c = g->c,
                            .ld = g->c};
        um_ref_scores(
            &(struct um_call){.t = (struct um_view[]){out, memory, x, head}, .n = 4, .pool = pool});
    }
    um_pool_give(pool);
    p->host_ms[0] += (double)(masked - start) * 1e-6;
    p->host_ms[1] += (double)(um_clock_ns() - masked) * 1e-6;
    return UM_OK;
}
