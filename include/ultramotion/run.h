/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_RUN_H
#define ULTRAMOTION_RUN_H

#include "ultramotion/monitor.h"
#include "ultramotion/pipeline.h"
#include "ultramotion/sink.h"
#include "ultramotion/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A run: frames from a source through a pipeline to sinks and to um_run_receive(). One thread reads
 * the source, one drives the pipeline, one writes each sink. Its memory does not depend on how many
 * frames there are.
 *
 * It always ends (with stall_ms also when the pipeline never comes back): within 2 s after
 * um_run_stop(), an error or the last sink's end (the frames in flight are finished first),
 * whatever its source and sinks wait for. A source or sink that does not answer is abandoned, named
 * and left behind.
 */
typedef struct um_run um_run;

typedef struct um_run_settings {
    size_t struct_size;
    um_pipeline *pipeline; /**< the run takes a reference */
    um_source *source;     /**< the run takes a reference, and cancels it at its end */
    um_sink **sinks;       /**< n_sinks of them; the run takes references. How one was closed the
                              run tells if its reference is the last, else um_sink_close() */
    int n_sinks;
    int strict;   /**< stop at the first unreadable frame */
    int realtime; /**< a frame that still waits is replaced by the newest, and counted; always so
                     for a live source */
    int receive;  /**< packets that may wait for um_run_receive(), at most 1024; 0 (default) = it is
                     not used */
    um_sink_policy receive_policy; /**< what happens when that many wait */
    /** Called on the run's thread for every packet, before the sinks have it. truth: of a phantom
     * frame, else NULL. */
    void (*on_packet)(void *ctx, const um_packet *packet, const um_frame *frame,
                      const um_truth *truth);
    /** Called on the run's thread for every frame without a packet that is not merely too late
     * (with `strict` the run ends with it instead), every failed sink and every alarm with what
     * happened.
     */
    void (*on_problem)(void *ctx, const char *text);
    /**
     * Called on the run's thread at the first loss of the device; um_last_error() says why it was
     * lost. With UM_OK and another pipeline in *pipeline (on another device; the run takes a
     * reference) the frame in flight is sent again there and the run goes on with it: no frame is
     * lost and their order stays. With anything else, and at a second loss, the run ends with
     * UM_EDEVICE and that reason, as it does without this function (NULL).
     */
    um_status (*on_device_lost)(void *ctx, um_pipeline **pipeline);
    void *ctx;
    um_monitor *monitor; /**< is told everything and may be queried; the run takes a reference.
                            NULL: none */
    int max_age_ms;      /**< with realtime: a frame received longer ago is skipped and counted; 0
                            (default) = no limit */
    int lag_alarm_ms; /**< of a live source: on_problem and the monitor are told when for a second
                         images arrived this much later than the quickest ones, and when for a
                         second they were again less than half of it late; 0 (default) = never */
    int stall_ms; /**< end with UM_EDEVICE when the pipeline or on_packet has been at a frame for
                     this long; see um_run_counts.stalled. 0 (default) = never */
} um_run_settings;
/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_run_settings_init(um_run_settings *s, size_t struct_size);
#define um_run_settings_default(s) um_run_settings_init((s), sizeof *(s))

/** What a run has done so far. */
typedef struct um_run_counts {
    size_t struct_size;
    uint64_t frames, visible, lost; /**< packets, and how many of each state */
    uint64_t unreadable;            /**< frames that could not be read or used */
    uint64_t not_finite;            /**< frames whose result was NaN or infinite: no packet */
    uint64_t replaced; /**< frames that a newer one replaced: realtime, or in the source */
    uint64_t dropped;  /**< packets that a sink or um_run_receive() missed because it was behind */
    int device_lost;   /**< losses of a device, also the one that ended the run */
    int sinks_failed;  /**< abandoned ones and those that failed as the run closed them included */
    int stopped;       /**< by um_run_stop(), or a pipe's reader left and nobody else was there */
    int left_behind;   /**< threads of source or sinks that did not return: the process should
                          end with _exit(), as exit() might wait for what they hold */
    uint64_t relocalizing; /**< packets of that state */
    uint64_t too_old;      /**< frames that were older than max_age_ms */
    int stalled;           /**< 1: the pipeline did not return within stall_ms. Its thread is left
                              behind in it, and keeps it and its models open: only _exit() helps */
    uint64_t left;         /**< frames that still waited when the run ended: no packet */
} um_run_counts;

/** Open a run; nothing starts yet. @return UM_OK; UM_EINVAL; UM_ENOMEM; UM_EIO without descriptors.
 */
UM_API um_status um_run_open(um_run **out, const um_run_settings *settings);
/** Start it, once. @return UM_OK; UM_EINVAL the second time; UM_ENOMEM without a thread. */
UM_API um_status um_run_start(um_run *run);
/** Ask it to end; returns at once. Before um_run_start(): it ends before its first frame. Threads:
 * any, and signal handlers, as long as the caller knows that the run is not closed. */
UM_API void um_run_stop(um_run *run);
/**
 * Wait until it has ended.
 *
 * @return UM_OK (also when stopped); UM_EASSERT for a transfer assertion; UM_EIO when a sink failed
 * (the others went on) or all did; UM_EFORMAT or UM_EIO for an unreadable frame, UM_ENUMERIC for a
 * result that is not finite, with `strict`; UM_EDEVICE for a lost device that nothing replaced, or
 * a stall (stall_ms); UM_EINVAL if it was not started; UM_AGAIN, at once, on the run's own
 * threads (on_packet, on_problem, um_pipeline_settings.kpi). Threads: any but those of its source
 * and sinks.
 */
UM_API um_status um_run_join(um_run *run);
/** Its counts so far; its struct_size is set by the caller. Threads: any. */
UM_API um_status um_run_stats(const um_run *run, um_run_counts *out);
/**
 * The next packet, which the caller owns (um_packet_unref()).
 * @param frame receives its frame, which the caller owns too (um_frame_unref()); or NULL.
 * @param timeout_ms how long to wait for one; 0 = not at all, -1 = until the end.
 * @return UM_OK; UM_AGAIN after the time; UM_EOF when the run has ended and no packet waits;
 * UM_EINVAL without settings.receive or before the start. Threads: any.
 */
UM_API um_status um_run_receive(um_run *run, int timeout_ms, const um_packet **packet,
                                um_frame **frame);
/** A descriptor for poll(): readable while packets wait for um_run_receive(), and at the end. -1
 * without settings.receive. Valid until um_run_close(). Threads: any. */
UM_API int um_run_fd(const um_run *run);
/** Stop it, wait for its end, close and set to NULL. Accepts NULL. Not on the run's own thread. */
UM_API void um_run_close(um_run **run);

/** Open, start, join and close a run. *counts (or NULL) is filled in every case; its struct_size is
 * set by the caller. @return as um_run_open(), um_run_start(), um_run_join(). */
UM_API um_status um_run_frames(const um_run_settings *settings, um_run_counts *counts);

#ifdef __cplusplus
}
#endif
#endif
