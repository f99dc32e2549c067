/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_SOURCE_H
#define UM_IO_SOURCE_H

#include "base/status.h"
#include "ultramotion/io.h"

enum { UM_NAME_BYTES = 256 }; /* of a frame's name */

/* A kind of source. To add one: fill this in, in a file of its own, and name it in the table of
 * source.c. */
typedef struct um_source_type {
    const char *scheme; /* the spec begins with it; NULL: paths */
    size_t priv_size;   /* zeroed before open */
    /* `spec` is what follows the scheme. close() is called after a failed open too. */
    um_status (*open)(void *priv, const char *spec, const um_source_settings *settings);
    void (*close)(void *priv);
    /* Frame number `index`: asked for in order, from 0 again after UM_EOF when the source is
     * looped. Fills in `name` if the frame has one, and ts if it has a stamp. */
    um_status (*read)(void *priv, uint64_t index, um_frame **frame, char name[UM_NAME_BYTES]);
    long (*length)(const void *priv);                    /* -1 = unknown or endless */
    um_status (*truth)(const void *priv, um_truth *out); /* NULL: has none */
    int ends_on_error; /* a stream: what follows an unreadable frame cannot be found */
} um_source_type;

extern const um_source_type um_source_dir, um_source_phantom, um_source_raw;

#endif
