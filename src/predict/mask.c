/* SPDX-License-Identifier: Apache-2.0 */
#include "predict/mask.h"

#include "base/mem.h"
#include "engine/segmenter.h"

#include <string.h>

um_status um_mask_open(um_mask **out, um_device *dev, bool host, int h, int w)
{
    um_mask *m = um_zalloc(sizeof *m);
    int64_t shape[4] = {1, 1, h, w};
    *out = NULL;
    if (!m)
        return um_fail(UM_ENOMEM, "mask");
    m->h = h;
    m->w = w;
    um_status st = um_values_open(&m->values, dev, host, UM_ARRAY_BOOL, host ? 2 : 4,
                                  host ? shape + 2 : shape, "mask");
    if (st != UM_OK)
        um_mask_close(&m);
    *out = m;
    return st;
}

void um_mask_close(um_mask **mask)
{
    um_mask *m = mask ? *mask : NULL;
    if (!m)
        return;
    um_values_unref(&m->values);
    um_free(m);
    *mask = NULL;
}

bool um_mask_on_host(const um_mask *mask)
{
    return mask && mask->values->host;
}

int um_mask_rank(const um_mask *mask)
{
    return mask ? mask->values->rank : 0;
}

void um_mask_shape(const um_mask *mask, int64_t shape[4])
{
    if (mask && shape)
        memcpy(shape, mask->values->shape, (size_t)mask->values->rank * sizeof *shape);
}

const char *um_mask_device(const um_mask *mask)
{
    return !mask ? "" : mask->values->host ? "cpu" : um_device_name(mask->values->dev);
}

const uint8_t *um_mask_data(const um_mask *mask)
{
    return mask ? mask->values->host : NULL;
}

um_values *um_mask_values(const um_mask *mask)
{
    return mask ? um_values_ref(mask->values) : NULL;
}

um_status um_mask_describe(const um_mask *mask, um_device_array *out)
{
    if (!mask || !out)
        return um_fail(UM_EINVAL, "um_mask_describe: %s is NULL", mask ? "out" : "mask");
    return um_values_describe(mask->values, out);
}

um_status um_mask_read(const um_mask *mask, uint8_t *out)
{
    if (!mask || !out)
        return um_fail(UM_EINVAL, "um_mask_read: %s is NULL", mask ? "out" : "mask");
    return um_values_download(mask->values, out, UM_STAGE_PACKET, "mask read by the caller");
}

um_status um_mask_from_host(um_mask **out, um_segmenter *segmenter, const float *values, int height,
                            int width)
{
    if (out)
        *out = NULL;
    if (!out || !segmenter || !values || height < 1 || width < 1 || height > UM_FRAME_MAX_SIDE ||
        width > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EINVAL, "um_mask_from_host: %dx%d", width, height);
    size_t n = (size_t)height * (size_t)width;
    um_mask *m = NULL;
    uint8_t *bits = um_zalloc(n);
    um_status st =
        bits ? um_mask_open(&m, segmenter->dev, false, height, width) : um_fail(UM_ENOMEM, "mask");
    for (size_t i = 0; st == UM_OK && i < n; i++)
        bits[i] = values[i] > 0.5f;
    if (st == UM_OK)
        st = um_upload_now(segmenter->dev, m->values->buf, 0, bits, n, UM_STAGE_SEGMENT,
                           "host mask to the model's device");
    um_free(bits);
    if (st != UM_OK)
        um_mask_close(&m);
    *out = m;
    return st;
}
