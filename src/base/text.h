/* SPDX-License-Identifier: Apache-2.0 */
/* Text from files and arguments is shown to people on terminals, which obey what is in it. */
#ifndef UM_BASE_TEXT_H
#define UM_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the UTF-8 character at s, of n that may be read; 0 if it is none (overlong forms and
 * surrogates included). *code may be NULL. */
size_t um_text_utf8(const char *s, size_t n, uint32_t *code);

/* Characters that a terminal obeys: C0 and C1 controls, delete. */
bool um_text_is_control(uint32_t code);

/* Bytes of the whole characters of s that `most` bytes have room for. */
size_t um_text_cut(const char *s, size_t most);

/* strcasecmp() and strncasecmp() that know the letters of ASCII alone: those of libc obey the
 * locale of the program that we are in, and in Turkish "TIF" is not "tif". */
bool um_text_same(const char *a, const char *b);
bool um_text_same_n(const char *a, const char *b, size_t n);

/* Copy what can be shown as it is; controls and bytes that are no UTF-8 become \xNN. Cut to
 * `capacity` (at least 1). */
void um_text_show(char *out, size_t capacity, const char *s);

#endif
