/* SPDX-License-Identifier: Apache-2.0 */
/* MetaImage and NRRD files as sequences of frames. */
#ifndef UM_IO_SEQUENCE_H
#define UM_IO_SEQUENCE_H

#include "io/image.h"

#include <sys/stat.h>

struct um_sequence;
/* `f` is used until the end; pixels in a file of their own are looked for beside `path`. On error
 * nothing to close. */
um_status um_sequence_open(struct um_sequence **out, struct um_image_file *f, const char *path,
                           bool nrrd);
/* May there be more than one frame? */
bool um_sequence_many(const struct um_sequence *s);
/* fstat() of the file with the pixels. False: it fails. */
bool um_sequence_stat(const struct um_sequence *s, struct stat *data);
/* The next frame with its time, pose and spacing. UM_EOF after the last; an error is one frame's,
 * or, when the file breaks off, the last thing before UM_EOF. */
um_status um_sequence_read(struct um_sequence *s, um_frame **out);
void um_sequence_close(struct um_sequence **s); /* accepts NULL */

#endif
