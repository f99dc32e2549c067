/* SPDX-License-Identifier: Apache-2.0 */
#include "io/jpeg_write.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>

#include <jpeglib.h>

struct writer {
    struct jpeg_error_mgr errors; /* first: libjpeg hands back a pointer to it */
    struct jpeg_destination_mgr to;
    struct jpeg_compress_struct jpeg;
    jmp_buf jump;
    struct um_jpeg *out;
    char text[JMSG_LENGTH_MAX];
    bool no_memory;
};

static void failed(j_common_ptr jpeg)
{
    struct writer *w = (struct writer *)jpeg->err;
    jpeg->err->format_message(jpeg, w->text);
    longjmp(w->jump, 1);
}

static void quiet(j_common_ptr jpeg, int level)
{
    (void)jpeg, (void)level;
}

static void begin(j_compress_ptr jpeg)
{
    struct writer *w = (struct writer *)jpeg->err;
    w->to.next_output_byte = w->out->data;
    w->to.free_in_buffer = w->out->capacity;
}

static boolean more(j_compress_ptr jpeg)
{
    struct writer *w = (struct writer *)jpeg->err;
    size_t had = w->out->capacity;
    uint8_t *data = um_grow(w->out->data, had, had * 2);
    if (!data) {
        w->no_memory = true;
        longjmp(w->jump, 1);
    }
    w->out->data = data;
    w->out->capacity = had * 2;
    w->to.next_output_byte = data + had;
    w->to.free_in_buffer = had;
    return TRUE;
}

static void end(j_compress_ptr jpeg)
{
    struct writer *w = (struct writer *)jpeg->err;
    w->out->size = w->out->capacity - w->to.free_in_buffer;
}

static um_status write_body(struct writer *w, const um_frame *f, int quality)
{
    struct jpeg_compress_struct *jpeg = &w->jpeg;
    if (setjmp(w->jump))
        return w->no_memory ? um_fail(UM_ENOMEM, "JPEG of a %dx%d image", f->width, f->height)
                            : um_fail(UM_EFORMAT, "JPEG: %s", w->text);
    jpeg_create_compress(jpeg);
    jpeg->dest = &w->to;
    jpeg->image_width = (JDIMENSION)f->width;
    jpeg->image_height = (JDIMENSION)f->height;
    jpeg->input_components = f->channels;
    jpeg->in_color_space = f->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, quality, TRUE);
    jpeg_start_compress(jpeg, TRUE);
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = f->pixels + (ptrdiff_t)jpeg->next_scanline * f->stride;
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
    return UM_OK;
}

um_status um_jpeg_write(struct um_jpeg *out, const um_frame *frame, int quality)
{
    enum { FIRST = 1 << 16 };
    if (!out->data) {
        out->data = um_alloc(FIRST);
        out->capacity = out->data ? FIRST : 0;
    }
    struct writer *w = out->data ? um_zalloc(sizeof *w) : NULL;
    if (!w)
        return um_fail(UM_ENOMEM, "JPEG writer");
    w->out = out;
    w->jpeg.err = jpeg_std_error(&w->errors);
    w->errors.error_exit = failed;
    w->errors.emit_message = quiet;
    w->to.init_destination = begin;
    w->to.empty_output_buffer = more;
    w->to.term_destination = end;
    um_status st = write_body(w, frame, quality);
    jpeg_destroy_compress(&w->jpeg);
    um_free(w);
    return st;
}

void um_jpeg_finish(struct um_jpeg *out)
{
    um_free(out->data);
    *out = (struct um_jpeg){0};
}
