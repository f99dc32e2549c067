/* SPDX-License-Identifier: Apache-2.0 */
/* "video:OUT.mp4": what overlays show, as a video. Frames keep the times of their source; where it
 * has none they come at 25 a second. */
#include "io/libav.h"
#include "io/sink.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "ultramotion/io.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

/* Of its clock, ticks a second: 24, 25, 30 and 60 frames, and their NTSC kin, are whole numbers. */
enum { TICKS = 60000, STEP = TICKS / 25, BUFFER = 32 << 10, QUALITY = 3 };

struct video {
    const struct um_libav *av;
    const char *path, *container;
    struct um_hold hold;
    struct um_part part;
    bool own, failed, begun;
    AVIOContext *io;
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVFrame *frame;
    AVPacket *packet;
    struct SwsContext *scale;
    uint8_t *padded; /* RGB of even sides */
    int width, height;
    int64_t last, step; /* ticks */
    double zero;        /* the source's time at tick 0 */
};

/* ---- the file ---- */

static int write_bytes(void *ctx, um_libav_written *bytes, int n)
{
    struct video *s = ctx;
    return um_part_write(&s->part, bytes, (size_t)n) ? n : AVERROR(s->part.error);
}

static int64_t seek(void *ctx, int64_t offset, int whence)
{
    struct video *s = ctx;
    struct stat st;
    if (whence & AVSEEK_SIZE)
        return fstat(fileno(s->part.file), &st) == 0 ? (int64_t)st.st_size : AVERROR(errno);
    if (fseeko(s->part.file, (off_t)offset, whence & ~AVSEEK_FORCE) != 0)
        return AVERROR(errno);
    return (int64_t)ftello(s->part.file);
}

/* What has the name stays until there is another video. */
static um_status open_file(struct video *s)
{
    um_status st = um_hold_open(&s->hold, s->path);
    if (st == UM_OK)
        st = um_part_open(&s->part, s->path);
    s->own = st == UM_OK;
    if (s->own)
        setvbuf(s->part.file, NULL, _IONBF, 0); /* libav reads it again by its name */
    return st;
}

static um_status video_open(void *priv, const char *arg, const um_sink_settings *settings,
                            int wake_fd)
{
    static const char *const endings[][2] = {
        {".mp4", "mp4"}, {".m4v", "ipod"}, {".mov", "mov"}, {".mkv", "matroska"}};
    struct video *s = priv;
    (void)settings;
    (void)wake_fd;
    s->path = arg;
    s->hold.fd = -1;
    const char *ending = strrchr(arg, '.');
    for (size_t i = 0; ending && i < sizeof endings / sizeof *endings; i++)
        if (um_text_same(ending, endings[i][0]))
            s->container = endings[i][1];
    if (!s->container)
        return um_fail(UM_EINVAL, "video:%s: the name must end in .mp4, .m4v, .mov or .mkv", arg);
    s->av = um_libav();
    return s->av ? open_file(s) : UM_EUNSUPPORTED;
}

/* ---- encoding ---- */

static um_status cannot(struct video *s, const char *what, int code)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    s->failed = true;
    s->av->av_strerror(code, text, sizeof text);
    return um_fail(code == AVERROR(ENOMEM) ? UM_ENOMEM : UM_EIO, "%s: %s: %s", s->path, what,
                   s->part.error ? strerror(s->part.error) : text);
}

/* H.264 if this libav has it, else MPEG-4. */
static int open_encoder(struct video *s)
{
    static const enum AVCodecID ids[] = {AV_CODEC_ID_H264, AV_CODEC_ID_MPEG4};
    int code = AVERROR_ENCODER_NOT_FOUND;
    for (size_t i = 0; code < 0 && i < sizeof ids / sizeof *ids; i++) {
        const AVCodec *encoder = s->av->avcodec_find_encoder(ids[i]);
        AVCodecContext *c = encoder ? s->av->avcodec_alloc_context3(encoder) : NULL;
        if (!c)
            continue;
        c->width = (s->width + 1) & ~1;
        c->height = (s->height + 1) & ~1;
        c->pix_fmt = AV_PIX_FMT_YUV420P;
        c->time_base = (AVRational){1, TICKS};
        c->framerate = (AVRational){TICKS, STEP};
        c->color_range = AVCOL_RANGE_MPEG;
        c->colorspace = AVCOL_SPC_SMPTE170M;
        c->max_b_frames = 0;
        c->thread_count = 1;
        c->flags |= AV_CODEC_FLAG_QSCALE;
        c->global_quality = QUALITY * FF_QP2LAMBDA;
        if (s->format->oformat->flags & AVFMT_GLOBALHEADER)
            c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        if (c->priv_data && ids[i] == AV_CODEC_ID_H264) {
            c->flags &= ~AV_CODEC_FLAG_QSCALE;
            s->av->av_opt_set(c->priv_data, "preset", "veryfast", 0);
            s->av->av_opt_set(c->priv_data, "crf", "18", 0);
        }
        code = s->av->avcodec_open2(c, encoder, NULL);
        if (code < 0)
            s->av->avcodec_free_context(&c);
        s->codec = c;
    }
    return code;
}

/* At the first frame, whose size it is. */
static um_status begin(struct video *s, int width, int height)
{
    static const char scheme[] = "file:"; /* a path may have colons of its own */
    size_t bytes = sizeof scheme + strlen(s->part.temporary);
    char *url = um_alloc(bytes);
    s->width = width;
    s->height = height;
    if (!url)
        return um_fail(UM_ENOMEM, "%s", s->path);
    snprintf(url, bytes, "%s%s", scheme, s->part.temporary);
    int code = s->av->avformat_alloc_output_context2(&s->format, NULL, s->container, url);
    um_free(url);
    if (code < 0)
        return cannot(s, "container", code);
    uint8_t *buffer = s->av->av_malloc(BUFFER);
    s->io =
        buffer ? s->av->avio_alloc_context(buffer, BUFFER, 1, s, NULL, write_bytes, seek) : NULL;
    if (buffer && !s->io)
        s->av->av_freep(&buffer);
    s->format->pb = s->io;
    s->frame = s->av->av_frame_alloc();
    s->packet = s->av->av_packet_alloc();
    s->stream = s->io ? s->av->avformat_new_stream(s->format, NULL) : NULL;
    if (!s->stream || !s->frame || !s->packet)
        return cannot(s, "video writer", AVERROR(ENOMEM));
    if ((code = open_encoder(s)) < 0)
        return cannot(s, "no encoder for H.264 or MPEG-4 takes these frames", code);
    s->stream->time_base = s->codec->time_base;
    s->frame->width = s->codec->width;
    s->frame->height = s->codec->height;
    s->frame->format = s->codec->pix_fmt;
    s->padded = um_alloc((size_t)s->codec->width * (size_t)s->codec->height * 3);
    s->scale = s->av->sws_getCachedContext(
        NULL, s->codec->width, s->codec->height, AV_PIX_FMT_RGB24, s->codec->width,
        s->codec->height, AV_PIX_FMT_YUV420P, SWS_BILINEAR | SWS_ACCURATE_RND, NULL, NULL, NULL);
    if (!s->padded || !s->scale || s->av->av_frame_get_buffer(s->frame, 0) < 0)
        return cannot(s, "video writer", AVERROR(ENOMEM));
    code = s->av->avcodec_parameters_from_context(s->stream->codecpar, s->codec);
    AVDictionary *options = NULL;
    s->av->av_dict_set(&options, "movflags", "+faststart", 0); /* what is cut still shows */
    if (code >= 0)
        code = s->av->avformat_write_header(s->format, &options);
    s->av->av_dict_free(&options);
    if (code < 0)
        return cannot(s, "cannot be begun", code);
    s->begun = true;
    s->last = -STEP;
    s->step = STEP;
    return UM_OK;
}

/* The codecs take even sides: a last row or column comes twice. */
static void fill_frame(struct video *s, const uint8_t *rgb)
{
    int width = s->codec->width, height = s->codec->height;
    size_t row = 3 * (size_t)s->width, wide = 3 * (size_t)width;
    for (int y = 0; y < height; y++) {
        uint8_t *to = s->padded + (size_t)y * wide;
        memcpy(to, rgb + (size_t)(y < s->height ? y : s->height - 1) * row, row);
        if (wide > row)
            memcpy(to + row, to + row - 3, 3);
    }
    const uint8_t *rows[4] = {s->padded};
    int strides[4] = {(int)wide};
    s->av->sws_scale(s->scale, rows, strides, 0, height, s->frame->data, s->frame->linesize);
}

/* The tick of a frame. Where time stands or goes back, as in a loop, or leaps further than MP4 has
 * room for (2^31 ticks), as when a clock is set, it goes on by a step. */
static int64_t tick(struct video *s, const um_frame *frame)
{
    static const double leap = 6.0 * 3600 * TICKS;
    double t = (double)(s->last + s->step), own = (frame->ts - s->zero) * TICKS;
    if (frame->has_ts && s->last >= 0 && own > (double)s->last && own < (double)s->last + leap)
        t = own;
    else if (frame->has_ts)
        s->zero = frame->ts - t / TICKS;
    int64_t now = llround(t);
    now = now > s->last ? now : s->last + 1;
    if (s->last >= 0)
        s->step = now - s->last;
    s->last = now;
    return now;
}

/* Everything that the encoder has ready. */
static um_status write_ready(struct video *s)
{
    for (;;) {
        int code = s->av->avcodec_receive_packet(s->codec, s->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF)
            return UM_OK;
        if (code >= 0) {
            /* of the last: how long it lasts nobody knows, and who counts on more looks for more */
            s->packet->duration = s->step < STEP ? s->step : STEP;
            s->packet->stream_index = s->stream->index;
            s->av->av_packet_rescale_ts(s->packet, s->codec->time_base, s->stream->time_base);
            code = s->av->av_interleaved_write_frame(s->format, s->packet);
        }
        if (code >= 0 && s->part.error)
            code = AVERROR(EIO);
        if (code < 0)
            return cannot(s, "cannot be written", code);
    }
}

static um_status video_write(void *priv, const um_packet *packet, const um_frame *frame,
                             const char *name)
{
    struct video *s = priv;
    uint8_t *rgb = NULL;
    (void)name;
    um_status st = um_overlay(packet, frame, &rgb); /* also checks that they belong together */
    if (st == UM_OK && !s->begun)
        st = begin(s, frame->width, frame->height);
    if (st == UM_OK && (frame->width != s->width || frame->height != s->height))
        st = um_fail(UM_EIO,
                     "%s: frame %llu is %dx%d, the video is %dx%d: frames of several sizes "
                     "need dir:PATH",
                     s->path, (unsigned long long)packet->frame_id, frame->width, frame->height,
                     s->width, s->height);
    int code = st == UM_OK ? s->av->av_frame_make_writable(s->frame) : 0;
    if (st == UM_OK && code >= 0) {
        fill_frame(s, rgb);
        s->frame->pts = tick(s, frame);
        code = s->av->avcodec_send_frame(s->codec, s->frame);
    }
    if (st == UM_OK && code < 0)
        st = cannot(s, "cannot be encoded", code);
    if (st == UM_OK)
        st = write_ready(s);
    um_free(rgb);
    return st;
}

static um_status finish(struct video *s)
{
    s->av->avcodec_send_frame(s->codec, NULL);
    um_status st = write_ready(s);
    int code = st == UM_OK ? s->av->av_write_trailer(s->format) : 0;
    s->av->avio_flush(s->io);
    if (st == UM_OK && (code < 0 || s->part.error))
        st = cannot(s, "cannot be written", code < 0 ? code : AVERROR(EIO));
    return st;
}

static um_status video_close(void *priv)
{
    struct video *s = priv;
    um_status st = s->begun && !s->failed ? finish(s) : UM_OK;
    if (s->av) {
        s->av->sws_freeContext(s->scale);
        s->av->av_frame_free(&s->frame);
        s->av->av_packet_free(&s->packet);
        s->av->avcodec_free_context(&s->codec);
        s->av->avformat_free_context(s->format);
        if (s->io)
            s->av->av_freep(&s->io->buffer);
        s->av->avio_context_free(&s->io);
    }
    um_free(s->padded);
    bool whole = s->begun && !s->failed;
    if (s->own && whole)
        st = um_part_close(&s->part, st);
    else if (s->own)
        um_part_close(&s->part, UM_EOF);
    um_hold_close(&s->hold, s->path, whole && st == UM_OK);
    return st;
}

const um_sink_ops um_sink_video = {
    .struct_size = sizeof um_sink_video,
    .priv_size = sizeof(struct video),
    .open = video_open,
    .write = video_write,
    .close = video_close,
};
