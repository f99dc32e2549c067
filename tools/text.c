/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <errno.h>

FILE *text_open(char **text)
{
    static _Thread_local size_t size;
    *text = NULL;
    errno = 0;
    return open_memstream(text, &size);
}

/* A stream in memory tells nobody that memory ran out, but errno. */
bool text_close(FILE *f, char *const *text)
{
    return f && fclose(f) == 0 && *text && errno != ENOMEM;
}
