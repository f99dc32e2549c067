/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in, packets out: what is sent, what is in flight, what comes back. */
#include "pipeline/pipeline.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/record.h"
#include "base/thread.h"
#include "engine/dump.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int um_pipeline_inflight(const um_pipeline *p)
{
    return p ? p->set.inflight : 0;
}

static um_status take_turn(um_pipeline *p, const char *call)
{
    return um_turn_take(&p->lock, call, "this pipeline");
}

/* ---- open and close ---- */

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

/* How many frames may be in flight. On a device whose graphs run beside each other those are
 * sessions; elsewhere they follow each other in a queue. */
static int inflight_of(const um_pipeline *p)
{
    const um_pipeline_settings *s = &p->set;
    bool beside = p->dev->caps.parallel;
    bool follows = s->track || /* what is done depends on the answer before, */
                   (beside && um_dfine_info(p->detector->net)->gain.mode == UM_GAIN_AUTO);
    int most = beside           ? (s->dump ? 1 : um_device_threads(p->dev))
               : p->speculative ? UM_FRONT_SLOTS
                                : 1;
    return follows ? 1 : s->inflight < most ? s->inflight : most;
}

/* The segmenter's session of this pipeline. */
static um_status open_segmenter(um_pipeline *p)
{
    bool dump = p->set.dump != 0;
    um_status st = um_encode_open(&p->encode, p->segmenter, dump);
    if (st == UM_OK)
        st = um_buf_open(&p->prompt, p->dev, sizeof(struct um_prompt), "prompt");
    p->prompts = p->prompt;
    if (st == UM_OK && p->set.objects > 1) {
        p->prompts = NULL;
        st = um_buf_open(&p->prompts, p->dev, (size_t)p->set.objects * sizeof(struct um_prompt),
                         "prompts");
    }
    struct um_decode_input in = {.encode = &p->encode, .prompt = p->prompt};
    return st == UM_OK ? um_decode_open(&p->decode, p->segmenter,
                                        (struct um_prompt_kind){.box = true}, &in, dump)
                       : st;
}

/* For who asks while another thread plans. A shadow aside: it goes when it is trusted. */
static void count_bytes(um_pipeline *p)
{
    uint64_t n = um_detect_device_bytes(&p->detect);
    if (p->segmenter)
        n += um_encode_device_bytes(&p->encode) + um_tape_arena_bytes(p->decode.tape) +
             p->prompt->size + (p->prompts != p->prompt ? p->prompts->size : 0);
    for (int i = 0; i < GEOMETRIES; i++)
        n += um_geometry_device_bytes(&p->geometry[i]);
    atomic_store(&p->bytes, n);
}

/* All that frames need: sessions on the networks, lanes and packets. */
static um_status open_session(um_pipeline *p)
{
    um_status st = um_packet_pool_open(&p->packets);
    um_detect_open(&p->detect, p->detector, p->set.dump != 0);
    if (st == UM_OK && p->host_mode && !p->dev->pool)
        st = um_pool_open(&p->pool, 0);
    if (st == UM_OK && p->segmenter)
        st = open_segmenter(p);
    if (st == UM_OK)
        st = open_lane(p, &p->warm, 0);
    for (int i = 0; i < p->set.inflight && st == UM_OK; i++)
        st = open_lane(p, &p->lane[i], i);
    if (st == UM_OK)
        st = um_event_open(&p->fork, p->dev);
    if (st == UM_OK)
        st = um_event_open(&p->join, p->dev);
    if (st == UM_OK)
        count_bytes(p);
    return st;
}

um_status um_pipeline_open(um_pipeline **out, const um_pipeline_settings *settings)
{
    um_mask_mode mode = UM_MASK_DEVICE;
    um_pipeline_settings own;
    if (out)
        *out = NULL;
    if (!out || !settings)
        return um_fail(UM_EINVAL, "um_pipeline_open: %s is NULL", out ? "settings" : "out");
    um_status st = um_pipeline_settings_read(&own, settings);
    if (st == UM_OK)
        st = um_mask_mode_resolve(own.sam_as_numpy, own.segmenter, &mode);
    if (st != UM_OK)
        return st;
    um_pipeline *p = um_zalloc(sizeof *p);
    if (!p)
        return um_fail(UM_ENOMEM, "pipeline");
    atomic_init(&p->refs, 1);
    um_turn_init(&p->lock);
    pthread_mutex_init(&p->planning, NULL);
    pthread_mutex_init(&p->wishing, NULL);
    p->set = own;
    snprintf(p->lost_device, sizeof p->lost_device, "%s", own.lost_device ? own.lost_device : "");
    p->set.lost_device = p->lost_device;
    p->wish =
        (struct wish){.any = true, .conf = own.conf, .label = own.label, .objects = own.objects};
    um_wish_take(p);
    p->detector = um_detector_ref(own.detector);
    p->segmenter = um_segmenter_ref(own.segmenter);
    p->dev = um_detector_device(p->detector);
    p->host_mode = mode == UM_MASK_HOST && p->segmenter;
    p->speculative =
        !p->host_mode && p->segmenter &&
        (own.gate == UM_GATE_SPECULATIVE || (own.gate == UM_GATE_AUTO && p->dev->caps.concurrent));
    p->set.inflight = inflight_of(p);
    if (own.shadow_every && p->host_mode)
        st = um_fail(UM_EINVAL, "shadow_every %d: masks are made on the host already",
                     own.shadow_every);
    if (st == UM_OK)
        st = p->set.inflight > 1 && p->dev->caps.parallel ? um_crew_open(&p->crew, &p->set)
                                                          : open_session(p);
    if (st == UM_OK && own.shadow_every)
        st = um_shadow_open(&p->shadow, &p->set);
    if (st != UM_OK)
        um_pipeline_close(&p);
    *out = p;
    return st;
}

static struct lane *lane_of(um_pipeline *p, uint64_t n)
{
    return &p->lane[n % (uint64_t)p->set.inflight];
}

static struct flight *flight_of(um_pipeline *p, uint64_t n)
{
    return &p->flight[n % (uint64_t)p->set.inflight];
}

/* What a frame in flight held. */
static void land(struct flight *flight)
{
    um_packet_unref(&flight->repeated);
    um_frame_unref(&flight->frame);
}

um_pipeline *um_pipeline_ref(um_pipeline *pipeline)
{
    if (pipeline)
        atomic_fetch_add_explicit(&pipeline->refs, 1, memory_order_relaxed);
    return pipeline;
}

void um_pipeline_close(um_pipeline **pipeline)
{
    um_pipeline *p = pipeline ? *pipeline : NULL;
    if (!p)
        return;
    *pipeline = NULL;
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (; p->received < p->sent; p->received++) {
        if (!p->crew)
            um_event_sync(p->dev, lane_of(p, p->received)->mark[MARK_DONE], UM_STAGE_DEBUG,
                          "close with a frame in flight");
        land(flight_of(p, p->received));
    }
    um_crew_close(&p->crew);
    for (int i = 0; i < GEOMETRIES; i++)
        um_geometry_close(p, &p->geometry[i]);
    for (int i = 0; i < UM_FRONT_SLOTS; i++)
        close_lane(p, &p->lane[i]);
    close_lane(p, &p->warm);
    um_event_close(&p->fork, p->dev);
    um_event_close(&p->join, p->dev);
    um_decode_close(&p->decode);
    if (p->prompts != p->prompt)
        um_buf_close(&p->prompts);
    um_buf_close(&p->prompt);
    um_encode_close(&p->encode);
    um_detect_close(&p->detect);
    um_pool_close(&p->pool);
    um_sent_forget(&p->before);
    um_packet_unref(&p->track.shown);
    um_packet_unref(&p->packet);
    um_packet_pool_close(&p->packets);
    um_shadow_close(&p->shadow);
    pthread_mutex_destroy(&p->wishing);
    pthread_mutex_destroy(&p->planning);
    pthread_mutex_destroy(&p->lock);
    um_segmenter_close(&p->segmenter);
    um_detector_close(&p->detector);
    um_free(p);
}

/* ---- geometries ---- */

static struct geometry *known_geometry(um_pipeline *p, int w, int h, int c)
{
    for (int i = 0; i < GEOMETRIES; i++) {
        struct geometry *g = &p->geometry[i];
        if (g->front.tape && g->w == w && g->h == h && g->c == c)
            return g;
    }
    return NULL;
}

/* The place of the one that was not used for the longest time; what is in flight stays. */
static struct geometry *free_place(um_pipeline *p)
{
    struct geometry *oldest = NULL;
    for (int i = 0; i < GEOMETRIES; i++) {
        struct geometry *g = &p->geometry[i];
        bool flies = false;
        for (uint64_t n = p->received; n < p->sent; n++)
            flies = flies || flight_of(p, n)->g == g;
        if (!flies && (!oldest || g->used < oldest->used))
            oldest = g;
    }
    if (p->last == oldest)
        p->last = NULL;
    if (p->before.g == oldest)
        um_sent_forget(&p->before);
    if (p->track.g == oldest)
        um_track_enter(&p->track, NULL);
    um_geometry_close(p, oldest); /* there are more places than frames in flight */
    return oldest;
}

/* The geometry of a size, planned if it is new, without the lock that frames need; `trial`: run on
 * a blank frame, too, if none is in flight. Called and left with that lock held. */
static um_status find_geometry(um_pipeline *p, int w, int h, int c, bool trial,
                               struct geometry **out)
{
    struct geometry planned;
    *out = known_geometry(p, w, h, c);
    if (*out)
        return UM_OK;
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_lock(&p->planning);
    um_status st = um_geometry_open(p, &planned, w, h, c);
    pthread_mutex_lock(&p->lock);
    struct geometry *g = st == UM_OK ? known_geometry(p, w, h, c) : NULL;
    if (g) { /* another thread was faster */
        um_geometry_close(p, &planned);
    } else if (st == UM_OK) {
        g = free_place(p);
        bool warm = trial && p->sent == p->received;
        if (warm) /* the networks see another image */
            um_sent_forget(&p->before);
        *g = planned;
        st = um_geometry_capture(p, g, warm);
        if (st != UM_OK)
            um_geometry_close(p, g);
        else
            g->used = ++p->uses;
    }
    count_bytes(p);
    pthread_mutex_unlock(&p->planning);
    *out = g;
    return st;
}

/* What is known of the screen, now that another frame of it is seen. */
static void look_at_screen(um_pipeline *p, const um_frame *f)
{
    int *crop = p->set.crop, before[4];
    memcpy(before, crop, sizeof before);
    if (f->width != p->screen[0] || f->height != p->screen[1])
        memset(crop, 0, sizeof before);
    p->screen[0] = f->width;
    p->screen[1] = f->height;
    um_frame_find_image(f, crop);
    if (memcmp(before, crop, sizeof before) != 0)
        um_track_enter(&p->track, NULL); /* what it knows is in pixels of the crop */
}

/* The part of a frame that is looked at. */
static um_status find_crop(const um_pipeline *p, int width, int height, int crop[4])
{
    memcpy(crop, p->set.crop, sizeof p->set.crop);
    if (!crop[2]) {
        crop[2] = width;
        crop[3] = height;
    }
    if (crop[0] > width - crop[2] || crop[1] > height - crop[3])
        return um_fail(UM_EINVAL, "a frame of %dx%d: the crop %d,%d,%d,%d reaches beyond it", width,
                       height, crop[0], crop[1], crop[2], crop[3]);
    return UM_OK;
}

um_status um_pipeline_prepare(um_pipeline *p, int width, int height, int channels)
{
    struct geometry *g = NULL;
    int crop[4];
    if (!p || width < 1 || height < 1 || width > UM_FRAME_MAX_SIDE || height > UM_FRAME_MAX_SIDE ||
        (int64_t)width * height > UM_FRAME_MAX_PIXELS || (channels != 1 && channels != 3))
        return um_fail(
            UM_EINVAL,
            "um_pipeline_prepare: a frame of %dx%d, %d channels: want sides of 1 to %d, at "
            "most 64 Mpx, 1 or 3 channels, and a pipeline",
            width, height, channels, UM_FRAME_MAX_SIDE);
    if (p->set.crop_auto) /* frames will tell */
        return UM_OK;
    if (p->crew)
        return um_crew_prepare(p->crew, width, height, channels);
    um_status st = take_turn(p, "um_pipeline_prepare");
    if (st != UM_OK)
        return st;
    um_ledger *before = um_ledger_bind(NULL);
    st = find_crop(p, width, height, crop);
    if (st == UM_OK)
        st = find_geometry(p, crop[2], crop[3], um_detector_channels(p->detector, channels), true,
                           &g);
    pthread_mutex_unlock(&p->lock);
    um_ledger_bind(before);
    return st;
}

/* The same for a frame that is sent next. On the host nothing but time would be gained by a blank
 * frame before it. */
static um_status find_for_frame(um_pipeline *p, const um_frame *f, const int crop[4],
                                struct geometry **out)
{
    int channels = um_detector_channels_of(p->detector, f, crop[0], crop[1], crop[2], crop[3]);
    return find_geometry(p, crop[2], crop[3], channels, !p->dev->caps.shared, out);
}

um_status um_pipeline_plan(um_pipeline *p, const um_frame *f, const int crop[4])
{
    struct geometry *g = NULL;
    int found[4];
    pthread_mutex_lock(&p->lock);
    memcpy(p->set.crop, crop, sizeof p->set.crop);
    um_status st = find_crop(p, f->width, f->height, found);
    if (st == UM_OK)
        st = find_for_frame(p, f, found, &g);
    pthread_mutex_unlock(&p->lock);
    return st;
}

/* ---- send ---- */

/* What is known of a packet when its frame is sent. */
static um_packet begin_packet(const um_pipeline *p, const um_frame *f, const int crop[4])
{
    um_packet k = {.struct_size = sizeof k,
                   .frame_id = f->id,
                   .ts = f->has_ts || f->ts > 0 ? f->ts : um_clock_unix(),
                   .width = f->width,
                   .height = f->height,
                   .has_pose = f->has_pose,
                   .has_spacing = f->has_spacing,
                   .as_numpy = p->host_mode,
                   .has_scores = p->set.track != 0,
                   .has_cleaned = p->set.mask_clean && p->segmenter,
                   .centroid = {NAN, NAN},
                   .source = f->source};
    memcpy(k.crop, crop, sizeof k.crop);
    memcpy(k.pose, f->pose, sizeof k.pose);
    memcpy(k.spacing_mm, f->spacing_mm, sizeof k.spacing_mm);
    memcpy(k.device, p->dev->name, sizeof k.device);
    snprintf(k.precision, sizeof k.precision, "%s", um_device_precision(p->dev));
    snprintf(k.precision_reason, sizeof k.precision_reason, "%s",
             um_device_precision_reason(p->dev));
    memcpy(k.lost_device, p->lost_device, sizeof k.lost_device);
    memcpy(k.detector_sha256, p->detector->sha256, sizeof k.detector_sha256);
    snprintf(k.detector, sizeof k.detector, "%s", um_detector_architecture(p->detector));
    if (p->segmenter) {
        memcpy(k.segmenter_sha256, p->segmenter->sha256, sizeof k.segmenter_sha256);
        snprintf(k.segmenter, sizeof k.segmenter, "%s", um_segmenter_architecture(p->segmenter));
    }
    return k;
}

um_status um_pipeline_forget(um_pipeline *p)
{
    um_status st = p ? take_turn(p, "um_pipeline_forget")
                     : um_fail(UM_EINVAL, "um_pipeline_forget: no pipeline");
    if (st != UM_OK)
        return st;
    um_track_enter(&p->track, NULL);
    um_sent_forget(&p->before);
    p->screen[0] = p->screen[1] = 0;
    for (int i = 0; i < GEOMETRIES; i++)
        p->geometry[i].anew = true;
    if (p->crew)
        st = um_crew_forget(p->crew);
    if (st == UM_OK && p->shadow)
        st = um_pipeline_forget(p->shadow->legacy);
    pthread_mutex_unlock(&p->lock);
    return st;
}

/* The mask before, once more: there is no time, and nothing speaks against it. */
static const um_packet *to_repeat(const um_pipeline *p)
{
    const struct track *t = &p->track;
    return p->set.track && um_budget_repeats(&p->budget) && um_visibility_steady(&t->seen)
               ? t->shown
               : NULL;
}

/* What a frame launches first, and what the networks' memory holds of its image from then on. */
static um_graph *choose_graph(um_pipeline *p, const struct geometry *g, struct flight *flight,
                              const struct lane *l)
{
    struct um_sent *before = &p->before;
    bool detect = flight->detected;
    flight->boxes = p->set.reuse && detect && before->boxes;
    flight->embedding = p->set.reuse && before->embedding;
    if (p->speculative && detect)
        flight->boxes = flight->embedding = flight->boxes && flight->embedding;
    before->boxes = before->boxes || detect;
    before->embedding = before->embedding || (p->speculative || !(detect || p->host_mode));
    return !detect          ? g->graphs[flight->embedding].followed
           : p->speculative ? g->graphs[flight->boxes].whole[l->slot]
                            : g->graphs[flight->boxes].first;
}

/* To the member whose turn it is. */
static um_status send_to_crew(um_pipeline *p, um_frame **frame)
{
    struct flight *flight = flight_of(p, p->sent);
    int member = (int)(p->sent % (uint64_t)p->set.inflight);
    if (p->sent - p->received == (uint64_t)p->set.inflight)
        return UM_AGAIN;
    flight->wish = um_wish_take(p);
    flight->frame = um_frame_ref(*frame);
    um_status st = um_crew_give(p->crew, member, frame, &flight->wish);
    if (st == UM_OK)
        p->sent++;
    else
        um_frame_unref(&flight->frame);
    return st;
}

static um_status send(um_pipeline *p, um_frame **frame)
{
    struct geometry *g = NULL;
    const um_frame *f = *frame;
    int crop[4];
    if (p->sent - p->received == (uint64_t)p->set.inflight)
        return UM_AGAIN;
    struct flight *flight = flight_of(p, p->sent);
    flight->wish = um_wish_take(p);
    um_status st = find_crop(p, f->width, f->height, crop);
    if (st != UM_OK)
        return st;
    uint64_t now = um_clock_ns();
    flight->ledger = um_ledger_new(p->dev, p->set.assert_up, p->set.assert_down);
    um_ledger *before = um_ledger_bind(&flight->ledger);
    st = find_for_frame(p, f, crop, &g);
    const struct um_gain_wish *gain = &um_dfine_info(p->detector->net)->gain;
    struct um_frame_header header = {.frame_id = f->id,
                                     .width = (uint32_t)crop[2],
                                     .height = (uint32_t)crop[3],
                                     .tau_conf = p->conf,
                                     .label = p->label,
                                     .objects = (uint32_t)p->objects,
                                     .per_class = p->set.per_class != 0,
                                     .gain = gain->mode == UM_GAIN_TIMES ? gain->times : p->gain,
                                     .anew = g && g->anew};
    um_detector_tell(p->detector, &header);
    bool detect = true;
    if (st == UM_OK && p->set.track)
        st = um_track_go_on(p, g);
    if (st == UM_OK && p->set.track) {
        um_track_tell(&p->track, &header);
        flight->wish.label = header.label;
        detect = p->track.detect;
    }
    struct lane *l = lane_of(p, p->sent);
    flight->repeated = st == UM_OK ? um_packet_ref(to_repeat(p)) : NULL;
    flight->detected = detect && !flight->repeated;
    flight->same = flight->boxes = flight->embedding = false;
    if (st == UM_OK && !flight->repeated)
        st = um_front_fill(&g->front, l->slot, &header, f, crop[0], crop[1]);
    if (st == UM_OK && !flight->repeated && (p->set.track || p->set.reuse))
        st = um_sent_compare(&p->before, g, f, crop, &flight->same);
    if (st == UM_OK && !flight->repeated)
        st = um_graph_launch(p->dev, choose_graph(p, g, flight, l));
    um_ledger_bind(before);
    if (st != UM_OK) {
        um_sent_forget(&p->before);
        return st;
    }
    g->used = ++p->uses;
    p->sent++;
    for (int i = 0; i < GEOMETRIES && !flight->repeated; i++) /* what others know is of long ago */
        p->geometry[i].anew = &p->geometry[i] != g;
    flight->g = g;
    flight->sent_ns = now;
    flight->packet = begin_packet(p, f, crop);
    flight->packet.reused = flight->boxes || flight->embedding;
    flight->frame = *frame;
    *frame = NULL;
    return UM_OK;
}

um_status um_pipeline_send(um_pipeline *p, um_frame **frame)
{
    if (!p || !frame || !*frame)
        return um_fail(UM_EINVAL, "um_pipeline_send: %s is NULL", p ? "frame" : "pipeline");
    um_status st = take_turn(p, "um_pipeline_send");
    if (st != UM_OK)
        return st;
    if (p->set.crop_auto)
        look_at_screen(p, *frame);
    bool legacy = p->shadow && p->shadow->counts.fell_back;
    if (!legacy) {
        st = p->crew ? send_to_crew(p, frame) : send(p, frame);
    } else if (p->received < p->sent) { /* what was in flight goes first */
        st = UM_AGAIN;
    } else {
        p->shadow->wish = um_wish_take(p);
        st = um_shadow_send(p->shadow, frame);
    }
    pthread_mutex_unlock(&p->lock);
    return st;
}

/* ---- receive ---- */

static float clamp(float v, float hi)
{
    return v < 0 ? 0 : v > hi ? hi : v;
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

static um_status assertion(const um_ledger *l, uint64_t frame)
{
    const struct um_violation *v = &l->violation;
    if (!v->found)
        return UM_OK;
    return um_fail(UM_EASSERT, "frame %llu, stage %s: %u copies %s, at most %u asserted (%s)",
                   (unsigned long long)frame, um_stage_name(v->stage), v->count, v->direction,
                   v->limit, v->reason);
}

/* What the detector decided on each object. */
struct verdicts {
    int found; /* the first of them are to be outlined */
    struct um_gate gate[UM_OBJECTS_MAX];
};

static um_status check_gates(const um_pipeline *p, const struct verdicts *v, uint64_t frame)
{
    for (int i = 0; i < p->set.objects; i++) {
        const struct um_gate *g = &v->gate[i];
        if (g->flags & UM_GATE_NAN || (g->flags & UM_GATE_NONFINITE && (i == 0 || g->query >= 0)))
            return um_fail(UM_ENUMERIC,
                           "frame %llu: the detector's scores or boxes are not finite numbers "
                           "(model %.12s)",
                           (unsigned long long)frame, p->detector->sha256);
    }
    return UM_OK;
}

/* whole: they lie in the packets; else they came on their own. */
static void read_gates(const um_pipeline *p, const struct geometry *g, const uint8_t *slot,
                       bool whole, struct verdicts *v)
{
    const uint8_t *gates = g->gate_slot->data;
    v->found = 0;
    for (int i = 0; i < p->set.objects; i++) {
        const uint8_t *at = whole ? slot + (size_t)i * g->stride + offsetof(struct um_record, gate)
                                  : gates + (size_t)i * UM_GATE_BYTES;
        memcpy(&v->gate[i], at, sizeof v->gate[i]);
        v->found += v->gate[i].flags == UM_GATE_OK;
    }
}

/* Wait for a frame; others may be sent meanwhile, and the one that is waited for keeps its place.
 */
static um_status wait_done(um_pipeline *p, const struct lane *l, const char *reason)
{
    pthread_mutex_unlock(&p->lock);
    um_status st = um_event_sync(p->dev, l->mark[MARK_DONE], UM_STAGE_PACKET, reason);
    pthread_mutex_lock(&p->lock);
    return st;
}

/* The rest of a frame behind the gates, for those that were found. */
static um_status finish_second(um_pipeline *p, const struct flight *flight, const struct lane *l,
                               const struct verdicts *v, um_packet *k)
{
    struct geometry *g = flight->g;
    um_graph *const *second = g->graphs[flight->embedding].second;
    double detect = between(p, l, MARK_DETECTED,
                            MARK_DONE); /* the gate's way to the host is part of the packet */
    um_status st = UM_OK;
    p->host_ms[0] = p->host_ms[1] = 0;
    p->encoded = true;
    for (int i = 0; st == UM_OK && i < (p->host_mode ? v->found : 1); i++) {
        st = um_graph_launch(p->dev, second[p->host_mode ? i : v->found - 1]);
        if (st == UM_OK)
            st = wait_done(p, l, "packet");
        if (st == UM_OK && p->host_mode)
            st = um_host_packet(p, g, i);
    }
    if (st != UM_OK)
        return st;
    p->before.embedding = true;
    fill_times(p, l, k);
    k->ms.packet += detect + p->host_ms[1];
    k->ms.segment += p->host_ms[0];
    return UM_OK;
}

static um_status fill_mask(const um_pipeline *p, const um_packet *k, const uint8_t *slot,
                           um_object *o)
{
    struct um_record r;
    memcpy(&r, slot, sizeof r);
    if (r.nonfinite)
        return um_fail(UM_ENUMERIC,
                       "frame %llu: %u of the segmenter's logits are not finite numbers (model "
                       "%.12s)",
                       (unsigned long long)k->frame_id, r.nonfinite, p->segmenter->sha256);
    o->has_mask = 1;
    o->bits = slot + UM_RECORD_BYTES;
    o->mask_area_px = r.area_px;
    o->edge_px = r.edge_px;
    o->in_px = r.in_px;
    o->out_px = r.out_px;
    o->iou = r.iou;
    o->removed_px = r.removed_px;
    o->filled_px = r.filled_px;
    memcpy(o->scores, r.score, sizeof o->scores);
    if (!r.area_px)
        return UM_OK;
    for (int i = 0; i < 4; i++)
        o->mask_box[i] = r.mask_box[i] + k->crop[i % 2];
    o->centroid[0] = (float)((double)r.sum_x / r.area_px) + (float)k->crop[0];
    o->centroid[1] = (float)((double)r.sum_y / r.area_px) + (float)k->crop[1];
    return UM_OK;
}

static um_object object_of(const um_pipeline *p, const um_packet *k, const struct um_gate *gate)
{
    um_object o = {.struct_size = sizeof o,
                   .label = gate->label,
                   .name = um_detector_class_name(p->detector, gate->label),
                   .score = gate->score,
                   .has_box = 1,
                   .centroid = {NAN, NAN}};
    for (int i = 0; i < 4; i++)
        o.box[i] =
            clamp(gate->box[i] + (float)k->crop[i % 2], i % 2 ? (float)k->height : (float)k->width);
    return o;
}

/* ---- one packet ---- */

/* Was it in time, and what may the next one cost? */
static void keep_time(um_pipeline *p, struct flight *flight, uint64_t now)
{
    um_packet *k = &flight->packet;
    uint64_t since = flight->frame->received_ns;
    since = since && since < flight->sent_ns ? since : flight->sent_ns;
    k->latency_ms = (double)(now - since) * 1e-6;
    k->has_deadline = p->set.budget_ms > 0;
    if (!k->has_deadline)
        return;
    k->missed = k->latency_ms > p->set.budget_ms;
    k->effort = p->budget.effort;
    if (p->set.track)
        um_budget_step(&p->budget, p->set.budget_ms,
                       &(struct um_budget_frame){.latency_ms = k->latency_ms,
                                                 .repeated = flight->repeated != NULL,
                                                 .detected = flight->detected});
}

static um_status seal(um_pipeline *p, struct flight *flight, const um_object *const *objects, int n,
                      um_packet **out)
{
    um_packet *k = &flight->packet;
    uint64_t now = um_clock_ns();
    k->transfers = flight->ledger.count;
    k->ms.total = (double)(now - flight->sent_ns) * 1e-6;
    keep_time(p, flight, now);
    return um_packet_make(out, p->packets, k, objects, n);
}

static um_status finish_repeated(um_pipeline *p, struct flight *flight, um_packet **out)
{
    um_object object;
    const um_object *shown = um_track_repeat(flight, &object);
    return seal(p, flight, &shown, 1, out);
}

/* Wait for the frame and make its packet. */
static um_status finish(um_pipeline *p, struct flight *flight, const struct lane *l,
                        um_packet **out)
{
    struct geometry *g = flight->g;
    um_packet *k = &flight->packet;
    struct verdicts v;
    um_object object[UM_OBJECTS_MAX];
    const um_object *objects[UM_OBJECTS_MAX];
    bool whole = p->speculative || (!flight->detected && !p->host_mode);
    um_status st = wait_done(p, l, whole ? "packet" : "gate");
    p->encoded = whole;
    if (st != UM_OK)
        return st;
    const uint8_t *slot = g->packet_slot[l->slot]->data;
    read_gates(p, g, slot, whole, &v);
    st = check_gates(p, &v, k->frame_id);
    if (st == UM_OK && p->segmenter && !whole && v.found)
        st = finish_second(p, flight, l, &v, k);
    else
        fill_times(p, l, k);
    k->state = v.found ? UM_STATE_VISIBLE : UM_STATE_LOST;
    k->detected = flight->detected;
    k->score = v.gate[0].score;
    k->gain = v.gate[0].gain;
    k->label = v.gate[0].label;
    for (int i = 0; i < v.found && st == UM_OK; i++) {
        object[i] = object_of(p, k, &v.gate[i]);
        objects[i] = &object[i];
        if (p->segmenter)
            st = fill_mask(p, k, slot + (size_t)i * g->stride, &object[i]);
    }
    if (st == UM_OK && p->set.track) {
        objects[0] = um_track_judge(p, flight, &v.gate[0], v.found > 0, object);
        v.found = objects[0] != NULL;
    }
    return st == UM_OK ? seal(p, flight, objects, v.found, out) : st;
}

static void write_kpi(const um_pipeline *p, const um_packet *k)
{
    char line[320], more[160];
    if (!p->set.kpi || !k->has_mask)
        return;
    snprintf(more, sizeof more,
             ", \"frame_id\": %llu, \"up\": %u, \"down\": %u, \"waits\": %u, \"up_bytes\": "
             "%llu, \"down_bytes\": %llu",
             (unsigned long long)k->frame_id, k->transfers.up, k->transfers.down,
             k->transfers.waits, (unsigned long long)k->transfers.up_bytes,
             (unsigned long long)k->transfers.down_bytes);
    um_kpi_line(line, sizeof line, um_clock_unix(), p->host_mode, p->dev->name, more);
    p->set.kpi(p->set.kpi_ctx, line);
}

/* From the member whose turn it is; others may be sent meanwhile. */
static um_status receive_from_crew(um_pipeline *p, const um_packet **packet)
{
    int member = (int)(p->received % (uint64_t)p->set.inflight);
    um_packet_unref(&p->packet);
    pthread_mutex_unlock(&p->lock);
    um_status st = um_crew_take(p->crew, member, packet);
    pthread_mutex_lock(&p->lock);
    um_frame_unref(&flight_of(p, p->received)->frame);
    p->received++;
    p->packet = *packet;
    if (*packet)
        write_kpi(p, *packet);
    return st;
}

static um_status receive(um_pipeline *p, const um_packet **packet)
{
    um_packet *made = NULL;
    if (p->received == p->sent)
        return UM_AGAIN;
    if (p->crew)
        return receive_from_crew(p, packet);
    struct flight *flight = flight_of(p, p->received);
    um_packet_unref(&p->packet);
    um_ledger *before = um_ledger_bind(&flight->ledger);
    um_status st = flight->repeated ? finish_repeated(p, flight, &made)
                                    : finish(p, flight, lane_of(p, p->received), &made);
    um_ledger_bind(before);
    land(flight);
    p->received++;
    if (st != UM_OK) { /* nobody knows what it left behind */
        um_track_enter(&p->track, NULL);
        um_sent_forget(&p->before);
        return st;
    }
    p->last = flight->g;
    p->packet = *packet = made;
    if (p->set.track && made->has_mask && made->tag <= UM_TAG_PREDICTED) {
        um_packet_unref(&p->track.shown);
        p->track.shown = um_packet_ref(made);
    }
    write_kpi(p, made);
    return assertion(&flight->ledger, made->frame_id);
}

/* The same, under the eyes of legacy mode. */
static um_status receive_shadowed(um_pipeline *p, const um_packet **packet)
{
    if (p->received == p->sent)
        return p->shadow->counts.fell_back ? um_pipeline_receive(p->shadow->legacy, packet)
                                           : UM_AGAIN;
    const struct flight *flight = flight_of(p, p->received);
    um_frame *frame = um_frame_ref(flight->frame);
    p->shadow->wish = flight->wish;
    um_status st = receive(p, packet);
    st = um_shadow_look(p->shadow, frame, st, packet);
    um_frame_unref(&frame);
    return st;
}

um_status um_pipeline_shadow(um_pipeline *p, um_shadow_counts *out)
{
    if (!p || !out)
        return um_fail(UM_EINVAL, "um_pipeline_shadow: %s is NULL", p ? "out" : "pipeline");
    if (!p->shadow)
        return UM_AGAIN;
    um_status st = take_turn(p, "um_pipeline_shadow");
    if (st != UM_OK)
        return st;
    st = um_record_out(out, &p->shadow->counts, sizeof p->shadow->counts, "um_shadow_counts");
    pthread_mutex_unlock(&p->lock);
    return st;
}

um_status um_pipeline_receive(um_pipeline *p, const um_packet **packet)
{
    if (!p || !packet)
        return um_fail(UM_EINVAL, "um_pipeline_receive: %s is NULL", p ? "packet" : "pipeline");
    *packet = NULL;
    um_status st = take_turn(p, "um_pipeline_receive");
    if (st != UM_OK)
        return st;
    st = p->shadow ? receive_shadowed(p, packet) : receive(p, packet);
    pthread_mutex_unlock(&p->lock);
    return st;
}

um_status um_pipeline_pass(um_pipeline *p, um_frame **frame, const um_packet **packet)
{
    if (!p || !packet)
        return um_fail(UM_EINVAL, "um_pipeline_pass: %s is NULL", p ? "packet" : "pipeline");
    *packet = NULL;
    if (p->received < p->sent)
        return UM_AGAIN;
    um_status st = um_pipeline_send(p, frame);
    if (st != UM_OK)
        return st;
    const um_packet *made = NULL;
    st = um_pipeline_receive(p, &made);
    *packet = um_packet_ref(made);
    return st;
}

/* ---- the rest ---- */

um_status um_pipeline_dump(um_pipeline *p, const char *path)
{
    struct um_dump dump = {0};
    if (!p || !path || !p->set.dump || !p->last)
        return um_fail(UM_EINVAL, "um_pipeline_dump: needs settings.dump and a frame");
    um_status st = um_dump_tape(&dump, p->last->detect->tape);
    if (st == UM_OK && p->encoded)
        st = um_dump_tape(&dump, p->encode.tape);
    if (st == UM_OK && p->encoded)
        st = um_dump_tape(&dump, p->decode.tape);
    if (st == UM_OK && p->encoded)
        st = um_dump_tape(&dump, p->last->packet[0]);
    if (st == UM_OK)
        st = um_dump_write(&dump, path);
    um_dump_close(&dump);
    return st;
}

uint64_t um_pipeline_session_bytes(const um_pipeline *p)
{
    return p->crew ? um_crew_session_bytes(p->crew) : atomic_load(&p->bytes);
}

uint64_t um_pipeline_device_bytes(const um_pipeline *p)
{
    if (!p)
        return 0;
    return um_dfine_weight_bytes(p->detector->net) +
           (p->segmenter ? um_sam_weight_bytes(p->segmenter->net) : 0) +
           um_pipeline_session_bytes(p);
}
