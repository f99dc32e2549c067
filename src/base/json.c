/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(um_json *j, const char *s, size_t n)
{
    if (j->failed)
        return;
    if (n >= j->cap - j->len) {
        size_t cap = j->cap ? j->cap : 256;
        while (n >= cap - j->len) {
            if (cap > SIZE_MAX / 2) {
                j->failed = 1;
                return;
            }
            cap *= 2;
        }
        char *text = um_grow(j->text, j->len, cap);
        if (!text) {
            j->failed = 1;
            return;
        }
        j->text = text;
        j->cap = cap;
    }
    memcpy(j->text + j->len, s, n);
    j->len += n;
    j->text[j->len] = 0;
}

static void value(um_json *j, const char *s, size_t n)
{
    if (j->comma)
        put(j, ",", 1);
    put(j, s, n);
    j->comma = 1;
}

void um_json_begin(um_json *j, char bracket)
{
    value(j, &bracket, 1);
    j->comma = 0;
}

void um_json_end(um_json *j, char bracket)
{
    put(j, &bracket, 1);
    j->comma = 1;
}

/* Length of the UTF-8 sequence at s, 0 if it is none (overlong forms and surrogates included). */
static size_t utf8_length(const unsigned char *s)
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

static void quoted(um_json *j, const char *s)
{
    put(j, "\"", 1);
    while (*s) {
        unsigned char c = (unsigned char)*s;
        size_t n = utf8_length((const unsigned char *)s);
        if (c == '"' || c == '\\') {
            char text[2] = {'\\', (char)c};
            put(j, text, 2);
        } else if (c < 0x20 || c == 0x7f) {
            char text[8];
            put(j, text, (size_t)snprintf(text, sizeof text, "\\u%04x", c));
        } else if (n) {
            put(j, s, n);
        } else {
            put(j, "\xef\xbf\xbd", 3);
        }
        s += n ? n : 1;
    }
    put(j, "\"", 1);
}

void um_json_key(um_json *j, const char *key)
{
    if (j->comma)
        put(j, ",", 1);
    quoted(j, key);
    put(j, ":", 1);
    j->comma = 0;
}

void um_json_string(um_json *j, const char *s)
{
    if (!s) {
        um_json_null(j);
        return;
    }
    value(j, "", 0);
    quoted(j, s);
}

void um_json_int(um_json *j, int64_t v)
{
    char text[32];
    value(j, text, (size_t)snprintf(text, sizeof text, "%" PRId64, v));
}

void um_json_uint(um_json *j, uint64_t v)
{
    char text[32];
    value(j, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, v));
}

/* printf writes the decimal point of the program's locale; JSON has only one. */
static void number(um_json *j, char *text)
{
    char *comma = strchr(text, ',');
    if (comma)
        *comma = '.';
    value(j, text, strlen(text));
}

void um_json_float(um_json *j, float v)
{
    char text[40];
    if (!isfinite(v)) {
        um_json_null(j);
        return;
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    number(j, text);
}

void um_json_double(um_json *j, double v)
{
    char text[40];
    if (!isfinite(v)) {
        um_json_null(j);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    number(j, text);
}

void um_json_bool(um_json *j, int v)
{
    value(j, v ? "true" : "false", v ? 4 : 5);
}

void um_json_null(um_json *j)
{
    value(j, "null", 4);
}

void um_json_newline(um_json *j)
{
    put(j, j->comma ? ",\n" : "\n", j->comma ? 2 : 1);
    j->comma = 0;
}

um_status um_json_finish(um_json *j, char **text)
{
    *text = NULL;
    put(j, "", 0); /* an empty text is a string too */
    if (j->failed) {
        um_json_free(j);
        return um_fail(UM_ENOMEM, "JSON text");
    }
    *text = j->text;
    *j = (um_json){0};
    return UM_OK;
}

void um_json_free(um_json *j)
{
    um_free(j->text);
    *j = (um_json){0};
}
