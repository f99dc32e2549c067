/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TOOL_JSON_H
#define UM_TOOL_JSON_H

#include <stdio.h>

/* A JSON string with its quotes, null for NULL; bytes that are not UTF-8 become U+FFFD, and what a
 * terminal would obey is escaped. */
void json_string(FILE *f, const char *s);

#endif
