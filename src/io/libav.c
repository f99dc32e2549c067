/* SPDX-License-Identifier: Apache-2.0 */
#include "io/libav.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The versions whose headers this was compiled with: structs are laid out as they say. */
#define SONAME(name, major) "lib" #name ".so." AV_STRINGIFY(major)
#define NAME_AVUTIL SONAME(avutil, LIBAVUTIL_VERSION_MAJOR)
#define NAME_AVCODEC SONAME(avcodec, LIBAVCODEC_VERSION_MAJOR)
#define NAME_AVFORMAT SONAME(avformat, LIBAVFORMAT_VERSION_MAJOR)
#define NAME_SWSCALE SONAME(swscale, LIBSWSCALE_VERSION_MAJOR)

static struct um_libav table;
static char problem[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *find(void *library, const char *name)
{
    void *f = library ? dlsym(library, name) : NULL;
    if (!f && !problem[0])
        snprintf(problem, sizeof problem, "%s is missing", name);
    return f;
}

static void *load(const char *name)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    const char *why = library ? NULL : dlerror();
    if (!library && !problem[0])
        snprintf(problem, sizeof problem, "%s", why ? why : name);
    return library;
}

/* Does the program use libav itself? Then its settings, which are the process's, are left alone. */
static bool in_use(void)
{
    void *library = dlopen(NAME_AVUTIL, RTLD_LAZY | RTLD_NOLOAD);
    if (library)
        dlclose(library);
    return library != NULL;
}

static void load_all(void)
{
    enum { MOST = 1 << 28 }; /* bytes at once, whatever an index claims; a plane of 64 Mpx fits */
    bool theirs = in_use();
    void *avutil = load(NAME_AVUTIL), *avcodec = load(NAME_AVCODEC),
         *avformat = load(NAME_AVFORMAT), *swscale = load(NAME_SWSCALE);
#define UM_LIBAV_LOAD(library, name)       \
    {                                      \
        void *f = find(library, #name);    \
        memcpy(&table.name, &f, sizeof f); \
    }
    UM_LIBAV(UM_LIBAV_LOAD)
    if (problem[0] || theirs)
        return;
    table.av_max_alloc(MOST);
    table.av_log_set_level(AV_LOG_QUIET); /* it would write to stderr */
}

const struct um_libav *um_libav(void)
{
    pthread_once(&once, load_all);
    if (!problem[0])
        return &table;
    um_fail(UM_EUNSUPPORTED,
            "videos need libav: %s: install " NAME_AVFORMAT " and " NAME_SWSCALE
            " (Debian: libavformat%d, libswscale%d)",
            problem, LIBAVFORMAT_VERSION_MAJOR, LIBSWSCALE_VERSION_MAJOR);
    return NULL;
}

um_status um_libav_fail(um_status status, const char *what, int code)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    table.av_strerror(code, text, sizeof text);
    return um_fail(code == AVERROR(ENOMEM) ? UM_ENOMEM : status, "%s: %s", what, text);
}
