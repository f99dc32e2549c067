/* SPDX-License-Identifier: Apache-2.0 */
/* The front of the frame path for one geometry: header and pixels cross to the device in one
 * upload, and are resized and normalised there into the inputs of one or two networks. */
#ifndef UM_ENGINE_FRONT_H
#define UM_ENGINE_FRONT_H

#include "nn/gain.h"
#include "nn/record.h"
#include "nn/resize.h"
#include "ultramotion/frame.h"

/* What one network wants: the image resized to [new_h,new_w] in the top left of a
 * [size_h,size_w,c] buffer of the device's precision; what is left of it is 0. With `letterbox` the
 * image lies at (top, left), and what is left of the buffer is what black becomes. */
struct um_front_target {
    um_buf *input;
    int size_h, size_w, c;
    int new_h, new_w;
    bool letterbox; /* D-FINE's: the image lies at top, left of the input */
    int top, left;
    const float (*lut)[256]; /* [c]; NULL: the image's levels stretched over 0..1 */
    enum um_fit fit; /* resized with Pillow's bilinear (LONGEST), OpenCV's INTER_AREA (RATIO),
                        scikit-image's cubic splines (STRETCH) */
    float smooth;    /* LONGEST: um_resize_taps() */
};

enum { UM_FRONT_SLOTS = 3 };

struct um_front {
    um_device *dev;
    int w, h, c;
    um_params *params;
    um_tape *tape;
    um_buf *frame;                    /* device: um_frame_header, then pixels */
    um_hostbuf *slot[UM_FRONT_SLOTS]; /* host: the same, one for each frame that may be in flight */
    size_t bytes;
    void *work; /* um_gray()'s, where c is 1 */
};

/* gain: of the networks' tables, NULL = none; those that have a table of their own follow it, the
 * others stretch the image as they do. stream: so are the frames. */
um_status um_front_open(struct um_front *f, um_device *dev, int w, int h, int c,
                        const struct um_front_target *target, int n, int slots,
                        const struct um_gain_wish *gain, bool stream);
void um_front_close(struct um_front *f); /* accepts a zeroed or half-open front */

/* Write header and pixels of the x0,y0 crop into a slot. An RGB frame feeds a gray front by
 * um_gray(). No slot transfer may be pending; on a lost device one may be for ever, so it is
 * refused there. */
um_status um_front_fill(struct um_front *f, int slot, const struct um_frame_header *header,
                        const um_frame *frame, int x0, int y0);
/* The upload, and the steps that make the network inputs of it. */
um_status um_front_upload(struct um_front *f, int slot, enum um_stage stage);
/* The same for an image that is on the device: the header crosses, the pixels are copied there. */
um_status um_front_copy(struct um_front *f, int slot, const struct um_frame_header *header,
                        const void *pixels, ptrdiff_t row_bytes, void *stream);
um_status um_front_run(struct um_front *f);
uint64_t um_front_device_bytes(const struct um_front *f);

/* Channels a frame needs on the device: 1 if it is gray or its channels are equal at every pixel of
 * the crop, else 3. */
int um_front_channels(const um_frame *frame, int x0, int y0, int w, int h);

#endif
