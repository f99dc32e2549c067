/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_SINK_H
#define UM_IO_SINK_H

#include "base/status.h"
#include "ultramotion/io.h"

/* A kind of sink. To add one: fill this in, in a file of its own, and name it in the table of
 * sink.c. */
typedef struct um_sink_type {
    const char *scheme; /* without the colon */
    const char *usage;  /* for error messages, e.g. "dir:PATH" */
    size_t priv_size;   /* zeroed before open */
    /* `arg` is what follows the colon and outlives the sink. close() is called after a failed open
     * too. */
    um_status (*open)(void *priv, const char *arg);
    um_status (*write)(void *priv, const um_packet *packet, const um_frame *frame,
                       const char *name);
    um_status (*close)(void *priv);
} um_sink_type;

extern const um_sink_type um_sink_dir, um_sink_jsonl, um_sink_null;

#endif
