/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_MONITOR_H
#define ULTRAMOTION_MONITOR_H

#include "ultramotion/device.h"
#include "ultramotion/packet.h"
#include "ultramotion/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What a run counts, in one place: given to a run (um_run_settings) and to the sinks and functions
 * that report on it, so that a viewer, Prometheus, log lines and the final report show the same
 * numbers. One run at a time; it stays readable after the run. Reference counted. Threads:
 * any.
 */
typedef struct um_monitor um_monitor;

/** Where a frame's time goes. */
enum {
    UM_TIME_WAIT,    /**< from its receipt until the pipeline takes it */
    UM_TIME_UPLOAD,  /**< of the packet's stages */
    UM_TIME_DETECT,  /**< of the packet's stages */
    UM_TIME_SEGMENT, /**< of the packet's stages; frames without one do not count */
    UM_TIME_PACKET,  /**< of the packet's stages */
    UM_TIME_TOTAL,   /**< in the pipeline */
    UM_TIME_LATENCY, /**< from its receipt until sinks are given the packet */
    UM_TIMES
};

/** Times in ms. least, most, sum and count are exact, quantiles within 1 %. A value: never grows.
 */
typedef struct um_times {
    uint64_t count;
    double least, most, sum, p50, p95, p99;
} um_times;

/** All packets so far. */
typedef struct um_monitor_view {
    size_t struct_size;
    uint64_t packets;
    uint64_t copies, setup_copies; /**< between host and device: for frames, and in stage `setup` */
    uint64_t up_bytes, down_bytes, waits;
    um_transfers last, least, most; /**< of a frame: the last one's, and each count's extremes */
    um_times time[UM_TIMES];
    uint64_t with_deadline, missed; /**< packets of a pipeline with a budget, and the late ones */
    uint64_t effort[UM_EFFORTS];    /**< packets by the effort that the budget allowed */
} um_monitor_view;

/** Open one. @return UM_OK; UM_ENOMEM. */
UM_API um_status um_monitor_open(um_monitor **out);
/** Add a reference and return the monitor. */
UM_API um_monitor *um_monitor_ref(um_monitor *monitor);
/** Drop a reference and set *monitor to NULL. Accepts NULL. */
UM_API void um_monitor_close(um_monitor **monitor);

/**
 * Include the steps of networks on `device` in the trace ("trace:FILE"), by thread, until
 * um_device_watch(device, NULL, NULL) or the monitor's end, which calls that too. The monitor takes
 * a reference, and watches one device.
 *
 * @return UM_OK; UM_EINVAL; UM_EUNSUPPORTED on a GPU.
 */
UM_API um_status um_monitor_watch(um_monitor *monitor, um_device *device);

/** The numbers of all packets so far; its struct_size is set by the caller. */
UM_API um_status um_monitor_read(um_monitor *monitor, um_monitor_view *out);
/** Everything as one JSON object (docs/VIEWER.md), freed by the caller with um_free(). @return
 * UM_OK; UM_ENOMEM. */
UM_API um_status um_monitor_json(um_monitor *monitor, char **text);
/** The same for Prometheus, in its text format 0.0.4. */
UM_API um_status um_monitor_prometheus(um_monitor *monitor, char **text);
/** The last minutes, second by second, as one JSON object. */
UM_API um_status um_monitor_history(um_monitor *monitor, char **text);
/** KPI lines about the state of a run (docs/VIEWER.md), each given to `each` without newline. */
UM_API um_status um_monitor_kpi(um_monitor *monitor, void (*each)(void *ctx, const char *line),
                                void *ctx);
/** One line for people: frames, rates, times, losses. At most size - 1 characters. */
UM_API void um_monitor_line(um_monitor *monitor, char *text, size_t size);

/** Is it alive: has no sink been at a packet for more than limit_s seconds, and the pipeline at a
 * frame for no more than that plus twice the longest so far? `why` names the one that has, in at
 * most size - 1 characters; "" if none. @return 1, or 0. */
UM_API int um_monitor_alive(um_monitor *monitor, double limit_s, char *why, size_t size);
/** Report each part that has stalled now: those of um_monitor_alive(), and a live source that has
 * delivered frames, when it has been silent for more than limit_s seconds plus twice the time
 * between its last two. A part keeps its number as long as the run is active: 0 the pipeline, 1 the
 * source, 2 and more the sinks, of which there are at most 40. `why` is valid during the call. */
UM_API void um_monitor_stalls(um_monitor *monitor, double limit_s,
                              void (*each)(void *ctx, int part, const char *why), void *ctx);
/** Is it ready: a run is active and alive (10 s), its last packet is at most 5 s old, and there is
 * no alarm of um_run_settings.lag_alarm_ms? */
UM_API int um_monitor_ready(um_monitor *monitor, char *why, size_t size);

/**
 * Change the active run, from the next frame on. If one of n values is invalid, none is changed.
 * @param key each once: "conf" (0 to 1), "label" (a class, -1 = the best of all), "objects" (1 to
 * what the pipeline was opened for).
 * @return UM_OK; UM_EINVAL naming what is invalid; UM_AGAIN without an active run.
 */
UM_API um_status um_monitor_change(um_monitor *monitor, int n, const char *const *key,
                                   const double *value);

#ifdef __cplusplus
}
#endif
#endif
