/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sequence_head.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"
#include "io/origin.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AXES = 8, HEADER_MOST = 256 << 20 };

enum role { SPACE, LIST, CHANNEL, UNSAID };

/* What is known while lines are read; what it means is settled at their end. */
struct draft {
    struct um_sequence_head *h;
    bool nrrd, ended, encoded, ordered; /* the latter two: an NRRD says how */
    bool known_spacing, unknown_spacing;
    int axes, sizes, kinds, spacings; /* axes: as announced; 0 = not yet */
    uint64_t size[AXES], channels;
    enum role kind[AXES];
    double spacing[AXES], mm[AXES]; /* mm: of a unit of spacing, 0 = nothing was said */
    double seconds[AXES];           /* of a unit of a list's values, likewise */
    bool counted[AXES];             /* the axis is called otherwise than a time */
    char type[32];
    size_t bytes, capacity; /* of h->text */
    size_t room, others_room;
};

static um_status refuse(const struct draft *d, const char *what, const char *value)
{
    return um_fail(UM_EFORMAT,
                   "%s with %s%s is not read: save it with unsigned samples of 8 or 16 bits, gray "
                   "or RGB, raw or gzip",
                   d->h->format, what, value);
}

static um_status bad(const struct draft *d, const char *what, const char *value)
{
    return um_fail(UM_EFORMAT, "bad %s header: %s%.200s", d->h->format, what, value);
}

/* ---- lines ---- */

static bool put(struct draft *d, char c)
{
    if (!um_make_room(&d->h->text, &d->capacity, d->bytes, 1, 1))
        return false;
    d->h->text[d->bytes++] = c;
    return true;
}

/* The next line as text that ends in a zero; *from is where it begins. UM_EOF: there is none. */
static um_status read_line(struct draft *d, FILE *file, size_t *from)
{
    int c = 0;
    *from = d->bytes;
    while ((c = getc(file)) != EOF && c != '\n') {
        if (!c)
            return bad(d, "a zero in it", "");
        if (d->bytes == HEADER_MOST)
            return um_fail(UM_EFORMAT, "bad %s header: longer than %d MB", d->h->format,
                           HEADER_MOST >> 20);
        if (!put(d, (char)c))
            return um_fail(UM_ENOMEM, "%s header", d->h->format);
    }
    if (ferror(file))
        return um_fail(UM_EIO, "cannot read: %s", strerror(errno));
    if (c == EOF && d->bytes == *from)
        return UM_EOF;
    while (d->bytes > *from && isspace((unsigned char)d->h->text[d->bytes - 1]))
        d->bytes--;
    return put(d, 0) ? UM_OK : um_fail(UM_ENOMEM, "%s header", d->h->format);
}

static char *skip_space(char *s)
{
    return s + strspn(s, " \t");
}

/* "NAME = VALUE", "name: value" or "key:=value" (*pair: the last); false: none of them. */
static bool split(const struct draft *d, char *line, char **name, char **value, bool *pair)
{
    char *sign = strchr(line, d->nrrd ? ':' : '=');
    if (!sign || sign == line)
        return false;
    *pair = d->nrrd && sign[1] == '=';
    *name = skip_space(line);
    *value = skip_space(sign + 1 + *pair);
    while (sign > *name && isspace((unsigned char)sign[-1]))
        sign--;
    *sign = 0;
    return true;
}

/* ---- values ---- */

/* The next word of *text; false at the end, or if it is longer than `size`. */
static bool word(const char **text, char *out, size_t size)
{
    const char *s = *text + strspn(*text, " \t");
    size_t n = strcspn(s, " \t");
    if (!n || n >= size)
        return false;
    memcpy(out, s, n);
    out[n] = 0;
    *text = s + n;
    return true;
}

/* `what`: as the format calls it. */
static um_status read_axes(struct draft *d, const char *what, const char *value)
{
    uint64_t n = 0;
    if (!um_number_whole(value, AXES, &n))
        return bad(d, what, value);
    d->axes = (int)n;
    return UM_OK;
}

static um_status read_sizes(struct draft *d, const char *value)
{
    char text[24];
    for (d->sizes = 0; word(&value, text, sizeof text); d->sizes++)
        if (d->sizes == AXES || !um_number_whole(text, INT64_MAX, &d->size[d->sizes]))
            return bad(d, "size ", text);
    return UM_OK;
}

static enum role role_of(const char *kind)
{
    if (um_text_same(kind, "domain") || um_text_same(kind, "space"))
        return SPACE;
    if (um_text_same(kind, "list") || um_text_same(kind, "time"))
        return LIST;
    return strcmp(kind, "???") == 0 || um_text_same(kind, "none") ? UNSAID : CHANNEL;
}

static um_status read_kinds(struct draft *d, const char *value)
{
    char text[32];
    for (d->kinds = 0; word(&value, text, sizeof text); d->kinds++) {
        if (d->kinds == AXES)
            return bad(d, "kind ", text);
        d->kind[d->kinds] = role_of(text);
    }
    return UM_OK;
}

static um_status read_spacings(struct draft *d, const char *value)
{
    char text[UM_NUMBER_BYTES];
    for (d->spacings = 0; d->spacings < AXES && word(&value, text, sizeof text); d->spacings++)
        if (!um_number_read(text, &d->spacing[d->spacings]))
            d->spacing[d->spacings] = NAN; /* of an axis that has none */
    return UM_OK;
}

/* "(0.2,0,0) (0,0.2,0) none": their lengths. */
static um_status read_directions(struct draft *d, const char *value)
{
    for (d->spacings = 0; d->spacings < AXES; d->spacings++) {
        char text[4 * UM_NUMBER_BYTES];
        value += strspn(value, " \t");
        size_t n = value[0] == '(' ? strcspn(value, ")") : strcspn(value, " \t");
        if (!n)
            break;
        if (n >= sizeof text)
            return bad(d, "space direction ", value);
        memcpy(text, value + (value[0] == '('), n - (value[0] == '('));
        text[n - (value[0] == '(')] = 0;
        value += n + (value[n] == ')');
        double sum = 0, v = 0;
        for (char *one = text, *next; one; one = next) {
            next = strchr(one, ',');
            if (next)
                *next++ = 0;
            sum = um_number_read(one, &v) ? sum + v * v : NAN;
        }
        d->spacing[d->spacings] = sqrt(sum);
    }
    return UM_OK;
}

/* NAN: not a length. */
static double mm_of(const char *unit, size_t n)
{
    static const struct {
        const char *name;
        double mm;
    } units[] = {{"mm", 1},           {"millimeter", 1}, {"cm", 10},
                 {"m", 1000},         {"um", 1e-3},      {"\xc2\xb5m", 1e-3}, /* micro */
                 {"\xce\xbcm", 1e-3},                                         /* mu */
                 {"micron", 1e-3},    {"microns", 1e-3}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strlen(units[i].name) == n && um_text_same_n(unit, units[i].name, n))
            return units[i].mm;
    return NAN;
}

/* NAN: not a time. */
static double seconds_of(const char *unit, size_t n)
{
    return n == 1 && unit[0] == 's' ? 1 : n == 2 && strncmp(unit, "ms", n) == 0 ? 1e-3 : NAN;
}

/* Of each axis in quotes, "" = not said; or (`all`) the first one's of all. */
static void read_units(struct draft *d, const char *value, bool all)
{
    for (int i = 0; i < AXES && value[0] == '"'; i++) {
        size_t n = strcspn(value + 1, "\"");
        for (int axis = i; n && axis < (all ? AXES : i + 1); axis++) {
            d->mm[axis] = mm_of(value + 1, n);
            if (!all)
                d->seconds[axis] = seconds_of(value + 1, n);
        }
        value += all ? strlen(value) : n + 1;
        value += value[0] == '"';
        value += strspn(value, " \t");
    }
}

/* What axes are called, in quotes, "" = not said. */
static void read_labels(struct draft *d, const char *value)
{
    for (int i = 0; i < AXES && value[0] == '"'; i++) {
        size_t n = strcspn(value + 1, "\"");
        d->counted[i] = n && (n != 4 || !um_text_same_n(value + 1, "time", n));
        value += n + 1;
        value += value[0] == '"';
        value += strspn(value, " \t");
    }
}

/* Plus: where x and y of the stored image point, Marked or Unmarked side, Near or Far; a third
 * letter is of volumes. */
static um_status read_orientation(struct draft *d, const char *value)
{
    static const char *const names[] = {"MF", "UF", "UN", "MN", "FM", "FU", "NU", "NM"};
    for (int i = 0; i < 8; i++)
        if (um_text_same_n(value, names[i], 2) && strlen(value) <= 3) {
            d->h->orientation = i + 1;
            return UM_OK;
        }
    return um_text_same_n(value, "XX", 2) ? UM_OK : bad(d, "ultrasound orientation ", value);
}

static bool is_true(const char *value)
{
    return value[0] == 'T' || value[0] == 't' || value[0] == '1';
}

static um_status copy(const struct draft *d, char *to, size_t size, const char *value)
{
    if (strlen(value) >= size)
        return bad(d, "", value);
    strcpy(to, value);
    return UM_OK;
}

/* A file with the pixels lies beside this one, or nowhere. */
static um_status take_file(struct draft *d, const char *value)
{
    value += strncmp(value, "./", 2) == 0 ? 2 : 0;
    if (!value[0] || strchr(value, '/') || strchr(value, '\\') || strchr(value, '%') ||
        strncmp(value, "LIST", 4) == 0)
        return refuse(d, "pixels not in one file of the same folder: ", value);
    d->h->file = value;
    return UM_OK;
}

/* ---- fields of frames, and what means nothing to us ---- */

static um_status add_field(struct draft *d, const char *name, const char *value, const char *digits)
{
    struct um_sequence_head *h = d->h;
    char number[24];
    const char *end = strchr(digits, '_');
    struct um_sequence_field f = {.value = (size_t)(value - h->text)};
    size_t n = end ? (size_t)(end - digits) : 0;
    if (n >= sizeof number)
        n = 0;
    memcpy(number, digits, n);
    number[n] = 0;
    if (!um_number_whole(number, INT64_MAX, &f.frame) || !end[1])
        return bad(d, "field ", name);
    f.name = (size_t)(end + 1 - h->text);
    if (!um_make_room(&h->fields, &d->room, h->n_fields, 1, sizeof *h->fields))
        return um_fail(UM_ENOMEM, "%s header", h->format);
    h->fields[h->n_fields++] = f;
    return UM_OK;
}

static um_status add_other(struct draft *d, const char *name, const char *value)
{
    struct um_sequence_head *h = d->h;
    if (!um_make_room(&h->others, &d->others_room, 2 * h->n_others, 2, sizeof *h->others))
        return um_fail(UM_ENOMEM, "%s header", h->format);
    h->others[2 * h->n_others] = (size_t)(name - h->text);
    h->others[2 * h->n_others++ + 1] = (size_t)(value - h->text);
    return UM_OK;
}

static int by_frame(const void *a, const void *b)
{
    const struct um_sequence_field *x = a, *y = b;
    return x->frame != y->frame ? (x->frame < y->frame ? -1 : 1) : (x->name < y->name ? -1 : 1);
}

static bool is(const char *name, const char *other)
{
    return um_text_same(name, other);
}

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
    size_t i = 0;
    while (i < n && !is(name, list[i]))
        i++;
    return i < n;
}
#define IS_ONE_OF(name, list) is_one_of(name, list, sizeof list / sizeof *list)

/* What both formats have. */
static um_status take_common(struct draft *d, const char *name, const char *value)
{
    static const char prefix[] = "Seq_Frame";
    if (strncmp(name, prefix, sizeof prefix - 1) == 0)
        return add_field(d, name, value, name + sizeof prefix - 1);
    if (is(name, "UltrasoundImageOrientation") || is(name, "ultrasound image orientation"))
        return read_orientation(d, value);
    if (is(name, "UltramotionSpacing")) {
        d->known_spacing = strcmp(value, "known") == 0;
        d->unknown_spacing = !d->known_spacing;
        return UM_OK;
    }
    return add_other(d, name, value);
}

/* Of a MetaImage: of no use here, and written anew. */
static const char *const told[] = {
    "AnatomicalOrientation", "CenterOfRotation", "Offset",    "TransformMatrix",
    "UltrasoundImageType",   "Comment",          "Position",  "Orientation",
    "CompressedDataSize",    "ElementMin",       "ElementMax"};

static um_status take_meta(struct draft *d, const char *name, const char *value)
{
    if (is(name, "ObjectType"))
        return is(value, "Image") ? UM_OK : refuse(d, "ObjectType ", value);
    if (is(name, "NDims"))
        return read_axes(d, "NDims ", value);
    if (is(name, "DimSize"))
        return read_sizes(d, value);
    if (strcmp(name, "Kinds") == 0) /* "kinds", which Plus leaves there, was an NRRD's */
        return read_kinds(d, value);
    if (is(name, "ElementSpacing"))
        return read_spacings(d, value);
    if (is(name, "ElementType"))
        return copy(d, d->type, sizeof d->type, value);
    if (is(name, "ElementNumberOfChannels"))
        return um_number_whole(value, INT32_MAX, &d->channels) ? UM_OK : bad(d, name, value);
    if (is(name, "BinaryData"))
        return is_true(value) ? UM_OK : refuse(d, "pixels as text", "");
    if (is(name, "BinaryDataByteOrderMSB") || is(name, "ElementByteOrderMSB")) {
        d->h->from_top = is_true(value);
        return UM_OK;
    }
    if (is(name, "CompressedData")) {
        d->h->compressed = is_true(value);
        return UM_OK;
    }
    if (is(name, "HeaderSize"))
        return strcmp(value, "0") == 0 ? UM_OK : refuse(d, "HeaderSize ", value);
    if (is(name, "ElementDataFile")) {
        d->ended = true;
        return is(value, "LOCAL") ? UM_OK : take_file(d, value); /* some wrote "Local" */
    }
    if (IS_ONE_OF(name, told))
        return UM_OK;
    return take_common(d, name, value);
}

/* "key:=value" is no field, whatever the key: SimpleITK writes a MetaImage's "Kinds" like that.
 * What a MetaImage's header has is not kept, as it would be said twice where that is written. */
static um_status take_pair(struct draft *d, const char *key, const char *value)
{
    static const char *const meta[] = {"ObjectType",
                                       "NDims",
                                       "DimSize",
                                       "Kinds",
                                       "ElementSpacing",
                                       "ElementType",
                                       "BinaryData",
                                       "CompressedData",
                                       "ElementNumberOfChannels",
                                       "ElementDataFile",
                                       "HeaderSize",
                                       "BinaryDataByteOrderMSB",
                                       "ElementByteOrderMSB"};
    if (um_text_same_n(key, "axis ", 5) && key[5] && is(key + 6, " index values")) {
        d->h->stamps = (size_t)(value - d->h->text);
        return UM_OK;
    }
    return IS_ONE_OF(key, meta) || IS_ONE_OF(key, told) ? UM_OK : take_common(d, key, value);
}

static um_status take_nrrd(struct draft *d, const char *name, const char *value)
{
    static const char *const idle[] = {
        "space", "space origin", "space dimension",   "content",  "centers",   "thicknesses", "min",
        "max",   "axismins",     "measurement frame", "axismaxs", "axis mins", "axis maxs"};
    if (is(name, "type"))
        return copy(d, d->type, sizeof d->type, value);
    if (is(name, "dimension"))
        return read_axes(d, "dimension ", value);
    if (is(name, "sizes"))
        return read_sizes(d, value);
    if (is(name, "kinds"))
        return read_kinds(d, value);
    if (is(name, "spacings"))
        return read_spacings(d, value);
    if (is(name, "space directions"))
        return read_directions(d, value);
    if (is(name, "units") || is(name, "space units")) {
        read_units(d, value, is(name, "space units"));
        return UM_OK;
    }
    if (is(name, "labels")) {
        read_labels(d, value);
        return UM_OK;
    }
    if (is(name, "endian")) {
        d->h->from_top = is(value, "big");
        d->ordered = d->h->from_top || is(value, "little");
        return d->ordered ? UM_OK : bad(d, "endian ", value);
    }
    if (is(name, "encoding")) {
        d->h->compressed = is(value, "gzip") || is(value, "gz");
        d->encoded = true;
        return d->h->compressed || is(value, "raw") ? UM_OK : refuse(d, "encoding ", value);
    }
    if (is(name, "byte skip") || is(name, "byteskip") || is(name, "line skip") ||
        is(name, "lineskip"))
        return strcmp(value, "0") == 0 ? UM_OK : refuse(d, "bytes in front of the pixels", "");
    if (is(name, "data file") || is(name, "datafile"))
        return take_file(d, value);
    return IS_ONE_OF(name, idle) ? UM_OK : take_pair(d, name, value);
}

/* ---- what it comes to ---- */

static um_status settle_type(struct draft *d)
{
    static const char *const one[] = {"MET_UCHAR", "uchar", "unsigned char", "uint8", "uint8_t"};
    static const char *const two[] = {"MET_USHORT",         "ushort", "unsigned short",
                                      "unsigned short int", "uint16", "uint16_t"};
    d->h->bytes = IS_ONE_OF(d->type, one) ? 1 : IS_ONE_OF(d->type, two) ? 2 : 0;
    if (!d->type[0])
        return bad(d, "no type of samples", "");
    if (!d->h->bytes)
        return refuse(d, "samples of type ", d->type);
    if (d->nrrd && !d->encoded)
        return bad(d, "no encoding", "");
    return d->nrrd && d->h->bytes > 1 && !d->ordered ? bad(d, "16-bit samples and no endian", "")
                                                     : UM_OK;
}

/* Axes that no word was said about, by habit. */
static um_status settle_kinds(struct draft *d)
{
    bool said = d->kinds == d->axes;
    for (int i = 0; i < d->kinds && said; i++)
        said = d->kind[i] != UNSAID;
    if (said)
        return UM_OK;
    if (d->kinds && d->kinds != d->axes)
        return bad(d, "not one kind for each axis", "");
    bool color = d->nrrd && d->axes > 2 && d->size[0] == 3;
    int space = color || d->axes > 3 ? 3 : 2; /* axes before the list, the colours' included */
    for (int i = 0; i < d->axes; i++)
        d->kind[i] = color && i == 0 ? CHANNEL : i < space ? SPACE : LIST;
    return UM_OK;
}

static um_status settle_axes(struct draft *d)
{
    struct um_sequence_head *h = d->h;
    uint64_t side[3] = {1, 1, 1}, channels = d->channels ? d->channels : 1, lists = 1;
    int at[3] = {-1, -1, -1}, spaces = 0, list = -1;
    for (int i = 0; i < d->axes; i++) {
        if (d->kind[i] == SPACE && spaces < 3) {
            side[spaces] = d->size[i];
            at[spaces++] = i;
        } else if ((d->kind[i] == LIST || (d->kind[i] == SPACE && d->size[i] != 1)) && list < 0) {
            lists = d->size[i];
            list = i;
        } else if (d->kind[i] == CHANNEL && i == 0) {
            channels = d->size[i];
        } else if (d->size[i] != 1) {
            return refuse(d, "axes in this order", "");
        }
    }
    if (spaces < 2)
        return bad(d, "an image needs two axes of space", "");
    if (!side[0] || !side[1])
        return um_fail(UM_EFORMAT, "%s with %llu entries and no image in them", h->format,
                       (unsigned long long)(list >= 0 ? lists : side[2]));
    if (side[2] != 1 && lists == 1 && list > at[2]) { /* a volume at one time: its slices */
        list = -1;
        h->stamps = 0;
    }
    if (list >= 0 && side[2] != 1)
        return refuse(d, "a volume at each time", "");
    if (list >= 0 && list < at[1] && lists > 1) {
        if (list > at[0] || channels != 1)
            return refuse(d, "axes in this order", "");
        h->interleaved = true;
    }
    if (channels != 1 && channels != 3)
        return um_fail(UM_EFORMAT, "%s with %llu channels is not read: want gray or RGB", h->format,
                       (unsigned long long)channels);
    if (side[0] > UM_FRAME_MAX_SIDE || side[1] > UM_FRAME_MAX_SIDE ||
        side[0] * side[1] > UM_FRAME_MAX_PIXELS)
        return um_fail(UM_EFORMAT,
                       "%s of %llux%llu pixels: sides must be at most %d, the area at most %d",
                       h->format, (unsigned long long)side[0], (unsigned long long)side[1],
                       (int)UM_FRAME_MAX_SIDE, (int)UM_FRAME_MAX_PIXELS);
    h->width = (int)side[0];
    h->height = (int)side[1];
    h->channels = (int)channels;
    h->frames = list >= 0 ? lists : side[2];
    h->stamp_s = list >= 0 && d->seconds[list] != 0 ? d->seconds[list] : 1;
    if (list >= 0 && ((d->counted[list] && d->seconds[list] == 0) || isnan(h->stamp_s)))
        h->stamps = 0; /* they number the frames, or are anything else */
    for (int k = 0; k < 2; k++) {
        double unit = d->mm[at[k]] != 0 ? d->mm[at[k]] : 1;
        double mm = at[k] < d->spacings ? d->spacing[at[k]] * unit : NAN;
        h->spacing[k] = mm;
        h->has_spacing = (k == 0 || h->has_spacing) && isfinite(mm) && mm > 0;
    }
    /* Plus writes 1 where it does not know */
    if (d->unknown_spacing || (!d->known_spacing && h->spacing[0] == 1 && h->spacing[1] == 1))
        h->has_spacing = false;
    return UM_OK;
}

static um_status settle(struct draft *d)
{
    if (!d->nrrd && !d->ended)
        return bad(d, "it ends before its line ElementDataFile", "");
    if (d->axes < 2)
        return bad(d, d->nrrd ? "no dimension" : "no NDims", "");
    if (d->sizes != d->axes)
        return bad(d, "not one size for each axis", "");
    um_status st = settle_type(d);
    if (st == UM_OK)
        st = settle_kinds(d);
    if (st == UM_OK)
        st = settle_axes(d);
    for (size_t i = 1; i < d->h->n_fields && st == UM_OK; i++)
        if (by_frame(&d->h->fields[i - 1], &d->h->fields[i]) > 0) {
            qsort(d->h->fields, d->h->n_fields, sizeof *d->h->fields, by_frame);
            break;
        }
    return st;
}

/* Places, as the text may move while it grows. */
static um_status take_line(struct draft *d, size_t from)
{
    char *line = d->h->text + from, *name = NULL, *value = NULL;
    bool pair = false;
    if (d->nrrd && line[0] == '#')
        return UM_OK;
    if (!split(d, line, &name, &value, &pair))
        return line[0] ? bad(d, "no field: ", line) : UM_OK;
    return pair      ? take_pair(d, name, value)
           : d->nrrd ? take_nrrd(d, name, value)
                     : take_meta(d, name, value);
}

um_status um_sequence_head_read(struct um_sequence_head *h, FILE *file, bool nrrd)
{
    struct draft d = {.h = h, .nrrd = nrrd};
    size_t from = 0, data_file = 0;
    *h = (struct um_sequence_head){.format = nrrd ? "NRRD" : "MetaImage"};
    um_status st = put(&d, 0) ? UM_OK : um_fail(UM_ENOMEM, "%s header", h->format);
    if (st == UM_OK && nrrd) /* "NRRD000N", which was looked at */
        st = read_line(&d, file, &from);
    while (st == UM_OK && !d.ended) {
        st = read_line(&d, file, &from);
        if (st == UM_EOF || (st == UM_OK && nrrd && !h->text[from]))
            break;
        if (st == UM_OK)
            st = take_line(&d, from);
        if (h->file) {
            data_file = (size_t)(h->file - h->text);
            h->file = NULL;
        }
    }
    if (st == UM_OK || st == UM_EOF)
        st = settle(&d);
    if (st == UM_OK) {
        h->file = data_file ? h->text + data_file : NULL;
        h->data_at = (int64_t)ftello(file);
    }
    if (st != UM_OK)
        um_sequence_head_finish(h);
    return st;
}

void um_sequence_head_finish(struct um_sequence_head *h)
{
    um_free(h->text);
    um_free(h->fields);
    um_free(h->others);
    *h = (struct um_sequence_head){.format = h->format};
}

/* ---- one frame ---- */

/* The value of a field of the frame that fields[from..to-1] are of; NULL: it has none. `more` is
 * put behind the name. */
static const char *find(const struct um_sequence_head *h, size_t from, size_t to, const char *name,
                        const char *more)
{
    size_t n = strlen(name);
    for (size_t i = from; i < to; i++) {
        const char *own = h->text + h->fields[i].name;
        if (strncmp(own, name, n) == 0 && strcmp(own + n, more) == 0)
            return h->text + h->fields[i].value;
    }
    return NULL;
}

/* Which transform is the probe's. */
static const char *pose_name(const struct um_sequence_head *h, size_t from, size_t to)
{
    const char *said = find(h, from, to, "UltramotionPose", "");
    if (said)
        return strcmp(said, "none") == 0 ? NULL : said;
    return find(h, from, to, "ProbeToTracker", "Transform")     ? "ProbeToTracker"
           : find(h, from, to, "ProbeToReference", "Transform") ? "ProbeToReference"
                                                                : NULL;
}

static um_status bad_frame(const struct um_sequence_head *h, uint64_t frame, const char *what,
                           const char *value)
{
    return um_fail(UM_EFORMAT, "%s: frame %llu of %llu: %s%.200s", h->format,
                   (unsigned long long)frame, (unsigned long long)h->frames, what, value);
}

static um_status read_pose(const struct um_sequence_head *h, uint64_t frame, size_t from, size_t to,
                           um_frame *f)
{
    const char *name = pose_name(h, from, to);
    const char *status = name ? find(h, from, to, name, "TransformStatus") : NULL;
    const char *value = name ? find(h, from, to, name, "Transform") : NULL;
    char text[UM_NUMBER_BYTES];
    if (!value || (status && !is(status, "OK")))
        return UM_OK;
    const char *rest = value;
    for (int i = 0; i < 16; i++)
        if (!word(&rest, text, sizeof text) || !um_number_read(text, &f->pose[i]))
            return bad_frame(h, frame, "a transform is not 16 numbers: ", value);
    f->has_pose = 1;
    return UM_OK;
}

/* Of an NRRD's list; they are taken one by one. */
static bool next_stamp(struct um_sequence_head *h, double *stamp)
{
    char text[UM_NUMBER_BYTES];
    const char *at = h->text + h->stamps;
    if (!h->stamps || !word(&at, text, sizeof text)) {
        h->stamps = 0;
        return false;
    }
    h->stamps = (size_t)(at - h->text);
    bool good = um_number_read(text, stamp);
    *stamp *= h->stamp_s;
    return good;
}

static void put_note(char **to, const char *name, const char *value)
{
    *to += sprintf(*to, "%s = %s\n", name, value);
}

/* The frame's fields, and with the first one that can be read what its file says besides. */
static um_status set_notes(struct um_sequence_head *h, size_t from, size_t to, um_frame *f)
{
    size_t n = 2, others = h->others_given ? 0 : h->n_others;
    for (size_t i = from; i < to; i++)
        n += strlen(h->text + h->fields[i].name) + strlen(h->text + h->fields[i].value) + 4;
    for (size_t i = 0; i < 2 * others; i++)
        n += strlen(h->text + h->others[i]) + 4;
    if (n == 2)
        return UM_OK;
    char *notes = um_alloc(n), *at = notes;
    if (!notes)
        return um_fail(UM_ENOMEM, "fields of a frame");
    for (size_t i = from; i < to; i++)
        put_note(&at, h->text + h->fields[i].name, h->text + h->fields[i].value);
    *at++ = '\n';
    for (size_t i = 0; i < others; i++)
        put_note(&at, h->text + h->others[2 * i], h->text + h->others[2 * i + 1]);
    *at = 0;
    um_frame_set_notes(f, notes);
    h->others_given = true;
    return UM_OK;
}

um_status um_sequence_head_describe(struct um_sequence_head *h, uint64_t frame, um_frame *f)
{
    while (h->at_field < h->n_fields && h->fields[h->at_field].frame < frame)
        h->at_field++;
    size_t from = h->at_field, to = from;
    while (to < h->n_fields && h->fields[to].frame == frame)
        to++;
    h->at_field = to;
    double stamp = 0;
    bool listed = next_stamp(h, &stamp);
    const char *image = find(h, from, to, "ImageStatus", "");
    const char *value = find(h, from, to, "Timestamp", "");
    if (!value)
        value = find(h, from, to, "UnfilteredTimestamp", "");
    if (image && !is(image, "OK"))
        return bad_frame(h, frame, "its image is ", image);
    if (value && !um_number_read(value, &stamp))
        return bad_frame(h, frame, "a time that is no number: ", value);
    if (value || listed) {
        f->ts = stamp;
        f->has_ts = 1;
    }
    f->has_spacing = h->has_spacing;
    for (int i = 0; i < 2 && h->has_spacing; i++)
        f->spacing_mm[i] = h->spacing[i];
    um_status st = read_pose(h, frame, from, to, f);
    return st == UM_OK ? set_notes(h, from, to, f) : st;
}

bool um_sequence_note(const char *notes, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);
    for (const char *line = notes; line && *line && *line != '\n';) {
        const char *end = strchr(line, '\n');
        size_t length = end ? (size_t)(end - line) : strlen(line);
        if (length >= n + 3 && strncmp(line, name, n) == 0 && strncmp(line + n, " = ", 3) == 0) {
            length -= n + 3;
            length = length < size ? length : size - 1;
            if (size) {
                memcpy(value, line + n + 3, length);
                value[length] = 0;
            }
            return true;
        }
        line = end ? end + 1 : NULL;
    }
    return false;
}
