/* SPDX-License-Identifier: Apache-2.0 */
/* A video as a sequence of frames, and frames as a video. Built with libav (video.c, sink_video.c),
 * or without (video_left_out.c). */
#ifndef UM_IO_VIDEO_H
#define UM_IO_VIDEO_H

#include "io/image.h"

extern const bool um_video_built;

struct um_video;
/* `f` is used until the end. On error nothing to close. */
um_status um_video_open(struct um_video **out, struct um_image_file *f);
/* The next frame, with its time in the video. UM_EOF after the last; an error is one frame's, or,
 * when the video breaks off, the last thing before UM_EOF. */
um_status um_video_read(struct um_video *v, um_frame **out);
void um_video_close(struct um_video **v); /* accepts NULL */

#endif
