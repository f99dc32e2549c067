/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_SOURCE_H
#define UM_IO_SOURCE_H

#include "base/status.h"
#include "ultramotion/source.h"

#include <stdbool.h>

/* The built-in kinds, whose schemes stand in source.c; um_source_dir has none and takes what nobody
 * else does. */
extern const um_source_ops um_source_dir, um_source_phantom, um_source_raw, um_source_push_ops,
    um_source_igtl, um_source_igtl_listen, um_source_replay, um_source_replay_live, um_source_v4l2,
    um_source_lavfi;
extern const bool um_camera_built; /* the last two */

/* What um_source_push(), um_source_finish() and um_source_waiting() do to a "push:" source's state.
 */
um_status um_push_frame(void *priv, um_frame **frame);
void um_push_finish(void *priv);
int um_push_waiting(const void *priv);

/* um_source_reads() of the kinds whose states these are. */
bool um_dir_reads(void *priv, const char *path);
bool um_replay_reads(const void *priv, const char *path);
bool um_raw_reads(const char *path);

#endif
