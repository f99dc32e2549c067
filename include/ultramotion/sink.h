/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_SINK_H
#define ULTRAMOTION_SINK_H

#include "ultramotion/frame.h"
#include "ultramotion/monitor.h"
#include "ultramotion/packet.h"
#include "ultramotion/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Where packets go: "dir:PATH", "jsonl:PATH", "jsonl:-" (stdout), "video:OUT.mp4" (overlays, at
 * the frames' times), "null:", "igtl::PORT" and "igtl-connect:HOST:PORT" (OpenIGTLink),
 * "web::PORT" (a viewer), "trace:FILE", "record:FOLDER" (frames and packets, for "replay:"),
 * "masks:OUT.seg.nrrd" (also .seq.nrrd, .mha), or what um_sink_register() added. Of packets of a
 * pipeline without segmenter "dir:" writes no masks, and "masks:" takes none. Reference counted.
 * Threads: one at a time, unless a function says otherwise. */
typedef struct um_sink um_sink;

/** What a run does with a packet for a sink whose queue is full. */
typedef enum um_sink_policy {
    UM_SINK_BLOCK, /**< wait (default) */
    UM_SINK_DROP   /**< drop the oldest that waits, and count it */
} um_sink_policy;

typedef struct um_sink_settings {
    size_t struct_size;
    int objects; /**< structures asked for in each packet; default 1. More: "dir:" writes label maps
                    (0, or the object's index + 1) instead of 0 and 255 */
    um_sink_policy policy;
    int capacity;    /**< packets that may wait in a run, 1 to 1024; default 4 */
    int deadline_ms; /**< a run abandons a sink that takes longer for one packet; 0 = never; default
                        10000 */
    int auxiliary;   /**< 1: does not keep a run going when all others have ended; default 0 */
    /** Events of a sink with clients (listening, connected, gone), on a thread of its own, which
     * must not call back; clients wait until it returns. Or NULL. */
    void (*log)(void *ctx, const char *text);
    void *log_ctx;
    um_monitor *monitor; /**< where sinks that show numbers read them; such a sink takes a
                            reference. NULL: none */
    um_source *source;   /**< what is read while the sink is written, of which it takes a reference:
                            a file that um_source_reads() is never written over. NULL: none */
} um_sink_settings;
/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_sink_settings_init(um_sink_settings *s, size_t struct_size);
#define um_sink_settings_default(s) um_sink_settings_init((s), sizeof *(s))

/**
 * Open a sink. A file or folder that another one writes to is refused.
 * @param settings NULL = defaults.
 * @return UM_OK; UM_EINVAL for an unknown scheme, invalid settings or a file that the settings'
 * source reads; UM_EIO naming the path.
 */
UM_API um_status um_sink_open(um_sink **out, const char *spec, const um_sink_settings *settings);
/** Add a reference and return the sink. Threads: any. */
UM_API um_sink *um_sink_ref(um_sink *sink);
/**
 * Write one packet; the frame is for overlays, or NULL if none are made; name is the stem of file
 * names (um_source_frame_name()), NULL: the packet's id as 5 digits.
 * @return UM_OK; UM_EIO naming the sink; UM_EOF if a pipe's reader left; UM_AGAIN if it was
 * cancelled; UM_EINVAL for a name outside the sink's folder, or that of a file its source reads.
 */
UM_API um_status um_sink_write(um_sink *sink, const um_packet *packet, const um_frame *frame,
                               const char *name);
/** Abandon it, for good: a write that waits for a reader returns UM_AGAIN, and so do all later
 * ones. Threads: any, and signal handlers, as long as the caller knows that it is open. */
UM_API void um_sink_cancel(um_sink *sink);
/** Drop a reference and set *sink to NULL; the last one flushes and closes. Accepts NULL.
 * @return UM_OK; UM_EIO for data that could not be written. Threads: any. */
UM_API um_status um_sink_close(um_sink **sink);
/** The spec it was opened with. Valid until close. Threads: any. */
UM_API const char *um_sink_name(const um_sink *sink);
/** Everything that a sink with clients counts: messages, what they missed, its port. `each` is
 * called on the calling thread. Threads: any. */
UM_API void um_sink_counts(const um_sink *sink,
                           void (*each)(void *ctx, const char *name, uint64_t n), void *ctx);
/** The settings it was opened with; its struct_size is set by the caller. Threads: any. */
UM_API um_status um_sink_settings_of(const um_sink *sink, um_sink_settings *out);

/**
 * A kind of sink. To add one, fill this in and register it; the built-in ones are made the same
 * way. Every function is called by one thread at a time. A sink that writes scores:
 *
 *     struct scores { um_lines *lines; int wake_fd; };
 *
 *     static um_status scores_open(void *priv, const char *arg, const um_sink_settings *settings,
 *                                  int wake_fd)
 *     {
 *         struct scores *s = priv;
 *         s->wake_fd = wake_fd;
 *         return um_lines_open(&s->lines, arg);
 *     }
 *     static um_status scores_write(void *priv, const um_packet *packet, const um_frame *frame,
 *                                   const char *name)
 *     {
 *         struct scores *s = priv;
 *         char line[64];
 *         snprintf(line, sizeof line, "%s %.3f", name, packet->score);
 *         return um_lines_write(s->lines, line, s->wake_fd);
 *     }
 *     static um_status scores_close(void *priv)
 *     {
 *         return um_lines_close(&((struct scores *)priv)->lines);
 *     }
 *     static const um_sink_ops scores = {.struct_size = sizeof scores, .scheme = "scores",
 *                                        .usage = "scores:PATH",
 *                                        .priv_size = sizeof(struct scores), .open = scores_open,
 *                                        .write = scores_write, .close = scores_close};
 *     um_sink_register(&scores);           // then: um_sink_open(&s, "scores:out.txt", NULL)
 */
typedef struct um_sink_ops {
    size_t struct_size;
    const char *scheme; /**< the part before the colon: letters, digits and '-', at least two */
    const char *usage;  /**< for messages, e.g. "scores:PATH" */
    size_t priv_size;   /**< bytes of a sink's own state, zeroed before open; may be 0 */
    /** `arg` is what follows the colon and outlives the sink; `settings` are complete, whatever the
     * caller gave. `wake_fd` becomes readable for good when the sink is abandoned: code that waits
     * for something polls it too, and returns UM_AGAIN. close() is called after a failed open too.
     */
    um_status (*open)(void *priv, const char *arg, const um_sink_settings *settings, int wake_fd);
    /** `frame` may be NULL, `name` never is. An error ends the sink; um_set_error() says what
     * happened. */
    um_status (*write)(void *priv, const um_packet *packet, const um_frame *frame,
                       const char *name);
    um_status (*close)(void *priv); /**< or NULL */
    /** um_sink_counts(); or NULL: counts nothing. Threads: any. */
    void (*counts)(const void *priv, void (*each)(void *ctx, const char *name, uint64_t n),
                   void *ctx);
} um_sink_ops;

/**
 * Make a kind of sink known, before it is opened. The table is copied, its texts are not.
 * @return UM_OK; UM_EINVAL for a table without scheme, usage, open or write, or a scheme that is
 * taken or invalid; UM_ENOMEM after 32. Threads: any.
 */
UM_API um_status um_sink_register(const um_sink_ops *ops);

/** Whole lines of text into a file, a FIFO or stdout: what sinks that write text are made of. Lines
 * of several writers to stdout in one process do not mix. */
typedef struct um_lines um_lines;
/**
 * @param path a file, which is held by a lock and emptied by the first line; a FIFO, whose reader
 *             may come later; or "-" for stdout. Where stdout or stderr lead is not emptied.
 * @return UM_OK; UM_EIO naming the path, also if someone else writes to that file; UM_ENOMEM.
 */
UM_API um_status um_lines_open(um_lines **out, const char *path);
/**
 * Write a line and its newline, so that a reader sees it at once.
 * @param wake_fd while the reader takes nothing this waits until it does or wake_fd is readable; -1
 *                = for ever.
 * @return UM_OK; UM_EOF if the reader left; UM_AGAIN if it was woken before the line was whole;
 * UM_EIO naming the path. After anything but UM_OK nothing more is written.
 */
UM_API um_status um_lines_write(um_lines *lines, const char *line, int wake_fd);
/** Close and set to NULL. Accepts NULL. @return UM_OK; UM_EIO if the file's system says only now
 * that it could not be written. */
UM_API um_status um_lines_close(um_lines **lines);

#ifdef __cplusplus
}
#endif
#endif
