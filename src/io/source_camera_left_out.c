/* SPDX-License-Identifier: Apache-2.0 */
#include "io/source.h"

const bool um_camera_built = false;

static um_status camera_open(void *priv, const char *arg, const um_source_settings *settings,
                             int wake_fd)
{
    (void)priv, (void)settings, (void)wake_fd;
    return um_fail(
        UM_EUNSUPPORTED,
        "%s: a camera, and this build was made without libavdevice: install "
        "libavdevice-dev, libavformat-dev, libavcodec-dev and libswscale-dev of FFmpeg 5 "
        "to 9 and build again",
        arg);
}

static um_status camera_read(void *priv, uint64_t index, um_frame **frame)
{
    (void)priv, (void)index, (void)frame;
    return UM_EOF;
}

const um_source_ops um_source_v4l2 = {
    .struct_size = sizeof um_source_v4l2,
    .open = camera_open,
    .read = camera_read,
    .live = 1,
    .uses = UM_SOURCE_WINDOW,
};

const um_source_ops um_source_lavfi = {
    .struct_size = sizeof um_source_lavfi,
    .open = camera_open,
    .read = camera_read,
    .live = 1,
    .uses = UM_SOURCE_WINDOW,
};
