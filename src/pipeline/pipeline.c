/* SPDX-License-Identifier: Apache-2.0 */
/* The one file that knows the topology of a frame:
 *
 *     upload -> front -+-> detect -> gate -+-> decode -> mask -> statistics -> packet -> download
 *                      +-> encode ---------+
 *
 * Speculative gate: all of it is one graph per geometry. Sync gate: two graphs with the 64-byte
 * gate record read between; a LOST frame ends there. Legacy host mode: as sync, then the mask's
 * logits come to the host, which makes the packet itself. */
#include "ultramotion/pipeline.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/record.h"
#include "nn/block.h"
#include "nn/op_dfine.h"
#include "nn/op_ref.h"
#include "pipeline/detector.h"
#include "pipeline/dump.h"
#include "pipeline/packet.h"
#include "pipeline/segmenter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { GEOMETRIES = 4 };
static_assert((int)UM_INFLIGHT_MAX == (int)UM_FRONT_SLOTS, "a slot for each frame in flight");

enum mark {
    MARK_START,
    MARK_UPLOADED,
    MARK_DETECTED,
    MARK_ENCODE_START,
    MARK_ENCODED,
    MARK_SEGMENTED,
    MARK_DONE,
    MARKS
};

/* Everything that depends on the size of the picture. */
struct geometry {
    int w, h, c;
    uint64_t used; /* frame count at last use: the oldest of four makes room */
    struct um_front front;
    struct um_detect_path *detect;
    um_tape *gate;
    struct um_best_box best;
    um_params *tables;
    um_const work;   /* of um_mask_packet() */
    um_tape *packet; /* mask, statistics, packet; in host mode only the logits */
    um_tensor logits, record;
    um_hostbuf *gate_slot, *packet_slot[UM_FRONT_SLOTS];
    um_graph *whole[UM_FRONT_SLOTS], *first, *second;
    /* host mode: the host's own mask, statistics and packet */
    float *host_logits;
    uint8_t *host_mask, *host_weights, *host_stats;
};

/* The host's side of a frame in flight: which of the pinned slots are its own, and when its stages
 * passed. The graphs of a geometry differ in this alone. */
struct lane {
    int slot;
    um_event *mark[MARKS];
};

/* A frame in flight, and its packet as far as it is known. */
struct flight {
    struct geometry *g;
    um_frame *frame;
    uint64_t sent_ns;
    um_packet packet;
    um_transfers transfers; /* booked when it was sent */
};

struct um_pipeline {
    um_pipeline_settings set;
    um_device *dev;
    um_detector *detector;
    um_segmenter *segmenter;
    bool host_mode, speculative;
    um_pool
        *pool; /* host mode on a device without one: where the host's part of a packet is made */
    struct um_decode_path *decode;
    struct geometry geometry[GEOMETRIES];
    struct lane lane[UM_FRONT_SLOTS], warm; /* warm: of warm-ups, beside frames in flight */
    um_event *fork, *join;
    struct flight flight[UM_FRONT_SLOTS]; /* frame n in flight[n % inflight] */
    uint64_t sent, received;
    struct geometry *last; /* of the last packet */
    bool encoded;          /* the last packet's frame ran the segmenter */
    double host_ms[2];     /* host mode: of the mask, and of the rest of the packet */
    um_packet_pool *packets;
    const um_packet *packet; /* the last one received */
};

static const um_pipeline_settings defaults = {
    .conf = 0.5f, .label = -1, .assert_up = -1, .assert_down = -1, .inflight = 1};

void um_pipeline_settings_init(um_pipeline_settings *s, size_t struct_size)
{
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

static um_status check_settings(const um_pipeline_settings *s)
{
    if (!s->detector)
        return um_fail(UM_EINVAL, "um_pipeline_open: no detector");
    um_device *dev = um_detector_device(s->detector);
    if (s->segmenter && um_segmenter_device(s->segmenter) != dev)
        return um_fail(
            UM_EINVAL,
            "detector on device %s, segmenter on device %s: both must be opened on the same device",
            um_device_name(dev), um_device_name(um_segmenter_device(s->segmenter)));
    if (!(s->conf >= 0 && s->conf <= 1))
        return um_fail(UM_EINVAL, "conf %g: want 0 to 1", (double)s->conf);
    if (s->label < -1 || s->label >= um_detector_classes(s->detector))
        return um_fail(UM_EINVAL, "class %d: the detector has classes 0 to %d", s->label,
                       um_detector_classes(s->detector) - 1);
    if (s->crop[2] < 0 || s->crop[3] < 0 || s->crop[0] < 0 || s->crop[1] < 0 ||
        (s->crop[2] == 0) != (s->crop[3] == 0))
        return um_fail(UM_EINVAL, "crop %d,%d,%d,%d: want x,y >= 0 and w,h > 0", s->crop[0],
                       s->crop[1], s->crop[2], s->crop[3]);
    if (s->inflight < 1 || s->inflight > UM_INFLIGHT_MAX)
        return um_fail(UM_EINVAL, "%d frames in flight, want 1 to %d", s->inflight,
                       UM_INFLIGHT_MAX);
    if (dev->caps.shared && (s->assert_up >= 0 || s->assert_down >= 0))
        return um_fail(UM_EINVAL,
                       "device %s shares the host's memory: there are no transfers to assert (use "
                       "guard or cuda)",
                       um_device_name(dev));
    const um_detector *d = s->detector;
    if (s->dump && (((d->path[0].tape || d->path[1].tape) && !d->keep_taps) ||
                    (s->segmenter && s->segmenter->encode && !s->segmenter->keep_taps)))
        return um_fail(UM_EINVAL,
                       "dump: the networks have already run without keeping their intermediates");
    return UM_OK;
}

int um_pipeline_inflight(const um_pipeline *p)
{
    return p->set.inflight;
}

static um_status open_lane(um_pipeline *p, struct lane *l, int slot)
{
    um_status st = UM_OK;
    l->slot = slot;
    for (int i = 0; i < MARKS && st == UM_OK; i++)
        st = um_event_open_timed(&l->mark[i], p->dev);
    return st;
}

static void close_lane(um_pipeline *p, struct lane *l)
{
    for (int i = 0; i < MARKS; i++)
        um_event_close(&l->mark[i], p->dev);
}

um_status um_pipeline_open(um_pipeline **out, const um_pipeline_settings *settings)
{
    um_mask_mode mode = UM_MASK_DEVICE;
    um_pipeline_settings own = defaults;
    if (!out || !settings)
        return um_fail(UM_EINVAL, "um_pipeline_open: %s is NULL", out ? "settings" : "out");
    *out = NULL;
    um_status st = um_record_in(&own, sizeof own, settings, "um_pipeline_settings");
    settings = &own;
    if (st == UM_OK)
        st = check_settings(settings);
    if (st == UM_OK)
        st = um_mask_mode_resolve(settings->sam_as_numpy,
                                  settings->segmenter ? settings->segmenter->mode : UM_MASK_AUTO,
                                  &mode);
    if (st != UM_OK)
        return st;
    um_pipeline *p = um_zalloc(sizeof *p);
    if (!p)
        return um_fail(UM_ENOMEM, "pipeline");
    p->set = *settings;
    p->detector = settings->detector;
    p->segmenter = settings->segmenter;
    p->dev = um_detector_device(p->detector);
    p->host_mode = mode == UM_MASK_HOST && p->segmenter;
    p->speculative = !p->host_mode && p->segmenter &&
                     (settings->gate == UM_GATE_SPECULATIVE ||
                      (settings->gate == UM_GATE_AUTO && p->dev->caps.concurrent));
    if (!p->speculative) /* what follows depends on the answer */
        p->set.inflight = 1;
    p->detector->keep_taps |= settings->dump != 0;
    if (p->segmenter)
        p->segmenter->keep_taps |= settings->dump != 0;
    st = um_packet_pool_open(&p->packets);
    if (st == UM_OK && p->host_mode && !p->dev->pool)
        st = um_pool_open(&p->pool, 0);
    if (st == UM_OK && p->segmenter)
        st = um_segmenter_decoder(p->segmenter, 0, true, false, false, &p->decode);
    if (st == UM_OK)
        st = open_lane(p, &p->warm, 0);
    for (int i = 0; i < p->set.inflight && st == UM_OK; i++)
        st = open_lane(p, &p->lane[i], i);
    if (st == UM_OK)
        st = um_event_open(&p->fork, p->dev);
    if (st == UM_OK)
        st = um_event_open(&p->join, p->dev);
    um_ledger_limit(p->dev, settings->assert_up, settings->assert_down);
    if (st != UM_OK)
        um_pipeline_close(&p);
    *out = p;
    return st;
}

static void close_geometry(um_pipeline *p, struct geometry *g)
{
    for (int i = 0; i < UM_FRONT_SLOTS; i++)
        um_graph_close(&g->whole[i], p->dev);
    um_graph_close(&g->first, p->dev);
    um_graph_close(&g->second, p->dev);
    for (int i = 0; i < UM_FRONT_SLOTS; i++)
        um_hostbuf_close(&g->packet_slot[i]);
    um_hostbuf_close(&g->gate_slot);
    um_tape_close(&g->packet);
    um_params_close(&g->tables);
    um_tape_close(&g->gate);
    um_front_close(&g->front);
    um_free(g->host_logits);
    um_free(g->host_mask);
    um_free(g->host_weights);
    um_free(g->host_stats);
    *g = (struct geometry){0};
}

static struct lane *lane_of(um_pipeline *p, uint64_t n)
{
    return &p->lane[n % (uint64_t)p->set.inflight];
}

static struct flight *flight_of(um_pipeline *p, uint64_t n)
{
    return &p->flight[n % (uint64_t)p->set.inflight];
}

void um_pipeline_close(um_pipeline **pipeline)
{
    um_pipeline *p = *pipeline;
    if (!p)
        return;
    for (; p->received < p->sent; p->received++) {
        um_event_sync(p->dev, lane_of(p, p->received)->mark[MARK_DONE], UM_STAGE_DEBUG,
                      "close with a frame in flight");
        um_frame_unref(&flight_of(p, p->received)->frame);
    }
    for (int i = 0; i < GEOMETRIES; i++)
        close_geometry(p, &p->geometry[i]);
    for (int i = 0; i < UM_FRONT_SLOTS; i++)
        close_lane(p, &p->lane[i]);
    close_lane(p, &p->warm);
    um_event_close(&p->fork, p->dev);
    um_event_close(&p->join, p->dev);
    um_pool_close(&p->pool);
    um_packet_unref(&p->packet);
    um_packet_pool_close(&p->packets);
    um_ledger_limit(p->dev, -1, -1);
    um_free(p);
    *pipeline = NULL;
}

/* ---- one geometry ---- */

static um_tensor header_of(um_tape *t, struct geometry *g)
{
    return um_tape_buffer(t, g->front.frame, 0, UM_U8, 1, 1, UM_HEADER_BYTES);
}

static um_status record_gate(um_pipeline *p, struct geometry *g)
{
    um_status st = um_tape_open(&g->gate, p->dev, "gate");
    if (st != UM_OK)
        return st;
    um_tensor logits = um_tape_import(g->gate, g->detect->tape, g->detect->out.logits);
    um_tensor boxes = um_tape_import(g->gate, g->detect->tape, g->detect->out.boxes);
    um_tensor prompt = {0};
    if (p->segmenter)
        prompt = um_tape_buffer(g->gate, p->segmenter->prompt, 0, UM_U8, 1, 1,
                                (int)sizeof(struct um_prompt));
    g->best = um_best_box(g->gate, logits, boxes, header_of(g->gate, g), prompt);
    um_keep(g->gate, g->best.gate);
    return um_tape_compile(g->gate);
}

static um_status record_packet(um_pipeline *p, struct geometry *g)
{
    um_segmenter *s = p->segmenter;
    um_status st = um_params_open(&g->tables, p->dev);
    struct um_mask_tables k = {{0, 0}, {0, 0}};
    if (st == UM_OK) {
        k = um_segmenter_tables(s, g->tables, g->w, g->h);
        um_params_reserve(g->tables, UM_MASK_WORK_BYTES, &g->work);
        st = um_params_upload(g->tables);
    }
    if (st == UM_OK)
        st = um_tape_open(&g->packet, p->dev, "packet");
    if (st != UM_OK)
        return st;
    um_tape *t = g->packet;
    if (s->keep_taps)
        um_tape_keep_taps(t);
    um_tensor low = um_tape_import(t, p->decode->tape, p->decode->out.low[0]);
    um_tensor tx = um_tape_const(t, g->tables, k.tx, UM_F32, 1, g->w, 4),
              ty = um_tape_const(t, g->tables, k.ty, UM_F32, 1, g->h, 4);
    um_tensor gate = um_tape_import(t, g->gate, g->best.gate);
    if (p->host_mode) {
        g->logits = um_keep(t, um_tape_new(t, UM_F32, g->h, g->w, 1));
        um_tap(t, "mask", um_mask_upsample(t, low, tx, ty, gate, g->logits));
        return um_tape_compile(t);
    }
    um_tensor iou = um_tape_import(t, p->decode->tape, p->decode->out.iou);
    struct um_mask_packet m = {
        .low = low,
        .tx = tx,
        .ty = ty,
        .gate = gate,
        .iou = iou,
        .header = header_of(t, g),
        .work = um_tape_const(t, g->tables, g->work, UM_U8, 1, 1, UM_MASK_WORK_BYTES)};
    if (s->keep_taps) /* a dump wants the mask of its own */
        um_tap(t, "mask", um_mask_upsample(t, low, tx, ty, gate, (um_tensor){0}));
    g->record = um_keep(t, um_mask_packet(t, &m));
    return um_tape_compile(t);
}

static size_t packet_bytes(const struct geometry *g)
{
    return UM_RECORD_BYTES + (size_t)g->h * (size_t)um_mask_row_bytes(g->w);
}

static um_status open_geometry(um_pipeline *p, struct geometry *g, int w, int h, int c)
{
    size_t n = (size_t)w * (size_t)h;
    struct um_front_target target[2];
    *g = (struct geometry){.w = w, .h = h, .c = c};
    um_status st = um_detector_path(p->detector, c, &g->detect);
    if (st != UM_OK)
        return st;
    target[0] = um_detector_target(p->detector, g->detect, c);
    if (p->segmenter)
        target[1] = um_segmenter_target(p->segmenter, w, h);
    st = um_front_open(&g->front, p->dev, w, h, c, target, p->segmenter ? 2 : 1, p->set.inflight);
    if (st == UM_OK)
        st = record_gate(p, g);
    if (st == UM_OK && p->segmenter)
        st = record_packet(p, g);
    if (st == UM_OK)
        st = um_hostbuf_open(&g->gate_slot, p->dev, UM_GATE_BYTES);
    for (int i = 0; st == UM_OK && i < p->set.inflight; i++)
        st = um_hostbuf_open(&g->packet_slot[i], p->dev, packet_bytes(g));
    if (st == UM_OK && p->host_mode) {
        g->host_logits = um_array(n, sizeof *g->host_logits);
        g->host_mask = um_zalloc(n);
        g->host_weights = um_zalloc(3 * n);
        g->host_stats = um_zalloc(UM_RECORD_BYTES);
        if (!g->host_logits || !g->host_mask || !g->host_weights || !g->host_stats)
            st = um_fail(UM_ENOMEM, "host masks of %dx%d", w, h);
    }
    return st;
}

/* ---- the frame as commands; `up` and `down` say who books the copies (warm-up runs book as setup)
 * ---- */

static um_status mark(um_pipeline *p, const struct lane *l, enum um_queue q, enum mark m)
{
    return um_event_record(p->dev, q, l->mark[m]);
}

/* Queue `to` continues only after what `from` has been given so far. */
static um_status order(um_pipeline *p, um_event *event, enum um_queue from, enum um_queue to)
{
    um_status st = um_event_record(p->dev, from, event);
    return st == UM_OK ? um_event_wait(p->dev, to, event) : st;
}

static um_status submit_detect(um_pipeline *p, struct geometry *g, const struct lane *l,
                               enum um_stage up)
{
    um_status st = mark(p, l, UM_QUEUE_MAIN, MARK_START);
    if (st == UM_OK)
        st = um_front_upload(&g->front, l->slot, UM_QUEUE_MAIN, up);
    if (st == UM_OK)
        st = mark(p, l, UM_QUEUE_MAIN, MARK_UPLOADED);
    if (st == UM_OK)
        st = um_front_run(&g->front, UM_QUEUE_MAIN);
    if (st == UM_OK && p->speculative)
        st = order(p, p->fork, UM_QUEUE_MAIN, UM_QUEUE_SIDE);
    if (st == UM_OK)
        st = um_tape_run(g->detect->tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_tape_run(g->gate, UM_QUEUE_MAIN);
    return st == UM_OK ? mark(p, l, UM_QUEUE_MAIN, MARK_DETECTED) : st;
}

static um_status submit_encode(um_pipeline *p, const struct lane *l, enum um_queue q)
{
    um_status st = mark(p, l, q, MARK_ENCODE_START);
    if (st == UM_OK)
        st = um_tape_run(p->segmenter->encode, q);
    return st == UM_OK ? mark(p, l, q, MARK_ENCODED) : st;
}

static um_status submit_segment(um_pipeline *p, const struct lane *l)
{
    um_status st = um_tape_run(p->decode->tape, UM_QUEUE_MAIN);
    return st == UM_OK ? mark(p, l, UM_QUEUE_MAIN, MARK_SEGMENTED) : st;
}

static um_status submit_packet(um_pipeline *p, struct geometry *g, const struct lane *l,
                               enum um_stage down)
{
    um_buf *buf = NULL;
    size_t off = 0;
    um_status st = um_tape_run(g->packet, UM_QUEUE_MAIN);
    if (st != UM_OK)
        return st;
    um_tape_locate(g->packet, g->record, &buf, &off);
    st = um_download(p->dev, UM_QUEUE_MAIN, g->packet_slot[l->slot], 0, buf, off, packet_bytes(g),
                     down, "packet");
    return st == UM_OK ? mark(p, l, UM_QUEUE_MAIN, MARK_DONE) : st;
}

static um_status submit_whole(um_pipeline *p, struct geometry *g, const struct lane *l,
                              enum um_stage up, enum um_stage down)
{
    um_status st = submit_detect(p, g, l, up);
    if (st == UM_OK)
        st = submit_encode(p, l, UM_QUEUE_SIDE);
    if (st == UM_OK)
        st = order(p, p->join, UM_QUEUE_SIDE, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = submit_segment(p, l);
    return st == UM_OK ? submit_packet(p, g, l, down) : st;
}

static um_status submit_first(um_pipeline *p, struct geometry *g, const struct lane *l,
                              enum um_stage up, enum um_stage down)
{
    um_buf *buf = NULL;
    size_t off = 0;
    um_status st = submit_detect(p, g, l, up);
    if (st != UM_OK)
        return st;
    um_tape_locate(g->gate, g->best.gate, &buf, &off);
    st = um_download(p->dev, UM_QUEUE_MAIN, g->gate_slot, 0, buf, off, UM_GATE_BYTES, down, "gate");
    return st == UM_OK ? mark(p, l, UM_QUEUE_MAIN, MARK_DONE) : st;
}

static um_status submit_second(um_pipeline *p, struct geometry *g, const struct lane *l,
                               enum um_stage up, enum um_stage down)
{
    (void)up;
    um_status st = submit_encode(p, l, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = submit_segment(p, l);
    if (st == UM_OK && !p->host_mode)
        return submit_packet(p, g, l, down);
    if (st == UM_OK)
        st = um_tape_run(g->packet, UM_QUEUE_MAIN);
    return st == UM_OK ? mark(p, l, UM_QUEUE_MAIN, MARK_DONE) : st;
}

/* A frame's commands as a graph; `down` is the stage of what comes back. */
static um_status capture(um_pipeline *p, struct geometry *g, const struct lane *l,
                         um_status (*submit)(um_pipeline *, struct geometry *, const struct lane *,
                                             enum um_stage, enum um_stage),
                         enum um_stage down, um_graph **out)
{
    um_status st = um_capture_begin(p->dev);
    if (st != UM_OK)
        return st;
    st = submit(p, g, l, UM_STAGE_UPLOAD, down);
    um_status ended =
        um_capture_end(p->dev, out); /* also after an error: the queues must not stay in capture */
    return st == UM_OK ? ended : st;
}

/* Run once on a blank frame, then record the graphs: from now on this geometry's frames only
 * launch. */
static um_status warm_up(um_pipeline *p, struct geometry *g)
{
    const struct lane *l = &p->warm;
    um_status st;
    struct um_frame_header blank = {
        .width = (uint32_t)g->w, .height = (uint32_t)g->h, .tau_conf = 2, .label = -1};
    memset(g->front.slot[0]->data, 0, g->front.bytes);
    memcpy(g->front.slot[0]->data, &blank, sizeof blank);
    if (p->speculative)
        st = submit_whole(p, g, l, UM_STAGE_SETUP, UM_STAGE_SETUP);
    else {
        st = submit_first(p, g, l, UM_STAGE_SETUP, UM_STAGE_SETUP);
        if (st == UM_OK && p->segmenter)
            st = submit_second(p, g, l, UM_STAGE_SETUP, UM_STAGE_SETUP);
    }
    if (st == UM_OK)
        st = um_event_sync(p->dev, l->mark[MARK_DONE], UM_STAGE_SETUP, "warm-up");
    if (st != UM_OK)
        return st;
    l = p->lane;
    if (p->speculative) {
        for (int i = 0; i < p->set.inflight && st == UM_OK; i++)
            st = capture(p, g, &l[i], submit_whole, UM_STAGE_PACKET, &g->whole[i]);
        return st;
    }
    st = capture(p, g, l, submit_first, UM_STAGE_DETECT, &g->first);
    if (st == UM_OK && p->segmenter)
        st = capture(p, g, l, submit_second, UM_STAGE_PACKET, &g->second);
    return st;
}

static um_status find_geometry(um_pipeline *p, int w, int h, int c, struct geometry **out)
{
    struct geometry *g = &p->geometry[0];
    for (int i = 0; i < GEOMETRIES; i++) {
        struct geometry *o = &p->geometry[i];
        if (o->front.tape && o->w == w && o->h == h && o->c == c) {
            *out = o;
            return UM_OK;
        }
        if (o->used < g->used)
            g = o;
    }
    close_geometry(p, g);
    um_status st = open_geometry(p, g, w, h, c);
    if (st == UM_OK)
        st = warm_up(p, g);
    if (st != UM_OK)
        close_geometry(p, g);
    *out = g;
    return st;
}

/* ---- frames ---- */

um_status um_pipeline_send(um_pipeline *p, um_frame **frame)
{
    struct geometry *g = NULL;
    if (!p || !frame || !*frame)
        return um_fail(UM_EINVAL, "um_pipeline_send: %s is NULL", p ? "frame" : "pipeline");
    if (p->sent - p->received == (uint64_t)p->set.inflight)
        return UM_AGAIN;
    const um_frame *f = *frame;
    int crop[4] = {p->set.crop[0], p->set.crop[1], p->set.crop[2], p->set.crop[3]};
    if (!crop[2]) {
        crop[2] = f->width;
        crop[3] = f->height;
    }
    if (crop[0] > f->width - crop[2] || crop[1] > f->height - crop[3])
        return um_fail(UM_EINVAL, "frame %llu is %dx%d: the crop %d,%d,%d,%d reaches beyond it",
                       (unsigned long long)f->id, f->width, f->height, crop[0], crop[1], crop[2],
                       crop[3]);
    uint64_t now = um_clock_ns();
    int c =
        um_detector_channels(p->detector, um_front_channels(f, crop[0], crop[1], crop[2], crop[3]));
    um_ledger_frame(p->dev, f->id);
    um_status st = find_geometry(p, crop[2], crop[3], c, &g);
    if (st != UM_OK)
        return st;
    struct um_frame_header header = {.frame_id = f->id,
                                     .width = (uint32_t)g->w,
                                     .height = (uint32_t)g->h,
                                     .tau_conf = p->set.conf,
                                     .label = p->set.label};
    struct lane *l = lane_of(p, p->sent);
    struct flight *flight = flight_of(p, p->sent);
    st = um_front_fill(&g->front, l->slot, &header, f, crop[0], crop[1]);
    if (st == UM_OK)
        st = um_graph_launch(p->dev, p->speculative ? g->whole[l->slot] : g->first);
    if (st != UM_OK)
        return st;
    if (p->segmenter)
        p->segmenter->image_w = p->segmenter->image_h =
            0; /* this frame goes where the image's embedding was */
    g->used = ++p->sent;
    flight->g = g;
    flight->sent_ns = now;
    flight->frame = *frame;
    um_ledger_read(p->dev, &flight->transfers);
    *frame = NULL;
    um_packet *k = &flight->packet;
    *k = (um_packet){.struct_size = sizeof *k,
                     .source = flight->frame->source,
                     .frame_id = f->id,
                     .ts = f->ts,
                     .width = f->width,
                     .height = f->height,
                     .has_pose = f->has_pose,
                     .has_spacing = f->has_spacing,
                     .as_numpy = p->host_mode,
                     .centroid = {NAN, NAN}};
    memcpy(k->crop, crop, sizeof crop);
    memcpy(k->pose, f->pose, sizeof k->pose);
    memcpy(k->spacing_mm, f->spacing_mm, sizeof k->spacing_mm);
    memcpy(k->device, p->dev->name, sizeof k->device);
    snprintf(k->precision, sizeof k->precision, "%s", um_device_precision(p->dev));
    if (p->set.lost_device)
        snprintf(k->lost_device, sizeof k->lost_device, "%s", p->set.lost_device);
    memcpy(k->detector_sha256, p->detector->sha256, sizeof k->detector_sha256);
    if (p->segmenter)
        memcpy(k->segmenter_sha256, p->segmenter->sha256, sizeof k->segmenter_sha256);
    return UM_OK;
}

/* Legacy mode: logits and score come to the host in blocking copies; mask, weights, statistics and
 * packet are made here by the reference kernels, and nothing goes back up. */
static um_status make_host_packet(um_pipeline *p, struct geometry *g, uint64_t frame_id)
{
    um_buf *buf = NULL;
    um_pool *pool = p->pool ? p->pool : p->dev->pool;
    size_t off = 0, n = (size_t)g->w * (size_t)g->h;
    uint64_t start = um_clock_ns();
    float iou = 0;
    um_tape_locate(g->packet, g->logits, &buf, &off);
    um_status st = um_download_now(p->dev, g->host_logits, buf, off, n * sizeof(float),
                                   UM_STAGE_SEGMENT, "legacy mode: mask logits to the host");
    if (st != UM_OK)
        return st;
    um_tape_locate(p->decode->tape, p->decode->out.iou, &buf, &off);
    st = um_download_now(p->dev, &iou, buf, off, sizeof iou, UM_STAGE_SEGMENT,
                         "legacy mode: score to the host");
    if (st != UM_OK)
        return st;
    for (size_t i = 0; i < n; i++)
        g->host_mask[i] = g->host_logits[i] > 0;
    uint64_t masked = um_clock_ns();
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
    struct um_view out = {.data = g->packet_slot[0]->data,
                          .dtype = UM_U8,
                          .h = 1,
                          .w = 1,
                          .c = (int)packet_bytes(g),
                          .ld = (int)packet_bytes(g)};
    struct um_view gate = {.data = g->gate_slot->data,
                           .dtype = UM_U8,
                           .h = 1,
                           .w = 1,
                           .c = UM_GATE_BYTES,
                           .ld = UM_GATE_BYTES};
    struct um_view score = {.data = &iou, .dtype = UM_F32, .h = 1, .w = 1, .c = 1, .ld = 1};
    struct um_view logits = {
        .data = g->host_logits, .dtype = UM_F32, .h = g->h, .w = g->w, .c = 1, .ld = 1};
    struct um_frame_header header = {
        .frame_id = frame_id, .width = (uint32_t)g->w, .height = (uint32_t)g->h};
    struct um_view head = {.data = &header,
                           .dtype = UM_U8,
                           .h = 1,
                           .w = 1,
                           .c = UM_HEADER_BYTES,
                           .ld = UM_HEADER_BYTES};
    um_ref_packet(
        &(struct um_call){.t = (struct um_view[]){out, stats, mask, gate, score, logits, head},
                          .n = 7,
                          .pool = pool});
    p->host_ms[0] = (double)(masked - start) * 1e-6;
    p->host_ms[1] = (double)(um_clock_ns() - masked) * 1e-6;
    return UM_OK;
}

static float clamp(float v, float hi)
{
    return v < 0 ? 0 : v > hi ? hi : v;
}

static void fill_gate(um_packet *k, const struct um_gate *gate)
{
    k->state = gate->flags & UM_GATE_OK ? UM_STATE_VISIBLE : UM_STATE_LOST;
    k->score = gate->score;
    k->label = gate->label;
    k->has_box = k->state == UM_STATE_VISIBLE;
    for (int i = 0; i < 4 && k->has_box; i++)
        k->box[i] =
            clamp(gate->box[i] + (float)k->crop[i % 2], i % 2 ? (float)k->height : (float)k->width);
}

static void fill_mask(um_packet *k, const struct um_record *r, const uint8_t *bits)
{
    k->has_mask = 1;
    k->bits = bits;
    k->mask_area_px = r->area_px;
    k->edge_px = r->edge_px;
    k->in_px = r->in_px;
    k->out_px = r->out_px;
    k->iou = r->iou;
    memcpy(k->scores, r->score, sizeof k->scores);
    if (!r->area_px)
        return;
    for (int i = 0; i < 4; i++)
        k->mask_box[i] = r->mask_box[i] + k->crop[i % 2];
    k->centroid[0] = (float)((double)r->sum_x / r->area_px) + (float)k->crop[0];
    k->centroid[1] = (float)((double)r->sum_y / r->area_px) + (float)k->crop[1];
}

static double between(um_pipeline *p, const struct lane *l, enum mark from, enum mark to)
{
    uint64_t ns = 0;
    um_event_elapsed(p->dev, l->mark[from], l->mark[to], &ns);
    return (double)ns * 1e-6;
}

static void fill_times(um_pipeline *p, const struct lane *l, um_packet *k)
{
    k->ms.upload = between(p, l, MARK_START, MARK_UPLOADED);
    k->ms.detect = between(p, l, MARK_UPLOADED, MARK_DETECTED);
    if (p->encoded) {
        /* the decoder starts when both the box and the embedding are there */
        double boxed = between(p, l, MARK_DETECTED, MARK_SEGMENTED);
        double embedded = between(p, l, MARK_ENCODED, MARK_SEGMENTED);
        k->ms.segment =
            between(p, l, MARK_ENCODE_START, MARK_ENCODED) + (boxed < embedded ? boxed : embedded);
        k->ms.packet = between(p, l, MARK_SEGMENTED, MARK_DONE);
    } else
        k->ms.packet = between(p, l, MARK_DETECTED, MARK_DONE);
}

static um_status assertion(const um_pipeline *p, uint64_t frame)
{
    const struct um_violation *v = um_ledger_violation(p->dev);
    if (!v || v->frame != frame || (p->set.assert_up < 0 && p->set.assert_down < 0))
        return UM_OK;
    return um_fail(UM_EASSERT, "frame %llu, stage %s: %u copies %s, at most %u asserted (%s)",
                   (unsigned long long)v->frame, um_stage_name(v->stage), v->count, v->direction,
                   v->limit, v->reason);
}

static um_status finish(um_pipeline *p, struct geometry *g, const struct lane *l, um_packet *k)
{
    um_status st = um_event_sync(p->dev, l->mark[MARK_DONE], UM_STAGE_PACKET,
                                 p->speculative ? "packet" : "gate");
    p->encoded = p->speculative;
    if (st != UM_OK)
        return st;
    const uint8_t *slot = g->packet_slot[l->slot]->data;
    const struct um_record *record = (const struct um_record *)(const void *)slot;
    if (p->speculative)
        fill_gate(k, &record->gate);
    else
        fill_gate(k, g->gate_slot->data);
    if (!p->speculative && p->segmenter && k->state == UM_STATE_VISIBLE) {
        double detect = between(p, l, MARK_DETECTED,
                                MARK_DONE); /* the gate's way to the host is part of the packet */
        st = um_graph_launch(p->dev, g->second);
        if (st == UM_OK)
            st = um_event_sync(p->dev, l->mark[MARK_DONE], UM_STAGE_PACKET, "packet");
        if (st == UM_OK && p->host_mode)
            st = make_host_packet(p, g, k->frame_id);
        if (st != UM_OK)
            return st;
        p->encoded = true;
        fill_times(p, l, k);
        k->ms.packet += detect;
        if (p->host_mode) {
            k->ms.segment += p->host_ms[0];
            k->ms.packet += p->host_ms[1];
        }
    } else
        fill_times(p, l, k);
    if (p->segmenter && k->state == UM_STATE_VISIBLE) {
        fill_mask(k, record, slot + UM_RECORD_BYTES);
    }
    return UM_OK;
}

um_status um_pipeline_receive(um_pipeline *p, const um_packet **packet)
{
    if (!p || !packet)
        return um_fail(UM_EINVAL, "um_pipeline_receive: %s is NULL", p ? "packet" : "pipeline");
    *packet = NULL;
    if (p->received == p->sent)
        return UM_AGAIN;
    struct flight *flight = flight_of(p, p->received);
    um_packet *k = &flight->packet;
    um_packet *made = NULL;
    um_ledger_resume(p->dev, k->frame_id, &flight->transfers);
    um_status st = finish(p, flight->g, lane_of(p, p->received), k);
    um_ledger_read(p->dev, &k->transfers);
    k->ms.total = (double)(um_clock_ns() - flight->sent_ns) * 1e-6;
    um_packet_unref(&p->packet);
    if (st == UM_OK)
        st = um_packet_make(&made, p->packets, k, NULL, 0);
    p->packet = made;
    um_frame_unref(&flight->frame);
    p->received++;
    if (st != UM_OK)
        return st;
    p->last = flight->g;
    if (p->set.kpi && k->has_mask) {
        char line[320], more[160];
        snprintf(more, sizeof more,
                 ", \"frame_id\": %llu, \"up\": %u, \"down\": %u, \"waits\": %u, \"up_bytes\": "
                 "%llu, \"down_bytes\": %llu",
                 (unsigned long long)k->frame_id, k->transfers.up, k->transfers.down,
                 k->transfers.waits, (unsigned long long)k->transfers.up_bytes,
                 (unsigned long long)k->transfers.down_bytes);
        um_kpi_line(line, sizeof line, um_clock_unix(), p->host_mode, p->dev->name, more);
        p->set.kpi(p->set.kpi_ctx, line);
    }
    *packet = p->packet;
    return assertion(p, k->frame_id);
}

um_status um_pipeline_dump(um_pipeline *p, const char *path)
{
    struct um_dump dump = {0};
    if (!p || !path || !p->set.dump || !p->last)
        return um_fail(UM_EINVAL, "um_pipeline_dump: needs settings.dump and a frame");
    um_status st = um_dump_tape(&dump, p->last->detect->tape);
    if (st == UM_OK && p->encoded)
        st = um_dump_tape(&dump, p->segmenter->encode);
    if (st == UM_OK && p->encoded)
        st = um_dump_tape(&dump, p->decode->tape);
    if (st == UM_OK && p->encoded)
        st = um_dump_tape(&dump, p->last->packet);
    if (st == UM_OK)
        st = um_dump_write(&dump, path);
    um_dump_close(&dump);
    return st;
}

uint64_t um_pipeline_device_bytes(const um_pipeline *p)
{
    uint64_t n = um_detector_device_bytes(p->detector);
    if (p->segmenter)
        n += um_segmenter_device_bytes(p->segmenter);
    for (int i = 0; i < GEOMETRIES; i++) {
        const struct geometry *g = &p->geometry[i];
        if (!g->front.tape)
            continue;
        n += um_front_device_bytes(&g->front) + um_tape_arena_bytes(g->gate);
        if (g->packet)
            n += um_tape_arena_bytes(g->packet) + um_params_bytes(g->tables);
    }
    return n;
}
