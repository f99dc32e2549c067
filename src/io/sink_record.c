/* SPDX-License-Identifier: Apache-2.0 */
/* "record:FOLDER": what came in as MetaImage sequences, what went out as JSON lines.
 *
 * A part is a header (.mhd) and a file of pixels (.raw), so that both grow. It is whole at every
 * moment, whenever the process is killed: pixels are written first, then the frame's fields behind
 * the header's last line, where nobody reads, then the few bytes that turn that last line into the
 * begin of the fields, which are one write inside one page, then the number of frames. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/path.h"
#include "io/recording.h"
#include "io/sequence_write.h"
#include "io/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, LAST = 64, HEADER = 32 << 20 }; /* HEADER: readers have a limit, and patience */

struct record {
    const char *folder;
    int wake, lock;
    um_lines *packets;
    int header, pixels; /* of the part; -1: none */
    int part;           /* the next one's number */
    struct um_sequence_form form;
    uint64_t frames;      /* in the part */
    off_t tail, count_at; /* where the header's last line is, and the number of frames */
    char last[LAST];      /* that line */
    char name[UM_RECORDING_NAME];
    uint8_t *rows;   /* a frame without gaps */
    uint64_t synced; /* when the disk was last told, ns */
};

static um_status failed(const struct record *r, const char *name)
{
    return um_fail(UM_EIO, "%s/%s: cannot be written: %s", r->folder, name, strerror(errno));
}

static um_status record_open(void *priv, const char *arg, const um_sink_settings *settings,
                             int wake_fd)
{
    (void)settings;
    struct record *r = priv;
    *r = (struct record){.folder = arg, .wake = wake_fd, .lock = -1, .header = -1, .pixels = -1};
    if (!arg[0])
        return um_fail(UM_EINVAL, "record: needs a folder");
    um_status st = um_path_hold_folder(arg, &r->lock);
    if (st != UM_OK)
        return st;
    struct stat s;
    char part[UM_RECORDING_NAME];
    um_recording_part(part, 0, "raw");
    char *path = um_path_join(arg, UM_RECORDING_PACKETS), *pixels = um_path_join(arg, part);
    if (!path || !pixels)
        st = um_fail(UM_ENOMEM, "%s", arg);
    else if (access(pixels, F_OK) == 0 || (stat(path, &s) == 0 && s.st_size > 0))
        st = um_fail(UM_EIO, "%s: holds a recording: name another folder", arg);
    else /* what a run left that ended before its first frame is none */
        st = um_lines_open(&r->packets, path);
    um_free(path);
    um_free(pixels);
    return st;
}

/* ---- files ---- */

static bool write_at(int fd, const char *data, size_t n, off_t at)
{
    while (n) {
        ssize_t done = pwrite(fd, data, n, at);
        if (done < 0 && errno != EINTR)
            return false;
        if (done > 0) {
            data += done;
            n -= (size_t)done;
            at += done;
        }
    }
    return true;
}

static um_status write_pixels(struct record *r, const um_frame *f)
{
    char name[UM_RECORDING_NAME];
    size_t row = (size_t)f->width * (size_t)f->channels, n = row * (size_t)f->height;
    const uint8_t *from = f->pixels;
    if (f->stride != (ptrdiff_t)row) {
        for (int y = 0; y < f->height; y++)
            memcpy(r->rows + (size_t)y * row, f->pixels + y * f->stride, row);
        from = r->rows;
    }
    um_recording_part(name, r->part - 1, "raw");
    return write_at(r->pixels, (const char *)from, n, (off_t)(r->frames * n)) ? UM_OK
                                                                              : failed(r, name);
}

/* A stream in memory tells nobody that memory ran out, but errno, which was 0 when it was opened.
 */
static bool close_text(FILE *out, char *const *text)
{
    return out && fclose(out) == 0 && *text && errno != ENOMEM;
}

/* The frame's lines. Spaces in front of the last line's end see to it that what follows behind
 * `before` bytes, the header's last line, lies within one page. */
static um_status make_fields(const struct record *r, const um_frame *f, off_t before, char **text,
                             size_t *n)
{
    char sum[9];
    char *source = um_alloc(3 * strlen(f->source) + 1);
    errno = 0;
    FILE *out = source ? open_memstream(text, n) : NULL;
    size_t last = strlen(r->last);
    um_recording_sum(sum, f);
    if (out) {
        um_recording_escape(source, f->source);
        um_sequence_put_fields(out, r->frames, f);
        um_sequence_put_field(out, r->frames, "UltramotionSource", source);
        um_sequence_put_field(out, r->frames, "UltramotionCrc32", sum);
        fflush(out);
        size_t over = (size_t)(before + (off_t)*n) % PAGE;
        if (over + last > PAGE) {
            fseek(out, -1, SEEK_END);
            fprintf(out, "%*s\n", (int)(PAGE - over), "");
        }
    }
    um_free(source);
    return close_text(out, text) ? UM_OK : um_fail(UM_ENOMEM, "fields of a frame");
}

/* ---- parts ---- */

static um_status end_part(struct record *r)
{
    bool good = true;
    for (int i = 0; i < 2; i++) {
        int *fd = i ? &r->header : &r->pixels;
        if (*fd < 0)
            continue;
        good = fdatasync(*fd) == 0 && good;
        good = close(*fd) == 0 && good;
        *fd = -1;
    }
    um_free(r->rows);
    r->rows = NULL;
    return good ? UM_OK : failed(r, r->name);
}

static um_status open_pixels(struct record *r)
{
    char name[UM_RECORDING_NAME];
    um_recording_part(name, r->part, "raw");
    um_recording_part(r->name, r->part++, "mhd");
    snprintf(r->last, sizeof r->last, "ElementDataFile = %s\n", name);
    char *path = um_path_join(r->folder, name);
    r->pixels = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    um_status st = !path ? um_fail(UM_ENOMEM, "%s", name) : r->pixels < 0 ? failed(r, name) : UM_OK;
    um_free(path);
    return st;
}

/* The header with its first frame, which gets its name when it is whole. */
static um_status write_header(struct record *r, const um_frame *f, const char *path)
{
    char *head = NULL, *fields = NULL;
    size_t n = 0, more = 0;
    long count_at = 0;
    struct um_part part;
    errno = 0;
    FILE *out = open_memstream(&head, &n);
    if (out)
        um_sequence_put_meta(out, &r->form, 1, false, f, &count_at);
    um_status st = close_text(out, &head) ? make_fields(r, f, (off_t)n, &fields, &more)
                                          : um_fail(UM_ENOMEM, "header of a sequence");
    if (st == UM_OK && (st = um_part_open(&part, path)) == UM_OK) {
        um_part_write(&part, head, n);
        um_part_write(&part, fields, more);
        um_part_write(&part, r->last, strlen(r->last));
        st = um_part_close(&part, UM_OK);
    }
    r->count_at = count_at;
    r->tail = (off_t)(n + more);
    free(head);
    free(fields);
    if (st == UM_OK && (r->header = open(path, O_WRONLY | O_CLOEXEC)) < 0)
        st = failed(r, r->name);
    return st;
}

static um_status begin_part(struct record *r, const um_frame *f)
{
    um_status st = end_part(r);
    r->form = um_sequence_form_of(f);
    r->frames = 0;
    if (st == UM_OK)
        st = open_pixels(r);
    r->rows = um_alloc((size_t)f->width * (size_t)f->height * (size_t)f->channels);
    if (st == UM_OK && !r->rows)
        st = um_fail(UM_ENOMEM, "frame to be recorded");
    if (st == UM_OK)
        st = write_pixels(r, f);
    char *path = um_path_join(r->folder, r->name);
    if (st == UM_OK)
        st = path ? write_header(r, f, path) : um_fail(UM_ENOMEM, "%s", r->name);
    um_free(path);
    return st;
}

static um_status append(struct record *r, const um_frame *f)
{
    char *block = NULL, count[UM_SEQUENCE_COUNT + 1];
    size_t n = 0, last = strlen(r->last);
    um_status st = write_pixels(r, f);
    if (st == UM_OK)
        st = make_fields(r, f, r->tail, &block, &n);
    char *grown = st == UM_OK ? realloc(block, n + last + 1) : NULL;
    if (st == UM_OK && !grown)
        st = um_fail(UM_ENOMEM, "fields of a frame");
    if (st == UM_OK) {
        block = grown;
        memcpy(block + n, r->last, last);
        snprintf(count, sizeof count, "%-*" PRIu64, UM_SEQUENCE_COUNT, r->frames + 1);
        if (!write_at(r->header, block + last, n, r->tail + (off_t)last) ||
            !write_at(r->header, block, last, r->tail) ||
            !write_at(r->header, count, UM_SEQUENCE_COUNT, r->count_at))
            st = failed(r, r->name);
    }
    if (st == UM_OK)
        r->tail += (off_t)n;
    free(block);
    return st;
}

/* A machine that loses its power loses about a second. */
static um_status sync_now_and_then(struct record *r)
{
    const uint64_t second = 1000000000;
    uint64_t now = um_clock_ns();
    if (now - r->synced < second)
        return UM_OK;
    r->synced = now;
    return fdatasync(r->pixels) == 0 && fdatasync(r->header) == 0 ? UM_OK : failed(r, r->name);
}

static um_status record_write(void *priv, const um_packet *packet, const um_frame *frame,
                              const char *name)
{
    (void)name;
    struct record *r = priv;
    if (!frame)
        return um_fail(UM_EINVAL, "record:%s: a packet without its frame", r->folder);
    struct um_sequence_form form = um_sequence_form_of(frame);
    bool fits = r->header >= 0 && r->tail < HEADER && um_sequence_form_equal(&form, &r->form);
    um_status st = fits ? append(r, frame)
                   : r->part < UM_RECORDING_PARTS
                       ? begin_part(r, frame)
                       : um_fail(UM_EIO, "%s: too many parts", r->folder);
    char *line = NULL;
    if (st == UM_OK) {
        r->frames++;
        st = um_packet_json(packet, &line);
    }
    if (st == UM_OK)
        st = um_lines_write(r->packets, line, r->wake);
    um_free(line);
    return st == UM_OK ? sync_now_and_then(r) : st;
}

static um_status record_close(void *priv)
{
    struct record *r = priv;
    um_status st = end_part(r), closed = um_lines_close(&r->packets);
    if (r->lock >= 0)
        close(r->lock);
    return st != UM_OK ? st : closed;
}

const um_sink_ops um_sink_record = {
    .struct_size = sizeof um_sink_record,
    .priv_size = sizeof(struct record),
    .open = record_open,
    .write = record_write,
    .close = record_close,
};
