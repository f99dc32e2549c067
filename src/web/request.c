/* SPDX-License-Identifier: Apache-2.0 */
#include "web/request.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

#include <cjson/cJSON.h>

#include <ctype.h>
#include <math.h>
#include <string.h>

/* ---- headers ---- */

/* "NAME", "NAME:PORT", "[V6]", "[V6]:PORT": how long the name is, 0 for anything else. */
static size_t name_length(const char *host)
{
    size_t n = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (host[0] == '[') {
        if (!host[n])
            return 0;
        n++;
    }
    size_t digits = host[n] == ':' ? strspn(host + n + 1, "0123456789") : 0;
    bool whole = !host[n] || (host[n] == ':' && digits && digits < 6 && !host[n + 1 + digits]);
    return whole ? n : 0;
}

static bool is_v4(const char *s, size_t n)
{
    int parts = 0;
    for (size_t i = 0; i < n; parts++) {
        unsigned value = 0;
        size_t digits = 0;
        while (i < n && s[i] >= '0' && s[i] <= '9' && digits < 4) {
            value = value * 10 + (unsigned)(s[i++] - '0');
            digits++;
        }
        if (!digits || digits > 3 || value > 255 || (i < n && (s[i++] != '.' || i == n)))
            return false;
    }
    return parts == 4;
}

/* What stands before a ']', also with a zone: "fe80::1%eth0". */
static bool is_v6(const char *s, size_t n)
{
    size_t i = strspn(s, "0123456789abcdefABCDEF:.");
    if (i > 1 && s[i] == '%')
        for (i++; isalnum((unsigned char)s[i]) || s[i] == '-' || s[i] == '_';)
            i++;
    return i > 1 && i == n;
}

bool um_web_host_good(const char *host, const char *names)
{
    size_t n = name_length(host);
    if (!n)
        return false;
    if (host[0] == '[')
        return is_v6(host + 1, n - 2);
    if (is_v4(host, n) || (n == 9 && um_text_same_n(host, "localhost", n)))
        return true;
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, ",");
        if (length == n && um_text_same_n(host, at, n))
            return true;
        at += length + (at[length] == ',');
    }
    return false;
}

bool um_web_origin_good(const char *origin, const char *host)
{
    if (!origin[0])
        return true;
    size_t scheme = um_text_same_n(origin, "http://", 7)    ? 7
                    : um_text_same_n(origin, "https://", 8) ? 8 /* a proxy in front of us */
                                                            : 0;
    const char *own = scheme == 7 ? ":80" : ":443"; /* browsers leave it out, some proxies do not */
    size_t n = strlen(origin + scheme);
    return scheme && n && um_text_same_n(origin + scheme, host, n) &&
           (!host[n] || strcmp(host + n, own) == 0);
}

static bool same(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned differ = n != m;
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned)(unsigned char)a[i] ^ (unsigned)(unsigned char)b[m ? i % m : 0];
    return !differ;
}

bool um_web_token_good(const char *token, const char *authorization, const char *argument)
{
    if (um_text_same_n(authorization, "Bearer ", 7))
        return same(authorization + 7, token);
    return same(argument, token);
}

bool um_web_is_json(const char *content_type)
{
    static const char want[] = "application/json";
    size_t n = strcspn(content_type, "; \t");
    return n == sizeof want - 1 && um_text_same_n(content_type, want, n);
}

/* ---- bodies ---- */

/* One flat object and nothing behind it. cJSON takes what comes after a zero for the end, also
 * after a written one, of a key: "conf\u0000x" would be conf. */
static um_status parse(cJSON **out, const char *text, size_t size, size_t most)
{
    static const char zero[] = "\\u0000";
    *out = NULL;
    char *copy = size <= most && !memchr(text, 0, size) ? um_alloc(size + 1) : NULL;
    if (size > most || memchr(text, 0, size))
        return um_fail(UM_EFORMAT, "want a JSON object of at most %zu bytes", most);
    if (!copy)
        return um_fail(UM_ENOMEM, "JSON");
    memcpy(copy, text, size);
    copy[size] = 0;
    um_status st = strstr(copy, zero) ? um_fail(UM_EFORMAT, "want a JSON object without %s", zero)
                                      : um_json_parse(out, copy, size + 1, NULL, true);
    um_free(copy);
    if (st != UM_OK || cJSON_IsObject(*out))
        return st;
    cJSON_Delete(*out);
    *out = NULL;
    return um_fail(UM_EFORMAT, "want a JSON object");
}

um_status um_web_control_read(struct um_web_control *out, const char *text, size_t size)
{
    static const char *const keys[UM_WEB_KEYS] = {"conf", "label", "objects"};
    cJSON *json = NULL;
    *out = (struct um_web_control){0};
    um_status st = parse(&json, text, size, UM_WEB_BODY);
    for (const cJSON *item = json ? json->child : NULL; item && st == UM_OK; item = item->next) {
        int k = 0;
        while (k < UM_WEB_KEYS && strcmp(item->string, keys[k]) != 0)
            k++;
        bool twice = false;
        for (int i = 0; i < out->n && k < UM_WEB_KEYS; i++)
            twice = twice || out->key[i] == keys[k];
        if (twice) {
            st = um_fail(UM_EFORMAT, "\"%s\" stands there twice", item->string);
        } else if (k == UM_WEB_KEYS) {
            st = um_fail(UM_EFORMAT, "\"%.40s\" is not conf, label or objects", item->string);
        } else if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble)) {
            st = um_fail(UM_EFORMAT, "\"%s\" wants a number", keys[k]);
        } else {
            out->key[out->n] = keys[k];
            out->value[out->n++] = item->valuedouble;
        }
    }
    cJSON_Delete(json);
    return st == UM_OK && !out->n ? um_fail(UM_EFORMAT, "want conf, label or objects") : st;
}

um_status um_web_message_read(struct um_web_message *out, const char *text, size_t size)
{
    cJSON *json = NULL;
    *out = (struct um_web_message){0};
    um_status st = parse(&json, text, size, UM_WEB_MESSAGE);
    for (const cJSON *item = json ? json->child : NULL; item && st == UM_OK; item = item->next) {
        if (strcmp(item->string, "stream") == 0 && cJSON_IsBool(item)) {
            out->has_stream = true;
            out->stream = cJSON_IsTrue(item);
        } else if (strcmp(item->string, "ping") == 0 && cJSON_IsNumber(item) &&
                   isfinite(item->valuedouble)) {
            out->has_ping = true;
            out->ping = item->valuedouble;
        } else {
            st = um_fail(UM_EFORMAT, "want {\"stream\": true or false} or {\"ping\": a number}");
        }
    }
    cJSON_Delete(json);
    return st;
}
