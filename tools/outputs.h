/* SPDX-License-Identifier: Apache-2.0 */
/* Where a command writes: the sinks of the options, and the files of --kpi and --trace as two
 * more. */
#ifndef UM_OUTPUTS_H
#define UM_OUTPUTS_H

#include "cli.h"

struct outputs {
    um_sink *sink[MAX_LIST + 2];
    bool ended[MAX_LIST + 2]; /* of outputs_write() */
    int n, of_packets;        /* the first ones, which are not --kpi's and --trace's */
};

/* `monitor` may be NULL. What is open when it fails is to be closed, too. */
um_status outputs_open(const struct options *o, um_source *source, um_monitor *monitor,
                       struct outputs *out);
/* To every sink, for a command that is no run. One that fails, which is told, or whose reader has
 * left gets no more. The exit code: `code`, or that of a sink that failed; *left: does any that is
 * for packets still take some? */
int outputs_write(struct outputs *out, const um_packet *packet, const um_frame *frame,
                  const char *name, int code, bool *left);
/* The exit code: `code`, or that of a sink that failed, which is told. */
int outputs_close(struct outputs *out, int code);
/* --kpi-events all, which was checked. */
bool outputs_kpi_all(const struct options *o);

#endif
