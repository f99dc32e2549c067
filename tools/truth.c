/* SPDX-License-Identifier: Apache-2.0 */
#define _XOPEN_SOURCE 700 /* realpath() */
#include "truth.h"

#include "list.h"
#include "segmentation.h"
#include "text.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JSON_MAX = 1 << 30 };

struct entry {
    char *image, *name, *sweep, *mask, *line; /* paths; mask and line may be NULL */
    int64_t id;
    int width, height; /* as COCO has them; 0 = not said */
    const cJSON **annotation;
    int annotations;
};

struct truth {
    char *dataset, *folder; /* folder: the data set, or the one that its file lies in */
    const char *apart[2];   /* --masks and --lines, the caller's; or NULL */
    um_source *phantom;
    cJSON *coco;
    struct entry *entry;
    long entries, at, frames;
    struct category *category;
    int categories;
    struct truth_frame frame; /* of the last truth_next() */
    um_source_settings source;
    long notices;                   /* of images */
    long masks, set, large, beyond; /* masks that were read, those with a pixel, with most of an
                                       image; boxes that reach beyond theirs */
    long annotations, crowds;       /* that were read */
    char sweep[64];                 /* of the phantom's; "" = single images */
};

um_status truth_fail(um_status st, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return um_set_error(st, text);
}

um_status truth_no_memory(void)
{
    return truth_fail(UM_ENOMEM, "val");
}

/* All of a file, which may be a pipe, whose size nobody knows, and a zero. */
static um_status read_text(const char *path, char **text, size_t *size)
{
    FILE *f = fopen(path, "rb");
    um_status st = f ? UM_OK : truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno));
    size_t n = 0, room = 1 << 20;
    for (bool more = true; st == UM_OK && more; room *= 2) {
        char *grown = realloc(*text, room + 1);
        if (!grown) {
            st = truth_no_memory();
            break;
        }
        *text = grown;
        n += fread(grown + n, 1, room - n, f);
        more = n == room;
        if (ferror(f))
            st = truth_fail(UM_EIO, "val: %s: cannot be read: %s", path, strerror(errno));
        else if (n > JSON_MAX)
            st = truth_fail(UM_EFORMAT, "val: %s: more than 1 GiB", path);
    }
    if (st == UM_OK)
        (*text)[n] = 0;
    *size = n + 1;
    if (f)
        fclose(f);
    return st;
}

um_status truth_json(cJSON **out, const char *path)
{
    const char *end = NULL;
    char *text = NULL;
    size_t size = 0;
    um_status st = read_text(path, &text, &size);
    errno = 0;
    if (st == UM_OK && !(*out = cJSON_ParseWithLengthOpts(text, size, &end, 1)))
        st = errno == ENOMEM ? truth_no_memory()
                             : truth_fail(UM_EFORMAT, "val: %s: no JSON at byte %ld", path,
                                          end ? (long)(end - text) : 0L);
    free(text);
    return st;
}

/* ---- masks ---- */

bool truth_has_mask(const cJSON *object)
{
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(object, "segmentation");
    return s && !cJSON_IsNull(s) && !(cJSON_IsArray(s) && cJSON_GetArraySize(s) == 0);
}

um_status truth_mask(const char *file, const struct truth_frame *f, const cJSON *object,
                     uint8_t **mask)
{
    int w = f->image->width, h = f->image->height;
    if (!truth_has_mask(object))
        return UM_OK;
    if (!(*mask = calloc((size_t)w, (size_t)h)))
        return truth_no_memory();
    return segmentation_read(cJSON_GetObjectItemCaseSensitive(object, "segmentation"), w, h, *mask)
               ? UM_OK
               : truth_fail(UM_EFORMAT,
                            "val: %s: a \"segmentation\" of %s is neither polygons nor run lengths "
                            "of %dx%d pixels",
                            file, f->name, w, h);
}

/* x, y, width, height of what is set. */
static bool mask_box(const uint8_t *mask, int width, int height, double box[4])
{
    int b[4] = {width, height, 0, 0};
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            if (!mask[(size_t)y * (size_t)width + (size_t)x])
                continue;
            b[0] = x < b[0] ? x : b[0];
            b[1] = y < b[1] ? y : b[1];
            b[2] = x + 1 > b[2] ? x + 1 : b[2];
            b[3] = y + 1;
        }
    const double found[4] = {b[0], b[1], b[2] - b[0], b[3] - b[1]};
    memcpy(box, found, sizeof found);
    return b[3] > 0;
}

/* ---- files ---- */

static char *join(const char *a, const char *b)
{
    return text_join(a, *a && *b ? "/" : "", b);
}

static bool is_file(const char *path)
{
    struct stat s;
    return path && stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

static bool is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static bool ends_with(const char *text, size_t n, const char *end)
{
    size_t k = strlen(end);
    return n >= k && strncmp(text + n - k, end, k) == 0;
}

static bool is_json(const char *path)
{
    return ends_with(path, strlen(path), ".json");
}

static size_t stem_length(const char *name)
{
    const char *slash = strrchr(name, '/'), *dot = strrchr(name, '.');
    return dot && dot > (slash ? slash : name) ? (size_t)(dot - name) : strlen(name);
}

struct names {
    char **name; /* relative to the folder */
    long n;
    bool *used;
};

static void names_free(struct names *l)
{
    for (long i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    free(l->used);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Takes the name. */
static um_status add_name(struct names *l, char *name)
{
    if (!list_room(&l->name, l->n, sizeof *l->name))
        return free(name), truth_no_memory();
    l->name[l->n++] = name;
    return UM_OK;
}

/* A folder with those in it. Each is looked into once, whatever links lead there: under its own
 * name if it lies here, else under that of the first link. */
struct walk {
    const char *root;
    const char *const *apart; /* two folders that are not looked into; NULL, or paths or NULL */
    bool deep;
    struct names *files, real, linked; /* real, linked: folders, to be looked into in this order */
    struct place {
        dev_t device;
        ino_t folder;
    } * seen;
    long n;
};

/* Takes the name of what lies in a folder; NULL: its allocation failed. */
static um_status sort_in(struct walk *w, char *name)
{
    struct stat s, own;
    char *path = name ? join(w->root, name) : NULL;
    if (!path)
        return free(name), truth_no_memory();
    bool there = stat(path, &s) == 0, folder = there && S_ISDIR(s.st_mode) && w->deep;
    for (int k = 0; w->apart && k < 2; k++)
        folder = folder && !(w->apart[k] && um_same_file(path, w->apart[k]));
    bool link = folder && lstat(path, &own) == 0 && S_ISLNK(own.st_mode);
    struct names *to = link                          ? &w->linked
                       : folder                      ? &w->real
                       : there && S_ISREG(s.st_mode) ? w->files
                                                     : NULL;
    free(path);
    if (to)
        return add_name(to, name);
    free(name);
    return UM_OK;
}

/* The open folder is looked into. *before: it was already. */
static um_status see_folder(struct walk *w, DIR *dir, bool *before)
{
    struct stat s = {0};
    *before = false;
    if (fstat(dirfd(dir), &s) != 0)
        return truth_fail(UM_EIO, "val: %s: %s", w->root, strerror(errno));
    for (long i = 0; i < w->n && !*before; i++)
        *before = w->seen[i].device == s.st_dev && w->seen[i].folder == s.st_ino;
    if (!list_room(&w->seen, w->n, sizeof *w->seen))
        return truth_no_memory();
    w->seen[w->n++] = (struct place){s.st_dev, s.st_ino};
    return UM_OK;
}

static um_status list_folder(struct walk *w, const char *under)
{
    bool before = false;
    char *path = join(w->root, under);
    DIR *dir = path ? opendir(path) : NULL;
    um_status st = !path  ? truth_no_memory()
                   : !dir ? truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno))
                          : see_folder(w, dir, &before);
    struct dirent *e;
    for (errno = 0; st == UM_OK && !before && (e = readdir(dir)); errno = 0)
        if (e->d_name[0] != '.')
            st = sort_in(w, join(under, e->d_name));
    if (st == UM_OK && !before && errno)
        st = truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno));
    if (dir)
        closedir(dir);
    free(path);
    return st;
}

static void sort_names(struct names *l, long from, int (*order)(const void *a, const void *b))
{
    if (l->n > from)
        qsort(l->name + from, (size_t)(l->n - from), sizeof *l->name, order);
}

/* The files of a folder; `deep`: also of those in it. */
static um_status list_files(const char *root, const char *const *apart, bool deep, struct names *l)
{
    struct walk w = {.root = root, .apart = apart, .deep = deep, .files = l};
    long i = 0, k = 0;
    um_status st = list_folder(&w, "");
    while (st == UM_OK && (i < w.real.n || k < w.linked.n)) {
        if (i == w.real.n)
            sort_names(&w.linked, k, by_text);
        st = list_folder(&w, i < w.real.n ? w.real.name[i++] : w.linked.name[k++]);
    }
    names_free(&w.real);
    names_free(&w.linked);
    free(w.seen);
    sort_names(l, 0, by_text);
    return st;
}

/* ---- opening ---- */

static um_status add_category(truth *t, int64_t id, const char *name)
{
    if (!list_room(&t->category, t->categories, sizeof *t->category))
        return truth_no_memory();
    struct category *c = &t->category[t->categories];
    *c = (struct category){.id = id, .name = name ? strdup(name) : NULL};
    if (name && !c->name)
        return truth_no_memory();
    t->categories++;
    return UM_OK;
}

static struct entry *add_entry(truth *t, const char *folder, const char *name, um_status *st)
{
    if (!list_room(&t->entry, t->entries, sizeof *t->entry))
        return *st = truth_no_memory(), NULL;
    const char *slash = strrchr(name, '/');
    struct entry *e = &t->entry[t->entries];
    *e = (struct entry){.id = t->entries};
    e->image = *name == '/' ? strdup(name) : join(folder, name);
    e->name = strdup(name);
    e->sweep = strndup(name, slash ? (size_t)(slash - name) : 0);
    t->entries++;
    if (!e->image || !e->name || !e->sweep)
        return *st = truth_no_memory(), NULL;
    return e;
}

bool truth_whole(const cJSON *n, int64_t *out)
{
    if (!cJSON_IsNumber(n) || n->valuedouble != floor(n->valuedouble) ||
        !(fabs(n->valuedouble) <= 9007199254740992.))
        return false;
    *out = (int64_t)n->valuedouble;
    return true;
}

/* A flag of COCO, 0 or 1; some write JSON's own, and some leave it out. */
static bool read_flag(const cJSON *f, bool *out)
{
    int64_t n = cJSON_IsTrue(f);
    bool known = !f || cJSON_IsBool(f) || (truth_whole(f, &n) && (n == 0 || n == 1));
    *out = n == 1;
    return known;
}

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const struct entry *)a)->id, y = ((const struct entry *)b)->id;
    return (x > y) - (x < y);
}

static struct entry *find_entry(truth *t, int64_t id)
{
    struct entry key = {.id = id};
    return bsearch(&key, t->entry, (size_t)t->entries, sizeof key, by_id);
}

static int find_category(const truth *t, int64_t id)
{
    for (int i = 0; i < t->categories; i++)
        if (t->category[i].id == id)
            return i;
    return -1;
}

static um_status read_categories(truth *t, const char *path)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(t->coco, "categories"), *c;
    int64_t id;
    if (!cJSON_IsArray(list) || !cJSON_GetArraySize(list))
        return truth_fail(UM_EFORMAT, "val: %s: no \"categories\": not COCO's format", path);
    cJSON_ArrayForEach(c, list)
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(c, "name");
        if (!truth_whole(cJSON_GetObjectItemCaseSensitive(c, "id"), &id))
            return truth_fail(UM_EFORMAT, "val: %s: a category without a whole number as id", path);
        if (find_category(t, id) >= 0)
            return truth_fail(UM_EFORMAT, "val: %s: two categories have id %lld", path,
                              (long long)id);
        um_status st = add_category(t, id, cJSON_IsString(name) ? name->valuestring : NULL);
        if (st != UM_OK)
            return st;
    }
    return UM_OK;
}

static um_status read_images(truth *t, const char *path, const char *folder)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(t->coco, "images"), *i;
    if (!cJSON_IsArray(list) || !cJSON_GetArraySize(list))
        return truth_fail(UM_EFORMAT, "val: %s: no \"images\"", path);
    cJSON_ArrayForEach(i, list)
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(i, "file_name");
        int64_t id, w = 0, h = 0;
        if (!truth_whole(cJSON_GetObjectItemCaseSensitive(i, "id"), &id) || !cJSON_IsString(name))
            return truth_fail(
                UM_EFORMAT, "val: %s: image %ld has no whole number as \"id\" or no \"file_name\"",
                path, t->entries);
        if (!truth_whole(cJSON_GetObjectItemCaseSensitive(i, "width"), &w) ||
            !truth_whole(cJSON_GetObjectItemCaseSensitive(i, "height"), &h) || w < 1 || h < 1 ||
            w > UM_FRAME_MAX_SIDE || h > UM_FRAME_MAX_SIDE)
            return truth_fail(UM_EFORMAT, "val: %s: image %lld (%s) has no \"width\" or \"height\"",
                              path, (long long)id, name->valuestring);
        um_status st = UM_OK;
        struct entry *e = add_entry(t, folder, name->valuestring, &st);
        if (!e)
            return st;
        e->id = id;
        e->width = (int)w;
        e->height = (int)h;
        if (!is_file(e->image))
            return truth_fail(UM_EIO, "val: %s: image %lld: %s is missing (%s)", path,
                              (long long)id, e->image,
                              *e->name == '/' ? "\"file_name\" is a full path, so --pictures DIR "
                                                "does not count"
                                              : "--pictures DIR: where they lie");
    }
    qsort(t->entry, (size_t)t->entries, sizeof *t->entry, by_id);
    for (long k = 1; k < t->entries; k++)
        if (t->entry[k].id == t->entry[k - 1].id)
            return truth_fail(UM_EFORMAT, "val: %s: two images have id %lld", path,
                              (long long)t->entry[k].id);
    return UM_OK;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* No two categories that something is of have one name. Roboflow lists one more, of no annotation,
 * that is called as the whole data set is. */
static um_status check_names(const truth *t, const char *path)
{
    for (int i = 0; i < t->categories; i++)
        for (int k = 0; k < i; k++) {
            const struct category *a = &t->category[k], *b = &t->category[i];
            if (a->used && b->used && a->name && b->name && strcmp(a->name, b->name) == 0)
                return truth_fail(UM_EFORMAT,
                                  "val: %s: two categories, %lld and %lld, are named %s", path,
                                  (long long)a->id, (long long)b->id, a->name);
        }
    return UM_OK;
}

/* No two annotations have one id; they need none. */
static um_status check_ids(const cJSON *annotations, const char *path)
{
    int64_t *id = malloc(((size_t)cJSON_GetArraySize(annotations) + 1) * sizeof *id);
    um_status st = id ? UM_OK : truth_no_memory();
    size_t n = 0;
    const cJSON *a;
    if (st != UM_OK)
        return st;
    cJSON_ArrayForEach(a, annotations)
    {
        n += truth_whole(cJSON_GetObjectItemCaseSensitive(a, "id"), &id[n]);
    }
    qsort(id, n, sizeof *id, by_number);
    for (size_t i = 1; i < n && st == UM_OK; i++)
        if (id[i] == id[i - 1])
            st = truth_fail(UM_EFORMAT, "val: %s: two annotations have id %lld", path,
                            (long long)id[i]);
    free(id);
    return st;
}

/* Could anything be found there? */
static bool is_within(const cJSON *bbox, int width, int height)
{
    double b[4];
    for (int k = 0; k < 4; k++)
        b[k] = cJSON_GetArrayItem(bbox, k)->valuedouble;
    return b[2] > 0 && b[3] > 0 && b[0] < width && b[1] < height && b[0] + b[2] > 0 &&
           b[1] + b[3] > 0;
}

/* Its "bbox"; one that has an outline needs none. */
static um_status check_box(const cJSON *annotation, const struct entry *e, const char *path, long n)
{
    const cJSON *box = cJSON_GetObjectItemCaseSensitive(annotation, "bbox"), *v;
    bool good = cJSON_GetArraySize(box) == 4;
    if (!box && truth_has_mask(annotation))
        return UM_OK;
    cJSON_ArrayForEach(v, box)
    {
        good = good && cJSON_IsNumber(v) && isfinite(v->valuedouble);
    }
    if (!good)
        return truth_fail(UM_EFORMAT, "val: %s: annotation %ld (%s): \"bbox\" is not [x,y,w,h]",
                          path, n, e->name);
    if (!is_within(box, e->width, e->height))
        return truth_fail(UM_EFORMAT,
                          "val: %s: annotation %ld (%s): \"bbox\" has nothing of the image "
                          "of %dx%d pixels",
                          path, n, e->name, e->width, e->height);
    return UM_OK;
}

static um_status read_annotations(truth *t, const char *path)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(t->coco, "annotations"), *a;
    long n = 0;
    if (!cJSON_IsArray(list))
        return truth_fail(UM_EFORMAT, "val: %s: no \"annotations\"", path);
    cJSON_ArrayForEach(a, list)
    {
        int64_t image, category;
        bool crowd;
        n++;
        if (!truth_whole(cJSON_GetObjectItemCaseSensitive(a, "image_id"), &image) ||
            !truth_whole(cJSON_GetObjectItemCaseSensitive(a, "category_id"), &category))
            return truth_fail(UM_EFORMAT,
                              "val: %s: annotation %ld has no whole number as \"image_id\" or as "
                              "\"category_id\"",
                              path, n);
        struct entry *e = find_entry(t, image);
        int known = find_category(t, category);
        if (!e)
            return truth_fail(UM_EFORMAT,
                              "val: %s: annotation %ld is of image %lld, which is not there", path,
                              n, (long long)image);
        if (known < 0)
            return truth_fail(UM_EFORMAT, "val: %s: annotation %ld (%s): unknown category %lld",
                              path, n, e->name, (long long)category);
        um_status st = check_box(a, e, path, n);
        if (st != UM_OK)
            return st;
        if (!read_flag(cJSON_GetObjectItemCaseSensitive(a, "iscrowd"), &crowd))
            return truth_fail(UM_EFORMAT,
                              "val: %s: annotation %ld (%s): \"iscrowd\" is neither 0 nor 1", path,
                              n, e->name);
        if (!list_room(&e->annotation, e->annotations, sizeof *e->annotation))
            return truth_no_memory();
        e->annotation[e->annotations++] = a;
        t->category[known].used = true;
    }
    um_status st = check_names(t, path);
    return st == UM_OK ? check_ids(list, path) : st;
}

static um_status open_coco(truth *t, const char *path, const char *folder)
{
    um_status st = truth_json(&t->coco, path);
    if (st == UM_OK)
        st = read_categories(t, path);
    if (st == UM_OK)
        st = read_images(t, path, folder);
    if (st == UM_OK)
        st = read_annotations(t, path);
    return st;
}

static bool is_image(const char *name)
{
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strcasecmp(name + stem_length(name), ends[i]) == 0)
            return true;
    return false;
}

static int by_nature(const void *a, const void *b)
{
    return um_natural_order(*(char *const *)a, *(char *const *)b);
}

static void say(const truth *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const truth *t, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (t->source.on_notice)
        t->source.on_notice(t->source.ctx, text);
}

static void say_passed_over(const truth *t, const struct names *files)
{
    const char *first = NULL;
    long n = 0;
    for (long i = 0; i < files->n; i++)
        if (!is_image(files->name[i]) && n++ == 0)
            first = files->name[i];
    if (n)
        say(t, "%s: passed over: %ld file%s not called like PNG, JPEG, BMP or TIFF: %s%s",
            t->dataset, n, plural((uint64_t)n), first, n > 1 ? ", ..." : "");
}

/* What is odd in the truth as a whole, once all of it was read. */
static void say_doubts(const truth *t)
{
    if (t->notices > 1)
        say(t, "%s: %ld images have such notices, of which the first was shown", t->dataset,
            t->notices);
    if (t->masks && !t->set)
        say(t, "%s: no mask (of %ld) has a pixel that is not 0", t->dataset, t->masks);
    if (2 * t->large > t->set)
        say(t,
            "%s: %ld of %ld mask%s more than half of the image: every pixel that is not 0 counts, "
            "so what is around a structure must be 0",
            t->dataset, t->large, t->set, t->set == 1 ? " is" : "s are");
    if (t->crowds && t->crowds == t->annotations)
        say(t, "%s: every annotation (%ld) is a crowd (\"iscrowd\"), which is not scored",
            t->dataset, t->crowds);
    if (t->beyond)
        say(t, "%s: %ld %s beyond the image: a \"bbox\" is [x,y,width,height]", t->dataset,
            t->beyond, t->beyond == 1 ? "box reaches" : "boxes reach");
}

/* The first notice of images stands for all. */
static void say_once(void *ctx, const char *text)
{
    truth *t = ctx;
    if (t->notices++ == 0)
        say(t, "%s", text);
}

static void count_mask(truth *t, const uint8_t *mask, const um_frame *image)
{
    size_t all = (size_t)image->width * (size_t)image->height, n = 0;
    for (size_t i = 0; i < all; i++)
        n += mask[i] != 0;
    t->masks++;
    t->set += n > 0;
    t->large += 2 * n > all;
}

static bool is_tagged(const char *name, const char *tag)
{
    return is_image(name) && ends_with(name, stem_length(name), tag);
}

/* The image in the list whose stem is that of `name` and `tag`, of any format; -1: none. */
static long find_image(const struct names *files, const char *name, const char *tag)
{
    size_t stem = stem_length(name), k = strlen(tag);
    long lo = 0, hi = files->n;
    while (lo < hi) { /* the first that is not before NAME_TAG. */
        long mid = lo + (hi - lo) / 2;
        const char *file = files->name[mid];
        int order = strncmp(file, name, stem);
        if (!order && !(order = strncmp(file + stem, tag, k)))
            order = (unsigned char)file[stem + k] - '.';
        lo = order < 0 ? mid + 1 : lo;
        hi = order < 0 ? hi : mid;
    }
    for (; lo < files->n; lo++) {
        const char *file = files->name[lo];
        if (strncmp(file, name, stem) != 0 || strncmp(file + stem, tag, k) != 0 ||
            file[stem + k] != '.')
            break;
        if (stem_length(file) == stem + k && is_image(file))
            return lo;
    }
    return -1;
}

/* The truth of an image in `folder`: STEM_mask.png (tag "_mask"), else STEM.png if `plain`. */
static um_status take_truth(const char *folder, struct names *files, const char *name,
                            const char *tag, bool plain, char **path)
{
    long found = find_image(files, name, tag);
    if (found < 0 && plain)
        found = find_image(files, name, "");
    if (found < 0)
        return UM_OK;
    files->used[found] = true;
    return (*path = join(folder, files->name[found])) ? UM_OK : truth_no_memory();
}

/* Is a file's name that of an image, or one with the tag? */
static bool has_image(const truth *t, const char *file, const char *tag)
{
    size_t n = stem_length(file), k = strlen(tag);
    for (long i = 0; i < t->entries; i++) {
        const char *name = t->entry[i].name;
        size_t m = stem_length(name);
        if (strncmp(file, name, m) == 0 &&
            (m == n || (m + k == n && strncmp(file + m, tag, k) == 0)))
            return true;
    }
    return false;
}

/* A folder of images and what lies in `masks` and `lines` (NULL: beside the images). */
static um_status open_folder(truth *t, const char *dataset, const struct truth_settings *s)
{
    const char *const folder[] = {s->masks ? s->masks : dataset, s->lines ? s->lines : dataset};
    const bool apart[] = {s->masks != NULL, s->lines != NULL};
    static const char *const tag[] = {"_mask", "_line"};
    struct names images = {0}, truths[2] = {{0}, {0}};
    um_status st = list_files(dataset, (const char *[]){s->masks, s->lines}, true, &images);
    sort_names(&images, 0, by_nature);
    for (int k = 0; k < 2 && st == UM_OK; k++)
        if ((st = list_files(folder[k], NULL, true, &truths[k])) == UM_OK && truths[k].n &&
            !(truths[k].used = calloc((size_t)truths[k].n, sizeof(bool))))
            st = truth_no_memory();
    for (long i = 0; i < images.n && st == UM_OK; i++) {
        const char *name = images.name[i];
        if (!is_image(name) || is_tagged(name, "_mask") || is_tagged(name, "_line"))
            continue;
        struct entry *e = add_entry(t, dataset, name, &st);
        char *path[2] = {NULL, NULL};
        for (int k = 0; k < 2 && st == UM_OK; k++)
            st = take_truth(folder[k], &truths[k], name, tag[k], apart[k], &path[k]);
        if (!e) {
            free(path[0]);
            free(path[1]);
            break;
        }
        e->mask = path[0];
        e->line = path[1];
        if (st == UM_OK && !e->mask && !e->line)
            st = truth_fail(
                UM_EIO, "val: %s has no truth: no %.*s%s.png in %s and no %.*s%s.png in %s%s",
                e->image, (int)stem_length(name), name, apart[0] ? "[_mask]" : tag[0], folder[0],
                (int)stem_length(name), name, apart[1] ? "[_line]" : tag[1], folder[1],
                apart[0] || apart[1] ? "" : " (--masks DIR, --lines DIR: where they lie)");
    }
    for (int k = 0; k < 2; k++)
        for (long i = 0; i < truths[k].n && st == UM_OK; i++)
            if (!truths[k].used[i] && is_image(truths[k].name[i]) &&
                (apart[k] || is_tagged(truths[k].name[i], tag[k])))
                st = truth_fail(UM_EIO,
                                has_image(t, truths[k].name[i], tag[k])
                                    ? "val: %s/%s: its image in %s has another truth, too"
                                    : "val: %s/%s is the truth of an image that is missing in %s",
                                folder[k], truths[k].name[i], dataset);
    if (st == UM_OK && !t->entries)
        st = truth_fail(UM_EIO, "val: %s: no images", dataset);
    if (st == UM_OK)
        say_passed_over(t, &images);
    names_free(&images);
    names_free(&truths[0]);
    names_free(&truths[1]);
    return st == UM_OK ? add_category(t, 0, NULL) : st;
}

/* Labelling tools leave a .json of their own beside each image. */
static bool belongs_to_a_mask(const struct names *files, const char *json)
{
    return find_image(files, json, "_mask") >= 0 || find_image(files, json, "_line") >= 0;
}

/* The COCO file of a folder: truth.json, else the only .json that is not of an image with a truth;
 * NULL: there is none. */
static um_status find_coco(const char *folder, char **out)
{
    struct names files = {0};
    um_status st = list_files(folder, NULL, false, &files);
    const char *name = NULL;
    int n = 0;
    for (long i = 0; i < files.n && st == UM_OK; i++) {
        bool sure = strcmp(files.name[i], "truth.json") == 0;
        if (!is_json(files.name[i]) || (!sure && belongs_to_a_mask(&files, files.name[i])))
            continue;
        name = files.name[i];
        n++;
        if (sure) {
            n = 1;
            break;
        }
    }
    if (n > 1)
        st = truth_fail(UM_EINVAL, "val: %s: several .json files, and none is truth.json: name one",
                        folder);
    else if (name && !(*out = join(folder, name)))
        st = truth_no_memory();
    names_free(&files);
    return st;
}

um_status truth_open(truth **out, const char *dataset, const struct truth_settings *s)
{
    truth *t = calloc(1, sizeof *t);
    char *json = NULL;
    *out = NULL;
    if (!t || !(t->dataset = strdup(dataset)) ||
        !(t->folder = is_folder(dataset) ? strdup(dataset) : text_folder(dataset))) {
        truth_close(&t);
        return truth_no_memory();
    }
    t->frames = s->frames;
    t->apart[0] = s->masks;
    t->apart[1] = s->lines;
    t->source = s->source;
    um_status st = UM_OK;
    if (strncmp(dataset, "phantom:", 8) == 0) {
        st = um_source_open(&t->phantom, dataset, NULL);
        if (st == UM_OK && truth_length(t) < 0)
            st = truth_fail(UM_EINVAL, "val: %s has no end: --frames says how many", dataset);
        if (st == UM_OK)
            st = add_category(t, 0, NULL);
    } else if (is_folder(dataset)) {
        if (!s->masks && !s->lines)
            st = find_coco(dataset, &json);
        if (st == UM_OK)
            st = json ? open_coco(t, json, s->images ? s->images : dataset)
                      : open_folder(t, dataset, s);
    } else if (is_json(dataset)) {
        st = open_coco(t, dataset, s->images ? s->images : t->folder);
    } else if (access(dataset, F_OK) != 0) {
        st = truth_fail(UM_EIO, "val: %s: %s", dataset, strerror(errno));
    } else {
        st = truth_fail(UM_EINVAL,
                        "val: %s is neither a folder, nor a COCO .json, nor phantom:", dataset);
    }
    free(json);
    if (st == UM_OK && (s->masks || s->lines) && (t->phantom || t->coco))
        st = truth_fail(UM_EINVAL, "val: %s: --masks and --lines are for folders of images",
                        dataset);
    if (st == UM_OK && s->images && !t->coco)
        st = truth_fail(UM_EINVAL, "val: %s: --pictures is for a COCO .json", dataset);
    if (st != UM_OK)
        truth_close(&t);
    *out = t;
    return st;
}

static void release_frame(struct truth_frame *f)
{
    um_frame_unref(&f->image);
    for (int i = 0; i < f->objects; i++)
        free(f->object[i].mask);
    free(f->object);
    um_free(f->line);
    *f = (struct truth_frame){0};
}

void truth_close(truth **out)
{
    truth *t = *out;
    *out = NULL;
    if (!t)
        return;
    release_frame(&t->frame);
    for (long i = 0; i < t->entries; i++) {
        struct entry *e = &t->entry[i];
        free(e->image);
        free(e->name);
        free(e->sweep);
        free(e->mask);
        free(e->line);
        free((void *)e->annotation);
    }
    for (int i = 0; i < t->categories; i++)
        free(t->category[i].name);
    free(t->category);
    free(t->entry);
    cJSON_Delete(t->coco);
    um_source_close(&t->phantom);
    free(t->dataset);
    free(t->folder);
    free(t);
}

long truth_length(const truth *t)
{
    long n = t->phantom ? um_source_length(t->phantom) : t->entries;
    return t->frames && (n < 0 || t->frames < n) ? t->frames : n;
}

int truth_categories(const truth *t, const struct category **list)
{
    *list = t->category;
    return t->categories;
}

/* `deep`: also in a folder of the root's. */
static bool lies_in(const char *folder, const char *root, bool deep)
{
    char *at = realpath(folder, NULL), *slash;
    bool in = at && um_same_file(at, root);
    while (at && !in && deep && (slash = strrchr(at, '/')) && slash != at) {
        *slash = 0;
        in = um_same_file(at, root);
    }
    free(at);
    return in;
}

bool truth_reads(const truth *t, const char *folder)
{
    if (t->phantom)
        return false;
    /* a COCO file names its images, a folder has whatever lies in it */
    bool in = lies_in(folder, t->folder, !t->coco);
    for (int k = 0; k < 2 && !in; k++)
        in = t->apart[k] && lies_in(folder, t->apart[k], true);
    return in;
}

bool truth_in_time(const truth *t)
{
    return !t->phantom || t->sweep[0];
}

/* ---- one image ---- */

/* The pixels of `map` that are `value`, with the box x, y, width, height. */
static um_status add_bone(struct truth_frame *f, const uint8_t *map, int value, const double box[4])
{
    size_t n = (size_t)f->image->width * (size_t)f->image->height;
    uint8_t *mask = malloc(n);
    if (!mask || !list_room(&f->object, f->objects, sizeof *f->object)) {
        free(mask);
        return truth_no_memory();
    }
    for (size_t i = 0; i < n; i++)
        mask[i] = map[i] == value;
    f->object[f->objects++] =
        (struct truth_object){.box = {box[0], box[1], box[2], box[3]}, .mask = mask};
    return UM_OK;
}

static um_status read_phantom(truth *t, struct truth_frame *f)
{
    um_truth known = {.struct_size = sizeof known};
    um_status st = um_source_read(t->phantom, &f->image);
    if (st == UM_OK)
        st = um_source_truth(t->phantom, &known);
    if (st != UM_OK)
        return st;
    f->id = (int64_t)f->image->id;
    f->name = um_source_frame_name(t->phantom);
    const char *slash = strrchr(f->name, '/');
    snprintf(t->sweep, sizeof t->sweep, "%.*s", slash ? (int)(slash - f->name) : 0, f->name);
    f->sweep = t->sweep;
    f->boxes = true;
    const um_structure whole = {.kind = UM_STRUCTURE_BONE,
                                .box = {known.box[0], known.box[1], known.box[2], known.box[3]}};
    int n = known.map ? known.n_structures : known.has_bone;
    for (int i = 0; i < n && st == UM_OK; i++) {
        const um_structure *one = known.map ? &known.structure[i] : &whole;
        const float *b = one->box;
        if (one->kind == UM_STRUCTURE_BONE)
            st = add_bone(f, known.map ? known.map : known.mask, i + 1,
                          (double[]){(double)b[0], (double)b[1], (double)b[2] - (double)b[0],
                                     (double)b[3] - (double)b[1]});
    }
    return st;
}

/* An image of truth: bytes 0/1, set where any channel is. */
static um_status read_truth(const char *path, const struct truth_frame *f, uint8_t **out)
{
    int w = 0, h = 0;
    um_status st = um_label_read(path, out, &w, &h);
    if (st == UM_OK && (w != f->image->width || h != f->image->height))
        st = truth_fail(UM_EFORMAT, "val: %s has %dx%d pixels, its image %s has %dx%d", path, w, h,
                        f->name, f->image->width, f->image->height);
    return st;
}

/* Has the mask a pixel in the box? */
static bool meets(const uint8_t *mask, int width, int height, const double box[4])
{
    bool found = false;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            found |= mask[(size_t)y * (size_t)width + (size_t)x] && x + 1 > box[0] &&
                     x < box[0] + box[2] && y + 1 > box[1] && y < box[1] + box[3];
    return found;
}

static um_status read_annotated(truth *t, const struct entry *e, struct truth_frame *f)
{
    int w = f->image->width, h = f->image->height;
    if (w != e->width || h != e->height)
        return truth_fail(UM_EFORMAT, "val: %s: %s has %dx%d pixels, its truth says %dx%d",
                          t->dataset, e->name, w, h, e->width, e->height);
    f->boxes = true;
    if (e->annotations && !(f->object = calloc((size_t)e->annotations, sizeof *f->object)))
        return truth_no_memory();
    for (int i = 0; i < e->annotations; i++) {
        const cJSON *a = e->annotation[i];
        struct truth_object *o = &f->object[f->objects++];
        int64_t category = 0;
        truth_whole(cJSON_GetObjectItemCaseSensitive(a, "category_id"), &category);
        read_flag(cJSON_GetObjectItemCaseSensitive(a, "iscrowd"), &o->crowd);
        o->category = find_category(t, category);
        const cJSON *box = cJSON_GetObjectItemCaseSensitive(a, "bbox");
        um_status st = truth_mask(t->dataset, f, a, &o->mask);
        for (int k = 0; k < 4 && box; k++)
            o->box[k] = cJSON_GetArrayItem(box, k)->valuedouble;
        bool good = st != UM_OK || !o->mask ||
                    (box ? meets(o->mask, w, h, o->box) : mask_box(o->mask, w, h, o->box));
        if (!good)
            st = truth_fail(UM_EFORMAT, "val: %s: a \"segmentation\" of %s has no pixel%s",
                            t->dataset, f->name, box ? " in its \"bbox\"" : "");
        if (st != UM_OK)
            return st;
        if (o->mask)
            count_mask(t, o->mask, f->image);
        t->annotations++;
        t->crowds += o->crowd;
        t->beyond += o->box[0] + o->box[2] > w + 1 || o->box[1] + o->box[3] > h + 1;
    }
    return UM_OK;
}

/* A file of one image: a truth says nothing of the others. */
static um_status read_image(truth *t, const char *path, um_frame **out)
{
    um_source *source = NULL;
    um_frame *second = NULL;
    um_source_settings s = t->source;
    s.on_notice = say_once;
    s.ctx = t;
    um_status st = um_source_open(&source, path, &s);
    if (st == UM_OK)
        st = um_source_read(source, out);
    if (st == UM_OK && um_source_read(source, &second) != UM_EOF)
        st = truth_fail(UM_EFORMAT, "val: %s: several images in one file, its truth is of one",
                        path);
    um_frame_unref(&second);
    um_source_close(&source);
    return st;
}

static um_status read_entry(truth *t, const struct entry *e, struct truth_frame *f)
{
    um_status st = read_image(t, e->image, &f->image);
    f->id = e->id;
    f->name = e->name;
    f->sweep = e->sweep;
    if (st == UM_OK)
        st = um_frame_set_source(f->image, e->name);
    if (st == UM_OK && t->coco)
        return read_annotated(t, e, f);
    if (st == UM_OK && e->line)
        st = read_truth(e->line, f, &f->line);
    if (st != UM_OK || !e->mask)
        return st;
    uint8_t *mask = NULL;
    double box[4];
    f->boxes = true;
    st = read_truth(e->mask, f, &mask);
    if (st == UM_OK)
        count_mask(t, mask, f->image);
    if (st == UM_OK && mask_box(mask, f->image->width, f->image->height, box))
        st = add_bone(f, mask, 1, box);
    um_free(mask);
    return st;
}

um_status truth_next(truth *t, struct truth_frame *frame)
{
    release_frame(&t->frame);
    if (t->at >= truth_length(t)) {
        say_doubts(t);
        return UM_EOF;
    }
    um_status st =
        t->phantom ? read_phantom(t, &t->frame) : read_entry(t, &t->entry[t->at], &t->frame);
    t->at++;
    *frame = t->frame;
    return st;
}
