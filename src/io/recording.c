/* SPDX-License-Identifier: Apache-2.0 */
#include "io/recording.h"

#include "base/mem.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

void um_recording_part(char name[UM_RECORDING_NAME], int part, const char *ending)
{
    snprintf(name, UM_RECORDING_NAME, "frames_%03d.%s", part, ending);
}

void um_recording_sum(char sum[9], const um_frame *f)
{
    uLong crc = crc32(0, NULL, 0);
    for (int y = 0; y < f->height; y++)
        crc = crc32(crc, f->pixels + y * f->stride, (uInt)f->width * (uInt)f->channels);
    snprintf(sum, 9, "%08lx", (unsigned long)crc & 0xffffffff);
}

char *um_recording_escape(const char *text)
{
    char *escaped = um_alloc(3 * strlen(text) + 1), *to = escaped;
    for (const unsigned char *s = (const unsigned char *)text; escaped && *s; s++) {
        if (*s > ' ' && *s != '%' && *s != 0x7f)
            *to++ = (char)*s;
        else
            to += sprintf(to, "%%%02X", *s);
    }
    if (escaped)
        *to = 0;
    return escaped;
}

void um_recording_unescape(char *text)
{
    char *to = text;
    for (const char *s = text; *s; s++) {
        char hex[3] = {s[0] == '%' ? s[1] : 0, s[0] == '%' && s[1] ? s[2] : 0, 0}, *end = hex;
        long code = hex[0] ? strtol(hex, &end, 16) : 0;
        bool coded = end == hex + 2 && code > 0;
        *to++ = coded ? (char)code : *s;
        s += coded ? 2 : 0;
    }
    *to = 0;
}
