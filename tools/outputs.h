/* SPDX-License-Identifier: Apache-2.0 */
/* Where a command writes: the sinks of the options, and the files of --kpi and --trace as two
 * more. */
#ifndef UM_OUTPUTS_H
#define UM_OUTPUTS_H

#include "cli.h"

struct outputs {
    um_sink *sink[MAX_LIST + 2];
    int n;
};

/* `monitor` may be NULL. What is open when it fails is to be closed, too. */
um_status outputs_open(const struct options *o, um_source *source, um_monitor *monitor,
                       struct outputs *out);
/* The exit code: `code`, or that of a sink that failed, which is told. */
int outputs_close(struct outputs *out, int code);
/* --kpi-events all, which was checked. */
bool outputs_kpi_all(const struct options *o);

#endif
