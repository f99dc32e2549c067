/* SPDX-License-Identifier: Apache-2.0 */
/* Images and videos on disk: one file, all of a folder, a glob, in the natural order of their
 * names (frame_2 before frame_10), or a list in its own. What outputs are called is settled here,
 * where all names are known. */
#include "io/clip.h"
#include "io/notice.h"
#include "io/path.h"
#include "io/sequence.h"
#include "io/source.h"
#include "io/tiff.h"
#include "io/video.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "ultramotion/io.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct file {
    char *path;
    const char *rel;       /* the part of it that frames and outputs are called by */
    bool with_ending;      /* without it, it would meet another */
    bool many_with_ending; /* the same, where its frames are numbered */
};

struct identity {
    dev_t device;
    ino_t inode;
    size_t file;
};

struct dir {
    um_source_settings set;
    struct file *files;
    size_t count, capacity, at; /* at: the file that is read */
    struct identity *known;     /* of all that is read, sorted, once somebody asks */
    size_t n_known;
    pthread_mutex_t asking;
    struct um_clip clip; /* of it */
    bool open;
    unsigned frame;    /* of it, from 0 */
    char *name;        /* of the last frame, with room for the longest */
    bool may_be_many;  /* a file that may hold several frames is among them */
    const char *given; /* the source's argument */
    bool list;         /* that is a list */
    struct um_notices notices;
};

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

int um_natural_order(const char *a, const char *b)
{
    if (!a || !b)
        return !!a - !!b;
    int order = natural(a, b);
    return order ? order : strcmp(a, b);
}

static int by_name(const void *a, const void *b)
{
    return um_natural_order(((const struct file *)a)->path, ((const struct file *)b)->path);
}

static bool has_ending(const char *name, const char *const *endings)
{
    const char *dot = strrchr(name, '.');
    if (!dot || dot == name)
        return false;
    while (*endings && !um_text_same(dot, *endings))
        endings++;
    return *endings != NULL;
}

/* What may hold several frames, and is taken from a folder. */
static bool is_sequence(const char *name)
{
    static const char *const pages[] = {".tif", ".tiff", NULL};
    static const char *const videos[] = {".mp4", ".m4v", ".mov",  ".mkv", ".webm", ".avi",
                                         ".wmv", ".mpg", ".mpeg", ".gif", NULL};
    static const char *const sequences[] = {".mha", ".mhd", ".nrrd", ".nhdr", NULL};
    return has_ending(name, sequences) || (um_tiff_built && has_ending(name, pages)) ||
           (um_video_built && has_ending(name, videos));
}

static bool is_image(const char *name)
{
    static const char *const stills[] = {".png", ".jpg", ".jpeg", ".bmp", NULL};
    return has_ending(name, stills) || is_sequence(name);
}

/* Takes `path` (NULL: its allocation failed), of which the first `fixed` bytes are no part of the
 * name. */
static um_status add(struct dir *d, char *path, size_t fixed)
{
    if (!path || !um_make_room(&d->files, &d->capacity, d->count, 1, sizeof *d->files)) {
        um_free(path);
        return um_fail(UM_ENOMEM, "list of %zu files", d->count);
    }
    d->files[d->count++] = (struct file){.path = path, .rel = path + fixed};
    return UM_OK;
}

static um_status add_file(struct dir *d, const char *path)
{
    const char *slash = strrchr(path, '/');
    return add(d, um_strdup(path), slash ? (size_t)(slash + 1 - path) : 0);
}

/* Folders that are still to be looked into. */
struct folders {
    char **path;
    size_t count, capacity;
};

/* Takes `path`, NULL: its allocation failed. */
static um_status push_folder(struct folders *f, char *path)
{
    if (!path || !um_make_room(&f->path, &f->capacity, f->count, 1, sizeof *f->path)) {
        um_free(path);
        return um_fail(UM_ENOMEM, "list of %zu folders", f->count);
    }
    f->path[f->count++] = path;
    return UM_OK;
}

/* stat() of the file with a header's pixels; false: no header, or none that can be read. */
static bool stat_pixels(const char *header, struct stat *s)
{
    static const char *const headers[] = {".mhd", ".nhdr", NULL};
    struct um_clip c;
    if (!has_ending(header, headers) || um_clip_open(&c, header, NULL) != UM_OK)
        return false;
    bool done = c.sequence && um_sequence_stat(c.sequence, s);
    um_clip_close(&c);
    return done;
}

static bool pixels_are_in(const char *header, const char *path)
{
    struct stat a, b;
    return stat_pixels(header, &a) && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Is it read with a header beside it, as "scan.raw" or "scan.raw.gz" with "scan.mhd"? */
static bool has_header(const char *path)
{
    static const char *const endings[] = {"mhd", "nhdr"};
    size_t n = strlen(path), dot = n > 3 && strcmp(path + n - 3, ".gz") == 0 ? n - 3 : n;
    while (dot && path[dot - 1] != '.' && path[dot - 1] != '/')
        dot--;
    char *header = um_alloc(n + sizeof "nhdr");
    bool has = false;
    for (int i = 0; header && i < 2 && !has; i++) {
        memcpy(header, path, dot);
        strcpy(header + dot, endings[i]);
        has = pixels_are_in(header, path);
    }
    um_free(header);
    return has;
}

/* A file of a folder: taken if it is called like an image; else counted by what is in it. Linked
 * folders are not followed, they might lead round. */
static um_status sort_in(struct dir *d, struct folders *todo, char *path, const char *name,
                         size_t fixed)
{
    struct stat s;
    if (!path)
        return um_fail(UM_ENOMEM, "%s", name);
    if (is_image(name) && (stat(path, &s) != 0 || !S_ISDIR(s.st_mode)))
        return add(d, path, fixed);
    um_status st = UM_OK;
    if (lstat(path, &s) == 0 && S_ISDIR(s.st_mode)) {
        if (d->set.recursive)
            return push_folder(todo, path);
        um_notices_pass_folder(&d->notices);
    } else if (!has_header(path)) {
        um_notices_pass(&d->notices, path);
    }
    um_free(path);
    return st;
}

static um_status read_folder(struct dir *d, struct folders *todo, const char *path, size_t fixed)
{
    DIR *folder = opendir(path);
    if (!folder)
        return um_fail(UM_EIO, "%s: %s", path, strerror(errno));
    um_status st = UM_OK;
    struct dirent *e;
    for (errno = 0; st == UM_OK && (e = readdir(folder)); errno = 0)
        if (e->d_name[0] != '.')
            st = sort_in(d, todo, um_path_join(path, e->d_name), e->d_name, fixed);
    if (st == UM_OK && errno)
        st = um_fail(UM_EIO, "%s: %s", path, strerror(errno));
    closedir(folder);
    return st;
}

/* A folder, and with --recursive those in it. The first `fixed` bytes of paths are no names. */
static um_status walk(struct dir *d, const char *path, size_t fixed)
{
    struct folders todo = {NULL, 0, 0};
    um_status st = push_folder(&todo, um_strdup(path));
    for (size_t i = 0; st == UM_OK && i < todo.count; i++)
        st = read_folder(d, &todo, todo.path[i], fixed);
    for (size_t i = 0; i < todo.count; i++)
        um_free(todo.path[i]);
    um_free(todo.path);
    return st;
}

static um_status add_folder(struct dir *d, const char *path)
{
    size_t n = strlen(path);
    um_status st = walk(d, path, n + (n && path[n - 1] != '/'));
    if (st == UM_OK && d->count == 0) {
        char held[UM_NOTICE_BYTES];
        um_notices_passed(&d->notices, held);
        st = um_fail(UM_EIO, "%s: no image in this folder (%s)%s%s", path, um_image_kinds(),
                     held[0] ? ", only " : ": it is empty", held);
    }
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

/* Has it "**" between slashes? To glob() that is a single star. */
static bool means_all_folders(const char *pattern)
{
    for (const char *p = strstr(pattern, "**"); p; p = strstr(p + 1, "**"))
        if ((p == pattern || p[-1] == '/') && (p[2] == '/' || !p[2]))
            return true;
    return false;
}

/* What a wildcard meets that is no folder matches nothing; one that cannot be read may hold what is
 * meant. */
static int cannot_search(const char *folder, int error)
{
    if (error == ENOENT || error == ENOTDIR || error == ELOOP)
        return 0;
    um_fail(error == ENOMEM ? UM_ENOMEM : UM_EIO, "%s: %s", folder, strerror(error));
    return 1;
}

static um_status add_glob(struct dir *d, const char *pattern)
{
    glob_t found = {0};
    if (means_all_folders(pattern))
        return um_fail(UM_EINVAL,
                       "%s: \"**\" means nothing here: give the folder, and --recursive for those "
                       "in it",
                       pattern);
    int rc = glob(pattern, GLOB_NOSORT, cannot_search, &found);
    um_status st = rc == 0 || rc == GLOB_NOMATCH ? UM_OK
                   : rc == GLOB_NOSPACE          ? um_fail(UM_ENOMEM, "%s", pattern)
                                                 : UM_EIO; /* cannot_search() told */
    size_t fixed = fixed_part(pattern);
    struct stat s;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc && st == UM_OK; i++) {
        const char *path = found.gl_pathv[i];
        bool folder = stat(path, &s) == 0 && S_ISDIR(s.st_mode);
        if (folder && !d->set.recursive)
            um_notices_pass_folder(&d->notices);
        else if (fixed > strlen(path) || um_path_steps_up(path + fixed))
            st = um_fail(UM_EINVAL, "%s: \"..\" behind a wildcard leaves no names for the outputs",
                         pattern);
        else
            st = folder ? walk(d, path, fixed) : add(d, um_strdup(path), fixed);
    }
    globfree(&found);
    if (st == UM_OK && d->count == 0) {
        char held[UM_NOTICE_BYTES];
        um_notices_passed(&d->notices, held);
        st = um_fail(UM_EIO, "%s: no file matches%s%s", pattern, held[0] ? ", only " : "", held);
    }
    return st;
}

/* ---- a list ---- */

/* Bytes of the folders that all paths begin with. */
static size_t common_folders(const struct dir *d)
{
    size_t common = d->count ? strlen(d->files[0].path) : 0;
    for (size_t i = 0; i < d->count; i++) {
        size_t n = 0;
        while (n < common && d->files[i].path[n] == d->files[0].path[n])
            n++;
        common = n;
    }
    while (common && d->files[0].path[common - 1] != '/')
        common--;
    return common;
}

/* Without "./" and doubled slashes, so that a file has one name. */
static void tidy(char *path)
{
    char *to = path;
    for (const char *p = path; *p;) {
        bool begins = to == path || to[-1] == '/';
        if (begins && p[0] == '.' && p[1] == '/')
            p += 2;
        else if (begins && to != path && p[0] == '/')
            p++;
        else
            *to++ = *p++;
    }
    *to = 0;
}

/* Lines of `text`, which ends in a zero: paths, relative to the list's folder. */
static um_status add_lines(struct dir *d, const char *list, char *text)
{
    um_status st = UM_OK;
    text += strncmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    for (char *line = text, *next; st == UM_OK && line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        size_t n = strlen(line);
        if (n && line[n - 1] == '\r')
            line[--n] = 0;
        tidy(line);
        if (line[0])
            st = add(d, line[0] == '/' ? um_strdup(line) : um_path_beside(list, line), 0);
    }
    return st;
}

static int by_rel(const void *a, const void *b)
{
    return strcmp((*(const struct file *const *)a)->rel, (*(const struct file *const *)b)->rel);
}

/* Each file goes by what its path has of its own, and comes once. */
static um_status name_lines(struct dir *d, const char *list)
{
    size_t common = common_folders(d);
    const struct file **sorted = um_array(d->count, sizeof *sorted);
    um_status st = sorted ? UM_OK : um_fail(UM_ENOMEM, "names of %zu files", d->count);
    for (size_t i = 0; i < d->count && st == UM_OK; i++) {
        sorted[i] = &d->files[i];
        const char *rel = d->files[i].path + common;
        d->files[i].rel = rel + strspn(rel, "/"); /* absolute beside relative ones */
        if (um_path_steps_up(d->files[i].rel))
            st = um_fail(UM_EINVAL, "%s: \"%s\": \"..\" leaves no name for the outputs", list,
                         d->files[i].path);
    }
    if (st == UM_OK)
        qsort(sorted, d->count, sizeof *sorted, by_rel);
    for (size_t i = 1; i < d->count && st == UM_OK; i++)
        if (by_rel(&sorted[i - 1], &sorted[i]) == 0)
            st = um_fail(UM_EINVAL, "%s: \"%s\" is in it twice", list, sorted[i]->path);
    um_free(sorted);
    return st;
}

static um_status add_list(struct dir *d, const char *list)
{
    enum { MOST = 64 << 20 };
    unsigned char *text = NULL;
    size_t n = 0;
    um_status st = um_file_read(list, MOST, &text, &n);
    if (st != UM_OK)
        return um_fail_in(st, list);
    if (memchr(text, 0, n))
        st = um_fail(UM_EFORMAT, "%s: not a list: want a text with one path a line", list);
    else
        st = add_lines(d, list, (char *)text);
    um_free(text);
    if (st == UM_OK && d->count == 0)
        st = um_fail(UM_EIO, "%s: an empty list: want one path a line", list);
    return st == UM_OK ? name_lines(d, list) : st;
}

/* ---- names of outputs ---- */

/* Bytes of a name without its ending. */
static size_t stem(const char *rel)
{
    const char *slash = strrchr(rel, '/'), *name = slash ? slash + 1 : rel;
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? (size_t)(dot - rel) : strlen(rel);
}

enum { NUMBER = 16 }; /* "_00000" and a zero */

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

/* Bytes of `n` before "_" and at least five digits, as frames of one file are numbered; 0 if it is
 * not called like that. */
static size_t numbered(const char *rel, size_t n)
{
    size_t base = n;
    while (base && isdigit((unsigned char)rel[base - 1]))
        base--;
    return n - base >= 5 && base > 1 && rel[base - 1] == '_' ? base - 1 : 0;
}

/* Whose result an image is called like, as sinks and datasets name them: "NAME_mask" or
 * "NAME_overlay" beside "NAME", or beside a file of many frames. */
static bool is_called_like_a_result(struct file *f, const struct claim *claims, size_t n)
{
    static const char *const result[] = {"_mask", "_overlay"};
    size_t length = stem(f->rel);
    for (size_t i = 0; i < sizeof result / sizeof *result; i++) {
        size_t end = strlen(result[i]), of = length > end ? length - end : 0;
        if (!of || memcmp(f->rel + of, result[i], end) != 0)
            continue;
        struct claim image = {f, of}, video = {f, numbered(f->rel, of)};
        return bsearch(&image, claims, n, sizeof *claims, by_claim) ||
               (video.length && bsearch(&video, claims, n, sizeof *claims, by_claim));
    }
    return false;
}

/* A file called like a frame of another one: that one's frames keep its ending. */
static um_status keep_frames_apart(const struct claim *claims, size_t n, struct dir *d)
{
    for (size_t i = 0; i < d->count; i++) {
        struct file *f = &d->files[i];
        struct claim key = {f, numbered(f->rel, stem(f->rel))};
        const struct claim *found =
            key.length ? bsearch(&key, claims, n, sizeof *claims, by_claim) : NULL;
        while (found && found > claims && by_claim(found - 1, &key) == 0)
            found--;
        for (; found && found < claims + n && by_claim(found, &key) == 0; found++) {
            bool whole = found->length == strlen(found->file->rel);
            if (whole && is_sequence(found->file->rel))
                return um_fail(UM_EINVAL,
                               "%s is called like a frame of %s: rename one, or give them apart",
                               f->path, found->file->path);
            found->file->many_with_ending = true;
        }
    }
    return UM_OK;
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
    um_status st = keep_frames_apart(claims, n, d);
    for (size_t i = 0; i < d->count && !d->list; i++)
        if (is_called_like_a_result(&d->files[i], claims, n))
            um_notices_result(&d->notices, d->files[i].rel);
    um_free(claims);
    d->name = um_zalloc(longest + NUMBER);
    return d->name ? st : um_fail(UM_ENOMEM, "names of %zu files", d->count);
}

static um_status dir_open(void *priv, const char *arg, const um_source_settings *settings,
                          int wake_fd)
{
    (void)wake_fd; /* a file is there or not: nothing waits */
    struct dir *d = priv;
    struct stat s;
    d->set = *settings;
    d->given = arg;
    pthread_mutex_init(&d->asking, NULL);
    um_notices_init(&d->notices, settings);
    um_status st;
    if (stat(arg, &s) == 0)
        st = S_ISDIR(s.st_mode) ? add_folder(d, arg) : add_file(d, arg);
    else if ((d->list = arg[0] == '@' && arg[1]))
        st = add_list(d, arg + 1);
    else if (strpbrk(arg, "*?["))
        st = add_glob(d, arg);
    else
        st = um_fail(UM_EIO, "%s: %s", arg, strerror(errno));
    if (st == UM_OK && !d->list)
        qsort(d->files, d->count, sizeof *d->files, by_name);
    for (size_t i = 0; i < d->count; i++)
        d->may_be_many = d->may_be_many || is_sequence(d->files[i].rel);
    return st == UM_OK ? settle_names(d) : st;
}

static void close_clip(struct dir *d)
{
    if (d->open)
        um_clip_close(&d->clip);
    d->open = false;
    d->frame = 0;
    d->at++;
}

static void dir_close(void *priv)
{
    struct dir *d = priv;
    um_notices_end(&d->notices, d->given);
    if (d->open)
        um_clip_close(&d->clip);
    for (size_t i = 0; i < d->count; i++)
        um_free(d->files[i].path);
    um_free(d->files);
    um_free(d->name);
    um_free(d->known);
    pthread_mutex_destroy(&d->asking);
}

static void name_frame(struct dir *d)
{
    const struct file *f = &d->files[d->at];
    bool many = d->open && um_clip_many(&d->clip);
    size_t n = f->with_ending || (many && f->many_with_ending) ? strlen(f->rel) : stem(f->rel);
    memcpy(d->name, f->rel, n);
    d->name[n] = 0;
    if (many)
        snprintf(d->name + n, NUMBER, "_%05u", d->frame);
}

/* The next frame of the file, or of the next that has one. */
static um_status dir_read(void *priv, uint64_t index, um_frame **frame)
{
    struct dir *d = priv;
    if (index == 0 && (d->at || d->open)) { /* another round */
        close_clip(d);
        d->at = 0;
    }
    while (d->at < d->count) {
        const struct file *f = &d->files[d->at];
        um_status st = UM_OK;
        if (!d->open) {
            st = um_clip_open(&d->clip, f->path, &d->set);
            d->open = st == UM_OK;
        }
        if (st == UM_OK)
            st = um_clip_read(&d->clip, frame);
        if (st != UM_EOF) {
            name_frame(d);
            d->notices.any = true;
        }
        d->frame++;
        if (st == UM_OK) {
            um_notices_see(&d->notices, f->rel, d->frame == 1, &d->clip.f.facts);
            st = um_frame_set_source(*frame, f->rel);
        }
        if (!d->open || st == UM_EOF)
            close_clip(d);
        if (st != UM_EOF)
            return st;
    }
    um_notices_end(&d->notices, d->given);
    return UM_EOF;
}

static long dir_length(const void *priv)
{
    const struct dir *d = priv;
    return d->may_be_many ? -1 : (long)d->count;
}

static const char *dir_name(const void *priv)
{
    return ((const struct dir *)priv)->name;
}

static int by_identity(const void *a, const void *b)
{
    const struct identity *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode < y->inode ? -1 : x->inode > y->inode;
}

/* Each output of a long run may ask, of as many files. */
static bool identify(struct dir *d)
{
    pthread_mutex_lock(&d->asking);
    if (!d->known && (d->known = um_array(2 * d->count, sizeof *d->known))) {
        struct stat s;
        for (size_t i = 0; i < d->count; i++) {
            if (stat(d->files[i].path, &s) == 0)
                d->known[d->n_known++] = (struct identity){s.st_dev, s.st_ino, i};
            if (stat_pixels(d->files[i].path, &s))
                d->known[d->n_known++] = (struct identity){s.st_dev, s.st_ino, i};
        }
        qsort(d->known, d->n_known, sizeof *d->known, by_identity);
    }
    bool done = d->known != NULL;
    pthread_mutex_unlock(&d->asking);
    return done;
}

bool um_dir_reads(void *priv, const char *path)
{
    struct dir *d = priv;
    struct stat s;
    if (d->list && um_file_same(d->given + 1, path))
        return true;
    if (!identify(d) || stat(path, &s) != 0)
        return false;
    const struct identity asked = {s.st_dev, s.st_ino, 0},
                          *found = bsearch(&asked, d->known, d->n_known, sizeof asked, by_identity);
    const char *file = found ? d->files[found->file].path : NULL;
    return file && (um_file_same(file, path) || pixels_are_in(file, path)); /* still */
}

const um_source_ops um_source_dir = {
    .struct_size = sizeof um_source_dir,
    .priv_size = sizeof(struct dir),
    .open = dir_open,
    .close = dir_close,
    .read = dir_read,
    .length = dir_length,
    .name = dir_name,
    .uses = UM_SOURCE_RECURSIVE | UM_SOURCE_WINDOW,
};
