/* SPDX-License-Identifier: Apache-2.0 */
/* What a file is, by its first bytes, for sentences that refuse it: a file is often not what its
 * name says. */
#ifndef UM_BASE_KIND_H
#define UM_BASE_KIND_H

#include <stddef.h>
#include <stdint.h>

enum { UM_KIND_HEAD = 1024 }; /* bytes that are looked at */

enum um_kind_sort {
    UM_KIND_IMAGE, /* PNG, JPEG, BMP, TIFF, MetaImage, NRRD */
    UM_KIND_VIDEO,
    UM_KIND_OTHER_IMAGE, /* WebP, HEIC, … */
    UM_KIND_DICOM,
    UM_KIND_VOLUME,  /* NIfTI, … */
    UM_KIND_WEIGHTS, /* of a network, ours or another framework's */
    UM_KIND_ARCHIVE,
    UM_KIND_ENCRYPTED,
    UM_KIND_POINTER, /* stands for a file that was not fetched */
    UM_KIND_PAGE,    /* what a server sends instead of a file */
    UM_KIND_DOCUMENT,
    UM_KIND_TEXT,
    UM_KIND_PROGRAM,
    UM_KIND_EMPTY,
    UM_KIND_UNKNOWN
};

struct um_kind {
    enum um_kind_sort sort;
    const char *what; /* "a web page"; "" if unknown */
    const char *name; /* "web page", to be counted; "" if unknown */
};

/* `n` first bytes of a file: all, or at least UM_KIND_HEAD. */
struct um_kind um_kind_of(const uint8_t *head, size_t n);

#endif
