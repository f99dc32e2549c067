/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "text.h"

#include <string.h>
#include <unistd.h>

static bool report_model(const char *role, const char *path)
{
    um_model_info info = {.struct_size = sizeof info};
    if (um_model_inspect(path, &info) != UM_OK) {
        bool there = access(path, F_OK) == 0;
        printf("%-10s %s: %s\n           %s with --%s FILE\n", role, there ? "UNUSABLE" : "MISSING",
               um_last_error(), there ? "name another" : "put a checkpoint there, or name one",
               role);
        return false;
    }
    printf("%-10s %s: %s, input %d (%s)%s, sha256 %.12s…\n", role, path, info.architecture,
           info.input_size, info.input_size_from,
           cli_calibrated(path) ? ", calibrated for int8" : "", info.sha256);
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

/* Has it the kernels that the environment asks for? um_last_error() says why not. */
static bool computes(const um_device *dev)
{
    return strcmp(um_device_isa(dev), "none") != 0;
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
    if (st == UM_OK && computes(dev)) {
        printf("device     %s: works, %s (%s)", name, um_device_precision(dev),
               um_device_precision_reason(dev));
        if (strncmp(name, "cuda", 4) != 0)
            printf(", %d thread%s", um_device_threads(dev),
                   plural((uint64_t)um_device_threads(dev)));
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
    if (um_device_open(&dev, &s) == UM_OK && computes(dev))
        printf("%-10s cpu: works%s\n", name, with);
    else
        printf("%-10s cpu: MISSING: %s\n", name, um_last_error());
    um_device_close(&dev);
}

static void report_images(void)
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
    um_sink *video = NULL; /* which nothing can be written to: libav is loaded first */
    if (strstr(um_image_kinds(), "videos") &&
        um_sink_open(&video, "video:/dev/null/a.mp4", NULL) == UM_EUNSUPPORTED)
        printf("           videos: MISSING: %s\n", um_last_error());
    um_sink_close(&video);
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

/* A black frame through all networks. */
static um_status time_frame(um_pipeline *pipeline, double *ms)
{
    um_frame *frame = NULL;
    const um_packet *packet = NULL;
    um_status st = um_frame_create(&frame, 422, 558, 1);
    if (st == UM_OK) {
        memset(frame->pixels, 0, (size_t)frame->stride * 558);
        st = um_pipeline_send(pipeline, &frame);
    }
    if (st == UM_OK)
        st = um_pipeline_receive(pipeline, &packet);
    if (st == UM_OK)
        *ms = packet->ms.total;
    um_frame_unref(&frame);
    return st;
}

/* What a pipeline of the options holds and takes. */
static um_status report_frame(const struct options *o, struct engine *e)
{
    enum { FRAMES = 4 };
    char cache[600];
    double first = 0, then = 0;
    um_pipeline_settings set;
    report_canvas(e->segmenter);
    um_device_weight_cache(e->dev, cache, sizeof cache);
    printf("weights    packed: %s\n", cache);
    cli_pipeline_settings(o, e, &set);
    set.conf = 0; /* so that the segmenter is in it */
    um_status st = um_pipeline_open(&e->pipeline, &set);
    if (st == UM_OK)
        st = um_pipeline_prepare(e->pipeline, 422, 558, 1);
    if (st == UM_OK)
        st = time_frame(e->pipeline, &first);
    for (int i = 1; st == UM_OK && i < FRAMES; i++) {
        double ms = 0;
        st = time_frame(e->pipeline, &ms);
        then = i == 1 || ms < then ? ms : then;
    }
    if (st == UM_OK) {
        printf("kernels    level %s on %s (%s)\n", um_device_isa(e->dev), um_device_name(e->dev),
               strncmp(um_device_name(e->dev), "cuda", 4) == 0
                   ? "ULTRAMOTION_CUDA=plain takes the plain twins"
                   : "ULTRAMOTION_CPU=c|neon|avx2|avxvnni|avx512|amx forces one");
        int inflight = um_pipeline_inflight(e->pipeline);
        printf("memory     %.1f MB planned on %s in %s for 422x558 gray frames, %d in flight: "
               "weights, arenas, blocks\n",
               (double)um_pipeline_device_bytes(e->pipeline) / 1048576, um_device_name(e->dev),
               um_device_precision(e->dev), inflight);
        printf("frame      first %.1f ms, then %.1f ms, %.*f a second\n", first, then,
               then > 100 ? 2 : 0, 1e3 / then);
    }
    return st;
}

int command_doctor(const struct options *o)
{
    char path[CLI_PATH];
    struct engine e = {.dev = NULL};
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
    report_precision("int8", ", with calibrated models (convert --precision int8)");
    report_images();
    bool have = report_model("detector", cli_detector_path(o, path));
    have = report_model("segmenter", cli_segmenter_path(o, path)) && have;
    if (!have)
        return EXIT_FAILED;
    um_status st = cli_open_engine(&e, o);
    int code = st == UM_OK ? EXIT_DONE : EXIT_FAILED;
    if (st == UM_OK && (st = report_frame(o, &e)) != UM_OK)
        code = cli_fail(st);
    cli_close_engine(&e);
    return code;
}
