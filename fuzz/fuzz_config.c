/* SPDX-License-Identifier: Apache-2.0 */
/* A --config file. */
#include "memory_file.h"

#include "config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config c;
    char problem[CONFIG_PROBLEM];
    bool good = config_parse(&c, (const char *)data, size, problem);
    if (good == (problem[0] != 0) || strlen(problem) >= sizeof problem)
        abort(); /* a refusal says why */
    for (int i = 0; good && i < c.pairs; i++) {
        if (!c.pair[i].list && c.pair[i].values != 1)
            abort();
        for (int k = 0; k < i; k++)
            if (strcmp(c.pair[i].key, c.pair[k].key) == 0)
                abort();
    }
    config_free(&c);
    if (size % 8 == 0) { /* from a file, too */
        char path[MEMORY_PATH];
        int fd = memory_file(data, size, path);
        if (config_read(&c, path, problem) != good)
            abort();
        config_free(&c);
        close(fd);
    }
    return 0;
}
