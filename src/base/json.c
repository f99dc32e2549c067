/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

um_status um_json_parse(cJSON **out, const char *text, size_t n, const char **end, bool alone)
{
    errno = 0;
    *out = cJSON_ParseWithLengthOpts(text, n, end, alone);
    return *out || errno != ENOMEM ? UM_OK : um_fail(UM_ENOMEM, "JSON of %zu bytes", n);
}

static void put(um_json *j, const char *s, size_t n)
{
    j->failed = j->failed || !um_make_room(&j->text, &j->cap, j->len, n + 1, 1);
    if (j->failed)
        return;
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

static void quoted(um_json *j, const char *s, size_t size)
{
    put(j, "\"", 1);
    for (const char *end = s + size; s < end;) {
        uint32_t c = 0;
        size_t n = *s ? um_text_utf8(s, (size_t)(end - s), &c) : 1;
        if (n && (c == '"' || c == '\\')) {
            char text[2] = {'\\', (char)c};
            put(j, text, 2);
        } else if (n && (!c || um_text_is_control(c))) {
            char text[12];
            put(j, text, (size_t)snprintf(text, sizeof text, "\\u%04x", (unsigned)c));
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
    quoted(j, key, strlen(key));
    put(j, ":", 1);
    j->comma = 0;
}

void um_json_string(um_json *j, const char *s)
{
    if (!s) {
        um_json_null(j);
        return;
    }
    um_json_bytes(j, s, strlen(s));
}

void um_json_bytes(um_json *j, const char *s, size_t n)
{
    value(j, "", 0);
    quoted(j, s, n);
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

void um_json_float(um_json *j, float v)
{
    char text[UM_NUMBER_BYTES] = "null";
    if (isfinite(v))
        um_number_float(text, v);
    value(j, text, strlen(text));
}

void um_json_double(um_json *j, double v)
{
    char text[UM_NUMBER_BYTES] = "null";
    if (isfinite(v))
        um_number_double(text, v);
    value(j, text, strlen(text));
}

void um_json_bool(um_json *j, int v)
{
    value(j, v ? "true" : "false", v ? 4 : 5);
}

void um_json_null(um_json *j)
{
    value(j, "null", 4);
}

void um_json_put_begin(um_json *j, const char *key, char bracket)
{
    um_json_key(j, key);
    um_json_begin(j, bracket);
}

bool um_json_put_begin_if(um_json *j, bool there, const char *key, char bracket)
{
    um_json_key(j, key);
    if (there)
        um_json_begin(j, bracket);
    else
        um_json_null(j);
    return there;
}

void um_json_put_bytes(um_json *j, const char *key, const char *s, size_t n)
{
    um_json_key(j, key);
    um_json_bytes(j, s, n);
}

#define PUT(name, type)                                          \
    void um_json_put_##name(um_json *j, const char *key, type v) \
    {                                                            \
        um_json_key(j, key);                                     \
        um_json_##name(j, v);                                    \
    }
PUT(string, const char *)
PUT(int, int64_t)
PUT(uint, uint64_t)
PUT(float, float)
PUT(double, double)
PUT(bool, int)

void um_json_put_measured(um_json *j, const char *key, double v)
{
    um_json_put_float(j, key, (float)v);
}

#define PUT_LIST(name)                                                            \
    void um_json_put_##name##s(um_json *j, const char *key, const name *v, int n) \
    {                                                                             \
        if (!um_json_put_begin_if(j, v, key, '['))                                \
            return;                                                               \
        for (int i = 0; i < n; i++)                                               \
            um_json_##name(j, v[i]);                                              \
        um_json_end(j, ']');                                                      \
    }
PUT_LIST(float)
PUT_LIST(double)

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
