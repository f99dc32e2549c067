/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_JSON_H
#define UM_BASE_JSON_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

/* What a text of `n` bytes says; *out NULL: it is no JSON, and *end (may be NULL) is where it
 * ceases to be. `alone`: its last byte is a zero, and nothing but blanks may be before that.
 * UM_ENOMEM, which cJSON itself does not tell from a text that is wrong. */
um_status um_json_parse(struct cJSON **out, const char *text, size_t n, const char **end,
                        bool alone);

/* A JSON writer into one growing string. Start with `um_json j = {0}`; commas are its business. A
 * failed allocation is remembered and reported once, by um_json_finish(), so the calls in between
 * need no checks. */
typedef struct um_json {
    char *text;
    size_t len, cap;
    int comma;  /* a value was written at this level: the next one needs a comma */
    int failed; /* memory ran out */
} um_json;

void um_json_begin(um_json *j, char bracket); /* '{' or '[' */
void um_json_end(um_json *j, char bracket);   /* '}' or ']' */
void um_json_key(um_json *j, const char *key);
void um_json_string(
    um_json *j, const char *s); /* escaped; bytes that are not UTF-8 become U+FFFD; NULL -> null */
void um_json_bytes(um_json *j, const char *s, size_t n); /* the same, zeros among them */
void um_json_int(um_json *j, int64_t v);
void um_json_uint(um_json *j, uint64_t v);
void um_json_float(um_json *j,
                   float v); /* shortest text that reads back as the same float; NaN, inf -> null */
void um_json_double(um_json *j, double v); /* the same for double */
void um_json_bool(um_json *j, int v);
void um_json_null(um_json *j);

/* A key and its value. */
void um_json_put_begin(um_json *j, const char *key, char bracket);
/* The same, or null where it is not there; returns whether it was begun. */
bool um_json_put_begin_if(um_json *j, bool there, const char *key, char bracket);
void um_json_put_string(um_json *j, const char *key, const char *s);
void um_json_put_bytes(um_json *j, const char *key, const char *s, size_t n);
void um_json_put_int(um_json *j, const char *key, int64_t v);
void um_json_put_uint(um_json *j, const char *key, uint64_t v);
void um_json_put_float(um_json *j, const char *key, float v);
void um_json_put_double(um_json *j, const char *key, double v);
/* What was measured: six digits are plenty. */
void um_json_put_measured(um_json *j, const char *key, double v);
void um_json_put_bool(um_json *j, const char *key, int v);
/* A list; v NULL: null. */
void um_json_put_floats(um_json *j, const char *key, const float *v, int n);
void um_json_put_doubles(um_json *j, const char *key, const double *v, int n);

void um_json_newline(um_json *j); /* before a value, in files that people read */

/* Hand out the text (freed by the caller with um_free() or free()) and empty the writer. UM_ENOMEM:
 * nothing to free. */
um_status um_json_finish(um_json *j, char **text);
void um_json_free(um_json *j);

#endif
