/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sink.h"
#include "io/video.h"

#define HOW                                                                           \
    "this build was made without libav: install libavformat-dev, libavcodec-dev and " \
    "libswscale-dev of FFmpeg 5 to 9 and build again"

const bool um_video_built = false;

um_status um_video_open(struct um_video **out, struct um_image_file *f)
{
    (void)f;
    *out = NULL;
    return um_fail(UM_EUNSUPPORTED, "a video, and " HOW ", or give its frames as PNG");
}

um_status um_video_read(struct um_video *v, um_frame **out)
{
    (void)v;
    *out = NULL;
    return UM_EOF;
}

void um_video_close(struct um_video **v)
{
    *v = NULL;
}

static um_status video_open(void *priv, const char *arg, const um_sink_settings *settings,
                            int wake_fd)
{
    (void)priv, (void)settings, (void)wake_fd;
    return um_fail(UM_EUNSUPPORTED, "video:%s: " HOW ", or write images with dir:PATH", arg);
}

static um_status video_write(void *priv, const um_packet *packet, const um_frame *frame,
                             const char *name)
{
    (void)priv, (void)packet, (void)frame, (void)name;
    return UM_EUNSUPPORTED;
}

const um_sink_ops um_sink_video = {
    .struct_size = sizeof um_sink_video,
    .open = video_open,
    .write = video_write,
};
