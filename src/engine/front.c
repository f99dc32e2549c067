/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/front.h"

#include "base/mem.h"
#include "engine/gray.h"
#include "nn/block.h"

#include <string.h>

/* A target's table, with what is known of the gain before there is an image. */
static um_const add_table(um_params *p, const struct um_front_target *to,
                          const struct um_gain_wish *gain)
{
    float bent[3][256], table[3][256];
    if (!gain || gain->mode == UM_GAIN_OFF)
        return um_params_add(p, to->lut, (size_t)to->c * sizeof *to->lut);
    um_gain_bend(bent, to->lut, to->c, gain->gamma);
    um_gain_stretch(table, (const float(*)[256])bent, to->c, gain->times);
    return um_params_add(p, table, (size_t)to->c * sizeof *table);
}

um_status um_front_open(struct um_front *f, um_device *dev, int w, int h, int c,
                        const struct um_front_target *target, int n, int slots,
                        const struct um_gain_wish *gain, bool stream)
{
    struct um_front_input in[2] = {{.out = {0}}};
    um_const lut[2] = {{0, 0}}, state = {0, 0};
    bool automatic = gain && gain->mode == UM_GAIN_AUTO;
    *f = (struct um_front){.dev = dev, .w = w, .h = h, .c = c};
    f->bytes = UM_HEADER_BYTES + (size_t)w * (size_t)h * (size_t)c;
    for (int i = 0; i < n; i++)
        if (target[i].new_h < 1 || target[i].new_w < 1)
            return um_fail(UM_EINVAL,
                           "image %dx%d: too thin, nothing is left of it on a canvas of %dx%d", w,
                           h, target[i].size_w, target[i].size_h);
    if (c == 1 && !(f->work = um_alloc(um_gray_work(w))))
        return um_fail(UM_ENOMEM, "a row of %d columns", w);
    um_status st = um_params_open(&f->params, dev);
    if (st != UM_OK)
        return st;
    for (int i = 0; i < n; i++) {
        const struct um_front_target *to = &target[i];
        in[i].fit = to->fit;
        struct um_margin margin = {to->top, to->left, to->new_h, to->new_w};
        switch (to->fit) {
        case UM_FIT_LONGEST:
            in[i].plan = to->letterbox
                             ? um_resize_prepare_in(f->params, h, w, to->size_h, to->size_w, margin,
                                                    to->smooth)
                             : um_resize_prepare(f->params, h, w, to->new_h, to->new_w, to->smooth);
            break;
        case UM_FIT_RATIO:
            in[i].area = um_area_prepare(f->params, h, w, to->new_h, to->new_w);
            break;
        case UM_FIT_STRETCH:
            in[i].spline = um_spline_prepare(f->params, h, w, to->new_h, to->new_w);
            break;
        }
        if (to->lut)
            lut[i] = add_table(f->params, to, gain);
    }
    if (automatic)
        um_params_reserve(f->params, sizeof(uint32_t), &state);
    st = um_params_upload(f->params);
    if (st == UM_OK)
        st = um_buf_open(&f->frame, dev, f->bytes, "frame");
    for (int i = 0; i < slots && st == UM_OK; i++)
        st = um_hostbuf_open(&f->slot[i], dev, f->bytes);
    if (st == UM_OK)
        st = um_tape_open(&f->tape, dev, "front");
    if (st != UM_OK)
        return st;
    um_tensor x = um_tape_buffer(f->tape, f->frame, UM_HEADER_BYTES, UM_U8, h, w, c);
    for (int i = 0; i < n; i++) {
        const struct um_front_target *to = &target[i];
        in[i].out =
            um_tape_buffer(f->tape, to->input, 0, dev->precision, to->size_h, to->size_w, to->c);
        if (to->lut)
            in[i].lut = um_tape_const(f->tape, f->params, lut[i], UM_F32, 1, to->c, 256);
    }
    if (automatic) {
        um_tensor base[2] = {in[0].lut, in[1].lut}, out[2];
        um_gain(f->tape, x, um_tape_buffer(f->tape, f->frame, 0, UM_U8, 1, 1, UM_HEADER_BYTES),
                um_tape_const(f->tape, f->params, state, UM_U8, 1, 1, sizeof(uint32_t)), base,
                stream, out);
        for (int i = 0; i < n; i++)
            in[i].lut = out[i];
    }
    um_front_record(f->tape, f->params, x, in, n);
    return um_tape_compile(f->tape);
}

void um_front_close(struct um_front *f)
{
    um_tape_close(&f->tape);
    um_params_close(&f->params);
    for (int i = 0; i < UM_FRONT_SLOTS; i++)
        um_hostbuf_close(&f->slot[i]);
    um_buf_close(&f->frame);
    um_free(f->work);
    f->work = NULL;
}

um_status um_front_fill(struct um_front *f, int slot, const struct um_frame_header *header,
                        const um_frame *frame, int x0, int y0)
{
    uint8_t *dst = (uint8_t *)f->slot[slot]->data + UM_HEADER_BYTES;
    if (f->dev->lost)
        return um_fail(UM_EDEVICE, "device %s is lost", f->dev->name);
    memcpy(f->slot[slot]->data, header, UM_HEADER_BYTES);
    if (f->c == 1 && frame->channels == 3) {
        um_gray(dst, frame, x0, y0, f->w, f->h, f->work);
        return UM_OK;
    }
    for (int y = 0; y < f->h; y++) {
        const uint8_t *src =
            frame->pixels + (ptrdiff_t)(y0 + y) * frame->stride + (ptrdiff_t)x0 * frame->channels;
        size_t n = (size_t)f->w * (size_t)f->c;
        if (f->c == frame->channels)
            memcpy(dst, src, n);
        else
            for (int x = 0; x < f->w; x++)
                memset(dst + 3 * (ptrdiff_t)x, src[x], 3);
        dst += n;
    }
    return UM_OK;
}

um_status um_front_upload(struct um_front *f, int slot, enum um_stage stage)
{
    return um_upload(f->dev, UM_QUEUE_MAIN, f->frame, 0, f->slot[slot], 0, f->bytes, stage,
                     "frame");
}

um_status um_front_copy(struct um_front *f, int slot, const struct um_frame_header *header,
                        const void *pixels, ptrdiff_t row_bytes, void *stream)
{
    size_t row = (size_t)f->w * (size_t)f->c, off = UM_HEADER_BYTES;
    if (f->dev->lost)
        return um_fail(UM_EDEVICE, "device %s is lost", f->dev->name);
    memcpy(f->slot[slot]->data, header, UM_HEADER_BYTES);
    um_status st = um_upload(f->dev, UM_QUEUE_MAIN, f->frame, 0, f->slot[slot], 0, UM_HEADER_BYTES,
                             UM_STAGE_UPLOAD, "header of an image that is on the device");
    bool whole = row_bytes == (ptrdiff_t)row;
    for (int y = 0; y < (whole ? 1 : f->h) && st == UM_OK; y++)
        st = um_copy_from(f->dev, UM_QUEUE_MAIN, f->frame, off + (size_t)y * row,
                          (const char *)pixels + y * row_bytes, whole ? row * (size_t)f->h : row,
                          stream);
    return st;
}

um_status um_front_run(struct um_front *f)
{
    return um_tape_run(f->tape, UM_QUEUE_MAIN);
}

uint64_t um_front_device_bytes(const struct um_front *f)
{
    return (uint64_t)f->bytes + um_params_bytes(f->params) + um_tape_arena_bytes(f->tape);
}

int um_front_channels(const um_frame *frame, int x0, int y0, int w, int h)
{
    if (frame->channels == 1)
        return 1;
    for (int y = 0; y < h; y++) {
        const uint8_t *p = frame->pixels + (ptrdiff_t)(y0 + y) * frame->stride + 3 * (ptrdiff_t)x0;
        unsigned differ = 0;
        for (int x = 0; x < w; x++, p += 3)
            differ |= (unsigned)(p[0] ^ p[1]) | (unsigned)(p[0] ^ p[2]);
        if (differ)
            return 3;
    }
    return 1;
}
