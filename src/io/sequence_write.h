/* SPDX-License-Identifier: Apache-2.0 */
/* The text of sequences that are written: what sequence_head.h reads. */
#ifndef UM_IO_SEQUENCE_WRITE_H
#define UM_IO_SEQUENCE_WRITE_H

#include "base/status.h"
#include "ultramotion/frame.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What all frames of a sequence have in common. */
struct um_sequence_form {
    int width, height, channels;
    bool has_spacing;
    double spacing[2];
};
struct um_sequence_form um_sequence_form_of(const um_frame *frame);
bool um_sequence_form_equal(const struct um_sequence_form *a, const struct um_sequence_form *b);

/* MetaImage's lines before the fields of frames; DimSize's line has room for any number. *count_at
 * (or NULL) is where the number of frames stands, from here on. `first` brings what its file said.
 */
enum { UM_SEQUENCE_COUNT = 20 };
void um_sequence_put_meta(FILE *out, const struct um_sequence_form *form, uint64_t frames,
                          bool compressed, const um_frame *first, long *count_at);
/* A frame's time, status and transforms as lines. Lines that a sequence brought come back as they
 * were. */
void um_sequence_put_fields(FILE *out, uint64_t number, const um_frame *frame);
/* One more line. */
void um_sequence_put_field(FILE *out, uint64_t number, const char *name, const char *value);

#endif
