/* SPDX-License-Identifier: Apache-2.0 */
/* Images with what is known of them: a COCO JSON with its images, a folder with mask or line
 * images beside them, or the phantom. */
#ifndef UM_TRUTH_H
#define UM_TRUTH_H

#include "ultramotion/ultramotion.h"

#include <stdbool.h>

struct category {
    int64_t id;
    char *name; /* or NULL */
    bool used;  /* by an annotation */
};

struct truth_object {
    int category; /* index in truth_categories() */
    bool crowd;
    double box[4]; /* x, y, width, height */
    uint8_t *mask; /* bytes 0/1 [height*width], or NULL */
};

/* One image. All of it belongs to the truth, until the next one, but the image. */
struct truth_frame {
    um_frame *image;
    int64_t id;        /* of a COCO image, else the number of the image */
    const char *name;  /* file, relative to the data set */
    const char *sweep; /* its folder; "" = none */
    struct truth_object *object;
    int objects;
    bool boxes;    /* are they known? (a line alone does not tell) */
    uint8_t *line; /* bytes 0/1 [height*width], or NULL: no line truth */
};

typedef struct truth truth;

struct truth_settings {
    const char *masks, *lines; /* folders that mirror the images'; NULL: beside them */
    const char *images;        /* of a COCO file; NULL: beside it */
    long frames;               /* at most; 0 = all */
    um_source_settings source; /* of image files; its notices are also of the truth itself */
};

/* Everything that can be checked before a network runs is checked here. The errors name the file
 * and what is wrong in it. */
um_status truth_open(truth **out, const char *dataset, const struct truth_settings *settings);
void truth_close(truth **t);
/* UM_EOF at the end. An image or truth that cannot be read, or sizes that differ, are errors. */
um_status truth_next(truth *t, struct truth_frame *frame);
long truth_length(const truth *t);
int truth_categories(const truth *t, const struct category **list);
/* Would files that are written into `folder` become part of the data set? */
bool truth_reads(const truth *t, const char *folder);
/* Do images of a sweep follow each other in time? */
bool truth_in_time(const truth *t);

/* The error of what is scored, as the library tells its own; and that of memory. */
um_status truth_fail(um_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
um_status truth_no_memory(void);

struct cJSON;

/* What a file says. */
um_status truth_json(struct cJSON **out, const char *path);

/* Of JSON in COCO's form. A "segmentation", polygons or run lengths, becomes bytes 0/1
 * [height*width], to be freed; NULL where there is none. `file` and the frame are for errors. */
struct cJSON;
bool truth_whole(const struct cJSON *number, int64_t *out);
bool truth_has_mask(const struct cJSON *object);
um_status truth_mask(const char *file, const struct truth_frame *frame, const struct cJSON *object,
                     uint8_t **mask);

#endif
