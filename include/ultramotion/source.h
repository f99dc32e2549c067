/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_SOURCE_H
#define ULTRAMOTION_SOURCE_H

#include "ultramotion/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Where frames come from: a file (PNG, JPEG, BMP, TIFF with all its pages, an MHA or NRRD
 * sequence, a video), a folder, a glob, "@LIST.txt" (files, one per line),
 * "phantom:seed=1,frames=100,…", "-" (raw frames on stdin), "push:" (frames that the program has),
 * "v4l2:/dev/video0" (a camera), "lavfi:GRAPH" (images of libavfilter), "igtl://HOST:PORT" and
 * "igtl-listen::PORT" (OpenIGTLink), "replay:FOLDER" and "replay-live:FOLDER" (a recording, as fast
 * as it can or at its original times), or what um_source_register() added. Reference counted.
 * Threads: one at a time, unless a function says otherwise. */
typedef struct um_source um_source;

/** How 16-bit samples of PNG and TIFF become 8 bits. */
typedef enum um_window {
    UM_WINDOW_NONE,  /**< all 16 bits become 8, or those that the file calls significant (sBIT) */
    UM_WINDOW_RANGE, /**< window_lo and less become 0, window_hi and more 255 */
    UM_WINDOW_AUTO   /**< the same, from each image's minimum to its maximum */
} um_window;

typedef struct um_source_settings {
    size_t struct_size;
    int width, height,
        channels;  /**< raw frames on stdin: --size and --pixel (channels 1 = gray8, 3 = rgb8) */
    long frames;   /**< stop after this many frame ids; 0 = all */
    int loop;      /**< files: start again at the end */
    int capacity;  /**< "push:": frames that may wait, 1 to 1024; default 4 */
    int replace;   /**< "push:": 1 = a frame that finds no room replaces the oldest one that waits,
                      and is counted; 0 (default) = um_source_push() waits for room */
    int recursive; /**< folders: also their subfolders */
    um_window window;
    int window_lo, window_hi; /**< 0 <= lo < hi <= 65535 */
    /** Called once with each thing a user should know about what was read or skipped: images
     * rotated by their EXIF orientation, 16-bit samples that look dark, files of a folder that were
     * skipped; and with events of a live source (connected, lost, refused). Called by whoever reads
     * or closes the source, or on a thread of the source's own; must not call the source. The text
     * is valid during the call. Or NULL. */
    void (*on_notice)(void *ctx, const char *text);
    void *ctx;
} um_source_settings;
/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_source_settings_init(um_source_settings *s, size_t struct_size);
#define um_source_settings_default(s) um_source_settings_init((s), sizeof *(s))

/** What acts on a kind of source, and means nothing to the others. */
typedef enum um_source_use {
    UM_SOURCE_SIZE = 1,      /**< width, height and channels */
    UM_SOURCE_RECURSIVE = 2, /**< recursive */
    UM_SOURCE_WINDOW = 4,    /**< window, window_lo and window_hi */
    UM_SOURCE_LIVE = 8       /**< frames arrive in real time, see um_source_live() */
} um_source_use;

typedef enum um_structure_kind {
    UM_STRUCTURE_BONE,
    UM_STRUCTURE_FASCIA,
    UM_STRUCTURE_VESSEL,
    UM_STRUCTURE_CYST,
    UM_STRUCTURE_NERVE,
    UM_STRUCTURE_TENDON,
    UM_STRUCTURE_NEEDLE
} um_structure_kind;

/** One structure of an image. A value: never grows. */
typedef struct um_structure {
    um_structure_kind kind;
    float box[4]; /**< x0,y0,x1,y1 of its pixels in um_truth.map */
} um_structure;

/** Ground truth of a phantom frame. A source fills in what it knows; grows at its end. */
typedef struct um_truth {
    size_t struct_size;
    const uint8_t *mask; /**< bytes 0/1 [H*W] or NULL (no bone); owned by the source, valid until
                            the next read */
    int has_bone;
    float box[4];       /**< x0,y0,x1,y1 */
    float visibility;   /**< 0..1: part of the ridge that is inside the image and in contact */
    const uint8_t *map; /**< bytes [H*W]: 0, or the index of a structure + 1; or NULL. Owned by the
                           source, as mask */
    const um_structure *structure; /**< n_structures of them: bones first; mask, box and visibility
                                      above are the first one's */
    int n_structures;
} um_truth;

/**
 * Open a source.
 * @param settings NULL = defaults.
 * @return UM_OK; UM_EINVAL for an invalid spec (unknown scheme, bad phantom key); UM_EIO
 * for a missing file, an empty folder or a glob without match.
 */
UM_API um_status um_source_open(um_source **out, const char *spec,
                                const um_source_settings *settings);
/** What acts on the source that `spec` names: bits of um_source_use. Nothing is opened: what no
 * scheme is known for is a file; NULL and "" are nothing. Threads: any. */
UM_API int um_source_uses(const char *spec);
/** Add a reference and return the source. Threads: any. */
UM_API um_source *um_source_ref(um_source *source);
/** Drop a reference and set *source to NULL; the last one closes it. Accepts NULL. Threads: any. */
UM_API void um_source_close(um_source **source);
/**
 * The next frame, with a reference for the caller: its id is set, its time if it had none, and
 * frame->source: the file relative to the folder or the glob's fixed part that was given (a single
 * file: its name), or the stream's name.
 * @return UM_OK; UM_EOF; UM_EFORMAT or UM_EIO for one unreadable frame, named in um_last_error():
 * its id is used up, call again for the next; a source that cannot continue returns UM_EOF after
 * the error.
 */
UM_API um_status um_source_read(um_source *source, um_frame **frame);
/** End a source for good: a waiting read, and all later ones, return UM_EOF. Threads: any, and
 * signal handlers, as long as the caller knows that it is open. */
UM_API void um_source_cancel(um_source *source);
/** The order of a folder's files: digits compare as numbers (frame_2 before frame_10), all else
 * byte by byte. Less than, equal to or more than 0, as strcmp(). Threads: any. */
UM_API int um_natural_order(const char *a, const char *b);
/** The spec it was opened with. Valid until close. Threads: any. */
UM_API const char *um_source_name(const um_source *source);
/** Frames the source will give, or -1 if unknown or endless. */
UM_API long um_source_length(const um_source *source);
/** Name for outputs of the last frame read: unique within the source, a path relative to the
 * output's folder. The file's path as in frame->source without its extension (with it, if two would
 * collide), else the id as 5 digits. Valid until the next read. */
UM_API const char *um_source_frame_name(const um_source *source);
/** Does the source read the file at `path`, which then must not be written? 1 or 0; also through
 * links. For "replay:" all files of the folder, for "-" the file that is standard input. */
UM_API int um_source_reads(const um_source *source, const char *path);
/** Ground truth of the last frame read; its struct_size is set by the caller. @return UM_OK;
 * UM_AGAIN if the source has none; UM_EINVAL.
 */
UM_API um_status um_source_truth(const um_source *source, um_truth *out);

/**
 * Hand a frame to a source opened as "push:". On UM_OK the source takes the caller's reference and
 * sets *frame to NULL, else the caller keeps it. It gets its id when it is read, so no other thread
 * may be reading it; without a time it gets that of the call.
 * @return UM_OK; UM_EOF after um_source_finish() or um_source_cancel(), and when as many as
 * settings.frames were read; UM_EINVAL for another source, or a ts that is no number. Threads: any,
 * also while another thread reads.
 */
UM_API um_status um_source_push(um_source *source, um_frame **frame);
/** No more frames will be pushed: the reader gets those that wait, then UM_EOF. Threads: any. */
UM_API um_status um_source_finish(um_source *source);
/** Frames that a newer one replaced before they were read. Threads: any. */
UM_API uint64_t um_source_replaced(const um_source *source);
/** Frames that were pushed and not yet read; once the source has ended nobody will read them. 0 of
 * other sources. Threads: any. */
UM_API int um_source_waiting(const um_source *source);

/** Does it deliver frames in real time, so that a reader that falls behind wants the newest?
 * Threads: any.
 */
UM_API int um_source_live(const um_source *source);
/** All counts of a live source: images, replaced and refused ones, connections.
 * `each` is called on the calling thread. Threads: any. */
UM_API void um_source_counts(const um_source *source,
                             void (*each)(void *ctx, const char *name, uint64_t n), void *ctx);

/**
 * A kind of source. To add one, fill this in and register it; the built-in ones are made the same
 * way. Every function is called by one thread at a time. A source that counts down:
 *
 *     struct down { int wake_fd; };
 *
 *     static um_status down_open(void *priv, const char *arg, const um_source_settings *settings,
 *                                int wake_fd)
 *     {
 *         ((struct down *)priv)->wake_fd = wake_fd;
 *         return *arg ? um_set_error(UM_EINVAL, "down: takes no argument") : UM_OK;
 *     }
 *     static um_status down_read(void *priv, uint64_t index, um_frame **frame)
 *     {
 *         struct pollfd woken = {.fd = ((struct down *)priv)->wake_fd, .events = POLLIN};
 *         if (index == 10 || poll(&woken, 1, 100) > 0)
 *             return UM_EOF;                               // the end, or cancelled while it waited
 *         um_status st = um_frame_create(frame, 64, 64, 1);
 *         if (st == UM_OK)
 *             memset((*frame)->pixels, 10 - (int)index, 64 * 64);
 *         return st;
 *     }
 *     static const um_source_ops down = {.struct_size = sizeof down, .scheme = "down",
 *                                        .usage = "down:", .priv_size = sizeof(struct down),
 *                                        .open = down_open, .read = down_read};
 *     um_source_register(&down); // then: um_source_open(&s, "down:", NULL)
 */
typedef struct um_source_ops {
    size_t struct_size;
    const char *scheme; /**< the part before the colon: letters, digits and '-', at least two */
    const char *usage;  /**< for messages, e.g. "down:" */
    size_t priv_size;   /**< bytes of a source's own state, zeroed before open; may be 0 */
    /** `arg` is what follows the colon and outlives the source; `settings` are complete, whatever
     * the caller gave. `wake_fd` becomes readable for good when the source is cancelled: code that
     * waits for something polls it too, and returns UM_EOF. close() is called after a failed open
     * too. */
    um_status (*open)(void *priv, const char *arg, const um_source_settings *settings, int wake_fd);
    /** Frame number `index`: asked for in order, from 0 again after UM_EOF when the source is
     * looped. Sets ts if the frame has a timestamp (and has_ts, if that may be 0), and
     * um_frame_set_source() if it has a better name than the source's spec. An error says what
     * happened with um_set_error(). */
    um_status (*read)(void *priv, uint64_t index, um_frame **frame);
    void (*close)(void *priv);             /**< or NULL */
    long (*length)(const void *priv);      /**< -1 = unknown, LONG_MAX = endless; NULL: unknown */
    const char *(*name)(const void *priv); /**< um_source_frame_name(); NULL: the id */
    const um_truth *(*truth)(const void *priv); /**< of the last frame; or NULL: has none */
    int stream; /**< 1: nothing after an unreadable frame can be found, the source ends there */
    int live;   /**< 1: frames arrive in real time; a run replaces waiting ones by the newest
                 */
    /** um_source_counts(); or NULL: counts nothing. Threads: any. */
    void (*counts)(const void *priv, void (*each)(void *ctx, const char *name, uint64_t n),
                   void *ctx);
    uint64_t (*replaced)(const void *priv); /**< um_source_replaced(); or NULL. Threads: any */
    int uses; /**< bits of um_source_use for the settings that open() reads; `live` adds its own */
} um_source_ops;

/**
 * Make a kind of source known, before it is opened. The table is copied, its texts are not.
 * @return UM_OK; UM_EINVAL for a table without scheme, usage, open or read, or a scheme that is
 * taken or invalid; UM_ENOMEM after 32. Threads: any.
 */
UM_API um_status um_source_register(const um_source_ops *ops);

#ifdef __cplusplus
}
#endif
#endif
