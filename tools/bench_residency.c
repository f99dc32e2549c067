/* SPDX-License-Identifier: Apache-2.0 */
/* bench residency: what it is worth to keep the mask on the device. The same frames pass one after
 * the other through pipelines that share device and networks:
 *
 *   legacy    the segmenter's kernels, then blocking copies of the frame-size fp32 logits and of
 *             the score, threshold, statistics and packet on the host
 *   resident  mask, statistics and packet on the device, one copy of the finished packet; with the
 *             same gate as legacy (sync) and, where queues overlap, with the speculative one
 *
 * Copies in the SAM stage: all of a frame but the upload, the gate's read and the packet. SAM
 * latency: the frame less upload, detection (with resize and gate) and packet: from the box to the
 * mask, with legacy's copies and threshold; with the speculative gate the encoder overlaps the
 * detection, so that only whole frames compare. Only frames count that every mode segmented. */
#include "bench.h"
#include "tell.h"

#include <stdlib.h>
#include <string.h>

enum { MODES = 3, WARM_UP = 5, DRAWN = 32 };

/* The user's targets, in percent of legacy mode. */
#define TARGETS                                                                      \
    "{\"sam_copies\":[2,0],\"sam_ms_percent\":-20,\"frames_per_s_percent\":[15,25]," \
    "\"device_bytes_percent\":[5,10]}"

struct sample {
    double sam, frame; /* ms */
    um_transfers transfers;
    uint32_t area_px;
    bool masked;
};

struct mode {
    const char *name, *gate;
    um_mask_mode mask;
    um_gate_mode gate_mode;
    um_pipeline *pipeline;
    struct sample last;
    double *sam, *frame; /* ms of each prediction */
    size_t n;
    double up, down, waits, sam_copies, up_bytes, down_bytes; /* sums */
    double area_difference;                                   /* greatest, to the first mode */
};

struct residency {
    struct mode mode[MODES];
    int modes;
    um_frame *drawn[DRAWN];
    int count;
    long frames; /* passed through each mode */
    bool shared; /* no copies: host and device share memory */
};

static um_status read_frames(struct residency *r, long frames)
{
    um_source *source = NULL;
    um_status st = um_source_open(&source, "phantom:seed=1,frames=32,empty=0", NULL);
    while (st == UM_OK && r->count < DRAWN && r->count < frames) {
        st = um_source_read(source, &r->drawn[r->count]);
        r->count += st == UM_OK;
    }
    um_source_close(&source);
    return st;
}

static um_status open_mode(struct residency *r, const struct options *o, const struct engine *e,
                           um_mask_mode mask, um_gate_mode gate)
{
    struct mode *m = &r->mode[r->modes++];
    um_pipeline_settings s;
    m->name = mask == UM_MASK_HOST ? "legacy" : "resident";
    m->gate = gate == UM_GATE_SYNC ? "sync" : "speculative";
    m->mask = mask;
    m->gate_mode = gate;
    m->sam = calloc((size_t)r->frames, sizeof *m->sam);
    m->frame = calloc((size_t)r->frames, sizeof *m->frame);
    if (!m->sam || !m->frame)
        return um_set_error(UM_ENOMEM, "times of so many frames");
    um_pipeline_settings_default(&s);
    s.detector = e->detector;
    s.segmenter = e->segmenter;
    s.conf = o->conf;
    s.sam_as_numpy = mask;
    s.gate = gate;
    return um_pipeline_open(&m->pipeline, &s);
}

static um_status measure(struct mode *m, um_frame *frame)
{
    const um_packet *k = NULL;
    um_status st = bench_frame(m->pipeline, frame, &k, &m->last.frame);
    if (st != UM_OK)
        return st;
    m->last.sam = k->ms.total - k->ms.upload - k->ms.detect - k->ms.packet;
    m->last.transfers = k->transfers;
    m->last.area_px = k->mask_area_px;
    m->last.masked = k->has_mask != 0;
    return UM_OK;
}

/* One frame through every mode; who is first changes from frame to frame. */
static um_status turn(struct residency *r, long i, bool *masked)
{
    um_status st = UM_OK;
    *masked = true;
    for (int j = 0; j < r->modes && st == UM_OK; j++) {
        struct mode *m = &r->mode[(i + j) % r->modes];
        st = measure(m, r->drawn[i % r->count]);
        *masked = *masked && m->last.masked;
    }
    return st;
}

static void add(struct mode *m, const struct mode *first)
{
    const um_transfers *t = &m->last.transfers;
    double gate = m->gate_mode == UM_GATE_SYNC, packet = m->mask == UM_MASK_DEVICE;
    double difference = (double)m->last.area_px - (double)first->last.area_px;
    difference = difference < 0 ? -difference : difference;
    m->sam[m->n] = m->last.sam;
    m->frame[m->n++] = m->last.frame;
    m->up += t->up;
    m->down += t->down;
    m->waits += t->waits;
    m->up_bytes += (double)t->up_bytes;
    m->down_bytes += (double)t->down_bytes;
    if (!t->shared)
        m->sam_copies += (double)t->up + t->down - 1 - gate - packet;
    if (difference > m->area_difference)
        m->area_difference = difference;
}

/* ---- report ---- */

struct figures {
    double sam_copies, up, down, up_kb, down_kb, waits;
    double sam[4], frame[4]; /* min, p50, p99, max */
    double steadiness;       /* p99/p50 of the SAM stage */
    double per_second, device_mb;
};

static bool own_sam_time(const struct mode *m)
{
    return m->gate_mode == UM_GATE_SYNC;
}

static struct figures figures_of(const struct mode *m)
{
    double n = (double)m->n, ms = 0;
    struct figures f = {.sam_copies = m->sam_copies / n,
                        .up = m->up / n,
                        .down = m->down / n,
                        .up_kb = m->up_bytes / n / 1024,
                        .down_kb = m->down_bytes / n / 1024,
                        .waits = m->waits / n,
                        .device_mb = (double)um_pipeline_device_bytes(m->pipeline) / 1048576};
    if (own_sam_time(m))
        bench_percentiles(m->sam, m->n, &f.sam[0], &f.sam[1], &f.sam[2], &f.sam[3]);
    bench_percentiles(m->frame, m->n, &f.frame[0], &f.frame[1], &f.frame[2], &f.frame[3]);
    for (size_t i = 0; i < m->n; i++)
        ms += m->frame[i];
    f.steadiness = f.sam[1] > 0 ? f.sam[2] / f.sam[1] : 0;
    f.per_second = ms > 0 ? 1e3 * n / ms : 0;
    return f;
}

static double percent(double now, double before)
{
    return before > 0 ? 100 * (now / before - 1) : 0;
}

static void print_mode(const struct residency *r, const struct mode *m, const struct figures *f,
                       const struct engine *e)
{
    printf("{\"bench\":\"residency\",\"mode\":\"%s\",\"gate\":\"%s\",\"frames\":%ld,"
           "\"predictions\":%zu,\"shared\":%s,\"sam_copies\":%g,\"up\":%g,\"down\":%g,"
           "\"up_bytes\":%.0f,\"down_bytes\":%.0f,\"waits\":%g,",
           m->name, m->gate, r->frames, m->n, r->shared ? "true" : "false", f->sam_copies, f->up,
           f->down, 1024 * f->up_kb, 1024 * f->down_kb, f->waits);
    if (own_sam_time(m)) {
        bench_print_ms("sam_ms", m->sam, m->n);
        printf(",\"sam_p99_over_p50\":%.4f,", f->steadiness);
    } else
        printf("\"sam_ms\":null,\"sam_p99_over_p50\":null,");
    bench_print_ms("frame_ms", m->frame, m->n);
    printf(",\"frames_per_s\":%.3f,\"device_bytes\":%llu,\"det_size\":%d,\"sam_size\":%d,",
           f->per_second, (unsigned long long)um_pipeline_device_bytes(m->pipeline),
           um_detector_input_size(e->detector), um_segmenter_canvas(e->segmenter));
    bench_print_machine(e->dev);
    printf("}\n");
}

static void print_compare(const struct mode *m, const struct figures *f, const struct figures *was)
{
    printf("{\"bench\":\"residency\",\"mode\":\"compare\",\"gate\":\"%s\",\"sam_copies\":[%g,%g],",
           m->gate, was->sam_copies, f->sam_copies);
    if (own_sam_time(m))
        printf("\"sam_ms_percent\":%.2f,\"sam_p99_over_p50\":[%.4f,%.4f],",
               percent(f->sam[1], was->sam[1]), was->steadiness, f->steadiness);
    else
        printf("\"sam_ms_percent\":null,\"sam_p99_over_p50\":null,");
    printf("\"frame_ms_percent\":%.2f,\"frames_per_s_percent\":%.2f,\"device_bytes_percent\":%.2f,"
           "\"mask_area_difference_px\":%.0f,\"targets\":" TARGETS "}\n",
           percent(f->frame[1], was->frame[1]), percent(f->per_second, was->per_second),
           percent(f->device_mb, was->device_mb), m->area_difference);
}

/* A row of the table: one figure of every mode, its change against legacy mode, and the target.
 * `timed`: a time of the SAM stage. */
static void row(const struct residency *r, const struct figures *f, const char *name, size_t offset,
                int digits, bool timed, const char *target)
{
    double was = *(const double *)(const void *)((const char *)&f[0] + offset);
    fprintf(stderr, "%-26s %11.*f", name, digits, was);
    for (int i = 1; i < r->modes; i++) {
        double now = *(const double *)(const void *)((const char *)&f[i] + offset);
        char change[16] = "-";
        if (timed && !own_sam_time(&r->mode[i])) {
            fprintf(stderr, " %11s %9s", "overlaps", "-");
            continue;
        }
        if (was > 0)
            snprintf(change, sizeof change, "%+.1f %%", percent(now, was));
        fprintf(stderr, " %11.*f %9s", digits, now, change);
    }
    fprintf(stderr, "   %s\n", target);
}

#define ROW(name, field, digits, target) \
    row(r, f, name, offsetof(struct figures, field), digits, false, target)
#define SAM_ROW(name, field, target) \
    row(r, f, name, offsetof(struct figures, field), 3, true, target)

static void print_table(const struct residency *r, const struct figures *f, const um_device *dev)
{
    fprintf(stderr,
            "device %s (%s, %s): %zu of %ld frames segmented by every mode, frame by frame in "
            "turn\n\n%-26s %11s",
            um_device_name(dev), um_device_isa(dev), um_device_precision(dev), r->mode[0].n,
            r->frames, "", "legacy");
    for (int i = 1; i < r->modes; i++)
        fprintf(stderr, " %11s %9s", "resident", "change");
    fprintf(stderr, "   target\n%-26s", "per frame, gate:");
    for (int i = 0; i < r->modes; i++)
        fprintf(stderr, i ? " %11s          " : " %11s", r->mode[i].gate);
    fprintf(stderr, "\n");
    ROW("copies in the SAM stage", sam_copies, 0, "2 -> 0");
    ROW("copies up", up, 0, "-");
    ROW("copies down", down, 0, "-");
    ROW("KB up", up_kb, 1, "-");
    ROW("KB down", down_kb, 1, "-");
    ROW("waits of the host", waits, 1, "-");
    SAM_ROW("SAM stage ms, p50", sam[1], "-20 %");
    SAM_ROW("  p99", sam[2], "-");
    SAM_ROW("  max", sam[3], "-");
    SAM_ROW("  p99/p50", steadiness, "stable");
    ROW("whole frame ms, p50", frame[1], 3, "-");
    ROW("  p99", frame[2], 3, "-");
    ROW("  max", frame[3], 3, "-");
    ROW("frames/s", per_second, 2, "+15 to +25 %");
    ROW("device memory MB", device_mb, 1, "+5 to +10 %");
    if (r->shared)
        fprintf(stderr, "\nhost and device share memory: there are no copies to save, all counts "
                        "are 0 and what differs is who makes the mask\n");
}

static void report(const struct residency *r, const struct options *o, const struct engine *e)
{
    struct figures f[MODES];
    for (int i = 0; i < r->modes; i++) {
        f[i] = figures_of(&r->mode[i]);
        print_mode(r, &r->mode[i], &f[i], e);
    }
    for (int i = 1; i < r->modes; i++)
        print_compare(&r->mode[i], &f[i], &f[0]);
    fflush(stdout);
    if (!o->quiet)
        print_table(r, f, e->dev);
}

int bench_residency(const struct options *o, const struct engine *e)
{
    struct residency r = {.frames = o->frames ? o->frames : 200};
    um_transfers t;
    bool masked = false;
    int code = EXIT_FAILED;
    um_device_transfers(e->dev, &t);
    r.shared = t.shared != 0;
    um_status st = read_frames(&r, r.frames);
    if (st == UM_OK)
        st = open_mode(&r, o, e, UM_MASK_HOST, UM_GATE_SYNC);
    if (st == UM_OK && (!o->gate || strcmp(o->gate, "sync") == 0))
        st = open_mode(&r, o, e, UM_MASK_DEVICE, UM_GATE_SYNC);
    if (st == UM_OK && (o->gate ? strcmp(o->gate, "sync") != 0 : !r.shared))
        st = open_mode(&r, o, e, UM_MASK_DEVICE, UM_GATE_SPECULATIVE);
    for (long i = 0; i < WARM_UP && st == UM_OK; i++)
        st = turn(&r, i, &masked);
    for (long i = 0; i < r.frames && st == UM_OK; i++) {
        st = turn(&r, i, &masked);
        for (int j = 0; j < r.modes && st == UM_OK && masked; j++)
            add(&r.mode[j], &r.mode[0]);
        if (!o->quiet)
            tell_progress((uint64_t)i + 1, r.frames, "");
    }
    if (st != UM_OK)
        code = cli_fail(st);
    else if (!r.mode[0].n)
        fprintf(stderr, "ultramotion: bench residency: the detector found nothing to segment in "
                        "the phantom's frames (--conf 0 takes the best box)\n");
    else {
        report(&r, o, e);
        code = EXIT_DONE;
    }
    for (int i = 0; i < r.modes; i++) {
        um_pipeline_close(&r.mode[i].pipeline);
        free(r.mode[i].sam);
        free(r.mode[i].frame);
    }
    for (int i = 0; i < r.count; i++)
        um_frame_unref(&r.drawn[i]);
    return code;
}
