/* SPDX-License-Identifier: Apache-2.0 */
/* BMP in: 1, 4, 8, 16, 24 and 32 bits, not packed. Ours, because what Debian has does not fit:
 * stb_image takes a file that was cut for a whole one, gdk-pixbuf brings GLib and loads modules,
 * GD and Leptonica bring a dozen libraries. */
#include "base/mem.h"
#include "io/image.h"

#include <errno.h>
#include <string.h>

enum { HEADERS = 14 + 124, PALETTE = 256 };

struct bmp {
    int width, height, bits;
    bool from_top; /* rows; else from the bottom */
    uint32_t mask[3];
    uint8_t palette[PALETTE][3]; /* RGB */
    int colors;
    bool gray; /* a palette of grays only */
    int64_t pixels_at;
};

static uint32_t u16(const uint8_t *p)
{
    return (uint32_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

/* Masks of 16- and 32-bit pixels: as the header says, or as it is without. A mask is one run of
 * bits. */
static um_status read_masks(struct bmp *b, const uint8_t *p, bool given)
{
    static const uint32_t plain[2][3] = {{0x7c00, 0x3e0, 0x1f}, {0xff0000, 0xff00, 0xff}};
    for (int c = 0; c < 3; c++) {
        uint32_t m = given ? u32(p + 4 * c) : plain[b->bits == 32][c];
        uint32_t low = m & (~m + 1);
        if (!m || (m + low) & m || (b->bits == 16 && m > 0xffff))
            return um_fail(UM_EFORMAT, "BMP: colour mask %08x is not one run of bits", (unsigned)m);
        b->mask[c] = m;
    }
    return UM_OK;
}

static void read_palette(struct bmp *b, const uint8_t *p, size_t entry)
{
    b->gray = true;
    for (int i = 0; i < b->colors; i++, p += entry) {
        for (int c = 0; c < 3; c++)
            b->palette[i][c] = p[2 - c];
        b->gray = b->gray && p[0] == p[1] && p[1] == p[2];
    }
}

/* The headers, which say all but the pixels; `n` bytes of the file are at p. */
static um_status read_headers(struct bmp *b, const uint8_t *p, size_t n)
{
    static const char *const packed[] = {"", "RLE8", "RLE4", "", "JPEG", "PNG", ""};
    if (n < 14 + 12)
        return um_fail(UM_EFORMAT, "bad BMP: it ends in its header" UM_IMAGE_AGAIN);
    size_t size = u32(p + 14), used = 14 + size;
    bool core = size == 12;
    if ((!core && size < 40) || used > HEADERS || used > n)
        return um_fail(UM_EFORMAT, "bad BMP: a header of %zu bytes" UM_IMAGE_AGAIN, size);
    int32_t width = core ? (int32_t)u16(p + 18) : (int32_t)u32(p + 18),
            height = core ? (int32_t)u16(p + 20) : (int32_t)u32(p + 22);
    uint32_t coding = core ? 0 : u32(p + 30), colors = core ? 0 : u32(p + 46);
    b->bits = (int)u16(p + (core ? 24 : 28));
    b->from_top = height < 0;
    if (height == INT32_MIN)
        return um_fail(UM_EFORMAT, "bad BMP: a height of %d" UM_IMAGE_AGAIN, (int)height);
    b->width = width;
    b->height = b->from_top ? -height : height;
    b->pixels_at = u32(p + 10);
    if (coding == 1 || coding == 2 || coding == 4 || coding == 5)
        return um_fail(UM_EFORMAT, "BMP with %s inside is not read: save it without compression",
                       packed[coding]);
    bool deep = b->bits == 16 || b->bits == 32, few = b->bits == 1 || b->bits == 4 || b->bits == 8;
    if ((!few && !deep && b->bits != 24) || (coding && !(deep && (coding == 3 || coding == 6))))
        return um_fail(UM_EFORMAT, "bad BMP: %d bits with compression %u" UM_IMAGE_AGAIN, b->bits,
                       (unsigned)coding);
    if (deep) {
        size_t masks = 14 + 40; /* behind the short header, inside of the longer ones */
        if (coding && masks + 12 > n)
            return um_fail(UM_EFORMAT, "bad BMP: it ends in its header" UM_IMAGE_AGAIN);
        return read_masks(b, p + (coding ? masks : 0), coding != 0);
    }
    if (few) {
        size_t entry = core ? 3 : 4;
        b->colors = 1 << b->bits;
        if (colors && colors < (uint32_t)b->colors)
            b->colors = (int)colors;
        if (used + (size_t)b->colors * entry > n)
            return um_fail(UM_EFORMAT, "bad BMP: it ends in its palette" UM_IMAGE_AGAIN);
        read_palette(b, p + used, entry);
    }
    return UM_OK;
}

/* Bits of a mask, as 8. */
static uint8_t part(uint32_t pixel, uint32_t mask)
{
    uint32_t low = mask & (~mask + 1);
    uint64_t v = (pixel & mask) / low, most = mask / low;
    return (uint8_t)((v * 255 + most / 2) / most);
}

/* False: a pixel's colour is not in the palette. */
static bool unpack(const struct bmp *b, const uint8_t *row, uint8_t *to)
{
    int channels = b->gray ? 1 : 3;
    for (int x = 0; x < b->width; x++, to += channels) {
        if (b->bits <= 8) {
            int at = x * b->bits, v = row[at / 8] >> (8 - b->bits - at % 8) & ((1 << b->bits) - 1);
            if (v >= b->colors)
                return false;
            memcpy(to, b->palette[v], (size_t)channels);
        } else if (b->bits == 24) {
            for (int c = 0; c < 3; c++)
                to[c] = row[3 * x + 2 - c];
        } else {
            uint32_t pixel = b->bits == 16 ? u16(row + 2 * x) : u32(row + 4 * x);
            for (int c = 0; c < 3; c++)
                to[c] = part(pixel, b->mask[c]);
        }
    }
    return true;
}

static um_status read_rows(const struct bmp *b, FILE *file, uint8_t *row, size_t bytes,
                           um_frame *frame)
{
    for (int y = 0; y < b->height; y++) {
        int line = b->from_top ? y : b->height - 1 - y;
        if (fread(row, 1, bytes, file) != bytes)
            return ferror(file)
                       ? um_fail(UM_EIO, "cannot read: %s", strerror(errno))
                       : um_fail(UM_EFORMAT, "bad BMP: it ends in row %d of %d" UM_IMAGE_AGAIN, y,
                                 b->height);
        if (!unpack(b, row, frame->pixels + line * frame->stride))
            return um_fail(UM_EFORMAT,
                           "bad BMP: a colour in row %d is beyond its palette of %d" UM_IMAGE_AGAIN,
                           line, b->colors);
    }
    return UM_OK;
}

um_status um_bmp_read(struct um_image_file *f, um_frame **out)
{
    static const struct bmp none;
    struct bmp b = none;
    uint8_t head[HEADERS + 4 * PALETTE];
    *out = NULL;
    size_t n = fread(head, 1, sizeof head, f->file);
    um_status st = read_headers(&b, head, n);
    if (st != UM_OK)
        return st;
    size_t bytes = ((size_t)b.width * (size_t)b.bits + 31) / 32 * 4;
    if (b.width > 0 && b.height > 0 &&
        (bytes > INT32_MAX || f->bytes / (int64_t)bytes + 1 < b.height))
        return um_fail(UM_EFORMAT, "BMP of %dx%d pixels cannot come from %lld bytes" UM_IMAGE_AGAIN,
                       b.width, b.height, (long long)f->bytes);
    st = um_frame_create(out, b.width, b.height, b.gray ? 1 : 3);
    if (st != UM_OK)
        return st == UM_EINVAL ? UM_EFORMAT : st;
    uint8_t *row = um_alloc(bytes);
    if (!row)
        st = um_fail(UM_ENOMEM, "BMP row");
    else if (fseeko(f->file, b.pixels_at, SEEK_SET) != 0)
        st = um_fail(UM_EIO, "cannot read: %s", strerror(errno));
    else
        st = read_rows(&b, f->file, row, bytes, *out);
    um_free(row);
    if (st != UM_OK)
        um_frame_unref(out);
    return st;
}
