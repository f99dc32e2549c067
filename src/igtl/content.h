/* SPDX-License-Identifier: Apache-2.0 */
/* What OpenIGTLink messages are about. Reading checks every size against the content; pointers of
 * what was read are into it. Pure functions. */
#ifndef UM_IGTL_CONTENT_H
#define UM_IGTL_CONTENT_H

#include "igtl/message.h"

enum um_igtl_scalar {
    UM_IGTL_I8 = 2,
    UM_IGTL_U8 = 3,
    UM_IGTL_I16 = 4,
    UM_IGTL_U16 = 5,
    UM_IGTL_I32 = 6,
    UM_IGTL_U32 = 7,
    UM_IGTL_F32 = 10,
    UM_IGTL_F64 = 11
};
size_t um_igtl_scalar_bytes(int scalar); /* 0: no such type */

enum { UM_IGTL_RAS = 1, UM_IGTL_LPS = 2, UM_IGTL_LITTLE = 2 };

struct um_igtl_image {
    int components, scalar;
    int endian; /* of pixels: 1 big, 2 little */
    int coordinates;
    uint16_t size[3], offset[3], part[3]; /* the pixels cover `part` from `offset` on */
    /* t, s, n: the axes, as long as a pixel in mm; p: the middle of the volume */
    float t[3], s[3], n[3], p[3];
    const uint8_t *pixels; /* i fastest */
    size_t bytes;
};
double um_igtl_scalar(const struct um_igtl_image *image, size_t i); /* the i-th of the pixels */
um_status um_igtl_image_read(struct um_igtl_image *image, const struct um_igtl_message *m);
/* All but the pixels, which the caller puts behind it. */
void um_igtl_image_write(struct um_igtl_outbox *out, const struct um_igtl_image *image);
/* Row-major 4x4 of what leads from pixels to mm, and back; pixel (0,0,0) is its origin. */
void um_igtl_image_matrix(const struct um_igtl_image *image, double matrix[16]);
void um_igtl_image_place(struct um_igtl_image *image, const double matrix[16]);
/* As images that came from elsewhere lie: the first pixel at the origin, 1 mm a pixel where
 * spacing_mm is NULL. */
void um_igtl_image_place_plainly(struct um_igtl_image *image, int width, int height,
                                 const double *spacing_mm);
/* Mirror x and y: from LPS to RAS. */
void um_igtl_image_mirror(struct um_igtl_image *image);

enum { UM_IGTL_TRANSFORM = 48 };
/* Row-major 3x4 of the 12 numbers, which come by columns. */
um_status um_igtl_transform_read(float matrix[12], const struct um_igtl_message *m);
void um_igtl_transform_write(struct um_igtl_outbox *out, const float matrix[12]);

/* Position, and a quaternion where one came: 0,0,0,1 if not. */
um_status um_igtl_position_read(float position[3], float quaternion[4],
                                const struct um_igtl_message *m);

struct um_igtl_status {
    int code; /* um_igtl_code, or what newer senders know */
    int64_t subcode;
    char name[UM_IGTL_NAME + 1];
    const char *text; /* ends with a zero */
};
enum um_igtl_code {
    UM_IGTL_OK = 1,
    UM_IGTL_BUSY = 6,
    UM_IGTL_OVERFLOW = 8,
    UM_IGTL_RESOURCE = 11,
    UM_IGTL_SHUTDOWN = 19
};
um_status um_igtl_status_read(struct um_igtl_status *status, const struct um_igtl_message *m);
void um_igtl_status_write(struct um_igtl_outbox *out, int code, int64_t subcode, const char *name,
                          const char *text);

struct um_igtl_string {
    int encoding;
    const char *text; /* of `size` bytes, without an end */
    size_t size;
};
um_status um_igtl_string_read(struct um_igtl_string *string, const struct um_igtl_message *m);
void um_igtl_string_write(struct um_igtl_outbox *out, const char *text);

/* Names of types, UM_IGTL_TYPE bytes each. */
um_status um_igtl_capability_read(int *types, const struct um_igtl_message *m);

struct um_igtl_label {
    char name[65];
    char device[UM_IGTL_NAME + 1]; /* of the label's image */
    uint8_t label, rgba[4];
    uint16_t size[3];
    char owner[UM_IGTL_NAME + 1]; /* device of the image that was labelled */
};
enum { UM_IGTL_LABEL = 116 };
um_status um_igtl_label_count(int *labels, const struct um_igtl_message *m);
void um_igtl_label_read(struct um_igtl_label *label, const struct um_igtl_message *m, int i);
void um_igtl_label_write(struct um_igtl_outbox *out, const struct um_igtl_label *label);

/* Why a peer that goes by the letter refuses a message that is read here: text that is not ASCII,
 * bytes behind a STRING. NULL: it takes it too. */
const char *um_igtl_strict(const struct um_igtl_message *m);

/* Is `type` the query `prefix` ("GET_", "STT_", "STP_") about messages of type `about`? Both are
 * cut to 12 characters in practice, so at least 5 of the name suffice. */
bool um_igtl_asks(const char *type, const char *prefix, const char *about);

#endif
