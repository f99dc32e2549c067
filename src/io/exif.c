/* SPDX-License-Identifier: Apache-2.0 */
/* EXIF is a TIFF file without images, and one number of it matters here. */
#include "io/image.h"

#include <string.h>

/* `count` bytes as a number. */
static uint32_t number(const uint8_t *p, int count, bool big)
{
    uint32_t v = 0;
    for (int i = 0; i < count; i++)
        v |= (uint32_t)p[i] << 8 * (big ? count - 1 - i : i);
    return v;
}

int um_exif_orientation(const uint8_t *exif, size_t n)
{
    enum { ORIENTATION = 274, SHORT = 3, ENTRY = 12 };
    if (n < 8 || (memcmp(exif, "II*\0", 4) != 0 && memcmp(exif, "MM\0*", 4) != 0))
        return 0;
    bool big = exif[0] == 'M';
    size_t at = number(exif + 4, 4, big);
    if (at > n || n - at < 2)
        return 0;
    size_t count = number(exif + at, 2, big), whole = (n - at - 2) / ENTRY;
    const uint8_t *entry = exif + at + 2;
    for (size_t i = 0; i < count && i < whole; i++, entry += ENTRY) {
        uint32_t v = number(entry + 8, 2, big);
        if (number(entry, 2, big) == ORIENTATION && number(entry + 2, 2, big) == SHORT)
            return v >= 1 && v <= 8 ? (int)v : 0;
    }
    return 0;
}
