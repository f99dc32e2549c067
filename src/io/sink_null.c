/* SPDX-License-Identifier: Apache-2.0 */
/* "null:" takes everything and keeps nothing: for timing the rest. */
#include "io/sink.h"

static um_status null_open(void *priv, const char *arg, const um_sink_settings *settings,
                           int wake_fd)
{
    (void)priv;
    (void)settings;
    (void)wake_fd;
    return arg[0] ? um_fail(UM_EINVAL, "null: takes no argument, got \"%s\"", arg) : UM_OK;
}

static um_status null_write(void *priv, const um_packet *packet, const um_frame *frame,
                            const char *name)
{
    (void)priv;
    (void)packet;
    (void)frame;
    (void)name;
    return UM_OK;
}

const um_sink_ops um_sink_null = {
    .struct_size = sizeof um_sink_null,
    .open = null_open,
    .write = null_write,
};
