/* SPDX-License-Identifier: Apache-2.0 */
/* FOLDER/NAME.packed: a head of one page, then the bytes. NAME is a hash of the key, which the head
 * repeats. The bytes are the machine's own: a head of another byte order has another magic. */
#define _DEFAULT_SOURCE /* flock() */
#include "weights/packed.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    ALIGN = 128,
    NAME = 32, /* hex digits */
    KEPT = 16, /* files in a folder */
    LANES = 8,
    WHAT = 512,
};
static const char END[] = ".packed";
static const uint64_t MAGIC = 0x31646b6361706d75; /* "umpackd1" */
static const uint64_t MOST = (uint64_t)4 << 30;   /* bytes in a folder */
static const time_t OLD_S = 24 * 3600;            /* of a part that nobody finishes any more */

struct head {
    uint64_t magic, size, layout, sum;
    char sha256[64], what[WHAT];
    unsigned char zero[4096 - 5 * 8 - 64 - WHAT];
    uint64_t own; /* sum of all before it */
};
static_assert(sizeof(struct head) == 4096, "one page");

struct um_packed {
    void *map;
    size_t map_size, size;
    uint64_t layout;
};

/* ---- what a file must contain ---- */

/* A sum that any damage changes, as fast as memory: each lane is a chain of steps that lose
 * nothing. It is no secret and no protection against forgery, which the file's owner is. */
struct sum {
    uint64_t lane[LANES];
};

static struct sum sum_begin(void)
{
    struct sum s;
    for (int i = 0; i < LANES; i++)
        s.lane[i] = 0x9e3779b97f4a7c15 * (uint64_t)(i + 1);
    return s;
}

static uint64_t step(uint64_t h, uint64_t word)
{
    return ((h << 29 | h >> 35) ^ word) * 0xd6e8feb86659fd93;
}

/* n: a multiple of 64. */
static void sum_add(struct sum *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (; n; n -= 8 * LANES, p += 8 * LANES) {
        uint64_t word[LANES];
        memcpy(word, p, sizeof word);
        for (int i = 0; i < LANES; i++)
            s->lane[i] = step(s->lane[i], word[i]);
    }
}

static uint64_t sum_end(const struct sum *s)
{
    uint64_t h = 0;
    for (int i = 0; i < LANES; i++)
        h = step(h ^ h >> 32, s->lane[i]);
    return h ^ h >> 32;
}

static uint64_t sum_of_head(const struct head *h)
{
    struct sum s = sum_begin();
    unsigned char words[(offsetof(struct head, own) + 63) / 64 * 64] = {0};
    memcpy(words, h, offsetof(struct head, own));
    sum_add(&s, words, sizeof words);
    return sum_end(&s);
}

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* False: a key that is too long for one. */
static bool make_head(struct head *h, const struct um_packed_key *key)
{
    *h = (struct head){.magic = MAGIC};
    if (strlen(key->sha256) != sizeof h->sha256 || strlen(key->what) >= sizeof h->what)
        return false;
    memcpy(h->sha256, key->sha256, sizeof h->sha256);
    memcpy(h->what, key->what, strlen(key->what));
    return true;
}

/* FOLDER/NAME.packed, or FOLDER/NAME itself; freed by the caller. */
static char *path_in(const char *folder, const char *name, const char *end)
{
    size_t n = strlen(folder) + strlen(name) + strlen(end) + 2;
    char *path = um_alloc(n);
    if (path)
        snprintf(path, n, "%s/%s%s", folder, name, end);
    return path;
}

static char *path_of(const char *folder, const struct head *h)
{
    char name[65];
    um_sha256_hex(name, h->sha256, sizeof h->sha256 + sizeof h->what);
    name[NAME] = 0;
    return path_in(folder, name, END);
}

/* ---- reading ---- */

/* This user's own, and nobody else's to write. */
static bool is_own(const struct stat *s)
{
    return S_ISREG(s->st_mode) && s->st_uid == geteuid() && !(s->st_mode & (S_IWGRP | S_IWOTH));
}

static bool read_head(int fd, struct head *h)
{
    return pread(fd, h, sizeof *h, 0) == (ssize_t)sizeof *h && h->own == sum_of_head(h);
}

/* Map the bytes behind a head that is as expected. */
static um_packed *map_file(int fd, const struct head *want)
{
    struct head h;
    struct stat s;
    if (fstat(fd, &s) != 0 || !is_own(&s) || !read_head(fd, &h) || h.magic != MAGIC ||
        memcmp(h.sha256, want->sha256, sizeof h.sha256) != 0 ||
        memcmp(h.what, want->what, sizeof h.what) != 0 || !h.size || h.size > MOST ||
        (uint64_t)s.st_size != sizeof h + round_up((size_t)h.size))
        return NULL;
    um_packed *p = um_zalloc(sizeof *p);
    if (!p)
        return NULL;
    p->size = (size_t)h.size;
    p->layout = h.layout;
    p->map_size = (size_t)s.st_size;
    p->map = mmap(NULL, p->map_size, PROT_READ, MAP_SHARED, fd, 0);
    if (p->map == MAP_FAILED) {
        um_free(p);
        return NULL;
    }
    struct sum sum = sum_begin();
    sum_add(&sum, (const unsigned char *)p->map + sizeof h, p->map_size - sizeof h);
    if (sum_end(&sum) != h.sum)
        um_packed_close(&p);
    return p;
}

void um_packed_open(um_packed **out, const char *folder, const struct um_packed_key *key)
{
    struct head want;
    *out = NULL;
    char *path = make_head(&want, key) ? path_of(folder, &want) : NULL;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd >= 0) {
        *out = map_file(fd, &want);
        if (*out)
            (void)futimens(fd, NULL); /* used now */
        close(fd);
    }
    um_free(path);
}

void um_packed_close(um_packed **packed)
{
    um_packed *p = *packed;
    if (!p)
        return;
    munmap(p->map, p->map_size);
    um_free(p);
    *packed = NULL;
}

const void *um_packed_data(const um_packed *p, size_t *size)
{
    *size = p->size;
    return (const unsigned char *)p->map + sizeof(struct head);
}

uint64_t um_packed_layout(const um_packed *p)
{
    return p->layout;
}

/* ---- writing ---- */

static um_status make_folder(const char *folder)
{
    char *path = um_strdup(folder);
    if (!path)
        return um_fail(UM_ENOMEM, "%s", folder);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(path, 0700); /* the last one says what is wrong */
        *slash = '/';
    }
    bool there = mkdir(path, 0700) == 0 || errno == EEXIST;
    um_free(path);
    return there ? UM_OK : um_fail(UM_EIO, "%s: cannot be made: %s", folder, strerror(errno));
}

/* *fd: the right to write there, until it is closed. */
static um_status lock_folder(const char *folder, int *fd)
{
    char *path = path_in(folder, "lock", "");
    *fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600) : -1;
    int error = errno;
    um_free(path);
    if (*fd < 0)
        return um_fail(UM_EIO, "%s: cannot be written: %s", folder, strerror(error));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return UM_OK;
    close(*fd);
    *fd = -1;
    return UM_AGAIN;
}

/* Files as um_part_open() calls them, and as path_of(): a folder that somebody named may hold
 * other ones, which are left alone. */
static bool is_part(const char *name)
{
    static const char begin[] = ".ultramotion.", end[] = ".part";
    size_t n = strlen(name), m = sizeof end - 1;
    return strncmp(name, begin, sizeof begin - 1) == 0 && n > m && strcmp(name + n - m, end) == 0;
}

static bool is_packed(const char *name)
{
    return strspn(name, "0123456789abcdef") == NAME && strcmp(name + NAME, END) == 0;
}

/* Remove one file of a folder: a part that was left behind, else, where there is no room for `size`
 * bytes more, the one that was used longest ago. False: there is none. */
static bool remove_one(const char *folder, const char *except, uint64_t size)
{
    DIR *dir = opendir(folder);
    char *victim = NULL;
    time_t oldest = 0;
    bool left = false;
    int packed = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat s;
        bool part = is_part(e->d_name);
        if (!part && !is_packed(e->d_name))
            continue;
        char *path = path_in(folder, e->d_name, "");
        if (path && lstat(path, &s) == 0 && is_own(&s) && strcmp(path, except) != 0 &&
            (!part || s.st_mtime + OLD_S < time(NULL))) {
            left = left || part;
            packed += !part;
            size += part ? 0 : (uint64_t)s.st_size;
            if (!victim || part || s.st_mtime < oldest) {
                oldest = part ? 0 : s.st_mtime;
                um_free(victim);
                victim = path;
                path = NULL;
            }
        }
        um_free(path);
    }
    if (dir)
        closedir(dir);
    bool removed = victim && (left || packed >= KEPT || size > MOST) && unlink(victim) == 0;
    um_free(victim);
    return removed;
}

/* `add` gets all bytes in order, with zeros between the pieces. */
static bool each_byte(const struct um_packed_piece *piece, int pieces, size_t size,
                      bool (*add)(void *ctx, const void *data, size_t n), void *ctx)
{
    static const unsigned char zero[ALIGN];
    size_t at = 0;
    bool good = true;
    for (int i = 0; good && i < pieces; i++) {
        size_t whole = piece[i].size / ALIGN * ALIGN, rest = piece[i].size - whole;
        unsigned char last[ALIGN] = {0};
        for (; good && at < piece[i].off; at += ALIGN)
            good = add(ctx, zero, ALIGN);
        good = good && at == piece[i].off && add(ctx, piece[i].data, whole);
        memcpy(last, (const unsigned char *)piece[i].data + whole, rest);
        good = good && (!rest || add(ctx, last, ALIGN));
        at += whole + (rest ? ALIGN : 0);
    }
    for (; good && at < round_up(size); at += ALIGN)
        good = add(ctx, zero, ALIGN);
    return good && at == round_up(size);
}

static bool add_to_sum(void *sum, const void *data, size_t n)
{
    sum_add(sum, data, n);
    return true;
}

static bool add_to_file(void *part, const void *data, size_t n)
{
    return um_part_write(part, data, n);
}

um_status um_packed_write(const char *folder, const struct um_packed_key *key, uint64_t layout,
                          size_t size, const struct um_packed_piece *piece, int pieces)
{
    struct head h;
    struct sum sum = sum_begin();
    struct um_part part;
    int lock = -1;
    if (!make_head(&h, key) || !size || size > MOST ||
        !each_byte(piece, pieces, size, add_to_sum, &sum))
        return um_fail(UM_EINVAL, "packed weights of %zu bytes in %d pieces", size, pieces);
    h.size = size;
    h.layout = layout;
    h.sum = sum_end(&sum);
    h.own = sum_of_head(&h);
    char *path = path_of(folder, &h);
    um_status st = path ? make_folder(folder) : um_fail(UM_ENOMEM, "%s", folder);
    if (st == UM_OK)
        st = lock_folder(folder, &lock);
    if (st == UM_OK) {
        while (remove_one(folder, path, size))
            ;
        st = um_part_open(&part, path);
        if (st == UM_OK) {
            (void)fchmod(fileno(part.file), 0600);
            if (um_part_write(&part, &h, sizeof h))
                each_byte(piece, pieces, size, add_to_file, &part);
            st = um_part_close(&part, UM_OK);
        }
    }
    if (lock >= 0)
        close(lock);
    um_free(path);
    return st;
}
