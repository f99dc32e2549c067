/* SPDX-License-Identifier: Apache-2.0 */
/* Files as the library opens them: reading never waits for anyone, writing leaves a whole file or
 * none. Error texts of um_file_open() and um_file_read() do not name the file, their callers do. */
#ifndef UM_BASE_FILE_H
#define UM_BASE_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Open a regular file for reading: a FIFO, device or socket could block for good. `size` may be
 * NULL. */
um_status um_file_open(const char *path, int *fd, int64_t *size);

/* The whole of a regular file of at most `max` bytes, and a zero behind it; freed by the caller
 * with um_free(). Read, not mapped: a file that another program cuts short would kill us on access.
 */
um_status um_file_read(const char *path, int64_t max, unsigned char **data, size_t *size);

/* Do both names lead to one file, through links too? */
bool um_file_same(const char *a, const char *b);

/* A file in the making: in the folder of its final name, without a name if the file system can do
 * that, else under a hidden one. Only regular files are replaced, and keep their permissions; of a
 * link to one, what it leads to. */
struct um_part {
    char *path, *temporary; /* temporary: by which it can be opened meanwhile */
    size_t folder_bytes;
    bool nameless;
    FILE *file;
    int error; /* errno of the first write that failed */
};
um_status um_part_open(struct um_part *part, const char *path); /* on error nothing to close */
/* Failures are remembered; false: no use to go on. */
bool um_part_write(struct um_part *part, const void *data, size_t size);
/* With UM_OK the file gets its name, else it is removed and `st` comes back; UM_EIO if any write
 * failed. Errors of this and um_part_open() name the file. */
um_status um_part_close(struct um_part *part, um_status st);

/* One writer at a time, as long as fd is open; a file system without locks is taken as it is. */
um_status um_file_lock(int fd, const char *path);

/* The file that a part which takes long will replace, held against others that would write it: made
 * where there is none. */
struct um_hold {
    int fd; /* -1: none */
    bool empty;
};
um_status um_hold_open(struct um_hold *hold, const char *path); /* on error nothing to close */
/* `written`: it was replaced; else one that was made, or empty, goes. Accepts none. */
void um_hold_close(struct um_hold *hold, const char *path, bool written);

#endif
