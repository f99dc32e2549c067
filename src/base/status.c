/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };
static _Thread_local char text[TEXT_BYTES];

um_status um_fail(um_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return status;
}

um_status um_fail_in(um_status status, const char *prefix)
{
    char old[TEXT_BYTES / 2];
    memcpy(old, text, sizeof old - 1);
    old[sizeof old - 1] = 0;
    snprintf(text, sizeof text, "%.400s: %s", prefix, old);
    return status;
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
