/* SPDX-License-Identifier: Apache-2.0 */
/* A TIFF as a sequence of its pages. Built with libtiff (tiff.c), or without (tiff_left_out.c). */
#ifndef UM_IO_TIFF_H
#define UM_IO_TIFF_H

#include "io/image.h"

extern const bool um_tiff_built;

struct um_tiff;
/* `f` is used until the end. On error nothing to close. */
um_status um_tiff_open(struct um_tiff **out, struct um_image_file *f);
/* Is there more than one page, without smaller copies and masks? */
bool um_tiff_many(const struct um_tiff *t);
/* The next page. UM_EOF after the last; after an error the one behind it is next. */
um_status um_tiff_read(struct um_tiff *t, um_frame **out);
void um_tiff_close(struct um_tiff **t); /* accepts NULL */

#endif
