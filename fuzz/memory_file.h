/* SPDX-License-Identifier: Apache-2.0 */
/* Included first: its one function is no part of POSIX. */
#ifndef UM_FUZZ_MEMORY_FILE_H
#define UM_FUZZ_MEMORY_FILE_H

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEMORY_PATH = 64 };

/* A file in memory that holds data[0..size-1], to be read from its start or by `path` until it is
 * closed. */
static inline int memory_file(const uint8_t *data, size_t size, char path[MEMORY_PATH])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    snprintf(path, MEMORY_PATH, "/proc/self/fd/%d", fd);
    return fd;
}

/* A name for a file that is written; the caller removes it. */
static inline void scratch_path(char path[MEMORY_PATH])
{
    snprintf(path, MEMORY_PATH, "%s/um_fuzz_%ld",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
}

#endif
