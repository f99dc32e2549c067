/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures on disk: one file, all of a folder, or a glob, in the natural order of their names
 * (frame_2 before frame_10). What outputs are called is settled here, where all names are known. */
#include "io/path.h"
#include "io/source.h"

#include "base/mem.h"
#include "ultramotion/io.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct file {
    char *path;
    const char *rel;  /* the part of it that frames and outputs are called by */
    bool with_ending; /* without it, it would meet another */
};

struct dir {
    struct file *files;
    size_t count, capacity;
    char *name; /* of the last frame, with room for the longest */
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
    const char *x = ((const struct file *)a)->path, *y = ((const struct file *)b)->path;
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

/* Takes `path` (NULL: its allocation failed), of which the first `fixed` bytes are no part of the
 * name. */
static um_status add(struct dir *d, char *path, size_t fixed)
{
    if (path && d->count == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 64;
        struct file *files = um_grow(d->files, d->count * sizeof *files, capacity * sizeof *files);
        if (files) {
            d->files = files;
            d->capacity = capacity;
        } else {
            um_free(path);
            path = NULL;
        }
    }
    if (!path)
        return um_fail(UM_ENOMEM, "list of %zu files", d->count);
    d->files[d->count++] = (struct file){.path = path, .rel = path + fixed};
    return UM_OK;
}

static um_status add_file(struct dir *d, const char *path)
{
    const char *slash = strrchr(path, '/');
    return add(d, um_strdup(path), slash ? (size_t)(slash + 1 - path) : 0);
}

static um_status add_folder(struct dir *d, const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return um_fail(UM_EIO, "%s: %s", path, strerror(errno));
    um_status st = UM_OK;
    struct dirent *e;
    for (errno = 0; st == UM_OK && (e = readdir(folder)); errno = 0)
        if (e->d_name[0] != '.' && is_picture(e->d_name)) {
            char *file = um_path_join(path, e->d_name);
            st = add(d, file, file ? strlen(file) - strlen(e->d_name) : 0);
        }
    if (st == UM_OK && errno)
        st = um_fail(UM_EIO, "%s: %s", path, strerror(errno));
    closedir(folder);
    if (st == UM_OK && d->count == 0)
        st = um_fail(UM_EIO, "%s: no .png, .jpg or .jpeg in this folder", path);
    return st;
}

/* Bytes of a pattern's folders before its first wildcard, as they stand in what it finds: without
 * the backslashes. */
static size_t fixed_part(const char *pattern)
{
    size_t n = 0, folders = 0;
    for (const char *p = pattern; *p && !strchr("*?[", *p); p++) {
        if (*p == '\\' && p[1])
            p++;
        n++;
        folders = *p == '/' ? n : folders;
    }
    return folders;
}

static bool steps_up(const char *rel)
{
    for (const char *p = rel; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || !p[2]))
            return true;
    }
    return false;
}

static um_status add_glob(struct dir *d, const char *pattern)
{
    glob_t found = {0};
    int rc = glob(pattern, GLOB_NOSORT, NULL, &found);
    um_status st = rc == 0 || rc == GLOB_NOMATCH ? UM_OK
                   : rc == GLOB_NOSPACE          ? um_fail(UM_ENOMEM, "%s", pattern)
                                        : um_fail(UM_EIO, "%s: cannot be searched", pattern);
    size_t fixed = fixed_part(pattern);
    struct stat s;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc && st == UM_OK; i++) {
        const char *path = found.gl_pathv[i];
        if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
            continue;
        if (fixed > strlen(path) || steps_up(path + fixed))
            st = um_fail(UM_EINVAL, "%s: \"..\" behind a wildcard leaves no names for the outputs",
                         pattern);
        else
            st = add(d, um_strdup(path), fixed);
    }
    globfree(&found);
    if (st == UM_OK && d->count == 0)
        st = um_fail(UM_EIO, "%s: no file matches", pattern);
    return st;
}

/* ---- names of outputs ---- */

/* Bytes of a name without its ending. */
static size_t stem(const char *rel)
{
    const char *slash = strrchr(rel, '/'), *name = slash ? slash + 1 : rel;
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? (size_t)(dot - rel) : strlen(rel);
}

/* A name that a file might take: with its ending, or without. */
struct claim {
    struct file *file;
    size_t length;
};

static int by_claim(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    size_t n = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->file->rel, y->file->rel, n);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* A file goes by its stem, if that is neither another's stem nor another's whole name. */
static um_status settle_names(struct dir *d)
{
    size_t longest = 0, n = 2 * d->count;
    struct claim *claims = um_array(n, sizeof *claims);
    if (!claims)
        return um_fail(UM_ENOMEM, "names of %zu files", d->count);
    for (size_t i = 0; i < d->count; i++) {
        struct file *f = &d->files[i];
        size_t whole = strlen(f->rel);
        claims[2 * i] = (struct claim){f, whole};
        claims[2 * i + 1] = (struct claim){f, stem(f->rel)};
        longest = whole > longest ? whole : longest;
    }
    qsort(claims, n, sizeof *claims, by_claim);
    for (size_t i = 0, end; i < n; i = end) {
        bool meet = false;
        for (end = i + 1; end < n && by_claim(&claims[i], &claims[end]) == 0; end++)
            meet = meet || claims[end].file != claims[i].file;
        for (size_t k = i; meet && k < end; k++)
            claims[k].file->with_ending = true;
    }
    um_free(claims);
    d->name = um_zalloc(longest + 1);
    return d->name ? UM_OK : um_fail(UM_ENOMEM, "names of %zu files", d->count);
}

static um_status dir_open(void *priv, const char *arg, const um_source_settings *settings,
                          int wake_fd)
{
    (void)settings;
    (void)wake_fd; /* a file is there or not: nothing waits */
    struct dir *d = priv;
    struct stat s;
    um_status st;
    if (stat(arg, &s) == 0)
        st = S_ISDIR(s.st_mode) ? add_folder(d, arg) : add_file(d, arg);
    else if (strpbrk(arg, "*?["))
        st = add_glob(d, arg);
    else
        st = um_fail(UM_EIO, "%s: %s", arg, strerror(errno));
    if (st == UM_OK) {
        qsort(d->files, d->count, sizeof *d->files, by_name);
        st = settle_names(d);
    }
    return st;
}

static void dir_close(void *priv)
{
    struct dir *d = priv;
    for (size_t i = 0; i < d->count; i++)
        um_free(d->files[i].path);
    um_free(d->files);
    um_free(d->name);
}

static um_status dir_read(void *priv, uint64_t index, um_frame **frame)
{
    struct dir *d = priv;
    if (index >= d->count)
        return UM_EOF;
    const struct file *f = &d->files[index];
    size_t n = f->with_ending ? strlen(f->rel) : stem(f->rel);
    memcpy(d->name, f->rel, n);
    d->name[n] = 0;
    um_status st = um_image_read(f->path, frame);
    return st == UM_OK ? um_frame_set_source(*frame, f->rel) : st;
}

static long dir_length(const void *priv)
{
    return (long)((const struct dir *)priv)->count;
}

static const char *dir_name(const void *priv)
{
    return ((const struct dir *)priv)->name;
}

const um_source_ops um_source_dir = {
    .struct_size = sizeof um_source_dir,
    .priv_size = sizeof(struct dir),
    .open = dir_open,
    .close = dir_close,
    .read = dir_read,
    .length = dir_length,
    .name = dir_name,
};
