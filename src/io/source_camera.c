/* SPDX-License-Identifier: Apache-2.0 */
/* "v4l2:/dev/video0": a camera or a frame grabber, and "lavfi:GRAPH": frames that libavfilter
 * makes, which stand in for one. Both are devices of libav, and nothing of theirs is buffered: of
 * frames that wait in the device the newest is taken, if it can be decoded without the others. */
#include "io/decoder.h"
#include "io/source.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/wake.h"
#include "io/scheme.h"

#include <dlfcn.h>
#include <libavdevice/avdevice.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

const bool um_camera_built = true;

#define DEVICES "libavdevice.so." AV_STRINGIFY(LIBAVDEVICE_VERSION_MAJOR)

struct camera {
    int wake;
    const struct um_libav *av;
    char *spec, *path;
    /* options; "" or 0: as the device likes */
    char size[24], format[32];
    int width, height;
    double fps;
    AVFormatContext *input;
    struct um_decoder d;
    AVPacket *newer;
    struct um_image_file how; /* what becomes of 16 bits */
    bool grabs, alone;        /* v4l2; each frame can be decoded alone */
    bool ended;
    atomic_ullong images, replaced, damaged;
};

/* ---- libavdevice, which brings a hundred libraries more: loaded when somebody has a camera ----
 */

static char problem[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
    void (*register_all)(void) = NULL;
    void *library = dlopen(DEVICES, RTLD_NOW | RTLD_LOCAL);
    void *f = library ? dlsym(library, "avdevice_register_all") : NULL;
    const char *why = f ? NULL : dlerror();
    if (!f) {
        snprintf(problem, sizeof problem, "%s", why ? why : DEVICES);
        return;
    }
    memcpy(&register_all, &f, sizeof f);
    register_all();
}

static um_status load_devices(struct camera *c)
{
    c->av = um_libav();
    if (!c->av)
        return UM_EUNSUPPORTED;
    pthread_once(&once, load);
    return problem[0] ? um_fail(UM_EUNSUPPORTED,
                                "cameras need libavdevice: %s: install " DEVICES
                                " (Debian: libavdevice%d)",
                                problem, LIBAVDEVICE_VERSION_MAJOR)
                      : UM_OK;
}

/* ---- options ---- */

static um_status set_option(void *ctx, const char *key, const char *value)
{
    struct camera *c = ctx;
    int end = 0;
    if (strcmp(key, "size") == 0) {
        if (strlen(value) >= sizeof c->size ||
            sscanf(value, "%5dx%5d%n", &c->width, &c->height, &end) != 2 || value[end] ||
            c->width < 1 || c->height < 1)
            return um_fail(UM_EINVAL, "size: \"%s\" is not WxH", value);
        strcpy(c->size, value);
        return UM_OK;
    }
    if (strcmp(key, "fps") == 0)
        return um_scheme_number(key, value, 0.1, 1000, &c->fps);
    if (strcmp(key, "format") == 0) {
        if (!value[0] || strlen(value) >= sizeof c->format)
            return um_fail(UM_EINVAL, "format: \"%s\" is not one such as mjpeg, yuyv422, gray",
                           value);
        strcpy(c->format, value);
        return UM_OK;
    }
    return um_fail(UM_EINVAL, "no option %s=%s: known are size=WxH, fps, format", key, value);
}

/* ---- open ---- */

/* What keeps a device from giving frames, as far as the system says it. */
static um_status no_camera(const struct camera *c, int code)
{
    const char *advice = code == AVERROR(EACCES)   ? "join the group that owns it (video)"
                         : code == AVERROR(EBUSY)  ? "another program uses it"
                         : code == AVERROR(ENOTTY) ? "it is no video device"
                         : code == AVERROR(EINVAL) ? "it does not know what was asked of it"
                                                   : "is it a camera, and is it free?";
    char what[512];
    snprintf(what, sizeof what, "%s: no frames from it (%s)", c->spec, advice);
    return um_libav_fail(code == AVERROR(EINVAL) ? UM_EINVAL : UM_EIO, what, code);
}

static um_status look_at(const struct camera *c)
{
    struct stat s;
    if (stat(c->path, &s) != 0)
        return um_fail(UM_EIO, "%s: there is no device %s; cameras are /dev/video0 and so on",
                       c->spec, c->path);
    if (!S_ISCHR(s.st_mode))
        return um_fail(UM_EIO,
                       "%s: %s is no video device; give files and folders without v4l2:", c->spec,
                       c->path);
    return UM_OK;
}

static um_status open_input(struct camera *c)
{
    char fps[32];
    AVDictionary *options = NULL;
    const char *name = c->grabs ? "video4linux2" : "lavfi";
    const AVInputFormat *kind = c->av->av_find_input_format(name);
    if (!kind && c->grabs)
        kind = c->av->av_find_input_format("v4l2"); /* as later ones call it */
    if (!kind)
        return um_fail(UM_EUNSUPPORTED, "%s: libavdevice here was built without %s", c->spec, name);
    c->input = c->av->avformat_alloc_context();
    if (!c->input)
        return um_fail(UM_ENOMEM, "%s", c->spec);
    if (c->grabs) {
        c->input->flags |= AVFMT_FLAG_NONBLOCK; /* a wait inside of it could not be woken */
        c->av->av_dict_set(&options, "timestamps", "abs", 0);
    }
    if (c->size[0])
        c->av->av_dict_set(&options, "video_size", c->size, 0);
    if (c->format[0])
        c->av->av_dict_set(&options, "input_format", c->format, 0);
    if (c->fps > 0) {
        um_number_print(fps, sizeof fps, "%.6g", c->fps);
        c->av->av_dict_set(&options, "framerate", fps, 0);
    }
    locale_t before = um_number_enter(); /* of what libav reads in options and graphs */
    int code = c->av->avformat_open_input(&c->input, c->path, kind, &options);
    um_number_leave(before);
    c->av->av_dict_free(&options);
    if (code == AVERROR(ENOMEM))
        return um_fail(UM_ENOMEM, "%s", c->spec);
    if (code < 0 && !c->grabs)
        return um_fail(UM_EINVAL, "%s: no graph of libavfilter that gives frames", c->spec);
    return code < 0 ? no_camera(c, code) : UM_OK;
}

/* A driver takes what it has that is nearest, and says nothing. */
static um_status as_asked(const struct camera *c)
{
    const AVCodecParameters *p = c->d.stream->codecpar;
    AVRational rate = c->d.stream->avg_frame_rate;
    const AVPixFmtDescriptor *raw =
        p->codec_id == AV_CODEC_ID_RAWVIDEO ? c->av->av_pix_fmt_desc_get(p->format) : NULL;
    const char *format = raw ? raw->name : c->av->avcodec_get_name(p->codec_id);
    if (c->size[0] && (p->width != c->width || p->height != c->height))
        return um_fail(UM_EUNSUPPORTED, "%s: it gives %dx%d, not %s", c->spec, p->width, p->height,
                       c->size);
    if (c->format[0] && strcmp(c->format, format) != 0)
        return um_fail(UM_EUNSUPPORTED, "%s: it gives %s, not %s", c->spec, format, c->format);
    if (c->fps > 0 && rate.num > 0 && rate.den > 0 && fabs(av_q2d(rate) - c->fps) > 0.01 * c->fps)
        return um_fail(UM_EUNSUPPORTED, "%s: it gives %g frames a second, not %g", c->spec,
                       av_q2d(rate), c->fps);
    return UM_OK;
}

static um_status open_decoder(struct camera *c)
{
    const AVCodec *decoder = NULL;
    int i = c->av->av_find_best_stream(c->input, AVMEDIA_TYPE_VIDEO, -1, -1, &decoder, 0);
    if (i < 0 || !decoder)
        return um_fail(UM_EUNSUPPORTED, "%s: nothing in it that libav here can decode to frames",
                       c->spec);
    AVStream *stream = c->input->streams[i];
    const AVCodecDescriptor *about = c->av->avcodec_descriptor_get(stream->codecpar->codec_id);
    c->alone = about && about->props & AV_CODEC_PROP_INTRA_ONLY;
    c->newer = c->av->av_packet_alloc();
    um_status st = c->newer ? um_decoder_open(&c->d, c->av, stream, decoder)
                            : um_fail(UM_ENOMEM, "%s", c->spec);
    return st == UM_OK && c->grabs ? as_asked(c) : st;
}

static um_status open_camera(struct camera *c, const char *scheme, const char *arg,
                             const um_source_settings *settings, int wake_fd)
{
    c->wake = wake_fd;
    c->grabs = strcmp(scheme, "v4l2") == 0;
    c->how = (struct um_image_file){.window = settings->window,
                                    .window_lo = settings->window_lo,
                                    .window_hi = settings->window_hi};
    size_t length = c->grabs ? strcspn(arg, "?,") : strlen(arg);
    c->spec = um_scheme_spec(scheme, arg);
    c->path = um_alloc(length + 1);
    if (!c->spec || !c->path)
        return um_fail(UM_ENOMEM, "%s", scheme);
    snprintf(c->path, length + 1, "%s", arg);
    if (!c->path[0])
        return um_fail(UM_EINVAL, "%s: %s", c->spec,
                       c->grabs ? "which device? v4l2:/dev/video0"
                                : "which graph? lavfi:testsrc2=size=640x480:rate=30,realtime");
    if (settings->loop)
        return um_fail(UM_EINVAL, "%s: what was shown is gone and cannot be looped", c->spec);
    um_status st =
        um_scheme_options(arg + length + (arg[length] != 0), c->spec, NULL, set_option, c);
    if (st == UM_OK && c->grabs)
        st = look_at(c);
    if (st == UM_OK)
        st = load_devices(c);
    if (st == UM_OK)
        st = open_input(c);
    return st == UM_OK ? open_decoder(c) : st;
}

static um_status grabber_open(void *priv, const char *arg, const um_source_settings *settings,
                              int wake_fd)
{
    return open_camera(priv, "v4l2", arg, settings, wake_fd);
}

static um_status filter_open(void *priv, const char *arg, const um_source_settings *settings,
                             int wake_fd)
{
    return open_camera(priv, "lavfi", arg, settings, wake_fd);
}

static void camera_close(void *priv)
{
    struct camera *c = priv;
    um_decoder_close(&c->d);
    if (c->av) {
        c->av->av_packet_free(&c->newer);
        c->av->avformat_close_input(&c->input);
    }
    um_free(c->spec);
    um_free(c->path);
}

/* ---- frames ---- */

static void count(atomic_ullong *what)
{
    atomic_fetch_add_explicit(what, 1, memory_order_relaxed);
}

/* The newest packet that is there; AVERROR(EAGAIN): none yet. */
static int next_packet(struct camera *c)
{
    int code = c->av->av_read_frame(c->input, c->d.packet);
    while (code >= 0 && c->grabs && c->alone && c->av->av_read_frame(c->input, c->newer) >= 0) {
        AVPacket *older = c->d.packet;
        c->d.packet = c->newer;
        c->newer = older;
        c->av->av_packet_unref(older);
        count(&c->images);
        count(&c->replaced);
    }
    return code;
}

static um_status damaged(struct camera *c, int code)
{
    count(&c->damaged);
    return um_libav_fail(UM_EFORMAT, "a damaged frame", code);
}

/* Give the decoder, which has asked for it, what comes next. UM_AGAIN: nothing yet. */
static um_status feed(struct camera *c)
{
    int code = next_packet(c);
    if (code == AVERROR(EAGAIN))
        return UM_AGAIN;
    if (code < 0) {
        c->ended = true;
        return code == AVERROR_EOF ? UM_EOF
                                   : um_libav_fail(UM_EIO, "the device gives no more frames", code);
    }
    count(&c->images);
    /* an empty packet, of a frame that the driver lost, would tell the decoder that it is over */
    code = c->d.packet->size > 0 ? c->av->avcodec_send_packet(c->d.codec, c->d.packet)
                                 : AVERROR_INVALIDDATA;
    c->av->av_packet_unref(c->d.packet);
    return code < 0 ? damaged(c, code) : UM_OK;
}

static um_status take(struct camera *c, um_frame **out)
{
    int64_t at = c->d.frame->best_effort_timestamp;
    um_status st = um_decoder_frame(&c->d, &c->how, out);
    if (st == UM_OK && at != AV_NOPTS_VALUE) {
        (*out)->ts = (double)at * av_q2d(c->d.stream->time_base);
        (*out)->has_ts = 1;
    }
    c->av->av_frame_unref(c->d.frame);
    return st;
}

static um_status camera_read(void *priv, uint64_t index, um_frame **frame)
{
    enum { LOOK_MS = 1 }; /* libav hides the descriptor that one could wait for */
    struct camera *c = priv;
    um_status st = c->ended ? UM_EOF : UM_OK;
    (void)index;
    while (st == UM_OK || st == UM_AGAIN) {
        if (um_wake_wait(c->wake, st == UM_AGAIN ? LOOK_MS : 0))
            return UM_EOF;
        int code = c->av->avcodec_receive_frame(c->d.codec, c->d.frame);
        if (code >= 0) {
            st = take(c, frame);
            break;
        }
        st = code == AVERROR(EAGAIN) ? feed(c) : damaged(c, code);
    }
    return st < 0 ? um_fail_in(st, c->spec) : st;
}

static void camera_counts(const void *priv, void (*each)(void *ctx, const char *name, uint64_t n),
                          void *ctx)
{
    const struct camera *c = priv;
    each(ctx, "images", atomic_load(&c->images));
    each(ctx, "replaced", atomic_load(&c->replaced));
    each(ctx, "damaged", atomic_load(&c->damaged));
}

static uint64_t camera_replaced(const void *priv)
{
    return atomic_load(&((const struct camera *)priv)->replaced);
}

const um_source_ops um_source_v4l2 = {
    .struct_size = sizeof um_source_v4l2,
    .priv_size = sizeof(struct camera),
    .open = grabber_open,
    .close = camera_close,
    .read = camera_read,
    .live = 1,
    .counts = camera_counts,
    .replaced = camera_replaced,
    .uses = UM_SOURCE_WINDOW,
};

const um_source_ops um_source_lavfi = {
    .struct_size = sizeof um_source_lavfi,
    .priv_size = sizeof(struct camera),
    .open = filter_open,
    .close = camera_close,
    .read = camera_read,
    .live = 1,
    .counts = camera_counts,
    .replaced = camera_replaced,
    .uses = UM_SOURCE_WINDOW,
};
