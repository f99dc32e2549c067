/* SPDX-License-Identifier: Apache-2.0 */
/* What the command adds to a recording (-o record:FOLDER), and how it is held against a new run. */
#ifndef UM_TOOL_RECORDING_H
#define UM_TOOL_RECORDING_H

#include "cli.h"

/* The folder of "record:FOLDER"; NULL for other sinks. */
const char *recording_folder(const char *sink);
/* FOLDER/settings.yaml of each record:FOLDER: the options that decide what comes out, and which
 * models they name. */
um_status recording_keep(const struct options *o, const struct engine *e);

/* ---- replay --verify ---- */

struct verify {
    FILE *file; /* packets.jsonl */
    char *line;
    size_t room;
    uint64_t lines, equal; /* read; and of those, made again */
    bool unrecorded;       /* a frame had no packet */
    bool other_device;     /* how things were copied is not compared */
    bool differs, torn;
    bool rest; /* it was stopped before these were compared */
};

um_status verify_open(struct verify *v, const char *folder);
/* A packet was made again: its id is its place in the recording. False: it is the first that
 * differs, which was said. */
bool verify_packet(struct verify *v, const um_packet *packet);
/* All packets are made: were those all, or the first `limit` (0 = no limit), or was it stopped
 * before? Says what is to be said. */
bool verify_end(struct verify *v, long limit, bool stopped, bool quiet);
void verify_close(struct verify *v); /* also what is zeroed */

#endif
