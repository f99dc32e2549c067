/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a video through libav. It sees one open file and may open no other: formats that name
 * further files or addresses are not among those it may take this one for. */
#include "io/video.h"

#include "base/mem.h"
#include "base/number.h"
#include "io/decoder.h"

#include <string.h>

enum { BUFFER = 32 << 10 };
static const char formats[] = "mov,matroska,avi,asf,flv,ogg,mpeg,mpegvideo,mpegts,mxf,nut,"
                              "yuv4mpegpipe,ivf,gif,h264,hevc";

const bool um_video_built = true;

struct um_video {
    const struct um_libav *av;
    struct um_image_file *f;
    AVIOContext *io;
    AVFormatContext *format;
    AVStream *stream;
    struct um_decoder d;
    int orientation;
    int64_t frames;         /* of the stream, so far */
    double ts;              /* of the last frame */
    double zero;            /* the first frame's own time */
    double end;             /* of the latest packet of any stream */
    int64_t read;           /* bytes as far as the end of the stream's last packet */
    bool indexed;           /* it came with an index */
    bool beyond;            /* something that was looked for lies behind the file's end */
    int cut;                /* 2 after a packet that is not whole, 1 after the next one */
    bool draining, emptied; /* no more packets; nor frames that the decoder still held */
    bool failed;            /* the last frame was an error */
    bool told;              /* that it breaks off */
};

/* ---- the file, as libav sees it ---- */

static int read_bytes(void *ctx, uint8_t *to, int n)
{
    struct um_video *v = ctx;
    size_t got = fread(to, 1, (size_t)n, v->f->file);
    return got ? (int)got : ferror(v->f->file) ? AVERROR(EIO) : AVERROR_EOF;
}

static int64_t seek(void *ctx, int64_t offset, int whence)
{
    struct um_video *v = ctx;
    if (whence & AVSEEK_SIZE)
        return v->f->bytes;
    whence &= ~AVSEEK_FORCE;
    v->beyond = v->beyond || (whence == SEEK_SET && offset > v->f->bytes);
    return fseeko(v->f->file, (off_t)offset, whence) == 0 ? (int64_t)ftello(v->f->file)
                                                          : AVERROR(EIO);
}

static int open_nothing(AVFormatContext *format, AVIOContext **io, const char *url, int flags,
                        AVDictionary **options)
{
    (void)format, (void)url, (void)flags, (void)options;
    *io = NULL;
    return AVERROR(EACCES);
}

/* ---- open ---- */

/* Streams whose headers do not say all are decoded a little; their frames have a limit too. */
static int find_streams(struct um_video *v)
{
    unsigned n = v->format->nb_streams;
    AVDictionary **options = um_zalloc((n + 1) * sizeof(AVDictionary *));
    char most[24];
    if (!options)
        return AVERROR(ENOMEM);
    snprintf(most, sizeof most, "%d", (int)UM_FRAME_MAX_PIXELS);
    for (unsigned i = 0; i < n; i++)
        v->av->av_dict_set(&options[i], "max_pixels", most, 0);
    int code = v->av->avformat_find_stream_info(v->format, n ? options : NULL);
    for (unsigned i = 0; i < n; i++)
        v->av->av_dict_free(&options[i]);
    um_free(options);
    return code;
}

static um_status open_format(struct um_video *v)
{
    AVDictionary *options = NULL;
    uint8_t *buffer = v->av->av_malloc(BUFFER);
    v->io = buffer ? v->av->avio_alloc_context(buffer, BUFFER, 0, v, read_bytes, NULL, seek) : NULL;
    if (buffer && !v->io)
        v->av->av_freep(&buffer);
    v->format = v->io ? v->av->avformat_alloc_context() : NULL;
    if (!v->format)
        return um_fail(UM_ENOMEM, "video reader");
    v->format->pb = v->io;
    v->format->io_open = open_nothing;
    v->av->av_dict_set(&options, "format_whitelist", formats, 0);
    v->av->av_dict_set(&options, "protocol_whitelist", "none", 0);
    int code = v->av->avformat_open_input(&v->format, "", NULL, &options);
    v->av->av_dict_free(&options);
    for (unsigned i = 0; code >= 0 && i < v->format->nb_streams; i++)
        v->indexed =
            v->indexed || v->av->avformat_index_get_entries_count(v->format->streams[i]) > 0;
    if (code >= 0)
        code = find_streams(v);
    return code < 0 ? um_libav_fail(UM_EFORMAT, "a video whose index cannot be read" UM_IMAGE_AGAIN,
                                    code)
                    : UM_OK;
}

static const uint8_t *display_matrix(const struct um_video *v, size_t *n)
{
#if LIBAVFORMAT_VERSION_MAJOR < 61
    return v->av->av_stream_get_side_data(v->stream, AV_PKT_DATA_DISPLAYMATRIX, n);
#else
    const AVCodecParameters *p = v->stream->codecpar;
    const AVPacketSideData *data = v->av->av_packet_side_data_get(
        p->coded_side_data, p->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    *n = data ? data->size : 0;
    return data ? data->data : NULL;
#endif
}

/* As EXIF numbers it. Of the matrix, which says where (x, y) goes: to (a x + c y, b x + d y). */
static int turned(const struct um_video *v)
{
    size_t n = 0;
    int32_t m[9];
    const uint8_t *matrix = display_matrix(v, &n);
    if (!matrix || n < sizeof m)
        return 0;
    memcpy(m, matrix, sizeof m);
    int32_t a = m[0], b = m[1], c = m[3], d = m[4];
    if (!b && !c && a && d)
        return a > 0 ? (d > 0 ? 1 : 4) : d > 0 ? 2 : 3;
    if (!a && !d && b && c)
        return b > 0 ? (c > 0 ? 5 : 6) : c > 0 ? 8 : 7;
    return 0; /* aslant */
}

static um_status no_decoder(const struct um_video *v)
{
    for (unsigned i = 0; i < v->format->nb_streams; i++) {
        const AVCodecParameters *p = v->format->streams[i]->codecpar;
        if (p->codec_type == AVMEDIA_TYPE_VIDEO && p->codec_id != AV_CODEC_ID_NONE)
            return um_fail(UM_EUNSUPPORTED,
                           "a video in %s, which libav here cannot decode: convert it to H.264",
                           v->av->avcodec_get_name(p->codec_id));
    }
    return um_fail(UM_EFORMAT, "a video whose header does not say how it is coded" UM_IMAGE_AGAIN);
}

static um_status open_codec(struct um_video *v)
{
    const AVCodec *decoder = NULL;
    int i = v->av->av_find_best_stream(v->format, AVMEDIA_TYPE_VIDEO, -1, -1, &decoder, 0);
    if (i == AVERROR_DECODER_NOT_FOUND)
        return no_decoder(v);
    if (i < 0 || !decoder)
        return um_fail(UM_EFORMAT, "a file of sound or data without a video in it: give one with "
                                   "frames");
    v->stream = v->format->streams[i];
    v->orientation = turned(v);
    return um_decoder_open(&v->d, v->av, v->stream, decoder);
}

um_status um_video_open(struct um_video **out, struct um_image_file *f)
{
    *out = NULL;
    const struct um_libav *av = um_libav();
    if (!av)
        return UM_EUNSUPPORTED;
    struct um_video *v = *out = um_zalloc(sizeof *v);
    if (!v)
        return um_fail(UM_ENOMEM, "video reader");
    v->av = av;
    v->f = f;
    um_status st = open_format(v);
    if (st == UM_OK)
        st = open_codec(v);
    if (st != UM_OK)
        um_video_close(out);
    return st;
}

void um_video_close(struct um_video **video)
{
    struct um_video *v = *video;
    *video = NULL;
    if (!v)
        return;
    um_decoder_close(&v->d);
    v->av->avformat_close_input(&v->format);
    if (v->io)
        v->av->av_freep(&v->io->buffer);
    v->av->avio_context_free(&v->io);
    um_free(v);
}

/* ---- frames ---- */

/* Seconds from one frame to the next. */
static double step(const struct um_video *v)
{
    AVRational rate = v->stream->avg_frame_rate;
    return rate.num > 0 && rate.den > 0 ? av_q2d(av_inv_q(rate)) : 1.0 / 25;
}

/* Where the file's clock stands at its begin: streams of MPEG count on from anywhere. If the file
 * does not say, at the first frame. */
static double start(const struct um_video *v)
{
    int64_t t = v->format->start_time;
    return t == AV_NOPTS_VALUE ? v->zero : (double)t / AV_TIME_BASE;
}

/* A frame's own time, else one step after the last. */
static double time_of(struct um_video *v)
{
    int64_t own = v->d.frame->best_effort_timestamp;
    double t = (double)own * av_q2d(v->stream->time_base);
    if (own != AV_NOPTS_VALUE && v->frames == 1)
        v->zero = t;
    if (own != AV_NOPTS_VALUE)
        return t - start(v);
    return v->frames > 1 ? v->ts + step(v) : 0;
}

static um_status take_frame(struct um_video *v, um_frame **out)
{
    v->frames++;
    v->ts = time_of(v);
    v->f->facts = (struct um_image_facts){.orientation = v->orientation};
    um_status st = UM_OK;
    if (v->d.frame->flags & AV_FRAME_FLAG_CORRUPT || v->d.frame->decode_error_flags)
        st = um_fail(UM_EFORMAT, "frame %lld at %.3f s is damaged", (long long)v->frames, v->ts);
    else
        st = um_decoder_frame(&v->d, v->f, out);
    if (st == UM_OK) {
        (*out)->ts = v->ts;
        (*out)->has_ts = 1;
    }
    v->av->av_frame_unref(v->d.frame);
    return st;
}

/* ---- the end ---- */

static bool is_format(const struct um_video *v, const char *name)
{
    return strncmp(v->format->iformat->name, name, strlen(name)) == 0;
}

/* Seconds from the first frame on that the container's header promises; 0 = it does not say.
 * Matroska, ASF and FLV count from 0, whenever the first frame comes. */
static double promised(const struct um_video *v)
{
    if (v->format->duration_estimation_method != AVFMT_DURATION_FROM_STREAM)
        return 0;
    bool from_0 = is_format(v, "matroska") || is_format(v, "asf") || is_format(v, "flv");
    double from = from_0 ? start(v) : 0;
    return (double)v->format->duration / AV_TIME_BASE - from;
}

/* Does a frame of the index lie behind the file's end? */
static bool index_goes_on(const struct um_video *v)
{
    int n = v->av->avformat_index_get_entries_count(v->stream);
    for (int i = 0; i < n; i++) {
        const AVIndexEntry *e = v->av->avformat_index_get_entry(v->stream, i);
        if (e && e->pos + e->size > v->f->bytes)
            return true;
    }
    return false;
}

/* Is the file shorter than its header says? Of an AVI, which has its index at its end. */
static bool riff_goes_on(const struct um_video *v)
{
    enum { OPEN = 0x7fffffff }; /* and more: written by who could not go back */
    uint8_t head[8];
    if (!is_format(v, "avi") || fseeko(v->f->file, 0, SEEK_SET) != 0 ||
        fread(head, 1, sizeof head, v->f->file) != sizeof head)
        return false;
    uint32_t size = (uint32_t)head[4] | (uint32_t)head[5] << 8 | (uint32_t)head[6] << 16 |
                    (uint32_t)head[7] << 24;
    return size < OPEN && (int64_t)size + 8 > v->f->bytes + 1; /* some forget a filling byte */
}

/* The same of a WMV: what its header has for a time may be longer than the whole file. */
static bool asf_goes_on(const struct um_video *v)
{
    static const uint8_t properties[] = {0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11,
                                         0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65};
    enum { NEAR = 8192, SIZE = 40, FLAGS = 88, LIVE = 1 };
    uint8_t head[NEAR];
    if (!is_format(v, "asf") || fseeko(v->f->file, 0, SEEK_SET) != 0)
        return false;
    size_t n = fread(head, 1, sizeof head, v->f->file);
    for (size_t at = 0; at + FLAGS < n; at++) {
        uint64_t size = 0;
        if (memcmp(head + at, properties, sizeof properties) != 0)
            continue;
        for (int i = 7; i >= 0; i--)
            size = size << 8 | head[at + SIZE + (size_t)i];
        return !(head[at + FLAGS] & LIVE) && size > (uint64_t)v->f->bytes;
    }
    return false;
}

/* Does an Ogg end before the page that says that it is the last? */
static bool ogg_goes_on(const struct um_video *v)
{
    enum { MOST = 2 * 65307, HEAD = 27, FLAGS = 5, LAST = 4 }; /* MOST: two pages */
    FILE *f = v->f->file;
    uint8_t *tail = is_format(v, "ogg") ? um_alloc(MOST) : NULL;
    bool last = !tail;
    if (tail && fseeko(f, v->f->bytes > MOST ? (off_t)(v->f->bytes - MOST) : 0, SEEK_SET) == 0) {
        size_t n = fread(tail, 1, MOST, f), at = 0;
        while (at + HEAD <= n) {
            const uint8_t *page = tail + at;
            size_t parts = page[HEAD - 1], length = HEAD + parts;
            if (memcmp(page, "OggS", 4) != 0) {
                at++;
                continue;
            }
            for (size_t i = 0; i < parts && at + HEAD + i < n; i++)
                length += page[HEAD + i];
            last = at + length <= n && page[FLAGS] & LAST;
            at += length;
        }
    }
    um_free(tail);
    return !last;
}

/* Past a Matroska element's head; its content's size, -1 = it was written live and does not say. */
static bool enter(FILE *f, const char *id, int64_t *size)
{
    char own[4];
    int first = fread(own, 1, sizeof own, f) == sizeof own ? fgetc(f) : EOF, more = 0;
    if (first <= 0 || memcmp(own, id, sizeof own) != 0)
        return false;
    while (!(first & 0x80 >> more))
        more++;
    uint64_t n = (uint64_t)first & (0x7fu >> more), unknown = 0x7fu >> more;
    for (int i = 0; i < more; i++) {
        n = n << 8 | (uint8_t)fgetc(f);
        unknown = unknown << 8 | 0xff;
    }
    *size = n == unknown ? -1 : (int64_t)n;
    return true;
}

/* Where the segment of a Matroska file, which holds all but the format's name, should end; 0: it
 * does not say. */
static int64_t segment_end(const struct um_video *v)
{
    int64_t size = 0;
    FILE *f = v->f->file;
    return is_format(v, "matroska") && fseeko(f, 0, SEEK_SET) == 0 &&
                   enter(f, "\x1a\x45\xdf\xa3", &size) && size >= 0 &&
                   fseeko(f, (off_t)size, SEEK_CUR) == 0 && enter(f, "\x18\x53\x80\x67", &size) &&
                   size > 0
               ? (int64_t)ftello(f) + size
               : 0;
}

/* Were the last bytes reserved, and never written? */
static bool ends_in_zeros(const struct um_video *v)
{
    uint8_t last[64];
    if (fseeko(v->f->file, -(off_t)sizeof last, SEEK_END) != 0 ||
        fread(last, 1, sizeof last, v->f->file) != sizeof last)
        return false;
    return !last[0] && memcmp(last, last + 1, sizeof last - 1) == 0;
}

/* Do all packets end before the time that the header promises? An index says it better, where
 * edits leave parts out, and so does a size or a last page, where the last frame stays for long. */
static bool time_goes_on(const struct um_video *v)
{
    bool better = is_format(v, "mov")   ? v->stream->nb_frames > 0
                  : is_format(v, "avi") ? v->indexed
                                        : segment_end(v) && !ends_in_zeros(v);
    bool other = is_format(v, "asf") || is_format(v, "ogg");
    return !better && !other && v->end - start(v) + 1.5 * step(v) < promised(v);
}

/* Are there bytes of a frame that is not whole? Of YUV4MPEG, which is frames to its end. */
static bool frame_goes_on(const struct um_video *v)
{
    return is_format(v, "yuv4mpegpipe") && v->read < v->f->bytes;
}

/* Past `n` bytes; false: the file ends before. */
static bool skip(FILE *f, int64_t bytes, long n)
{
    return fseek(f, n, SEEK_CUR) == 0 && (int64_t)ftello(f) <= bytes;
}

/* Past the table of colours whose size the flags have. */
static bool skip_colors(FILE *f, int64_t bytes, int flags)
{
    return !(flags & 0x80) || skip(f, bytes, 3L << ((flags & 7) + 1));
}

/* Does a GIF end before its last byte, which says that it ends? */
static bool gif_goes_on(const struct um_video *v)
{
    enum { HEAD = 10, IMAGE = 8, EXTENSION = '!', DESCRIPTOR = ',', TRAILER = ';' };
    FILE *f = v->f->file;
    int64_t bytes = v->f->bytes;
    if (!is_format(v, "gif") || fseeko(f, HEAD, SEEK_SET) != 0)
        return false;
    int flags = fgetc(f), block = 0;
    bool there = flags != EOF && skip(f, bytes, 2) && skip_colors(f, bytes, flags);
    while (there && (block = fgetc(f)) != TRAILER) {
        int length = 1;
        if (block == DESCRIPTOR)
            there = skip(f, bytes, IMAGE) && (flags = fgetc(f)) != EOF &&
                    skip_colors(f, bytes, flags) && fgetc(f) != EOF;
        else
            there = block == EXTENSION && fgetc(f) != EOF;
        while (there && (length = fgetc(f)) > 0)
            there = skip(f, bytes, length);
        there = there && length == 0;
    }
    return !there;
}

/* Does the container know of more than came? */
static bool goes_on(const struct um_video *v)
{
    return v->frames == 0 || v->beyond || ferror(v->f->file) || index_goes_on(v) ||
           riff_goes_on(v) || asf_goes_on(v) || segment_end(v) > v->f->bytes || time_goes_on(v) ||
           frame_goes_on(v) || gif_goes_on(v) || ogg_goes_on(v);
}

/* The end; if the file ends before its video does, an error, once. */
static um_status finish(struct um_video *v)
{
    char of[32] = "", until[32] = "";
    if (v->told || v->failed || !goes_on(v)) /* where it was cut was an error already */
        return UM_EOF;
    v->told = true;
    if (v->stream->nb_frames > v->frames)
        snprintf(of, sizeof of, " of %lld", (long long)v->stream->nb_frames);
    if (promised(v) > v->ts)
        um_number_print(until, sizeof until, " of %.3f s", promised(v));
    return um_fail(UM_EFORMAT,
                   "the video breaks off after frame %lld%s, at %.3f s%s: copy or export it again",
                   (long long)v->frames, of, v->ts, until);
}

static um_status undecodable(struct um_video *v, int code)
{
    char what[64];
    snprintf(what, sizeof what, "frame %lld cannot be decoded", (long long)++v->frames);
    return um_libav_fail(UM_EFORMAT, what, code);
}

/* Give the decoder, which has asked for it, the next packet. */
static um_status feed(struct um_video *v)
{
    int code = v->av->av_read_frame(v->format, v->d.packet);
    if (code < 0) { /* the end, or a place where it cannot go on */
        v->beyond = v->beyond || v->cut || code != AVERROR_EOF;
        v->draining = true;
        v->av->avcodec_send_packet(v->d.codec, NULL);
        return UM_OK;
    }
    const AVStream *s = v->format->streams[v->d.packet->stream_index];
    if (v->d.packet->pts != AV_NOPTS_VALUE) {
        double end = (double)(v->d.packet->pts + v->d.packet->duration) * av_q2d(s->time_base);
        v->end = end > v->end ? end : v->end;
    }
    /* where parts of a transmission were lost, the packet before is said not to be whole: its
     * decoder finds out */
    bool whole = !(v->d.packet->flags & AV_PKT_FLAG_CORRUPT), parts = is_format(v, "mpegts");
    /* where a recorder dropped a frame: one that stays is none, and a decoder takes what is empty
     * for the end */
    bool empty = !v->d.packet->size && !v->d.packet->side_data_elems;
    um_status st = UM_OK;
    if (s == v->stream) {
        v->read = v->d.packet->pos + v->d.packet->size;
        v->cut = whole ? v->cut - (v->cut > 0) : 2;
        code = (whole || parts) && !empty ? v->av->avcodec_send_packet(v->d.codec, v->d.packet) : 0;
        if (code < 0)
            st = undecodable(v, code);
    }
    v->av->av_packet_unref(v->d.packet);
    return st;
}

static um_status read_one(struct um_video *v, um_frame **out)
{
    for (;;) {
        int code = v->av->avcodec_receive_frame(v->d.codec, v->d.frame);
        if (code >= 0)
            return take_frame(v, out);
        if (code == AVERROR_EOF || v->emptied)
            return finish(v);
        v->emptied = v->draining;
        um_status st = code == AVERROR(EAGAIN) ? feed(v) : undecodable(v, code);
        if (st != UM_OK)
            return st;
    }
}

um_status um_video_read(struct um_video *v, um_frame **out)
{
    *out = NULL;
    um_status st = read_one(v, out);
    v->failed = st < 0;
    return st;
}
