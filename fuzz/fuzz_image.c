/* SPDX-License-Identifier: Apache-2.0 */
/* A PNG or JPEG file. */
#include "ultramotion/ultramotion.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64]; /* the reader takes a file, so every run rewrites one */
    if (!path[0])
        snprintf(path, sizeof path, "/tmp/um_fuzz_image_%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    um_frame *frame = NULL;
    if (um_image_read(path, &frame) == UM_OK)
        um_frame_unref(&frame);
    remove(path);
    return 0;
}
