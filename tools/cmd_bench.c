/* SPDX-License-Identifier: Apache-2.0 */
/* bench, doctor. */
#include "bench.h"
#include "clock.h"
#include "summary.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *const bench_stage_names[BENCH_STAGES] = {"detect", "encode", "decode"};

void bench_print_ms(const char *name, const double *ms, size_t n)
{
    double min, p50, p99, max;
    summary_percentiles(ms, n, &min, &p50, &p99, &max);
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
static int serve_stages(um_detector *detector, um_segmenter *segmenter)
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
            *b ? UM_OK : um_bench_open(b, (um_bench_stage)stage, detector, segmenter, !rgb);
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

static int bench_stages(const struct options *o, um_device *dev, um_detector *detector,
                        um_segmenter *segmenter)
{
    double *ms = malloc((size_t)o->rounds * sizeof *ms), warm;
    um_status st = UM_OK;
    for (int stage = 0; stage < BENCH_STAGES && st == UM_OK && ms && !ferror(stdout); stage++) {
        um_bench *bench = NULL;
        st = um_bench_open(&bench, (um_bench_stage)stage, detector, segmenter, 1);
        if (st == UM_OK)
            st = um_bench_run(bench, &warm);
        for (int r = 0; r < o->rounds && st == UM_OK; r++)
            st = um_bench_run(bench, &ms[r]);
        um_bench_close(&bench);
        if (st != UM_OK)
            break;
        printf(
            "{\"bench\":\"stages\",\"stage\":\"%s\",\"det_size\":%d,\"sam_size\":%d,\"rounds\":%d,",
            bench_stage_names[stage], um_detector_input_size(detector),
            um_segmenter_canvas(segmenter), o->rounds);
        bench_print_ms("ms", ms, (size_t)o->rounds);
        printf(",");
        bench_print_machine(dev);
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

static um_status open_pipeline(um_pipeline **out, const struct options *o, um_detector *detector,
                               um_segmenter *segmenter)
{
    um_pipeline_settings set;
    cli_pipeline_settings(o, detector, segmenter, &set);
    return um_pipeline_open(out, &set);
}

/* One frame: the picture of this name, unless it is the one already in *frame. */
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

/* As serve_stages(): one frame per line of stdin, which names its picture. */
static int serve_pipeline(const struct options *o, um_detector *detector, um_segmenter *segmenter)
{
    char line[4096], last[4096] = "";
    um_pipeline *pipeline = NULL;
    um_frame *frame = NULL;
    um_status st = open_pipeline(&pipeline, o, detector, segmenter);
    while (st == UM_OK && !ferror(stdout) && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        st = serve_frame(pipeline, line, &frame, last, sizeof last);
    }
    um_frame_unref(&frame);
    um_pipeline_close(&pipeline);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

static int bench_pipeline(const struct options *o, um_device *dev, um_detector *detector,
                          um_segmenter *segmenter)
{
    static const char *const names[STAGES] = {"upload", "detect", "segment", "packet", "total"};
    enum { WIDTH = 422, HEIGHT = 558 };
    um_pipeline *pipeline = NULL;
    um_source *source = NULL;
    um_source_settings src;
    um_run_settings run;
    um_run_counts counts;
    struct recorded r = {.n = 0};
    double wall = 0;
    clock_t processor = 0; /* of all threads */
    char spec[64];
    um_source_settings_default(&src);
    src.frames = o->frames ? o->frames : 20;
    snprintf(spec, sizeof spec, "drawn:phantom:seed=1,width=%d,height=%d", WIDTH, HEIGHT);
    um_run_counts_default(&counts);
    r.capacity = (size_t)src.frames;
    r.ms[0] = calloc(r.capacity, STAGES * sizeof(double));
    if (!r.ms[0])
        return cli_fail(um_set_error(UM_ENOMEM, "times of so many frames"));
    for (int i = 1; i < STAGES; i++)
        r.ms[i] = r.ms[0] + (size_t)i * r.capacity;
    um_status st = open_pipeline(&pipeline, o, detector, segmenter);
    if (st == UM_OK)
        st = um_pipeline_prepare(pipeline, WIDTH, HEIGHT, 1);
    if (st == UM_OK)
        st = bench_register_pictures();
    if (st == UM_OK)
        st = um_source_open(&source, spec, &src);
    if (st == UM_OK) {
        um_run_settings_default(&run);
        run.pipeline = pipeline;
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
        summary_percentiles(r.ms[STAGES - 1], r.n, &min, &p50, &p99, &max);
        printf("{\"bench\":\"pipeline\",\"frames\":%llu,\"visible\":%llu,\"det_size\":%d,\"sam_"
               "size\":%d,\"objects\":%d,\"inflight\":%d,\"device_bytes\":%llu,\"peak_mb\":%.1f,"
               "\"first_ms\":%.3f,\"p99_over_p50\":%.3f,",
               (unsigned long long)counts.frames, (unsigned long long)counts.visible,
               um_detector_input_size(detector), um_segmenter_canvas(segmenter), o->objects,
               um_pipeline_inflight(pipeline),
               (unsigned long long)um_pipeline_device_bytes(pipeline), peak_mb(),
               r.n ? r.ms[STAGES - 1][0] : 0, p50 > 0 ? p99 / p50 : 0);
        printf("\"fps\":%.3f,\"cpu_ms\":%.3f,", (double)r.n / wall,
               1e3 * (double)processor / CLOCKS_PER_SEC / (double)r.n);
        for (int i = 0; i < STAGES; i++) {
            bench_print_ms(names[i], r.ms[i], r.n);
            printf(",");
        }
        bench_print_machine(dev);
        printf("}\n");
    }
    free(r.ms[0]);
    um_source_close(&source);
    um_pipeline_close(&pipeline);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

int command_bench(const struct options *o)
{
    const char *what = o->positionals ? o->positional[0] : "pipeline";
    um_device *dev = NULL;
    um_detector *detector = NULL;
    um_segmenter *segmenter = NULL;
    um_pipeline *pipeline = NULL;
    int code = EXIT_FAILED;
    bool residency = strcmp(what, "residency") == 0;
    if (strcmp(what, "pipeline") != 0 && strcmp(what, "stages") != 0 && !residency &&
        strcmp(what, "kernels") != 0 && strcmp(what, "roofline") != 0 && strcmp(what, "live") != 0)
        return cli_usage(
            "bench: \"%s\" is not pipeline, stages, residency, kernels, roofline or live", what);
    if (residency && o->sam_as_numpy >= 0)
        return cli_usage("bench residency runs both modes: no --sam-as-numpy");
    um_status st = cli_open_device(&dev, o);
    if (st == UM_OK)
        st = cli_open_detector(&detector, dev, o);
    if (st == UM_OK)
        st = cli_open_segmenter(&segmenter, dev, o);
    if (st != UM_OK)
        code = st == UM_EINVAL ? EXIT_USAGE : EXIT_FAILED;
    else if (strcmp(what, "kernels") == 0)
        code = bench_kernels(o, dev, detector, segmenter);
    else if (strcmp(what, "roofline") == 0)
        code = bench_roofline(o, dev, detector, segmenter);
    else if (residency)
        code = bench_residency(o, dev, detector, segmenter);
    else if (strcmp(what, "live") == 0) {
        st = open_pipeline(&pipeline, o, detector, segmenter);
        code = st == UM_OK ? bench_live(o, dev, pipeline) : cli_fail(st);
    } else if (strcmp(what, "stages") == 0)
        code = o->serve ? serve_stages(detector, segmenter)
                        : bench_stages(o, dev, detector, segmenter);
    else
        code = o->serve ? serve_pipeline(o, detector, segmenter)
                        : bench_pipeline(o, dev, detector, segmenter);
    um_pipeline_close(&pipeline);
    um_segmenter_close(&segmenter);
    um_detector_close(&detector);
    um_device_close(&dev);
    return code;
}

/* ---- doctor ---- */

static bool report_model(const char *role, const char *path)
{
    um_model_info info = {.struct_size = sizeof info};
    if (um_model_inspect(path, &info) != UM_OK) {
        printf("%-10s MISSING: %s\n           put a checkpoint there, or name one with --%s FILE\n",
               role, um_last_error(), role);
        return false;
    }
    printf("%-10s %s: %s, input %d (%s), sha256 %.12s…\n", role, path, info.architecture,
           info.input_size, info.input_size_from, info.sha256);
    return true;
}

static void report_cpu(void)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            printf("processor  %s", strchr(line, ':') + 2);
            break;
        }
    if (f)
        fclose(f);
}

/* Does the encoder compute windows that reach beyond the canvas? */
static void report_canvas(const um_segmenter *segmenter)
{
    int canvas = um_segmenter_canvas(segmenter), step = um_segmenter_canvas_step(segmenter);
    int below = step ? canvas / step * step : 0, above = below + step;
    if (step && canvas == below)
        printf("canvas     %d: no window reaches beyond it\n", canvas);
    else if (below)
        printf("canvas     %d: its last windows reach beyond it, not so at --sam-size %d or %d\n",
               canvas, below, above);
    else if (step)
        printf("canvas     %d: its last windows reach beyond it, not so at --sam-size %d\n", canvas,
               above);
}

/* How to get what the text of an error says is missing. */
static const char *cure(const char *text)
{
    static const struct {
        const char *says, *cure;
    } cures[] = {
        {"built without GPU kernels", "install CUDA 12.8 or newer (nvcc) and build again"},
        {"no NVIDIA driver", "install NVIDIA's driver, for CUDA 12.0 or newer (libcuda.so.1)"},
        {"the driver is for", "install a newer NVIDIA driver, for CUDA 12.0 or newer"},
        {"the driver for", "see nvidia-smi and CUDA_VISIBLE_DEVICES for the GPUs there are"},
        {"cuInit", "see what nvidia-smi says; after an update of the driver, restart"},
        {"UNSUPPORTED_PTX_VERSION", "install a driver as new as the CUDA that built this, or build "
                                    "again with machine code for this GPU (UM_CUDA_ARCHS)"},
        {"no kernels for this GPU", "build again with machine code for it (UM_CUDA_ARCHS)"},
        {"ULTRAMOTION_", "unset that variable"},
    };
    for (size_t i = 0; i < sizeof cures / sizeof *cures; i++)
        if (strstr(text, cures[i].says))
            return cures[i].cure;
    return NULL;
}

/* Open a device and say what it is, or what is missing and how to get it. */
static void report_device(const struct options *o, const char *name)
{
    char about[256], again[32];
    um_device *dev = NULL;
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = name;
    s.threads = o->threads;
    if (o->precision)
        s.precision = o->precision;
    um_status st = um_device_describe(name, about, sizeof about);
    if (st == UM_OK)
        st = um_device_open(&dev, &s);
    if (st == UM_OK) {
        printf("device     %s: works, %s (%s)", name, um_device_precision(dev),
               um_device_precision_reason(dev));
        if (strncmp(name, "cuda", 4) != 0)
            printf(", %d thread%s", um_device_threads(dev), um_device_threads(dev) == 1 ? "" : "s");
        printf(" (%s)\n", about);
    } else {
        const char *text = um_last_error();
        snprintf(again, sizeof again, "device %s: ", name);
        text += strncmp(text, again, strlen(again)) == 0 ? strlen(again) : 0;
        printf("device     %s: MISSING: %s\n", name, text);
        if (cure(text))
            printf("           %s\n", cure(text));
    }
    um_device_close(&dev);
}

/* Whether the processor's kernels for a precision are worth having. */
static void report_precision(const char *name, const char *with)
{
    um_device *dev = NULL;
    um_device_settings s;
    um_device_settings_default(&s);
    s.name = "cpu";
    s.precision = name;
    if (um_device_open(&dev, &s) == UM_OK && strcmp(um_device_isa(dev), "none") != 0)
        printf("%-10s cpu: works%s\n", name, with);
    else
        printf("%-10s cpu: MISSING: %s\n", name, um_last_error());
    um_device_close(&dev);
}

static void report_pictures(void)
{
    static const struct {
        const char *part, *missing;
    } parts[] = {
        {"TIFF",
         "TIFF: MISSING: built without libtiff\n           install libtiff-dev 4.5 or newer "
         "and build again"},
        {"videos", "videos: MISSING: built without libav\n           install libavformat-dev, "
                   "libavcodec-dev and libswscale-dev of FFmpeg 5 to 9 and build again"},
    };
    printf("reads      %s\n", um_image_kinds());
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(um_image_kinds(), parts[i].part))
            printf("           %s\n", parts[i].missing);
    um_source *camera = NULL; /* no camera is opened for being asked about */
    if (um_source_open(&camera, "v4l2:/dev/null", NULL) == UM_EUNSUPPORTED)
        printf("           cameras: MISSING: %s\n", um_last_error());
    else
        printf("           cameras: v4l2:/dev/video0 and so on\n");
    um_source_close(&camera);
    um_sink *viewer = NULL; /* no address, so none is opened */
    if (um_sink_open(&viewer, "web:", NULL) == UM_EUNSUPPORTED)
        printf("viewer     MISSING: %s\n", um_last_error());
    else
        printf("viewer     -o web::8080\n");
    um_sink_close(&viewer);
}

int command_doctor(const struct options *o)
{
    char path[CLI_PATH], cache[600];
    int code = EXIT_DONE;
    printf("version    ultramotion %s\n", um_version());
    report_cpu();
    report_device(o, "cpu");
    report_device(o, "guard");
    for (int i = 0, n = um_device_gpus(); i < (n ? n : 1); i++) {
        char name[16];
        snprintf(name, sizeof name, "cuda:%d", i);
        report_device(o, name);
    }
    report_precision("bf16", "");
    report_precision("int8", ", with models that convert --precision int8 made");
    report_pictures();
    bool have = report_model("detector", cli_detector_path(o, path));
    have = report_model("segmenter", cli_segmenter_path(o, path)) && have;
    if (!have)
        return EXIT_FAILED;
    um_device *dev = NULL;
    um_detector *detector = NULL;
    um_segmenter *segmenter = NULL;
    um_pipeline *pipeline = NULL;
    um_frame *frame = NULL;
    const um_packet *packet = NULL;
    um_status st = cli_open_device(&dev, o);
    if (st == UM_OK)
        st = cli_open_detector(&detector, dev, o);
    if (st == UM_OK)
        st = cli_open_segmenter(&segmenter, dev, o);
    if (st != UM_OK) {
        code = EXIT_FAILED;
        goto done;
    }
    report_canvas(segmenter);
    um_device_weight_cache(dev, cache, sizeof cache);
    printf("weights    packed: %s\n", cache);
    st = open_pipeline(&pipeline, o, detector, segmenter);
    if (st == UM_OK)
        st = um_pipeline_prepare(pipeline, 422, 558, 1);
    if (st == UM_OK)
        st = um_frame_create(&frame, 422, 558, 1);
    if (st == UM_OK) {
        memset(frame->pixels, 0, (size_t)frame->stride * 558);
        st = um_pipeline_send(pipeline, &frame);
    }
    if (st == UM_OK)
        st = um_pipeline_receive(pipeline, &packet);
    if (st == UM_OK) {
        printf("kernels    level %s on %s (%s)\n", um_device_isa(dev), um_device_name(dev),
               strncmp(um_device_name(dev), "cuda", 4) == 0
                   ? "ULTRAMOTION_CUDA=plain takes the plain twins"
                   : "ULTRAMOTION_CPU=c|avx2|avx512|amx forces one");
        int inflight = um_pipeline_inflight(pipeline);
        printf("memory     %.1f MB planned on %s in %s for 422x558 gray frames, %d in flight: "
               "weights, arenas, blocks\n",
               (double)um_pipeline_device_bytes(pipeline) / 1048576, um_device_name(dev),
               um_device_precision(dev), inflight);
        printf("first frame %.1f ms\n", packet->ms.total);
    } else
        code = cli_fail(st);
done:
    um_frame_unref(&frame);
    um_pipeline_close(&pipeline);
    um_segmenter_close(&segmenter);
    um_detector_close(&detector);
    um_device_close(&dev);
    return code;
}
