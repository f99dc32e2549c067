/* SPDX-License-Identifier: Apache-2.0 */
/* One stream through a decoder of libav, as frames: what a video in a file and a camera
 * have in common. */
#ifndef UM_IO_DECODER_H
#define UM_IO_DECODER_H

#include "io/image.h"
#include "io/libav.h"

struct um_decoder {
    const struct um_libav *av;
    AVStream *stream; /* its format's */
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scale;
    struct look { /* what the conversion to gray or RGB was set up for */
        int width, height, from, to, space, range;
    } look;
};
/* On error, too, um_decoder_close(). */
um_status um_decoder_open(struct um_decoder *d, const struct um_libav *av, AVStream *stream,
                          const AVCodec *codec);
/* d->frame as a frame, gray or RGB; `f` says what becomes of 16 bits. */
um_status um_decoder_frame(struct um_decoder *d, struct um_image_file *f, um_frame **out);
void um_decoder_close(struct um_decoder *d); /* also what was never opened, but zeroed */

#endif
