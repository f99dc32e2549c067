/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers to text and back. A host program may have set a locale whose decimal point is a comma;
 * here it is a point, in every thread, whatever the locale. */
#ifndef UM_BASE_NUMBER_H
#define UM_BASE_NUMBER_H

#include "base/status.h"

#include <locale.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UM_NUMBER_BYTES = 40 };

/* snprintf() */
int um_number_print(char *out, size_t size, const char *fmt, ...) UM_PRINTF(3, 4);
int um_number_vprint(char *out, size_t size, const char *fmt, va_list ap) UM_PRINTF(3, 0);
/* The shortest text that reads back as the same number. */
void um_number_float(char out[UM_NUMBER_BYTES], float v);
void um_number_double(char out[UM_NUMBER_BYTES], double v);

/* The whole text must be the number: no space, sign only where it may be negative, no hexadecimal,
 * NaN or infinity, no overflow. */
bool um_number_read(const char *text, double *v);
bool um_number_whole(const char *text, uint64_t max, uint64_t *n); /* digits only */

/* For a library that reads numbers: the C locale holds in this thread, until it is left for what it
 * was before. */
locale_t um_number_enter(void);
void um_number_leave(locale_t before);

#endif
