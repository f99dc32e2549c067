/* SPDX-License-Identifier: Apache-2.0 */
/* The topology of a frame:
 *
 *   upload -> front -+-> detect -> gates -+-> of each object: decode -> mask -> packet -> download
 *                    +-> encode ----------+
 *
 * Speculative gate: all of it is one graph per geometry. Sync gate: two graphs with the gates'
 * records read between; a LOST frame ends there. Legacy host mode: as sync, then each mask's logits
 * come to the host, which makes the packet itself. Keeping track: each packet is scored, and one
 * more graph has, instead of the detector, the prompt that the header brings. With `reuse` each
 * graph has a twin that takes what the networks made of the frame before. */
#include "pipeline/pipeline.h"

#include "nn/clean.h"

#include <string.h>

static um_tensor header_of(um_tape *t, struct geometry *g)
{
    return um_tape_buffer(t, g->front.frame, 0, UM_U8, 1, 1, UM_HEADER_BYTES);
}

static um_tensor image_of(um_tape *t, struct geometry *g)
{
    return um_tape_buffer(t, g->front.frame, UM_HEADER_BYTES, UM_U8, g->h, g->w, g->c);
}

static um_status record_gate(um_pipeline *p, struct geometry *g)
{
    um_status st = um_tape_open(&g->gate, p->dev, "gate");
    if (st != UM_OK)
        return st;
    um_tensor logits = um_tape_import(g->gate, g->detect->tape, g->detect->out.logits);
    um_tensor boxes = um_tape_import(g->gate, g->detect->tape, g->detect->out.boxes);
    um_tensor prompts = {0};
    if (p->segmenter)
        prompts = um_tape_buffer(g->gate, p->prompts, 0, UM_U8, 1, p->set.objects,
                                 (int)sizeof(struct um_prompt));
    g->best = um_best_box(g->gate, logits, boxes, header_of(g->gate, g), p->set.objects, prompts);
    um_keep(g->gate, g->best.gate);
    if (p->set.track)
        um_contact(g->gate, g->best.gate, image_of(g->gate, g));
    return um_tape_compile(g->gate);
}

static um_status record_follow(um_pipeline *p, struct geometry *g)
{
    um_status st = um_tape_open(&g->follow, p->dev, "follow");
    if (st != UM_OK)
        return st;
    um_tensor gate = um_tape_import(g->follow, g->gate, g->best.gate);
    um_tensor prompt =
        um_tape_buffer(g->follow, p->prompts, 0, UM_U8, 1, 1, (int)sizeof(struct um_prompt));
    um_follow(g->follow, gate, prompt, header_of(g->follow, g));
    um_contact(g->follow, gate, image_of(g->follow, g));
    return um_tape_compile(g->follow);
}

static um_status record_packet(um_pipeline *p, struct geometry *g, struct um_mask_tables k, int i)
{
    um_status st = um_tape_open(&g->packet[i], p->dev, "packet");
    if (st != UM_OK)
        return st;
    um_tape *t = g->packet[i];
    if (p->set.dump)
        um_tape_keep_taps(t);
    um_tensor low = um_segmenter_scores(p->segmenter, t, g->tables, k,
                                        um_tape_import(t, p->decode.tape, p->decode.out.low[0]));
    um_tensor tx = um_tape_const(t, g->tables, k.tx, UM_F32, 1, g->w, 4),
              ty = um_tape_const(t, g->tables, k.ty, UM_F32, 1, g->h, 4);
    um_tensor gate = um_tape_import(t, g->gate, um_rows(g->best.gate, i, 1));
    if (p->host_mode) {
        g->logits = um_keep(t, um_tape_new(t, UM_F32, g->h, g->w, 1));
        um_tap_map(t, "mask", um_mask_upsample(t, low, tx, ty, gate, g->logits));
        return um_tape_compile(t);
    }
    struct um_mask_packet m = {
        .low = low,
        .tx = tx,
        .ty = ty,
        .gate = gate,
        .iou = um_tape_import(t, p->decode.tape, p->decode.out.iou),
        .header = header_of(t, g),
        .work = um_tape_const(t, g->tables, g->work, UM_U8, 1, 1, UM_MASK_WORK_BYTES),
        .out = um_tape_buffer(t, g->packets, (size_t)i * g->stride, UM_U8, 1, 1, (int)g->bytes)};
    if (p->set.dump) /* a dump wants the mask of its own */
        um_tap_map(t, "mask", um_mask_upsample(t, low, tx, ty, gate, (um_tensor){0}));
    um_mask_packet(t, &m);
    if (p->set.mask_clean)
        um_clean(
            t, m.out,
            um_tape_const(t, g->tables, g->clean, UM_U8, 1, 1, (int)um_clean_bytes(g->h, g->w)),
            gate, g->h, g->w);
    if (p->set.track)
        um_scores(
            t, m.out,
            um_tape_const(t, g->tables, g->memory, UM_U8, 1, 1, (int)um_track_bytes(g->h, g->w)),
            image_of(t, g), m.header);
    return um_tape_compile(t);
}

static um_status record_packets(um_pipeline *p, struct geometry *g)
{
    struct um_mask_tables k = {.tx = {0, 0}};
    um_status st = um_params_open(&g->tables, p->dev);
    if (st == UM_OK) {
        k = um_segmenter_tables(p->segmenter, g->tables, g->w, g->h);
        um_params_reserve(g->tables, UM_MASK_WORK_BYTES, &g->work);
        if (p->set.mask_clean && !p->host_mode)
            um_params_reserve(g->tables, um_clean_bytes(g->h, g->w), &g->clean);
        if (p->set.track)
            um_params_reserve(g->tables, um_track_bytes(g->h, g->w), &g->memory);
        st = um_params_upload(g->tables);
    }
    for (int i = 0; i < (p->host_mode ? 1 : p->set.objects) && st == UM_OK; i++)
        st = record_packet(p, g, k, i);
    return st;
}

/* Bytes from the first record to the end of the last one of n. */
static size_t packets_bytes(const struct geometry *g, int n)
{
    return (size_t)(n - 1) * g->stride + g->bytes;
}

static um_status plan(um_pipeline *p, struct geometry *g)
{
    enum { ALIGN = 256 };
    struct um_front_target target[2];
    struct um_detect_path *detect = NULL;
    int n = p->set.objects;
    g->bytes = UM_RECORD_BYTES + (size_t)g->h * (size_t)um_mask_row_bytes(g->w);
    g->stride = (g->bytes + ALIGN - 1) / ALIGN * ALIGN;
    um_status st = um_detect_path(&p->detect, g->c, &detect);
    if (st != UM_OK)
        return st;
    g->detect = detect;
    target[0] = um_detect_target(&p->detect, detect, g->w, g->h);
    if (p->segmenter)
        target[1] = um_encode_target(&p->encode, g->w, g->h);
    st = um_front_open(&g->front, p->dev, g->w, g->h, g->c, target, p->segmenter ? 2 : 1,
                       p->set.inflight, &um_dfine_info(p->detector->net)->gain, p->set.track != 0);
    if (st == UM_OK && p->segmenter && !p->host_mode)
        st = um_buf_open(&g->packets, p->dev, packets_bytes(g, n), "packets");
    if (st == UM_OK)
        st = record_gate(p, g);
    if (st == UM_OK && p->set.track)
        st = record_follow(p, g);
    if (st == UM_OK && p->segmenter)
        st = record_packets(p, g);
    if (st == UM_OK)
        st = um_hostbuf_open(&g->gate_slot, p->dev, (size_t)n * UM_GATE_BYTES);
    for (int i = 0; st == UM_OK && i < p->set.inflight; i++)
        st = um_hostbuf_open(&g->packet_slot[i], p->dev, packets_bytes(g, n));
    if (st == UM_OK && p->host_mode)
        st = um_host_open(p, g);
    return st;
}

um_status um_geometry_open(um_pipeline *p, struct geometry *g, int w, int h, int c)
{
    *g = (struct geometry){.w = w, .h = h, .c = c};
    um_status st = plan(p, g);
    if (st != UM_OK)
        um_geometry_close(p, g);
    return st;
}

void um_geometry_close(um_pipeline *p, struct geometry *g)
{
    for (int known = 0; known < 2; known++) {
        struct graphs *all = &g->graphs[known];
        for (int i = 0; i < UM_FRONT_SLOTS; i++)
            um_graph_close(&all->whole[i], p->dev);
        um_graph_close(&all->first, p->dev);
        um_graph_close(&all->followed, p->dev);
        for (int i = 0; i < UM_OBJECTS_MAX; i++)
            um_graph_close(&all->second[i], p->dev);
    }
    for (int i = 0; i < UM_FRONT_SLOTS; i++)
        um_hostbuf_close(&g->packet_slot[i]);
    um_hostbuf_close(&g->gate_slot);
    for (int i = 0; i < UM_OBJECTS_MAX; i++)
        um_tape_close(&g->packet[i]);
    um_buf_close(&g->packets);
    um_params_close(&g->tables);
    um_tape_close(&g->follow);
    um_tape_close(&g->gate);
    um_front_close(&g->front);
    um_host_close(g);
    *g = (struct geometry){0};
}

uint64_t um_geometry_device_bytes(const struct geometry *g)
{
    if (!g->front.tape)
        return 0;
    uint64_t n = um_front_device_bytes(&g->front) + um_tape_arena_bytes(g->gate) +
                 (g->follow ? um_tape_arena_bytes(g->follow) : 0);
    for (int i = 0; i < UM_OBJECTS_MAX; i++)
        if (g->packet[i])
            n += um_tape_arena_bytes(g->packet[i]);
    n += g->packets ? g->packets->size : 0;
    return n + (g->tables ? um_params_bytes(g->tables) : 0);
}

/* ---- the frame as commands ---- */

/* A part of a frame that becomes a graph. `up` and `down` say who books the copies (warm-up runs
 * book as setup); n: objects; known: the networks' results are there. */
struct part {
    um_pipeline *p;
    struct geometry *g;
    const struct lane *l;
    enum um_stage up, down;
    int n;
    bool known;
};

static um_status mark(const struct part *f, enum um_queue q, enum mark m)
{
    return um_event_record(f->p->dev, q, f->l->mark[m]);
}

/* Queue `to` continues only after what `from` has been given so far. */
static um_status order(um_pipeline *p, um_event *event, enum um_queue from, enum um_queue to)
{
    um_status st = um_event_record(p->dev, from, event);
    return st == UM_OK ? um_event_wait(p->dev, to, event) : st;
}

/* Upload, front, and the box: of the detector, or followed. */
static um_status submit_box(const struct part *f, bool detect)
{
    um_pipeline *p = f->p;
    struct geometry *g = f->g;
    um_status st = mark(f, UM_QUEUE_MAIN, MARK_START);
    if (st == UM_OK)
        st = um_front_upload(&g->front, f->l->slot, f->up);
    if (st == UM_OK)
        st = mark(f, UM_QUEUE_MAIN, MARK_UPLOADED);
    if (st == UM_OK)
        st = um_front_run(&g->front);
    if (st == UM_OK && p->speculative && detect && !f->known)
        st = order(p, p->fork, UM_QUEUE_MAIN, UM_QUEUE_SIDE);
    if (st == UM_OK && detect && !f->known)
        st = um_tape_run(g->detect->tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_tape_run(detect ? g->gate : g->follow, UM_QUEUE_MAIN);
    return st == UM_OK ? mark(f, UM_QUEUE_MAIN, MARK_DETECTED) : st;
}

static um_status submit_encode(const struct part *f, enum um_queue q)
{
    um_status st = mark(f, q, MARK_ENCODE_START);
    if (st == UM_OK && !f->known)
        st = um_tape_run(f->p->encode.tape, q);
    return st == UM_OK ? mark(f, q, MARK_ENCODED) : st;
}

static um_status submit_decode(const struct part *f, int i)
{
    const um_pipeline *p = f->p;
    size_t size = sizeof(struct um_prompt);
    um_status st = p->prompts == p->prompt ? UM_OK
                                           : um_copy(p->dev, UM_QUEUE_MAIN, p->prompt, 0,
                                                     p->prompts, (size_t)i * size, size);
    return st == UM_OK ? um_tape_run(p->decode.tape, UM_QUEUE_MAIN) : st;
}

/* One object after the other: a decoder's output lives until its packet is made. */
static um_status submit_objects(const struct part *f)
{
    struct geometry *g = f->g;
    um_status st = UM_OK;
    for (int i = 0; i < f->n && st == UM_OK; i++) {
        st = submit_decode(f, i);
        if (st == UM_OK && i + 1 == f->n)
            st = mark(f, UM_QUEUE_MAIN, MARK_SEGMENTED);
        if (st == UM_OK)
            st = um_tape_run(g->packet[i], UM_QUEUE_MAIN);
    }
    if (st == UM_OK)
        st = um_download(f->p->dev, UM_QUEUE_MAIN, g->packet_slot[f->l->slot], 0, g->packets, 0,
                         packets_bytes(g, f->n), f->down, "packet");
    return st == UM_OK ? mark(f, UM_QUEUE_MAIN, MARK_DONE) : st;
}

static um_status submit_whole(const struct part *f)
{
    um_status st = submit_box(f, true);
    if (st == UM_OK)
        st = submit_encode(f, f->known ? UM_QUEUE_MAIN : UM_QUEUE_SIDE);
    if (st == UM_OK && !f->known)
        st = order(f->p, f->p->join, UM_QUEUE_SIDE, UM_QUEUE_MAIN);
    return st == UM_OK ? submit_objects(f) : st;
}

/* The gates' way to the host. */
static um_status submit_gates(const struct part *f)
{
    struct geometry *g = f->g;
    um_buf *buf = NULL;
    size_t off = 0;
    um_tape_locate(g->gate, g->best.gate, &buf, &off);
    um_status st = um_download(f->p->dev, UM_QUEUE_MAIN, g->gate_slot, 0, buf, off,
                               (size_t)f->n * UM_GATE_BYTES, f->down, "gate");
    return st == UM_OK ? mark(f, UM_QUEUE_MAIN, MARK_DONE) : st;
}

static um_status submit_first(const struct part *f)
{
    um_status st = submit_box(f, true);
    return st == UM_OK ? submit_gates(f) : st;
}

static um_status submit_second(const struct part *f)
{
    um_status st = submit_encode(f, UM_QUEUE_MAIN);
    return st == UM_OK ? submit_objects(f) : st;
}

static um_status submit_followed(const struct part *f)
{
    um_status st = submit_box(f, false);
    if (st != UM_OK || f->p->host_mode)
        return st == UM_OK ? submit_gates(f) : st;
    return submit_second(f);
}

/* Host mode: object n - 1, with the encoder before the first; its logits stay on the device. */
static um_status submit_logits(const struct part *f)
{
    um_status st = f->n == 1 ? submit_encode(f, UM_QUEUE_MAIN) : UM_OK;
    if (st == UM_OK)
        st = submit_decode(f, f->n - 1);
    if (st == UM_OK)
        st = mark(f, UM_QUEUE_MAIN, MARK_SEGMENTED);
    if (st == UM_OK)
        st = um_tape_run(f->g->packet[0], UM_QUEUE_MAIN);
    return st == UM_OK ? mark(f, UM_QUEUE_MAIN, MARK_DONE) : st;
}

static um_status capture(const struct part *f, um_status (*submit)(const struct part *),
                         um_graph **out)
{
    um_status st = um_capture_begin(f->p->dev);
    if (st != UM_OK)
        return st;
    st = submit(f);
    um_status ended = um_capture_end(
        f->p->dev, out); /* also after an error: the queues must not stay in capture */
    return st == UM_OK ? ended : st;
}

static um_status warm_up(um_pipeline *p, struct geometry *g)
{
    struct part f = {.p = p,
                     .g = g,
                     .l = &p->warm,
                     .up = UM_STAGE_SETUP,
                     .down = UM_STAGE_SETUP,
                     .n = p->set.objects};
    struct um_frame_header blank = {.width = (uint32_t)g->w,
                                    .height = (uint32_t)g->h,
                                    .tau_conf = 2,
                                    .label = -1,
                                    .objects = (uint32_t)p->set.objects};
    memset(g->front.slot[0]->data, 0, g->front.bytes);
    memcpy(g->front.slot[0]->data, &blank, sizeof blank);
    um_status st = p->set.track ? submit_followed(&f) : UM_OK;
    if (st == UM_OK)
        st = p->speculative ? submit_whole(&f) : submit_first(&f);
    if (st == UM_OK && p->segmenter && !p->speculative && !p->host_mode)
        st = submit_second(&f);
    for (f.n = 1; st == UM_OK && p->host_mode && f.n <= p->set.objects; f.n++)
        st = submit_logits(&f);
    return st == UM_OK ? um_event_sync(p->dev, p->warm.mark[MARK_DONE], UM_STAGE_SETUP, "warm-up")
                       : st;
}

static um_status capture_graphs(um_pipeline *p, struct geometry *g, bool known)
{
    struct graphs *out = &g->graphs[known];
    um_status st = UM_OK;
    struct part f = {.p = p,
                     .g = g,
                     .l = p->lane,
                     .up = UM_STAGE_UPLOAD,
                     .down = UM_STAGE_PACKET,
                     .n = p->set.objects,
                     .known = known};
    if (p->set.track) {
        f.down = p->host_mode ? UM_STAGE_DETECT : UM_STAGE_PACKET;
        st = capture(&f, submit_followed, &out->followed);
        f.down = UM_STAGE_PACKET;
    }
    if (p->speculative) {
        for (int i = 0; i < p->set.inflight && st == UM_OK; i++) {
            f.l = &p->lane[i];
            st = capture(&f, submit_whole, &out->whole[i]);
        }
        return st;
    }
    f.down = UM_STAGE_DETECT;
    if (st == UM_OK)
        st = capture(&f, submit_first, &out->first);
    f.down = UM_STAGE_PACKET;
    for (f.n = 1; st == UM_OK && p->segmenter && f.n <= p->set.objects; f.n++)
        st = capture(&f, p->host_mode ? submit_logits : submit_second, &out->second[f.n - 1]);
    return st;
}

um_status um_geometry_capture(um_pipeline *p, struct geometry *g, bool warm)
{
    um_status st = warm ? warm_up(p, g) : UM_OK;
    if (st == UM_OK)
        st = capture_graphs(p, g, false);
    return st == UM_OK && p->set.reuse ? capture_graphs(p, g, true) : st;
}
