/* SPDX-License-Identifier: Apache-2.0 */
#include "igtl/content.h"

#include <math.h>
#include <string.h>

enum { IMAGE_HEADER = 72, STATUS_HEADER = 30 };

static um_status wrong(const struct um_igtl_message *m, const char *what, uint64_t found,
                       const char *want)
{
    return um_fail(UM_EFORMAT, "%s \"%s\": %s %llu, want %s", m->header.type, m->header.device,
                   what, (unsigned long long)found, want);
}

/* ---- IMAGE ---- */

size_t um_igtl_scalar_bytes(int scalar)
{
    switch (scalar) {
    case UM_IGTL_I8:
    case UM_IGTL_U8: return 1;
    case UM_IGTL_I16:
    case UM_IGTL_U16: return 2;
    case UM_IGTL_I32:
    case UM_IGTL_U32:
    case UM_IGTL_F32: return 4;
    case UM_IGTL_F64: return 8;
    default: return 0;
    }
}

double um_igtl_scalar(const struct um_igtl_image *image, size_t i)
{
    size_t size = um_igtl_scalar_bytes(image->scalar);
    const uint8_t *p = image->pixels + i * size;
    uint64_t bits = 0;
    float single;
    double v;
    for (size_t k = 0; k < size; k++)
        bits = bits << 8 | p[image->endian == 1 ? k : size - 1 - k];
    uint32_t low = (uint32_t)bits;
    switch (image->scalar) {
    case UM_IGTL_I8: return (int8_t)bits;
    case UM_IGTL_I16: return (int16_t)bits;
    case UM_IGTL_I32: return (int32_t)low;
    case UM_IGTL_F32: memcpy(&single, &low, sizeof single); return (double)single;
    case UM_IGTL_F64: memcpy(&v, &bits, sizeof v); return v;
    default: return (double)bits;
    }
}

static void read_floats(float *v, const uint8_t *p, int n)
{
    for (int i = 0; i < n; i++)
        v[i] = um_igtl_get_f32(p + 4 * i);
}

um_status um_igtl_image_read(struct um_igtl_image *image, const struct um_igtl_message *m)
{
    const uint8_t *p = m->content;
    *image = (struct um_igtl_image){0};
    if (m->content_size < IMAGE_HEADER)
        return wrong(m, "a body of", m->content_size, "at least 72 bytes");
    if (um_igtl_get16(p) != 1)
        return wrong(m, "image header version", um_igtl_get16(p), "1");
    image->components = p[2];
    image->scalar = p[3];
    image->endian = p[4];
    image->coordinates = p[5];
    for (int i = 0; i < 3; i++) {
        image->size[i] = um_igtl_get16(p + 6 + 2 * i);
        image->offset[i] = um_igtl_get16(p + 60 + 2 * i);
        image->part[i] = um_igtl_get16(p + 66 + 2 * i);
    }
    read_floats(image->t, p + 12, 3);
    read_floats(image->s, p + 24, 3);
    read_floats(image->n, p + 36, 3);
    read_floats(image->p, p + 48, 3);
    size_t scalar = um_igtl_scalar_bytes(image->scalar);
    if (!scalar)
        return wrong(m, "scalar type", (uint64_t)image->scalar, "2 to 7, 10 or 11");
    if (image->components < 1 || image->components > 254)
        return wrong(m, "components", (uint64_t)image->components, "1 to 254");
    if (image->endian < 1 || image->endian > 3) /* 3: as the sender's machine, in practice little */
        return wrong(m, "endian", (uint64_t)image->endian, "1 to 3");
    if (image->coordinates != UM_IGTL_RAS && image->coordinates != UM_IGTL_LPS)
        return wrong(m, "coordinate system", (uint64_t)image->coordinates, "1 or 2");
    /* three sides of 16 bits, 8 of components, 3 of bytes: 59 bits */
    uint64_t bytes = scalar * (uint64_t)image->components;
    for (int i = 0; i < 3; i++) {
        if (image->offset[i] + image->part[i] > image->size[i])
            return wrong(m, "a part that ends at", (uint64_t)image->offset[i] + image->part[i],
                         "at most the image's size");
        bytes *= image->part[i];
    }
    if (bytes != m->content_size - IMAGE_HEADER)
        return um_fail(
            UM_EFORMAT, "%s \"%s\": %zu bytes of pixels, %dx%dx%d of %d times %zu bytes are %llu",
            m->header.type, m->header.device, m->content_size - IMAGE_HEADER, image->part[0],
            image->part[1], image->part[2], image->components, scalar, (unsigned long long)bytes);
    image->pixels = p + IMAGE_HEADER;
    image->bytes = (size_t)bytes;
    return UM_OK;
}

void um_igtl_image_write(struct um_igtl_outbox *out, const struct um_igtl_image *image)
{
    const float *axis[4] = {image->t, image->s, image->n, image->p};
    um_igtl_u16(out, 1);
    um_igtl_u8(out, (uint8_t)image->components);
    um_igtl_u8(out, (uint8_t)image->scalar);
    um_igtl_u8(out, (uint8_t)image->endian);
    um_igtl_u8(out, (uint8_t)image->coordinates);
    for (int i = 0; i < 3; i++)
        um_igtl_u16(out, image->size[i]);
    for (int i = 0; i < 12; i++)
        um_igtl_f32(out, axis[i / 3][i % 3]);
    for (int i = 0; i < 3; i++)
        um_igtl_u16(out, image->offset[i]);
    for (int i = 0; i < 3; i++)
        um_igtl_u16(out, image->part[i]);
}

void um_igtl_image_matrix(const struct um_igtl_image *image, double matrix[16])
{
    for (int i = 0; i < 3; i++) {
        double *row = matrix + 4 * i;
        row[0] = image->t[i];
        row[1] = image->s[i];
        row[2] = image->n[i];
        row[3] = image->p[i];
        for (int k = 0; k < 3; k++)
            row[3] -= row[k] * (image->size[k] - 1) / 2;
    }
    matrix[12] = matrix[13] = matrix[14] = 0;
    matrix[15] = 1;
}

void um_igtl_image_place(struct um_igtl_image *image, const double matrix[16])
{
    for (int i = 0; i < 3; i++) {
        const double *row = matrix + 4 * i;
        double middle = row[3];
        for (int k = 0; k < 3; k++)
            middle += row[k] * (image->size[k] - 1) / 2;
        image->t[i] = (float)row[0];
        image->s[i] = (float)row[1];
        image->n[i] = (float)row[2];
        image->p[i] = (float)middle;
    }
}

void um_igtl_image_place_plainly(struct um_igtl_image *image, int width, int height,
                                 const double *spacing_mm)
{
    double m[16] = {0};
    m[0] = spacing_mm ? spacing_mm[0] : 1;
    m[5] = spacing_mm ? spacing_mm[1] : 1;
    m[10] = m[15] = 1; /* receivers divide by the length of the third axis */
    image->size[0] = (uint16_t)width;
    image->size[1] = (uint16_t)height;
    image->size[2] = 1;
    um_igtl_image_place(image, m);
}

void um_igtl_image_mirror(struct um_igtl_image *image)
{
    for (int i = 0; i < 2; i++) {
        image->t[i] = -image->t[i];
        image->s[i] = -image->s[i];
        image->n[i] = -image->n[i];
        image->p[i] = -image->p[i];
    }
    image->coordinates = UM_IGTL_RAS;
}

/* ---- TRANSFORM, POSITION ---- */

um_status um_igtl_transform_read(float matrix[12], const struct um_igtl_message *m)
{
    if (m->content_size != UM_IGTL_TRANSFORM)
        return wrong(m, "a body of", m->content_size, "48 bytes");
    for (int i = 0; i < 12; i++)
        matrix[i % 3 * 4 + i / 3] = um_igtl_get_f32(m->content + 4 * i);
    return UM_OK;
}

void um_igtl_transform_write(struct um_igtl_outbox *out, const float matrix[12])
{
    for (int i = 0; i < 12; i++)
        um_igtl_f32(out, matrix[i % 3 * 4 + i / 3]);
}

um_status um_igtl_position_read(float position[3], float quaternion[4],
                                const struct um_igtl_message *m)
{
    size_t n = m->content_size;
    if (n != 12 && n != 24 && n != 28)
        return wrong(m, "a body of", n, "12, 24 or 28 bytes");
    quaternion[0] = quaternion[1] = quaternion[2] = 0;
    quaternion[3] = 1;
    read_floats(position, m->content, 3);
    if (n == 12)
        return UM_OK;
    read_floats(quaternion, m->content + 12, (int)(n - 12) / 4);
    if (n == 24) { /* the fourth follows from its length of 1 */
        float rest = 1;
        for (int i = 0; i < 3; i++)
            rest -= quaternion[i] * quaternion[i];
        quaternion[3] = rest > 0 ? sqrtf(rest) : 0;
    }
    return UM_OK;
}

/* ---- STATUS, STRING, CAPABILITY ---- */

um_status um_igtl_status_read(struct um_igtl_status *status, const struct um_igtl_message *m)
{
    const uint8_t *p = m->content;
    if (m->content_size <= STATUS_HEADER)
        return wrong(m, "a body of", m->content_size, "at least 31 bytes");
    if (p[m->content_size - 1] != 0)
        return wrong(m, "a text that ends with", p[m->content_size - 1], "0");
    status->code = um_igtl_get16(p);
    status->subcode = (int64_t)um_igtl_get64(p + 2);
    um_igtl_get_name(status->name, p + 10, UM_IGTL_NAME);
    status->text = (const char *)p + STATUS_HEADER;
    return UM_OK;
}

void um_igtl_status_write(struct um_igtl_outbox *out, int code, int64_t subcode, const char *name,
                          const char *text)
{
    um_igtl_u16(out, (uint16_t)code);
    um_igtl_u64(out, (uint64_t)subcode);
    um_igtl_name(out, name, UM_IGTL_NAME);
    um_igtl_bytes(out, text, strlen(text) + 1);
}

um_status um_igtl_string_read(struct um_igtl_string *string, const struct um_igtl_message *m)
{
    if (m->content_size < 4)
        return wrong(m, "a body of", m->content_size, "at least 4 bytes");
    string->encoding = um_igtl_get16(m->content);
    string->size = um_igtl_get16(m->content + 2);
    string->text = (const char *)m->content + 4;
    if (string->size > m->content_size - 4)
        return wrong(m, "a text of", string->size, "what its body holds");
    return UM_OK;
}

void um_igtl_string_write(struct um_igtl_outbox *out, const char *text)
{
    size_t n = strlen(text);
    if (n > UINT16_MAX)
        n = UINT16_MAX;
    um_igtl_u16(out, UM_IGTL_UTF8);
    um_igtl_u16(out, (uint16_t)n);
    um_igtl_bytes(out, text, n);
}

um_status um_igtl_capability_read(int *types, const struct um_igtl_message *m)
{
    if (m->content_size % UM_IGTL_TYPE != 0)
        return wrong(m, "a body of", m->content_size, "a multiple of 12 bytes");
    *types = (int)(m->content_size / UM_IGTL_TYPE);
    return UM_OK;
}

/* ---- LBMETA ---- */

um_status um_igtl_label_count(int *labels, const struct um_igtl_message *m)
{
    if (m->content_size % UM_IGTL_LABEL != 0)
        return wrong(m, "a body of", m->content_size, "a multiple of 116 bytes");
    *labels = (int)(m->content_size / UM_IGTL_LABEL);
    return UM_OK;
}

void um_igtl_label_read(struct um_igtl_label *label, const struct um_igtl_message *m, int i)
{
    const uint8_t *p = m->content + (size_t)i * UM_IGTL_LABEL;
    um_igtl_get_name(label->name, p, sizeof label->name - 1);
    um_igtl_get_name(label->device, p + 64, UM_IGTL_NAME);
    label->label = p[84];
    memcpy(label->rgba, p + 86, sizeof label->rgba);
    for (int k = 0; k < 3; k++)
        label->size[k] = um_igtl_get16(p + 90 + 2 * k);
    um_igtl_get_name(label->owner, p + 96, UM_IGTL_NAME);
}

void um_igtl_label_write(struct um_igtl_outbox *out, const struct um_igtl_label *label)
{
    um_igtl_name(out, label->name, sizeof label->name - 1);
    um_igtl_name(out, label->device, UM_IGTL_NAME);
    um_igtl_u8(out, label->label);
    um_igtl_u8(out, 0);
    um_igtl_bytes(out, label->rgba, sizeof label->rgba);
    for (int k = 0; k < 3; k++)
        um_igtl_u16(out, label->size[k]);
    um_igtl_name(out, label->owner, UM_IGTL_NAME);
}

/* ---- by the letter ---- */

static bool is_ascii(const void *text, size_t n)
{
    const uint8_t *p = text;
    for (size_t i = 0; i < n; i++)
        if (p[i] > 0x7f)
            return false;
    return true;
}

/* Fields of text, which end at their first zero: `size` bytes from `at` on, again after `step`. */
static bool fields_are_ascii(const struct um_igtl_message *m, size_t at, size_t size, size_t step)
{
    for (; at + size <= m->content_size; at += step) {
        const char *field = (const char *)m->content + at;
        if (!is_ascii(field, strnlen(field, size)))
            return false;
    }
    return true;
}

const char *um_igtl_strict(const struct um_igtl_message *m)
{
    const char *type = m->header.type;
    bool ascii =
        is_ascii(type, strlen(type)) && is_ascii(m->header.device, strlen(m->header.device));
    if (strcmp(type, "STATUS") == 0)
        ascii = ascii && fields_are_ascii(m, 10, UM_IGTL_NAME, m->content_size) &&
                (m->content_size < STATUS_HEADER ||
                 is_ascii(m->content + STATUS_HEADER, m->content_size - STATUS_HEADER));
    else if (strcmp(type, "CAPABILITY") == 0)
        ascii = ascii && fields_are_ascii(m, 0, UM_IGTL_TYPE, UM_IGTL_TYPE);
    else if (strcmp(type, "LBMETA") == 0)
        ascii = ascii && fields_are_ascii(m, 0, 64, UM_IGTL_LABEL) &&
                fields_are_ascii(m, 64, UM_IGTL_NAME, UM_IGTL_LABEL) &&
                fields_are_ascii(m, 96, UM_IGTL_NAME, UM_IGTL_LABEL);
    else if (strcmp(type, "STRING") == 0 && m->content_size > 4 &&
             m->content_size > 4u + um_igtl_get16(m->content + 2))
        return "bytes behind its text";
    return ascii ? NULL : "text that is not ASCII";
}

/* ---- queries ---- */

bool um_igtl_asks(const char *type, const char *prefix, const char *about)
{
    size_t head = strlen(prefix), tail = strlen(type) > head ? strlen(type) - head : 0;
    size_t name = strlen(about), least = name < 5 ? name : 5;
    return strncmp(type, prefix, head) == 0 && tail >= least && tail <= name &&
           strncmp(type + head, about, tail) == 0;
}
