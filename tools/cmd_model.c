/* SPDX-License-Identifier: Apache-2.0 */
/* inspect, convert: what is done with weights. */
#include "cli.h"
#include "json.h"
#include "tell.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_tensor(void *ctx, const char *name, const char *dtype, int rank,
                         const int64_t *dim)
{
    (void)ctx;
    printf("  ");
    cli_put(stdout, name);
    printf(" [");
    for (int i = 0; i < rank; i++)
        printf("%s%" PRId64, i ? "," : "", dim[i]);
    printf("] %s\n", dtype);
}

static void print_meta(void *ctx, const char *key, const char *value)
{
    (void)ctx;
    printf("  ");
    cli_put(stdout, key);
    printf(":");
    if (strncmp(key, "int8", 4) != 0) {
        printf(" ");
        cli_put(stdout, value);
        printf("\n");
        return;
    }
    printf("\n");
    for (const char *end; *value; value = *end ? end + 1 : end) { /* a layer each */
        enum { SHOWN = 90 };                                      /* its channels' scales go on */
        end = value + strcspn(value, "\n");
        bool cut = strcmp(key, "int8") == 0 && end - value > SHOWN;
        printf("    ");
        cli_put_part(stdout, value, cut ? SHOWN : (size_t)(end - value));
        printf("%s\n", cut ? "..." : "");
    }
}

static void print_tensor_json(void *ctx, const char *name, const char *dtype, int rank,
                              const int64_t *dim)
{
    bool *first = ctx;
    printf("%s{\"name\":", *first ? "" : ",");
    *first = false;
    json_string(stdout, name);
    printf(",\"dtype\":\"%s\",\"shape\":[", dtype);
    for (int i = 0; i < rank; i++)
        printf("%s%" PRId64, i ? "," : "", dim[i]);
    printf("]}");
}

static void print_meta_json(void *ctx, const char *key, const char *value)
{
    bool *first = ctx;
    printf("%s", *first ? "" : ",");
    *first = false;
    json_string(stdout, key);
    putchar(':');
    json_string(stdout, value);
}

static void print_fact_json(const char *key, const char *value, const char *from)
{
    if (!value)
        return;
    printf("\"%s\":\"%s\",\"%s_from\":\"%s\",", key, value, key, from);
}

static um_status inspect_json(const char *path, const um_model_info *info)
{
    bool first = true;
    printf("{\"architecture\":\"%s\",\"format\":\"%s\",\"sha256\":\"%s\",\"classes\":%d,"
           "\"channels\":%d,\"input_size\":%d,"
           "\"input_size_from\":\"%s\",\"input_width\":%d,\"input_height\":%d,",
           info->architecture, info->format, info->sha256, info->classes, info->channels,
           info->input_size, info->input_size_from, info->input_width, info->input_height);
    if (info->queries)
        printf("\"family\":\"%s\",\"queries\":%d,\"queries_from\":\"%s\",", info->family,
               info->queries, info->queries_from);
    print_fact_json("activation", info->activation, info->activation_from);
    print_fact_json("fit", info->fit, info->fit_from);
    if (info->names_from)
        printf("\"names_from\":\"%s\",", info->names_from);
    if (info->warning) {
        printf("\"warning\":");
        json_string(stdout, info->warning);
        putchar(',');
    }
    printf("\"parameters\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"metadata\":{", info->parameters,
           info->bytes);
    um_status st = um_model_metadata(path, print_meta_json, &first);
    printf("},\"tensors\":[");
    first = true;
    if (st == UM_OK)
        st = um_model_tensors(path, print_tensor_json, &first);
    printf("]}\n");
    return st;
}

static void print_detector(const um_model_info *info)
{
    printf("family        %s\nclasses       %d%s%s%s\nstem          %d channel%s\n", info->family,
           info->classes, info->names_from ? " (names: " : "",
           info->names_from ? info->names_from : "", info->names_from ? ")" : "", info->channels,
           info->channels == 1 ? "" : "s");
    printf("queries       %d (%s)\nactivation    %s (%s)\nfit           %s (%s)\n", info->queries,
           info->queries_from, info->activation, info->activation_from, info->fit, info->fit_from);
    if (info->warning)
        printf("warning       %s\n", info->warning);
}

int command_inspect(const struct options *o)
{
    um_model_info info = {.struct_size = sizeof info};
    const char *path = o->positional[0];
    um_status st = um_model_inspect(path, &info);
    if (st != UM_OK)
        return cli_fail(st);
    if (o->json) {
        st = inspect_json(path, &info);
        return st == UM_OK ? EXIT_DONE : cli_fail(st);
    }
    printf("file          ");
    cli_put(stdout, path);
    printf("\nformat        %s\nsha256        %s\narchitecture  %s\n", info.format, info.sha256,
           info.architecture);
    if (info.kind == UM_MODEL_DFINE)
        print_detector(&info);
    if (info.kind != UM_MODEL_UNKNOWN && info.input_width == info.input_height)
        printf("input size    %d (%s)\n", info.input_size, info.input_size_from);
    else if (info.kind != UM_MODEL_UNKNOWN)
        printf("input size    %dx%d (%s)\n", info.input_width, info.input_height,
               info.input_size_from);
    printf("tensors       %d: %" PRIu64 " elements, %" PRIu64 " bytes\nmetadata\n", info.tensors,
           info.parameters, info.bytes);
    st = um_model_metadata(path, print_meta, NULL);
    if (st == UM_OK && !o->quiet) {
        printf("tensors\n");
        st = um_model_tensors(path, print_tensor, NULL);
    }
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

static void say_line(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "%s\n", line);
}

/* Images to calibrate by. */
struct sample {
    um_frame **frame;
    float (*box)[4]; /* what is in them, where the source knows it */
    int want, n;
    bool boxes;
};

/* Every second one goes. */
static void thin_out(struct sample *s)
{
    for (int i = 0; i < s->n; i++) {
        um_frame *f = s->frame[i];
        s->frame[i] = NULL;
        if (i % 2)
            um_frame_unref(&f);
        else
            s->frame[i / 2] = f;
    }
    s->n = (s->n + 1) / 2;
}

/* Frames of the source: of files evenly spaced ones, as neighbours are alike, also where nobody
 * knows beforehand how many there are; of the phantom the first, and where it has its bone in them.
 * What cannot be read is told and passed over. */
static um_status collect(struct sample *s, um_source *source, bool any)
{
    enum { SPACING = 64 };
    long length = um_source_length(source), every = length > s->want ? length / s->want : 1;
    bool spread = length < 0 && !um_source_live(source);
    every = every < SPACING ? every : SPACING;
    for (long tried = 0, read = 0; (s->n < s->want || spread) && tried < (long)SPACING * s->want;
         tried++) {
        um_truth truth = {.struct_size = sizeof truth};
        um_frame *f = NULL;
        um_status st = um_source_read(source, &f);
        if (st == UM_EOF)
            break;
        if (st == UM_ENOMEM)
            return st;
        if (st != UM_OK) {
            tell(um_last_error());
            continue;
        }
        if (um_source_truth(source, &truth) == UM_OK) {
            s->boxes = true;
            every = 1;
            spread = false;
        }
        if (s->n == s->want && read % every == 0 && every < SPACING) {
            thin_out(s);
            every *= 2;
        }
        bool due = read++ % every == 0 && s->n < s->want;
        if (!due || (s->boxes && !truth.has_bone && !any)) {
            um_frame_unref(&f);
            continue;
        }
        memcpy(s->box[s->n], truth.box, sizeof truth.box);
        s->frame[s->n++] = f;
    }
    return s->n       ? UM_OK
           : s->boxes ? um_set_error(UM_EINVAL, "convert: no frame to calibrate on has a bone")
                      : um_set_error(UM_EFORMAT, "convert: no frame to calibrate on");
}

static um_status also_read(const char *out, const char *read)
{
    char text[512];
    snprintf(text, sizeof text, "%.300s: is also the input %.150s", out, read);
    return um_set_error(UM_EINVAL, text);
}

/* Boxes for a segmenter, of a source that knows none: the detector's, on the frames where it is
 * sure of one; on all where it never is. What a box on nothing makes no two computations agree on.
 */
static um_status find_boxes(struct sample *s, const struct options *o)
{
    static const float SURE = 0.5f;
    char found[CLI_PATH];
    const char *path = cli_detector_path(o, found);
    um_device_settings where;
    um_detector_settings as_file_says;
    um_device *dev = NULL;
    um_detector *d = NULL;
    um_box *best = calloc((size_t)s->n, sizeof *best);
    int sure = 0, kept = 0;
    um_device_settings_default(&where);
    where.name = "cpu";
    um_detector_settings_default(&as_file_says);
    um_status st = best ? UM_OK : um_set_error(UM_ENOMEM, "boxes");
    if (st == UM_OK && um_same_file(path, o->positional[1]))
        st = also_read(o->positional[1], path);
    if (st == UM_OK)
        st = um_device_open(&dev, &where);
    if (st == UM_OK)
        st = um_detector_open(&d, dev, path, &as_file_says);
    if (st == UM_OK && um_detector_warning(d))
        cli_warn(path, um_detector_warning(d));
    for (int i = 0, n; i < s->n && st == UM_OK; i++) {
        st = um_detector_run(d, s->frame[i], 0, &best[i], 1, &n);
        sure += st == UM_OK && best[i].score >= SURE;
    }
    for (int i = 0; i < s->n && st == UM_OK; i++) {
        um_frame *f = s->frame[i];
        const float box[4] = {best[i].x0, best[i].y0, best[i].x1, best[i].y1};
        s->frame[i] = NULL;
        if (sure && best[i].score < SURE) {
            um_frame_unref(&f);
            continue;
        }
        memcpy(s->box[kept], box, sizeof box);
        s->frame[kept++] = f;
    }
    if (st == UM_OK) {
        if (!o->quiet)
            fprintf(stderr, "boxes of the detector: of %d frames %d with a score from %.1f\n", s->n,
                    sure, (double)SURE);
        s->n = kept;
        s->boxes = true;
    }
    um_detector_close(&d);
    um_device_close(&dev);
    free(best);
    return st;
}

/* May the new file be written where it shall? Of the model and --names the library sees to that. */
static um_status spare(const struct options *o, const um_source *source)
{
    const char *out = o->positional[1], *read = um_source_reads(source, out) ? o->calibrate : NULL;
    if (um_same_file(o->config, out))
        read = o->config;
    return read ? also_read(out, read) : UM_OK;
}

static um_status calibrate(const struct options *o, const um_source_settings *from,
                           const um_convert_settings *convert)
{
    enum { FRAMES = 32, MOST = 1024 };
    struct sample own = {.want = o->frames > 0 && o->frames < MOST ? (int)o->frames
                                 : o->frames                       ? MOST
                                                                   : FRAMES};
    um_source *source = NULL;
    um_calibration_settings s;
    um_model_info info = {.struct_size = sizeof info};
    own.frame = calloc((size_t)own.want, sizeof *own.frame);
    own.box = calloc((size_t)own.want, sizeof *own.box);
    um_status st = own.frame && own.box ? UM_OK : um_set_error(UM_ENOMEM, "images to calibrate by");
    if (st == UM_OK)
        st = um_model_inspect(o->positional[0], &info);
    if (st == UM_OK)
        st = um_source_open(&source, o->calibrate, from);
    if (st == UM_OK)
        st = spare(o, source);
    if (st == UM_OK)
        st = collect(&own, source, info.kind == UM_MODEL_DFINE);
    if (st == UM_OK && own.boxes && o->detector)
        st = um_set_error(UM_EINVAL, "convert: --detector: the phantom says where its bones are");
    if (st == UM_OK && !own.boxes && info.kind != UM_MODEL_DFINE)
        st = find_boxes(&own, o);
    um_calibration_settings_default(&s);
    s.frames = (const um_frame *const *)own.frame;
    s.boxes = own.boxes ? (const float(*)[4])own.box : NULL;
    s.count = own.n;
    s.say = o->quiet ? NULL : say_line;
    if (st == UM_OK)
        st = um_model_calibrate(o->positional[0], o->positional[1], convert, &s);
    for (int i = 0; i < own.n; i++)
        um_frame_unref(&own.frame[i]);
    um_source_close(&source);
    free(own.frame);
    free(own.box);
    return st;
}

struct dropped {
    char text[256];
};

static void drop(struct dropped *d, const char *option, const char *value)
{
    size_t n = strlen(d->text);
    snprintf(d->text + n, sizeof d->text - n, " %s %s", option, value);
}

static void drop_metadata(void *ctx, const char *key, const char *value)
{
    if (strcmp(key, "gain") == 0)
        drop(ctx, "--gain", value);
    if (strcmp(key, "gray") == 0)
        drop(ctx, "--gray", value);
    if (strcmp(key, "nms") == 0)
        drop(ctx, "--nms", value);
    if (strcmp(key, "presence") == 0)
        drop(ctx, "--presence", value);
    if (strcmp(key, "smooth") == 0)
        drop(ctx, "--det-smooth", value);
}

static void drop_detector(const struct options *o, const um_model_info *info, struct dropped *d)
{
    enum { QUERIES = 300 };
    char number[16];
    int queries = o->queries ? o->queries : info->queries;
    const char *act = o->det_act ? o->det_act : info->activation,
               *fit = o->det_fit ? o->det_fit : info->fit;
    snprintf(number, sizeof number, "%d", queries);
    if (act && strcmp(act, "relu") != 0)
        drop(d, "--det-act", act);
    if (fit && strcmp(fit, "stretch") != 0)
        drop(d, "--det-fit", fit);
    if (queries != QUERIES)
        drop(d, "--queries", number);
    if (o->names || info->names_from)
        drop(d, "--names", "FILE");
    um_model_metadata(o->positional[0], drop_metadata, d);
}

/* As which the new file would be taken for another. */
static um_status drop_segmenter(const struct options *o, const um_model_info *info,
                                struct dropped *d)
{
    um_model_info made = {.struct_size = sizeof made};
    char number[16];
    int size = o->sam_size ? o->sam_size : info->input_size;
    const char *family = o->sam_family ? o->sam_family : info->architecture;
    um_status st = um_model_inspect(o->positional[1], &made);
    snprintf(number, sizeof number, "%d", size);
    if (st == UM_OK && made.input_size != size)
        drop(d, "--sam-size", number);
    if (st == UM_OK && strcmp(made.architecture, family) != 0)
        drop(d, "--sam-family", family);
    return st;
}

/* What a file of --upstream cannot say, so that whoever gives it must. */
static um_status tell_dropped(const struct options *o, const um_model_info *info)
{
    struct dropped d = {""};
    char text[400];
    um_status st = UM_OK;
    if (info->kind == UM_MODEL_DFINE)
        drop_detector(o, info, &d);
    else
        st = drop_segmenter(o, info, &d);
    snprintf(text, sizeof text,
             "has no metadata: what the other file said is to be given with it:%s", d.text);
    if (d.text[0])
        cli_warn(o->positional[1], text);
    return st;
}

/* The file was calibrated and the new one is not. */
static void tell_ranges(const struct options *o)
{
    if (cli_calibrated(o->positional[0]) && !cli_calibrated(o->positional[1]))
        cli_warn(o->positional[1], "has no ranges for int8: those of the other file were measured "
                                   "with another activation or family; calibrate it again");
}

int command_convert(const struct options *o)
{
    const char *precision = o->precision ? o->precision : "fp32";
    um_model_info info = {.struct_size = sizeof info};
    bool int8 = strcmp(precision, "int8") == 0;
    if (strcmp(o->positional[1], "-") == 0)
        return cli_usage("convert: -: want the name of a file, none is written to stdout");
    if (int8 != (o->calibrate != NULL))
        return cli_usage("convert: --precision int8 and --calibrate SOURCE go together");
    if (int8 && strcmp(o->calibrate, "-") == 0)
        return cli_usage(
            "convert: --calibrate -: raw frames on stdin have no size here, give files");
    if (int8 && o->upstream)
        return cli_usage("convert: --upstream writes no metadata, and int8 is nothing else");
    if (strcmp(precision, "auto") == 0)
        precision = "fp32";
    const char *const family[] = {"architecture", o->sam_family, NULL};
    um_detector_settings detector;
    um_convert_settings s;
    um_source_settings from;
    if (!cli_detector_settings(o, &detector) || !cli_source_settings(o, &from))
        return EXIT_USAGE;
    from.recursive = o->recursive;
    um_convert_settings_default(&s);
    um_status st = um_model_inspect(o->positional[0], &info);
    if (st != UM_OK)
        return cli_fail(st);
    bool is_detector = info.kind == UM_MODEL_DFINE;
    if (is_detector ? o->sam_size != 0 : detector.input_width != 0)
        return cli_usage("convert: %s, and %s holds a network %s",
                         is_detector ? "--sam-size is a segmenter's" : "--det-size is a detector's",
                         o->positional[0], info.architecture);
    if (is_detector && o->detector)
        return cli_usage("convert: --detector is for a segmenter, and %s holds a network %s",
                         o->positional[0], info.architecture);
    s.precision = int8 ? "same" : precision;
    s.upstream = o->upstream;
    s.input_width = is_detector ? detector.input_width : o->sam_size;
    s.input_height = is_detector ? detector.input_height : o->sam_size;
    s.queries = detector.queries;
    s.activation = detector.activation;
    s.fit = detector.fit;
    s.names = detector.names;
    s.metadata = o->sam_family ? family : NULL;
    st = spare(o, NULL);
    if (st == UM_OK)
        st = int8 ? calibrate(o, &from, &s)
                  : um_model_convert(o->positional[0], o->positional[1], &s);
    if (st != UM_OK)
        return cli_fail(st);
    if (info.warning)
        cli_warn(o->positional[0], info.warning);
    if (o->upstream && (st = tell_dropped(o, &info)) != UM_OK)
        return cli_fail(st);
    if (!o->upstream)
        tell_ranges(o);
    if (!o->quiet) {
        cli_put(stderr, o->positional[1]);
        fprintf(stderr, " written (%s)\n", precision);
    }
    return EXIT_DONE;
}
