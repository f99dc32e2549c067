/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_MODEL_H
#define ULTRAMOTION_MODEL_H

#include "ultramotion/frame.h"
#include "ultramotion/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Threads: any, of every function here. */

typedef enum um_model_kind {
    UM_MODEL_UNKNOWN,
    UM_MODEL_DFINE,
    UM_MODEL_MOBILE_SAM, /* also TinySAM, which is the same network: architecture says which */
    UM_MODEL_LITE_MEDSAM,
    UM_MODEL_SAM_VIT /* also MedSAM */
} um_model_kind;

/** What a weight file holds, read from its names, shapes and metadata; no weights are loaded. */
typedef struct um_model_info {
    size_t struct_size;
    um_model_kind kind;
    char architecture[32]; /**< "dfine-n" … "dfine-x", "dfine", "mobile-sam", …, "unknown" */
    char format[16];       /**< "safetensors" or "torch zip" */
    char sha256[65];       /**< of the file */
    int classes;           /**< detector; 0 otherwise */
    int channels;          /**< of the stem */
    int input_size;        /**< from metadata, else config.json, else what the tensors imply,
                              else 640 / 1024; of an input that is not square its width */
    const char *input_size_from; /**< "metadata", "config.json", "tensors" or "default"; static
                                    string, as all below */
    int tensors;
    uint64_t parameters; /**< elements in all tensors */
    uint64_t bytes;      /**< of the tensors */
    int input_width, input_height;
    /* of a detector, with where they are from; NULL and 0 otherwise */
    const char *family; /**< "d-fine", "deim-d-fine", "hugging-face-d-fine" */
    int queries;
    const char *queries_from;
    const char *activation, *activation_from; /**< "relu" or "silu" */
    const char *fit, *fit_from;               /**< "stretch" or "letterbox" */
    const char *names_from;                   /**< of the classes; NULL = they have none */
    const char *warning; /**< what the user of this file should know, or NULL */
} um_model_info;

/** Read what a file is. *info: caller sets struct_size. @return UM_OK (kind may be
 * UM_MODEL_UNKNOWN), UM_EIO, UM_EFORMAT. */
UM_API um_status um_model_inspect(const char *path, um_model_info *info);

/** The same for a file in memory; `label` stands for its path in messages. The bytes are not kept.
 */
UM_API um_status um_model_inspect_memory(const void *data, size_t size, const char *label,
                                         um_model_info *info);

/** Called once per tensor, sorted by name. dim has `rank` entries. Strings are valid during the
 * call. */
typedef void um_model_tensor_fn(void *ctx, const char *name, const char *dtype, int rank,
                                const int64_t *dim);
/** List the tensors of a file. */
UM_API um_status um_model_tensors(const char *path, um_model_tensor_fn *fn, void *ctx);
/** List safetensors metadata as key and value. */
typedef void um_model_meta_fn(void *ctx, const char *key, const char *value);
UM_API um_status um_model_metadata(const char *path, um_model_meta_fn *fn, void *ctx);

/** How to write a model. Initialise with um_convert_settings_default(). What is given here for a
 * detector replaces what its file says. */
typedef struct um_convert_settings {
    size_t struct_size;
    const char *precision; /**< storage of floating tensors: "fp32", "fp16", "bf16", or "same" as
                                in the file */
    int upstream; /**< 1: a PyTorch file that upstream's own code loads, without metadata */
    int input_width, input_height, queries;
    const char *activation, *fit, *names; /**< as in um_detector_settings */
    const char *const *metadata;          /**< further key, value, …, NULL pairs, or NULL */
} um_convert_settings;
UM_API void um_convert_settings_init(um_convert_settings *s, size_t struct_size);
#define um_convert_settings_default(s) um_convert_settings_init((s), sizeof *(s))

/** Write a model as .safetensors whose metadata keeps every fact: architecture, family, input size,
 * queries, activation, fit, classes, sha256 of the source file. In fp32, and in "same", the values
 * are identical.
 * @param settings NULL = defaults.
 * @return UM_EUNSUPPORTED for "int8", which um_model_calibrate() writes. */
UM_API um_status um_model_convert(const char *path, const char *out,
                                  const um_convert_settings *settings);

/** What um_model_calibrate() runs a network on. Initialise with
 * um_calibration_settings_default(). */
typedef struct um_calibration_settings {
    size_t struct_size;
    const um_frame *const *frames; /**< images like those it will see; 32 are enough */
    const float (*boxes)[4]; /**< x0,y0,x1,y1 of what a segmenter outlines in each, or NULL: the
                                middle */
    int count;               /**< of frames */
    int threads;             /**< 0: all */
    void (*say)(void *ctx,
                const char *line); /**< called with what is measured, line by line; or NULL */
    void *ctx;
} um_calibration_settings;
UM_API void um_calibration_settings_init(um_calibration_settings *s, size_t struct_size);
#define um_calibration_settings_default(s) um_calibration_settings_init((s), sizeof *(s))

/**
 * um_model_convert() for --precision int8: the file also has the ranges of its layers' inputs,
 * and which layers can compute in int8; its weights stay as `convert` has them. Results in int8 are
 * compared with those in floating point, and the layers that differ most stay in floating point
 * until they agree: every best box within 2 px and nine of ten within 0.5 px,
 * masks with a mean Dice of 0.99. A segmenter is run as the family that `convert` gives, if its
 * metadata has "architecture".
 *
 * @return also UM_EUNSUPPORTED, naming the worst layer, if that takes more than half of them.
 */
UM_API um_status um_model_calibrate(const char *path, const char *out,
                                    const um_convert_settings *convert,
                                    const um_calibration_settings *settings);

#ifdef __cplusplus
}
#endif
#endif
