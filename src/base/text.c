/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <stdio.h>
#include <string.h>

size_t um_text_utf8(const char *s, size_t n, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = n ? (unsigned char)s[0] : 0xff;
    size_t bytes = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
    uint32_t v = bytes < 2 ? c : c & (0x7fu >> bytes);
    if (bytes > n)
        return 0;
    for (size_t i = 1; i < bytes; i++) {
        c = (unsigned char)s[i];
        if (c >> 6 != 2)
            return 0;
        v = v << 6 | (c & 0x3f);
    }
    if (v < least[bytes] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return 0;
    if (code)
        *code = v;
    return bytes;
}

bool um_text_is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

size_t um_text_cut(const char *s, size_t most)
{
    size_t n = strnlen(s, most + 1);
    if (n <= most)
        return n;
    for (n = most; n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80;)
        n--;
    return n;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool um_text_same_n(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (lower(a[i]) != lower(b[i]))
            return false;
        if (!a[i])
            break;
    }
    return true;
}

bool um_text_same(const char *a, const char *b)
{
    return um_text_same_n(a, b, SIZE_MAX);
}

void um_text_show(char *out, size_t capacity, const char *s)
{
    size_t at = 0, left = strlen(s);
    while (left) {
        char hex[4 * 4 + 1];
        uint32_t code = 0;
        size_t n = um_text_utf8(s, left, &code), bytes = n;
        const char *from = s;
        if (n == 0 || um_text_is_control(code)) {
            n = n ? n : 1;
            for (size_t i = 0; i < n; i++)
                snprintf(hex + 4 * i, 5, "\\x%02x", (unsigned char)s[i]);
            from = hex;
            bytes = 4 * n;
        }
        if (bytes >= capacity - at)
            break;
        memcpy(out + at, from, bytes);
        at += bytes;
        s += n;
        left -= n;
    }
    out[at] = 0;
}
