/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* O_TMPFILE */
#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What it is instead, as far as people mistake it. */
static const char *but(const struct stat *s)
{
    return S_ISDIR(s->st_mode) ? " but a folder" : "";
}

um_status um_file_open(const char *path, int *fd, int64_t *size)
{
    struct stat s;
    um_status st = UM_OK;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0)
        return um_fail(UM_EIO, "cannot open: %s", strerror(errno));
    if (fstat(*fd, &s) != 0)
        st = um_fail(UM_EIO, "cannot stat: %s", strerror(errno));
    else if (!S_ISREG(s.st_mode))
        st = um_fail(UM_EIO, "not a regular file%s", but(&s));
    else if (size)
        *size = s.st_size;
    if (st != UM_OK) {
        close(*fd);
        *fd = -1;
    }
    return st;
}

um_status um_file_read(const char *path, int64_t max, unsigned char **data, size_t *size)
{
    int fd = -1;
    int64_t bytes = 0;
    size_t have = 0;
    *data = NULL;
    *size = 0;
    um_status st = um_file_open(path, &fd, &bytes);
    if (st != UM_OK)
        return st;
    if (bytes > max)
        st = um_fail(UM_EFORMAT, "%lld bytes, at most %lld are read", (long long)bytes,
                     (long long)max);
    unsigned char *p = st == UM_OK ? um_alloc((size_t)bytes + 1) : NULL;
    if (st == UM_OK && !p)
        st = um_fail(UM_ENOMEM, "%lld bytes for the file", (long long)bytes);
    while (st == UM_OK && have < (size_t)bytes) {
        ssize_t n = read(fd, p + have, (size_t)bytes - have);
        if (n < 0 && errno != EINTR)
            st = um_fail(UM_EIO, "cannot read: %s", strerror(errno));
        else if (n == 0)
            st = um_fail(UM_EIO, "ends after %zu bytes, want %lld", have, (long long)bytes);
        else if (n > 0)
            have += (size_t)n;
    }
    close(fd);
    if (st != UM_OK) {
        um_free(p);
        return st;
    }
    p[have] = 0;
    *data = p;
    *size = have;
    return UM_OK;
}

bool um_file_same(const char *a, const char *b)
{
    struct stat s, t;
    return stat(a, &s) == 0 && stat(b, &t) == 0 && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

enum { NAME_BYTES = 64 };

/* The next hidden name in the folder; those that a killed process left behind are passed over. */
static void next_name(struct um_part *part)
{
    static atomic_uint_fast64_t turn;
    sprintf(part->temporary + part->folder_bytes, ".ultramotion.%ld.%llu.part", (long)getpid(),
            (unsigned long long)atomic_fetch_add(&turn, 1));
}

enum { TRIES = 100 };
static const char PROC[] = "/proc/";

/* A file without a name goes with its process, however that ends. Where the file system has none,
 * or nothing could give it one later, it is hidden. */
static int create(struct um_part *part)
{
    sprintf(part->temporary + part->folder_bytes, ".");
    int fd = open(part->temporary, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
    if (fd >= 0) {
        part->nameless = true;
        sprintf(part->temporary, "/proc/self/fd/%d", fd);
        if (access(part->temporary, F_OK) == 0)
            return fd;
        close(fd);
        part->nameless = false;
        memcpy(part->temporary, part->path, part->folder_bytes);
    }
    fd = -1;
    for (int i = 0; i < TRIES && fd < 0; i++) {
        next_name(part);
        fd = open(part->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    return fd;
}

/* A name, for the moment until it gets its own. */
static bool name_it(struct um_part *part)
{
    char self[NAME_BYTES];
    bool named = false;
    snprintf(self, sizeof self, "%s", part->temporary);
    memcpy(part->temporary, part->path, part->folder_bytes);
    for (int i = 0; i < TRIES && !named && (i == 0 || errno == EEXIST); i++) {
        next_name(part);
        named = linkat(AT_FDCWD, self, AT_FDCWD, part->temporary, AT_SYMLINK_FOLLOW) == 0;
    }
    part->nameless = !named;
    return named;
}

um_status um_part_open(struct um_part *part, const char *path)
{
    struct stat old;
    char link[sizeof PROC - 1], whole[PATH_MAX];
    bool replaces = stat(path, &old) == 0;
    *part = (struct um_part){.path = NULL};
    /* /dev/stdout stays what it is, also where it leads to a file */
    bool stream =
        readlink(path, link, sizeof link) == sizeof link && memcmp(link, PROC, sizeof link) == 0;
    if (replaces && (stream || !S_ISREG(old.st_mode)))
        return um_fail(UM_EIO, "%s: cannot be written: not a regular file%s", path, but(&old));
    if (replaces && readlink(path, link, sizeof link) > 0 && realpath(path, whole))
        path = whole;
    const char *slash = strrchr(path, '/');
    part->folder_bytes = slash ? (size_t)(slash + 1 - path) : 0;
    part->path = um_strdup(path);
    part->temporary = um_alloc(part->folder_bytes + NAME_BYTES);
    um_status st = UM_OK;
    if (!part->path || !part->temporary) {
        st = um_fail(UM_ENOMEM, "name of %s", path);
    } else {
        memcpy(part->temporary, path, part->folder_bytes);
        int fd = create(part);
        if (fd >= 0 && replaces)
            (void)!fchmod(fd, old.st_mode & 0777); /* may be refused: then it has our default */
        part->file = fd >= 0 ? fdopen(fd, "wb") : NULL;
        if (!part->file)
            st = um_fail(UM_EIO, "%s: cannot be written: %s", path, strerror(errno));
        if (fd >= 0 && !part->file) {
            close(fd);
            if (!part->nameless)
                remove(part->temporary);
        }
    }
    if (st != UM_OK) {
        um_free(part->path);
        um_free(part->temporary);
        *part = (struct um_part){.path = NULL};
    }
    return st;
}

bool um_part_write(struct um_part *part, const void *data, size_t size)
{
    errno = 0;
    if (!part->error && size && fwrite(data, 1, size, part->file) != size)
        part->error = errno ? errno : EIO;
    return !part->error;
}

um_status um_part_close(struct um_part *part, um_status st)
{
    errno = 0;
    if (st == UM_OK && !part->error && part->nameless &&
        (fflush(part->file) != 0 || !name_it(part)))
        part->error = errno ? errno : EIO;
    if (fclose(part->file) != 0 && !part->error)
        part->error = errno ? errno : EIO;
    bool good = st == UM_OK && !part->error;
    if (good && rename(part->temporary, part->path) != 0) {
        part->error = errno;
        good = false;
    }
    if (!good && !part->nameless)
        remove(part->temporary);
    if (st == UM_OK && !good)
        st = um_fail(UM_EIO, "%s: cannot be written: %s", part->path, strerror(part->error));
    um_free(part->path);
    um_free(part->temporary);
    *part = (struct um_part){.path = NULL};
    return st;
}

um_status um_file_lock(int fd, const char *path)
{
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return um_fail(UM_EIO, "%s: another one writes to this file", path);
    return UM_OK;
}

um_status um_hold_open(struct um_hold *hold, const char *path)
{
    struct stat s;
    um_status st = UM_OK;
    hold->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    if (hold->fd < 0)
        return um_fail(UM_EIO, "%s: cannot be written: %s", path, strerror(errno));
    if (fstat(hold->fd, &s) != 0 || !S_ISREG(s.st_mode))
        st = um_fail(UM_EIO, "%s: cannot be written: not a regular file", path);
    else
        st = um_file_lock(hold->fd, path);
    hold->empty = s.st_size == 0;
    if (st != UM_OK) {
        close(hold->fd);
        hold->fd = -1;
    }
    return st;
}

void um_hold_close(struct um_hold *hold, const char *path, bool written)
{
    char whole[PATH_MAX];
    if (hold->fd < 0)
        return;
    if (hold->empty && !written)
        unlink(realpath(path, whole) ? whole : path);
    close(hold->fd);
    hold->fd = -1;
}
