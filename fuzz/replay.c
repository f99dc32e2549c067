/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target without libFuzzer: replay [-m MUTATIONS] [-s SEED] FILE|FOLDER…
 * Every file is run as it is, then MUTATIONS times with random bytes changed, removed, repeated or
 * the end cut. The input of the run in progress is the state of a printed seed, so a crash can be
 * repeated. Exit: 0, or 2 for arguments and unreadable files. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 20 };

static uint64_t state;
static int mutations;
static unsigned long long seed = 1, runs;

/* xorshift64* (Vigna 2016) */
static uint64_t draw(uint64_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d % below;
}

/* Values that parsers get wrong. */
static uint64_t edge(void)
{
    static const uint64_t EDGES[] = {0,      1,          0x7f,       0x80,       0xff, 0x7fff,
                                     0xffff, 0x7fffffff, 0x80000000, 0xffffffff, ~0ull};
    return EDGES[draw(sizeof EDGES / sizeof *EDGES)];
}

static size_t mutate(uint8_t *p, size_t n)
{
    for (uint64_t k = 1 + draw(4); k > 0 && n > 0; k--) {
        size_t at = (size_t)draw(n), span = (size_t)draw(n - at < 64 ? n - at : 64) + 1;
        uint64_t value = edge();
        switch (draw(6)) {
        case 0: p[at] ^= (uint8_t)(1 << draw(8)); break;
        case 1: p[at] = (uint8_t)draw(256); break;
        case 2: /* a number of 1, 2, 4 or 8 bytes */
            for (size_t i = 0, bytes = (size_t)1 << draw(4); i < bytes && at + i < n; i++)
                p[at + i] = (uint8_t)(value >> 8 * i);
            break;
        case 3: /* remove */
            memmove(p + at, p + at + span, n - at - span);
            n -= span;
            break;
        case 4: /* repeat */
            if (n + span <= INPUT_MAX) {
                memmove(p + at + span, p + at, n - at);
                n += span;
            }
            break;
        default: n = draw(8) ? n : at; break;
        }
    }
    return n;
}

static void run(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1); /* its own block: a sanitizer sees the first byte too far */
    if (!exact)
        return;
    memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    runs++;
}

static int replay_file(const char *path)
{
    static uint8_t original[INPUT_MAX], changed[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 2;
    }
    size_t n = fread(original, 1, sizeof original, f);
    fclose(f);
    run(original, n);
    if (mutations)
        fprintf(stderr, "%s: seed %llu\n", path, seed);
    state = seed * 0x9e3779b97f4a7c15 + 1;
    for (int i = 0; i < mutations; i++) {
        memcpy(changed, original, n);
        run(changed, mutate(changed, n));
    }
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int replay_path(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return replay_file(path);
    char *names[4096];
    size_t count = 0;
    int rc = 0;
    for (struct dirent *e; (e = readdir(d)) && count < sizeof names / sizeof *names;)
        if (e->d_name[0] != '.' && (names[count] = malloc(strlen(path) + strlen(e->d_name) + 2)))
            sprintf(names[count++], "%s/%s", path, e->d_name);
    closedir(d);
    qsort(names, count, sizeof *names, by_text);
    for (size_t i = 0; i < count; i++) {
        int file_rc = replay_path(names[i]);
        rc = file_rc ? file_rc : rc;
        free(names[i]);
    }
    return rc;
}

int main(int argc, char **argv)
{
    int rc = argc > 1 ? 0 : 2;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-m") == 0 && i + 1 < argc) {
            mutations = atoi(argv[++i]);
        } else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            int path_rc = replay_path(argv[i]);
            rc = path_rc ? path_rc : rc;
        }
    }
    if (rc == 2 && argc < 2)
        fprintf(stderr, "usage: %s [-m MUTATIONS] [-s SEED] FILE|FOLDER…\n", argv[0]);
    fprintf(stderr, "%llu runs\n", runs);
    return rc;
}
