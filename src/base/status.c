/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include "base/number.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PREFIX_BYTES = 401 };
static _Thread_local char text[UM_ERROR_BYTES];

um_status um_fail(um_status status, const char *fmt, ...)
{
    static const char MEMORY[] = "out of memory: ";
    char raw[UM_ERROR_BYTES]; /* the arguments may be the text itself */
    size_t n = status == UM_ENOMEM ? sizeof MEMORY - 1 : 0;
    va_list ap;
    memcpy(raw, MEMORY, n);
    va_start(ap, fmt);
    um_number_vprint(raw + n, sizeof raw - n, fmt, ap);
    va_end(ap);
    bool told = n && strstr(raw + n, MEMORY); /* a text that is passed on */
    um_text_show(text, sizeof text, told ? raw + n : raw);
    return status;
}

um_status um_fail_in(um_status status, const char *prefix)
{
    char old[UM_ERROR_BYTES - PREFIX_BYTES - 1], shown[PREFIX_BYTES];
    memcpy(old, text, sizeof old);
    old[sizeof old - 1] = 0;
    um_text_show(shown, sizeof shown, prefix);
    snprintf(text, sizeof text, "%s: %s", shown, old);
    return status;
}

um_status um_set_error(um_status status, const char *said)
{
    return um_fail(status, "%s", said ? said : "");
}

const char *um_last_error(void)
{
    return text;
}

const char *um_status_name(um_status status)
{
    switch (status) {
    case UM_OK: return "UM_OK";
    case UM_AGAIN: return "UM_AGAIN";
    case UM_EOF: return "UM_EOF";
    case UM_EINVAL: return "UM_EINVAL";
    case UM_ENOMEM: return "UM_ENOMEM";
    case UM_EIO: return "UM_EIO";
    case UM_EFORMAT: return "UM_EFORMAT";
    case UM_EDEVICE: return "UM_EDEVICE";
    case UM_EUNSUPPORTED: return "UM_EUNSUPPORTED";
    case UM_EASSERT: return "UM_EASSERT";
    case UM_ENUMERIC: return "UM_ENUMERIC";
    }
    return "unknown status";
}
