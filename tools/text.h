/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TOOL_TEXT_H
#define UM_TOOL_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A text that is written like a file; freed by the caller, also of one that is not whole. */
FILE *text_open(char **text);
bool text_close(FILE *f, char *const *text); /* false: no memory; f may be NULL */

/* The three behind each other; freed by the caller. NULL: no memory. */
char *text_join(const char *a, const char *between, const char *b);

/* The folder that a path lies in; likewise. */
char *text_folder(const char *path);

/* As much of `s` as there is room for, in whole characters. */
void text_copy(char *out, size_t size, const char *s);

/* The character at `s` (not the end) as a terminal may have it: of control characters, which it
 * would obey, each byte as \xNN. Returns how many bytes of `s` it is. */
enum { TEXT_SHOWN = 9 };
int text_show(const char *s, char out[TEXT_SHOWN]);

/* What a word ends with of which there are n. */
static inline const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

#endif
