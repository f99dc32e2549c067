/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"
#include "clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

const char *const bench_stage_names[BENCH_STAGES] = {"detect", "encode", "decode"};

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_percentiles(const double *values, size_t n, double *min, double *p50, double *p99,
                       double *max)
{
    double *v = n ? malloc(n * sizeof *v) : NULL;
    *min = *p50 = *p99 = *max = 0;
    if (!v)
        return;
    memcpy(v, values, n * sizeof *v);
    qsort(v, n, sizeof *v, ascending);
    *min = v[0];
    *p50 = v[n / 2];
    *p99 = v[(n * 99 + 99) / 100 - 1];
    *max = v[n - 1];
    free(v);
}

void bench_print_ms(const char *name, const double *ms, size_t n)
{
    double min, p50, p99, max;
    if (!n) { /* nothing was measured */
        printf("\"%s\":null", name);
        return;
    }
    bench_percentiles(ms, n, &min, &p50, &p99, &max);
    printf("\"%s\":{\"min\":%.4f,\"p50\":%.4f,\"p99\":%.4f,\"max\":%.4f}", name, min, p50, p99,
           max);
}

void bench_print_machine(const um_device *dev)
{
    printf(
        "\"device\":\"%s\",\"isa\":\"%s\",\"precision\":\"%s\",\"threads\":%d,\"version\":\"%s\"",
        um_device_name(dev), um_device_isa(dev), um_device_precision(dev), um_device_threads(dev),
        um_version());
}

um_status bench_frame(um_pipeline *pipeline, um_frame *frame, const um_packet **packet, double *ms)
{
    um_frame *mine = um_frame_ref(frame);
    double start = seconds_now();
    um_status st = um_pipeline_send(pipeline, &mine);
    if (st == UM_OK)
        st = um_pipeline_receive(pipeline, packet);
    *ms = 1e3 * (seconds_now() - start);
    um_frame_unref(&mine);
    return st;
}

static int find_stage(const char *name)
{
    for (int i = 0; i < BENCH_STAGES; i++)
        if (strcmp(name, bench_stage_names[i]) == 0)
            return i;
    return -1;
}

/* Peers are measured in turn with us: one stage per line of stdin, one answer per line of stdout.
 */
static int serve_stages(const struct engine *e)
{
    char line[64];
    um_bench *bench[2][BENCH_STAGES] = {{NULL}}; /* gray, RGB */
    int code = EXIT_DONE;
    while (code == EXIT_DONE && !ferror(stdout) && fgets(line, sizeof line, stdin)) {
        double ms = 0;
        line[strcspn(line, "\r\n")] = 0;
        bool rgb = strncmp(line, "rgb ", 4) ==
                   0; /* "rgb detect": the three-channel stem, as peers run it */
        int stage = find_stage(line + (rgb ? 4 : 0));
        if (stage < 0) {
            code = cli_usage("bench stages --serve: \"%s\" is not detect, encode or decode", line);
            break;
        }
        um_bench **b = &bench[rgb][stage];
        um_status st =
            *b ? UM_OK : um_bench_open(b, (um_bench_stage)stage, e->detector, e->segmenter, !rgb);
        if (st == UM_OK)
            st = um_bench_run(*b, &ms);
        if (st != UM_OK)
            code = cli_fail(st);
        else
            printf("{\"stage\":\"%s\",\"ms\":%.4f}\n", bench_stage_names[stage], ms);
        fflush(stdout);
    }
    for (int i = 0; i < 2 * BENCH_STAGES; i++)
        um_bench_close(&bench[i / BENCH_STAGES][i % BENCH_STAGES]);
    return code;
}

static int bench_stages(const struct options *o, const struct engine *e)
{
    double *ms = malloc((size_t)o->rounds * sizeof *ms), warm;
    um_status st = ms ? UM_OK : um_set_error(UM_ENOMEM, "times of so many rounds");
    for (int stage = 0; stage < BENCH_STAGES && st == UM_OK && !ferror(stdout); stage++) {
        um_bench *bench = NULL;
        st = um_bench_open(&bench, (um_bench_stage)stage, e->detector, e->segmenter, 1);
        if (st == UM_OK)
            st = um_bench_run(bench, &warm);
        for (int r = 0; r < o->rounds && st == UM_OK; r++)
            st = um_bench_run(bench, &ms[r]);
        um_bench_close(&bench);
        if (st != UM_OK)
            break;
        printf(
            "{\"bench\":\"stages\",\"stage\":\"%s\",\"det_size\":%d,\"sam_size\":%d,\"rounds\":%d,",
            bench_stage_names[stage], um_detector_input_size(e->detector),
            um_segmenter_canvas(e->segmenter), o->rounds);
        bench_print_ms("ms", ms, (size_t)o->rounds);
        printf(",");
        bench_print_machine(e->dev);
        printf("}\n");
        fflush(stdout);
    }
    free(ms);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

enum { STAGES = 5 }; /* upload, detect, segment, packet, total */

/* The most memory this process had, in MB. */
static double peak_mb(void)
{
    struct rusage used;
    return getrusage(RUSAGE_SELF, &used) == 0 ? (double)used.ru_maxrss / 1024 : 0;
}

/* Every frame's times, for exact percentiles. */
struct recorded {
    double *ms[STAGES]; /* `capacity` of each, in one piece */
    size_t n, capacity;
};

static void add_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                       const um_truth *truth)
{
    struct recorded *r = ctx;
    double ms[STAGES] = {packet->ms.upload, packet->ms.detect, packet->ms.segment,
                         packet->ms.packet, packet->ms.total};
    (void)frame;
    (void)truth;
    for (int i = 0; i < STAGES && r->n < r->capacity; i++)
        r->ms[i][r->n] = ms[i];
    r->n += r->n < r->capacity;
}

static um_status open_pipeline(struct engine *e, const struct options *o)
{
    um_pipeline_settings set;
    cli_pipeline_settings(o, e, &set);
    return um_pipeline_open(&e->pipeline, &set);
}

/* One frame: the image of this name, unless it is the one already in *frame. */
static um_status serve_frame(um_pipeline *pipeline, const char *name, um_frame **frame, char *last,
                             size_t size)
{
    const um_packet *k = NULL;
    um_status st = UM_OK;
    double ms = 0;
    if (!*frame || strcmp(name, last) != 0) {
        um_frame_unref(frame);
        st = um_image_read(name, frame);
        snprintf(last, size, "%s", name);
    }
    if (st == UM_OK)
        st = bench_frame(pipeline, *frame, &k, &ms);
    if (st != UM_OK)
        return st;
    printf("{\"bench\":\"pipeline\",\"ms\":%.4f,\"stages_ms\":{\"upload\":%.4f,\"detect\":%.4f,"
           "\"segment\":%.4f,\"packet\":%.4f,\"total\":%.4f},\"state\":\"%s\",\"score\":%.6f,"
           "\"box_xyxy\":[%.3f,%.3f,%.3f,%.3f],\"mask_area_px\":%u}\n",
           ms, k->ms.upload, k->ms.detect, k->ms.segment, k->ms.packet, k->ms.total,
           um_state_name(k->state), (double)k->score, (double)k->box[0], (double)k->box[1],
           (double)k->box[2], (double)k->box[3], k->mask_area_px);
    fflush(stdout);
    return UM_OK;
}

/* As serve_stages(): one frame per line of stdin, which names its image. */
static int serve_pipeline(const struct options *o, struct engine *e)
{
    char line[4096], last[4096] = "";
    um_frame *frame = NULL;
    um_status st = open_pipeline(e, o);
    while (st == UM_OK && !ferror(stdout) && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        st = serve_frame(e->pipeline, line, &frame, last, sizeof last);
    }
    um_frame_unref(&frame);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

static int bench_pipeline(const struct options *o, struct engine *e)
{
    static const char *const names[STAGES] = {"upload", "detect", "segment", "packet", "total"};
    enum { WIDTH = 422, HEIGHT = 558 };
    um_source *source = NULL;
    um_source_settings src;
    um_run_settings run;
    um_run_counts counts = {.struct_size = sizeof counts};
    struct recorded r = {.n = 0};
    double wall = 0;
    clock_t processor = 0; /* of all threads */
    char spec[64];
    um_source_settings_default(&src);
    src.frames = o->frames ? o->frames : 20;
    snprintf(spec, sizeof spec, "drawn:phantom:seed=1,width=%d,height=%d", WIDTH, HEIGHT);
    r.capacity = (size_t)src.frames;
    r.ms[0] = calloc(r.capacity, STAGES * sizeof(double));
    if (!r.ms[0])
        return cli_fail(um_set_error(UM_ENOMEM, "times of so many frames"));
    for (int i = 1; i < STAGES; i++)
        r.ms[i] = r.ms[0] + (size_t)i * r.capacity;
    um_status st = open_pipeline(e, o);
    if (st == UM_OK)
        st = um_pipeline_prepare(e->pipeline, WIDTH, HEIGHT, 1);
    if (st == UM_OK)
        st = bench_register_drawn();
    if (st == UM_OK)
        st = um_source_open(&source, spec, &src);
    if (st == UM_OK) {
        um_run_settings_default(&run);
        run.pipeline = e->pipeline;
        run.source = source;
        run.on_packet = add_packet;
        run.ctx = &r;
        wall = seconds_now();
        processor = clock();
        st = um_run_frames(&run, &counts);
        wall = seconds_now() - wall;
        processor = clock() - processor;
    }
    if (st == UM_OK) {
        double min = 0, p50 = 0, p99 = 0, max = 0;
        bench_percentiles(r.ms[STAGES - 1], r.n, &min, &p50, &p99, &max);
        printf("{\"bench\":\"pipeline\",\"frames\":%llu,\"visible\":%llu,\"det_size\":%d,\"sam_"
               "size\":%d,\"objects\":%d,\"inflight\":%d,\"device_bytes\":%llu,\"peak_mb\":%.1f,"
               "\"first_ms\":%.3f,\"p99_over_p50\":%.3f,",
               (unsigned long long)counts.frames, (unsigned long long)counts.visible,
               um_detector_input_size(e->detector), um_segmenter_canvas(e->segmenter), o->objects,
               um_pipeline_inflight(e->pipeline),
               (unsigned long long)um_pipeline_device_bytes(e->pipeline), peak_mb(),
               r.n ? r.ms[STAGES - 1][0] : 0, p50 > 0 ? p99 / p50 : 0);
        printf("\"fps\":%.3f,\"cpu_ms\":%.3f,", (double)r.n / wall,
               1e3 * (double)processor / CLOCKS_PER_SEC / (double)r.n);
        for (int i = 0; i < STAGES; i++) {
            bench_print_ms(names[i], r.ms[i], r.n);
            printf(",");
        }
        bench_print_machine(e->dev);
        printf("}\n");
    }
    free(r.ms[0]);
    um_source_close(&source);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

int command_bench(const struct options *o)
{
    const char *what = o->positionals ? o->positional[0] : "pipeline";
    struct engine e = {.dev = NULL};
    int code = EXIT_FAILED;
    bool residency = strcmp(what, "residency") == 0;
    if (strcmp(what, "pipeline") != 0 && strcmp(what, "stages") != 0 && !residency &&
        strcmp(what, "kernels") != 0 && strcmp(what, "roofline") != 0 && strcmp(what, "live") != 0)
        return cli_usage(
            "bench: \"%s\" is not pipeline, stages, residency, kernels, roofline or live", what);
    um_status st = cli_open_engine(&e, o);
    if (st != UM_OK)
        code = cli_exit(st);
    else if (strcmp(what, "kernels") == 0)
        code = bench_kernels(o, &e);
    else if (strcmp(what, "roofline") == 0)
        code = bench_roofline(o, &e);
    else if (residency)
        code = bench_residency(o, &e);
    else if (strcmp(what, "live") == 0) {
        st = open_pipeline(&e, o);
        code = st == UM_OK ? bench_live(o, &e) : cli_fail(st);
    } else if (strcmp(what, "stages") == 0)
        code = o->serve ? serve_stages(&e) : bench_stages(o, &e);
    else
        code = o->serve ? serve_pipeline(o, &e) : bench_pipeline(o, &e);
    cli_close_engine(&e);
    return code;
}
