/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of a TIFF. Gray and RGB of 8 and 16 bits are taken as they are; what is rarer is made RGB
 * by libtiff. Of its codecs only those are used that medical images come in: each is code that a
 * hostile file can reach. */
#include "io/tiff.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include <tiffio.h>

const bool um_tiff_built = true;

struct um_tiff {
    TIFF *tif;
    struct um_image_file *f;
    int pages, copies, next; /* next: the page that is read next */
    bool begun;              /* libtiff stands at a page that was read */
    bool broken;             /* behind the last page there should be another */
    bool damaged;            /* what was read of this page */
    bool many;
    bool stack;     /* ImageJ's: one directory, its pages' pixels one after the other */
    char text[200]; /* libtiff's first complaint about what is being done */
};

/* What a page is made of. */
struct page {
    uint32_t width, height, block_width, block_height;
    uint16_t bits, samples, photometric, planar, coding, format;
    bool tiled;
    int channels;
};

/* ---- what libtiff asks for ---- */

static int complain(TIFF *tif, void *user, const char *module, const char *fmt, va_list args)
{
    struct um_tiff *t = user;
    (void)tif;
    (void)module;
    if (!t->text[0])
        vsnprintf(t->text, sizeof t->text, fmt, args);
    return 1;
}

/* Of warnings one matters: libjpeg goes on over damage, and so would libtiff. Bytes that fill up
 * are none. */
static int warn(TIFF *tif, void *user, const char *module, const char *fmt, va_list args)
{
    struct um_tiff *t = user;
    char text[sizeof t->text];
    (void)tif;
    vsnprintf(text, sizeof text, fmt, args);
    if (!module || strcmp(module, "JPEGLib") != 0 || strstr(text, "extraneous bytes") ||
        (strncmp(text, "Corrupt", 7) != 0 && strncmp(text, "Premature", 9) != 0))
        return 1;
    t->damaged = true;
    if (!t->text[0])
        memcpy(t->text, text, sizeof text);
    return 1;
}

static tmsize_t read_bytes(thandle_t handle, void *to, tmsize_t n)
{
    struct um_tiff *t = handle;
    return n < 0 ? -1 : (tmsize_t)fread(to, 1, (size_t)n, t->f->file);
}

static tmsize_t write_bytes(thandle_t handle, void *from, tmsize_t n)
{
    (void)handle, (void)from, (void)n;
    return -1;
}

static toff_t seek(thandle_t handle, toff_t offset, int whence)
{
    struct um_tiff *t = handle;
    return fseeko(t->f->file, (off_t)offset, whence) == 0 ? (toff_t)ftello(t->f->file) : (toff_t)-1;
}

static int close_nothing(thandle_t handle)
{
    (void)handle;
    return 0;
}

static toff_t size(thandle_t handle)
{
    return (toff_t)((struct um_tiff *)handle)->f->bytes;
}

static um_status bad(const struct um_tiff *t, const char *otherwise)
{
    return um_fail(UM_EFORMAT, "bad TIFF: %s" UM_IMAGE_AGAIN, t->text[0] ? t->text : otherwise);
}

/* ---- pages ---- */

/* Is the directory that libtiff stands at a page, or a copy of one? */
static bool is_page(TIFF *tif)
{
    uint32_t kind = 0;
    return !TIFFGetField(tif, TIFFTAG_SUBFILETYPE, &kind) ||
           !(kind & (FILETYPE_REDUCEDIMAGE | FILETYPE_MASK));
}

/* Images that ImageJ's description counts: of more than 4 GB it writes one directory. */
static int images_of(TIFF *tif)
{
    enum { MOST = 1 << 24 };
    const char *text = NULL, *count;
    if (!TIFFGetField(tif, TIFFTAG_IMAGEDESCRIPTION, &text) || strncmp(text, "ImageJ=", 7) != 0 ||
        !(count = strstr(text, "\nimages=")))
        return 1;
    long n = strtol(count + strlen("\nimages="), NULL, 10);
    return n > 1 && n <= MOST ? (int)n : 1;
}

/* A directory ends with where the next one is; libtiff takes a missing end for "nowhere". */
static bool has_link(struct um_tiff *t)
{
    bool wide = TIFFIsBigTIFF(t->tif), from_top = TIFFIsBigEndian(t->tif);
    int bytes = wide ? 8 : 2;
    uint64_t at = TIFFCurrentDirOffset(t->tif), entries = 0;
    uint8_t count[8];
    if (fseeko(t->f->file, (off_t)at, SEEK_SET) != 0 ||
        fread(count, 1, (size_t)bytes, t->f->file) != (size_t)bytes)
        return false;
    for (int i = 0; i < bytes; i++)
        entries |= (uint64_t)count[i] << 8 * (from_top ? bytes - 1 - i : i);
    uint64_t end = at + (wide ? 8 + 20 * entries + 8 : 2 + 12 * entries + 4);
    return entries <= UINT16_MAX && end <= (uint64_t)t->f->bytes;
}

static TIFF *open_tiff(struct um_tiff *t)
{
    enum {
        MOST = 1 << 29,
        LEAST = 1 << 20,
        RATIO = 1032
    }; /* bytes that libtiff may take at once */
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options)
        return NULL;
    int64_t most = t->f->bytes < MOST / RATIO ? t->f->bytes * RATIO + LEAST : MOST;
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, most);
    TIFFOpenOptionsSetErrorHandlerExtR(options, complain, t);
    TIFFOpenOptionsSetWarningHandlerExtR(options, warn, t);
    TIFF *tif = TIFFClientOpenExt("TIFF", "rm", t, read_bytes, write_bytes, seek, close_nothing,
                                  size, NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    return tif;
}

um_status um_tiff_open(struct um_tiff **out, struct um_image_file *f)
{
    struct um_tiff *t = *out = um_zalloc(sizeof *t);
    if (!t)
        return um_fail(UM_ENOMEM, "TIFF reader");
    t->f = f;
    t->tif = open_tiff(t);
    um_status st = t->tif ? UM_OK : bad(t, "no directory");
    if (st == UM_OK)
        for (bool more = true; more;) {
            bool page = is_page(t->tif);
            t->pages += page;
            t->copies += !page;
            more = !TIFFLastDirectory(t->tif);
            if (more ? !TIFFReadDirectory(t->tif) : !has_link(t)) {
                t->broken = true; /* told when that page's turn has come */
                more = false;
            }
        }
    if (st == UM_OK && !TIFFSetDirectory(t->tif, 0))
        st = bad(t, "no directory");
    if (st == UM_OK && t->pages == 1 && !t->copies && !t->broken)
        t->pages = images_of(t->tif);
    t->stack = t->pages > 1 && st == UM_OK && TIFFLastDirectory(t->tif);
    t->many = t->pages > 1 || t->broken;
    if (st == UM_OK && !t->pages)
        st = um_fail(UM_EFORMAT, "TIFF with smaller copies and masks, and no image" UM_IMAGE_AGAIN);
    if (st != UM_OK)
        um_tiff_close(out);
    return st;
}

bool um_tiff_many(const struct um_tiff *t)
{
    return t->many;
}

void um_tiff_close(struct um_tiff **t)
{
    if (!*t)
        return;
    if ((*t)->tif)
        TIFFClose((*t)->tif);
    um_free(*t);
    *t = NULL;
}

/* ---- one page ---- */

static um_status refuse(const char *what)
{
    return um_fail(UM_EFORMAT,
                   "TIFF with %s is not read: save it with unsigned samples of 8 or 16 bits, gray "
                   "or RGB, uncompressed or with LZW, Deflate, PackBits or JPEG",
                   what);
}

static um_status refuse_bits(int bits)
{
    char what[32];
    snprintf(what, sizeof what, "%d-bit samples", bits);
    return refuse(what);
}

static um_status refuse_coding(int coding)
{
    const TIFFCodec *codec = TIFFFindCODEC((uint16_t)coding);
    char what[64];
    snprintf(what, sizeof what, "compression %d (%s)", coding, codec ? codec->name : "unknown");
    return refuse(what);
}

/* Bytes that one byte of a file can stand for. */
static uint64_t ratio(int coding)
{
    switch (coding) {
    case COMPRESSION_NONE: return 1;
    case COMPRESSION_PACKBITS: return 64;
    case COMPRESSION_LZW: return 2731; /* 12 bits, 4096 bytes */
    case COMPRESSION_JPEG: return 4096;
    default: return 1032; /* deflate */
    }
}

/* Gray beside something else than its opacity. */
static bool has_more_than_gray(TIFF *tif, const struct page *p)
{
    uint16_t n = 0, *kinds = NULL;
    return p->samples > 2 ||
           (p->samples == 2 && (!TIFFGetField(tif, TIFFTAG_EXTRASAMPLES, &n, &kinds) || n != 1 ||
                                kinds[0] == EXTRASAMPLE_UNSPECIFIED));
}

static um_status refuse_gray(int samples)
{
    char what[40];
    snprintf(what, sizeof what, "%d samples of gray a pixel", samples);
    return refuse(what);
}

static um_status describe(struct um_tiff *t, struct page *p)
{
    TIFF *tif = t->tif;
    uint16_t orientation = 0;
    if (!TIFFGetField(tif, TIFFTAG_IMAGEWIDTH, &p->width) ||
        !TIFFGetField(tif, TIFFTAG_IMAGELENGTH, &p->height) ||
        !TIFFGetField(tif, TIFFTAG_PHOTOMETRIC, &p->photometric))
        return bad(t, "no size or colour");
    TIFFGetFieldDefaulted(tif, TIFFTAG_BITSPERSAMPLE, &p->bits);
    TIFFGetFieldDefaulted(tif, TIFFTAG_SAMPLESPERPIXEL, &p->samples);
    TIFFGetFieldDefaulted(tif, TIFFTAG_PLANARCONFIG, &p->planar);
    TIFFGetFieldDefaulted(tif, TIFFTAG_COMPRESSION, &p->coding);
    TIFFGetFieldDefaulted(tif, TIFFTAG_SAMPLEFORMAT, &p->format);
    TIFFGetFieldDefaulted(tif, TIFFTAG_ORIENTATION, &orientation);
    t->f->facts.orientation = orientation <= 8 ? orientation : 0;
    if (p->width > UM_FRAME_MAX_SIDE || p->height > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EFORMAT, "TIFF of %ux%u pixels: sides must be at most %d", p->width,
                       p->height, (int)UM_FRAME_MAX_SIDE);
    if (p->coding != COMPRESSION_NONE && p->coding != COMPRESSION_LZW &&
        p->coding != COMPRESSION_ADOBE_DEFLATE && p->coding != COMPRESSION_DEFLATE &&
        p->coding != COMPRESSION_PACKBITS && p->coding != COMPRESSION_JPEG)
        return refuse_coding(p->coding);
    if (p->format != SAMPLEFORMAT_UINT && p->format != SAMPLEFORMAT_VOID) /* as if unsaid */
        return refuse(p->format == SAMPLEFORMAT_INT      ? "signed samples"
                      : p->format == SAMPLEFORMAT_IEEEFP ? "floating-point samples"
                                                         : "complex samples");
    if (p->bits > 8 && p->bits != 16)
        return refuse_bits(p->bits);
    /* of YCbCr the latter two may be of several pixels */
    uint64_t samples = p->photometric == PHOTOMETRIC_YCBCR ? 1 : p->samples;
    uint64_t row = ((uint64_t)p->width * p->bits * samples + 7) / 8;
    if (row * p->height / ratio(p->coding) > (uint64_t)t->f->bytes)
        return um_fail(UM_EFORMAT,
                       "TIFF of %ux%u pixels cannot come from %lld bytes" UM_IMAGE_AGAIN, p->width,
                       p->height, (long long)t->f->bytes);
    if (p->coding == COMPRESSION_JPEG && p->photometric == PHOTOMETRIC_YCBCR &&
        TIFFSetField(tif, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB))
        p->photometric = PHOTOMETRIC_RGB;
    p->tiled = TIFFIsTiled(tif) != 0;
    p->block_width = p->width;
    p->block_height = p->height;
    if (p->tiled) {
        TIFFGetField(tif, TIFFTAG_TILEWIDTH, &p->block_width);
        TIFFGetField(tif, TIFFTAG_TILELENGTH, &p->block_height);
    } else {
        TIFFGetFieldDefaulted(tif, TIFFTAG_ROWSPERSTRIP, &p->block_height);
        p->block_height = p->block_height < p->height ? p->block_height : p->height;
    }
    /* a tile may be larger than its image, and all of it is unpacked */
    const uint64_t most = UM_FRAME_MAX_PIXELS;
    uint64_t block = (uint64_t)p->block_width * p->block_height;
    bool fits = (uint64_t)p->width * p->height <= most; /* else it is told with its size */
    if (!block || (p->tiled && block > most) || (fits && block * p->samples > 4 * most))
        return bad(t, "blocks of an impossible size");
    bool gray =
        p->photometric == PHOTOMETRIC_MINISBLACK || p->photometric == PHOTOMETRIC_MINISWHITE;
    p->channels = gray ? 1 : 3;
    if (gray && has_more_than_gray(tif, p))
        return refuse_gray(p->samples);
    if (t->stack && (p->coding != COMPRESSION_NONE || p->tiled || p->samples != p->channels ||
                     (p->samples > 1 && p->planar != PLANARCONFIG_CONTIG) || p->bits < 8))
        return refuse("one directory for several images");
    return UM_OK;
}

/* Samples of a block, `w` x `h` pixels of which are in the image, to where they belong. `step`
 * samples lie from one pixel of the block to the next. */
static void place(const struct page *p, const uint8_t *block, uint8_t *to, uint32_t w, uint32_t h,
                  int step, int channels)
{
    size_t bytes = p->bits / 8, row = (size_t)p->width * (size_t)p->channels * bytes;
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++)
            memcpy(to + y * row + x * (size_t)p->channels * bytes,
                   block + ((size_t)y * p->block_width + x) * (size_t)step * bytes,
                   (size_t)channels * bytes);
}

/* All samples of gray and RGB, alpha left out, in rows without gaps. */
static um_status read_blocks(struct um_tiff *t, const struct page *p, uint8_t *to)
{
    bool apart = p->planar == PLANARCONFIG_SEPARATE; /* one channel a block */
    int planes = apart ? p->channels : 1, step = apart ? 1 : p->samples;
    size_t bytes = p->bits / 8,
           whole = (size_t)p->block_width * p->block_height * (size_t)step * bytes;
    tmsize_t said = p->tiled ? TIFFTileSize(t->tif) : TIFFStripSize(t->tif);
    if (said != (tmsize_t)whole)
        return bad(t, "blocks of an unexpected size");
    uint8_t *block = um_alloc(whole);
    if (!block)
        return um_fail(UM_ENOMEM, "TIFF block");
    um_status st = UM_OK;
    for (int plane = 0; plane < planes && st == UM_OK; plane++)
        for (uint32_t y = 0; y < p->height && st == UM_OK; y += p->block_height)
            for (uint32_t x = 0; x < p->width && st == UM_OK; x += p->block_width) {
                uint32_t w = p->width - x < p->block_width ? p->width - x : p->block_width,
                         h = p->height - y < p->block_height ? p->height - y : p->block_height;
                size_t want = p->tiled ? whole : (size_t)w * h * (size_t)step * bytes;
                tmsize_t got =
                    p->tiled
                        ? TIFFReadEncodedTile(t->tif,
                                              TIFFComputeTile(t->tif, x, y, 0, (uint16_t)plane),
                                              block, (tmsize_t)whole)
                        : TIFFReadEncodedStrip(t->tif, TIFFComputeStrip(t->tif, y, (uint16_t)plane),
                                               block, (tmsize_t)want);
                if (got != (tmsize_t)want || t->damaged)
                    st = bad(t, "its pixels end early");
                else
                    place(p, block,
                          to + (((size_t)y * p->width + x) * (size_t)p->channels + (size_t)plane) *
                                   bytes,
                          w, h, step, apart ? 1 : p->channels);
            }
    um_free(block);
    return st;
}

/* An image of a stack. */
static um_status read_stacked(struct um_tiff *t, const struct page *p, uint8_t *to)
{
    size_t n = (size_t)p->width * p->height * (size_t)p->channels * (p->bits / 8);
    uint64_t at = TIFFGetStrileOffset(t->tif, 0), bytes = (uint64_t)t->f->bytes;
    if (at > bytes || (bytes - at) / n < (uint64_t)t->next ||
        fseeko(t->f->file, (off_t)(at + (uint64_t)(t->next - 1) * n), SEEK_SET) != 0 ||
        fread(to, 1, n, t->f->file) != n)
        return bad(t, "its pixels end early");
    if (p->bits == 16 && TIFFIsByteSwapped(t->tif))
        TIFFSwabArrayOfShort((uint16_t *)(void *)to, (tmsize_t)(n / 2));
    return UM_OK;
}

static um_status read_plain(struct um_tiff *t, const struct page *p, um_frame *frame)
{
    size_t n = (size_t)p->width * p->height * (size_t)p->channels;
    uint16_t *wide = p->bits == 16 ? um_alloc(2 * n) : NULL;
    if (p->bits == 16 && !wide)
        return um_fail(UM_ENOMEM, "TIFF of 16 bits");
    uint8_t *to = wide ? (uint8_t *)wide : frame->pixels;
    um_status st = t->stack ? read_stacked(t, p, to) : read_blocks(t, p, to);
    if (st == UM_OK && wide)
        st = um_image_levels(t->f, wide, n, 0, frame->pixels);
    um_free(wide);
    t->f->facts.white = p->photometric == PHOTOMETRIC_MINISWHITE;
    for (size_t i = 0; i < n && p->photometric == PHOTOMETRIC_MINISWHITE; i++)
        frame->pixels[i] = (uint8_t)(255 - frame->pixels[i]);
    return st;
}

static um_status read_rare(struct um_tiff *t, const struct page *p, um_frame *frame)
{
    size_t n = (size_t)p->width * p->height;
    char text[1024] = "";
    uint16_t orientation = 0;
    if (!TIFFRGBAImageOK(t->tif, text))
        return um_fail(UM_EFORMAT, "TIFF that is not read: %s: save it as PNG", text);
    uint32_t *rgba = um_zalloc(n * sizeof *rgba);
    if (!rgba)
        return um_fail(UM_ENOMEM, "TIFF pixels");
    TIFFGetFieldDefaulted(t->tif, TIFFTAG_ORIENTATION, &orientation);
    um_status st = UM_OK;
    t->text[0] = 0;
    if (!TIFFReadRGBAImageOriented(t->tif, p->width, p->height, rgba, orientation, 1) ||
        t->text[0]) /* it goes on over damage */
        st = bad(t, "its pixels cannot be read");
    for (size_t i = 0; i < n && st == UM_OK; i++) {
        uint8_t rgb[3] = {(uint8_t)TIFFGetR(rgba[i]), (uint8_t)TIFFGetG(rgba[i]),
                          (uint8_t)TIFFGetB(rgba[i])};
        memcpy(frame->pixels + i * (size_t)p->channels, rgb, (size_t)p->channels);
    }
    um_free(rgba);
    return st;
}

/* Go to the page that is next. */
static um_status advance(struct um_tiff *t)
{
    if (t->next >= t->pages && !t->broken)
        return UM_EOF;
    if (t->stack) {
        t->next++;
        return UM_OK;
    }
    do {
        if (t->begun && (TIFFLastDirectory(t->tif) || !TIFFReadDirectory(t->tif))) {
            t->next = t->pages + 1;
            t->broken = false;
            return bad(t, "a page that is not there");
        }
        t->begun = true;
    } while (!is_page(t->tif));
    t->next++;
    return UM_OK;
}

um_status um_tiff_read(struct um_tiff *t, um_frame **out)
{
    struct page p = {0};
    *out = NULL;
    t->text[0] = 0;
    t->damaged = false;
    t->f->facts = (struct um_image_facts){.copies = t->copies};
    um_status st = advance(t);
    if (st == UM_EOF)
        return st;
    if (st == UM_OK)
        st = describe(t, &p);
    if (st == UM_OK) {
        st = um_frame_create(out, (int)p.width, (int)p.height, p.channels);
        st = st == UM_EINVAL ? UM_EFORMAT : st;
    }
    bool plain = (p.bits == 8 || p.bits == 16) && p.samples >= p.channels &&
                 (p.channels == 1 || p.photometric == PHOTOMETRIC_RGB);
    if (st == UM_OK)
        st = plain ? read_plain(t, &p, *out) : read_rare(t, &p, *out);
    if (st != UM_OK)
        um_frame_unref(out);
    if (st != UM_OK && t->many) {
        char page[32];
        snprintf(page, sizeof page, "page %d", t->next);
        um_fail_in(st, page);
    }
    if (st != UM_OK && t->stack) /* so it would be with all behind it: a text counts them */
        t->next = t->pages;
    return st;
}
