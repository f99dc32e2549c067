/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures on disk: one file, all of a folder, or a glob, in the natural order of their names
 * (frame_2 before frame_10). */
#include "io/path.h"
#include "io/source.h"

#include "base/mem.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct dir {
    char **paths;
    size_t count, capacity;
};

/* Digits compare as numbers, all else byte by byte. */
static int natural(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            a += strspn(a, "0");
            b += strspn(b, "0");
            size_t na = strspn(a, "0123456789"), nb = strspn(b, "0123456789");
            int order = na != nb ? (na < nb ? -1 : 1) : memcmp(a, b, na);
            if (order)
                return order;
            a += na;
            b += nb;
        } else {
            if (*a != *b)
                return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
            a++;
            b++;
        }
    }
    return *a ? 1 : *b ? -1 : 0;
}

static int by_name(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int order = natural(x, y);
    return order ? order : strcmp(x, y);
}

static int is_picture(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name &&
           (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 ||
            strcasecmp(dot, ".jpeg") == 0);
}

/* Takes `path` (NULL: its allocation failed). */
static um_status add(struct dir *d, char *path)
{
    if (path && d->count == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 64;
        char **paths = um_grow(d->paths, d->count * sizeof *paths, capacity * sizeof *paths);
        if (paths) {
            d->paths = paths;
            d->capacity = capacity;
        } else {
            um_free(path);
            path = NULL;
        }
    }
    if (!path)
        return um_fail(UM_ENOMEM, "list of %zu files", d->count);
    d->paths[d->count++] = path;
    return UM_OK;
}

static um_status add_folder(struct dir *d, const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return um_fail(UM_EIO, "%s: %s", path, strerror(errno));
    um_status st = UM_OK;
    for (struct dirent *e; st == UM_OK && (e = readdir(folder));)
        if (e->d_name[0] != '.' && is_picture(e->d_name))
            st = add(d, um_path_join(path, e->d_name));
    closedir(folder);
    if (st == UM_OK && d->count == 0)
        st = um_fail(UM_EIO, "%s: no .png, .jpg or .jpeg in this folder", path);
    return st;
}

static um_status add_glob(struct dir *d, const char *pattern)
{
    glob_t found = {0};
    int rc = glob(pattern, GLOB_NOSORT, NULL, &found);
    um_status st = rc == 0 || rc == GLOB_NOMATCH ? UM_OK
                   : rc == GLOB_NOSPACE          ? um_fail(UM_ENOMEM, "%s", pattern)
                                        : um_fail(UM_EIO, "%s: cannot be searched", pattern);
    struct stat s;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc && st == UM_OK; i++)
        if (stat(found.gl_pathv[i], &s) != 0 || !S_ISDIR(s.st_mode))
            st = add(d, um_strdup(found.gl_pathv[i]));
    globfree(&found);
    if (st == UM_OK && d->count == 0)
        st = um_fail(UM_EIO, "%s: no file matches", pattern);
    return st;
}

static um_status dir_open(void *priv, const char *spec, const um_source_settings *settings)
{
    (void)settings;
    struct dir *d = priv;
    struct stat s;
    um_status st;
    if (stat(spec, &s) == 0)
        st = S_ISDIR(s.st_mode) ? add_folder(d, spec) : add(d, um_strdup(spec));
    else if (strpbrk(spec, "*?["))
        st = add_glob(d, spec);
    else
        st = um_fail(UM_EIO, "%s: %s", spec, strerror(errno));
    if (st == UM_OK)
        qsort(d->paths, d->count, sizeof *d->paths, by_name);
    return st;
}

static void dir_close(void *priv)
{
    struct dir *d = priv;
    for (size_t i = 0; i < d->count; i++)
        um_free(d->paths[i]);
    um_free(d->paths);
}

static um_status dir_read(void *priv, uint64_t index, um_frame **frame, char name[UM_NAME_BYTES])
{
    struct dir *d = priv;
    if (index >= d->count)
        return UM_EOF;
    um_path_stem(d->paths[index], name, UM_NAME_BYTES);
    return um_image_read(d->paths[index], frame);
}

static long dir_length(const void *priv)
{
    return (long)((const struct dir *)priv)->count;
}

const um_source_type um_source_dir = {
    .scheme = NULL,
    .priv_size = sizeof(struct dir),
    .open = dir_open,
    .close = dir_close,
    .read = dir_read,
    .length = dir_length,
};
