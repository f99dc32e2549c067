/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_RUN_H
#define ULTRAMOTION_RUN_H

#include "ultramotion/io.h"
#include "ultramotion/pipeline.h"

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A run: one thread reads the source, the caller's thread drives the device, one thread writes
 * each sink. */
typedef struct um_run_settings {
    size_t struct_size;
    um_pipeline *pipeline; /**< borrowed */
    um_source *source;     /**< borrowed */
    um_sink **sinks;       /**< borrowed */
    int n_sinks;
    int strict;   /**< stop at the first unreadable frame */
    int realtime; /**< a frame that still waits is replaced by the newest, and counted */
    const volatile sig_atomic_t
        *stop; /**< nonzero: finish the frame in flight and return; or NULL */
    /** Called on the caller's thread for every packet, before the sinks have it. truth: of a
     * phantom frame, else NULL. */
    void (*on_packet)(void *ctx, const um_packet *packet, const um_frame *frame,
                      const um_truth *truth);
    /** Called for every unreadable frame and failed sink with what happened. */
    void (*on_problem)(void *ctx, const char *text);
    /**
     * Called on the caller's thread at the first loss of the device; um_last_error() says why it
     * was lost. With UM_OK and another pipeline in *pipeline (borrowed, on another device) the
     * frame in flight is sent again there and the run goes on with it: no frame is lost and their
     * order stays. With anything else, and at a second loss, the run ends with UM_EDEVICE and that
     * reason, as it does without this function (NULL). The lost pipeline stays the caller's to
     * close.
     */
    um_status (*on_device_lost)(void *ctx, um_pipeline **pipeline);
    void *ctx;
} um_run_settings;

typedef struct um_run_stats {
    uint64_t frames, visible, lost; /**< packets by state */
    uint64_t unreadable;            /**< frames that gave no packet */
    uint64_t replaced;              /**< realtime: frames that a newer one replaced */
    int device_lost;                /**< losses of a device, also the one that ended the run */
    int sinks_failed;
    int stopped; /**< by `stop` or a pipe's reader that left */
} um_run_stats;

/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults. Threads: any. */
UM_API void um_run_settings_init(um_run_settings *s, size_t struct_size);
#define um_run_settings_default(s) um_run_settings_init((s), sizeof *(s))

/**
 * Drive frames from the source through the pipeline to the sinks until the source ends.
 *
 * @return UM_OK (also when stopped); UM_EASSERT for a transfer assertion; UM_EIO when a sink failed
 * (the others went on) or all did; UM_EFORMAT or UM_EIO for an unreadable frame with `strict`;
 * UM_EDEVICE for a lost device that nothing replaced. *stats is filled in every case.
 */
UM_API um_status um_run_frames(const um_run_settings *settings, um_run_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
