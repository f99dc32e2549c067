/* SPDX-License-Identifier: Apache-2.0 */
#include "base/number.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Should the C locale not be had, the thread stays where it is. */
locale_t um_number_enter(void)
{
    static _Atomic(locale_t) plain;
    locale_t c = atomic_load(&plain), none = (locale_t)0;
    if (!c && (c = newlocale(LC_ALL_MASK, "C", (locale_t)0)) &&
        !atomic_compare_exchange_strong(&plain, &none, c)) {
        freelocale(c); /* another thread was faster */
        c = none;
    }
    return uselocale(c);
}

void um_number_leave(locale_t before)
{
    uselocale(before);
}

int um_number_vprint(char *out, size_t size, const char *fmt, va_list ap)
{
    locale_t before = um_number_enter();
    int n = vsnprintf(out, size, fmt, ap);
    um_number_leave(before);
    return n;
}

int um_number_print(char *out, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = um_number_vprint(out, size, fmt, ap);
    va_end(ap);
    return n;
}

void um_number_float(char out[UM_NUMBER_BYTES], float v)
{
    locale_t before = um_number_enter();
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(out, UM_NUMBER_BYTES, "%.*g", digits, (double)v);
        if (strtof(out, NULL) == v)
            break;
    }
    um_number_leave(before);
}

void um_number_double(char out[UM_NUMBER_BYTES], double v)
{
    locale_t before = um_number_enter();
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, UM_NUMBER_BYTES, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            break;
    }
    um_number_leave(before);
}

bool um_number_read(const char *text, double *v)
{
    if (!*text || strspn(text, "0123456789.eE+-") != strlen(text))
        return false;
    char *end = NULL;
    locale_t before = um_number_enter();
    *v = strtod(text, &end);
    um_number_leave(before);
    return !*end && isfinite(*v);
}

bool um_number_whole(const char *text, uint64_t max, uint64_t *n)
{
    if (!*text || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, NULL, 10);
    *n = v;
    return !errno && v <= max;
}
