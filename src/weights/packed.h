/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights in a file, so that they are not made anew at each start: found by what they were
 * made of, mapped read-only, and so one memory for all processes that use them. A cache: whatever
 * is wrong with a file, it is as if there were none. */
#ifndef UM_WEIGHTS_PACKED_H
#define UM_WEIGHTS_PACKED_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct um_packed um_packed;

/* What they are made of. */
struct um_packed_key {
    const char *sha256; /* of the model's file */
    const char *what;   /* and all else that they depend on */
};

/* *out: those of a folder, or NULL where it has none that are whole, unchanged and this user's
 * alone. */
void um_packed_open(um_packed **out, const char *folder, const struct um_packed_key *key);
void um_packed_close(um_packed **packed); /* accepts NULL */
const void *um_packed_data(const um_packed *packed, size_t *size);
uint64_t um_packed_layout(const um_packed *packed); /* as it was given to um_packed_write() */

/* Bytes of the whole; between pieces lie zeros. */
struct um_packed_piece {
    size_t off, size;
    const void *data;
};

/* Write them, in order, `size` bytes in all. The folder is made; what was used longest ago is
 * removed where there are more than 16, or more than 4 GiB. UM_OK; UM_AGAIN: another process is
 * writing; else why not. */
um_status um_packed_write(const char *folder, const struct um_packed_key *key, uint64_t layout,
                          size_t size, const struct um_packed_piece *piece, int pieces);

#endif
