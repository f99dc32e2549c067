/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TOOL_JSON_H
#define UM_TOOL_JSON_H

#include <stdbool.h>
#include <stdio.h>

/* A JSON string with its quotes, null for NULL; bytes that are not UTF-8 become U+FFFD, and what a
 * terminal would obey is escaped. */
void json_string(FILE *f, const char *s);

/* A text that is written like a file; freed by the caller, also of one that is not whole. */
FILE *json_open(char **text);
bool json_close(FILE *f, char *const *text); /* false: no memory; f may be NULL */

#endif
