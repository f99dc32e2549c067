/* SPDX-License-Identifier: Apache-2.0 */
/* The text in front of a sequence: MetaImage as Plus writes it (.mha, .mhd), NRRD as Slicer and
 * Plus write it (.nrrd, .seq.nrrd). */
#ifndef UM_IO_SEQUENCE_HEAD_H
#define UM_IO_SEQUENCE_HEAD_H

#include "base/status.h"
#include "ultramotion/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A line "Seq_FrameNNNN_NAME = VALUE". Places are in the header's text. */
struct um_sequence_field {
    uint64_t frame;
    size_t name, value;
};

struct um_sequence_head {
    const char *format;  /* "MetaImage" or "NRRD" */
    int width, height;   /* as stored */
    int channels, bytes; /* 1 or 3; of a sample, 1 or 2 */
    uint64_t frames;
    bool from_top;     /* the upper byte of a sample comes first */
    bool compressed;   /* zlib or gzip */
    bool interleaved;  /* the first pixels of all frames come first, then the second ones … */
    int orientation;   /* as EXIF counts, what brings it into Plus's MF: near at the top */
    bool has_spacing;  /* … of a stored pixel, x and y in mm */
    double spacing[2]; /* valid if has_spacing */
    const char *file;  /* with the pixels, beside this one; NULL: they follow the header */
    int64_t data_at;   /* where they do */

    char *text; /* lines, each part ended by a zero */
    struct um_sequence_field *fields;
    size_t n_fields, at_field; /* sorted by frame; the first that was not yet asked for */
    size_t stamps;             /* of an NRRD: the times of its list, 0 = none */
    double stamp_s;            /* their unit */
    size_t *others;            /* name and value of what means nothing to us */
    size_t n_others;
    bool others_given; /* with the first frame that could be read */
};

/* From the start of `file`, which then stands behind the header. On error nothing to finish. */
um_status um_sequence_head_read(struct um_sequence_head *h, FILE *file, bool nrrd);
void um_sequence_head_finish(struct um_sequence_head *h);
/* Give a frame its time, pose and notes (um_frame_notes()). Asked for each frame in order. A frame
 * whose image is not valid is UM_EFORMAT. */
um_status um_sequence_head_describe(struct um_sequence_head *h, uint64_t frame, um_frame *f);

/* The value of a line "NAME = VALUE" of a frame's notes, as far as `size` goes (0: it is not asked
 * for); false: none. */
bool um_sequence_note(const char *notes, const char *name, char *value, size_t size);

#endif
