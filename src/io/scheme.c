/* SPDX-License-Identifier: Apache-2.0 */
#include "io/scheme.h"

#include "base/mem.h"
#include "base/number.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

size_t um_scheme_length(const char *spec)
{
    size_t n = strspn(spec, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
    return n > 1 && spec[n] == ':' ? n : 0;
}

const void *um_schemes_find(struct um_schemes *s, const char *spec, const char **arg)
{
    const void *found = NULL;
    size_t n = um_scheme_length(spec);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->count && !found; i++) {
        const char *scheme = s->row[i].scheme;
        size_t length = strlen(scheme);
        if (n && length == n && memcmp(scheme, spec, n) == 0) {
            found = s->row[i].ops;
            *arg = spec + n + 1;
        } else if (length == 1 && strcmp(scheme, spec) == 0) { /* "-" is all there is */
            found = s->row[i].ops;
            *arg = spec + 1;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

um_status um_schemes_add(struct um_schemes *s, const char *scheme, const char *usage,
                         const void *ops, size_t size)
{
    char with_colon[64] = "";
    if (scheme && usage)
        snprintf(with_colon, sizeof with_colon, "%s:", scheme);
    if (!um_scheme_length(with_colon) || strlen(with_colon) != strlen(scheme) + 1)
        return um_fail(UM_EINVAL,
                       "a kind of %s needs a usage, and a scheme of 2 to 62 letters, digits and "
                       "'-', not \"%s\"",
                       s->what, scheme ? scheme : "");
    void *kept = um_alloc(size);
    um_status st = kept ? UM_OK : um_fail(UM_ENOMEM, "kind of %s", s->what);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->count && st == UM_OK; i++)
        if (strcmp(s->row[i].scheme, scheme) == 0)
            st = um_fail(UM_EINVAL, "%s \"%s\" is known already", s->what, with_colon);
    if (st == UM_OK && s->count == UM_SCHEMES_MAX)
        st = um_fail(UM_ENOMEM, "%s \"%s\": there are %d already", s->what, with_colon, s->count);
    if (st == UM_OK)
        s->row[s->count++] = (struct um_scheme){scheme, usage, memcpy(kept, ops, size)};
    pthread_mutex_unlock(&s->lock);
    if (st != UM_OK)
        um_free(kept);
    return st;
}

void um_schemes_usages(struct um_schemes *s, char *out, size_t capacity)
{
    size_t n = 0;
    out[0] = 0;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->count && n < capacity; i++)
        n += (size_t)snprintf(out + n, capacity - n, "%s%s", i ? ", " : "", s->row[i].usage);
    pthread_mutex_unlock(&s->lock);
}

um_status um_scheme_answer(um_status st, const char *spec, const char *function)
{
    if (st > UM_OK)
        return um_fail(UM_EINVAL, "%s: its %s() returned %d, want UM_OK or an error", spec,
                       function, (int)st);
    if (st != UM_OK && !um_last_error()[0])
        um_fail(st, "%s: %s", spec, um_status_name(st));
    return st;
}

/* ---- options ---- */

enum { KEY = 32 };

/* The next option; UM_EOF at the end, UM_EINVAL for what is none. */
static um_status next_option(const char **at, char key[KEY], char value[UM_SCHEME_VALUE])
{
    const char *from = *at;
    if (!*from)
        return UM_EOF;
    size_t length = strcspn(from, "&,"), name = strcspn(from, "=&,");
    size_t text = name < length ? length - name - 1 : 0;
    if (name == 0 || name >= KEY)
        return um_fail(UM_EINVAL, "\"%.*s\" is not KEY=VALUE", (int)length, from);
    if (text >= UM_SCHEME_VALUE)
        return um_fail(UM_EINVAL, "%.*s: a value of %zu bytes, want at most %d", (int)name, from,
                       text, UM_SCHEME_VALUE - 1);
    memcpy(key, from, name);
    key[name] = 0;
    memcpy(value, from + length - text, text);
    value[text] = 0;
    *at = from + length + (from[length] != 0);
    return UM_OK;
}

/* Does `key` stand in what comes before `end`? All of that was read. */
static bool is_given(const char *options, const char *end, const char *key)
{
    size_t n = strlen(key);
    for (const char *at = options; at < end; at += strcspn(at, "&,") + 1)
        if (strcspn(at, "=&,") == n && memcmp(at, key, n) == 0)
            return true;
    return false;
}

um_status um_scheme_options(const char *options, const char *spec, const char *repeatable,
                            um_scheme_set_fn *set, void *ctx)
{
    char key[KEY], value[UM_SCHEME_VALUE];
    um_status st;
    const char *at = options, *from = at;
    for (; (st = next_option(&at, key, value)) == UM_OK; from = at) {
        if (is_given(options, from, key) && (!repeatable || strcmp(key, repeatable) != 0))
            st = um_fail(UM_EINVAL, "%s is given twice, the second time as \"%s\"", key, value);
        else
            st = set(ctx, key, value);
        if (st != UM_OK)
            break;
    }
    return st == UM_EOF ? UM_OK : um_fail_in(st, spec);
}

um_status um_scheme_number(const char *key, const char *value, double min, double max,
                           double *number)
{
    if (!um_number_read(value, number) || *number < min || *number > max)
        return um_fail(UM_EINVAL, "%s: \"%s\" is not a number from %g to %g", key, value, min, max);
    return UM_OK;
}

um_status um_scheme_whole(const char *key, const char *value, int min, int max, int *number)
{
    uint64_t n = 0;
    if (!um_number_whole(value, (uint64_t)max, &n) || n < (uint64_t)min)
        return um_fail(UM_EINVAL, "%s: \"%s\" is not a whole number from %d to %d", key, value, min,
                       max);
    *number = (int)n;
    return UM_OK;
}

/* ---- what stands behind the colon, and all of it again ---- */

um_status um_address_read(struct um_address *a, const char *scheme, const char *arg)
{
    uint64_t port = 0;
    const char *from = strncmp(arg, "//", 2) == 0 ? arg + 2 : arg;
    size_t length = strcspn(from, "?");
    const char *colon = NULL;
    for (size_t i = 0; i < length; i++)
        if (from[i] == ':')
            colon = from + i;
    size_t host = colon ? (size_t)(colon - from) : 0, digits = colon ? length - host - 1 : 0;
    *a = (struct um_address){.options = from[length] ? from + length + 1 : ""};
    if (!colon || host >= sizeof a->host || digits >= sizeof a->port)
        return um_fail(UM_EINVAL, "%s: \"%s\" is not HOST:PORT", scheme, arg);
    bool bracketed = host >= 2 && from[0] == '[' && from[host - 1] == ']'; /* [::1] */
    memcpy(a->host, from + bracketed, host - 2 * (size_t)bracketed);
    memcpy(a->port, colon + 1, digits);
    if (!um_number_whole(a->port, 65535, &port))
        return um_fail(UM_EINVAL, "%s: \"%s\" has no port from 0 to 65535", scheme, arg);
    return UM_OK;
}

um_status um_address_to_connect(const struct um_address *a, const char *spec, const char *instead)
{
    if (!a->host[0])
        return um_fail(UM_EINVAL, "%s: no host; %s", spec, instead);
    if (!a->port[strspn(a->port, "0")])
        return um_fail(UM_EINVAL, "%s: port 0, want that on which the other one listens", spec);
    return UM_OK;
}

char *um_scheme_spec(const char *scheme, const char *arg)
{
    size_t n = strlen(scheme) + strlen(arg) + 2;
    char *spec = um_alloc(n);
    if (spec)
        snprintf(spec, n, "%s:%s", scheme, arg);
    return spec;
}
