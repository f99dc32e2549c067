/* SPDX-License-Identifier: Apache-2.0 */
/* What a user should know about files that were read, each thing once, and what was passed over. */
#ifndef UM_IO_NOTICE_H
#define UM_IO_NOTICE_H

#include "base/kind.h"
#include "io/image.h"

enum { UM_NOTICE_BYTES = 1024, UM_NOTICE_KINDS = 24 };

enum um_notice {
    UM_NOTICE_TURNED,
    UM_NOTICE_BITS,
    UM_NOTICE_DARK,
    UM_NOTICE_ANIMATED,
    UM_NOTICE_COPIES,
    UM_NOTICE_BEHIND,
    UM_NOTICE_UNTOLD,
    UM_NOTICES
};

/* Files of a kind that were passed over. */
struct um_passed {
    char name[24];
    enum um_kind_sort sort;
    unsigned long count;
};

struct um_notices {
    void (*tell)(void *ctx, const char *text);
    void *ctx;
    unsigned long files[UM_NOTICES];          /* of which it is true */
    bool in_file[UM_NOTICES];                 /* of the one that is read */
    bool any, ended;                          /* frames were asked for; all was told */
    struct um_passed passed[UM_NOTICE_KINDS]; /* the last one holds what found no room */
    int kinds;
    unsigned long folders, results;
    char result[256]; /* one of them, perhaps cut */
};

void um_notices_init(struct um_notices *n, const um_source_settings *settings);
/* A frame of this file was read, the file's first or a later one. */
void um_notices_see(struct um_notices *n, const char *file, bool begins,
                    const struct um_image_facts *facts);
/* A file, or a folder, was passed over. */
void um_notices_pass(struct um_notices *n, const char *path);
void um_notices_pass_folder(struct um_notices *n);
/* An image that is read, but is called like the mask or the outline of another that is, too. */
void um_notices_result(struct um_notices *n, const char *file);
/* What was passed over: "2 DICOM, 1 text", "" if nothing was. */
void um_notices_passed(struct um_notices *n, char text[UM_NOTICE_BYTES]);
/* Tell what is known at the end, once. */
void um_notices_end(struct um_notices *n, const char *source);

#endif
