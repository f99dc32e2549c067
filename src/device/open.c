/* SPDX-License-Identifier: Apache-2.0 */
/* Opening devices, and what the public header says of them. */
#include "device/backend.h"

#include "base/mem.h"
#include "base/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t um_dtype_size(enum um_dtype dtype)
{
    switch (dtype) {
    case UM_F32: return 4;
    case UM_F16: return 2;
    case UM_BF16: return 2;
    case UM_I32: return 4;
    case UM_U8: return 1;
    case UM_I8: return 1;
    case UM_DTYPES: break;
    }
    return 0;
}

const char *um_precision_name(enum um_dtype dtype)
{
    return dtype == UM_F16 ? "fp16" : dtype == UM_BF16 ? "bf16" : dtype == UM_I8 ? "int8" : "fp32";
}

void um_device_settings_init(um_device_settings *s, size_t struct_size)
{
    static const um_device_settings defaults = {
        .name = "auto", .guard_seed = 1, .precision = "auto"};
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

static bool is_cuda(const char *name)
{
    if (strncmp(name, "cuda:", 5) != 0)
        return false;
    size_t digits = strspn(name + 5, "0123456789");
    return digits > 0 && digits < 6 && name[5 + digits] == 0;
}

static um_status find_precision(const char *name, enum um_dtype *dtype)
{
    static const enum um_dtype all[] = {UM_F32, UM_F16, UM_BF16, UM_I8};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, um_precision_name(all[i])) == 0) {
            *dtype = all[i];
            return UM_OK;
        }
    if (strcmp(name, "auto") == 0)
        return UM_OK;
    return um_fail(UM_EINVAL, "precision \"%s\" is unknown: want auto, fp32, fp16, bf16 or int8",
                   name);
}

static um_status open_host(um_device **out, const um_device_settings *s,
                           um_status (*open)(um_device **, const um_device_settings *))
{
    enum um_dtype dtype = UM_F32;
    um_status st = find_precision(s->precision, &dtype);
    if (st == UM_OK && dtype == UM_F16)
        st = um_fail(UM_EUNSUPPORTED,
                     "precision fp16: not in this build on device %s, only fp32, bf16 and int8",
                     strcmp(s->name, "auto") == 0 ? "cpu (no GPU works)" : s->name);
    if (st == UM_OK)
        st = open(out, s);
    if (st == UM_OK) {
        (*out)->layers = dtype;
        (*out)->choose = strcmp(s->precision, "auto") == 0;
    }
    return st;
}

static um_status open_cuda(um_device **out, const um_device_settings *s, int ordinal)
{
    enum um_dtype dtype = UM_F16;
    um_status st = find_precision(s->precision, &dtype);
    if (st == UM_OK && dtype == UM_I8)
        st = um_fail(UM_EUNSUPPORTED, "precision int8: device cuda:%d has none, want cpu", ordinal);
    if (st == UM_OK)
        st = um_cuda_open(out, ordinal);
    if (st == UM_OK) {
        (*out)->precision = dtype;
        (*out)->choose = strcmp(s->precision, "auto") == 0;
    }
    return st;
}

/* "what: why", the why being the last error. */
static void tell(const um_device_settings *s, const char *what)
{
    char text[1200];
    snprintf(text, sizeof text, "%s: %s", what, um_last_error());
    if (s->log)
        s->log(s->log_ctx, text);
}

/* auto: the first GPU that works, else the processor. */
static um_status open_best(um_device **out, const um_device_settings *s)
{
    char text[400];
    int n = um_cuda_count();
    um_status st = n ? UM_OK : um_cuda_describe(0, text, sizeof text);
    if (st != UM_OK) /* a driver that does not start has some, most likely */
        tell(s, st == UM_EDEVICE ? "cuda:0 is passed over" : "no GPU");
    for (int i = 0; i < n; i++) {
        if (open_cuda(out, s, i) == UM_OK)
            return UM_OK;
        snprintf(text, sizeof text, "cuda:%d is passed over", i);
        tell(s, text);
    }
    return open_host(out, s, um_cpu_open);
}

static um_status open_backend(um_device **out, const um_device_settings *s)
{
    if (strcmp(s->name, "auto") == 0)
        return open_best(out, s);
    if (strcmp(s->name, "cpu") == 0)
        return open_host(out, s, um_cpu_open);
    if (strcmp(s->name, "guard") == 0)
        return open_host(out, s, um_guard_open);
    if (is_cuda(s->name))
        return open_cuda(out, s, atoi(s->name + 5));
    return um_fail(UM_EINVAL, "device \"%s\" is unknown: want auto, cpu, guard or cuda:N", s->name);
}

/* *folder: freed by the caller, NULL = nowhere. */
static um_status find_cache(const char *wanted, char **folder)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *below = "ultramotion";
    *folder = NULL;
    if (!wanted || strcmp(wanted, "off") == 0)
        return UM_OK;
    if (!*wanted)
        return um_fail(UM_EINVAL, "weight_cache \"\": want auto, off or a folder");
    if (strcmp(wanted, "auto") != 0) {
        *folder = um_strdup(wanted);
        return *folder ? UM_OK : um_fail(UM_ENOMEM, "weight_cache");
    }
    if (!cache || *cache != '/') {
        cache = home;
        below = ".cache/ultramotion";
    }
    if (!cache || *cache != '/') /* a user without a home */
        return UM_OK;
    size_t n = strlen(cache) + strlen(below) + 2;
    *folder = um_alloc(n);
    if (!*folder)
        return um_fail(UM_ENOMEM, "weight_cache");
    snprintf(*folder, n, "%s/%s", cache, below);
    return UM_OK;
}

um_status um_device_open(um_device **out, const um_device_settings *settings)
{
    if (!out)
        return um_fail(UM_EINVAL, "um_device_open: nowhere to put the device");
    *out = NULL;
    um_device_settings s;
    um_device_settings_default(&s);
    um_status st = um_record_in(&s, sizeof s, settings, "um_device_settings");
    if (st != UM_OK)
        return st;
    if (!s.name)
        s.name = "auto";
    if (!s.precision)
        s.precision = "auto";
    if (s.threads < 0)
        return um_fail(UM_EINVAL, "um_device_open: %d threads, want 0 (all) or more", s.threads);
    char *cache = NULL;
    st = find_cache(s.weight_cache, &cache);
    if (st == UM_OK)
        st = open_backend(out, &s);
    if (st != UM_OK) {
        um_free(cache);
        return st;
    }
    (*out)->weight_cache = cache;
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&(*out)->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    atomic_init(&(*out)->refs, 1);
    return UM_OK;
}

um_device *um_device_ref(um_device *dev)
{
    if (dev)
        atomic_fetch_add_explicit(&dev->refs, 1, memory_order_relaxed);
    return dev;
}

void um_device_close(um_device **device)
{
    if (!device || !*device)
        return;
    um_device *dev = *device;
    *device = NULL;
    if (atomic_fetch_sub_explicit(&dev->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (dev->capturing) {
        um_graph *g = NULL;
        um_capture_end(dev, &g);
        um_graph_close(&g, dev);
    }
    um_hostbuf_close(&dev->bounce);
    for (int q = 0; q < UM_QUEUES; q++)
        um_event_close(&dev->now[q], dev);
    pthread_mutex_destroy(&dev->lock);
    um_free(dev->weight_cache);
    dev->fns->close(dev);
}

const char *um_device_name(const um_device *device)
{
    return device ? device->name : "";
}

void um_device_weight_cache(const um_device *device, char *text, size_t size)
{
    um_device *dev = (um_device *)(uintptr_t)device;
    um_device_lock(dev);
    snprintf(text, text ? size : 0, "%s",
             !dev                 ? ""
             : dev->cache_said[0] ? dev->cache_said
             : dev->weight_cache  ? dev->weight_cache
                                  : "off");
    um_device_unlock(dev);
}

void *um_device_stream(const um_device *device)
{
    return device ? um_queue_stream((um_device *)(uintptr_t)device, UM_QUEUE_MAIN) : NULL;
}

int um_device_threads(const um_device *device)
{
    return !device ? 0 : device->pool ? um_pool_threads(device->pool) : 1;
}

static void pass_on(void *ctx, const void *what, int thread, uint64_t begin, uint64_t end)
{
    const um_device *dev = ctx;
    const struct um_step *step = what;
    dev->watch(dev->watch_ctx, step->place ? step->place : step->name, step->name, thread, begin,
               end);
}

um_status um_device_watch(um_device *device, um_device_watch_fn *watch, void *ctx)
{
    if (!device)
        return um_fail(UM_EINVAL, "um_device_watch: device is NULL");
    if (device->caps.launches)
        return um_fail(UM_EUNSUPPORTED, "steps on %s are not the host's to time, want device cpu",
                       device->name);
    um_pool_watch(device->pool, NULL,
                  NULL); /* what pass_on() reads changes while nobody computes */
    device->watch = watch;
    device->watch_ctx = ctx;
    if (watch)
        um_pool_watch(device->pool, pass_on, device);
    return UM_OK;
}

void um_device_transfers(const um_device *device, um_transfers *out)
{
    um_device *dev = (um_device *)(uintptr_t)device;
    um_transfers total = {0};
    um_device_lock(dev);
    if (dev) {
        total = dev->total;
        total.shared = dev->caps.shared;
    }
    um_device_unlock(dev);
    if (out)
        *out = total;
}

int um_device_gpus(void)
{
    return um_cuda_count();
}

um_status um_device_describe(const char *name, char *text, size_t size)
{
    if (!name || !text || !size)
        return um_fail(UM_EINVAL, "um_device_describe: %s",
                       name ? "nowhere to put the text" : "no name");
    text[0] = 0;
    if (is_cuda(name))
        return um_cuda_describe(atoi(name + 5), text, size);
    if (strcmp(name, "cpu") == 0)
        snprintf(text, size, "the processor, on the host's memory");
    else if (strcmp(name, "guard") == 0)
        snprintf(text, size, "for tests: the processor, on memory that pretends to be separate");
    else
        return um_fail(UM_EINVAL, "device \"%s\" is unknown: want cpu, guard or cuda:N", name);
    return UM_OK;
}
