/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as a table: every option is one row. Values come from --config FILE.yaml first,
 * then from the command line. */
#ifndef UM_CLI_H
#define UM_CLI_H

#include "ultramotion/ultramotion.h"

#include <stdbool.h>
#include <stdio.h>

enum { MAX_LIST = 16, MAX_POSITIONAL = 4, MAX_QUERIES = 1024 };

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_ASSERTION = 3 };

/* Commands an option belongs to. */
enum command_bit {
    ON_RUN = 1,
    ON_DETECT = 2,
    ON_SEGMENT = 4,
    ON_PHANTOM = 8,
    ON_BENCH = 16,
    ON_INSPECT = 32,
    ON_CONVERT = 64,
    ON_DOCTOR = 128,
    ON_VAL = 256,
    ON_IGTL = 512,
    ON_SERVE = 1024,
    ON_REPLAY = 2048,
    IN_RECORDING = 4096 /* no command: what settings.yaml of a recording holds */
};

struct options {
    const char *detector, *segmenter, *sam_family, *device, *precision, *class_name, *gate, *kpi,
        *dump, *config, *size, *pixel, *calibrate, *on_device_lost, *on_sink_full, *window,
        *kpi_events, *trace, *det_size, *det_act, *det_fit, *names, *igtl_crc, *igtl_coord,
        *igtl_max_fps, *igtl_version, *results, *masks, *lines, *pictures, *look, *recorded_device,
        *shadow, *gain, *presence, *weight_cache;
    const char *sink[MAX_LIST];
    const char *point[MAX_LIST];
    int sinks, points;
    int threads, queries, sam_size;
    int sam_as_numpy; /* -1 = not said */
    float conf, sink_deadline, stall_deadline, fps, summary_every, kpi_max_mb, budget_ms;
    bool has_crop, has_box, has_assert, has_within, has_spacing;
    double crop[4], box[4], assert_transfers[2], within[2], spacing[2];
    long frames;
    uint64_t seed, guard_seed;
    int max_age_ms, lag_alarm_ms; /* max_age_ms: -1 = not said */
    int rounds, inflight, objects, kpi_keep;
    bool per_class;
    int track, detect_every, shadow_every; /* track: -1 = not said */
    int mask_clean, reuse;
    float theta_on, theta_off, theta_cont, nms;
    bool loop, recursive, realtime, strict, quiet, verbose, multimask, json, table, serve, upstream,
        trace_steps, verify, sweep, help;
    const char *positional[MAX_POSITIONAL];
    int positionals;
};

/* Parse the arguments after the command's name. Messages go to stderr. False: usage error (exit 2).
 */
bool cli_parse(struct options *o, enum command_bit command, const char *name, int argc,
               char **argv);
/* The options that are kept in a recording, where they are not the defaults, as --config has them.
 */
void cli_keep(const struct options *o, FILE *f);
/* Option list of a command, to stdout. */
void cli_print_options(enum command_bit command);
/* All options for a manual page, each with the commands that have it. */
void cli_print_man_options(const char *const *names, const int *bits, int commands);
/* Cases of a shell's `case $before`: the words that an option takes, or the command's options. */
void cli_print_completion(enum command_bit command);
/* Text in a manual page: nothing in it is a request. */
void cli_put_man(const char *text);

/* Text that came from a file or an argument: control characters, which a terminal would obey, are
 * written as \xNN. */
void cli_put(FILE *f, const char *text);
void cli_put_part(FILE *f, const char *text, size_t n); /* the first n bytes of it */
/* Exactly `count` finite decimal numbers with commas between them. */
bool cli_numbers(const char *text, int count, double *out);
/* The value "WxH" of an option; false after a message. */
bool cli_size(const char *option, const char *text, int *width, int *height);
/* Can each option that was given act, in this command and with what else was? False: said which
 * cannot. */
bool cli_options_meet(const struct options *o, enum command_bit command);
/* The exit code that an error deserves; cli_fail() also says it: "ultramotion: <text>" to stderr.
 */
int cli_exit(um_status st);
int cli_fail(um_status st);
/* tell() as a callback. */
void cli_say(void *ctx, const char *text);
/* "ultramotion: <text>" to stderr, in place of the progress line where there is one, and escaped.
 */
void cli_notice(void *ctx, const char *text);
/* "ultramotion: warning: FILE: TEXT" to stderr. */
void cli_warn(const char *file, const char *text);
/* The one folder of -o, with "dir:" before it or without; NULL if it is none, also of another
 * sink's kind, said with `command`. */
const char *cli_folder(const struct options *o, const char *command);
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The device of the options. Messages of all these go to stderr. */
um_status cli_open_device(um_device **out, const struct options *o);
/* Of --det-size, --queries, --det-act, --det-fit and --names; false after a message. */
bool cli_detector_settings(const struct options *o, um_detector_settings *s);
um_status cli_open_detector(um_detector **out, um_device *dev, const struct options *o);
um_status cli_open_segmenter(um_segmenter **out, um_device *dev, const struct options *o);
/* The options' models, else those that ship: in ULTRAMOTION_MODELS, beside the source tree's build
 * folder, or in the installed share folder. */
enum { CLI_PATH = 4200 };
const char *cli_detector_path(const struct options *o, char buffer[CLI_PATH]);
const char *cli_segmenter_path(const struct options *o, char buffer[CLI_PATH]);
/* --sam-as-numpy. */
um_mask_mode cli_mask_mode(const struct options *o);
/* What the options say of a pipeline on these networks, for all commands that have one. */
void cli_pipeline_settings(const struct options *o, um_detector *detector, um_segmenter *segmenter,
                           um_pipeline_settings *s);
/* --class NAME|N against the names of the detector's classes; -1 = the best of all. */
um_status cli_class(const struct options *o, um_detector *detector, int *label);
um_status cli_open_source(um_source **out, const struct options *o);
/* No output of the options may be a file that is read, or that another one writes: UM_EINVAL after
 * a message; and what is only written at the end must have a place, else UM_EIO. `source`: the one
 * that is opened. */
um_status cli_check_outputs(const struct options *o, const um_source *source);
/* A spec of igtl: (or igtl-…) with options of the command line behind it, a name and a value each,
 * NULL = not given; any other as it is. Freed with free(); NULL: no memory. */
char *cli_with_igtl(const char *spec, const char *const option[][2], int n);

int command_run(const struct options *o);
int command_detect(const struct options *o);
int command_segment(const struct options *o);
int command_phantom(const struct options *o);
int command_bench(const struct options *o);
int command_inspect(const struct options *o);
int command_convert(const struct options *o);
int command_doctor(const struct options *o);
int command_val(const struct options *o);
int command_serve(const struct options *o);
int command_igtl(const struct options *o);
int command_replay(const struct options *o);

#endif
