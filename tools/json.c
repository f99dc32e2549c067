/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of the UTF-8 character at s, 0 if it is none. */
static size_t utf8(const unsigned char *s)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (n < 2)
        return n;
    uint32_t code = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (s[i] >> 6 != 2)
            return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    return code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : n;
}

void json_string(FILE *f, const char *s)
{
    if (!s) {
        fputs("null", f);
        return;
    }
    fputc('"', f);
    while (*s) {
        unsigned char c = (unsigned char)*s;
        size_t n = utf8((const unsigned char *)s);
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(f, "\\u%04x", c);
        else if (n == 2 && c == 0xc2 && (unsigned char)s[1] < 0xa0) /* U+0080 to U+009F */
            fprintf(f, "\\u%04x", (unsigned char)s[1]);
        else if (n)
            fwrite(s, 1, n, f);
        else
            fputs("\xef\xbf\xbd", f);
        s += n ? n : 1;
    }
    fputc('"', f);
}
