/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sink.h"

static um_status web_open(void *priv, const char *arg, const um_sink_settings *settings,
                          int wake_fd)
{
    (void)priv, (void)settings, (void)wake_fd;
    return um_fail(UM_EUNSUPPORTED,
                   "web:%s: this build was made without libwebsockets: the Python package always "
                   "is, script/build has it after script/bootstrap",
                   arg);
}

static um_status web_write(void *priv, const um_packet *packet, const um_frame *frame,
                           const char *name)
{
    (void)priv, (void)packet, (void)frame, (void)name;
    return UM_EUNSUPPORTED;
}

const um_sink_ops um_sink_web = {
    .struct_size = sizeof um_sink_web,
    .open = web_open,
    .write = web_write,
};
