/* SPDX-License-Identifier: Apache-2.0 */
#include "io/path.h"

#include "base/file.h"
#include "base/mem.h"
#include "ultramotion/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

char *um_path_join(const char *folder, const char *name)
{
    size_t a = strlen(folder), b = strlen(name);
    char *path = um_alloc(a + b + 2);
    if (!path)
        return NULL;
    memcpy(path, folder, a);
    if (a && folder[a - 1] != '/')
        path[a++] = '/';
    memcpy(path + a, name, b + 1);
    return path;
}

char *um_path_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *folder = um_strdup(path);
    if (!folder)
        return NULL;
    folder[slash ? slash + 1 - path : 0] = 0;
    char *beside = um_path_join(folder, name);
    um_free(folder);
    return beside;
}

static um_status make_one(const char *path)
{
    struct stat s;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &s) == 0 && S_ISDIR(s.st_mode)))
        return UM_OK;
    return um_fail(UM_EIO, "%s: %s", path, strerror(errno == EEXIST ? ENOTDIR : errno));
}

um_status um_path_make_parents(const char *path)
{
    char *copy = um_strdup(path);
    if (!copy)
        return um_fail(UM_ENOMEM, "%s", path);
    um_status st = UM_OK;
    for (char *p = copy + 1; copy[0] && *p && st == UM_OK; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        st = make_one(copy);
        *p = '/';
    }
    um_free(copy);
    return st;
}

um_status um_path_make_folder(const char *path)
{
    um_status st = um_path_make_parents(path);
    return st == UM_OK ? make_one(path) : st;
}

um_status um_path_hold_folder(const char *path, int *lock)
{
    um_status st = um_path_make_folder(path);
    *lock = st == UM_OK ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (*lock < 0 || flock(*lock, LOCK_EX | LOCK_NB) == 0)
        return st;
    if (errno == EWOULDBLOCK)
        st = um_fail(UM_EIO, "%s: another one writes to this folder", path);
    close(*lock);
    *lock = -1;
    return st;
}

int um_same_file(const char *a, const char *b)
{
    return a && b && um_file_same(a, b);
}

bool um_path_steps_up(const char *path)
{
    for (const char *p = path; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || !p[2]))
            return true;
    }
    return false;
}

bool um_path_in(const char *folder, const char *path)
{
    char *own = um_path_beside(path, ".");
    bool in = own && um_file_same(folder, own);
    um_free(own);
    return in;
}
