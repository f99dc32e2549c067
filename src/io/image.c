/* SPDX-License-Identifier: Apache-2.0 */
/* PNG and JPEG in, PNG out. Both libraries report errors by longjmp, so each codec keeps what it
 * must release in a struct outside the frame that setjmp() was called in. */
#include "base/file.h"
#include "base/mem.h"
#include "ultramotion/io.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

enum {
    PNG_CHUNK_BYTES = 8 << 20, /* a chunk larger than this is an attack */
    PNG_RATIO = 1032,          /* no deflate stream expands further */
    /* A block of 8x8 pixels takes a bit of Huffman code at least; arithmetic code may take less. */
    JPEG_BLOCKS = 8,
    JPEG_ARITHMETIC_BLOCKS = 64, /* a byte */
    JPEG_SCANS = 500, /* a progressive file with more scans than this costs time, not quality */
    PNG_LEVEL = 2     /* twice as fast as zlib's default, 3 % larger on ultrasound */
};

struct png_reader {
    png_structp png;
    png_infop info;
    um_frame *frame;
    int64_t file_bytes;
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

static um_status read_png_body(struct png_reader *r, FILE *file)
{
    if (setjmp(png_jmpbuf(r->png)))
        return strcmp(r->text, "Out of memory") == 0 ? um_fail(UM_ENOMEM, "PNG")
                                                     : um_fail(UM_EFORMAT, "bad PNG: %s", r->text);
    png_init_io(r->png, file);
    png_set_user_limits(r->png, UM_FRAME_MAX_SIDE, UM_FRAME_MAX_SIDE);
    png_set_chunk_malloc_max(r->png, PNG_CHUNK_BYTES);
    /* Only what pixels are made of: thousands of texts that inflate to megabytes stay unread. */
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(r->png, r->info);
    int width = (int)png_get_image_width(r->png, r->info);
    int height = (int)png_get_image_height(r->png, r->info);
    int gray = !(png_get_color_type(r->png, r->info) & PNG_COLOR_MASK_COLOR);
    if (png_get_rowbytes(r->png, r->info) * (size_t)height / PNG_RATIO > (size_t)r->file_bytes)
        return um_fail(UM_EFORMAT, "PNG of %dx%d pixels cannot come from %lld bytes", width, height,
                       (long long)r->file_bytes);
    um_status st = um_frame_create(&r->frame, width, height, gray ? 1 : 3);
    if (st != UM_OK)
        return st == UM_EINVAL ? UM_EFORMAT : st;
    png_set_expand(r->png); /* palettes to RGB, 1, 2, 4 bits to 8, transparency to alpha */
    png_set_scale_16(r->png);
    png_set_strip_alpha(r->png);
    int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (png_get_rowbytes(r->png, r->info) != (size_t)r->frame->stride)
        png_error(r->png, "rows of an unexpected size");
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < height; y++)
            png_read_row(r->png, r->frame->pixels + y * r->frame->stride, NULL);
    png_read_end(r->png, NULL); /* a file cut off after its pixels is a cut-off file */
    return UM_OK;
}

static um_status read_png(FILE *file, int64_t file_bytes, um_frame **out)
{
    struct png_reader r = {.file_bytes = file_bytes};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, png_failed, png_warned);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    um_status st = r.info ? read_png_body(&r, file) : um_fail(UM_ENOMEM, "PNG reader");
    png_destroy_read_struct(&r.png, &r.info, NULL);
    if (st != UM_OK)
        um_frame_unref(&r.frame);
    *out = r.frame;
    return st;
}

struct jpeg_reader {
    struct jpeg_error_mgr errors; /* first: libjpeg hands back a pointer to it */
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf jump;
    um_frame *frame;
    uint8_t *row; /* CMYK rows before their conversion */
    int64_t file_bytes;
    char text[JMSG_LENGTH_MAX];
};

static void jpeg_failed(j_common_ptr jpeg)
{
    struct jpeg_reader *r = (struct jpeg_reader *)jpeg->err;
    jpeg->err->format_message(jpeg, r->text);
    longjmp(r->jump, 1);
}

/* libjpeg calls missing or damaged picture data a warning and fills it with gray; here that is an
 * error. */
static void jpeg_message(j_common_ptr jpeg, int level)
{
    if (level >= 0)
        return;
    switch (jpeg->err->msg_code) {
    case JWRN_BOGUS_PROGRESSION:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_NOT_SEQUENTIAL: jpeg_failed(jpeg); break;
    default: break;
    }
}

static void jpeg_progressed(j_common_ptr jpeg)
{
    struct jpeg_reader *r = (struct jpeg_reader *)jpeg->err;
    if (r->jpeg.input_scan_number > JPEG_SCANS) {
        snprintf(r->text, sizeof r->text, "more than %d scans", JPEG_SCANS);
        longjmp(r->jump, 1);
    }
}

/* Adobe writes CMYK and YCCK inverted, so 255 means no ink. */
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, int width, int inverted)
{
    for (int x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        int k = inverted ? cmyk[3] : 255 - cmyk[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(((inverted ? cmyk[c] : 255 - cmyk[c]) * k + 127) / 255);
    }
}

static um_status read_jpeg_body(struct jpeg_reader *r, FILE *file)
{
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    if (setjmp(r->jump))
        return r->errors.msg_code == JERR_OUT_OF_MEMORY
                   ? um_fail(UM_ENOMEM, "JPEG")
                   : um_fail(UM_EFORMAT, "bad JPEG: %s", r->text);
    jpeg_create_decompress(jpeg);
    jpeg->progress = &r->progress;
    jpeg_stdio_src(jpeg, file);
    jpeg_read_header(jpeg, TRUE);
    int gray = jpeg->jpeg_color_space == JCS_GRAYSCALE;
    int cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = gray ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
    if (jpeg->image_width > UM_FRAME_MAX_SIDE || jpeg->image_height > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EFORMAT, "JPEG of %ux%u pixels: sides must be at most %d",
                       jpeg->image_width, jpeg->image_height, (int)UM_FRAME_MAX_SIDE);
    int64_t blocks = (int64_t)((jpeg->image_width + 7) / 8) * ((jpeg->image_height + 7) / 8);
    if (blocks / (jpeg->arith_code ? JPEG_ARITHMETIC_BLOCKS : JPEG_BLOCKS) > r->file_bytes)
        return um_fail(UM_EFORMAT, "JPEG of %ux%u pixels cannot come from %lld bytes",
                       jpeg->image_width, jpeg->image_height, (long long)r->file_bytes);
    um_status st =
        um_frame_create(&r->frame, (int)jpeg->image_width, (int)jpeg->image_height, gray ? 1 : 3);
    if (st != UM_OK)
        return st == UM_EINVAL ? UM_EFORMAT : st;
    if (cmyk && !(r->row = um_alloc((size_t)jpeg->image_width * 4)))
        return um_fail(UM_ENOMEM, "JPEG row");
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = r->frame->pixels + (ptrdiff_t)jpeg->output_scanline * r->frame->stride;
        JSAMPROW row = cmyk ? r->row : to;
        if (jpeg_read_scanlines(jpeg, &row, 1) == 1 && cmyk)
            cmyk_to_rgb(r->row, to, r->frame->width, jpeg->saw_Adobe_marker);
    }
    jpeg_finish_decompress(jpeg);
    return UM_OK;
}

static um_status read_jpeg(FILE *file, int64_t file_bytes, um_frame **out)
{
    *out = NULL;
    struct jpeg_reader *r = um_zalloc(sizeof *r);
    if (!r)
        return um_fail(UM_ENOMEM, "JPEG reader");
    r->file_bytes = file_bytes;
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = jpeg_failed;
    r->errors.emit_message = jpeg_message;
    r->progress.progress_monitor = jpeg_progressed;
    um_status st = read_jpeg_body(r, file);
    jpeg_destroy_decompress(&r->jpeg);
    if (st != UM_OK)
        um_frame_unref(&r->frame);
    *out = r->frame;
    um_free(r->row);
    um_free(r);
    return st;
}

/* Errors do not name the file. */
static um_status read_file(FILE *file, int64_t file_bytes, um_frame **out)
{
    uint8_t head[8];
    size_t n = fread(head, 1, sizeof head, file);
    if (ferror(file) || fseek(file, 0, SEEK_SET) != 0)
        return um_fail(UM_EIO, "cannot read: %s", strerror(errno));
    if (n == 0)
        return um_fail(UM_EFORMAT, "empty file");
    if (n == 8 && png_sig_cmp(head, 0, 8) == 0)
        return read_png(file, file_bytes, out);
    if (n >= 3 && head[0] == 0xff && head[1] == 0xd8 && head[2] == 0xff)
        return read_jpeg(file, file_bytes, out);
    return um_fail(UM_EFORMAT, "neither PNG nor JPEG");
}

um_status um_image_read(const char *path, um_frame **out)
{
    if (!path || !out)
        return um_fail(UM_EINVAL, "um_image_read: %s is NULL", path ? "out" : "path");
    *out = NULL;
    int fd = -1;
    int64_t size = 0;
    um_status st = um_file_open(path, &fd, &size);
    FILE *file = st == UM_OK ? fdopen(fd, "rb") : NULL;
    if (st == UM_OK && !file) {
        st = um_fail(UM_ENOMEM, "stream");
        close(fd);
    }
    if (st == UM_OK)
        st = read_file(file, size, out);
    if (file)
        fclose(file);
    return st == UM_OK ? st : um_fail_in(st, path);
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
    png_set_compression_level(w->png, PNG_LEVEL);
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
