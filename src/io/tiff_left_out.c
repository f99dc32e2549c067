/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tiff.h"

const bool um_tiff_built = false;

um_status um_tiff_open(struct um_tiff **out, struct um_image_file *f)
{
    (void)f;
    *out = NULL;
    return um_fail(UM_EUNSUPPORTED, "a TIFF image, and this build was made without libtiff: "
                                    "install libtiff-dev and build again, or save it as PNG");
}

bool um_tiff_many(const struct um_tiff *t)
{
    (void)t;
    return false;
}

um_status um_tiff_read(struct um_tiff *t, um_frame **out)
{
    (void)t;
    *out = NULL;
    return UM_EOF;
}

void um_tiff_close(struct um_tiff **t)
{
    *t = NULL;
}
