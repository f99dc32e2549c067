/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_IO_H
#define ULTRAMOTION_IO_H

#include "ultramotion/frame.h"
#include "ultramotion/pipeline.h"

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Where frames come from: a file, a folder, a glob, "phantom:seed=1,frames=100,…" or "-" (raw
 * frames on stdin). */
typedef struct um_source um_source;

typedef struct um_source_settings {
    size_t struct_size;
    int width, height,
        channels; /**< raw frames on stdin: --size and --pixel (channels 1 = gray8, 3 = rgb8) */
    long frames;  /**< stop after this many frame ids; 0 = all */
    int loop;     /**< files: start again at the end */
    const volatile sig_atomic_t
        *stop; /**< nonzero: a read that waits for input answers UM_EOF; or NULL */
} um_source_settings;
/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_source_settings_init(um_source_settings *s, size_t struct_size);
#define um_source_settings_default(s) um_source_settings_init((s), sizeof *(s))

/**
 * Open a source.
 * @return UM_OK; UM_EINVAL for a spec that means nothing (unknown scheme, bad phantom key); UM_EIO
 * for a missing file, an empty folder or a glob without match.
 */
UM_API um_status um_source_open(um_source **out, const char *spec,
                                const um_source_settings *settings);
UM_API void um_source_close(um_source **source);
/**
 * The next frame, with a reference for the caller, its id in frame->id.
 * @return UM_OK; UM_EOF; UM_EFORMAT or UM_EIO for one unreadable frame, named in um_last_error():
 * its id is used up, call again for the next; a source that cannot go on answers UM_EOF after the
 * error.
 */
UM_API um_status um_source_read(um_source *source, um_frame **frame);
/** Frames the source will give, or -1 if unknown. */
UM_API long um_source_length(const um_source *source);
/** Name of the last frame read (file name without folder and extension, else the id as 5 digits).
 * Valid until the next read. */
UM_API const char *um_source_frame_name(const um_source *source);

/** Truth of a phantom frame: mask bytes 0/1 [H*W] or NULL (no bone), box x0,y0,x1,y1. UM_AGAIN if
 * the source has no truth. */
typedef struct um_truth {
    const uint8_t *mask; /**< owned by the source, valid until the next read */
    int has_bone;
    float box[4];
    float visibility; /**< 0..1: part of the ridge that is inside the picture and in contact */
} um_truth;
UM_API um_status um_source_truth(const um_source *source, um_truth *out);

/** Where packets go: "dir:PATH", "jsonl:PATH", "jsonl:-", "null:". */
typedef struct um_sink um_sink;
/** @return UM_OK; UM_EINVAL for an unknown scheme; UM_EIO naming the path. */
UM_API um_status um_sink_open(um_sink **out, const char *spec);
/** Write one packet; the frame is for overlays; name is the file stem. @return UM_OK; UM_EIO naming
 * the sink; UM_EOF if a pipe's reader left. */
UM_API um_status um_sink_write(um_sink *sink, const um_packet *packet, const um_frame *frame,
                               const char *name);
/** Flush and close; sets *sink to NULL; accepts NULL. @return UM_OK; UM_EIO for data that could not
 * be written. */
UM_API um_status um_sink_close(um_sink **sink);
UM_API const char *um_sink_name(const um_sink *sink); /**< the spec it was opened with */

/** Read a PNG or JPEG by content. Gray stays gray; everything else becomes RGB; alpha is dropped;
 * 16 bits become 8. */
UM_API um_status um_image_read(const char *path, um_frame **out);
/** Write 8-bit PNG, channels 1 or 3, rows contiguous. */
UM_API um_status um_image_write_png(const char *path, const uint8_t *pixels, int width, int height,
                                    int channels);
/** Picture with mask tint, mask outline, box and a caption: RGB [height*width*3] owned by the
 * caller (free()). */
UM_API um_status um_overlay(const um_packet *packet, const um_frame *frame, uint8_t **rgb);

/**
 * Generate phantom frames with truth: frames/00000.png, masks/00000_mask.png, truth.json (COCO).
 * The same seed gives the same bytes.
 * @param progress called after each frame, or NULL.
 */
UM_API um_status um_phantom_write(const char *dir, uint64_t seed, long frames, int width,
                                  int height, void (*progress)(void *ctx, long done), void *ctx);

/** COCO compressed RLE of a row-major mask (nonzero = set). *counts owned by the caller (free()).
 */
UM_API um_status um_rle_encode(const uint8_t *mask, int width, int height, char **counts);

#ifdef __cplusplus
}
#endif
#endif
