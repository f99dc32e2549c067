/* SPDX-License-Identifier: Apache-2.0 */
/* Included first: its one function is no part of POSIX. */
#ifndef UM_FUZZ_MEMORY_FILE_H
#define UM_FUZZ_MEMORY_FILE_H

#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A file without a name that holds data[0..size-1], to be read from its start. */
static inline int memory_file(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    return fd;
}

#endif
