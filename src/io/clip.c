/* SPDX-License-Identifier: Apache-2.0 */
#include "io/clip.h"

#include "base/file.h"
#include "base/kind.h"
#include "base/mem.h"
#include "io/sequence.h"
#include "io/tiff.h"
#include "io/video.h"
#include "ultramotion/io.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const char *um_image_kinds(void)
{
    return um_tiff_built && um_video_built ? "PNG, JPEG, BMP, TIFF, MHA, NRRD, videos"
           : um_tiff_built                 ? "PNG, JPEG, BMP, TIFF, MHA, NRRD"
           : um_video_built                ? "PNG, JPEG, BMP, MHA, NRRD, videos"
                                           : "PNG, JPEG, BMP, MHA, NRRD";
}

const char *um_clip_advice(enum um_kind_sort sort)
{
    static const char *const advice[] = {
        [UM_KIND_OTHER_IMAGE] = "convert it to PNG",
        [UM_KIND_DICOM] = "ultramotion.run() of the Python package reads it, given without other "
                          "images (pip install ./python[dicom]), or export it as PNG",
        [UM_KIND_VOLUME] = "export its slices as PNG",
        [UM_KIND_WEIGHTS] = "weights are given with --detector or --segmenter, here goes an image",
        [UM_KIND_ARCHIVE] = "unpack it and give what is in it",
        [UM_KIND_ENCRYPTED] = "decrypt it first",
        [UM_KIND_POINTER] = "fetch the file itself with \"git lfs pull\"",
        [UM_KIND_PAGE] = "download the file itself again, this is what the server said instead",
        [UM_KIND_DOCUMENT] = "export its images as PNG",
        [UM_KIND_TEXT] = "give the image itself; a list of files is given as @LIST.txt",
        [UM_KIND_PROGRAM] = "give an image",
        [UM_KIND_EMPTY] = "copy or export it again",
        [UM_KIND_UNKNOWN] = "it may be damaged or encrypted: copy or export it again",
    };
    return advice[sort];
}

/* What it is, what was expected, what to do. */
static um_status refuse(const struct um_kind *kind)
{
    return um_fail(UM_EFORMAT, "%s, not an image (%s): %s",
                   kind->what[0] ? kind->what : "a file of unknown content", um_image_kinds(),
                   um_clip_advice(kind->sort));
}

/* Errors do not name the file. */
static um_status open_kind(struct um_clip *c)
{
    uint8_t head[UM_KIND_HEAD];
    size_t n = fread(head, 1, sizeof head, c->f.file);
    if (ferror(c->f.file) || fseek(c->f.file, 0, SEEK_SET) != 0)
        return um_fail(UM_EIO, "cannot read: %s", strerror(errno));
    struct um_kind kind = um_kind_of(head, n);
    if (kind.sort == UM_KIND_VIDEO)
        return um_video_open(&c->video, &c->f);
    if (kind.sort != UM_KIND_IMAGE)
        return refuse(&kind);
    if (strcmp(kind.name, "TIFF") == 0)
        return um_tiff_open(&c->tiff, &c->f);
    bool nrrd = strcmp(kind.name, "NRRD") == 0;
    if (nrrd || strcmp(kind.name, "MetaImage") == 0)
        return um_sequence_open(&c->sequence, &c->f, c->path, nrrd);
    c->still = strcmp(kind.name, "PNG") == 0    ? um_png_read
               : strcmp(kind.name, "JPEG") == 0 ? um_jpeg_read
                                                : um_bmp_read;
    return UM_OK;
}

/* Libraries that memory does not suffice for call the file damaged, or of a kind they do not know.
 * errno, 0 before, is what malloc() left. */
static um_status judged(um_status st)
{
    return (st == UM_EFORMAT || st == UM_EUNSUPPORTED) && errno == ENOMEM
               ? um_fail(UM_ENOMEM, "what decodes it")
               : st;
}

um_status um_clip_open(struct um_clip *c, const char *path, const um_source_settings *how)
{
    int fd = -1;
    *c = (struct um_clip){.path = path};
    if (how) {
        c->f.window = how->window;
        c->f.window_lo = how->window_lo;
        c->f.window_hi = how->window_hi;
    }
    um_status st = um_file_open(path, &fd, &c->f.bytes);
    if (st == UM_OK && !(c->f.file = fdopen(fd, "rb"))) {
        st = um_fail(UM_ENOMEM, "stream");
        close(fd);
    }
    errno = 0;
    if (st == UM_OK)
        st = judged(open_kind(c));
    if (st == UM_OK)
        return st;
    um_clip_close(c);
    return um_fail_in(st, path);
}

um_status um_clip_read(struct um_clip *c, um_frame **out)
{
    um_status st = UM_EOF;
    *out = NULL;
    errno = 0;
    if (c->tiff)
        st = um_tiff_read(c->tiff, out);
    else if (c->video)
        st = um_video_read(c->video, out);
    else if (c->sequence)
        st = um_sequence_read(c->sequence, out);
    else if (!c->done)
        st = c->still(&c->f, out);
    c->done = true;
    st = judged(st);
    if (st == UM_OK && (st = um_image_turn(out, c->f.facts.orientation)) != UM_OK)
        um_frame_unref(out);
    return st == UM_OK || st == UM_EOF ? st : um_fail_in(st, c->path);
}

bool um_clip_many(const struct um_clip *c)
{
    return c->video || (c->tiff && um_tiff_many(c->tiff)) ||
           (c->sequence && um_sequence_many(c->sequence));
}

void um_clip_close(struct um_clip *c)
{
    um_tiff_close(&c->tiff);
    um_video_close(&c->video);
    um_sequence_close(&c->sequence);
    if (c->f.file)
        fclose(c->f.file);
    *c = (struct um_clip){.done = true};
}

static um_status read_first(const char *path, const um_source_settings *how, bool alone,
                            um_frame **out, struct um_image_facts *facts)
{
    struct um_clip c;
    um_status st = um_clip_open(&c, path, how);
    if (st == UM_OK && alone && um_clip_many(&c))
        st = um_fail(UM_EFORMAT, "%s: several images in one file, one was expected", path);
    if (st == UM_OK)
        st = um_clip_read(&c, out);
    if (st == UM_EOF)
        st = um_fail(UM_EFORMAT, "%s: a video without a frame: copy or export it again", path);
    *facts = c.f.facts;
    um_clip_close(&c);
    return st;
}

um_status um_image_read(const char *path, um_frame **out)
{
    struct um_image_facts facts;
    if (!path || !out)
        return um_fail(UM_EINVAL, "um_image_read: %s is NULL", path ? "out" : "path");
    *out = NULL;
    return read_first(path, NULL, false, out, &facts);
}

um_status um_label_read(const char *path, uint8_t **mask, int *width, int *height)
{
    static const um_source_settings nonzero = {.window = UM_WINDOW_RANGE, .window_hi = 1};
    struct um_image_facts facts;
    um_frame *f = NULL;
    if (!path || !mask || !width || !height)
        return um_fail(UM_EINVAL, "um_label_read: %s is NULL",
                       !path   ? "path"
                       : !mask ? "mask"
                               : "width or height");
    *mask = NULL;
    um_status st = read_first(path, &nonzero, true, &f, &facts);
    if (st == UM_OK && facts.lossy)
        st = um_fail(UM_EFORMAT, "%s: a JPEG, in which what is 0 does not stay so: save it as PNG",
                     path);
    if (st == UM_OK && !(*mask = um_zalloc((size_t)f->width * (size_t)f->height)))
        st = um_fail(UM_ENOMEM, "%s: mask", path);
    for (int y = 0; st == UM_OK && y < f->height; y++)
        for (int x = 0; x < f->width * f->channels; x++)
            (*mask)[(size_t)y * (size_t)f->width + (size_t)(x / f->channels)] |=
                f->pixels[y * f->stride + x] != 0;
    if (st == UM_OK && facts.alpha && !memchr(*mask, !**mask, (size_t)f->width * (size_t)f->height))
        st =
            um_fail(UM_EFORMAT,
                    "%s: its mask is in its alpha alone, which is not read: save it as gray", path);
    if (st == UM_OK) {
        *width = f->width;
        *height = f->height;
    } else {
        um_free(*mask);
        *mask = NULL;
    }
    um_frame_unref(&f);
    return st;
}
