/* SPDX-License-Identifier: Apache-2.0 */
/* run, serve, replay, detect, segment: the commands that read a source. */
#include "cli.h"
#include "clock.h"
#include "json.h"
#include "kpi.h"
#include "periodic.h"
#include "recording.h"
#include "stop.h"
#include "summary.h"
#include "tell.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A pipeline and what it stands on. */
struct engine {
    um_device *dev;
    um_detector *detector;
    um_segmenter *segmenter;
    um_pipeline *pipeline;
};

/* Where the command writes: the sinks of the options, and the KPI file as one more. */
struct outputs {
    um_sink *sink[MAX_LIST + 2];
    int n;
};

/* A run of the command: what it stands on, what it shows, what came of it. */
struct job {
    const struct options *o;
    um_monitor *monitor;
    struct engine first, spare; /* `spare` is opened when the device of `first` is lost */
    um_pipeline_settings set;   /* of the first */
    um_source *source;
    struct outputs out;
    double started, shown;
    long length;
    bool terminal, line_open;
    bool fell_back;        /* that was said */
    struct verify *verify; /* or NULL */
    struct summary summary;
    um_run_counts counts;
};

static void end_line(struct job *p)
{
    if (p->line_open)
        fprintf(stderr, "\n");
    p->line_open = false;
}

static void show(struct job *p, uint64_t frames, const char *state, double ms)
{
    double now = seconds_now();
    if (!p->terminal || p->o->quiet || now - p->shown < 0.1)
        return;
    p->shown = now;
    p->line_open = true;
    if (p->length > 0)
        fprintf(stderr, "\r%llu/%ld  %-12s %7.1f ms  %6.1f fps ", (unsigned long long)frames,
                p->length, state, ms, (double)frames / (now - p->started));
    else
        fprintf(stderr, "\r%llu  %-12s %7.1f ms  %6.1f fps ", (unsigned long long)frames, state, ms,
                (double)frames / (now - p->started));
}

/* The first one, or the one that took its place. */
static um_pipeline *running(const struct job *p)
{
    return p->spare.pipeline ? p->spare.pipeline : p->first.pipeline;
}

/* The one thing about a shadow that cannot wait. */
static void tell_shadow(struct job *p)
{
    char text[160];
    um_shadow_counts c;
    um_shadow_counts_default(&c);
    if (p->fell_back || !p->o->shadow || um_pipeline_shadow(running(p), &c) != UM_OK ||
        !c.fell_back)
        return;
    p->fell_back = true;
    end_line(p);
    snprintf(text, sizeof text,
             "frame %llu: masks on the device and on the host have diverged (Dice %.4f): legacy "
             "mode from here on",
             (unsigned long long)c.fell_at, (double)c.least_dice);
    tell(text);
}

static void print_shadow(um_pipeline *pipeline)
{
    um_shadow_counts c;
    um_shadow_counts_default(&c);
    if (um_pipeline_shadow(pipeline, &c) != UM_OK)
        return;
    fprintf(stderr, "shadow     %llu frames compared, %llu disagreed (least Dice %.4f)",
            (unsigned long long)c.compared, (unsigned long long)c.disagreed, (double)c.least_dice);
    if (c.failed)
        fprintf(stderr, ", %llu failed", (unsigned long long)c.failed);
    if (c.fell_back)
        fprintf(stderr, "; legacy mode from frame %llu on", (unsigned long long)c.fell_at);
    fprintf(stderr, "\n");
}

static void on_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                      const um_truth *truth)
{
    struct job *p = ctx;
    (void)frame;
    summary_add(&p->summary, packet, truth);
    tell_shadow(p);
    if (p->verify && !p->verify->differs) {
        end_line(p);
        if (!verify_packet(p->verify, packet))
            um_source_cancel(p->source);
    }
    show(p, p->summary.frames, um_state_name(packet->state), packet->ms.total);
    if (p->o->verbose) {
        char text[128];
        snprintf(text, sizeof text, "frame %llu %s score %.3f %.1f ms",
                 (unsigned long long)packet->frame_id, um_state_name(packet->state),
                 (double)packet->score, packet->ms.total);
        tell_line("", text);
    }
}

static void on_problem(void *ctx, const char *text)
{
    struct job *p = ctx;
    end_line(p);
    tell(text);
}

/* What sources and sinks with connections have counted, without the zeros. */
struct tally {
    FILE *f;
    const char *name;
    bool any;
};

static void tally_one(void *ctx, const char *name, uint64_t n)
{
    struct tally *t = ctx;
    if (!n || strcmp(name, "port") == 0)
        return;
    if (!t->any)
        fprintf(t->f, "%-10s ", t->name);
    fprintf(t->f, "%s%s %llu", t->any ? ", " : "", name, (unsigned long long)n);
    t->any = true;
}

static void print_tally(const um_source *source, const struct outputs *out)
{
    struct tally t = {.f = stderr, .name = "source"};
    um_source_counts(source, tally_one, &t);
    if (t.any)
        fprintf(stderr, "\n");
    for (int i = 0; i < out->n; i++) {
        t = (struct tally){.f = stderr, .name = um_sink_name(out->sink[i])};
        um_sink_counts(out->sink[i], tally_one, &t);
        if (t.any)
            fprintf(stderr, "\n");
    }
}

/* --kpi-events, which was checked. */
static bool kpi_all(const struct options *o)
{
    return o->kpi && o->kpi_events && strcmp(o->kpi_events, "all") == 0;
}

static um_status open_trace(um_sink **out, const char *path, const um_sink_settings *settings)
{
    size_t n = strlen(path) + sizeof "trace:";
    char *spec = malloc(n);
    if (!spec)
        return um_set_error(UM_ENOMEM, "--trace");
    snprintf(spec, n, "trace:%s", path);
    um_status st = um_sink_open(out, spec, settings);
    free(spec);
    return st;
}

static um_status open_outputs(const struct options *o, um_source *source, um_monitor *monitor,
                              struct outputs *out)
{
    const char *standard[] = {"jsonl:-"};
    const char *const igtl[][2] = {{"max-fps", o->igtl_max_fps}, {"version", o->igtl_version}};
    const char *const *spec = o->sinks ? o->sink : standard;
    int count = o->sinks ? o->sinks : 1;
    um_sink_settings set;
    um_status st = UM_OK;
    um_sink_settings_default(&set);
    set.objects = o->objects;
    set.deadline_ms = (int)(o->sink_deadline * 1000);
    set.log = o->quiet ? NULL : cli_say;
    set.monitor = monitor;
    set.source = source;
    const um_sink_policy policy =
        o->on_sink_full && strcmp(o->on_sink_full, "drop") == 0 ? UM_SINK_DROP : UM_SINK_BLOCK;
    for (; out->n < count && st == UM_OK; out->n += st == UM_OK) {
        set.policy = recording_folder(spec[out->n]) ? UM_SINK_BLOCK : policy; /* without gaps */
        char *whole = cli_with_igtl(spec[out->n], igtl, 2);
        st = whole ? um_sink_open(&out->sink[out->n], whole, &set)
                   : um_set_error(UM_ENOMEM, spec[out->n]);
        free(whole);
    }
    set.policy = policy;
    set.auxiliary = 1;
    const struct kpi_settings kpi = {o->kpi, kpi_all(o), (uint64_t)((double)o->kpi_max_mb * 1e6),
                                     o->kpi_keep};
    if (st == UM_OK && o->kpi && (st = kpi_open(&out->sink[out->n], &kpi, &set)) == UM_OK)
        out->n++;
    if (st == UM_OK && o->trace && (st = open_trace(&out->sink[out->n], o->trace, &set)) == UM_OK)
        out->n++;
    return st;
}

static int close_outputs(struct outputs *out, int code)
{
    for (int i = 0; i < out->n; i++) {
        um_status st = um_sink_close(&out->sink[i]);
        if (st != UM_OK && code == EXIT_DONE)
            code = cli_fail(st);
    }
    return code;
}

static bool are_whole(const double *v, int n)
{
    int i = 0;
    while (i < n && v[i] == floor(v[i]))
        i++;
    return i == n;
}

/* --crop; zeros without one. False after a message. */
static bool read_crop(const struct options *o, int crop[4])
{
    if (o->has_crop && (!are_whole(o->crop, 4) || o->crop[2] < 1 || o->crop[3] < 1))
        return cli_usage("--crop: want whole pixels X,Y,W,H with W and H at least 1"), false;
    for (int i = 0; i < 4; i++)
        crop[i] = (int)o->crop[i];
    return true;
}

static bool pipeline_settings(const struct options *o, const struct engine *e,
                              um_pipeline_settings *s)
{
    cli_pipeline_settings(o, e->detector, e->segmenter, s);
    s->budget_ms = (double)o->budget_ms;
    s->track =
        o->track >= 0 ? o->track : o->detect_every > 1 || (o->budget_ms > 0 && o->objects == 1);
    s->theta_on = o->theta_on;
    s->theta_off = o->theta_off;
    s->theta_cont = o->theta_cont;
    s->detect_every = o->detect_every;
    s->shadow_every = o->shadow ? o->shadow_every : 0;
    s->mask_clean = o->mask_clean;
    s->dump = o->dump != NULL;
    if (!read_crop(o, s->crop))
        return false;
    if (o->has_assert) {
        if (!are_whole(o->assert_transfers, 2))
            return cli_usage("--assert-transfers: want whole numbers UP,DOWN"), false;
        s->assert_up = (int)o->assert_transfers[0];
        s->assert_down = (int)o->assert_transfers[1];
    }
    if (o->kpi)
        s->kpi = kpi_line;
    return cli_class(o, e->detector, &s->label) == UM_OK;
}

static void announce(const struct options *o, const um_device *dev, const um_detector *detector,
                     const um_segmenter *segmenter)
{
    if (o->quiet)
        return;
    fprintf(stderr, "device %s (%s, %s: %s, %d thread%s)", um_device_name(dev), um_device_isa(dev),
            um_device_precision(dev), um_device_precision_reason(dev), um_device_threads(dev),
            um_device_threads(dev) == 1 ? "" : "s");
    int w = 0, h = 0;
    if (detector) {
        um_detector_input(detector, &w, &h);
        fprintf(stderr, ", %s %d", um_detector_architecture(detector), w);
        if (h != w)
            fprintf(stderr, "x%d", h);
        fprintf(stderr, ", %d class%s", um_detector_classes(detector),
                um_detector_classes(detector) == 1 ? "" : "es");
    }
    if (segmenter)
        fprintf(stderr, ", %s %d", um_segmenter_architecture(segmenter),
                um_segmenter_canvas(segmenter));
    fprintf(stderr, "\n");
}

/* More frames in flight than there can be. */
static void tell_inflight(const struct options *o, const um_pipeline_settings *set,
                          const um_pipeline *pipeline)
{
    int n = um_pipeline_inflight(pipeline);
    if (n < o->inflight && !o->quiet)
        fprintf(stderr, "ultramotion: --inflight %d: %d frame%s in flight%s\n", o->inflight, n,
                n == 1 ? "" : "s",
                set->track  ? ", with --track a frame depends on the one before"
                : set->dump ? ", with --dump"
                            : ": see ultramotion run --help");
}

static um_status open_networks(struct engine *e, const struct options *o)
{
    um_status st = cli_open_detector(&e->detector, e->dev, o);
    return st == UM_OK ? cli_open_segmenter(&e->segmenter, e->dev, o) : st;
}

static void close_engine(struct engine *e)
{
    um_pipeline_close(&e->pipeline);
    um_segmenter_close(&e->segmenter);
    um_detector_close(&e->detector);
    um_device_close(&e->dev);
}

static void tell_models(const struct engine *e, const struct options *o, double ms)
{
    char detector[CLI_PATH], segmenter[CLI_PATH];
    kpi_models(um_device_name(e->dev), um_device_precision(e->dev), ms,
               um_pipeline_device_bytes(e->pipeline), cli_detector_path(o, detector),
               cli_segmenter_path(o, segmenter));
}

/* --on-device-lost cpu: the same pipeline on the processor. The lost one is closed when the run is
 * over. */
static um_status go_on_on_cpu(void *ctx, um_pipeline **pipeline)
{
    struct job *p = ctx;
    struct engine *e = &p->spare;
    struct options o = *p->o;
    um_pipeline_settings set;
    o.device = "cpu";
    o.precision = "fp32";
    end_line(p);
    fprintf(stderr, "ultramotion: device %s lost (%s): going on on cpu\n",
            um_device_name(p->first.dev), um_last_error());
    um_status st = cli_open_device(&e->dev, &o);
    if (st == UM_OK)
        st = open_networks(e, &o);
    if (st != UM_OK)
        return st;
    if (!pipeline_settings(&o, e, &set))
        return UM_EINVAL;
    set.lost_device = um_device_name(p->first.dev);
    st = um_pipeline_open(&e->pipeline, &set);
    if (st != UM_OK) {
        cli_fail(st);
        return st;
    }
    announce(&o, e->dev, e->detector, e->segmenter);
    *pipeline = e->pipeline;
    return UM_OK;
}

/* --on-device-lost; false: said what is wrong. */
static bool lost_policy(const struct options *o, um_run_settings *run)
{
    if (!o->on_device_lost || strcmp(o->on_device_lost, "fail") == 0)
        return true;
    if (o->has_assert)
        return cli_usage("--on-device-lost cpu: cpu has no transfers that --assert-transfers could "
                         "be held against"),
               false;
    run->on_device_lost = go_on_on_cpu;
    return true;
}

/* A single file that could not be read: that was said, and is all there is to say. */
static bool said_all(const struct options *o, uint64_t unreadable)
{
    struct stat s;
    return unreadable == 1 && stat(o->positional[0], &s) == 0 && S_ISREG(s.st_mode);
}

/* The run itself, which can be stopped. */
static um_status run_frames(const um_run_settings *settings, um_run_counts *counts)
{
    um_run *run = NULL;
    um_status st = um_run_open(&run, settings);
    stop_ends_run(run);
    if (st == UM_OK)
        st = um_run_start(run);
    if (st == UM_OK)
        st = um_run_join(run);
    if (st != UM_OK)
        tell(um_last_error());
    if (run)
        um_run_stats(run, counts);
    stop_ends_run(NULL);
    um_run_close(&run);
    return st;
}

static um_status keep_settings(const struct options *o, const struct engine *e)
{
    um_status st = UM_OK;
    for (int i = 0; i < o->sinks && st == UM_OK; i++)
        if (recording_folder(o->sink[i]))
            st = recording_keep(o, recording_folder(o->sink[i]), e->dev, e->detector, e->segmenter);
    return st;
}

/* In an order in which what is wrong shows soon. EXIT_DONE, or another after a message. */
static int open_job(struct job *p)
{
    const struct options *o = p->o;
    struct engine *e = &p->first;
    um_status st = cli_open_device(&e->dev, o);
    if (st == UM_OK)
        st = cli_open_source(&p->source, o);
    if (st == UM_OK)
        st = open_networks(e, o);
    if (st != UM_OK)
        return cli_exit(st);
    if (!pipeline_settings(o, e, &p->set))
        return EXIT_USAGE;
    if ((st = um_pipeline_open(&e->pipeline, &p->set)) != UM_OK)
        return cli_fail(st);
    if ((st = cli_check_outputs(o, p->source)) != UM_OK)
        return cli_exit(st);
    st = open_outputs(o, p->source, p->monitor, &p->out);
    if (st == UM_OK && o->trace_steps)
        st = um_monitor_watch(p->monitor, e->dev);
    if (st == UM_OK)
        st = keep_settings(o, e);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

/* The frames. Errors are told. */
static um_status do_job(struct job *p, um_run_settings *run)
{
    const struct options *o = p->o;
    const struct engine *e = &p->first;
    struct periodic periodic;
    const double opened = p->started;
    if (p->verify)
        p->verify->other_device =
            o->recorded_device && strcmp(o->recorded_device, um_device_name(e->dev)) != 0;
    announce(o, e->dev, e->detector, e->segmenter);
    tell_inflight(o, &p->set, e->pipeline);
    run->pipeline = e->pipeline;
    run->source = p->source;
    run->sinks = p->out.sink;
    run->n_sinks = p->out.n;
    run->strict = o->strict;
    run->realtime = o->realtime;
    run->max_age_ms = o->max_age_ms > 0 ? o->max_age_ms : 0;
    run->lag_alarm_ms = o->lag_alarm_ms;
    run->stall_ms = o->stall_deadline > 0 ? (int)(o->stall_deadline * 1000) : 0;
    run->on_packet = on_packet;
    run->on_problem = on_problem;
    run->ctx = p;
    run->monitor = p->monitor;
    p->length = um_source_length(p->source);
    p->started = seconds_now();
    if (kpi_all(o))
        tell_models(e, o, 1e3 * (p->started - opened));
    um_status st = periodic_start(&periodic, p->monitor, (double)o->summary_every, kpi_all(o),
                                  o->realtime && !o->quiet);
    if (st == UM_OK)
        st = run_frames(run, &p->counts);
    else
        fprintf(stderr, "ultramotion: %s\n", um_last_error());
    periodic_stop(&periodic);
    tell_end();
    end_line(p);
    return st;
}

/* What a run that ended with `st` leaves: its dump, and what it was. */
static int report_job(struct job *p, um_status st)
{
    const struct options *o = p->o;
    const um_run_counts *counts = &p->counts;
    int code = st == UM_OK ? EXIT_DONE : st == UM_EASSERT ? EXIT_ASSERTION : EXIT_FAILED;
    bool nothing = st == UM_OK && !counts->frames && !counts->stopped,
         silent = nothing && said_all(o, counts->unreadable);
    if (nothing && !silent)
        fprintf(stderr, "ultramotion: %s: no usable frame\n", o->positional[0]);
    if (nothing)
        code = EXIT_FAILED;
    if (o->dump && counts->frames && !counts->stalled) {
        um_status dumped = um_pipeline_dump(running(p), o->dump);
        if (dumped != UM_OK && code == EXIT_DONE)
            code = cli_fail(dumped);
    }
    if (!o->quiet && !silent) {
        um_monitor_view view;
        um_monitor_view_default(&view);
        um_monitor_read(p->monitor, &view);
        summary_print(&p->summary, stderr, counts, &view, seconds_now() - p->started);
    }
    if (!o->quiet) {
        print_shadow(running(p));
        print_tally(p->source, &p->out);
    }
    long limit = counts->stopped && p->verify ? (long)p->verify->lines : o->frames;
    if (p->verify && !verify_end(p->verify, limit, o->quiet) && (code == EXIT_DONE || nothing))
        code = EXIT_ASSERTION;
    return code;
}

/* `verify`: every packet is held against one; or NULL. */
static int run_and_report(const struct options *o, struct verify *verify)
{
    um_run_settings run;
    struct job p = {.o = o, .terminal = isatty(2), .started = seconds_now(), .verify = verify};
    um_run_settings_default(&run);
    um_run_counts_default(&p.counts);
    if (!lost_policy(o, &run))
        return EXIT_USAGE;
    stop_catch();
    um_status st = um_monitor_open(&p.monitor);
    if (st != UM_OK)
        return cli_fail(st);
    int code = open_job(&p);
    if (code == EXIT_DONE)
        code = report_job(&p, do_job(&p, &run));
    code = close_outputs(&p.out, code);
    if (p.counts.stalled) /* what it is stuck in cannot be closed */
        _exit(code);
    close_engine(&p.spare); /* it borrows the lost device's name */
    close_engine(&p.first);
    um_source_close(&p.source);
    um_monitor_close(&p.monitor);
    if (p.counts.left_behind) /* exit() might wait for what such a thread holds */
        _exit(code);
    return code;
}

int command_run(const struct options *o)
{
    return run_and_report(o, NULL);
}

int command_serve(const struct options *o)
{
    struct options live = *o;
    live.realtime = true;
    if (live.max_age_ms < 0)
        live.max_age_ms = 2000;
    if (live.stall_deadline < 0)
        live.stall_deadline = 60;
    if (live.track < 0) /* several structures have no common state */
        live.track = live.objects == 1;
    if (!live.on_sink_full)
        live.on_sink_full = "drop";
    if (!live.kpi_events)
        live.kpi_events = "all";
    if (!live.sinks) {
        live.sink[0] = "igtl::18945";
        live.sinks = 1;
    }
    return command_run(&live);
}

int command_replay(const struct options *o)
{
    struct options again = *o;
    struct verify verify = {.lines = 0};
    if (o->verify && o->realtime)
        return cli_usage("--verify looks at every frame, and --realtime passes over those that are "
                         "late: one or the other");
    const char *scheme = o->realtime ? "replay-live:" : "replay:";
    size_t n = strlen(scheme) + strlen(o->positional[0]) + 1;
    char *spec = malloc(n);
    um_status st = spec ? UM_OK : um_set_error(UM_ENOMEM, o->positional[0]);
    if (st == UM_OK) {
        snprintf(spec, n, "%s%s", scheme, o->positional[0]);
        again.positional[0] = spec;
        if (o->verify && !o->sinks) {
            again.sink[0] = "null:";
            again.sinks = 1;
        }
        if (o->verify)
            st = verify_open(&verify, o->positional[0]);
    }
    int code = st == UM_OK ? run_and_report(&again, o->verify ? &verify : NULL) : cli_fail(st);
    verify_close(&verify);
    free(spec);
    return code;
}

/* ---- a loop over frames for detect and segment ---- */

struct each {
    const struct options *o;
    um_source *source;
    uint64_t frames, unreadable;
    double shown; /* when a terminal was last told how many; 0: never */
};

/* One more is done. The next text takes the line's place. */
static void count_frame(struct each *e)
{
    const struct options *o = e->o;
    bool lines = isatty(1) && !o->sinks; /* are seen there, and say enough */
    double now = seconds_now();
    e->frames++;
    if (o->quiet || lines || !isatty(2) || now - e->shown < 0.1)
        return;
    e->shown = now;
    long length = um_source_length(e->source);
    if (length > 0)
        fprintf(stderr, "%llu/%ld \r", (unsigned long long)e->frames, length);
    else
        fprintf(stderr, "%llu \r", (unsigned long long)e->frames);
}

/* The next readable frame; NULL at the end. *code changes with --strict. */
static um_frame *next_frame(struct each *e, int *code)
{
    um_frame *frame = NULL;
    while (!stop_requested()) {
        um_status st = um_source_read(e->source, &frame);
        if (st == UM_OK)
            return frame;
        if (st == UM_EOF)
            return NULL;
        e->unreadable++;
        fprintf(stderr, "ultramotion: %s\n", um_last_error());
        if (e->o->strict) {
            *code = EXIT_FAILED;
            return NULL;
        }
    }
    return NULL;
}

static int no_frames(const struct each *e, int code)
{
    if (code == EXIT_DONE && !e->frames && !stop_requested()) {
        if (!said_all(e->o, e->unreadable))
            fprintf(stderr, "ultramotion: %s: no usable frame\n", e->o->positional[0]);
        return EXIT_FAILED;
    }
    if (e->shown > 0 || (!e->o->quiet && e->unreadable))
        fprintf(stderr, "%llu frames, %llu unreadable\n", (unsigned long long)e->frames,
                (unsigned long long)e->unreadable);
    return code;
}

static um_status open_each(struct each *e)
{
    um_status st = cli_open_source(&e->source, e->o);
    if (st == UM_OK)
        st = cli_check_outputs(e->o, e->source);
    if (st == UM_OK)
        stop_ends_source(e->source);
    return st;
}

static void close_each(struct each *e)
{
    stop_ends_source(NULL);
    um_source_close(&e->source);
}

static um_status crop_frame(const int crop[4], um_frame **frame)
{
    um_frame *f = *frame, *cut = NULL;
    int x = crop[0], y = crop[1], w = crop[2], h = crop[3];
    char text[160];
    if (!w)
        return UM_OK;
    if (x > f->width - w || y > f->height - h) {
        snprintf(text, sizeof text, "--crop %d,%d,%d,%d reaches beyond the %dx%d image", x, y, w, h,
                 f->width, f->height);
        return um_set_error(UM_EINVAL, text);
    }
    um_status st = um_frame_create(&cut, w, h, f->channels);
    if (st != UM_OK)
        return st;
    for (int row = 0; row < h; row++)
        memcpy(cut->pixels + row * cut->stride,
               f->pixels + (y + row) * f->stride + (ptrdiff_t)x * f->channels,
               (size_t)w * (size_t)f->channels);
    cut->id = f->id;
    cut->ts = f->ts;
    st = um_frame_set_source(cut, f->source);
    um_frame_unref(st == UM_OK ? frame : &cut);
    if (st == UM_OK)
        *frame = cut;
    return st;
}

static double clamp(double v, double hi)
{
    return v < 0 ? 0 : v > hi ? hi : v;
}

struct found {
    um_box box[MAX_QUERIES];
    int n, label; /* of the class to print, -1 = all */
    int width, height;
    int crop[4];                 /* what they were looked for in; zeros: all of it */
    const um_detector *detector; /* that knows the classes' names */
};

static void print_boxes(const um_frame *f, const struct found *found, FILE *out)
{
    bool first = true;
    fprintf(out, "{\"frame_id\":%llu,\"ts\":%.6f,\"source\":", (unsigned long long)f->id, f->ts);
    json_string(out, f->source);
    fprintf(out, ",\"boxes\":[");
    for (int i = 0; i < found->n; i++) {
        const um_box *b = &found->box[i];
        if (found->label >= 0 && b->label != found->label)
            continue;
        fprintf(out, "%s{\"box_xyxy\":[%.9g,%.9g,%.9g,%.9g],\"score\":%.9g,\"label\":%d,\"name\":",
                first ? "" : ",", clamp(b->x0 + found->crop[0], found->width),
                clamp(b->y0 + found->crop[1], found->height),
                clamp(b->x1 + found->crop[0], found->width),
                clamp(b->y1 + found->crop[1], found->height), (double)b->score, b->label);
        json_string(out, um_detector_class_name(found->detector, b->label));
        fprintf(out, "}");
        first = false;
    }
    fprintf(out, "]}");
}

/* UM_EOF when the reader has left, UM_AGAIN when it took nothing after a signal. */
static um_status write_boxes(const um_frame *f, const struct found *found, um_lines *lines)
{
    char *line = NULL;
    FILE *out = text_open(&line);
    if (out)
        print_boxes(f, found, out);
    um_status st = text_close(out, &line) ? um_lines_write(lines, line, stop_fd())
                                          : um_set_error(UM_ENOMEM, "a line of boxes");
    free(line);
    return st;
}

int command_detect(const struct options *o)
{
    um_device *dev = NULL;
    um_detector *detector = NULL;
    um_lines *lines = NULL;
    struct each e = {.o = o};
    struct found found = {.label = -1};
    um_frame *frame;
    int code = EXIT_DONE;
    stop_catch();
    um_status st = cli_open_device(&dev, o);
    if (st == UM_OK)
        st = open_each(&e);
    if (st == UM_OK)
        st = cli_open_detector(&detector, dev, o);
    if (st == UM_OK)
        st = cli_class(o, detector, &found.label);
    if (st == UM_OK && !read_crop(o, found.crop))
        st = UM_EINVAL;
    if (st != UM_OK)
        code = cli_exit(st);
    else if ((o->dump && (st = um_detector_keep_taps(detector)) != UM_OK) ||
             (st = um_lines_open(&lines, "-")) != UM_OK)
        code = cli_fail(st);
    else {
        found.detector = detector;
        announce(o, dev, detector, NULL);
    }
    while (code == EXIT_DONE && (frame = next_frame(&e, &code))) {
        found.width = frame->width;
        found.height = frame->height;
        st = crop_frame(found.crop, &frame);
        if (st == UM_OK)
            st = um_detector_run(detector, frame, o->conf, found.box,
                                 (int)(sizeof found.box / sizeof *found.box), &found.n);
        count_frame(&e);
        if (st == UM_OK)
            st = write_boxes(frame, &found, lines);
        if (st == UM_EOF)
            stop_request();
        else if (st != UM_OK)
            code = cli_fail(st);
        um_frame_unref(&frame);
    }
    code = no_frames(&e, code);
    if (code == EXIT_DONE && o->dump && e.frames &&
        (st = um_detector_dump(detector, o->dump)) != UM_OK)
        code = cli_fail(st);
    um_lines_close(&lines);
    um_detector_close(&detector);
    close_each(&e);
    um_device_close(&dev);
    return code;
}

/* ---- segment ---- */

struct prompt_list {
    float box[4], xy[2 * MAX_LIST];
    int label[MAX_LIST];
    um_prompts prompts;
};

static bool read_prompts(const struct options *o, struct prompt_list *l)
{
    l->prompts = (um_prompts){.struct_size = sizeof l->prompts,
                              .points = l->xy,
                              .labels = l->label,
                              .n_points = o->points,
                              .multimask = o->multimask};
    for (int i = 0; i < 4; i++)
        l->box[i] = (float)o->box[i];
    if (o->has_box)
        l->prompts.box = l->box;
    for (int i = 0; i < o->points; i++) {
        double v[3];
        if (!options_numbers(o->point[i], 3, v) || (v[2] != 0 && v[2] != 1))
            return cli_usage("--point: \"%s\" is not X,Y,LABEL", o->point[i]), false;
        l->xy[2 * i] = (float)v[0];
        l->xy[2 * i + 1] = (float)v[1];
        l->label[i] = (int)v[2];
    }
    if (!o->has_box && !o->points)
        return cli_usage("segment: give --box X0,Y0,X1,Y1 or --point X,Y,LABEL"), false;
    l->prompts.as_numpy = cli_mask_mode(o);
    return true;
}

/* The best mask of a prediction as a packet, so that sinks can write it. bits: (w+31)/32*4*h bytes.
 */
static um_status mask_packet(const struct options *o, const um_segmenter *segmenter,
                             const um_frame *f, const um_prediction *pred, double ms,
                             uint8_t *pixels, uint8_t *bits, um_packet **out)
{
    um_packet fields, *k = &fields;
    int best = 0, row = (f->width + 31) / 32 * 4;
    double sx = 0, sy = 0;
    for (int i = 1; i < pred->count; i++)
        if (pred->iou[i] > pred->iou[best])
            best = i;
    um_status st = um_mask_read(pred->mask[best], pixels);
    if (st != UM_OK)
        return st;
    *k = (um_packet){.struct_size = sizeof *k,
                     .frame_id = f->id,
                     .ts = f->ts,
                     .state = UM_STATE_VISIBLE,
                     .has_mask = 1,
                     .has_pose = f->has_pose,
                     .has_spacing = f->has_spacing,
                     .width = f->width,
                     .height = f->height,
                     .crop = {0, 0, f->width, f->height},
                     .bits = bits,
                     .score = pred->iou[best],
                     .iou = pred->iou[best],
                     .as_numpy = um_mask_on_host(pred->mask[best]),
                     .mask_box = {f->width, f->height, 0, 0},
                     .centroid = {NAN, NAN},
                     .ms = {.segment = ms, .total = ms}};
    memcpy(k->pose, f->pose, sizeof k->pose);
    memcpy(k->spacing_mm, f->spacing_mm, sizeof k->spacing_mm);
    const um_device *dev = um_segmenter_device(segmenter);
    snprintf(k->device, sizeof k->device, "%s", um_device_name(dev));
    snprintf(k->precision, sizeof k->precision, "%s", um_device_precision(dev));
    snprintf(k->precision_reason, sizeof k->precision_reason, "%s",
             um_device_precision_reason(dev));
    snprintf(k->segmenter_sha256, sizeof k->segmenter_sha256, "%s", um_segmenter_sha256(segmenter));
    k->has_box = o->has_box;
    for (int i = 0; i < 4 && o->has_box; i++)
        k->box[i] = (float)clamp(o->box[i], i % 2 ? f->height : f->width);
    memset(bits, 0, (size_t)row * (size_t)f->height);
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++) {
            if (!pixels[(size_t)y * (size_t)f->width + (size_t)x])
                continue;
            bits[(size_t)y * (size_t)row + (size_t)x / 8] |= (uint8_t)(1 << x % 8);
            k->mask_area_px++;
            sx += x;
            sy += y;
            k->mask_box[0] = x < k->mask_box[0] ? x : k->mask_box[0];
            k->mask_box[1] = y < k->mask_box[1] ? y : k->mask_box[1];
            k->mask_box[2] = x + 1 > k->mask_box[2] ? x + 1 : k->mask_box[2];
            k->mask_box[3] = y + 1 > k->mask_box[3] ? y + 1 : k->mask_box[3];
        }
    if (k->mask_area_px) {
        k->centroid[0] = (float)(sx / k->mask_area_px);
        k->centroid[1] = (float)(sy / k->mask_area_px);
    } else
        memset(k->mask_box, 0, sizeof k->mask_box);
    um_device_transfers(um_segmenter_device(segmenter), &k->transfers);
    k->source = f->source;
    return um_packet_create(out, k, NULL, 0);
}

/* A click beside the image would be computed all the same, and mean nothing. */
static um_status points_lie_within(const struct options *o, const struct prompt_list *l,
                                   const um_frame *f)
{
    char text[160];
    for (int i = 0; i < o->points; i++) {
        const float *xy = &l->xy[2 * i];
        if (xy[0] >= 0 && xy[1] >= 0 && xy[0] <= (float)f->width && xy[1] <= (float)f->height)
            continue;
        snprintf(text, sizeof text, "--point %g,%g is not in the %dx%d image", (double)xy[0],
                 (double)xy[1], f->width, f->height);
        return um_set_error(UM_EINVAL, text);
    }
    return UM_OK;
}

static um_status segment_frame(const struct options *o, um_segmenter *segmenter,
                               um_predictor *predictor, const struct prompt_list *l,
                               const um_frame *f, um_sink **sinks, int n_sinks, const char *name)
{
    um_packet *packet = NULL;
    um_prediction pred = {.struct_size = sizeof pred};
    size_t pixels = (size_t)f->width * (size_t)f->height;
    uint8_t *mask = malloc(pixels),
            *bits = malloc((size_t)(f->width + 31) / 32 * 4 * (size_t)f->height),
            *rows = malloc(pixels * (size_t)f->channels);
    um_image image = {.struct_size = sizeof image,
                      .data = rows,
                      .type = UM_IMAGE_U8,
                      .layout = UM_IMAGE_HWC,
                      .height = f->height,
                      .width = f->width,
                      .channels = f->channels};
    um_status st = mask && bits && rows ? points_lie_within(o, l, f)
                                        : um_set_error(UM_ENOMEM, "masks of a frame");
    double started = seconds_now();
    for (int y = 0; y < f->height && rows; y++)
        memcpy(rows + (size_t)y * (size_t)f->width * (size_t)f->channels, f->pixels + y * f->stride,
               (size_t)f->width * (size_t)f->channels);
    if (st == UM_OK)
        st = um_predictor_set_image(predictor, &image);
    if (st == UM_OK)
        st = um_predictor_predict(predictor, &l->prompts, &pred);
    if (st == UM_OK)
        st = um_predictor_scores(predictor, pred.iou);
    if (st == UM_OK)
        st = mask_packet(o, segmenter, f, &pred, 1e3 * (seconds_now() - started), mask, bits,
                         &packet);
    for (int i = 0; i < n_sinks && st == UM_OK; i++)
        if (sinks[i]) {
            st = um_sink_write(sinks[i], packet, f, name);
            if (st == UM_EOF) {
                stop_request();
                st = UM_OK;
            }
        }
    const um_packet *done = packet;
    um_packet_unref(&done);
    um_prediction_close(&pred);
    free(mask);
    free(bits);
    free(rows);
    return st;
}

int command_segment(const struct options *o)
{
    um_device *dev = NULL;
    um_segmenter *segmenter = NULL;
    um_predictor *predictor = NULL;
    struct outputs out = {{NULL}, 0};
    struct each e = {.o = o};
    struct prompt_list prompts;
    um_frame *frame;
    int code = EXIT_DONE;
    if (!read_prompts(o, &prompts))
        return EXIT_USAGE;
    stop_catch();
    um_status st = cli_open_device(&dev, o);
    if (st == UM_OK)
        st = open_each(&e);
    if (st == UM_OK)
        st = cli_open_segmenter(&segmenter, dev, o);
    if (st != UM_OK)
        code = cli_exit(st);
    else if ((st = um_predictor_open(&predictor, segmenter)) != UM_OK ||
             (o->dump && (st = um_predictor_keep_taps(predictor)) != UM_OK) ||
             (st = open_outputs(o, e.source, NULL, &out)) != UM_OK)
        code = cli_fail(st);
    else {
        stop_ends_sinks(out.sink, out.n);
        announce(o, dev, NULL, segmenter);
        if (o->kpi)
            um_segmenter_set_kpi(segmenter, kpi_line, NULL);
    }
    while (code == EXIT_DONE && (frame = next_frame(&e, &code))) {
        st = segment_frame(o, segmenter, predictor, &prompts, frame, out.sink, out.n,
                           um_source_frame_name(e.source));
        count_frame(&e);
        um_frame_unref(&frame);
        if (st != UM_OK)
            code = cli_fail(st);
    }
    code = no_frames(&e, code);
    if (code == EXIT_DONE && o->dump && e.frames &&
        (st = um_predictor_dump(predictor, o->dump)) != UM_OK)
        code = cli_fail(st);
    stop_ends_sinks(NULL, 0);
    code = close_outputs(&out, code);
    um_predictor_close(&predictor);
    um_segmenter_close(&segmenter);
    close_each(&e);
    um_device_close(&dev);
    return code;
}
