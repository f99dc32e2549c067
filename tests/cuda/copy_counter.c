/* SPDX-License-Identifier: Apache-2.0 */
/* Counts what a GPU really copied, beside the ledger: a library that the driver loads into the
 * process when CUDA_INJECTION64_PATH names it. CUPTI reports every copy, fill and kernel, also
 * those inside graphs; the counts are appended to the file that UM_COPY_COUNTS names when the
 * process ends. CUPTI is found at run time (UM_CUPTI names it elsewhere), so that this builds
 * without it: only the first fields of its records are read, which no version has moved. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { KIND_MEMCPY = 1, KIND_MEMSET = 2, KIND_CONCURRENT_KERNEL = 10, KINDS = 3 };
enum { COPY_UP = 1, COPY_DOWN = 2 };
enum { BUFFER = 1 << 20 };

struct record {
    uint32_t kind;
    uint8_t copy_kind, src_kind, dst_kind, flags;
    uint64_t bytes;
};

static int (*next_record)(uint8_t *buffer, size_t size, struct record **record);
static int (*flush_all)(uint32_t flag);
static struct {
    unsigned long long up, up_bytes, down, down_bytes, other, fills, kernels;
} count;

static void give_buffer(uint8_t **buffer, size_t *size, size_t *records)
{
    *buffer = aligned_alloc(8, BUFFER);
    *size = *buffer ? BUFFER : 0;
    *records = 0;
}

static void take_buffer(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    struct record *r = NULL;
    (void)context, (void)stream, (void)size;
    while (valid && next_record(buffer, valid, &r) == 0) {
        if (r->kind == KIND_MEMCPY && r->copy_kind == COPY_UP) {
            count.up++;
            count.up_bytes += r->bytes;
        } else if (r->kind == KIND_MEMCPY && r->copy_kind == COPY_DOWN) {
            count.down++;
            count.down_bytes += r->bytes;
        } else if (r->kind == KIND_MEMCPY)
            count.other++;
        else if (r->kind == KIND_MEMSET)
            count.fills++;
        else if (r->kind == KIND_CONCURRENT_KERNEL)
            count.kernels++;
    }
    free(buffer);
}

static void report(void)
{
    const char *path = getenv("UM_COPY_COUNTS");
    FILE *f;
    flush_all(1);
    f = path ? fopen(path, "a") : stderr;
    if (!f)
        return;
    fprintf(f,
            "{\"up\":%llu,\"up_bytes\":%llu,\"down\":%llu,\"down_bytes\":%llu,\"other\":%llu,"
            "\"fills\":%llu,\"kernels\":%llu}\n",
            count.up, count.up_bytes, count.down, count.down_bytes, count.other, count.fills,
            count.kernels);
    if (f != stderr)
        fclose(f);
}

static void *find(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    if (!symbol)
        fprintf(stderr, "copy_counter: CUPTI has no %s\n", name);
    return symbol;
}

__attribute__((visibility("default"))) int InitializeInjection(void)
{
    static const uint32_t kinds[KINDS] = {KIND_MEMCPY, KIND_MEMSET, KIND_CONCURRENT_KERNEL};
    const char *names[] = {getenv("UM_CUPTI"), "libcupti.so.13", "libcupti.so.12", "libcupti.so"};
    void *cupti = NULL;
    int (*callbacks)(void (*)(uint8_t **, size_t *, size_t *),
                     void (*)(void *, uint32_t, uint8_t *, size_t, size_t));
    int (*enable)(uint32_t kind);
    for (size_t i = 0; !cupti && i < sizeof names / sizeof *names; i++)
        cupti = names[i] ? dlopen(names[i], RTLD_NOW) : NULL;
    if (!cupti) {
        fprintf(stderr, "copy_counter: no CUPTI: %s\n", dlerror());
        return 1;
    }
    *(void **)&callbacks = find(cupti, "cuptiActivityRegisterCallbacks");
    *(void **)&enable = find(cupti, "cuptiActivityEnable");
    *(void **)&next_record = find(cupti, "cuptiActivityGetNextRecord");
    *(void **)&flush_all = find(cupti, "cuptiActivityFlushAll");
    if (!callbacks || !enable || !next_record || !flush_all ||
        callbacks(give_buffer, take_buffer) != 0)
        return 1;
    for (int i = 0; i < KINDS; i++)
        if (enable(kinds[i]) != 0)
            fprintf(stderr, "copy_counter: CUPTI refuses kind %u\n", kinds[i]);
    atexit(report);
    return 1;
}
