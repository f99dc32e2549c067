/* SPDX-License-Identifier: Apache-2.0 */
/* run, serve, replay: the commands that run a pipeline on a source. */
#include "cli.h"
#include "clock.h"
#include "kpi.h"
#include "outputs.h"
#include "periodic.h"
#include "recording.h"
#include "stop.h"
#include "summary.h"
#include "tell.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A run of the command: what it stands on, what it shows, what came of it. */
struct job {
    const struct options *o;
    um_monitor *monitor;
    struct engine first, spare; /* `spare` is opened when the device of `first` is lost */
    um_pipeline_settings set;   /* of the first */
    um_source *source;
    struct outputs out;
    double started;
    long length;
    bool fell_back;        /* that was said */
    char told[1024];       /* the last problem */
    struct told looped;    /* with --loop: all of them */
    int crop[4];           /* that was told of last */
    struct verify *verify; /* or NULL */
    struct summary summary;
    um_run_counts counts;
};

static void show(struct job *p, uint64_t frames, const char *state, double ms)
{
    char more[64];
    if (p->o->quiet)
        return;
    snprintf(more, sizeof more, " %-12s %7.1f ms  %6.1f fps ", state, ms,
             (double)frames / (seconds_now() - p->started));
    tell_progress(frames, p->length, more);
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
    um_shadow_counts c = {.struct_size = sizeof c};
    if (p->fell_back || !p->o->shadow || um_pipeline_shadow(running(p), &c) != UM_OK ||
        !c.fell_back)
        return;
    p->fell_back = true;
    snprintf(text, sizeof text,
             "frame %llu: masks on the device and on the host have diverged (Dice %.4f): legacy "
             "mode from here on",
             (unsigned long long)c.fell_at, (double)c.least_dice);
    tell(text);
}

static void print_shadow(um_pipeline *pipeline)
{
    um_shadow_counts c = {.struct_size = sizeof c};
    if (um_pipeline_shadow(pipeline, &c) != UM_OK)
        return;
    fprintf(stderr, "shadow     %llu frame%s compared, %llu disagreed (least Dice %.4f)",
            (unsigned long long)c.compared, plural(c.compared), (unsigned long long)c.disagreed,
            (double)c.least_dice);
    if (c.failed)
        fprintf(stderr, ", %llu failed", (unsigned long long)c.failed);
    if (c.fell_back)
        fprintf(stderr, "; legacy mode from frame %llu on", (unsigned long long)c.fell_at);
    fprintf(stderr, "\n");
}

/* Where the image on the screen was found: to be seen, and to be given as --crop the next time. */
static void tell_crop(struct job *p, const um_packet *k)
{
    char text[96];
    if (p->o->quiet || !p->set.crop_auto || memcmp(p->crop, k->crop, sizeof p->crop) == 0)
        return;
    memcpy(p->crop, k->crop, sizeof p->crop);
    snprintf(text, sizeof text, "--crop auto: %d,%d,%d,%d of %dx%d", k->crop[0], k->crop[1],
             k->crop[2], k->crop[3], k->width, k->height);
    tell(text);
}

static void on_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                      const um_truth *truth)
{
    struct job *p = ctx;
    (void)frame;
    summary_add(&p->summary, packet, truth);
    tell_shadow(p);
    tell_crop(p, packet);
    if (p->verify && !p->verify->differs && !verify_packet(p->verify, packet))
        um_source_cancel(p->source);
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
    if (strcmp(text, p->told) == 0) /* as of each image of a stream: the summary has how many */
        return;
    if (p->o->loop && told_before(&p->looped, text)) /* the same files, in each round */
        return;
    snprintf(p->told, sizeof p->told, "%s", text);
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

static bool pipeline_settings(const struct options *o, const struct engine *e,
                              um_pipeline_settings *s)
{
    cli_pipeline_settings(o, e, s);
    s->budget_ms = (double)o->budget_ms;
    s->track = o->track >= 0
                   ? o->track
                   : o->detect_every > 1 || (o->budget_ms > 0 && o->objects == 1 && !o->boxes_only);
    s->theta_on = o->theta_on;
    s->theta_off = o->theta_off;
    s->theta_cont = o->theta_cont;
    s->detect_every = o->detect_every;
    s->shadow_every = o->shadow ? o->shadow_every : 0;
    s->mask_clean = o->mask_clean;
    s->dump = o->dump != NULL;
    if (!cli_crop(o, s->crop, &s->crop_auto))
        return false;
    if (o->has_assert) {
        if (!cli_whole(o->assert_transfers, 2))
            return cli_usage("--assert-transfers: want whole numbers UP,DOWN"), false;
        s->assert_up = (int)o->assert_transfers[0];
        s->assert_down = (int)o->assert_transfers[1];
    }
    if (o->kpi)
        s->kpi = kpi_line;
    return cli_class(o, e->detector, &s->label) == UM_OK;
}

/* More frames in flight than there can be. */
static void tell_inflight(const struct options *o, const um_pipeline_settings *set,
                          const um_pipeline *pipeline)
{
    int n = um_pipeline_inflight(pipeline);
    if (n < o->inflight && !o->quiet)
        fprintf(stderr, "ultramotion: --inflight %d: %d frame%s in flight%s\n", o->inflight, n,
                plural((uint64_t)n),
                set->track ? ", with --track a frame depends on the one before"
                           : ": see ultramotion run --help");
}

static void tell_models(const struct engine *e, const struct options *o, double ms)
{
    char detector[CLI_PATH], segmenter[CLI_PATH];
    kpi_models(um_device_name(e->dev), um_device_precision(e->dev), ms,
               um_pipeline_device_bytes(e->pipeline), cli_detector_path(o, detector),
               e->segmenter ? cli_segmenter_path(o, segmenter) : NULL);
}

/* --on-device-lost cpu: the same pipeline on the processor. The lost one is closed when the run is
 * over. */
static um_status go_on_on_cpu(void *ctx, um_pipeline **pipeline)
{
    struct job *p = ctx;
    struct engine *e = &p->spare;
    struct options o = *p->o;
    um_pipeline_settings set;
    char text[1200];
    o.device = "cpu";
    o.precision = "fp32";
    snprintf(text, sizeof text, "device %s lost (%s): going on on cpu",
             um_device_name(p->first.dev), um_last_error());
    tell(text);
    um_status st = cli_open_engine(e, &o);
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
    cli_announce(&o, e->dev, e->detector, e->segmenter);
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
    if (st != UM_OK) {
        char text[1024];
        snprintf(text, sizeof text, "%s", um_last_error());
        char *why = strstr(text, " sinks failed: "); /* that was told when it happened */
        if (why)
            why[strlen(" sinks failed")] = 0;
        tell(text);
    }
    if (run)
        um_run_stats(run, counts);
    stop_ends_run(NULL);
    um_run_close(&run);
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
        st = cli_open_engine(e, o);
    if (st != UM_OK)
        return cli_exit(st);
    if (!pipeline_settings(o, e, &p->set))
        return EXIT_USAGE;
    if ((st = um_pipeline_open(&e->pipeline, &p->set)) != UM_OK)
        return cli_fail(st);
    if ((st = cli_check_outputs(o, p->source)) != UM_OK)
        return cli_exit(st);
    st = outputs_open(o, p->source, p->monitor, &p->out);
    if (st == UM_OK && o->trace_steps)
        st = um_monitor_watch(p->monitor, e->dev);
    if (st == UM_OK)
        st = recording_keep(o, e);
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
    cli_announce(o, e->dev, e->detector, e->segmenter);
    tell_inflight(o, &p->set, e->pipeline);
    run->pipeline = e->pipeline;
    run->source = p->source;
    run->sinks = p->out.sink;
    run->n_sinks = p->out.n;
    run->strict = o->strict;
    run->realtime = o->realtime;
    run->max_age_ms = o->max_age_ms > 0 ? o->max_age_ms : 0;
    run->lag_alarm_ms = o->lag_alarm_ms;
    run->stall_ms = o->stall_deadline > 0 ? (int)ceilf(o->stall_deadline * 1000) : 0;
    run->on_packet = on_packet;
    run->on_problem = on_problem;
    run->ctx = p;
    run->monitor = p->monitor;
    p->length = um_source_length(p->source);
    p->started = seconds_now();
    if (outputs_kpi_all(o))
        tell_models(e, o, 1e3 * (p->started - opened));
    um_status st = periodic_start(&periodic, p->monitor, (double)o->summary_every,
                                  outputs_kpi_all(o), o->realtime && !o->quiet);
    if (st == UM_OK)
        st = run_frames(run, &p->counts);
    else
        fprintf(stderr, "ultramotion: %s\n", um_last_error());
    periodic_stop(&periodic);
    tell_end();
    tell_progress_end();
    return st;
}

/* What a run that ended with `st` leaves: its dump, and what it was. */
static int report_job(struct job *p, um_status st)
{
    const struct options *o = p->o;
    const um_run_counts *counts = &p->counts;
    int code = st == UM_OK ? EXIT_DONE : st == UM_EASSERT ? EXIT_ASSERTION : EXIT_FAILED;
    bool nothing = st == UM_OK && !counts->frames && !counts->stopped,
         silent = nothing && !cli_say_no_frame(o, counts->unreadable);
    if (nothing)
        code = EXIT_FAILED;
    if (o->dump && counts->frames && !counts->stalled) {
        um_status dumped = um_pipeline_dump(running(p), o->dump);
        if (dumped != UM_OK && code == EXIT_DONE)
            code = cli_fail(dumped);
    }
    if (!o->quiet && !silent) {
        um_monitor_view view = {.struct_size = sizeof view};
        um_monitor_read(p->monitor, &view);
        summary_print(&p->summary, stderr, counts, &view, seconds_now() - p->started);
    }
    if (!o->quiet) {
        print_shadow(running(p));
        print_tally(p->source, &p->out);
    }
    if (p->verify && !verify_end(p->verify, o->frames, counts->stopped, o->quiet) &&
        (code == EXIT_DONE || nothing))
        code = EXIT_ASSERTION;
    if (p->verify && p->verify->rest && code == EXIT_DONE) {
        fprintf(stderr, "ultramotion: replay: stopped, the rest was not verified\n");
        code = EXIT_FAILED;
    }
    return code;
}

/* `verify`: every packet is held against one; or NULL. */
static int run_and_report(const struct options *o, struct verify *verify)
{
    um_run_settings run;
    static struct job p; /* too large for a small stack */
    p = (struct job){.o = o,
                     .started = seconds_now(),
                     .verify = verify,
                     .counts = {.struct_size = sizeof p.counts}};
    um_run_settings_default(&run);
    if (!lost_policy(o, &run))
        return EXIT_USAGE;
    stop_catch();
    um_status st = um_monitor_open(&p.monitor);
    if (st != UM_OK)
        return cli_fail(st);
    int code = open_job(&p);
    if (code == EXIT_DONE)
        code = report_job(&p, do_job(&p, &run));
    code = outputs_close(&p.out, code);
    if (p.counts.stalled) /* what it is stuck in cannot be closed */
        _exit(code);
    cli_close_engine(&p.spare); /* it borrows the lost device's name */
    cli_close_engine(&p.first);
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
    if (live.track < 0) /* several structures have no common state, and it is masks that have one */
        live.track = live.objects == 1 && !live.boxes_only;
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
    char *spec = text_join(o->realtime ? "replay-live:" : "replay:", "", o->positional[0]);
    um_status st = spec ? UM_OK : um_set_error(UM_ENOMEM, o->positional[0]);
    if (st == UM_OK) {
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
