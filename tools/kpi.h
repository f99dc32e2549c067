/* SPDX-License-Identifier: Apache-2.0 */
/* --kpi FILE|-: the lines are written by a sink, so that a reader who takes none stops nobody else.
 * One for the program. */
#ifndef UM_KPI_H
#define UM_KPI_H

#include "ultramotion/ultramotion.h"

/* A sink that writes, with each packet, the lines that have come by then. */
um_status kpi_open(um_sink **out, const char *path, const um_sink_settings *settings);
/* Where they come from: um_pipeline_settings.kpi, um_segmenter_set_kpi(). */
void kpi_line(void *ctx, const char *line);

#endif
