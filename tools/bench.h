/* SPDX-License-Identifier: Apache-2.0 */
/* What the measurements of `bench` share: parts of their JSON lines. */
#ifndef UM_BENCH_TOOL_H
#define UM_BENCH_TOOL_H

#include "cli.h"

#include <stddef.h>

/* The networks, as um_bench_stage numbers them. */
enum { BENCH_STAGES = 3 };
extern const char *const bench_stage_names[BENCH_STAGES];

/* Of n values, zeros of none; sorts a copy. */
void bench_percentiles(const double *values, size_t n, double *min, double *p50, double *p99,
                       double *max);
/* "name":{"min":…,"p50":…,"p99":…,"max":…} */
void bench_print_ms(const char *name, const double *ms, size_t n);
/* "device":…,"isa":…,"precision":…,"threads":…,"version":… */
void bench_print_machine(const um_device *dev);
/* Wall time from send to receive, in ms; frame stays the caller's. */
um_status bench_frame(um_pipeline *pipeline, um_frame *frame, const um_packet **packet, double *ms);

/* The kind of source "drawn:SPEC": tools/bench_drawn.c. */
um_status bench_register_drawn(void);

/* Legacy host mode against device-resident mode: tools/bench_residency.c. */
int bench_residency(const struct options *o, const struct engine *e);

/* Steps and parts of the networks: tools/bench_kernels.c. */
int bench_kernels(const struct options *o, const struct engine *e);
int bench_roofline(const struct options *o, const struct engine *e);

/* What a live run adds to the pipeline's time: tools/bench_live.c. */
int bench_live(const struct options *o, const struct engine *e);

#endif
