/* SPDX-License-Identifier: Apache-2.0 */
#include "predict/values.h"

#include "base/mem.h"
#include "base/record.h"

#include <string.h>

static size_t element(um_device_array_type type)
{
    static const size_t size[] = {
        [UM_ARRAY_BOOL] = 1, [UM_ARRAY_F32] = 4, [UM_ARRAY_F16] = 2, [UM_ARRAY_BF16] = 2};
    return size[type];
}

static size_t elements(const um_values *a)
{
    size_t n = 1;
    for (int i = 0; i < a->rank; i++)
        n *= (size_t)a->shape[i];
    return n;
}

static size_t bytes_of(const um_values *a)
{
    return elements(a) * element(a->type);
}

um_status um_values_open(um_values **out, um_device *dev, bool host, um_device_array_type type,
                         int rank, const int64_t *shape, const char *label)
{
    um_values *a = um_zalloc(sizeof *a);
    *out = NULL;
    if (!a)
        return um_fail(UM_ENOMEM, "%s", label);
    atomic_init(&a->refs, 1);
    a->dev = um_device_ref(dev);
    a->type = type;
    a->rank = rank;
    for (int i = rank; i-- > 0;) {
        a->shape[i] = shape[i];
        a->strides[i] = i + 1 == rank ? 1 : a->strides[i + 1] * a->shape[i + 1];
    }
    um_status st = UM_OK;
    if (!host)
        st = um_buf_open(&a->buf, dev, bytes_of(a), label);
    else if (!(a->host = um_zalloc(bytes_of(a))))
        st = um_fail(UM_ENOMEM, "%s", label);
    if (st != UM_OK)
        um_values_unref(&a);
    *out = a;
    return st;
}

um_values *um_values_ref(um_values *values)
{
    if (values)
        atomic_fetch_add_explicit(&values->refs, 1, memory_order_relaxed);
    return values;
}

void um_values_unref(um_values **values)
{
    um_values *a = values ? *values : NULL;
    if (!a)
        return;
    *values = NULL;
    if (atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
        return;
    um_buf_close(&a->buf);
    um_device_close(&a->dev);
    um_free(a->host);
    um_free(a);
}

um_status um_values_describe(const um_values *values, um_device_array *out)
{
    const um_values *a = values;
    if (!a || !out)
        return um_fail(UM_EINVAL, "um_values_describe: %s is NULL", a ? "out" : "values");
    um_device_array own = {.struct_size = sizeof own,
                           .data = a->host ? a->host : (void *)um_buf_address(a->buf),
                           .device = a->host ? "cpu" : um_device_name(a->dev),
                           .type = a->type,
                           .rank = a->rank,
                           .stream = a->host ? NULL : um_queue_stream(a->dev, UM_QUEUE_MAIN)};
    memcpy(own.shape, a->shape, sizeof own.shape);
    memcpy(own.strides, a->strides, sizeof own.strides);
    return um_record_out(out, &own, sizeof own, "um_device_array");
}

const void *um_values_host(const um_values *values)
{
    return values ? values->host : NULL;
}

int um_values_read_only(const um_values *values)
{
    return values && values->read_only;
}

um_status um_values_wait(const um_values *values, void *stream)
{
    if (!values)
        return um_fail(UM_EINVAL, "um_values_wait: values is NULL");
    return values->host ? UM_OK : um_queue_lead(values->dev, UM_QUEUE_MAIN, stream);
}

um_status um_values_read(const um_values *values, void *out)
{
    if (!values || !out)
        return um_fail(UM_EINVAL, "um_values_read: %s is NULL", values ? "out" : "values");
    return um_values_download(values, out, UM_STAGE_PACKET, "array read by the caller");
}

static bool contiguous(const um_values *a)
{
    int64_t step = 1;
    for (int i = a->rank; i-- > 0; step *= a->shape[i])
        if (a->shape[i] > 1 && a->strides[i] != step)
            return false;
    return true;
}

um_status um_values_download(const um_values *a, void *out, enum um_stage stage, const char *reason)
{
    size_t size = element(a->type), n = elements(a);
    if (a->host) {
        memcpy(out, a->host, n * size);
        return UM_OK;
    }
    if (contiguous(a))
        return um_download_now(a->dev, out, a->buf, 0, n * size, stage, reason);
    unsigned char *raw = um_alloc(n * size);
    if (!raw)
        return um_fail(UM_ENOMEM, "%s", reason);
    um_status st = um_download_now(a->dev, raw, a->buf, 0, n * size, stage, reason);
    for (size_t i = 0; i < n && st == UM_OK; i++) {
        size_t rest = i, at = 0;
        for (int k = a->rank; k-- > 0; rest /= (size_t)a->shape[k])
            at += rest % (size_t)a->shape[k] * (size_t)a->strides[k];
        memcpy((unsigned char *)out + i * size, raw + at * size, size);
    }
    um_free(raw);
    return st;
}
