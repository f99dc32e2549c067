/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

char *text_join(const char *a, const char *between, const char *b)
{
    size_t n = strlen(a) + strlen(between) + strlen(b) + 1;
    char *text = malloc(n);
    if (text)
        snprintf(text, n, "%s%s%s", a, between, b);
    return text;
}

void text_copy(char *out, size_t size, const char *s)
{
    size_t n = strlen(s);
    if (n >= size)
        for (n = size - 1; n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80;)
            n--;
    memcpy(out, s, n);
    out[n] = 0;
}

int text_show(const char *s, char out[TEXT_SHOWN])
{
    const unsigned char *c = (const unsigned char *)s;
    if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) { /* U+0080 to U+009F */
        snprintf(out, TEXT_SHOWN, "\\x%02x\\x%02x", c[0], c[1]);
        return 2;
    }
    snprintf(out, TEXT_SHOWN, c[0] < 0x20 || c[0] == 0x7f ? "\\x%02x" : "%c", c[0]);
    return 1;
}

char *text_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, (size_t)(slash - path) + (slash == path)) : strdup(".");
}
