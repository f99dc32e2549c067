/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as a table: every option is one row. Values come from --config FILE.yaml first,
 * then from the command line. */
#ifndef UM_OPTIONS_H
#define UM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MAX_LIST = 16, MAX_POSITIONAL = 4, MAX_QUERIES = 1024 };

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
    int gray; /* -1: as the file says */
    const char *sink[MAX_LIST];
    const char *point[MAX_LIST];
    int sinks, points;
    int threads, queries, sam_size;
    int sam_as_numpy; /* -1 = not said */
    float conf, sink_deadline, stall_deadline, fps, summary_every, kpi_max_mb, budget_ms;
    bool has_crop, has_box, has_assert, has_within, has_spacing;
    double crop[4] /* NaN: auto */, box[4], assert_transfers[2], within[2], spacing[2];
    long frames;
    uint64_t seed, guard_seed;
    int max_age_ms, lag_alarm_ms; /* max_age_ms: -1 = not said */
    int rounds, inflight, objects, kpi_keep;
    bool per_class, boxes_only;
    int track, detect_every, shadow_every; /* track: -1 = not said */
    int mask_clean, reuse;
    float theta_on, theta_off, theta_cont, nms, det_smooth;
    bool loop, recursive, realtime, strict, quiet, verbose, multimask, json, table, serve, upstream,
        trace_steps, verify, sweep, help;
    const char *positional[MAX_POSITIONAL];
    int positionals;
};

/* Parse the arguments after the command's name. Messages go to stderr. False: usage error (exit 2).
 */
bool options_parse(struct options *o, enum command_bit command, const char *name, int argc,
                   char **argv);
/* The options that are kept in a recording, where they are not the defaults, as --config has them.
 */
void options_keep(const struct options *o, FILE *f);
/* Option list of a command, to stdout. */
void options_print(enum command_bit command);
/* All options for a manual page, each with the commands that have it. */
void options_print_man(const char *const *names, const int *bits, int commands);
/* Cases of a shell's `case $before`: the words that an option takes, or the command's options. */
void options_print_completion(enum command_bit command);
/* Text in a manual page: nothing in it is a request. */
void options_put_man(const char *text);

/* Exactly `count` finite decimal numbers with commas between them. */
bool options_numbers(const char *text, int count, double *out);
/* The value "WxH" of an option; false after a message. */
bool options_size(const char *option, const char *text, int *width, int *height);
/* Can each option that was given act, in this command and with what else was? False: said which
 * cannot. */
bool options_meet(const struct options *o, enum command_bit command);
/* Digits and nothing else, a number from min to max. */
bool options_whole(const char *text, double min, double max, long long *out);
/* Is a spec of one of the schemes, of which NULL is the end? */
bool options_any_scheme(const char *spec, const char *const *schemes);

#endif
