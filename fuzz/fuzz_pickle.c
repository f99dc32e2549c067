/* SPDX-License-Identifier: Apache-2.0 */
/* data.pkl of a torch archive: alone, and in an archive with a few storages for its tensors. */
#include "tensors.h"
#include "weights/pickle.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STORAGES = 3, STORAGE_BYTES = 24, HEAD = 30, RECORD = 46, END = 22, NAME_BYTES = 16 };

static void put(uint8_t *p, uint64_t n, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(n >> 8 * i);
}

/* Stored entries: x/data.pkl, x/data/0, x/data/1, … */
static void in_archive(const uint8_t *pickle, size_t size)
{
    static const uint8_t storage[STORAGE_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t directory[(STORAGES + 1) * (RECORD + NAME_BYTES)], *d = directory;
    uint8_t *file = malloc((STORAGES + 1) * (HEAD + NAME_BYTES + STORAGE_BYTES) + sizeof directory +
                           size + END);
    size_t n = 0;
    if (!file)
        return;
    for (int i = 0; i <= STORAGES; i++) {
        char name[NAME_BYTES] = "x/data.pkl";
        if (i > 0)
            snprintf(name, sizeof name, "x/data/%d", i - 1);
        size_t name_bytes = strlen(name), bytes = i ? sizeof storage : size;
        memset(d, 0, RECORD);
        memcpy(d, "PK\1\2", 4);
        put(d + 20, bytes, 4);
        put(d + 24, bytes, 4);
        put(d + 28, name_bytes, 2);
        put(d + 42, n, 4);
        memcpy(d + RECORD, name, name_bytes);
        d += RECORD + name_bytes;
        memset(file + n, 0, HEAD);
        memcpy(file + n, "PK\3\4", 4);
        put(file + n + 26, name_bytes, 2);
        memcpy(file + n + HEAD, name, name_bytes);
        n += HEAD + name_bytes;
        memcpy(file + n, i ? storage : pickle, bytes);
        n += bytes;
    }
    size_t directory_bytes = (size_t)(d - directory);
    memcpy(file + n, directory, directory_bytes);
    memset(file + n + directory_bytes, 0, END);
    memcpy(file + n + directory_bytes, "PK\5\6", 4);
    put(file + n + directory_bytes + 10, STORAGES + 1, 2);
    put(file + n + directory_bytes + 12, directory_bytes, 4);
    put(file + n + directory_bytes + 16, n, 4);
    read_tensors(file, n + directory_bytes + END);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct um_arena arena = {NULL};
    const struct um_pvalue *v = NULL;
    um_status st = um_pickle_read(&arena, data, size, &v);
    if (st == UM_OK && v->kind == UM_P_DICT) {
        if (v->list.count % 2)
            abort(); /* keys and values come in pairs */
        um_pickle_get(um_pickle_get(v, "ema"), "module");
    }
    um_arena_finish(&arena);
    if (st == UM_OK && size > 0)
        in_archive(data, size);
    return 0;
}
