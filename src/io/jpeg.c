/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG in. libjpeg reports errors by longjmp, so what must be released is kept in a struct outside
 * the frame that setjmp() was called in. */
#include "base/mem.h"
#include "io/image.h"

#include <setjmp.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h> /* whose numbers depend on what the former says of its version */

enum {
    /* A block of 8x8 pixels takes a bit of Huffman code at least; arithmetic code may take less. */
    BLOCKS = 8,
    ARITHMETIC_BLOCKS = 64, /* a byte */
    EXIF_BYTES = 65533,
    SCANS = 500 /* a progressive file with more scans than this costs time, not quality */
};

struct jpeg_reader {
    struct jpeg_error_mgr errors; /* first: libjpeg hands back a pointer to it */
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf jump;
    um_frame *frame;
    uint8_t *row; /* CMYK rows before their conversion */
    struct um_image_file *f;
    char text[JMSG_LENGTH_MAX];
};

static void jpeg_failed(j_common_ptr jpeg)
{
    struct jpeg_reader *r = (struct jpeg_reader *)jpeg->err;
    jpeg->err->format_message(jpeg, r->text);
    longjmp(r->jump, 1);
}

/* libjpeg calls missing or damaged image data a warning and fills it with gray; here that is an
 * error. */
static void jpeg_message(j_common_ptr jpeg, int level)
{
    if (level >= 0)
        return;
    switch (jpeg->err->msg_code) {
#if JPEG_LIB_VERSION >= 70 || defined(C_ARITH_CODING_SUPPORTED) || defined(D_ARITH_CODING_SUPPORTED)
    case JWRN_ARITH_BAD_CODE:
#endif
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
    if (r->jpeg.input_scan_number > SCANS) {
        snprintf(r->text, sizeof r->text, "more than %d scans", SCANS);
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

/* "Exif", two zeros, and what follows. */
static int orientation(const struct jpeg_decompress_struct *jpeg)
{
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
        if (m->data_length > 6 && memcmp(m->data, "Exif\0\0", 6) == 0)
            return um_exif_orientation(m->data + 6, m->data_length - 6);
    return 0;
}

static um_status read_jpeg_body(struct jpeg_reader *r)
{
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    if (setjmp(r->jump))
        switch (r->errors.msg_code) {
        case JERR_OUT_OF_MEMORY: return um_fail(UM_ENOMEM, "JPEG");
        case JERR_BAD_PRECISION:
        case JERR_SOF_UNSUPPORTED: /* lossless, hierarchical */
            return um_fail(UM_EFORMAT, "JPEG that is not read (%s): convert it to PNG", r->text);
        default: return um_fail(UM_EFORMAT, "bad JPEG: %s" UM_IMAGE_AGAIN, r->text);
        }
    jpeg_create_decompress(jpeg);
    jpeg->progress = &r->progress;
    jpeg_stdio_src(jpeg, r->f->file);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, EXIF_BYTES);
    jpeg_read_header(jpeg, TRUE);
    r->f->facts.orientation = orientation(jpeg);
    r->f->facts.lossy = true;
    int gray = jpeg->jpeg_color_space == JCS_GRAYSCALE;
    int cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = gray ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
    if (jpeg->image_width > UM_FRAME_MAX_SIDE || jpeg->image_height > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EFORMAT, "JPEG of %ux%u pixels: sides must be at most %d",
                       jpeg->image_width, jpeg->image_height, (int)UM_FRAME_MAX_SIDE);
    int64_t blocks = (int64_t)((jpeg->image_width + 7) / 8) * ((jpeg->image_height + 7) / 8);
    if (blocks / (jpeg->arith_code ? ARITHMETIC_BLOCKS : BLOCKS) > r->f->bytes)
        return um_fail(UM_EFORMAT,
                       "JPEG of %ux%u pixels cannot come from %lld bytes" UM_IMAGE_AGAIN,
                       jpeg->image_width, jpeg->image_height, (long long)r->f->bytes);
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
    r->f->facts.behind = um_image_follows(r->f->file, jpeg->src->next_input_byte,
                                          jpeg->src->bytes_in_buffer, "\xff\xd8\xff");
    return UM_OK;
}

um_status um_jpeg_read(struct um_image_file *f, um_frame **out)
{
    *out = NULL;
    struct jpeg_reader *r = um_zalloc(sizeof *r);
    if (!r)
        return um_fail(UM_ENOMEM, "JPEG reader");
    r->f = f;
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = jpeg_failed;
    r->errors.emit_message = jpeg_message;
    r->progress.progress_monitor = jpeg_progressed;
    um_status st = read_jpeg_body(r);
    jpeg_destroy_decompress(&r->jpeg);
    if (st != UM_OK)
        um_frame_unref(&r->frame);
    *out = r->frame;
    um_free(r->row);
    um_free(r);
    return st;
}
