/* SPDX-License-Identifier: Apache-2.0 */
/* --kpi FILE|-: the lines are written by a sink with a thread of its own: when they come, also
 * where no packet does, and so that a reader who takes none stops nobody else. One for the program.
 */
#ifndef UM_KPI_H
#define UM_KPI_H

#include "ultramotion/ultramotion.h"

#include <stdbool.h>
#include <stdint.h>

struct kpi_settings {
    const char *path;   /* - = stdout */
    bool all;           /* also a frame's other events */
    uint64_t max_bytes; /* a file that has more gets a number, and a new one is begun; 0 = never */
    int keep;           /* of those with numbers, when one is added; 0 = all */
};

/* What lies at the path gets the next number: FILE.1, FILE.2 ... Lines for which there is no room
 * while the reader takes none are counted in a line `drop_event`. */
um_status kpi_open(um_sink **out, const struct kpi_settings *kpi, const um_sink_settings *settings);
/* Where they come from: um_pipeline_settings.kpi, um_segmenter_set_kpi(). */
void kpi_line(void *ctx, const char *line);
/* What was loaded, as the first line. */
void kpi_models(const char *device, const char *precision, double load_ms, uint64_t device_bytes,
                const char *detector, const char *segmenter);

#endif
