/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_DEVICE_H
#define ULTRAMOTION_DEVICE_H

#include "ultramotion/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A place where networks run. Reference counted: what is opened on it has a reference, so they may
 * be closed in any order. Threads: a device may be used by any number of threads through what
 * is opened on it. */
typedef struct um_device um_device;

/** How to open a device. Initialise with um_device_settings_default(). */
typedef struct um_device_settings {
    size_t struct_size;
    const char *name; /**< "auto", "cpu", "guard" or "cuda:N" */
    int threads; /**< worker threads including the caller, of which at most 256 are used; 0 = as
                    many as this process may use. On `cpu` a frame that arrives while another uses
                    them runs on its caller's thread alone */
    uint64_t guard_seed;   /**< order in which `guard` runs what may run in any order */
    const char *precision; /**< "auto", "fp32", "fp16", "bf16" or "int8": on a GPU of activations,
                              on a CPU of the operands of dense layers. auto = fp16 on a GPU, bf16
                              on a CPU with AMX (for networks proven in it), else fp32. A CPU has
                              fp32; with AMX, or AMD's AVX-512 BF16, bf16; with AVX-VNNI, AVX-512
                              VNNI or arm64's dot products, and a file of um_model_calibrate(),
                              int8 */
    void (*log)(void *ctx, const char *text); /**< called, while opening, with the reason why "auto"
                                                 skips a GPU ("cuda:0 is passed over: …") or has
                                                 none ("no GPU: …"); or NULL */
    void *log_ctx;
    const char *weight_cache; /**< where packed weights of the networks opened on it are cached, so
                                 that they are not packed at each start: a folder, "auto"
                                 ($XDG_CACHE_HOME/ultramotion or ~/.cache/ultramotion), or "off" and
                                 NULL (default): nowhere. What is found there is checked against the
                                 model's hash and this build, and ignored if it is damaged, another
                                 user's or writable by others. No call fails because of it:
                                 um_device_weight_cache() reports it */
} um_device_settings;

/** Fill `s`, of which the caller knows `struct_size` bytes, with defaults: name "auto", all
 * threads, guard seed 1, precision "auto". Threads: any. */
UM_API void um_device_settings_init(um_device_settings *s, size_t struct_size);
#define um_device_settings_default(s) um_device_settings_init((s), sizeof *(s))

/**
 * Open a device.
 *
 * @param out  receives the device, or NULL on error. The caller owns it and closes it with
 * um_device_close().
 * @return UM_OK; UM_EINVAL for an unknown name; UM_EDEVICE or UM_EUNSUPPORTED if that device is not
 * available here.
 */
UM_API um_status um_device_open(um_device **out, const um_device_settings *settings);

/** GPUs that um_device_open() could take as cuda:0, cuda:1, …; 0 without a driver or without
 * kernels in this build. */
UM_API int um_device_gpus(void);

/**
 * One line about a device, without opening it: for a GPU its model, architecture, memory and
 * driver.
 *
 * @param name  "cpu", "guard" or "cuda:N".
 * @param text  receives at most size - 1 characters; "" on error.
 * @return UM_OK; UM_EINVAL for an unknown name; UM_EUNSUPPORTED or UM_EDEVICE if it is not
 * available here (um_last_error() says what is missing).
 */
UM_API um_status um_device_describe(const char *name, char *text, size_t size);

/** Add a reference and return the device. Threads: any. */
UM_API um_device *um_device_ref(um_device *device);
/** Drop a reference and set *device to NULL; the last one waits for work in flight and closes it.
 * Accepts NULL. Threads: any. */
UM_API void um_device_close(um_device **device);

/** Name of the device that runs, e.g. "cpu", "guard". Valid until close. */
UM_API const char *um_device_name(const um_device *device);

/** The precision: "fp32", "fp16", "bf16" or "int8". A static string. */
UM_API const char *um_device_precision(const um_device *device);

/** Why it is that: "asked for", or what "auto" found, e.g. "no AMX". A static string. */
UM_API const char *um_device_precision_reason(const um_device *device);

/** Worker threads the device computes with. */
UM_API int um_device_threads(const um_device *device);

/** The CUstream in whose order everything of the library happens on a GPU; NULL on other devices.
 * Valid until close. */
UM_API void *um_device_stream(const um_device *device);

/**
 * Where packed weights are cached, and what became of those of the network opened last:
 * "FOLDER", "FOLDER: read", "FOLDER: written", "FOLDER: not written: why", or "off". Those of a
 * small network are not cached.
 *
 * @param text  receives at most size - 1 characters.
 */
UM_API void um_device_weight_cache(const um_device *device, char *text, size_t size);

/** Which kernels it computes with, e.g. "avx512", "avx2", "neon", "c", "sm_90"; "none" if
 * ULTRAMOTION_CPU or ULTRAMOTION_CUDA asks for some that it does not have. Valid until close. */
UM_API const char *um_device_isa(const um_device *device);

/** Copies and waits between host and device. On a device that shares the host's memory all counts
 * are 0 and `shared` is 1. */
typedef struct um_transfers {
    uint32_t up, down; /**< copies host to device, device to host */
    uint32_t waits;    /**< times the host waited for the device */
    uint32_t
        setup; /**< copies of stage `setup`: at open and for a geometry seen for the first time */
    uint64_t up_bytes, down_bytes;
    int shared;
} um_transfers;

/** Totals since open, of all threads. Threads: any. */
UM_API void um_device_transfers(const um_device *device, um_transfers *out);

/**
 * Called with one thread's part of a step, on that thread, when it ends; it must be quick.
 *
 * @param place  where in the network, dotted as the file names its tensors; valid during the call.
 * @param op     the operator; a static string.
 * @param thread 0.. those of the device, then callers that compute alone.
 * @param begin_ns, end_ns  of CLOCK_MONOTONIC.
 */
typedef void um_device_watch_fn(void *ctx, const char *place, const char *op, int thread,
                                uint64_t begin_ns, uint64_t end_ns);
/**
 * Call `watch` for every step from now on; NULL (as at first): nothing, at no cost. Waits until
 * nothing is computing: not to be called from `watch`. Threads: one caller at a time.
 *
 * @return UM_OK; UM_EINVAL; UM_EUNSUPPORTED on a GPU, whose steps are not the host's to time.
 */
UM_API um_status um_device_watch(um_device *device, um_device_watch_fn *watch, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
