/* SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda_driver.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST = 12000 };

static const struct symbol {
    const char *name;
    int version;
    bool required;
    size_t field;
} symbols[] = {
#define SYMBOL(name, version, required, parameters) \
    {#name, version, required, offsetof(struct um_cuda_driver, name)},
    UM_CU_SYMBOLS(SYMBOL)
#undef SYMBOL
};

/* POSIX's way to make a function pointer of what dlsym() gives. */
static void find(void *library, const char *name, void *function)
{
    void *p = dlsym(library, name);
    memcpy(function, &p, sizeof p);
}

um_status um_cuda_driver_open(struct um_cuda_driver *cu, const char *device)
{
    memset(cu, 0, sizeof *cu);
    const char *path = getenv("ULTRAMOTION_CUDA_DRIVER");
    if (!path || !*path)
        path = "libcuda.so.1";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return um_fail(UM_EUNSUPPORTED, "device %s: no NVIDIA driver was found: %s", device,
                       dlerror());

    um_cu_result (*get_version)(int *) = NULL;
    find(library, "cuDriverGetVersion", &get_version);
    um_cu_result r = get_version ? get_version(&cu->version) : UM_CU_ERROR_NOT_FOUND;
    if (r)
        return um_fail(UM_EUNSUPPORTED, "device %s: %s: cuDriverGetVersion: error %u", device, path,
                       r);
    int major = cu->version / 1000, minor = cu->version % 1000 / 10;
    if (cu->version < OLDEST)
        return um_fail(UM_EUNSUPPORTED,
                       "device %s: %s: the driver is for CUDA %d.%d, want 12.0 or newer", device,
                       path, major, minor);

    um_cu_result (*get)(const char *, void **, int, uint64_t, unsigned *) = NULL;
    find(library, "cuGetProcAddress_v2", &get);
    if (!get)
        return um_fail(UM_EUNSUPPORTED,
                       "device %s: %s: the driver for CUDA %d.%d has no cuGetProcAddress_v2",
                       device, path, major, minor);
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        const struct symbol *s = &symbols[i];
        void *function = NULL;
        r = get(s->name, &function, s->version, 0, NULL);
        if (r)
            function = NULL;
        if (!function && s->required)
            return um_fail(UM_EUNSUPPORTED, "device %s: %s: the driver for CUDA %d.%d has no %s",
                           device, path, major, minor, s->name);
        memcpy((char *)cu + s->field, &function, sizeof function);
    }
    cu->standin = dlsym(library, "um_standin_images");
    find(library, "um_standin_touch", &cu->touch);
    find(library, "um_standin_discard", &cu->discard);
    find(library, "um_standin_error", &cu->error);
    return UM_OK;
}
