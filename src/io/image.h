/* SPDX-License-Identifier: Apache-2.0 */
/* Still images: a reader for each kind, and what they share. Errors do not name the file. */
#ifndef UM_IO_IMAGE_H
#define UM_IO_IMAGE_H

#include "base/status.h"
#include "ultramotion/source.h"

#include <stdbool.h>
#include <stdio.h>

/* What a file says beside its pixels, or what is odd about them. Zero: nothing to tell. */
struct um_image_facts {
    int orientation;    /* as EXIF counts, 2 to 8: the frame was turned by it */
    int bits;           /* sBIT that was obeyed: no sample is over 2^bits - 1 */
    int greatest;       /* 16-bit samples were taken as they are, and none is over this */
    bool white;         /* those have 0 for white */
    uint32_t animation; /* frames of an animated PNG, whose still image was read … */
    bool still_apart;   /* … which is none of them */
    bool behind;        /* another image stands behind the end of this one */
    int copies;         /* smaller copies and masks in a TIFF, passed over */
    uint64_t untold;    /* frames behind the last one that a sequence's header tells of */
    bool lossy;         /* a JPEG: pixels are about what was drawn */
    bool alpha;         /* a PNG's alpha was left out, and is not the same everywhere */
};

/* A file that is being read. */
struct um_image_file {
    FILE *file; /* at its start */
    int64_t bytes;
    um_window window; /* as in um_source_settings */
    int window_lo, window_hi;
    struct um_image_facts facts; /* of the last frame */
};

/* What to do about it, at the end of an error's text. */
#define UM_IMAGE_AGAIN ": cut off or damaged, copy or export it again"

/* The frame is as it was stored: who called turns it by facts.orientation. */
um_status um_png_read(struct um_image_file *f, um_frame **out);
um_status um_jpeg_read(struct um_image_file *f, um_frame **out);
um_status um_bmp_read(struct um_image_file *f, um_frame **out);

/* 16-bit samples become 8, by the file's window; `bits` of them are significant, 0 = unknown. */
um_status um_image_levels(struct um_image_file *f, const uint16_t *samples, size_t n, int bits,
                          uint8_t *out);
/* Bring an image into the position that people see it in. */
um_status um_image_turn(um_frame **frame, int orientation);
/* Is there an image that begins with `mark` in what follows in the file, behind the `n` bytes of
 * `ahead` that were read from it already? */
bool um_image_follows(FILE *file, const void *ahead, size_t n, const char *mark);
/* Tag 274 of the first directory of what EXIF holds, 1 to 8; 0 if it says nothing. */
int um_exif_orientation(const uint8_t *exif, size_t n);

#endif
