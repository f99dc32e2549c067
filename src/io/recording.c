/* SPDX-License-Identifier: Apache-2.0 */
#include "io/recording.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"
#include "io/origin.h"
#include "io/sequence_head.h"

#include <ctype.h>
#include <math.h>
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

/* "nan", "-inf" and so on, as they are written here. */
static bool not_finite(const char *text, double *v)
{
    char *end = NULL;
    *v = strtod(text, &end);
    return end != text && !*end && !isfinite(*v);
}

/* `n` numbers behind each other; false: they are not. `any`: also such as are not finite. */
static bool numbers(const char *text, double *v, int n, bool any)
{
    for (int i = 0; i < n; i++) {
        char one[UM_NUMBER_BYTES];
        text += strspn(text, " ");
        size_t length = strcspn(text, " \n");
        if (!length || length >= sizeof one)
            return false;
        memcpy(one, text, length);
        one[length] = 0;
        if (!um_number_read(one, &v[i]) && !(any && not_finite(one, &v[i])))
            return false;
        text += length;
    }
    return true;
}

void um_recording_tidy(char *name)
{
    for (char *c = name; *c; c++)
        *c = isalnum((unsigned char)*c) || *c == '-' ? *c : '_';
}

void um_recording_place(char name[UM_RECORDING_PLACE], const char *device)
{
    const char *in = strchr(device, '_');
    name[0] = 0;
    if (in && in != device && in[1])
        snprintf(name, UM_RECORDING_PLACE, "%.*sTo%s", (int)(in - device), device, in + 1);
    um_recording_tidy(name);
}

/* The line of a field of the frame, or NULL. */
static const char *find_line(const char *notes, const char *name)
{
    size_t n = strlen(name);
    const char *line = notes;
    while (*line && *line != '\n' && (strncmp(line, name, n) != 0 || line[n] != ' ')) {
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return *line && *line != '\n' ? line : NULL;
}

/* Where the transforms that came end, and what we wrote of the image's place begins: others may
 * have sorted the fields, and then nothing says so. */
static const char *end_of_transforms(const char *notes)
{
    const char *pose = find_line(notes, "UltramotionPose"),
               *image = find_line(notes, "UltramotionImage");
    return pose && image && pose < image ? pose : notes;
}

/* Lines "NAMETransform = 16 numbers"; but for that of the image's place, which is the device's
 * name. */
static void restore_transforms(struct um_origin *o, const char *notes)
{
    static const char ending[] = "Transform";
    const size_t ends = sizeof ending - 1;
    const char *own = end_of_transforms(notes);
    char place[UM_RECORDING_PLACE];
    um_recording_place(place, o->device);
    for (const char *line = notes; *line && *line != '\n'; line += strcspn(line, "\n"), line++) {
        const char *sign = strstr(line, " = ");
        size_t n = sign ? (size_t)(sign - line) : 0;
        double m[16];
        char name[UM_IGTL_NAME + 16], status[8];
        if (n <= ends || n - ends > UM_IGTL_NAME || memcmp(sign - ends, ending, ends) != 0 ||
            memchr(line, '\n', n) ||
            (line >= own && strlen(place) == n - ends && strncmp(line, place, n - ends) == 0) ||
            o->transforms == UM_ORIGIN_TRANSFORMS || !numbers(sign + 3, m, 16, false))
            continue;
        memcpy(o->transform[o->transforms].name, line, n - ends);
        for (int i = 0; i < 12; i++)
            o->transform[o->transforms].matrix[i] = (float)m[i];
        snprintf(name, sizeof name, "%.*sStatus", (int)n, line);
        o->transform[o->transforms++].valid =
            !um_sequence_note(notes, name, status, sizeof status) || um_text_same(status, "OK");
    }
}

um_status um_recording_restore(um_frame *f)
{
    const char *notes = um_frame_notes(f);
    char text[12 * UM_NUMBER_BYTES];
    double v[12];
    if (!notes || !um_sequence_note(notes, "UltramotionImage", text, sizeof text) ||
        !numbers(text, v, 12, true))
        return UM_OK;
    struct um_origin *o = um_zalloc(sizeof *o);
    if (!o)
        return um_fail(UM_ENOMEM, "an image's origin");
    for (int i = 0; i < 3; i++) {
        o->image.t[i] = (float)v[i];
        o->image.s[i] = (float)v[3 + i];
        o->image.n[i] = (float)v[6 + i];
        o->image.p[i] = (float)v[9 + i];
    }
    uint16_t size[3] = {(uint16_t)f->width, (uint16_t)f->height, 1};
    memcpy(o->image.size, size, sizeof size);
    memcpy(o->image.part, size, sizeof size);
    o->image.components = f->channels;
    o->image.scalar = UM_IGTL_U8;
    o->image.endian = UM_IGTL_LITTLE;
    o->image.coordinates = UM_IGTL_RAS;
    if (um_sequence_note(notes, "UltramotionDevice", text, sizeof text)) {
        um_recording_unescape(text);
        snprintf(o->device, sizeof o->device, "%.*s", UM_IGTL_NAME, text);
    }
    if (um_sequence_note(notes, "UltramotionStamp", text, sizeof text))
        o->stamp = strtoull(text, NULL, 16);
    restore_transforms(o, notes);
    um_frame_set_origin(f, o);
    return UM_OK;
}

void um_recording_escape(char *to, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s > ' ' && *s != '%' && *s != 0x7f)
            *to++ = (char)*s;
        else
            to += sprintf(to, "%%%02X", *s);
    }
    *to = 0;
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
