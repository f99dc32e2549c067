/* SPDX-License-Identifier: Apache-2.0 */
/* A file of frames, whatever it is: one image, pages, a sequence, or a video. What it is, its
 * first bytes say. Errors name the file. */
#ifndef UM_IO_CLIP_H
#define UM_IO_CLIP_H

#include "base/kind.h"
#include "io/image.h"

struct um_sequence;
struct um_tiff;
struct um_video;

struct um_clip {
    const char *path; /* the caller's */
    struct um_image_file f;
    um_status (*still)(struct um_image_file *f, um_frame **out); /* a kind of one image … */
    bool done;                                                   /* … which was read */
    struct um_tiff *tiff;
    struct um_video *video;
    struct um_sequence *sequence;
};

/* `path` is used until the end; `how` says what becomes of 16 bits, NULL = nothing was asked for.
 * On error nothing to close. */
um_status um_clip_open(struct um_clip *c, const char *path, const um_source_settings *how);
/* The next frame, as people see it; c->f.facts says what was odd about it. UM_EOF after the last;
 * after an error the next is tried. */
um_status um_clip_read(struct um_clip *c, um_frame **out);
/* May there be more than one frame? */
bool um_clip_many(const struct um_clip *c);
/* What to do with a file that is no image and no video. */
const char *um_clip_advice(enum um_kind_sort sort);
void um_clip_close(struct um_clip *c); /* also what was never opened, but zeroed */

#endif
