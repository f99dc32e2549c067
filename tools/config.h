/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file: one YAML mapping of names to plain values or lists of them. Everything else
 * that YAML can say is refused by line. */
#ifndef UM_CONFIG_H
#define UM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

enum { CONFIG_BYTES = 64 << 10, CONFIG_PAIRS = 256, CONFIG_VALUES = 64, CONFIG_PROBLEM = 256 };

struct config_pair {
    char *key;
    size_t line; /* from 1 */
    char **value;
    int values;
    bool list; /* written as one, also with one value or none */
};

struct config {
    struct config_pair pair[CONFIG_PAIRS]; /* each key once, in the order of the file */
    int pairs;
};

/* Read text[0..size-1] into *c; false: `problem` says what and, if it can, in which line. Either
 * way config_free() releases what was read. */
bool config_parse(struct config *c, const char *text, size_t size, char problem[CONFIG_PROBLEM]);
/* The same for a file of at most CONFIG_BYTES; the problem starts with its path. */
bool config_read(struct config *c, const char *path, char problem[CONFIG_PROBLEM]);
void config_free(struct config *c);

#endif
