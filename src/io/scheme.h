/* SPDX-License-Identifier: Apache-2.0 */
/* What stands before the colon of "phantom:seed=1" or "jsonl:out.jsonl", and who answers to it. */
#ifndef UM_IO_SCHEME_H
#define UM_IO_SCHEME_H

#include "base/status.h"

#include <pthread.h>
#include <stddef.h>

enum { UM_SCHEMES_MAX = 48 }; /* a few of our own and 32 of the program's */

/* Starts with the built-in rows, and grows. Rows are never taken away. */
struct um_schemes {
    const char *what; /* "source" or "sink", for messages */
    pthread_mutex_t lock;
    int count; /* guarded by lock, as all below */
    struct um_scheme {
        const char *scheme, *usage;
        const void *ops;
    } row[UM_SCHEMES_MAX];
};

/* The table that answers to a spec, NULL if none does; *arg is what it is about. */
const void *um_schemes_find(struct um_schemes *s, const char *spec, const char **arg);
/* Add a copy of a table of `size` bytes, which is kept as long as the program. */
um_status um_schemes_add(struct um_schemes *s, const char *scheme, const char *usage,
                         const void *ops, size_t size);
/* Every usage, separated by commas. */
void um_schemes_usages(struct um_schemes *s, char *out, size_t capacity);
/* Length of what looks like a scheme in front of a colon; 0 if nothing does. */
size_t um_scheme_length(const char *spec);

/* What a kind's open() or close() returned, as the caller gets it: UM_OK or an error, with a text.
 * The last error is cleared before the call. */
um_status um_scheme_answer(um_status st, const char *spec, const char *function);

enum { UM_SCHEME_VALUE = 1024 }; /* of an option, with its zero: it may be a path */
/* Give each of "key=value&key=value" (or with commas) to `set`, to the first that fails; errors
 * name the spec. None may be given twice but `repeatable` (NULL: none at all). */
typedef um_status um_scheme_set_fn(void *ctx, const char *key, const char *value);
um_status um_scheme_options(const char *options, const char *spec, const char *repeatable,
                            um_scheme_set_fn *set, void *ctx);
/* The number of an option, in a range. */
um_status um_scheme_number(const char *key, const char *value, double min, double max,
                           double *number);
um_status um_scheme_whole(const char *key, const char *value, int min, int max, int *number);

/* "HOST:PORT?key=value&key=value", also with "//" in front; options may be apart by commas too. */
struct um_address {
    char host[256]; /* "" = any */
    char port[6];
    const char *options; /* for um_scheme_options() */
};
um_status um_address_read(struct um_address *a, const char *scheme, const char *arg);
/* It has a host and a port to connect to; else what to write `instead` of no host. */
um_status um_address_to_connect(const struct um_address *a, const char *spec, const char *instead);

/* "scheme:arg", freed with um_free(); NULL when memory ran out. */
char *um_scheme_spec(const char *scheme, const char *arg);

#endif
