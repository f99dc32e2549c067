/* SPDX-License-Identifier: Apache-2.0 */
#include "io/decoder.h"

#include "base/mem.h"

#include <string.h>

enum { SCALE = SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT };

um_status um_decoder_open(struct um_decoder *d, const struct um_libav *av, AVStream *stream,
                          const AVCodec *codec)
{
    *d = (struct um_decoder){.av = av, .stream = stream};
    d->codec = av->avcodec_alloc_context3(codec);
    d->packet = av->av_packet_alloc();
    d->frame = av->av_frame_alloc();
    if (!d->codec || !d->packet || !d->frame)
        return um_fail(UM_ENOMEM, "video decoder");
    int code = av->avcodec_parameters_to_context(d->codec, stream->codecpar);
    d->codec->max_pixels = UM_FRAME_MAX_PIXELS;
    d->codec->thread_count = 1; /* more would hold frames back */
    d->codec->pkt_timebase = stream->time_base;
    if (code >= 0)
        code = av->avcodec_open2(d->codec, codec, NULL);
    return code < 0 ? um_libav_fail(UM_EFORMAT, "a video whose decoder refuses it", code) : UM_OK;
}

void um_decoder_close(struct um_decoder *d)
{
    if (!d->av)
        return;
    d->av->sws_freeContext(d->scale);
    d->av->av_frame_free(&d->frame);
    d->av->av_packet_free(&d->packet);
    d->av->avcodec_free_context(&d->codec);
}

static um_status set_up(struct um_decoder *d, int format)
{
    const AVFrame *a = d->frame;
    struct look look = {a->width, a->height, a->format, format, a->colorspace, a->color_range};
    if (d->scale && memcmp(&look, &d->look, sizeof look) == 0)
        return UM_OK;
    d->scale = d->av->sws_getCachedContext(d->scale, a->width, a->height, a->format, a->width,
                                           a->height, format, SCALE, NULL, NULL, NULL);
    if (!d->scale)
        return um_fail(UM_EFORMAT, "pixels of a kind that is not read");
    const AVPixFmtDescriptor *kind = d->av->av_pix_fmt_desc_get(a->format);
    /* "yuvj…", and gray unless it says otherwise, use all 256 values */
    bool full = a->color_range == AVCOL_RANGE_JPEG || strncmp(kind->name, "yuvj", 4) == 0 ||
                (kind->nb_components <= 2 && a->color_range != AVCOL_RANGE_MPEG);
    const int *space = d->av->sws_getCoefficients(a->colorspace);
    d->av->sws_setColorspaceDetails(d->scale, space, full, space, 1, 0, 1 << 16, 1 << 16);
    d->look = look;
    return UM_OK;
}

static um_status scale(struct um_decoder *d, int format, void *pixels, ptrdiff_t stride)
{
    uint8_t *rows[4] = {pixels};
    int strides[4] = {(int)stride};
    um_status st = set_up(d, format);
    if (st == UM_OK)
        d->av->sws_scale(d->scale, (const uint8_t *const *)d->frame->data, d->frame->linesize, 0,
                         d->frame->height, rows, strides);
    return st;
}

/* Gray and RGB of 16 bits: which of them count is for the window to say. */
static um_status scale_wide(struct um_decoder *d, struct um_image_file *f, um_frame *to)
{
    size_t n = (size_t)to->stride * (size_t)to->height;
    uint16_t *wide = um_alloc(2 * n);
    um_status st = wide ? scale(d, to->channels == 1 ? AV_PIX_FMT_GRAY16 : AV_PIX_FMT_RGB48, wide,
                                2 * to->stride)
                        : um_fail(UM_ENOMEM, "video of 16 bits");
    if (st == UM_OK)
        st = um_image_levels(f, wide, n, 0, to->pixels);
    um_free(wide);
    return st;
}

um_status um_decoder_frame(struct um_decoder *d, struct um_image_file *f, um_frame **out)
{
    const AVFrame *a = d->frame;
    const AVPixFmtDescriptor *kind = d->av->av_pix_fmt_desc_get(a->format);
    if (!kind || kind->flags & AV_PIX_FMT_FLAG_HWACCEL)
        return um_fail(UM_EFORMAT, "pixels of a kind that is not read");
    bool rgb = kind->flags & (AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_RGB);
    bool gray = kind->nb_components <= 2 && !rgb;
    um_status st = um_frame_create(out, a->width, a->height, gray ? 1 : 3);
    if (st != UM_OK)
        return st == UM_EINVAL ? UM_EFORMAT : st;
    if ((gray || rgb) && kind->comp[0].depth == 16)
        st = scale_wide(d, f, *out);
    else
        st = scale(d, gray ? AV_PIX_FMT_GRAY8 : AV_PIX_FMT_RGB24, (*out)->pixels, (*out)->stride);
    if (st != UM_OK)
        um_frame_unref(out);
    return st;
}
