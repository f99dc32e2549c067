/* SPDX-License-Identifier: Apache-2.0 */
/* "masks:OUT.mha", "masks:OUT.seq.nrrd" and "masks:OUT.seg.nrrd": the masks of all frames in one
 * file, as label maps: 0, or the class + 1. How many there are stands in front of them, so they are
 * compressed into a hidden file first, and put behind their header at the end. */
#include "base/file.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"
#include "io/sequence_write.h"
#include "io/sink.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <zlib.h>

enum { LABELS = 256, PIECE = 1 << 16, NAME = 64 };
enum format { META, SEQUENCE, SEGMENTATION };

/* A class that was seen: its name and where. */
struct segment {
    char name[NAME];
    uint64_t least[3], most[3]; /* x, y, frame */
    bool seen;
};

struct masks {
    const char *path;
    enum format format;
    struct um_hold hold;
    struct um_part pixels, fields; /* hidden files that get no name */
    bool open, deflating, counts;  /* counts: frames of a source, whose ids leave out none */
    z_stream z;
    uint64_t frames;
    double ts, time, shift; /* of a sequence: the last packet's own time, the last frame's, and how
                               far times were moved since they went back */
    um_frame *first;
    uint8_t *labels, *one; /* a frame's, and an object's */
    uint8_t *piece;
    struct segment *segment; /* LABELS of them */
};

static bool ends_in(const char *path, const char *ending)
{
    size_t n = strlen(path), e = strlen(ending);
    return n > e && um_text_same(path + n - e, ending);
}

static um_status masks_open(void *priv, const char *arg, const um_sink_settings *settings,
                            int wake_fd)
{
    (void)wake_fd;
    struct masks *m = priv;
    *m = (struct masks){.path = arg, .hold.fd = -1, .counts = settings->source != NULL};
    if (ends_in(arg, ".mha"))
        m->format = META;
    else if (ends_in(arg, ".seg.nrrd"))
        m->format = SEGMENTATION;
    else if (ends_in(arg, ".nrrd"))
        m->format = SEQUENCE;
    else
        return um_fail(UM_EINVAL, "masks:%s: want a file that ends in .mha, .seq.nrrd or .seg.nrrd",
                       arg);
    um_status st = um_hold_open(&m->hold, arg);
    if (st == UM_OK)
        st = um_part_open(&m->pixels, arg);
    if (st == UM_OK && (st = um_part_open(&m->fields, arg)) != UM_OK)
        um_part_close(&m->pixels, st);
    m->open = st == UM_OK;
    m->piece = um_alloc(PIECE);
    m->segment = um_array(LABELS, sizeof *m->segment);
    enum { ZLIB = 15, GZIP = 15 + 16, MEMORY = 8 };
    int window = m->format == META ? ZLIB : GZIP;
    if (st == UM_OK && (!m->piece || !m->segment ||
                        deflateInit2(&m->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window, MEMORY,
                                     Z_DEFAULT_STRATEGY) != Z_OK))
        st = um_fail(UM_ENOMEM, "masks");
    m->deflating = st == UM_OK;
    return st;
}

static um_status failed(const struct masks *m, int error)
{
    return um_fail(UM_EIO, "%s: cannot be written: %s", m->path, strerror(error ? error : EIO));
}

static um_status squeeze(struct masks *m, const uint8_t *data, size_t n, int flush)
{
    int rc = Z_OK;
    m->z.next_in = (Bytef *)(uintptr_t)data;
    m->z.avail_in = (uInt)n;
    do {
        m->z.next_out = m->piece;
        m->z.avail_out = PIECE;
        rc = deflate(&m->z, flush);
        if (!um_part_write(&m->pixels, m->piece, PIECE - m->z.avail_out))
            return failed(m, m->pixels.error);
    } while (!m->z.avail_out || (flush == Z_FINISH && rc == Z_OK));
    return UM_OK;
}

/* ---- a frame ---- */

static void see(struct masks *m, const um_object *o)
{
    struct segment *s = &m->segment[o->label + 1];
    if (!s->seen) {
        *s = (struct segment){.seen = true, .least = {UINT64_MAX, UINT64_MAX, m->frames}};
        if (o->name)
            um_text_show(s->name, sizeof s->name, o->name);
        else
            snprintf(s->name, sizeof s->name, "class %d", o->label);
    }
    for (int k = 0; k < 2; k++) {
        uint64_t lo = (uint64_t)o->mask_box[k], hi = (uint64_t)o->mask_box[k + 2] - 1;
        s->least[k] = lo < s->least[k] ? lo : s->least[k];
        s->most[k] = hi > s->most[k] ? hi : s->most[k];
    }
    s->most[2] = m->frames;
}

/* Where several overlap, the best. */
static um_status paint(struct masks *m, const um_packet *p)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    memset(m->labels, 0, n);
    for (int i = p->objects - 1; i >= 0; i--) {
        const um_object *o = um_packet_object(p, i);
        if (!o->has_mask || !o->mask_area_px)
            continue;
        if (o->label < 0 || o->label + 1 >= LABELS)
            return um_fail(UM_EINVAL, "%s: class %d: masks have room for classes 0 to %d", m->path,
                           o->label, LABELS - 2);
        um_packet_object_mask(p, i, m->one, 1);
        for (size_t k = 0; k < n; k++)
            if (m->one[k])
                m->labels[k] = (uint8_t)(o->label + 1);
        see(m, o);
    }
    return UM_OK;
}

static um_status begin(struct masks *m, const um_packet *p, const um_frame *frame)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    m->first = um_frame_ref((um_frame *)(uintptr_t)frame);
    m->labels = um_alloc(n);
    m->one = um_alloc(n);
    return m->labels && m->one ? UM_OK : um_fail(UM_ENOMEM, "masks of %dx%d", p->width, p->height);
}

/* A frame's time in a sequence. 3D Slicer sorts frames by their times, and keeps one of those
 * within 1 ms of each other: they come 2 ms apart at least, those without a packet just before the
 * next that has one; and where time goes back, as at the next of several videos, it goes on. */
static double time_of(struct masks *m, const um_packet *p)
{
    static const double apart = .002;
    if (m->frames && p->ts < m->ts)
        m->shift = m->time + apart - p->ts;
    m->ts = p->ts;
    double before = p->frame_id > m->frames && m->counts ? (double)(p->frame_id - m->frames) : 0;
    double t = p->ts + m->shift - before * apart;
    m->time = m->frames && t < m->time + apart ? m->time + apart : t;
    return m->time;
}

/* `frame` NULL: of one that gave no packet, at the time of `p`, which comes next. */
static um_status put(struct masks *m, const um_packet *p, const um_frame *frame)
{
    char stamp[UM_NUMBER_BYTES];
    size_t n = (size_t)p->width * (size_t)p->height;
    um_status st = UM_OK;
    um_number_double(stamp, p->ts);
    if (frame)
        st = paint(m, p);
    else
        memset(m->labels, 0, n);
    if (st == UM_OK)
        st = squeeze(m, m->labels, n, Z_NO_FLUSH);
    if (st != UM_OK)
        return st;
    if (m->format == META && frame) {
        um_sequence_put_fields(m->fields.file, m->frames, frame);
    } else if (m->format == META) {
        um_sequence_put_field(m->fields.file, m->frames, "Timestamp", stamp);
        snprintf(stamp, sizeof stamp, "%" PRIu64, m->frames);
        um_sequence_put_field(m->fields.file, m->frames, "FrameNumber", stamp);
        um_sequence_put_field(m->fields.file, m->frames, "ImageStatus", "INVALID");
    } else if (m->format == SEQUENCE) {
        um_number_double(stamp, time_of(m, p));
        fprintf(m->fields.file, "%s%s", m->frames ? " " : "", stamp);
    }
    m->frames++;
    return ferror(m->fields.file) ? failed(m, errno) : UM_OK;
}

static um_status masks_write(void *priv, const um_packet *p, const um_frame *frame,
                             const char *name)
{
    (void)name;
    struct masks *m = priv;
    if (!frame || frame->width != p->width || frame->height != p->height)
        return um_fail(UM_EINVAL, "%s: a packet without its frame", m->path);
    if (um_packet_of_boxes(p))
        return um_fail(UM_EINVAL, "%s: a packet of a detector alone, which makes no masks",
                       m->path);
    um_status st = m->first ? UM_OK : begin(m, p, frame);
    if (st == UM_OK && (p->width != m->first->width || p->height != m->first->height))
        st = um_fail(UM_EINVAL,
                     "%s: frame %" PRIu64 " has %dx%d pixels, those before %dx%d: one file has one "
                     "size",
                     m->path, p->frame_id, p->width, p->height, m->first->width, m->first->height);
    while (st == UM_OK && m->counts && m->frames < p->frame_id)
        st = put(m, p, NULL);
    return st == UM_OK ? put(m, p, frame) : st;
}

/* ---- the file ---- */

/* What a hidden file holds. */
static um_status append(struct masks *m, struct um_part *to, const struct um_part *from)
{
    FILE *f = fflush(from->file) == 0 ? fopen(from->temporary, "rb") : NULL;
    if (!f)
        return failed(m, errno);
    for (size_t n; (n = fread(m->piece, 1, PIECE, f)) > 0;)
        um_part_write(to, m->piece, n);
    bool good = !ferror(f);
    fclose(f);
    return good ? UM_OK : failed(m, errno);
}

static void put_nrrd(FILE *f, const struct masks *m, bool listed)
{
    struct um_sequence_form form = um_sequence_form_of(m->first);
    char mm[2][UM_NUMBER_BYTES];
    for (int i = 0; i < 2; i++)
        um_number_double(mm[i], form.spacing[i]);
    fprintf(f,
            "NRRD0004\ntype: unsigned char\ndimension: %d\nspace: left-posterior-superior\nsizes: "
            "%d %d%s %" PRIu64 "\nspace directions: (%s,0,0) (0,%s,0) (0,0,1)%s\nkinds: domain "
            "domain domain%s\nencoding: gzip\nspace origin: (0,0,0)\n",
            listed ? 4 : 3, form.width, form.height, listed ? " 1" : "", m->frames, mm[0], mm[1],
            listed ? " none" : "", listed ? " list" : "");
}

/* Colours far from each other, one a class. */
static void put_segments(FILE *f, const struct masks *m)
{
    static const char *const colors[] = {"0.95 0.84 0.57", "0.85 0.40 0.30", "0.35 0.65 0.35",
                                         "0.35 0.50 0.85", "0.75 0.40 0.75", "0.30 0.75 0.75"};
    int n = 0;
    for (int i = 1; i < LABELS; i++) {
        const struct segment *s = &m->segment[i];
        if (!s->seen)
            continue;
        fprintf(f,
                "Segment%d_Color:=%s\nSegment%d_ColorAutoGenerated:=1\nSegment%d_Extent:=%" PRIu64
                " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
                "\nSegment%d_ID:=Segment_%d\nSegment%d_LabelValue:=%d\nSegment%d_Layer:=0\n"
                "Segment%d_Name:=%s\nSegment%d_NameAutoGenerated:=0\n"
                "Segment%d_Tags:=Segmentation.Status:inprogress|\n",
                n, colors[(size_t)n % (sizeof colors / sizeof *colors)], n, n, s->least[0],
                s->most[0], s->least[1], s->most[1], s->least[2], s->most[2], n, i, n, i, n, n,
                s->name, n, n);
        n++;
    }
    fprintf(f, "Segmentation_ContainedRepresentationNames:=Binary labelmap|\n"
               "Segmentation_ConversionParameters:=\n"
               "Segmentation_MasterRepresentation:=Binary labelmap\n"
               "Segmentation_ReferenceImageExtentOffset:=0 0 0\n\n");
}

static um_status put_header(struct masks *m, struct um_part *to)
{
    struct um_sequence_form form = um_sequence_form_of(m->first);
    um_status st = UM_OK;
    form.channels = 1;
    if (m->format == META) {
        um_sequence_put_meta(to->file, &form, m->frames, true, m->first, NULL);
        fprintf(to->file, "CompressedDataSize = %lu\n", (unsigned long)m->z.total_out);
        st = append(m, to, &m->fields);
        fprintf(to->file, "ElementDataFile = LOCAL\n");
    } else if (m->format == SEQUENCE) {
        put_nrrd(to->file, m, true);
        fprintf(to->file, "labels: \"\" \"\" \"\" \"time\"\nunits: \"\" \"\" \"\" \"s\"\n"
                          "DataNodeClassName:=vtkMRMLLabelMapVolumeNode\n"
                          "axis 3 index type:=numeric\naxis 3 index unit:=s\n"
                          "axis 3 index values:=");
        st = append(m, to, &m->fields);
        fprintf(to->file, "\n\n");
    } else {
        put_nrrd(to->file, m, false);
        put_segments(to->file, m);
    }
    return st;
}

static um_status write_file(struct masks *m)
{
    struct um_part part;
    um_status st = squeeze(m, NULL, 0, Z_FINISH);
    if (st == UM_OK)
        st = um_part_open(&part, m->path);
    if (st != UM_OK)
        return st;
    st = put_header(m, &part);
    if (st == UM_OK)
        st = append(m, &part, &m->pixels);
    if (ferror(part.file) && !part.error)
        part.error = EIO;
    return um_part_close(&part, st);
}

/* Without a frame there is nothing to write. */
static um_status masks_close(void *priv)
{
    struct masks *m = priv;
    bool any = m->first && m->deflating && m->frames;
    um_status st = any ? write_file(m) : UM_OK;
    um_hold_close(&m->hold, m->path, any && st == UM_OK);
    if (m->deflating)
        deflateEnd(&m->z);
    if (m->open) {
        um_part_close(&m->pixels, UM_EOF);
        um_part_close(&m->fields, UM_EOF);
    }
    um_frame_unref(&m->first);
    um_free(m->labels);
    um_free(m->one);
    um_free(m->piece);
    um_free(m->segment);
    return st;
}

const um_sink_ops um_sink_masks = {
    .struct_size = sizeof um_sink_masks,
    .priv_size = sizeof(struct masks),
    .open = masks_open,
    .write = masks_write,
    .close = masks_close,
};
