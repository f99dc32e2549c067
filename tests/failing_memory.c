/* SPDX-License-Identifier: Apache-2.0 */
/* A library that is loaded before a program (LD_PRELOAD) and lets one of its allocations fail, also
 * those that other libraries make for it. A place is the chain of calls that leads to an
 * allocation: UM_MEMORY_PLACES names the file that each new one is appended to, a line each, and
 * UM_MEMORY_FAIL the one whose first allocation fails. Loading libraries is left alone. */
#define _GNU_SOURCE /* RTLD_NEXT, dladdr() */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEPTH = 8, OURS = 2, PLACES = 1 << 14 };

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
} real;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t seen[PLACES], wanted; /* guarded by lock */
static int list = -1;
static bool ready;
static __thread __attribute__((tls_model("initial-exec"))) bool inside;

/* The chain of calls, wherever its modules were loaded; 0: the loader's. */
static uint64_t place(void)
{
    void *call[DEPTH];
    uint64_t sum = 14695981039346656037u;
    int n = backtrace(call, DEPTH);
    for (int i = OURS; i < n; i++) {
        Dl_info at = {0};
        if (!dladdr(call[i], &at) || !at.dli_fname)
            continue;
        const char *slash = strrchr(at.dli_fname, '/'), *name = slash ? slash + 1 : at.dli_fname;
        if (strncmp(name, "ld-", 3) == 0)
            return 0;
        for (; *name; name++)
            sum = (sum ^ (unsigned char)*name) * 1099511628211u;
        sum = (sum ^ (uint64_t)((char *)call[i] - (char *)at.dli_fbase)) * 1099511628211u;
    }
    return sum | 1;
}

/* Must this one fail? */
static bool fails(void)
{
    if (!ready || inside)
        return false;
    inside = true;
    bool bad = false;
    uint64_t at = place();
    pthread_mutex_lock(&lock);
    if (at && list >= 0) {
        size_t k = at % PLACES;
        while (seen[k] && seen[k] != at)
            k = (k + 1) % PLACES;
        char line[32];
        if (!seen[k] && write(list, line, (size_t)sprintf(line, "%016llx\n", (long long)at)) < 0)
            abort();
        seen[k] = at;
    } else if (at && at == wanted) {
        wanted = 0;
        bad = true;
    }
    pthread_mutex_unlock(&lock);
    inside = false;
    if (bad)
        errno = ENOMEM;
    return bad;
}

static void find(const char *name, void *function)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    memcpy(function, &symbol, sizeof symbol);
}

__attribute__((constructor)) static void start(void)
{
    void *call[OURS];
    const char *places = getenv("UM_MEMORY_PLACES"), *fail = getenv("UM_MEMORY_FAIL");
    inside = true;
    find("malloc", &real.malloc);
    find("calloc", &real.calloc);
    find("realloc", &real.realloc);
    find("posix_memalign", &real.posix_memalign);
    find("aligned_alloc", &real.aligned_alloc);
    find("mmap", &real.mmap);
    backtrace(call, OURS); /* loads what it needs */
    wanted = fail ? strtoull(fail, NULL, 16) : 0;
    if (places)
        list = open(places, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    inside = false;
    ready = true;
}

void *malloc(size_t size)
{
    if (!real.malloc)
        find("malloc", &real.malloc);
    return fails() ? NULL : real.malloc(size);
}

void *calloc(size_t n, size_t size)
{
    if (!real.calloc)
        find("calloc", &real.calloc);
    return fails() ? NULL : real.calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    if (!real.realloc)
        find("realloc", &real.realloc);
    return fails() ? NULL : real.realloc(old, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    if (!real.posix_memalign)
        find("posix_memalign", &real.posix_memalign);
    return fails() ? ENOMEM : real.posix_memalign(out, align, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    if (!real.aligned_alloc)
        find("aligned_alloc", &real.aligned_alloc);
    return fails() ? NULL : real.aligned_alloc(align, size);
}

void *mmap(void *at, size_t size, int access, int flags, int fd, off_t from)
{
    if (!real.mmap)
        find("mmap", &real.mmap);
    return fails() ? MAP_FAILED : real.mmap(at, size, access, flags, fd, from);
}
