/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include "recording.h"
#include "tell.h"
#include "text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void cli_put_part(FILE *f, const char *text, size_t n)
{
    char shown[TEXT_SHOWN];
    for (const char *s = text; s < text + n; fputs(shown, f))
        s += text_show(s, shown);
}

void cli_put(FILE *f, const char *text)
{
    cli_put_part(f, text, strlen(text));
}

int cli_usage(const char *fmt, ...)
{
    char text[1024]; /* names and values may be anything */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "ultramotion: ");
    cli_put(stderr, text);
    fprintf(stderr, "\n");
    return EXIT_USAGE;
}

void cli_warn(const char *file, const char *text)
{
    fprintf(stderr, "ultramotion: warning: ");
    cli_put(stderr, file);
    fprintf(stderr, ": %s\n", text);
}

int cli_exit(um_status st)
{
    return st == UM_EINVAL ? EXIT_USAGE : st == UM_EASSERT ? EXIT_ASSERTION : EXIT_FAILED;
}

int cli_fail(um_status st)
{
    fprintf(stderr, "ultramotion: %s\n", um_last_error());
    return cli_exit(st);
}

/* ---- what the options name ---- */

void cli_say(void *ctx, const char *text)
{
    (void)ctx;
    tell(text);
}

/* A GPU that is there but not taken; that there is none, only with -v. */
static void say_of_gpus(void *ctx, const char *text)
{
    const struct options *o = ctx;
    if (o->verbose || (!o->quiet && strncmp(text, "no GPU", strlen("no GPU")) != 0))
        tell(text);
}

um_status cli_open_device(um_device **out, const struct options *o)
{
    um_device_settings s;
    *out = NULL;
    um_device_settings_default(&s);
    if (o->precision)
        s.precision = o->precision;
    s.name = o->device ? o->device : "auto";
    s.threads = o->threads;
    s.guard_seed = o->guard_seed;
    s.weight_cache = o->weight_cache ? o->weight_cache : "auto";
    s.log = say_of_gpus;
    s.log_ctx = (void *)(uintptr_t)o;
    um_status st = um_device_open(out, &s);
    if (st != UM_OK)
        cli_fail(st);
    return st;
}

static bool readable(const char *path)
{
    return access(path, R_OK) == 0;
}

static const char DETECTOR[] = "dfine_n_bone_320.safetensors",
                  SEGMENTER[] = "mobile_sam_bone_384.safetensors";

static const char *shipped_model(const char *file, char buffer[CLI_PATH])
{
    const char *env = getenv("ULTRAMOTION_MODELS");
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (env && *env) {
        snprintf(buffer, CLI_PATH, "%s/%s", env, file);
        return buffer;
    }
    exe[n > 0 ? n : 0] = 0;
    for (int up = 0; up < 2; up++) { /* from build/ or bin/ */
        char *slash = strrchr(exe, '/');
        if (slash)
            *slash = 0;
    }
    snprintf(buffer, CLI_PATH, "%s/models/%s", exe, file);
    if (readable(buffer))
        return buffer;
    snprintf(buffer, CLI_PATH, "%s/share/ultramotion/models/%s", exe, file);
    if (readable(buffer))
        return buffer;
    snprintf(buffer, CLI_PATH, "%s/models/%s", UM_DATA_DIR, file);
    return buffer;
}

const char *cli_detector_path(const struct options *o, char buffer[CLI_PATH])
{
    return o->detector ? o->detector : shipped_model(DETECTOR, buffer);
}

const char *cli_segmenter_path(const struct options *o, char buffer[CLI_PATH])
{
    return o->segmenter ? o->segmenter : shipped_model(SEGMENTER, buffer);
}

static void find_int8(void *found, const char *key, const char *value)
{
    (void)value;
    *(bool *)found = *(bool *)found || strcmp(key, "int8") == 0;
}

bool cli_calibrated(const char *path)
{
    bool found = false;
    um_model_metadata(path, find_int8, &found);
    return found;
}

bool cli_detector_settings(const struct options *o, um_detector_settings *s)
{
    long long n = 0;
    um_detector_settings_default(s);
    const char *size = o->det_size ? o->det_size : "auto";
    if (strchr(size, 'x')) {
        if (!options_size("--det-size", size, &s->input_width, &s->input_height))
            return false;
    } else if (strcmp(size, "auto") != 0) {
        if (!options_whole(size, 32, 8192, &n))
            return cli_usage("--det-size: \"%s\" is not auto, a whole number from 32 to 8192, or "
                             "WxH",
                             size),
                   false;
        s->input_width = s->input_height = (int)n;
    }
    s->queries = o->queries;
    s->activation = o->det_act;
    s->fit = o->det_fit;
    s->names = o->names;
    s->gain = o->gain;
    s->nms = o->nms;
    s->presence = o->presence;
    s->gray = o->gray < 0 ? 0 : o->gray ? 1 : -1;
    s->smooth = o->det_smooth;
    return true;
}

/* What became of the packed weights of a model that was opened: always, where a folder was named
 * for them that cannot have them. */
static void tell_cache(const struct options *o, const um_device *dev, const char *model)
{
    char text[600];
    bool named = o->weight_cache && strcmp(o->weight_cache, "auto") != 0;
    if (!o->verbose && !named)
        return;
    um_device_weight_cache(dev, text, sizeof text);
    if (o->verbose || (!o->quiet && strstr(text, ": not written: ")))
        fprintf(stderr, "ultramotion: packed weights of the %s: %s\n", model, text);
}

um_status cli_open_detector(um_detector **out, um_device *dev, const struct options *o)
{
    char path[CLI_PATH];
    um_detector_settings s;
    *out = NULL;
    if (!cli_detector_settings(o, &s))
        return UM_EINVAL;
    um_status st = um_detector_open(out, dev, cli_detector_path(o, path), &s);
    if (st == UM_OK)
        tell_cache(o, dev, "detector");
    if (st != UM_OK)
        cli_fail(st);
    else if (um_detector_warning(*out))
        cli_warn(o->detector ? o->detector : DETECTOR, um_detector_warning(*out));
    return st;
}

um_status cli_open_segmenter(um_segmenter **out, um_device *dev, const struct options *o)
{
    char path[CLI_PATH];
    um_status st =
        um_segmenter_open(out, dev, cli_segmenter_path(o, path), o->sam_size, o->sam_family);
    if (st == UM_OK)
        tell_cache(o, dev, "segmenter");
    if (st != UM_OK)
        cli_fail(st);
    return st;
}

um_status cli_open_engine(struct engine *e, const struct options *o)
{
    um_status st = e->dev ? UM_OK : cli_open_device(&e->dev, o);
    if (st == UM_OK)
        st = cli_open_detector(&e->detector, e->dev, o);
    return st == UM_OK && !o->boxes_only ? cli_open_segmenter(&e->segmenter, e->dev, o) : st;
}

void cli_close_engine(struct engine *e)
{
    um_pipeline_close(&e->pipeline);
    um_segmenter_close(&e->segmenter);
    um_detector_close(&e->detector);
    um_device_close(&e->dev);
}

um_mask_mode cli_mask_mode(const struct options *o)
{
    return o->sam_as_numpy < 0 ? UM_MASK_AUTO : o->sam_as_numpy ? UM_MASK_HOST : UM_MASK_DEVICE;
}

void cli_pipeline_settings(const struct options *o, const struct engine *e, um_pipeline_settings *s)
{
    um_pipeline_settings_default(s);
    s->detector = e->detector;
    s->segmenter = e->segmenter;
    s->conf = o->conf;
    s->objects = o->objects;
    s->per_class = o->per_class;
    s->inflight = o->inflight;
    s->reuse = o->reuse;
    s->sam_as_numpy = cli_mask_mode(o);
    if (o->gate)
        s->gate = strcmp(o->gate, "sync") == 0 ? UM_GATE_SYNC : UM_GATE_SPECULATIVE;
}

um_status cli_class(const struct options *o, um_detector *detector, int *label)
{
    long long n;
    int classes = um_detector_classes(detector);
    *label = -1;
    if (!o->class_name)
        return UM_OK;
    bool number = options_whole(o->class_name, 0, classes - 1, &n), named = false;
    int last = -1; /* of those that are called so */
    char names[512] = "";
    for (int i = 0; i < classes; i++) {
        const char *name = um_detector_class_name(detector, i);
        named = named || name;
        if (name && strcmp(name, o->class_name) == 0) {
            *label = *label < 0 ? i : *label;
            last = i;
        }
        size_t used = strlen(names);
        text_copy(names + used, sizeof names - used, i ? "," : "");
        used = strlen(names);
        text_copy(names + used, sizeof names - used, name ? name : "");
    }
    if (number && *label >= 0 && *label != n) {
        cli_usage("--class %s: class %s or class %d, which is called so? --names FILE renames them",
                  o->class_name, o->class_name, *label);
        return UM_EINVAL;
    }
    if (!number && last > *label) {
        cli_usage("--class %s: class %d or class %d, which both are called so? Say its number, or "
                  "--names FILE renames them",
                  o->class_name, *label, last);
        return UM_EINVAL;
    }
    *label = number ? (int)n : *label;
    if (*label >= 0)
        return UM_OK;
    char known[32] = "class 0 alone";
    if (classes > 1)
        snprintf(known, sizeof known, "classes 0 to %d", classes - 1);
    cli_usage("--class %s: the detector has %s%s%s", o->class_name, known,
              named ? ": " : " (unnamed)", named ? names : "");
    return UM_EINVAL;
}

bool cli_whole(const double *v, int n)
{
    int i = 0;
    while (i < n && v[i] == floor(v[i]))
        i++;
    return i == n;
}

bool cli_crop(const struct options *o, int crop[4], int *find)
{
    *find = o->has_crop && isnan(o->crop[0]);
    if (*find)
        return true;
    if (o->has_crop && (!cli_whole(o->crop, 4) || o->crop[2] < 1 || o->crop[3] < 1))
        return cli_usage("--crop: want whole pixels X,Y,W,H with W and H at least 1"), false;
    for (int i = 0; i < 4; i++)
        crop[i] = (int)o->crop[i];
    return true;
}

um_status cli_crop_frame(um_frame **frame, const int crop[4])
{
    um_frame *f = *frame, *cut = NULL;
    int x = crop[0], y = crop[1], w = crop[2], h = crop[3];
    char text[160];
    if (!w || (w == f->width && h == f->height))
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

void cli_announce(const struct options *o, const um_device *dev, const um_detector *detector,
                  const um_segmenter *segmenter)
{
    if (o->quiet)
        return;
    fprintf(stderr, "device %s (%s, %s: %s, %d thread%s)", um_device_name(dev), um_device_isa(dev),
            um_device_precision(dev), um_device_precision_reason(dev), um_device_threads(dev),
            plural((uint64_t)um_device_threads(dev)));
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

bool cli_say_no_frame(const struct options *o, uint64_t unreadable)
{
    struct stat s;
    if (unreadable == 1 && stat(o->positional[0], &s) == 0 && S_ISREG(s.st_mode))
        return false;
    fputs("ultramotion: ", stderr);
    cli_put(stderr, o->positional[0]);
    fputs(": no usable frame\n", stderr);
    return true;
}

const char *cli_folder(const struct options *o, const char *command)
{
    const char *to = o->sinks ? o->sink[0] : "";
    size_t scheme = strspn(to, "abcdefghijklmnopqrstuvwxyz-");
    if (strncmp(to, "dir:", 4) == 0)
        return to + 4;
    if (o->sinks == 1 && !(scheme > 1 && to[scheme] == ':'))
        return to;
    cli_usage(o->sinks == 1 ? "%s: -o %s: writes a folder, want -o DIR"
                            : "%s: give one folder, -o DIR",
              command, to);
    return NULL;
}

static bool read_window(const char *text, um_source_settings *s)
{
    double v[2];
    if (!text)
        return true;
    s->window = strcmp(text, "auto") == 0 ? UM_WINDOW_AUTO : UM_WINDOW_RANGE;
    if (s->window == UM_WINDOW_AUTO)
        return true;
    if (!options_numbers(text, 2, v) || v[0] < 0 || v[0] >= v[1] || v[1] > UINT16_MAX ||
        v[0] != (int)v[0] || v[1] != (int)v[1])
        return cli_usage(
                   "--window: \"%s\" is not auto or LO,HI, whole numbers from 0 to 65535 with "
                   "LO less than HI",
                   text),
               false;
    s->window_lo = (int)v[0];
    s->window_hi = (int)v[1];
    return true;
}

bool cli_source_settings(const struct options *o, um_source_settings *s)
{
    um_source_settings_default(s);
    s->on_notice = o->quiet ? NULL : cli_say;
    return read_window(o->window, s);
}

um_status cli_open_source(um_source **out, const struct options *o)
{
    um_source_settings s;
    if (!cli_source_settings(o, &s))
        return UM_EINVAL;
    s.frames = o->frames;
    s.loop = o->loop;
    s.recursive = o->recursive;
    s.channels = 1;
    if (o->pixel && strcmp(o->pixel, "rgb8") == 0)
        s.channels = 3;
    if (o->size && !options_size("--size", o->size, &s.width, &s.height))
        return UM_EINVAL;
    if (strcmp(o->positional[0], "push:") == 0) {
        cli_usage("push: is for programs, which hand frames over with um_source_push(); want - for "
                  "raw frames on stdin");
        return UM_EINVAL;
    }
    const char *const igtl[][2] = {
        {"crc", o->igtl_crc}, {"coord", o->igtl_coord}, {"version", o->igtl_version}};
    char *spec = cli_with_igtl(o->positional[0], igtl, 3);
    um_status st = spec ? um_source_open(out, spec, &s) : um_set_error(UM_ENOMEM, o->positional[0]);
    if (st != UM_OK)
        cli_fail(st);
    free(spec);
    return st;
}

/* Do both names mean one file, which need not be there? */
static bool same_place(const char *a, const char *b)
{
    const char *end_a = strrchr(a, '/'), *end_b = strrchr(b, '/');
    char *in_a = text_folder(a), *in_b = text_folder(b);
    bool same = strcmp(end_a ? end_a + 1 : a, end_b ? end_b + 1 : b) == 0 && in_a && in_b &&
                (strcmp(in_a, in_b) == 0 || um_same_file(in_a, in_b));
    free(in_a);
    free(in_b);
    return same;
}

/* Could the library write a file there? */
static um_status has_place(const char *option, const char *path)
{
    struct stat s;
    char text[512], *folder = text_folder(path);
    const char *why = NULL;
    if (stat(path, &s) == 0 && !S_ISREG(s.st_mode))
        why = "not a regular file";
    else if (!folder || access(folder, W_OK | X_OK) != 0)
        why = strerror(errno);
    free(folder);
    if (!why)
        return UM_OK;
    snprintf(text, sizeof text, "%s %.300s: cannot be written: %s", option, path, why);
    return um_set_error(UM_EIO, text);
}

/* Into a model's folder nothing is written that is there. */
static bool is_model(const char *model, const char *path)
{
    char *folder = text_folder(path);
    bool is = model && (um_same_file(model, path) || (folder && um_same_file(model, folder)));
    free(folder);
    return is;
}

static um_status spare(const struct options *o, const um_source *source, const char *option,
                       const char *path)
{
    char detector[CLI_PATH], segmenter[CLI_PATH], text[512];
    const char *const in[][2] = {{"--detector", cli_detector_path(o, detector)},
                                 {"--segmenter", cli_segmenter_path(o, segmenter)},
                                 {"--names", o->names},
                                 {"--config", o->config}};
    const char *read = source && um_source_reads(source, path) ? o->positional[0] : NULL;
    for (size_t i = 0; path && !read && i < sizeof in / sizeof *in; i++)
        if (access(path, F_OK) == 0 && is_model(in[i][1], path))
            read = in[i][0];
    if (!read)
        return UM_OK;
    snprintf(text, sizeof text, "%s %.300s: is also the input %.150s", option, path, read);
    return um_set_error(UM_EINVAL, text);
}

/* The file or folder that a sink writes; NULL: none. */
static const char *written_by(const char *sink)
{
    static const char *const network[] = {"igtl", "igtl-connect", "web", NULL};
    const char *colon = strchr(sink, ':');
    bool file =
        colon && colon[1] && strcmp(colon + 1, "-") != 0 && !options_any_scheme(sink, network);
    return file ? colon + 1 : NULL;
}

/* Is it a file that record: writes in its folder? */
static bool is_recorded(const char *sink, const char *path)
{
    static const char *const own[] = {"packets.jsonl", "settings.yaml"};
    const char *folder = recording_folder(sink);
    bool is = false;
    for (size_t i = 0; folder && path && !is && i < sizeof own / sizeof *own; i++) {
        char *name = text_join(folder, "/", own[i]);
        is = name && same_place(name, path);
        free(name);
    }
    return is;
}

um_status cli_check_outputs(const struct options *o, const um_source *source)
{
    const char *out[MAX_LIST + 3][2] = {
        {"--kpi", o->kpi}, {"--trace", o->trace}, {"--dump", o->dump}};
    char text[512];
    um_status st = UM_OK;
    int n = 3;
    for (int i = 0; i < o->sinks; i++, n++) {
        out[n][0] = "-o";
        out[n][1] = written_by(o->sink[i]);
    }
    for (int i = 0; i < n && st == UM_OK; i++) {
        st = spare(o, source, out[i][0], out[i][1]);
        for (int k = 0; k < o->sinks && st == UM_OK; k++)
            if (is_recorded(o->sink[k], out[i][1])) {
                snprintf(text, sizeof text, "%s %.300s: is also written by -o %.150s", out[i][0],
                         out[i][1], o->sink[k]);
                st = um_set_error(UM_EINVAL, text);
            }
        for (int j = 0; j < i && st == UM_OK; j++)
            if (out[i][1] && out[j][1] && same_place(out[i][1], out[j][1])) {
                snprintf(text, sizeof text, "%s %.300s: is also written by %s", out[i][0],
                         out[i][1], out[j][0]);
                st = um_set_error(UM_EINVAL, text);
            }
    }
    if (st == UM_OK && o->dump)
        st = has_place("--dump", o->dump);
    if (st != UM_OK)
        cli_fail(st);
    return st;
}

char *cli_with_igtl(const char *spec, const char *const option[][2], int n)
{
    char *text = NULL, sign = strchr(spec, '?') ? '&' : '?';
    bool igtl = strncmp(spec, "igtl:", 5) == 0 || strncmp(spec, "igtl-", 5) == 0;
    FILE *f = text_open(&text);
    if (f)
        fputs(spec, f);
    for (int i = 0; f && igtl && i < n; i++)
        if (option[i][1]) {
            fprintf(f, "%c%s=%s", sign, option[i][0], option[i][1]);
            sign = '&';
        }
    if (text_close(f, &text))
        return text;
    free(text);
    return NULL;
}
