/* SPDX-License-Identifier: Apache-2.0 */
/* The messages that a packet becomes: what its source sent (if it is relayed), the mask, the box,
 * the state; and LBMETA, which says what the mask's values mean. */
#ifndef UM_IO_IGTL_FRAME_H
#define UM_IO_IGTL_FRAME_H

#include "igtl/content.h"
#include "io/origin.h"
#include "ultramotion/packet.h"

enum { UM_IGTL_CLASSES = 256 };

/* Starts as {0} with the options set. One thread. */
struct um_igtl_frame {
    /* options */
    char name[UM_IGTL_NAME + 1];
    bool relay_image, relay_transforms, per_class, by_object;
    int objects;
    bool labels_changed; /* LBMETA says something else from this frame on; the user clears it */
    /* the frame */
    const um_packet *packet;
    const um_frame *frame;
    const struct um_origin *origin; /* or NULL */
    struct um_igtl_image image;     /* where the mask lies */
    char mask[UM_IGTL_NAME + 1], owner[UM_IGTL_NAME + 1];
    uint64_t stamp;
    uint32_t id;
    /* what LBMETA says */
    char class_name[UM_IGTL_CLASSES][65];
    bool class_seen[UM_IGTL_CLASSES];
    int last_class;                     /* of the best object */
    char labelled[2][UM_IGTL_NAME + 1]; /* mask and owner that it speaks of */
    uint16_t labelled_size[2];
    uint8_t *pixels;
    size_t pixel_bytes;
};

/* The next frame, which is borrowed. False: its mask has a new name, which had to be cut. */
bool um_igtl_frame_begin(struct um_igtl_frame *f, const um_packet *packet, const um_frame *frame);
/* Where what the source sent ends: its transforms, and all of it; the mask is next. */
struct um_igtl_relayed {
    size_t transforms, all;
};
struct um_igtl_relayed um_igtl_frame_write(struct um_igtl_frame *f, struct um_igtl_outbox *out,
                                           int version);
void um_igtl_labels_write(const struct um_igtl_frame *f, struct um_igtl_outbox *out, int version);
void um_igtl_frame_finish(struct um_igtl_frame *f);

#endif
