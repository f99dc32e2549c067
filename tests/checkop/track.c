/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of a pipeline that keeps track: contact, follow, scores. */
#include "checkop.h"
#include "nn/op_track.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An image whose cells have little or much range. */
static void make_image(struct job *job, int h, int w)
{
    int c = chance(70) ? 1 : 3, range = pick(1, 30), base = pick(0, 200);
    uint8_t *x = input_u8(job, h, w, c)->data;
    for (int i = 0; i < h * w * c; i++)
        x[i] = (uint8_t)(chance(10) ? pick(0, 255) : base + pick(0, range));
}

static void random_contact(struct job *job)
{
    int h = pick(1, 60), w = pick(1, 200);
    job->op = UM_OP_CONTACT;
    snprintf(job->what, sizeof job->what, "[%d,%d]", h, w);
    uint8_t *gate = output(job, UM_U8, 1, 1, UM_GATE_BYTES, 0)->data;
    for (int i = 0; i < UM_GATE_BYTES; i++)
        gate[i] = (uint8_t)pick(0, 255);
    job->preset = 1;
    make_image(job, h, w);
}

static void random_follow(struct job *job)
{
    struct um_frame_header header = {.width = (uint32_t)pick(1, 2000),
                                     .height = (uint32_t)pick(1, 2000),
                                     .follow_label = pick(-1, 90),
                                     .follow_score = uniform()};
    for (int i = 0; i < 4; i++)
        header.follow_box[i] = 500 * uniform();
    job->op = UM_OP_FOLLOW;
    output(job, UM_U8, 1, 1, UM_GATE_BYTES, 0);
    output(job, UM_U8, 1, 1, (int)sizeof(struct um_prompt), 0);
    memcpy(input_u8(job, 1, 1, UM_HEADER_BYTES)->data, &header, sizeof header);
}

/* Some blobs, or noise. */
static void draw_mask(uint8_t *mask, int h, int w)
{
    int density = chance(20) ? pick(0, 100) : 0;
    for (int i = 0; i < h * w; i++)
        mask[i] = chance(density);
    for (int n = density ? 0 : pick(0, 4); n > 0; n--) {
        int x0 = pick(0, w - 1), y0 = pick(0, h - 1), x1 = pick(x0, w), y1 = pick(y0, h);
        for (int y = y0; y < y1; y++)
            for (int x = x0; x < x1; x++)
                mask[y * w + x] = 1;
    }
}

/* The packet of a mask, as the steps before would leave it. */
static void fill_packet(struct um_view *packet, const uint8_t *mask, int h, int w)
{
    struct um_gate gate = {.flags = chance(85) ? UM_GATE_OK : UM_GATE_BELOW_TAU,
                           .contact = (float)pick(0, 8) / 8};
    struct um_view m = bytes(h, w, 1), weights = bytes(3 * h, w, 1),
                   record = bytes(1, 1, UM_RECORD_BYTES), of_gate = bytes(1, 1, UM_GATE_BYTES),
                   header = bytes(1, 1, UM_HEADER_BYTES);
    um_pool *pool = NULL;
    if (um_pool_open(&pool, 1) != UM_OK)
        need(NULL);
    for (int i = 0; i < 4; i++)
        gate.box[i] = (float)(i % 2 ? h : w) * (i < 2 ? 0.25f * uniform() : 0.5f + uniform());
    memcpy(m.data, mask, (size_t)h * (size_t)w);
    memcpy(of_gate.data, &gate, sizeof gate);
    ref(um_ref_mask_stats, NULL, pool, (struct um_view[]){weights, record, m}, 3);
    ref(um_ref_packet, NULL, pool,
        (struct um_view[]){*packet, record, m, of_gate, none, none, header}, 7);
    um_pool_close(&pool);
    free(m.data);
    free(weights.data);
    free(record.data);
    free(of_gate.data);
    free(header.data);
}

static void fill_memory(struct um_view *memory, const uint8_t *mask, int h, int w)
{
    struct um_track m = {.turn = (uint32_t)pick(0, 1), .last = (uint32_t)pick(0, 1)};
    uint32_t words = (uint32_t)(w + 31) / 32,
             *bits = (uint32_t *)(void *)((char *)memory->data + um_track_bits_at(h, w));
    int level = pick(0, 255), range = chance(90) ? pick(1, 100) : 1;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < UM_PATCH_PIXELS; k++) {
            m.patch[i][k] = (uint8_t)(level + pick(0, range));
            m.inside[i][k] = chance(50);
        }
    for (int i = 0; i < 4; i++)
        m.box[i] = (float)(i % 2 ? h : w) * (i < 2 ? 0.25f * uniform() : 0.5f + uniform());
    memset(memory->data, 0, (size_t)memory->c);
    bits += m.turn * (size_t)h * words;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            bits[(uint32_t)y * words + (uint32_t)x / 32] |= (uint32_t)mask[y * w + x] << x % 32;
            m.area += mask[y * w + x];
        }
    memcpy(memory->data, &m, sizeof m);
}

static void random_scores(struct job *job)
{
    int h = chance(20) ? pick(1, 5) : pick(1, 70), w = chance(20)   ? 32 * pick(1, 4)
                                                       : chance(10) ? pick(500, 1500)
                                                                    : pick(1, 110);
    if (chance(4)) { /* fewer rows per block fit into shared memory */
        h = pick(1, 6);
        w = pick(16000, 32000);
    }
    struct um_frame_header header = {.track = (uint32_t)pick(0, 7)};
    uint8_t *mask = need(malloc((size_t)h * (size_t)w));
    job->op = UM_OP_SCORES;
    job->preset = 3;
    struct um_view *packet =
        output(job, UM_U8, 1, 1, UM_RECORD_BYTES + h * um_mask_row_bytes(w), 0);
    draw_mask(mask, h, w);
    fill_packet(packet, mask, h, w);
    struct um_view *memory = output(job, UM_U8, 1, 1, (int)um_track_bytes(h, w), 0);
    if (chance(50))
        draw_mask(mask, h, w);
    fill_memory(memory, mask, h, w);
    make_image(job, h, w);
    memcpy(input_u8(job, 1, 1, UM_HEADER_BYTES)->data, &header, sizeof header);
    snprintf(job->what, sizeof job->what, "[%d,%d] track %u", h, w, header.track);
    free(mask);
}

const struct op_case track_cases[] = {
    {UM_OP_CONTACT, random_contact, 40, 0x0, NULL},
    {UM_OP_FOLLOW, random_follow, 10, 0x0, NULL},
    {UM_OP_SCORES, random_scores, 150, 0x0, NULL},
    {0},
};
