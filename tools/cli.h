/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands share: what they say, and what the options name. */
#ifndef UM_CLI_H
#define UM_CLI_H

#include "options.h"
#include "ultramotion/ultramotion.h"

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_ASSERTION = 3 };

/* Text that came from a file or an argument: control characters, which a terminal would obey, are
 * written as \xNN. */
void cli_put(FILE *f, const char *text);
void cli_put_part(FILE *f, const char *text, size_t n); /* the first n bytes of it */
/* The exit code that an error deserves; cli_fail() also says it: "ultramotion: <text>" to stderr.
 */
int cli_exit(um_status st);
int cli_fail(um_status st);
/* tell() as a callback. */
void cli_say(void *ctx, const char *text);
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

/* A pipeline and what it stands on. Starts as {0}. */
struct engine {
    um_device *dev;
    um_detector *detector;
    um_segmenter *segmenter;
    um_pipeline *pipeline;
};
/* Networks, and the device if it is not open. What is open when it fails is to be closed, too. */
um_status cli_open_engine(struct engine *e, const struct options *o);
void cli_close_engine(struct engine *e);
/* What the options say of a pipeline on these networks, for all commands that have one. */
void cli_pipeline_settings(const struct options *o, const struct engine *e,
                           um_pipeline_settings *s);

/* The options' models, else those that ship: in ULTRAMOTION_MODELS, beside the source tree's build
 * folder, or in the installed share folder. */
enum { CLI_PATH = 4200 };
const char *cli_detector_path(const struct options *o, char buffer[CLI_PATH]);
const char *cli_segmenter_path(const struct options *o, char buffer[CLI_PATH]);
/* Has this model ranges for int8? */
bool cli_calibrated(const char *path);
/* --sam-as-numpy. */
um_mask_mode cli_mask_mode(const struct options *o);
/* --class NAME|N against the names of the detector's classes; -1 = the best of all. */
um_status cli_class(const struct options *o, um_detector *detector, int *label);
/* Are these whole numbers? */
bool cli_whole(const double *v, int n);
/* --crop; zeros without one, and if it is to be found. False after a message. */
bool cli_crop(const struct options *o, int crop[4], int *find);
/* Instead of the frame a copy of its crop; the frame itself if that has no width. */
um_status cli_crop_frame(um_frame **frame, const int crop[4]);
/* The line that a command begins with; detector and segmenter may be NULL. */
void cli_announce(const struct options *o, const um_device *dev, const um_detector *detector,
                  const um_segmenter *segmenter);
/* "SOURCE: no usable frame" to stderr. False: it is one file, which could not be read: that was
 * said, and is all there is to say. */
bool cli_say_no_frame(const struct options *o, uint64_t unreadable);
/* Defaults, --window, and notices on stderr; what is wrong with an option was said. */
bool cli_source_settings(const struct options *o, um_source_settings *settings);
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
