/* SPDX-License-Identifier: Apache-2.0 */
/* A list of files. They are named, not read: any path may stand there. */
#include "memory_file.h"

#include "base/mem.h"
#include "ultramotion/ultramotion.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[MEMORY_PATH], spec[MEMORY_PATH + 1];
    int fd = memory_file(data, size, path);
    um_source *source = NULL;
    spec[0] = '@';
    memcpy(spec + 1, path, sizeof path);
    um_mem_fail_at(size ? 1 + data[size / 2] % 16 : 1);
    um_status without = um_source_open(&source, spec, NULL);
    um_mem_fail_at(0);
    if ((without == UM_OK) != (source != NULL))
        abort();
    um_source_close(&source);
    um_status st = um_source_open(&source, spec, NULL);
    if (st != UM_OK && (!um_last_error()[0] || source))
        abort();
    if (st == UM_OK && um_source_length(source) == 0)
        abort();
    um_source_close(&source);
    close(fd);
    return 0;
}
