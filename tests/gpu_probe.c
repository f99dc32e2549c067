/* SPDX-License-Identifier: Apache-2.0 */
/* What a GPU costs beside arithmetic, measured through the device layer: one JSON object on
 * standard output. The model of a frame's time (launches, nodes, copies, waits) takes its constants
 * from here.
 *
 *     gpu_probe [--device cuda:0] [--small]      launches, graphs, copies, waits, bandwidth
 *     gpu_probe --frames N [--precision P] [--detector FILE] [--segmenter FILE] [--det-size N]
 *               [--sam-size N]                   eager = graph = replay on the golden frames
 *     gpu_probe --lose                           an illegal address, and what the library makes of
 *                                                it
 *     gpu_probe --write-dfine SIZE FILE          generated weights, size n, s, m, l or x
 *
 * --small: sizes for a test of this program, e.g. on the driver's stand-in. */
#include "dfine_weights.h"

#include "base/clock.h"
#include "device/backend.h"
#include "nn/cuda/test.h"
#include "ultramotion/ultramotion.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options, errors, numbers ---- */

struct options {
    const char *device, *precision, *detector, *segmenter;
    int det_size, sam_size;
    long frames;
    bool small;
};

static void need(um_status st, const char *what)
{
    if (st == UM_OK)
        return;
    fprintf(stderr, "gpu_probe: %s: %s\n", what, um_last_error());
    exit(1);
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else
            putchar((unsigned char)*text < ' ' ? ' ' : *text);
    putchar('"');
}

enum { SAMPLES = 400 };
struct series {
    double v[SAMPLES];
    int n;
};

static void add(struct series *s, double v)
{
    if (s->n < SAMPLES)
        s->v[s->n++] = v;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double least(struct series *s)
{
    qsort(s->v, (size_t)s->n, sizeof *s->v, ascending);
    return s->v[0];
}

static double middle(struct series *s)
{
    qsort(s->v, (size_t)s->n, sizeof *s->v, ascending);
    return s->v[s->n / 2];
}

static void print_series(const char *name, struct series *s)
{
    printf("\"%s\":{\"min\":%.3f,\"median\":%.3f}", name, least(s), middle(s));
}

static double us(uint64_t from, uint64_t to)
{
    return (double)(to - from) * 1e-3;
}

/* ---- nodes ---- */

enum { FLOATS = 32, BRANCHES = 2, CHAINS = 4 };

struct probe {
    um_device *dev;
    bool small;
    int repeats;
    um_buf *buf[BRANCHES][2];
    struct um_step step[BRANCHES][2]; /* there and back, so that each depends on the one before */
    um_event *from, *to;
    um_event *fork[2], *join[2]; /* outside and inside a capture */
    um_event *mark;              /* a timed one between nodes */
};

static void affine_kernel(const struct um_call *call)
{
    struct um_test_affine_args a = {
        call->t[0].data, call->t[1].data, call->t[0].w, 0.5f, 0.25f,
    };
    call->stream->launch(call->stream, &(struct um_launch){.kernel = "um_test_affine",
                                                           .grid = {1, 1, 1},
                                                           .threads = FLOATS,
                                                           .args = &a,
                                                           .size = sizeof a});
}

static struct um_operand floats(um_buf *buf, bool write)
{
    return (struct um_operand){.buf = buf,
                               .size = 4 * FLOATS,
                               .write = write,
                               .view = {.dtype = UM_F32, .h = 1, .w = FLOATS, .c = 1, .ld = 1}};
}

static um_device *open_device(const struct options *o)
{
    static const char *const kernels[] = {"um_test_affine"};
    um_device_settings s;
    um_device *dev = NULL;
    um_device_settings_default(&s);
    s.name = o->device;
    s.precision = o->precision;
    need(um_device_open(&dev, &s), o->device);
    if (!dev->caps.launches) {
        fprintf(stderr, "gpu_probe: device %s is no GPU\n", o->device);
        exit(1);
    }
    need(um_load_kernels(dev, kernels, 1), "kernels");
    return dev;
}

static void open_probe(struct probe *p)
{
    float x[FLOATS];
    for (int i = 0; i < FLOATS; i++)
        x[i] = (float)(i + 1) / FLOATS;
    for (int b = 0; b < BRANCHES; b++) {
        for (int k = 0; k < 2; k++) {
            need(um_buf_open(&p->buf[b][k], p->dev, sizeof x, "chain"), "buffer");
            need(um_upload_now(p->dev, p->buf[b][k], 0, x, sizeof x, UM_STAGE_SETUP, "chain"),
                 "upload");
        }
        for (int k = 0; k < 2; k++)
            p->step[b][k] = (struct um_step){
                .name = "affine",
                .kernel = affine_kernel,
                .n = 2,
                .operand = {floats(p->buf[b][!k], true), floats(p->buf[b][k], false)}};
    }
    need(um_event_open_timed(&p->from, p->dev), "event");
    need(um_event_open_timed(&p->to, p->dev), "event");
    need(um_event_open_timed(&p->mark, p->dev), "event");
    for (int k = 0; k < 2; k++) {
        need(um_event_open(&p->fork[k], p->dev), "event");
        need(um_event_open(&p->join[k], p->dev), "event");
    }
}

static void close_probe(struct probe *p)
{
    um_event_close(&p->from, p->dev);
    um_event_close(&p->to, p->dev);
    um_event_close(&p->mark, p->dev);
    for (int k = 0; k < 2; k++) {
        um_event_close(&p->fork[k], p->dev);
        um_event_close(&p->join[k], p->dev);
    }
    for (int b = 0; b < BRANCHES; b++)
        for (int k = 0; k < 2; k++)
            um_buf_close(&p->buf[b][k]);
    um_device_close(&p->dev);
}

struct chain {
    int nodes, branches; /* nodes of each branch */
    bool graph, marks;   /* marks: a timed event after each node */
};

static void submit(struct probe *p, const struct chain *c)
{
    const um_device *d = p->dev;
    um_event *fork = p->fork[c->graph], *join = p->join[c->graph];
    um_status st = UM_OK;
    if (c->branches == 2) {
        need(um_event_record(p->dev, UM_QUEUE_MAIN, fork), d->name);
        need(um_event_wait(p->dev, UM_QUEUE_SIDE, fork), d->name);
    }
    for (int i = 0; i < c->nodes; i++)
        for (int b = 0; b < c->branches && st == UM_OK; b++) {
            enum um_queue q = b ? UM_QUEUE_SIDE : UM_QUEUE_MAIN;
            st = um_step_run(p->dev, q, &p->step[b][i % 2]);
            if (st == UM_OK && c->marks)
                st = um_event_record(p->dev, q, p->mark);
        }
    need(st, "chain");
    if (c->branches == 2) {
        need(um_event_record(p->dev, UM_QUEUE_SIDE, join), d->name);
        need(um_event_wait(p->dev, UM_QUEUE_MAIN, join), d->name);
    }
}

struct timing {
    struct series gpu, submit, wall; /* us: on the device, to submit, and until the host knows */
};

static void time_chain(struct probe *p, const struct chain *c, struct timing *t)
{
    um_graph *graph = NULL;
    memset(t, 0, sizeof *t);
    if (c->graph) {
        need(um_capture_begin(p->dev), "capture");
        submit(p, c);
        need(um_capture_end(p->dev, &graph), "capture");
    }
    for (int r = 0; r < p->repeats + 3; r++) {
        uint64_t ns = 0, start = um_clock_ns();
        need(um_event_record(p->dev, UM_QUEUE_MAIN, p->from), "event");
        if (graph)
            need(um_graph_launch(p->dev, graph), "launch");
        else
            submit(p, c);
        need(um_event_record(p->dev, UM_QUEUE_MAIN, p->to), "event");
        uint64_t submitted = um_clock_ns();
        need(um_event_sync(p->dev, p->to, UM_STAGE_DEBUG, "chain"), "wait");
        uint64_t end = um_clock_ns();
        need(um_event_elapsed(p->dev, p->from, p->to, &ns), "elapsed");
        if (r < 3) /* the first ones warm up */
            continue;
        add(&t->gpu, (double)ns * 1e-3);
        add(&t->submit, us(start, submitted));
        add(&t->wall, us(start, end));
    }
    um_graph_close(&graph, p->dev);
}

/* y = a + b x by least squares. */
static void fit(const int *x, const double *y, int n, double *a, double *b)
{
    double sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (int i = 0; i < n; i++) {
        sx += x[i];
        sy += y[i];
        sxx += (double)x[i] * x[i];
        sxy += x[i] * y[i];
    }
    *b = (n * sxy - sx * sy) / (n * sxx - sx * sx);
    *a = (sy - *b * sx) / n;
}

/* Chains of four lengths and what a launch and a node of them cost. */
static void probe_chains(struct probe *p)
{
    static const int lengths[2][CHAINS] = {{1, 50, 200, 400}, {1, 5, 10, 20}};
    const int *n = lengths[p->small];
    static struct timing t;
    printf("\"chains\":[");
    for (int k = 0; k < 4; k++) {
        struct chain c = {.graph = k / 2, .branches = 1 + k % 2};
        double gpu[CHAINS], host[CHAINS], a, b, ha, hb;
        printf("%s{\"how\":\"%s\",\"branches\":%d,\"nodes\":[", k ? "," : "",
               c.graph ? "graph" : "eager", c.branches);
        for (int i = 0; i < CHAINS; i++) {
            c.nodes = n[i];
            time_chain(p, &c, &t);
            gpu[i] = middle(&t.gpu);
            host[i] = middle(&t.submit);
            printf("%s{\"n\":%d,", i ? "," : "", n[i]);
            print_series("gpu_us", &t.gpu);
            printf(",");
            print_series("submit_us", &t.submit);
            printf(",");
            print_series("wall_us", &t.wall);
            printf("}");
        }
        fit(n, gpu, CHAINS, &a, &b);
        fit(n, host, CHAINS, &ha, &hb);
        printf("],\"fit\":{\"launch_us\":%.3f,\"node_us\":%.4f,\"submit_us\":%.3f,"
               "\"submit_node_us\":%.4f}}",
               a, b, ha, hb);
    }
    printf("]");
}

/* Events: what the host pays for a call, and the device for one that keeps the time in a graph. */
static void probe_events(struct probe *p)
{
    int n = p->small ? 10 : 200;
    static struct timing bare, marked;
    struct series order = {.n = 0}, timed = {.n = 0}, wait = {.n = 0};
    for (int r = 0; r < p->repeats; r++) {
        uint64_t t[4];
        t[0] = um_clock_ns();
        for (int i = 0; i < n; i++)
            need(um_event_record(p->dev, UM_QUEUE_MAIN, p->fork[0]), "event");
        t[1] = um_clock_ns();
        for (int i = 0; i < n; i++)
            need(um_event_record(p->dev, UM_QUEUE_MAIN, p->from), "event");
        t[2] = um_clock_ns();
        for (int i = 0; i < n; i++)
            need(um_event_wait(p->dev, UM_QUEUE_SIDE, p->fork[0]), "event");
        t[3] = um_clock_ns();
        need(um_event_sync(p->dev, p->from, UM_STAGE_DEBUG, "events"), "wait");
        add(&order, us(t[0], t[1]) / n);
        add(&timed, us(t[1], t[2]) / n);
        add(&wait, us(t[2], t[3]) / n);
    }
    struct chain c = {.nodes = p->small ? 5 : 100, .branches = 1, .graph = true};
    time_chain(p, &c, &bare);
    c.marks = true;
    time_chain(p, &c, &marked);
    printf("\"events\":{");
    print_series("record_us", &order);
    printf(",");
    print_series("record_timed_us", &timed);
    printf(",");
    print_series("queue_wait_us", &wait);
    printf(",\"timed_node_in_graph_us\":%.4f}",
           (middle(&marked.gpu) - middle(&bare.gpu)) / c.nodes);
}

/* How long the host waits beyond the device's own time: for what has passed, for what passes while
 * it polls, and for what it sleeps for. */
static void probe_waits(struct probe *p)
{
    static const char *const names[] = {"passed_us", "polled_us", "slept_us"};
    static const int lengths[2][3] = {{1, 20, 400}, {1, 5, 20}};
    printf("\"waits\":{");
    for (int k = 0; k < 3; k++) {
        struct chain c = {.nodes = lengths[p->small][k], .branches = 1, .graph = true};
        struct series s = {.n = 0};
        static struct timing t;
        if (k == 0)
            for (int r = 0; r < p->repeats; r++) {
                submit(p, &(struct chain){.nodes = 1, .branches = 1});
                need(um_event_record(p->dev, UM_QUEUE_MAIN, p->to), "event");
                need(um_event_sync(p->dev, p->to, UM_STAGE_DEBUG, "waits"), "wait");
                uint64_t start = um_clock_ns();
                need(um_event_sync(p->dev, p->to, UM_STAGE_DEBUG, "waits"), "wait");
                add(&s, us(start, um_clock_ns()));
            }
        else {
            time_chain(p, &c, &t);
            for (int i = 0; i < t.wall.n; i++) /* neither is sorted yet: same run, same index */
                add(&s, t.wall.v[i] - t.gpu.v[i]);
        }
        printf("%s", k ? "," : "");
        print_series(names[k], &s);
    }
    printf("}");
}

/* ---- copies ---- */

static void probe_transfers(struct probe *p)
{
    static const size_t sizes[] = {422 * 558, 30 * 1024, 64};
    um_buf *buf = NULL;
    um_hostbuf *host = NULL;
    need(um_buf_open(&buf, p->dev, sizes[0], "transfer"), "buffer");
    need(um_hostbuf_open(&host, p->dev, sizes[0]), "pinned memory");
    memset(host->data, 1, sizes[0]);
    printf("\"transfers\":[");
    for (int k = 0; k < 6; k++) {
        bool up = k < 3;
        size_t n = sizes[k % 3];
        struct series wall = {.n = 0}, gpu = {.n = 0};
        for (int r = 0; r < p->repeats + 3; r++) {
            uint64_t ns = 0, start = um_clock_ns();
            need(um_event_record(p->dev, UM_QUEUE_MAIN, p->from), "event");
            need(up ? um_upload(p->dev, UM_QUEUE_MAIN, buf, 0, host, 0, n, UM_STAGE_DEBUG, "probe")
                    : um_download(p->dev, UM_QUEUE_MAIN, host, 0, buf, 0, n, UM_STAGE_DEBUG,
                                  "probe"),
                 "copy");
            need(um_event_record(p->dev, UM_QUEUE_MAIN, p->to), "event");
            need(um_event_sync(p->dev, p->to, UM_STAGE_DEBUG, "copy"), "wait");
            uint64_t end = um_clock_ns();
            need(um_event_elapsed(p->dev, p->from, p->to, &ns), "elapsed");
            if (r < 3)
                continue;
            add(&wall, us(start, end));
            add(&gpu, (double)ns * 1e-3);
        }
        printf("%s{\"direction\":\"%s\",\"bytes\":%zu,", k ? "," : "", up ? "up" : "down", n);
        print_series("wall_us", &wall);
        printf(",");
        print_series("gpu_us", &gpu);
        printf("}");
    }
    printf("]");
    um_hostbuf_close(&host);
    um_buf_close(&buf);
}

/* A copy on the device, bytes read and written together. */
static void probe_bandwidth(struct probe *p)
{
    size_t n = (size_t)512 << 20;
    if (n > p->dev->caps.memory_bytes / 8)
        n = p->dev->caps.memory_bytes / 8;
    if (p->small)
        n = (size_t)1 << 20;
    um_buf *a = NULL, *b = NULL;
    struct series s = {.n = 0};
    need(um_buf_open(&a, p->dev, n, "copy"), "buffer");
    need(um_buf_open(&b, p->dev, n, "copy"), "buffer");
    need(um_fill(p->dev, UM_QUEUE_MAIN, a, 0, n, 0x5b), "fill");
    for (int r = 0; r < (p->small ? 2 : 23); r++) {
        uint64_t ns = 0;
        need(um_event_record(p->dev, UM_QUEUE_MAIN, p->from), "event");
        need(um_copy(p->dev, UM_QUEUE_MAIN, b, 0, a, 0, n), "copy");
        need(um_event_record(p->dev, UM_QUEUE_MAIN, p->to), "event");
        need(um_event_sync(p->dev, p->to, UM_STAGE_DEBUG, "copy"), "wait");
        need(um_event_elapsed(p->dev, p->from, p->to, &ns), "elapsed");
        if (r >= 3 || p->small)
            add(&s, (double)ns * 1e-3);
    }
    double best = least(&s), median = middle(&s);
    printf("\"copy\":{\"bytes\":%zu,", n);
    print_series("gpu_us", &s);
    printf(",\"gb_per_s\":{\"max\":%.1f,\"median\":%.1f}}", best > 0 ? 2e-3 * (double)n / best : 0,
           median > 0 ? 2e-3 * (double)n / median : 0);
    um_buf_close(&b);
    um_buf_close(&a);
}

static int probe(const struct options *o)
{
    char about[256];
    struct probe p = {.small = o->small, .repeats = o->small ? 3 : 100};
    need(um_device_describe(o->device, about, sizeof about), o->device);
    uint64_t start = um_clock_ns();
    p.dev = open_device(o);
    double open_us = us(start, um_clock_ns());
    printf("{\"probe\":\"gpu\",\"device\":");
    print_text(about);
    printf(",\"open_ms\":%.2f,\"repeats\":%d,", open_us * 1e-3, p.repeats);
    open_probe(&p);
    probe_chains(&p);
    printf(",");
    probe_events(&p);
    printf(",");
    probe_waits(&p);
    printf(",");
    probe_transfers(&p);
    printf(",");
    probe_bandwidth(&p);
    printf("}\n");
    close_probe(&p);
    return 0;
}

/* ---- the same frames eagerly, as a graph, and again and again ---- */

enum { FRAMES = 5, BOXES = 300 };

struct outcome {
    float score, iou, box[4];
    uint32_t area;
    uint8_t *mask;
};

struct images {
    um_frame *frame[FRAMES];
    struct outcome want[FRAMES];
    int n;
};

struct counts {
    uint32_t up[2], down[2], waits[2]; /* least and most of a frame */
    uint64_t frames, setup;            /* setup copies after the first frame */
    struct series ms;
};

static um_frame *read_frame(int i)
{
    char path[512];
    um_frame *f = NULL;
    snprintf(path, sizeof path, "%s/end_to_end/phantom_%d.png", UM_GOLDEN_DIR, i);
    need(um_image_read(path, &f), path);
    return f;
}

static size_t pixels_of(const um_frame *f)
{
    return (size_t)f->width * (size_t)f->height;
}

static bool same(const struct outcome *want, const um_packet *k, uint8_t *mask, size_t pixels)
{
    um_packet_mask(k, mask, 1);
    return memcmp(&want->score, &k->score, sizeof k->score) == 0 &&
           memcmp(&want->iou, &k->iou, sizeof k->iou) == 0 &&
           memcmp(want->box, k->box, sizeof k->box) == 0 && want->area == k->mask_area_px &&
           memcmp(want->mask, mask, pixels) == 0;
}

static void widen(uint32_t range[2], uint32_t v, bool first)
{
    range[0] = first || v < range[0] ? v : range[0];
    range[1] = first || v > range[1] ? v : range[1];
}

static void count(struct counts *c, const um_packet *k)
{
    bool first = c->frames++ == 0;
    widen(c->up, k->transfers.up, first);
    widen(c->down, k->transfers.down, first);
    widen(c->waits, k->transfers.waits, first);
    c->setup += first ? 0 : k->transfers.setup;
    add(&c->ms, k->ms.total);
}

/* `frames` frames through a pipeline. With `fill` the first packet of each image becomes what the
 * others are compared with. Returns how many differ. */
static long pass(um_detector *d, um_segmenter *s, struct images *all, bool fill, um_gate_mode gate,
                 int inflight, long frames, struct counts *c)
{
    size_t pixels = pixels_of(all->frame[0]);
    uint8_t *mask = malloc(pixels);
    um_pipeline *p = NULL;
    um_pipeline_settings set;
    long differ = 0, sent = 0, received = 0;
    um_pipeline_settings_default(&set);
    set.detector = d;
    set.segmenter = s;
    set.gate = gate;
    set.conf = 0;       /* a mask for every frame, whatever the weights */
    set.mask_clean = 0; /* as the predictor's */
    set.inflight = inflight;
    set.assert_up = gate == UM_GATE_SYNC ? -1 : 1;
    set.assert_down = set.assert_up;
    need(um_pipeline_open(&p, &set), "pipeline");
    while (mask && received < frames) {
        const um_packet *k = NULL;
        while (sent < frames && sent - received < inflight) {
            um_frame *f = um_frame_ref(all->frame[sent % all->n]);
            need(um_pipeline_send(p, &f), "send");
            sent++;
        }
        need(um_pipeline_receive(p, &k), "receive");
        struct outcome *o = &all->want[received % all->n];
        if (fill && received < all->n) {
            o->score = k->score;
            o->iou = k->iou;
            memcpy(o->box, k->box, sizeof o->box);
            o->area = k->mask_area_px;
            um_packet_mask(k, o->mask, 1);
        } else if (!same(o, k, mask, pixels)) {
            if (differ++ == 0)
                fprintf(stderr,
                        "gpu_probe: frame %ld differs: score %.9g, want %.9g; area %u, want %u\n",
                        received, (double)k->score, (double)o->score, k->mask_area_px, o->area);
        }
        count(c, k);
        received++;
    }
    um_pipeline_close(&p);
    free(mask);
    return differ;
}

/* The same without a graph: the networks called one by one. Returns how many frames differ. */
static long pass_eagerly(um_detector *d, um_segmenter *s, const struct images *all)
{
    static um_box boxes[BOXES];
    size_t pixels = pixels_of(all->frame[0]);
    uint8_t *mask = malloc(pixels), *data = malloc(pixels);
    long differ = 0;
    um_predictor *own = NULL;
    need(um_predictor_open(&own, s), "predictor");
    for (int i = 0; i < all->n && mask && data; i++) {
        const um_frame *f = all->frame[i];
        const struct outcome *want = &all->want[i];
        um_prediction out = {.struct_size = sizeof out};
        um_image image = {.struct_size = sizeof image,
                          .data = data,
                          .height = f->height,
                          .width = f->width,
                          .channels = 1};
        int n = 0;
        for (int y = 0; y < f->height; y++)
            memcpy(data + (size_t)y * (size_t)f->width, f->pixels + y * f->stride,
                   (size_t)f->width);
        need(um_detector_run(d, f, 0, boxes, BOXES, &n), "detect");
        /* not the packet's box, which is clamped to the frame */
        const float box[4] = {boxes[0].x0, boxes[0].y0, boxes[0].x1, boxes[0].y1};
        um_prompts prompts = {
            .struct_size = sizeof prompts, .box = box, .as_numpy = UM_MASK_DEVICE};
        need(um_predictor_set_image(own, &image), "encode");
        need(um_predictor_predict(own, &prompts, &out), "decode");
        need(um_values_read(out.mask[0], mask), "mask");
        um_prediction_close(&out);
        bool equal =
            n > 0 && boxes[0].score == want->score && memcmp(mask, want->mask, pixels) == 0;
        if (!equal)
            fprintf(stderr, "gpu_probe: frame %d differs eagerly: score %.9g, want %.9g; mask %s\n",
                    i, n ? (double)boxes[0].score : -1.0, (double)want->score,
                    memcmp(mask, want->mask, pixels) == 0 ? "equal" : "differs");
        differ += !equal;
    }
    um_predictor_close(&own);
    free(mask);
    free(data);
    return differ;
}

static void print_counts(const char *name, const struct counts *c)
{
    static struct series ms;
    ms = c->ms;
    printf("\"%s\":{\"frames\":%llu,\"up\":[%u,%u],\"down\":[%u,%u],\"waits\":[%u,%u],"
           "\"setup_after_first\":%llu,",
           name, (unsigned long long)c->frames, c->up[0], c->up[1], c->down[0], c->down[1],
           c->waits[0], c->waits[1], (unsigned long long)c->setup);
    print_series("ms", &ms);
    printf("}");
}

static int frames(const struct options *o)
{
    static struct counts one, three, sync;
    um_device_settings set;
    um_device *dev = NULL;
    um_detector *d = NULL;
    um_segmenter *s = NULL;
    struct images all = {.n = o->frames < FRAMES ? (int)o->frames : FRAMES};
    um_device_settings_default(&set);
    set.name = o->device;
    set.precision = o->precision;
    need(um_device_open(&dev, &set), o->device);
    um_detector_settings of;
    um_detector_settings_default(&of);
    of.input_width = of.input_height = o->det_size;
    of.presence = "1"; /* the box's own score, as um_detector_run() has it */
    need(um_detector_open(&d, dev, o->detector, &of), o->detector);
    need(um_segmenter_open(&s, dev, o->segmenter, o->sam_size, NULL), o->segmenter);
    for (int i = 0; i < all.n; i++) {
        all.frame[i] = read_frame(i);
        all.want[i].mask = calloc(pixels_of(all.frame[i]), 1);
    }
    long few = o->frames < 200 ? o->frames : 200;
    long graph = pass(d, s, &all, true, UM_GATE_SPECULATIVE, 1, all.n, &one);
    long replay = pass(d, s, &all, false, UM_GATE_SPECULATIVE, 3, o->frames, &three);
    long gate = pass(d, s, &all, false, UM_GATE_SYNC, 1, few, &sync);
    long eager = pass_eagerly(d, s, &all);
    printf("{\"probe\":\"frames\",\"precision\":\"%s\",\"det_size\":%d,\"sam_size\":%d,"
           "\"differ\":{\"graph\":%ld,\"replay\":%ld,\"sync\":%ld,\"eager\":%ld},",
           um_device_precision(dev), um_detector_input_size(d), um_segmenter_canvas(s), graph,
           replay, gate, eager);
    print_counts("speculative", &three);
    printf(",");
    print_counts("sync", &sync);
    printf("}\n");
    for (int i = 0; i < all.n; i++) {
        um_frame_unref(&all.frame[i]);
        free(all.want[i].mask);
    }
    um_segmenter_close(&s);
    um_detector_close(&d);
    um_device_close(&dev);
    return graph || replay || gate || eager || three.setup || sync.setup;
}

/* ---- loss ---- */

static void wild_kernel(const struct um_call *call)
{
    struct um_test_affine_args a = {(float *)(uintptr_t)64, call->t[1].data, FLOATS, 1, 0};
    call->stream->launch(call->stream, &(struct um_launch){.kernel = "um_test_affine",
                                                           .grid = {1, 1, 1},
                                                           .threads = FLOATS,
                                                           .args = &a,
                                                           .size = sizeof a});
}

/* A kernel that writes where nothing is. The stand-in would write there too: with UM_STANDIN_FAIL
 * it is told which call says so instead. */
static int lose(const struct options *o)
{
    struct probe p = {.dev = open_device(o), .small = true};
    um_buf *more = NULL;
    char said[512];
    open_probe(&p);
    struct um_step step = p.step[0][0];
    step.name = "wild";
    step.kernel = getenv("UM_STANDIN_FAIL") ? affine_kernel : wild_kernel;
    uint64_t start = um_clock_ns();
    um_status run = um_step_run(p.dev, UM_QUEUE_MAIN, &step);
    if (run == UM_OK)
        run = um_event_record(p.dev, UM_QUEUE_MAIN, p.to);
    um_status wait = um_event_sync(p.dev, p.to, UM_STAGE_DEBUG, "wild");
    snprintf(said, sizeof said, "%s", um_last_error());
    uint64_t noticed = um_clock_ns();
    um_status later = um_buf_open(&more, p.dev, 64, "after");
    um_status again = um_event_sync(p.dev, p.to, UM_STAGE_DEBUG, "after");
    uint64_t closing = um_clock_ns();
    close_probe(&p);
    bool ok = wait == UM_EDEVICE && later == UM_EDEVICE && again == UM_EDEVICE;
    printf("{\"probe\":\"lose\",\"as_expected\":%s,\"run\":\"%s\",\"wait\":\"%s\",\"later\":\"%s\","
           "\"noticed_ms\":%.2f,\"closed_ms\":%.2f,\"said\":",
           ok ? "true" : "false", um_status_name(run), um_status_name(wait), um_status_name(later),
           us(start, noticed) * 1e-3, us(closing, um_clock_ns()) * 1e-3);
    print_text(said);
    printf("}\n");
    return !ok;
}

/* ---- command line ---- */

static int write_dfine(const char *size, const char *path)
{
    struct dw_options o = {.size = size[0], .classes = 1, .channels = 3};
    if (!size[0] || size[1] || !strchr("nsmlx", size[0])) {
        fprintf(stderr, "gpu_probe: size %s is not n, s, m, l or x\n", size);
        return 2;
    }
    need(dw_write(path, &o), path);
    return 0;
}

static int usage(const char *word)
{
    fprintf(stderr,
            "gpu_probe: \"%s\"; known: --device cuda:N, --small, --frames N, --precision P, "
            "--detector FILE, --segmenter FILE, --det-size N, --sam-size N, --lose, "
            "--write-dfine SIZE FILE\n",
            word);
    return 2;
}

int main(int argc, char **argv)
{
    struct options o = {.device = "cuda:0",
                        .precision = "auto",
                        .detector = UM_SOURCE_DIR "/models/dfine_n_bone_320.safetensors",
                        .segmenter = UM_SOURCE_DIR "/models/mobile_sam_bone_384.safetensors"};
    bool losing = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--small") == 0) {
            o.small = true;
            continue;
        }
        if (strcmp(a, "--lose") == 0) {
            losing = true;
            continue;
        }
        if (!value)
            return usage(a);
        if (strcmp(a, "--write-dfine") == 0)
            return i + 2 < argc ? write_dfine(value, argv[i + 2]) : usage(a);
        if (strcmp(a, "--device") == 0)
            o.device = value;
        else if (strcmp(a, "--precision") == 0)
            o.precision = value;
        else if (strcmp(a, "--detector") == 0)
            o.detector = value;
        else if (strcmp(a, "--segmenter") == 0)
            o.segmenter = value;
        else if (strcmp(a, "--det-size") == 0)
            o.det_size = atoi(value);
        else if (strcmp(a, "--sam-size") == 0)
            o.sam_size = atoi(value);
        else if (strcmp(a, "--frames") == 0)
            o.frames = atol(value);
        else
            return usage(a);
        i++;
    }
    return losing ? lose(&o) : o.frames > 0 ? frames(&o) : probe(&o);
}
