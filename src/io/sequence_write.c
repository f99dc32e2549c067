/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sequence_write.h"

#include "base/number.h"
#include "io/origin.h"
#include "io/recording.h"
#include "io/sequence_head.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct um_sequence_form um_sequence_form_of(const um_frame *f)
{
    struct um_sequence_form form = {.width = f->width,
                                    .height = f->height,
                                    .channels = f->channels,
                                    .has_spacing = f->has_spacing != 0,
                                    .spacing = {1, 1}};
    if (f->has_spacing)
        memcpy(form.spacing, f->spacing_mm, sizeof form.spacing);
    return form;
}

bool um_sequence_form_equal(const struct um_sequence_form *a, const struct um_sequence_form *b)
{
    return a->width == b->width && a->height == b->height && a->channels == b->channels &&
           a->has_spacing == b->has_spacing && a->spacing[0] == b->spacing[0] &&
           a->spacing[1] == b->spacing[1];
}

/* The next line of notes; NULL after the last of its part. */
static const char *next_line(const char *line)
{
    const char *end = line ? strchr(line, '\n') : NULL;
    return end && end[1] && end[1] != '\n' ? end + 1 : NULL;
}

void um_sequence_put_meta(FILE *out, const struct um_sequence_form *form, uint64_t frames,
                          bool compressed, const um_frame *first, long *count_at)
{
    char mm[2][UM_NUMBER_BYTES];
    for (int i = 0; i < 2; i++)
        um_number_double(mm[i], form->spacing[i]);
    fprintf(out,
            "ObjectType = Image\nNDims = 3\nAnatomicalOrientation = RAI\nBinaryData = True\n"
            "BinaryDataByteOrderMSB = False\nCenterOfRotation = 0 0 0\nCompressedData = %s\n"
            "DimSize = %d %d ",
            compressed ? "True" : "False", form->width, form->height);
    if (count_at)
        *count_at = ftell(out);
    fprintf(out, "%-*" PRIu64 "\nKinds = domain domain list\n", UM_SEQUENCE_COUNT, frames);
    if (form->channels > 1)
        fprintf(out, "ElementNumberOfChannels = %d\n", form->channels);
    fprintf(out,
            "ElementSpacing = %s %s 1\nElementType = MET_UCHAR\nOffset = 0 0 0\n"
            "TransformMatrix = 1 0 0 0 1 0 0 0 1\nUltrasoundImageOrientation = MF\n"
            "UltrasoundImageType = %s\nUltramotionSpacing = %s\n",
            mm[0], mm[1], form->channels > 1 ? "RGB_COLOR" : "BRIGHTNESS",
            form->has_spacing ? "known" : "unknown");
    const char *notes = first ? um_frame_notes(first) : NULL;
    const char *file = notes ? (notes[0] == '\n' ? notes : strstr(notes, "\n\n")) : NULL;
    if (file)
        fputs(file + strspn(file, "\n"), out);
}

void um_sequence_put_field(FILE *out, uint64_t number, const char *name, const char *value)
{
    fprintf(out, "Seq_Frame%04" PRIu64 "_%s = %s\n", number, name, value);
}

/* One that is not finite is none: others could not read it. */
static void put_matrix(FILE *out, uint64_t number, const char *name, const double m[16], bool valid)
{
    static const double none[16] = {[0] = 1, [5] = 1, [10] = 1, [15] = 1};
    char v[UM_NUMBER_BYTES];
    bool finite = true;
    for (int i = 0; i < 16; i++)
        finite = finite && isfinite(m[i]);
    m = finite ? m : none;
    fprintf(out, "Seq_Frame%04" PRIu64 "_%sTransform = ", number, name);
    for (int i = 0; i < 16; i++) {
        um_number_double(v, m[i]);
        fprintf(out, "%s%s", v, i < 15 ? " " : "\n");
    }
    fprintf(out, "Seq_Frame%04" PRIu64 "_%sTransformStatus = %s\n", number, name,
            valid && finite ? "OK" : "INVALID");
}

/* Where the image lay, to the bit; and as a transform for others. `known`: there is one. */
static void put_place(FILE *out, uint64_t number, const struct um_origin *o, bool known)
{
    const float *v[4] = {o->image.t, o->image.s, o->image.n, o->image.p};
    char text[UM_NUMBER_BYTES], name[UM_RECORDING_PLACE], device[3 * UM_IGTL_NAME + 1];
    double m[16];
    fprintf(out, "Seq_Frame%04" PRIu64 "_UltramotionImage = ", number);
    for (int i = 0; i < 12; i++) {
        um_number_float(text, v[i / 3][i % 3]);
        fprintf(out, "%s%s", text, i < 11 ? " " : "\n");
    }
    snprintf(text, sizeof text, "%016" PRIx64, o->stamp);
    um_sequence_put_field(out, number, "UltramotionStamp", text);
    um_recording_escape(device, o->device);
    if (device[0])
        um_sequence_put_field(out, number, "UltramotionDevice", device);
    um_recording_place(name, o->device);
    if (known || !name[0])
        return;
    um_igtl_image_matrix(&o->image, m);
    put_matrix(out, number, name, m, true);
}

/* What came over a network, and which of the transforms is the probe's. */
static void put_origin(FILE *out, uint64_t number, const um_frame *f)
{
    const struct um_origin *o = um_frame_origin(f);
    char name[UM_IGTL_NAME + 1], pose[UM_IGTL_NAME + 1] = "none", place[UM_RECORDING_PLACE];
    bool placed = false;
    um_recording_place(place, o->device);
    for (int i = 0; i < o->transforms; i++) {
        double m[16] = {[15] = 1};
        memcpy(name, o->transform[i].name, sizeof name);
        um_recording_tidy(name);
        placed = placed || strcmp(name, place) == 0;
        for (int k = 0; k < 12; k++)
            m[k] = (double)o->transform[i].matrix[k];
        put_matrix(out, number, name, m, o->transform[i].valid);
        if (f->has_pose && o->transform[i].valid && memcmp(m, f->pose, sizeof m) == 0)
            memcpy(pose, name, sizeof pose);
    }
    um_sequence_put_field(out, number, "UltramotionPose", pose);
    put_place(out, number, o, placed);
}

void um_sequence_put_fields(FILE *out, uint64_t number, const um_frame *f)
{
    static const char own[] = "UltramotionSource", sum[] = "UltramotionCrc32";
    const char *notes = um_frame_notes(f), *line = notes && notes[0] != '\n' ? notes : NULL;
    char text[UM_NUMBER_BYTES];
    for (; line; line = next_line(line)) {
        const char *equals = strstr(line, " = ");
        if (!equals || strncmp(line, own, sizeof own - 1) == 0 ||
            strncmp(line, sum, sizeof sum - 1) == 0)
            continue; /* these are said anew */
        fprintf(out, "Seq_Frame%04" PRIu64 "_%.*s = %.*s\n", number, (int)(equals - line), line,
                (int)strcspn(equals + 3, "\n"), equals + 3);
    }
    um_number_double(text, f->ts);
    if (!notes || !um_sequence_note(notes, "Timestamp", NULL, 0))
        um_sequence_put_field(out, number, "Timestamp", text);
    if (!notes || !um_sequence_note(notes, "UnfilteredTimestamp", NULL, 0))
        um_sequence_put_field(out, number, "UnfilteredTimestamp", text);
    if (!notes || !um_sequence_note(notes, "FrameNumber", NULL, 0))
        fprintf(out, "Seq_Frame%04" PRIu64 "_FrameNumber = %" PRIu64 "\n", number, f->id);
    if (!notes && um_frame_origin(f))
        put_origin(out, number, f);
    else if (!notes && f->has_pose)
        put_matrix(out, number, "ProbeToTracker", f->pose, true);
    if (!notes || !um_sequence_note(notes, "ImageStatus", NULL, 0))
        um_sequence_put_field(out, number, "ImageStatus", "OK");
}
