/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sequence.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/path.h"
#include "io/sequence_head.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

enum { RATIO = 1032, PIECE = 1 << 16, INTERLEAVED_MOST = 1 << 30 };

struct um_sequence {
    struct um_sequence_head head;
    struct um_image_file *f;
    FILE *data;       /* f->file, or one of its own */
    int64_t left;     /* bytes of it that were not read */
    size_t per_frame; /* bytes as they are stored */
    uint64_t next;
    uint8_t *stored; /* a frame of 16 bits; or all, where frames are interleaved */
    z_stream z;
    bool inflating, finished; /* finished: a compressed stream has come to its end */
    uint8_t *piece;           /* compressed bytes */
};

/* ---- bytes ---- */

static um_status read_raw(struct um_sequence *s, uint8_t *to, size_t n, size_t *got)
{
    *got = fread(to, 1, n, s->data);
    s->left -= (int64_t)*got;
    return ferror(s->data) ? um_fail(UM_EIO, "cannot read: %s", strerror(errno)) : UM_OK;
}

/* Streams may follow each other, as gzip allows. */
static um_status inflate_some(struct um_sequence *s, uint8_t *to, size_t n, size_t *got)
{
    um_status st = UM_OK;
    s->z.next_out = to;
    s->z.avail_out = (uInt)n;
    while (s->z.avail_out && st == UM_OK) {
        if (!s->z.avail_in) {
            size_t more = 0;
            st = read_raw(s, s->piece, PIECE, &more);
            if (st != UM_OK || !more)
                break;
            s->z.next_in = s->piece;
            s->z.avail_in = (uInt)more;
        }
        if (s->finished && inflateReset(&s->z) != Z_OK)
            return um_fail(UM_ENOMEM, "zlib");
        s->finished = false;
        int rc = inflate(&s->z, Z_NO_FLUSH);
        s->finished = rc == Z_STREAM_END;
        if (rc == Z_MEM_ERROR)
            st = um_fail(UM_ENOMEM, "zlib");
        else if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            st = um_fail(UM_EFORMAT, "damaged in frame %llu of %llu (%s)" UM_IMAGE_AGAIN,
                         (unsigned long long)s->next, (unsigned long long)s->head.frames,
                         s->z.msg ? s->z.msg : "zlib");
    }
    *got = n - s->z.avail_out;
    return st;
}

/* All `n`, or an error that names the frame. */
static um_status read_bytes(struct um_sequence *s, uint8_t *to, size_t n)
{
    size_t have = 0, got = 1;
    um_status st = UM_OK;
    while (have < n && got && st == UM_OK) {
        size_t want = n - have < PIECE * (size_t)RATIO ? n - have : PIECE * (size_t)RATIO;
        st = s->inflating ? inflate_some(s, to + have, want, &got)
                          : read_raw(s, to + have, want, &got);
        have += got;
    }
    if (st != UM_OK || have == n)
        return st;
    return um_fail(UM_EFORMAT, "ends in frame %llu of %llu" UM_IMAGE_AGAIN,
                   (unsigned long long)s->next, (unsigned long long)s->head.frames);
}

/* Room that the file cannot fill is not asked for. */
static um_status check_room(const struct um_sequence *s, uint64_t bytes)
{
    uint64_t left = (uint64_t)(s->left > 0 ? s->left : 0) + s->z.avail_in;
    if ((s->inflating ? bytes / RATIO : bytes) <= left + s->inflating)
        return UM_OK;
    return um_fail(UM_EFORMAT, "ends in frame %llu of %llu" UM_IMAGE_AGAIN,
                   (unsigned long long)s->next, (unsigned long long)s->head.frames);
}

/* ---- opening ---- */

/* The file beside the header's. */
static um_status open_data(struct um_sequence *s, const char *path)
{
    char *whole = um_path_beside(path, s->head.file);
    int fd = -1;
    um_status st =
        whole ? um_file_open(whole, &fd, &s->left) : um_fail(UM_ENOMEM, "name of a file of pixels");
    if (st == UM_OK && !(s->data = fdopen(fd, "rb"))) {
        st = um_fail(UM_ENOMEM, "stream");
        close(fd);
    }
    if (st != UM_OK && st != UM_ENOMEM)
        st = um_fail_in(st, s->head.file);
    um_free(whole);
    return st;
}

static um_status begin_inflating(struct um_sequence *s)
{
    enum { ZLIB_OR_GZIP = 15 + 32 };
    s->piece = um_alloc(PIECE);
    if (!s->piece || inflateInit2(&s->z, ZLIB_OR_GZIP) != Z_OK)
        return um_fail(UM_ENOMEM, "zlib");
    s->inflating = true;
    return UM_OK;
}

um_status um_sequence_open(struct um_sequence **out, struct um_image_file *f, const char *path,
                           bool nrrd)
{
    struct um_sequence *s = *out = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "sequence");
    s->f = f;
    um_status st = um_sequence_head_read(&s->head, f->file, nrrd);
    if (st == UM_OK && s->head.file) {
        st = open_data(s, path);
    } else if (st == UM_OK) {
        s->data = f->file;
        s->left = f->bytes - s->head.data_at;
    }
    s->per_frame = (size_t)s->head.width * (size_t)s->head.height * (size_t)s->head.channels *
                   (size_t)s->head.bytes;
    if (st == UM_OK && !s->head.frames)
        st = um_fail(UM_EFORMAT, "%s without a frame", s->head.format);
    if (st == UM_OK && s->head.compressed)
        st = begin_inflating(s);
    if (st != UM_OK)
        um_sequence_close(out);
    return st;
}

bool um_sequence_stat(const struct um_sequence *s, struct stat *data)
{
    return fstat(fileno(s->data), data) == 0;
}

bool um_sequence_many(const struct um_sequence *s)
{
    return s->head.frames > 1;
}

void um_sequence_close(struct um_sequence **sequence)
{
    struct um_sequence *s = *sequence;
    if (!s)
        return;
    if (s->data && s->data != s->f->file)
        fclose(s->data);
    if (s->inflating)
        inflateEnd(&s->z);
    um_sequence_head_finish(&s->head);
    um_free(s->stored);
    um_free(s->piece);
    um_free(s);
    *sequence = NULL;
}

/* ---- frames ---- */

/* All of them, whose pixels lie together: none is whole before the last byte. */
static um_status load_interleaved(struct um_sequence *s)
{
    uint64_t frames = s->head.frames;
    if (frames > INTERLEAVED_MOST / s->per_frame)
        return um_fail(UM_EFORMAT,
                       "%s of %llu frames that lie pixel by pixel: more than %d MB; save it with "
                       "the list as its last axis",
                       s->head.format, (unsigned long long)frames, INTERLEAVED_MOST >> 20);
    um_status st = check_room(s, frames * s->per_frame);
    if (st != UM_OK)
        return st;
    s->stored = um_alloc((size_t)frames * s->per_frame);
    return s->stored ? read_bytes(s, s->stored, (size_t)frames * s->per_frame)
                     : um_fail(UM_ENOMEM, "%llu frames", (unsigned long long)frames);
}

/* The frame's samples as they are stored, into `to`. */
static um_status read_stored(struct um_sequence *s, uint8_t *to)
{
    if (!s->head.interleaved)
        return read_bytes(s, to, s->per_frame);
    size_t bytes = (size_t)s->head.bytes, n = s->per_frame / bytes, frames = (size_t)s->head.frames;
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * bytes, s->stored + (i * frames + (size_t)s->next) * bytes, bytes);
    return UM_OK;
}

static um_status read_wide(struct um_sequence *s, um_frame *frame)
{
    size_t n = s->per_frame / 2;
    uint8_t *raw = um_alloc(s->per_frame);
    uint16_t *samples = um_alloc(s->per_frame);
    um_status st = raw && samples ? read_stored(s, raw) : um_fail(UM_ENOMEM, "16-bit samples");
    for (size_t i = 0; i < n && st == UM_OK; i++)
        samples[i] = s->head.from_top ? (uint16_t)(raw[2 * i] << 8 | raw[2 * i + 1])
                                      : (uint16_t)(raw[2 * i + 1] << 8 | raw[2 * i]);
    if (st == UM_OK)
        st = um_image_levels(s->f, samples, n, 0, frame->pixels);
    um_free(raw);
    um_free(samples);
    return st;
}

um_status um_sequence_read(struct um_sequence *s, um_frame **out)
{
    *out = NULL;
    s->f->facts = (struct um_image_facts){.orientation = s->head.orientation};
    if (s->next >= s->head.frames)
        return UM_EOF;
    um_status st = UM_OK;
    if (s->head.interleaved && !s->stored)
        st = load_interleaved(s);
    else if (!s->head.interleaved)
        st = check_room(s, s->per_frame);
    if (st == UM_OK)
        st = um_frame_create(out, s->head.width, s->head.height, s->head.channels);
    if (st == UM_OK)
        st = s->head.bytes == 2 ? read_wide(s, *out) : read_stored(s, (*out)->pixels);
    bool whole = st == UM_OK;
    if (whole)
        st = um_sequence_head_describe(&s->head, s->next, *out);
    s->next = whole ? s->next + 1 : s->head.frames; /* what follows a gap cannot be found */
    if (whole && s->next == s->head.frames && !s->inflating && s->left > 0)
        s->f->facts.untold = (uint64_t)s->left / s->per_frame;
    if (st != UM_OK)
        um_frame_unref(out);
    return st;
}
