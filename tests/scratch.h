/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TEST_SCRATCH_H
#define UM_TEST_SCRATCH_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A scratch folder and its files. */
static char scratch[64];

static inline const char *in_scratch(const char *name)
{
    static char path[4][400];
    static int turn;
    if (!scratch[0]) {
        strcpy(scratch, "/tmp/um_test_XXXXXX");
        if (!mkdtemp(scratch))
            abort();
    }
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch, name);
    return path[turn];
}

static inline void scratch_close(void)
{
    DIR *d = scratch[0] ? opendir(scratch) : NULL;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlink(in_scratch(e->d_name));
    if (d)
        closedir(d);
    if (scratch[0])
        rmdir(scratch);
    scratch[0] = 0;
}

/* ---- whole files ---- */

static inline void spit(const char *path, const void *data, size_t n)
{
    remove(path); /* some file systems wait for the disk when a file is emptied and written again */
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0)
        abort();
}

static inline size_t slurp(const char *path, uint8_t *data, size_t capacity)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(data, 1, capacity, f) : 0;
    if (f)
        fclose(f);
    return n;
}

#endif
