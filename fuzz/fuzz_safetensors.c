/* SPDX-License-Identifier: Apache-2.0 */
/* A .safetensors file; or, so that a changed header keeps its length, only the header behind two
 * bytes that say how many bytes of data follow it. */
#include "tensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 9 && data[8] == '{' && data[4] == 0) {
        read_tensors(data, size);
        return 0;
    }
    if (size < 3 || data[2] != '{')
        return 0;
    size_t header = size - 2, bytes = (size_t)data[0] | (size_t)data[1] << 8;
    uint8_t *file = calloc(1, 8 + header + bytes);
    if (!file)
        return 0;
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header >> 8 * i);
    memcpy(file + 8, data + 2, header);
    read_tensors(file, 8 + header + bytes);
    free(file);
    return 0;
}
