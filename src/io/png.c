/* SPDX-License-Identifier: Apache-2.0 */
/* PNG in and out. libpng reports errors by longjmp, so what must be released is kept in a struct
 * outside the frame that setjmp() was called in. */
#include "base/file.h"
#include "base/mem.h"
#include "io/image.h"
#include "ultramotion/io.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

enum {
    CHUNK_BYTES = 8 << 20, /* a chunk larger than this is an attack */
    RATIO = 1032,          /* no deflate stream expands further */
    LEVEL = 2              /* twice as fast as zlib's default, 3 % larger on ultrasound */
};

struct png_reader {
    png_structp png;
    png_infop info;
    um_frame *frame;
    uint8_t *raw; /* rows as they lie in the file, where the frame has no room for them */
    struct um_image_file *f;
    int bits;    /* sBIT */
    bool frames; /* a frame of the animation stands before the still image: it is that */
    char text[200];
};

static void png_failed(png_structp png, png_const_charp text)
{
    struct png_reader *r = png_get_error_ptr(png);
    snprintf(r->text, sizeof r->text, "%s", text);
    longjmp(png_jmpbuf(png), 1);
}

static void png_warned(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* Chunks beside the pixels. Only a few are looked at; thousands of texts that inflate to megabytes
 * stay packed. */
static int read_chunk(png_structp png, png_unknown_chunkp c)
{
    struct png_reader *r = png_get_user_chunk_ptr(png);
    const char *name = (const char *)c->name;
    if (strcmp(name, "eXIf") == 0 && !r->f->facts.orientation)
        r->f->facts.orientation = um_exif_orientation(c->data, c->size);
    else if (strcmp(name, "sBIT") == 0)
        for (size_t i = 0; i < c->size; i++)
            r->bits = c->data[i] > r->bits ? c->data[i] : r->bits;
    else if (strcmp(name, "acTL") == 0 && c->size == 8)
        r->f->facts.animation = png_get_uint_32(c->data);
    else if (strcmp(name, "fcTL") == 0 && !(c->location & PNG_AFTER_IDAT))
        r->frames = true;
    return 1;
}

static void read_rows(struct png_reader *r, int passes, size_t row)
{
    if (row != png_get_rowbytes(r->png, r->info))
        png_error(r->png, "rows of an unexpected size");
    uint8_t *to = r->raw ? r->raw : r->frame->pixels;
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < r->frame->height; y++)
            png_read_row(r->png, to + (size_t)y * row, NULL);
    png_read_end(r->png, r->info); /* a file cut off after its pixels is a cut-off file */
}

/* Pixels of `color` and `alpha` bytes lose their alpha. Did it differ anywhere? */
static bool drop_alpha(uint8_t *pixels, size_t n, size_t color, size_t alpha)
{
    uint8_t first[2];
    bool differs = false;
    memcpy(first, pixels + color, alpha);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + i * (color + alpha);
        differs = differs || memcmp(p + color, first, alpha) != 0;
        memmove(pixels + i * color, p, color);
    }
    return differs;
}

static um_status read_png_body(struct png_reader *r)
{
    if (setjmp(png_jmpbuf(r->png)))
        return strcmp(r->text, "Out of memory") == 0
                   ? um_fail(UM_ENOMEM, "PNG")
                   : um_fail(UM_EFORMAT, "bad PNG: %s" UM_IMAGE_AGAIN, r->text);
    png_init_io(r->png, r->f->file);
    png_set_user_limits(r->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* um_frame_create() has ours */
    png_set_chunk_malloc_max(r->png, CHUNK_BYTES);
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_read_user_chunk_fn(r->png, r, read_chunk);
    png_read_info(r->png, r->info);
    int width = (int)png_get_image_width(r->png, r->info);
    int height = (int)png_get_image_height(r->png, r->info);
    int gray = !(png_get_color_type(r->png, r->info) & PNG_COLOR_MASK_COLOR);
    if (png_get_rowbytes(r->png, r->info) * (size_t)height / RATIO > (size_t)r->f->bytes)
        return um_fail(UM_EFORMAT, "PNG of %dx%d pixels cannot come from %lld bytes" UM_IMAGE_AGAIN,
                       width, height, (long long)r->f->bytes);
    um_status st = um_frame_create(&r->frame, width, height, gray ? 1 : 3);
    if (st != UM_OK)
        return st == UM_EINVAL ? UM_EFORMAT : st;
    png_set_expand(r->png); /* palettes to RGB, 1, 2, 4 bits to 8, transparency to alpha */
    int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    size_t pixels = (size_t)width * (size_t)height, samples = pixels * (gray ? 1 : 3);
    size_t bytes = png_get_bit_depth(r->png, r->info) / 8, color = (gray ? 1 : 3) * bytes;
    size_t alpha = png_get_channels(r->png, r->info) == (gray ? 2 : 4) ? bytes : 0;
    if ((bytes == 2 || alpha) && !(r->raw = um_alloc(pixels * (color + alpha))))
        return um_fail(UM_ENOMEM, "PNG of 16 bits or with alpha");
    read_rows(r, passes, (size_t)width * (color + alpha));
    r->f->facts.behind = um_image_follows(r->f->file, "", 0, "\x89PNG\r\n\x1a\n");
    r->f->facts.still_apart = r->f->facts.animation && !r->frames;
    if (alpha)
        r->f->facts.alpha = drop_alpha(r->raw, pixels, color, alpha);
    if (bytes == 1 && alpha)
        memcpy(r->frame->pixels, r->raw, samples);
    if (bytes == 1)
        return UM_OK;
    uint16_t *native = (uint16_t *)(void *)r->raw;
    for (size_t i = 0; i < samples; i++)
        native[i] = (uint16_t)(r->raw[2 * i] << 8 | r->raw[2 * i + 1]);
    return um_image_levels(r->f, native, samples, r->bits < 16 ? r->bits : 0, r->frame->pixels);
}

um_status um_png_read(struct um_image_file *f, um_frame **out)
{
    struct png_reader r = {.f = f};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, png_failed, png_warned);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    um_status st = r.info ? read_png_body(&r) : um_fail(UM_ENOMEM, "PNG reader");
    png_destroy_read_struct(&r.png, &r.info, NULL);
    um_free(r.raw);
    if (st != UM_OK)
        um_frame_unref(&r.frame);
    *out = r.frame;
    return st;
}

struct png_writer {
    png_structp png;
    png_infop info;
    struct um_part part;
    char text[200];
};

static void png_write_failed(png_structp png, png_const_charp text)
{
    struct png_writer *w = png_get_error_ptr(png);
    snprintf(w->text, sizeof w->text, "%s", text);
    longjmp(png_jmpbuf(png), 1);
}

static void png_write_bytes(png_structp png, png_bytep data, size_t size)
{
    struct png_writer *w = png_get_io_ptr(png);
    if (!um_part_write(&w->part, data, size))
        png_error(png, "write error");
}

static um_status write_png_body(struct png_writer *w, const uint8_t *pixels, int width, int height,
                                int channels)
{
    if (setjmp(png_jmpbuf(w->png)))
        return strcmp(w->text, "Out of memory") == 0
                   ? um_fail(UM_ENOMEM, "PNG")
                   : um_fail(UM_EIO, "%s: cannot be written: %s", w->part.path,
                             w->part.error ? strerror(w->part.error) : w->text);
    png_set_write_fn(w->png, w, png_write_bytes, NULL);
    png_set_IHDR(w->png, w->info, (png_uint_32)width, (png_uint_32)height, 8,
                 channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(w->png, LEVEL);
    png_set_filter(w->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
    png_write_info(w->png, w->info);
    for (int y = 0; y < height; y++)
        png_write_row(w->png, pixels + (size_t)y * (size_t)width * (size_t)channels);
    png_write_end(w->png, NULL);
    return UM_OK;
}

um_status um_image_write_png(const char *path, const uint8_t *pixels, int width, int height,
                             int channels)
{
    if (!path || !pixels || width < 1 || height < 1 || (channels != 1 && channels != 3))
        return um_fail(UM_EINVAL, "PNG of %dx%dx%d: %s", width, height, channels,
                       path ? path : "no path");
    struct png_writer w = {.png = NULL};
    um_status st = um_part_open(&w.part, path);
    if (st != UM_OK)
        return st;
    w.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &w, png_write_failed, png_warned);
    w.info = w.png ? png_create_info_struct(w.png) : NULL;
    st = w.info ? write_png_body(&w, pixels, width, height, channels)
                : um_fail(UM_ENOMEM, "PNG writer");
    png_destroy_write_struct(&w.png, &w.info);
    return um_part_close(&w.part, st);
}
