/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_BENCH_H
#define ULTRAMOTION_BENCH_H

#include "ultramotion/detector.h"
#include "ultramotion/segmenter.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The networks, measured alone: input and output stay on the device. UM_BENCH_GEMM: what they are
 * measured against, three matrix products of usual shapes in the device's precision. */
typedef enum um_bench_stage {
    UM_BENCH_DETECT,
    UM_BENCH_ENCODE,
    UM_BENCH_DECODE,
    UM_BENCH_GEMM
} um_bench_stage;

/** A network, to which it has a reference, with noise in its input. Threads: one call at a time on
 * one bench. */
typedef struct um_bench um_bench;

/**
 * Open a network to be measured.
 *
 * @param detector  needed for UM_BENCH_DETECT, and for UM_BENCH_GEMM, which has the device; gray
 * selects its one-channel stem.
 * @param segmenter needed for UM_BENCH_ENCODE and UM_BENCH_DECODE (box prompt, single mask).
 * @return UM_OK; UM_EINVAL; UM_ENOMEM; UM_EDEVICE. On error *out is NULL.
 */
UM_API um_status um_bench_open(um_bench **out, um_bench_stage stage, um_detector *detector,
                               um_segmenter *segmenter, int gray);
/** Close and set to NULL. Accepts NULL. */
UM_API void um_bench_close(um_bench **bench);
/** Run it once, as the graph that a pipeline would make of it, and wait for it. @param ms receives
 * the device's time in milliseconds. */
UM_API um_status um_bench_run(um_bench *bench, double *ms);

/** One kernel call of a network: its position, operator, output shape, arithmetic, best time, what
 * it reads and writes at least, and where in the network it lies, dotted as the file names its
 * tensors (valid during the call). */
typedef struct um_bench_kernel {
    int index;
    const char *op;
    int h, w, c, k; /**< output rows (h*w) and channels, and what is summed per element (0 if not
                       applicable) */
    double gflop;   /**< 0 if not applicable */
    double min_ms, median_ms;
    double bytes;
    const char *place;
} um_bench_kernel;
typedef void um_bench_kernel_fn(void *ctx, const um_bench_kernel *kernel);
/** Time every kernel call `rounds` times in place and report each. */
UM_API um_status um_bench_kernels(um_bench *bench, int rounds, um_bench_kernel_fn *report,
                                  void *ctx);

#ifdef __cplusplus
}
#endif
#endif
