/* SPDX-License-Identifier: Apache-2.0 */
/* "null:" takes everything and keeps nothing: for timing the rest. */
#include "io/sink.h"

static um_status null_open(void *priv, const char *arg)
{
    (void)priv;
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

static um_status null_close(void *priv)
{
    (void)priv;
    return UM_OK;
}

const um_sink_type um_sink_null = {
    .scheme = "null",
    .usage = "null:",
    .priv_size = 1,
    .open = null_open,
    .write = null_write,
    .close = null_close,
};
