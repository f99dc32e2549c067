/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* Events are taken one by one and the first that has no place ends it, so nothing nests and the
 * parser never sees more than a line of brackets: its time for those grows with their square. */
struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    struct config *config;
    char *problem;
};

__attribute__((format(printf, 3, 4))) static bool fail(struct reader *r, size_t line,
                                                       const char *fmt, ...)
{
    va_list ap;
    int n = line ? snprintf(r->problem, CONFIG_PROBLEM, "%zu: ", line) : 0;
    va_start(ap, fmt);
    vsnprintf(r->problem + n, CONFIG_PROBLEM - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

/* To YAML, "null:" begins a mapping. */
static const char quote[] = " (a value that ends in a colon goes in quotes)";

/* The next event; the one before is gone. */
static bool next(struct reader *r)
{
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->parser, &r->event))
        return true;
    const char *what = r->parser.error == YAML_MEMORY_ERROR ? "out of memory"
                       : r->parser.problem                  ? r->parser.problem
                                                            : "not YAML";
    bool colon = strstr(what, "mapping values are not allowed") || strstr(what, "unexpected ':'");
    return fail(r, r->parser.problem_mark.line + 1, "%s%s", what, colon ? quote : "");
}

static size_t line(const struct reader *r)
{
    return r->event.start_mark.line + 1;
}

/* The scalar of the event, copied. */
static bool text(struct reader *r, const char *what, char **out)
{
    const char *s = (const char *)r->event.data.scalar.value;
    size_t n = r->event.data.scalar.length;
    if (memchr(s, 0, n))
        return fail(r, line(r), "a zero in a %s", what);
    *out = malloc(n + 1);
    if (!*out)
        return fail(r, 0, "out of memory");
    memcpy(*out, s, n);
    (*out)[n] = 0;
    return true;
}

static bool add_value(struct reader *r, struct config_pair *p)
{
    if (r->event.type != YAML_SCALAR_EVENT)
        return fail(r, line(r), "%s: want plain values%s", p->key,
                    r->event.type == YAML_MAPPING_START_EVENT ? quote : "");
    if (p->values == CONFIG_VALUES)
        return fail(r, line(r), "%s: more than %d values", p->key, CONFIG_VALUES);
    return text(r, "value", &p->value[p->values]) && ++p->values;
}

/* The event is the key. */
static bool read_pair(struct reader *r)
{
    struct config *c = r->config;
    if (r->event.type != YAML_SCALAR_EVENT)
        return fail(r, line(r), "want the name of an option");
    if (c->pairs == CONFIG_PAIRS)
        return fail(r, line(r), "more than %d options", CONFIG_PAIRS);
    struct config_pair *p = &c->pair[c->pairs];
    *p = (struct config_pair){.line = line(r), .value = calloc(CONFIG_VALUES, sizeof *p->value)};
    if (!p->value)
        return fail(r, 0, "out of memory");
    c->pairs++;
    if (!text(r, "name", &p->key))
        return false;
    for (int i = 0; i + 1 < c->pairs; i++)
        if (strcmp(c->pair[i].key, p->key) == 0)
            return fail(r, p->line, "%s: found twice, first in line %zu", p->key, c->pair[i].line);
    if (!next(r))
        return false;
    p->list = r->event.type == YAML_SEQUENCE_START_EVENT;
    if (!p->list)
        return r->event.type == YAML_SCALAR_EVENT
                   ? add_value(r, p)
                   : fail(r, line(r), "%s: want a plain value or a list", p->key);
    bool good = next(r);
    while (good && r->event.type != YAML_SEQUENCE_END_EVENT)
        good = add_value(r, p) && next(r);
    return good;
}

static bool read_stream(struct reader *r)
{
    if (!next(r) || !next(r)) /* the stream starts, a document does */
        return false;
    if (r->event.type == YAML_STREAM_END_EVENT)
        return true;
    if (!next(r))
        return false;
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return fail(r, line(r), "want a mapping of option names to values");
    bool good = next(r);
    while (good && r->event.type != YAML_MAPPING_END_EVENT)
        good = read_pair(r) && next(r);
    if (!good || !next(r) || !next(r)) /* the document ends, the stream should */
        return false;
    return r->event.type == YAML_STREAM_END_EVENT || fail(r, line(r), "a second document");
}

bool config_parse(struct config *c, const char *bytes, size_t size, char problem[CONFIG_PROBLEM])
{
    struct reader r = {.config = c, .problem = problem};
    const char *zero = size ? memchr(bytes, 0, size) : NULL;
    c->pairs = 0;
    problem[0] = 0;
    if (zero) /* YAML would end there, its reader would not */
        return fail(&r, 0, "a zero at byte %td", zero - bytes);
    if (size > CONFIG_BYTES)
        return fail(&r, 0, "more than %d bytes", CONFIG_BYTES);
    if (!yaml_parser_initialize(&r.parser))
        return fail(&r, 0, "out of memory");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)bytes, size);
    bool good = read_stream(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return good;
}

bool config_read(struct config *c, const char *path, char problem[CONFIG_PROBLEM])
{
    static char bytes[CONFIG_BYTES + 1];
    char what[CONFIG_PROBLEM];
    c->pairs = 0;
    errno = 0;
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    bool good = f && !ferror(f);
    if (good)
        good = config_parse(c, bytes, n, what);
    else
        snprintf(what, sizeof what, "%s", strerror(errno));
    if (f)
        fclose(f);
    bool in_line = what[0] >= '0' && what[0] <= '9';
    if (!good)
        snprintf(problem, CONFIG_PROBLEM, "%.120s:%s%.120s", path, in_line ? "" : " ", what);
    return good;
}

void config_free(struct config *c)
{
    for (int i = 0; i < c->pairs; i++) {
        struct config_pair *p = &c->pair[i];
        for (int k = 0; k < p->values; k++)
            free(p->value[k]);
        free(p->value);
        free(p->key);
    }
    c->pairs = 0;
}
