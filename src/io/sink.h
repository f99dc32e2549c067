/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_SINK_H
#define UM_IO_SINK_H

#include "base/status.h"
#include "ultramotion/packet.h"
#include "ultramotion/sink.h"

#include <stdbool.h>

/* The built-in kinds, whose schemes stand in sink.c. */
extern const um_sink_ops um_sink_dir, um_sink_jsonl, um_sink_null, um_sink_video, um_sink_igtl,
    um_sink_igtl_connect, um_sink_web, um_sink_trace, um_sink_record, um_sink_masks;

/* Is it of a pipeline without segmenter, which makes no masks? */
static inline bool um_packet_of_boxes(const um_packet *p)
{
    return p->detector_sha256[0] && !p->segmenter_sha256[0] && !p->has_mask;
}

#endif
